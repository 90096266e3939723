"""The function calls of one connection: each id is answered exactly once, or was cancelled. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class CallState(StrEnum):
    RUNNING = "running"
    ANSWERED = "answered"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class _Call:
    turn: int
    state: CallState = CallState.RUNNING


class Calls:
    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    def begin(self, call_id: str, turn: int) -> bool:
        """False for an id that was seen before: it is not run again."""
        if call_id in self._calls:
            return False
        self._calls[call_id] = _Call(turn)
        return True

    def answer(self, call_id: str) -> int | None:
        """The turn of a call that may be answered now, or None when it was cancelled or answered."""
        call = self._calls.get(call_id)
        if call is None or call.state is not CallState.RUNNING:
            return None
        call.state = CallState.ANSWERED
        return call.turn

    def cancel(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Those of `ids` that were still running."""
        cancelled = [one for one in ids if self.is_running(one)]
        for one in cancelled:
            self._calls[one].state = CallState.CANCELLED
        return tuple(cancelled)

    def lost(self) -> tuple[str, ...]:
        """The connection is gone: nobody waits for an answer. The ids that were running."""
        running = self.cancel(list(self._calls))
        self._calls.clear()
        return running

    def is_running(self, call_id: str) -> bool:
        call = self._calls.get(call_id)
        return call is not None and call.state is CallState.RUNNING
