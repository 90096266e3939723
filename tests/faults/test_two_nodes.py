"""F18 to F22, F33 and F34 where two processes share the sessions: whoever comes back may come to the other one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis_server import NEEDS_REDIS, running
from talking import Talker
from websockets.exceptions import InvalidStatus

from faults.model import ModelLine
from faults.nodes import Nodes, shared_file, two_nodes
from faults.proxy import Proxy
from faults.stage import settled

SPEECH = bytes(640)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The settings that make two nodes share their sessions."""
    if request.param == "sqlite":
        yield shared_file(tmp_path)
        return
    with running(tmp_path) as redis:
        yield {"REDIS_URL": redis.url}


@asynccontextmanager
async def nodes(store: Mapping[str, str], **environ: str) -> AsyncIterator[Nodes]:
    async with two_nodes(store, **environ) as both:
        yield both


@pytest.mark.proves("F20", "T14")
async def test_the_newest_socket_wins_on_whichever_node_and_the_model_side_is_gone_on_with(
    store: Mapping[str, str],
) -> None:
    async with nodes(store) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.resumable("h1b")
        await settled(lambda: kept(talk.session, both, 2))
        async with both.coming_back(talk.session) as back:
            assert (await talk.client.closed())[0] == 4409
            assert talk.client.seen[-1]["data"]["code"] == "replaced"
            assert back.line.handle == "h1b"
            assert back.connected["resumed"] is True
            assert back.connected["memory"] == "restored"
            assert back.warned == []
            assert await talk.line.closed() == 1000
            assert both.model.open_lines == [back.line]
            await back.turn("And ten?", "Another one.")
        assert await back.memory() == [
            ("user", "What is nine?"),
            ("model", "A number."),
            ("user", "And ten?"),
            ("model", "Another one."),
        ]


async def kept(session: str, both: Nodes, messages: int) -> bool:
    async with httpx.AsyncClient(base_url=both.other.url, trust_env=False) as http:
        shown = (await http.get(f"/api/sessions/{session}")).json()
    return bool(shown["messageCount"] == messages)


@pytest.mark.proves("F20", "F22", "T14")
async def test_of_many_sockets_at_once_on_two_nodes_one_is_left_with_one_line(
    store: Mapping[str, str],
) -> None:
    async with nodes(store) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        loop = asyncio.get_running_loop()
        servers = (both.one, both.other)
        clients = [Talker(f"{servers[n % 2].ws_url}/?sessionId={talk.session}") for n in range(12)]
        await asyncio.gather(*(client.__aenter__() for client in clients))
        everybody = [talk.client, *clients]
        ends = {loop.create_task(client.closed(60)): client for client in everybody}
        while len(ends) > 1:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                assert end.result()[0] == 4409
                del ends[end]
        ((waiting, alive),) = ends.items()
        await alive.connection.close()
        await waiting
        async with both.coming_back(talk.session) as back:
            await back.turn("And ten?", "Another one.")
            assert len(both.model.open_lines) == 1


async def test_a_session_that_is_deleted_on_one_node_ends_on_the_other(store: Mapping[str, str]) -> None:
    async with nodes(store) as both, both.talking() as talk:
        async with httpx.AsyncClient(base_url=both.other.url, trust_env=False) as http:

            async def seen_there() -> bool:
                return (await http.get(f"/api/sessions/{talk.session}")).json()["connected"] is True

            await settled(seen_there)
            deleted = time.monotonic()
            assert (await http.delete(f"/api/sessions/{talk.session}")).status_code == 204
        assert (await talk.client.closed())[0] == 4410
        print(f"closed {time.monotonic() - deleted:.2f} s after the deletion")
        assert await talk.line.closed() == 1000


@pytest.mark.proves("F34")
async def test_after_kill_9_in_mid_speech_the_other_node_goes_on_and_says_what_may_be_missing(
    store: Mapping[str, str],
) -> None:
    async with two_nodes(store, exit_codes=(-signal.SIGKILL, 0)) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        await settled(lambda: kept(talk.session, both, 2))
        await talk.client.speak(SPEECH)
        await talk.line.receive("realtimeInput")
        os.kill(both.one.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert (await talk.client.closed())[0] == 1006
        async with both.coming_back(talk.session) as back:
            print(f"talking again {time.monotonic() - killed:.2f} s after kill -9")
            assert back.line.handle == "h1"
            assert back.warned == ["memory_incomplete"]
            lacking = await back.line.receive("clientContent")
            assert "What is nine?" in str(lacking), "the handle is older than that"
            await back.turn("And ten?", "Another one.")
        assert [text for _, text in await back.memory()] == [
            "What is nine?",
            "A number.",
            "And ten?",
            "Another one.",
        ]


@pytest.mark.proves("F18", "F34")
async def test_a_node_that_hangs_counts_as_dead_and_gives_way_when_it_wakes(store: Mapping[str, str]) -> None:
    async with nodes(store) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        await settled(lambda: kept(talk.session, both, 2))
        os.kill(both.one.pid, signal.SIGSTOP)
        try:
            async with both.coming_back(talk.session) as back:
                assert back.warned == ["memory_incomplete"]
                await back.turn("And ten?", "Another one.")
                os.kill(both.one.pid, signal.SIGCONT)
                assert (await talk.client.closed())[0] == 4409
                await back.turn("And eleven?", "One more.")
        finally:
            os.kill(both.one.pid, signal.SIGCONT)
        assert [text for _, text in await back.memory()][-2:] == ["And eleven?", "One more."]


@pytest.mark.proves("F33")
async def test_a_node_that_is_told_to_stop_lets_the_turn_end_and_the_other_one_goes_on(
    store: Mapping[str, str],
) -> None:
    async with nodes(store, LIMITS__DRAIN_S="10") as both, both.talking() as talk:
        await talk.client.send("text", {"text": "What is nine?"})
        await talk.line.typed()
        await talk.line.say("A num", bytes(4800), complete=False)
        os.kill(both.one.pid, signal.SIGTERM)
        await talk.client.until("status", lambda data: data["status"] == "DRAINING")
        with pytest.raises(InvalidStatus) as refused:
            async with Talker(f"{both.one.ws_url}/?sessionId={talk.session}"):
                pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] in ("1", "2")
        async with httpx.AsyncClient(base_url=both.one.url, trust_env=False) as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/health/ready")).status_code == 503
            made = await http.post("/api/sessions")
            assert (made.status_code, made.json()["error"]["code"]) == (503, "unavailable")
        await talk.line.say("ber.")
        await talk.line.resumable("h1b")
        assert (await talk.client.closed())[0] == 1001
        async with both.coming_back(talk.session) as back:
            assert back.line.handle == "h1b"
            assert back.warned == []
            assert await back.memory() == [("user", "What is nine?"), ("model", "A number.")]


@pytest.mark.proves("F33")
async def test_a_second_sigterm_ends_a_node_at_once_and_still_says_goodbye(store: Mapping[str, str]) -> None:
    async with nodes(store, LIMITS__DRAIN_S="60") as both, both.talking() as talk:
        await talk.client.send("text", {"text": "What is nine?"})
        await talk.line.typed()
        await talk.line.say("A num", bytes(4800), complete=False)
        os.kill(both.one.pid, signal.SIGTERM)
        await talk.client.until("status", lambda data: data["status"] == "DRAINING")
        os.kill(both.one.pid, signal.SIGTERM)
        assert (await talk.client.closed())[0] == 1001
        async with both.coming_back(talk.session) as back:
            assert await back.memory() == [("user", "What is nine?"), ("model", "A num")]


@pytest.mark.proves("F18")
async def test_a_client_whose_line_was_cut_finds_its_conversation_on_the_other_node(
    store: Mapping[str, str],
) -> None:
    async with nodes(store) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.resumable("h1b")
        await talk.client.send("text", {"text": "And ten?"})
        await talk.line.typed()
        talk.client.connection.transport.abort()
        await both.one.printed('"client_lost"')
        async with both.coming_back(talk.session) as back:
            assert back.line.handle == "h1b"
            assert await talk.line.closed() == 1000, "nobody waits for the client there any more"
            assert back.warned == []
            await back.turn("And eleven?", "One more.")
        assert [text for role, text in await back.memory() if role == "user"] == [
            "What is nine?",
            "And ten?",
            "And eleven?",
        ]


@pytest.mark.proves("F19")
async def test_a_client_that_did_not_read_goes_on_elsewhere(store: Mapping[str, str]) -> None:
    async with nodes(store) as both, Proxy(both.one.ws_port or 0) as proxy:
        async with Talker(f"ws://127.0.0.1:{proxy.port}/") as client:
            await client.send("connect")
            line = await both.model.dialled()
            await line.ready("h1")
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            session = client.seen[-1]["sessionId"]
            proxy.lines[0].down.stall()
            speaking = asyncio.get_running_loop().create_task(flood(line))
            await both.one.printed('"slow_consumer"')
            proxy.lines[0].down.release()
            assert (await client.closed())[0] == 4430
        async with both.coming_back(session) as back:
            await back.turn("And ten?", "Another one.")
        await asyncio.gather(speaking, return_exceptions=True)


async def flood(line: ModelLine) -> None:
    for _ in range(1000):
        await line.say(" word", bytes(range(256)) * 256, complete=False)


@pytest.mark.proves("F21")
async def test_what_is_said_while_one_node_waits_for_the_other_arrives_once_and_in_its_order(
    store: Mapping[str, str],
) -> None:
    async with nodes(store) as both, both.talking() as talk:
        await talk.turn("What is nine?", "A number.")
        await settled(lambda: kept(talk.session, both, 2))
        os.kill(both.one.pid, signal.SIGSTOP)
        try:
            async with Talker(f"{both.other.ws_url}/?sessionId={talk.session}") as client:
                await client.send("connect")
                spoken = [bytes([number]) * 640 for number in range(20)]
                for pcm in spoken[:10]:
                    await client.speak(pcm)
                await client.send("text", {"text": "And ten?"})
                for pcm in spoken[10:]:
                    await client.speak(pcm)
                line = await both.model.dialled()
                await line.ready("h2")
                await client.until("status", lambda data: data["status"] == "CONNECTED")
                await settled(lambda: all_of(line, b"".join(spoken)))
                await line.say("Another one.", bytes(4800))
                await client.until("turn_complete")
        finally:
            os.kill(both.one.pid, signal.SIGCONT)
        assert "And ten?" in str(line.got)
        assert str(line.got).count("And ten?") == 1


async def all_of(line: ModelLine, pcm: bytes) -> bool:
    while len(line.audio) < len(pcm):
        await line.receive("realtimeInput")
    return line.audio == pcm
