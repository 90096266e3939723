"""F8: the model says nothing. That is its right; only the line's own pings say that it is gone."""

from __future__ import annotations

import pytest

from faults.model import ModelSide
from faults.proxy import Proxy
from faults.stage import serving, talking, told

OFTEN = ("--set", "limits.upstream_ping_s=0.1", "--set", "limits.upstream_pong_s=5")
IMPATIENT = ("--set", "limits.upstream_ping_s=0.2", "--set", "limits.upstream_pong_s=2")


@pytest.mark.proves("F8")
async def test_a_model_that_listens_and_is_silent_is_left_alone() -> None:
    async with (
        ModelSide() as model,
        Proxy(model.port) as proxy,
        serving(proxy.port, *OFTEN) as server,
        talking(server, model) as talk,
    ):
        (line,) = proxy.lines
        for _ in range(10):
            pinged = line.down.passed + 6  # a pong with four bytes of its own
            await talk.client.speak(bytes(640))
            await proxy.until(lambda pinged=pinged: line.down.passed >= pinged)  # type: ignore[misc]
        await talk.turn("Are you there?", "I am.")
        assert told(talk.client, "status", "error", "warning") == ["status CONNECTING", "status CONNECTED"]
        assert model.handshakes == 1
        assert len(talk.line.audio) == 6400


@pytest.mark.proves("F8", "F9")
async def test_a_line_without_pongs_is_left_and_the_conversation_goes_on() -> None:
    async with (
        ModelSide() as model,
        Proxy(model.port) as proxy,
        serving(proxy.port, *IMPATIENT) as server,
        talking(server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        proxy.lines[0].stall()
        await talk.client.speak(bytes(640))
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready("h2")
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
        await talk.turn("And ten?", "Another one.", second)
