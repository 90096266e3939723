"""When a conversation ends whose server is about to stop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tornado_live.live.draining import HANDLE_S, LOOK_AGAIN_S, Draining

SECONDS = st.floats(0, 60, allow_nan=False)


def test_nothing_is_due_before_it_begins() -> None:
    draining = Draining()
    assert not draining.begun
    assert not draining.due(True, 1e9)


def test_a_quiet_conversation_ends_when_its_turn_in_the_spread_has_come() -> None:
    draining = Draining()
    draining.begin(1.5, 10, 100.0)
    assert not draining.due(True, 101.0)
    assert draining.wake_after(100.5) == 1.0
    assert draining.due(True, 101.5)


def test_a_turn_may_end_but_not_for_ever() -> None:
    draining = Draining()
    draining.begin(0, 10, 100.0)
    assert not draining.due(False, 109.9)
    assert draining.wake_after(105.0) == LOOK_AGAIN_S
    assert draining.due(False, 110.0)


def test_the_handle_of_a_turn_that_is_over_is_waited_for_but_not_for_long() -> None:
    draining = Draining()
    draining.begin(0, 10, 100.0)
    assert not draining.due(True, 101.0, saved=False)
    assert draining.due(True, 101.5, saved=True)
    assert not draining.due(True, 101.9, saved=False)
    assert draining.due(True, 101.0 + HANDLE_S, saved=False)
    assert not draining.due(False, 103.0), "somebody speaks again"
    assert not draining.due(True, 103.5, saved=False)
    assert draining.due(True, 103.5 + HANDLE_S, saved=False)


@given(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_the_end_only_comes_nearer(
    spread: float, most: float, later: float, spread_again: float, most_again: float
) -> None:
    draining = Draining()
    draining.begin(spread, most, 0.0)
    draining.begin(spread_again, most_again, later)
    assert draining.due(False, min(most, later + most_again))
    assert draining.wake_after(later) >= 0.0
