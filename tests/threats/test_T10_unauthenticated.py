"""T10, T11: without a credential nobody gets further than the doors, on any route and by any method.

Routes and methods are the router's own, so that a route that is added is asked here too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from accessing import ASKING, api_key, bearer, signed
from doorways import DROP_IN, METHODS, NO_MODEL, PUBLIC, Route, asked, routes, upgrade, without
from serving import Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

MODES = {"api_key": {"AUTH__MODES": "api_key"}, "jwt": ASKING | {"AUTH__MODES": "jwt"}}
ELSEWHERE = ("X-Forwarded-For", "203.0.113.9")
"""Not of this machine itself, to which metrics are open."""
NO_CREDENTIALS: Sequence[tuple[tuple[str, str], ...]] = (
    (),
    (("Authorization", "Bearer wrong"),),
    (("Authorization", "Bearer "),),
    (("Authorization", "Basic YWxpY2U6eA=="),),
    (("Authorization", f"Bearer tl_{'a' * 12}_{'b' * 43}"),),
    (("Authorization", f"Bearer tlt_{'c' * 43}"),),
    (("Authorization", f"Bearer auth_tokens/{'d' * 43}"),),
    (("Cookie", f"session=tl_{'a' * 12}_{'b' * 43}; token=x"),),
    (("X-Api-Key", f"tl_{'a' * 12}_{'b' * 43}"), ("X-Forwarded-User", "alice"), ("X-Remote-User", "alice")),
)
LETS_ANYBODY_IN = """
from tornado_live.access.identity import LOCAL
from tornado_live.handlers.door import DoorHandler
async def entering(self): return LOCAL
DoorHandler.entering = entering
"""


async def nobody_gets_in(server: Server, found: Sequence[Route]) -> int:
    """How many requests were made for it."""
    count = 0
    for route in found:
        for method in METHODS:
            for shown in NO_CREDENTIALS if method in ("GET", "POST", "DELETE") else NO_CREDENTIALS[:2]:
                answer = await asked(server.port, method, route.path, (ELSEWHERE, *shown))
                count += 1
                where = f"{method} {route.path} with {shown}: {answer.text}"
                if route.rule.access == "own":
                    assert answer.status in (400, 401, 405), where
                elif method == "OPTIONS":
                    assert (answer.status, answer.body) == (204, b""), where
                elif method in ("TRACE", "BREW"):
                    assert answer.status == 405, where
                elif route.rule.access == "public":
                    assert answer.status in (200, 302, 404, 405), where
                else:
                    assert answer.status == 401, where
                    assert answer.header("WWW-Authenticate") == "Bearer", where
                    if method != "HEAD" and route.rule.kind == "ours":
                        assert json.loads(answer.body)["error"]["code"] == "unauthenticated", where
    return count


@pytest.mark.proves("T10")
@pytest.mark.proves("T11")
@pytest.mark.parametrize("mode", MODES)
async def test_without_a_credential_every_route_and_method_is_closed(mode: str, tmp_path: Path) -> None:
    prefix = "/voice" if mode == "jwt" else ""
    found = await routes(tmp_path, prefix, **MODES[mode])
    assert {route.rule.access for route in found} == {"public", "caller", "operator", "own"}
    environ = NO_MODEL | MODES[mode] | ({"BASE_PATH": prefix} if prefix else {})
    async with Server(environ=environ) as server:
        assert await nobody_gets_in(server, found) > 400
        # This machine itself may read metrics, and with a wrong credential not even it.
        assert (await asked(server.port, "GET", "/metrics")).status == 200
        wrong = await asked(server.port, "GET", "/metrics", NO_CREDENTIALS[1])
        assert wrong.status == 401


@pytest.mark.proves("T10")
async def test_the_proof_fails_where_the_doors_let_anybody_in(tmp_path: Path) -> None:
    found = await routes(tmp_path, **MODES["api_key"])
    async with without(LETS_ANYBODY_IN, environ=NO_MODEL | MODES["api_key"]) as server:
        with pytest.raises(AssertionError):
            await nobody_gets_in(server, found)


async def refusal(socket: ClientConnection) -> int:
    """The code with which it is closed, after errors alone."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            told = json.loads(await socket.recv())
            assert told["type"] == "error", told
    assert socket.close_code is not None
    return socket.close_code


@pytest.mark.proves("T10")
@pytest.mark.proves("T2")
async def test_a_socket_without_a_credential_needs_an_origin_and_then_a_token(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "web")
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        assert server.ws_port is not None
        ours = ("Origin", f"http://127.0.0.1:{server.port}")
        for port, path in ((server.port, "/ws"), (server.ws_port, "/ws"), (server.ws_port, "/")):
            for shown in NO_CREDENTIALS:
                answer = await asked(port, "GET", path, upgrade(*shown))
                assert answer.status == 401, answer.text
                assert answer.header("WWW-Authenticate") == "Bearer"
            for cookie in ((), (("Cookie", f"session={key}; token={key}"),)):
                assert (await asked(port, "GET", path, upgrade(*cookie))).status == 401
            for good in (key, signed("alice")):
                shown = ("Authorization", f"Bearer {good}")
                assert (await asked(port, "GET", path, upgrade(shown))).status == 101
                assert (await asked(port, "GET", path, upgrade(shown, ours))).status == 101
                foreign = upgrade(shown, ("Origin", "https://evil.example"))
                assert (await asked(port, "GET", path, foreign)).status == 403
            query = f"{path}?token={key}&access_token={key}&key={key}"
            assert (await asked(port, "GET", query, upgrade())).status == 401
            url = f"ws://127.0.0.1:{port}{path}"
            for first in (
                {"type": "connect"},
                {"type": "connect", "data": {"token": "wrong"}},
                {"type": "text", "data": {"text": "hello"}},
            ):
                async with connect(url, origin=ours[1], proxy=None) as socket:  # type: ignore[arg-type]
                    await socket.send(json.dumps(first))
                    assert await refusal(socket) == 4401
            async with connect(url, origin=ours[1], proxy=None) as socket:  # type: ignore[arg-type]
                await socket.send(json.dumps({"type": "connect", "data": {"token": key}}))
                assert json.loads(await socket.recv())["type"] == "status"


@pytest.mark.proves("T11")
async def test_a_client_of_googles_protocol_without_a_credential_is_told_and_closed(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "guests")
    setup = json.dumps({"setup": {"model": "models/gemini-3.8-live"}})
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        url = f"ws://127.0.0.1:{server.port}{DROP_IN}"
        assert (await asked(server.port, "GET", DROP_IN, upgrade())).status == 401
        ours = f"http://127.0.0.1:{server.port}"
        async with connect(url, origin=ours, proxy=None) as socket:  # type: ignore[arg-type]
            assert await refusal(socket) == 1008
        for query in ("?key=wrong", "?access_token=wrong", "?access_token=auth_tokens/x"):
            async with connect(f"{url}{query}", proxy=None) as socket:
                assert await refusal(socket) == 1008
        for way in ("?key=", "?access_token="):
            async with connect(f"{url}{way}{key}", proxy=None) as socket:
                await socket.send(setup)
        for method in METHODS[:7]:
            for path in ("/ws", DROP_IN):
                answer = await asked(server.port, method, path, tuple(bearer(key).items()))
                assert answer.status in (204, 400, 405), answer.text


@pytest.mark.proves("T11")
async def test_an_upgrade_opens_nothing_but_the_routes_of_sockets(tmp_path: Path) -> None:
    found = await routes(tmp_path, **MODES["api_key"])
    async with Server(environ=NO_MODEL | MODES["api_key"]) as server:
        for route in found:
            if route.rule.access == "own":
                continue
            for method in ("GET", "POST", "PUT"):
                answer = await asked(server.port, method, route.path, (ELSEWHERE, *upgrade()))
                plain = await asked(server.port, method, route.path, (ELSEWHERE,))
                assert (answer.status, answer.header("Upgrade")) == (plain.status, None), route.path
                assert answer.status != 101
                if route.name not in PUBLIC:
                    assert answer.status == 401
