"""Each function call is answered exactly once, or was cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import pytest

from tornado_live.jsonvalue import Json
from tornado_live.live.calls import STARTED, Calls, Delivery
from tornado_live.live.commands import (
    CancelTool,
    Command,
    SendToClient,
    SendToModel,
    StartTool,
    ToolCancelled,
    ToolFinished,
    ToolStarted,
)
from tornado_live.resources import require
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire.gemini import FunctionCall
from tornado_live.wire.models import load_models

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
