"""Records that nobody of ours wrote: whatever is in Redis, it is a valid value or an unknown session."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis_server import NEEDS_REDIS, running

from tornado_live.errors import SessionNotFound, Unavailable
from tornado_live.observe.events import Event, rfc3339
from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.redis_records import (
    Unreadable,
    about_text,
    activity_text,
    body_of,
    event_of,
    event_text,
    handle_text,
    item_of,
    item_text,
    session_of,
)
from tornado_live.sessions.store import Credential, Handle, MemoryItem, Session

USER = "ann"
NOTHING = object()
SESSION = Session(
    "s-1", USER, {"ticket": [1, {"a": None}]}, "default", 1.5, 2.5, 3.5, 2, {"totalTokens": 3}, 4, "Ann"
)


def fields(**changed: object) -> list[object]:
    known = {
        "about": about_text(SESSION).encode(),
        "active": activity_text(2.5, 3.5).encode(),
        "turn": b"4",
        "usage": b'{"totalTokens":3}',
        "handle": None,
        "connected": 0,
        "messages": 2,
    }
    return list((known | changed).values())


def test_what_was_written_is_read_as_it_was() -> None:
    assert session_of("s-1", fields()) == SESSION
    handle = Handle("h ü", "i", 1.25)
    assert session_of("s-1", fields(handle=handle_text(handle).encode())).handle == handle
    item = MemoryItem("tool", "Grüße \u2028 🎉", 3, 1.25)
    assert item_of(item_text(item).encode()) == item
    event = Event(1.25, "turn", {"turn": 1, "nested": [None, True, 1.5, "ü"]})
    assert event_of(event_text(event.at, event.kind, json.dumps(event.data)).encode()) == event


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[1,2",
        b'[1,"user","a",1,1e400]',
        b'[1,"user","a",1,NaN]',
        b'[1,"user","a",1,-1]',
        b'[1,"user","a",1,1e15]',
        b'[1,"user","a",1.5,1]',
        b'[1,"user","a",99999999999999999999,1]',
        b'[1,"system","a",1,1]',
        b'[1,"user",null,1,1]',
        b'[1,"user","\\ud800",1,1]',
        b'[1,"user","a",1,1,"more"]',
        b'["1","user","a",1,1]',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
    ids=range(18),
)
def test_a_message_that_is_none_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        item_of(text)
    assert str(refused.value) == "memory"


@pytest.mark.parametrize(
    "changed",
    [
        {"about": None},
        {"about": b"{}"},
        {"about": b'{"user":"ann","assistant":"a","metadata":[],"label":"","created_at":1}'},
        {"about": b'{"user":"ann","assistant":"a","metadata":{},"label":"","created_at":"yesterday"}'},
        {"about": b'{"user":"ann","assistant":"a","metadata":{"a":1e999},"label":"","created_at":1}'},
        {"active": None},
        {"active": b"[1]"},
        {"active": b"[1,null]"},
        {"turn": b"-1"},
        {"turn": b"four"},
        {"usage": b"[]"},
        {"handle": b'{"value":"v"}'},
        {"handle": b'{"value":"\\udfff","identity":"i","at":1}'},
        {"connected": None},
        {"messages": None},
    ],
    ids=str,
)
def test_a_session_that_is_none_is_unreadable(changed: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        session_of("s-1", fields(**changed))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
TEXTS = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@given(TEXTS)
def test_any_bytes_are_a_record_or_unreadable(text: bytes) -> None:
    for read in (item_of, event_of, body_of):
        try:
            read(text)
        except Unreadable:
            pass


@given(st.permutations([0, 1, 2, 3, 4, 5, 6]).map(lambda order: order[:2]), TEXTS | st.none() | st.integers())
def test_any_field_of_a_session_may_be_anything(places: list[int], value: object) -> None:
    changed = fields()
    for place in places:
        changed[place] = value
    try:
        session = session_of("s-1", changed)
    except Unreadable:
        return
    assert_valid(session)


def assert_valid(session: Session) -> None:
    """What handlers do with it must not fail."""
    for at in (session.created_at, session.last_active_at, session.expires_at):
        assert math.isfinite(at)
        rfc3339(at)
    json.dumps([session.metadata, session.usage, session.user, session.label], allow_nan=False)
    assert session.last_turn >= 0
    if session.handle is not None:
        (session.handle.value + session.handle.identity).encode()


# The same in a real Redis, by all that a store is asked.

MUTATIONS = 1000
HASHES = {
    "s": ("about", "active", "turn", "usage", "handle", "user", "bytes", "holder", "holds", "connected"),
    "c": ("body", "uses", "kind", "at", "forever"),
    "store": ("born", "revocations"),
    "t": ("taken",),
    "w": ("place",),
}
KINDS = (
    [("field", key, name) for key, names in HASHES.items() for name in names]
    + [("field", "s", "had:\udcff"), ("field", "s", "had:somebody"), ("field", "s", "by:")]
    + [
        ("type", key, "")
        for key in ("s", "m", "e", "d", "u", "c", "k", "n", "t", "o", "w", "revoked", "store")
    ]
    + [("item", key, "") for key in ("m", "e")]
    + [("member", key, "") for key in ("u", "k", "o", "revoked")]
)


def noise(chance: random.Random, before: bytes | None) -> bytes:
    """Something else than what was there, and often nearly the same."""
    choice = chance.randrange(6)
    if choice == 0 or not before:
        return chance.randbytes(chance.randrange(40))
    if choice == 1:
        cut = chance.randrange(len(before) + 1)
        return before[:cut]
    if choice == 2:
        changed = bytearray(before)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    if choice == 3:
        return chance.choice(
            [b"0", b"-1", b"1e400", b"nan", b"inf", b"null", b"[]", b"{}", b'""', b"1" * 5000, b"[" * 5000]
        )
    if choice == 4:
        return before + before
    return before.replace(b":", b",", 1).replace(b"1", b"-1", 1)


class Fuzzed:
    """One session, credential and counter in Redis, with one thing in it that is not as it was."""

    def __init__(self, client: Any, chance: random.Random, id: str, prefix: str) -> None:
        self.client = client
        self.chance = chance
        self.id = id
        self.prefix = prefix

    def keys(self, part: str) -> list[bytes]:
        if part in ("s", "m", "e", "d"):
            return [f"{self.prefix}{{{self.id}}}:{part}".encode()]
        if part in ("store", "revoked"):
            return [f"{self.prefix}{part}".encode()]
        return sorted(self.client.keys(f"{self.prefix}{part}:*")) or [f"{self.prefix}{part}:x".encode()]

    def mutate(self) -> str:
        what, part, name = self.chance.choice(KINDS)
        for key in self.keys(part):
            getattr(self, f"_{what}")(key, name.encode("utf-8", "surrogateescape"))
        return f"{what} {part} {name!r}"

    def _field(self, key: bytes, name: bytes) -> None:
        if self.chance.randrange(8) == 0:
            self.client.hdel(key, name)
        else:
            self.client.hset(key, name, noise(self.chance, self.client.hget(key, name)))

    def _type(self, key: bytes, _: bytes) -> None:
        self.client.delete(key)
        match self.chance.randrange(4):
            case 0:
                self.client.set(key, "x")
            case 1:
                self.client.rpush(key, "x")
            case 2:
                self.client.hset(key, "x", "x")
            case _:
                self.client.zadd(key, {"x": 1})

    def _item(self, key: bytes, _: bytes) -> None:
        place = self.chance.randrange(self.client.llen(key))
        self.client.lset(key, place, noise(self.chance, self.client.lindex(key, place)))

    def _member(self, key: bytes, _: bytes) -> None:
        found = self.client.zrange(key, 0, -1)
        self.client.zadd(key, {noise(self.chance, found[0] if found else None): 2})


@pytest.mark.proves("F31")
@pytest.mark.skipif(NEEDS_REDIS.args[0], reason=NEEDS_REDIS.kwargs["reason"])
async def test_a_thousand_broken_records_are_unknown_sessions_or_valid_values(tmp_path: Path) -> None:
    chance = random.Random(31)
    with running(tmp_path) as server, server.client() as client:
        store = RedisSessionStore(server.url, prefix="x:", ttl_s=1800, deadline_s=30.0, node_life_s=60.0)
        try:
            for number in range(MUTATIONS):
                client.flushall()
                id = (await store.create(user=USER, assistant="a", metadata={"a": 1}, node=None)).id
                await _fill(store, id)
                fuzzed = Fuzzed(client, chance, id, "x:")
                told = f"{number}: {fuzzed.mutate()}"
                for question in _questions(store, id):
                    try:
                        answer = await question()
                    except (SessionNotFound, Unavailable):
                        continue
                    except Exception as error:
                        raise AssertionError(told) from error
                    for session in _sessions_in(answer):
                        assert_valid(session)
            assert store.unreadable > MUTATIONS / 10
            client.flushall()
            assert await store.healthy()
        finally:
            await store.close()


@pytest.mark.proves("F31", "T32")
@NEEDS_REDIS
async def test_a_list_goes_on_behind_records_that_are_none_or_lie_about_their_place(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        store = RedisSessionStore(server.url, prefix="x:", ttl_s=1800, deadline_s=30.0)
        try:
            ids = [
                (await store.create(user=USER, assistant="a", metadata={}, node=None)).id for _ in range(4)
            ]
            client.hset(f"x:{{{ids[3]}}}:s", "about", "broken")
            client.hset(f"x:{{{ids[2]}}}:s", "about", "{}")
            about = json.loads(client.hget(f"x:{{{ids[1]}}}:s", "about") or b"")
            client.hset(f"x:{{{ids[1]}}}:s", "about", json.dumps({**about, "created_at": 4e9}))
            listed, after = [], None
            for _ in range(4):
                page, after = await store.list(USER, limit=1, after=after)
                listed += [session.id for session in page]
            assert (listed, after) == ([ids[1], ids[0]], None)
        finally:
            await store.close()


async def _fill(store: RedisSessionStore, id: str) -> None:
    for turn in (1, 2):
        store.remember(id, MemoryItem("user", "hello ü", turn, 1.5))
        store.record(id, Event(1.5, "turn", {"turn": turn}))
    store.set_usage(id, {"totalTokens": 1})
    store.keep_handle(id, Handle("v", "i", 1.5))
    await store.hold(id, node="a")
    store.attend(id, node="a", connected=True)
    await store.keep_credential("name", uses=3, expires_at=time.time() + 600, body={"b": 1}, kind="kind")
    await store.keep_credential("good", uses=None, expires_at=None, body={"b": 2}, kind="kind")
    await store.take("counter", 2, limit=10, window_s=60)
    await store.occupy("counter", "place", limit=10, lasts_s=60)
    await store.revoke("subject", lasts_s=60)


def _questions(store: RedisSessionStore, id: str) -> list[Callable[[], Awaitable[object]]]:
    async def write() -> None:
        store.remember(id, MemoryItem("model", "more", 3, 1.5))
        store.record(id, Event(1.5, "turn", {}))
        store.touch(id)
        store.keep_handle(id, None)
        store.give_back("counter", 1)
        store.vacate("counter", "place")
        store.release(id, node="a")
        await store.flush()

    async def use() -> None:
        found = await store.use_credential("name")
        assert found is None or isinstance(found, Credential)

    async def keep() -> None:
        await store.keep_credential(
            "other", uses=1, expires_at=time.time() + 600, body={}, kind="kind", at_most=5
        )

    async def take() -> None:
        taken = await store.take("counter", 1, limit=10, window_s=60)
        assert 0 <= taken.amount <= 1
        assert 0 <= taken.left <= 10
        assert taken.ends_in_s >= 0

    return [
        lambda: store.get(id, user=USER),
        lambda: store.resume(id, user=USER),
        lambda: store.memory(id),
        lambda: store.events(id),
        lambda: store.list(USER),
        lambda: store.beat("a", [id]),
        lambda: store.leaving(id, node="a"),
        lambda: store.hold(id, node="b"),
        use,
        keep,
        lambda: store.credentials("kind"),
        lambda: store.drop_credential("good"),
        take,
        lambda: store.occupy("counter", "another", limit=10, lasts_s=60),
        write,
        lambda: store.resume(id, user=USER),
        lambda: store.beat("b", [id]),
        lambda: store.delete(id, user=USER),
    ]


def _sessions_in(answer: object) -> list[Session]:
    match answer:
        case Session():
            return [answer]
        case (Session() as session, _):
            return [session]
        case ([*sessions], _):
            return [session for session in sessions if isinstance(session, Session)]
    return []
