"""F20: the same session is opened again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from talking import Talker

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import settled, talking


@pytest.mark.proves("F20", "T14")
async def test_the_newer_socket_goes_on_and_the_older_one_is_told(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        async with Talker(f"{gateway.server.ws_url}/?sessionId={talk.session}") as second:
            connected = await second.until("status")
            assert (connected["status"], connected["resumed"], connected["memory"]) == (
                "CONNECTED",
                True,
                "restored",
            )
            assert (await talk.client.closed())[0] == 4409
            assert talk.client.seen[-1]["data"]["code"] == "replaced"
            await second.send("text", {"text": "And ten?"})
            await talk.line.typed()
            await talk.line.say("Another one.", bytes(4800))
            assert (await second.until("turn_complete"))["turn"] == 2
        assert model.handshakes == 1
        assert await talk.memory() == [
            ("user", "What is nine?"),
            ("model", "A number."),
            ("user", "And ten?"),
            ("model", "Another one."),
        ]


@pytest.mark.proves("F20", "T14")
async def test_of_many_sockets_at_once_one_is_left_with_one_model(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        loop = asyncio.get_running_loop()
        ends = {loop.create_task(talk.client.closed(60)): talk.client}
        for _ in range(5):
            others = [Talker(f"{gateway.server.ws_url}/?sessionId={talk.session}") for _ in range(20)]
            await asyncio.gather(*(other.__aenter__() for other in others))
            ends |= {loop.create_task(other.closed(60)): other for other in others}
            while len(ends) > 1:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in done:
                    assert end.result()[0] == 4409
                    del ends[end]
        ((waiting, alive),) = ends.items()
        await talk.line.heard("Who is left?")
        await talk.line.say("You.")

        async def heard() -> bool:
            return len(finals(alive)) == 2

        await settled(heard)
        await alive.connection.close()
        assert (await waiting)[0] == 1000
        assert [data["text"] for data in finals(alive)] == ["Who is left?", "You."]
        assert model.handshakes == 1


def finals(client: Talker) -> list[dict[str, Any]]:
    """The whole texts that the client was given."""
    said = [message["data"] for message in client.seen if message["type"] == "transcription"]
    return [data for data in said if data["isFinal"]]
