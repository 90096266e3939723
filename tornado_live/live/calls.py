"""The function calls of a conversation: each id is answered exactly once, or was cancelled. Pure.

A call belongs to the connection that asked for it. When that is gone, a session that was resumed with a newer
handle still knows the id; any other does not, and is told the result in words. What was answered for a question
that is asked again is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tornado_live.jsonvalue import Json
from tornado_live.live import recall
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
from tornado_live.tools.policy import CallPolicy, WhenDone
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini
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

    @property
    def key(self) -> tuple[str, str]:
        return _key(self.name, self.args)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be done with a result: `commands`, and a note that the model is to be told in words.

    `when` says how the note is told. `reply`: the model now owes content.
    """

    commands: Sequence[Command] = ()
    note: str = ""
    when: WhenDone = "when_idle"
    reply: bool = False


class Calls:
    """`policy` is what the operator declared for a function."""

    def __init__(self, policy: Callable[[str], CallPolicy]) -> None:
        self._policy = policy
        self._calls: dict[str, _Call] = {}
        self._answers: dict[tuple[str, str], ToolResult] = {}
        self._replay = False
        self._unnamed = 0
        self._connection = 0

    # --- what the model side says

    def asked(self, calls: Iterable[gemini.FunctionCall], turn: int, facts: LiveModel) -> list[Command]:
        """Each call is started once; an id that was seen before is not a new call."""
        commands: list[Command] = []
        for wanted in calls:
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
            commands += self._begin(call, facts)
        return commands

    def _wanted_again(self, call: _Call, facts: LiveModel) -> list[Command]:
        """An id that was seen. On the same connection it repeats; a resumed session may want it anew."""
        if call.connection == self._connection:
            return []
        call.connection, call.known, call.saved = self._connection, True, False
        if call.state is CallState.DELIVERED and call.result is not None:
            return [self._answer(call, call.id, call.result, facts)]
        return []

    def _begin(self, call: _Call, facts: LiveModel) -> list[Command]:
        self._calls[call.id] = call
        if self._replay and (stored := self._answers.get(call.key)) is not None:
            call.state = CallState.DELIVERED
            return [
                self._answer(call, call.id, stored, facts),
                Record("tool_call_replayed", {"id": call.id, "name": call.name, "turn": call.turn}),
            ]
        twin = self._running_twin(call)
        if twin is not None:
            twin.twins.append(call.id)
            twin.turn = call.turn
            call.state = CallState.JOINED
            return [Record("tool_call_joined", {"id": call.id, "name": call.name, "to": twin.id})]
        commands: list[Command] = [
            SendToClient(ToolStarted(call.id, call.name, call.args)),
            StartTool(call.id, call.name, call.args),
        ]
        if call.policy.background and "NON_BLOCKING" not in facts.calls:
            call.told_at_once = True
            placeholder = gemini.tool_response(call.id, call.name, STARTED)
            commands.append(SendToModel(placeholder, Upward.TOOL_RESPONSE))
        return commands

    def _running_twin(self, call: _Call) -> _Call | None:
        """gemini-3.8-live asks again under a new id when the user speaks during a call (observed by others)."""
        for other in self._calls.values():
            if other is not call and other.state is CallState.RUNNING and other.key == call.key:
                return other
        return None

    def cancelled(self, ids: Iterable[str]) -> list[Command]:
        """toolCallCancellation: nobody waits for these answers. What becomes of it is the operator's choice."""
        stopped: list[str] = []
        for call_id in ids:
            call = self._calls.get(call_id)
            if call is not None and call.state is CallState.JOINED:
                call.state = CallState.CANCELLED
                for other in self._calls.values():
                    if call_id in other.twins:
                        other.twins.remove(call_id)
                continue
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
        return _stopped(stopped)

    # --- what the runner says

    def progress(self, call_id: str, text: str) -> Sequence[Command]:
        return (SendToClient(ToolProgress(call_id, text)),) if self.is_running(call_id) else ()

    def finished(
        self, call_id: str, result: ToolResult, facts: LiveModel, *, live: bool
    ) -> tuple[int, str, Delivery] | None:
        """Its turn, its line for memory, and how the result goes to the model; None when it was cancelled.

        `live` False: there is no connection now. The result waits until there is one.
        """
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING:
            return None
        call.state, call.result = CallState.FINISHED, result
        self._answers[call.key] = result
        commands: list[Command] = [SendToClient(ToolFinished(call_id, call.name, result))]
        delivery = self._deliver(call, facts) if live else Delivery()
        delivered = (
            "later" if not live else "note" if delivery.note else "answer" if delivery.commands else ""
        )
        commands.append(Record("tool_call", _facts(call, result, delivered or "remembered")))
        line = f"{call.name}({json.dumps(call.args, ensure_ascii=False)}): {result.summary}"
        whole = Delivery([*delivery.commands, *commands], delivery.note, delivery.when, delivery.reply)
        return call.turn, line, whole

    def _deliver(self, call: _Call, facts: LiveModel) -> Delivery:
        assert call.result is not None
        call.state = CallState.DELIVERED
        answers: list[Command] = [self._answer(call, twin, call.result, facts) for twin in call.twins]
        if call.known and not call.told_at_once:
            answers.insert(0, self._answer(call, call.id, call.result, facts))
        if answers:
            silent = call.policy.background and call.policy.when_done == "silent"
            return Delivery(answers, reply=not silent and not call.policy.background)
        if not call.wanted:
            return Delivery()
        said = recall.note(call.name, call.args, call.result.response)
        if call.policy.background:
            return Delivery(note=said, when=call.policy.when_done)
        return Delivery(note=said, when="when_idle" if call.policy.on_interrupt == "finish" else "interrupt")

    def _answer(self, call: _Call, call_id: str, result: ToolResult, facts: LiveModel) -> Command:
        scheduled = facts.scheduling and call.policy.background and "NON_BLOCKING" in facts.calls
        scheduling = _SCHEDULING[call.policy.when_done] if scheduled else None
        payload = gemini.tool_response(call_id, call.name, result.response, scheduling=scheduling)
        return SendToModel(payload, Upward.TOOL_RESPONSE)

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
            if not (resumed and call.saved):
                call.known = False
                call.twins.clear()
        waiting = [call for call in self._calls.values() if call.state is CallState.FINISHED]
        return [self._deliver(call, facts) for call in waiting]

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
    def awaited(self) -> bool:
        """Whether the model waits for any call."""
        return any(self.holding(call.turn) for call in self._calls.values())

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
