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


REMEMBERED = """async () => {
  const names = [...document.querySelectorAll("#facts dt")];
  const session = names.find((name) => name.textContent === "Session").nextSibling.textContent;
  for (;;) {
    const { memory } = await (await fetch(`api/sessions/${session}?include=memory`)).json();
    if (memory.some(({ role }) => role === "model")) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}"""


async def talks(page: Page) -> None:
    """A question is answered in words and sound, and the conversation is still there after a reload."""
    await expect(page.get_by_role("list", name="Questions to try").get_by_role("button")).not_to_have_count(0)
    await page.get_by_label("Message").fill("Hello?")
    await page.keyboard.press("Enter")
    await page.get_by_text("Good evening to you.").first.wait_for()
    await playing(page)
    await page.evaluate(REMEMBERED)
    await page.reload()
    await expect(page.locator("#notices")).to_contain_text("Your conversation is kept")
    await expect(page.get_by_text("Good evening to you.").first).to_be_visible()


async def test_the_page_works_below_the_base_path(chromium: Browser) -> None:
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(tls=True, environ={"GEMINI_BASE_URL": simulator.url, "BASE_PATH": "/voice"}) as server,
    ):
        for host in (f"http://localhost:{server.port}", f"https://localhost:{server.tls_port}"):
            async with opened(chromium, f"{host}/voice", ignore_https_errors=True) as page:
                await expect(page).to_have_url(f"{host}/voice/")
                await talks(page)
                # Another server on this host, in the same tab, is not asked for that conversation.
                await page.goto(host)
                await expect(page.get_by_role("heading", name="Ask, and")).to_be_visible()
                await expect(page.locator("#notices")).to_be_empty()


async def test_the_page_works_behind_a_proxy_below_a_path(chromium: Browser) -> None:
    """No PUBLIC_URL: what the proxy says of itself is enough. The path has the name of a folder of ours."""
    path = "/tornado-live"
    environ = {"BASE_PATH": path, "TRUSTED_PROXIES": "127.0.0.1"}
    async with (
        Simulator(HELLO, latency=0.05, speed=2) as simulator,
        Server(environ={**environ, "GEMINI_BASE_URL": simulator.url}) as server,
        Nginx(server.port, prefix=path) as leaves_it,
        Nginx(server.port, prefix=path, changes={LEFT: TAKEN_OFF}) as takes_it_off,
    ):
        for proxy in (leaves_it, takes_it_off):
            async with opened(chromium, f"{proxy.url}/", ignore_https_errors=True, viewport=PHONE) as page:
                await talks(page)
                made = await page.evaluate(
                    "fetch('api/sessions', { method: 'POST' }).then((answer) => answer.json())"
                )
                assert re.match(rf"wss://localhost:{proxy.port}{path}/ws\?sessionId=", made["wsUrl"])
