"""T6: whatever is said, found or claimed is text on the page, and the page runs nothing but its own files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from accessing import ASKING, signed
from chromium import opened, until
from faults.model import ModelSide
from faults.stage import environment
from playwright.async_api import Browser, Dialog, Page, Route, expect
from scripted import STATIC, Line, ScriptedServer
from serving import Server

pytestmark = pytest.mark.browser

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
MARKUP = "script:not([src]), img, iframe, object, embed, base, svg[onload], [onerror], a[href^=javascript]"
WATCH = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
TOOLS = f"""\
version: 1
tools:
  get_page:
    description: '{EVIL.replace("'", "''")}'
    parameters: {{type: object, properties: {{title: {{type: string}}}}}}
    http: {{url: "https://wiki.example/page", query: {{q: "{{title}}"}}}}
    mock: {{text: '{EVIL.replace("'", "''")}'}}
"""


@asynccontextmanager
async def watched(chromium: Browser, url: str, *expected: str) -> AsyncIterator[Page]:
    """A page of which no dialog came, and no violation of its policy but those that the test asks for."""
    dialogs: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        await dialog.dismiss()

    async with opened(chromium, "about:blank", microphone=False, expected=expected) as page:
        page.on("dialog", dismiss)
        await page.add_init_script(WATCH)
        await page.goto(url)
        yield page
        assert dialogs == []


async def harmless(page: Page) -> None:
    assert await page.locator(f"body :is({MARKUP})").count() == 0
    assert await page.evaluate("violations") == []


@pytest.mark.proves("T6")
async def test_a_model_a_tool_and_a_user_whose_words_are_markup_are_shown_as_text(
    chromium: Browser, tmp_path: Path
) -> None:
    tmp_path.joinpath("tools.yaml").write_text(TOOLS)
    async with (
        ModelSide() as model,
        Server(home=tmp_path, environ=ASKING | environment(model.port) | {"MOCK_TOOLS": "always"}) as server,
        watched(chromium, server.url, "401", "Content Security Policy", "404") as page,
    ):
        await page.get_by_label("API key or token").fill(signed(EVIL))
        await page.keyboard.press("Enter")
        await page.get_by_label("Message").fill(EVIL)
        await page.keyboard.press("Enter")
        line = await model.dialled()
        await line.ready("h1")
        assert await line.typed() == EVIL
        await line.call("c1", "get_page", {"title": EVIL})
        await line.receive("toolResponse")
        await line.say(EVIL)
        await expect(page.locator(".user .words")).to_have_text(EVIL)
        await expect(page.locator(".model .words")).to_have_text(EVIL)
        await page.locator(".call summary").click()
        await expect(page.locator(".call .outcome")).to_contain_text(EVIL)
        await expect(page.locator(".call .arguments")).to_contain_text("<script>alert(1)</script>")
        await expect(page.locator("#tools")).to_contain_text(EVIL)
        await expect(page.locator("#person-words")).to_have_text(f"Logged in as {EVIL}.")
        await page.reload()  # what the server remembers comes by another way
        await expect(page.locator(".user .words")).to_have_text(EVIL)
        await expect(page.locator(".model .words")).to_have_text(EVIL)
        await harmless(page)

        # Were it markup after all, it would not run.
        await page.evaluate(
            """(evil) => {
              document.body.insertAdjacentHTML("beforeend", evil);
              document.body.append(Object.assign(document.createElement("script"), { text: "alert(4)" }));
            }""",
            EVIL,
        )
        await until(page, "new Set(violations).size === 2")
        assert set(await page.evaluate("violations")) == {"script-src-attr", "script-src-elem"}


@pytest.mark.proves("T6")
async def test_why_a_key_is_refused_is_shown_as_text(chromium: Browser) -> None:
    async def refuse(route: Route) -> None:
        error = {"code": "unauthenticated", "message": EVIL, "retryable": False, "requestId": EVIL}
        await route.fulfill(status=401, json={"error": error})

    async with ScriptedServer(idle) as server, watched(chromium, server.url, "401") as page:
        await page.evaluate("sessionStorage['tornado-live.credential /'] = 'tl_old'")
        await page.route("**/api/tools", refuse)
        await page.reload()
        await expect(page.locator(".reason")).to_have_text(EVIL)
        await page.get_by_label("API key or token").fill("tl_new")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text(EVIL)
        await harmless(page)


@pytest.mark.proves("T6")
async def test_what_a_server_says_about_itself_and_its_errors_are_shown_as_text(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected(assistant=EVIL, model=EVIL, upstream=EVIL, memory=EVIL)
        for n, kind in enumerate(("error", "warning")):
            await line.send(kind, code=f"{EVIL}{n}", message=EVIL, retryable=False, requestId=EVIL)
        await line.send(
            "error", code="limited", message=EVIL, retryable=True, retryAfterMs=60_000, requestId="r"
        )
        await line.stay()

    async with ScriptedServer(script) as server, watched(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator("#status-detail")).to_have_text(f"{EVIL} · {EVIL}")
        await expect(page.locator("#facts")).to_contain_text(EVIL)
        await expect(page.locator("#notices")).to_contain_text(f"{EVIL} You can try again in")
        await harmless(page)


async def idle(line: Line) -> None:
    await line.stay()


@pytest.mark.proves("T6")
async def test_every_file_of_the_page_is_locked_down_and_nobody_frames_it(
    chromium: Browser, tmp_path: Path
) -> None:
    async with Server(home=tmp_path, environ=ASKING) as server:
        files = sorted(path for path in STATIC.rglob("*") if path.is_file())
        paths = ["/", *(f"/{quote(path.relative_to(STATIC).as_posix())}" for path in files)]
        assert {"/", "/index.html", "/page/login.js", "/tornado-live.js", "/favicon.svg"} <= set(paths)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            for path in [*paths, "/nothing", "/page/../nothing", "/health", "/api/tools"]:
                headers = (await client.get(path)).headers
                policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
                assert policy["script-src"] == policy["style-src"] == policy["default-src"] == "'self'", path
                assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'", (
                    path
                )
                assert "unsafe" not in headers["Content-Security-Policy"], path
                assert headers["X-Content-Type-Options"] == "nosniff", path
                assert headers["X-Frame-Options"] == "DENY", path
                assert headers["Referrer-Policy"] == "no-referrer", path
        text = "".join(path.read_text("utf-8") for path in files if path.suffix in (".js", ".html"))
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+=|\sstyle=", text)

        framing = f"data:text/html,<iframe src='{server.url}'></iframe>"
        async with opened(
            chromium, framing, expected=["frame-ancestors", "X-Frame-Options", "frame"]
        ) as page:
            frame = page.frames[1]
            await until(page, "document.querySelector('iframe') !== null")
            assert await frame.locator("#connect").count() == 0
            assert frame.url.startswith("chrome-error:")
