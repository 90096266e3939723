"""F10: the model side says that it will end the connection."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import Talk, kinds, talking, told

TIMES_LEFT = ["50s", "9.5s", "0s", "0.000001s", None, "soon", "-5s", ""]
SWITCHED = ["status RECONNECTING", "status CONNECTED"]


async def switched(model: ModelSide, talk: Talk, handle: str) -> None:
    """The conversation goes on with `handle` on a second connection, and the first one was closed by us."""
    assert await talk.line.closed() == 1000
    second = await model.dialled(handle)
    await second.ready("h9")
    connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
    assert (connected["resumed"], connected["memory"]) == (True, "restored")
    assert connected["gapMs"] >= 0
    await talk.turn("And now?", "On the second line.", second)


@pytest.mark.proves("F10")
async def test_in_a_pause_it_is_switched_whatever_time_is_left(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:

        async def leave(talk: Talk, time_left: str | None) -> None:
            await talk.turn("What is nine?", "A number.")
            await talk.line.resumable(f"newest for {time_left}")
            await talk.line.go_away(time_left)
            await switched(model, talk, f"newest for {time_left}")
            assert told(talk.client, "status", "error", "warning")[2:] == SWITCHED
            happened = kinds(await talk.events(), "go_away", "model_lost", "switch_planned", "switched")
            assert [event["kind"] for event in happened] == ["go_away", "switch_planned", "switched"]
            assert happened[-1]["data"]["planned"] is True

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as leaving:
            for time_left in TIMES_LEFT:
                talk = await clients.enter_async_context(talking(gateway.server, model))
                leaving.create_task(leave(talk, time_left))


@pytest.mark.proves("F10")
async def test_said_twice_it_is_switched_once(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.say("I am not", bytes(4800), complete=False)
        await talk.client.until("transcription", lambda data: data["text"] == "I am not")
        await talk.line.go_away("50s")
        await talk.line.go_away("49s")
        await talk.line.say(" done.")
        await talk.client.until("turn_complete")
        await talk.line.resumable("h2")
        await switched(model, talk, "h2")
        assert told(talk.client, "status", "error", "warning")[2:] == SWITCHED
        assert model.handshakes == 2


@pytest.mark.proves("F10")
async def test_an_answer_is_heard_to_its_end_before_the_switch(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.client.send("text", {"text": "Tell me."})
        await talk.line.typed()
        await talk.line.say("First,", b"\1\0" * 2400, complete=False)
        await talk.line.not_resumable()
        await talk.line.go_away("50s")
        for number in range(2, 12):
            await talk.line.say(f" {number}", bytes([number, 0]) * 2400, complete=False)
        assert talk.line.open
        await talk.line.complete()
        await talk.line.resumable("h2")
        done = await talk.client.until("turn_complete")
        assert done["turn"] == 1
        await switched(model, talk, "h2")
        heard = b"".join(talk.client.audio)
        assert [heard[at * 4800] for at in range(11)] == list(range(1, 12))
        assert (await talk.memory())[:2] == [
            ("user", "Tell me."),
            ("model", "First, 2 3 4 5 6 7 8 9 10 11"),
        ]


@pytest.mark.proves("F10")
async def test_a_model_that_falls_silent_after_it_is_left_before_its_deadline(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.say("I will never", bytes(4800), complete=False)
        await talk.client.until("transcription", lambda data: data["text"] == "I will never")
        await talk.line.go_away("1s")
        assert await talk.line.closed() == 1000
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready()
        await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert told(talk.client, "status", "error")[2:] == SWITCHED


@pytest.mark.proves("F10")
async def test_whoever_stays_is_cut_and_goes_on_all_the_same(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.say("I am still", bytes(4800), complete=False)
        await talk.client.until("transcription", lambda data: data["text"] == "I am still")
        await talk.line.go_away("50s")
        await talk.line.close(
            1008,
            "Connection aborted because the client failed to close the connection after receiving a GoAway signal",
        )
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["resumed"] is True
