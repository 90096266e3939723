"""How often a tool may be called, by one user, in one session, and by everybody at a time. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from tornado_live.tools.result import ToolCode, ToolError
from tornado_live.tools.tool import Tool

Count = TypeVar("Count")

MINUTE_S = 60.0
MOST_KNOWN = 20_000
"""Users and sessions whose calls are counted; the longest unseen is forgotten first."""


@dataclass(slots=True)
class _Counts:
    running: int = 0
    by_user: OrderedDict[Hashable, deque[float]] = field(default_factory=OrderedDict)
    by_session: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)


class Limits:
    """The counts of one process."""

    def __init__(self) -> None:
        self._tools: dict[str, _Counts] = {}

    def enter(self, tool: Tool, *, user: str, session: str, now: float) -> None:
        """One more call begins; `leave` follows. Raises ToolError(limited). `now` is in seconds."""
        self.check(tool, user=user, session=session, now=now)
        counts = self._tools[tool.name]
        counts.by_user.setdefault(user, deque()).append(now)
        counts.by_session[session] = counts.by_session.get(session, 0) + 1
        counts.running += 1
        _keep(counts.by_user, user)
        _keep(counts.by_session, session)

    def check(self, tool: Tool, *, user: str, session: str, now: float) -> None:
        """Raises ToolError(limited) where a call could not begin now; nothing is counted."""
        counts, limits = self._tools.setdefault(tool.name, _Counts()), tool.limits
        self._check_place(tool, counts)
        made = counts.by_user.get(user, deque())
        while made and now - made[0] >= MINUTE_S:
            made.popleft()
        if limits.per_minute is not None and len(made) >= limits.per_minute:
            wait = round(MINUTE_S - (now - made[0]))
            raise _limited(f"It was used as often as it may be; again in {wait} seconds.", retryable=True)
        in_session = counts.by_session.get(session, 0)
        if limits.per_session is not None and in_session >= limits.per_session:
            raise _limited("It was used as often as it may be in this conversation.", retryable=False)

    def _check_place(self, tool: Tool, counts: _Counts) -> None:
        if tool.limits.concurrency is not None and counts.running >= tool.limits.concurrency:
            raise _limited("It is in use by as many as may use it at a time.", retryable=True)

    def leave(self, tool: Tool) -> None:
        self._tools[tool.name].running -= 1


def _keep(known: OrderedDict[Hashable, Count], key: Hashable) -> None:
    known.move_to_end(key)
    while len(known) > MOST_KNOWN:
        known.popitem(last=False)


def _limited(why: str, *, retryable: bool) -> ToolError:
    return ToolError(ToolCode.LIMITED, why, retryable=retryable, hint="Say that it cannot be used just now.")
