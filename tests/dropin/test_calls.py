"""Functions of the operator and of the client in one conversation, and lines that break, on the raw wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from dropin.compare import spellings
from dropin.conftest import Gateway
from dropin.model import Gate, Line, Talk, talking
from dropin.wire import Frame, Message, content, kinds, words


def ended(messages: Sequence[Message]) -> int:
    """How many turns have ended."""
    return sum("turnComplete" in content(message) for message in messages)


def seen(talk: Talk) -> list[Message]:
    """All that the client has got."""
    return [json.loads(frame) for frame in talk.client.received]


def calm(talk: Talk) -> None:
    """The client knows nothing of the model side's lines and handles, nor of the operator's functions."""
    messages = seen(talk)
    assert kinds(messages).count("setupComplete") == 1
    for message in messages:
        assert not message.keys() & {"goAway", "sessionResumptionUpdate"}
        called = {call["name"] for call in message.get("toolCall", {}).get("functionCalls", [])}
        assert not called & {"shelf", "wait"}
    everything = b"".join(map(raw, talk.client.received))
    for handle in ("handle-of-the-first-line", "handle-of-the-second-line"):
        assert not any(written in everything for written in spellings(handle))


def looks(behaviour: str) -> Any:
    return [{"functionDeclarations": [{"name": "look", "description": "Looks.", "behavior": behaviour}]}]


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_mixed_calls_are_split_and_answered_together_in_their_order(
    gateway: Gateway, first: str
) -> None:
    async with Gate() as gate, talking(gateway.url, gateway.port, tools=looks("BLOCKING")) as talk:
        await talk.client.say("Go.")
        await talk.line.call(("c1", "look"), ("c2", "wait", gate.arguments), ("c3", "look"), ("c4", "shelf"))
        run = await gate.arrival()
        if first == "ours":
            run.write(b'{"n": 1}\n')
        assert [call["id"] for call in await talk.client.call()] == ["c1", "c3"]
        theirs = ['{"id" : "c3","response":{"b":2.50}}', '{"id":"c1","name":"look","response":{"a":1},"x":1}']
        for answer in theirs:
            await talk.client.send(f'{{"tool_response":{{"function_responses":[{answer}]}}}}')
        if first == "theirs":
            run.write(b'{"n": 1}\n')
        answers = await talk.line.answers()
        assert [answer["id"] for answer in answers] == ["c1", "c2", "c3", "c4"]
        assert answers[0] == json.loads(theirs[1])
        assert answers[2] == json.loads(theirs[0])
        await talk.line.say("Done.")
        assert words(await talk.client.turn()) == "Done."
        await talk.turn("this")
        assert sum(b'"id"' in raw(frame) for frame in talk.line.frames) == 1
        calm(talk)


async def test_a_call_that_the_model_does_not_wait_for_is_answered_by_itself(gateway: Gateway) -> None:
    async with talking(gateway.url, gateway.port, tools=looks("NON_BLOCKING")) as talk:
        await talk.client.say("Go.")
        await talk.line.call(("c1", "look"), ("c2", "shelf"))
        assert [call["id"] for call in await talk.client.call()] == ["c1"]
        assert [answer["id"] for answer in await talk.line.answers()] == ["c2"]
        own = '{ "toolResponse":{"functionResponses":[{"id":"c1","response":{},"scheduling":"SILENT"}]}}'
        await talk.client.send(own)
        assert [answer["id"] for answer in await talk.line.answers()] == ["c1"]
        assert raw(talk.line.frames[-1]) == own.encode()
        calm(talk)


async def test_of_a_cancellation_the_client_sees_its_own_calls_only(gateway: Gateway) -> None:
    async with Gate() as gate, talking(gateway.url, gateway.port) as talk:
        await talk.line.call(("c1", "look"), ("c2", "wait", gate.arguments))
        await gate.arrival()
        assert [call["id"] for call in await talk.client.call()] == ["c1"]
        await talk.line.send({"toolCallCancellation": {"ids": ["c2", "c1"]}})
        assert (await talk.client.next()) == {"toolCallCancellation": {"ids": ["c1"]}}
        await talk.line.call(("c3", "wait", gate.arguments))
        await gate.arrival()
        await talk.line.send({"toolCallCancellation": {"ids": ["c3"]}})
        await talk.turn("this")
        assert not any("tool" in name for frame in talk.client.received[3:] for name in json.loads(frame))
        assert not any("toolResponse" in json.loads(frame) for frame in talk.line.frames)
        calm(talk)


@pytest.mark.parametrize("end", [["turnComplete"], ["generationComplete", "turnComplete"]])
async def test_a_2x_models_early_end_of_a_hidden_call_is_hidden_too(gateway: Gateway, end: list[str]) -> None:
    model = "models/gemini-2.5-flash-native-audio-preview-12-2025"
    async with talking(gateway.url, gateway.port, model=model) as talk:
        await talk.client.say("Go.")
        await talk.line.typed("Go.")
        await talk.line.call(("c1", "shelf"))
        for name in end:
            await talk.line.send({"serverContent": {name: True}})
        await talk.line.answers()
        await talk.line.say("On seven.")
        assert kinds(await talk.client.turn()) == [
            "outputTranscription",
            "generationComplete",
            "turnComplete",
        ]
        await talk.turn("this")
        calm(talk)


async def fails(line: Line, how: str) -> None:
    match how:
        case "cut":
            line.drop()
        case "1011":
            await line.close(1011, "Internal error encountered.")
        case "goAway":
            await line.send({"goAway": {"timeLeft": "0.3s"}})


async def moved(talk: Talk) -> Line:
    """The next line, once it is ready; it goes on where the first one was."""
    line = await talk.model.dialled()
    assert line.handle == "handle-of-the-first-line"
    await line.ready("handle-of-the-second-line")
    return line


HOW = ["cut", "1011", "goAway"]


@pytest.mark.parametrize("how", HOW)
async def test_a_line_that_fails_while_nothing_is_said_is_not_seen(gateway: Gateway, how: str) -> None:
    async with talking(gateway.url, gateway.port, handle="handle-of-the-first-line") as talk:
        await talk.turn("this")
        await talk.line.resumable("handle-of-the-first-line")
        await fails(talk.line, how)
        line = await moved(talk)
        assert words(await talk.turn("that", line)) == "As for that"
        assert ended(seen(talk)) == 2
        calm(talk)


async def test_a_line_that_cannot_be_resumed_is_not_seen_either(gateway: Gateway) -> None:
    async with talking(gateway.url, gateway.port, handle=None) as talk:
        await talk.turn("this")
        talk.line.drop()
        line = await talk.model.dialled()
        assert line.handle is None
        await line.ready()
        assert words(await talk.turn("that", line)) == "As for that"
        assert "As for this" in str([line.setup, *line.frames])
        assert ended(seen(talk)) == 2
        calm(talk)


@pytest.mark.parametrize("how", HOW)
async def test_a_line_that_fails_in_mid_answer_ends_its_turn_once(gateway: Gateway, how: str) -> None:
    async with talking(gateway.url, gateway.port, handle="handle-of-the-first-line") as talk:
        await talk.client.say("Go.")
        await talk.line.typed("Go.")
        await talk.line.say("It was", complete=False)
        await talk.client.until(lambda message: "outputTranscription" in content(message))
        await fails(talk.line, how)
        if how == "goAway":
            await talk.line.say(" so.")
            await talk.line.resumable("handle-of-the-first-line")
            line = await moved(talk)
        else:
            line = await moved(talk)
            await line.typed("It was")
            await line.typed("Go.")  # the model side is asked to go on
            await line.say(" so.")
        assert words(await talk.client.turn()) == " so."
        assert words(await talk.turn("this", line)) == "As for this"
        assert ended(seen(talk)) == 2
        calm(talk)


@pytest.mark.parametrize("how", HOW)
async def test_a_line_that_fails_while_the_clients_function_runs_is_not_seen(
    gateway: Gateway, how: str
) -> None:
    async with talking(gateway.url, gateway.port, handle="handle-of-the-first-line") as talk:
        await talk.client.say("Go.")
        await talk.line.typed("Go.")
        await talk.line.call(("c1", "look"))
        await talk.client.call()
        await fails(talk.line, how)
        line = talk.line if how == "goAway" else await moved(talk)
        answer = {"id": "c1", "response": {"at": "home"}}
        await talk.client.send({"toolResponse": {"functionResponses": [answer]}})
        if how != "goAway":
            await line.typed("Go.")
            await (await talk.client.socket.ping())  # its answer has arrived
            await line.call(("c9", "look"))  # which the model side asks for again, and the client need not
        assert [each["response"] for each in await line.answers()] == [{"at": "home"}]
        await line.say("At home.")
        assert words(await talk.client.turn()) == "At home."
        if how == "goAway":
            await line.resumable("handle-of-the-first-line")
            line = await moved(talk)
        await talk.turn("this", line)
        assert ended(seen(talk)) == 2
        assert kinds(seen(talk)).count("toolCall") == 1
        calm(talk)


@pytest.mark.parametrize("how", HOW)
async def test_a_line_that_fails_while_our_function_runs_is_not_seen(gateway: Gateway, how: str) -> None:
    async with Gate() as gate, talking(gateway.url, gateway.port, handle="handle-of-the-first-line") as talk:
        await talk.client.say("Go.")
        await talk.line.typed("Go.")
        await talk.line.call(("c1", "wait", gate.arguments))
        run = await gate.arrival()
        await fails(talk.line, how)
        line = talk.line if how == "goAway" else await moved(talk)
        run.write(b'{"at": "home"}\n')
        if how == "goAway":
            await line.answers()
        else:
            await line.typed("home")
        await line.say("At home.")
        await talk.client.turn()
        if how == "goAway":
            await line.resumable("handle-of-the-first-line")
            line = await moved(talk)
        await talk.turn("this", line)
        assert ended(seen(talk)) == 2
        calm(talk)


def raw(frame: Frame) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame
