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
from tornado_live.tools.person import Asks, ClientResult, Consent
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

NOT_AGAIN: Final = "It was not done again: this is the answer of the same call before."
"""What a model is told that asks twice for what changes something."""

BROKEN_OFF: Final = "broken off while it ran. It may have been done all the same"
"""What memory and the model are told of a call that changes something and was stopped."""

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
    same_as: str | None = None
    """The call whose answer it has, or will have."""
    entry: Mapping[str, Json] | None = None
    """The guest's answer as it sent it."""
    question: ToolStarted | None = None
    """What the client was asked, while it has not answered."""
    told: bool = False
    """Whether the client was asked anything about it, and so knows of it."""
    agreed: bool = False
    """Whether the client has said yes to it."""
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
        self._answers: dict[tuple[str, str], tuple[str, ToolResult]] = {}
        """By name and arguments: the call that was made, and what came of it."""
        self._broken_off: dict[tuple[str, str], str] = {}
        """Calls with side effects that were taken back while they ran: nobody knows whether they were made."""
        self._doubts: dict[tuple[str, str], str] = {}
        """What the model is to be told of those."""
        self._lines: list[tuple[int, str]] = []
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
            if not call_id:  # taken once in a session, whose turns are counted on by the next conversation
                self._unnamed += 1
                call_id = f"{wanted.name}-{turn}-{self._unnamed}"
            known = self._calls.get(call_id)
            if known is not None and self._is_taken(known, wanted):
                self._remember_broken_off(known)
                commands += _stopped([known])  # under one id there is one call
            if known is not None and not self._is_new(known, wanted):
                commands += self._wanted_again(known, facts)
                continue
            policy = self._policy(wanted.name)
            args = wanted.args or {}
            tangled = not _is_shallow(args)
            call = _Call(call_id, wanted.name, {} if tangled else args, turn, policy, self._connection)
            call.guests, call.begun = self._guests(wanted.name), now
            if tangled and not call.guests:
                self._calls[call.id] = call
                commands += self._refused(call, TANGLED, facts)
                continue
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

    def _is_taken(self, known: _Call, wanted: gemini.FunctionCall) -> bool:
        """Whether another session uses the id of a call that nobody waits for and that still runs."""
        if known.state is not CallState.RUNNING or known.wanted or known.connection == self._connection:
            return False
        return known.key != _key(wanted.name, wanted.args or {})

    def _is_new(self, known: _Call, wanted: gemini.FunctionCall) -> bool:
        """Whether a known id is used for another call: it was taken back, or the session has ids of its own."""
        if known.state is CallState.DELIVERED and not self._has(known):
            return known.key != _key(wanted.name, wanted.args or {})
        return known.state is CallState.CANCELLED

    def _wanted_again(self, call: _Call, facts: LiveModel) -> list[Command]:
        """An id that was seen. On the same connection it repeats, unless it was taken back; a resumed session may
        want it anew.
        """
        if self._has(call):
            return []
        call.connection, call.known, call.wanted, call.saved = self._connection, True, True, False
        if call.state is CallState.DELIVERED and call.result is not None:
            return [self._answer(call, call, call.result, facts), _delivered(call, "answer")]
        return self._put_off(call, facts)

    def _has(self, call: _Call) -> bool:
        """Whether the model side has the answer on this connection, or will have it."""
        return call.known and call.connection == self._connection

    def _begin(self, call: _Call, facts: LiveModel, now: float) -> list[Command]:
        self._calls.pop(call.id, None)
        self._calls[call.id] = call  # the newest
        if len(self._calls) > 2 * _REMEMBERED:
            self._forget()  # also in a turn that does not end
        again = self._replay or call.policy.side_effects
        if again and (stored := self._answers.get(call.key)) is not None:
            call.same_as, result = stored[0], replace(stored[1], duration_ms=0)
            return [
                _told(call),
                self._answer(call, call, result, facts),
                *_replayed(call, result, "answer"),
            ]
        twin = self._running_twin(call)
        if twin is not None and not (call.guests and twin.connection == self._connection):
            twin.twins.append(call.id)
            twin.turn = call.turn
            call.state, call.same_as = CallState.JOINED, twin.id
            return [_told(call), _begun(call, "tool_call_joined"), *self._put_off(call, facts)]
        if call.guests:
            return [_begun(call)]
        refusal = self._bounds.refusal(call.key, call.turn, now) if self._bounds is not None else None
        if refusal is not None:
            return self._refused(call, limited(refusal), facts)
        commands: list[Command] = [] if call.policy.asks else [_told(call)]
        self._doubts.pop(call.key, None)  # what came of it will be known now
        begun = StartTool(call.id, call.name, call.args, repeats=self._broken_off.get(call.key))
        commands += [begun, _begun(call)]
        return commands + self._put_off(call, facts)

    def _put_off(self, call: _Call, facts: LiveModel) -> list[Command]:
        """A model that can only wait need not wait for a background call."""
        if not call.policy.background or "NON_BLOCKING" in facts.calls:
            return []
        call.told_at_once = True
        placeholder = gemini.tool_response(call.id, call.name, STARTED)
        return [SendToModel(placeholder, Upward.TOOL_RESPONSE)]

    def _refused(self, call: _Call, result: ToolResult, facts: LiveModel) -> list[Command]:
        """Answered at once, and not made."""
        call.state, call.result = CallState.DELIVERED, result
        return [
            _told(call),
            self._answer(call, call, call.result, facts),
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
        commands: list[Command] = []
        stopped: list[_Call] = []
        taken_back = list(dict.fromkeys(ids))
        for call_id in taken_back:
            call = self._calls.get(call_id)
            if call is None:
                continue
            if call.state is CallState.JOINED:
                stopped.append(call)
                taken_back += self._parted(call)
                call.state = CallState.CANCELLED
            elif call.state is CallState.FINISHED and (call.together or call.same_as):
                call.known = False
                taken_back += self._parted(call)
                if not call.twins:
                    call.state = CallState.CANCELLED
                    commands.append(_delivered(call, "remembered"))
            if call.state is not CallState.RUNNING:
                continue
            if call.twins:
                call.known = False  # its twins still want the answer
                continue
            match call.policy.on_interrupt:
                case "cancel":
                    stopped.append(call)
                    self._remember_broken_off(call)
                case "finish":
                    call.known = False
                case "detach":
                    call.known = call.wanted = False
            call.together = ()
        commands += _stopped(stopped)
        for call in list(self._calls.values()):
            if call.state is CallState.FINISHED and call.together and call.result is not None:
                commands += self._deliver_together(call, call.result, facts).commands
        return commands

    def _remember_broken_off(self, call: _Call) -> None:
        if not _in_flight(call):
            return
        self._broken_off.setdefault(call.key, call.id)
        while len(self._broken_off) > _REMEMBERED:
            del self._broken_off[next(iter(self._broken_off))]
        self._doubts[call.key] = recall.broken_off(call.name, call.args, BROKEN_OFF)
        while len(self._doubts) > _MOST_DOUBTS:
            del self._doubts[next(iter(self._doubts))]
        self._lines.append((call.turn, _line(call, BROKEN_OFF)))

    def broken_off(self) -> list[tuple[int, str]]:
        """Once for each call that may have been made though it was stopped: its turn, and a line for memory."""
        lines, self._lines = self._lines, []
        return lines

    def doubts(self) -> list[str]:
        """The same in words for the model, but for those that it has asked for again since."""
        told = list(self._doubts.values())
        self._doubts.clear()
        return told

    def _parted(self, twin: _Call) -> list[str]:
        """A twin wants no answer any more; the call that it shared, where nobody else wants one either."""
        first = self._calls.get(twin.same_as or "")
        if first is None or twin.id not in first.twins:
            return []
        first.twins.remove(twin.id)
        unwanted = not (first.known or first.twins) and first.connection == self._connection
        return [first.id] if unwanted else []

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
        call.told, call.question = True, ToolStarted(call_id, call.name, visible, asks)
        return (SendToClient(call.question),)

    def answered(self, call_id: str, answer: Consent | ClientResult) -> str | None:
        """The client's answer has come. Why it is none, or None: where it is one, the question is closed."""
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING or call.question is None:
            return "no call with this id waits for an answer."
        if call.question.asks == "confirm" and not isinstance(answer, Consent):
            return "this call waits for consent; send tool_confirm with {id, ok}."
        if call.question.asks == "client" and not isinstance(answer, ClientResult):
            return "this call is yours to run; send tool_result with {id, response}."
        call.question = None
        call.agreed = answer.ok if isinstance(answer, Consent) else True
        return None

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
        now = live or not (call.known or call.wanted or call.twins)
        return self._ended(call, result, facts, now=now)

    def _ended(
        self, call: _Call, result: ToolResult, facts: LiveModel, *, now: bool, sent: Delivery | None = None
    ) -> tuple[int, str, Delivery]:
        """`now`: it is delivered, unless it was `sent` already or waits for others of its message."""
        commands: list[Command] = []
        # What came of the call is also what came of its twins that are answered with others of their message.
        apart = [one for one in self._twins(call) if one.together and one.id not in call.together]
        for twin in apart if now else ():
            call.twins.remove(twin.id)
            twin.entry = call.entry
            commands += _replayed(twin, result, "later")
            commands += self._deliver_together(twin, result, facts).commands
        delivery = sent or (self._deliver(call, result, facts) if now else _LATER)
        later = delivery is _LATER
        call.result = result
        call.state = CallState.FINISHED if later else CallState.DELIVERED
        if result.error is not ToolCode.LIMITED:  # it was not made
            self._answers[call.key] = (call.id, result)
            self._broken_off.pop(call.key, None)
        commands += [
            *([_told(call)] if call.policy.asks and not call.told else []),
            *delivery.commands,
            SendToClient(ToolFinished(call.id, call.name, result)),
            Record("tool_call", _facts(call, result, "later" if later else _how(delivery))),
        ]
        for twin in self._twins(call):
            twin.entry = call.entry
            commands += _replayed(twin, result, "later" if later else "answer")
        if not later:
            call.twins.clear()
        return call.turn, _line(call, result.summary), replace(delivery, commands=commands)

    def _twins(self, call: _Call) -> list[_Call]:
        return [self._calls[twin] for twin in call.twins]

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
            call.connection = self._connection
        own = Delivery(answers=True, reply=not call.policy.background) if sent else None
        return self._ended(call, result, facts, now=live, sent=own)

    def _deliver(self, call: _Call, result: ToolResult, facts: LiveModel) -> Delivery:
        if call.together:
            return self._deliver_together(call, result, facts)
        answers: list[Command] = [
            self._answer(call, twin, result, facts) for twin in self._twins(call) if not twin.told_at_once
        ]
        if call.known and not call.told_at_once:
            answers.insert(0, self._answer(call, call, result, facts))
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
        if any(_is_open(one, group) for one in group if one is not last):
            return _LATER
        late = [twin.id for one in group for twin in self._twins(one) if twin.id not in last.together]
        answers = []
        everyone = [*group, *(self._calls[twin] for twin in late)]
        for one in everyone:
            asked = next((other for other in group if one.id in other.twins), one)
            if one.known and one.state is not CallState.CANCELLED and asked.result is not None:
                answers.append(self._response(asked, one.id, asked.result, facts))
        commands: list[Command] = [SendToModel(gemini.tool_responses(answers), Upward.TOOL_RESPONSE)]
        for one in everyone:
            one.together = ()
            if one.state is CallState.FINISHED:
                one.state = CallState.DELIVERED
                one.twins.clear()
                commands.append(_delivered(one, "answer" if one.known else "remembered"))
        return Delivery(commands, answers=True, reply=True)

    def _answer(self, made: _Call, call: _Call, result: ToolResult, facts: LiveModel) -> Command:
        """Of `call`, with what came of `made`, which is itself or the one that it is the same as."""
        for one in (made, call):  # the connection has its answer: the same id there is no new call
            one.connection = self._connection
        payload = gemini.tool_responses([self._response(made, call.id, result, facts)])
        return SendToModel(payload, Upward.TOOL_RESPONSE)

    def _response(
        self, call: _Call, call_id: str, result: ToolResult, facts: LiveModel
    ) -> Mapping[str, Json]:
        if call.entry is not None:
            return {**call.entry, "id": call_id}
        response = result.response
        if call.policy.side_effects and call_id in self._calls and self._calls[call_id].same_as is not None:
            response = {**response, "note": f"{NOT_AGAIN} {response.get('note', '')}".strip()}
        scheduled = facts.scheduling and call.policy.background and "NON_BLOCKING" in facts.calls
        scheduling = _SCHEDULING[call.policy.when_done] if scheduled else None
        return gemini.function_response(call_id, call.name, response, scheduling=scheduling)

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
        strangers: list[_Call] = []
        for call in self._calls.values():
            call.together = ()
            if not (resumed and call.saved):
                call.known = False
                self._parted(call)
                if call.state is CallState.JOINED:
                    strangers.append(call)  # asked for again, it is another call
        deliveries = [Delivery(_stopped(strangers))] if strangers else []
        for call in self._calls.values():
            if call.state is CallState.FINISHED and call.result is not None and call.same_as is None:
                delivery = self._deliver(call, call.result, facts)
                told: list[Command] = []
                for one in self._calls.values():
                    if one is call or (one.same_as == call.id and one.state is CallState.FINISHED):
                        told.append(_delivered(one, "answer" if one.id in call.twins else _how(delivery)))
                        one.state = CallState.DELIVERED
                call.twins.clear()
                deliveries.append(replace(delivery, commands=[*delivery.commands, *told]))
        return deliveries

    def turn_over(self, *, untold: bool = False) -> None:
        """A turn has ended: its answers are not wanted again. `untold`: it was cut before the user heard of them,
        and what changed something is likely to be asked for once more.
        """
        self._replay = False
        if not untold:
            self._answers.clear()
        self._forget()

    def _forget(self) -> None:
        """Of the calls that nothing is to come of any more, the newest are kept."""
        over = (CallState.DELIVERED, CallState.CANCELLED)
        done = [key for key, call in self._calls.items() if call.state in over]
        for key in done[:-_REMEMBERED]:
            del self._calls[key]

    def end(self) -> list[Command]:
        """The model side is gone for good: nobody waits for an answer. What is to be finished all the same
        runs on."""
        left: dict[str, _Call] = {}
        for call in self._calls.values():
            if _runs_on(call):
                call.known = call.wanted = False
                call.together = ()
                call.twins.clear()
                left[call.id] = call
            elif call.state is CallState.RUNNING:
                self._remember_broken_off(call)
        open_ones = [
            call
            for call in self._calls.values()
            if call.id not in left and call.state in (CallState.RUNNING, CallState.JOINED)
        ]
        commands: list[Command] = [
            _delivered(call, "remembered")
            for call in self._calls.values()
            if call.state is CallState.FINISHED
        ]
        self._calls = left
        self._answers.clear()
        self._replay = False
        return [*_stopped(open_ones), *commands]

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


_MOST_DOUBTS = 5


def _in_flight(call: _Call) -> bool:
    """Whether it changes something and may have been made by now."""
    if not call.policy.side_effects or call.state is not CallState.RUNNING:
        return False
    if call.question is not None:
        return call.question.asks == "client"
    return call.agreed or not call.policy.asks


def _runs_on(call: _Call) -> bool:
    """Whether it is to be finished though nobody is there. Nobody could be asked, or run it, any more."""
    if call.state is not CallState.RUNNING or call.guests or call.policy.client:
        return False
    return call.policy.on_interrupt != "cancel" and (call.agreed or not call.policy.confirm)


def _line(call: _Call, what: str) -> str:
    """For memory, where the caller may read it."""
    args = json.dumps(call.args, ensure_ascii=False) if call.policy.show_args else "…"
    return f"{call.name}({args}): {what}"


def _key(name: str, args: Mapping[str, Json]) -> tuple[str, str]:
    return name, json.dumps(_plain(dict(args)), sort_keys=True, ensure_ascii=False)


def _plain(value: Json) -> Json:
    """With 2.0 as 2: to Gemini they are the same number."""
    match value:
        case float():
            return int(value) if value.is_integer() else value
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _how(delivery: Delivery) -> str:
    """How the model has had a result."""
    return "note" if delivery.note else "answer" if delivery.answers else "remembered"


def _told(call: _Call) -> Command:
    """What the client is told when it begins, or is answered from another one."""
    args = call.args if call.policy.show_args else None
    return SendToClient(ToolStarted(call.id, call.name, args, same_as=call.same_as))


def _begun(call: _Call, kind: str = "tool_started") -> Record:
    return Record(kind, _whose(call))


def _whose(call: _Call) -> dict[str, Json]:
    """The arguments may be anybody's secrets: events hold a digest, by which equal calls are known.
    What nobody may see has none: few values are possible for a PIN, and each can be tried.
    """
    facts: dict[str, Json] = {
        "id": call.id,
        "name": call.name,
        "turn": call.turn,
    }
    if call.policy.show_args:
        facts["argsDigest"] = _digest(call.args)
    if call.guests:
        facts["client"] = True
    if call.same_as is not None:
        facts["sameAs"] = call.same_as
    return facts


def _digest(value: Mapping[str, Json]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _replayed(call: _Call, result: ToolResult, delivered: str) -> list[Command]:
    """It has the answer of the call that it is the same as."""
    call.result = result
    call.state = CallState.FINISHED if delivered == "later" else CallState.DELIVERED
    return [
        SendToClient(ToolFinished(call.id, call.name, result, call.same_as)),
        Record("tool_call_replayed", _facts(call, result, delivered)),
    ]


def _delivered(call: _Call, how: str) -> Record:
    return Record("tool_delivered", {"id": call.id, "delivered": how})


def limited(why: str) -> ToolResult:
    return _not_made(ToolCode.LIMITED, why, "Answer with what you know, or ask the person.")


def _not_made(code: ToolCode, why: str, hint: str) -> ToolResult:
    error: Json = {"code": code.value, "message": why, "retryable": False, "hint": hint}
    return ToolResult(False, {"status": "error", "error": error}, 0, code, summary=why)


TANGLED: Final = _not_made(
    ToolCode.INVALID_ARGUMENTS,
    "The arguments are nested too deep to be read.",
    "Correct the arguments and call again.",
)
_DEEPEST = 100
"""Levels of lists and objects in arguments; no tool's schema has so many."""


def _is_shallow(args: Mapping[str, Json]) -> bool:
    """Without recursion, which has an end of its own."""
    level: list[Json] = [dict(args)]
    for _ in range(_DEEPEST):
        inner: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                inner += [item for item in one.values() if isinstance(item, dict | list)]
            elif isinstance(one, list):
                inner += [item for item in one if isinstance(item, dict | list)]
        if not inner:
            return True
        level = inner
    return False


SUMMARY_CHARS = 200


def _short(response: Mapping[str, Json]) -> str:
    text = json.dumps(response, ensure_ascii=False)
    return text if len(text) <= SUMMARY_CHARS else f"{text[: SUMMARY_CHARS - 1]}…"


def _stopped(calls: Sequence[_Call]) -> list[Command]:
    if not calls:
        return []
    commands: list[Command] = [CancelTool(call.id) for call in calls if call.state is CallState.RUNNING]
    ids = tuple(call.id for call in calls)
    facts: dict[str, Json] = {"ids": list(ids)}
    if unsure := [call.id for call in calls if _in_flight(call)]:
        facts["mayBeDone"] = list(unsure)
    for call in calls:
        call.state = CallState.CANCELLED
    return [*commands, SendToClient(ToolCancelled(ids)), Record("tool_cancelled", facts)]


def _facts(call: _Call, result: ToolResult, delivered: str) -> dict[str, Json]:
    facts = _whose(call) | {
        "ok": result.ok,
        "durationMs": result.duration_ms,
        "answerDigest": _digest(result.response),
        "delivered": delivered,
    }
    if result.error is not None:
        facts["error"] = result.error.value
    if result.sample:
        facts["sample"] = True
    return facts


def _is_open(call: _Call, group: Sequence[_Call]) -> bool:
    """Whether something is still to come of it that does not come with the others of its message."""
    if call.state is CallState.JOINED:
        return not any(call.id in other.twins for other in group)
    return call.state is CallState.RUNNING
