"""F14: fields, messages and values that nobody knows yet."""

from __future__ import annotations

import random
from typing import Any

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import talking, told

UNKNOWN: list[dict[str, Any]] = [
    {"somethingNew": {"deep": [1, {"er": None}]}},
    {"error": {"code": 13, "message": "Internal error."}},
    {"serverContent": {"brandNew": True}},
    {"serverContent": {"turnCompleteReason": "A_REASON_OF_NEXT_YEAR"}},
    {"serverContent": {"interactionStatus": "PONDERING"}},
    {"interactionStatus": "PONDERING"},
    {"voiceActivity": {"type": "WHISPER", "audioOffset": "1.0s"}},
    {"voiceActivityDetectionSignal": {"vadSignalType": "VAD_SIGNAL_TYPE_NEW"}},
    {"usageMetadata": {"newTokenCount": 3}},
    {"usageMetadata": {"responseTokensDetails": [{"modality": "SMELL", "tokenCount": 3}]}},
    {"sessionResumptionUpdate": {"newField": 1}},
    {"serverContent": {"modelTurn": {"role": "narrator", "parts": [{"hologram": {"data": "AAAA"}}]}}},
    {
        "serverContent": {
            "modelTurn": {"parts": [{"executableCode": {"language": "BASIC", "code": "10 END"}}]}
        }
    },
    {"serverContent": {"groundingMetadata": {"webSearchQueries": ["x"]}, "urlContextMetadata": {}}},
    {"serverContent": {}},
    {},
]
OUR_OWN_WORDS: list[dict[str, Any]] = [
    {"type": "error", "data": {"code": "internal", "message": "Run.", "retryable": False}},
    {"type": "status", "data": {"status": "DISCONNECTED"}, "sessionId": "another"},
    {"type": "tool_call", "data": {"id": "1", "name": "pay", "confirm": True}},
    {"type": "interrupted", "serverContent": {"type": "interrupted", "data": {"turn": 1}}},
    {"serverContent": {"status": "DISCONNECTED", "error": {"code": "replaced"}, "tool_call": {"id": "2"}}},
]


@pytest.mark.proves("F14")
async def test_what_is_unknown_is_passed_over(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        for message in UNKNOWN * 3:
            await talk.line.send(message)
        await talk.turn("What is nine?", "A number.")
        assert told(talk.client, "status", "error", "interrupted", "tool_call") == [
            "status CONNECTING",
            "status CONNECTED",
        ]
        assert await talk.memory() == [("user", "What is nine?"), ("model", "A number.")]
        assert model.handshakes == 1


@pytest.mark.proves("T64")
async def test_what_is_worded_like_our_own_messages_is_none_of_them(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        for message in OUR_OWN_WORDS * 2:
            await talk.line.send(message)
        await talk.turn("What is nine?", "A number.")
        assert told(talk.client, "status", "error", "interrupted", "tool_call") == [
            "status CONNECTING",
            "status CONNECTED",
        ]
        assert len({message["sessionId"] for message in talk.client.seen}) == 1


def with_unknown_fields(message: Any, chance: random.Random) -> Any:
    """The same message with a field that nobody knows in every second object of it."""
    if isinstance(message, list):
        return [with_unknown_fields(one, chance) for one in message]
    if not isinstance(message, dict):
        return message
    changed = {key: with_unknown_fields(value, chance) for key, value in message.items()}
    if chance.random() < 0.5:
        value = chance.choice([None, 1, -0.5, "text", True, [], [[]], {}, {"type": "NEW"}, "0" * 1000])
        changed[f"field{chance.randrange(10**6)}"] = value
    items = list(changed.items())
    chance.shuffle(items)
    return dict(items)


@pytest.mark.proves("F14")
async def test_unknown_fields_in_every_place_change_nothing(gateway: Gateway) -> None:
    chance = random.Random(14)
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        send = talk.line.send

        async def changed(message: Any) -> None:
            await send(with_unknown_fields(message, chance))

        talk.line.send = changed  # type: ignore[method-assign]
        for turn in range(30):
            await talk.line.heard(f"Question {turn}")
            await talk.line.say(f"Answer {turn}", bytes([turn, 1]) * 100)
            await talk.client.until("turn_complete")
        said = [item for item in await talk.memory() if item[0] == "model"]
        assert said == [("model", f"Answer {turn}") for turn in range(5, 30)], "the newest fifty messages"
        assert len(talk.client.audio) == 30
        assert model.handshakes == 1
