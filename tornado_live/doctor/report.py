"""What the doctor says: one line a step."""

from __future__ import annotations

from collections.abc import Callable

from tornado_live.live.causes import Cause
from tornado_live.observe.logs import Masker


class Report:
    """`failures` counts what has to be mended. No line shows a secret that `masker` knows."""

    def __init__(self, say: Callable[[str], None], masker: Masker) -> None:
        self._say = say
        self._masker = masker
        self.failures = 0

    def fine(self, step: str, text: str) -> None:
        self._line("ok", step, text)

    def note(self, step: str, text: str) -> None:
        self._line("note", step, text)

    def wrong(self, step: str, text: str) -> None:
        self.failures += 1
        self._line("WRONG", step, text)

    def plain(self, text: str) -> None:
        self._say(self._masker.text(text))

    def _line(self, verdict: str, step: str, text: str) -> None:
        self.plain(f"{verdict:<6}{step:<10}{text}")


def explained(cause: Cause) -> str:
    """What happened, what to do, and the name under which docs/troubleshooting.md has it."""
    return f"{cause.message} {cause.remedy} ({cause.name})"
