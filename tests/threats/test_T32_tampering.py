"""T32: somebody writes to the Redis of the sessions what the server never wrote there."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from accessing import ASKING, api_key, asking, bearer, session_of
from faults.model import ModelSide
from faults.stage import serving
from redis_server import NEEDS_REDIS, running
from serving import Server
from talking import Talker
from test_redis_records import noise
from websockets.exceptions import ConnectionClosed

RECORDS = 10_000
ASKED = 500
OPENED = 40
PREFIX = "tornado-live:"
CHANGED = (b"about", b"active", b"turn", b"usage", b"handle", b"bytes", b"holder", b"holds", b"connected")


def written(client: Any, chance: random.Random, session: str) -> list[str]:
    """Ten thousand sessions of the user who has that one, each like it but for something, and every tenth with
    memory and events. Their ids."""
    known = client.hgetall(f"{PREFIX}{{{session}}}:s")
    (listed,) = client.keys(f"{PREFIX}u:*")
    ids = [f"tampered-{number:05}" for number in range(RECORDS)]
    with client.pipeline(transaction=False) as many:
        for number, id in enumerate(ids):
            tag, fields = f"{PREFIX}{{{id}}}", dict(known)
            for name in chance.sample(CHANGED, chance.randint(1, 3)):
                fields[name] = noise(chance, fields.get(name))
                if chance.randrange(4) == 0:
                    del fields[name]
            match chance.randrange(20):
                case 0:
                    many.set(f"{tag}:s", noise(chance, None))
                case 1:
                    many.rpush(f"{tag}:s", noise(chance, b"[]"))
                case _ if fields:
                    many.hset(f"{tag}:s", mapping=fields)
            if number % 10 == 0:
                item = b'[5,"user","hello",1,1.5]'
                many.rpush(f"{tag}:m", *(noise(chance, item) for _ in range(3)), item)
                many.rpush(f"{tag}:e", noise(chance, b'[1.5,"turn",{"turn":1}]'))
            many.pexpire(f"{tag}:s", 1_800_000)
            many.zadd(listed, {id: number})
        many.execute()
    return ids


@pytest.mark.proves("T32")
@NEEDS_REDIS
async def test_ten_thousand_tampered_records_are_unknown_sessions_or_valid_ones(tmp_path: Path) -> None:
    chance = random.Random(32)
    with running(tmp_path) as redis, redis.client() as client:
        shared = {"REDIS_URL": redis.url}
        asked_often = {"LIMITS__REQUESTS_PER_MINUTE": "off"}
        async with ModelSide() as model, serving(model.port, **shared, **asked_often, **ASKING) as server:
            key = await api_key(shared, "web", user="ann")
            (kept,) = client.keys(f"{PREFIX}c:*")
            session = (await session_of(server, key))["sessionId"]
            ids = written(client, chance, session)
            found = await read(server, key, chance.sample(ids[::10], ASKED))
            assert found.keys() == {200, 404}
            assert min(found.values()) > ASKED / 20, found
            listed = await all_listed(server, key)
            assert len(listed) == len(set(listed))
            assert session in listed
            assert RECORDS / 20 < len(listed) < RECORDS
            for id in chance.sample(ids[::10], OPENED):
                await opened(server, key, id)
            await forged(server, client, key, kept, chance)
            async with asking(server, key) as whoever:
                assert (await whoever.get(f"/api/sessions/{session}")).status_code == 200
                assert (await whoever.get("/health/ready")).status_code == 200
            assert "record_unreadable" in server.log
            assert '"status": 500' not in server.log


async def read(server: Server, key: str, ids: list[str]) -> Counter[int]:
    """What each is answered with, memory and events included."""
    found: Counter[int] = Counter()
    async with asking(server, key) as client:
        for id in ids:
            answer = await client.get(f"/api/sessions/{id}?include=memory")
            found[answer.status_code] += 1
            if answer.status_code == 404:
                assert answer.json()["error"]["code"] == "session_not_found"
            elif answer.status_code == 200:
                assert answer.json()["sessionId"] == id
                assert (await client.get(f"/api/sessions/{id}/events")).status_code == 200
    return found


async def all_listed(server: Server, key: str) -> list[str]:
    listed: list[str] = []
    async with asking(server, key) as client:
        after: dict[str, str] = {}
        while True:
            answer = await client.get("/api/sessions", params={"limit": "100", **after})
            assert answer.status_code == 200
            page = answer.json()
            listed += [one["sessionId"] for one in page["sessions"]]
            if page.get("next") is None:
                return listed
            after = {"after": page["next"]}


async def opened(server: Server, key: str, id: str) -> None:
    """Somebody comes back to a tampered session: it is unknown, or goes on."""
    async with Talker(f"{server.ws_url}/?sessionId={id}", headers=bearer(key)) as client:
        with suppress(ConnectionClosed):  # it was refused meanwhile
            await client.send("ping")
        while (message := await client.next())["type"] not in ("pong", "error"):
            pass
        if message["type"] == "error":
            assert message["data"]["code"] == "session_not_found"
            assert (await client.closed())[0] == 4404


async def forged(server: Server, client: Any, key: str, kept: bytes, chance: random.Random) -> None:
    """The record of the key itself is changed, one field after the other: it is wrong then, or as before."""
    good = client.hgetall(kept)
    async with asking(server, key) as asked:
        for name in good:
            for _ in range(10):
                client.hset(kept, name, noise(chance, good[name]))
                assert (await asked.get("/api/sessions?limit=1")).status_code in (200, 401)
            client.hset(kept, name, good[name])
