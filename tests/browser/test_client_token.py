"""static/tornado-live.js, where the server asks who is talking."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from accessing import ASKING, signed
from chromium import opened
from faults.model import ModelSide
from faults.stage import environment
from playwright.async_api import Browser
from scripted import Line, ScriptedServer
from serving import Server
from test_client_module import run

pytestmark = pytest.mark.browser

REFUSED = "This key is not known."


class Door:
    """A script that lets in who shows one of `good`. `shown` has each token that came."""

    def __init__(self, *good: str | None) -> None:
        self.good = set(good)
        self.shown: list[str | None] = []

    async def __call__(self, line: Line) -> None:
        options = (await line.message("connect")).get("data", {})
        self.shown.append(options.get("token"))
        if self.shown[-1] not in self.good:
            await self.refuse(line)
            return
        await line.send("status", status="CONNECTED", upstream="simulator", resumed=False, memory="none")
        while True:
            match (await line.message("text", "closed"))["type"]:
                case "text":
                    self.good.discard(self.shown[-1])
                    await self.refuse(line)
                case "closed":
                    return

    async def refuse(self, line: Line) -> None:
        await line.send("error", code="unauthenticated", message=REFUSED, retryable=False, requestId="r")
        line.close(4401)


async def test_a_token_goes_with_connect_and_never_into_an_address(chromium: Browser) -> None:
    door = Door("tl_first")
    async with ScriptedServer(door) as server, opened(chromium, server.url) as page:
        addresses: list[str] = []
        page.on("websocket", lambda socket: addresses.append(socket.url))
        page.on("request", lambda request: addresses.append(request.url))
        await run(
            page,
            """
            const live = made({ token: "tl_first" });
            await live.connect();
            live.disconnect();
            await live.connect();
            live.disconnect();
            """,
        )
    assert door.shown == ["tl_first", "tl_first"]
    assert [address for address in addresses if address.startswith("ws")] == [
        f"ws://localhost:{server.port}/ws",
        f"ws://localhost:{server.port}/ws?sessionId=session-1",
    ]
    assert "tl_first" not in "".join(addresses)


@pytest.mark.parametrize("token", ['"tl_first"', '() => "tl_first"', "async () => null"])
async def test_a_token_that_is_refused_at_first_is_not_shown_again(chromium: Browser, token: str) -> None:
    door = Door()
    async with ScriptedServer(door) as server, opened(chromium, server.url) as page:
        assert await run(
            page,
            f"""
            const live = made({{ token: {token} }});
            const closed = next(live, "closed");
            const error = await live.connect().catch((error) => error);
            await closed;
            return [error.code, error.message, error.retryable, seen];
            """,
        ) == ["unauthenticated", REFUSED, False, ["CONNECTING", "unauthenticated", "DISCONNECTED"]]
        assert len(door.shown) == 1


async def test_a_key_that_is_revoked_ends_the_talk_without_another_attempt(chromium: Browser) -> None:
    door = Door("tl_first")
    async with ScriptedServer(door) as server, opened(chromium, server.url) as page:
        ended = await run(
            page,
            """
            const live = made({ token: "tl_first" });
            await live.connect();
            const closed = next(live, "closed");
            live.sendText("Go on.");
            const { error } = await closed;
            return [error.code, error.message, live.sessionId, seen];
            """,
        )
    expected = ["CONNECTING", "CONNECTED", "unauthenticated", "DISCONNECTED"]
    assert ended == ["unauthenticated", REFUSED, "session-1", expected]
    assert door.shown == ["tl_first"]


async def test_a_function_is_asked_before_each_line_and_once_more_when_its_token_was_refused(
    chromium: Browser,
) -> None:
    door = Door("first", "third")
    async with ScriptedServer(door) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            const tokens = ["zeroth", "first", "third", "second"];
            const asked = [];
            const token = async ({ sessionId, refused }) => {
              asked.push([sessionId, refused?.message ?? null]);
              return tokens.shift();
            };
            const live = made({ token });
            await live.connect();  // zeroth is refused
            const back = next(live, "status").then(() => next(live, "status"));
            live.sendText("Now the first is revoked.");
            const { status } = await back;
            const held = seen.splice(0);
            const closed = next(live, "closed");
            live.sendText("Now the third is, and what comes next is not good either.");
            await closed;
            return [asked, status, held, seen];
            """,
        )
    assert told == [
        [
            [None, None],
            ["session-1", REFUSED],
            ["session-1", REFUSED],
            ["session-1", REFUSED],
        ],
        "CONNECTED",
        ["CONNECTING", "CONNECTED", "RECONNECTING", "CONNECTED"],
        ["RECONNECTING", "unauthenticated", "DISCONNECTED"],
    ]
    assert door.shown == ["zeroth", "first", "third", "second"]


async def test_a_page_without_a_token_says_why_and_goes_on_trying_when_it_had_one(chromium: Browser) -> None:
    async def script(line: Line) -> None:
        assert (await line.message("connect"))["data"]["token"] == "good"
        await line.send("status", status="CONNECTED", upstream="simulator", resumed=False, memory="none")
        if line.asked_for is None:
            line.cut()
        await line.stay()

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            let away = 1;
            const token = () => away-- > 0 ? Promise.reject(new Error("no answer")) : "good";
            const live = made({ token });
            const error = await live.connect().catch((error) => error);
            const first = seen.splice(0);
            away = 0;
            await live.connect();
            away = 1;
            const causes = [];
            while (true) {
              const { status, cause } = await next(live, "status");
              if (status === "CONNECTED") break;
              causes.push(cause);
            }
            live.disconnect();
            return [error.code, error.message, error.cause.message, first, causes];
            """,
        )
    why = "The page could not get a token for the server: no answer"
    first = ["CONNECTING", "token_failed", "DISCONNECTED"]
    assert told == ["token_failed", why, "no answer", first, ["connection_lost", "token_failed"]]


async def test_nobody_connects_with_a_token_that_comes_after_the_end(chromium: Browser) -> None:
    door = Door("good")
    async with ScriptedServer(door) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            const given = [];
            const token = () => new Promise((resolve) => given.push(resolve));
            const live = made({ token });
            const first = live.connect().catch(({ code }) => code);
            live.disconnect();
            given[0]("late");
            const second = live.connect();
            given[1]("good");
            const { status } = await second;
            live.disconnect();
            return [await first, status];
            """,
        )
    assert told == ["cancelled", "CONNECTED"]
    assert door.shown == ["good"]


async def test_a_token_that_does_not_come_in_time_is_as_good_as_none(chromium: Browser) -> None:
    async with ScriptedServer(Door()) as server, opened(chromium, server.url) as page:
        await page.clock.install()
        await run(
            page,
            """
            const live = made({ token: () => new Promise(() => {}) });
            window.failed = live.connect().catch((error) => error.message);
            """,
        )
        await page.clock.run_for(20_000)
        assert await page.evaluate("window.failed") == (
            "The page could not get a token for the server: it did not come in time"
        )
    assert server.lines == []


async def test_a_token_that_expires_in_mid_conversation_is_renewed_without_a_word_of_it(
    chromium: Browser, tmp_path: Path
) -> None:
    async def answer_each(model: ModelSide) -> None:
        while True:
            line = await model.dialled()
            await line.ready("h")

    async with (
        ModelSide() as model,
        Server(home=tmp_path, environ=ASKING | environment(model.port)) as server,
        opened(chromium, server.url, expected=["401"]) as page,
        asyncio.TaskGroup() as tasks,
    ):
        answering = tasks.create_task(answer_each(model))
        told = await run(
            page,
            f"""
            const tokens = {json.dumps([signed("alice", lasts_s=3), signed("alice")])};
            const reasons = [];
            const token = ({{ refused }}) => {{
              if (refused) reasons.push(refused.code);
              return tokens[refused ? 1 : 0];
            }};
            const live = made({{ token }});
            await live.connect();
            while (reasons.length === 0 || live.status !== "CONNECTED") await next(live, "status");
            const told = seen.filter((word) => !/CONNECT/.test(word) || word === "DISCONNECTED");
            live.disconnect();
            return [reasons, told];
            """,
        )
        answering.cancel()
        assert told == [["unauthenticated"], []]


@pytest.mark.parametrize(("wait_ms", "goes_on"), [(60_000, True), (60_001, False)])
async def test_a_limit_is_waited_for_but_not_for_hours(
    chromium: Browser, wait_ms: int, goes_on: bool
) -> None:
    async def script(line: Line) -> None:
        await line.connected()
        limited: dict[str, Any] = {"message": "Your budget is used up.", "retryable": True, "requestId": "r"}
        await line.send("error", code="limited", retryAfterMs=wait_ms, **limited)
        line.close(4429)

    async with ScriptedServer(script) as server, opened(chromium, server.url) as page:
        told = await run(
            page,
            """
            const live = made();
            await live.connect();
            const { status, delayMs } = await next(live, "status");
            dispatchEvent(new Event("online"));  // which brings no line back that was refused
            const after = live.status;
            live.disconnect();
            return [status, delayMs ?? null, after, seen];
            """,
        )
    open_ = ["CONNECTING", "CONNECTED", "limited"]
    if goes_on:
        assert told == ["RECONNECTING", 60_000, "RECONNECTING", [*open_, "RECONNECTING", "DISCONNECTED"]]
    else:
        assert told == ["DISCONNECTED", None, "DISCONNECTED", [*open_, "DISCONNECTED"]]
