"""F26: the user interrupts, or the model side cancels, while a tool runs."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from faults.gate import Gate
from faults.model import ModelSide
from faults.stage import Talk, serving, talking, told

MANY_CALLS = ("--set", "limits.tool_calls_per_minute=10000")
RACES = 150


def answered(talk: Talk) -> Counter[str]:
    """How often each id was answered to the model side."""
    responses = [one["toolResponse"]["functionResponses"] for one in talk.line.got if "toolResponse" in one]
    return Counter(response["id"] for group in responses for response in group)


def ended(talk: Talk) -> Counter[str]:
    """How often the client was told the end of each call."""
    seen: Counter[str] = Counter()
    for message in talk.client.seen:
        if message["type"] == "tool_result":
            seen[message["data"]["id"]] += 1
        elif message["type"] == "tool_cancelled":
            seen.update(message["data"]["ids"])
    return seen


async def finish_turn(talk: Talk, words: str) -> None:
    """What everything before it has passed through the server when this comes back."""
    await talk.client.send("text", {"text": words})
    while await talk.line.typed() != words:
        pass
    await talk.line.say("Yes.", bytes(480))
    await talk.client.until("transcription", lambda data: data["text"] == "Yes." and data["isFinal"])


@pytest.mark.proves("F26")
async def test_a_cancelled_call_is_stopped_and_never_answered(tmp_path: Path) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.client.send("text", {"text": "Ask the tool."})
        await talk.line.typed()
        await talk.line.say("One moment.", bytes(480), complete=False)
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        await talk.line.send({"serverContent": {"interrupted": True}})
        await talk.line.send({"toolCallCancellation": {"ids": ["c1"]}})
        await run.gone()
        await talk.line.send({"serverContent": {"turnComplete": True}})
        assert (await talk.client.until("tool_cancelled"))["ids"] == ["c1"]
        await finish_turn(talk, "And now?")
        assert answered(talk) == {}
        assert told(talk.client).index("interrupted") < told(talk.client).index("tool_cancelled")
        assert "tool_result" not in told(talk.client)


@pytest.mark.proves("F26")
@pytest.mark.parametrize("on_interrupt", ["finish", "detach"])
async def test_a_call_that_is_not_to_be_stopped_ends_and_is_not_sent_under_its_id(
    tmp_path: Path, on_interrupt: str
) -> None:
    async with (
        Gate(tmp_path, f"on_interrupt: {on_interrupt}") as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.client.send("text", {"text": "Book it."})
        await talk.line.typed()
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        await talk.line.send({"serverContent": {"interrupted": True}})
        await talk.line.send({"toolCallCancellation": {"ids": ["c1"]}})
        await talk.line.send({"serverContent": {"turnComplete": True}})
        await talk.line.heard("Wait")
        await talk.client.until("transcription", lambda data: data["isUser"] and data["text"] == "Wait")
        run.finish({"booked": True})
        result = await talk.client.until("tool_result")
        assert (result["id"], result["ok"]) == ("c1", True)
        await talk.line.say("Yes?", bytes(480))
        await finish_turn(talk, "And now?")
        assert answered(talk) == {}
        notes = [one for one in talk.line.got if "booked" in json.dumps(one)]
        assert len(notes) == (1 if on_interrupt == "finish" else 0), "in words, or only remembered"
        assert [text for role, text in await talk.memory() if role == "tool"], "it is remembered"


@pytest.mark.proves("F26")
async def test_what_may_have_been_done_is_remembered_and_told_once_the_next_answer_is_over(
    tmp_path: Path,
) -> None:
    async with (
        Gate(tmp_path, "side_effects: true") as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.client.send("text", {"text": "Order it."})
        await talk.line.typed()
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        await talk.line.send({"serverContent": {"interrupted": True}})
        await talk.line.send({"toolCallCancellation": {"ids": ["c1"]}})
        await run.gone()
        await talk.line.send({"serverContent": {"turnComplete": True}})
        await talk.client.until("tool_cancelled")
        await finish_turn(talk, "What time is it?")
        told_so = await talk.line.typed()
        assert told_so.startswith('(wait({"n": 1}), which you asked for before, was broken off')
        await talk.line.say("It may have been ordered.", bytes(480))
        await finish_turn(talk, "And now?")
        assert answered(talk) == {}
        (line,) = [text for role, text in await talk.memory() if role == "tool"]
        assert line == 'wait({"n": 1}): broken off while it ran. It may have been done all the same'


@pytest.mark.proves("F26")
@pytest.mark.timeout(seconds=90)
async def test_in_every_order_each_call_ends_once(tmp_path: Path) -> None:
    chance = random.Random(26)
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, *MANY_CALLS, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        cancelled = set()
        for number in range(RACES):
            call_id = f"c{number}"
            await talk.line.call(call_id, "wait", {"n": number})
            run = await gate.arrival()
            acts = ["finish"]
            if chance.random() < 0.7:
                acts += ["interrupt", "cancel"] if chance.random() < 0.5 else ["cancel"]
            chance.shuffle(acts)
            for act in acts:
                match act:
                    case "finish":
                        run.finish({"n": number})
                    case "interrupt":
                        await talk.line.send({"serverContent": {"interrupted": True}})
                    case "cancel":
                        cancelled.add(call_id)
                        await talk.line.send({"toolCallCancellation": {"ids": [call_id]}})
            await run.gone()
            await talk.line.complete()
        await finish_turn(talk, "That was all.")
        everyone = {f"c{number}" for number in range(RACES)}
        assert ended(talk) == Counter(everyone), "each once"
        results = answered(talk)
        assert set(results.values()) <= {1}
        assert everyone - set(results) <= cancelled, "who was not cancelled is answered"
        stopped = [
            id_
            for message in talk.client.seen
            if message["type"] == "tool_cancelled"
            for id_ in message["data"]["ids"]
        ]
        assert set(stopped) == everyone - set(results), "answered or cancelled"
        assert gate.runs == RACES
