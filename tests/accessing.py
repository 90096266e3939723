"""Callers of servers that ask who they are: API keys, signed tokens and tickets, and how they are shown."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
from serving import Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tornado_live.access.keys import keep_key, make_key
from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import SessionStore

SECRET = "no-real-secret-for-signing-tokens-of-tests"
ISSUER, AUDIENCE = "https://issuer.example", "tornado-live"
ASKING = {
    "AUTH__MODES": "api_key,jwt",
    "AUTH__JWT_ALGORITHMS": "HS256",
    "AUTH__JWT_SECRET": SECRET,
    "AUTH__JWT_ISSUER": ISSUER,
    "AUTH__JWT_AUDIENCE": AUDIENCE,
    "AUTH__JWT_LEEWAY_S": "0",
}
"""The environment of a server that asks."""


@asynccontextmanager
async def store_of(shared: Mapping[str, str]) -> AsyncIterator[SessionStore]:
    """The store of servers with those settings (`REDIS_URL`, or `DATA_DIR`)."""
    store: SessionStore
    if "REDIS_URL" in shared:
        store = RedisSessionStore(shared["REDIS_URL"], prefix="tornado-live:", ttl_s=1800, deadline_s=30.0)
    else:
        store = await SqliteSessionStore.open(Path(shared["DATA_DIR"]) / "sessions.db", ttl_s=1800)
    try:
        yield store
    finally:
        await store.close()


async def api_key(shared: Mapping[str, str], name: str, **may: Any) -> str:
    """Good at once, and for good. `may`: what `make_key` takes."""
    shown, key = make_key(name, now=time.time(), **may)
    async with store_of(shared) as store:
        await keep_key(store, key, None)
    return shown


def signed(user: str, *, lasts_s: float = 600, **claims: object) -> str:
    now = time.time()
    known = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "iat": int(now) - 1, "exp": now + lasts_s}
    return jwt.encode(known | claims, SECRET, algorithm="HS256")


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@asynccontextmanager
async def asking(server: Server, credential: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=server.url, headers=bearer(credential), trust_env=False, timeout=60
    ) as client:
        yield client


async def session_of(server: Server, credential: str, **wanted: object) -> dict[str, Any]:
    """A new session, with its `sessionId`, `wsUrl` and the ticket `token`."""
    async with asking(server, credential) as client:
        made = await client.post("/api/sessions", json=wanted)
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


async def ticket_of(server: Server, credential: str, session: str, **wanted: object) -> str:
    async with asking(server, credential) as client:
        made = await client.post(f"/api/sessions/{session}/token", json=wanted)
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


@asynccontextmanager
async def shown_with_the_handshake(
    server: Server, session: str, credential: str
) -> AsyncIterator[ClientConnection]:
    """As pages do where they can: beside the subprotocol. Raises InvalidStatus where it is refused."""
    async with connect(
        f"{server.ws_url}/?sessionId={session}",
        subprotocols=["tornado-live", f"bearer.{credential}"],  # type: ignore[list-item]  # any text will do
        compression=None,
        proxy=None,
    ) as connection:
        with suppress(ConnectionClosed):  # it was refused meanwhile
            await connection.send(json.dumps({"type": "connect"}))
        yield connection


@asynccontextmanager
async def shown_with_connect(
    server: Server, session: str, credential: str
) -> AsyncIterator[ClientConnection]:
    """As the first message, of a page that this server serves."""
    async with connect(
        f"{server.ws_url}/?sessionId={session}",
        origin=f"http://127.0.0.1:{server.ws_port}",  # type: ignore[arg-type]  # any text will do
        compression=None,
        proxy=None,
    ) as connection:
        await connection.send(json.dumps({"type": "connect", "data": {"token": credential}}))
        yield connection


Show = Callable[[Server, str, str], AbstractAsyncContextManager[ClientConnection]]
SHOWN: Sequence[Show] = (shown_with_the_handshake, shown_with_connect)
"""The ways in which a socket shows a credential."""


async def outcome(stack: AsyncExitStack, show: Show, server: Server, session: str, credential: str) -> str:
    """`in` for who gets into a conversation, on a socket that `stack` closes; else the status or the close code
    with which it was refused."""
    try:
        connection = await stack.enter_async_context(show(server, session, credential))
        while json.loads(await connection.recv())["type"] != "status":
            pass
    except InvalidStatus as refused:
        return str(refused.response.status_code)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd is not None else 1006)
    return "in"
