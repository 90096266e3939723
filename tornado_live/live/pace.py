"""How fast a client may send: beyond it the line is read no faster, so that nothing is lost. Pure.

The generic cell rate algorithm (ITU-T I.371): each message moves the time at which all of it would be due, and
what is due later than the burst allows waits for that long.
"""

from __future__ import annotations

from typing import Final

BURST_S: Final = 5.0
"""What may come at once: so many seconds of messages, and of speech at the rate that is allowed."""


class Pace:
    """Of one client's socket. None is no limit."""

    __slots__ = ("_audio_due", "_audio_factor", "_due", "_each")

    def __init__(self, messages_per_s: float | None, audio_factor: float | None) -> None:
        self._each = 1 / messages_per_s if messages_per_s else 0.0
        self._audio_factor = 1 / audio_factor if audio_factor else 0.0
        self._due = self._audio_due = 0.0

    def came(self, seconds: float, now: float) -> float:
        """A message with so many seconds of speech; how long to wait before the next one is read."""
        due = self._due = (self._due if self._due > now else now) + self._each
        if seconds:
            audio = self._audio_due
            audio = self._audio_due = (audio if audio > now else now) + seconds * self._audio_factor
            if audio > due:
                due = audio
        wait = due - now - BURST_S
        return wait if wait > 0.0 else 0.0
