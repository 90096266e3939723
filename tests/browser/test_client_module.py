"""static/tornado-live.js as somebody else's front end uses it, and the resampler under it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from chromium import opened, until
from playwright.async_api import Browser, Page, Route
from scripted import DEADLINE_S, Line, ScriptedServer

pytestmark = pytest.mark.browser


async def stay(line: Line) -> None:
    await line.connected()
    await line.stay()


async def run(page: Page, body: str) -> Any:
    """Runs an async function body with the module's exports and `seen`, which collects statuses and errors."""
    return await page.evaluate(
        f"""async () => {{
          const {{ TornadoLive, LiveError }} = await import("/tornado-live.js");
          const {{ Resampler }} = await import("/tornado-live/resampler.js");
          const seen = [];
          const made = (settings) => {{
            const live = new TornadoLive(settings);
            live.addEventListener("status", ({{ detail }}) => seen.push(detail.status));
            live.addEventListener("error", ({{ detail }}) => seen.push(detail.code));
            return live;
          }};
          const next = (live, name) => new Promise((resolve) =>
            live.addEventListener(name, ({{ detail }}) => resolve(detail), {{ once: true }}));
          {body}
        }}"""
    )


async def test_connect_resolves_with_what_the_server_said(chromium: Browser) -> None:
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        assert await run(
            page,
            """
            const live = made();
            const status = await live.connect({ language: "en-US" });
            const open = { status: live.status, id: live.sessionId, upstream: status.upstream };
            live.disconnect();
            return { ...open, seen };
            """,
        ) == {
            "status": "CONNECTED",
            "id": "session-1",
            "upstream": "simulator",
            "seen": ["CONNECTING", "CONNECTED", "DISCONNECTED"],
        }


async def test_options_go_to_the_server_and_an_address_may_be_given(chromium: Browser) -> None:
    options: dict[str, Any] = {}

    async def script(line: Line) -> None:
        options.update(await line.connected())
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await run(
            page,
            f"""
            const live = made({{ url: "http://localhost:{server.port}", sessionId: "mine" }});
            await live.connect({{ assistant: "support", modality: "TEXT" }});
            live.disconnect();
            """,
        )
        assert options == {"assistant": "support", "modality": "TEXT", "audio": "binary", "inputRate": 16_000}
        assert server.lines[0].asked_for == "mine"


async def test_a_server_may_be_below_a_path_of_its_host(chromium: Browser) -> None:
    """An address of a server or page leads to its `ws`; one that begins with ws is a socket's own."""
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        own = f"ws://localhost:{server.port}"
        led = {
            "https://host": "wss://host/ws",
            "https://host/": "wss://host/ws",
            "http://host:3001/voice": "ws://host:3001/voice/ws",
            "https://host/a/voice/": "wss://host/a/voice/ws",
            "https://host/voice/ws": "wss://host/voice/ws",
            "/voice": f"{own}/voice/ws",
            "/ws": f"{own}/ws",
            "ws://host:3002": "ws://host:3002/",
            "wss://host/any/socket": "wss://host/any/socket",
        }
        addresses = await run(
            page,
            f"""
            const addresses = [];
            window.WebSocket = class {{
              static OPEN = 1;
              constructor(address) {{ addresses.push(String(address)); }}
              close() {{}}
            }};
            for (const url of [undefined, ...{list(led)}]) {{
              const live = made({{ url }});
              live.connect().catch(() => {{}});
              live.disconnect();
            }}
            return addresses;
            """,
        )
    assert addresses == [f"{own}/ws", *led.values()]


async def test_a_silent_line_that_is_kept_open_brings_the_model_no_nearer(chromium: Browser) -> None:
    silent = asyncio.Event()

    async def script(line: Line) -> None:
        await line.message("connect")
        await line.send("status", status="CONNECTING")
        await silent.wait()
        await line.send("pong")  # as the server does it where nothing else was sent for long
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.clock.install()
        await run(
            page,
            """
            window.heard = 0;
            window.WebSocket = class extends WebSocket {
              constructor(address) {
                super(address);
                this.addEventListener("message", () => (heard += 1));
              }
            };
            made().connect().catch((error) => (window.failed = error.code));
            """,
        )
        await until(page, "heard === 1")
        await page.clock.fast_forward(55_000)
        silent.set()
        await until(page, "heard === 2")
        await page.clock.fast_forward(10_000)
        await until(page, "window.failed === 'upstream_timeout'")


async def test_a_refused_first_connect_rejects_and_is_not_repeated(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.message("connect")
        words = "Full. Try again in a minute."
        await line.send(
            "error", code="limited", message=words, retryable=True, retryAfterMs=60_000, requestId="r"
        )
        line.close(4429)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        assert await run(
            page,
            """
            const live = made();
            const error = await live.connect().catch((error) => error);
            return [error instanceof LiveError, error.code, error.retryable, error.retryAfterMs, seen];
            """,
        ) == [True, "limited", True, 60_000, ["CONNECTING", "limited", "DISCONNECTED"]]
        assert len(server.lines) == 1


async def test_what_is_typed_during_a_cut_arrives_after_it(chromium: Browser) -> None:
    texts: list[str] = []

    async def script(line: Line) -> None:
        await line.connected()
        if line.asked_for is None:
            line.cut()
            return
        texts.append((await line.message("text"))["data"]["text"])
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        seen = await run(
            page,
            """
            const live = made();
            await live.connect();
            while (live.status !== "RECONNECTING") await next(live, "status");
            live.sendText("said in between");
            await next(live, "turn_complete");
            live.disconnect();
            return seen;
            """,
        )
    assert texts == ["said in between"]
    assert seen == ["CONNECTING", "CONNECTED", "RECONNECTING", "CONNECTED", "DISCONNECTED"]


async def test_what_is_said_while_the_server_reconnects_is_sent_at_once(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send("status", status="RECONNECTING")
        text = await line.message("text")
        await line.message("pcm")
        facts = {"resumed": True, "memory": "restored", "gapMs": 640}
        await line.send("status", status="CONNECTED", **facts)
        await line.send("transcription", text=text["data"]["text"], isUser=True, isFinal=True, turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        assert await run(
            page,
            """
            const live = made();
            const statuses = [];
            live.addEventListener("status", ({ detail: { status, attempt, gapMs } }) =>
              statuses.push([status, attempt, gapMs]));
            const words = next(live, "transcription");
            await live.connect();
            while (live.status !== "RECONNECTING") await next(live, "status");
            live.sendText("meanwhile");
            await live.startMicrophone();
            const { text } = await words;
            const { microphone } = live;
            live.disconnect();
            return [text, microphone, statuses.slice(2, 4), live.status];
            """,
        ) == ["meanwhile", "on", [["RECONNECTING", None, None], ["CONNECTED", None, 640]], "DISCONNECTED"]
        assert len(server.lines) == 1


async def test_speech_that_a_long_cut_loses_is_told_once_in_plain_words(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        if line.asked_for is None:
            await line.connected()
            line.cut()
            return
        await line.message("connect")
        await line.message("go")
        await line.send("status", status="CONNECTED", upstream="simulator")
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = page.evaluate(
            """async () => {
              const { TornadoLive } = await import("/tornado-live.js");
              const live = new TornadoLive();
              const warnings = [];
              live.addEventListener("warning", ({ detail }) => warnings.push([detail.code, detail.message]));
              let frames = 0;
              const levels = new Promise((resolve) => live.addEventListener("level", () => {
                frames += live.status === "RECONNECTING";
                if (frames > 170) resolve();
              }));
              await live.connect();
              await live.startMicrophone();
              await levels;
              window.enough = true;
              while (live.status !== "CONNECTED") {
                await new Promise((resolve) => live.addEventListener("status", resolve, { once: true }));
              }
              // A second of speech later: what was held is not taken for a slow line.
              for (let n = 0; n < 45; n += 1) {
                await new Promise((resolve) => live.addEventListener("level", resolve, { once: true }));
              }
              live.disconnect();
              return warnings;
            }"""
        )
        async with asyncio.TaskGroup() as tasks:
            warnings = tasks.create_task(told)
            await until(page, "window.enough")
            server.lines[-1].received.put_nowait({"type": "go"})
        assert warnings.result() == [
            [
                "audio_dropped",
                "The server could not be reached for a while; what you said meanwhile was not heard.",
            ]
        ]


async def test_the_server_says_how_long_to_wait(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        await line.send(
            "error", code="limited", message="Wait.", retryable=True, retryAfterMs=30_000, requestId="r"
        )
        line.close(4429)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        delay = await run(
            page,
            """
            const live = made();
            await live.connect();
            const { delayMs } = await next(live, "status");
            live.disconnect();
            return delayMs;
            """,
        )
    assert delay == 30_000


async def test_each_vain_attempt_counts_once_and_says_why(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        if line.asked_for is None:
            await line.connected()
            line.cut()
            return
        await line.message("connect")
        await line.send("error", code="unavailable", message="Not yet.", retryable=True, requestId="r")
        line.close(4503)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            const live = made();
            await live.connect();
            const told = [];
            while (told.length < 3) {
              const { attempt, cause, error, status } = await next(live, "status");
              if (status === "RECONNECTING") told.push([attempt, cause, error.message]);
            }
            live.disconnect();
            return told;
            """,
        )
    assert told == [
        [1, "connection_lost", "The connection to the server was lost."],
        [2, "unavailable", "Not yet."],
        [3, "unavailable", "Not yet."],
    ]
    assert len(server.lines) == 3


async def test_after_eight_vain_attempts_the_last_reason_is_told(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        if line.asked_for is None:
            await line.connected()
        line.close(4503)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            const live = made();
            const onwards = () => dispatchEvent(new Event("online")); // without pauses
            live.addEventListener("status", () => setTimeout(onwards));
            const closed = next(live, "closed");
            await live.connect();
            const { error } = await closed;
            return [error.code, ...seen.filter((each) => each !== "RECONNECTING")];
            """,
        )
    assert told == ["unavailable", "CONNECTING", "CONNECTED", "unavailable", "DISCONNECTED"]
    assert len(server.lines) == 9


async def test_a_server_that_dials_long_is_waited_for(chromium: Browser) -> None:
    """It tries its model side three times, ten seconds each: its own word is the one to be told."""
    waited = asyncio.Event()

    async def script(line: Line) -> None:
        await line.message("connect")
        await line.send("status", status="CONNECTING")
        await line.send("warning", code="voice_unavailable", message="Not loaded yet.")
        await waited.wait()
        await line.send("error", code="upstream_timeout", message="No answer.", retryable=True, requestId="r")
        line.close(4504)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.clock.install()
        await run(
            page,
            """
            const live = made();
            const warned = next(live, "warning");
            window.told = live.connect().catch((error) => [error.code, error.message]);
            await warned;
            """,
        )
        await page.clock.fast_forward(55_000)
        waited.set()
        assert await page.evaluate("told") == ["upstream_timeout", "No answer."]


async def test_an_activity_that_a_cut_interrupts_is_opened_again(chromium: Browser) -> None:
    seen: list[str] = []

    async def script(line: Line) -> None:
        await line.connected()
        await line.message("activity_start")
        if line.asked_for is None:
            line.cut()
            return
        while "activity_end" not in seen:
            kind = (await line.message("activity_start", "activity_end", "pcm"))["type"]
            if seen[-1:] != [kind]:
                seen.append(kind)
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await run(
            page,
            """
            const live = made();
            await live.connect({ activity: "manual" });
            await live.startMicrophone();
            await next(live, "level");
            live.startActivity();
            while (live.status !== "RECONNECTING") await next(live, "status");
            while (live.status !== "CONNECTED") await next(live, "status");
            await next(live, "level");
            live.endActivity();
            await next(live, "turn_complete");
            live.disconnect();
            """,
        )
    assert seen == ["pcm", "activity_end"]


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("live.sendText('x')", "not_connected"),
        ("await live.startMicrophone()", "not_connected"),
        ("await live.connect(); live.startActivity()", "not_manual"),
        ("await live.connect(); await live.connect()", "already_connected"),
    ],
)
async def test_a_call_at_the_wrong_time_says_what_to_do(chromium: Browser, act: str, code: str) -> None:
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        assert (
            await run(page, f"const live = made(); try {{ {act} }} catch (error) {{ return error.code; }}")
            == code
        )


async def test_disconnect_frees_the_microphone_and_closes_the_line(chromium: Browser) -> None:
    ended = asyncio.Event()

    async def script(line: Line) -> None:
        await line.connected()
        await line.message("disconnect")
        assert (await line.message("closed"))["code"] == 1000
        ended.set()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        assert await run(
            page,
            """
                const tracks = [];
                const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                navigator.mediaDevices.getUserMedia = async (wanted) => {
                  const stream = await open(wanted);
                  tracks.push(...stream.getTracks());
                  return stream;
                };
                const live = made();
                await live.connect();
                await live.startMicrophone();
                const { echoCancellation, noiseSuppression } = tracks[0].getConstraints();
                live.disconnect();
                return [echoCancellation, noiseSuppression, live.microphone, tracks[0].readyState];
                """,
        ) == [True, True, "off", "ended"]
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
async def test_the_resampler_keeps_speech_and_drops_what_would_fold(chromium: Browser, rate: int) -> None:
    async with ScriptedServer(stay) as server, opened(chromium, server.url) as page:
        result = await run(
            page,
            f"""
            const rate = {rate};
            const sine = (hertz) =>
              Float32Array.from({{ length: rate }}, (_, n) => Math.sin(2 * Math.PI * hertz * n / rate));
            const rms = (samples) => Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
            const inBlocks = (input) => {{
              const resampler = new Resampler(rate, 16000);
              const parts = [];
              for (let at = 0; at < input.length; at += 128) {{
                parts.push(...resampler.process(input.subarray(at, at + 128)));
              }}
              return Float32Array.from(parts);
            }};
            const middle = (samples) => samples.slice(1000, -1000);
            const once = new Resampler(rate, 16000).process(sine(1000));
            const blocks = inBlocks(sine(1000));
            return {{
              length: blocks.length,
              kept: rms(middle(blocks)) / Math.SQRT1_2,
              difference: Math.max(...once.map((s, n) => Math.abs(s - blocks[n]))),
              folded: rate > 20000 ? rms(middle(inBlocks(sine(10500)))) : 0,
            }};
            """,
        )
    assert abs(result["length"] - 16_000) <= 60
    assert abs(result["kept"] - 1) < 0.001
    assert result["difference"] == 0
    assert result["folded"] < 0.0005


async def test_who_ends_the_talk_while_the_sound_is_loading_is_told_so(chromium: Browser) -> None:
    """The browser itself reports a module that could not be loaded."""

    async def script(line: Line) -> None:
        await line.connected()
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        held = asyncio.Event()

        async def hold(route: Route) -> None:
            await held.wait()
            await route.abort()

        await page.route("**/tornado-live/microphone.js", hold)
        try:
            told = await run(
                page,
                """
                const live = made();
                await live.connect();
                const opening = live.startMicrophone().catch(({ code }) => code);
                live.disconnect();
                return [await opening, seen];
                """,
            )
        finally:
            held.set()
            await page.unroute_all(behavior="wait")
    assert told == ["cancelled", ["CONNECTING", "CONNECTED", "DISCONNECTED"]]
