"""When a conversation ends whose server is about to stop. Pure."""

from __future__ import annotations

LOOK_AGAIN_S = 0.25
HANDLE_S = 1.0
"""How long the handle is waited for that knows the last turn; not every model side gives one each time."""


class Draining:
    """Not before `begin`. The conversation ends at a quiet point, or when its time is up."""

    def __init__(self) -> None:
        self._earliest = self._latest = float("inf")
        self._quiet_from: float | None = None

    @property
    def begun(self) -> bool:
        return self._latest != float("inf")

    def begin(self, spread_s: float, most_s: float, now: float) -> None:
        """From `spread_s` on, and after `most_s` at the latest. A second call can only bring the end nearer."""
        self._latest = min(self._latest, now + most_s)
        self._earliest = min(self._earliest, now + spread_s, self._latest)

    def due(self, quiet: bool, now: float, *, saved: bool = True) -> bool:
        """`saved`: the newest handle knows everything that was said."""
        if not quiet:
            self._quiet_from = None
        elif self._quiet_from is None:
            self._quiet_from = now
        waited = self._quiet_from is not None and (saved or now - self._quiet_from >= HANDLE_S)
        return now >= self._latest or (waited and now >= self._earliest)

    def wake_after(self, now: float) -> float:
        """When to ask `due` again."""
        if now < self._earliest:
            return self._earliest - now
        return max(0.0, min(LOOK_AGAIN_S, self._latest - now))
