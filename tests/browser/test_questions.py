"""What the server asks of a front end through the client module: functions to run, and the person's consent."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chromium import opened, until
from playwright.async_api import Browser, expect
from scripted import DEADLINE_S, Line, ScriptedServer
from serving import ROOT, Server
from test_client_module import run
from test_own_page import other_web_server

pytestmark = pytest.mark.browser

EXAMPLE = ROOT / "docs/examples/page-with-a-lamp"


async def answered(line: Line) -> dict[str, Any]:
    data: dict[str, Any] = (await line.message("tool_result", "tool_confirm"))["data"]
    return data


async def test_an_offered_function_is_run_and_its_result_is_sent(chromium: Browser) -> None:
    results: list[dict[str, Any]] = []

    async def script(line: Line) -> None:
        await line.connected()
        for number, name in enumerate(("open_door", "say_nothing")):
            await line.send("tool_call", id=f"c{number}", name=name, args={"door": "front"}, client=True)
            results.append(await answered(line))
        await line.send("tool_call", id="c2", name="say_nothing", client=True)
        results.append(await answered(line))
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        called = await run(
            page,
            """
            const live = made();
            const called = [];
            live.offer({
              open_door: async ({ door }, { id, signal }) => {
                await new Promise((resolve) => setTimeout(resolve));
                return { door, id, aborted: signal.aborted };
              },
            });
            live.offer({ say_nothing: (args) => void called.push(args) });
            const over = next(live, "turn_complete");
            await live.connect();
            await over;
            live.disconnect();
            return called;
            """,
        )
    assert called == [{"door": "front"}, {}]
    assert results == [
        {"id": "c0", "response": {"door": "front", "id": "c0", "aborted": False}},
        {"id": "c1", "response": None},
        {"id": "c2", "response": None},
    ]


async def test_a_function_that_fails_or_is_not_there_is_answered_with_an_error(chromium: Browser) -> None:
    names = ("throws", "rejects", "counts", "circles", "floods", "open_window")
    results: list[Any] = []

    async def script(line: Line) -> None:
        await line.connected()
        for name in names:
            await line.send("tool_call", id=name, name=name, args={}, client=True)
            results.append((await answered(line))["response"])
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await run(
            page,
            """
            const live = made();
            live.offer({
              throws: () => { throw new Error("The door is locked."); },
              rejects: () => Promise.reject("no reason"),
              counts: () => 1n,
              circles: () => { const circle = {}; circle.round = circle; return circle; },
              floods: () => "x".repeat(300000),
            });
            const over = next(live, "turn_complete");
            await live.connect();
            await over;
            live.disconnect();
            """,
        )
    assert results[:2] == [{"error": "The door is locked."}, {"error": "no reason"}]
    assert all(list(result) == ["error"] for result in results)
    assert results[4:] == [
        {"error": "The result is too large."},
        {"error": 'This page has no function "open_window".'},
    ]


@pytest.mark.parametrize("end", ["tool_cancelled", "tool_result", "disconnect"])
async def test_a_call_that_nobody_waits_for_aborts_its_function_and_its_question(
    chromium: Browser, end: str
) -> None:
    sent: list[str] = []

    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="f", name="wait", args={}, client=True)
        await line.send("tool_call", id="q", name="pay", args={"sum": 3}, confirm=True)
        await line.message("ping")
        if end == "tool_cancelled":
            await line.send("tool_cancelled", ids=["f", "q"])
        elif end == "tool_result":
            for one, name in (("f", "wait"), ("q", "pay")):
                await line.send("tool_result", id=one, name=name, ok=False, durationMs=1, error="timeout")
        await line.send("turn_complete", turn=1)
        while (message := await line.received.get())["type"] != "closed":
            sent.append(message["type"])

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        aborted = await run(
            page,
            f"""
            const live = made();
            const aborted = [];
            const asked = next(live, "consent");
            live.offer({{
              wait: (args, {{ id, signal }}) => new Promise((resolve) => {{
                signal.addEventListener("abort", () => {{ aborted.push(id); resolve("too late"); }});
              }}),
            }});
            const over = next(live, "turn_complete");
            await live.connect();
            const question = await asked;
            question.signal.addEventListener("abort", () => aborted.push(question.id));
            await over;
            if ("{end}" === "disconnect") live.disconnect();
            question.answer(true);
            await new Promise((resolve) => setTimeout(resolve));
            live.disconnect();
            return aborted;
            """,
        )
    assert aborted == ["f", "q"]
    assert not {"tool_result", "tool_confirm"} & set(sent)


async def test_consent_is_answered_once_and_what_was_agreed_to_is_run(chromium: Browser) -> None:
    answers: list[dict[str, Any]] = []

    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="a", name="open_door", confirm=True)
        answers.append(await answered(line))
        await line.send("tool_call", id="a", name="open_door", args={"door": "front"}, client=True)
        answers.append(await answered(line))
        await line.send("tool_call", id="b", name="pay", args={"sum": 3}, confirm=True)
        answers.append(await answered(line))
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        asked = await run(
            page,
            """
            const live = made();
            const asked = [];
            live.offer({ open_door: ({ door }) => `${door} is open` });
            live.addEventListener("consent", ({ detail: { id, name, args, until, signal, answer } }) => {
              const soon = until > Date.now() && until <= Date.now() + 30000;
              answer(id === "a");
              answer(id !== "a");
              asked.push([id, name, args ?? null, soon, signal.aborted]);
            });
            const over = next(live, "turn_complete");
            await live.connect();
            await over;
            live.disconnect();
            return asked;
            """,
        )
    assert asked == [["a", "open_door", None, True, True], ["b", "pay", {"sum": 3}, True, True]]
    assert answers == [
        {"id": "a", "ok": True},
        {"id": "a", "response": "front is open"},
        {"id": "b", "ok": False},
    ]


async def test_a_question_that_is_put_again_is_answered_without_asking_or_running_twice(
    chromium: Browser,
) -> None:
    answers: list[dict[str, Any]] = []
    cut = asyncio.Event()

    async def script(line: Line) -> None:
        questions = (
            {"id": "q", "name": "pay", "args": {"sum": 3}, "confirm": True},
            {"id": "f", "name": "open_door", "args": {}, "client": True},
        )
        await line.connected(resumed=line.asked_for is not None)
        for question in questions:
            await line.send("tool_call", **question)
        if line.asked_for is None:
            await cut.wait()
            line.cut()
            return
        answers.extend([await answered(line), await answered(line)])
        await line.send("turn_complete", turn=1)
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = page.evaluate(
            """async () => {
              const { TornadoLive } = await import("/tornado-live.js");
              const live = new TornadoLive();
              const seen = [];
              const next = (name) => new Promise((resolve) =>
                live.addEventListener(name, ({ detail }) => resolve(detail), { once: true }));
              let open;
              live.offer({
                open_door: () => { seen.push("run"); return new Promise((resolve) => (open = resolve)); },
              });
              live.addEventListener("consent", () => seen.push("asked"));
              const asked = next("consent");
              const over = next("turn_complete");
              await live.connect();
              const question = await asked;
              while (seen.length < 2) await next("tool_call").then(() => null);
              window.ready = true;
              while (live.status !== "RECONNECTING") await next("status");
              question.answer(true); // the line is down
              open("open");
              await over;
              live.disconnect();
              return seen;
            }"""
        )
        async with asyncio.TaskGroup() as tasks:
            seen = tasks.create_task(told)
            await until(page, "window.ready")
            cut.set()
    assert seen.result() == ["asked", "run"]
    assert answers == [{"id": "q", "ok": True}, {"id": "f", "response": "open"}]


async def test_the_pages_own_front_end_offers_nothing_and_says_so(chromium: Browser) -> None:
    results: list[dict[str, Any]] = []
    told = asyncio.Event()

    async def script(line: Line) -> None:
        await line.connected()
        await line.send("tool_call", id="c", name="open_door", args={}, client=True)
        results.append(await answered(line))
        told.set()
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        await page.get_by_role("button", name="Connect", exact=True).click()
        async with asyncio.timeout(DEADLINE_S):
            await told.wait()
    assert results == [{"id": "c", "response": {"error": 'This page has no function "open_door".'}}]


SCENARIO = {
    "turns": [
        {
            "repeat": True,
            "do": [
                {"call": {"name": "switch_lamp", "args": {"on": True}}},
                {"say": "On: {switch_lamp.result.on}, {switch_lamp.error.code}.", "seconds": 0.1},
            ],
        }
    ]
}


async def test_the_example_with_a_lamp_asks_and_switches_it(chromium: Browser, tmp_path: Path) -> None:
    """docs/examples/page-with-a-lamp as its reader uses it; only the port is another one."""
    folder, home = tmp_path / "page", tmp_path / "home"
    home.mkdir()
    shutil.copy(EXAMPLE / "tools.yaml", home)
    (home / "scenario.yaml").write_text(yaml.safe_dump(SCENARIO))
    shutil.copytree(EXAMPLE, folder)
    shutil.copy(ROOT / "static/tornado-live.js", folder)
    shutil.copytree(ROOT / "static/tornado-live", folder / "tornado-live")
    async with (
        other_web_server(folder) as origin,
        Server(
            "--scenario", str(home / "scenario.yaml"), home=home, environ={"ALLOWED_ORIGINS": origin}
        ) as server,
    ):
        script = folder / "lamp.js"
        script.write_text(script.read_text().replace("127.0.0.1:3001", f"127.0.0.1:{server.port}"))
        async with opened(chromium, origin, microphone=False) as page:
            dialog = page.get_by_role("dialog")
            lamp, note = page.locator("#lamp"), page.locator("#note")
            await page.get_by_label("Message").fill("Light, please")
            await page.get_by_role("button", name="Send").click()
            await expect(dialog).to_contain_text('switch_lamp {"on":true}')
            await dialog.get_by_role("button", name="No").click()
            await expect(dialog).to_have_count(0)
            await expect(note).to_contain_text("refused.")
            await expect(lamp).to_have_text("The lamp is off.")
            await page.get_by_role("button", name="Send").click()
            await dialog.get_by_role("button", name="Yes").click()
            await expect(lamp).to_have_text("The lamp is on.")
            await expect(note).to_contain_text("On: True")


def test_the_documentation_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs/client-module.md").read_text()
    for name in ("lamp.js", "tools.yaml"):
        assert (EXAMPLE / name).read_text() in page
