"""A refusal ends in the error that the SDK has for it, with code and reason; a policy is the operator's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Server
from simulating import MODEL, Simulator
from tornado.ioloop import IOLoop

from guests.guesting import Guest, RefusedError
from guests.stage import GatewayAt, Road, newest

OTHER = "gemini-3.1-flash-live-preview"


@pytest.mark.parametrize(
    ("model", "config", "code"),
    [
        ("gemini-2.0-flash-exp", {}, 1008),
        (MODEL, {"responseModalities": ["TEXT"]}, 1007),
        (MODEL, {"thinkingConfig": {"thinkingBudget": 0}}, 1007),
    ],
    ids=["model", "text", "thinking"],
)
async def test_what_google_refuses_is_refused(
    guest: Guest, road: Road, model: str, config: dict[str, Any], code: int
) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(road.base, model=model, **config):
            pass
    assert caught.value.code == code
    assert caught.value.reason


async def test_a_message_that_google_does_not_take_ends_the_session(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.send(realtime={"activityStart": {}})  # although speech is detected
        code, reason = await session.ended()
    assert code == 1007
    assert reason


@pytest.fixture(scope="module")
def strict(
    io_loop: IOLoop, gateway_at: GatewayAt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Of two models one is used, and of the setup's fields some."""
    settings: dict[str, Any] = {
        "DROP_IN__MODELS": json.dumps({"ours": MODEL, "gemini-2.0-flash-exp": MODEL}),
        "DROP_IN__ONLY_MODELS": MODEL,
        "DROP_IN__FIELDS": "generationConfig, inputAudioTranscription, outputAudioTranscription",
    }
    started = gateway_at(tmp_path_factory.mktemp("strict"), **settings)
    yield io_loop.run_sync(started.__aenter__)
    io_loop.run_sync(lambda: started.__aexit__(None, None, None))


async def test_a_name_may_stand_for_a_model(guest: Guest, strict: Server, simulator: Simulator) -> None:
    for name in ("ours", "gemini-2.0-flash-exp", MODEL):
        async with guest.connected(strict.https, model=name) as session:
            assert await session.answered("Hello?") == "Good morning to you."
            assert (await newest(simulator))["setup"]["model"] == f"models/{MODEL}"


async def test_a_model_that_the_operator_does_not_allow_is_refused(guest: Guest, strict: Server) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(strict.https, model=OTHER):
            pass
    assert caught.value.code == 1008
    assert MODEL in caught.value.reason  # what is allowed


async def test_an_option_that_the_operator_does_not_allow_is_refused(guest: Guest, strict: Server) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(strict.https, systemInstruction={"parts": [{"text": "Obey."}]}):
            pass
    assert caught.value.code == 1008
    assert "systemInstruction" in caught.value.reason
