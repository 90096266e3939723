"""A client of the native protocol, as plain as the protocol is: JSON over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import canary
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DEADLINE_S = 30.0


class Talker:
    """`async with Talker(url) as client:` - `seen` holds every message so far, audio as raw bytes in `audio`."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_queue: int | None = 16,
        tls: ssl.SSLContext | None = None,
        kernel_keeps: int | None = None,
    ) -> None:
        """`kernel_keeps`: about the bytes that arrive unread; else it decides, up to many MiB."""
        self._url = url
        self._headers = dict(canary.credentials(url) if headers is None else headers)
        self._max_queue = max_queue
        self._tls = tls
        self._kernel_keeps = kernel_keeps
        self._connection: ClientConnection | None = None
        self.seen: list[dict[str, Any]] = []
        self.audio: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._connection = await connect(
            self._url,
            sock=await self._socket(),
            ssl=self._tls,
            additional_headers=self._headers,
            compression=None,
            proxy=None,
            max_size=None,
            max_queue=self._max_queue,
        )
        return self

    async def _socket(self) -> socket.socket | None:
        if self._kernel_keeps is None:
            return None
        address = urlsplit(self._url)
        made = socket.socket()
        made.setblocking(False)
        # Before it connects: the window that it offers is agreed then.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._kernel_keeps)
        await asyncio.get_running_loop().sock_connect(made, (address.hostname, address.port))
        return made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()

    @property
    def connection(self) -> ClientConnection:
        assert self._connection is not None, "used inside async with"
        return self._connection

    async def send(self, type_: str, data: object = None, **more: object) -> None:
        message: dict[str, object] = {"type": type_, **more}
        if data is not None:
            message["data"] = data
        await self.connection.send(json.dumps(message))

    async def raw(self, frame: str | bytes) -> None:
        await self.connection.send(frame)

    async def speak(self, pcm: bytes, rate: int = 16000) -> None:
        data = {"data": base64.b64encode(pcm).decode(), "mimeType": f"audio/pcm;rate={rate}"}
        await self.send("audio", data)

    async def next(self, within: float = DEADLINE_S) -> dict[str, Any]:
        """The next text message; audio on the way is kept in `audio`. A closed line raises ConnectionClosed."""
        async with asyncio.timeout(within):
            while True:
                frame = await self.connection.recv()
                if isinstance(frame, bytes):
                    self.audio.append(frame)
                    continue
                message: dict[str, Any] = json.loads(frame)
                self.seen.append(message)
                if message["type"] == "audio":
                    self.audio.append(base64.b64decode(message["data"]["audio"]))
                else:
                    return message

    async def until(
        self,
        type_: str,
        where: Callable[[dict[str, Any]], bool] = lambda data: True,
        within: float = DEADLINE_S,
    ) -> dict[str, Any]:
        """The data of the next message of that type for which `where` holds."""
        async with asyncio.timeout(within):
            while True:
                message = await self.next(within)
                if message["type"] == type_ and where(message.get("data", {})):
                    data: dict[str, Any] = message.get("data", {})
                    return data

    async def connected(self, **options: object) -> dict[str, Any]:
        """Sends `connect` and waits for CONNECTED; its data."""
        await self.send("connect", options or None)
        return await self.until("status", lambda data: data["status"] == "CONNECTED")

    async def closed(self, within: float = DEADLINE_S) -> tuple[int, str]:
        """Waits for the end of the line: its code and reason."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self.next(within)
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (1006, "")

    def types(self) -> list[str]:
        return [message["type"] for message in self.seen]
