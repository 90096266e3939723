"""F21: the client goes on speaking while the model side is reconnected."""

from __future__ import annotations

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.pcm import numbered, numbers
from faults.stage import kinds, talking, told


@pytest.mark.proves("F21")
@pytest.mark.parametrize("planned", [True, False])
async def test_it_is_held_in_its_order_and_sent_once(gateway: Gateway, planned: bool) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        for number in range(10):
            await talk.client.speak(numbered(number))
        while len(talk.line.audio) < 6400:
            await talk.line.receive()
        await (talk.line.go_away("0s") if planned else talk.line.close(1011, "Internal error encountered."))
        await talk.client.until("status", lambda data: data["status"] == "RECONNECTING")
        for number in range(10, 110):
            await talk.client.speak(numbered(number))
            if number == 60:
                await talk.client.send("text", {"text": "In between."})
        await talk.client.send("ping")
        await talk.client.until("pong")
        second = await model.dialled()
        await second.ready("h2")
        await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        for number in range(110, 120):
            await talk.client.speak(numbered(number))
        await talk.client.send("text", {"text": "The end."})
        while await second.typed() != "In between.":
            pass
        assert numbers(second.audio) == list(range(10, 61)), "in its place"
        while await second.typed() != "The end.":
            pass
        assert numbers(second.audio) == list(range(10, 120)), "each once"
        assert told(talk.client, "warning") == []


@pytest.mark.proves("F21")
async def test_of_more_than_five_seconds_the_newest_are_heard_and_the_rest_is_told(gateway: Gateway) -> None:
    second_bytes = 32_000
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        talk.line.drop()
        second = await model.dialled()
        for number in range(8):
            await talk.client.speak(numbered(number, second_bytes))
        await talk.client.send("ping")
        await talk.client.until("pong")
        await second.ready()
        warning = await talk.client.until("warning")
        assert (warning["code"], warning["count"]) == ("audio_dropped", 3)
        await talk.client.send("text", {"text": "The end."})
        while await second.typed() != "The end.":
            pass
        assert numbers(second.audio, second_bytes) == [3, 4, 5, 6, 7]
        (dropped,) = kinds(await talk.events(), "audio_dropped")
        assert dropped["data"]["seconds"] == 3.0
