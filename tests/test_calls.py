"""Each function call is answered exactly once, or was cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tornado_live.jsonvalue import Json
from tornado_live.live.bounds import Bounds
from tornado_live.live.calls import BROKEN_OFF, NOT_AGAIN, STARTED, TANGLED, Calls, Delivery
from tornado_live.live.commands import (
    CancelTool,
    Command,
    Record,
    SendToClient,
    SendToModel,
    StartTool,
    ToolCancelled,
    ToolFinished,
    ToolStarted,
)
from tornado_live.observe.events import Event
from tornado_live.resources import require
from tornado_live.sessions.ledger import ledger
from tornado_live.tools.person import ClientResult, Consent
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.result import ToolCode, ToolResult
from tornado_live.wire.gemini import FunctionCall
from tornado_live.wire.gemini_client import Answer
from tornado_live.wire.models import LiveModel, load_models

MODELS = load_models(require("config/models.yaml").read_text(encoding="utf-8"), "models.yaml")
FLUENT = MODELS.of("gemini-3.8-live")
WAITING = MODELS.of("gemini-3.1-flash-live-preview")
OK = ToolResult(True, {"status": "ok", "result": 21}, 12, summary="21 degrees")


def calls(policy: CallPolicy | None = None) -> Calls:
    return Calls(lambda name: policy or CallPolicy())


def call(call_id: str, place: str = "Rome") -> FunctionCall:
    return FunctionCall("get_weather", call_id, {"place": place})


def started(commands: Iterable[Command]) -> list[str]:
    return [command.id for command in commands if isinstance(command, StartTool)]


def answers(commands: Iterable[Command]) -> list[Mapping[str, Json]]:
    """The function responses that go up."""
    return [
        response
        for command in commands
        if isinstance(command, SendToModel)
        for response in json.loads(command.payload)["toolResponse"]["functionResponses"]
    ]


def finished(some: Calls, call_id: str, *, live: bool = True, facts: object = FLUENT) -> Delivery:
    done = some.finished(call_id, OK, facts, live=live)  # type: ignore[arg-type]
    assert done is not None
    return done[2]


def ids(commands: Sequence[Command]) -> list[Json]:
    return [answer["id"] for answer in answers(commands)]


def told(commands: Iterable[Command]) -> list[object]:
    return [command.event for command in commands if isinstance(command, SendToClient)]


class Books:
    """All that came of some calls: what the model was answered, what the client was told, what the ledger says."""

    def __init__(self, policy: CallPolicy | None = None, facts: LiveModel = FLUENT) -> None:
        self.calls, self.facts, self.now = calls(policy), facts, 0.0
        self.commands: list[Command] = []
        self.events: list[Event] = []

    def take(self, commands: Iterable[Command]) -> Sequence[Command]:
        new = list(commands)
        self.now += 1
        self.events += [Event(self.now, one.kind, one.data) for one in new if isinstance(one, Record)]
        self.commands += new
        return new

    def ask(self, *ids: str, place: str = "Rome") -> Sequence[Command]:
        return self.take(self.calls.asked([call(one, place) for one in ids], 1, self.facts).commands)

    def finish(self, call_id: str, result: ToolResult = OK, *, live: bool = True) -> Sequence[Command]:
        done = self.calls.finished(call_id, result, self.facts, live=live)
        return self.take(done[2].commands if done is not None else [])

    def switch(self, *, resumed: bool) -> Sequence[Command]:
        deliveries = self.calls.reconnected(self.facts, resumed=resumed)
        return self.take(command for delivery in deliveries for command in delivery.commands)

    def row(self, call_id: str, *keys: str) -> tuple[Json, ...]:
        (found,) = [row for row in ledger(self.events) if row["id"] == call_id]
        return tuple(found.get(key) for key in keys)


def test_a_call_is_started_told_and_answered_once() -> None:
    some = calls()
    begun = some.asked([call("a")], 3, FLUENT).commands
    assert begun[0] == SendToClient(ToolStarted("a", "get_weather", {"place": "Rome"}))
    assert started(begun) == ["a"]
    done = some.finished("a", OK, FLUENT, live=True)
    assert done is not None
    turn, line, delivery = done
    assert (turn, line) == (3, 'get_weather({"place": "Rome"}): 21 degrees')
    assert ids(delivery.commands) == ["a"]
    assert SendToClient(ToolFinished("a", "get_weather", OK)) in delivery.commands
    assert delivery.reply
    assert some.finished("a", OK, FLUENT, live=True) is None


def test_an_id_that_was_seen_is_not_run_again() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    assert some.asked([call("a")], 1, FLUENT).commands == []
    finished(some, "a")
    assert some.asked([call("a")], 1, FLUENT).commands == []


def test_several_calls_of_one_message_run_side_by_side() -> None:
    some = calls()
    assert started(some.asked([call("a"), call("b", "Oslo")], 1, FLUENT).commands) == ["a", "b"]
    assert ids(finished(some, "b").commands) == ["b"]
    assert some.holding(1)
    assert ids(finished(some, "a").commands) == ["a"]
    assert not some.holding(1)


@pytest.mark.proves("F26")
def test_a_call_that_is_asked_again_under_a_new_id_runs_once_and_answers_both() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    assert started(some.asked([call("b")], 2, FLUENT).commands) == []
    assert ids(finished(some, "a").commands) == ["a", "b"]
    assert some.finished("b", OK, FLUENT, live=True) is None


@pytest.mark.proves("F26")
def test_a_cancelled_call_gets_no_answer() -> None:
    some = calls()
    some.asked([call("a"), call("b", "Oslo")], 1, FLUENT)
    commands = some.cancelled(["a", "unknown"], FLUENT)
    assert commands[:2] == [CancelTool("a"), SendToClient(ToolCancelled(("a",)))]
    assert some.cancelled(["a"], FLUENT) == []
    assert some.finished("a", OK, FLUENT, live=True) is None
    assert some.is_running("b")


@pytest.mark.proves("F26")
def test_a_call_that_finishes_in_spite_of_the_user_is_told_when_nobody_speaks() -> None:
    some = calls(CallPolicy(on_interrupt="finish"))
    some.asked([call("a")], 1, FLUENT)
    assert some.cancelled(["a"], FLUENT) == []
    delivery = finished(some, "a")
    assert answers(delivery.commands) == []
    assert delivery.note.startswith('(Result of get_weather({"place": "Rome"})')
    assert delivery.when == "when_idle"


@pytest.mark.proves("F26")
def test_a_detached_call_is_only_remembered() -> None:
    some = calls(CallPolicy(on_interrupt="detach"))
    some.asked([call("a")], 1, FLUENT)
    some.cancelled(["a"], FLUENT)
    done = some.finished("a", OK, FLUENT, live=True)
    assert done is not None
    assert (answers(done[2].commands), done[2].note) == ([], "")
    assert done[1].endswith("21 degrees")


@pytest.mark.parametrize("on_interrupt", ["finish", "detach"])
def test_an_id_that_was_taken_back_and_is_asked_for_once_more_is_answered(on_interrupt: str) -> None:
    some = calls(CallPolicy(on_interrupt=on_interrupt))  # type: ignore[arg-type]
    some.asked([call("a"), call("b", "Oslo"), call("c", "Bonn")], 1, FLUENT)
    some.cancelled(["a", "b", "c"], FLUENT)
    assert some.asked([call("a")], 2, FLUENT).commands == []
    assert [ids(finished(some, one).commands) for one in "abc"] == [["a"], [], []]
    assert ids(some.asked([call("b", "Oslo")], 2, FLUENT).commands) == ["b"]
    assert started(some.asked([call("c", "Riga")], 2, FLUENT).commands) == ["c"]


def test_a_background_call_that_was_taken_back_and_is_asked_for_once_more_keeps_no_model_waiting() -> None:
    some = calls(CallPolicy("background", on_interrupt="finish"))
    some.asked([call("a")], 1, WAITING)
    some.cancelled(["a"], WAITING)
    assert [answer["response"] for answer in answers(some.asked([call("a")], 2, WAITING).commands)] == [
        STARTED
    ]


@pytest.mark.parametrize(
    ("when_done", "scheduling"),
    [("interrupt", "INTERRUPT"), ("when_idle", "WHEN_IDLE"), ("silent", "SILENT")],
)
def test_a_background_result_says_how_it_is_to_be_told(when_done: str, scheduling: str) -> None:
    some = calls(CallPolicy("background", when_done))  # type: ignore[arg-type]
    begun = some.asked([call("a")], 1, FLUENT).commands
    assert answers(begun) == []
    assert not some.holding(1)
    (answer,) = answers(finished(some, "a").commands)
    assert answer["scheduling"] == scheduling


def test_a_model_that_can_only_wait_gets_an_answer_at_once_and_the_result_in_words() -> None:
    some = calls(CallPolicy("background", "interrupt"))
    begun = some.asked([call("a")], 1, WAITING).commands
    assert [answer["response"] for answer in answers(begun)] == [STARTED]
    delivery = finished(some, "a", facts=WAITING)
    assert answers(delivery.commands) == []
    assert '"result": 21' in delivery.note
    assert delivery.when == "interrupt"


@pytest.mark.proves("F26")
def test_an_id_that_was_cancelled_while_it_shared_a_call_is_not_answered() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    some.asked([call("b")], 1, FLUENT)
    some.cancelled(["b"], FLUENT)
    assert ids(finished(some, "a").commands) == ["a"]


# Connections


@pytest.mark.proves("F17")
def test_a_result_that_comes_during_a_switch_waits_for_the_new_connection() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    some.saved()
    assert answers(finished(some, "a", live=False).commands) == []
    (delivery,) = some.reconnected(FLUENT, resumed=True)
    assert ids(delivery.commands) == ["a"]
    assert some.reconnected(FLUENT, resumed=True) == []


@pytest.mark.proves("F17")
@pytest.mark.parametrize("resumed", [False, True])
def test_a_session_that_does_not_know_the_id_is_told_in_words(resumed: bool) -> None:
    some = calls()
    some.saved()
    some.asked([call("a")], 1, FLUENT)
    assert some.reconnected(FLUENT, resumed=resumed) == []
    assert some.outstanding
    delivery = finished(some, "a")
    assert answers(delivery.commands) == []
    assert "21" in delivery.note
    assert delivery.when == "interrupt"
    assert not some.outstanding


@pytest.mark.proves("F5")
def test_an_id_that_a_resumed_session_asks_for_anew_is_answered_to_it() -> None:
    some = calls()
    some.asked([call("a"), call("b", "Oslo")], 1, FLUENT)
    finished(some, "a")
    some.reconnected(FLUENT, resumed=False)
    again = some.asked([call("a"), call("b", "Oslo")], 1, FLUENT).commands
    assert (ids(again), started(again)) == (["a"], [])
    assert ids(finished(some, "b").commands) == ["b"]


@pytest.mark.proves("F17")
def test_a_question_that_is_asked_again_is_answered_from_what_was_found() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    finished(some, "a")
    some.asked_again()
    some.reconnected(FLUENT, resumed=False)
    again = some.asked([call("b"), call("c", "Oslo")], 2, FLUENT).commands
    assert ids(again) == ["b"]
    assert started(again) == ["c"]
    finished(some, "c")
    some.turn_over()
    assert started(some.asked([call("d")], 3, FLUENT).commands) == ["d"]


def test_the_end_stops_what_runs() -> None:
    some = calls()
    some.asked([call("a"), call("b", "Oslo")], 1, FLUENT)
    finished(some, "a")
    assert some.end()[0] == CancelTool("b")
    assert some.finished("b", OK, FLUENT, live=True) is None
    assert not some.running


def test_an_id_whose_answer_a_connection_has_is_no_new_call_on_it() -> None:
    some = calls()
    some.asked([call("a")], 1, FLUENT)
    some.saved()
    some.reconnected(FLUENT, resumed=True)
    assert some.finished("a", OK, FLUENT, live=True) is not None
    assert some.asked([call("a")], 1, FLUENT).commands == []


@pytest.mark.parametrize("opening", ['{"x":', "["])
def test_arguments_nested_without_end_are_refused_and_the_conversation_goes_on(opening: str) -> None:
    books = Books()
    nested: Json = json.loads(opening * 500 + "1" + {"[": "]"}.get(opening, "}") * 500)
    tangled = FunctionCall("get_weather", "a", {"place": nested})
    commands = books.take(books.calls.asked([tangled, call("b")], 1, FLUENT).commands)
    assert started(commands) == ["b"]
    (answer,) = answers(commands)
    assert (answer["id"], answer["response"]) == ("a", TANGLED.response)
    assert told(commands)[:2] == [
        ToolStarted("a", "get_weather", {}),
        ToolFinished("a", "get_weather", TANGLED),
    ]
    assert books.row("a", "state", "error") == ("finished", "invalid_arguments")
    assert books.ask("a") == [], "it was answered"
    theirs = Calls(lambda name: CallPolicy(), guests=lambda name: True)
    assert theirs.asked([tangled], 1, FLUENT).shown == ((0, "a"),), "a guest reads its own"


# What the client answers


def test_a_result_is_no_consent_and_consent_no_result() -> None:
    for asks, wrong, right, what in (
        ("confirm", ClientResult(True), Consent(True), "tool_confirm"),
        ("client", Consent(True), ClientResult({"b": 2}), "tool_result"),
    ):
        some = calls(CallPolicy(**{asks: True}))  # type: ignore[arg-type]
        some.asked([call("a")], 1, FLUENT)
        nothing = some.answered("a", right)
        assert nothing is not None
        assert "no call with this id" in nothing
        question = some.asks("a", asks, {"place": "Rome"})  # type: ignore[arg-type]
        why = some.answered("a", wrong)
        assert why is not None
        assert what in why
        assert some.questions() == list(question), "the question stays open"
        assert some.answered("a", right) is None
        assert some.questions() == []
        assert some.answered("a", right) == nothing


# Calls that are answered from another one: the ledger has them, and the client is told


CHANGES = CallPolicy(side_effects=True)


def test_a_repeated_side_effect_is_answered_from_the_first_and_the_ledger_and_the_client_know() -> None:
    books = Books(CHANGES)
    books.ask("a")
    books.finish("a")
    again = books.ask("b")
    assert (started(again), ids(again)) == ([], ["b"])
    begun, ended = told(again)
    assert begun == ToolStarted("b", "get_weather", {"place": "Rome"}, same_as="a")
    assert isinstance(ended, ToolFinished)
    assert (ended.id, ended.result, ended.same_as) == ("b", replace(OK, duration_ms=0), "a")
    keys = ("state", "ok", "argsDigest", "answerDigest", "delivered")
    assert books.row("b", *keys) == books.row("a", *keys)
    assert books.row("b", "sameAs", "durationMs", "startedAt") == ("a", 0, "1970-01-01T00:00:03.000Z")
    assert books.row("a", "sameAs", "delivered") == (None, "answer")


def test_a_call_that_joins_one_that_runs_is_in_the_ledger_from_then_on_and_ends_with_it() -> None:
    books = Books()
    books.ask("a")
    joined = books.ask("b")
    assert told(joined) == [ToolStarted("b", "get_weather", {"place": "Rome"}, same_as="a")]
    assert books.row("b", "state", "sameAs", "startedAt") == ("running", "a", "1970-01-01T00:00:02.000Z")
    ended = books.finish("a")
    assert told(ended) == [
        ToolFinished("a", "get_weather", OK),
        ToolFinished("b", "get_weather", OK, same_as="a"),
    ]
    assert books.row("b", "state", "delivered", "ok", "sameAs") == ("finished", "answer", True, "a")
    assert books.row("b", "startedAt") == ("1970-01-01T00:00:02.000Z",)


def test_arguments_that_the_client_may_not_see_stay_hidden_when_the_call_comes_again() -> None:
    books = Books(CallPolicy(side_effects=True, show_args=False, confirm=True))
    books.ask("a")
    assert told(books.ask("b")) == [ToolStarted("b", "get_weather", None, same_as="a")]
    books.finish("a")
    assert told(books.ask("c"))[0] == ToolStarted("c", "get_weather", None, same_as="a")


def test_a_call_that_joined_and_is_taken_back_is_told_as_cancelled() -> None:
    books = Books()
    books.ask("a")
    books.ask("b")
    taken_back = books.take(books.calls.cancelled(["b", "b"], FLUENT))
    assert told(taken_back) == [ToolCancelled(("b",))]
    assert not [command for command in taken_back if isinstance(command, CancelTool)]
    assert books.row("b", "state") == ("cancelled",)
    assert told(books.finish("a")) == [ToolFinished("a", "get_weather", OK)]


def test_the_end_is_told_of_calls_that_joined_and_of_results_that_nobody_had() -> None:
    books = Books()
    books.ask("a")
    books.ask("b")
    books.ask("c", place="Oslo")
    books.finish("c", live=False)
    ended = books.take(books.calls.end())
    assert [command.id for command in ended if isinstance(command, CancelTool)] == ["a"]
    assert told(ended) == [ToolCancelled(("a", "b"))]
    assert [books.row(one, "state", "delivered") for one in "abc"] == [
        ("cancelled", None),
        ("cancelled", None),
        ("finished", "remembered"),
    ]


def test_a_call_that_is_refused_is_in_the_ledger_with_its_arguments_digest_and_its_start() -> None:
    books = Books()
    books.calls = Calls(lambda name: CallPolicy(), bounds=Bounds(0, 0))
    books.ask("a")
    assert books.row("a", "state", "error", "delivered", "startedAt") == (
        "finished",
        "limited",
        "answer",
        "1970-01-01T00:00:01.000Z",
    )
    assert isinstance(books.row("a", "argsDigest")[0], str)


@pytest.mark.proves("F17")
def test_a_call_that_joined_is_answered_anew_to_a_resumed_session_that_asks_for_it_again() -> None:
    books = Books()
    books.ask("a")
    books.ask("b")
    books.finish("a")
    books.calls.saved()
    books.switch(resumed=True)
    again = books.ask("b")
    assert (ids(again), started(again)) == (["b"], [])


@pytest.mark.proves("F17")
def test_a_replayed_call_is_answered_anew_to_a_resumed_session_that_asks_for_it_again() -> None:
    books = Books(CHANGES)
    books.ask("a")
    books.finish("a")
    books.ask("b")
    books.calls.turn_over()
    books.switch(resumed=True)
    again = books.ask("b")
    assert (ids(again), started(again)) == (["b"], [])


@pytest.mark.proves("F17")
def test_an_id_that_joined_after_the_handle_is_not_answered_on_the_session_of_that_handle() -> None:
    books = Books()
    books.ask("a")
    books.calls.saved()
    books.ask("b")
    assert told(books.switch(resumed=True)) == [ToolCancelled(("b",))]
    assert books.row("b", "state") == ("cancelled",)
    assert ids(books.finish("a")) == ["a"]


@pytest.mark.proves("F17")
def test_what_joined_and_ended_during_a_switch_is_delivered_with_the_first() -> None:
    for resumed, how in ((True, "answer"), (False, "note")):
        books = Books()
        books.ask("a")
        books.ask("b")
        books.calls.saved()
        books.finish("a", live=False)
        assert [books.row(one, "state", "delivered") for one in "ab"] == [("finished", "later")] * 2
        assert ids(books.switch(resumed=resumed)) == (["a", "b"] if resumed else [])
        assert [books.row(one, "delivered") for one in "ab"] == [(how,)] * 2
        assert books.switch(resumed=resumed) == []


def test_a_model_that_can_only_wait_does_not_wait_for_a_background_call_that_comes_again() -> None:
    books = Books(CallPolicy("background"), WAITING)
    books.ask("a")
    assert [one["response"] for one in answers(books.ask("b"))] == [STARTED]
    assert ids(books.finish("a")) == []
    assert books.row("b", "state", "sameAs") == ("finished", "a")


def test_a_model_that_asks_twice_for_a_side_effect_is_told_that_it_was_not_done_again() -> None:
    books = Books(CHANGES)
    books.ask("a")
    books.ask("b")
    first, joined = answers(books.finish("a"))
    (replayed,) = answers(books.ask("c"))
    assert first["response"] == OK.response
    for again in (joined, replayed):
        assert again["response"] == {**OK.response, "note": NOT_AGAIN}
    assert len({books.row(one, "answerDigest") for one in "abc"}) == 1
    (plain, twin) = answers([*(books := Books()).ask("a"), *books.ask("b"), *books.finish("a")])
    assert plain["response"] == twin["response"]


def test_a_side_effect_that_was_taken_back_while_it_ran_is_made_again_under_its_first_id() -> None:
    books = Books(CHANGES)

    def repeats(commands: Iterable[Command]) -> list[str | None]:
        return [command.repeats for command in commands if isinstance(command, StartTool)]

    assert repeats(books.ask("a")) == [None]
    books.take(books.calls.cancelled(["a"], FLUENT))
    books.calls.turn_over()
    assert repeats(books.ask("b", place="Oslo")) == [None], "another call"
    assert repeats(books.ask("c")) == ["a"]
    books.take(books.calls.end())
    assert repeats(books.ask("d")) == ["a"], "still nobody knows"
    books.finish("d")
    books.calls.turn_over()
    assert repeats(books.ask("e")) == [None]


def test_a_side_effect_that_was_stopped_while_it_ran_is_remembered_and_told_as_unsure() -> None:
    some = calls(CHANGES)
    some.asked([call("a"), call("b", "Oslo")], 2, FLUENT)
    assert Record("tool_cancelled", {"ids": ["a"], "mayBeDone": ["a"]}) in some.cancelled(["a"], FLUENT)
    assert some.broken_off() == [(2, f'get_weather({{"place": "Rome"}}): {BROKEN_OFF}')]
    assert some.broken_off() == []
    assert Record("tool_cancelled", {"ids": ["b"], "mayBeDone": ["b"]}) in some.end()
    assert len(some.broken_off()) == 1
    some.asked([call("c")], 3, FLUENT)
    (doubt,) = some.doubts()
    assert "Oslo" in doubt, "what became of the other one will be known"
    assert "may have been done" in doubt
    assert some.doubts() == []


def test_the_ledger_says_when_a_call_was_stopped_and_whether_it_may_have_been_made() -> None:
    books = Books(CHANGES)
    books.ask("a")
    books.take(books.calls.cancelled(["a"], FLUENT))
    assert books.row("a", "state", "mayBeDone") == ("cancelled", True)
    assert books.row("a", "cancelledAt") != (None,)
    books = Books()
    books.ask("a")
    books.take(books.calls.cancelled(["a"], FLUENT))
    assert books.row("a", "mayBeDone") == (None,)
    assert books.calls.broken_off() == []


def test_what_is_to_be_finished_runs_on_though_everybody_left_and_is_only_remembered() -> None:
    for on_interrupt in ("detach", "finish"):
        books = Books(CallPolicy(on_interrupt=on_interrupt))
        books.ask("a")
        books.ask("b")
        ended = books.take(books.calls.end())
        assert told(ended) == [ToolCancelled(("b",))]
        assert not [command for command in ended if isinstance(command, CancelTool)]
        done = books.calls.finished("a", OK, FLUENT, live=False)
        assert done is not None
        assert (done[1], done[2].note) == (
            'get_weather({"place": "Rome"}): 21 degrees',
            "",
        )
        books.take(done[2].commands)
        assert answers(books.commands) == []
        assert books.row("a", "state", "delivered") == ("finished", "remembered")


def test_an_id_of_a_call_that_runs_on_may_be_another_call_of_the_next_session() -> None:
    books = Books(CallPolicy(on_interrupt="detach"))
    books.ask("a")
    books.take(books.calls.end())
    books.switch(resumed=False)
    again = books.ask("a", place="Oslo")
    assert CancelTool("a") in again
    assert started(again) == ["a"]
    assert ids(books.finish("a")) == ["a"]


def test_nobody_can_consent_any_more_to_what_would_run_on() -> None:
    books = Books(CallPolicy(on_interrupt="finish", confirm=True, side_effects=True))
    books.ask("a")
    books.calls.asks("a", "confirm", {})
    books.ask("b", place="Oslo")
    books.calls.asks("b", "confirm", {})
    assert books.calls.answered("b", Consent(True)) is None
    ended = books.take(books.calls.end())
    assert [command.id for command in ended if isinstance(command, CancelTool)] == ["a"]
    assert books.calls.broken_off() == []


def test_consent_that_was_not_given_yet_leaves_nothing_that_may_have_been_made() -> None:
    books = Books(CallPolicy(side_effects=True, confirm=True))
    books.ask("a")
    books.calls.asks("a", "confirm", {})
    books.take(books.calls.cancelled(["a"], FLUENT))
    assert [one.repeats for one in books.ask("b") if isinstance(one, StartTool)] == [None]


def test_a_number_is_the_same_however_it_is_written() -> None:
    some = calls(CHANGES)
    some.asked([FunctionCall("pay", "a", {"sums": [{"euro": 2}]})], 1, FLUENT)
    finished(some, "a")
    for written, again in (({"euro": 2.0}, True), ({"euro": 2.5}, False), ({"euro": True}, False)):
        asked = some.asked([FunctionCall("pay", f"b{written}", {"sums": [written]})], 1, FLUENT)
        assert (started(asked.commands) == []) is again


@pytest.mark.proves("F17")
def test_an_id_that_another_session_uses_for_another_call_is_another_call() -> None:
    books = Books()
    books.ask("a")
    books.finish("a")
    books.switch(resumed=False)
    assert started(books.ask("a", place="Oslo")) == ["a"]
    assert books.row("a", "state") == ("running",)
    assert ids(books.finish("a")) == ["a"]


def test_calls_without_an_id_are_told_apart_over_all_conversations_of_a_session() -> None:
    nameless = FunctionCall("get_weather", None, {"place": "Rome"})
    named = [started(calls().asked([nameless, nameless], turn, FLUENT).commands) for turn in (1, 2)]
    assert len({one for some in named for one in some}) == 2


def test_a_side_effect_that_was_not_made_may_be_asked_for_again() -> None:
    books = Books(CHANGES)
    books.ask("a")
    books.finish("a", ToolResult(False, {"status": "error"}, 1, ToolCode.LIMITED))
    assert started(books.ask("b")) == ["b"]


@pytest.mark.proves("T41")
def test_a_model_that_repeats_itself_for_ever_in_one_turn_fills_no_memory() -> None:
    some = calls(CHANGES)
    some.asked([call("first")], 1, FLUENT)
    finished(some, "first")
    for number in range(2000):
        assert ids(some.asked([call(str(number))], 1, FLUENT).commands) == [str(number)]
    assert some.asked([call("1999")], 1, FLUENT).commands == []
    assert ids(some.asked([call("0")], 1, FLUENT).commands) == ["0"], "one of so long ago is forgotten"


class Lives(RuleBasedStateMachine):
    """Any order of calls, ends, cancellations and switches."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.asked: set[str] = set()
        self.live = True
        self.changes = False

    @initialize(side_effects=st.booleans(), wait=st.sampled_from(["blocking", "background"]))
    def begin(self, side_effects: bool, wait: str) -> None:
        self.books = Books(CallPolicy(wait, side_effects=side_effects))  # type: ignore[arg-type]
        self.changes = side_effects

    @precondition(lambda self: self.live)
    @rule(asked=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["Rome", "Oslo"])), max_size=3))
    def ask(self, asked: list[tuple[str, str]]) -> None:
        self.asked |= {one for one, _ in asked}
        wanted = [call(one, place) for one, place in asked]
        self.books.take(self.books.calls.asked(wanted, 1, self.books.facts).commands)

    @rule(one=st.sampled_from("abcdef"))
    def finish(self, one: str) -> None:
        if self.books.calls.is_running(one):
            self.books.finish(one, live=self.live)

    @precondition(lambda self: self.live)
    @rule(some=st.lists(st.sampled_from("abcdef"), max_size=3))
    def cancel(self, some: list[str]) -> None:
        self.books.take(self.books.calls.cancelled(some, self.books.facts))

    @precondition(lambda self: self.live)
    @rule()
    def save(self) -> None:
        self.books.calls.saved()

    @precondition(lambda self: self.live)
    @rule()
    def lose(self) -> None:
        self.live = False
        self.books.calls.asked_again()

    @precondition(lambda self: not self.live)
    @rule(resumed=st.booleans())
    def reconnect(self, resumed: bool) -> None:
        self.live = True
        self.books.switch(resumed=resumed)

    @precondition(lambda self: self.live)
    @rule()
    def turn_over(self) -> None:
        self.books.calls.turn_over()
        self.books.commands.append(Record("turn", {}))

    @invariant()
    def nothing_is_changed_twice_in_a_turn_unless_the_service_can_tell(self) -> None:
        """As far as the session goes: a call that was taken back while it ran may have been made."""
        if not self.changes:
            return
        made: set[tuple[str, str]] = set()
        for command in self.books.commands:
            match command:
                case StartTool(name=name, args=args, repeats=repeats):
                    key = (name, json.dumps(args))
                    assert key not in made or repeats is not None
                    made.add(key)
                case Record(kind="turn"):
                    made.clear()

    @invariant()
    def every_id_is_in_the_ledger_as_it_is(self) -> None:
        rows = {str(row["id"]): row for row in ledger(self.books.events)}
        assert rows.keys() == self.asked
        for row in rows.values():
            assert row["argsDigest"]
            assert row["startedAt"]
            assert (row["state"] == "finished") is (row.get("delivered") is not None)
            assert row["state"] != "finished" or row["answerDigest"]
            assert row.get("sameAs") != row["id"]
        open_ones = {one for one, row in rows.items() if row["state"] == "running" and "sameAs" not in row}
        assert open_ones == {one for one in self.asked if self.books.calls.is_running(one)}
        if self.live:
            assert not [row for row in rows.values() if row.get("delivered") == "later"]

    @invariant()
    def the_client_sees_each_call_begin_and_end(self) -> None:
        open_ones: set[str] = set()
        for event in told(self.books.commands):
            match event:
                case ToolStarted(id=one):
                    assert one not in open_ones
                    open_ones.add(one)
                case ToolFinished(id=one):
                    open_ones.remove(one)
                case ToolCancelled(ids=some):
                    open_ones -= set(some)
        assert open_ones == {str(row["id"]) for row in ledger(self.books.events) if row["state"] == "running"}

    def teardown(self) -> None:
        self.books.take(self.books.calls.end())
        assert not [row for row in ledger(self.books.events) if row["state"] == "running"]
        self.the_client_sees_each_call_begin_and_end()


Lives.TestCase.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, derandomize=True, database=None
)
TestLives = Lives.TestCase


def test_what_nobody_may_see_of_a_call_is_neither_in_memory_nor_told_by_a_digest() -> None:
    books = Books(CallPolicy(show_args=False))
    books.ask("a")
    done = books.calls.finished("a", OK, FLUENT, live=True)
    assert done is not None
    assert done[1] == "get_weather(…): 21 degrees"
    books.take(done[2].commands)
    assert books.row("a", "argsDigest") == (None,)


def test_a_call_that_fails_before_anybody_was_asked_is_told_from_its_beginning() -> None:
    for asking in (CallPolicy(client=True), CallPolicy(confirm=True)):
        books = Books(asking)
        books.ask("a")
        assert told(books.finish("a")) == [
            ToolStarted("a", "get_weather", {"place": "Rome"}),
            ToolFinished("a", "get_weather", OK),
        ]
        books.ask("b", place="Oslo")
        books.calls.asks("b", "client", {"place": "Oslo"})
        assert told(books.finish("b")) == [ToolFinished("b", "get_weather", OK)]


def shared(order: str) -> list[Json]:
    """The ids that are answered where a model asks for the weather, and then for it and for a door of the guest's
    in one message. `order`: which of the two ends first."""
    some = Calls(lambda name: CallPolicy(), lambda name: name == "open_door")
    some.asked([call("w1")], 1, FLUENT)
    some.asked([call("w2"), FunctionCall("open_door", "d", {})], 1, FLUENT)
    found: list[Json] = []
    for name in order.split():
        if name == "weather":
            found += ids(finished(some, "w1").commands)
        else:
            answer = Answer("d", "open_door", {"ok": True}, {"id": "d", "name": "open_door", "response": {}})
            found += ids(some.guest_answered("d", answer, FLUENT, 1.0, live=True, sent=False)[2].commands)
    return found


def test_a_call_that_is_the_same_as_an_earlier_one_is_answered_with_its_own_message_and_once() -> None:
    assert shared("weather door") == ["w1", "w2", "d"]
    assert shared("door weather") == ["w2", "d", "w1"]
