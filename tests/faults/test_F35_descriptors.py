"""F35, T39: more clients than there are descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Server

from faults.model import ModelSide
from faults.stage import environment, get, talking, unbroken
from tornado_live.handlers.accepting import Room, open_descriptors

LIMIT = 128
CROWD = 200


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """A Python whose process may open so many files and connections."""
    program = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    return sys.executable, "-c", program


LIMITED = limited(LIMIT, LIMIT)


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def crowd(port: int, size: int = CROWD) -> Iterator[None]:
    """Connections that say nothing; those that the kernel does not take yet are being opened."""
    with contextlib.ExitStack() as closing:
        for _ in range(size):
            one = closing.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
        yield


def test_half_of_what_is_left_is_kept_for_the_lines_to_the_model() -> None:
    assert Room.of(128, 30) == Room(128, 71)  # 41 clients, and 41 lines: 112 of 128
    assert Room.of(1024, 30) == Room(1024, 495)
    assert Room.of(65536, 30) == Room(65536, 30735)
    assert Room.of(32, 30) == Room(32, 31)  # hardly to be used, but somebody comes in


def test_the_descriptors_of_a_process_are_counted() -> None:
    before = open_descriptors()
    assert before is not None
    with socket.socket(), socket.socket():
        assert open_descriptors() == before + 2


async def test_the_limit_is_raised_as_far_as_the_system_allows() -> None:
    async with Server(python=limited(200, 1000)) as server:
        found = await server.printed(r'"event": "descriptors".*"limit": 1000, "before": 200, "hard": 1000')
        assert '"most": ' in found.string
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (1000, 1000)


@pytest.mark.proves("F35", "T39")
async def test_a_crowd_waits_while_those_who_talk_go_on() -> None:
    async with ModelSide() as model:
        environ = environment(model.port) | {"LIMITS__HEARTBEAT_S": "2"}
        async with (
            Server(python=LIMITED, environ=environ) as server,
            talking(server, model) as talk,
            httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http,
        ):
            before = len(server.log)
            with crowd(server.port):
                await server.printed('"event": "accept_paused"')
                await talk.turn("Do you hear me?", "I do.")
                late = asyncio.get_running_loop().create_task(http.get("/health"))
                begun, spent = time.monotonic(), cpu_seconds(server)
                await talk.client.until("pong")  # of a line on which nothing was sent for two seconds
                assert cpu_seconds(server) - spent < 0.3 * (time.monotonic() - begun)
                assert descriptors(server) < LIMIT - 16
                await talk.turn("And now?", "Still here.")
                assert not late.done()
            # They have gone: who waits is taken.
            assert (await late).status_code == 200
            await server.printed('"event": "accept_resumed"')
            assert len(server.log) - before < 100_000
            assert server.log.count("accept_paused") == server.log.count("accept_resumed") == 1
            metrics = (await get(server, "/metrics")).text
            assert "tornado_live_accept_paused 0.0" in metrics
            assert "tornado_live_accept_pauses_total 1.0" in metrics
            unbroken(server)


@pytest.mark.proves("F35")
async def test_those_who_were_taken_find_a_line_to_the_model_each() -> None:
    """As many come to talk as there is room for: none of them is left without the model side."""
    loop = asyncio.get_running_loop()
    async with ModelSide() as model, Server(python=LIMITED, environ=environment(model.port)) as server:
        full = loop.create_task(server.printed('"event": "accept_paused"', within=80))
        async with contextlib.AsyncExitStack() as talks:
            taken = -1
            while not full.done():
                taken += 1
                coming = loop.create_task(talks.enter_async_context(talking(server, model)))
                await asyncio.wait((coming, full), return_when=asyncio.FIRST_COMPLETED)
            coming.cancel()
            await asyncio.wait((coming,))
            assert 30 < taken < 64
            assert "dial_failed" not in server.log
        unbroken(server)
