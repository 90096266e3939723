"""Handles, with which Google's own clients go on with a conversation."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from serving import Server
from simulating import Simulator

from guests.conftest import Stage
from guests.guesting import Guest, RefusedError
from guests.stage import GatewayAt, Road, newest

RESUMABLE: dict[str, Any] = {"sessionResumption": {}}


def resuming(handle: str) -> dict[str, Any]:
    return {"sessionResumption": {"handle": handle}}


async def test_a_conversation_goes_on_with_its_handle(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base, **RESUMABLE) as session:
        assert await session.answered("What comes next?") == "The first."
        handle = await session.handle()
    async with guest.connected(road.base, **resuming(handle)) as session:
        assert await session.answered("What comes next?") == "The second."
        newer = await session.handle()
    async with guest.connected(road.base, **resuming(newer)) as session:
        assert await session.answered("What comes next?") == "The third."


async def test_an_invented_handle_is_refused(guest: Guest, road: Road) -> None:
    with pytest.raises(RefusedError) as caught:
        async with guest.connected(road.base, **resuming("invented")):
            pass
    assert caught.value.code in (1007, 1008)
    assert caught.value.reason


@pytest.mark.parametrize("fault", ["drop", {"go_away": 1}], ids=["drop", "go away"])
async def test_a_handle_of_ours_is_good_after_google_s_connection_was_lost(
    guest: Guest, gateway: Server, simulator: Simulator, fault: str | dict[str, object]
) -> None:
    async with guest.connected(gateway.https, **RESUMABLE) as session:
        assert await session.answered("What comes next?") == "The first."
        await simulator.control(fault, connection=(await newest(simulator))["connection"])
        assert await session.answered("What comes next?") == "The second."
        handle = await session.handle(after=2)
        assert not any("goAway" in message for message in session.seen)
        theirs = {each["handle"] for each in (await simulator.status())["conversations"]}
        assert handle not in theirs
    async with guest.connected(gateway.https, **resuming(handle)) as session:
        assert await session.answered("What comes next?") == "The third."


@pytest.mark.browser
async def test_a_handle_is_good_after_google_has_forgotten_and_the_gateway_was_restarted(
    stage: Stage, gateway_at: GatewayAt, simulator: Simulator, tmp_path: Path
) -> None:
    guests = [await stage.guest("python"), await stage.guest("node"), await stage.guest("page")]
    handles = []
    async with contextlib.AsyncExitStack() as clients:
        sessions = []
        async with gateway_at(tmp_path) as gateway:
            for guest in guests:
                connecting = guest.connected(gateway.https, **RESUMABLE)
                sessions.append(await clients.enter_async_context(connecting))
                assert await sessions[-1].answered("What comes next?") == "The first."
                handles.append(await sessions[-1].handle())
        for session in sessions:
            assert (await session.ended())[0] == 1011  # on which clients come again
    await simulator.control("lose_handles")
    async with gateway_at(tmp_path) as gateway:
        for guest, handle in zip(guests, handles, strict=True):
            async with guest.connected(gateway.https, **resuming(handle)) as session:
                assert await session.answered("Hello?") == "Good morning to you."
                assert await session.answered("What is in stock?") == "7 are left."
                history = (await newest(simulator))["setup"].get("historyConfig")
                assert history == {"initialHistoryInClientContent": True}
