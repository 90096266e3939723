"""How often a model may call functions."""

from __future__ import annotations

import pytest

from tornado_live.live.bounds import SAME_IN_TURN, Bounds


@pytest.mark.proves("T41")
def test_a_turn_has_so_many_calls_and_the_next_one_has_them_again() -> None:
    bounds = Bounds(per_turn=3, per_minute=100)
    assert [bounds.refusal(number, 1, 0.0) is None for number in range(5)] == [True] * 3 + [False] * 2
    assert bounds.refusal("x", 2, 0.0) is None


@pytest.mark.proves("T41")
def test_a_minute_has_so_many_calls_over_all_turns() -> None:
    bounds = Bounds(per_turn=10, per_minute=4)
    assert [bounds.refusal(0, turn, turn) is None for turn in range(6)] == [True] * 4 + [False] * 2
    assert bounds.refusal(0, 7, 59.9) is not None
    assert bounds.refusal(0, 8, 60.0) is None


@pytest.mark.proves("T41")
def test_the_same_call_is_not_made_over_and_over_in_one_turn() -> None:
    bounds = Bounds(per_turn=100, per_minute=100)
    assert [bounds.refusal("same", 1, 0.0) is None for _ in range(SAME_IN_TURN + 2)] == [
        *[True] * SAME_IN_TURN,
        False,
        False,
    ]
    assert bounds.refusal("other", 1, 0.0) is None
    assert bounds.refusal("same", 2, 0.0) is None
