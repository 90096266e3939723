"""The promises to a client of Google's protocol, whatever happens in whatever order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modelling import MODELS

from tornado_live.errors import LiveError
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
    Enter,
    OpenModel,
    Remember,
    SendToClient,
    SendToModel,
    Shown,
    Speech,
    StartTool,
    Timer,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.dialects import GeminiDialect
from tornado_live.live.guest import guest_plan
from tornado_live.live.terms import Terms
from tornado_live.settings import Assistant, DropIn, Limits
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini

NAMES = [
    "gemini-3.8-live",
    "gemini-3.8-live-extended-thinking",
    "gemini-3.1-flash-live-preview",
    "gemini-2.5-flash-native-audio-preview-12-2025",
    "gemini-live-2.5-flash",
    "never-heard-of",
]
CAUSES = [
    LINE_LOST,
    UNREACHABLE,
    NO_SETUP_ANSWER,
    of_status(429, 5.0),
    *(
        of_close(code, reason, facts=None, last_sent=sent, opened=opened, resuming=True)
        for opened in (True, False)
        for sent in ("audio", "text")
        for code, reason in (
            (1007, "Invalid session handle"),
            (1007, "Request contains an invalid argument."),
            (1008, "BidiGenerateContent session not found"),
            (1011, "Internal error encountered."),
            (1000, ""),
        )
    ),
]
OURS = {
    "our_weather": CallPolicy(),
    "our_alarm": CallPolicy("background", "when_idle"),
    "our_diary": CallPolicy(on_interrupt="finish"),
    "our_music": CallPolicy("background", "silent"),
}
CLASHING = "our_diary"
BEHAVIOURS = {"open_door": "BLOCKING", "close_door": "NON_BLOCKING", "ring_bell": None}
UNDECLARED = "who_knows"
EVERY = [*OURS, *BEHAVIOURS, UNDECLARED]
ASSISTANTS = {"default": Assistant("default", "gemini-3.8-live", {}, None)}
FREE = DropIn(enabled=True, assistant="default", models={}, only_models=frozenset(), fields=None)
OK = ToolResult(True, {"status": "ok"}, 1, summary="done")
FAILED = ToolResult(False, {"status": "error"}, 1, summary="failed")
HANDLE = "handle-of-ours"
SESSION = "session-of-ours"
ENDS = ("turnComplete", "generationComplete", "turnCompleteReason")
SOUND = "UklGRg=="


def declaring(*names: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"name": name, "parameters": {"type": "OBJECT"}} for name in names]
    for one in made:
        if behaviour := BEHAVIOURS.get(one["name"]):
            one["behavior"] = behaviour
    return [{"functionDeclarations": made}]


def declared(tools: Any) -> list[str]:
    return [one["name"] for tool in tools for one in tool.get("functionDeclarations", [])]


def content(**fields: Any) -> dict[str, Any]:
    return {"serverContent": fields}


def sound(data: str = SOUND) -> dict[str, Any]:
    return {"parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}]}


@dataclass
class Own:
    """A call that the guest was shown, and what it said to it."""

    name: str
    call: str
    token: str | None = None
    cancelled: bool = False


class Stay(RuleBasedStateMachine):
    """Plays guest, model side, tools and clock; keeps the books of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.dialect = GeminiDialect()
        self.timers: dict[Timer, float] = {}
        self.running: set[str] = set()
        self.ended = self.client_here = False
        # what the guest has seen
        self.seen = self.handles_seen = self.ends_seen = 0
        self.open = self.waits = False
        """Whether it has seen a part of a turn and not its end; whether it waits for the end of an answer."""
        self.activity = False
        self.own: dict[str, Own] = {}
        # what the guest has said
        self.said: dict[bytes, int] = {}
        self.speech: set[bytes] = set()
        self.waiting: dict[bytes, int] = {}
        self.dropped = 0
        self.updates: set[str] = set()
        # the model side
        self.dialling = self.linked = False
        self.connection = 0
        self.sent: list[int] = []
        self.handles: set[str] = set()
        self.issued: Counter[tuple[int, str]] = Counter()
        self.answered: Counter[tuple[int, str]] = Counter()
        self.cancelled: set[str] = set()
        self.hidden: set[str] = set()
        self.keys: set[str] = set()
        self.latest: list[dict[str, Any]] = []
        self.words: Counter[str] = Counter()
        self.by_id: Counter[str] = Counter()
        self.asks: set[str] = set()
        self.model_open = self.spoke = self.thinking = self.eats = self.nudged = self.hidden_call = False
        self.cut = False
        """Whether an interrupted turn is still to end, as Google ends it at once."""
        # the message of the model side that is looked at
        self.current: dict[str, Any] | None = None
        self.shown: list[bytes] = []

    @initialize(
        model=st.sampled_from(NAMES),
        manual=st.booleans(),
        hears=st.sampled_from([(), ("input",), ("output",), ("input", "output")]),
        resumes=st.booleans(),
        history=st.booleans(),
        functions=st.sets(st.sampled_from([*BEHAVIOURS, CLASHING])),
        lasts_s=st.sampled_from([None, None, 300.0]),
    )
    def begin(
        self,
        model: str,
        manual: bool,
        hears: tuple[str, ...],
        resumes: bool,
        history: bool,
        functions: set[str],
        lasts_s: float | None,
    ) -> None:
        self.setup: dict[str, Any] = {"model": f"models/{model}"}
        if functions:
            self.setup["tools"] = declaring(*sorted(functions))
        for side in hears:
            self.setup[f"{side}AudioTranscription"] = {}
        if manual:
            self.setup["realtimeInputConfig"] = {"automatic_activity_detection": {"disabled": True}}
        if resumes:
            self.setup["sessionResumption"] = {}
        if history:
            self.setup["historyConfig"] = {"initial_history_in_client_content": True}
        self.facts = MODELS.of(model)
        self.lasts_s = lasts_s
        self.talk = Conversation(
            assistants=ASSISTANTS,
            assistant="default",
            allowed_options=frozenset(),
            declarations=lambda _: [{"name": name} for name in OURS],
            policy=lambda name: OURS.get(name, CallPolicy()),
            upstream="simulator",
            limits=Limits(),
            models=MODELS,
            jitter=lambda: 0.5,
        )
        self.come(self.setup)
        self.model_answers()

    # --- the guest

    @property
    def resumes(self) -> bool:
        return "sessionResumption" in self.setup

    @property
    def manual(self) -> bool:
        return "realtimeInputConfig" in self.setup

    def is_own(self, name: str) -> bool:
        return name not in OURS or name in declared(self.setup.get("tools", []))

    def come(self, setup: dict[str, Any]) -> None:
        self.setup = deepcopy(setup)
        self.client_here = True
        self.seen = self.handles_seen = self.ends_seen = 0
        self.open = self.waits = self.activity = False
        self.perform(self.talk.client_came(self.now))
        plan = guest_plan(self.setup, FREE, MODELS, ASSISTANTS)
        handle = HANDLE if plan.wants_handles else None
        self.perform(self.talk.vouched(Terms(self.lasts_s), self.now))
        self.perform(self.talk.from_client(Enter(plan, SESSION, handle), self.now))

    def says(self, message: Mapping[str, Any], *, passed: bool = True) -> None:
        """`passed`: it goes up as it is."""
        raw = json.dumps(message).encode()
        if passed:
            self.said[raw] = self.waiting[raw] = self.serial
        said = self.dialect.decode(raw, False)
        assert not isinstance(said, LiveError)
        commands = self.talk.from_client(said, self.now)  # type: ignore[arg-type]
        if type(said) is Speech:
            self.speech.add(raw)
        if commands is FORWARD:
            assert type(said) is Speech
            self.perform([SendToModel(raw, "audio")])  # type: ignore[arg-type]
        else:
            self.perform(commands)

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def is_shown(self, payload: bytes) -> None:
        if not self.client_here:
            return
        told = json.loads(payload)
        assert ("setupComplete" in told) is (self.seen == 0), "the answer to the setup is first, and once"
        self.seen += 1
        if "setupComplete" in told:
            assert told["setupComplete"]["sessionId"] == SESSION
            return
        self.shown.append(payload)
        assert b"theirs" not in payload
        assert b"goAway" not in payload
        if "sessionResumptionUpdate" in told:
            assert self.resumes
            assert told["sessionResumptionUpdate"].get("newHandle") in (HANDLE, None)
            self.handles_seen += "newHandle" in told["sessionResumptionUpdate"]
        for call in told.get("toolCall", {}).get("functionCalls", []):
            assert self.is_own(call["name"])
            assert call["id"]
            if self.current is None:
                self.own[call["id"]] = Own(call["name"], call["id"])
        assert not self.hidden.intersection(told.get("toolCallCancellation", {}).get("ids", []))
        part = told.get("serverContent", {})
        if "inputAudioTranscription" not in self.setup:
            assert "inputTranscription" not in part
            assert "interimInputTranscription" not in part
        if "outputAudioTranscription" not in self.setup:
            assert "outputTranscription" not in part
        words = part.get("outputTranscription", {}).get("text")
        if "toolCall" in told or part.get("modelTurn", {}).get("parts") or words:
            self.open = True
        if part.get("turnComplete"):
            ours = (self.current or {}).get("serverContent", {}).get("turnComplete") is None
            assert self.open or not ours, "an end of ours, of nothing"
            self.open = self.waits = False
            self.ends_seen += 1

    # --- the books

    def perform(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case OpenModel():
                    self.leave_model()
                    self.dialling = True
                    self.opening(json.loads(command.setup)["setup"], command.history)
                case CloseModel():
                    self.leave_model()
                case SendToModel(payload=payload):
                    assert self.linked, "sent where there is no connection"
                    self.upward(payload)
                case StartTool(id=call_id, name=name):
                    assert call_id not in self.running
                    assert not self.is_own(name)
                    self.running.add(call_id)
                case CancelTool(id=call_id):
                    self.running.discard(call_id)
                case SendToClient(event=Shown(payload=payload)):
                    self.is_shown(payload)
                case SendToClient(event=Warned(code="audio_dropped", count=count)):
                    self.dropped += count or 0
                case WakeAfter(timer=timer, seconds=seconds):
                    assert seconds >= 0
                    self.timers[timer] = self.now + seconds
                case CloseClient(error=error):
                    self.closed(error)
                case End():
                    assert not self.ended
                    self.ended = True
                    self.leave_model()
                    assert all(self.talk.calls.is_running(call_id) for call_id in self.running)
                case _:
                    pass

    def leave_model(self) -> None:
        self.dialling = self.linked = False

    def closed(self, error: LiveError | None) -> None:
        if not self.client_here:
            return
        goodbye = self.dialect.goodbye(error)
        assert goodbye.frame is None
        assert len(goodbye.reason.encode()) <= 123
        self.client_here = False
        if self.talk.phase is not Phase.CLOSED:
            self.perform(self.talk.client_left(True, self.now))

    def opening(self, setup: dict[str, Any], history: bytes | None) -> None:
        names = declared(setup.get("tools", []))
        assert len(set(names)) == len(names)
        wanted = set(declared(self.setup.get("tools", [])))
        assert set(names) == wanted | (set(OURS) if self.facts.calls else set())
        handle = setup.get("sessionResumption", {}).get("handle")
        assert handle is None or handle in self.handles
        self.eats = "historyConfig" in setup and (
            history is None or not json.loads(history)["clientContent"]["turnComplete"]
        )

    def upward(self, payload: bytes) -> None:
        message = json.loads(payload)
        serial = self.said.get(payload)
        self.asked(message, by_guest=serial is not None)
        if serial is not None:
            again = payload not in self.waiting
            assert not again or (self.manual and payload in self.speech), "said twice"
            self.waiting.pop(payload, None)
            self.sent.append(serial)
            return
        text = payload.decode()
        if "toolResponse" in message:
            self.answers_came(message)
        elif "contextUpdate" in message:
            tools = message["contextUpdate"]["tools"]["tools"]
            assert set(OURS) <= set(declared(tools))
            assert message["contextUpdate"]["n"] in self.updates
            self.updates.discard(message["contextUpdate"]["n"])
        elif "clientContent" in message or "text" in message.get("realtimeInput", {}):
            self.nudged = True
            for own in self.own.values():
                if own.token and f'"{own.token}' in text.replace("\\", ""):
                    self.words[own.token] += 1
        else:
            mark = message["realtimeInput"]
            assert self.manual or "audioStreamEnd" in mark, "a mark that was not made"

    def answers_came(self, message: dict[str, Any]) -> None:
        for answer in message["toolResponse"]["functionResponses"]:
            if answer.get("willContinue") or "unasked" in str(answer.get("response")):
                continue
            call_id = answer["id"]
            assert call_id not in self.cancelled, "an answer to a cancelled call"
            self.answered[self.connection, call_id] += 1
            times = max(self.issued[self.connection, call_id], 1)
            assert self.answered[self.connection, call_id] <= times, "answered more often than asked"
            self.by_id[answer["response"].get("output", "")] += 1

    def asked(self, message: dict[str, Any], *, by_guest: bool) -> None:
        """What the model side is to say something to."""
        said = message.get("clientContent")
        if said is not None and said.get("turnComplete"):
            if self.eats:
                self.eats = False
            else:
                self.asks.add("text")
        realtime = message.get("realtimeInput", {})
        if realtime.get("text", "").strip() or "activityEnd" in realtime:
            self.asks.add("text")
        if "toolResponse" in message and "willContinue" not in str(message):
            self.asks.add("tool")

    # --- the model side

    def hears(self, message: dict[str, Any]) -> None:
        """The model side says something."""
        raw = json.dumps(message).encode()
        here, live = self.client_here and self.seen > 0, self.linked
        self.current, self.shown = message, []
        self.follow(message)
        commands = self.talk.from_model(gemini.decode(raw), self.now, raw)
        self.perform([SendToClient(Shown(raw))] if commands is FORWARD else commands)
        if here and live:
            self.passed_on(raw, message)
        for call in message.get("toolCall", {}).get("functionCalls", []):
            self.keys.add(json.dumps([call["name"], call["args"]]))
        self.current = None

    def follow(self, message: dict[str, Any]) -> None:
        part = message.get("serverContent", {})
        if part.get("modelTurn") or part.get("outputTranscription") or "toolCall" in message:
            self.model_open = True
        if self.cut or "A" * 99 in str(part) or "thought" in str(part):
            self.spoke = False  # nobody watches what is late, or silent from its beginning
        elif "toolCall" in message or "modelTurn" in part or "text" in part.get("outputTranscription", {}):
            self.spoke = True
        if part.get("interrupted"):
            self.model_open = self.cut = True
        if part.get("turnComplete"):
            self.model_open = self.cut = False
        if part.get("turnComplete") or part.get("interrupted"):
            self.spoke = False
        status = part.get("interactionStatus")
        if status is not None:
            self.thinking = status == "IN_PROGRESS"
        for call in message.get("toolCall", {}).get("functionCalls", []):
            if not self.is_own(call["name"]):
                self.hidden.add(call.get("id", ""))
                self.hidden_call = True

    def passed_on(self, raw: bytes, message: dict[str, Any]) -> None:
        """What a guest is to see of a message: all of it as it came but for what is not its own."""
        shown = [json.loads(payload) for payload in self.shown]
        left = deepcopy(message)
        left.pop("goAway", None)
        update = left.pop("sessionResumptionUpdate", None) or {}
        if self.resumes and update.get("resumable"):
            left["sessionResumptionUpdate"] = {"newHandle": HANDLE, "resumable": True}
        part = left.get("serverContent", {})
        if "inputAudioTranscription" not in self.setup:
            part.pop("inputTranscription", None), part.pop("interimInputTranscription", None)
        if "outputAudioTranscription" not in self.setup:
            part.pop("outputTranscription", None)
        if "toolCallCancellation" in left:
            ids = [one for one in left["toolCallCancellation"]["ids"] if one in self.own or self.unknown(one)]
            left["toolCallCancellation"]["ids"] = ids
            if not ids and message["toolCallCancellation"]["ids"]:
                del left["toolCallCancellation"]
        if "toolCall" in left:
            self.calls_passed_on(left, shown[0] if shown else {})
        if part != message.get("serverContent", {}) and not part:
            del left["serverContent"]
        if self.nudged or self.hidden_call:
            fitting = (
                one
                for one in self.without_ends(left)
                if (self.shown[:1] == [raw] if one == message else shown[:1] == [one] or not one)
            )
            left = next(fitting, left)
        if left == message:
            assert self.shown[:1] == [raw], self.shown
        elif left:
            assert shown[0] == left
        else:
            assert not shown or not shown[0].keys() - {"serverContent", "sessionResumptionUpdate"}
            assert not shown or shown[0].get("serverContent", {"turnComplete": True}) == {
                "turnComplete": True
            }
        extra = shown[1:] if left or left == message else shown
        assert all(
            one.keys() == {"sessionResumptionUpdate"} or one == content(turnComplete=True) for one in extra
        ), "nothing but handles and ends is of ours"

    def without_ends(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is left of a message whose ends, or whose interruption, or both, are none for the guest."""
        kinds = [message]
        for names in (ENDS, ("interrupted",), (*ENDS, "interrupted")):
            left = deepcopy(message)
            for name in names:
                left.get("serverContent", {}).pop(name, None)
            if message.get("serverContent") and not left["serverContent"]:
                del left["serverContent"]
            kinds.append(left)
        return kinds

    def unknown(self, call_id: str) -> bool:
        return all(call_id != known for _, known in self.issued)

    def calls_passed_on(self, left: dict[str, Any], first: dict[str, Any]) -> None:
        seen = first.get("toolCall", {}).get("functionCalls", [])
        rest = list(seen)
        for call in left["toolCall"]["functionCalls"]:
            mine = rest[0] if rest and {**call, "id": rest[0]["id"]} == rest[0] else None
            if mine is not None and call.get("id") in (None, mine["id"]):
                rest.pop(0)
                self.own[mine["id"]] = Own(call["name"], mine["id"])
                self.cancelled.discard(mine["id"])
                self.issued[self.connection, mine["id"]] += "id" not in call
            else:
                self.hidden_call = True
                key = json.dumps([call["name"], call["args"]])
                assert not self.is_own(call["name"]) or key in self.keys, "a call of its own is not shown"
        assert not rest
        if seen or not left["toolCall"]["functionCalls"]:
            left["toolCall"]["functionCalls"] = seen
        else:
            del left["toolCall"]

    # --- what happens

    def is_live(self) -> bool:
        return self.linked and not self.ended

    def is_here(self) -> bool:
        return self.client_here and not self.ended

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0, 9.0, 9.0, 20.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if self.timers[timer] <= self.now]
        if due and not self.ended:
            self.fire(min(due, key=lambda timer: self.timers[timer]))

    def fire(self, timer: Timer) -> None:
        self.now = max(self.now, self.timers.pop(timer))
        self.perform(self.talk.woke(timer, self.now))

    @precondition(is_here)
    @rule(count=st.integers(1, 4), chunked=st.booleans())
    def speak(self, count: int, chunked: bool) -> None:
        for _ in range(count):
            chunk = {"data": f"{self.next():08d}" + "AbCd" * 650, "mime_type": "audio/pcm;rate=1000"}
            self.says({"realtimeInput": {"mediaChunks": [chunk]} if chunked else {"audio": chunk}})

    @precondition(is_here)
    @rule(
        kind=st.sampled_from(
            ["words", "words", "more", "history", "filler", "end", "realtime", "blank", "picture", "unknown"]
        )
    )
    def say(self, kind: str) -> None:
        n = self.next()
        turns: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": f"words {n}"}]}]
        match kind:
            case "realtime":
                self.waits = True
                return self.says({"realtimeInput": {"text": f"words {n}"}})
            case "blank":
                return self.says({"realtimeInput": {"text": " ", "n": n}})
            case "picture":
                return self.says(
                    {"realtimeInput": {"video": {"data": "AQI=", "mimeType": "image/png"}, "n": n}}
                )
            case "unknown":
                return self.says({"somethingNew": {"n": n}})
            case "history":
                turns.append({"role": "model", "parts": [{"text": f"answer {n}"}]})
            case "filler":
                turns = [{"parts": [{"text": "."}]}]
            case "end":
                turns = []
        complete = kind != "more"
        if complete and not (self.talk.hosting is not None and self.talk.hosting.history_due):
            self.waits = True
        return self.says({"clientContent": {"turns": turns, "turnComplete": complete, "n": n}})

    @precondition(is_here)
    @rule(mark=st.sampled_from(["activityStart", "activityEnd", "audioStreamEnd"]), amiss=st.integers(0, 5))
    def mark(self, mark: str, amiss: int) -> None:
        """Mostly such a mark as is due."""
        if mark != "audioStreamEnd" and amiss:
            if not self.manual:
                return
            mark = "activityEnd" if self.activity else "activityStart"
        self.activity = (mark == "activityStart") if "activity" in mark else self.activity
        self.says({"realtimeInput": {mark: True if mark == "audioStreamEnd" else {}, "n": self.next()}})

    @precondition(is_here)
    @rule(functions=st.none() | st.sets(st.sampled_from([*BEHAVIOURS, CLASHING])))
    def update(self, functions: set[str] | None) -> None:
        n = f"update {self.next()}"
        if functions is None:
            self.says({"contextUpdate": {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "n": n}})
        elif CLASHING not in functions:
            self.setup["tools"] = declaring(*sorted(functions)) if functions else []
            self.updates.add(n)
            self.says({"contextUpdate": {"tools": {"tools": self.setup["tools"]}, "n": n}}, passed=False)

    @precondition(lambda self: self.is_here() and self.own)
    @rule(
        data=st.data(),
        names=st.sampled_from([("id", "name"), ("id",), ("name",)]),
        continues=st.integers(0, 4),
        unasked=st.integers(0, 3),
    )
    def answer(self, data: st.DataObject, names: tuple[str, ...], continues: int, unasked: int) -> None:
        """Any of its calls, again and late ones too."""
        ids = data.draw(st.lists(st.sampled_from(sorted(self.own)), min_size=1, max_size=3, unique=True))
        self.answers(ids, names, continues=not continues, unasked=not unasked)

    def answers(
        self,
        ids: Sequence[str],
        names: tuple[str, ...] = ("id", "name"),
        *,
        continues: bool = False,
        unasked: bool = False,
    ) -> None:
        entries: list[dict[str, Any]] = []
        for call_id in ids:
            own, token = self.own[call_id], f"R{self.next()}"
            by_name = [other for other in self.own.values() if other.name == own.name and not other.token]
            if "id" not in names and (len(by_name) != 1 or by_name[0] is not own or own.cancelled):
                names = ("id", "name")
            entry = {"id": call_id, "name": own.name, "response": {"output": f"{token}."}}
            entries.append({name: entry[name] for name in (*names, "response")})
            if continues:
                entries[-1]["willContinue"] = True
            elif own.token is None and not own.cancelled:
                own.token = f"{token}."
        if unasked:
            entries.append({"id": f"u{self.next()}", "name": "x", "response": {"output": "unasked"}})
        self.says({"toolResponse": {"functionResponses": entries}}, passed=False)

    @precondition(is_here)
    @rule(rarely=st.integers(0, 4), clean=st.booleans())
    def guest_leaves(self, rarely: int, clean: bool) -> None:
        if not rarely:
            self.client_here = False
            self.perform(self.talk.client_left(clean, self.now))

    @precondition(lambda self: not self.ended and self.resumes)
    @rule(
        change=st.sampled_from(["", "", "instruction", "transcription", "functions"]),
        rarely=st.integers(0, 2),
    )
    def guest_comes(self, change: str, rarely: int) -> None:
        """Again, or in the place of the one that is here."""
        if self.client_here and rarely:
            return
        setup = {**self.setup, "sessionResumption": {"handle": HANDLE}}
        if change == "instruction":
            setup["systemInstruction"] = {"parts": [{"text": f"Speak of {self.next()}."}]}
        elif change == "transcription":
            setup.pop("outputAudioTranscription", None)
        elif change == "functions":
            setup["tools"] = declaring("ring_bell")
        self.come(setup)

    @precondition(lambda self: self.dialling and not self.ended)
    @rule()
    def model_answers(self) -> None:
        self.dialling, self.linked = False, True
        self.connection += 1
        self.sent.clear()
        self.asks.clear()
        self.model_open = self.cut = self.spoke = self.thinking = self.nudged = self.hidden_call = False
        self.cancelled.clear()
        answer = {"setupComplete": {"sessionId": "theirs"}} if self.connection % 2 else {"setupComplete": {}}
        self.perform(self.talk.model_opened(self.now, json.dumps(answer).encode()))

    @precondition(lambda self: (self.dialling or self.linked) and not self.ended)
    @rule(cause=st.sampled_from([*CAUSES, *[LINE_LOST] * 14]), rarely=st.integers(0, 2))
    def model_goes(self, cause: Cause, rarely: int) -> None:
        if cause.retry is Retry.RESUME or not rarely:
            self.leave_model()
            self.perform(self.talk.model_closed(cause, self.now))

    @precondition(is_live)
    @rule(
        parts=st.sampled_from([None, "sound", "silence", "thought", "text"]),
        heard=st.sampled_from([None, {"text": " one"}, {"text": " two", "finished": True}, {}]),
        spoken=st.sampled_from([None, {"text": " words"}, {"finished": True}, {}]),
        rest=st.sampled_from([{}, {}, {"groundingMetadata": {}}, {"newField": [1]}]),
    )
    def model_speaks(
        self,
        parts: str | None,
        heard: dict[str, Any] | None,
        spoken: dict[str, Any] | None,
        rest: dict[str, Any],
    ) -> None:
        made = dict(rest)
        match parts:
            case "sound":
                made["modelTurn"] = sound(f"{self.next():08d}")
            case "silence":
                made["modelTurn"] = sound("A" * 64_000)
            case "thought":
                made["modelTurn"] = {"parts": [{"text": "Hm", "thought": True}]}
            case "text":
                made["modelTurn"] = {"parts": [{"text": "Yes"}]}
        if heard is not None:
            made["inputTranscription"] = heard
        if spoken is not None:
            made["outputTranscription"] = spoken
        self.hears({"serverContent": made})

    @precondition(is_live)
    @rule(
        marks=st.sets(
            st.sampled_from(["generationComplete", "turnComplete", "interrupted", "sound", "usage"]),
            min_size=1,
        ),
        status=st.sampled_from([None, None, "IN_PROGRESS", "IDLE"]),
    )
    def model_marks(self, marks: set[str], status: str | None) -> None:
        made: dict[str, Any] = dict.fromkeys(sorted(marks - {"sound", "usage"}), True)
        if "sound" in marks:
            made["modelTurn"] = sound()
        if status is not None and self.facts.idle == "interaction_status":
            made["interactionStatus"] = status
        message: dict[str, Any] = {"serverContent": made}
        if "usage" in marks:
            message["usageMetadata"] = {"totalTokenCount": 7}
        self.hears(message)

    @precondition(is_live)
    @rule(
        calls=st.lists(
            st.tuples(st.sampled_from(EVERY), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=3
        ),
        beside=st.sampled_from([None, None, content(modelTurn=sound()), content(), content(newField=1)]),
        early=st.booleans(),
    )
    def model_calls(
        self, calls: list[tuple[str, int, int]], beside: dict[str, Any] | None, early: bool
    ) -> None:
        wanted: list[dict[str, Any]] = []
        for name, x, how in calls:
            call: dict[str, Any] = {"name": name, "args": {"x": x}, "id": f"c{self.next()}"}
            if how == 0 and self.is_own(name):
                del call["id"]
            elif how == 1 and self.latest and self.linked:
                call = self.latest[-1]
            if call in wanted:
                continue
            wanted.append(call)
            if "id" in call:
                self.issued[self.connection, call["id"]] += 1
                if call["id"] in self.own:
                    self.own[call["id"]].cancelled = False
                self.cancelled.discard(call["id"])
                self.latest.append(call)
        self.hears({**deepcopy(beside or {}), "toolCall": {"functionCalls": deepcopy(wanted)}})
        if early and self.facts.turn_after_call == "new" and self.is_live():
            self.hears(content(generationComplete=True))
            if self.is_live():
                self.hears(content(turnComplete=True))

    @precondition(is_live)
    @rule(data=st.data(), beside=st.booleans())
    def model_cancels(self, data: st.DataObject, beside: bool) -> None:
        known = sorted(call_id for connection, call_id in self.issued if connection == self.connection)
        ids = data.draw(
            st.lists(st.sampled_from([*known, "never-issued"]), min_size=1, max_size=3, unique=True)
        )
        self.cancelled.update(ids)
        for call_id in ids:
            if call_id in self.own:
                self.own[call_id].cancelled = True
        self.hears({**(content(interrupted=True) if beside else {}), "toolCallCancellation": {"ids": ids}})

    @precondition(is_live)
    @rule(
        resumable=st.sampled_from([True, True, False]),
        beside=st.sampled_from([{}, {"usageMetadata": {"totalTokenCount": 7}}, content(turnComplete=True)]),
    )
    def model_gives_a_handle(self, resumable: bool, beside: dict[str, Any]) -> None:
        handle = f"theirs-{self.next()}"
        self.handles.add(handle)
        update = {"newHandle": handle, "resumable": True} if resumable else {"resumable": False}
        self.hears({**deepcopy(beside), "sessionResumptionUpdate": update})

    @precondition(is_live)
    @rule(left=st.sampled_from(["50s", "0s", None]), beside=st.booleans())
    def model_says_go_away(self, left: str | None, beside: bool) -> None:
        rest = {"usageMetadata": {"totalTokenCount": 7}} if beside else {}
        self.hears({**rest, "goAway": {} if left is None else {"timeLeft": left}})

    @precondition(is_live)
    @rule(
        message=st.sampled_from(
            [
                {},
                {"serverContent": {}},
                {"newThing": {"of": "tomorrow"}},
                {"voiceActivity": {"type": "ACTIVITY_END"}},
            ]
        )
    )
    def model_says_little(self, message: dict[str, Any]) -> None:
        self.hears(deepcopy(message))

    @precondition(is_live)
    @rule()
    def model_answers_whatever(self) -> None:
        self.whole_turn()

    def whole_turn(self) -> None:
        """As the model side does when it is asked something."""
        turn = [
            content(modelTurn=sound(f"{self.next():08d}"), outputTranscription={"text": " Yes."}),
            content(generationComplete=True),
            content(turnComplete=True),
        ]
        if self.facts.idle == "interaction_status":
            turn[-1]["serverContent"]["interactionStatus"] = "IDLE"
        if self.model_open and "text" in self.asks:
            turn = [content(interrupted=True), content(turnComplete=True), *turn]
        self.asks.clear()
        connection = self.connection
        for message in turn:
            if self.is_live() and self.connection == connection:
                self.hears(message)

    @precondition(lambda self: bool(self.running) and not self.ended)
    @rule(data=st.data(), result=st.sampled_from([OK, FAILED]))
    def tool_ends(self, data: st.DataObject, result: ToolResult) -> None:
        self.ends(data.draw(st.sampled_from(sorted(self.running))), result)

    def ends(self, call_id: str, result: ToolResult = OK) -> None:
        self.running.discard(call_id)
        self.perform(self.talk.tool_finished(call_id, result, self.now))

    @precondition(is_here)
    @rule(stalls=st.booleans())
    def all_settles(self, stalls: bool) -> None:
        """Everybody does what is to be done, and every timer of an answer that is waited for runs out.

        `stalls`: the model side does not go on with an answer that it has begun.
        """
        for _ in range(200):
            if self.ended or not self.client_here or not self.settle(stalls):
                break
        else:
            raise AssertionError("it never comes to rest")
        if self.ended or not self.client_here:
            return
        assert self.talk.phase is Phase.LIVE
        assert not self.open, "the guest waits for the end of a turn"
        assert not self.waits, "the guest waits for an answer"
        assert not self.updates
        assert self.handles_seen or not (self.resumes and self.ends_seen), "a handle follows every turn"
        for own in self.own.values():
            if own.token is not None and not own.cancelled:
                assert self.by_id[own.token] or self.words[own.token], "an answer is lost"
        for (connection, call_id), _ in self.issued.items():
            if connection == self.connection and call_id not in self.cancelled:
                assert self.answered[connection, call_id], "a call is not answered"

    def settle(self, stalls: bool) -> bool:
        """Whether anything was still to be done."""
        asked = [own.call for own in self.own.values() if own.token is None and not own.cancelled]
        watched = self.timers.get(Timer.WATCH)
        if self.dialling:
            self.model_answers()
        elif self.running:
            self.ends(min(self.running))
        elif self.activity and self.manual:
            self.activity = False
            self.says({"realtimeInput": {"activityEnd": {}, "n": self.next()}})
        elif asked:
            self.answers(asked[:1])
        elif self.asks or ((self.model_open or self.thinking) and not (stalls and self.spoke)):
            self.whole_turn()
        elif watched is not None:
            self.fire(Timer.WATCH)
        else:
            return False
        return True

    # --- what holds

    @invariant()
    def what_is_said_goes_up_in_order(self) -> None:
        assert self.sent == sorted(set(self.sent))

    @invariant()
    def what_is_said_goes_up(self) -> None:
        if self.talk.phase is Phase.LIVE and not self.talk.calls.awaited_here:
            assert self.waiting.keys() <= self.speech
            again = self.dropped if self.manual else 0
            assert 0 <= self.dropped - len(self.waiting) <= again

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert all(times == 1 for times in self.words.values())

    @invariant()
    def the_setup_is_answered(self) -> None:
        if self.talk.phase is Phase.LIVE and self.client_here:
            assert self.seen

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
        for call_id in sorted(self.running):  # what is to be finished all the same
            commands = self.talk.tool_finished(call_id, OK, self.now)
            assert not any(isinstance(command, SendToModel) for command in commands)
            assert any(isinstance(command, Remember) for command in commands)
        silent = [
            self.talk.model_opened(self.now, b"{}") == (CloseModel(),),
            *(not self.talk.woke(timer, self.now + 1000) for timer in Timer),
            not self.talk.model_closed(LINE_LOST, self.now),
            not self.talk.from_model(gemini.ServerMessage(), self.now, b"{}"),
            not self.talk.tool_finished("c1", OK, self.now),
            not self.talk.close(None, self.now),
        ]
        assert all(silent)
        assert self.talk.phase is Phase.CLOSED


# The same stays in every run, so that what fails is put down to a change; hunts with other seeds are made by hand.
Stay.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
TestGuestPromises = Stay.TestCase
