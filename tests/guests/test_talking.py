"""Google's own clients talk through the gateway as they talk to Google."""

from __future__ import annotations

from typing import Any

import pytest
from dialling import content, words

from guests.guesting import Guest, heard, interrupted, seconds
from guests.stage import SPOKEN, Road, newest
from tornado_live.simulator.pcm import tone

MANUAL = {"automaticActivityDetection": {"disabled": True}}


async def test_typed_turns_one_after_the_other(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.typed("Hello?")
        first = await session.turn()
        await session.typed("And what comes next?")
        second = await session.turn()
    assert words(first) == "Good morning to you."
    assert seconds(first) == 1
    assert words(second) == "The first."
    assert any("usageMetadata" in message for message in first + second)


async def test_text_among_the_realtime_input(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.send(realtime={"text": "Hello?"})
        assert words(await session.turn()) == "Good morning to you."


async def test_a_spoken_turn(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.sound(SPOKEN)
        messages = await session.turn()
    assert heard(messages) == "How are you?"
    assert words(messages) == "Well, thank you."
    assert seconds(messages) == 0.5


async def test_the_end_of_the_audio_stream_ends_what_is_said(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.sound(tone(0.5, rate=16_000))
        await session.send(realtime={"audioStreamEnd": True})
        assert words(await session.turn()) == "Well, thank you."


async def test_a_turn_between_marks_of_the_client(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base, realtimeInputConfig=MANUAL) as session:
        await session.send(realtime={"activityStart": {}})
        await session.sound(tone(0.5, rate=16_000))
        await session.send(realtime={"activityEnd": {}})
        messages = await session.turn()
    assert heard(messages) == "How are you?"
    assert words(messages) == "Well, thank you."


async def test_who_asks_for_no_transcription_gets_sound_alone(guest: Guest, road: Road) -> None:
    quiet: dict[str, Any] = {"inputAudioTranscription": None, "outputAudioTranscription": None}
    async with guest.connected(road.base, **quiet) as session:
        await session.sound(SPOKEN)
        messages = await session.turn()
    assert seconds(messages) == 0.5
    assert (heard(messages), words(messages)) == ("", "")


async def test_speech_interrupts_an_answer_and_is_answered(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.typed("A long one, please.")
        await session.until(lambda message: seconds([message]) > 0)
        await session.sound(SPOKEN)
        cut = await session.turn()
        answer = await session.turn()
    assert interrupted(cut)
    assert not any(content(message).get("generationComplete") for message in cut)
    assert seconds(cut) < 600
    assert words(answer) == "Well, thank you."
    assert not interrupted(answer)


async def test_a_context_is_taken_without_an_answer(guest: Guest, road: Road) -> None:
    turns = [
        {"role": "user", "parts": [{"text": "My name is Ada."}]},
        {"role": "model", "parts": [{"text": "Hello, Ada."}]},
    ]
    async with guest.connected(road.base) as session:
        await session.send(content={"turns": turns, "turnComplete": False})
        await session.typed("Hello?")
        messages = await session.turn()
    assert words(messages) == "Good morning to you."
    assert sum(bool(content(message).get("turnComplete")) for message in session.seen) == 1


@pytest.mark.parametrize("guest", ["python"], indirect=True)  # @google/genai 3.1.0 leaves historyConfig out
async def test_a_history_is_taken_in_before_the_first_turn(guest: Guest, road: Road) -> None:
    turns = [
        {"role": "user", "parts": [{"text": "Hello?"}]},
        {"role": "model", "parts": [{"text": "Good evening."}]},
    ]
    history = {"initialHistoryInClientContent": True}
    async with guest.connected(road.base, historyConfig=history) as session:
        await session.send(content={"turns": turns, "turnComplete": True})
        assert await session.answered("What comes next?") == "The first."


async def test_pictures_arrive(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        for _ in range(2):
            await session.send(realtime={"video": {"data": "/9j/2Q==", "mimeType": "image/jpeg"}})
        assert await session.answered("Hello?") == "Good morning to you."
        assert (await newest(road.simulator))["counts"]["video"] == 2
