"""A refusal ends in the error that the SDK has for it, with code and reason."""

from __future__ import annotations

from typing import Any

import pytest

from guests.guesting import Guest, RefusedError
from guests.stage import Road


@pytest.mark.parametrize(
    ("model", "config", "code"),
    [
        ("gemini-2.0-flash-exp", {}, 1008),
        ("gemini-3.8-live", {"responseModalities": ["TEXT"]}, 1007),
        ("gemini-3.8-live", {"thinkingConfig": {"thinkingBudget": 0}}, 1007),
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


async def test_a_second_kind_of_mistake_ends_the_session(guest: Guest, road: Road) -> None:
    async with guest.connected(road.base) as session:
        await session.send(realtime={"activityStart": {}})  # with detection on
        code, reason = await session.ended()
    assert code == 1007
    assert reason
