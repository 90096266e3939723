"""How often a model may call functions: one that calls for ever must cost no money and no conversation. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable

SAME_IN_TURN = 3
"""The same call with the same arguments, in one turn; its answer will not be another one the fourth time."""

_MINUTE_S = 60.0


class Bounds:
    """`per_turn` and `per_minute` are calls that are really made; what is refused does not count."""

    def __init__(self, per_turn: int, per_minute: int) -> None:
        self._per_turn = per_turn
        self._per_minute = per_minute
        self._turn = 0
        self._in_turn: Counter[Hashable] = Counter()
        self._made: deque[float] = deque()

    def refusal(self, key: Hashable, turn: int, now: float) -> str | None:
        """Why one more call is not made, for the model; None where it is, which is then counted.

        `key` is the call's name with its arguments, `now` in seconds.
        """
        if turn != self._turn:
            self._turn = turn
            self._in_turn.clear()
        while self._made and now - self._made[0] >= _MINUTE_S:
            self._made.popleft()
        if self._in_turn[key] >= SAME_IN_TURN:
            return f"This very call was made {SAME_IN_TURN} times in this turn; its answer stays the same."
        if self._in_turn.total() >= self._per_turn:
            return f"There were {self._per_turn} calls in this turn, which is all that a turn may have."
        if len(self._made) >= self._per_minute:
            return f"There were {self._per_minute} calls in the last minute, which is all that may be made."
        self._in_turn[key] += 1
        self._made.append(now)
        return None
