"""F6: close 1011, which is many things."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import Talk, kinds, talking, told

PASSING = [
    "Internal error encountered.",
    "Internal error occurred.",
    "Deadline expired before operation could complete.",
    "The service is currently unavailable.",
    "Thread was cancelled when writing StartStep status",
    "",
]
SPENT = [
    "Resource has been exhausted (e.g. check quota).",
    "You exceeded your current quota, please check your plan and billing details.",
]


@pytest.mark.proves("F6")
async def test_what_passes_is_resumed(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:

        async def lose(talk: Talk, number: int, reason: str) -> None:
            await talk.turn("What is nine?", "A number.")
            await talk.line.close(1011, reason)
            second = await model.dialled(f"h{number}")
            await second.ready()
            connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
            assert (connected["resumed"], connected["memory"]) == (True, "restored")
            assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]
            await talk.turn("And ten?", "Another one.", second)

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as losses:
            for number, reason in enumerate(PASSING):
                talk = await clients.enter_async_context(talking(gateway.server, model, f"h{number}"))
                losses.create_task(lose(talk, number, reason))


@pytest.mark.proves("F6")
async def test_a_spent_quota_is_not_asked_for_again(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:
        for reason in SPENT:
            async with talking(gateway.server, model) as talk:
                await talk.line.close(1011, reason)
                assert (await talk.client.closed())[0] == 4503
                assert told(talk.client, "error") == ["error unavailable"]
                error = talk.client.seen[-1]["data"]
                assert "quota" in error["message"]
                assert error["retryable"] is True
        assert model.handshakes == len(SPENT)


@pytest.mark.proves("F6")
async def test_the_fourth_loss_within_a_minute_is_unavailable(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        line = talk.line
        for number in range(3):
            await line.close(1011, "Internal error encountered.")
            line = await model.dialled()
            await line.ready(f"h{number + 2}")
            await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        await line.close(1011, "Internal error encountered.")
        assert (await talk.client.closed())[0] == 4503
        assert told(talk.client, "status", "error")[2:] == [
            *["status RECONNECTING", "status CONNECTED"] * 3,
            "error unavailable",
        ]
        assert model.handshakes == 4
        assert len(kinds(await talk.events(), "model_lost")) == 4


@pytest.mark.proves("F4", "F6")
async def test_an_age_limit_whose_handle_is_refused_begins_a_new_session(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.close(1011, "Deadline expired before operation could complete.")
        await (await model.dialled()).close(1007, "Request contains an invalid argument.")
        third = await model.dialled()
        assert third.handle is None
        await third.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (False, "restored")


@pytest.mark.proves("F4", "F6")
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1007, "Request contains an invalid argument.")])
async def test_an_end_before_the_first_answer_begins_a_new_session(
    gateway: Gateway, code: int, reason: str
) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.client.send("text", {"text": "What is nine?"})
        await talk.line.typed()
        await talk.line.close(code, reason)
        second = await model.dialled()
        assert second.handle is None
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["resumed"] is False
        assert await second.typed() == "What is nine?"
        await second.say("A number.", bytes(4800))
        await talk.client.until("turn_complete")
        assert await talk.memory() == [("user", "What is nine?"), ("model", "A number.")]
