"""WebSockets of which a test sends every byte itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from peering import Far, raw_connection
from serving import Server
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect

GUEST = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
SETUP: dict[str, Any] = {"setup": {"model": "models/gemini-3.8-live"}}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@contextlib.asynccontextmanager
async def upgraded(port: int | None, path: str = "/", *headers: str) -> AsyncIterator[Far]:
    """`path` is `/` on WS_PORT, and `/ws` or GUEST on PORT."""
    assert port is not None
    async with raw_connection(port) as far:
        await shake_hands(far, port, path, *headers)
        yield far


async def shake_hands(far: Far, port: int, path: str, *headers: str) -> str:
    """The head of the answer, which is a 101."""
    lines = [
        *(f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"),
        *(f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13", *headers, "", ""),
    ]
    await far.send("\r\n".join(lines).encode())
    async with asyncio.timeout(30):
        head = (await far.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 "), head
    return head


async def say(far: Far, message: object) -> None:
    await far.send(far.frame(Opcode.TEXT, json.dumps(message).encode()))


async def hear(far: Far, *wanted: str) -> dict[str, Any]:
    """The next message of one of those types, or of any."""
    while True:
        opcode, data = await far.receive()
        assert opcode is not Opcode.CLOSE, data
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            message: dict[str, Any] = json.loads(data)
            if not wanted or message.get("type") in wanted:
                return message


async def end(far: Far) -> int:
    """The code with which the server closes, 1006 where it only cuts the line."""
    try:
        return (await far.receive_close())[0]
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


def resident(server: Server) -> int:
    """Bytes of memory that it holds."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


class Exchange:
    """One line after the other to a server, for tests that are no coroutines: `ended` holds the codes with which
    those before were closed."""

    def __init__(self, server: Server) -> None:
        self._url = f"{server.ws_url}/"
        self._line: ClientConnection | None = None
        self._closing = contextlib.ExitStack()
        self._count = 0
        self.ended: list[int] = []

    def say(self, frame: str | bytes) -> list[dict[str, Any]]:
        """What comes back for it; where the line is closed, what came until then."""
        if self._line is None:
            opening = connect(self._url, compression=None, proxy=None, max_size=None, open_timeout=60)
            self._line = self._closing.enter_context(opening)
        self._count += 1
        behind = f"behind {self._count}"
        answers: list[dict[str, Any]] = []
        try:
            self._line.send(frame)
            self._line.send(json.dumps({"type": "ping", "data": behind}))
            while True:
                answer = self._line.recv(timeout=60)
                assert isinstance(answer, str)
                answers.append(json.loads(answer))
                if answers[-1].get("data") == behind:
                    return answers[:-1]
        except ConnectionClosed as closed:
            self.ended.append(closed.rcvd.code if closed.rcvd is not None else 1006)
            self.close()
            return answers

    def close(self) -> None:
        self._closing.close()
        self._line = None
