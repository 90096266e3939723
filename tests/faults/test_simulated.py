"""The faults of the simulator in mid-conversation, and both truths of what nobody is sure of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from serving import Server
from simulating import Simulator
from talking import Talker

from faults.gate import Gate
from faults.proxy import Proxy
from faults.stage import events as events_of
from faults.stage import idle, kinds, memory, serving, settled, told

WELL = {"turns": [{"repeat": True, "do": [{"say": "Well.", "seconds": 0.2}]}]}
SWITCHED = ["status RECONNECTING", "status CONNECTED"]
PATIENT = ("--set", "limits.upstream_ping_s=0.3", "--set", "limits.upstream_pong_s=1")

LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("line_lost", {"drop": True}),
    ("internal_error", {"close": {"code": 1011, "reason": "Internal error encountered."}}),
    ("age_limit", {"close": {"code": 1011, "reason": "Deadline expired before operation could complete."}}),
    ("age_limit", {"close": {"code": 1008, "reason": "The operation was aborted."}}),
    ("age_limit", {"close": {"code": 1000, "reason": "The operation was cancelled."}}),
    ("session_lost", {"close": {"code": 1008, "reason": "BidiGenerateContent session not found"}}),
    ("unreadable", {"bad_json": 3}),
    ("too_large", {"giant": 17}),
    ("no_pong", {"half_open": True}),
]
LEAVINGS: list[dict[str, Any]] = [
    {"go_away": 1000},
    {"go_away": {"go_away": 1000, "time_left": ""}},
    {"go_away": {"go_away": 1000, "time_left": "soon"}},
    {"go_away": {"go_away": 1000, "time_left": "0s"}},
    {"go_away": {"go_away": 1000, "times": 2}},
    {"go_away": {"go_away": 1000, "silent": True}},
]
HARMLESS: list[dict[str, Any]] = [
    {"slow_pong": 5},
    {"bad_json": 2},
    {"bad_utf8": 2},
    {"nan": 2},
    {"giant": 8},
    {"text_frames": True},
    {"unknown_fields": True},
    {"unknown_enums": True},
    {"unknown_message": 2},
    {"late_turn_complete": 5},
    {"slow_writes": 5_000},
]


def switches(**truths: str) -> tuple[str, ...]:
    quoted = {"not_resumable": '"{}"'}  # a word, not YAML's false
    values = {name: quoted.get(name, "{}").format(value) for name, value in truths.items()}
    return tuple(part for name, value in values.items() for part in ("--switch", f"{name}={value}"))


class Talk:
    """A conversation with the simulator: `connection` is the number of its first line there."""

    def __init__(self, server: Server, simulator: Simulator, client: Talker, connection: int) -> None:
        self.server = server
        self.simulator = simulator
        self.client = client
        self.connection = connection
        self.session: str = client.seen[-1]["sessionId"]

    async def turn(self) -> None:
        await self.client.send("text", {"text": "hi"})
        await self.client.until("turn_complete")

    async def resumable(self) -> None:
        """After this the newest handle has been sent, for all that was said."""

        async def newest() -> str | None:
            for one in (await self.simulator.status())["conversations"]:
                if one["connection"] == self.connection:
                    return str(one["handle"])
            return None

        before = await newest()
        await self.turn()

        async def newer() -> bool:
            return await newest() != before

        await settled(newer)

    async def break_by(self, fault: Mapping[str, Any]) -> None:
        await self.simulator.control(fault, connection=self.connection)

    async def switched(self) -> dict[str, Any]:
        """Waits for the end of a switch; what CONNECTED says."""
        await self.client.until("status", lambda data: data["status"] == "RECONNECTING")
        connected = await self.client.until("status")
        assert connected["status"] == "CONNECTED"
        return connected

    async def events(self, *wanted: str) -> list[dict[str, Any]]:
        return kinds(await events_of(self.server, self.session), *wanted)


@contextlib.asynccontextmanager
async def talking(server: Server, simulator: Simulator) -> AsyncIterator[Talk]:
    async with Talker(f"{server.ws_url}/") as client:
        await client.connected()
        yield Talk(server, simulator, client, (await simulator.status())["connections"] - 1)


TRUTHS = [
    switches(old_handles="take", open_socket="refuse", not_resumable="empty"),
    switches(old_handles="refuse", open_socket="take", not_resumable="false"),
]


@pytest.mark.proves("F5", "F6", "F8", "F9", "F13", "F15")
@pytest.mark.parametrize("truths", TRUTHS, ids=["usual", "otherwise"])
async def test_what_ends_a_connection_does_not_end_the_conversation(truths: tuple[str, ...]) -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1, arguments=truths) as simulator,
        serving(simulator.port, *PATIENT) as server,
    ):

        async def lose(talk: Talk, cause: str, fault: Mapping[str, Any]) -> None:
            await talk.resumable()
            await talk.break_by(fault)
            connected = await talk.switched()
            assert (connected["resumed"], connected["memory"]) == (True, "restored"), fault
            await talk.turn()
            assert told(talk.client, "status", "error")[2:] == SWITCHED, fault
            (lost,) = await talk.events("model_lost")
            assert lost["data"]["cause"] == cause
            assert await memory(server, talk.session) == [("user", "hi"), ("model", "Well.")] * 2, fault

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as losses:
            for cause, fault in LOSSES:
                talk = await clients.enter_async_context(talking(server, simulator))
                losses.create_task(lose(talk, cause, fault))


@pytest.mark.proves("F10")
@pytest.mark.parametrize("truths", TRUTHS, ids=["usual", "otherwise"])
async def test_an_announced_end_is_forestalled(truths: tuple[str, ...]) -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1, arguments=truths) as simulator,
        serving(simulator.port) as server,
    ):

        async def leave(talk: Talk, fault: Mapping[str, Any]) -> None:
            await talk.resumable()
            await talk.break_by(fault)
            connected = await talk.switched()
            assert (connected["resumed"], connected["memory"]) == (True, "restored"), fault
            await talk.turn()
            assert told(talk.client, "status", "error")[2:] == SWITCHED, fault
            assert await talk.events("model_lost") == [], fault
            assert len(await talk.events("switched")) == 1, fault

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as leaving:
            for fault in LEAVINGS:
                talk = await clients.enter_async_context(talking(server, simulator))
                leaving.create_task(leave(talk, fault))


@pytest.mark.alone
@pytest.mark.proves("F10")
async def test_a_planned_switch_is_hardly_noticed() -> None:
    async with (
        Simulator(WELL, speed=1, latency=0.1) as simulator,
        serving(simulator.port) as server,
        contextlib.AsyncExitStack() as clients,
    ):
        talks = [await clients.enter_async_context(talking(server, simulator)) for _ in range(20)]
        await asyncio.gather(*(talk.turn() for talk in talks))
        await simulator.control({"go_away": 30}, connection="all")
        gaps = sorted([(await talk.switched())["gapMs"] for talk in talks])
        assert gaps[18] < 1000, gaps


@pytest.mark.proves("F8", "F12", "F13", "F14")
async def test_what_is_odd_and_harmless_is_not_seen() -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1) as simulator,
        serving(simulator.port, "--set", "limits.upstream_ping_s=0.2") as server,
    ):

        async def bear(talk: Talk, fault: Mapping[str, Any]) -> None:
            await talk.turn()
            await talk.break_by(fault)
            await talk.turn()
            await talk.turn()
            assert told(talk.client, "status", "error") == ["status CONNECTING", "status CONNECTED"], fault
            assert await memory(server, talk.session) == [("user", "hi"), ("model", "Well.")] * 3, fault
            assert await talk.events("model_lost", "switched", "watchdog") == [], fault

        async with contextlib.AsyncExitStack() as clients, asyncio.TaskGroup() as bearing:
            for fault in HARMLESS:
                talk = await clients.enter_async_context(talking(server, simulator))
                bearing.create_task(bear(talk, fault))


@pytest.mark.proves("F4", "F5", "F11")
@pytest.mark.parametrize("bad_handle", ["invalid", "session", "entity"])
async def test_however_a_handle_is_refused_a_new_session_has_the_memory(bad_handle: str) -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1, arguments=switches(bad_handle=bad_handle)) as simulator,
        serving(simulator.port) as server,
        talking(server, simulator) as talk,
    ):
        await talk.resumable()
        await simulator.control("lose_handles")
        await talk.break_by({"drop": True})
        connected = await talk.switched()
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
        await talk.turn()
        assert told(talk.client, "status", "error")[2:] == SWITCHED
        assert (await simulator.status())["connections"] == 3, "the first, one with the handle, one without"
        assert await memory(server, talk.session) == [("user", "hi"), ("model", "Well.")] * 2


@pytest.mark.proves("F6", "F11")
async def test_a_resume_that_comes_too_early_is_tried_again() -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1) as simulator,
        serving(simulator.port) as server,
        talking(server, simulator) as talk,
    ):
        await talk.resumable()
        await simulator.control({"refuse_resume": {"code": 1011, "reason": "Internal error encountered."}})
        await talk.break_by({"drop": True})
        connected = await talk.switched()
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        assert told(talk.client, "status", "error")[2:] == SWITCHED
        await talk.turn()


@pytest.mark.proves("F11")
@pytest.mark.parametrize("fault", ["no_handles", "not_resumable"])
@pytest.mark.parametrize("not_resumable", ["empty", "false"])
async def test_where_no_handle_ever_came_a_new_session_has_the_memory(fault: str, not_resumable: str) -> None:
    async with (
        Simulator(
            WELL, speed=20, latency=0.1, arguments=("--fault", fault, *switches(not_resumable=not_resumable))
        ) as simulator,
        serving(simulator.port) as server,
        talking(server, simulator) as talk,
    ):
        await talk.turn()
        await talk.break_by({"drop": True})
        connected = await talk.switched()
        assert (connected["resumed"], connected["memory"]) == (False, "restored")
        await talk.turn()
        assert (await simulator.status())["connections"] == 2


@pytest.mark.proves("F2", "F3", "F7")
async def test_a_setup_that_is_not_taken_is_told_as_what_it_is() -> None:
    async with (
        Simulator(WELL, speed=20, latency=0.1) as simulator,
        serving(simulator.port, "--set", "limits.setup_timeout_s=1") as server,
    ):
        for fault, code, closed in (
            ({"http": 401}, "upstream_rejected", 4502),
            ({"http": {"status": 429, "retry_after": 7}}, "unavailable", 4503),
            ({"http": {"status": 503, "times": 3}}, "unavailable", 4503),
            (
                {"close_at_setup": {"code": 1007, "reason": "Precondition check failed."}},
                "upstream_rejected",
                4502,
            ),
        ):
            await simulator.control(fault)
            async with Talker(f"{server.ws_url}/") as client:
                await client.send("connect")
                assert (await client.closed())[0] == closed, fault
                assert told(client) == ["status CONNECTING", f"error {code}"], fault
        await simulator.control("no_setup_answer")
        async with Talker(f"{server.ws_url}/") as client:
            await client.connected()
        await settled(lambda: idle(server))


ASKS = {
    "turns": [
        {
            "typed": "ask",
            "do": [
                {"call": {"name": "wait", "args": {"n": 1}}},
                {"say": "It is {wait.answer}.", "seconds": 0.2},
            ],
        },
        {"repeat": True, "do": [{"say": "Well.", "seconds": 0.2}]},
    ]
}


@pytest.mark.proves("F17")
@pytest.mark.parametrize("known", ["true", "false"])
async def test_a_call_outlives_its_connection_whether_or_not_the_new_one_knows_it(
    tmp_path: Path, known: str
) -> None:
    async with (
        Gate(tmp_path) as gate,
        Simulator(ASKS, speed=20, latency=0.1, arguments=switches(resumable_in_call=known)) as simulator,
        Proxy(simulator.port, taps=True) as proxy,
        serving(proxy.port, *gate.arguments, home=tmp_path) as server,
        talking(server, simulator) as talk,
    ):
        await talk.resumable()
        await talk.client.send("text", {"text": "ask"})
        run = await gate.arrival()
        if known == "true":
            await proxy.until(lambda: handle_after_call(proxy.lines[0].down.messages.seen))
        await talk.break_by({"drop": True})
        connected = await talk.switched()
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        run.finish({"answer": "forty-two"})
        result = await talk.client.until("tool_result")
        assert (result["ok"], result["name"]) == (True, "wait")
        await talk.client.until("turn_complete")
        await talk.turn()
        assert told(talk.client, "status", "error")[2:] == SWITCHED
        again = [one for one in talk.client.seen if "sameAs" in (one.get("data") or {})]
        assert [one["type"] for one in again] in ([], ["tool_call", "tool_result"]), "not run, but answered"
        pairs = gate.runs + len(again) // 2
        assert told(talk.client).count("tool_call") == told(talk.client).count("tool_result") == pairs
        remembered = await memory(server, talk.session)
        assert len([text for role, text in remembered if role == "tool"]) == gate.runs
        (call,) = await talk.events("tool_call")
        assert call["data"]["delivered"] == ("answer" if known == "true" else "note")


def handle_after_call(messages: list[dict[str, Any]]) -> bool:
    """Whether a handle has come that stands for a state with the call in it."""
    calls = [at for at, message in enumerate(messages) if "toolCall" in message]
    return bool(calls) and any(
        message.get("sessionResumptionUpdate", {}).get("newHandle") for message in messages[calls[0] :]
    )


@pytest.mark.proves("F26")
@pytest.mark.parametrize("truth", ["cancels", "forgets", "reissues", "waits"])
async def test_whatever_the_model_makes_of_an_interruption_the_call_ends_once(
    tmp_path: Path, truth: str
) -> None:
    async with (
        Gate(tmp_path) as gate,
        Simulator(ASKS, speed=20, latency=0.1, arguments=switches(input_during_call=truth)) as simulator,
        serving(simulator.port, *gate.arguments, home=tmp_path) as server,
        talking(server, simulator) as talk,
    ):
        await talk.client.send("text", {"text": "ask"})
        run = await gate.arrival()
        await talk.client.send("text", {"text": "something else"})
        if truth == "cancels":
            cancelled = await talk.client.until("tool_cancelled")
            await run.gone()
            assert len(cancelled["ids"]) == 1
            await talk.client.until("transcription", lambda data: data["isFinal"] and data["text"] == "Well.")
            await talk.client.until("turn_complete")
        else:
            run.finish({"answer": "forty-two"})
            result = await talk.client.until("tool_result")
            assert result["ok"] is True
        await talk.turn()
        assert told(talk.client, "status", "error") == ["status CONNECTING", "status CONNECTED"]
        ended = told(talk.client, "tool_result", "tool_cancelled")
        assert told(talk.client).count("tool_call") == len(ended) == gate.runs == 1
