"""The page in a real Chromium, against a server that speaks the client protocol by script."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pytest
from chromium import launch, opened, playing, silent, until
from playwright.async_api import Browser, Page, Playwright, expect
from scripted import Line, ScriptedServer, tone

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


async def stay(line: Line) -> None:
    await line.connected()
    await line.stay()


async def weather(line: Line, turn: int = 1) -> None:
    """The turn of the first question, with the model beginning to speak before it calls the tool."""
    await line.send("transcription", text="What's the", isUser=True, isFinal=False, turn=turn)
    await line.send(
        "transcription", text="What's the weather in New York?", isUser=True, isFinal=True, turn=turn
    )
    await line.send("transcription", text="Let me look.", isUser=False, isFinal=False, turn=turn)
    await line.send("tool_call", id="w1", name="get_weather", args={"location": "New York"})
    await line.send(
        "tool_result", id="w1", name="get_weather", ok=True, durationMs=143, sample=True, summary="21 degrees"
    )
    await line.send("transcription", text="It is 21 degrees.", isUser=False, isFinal=False, turn=turn)
    await line.send(
        "transcription", text="Let me look. It is 21 degrees.", isUser=False, isFinal=True, turn=turn
    )
    await line.send("turn_complete", turn=turn)


async def connect(page: Page) -> None:
    await page.get_by_role("button", name="Connect", exact=True).click()
    await expect(page.locator("#status")).to_have_attribute("data-status", "CONNECTED")


async def type_in(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.keyboard.press("Enter")


async def says(page: Page, text: str) -> None:
    await expect(page.locator("#notices")).to_contain_text(text)


# Conversation


async def test_finals_replace_pieces_and_a_turn_reads_user_tool_model(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await weather(line)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".model .words")).to_have_text("Let me look. It is 21 degrees.")
        assert await page.locator(".turn").evaluate(
            "(turn) => [...turn.children].filter((part) => !part.hidden).map((part) => part.className)"
        ) == ["user", "calls", "model"]
        await expect(page.locator(".user .words")).to_have_text("What's the weather in New York?")


async def test_a_tool_call_is_a_card_that_opens_from_the_keyboard(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await weather(line)
        await line.send("tool_call", id="s1", name="execute_sql_query", args={"query": "SELECT 1"})
        await line.send(
            "tool_result", id="s1", name="execute_sql_query", ok=False, durationMs=5012, error="timeout"
        )
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        card = page.locator(".call[data-tool=get_weather]")
        await expect(card.locator("summary")).to_have_text(
            re.compile("get_weather.*New York.*sample data.*done.*143 ms")
        )
        await expect(card.locator(".arguments")).to_be_hidden()
        await card.locator("summary").focus()
        await page.keyboard.press("Enter")
        await expect(card.locator(".arguments")).to_have_text('{\n  "location": "New York"\n}')
        await expect(card.locator(".outcome")).to_have_text("21 degrees")
        failed = page.locator(".call[data-tool=execute_sql_query]")
        await expect(failed.locator(".state")).to_have_text("failed: took too long")
        await failed.locator("summary").click()
        await expect(failed.locator(".outcome")).to_have_text("It took too long.")


async def test_a_cancelled_tool_says_so(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="t", name="get_analytics", args={})
        await line.send("tool_cancelled", ids=["t"])
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".call .state")).to_have_text("cancelled")


async def test_after_a_disconnect_a_tool_belongs_to_the_new_question(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        if line.asked_for is None:
            await line.message("text")
            await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
            await line.stay()
            return
        await line.message("text")
        await line.send("tool_call", id="a", name="get_analytics", args={"period": "last_week"})
        await line.send("transcription", text="Orders rose.", isUser=False, isFinal=True, turn=2)
        await line.send("turn_complete", turn=2)
        await line.message("pcm")
        await line.send("tool_call", id="k", name="search_knowledge_base", args={"query": "AI"})
        await line.send("transcription", text="Search for AI", isUser=True, isFinal=True, turn=3)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await type_in(page, "What's the weather in New York?")
        await expect(page.locator(".call")).to_have_count(1)
        await page.get_by_role("button", name="Disconnect").click()
        await expect(page.locator(".call .state")).to_have_text("not known")
        await connect(page)
        await type_in(page, "Get analytics for the last week")
        await expect(page.locator(".user .words").last).to_have_text("Search for AI")
        assert await page.locator(".turn").evaluate_all(
            """(turns) => turns.map((turn) => [
              turn.querySelector(".user .words").textContent,
              ...[...turn.querySelectorAll(".call")].map((call) => call.dataset.tool),
            ])"""
        ) == [
            ["What's the weather in New York?", "get_weather"],
            ["Get analytics for the last week", "get_analytics"],
            ["Search for AI", "search_knowledge_base"],
        ]


@pytest.mark.parametrize("resumed", [True, False])
async def test_after_a_cut_a_tool_belongs_to_the_open_question_only_if_the_talk_goes_on(
    chromium: Browser, resumed: bool
) -> None:
    async def script(line: Line) -> None:
        first = line.asked_for is None
        await line.connected(resumed=resumed and not first)
        if first:
            await line.message("text")
            await line.send("transcription", text="Let me see.", isUser=False, isFinal=False, turn=1)
            line.cut()
            return
        await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "What's the weather in New York?")
        await expect(page.locator(".call")).to_be_visible()
        assert await page.locator(".turn").count() == (1 if resumed else 2)


async def test_a_question_to_try_connects_without_a_microphone_and_is_asked(chromium: Browser) -> None:
    asked: list[dict[str, Any]] = []

    async def script(line: Line) -> None:
        await line.connected()
        asked.append(await line.message("text", "pcm"))
        await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
        await line.send("text", text="It is 21 ", turn=1)
        await line.send("text", text="degrees.", turn=1)
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.get_by_role("list", name="Questions to try").get_by_role("button").first.click()
        await expect(page.locator(".model .words")).to_have_text("It is 21 degrees.")
        assert await page.locator(".turn").count() == 1, "question, tool and answer are one turn"
        await expect(page.locator(".user .words")).to_have_text("What's the weather in New York?")
    assert [message["data"] for message in asked] == [{"text": "What's the weather in New York?"}]


async def test_the_transcript_of_a_typed_turn_is_not_shown_twice(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        text = (await line.message("text"))["data"]["text"]
        await line.send("transcription", text=text, isUser=True, isFinal=True, turn=1)
        await line.send("transcription", text="Hello.", isUser=False, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_label("Message").fill("Hello?")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words")).to_have_text("Hello.")
        await expect(page.locator(".user .words")).to_have_text(["Hello?"])
        await expect(page.get_by_label("Message")).to_have_value("")


async def test_only_questions_whose_tool_is_there_are_offered(chromium: Browser) -> None:
    own = [{"name": "book_table", "description": "Books a table.", "parameters": {}, "behaviour": {}}]
    async with ScriptedServer(stay, tools=own) as server, opened(chromium, server.url) as page:
        await expect(page.locator("#tools")).to_contain_text("Books a table.")
        await expect(page.locator(".chip")).to_have_count(0)


@pytest.mark.proves("T6")
async def test_whatever_the_server_sends_is_text_and_never_markup(chromium: Browser) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

    async def script(line: Line) -> None:
        await line.connected(assistant=evil, model=evil)
        await line.send("transcription", text=evil, isUser=True, isFinal=True, turn=1)
        await line.send("tool_call", id="e", name=evil, args={evil: evil}, label=evil)
        await line.send("tool_progress", id="e", text=evil)
        await line.send(
            "tool_result", id="e", name=evil, ok=True, durationMs=1, summary=evil, result={evil: evil}
        )
        await line.send("transcription", text=evil, isUser=False, isFinal=True, turn=1)
        await line.send("warning", code="slow_tool", message=evil)
        await line.send("error", code="internal", message=evil, retryable=False, requestId=evil)
        await line.stay()

    tools = [{"name": evil, "description": evil, "parameters": {}, "behaviour": {}}]
    async with ScriptedServer(script, tools=tools) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".notice")).to_have_count(2)
        await expect(page.locator(".model .words")).to_have_text(evil)
        await expect(page.locator("#tools p")).to_have_text(evil)
        assert await page.locator("img, #turns script, #notices script, #panel script").count() == 0
        assert await page.title() == "tornado-live (simulator)"


async def test_screen_readers_hear_finished_sentences_only(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("transcription", text="Good evening.", isUser=False, isFinal=True, turn=1)
        await line.send("transcription", text="And", isUser=True, isFinal=False, turn=2)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".user .words").last).to_have_text("And")
        await expect(page.locator("[aria-live=polite]")).to_have_text("Assistant: Good evening.")


# Sound


@pytest.mark.parametrize("form", ["binary", "json"])
async def test_the_models_speech_is_heard(chromium: Browser, form: str) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        for _ in range(20):
            pcm = tone(0.04)
            if form == "binary":
                await line.send_pcm(pcm)
            else:
                await line.send(
                    "audio", audio=base64.b64encode(pcm).decode(), mimeType="audio/pcm;rate=24000"
                )
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await playing(page)
        await until(page, "Number(document.getElementById('level-out').ariaValueNow) > 50")
        await silent(page)
        await until(page, "Number(document.getElementById('level-out').ariaValueNow) === 0")


async def test_an_answer_shorter_than_the_jitter_buffer_is_heard(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.message("text")
        await line.send_pcm(tone(0.06))
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_label("Message").fill("Short, please")
        await page.keyboard.press("Enter")
        await until(page, "soundProbe.steps.some(({ played }) => played > 0.01)")


@pytest.mark.alone
async def test_barge_in_is_silent_within_300_ms(chromium: Browser) -> None:
    lines: list[Line] = []
    speech = tone(20)

    async def script(line: Line) -> None:
        await line.connected()
        lines.append(line)
        await line.send_pcm(speech)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        took: list[float] = []
        # One of five tries counts, as the machine has other things to do.
        while not took or (took[-1] >= 0.3 and len(took) < 5):
            await playing(page)
            began = time.monotonic()
            await lines[0].send("interrupted", turn=1)
            await silent(page)
            took.append(time.monotonic() - began)
            # What comes after it belongs to the next turn and is heard.
            await lines[0].send_pcm(speech)
        await playing(page)
        assert took[-1] < 0.3, took


def period(samples: Sequence[int]) -> float:
    """How many samples a wave has, where there is sound."""
    rising = [
        n
        for n in range(40, len(samples) - 40)
        if samples[n - 1] < 0 <= samples[n] and max(samples[n - 40 : n + 40]) > 5000
    ]
    return statistics.median(after - before for before, after in itertools.pairwise(rising))


async def test_the_microphone_is_sent_as_pcm16_at_16_khz(chromium: Browser) -> None:
    frames: list[bytes] = []
    options: dict[str, Any] = {}

    async def script(line: Line) -> None:
        options.update(await line.connected())
        while len(frames) < 50:
            frames.append((await line.message("pcm"))["pcm"])
        await line.send("transcription", text="done", isUser=True, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await until(page, "Number(document.getElementById('level-in').ariaValueNow) > 30")
        await expect(page.locator(".user .words")).to_have_text("done")
    assert options == {"activity": "auto", "audio": "binary", "inputRate": 16_000}
    assert {len(frame) for frame in frames} == {1024}, "32 ms each"
    assert 39 <= period(memoryview(b"".join(frames)).cast("h").tolist()) <= 41, "the beeps have 400 Hz"


async def test_mute_tells_the_model_side_and_sends_nothing(chromium: Browser) -> None:
    seen: list[str] = []

    async def script(line: Line) -> None:
        await line.connected()
        await line.message("pcm")
        await line.send("transcription", text="heard", isUser=True, isFinal=True, turn=1)
        await line.message("audio_end")
        seen.append((await line.message("pcm", "text"))["type"])
        seen.append((await line.message("pcm"))["type"])
        await line.send("transcription", text="heard again", isUser=True, isFinal=True, turn=2)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".user .words")).to_have_text("heard")
        await page.get_by_role("button", name="Mute", exact=True).click()
        await expect(page.get_by_role("button", name="Unmute")).to_be_visible()
        await page.get_by_label("Message").fill("still here")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Unmute").click()
        await expect(page.locator(".user .words").last).to_have_text("heard again")
    assert seen == ["text", "pcm"]


# Push-to-talk


@pytest.mark.parametrize("way", ["space", "pointer"])
async def test_push_to_talk_sends_speech_between_start_and_end(chromium: Browser, way: str) -> None:
    seen: list[str] = []

    async def script(line: Line) -> None:
        options = await line.connected()
        assert options["activity"] == "manual"
        await line.send("warning", code="slow_tool", message="ready")
        while (
            kind := (await line.message("activity_start", "pcm", "activity_end", "text"))["type"]
        ) != "text":
            if seen[-1:] != [kind]:
                seen.append(kind)
        await line.send("transcription", text="received", isUser=False, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("switch", name="Push to talk").click()
        await connect(page)
        await says(page, "ready")
        talk = page.get_by_role("button", name="Hold to talk")
        await expect(talk).to_be_visible()
        if way == "space":
            await page.keyboard.down("Space")
            await expect(page.get_by_role("button", name="Release to send")).to_be_visible()
            await until(page, "Number(document.getElementById('level-in').ariaValueNow) > 0")
            await page.keyboard.up("Space")
        else:
            await talk.hover()
            await page.mouse.down()
            await expect(page.get_by_role("button", name="Release to send")).to_be_visible()
            await until(page, "Number(document.getElementById('level-in').ariaValueNow) > 0")
            await page.mouse.up()
        await expect(talk).to_be_visible()
        await page.get_by_label("Message").fill("a b")  # a space is a space in here
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words")).to_have_text("received")
        await expect(page.locator(".user .words")).to_have_text("a b")
    assert seen == ["activity_start", "pcm", "activity_end"]


async def test_push_to_talk_without_a_word_says_that_nothing_was_heard(chromium: Browser) -> None:
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        await page.get_by_role("switch", name="Push to talk").click()
        await connect(page)
        await expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()
        await page.clock.install()
        await page.keyboard.down("Space")
        await page.keyboard.up("Space")
        await page.clock.fast_forward(5000)
        await says(page, "Nothing was heard.")
        await server.lines[0].send("transcription", text="Late.", isUser=True, isFinal=True, turn=1)
        await expect(page.locator(".notice")).to_have_count(0)


async def test_leaving_the_window_ends_what_was_being_said(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.message("activity_start")
        await line.send("transcription", text="...", isUser=True, isFinal=False, turn=1)
        await line.message("activity_end")
        await line.send("transcription", text="ended", isUser=True, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("switch", name="Push to talk").click()
        await connect(page)
        await expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()
        await page.keyboard.down("Space")
        await expect(page.locator(".user .words")).to_have_text("...")
        await page.evaluate("window.dispatchEvent(new Event('blur'))")
        await expect(page.locator(".user .words")).to_have_text("ended")


async def test_switching_push_to_talk_opens_the_same_session_again(chromium: Browser) -> None:
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.get_by_role("button", name="Mute")).to_be_visible()
        await page.get_by_role("switch", name="Push to talk").click()
        await expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()
        assert [line.asked_for for line in server.lines] == [None, "session-1"]


async def test_push_to_talk_before_the_microphone_is_open_still_opens_it(chromium: Browser) -> None:
    allowed = (
        "navigator.mediaDevices.getUserMedia = () => allowed.then(() => open.call(navigator.mediaDevices, "
    )
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        await page.evaluate(
            f"""() => {{
              const open = navigator.mediaDevices.getUserMedia;
              const allowed = new Promise((resolve) => (window.allow = resolve));
              {allowed}{{ audio: true }}));
            }}"""
        )
        await connect(page)
        await page.get_by_role("switch", name="Push to talk").click()
        await expect(page.locator("#push-to-talk")).to_have_attribute("aria-checked", "true")
        await page.evaluate("window.allow()")
        await expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()


# What can go wrong


async def test_a_refused_microphone_is_explained_and_typing_works(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.message("text")
        await line.send("transcription", text="Hello.", isUser=False, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await connect(page)
        await says(page, "may not use the microphone. Allow it for this page")
        await page.get_by_label("Message").fill("Hi")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words")).to_have_text("Hello.")


async def test_a_machine_without_a_microphone_and_an_insecure_page_are_explained(
    playwright: Playwright,
) -> None:
    browser = await launch(playwright, "--host-resolver-rules=MAP page.test 127.0.0.1")
    try:
        async with ScriptedServer(stay) as server:
            async with opened(browser, server.url) as page:
                await connect(page)
                await says(page, "No microphone was found. Plug one in and try again, or type instead.")
                await expect(page.get_by_role("button", name="Microphone")).to_be_visible()
            url = f"http://page.test:{server.port}"
            async with opened(browser, url, microphone=False) as page:
                await connect(page)
                await says(page, "only to pages over https or from localhost")
    finally:
        await browser.close()


async def test_a_server_that_is_gone_is_explained(chromium: Browser) -> None:
    gone = ["WebSocket connection"]
    async with ScriptedServer(stay) as server, opened(chromium, server.url, expected=gone) as page:
        await expect(page.locator("#tools li").first).to_be_visible()
        await server.stop()
        await page.get_by_role("button", name="Connect", exact=True).click()
        await says(page, "The server cannot be reached. Check that it is running")
        await expect(page.get_by_role("button", name="Connect", exact=True)).to_be_visible()


async def test_a_cut_line_comes_back_to_the_same_session(chromium: Browser) -> None:
    shown = asyncio.Event()

    async def script(line: Line) -> None:
        first = line.asked_for is None
        if not first:
            await shown.wait()
        await line.connected()
        if first:
            await line.message("text")
            line.cut()
            return
        await line.send("transcription", text="Back again.", isUser=False, isFinal=True, turn=2)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await page.get_by_label("Message").fill("Hello")
        await page.keyboard.press("Enter")
        await expect(page.locator("#status")).to_contain_text("Reconnecting")
        await says(page, "The server cannot be reached; this page keeps trying.")
        shown.set()
        await expect(page.locator(".model .words").last).to_have_text("Back again.")
        await expect(page.locator("#status")).to_contain_text("Connected")
        assert [line.asked_for for line in server.lines] == [None, "session-1"]
        await expect(page.locator(".notice")).to_have_count(0)


async def test_a_lost_model_side_is_opened_again_on_the_same_socket(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        message = "The model side was lost. Connect again."
        await line.send("error", code="unavailable", message=message, retryable=True, requestId="r")
        await line.send("status", status="DISCONNECTED")
        await line.connected(resumed=True, memory="restored")
        await line.send("transcription", text="Back again.", isUser=False, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator(".model .words")).to_have_text("Back again.")
        await expect(page.locator("#facts")).to_contain_text("All of it is remembered")
        assert len(server.lines) == 1


async def test_while_the_server_mends_its_other_side_the_conversation_goes_on(chromium: Browser) -> None:
    """The model side was lost or is rotated: `status RECONNECTING`, and CONNECTED once it is there again."""
    frames = 0
    heard = asyncio.Event()

    async def script(line: Line) -> None:
        nonlocal frames
        await line.connected()
        await line.message("pcm")
        await line.send("transcription", text="Look it up.", isUser=True, isFinal=True, turn=1)
        await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
        await line.send_pcm(tone(20))
        await line.send("status", status="RECONNECTING")
        while (await line.message("pcm", "text"))["type"] == "pcm":
            frames += 1
        await line.message("pcm")
        await heard.wait()
        facts = {"model": "gemini-3.8-live", "assistant": "default", "upstream": "simulator"}
        more = {"resumed": False, "memory": "restored", "gapMs": 640}
        await line.send("status", status="CONNECTED", **facts, **more)
        await line.send(
            "tool_result", id="w", name="get_weather", ok=True, durationMs=900, summary="21 degrees"
        )
        await line.send("transcription", text="It is 21 degrees.", isUser=False, isFinal=True, turn=1)
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await expect(page.locator("#status-words")).to_have_text("Reconnecting")
        await expect(page.locator("#status-detail")).to_have_text("default · Simulator")
        await expect(page.get_by_role("button", name="Mute")).to_be_visible()
        await expect(page.locator(".call[data-state=running]")).to_be_visible()
        await expect(page.locator(".notice")).to_have_count(0)
        await playing(page)
        await type_in(page, "And tomorrow?")
        await expect(page.locator(".user .words").last).to_have_text("And tomorrow?")
        await until(page, "soundProbe.played() > 0.01")
        heard.set()
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator(".call .state")).to_have_text("done")
        await expect(page.locator(".model .words").first).to_have_text("It is 21 degrees.")
        await expect(page.locator("#facts")).to_contain_text("All of it is remembered")
        await expect(page.locator(".turn")).to_have_count(2)
        assert len(server.lines) == 1
    assert frames > 0, "the microphone is not held back: the server holds what is said"


async def test_a_model_side_that_cannot_be_mended_is_a_lost_line(chromium: Browser) -> None:
    shown = asyncio.Event()

    async def script(line: Line) -> None:
        if line.asked_for is not None:
            await shown.wait()
        await line.connected()
        if line.asked_for is not None:
            await line.stay()
            return
        await line.message("text")
        await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
        await line.send("status", status="RECONNECTING")
        words = "The model side cannot be reached. Try again in a minute."
        await line.send("error", code="unavailable", message=words, retryable=True, requestId="r")
        line.close(4503)

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "What's the weather in New York?")
        await says(page, "this page keeps trying")
        await expect(page.locator(".call .state")).to_have_text("not known")
        shown.set()
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator(".notice")).to_have_count(0)
        assert [line.asked_for for line in server.lines] == [None, "session-1"]


NOT_REACHED = "The model's server cannot be reached; check GEMINI_BASE_URL and the network."


async def test_while_the_model_side_is_down_one_notice_says_so(chromium: Browser) -> None:
    """The server answers each time: that it cannot be reached would be untrue, and its words are said once."""
    shown = asyncio.Event()

    async def script(line: Line) -> None:
        if line.asked_for is None:
            await line.connected()
            await line.message("text")
        elif shown.is_set():
            await stay(line)
            return
        else:
            await line.message("connect")
        request = f"r{len(server.lines)}"
        await line.send("error", code="unavailable", message=NOT_REACHED, retryable=True, requestId=request)
        line.close(4503)

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "Hello")
        await says(page, "The assistant cannot be reached just now; this page keeps trying.")
        while len(server.lines) < 3:
            await page.evaluate("new Promise(requestAnimationFrame)")
        await expect(page.locator(".notice")).to_have_count(1)
        words = page.locator(".notice details")
        await expect(words.get_by_text("GEMINI_BASE_URL")).to_be_hidden()
        await words.locator("summary").click()
        await expect(words).to_contain_text(f"{NOT_REACHED} (unavailable, request r1)")
        shown.set()
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator(".notice")).to_have_count(0)


async def test_a_model_side_that_is_not_there_at_the_first_connect_is_told_in_plain_words(
    chromium: Browser,
) -> None:
    async def script(line: Line) -> None:
        await line.message("connect")
        await line.send("error", code="unavailable", message=NOT_REACHED, retryable=True, requestId="r1")
        line.close(4503)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await says(page, "The assistant cannot be reached just now. Press Connect to try again.")
        await expect(page.locator(".notice details")).to_contain_text(NOT_REACHED)
        await expect(page.locator(".notice")).to_have_count(1)


async def test_a_question_that_a_lost_model_side_left_open_stands_once_and_can_be_asked_again(
    chromium: Browser,
) -> None:
    """The server remembers the question, but the new session was not asked it."""
    remembered = [
        {"role": "user", "text": "Hello", "turn": 1},
        {"role": "model", "text": "Good day.", "turn": 1},
        {"role": "user", "text": "The report, please\nand quickly", "turn": 2},
    ]

    async def script(line: Line) -> None:
        await line.connected(memory="none" if line.asked_for is None else "restored")
        if line.asked_for is None:
            await line.message("text")
            await line.send("transcription", text="Good day.", isUser=False, isFinal=True, turn=1)
            await line.send("turn_complete", turn=1)
            await line.message("text")
            await line.send("tool_call", id="w", name="get_analytics", args={"period": "last_week"})
            await line.message("text")
            await line.send("tool_cancelled", ids=["w"])
            await line.send("error", code="unavailable", message=NOT_REACHED, retryable=True, requestId="r1")
            line.close(4503)
            return
        assert (await line.message("text"))["data"] == {"text": "The report, please"}
        await line.send("transcription", text="Orders rose.", isUser=False, isFinal=True, turn=3)
        await line.send("turn_complete", turn=3)
        await line.stay()

    async with (
        ScriptedServer(script, memory={"session-1": remembered}) as server,
        opened(chromium, server.url, microphone=False) as page,
    ):
        await type_in(page, "Hello")
        await expect(page.locator(".model .words")).to_have_text("Good day.")
        await type_in(page, "The report, please")
        await expect(page.locator(".call")).to_be_visible()
        async with page.expect_response(re.compile("/api/sessions/")):  # memory, once it is back
            await type_in(page, "and quickly")
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await expect(page.locator(".user .words")).to_have_text(
            ["Hello", "The report, please", "and quickly"]
        )
        await expect(page.locator(".turn[data-turn='2'] .unanswered")).to_contain_text("Not answered")
        await expect(page.locator(".unanswered:visible")).to_have_count(2)
        again = page.get_by_role("button", name="Ask again: The report, please")
        await again.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words").last).to_have_text("Orders rose.")
        await expect(page.locator(".user .words")).to_have_text(
            ["Hello", "The report, please", "and quickly", "The report, please"]
        )
        await expect(again).to_be_hidden()
        await expect(page.get_by_label("Message")).to_be_focused()


async def test_a_model_that_does_not_answer_leaves_the_question_to_be_asked_again(chromium: Browser) -> None:
    """The line stays; what follows belongs to the next question."""

    async def script(line: Line) -> None:
        await line.connected()
        await line.message("text")
        words = "The model did not answer any more; connect again."
        await line.send("error", code="unavailable", message=words, retryable=True, requestId="r1")
        await line.message("text")
        await line.send("tool_call", id="w", name="get_weather", args={"location": "New York"})
        await line.send("transcription", text="It is 21 degrees.", isUser=False, isFinal=True, turn=2)
        await line.send("turn_complete", turn=2)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "What's the weather?")
        await says(page, "The model did not answer any more; connect again. (unavailable, request r1)")
        await expect(page.locator("#status-words")).to_have_text("Connected")
        await page.get_by_role("button", name="Ask again: What's the weather?").click()
        await expect(page.locator(".turn").last.locator(".call")).to_be_visible()
        await expect(page.locator(".turn").last.locator(".model .words")).to_have_text("It is 21 degrees.")
        await expect(page.locator(".turn")).to_have_count(2)


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_question_of_a_conversation_that_went_on_is_not_called_unanswered(
    chromium: Browser, resumed: bool
) -> None:
    """Where the model side was begun anew meanwhile, `gapMs` tells it from another conversation."""

    async def script(line: Line) -> None:
        first = line.asked_for is None
        more = {} if first or resumed else {"gapMs": 900}
        await line.connected(resumed=resumed and not first, **more)
        if first:
            await line.message("text")
            line.cut()
            return
        await line.send("transcription", text="It is 21 degrees.", isUser=False, isFinal=True, turn=1)
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url, microphone=False) as page:
        await type_in(page, "What's the weather?")
        await expect(page.locator(".model .words")).to_have_text("It is 21 degrees.")
        await expect(page.locator(".turn")).to_have_count(1)
        await expect(page.locator(".unanswered:visible")).to_have_count(0)


async def test_an_answer_that_is_begun_anew_is_interrupted_once(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        for turn in (1, 2):
            await line.send("transcription", text="One two three.", isUser=False, isFinal=True, turn=turn)
            await line.send("interrupted", turn=turn)
            await line.send("turn_complete", turn=turn)
        await line.send("transcription", text="Stop.", isUser=True, isFinal=True, turn=3)
        await line.send("transcription", text="All right.", isUser=False, isFinal=True, turn=3)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".model .words").last).to_have_text("All right.")
        shown = page.locator(".note:visible", has_text="Interrupted")
        await expect(shown).to_have_count(1)
        await expect(page.locator(".turn[data-turn='2']").filter(has=shown)).to_have_count(1)


@pytest.mark.parametrize(
    ("code", "close", "told", "words"),
    [
        ("replaced", 4409, False, "opened in another tab or window"),
        ("session_ended", 4410, False, "has ended. Start a new one"),
        ("timeout", 4408, False, "after a long silence. Connect again"),
        ("forbidden", 4403, False, "does not allow this"),
        ("upstream_rejected", 4502, True, "The key was refused: put a valid GEMINI_API_KEY into .env"),
    ],
)
async def test_a_final_close_says_why_and_does_not_try_again(
    chromium: Browser, code: str, close: int, told: bool, words: str
) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.message("text")
        if told:
            await line.send("error", code=code, message=words, retryable=False, requestId="r-1")
        line.close(close)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await page.get_by_label("Message").fill("Hello")
        await page.keyboard.press("Enter")
        await says(page, words)
        await expect(page.get_by_role("button", name="Connect", exact=True)).to_be_visible()
        await expect(page.locator("#status")).to_contain_text("Not connected")
        assert await page.locator(".notice").count() == 1
        assert len(server.lines) == 1


async def test_a_refused_first_connect_is_explained(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.message("connect")
        message = "Google refused the key. Put a valid GEMINI_API_KEY into .env and start again."
        await line.send("error", code="upstream_rejected", message=message, retryable=False, requestId="r-1")
        line.close(4502)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        await says(page, "Google refused the key.")
        await expect(page.get_by_role("button", name="Connect", exact=True)).to_be_visible()


async def test_a_warning_is_shown_and_can_be_dismissed(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("warning", code="audio_dropped", message="Some speech was lost.", count=3)
        await line.send("warning", code="audio_dropped", message="Some speech was lost, at last.", count=9)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await says(page, "Some speech was lost, at last.")
        await expect(page.locator(".notice")).to_have_count(1)
        await expect(page.locator(".notice")).not_to_contain_text("times")
        await page.get_by_role("button", name="Dismiss").click()
        await expect(page.locator(".notice")).to_have_count(0)


# The session


async def test_a_reload_shows_the_earlier_words_and_goes_on_with_the_session(chromium: Browser) -> None:
    memory = {
        "session-1": [
            {"role": "user", "text": "What's the weather?", "turn": 1, "at": "2026-11-22T10:00:00.000Z"},
            {
                "role": "tool",
                "text": 'get_weather({"location": "Paris (TX): west"}): 21 degrees (a): b',
                "turn": 1,
                "at": "2026-11-22T10:00:00.500Z",
            },
            {"role": "model", "text": "Sunny.", "turn": 1, "at": "2026-11-22T10:00:01.000Z"},
        ]
    }
    async with ScriptedServer(stay, memory=memory) as server, opened(chromium, server.url) as page:
        await connect(page)
        await page.reload()
        await says(page, "Your conversation is kept. Press Connect to go on with it.")
        await expect(page.locator(".user .words")).to_have_text("What's the weather?")
        await expect(page.locator(".model .words")).to_have_text("Sunny.")
        await expect(page.locator(".call .name")).to_have_text("get_weather")
        await expect(page.locator(".call .brief")).to_have_text("location: Paris (TX): west")
        await page.locator(".call summary").click()
        await expect(page.locator(".call .arguments")).to_have_text('{\n  "location": "Paris (TX): west"\n}')
        await expect(page.locator(".call .outcome")).to_have_text("21 degrees (a): b")
        await connect(page)
        assert [line.asked_for for line in server.lines] == [None, "session-1"]


async def test_a_new_conversation_is_another_session(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await weather(line)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator(".turn")).to_have_count(1)
        await page.get_by_role("button", name="Disconnect").click()
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.locator(".turn")).to_have_count(0)
        await expect(page.get_by_text("Ask, and hear the answer.")).to_be_visible()
        await connect(page)
        assert [line.asked_for for line in server.lines] == [None, None]


async def test_an_expired_session_is_replaced_by_a_new_one(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        if line.asked_for == "session-1":
            words = "This conversation has expired."
            await line.send("error", code="session_not_found", message=words, retryable=False, requestId="r")
            line.close(4404)
            return
        await stay(line)

    async with ScriptedServer(script) as server, opened(chromium, server.url, expected=["404"]) as page:
        await connect(page)
        await page.reload()
        await page.get_by_role("button", name="Connect", exact=True).click()
        await says(page, "The earlier conversation is over; this is a new one.")
        await expect(page.locator("#status")).to_contain_text("Connected")
        assert [line.asked_for for line in server.lines] == [None, "session-1", None]
        await expect(page.locator(".notice")).to_have_count(1)


async def test_the_simulator_is_announced_before_and_after_connecting(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        message = server.health["upstreamNotice"] = "No voice here: pip install 'tornado-live[voice]'"
        await line.send("warning", code="voice_unavailable", message=message)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        banner = page.get_by_role("region", name="Simulator")
        await expect(banner).to_contain_text("You are not talking to Gemini.")
        await expect(banner).to_contain_text("GEMINI_API_KEY")
        await connect(page)
        await expect(page.locator("#status")).to_contain_text("default · Simulator")
        await expect(banner).to_contain_text("pip install 'tornado-live[voice]'")


async def test_without_a_voice_one_types_until_the_voice_is_there(chromium: Browser) -> None:
    async with ScriptedServer(stay) as server:
        server.health["upstreamNotice"] = "The voice is still loading."
        async with opened(chromium, server.url) as page:
            banner = page.get_by_role("region", name="Simulator")
            await expect(banner).to_contain_text("The voice is still loading.")
            await expect(page.locator("#welcome")).to_contain_text("Type a question")
            await expect(page.locator("#welcome p.speak.before")).to_be_hidden()
            await connect(page)
            await expect(page.get_by_label("Message")).to_be_focused()
            await expect(page.get_by_role("button", name="Microphone")).to_be_visible()
            del server.health["upstreamNotice"]
            await expect(banner).not_to_contain_text("loading")
            await expect(page.locator("#welcome p.type")).to_be_hidden()
            await expect(page.locator("#welcome p.speak.after")).to_be_visible()
            # Connect had asked for speech.
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()


async def test_without_a_voice_the_microphone_opens_only_when_asked_for(chromium: Browser) -> None:
    async with ScriptedServer(stay) as server:
        server.health["upstreamNotice"] = "No voice."
        async with opened(chromium, server.url) as page:
            await expect(page.locator("#welcome p.type")).to_be_visible()
            await connect(page)
            await page.get_by_role("button", name="Microphone").click()
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()


async def test_with_gemini_nothing_is_said_of_a_simulator(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected(upstream="gemini")
        await line.stay()

    async with ScriptedServer(script, upstream="gemini") as server, opened(chromium, server.url) as page:
        await connect(page)
        await expect(page.locator("#status")).to_contain_text("default · Gemini")
        await expect(page.locator("#simulator")).to_be_hidden()
        assert await page.title() == "tornado-live"


# For everybody


async def inside_the_margins(page: Page, width: int) -> None:
    """Nothing of the header and the controls leaves the screen's margin, is cut off, or lies on its neighbour."""
    boxes = await page.evaluate(
        """() => [...document.querySelectorAll(
             ".top .status > :not(:empty), .top button, .controls > *, .meter, .composer"
           )].map((part) => {
             const { left, right, top, bottom } = part.getBoundingClientRect();
             return { name: part.id || part.className, left, right, top, bottom,
                      cut: part.scrollWidth > part.clientWidth && part.clientWidth > 0 };
           })"""
    )
    for box in boxes:
        assert box["left"] >= 12, box
        assert box["right"] <= width - 12, box
        # A long name may end in an ellipsis; the panel has it whole.
        assert box["name"] == "status-detail" or not box["cut"], box
    for one, other in itertools.combinations([box for box in boxes if box["name"] != "meters"], 2):
        apart = (
            one["right"] <= other["left"]
            or other["right"] <= one["left"]
            or one["bottom"] <= other["top"]
            or other["bottom"] <= one["top"]
        )
        assert apart, (one, other)


@pytest.mark.parametrize("width", [390, 360, 320])
async def test_a_phone_shows_everything_without_scrolling_sideways(chromium: Browser, width: int) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await weather(line)
        query = "SELECT " + ", ".join(f"column_{n}" for n in range(60))
        await line.send("tool_call", id="l", name="execute_sql_query", args={"query": query})
        await line.send("transcription", text="x" * 300, isUser=False, isFinal=True, turn=2)
        await line.message("text")
        await line.send("status", status="RECONNECTING")
        await line.stay()

    phone = {"width": width, "height": 640}
    async with ScriptedServer(script) as server, opened(chromium, server.url, viewport=phone) as page:
        await expect(page.locator("#tools li").first).to_be_attached()
        await expect(page.get_by_text("Ask, and hear the answer.")).to_be_in_viewport()
        await connect(page)
        await expect(page.locator(".model .words").last).to_have_text("x" * 300)
        for scroller in ("document.documentElement", "document.getElementById('conversation')"):
            assert await page.evaluate(f"{scroller}.scrollWidth - {scroller}.clientWidth") == 0
        for name in ("Disconnect", "Tools", "Mute", "Send"):
            await expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
        await expect(page.locator("#status-detail")).to_have_text("default · Simulator")
        await inside_the_margins(page, width)
        await type_in(page, "Hello")
        await expect(page.locator("#status-words")).to_have_text("Reconnecting")
        await inside_the_margins(page, width)
        await page.get_by_role("button", name="Disconnect").click()
        await expect(page.locator("#status-words")).to_have_text("Not connected")
        await inside_the_margins(page, width)
        await expect(page.get_by_role("button", name="New conversation")).to_be_hidden()
        await page.get_by_role("button", name="Tools").click()
        await expect(page.get_by_role("button", name="Close")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Tools")).to_be_focused()


async def test_the_page_works_from_the_keyboard_with_visible_focus(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.message("text")
        await line.send("transcription", text="Hello.", isUser=False, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await expect(page.locator(".chip").first).to_be_attached()
        reached: list[str] = []
        for _ in range(30):
            await page.keyboard.press("Tab")
            # The way back to the browser's own bars goes over the body.
            if await page.evaluate("document.activeElement === document.body"):
                break
            focus = await page.evaluate(
                """() => {
                  const { activeElement: at } = document;
                  const shown = getComputedStyle(at.matches("input") ? at.parentElement : at);
                  return {
                    name: at.id || at.textContent.trim() || at.ariaLabel,
                    visible: shown.outlineStyle !== "none" || shown.boxShadow !== "none",
                  };
                }"""
            )
            assert focus["visible"], focus
            reached.append(focus["name"])
        for control in ("connect", "microphone", "push-to-talk", "message", "new-conversation"):
            assert control in reached
        await page.locator("#connect").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Mute")).to_be_focused()
        await page.get_by_label("Message").focus()
        await page.keyboard.type("Hi there")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model .words")).to_have_text("Hello.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_enough_contrast(chromium: Browser, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text, for each pair of colours that the style sheet puts on one another."""
    pairs = [
        ("ink", "paper"), ("ink", "raised"), ("quiet", "paper"), ("quiet", "raised"), ("quiet", "tint"),
        ("ink", "tint"), ("accent-ink", "accent"), ("accent", "raised"), ("warn-ink", "warn"), ("bad", "raised"),
        ("good", "raised"), ("ink", "bad-tint"),
    ]  # fmt: skip
    options: dict[str, Any] = {"color_scheme": scheme}
    async with ScriptedServer(stay) as server, opened(chromium, server.url, **options) as page:
        colours = await page.evaluate(
            """() => {
              const style = getComputedStyle(document.documentElement);
              return Object.fromEntries(
                ["ink", "paper", "raised", "quiet", "tint", "accent", "accent-ink", "warn", "warn-ink", "bad",
                 "bad-tint", "good"].map((name) => [name, style.getPropertyValue("--" + name).trim()]),
              );
            }"""
        )

    def luminance(colour: str) -> float:
        parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for front, back in pairs:
        low, high = sorted((luminance(colours[front]), luminance(colours[back])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)


async def test_nothing_moves_for_people_who_asked_for_that(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="t", name="get_analytics", args={})
        await line.stay()

    options: dict[str, Any] = {"reduced_motion": "reduce"}
    async with ScriptedServer(script) as server, opened(chromium, server.url, **options) as page:
        await connect(page)
        await expect(page.locator(".call[data-state=running]")).to_be_visible()
        assert await page.evaluate("document.getAnimations().length") == 0
