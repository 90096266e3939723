"""Ephemeral tokens, as Google's own clients ask for them and come in with them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from simulating import MODEL

from guests.guesting import CONFIG, Guest, RefusedError
from guests.stage import Road, newest

PIRATE = {"parts": [{"text": "Speak as a pirate."}], "role": "user"}


def soon() -> str:
    return (datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(minutes=5)).isoformat()


def text(instruction: dict[str, Any]) -> str:
    return "".join(part["text"] for part in instruction["parts"])


async def test_a_token_opens_one_session(guest: Guest, road: Road) -> None:
    token = await guest.token(road.base, {"uses": 1, "expireTime": soon()})
    assert token.startswith("auth_tokens/")
    async with guest.connected(road.base, key=token, version="v1alpha") as session:
        assert await session.answered("Hello?") == "Good morning to you."
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(road.base, key=token, version="v1alpha"):
            pass
    assert caught.value.code == {"direct": 1011, "gateway": 1008}[road.name]  # 1011 asks for another try
    assert caught.value.reason.startswith("Token")


async def test_going_on_is_no_second_use(guest: Guest, road: Road) -> None:
    token = await guest.token(road.base, {"uses": 1, "expireTime": soon()})
    with_token = {"key": token, "version": "v1alpha"}
    async with guest.connected(road.base, **with_token, sessionResumption={}) as session:
        assert await session.answered("What comes next?") == "The first."
        handle = await session.handle()
    async with guest.connected(road.base, **with_token, sessionResumption={"handle": handle}) as session:
        assert await session.answered("What comes next?") == "The second."


async def test_a_token_fixes_model_and_instruction(guest: Guest, road: Road) -> None:
    constraints = {"model": MODEL, "config": {**CONFIG, "systemInstruction": PIRATE}}
    token = await guest.token(
        road.base, {"uses": 1, "expireTime": soon(), "liveConnectConstraints": constraints}
    )
    other = {"parts": [{"text": "Speak as a king."}], "role": "user"}
    async with guest.connected(
        road.base, key=token, version="v1alpha", model="gemini-of-another-kind", systemInstruction=other
    ) as session:
        assert await session.answered("Hello?") == "Good morning to you."
        setup = (await newest(road.simulator))["setup"]
    assert setup["model"] == f"models/{MODEL}"
    assert text(setup["systemInstruction"]) == "Speak as a pirate."


async def test_what_a_token_leaves_open_is_the_client_s(guest: Guest, road: Road) -> None:
    constraints = {"model": MODEL, "config": {"temperature": 0.5}}
    config = {
        "expireTime": soon(),
        "liveConnectConstraints": constraints,
        "lockAdditionalFields": ["temperature"],
    }
    token = await guest.token(road.base, config)
    async with guest.connected(
        road.base, key=token, version="v1alpha", model="another", temperature=1.0, systemInstruction=PIRATE
    ) as session:
        assert await session.answered("Hello?") == "Good morning to you."
        setup = (await newest(road.simulator))["setup"]
    assert setup["model"] == f"models/{MODEL}"
    assert setup["generationConfig"]["temperature"] == 0.5
    assert text(setup["systemInstruction"]) == "Speak as a pirate."


async def test_an_invented_token_opens_nothing(guest: Guest, road: Road) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(road.base, key="auth_tokens/invented", version="v1alpha"):
            pass
    assert caught.value.code == 1008
    assert caught.value.reason
