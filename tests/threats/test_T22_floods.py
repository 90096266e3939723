"""T22: endless fragments, floods of control frames, and whatever else keeps a server busy."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

import pytest
from faults.model import ModelSide
from faults.stage import Talk, serving, talking

from threats import flood

FLOOD_S = 0.4
CHUNK_S = 0.02


async def gaps(talk: Talk, flooding: asyncio.Task[None]) -> list[float]:
    """Between the chunks of an answer that is spoken as long as somebody floods, in seconds, sorted."""
    chunk = bytes(range(1, 241)) * 4

    async def speak() -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not flooding.done():
            await talk.line.say(" word", chunk, complete=False)
            due = max(due + CHUNK_S, loop.time())
            await asyncio.sleep(due - loop.time())
        await talk.line.complete()

    await talk.client.send("text", {"text": "Tell me all you know."})
    await talk.line.typed()
    speaking = asyncio.get_running_loop().create_task(speak())
    times: list[float] = []
    connection = talk.client.connection
    while True:
        message = json.loads(await connection.recv())
        if message["type"] == "audio":
            times.append(time.perf_counter())
        elif message["type"] == "turn_complete":
            break
    await speaking
    return sorted(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.alone
@pytest.mark.proves("T22")
async def test_floods_are_closed_and_hold_up_no_other_conversation() -> None:
    async with ModelSide() as model, serving(model.port) as server, talking(server, model) as talk:

        async def flooded(kind: str) -> dict[str, int]:
            """How often it was closed, by code."""
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, flood.__file__, str(server.ws_port), kind, str(FLOOD_S)),
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await program.communicate()
            assert program.returncode == 0
            codes: dict[str, int] = json.loads(printed)["codes"]
            return codes

        async def flood_all() -> None:
            for kind in flood.OFFENCES:
                codes = await flooded(kind)
                assert codes.keys() <= {"1008", "0"}, kind
                assert codes["1008"] >= 1, kind
            for kind in flood.TOO_MUCH:
                assert await flooded(kind) == {"0": 1}, kind
            assert (await flooded(flood.CUT))["1006"] > 1

        flooding = asyncio.get_running_loop().create_task(flood_all())
        between = await gaps(talk, flooding)
        await flooding
        assert between[int(len(between) * 0.99)] < 0.1
