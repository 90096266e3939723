"""The server between a model side and its clients, and what can be asked of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import canary
import httpx
from serving import ROOT, Server
from talking import Talker

from faults.model import ModelLine, ModelSide

KEY = canary.GEMINI_KEY


def environment(model_port: int, home: Path | None = None) -> dict[str, str]:
    """For a server whose model side is at that port; handlers of tools may lie in `home`."""
    return {
        "GEMINI_BASE_URL": f"http://127.0.0.1:{model_port}",
        "GEMINI_API_KEY": KEY,
        "PYTHONPATH": f"{home}:{ROOT}",
    }


@contextlib.asynccontextmanager
async def serving(
    model_port: int, *args: str, home: Path | None = None, **environ: str
) -> AsyncIterator[Server]:
    """A server of the test's own. `args` follow `serve`; tools.yaml may lie in `home`."""
    async with Server(*args, home=home, environ=environment(model_port, home) | environ) as server:
        yield server
        unbroken(server)


def unbroken(server: Server) -> None:
    """Whatever was broken, it was not the server."""
    assert "conversation_failed" not in server.log
    assert "Traceback" not in server.log


@contextlib.asynccontextmanager
async def talking(server: Server, model: ModelSide, handle: str | None = "h1") -> AsyncIterator[Talk]:
    """A client whose conversation has been opened."""
    async with Talker(f"{server.ws_url}/") as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready(handle)
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        yield Talk(server, client, line)


class Talk:
    """One conversation: its server, its client, and the line to the model that it began with."""

    def __init__(self, server: Server, client: Talker, line: ModelLine) -> None:
        self.server = server
        self.client = client
        self.line = line
        self.session: str = client.seen[-1]["sessionId"]

    async def turn(self, asked: str, answered: str, line: ModelLine | None = None) -> None:
        """One typed question and its answer; what the server itself asks before is passed over."""
        line = line or self.line
        await self.client.send("text", {"text": asked})
        while await line.typed() != asked:
            pass
        await line.say(answered, bytes(4800))
        await self.client.until("turn_complete")

    async def memory(self) -> list[tuple[str, str]]:
        return await memory(self.server, self.session)

    async def events(self) -> list[dict[str, Any]]:
        return await events(self.server, self.session)


async def get(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        return await http.get(path, headers=canary.credentials(server.url))


async def memory(server: Server, session: str) -> list[tuple[str, str]]:
    """What the session remembers: who said what."""
    shown = (await get(server, f"/api/sessions/{session}?include=memory")).json()
    return [(item["role"], item["text"]) for item in shown["memory"]]


async def events(server: Server, session: str) -> list[dict[str, Any]]:
    """What happened in the session, oldest first."""
    listed: list[dict[str, Any]] = (await get(server, f"/api/sessions/{session}/events")).json()["events"]
    return listed


async def settled(condition: Callable[[], Awaitable[bool]], within: float = 20.0) -> None:
    """Waits until it holds: for what a server is to come back to, and tells nobody of."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def idle(server: Server) -> bool:
    """Whether no conversation is left."""
    return "tornado_live_conversations 0.0" in (await get(server, "/metrics")).text


def kinds(happened: list[dict[str, Any]], *wanted: str) -> list[dict[str, Any]]:
    """The events of those kinds."""
    return [event for event in happened if event["kind"] in wanted]


def told(client: Talker, *wanted: str) -> list[str]:
    """What the client was told, in order, as `status CONNECTED`, `error unavailable`, or the bare type."""
    shown = []
    for message in client.seen:
        data = message.get("data") or {}
        detail = data.get("status") or (data.get("code") if message["type"] in ("error", "warning") else None)
        if not wanted or message["type"] in wanted:
            shown.append(f"{message['type']} {detail}" if detail else message["type"])
    return shown
