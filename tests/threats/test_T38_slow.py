"""T38: whoever is slow on purpose holds no connection, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import httpx
import pytest
from doorways import NO_MODEL
from serving import Server

CONNECTIONS = 200
LONGEST_S = 60.0
"""For a machine with much else to do; by itself it takes twelve."""

MODES = {
    "heads": ("-H", "-i", "3", "-x", "24"),
    "bodies": ("-B", "-i", "3", "-s", "8192", "-x", "10"),
    "reading": ("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "5"),
}
PATHS = {"heads": "/health", "bodies": "/api/sessions", "reading": "/tornado-live.js"}


async def slowhttptest(url: str, mode: str, connections: int = CONNECTIONS) -> str:
    """How it ended, in its own words."""
    program = shutil.which("slowhttptest")
    assert program is not None, "slowhttptest is not installed; make packages-for-tests installs it"
    count = ("-c", str(connections), "-r", str(connections))
    process = await asyncio.create_subprocess_exec(
        *(program, *MODES[mode], *count, "-l", str(int(LONGEST_S)), "-p", "10", "-u", f"{url}{PATHS[mode]}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await process.communicate())[0].decode(errors="replace")
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)
    return plain[plain.rindex("Exit status:") :] if "Exit status:" in plain else plain


async def closed(port: int, sent: bytes) -> bytes:
    """What is answered before the other side closes."""
    async with asyncio.timeout(LONGEST_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()


async def begun_again(port: int) -> bytes:
    """A whole request, and half of the head of the next one."""
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await closed(port, whole + b"GET /health HTTP/1.1\r\nHost: loc")
    return answer.partition(b"}}")[2]


async def probing(url: str, over: asyncio.Event) -> int:
    """Asks again and again on new connections; how often it was answered."""
    count = 0
    while not over.is_set():
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LONGEST_S) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.post("/api/sessions", json={})).status_code == 201
        count += 1
    return count


def sockets(pid: int) -> int:
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(link).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


@pytest.mark.proves("T38")
@pytest.mark.timeout(seconds=120)
async def test_slow_heads_bodies_and_readers_are_closed_and_others_served() -> None:
    async with Server(environ=NO_MODEL, tls=True) as server:
        before = sockets(server.pid)
        resting_reader, resting = await asyncio.open_connection("127.0.0.1", server.port)
        resting.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await resting_reader.readuntil(b"}}")
        over = asyncio.Event()
        probe = asyncio.get_running_loop().create_task(probing(server.url, over))
        reading = asyncio.get_running_loop().create_task(slowhttptest(server.url, "reading"))
        half = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\n"
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        # The last two: a head in which nothing has come, and one of a further request.
        ends = await asyncio.gather(
            slowhttptest(server.url, "heads"),
            slowhttptest(server.url, "bodies"),
            slowhttptest(server.https, "heads", 50),
            closed(server.tls_port, b""),
            closed(server.tls_port, hello),
            closed(server.port, half + b"Content-Length: 10\r\n\r\n{"),
            closed(server.port, half + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
            closed(server.port, half),
            closed(server.port, b""),
            begun_again(server.port),
        )
        assert [one.strip() for one in ends[:3]] == ["Exit status: No open connections left"] * 3
        assert ends[3:7] == [b"", b"", b"", b""]
        assert ends[7].startswith(b"HTTP/1.1 408 ")
        assert ends[8] == b""
        assert ends[9].startswith(b"HTTP/1.1 408 ")
        # That program goes on counting connections which were reset; the server has let go of them.
        async with asyncio.timeout(LONGEST_S):
            while '"reading"' not in server.log:
                await server.grown()
            while sockets(server.pid) > before + 4:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        over.set()
        assert await probe > 0
        # Between requests a connection may rest, as those of proxies do.
        resting.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await resting_reader.read()).startswith(b"HTTP/1.1 200 ")
        resting.close()
