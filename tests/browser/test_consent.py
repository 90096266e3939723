"""The page asks the person whether a call may be made, and shows how calls go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chromium import opened, playing, until
from playwright.async_api import Browser, Page, expect
from scripted import TOOLS, Line, ScriptedServer, tone
from serving import ROOT, Server
from test_page import connect, inside_the_margins, says, type_in

pytestmark = pytest.mark.browser

PAYMENT = {"to": "Anna", "amount": 25, "urgent": False}


def asking(**more: Any) -> dict[str, Any]:
    return {"id": "q", "name": "send_money", "args": PAYMENT, "confirm": True} | more


async def yes(page: Page) -> None:
    await page.get_by_role("dialog").get_by_role("button", name="Yes").click()


# Through the whole product

TOOLS_YAML = """\
version: 1
tools:
  send_money:
    description: Sends money from the person's account. Use it for transfers.
    parameters:
      type: object
      properties: {to: {type: string}, amount: {type: number}, urgent: {type: boolean}}
      required: [to, amount]
    python: bank:send_money
    confirm: true
"""
BANK = """\
def send_money(to, amount, urgent=False):
    return {"paid": amount}
"""
PAY = {"name": "send_money", "args": PAYMENT}
SCENARIO: dict[str, Any] = {
    "turns": [
        {
            "typed": "forget",
            "do": [{"call": PAY, "cancel_after": 1}, {"say": "Never mind.", "seconds": 0.1}],
        },
        {
            "typed": "pay",
            "repeat": True,
            "do": [
                {"call": PAY},
                {"say": "Paid: {send_money.result.paid}, {send_money.error.code}.", "seconds": 0.1},
            ],
        },
    ]
}

# How many questions were put.
WATCH_QUESTIONS = """
    window.asked = 0;
    new MutationObserver((changes) => changes.forEach(({ addedNodes }) => (asked += addedNodes.length)))
        .observe(document.getElementById("consent"), { childList: true });
"""


@contextlib.asynccontextmanager
async def bank(home: Path) -> AsyncIterator[Server]:
    (home / "tools.yaml").write_text(TOOLS_YAML)
    (home / "bank.py").write_text(BANK)
    (home / "scenario.yaml").write_text(yaml.safe_dump(SCENARIO, sort_keys=False))
    async with Server(
        "--scenario",
        str(home / "scenario.yaml"),
        "--set",
        "handler_prefixes=bank",
        home=home,
        environ={"PYTHONPATH": f"{home}:{ROOT}"},
    ) as server:
        yield server


async def test_a_yes_makes_the_call_and_a_no_or_a_cancellation_does_not(
    chromium: Browser, tmp_path: Path
) -> None:
    async with bank(tmp_path) as server, opened(chromium, server.url, microphone=False) as page:
        dialog, words = page.get_by_role("dialog"), page.locator(".model .words").last
        await expect(page.locator("#tools")).to_contain_text("send_money")
        await type_in(page, "Please pay Anna")
        await expect(dialog).to_contain_text("Send money?")
        await expect(dialog).to_contain_text("Sends money from the person's account.")
        await expect(dialog.locator("dd")).to_have_text(["Anna", "25", "no"])
        await yes(page)
        await expect(dialog).to_have_count(0)
        await expect(words).to_contain_text("Paid: 25")
        await expect(page.locator(".call .state").last).to_have_text("done")

        await type_in(page, "Pay again")
        await dialog.get_by_role("button", name="No", exact=True).click()
        await expect(words).to_contain_text("refused.")
        await expect(page.locator(".call .state").last).to_have_text("you said no")

        await page.evaluate(WATCH_QUESTIONS)
        await type_in(page, "forget it")
        await until(page, "asked === 1")
        await expect(dialog).to_have_count(0)
        await expect(page.locator(".call .state").last).to_have_text("cancelled")
        await expect(words).to_contain_text("Never mind.")
        await expect(page.locator(".notice")).to_have_count(0)


async def test_a_question_outlives_a_reload_of_the_page(chromium: Browser, tmp_path: Path) -> None:
    async with bank(tmp_path) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "Please pay Anna")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.reload()
        await server.printed('"client_lost"')
        await connect(page)
        await expect(page.get_by_role("dialog").locator("dd")).to_have_text(["Anna", "25", "no"])
        await yes(page)
        await expect(page.locator(".model .words").last).to_contain_text("Paid: 25")
        await expect(page.locator(".call .state").last).to_have_text("done")
        await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_an_edit_of_the_tools_is_seen_at_the_next_talk_and_a_wrong_one_is_told(
    chromium: Browser, tmp_path: Path
) -> None:
    async with bank(tmp_path) as server, opened(chromium, server.url, microphone=False) as page:
        tools = page.locator("#tools")
        await expect(tools).to_contain_text("send_money")
        await connect(page)
        (tmp_path / "tools.yaml").write_text(TOOLS_YAML.replace("confirm: true", "confrim: true"))
        await says(page, "tools.yaml was edited and has a mistake.")
        await page.get_by_text("Details").click()
        await says(page, "confrim")
        (tmp_path / "tools.yaml").write_text(TOOLS_YAML.replace("send_money:", "spend_money:", 1))
        await server.printed('"tools_reloaded"')
        await page.get_by_role("button", name="Disconnect").click()
        await connect(page)
        await expect(tools).to_contain_text("spend_money")


# The question itself


async def test_questions_queue_and_a_double_click_answers_one(chromium: Browser) -> None:
    answers: list[tuple[str, bool]] = []

    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", **asking(id="a"))
        await line.send("tool_call", **asking(id="b", name="openDoor", args={}))
        await line.send("tool_call", **asking(id="c", name="lock_up", args=None))
        for _ in range(3):
            data = (await line.message("tool_confirm"))["data"]
            answers.append((data["id"], data["ok"]))
        await line.send("warning", code="slow_tool", message="answered")
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("2 more after this")
        await dialog.get_by_role("button", name="Yes").dblclick()
        await expect(dialog).to_contain_text("Open door?")
        await expect(dialog).to_contain_text("1 more after this")
        await dialog.get_by_role("button", name="No", exact=True).click()
        await expect(dialog).to_contain_text("The details of it are not shown.")
        await yes(page)
        await says(page, "answered")
        await expect(dialog).to_have_count(0)
    assert answers == [("a", True), ("b", False), ("c", True)]


async def test_a_question_takes_the_focus_gives_it_back_and_works_from_the_keyboard(
    chromium: Browser,
) -> None:
    answers: list[bool] = []

    async def script(line: Line) -> None:
        await line.connected()
        for number in range(2):
            await line.message("text")
            await line.send("tool_call", **asking(id=f"q{number}"))
            answers.append((await line.message("tool_confirm"))["data"]["ok"])
            await line.send("turn_complete", turn=number + 1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        dialog, message = page.get_by_role("dialog"), page.get_by_label("Message")
        await type_in(page, "Pay Anna")
        await expect(dialog).to_be_focused()
        assert await dialog.evaluate("(one) => one.ariaModal") != "true"  # the conversation goes on
        await expect(dialog.get_by_role("button", name="Yes")).to_be_enabled()
        await page.keyboard.press("Enter")  # meant for something else: it does nothing
        await page.keyboard.press("Tab")
        await expect(dialog.get_by_role("button", name="Yes")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(dialog).to_have_count(0)
        await expect(message).to_be_focused()

        await type_in(page, "Pay Anna")
        await expect(dialog.get_by_role("button", name="No", exact=True)).to_be_enabled()
        await page.keyboard.press("Escape")
        await expect(message).to_be_focused()
    assert answers == [True, False]


async def test_somebody_who_writes_keeps_the_focus_and_hears_of_the_question(chromium: Browser) -> None:
    asked = asyncio.Event()

    async def script(line: Line) -> None:
        await line.connected()
        await asked.wait()
        await line.send("tool_call", **asking())
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        message = page.get_by_label("Message")
        await message.fill("I am just wri")
        asked.set()
        await expect(page.locator("[aria-live=assertive]")).to_have_text(
            "The assistant asks you: Send money? Answer with Yes or No above the message field."
        )
        await expect(message).to_be_focused()
        await page.keyboard.type("ting")
        await expect(message).to_have_value("I am just writing")
        await page.keyboard.press("Shift+Tab")  # the switch of push-to-talk
        await expect(page.get_by_role("dialog")).to_be_visible()


async def test_a_question_counts_its_seconds_and_goes_when_they_are_over(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", **asking())
        await line.message("text")
        await line.send(
            "tool_result", id="q", name="send_money", ok=False, durationMs=30_000, error="refused"
        )
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.clock.install(time=1_000_000)
        await page.clock.pause_at(1_000_001)
        await connect(page)
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_role("timer")).to_have_text("30 seconds left, then it is a no.")
        await page.clock.run_for(21_000)
        await expect(dialog.get_by_role("timer")).to_have_text("9 seconds left, then it is a no.")
        await expect(page.locator("[aria-live=assertive]")).to_contain_text("seconds left, then it is a no.")
        await page.clock.run_for(10_000)
        await expect(dialog).to_have_count(0)
        await type_in(page, "Hello?")
        await expect(page.locator(".call .state")).to_have_text("not answered")


async def test_after_a_reload_a_question_counts_from_its_beginning(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected(resumed=line.asked_for is not None)
        await line.send("tool_call", **asking())
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.clock.install(time=1_000_000)
        await page.clock.pause_at(1_000_001)
        await connect(page)
        timer = page.get_by_role("timer")
        await expect(timer).to_have_text("30 seconds left, then it is a no.")
        await page.clock.run_for(12_000)
        await expect(timer).to_have_text("18 seconds left, then it is a no.")
        await page.reload()
        await connect(page)
        await expect(timer).to_have_text("18 seconds left, then it is a no.")


async def test_the_conversation_goes_on_beside_a_question(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", **asking())
        await line.message("pcm")
        await line.send("transcription", text="Shall I?", isUser=False, isFinal=True, turn=1)
        await line.send_pcm(tone(2))
        await line.message("text")
        await line.send("tool_cancelled", ids=["q"])
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.get_by_role("dialog")).to_be_visible()
        await expect(page.locator(".model .words")).to_have_text("Shall I?")
        await playing(page)
        await expect(page.get_by_role("button", name="Mute")).to_be_visible()
        await type_in(page, "What for?")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.locator(".call .state")).to_have_text("cancelled")


async def test_an_argument_cannot_disguise_itself(chromium: Browser) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"

    async def script(line: Line) -> None:
        await line.connected()
        turned = "evil\u202egro.knab\u202c\u200b"
        await line.send(
            "tool_call", **asking(name=evil, args={"to": turned, evil: evil, "n": None, "l": [1]})
        )
        await line.stay()

    tools = [{"name": evil, "description": f"{evil}. And more.", "parameters": {}, "behaviour": {}}, *TOOLS]
    async with ScriptedServer(script, tools=tools) as server, opened(chromium, server.url) as page:
        await connect(page)
        dialog = page.get_by_role("dialog")
        await expect(dialog.locator("dd")).to_have_text(
            ["evil\\u202egro.knab\\u202c\\u200b", evil, "(nothing)", "[ 1 ]"]
        )
        await expect(dialog).to_contain_text(f"{evil}.")
        assert await page.locator("img").count() == 0
        assert await page.title() == "Yes or no? tornado-live (simulator)"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 640), (844, 390)])
async def test_a_question_fits_every_screen_and_says_when_there_is_more_of_it(
    chromium: Browser, width: int, height: int
) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send(
            "warning", code="slow_tool", message="Something happened that takes some words to tell."
        )
        query = "UPDATE orders SET " + ", ".join(f"column_{n} = {n}" for n in range(300))
        await line.send("tool_call", **asking(name="run_statement", args={"query": query, "last": "word"}))
        await line.stay()

    viewport = {"width": width, "height": height}
    async with ScriptedServer(script) as server, opened(chromium, server.url, viewport=viewport) as page:
        await connect(page)
        dialog = page.get_by_role("dialog")
        for name in ("Yes", "No"):
            await expect(dialog.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
        for part in (dialog, page.get_by_label("Message"), dialog.get_by_role("heading")):
            await expect(part).to_be_in_viewport(ratio=1)
        for scroller in ("document.documentElement", "document.querySelector('.asked')"):
            assert await page.evaluate(f"{scroller}.scrollWidth - {scroller}.clientWidth") == 0
        if width < 800:
            await inside_the_margins(page, width)
        more = dialog.get_by_text("Scroll for the rest")
        await expect(more).to_be_visible()
        await page.keyboard.press("Tab")
        await page.keyboard.press("End")
        await expect(dialog.get_by_text("word")).to_be_in_viewport(ratio=1)
        await expect(more).to_be_hidden()


async def test_a_phone_whose_panel_is_open_shows_the_question(chromium: Browser) -> None:
    opened_panel = asyncio.Event()

    async def script(line: Line) -> None:
        await line.connected()
        await opened_panel.wait()
        await line.send("tool_call", **asking())
        await line.stay()

    phone = {"width": 390, "height": 844}
    async with ScriptedServer(script) as server, opened(chromium, server.url, viewport=phone) as page:
        await connect(page)
        await page.get_by_role("button", name="Tools").click()
        opened_panel.set()
        await expect(page.get_by_role("button", name="Close")).to_be_hidden()
        await expect(page.get_by_role("dialog")).to_be_focused()


# How calls go on


async def test_what_a_slow_call_says_is_read_without_opening_it(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="s", name="get_analytics", args={})
        await line.send("tool_progress", id="s", text="This takes a little longer.")
        await line.message("text")
        await line.send("tool_result", id="s", name="get_analytics", ok=True, durationMs=4000, summary="9")
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await connect(page)
        progress = page.locator(".call .progress")
        await expect(progress).to_have_text("This takes a little longer.")
        await until(page, "document.getElementById('announcements').textContent.includes('a little longer')")
        await type_in(page, "Hello?")
        await expect(page.locator(".call .state")).to_have_text("done")
        await expect(progress).to_be_hidden()


async def test_a_call_that_was_answered_from_an_earlier_one_says_so(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        for one, more in (("a", {}), ("b", {"sameAs": "a"})):
            await line.send("tool_call", id=one, name="order", args={"item": "pen"}, **more)
            await line.send(
                "tool_result", id=one, name="order", ok=True, durationMs=7, summary="ordered: 1", **more
            )
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await connect(page)
        await expect(page.locator(".call .state")).to_have_text(["done", "not made again"])
        await expect(page.locator(".call .time")).to_have_text(["7 ms", ""])
        await expect(page.locator(".call .outcome")).to_have_text(
            [
                "ordered: 1",
                "The same was asked for again: this is the answer of the call before it. ordered: 1",
            ]
        )


async def test_a_wrong_edit_of_the_tools_is_told_once_in_plain_words(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        for place in ("3:1", "4:1"):
            await line.send("warning", code="tools_reload_failed", message=f"tools.yaml:{place}: no such key")
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await says(
            page, "tools.yaml was edited and has a mistake. The tools from before the edit stay in use."
        )
        await page.get_by_text("Details").click()
        await says(page, "tools.yaml:4:1: no such key")
        await expect(page.locator(".notice")).to_have_count(1)
