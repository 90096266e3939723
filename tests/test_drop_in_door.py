"""How a client of Google's protocol is let in, and how it is told that it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets
from serving import Server
from simulating import Simulator
from tornado.httpclient import AsyncHTTPClient
from websockets.asyncio.client import connect

PATH = "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent"
SETUP: dict[str, Any] = {"model": "models/gemini-3.8-live"}


async def opened(server: Server, setup: Any, *, query: str = "", method: str = "") -> dict[str, Any]:
    """The first answer. Raises ConnectionClosed where there is none."""
    url = server.url.replace("http", "ws") + PATH + method + query
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"setup": setup}))
        answer: dict[str, Any] = json.loads(await socket.recv())
        return answer


async def refused(server: Server, setup: Any, **how: str) -> tuple[int, str]:
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await opened(server, setup, **how)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_a_refusal_is_told_to_the_client_and_to_the_log() -> None:
    async with Server("--set", "drop_in.only_models=[gemini-3.8-live]") as server:
        code, reason = await refused(server, {"model": "models/another"})
        assert code == 1008
        assert reason == 'model "another" is not allowed here; allowed: gemini-3.8-live'
        line = json.loads((await server.printed("not allowed here")).string)
        assert (line["event"], line["code"]) == ("error", "forbidden")


async def test_a_setup_that_opens_nothing_spends_no_use_of_a_token() -> None:
    async with Server() as server:
        asked = await AsyncHTTPClient().fetch(
            f"{server.url}/v1alpha/auth_tokens",
            method="POST",
            body=json.dumps({"uses": 1}),
            headers={"Content-Type": "application/json"},
        )
        how = {"query": f"?access_token={json.loads(asked.body)['name']}", "method": "Constrained"}
        code, _ = await refused(server, {**SETUP, "generationConfig": "x"}, **how)
        assert code == 1007
        assert "setupComplete" in await opened(server, SETUP, **how)
        code, reason = await refused(server, SETUP, **how)
        assert (code, "too many times" in reason) == (1008, True)


async def test_a_refused_key_of_ours_is_no_business_of_a_guest() -> None:
    async with (
        Simulator(require_key=True) as simulator,
        Server(environ={"GEMINI_API_KEY": "invalid-key", "GEMINI_BASE_URL": simulator.url}) as server,
    ):
        code, reason = await refused(server, SETUP)
        assert (code, reason) == (
            1008,
            "The model cannot be had here; the operator of this server must mend that.",
        )
