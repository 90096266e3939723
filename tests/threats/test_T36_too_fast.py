"""T36: a client sends faster than anybody speaks."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import suppress

import pytest
from faults.model import ModelSide
from faults.stage import environment, unbroken
from serving import Server
from talking import Talker
from websockets.exceptions import ConnectionClosed

from tornado_live.live.pace import BURST_S

SECOND = bytes(32_000)
FACTOR = 2.0
READ_S = 8.0
"""What may be in the server's own buffers: bytes that were read before the line was held up are still taken."""


@pytest.mark.proves("T36")
async def test_a_hundred_times_real_time_goes_up_at_twice_real_time_and_others_talk() -> None:
    async with (
        ModelSide() as model,
        Server(environ=environment(model.port)) as server,
        Talker(f"{server.ws_url}/") as flood,
        Talker(f"{server.ws_url}/") as other,
    ):
        await flood.send("connect")
        line = await model.dialled()
        await line.ready()
        await flood.until("status", lambda data: data["status"] == "CONNECTED")
        await other.send("connect")
        quiet = await model.dialled()
        await quiet.ready()

        async def pour() -> None:
            with suppress(ConnectionClosed):
                while True:
                    await flood.speak(SECOND)

        began, heard, answered = time.monotonic(), 0.0, 0
        async with asyncio.TaskGroup() as together:
            pouring = together.create_task(pour())
            while (passed := time.monotonic() - began) < 3.0:
                blob = (await line.receive("realtimeInput"))["realtimeInput"]["audio"]
                heard += len(base64.b64decode(blob["data"])) / len(SECOND)
                assert heard <= (time.monotonic() - began + BURST_S) * FACTOR + READ_S
                if passed > answered:
                    answered += 1
                    await other.send("text", {"text": f"question {answered}"})
                    assert await quiet.typed() == f"question {answered}"
                    await quiet.say(f"answer {answered}")
                    await other.until("turn_complete")
            assert heard >= passed * FACTOR, "it is slowed down, not stopped"
            assert (await flood.until("warning"))["code"] == "throttled"
            pouring.cancel()
            flood.connection.transport.abort()
        unbroken(server)
