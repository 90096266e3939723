"""The promises of the client protocol, whatever happens in whatever order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tornado_live.jsonvalue import Json
from tornado_live.live.causes import (
    LINE_LOST,
    NO_SETUP_ANSWER,
    UNREACHABLE,
    Cause,
    Retry,
    of_close,
    of_status,
)
from tornado_live.live.commands import (
    FORWARD,
    CancelTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Gesture,
    Interrupted,
    ModelMessage,
    Open,
    OpenModel,
    Remember,
    SendToClient,
    SendToModel,
    Speech,
    StartTool,
    Timer,
    Transcribed,
    TurnComplete,
    Typed,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.resources import require
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.models import load_models
from tornado_live.wire.native import ConnectOptions

MODELS = load_models(require("config/models.yaml").read_text(encoding="utf-8"), "models.yaml")
NAMES = [
    "gemini-3.8-live",
    "gemini-3.8-live-extended-thinking",
    "gemini-3.1-flash-live-preview",
    "gemini-2.5-flash-native-audio-preview-12-2025",
    "never-heard-of",
]
CAUSES = [
    LINE_LOST,
    UNREACHABLE,
    NO_SETUP_ANSWER,
    of_status(429, 5.0),
    *(
        of_close(code, reason, facts=None, last_sent="audio", opened=opened, resuming=True)
        for opened in (True, False)
        for code, reason in (
            (1007, "Invalid session handle"),
            (1007, "Request contains an invalid argument."),
            (1008, "BidiGenerateContent session not found"),
            (1011, "Internal error encountered."),
            (1000, ""),
        )
    ),
]
POLICIES = {
    "blocking": CallPolicy(),
    "detached": CallPolicy(on_interrupt="detach"),
    "finishing": CallPolicy(on_interrupt="finish"),
    "interrupting": CallPolicy("background", "interrupt"),
    "idle": CallPolicy("background", "when_idle"),
    "silent": CallPolicy("background", "silent"),
}
OK = ToolResult(True, {"status": "ok"}, 1, summary="done")
GIVING_UP = ToolResult(False, {"status": "error"}, 1, summary="failed")


def content(**fields: object) -> gemini.ServerMessage:
    return gemini.ServerMessage(server_content=gemini.ServerContent(**fields))  # type: ignore[arg-type]


def sound(data: str) -> gemini.ServerMessage:
    part = gemini.Part(inline_data=gemini.InlineData("audio/pcm;rate=24000", data))
    return content(model_turn=gemini.ModelTurn([part]))


class Life(RuleBasedStateMachine):
    """Plays client, model side, tools and clock; keeps the books of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.client_here = True
        self.dialling = self.linked = False
        self.timers: dict[Timer, float] = {}
        self.running: set[str] = set()
        self.issued: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.accepted: list[bytes] = []
        self.sent: list[bytes] = []
        """Speech on this connection."""
        self.ever: set[bytes] = set()
        self.dropped = 0
        self.remembered: Counter[tuple[str, int]] = Counter()
        self.latest = 0
        self.cut: int | None = None
        self.over: set[int] = set()
        self.activity = False
        self.ended = False
        self.serial = 0

    @initialize(
        model=st.sampled_from(NAMES),
        manual=st.booleans(),
        history=st.booleans(),
        grace=st.sampled_from([5.0, 60.0]),
    )
    def begin(self, model: str, manual: bool, history: bool, grace: float) -> None:
        def declarations(_: tuple[str, ...] | None) -> Sequence[Mapping[str, Json]]:
            return [{"name": name, "parameters": {"type": "OBJECT"}} for name in POLICIES]

        self.options = ConnectOptions(activity="manual" if manual else "auto")
        self.talk = Conversation(
            assistants={"default": Assistant("default", model, {}, None)},
            assistant="default",
            allowed_options=frozenset({"activity"}),
            declarations=declarations,
            policy=lambda name: POLICIES.get(name, CallPolicy()),
            upstream="simulator",
            limits=Limits(grace_s=grace),
            models=MODELS,
            jitter=lambda: 0.5,
            history=[("user", "Hello"), ("model", "Hi")] if history else (),
            turn=1 if history else 0,
        )
        self.latest = self.talk.dialogue.turns.number
        self.perform(self.talk.client_came(self.now))
        self.connect()
        self.model_answers()

    # --- the books

    def perform(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case OpenModel():
                    self.dialling, self.linked, self.activity = True, False, False
                case CloseModel():
                    self.dialling = self.linked = self.activity = False
                case SendToModel(payload=payload):
                    assert self.linked, "sent where there is no connection"
                    self.upward(payload)
                case StartTool(id=call_id):
                    assert call_id not in self.running
                    self.running.add(call_id)
                case CancelTool(id=call_id):
                    assert call_id in self.running
                    self.running.discard(call_id)
                case Remember(role=role, turn=turn):
                    if role != "tool":
                        self.remembered[role, turn] += 1
                        assert self.remembered[role, turn] == 1, "remembered twice"
                case SendToClient(event=Interrupted(turn=turn)):
                    self.cut = turn
                    self.told(turn)
                case SendToClient(event=TurnComplete(turn=turn)):
                    self.told(turn)
                    assert turn not in self.over, "completed twice"
                    self.over.add(turn)
                    if self.cut == turn:
                        self.cut = None
                case SendToClient(event=Transcribed() as words):
                    self.told(words.turn)
                    assert words.turn not in self.over, "words of a turn that is over"
                case SendToClient(event=Warned(code="audio_dropped", count=count)):
                    self.dropped += count or 0
                case WakeAfter(timer=timer, seconds=seconds):
                    assert seconds >= 0
                    self.timers[timer] = self.now + seconds
                case CloseClient():
                    self.client_here = False
                    if self.talk.phase is not Phase.CLOSED:
                        self.perform(self.talk.client_left(True, self.now))
                case End():
                    assert not self.ended
                    self.ended = True
                    assert all(self.talk.calls.is_running(call_id) for call_id in self.running)
                case _:
                    pass

    def sends(self, payload: bytes) -> None:
        if not self.talk.input.manual:
            assert payload not in self.ever, "only what was said with push-to-talk is said again"
        self.sent.append(payload)
        self.ever.add(payload)

    def told(self, turn: int) -> None:
        assert turn >= 1
        self.latest = max(self.latest, turn)

    def upward(self, payload: bytes) -> None:
        if payload.startswith(b"speech"):
            self.sends(payload)
            return
        message = json.loads(payload)
        mark = message.get("realtimeInput", {})
        if "activityStart" in mark:
            assert not self.activity
            self.activity = True
        if "activityEnd" in mark:
            assert self.activity
            self.activity = False
        for answer in message.get("toolResponse", {}).get("functionResponses", []):
            call_id = answer["id"]
            assert call_id not in self.cancelled, "an answer to a cancelled call"
            self.answered[call_id] += 1
            assert self.answered[call_id] <= self.issued[call_id], "answered more often than asked"

    def model(self, message: gemini.ServerMessage) -> None:
        commands = self.talk.from_model(message, self.now)
        spoke = commands is FORWARD or any(
            isinstance(command, SendToClient) and isinstance(command.event, ModelMessage)
            for command in commands
        )
        assert not (spoke and self.cut is not None and self.muted()), "sound of an interrupted turn"
        if commands is not FORWARD:
            self.perform(commands)

    def muted(self) -> bool:
        return self.talk.dialogue.turns.muted(self.now)

    def is_live(self) -> bool:
        return self.linked and not self.ended

    def is_here(self) -> bool:
        return self.client_here and not self.ended

    # --- what happens

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0, 3.0, 3.0, 9.0, 9.0, 20.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for timer in sorted(self.timers, key=lambda timer: self.timers[timer]):
            if self.timers[timer] <= self.now and not self.ended:
                del self.timers[timer]
                self.perform(self.talk.woke(timer, self.now))
                break

    @precondition(is_here)
    @rule()
    def connect(self) -> None:
        self.perform(self.talk.from_client(Open(self.options), self.now))

    @precondition(is_here)
    @rule(count=st.integers(1, 4))
    def speak(self, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            speech = Speech(f"speech {self.serial}".encode(), 1.0)
            heard = self.talk.phase is not Phase.IDLE and (
                not self.talk.input.manual or self.talk.input.activity_open
            )
            commands = self.talk.from_client(speech, self.now)
            if heard:
                self.accepted.append(speech.payload)
            if commands is FORWARD:
                assert self.linked
                self.sends(speech.payload)
            else:
                self.perform(commands)

    @precondition(is_here)
    @rule(gesture=st.sampled_from([Gesture.ACTIVITY_START, Gesture.ACTIVITY_END, Gesture.AUDIO_END]))
    def gesture(self, gesture: Gesture) -> None:
        self.perform(self.talk.from_client(gesture, self.now))

    @precondition(is_here)
    @rule()
    def type_text(self) -> None:
        self.perform(self.talk.from_client(Typed("words"), self.now))

    @precondition(is_here)
    @rule(rarely=st.integers(0, 5))
    def disconnect(self, rarely: int) -> None:
        if not rarely:
            self.perform(self.talk.from_client(Gesture.DISCONNECT, self.now))

    @precondition(is_here)
    @rule(rarely=st.integers(0, 9))
    def client_leaves(self, rarely: int) -> None:
        if rarely < 4:
            self.client_here = False
            self.perform(self.talk.client_left(not rarely, self.now))

    @precondition(lambda self: not self.client_here and not self.ended)
    @rule()
    def client_comes_back(self) -> None:
        self.client_comes()

    @precondition(lambda self: not self.ended)
    @rule()
    def client_comes(self) -> None:
        self.client_here = True
        self.perform(self.talk.client_came(self.now))

    @precondition(lambda self: self.dialling and not self.ended)
    @rule()
    def model_answers_at_last(self) -> None:
        self.model_answers()

    @precondition(lambda self: self.dialling and not self.ended)
    @rule()
    def model_answers(self) -> None:
        self.dialling, self.linked = False, True
        self.sent.clear()
        self.perform(self.talk.model_opened(self.now))

    @precondition(lambda self: (self.dialling or self.linked) and not self.ended)
    @rule(cause=st.sampled_from([*CAUSES, *[LINE_LOST] * 8]), rarely=st.integers(0, 2))
    def model_goes(self, cause: Cause, rarely: int) -> None:
        if cause.retry is Retry.RESUME or not rarely:
            self.dialling = self.linked = self.activity = False
            self.perform(self.talk.model_closed(cause, self.now))

    @precondition(is_live)
    @rule(text=st.sampled_from([" one", " two", ""]), finished=st.booleans())
    def model_hears(self, text: str, finished: bool) -> None:
        self.model(content(input_transcription=gemini.Transcription(text, finished)))

    @precondition(is_live)
    @rule(data=st.sampled_from(["AAAA" * 4000, "UklGRg=="]))
    def model_sounds(self, data: str) -> None:
        self.model(sound(data))

    @precondition(is_live)
    @rule(finished=st.booleans())
    def model_speaks(self, finished: bool) -> None:
        self.model(content(output_transcription=gemini.Transcription(" words", finished)))

    @precondition(is_live)
    @rule(
        generated=st.booleans(),
        complete=st.booleans(),
        interrupted=st.booleans(),
        status=st.sampled_from([None, "IN_PROGRESS", "IDLE"]),
    )
    def model_marks(self, generated: bool, complete: bool, interrupted: bool, status: str | None) -> None:
        self.model(
            content(
                generation_complete=generated or None,
                turn_complete=complete or None,
                interrupted=interrupted or None,
                interaction_status=status,
            )
        )

    @precondition(is_live)
    @rule(
        calls=st.lists(
            st.tuples(st.sampled_from("abcdef"), st.sampled_from(sorted(POLICIES)), st.integers(0, 1)),
            max_size=3,
        )
    )
    def model_calls(self, calls: list[tuple[str, str, int]]) -> None:
        wanted = [gemini.FunctionCall(name, call_id, {"x": x}) for call_id, name, x in calls]
        for call_id, _, _ in calls:
            self.issued[call_id] += 1
            self.cancelled.discard(call_id)
        self.model(gemini.ServerMessage(tool_call=gemini.ToolCallMessage(wanted)))

    @precondition(is_live)
    @rule(ids=st.lists(st.sampled_from("abcdef"), max_size=3))
    def model_cancels(self, ids: list[str]) -> None:
        self.cancelled.update(ids)
        self.model(gemini.ServerMessage(tool_call_cancellation=gemini.ToolCallCancellation(ids)))

    @precondition(is_live)
    @rule(resumable=st.booleans(), handle=st.sampled_from([None, "", "h1", "h2"]))
    def model_gives_a_handle(self, resumable: bool, handle: str | None) -> None:
        update = gemini.SessionResumptionUpdate(handle, resumable)
        self.model(gemini.ServerMessage(session_resumption_update=update))

    @precondition(is_live)
    @rule(left=st.sampled_from(["50s", "0s", None, "soon"]))
    def model_says_go_away(self, left: str | None) -> None:
        self.model(gemini.ServerMessage(go_away=gemini.GoAway(left)))

    @precondition(is_live)
    @rule()
    def model_sends_nonsense(self) -> None:
        self.perform(self.talk.unreadable(self.now))

    @precondition(is_live)
    @rule(text=st.sampled_from(["one", "two"]), handle=st.sampled_from(["h3", None]))
    def a_whole_turn(self, text: str, handle: str | None) -> None:
        self.model(content(input_transcription=gemini.Transcription(text)))
        self.model(sound("UklGRg=="))
        self.model(content(output_transcription=gemini.Transcription(text)))
        self.model(content(generation_complete=True))
        self.model(content(turn_complete=True, interaction_status="IDLE"))
        if self.linked:
            self.model_gives_a_handle(True, handle)

    @precondition(lambda self: bool(self.running) and not self.ended)
    @rule(data=st.data(), result=st.sampled_from([OK, GIVING_UP]))
    def tool_ends(self, data: st.DataObject, result: ToolResult) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(call_id)
        self.perform(self.talk.tool_finished(call_id, result, self.now))

    # --- what holds

    @invariant()
    def speech_is_sent_in_order_and_once(self) -> None:
        assert self.sent == sorted(set(self.sent), key=lambda payload: int(payload.split()[1]))

    @invariant()
    def speech_that_was_not_sent_is_held_or_counted(self) -> None:
        if self.talk.phase is Phase.LIVE and self.linked and not self.talk.calls.awaited_here:
            # What was sent on a line that broke, and is too much to say again, is counted although it was sent.
            again = self.dropped if self.talk.input.manual else 0
            assert 0 <= len(self.ever) + self.dropped - len(self.accepted) <= again

    @invariant()
    def there_is_one_way_to_be(self) -> None:
        phase = self.talk.phase
        assert (phase is Phase.LIVE) is self.linked
        assert phase is not Phase.CONNECTING or self.dialling
        assert phase is Phase.CLOSED if self.ended else phase is not Phase.CLOSED

    def teardown(self) -> None:
        if not self.ended:
            self.perform(self.talk.close(None, self.now))
        assert self.ended
        for call_id in sorted(self.running):
            commands = self.talk.tool_finished(call_id, OK, self.now)
            assert not any(isinstance(command, SendToModel) for command in commands)
            assert any(isinstance(command, Remember) and command.role == "tool" for command in commands)


# The same lives in every run, so that what fails is put down to a change; hunts with other seeds are made by hand.
Life.TestCase.settings = settings(
    max_examples=300, stateful_step_count=60, deadline=None, derandomize=True, database=None
)
TestPromises = Life.TestCase
