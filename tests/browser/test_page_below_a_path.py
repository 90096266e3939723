"""The page below a path of its host, by itself and through nginx, which may take the path off or leave it."""

from __future__ import annotations

import re

import pytest
from chromium import opened, playing
from nginx import Nginx
from playwright.async_api import Browser, Page, expect
from serving import Server
from simulating import Simulator

pytestmark = pytest.mark.browser

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Good evening to you.", "seconds": 1}]}]}
PHONE = {"width": 390, "height": 844}
LEFT, TAKEN_OFF = (f"location / {{\n            proxy_pass http://tornado_live{end};" for end in ("", "/"))


async def talks(page: Page) -> None:
    """A question is answered in words and sound, and the conversation is still there after a reload."""
    await expect(page.get_by_role("list", name="Questions to try").get_by_role("button")).not_to_have_count(0)
    await page.get_by_label("Message").fill("Hello?")
    await page.keyboard.press("Enter")
    await page.get_by_text("Good evening to you.").first.wait_for()
    await playing(page)
    await page.reload()
    await expect(page.locator("#notices")).to_contain_text("Your conversation is kept")
    await expect(page.get_by_text("Good evening to you.").first).to_be_visible()


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_the_page_works_below_the_base_path(chromium: Browser, tls: bool) -> None:
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(tls=tls, environ={"GEMINI_BASE_URL": simulator.url, "BASE_PATH": "/voice"}) as server,
    ):
        host = f"https://localhost:{server.tls_port}" if tls else f"http://localhost:{server.port}"
        async with opened(chromium, f"{host}/voice", ignore_https_errors=tls) as page:
            await expect(page).to_have_url(f"{host}/voice/")
            await talks(page)


@pytest.mark.parametrize("passed", [LEFT, TAKEN_OFF], ids=["left", "taken off"])
async def test_the_page_works_behind_a_proxy_below_a_path(chromium: Browser, passed: str) -> None:
    """No PUBLIC_URL: what the proxy says of itself is enough."""
    environ = {"BASE_PATH": "/tornado-live", "TRUSTED_PROXIES": "127.0.0.1"}
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(environ={**environ, "GEMINI_BASE_URL": simulator.url}) as server,
        Nginx(server.port, prefix="/tornado-live", changes={LEFT: passed}) as proxy,
        opened(chromium, f"{proxy.url}/", ignore_https_errors=True, viewport=PHONE) as page,
    ):
        await talks(page)
        made = await page.evaluate(
            "fetch('api/sessions', { method: 'POST' }).then((answer) => answer.json())"
        )
        assert re.match(rf"wss://localhost:{proxy.port}/tornado-live/ws\?sessionId=", made["wsUrl"])


async def test_two_servers_on_one_host_keep_their_conversations_apart(chromium: Browser) -> None:
    """The same tab goes from one to the other: neither is asked for the other's conversation."""
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(environ={"GEMINI_BASE_URL": simulator.url, "BASE_PATH": "/one"}) as server,
        opened(chromium, f"http://localhost:{server.port}/one/") as page,
    ):
        await talks(page)
        await page.goto(f"http://localhost:{server.port}/")
        await expect(page.get_by_role("heading", name="Ask, and")).to_be_visible()
        await expect(page.locator("#notices")).to_be_empty()
