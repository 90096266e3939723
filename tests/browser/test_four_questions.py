"""Spoken to the page in Chromium: the questions of the original document, through the whole product.

A fake microphone plays recorded speech; the server and its simulator run as a person runs them. Set nothing up,
no key: what the tools cannot reach is sample data, and marked so.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from chromium import FAKE_MICROPHONE, launch, opened, playing, until
from playwright.async_api import Page, Playwright, expect
from serving import ROOT, Server, clean_environment
from speech import spoken
from tornado.ioloop import IOLoop

pytestmark = [pytest.mark.browser, pytest.mark.voice]

ANSWER_S = 60
RATE = 24_000

QUESTIONS = [
    ("What's the weather in New York?", "get_weather", {"location": "New York"}),
    (
        "Execute a SQL query to get user data.",
        "execute_sql_query",
        {"query": r"(?i)select\b.*\bfrom users\b"},
    ),
    ("Get analytics for the last week.", "get_analytics", {"period": "last[ _]week"}),
    ("Search the knowledge base for information about AI.", "search_knowledge_base", {"query": r"\bAI\b"}),
]
OBJECTION = "Stop, please. What's the weather in New York?"


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return spoken([*(question for question, _, _ in QUESTIONS), OBJECTION], tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def server(io_loop: IOLoop) -> Iterator[Server]:
    running = Server(voice="on")
    io_loop.run_sync(running.__aenter__)
    try:
        io_loop.run_sync(lambda: running.printed(r'"voice": "ready"', within=60))
        yield running
    finally:
        io_loop.run_sync(lambda: running.__aexit__(None, None, None))


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


def recording(path: Path, *parts: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"".join(parts))
    return path


@asynccontextmanager
async def talking(playwright: Playwright, server: Server, speech: Path) -> AsyncIterator[Page]:
    """A connected page whose microphone hears the recording once."""
    browser = await launch(playwright, FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={speech}%noloop")
    try:
        async with opened(browser, server.url) as page:
            await page.get_by_role("button", name="Connect", exact=True).click()
            await expect(page.get_by_role("button", name="Mute")).to_be_visible()
            yield page
    finally:
        await browser.close()


async def tool_says(server: Server, name: str, arguments: str) -> str:
    """What the tool itself answers, asked without the model: `tornado-live tools call`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tornado_live", "tools", "call", name, arguments, "--home", str(server.home)),
        env={"PYTHONPATH": str(ROOT)} | clean_environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


def plain(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}|\d+", text.lower()))


@pytest.mark.parametrize(
    ("question", "tool", "arguments"),
    QUESTIONS,
    ids=[tool for _, tool, _ in QUESTIONS],
)
async def test_a_spoken_question_is_answered_by_its_tool(
    playwright: Playwright,
    voice: dict[str, bytes],
    server: Server,
    tmp_path: Path,
    question: str,
    tool: str,
    arguments: dict[str, str],
) -> None:
    speech = recording(tmp_path / "speech.wav", silence(0.8), voice[question], silence(2))
    async with talking(playwright, server, speech) as page:
        card = page.locator(f".call[data-tool={tool}]")
        await expect(card).to_have_attribute("data-state", "ok", timeout=ANSWER_S * 1000)
        heard = await page.locator(".user .words").inner_text()
        # A busy machine's fake microphone stutters, which costs a letter here and there.
        assert SequenceMatcher(None, heard.lower(), question.lower()).ratio() > 0.8, heard

        called = await card.locator(".arguments").text_content() or ""
        given = json.loads(called)
        for name, pattern in arguments.items():
            assert re.search(pattern, given[name]), given

        await playing(page)
        result = plain(await tool_says(server, tool, called)) - plain(question)
        answer = ""
        while len(plain(answer) & result) < 2:
            await until(
                page,
                f"document.querySelector('.model .words').textContent.length > {len(answer)}",
                within=ANSWER_S,
            )
            answer = await page.locator(".model .words").inner_text()
        assert await page.locator(".call").count() == 1


async def silenced_after(playwright: Playwright, server: Server, speech: Path) -> float:
    """Milliseconds from the objection to the last sound of the answer that it interrupts."""
    async with talking(playwright, server, speech) as page:
        await expect(page.locator(".note:visible")).to_have_text("Interrupted", timeout=ANSWER_S * 1000)
        await expect(page.locator(".call[data-tool=get_weather]")).to_be_visible(timeout=ANSWER_S * 1000)
        steps = await page.evaluate("soundProbe.steps")

    first_sound = next(n for n, step in enumerate(steps) if step["played"] > 0.01)
    spoke_again = next(step["at"] for step in steps[first_sound:] if step["heard"] > 0.02)
    last_sound: float = max(
        step["at"]
        for step in steps[first_sound:]
        if step["played"] > 0.001 and step["at"] < spoke_again + 1000
    )
    assert last_sound > spoke_again, "the answer was still being spoken"
    return last_sound - spoke_again


@pytest.mark.alone
@pytest.mark.timeout(seconds=300)
async def test_speaking_into_a_long_answer_silences_it_within_300_ms(
    playwright: Playwright, voice: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    """One of three tries counts, as the machine has other things to do."""
    question = voice[QUESTIONS[3][0]]
    # The answer is under way two seconds after the question; it takes twenty to say.
    speech = recording(
        tmp_path / "speech.wav", silence(0.8), question, silence(7), voice[OBJECTION], silence(2)
    )
    took: list[float] = []
    while not took or (took[-1] >= 300 and len(took) < 3):
        took.append(await silenced_after(playwright, server, speech))
    assert took[-1] < 300, took
