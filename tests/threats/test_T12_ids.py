"""T12: somebody guesses the id of a session, or has seen one that is another user's."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from accessing import (
    ASKING,
    api_key,
    asking,
    bearer,
    session_of,
    shown_with_connect,
    shown_with_the_handshake,
)
from faults.model import ModelSide
from faults.stage import serving
from serving import Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tornado_live.handlers.rules import RULES
from tornado_live.sessions.store import new_session_id

MANY = 100_000
SYMBOLS = string.ascii_letters + string.digits + "-_"
CHARS = 32
UNKNOWN = "a" * CHARS
GUEST = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
ABOUT_ONE = [
    (method, rule.path, operation.takes is not None)
    for rule in RULES.values()
    if rule.path is not None and "/sessions/{id}" in rule.path
    for method, operation in rule.operations.items()
]
"""Every way to ask for one session over HTTP, and whether it has a body."""


def are_unguessable(made: Sequence[str]) -> None:
    """Each of the 32 places has all 64 symbols about equally often, and no place tells of the one before it.

    Of random ids not one run in ten million is beyond the bounds of chi-square that are asserted here.
    """
    assert len(set(made)) == len(made)
    assert {len(id) for id in made} == {CHARS}
    assert set().union(*made) <= set(SYMBOLS)
    for place in range(CHARS):
        assert chi_square(Counter(id[place] for id in made), 64) < 160
    pairs = Counter(id[place : place + 2] for id in made for place in range(0, CHARS, 2))
    assert chi_square(pairs, 64 * 64) < 4700


def chi_square(found: Counter[str], cells: int) -> float:
    expected = found.total() / cells
    return sum((seen - expected) ** 2 for seen in found.values()) / expected + expected * (cells - len(found))


@pytest.mark.proves("T12")
def test_a_hundred_thousand_ids_are_random_in_every_character() -> None:
    are_unguessable([new_session_id() for _ in range(MANY)])


def numbered() -> Iterator[str]:
    """Never twice, of the right characters and length, and guessed from any one of them."""
    for number in count():
        yield "".join(SYMBOLS[number * 7919 // 64**place % 64] for place in range(CHARS))


def test_ids_that_are_counted_are_seen() -> None:
    ids = numbered()
    with pytest.raises(AssertionError):
        are_unguessable([next(ids) for _ in range(MANY)])


def told(answer: httpx.Response) -> tuple[int, Mapping[str, str], object]:
    """All of an answer but what no two answers share."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    body = answer.json()
    del body["error"]["requestId"]
    return answer.status_code, headers, body


@pytest.mark.proves("T12")
async def test_another_user_s_session_is_answered_as_one_that_there_is_not(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path / "data")}
    async with ModelSide() as model, serving(model.port, **shared, **ASKING) as server:
        keys = {user: await api_key(shared, user, user=user) for user in ("ann", "bob")}
        backend = await api_key(shared, "backend", user="shop", roles=frozenset({"backend"}))
        hers = (await session_of(server, keys["ann"]))["sessionId"]
        assert len(ABOUT_ONE) >= 4
        for shown in (keys["bob"], backend):
            async with asking(server, shown) as client:
                for method, path, has_body in ABOUT_ONE:
                    foreign, unknown = [
                        told(
                            await client.request(
                                method, path.replace("{id}", id), json={} if has_body else None
                            )
                        )
                        for id in (hers, UNKNOWN)
                    ]
                    assert foreign == unknown, (method, path)
                    assert foreign[0] == 404
                assert (await client.get("/api/sessions")).json()["sessions"] == []
        for way in (by_handshake, by_connect, by_handle):
            assert await way(server, hers, keys["bob"]) == await way(server, UNKNOWN, keys["bob"]), way
        async with asking(server, keys["ann"]) as client:
            assert (await client.get(f"/api/sessions/{hers}")).status_code == 200
        assert model.handshakes == 0


async def last_words(connection: ClientConnection) -> tuple[object, ...]:
    """What a socket is told until it is closed, but what no two are told alike."""
    messages: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        async for frame in connection:
            messages.append(json.loads(frame))
    for message in messages:
        for changing in ("requestId", "sessionId", "timestamp"):
            message.pop(changing, None)
            message.get("data", {}).pop(changing, None)
    return connection.close_code, connection.close_reason, messages


async def by_handshake(server: Server, session: str, credential: str) -> object:
    async with shown_with_the_handshake(server, session, credential) as connection:
        return await last_words(connection)


async def by_connect(server: Server, session: str, credential: str) -> object:
    async with shown_with_connect(server, session, credential) as connection:
        return await last_words(connection)


async def by_handle(server: Server, session: str, credential: str) -> object:
    """As a client of Google's: the id is no handle either."""
    async with connect(
        f"ws://127.0.0.1:{server.port}{GUEST}",
        additional_headers=bearer(credential),
        compression=None,
        proxy=None,
    ) as connection:
        setup = {"model": "models/gemini-3.8-live", "sessionResumption": {"handle": session}}
        await connection.send(json.dumps({"setup": setup}))
        return await last_words(connection)
