"""F17: the model side dies around a call that changes something; whatever is asked then, it is made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faults.gate import Gate
from faults.model import ModelSide
from faults.stage import Talk, get, serving, talking

DONE = {"answer": "forty-two"}


@pytest.mark.proves("F17")
@pytest.mark.parametrize("known", [True, False])
async def test_what_changes_something_is_made_once_whenever_the_line_dies(
    tmp_path: Path, known: bool
) -> None:
    async with (
        Gate(tmp_path, "side_effects: true") as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
    ):
        for runs, dies in enumerate(("running", "finished", "answered", "spoken"), 1):
            async with talking(server, model) as talk:
                await made_once(talk, gate, model, dies, known=known)
            assert gate.runs == runs, dies


async def made_once(talk: Talk, gate: Gate, model: ModelSide, dies: str, *, known: bool) -> None:
    await talk.turn("What is nine?", "A number.")
    await talk.client.send("text", {"text": "Order one."})
    await talk.line.typed()
    await talk.line.call("c1", "wait", {"n": 1})
    run = await gate.arrival()
    if known:
        await talk.line.resumable("h2")  # a state that the call belongs to
        await talk.client.send("text", {"text": "And?"})
        await talk.line.typed()  # what was sent before it has come too
    if dies in ("answered", "spoken"):
        run.finish(DONE)
        await talk.line.receive("toolResponse")
    if dies == "spoken":
        await talk.line.say("It is or", complete=False)
        await talk.client.until("transcription", lambda data: not data["isUser"])
    talk.line.drop()
    await talk.client.until("status", lambda data: data["status"] == "RECONNECTING")
    if dies == "finished":
        run.finish(DONE)
        await talk.client.until("tool_result")
    second = await model.dialled()
    await second.ready("h3")
    await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
    await second.call("c2", "wait", {"n": 1.0})
    again = await talk.client.until("tool_call", lambda data: data["id"] == "c2")
    assert again["sameAs"] == "c1"
    if dies == "running":
        run.finish(DONE)
    answers: dict[str, Any] = {}
    while "c2" not in answers:
        message = await second.receive("toolResponse")
        answers |= {one["id"]: one for one in message["toolResponse"]["functionResponses"]}
    assert "forty-two" in json.dumps(answers["c2"])
    assert "not done again" in json.dumps(answers["c2"])
    await second.say("Forty-two.")
    await talk.client.until("turn_complete")
    calls = (await get(talk.server, f"/api/sessions/{talk.session}/calls")).json()["calls"]
    assert [(one["id"], one["state"], one["ok"], one.get("sameAs")) for one in calls] == [
        ("c1", "finished", True, None),
        ("c2", "finished", True, "c1"),
    ]
    assert all(one["delivered"] in ("answer", "note") for one in calls)
    assert len({one["answerDigest"] for one in calls}) == 1
