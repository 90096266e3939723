"""A spoken question through Google's own client, a tool of the gateway, and an answer aloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from dialling import content, words
from simulating import Simulator, speech

from guests.conftest import Stage
from guests.guesting import Guest, heard, interrupted, samples
from guests.stage import WEATHER_TOOLS, serving
from tornado_live.simulator.pcm import loudness


@pytest.mark.voice
@pytest.mark.parametrize("guest", ["python"], indirect=True)
async def test_a_spoken_question_an_answer_aloud_and_a_spoken_interruption(
    guest: Guest, stage: Stage, tmp_path: Path
) -> None:
    question = await speech("What's the weather in Paris?")
    async with Simulator(voice="on", tls=True) as simulator:
        assert await simulator.next_line(timeout=30) == {"voice": "ready"}
        async with (
            serving(simulator, tmp_path, stage.trusted, tools=WEATHER_TOOLS) as gateway,
            guest.connected(gateway.https) as session,
        ):
            await session.sound(question)
            answer = await session.until(lambda message: content(message).get("generationComplete"))
            assert heard(answer) == "What's the weather in Paris?"
            assert "sunny" in words(answer)
            assert loudness(samples(answer)) > 300
            assert not any("toolCall" in message for message in answer)
            # The answer is still being played when the user speaks again.
            await session.sound(question)
            assert interrupted(await session.turn())
