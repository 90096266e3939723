"""When a conversation ends whose server is about to stop. Pure."""

from __future__ import annotations

LOOK_AGAIN_S = 0.25


class Draining:
    """Not before `begin`. The conversation ends at a quiet point, or when its time is up."""

    def __init__(self) -> None:
        self._earliest = self._latest = float("inf")

    @property
    def begun(self) -> bool:
        return self._latest != float("inf")

    def begin(self, spread_s: float, most_s: float, now: float) -> None:
        """From `spread_s` on, and after `most_s` at the latest. A second call can only bring the end nearer."""
        self._latest = min(self._latest, now + most_s)
        self._earliest = min(self._earliest, now + spread_s, self._latest)

    def due(self, quiet: bool, now: float) -> bool:
        return now >= self._latest or (quiet and now >= self._earliest)

    def wake_after(self, now: float) -> float:
        """When to ask `due` again."""
        if now < self._earliest:
            return self._earliest - now
        return max(0.0, min(LOOK_AGAIN_S, self._latest - now))
