"""Two hours of talk in less than a minute: connections live for five seconds instead of ten minutes."""

from __future__ import annotations

import asyncio
import base64
import io
import time
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulating import Simulator
from talking import Talker

from faults.pcm import numbered, numbers
from faults.proxy import Proxy
from faults.stage import events, get, kinds, memory, serving, told

ROTATIONS = 12
AGE_S, GO_AWAY_S = 5.0, 4.0
"""Of one connection: how long it lives, and how long before its end that is announced."""

SPEED = 20
CHUNK = 3200
CHUNK_S = 0.05
"""A tenth of a second of microphone in half the time."""

ANSWER = 480
TOOLS = """\
version: 1
tools:
  count:
    description: Counts.
    parameters: {type: object, properties: {}}
    python: counting_tools:count
"""
HANDLER = """\
import asyncio

async def count():
    await asyncio.sleep(0.2)
    return {"counted": True}
"""
SCENARIO = {
    "turns": [
        {
            "typed": "count",
            "repeat": True,
            "do": [{"call": {"name": "count"}}, {"say": "Counted.", "wav": "answer.wav"}],
        },
        {"repeat": True, "do": [{"say": "Well.", "wav": "answer.wav"}]},
    ]
}


def answer() -> bytes:
    """Half a second of numbered sound."""
    return b"".join(numbered(number, ANSWER) for number in range(50))


def wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(24_000)
        writer.writeframes(pcm)
    return file.getvalue()


class Conversation:
    """Speaks without a pause, asks something a few times a second, and writes down what comes back."""

    def __init__(self, client: Talker) -> None:
        self._client = client
        self._turn_over = asyncio.Event()
        self._held = 0
        self.spoken = 0
        self.asked: list[str] = []
        self.answers: list[bytes] = []
        self.switches: list[dict[str, Any]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            speaking = group.create_task(self._speak())
            await self._ask()
            speaking.cancel()
            listening.cancel()

    @property
    def _enough(self) -> bool:
        return len(self.switches) >= ROTATIONS

    async def _listen(self) -> None:
        heard = 0
        while True:
            message = await self._client.next(30)
            data = message.get("data", {})
            if message["type"] == "turn_complete":
                self.answers.append(b"".join(self._client.audio[heard:]))
                heard = len(self._client.audio)
                self._turn_over.set()
            elif message["type"] == "status" and data["status"] == "RECONNECTING":
                self._held = self.spoken
            elif message["type"] == "status" and data["status"] == "CONNECTED":
                self._held = 0
                self.switches.append(data)

    async def _speak(self) -> None:
        start = time.monotonic()
        while True:
            # A slow machine's switch may take longer than what is held: then the speaker waits, too.
            if not self._held or self.spoken - self._held < 30:
                await self._client.speak(numbered(self.spoken, CHUNK))
                self.spoken += 1
            await asyncio.sleep(max(0.0, start + self.spoken * CHUNK_S - time.monotonic()))

    async def _ask(self) -> None:
        while not self._enough:
            words = f"{'count' if len(self.asked) % 3 == 0 else 'hello'} {len(self.asked)}"
            self._turn_over.clear()
            self.asked.append(words)
            await self._client.send("text", {"text": words})
            async with asyncio.timeout(30):
                await self._turn_over.wait()
            await asyncio.sleep(0.3)


@pytest.mark.proves("F10", "F21")
@pytest.mark.timeout(seconds=120)
async def test_through_twelve_connections_nothing_is_lost_doubled_or_forgotten(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "counting_tools.py").write_text(HANDLER)
    (tmp_path / "answer.wav").write_bytes(wav(answer()))
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    age = ("--age", str(AGE_S * SPEED), "--go-away", str(GO_AWAY_S * SPEED))
    async with (
        Simulator(scenario, speed=SPEED, latency=0.1, arguments=age) as simulator,
        Proxy(simulator.port, taps=True) as proxy,
        serving(
            proxy.port,
            *("--set", "handler_prefixes=counting_tools", "--set", "limits.memory_messages=1000"),
            home=tmp_path,
        ) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.connected()
        session = client.seen[-1]["sessionId"]
        talk = Conversation(client)
        await talk.run()

        await client.send("text", {"text": "the end"})
        await client.until("turn_complete")
        assert told(client, "status", "error", "warning") == [
            "status CONNECTING",
            "status CONNECTED",
            *["status RECONNECTING", "status CONNECTED"] * len(talk.switches),
        ]
        assert {(data["resumed"], data["memory"]) for data in talk.switches} == {(True, "restored")}

        happened = await events(server, session)
        assert kinds(happened, "model_lost") == [], "left in time, each of them"
        assert all(event["data"]["planned"] for event in kinds(happened, "switched"))
        assert len(proxy.lines) == len(talk.switches) + 1
        assert len(proxy.open_lines) == 1

        up = [message for line in proxy.lines for message in line.up.messages.seen]
        sound = [
            message["realtimeInput"]["audio"]["data"]
            for message in up
            if "audio" in message.get("realtimeInput", {})
        ]
        assert numbers(b"".join(map(base64.b64decode, sound)), CHUNK) == list(range(talk.spoken))
        assert all(numbers(heard, ANSWER) == list(range(50)) for heard in talk.answers)
        assert len(talk.answers) == len(talk.asked)

        calls = [message["data"]["id"] for message in client.seen if message["type"] == "tool_call"]
        assert len(calls) == len([words for words in talk.asked if words.startswith("count")])
        responses = [
            one
            for message in up
            if "toolResponse" in message
            for one in message["toolResponse"]["functionResponses"]
        ]
        assert Counter(response["id"] for response in responses) == Counter(calls), "each answered once"

        said = [text for role, text in await memory(server, session) if role == "user"]
        assert said == [*talk.asked, "the end"]
        assert len([role for role, _ in await memory(server, session) if role == "model"]) == len(said)
        gaps = sorted(data["gapMs"] for data in talk.switches)
        print({"switches": len(gaps), "gapMs": gaps, "turns": len(talk.asked), "chunks": talk.spoken})
        assert "tornado_live_audio_dropped_seconds_total 0.0" in (await get(server, "/metrics")).text
