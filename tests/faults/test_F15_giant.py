"""F15: a message of the model side that is larger than any should be."""

from __future__ import annotations

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import kinds, talking, told

MIB = 1024 * 1024


@pytest.mark.proves("F15")
async def test_17_mib_are_refused_with_1009_and_the_conversation_goes_on(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.raw(
            b'{"serverContent": {"inputTranscription": {"text": "' + b"x" * 17 * MIB + b'"}}}'
        )
        assert await talk.line.closed() == 1009
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        assert told(talk.client, "status", "error", "transcription")[-2:] == [
            "status RECONNECTING",
            "status CONNECTED",
        ]
        (lost,) = kinds(await talk.events(), "model_lost")
        assert lost["data"]["cause"] == "too_large"
        await talk.turn("And ten?", "Another one.", second)


@pytest.mark.proves("F15")
async def test_a_large_message_within_the_cap_is_a_message(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        sound = bytes(range(256)) * 1000
        await talk.line.say("Very long.", sound)
        await talk.client.until("turn_complete", within=30)
        assert b"".join(talk.client.audio) == sound
        assert model.handshakes == 1
