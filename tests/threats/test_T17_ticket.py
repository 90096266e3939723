"""T17: the ticket of a session is shown twice, too late, or for something else."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import redis.asyncio
from accessing import ASKING, SHOWN, api_key, asking, outcome, session_of, ticket_of
from faults.model import ModelSide
from faults.nodes import Nodes, shared_file, two_nodes
from faults.stage import serving
from redis_server import NEEDS_REDIS, running
from serving import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tornado_live.access import tickets
from tornado_live.sessions.store import digest_of

SOCKETS = 50
PAGE = "https://app.example"
GUEST = "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained"
NEVER_SPENT = """
from tornado_live.sessions.sqlite import SqliteSessionStore as Store
use = Store.use_credential
Store.use_credential = lambda self, name, *, spend=True: use(self, name, spend=False)
from tornado_live.__main__ import main
main()
"""
"""A server whose store spends nothing."""


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The settings that make two nodes share their sessions."""
    if request.param == "sqlite":
        yield shared_file(tmp_path)
        return
    with running(tmp_path) as redis:
        yield {"REDIS_URL": redis.url}


async def race(both: Nodes, session: str, ticket: str) -> Counter[str]:
    """What becomes of many sockets that show one ticket at once, half of them on each node, in either way."""
    async with AsyncExitStack() as stack:
        tries = (
            outcome(stack, SHOWN[n // 2 % 2], (both.one, both.other)[n % 2], session, ticket)
            for n in range(SOCKETS)
        )
        found = Counter(await asyncio.gather(*tries))
        if found["in"]:
            await both.model.dialled()
        return found


@pytest.mark.proves("T17")
async def test_of_fifty_sockets_with_one_ticket_on_two_nodes_one_gets_in(store: Mapping[str, str]) -> None:
    async with two_nodes(store, **ASKING) as both:
        key = await api_key(store, "web", user="ann")
        made = await session_of(both.one, key)
        one_got_in(await race(both, made["sessionId"], made["token"]))
        again = await race(both, made["sessionId"], made["token"])
        assert again.total() == SOCKETS
        assert again.keys() <= {"401", "4401"}
        assert both.model.handshakes == 1


@pytest.mark.proves("T17")
async def test_of_fifty_guests_with_one_ephemeral_token_on_two_nodes_one_gets_in(tmp_path: Path) -> None:
    store = shared_file(tmp_path)
    async with two_nodes(store, **ASKING) as both:
        async with asking(both.one, await api_key(store, "web", user="ann")) as client:
            made = await client.post("/v1alpha/auth_tokens", json={"uses": 1})
        name = quote(made.json()["name"], safe="")
        async with AsyncExitStack() as stack:
            async with asyncio.TaskGroup() as coming:
                tries = [
                    coming.create_task(guest(stack, (both.one, both.other)[n % 2], name))
                    for n in range(SOCKETS)
                ]
                await (await both.model.dialled()).ready()
            found = Counter(each.result() for each in tries)
        assert found == {"in": 1, "1008": SOCKETS - 1}
        assert both.model.handshakes == 1


async def guest(stack: AsyncExitStack, server: Server, name: str) -> str:
    """A client of Google's protocol: as `outcome`."""
    url = f"ws://127.0.0.1:{server.port}{GUEST}?access_token={name}"
    try:
        connection = await stack.enter_async_context(connect(url, compression=None, proxy=None))
        await connection.send(json.dumps({"setup": {"model": "models/gemini-3.8-live"}}))
        return "in" if "setupComplete" in json.loads(await connection.recv()) else "told something else"
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd is not None else 1006)


async def test_a_store_that_spends_no_tickets_is_seen(tmp_path: Path) -> None:
    store = shared_file(tmp_path)
    async with two_nodes(store, command=("-c", NEVER_SPENT, "serve"), **ASKING) as both:
        key = await api_key(store, "web", user="ann")
        made = await session_of(both.one, key)
        found = await race(both, made["sessionId"], made["token"])
    with pytest.raises(AssertionError):
        one_got_in(found)


@pytest.mark.proves("T17")
async def test_a_ticket_that_is_late_or_shown_for_something_else_opens_nothing(
    store: Mapping[str, str],
) -> None:
    async with (
        ModelSide() as model,
        serving(model.port, ALLOWED_ORIGINS=PAGE, **store, **ASKING) as server,
        AsyncExitStack() as stack,
    ):
        key = await api_key(store, "web", user="ann")
        made, another = await session_of(server, key), await session_of(server, key)
        mine, theirs = made["sessionId"], another["sessionId"]

        async def tried(session: str, ticket: str, way: int = 0) -> str:
            return await outcome(stack, SHOWN[way], server, session, ticket)

        assert [await tried(theirs, made["token"], way) for way in (0, 1)] == ["401", "4401"]
        bound = await ticket_of(server, key, mine, origin=PAGE)
        assert [await tried(mine, bound, way) for way in (0, 1)] == ["401", "4401"]
        assert await used_by_rest(server, made["token"]) == 401
        assert await tried(mine, made["token"]) == "in", "none of that has spent it"
        late = await ticket_of(server, key, mine)
        await minute_passes(store, late)
        assert [await tried(mine, late, way) for way in (0, 1)] == ["401", "4401"]


async def used_by_rest(server: Server, ticket: str) -> int:
    async with asking(server, ticket) as client:
        return (await client.get("/api/sessions")).status_code


async def minute_passes(store: Mapping[str, str], ticket: str) -> None:
    """For this ticket alone."""
    digest = digest_of(ticket)
    if "REDIS_URL" in store:
        async with redis.asyncio.from_url(store["REDIS_URL"]) as client:
            key = f"tornado-live:c:{digest.hex()}"
            assert await client.pexpire(key, await client.pttl(key) - round(1000 * tickets.LIFE_S))
        return
    with sqlite3.connect(Path(store["DATA_DIR"]) / "sessions.db") as file:
        moved = file.execute(
            "UPDATE credential SET expires_at = expires_at - ? WHERE digest = ?", (tickets.LIFE_S, digest)
        )
        assert moved.rowcount == 1
    file.close()


def one_got_in(found: Counter[str]) -> None:
    assert found["in"] == 1
    assert found["401"] + found["4401"] == SOCKETS - 1
