"""T50: no credential is in a log, wherever it was shown: the server's, and that of the sample nginx."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest
from canary import GEMINI_KEY, JWT_SECRET, Searcher
from faults.model import ModelSide
from faults.stage import environment
from nginx import Nginx
from serving import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from threats.everywhere import GUEST, everywhere, logged, raw, request
from tornado_live.access.commands import OK, Asked, create
from tornado_live.settings import load_settings

# Of the looks of real ones, but shorter: what a person says is kept, also where it looks like this.
SHOWN = {
    "ticket": "tlt_Zk4vRt8Hq2Np6Lw9Xc3Gb7Mf5Ys1",
    "API key": "tl_k4v8q2p6w9x3_Zk4vRt8Hq2Np6Lw9Xc3Gb7Mf5",
    "ephemeral token": "auth_tokens/4f8d2b6a0c9e1b3d5f7",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJibGFrZSJ9.Zk4vRt8Hq2Np6L",
    "Gemini key": "AIzaSyZk4vRt8Hq2Np6Lw9Xc3Gb7Mf5Ys1Dn",
}
UNMASKED = """
import sys
from tornado_live.observe.logs import Masker

Masker.text = lambda self, text: text
sys.argv[0] = "tornado-live"
from tornado_live.__main__ import main
main()
"""
AUTH = {
    "AUTH__MODES": "api_key,jwt",
    "AUTH__JWT_ALGORITHMS": "HS256",
    "AUTH__JWT_SECRET": JWT_SECRET,
    "AUTH__JWT_ISSUER": "us",
    "AUTH__JWT_AUDIENCE": "us",
    "LOG_LEVEL": "DEBUG",
}


def not_in(log: str, secrets: Mapping[str, str]) -> None:
    searcher = Searcher(secrets)
    searcher.feed("log", log)
    assert not searcher.settle(), searcher.finds


@pytest.mark.proves("T50")
async def test_a_credential_where_none_belongs_is_masked_in_every_line() -> None:
    environ = {"LOG_LEVEL": "DEBUG"}
    async with ModelSide() as model, Server(environ=environment(model.port) | environ) as server:
        for shown in SHOWN.values():
            before = len(logged(server)) if '"request"' in server.log else 0
            await everywhere(server, model, shown)
            assert sum("***" in json.dumps(line) for line in logged(server)[before:]) > 20, shown
        not_in(server.log, SHOWN | {"the key of the server": GEMINI_KEY})


@pytest.mark.proves("T50")
async def test_without_the_masks_the_same_is_found(tmp_path: Path) -> None:
    unmasked = tmp_path / "unmasked.py"
    unmasked.write_text(UNMASKED)
    command = (str(unmasked), "serve")
    async with ModelSide() as model, Server(environ=environment(model.port), command=command) as server:
        await everywhere(server, model, SHOWN["ticket"])
        with pytest.raises(AssertionError, match="raw"):
            not_in(server.log, {"ticket": SHOWN["ticket"]})


@asynccontextmanager
async def asking(home: Path) -> AsyncIterator[tuple[Server, dict[str, str]]]:
    """A server that asks for credentials, and one of each kind that it takes."""
    settings = load_settings(home=home, config=None, environ=AUTH | {"UPSTREAM": "simulator"}, overrides={})
    printed = io.StringIO()
    assert await create(settings, Asked("web", roles=("operator",)), printed, io.StringIO()) == OK
    now = int(time.time())
    claims = {"sub": "ann", "iss": "us", "aud": "us", "iat": now, "exp": now + 600}
    shown = {
        "API key": printed.getvalue().strip(),
        "JSON Web Token": jwt.encode(claims, JWT_SECRET, algorithm="HS256"),
    }
    async with Server(home=home, environ=AUTH | {"UPSTREAM": "simulator"}) as server:
        how = {"Authorization": f"Bearer {shown['API key']}"}
        async with httpx.AsyncClient(base_url=server.url, headers=how, trust_env=False) as http:
            made = (await http.post("/api/sessions", json={})).json()
            shown["ticket"] = made["token"]
            shown["ephemeral token"] = (await http.post("/v1alpha/auth_tokens", json={"uses": 5})).json()[
                "name"
            ]
        yield server, shown | {"session": made["sessionId"]}


def ways(credential: str) -> list[tuple[str, dict[str, Any]]]:
    """Path with query, and how the rest is said, of sockets that show it; most of them are refused."""
    part = quote(credential, safe="")
    everything = "".join(f"%{byte:02X}" for byte in credential.encode())
    basic = base64.b64encode(f"ann:{credential}".encode()).decode()
    headers = (
        {"Authorization": f"Bearer {credential}"},
        {"Authorization": f"Token {credential}"},
        {"Authorization": credential},
        {"Authorization": f"Basic {basic}"},
        {"X-Goog-Api-Key": credential},
        {"X-Api-Key": credential},
        {"Cookie": f"session={credential}"},
        {"Referer": f"https://elsewhere.example/?token={credential}"},
        {"User-Agent": credential},
        {"X-Forwarded-For": credential},
    )
    return [
        *(("/ws", {"additional_headers": one}) for one in headers),
        *((GUEST, {"additional_headers": one}) for one in headers),
        *(
            (f"/ws?{name}={part}", {})
            for name in ("token", "ticket", "access_token", "key", "x", "sessionId")
        ),
        (f"/ws?access%5Ftoken={everything}", {}),
        (f"/ws?{part}", {}),
        (f"{GUEST}?key={part}", {}),
        (f"{GUEST}?access_token={part}", {}),
        ("/ws", {"subprotocols": ["tornado-live", f"bearer.{part}"]}),
    ]


async def shows(url: str, credential: str, **more: Any) -> None:
    """Opens sockets in all these ways, and says `connect` with it; whatever the server makes of it."""
    for path, how in ways(credential):
        try:
            options = {"user_agent_header": None, "compression": None, "proxy": None} | how | more
            async with connect(f"{url}{path}", **options) as socket:
                await socket.send(json.dumps({"type": "connect", "data": {"token": credential}}))
                await socket.recv()
                await socket.send(json.dumps({"type": credential, "sessionId": credential}))
                await socket.send(credential)
        except (InvalidHandshake, ConnectionClosed):
            continue


@pytest.mark.proves("T50")
async def test_credentials_that_count_are_in_no_line_however_they_are_shown(tmp_path: Path) -> None:
    async with asking(tmp_path) as (server, shown):
        session = shown.pop("session")
        for credential in shown.values():
            url = f"ws://127.0.0.1:{server.port}"
            async with connect(
                f"{url}/ws?sessionId={session}",
                additional_headers={"Authorization": f"Bearer {credential}"},
                proxy=None,
            ) as socket:
                await socket.close()
            await shows(url, credential)
            for name in ("Authorization", "X-Goog-Api-Key"):
                for value in (f"Bearer {credential}", credential):
                    await raw(server, request("GET", f"/api/{quote(credential)}", **{name: value}))
                    await raw(server, request("POST", "/v1alpha/auth_tokens", b"{}", **{name: value}))
                    await raw(server, request("POST", "/api/sessions", b"{}", **{name: value}))
        assert len(logged(server)) > 100
        not_in(server.log, shown)


@pytest.mark.proves("T50")
async def test_nor_are_they_in_a_log_of_the_sample_nginx(tmp_path: Path) -> None:
    async with asking(tmp_path) as (server, shown), Nginx(server.port) as proxy:
        shown.pop("session")
        trusting = httpx.AsyncClient(verify=proxy.tls, trust_env=False)
        async with trusting as http:
            for credential in shown.values():
                part = quote(credential, safe="")
                for path in (
                    f"/api/sessions?token={part}&key={part}",
                    f"/?{part}",
                    f"/ws?access_token={part}",
                ):
                    for base in (proxy.url, proxy.http_url):
                        headers = {"Authorization": f"Bearer {credential}", "Referer": f"{base}{path}"}
                        await http.get(f"{base}{path}", headers=headers | {"Cookie": f"a={credential}"})
                await shows(proxy.ws_url, credential, ssl=proxy.tls)
        paths = [one["path"] for one in proxy.requests]
        assert "/api/sessions" in paths
        assert len(paths) > 50
        not_in(proxy.logged, shown)
