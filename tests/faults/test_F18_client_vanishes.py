"""F18: the client is gone and has not said so."""

from __future__ import annotations

from pathlib import Path

import pytest
from talking import Talker

from faults.conftest import Gateway
from faults.gate import Gate
from faults.model import ModelSide
from faults.stage import get, idle, kinds, serving, settled, talking


@pytest.mark.proves("F18")
async def test_within_the_grace_period_it_finds_the_conversation_going_on(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:
        async with talking(gateway.server, model) as talk:
            await talk.client.send("text", {"text": "Tell me."})
            await talk.line.typed()
            talk.client.connection.transport.abort()

        async def missed() -> bool:
            return len(kinds(await talk.events(), "client_lost")) == 1

        await settled(missed)
        await talk.line.say("Said while nobody was there.", bytes(4800))
        assert (await get(gateway.server, f"/api/sessions/{talk.session}")).json()["connected"] is False
        async with Talker(f"{gateway.server.ws_url}/?sessionId={talk.session}") as client:
            connected = await client.until("status")
            assert (connected["status"], connected["resumed"]) == ("CONNECTED", True)
            await client.send("text", {"text": "Again?"})
            while await talk.line.typed() != "Again?":
                pass
            await talk.line.say("Yes.", bytes(4800))
            await client.until("turn_complete", lambda data: data["turn"] == 2)
            assert len(client.audio) == 1, "what was said meanwhile is not played now"
        assert model.handshakes == 1
        assert await talk.memory() == [
            ("user", "Tell me."),
            ("model", "Said while nobody was there."),
            ("user", "Again?"),
            ("model", "Yes."),
        ]


@pytest.mark.proves("F18")
async def test_after_the_grace_period_the_model_side_is_closed_and_the_memory_is_there() -> None:
    async with ModelSide() as model, serving(model.port, "--set", "limits.grace_s=0.3") as server:
        async with talking(server, model) as talk:
            await talk.turn("What is nine?", "A number.")
            talk.client.connection.transport.abort()
            assert await talk.line.closed() == 1000
        assert await talk.memory() == [("user", "What is nine?"), ("model", "A number.")]
        assert len(kinds(await talk.events(), "client_lost")) == 1
        assert "tornado_live_conversations 0.0" in (await get(server, "/metrics")).text
        async with Talker(f"{server.ws_url}/?sessionId={talk.session}") as client:
            await client.send("connect")
            second = await model.dialled()
            await second.ready()
            connected = await client.until("status", lambda data: data["status"] == "CONNECTED")
            assert connected["memory"] == "restored"


@pytest.mark.proves("F18")
async def test_after_the_grace_period_nothing_runs_for_it_any_more(tmp_path: Path) -> None:
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(model.port, *gate.arguments, "--set", "limits.grace_s=0.5", home=tmp_path) as server,
    ):
        async with talking(server, model) as talk:
            await talk.turn("What is nine?", "A number.")
            await talk.line.call("c1", "wait", {"n": 1})
            run = await gate.arrival()
            talk.client.connection.transport.abort()
            await run.gone()
            assert await talk.line.closed() == 1000
        await settled(lambda: idle(server))
        happened = [event["kind"] for event in await talk.events()]
        assert happened[-3:] == ["client_lost", "client_gone", "tool_cancelled"]
        assert model.handshakes == 1


@pytest.mark.proves("F18")
async def test_a_model_that_is_lost_while_nobody_is_there_waits_with_them(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:
        async with talking(gateway.server, model) as talk:
            await talk.turn("What is nine?", "A number.")
            talk.client.connection.transport.abort()

            async def missed() -> bool:
                return len(kinds(await talk.events(), "client_lost")) == 1

            await settled(missed)
        await talk.line.close(1011, "Internal error encountered.")

        async def lost() -> bool:
            return len(kinds(await talk.events(), "model_lost")) == 1

        await settled(lost)
        assert model.handshakes == 1, "nobody is there to talk to"
        async with Talker(f"{gateway.server.ws_url}/?sessionId={talk.session}") as client:
            assert (await client.until("status"))["status"] == "RECONNECTING"
            second = await model.dialled()
            assert second.handle == "h1"
            await second.ready()
            connected = await client.until("status")
            assert (connected["status"], connected["resumed"], connected["memory"]) == (
                "CONNECTED",
                True,
                "restored",
            )
