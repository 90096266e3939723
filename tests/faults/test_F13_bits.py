"""F13: single bits of what the model side sends are wrong, in frames, in JSON and in words."""

from __future__ import annotations

import asyncio
import random

import pytest
from serving import Server
from talking import Talker
from websockets.exceptions import ConnectionClosed

from faults.model import ModelLine, ModelSide
from faults.proxy import Proxy, Way
from faults.stage import idle, serving, settled

QUESTIONS = 200
IMPATIENT = (
    *("--set", "limits.setup_timeout_s=1", "--set", "limits.upstream_ping_s=0.2"),
    *("--set", "limits.upstream_pong_s=0.5"),
)
SEED = 16


async def answer(line: ModelLine, number: int) -> None:
    """Accepts the setup, and answers whatever it hears until the line ends."""
    chance = random.Random(number)
    try:
        await line.ready(f"h{number}")
        while True:
            await line.typed()
            await line.heard("What was that?")
            for _ in range(chance.randrange(1, 4)):
                await line.say(" Well then.", bytes(range(100)), complete=False)
            await line.complete()
            await line.resumable(f"h{number}")
    except ConnectionClosed:
        pass


@pytest.mark.proves("F13", "F14")
@pytest.mark.timeout(seconds=90)
async def test_whatever_bit_is_wrong_the_server_goes_on() -> None:
    flips = Way(flip_every=1500, flip_from=1000)
    async with (
        ModelSide() as model,
        Proxy(model.port, plan=lambda number: (Way(), flips), seed=SEED) as proxy,
        serving(proxy.port, *IMPATIENT) as server,
    ):

        async def play() -> None:
            async with asyncio.TaskGroup() as lines:
                while True:
                    line = await model.dialled(within=60)
                    lines.create_task(answer(line, len(model.lines)))

        playing = asyncio.get_running_loop().create_task(play())
        try:
            session = await ask(server)
            assert proxy.log, "something was wrong"
            proxy.plan = lambda number: (Way(), Way())
            for line in proxy.open_lines:
                line.reset()
            async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
                await client.connected()
                await client.send("text", {"text": "Is all well again?"})
                await client.until(
                    "transcription", lambda data: data["isFinal"] and "Well then." in data["text"]
                )
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
        await settled(lambda: idle(server))


async def ask(server: Server) -> str:
    """Asks many questions, coming back whenever the model side is given up; the session."""
    session = ""
    asked = 0
    while asked < QUESTIONS:
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            try:
                await client.connected(audio="binary")
                session = client.seen[-1]["sessionId"]
                while asked < QUESTIONS:
                    asked += 1
                    await client.send("text", {"text": f"Question {asked}"})
                    try:
                        await client.until("turn_complete", within=2)
                    except TimeoutError:
                        pass  # the end of the turn was what was broken
            except ConnectionClosed:
                pass
            ended = client.connection.close_code
            assert ended in (None, 4502, 4503, 4504), "the model side's fault, not ours"
    return session
