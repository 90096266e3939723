"""What every session store promises, over each of them: what it keeps, for how long, who holds a session, and what
it does while it cannot be reached."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import PLACES, TTL, Given, Place, opened

from tornado_live.errors import BadMessage, Limited, SessionNotFound, Unavailable
from tornado_live.observe.events import Event
from tornado_live.sessions.store import (
    LISTED,
    Credential,
    Handle,
    Hold,
    MemoryItem,
    News,
    SessionStore,
    Taken,
    clip,
)

QUIET = News(frozenset(), frozenset(), {})
ALONE = Hold(frozenset(), abandoned=False)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


async def created(store: SessionStore, user: str = "ann", node: str | None = None) -> str:
    return (await store.create(user=user, assistant="default", metadata={}, node=node)).id


def said(text: str, turn: int = 1, role: Any = "user") -> MemoryItem:
    return MemoryItem(role, text, turn, 1_800_000_000.0)


async def texts(store: SessionStore, id: str) -> list[str]:
    return [item.text for item in await store.memory(id)]


async def taken(store: SessionStore, counter: str, amount: int, *, limit: int, window_s: float) -> int:
    return (await store.take(counter, amount, limit=limit, window_s=window_s)).amount


def waits_for(*nodes: str, abandoned: bool = False) -> Hold:
    return Hold(frozenset(nodes), abandoned)


# Sessions and their memory


async def test_a_session_is_found_by_its_user_as_it_was_created(place: Place) -> None:
    async with opened(place) as store:
        session = await store.create(
            user="ann", assistant="support", metadata={"ticket": [1, {"a": None}]}, label="Ann"
        )
        assert await store.get(session.id, user="ann") == session
        assert (session.user, session.assistant, session.label) == ("ann", "support", "Ann")
        assert session.metadata == {"ticket": [1, {"a": None}]}
        assert session.expires_at == session.created_at + TTL
        assert (session.message_count, session.usage, session.last_turn) == (0, {}, 0)
        assert (session.handle, session.connected) == (None, False)


async def test_a_resumed_session_comes_with_its_memory(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        store.remember(id, said("Sunny.", role="model"))
        store.remember(id, said("What's the weather?"))
        session, memory = await store.resume(id, user="ann")
        assert session == await store.get(id, user="ann")
        assert [item.text for item in memory] == ["What's the weather?", "Sunny."]


async def test_unknown_foreign_expired_and_deleted_sessions_get_one_answer(place: Place) -> None:
    async with opened(place) as store:
        gone = await created(store)
        await place.pass_time(TTL)
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


async def test_a_restart_loses_nothing(place: Place) -> None:
    handle = Handle("h-1", "i-1", 1.5)
    async with opened(place) as store:
        id = await created(store)
        store.remember(id, said("What's the weather?"))
        store.remember(id, said("Sunny.", role="model"))
        store.record(id, Event(1.5, "turn_ended", {"turn": 1}))
        store.set_usage(id, {"totalTokens": 15})
        store.keep_handle(id, handle)
        store.touch(id)
    async with opened(place) as store:
        session = await store.get(id, user="ann")
        assert (session.message_count, session.usage, session.last_turn) == (2, {"totalTokens": 15}, 1)
        assert session.handle == handle
        assert await texts(store, id) == ["What's the weather?", "Sunny."]
        assert await store.events(id) == [Event(1.5, "turn_ended", {"turn": 1})]


async def test_what_was_flushed_is_there_for_another_process(place: Place) -> None:
    async with opened(place) as store, opened(place) as other:
        id = await created(store)
        store.remember(id, said("kept"))
        await store.flush()
        assert await texts(other, id) == ["kept"]


async def test_a_reader_sees_what_was_queued_before(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        for turn in range(1, 4):
            store.remember(id, said(str(turn), turn))
            assert (await store.get(id, user="ann")).message_count == turn


async def test_queued_writes_are_written_without_being_asked_for(place: Place) -> None:
    async with opened(place) as store, opened(place) as onlooker:
        id = await created(store)
        store.remember(id, said("by itself"))
        async with asyncio.timeout(60):
            while await texts(onlooker, id) != ["by itself"]:
                pass


async def test_memory_keeps_the_newest_messages(place: Place) -> None:
    async with opened(place) as store:
        id, other = await created(store), await created(store)
        store.remember(other, said("untouched"))
        for turn in range(1, 61):
            store.remember(id, said(str(turn), turn))
        assert await texts(store, id) == [str(turn) for turn in range(11, 61)]
        assert (await store.get(id, user="ann")).message_count == 50
        assert await texts(store, other) == ["untouched"]


async def test_memory_keeps_within_its_bytes(place: Place) -> None:
    async with opened(place, memory_bytes=100) as store:
        id = await created(store)
        for turn, text in enumerate(("a" * 60, "ü" * 20, "c" * 60), 1):
            store.remember(id, said(text, turn))
            await store.flush()
        assert await texts(store, id) == ["ü" * 20, "c" * 60]


async def test_a_giant_message_is_cut_and_says_so(place: Place) -> None:
    async with opened(place) as store:
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


async def test_within_a_turn_the_user_comes_first_then_tools_then_the_model(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        for turn in (1, 2):
            for role in ("model", "tool", "user"):
                store.remember(id, said(f"{role} {turn}", turn, role))
        assert await texts(store, id) == ["user 1", "tool 1", "model 1", "user 2", "tool 2", "model 2"]


async def test_a_text_that_utf8_cannot_hold_is_kept_without_the_broken_part(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        store.remember(id, said("a\ud800b"))
        assert await texts(store, id) == ["a?b"]
        assert await store.healthy()


async def test_events_keep_the_newest_in_order(place: Place) -> None:
    async with opened(place, events=3) as store:
        id = await created(store)
        for number in range(5):
            store.record(id, Event(float(number), "tool_finished", {"n": number}))
            if number == 3:
                await store.flush()
        assert [event.data for event in await store.events(id)] == [{"n": 2}, {"n": 3}, {"n": 4}]


async def test_an_event_too_large_keeps_its_small_facts(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        store.record(id, Event(1.0, "tool_finished", {"result": "x" * 9000, "name": "get_weather"}))
        [event] = await store.events(id)
        assert event.data == {"clipped": True, "name": "get_weather"}


async def test_the_highest_turn_is_kept_whoever_names_it(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        store.remember(id, said("hello", 4))
        store.record(id, Event(1.0, "barge_in", {"turn": 6}))
        store.record(id, Event(2.0, "turn_ended", {"turn": 5}))
        assert (await store.get(id, user="ann")).last_turn == 6


async def test_a_handle_takes_the_place_of_the_one_before(place: Place) -> None:
    first, second = Handle("h-1", "identity", 1.5), Handle("h-2", "identity", 2.5)
    async with opened(place) as store, opened(place) as other:
        id = await created(store)
        store.keep_handle(id, first)
        assert (await store.get(id, user="ann")).handle == first
        other.keep_handle(id, second)
        assert [session.handle for session in (await other.list("ann"))[0]] == [second]
        assert (await store.resume(id, user="ann"))[0].handle == second
        store.keep_handle(id, first)
        store.keep_handle(id, None)
        assert (await store.get(id, user="ann")).handle is None


async def test_activity_moves_the_end(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        await place.pass_time(TTL - 100)
        active_at = place.now()
        store.touch(id)
        await store.flush()
        await place.pass_time(TTL - 100)
        session = await store.get(id, user="ann")
        assert session.last_active_at == pytest.approx(active_at, abs=60)
        assert session.expires_at == session.last_active_at + TTL
        await place.pass_time(100)
        with pytest.raises(SessionNotFound):
            await store.get(id, user="ann")


@pytest.mark.proves("F32")
async def test_activity_in_one_process_keeps_a_session_for_all_and_older_activity_does_not_shorten_it(
    place: Place,
) -> None:
    async with opened(place) as one, opened(place, impatient=True) as two:
        id = await created(one, node="a")
        await place.pass_time(TTL - 400)
        with place.cut():  # so that it is written after the next one
            two.touch(id)
            with pytest.raises(Unavailable):
                await two.flush()
        await place.pass_time(300)
        one.touch(id)
        await one.flush()
        await two.flush()
        assert await one.beat("a", [id]) == QUIET
        await place.pass_time(TTL - 100)
        async with opened(place) as new:  # and starting removes what has ended
            for store in (one, two, new):
                assert (await store.get(id, user="ann")).id == id
        assert await one.beat("a", [id]) == QUIET


async def test_an_ended_session_is_not_brought_back_by_late_activity(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        await place.pass_time(TTL)
        store.touch(id)
        store.remember(id, said("late"))
        store.keep_handle(id, Handle("late", "", 1.0))
        store.attend(id, node="a", connected=True)
        with pytest.raises(SessionNotFound):
            await store.get(id, user="ann")


async def test_writes_for_a_deleted_session_do_nothing(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
        store.remember(id, said("before"))
        await store.delete(id, user="ann")
        store.remember(id, said("after"))
        store.record(id, Event(1.0, "turn_ended", {}))
        store.touch(id)
        store.set_usage(id, {})
        store.keep_handle(id, Handle("after", "", 1.0))
        store.attend(id, node="a", connected=True)
        store.release(id, node="a")
        await store.flush()
        assert await store.memory(id) == []
        assert await store.events(id) == []
        assert await store.list("ann") == ([], None)
        assert await store.healthy()


async def test_a_list_shows_the_users_own_newest_first_page_by_page(place: Place) -> None:
    async with opened(place) as store:
        ids = []
        for number in range(5):
            ids.append(await created(store))
            await created(store, "bob")
            await place.pass_time(number % 2)  # two share their second
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
async def test_a_place_that_is_none_is_a_bad_message(place: Place, after: str) -> None:
    async with opened(place) as store:
        with pytest.raises(BadMessage):
            await store.list("ann", after=after)


async def test_two_processes_write_to_one_memory(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one)
        for turn in range(1, 21):
            (one if turn % 2 else two).remember(id, said(str(turn), turn))
        await asyncio.gather(one.flush(), two.flush())
        assert await texts(one, id) == await texts(two, id) == [str(turn) for turn in range(1, 21)]
        await two.delete(id, user="ann")
        with pytest.raises(SessionNotFound):
            await one.get(id, user="ann")


async def test_after_close_nothing_is_promised(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store)
    store.touch(id)
    with pytest.raises(Unavailable):
        await store.get(id, user="ann")
    assert not await store.healthy()
    await store.close()


# A store that cannot be reached


async def test_what_was_said_while_the_store_was_away_is_written_in_its_order(place: Place) -> None:
    async with opened(place, impatient=True) as store, opened(place) as other:
        id = await created(store)
        with place.cut():
            for turn in (1, 2, 3):
                store.set_usage(id, {"totalTokens": turn})
                store.record(id, Event(float(turn), "tool_finished", {"n": turn}))
                store.remember(id, said(f"user {turn}", turn))
                store.keep_handle(id, Handle(f"h-{turn}", "", float(turn)))
                with pytest.raises(Unavailable):  # each time it is tried, and what follows waits behind it
                    await store.flush()
        await store.flush()
        assert await texts(other, id) == ["user 1", "user 2", "user 3"]
        assert [event.data["n"] for event in await other.events(id)] == [1, 2, 3]
        session = await other.get(id, user="ann")
        assert (session.usage, session.last_turn) == ({"totalTokens": 3}, 3)
        assert session.handle == Handle("h-3", "", 3.0)


async def test_what_changes_a_store_that_is_away_is_refused_and_it_is_not_healthy(place: Place) -> None:
    async with opened(place, impatient=True) as store:
        id = await created(store)
        with place.cut():
            assert not await store.healthy()
            for refused in (
                store.create(user="ann", assistant="default", metadata={}, node="a"),
                store.hold(id, node="a"),
                store.beat("a", [id]),
                store.take("calls", 1, limit=9, window_s=60),
                store.occupy("talks", "s-1", limit=9, lasts_s=60),
                store.drop_credential("secret"),
                store.revoke("key-1", lasts_s=60),
                store.keep_credential("secret", uses=1, expires_at=place.now() + 60, body={}),
                store.delete(id, user="ann"),
            ):
                with pytest.raises(Unavailable):
                    await refused
        assert await store.healthy()
        assert (await store.get(id, user="ann")).id == id


async def test_a_store_that_is_back_is_used_without_being_asked_for(place: Place) -> None:
    async with opened(place, impatient=True) as store, opened(place) as onlooker:
        id = await created(store)
        with place.cut():
            store.remember(id, said("patient"))
            with pytest.raises(Unavailable):
                await store.flush()
        async with asyncio.timeout(60):
            while await texts(onlooker, id) != ["patient"]:
                pass


async def test_a_queue_that_cannot_drain_drops_events_before_messages(place: Place) -> None:
    async with opened(place, impatient=True, waiting=6) as store:
        id = await created(store, node="a")
        with place.cut():
            store.remember(id, said("1", 1))
            for number in range(3):
                store.record(id, Event(float(number), "x", {}))
            with pytest.raises(Unavailable):
                await store.flush()
            store.remember(id, said("2", 2))
            store.remember(id, said("3", 3))
            store.keep_handle(id, Handle("h-1", "", 1.0))
            store.release(id, node="a")
        assert await texts(store, id) == ["1", "2", "3"]
        assert [event.at for event in await store.events(id)] == [2.0]
        assert (await store.get(id, user="ann")).handle == Handle("h-1", "", 1.0)
        assert await store.hold(id, node="b") == ALONE


async def test_activity_while_the_store_is_away_still_keeps_its_session(place: Place) -> None:
    async with opened(place, impatient=True) as store:
        id = await created(store)
        with place.cut():
            store.remember(id, said("first, and tried"))
            with pytest.raises(Unavailable):
                await store.flush()
            store.touch(id)
        await store.flush()
        await place.pass_time(TTL - 100)
        assert (await store.get(id, user="ann")).id == id


# Who holds a session


async def test_whoever_creates_a_session_may_hold_it_from_the_start(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        held, free = await created(one, node="a"), await created(one)
        assert await one.beat("a", [held]) == QUIET
        assert await two.hold(held, node="b") == waits_for("a")
        assert await two.hold(free, node="b") == ALONE


@pytest.mark.proves("F20")
async def test_a_session_that_is_taken_is_written_to_the_end_before_it_is_let_go(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        assert await two.hold(id, node="b") == waits_for("a")
        one.remember(id, said("the last words"))
        one.record(id, Event(1.0, "client_gone", {}))
        one.keep_handle(id, Handle("h-1", "", 1.0))
        assert await two.leaving(id, node="b") == waits_for("a")
        one.release(id, node="a")
        async with asyncio.timeout(60):
            while (await two.leaving(id, node="b")).leaving:
                pass
        assert await two.leaving(id, node="b") == ALONE
        session, memory = await two.resume(id, user="ann")
        assert [item.text for item in memory] == ["the last words"]
        assert session.handle == Handle("h-1", "", 1.0)
        assert await two.beat("b", [id]) == QUIET


async def test_a_session_that_was_let_go_leaves_nobody_to_wait_for(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        one.remember(id, said("said"))
        one.release(id, node="a")
        await one.flush()
        assert await two.hold(id, node="b") == ALONE
        assert await texts(two, id) == ["said"]


@pytest.mark.proves("F20")
async def test_of_many_who_take_a_session_at_once_the_last_has_it_and_the_others_hear_of_it(
    place: Place,
) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one)
        nodes = [f"node {number}" for number in range(10)]
        found = await asyncio.gather(
            *(store.hold(id, node=node) for node, store in zip(nodes, (one, two) * 5, strict=True))
        )
        assert sorted(len(hold.leaving) for hold in found) == list(range(10))
        assert {hold.abandoned for hold in found} == {False}
        (last,) = [node for node, hold in zip(nodes, found, strict=True) if hold.leaving == {*nodes} - {node}]
        for node in nodes:
            assert (await one.beat(node, [id])).taken == (set() if node == last else {id})


async def test_who_takes_a_session_back_waits_for_the_other_and_not_for_itself(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        await two.hold(id, node="b")
        assert await one.hold(id, node="a") == waits_for("b")
        assert (await two.beat("b", [id])).taken == {id}
        assert (await one.beat("a", [id])) == QUIET


async def test_a_holder_that_holds_again_changes_nothing(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        await two.hold(id, node="b")
        two.attend(id, node="b", connected=True)
        assert await two.hold(id, node="b") == waits_for("a")
        assert (await two.get(id, user="ann")).connected


async def test_who_had_a_session_and_died_has_abandoned_it(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        await place.pass_time(place.node_life_s + 1)
        assert await two.hold(id, node="b") == waits_for(abandoned=True)
        assert await two.hold(id, node="b") == waits_for(abandoned=True)
        assert await two.leaving(id, node="b") == waits_for(abandoned=True)
        assert await two.hold(id, node="c") == waits_for("b")


async def test_who_dies_while_it_is_waited_for_has_abandoned_the_session(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        assert await two.hold(id, node="b") == waits_for("a")
        await place.pass_time(place.node_life_s + 1)
        await two.beat("b", [id])
        assert await two.leaving(id, node="b") == waits_for(abandoned=True)


async def test_a_death_that_nobody_was_told_of_is_told_to_the_next(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        await two.hold(id, node="b")
        await place.pass_time(place.node_life_s + 1)
        await two.beat("b", [id])
        assert await two.hold(id, node="c") == waits_for("b", abandoned=True)


async def test_who_was_taken_for_dead_and_lives_is_waited_for_again_and_hears_what_it_lost(
    place: Place,
) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        await place.pass_time(place.node_life_s + 1)
        assert await two.hold(id, node="b") == waits_for(abandoned=True)
        assert (await one.beat("a", [id])).taken == {id}
        assert await two.leaving(id, node="b") == waits_for("a")
        assert await two.hold(id, node="c") == waits_for("a", "b")
        one.release(id, node="a")
        await one.flush()
        assert await two.leaving(id, node="c") == waits_for("b")


async def test_beats_keep_a_node_alive(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")
        for _ in range(3):
            await place.pass_time(place.node_life_s / 2)
            assert await one.beat("a", [id]) == QUIET
        assert await two.hold(id, node="b") == waits_for("a")


async def test_nobody_waits_for_a_node_that_left_in_order(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        held, taken = await created(one, node="a"), await created(one, node="a")
        await two.hold(taken, node="b")
        one.attend(held, node="a", connected=True)
        one.remember(held, said("the last words"))
        await one.leave("a")
        assert await two.leaving(taken, node="b") == ALONE
        assert await two.hold(held, node="b") == ALONE
        assert await texts(two, held) == ["the last words"]
        assert not (await two.get(held, user="ann")).connected


async def test_only_a_session_that_there_is_can_be_held(place: Place) -> None:
    async with opened(place) as store:
        ended = await created(store)
        await place.pass_time(TTL)
        deleted = await created(store)
        await store.delete(deleted, user="ann")
        for id in (ended, deleted, "nothing", ""):
            with pytest.raises(SessionNotFound):
                await store.hold(id, node="a")


async def test_a_session_is_connected_where_its_holder_says_so_and_lives(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        id = await created(one, node="a")

        async def connected() -> bool:
            await one.flush()
            await two.flush()
            [listed], _ = await two.list("ann")
            assert listed == await two.get(id, user="ann")
            return listed.connected

        assert not await connected()
        two.attend(id, node="b", connected=True)
        assert not await connected()
        one.attend(id, node="a", connected=True)
        assert await connected()
        two.attend(id, node="b", connected=False)
        assert await connected()
        await two.hold(id, node="b")
        assert not await connected()
        two.attend(id, node="b", connected=True)
        one.attend(id, node="a", connected=False)
        one.release(id, node="a")
        assert await connected()
        await place.pass_time(place.node_life_s + 1)
        assert not await connected()
        await two.beat("b", [id])
        assert await connected()
        two.release(id, node="b")
        assert not await connected()


async def test_a_beat_tells_which_sessions_have_ended(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        old = await created(one, node="a")
        await place.pass_time(TTL - 100)
        new, deleted = await created(one, node="a"), await created(one, node="a")
        assert await one.beat("a", [old, new, deleted]) == QUIET
        await two.delete(deleted, user="ann")
        await place.pass_time(100)
        news = await one.beat("a", [old, new, deleted])
        assert news == News(frozenset(), frozenset({old, deleted}), {})


async def test_a_beat_sees_the_activity_that_was_queued_before(place: Place) -> None:
    async with opened(place) as store:
        id = await created(store, node="a")
        await place.pass_time(TTL - 100)
        store.touch(id)
        assert await store.beat("a", [id]) == QUIET
        await place.pass_time(100)
        assert await store.beat("a", [id]) == QUIET


async def test_a_beat_tells_of_many_sessions(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        ids = [await created(one, node="a") for _ in range(50)]
        await asyncio.gather(*(two.hold(id, node="b") for id in ids[:25]))
        assert await one.beat("a", ids) == News(frozenset(ids[:25]), frozenset(), {})
        assert await two.beat("b", ids[:25]) == QUIET


# Revocations


async def test_every_node_hears_of_a_revocation_once(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await one.beat("a", []) == await two.beat("b", []) == QUIET
        await one.revoke("key-1", lasts_s=600)
        for store, node in ((one, "a"), (two, "b")):
            assert (await store.beat(node, [])).revoked.keys() == {"key-1"}
            assert (await store.beat(node, [])) == QUIET
        await two.revoke("key-2", lasts_s=600)
        await two.revoke("key-1", lasts_s=600)
        for store, node in ((one, "a"), (two, "b")):
            assert (await store.beat(node, [])).revoked.keys() == {"key-1", "key-2"}


async def test_a_node_that_starts_hears_of_the_revocations_that_last(place: Place) -> None:
    async with opened(place) as one:
        await one.revoke("short", lasts_s=100)
        await one.revoke("long", lasts_s=1000)
        await place.pass_time(100)
        async with opened(place) as two:
            assert (await two.beat("b", [])).revoked == {"long": pytest.approx(900, abs=60)}


async def test_a_revocation_is_never_shortened_and_may_be_lengthened(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        for lasts_s, left_s in ((600, 600), (60, 600), (1000, 1000)):
            await one.revoke("key-1", lasts_s=lasts_s)
            for store, node in ((one, "a"), (two, "b")):
                assert (await store.beat(node, [])).revoked == {"key-1": pytest.approx(left_s, abs=60)}


# Counters


async def test_a_counter_gives_what_is_left_of_its_limit(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await taken(one, "calls", 4, limit=10, window_s=600) == 4
        assert await taken(two, "calls", 4, limit=10, window_s=600) == 4
        assert await taken(one, "calls", 4, limit=10, window_s=600) == 2
        assert await taken(two, "calls", 4, limit=10, window_s=600) == 0
        assert await taken(two, "other calls", 4, limit=10, window_s=600) == 4
        assert await taken(two, "calls", 4, limit=12, window_s=600) == 2
        assert await taken(two, "calls", 4, limit=5, window_s=600) == 0


async def test_a_counters_window_begins_with_its_first_take_and_ends(place: Place) -> None:
    async with opened(place) as store:
        assert await taken(store, "calls", 3, limit=5, window_s=600) == 3
        await place.pass_time(300)
        assert await taken(store, "calls", 3, limit=5, window_s=600) == 2
        await place.pass_time(300)
        assert await taken(store, "calls", 9, limit=5, window_s=600) == 5


async def test_what_is_given_back_can_be_taken_again(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await taken(one, "calls", 5, limit=5, window_s=600) == 5
        one.give_back("calls", 1)
        one.give_back("calls", 1)
        await one.flush()
        assert await taken(two, "calls", 5, limit=5, window_s=600) == 2
        two.give_back("calls", 100)
        assert await taken(two, "calls", 100, limit=5, window_s=600) == 5


async def test_of_fifty_takes_at_once_no_more_than_the_limit_is_given(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        got = await asyncio.gather(
            *(taken(store, "calls", 3, limit=100, window_s=600) for store in (one, two) * 25)
        )
        assert sorted(got) == [0] * 16 + [1] + [3] * 33


async def test_a_take_tells_what_is_left_and_when_the_window_ends(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:

        async def take(store: SessionStore, amount: int, limit: int = 10) -> Taken:
            return await store.take("calls", amount, limit=limit, window_s=600)

        assert await take(one, 0) == Taken(0, 10, pytest.approx(600, abs=60))
        assert await take(one, 4) == Taken(4, 6, pytest.approx(600, abs=60))
        await place.pass_time(200)
        assert await take(two, 4) == Taken(4, 2, pytest.approx(400, abs=60))
        assert await take(two, 4) == Taken(2, 0, pytest.approx(400, abs=60))
        assert await take(one, 4) == Taken(0, 0, pytest.approx(400, abs=60))
        assert await take(one, 1, limit=5) == Taken(0, 0, pytest.approx(400, abs=60))
        one.give_back("calls", 3)
        assert await take(one, 0) == Taken(0, 3, pytest.approx(400, abs=60))
        await place.pass_time(400)
        assert await take(two, 1) == Taken(1, 9, pytest.approx(600, abs=60))


# Places


async def occupied(store: SessionStore, place: str, limit: int = 2, lasts_s: float = 600) -> bool:
    return await store.occupy("talks", place, limit=limit, lasts_s=lasts_s)


async def test_no_more_places_are_taken_than_there_are_in_whichever_process(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await occupied(one, "a")
        assert await occupied(two, "b")
        assert not await occupied(one, "c")
        assert not await occupied(two, "c")
        assert await two.occupy("other talks", "c", limit=2, lasts_s=600)
        assert await occupied(two, "c", limit=3)


async def test_of_fifty_who_want_places_at_once_as_many_get_one_as_there_are(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        got = await asyncio.gather(
            *(occupied(store, f"{number}", limit=7) for number, store in enumerate((one, two) * 25))
        )
        assert sorted(got) == [False] * 43 + [True] * 7


async def test_whoever_has_a_place_keeps_it_and_lengthens_its_time_whatever_the_limit(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await occupied(one, "a")
        assert await occupied(one, "b")
        await place.pass_time(400)
        assert await occupied(two, "a", limit=0)
        assert not await occupied(two, "c")
        await place.pass_time(300)
        assert await occupied(two, "c")
        assert not await occupied(two, "b")
        assert not await occupied(two, "c2")


async def test_a_place_whose_time_is_over_is_free_and_no_longer_its_own(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await occupied(one, "a", limit=1)
        await place.pass_time(600)
        assert await occupied(two, "b", limit=1)
        assert not await occupied(one, "a", limit=1)


async def test_a_place_that_was_vacated_is_free_before_its_time(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await occupied(one, "a", limit=1)
        one.vacate("talks", "a")
        one.vacate("talks", "a")
        one.vacate("no talks", "a")
        await one.flush()
        assert await occupied(two, "b", limit=1)
        assert not await occupied(one, "a", limit=1)


async def test_only_the_process_that_occupied_a_place_last_vacates_it(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        assert await occupied(one, "a", limit=1)
        assert await occupied(two, "a", limit=1), "its session goes on in another process"
        one.vacate("talks", "a")
        await one.flush()
        assert not await occupied(one, "b", limit=1)
        two.vacate("talks", "a")
        await two.flush()
        assert await occupied(one, "b", limit=1)


async def test_who_comes_back_to_a_place_does_not_lose_it_by_what_was_queued_before(place: Place) -> None:
    async with opened(place, impatient=True) as one, opened(place) as two:
        assert await occupied(one, "a", limit=1)
        with place.cut():
            one.vacate("talks", "a")
            with pytest.raises(Unavailable):
                await one.flush()
        assert await occupied(one, "a", limit=1)
        await one.flush()
        assert not await occupied(two, "b", limit=1)


async def test_places_survive_a_restart(place: Place) -> None:
    async with opened(place) as store:
        assert await occupied(store, "a", limit=1)
    async with opened(place) as store:
        assert not await occupied(store, "b", limit=1)


# Credentials


async def test_a_credential_is_good_for_so_many_uses_and_tells_what_was_kept(place: Place) -> None:
    body: dict[str, Any] = {"session": "s-1", "setup": {"model": "models/a", "tools": [None, 1.5]}}
    async with opened(place) as store:
        await store.keep_credential("secret", uses=2, expires_at=place.now() + 600, body=body)
        assert await store.use_credential("secret", spend=False) == Credential(body, "good")
        states = [await store.use_credential("secret") for _ in range(3)]
        assert states == [Credential(body, "good"), Credential(body, "good"), Credential(body, "used_up")]
        assert await store.use_credential("secret", spend=False) == Credential(body, "used_up")
        assert await store.use_credential("another") is None
        assert await store.use_credential("\ud800") is None


async def test_of_fifty_at_once_only_one_spends_the_last_use(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        await one.keep_credential("secret", uses=1, expires_at=place.now() + 600, body={})
        found = await asyncio.gather(*(store.use_credential("secret") for store in (one, two) * 25))
        states = [each.state for each in found if each is not None]
        assert sorted(states) == ["good"] + ["used_up"] * 49


async def test_a_credential_without_a_number_of_uses_lasts_until_it_expires(place: Place) -> None:
    async with opened(place) as store:
        await store.keep_credential("secret", uses=None, expires_at=place.now() + 600, body={})
        for _ in range(5):
            assert await store.use_credential("secret") == Credential({}, "good")
        await place.pass_time(600)
        assert await store.use_credential("secret") in (Credential({}, "expired"), None)


@pytest.mark.proves("F36")
@pytest.mark.parametrize("seconds", [86400, -86400])
async def test_a_credential_that_is_kept_after_a_jump_lasts_as_long_as_any(
    place: Place, seconds: float
) -> None:
    async with opened(place) as store:
        place.jump(seconds)
        await store.keep_credential("secret", uses=None, expires_at=place.now() + 600, body={})
        await place.pass_time(500)
        assert await store.use_credential("secret") == Credential({}, "good")
        await place.pass_time(100)
        assert await store.use_credential("secret") in (Credential({}, "expired"), None)


async def test_a_credential_tells_how_far_it_is_from_its_end(place: Place) -> None:
    async with opened(place) as store:
        await store.keep_credential("secret", uses=None, expires_at=place.now() + 600, body={})
        for left_s, jump in ((600, 0), (500, 86400), (400, -86400)):
            place.jump(jump)
            found = await store.use_credential("secret")
            assert found is not None
            assert left_s - 60 < found.left_s <= left_s
            await place.pass_time(100)


async def test_a_credential_kept_again_is_replaced(place: Place) -> None:
    async with opened(place) as store:
        for n in (1, 2):
            await store.keep_credential(
                "secret", uses=1, expires_at=place.now() + 600, body={"n": n}, kind="k", at_most=1
            )
            assert await store.use_credential("secret") == Credential({"n": n}, "good")


async def test_credentials_survive_a_restart_with_the_uses_that_are_left(place: Place) -> None:
    async with opened(place) as store:
        await store.keep_credential("secret", uses=2, expires_at=place.now() + 600, body={"a": 1})
        await store.use_credential("secret")
    async with opened(place) as store:
        assert await store.use_credential("secret") == Credential({"a": 1}, "good")
        assert await store.use_credential("secret") == Credential({"a": 1}, "used_up")


async def test_no_more_than_so_many_live_credentials_of_a_kind_are_kept(place: Place) -> None:
    async with opened(place) as store:

        async def keep(name: str, kind: str = "token", at_most: int | None = 2) -> None:
            end = place.now() + 600
            await store.keep_credential(name, uses=1, expires_at=end, body={}, kind=kind, at_most=at_most)

        await keep("handle", "handle", None)
        await keep("one")
        await place.pass_time(100)
        await keep("two")
        with pytest.raises(Limited) as refused:
            await keep("three")
        assert refused.value.retry_after_ms is not None
        assert 440_000 <= refused.value.retry_after_ms <= 500_000
        assert await store.use_credential("three") is None
        await keep("another handle", "handle", None)
        await place.pass_time(500)
        await keep("three")
        assert await store.use_credential("three") == Credential({}, "good")


async def test_a_credential_may_be_for_good(place: Place) -> None:
    async with opened(place) as store:
        await store.keep_credential("key:1", uses=None, expires_at=None, body={"n": 1}, kind="key")
        await store.keep_credential("short", uses=None, expires_at=place.now() + 600, body={}, kind="key")
        await place.pass_time(400 * 86400)
    async with opened(place) as store:
        found = await store.use_credential("key:1")
        assert found == Credential({"n": 1}, "good")
        assert found.left_s == math.inf
        assert [kept.left_s for kept in await store.credentials("key")] == [None]
        await store.keep_credential("key:1", uses=1, expires_at=place.now() + 600, body={"n": 2}, kind="key")
        assert await store.use_credential("key:1") == Credential({"n": 2}, "good")
        assert await store.use_credential("key:1") == Credential({"n": 2}, "used_up")
        await place.pass_time(600)
        assert await store.use_credential("key:1") in (Credential({"n": 2}, "expired"), None)
        assert await store.credentials("key") == []


async def test_what_would_have_expired_may_be_kept_for_good(place: Place) -> None:
    async with opened(place) as store:
        for end in (place.now() + 600, None):
            await store.keep_credential("key:1", uses=None, expires_at=end, body={}, kind="key", at_most=1)
        await place.pass_time(86400)
        assert await store.use_credential("key:1") == Credential({}, "good")
        with pytest.raises(Limited) as refused:
            await store.keep_credential("key:2", uses=None, expires_at=None, body={}, kind="key", at_most=1)
        assert refused.value.retry_after_ms is None
        assert "revoked" in refused.value.message


async def test_credentials_of_a_kind_are_listed_oldest_first_without_their_names(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        for number, end in enumerate((None, place.now() + 600, None, place.now() + 100, place.now() + 900)):
            store = (one, two)[number % 2]
            await store.keep_credential(
                f"key:{number}", uses=None, expires_at=end, body={"n": number}, kind="key"
            )
            await store.keep_credential(
                f"ticket:{number}", uses=1, expires_at=place.now() + 60, body={}, kind="ticket"
            )
        await place.pass_time(100)
        digests = [hashlib.sha256(f"key:{number}".encode()).hexdigest() for number in (0, 1, 2, 4)]
        for store in (one, two):
            listed = await store.credentials("key")
            assert [kept.body["n"] for kept in listed] == [0, 1, 2, 4]
            assert [kept.name_digest_hex for kept in listed] == digests
            ends = [math.inf if kept.left_s is None else kept.left_s for kept in listed]
            assert ends == [math.inf, pytest.approx(500, abs=60), math.inf, pytest.approx(800, abs=60)]
            assert await store.credentials("ticket") == []
            assert await store.credentials("nothing") == []


async def test_a_credential_that_was_dropped_is_unknown_in_every_process(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        for name, end in (("key:1", None), ("key:2", place.now() + 600), ("old", place.now() + 60)):
            await one.keep_credential(name, uses=None, expires_at=end, body={}, kind="key", at_most=3)
        await place.pass_time(60)
        assert [await two.drop_credential(name) for name in ("key:1", "key:1", "old", "new", "\ud800")] == [
            True,
            False,
            False,
            False,
            False,
        ]
        for store in (one, two):
            assert await store.use_credential("key:1") is None
            assert await store.use_credential("key:2") == Credential({}, "good")
            assert len(await store.credentials("key")) == 1
        await one.keep_credential("key:3", uses=None, expires_at=None, body={}, kind="key", at_most=2)
        await place.pass_time(600)
        assert [kept.body for kept in await two.credentials("key")] == [{}]


async def test_no_more_than_a_thousand_credentials_are_listed(place: Place) -> None:
    async with opened(place) as store:
        await asyncio.gather(
            *(
                store.keep_credential(f"{n}", uses=1, expires_at=place.now() + 600, body={"n": n}, kind="k")
                for n in range(LISTED + 1)
            )
        )
        assert len(await store.credentials("k")) == LISTED


# The wall clock


@pytest.mark.proves("F36")
@pytest.mark.parametrize("seconds", [3600, -3600, 86400, -86400])
async def test_a_wall_clock_that_jumps_ends_nothing_and_keeps_nothing(place: Place, seconds: float) -> None:
    """A conversation is touched all the while, beside a session, a credential, a revocation and a counter."""
    async with opened(place) as store, opened(place) as other:
        talking, idle = await created(store, node="a"), await created(store)
        await store.keep_credential("secret", uses=None, expires_at=place.now() + TTL, body={})
        await store.revoke("key-1", lasts_s=TTL)
        assert await taken(store, "calls", 1, limit=1, window_s=TTL) == 1
        for part in (300, TTL - 400):
            place.jump(seconds)
            store.touch(talking)
            news = await store.beat("a", [talking])
            assert (news.taken, news.ended) == (frozenset(), frozenset())
            assert set(news.revoked) == ({"key-1"} if part == 300 else set())
            assert await other.hold(talking, node="b") == waits_for("a")
            assert await store.hold(talking, node="a") == waits_for("b")
            other.release(talking, node="b")
            await other.flush()
            await place.pass_time(part)
            store.touch(talking)
            await store.flush()
            async with opened(place) as new:  # one that starts behind the jump has the same time
                for each in (store, other, new):
                    assert (await each.get(idle, user="ann")).id == idle
                    assert await each.use_credential("secret") == Credential({}, "good")
                    assert await taken(each, "calls", 1, limit=1, window_s=TTL) == 0
                assert (await new.beat("c", [])).revoked.keys() == {"key-1"}
        assert (await other.get(talking, user="ann")).last_active_at == pytest.approx(place.now(), abs=60)
        await place.pass_time(100)
        async with opened(place) as new:
            for each in (store, other, new):
                assert (await each.get(talking, user="ann")).id == talking
                with pytest.raises(SessionNotFound):
                    await each.get(idle, user="ann")
                assert await each.use_credential("secret") in (Credential({}, "expired"), None)
            assert await new.beat("d", []) == QUIET
            assert await taken(new, "calls", 1, limit=1, window_s=TTL) == 1
