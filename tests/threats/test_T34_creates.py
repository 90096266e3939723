"""T34: somebody makes sessions as fast as the line takes them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest
from accessing import api_key, store_of
from doorways import without
from faults.nodes import shared_file
from serving import Server

from threats.raw import resident

LINES, EACH = 20, 200
"""Each line has sent all of them before anything is answered."""
PER_MINUTE = 60
ASKED = {
    "AUTH__MODES": "api_key",
    "LIMITS__SESSIONS_PER_MINUTE": str(PER_MINUTE),
    "LIMITS__REQUESTS_PER_MINUTE": "off",
    "TRUSTED_PROXIES": "127.0.0.1",
    "LOG_LEVEL": "ERROR",
}
FAR = "203.0.113.7"

WITHOUT_A_GATE = """
from tornado_live.handlers.gate import Gate
async def session_made(self, address, caller): pass
Gate.session_made = session_made
"""


def creation(server: Server, key: str, address: str) -> bytes:
    lines = [
        *("POST /api/sessions HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {key}"),
        *(f"X-Forwarded-For: {address}", "Content-Length: 0", "", ""),
    ]
    return "\r\n".join(lines).encode()


async def line(server: Server, requests: list[bytes]) -> Counter[int]:
    """All of them at once over one connection, and how each was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    statuses: Counter[int] = Counter()
    try:
        writer.write(b"".join(requests))
        for _ in requests:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            statuses[int(head.split()[1])] += 1
            (length,) = re.findall(r"(?im)^content-length: (\d+)", head)
            await reader.readexactly(int(length))
    finally:
        writer.close()
        await writer.wait_closed()
    return statuses


async def a_flood_is_held_and_bob_is_served(
    server: Server, shared: dict[str, str], lines: int, each: int
) -> None:
    mallory, bob = await api_key(shared, "mallory", user="mallory"), await api_key(shared, "bob", user="bob")
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {bob}", "X-Forwarded-For": "198.51.100.9"}
        assert (await client.post("/api/sessions", headers=headers)).status_code == 201
        held = resident(server)
        async with asyncio.TaskGroup() as attack:
            floods = [
                # Half of it comes from one address, half from as many as there are requests.
                attack.create_task(
                    line(
                        server,
                        [
                            creation(server, mallory, FAR if number % 2 else f"100.64.{number}.{one}")
                            for one in range(each)
                        ],
                    )
                )
                for number in range(lines)
            ]
            served = [await client.post("/api/sessions", headers=headers) for _ in range(5)]
        assert [answer.status_code for answer in served] == [201] * 5
        answered = sum((flood.result() for flood in floods), Counter[int]())
        assert set(answered) == {201, 429}
        assert answered.total() == lines * each
        # A minute may end meanwhile on a slow machine.
        assert PER_MINUTE <= answered[201] <= 2 * PER_MINUTE
        assert resident(server) - held < 40 * 1024 * 1024
        metrics = (await client.get("/metrics")).text
        assert f'limited_total{{limit="sessions_per_minute"}} {float(answered[429])}' in metrics
    async with store_of(shared) as store:
        kept, _ = await store.list("mallory", limit=2 * PER_MINUTE + 1)
        assert len(kept) == answered[201]


@pytest.mark.proves("T34")
async def test_a_flood_of_sessions_is_held_at_the_door(tmp_path: Path) -> None:
    shared = shared_file(tmp_path)
    async with Server(environ=ASKED | shared) as server:
        await a_flood_is_held_and_bob_is_served(server, shared, LINES, EACH)


async def test_without_the_gate_it_fills_the_store(tmp_path: Path) -> None:
    shared = shared_file(tmp_path)
    async with without(WITHOUT_A_GATE, environ=ASKED | shared) as server:
        with pytest.raises(AssertionError):
            await a_flood_is_held_and_bob_is_served(server, shared, 4, 50)
