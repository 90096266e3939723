"""Sixty people talking at once as it is deployed: nginx with TLS, two processes, sessions in Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nginx import Nginx
from redis_server import NEEDS_REDIS, running
from serving import Server
from test_load import BARE_SECONDS, ModelSide, load

PEOPLE = 60
SECONDS = 60.0
# All of them have one address here, which nginx would take for one client's storm.
MANY = {"zone=handshakes burst=100 nodelay;": "zone=handshakes burst=1000 nodelay;"}


@pytest.mark.alone
@NEEDS_REDIS
@pytest.mark.timeout(seconds=400)
async def test_sixty_conversations_through_nginx_and_two_processes_lose_double_and_reorder_nothing(
    tmp_path: Path,
) -> None:
    """What it adds is reported: on a machine with two cores for all of them it says more of the cores."""
    async with ModelSide() as model:
        bare = await load(f"ws://127.0.0.1:{model.port}/", BARE_SECONDS, direct=True, count=PEOPLE)
    bare_up = model.heard
    with running(tmp_path) as redis:
        async with ModelSide() as model:
            environ = {"GEMINI_BASE_URL": f"ws://127.0.0.1:{model.port}", "REDIS_URL": redis.url}
            async with (
                Server("--processes", "2", "--set", "log_level=warning", environ=environ) as server,
                Nginx(server.port, changes=MANY) as proxy,
            ):
                url = f"{proxy.ws_url}/ws"
                through = await load(url, SECONDS, direct=False, count=PEOPLE, ca=proxy.ca)
                with redis.client() as client:
                    stored = len(list(client.scan_iter("tornado-live:*")))
    up = model.heard
    added = {
        "up": [up[key] - bare_up[key] for key in ("p50_ms", "p99_ms")],
        "down": [through[key] - bare[key] for key in ("p50_ms", "p99_ms")],
    }
    print(
        json.dumps({"bare_up": bare_up, "bare": bare, "up": up, "down": through, "added_p50_p99_ms": added})
    )
    sent = PEOPLE * int(SECONDS / 0.02)
    assert (up["messages"], up["wrong"]) == (sent, 0)
    assert (through["messages"], through["wrong"]) == (sent // 2, 0)
    assert stored >= PEOPLE
