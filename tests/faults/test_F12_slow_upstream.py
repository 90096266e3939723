"""F12: the line to the model is slow and uneven, or takes long to open."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.model import ModelSide
from faults.pcm import numbered, numbers
from faults.proxy import Proxy, Way
from faults.stage import events, kinds, serving, talking, told


@pytest.mark.proves("F12")
async def test_over_a_slow_line_everything_arrives_in_its_order() -> None:
    slow = Way(jitter_s=0.1, bytes_per_s=60_000, slices=5000)
    async with (
        ModelSide() as model,
        Proxy(model.port, plan=lambda number: (slow, slow), seed=12) as proxy,
        serving(proxy.port) as server,
        talking(server, model) as talk,
    ):
        for number in range(100):
            await talk.client.speak(numbered(number))
        await talk.client.send("text", {"text": "That was all."})
        assert await talk.line.typed() == "That was all."
        assert numbers(talk.line.audio) == list(range(100))
        for number in range(20):
            await talk.line.say(f" {number}", numbered(number, 2400), complete=False)
        await talk.line.complete()
        await talk.client.until("turn_complete", within=30)
        assert numbers(b"".join(talk.client.audio), 2400) == list(range(20))
        assert told(talk.client, "status", "error", "warning") == ["status CONNECTING", "status CONNECTED"]


@pytest.mark.proves("F12")
async def test_of_a_line_that_takes_long_to_open_the_newest_five_seconds_are_heard() -> None:
    second = 32_000
    async with ModelSide() as model, serving(model.port) as server, Talker(f"{server.ws_url}/") as client:
        await client.send("connect")
        line = await model.dialled()
        for number in range(8):
            await client.speak(numbered(number, second))
        await client.send("ping")
        await client.until("pong")
        await line.ready()
        warning = await client.until("warning")
        assert (warning["code"], warning["count"]) == ("audio_dropped", 3)
        await client.send("text", {"text": "That was all."})
        await line.typed()
        assert numbers(line.audio, second) == [3, 4, 5, 6, 7]
        session = client.seen[-1]["sessionId"]
        (dropped,) = kinds(await events(server, session), "audio_dropped")
        assert dropped["data"]["seconds"] == 3.0
