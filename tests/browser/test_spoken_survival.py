"""A spoken conversation in Chromium whose model side is cut five times, through the whole product."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import FAKE_MICROPHONE, launch, opened, playing
from playwright.async_api import Playwright, expect
from serving import Server
from speech import spoken
from test_four_questions import recording, silence

pytestmark = [pytest.mark.browser, pytest.mark.voice]

WEATHER = "What's the weather in New York?"
MEMORY = "What did I ask first?"
CUTS = 5
PATIENCE_S = 90

# Every state that the page says it is in.
WATCH_STATUS = """
    window.states = [];
    new MutationObserver(() => states.push(document.querySelector("#status-words").textContent))
        .observe(document.querySelector("#status-words"), {childList: true, characterData: true, subtree: true});
"""


async def events(
    server: Server, enough: Callable[[list[dict[str, Any]]], bool] = bool
) -> list[dict[str, Any]]:
    """What the server has logged, once that is enough."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            logged = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
            if enough(logged):
                return logged
            await server.grown()


def kinds(logged: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in logged if line["event"] == kind]


def finished(logged: list[dict[str, Any]]) -> int:
    """Turns that were answered to their end."""
    return len([turn for turn in kinds(logged, "turn") if not turn.get("brokenOff")])


@pytest.mark.timeout(seconds=400)
async def test_a_spoken_conversation_outlives_five_cuts_and_knows_what_was_said_before(
    playwright: Playwright, tmp_path: Path
) -> None:
    words = spoken([WEATHER, MEMORY], tmp_path)
    # The microphone says this again and again.
    speech = recording(
        tmp_path / "speech.wav", silence(0.8), words[WEATHER], silence(10), words[MEMORY], silence(8)
    )
    async with Server(voice="on") as server:
        await server.printed(r'"voice": "ready"', within=60)
        simulator = (await server.printed(r'"event": "simulator".*"url": "([^"]+)"'))[1]
        browser = await launch(playwright, FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={speech}")
        async with (
            httpx.AsyncClient(trust_env=False, base_url=simulator) as http,
            opened(browser, server.url) as page,
        ):
            await page.get_by_role("button", name="Connect", exact=True).click()
            await expect(page.locator("#status-words")).to_have_text("Connected")
            await page.evaluate(WATCH_STATUS)
            for cut in range(CUTS):
                await playing(page)
                answered = finished(await events(server))
                (await http.post("/control", json={"fault": {"drop": True}})).raise_for_status()
                await events(server, lambda seen, cut=cut: len(kinds(seen, "switched")) == cut + 1)  # type: ignore[misc]
                await expect(page.locator("#status-words")).to_have_text("Connected")
                await events(server, lambda seen, answered=answered: finished(seen) > answered)  # type: ignore[misc]
            states = await page.evaluate("states")
            assert set(states) == {"Reconnecting", "Connected"}, states
            remembered = page.locator(".model .words").filter(has_text="New York?").last
            await expect(remembered).to_be_visible(timeout=PATIENCE_S * 1000)
            switches = kinds(await events(server), "switched")
            assert [switch["resumed"] for switch in switches] == [True] * CUTS
        await browser.close()
