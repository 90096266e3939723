"""Each function call is answered exactly once, or was cancelled."""

from __future__ import annotations

from tornado_live.live.calls import Calls


def test_a_call_is_answered_once() -> None:
    calls = Calls()
    assert calls.begin("a", 3)
    assert calls.answer("a") == 3
    assert calls.answer("a") is None


def test_an_id_that_was_seen_is_not_run_again() -> None:
    calls = Calls()
    assert calls.begin("a", 1)
    assert not calls.begin("a", 1)
    calls.answer("a")
    assert not calls.begin("a", 2)


def test_a_cancelled_call_gets_no_answer() -> None:
    calls = Calls()
    calls.begin("a", 1)
    calls.begin("b", 1)
    assert calls.cancel(["a", "unknown"]) == ("a",)
    assert calls.cancel(["a"]) == ()
    assert calls.answer("a") is None
    assert calls.answer("b") == 1
    assert not calls.is_running("b")


def test_a_lost_connection_forgets_its_calls() -> None:
    calls = Calls()
    calls.begin("a", 1)
    calls.begin("b", 1)
    calls.answer("a")
    assert calls.lost() == ("b",)
    assert calls.answer("b") is None
    assert calls.begin("a", 2)
