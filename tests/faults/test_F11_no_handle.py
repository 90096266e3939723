"""F11: there is no handle to resume with, or none that can be used now."""

from __future__ import annotations

import json

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import talking, told


@pytest.mark.proves("F11")
async def test_without_a_handle_a_new_session_is_given_the_memory(gateway: Gateway) -> None:
    async with (
        ModelSide(gateway.port) as model,
        talking(gateway.server, model, handle=None) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        talk.line.drop()
        second = await model.dialled()
        assert second.handle is None
        await second.ready()
        seed = (await second.receive())["clientContent"]
        assert seed is second.seed
        assert [(turn["role"], turn["parts"][0]["text"]) for turn in seed["turns"]] == [
            ("user", "What is nine?"),
            ("model", "A number."),
        ]
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
        await talk.turn("And ten?", "Another one.", second)
        assert json.dumps(second.got).count("What is nine?") == 1, "told once"


@pytest.mark.proves("F11")
async def test_without_a_handle_and_without_a_memory_it_says_none(gateway: Gateway) -> None:
    async with (
        ModelSide(gateway.port) as model,
        talking(gateway.server, model, handle=None) as talk,
    ):
        talk.line.drop()
        second = await model.dialled()
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "none")
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
        await talk.turn("What is nine?", "A number.", second)
        assert second.seed is None, "nothing to be told"


@pytest.mark.proves("F11")
async def test_while_it_cannot_be_resumed_the_last_good_handle_holds(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.resumable("h2")
        await talk.line.not_resumable()
        await talk.turn("And ten?", "Another one.")
        talk.line.drop()
        second = await model.dialled()
        assert second.handle == "h2"
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["resumed"] is True
