"""F39: what waits for clients that do not read is more than the process may hold."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
from serving import Server
from talking import Talker

from faults.model import ModelLine, ModelSide
from faults.stage import Talk, serving, talking

MIB = 1024 * 1024
LIMIT = 16 * MIB
LARGE = bytes(11 * MIB)  # 14.7 MiB on the line: within the limit, and more than three quarters of it
SMALL = bytes(7 * MIB)  # 9.3 MiB: with the other beyond the limit, alone less than three quarters


@contextlib.asynccontextmanager
async def deaf(server: Server, model: ModelSide) -> AsyncIterator[Talk]:
    """A client that reads no more once it is connected. Over TLS, where what the kernel takes at once does not
    matter: a message counts until it has gone as a whole, which it must not."""
    trusted = ssl.create_default_context(cafile=str(server.ca))
    url = f"wss://127.0.0.1:{server.tls_port}/ws"
    async with Talker(url, tls=trusted, kernel_keeps=64 * 1024) as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        transport = client.connection.transport
        transport.pause_reading()
        try:
            yield Talk(server, client, line)
        finally:
            transport.abort()


async def speak(line: ModelLine, pcm: bytes) -> None:
    """In one message."""
    sound = {"mimeType": "audio/pcm;rate=24000", "data": base64.b64encode(pcm).decode()}
    await line.send({"serverContent": {"modelTurn": {"parts": [{"inlineData": sound}]}}})


@pytest.mark.proves("F39")
async def test_nobody_new_comes_in_and_who_has_been_slow_for_longest_is_cut() -> None:
    tls = {"TLS_PORT": "0", "TLS_SELF_SIGNED": "true"}
    async with (
        ModelSide() as model,
        serving(model.port, LIMITS__QUEUED_BYTES=str(LIMIT), **tls) as server,
        talking(server, model) as quick,
        deaf(server, model) as first,
        deaf(server, model) as second,
    ):
        await speak(first.line, LARGE)
        await server.printed('"event": "memory_full"')
        async with Talker(f"{server.ws_url}/") as late:
            assert (await late.until("error"))["code"] == "limited"
            assert (await late.closed())[0] == 4429
        await speak(second.line, SMALL)
        await server.printed(f'"event": "client_shed".*{first.session}')
        await server.printed('"event": "memory_free"')
        await quick.turn("Do you hear me?", "I do.")
        async with talking(server, model):
            pass
        async with Talker(f"{server.ws_url}/?sessionId={first.session}") as back:
            status = await back.until("status", lambda data: data["status"] == "CONNECTED")
            assert status["resumed"] is True
        assert server.log.count('"event": "client_shed"') == 1
