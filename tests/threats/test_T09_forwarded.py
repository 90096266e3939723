"""T9: what a client says of itself in the headers of proxies is not believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from doorways import NO_MODEL, asked
from nginx import Nginx
from serving import Server

SPOOFED = "203.0.113.66"
LIES: Sequence[tuple[tuple[str, str], ...]] = (
    (("X-Forwarded-For", SPOOFED),),
    (("X-Forwarded-For", "127.0.0.1"),),
    (("X-Forwarded-For", f"{SPOOFED}, 127.0.0.1"),),
    (("X-Forwarded-For", SPOOFED), ("X-Forwarded-For", "127.0.0.1")),
    (("X-Real-IP", SPOOFED),),
    (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "rebind.test")),
    (("Forwarded", f"for={SPOOFED};proto=https;host=rebind.test"),),
    (("True-Client-IP", SPOOFED), ("CF-Connecting-IP", SPOOFED), ("X-Client-IP", SPOOFED)),
    (("X-Forwarded-Prefix", "/evil"), ("X-Forwarded-Port", "443"), ("X-Original-URL", "/metrics")),
)


def seen(answer: Mapping[str, Any]) -> tuple[str, str, str | None]:
    client = answer["client"]
    return client["via"], client["scheme"], client.get("address")


@pytest.mark.proves("T9")
async def test_headers_of_a_proxy_that_is_none_of_ours_are_not_believed() -> None:
    async with Server(environ=NO_MODEL) as server:
        for lie in LIES:
            health = await asked(server.port, "GET", "/health?client", lie)
            if any(name == "X-Forwarded-Prefix" for name, _ in lie):
                assert health.header("Location") is None
            assert seen(json.loads(health.body)) == ("untrusted", "http", None), lie
            made = await asked(server.port, "POST", "/api/sessions", lie)
            assert json.loads(made.body)["wsUrl"].startswith(f"ws://127.0.0.1:{server.port}/ws?"), lie
            assert made.header("Strict-Transport-Security") is None
            # Whoever looks like a proxy is not this machine itself.
            for path, method in (("/metrics", "GET"), ("/api/tools/get_weather/invoke", "POST")):
                assert (await asked(server.port, method, path, lie)).status == 403, lie
        rebound = (("Host", "rebind.test"), ("X-Forwarded-Host", "localhost"))
        assert (await asked(server.port, "GET", "/api/sessions", rebound)).status == 403
        await asked(server.port, "GET", "/api/the-last", LIES[0])
        await server.printed("/api/the-last")
        for line in server.log.splitlines():
            assert f'"remote": "{SPOOFED}"' not in line


@pytest.mark.proves("T9")
async def test_through_nginx_a_client_is_who_nginx_sees_whatever_it_says() -> None:
    environ = NO_MODEL | {"TRUSTED_PROXIES": "127.0.0.1"}
    async with Server(environ=environ) as server, Nginx(server.port) as proxy:
        async with httpx.AsyncClient(base_url=proxy.url, verify=proxy.tls, trust_env=False) as client:
            for lie in (*LIES, (("X-Forwarded-Proto", "http"),)):
                health = await client.get("/health?client", headers=list(lie))
                assert seen(health.json()) == ("proxy", "https", "127.0.0.1"), lie
                made = await client.post("/api/sessions", headers=list(lie))
                assert made.json()["wsUrl"].startswith(f"wss://localhost:{proxy.port}/ws?"), lie
                assert (await client.get("/metrics", headers=list(lie))).status_code in (403, 404), lie
        assert SPOOFED not in server.log
        assert "proxy_not_trusted" not in server.log


@pytest.mark.proves("T9")
async def test_limits_of_an_address_are_held_for_the_true_one() -> None:
    """The proxy is this test: it adds whom it sees to what its client said."""
    limits = {"LIMITS__SESSIONS_PER_MINUTE": "3"}
    async with Server(environ=NO_MODEL | limits | {"TRUSTED_PROXIES": "127.0.0.1"}) as server:

        async def made(said: str, peer: str) -> int:
            chain = (("X-Forwarded-For", f"{said}, {peer}"),)
            return (await asked(server.port, "POST", "/api/sessions", chain)).status

        greedy = [await made(f"203.0.113.{number}", "198.51.100.7") for number in range(5)]
        assert greedy == [201, 201, 201, 429, 429]
        assert await made("198.51.100.7", "198.51.100.8") == 201
        # Nor does anybody get out of it by another spelling, or by what is no address.
        for said in ("127.0.0.1", "::1", "unknown", "198.51.100.9, 127.0.0.1", "", "[::1]:80", "\u00e9"):
            assert await made(said, "198.51.100.7") == 429, said
        assert await made("x", "::ffff:198.51.100.7") == 429
