"""The function calls of a conversation: each id is answered exactly once, or was cancelled. Pure.

A call belongs to the connection that asked for it. When that is gone, a session that was resumed with a newer
handle still knows the id; any other does not, and is told the result in words. What was answered for a question
that is asked again is not run again.

Functions that a guest has declared are run by the guest. Calls of one message of which some are its own and some
are ours are answered in one message again, in their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from tornado_live.jsonvalue import Json
from tornado_live.live import recall
from tornado_live.live.bounds import Bounds
from tornado_live.live.commands import (
    CancelTool,
    Command,
    Record,
    SendToClient,
    SendToModel,
    StartTool,
    ToolCancelled,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Upward,
)
from tornado_live.tools.person import Asks
from tornado_live.tools.policy import CallPolicy, WhenDone
from tornado_live.tools.result import ToolCode, ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.gemini_client import Answer
from tornado_live.wire.models import LiveModel

STARTED: Mapping[str, Json] = {
    "status": "running",
    "note": "This takes a while. Go on talking; the result will follow.",
}
"""What a model that can only wait gets at once for a background call."""

_SCHEDULING: Mapping[WhenDone, str] = {
    "interrupt": "INTERRUPT",
    "when_idle": "WHEN_IDLE",
    "silent": "SILENT",
}


class CallState(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"  # the result is here, and nobody has had it yet
    DELIVERED = "delivered"
    JOINED = "joined"  # it will be answered with another call of the same words
    CANCELLED = "cancelled"


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    args: Mapping[str, Json]
    turn: int
    policy: CallPolicy
    connection: int
    saved: bool = False
    """Whether the newest resumption handle came after it, so that the session it resumes knows the id."""
    known: bool = True
    """Whether the model side waits for an answer to the id."""
    wanted: bool = True
    """False when a barge-in left it to be finished and only remembered."""
    told_at_once: bool = False
    """Whether the model has had STARTED for an answer, so that the result goes in words."""
    state: CallState = CallState.RUNNING
    result: ToolResult | None = None
    twins: list[str] = field(default_factory=list)
    """Ids under which the model has asked for the very same again while it ran."""
    guests: bool = False
    """Whether the guest runs it."""
    shown: bool = False
    """Whether the guest was asked for it."""
    begun: float = 0.0
    entry: Mapping[str, Json] | None = None
    """The guest's answer as it sent it."""
    question: ToolStarted | None = None
    """What the client was asked, while it has not answered."""
    together: tuple[str, ...] = ()
    """The calls, itself among them, that are to be answered in one message."""

    @property
    def key(self) -> tuple[str, str]:
        return _key(self.name, self.args)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be done with a result: `commands`, and a note that the model is to be told in words.

    `when` says how the note is told. `answers`: the model has its answer. `reply`: it now owes content.
    """

    commands: Sequence[Command] = ()
    note: str = ""
    when: WhenDone = "when_idle"
    answers: bool = False
    reply: bool = False


_LATER: Final = Delivery()
"""The result waits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a toolCall causes. `shown`: the calls that a guest is to see, as (place in the message, id)."""

    commands: Sequence[Command]
    shown: tuple[tuple[int, str], ...] = ()


class Calls:
    """`policy` is what holds for a function, `guests` whether the guest runs it, `bounds` how many are made."""

    def __init__(
        self,
        policy: Callable[[str], CallPolicy],
        guests: Callable[[str], bool] = lambda _: False,
        bounds: Bounds | None = None,
    ) -> None:
        self._policy = policy
        self._guests = guests
        self._bounds = bounds
        self._calls: dict[str, _Call] = {}
        self._answers: dict[tuple[str, str], ToolResult] = {}
        self._replay = False
        self._unnamed = 0
        self._connection = 0

    # --- what the model side says

    def asked(
        self,
        calls: Iterable[gemini.FunctionCall],
        turn: int,
        facts: LiveModel,
        now: float = 0.0,
        *,
        here: bool = True,
    ) -> Asked:
        """Each call is started once; an id that was seen before is not a new call. `here`: a client sees them."""
        commands: list[Command] = []
        shown: list[tuple[int, str]] = []
        begun: list[_Call] = []
        for place, wanted in enumerate(calls):
            call_id = wanted.id
            if not call_id:
                self._unnamed += 1
                call_id = f"{wanted.name}-{self._unnamed}"
            known = self._calls.get(call_id)
            if known is not None and known.state is not CallState.CANCELLED:
                commands += self._wanted_again(known, facts)
                continue
            policy = self._policy(wanted.name)
            call = _Call(call_id, wanted.name, wanted.args or {}, turn, policy, self._connection)
            call.guests, call.begun = self._guests(wanted.name), now
            commands += self._begin(call, facts, now)
            if call.state in (CallState.RUNNING, CallState.JOINED):
                begun.append(call)
            if call.state is CallState.RUNNING and call.guests:
                call.shown = here
                shown.append((place, call_id))
        waited = [call for call in begun if not call.policy.background]
        if len({call.guests for call in waited}) == 2:
            for call in waited:
                call.together = tuple(one.id for one in waited)
        return Asked(commands, tuple(shown))

    def _wanted_again(self, call: _Call, facts: LiveModel) -> list[Command]:
        """An id that was seen. On the same connection it repeats; a resumed session may want it anew."""
        if call.connection == self._connection:
            return []
        call.connection, call.known, call.saved = self._connection, True, False
        if call.state is CallState.DELIVERED and call.result is not None:
            return [self._answer(call, call.id, call.result, facts)]
        return []

    def _begin(self, call: _Call, facts: LiveModel, now: float) -> list[Command]:
        self._calls[call.id] = call
        again = self._replay or call.policy.side_effects
        if again and (stored := self._answers.get(call.key)) is not None:
            call.state = CallState.DELIVERED
            return [
                self._answer(call, call.id, stored, facts),
                Record("tool_call_replayed", {"id": call.id, "name": call.name, "turn": call.turn}),
            ]
        twin = self._running_twin(call)
        if twin is not None and not (call.guests and twin.connection == self._connection):
            twin.twins.append(call.id)
            twin.turn = call.turn
            call.state = CallState.JOINED
            return [Record("tool_call_joined", {"id": call.id, "name": call.name, "to": twin.id})]
        if call.guests:
            return [_started(call)]
        refusal = self._bounds.refusal(call.key, call.turn, now) if self._bounds is not None else None
        if refusal is not None:
            return self._refused(call, refusal, facts)
        commands: list[Command] = [StartTool(call.id, call.name, call.args), _started(call)]
        if not call.policy.asks:
            shown = call.args if call.policy.show_args else None
            commands.insert(0, SendToClient(ToolStarted(call.id, call.name, shown)))
        if call.policy.background and "NON_BLOCKING" not in facts.calls:
            call.told_at_once = True
            placeholder = gemini.tool_response(call.id, call.name, STARTED)
            commands.append(SendToModel(placeholder, Upward.TOOL_RESPONSE))
        return commands

    def _refused(self, call: _Call, why: str, facts: LiveModel) -> list[Command]:
        """Answered at once, and not made."""
        call.state, call.result = CallState.DELIVERED, limited(why)
        return [
            SendToClient(ToolStarted(call.id, call.name, call.args if call.policy.show_args else None)),
            self._answer(call, call.id, call.result, facts),
            SendToClient(ToolFinished(call.id, call.name, call.result)),
            Record("tool_call", _facts(call, call.result, "answer")),
        ]

    def _running_twin(self, call: _Call) -> _Call | None:
        """gemini-3.8-live asks again under a new id when the user speaks during a call (observed by others)."""
        for other in self._calls.values():
            if other is not call and other.state is CallState.RUNNING and other.key == call.key:
                return other
        return None

    def cancelled(self, ids: Iterable[str], facts: LiveModel) -> list[Command]:
        """toolCallCancellation: nobody waits for these answers. What becomes of it is the operator's choice."""
        stopped: list[str] = []
        taken_back = list(ids)
        for call_id in taken_back:
            call = self._calls.get(call_id)
            if call is not None and call.state is CallState.JOINED:
                call.state = CallState.CANCELLED
                for other in self._calls.values():
                    if call_id in other.twins:
                        other.twins.remove(call_id)
                        if not (other.known or other.twins) and other.connection == self._connection:
                            taken_back.append(other.id)
                continue
            if call is not None and call.state is CallState.FINISHED and call.together:
                call.known = False
                call.state = call.state if call.twins else CallState.CANCELLED
            if call is None or call.state is not CallState.RUNNING:
                continue
            if call.twins:
                call.known = False  # its twins still want the answer
                continue
            match call.policy.on_interrupt:
                case "cancel":
                    call.state = CallState.CANCELLED
                    stopped.append(call_id)
                case "finish":
                    call.known = False
                case "detach":
                    call.known = call.wanted = False
            call.together = ()
        commands = _stopped(stopped)
        for call in list(self._calls.values()):
            if call.state is CallState.FINISHED and call.together and call.result is not None:
                commands += self._deliver_together(call, call.result, facts).commands
        return commands

    def unseen(self) -> list[Mapping[str, Json]]:
        """The guest's calls that came while it was away, as it sees them from now on."""
        found: list[Mapping[str, Json]] = []
        for call in self._calls.values():
            if call.guests and not call.shown and call.state is CallState.RUNNING:
                call.shown = True
                found.append({"name": call.name, "args": dict(call.args), "id": call.id})
        return found

    def guests_own(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Those of `ids` that a guest was shown, and any that nobody knows."""
        return tuple(call_id for call_id in ids if (call := self._calls.get(call_id)) is None or call.shown)

    # --- what the runner says

    def asks(self, call_id: str, asks: Asks, args: Mapping[str, Json]) -> Sequence[Command]:
        """The client is to consent, or to run the function. What it may not see is shown to whoever runs it."""
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING:
            return ()
        visible = args if asks == "client" or call.policy.show_args else None
        call.question = ToolStarted(call_id, call.name, visible, asks)
        return (SendToClient(call.question),)

    def answered(self, call_id: str) -> bool:
        """The client's answer has come; False where nothing was asked, or is open any more."""
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING or call.question is None:
            return False
        call.question = None
        return True

    def questions(self) -> list[Command]:
        """What is still open of it, for a client that is back."""
        return [
            SendToClient(call.question)
            for call in self._calls.values()
            if call.question is not None and call.state is CallState.RUNNING
        ]

    def progress(self, call_id: str, text: str) -> Sequence[Command]:
        return (SendToClient(ToolProgress(call_id, text)),) if self.is_running(call_id) else ()

    def slow(self, call_id: str, say: str, facts: LiveModel, *, live: bool) -> Sequence[Command]:
        """The call takes long: the client is told, and a model that talks on meanwhile, so that it can say so."""
        commands = list(self.progress(call_id, say))
        call = self._calls.get(call_id)
        hears = facts.scheduling and "NON_BLOCKING" in facts.calls and live
        if commands and call is not None and call.policy.background and call.known and hears:
            hint: Mapping[str, Json] = {"status": "running", "say": say}
            running = gemini.function_response(
                call.id, call.name, hint, scheduling="WHEN_IDLE", will_continue=True
            )
            commands.append(SendToModel(gemini.tool_responses([running]), Upward.TOOL_RESPONSE))
        return commands

    def finished(
        self, call_id: str, result: ToolResult, facts: LiveModel, *, live: bool
    ) -> tuple[int, str, Delivery] | None:
        """Its turn, its line for memory, and how the result goes to the model; None when it was cancelled.

        `live` False: there is no connection now. The result waits until there is one.
        """
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING:
            return None
        return self._ended(call, result, self._deliver(call, result, facts) if live else _LATER)

    def _ended(self, call: _Call, result: ToolResult, delivery: Delivery) -> tuple[int, str, Delivery]:
        call.result = result
        call.state = CallState.FINISHED if delivery is _LATER else CallState.DELIVERED
        self._answers[call.key] = result
        how = "later" if delivery is _LATER else _how(delivery)
        commands: list[Command] = [
            *delivery.commands,
            SendToClient(ToolFinished(call.id, call.name, result)),
            Record("tool_call", _facts(call, result, how)),
        ]
        line = f"{call.name}({json.dumps(call.args, ensure_ascii=False)}): {result.summary}"
        return call.turn, line, replace(delivery, commands=commands)

    def open_for(self, answer: Answer) -> str | None:
        """The id of the guest's call that `answer` is for, by its name where it has no id; None for none."""
        if answer.id:
            call = self._calls.get(answer.id)
            return answer.id if call is not None and call.guests and self.is_running(answer.id) else None
        mine = [
            call.id
            for call in self._calls.values()
            if call.guests and call.name == answer.name and call.state is CallState.RUNNING
        ]
        return mine[0] if mine else None

    def is_over(self, answer: Answer) -> bool:
        """Whether it answers a call of which nothing is waited for any more."""
        call = self._calls.get(answer.id or "")
        return call is not None and call.state is not CallState.RUNNING

    def goes_as_it_came(self, call_id: str) -> bool:
        """Whether the model side knows the id, and is to have this answer by itself."""
        call = self._calls[call_id]
        return call.known and not call.together and not call.twins

    def guest_answered(
        self, call_id: str, answer: Answer, facts: LiveModel, now: float, *, live: bool, sent: bool
    ) -> tuple[int, str, Delivery]:
        """As `finished`, for a call that the guest has run. `sent`: its own message goes up and answers it."""
        call = self._calls[call_id]
        call.entry = answer.raw
        response = answer.response if isinstance(answer.response, dict) else {"result": answer.response}
        took_ms = round((now - call.begun) * 1000)
        result = ToolResult(True, response, took_ms, summary=_short(response))
        if sent:
            return self._ended(call, result, Delivery(answers=True, reply=not call.policy.background))
        return self._ended(call, result, self._deliver(call, result, facts) if live else _LATER)

    def _deliver(self, call: _Call, result: ToolResult, facts: LiveModel) -> Delivery:
        if call.together:
            return self._deliver_together(call, result, facts)
        answers: list[Command] = [self._answer(call, twin, result, facts) for twin in call.twins]
        if call.known and not call.told_at_once:
            answers.insert(0, self._answer(call, call.id, result, facts))
        if answers:
            silent = call.policy.background and call.policy.when_done == "silent"
            reply = not silent and not call.policy.background
            return Delivery(answers, answers=True, reply=reply)
        if not call.wanted:
            return Delivery()
        said = recall.note(call.name, call.args, result.response)
        if call.policy.background:
            return Delivery(note=said, when=call.policy.when_done)
        return Delivery(note=said, when="when_idle" if call.policy.on_interrupt == "finish" else "interrupt")

    def _deliver_together(self, last: _Call, result: ToolResult, facts: LiveModel) -> Delivery:
        """Later, until all calls that came in one message have ended."""
        last.result = result
        group = [one for name in last.together if (one := self._calls.get(name)) is not None and one.together]
        if any(one.state is CallState.RUNNING for one in group if one is not last):
            return _LATER
        late = [twin for one in group for twin in one.twins if twin not in last.together]
        answers = []
        for one in [*group, *(self._calls[twin] for twin in late)]:
            asked = next((other for other in group if one.id in other.twins), one)
            if one.known and one.state is not CallState.CANCELLED and asked.result is not None:
                answers.append(self._response(asked, one.id, asked.result, facts))
        for one in group:
            if one.state is CallState.FINISHED:
                one.state = CallState.DELIVERED
            one.together = ()
        responses = SendToModel(gemini.tool_responses(answers), Upward.TOOL_RESPONSE)
        return Delivery([responses], answers=True, reply=True)

    def _answer(self, call: _Call, call_id: str, result: ToolResult, facts: LiveModel) -> Command:
        call.connection = self._connection  # which has its answer: the same id there is no new call
        payload = gemini.tool_responses([self._response(call, call_id, result, facts)])
        return SendToModel(payload, Upward.TOOL_RESPONSE)

    def _response(
        self, call: _Call, call_id: str, result: ToolResult, facts: LiveModel
    ) -> Mapping[str, Json]:
        if call.entry is not None:
            return {**call.entry, "id": call_id}
        scheduled = facts.scheduling and call.policy.background and "NON_BLOCKING" in facts.calls
        scheduling = _SCHEDULING[call.policy.when_done] if scheduled else None
        return gemini.function_response(call_id, call.name, result.response, scheduling=scheduling)

    # --- connections

    def asked_again(self) -> None:
        """The open question is put to the model once more: what was answered for it is not run twice."""
        self._replay = True

    def saved(self) -> None:
        """A handle has come: the session that it resumes knows every call that was asked for so far."""
        for call in self._calls.values():
            call.saved = True

    def reconnected(self, facts: LiveModel, *, resumed: bool) -> list[Delivery]:
        """A new connection is open; gives the results that came while there was none.

        `resumed`: with the newest handle.
        """
        self._connection += 1
        for call in self._calls.values():
            call.together = ()
            if not (resumed and call.saved):
                call.known = False
                for twin in call.twins:
                    if twin in self._calls:
                        self._calls[twin].state = CallState.CANCELLED  # asked for again, it is another call
                call.twins.clear()
        deliveries: list[Delivery] = []
        for call in self._calls.values():
            if call.state is CallState.FINISHED and call.result is not None:
                call.state = CallState.DELIVERED
                delivery = self._deliver(call, call.result, facts)
                told = Record("tool_delivered", {"id": call.id, "delivered": _how(delivery)})
                deliveries.append(replace(delivery, commands=[*delivery.commands, told]))
        return deliveries

    def turn_over(self) -> None:
        """A turn has ended as it should: its answers are not wanted again."""
        self._replay = False
        self._answers.clear()
        done = [key for key, call in self._calls.items() if call.state is not CallState.RUNNING]
        for key in done[:-_REMEMBERED]:
            del self._calls[key]

    def end(self) -> list[Command]:
        """The model side is gone for good: nobody waits for an answer."""
        running = [call.id for call in self._calls.values() if call.state is CallState.RUNNING]
        self._calls.clear()
        self._answers.clear()
        self._replay = False
        return _stopped(running)

    # --- questions

    def is_running(self, call_id: str) -> bool:
        call = self._calls.get(call_id)
        return call is not None and call.state is CallState.RUNNING

    @property
    def unsettled(self) -> bool:
        """Whether anything is still to come of a call that the model waits for."""
        return any(
            call.state in (CallState.RUNNING, CallState.FINISHED)
            and call.wanted
            and not call.policy.background
            for call in self._calls.values()
        )

    @property
    def running(self) -> bool:
        return any(call.state is CallState.RUNNING for call in self._calls.values())

    def holding(self, turn: int) -> bool:
        """Whether the model waits in this turn for a call that is still open."""
        return any(
            call.state is CallState.RUNNING
            and call.turn == turn
            and (call.known or call.twins)
            and not call.policy.background
            for call in self._calls.values()
        )

    @property
    def awaited_here(self) -> bool:
        """Whether the model waits for any call that we run."""
        return any(not call.guests and self.holding(call.turn) for call in self._calls.values())

    @property
    def outstanding(self) -> bool:
        """Whether the user waits for a call whose answer will have to go in words."""
        return any(
            call.state is CallState.RUNNING
            and not (call.known or call.twins)
            and call.wanted
            and not call.policy.background
            for call in self._calls.values()
        )


_REMEMBERED = 200
"""Ended calls whose ids are kept, so that one that is asked for again is known."""


def _key(name: str, args: Mapping[str, Json]) -> tuple[str, str]:
    return name, json.dumps(args, sort_keys=True, ensure_ascii=False)


def _how(delivery: Delivery) -> str:
    """How the model has had a result."""
    return "note" if delivery.note else "answer" if delivery.answers else "remembered"


def _started(call: _Call) -> Record:
    """The arguments may be anybody's secrets: events hold a digest, by which equal calls are known."""
    digest = hashlib.sha256(json.dumps(call.args, sort_keys=True).encode()).hexdigest()[:16]
    facts: dict[str, Json] = {"id": call.id, "name": call.name, "turn": call.turn, "argsDigest": digest}
    return Record("tool_started", facts | ({"client": True} if call.guests else {}))


def limited(why: str) -> ToolResult:
    error: Json = {
        "code": ToolCode.LIMITED.value,
        "message": why,
        "retryable": False,
        "hint": "Answer with what you know, or ask the person.",
    }
    return ToolResult(False, {"status": "error", "error": error}, 0, ToolCode.LIMITED, summary=why)


SUMMARY_CHARS = 200


def _short(response: Mapping[str, Json]) -> str:
    text = json.dumps(response, ensure_ascii=False)
    return text if len(text) <= SUMMARY_CHARS else f"{text[: SUMMARY_CHARS - 1]}…"


def _stopped(ids: Sequence[str]) -> list[Command]:
    if not ids:
        return []
    commands: list[Command] = [CancelTool(call_id) for call_id in ids]
    commands.append(SendToClient(ToolCancelled(tuple(ids))))
    commands.append(Record("tool_cancelled", {"ids": list(ids)}))
    return commands


def _facts(call: _Call, result: ToolResult, delivered: str) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "id": call.id,
        "name": call.name,
        **({"client": True} if call.guests else {}),
        "turn": call.turn,
        "ok": result.ok,
        "durationMs": result.duration_ms,
        "delivered": delivered,
    }
    if result.error is not None:
        facts["error"] = result.error.value
    if result.sample:
        facts["sample"] = True
    return facts
