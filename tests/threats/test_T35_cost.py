"""T35: somebody opens one conversation after the other, or leaves them open, at the operator's cost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from accessing import ASKING, bearer, signed
from doorways import without
from faults.model import ModelLine, ModelSide
from faults.nodes import shared_file
from faults.stage import environment, unbroken
from serving import Server
from talking import Talker
from websockets.exceptions import ConnectionClosed

WITHOUT_A_METER = """
from tornado_live.live.metering import Meter
async def admit(self, caller): pass
Meter.admit = admit
"""


def ann(server: Server) -> Talker:
    return Talker(f"{server.ws_url}/", headers=bearer(signed("ann")))


async def opened(client: Talker, model: ModelSide) -> ModelLine:
    await client.send("connect")
    line = await model.dialled()
    await line.ready("h")
    await client.until("status", lambda data: data["status"] == "CONNECTED")
    return line


async def refused(client: Talker) -> dict[str, object]:
    """The error of a client that is not let talk."""
    await client.send("connect")
    error = await client.until("error")
    assert (await client.closed())[0] == 4429
    return error


async def a_third_conversation_is_refused(server: Server, model: ModelSide) -> None:
    async with ann(server) as one, ann(server) as two:
        await opened(one, model)
        await opened(two, model)
        async with ann(server) as three:
            error = await asyncio.wait_for(refused(three), 5)
        assert error["code"] == "limited"
        assert error["retryable"] is True
        assert error["retryAfterMs"]
        assert "conversations_per_user" in str(error["message"])
        assert model.handshakes == 2, "nothing was dialled for it"
        async with Talker(f"{server.ws_url}/", headers=bearer(signed("bob"))) as other:
            await opened(other, model)
        await two.send("disconnect")
        await two.until("status", lambda data: data["status"] == "DISCONNECTED")
        async with ann(server) as three:
            await opened(three, model)


TWO = ASKING | {"LIMITS__CONVERSATIONS_PER_USER": "2"}


@pytest.mark.proves("T35")
async def test_more_conversations_than_a_user_may_have_dial_no_model() -> None:
    async with ModelSide() as model, Server(environ=environment(model.port) | TWO) as server:
        await a_third_conversation_is_refused(server, model)
        unbroken(server)


async def test_without_the_meter_the_third_one_is_dialled() -> None:
    async with (
        ModelSide() as model,
        without(WITHOUT_A_METER, environ=environment(model.port) | TWO) as server,
    ):
        with pytest.raises(TimeoutError):
            await a_third_conversation_is_refused(server, model)


@pytest.mark.proves("T35")
@pytest.mark.parametrize(
    "limit", [{"LIMITS__TOKENS_PER_DAY": "400000"}, {"LIMITS__COST_PER_DAY": "1.5"}], ids=["tokens", "money"]
)
async def test_a_budget_is_warned_of_ends_the_conversation_and_outlives_the_process(
    limit: Mapping[str, str], tmp_path: Path
) -> None:
    given = ASKING | shared_file(tmp_path) | dict(limit)
    async with ModelSide() as model:
        environ = environment(model.port) | given
        async with Server(environ=environ) as server:
            async with ann(server) as client:
                line = await opened(client, model)
                async with asyncio.TaskGroup() as together:
                    warned = together.create_task(client.until("warning"))
                    await spending(line, warned)
                assert warned.result()["code"] == "budget_near"
                aside = await line.receive("clientContent")
                assert aside["clientContent"]["turnComplete"] is False
                async with asyncio.TaskGroup() as together:
                    closed = together.create_task(client.closed())
                    await spending(line, closed)
                assert closed.result()[0] == 4429
                error = [message["data"] for message in client.seen if message["type"] == "error"][-1]
                assert error["code"] == "limited"
                assert 0 < error["retryAfterMs"] <= 86_400_000
                assert await line.closed() == 1000
            dialled = model.handshakes
            async with ann(server) as again:
                await refused(again)
            unbroken(server)
        async with Server(environ=environ) as restarted:
            async with ann(restarted) as again:
                await refused(again)
            unbroken(restarted)
        assert model.handshakes == dialled


async def spending(line: ModelLine, until: asyncio.Task[object]) -> None:
    """Turn after turn, each with what the model side reports of it."""
    while not until.done():
        if line.open:
            await spend(line)
        await asyncio.wait({until}, timeout=1.2)  # the meter is looked at once a second


async def spend(line: ModelLine) -> None:
    counts = {"promptTokenCount": 60_000, "responseTokenCount": 20_000, "totalTokenCount": 80_000}
    details = {
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 60_000}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 20_000}],
    }
    await line.send({"usageMetadata": counts | details})


@pytest.mark.proves("T35")
async def test_a_newer_credential_of_the_same_user_keeps_the_place() -> None:
    given = ASKING | {"LIMITS__CONVERSATIONS_PER_USER": "1"}
    async with ModelSide() as model, Server(environ=environment(model.port) | given) as server:
        async with ann(server) as client:
            line = await opened(client, model)
            for number in range(3):
                await client.send("connect", {"token": signed("ann", jti=f"number {number}")})
                await client.until("status", lambda data: data["status"] == "CONNECTED")
            async with ann(server) as other:
                await refused(other)
            await client.send("text", {"text": "Still there?"})
            assert await line.typed() == "Still there?"
        async with ann(server) as other:
            await opened(other, model)
        unbroken(server)


@pytest.mark.proves("T35")
async def test_who_has_used_up_the_tools_of_a_day_can_still_talk() -> None:
    given = ASKING | {"LIMITS__TOOL_CALLS_PER_DAY": "1", "MOCK_TOOLS": "always"}
    async with ModelSide() as model, Server(environ=environment(model.port) | given) as server:
        states = []
        for number in (1, 2):
            async with ann(server) as client:
                line = await opened(client, model)
                await line.call(f"c{number}", "get_weather", {"location": f"Rome {number}"})
                answer = await line.receive("toolResponse")
                (response,) = answer["toolResponse"]["functionResponses"]
                states.append(response["response"].get("error", {}).get("code", "ok"))
                await line.say("Well.")
                await client.until("turn_complete")
        assert states == ["ok", "limited"]
        unbroken(server)


@pytest.mark.proves("T35")
async def test_noise_without_a_word_does_not_keep_a_conversation_open() -> None:
    given = {"LIMITS__SILENT_TIMEOUT_S": "2"}
    async with ModelSide() as model, Server(environ=environment(model.port) | given) as server:
        async with Talker(f"{server.ws_url}/") as client:
            line = await opened(client, model)
            async with asyncio.TaskGroup() as together:
                closed = together.create_task(client.closed())
                with suppress(ConnectionClosed):
                    while not closed.done():
                        await client.speak(os.urandom(640))
                        await asyncio.wait({closed}, timeout=0.02)
            assert closed.result()[0] == 4408
            assert await line.closed() == 1000
        unbroken(server)


@pytest.mark.proves("T35")
async def test_a_conversation_ends_after_its_longest_time_wherever_it_goes_on() -> None:
    given = {"LIMITS__CONVERSATION_S": "3"}
    async with ModelSide() as model, Server(environ=environment(model.port) | given) as server:
        async with Talker(f"{server.ws_url}/") as client:
            line = await opened(client, model)
            assert (await client.until("warning"))["code"] == "budget_near"
            assert (await client.closed())[0] == 4410
            assert await line.closed() == 1000
            session = client.seen[0]["sessionId"]
        dialled = model.handshakes
        async with Talker(f"{server.ws_url}/?sessionId={session}") as again:
            await again.send("connect")
            assert (await again.until("error"))["code"] == "session_ended"
            assert (await again.closed())[0] == 4410
        assert model.handshakes == dialled
        unbroken(server)
