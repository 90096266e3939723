"""docs/examples/own-page as its reader uses it: on a web server of its own, with the module copied next to it."""

from __future__ import annotations

import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chromium import FAKE_MICROPHONE, launch, opened
from playwright.async_api import Browser, Playwright, expect
from serving import ROOT, Server
from speech import spoken
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

pytestmark = pytest.mark.browser

QUESTION = "What's the weather in New York?"
RATE = 24_000


@asynccontextmanager
async def other_web_server(folder: Path) -> AsyncIterator[str]:
    """The origin of the copied page; its own.js is put there by `own_page`, once the address is known."""
    files = {"path": folder, "default_filename": "index.html"}
    http = HTTPServer(Application([(r"/(.*)", StaticFileHandler, files)], log_function=lambda _: None))
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield f"http://localhost:{sockets[0].getsockname()[1]}"
    finally:
        http.stop()
        await http.close_all_connections()


def own_page(folder: Path, server: Server) -> None:
    """What the documentation says to copy; only the port is another one."""
    shutil.copytree(ROOT / "docs/examples/own-page", folder, dirs_exist_ok=True)
    shutil.copy(ROOT / "static/tornado-live.js", folder)
    shutil.copytree(ROOT / "static/tornado-live", folder / "tornado-live")
    script = folder / "own.js"
    text = script.read_text()
    assert "http://127.0.0.1:3001" in text
    script.write_text(text.replace("127.0.0.1:3001", f"127.0.0.1:{server.port}"))


@pytest.mark.voice
async def test_the_example_page_shows_words_while_they_are_spoken(
    playwright: Playwright, tmp_path: Path
) -> None:
    speech = tmp_path / "speech.wav"
    with wave.open(str(speech), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        second = bytes(2 * RATE)
        file.writeframes(second + spoken([QUESTION], tmp_path)[QUESTION] + second * 2)
    page_folder = tmp_path / "page"
    async with (
        other_web_server(page_folder) as origin,
        Server(voice="on", environ={"ALLOWED_ORIGINS": origin}) as server,
    ):
        await server.printed(r'"voice": "ready"', within=60)
        own_page(page_folder, server)
        browser = await launch(
            playwright, FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={speech}%noloop"
        )
        try:
            async with opened(browser, origin) as page:
                await page.get_by_role("button", name="Talk").click()
                words = page.locator("#words")
                await expect(words).to_contain_text("1 You: What's the weather")
                await expect(words).to_contain_text("1 Assistant: ")
                begun = await words.inner_text()
                await expect(words).not_to_have_text(begun)  # and goes on, piece by piece
                await expect(page.locator("#note")).to_have_text("")
        finally:
            await browser.close()


async def test_the_example_page_reaches_a_server_below_a_path(chromium: Browser, tmp_path: Path) -> None:
    async with (
        other_web_server(tmp_path) as origin,
        Server(environ={"ALLOWED_ORIGINS": origin, "BASE_PATH": "/voice"}) as server,
    ):
        own_page(tmp_path, server)
        script = tmp_path / "own.js"
        script.write_text(script.read_text().replace(f":{server.port}", f":{server.port}/voice"))
        assert "/voice" in script.read_text()
        async with opened(chromium, origin) as page:
            async with page.expect_websocket() as found:
                await page.get_by_role("button", name="Talk").click()
            assert (await found.value).url == f"ws://127.0.0.1:{server.port}/voice/ws"
            await expect(page.locator("#note")).to_have_text("")


async def test_the_example_page_says_once_why_it_cannot_connect(chromium: Browser, tmp_path: Path) -> None:
    async with other_web_server(tmp_path) as origin, Server() as server:  # its origin is not allowed
        own_page(tmp_path, server)
        async with opened(chromium, origin, expected=["WebSocket connection"]) as page:
            await page.get_by_role("button", name="Talk").click()
            await expect(page.locator("#note")).to_contain_text(f"its ALLOWED_ORIGINS has {origin}")
