"""Google's own clients talk through the gateway as they talk to Google."""

from __future__ import annotations

from dialling import words

from guests.guesting import Guest, seconds
from guests.stage import Road


async def test_a_typed_turn(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.typed("Hello?")
        messages = await session.turn()
    assert words(messages) == "Good morning to you."
    assert seconds(messages) == 1
