"""F17: the model side dies while a tool runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.gate import Gate
from faults.model import ModelSide
from faults.stage import serving, talking, told


@pytest.mark.proves("F17")
@pytest.mark.parametrize("resumable", [True, False])
async def test_the_result_never_reaches_a_session_that_does_not_know_the_call(
    tmp_path: Path, resumable: bool
) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model, handle="h1" if resumable else None) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        await talk.client.send("text", {"text": "Ask the tool."})
        await talk.line.typed()
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        talk.line.drop()
        second = await model.dialled()
        assert second.handle == ("h1" if resumable else None)
        await second.ready("h2")
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["memory"] == "restored"
        run.finish({"answer": "forty-two"})
        await run.gone()
        await talk.client.send("text", {"text": "And now?"})
        while await second.typed() != "And now?":
            pass
        await second.say("All is well.")
        await talk.client.until("turn_complete")
        answered = [one for one in second.got if "toolResponse" in one]
        assert answered == [], "an id that the new session may not know"
        assert gate.runs == 1
        assert told(talk.client, "error") == []
        assert told(talk.client).count("tool_call") == told(talk.client).count("tool_result") + told(
            talk.client
        ).count("tool_cancelled")


@pytest.mark.proves("F17")
async def test_a_call_that_is_asked_for_anew_is_answered_once(tmp_path: Path) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        talk.line.drop()
        second = await model.dialled()
        await second.ready("h2")
        await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        await second.call("c1", "wait", {"n": 1})
        again = None if gate.runs == 1 else await gate.arrival()
        run.finish({"answer": "forty-two"})
        if again is not None:
            again.finish({"answer": "forty-two"})
        answer = await second.receive("toolResponse")
        (one,) = answer["toolResponse"]["functionResponses"]
        assert one["id"] == "c1"
        await second.say("Forty-two.")
        await talk.client.until("turn_complete")
        await talk.turn("And now?", "Nothing.", second)
        assert len([one for one in second.got if "toolResponse" in one]) == 1


@pytest.mark.proves("F17")
@pytest.mark.parametrize("known", [True, False])
async def test_a_result_that_comes_during_the_switch_is_delivered_after_it(
    tmp_path: Path, known: bool
) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        await talk.client.send("text", {"text": "Ask the tool."})
        await talk.line.typed()
        await talk.line.call("c1", "wait", {"n": 1})
        run = await gate.arrival()
        if known:
            await talk.line.resumable("h2")  # a state that the call belongs to
        talk.line.drop()
        await talk.client.until("status", lambda data: data["status"] == "RECONNECTING")
        run.finish({"answer": "forty-two"})
        assert (await talk.client.until("tool_result"))["ok"] is True
        second = await model.dialled()
        assert second.handle == ("h2" if known else "h1")
        await second.ready("h3")
        if known:
            answer = await second.receive("toolResponse")
            (one,) = answer["toolResponse"]["functionResponses"]
            assert (one["id"], "forty-two" in json.dumps(one)) == ("c1", True)
        else:
            assert "forty-two" in await second.typed()
        await second.say("Forty-two, it is.")
        await talk.client.until("turn_complete", lambda data: data["turn"] >= 2)
        await talk.turn("And now?", "All is well.", second)
        assert json.dumps(second.got).count("forty-two") == 1, "in one form, once"
        assert gate.runs == 1
        assert len([text for role, text in await talk.memory() if role == "tool"]) == 1
