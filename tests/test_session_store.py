"""The session store on a real file: what it keeps, for how long, and what it does when it cannot."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import string
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.errors import BadMessage, ConfigError, Limited, SessionNotFound, Unavailable
from tornado_live.observe.events import Event
from tornado_live.sessions.machine import Clocks
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import Credential, Hold, MemoryItem, clip, new_session_id

TTL = 1800.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def clocks(self) -> Clocks:
        return Clocks(wall=self, steady=self, boot="this one")


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None, **bounds: Any) -> AsyncIterator[SqliteSessionStore]:
    store = await SqliteSessionStore.open(path, ttl_s=TTL, clocks=(clock or Clock()).clocks(), **bounds)
    try:
        yield store
    finally:
        await store.close()


async def created(store: SqliteSessionStore, user: str = "ann") -> str:
    return (await store.create(user=user, assistant="default", metadata={})).id


def said(text: str, turn: int = 1, role: Any = "user") -> MemoryItem:
    return MemoryItem(role, text, turn, 1_800_000_000.0)


async def texts(store: SqliteSessionStore, id: str) -> list[str]:
    return [item.text for item in await store.memory(id)]


async def test_a_session_is_found_by_its_user_as_it_was_created(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        session = await store.create(
            user="ann", assistant="support", metadata={"ticket": [1, {"a": None}]}, label="Ann"
        )
        assert await store.get(session.id, user="ann") == session
        assert (session.user, session.assistant, session.label) == ("ann", "support", "Ann")
        assert session.metadata == {"ticket": [1, {"a": None}]}
        assert session.expires_at == session.created_at + TTL
        assert (session.message_count, session.usage, session.last_turn) == (0, {}, 0)


async def test_a_resumed_session_comes_with_its_memory(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("Sunny.", role="model"))
        store.remember(id, said("What's the weather?"))
        session, memory = await store.resume(id, user="ann")
        assert session == await store.get(id, user="ann")
        assert [item.text for item in memory] == ["What's the weather?", "Sunny."]


async def test_unknown_foreign_expired_and_deleted_sessions_get_one_answer(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        gone = await created(store)
        clock.now += TTL
        mine, deleted = await created(store), await created(store)
        await store.delete(deleted, user="ann")
        answers = set()
        for id, user in ((gone, "ann"), (mine, "bob"), (deleted, "ann"), ("nothing", "ann"), ("", "ann")):
            for question in (store.get, store.resume, store.delete):
                with pytest.raises(SessionNotFound) as refused:
                    await question(id, user=user)
                answers.add(refused.value.message)
        assert len(answers) == 1
        assert (await store.get(mine, user="ann")).id == mine


async def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("What's the weather?"))
        store.remember(id, said("Sunny.", role="model"))
        store.record(id, Event(1.5, "turn_ended", {"turn": 1}))
        store.set_usage(id, {"totalTokens": 15})
        store.touch(id)
    async with opened(tmp_path / "s.db") as store:
        session = await store.get(id, user="ann")
        assert (session.message_count, session.usage, session.last_turn) == (2, {"totalTokens": 15}, 1)
        assert await texts(store, id) == ["What's the weather?", "Sunny."]
        assert await store.events(id) == [Event(1.5, "turn_ended", {"turn": 1})]


async def test_what_was_flushed_survives_a_process_that_never_closes(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("kept"))
        await store.flush()
        async with opened(tmp_path / "s.db") as other_process:
            assert await texts(other_process, id) == ["kept"]


async def test_a_reader_sees_what_was_queued_before(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        for turn in range(1, 4):
            store.remember(id, said(str(turn), turn))
            assert (await store.get(id, user="ann")).message_count == turn


async def test_queued_writes_reach_the_file_without_being_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("by itself"))
        onlooker = sqlite3.connect(tmp_path / "s.db")
        async with asyncio.timeout(60):
            while onlooker.execute("SELECT text FROM memory").fetchall() != [("by itself",)]:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        onlooker.close()


async def test_memory_keeps_the_newest_messages(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id, other = await created(store), await created(store)
        store.remember(other, said("untouched"))
        for turn in range(1, 61):
            store.remember(id, said(str(turn), turn))
        assert await texts(store, id) == [str(turn) for turn in range(11, 61)]
        assert (await store.get(id, user="ann")).message_count == 50
        assert await texts(store, other) == ["untouched"]


async def test_memory_keeps_within_its_bytes(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", memory_bytes=100) as store:
        id = await created(store)
        for turn, text in enumerate(("a" * 60, "ü" * 20, "c" * 60), 1):
            store.remember(id, said(text, turn))
            await store.flush()
        assert await texts(store, id) == ["ü" * 20, "c" * 60]


async def test_a_giant_message_is_cut_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("ä" * 100_000))
        [text] = await texts(store, id)
        assert text.endswith("ä…")
        assert 8190 <= len(text.encode()) <= 8192


@given(st.text(), st.integers(3, 40))
def test_a_clipped_text_fits_and_is_a_beginning(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    whole = text.encode("utf-8", "replace").decode()
    assert len(clipped.encode()) <= limit
    assert clipped == whole or (clipped.endswith("…") and whole.startswith(clipped[:-1]))


async def test_within_a_turn_the_user_comes_first_then_tools_then_the_model(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        for turn in (1, 2):
            for role in ("model", "tool", "user"):
                store.remember(id, said(f"{role} {turn}", turn, role))
        assert await texts(store, id) == ["user 1", "tool 1", "model 1", "user 2", "tool 2", "model 2"]


async def test_a_text_that_utf8_cannot_hold_is_kept_without_the_broken_part(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("a\ud800b"))
        assert await texts(store, id) == ["a?b"]
        assert await store.healthy()


async def test_events_keep_the_newest_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", events=3) as store:
        id = await created(store)
        for number in range(5):
            store.record(id, Event(float(number), "tool_finished", {"n": number}))
            if number == 3:
                await store.flush()
        assert [event.data for event in await store.events(id)] == [{"n": 2}, {"n": 3}, {"n": 4}]


async def test_an_event_too_large_keeps_its_small_facts(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.record(id, Event(1.0, "tool_finished", {"result": "x" * 9000, "name": "get_weather"}))
        [event] = await store.events(id)
        assert event.data == {"clipped": True, "name": "get_weather"}


async def test_the_highest_turn_is_kept_whoever_names_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("hello", 4))
        store.record(id, Event(1.0, "barge_in", {"turn": 6}))
        store.record(id, Event(2.0, "turn_ended", {"turn": 5}))
        assert (await store.get(id, user="ann")).last_turn == 6


async def test_activity_moves_the_end(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        id = await created(store)
        clock.now += TTL - 1
        store.touch(id)
        clock.now += TTL - 1
        session = await store.get(id, user="ann")
        assert session.expires_at == clock.now + 1
        assert session.last_active_at == clock.now - TTL + 1
        clock.now += 1
        with pytest.raises(SessionNotFound):
            await store.get(id, user="ann")


async def test_an_ended_session_is_not_brought_back_by_late_activity(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        id = await created(store)
        clock.now += TTL
        store.touch(id)
        store.remember(id, said("late"))
        with pytest.raises(SessionNotFound):
            await store.get(id, user="ann")


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


async def test_writes_for_a_deleted_session_do_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
        store.remember(id, said("before"))
        await store.delete(id, user="ann")
        store.remember(id, said("after"))
        store.record(id, Event(1.0, "turn_ended", {}))
        store.touch(id)
        store.set_usage(id, {})
        await store.flush()
        assert await store.memory(id) == []
        assert await store.events(id) == []
        assert await store.healthy()


async def test_a_list_shows_the_users_own_newest_first_page_by_page(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        ids = []
        for number in range(5):
            ids.append(await created(store))
            await created(store, "bob")
            clock.now += number % 2  # two share their second
        seen, after = [], None
        while True:
            page, after = await store.list("ann", limit=2, after=after)
            seen += [session.id for session in page]
            if after is None:
                break
        assert sorted(seen) == sorted(ids)
        times = [(await store.get(id, user="ann")).created_at for id in seen]
        assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("after", ["", "x", "W10", "é", "WzEsMl0", "bnVsbA", "[1,2]", "\ud800"])
async def test_a_place_that_is_none_is_a_bad_message(tmp_path: Path, after: str) -> None:
    async with opened(tmp_path / "s.db") as store:
        with pytest.raises(BadMessage):
            await store.list("ann", after=after)


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as one, opened(tmp_path / "s.db") as two:
        id = await created(one)
        for turn in range(1, 21):
            (one if turn % 2 else two).remember(id, said(str(turn), turn))
        await asyncio.gather(one.flush(), two.flush())
        assert await texts(one, id) == await texts(two, id) == [str(turn) for turn in range(1, 21)]
        await two.delete(id, user="ann")
        with pytest.raises(SessionNotFound):
            await one.get(id, user="ann")


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


async def test_a_queue_that_cannot_drain_drops_events_before_messages(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", waiting=4) as store:
        id = await created(store)
        for number in range(3):
            store.record(id, Event(float(number), "x", {}))
        for turn in (1, 2, 3):
            store.remember(id, said(str(turn), turn))
        assert await texts(store, id) == ["1", "2", "3"]
        assert [event.at for event in await store.events(id)] == [2.0]


async def test_after_close_nothing_is_promised(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        id = await created(store)
    store.touch(id)
    with pytest.raises(Unavailable):
        await store.get(id, user="ann")
    assert not await store.healthy()
    await store.close()


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


async def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="or set another DATA_DIR"):
        await SqliteSessionStore.open(tmp_path / "file" / "s.db", ttl_s=TTL)


@pytest.mark.proves("T12")
def test_session_ids_are_long_safe_in_urls_and_never_twice() -> None:
    ids = {new_session_id() for _ in range(100_000)}
    assert len(ids) == 100_000
    assert {len(id) for id in ids} == {32}
    assert set("".join(ids)) == set(string.ascii_letters + string.digits + "-_")


# Credentials


async def test_a_credential_is_good_for_so_many_uses_and_tells_what_was_kept(tmp_path: Path) -> None:
    body: dict[str, Any] = {"session": "s-1", "setup": {"model": "models/a", "tools": [None, 1.5]}}
    async with opened(tmp_path / "s.db") as store:
        await store.keep_credential("secret", uses=2, expires_at=2e9, body=body)
        assert await store.use_credential("secret", spend=False) == Credential(body, "good")
        states = [await store.use_credential("secret") for _ in range(3)]
        assert states == [Credential(body, "good"), Credential(body, "good"), Credential(body, "used_up")]
        assert await store.use_credential("secret", spend=False) == Credential(body, "used_up")
        assert await store.use_credential("another") is None
        assert await store.use_credential("\ud800") is None


async def test_of_fifty_at_once_only_one_spends_the_last_use(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as one, opened(tmp_path / "s.db") as two:
        await one.keep_credential("secret", uses=1, expires_at=2e9, body={})
        found = await asyncio.gather(*(store.use_credential("secret") for store in (one, two) * 25))
        states = [each.state for each in found if each is not None]
        assert sorted(states) == ["good"] + ["used_up"] * 49


async def test_a_credential_without_a_number_of_uses_lasts_until_it_expires(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:
        await store.keep_credential("secret", uses=None, expires_at=clock.now + 60, body={})
        for _ in range(5):
            assert await store.use_credential("secret") == Credential({}, "good")
        clock.now += 60
        assert await store.use_credential("secret") == Credential({}, "expired")


async def test_a_credential_kept_again_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.keep_credential("secret", uses=1, expires_at=2e9, body={"n": 1}, kind="k", at_most=1)
        await store.use_credential("secret")
        await store.keep_credential("secret", uses=1, expires_at=2e9, body={"n": 2}, kind="k", at_most=1)
        assert await store.use_credential("secret") == Credential({"n": 2}, "good")


async def test_credentials_survive_a_restart_with_the_uses_that_are_left(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.keep_credential("secret", uses=2, expires_at=2e9, body={"a": 1})
        await store.use_credential("secret")
    async with opened(tmp_path / "s.db") as store:
        assert await store.use_credential("secret") == Credential({"a": 1}, "good")
        assert await store.use_credential("secret") == Credential({"a": 1}, "used_up")


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


async def test_no_more_than_so_many_live_credentials_of_a_kind_are_kept(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "s.db", clock) as store:

        async def keep(name: str, kind: str = "token", at_most: int | None = 2) -> None:
            end = clock.now + 60
            await store.keep_credential(name, uses=1, expires_at=end, body={}, kind=kind, at_most=at_most)

        await keep("handle", "handle", None)
        await keep("one")
        clock.now += 10
        await keep("two")
        with pytest.raises(Limited) as refused:
            await keep("three")
        assert refused.value.retry_after_ms == 50_000
        assert await store.use_credential("three") is None
        await keep("another handle", "handle", None)
        clock.now += 50
        await keep("three")
        assert await store.use_credential("three") == Credential({}, "good")


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


@pytest.mark.parametrize("written", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
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
            if written is VERSION_2:
                credential = await store.use_credential("secret")
                assert credential == Credential({"b": 2}, "good"), uses_left
            await store.leave("node-1")
    clock.now += 1300
    async with opened(path, clock) as store:
        assert await store.list("ann") == ([], None)
        assert await store.use_credential("secret") is None
