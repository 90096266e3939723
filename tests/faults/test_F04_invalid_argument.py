"""F4: close 1007, the request contains an invalid argument."""

from __future__ import annotations

import pytest
from talking import Talker

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import kinds, talking, told

INVALID = "Request contains an invalid argument."
NO_HANDLE = "Invalid session handle"


@pytest.mark.proves("F4")
async def test_a_refused_setup_is_not_sent_again(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, Talker(f"{gateway.server.ws_url}/") as client:
        await client.send("connect")
        await (await model.dialled()).close(1007, INVALID)
        code, _ = await client.closed()
        error = client.seen[-1]["data"]
        assert told(client) == ["status CONNECTING", "error upstream_rejected"]
        assert code == 4502
        assert error["retryable"] is False
        assert model.handshakes == 1


@pytest.mark.proves("F4")
@pytest.mark.parametrize("reason", [NO_HANDLE, INVALID])
async def test_a_refused_handle_is_followed_by_one_new_session_that_knows(
    gateway: Gateway, reason: str
) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        talk.line.drop()
        second = await model.dialled()
        assert second.handle == "h1"
        await second.close(1007, reason)
        third = await model.dialled()
        assert third.handle is None
        assert third.setup != second.setup, "not the same bytes again"
        await third.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
        seed = await third.receive("clientContent")
        assert [turn["parts"][0]["text"] for turn in seed["clientContent"]["turns"]] == [
            "What is nine?",
            "A number.",
        ]
        assert told(talk.client, "status", "error")[1:] == [
            "status CONNECTED",
            "status RECONNECTING",
            "status CONNECTED",
        ]
        await talk.turn("And ten?", "Another one.", third)
        assert model.handshakes == 3


@pytest.mark.proves("F4")
async def test_a_new_session_that_is_refused_too_is_the_end(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        talk.line.drop()
        await (await model.dialled()).close(1007, NO_HANDLE)
        await (await model.dialled()).close(1007, INVALID)
        assert (await talk.client.closed())[0] == 4502
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "error upstream_rejected"]
        assert model.handshakes == 3


@pytest.mark.proves("F4")
async def test_an_invalid_argument_in_mid_conversation_is_no_reason_to_say_it_again(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.client.send("text", {"text": "Something that it refuses."})
        await talk.line.typed()
        await talk.line.close(1007, INVALID)
        second = await model.dialled()
        assert second.handle is None
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
        assert await second.typed() == "Something that it refuses."
        (lost,) = kinds(await talk.events(), "model_lost")
        assert lost["data"]["cause"] == "text_refused"
