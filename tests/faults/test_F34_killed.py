"""F34: people talk through nginx to two servers with their sessions in Redis, and one of the servers is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from statistics import quantiles

import httpx
import pytest
from nginx import Nginx
from redis_server import NEEDS_REDIS, running
from serving import Server
from simulating import Simulator

from faults.stage import environment, unbroken
from faults.test_F33_hundred import MANY, Person, all_have, answered

PEOPLE = 40
AGAIN_S = 5.0


@pytest.mark.alone
@NEEDS_REDIS
@pytest.mark.timeout(seconds=240)
@pytest.mark.proves("F34")
async def test_after_kill_9_everybody_talks_again_and_hears_what_may_be_missing(tmp_path: Path) -> None:
    with running(tmp_path) as redis:
        async with Simulator(speed=4) as simulator:
            given = environment(simulator.port) | {"REDIS_URL": redis.url}
            async with (
                Server("--set", "log_level=warning", environ=given, exit_code=-signal.SIGKILL) as one,
                Server("--set", "log_level=warning", environ=given) as other,
                Nginx(one.port, other.port, changes=MANY) as proxy,
            ):
                people = [Person(number, proxy.ws_url, proxy.tls) for number in range(PEOPLE)]
                async with asyncio.TaskGroup() as lives:
                    for person in people:
                        lives.create_task(person.live())
                    await all_have(people, 2)
                    before = {person.number: answered(person.said) for person in people}
                    os.kill(one.pid, signal.SIGKILL)
                    killed = time.monotonic()
                    await all_have(people, 1, after=killed + 1.0)
                    for person in people:
                        person.stop = True
                moved = [person for person in people if person.closes]
                async with httpx.AsyncClient(base_url=other.url, trust_env=False) as http:
                    for person in people:
                        shown = (await http.get(f"/api/sessions/{person.session}?include=memory")).json()
                        memory = [(item["role"], item["text"]) for item in shown["memory"]]
                        missing = [item for item in before[person.number][-50:-2] if item not in memory]
                        assert not missing, vars(person)
                unbroken(other)
    again = sorted(min(at for at in person.turns if at > killed) - killed for person in moved)
    p95 = quantiles(again, n=20)[-1]
    print(
        json.dumps({"moved": len(moved), "next_turn_s": {"p95": round(p95, 2), "max": round(again[-1], 2)}})
    )
    assert 10 <= len(moved) <= 30, "nginx spreads them"
    assert {code for person in moved for code in person.closes} <= {1006}
    assert all("memory_incomplete" in person.warned for person in moved)
    assert not [person.number for person in people if person not in moved and person.warned]
    assert p95 < AGAIN_S
