"""A model that is connected and does not answer: it is nudged, then resumed, then begun anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from simulating import Simulator

from faults.gate import Gate
from faults.model import ModelSide
from faults.stage import kinds, memory, serving, talking, told
from faults.test_simulated import ASKS, WELL
from faults.test_simulated import talking as simulated

IMPATIENT = "models: {gemini-3.8-live: {silent_s: {is: 2, inferred: for a test}}}\n"


def impatient(home: Path) -> Path:
    (home / "config").mkdir()
    (home / "config" / "models.yaml").write_text(IMPATIENT)
    return home


async def test_step_by_step_it_is_made_to_answer(tmp_path: Path) -> None:
    async with (
        ModelSide() as model,
        serving(model.port, home=impatient(tmp_path)) as server,
        talking(server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        await talk.line.resumable("h2")
        await talk.client.send("text", {"text": "And ten?"})
        assert await talk.line.typed() == "And ten?"
        assert "And ten?" in await talk.line.typed(), "the nudge"
        second = await model.dialled("h2")
        await second.ready("h3")
        assert "And ten?" in await second.typed(), "asked on the same session, by another line"
        third = await model.dialled(None)
        await third.ready("h4")
        connected = await talk.client.until("status", lambda data: data.get("resumed") is False)
        assert connected["memory"] == "restored"
        assert "And ten?" in await third.typed(), "asked in a new session"
        await third.say("Another one.", bytes(range(256)))
        await talk.client.until("turn_complete")
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"] * 2
        steps = [event["data"]["step"] for event in kinds(await talk.events(), "watchdog")]
        assert steps == ["nudge", "resume", "reseed"]
        assert await talk.memory() == [
            ("user", "What is nine?"),
            ("model", "A number."),
            ("user", "And ten?"),
            ("model", "Another one."),
        ]


async def test_one_that_never_answers_is_told_of_and_the_line_stays_open(tmp_path: Path) -> None:
    async with (
        ModelSide() as model,
        serving(model.port, home=impatient(tmp_path)) as server,
        talking(server, model) as talk,
    ):
        await talk.client.send("text", {"text": "Hello?"})
        await (await model.dialled("h1")).ready()
        third = await model.dialled(None)
        await third.ready("h2")
        error = await talk.client.until("error")
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        await talk.turn("And now?", "Here I am.", third)
        steps = [event["data"]["step"] for event in kinds(await talk.events(), "watchdog")]
        assert steps == ["nudge", "resume", "reseed", "give_up"]


NUDGED: list[tuple[str, Mapping[str, Any]]] = [
    ("text", {"silent_turns": 1}),
    ("empty_turn", {"empty_turns": 1}),
]


async def test_a_turn_without_an_answer_is_asked_for_again(tmp_path: Path) -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1) as simulator,
        serving(simulator.port, home=impatient(tmp_path)) as server,
    ):

        async def wait(talk: Any, after: str, fault: Mapping[str, Any]) -> None:
            await talk.turn()
            await talk.break_by(fault)
            await talk.client.send("text", {"text": "hi"})
            await talk.client.until("transcription", lambda data: data["isFinal"] and data["text"] == "Well.")
            await talk.client.until("turn_complete")
            assert told(talk.client, "status", "error") == ["status CONNECTING", "status CONNECTED"], fault
            steps = [event["data"] for event in await talk.events("watchdog")]
            assert steps == [{"step": "nudge", "after": after}]
            said = await memory(server, talk.session)
            assert said == [("user", "hi"), ("model", "Well.")] * 2, fault

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as waiting:
            for after, fault in NUDGED:
                talk = await clients.enter_async_context(simulated(server, simulator))
                waiting.create_task(wait(talk, after, fault))


async def test_sound_without_a_sound_is_no_answer(tmp_path: Path) -> None:
    long = {"turns": [{"repeat": True, "do": [{"say": "Well.", "seconds": 8}]}]}
    async with (
        Simulator(long, speed=20, latency=0.1) as simulator,
        serving(simulator.port, home=impatient(tmp_path)) as server,
        simulated(server, simulator) as talk,
    ):
        await talk.turn()
        await talk.break_by({"digital_silence": True})
        await talk.client.send("text", {"text": "hi"})
        await talk.client.until("status", lambda data: data["status"] == "RECONNECTING")
        await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        await talk.client.until("turn_complete")
        steps = [event["data"] for event in await talk.events("watchdog")]
        assert steps[0] == {"step": "nudge", "after": "silence"}
        assert steps[-1]["step"] == "resume", "the fault is of one connection"


@pytest.mark.timeout(seconds=60)
async def test_an_answer_of_a_tool_that_is_not_heard_is_told_in_words(tmp_path: Path) -> None:
    async with (
        Gate(impatient(tmp_path)) as gate,
        Simulator(ASKS, speed=20, latency=0.1) as simulator,
        serving(simulator.port, *gate.arguments, home=tmp_path) as server,
        simulated(server, simulator) as talk,
    ):
        await talk.turn()
        await talk.break_by({"ignore_tool_response": 1})
        await talk.client.send("text", {"text": "ask"})
        (await gate.arrival()).finish({"answer": "forty-two"})
        assert (await talk.client.until("tool_result"))["ok"] is True
        await talk.client.until("turn_complete", within=30)
        steps = [event["data"] for event in await talk.events("watchdog")]
        assert steps[0] == {"step": "nudge", "after": "tool_answer"}
        assert told(talk.client, "error") == []
        assert gate.runs == 1, "it is not run again"
