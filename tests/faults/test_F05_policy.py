"""F5: close 1008 in mid-conversation, with the reasons that the service gives."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import Talk, kinds, talking, told

REASONS = [
    ("operation_refused", "Operation is not implemented, or supported, or enabled."),
    ("age_limit", "The operation was aborted."),
    ("message_refused", "Requested entity was not found."),
    ("session_lost", "BidiGenerateContent session not found"),
    (
        "age_limit",
        "Connection aborted because the client failed to close the connection after receiving a GoAway signal"
        " once the session durat",
    ),
]


@pytest.mark.proves("F5")
async def test_whatever_the_reason_the_conversation_goes_on_with_its_handle(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:

        async def lose(talk: Talk, number: int, cause: str, reason: str) -> None:
            await talk.turn("And ten?", "Another one.")
            await talk.line.resumable(f"second of {number}")
            await talk.line.close(1008, reason)
            second = await model.dialled(f"second of {number}")
            await second.ready()
            connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
            assert (connected["resumed"], connected["memory"]) == (True, "restored")
            assert connected["gapMs"] >= 0
            assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
            await talk.turn("And eleven?", "A third one.", second)
            lost, switched = kinds(await talk.events(), "model_lost", "switched")
            assert (lost["kind"], lost["data"]["cause"]) == ("model_lost", cause)
            assert (switched["kind"], switched["data"]["resumed"]) == ("switched", True)

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as losses:
            for number, (cause, reason) in enumerate(REASONS):
                talk = await clients.enter_async_context(talking(gateway.server, model, f"first of {number}"))
                losses.create_task(lose(talk, number, cause, reason))


@pytest.mark.proves("F5")
async def test_a_second_refusal_of_the_same_handle_begins_a_new_session(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.close(1008, "The operation was aborted.")
        second = await model.dialled()
        assert second.handle == "h1"
        await second.close(1008, "BidiGenerateContent session not found")
        third = await model.dialled()
        assert third.handle is None, "a refused handle is tried once"
        await third.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
