"""F17: a call and the handle that knows of it arrive in the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.gate import Gate
from faults.model import ModelSide
from faults.proxy import Proxy, Way
from faults.stage import serving, talking


@pytest.mark.proves("F17")
async def test_a_handle_right_behind_a_call_knows_the_call(tmp_path: Path) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        # What is sent while the proxy waits is passed on in one piece.
        Proxy(model.port, plan=lambda number: (Way(), Way(latency_s=0.1))) as proxy,
        serving(proxy.port, *gate.arguments, home=tmp_path) as server,
        talking(server, model) as talk,
    ):
        await talk.turn("What is nine?", "A number.")
        await talk.line.heard("One moment.")
        await talk.line.call("c1", "wait", {"n": 1})
        await talk.line.resumable("h2")
        run = await gate.arrival()
        talk.line.drop()
        second = await model.dialled("h2")
        await second.ready("h3")
        run.finish({"answer": "forty-two"})
        answer = await second.receive("toolResponse")
        assert [one["id"] for one in answer["toolResponse"]["functionResponses"]] == ["c1"]
