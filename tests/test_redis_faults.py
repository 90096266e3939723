"""What the Redis store does while Redis is away, hangs, is full, read-only or empty, and when it is back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_server import NEEDS_REDIS, RedisServer, running
from stores import RedisPlace, opened

from tornado_live.errors import SessionNotFound, Unavailable
from tornado_live.observe.events import Event
from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.store import Credential, Handle, Hold, MemoryItem, News, SessionStore

pytestmark = NEEDS_REDIS
QUIET = News(frozenset(), frozenset(), {})
HANDLE = Handle("h-1", "i-1", 1.5)


@asynccontextmanager
async def store_on(server: RedisServer, **given: Any) -> AsyncIterator[RedisSessionStore]:
    store = RedisSessionStore(
        server.url, prefix="voice:", **{"ttl_s": 1800.0, "deadline_s": 30.0, "node_life_s": 60.0} | given
    )
    try:
        yield store
    finally:
        await store.close()


async def created(store: SessionStore, node: str | None = "a") -> str:
    return (await store.create(user="ann", assistant="default", metadata={"n": 1}, node=node)).id


def said(text: str, turn: int = 1) -> MemoryItem:
    return MemoryItem("user", text, turn, 1_800_000_000.0)


async def texts(store: SessionStore, id: str) -> list[str]:
    return [item.text for item in await store.memory(id)]


async def talked(store: SessionStore) -> str:
    """A conversation that is under way, held by node a."""
    id = await created(store)
    for turn in (1, 2, 3):
        store.remember(id, said(str(turn), turn))
    store.set_usage(id, {"totalTokens": 7})
    store.keep_handle(id, HANDLE)
    store.attend(id, node="a", connected=True)
    store.touch(id)
    await store.flush()
    return id


async def until(holds: Callable[[], Awaitable[bool]]) -> float:
    """How many seconds it took."""
    begun = time.monotonic()
    async with asyncio.timeout(60):
        while not await holds():
            pass
    return time.monotonic() - begun


# Away


@pytest.mark.proves("F28")
async def test_a_store_opens_without_redis_and_works_as_soon_as_it_is_there(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with store_on(server) as store:
        store.listen(lambda: None)
        assert not await store.healthy()
        with pytest.raises(Unavailable) as refused:
            await created(store)
        assert refused.value.retry_after_ms is not None
        with pytest.raises(Unavailable):
            await store.beat("a", [])
        server.start()
        try:
            await until(store.healthy)
            id = await created(store)
            assert (await store.get(id, user="ann")).id == id
            assert await store.beat("a", [id]) == QUIET
        finally:
            server.close()


@pytest.mark.alone
@pytest.mark.proves("F28")
@pytest.mark.proves("F29")
async def test_redis_that_is_back_is_used_again_within_two_seconds(tmp_path: Path) -> None:
    """By what a server does: a beat each second, and writes that wait."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    try:
        async with store_on(server, deadline_s=0.3) as store, store_on(server) as onlooker:
            id = await talked(store)
            for _ in range(3):
                server.kill()
                for _ in range(3):
                    store.remember(id, said("while it was away", 4))
                    assert not await store.healthy()
                server.start()
                begun = time.monotonic()
                await until(lambda: _is(onlooker, id, "while it was away"))
                assert time.monotonic() - begun < 2
                assert await store.healthy()
                store.remember(id, said("-", 4))
                await store.flush()
    finally:
        server.close()


async def _is(store: SessionStore, id: str, text: str) -> bool:
    try:
        return (await texts(store, id))[-1:] == [text]
    except Unavailable:
        return False


@pytest.mark.proves("F29")
async def test_conversations_go_on_while_redis_is_gone_and_what_they_said_follows_in_its_order(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    try:
        async with store_on(server, memory_messages=500) as store:
            id = await talked(store)
            before = await texts(store, id)
            server.kill()
            for number in range(200):
                store.remember(id, said(f"said {number}", 4 + number))
                store.record(id, Event(float(number), "turn", {"turn": number}))
                store.set_usage(id, {"totalTokens": number})
                store.touch(id)
            for question in (store.get, store.resume):
                with pytest.raises(Unavailable):
                    await question(id, user="ann")
            with pytest.raises(Unavailable):
                await created(store)
            assert not await store.healthy()
            server.start()
            await until(store.healthy)
            assert await texts(store, id) == before + [f"said {number}" for number in range(200)]
            assert [event.at for event in await store.events(id)] == [float(n) for n in range(200)]
            session = await store.get(id, user="ann")
            assert (session.usage, session.last_turn) == ({"totalTokens": 199}, 203)
            assert (session.handle, session.connected) == (HANDLE, True)
            assert await store.beat("a", [id]) == QUIET
    finally:
        server.close()


@pytest.mark.proves("F29")
async def test_what_waits_for_redis_is_bounded_and_messages_outlive_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    try:
        async with store_on(server, waiting=50) as store:
            id = await created(store)
            server.kill()
            for number in range(1000):
                store.record(id, Event(float(number), "turn", {}))
            for number in range(1, 41):
                store.remember(id, said(str(number), number))
            server.start()
            await until(store.healthy)
            assert await texts(store, id) == [str(number) for number in range(1, 41)]
            assert [event.at for event in await store.events(id)] == [float(n) for n in range(990, 1000)]
    finally:
        server.close()
    overflows = [record for record in caplog.records if getattr(record, "event", "") == "store_overflow"]
    assert len(overflows) == 1


@pytest.mark.proves("F30")
async def test_a_batch_whose_answer_never_came_is_written_once(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server, deadline_s=0.05) as store:
            id = await created(store)
            await until(store.healthy)
            for round in range(5):
                with server.hung():
                    for number in range(4):
                        store.remember(id, said(f"{round}.{number}", round))
                        store.record(id, Event(float(number), "turn", {}))
                        store.give_back("c", 1)
                        with pytest.raises(Unavailable):
                            await store.flush()
                await until(store.healthy)
            assert await texts(store, id) == [f"{round}.{n}" for round in range(5) for n in range(4)]
            assert [event.at for event in await store.events(id)] == [0.0, 1.0, 2.0, 3.0] * 5


@pytest.mark.proves("F30")
async def test_what_was_given_back_to_a_redis_that_hangs_is_given_back_once(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server, deadline_s=0.05) as store, store_on(server) as other:
            assert (await other.take("c", 10, limit=10, window_s=600)).amount == 10
            with server.hung():
                store.give_back("c", 3)
                for _ in range(4):
                    with pytest.raises(Unavailable):
                        await store.flush()
            await until(store.healthy)
            assert (await other.take("c", 10, limit=10, window_s=600)).amount == 3


@pytest.mark.proves("F30")
async def test_a_hold_that_nobody_waits_for_any_more_takes_nothing(tmp_path: Path) -> None:
    """Redis hangs, who asked for the session lets go of it, and Redis reads what it was asked long ago."""
    with running(tmp_path) as server:
        async with store_on(server, deadline_s=0.05) as one, store_on(server) as other:
            id = await created(other, node=None)
            await until(one.healthy)
            with server.hung():
                with pytest.raises(Unavailable):
                    await one.hold(id, node="a")
                one.release(id, node="a")
            await until(one.healthy)
            await one.flush()
            assert await other.hold(id, node="b") == Hold(frozenset(), abandoned=False)
            assert await other.beat("b", [id]) == QUIET


@pytest.mark.alone
@pytest.mark.proves("F30")
async def test_each_question_to_a_redis_that_hangs_ends_within_300_ms(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server, deadline_s=0.3) as store:
            id = await talked(store)
            questions: list[Callable[[], Awaitable[object]]] = [
                lambda: created(store),
                lambda: store.get(id, user="ann"),
                lambda: store.resume(id, user="ann"),
                lambda: store.list("ann"),
                lambda: store.memory(id),
                lambda: store.events(id),
                lambda: store.delete(id, user="ann"),
                lambda: store.hold(id, node="b"),
                lambda: store.leaving(id, node="a"),
                lambda: store.beat("a", [id]),
                lambda: store.revoke("s", lasts_s=60),
                lambda: store.take("c", 1, limit=1, window_s=60),
                lambda: store.occupy("c", "p", limit=1, lasts_s=60),
                lambda: store.credentials("k"),
                lambda: store.drop_credential("x"),
                lambda: store.use_credential("x"),
                lambda: store.keep_credential("x", uses=1, expires_at=2e9, body={}),
                lambda: store.leave("a"),
            ]
            with server.hung():
                store.remember(id, said("waiting", 4))
                lags: list[float] = []
                ticking = asyncio.get_running_loop().create_task(_tick(lags))
                lasted = await asyncio.gather(*(_refused_after(ask) for ask in questions * 4))
                for ask in questions:
                    lasted.append(await _refused_after(ask))
                begun = time.monotonic()
                assert not await store.healthy()
                lasted.append(time.monotonic() - begun)
                ticking.cancel()
            assert max(lasted) < 0.3 + 0.2
            assert max(lags) < 0.2
            await until(store.healthy)
            assert (await texts(store, id))[-1] == "waiting"


async def _refused_after(ask: Callable[[], Awaitable[object]]) -> float:
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        await ask()
    return time.monotonic() - begun


async def _tick(lags: list[float]) -> None:
    """By how much each hundredth of a second was longer."""
    while True:
        begun = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - begun - 0.01)


# Full, read-only


@pytest.mark.proves("F31")
async def test_a_full_redis_takes_nothing_new_and_conversations_do_not_end_by_it(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as other:
        async with store_on(server) as store, store_on(server) as two:
            id = await talked(store)
            other.config_set("maxmemory", "1")
            for refused in (
                lambda: created(store),
                lambda: store.keep_credential("x", uses=1, expires_at=2e9, body={}),
                lambda: store.take("c", 1, limit=1, window_s=60),
            ):
                with pytest.raises(Unavailable):
                    await refused()
            assert not await store.healthy()
            other.pexpire(f"voice:{{{id}}}:s", 5000)
            store.remember(id, said("while it was full", 4))
            store.touch(id)
            with pytest.raises(Unavailable):
                await store.flush()
            assert other.pttl(f"voice:{{{id}}}:s") > 1_000_000
            assert (await store.get(id, user="ann")).connected
            assert await store.beat("a", [id]) == QUIET
            assert (await two.hold(id, node="b")).leaving == {"a"}
            assert (await store.beat("a", [id])).taken == {id}
            other.config_set("maxmemory", "0")
            assert await store.healthy()
            assert await texts(store, id) == ["1", "2", "3", "while it was full"]


@pytest.mark.proves("F31")
async def test_a_redis_that_became_a_replica_is_written_again_when_it_is_a_primary(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as other:
        async with store_on(server) as store:
            id = await talked(store)
            other.replicaof("127.0.0.1", 1)
            store.remember(id, said("while it was a replica", 4))
            assert not await store.healthy()
            with pytest.raises(Unavailable):
                await created(store)
            other.replicaof("NO", "ONE")
            assert await store.healthy()
            assert (await texts(store, id))[-1] == "while it was a replica"


# Empty


async def emptied(server: RedisServer) -> None:
    server.restart_empty()


async def flushed(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


Lost = Callable[[RedisServer], Awaitable[None]]
LOST = pytest.mark.parametrize("lose", [emptied, flushed])


@LOST
@pytest.mark.proves("F31")
async def test_a_redis_that_lost_all_gets_back_what_is_held_and_others_are_unknown(
    tmp_path: Path, lose: Lost
) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            ids = [await talked(store) for _ in range(5)]
            unheld = await created(other, node=None)
            before = [await store.get(id, user="ann") for id in ids]
            await lose(server)
            await until(store.healthy)
            assert await store.beat("a", ids) == QUIET
            assert [await other.get(id, user="ann") for id in ids] == before
            assert {tuple(await texts(other, id)) for id in ids} == {("1", "2", "3")}
            assert {session.id for session in (await other.list("ann"))[0]} == set(ids)
            with pytest.raises(SessionNotFound):
                await other.get(unheld, user="ann")
            assert await store.beat("a", ids) == QUIET
            assert await other.hold(ids[0], node="b") == Hold(frozenset({"a"}), abandoned=False)


@LOST
@pytest.mark.proves("F31")
async def test_what_waited_while_redis_lost_all_is_in_what_it_gets_back_and_only_once(
    tmp_path: Path, lose: Lost
) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            id = await talked(store)
            await lose(server)
            store.remember(id, said("4", 4))
            await until(store.healthy)
            assert await texts(other, id) == ["1", "2", "3", "4"]
            store.remember(id, said("5", 5))
            await store.beat("a", [id])
            await store.flush()
            assert await texts(other, id) == ["1", "2", "3", "4", "5"]


@pytest.mark.proves("F31")
async def test_who_comes_back_before_the_next_beat_finds_what_redis_lost(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store:
            id = await talked(store)
            await flushed(server)
            session, memory = await store.resume(id, user="ann")
            assert (session.handle, [item.text for item in memory]) == (HANDLE, ["1", "2", "3"])
            await flushed(server)
            assert await store.hold(id, node="a") == Hold(frozenset(), abandoned=False)
            await flushed(server)
            assert await texts(store, id) == ["1", "2", "3"]
            await flushed(server)
            with pytest.raises(SessionNotFound):
                await store.get(id, user="bob")


@pytest.mark.proves("F31")
async def test_a_conversation_that_ends_while_redis_is_empty_is_written_and_held_by_nobody(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            id = await talked(store)
            await flushed(server)
            store.remember(id, said("goodbye", 4))
            store.release(id, node="a")
            await store.flush()
            assert (await texts(other, id))[-1] == "goodbye"
            assert await other.hold(id, node="b") == Hold(frozenset(), abandoned=False)
            await flushed(server)
            assert (await store.beat("a", [id])).ended == {id}


@pytest.mark.proves("F31")
async def test_what_was_deleted_is_not_taken_for_lost(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            id = await talked(store)
            await other.delete(id, user="ann")
            store.remember(id, said("late", 4))
            store.touch(id)
            await store.flush()
            assert await store.beat("a", [id]) == News(frozenset(), frozenset({id}), {})
            with pytest.raises(SessionNotFound):
                await store.get(id, user="ann")
            own = await talked(store)
            await store.delete(own, user="ann")
            await flushed(server)  # and so the mark is gone, too
            assert (await store.beat("a", [own])).ended == {own}


@pytest.mark.proves("F31")
async def test_another_redis_that_was_behind_is_told_what_it_missed(tmp_path: Path) -> None:
    """As after a failover: the one that answers now knows what had come to it, and no more."""
    with running(tmp_path) as server, server.client() as client:
        async with store_on(server) as store, store_on(server) as other:
            behind = await talked(store)
            given = await talked(other)
            client.save()
            store.remember(behind, said("4", 4))
            await store.flush()
            assert (await store.hold(given, node="b")).leaving == {"a"}
            server.kill()
            server.start()
            await until(store.healthy)
            assert await texts(other, behind) == ["1", "2", "3"]
            assert await store.beat("a", [behind]) == QUIET
            assert await store.beat("b", [given]) == QUIET
            assert await texts(other, behind) == ["1", "2", "3", "4"]
            assert (await other.beat("a", [given])).taken == {given}


@pytest.mark.proves("F31")
async def test_revocations_are_heard_when_redis_was_emptied_in_between(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            for number in range(3):
                await other.revoke(f"before {number}", lasts_s=600)
            assert len((await store.beat("a", [])).revoked) == 3
            assert not emptied(caplog)
            await flushed(server)
            await other.revoke("behind", lasts_s=600)
            assert (await store.beat("a", [])).revoked.keys() == {"behind"}
            assert (await store.beat("a", [])).revoked == {}
            assert len(emptied(caplog)) == 1


def emptied(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """What the operator is told of it."""
    return [record for record in caplog.records if getattr(record, "event", "") == "redis_emptied"]


@pytest.mark.proves("F31")
async def test_what_only_redis_had_is_gone_with_it_and_may_be_kept_again(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as store, store_on(server) as other:
            for _ in range(2):
                await store.keep_credential("key:1", uses=None, expires_at=None, body={"n": 1}, kind="key")
                assert await other.use_credential("key:1") == Credential({"n": 1}, "good")
                assert (await store.take("c", 5, limit=5, window_s=600)).amount == 5
                assert await store.occupy("talks", "a", limit=1, lasts_s=600)
                await flushed(server)
                assert await other.use_credential("key:1") is None
                assert await other.credentials("key") == []
                assert (await other.take("c", 5, limit=5, window_s=600)).amount == 5
                assert await other.occupy("talks", "b", limit=1, lasts_s=600)
                assert not await store.occupy("talks", "a", limit=1, lasts_s=600)
                await flushed(server)


async def test_copies_of_what_is_held_are_bounded(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server, copies_bytes=10_000) as store:
            ids = [await created(store) for _ in range(3)]
            for id in ids:
                store.remember(id, said("x" * 4000))
                store.touch(id)
                await store.flush()
            await flushed(server)
            assert (await store.beat("a", ids)).ended == {ids[0], ids[1]}


# Expiry


@pytest.mark.proves("F32")
async def test_two_processes_that_refresh_a_session_by_turns_keep_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        place = RedisPlace(server)
        async with opened(place) as one, opened(place) as two:
            id = await created(one, node=None)
            for number in range(6):
                await place.pass_time(1799)
                store = (one, two)[number % 2]
                store.touch(id)
                store.remember(id, said(str(number), number))
                await store.flush()
            assert await texts(one, id) == await texts(two, id) == [str(number) for number in range(6)]
            await place.pass_time(1800)
            one.touch(id)
            two.touch(id)
            await asyncio.gather(one.flush(), two.flush())
            for store in (one, two):
                with pytest.raises(SessionNotFound):
                    await store.get(id, user="ann")
            with server.client() as client:
                assert client.keys(f"*{id}*") == []


@pytest.mark.proves("F32")
async def test_an_active_talk_does_not_end_where_redis_could_not_hear_of_it(tmp_path: Path) -> None:
    """The line is cut for longer than a session lives, while Redis's time goes on."""
    with running(tmp_path) as server:
        place = RedisPlace(server)
        async with opened(place) as store, opened(place) as other:
            talking, silent = await talked(store), await talked(store)
            for _ in range(3):
                await place.pass_time(900)
                store.touch(talking)
            with server.client() as client:
                assert client.keys(f"*{talking}*") == client.keys(f"*{silent}*") == []
            news = await store.beat("a", [talking, silent])
            assert (news.ended, news.taken) == ({silent}, frozenset())
            assert await texts(other, talking) == ["1", "2", "3"]
            await place.pass_time(1800)
            store.touch(talking)
            await store.flush()
            assert (await store.beat("a", [talking])).ended == {talking}


@pytest.mark.proves("F32")
async def test_to_hold_a_session_is_no_activity_of_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        place = RedisPlace(server)
        async with opened(place) as store:
            id = await created(store, node=None)
            await place.pass_time(1000)
            await store.hold(id, node="a")
            await place.pass_time(801)
            assert (await store.beat("a", [id])).ended == {id}
            with pytest.raises(SessionNotFound):
                await store.get(id, user="ann")


@pytest.mark.proves("F32")
async def test_a_talk_outlives_its_sessions_life_many_times_over_two_processes(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server, ttl_s=0.25) as one, store_on(server, ttl_s=0.25) as two:
            id = await created(one, node="a")
            begun = time.monotonic()
            number = 0
            while time.monotonic() - begun < 8 * 0.25:
                number += 1
                one.touch(id)
                two.touch(id)
                one.remember(id, said(str(number), number))
                await asyncio.gather(one.flush(), two.flush(), one.beat("a", [id]))
            assert (await one.get(id, user="ann")).last_turn == number
            assert (await texts(two, id))[-1] == str(number)


# Hints


async def test_other_processes_hear_at_once_of_what_the_next_beat_would_tell(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with store_on(server) as one, store_on(server) as two:
            looked = asyncio.Event()
            one.listen(looked.set)
            await heard(looked)  # it listens
            id, gone = await talked(one), await talked(one)
            await two.hold(id, node="b")
            await heard(looked)
            assert (await one.beat("a", [id])).taken == {id}
            await two.delete(gone, user="ann")
            await heard(looked)
            assert (await one.beat("a", [gone])).ended == {gone}
            await two.revoke("key", lasts_s=60)
            await heard(looked)
            assert (await one.beat("a", [])).revoked.keys() == {"key"}


async def test_who_listens_does_so_again_when_redis_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tornado_live.sessions.redis.LISTEN_AGAIN_S", 0.01)
    with running(tmp_path) as server:
        async with store_on(server) as one, store_on(server) as two:
            looked = asyncio.Event()
            one.listen(looked.set)
            await heard(looked)
            server.kill()
            server.start()
            await heard(looked)  # whatever was said meanwhile
            await until(two.healthy)
            await two.revoke("key", lasts_s=60)
            await heard(looked)


async def heard(looked: asyncio.Event) -> None:
    async with asyncio.timeout(60):
        await looked.wait()
    looked.clear()


async def test_what_a_lost_and_rewritten_session_costs_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with running(tmp_path) as server:
        async with store_on(server) as store:
            id = await talked(store)
            await flushed(server)
            await store.beat("a", [id])
    [line] = [record for record in caplog.records if getattr(record, "event", "") == "session_rewritten"]
    assert line.fields == {"session": id, "messages": 3}  # type: ignore[attr-defined]
