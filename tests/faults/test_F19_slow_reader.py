"""F19: a client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from nginx import Nginx
from talking import Talker
from websockets.exceptions import ConnectionClosed

from faults.model import ModelLine, ModelSide
from faults.proxy import Proxy
from faults.stage import Talk, serving

MIB = 1024 * 1024


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@pytest.mark.proves("F19")
async def test_it_is_closed_with_4430_and_costs_no_memory() -> None:
    async with (
        ModelSide() as model,
        serving(model.port) as server,
        Proxy(server.ws_port or 0) as proxy,
        Talker(f"ws://127.0.0.1:{proxy.port}/") as client,
    ):
        await client.send("connect")
        line = await model.dialled()
        await line.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        before = resident_bytes(server.pid)
        proxy.lines[0].down.stall()
        sound = bytes(range(256)) * 256
        sending = True

        async def speak() -> None:
            sent = 0
            while sending and sent < 60 * MIB:
                await line.say(" word", sound, complete=False)
                sent += len(sound)

        speaking = asyncio.get_running_loop().create_task(speak())
        await server.printed('"slow_consumer"', within=20)
        grown = resident_bytes(server.pid) - before
        proxy.lines[0].down.release()
        assert (await client.closed(20))[0] == 4430
        sending = False
        line.drop()
        await asyncio.gather(speaking, return_exceptions=True)
        assert grown < 20 * MIB


@pytest.mark.proves("F19", "T37")
async def test_many_of_them_behind_a_proxy_cost_no_memory_and_harm_nobody() -> None:
    crowd = 10
    sound = bytes(range(256)) * 512
    async with ModelSide() as model, serving(model.port) as server, Nginx(server.port) as proxy:

        async def come(stack: contextlib.AsyncExitStack) -> Talk:
            client = await stack.enter_async_context(Talker(f"{proxy.ws_url}/ws", tls=proxy.tls))
            await client.send("connect")
            line = await model.dialled()
            await line.ready("h1")
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            return Talk(server, client, line)

        async def speak(line: ModelLine) -> None:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(60 * MIB // len(sound)):
                    await line.say(" word", sound, complete=False)

        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as speaking:
            quick = await come(stack)
            deaf = [await come(stack) for _ in range(crowd)]
            for one in deaf:
                one.client.connection.transport.pause_reading()
            before = resident_bytes(server.pid)
            speakers = [speaking.create_task(speak(one.line)) for one in deaf]
            while server.log.count('"slow_consumer"') < crowd:
                await quick.turn("Do you hear me?", "I do.")
            grown = resident_bytes(server.pid) - before
            for one in deaf:
                one.client.connection.transport.abort()
                one.line.drop()
            await asyncio.wait(speakers)
            assert grown < crowd * MIB // 2 + 20 * MIB
