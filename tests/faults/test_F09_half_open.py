"""F9: a line that is gone without a word, on either side. The upstream's half is with F8."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.model import ModelSide
from faults.proxy import Proxy
from faults.stage import get, kinds, serving, talking, told

IMPATIENT = ("--set", "limits.client_ping_s=0.2", "--set", "limits.client_pong_s=2")


@pytest.mark.proves("F9", "F18")
async def test_a_client_that_is_gone_without_a_word_is_missed_and_may_come_back() -> None:
    async with (
        ModelSide() as model,
        serving(model.port, *IMPATIENT) as server,
        Proxy(server.ws_port or 0) as proxy,
    ):
        async with Talker(f"ws://127.0.0.1:{proxy.port}/") as client:
            await client.send("connect")
            line = await model.dialled()
            await line.ready("h1")
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            session = client.seen[-1]["sessionId"]
            proxy.lines[0].stall()
            await server.printed("client_lost")
            assert (await get(server, f"/api/sessions/{session}")).json()["connected"] is False
            client.connection.transport.abort()
        assert line.open, "the model side is kept for the grace period"
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            connected = await client.until("status")
            assert (connected["status"], connected["resumed"]) == ("CONNECTED", True)
            assert model.handshakes == 1


@pytest.mark.proves("F9")
async def test_a_dial_into_a_black_hole_is_given_up_and_tried_elsewhere() -> None:
    async with ModelSide() as model, Proxy(model.port) as proxy:
        soon = ("--set", "limits.setup_timeout_s=2")
        async with serving(proxy.port, *soon) as server, talking(server, model) as talk:
            await talk.turn("What is nine?", "A number.")
            talk.line.drop()
            lost = await proxy.arrived(1)
            lost.swallow()
            second = await model.dialled(within=30)
            await second.ready()
            await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
            assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
            assert len(kinds(await talk.events(), "switched")) == 1
