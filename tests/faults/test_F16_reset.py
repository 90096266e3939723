"""F16: RST in the middle of a frame."""

from __future__ import annotations

import json
import random

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.pcm import numbered, numbers
from faults.proxy import Proxy
from faults.stage import talking, told


@pytest.mark.proves("F16")
async def test_half_a_message_never_reaches_the_client(gateway: Gateway) -> None:
    async with (
        ModelSide() as model,
        Proxy(model.port, port=gateway.port) as proxy,
        talking(gateway.server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        proxy.lines[0].down.reset_within(b"torn in two")
        await talk.line.say("This is torn in two, and lost.", bytes(4800), complete=False)
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        assert "torn" not in json.dumps(talk.client.seen)
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
        await talk.turn("And ten?", "Another one.", second)


@pytest.mark.proves("F16")
async def test_wherever_it_is_cut_whole_messages_are_heard_and_no_parts(gateway: Gateway) -> None:
    chance = random.Random(16)
    async with (
        ModelSide() as model,
        Proxy(model.port, port=gateway.port) as proxy,
        talking(gateway.server, model) as talk,
    ):
        line = talk.line
        for cut in range(6):
            await talk.turn(f"Question {cut}", "Well.", line)
            proxy.lines[-1].down.reset_after(chance.randrange(1, 15_000))
            before = len(talk.client.audio)
            for number in range(5):
                await line.say(f" {number}", numbered(number, 2400), complete=False)
            line = await model.dialled()
            await line.ready(f"h{cut + 2}")
            await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
            heard = numbers(b"".join(talk.client.audio[before:]), 2400)
            assert heard == list(range(len(heard)))
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"] * 6
