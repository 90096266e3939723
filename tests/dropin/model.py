"""A model side that a test plays by hand, frame by frame, and that keeps what it gets byte for byte.

async with ModelSide(port) as model, guest(gateway.url) as client:
    await client.send({"setup": model.setup()})
    line = await model.dialled()
    await line.ready("h1")
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from dropin.wire import DEADLINE_S, Frame, Guest, Message, guest

_numbers = itertools.count()


class Line:
    """One connection of a gateway. `frames` is all that came after the setup."""

    def __init__(self, socket: ServerConnection, setup: Message) -> None:
        self.setup = setup
        self.frames: list[Frame] = []
        self._socket = socket

    @property
    def path(self) -> str:
        assert self._socket.request is not None
        return self._socket.request.path

    @property
    def headers(self) -> Mapping[str, str]:
        assert self._socket.request is not None
        return dict(self._socket.request.headers)

    @property
    def handle(self) -> str | None:
        """The handle that the setup wants to resume with."""
        wanted: str | None = self.setup.get("sessionResumption", {}).get("handle")
        return wanted

    async def ready(self, handle: str | None = None) -> None:
        """Accepts the setup; `handle` is what the connection may be resumed with."""
        await self.send({"setupComplete": {}})
        if handle is not None:
            await self.resumable(handle)

    async def resumable(self, handle: str) -> None:
        await self.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

    async def send(self, message: Mapping[str, Any] | Frame) -> None:
        """As the service writes it, unless it is a frame already."""
        raw = isinstance(message, str | bytes)
        await self._socket.send(message if raw else (json.dumps(message, indent=2) + "\n").encode())  # type: ignore[arg-type]

    async def say(self, words: str, *, complete: bool = True) -> None:
        await self.send({"serverContent": {"outputTranscription": {"text": words}}})
        if complete:
            await self.complete()

    async def complete(self) -> None:
        await self.send({"serverContent": {"generationComplete": True}})
        await self.send({"serverContent": {"turnComplete": True}})

    async def call(self, *calls: tuple[str, str] | tuple[str, str, Mapping[str, Any]]) -> None:
        """Calls in one message, each an id and a name, and the arguments if there are any."""
        made = [{"name": call[1], "args": dict(*call[2:]), "id": call[0]} for call in calls]
        await self.send({"toolCall": {"functionCalls": made}})

    async def next(self) -> Message:
        async with asyncio.timeout(DEADLINE_S):
            self.frames.append(await self._socket.recv())
        message: Message = json.loads(self.frames[-1])
        return message

    async def until(self, *names: str) -> Message:
        """The next message that has one of these at its root."""
        while not (message := await self.next()).keys() & set(names):
            pass
        return message

    async def typed(self, text: str) -> None:
        """Until these words have come; what else comes before is passed over."""
        while text not in json.dumps(await self.next(), ensure_ascii=False):
            pass

    async def answers(self) -> Sequence[Message]:
        """Those of the next answer to functions."""
        message = await self.until("toolResponse", "tool_response")
        answer = message.get("toolResponse") or message["tool_response"]
        answers: Sequence[Message] = answer.get("functionResponses") or answer["function_responses"]
        return answers

    def drop(self) -> None:
        """The line is cut, without a close frame."""
        self._socket.transport.abort()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code, reason)

    async def closed(self) -> None:
        """Waits until the other side is gone."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()


class ModelSide:
    """At that port, for one test: connections of the conversations of others are left alone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._label = str(next(_numbers))
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._server: Server | None = None

    def setup(self, **more: Any) -> Message:
        """A guest's setup for this test."""
        return {
            "model": "models/gemini-3.8-live",
            "generationConfig": {"responseModalities": ["AUDIO"]},
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            "tools": [{"functionDeclarations": [{"name": "look", "description": "Looks."}]}],
            "labels": {"test": self._label},
            **more,
        }

    async def dialled(self) -> Line:
        """The next connection whose setup has come."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._lines.get()

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            self._port,
            compression=None,
            ping_interval=None,
            max_size=None,
            close_timeout=1,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "used inside async with"
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            setup = json.loads(await socket.recv())["setup"]
            if setup.get("labels") == {"test": self._label}:
                self._lines.put_nowait(Line(socket, setup))
            await socket.wait_closed()


@dataclass(frozen=True, slots=True)
class Talk:
    """A guest whose conversation has begun, its model side, and the line that it began with."""

    client: Guest
    model: ModelSide
    line: Line

    async def turn(self, asked: str, line: Line | None = None) -> list[Message]:
        """A question and its answer; what the client got for it."""
        line = line or self.line
        await self.client.say(asked)
        await line.typed(asked)
        await line.say(f"As for {asked}")
        return await self.client.turn()


@contextlib.asynccontextmanager
async def talking(
    url: str,
    port: int,
    *,
    handle: str | None = "h1",
    path: str = "",
    headers: Mapping[str, str] | None = None,
    **setup: Any,
) -> AsyncIterator[Talk]:
    """`handle` is the first that the model side gives; `setup` has fields of the guest's."""
    async with ModelSide(port) as model, guest(url, path, headers=headers) as client:
        await client.send({"setup": model.setup(**setup)})
        line = await model.dialled()
        await line.ready(handle)
        assert (await client.next()).keys() == {"setupComplete"}
        yield Talk(client, model, line)


class Gate:
    """Where the tool `wait` waits: `("c1", "wait", gate.arguments)` is a call, `arrival` its run."""

    async def __aenter__(self) -> Self:
        self._arrivals: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        self.arguments = {"port": self._server.sockets[0].getsockname()[1], "n": 1}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def arrival(self) -> asyncio.StreamWriter:
        """The next run of the tool; `write(b'{...}\\n')` is its result."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._arrivals.get()

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        self._arrivals.put_nowait(writer)
        try:
            while await reader.read(100):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()
