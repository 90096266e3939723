"""T46: everybody comes back at once after a server was stopped."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest
from faults.nodes import shared_file
from faults.stage import environment, unbroken
from serving import Server
from simulating import Simulator
from talking import Talker

PEOPLE = 120
WINDOW_S = 0.25


@pytest.mark.alone
@pytest.mark.timeout(seconds=120)
@pytest.mark.proves("T46")
async def test_they_are_sent_away_one_after_the_other_and_are_all_back(tmp_path: Path) -> None:
    async with Simulator(speed=4) as simulator:
        given = environment(simulator.port) | shared_file(tmp_path) | {"LIMITS__DRAIN_S": "10"}
        async with Server(environ=given) as one, Server(environ=given) as other:
            sent_away: list[float] = []
            back: list[float] = []
            here = asyncio.Semaphore(0)

            async def person() -> None:
                async with Talker(f"{one.ws_url}/") as client:
                    session = (await client.connected()) and client.seen[0]["sessionId"]
                    here.release()
                    code, _ = await client.closed(60)
                    sent_away.append(time.monotonic())
                    assert code == 1001
                await asyncio.sleep(random.uniform(0.2, 0.6))  # as the client module does
                async with Talker(f"{other.ws_url}/?sessionId={session}") as client:
                    await client.connected()
                    back.append(time.monotonic())

            async with asyncio.TaskGroup() as people:
                for _ in range(PEOPLE):
                    people.create_task(person())
                for _ in range(PEOPLE):
                    await here.acquire()
                os.kill(one.pid, signal.SIGTERM)
                stopped = time.monotonic()
            sent_away.sort()
            most = max(sum(at <= other_at < at + WINDOW_S for other_at in sent_away) for at in sent_away)
            assert most <= PEOPLE * 0.4, "they are spread over some seconds"
            assert max(back) - stopped < 15.0
            unbroken(other)
