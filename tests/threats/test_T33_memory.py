"""T33: somebody says so much that the memory of a session, or what the model is told of it, would grow forever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from faults.model import ModelSide
from faults.stage import get, serving, talking
from redis_server import NEEDS_REDIS, running
from stores import PLACES, Given, Place, opened

from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.store import MemoryItem

MESSAGES, MESSAGE_BYTES, MEMORY_BYTES = 50, 8192, 262_144
GIANT = 100_000
WORDS = [
    "a" * GIANT,
    "ü" * GIANT,
    "🎉" * GIANT,
    "e\u0301\u202e\u0000" * (GIANT // 4),
    "\\\"'{}[]<>" * (GIANT // 8),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


@pytest.mark.proves("T33")
async def test_whatever_is_remembered_the_memory_stays_within_its_bounds(place: Place) -> None:
    async with opened(place) as store:
        id = (await store.create(user="ann", assistant="default", metadata={})).id
        for turn in range(1, 4 * MESSAGES + 1):
            store.remember(id, MemoryItem("user", WORDS[turn % len(WORDS)], turn, 1.0))
            if turn % 25 == 0:
                is_bounded(await store.memory(id))
        newest = await store.memory(id)
        assert newest[-1].turn == 4 * MESSAGES
        assert WORDS[0].startswith(newest[-1].text[:-1])
        for turn in range(201, 201 + MESSAGES + 1):
            store.remember(id, MemoryItem("user", str(turn), turn, 1.0))
        assert [item.text for item in await store.memory(id)] == [str(turn) for turn in range(202, 252)]


def is_bounded(memory: Any) -> None:
    sizes = [len(item.text.encode()) for item in memory]
    assert len(sizes) <= MESSAGES
    assert max(sizes) <= MESSAGE_BYTES
    assert sum(sizes) <= MEMORY_BYTES


@pytest.mark.proves("T33")
@NEEDS_REDIS
async def test_redis_does_not_grow_with_what_is_said(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        store = RedisSessionStore(server.url, prefix="x:", ttl_s=1800, deadline_s=30.0)
        id = (await store.create(user="ann", assistant="default", metadata={})).id
        sizes = []
        for round in range(4):
            for number in range(500):
                turn = 500 * round + number
                store.remember(id, MemoryItem("model", WORDS[turn % len(WORDS)], turn, 1.0))
                if turn % 50 == 0:
                    await store.flush()
            await store.flush()
            sizes.append(sum(int(client.memory_usage(key) or 0) for key in client.keys("x:*")))
        await store.close()
    assert max(sizes) < 1.5 * MEMORY_BYTES, "escaped as JSON, and with what Redis adds"
    assert sizes[-1] < 1.1 * sizes[0]


@pytest.mark.proves("T33")
async def test_a_client_that_types_giants_is_remembered_within_bounds_and_so_told_to_the_model() -> None:
    async with ModelSide() as model, serving(model.port) as server, talking(server, model, None) as talk:
        for turn in range(MESSAGES + 1):
            await talk.turn(f"{turn} {WORDS[turn % len(WORDS)][:20_000]}", "Yes.")
        shown = (await get(server, f"/api/sessions/{talk.session}?include=memory")).json()["memory"]
        sizes = [len(item["text"].encode()) for item in shown]
        assert (len(sizes), max(sizes) <= MESSAGE_BYTES, sum(sizes) <= MEMORY_BYTES) == (50, True, True)
        assert shown[-2]["text"].startswith(f"{MESSAGES} a")
        await talk.client.send("disconnect")
        await talk.client.until("status")
        await talk.client.send("connect")
        line = await model.dialled()
        told = len(str(line.setup))
        await line.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["memory"] == "partial", "there is more of it than the model is told"
        if "historyConfig" in line.setup:
            told += len(str(await line.receive("clientContent")))
    assert MESSAGE_BYTES < told < 2 * MEMORY_BYTES
