"""F1: the model's server cannot be reached."""

from __future__ import annotations

import time

import pytest
from talking import Talker

from faults.model import ModelSide
from faults.proxy import Proxy, Way
from faults.stage import get, serving, told


@pytest.mark.proves("F1")
async def test_a_closed_port_is_tried_three_times_and_then_unavailable() -> None:
    async with Proxy(0) as nobody:
        nobody.refuse()
        async with serving(nobody.port) as server:
            begun = time.monotonic()
            async with Talker(f"{server.ws_url}/") as client:
                await client.send("connect")
                await client.until("status")
                assert (await get(server, "/health")).status_code == 200, "REST is unaffected"
                code, reason = await client.closed()
            assert time.monotonic() - begun >= 0.4, "two pauses"
            assert told(client) == ["status CONNECTING", "error unavailable"]
            error = client.seen[-1]["data"]
            assert (code, reason) == (4503, error["message"][:123])
            assert error["retryable"] is True
            assert "GEMINI_BASE_URL" in error["message"], "what to look at"
            metrics = (await get(server, "/metrics")).text
            assert 'upstream_dials_total{outcome="failed"} 3.0' in metrics


@pytest.mark.proves("F1")
async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async with (
        serving(1, GEMINI_BASE_URL="https://nowhere.invalid") as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.send("connect")
        assert (await client.closed(30))[0] == 4503
        assert told(client) == ["status CONNECTING", "error unavailable"]


@pytest.mark.proves("F1")
async def test_a_server_that_comes_up_at_the_third_try_is_connected_to() -> None:
    resets = [(Way(reset_at=0), Way())] * 2
    async with ModelSide() as model, Proxy(model.port) as proxy:
        proxy.plan = lambda number: resets[number] if number < len(resets) else (Way(), Way())
        async with serving(proxy.port) as server, Talker(f"{server.ws_url}/") as client:
            await client.send("connect")
            await (await model.dialled()).ready()
            assert (await client.until("status", lambda data: data["status"] != "CONNECTING"))[
                "memory"
            ] == "none"
            assert told(client, "status", "error") == ["status CONNECTING", "status CONNECTED"]
            assert len(proxy.lines) == 3


@pytest.mark.proves("F1")
async def test_after_being_unavailable_the_session_may_be_gone_on_with() -> None:
    async with ModelSide() as model, Proxy(model.port) as proxy:
        proxy.refuse()
        async with serving(proxy.port) as server:
            async with Talker(f"{server.ws_url}/") as client:
                await client.send("connect")
                assert (await client.closed())[0] == 4503
            await proxy.listen()
            async with Talker(f"{server.ws_url}/?sessionId={client.seen[0]['sessionId']}") as again:
                await again.send("connect")
                await (await model.dialled()).ready()
                await again.until("status", lambda data: data["status"] == "CONNECTED")
