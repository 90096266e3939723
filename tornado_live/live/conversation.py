"""One conversation between a client and the model side: everything that must be decided, nothing performed. Pure.

Every event returns the commands that it causes, in their order. Time comes in as `now`, in seconds of a clock
that never goes back. The phases:

    IDLE -- Open --> CONNECTING -- model_opened --> LIVE
      ^                  |                           |
      +--- model_closed, DISCONNECT, grace over -----+
    CLOSED after End: nothing is decided any more.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import assert_never

from tornado_live.errors import BadMessage, Limited, LiveError, TimedOut
from tornado_live.jsonvalue import Json
from tornado_live.live.calls import Calls
from tornado_live.live.commands import (
    FORWARD,
    Agree,
    CancelTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Failure,
    Frame,
    FromClient,
    Gesture,
    Interrupted,
    Line,
    ModelMessage,
    Open,
    OpenModel,
    Record,
    Remember,
    Said,
    SendToClient,
    SendToModel,
    Speech,
    StartTool,
    Status,
    Timer,
    ToolCancelled,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Transcribed,
    TurnComplete,
    Typed,
    UsageTotals,
    WakeAfter,
    Warned,
)
from tornado_live.live.options import Plan, plan
from tornado_live.live.transcript import Transcript
from tornado_live.live.turns import Speaking, Turns
from tornado_live.observe.usage import Usage
from tornado_live.sessions.store import clip
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.models import Models
from tornado_live.wire.native import ConnectOptions

HELD_SECONDS = 5.0
"""Microphone audio kept while the model side is being opened; older audio is dropped and counted."""

FRAME_SECONDS = 0.95
"""Between two video frames: one a second, with room for a camera's own unevenness."""

BAD_MESSAGES_A_MINUTE = 20
DIAL_DELAYS = (0.0, 0.3, 1.0)
LEAST_HELD_SECONDS = 0.005
"""What a held message of speech counts at least, so that crumbs of audio cannot pile up."""

HELD_BYTES = 512 * 1024
"""Of what has no duration (typed text, gestures, frames) kept for the same time."""

REDIAL_SECONDS = 1.0
"""From one dial to the next: connect and disconnect in a loop must not hammer the operator's key."""

SEED_CHARS = 24_000
"""About 6,000 tokens of memory are given to a new model session: enough to go on, little to pay for."""


class Phase(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    CLOSED = "closed"


class Conversation:
    """`declarations` gives the function declarations of a toolset (None: all). `history` is the memory of
    the session as (role, text), oldest first; `turn` its latest turn. `upstream` is what CONNECTED says: gemini or
    simulator.
    """

    def __init__(
        self,
        *,
        assistants: Mapping[str, Assistant],
        assistant: str,
        allowed_options: frozenset[str],
        declarations: Callable[[tuple[str, ...] | None], Sequence[Mapping[str, Json]]],
        upstream: str,
        limits: Limits,
        models: Models,
        history: Sequence[tuple[str, str]] = (),
        turn: int = 0,
        usage: Usage | None = None,
    ) -> None:
        self._phase = Phase.IDLE
        self.plan: Plan | None = None
        self.turns = Turns(turn)
        self.transcript = Transcript()
        self.calls = Calls()
        self.usage = usage if usage is not None else Usage()
        self._assistants = assistants
        self._assistant = assistant
        self._allowed = allowed_options
        self._declarations = declarations
        self._upstream = upstream
        self._limits = limits
        self._models = models
        self._history: deque[tuple[str, str]] = deque(history, maxlen=limits.memory_messages)
        self._options: ConnectOptions | None = None
        self._attempt = 0
        self._memory = "none"
        self._held: deque[tuple[bytes, float]] = deque()
        self._held_bytes = 0
        self._dropped: list[float] = []
        self._dialled_at: float | None = None
        self._greeted = self._resumed = False
        self._unnamed_calls = 0
        self._told_unheard = False
        self._activity_open = False
        self._framed_at: float | None = None
        self._told_frames = False
        self._client_here = True
        self._active = 0.0
        self._asked_at: float | None = None
        self._first_sound_ms: int | None = None
        self._bad: deque[float] = deque()

    @property
    def phase(self) -> Phase:
        """Changed by `_enter` alone, which keeps it CLOSED for ever."""
        return self._phase

    def _enter(self, phase: Phase) -> None:
        assert self._phase is not Phase.CLOSED, "nothing is decided after the end"
        self._phase = phase

    # --- the client's side

    def client_came(self, now: float) -> Sequence[Command]:
        """A socket was opened for this conversation, for the first time or again."""
        self._client_here, self._active = True, now
        self._told_unheard = False
        self._greeted = self.phase is not Phase.IDLE
        commands: list[Command] = [WakeAfter(Timer.IDLE, self._limits.idle_timeout_s)]
        commands += self._end_activity()
        if self.phase is Phase.LIVE and self._options is not None:
            self._resumed = True
            commands += [Agree(self._options), SendToClient(self._connected())]
        elif self.phase is Phase.CONNECTING and self._options is not None:
            commands += [Agree(self._options), SendToClient(Status(Line.CONNECTING))]
        else:
            commands.append(WakeAfter(Timer.HELLO, self._limits.hello_timeout_s))
        return commands

    def client_left(self, clean: bool, now: float) -> Sequence[Command]:
        """The socket is gone. `clean`: the client said goodbye, so nobody is waited for."""
        self._client_here = False
        if self.phase is Phase.CLOSED:
            return ()
        if clean or self.phase is Phase.IDLE:
            return self._end(now)
        commands: list[Command] = [*self._end_activity()]
        if self.phase is Phase.LIVE and not self._manual:
            commands.append(SendToModel(gemini.AUDIO_STREAM_END))
        commands.append(Record("client_lost", {}))
        commands.append(WakeAfter(Timer.GRACE, self._limits.grace_s))
        return commands

    def _end_activity(self) -> Sequence[Command]:
        """A line that is cut, or taken over, ends what its client was saying."""
        if not self._activity_open:
            return ()
        self._activity_open = False
        return self._send_up(gemini.ACTIVITY_END, Gesture.ACTIVITY_END)

    def from_client(self, message: FromClient, now: float) -> Sequence[Command]:
        self._active = now
        if isinstance(message, Speech):
            return self._speech(message)
        match message:
            case Open():
                return self._connect(message.options, now)
            case Typed():
                return self._typed(message.text, now)
            case Frame():
                return self._frame(message, now)
            case Gesture.DISCONNECT:
                return self._disconnect(now)
            case Gesture.ACTIVITY_START | Gesture.ACTIVITY_END | Gesture.AUDIO_END:
                return self._gesture(message, now)
            case _:
                assert_never(message)

    def refused(self, error: LiveError, now: float) -> Sequence[Command]:
        """A message that could not be taken. Twenty a minute get a message each; then the line is closed."""
        self._bad.append(now)
        while self._bad and now - self._bad[0] > 60.0:
            self._bad.popleft()
        if len(self._bad) > BAD_MESSAGES_A_MINUTE:
            many = f"More than {BAD_MESSAGES_A_MINUTE} wrong messages in a minute; the last: {error.message}"
            return (CloseClient(BadMessage(many)),)
        return (SendToClient(Failure(error)),)

    def woke(self, timer: Timer, now: float) -> Sequence[Command]:
        if self.phase is Phase.CLOSED:
            return ()
        match timer:
            case Timer.HELLO:
                if self._greeted or not self._client_here:
                    return ()
                seconds = self._limits.hello_timeout_s
                late = f"No conversation was opened within {seconds:g} s; send connect at once."
                return (CloseClient(TimedOut(late)),)
            case Timer.IDLE:
                if not self._client_here:
                    return ()
                left = self._active + self._limits.idle_timeout_s - now
                if left > 0.001:
                    return (WakeAfter(Timer.IDLE, left),)
                minutes = self._limits.idle_timeout_s / 60
                return (CloseClient(TimedOut(f"Nothing was said for {minutes:g} minutes.")),)
            case Timer.GRACE:
                return () if self._client_here else self._end(now)
            case _:
                assert_never(timer)

    def _connect(self, options: ConnectOptions, now: float) -> Sequence[Command]:
        self._greeted = True
        if self.phase is Phase.LIVE or self.phase is Phase.CONNECTING:
            if options != self._options:
                return self.refused(
                    BadMessage("Already connected with other options; send disconnect first."), now
                )
            live = self.phase is Phase.LIVE
            return (SendToClient(self._connected() if live else Status(Line.CONNECTING)),)
        try:
            self.plan = plan(options, self._assistants, self._assistant, self._allowed, self._models)
        except LiveError as error:
            self._greeted = False
            return self.refused(error, now)
        self._options = options
        self._told_unheard = self._activity_open = self._resumed = False
        self._attempt = 0
        self._enter(Phase.CONNECTING)
        return (Agree(options), SendToClient(Status(Line.CONNECTING)), self._open_model(self.plan, now))

    def _disconnect(self, now: float) -> Sequence[Command]:
        commands: list[Command] = []
        if self.phase is not Phase.IDLE:
            commands += self._hang_up(now)
            commands.append(CloseModel())
        commands.append(SendToClient(Status(Line.DISCONNECTED)))
        return commands

    def _speech(self, speech: Speech) -> Sequence[Command]:
        if self.phase is Phase.IDLE:
            return self._unheard(
                "Audio before connect, or after disconnect, is not heard; send connect first."
            )
        if self._manual and not self._activity_open:
            return self._unheard("activity is manual: send activity_start before audio.")
        if self.phase is Phase.LIVE:
            return FORWARD
        self._hold_speech(speech)
        return ()

    def _unheard(self, message: str) -> Sequence[Command]:
        """One error per episode; it never counts towards a close."""
        if self._told_unheard:
            return ()
        self._told_unheard = True
        return (SendToClient(Failure(BadMessage(message))),)

    def _typed(self, text: str, now: float) -> Sequence[Command]:
        if not text.strip():
            return self.refused(BadMessage("text is empty; put the words into data.text."), now)
        if self.phase is Phase.IDLE or self.plan is None:
            return self.refused(BadMessage("text before connect is not heard; send connect first."), now)
        sent = self._send_up(gemini.typed(self.plan.facts, text), "text")
        if self.phase is Phase.LIVE or not sent:
            self.transcript.user_typed(self.turns.user_typed(), text)
            self._asked_at = now
        return sent

    def _frame(self, frame: Frame, now: float) -> Sequence[Command]:
        """A frame too many is dropped and told, once until one is taken again; the line stays open."""
        if self._framed_at is not None and now - self._framed_at < FRAME_SECONDS:
            if self._told_frames:
                return ()
            self._told_frames = True
            wait = round((self._framed_at + FRAME_SECONDS - now) * 1000)
            return (
                SendToClient(Failure(Limited("video: at most one frame a second.", retry_after_ms=wait))),
            )
        self._framed_at, self._told_frames = now, False
        return self._send_up(frame.payload, "video")

    def _gesture(self, gesture: Gesture, now: float) -> Sequence[Command]:
        if gesture is Gesture.AUDIO_END:
            if self._manual and self._activity_open:
                gesture = Gesture.ACTIVITY_END
            elif self._manual:
                return ()
            else:
                return self._send_up(gemini.AUDIO_STREAM_END, "audio_end", silent=True)
        if not self._manual:
            return self.refused(
                BadMessage(f"{gesture} is for push-to-talk; connect with activity: manual first."), now
            )
        if (gesture is Gesture.ACTIVITY_START) is self._activity_open:
            state = "already open; end it first" if self._activity_open else "not open; start it first"
            return self.refused(BadMessage(f"{gesture}: the activity is {state}."), now)
        self._activity_open = gesture is Gesture.ACTIVITY_START
        self._told_unheard = False
        if not self._activity_open:
            self._asked_at = now
        return self._send_up(gemini.ACTIVITY_START if self._activity_open else gemini.ACTIVITY_END, gesture)

    def _send_up(self, payload: bytes, what: str, *, silent: bool = False) -> Sequence[Command]:
        if self.phase is Phase.LIVE:
            return (SendToModel(payload),)
        if self.phase is Phase.CONNECTING:
            if self._held_bytes + len(payload) > HELD_BYTES:
                wait = "Too much was sent before CONNECTED; wait for it, then send this again."
                return (SendToClient(Failure(Limited(wait, retry_after_ms=1000))),)
            self._held_bytes += len(payload)
            self._held.append((payload, 0.0))
            return ()
        return () if silent else self._unheard(f"{what} before connect is not heard; send connect first.")

    @property
    def _manual(self) -> bool:
        return self._options is not None and self._options.activity == "manual"

    def _hold_speech(self, speech: Speech) -> None:
        """The oldest speech goes first; what has no duration stays in its place."""
        self._held.append((speech.payload, max(speech.seconds, LEAST_HELD_SECONDS)))
        while sum(seconds for _, seconds in self._held) > HELD_SECONDS:
            index = next(i for i, (_, seconds) in enumerate(self._held) if seconds)
            self._dropped.append(self._held[index][1])
            del self._held[index]

    def _dropped_speech(self, why: str) -> list[Command]:
        """Tells of speech that was held and is not heard."""
        if not self._dropped:
            return []
        seconds = round(sum(self._dropped), 3)
        count, self._dropped = len(self._dropped), []
        return [
            SendToClient(Warned("audio_dropped", why, count)),
            Record("audio_dropped", {"seconds": seconds}),
        ]

    # --- the model's side

    def model_opened(self, now: float) -> Sequence[Command]:
        """The model side has answered the setup."""
        if self.phase is not Phase.CONNECTING:
            return (CloseModel(),)
        self._enter(Phase.LIVE)
        commands: list[Command] = [SendToClient(self._connected())]
        commands += [SendToModel(payload) for payload, _ in self._held]
        self._held.clear()
        self._held_bytes = 0
        commands += self._dropped_speech(
            "The connection took long; the oldest seconds of speech were not heard."
        )
        commands.append(Record("connected", {"model": self.plan.model if self.plan else ""}))
        return commands

    def model_closed(self, cause: LiveError, now: float) -> Sequence[Command]:
        """The model side could not be opened, or has gone."""
        if self.phase is Phase.CONNECTING and self.plan is not None:
            self._attempt += 1
            if cause.retryable and cause.retry_after_ms is None and self._attempt < len(DIAL_DELAYS):
                return (self._open_model(self.plan, now),)
        elif self.phase is not Phase.LIVE:
            return ()
        commands: list[Command] = list(self._hang_up(now))
        commands.append(SendToClient(Failure(cause)))
        commands.append(SendToClient(Status(Line.DISCONNECTED)))
        commands.append(Record("model_lost", {"code": cause.code, "cause": cause.message}))
        if not self._client_here:
            commands += self._end(now)
        return commands

    def from_model(self, message: gemini.ServerMessage, now: float) -> Sequence[Command]:
        if self.phase is not Phase.LIVE:
            return ()
        content = message.server_content
        if content is not None:
            if self.turns.speaking is Speaking.MODEL and _only_audio(message, content):
                return () if self.turns.muted(now) else FORWARD
            commands = self._content(message, content, now)
        else:
            commands = []
        if message.voice_activity is not None and message.voice_activity.type == "ACTIVITY_END":
            self._asked_at = now
        if message.tool_call is not None:
            commands += self._tool_calls(message.tool_call)
        if message.tool_call_cancellation is not None:
            commands += self._cancelled(message.tool_call_cancellation.ids or [])
        if message.usage_metadata is not None:
            self.usage.add(message.usage_metadata)
            commands.append(SendToClient(UsageTotals(self.usage.as_json())))
        if message.go_away is not None:
            commands.append(Record("go_away", {"timeLeft": message.go_away.time_left}))
        return commands

    def _content(
        self, message: gemini.ServerMessage, content: gemini.ServerContent, now: float
    ) -> list[Command]:
        commands: list[Command] = []
        if content.interrupted:
            commands += self._interrupted(now)
        if content.input_transcription is not None:
            commands += self._heard(content.input_transcription, now)
        if content.model_turn is not None and content.model_turn.parts and not self.turns.muted(now):
            commands += self._model_turn(message, content.model_turn.parts, now)
        if content.output_transcription is not None and not self.turns.muted(now):
            commands += self._spoken(content.output_transcription)
        if content.turn_complete:
            commands += self._turn_complete(message.usage_metadata)
        return commands

    def _heard(self, heard: gemini.Transcription, now: float) -> list[Command]:
        commands: list[Command] = []
        turn = self.turns.user_spoke()
        if heard.text:
            if self.turns.speaking is Speaking.USER:
                self._asked_at = now
            self.transcript.user_piece(turn, heard.text)
            commands.append(SendToClient(Transcribed(heard.text, True, False, turn)))
        if heard.finished and (text := self.transcript.user_ended(turn)):
            commands.append(SendToClient(Transcribed(text, True, True, turn)))
        return commands

    def _model_turn(
        self, message: gemini.ServerMessage, parts: Sequence[gemini.Part], now: float
    ) -> list[Command]:
        commands: list[Command] = []
        sounds = any(part.inline_data is not None for part in parts)
        texts = [part.text for part in parts if part.text and not part.thought]
        if not sounds and not texts:
            return commands
        if self.turns.model_spoke() and self._asked_at is not None:
            self._first_sound_ms = round((now - self._asked_at) * 1000)
            self._asked_at = None
        if sounds:
            commands.append(SendToClient(ModelMessage(message)))
        for text in texts:
            self.transcript.model_said(self.turns.number, text)
            commands.append(SendToClient(Said(text, self.turns.number)))
        return commands

    def _spoken(self, spoken: gemini.Transcription) -> list[Command]:
        commands: list[Command] = []
        if spoken.text:
            self.turns.model_spoke()
            turn = self.turns.number
            self.transcript.model_piece(turn, spoken.text)
            commands.append(SendToClient(Transcribed(spoken.text, False, False, turn)))
        if spoken.finished and (text := self.transcript.model_ended(self.turns.number)):
            commands.append(SendToClient(Transcribed(text, False, True, self.turns.number)))
        return commands

    def _interrupted(self, now: float) -> list[Command]:
        turn = self.turns.interrupted(now)
        if turn is None:
            return []
        commands: list[Command] = [SendToClient(Interrupted(turn))]
        commands += self._finish(turn)
        commands.append(Record("barge_in", {"turn": turn}))
        return commands

    def _turn_complete(self, usage: Mapping[str, Json] | None) -> list[Command]:
        turn = self.turns.completed()
        if turn is None:
            return []
        commands = self._finish(turn)
        commands.append(SendToClient(TurnComplete(turn, _counted(usage))))
        facts: dict[str, Json] = {"turn": turn}
        if self._first_sound_ms is not None:
            facts["firstSoundMs"] = self._first_sound_ms
            self._first_sound_ms = None
        commands.append(Record("turn", facts))
        return commands

    def _finish(self, turn: int) -> list[Command]:
        """The finals that the client has not had, and everything up to this turn into memory."""
        commands: list[Command] = []
        for done in self.transcript.close(turn):
            if done.untold:
                told = Transcribed(done.text, done.role == "user", True, done.turn)
                commands.append(SendToClient(told))
            commands.append(Remember(done.role, done.text, done.turn))
            self._history.append((done.role, clip(done.text, self._limits.memory_message_bytes)))
        return commands

    # --- tools

    def _tool_calls(self, asked: gemini.ToolCallMessage) -> list[Command]:
        commands: list[Command] = []
        if self.turns.speaking is Speaking.NOBODY:
            self.turns.model_spoke()
        for call in asked.function_calls or []:
            call_id = call.id
            if not call_id:
                self._unnamed_calls += 1
                call_id = f"{call.name}-{self._unnamed_calls}"
            if not self.calls.begin(call_id, self.turns.number):
                continue
            args = call.args or {}
            commands.append(SendToClient(ToolStarted(call_id, call.name, args)))
            commands.append(StartTool(call_id, call.name, args))
        return commands

    def tool_progress(self, call_id: str, text: str) -> Sequence[Command]:
        return (SendToClient(ToolProgress(call_id, text)),) if self.calls.is_running(call_id) else ()

    def tool_finished(
        self, call_id: str, name: str, args: Mapping[str, Json], result: ToolResult
    ) -> Sequence[Command]:
        """Nothing, when the call was cancelled or its connection is gone."""
        turn = self.calls.answer(call_id)
        if turn is None or self.phase is not Phase.LIVE:
            return ()
        commands: list[Command] = [
            SendToModel(gemini.tool_response(call_id, name, result.response)),
            SendToClient(ToolFinished(call_id, name, result)),
        ]
        line = f"{name}({json.dumps(args, ensure_ascii=False)}): {result.summary}"
        if not self.transcript.tool(turn, line):
            commands.append(Remember("tool", line, turn))
        facts: dict[str, Json] = {
            "id": call_id,
            "name": name,
            "turn": turn,
            "ok": result.ok,
            "durationMs": result.duration_ms,
        }
        if result.error is not None:
            facts["error"] = result.error.value
        if result.sample:
            facts["sample"] = True
        commands.append(Record("tool_call", facts))
        return commands

    def _cancelled(self, ids: Sequence[str]) -> list[Command]:
        return self._stopped(self.calls.cancel(ids))

    def _stopped(self, running: tuple[str, ...]) -> list[Command]:
        if not running:
            return []
        commands: list[Command] = [CancelTool(call_id) for call_id in running]
        commands.append(SendToClient(ToolCancelled(running)))
        commands.append(Record("tool_cancelled", {"ids": list(running)}))
        return commands

    # --- both

    def _open_model(self, chosen: Plan, now: float) -> OpenModel:
        delay = DIAL_DELAYS[self._attempt]
        if self._dialled_at is not None:
            delay = max(delay, self._dialled_at + REDIAL_SECONDS - now)
        self._dialled_at = now + delay
        seed, self._memory = self._seed()
        declared = self._declarations(chosen.toolset)
        setup = gemini.conversation_setup(chosen.facts, chosen.config, declared, history=seed)
        return OpenModel(setup.payload, gemini.history(chosen.facts, seed) if seed else None, delay)

    def _seed(self) -> tuple[list[tuple[str, str]], str]:
        """What a new model session is told of the past, newest kept, and what CONNECTED says of it."""
        spoken = [(role, text) for role, text in self._history if role != "tool"]
        chosen: list[tuple[str, str]] = []
        room = SEED_CHARS
        for role, text in reversed(spoken):
            if not room:
                break
            chosen.append((role, text[:room]))
            room -= len(chosen[-1][1])
        chosen.reverse()
        if not chosen:
            return [], "none"
        return chosen, "restored" if chosen == spoken else "partial"

    def _connected(self) -> Status:
        assert self.plan is not None
        return Status(
            Line.CONNECTED,
            {
                "model": self.plan.model,
                "assistant": self.plan.assistant,
                "upstream": self._upstream,
                "resumed": self._resumed,
                "memory": self._memory,
            },
        )

    def _hang_up(self, now: float) -> list[Command]:
        """The model side goes, or has gone: open turns are finished as far as they came."""
        commands = self._stopped(self.calls.lost())
        self.turns.lost()
        commands += self._finish(self.turns.number)
        self._dropped += [seconds for _, seconds in self._held if seconds]
        commands += self._dropped_speech(
            "The conversation was not opened; what you said meanwhile was not heard."
        )
        self._enter(Phase.IDLE)
        self._held.clear()
        self._held_bytes = 0
        self._activity_open = self._told_unheard = False
        self._asked_at = self._first_sound_ms = None
        return commands

    def close(self, error: LiveError | None, now: float) -> Sequence[Command]:
        """The session was deleted, or the server stops: both sides are closed."""
        if self.phase is Phase.CLOSED:
            return ()
        commands: list[Command] = [CloseClient(error)] if self._client_here else []
        return [*commands, *self._end(now)]

    def _end(self, now: float) -> list[Command]:
        commands = self._hang_up(now)
        self._enter(Phase.CLOSED)
        return [*commands, CloseModel(), End()]


def _counted(metadata: Mapping[str, Json] | None) -> Mapping[str, Json] | None:
    if metadata is None:
        return None
    spent = Usage()
    spent.add(metadata)
    return spent.as_json()


def _only_audio(message: gemini.ServerMessage, content: gemini.ServerContent) -> bool:
    """Whether there is nothing to decide: one inline part, and no other field that is looked at."""
    turn = content.model_turn
    if turn is None or turn.parts is None or len(turn.parts) != 1 or turn.parts[0].inline_data is None:
        return False
    return (
        content.output_transcription is None
        and content.input_transcription is None
        and not content.interrupted
        and not content.turn_complete
        and message.usage_metadata is None
        and message.tool_call is None
        and message.tool_call_cancellation is None
        and message.voice_activity is None
        and message.go_away is None
    )
