"""The SQLite store: its file, its locks, its clock, and several processes on one file."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import ROOT
from store_process import store_process
from stores import TTL, Clock

from tornado_live.errors import ConfigError, SessionNotFound, Unavailable
from tornado_live.observe.events import Event
from tornado_live.sessions.machine import Clocks, clocks
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import Credential, Hold, MemoryItem, Taken


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None, **bounds: Any) -> AsyncIterator[SqliteSessionStore]:
    """Where its wall clock never jumps."""
    shown = clock or Clock()
    clocks = Clocks(wall=shown, steady=shown, boot="this one")
    store = await SqliteSessionStore.open(path, ttl_s=TTL, clocks=clocks, **bounds)
    try:
        yield store
    finally:
        await store.close()


async def created(store: SqliteSessionStore) -> str:
    return (await store.create(user="ann", assistant="default", metadata={})).id


def said(text: str, turn: int = 1, role: Any = "user") -> MemoryItem:
    return MemoryItem(role, text, turn, 1_800_000_000.0)


async def texts(store: SqliteSessionStore, id: str) -> list[str]:
    return [item.text for item in await store.memory(id)]


# The file


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "data" / "s.db") as store:
        await created(store)
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()}
    assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}


async def test_a_file_that_is_no_database_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError) as refused:
        await SqliteSessionStore.open(path, ttl_s=TTL)
    assert str(path) in str(refused.value)
    assert "restore a backup, or move the file away" in str(refused.value)
    assert path.read_bytes() == b"not a database at all" * 100


async def test_a_damaged_database_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await created(store)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    with pytest.raises(ConfigError, match="move the file away"):
        await SqliteSessionStore.open(path, ttl_s=TTL)


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigError, match="newer tornado-live: upgrade, or set another DATA_DIR"):
        await SqliteSessionStore.open(path, ttl_s=TTL)


async def test_a_file_that_somebody_else_has_locked_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path):
        pass
    with locked(path), pytest.raises(ConfigError, match="another program holds a lock on it: end that"):
        await SqliteSessionStore.open(path, ttl_s=TTL, patience_s=0.05)
    async with opened(path) as store:
        await created(store)


async def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="or set another DATA_DIR"):
        await SqliteSessionStore.open(tmp_path / "file" / "s.db", ttl_s=TTL)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_the_file_never_holds_the_name_of_a_credential(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.keep_credential("auth_tokens/a-secret-name", uses=1, expires_at=2e9, body={"b": "seen"})
        await store.use_credential("auth_tokens/a-secret-name")
        written = everything_in(tmp_path)
    written += everything_in(tmp_path)
    assert b"seen" in written
    assert b"secret-name" not in written


# What versions 1 and 2 of the file were made of.
VERSION_1 = """
CREATE TABLE session (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, label TEXT NOT NULL, assistant TEXT NOT NULL, metadata TEXT NOT NULL,
    usage TEXT NOT NULL DEFAULT '{}', created_at REAL NOT NULL, last_active_at REAL NOT NULL,
    expires_at REAL NOT NULL, last_turn INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX session_of_user ON session (user, created_at, id);
CREATE INDEX session_by_end ON session (expires_at);
CREATE TABLE memory (
    n INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
    role TEXT NOT NULL, text TEXT NOT NULL, bytes INTEGER NOT NULL, turn INTEGER NOT NULL, at REAL NOT NULL
);
CREATE INDEX memory_of_session ON memory (session, n);
CREATE TABLE event (
    n INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
    at REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX event_of_session ON event (session, n);
INSERT INTO session (id, user, label, assistant, metadata, created_at, last_active_at, expires_at)
    VALUES ('s-1', 'ann', '', 'default', '{"a": 1}', 1799999000, 1799999500, 1800001300),
        ('s-2', 'ann', '', 'default', '{}', 1799990000, 1799990000, 1799999999);
INSERT INTO memory (session, role, text, bytes, turn, at) VALUES ('s-1', 'user', 'kept', 4, 1, 1799999400);
PRAGMA user_version = 1;
"""
VERSION_2 = (
    VERSION_1
    + """
CREATE TABLE credential (
    digest BLOB PRIMARY KEY, kind TEXT NOT NULL, uses INTEGER, expires_at REAL NOT NULL, body TEXT NOT NULL
);
CREATE INDEX credential_by_end ON credential (expires_at);
CREATE INDEX credential_of_kind ON credential (kind, expires_at);
INSERT INTO credential VALUES
    (x'2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b', '', 2, 1800000100, '{"b": 2}');
PRAGMA user_version = 2;
"""
)
VERSION_3 = (
    VERSION_2
    + """
ALTER TABLE session ADD COLUMN ends REAL NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN handle TEXT;
ALTER TABLE session ADD COLUMN holder TEXT;
ALTER TABLE session ADD COLUMN connected INTEGER NOT NULL DEFAULT 0;
UPDATE session SET ends = expires_at;
DROP INDEX session_by_end;
CREATE INDEX session_by_end ON session (ends);
DROP INDEX memory_of_session;
CREATE INDEX memory_of_session ON memory (session, n, bytes);
CREATE TABLE node (name TEXT PRIMARY KEY, process TEXT NOT NULL, beat_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE leaving (
    session TEXT NOT NULL REFERENCES session ON DELETE CASCADE, node TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (session, node)
) WITHOUT ROWID;
CREATE TABLE revocation (n INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, ends REAL NOT NULL);
CREATE TABLE counter (name TEXT PRIMARY KEY, taken INTEGER NOT NULL, ends REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (boot TEXT PRIMARY KEY, ahead REAL NOT NULL, seen REAL NOT NULL) WITHOUT ROWID;
INSERT INTO revocation (subject, ends) VALUES ('key-1', 1800000900), ('key-2', 1800000300), ('key-1', 1800000600);
INSERT INTO counter VALUES ('calls', 3, 1800000900);
INSERT INTO clock VALUES ('an older one', 1799990000, 1800000000);
PRAGMA user_version = 3;
"""
)


@pytest.mark.parametrize(
    "written", [VERSION_1, VERSION_2, VERSION_3], ids=["version 1", "version 2", "version 3"]
)
async def test_a_file_of_an_older_version_is_brought_up_to_date(tmp_path: Path, written: str) -> None:
    path, clock = tmp_path / "s.db", Clock()
    older = sqlite3.connect(path)
    older.executescript(written)
    older.close()
    for uses_left in (2, 1):
        async with opened(path, clock) as store:
            [session], _ = await store.list("ann")
            assert (session.id, session.metadata, session.expires_at) == ("s-1", {"a": 1}, 1800001300.0)
            assert (session.handle, session.connected) == (None, False)
            assert await texts(store, "s-1") == ["kept"]
            assert await store.hold("s-1", node="node-1") == Hold(frozenset(), abandoned=False)
            if written is VERSION_3:
                news = await store.beat("node-1", ["s-1"])
                assert news.revoked == {"key-1": 900.0, "key-2": 300.0}
                assert await store.take("calls", 0, limit=5, window_s=60) == Taken(0, 2, 900.0)
            if written is not VERSION_1:
                credential = await store.use_credential("secret")
                assert credential == Credential({"b": 2}, "good"), uses_left
            assert await store.occupy("talks", f"{uses_left}", limit=2, lasts_s=600)
            assert await store.credentials("key") == []
            await store.leave("node-1")
    clock.now += 1300
    async with opened(path, clock) as store:
        assert await store.list("ann") == ([], None)
        assert await store.use_credential("secret") is None


# What has ended


async def test_ended_sessions_leave_the_file_with_all_they_said(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        id = await created(store)
        store.remember(id, said("private"))
        store.record(id, Event(1.0, "turn_ended", {}))
        clock.now += TTL
    async with opened(tmp_path / "s.db", clock) as store:
        onlooker = sqlite3.connect(tmp_path / "s.db")
        for table in ("session", "memory", "event"):
            assert onlooker.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        onlooker.close()


async def test_ended_sessions_leave_the_file_while_the_server_runs(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock, purge_s=0.02) as store:
        await created(store)
        clock.now += TTL
        running = await created(store)
        onlooker = sqlite3.connect(tmp_path / "s.db")
        async with asyncio.timeout(60):
            while onlooker.execute("SELECT id FROM session").fetchall() != [(running,)]:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        onlooker.close()


async def test_expired_credentials_leave_the_file(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        await store.keep_credential("old", uses=1, expires_at=clock.now + 1, body={})
        await store.keep_credential("new", uses=1, expires_at=clock.now + 10, body={})
        clock.now += 1
    async with opened(tmp_path / "s.db", clock, purge_s=0.02) as store:
        assert await store.use_credential("old") is None
        clock.now += 9
        async with asyncio.timeout(60):
            while await store.use_credential("new") is not None:
                pass


# Locks


async def test_writes_wait_while_the_file_is_locked_and_are_not_lost(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        blocker = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        store.remember(id, said("patient"))
        with pytest.raises(Unavailable):
            await store.flush()
        assert not await store.healthy()
        blocker.execute("ROLLBACK")
        blocker.close()
        await store.flush()
        assert await texts(store, id) == ["patient"]
        async with asyncio.timeout(60):
            while not await store.healthy():
                pass


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process that holds the file; the store waits two seconds for it before a write fails."""
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.close()


async def test_writes_keep_their_order_over_a_lock_that_outlasts_a_write(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", memory_messages=3) as store:
        id = await created(store)
        with locked(tmp_path / "s.db"):
            for number in (1, 2, 3, 4):
                store.set_usage(id, {"totalTokens": number})
                store.record(id, Event(float(number), "tool_finished", {"n": number}))
                store.remember(id, said(str(number), role="tool"))
                if number < 4:
                    assert (
                        not await store.healthy()
                    )  # a second each: the first write fails, a later one waits
        assert await texts(store, id) == ["2", "3", "4"]
        assert [event.data["n"] for event in await store.events(id)] == [1, 2, 3, 4]
        assert (await store.get(id, user="ann")).usage == {"totalTokens": 4}


async def test_what_waits_behind_a_write_in_flight_follows_it_without_being_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        with locked(tmp_path / "s.db"):
            store.remember(id, said("in flight", 1))
            assert not await store.healthy()
            store.remember(id, said("waiting", 2))
        onlooker = sqlite3.connect(tmp_path / "s.db")
        async with asyncio.timeout(60):
            while onlooker.execute("SELECT count(*) FROM memory").fetchone() != (2,):  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        onlooker.close()


async def test_closing_keeps_what_waits_behind_a_write_in_flight(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        with locked(tmp_path / "s.db"):
            store.remember(id, said("in flight", 1))
            assert not await store.healthy()
            store.remember(id, said("waiting", 2))
    async with opened(tmp_path / "s.db") as store:
        assert await texts(store, id) == ["in flight", "waiting"]


async def test_activity_that_waits_behind_a_write_in_flight_still_keeps_its_session(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock, purge_s=0.02) as store:
        id = await created(store)
        with locked(tmp_path / "s.db"):
            store.remember(id, said("in flight"))
            assert not await store.healthy()
            clock.now += TTL - 1
            store.touch(id)
            clock.now += 2
            assert not await store.healthy()  # purges fall due meanwhile
        assert (await store.get(id, user="ann")).id == id


# Several processes on one file


async def test_processes_that_take_the_same_sessions_at_once_agree_on_who_has_each(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with store_process(path, "a") as one, store_process(path, "b") as two, opened_here(path) as store:
        ids = [await created(store) for _ in range(40)]
        found = await asyncio.gather(one.does("hold", ids=ids), two.does("hold", ids=ids[::-1]))
        by_id = list(zip(ids, found[0], found[1][::-1], strict=True))
        assert all([in_one, in_two] in ([[], ["a"]], [["b"], []]) for _, in_one, in_two in by_id)
        assert await one.does("beat", ids=ids) == sorted(id for id, in_one, _ in by_id if not in_one)
        assert await two.does("beat", ids=ids) == sorted(id for id, _, in_two in by_id if not in_two)


async def test_of_fifty_uses_in_two_processes_one_is_good(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with store_process(path, "a") as one, store_process(path, "b") as two, opened_here(path) as store:
        await store.keep_credential("secret", uses=1, expires_at=time.time() + 600, body={})
        states = await asyncio.gather(*(each.does("use", name="secret", times=25) for each in (one, two)))
        assert sorted(states[0] + states[1]) == ["good"] + ["used_up"] * 49


async def test_two_processes_get_no_more_of_a_counter_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with store_process(path, "a") as one, store_process(path, "b") as two, opened_here(path) as store:
        given: dict[str, Any] = {"counter": "calls", "limit": 200, "times": 60}
        kept = sum(await asyncio.gather(one.does("take", **given), two.does("take", **given)))
        assert kept <= 200
        assert (await store.take("calls", 200, limit=200, window_s=3600)).amount == 200 - kept


async def test_two_processes_that_write_at_once_lose_nothing_and_keep_their_order(tmp_path: Path) -> None:
    """Neither ever says that the file is locked (`store_process` fails where one complains)."""
    path, turns = tmp_path / "s.db", 200
    async with store_process(path, "a") as one, store_process(path, "b") as two, opened_here(path) as store:
        mine = {"a": await one.does("create", count=5), "b": await two.does("create", count=5)}
        shared = await created(store)
        await asyncio.gather(
            one.does("talk", ids=[*mine["a"], shared], turns=turns),
            two.does("talk", ids=[*mine["b"], shared], turns=turns),
            one_after_the_other(store, 100),
        )
        for node, ids in mine.items():
            for id in ids:
                assert await texts(store, id) == [f"{node} {turn}" for turn in range(1, turns + 1)]
                assert [event.data["turn"] for event in await store.events(id)] == [*range(1, turns + 1)]
                assert (await store.get(id, user="ann")).usage == {"totalTokens": turns}
        both = await texts(store, shared)
        assert sorted(both) == sorted(f"{node} {turn}" for node in "ab" for turn in range(1, turns + 1))
        for node in "ab":
            assert [text for text in both if text[0] == node] == [
                f"{node} {turn}" for turn in range(1, turns + 1)
            ]
        assert await one.does("texts", id=shared) == await two.does("texts", id=shared) == both


async def one_after_the_other(store: SqliteSessionStore, times: int) -> None:
    for _ in range(times):
        id = await created(store)
        await store.hold(id, node="c")
        await store.delete(id, user="ann")


async def test_stores_that_make_and_leave_a_file_at_once_do_not_trip_over_each_other(tmp_path: Path) -> None:
    """A new file gets its tables, its journal and its clock from whoever comes first; the last takes its journal
    away."""

    async def come_and_go(path: Path) -> str:
        async with opened_here(path) as store:
            return await created(store)

    for number in range(10):
        path = tmp_path / f"{number}.db"
        ids = await asyncio.gather(*(come_and_go(path) for _ in range(8)))
        async with opened_here(path) as store:
            assert {session.id for session in (await store.list("ann"))[0]} == set(ids)


@asynccontextmanager
async def opened_here(path: Path) -> AsyncIterator[SqliteSessionStore]:
    """By the machine's own clocks, as other processes read them."""
    store = await SqliteSessionStore.open(path, ttl_s=TTL, memory_messages=10_000, memory_bytes=10_000_000)
    try:
        yield store
    finally:
        await store.close()


async def test_the_backup_of_the_documentation_is_whole_though_processes_write(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sessions.db"
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [(file, statement)] = re.findall(r'^sqlite3 (data/\S+) "(VACUUM INTO .*)"$', operations, re.MULTILINE)
    assert tmp_path / file == path
    async with store_process(path, "a") as other, opened_here(path) as store:
        ids = await other.does("create", count=3)
        store.remember(ids[0], said("kept"))
        await store.flush()
        talk = asyncio.get_running_loop().create_task(other.does("talk", ids=ids[1:], turns=100))
        backup = sqlite3.connect(path)
        backup.execute(statement.replace("sessions-backup.db", str(tmp_path / "backup.db")))
        backup.close()
        await talk
    (tmp_path / "backup.db").rename(tmp_path / "restored.db")
    async with opened_here(tmp_path / "restored.db") as store:
        assert {session.id for session in (await store.list("ann"))[0]} == set(ids)
        assert await texts(store, ids[0]) == ["kept"]
        for id in ids[1:]:
            found = await texts(store, id)
            assert found == [f"a {turn}" for turn in range(1, len(found) + 1)]


@pytest.mark.proves("F34")
async def test_a_process_that_was_killed_is_found_dead_before_its_time(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    this = clocks()
    opened_at = this.steady()
    stopped = Clocks(this.wall, lambda: opened_at, this.boot)  # so that no beat ever gets old
    store = await SqliteSessionStore.open(path, ttl_s=TTL, clocks=stopped)
    async with store_process(path, "a") as other:
        held, taken = await other.does("create", count=2)
        assert await store.hold(taken, node="b") == Hold(frozenset({"a"}), abandoned=False)
        other.process.kill()
        await other.process.wait()
        assert await store.hold(held, node="b") == Hold(frozenset(), abandoned=True)
        assert await store.leaving(taken, node="b") == Hold(frozenset(), abandoned=True)
    await store.close()


# The clock


async def test_processes_of_one_boot_have_one_time_whenever_they_start(tmp_path: Path) -> None:
    wall, steady = Clock(1_800_000_000.0), Clock(5000.0)
    async with at_boot("first", tmp_path, wall, steady) as one:
        id = await created(one)
        wall.now -= 86400
        async with at_boot("first", tmp_path, wall, steady) as two:
            for store in (one, two):
                assert (await store.get(id, user="ann")).id == id
            steady.now += TTL
            for store in (one, two):
                with pytest.raises(SessionNotFound):
                    await store.get(id, user="ann")


async def test_the_time_that_a_machine_was_off_counts(tmp_path: Path) -> None:
    wall, steady = Clock(1_800_000_000.0), Clock(5000.0)
    async with at_boot("first", tmp_path, wall, steady) as store:
        id = await created(store)
    steady.now, wall.now = 20.0, wall.now + TTL - 1
    async with at_boot("second", tmp_path, wall, steady) as store:
        assert (await store.get(id, user="ann")).id == id
        steady.now += 1
        with pytest.raises(SessionNotFound):
            await store.get(id, user="ann")


async def test_a_machine_that_starts_with_its_clock_behind_does_not_go_back_in_time(tmp_path: Path) -> None:
    wall, steady = Clock(1_800_000_000.0), Clock(5000.0)
    async with at_boot("first", tmp_path, wall, steady) as store:
        older = await created(store)
        wall.now, steady.now = wall.now + 600, steady.now + 600
    async with at_boot("first", tmp_path, wall, steady) as store:
        newer = await created(store)
    wall.now, steady.now = 0.0, 20.0
    async with at_boot("second", tmp_path, wall, steady) as store:
        assert {session.id for session in (await store.list("ann"))[0]} == {older, newer}
        steady.now += TTL - 600
        assert {session.id for session in (await store.list("ann"))[0]} == {newer}
        steady.now += 600
        assert await store.list("ann") == ([], None)


@asynccontextmanager
async def at_boot(boot: str, folder: Path, wall: Clock, steady: Clock) -> AsyncIterator[SqliteSessionStore]:
    store = await SqliteSessionStore.open(folder / "s.db", ttl_s=TTL, clocks=Clocks(wall, steady, boot))
    try:
        yield store
    finally:
        await store.close()


FAKE_TIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.mark.proves("F36")
@pytest.mark.skipif(FAKE_TIME is None, reason="needs libfaketime, which make test installs")
async def test_processes_whose_wall_clocks_are_days_apart_share_their_sessions(tmp_path: Path) -> None:
    """Its other clocks libfaketime leaves alone, as setting a machine's clock does."""
    path = tmp_path / "s.db"
    ahead, behind = (
        {"LD_PRELOAD": str(FAKE_TIME), "FAKETIME": days, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        for days in ("+2d", "-2d")
    )
    async with (
        opened_here(
            path
        ) as store,  # first: libfaketime breaks Python's sleep, which who makes a file may need
        store_process(path, "a", environ=ahead) as one,
        store_process(path, "b", environ=behind) as two,
    ):
        ids = [*await one.does("create", count=1), *await two.does("create", count=1), await created(store)]
        for id in ids:
            for process, days in ((one, 2), (two, -2)):
                _, active, ends = await process.does("times", id=id)
                assert active == pytest.approx(time.time() + days * 86400, abs=600)
                assert ends == active + TTL
            store.touch(id)
            assert (await store.get(id, user="ann")).last_active_at == pytest.approx(time.time(), abs=600)
        onlooker = sqlite3.connect(path)
        left = {ends for (ends,) in onlooker.execute("SELECT ends FROM session")}
        onlooker.close()
        assert max(left) - min(left) < 600
