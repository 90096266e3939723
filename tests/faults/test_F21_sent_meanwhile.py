"""F21: the client goes on speaking while the model side is reconnected."""

from __future__ import annotations

import pytest
from talking import Talker

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


@pytest.mark.proves("F21")
async def test_a_pressed_button_is_pressed_on_the_new_connection_too(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, Talker(f"{gateway.server.ws_url}/") as client:
        await client.send("connect", {"activity": "manual"})
        first = await model.dialled()
        await first.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        await client.send("activity_start")
        for number in range(10):
            await client.speak(numbered(number))
        while len(first.audio) < 6400:
            await first.receive()
        first.drop()
        await client.until("status", lambda data: data["status"] == "RECONNECTING")
        for number in range(10, 20):
            await client.speak(numbered(number))
        await client.send("activity_end")
        second = await model.dialled()
        await second.ready("h2")
        await second.receive("realtimeInput")
        while "activityEnd" not in second.got[-1]["realtimeInput"]:
            await second.receive("realtimeInput")
        marks = [key for one in second.got for key in one["realtimeInput"] if key.startswith("activity")]
        assert marks == ["activityStart", "activityEnd"]
        assert "activityStart" in second.got[0]["realtimeInput"], "before any sound"
        assert numbers(second.audio) == list(range(20)), "what the broken line took along is said again"
        await second.say("I have heard the end of it.")
        await client.until("turn_complete")
        assert told(client, "error", "warning") == []
