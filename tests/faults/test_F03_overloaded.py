"""F3: the model's server answers the handshake with 429 or 503."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import get, told


@pytest.mark.proves("F3")
@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_says_when_to_come_back_is_believed(gateway: Gateway, status: int) -> None:
    async with ModelSide(gateway.port) as model, Talker(f"{gateway.server.ws_url}/") as client:
        model.refusals.extend([(status, {"Retry-After": "7"})] * 5)
        await client.send("connect")
        assert (await client.closed())[0] == 4503
        error = client.seen[-1]["data"]
        assert told(client) == ["status CONNECTING", "error unavailable"]
        assert (error["retryable"], error["retryAfterMs"]) == (True, 7000)
        assert model.handshakes == 1, "not before the time that it named"
        assert (await get(gateway.server, "/health/ready")).status_code == 200, "the key is not at fault"


@pytest.mark.proves("F3")
@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_does_not_say_when_is_tried_three_times_at_most(
    gateway: Gateway, status: int
) -> None:
    async with ModelSide(gateway.port) as model, Talker(f"{gateway.server.ws_url}/") as client:
        model.refusals.extend([(status, {})] * 5)
        await client.send("connect")
        assert (await client.closed())[0] == 4503
        assert told(client) == ["status CONNECTING", "error unavailable"]
        assert client.seen[-1]["data"]["retryable"] is True
        assert 1 <= model.handshakes <= 3
