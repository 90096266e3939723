"""F28 to F31: Redis is not there, dies, hangs, or comes back empty, while people talk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import NEEDS_REDIS, RedisServer
from serving import Server
from talking import Talker

from faults.model import ModelSide
from faults.stage import Talk, environment, settled, talking, unbroken

pytestmark = NEEDS_REDIS


@asynccontextmanager
async def gateway(
    folder: Path, *, redis_runs: bool = True
) -> AsyncIterator[tuple[Server, ModelSide, RedisServer]]:
    redis = RedisServer(folder)
    if redis_runs:
        redis.start()
    try:
        async with ModelSide() as model:
            given = environment(model.port) | {"REDIS_URL": redis.url}
            async with Server(environ=given) as server:
                yield server, model, redis
                unbroken(server)
    finally:
        redis.close()


async def asked(server: Server, method: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as http:
        return await http.request(method, path)


async def ready(server: Server) -> bool:
    return (await asked(server, "GET", "/health/ready")).status_code == 200


async def not_ready(server: Server) -> bool:
    answer = await asked(server, "GET", "/health/ready")
    return answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"


async def refused(server: Server) -> dict[str, Any]:
    """What somebody hears who wants a session now."""
    made = await asked(server, "POST", "/api/sessions")
    assert made.status_code == 503
    async with Talker(f"{server.ws_url}/") as client:
        assert (await client.closed())[0] == 4503
        error: dict[str, Any] = client.seen[-1]["data"]
    assert error["code"] == made.json()["error"]["code"] == "unavailable"
    assert error["retryable"] is True
    return error


@pytest.mark.proves("F28")
async def test_a_server_starts_without_its_store_says_so_and_recovers_when_it_is_there(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, redis_runs=False) as (server, model, redis):
        assert (await asked(server, "GET", "/health")).status_code == 200
        assert await not_ready(server)
        await refused(server)
        redis.start()
        there = time.monotonic()
        await settled(lambda: ready(server))
        print(f"ready {time.monotonic() - there:.2f} s after Redis")
        async with talking(server, model) as talk:
            await talk.turn("What is nine?", "A number.")


@pytest.mark.proves("F29")
async def test_who_talks_while_the_store_dies_goes_on_and_nothing_of_it_is_missing_afterwards(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as (server, model, redis), talking(server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        redis.kill()
        await talk.turn("And ten?", "Another one.")
        await settled(lambda: not_ready(server))
        assert (await asked(server, "GET", "/health")).status_code == 200
        await refused(server)
        await talk.turn("And eleven?", "One more.")
        talk.client.connection.transport.abort()
        async with Talker(f"{server.ws_url}/?sessionId={talk.session}") as client:
            connected = await client.until("status")
            assert (connected["status"], connected["resumed"]) == ("CONNECTED", True), (
                "it runs here all the time"
            )
            talk.client = client
            await talk.turn("Are you there?", "I am.")
            await nothing_is_missing(server, redis, talk)


async def nothing_is_missing(server: Server, redis: RedisServer, talk: Talk) -> None:
    redis.start()
    there = time.monotonic()
    await settled(lambda: ready(server))
    print(f"ready {time.monotonic() - there:.2f} s after Redis was back, empty")

    async def whole() -> bool:
        return [text for _, text in await talk.memory()] == [
            "What is nine?",
            "A number.",
            "And ten?",
            "Another one.",
            "And eleven?",
            "One more.",
            "Are you there?",
            "I am.",
        ]

    await settled(whole)
    await talk.turn("And twelve?", "A dozen.")


@pytest.mark.proves("F30")
async def test_a_store_that_hangs_holds_up_nobody_who_talks(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (server, model, redis), talking(server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        with redis.hung():
            for number in range(5):
                await talk.turn(f"Question {number}?", "Answer.")
            asks = time.monotonic()
            await refused(server)
            print(f"two refusals took {time.monotonic() - asks:.2f} s")
            assert await not_ready(server)
            # The deadline of each question to the store is 300 ms; the library's own would be seconds.
            took = await asyncio.gather(*(timed(server) for _ in range(20)))
            print(f"twenty at once: {max(took):.2f} s at most")
        await settled(lambda: ready(server))

        async def whole() -> bool:
            return len(await talk.memory()) == 12

        await settled(whole)


async def timed(server: Server) -> float:
    began = time.monotonic()
    assert (await asked(server, "POST", "/api/sessions")).status_code == 503
    return time.monotonic() - began


@pytest.mark.proves("F31")
async def test_live_sessions_write_themselves_into_a_store_that_lost_everything(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (server, model, redis), talking(server, model) as talk:
        gone = (await asked(server, "POST", "/api/sessions")).json()["sessionId"]
        await talk.turn("What is nine?", "A number.")
        with redis.client() as client:
            client.flushall()

        async def rewritten() -> bool:
            answer = await asked(server, "GET", f"/api/sessions/{talk.session}")
            return answer.status_code == 200

        await settled(rewritten)
        assert [text for _, text in await talk.memory()] == ["What is nine?", "A number."]
        assert (await asked(server, "GET", f"/api/sessions/{gone}")).status_code == 404
        async with Talker(f"{server.ws_url}/?sessionId={gone}") as client:
            assert (await client.closed())[0] == 4404
        await talk.turn("And ten?", "Another one.")
        assert len(await talk.memory()) == 4


@pytest.mark.proves("F31")
async def test_a_full_store_refuses_new_sessions_and_lets_people_talk(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (server, model, redis), talking(server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        with redis.client() as client:
            client.config_set("maxmemory", "1")
        await refused(server)
        assert await not_ready(server)
        await talk.turn("And ten?", "Another one.")
        with redis.client() as client:
            client.config_set("maxmemory", "0")
        await settled(lambda: ready(server))

        async def whole() -> bool:
            return len(await talk.memory()) == 4

        await settled(whole)
