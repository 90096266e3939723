"""The page as the TLS port serves it: its modules, its policy and its WebSocket."""

from __future__ import annotations

import pytest
from chromium import opened, playing
from playwright.async_api import Browser
from serving import Server
from simulating import Simulator

pytestmark = pytest.mark.browser

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Good evening to you.", "seconds": 1}]}]}


async def test_a_question_to_the_page_of_the_tls_port_is_answered(chromium: Browser) -> None:
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(tls=True, environ={"GEMINI_BASE_URL": simulator.url}) as server,
        opened(chromium, f"https://localhost:{server.tls_port}", ignore_https_errors=True) as page,
    ):
        await page.get_by_label("Message").fill("Hello?")
        await page.keyboard.press("Enter")
        await page.get_by_text("Good evening to you.").first.wait_for()
        await playing(page)
        assert await page.evaluate("location.protocol") == "https:"
