"""The page in front of a real server that asks who is talking."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from accessing import ASKING, api_key, signed, store_of
from chromium import opened
from faults.model import ModelSide
from faults.stage import environment
from playwright.async_api import Browser, Page, expect
from scripted import Line, ScriptedServer
from serving import Server

from tornado_live.access.keys import list_keys, revoke_key

pytestmark = pytest.mark.browser

ANSWERS = ["401", "404"]  # which Chromium writes into its console
WRONG = "The credential is wrong, has expired, or was revoked. Show another one."
TOOLS = """\
version: 1
tools:
  get_weather:
    description: Current weather of a place.
    parameters: {type: object, properties: {location: {type: string}}}
    http: {url: "https://weather.example/now", query: {q: "{location}"}}
    mock: {celsius: 21}
"""


def field(page: Page) -> Any:
    return page.get_by_label("API key or token")


async def log_in(page: Page, credential: str) -> None:
    await field(page).fill(credential)
    await page.keyboard.press("Enter")


async def stored(page: Page) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = await page.evaluate(
        "({ tab: {...sessionStorage}, ever: {...localStorage} })"
    )
    return told


async def revoke(shared: Mapping[str, str], name: str) -> None:
    """From another process, as `tornado-live token revoke` does it."""
    async with store_of(shared) as store:
        for key in await list_keys(store):
            if key.name == name:
                await revoke_key(store, key)


@asynccontextmanager
async def asking_server(
    home: Path, model_port: int | None = None, **settings: str
) -> AsyncIterator[tuple[Server, Mapping[str, str]]]:
    """A server that asks, and where its keys are kept."""
    home.joinpath("tools.yaml").write_text(TOOLS)
    upstream = {} if model_port is None else environment(model_port)
    async with Server(home=home, environ=ASKING | upstream | settings) as server:
        yield server, {"DATA_DIR": str(home / "data")}


async def test_whom_the_server_does_not_know_it_asks_and_then_goes_on(
    chromium: Browser, tmp_path: Path
) -> None:
    async with asking_server(tmp_path) as (server, shared):
        key = await api_key(shared, "web", user="alice")
        async with opened(chromium, server.url, microphone=False, expected=ANSWERS) as page:
            asked_for: list[str] = []
            page.on("request", lambda request: asked_for.append(request.url))
            page.on("websocket", lambda socket: asked_for.append(socket.url))
            form = page.get_by_role("form", name="Who are you?")
            await expect(field(page)).to_be_focused()
            await expect(form).to_contain_text("It is kept in this tab alone")
            await expect(page.get_by_role("button", name="Connect")).to_be_hidden()
            await expect(page.get_by_label("Message")).to_be_hidden()
            await expect(page.locator("#tools-none")).to_have_text(
                "The tools are shown once you have logged in."
            )

            await page.keyboard.press("Enter")
            await expect(form.get_by_role("alert")).to_have_text("Enter your key first.")
            await log_in(page, "two words")
            await expect(form.get_by_role("alert")).to_contain_text("No key has spaces")
            await log_in(page, key[:-1] + ("A" if key[-1] != "A" else "B"))
            await expect(form.get_by_role("alert")).to_have_text(WRONG)
            await expect(field(page)).to_have_attribute("aria-invalid", "true")
            await expect(field(page)).to_be_focused()

            await log_in(page, f" Bearer {key} ")
            await expect(form).to_have_count(0)
            await expect(page.get_by_label("Message")).to_be_focused()
            await expect(page.locator("#tools")).to_contain_text("get_weather")
            await page.get_by_role("list", name="Questions to try").get_by_role("button").click()
            await expect(page.locator(".model .words")).not_to_be_empty()
            await expect(page.locator("#person-words")).to_have_text("Logged in as alice.")

            kept = await stored(page)
            assert kept["tab"]["tornado-live.credential /"] == key
            assert key not in json.dumps(kept["ever"])
            assert key not in await page.content()
            assert key not in "".join(asked_for)
            await page.reload()
            await expect(page.locator("#notices")).to_contain_text("Your conversation is kept.")
            assert await form.count() == 0

            await page.get_by_role("button", name="Log out").click()
            await expect(field(page)).to_be_focused()
            await expect(page.locator(".turn, .notice, .reason:not(:empty)")).to_have_count(0)
            assert await stored(page) == {"tab": {}, "ever": {}}


async def test_who_is_kept_out_in_mid_conversation_goes_on_with_it_and_nobody_else_does(
    chromium: Browser, tmp_path: Path
) -> None:
    async with ModelSide() as model, asking_server(tmp_path, model.port) as (server, shared):
        first, second = [await api_key(shared, name, user="alice") for name in ("first", "second")]
        async with opened(chromium, server.url, expected=ANSWERS) as page:
            await log_in(page, first)
            await page.get_by_role("button", name="Connect", exact=True).click()
            line = await model.dialled()
            await line.ready("h1")
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()
            await line.heard("What is nine?")
            await line.say("A number.")
            await expect(page.locator(".model .words")).to_have_text("A number.")
            session = (await stored(page))["tab"]["tornado-live.session /"]

            draft = page.get_by_label("Message")
            await draft.fill("And te")
            await revoke(shared, "first")
            await expect(page.locator(".reason")).to_have_text(
                "Your access was withdrawn; ask whoever gave it to you."
            )
            # The next keys of somebody who is writing are not meant for the field.
            await expect(page.get_by_role("form", name="Who are you?")).to_be_focused()
            await expect(page.locator("#status-words")).to_have_text("Not connected")
            await expect(page.locator(".model .words")).to_have_text("A number.")
            assert "tornado-live.credential /" not in (await stored(page))["tab"]

            await log_in(page, second)
            line = await model.dialled()
            assert line.handle == "h1"
            await line.ready("h2")
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()  # as it was
            await expect(draft).to_have_value("And te")
            await expect(page.locator("#facts")).to_contain_text(session)
            await line.heard("And ten?")
            await line.say("Another one.")
            await expect(page.locator(".model .words")).to_have_text(["A number.", "Another one."])

            await revoke(shared, "second")
            await expect(page.locator(".reason")).not_to_be_empty()
            await log_in(page, signed("bob"))
            await expect(page.locator("#notices")).to_contain_text("is over, or somebody else's")
            await expect(page.locator(".turn")).to_have_count(0)
            await expect(draft).to_have_value("")
            await expect(page.locator("#status-words")).to_have_text("Not connected")


async def test_a_token_that_expired_since_is_asked_for_again_with_the_reason(
    chromium: Browser, tmp_path: Path
) -> None:
    async with asking_server(tmp_path) as (server, _), opened(chromium, server.url, expected=ANSWERS) as page:
        await field(page).wait_for()
        await page.evaluate(
            f"sessionStorage['tornado-live.credential /'] = {json.dumps(signed('alice', lasts_s=-60))}"
        )
        await page.reload()
        await expect(page.locator(".reason")).to_have_text("The token has expired. Show a new one.")
        await log_in(page, signed("alice"))
        await expect(page.locator("#tools")).to_contain_text("get_weather")


async def test_where_nobody_is_asked_there_is_nothing_of_it(chromium: Browser) -> None:
    options: dict[str, Any] = {}

    async def script(line: Line) -> None:
        options.update(await line.connected())
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, "about:blank", microphone=False) as page:
        headers: list[Mapping[str, str]] = []
        page.on("request", lambda request: headers.append(request.headers))
        await page.goto(server.url)
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator("#status-words")).to_have_text("Connected")
        assert "token" not in options
        assert not any("authorization" in each for each in headers)
        assert await page.locator(".login, input[type=password]").count() == 0
        await expect(page.locator("#person")).to_be_hidden()


async def test_the_form_fits_every_screen_and_is_used_from_the_keyboard(
    chromium: Browser, tmp_path: Path
) -> None:
    async with asking_server(tmp_path) as (server, _), opened(chromium, server.url, expected=ANSWERS) as page:
        for width, height in [(1280, 800), (390, 844), (844, 390), (320, 480)]:
            await page.set_viewport_size({"width": width, "height": height})
            await page.reload()
            await expect(field(page)).to_be_focused()
            await expect(field(page)).to_be_in_viewport(ratio=1)
            for name in ("Show the key", "Log in"):
                await page.keyboard.press("Tab")
                button = page.get_by_role("button", name=name)
                await expect(button).to_be_focused()
                await expect(button).to_be_in_viewport(ratio=1)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        await field(page).fill("tl_pasted")
        assert await field(page).get_attribute("type") == "password"
        assert await field(page).get_attribute("autocomplete") == "off"
        # Without JavaScript of ours a form would send what has a name.
        assert await field(page).get_attribute("name") is None
        await page.get_by_role("button", name="Show the key").click()
        assert await field(page).get_attribute("type") == "text"
        await page.get_by_role("button", name="Hide the key").click()
        assert await field(page).get_attribute("type") == "password"


# What is spent


async def test_a_budget_that_is_nearly_spent_and_then_spent_is_told_with_when_there_is_more(
    chromium: Browser, tmp_path: Path
) -> None:
    limits = {"LIMITS__TOKENS_PER_DAY": "1000"}
    async with (
        ModelSide() as model,
        asking_server(tmp_path, model.port, **limits) as (server, _),
        opened(chromium, server.url, microphone=False, expected=ANSWERS) as page,
    ):
        notices = page.locator("#notices")
        await log_in(page, signed("alice"))
        await page.get_by_label("Message").fill("What is nine?")
        await page.keyboard.press("Enter")
        line = await model.dialled()
        await line.ready("h1")
        for spent, told in [(900, "Four fifths"), (1100, "You can try again in about 24 hours.")]:
            counts = {"promptTokenCount": spent, "responseTokenCount": 0, "totalTokenCount": spent}
            await line.send({"usageMetadata": counts})
            await line.say("A number.")
            await expect(notices).to_contain_text(told)
        await expect(notices).not_to_contain_text("Four fifths")
        await expect(page.locator("#status-words")).to_have_text("Not connected")
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator("#status-words")).to_have_text("Not connected")
        await expect(notices).to_contain_text("You can try again in about 24 hours.")
        assert model.handshakes == 1


async def test_the_longest_duration_is_said_in_plain_words(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("warning", code="budget_near", message="It ends in 30 seconds.")
        await line.message("text")
        words = "It has lasted for 4 hours, as long as it may."
        await line.send("error", code="session_ended", message=words, retryable=False, requestId="r")
        line.close(4410)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        notice = page.locator(".notice > p")
        await expect(notice).to_have_text("It ends in 30 seconds.")
        await page.get_by_label("Message").fill("Go on.")
        await page.keyboard.press("Enter")
        await expect(notice).to_have_text("It has lasted for 4 hours, as long as it may.")
        await expect(page.get_by_role("button", name="Microphone")).to_be_visible()


async def test_a_short_wait_is_counted_down_and_then_the_talk_goes_on(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        if line.asked_for is None:
            said = {
                "message": "The server is full; try again soon.",
                "retryable": True,
                "retryAfterMs": 40_000,
            }
            await line.send("error", code="limited", requestId="r", **said)
            line.close(4429)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.clock.install()
        await page.get_by_role("button", name="Connect", exact=True).click()
        notice = page.locator(".notice[data-topic=line] > p")
        await expect(notice).to_contain_text("The server is full. This page tries again in 40 seconds.")
        await page.clock.run_for(30_000)
        await expect(notice).to_contain_text("in 10 seconds.")
        assert len(server.lines) == 1
        await page.clock.run_for(12_000)
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(notice).to_have_count(0)
