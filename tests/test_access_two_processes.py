"""Who may talk, to what and for how much, where two processes share the sessions: what one of them is told or has
taken counts in the other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from accessing import ASKING, api_key, asking, bearer, session_of, signed, store_of, ticket_of
from faults.model import ModelLine
from faults.nodes import Nodes, shared_file, two_nodes
from faults.stage import settled
from redis_server import NEEDS_REDIS, running
from serving import ROOT, Server, clean_environment
from talking import Talker
from websockets.exceptions import InvalidStatus

BRIEF_S = 6
"""Long enough to open a conversation, short enough to wait for its end."""


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The settings that make two nodes share their sessions."""
    if request.param == "sqlite":
        yield shared_file(tmp_path)
        return
    with running(tmp_path) as redis:
        yield {"REDIS_URL": redis.url}


@asynccontextmanager
async def talking(
    both: Nodes, server: Server, credential: str, session: str = ""
) -> AsyncIterator[tuple[Talker, ModelLine]]:
    """A client whose conversation has been opened, and the line of its model."""
    query = f"?sessionId={session}" if session else ""
    async with Talker(f"{server.ws_url}/{query}", headers=bearer(credential)) as client:
        await client.send("connect")
        line = await both.model.dialled()
        await line.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        yield client, line


async def token_command(store: Mapping[str, str], *arguments: str) -> str:
    """`tornado-live token …`, by somebody at the machine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tornado_live", "token", *arguments),
        env=clean_environment(PYTHONPATH=str(ROOT), GEMINI_API_KEY="no-real-key", **store, **ASKING),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def sent_away(client: Talker, since: float, how: str) -> tuple[int, str]:
    """The code with which a client is closed, and the code of what it was told before."""
    code, _ = await client.closed()
    print(f"closed {time.monotonic() - since:.2f} s after {how}")
    return code, client.seen[-1]["data"].get("code", "")


@pytest.mark.proves("T18")
async def test_what_is_deleted_or_revoked_ends_conversations_in_both_processes(
    store: Mapping[str, str],
) -> None:
    async with two_nodes(store, **ASKING) as both:
        web, other = await api_key(store, "web", user="ann"), await api_key(store, "other", user="bob")
        made = await session_of(both.one, web)
        async with (
            talking(both, both.one, web) as (deleted, deleted_line),
            talking(both, both.one, web) as (revoked, _),
            talking(both, both.other, made["token"], made["sessionId"]) as (by_ticket, _),
            talking(both, both.one, signed("dan", jti="stolen")) as (stolen, _),
            talking(both, both.other, other) as (going_on, line),
        ):
            async with asking(both.other, web) as client:
                since = time.monotonic()
                gone = await client.delete(f"/api/sessions/{deleted.seen[-1]['sessionId']}")
                assert gone.status_code == 204
            assert await sent_away(deleted, since, "DELETE") == (4410, "session_ended")
            assert await deleted_line.closed() == 1000

            await asyncio.gather(
                token_command(store, "revoke", "web"), token_command(store, "revoke", "--jti", "stolen")
            )
            since = time.monotonic()
            for client in (revoked, by_ticket, stolen):
                assert await sent_away(client, since, "token revoke") == (4410, "session_ended")

            for server in (both.one, both.other):
                async with asking(server, web) as client:
                    assert (await client.get("/api/sessions")).status_code == 401
            await going_on.send("text", {"text": "Still there?"})
            assert await line.typed() == "Still there?"


@pytest.mark.proves("T18")
async def test_whoever_has_no_credential_any_more_is_sent_away_in_the_middle_of_a_talk(
    tmp_path: Path,
) -> None:
    async with two_nodes(shared_file(tmp_path), **ASKING) as both:
        brief = signed("eve", lasts_s=BRIEF_S)
        made = await session_of(both.one, brief)
        async with (
            talking(both, both.one, brief) as (client, _),
            talking(both, both.other, made["token"], made["sessionId"]) as (by_ticket, _),
        ):
            for one in (client, by_ticket):
                assert (await one.closed())[0] == 4401
                assert one.seen[-1]["data"]["code"] == "unauthenticated"
        with pytest.raises(InvalidStatus) as shut:
            async with Talker(f"{both.one.ws_url}/?sessionId={made['sessionId']}", headers=bearer(brief)):
                pass
        assert shut.value.response.status_code == 401


@pytest.mark.proves("T14", "T18")
async def test_a_session_is_taken_over_by_its_user_and_by_nobody_else(store: Mapping[str, str]) -> None:
    async with two_nodes(store, LIMITS__CONVERSATIONS_PER_USER="1", **ASKING) as both:
        hers, his = await api_key(store, "hers", user="ann"), await api_key(store, "his", user="bob")
        async with talking(both, both.one, hers) as (client, line):
            session = client.seen[-1]["sessionId"]
            for credential in (his, signed("eve")):
                async with Talker(
                    f"{both.other.ws_url}/?sessionId={session}", headers=bearer(credential)
                ) as other:
                    assert (await other.closed())[0] == 4404
            await client.send("text", {"text": "Still there?"})
            assert await line.typed() == "Still there?"
            assert both.model.open_lines == [line]
            ticket = await ticket_of(both.one, hers, session)
            async with talking(both, both.other, ticket, session) as (again, other_line):
                assert (await client.closed())[0] == 4409
                assert await line.closed() == 1000
                assert both.model.open_lines == [other_line]
                await refused(both.one, hers, "conversations_per_user")
                await again.send("text", {"text": "And now?"})
                assert await other_line.typed() == "And now?"


@pytest.mark.proves("T35")
async def test_limits_hold_over_both_processes_and_over_a_kill(store: Mapping[str, str]) -> None:
    limits = {"LIMITS__CONVERSATIONS_PER_USER": "2", "LIMITS__TOKENS_PER_DAY": "1000"}
    async with two_nodes(store, exit_codes=(-signal.SIGKILL, 0), **limits, **ASKING) as both:
        key, bobs = await api_key(store, "web", user="ann"), await api_key(store, "other", user="bob")
        async with (
            talking(both, both.one, key) as (here, _),
            talking(both, both.other, key) as (there, _),
            talking(both, both.one, bobs) as (spending, line),
        ):
            dialled = both.model.handshakes
            for server in (both.one, both.other):
                await refused(server, key, "conversations_per_user")
            assert both.model.handshakes == dialled, "nobody was called for who was refused"
            await line.send(tokens(900))
            near = await spending.until("warning", lambda data: data["code"] == "budget_near")
            assert "tokens_per_day" in near["message"]
            await settled(lambda: charged(store, "tokens_per_day:user:bob", 900))

            os.kill(both.one.pid, signal.SIGKILL)
            assert (await here.closed())[0] == 1006
            await refused(both.other, key, "conversations_per_user")
            session = here.seen[-1]["sessionId"]
            async with talking(both, both.other, key, session) as (back, _):
                await refused(both.other, key, "conversations_per_user")
                await there.send("disconnect")
                await there.until("status")
                async with talking(both, both.other, key):
                    await refused(both.other, key, "conversations_per_user")
                await back.send("ping")
                await back.until("pong")
        async with talking(both, both.other, bobs) as (spending, line):
            await line.send(tokens(200))
            assert (await spending.closed())[0] == 4429
            assert "tokens_per_day" in spending.seen[-1]["data"]["message"]
            assert spending.seen[-1]["data"]["retryAfterMs"] > 3_600_000
        dialled = both.model.handshakes
        await refused(both.other, bobs, "tokens_per_day")
        assert both.model.handshakes == dialled


async def charged(store: Mapping[str, str], counter: str, amount: int) -> bool:
    """Whether so much of a counter has been taken, as whoever else asks is told."""
    async with store_of(store) as looking:
        taken = await looking.take(counter, 0, limit=1_000_000, window_s=86_400)
    return 1_000_000 - taken.left >= amount


def tokens(count: int) -> dict[str, Any]:
    return {"usageMetadata": {"promptTokenCount": count, "totalTokenCount": count}}


async def refused(server: Server, credential: str, limit: str) -> None:
    """Nobody talks by this credential, since the limit of this name is reached."""
    async with Talker(f"{server.ws_url}/", headers=bearer(credential)) as client:
        await client.send("connect")
        code, _ = await client.closed()
    assert code == 4429
    told = client.seen[-1]["data"]
    assert limit in told["message"]
    assert told["retryAfterMs"] > 0
