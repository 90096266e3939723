"""The page comes back to its conversation: the real server, in front of a scripted model side."""

from __future__ import annotations

from typing import Any

import pytest
from chromium import opened, playing
from playwright.async_api import Browser, expect
from serving import Server
from simulating import Simulator

pytestmark = pytest.mark.browser

STORY: dict[str, Any] = {
    "turns": [
        {"do": [{"say": "Once upon a time there was a king.", "seconds": 60}]},
        {"do": [{"say": "All right.", "seconds": 0.2}]},
    ]
}


async def test_a_page_that_is_reloaded_in_mid_sentence_finds_its_conversation_going_on(
    chromium: Browser,
) -> None:
    async with (
        Simulator(STORY, latency=0) as simulator,
        Server(environ={"GEMINI_BASE_URL": simulator.url}) as server,
        opened(chromium, server.url, microphone=False) as page,
    ):
        await page.get_by_label("Message").fill("Tell me a story")
        await page.keyboard.press("Enter")
        await playing(page)
        await page.reload()
        await server.printed('"client_lost"')
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator("#facts")).to_contain_text("All of it is remembered")
        await playing(page)  # the king's story goes on
        await page.get_by_label("Message").fill("Stop, please")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words").last).to_have_text("All right.")
        # What was asked before the reload is known from the server, once its turn is over.
        await expect(page.locator(".user .words")).to_have_text(["Tell me a story", "Stop, please"])
