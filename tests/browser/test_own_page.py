"""docs/examples/own-page as its reader uses it: on a web server of its own, with the module copied next to it."""

from __future__ import annotations

import re
import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from accessing import ASKING, api_key, bearer, signed
from chromium import FAKE_MICROPHONE, launch, opened, until
from playwright.async_api import Browser, Playwright, expect
from serving import ROOT, Server
from speech import spoken
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

pytestmark = pytest.mark.browser

QUESTION = "What's the weather in New York?"
RATE = 24_000


class Service(RequestHandler):
    """What the documentation calls /my-service: it knows its people, and has the only key."""

    def initialize(self, key: dict[str, str]) -> None:
        self.key = key

    async def post(self, session: str | None = None) -> None:
        path = f"/api/sessions/{session}/token" if session else "/api/sessions"
        async with httpx.AsyncClient(base_url=self.key["server"], trust_env=False) as client:
            wanted = {"userId": "alice", "origin": self.request.headers["Origin"]}
            answer = await client.post(path, json=wanted, headers=bearer(self.key["key"]))
        self.key["asked"] = f"{self.key.get('asked', '')}{answer.status_code} {path}\n"
        self.set_status(answer.status_code)
        self.write(answer.json())


@asynccontextmanager
async def other_web_server(folder: Path, key: dict[str, str] | None = None) -> AsyncIterator[str]:
    """The origin of the copied page; its own.js is put there by `own_page`, once the address is known."""
    files = {"path": folder, "default_filename": "index.html"}
    service = [(r"/my-service/conversations(?:/([^/]+)/token)?", Service, {"key": key})]
    routes = [*service, (r"/(.*)", StaticFileHandler, files)]
    http = HTTPServer(Application(routes, log_function=lambda _: None))
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


async def test_a_page_with_tickets_comes_back_with_a_new_one_and_needs_no_key(
    chromium: Browser, tmp_path: Path
) -> None:
    """The code of docs/client-module.md, with a service behind it."""
    guide = (ROOT / "docs/client-module.md").read_text("utf-8")
    code = re.findall(r"```js\n(.*?)```", guide[guide.index("## Who is talking") :], re.S)[0]
    page_folder = tmp_path / "page"
    known: dict[str, str] = {}
    async with (
        other_web_server(page_folder, known) as origin,
        Server(home=tmp_path, environ=ASKING | {"ALLOWED_ORIGINS": origin}) as server,
    ):
        shared = {"DATA_DIR": str(tmp_path / "data")}
        known |= {"server": server.url, "key": await api_key(shared, "shop", roles=["backend"])}
        own_page(page_folder, server)
        (page_folder / "own.js").write_text(
            code.replace("https://voice.example.com", server.url) + "\nwindow.live = live;\n"
        )
        async with opened(chromium, origin) as page:
            await until(page, "window.live")
            told = await page.evaluate(
                """async () => {
                  const told = [];
                  for (let times = 0; times < 3; times += 1) {
                    const { status } = await live.connect();
                    told.push(status);
                    live.disconnect();
                  }
                  return [...told, live.sessionId];
                }"""
            )
            async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
                seen = await client.get(f"/api/sessions/{told[-1]}", headers=bearer(signed("alice")))
    session = told[-1]
    assert told[:-1] == ["CONNECTED"] * 3
    assert seen.json()["userId"] == "alice"
    assert known["asked"].splitlines() == ["201 /api/sessions", *[f"201 /api/sessions/{session}/token"] * 2]
