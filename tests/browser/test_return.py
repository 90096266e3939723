"""The page and the real server, in front of a scripted model side: who is lost comes back to the conversation."""

from __future__ import annotations

from typing import Any

import pytest
from chromium import opened, playing
from faults.model import ModelSide
from faults.stage import serving
from playwright.async_api import Browser, expect
from scripted import tone
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


async def test_while_the_model_side_is_cut_five_times_the_page_stays_connected(chromium: Browser) -> None:
    sound = tone(0.5)
    async with ModelSide() as model, serving(model.port) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        line = await model.dialled()
        await line.ready("h0")
        await expect(page.get_by_role("button", name="Mute")).to_be_visible()
        for cut in range(5):
            await line.receive("realtimeInput")  # the microphone
            await line.heard(f"Question {cut}?")
            await line.say(f"Answer {cut}.", sound)
            await expect(page.locator(".model .words").last).to_have_text(f"Answer {cut}.")
            line.drop()
            line = await model.dialled(f"h{cut}")
            await expect(page.locator("#status-words")).to_have_text("Reconnecting")
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()
            await line.ready(f"h{cut + 1}")
            await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator(".turn")).to_have_count(5)
        await expect(page.locator(".notice")).to_have_count(0)
        assert model.handshakes == 6
