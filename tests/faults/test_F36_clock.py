"""F36 with whole servers: their wall clocks are two days apart, and a conversation goes to the other one and back.

libfaketime gives a process another wall clock and leaves its other clocks alone, as setting a machine's does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from redis_server import NEEDS_REDIS, running
from serving import Server

from faults.model import ModelSide
from faults.nodes import Nodes, shared_file
from faults.stage import environment, settled, unbroken

FAKE_TIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
AHEAD = {"LD_PRELOAD": str(FAKE_TIME), "FAKETIME": "+2d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    if request.param == "sqlite":
        yield shared_file(tmp_path)
        return
    with running(tmp_path) as redis:
        yield {"REDIS_URL": redis.url}


@pytest.mark.proves("F36")
@pytest.mark.skipif(FAKE_TIME is None, reason="needs libfaketime, which make test installs")
async def test_a_conversation_goes_on_where_the_clock_shows_another_day(store: Mapping[str, str]) -> None:
    async with ModelSide() as model:
        given = environment(model.port) | dict(store)
        async with Server(environ=given) as one, Server(environ=given | AHEAD) as other:
            nodes = Nodes(one, other, model)
            async with nodes.talking() as talk:
                session = talk.session
                await talk.turn("What is nine?", "A number.")
            async with nodes.coming_back(session) as there:
                assert there.connected["memory"] == "restored"
                await there.turn("And ten?", "Another one.")
                shown = await shown_by(other, session)
                assert (
                    1.9 < (shown - await shown_by(one, session, created=True)).total_seconds() / 86400 < 2.1
                )
            async with nodes.coming_back(session, to=one) as here:
                assert here.connected["memory"] == "restored"
                await here.turn("And eleven?", "One more.")
                await settled(lambda: remembered(one, session, 6))
                assert [text for _, text in await here.memory()] == [
                    "What is nine?",
                    "A number.",
                    "And ten?",
                    "Another one.",
                    "And eleven?",
                    "One more.",
                ]
            for server in (one, other):
                unbroken(server)


async def shown_by(server: Server, session: str, *, created: bool = False) -> datetime:
    """When the session was last active, or created."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answer = (await http.get(f"/api/sessions/{session}")).json()
    return datetime.fromisoformat(answer["createdAt" if created else "lastActiveAt"])


async def remembered(server: Server, session: str, messages: int) -> bool:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answer = (await http.get(f"/api/sessions/{session}")).json()
    return bool(answer["messageCount"] == messages)
