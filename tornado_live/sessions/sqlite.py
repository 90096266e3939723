"""The session store of one machine: one SQLite file, which several processes may share.

One thread owns the connection and does everything in the order asked. Writes of running conversations are
gathered for `BATCH_S` and go in one transaction; whatever reads or waits sends the batch first. One batch is
in flight at a time: one that failed goes again, in front of what was queued meanwhile, so the order is kept.
All state outside the file lives on the event loop, so the thread's functions only take values and give values.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import math
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tornado_live.errors import BadMessage, ConfigError, Limited, Problem, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import Credential, MemoryItem, Session, clip, new_session_id, not_found

BATCH_S = 0.05
PURGE_S = 60.0
RETRY_S = (0.5, 30.0)
EVENT_BYTES = 8192

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

# What each version of the file added to the one before; a file of version n has the first n.
_SCHEMA = (_SESSIONS, _CREDENTIALS)

_COLUMNS = """id, user, metadata, assistant, created_at, last_active_at, expires_at,
    (SELECT count(*) FROM memory WHERE memory.session = session.id), usage, last_turn, label"""

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


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: seconds a session lives after its last activity, messages and bytes of its memory,
    its newest events, and writes that wait while the file cannot be written."""

    ttl_s: float
    memory_messages: int = 50
    memory_message_bytes: int = 8192
    memory_bytes: int = 262144
    events: int = 500
    waiting: int = 5000


@dataclass(slots=True)
class _Batch:
    """Writes not yet handed to the file. A later touch or usage replaces an earlier one.

    `purge_at` is when the ended sessions were due to go. That goes with the touches, which may keep a session.
    """

    touched: dict[str, float] = field(default_factory=dict)
    usage: dict[str, str] = field(default_factory=dict)
    items: deque[tuple[str, MemoryItem]] = field(default_factory=deque)
    events: deque[tuple[str, float, str, str, int]] = field(default_factory=deque)
    purge_at: float | None = None

    def __bool__(self) -> bool:
        return len(self) > 0 or self.purge_at is not None

    def __len__(self) -> int:
        return len(self.touched) + len(self.usage) + len(self.items) + len(self.events)

    def followed_by(self, later: _Batch) -> _Batch:
        return _Batch(
            touched=self.touched | later.touched,
            usage=self.usage | later.usage,
            items=self.items + later.items,
            events=self.events + later.events,
            purge_at=self.purge_at if later.purge_at is None else later.purge_at,
        )

    def drop_one(self) -> None:
        """Drops what is missed least: events before messages, the oldest first."""
        if self.events:
            self.events.popleft()
        elif self.items:
            self.items.popleft()
        elif self.touched:
            del self.touched[next(iter(self.touched))]
        else:
            del self.usage[next(iter(self.usage))]


class SqliteSessionStore:
    """A SessionStore (sessions/store.py has the contract) in the file at `path`. Made by `open`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        *,
        path: Path,
        bounds: Bounds,
        purge_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._thread = thread
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting = _Batch()
        self._dropped = 0
        self._failing: str | None = None
        self._retry_s = RETRY_S[0]
        self._drain_timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
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
        clock: Callable[[], float] = time.time,
    ) -> SqliteSessionStore:
        """Opens or makes the file, readable by its owner only. Ended sessions leave it every `purge_s` seconds.

        Raises ConfigError, with the remedy, when the file cannot be used: not writable, not a database,
        damaged, or written by a newer version.
        """
        bounds = Bounds(ttl_s, memory_messages, memory_message_bytes, memory_bytes, events, waiting)
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="session-store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _open, path, clock())
        except (sqlite3.Error, OSError) as error:
            thread.shutdown()
            raise ConfigError([_unusable(path, error)]) from error
        except BaseException:
            thread.shutdown()
            raise
        return cls(connection, thread, path=path, bounds=bounds, purge_s=purge_s, clock=clock)

    async def create(
        self, *, user: str, assistant: str, metadata: Mapping[str, Json], label: str = ""
    ) -> Session:
        now = self._clock()
        session = Session(
            id=new_session_id(),
            user=user,
            metadata=dict(metadata),
            assistant=assistant,
            created_at=now,
            last_active_at=now,
            expires_at=now + self._bounds.ttl_s,
            message_count=0,
            usage={},
            last_turn=0,
            label=label,
        )
        await self._ask(lambda: _insert(self._connection, session))
        return session

    async def get(self, id: str, *, user: str) -> Session:
        now = self._clock()
        return await self._ask(lambda: _select(self._connection, id, user, now))

    async def list(
        self, user: str, *, limit: int = 50, after: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        now = self._clock()
        before = None if after is None else _place_of(after)
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
        expires_at: float,
        body: Mapping[str, Json],
        kind: str = "",
        at_most: int | None = None,
    ) -> None:
        now = self._clock()
        row = (_digest(name), kind, uses, expires_at, json.dumps(body))
        await self._ask(lambda: _keep(self._connection, row, kind, at_most, now))

    async def use_credential(self, name: str, *, spend: bool = True) -> Credential | None:
        now, digest = self._clock(), _digest(name)
        return await self._ask(lambda: _use(self._connection, digest, spend, now))

    async def flush(self) -> None:
        await self._ask(lambda: _checkpoint(self._connection))
        if self._failing is not None:
            raise _out_of_reach()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._purge_timer.cancel()
        await self._send()
        # The batch is done once the thread has come to the end of its queue, which this is.
        await self._loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()
        if len(self._waiting):
            log_event(logger, "store_lost", level=logging.ERROR, writes=len(self._waiting), file=self._path)

    async def healthy(self) -> bool:
        if self._closed:
            return False
        try:
            async with asyncio.timeout(1):
                await self._ask(lambda: _try_write(self._connection))
        except (Unavailable, TimeoutError):
            return False
        return self._failing is None

    def touch(self, id: str) -> None:
        self._waiting.touched[id] = self._clock()
        self._queued()

    def remember(self, id: str, item: MemoryItem) -> None:
        text = clip(item.text, self._bounds.memory_message_bytes)
        self._waiting.items.append((id, MemoryItem(item.role, text, item.turn, item.at)))
        self._queued()

    def record(self, id: str, event: Event) -> None:
        turn = event.data.get("turn")
        self._waiting.events.append(
            (id, event.at, event.kind, _event_data(event.data), turn if isinstance(turn, int) else 0)
        )
        self._queued()

    def set_usage(self, id: str, usage: Mapping[str, Json]) -> None:
        self._waiting.usage[id] = json.dumps(usage)
        self._queued()

    def _queued(self) -> None:
        if len(self._waiting) > self._bounds.waiting:
            if not self._dropped:
                log_event(logger, "store_overflow", level=logging.ERROR, waiting=self._bounds.waiting)
            self._waiting.drop_one()
            self._dropped += 1
        self._drain_after(BATCH_S)

    def _drain_after(self, seconds: float) -> None:
        """Plans the next drain, unless one is planned, or a write is in flight, whose end plans it."""
        if self._drain_timer is None and self._writing is None and not self._closed:
            self._drain_timer = self._loop.call_later(seconds, self._drain)

    async def _send(self) -> None:
        """Everything queued is with the thread; what comes to the thread from now on sees it written."""
        if self._writing is not None:
            # Waited for but not awaited: who gives up waiting must not cancel the write.
            await asyncio.wait([self._writing])
        self._drain()

    def _drain(self) -> None:
        """Hands the batch to the thread, unless it has one."""
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        if self._writing is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting, _Batch()
        bounds = self._bounds
        self._writing = self._loop.run_in_executor(self._thread, _write, self._connection, batch, bounds)
        self._writing.add_done_callback(lambda done: self._drained(batch, done.exception()))

    def _drained(self, batch: _Batch, error: BaseException | None) -> None:
        self._writing = None
        if isinstance(error, sqlite3.Error):
            self._failed(batch, error)
            return
        if error is not None:
            # A value that SQLite cannot hold: a mistake of ours, which trying again does not mend.
            log_event(logger, "store_refused", level=logging.ERROR, error=error, writes=len(batch))
        else:
            if self._failing is not None:
                log_event(logger, "store_recovered", dropped=self._dropped)
            self._failing, self._dropped, self._retry_s = None, 0, RETRY_S[0]
        if self._waiting:
            self._drain_after(BATCH_S)

    def _failed(self, batch: _Batch, error: sqlite3.Error) -> None:
        if str(error) != self._failing:
            log_event(logger, "store_failed", level=logging.ERROR, error=error, file=self._path)
        self._failing = str(error)
        self._waiting = batch.followed_by(self._waiting)
        while len(self._waiting) > self._bounds.waiting:
            self._waiting.drop_one()
            self._dropped += 1
        self._drain_after(self._retry_s)
        self._retry_s = min(self._retry_s * 2, RETRY_S[1])

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        if self._closed:
            raise _out_of_reach()
        await self._send()
        try:
            return await self._loop.run_in_executor(self._thread, question)
        except sqlite3.Error as error:
            log_event(logger, "store_failed", level=logging.ERROR, error=error, file=self._path)
            raise _out_of_reach() from error

    def _purge(self) -> None:
        self._purge_timer = self._loop.call_later(self._purge_s, self._purge)
        self._waiting.purge_at = self._clock()
        self._drain_after(BATCH_S)


def _out_of_reach() -> Unavailable:
    return Unavailable("The session store cannot be reached. Try again in a moment.", retry_after_ms=1000)


def _unusable(path: Path, error: sqlite3.Error | OSError) -> Problem:
    if isinstance(error, _NewerSchema):
        remedy = "it was written by a newer tornado-live: upgrade, or set another DATA_DIR"
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


def _open(path: Path, now: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of the database: transcripts are their owner's alone.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA busy_timeout = 2000")
        connection.execute("PRAGMA journal_mode = WAL")
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
            _purge(connection, now)
    except BaseException:
        connection.close()
        raise
    return connection


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


def _write(connection: sqlite3.Connection, batch: _Batch, bounds: Bounds) -> None:
    with _transaction(connection):
        connection.executemany(
            "UPDATE session SET last_active_at = max(last_active_at, ?), expires_at = max(expires_at, ?)"
            " WHERE id = ? AND expires_at > ?",
            [(at, at + bounds.ttl_s, id, at) for id, at in batch.touched.items()],
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
            connection.execute(_TRIM_MEMORY, limits)
        for id in {id for id, *_ in batch.events}:
            connection.execute(_TRIM_EVENTS, {"session": id, "events": bounds.events})


def _insert(connection: sqlite3.Connection, session: Session) -> None:
    with _transaction(connection):
        connection.execute(
            "INSERT INTO session"
            " (id, user, label, assistant, metadata, created_at, last_active_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.id,
                session.user,
                session.label,
                session.assistant,
                json.dumps(session.metadata),
                session.created_at,
                session.last_active_at,
                session.expires_at,
            ),
        )


def _select(connection: sqlite3.Connection, id: str, user: str, now: float) -> Session:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM session WHERE id = ? AND user = ? AND expires_at > ?",  # noqa: S608 - constant
        (id, user, now),
    ).fetchone()
    if row is None:
        raise not_found()
    return _session(row)


def _page(
    connection: sqlite3.Connection, user: str, now: float, limit: int, before: tuple[float, str] | None
) -> tuple[list[Session], str | None]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM session WHERE user = ? AND expires_at > ? AND (created_at, id) < (?, ?)"  # noqa: S608
        " ORDER BY created_at DESC, id DESC LIMIT ?",
        (user, now, *(before or (float("inf"), "")), limit + 1),
    ).fetchall()
    sessions = [_session(row) for row in rows[:limit]]
    return sessions, _cursor(sessions[-1]) if len(rows) > limit else None


def _memory(connection: sqlite3.Connection, id: str) -> list[MemoryItem]:
    rows = connection.execute(
        "SELECT role, text, turn, at FROM memory WHERE session = ?"
        " ORDER BY turn, CASE role WHEN 'user' THEN 0 WHEN 'tool' THEN 1 ELSE 2 END, n",
        (id,),
    )
    return [MemoryItem(*row) for row in rows]


def _events(connection: sqlite3.Connection, id: str) -> list[Event]:
    rows = connection.execute("SELECT at, kind, data FROM event WHERE session = ? ORDER BY n", (id,))
    return [Event(at, kind, json.loads(data)) for at, kind, data in rows]


def _delete(connection: sqlite3.Connection, id: str, user: str, now: float) -> None:
    with _transaction(connection):
        deleted = connection.execute(
            "DELETE FROM session WHERE id = ? AND user = ? AND expires_at > ?", (id, user, now)
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
                raise Limited(
                    f"There are {live} live credentials already. Wait until some of them have expired.",
                    retry_after_ms=math.ceil(1000 * ((soonest or now) - now)),
                )
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
        if expires_at <= now:
            return Credential(json.loads(body), "expired")
        if uses == 0:
            return Credential(json.loads(body), "used_up")
        if spend and uses is not None:
            connection.execute("UPDATE credential SET uses = uses - 1 WHERE digest = ?", (digest,))
        return Credential(json.loads(body), "good")


def _purge(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
    connection.execute("DELETE FROM credential WHERE expires_at <= ?", (now,))


def _checkpoint(connection: sqlite3.Connection) -> None:
    # A commit in WAL with synchronous=NORMAL survives the process; the checkpoint makes it survive the power.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _try_write(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        connection.execute("SELECT id FROM session LIMIT 1").fetchone()


def _session(row: tuple[str, str, str, str, float, float, float, int, str, int, str]) -> Session:
    id, user, metadata, assistant, created, active, end, messages, usage, last_turn, label = row
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
    )


def _digest(name: str) -> bytes:
    """What stands for a credential in the file. A name may be anybody's text, lone surrogates and all."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _event_data(data: Mapping[str, Json]) -> str:
    """The JSON of an event's data; members that make it too large are left out, and that is said."""
    encoded = json.dumps(data)
    if len(encoded) <= EVENT_BYTES:
        return encoded
    kept: dict[str, Json] = {"clipped": True}
    for name, value in data.items():
        kept[name] = value
        if len(json.dumps(kept)) > EVENT_BYTES:
            del kept[name]
    return json.dumps(kept)


def _cursor(session: Session) -> str:
    place = json.dumps([float(session.created_at), session.id])
    return base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode()


def _place_of(cursor: str) -> tuple[float, str]:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, RecursionError) as error:
        raise _bad_cursor() from error
    match place:
        case [float() as created_at, str() as id]:
            return created_at, id
    raise _bad_cursor()


def _bad_cursor() -> BadMessage:
    return BadMessage('"after" is not a place in this list: pass the "next" of the page before, unchanged.')
