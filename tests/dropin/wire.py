"""A client of Google's protocol, as plain as frames, which keeps every frame as it came."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DEADLINE_S = 30.0
KEY = "a-key-of-the-client"

Frame: TypeAlias = "str | bytes"
Message: TypeAlias = "dict[str, Any]"


def method(version: str = "v1beta", *, constrained: bool = False) -> str:
    """The path of the service's method."""
    name = "BidiGenerateContentConstrained" if constrained else "BidiGenerateContent"
    return f"/ws/google.ai.generativelanguage.{version}.GenerativeService.{name}"


def url_safe(data: bytes) -> str:
    """Base64 as every Python client sends it."""
    return base64.urlsafe_b64encode(data).decode()


class Guest:
    """One connection. `sent` and `received` have every frame, byte for byte.

    answering: functions that it answers by itself, with what, and whose calls `next` does not give: of a client
    that talks to the model directly and plays the part of a gateway's tools.
    """

    def __init__(self, socket: ClientConnection, answering: Mapping[str, Any]) -> None:
        self.socket = socket
        self.sent: list[Frame] = []
        self.received: list[Frame] = []
        self._answering = answering
        self._in_answered_call = False

    async def send(self, message: Mapping[str, Any] | Frame) -> None:
        frame = message if isinstance(message, str | bytes) else json.dumps(message)
        self.sent.append(frame)
        await self.socket.send(frame)

    async def next(self) -> Message:
        """The next message, whatever it is."""
        async with asyncio.timeout(DEADLINE_S):
            frame = await self.socket.recv()
        self.received.append(frame)
        message: Message = json.loads(frame)
        if content(message).keys() & {"modelTurn", "outputTranscription"}:
            self._in_answered_call = False
        calls = message.get("toolCall", {}).get("functionCalls", [])
        known = [call for call in calls if call["name"] in self._answering]
        # Several calls of one message are answered together, in their order: by the script if one is its own.
        if not known or len(known) < len(calls):
            self._in_answered_call = self._in_answered_call and not calls
            return message
        self._in_answered_call = True
        await self.socket.send(json.dumps({"toolResponse": {"functionResponses": self.answers(known)}}))
        return await self.next()

    def answers(self, calls: Sequence[Message]) -> list[Message]:
        """To those of the calls that it answers by itself."""
        return [
            {"id": call["id"], "name": call["name"], "response": self._answering[call["name"]]}
            for call in calls
            if call["name"] in self._answering
        ]

    async def until(self, wanted: Callable[[Message], Any]) -> list[Message]:
        """All messages up to the first for which `wanted` is true."""
        messages = [await self.next()]
        while not wanted(messages[-1]):
            messages.append(await self.next())
        return messages

    async def turn(self) -> list[Message]:
        """All messages up to turnComplete; one between a call that it answers by itself and the answer is none."""
        return await self.until(
            lambda message: "turnComplete" in content(message) and not self._in_answered_call
        )

    async def idle(self) -> list[Message]:
        """All messages up to the end of what the model has to say; of most models that is a turnComplete."""
        messages = await self.turn()
        while content(messages[-1]).get("interactionStatus") == "IN_PROGRESS":
            messages += await self.turn()
        return messages

    async def call(self) -> list[Message]:
        """The calls of the next toolCall."""
        messages = await self.until(lambda message: "toolCall" in message)
        calls: list[Message] = messages[-1]["toolCall"]["functionCalls"]
        return calls

    async def opened(self, setup: Mapping[str, Any] | Frame) -> Message:
        """Sends the setup, and gives the answer."""
        await self.send({"setup": setup} if isinstance(setup, Mapping) else setup)
        message = await self.next()
        assert message.keys() == {"setupComplete"}, message
        return message

    async def say(self, text: str) -> None:
        await self.send({"realtime_input": {"text": text}})

    async def hear(self, pcm: bytes) -> None:
        """Sound as the Python SDK sends it, 20 ms a message."""
        for at in range(0, len(pcm), 640):
            blob = {"data": url_safe(pcm[at : at + 640]), "mime_type": "audio/pcm;rate=16000"}
            await self.send({"realtime_input": {"audio": blob}})

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close that ends the connection; 1006 for none."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code or 1006, self.socket.close_reason or ""


@contextlib.asynccontextmanager
async def guest(
    url: str,
    path: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    answering: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Guest]:
    """A connection to the server of `url` (http or https), by default with a key where the Python SDK has it."""
    address = url.replace("http", "ws", 1) + (path or method())
    given = {"x-goog-api-key": KEY} if headers is None else headers
    async with connect(
        address, additional_headers=given, proxy=None, max_size=None, close_timeout=2, **options
    ) as socket:
        yield Guest(socket, answering or {})


def content(message: Mapping[str, Any]) -> Message:
    found: Message = message.get("serverContent", {})
    return found


def kinds(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the messages have, in order; runs of one kind as one, and the empty ones left out."""
    found: list[str] = []
    for message in messages:
        for name in [*content(message), *(message.keys() - {"serverContent"})]:
            if [name] != found[-1:]:
                found.append(name)
    return found


def words(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the model said."""
    return "".join(content(message).get("outputTranscription", {}).get("text", "") for message in messages)
