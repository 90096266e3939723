"""Every session store under the same tests: what a test needs of the place where a store keeps its data."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from redis_server import NEEDS_REDIS, RedisServer, running

from tornado_live.sessions.machine import Clocks
from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import NODE_LIFE_S, SessionStore

TTL = 1800.0


class Clock:
    """Shows what it is set to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Place(Protocol):
    """Data that stores share, as the processes of an installation do: each `open` stands for one more process.

    Tests do not rely on how fast they run, except that they take less than a minute.
    """

    node_life_s: float
    """After how long without a beat the stores of this place take a node for dead."""

    async def open(self, *, impatient: bool = False, **bounds: Any) -> SessionStore:
        """Sessions live for TTL. `impatient`: gives up soon where the store is out of reach."""
        ...

    def now(self) -> float:
        """What the wall clock shows."""
        ...

    def jump(self, seconds: float) -> None:
        """The wall clock is set to another time, for all stores of the place."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """So much time passes, for everything that is stored; the wall clock goes with it."""
        ...

    def cut(self) -> AbstractContextManager[None]:
        """Nothing can be written within; everything can again behind it."""
        ...


class SqlitePlace:
    node_life_s = NODE_LIFE_S

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wall = Clock()
        self.steady = Clock(self.wall.now)

    async def open(self, *, impatient: bool = False, **bounds: Any) -> SqliteSessionStore:
        clocks = Clocks(self.wall, self.steady, boot="this one")
        patience_s = 0.1 if impatient else 2.0
        return await SqliteSessionStore.open(
            self.path, ttl_s=TTL, clocks=clocks, patience_s=patience_s, **bounds
        )

    def now(self) -> float:
        return self.wall.now

    def jump(self, seconds: float) -> None:
        self.wall.now += seconds

    async def pass_time(self, seconds: float) -> None:
        self.wall.now += seconds
        self.steady.now += seconds

    @contextmanager
    def cut(self) -> Iterator[None]:
        blocker = sqlite3.connect(self.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            blocker.close()


@contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    yield SqlitePlace(folder / "s.db")


_PASS = """
local ms = tonumber(ARGV[1])
if ms == 0 then return end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > ms then redis.call('PEXPIRE', key, left - ms) elseif left >= 0 then redis.call('DEL', key) end
end
local timed = redis.call('KEYS', '*:k:*')
for _, key in ipairs(redis.call('KEYS', '*:o:*')) do timed[#timed + 1] = key end
for _, key in ipairs(timed) do
  for _, one in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ms, one) end
end
for _, key in ipairs(redis.call('KEYS', '*revoked')) do
  local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for at = 1, #all, 2 do
    local ends, subject = string.match(all[at], '^(%d+) (.*)$')
    redis.call('ZADD', key, all[at + 1], string.format('%.0f %s', ends - ms, subject))
    redis.call('ZREM', key, all[at])  -- not before: an empty key is gone, and its TTL with it
  end
end
"""


class RedisPlace:
    """Redis's own time passes by what is left of each TTL."""

    node_life_s = 60.0

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.wall = Clock()
        self.steady = Clock()

    async def open(self, *, impatient: bool = False, **bounds: Any) -> RedisSessionStore:
        return RedisSessionStore(
            self.server.url,
            prefix="tornado-live:",
            ttl_s=TTL,
            deadline_s=0.1 if impatient else 30.0,
            node_life_s=self.node_life_s,
            wall=self.wall,
            steady=self.steady,
            **bounds,
        )

    def now(self) -> float:
        return self.wall.now

    def jump(self, seconds: float) -> None:
        self.wall.now += seconds

    async def pass_time(self, seconds: float) -> None:
        self.wall.now += seconds
        self.steady.now += seconds
        with self.server.client() as client:
            client.eval(_PASS, 0, str(round(1000 * seconds)))

    def cut(self) -> AbstractContextManager[None]:
        return self.server.hung()


@contextmanager
def redis_place(folder: Path) -> Iterator[Place]:
    with running(folder) as server:
        yield RedisPlace(server)


Given = Callable[[Path], AbstractContextManager[Place]]
PLACES = [
    pytest.param(sqlite_place, id="sqlite"),
    pytest.param(redis_place, id="redis", marks=NEEDS_REDIS),
]
"""Of each kind of store a place without data, given an empty folder."""


@asynccontextmanager
async def opened(place: Place, *, impatient: bool = False, **bounds: Any) -> AsyncIterator[SessionStore]:
    store = await place.open(impatient=impatient, **bounds)
    try:
        yield store
    finally:
        await store.close()
