"""How much of a body is read, and how many connections may rest."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from doorways import DEADLINE_S, NO_MODEL
from serving import Server

from tornado_live.handlers.deadlines import MOST_RESTING
from tornado_live.handlers.door import MAX_BODY, MAX_READ


async def answered(port: int, path: str, size: int, *, sent: bool = True) -> tuple[int, bytes]:
    """Status and body of the answer to a body of that size, which is `sent` or only announced."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + b" " * (size if sent else 0))
        try:
            answer = (await reader.readuntil(b"\r\n\r\n")) + await reader.read(65536)
        finally:
            writer.close()
        return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.proves("T20")
async def test_a_body_is_kept_up_to_its_cap_where_there_is_one_and_nowhere_else() -> None:
    async with Server(environ=NO_MODEL) as server:
        status, body = await answered(server.port, "/api/sessions", MAX_BODY)
        assert (status, "sessionId" in json.loads(body)) == (201, True)
        for size in (MAX_BODY + 1, MAX_READ):
            status, body = await answered(server.port, "/api/sessions", size)
            assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
        assert (await answered(server.port, "/health", MAX_BODY))[0] == 405
        for path, size in (("/api/sessions", MAX_READ + 1), ("/health", MAX_BODY + 1), ("/", MAX_READ)):
            assert (await answered(server.port, path, size, sent=False))[0] == 400


async def test_of_many_connections_that_rest_the_oldest_go_and_the_newest_stay() -> None:
    async with Server(environ=NO_MODEL) as server, asyncio.timeout(DEADLINE_S):
        lines = []
        for _ in range(MOST_RESTING + 20):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"}}")
            lines.append((reader, writer))
        for reader, writer in lines[:20]:
            assert await reader.read() == b""
            writer.close()
        reader, writer = lines[-1]
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")
        for _, writer in lines[20:]:
            writer.close()
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            assert (await client.get("/health")).status_code == 200
