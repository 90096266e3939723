"""Fault upon fault, at any moment of a conversation: the promises hold, whatever the order."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from simulating import Simulator
from talking import Talker

from faults.pcm import numbered, numbers
from faults.proxy import Proxy
from faults.stage import idle, memory, serving, settled, told
from tornado_live.simulator.testing import ControlRefused

STEPS = 8
MODELS = ["gemini-3.8-live", "gemini-3.1-flash-live-preview", "gemini-2.5-flash-native-audio-preview-12-2025"]
SEED = 2026

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
    await asyncio.sleep(0.1)
    return {"counted": True}
"""
SCENARIO = {
    "turns": [
        {
            "typed": "count",
            "repeat": True,
            "do": [{"call": {"name": "count"}}, {"say": "Counted.", "seconds": 1}],
        },
        {"repeat": True, "do": [{"say": "Well then.", "seconds": 1}]},
    ]
}
FAULTS: list[Any] = [
    "drop",
    "reset",
    {"close": {"code": 1011, "reason": "Internal error encountered."}},
    {"close": {"code": 1008, "reason": "The operation was aborted."}},
    {"close": {"code": 1008, "reason": "Operation is not implemented, or supported, or enabled."}},
    {"close": {"code": 1007, "reason": "Request contains an invalid argument."}},
    {"close": {"code": 1000, "reason": ""}},
    {"close_after_tool_response": {"code": 1008, "reason": "Operation is not implemented"}},
    {"go_away": {"go_away": 1000, "time_left": "0s"}},
    {"go_away": 40},
    {"giant": 17},
    {"bad_json": 3},
    {"bad_utf8": 2},
    "cancel_calls",
    "unknown_fields",
    "lose_handles",
    "proxy reset",
    "proxy drop",
]


class Chaos:
    """One conversation, to which something happens with every question."""

    def __init__(self, client: Talker, simulator: Simulator, proxy: Proxy, seed: int) -> None:
        self.asked: list[str] = []
        self.done: list[str] = []
        self.spoken = 0
        self._client = client
        self._simulator = simulator
        self._proxy = proxy
        self._chance = random.Random(seed)

    async def run(self) -> None:
        speaking = asyncio.get_running_loop().create_task(self._speak())
        try:
            await self._ask()
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _speak(self) -> None:
        while True:
            await self._client.speak(numbered(self.spoken))
            self.spoken += 1
            await asyncio.sleep(0.02)

    async def _ask(self) -> None:
        for number in range(STEPS):
            fault = self._chance.choice(FAULTS)
            words = f"{self._chance.choice(['count', 'hello'])} {number}"
            first = self._chance.random() < 0.5
            self.done.append(f"{fault} {'before' if first else 'after'} {words}")
            if first:
                await self._break(fault)
            await self._client.send("text", {"text": words})
            self.asked.append(words)
            if not first:
                await asyncio.sleep(self._chance.uniform(0, 0.3))
                await self._break(fault)
            await self._client.until("turn_complete", self._answered, within=40)

    def _answered(self, data: dict[str, Any]) -> bool:
        """Whether the turn that was just completed has the whole of an answer."""
        said = [one["data"] for one in self._client.seen if one["type"] == "transcription"]
        whole = [
            one["text"]
            for one in said
            if one["isFinal"] and one["turn"] == data["turn"] and not one["isUser"]
        ]
        return any(text.endswith(("then.", "Counted.")) for text in whole)

    async def _break(self, fault: Any) -> None:
        if fault == "proxy reset":
            for line in self._proxy.open_lines:
                line.down.reset_after(self._chance.randrange(1, 5000))
        elif fault == "proxy drop":
            for line in self._proxy.open_lines:
                line.drop()
        else:
            with contextlib.suppress(ControlRefused):  # it is being switched now
                await self._simulator.control(fault, connection="all")


@pytest.mark.proves("F4", "F5", "F6", "F10", "F13", "F15", "F16", "F17", "F21")
@pytest.mark.timeout(seconds=120)
@pytest.mark.parametrize("model", MODELS)
async def test_through_all_of_it_every_question_is_answered_and_remembered_once(
    tmp_path: Path, model: str
) -> None:
    seed = SEED + MODELS.index(model)
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "counting_tools.py").write_text(HANDLER)
    async with (
        Simulator(SCENARIO, speed=20, latency=0.5) as simulator,
        Proxy(simulator.port, seed=seed, taps=True) as proxy,
        serving(
            proxy.port,
            "--set",
            "handler_prefixes=counting_tools",
            "--set",
            "limits.memory_messages=1000",
            GEMINI_LIVE_MODEL=model,
            home=tmp_path,
        ) as server,
    ):
        async with Talker(f"{server.ws_url}/") as client:
            await client.connected()
            session = client.seen[-1]["sessionId"]
            talk = Chaos(client, simulator, proxy, seed)
            try:
                await talk.run()
                async with asyncio.timeout(20):
                    while not ended(client):
                        await client.next()
            except Exception as error:
                error.add_note(f"seed {seed}: {talk.done}")
                raise
        assert told(client, "error") == [], talk.done
        said = [text for role, text in await memory(server, session) if role == "user"]
        assert said == talk.asked, talk.done
        shown = told(client, "status")
        assert shown == [
            "status CONNECTING",
            "status CONNECTED",
            *["status RECONNECTING", "status CONNECTED"] * (len(shown) // 2 - 1),
        ]
        heard: list[int] = []
        for line in proxy.lines:
            up = line.up.messages.seen
            ups = [one["toolResponse"]["functionResponses"] for one in up if "toolResponse" in one]
            answers = Counter(response["id"] for responses in ups for response in responses)
            assert set(answers.values()) <= {1}, "each id once"
            blobs = [one.get("realtimeInput", {}).get("audio") for one in up]
            heard += numbers(b"".join(base64.b64decode(blob["data"]) for blob in blobs if blob))
        assert heard == sorted(set(heard)), (
            "in its order and never twice, whatever was on a line that was cut"
        )
        await settled(lambda: idle(server))


def ended(client: Talker) -> bool:
    """Whether every call that the client was told of has ended, once."""
    calls = Counter(message["data"]["id"] for message in client.seen if message["type"] == "tool_call")
    ends: Counter[str] = Counter()
    for message in client.seen:
        if message["type"] == "tool_result":
            ends[message["data"]["id"]] += 1
        elif message["type"] == "tool_cancelled":
            ends.update(message["data"]["ids"])
    assert all(count == 1 for count in ends.values())
    return ends == calls
