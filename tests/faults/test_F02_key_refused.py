"""F2: the model's server answers the handshake with 401 or 403."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import KEY, get, told


@pytest.mark.proves("F2")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_once_and_seen_by_the_readiness_probe(
    gateway: Gateway, status: int
) -> None:
    async with ModelSide(gateway.port) as model:
        model.refusals.append((status, {}))
        assert (await get(gateway.server, "/health/ready")).status_code == 200
        async with Talker(f"{gateway.server.ws_url}/") as client:
            await client.send("connect")
            code, reason = await client.closed()
        error = client.seen[-1]["data"]
        assert told(client) == ["status CONNECTING", "error upstream_rejected"]
        assert (code, reason) == (4502, error["message"][:123])
        assert error["retryable"] is False
        assert "GEMINI_API_KEY" in error["message"]
        assert model.handshakes == 1, "the same key again would be refused again"

        ready = await get(gateway.server, "/health/ready")
        assert ready.status_code == 503
        assert "GEMINI_API_KEY" in ready.json()["error"]["message"]
        assert (await get(gateway.server, "/health")).status_code == 200

        async with Talker(f"{gateway.server.ws_url}/") as client:
            await client.send("connect")
            await (await model.dialled()).ready()
            await client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (await get(gateway.server, "/health/ready")).status_code == 200, "the key is good again"
        assert KEY not in gateway.server.log + reason + ready.text
