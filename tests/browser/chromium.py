"""Pages in a real Chromium, and what it says about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Playwright, expect

EXECUTABLE = Path("/usr/bin/chromium")
FAKE_MICROPHONE = "--use-fake-device-for-media-stream"
DEADLINE_S = 30

expect.set_options(timeout=DEADLINE_S * 1000)

# Listens at the very ends of the browser's own audio graph, so that a test measures sound and not our events.
# 10 ms steps of {at, heard (microphone), played (loudspeaker)}, as RMS from 0 to 1.
PROBE = """
(() => {
  const taps = { heard: null, played: null };
  const steps = [];
  const tap = (node) => {
    const analyser = new AnalyserNode(node.context, { fftSize: 512 });
    connect.call(node, analyser);
    return analyser;
  };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode) taps.played = tap(this);
    return connect.call(this, target, ...rest);
  };
  const createSource = AudioContext.prototype.createMediaStreamSource;
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    const source = createSource.call(this, stream);
    taps.heard = tap(source);
    return source;
  };
  const samples = new Float32Array(512);
  const rms = (analyser) => {
    if (!analyser || analyser.context.state === "closed") return 0;
    analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
  };
  setInterval(() => {
    steps.push({ at: performance.now(), heard: rms(taps.heard), played: rms(taps.played) });
    if (steps.length > 12000) steps.shift();
  }, 10);
  window.soundProbe = {
    steps,
    played: () => rms(taps.played),
    heard: () => rms(taps.heard),
  };
})();
"""


async def launch(playwright: Playwright, *arguments: str) -> Browser:
    return await playwright.chromium.launch(executable_path=EXECUTABLE, args=list(arguments))


@asynccontextmanager
async def opened(
    browser: Browser,
    url: str,
    *,
    microphone: bool = True,
    expected: Sequence[str] = (),
    **context_options: Any,
) -> AsyncIterator[Page]:
    """A page in a fresh context. An error in its console that matches none of `expected` fails the test.

    That includes every violation of the Content-Security-Policy.
    """
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(re.search(each, message.text) for each in expected):
            problems.append(message.text)

    context = await browser.new_context(
        permissions=["microphone"] if microphone else [],
        **{"viewport": {"width": 1280, "height": 800}} | context_options,
    )
    try:
        context.set_default_timeout(DEADLINE_S * 1000)
        page = await context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.add_init_script(PROBE)
        await page.goto(url)
        yield page
    finally:
        await context.close()
    assert not problems, problems


async def until(page: Page, condition: str, *, within: float = DEADLINE_S) -> None:
    """Waits until a JavaScript expression is true, looking every 10 ms.

    Playwright's own wait_for_function evaluates in the page, which the Content-Security-Policy forbids.
    """
    waited = await page.evaluate(
        f"""new Promise((resolve) => {{
          const end = performance.now() + {within * 1000};
          const look = () => {{
            if ({condition}) resolve(true);
            else if (performance.now() > end) resolve(false);
            else setTimeout(look, 10);
          }};
          look();
        }})"""
    )
    assert waited, f"not within {within} s: {condition}"


async def playing(page: Page) -> None:
    """Waits for sound."""
    await until(page, "soundProbe.played() > 0.01")


async def silent(page: Page) -> None:
    """Waits until nothing is heard."""
    await until(page, "soundProbe.played() < 0.0005")
