"""A client of Google's protocol, as plain as frames: JSON out, decoded JSON in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from google.genai import types
from simulating import LIVE_PATH, MODEL, Simulator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

VERTEX_PATH = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
DEADLINE_S = 20
FAST = 20.0
AUDIO = {"responseModalities": ["AUDIO"]}
SETUP: dict[str, Any] = {
    "model": f"models/{MODEL}",
    "generationConfig": AUDIO,
    "inputAudioTranscription": {},
    "outputAudioTranscription": {},
}
MANUAL = {"realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}}}
WEATHER = {"name": "get_weather", "args": {"city": "Paris"}}
LONG_ANSWER: dict[str, Any] = {"turns": [{"do": [{"say": "A long answer.", "seconds": 60}], "repeat": True}]}
INVALID = "Request contains an invalid argument."


class Client:
    """A raw client: JSON out, decoded JSON in."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def say(self, text: str) -> None:
        await self.send({"realtimeInput": {"text": text}})

    async def audio(self, pcm: bytes, rate: int = 16_000, chunk_ms: int = 20) -> None:
        size = rate * chunk_ms // 1000 * 2
        for at in range(0, len(pcm), size):
            data = base64.b64encode(pcm[at : at + size]).decode()
            await self.send(
                {"realtimeInput": {"audio": {"mimeType": f"audio/pcm;rate={rate}", "data": data}}}
            )

    async def next(self) -> dict[str, Any]:
        """The next message that is not the empty one."""
        while not (message := json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE_S))):
            pass
        assert isinstance(message, dict)
        is_known_to_google(message)
        return message

    async def until(self, wanted: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        """All messages up to the first for which `wanted` is true."""
        messages = [await self.next()]
        while not wanted(messages[-1]):
            messages.append(await self.next())
        return messages

    async def turn(self) -> list[dict[str, Any]]:
        return await self.until(lambda message: "turnComplete" in message.get("serverContent", {}))

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close that ends the connection; 1006 for none."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(self.socket.recv(), DEADLINE_S)
        close = self.socket.close_code, self.socket.close_reason
        assert close[0] is not None
        assert close[1] is not None
        return close[0], close[1]


# The SDK gives these another name before it looks.
_RENAMED = {
    "voiceActivity": {"type": "voiceActivityType"},
    "usageMetadata": {
        "candidatesTokenCount": "responseTokenCount",
        "candidatesTokensDetails": "responseTokensDetails",
    },
}


def is_known_to_google(message: Mapping[str, Any]) -> None:
    """Fails for a field or a type of value that google-genai's types do not have."""
    renamed = dict(message)
    if "toolCall" in message:
        renamed.pop("interactionStatus", None)  # documented there, and left out by the SDK
    for name in message.keys() & _RENAMED.keys():
        renamed[name] = {_RENAMED[name].get(field, field): value for field, value in message[name].items()}
    types.LiveServerMessage.model_validate(renamed)


@contextlib.asynccontextmanager
async def dialled(simulator: Simulator, path: str = LIVE_PATH, **options: Any) -> AsyncIterator[Client]:
    url = simulator.url.replace("http", "ws", 1) + path
    async with connect(url, proxy=None, max_size=None, **{"compression": None, **options}) as socket:
        yield Client(socket)


@contextlib.asynccontextmanager
async def opened(simulator: Simulator, **setup: Any) -> AsyncIterator[Client]:
    async with dialled(simulator) as client:
        await client.send({"setup": {**SETUP, **setup}})
        assert await client.next() == {"setupComplete": {}}
        yield client


def content(message: Mapping[str, Any]) -> dict[str, Any]:
    found = message.get("serverContent", {})
    assert isinstance(found, dict)
    return found


def sound(messages: list[dict[str, Any]]) -> list[bytes]:
    parts = [part for message in messages for part in content(message).get("modelTurn", {}).get("parts", [])]
    return [base64.b64decode(part["inlineData"]["data"]) for part in parts if "inlineData" in part]


def words(messages: list[dict[str, Any]]) -> str:
    return "".join(content(message).get("outputTranscription", {}).get("text", "") for message in messages)


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    """The messages' kinds in order, runs of sound as one."""
    found: list[str] = []
    for message in messages:
        for name in sorted([*content(message), *(message.keys() - {"serverContent"})]):
            if name not in ("outputTranscription",) and [name] != found[-1:]:
                found.append(name)
    return found


def is_sound(message: Mapping[str, Any]) -> bool:
    return "modelTurn" in content(message)


def answer(call: Mapping[str, Any], response: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": call["id"], "name": call["name"], "response": response, **more}
