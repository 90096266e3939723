"""Functions of the client, functions of the gateway, and both in one call."""

from __future__ import annotations

from typing import Any

import pytest
from dialling import words
from serving import Server
from simulating import Simulator

from guests.guesting import Guest, Message, seconds
from guests.stage import CITY, DECLARATION, SPOKEN, Road, newest

OLDER = "gemini-2.5-flash-native-audio-preview-12-2025"
COUNT_STOCK = {**DECLARATION, "name": "count_stock", "description": "What the client has in stock."}


def tools(*declarations: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"functionDeclarations": list(declarations)}]


def calls(messages: list[Message]) -> list[str]:
    return [
        call["name"] for message in messages for call in message.get("toolCall", {}).get("functionCalls", [])
    ]


async def test_a_function_of_the_client(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base, tools=tools(DECLARATION)) as session:
        for sky in ("clear", "grey"):
            await session.typed("The weather?")
            (call,) = await session.calls()
            assert (call["name"], call["args"]) == ("get_weather", CITY)
            await session.answer((call, {"sky": sky}))
            assert words(await session.turn()) == f"It is {sky}."


async def test_speech_cancels_a_call_of_the_client(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base, tools=tools(DECLARATION)) as session:
        await session.typed("The weather?")
        (call,) = await session.calls()
        await session.sound(SPOKEN)
        messages = await session.turn()
        cancelled = [
            message["toolCallCancellation"] for message in messages if "toolCallCancellation" in message
        ]
        assert cancelled == [{"ids": [call["id"]]}]
        assert words(await session.turn()) == "Well, thank you."


async def test_a_function_of_the_client_that_the_model_does_not_wait_for(guest: Guest, road: Road) -> None:
    declared = {**DECLARATION, "behavior": "NON_BLOCKING"}
    async with guest.connected(road.base, tools=tools(declared)) as session:
        await session.typed("Look at the sky meanwhile.")
        messages = await session.turn()
        assert words(messages) == "One moment."
        (call,) = next(message["toolCall"]["functionCalls"] for message in messages if "toolCall" in message)
        await session.answer((call, {"sky": "clear"}))
        assert words(await session.turn()) == "By the way, it is clear."


async def test_a_new_context_keeps_the_functions_of_the_gateway(
    guest: Guest, gateway: Server, simulator: Simulator
) -> None:
    instruction = {"parts": [{"text": "Speak as a pirate."}], "role": "user"}
    async with guest.connected(gateway.https, tools=tools(COUNT_STOCK)) as session:
        await session.send(context={"systemInstruction": instruction, "tools": tools(DECLARATION)})
        assert (
            await session.answered("What is in stock?") == "7 are left."
        )  # the client's function of this name is gone
        await session.typed("The weather?")
        (call,) = await session.calls()
        await session.answer((call, {"sky": "clear"}))
        assert words(await session.turn()) == "It is clear."


async def test_a_function_of_the_gateway_is_called_unseen(guest: Guest, gateway: Server) -> None:
    async with guest.connected(gateway.https) as session:
        await session.typed("What is in stock?")
        messages = await session.turn()
    assert words(messages) == "7 are left."
    assert seconds(messages) > 0
    assert calls(messages) == []


async def test_it_stands_beside_those_of_the_client(
    guest: Guest, gateway: Server, simulator: Simulator
) -> None:
    async with guest.connected(gateway.https, tools=tools(DECLARATION)) as session:
        assert await session.answered("What is in stock?") == "7 are left."
        await session.typed("The weather?")
        (call,) = await session.calls()
        await session.answer((call, {"sky": "clear"}))
        assert words(await session.turn()) == "It is clear."
        assert calls(session.seen) == ["get_weather"]
        setup = (await newest(simulator))["setup"]
    declared = [each["name"] for tool in setup["tools"] for each in tool.get("functionDeclarations", [])]
    assert declared == ["get_weather", "count_stock"]


async def test_of_a_mixed_call_the_client_sees_its_own_part(guest: Guest, gateway: Server) -> None:
    async with guest.connected(gateway.https, tools=tools(DECLARATION)) as session:
        await session.typed("Tell me both.")
        (call,) = await session.calls()
        assert call["name"] == "get_weather"
        await session.answer((call, {"sky": "Clear"}))
        assert words(await session.turn()) == "Clear, 7."
        assert calls(session.seen) == ["get_weather"]


async def test_where_both_have_the_name_the_client_s_function_counts(guest: Guest, gateway: Server) -> None:
    async with guest.connected(gateway.https, tools=tools(COUNT_STOCK)) as session:
        await session.typed("What is in stock?")
        (call,) = await session.calls()
        await session.answer((call, {"result": {"count": 3}}))
        assert words(await session.turn()) == "3 are left."


@pytest.mark.parametrize("how", ["new", "bare"])
async def test_the_turn_that_older_models_end_before_the_answer_is_not_seen_either(
    guest: Guest, gateway: Server, simulator: Simulator, how: str
) -> None:
    await simulator.control(switches={"turn_after_call": how})
    try:
        async with guest.connected(gateway.https, model=OLDER, tools=tools(DECLARATION)) as session:
            assert await session.answered("What is in stock?") == "7 are left."
            await session.typed("The weather?")
            (call,) = await session.calls()
            assert words(await session.turn()) == ""  # of the client's own call it is seen
            await session.answer((call, {"sky": "clear"}))
            assert words(await session.turn()) == "It is clear."
    finally:
        await simulator.control(switches={"turn_after_call": None})
