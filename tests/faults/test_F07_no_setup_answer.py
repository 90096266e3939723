"""F7: the connection is there, and the setup is never answered."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.model import ModelSide
from faults.proxy import Proxy
from faults.stage import serving, talking, told

SOON = ("--set", "limits.setup_timeout_s=1")
NOT_SO_SOON = ("--set", "limits.setup_timeout_s=2")
"""Where the answer has to be in time also on a busy machine."""


@pytest.mark.proves("F7")
async def test_three_setups_without_an_answer_are_a_timeout() -> None:
    async with (
        ModelSide() as model,
        serving(model.port, *SOON) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.send("connect")
        assert (await client.closed())[0] == 4504
        assert told(client) == ["status CONNECTING", "error upstream_timeout"]
        assert client.seen[-1]["data"]["retryable"] is True
        assert len(model.lines) == 3
        for line in model.lines:
            await line.closed()


@pytest.mark.proves("F7")
async def test_a_handshake_without_an_answer_is_a_timeout_too() -> None:
    async with Proxy(1) as proxy, serving(proxy.port, *SOON) as server, Talker(f"{server.ws_url}/") as client:
        proxy.deafen()
        await client.send("connect")
        assert (await client.closed())[0] == 4504
        assert told(client) == ["status CONNECTING", "error upstream_timeout"]
        assert len(proxy.lines) == 3


@pytest.mark.proves("F7")
async def test_an_answer_to_the_third_setup_is_in_time() -> None:
    async with (
        ModelSide() as model,
        serving(model.port, *NOT_SO_SOON) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.send("connect")
        for _ in range(2):
            await (await model.dialled()).closed()
        await (await model.dialled()).ready()
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        assert told(client, "status", "error") == ["status CONNECTING", "status CONNECTED"]


@pytest.mark.proves("F7")
async def test_a_resumed_setup_without_an_answer_is_tried_again() -> None:
    async with (
        ModelSide() as model,
        serving(model.port, *NOT_SO_SOON) as server,
        talking(server, model) as talk,
    ):
        talk.line.drop()
        await (await model.dialled()).closed()
        third = await model.dialled()
        await third.ready()
        await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
