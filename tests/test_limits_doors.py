"""Limits of an address and of a user as their callers meet them: a real server, behind a proxy that is listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from accessing import ASKING, bearer, signed
from doorways import NO_MODEL
from serving import Server
from talking import Talker
from websockets.exceptions import InvalidStatus

ENVIRON = (
    ASKING
    | NO_MODEL
    | {
        "TRUSTED_PROXIES": "127.0.0.1",
        "LIMITS__HANDSHAKES_PER_MINUTE": "6",
        "LIMITS__DENIED_PER_MINUTE": "5",
        "LIMITS__CONNECTIONS_PER_ADDRESS": "3",
        "LIMITS__REQUESTS_PER_MINUTE": "20",
        "LIMITS__SESSIONS_PER_MINUTE": "30",
    }
)


def from_address(address: str, credential: str) -> dict[str, str]:
    return bearer(credential) | {"X-Forwarded-For": address, "X-Forwarded-Proto": "http"}


def talker(server: Server, headers: Mapping[str, str]) -> Talker:
    return Talker(f"{server.ws_url}/", headers=headers)


async def told_too_much(client: Talker) -> dict[str, Any]:
    """What a client is told whose socket is one too many."""
    error = await client.until("error")
    assert (await client.closed())[0] == 4429
    assert (error["code"], error["retryable"]) == ("limited", True)
    return dict(error)


async def test_an_address_and_a_user_are_held_to_their_limits_and_nobody_else_is() -> None:
    """One server for all: each part has addresses and users of its own."""
    async with (
        Server(environ=ENVIRON) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client,
    ):
        await too_many_sockets(server)
        await too_many_handshakes(server)
        await too_many_wrong_credentials(server, client)
        await too_many_requests(client)
        await too_many_requests_of_nobody(client)
        await too_many_sessions_by_socket(server)
        metrics = (await client.get("/metrics")).text
        for limit in (
            "connections_per_address",
            "handshakes_per_minute",
            "denied_per_minute",
            "requests_per_minute",
            "sessions_per_minute",
        ):
            assert f'tornado_live_limited_total{{limit="{limit}"}} 0.0' not in metrics


async def too_many_sessions_by_socket(server: Server) -> None:
    """Each socket that names none makes one."""
    gil = signed("gil")
    for number in range(30):
        async with talker(server, from_address(f"198.51.100.{number}", gil)) as client:
            await client.send("ping")
            await client.until("pong")
    async with talker(server, from_address("198.51.100.200", gil)) as client:
        await told_too_much(client)


async def too_many_requests_of_nobody(client: httpx.AsyncClient) -> None:
    far = {"X-Forwarded-For": "203.0.113.77", "X-Forwarded-Proto": "http"}
    answers = [(await client.get("/api/sessions", headers=far)).status_code for _ in range(30)]
    assert answers[:20] == [401] * 20
    assert answers[-1] == 429


async def too_many_sockets(server: Server) -> None:
    here, ann = "203.0.113.1", signed("ann")
    async with talker(server, from_address(here, ann)), talker(server, from_address(here, ann)):
        async with talker(server, from_address(here, ann)) as third:
            await third.send("ping")
            await third.until("pong")
            async with talker(server, from_address(here, signed("bob"))) as fourth:
                error = await told_too_much(fourth)
                assert "connections_per_address" in error["message"]
        async with talker(server, from_address(here, ann)) as again:
            await again.send("ping")
            await again.until("pong")


async def too_many_handshakes(server: Server) -> None:
    here, ann = "203.0.113.2", signed("ann")
    for _ in range(6):
        async with talker(server, from_address(here, ann)) as client:
            await client.send("ping")
            await client.until("pong")
    async with talker(server, from_address(here, ann)) as client:
        error = await told_too_much(client)
        assert "handshakes_per_minute" in error["message"]
        assert 0 < error["retryAfterMs"] <= 60_000
    async with talker(server, from_address("203.0.113.3", ann)) as other:
        await other.send("ping")
        await other.until("pong")


async def too_many_wrong_credentials(server: Server, client: httpx.AsyncClient) -> None:
    here = "203.0.113.4"
    for number in range(5):
        wrong = await client.get("/api/sessions", headers=from_address(here, f"wrong-{number}"))
        assert wrong.status_code == 401
    good = await client.get("/api/sessions", headers=from_address(here, signed("ann")))
    assert good.status_code == 429
    assert good.json()["error"]["code"] == "limited"
    assert 0 < int(good.headers["Retry-After"]) <= 60
    with pytest.raises(InvalidStatus) as refused:
        async with talker(server, from_address(here, signed("ann"))):
            pass
    assert refused.value.response.status_code == 429
    elsewhere = await client.get("/api/sessions", headers=from_address("203.0.113.5", signed("ann")))
    assert elsewhere.status_code == 200
    for _ in range(20):  # of this machine itself
        assert (await client.get("/api/sessions", headers=bearer("wrong"))).status_code == 401


async def too_many_requests(client: httpx.AsyncClient) -> None:
    carol, statuses = signed("carol"), []
    for number in range(25):
        answer = await client.get("/api/sessions", headers=from_address(f"198.51.100.{number}", carol))
        statuses.append(answer.status_code)
    assert statuses == [200] * 20 + [429] * 5
    other = await client.get("/api/sessions", headers=from_address("198.51.100.1", signed("dave")))
    assert other.status_code == 200
    backend = signed("shop", roles=["backend"])
    for _ in range(25):
        answer = await client.get("/api/sessions", headers=from_address("192.0.2.1", backend))
        assert answer.status_code == 200
