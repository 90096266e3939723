"""Who gives way when more waits for slow clients than the process may hold. Pure.

One queue is bounded by itself (bridge.py). Many full ones together, or a few messages of many MiB each, are not:
they are the memory of the process, and an end of the process ends everybody's conversation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FULL = 0.75
"""The part of the limit beyond which nobody new comes in, and down to which is shed."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a client has not read. `slow_since`: when it went over its high-water mark, None for one below it."""

    session: str
    queued: int
    slow_since: float | None


@dataclass(frozen=True, slots=True)
class Pressure:
    """`queued`: bytes, of all clients. `full`: new conversations are refused. `shed`: whose lines are cut now, in
    this order."""

    queued: int
    full: bool
    shed: tuple[str, ...]


def pressure(waiting: Iterable[Waiting], limit: int) -> Pressure:
    """Beyond `limit` bytes those who have been slow for longest go; a client that reads never does.

    Cut, not closed: a close frame would wait behind what is not read, and free nothing.
    """
    clients = list(waiting)
    queued = left = sum(client.queued for client in clients)
    room = int(limit * FULL)
    shed: list[str] = []
    if queued > limit:
        slow = [(client.slow_since, client) for client in clients if client.slow_since is not None]
        for _, client in sorted(slow, key=lambda each: each[0]):
            if left <= room:
                break
            shed.append(client.session)
            left -= client.queued
    return Pressure(queued, queued > room, tuple(shed))
