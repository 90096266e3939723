"""tools.yaml while it is edited: what is live when, what a mistake does, and what a running call sees of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from endpoints import serving
from hypothesis import given
from hypothesis import strategies as st
from serving import ROOT, Server
from talking import Talker
from tornado.web import RequestHandler

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError, Problem
from tornado_live.observe.logs import Masker
from tornado_live.settings import load_settings
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.loading import watch_tools
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.tools.watching import (
    POLL_S,
    Reloaded,
    Settling,
    ToolFiles,
    WatchedCatalog,
    exposed,
    exposure,
    in_one_line,
)

FAST_S = 0.003
OWN_MODULE = """
import threading

open_gate = threading.Event()


async def add(a: int, b: int = 1) -> int:
    return a + b


def waits(a: int) -> int:
    open_gate.wait(30)
    return a
"""


def tools(*names: str, function: str = "watched_tools:add", marker: str = "") -> str:
    text = "version: 1\ntools:\n"
    for name in names:
        text += (
            f"  {name}:\n    description: Adds. {marker}\n    python: {function}\n"
            "    parameters: {type: object, properties: {a: {type: integer}}, required: [a]}\n"
        )
    return text


class Home:
    """A home directory whose tools.yaml is watched; `news` has what came of each reading."""

    def __init__(self, path: Path, text: str, *, poll_s: float = FAST_S) -> None:
        self.path = path
        self.file = path / "tools.yaml"
        self.file.write_text(text)
        (path / "watched_tools.py").write_text(OWN_MODULE)
        self.news: asyncio.Queue[Reloaded] = asyncio.Queue()
        files = ToolFiles(self.file, home=path)
        seen = files.stamps()
        self.watched = WatchedCatalog(
            self.load(), files, seen, self.load, self.news.put_nowait, poll_s=poll_s
        )

    def load(self) -> ToolCatalog:
        return load_catalog(
            self.file,
            home=self.path,
            data_dir=self.path / "data",
            environment={},
            handler_prefixes=("watched_tools",),
        )

    async def until(self, wanted: Any) -> Reloaded:
        async with asyncio.timeout(30):
            while True:
                news = await self.news.get()
                if wanted(news):
                    return news


@contextmanager
def calling(home: Home, runner: ToolRunner) -> Iterator[list[str]]:
    """Calls of the first tool of the set that is live, one after the other; what failed is in the list."""
    failed: list[str] = []
    ids = itertools.count()

    async def call() -> None:
        while True:
            catalog = home.watched.current
            name = next(iter(catalog.tools))
            made = ToolCall(f"c{next(ids)}", name, {"a": 2})
            result = await runner.run(catalog, made, caller=Caller("u"), session_id="s")
            if result.response.get("result") != 3:
                failed.append(json.dumps(dict(result.response)))
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(call())
    try:
        yield failed
    finally:
        task.cancel()


@pytest.mark.proves("F38")
async def test_three_hundred_edits_good_bad_and_half_written_let_no_call_fail(tmp_path: Path) -> None:
    home = Home(tmp_path, tools("t0"))
    runner = ToolRunner(mock="never")
    home.watched.start()
    try:
        with calling(home, runner) as failed:
            for number in range(1, 101):
                good = tools(f"t{number}", "other")
                home.file.write_text(good)
                await home.until(lambda news, name=f"t{number}": list(news.catalog.tools) == [name, "other"])
                assert home.watched.error is None

                home.file.write_text(good + f"  wrong{number}: {{description: 1}}\n")
                told = f"tools.yaml:11: wrong{number}: needs parameters"
                news = await home.until(lambda news, told=told: told in str(news.error))
                assert list(news.catalog.tools) == [f"t{number}", "other"]

                half = tools(f"h{number}", "other")
                with home.file.open("w") as file:
                    file.write(half[: len(half) * 3 // 5])
                    file.flush()
                    await home.until(lambda news: news.error is not None)
                    assert list(home.watched.current.tools) == [f"t{number}", "other"]
                    file.write(half[len(half) * 3 // 5 :])
                await home.until(lambda news, name=f"h{number}": list(news.catalog.tools) == [name, "other"])
        assert failed == []
        assert home.watched.error is None
    finally:
        await home.watched.close()
        await runner.close()


async def test_a_running_call_ends_on_the_set_that_it_began_with(tmp_path: Path) -> None:
    home = Home(tmp_path, tools("old", function="watched_tools:waits"))
    runner = ToolRunner(mock="never")
    home.watched.start()
    try:
        call = asyncio.get_running_loop().create_task(
            runner.run(
                home.watched.current, ToolCall("1", "old", {"a": 7}), caller=Caller("u"), session_id="s"
            )
        )
        home.file.write_text(tools("new"))
        await home.until(lambda news: news.error is None)
        assert list(home.watched.current.tools) == ["new"]
        import watched_tools  # type: ignore[import-not-found] # found in the home directory by now

        watched_tools.open_gate.set()
        assert (await call).response == {"status": "ok", "result": 7}
    finally:
        await home.watched.close()
        await runner.close()


async def test_the_same_mistake_is_news_once_and_a_reload_can_be_asked_for(tmp_path: Path) -> None:
    home = Home(tmp_path, tools("a"))
    home.watched.start()
    try:
        home.file.write_text("version: 3\ntools: {}\n")
        assert (await home.until(lambda news: True)).is_news
        home.watched.reload()
        assert not (await home.until(lambda news: True)).is_news
        assert home.watched.error == "tools.yaml:1: version: 3 must be 1"
        home.file.unlink()
        assert (await home.until(lambda news: True)).error == "tools.yaml: there is no such file"
        home.file.write_text(tools("b"))
        assert (await home.until(lambda news: news.error is None)).is_news
        home.watched.reload()
        assert (await home.until(lambda news: True)).error is None
    finally:
        await home.watched.close()


async def test_files_that_are_included_are_watched_also_new_ones(tmp_path: Path) -> None:
    home = Home(tmp_path, "include: [more/*.yaml]\n" + tools("a"))
    (tmp_path / "more").mkdir()
    home.watched.start()
    try:
        (tmp_path / "more/b.yaml").write_text(tools("b"))
        assert list((await home.until(lambda news: True)).catalog.tools) == ["a", "b"]
        (tmp_path / "more/b.yaml").write_text(tools("c"))
        assert list((await home.until(lambda news: True)).catalog.tools) == ["a", "c"]
        (tmp_path / "more/b.yaml").unlink()
        assert list((await home.until(lambda news: True)).catalog.tools) == ["a"]
    finally:
        await home.watched.close()


async def test_whatever_loading_raises_the_set_stays(tmp_path: Path) -> None:
    home = Home(tmp_path, tools("a"))

    def load() -> ToolCatalog:
        raise RecursionError("canary")

    watched = WatchedCatalog(
        home.watched.current,
        ToolFiles(home.file, home=tmp_path),
        {},
        load,
        home.news.put_nowait,
        poll_s=FAST_S,
    )
    watched.start()
    try:
        news = await home.until(lambda news: True)
        assert news.error == "tools.yaml cannot be loaded: RecursionError"
        assert list(watched.current.tools) == ["a"]
    finally:
        await watched.close()


@given(st.lists(st.sampled_from("abc")))
def test_only_what_looks_the_same_twice_is_loaded_and_only_once(states: list[str]) -> None:
    settling = Settling({})
    loaded, before = "", ""
    for state in states:
        due = settling.look({Path("tools.yaml"): (ord(state),)})
        assert due == (state == before and state != loaded)
        loaded = state if due else loaded
        before = state


def test_two_looks_leave_time_to_be_live_within_two_seconds() -> None:
    assert 2 * POLL_S <= 0.5


def test_several_mistakes_are_told_in_one_line() -> None:
    error = ConfigError(
        [Problem("tools.yaml", 3, "a.http", "is wrong"), Problem("tools.yaml", 9, "b", "too")]
    )
    assert in_one_line(error) == "tools.yaml:3: a.http: is wrong (and 1 more)"


OWN, OTHER, ROOT_USER = 1000, 1001, 0
FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.proves("T66")
@pytest.mark.parametrize(
    ("mode", "owner", "folder", "why"),
    [
        (0o600, OWN, 0o700, None),
        (0o644, OWN, 0o755, None),
        (0o664, OWN, 0o775, None),
        (0o644, ROOT_USER, 0o755, None),
        (0o644, OWN, 0o1777, None),
        (0o444, ROOT_USER, 0o1777, None),
        (0o646, OWN, 0o755, "can be changed by every user"),
        (0o666, OWN, 0o700, "can be changed by every user"),
        (0o602, ROOT_USER, 0o755, "can be changed by every user"),
        (0o777, OTHER, 0o755, "can be changed by every user"),
        (0o644, OWN, 0o777, "can be replaced by every user"),
        (0o600, OWN, 0o733, "can be replaced by every user"),
        (0o644, OTHER, 0o755, "belongs to another user"),
        (0o600, OTHER, 0o1777, "belongs to another user"),
    ],
)
def test_a_file_that_others_can_change_is_told(mode: int, owner: int, folder: int, why: str | None) -> None:
    told = exposure(FILE | mode, owner, FOLDER | folder, OWN)
    assert told is None if why is None else told is not None and told.startswith(why)


@pytest.mark.proves("T66")
def test_the_files_themselves_are_looked_at(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "tools.yaml"
    file.write_text("")
    file.chmod(0o644)
    assert exposed([file, tmp_path / "gone.yaml"]) == []
    file.chmod(0o666)
    assert exposed([file]) == ["tools.yaml can be changed by every user of this machine; chmod o-w"]


@pytest.mark.proves("T47")
async def test_a_secret_that_comes_with_an_edit_is_hidden_from_the_log_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\ntools: {}\n")
    settings = load_settings(home=tmp_path, config=None, environ={}, overrides={})
    masker, taken = Masker(), asyncio.Queue[bool]()
    warned: list[str] = []
    watched = watch_tools(settings, masker, counted=taken.put_nowait, warn=warned.append)
    assert masker.text("canary-word-47") == "canary-word-47"
    watched.start()
    try:
        (tmp_path / ".env").write_text("FERRY_KEY=canary-word-47\n")
        (tmp_path / "tools.yaml").write_text("version: 1\ntools:" + MOCKED.format(name="ferry"))
        async with asyncio.timeout(30):
            while "ferry" not in watched.current.tools:
                await taken.get()
        assert masker.text("of canary-word-47!") == "of ***!"
        (tmp_path / "tools.yaml").write_text("version: 2\ntools: {}\n")
        async with asyncio.timeout(30):
            while await taken.get():
                pass
        assert warned[-1].startswith("tools.yaml has a mistake; the tools stay as they were. tools.yaml:")
        (tmp_path / "more.yaml").write_text("version: 2\n")
        (tmp_path / "tools.yaml").write_text("version: 1\ninclude: [more.yaml]\ntools: {}\n")
        async with asyncio.timeout(30):
            while not warned[-1].startswith(
                "more.yaml has a mistake; the tools stay as they were. more.yaml:"
            ):
                await taken.get()
    finally:
        await watched.close()


# With the server itself


async def tools_of(client: httpx.AsyncClient) -> list[str]:
    return [tool["name"] for tool in (await client.get("/api/tools")).json()["tools"]]


async def after(server: Server, event: str, count: int, client: httpx.AsyncClient) -> dict[str, Any]:
    """The tools of /health once the log has had `event` so often."""
    async with asyncio.timeout(30):
        while server.log.count(f'"{event}"') < count:
            await server.grown()
    found: dict[str, Any] = (await client.get("/health")).json()["tools"]
    return found


MOCKED = """
  {name}:
    description: Says the time of a ferry to an island.
    parameters: {{type: object, properties: {{island: {{type: string}}}}, required: [island]}}
    http:
      url: https://ferries.example.com/times
      query: {{of: "{{island}}"}}
      auth: {{bearer: "${{FERRY_KEY}}"}}
    mock: {{leaves: "10:45"}}
"""


@pytest.mark.proves("F38")
async def test_a_saved_tool_is_used_by_the_next_conversation_and_a_mistake_changes_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tools.yaml"
    file.write_text("version: 1\ntools: {}\n")
    file.chmod(0o666)
    async with (
        Server("--mock-tools", "always", home=tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        assert "tools_file_exposed" in server.log
        good = "version: 1\ntools:" + MOCKED.format(name="ferry_times")
        file.write_text(good)
        found = await after(server, "tools_reload_failed", 1, client)
        assert found["loaded"] == 0
        assert found["error"] == (
            "tools.yaml:9: ferry_times.http.auth.bearer: FERRY_KEY is not set; set it in the environment or"
            " .env, or write ${FERRY_KEY:-default}"
        )

        # What was missing is put into .env: no restart, and its value is never seen.
        (tmp_path / ".env").write_text("FERRY_KEY=canary-4711-secret\n")
        assert await after(server, "tools_reloaded", 1, client) == {"loaded": 1}
        assert await tools_of(client) == ["ferry_times"]
        async with Talker(f"{server.url.replace('http', 'ws')}/ws") as talker:
            await talker.connected()
            await talker.send("text", {"text": "Use ferry_times, island Skye"})
            result = await talker.until("tool_result")
            assert result["sample"] is True

            file.write_text(good.replace("https://ferries", "ftp://${FERRY_KEY}.ferries"))
            found = await after(server, "tools_reload_failed", 2, client)
            assert found["loaded"] == 1
            assert found["error"].startswith("tools.yaml:7: ferry_times.http.url: ")
            warning = await talker.until("warning")
            assert warning["code"] == "tools_reload_failed"
            assert found["error"] in warning["message"]
        file.write_text(good.replace("ferry_times", "ferries"))
        assert await after(server, "tools_reloaded", 2, client) == {"loaded": 1}
        assert await tools_of(client) == ["ferries"]

        os.kill(server.pid, signal.SIGHUP)
        assert await after(server, "tools_reloaded", 3, client) == {"loaded": 1}
        metrics = (await client.get("/metrics")).text
        assert 'tornado_live_tools_reloads_total{outcome="taken"} 3.0' in metrics
        assert "canary-4711-secret" not in server.log + found["error"]


async def test_the_first_tool_of_the_documentation_works_word_for_word(tmp_path: Path) -> None:
    guide = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
    guide = guide.split("## A first tool in five minutes")[1].split("\n## ")[0]
    menu = re.findall(r"^echo '(.*)' > cafe/menu.json$", guide, re.MULTILINE)[0]
    told = guide.split("```\n")[-2].strip()

    def answer(handler: RequestHandler) -> None:
        handler.set_header("Content-Type", "application/json")
        handler.write(menu)

    file = tmp_path / "tools.yaml"
    file.write_text("version: 1\ntools: {}\n")
    async with (
        serving(answer) as (port, seen),
        Server(home=tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        written = guide.split("```yaml\n")[1].split("```")[0].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        file.write_text(written)
        await after(server, "tools_reloaded", 1, client)

        async def ask() -> None:
            async with Talker(f"{server.url.replace('http', 'ws')}/ws") as talker:
                await talker.connected()
                await talker.send("text", {"text": "What is on the menu of the cafe?"})
                result = await talker.until("tool_result")
                assert (result["name"], result["ok"]) == ("get_menu", True)

        await ask()
        file.write_text(written.replace("select:", "selct:"))
        found = await after(server, "tools_reload_failed", 1, client)
        assert found == {"loaded": 1, "error": told}
        await ask()
        assert [request.path for request in seen] == ["/menu.json"] * 2
