"""What Google's own clients see of lost connections: nothing, or handles that restore everything."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from dialling import words
from serving import Server
from simulating import Simulator

from guests.guesting import Guest, Message, RefusedError, Session
from guests.stage import DECLARATION, GatewayAt, Road, newest

RESUMABLE: dict[str, Any] = {"sessionResumption": {}}


async def answered(session: Session, question: str) -> str:
    await session.typed(question)
    return words(await session.turn())


def resuming(handle: str) -> dict[str, Any]:
    return {"sessionResumption": {"handle": handle}}


def told_of_handles(messages: list[Message]) -> list[Message]:
    return [message for message in messages if {"sessionResumptionUpdate", "goAway"} & message.keys()]


async def test_a_conversation_goes_on_with_its_handle(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base, **RESUMABLE) as session:
        assert await answered(session, "What comes next?") == "The first."
        handle = await session.handle()
    async with guest.connected(road.base, **resuming(handle)) as session:
        assert await answered(session, "What comes next?") == "The second."
        newer = await session.handle()
    async with guest.connected(road.base, **resuming(newer)) as session:
        assert await answered(session, "What comes next?") == "The third."


async def test_an_invented_handle_is_refused(guest: Guest, road: Road) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(road.base, **resuming("invented")):
            pass
    assert caught.value.code in (1007, 1008)
    assert caught.value.reason


@pytest.mark.parametrize(
    "fault",
    ["drop", {"go_away": 1}, {"close": {"code": 1011, "reason": "Internal error encountered."}}],
    ids=["drop", "go away", "close"],
)
async def test_a_lost_connection_is_not_seen(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https) as session:
        assert await answered(session, "What comes next?") == "The first."
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert await answered(session, "What comes next?") == "The second."
        assert await answered(session, "Hello?") == "Good morning to you."
        assert told_of_handles(session.seen) == []


@pytest.mark.parametrize("fault", ["drop", {"go_away": 5}], ids=["drop", "go away"])
async def test_a_connection_that_is_lost_in_mid_answer_is_not_seen(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https) as session:
        assert await answered(session, "What comes next?") == "The first."
        await session.typed("Tell me a story.")
        await session.until(words_of)
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert words(await session.turn()).endswith("the end.")
        assert await answered(session, "Hello?") == "Good morning to you."
        assert told_of_handles(session.seen) == []


@pytest.mark.parametrize("fault", ["drop", "close_after_tool_response"])
async def test_a_call_of_the_client_is_answered_once_whatever_becomes_of_the_connection(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str
) -> None:
    async with guest.connected(gateway.https, tools=[{"functionDeclarations": [DECLARATION]}]) as session:
        assert await answered(session, "What comes next?") == "The first."
        await session.typed("The weather?")
        (call,) = await session.calls()
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        await session.answer((call, {"sky": "clear"}))
        assert words(await session.turn()) == "It is clear."
        assert await answered(session, "What comes next?") == "The second."
        assert [message for message in session.seen if "toolCall" in message] == [
            {"toolCall": {"functionCalls": [call]}}
        ]


def words_of(message: Message) -> str:
    return words([message])


@pytest.mark.parametrize("fault", ["drop", {"go_away": 1}], ids=["drop", "go away"])
async def test_a_handle_of_ours_is_good_after_google_s_connection_was_lost(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https, **RESUMABLE) as session:
        assert await answered(session, "What comes next?") == "The first."
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert await answered(session, "What comes next?") == "The second."
        handle = await session.handle(after=2)
        assert not any("goAway" in message for message in session.seen)
        theirs = {each["handle"] for each in (await simulator.status())["conversations"]}
        assert handle not in theirs
    async with guest.connected(gateway.https, **resuming(handle)) as session:
        assert await answered(session, "What comes next?") == "The third."


async def test_a_handle_is_good_after_google_has_forgotten_and_the_gateway_was_restarted(
    guest: Guest, gateway_at: GatewayAt, simulator: Simulator, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as client:
        async with gateway_at(tmp_path) as gateway:
            session = await client.enter_async_context(guest.connected(gateway.https, **RESUMABLE))
            assert await answered(session, "What comes next?") == "The first."
            handle = await session.handle()
        assert (await session.ended())[0] == 1011  # on which clients come again
    await simulator.control("lose_handles")
    async with (
        gateway_at(tmp_path) as gateway,
        guest.connected(gateway.https, **resuming(handle)) as session,
    ):
        assert await answered(session, "Hello?") == "Good morning to you."
        assert await answered(session, "What is in stock?") == "7 are left."
        history = (await newest(simulator))["setup"].get("historyConfig")
        assert history == {"initialHistoryInClientContent": True}
