"""What this process knows of the sessions that it holds, so that a Redis that lost them gets them back. Pure.

A copy is what Redis has once the batches that were begun are written; what is still gathered comes later.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tornado_live.sessions.redis_records import about_text, handle_text, item_text
from tornado_live.sessions.store import Session
from tornado_live.sessions.waiting import Batch, Bounds, Touched

COPIES_BYTES = 64 * 1024 * 1024

_SIZE = re.compile(rb"\[(\d{1,15}),")
_OVERHEAD = 2000


@dataclass(slots=True)
class Copy:
    """`holds` is how often the session had changed hands when `node` took it, `active` when it was touched last,
    `written` the number of the last batch that Redis is known to have of it, `size` the bytes of its memory."""

    node: str
    holds: int
    user: str
    created_at: float
    about: str
    active: Touched
    turn: int
    usage: str
    handle: str
    connected: bool = False
    written: int = 0
    memory: deque[bytes] = field(default_factory=deque)
    size: int = 0

    def remember(self, item: bytes, bounds: Bounds) -> None:
        self.memory.append(item)
        self.size += size_of(item)
        while self.memory and (len(self.memory) > bounds.memory_messages or self.size > bounds.memory_bytes):
            self.size -= size_of(self.memory.popleft())

    @property
    def cost(self) -> int:
        return self.size + len(self.about) + len(self.usage) + len(self.handle) + _OVERHEAD


class Copies:
    """Of what this process holds, no more than `limit` bytes of it: beyond that the longest untouched go."""

    def __init__(self, bounds: Bounds, limit: int) -> None:
        self._bounds = bounds
        self._limit = limit
        self._copies: dict[str, Copy] = {}
        self._cost = 0
        self._applied = 0

    @property
    def applied(self) -> int:
        """The last batch that the copies know of."""
        return self._applied

    def __contains__(self, id: str) -> bool:
        return id in self._copies

    def of(self, id: str, *, node: str | None = None) -> Copy | None:
        """The copy; with `node` only where that one holds the session."""
        copy = self._copies.get(id)
        return copy if copy is not None and node in (None, copy.node) else None

    def keep(
        self,
        session: Session,
        usage: str,
        *,
        user: str,
        node: str,
        holds: int,
        memory: Iterable[bytes],
        at: float,
    ) -> None:
        """In the place of an older one. `at`: now, by the clock that does not jump."""
        self.drop(session.id)
        copy = Copy(
            node,
            holds,
            user,
            session.created_at,
            about_text(session),
            Touched(at, session.last_active_at),
            session.last_turn,
            usage,
            handle_text(session.handle),
        )
        for item in memory:
            copy.remember(item, self._bounds)
        self._copies[session.id] = copy
        self._cost += copy.cost
        self._shrink()

    def reread(self, id: str, memory: Iterable[bytes]) -> None:
        """What others remembered before they let go is known now, too."""
        copy = self._copies.get(id)
        if copy is not None:
            self._cost -= copy.cost
            copy.memory.clear()
            copy.size = 0
            for item in memory:
                copy.remember(item, self._bounds)
            self._cost += copy.cost
            self._shrink()

    def drop(self, id: str, *, node: str | None = None) -> None:
        copy = self.of(id, node=node)
        if copy is not None:
            del self._copies[id]
            self._cost -= copy.cost

    def apply(self, batch: Batch) -> None:
        """What a batch says; it may come again."""
        if batch.number <= self._applied:
            return
        self._applied = batch.number
        for id, usage in batch.usage.items():
            if (copy := self._copies.get(id)) is not None:
                self._cost += len(usage) - len(copy.usage)
                copy.usage = usage
        for id, item in batch.items:
            if (copy := self._copies.get(id)) is not None:
                self._cost -= copy.cost
                copy.remember(item_text(item).encode(), self._bounds)
                copy.turn = max(copy.turn, item.turn)
                self._cost += copy.cost
        for event in batch.events:
            if (copy := self._copies.get(event.session)) is not None:
                copy.turn = max(copy.turn, event.turn)
        for id, handle in batch.handles.items():
            if (copy := self._copies.get(id)) is not None:
                text = handle_text(handle)
                self._cost += len(text) - len(copy.handle)
                copy.handle = text
        for (id, node), connected in batch.attended.items():
            if (copy := self.of(id, node=node)) is not None:
                copy.connected = connected
        self._shrink()

    def _shrink(self) -> None:
        while self._cost > self._limit:
            self.drop(min(self._copies, key=lambda id: self._copies[id].active.at))


def size_of(item: bytes) -> int:
    """The bytes of a message's text, as its record says."""
    found = _SIZE.match(item)
    return len(item) if found is None else int(found[1])
