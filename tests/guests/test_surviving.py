"""What Google's own clients see of lost connections: nothing, or handles that restore everything."""

from __future__ import annotations

import pytest
from dialling import words
from serving import Server
from simulating import Simulator

from guests.guesting import Guest, Message
from guests.stage import DECLARATION, newest


def told_of_handles(messages: list[Message]) -> list[Message]:
    return [message for message in messages if {"sessionResumptionUpdate", "goAway"} & message.keys()]


@pytest.mark.parametrize(
    "fault",
    ["drop", {"go_away": 10}, {"close": {"code": 1011, "reason": "Internal error encountered."}}],
    ids=["drop", "go away", "close"],
)
async def test_a_lost_connection_is_not_seen(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https) as session:
        assert await session.answered("What comes next?") == "The first."
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert await session.answered("What comes next?") == "The second."
        assert await session.answered("Hello?") == "Good morning to you."
        assert told_of_handles(session.seen) == []


@pytest.mark.parametrize("fault", ["drop", {"go_away": 5}], ids=["drop", "go away"])
async def test_a_connection_that_is_lost_in_mid_answer_is_not_seen(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https) as session:
        assert await session.answered("What comes next?") == "The first."
        await session.typed("Tell me a story.")
        await session.until(words_of)
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert words(await session.turn()).endswith("the end.")
        assert await session.answered("Hello?") == "Good morning to you."
        assert told_of_handles(session.seen) == []


@pytest.mark.parametrize("fault", ["drop", "close_after_tool_response"])
async def test_a_call_of_the_client_is_answered_once_whatever_becomes_of_the_connection(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str
) -> None:
    async with guest.connected(gateway.https, tools=[{"functionDeclarations": [DECLARATION]}]) as session:
        assert await session.answered("What comes next?") == "The first."
        await session.typed("The weather?")
        (call,) = await session.calls()
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        await session.answer((call, {"sky": "clear"}))
        assert words(await session.turn()) == "It is clear."
        assert await session.answered("What comes next?") == "The second."
        assert [message for message in session.seen if "toolCall" in message] == [
            {"toolCall": {"functionCalls": [call]}}
        ]


def words_of(message: Message) -> str:
    return words([message])
