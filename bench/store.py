"""What a session store costs, in microseconds, beside a bare client that has the same engine do the same work.

    python bench/store.py                               SQLite, in a temporary folder
    python bench/store.py --redis redis://127.0.0.1     Redis as well; its keys are below a prefix of their own

The bare client gives its statements one after the other in one thread, with nothing around them: no queue, no
event loop, no values of ours; on Redis it also leaves out what makes a change one step. Both do their rounds in
turns, and each number is the lowest of the rounds: other work on the machine only ever adds. `queued` is what the
caller of a plain method waits for, all that the audio path ever pays; `written` is the same until it is stored.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
import uvloop

from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import MemoryItem, SessionStore, new_session_id

TTL = 1800.0
ITEMS = 10
"""Messages in each memory."""
HELD = 100
"""Sessions of one process, as each beat names them."""
TEXT = "What people say in a turn is about as long as this, give or take a few words that nobody counts. " * 2

Work = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One operation: what does it `times` times, in the store and by the bare client."""

    name: str
    times: int
    ours: Work
    bare: Work | None


# The store


def rows_of(store: SessionStore, ids: Sequence[str], bare: Bare) -> Iterator[Row]:
    nodes = (f"node {number}" for number in range(sys.maxsize))
    turns = iter(range(1, sys.maxsize))

    async def create(times: int) -> None:
        for _ in range(times):
            await store.create(user=some_user(), assistant="default", metadata={"a": 1}, node="node")

    async def touch(times: int) -> None:
        for number in range(times):
            store.touch(ids[number])

    async def remember(times: int) -> None:
        turn = next(turns)
        for number in range(times):
            store.remember(ids[number], MemoryItem("user", TEXT, turn, 1.0))

    async def resume(times: int) -> None:
        for number in range(times):
            await store.resume(ids[-number], user=user_of(ids[-number]))

    async def hold(times: int) -> None:
        node = next(nodes)
        for number in range(times):
            await store.hold(ids[number], node=node)

    async def beat(times: int) -> None:
        for _ in range(times):
            await store.beat("node", ids[-HELD:])

    async def look_up_key(times: int) -> None:
        await store.keep_credential("key:bench", uses=None, expires_at=None, body={"id": "bench"}, kind="key")
        for _ in range(times):
            await store.use_credential("key:bench", spend=False)

    async def ticket(times: int) -> None:
        for number in range(times):
            name, end = f"ticket {number}", time.time() + 60
            await store.keep_credential(name, uses=1, expires_at=end, body={}, kind="ticket", at_most=100_000)
            await store.use_credential(name, spend=False)
            await store.use_credential(name)

    async def take(times: int) -> None:
        for number in range(times):
            await store.take(f"calls:user {number % 100}", 1, limit=sys.maxsize >> 12, window_s=60)

    async def occupy(times: int) -> None:
        for number in range(times):
            await store.occupy("talks:all", f"{number % 100}", limit=100, lasts_s=35)

    def written(work: Work) -> Work:
        async def worked(times: int) -> None:
            await work(times)
            await store.flush()

        return worked

    yield Row("create", 500, create, bare.create)
    yield Row("touch, queued", 1000, touch, None)
    yield Row("touch, written", 1000, written(touch), bare.touch)
    yield Row("remember, queued", 1000, remember, None)
    yield Row("remember, written", 1000, written(remember), bare.remember)
    yield Row("resume", 500, resume, bare.resume)
    yield Row("hold", 500, hold, bare.hold)
    yield Row(f"beat, {HELD} held", 100, beat, bare.beat)
    yield Row("look up a key", 500, look_up_key, None)
    yield Row("use a ticket", 300, ticket, None)
    yield Row("take of a counter", 500, take, None)
    yield Row("occupy one of 100", 500, occupy, None)


def some_user() -> str:
    return f"user {secrets.randbelow(1000)}"


def user_of(id: str) -> str:
    return USERS[id]


USERS: dict[str, str] = {}


async def filled(store: SessionStore, sessions: int) -> list[str]:
    """With so many sessions, each with its memory."""
    for _ in range(sessions):
        user = some_user()
        session = await store.create(user=user, assistant="default", metadata={"a": 1}, node="node")
        USERS[session.id] = user
    ids = list(USERS)
    for turn in range(ITEMS):
        for number, id in enumerate(ids):
            store.remember(id, MemoryItem("user" if turn % 2 else "model", TEXT, turn // 2, 1.0))
            if number % 1000 == 999:
                await store.flush()
    await store.flush()
    return ids


# The bare clients


class Bare:
    """What a bare client does for each row."""

    async def create(self, times: int) -> None: ...
    async def touch(self, times: int) -> None: ...
    async def remember(self, times: int) -> None: ...
    async def resume(self, times: int) -> None: ...
    async def hold(self, times: int) -> None: ...
    async def beat(self, times: int) -> None: ...


class BareSqlite(Bare):
    """On the store's own file."""

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        for pragma in ("busy_timeout = 2000", "synchronous = NORMAL", "foreign_keys = ON"):
            self._file.execute(f"PRAGMA {pragma}")
        self._ids = ids
        self._turns = iter(range(1, sys.maxsize))

    async def create(self, times: int) -> None:
        for _ in range(times):
            now = time.time()
            self._file.execute("BEGIN IMMEDIATE")
            self._file.execute("REPLACE INTO node (name, process, beat_at) VALUES ('bare', '', ?)", (now,))
            self._file.execute(
                "INSERT INTO session"
                " (id, user, label, assistant, metadata, created_at, last_active_at, expires_at, ends, holder)"
                " VALUES (?, ?, '', 'default', '{}', ?, ?, ?, ?, 'bare')",
                (new_session_id(), some_user(), now, now, now + TTL, now + TTL),
            )
            self._file.execute("COMMIT")

    async def touch(self, times: int) -> None:
        now = time.time()
        self._file.execute("BEGIN IMMEDIATE")
        self._file.executemany(
            "UPDATE session SET last_active_at = ?, expires_at = ?, ends = ? WHERE id = ?",
            [(now, now + TTL, now + TTL, id) for id in self._ids[:times]],
        )
        self._file.execute("COMMIT")

    async def remember(self, times: int) -> None:
        ids, turn = self._ids[:times], next(self._turns)
        self._file.execute("BEGIN IMMEDIATE")
        self._file.executemany(
            "INSERT INTO memory (session, role, text, bytes, turn, at) VALUES (?, 'user', ?, ?, ?, 1.0)",
            [(id, TEXT, len(TEXT), turn) for id in ids],
        )
        self._file.executemany("UPDATE session SET last_turn = ? WHERE id = ?", [(turn, id) for id in ids])
        self._file.executemany(
            "DELETE FROM memory WHERE session = ? AND n <= ("
            " SELECT n FROM memory WHERE session = ? ORDER BY n DESC LIMIT 1 OFFSET 50)",
            [(id, id) for id in ids],
        )
        self._file.execute("COMMIT")

    async def resume(self, times: int) -> None:
        for id in self._ids[-times:]:
            self._file.execute("SELECT * FROM session WHERE id = ?", (id,)).fetchone()
            self._file.execute("SELECT * FROM memory WHERE session = ? ORDER BY n", (id,)).fetchall()

    async def hold(self, times: int) -> None:
        node = f"bare {next(self._turns)}"
        for id in self._ids[:times]:
            self._file.execute("BEGIN IMMEDIATE")
            (holder,) = self._file.execute("SELECT holder FROM session WHERE id = ?", (id,)).fetchone()
            self._file.execute("REPLACE INTO node (name, process, beat_at) VALUES (?, '', 1e12)", (node,))
            self._file.execute("UPDATE session SET holder = ?, connected = 0 WHERE id = ?", (node, id))
            self._file.execute("REPLACE INTO leaving (session, node) VALUES (?, ?)", (id, holder))
            self._file.execute("SELECT node FROM leaving WHERE session = ?", (id,)).fetchall()
            self._file.execute("COMMIT")

    async def beat(self, times: int) -> None:
        held = json.dumps(self._ids[-HELD:])
        for _ in range(times):
            self._file.execute("BEGIN IMMEDIATE")
            self._file.execute("REPLACE INTO node (name, process, beat_at) VALUES ('bare', '', 1e12)")
            self._file.execute(
                "SELECT id, holder FROM session WHERE id IN (SELECT value FROM json_each(?))", (held,)
            ).fetchall()
            self._file.execute("SELECT n, subject FROM revocation WHERE n > 0").fetchall()
            self._file.execute("COMMIT")


class BareRedis(Bare):
    """On keys of its own, in the same server."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, ids: Sequence[str]) -> None:
        self._client = client
        self._prefix = prefix
        self._ids = ids

    def _key(self, kind: str, id: str) -> str:
        return f"{self._prefix}{kind}:{id}"

    async def filled(self) -> None:
        for id in self._ids:
            await self._made(id)
            async with self._client.pipeline(transaction=False) as pipe:
                for turn in range(ITEMS):
                    pipe.rpush(self._key("m", id), json.dumps(["user", TEXT, turn, 1.0]))
                await pipe.execute()

    async def _made(self, id: str) -> None:
        about = {
            "user": some_user(),
            "assistant": "default",
            "metadata": "{}",
            "created": 1.0,
            "holder": "bare",
        }
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(self._key("s", id), mapping=about)
            pipe.pexpire(self._key("s", id), 1_800_000)
            pipe.zadd(self._key("u", about["user"]), {id: 1.0})
            await pipe.execute()

    async def create(self, times: int) -> None:
        for _ in range(times):
            await self._made(new_session_id())

    async def touch(self, times: int) -> None:
        for part in parts(self._ids[:times]):
            async with self._client.pipeline(transaction=False) as pipe:
                for id in part:
                    pipe.hset(self._key("s", id), "active", 1.0)
                    pipe.pexpire(self._key("s", id), 1_800_000)
                    pipe.pexpire(self._key("m", id), 1_800_000)
                await pipe.execute()

    async def remember(self, times: int) -> None:
        item = json.dumps(["user", TEXT, 1, 1.0])
        for part in parts(self._ids[:times]):
            async with self._client.pipeline(transaction=False) as pipe:
                for id in part:
                    pipe.rpush(self._key("m", id), item)
                    pipe.ltrim(self._key("m", id), -50, -1)
                    pipe.hset(self._key("s", id), "turn", 1)
                await pipe.execute()

    async def resume(self, times: int) -> None:
        for id in self._ids[-times:]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hgetall(self._key("s", id))
                pipe.lrange(self._key("m", id), 0, -1)
                await pipe.execute()

    async def hold(self, times: int) -> None:
        for id in self._ids[:times]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hget(self._key("s", id), "holder")
                pipe.hset(self._key("s", id), "holder", "bare")
                pipe.hset(self._key("s", id), "had:bare", 1)
                pipe.set(self._key("n", "bare"), 1, px=3000)
                await pipe.execute()

    async def beat(self, times: int) -> None:
        for _ in range(times):
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._key("n", "bare"), 1, px=3000)
                for id in self._ids[-HELD:]:
                    pipe.hget(self._key("s", id), "holder")
                await pipe.execute()


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), 64):
        yield ids[start : start + 64]


# Both in turns


async def measure(title: str, store: SessionStore, ids: Sequence[str], bare: Bare, rounds: int) -> None:
    print(f"\n{title}: {len(ids)} sessions of {ITEMS} messages, {rounds} rounds, microseconds for each\n")
    print(
        f"| {'':18} | {'store':>6} | {'bare':>6} | {'x':>5} |\n|{'-' * 20}|{'-' * 7}:|{'-' * 7}:|{'-' * 6}:|"
    )
    for row in rows_of(store, ids, bare):
        ours, theirs = [], []
        await row.ours(row.times)
        for _ in range(rounds):
            await store.flush()
            ours.append(await each(row.ours, row.times))
            await store.flush()
            if row.bare is not None:
                theirs.append(await each(row.bare, row.times))
        cost = min(ours)
        bare_cost = min(theirs, default=math.nan)
        told = f"{bare_cost:6.1f} | {cost / bare_cost:5.2f}" if theirs else f"{'':6} | {'':5}"
        print(f"| {row.name:18} | {cost:6.1f} | {told} |")


async def each(work: Work, times: int) -> float:
    started = time.perf_counter()
    await work(times)
    return (time.perf_counter() - started) / times * 1e6


@asynccontextmanager
async def sqlite_store(folder: Path) -> AsyncIterator[SqliteSessionStore]:
    store = await SqliteSessionStore.open(folder / "sessions.db", ttl_s=TTL)
    try:
        yield store
    finally:
        await store.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="What a session store costs.")
    parser.add_argument("--redis", metavar="URL", help="measure the Redis there too")
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the SQLite file is made and removed")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        async with sqlite_store(Path(folder)) as store:
            ids = await filled(store, given.sessions)
            bare = BareSqlite(Path(folder) / "sessions.db", ids)
            await measure("SQLite", store, ids, bare, given.rounds)
    if given.redis is None:
        return
    from tornado_live.sessions.redis import RedisSessionStore

    USERS.clear()
    prefix = f"bench-{secrets.token_hex(4)}:"
    client = redis.asyncio.Redis.from_url(given.redis)
    redis_store = RedisSessionStore(given.redis, prefix=f"{prefix}ours:", ttl_s=TTL)
    try:
        ids = await filled(redis_store, given.sessions)
        bare_redis = BareRedis(client, f"{prefix}bare:", ids)
        await bare_redis.filled()
        await measure("Redis", redis_store, ids, bare_redis, given.rounds)
    finally:
        await redis_store.close()
        async for key in client.scan_iter(f"{prefix}*", count=1000):
            await client.unlink(key)
        await client.aclose()


if __name__ == "__main__":
    uvloop.run(main())
