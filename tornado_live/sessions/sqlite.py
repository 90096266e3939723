"""The session store of one machine: one SQLite file, which several processes may share.

One thread owns the connection and does everything in the order asked. Whatever two processes can race for is one
IMMEDIATE transaction. All state outside the file lives on the event loop, so the thread's functions only take
values and give values. Whether something has ended is asked of the machine's steady clock, set to epoch seconds by
the first process of a boot (`_set_clock`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

from tornado_live.errors import ConfigError, Problem, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event
from tornado_live.observe.logs import log_event
from tornado_live.sessions.machine import Clocks, gone, this_process
from tornado_live.sessions.machine import clocks as machine_clocks
from tornado_live.sessions.store import (
    LISTED,
    NODE_LIFE_S,
    Credential,
    Handle,
    Hold,
    Kept,
    MemoryItem,
    News,
    Session,
    Taken,
    cursor_of,
    digest_of,
    new_session,
    not_found,
    out_of_reach,
    place_in_memory,
    place_of,
    too_many,
)
from tornado_live.sessions.waiting import Batch, Bounds, Queueing, Touched, Unreachable, Waiting

PURGE_S = 60.0
PATIENCE_S = 2.0

_SESSIONS = """
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    label TEXT NOT NULL,
    assistant TEXT NOT NULL,
    metadata TEXT NOT NULL,
    usage TEXT NOT NULL DEFAULT '{}',
    created_at REAL NOT NULL,
    last_active_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    last_turn INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX session_of_user ON session (user, created_at, id);
CREATE INDEX session_by_end ON session (expires_at);
CREATE TABLE memory (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX memory_of_session ON memory (session, n);
CREATE TABLE event (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX event_of_session ON event (session, n);
"""

_CREDENTIALS = """
CREATE TABLE credential (
    digest BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    uses INTEGER,
    expires_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX credential_by_end ON credential (expires_at);
CREATE INDEX credential_of_kind ON credential (kind, expires_at);
"""

# `ends`, `beat_at` and a credential's `expires_at` are by the store's clock; other times are only shown. What is
# for good ends at infinity.
_NODES = """
ALTER TABLE session ADD COLUMN ends REAL NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN handle TEXT;
ALTER TABLE session ADD COLUMN holder TEXT;
ALTER TABLE session ADD COLUMN connected INTEGER NOT NULL DEFAULT 0;
UPDATE session SET ends = expires_at;
DROP INDEX session_by_end;
CREATE INDEX session_by_end ON session (ends);
DROP INDEX memory_of_session;
CREATE INDEX memory_of_session ON memory (session, n, bytes);
CREATE TABLE node (
    name TEXT PRIMARY KEY,
    process TEXT NOT NULL,
    beat_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE leaving (
    session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
    node TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, node)
) WITHOUT ROWID;
CREATE TABLE revocation (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    ends REAL NOT NULL
);
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    taken INTEGER NOT NULL,
    ends REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE clock (
    boot TEXT PRIMARY KEY,
    ahead REAL NOT NULL,
    seen REAL NOT NULL
) WITHOUT ROWID;
"""

_PLACES = """
CREATE TABLE place (
    counter TEXT NOT NULL,
    name TEXT NOT NULL,
    writer TEXT NOT NULL,
    ends REAL NOT NULL,
    PRIMARY KEY (counter, name)
) WITHOUT ROWID;
CREATE INDEX place_by_end ON place (ends);
CREATE INDEX revocation_of_subject ON revocation (subject);
"""

# What each version of the file added to the one before; a file of version n has the first n.
_SCHEMA = (_SESSIONS, _CREDENTIALS, _NODES, _PLACES)

_COLUMNS = """id, user, metadata, assistant, created_at, last_active_at, expires_at,
    (SELECT count(*) FROM memory WHERE memory.session = session.id), usage, last_turn, label, handle,
    connected AND EXISTS (SELECT 1 FROM node WHERE name = holder AND beat_at > :dead)"""

_MEMORY_FULL = """
SELECT count(*) > :messages OR sum(bytes) > :bytes FROM memory WHERE session = :session"""

_TRIM_MEMORY = """
DELETE FROM memory WHERE session = :session AND n NOT IN (
    SELECT n FROM (
        SELECT n, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
        FROM memory WHERE session = :session WINDOW newest AS (ORDER BY n DESC)
    ) WHERE place <= :messages AND total <= :bytes
)"""

_TRIM_EVENTS = """
DELETE FROM event WHERE session = :session AND n <= (
    SELECT n FROM event WHERE session = :session ORDER BY n DESC LIMIT 1 OFFSET :events
)"""

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class SqliteSessionStore(Queueing):
    """A SessionStore (sessions/store.py has the contract) in the file at `path`. Made by `open`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        *,
        path: Path,
        bounds: Bounds,
        purge_s: float,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._thread = thread
        self._path = path
        self._bounds = bounds
        self._wall = wall
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(self._write, bounds=bounds, name=str(path))
        self._process = this_process()
        self._writer = secrets.token_hex(6)
        self._heard: dict[str, int] = {}
        self._closed = False
        self._purge_s = purge_s
        self._purge_timer = self._loop.call_later(purge_s, self._purge)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        ttl_s: float,
        memory_messages: int = 50,
        memory_message_bytes: int = 8192,
        memory_bytes: int = 262144,
        events: int = 500,
        waiting: int = 5000,
        purge_s: float = PURGE_S,
        patience_s: float = PATIENCE_S,
        clocks: Clocks | None = None,
    ) -> SqliteSessionStore:
        """Opens or makes the file, readable by its owner only. Ended sessions leave it every `purge_s` seconds.
        A lock is waited for `patience_s`.

        Raises ConfigError, with the remedy, when the file cannot be used: not writable, not a database,
        damaged, or written by a newer version.
        """
        bounds = Bounds(ttl_s, memory_messages, memory_message_bytes, memory_bytes, events, waiting)
        read = clocks or machine_clocks()
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="session-store")
        try:
            connection, ahead = await asyncio.get_running_loop().run_in_executor(
                thread, _open, path, read, patience_s
            )
        except (sqlite3.Error, OSError) as error:
            thread.shutdown()
            raise ConfigError([_unusable(path, error)]) from error
        except BaseException:
            thread.shutdown()
            raise
        return cls(
            connection,
            thread,
            path=path,
            bounds=bounds,
            purge_s=purge_s,
            wall=read.wall,
            clock=lambda: read.steady() + ahead,
        )

    async def create(
        self,
        *,
        user: str,
        assistant: str,
        metadata: Mapping[str, Json],
        label: str = "",
        node: str | None = None,
    ) -> Session:
        now, shown = self._clock(), self._wall()
        session = new_session(user, assistant, metadata, label, at=shown, ttl_s=self._bounds.ttl_s)
        ends = now + self._bounds.ttl_s
        await self._ask(lambda: _insert(self._connection, session, ends, node, self._process, now))
        return session

    async def get(self, id: str, *, user: str) -> Session:
        now = self._clock()
        return await self._ask(lambda: _select(self._connection, id, user, now))

    async def list(
        self, user: str, *, limit: int = 50, after: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        now = self._clock()
        before = None if after is None else place_of(after)
        return await self._ask(lambda: _page(self._connection, user, now, limit, before))

    async def memory(self, id: str) -> Sequence[MemoryItem]:
        return await self._ask(lambda: _memory(self._connection, id))

    async def resume(self, id: str, *, user: str) -> tuple[Session, Sequence[MemoryItem]]:
        now = self._clock()
        return await self._ask(
            lambda: (_select(self._connection, id, user, now), _memory(self._connection, id))
        )

    async def events(self, id: str) -> Sequence[Event]:
        return await self._ask(lambda: _events(self._connection, id))

    async def delete(self, id: str, *, user: str) -> None:
        now = self._clock()
        await self._ask(lambda: _delete(self._connection, id, user, now))

    async def keep_credential(
        self,
        name: str,
        *,
        uses: int | None,
        expires_at: float | None,
        body: Mapping[str, Json],
        kind: str = "",
        at_most: int | None = None,
    ) -> None:
        now = self._clock()
        ends = math.inf if expires_at is None else now + (expires_at - self._wall())
        row = (digest_of(name), kind, uses, ends, json.dumps(body))
        await self._ask(lambda: _keep(self._connection, row, kind, at_most, now))

    async def use_credential(self, name: str, *, spend: bool = True) -> Credential | None:
        now, digest = self._clock(), digest_of(name)
        return await self._ask(lambda: _use(self._connection, digest, spend, now))

    async def credentials(self, kind: str) -> Sequence[Kept]:
        now = self._clock()
        return await self._ask(lambda: _credentials(self._connection, kind, now))

    async def drop_credential(self, name: str) -> bool:
        now, digest = self._clock(), digest_of(name)
        return await self._ask(lambda: _drop(self._connection, digest, now))

    async def hold(self, id: str, *, node: str) -> Hold:
        now = self._clock()
        return await self._ask(lambda: _hold(self._connection, id, node, self._process, now))

    async def leaving(self, id: str, *, node: str) -> Hold:
        now = self._clock()
        return await self._ask(lambda: _leaving(self._connection, id, self._process, now))

    async def beat(self, node: str, held: Collection[str]) -> News:
        now, ids, heard = self._clock(), list(held), self._heard.get(node, 0)
        news, last = await self._ask(lambda: _beat(self._connection, node, self._process, ids, heard, now))
        self._heard[node] = last
        return news

    def listen(self, look: Callable[[], None]) -> None:
        """Never calls it: a file tells nobody."""

    async def leave(self, node: str) -> None:
        await self._ask(lambda: _leave(self._connection, node))

    async def revoke(self, subject: str, *, lasts_s: float) -> None:
        ends = self._clock() + lasts_s
        await self._ask(lambda: _revoke(self._connection, subject, ends))

    async def take(self, counter: str, amount: int, *, limit: int, window_s: float) -> Taken:
        now = self._clock()
        return await self._ask(lambda: _take(self._connection, counter, amount, limit, window_s, now))

    async def occupy(self, counter: str, place: str, *, limit: int, lasts_s: float) -> bool:
        self._waiting.occupied(counter, place)
        now = self._clock()
        row = (counter, place, self._writer, now + lasts_s)
        return await self._ask(lambda: _occupy(self._connection, row, limit, now))

    async def flush(self) -> None:
        await self._ask(lambda: _checkpoint(self._connection))
        if self._waiting.failing:
            raise out_of_reach()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._purge_timer.cancel()
        await self._waiting.close()
        await self._loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def healthy(self) -> bool:
        if self._closed:
            return False
        try:
            async with asyncio.timeout(1):
                await self._ask(lambda: _try_write(self._connection))
        except (Unavailable, TimeoutError):
            return False
        return not self._waiting.failing

    def touch(self, id: str) -> None:
        self._waiting.touch(id, Touched(self._clock(), self._wall()))

    async def _write(self, batch: Batch) -> None:
        now = self._clock()
        try:
            await self._loop.run_in_executor(
                self._thread, _write, self._connection, batch, self._writer, self._bounds, now
            )
        except sqlite3.Error as error:
            raise Unreachable from error

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        if self._closed:
            raise out_of_reach()
        await self._waiting.send()
        try:
            return await self._loop.run_in_executor(self._thread, question)
        except sqlite3.Error as error:
            log_event(logger, "store_failed", level=logging.ERROR, reason=error, store=self._path)
            raise out_of_reach() from error

    def _purge(self) -> None:
        self._purge_timer = self._loop.call_later(self._purge_s, self._purge)
        self._waiting.purge(self._clock())


def _unusable(path: Path, error: sqlite3.Error | OSError) -> Problem:
    if isinstance(error, _NewerSchema):
        remedy = "it was written by a newer tornado-live: upgrade, or set another DATA_DIR"
    elif _locked(error):
        remedy = "another program holds a lock on it: end that, or set another DATA_DIR"
    elif isinstance(error, sqlite3.OperationalError | OSError):
        remedy = (
            f"it cannot be opened ({error}): make the folder and the file writable, or set another DATA_DIR"
        )
    else:
        remedy = (
            f"it is not a usable session database ({error}): "
            "restore a backup, or move the file away to start without its sessions"
        )
    return Problem(file=str(path), line=None, path="", message=remedy)


class _NewerSchema(sqlite3.DatabaseError):
    pass


# Below: the thread's side.


def _open(path: Path, read: Clocks, patience_s: float) -> tuple[sqlite3.Connection, float]:
    """The connection, and how far the store's clock is ahead of the steady one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of the database: transcripts are their owner's alone.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout = {patience_s * 1000:.0f}")
        _use_wal(connection, patience_s)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(_SCHEMA):
                raise _NewerSchema
            for added in _SCHEMA[version:]:
                for statement in added.split(";")[:-1]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(_SCHEMA)}")
            ahead = _set_clock(connection, read)
            _purge(connection, read.steady() + ahead)
    except BaseException:
        connection.close()
        raise
    return connection, ahead


def _use_wal(connection: sqlite3.Connection, patience_s: float) -> None:
    """SQLite itself does not wait where several make the same file at once: each might wait for the other."""
    until = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _locked(error) or time.monotonic() >= until:
                raise
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - so that they do not meet again


def _locked(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )


def _set_clock(connection: sqlite3.Connection, read: Clocks) -> float:
    """The first process of a boot sets the store's clock by the wall's, never back; for the others it stays."""
    row = connection.execute("SELECT ahead FROM clock WHERE boot = ?", (read.boot,)).fetchone()
    if row is not None:
        return float(row[0])
    steady, wall = read.steady(), read.wall()
    (seen,) = connection.execute("SELECT max(seen) FROM clock").fetchone()
    now = wall if seen is None else max(wall, seen)
    connection.execute("DELETE FROM clock")
    connection.execute(
        "INSERT INTO clock (boot, ahead, seen) VALUES (?, ?, ?)", (read.boot, now - steady, now)
    )
    return now - steady


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits, or rolls back what raised. IMMEDIATE: a lock that is not free is waited for at the start."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _write(connection: sqlite3.Connection, batch: Batch, writer: str, bounds: Bounds, now: float) -> None:
    with _transaction(connection):
        connection.executemany(
            "UPDATE session SET last_active_at = ?, expires_at = ?, ends = ?"
            " WHERE id = ? AND ends > ? AND ends < ?",
            [
                (shown, shown + bounds.ttl_s, at + bounds.ttl_s, id, at, at + bounds.ttl_s)
                for id, (at, shown) in batch.touched.items()
            ],
        )
        if batch.purge_at is not None:
            _purge(connection, batch.purge_at)
        connection.executemany(
            "UPDATE session SET usage = ? WHERE id = ?", [(usage, id) for id, usage in batch.usage.items()]
        )
        connection.executemany(
            "INSERT INTO memory (session, role, text, bytes, turn, at)"
            " SELECT id, ?, ?, ?, ?, ? FROM session WHERE id = ?",
            [
                (item.role, item.text, len(item.text.encode()), item.turn, item.at, id)
                for id, item in batch.items
            ],
        )
        connection.executemany(
            "INSERT INTO event (session, at, kind, data) SELECT id, ?, ?, ? FROM session WHERE id = ?",
            [(at, kind, data, id) for id, at, kind, data, _ in batch.events],
        )
        turns = [(item.turn, id) for id, item in batch.items] + [(turn, id) for id, *_, turn in batch.events]
        connection.executemany("UPDATE session SET last_turn = max(last_turn, ?) WHERE id = ?", turns)
        for id in {id for id, _ in batch.items}:
            limits = {"session": id, "messages": bounds.memory_messages, "bytes": bounds.memory_bytes}
            (full,) = connection.execute(_MEMORY_FULL, limits).fetchone()
            if full:
                connection.execute(_TRIM_MEMORY, limits)
        for id in {id for id, *_ in batch.events}:
            connection.execute(_TRIM_EVENTS, {"session": id, "events": bounds.events})
        connection.executemany(
            "UPDATE session SET handle = ? WHERE id = ?",
            [
                (None if handle is None else json.dumps(asdict(handle)), id)
                for id, handle in batch.handles.items()
            ],
        )
        connection.executemany(
            "UPDATE session SET connected = ? WHERE id = ? AND holder = ?",
            [(connected, *holding) for holding, connected in batch.attended.items()],
        )
        connection.executemany(
            "UPDATE counter SET taken = max(taken - ?, 0) WHERE name = ? AND ends > ?",
            [(amount, counter, now) for counter, amount in batch.given_back.items()],
        )
        connection.executemany(
            "DELETE FROM place WHERE counter = ? AND name = ? AND writer = ?",
            [(*occupied, writer) for occupied in batch.vacated],
        )
        connection.executemany("DELETE FROM leaving WHERE session = ? AND node = ?", batch.released)
        connection.executemany(
            "UPDATE session SET holder = NULL, connected = 0 WHERE id = ? AND holder = ?", batch.released
        )


def _insert(
    connection: sqlite3.Connection, session: Session, ends: float, node: str | None, process: str, now: float
) -> None:
    with _transaction(connection):
        if node is not None:
            _seen(connection, node, process, now)
        connection.execute(
            "INSERT INTO session"
            " (id, user, label, assistant, metadata, created_at, last_active_at, expires_at, ends, holder)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.id,
                session.user,
                session.label,
                session.assistant,
                json.dumps(session.metadata),
                session.created_at,
                session.last_active_at,
                session.expires_at,
                ends,
                node,
            ),
        )


def _select(connection: sqlite3.Connection, id: str, user: str, now: float) -> Session:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM session WHERE id = :id AND user = :user AND ends > :now",  # noqa: S608 - constant
        {"id": id, "user": user, "now": now, "dead": now - NODE_LIFE_S},
    ).fetchone()
    if row is None:
        raise not_found()
    return _session(row)


def _page(
    connection: sqlite3.Connection, user: str, now: float, limit: int, before: tuple[float, str] | None
) -> tuple[list[Session], str | None]:
    at, id = before or (float("inf"), "")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM session"  # noqa: S608 - constant
        " WHERE user = :user AND ends > :now AND (created_at, id) < (:at, :id)"
        " ORDER BY created_at DESC, id DESC LIMIT :limit",
        {"user": user, "now": now, "dead": now - NODE_LIFE_S, "at": at, "id": id, "limit": limit + 1},
    ).fetchall()
    sessions = [_session(row) for row in rows[:limit]]
    return sessions, cursor_of(sessions[-1].created_at, sessions[-1].id) if len(rows) > limit else None


def _memory(connection: sqlite3.Connection, id: str) -> list[MemoryItem]:
    rows = connection.execute("SELECT role, text, turn, at FROM memory WHERE session = ? ORDER BY n", (id,))
    return sorted((MemoryItem(*row) for row in rows), key=place_in_memory)


def _events(connection: sqlite3.Connection, id: str) -> list[Event]:
    rows = connection.execute("SELECT at, kind, data FROM event WHERE session = ? ORDER BY n", (id,))
    return [Event(at, kind, json.loads(data)) for at, kind, data in rows]


def _delete(connection: sqlite3.Connection, id: str, user: str, now: float) -> None:
    with _transaction(connection):
        deleted = connection.execute(
            "DELETE FROM session WHERE id = ? AND user = ? AND ends > ?", (id, user, now)
        )
        if not deleted.rowcount:
            raise not_found()


def _keep(
    connection: sqlite3.Connection,
    row: tuple[bytes, str, int | None, float, str],
    kind: str,
    at_most: int | None,
    now: float,
) -> None:
    with _transaction(connection):
        if at_most is not None:
            connection.execute(
                "DELETE FROM credential WHERE digest = ?", row[:1]
            )  # it takes no place of its own
            live, soonest = connection.execute(
                "SELECT count(*), min(expires_at) FROM credential WHERE kind = ? AND expires_at > ?",
                (kind, now),
            ).fetchone()
            if live >= at_most:
                raise too_many(live, (soonest or now) - now)
        connection.execute(
            "REPLACE INTO credential (digest, kind, uses, expires_at, body) VALUES (?, ?, ?, ?, ?)", row
        )


def _use(connection: sqlite3.Connection, digest: bytes, spend: bool, now: float) -> Credential | None:
    with _transaction(connection) if spend else nullcontext():
        row = connection.execute(
            "SELECT uses, expires_at, body FROM credential WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            return None
        uses, expires_at, body = row
        state: Literal["good", "used_up", "expired"] = "good"
        if expires_at <= now:
            state = "expired"
        elif uses == 0:
            state = "used_up"
        elif spend and uses is not None:
            connection.execute("UPDATE credential SET uses = uses - 1 WHERE digest = ?", (digest,))
        return Credential(json.loads(body), state, max(expires_at - now, 0.0))


def _credentials(connection: sqlite3.Connection, kind: str, now: float) -> list[Kept]:
    rows = connection.execute(
        "SELECT rowid, digest, body, expires_at FROM credential WHERE kind = ? AND expires_at > ?"
        " ORDER BY expires_at LIMIT ?",
        (kind, now, LISTED),
    ).fetchall()
    return [
        Kept(digest.hex(), json.loads(body), None if math.isinf(ends) else ends - now)
        for _, digest, body, ends in sorted(rows)  # a row that is replaced gets a new rowid, the highest
    ]


def _drop(connection: sqlite3.Connection, digest: bytes, now: float) -> bool:
    with _transaction(connection):
        dropped = connection.execute(
            "DELETE FROM credential WHERE digest = ? RETURNING expires_at", (digest,)
        ).fetchall()
        return any(ends > now for (ends,) in dropped)


def _hold(connection: sqlite3.Connection, id: str, node: str, process: str, now: float) -> Hold:
    with _transaction(connection):
        row = connection.execute("SELECT holder FROM session WHERE id = ? AND ends > ?", (id, now)).fetchone()
        if row is None:
            raise not_found()
        _seen(connection, node, process, now)
        _bury(connection, process, now)
        (holder,) = row
        if holder != node:
            connection.execute("UPDATE session SET holder = ?, connected = 0 WHERE id = ?", (node, id))
            connection.execute(
                "DELETE FROM leaving WHERE session = ?"
                " AND (node = ? OR (told AND node NOT IN (SELECT name FROM node)))",
                (id, node),
            )
            if holder is not None:
                connection.execute("INSERT INTO leaving (session, node) VALUES (?, ?)", (id, holder))
        return _found(connection, id)


def _leaving(connection: sqlite3.Connection, id: str, process: str, now: float) -> Hold:
    with _transaction(connection):
        _bury(connection, process, now)
        return _found(connection, id)


def _found(connection: sqlite3.Connection, id: str) -> Hold:
    """What its holder finds, which is told of the dead now. Only the living are nodes (`_bury`)."""
    rows = connection.execute(
        "SELECT node, name IS NOT NULL FROM leaving LEFT JOIN node ON name = node WHERE session = ?", (id,)
    ).fetchall()
    dead = [(id, node) for node, lives in rows if not lives]
    connection.executemany("UPDATE leaving SET told = 1 WHERE session = ? AND node = ?", dead)
    return Hold(frozenset(node for node, lives in rows if lives), abandoned=bool(dead))


def _beat(
    connection: sqlite3.Connection, node: str, process: str, held: Sequence[str], heard: int, now: float
) -> tuple[News, int]:
    """What is new, and the last revocation that has been heard now."""
    with _transaction(connection):
        _seen(connection, node, process, now)
        _bury(connection, process, now)
        found = connection.execute(
            "SELECT id, holder FROM session WHERE id IN (SELECT value FROM json_each(?)) AND ends > ?",
            (json.dumps(held), now),
        ).fetchall()
        revoked = connection.execute(
            "SELECT n, subject, ends FROM revocation WHERE n > ? AND ends > ? ORDER BY ends", (heard, now)
        ).fetchall()
    news = News(
        taken=frozenset(id for id, holder in found if holder != node),
        ended=frozenset(held) - {id for id, _ in found},
        revoked={subject: ends - now for _, subject, ends in revoked},
    )
    return news, max((n for n, *_ in revoked), default=heard)


def _seen(connection: sqlite3.Connection, node: str, process: str, now: float) -> None:
    connection.execute("REPLACE INTO node (name, process, beat_at) VALUES (?, ?, ?)", (node, process, now))


def _bury(connection: sqlite3.Connection, process: str, now: float) -> None:
    """Only the living stay: those that beat, and whose process, if it is not this one, there is."""
    connection.execute("DELETE FROM node WHERE beat_at <= ?", (now - NODE_LIFE_S,))
    others = connection.execute("SELECT name, process FROM node WHERE process != ?", (process,)).fetchall()
    connection.executemany(
        "DELETE FROM node WHERE name = ?", [(name,) for name, process in others if gone(process)]
    )


def _leave(connection: sqlite3.Connection, node: str) -> None:
    with _transaction(connection):
        connection.execute("UPDATE session SET holder = NULL, connected = 0 WHERE holder = ?", (node,))
        connection.execute("DELETE FROM leaving WHERE node = ?", (node,))
        connection.execute("DELETE FROM node WHERE name = ?", (node,))


def _revoke(connection: sqlite3.Connection, subject: str, ends: float) -> None:
    with _transaction(connection):
        (longest,) = connection.execute(
            "SELECT max(ends) FROM revocation WHERE subject = ?", (subject,)
        ).fetchone()
        connection.execute("DELETE FROM revocation WHERE subject = ?", (subject,))
        connection.execute(
            "INSERT INTO revocation (subject, ends) VALUES (?, ?)", (subject, max(ends, longest or ends))
        )


def _take(
    connection: sqlite3.Connection, counter: str, amount: int, limit: int, window_s: float, now: float
) -> Taken:
    with _transaction(connection):
        row = connection.execute(
            "SELECT taken, ends FROM counter WHERE name = ? AND ends > ?", (counter, now)
        ).fetchone()
        taken, ends = row or (0, now + window_s)
        got = max(min(amount, limit - taken), 0)
        if got:
            connection.execute(
                "REPLACE INTO counter (name, taken, ends) VALUES (?, ?, ?)", (counter, taken + got, ends)
            )
        return Taken(got, max(limit - taken - got, 0), ends - now)


def _occupy(connection: sqlite3.Connection, row: tuple[str, str, str, float], limit: int, now: float) -> bool:
    counter, place, *_ = row
    with _transaction(connection):
        (others, own) = connection.execute(
            "SELECT count(*) FILTER (WHERE name != ?1), count(*) FILTER (WHERE name = ?1)"
            " FROM place WHERE counter = ?2 AND ends > ?3",
            (place, counter, now),
        ).fetchone()
        if not own and others >= limit:
            return False
        connection.execute("REPLACE INTO place (counter, name, writer, ends) VALUES (?, ?, ?, ?)", row)
        return True


def _purge(connection: sqlite3.Connection, now: float) -> None:
    for table in ("session", "revocation", "counter", "place"):
        connection.execute(f"DELETE FROM {table} WHERE ends <= ?", (now,))  # noqa: S608 - of our own
    connection.execute("DELETE FROM credential WHERE expires_at <= ?", (now,))
    connection.execute("UPDATE clock SET seen = max(seen, ?)", (now,))


def _checkpoint(connection: sqlite3.Connection) -> None:
    # A commit in WAL with synchronous=NORMAL survives the process; the checkpoint makes it survive the power.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _try_write(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        connection.execute("SELECT id FROM session LIMIT 1").fetchone()


def _session(row: tuple[Any, ...]) -> Session:
    (
        id,
        user,
        metadata,
        assistant,
        created,
        active,
        end,
        messages,
        usage,
        last_turn,
        label,
        handle,
        connected,
    ) = row
    return Session(
        id,
        user,
        json.loads(metadata),
        assistant,
        created,
        active,
        end,
        messages,
        json.loads(usage),
        last_turn,
        label,
        None if handle is None else Handle(**json.loads(handle)),
        bool(connected),
    )
