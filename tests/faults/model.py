"""A model side that a test plays by hand, message by message: nothing in it happens by time.

async with ModelSide() as model, Server(environ={"GEMINI_BASE_URL": model.url}) as server:
    ...
    line = await model.dialled()   # the setup has arrived: line.setup
    await line.ready(handle="h1")
    await line.send({"serverContent": {...}})
    answer = await line.receive("toolResponse")
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

_DEADLINE_S = 30.0


class ModelLine:
    """One connection of a server to its model. `setup` is what it sent first, `got` everything after that, and
    `seed` what a new session is told of the past, once that was received.
    """

    def __init__(self, socket: ServerConnection, setup: dict[str, Any]) -> None:
        self.setup = setup
        self.got: list[dict[str, Any]] = []
        self._socket = socket
        self.seed: dict[str, Any] | None = None
        self._unseeded = setup.get("historyConfig", {}).get("initialHistoryInClientContent") is True

    @property
    def handle(self) -> str | None:
        """The handle that the setup wants to resume with."""
        wanted: str | None = self.setup.get("sessionResumption", {}).get("handle")
        return wanted

    @property
    def audio(self) -> bytes:
        """The microphone audio of everything that was received so far."""
        blobs = (one["realtimeInput"].get("audio") for one in self.got if "realtimeInput" in one)
        return b"".join(base64.b64decode(blob["data"]) for blob in blobs if blob)

    async def ready(self, handle: str | None = None) -> None:
        """Accepts the setup; `handle` is what the connection may be resumed with from then on."""
        await self.send({"setupComplete": {}})
        if handle is not None:
            await self.resumable(handle)

    async def resumable(self, handle: str) -> None:
        await self.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

    async def not_resumable(self) -> None:
        await self.send({"sessionResumptionUpdate": {"resumable": False}})

    async def go_away(self, time_left: str | None) -> None:
        await self.send({"goAway": {} if time_left is None else {"timeLeft": time_left}})

    async def send(self, message: Mapping[str, Any]) -> None:
        """In a binary frame, as Google sends them."""
        await self.raw(json.dumps(message, indent=2).encode())

    async def raw(self, frame: str | bytes, *, text: bool | None = None) -> None:
        """A frame as it is; `text` True sends bytes as a text frame."""
        await self._socket.send(frame, text=text)

    async def say(self, words: str, pcm: bytes = b"", *, complete: bool = True) -> None:
        """Words with their sound, and the end of the turn."""
        content: dict[str, Any] = {"outputTranscription": {"text": words}}
        if pcm:
            data = base64.b64encode(pcm).decode()
            inline = {"mimeType": "audio/pcm;rate=24000", "data": data}
            content["modelTurn"] = {"role": "model", "parts": [{"inlineData": inline}]}
        await self.send({"serverContent": content})
        if complete:
            await self.complete()

    async def complete(self) -> None:
        await self.send({"serverContent": {"generationComplete": True}})
        await self.send({"serverContent": {"turnComplete": True}})

    async def heard(self, words: str) -> None:
        await self.send({"serverContent": {"inputTranscription": {"text": words}}})

    async def call(self, call_id: str, name: str, args: Mapping[str, Any] | None = None) -> None:
        call = {"id": call_id, "name": name, "args": dict(args or {})}
        await self.send({"toolCall": {"functionCalls": [call]}})

    async def receive(self, kind: str = "", within: float = _DEADLINE_S) -> dict[str, Any]:
        """The next message, or the next one with that key at its root."""
        async with asyncio.timeout(within):
            while True:
                message: dict[str, Any] = json.loads(await self._socket.recv())
                self.got.append(message)
                if self._unseeded and "clientContent" in message:
                    self.seed, self._unseeded = message["clientContent"], False
                if not kind or kind in message:
                    return message

    async def typed(self) -> str:
        """The next words of a user, in whichever form they come; a seed of the past is none."""
        while True:
            message = await self.receive()
            if self.seed is not None and message.get("clientContent") is self.seed:
                continue
            if "text" in message.get("realtimeInput", {}):
                return str(message["realtimeInput"]["text"])
            turns = message.get("clientContent", {}).get("turns")
            if turns and message["clientContent"].get("turnComplete"):
                return str(turns[-1]["parts"][0]["text"])

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code, reason)

    def drop(self) -> None:
        """The line is cut, without a close frame."""
        self._socket.transport.abort()

    async def closed(self, within: float = _DEADLINE_S) -> int:
        """Waits until the other side has closed; its code, 1006 for a cut line."""
        try:
            async with asyncio.timeout(within):
                while True:
                    await self.receive()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd is not None else 1006

    @property
    def open(self) -> bool:
        return self._socket.close_code is None and not self._socket.transport.is_closing()


class ModelSide:
    """Takes setups at `port`. `refusals` are statuses with headers that the next handshakes are answered with;
    `handshakes` counts all of them, `lines` holds those that sent a setup.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.refusals: deque[tuple[int, Mapping[str, str]]] = deque()
        self.handshakes = 0
        self.lines: list[ModelLine] = []
        self._waiting: list[ModelLine] = []
        self._arrived = asyncio.Condition()
        self._server: WebSocketServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_lines(self) -> list[ModelLine]:
        return [line for line in self.lines if line.open]

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            self.port,
            process_request=self._handshake,
            compression=None,
            ping_interval=None,
            max_size=None,
            max_queue=None,
            close_timeout=1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "used inside async with"
        self._server.close()
        await self._server.wait_closed()

    async def dialled(self, *handles: str | None, within: float = _DEADLINE_S) -> ModelLine:
        """The next connection whose setup has arrived; with handles, the next one that wants one of them."""
        found: list[ModelLine] = []

        def look() -> bool:
            found[:] = [line for line in self._waiting if not handles or line.handle in handles]
            return bool(found)

        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(look)
            self._waiting.remove(found[0])
            return found[0]

    def undialled(self) -> list[ModelLine]:
        """Connections that came and that `dialled` has not given yet."""
        return list(self._waiting)

    def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        if not self.refusals:
            return None
        status, headers = self.refusals.popleft()
        return Response(status, "Refused", Headers(headers | {"Content-Length": "0"}), b"")  # type: ignore[operator]

    async def _talk(self, socket: ServerConnection) -> None:
        try:
            first = json.loads(await socket.recv())
        except ConnectionClosed:
            return
        line = ModelLine(socket, first["setup"])
        self.lines.append(line)
        async with self._arrived:
            self._waiting.append(line)
            self._arrived.notify_all()
        await socket.wait_closed()
