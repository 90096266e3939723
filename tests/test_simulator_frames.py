"""The simulator keeps what crossed its wire, byte for byte, and can end a call's turn early on every model."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dialling import AUDIO, DEADLINE_S, kinds
from websockets.asyncio.client import ClientConnection, connect

from tornado_live.simulator.testing import ControlRefused, Frames, Simulator

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Hello.", "seconds": 0.1}]}]}
CALL = {"turns": [{"do": [{"call": {"name": "look"}}, {"say": "There it is.", "seconds": 0.1}]}]}
MODELS = {
    "gemini-2.5-flash-native-audio-latest": {},
    "gemini-3.1-flash-live-preview": {},
    "gemini-3.8-live": {},
    "gemini-3.8-live-extended-thinking": {"thinkingConfig": {"thinkingLevel": "LOW"}},
}


@asynccontextmanager
async def dialled(simulator: Simulator, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(simulator.live_url, proxy=None, compression=None, **options) as socket:
        yield socket


def setup(model: str = "gemini-3.8-live", **more: Any) -> str:
    wanted = {"model": f"models/{model}", "generationConfig": AUDIO | MODELS[model], **more}
    return json.dumps({"setup": wanted})


async def closed(simulator: Simulator, connection: int) -> Frames:
    while (frames := simulator.frames(connection)).is_open:
        pass
    return frames


async def test_every_frame_is_kept_as_it_was_sent_and_received() -> None:
    first = b'{ "setup" :\t{"model": "models/gemini-3.8-live", "generation_config": {}}}\n'
    second = '{"realtimeInput":{"text":"Gr\\u00fc\u00df Gott"}}'
    got: list[str | bytes] = []
    async with Simulator(HELLO, speed=50, keep_frames=True) as simulator:
        async with dialled(simulator, additional_headers={"x-goog-api-key": "a-key"}) as socket:
            await socket.send(first)
            got.append(await socket.recv())
            await socket.send(second)
            while b"turnComplete" not in (frame := await socket.recv()):
                got.append(frame)
            got.append(frame)
            await socket.close(1011, "I have to go.")
        kept = await closed(simulator, 0)
    assert kept.of("client") == [first, second]
    assert kept.of("simulator")[: len(got)] == got
    assert [frame.by for frame in kept.frames[:3]] == ["client", "simulator", "client"]
    assert kept.path.endswith("v1beta.GenerativeService.BidiGenerateContent")
    assert kept.headers["X-Goog-Api-Key"] == "a-key"
    assert kept.close == (1011, "I have to go.")


async def test_a_line_that_was_cut_has_no_close() -> None:
    async with Simulator(HELLO, speed=50, keep_frames=True) as simulator:
        async with dialled(simulator) as socket:
            await socket.send(setup())
            await socket.recv()
            assert simulator.frames(0).is_open
            socket.transport.abort()
        assert (await closed(simulator, 0)).close is None
        with pytest.raises(KeyError):
            simulator.frames(1)


async def test_frames_are_kept_for_those_who_ask_and_for_nobody_elsewhere() -> None:
    async with Simulator(HELLO) as simulator:
        with pytest.raises(ControlRefused, match="--keep-frames"):
            simulator.frames(0)
    async with Simulator(HELLO, keep_frames=True) as simulator:
        page = urllib.request.Request(
            simulator.url + "/frames", headers={"Origin": "https://elsewhere.example"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(page, timeout=DEADLINE_S)
        with refused.value as answer:
            assert answer.code == 403


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("switch", "ends"), [("bare", ["turnComplete"]), ("new", ["generationComplete", "turnComplete"])]
)
async def test_a_turn_can_end_between_a_call_and_its_answer_and_the_next_ends_after_it(
    model: str, switch: str, ends: list[str]
) -> None:
    wanted = {
        "tools": [{"functionDeclarations": [{"name": "look", "behavior": "NON_BLOCKING"}]}],
    }
    if model == "gemini-3.1-flash-live-preview":
        wanted["tools"][0]["functionDeclarations"][0].pop("behavior")
    async with (
        Simulator(CALL, speed=50, switches={"turn_after_call": switch}) as simulator,
        dialled(simulator) as socket,
    ):
        await socket.send(setup(model, **wanted))
        await socket.recv()
        await socket.send('{"realtimeInput": {"text": "Look."}}')
        before = await until(socket, "turnComplete")
        call = next(message["toolCall"]["functionCalls"][0] for message in before if "toolCall" in message)
        at = next(at for at, message in enumerate(before) if "toolCall" in message)
        assert [kind for kind in kinds(before[at + 1 :]) if kind in ends] == ends
        assert not any("modelTurn" in kinds([message]) for message in before[at:])
        answer = {"id": call["id"], "name": "look", "response": {"found": True}}
        await socket.send(json.dumps({"toolResponse": {"functionResponses": [answer]}}))
        after = await until(socket, "turnComplete")
        assert "modelTurn" in kinds(after)
        assert kinds(after)[-1] in ("turnComplete", "usageMetadata")


async def until(socket: ClientConnection, field: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    while not messages or field not in messages[-1].get("serverContent", {}):
        messages.append(json.loads(await socket.recv()))
    return messages
