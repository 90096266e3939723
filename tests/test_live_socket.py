"""The native WebSocket of a running server: the doors, wrong input, loss and return."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server
from simulating import Simulator
from talking import DEADLINE_S, Talker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Hello.", "seconds": 0.2}]}]}


def one_turn(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"turns": [{"repeat": True, "do": list(steps)}]}


class Served:
    """A server in front of a scripted model."""

    def __init__(
        self, script: dict[str, Any] = HELLO, *args: str, home: Path | None = None, **environ: str
    ) -> None:
        self._simulator = Simulator(script, latency=0.05, speed=2)
        self._args, self._home, self._environ = args, home, environ
        self._server: Server | None = None

    async def __aenter__(self) -> Server:
        await self._simulator.__aenter__()
        environ = {"GEMINI_BASE_URL": self._simulator.url, **self._environ}
        self._server = Server(*self._args, home=self._home, environ=environ)
        return await self._server.__aenter__()

    async def __aexit__(self, *failure: Any) -> None:
        assert self._server is not None
        try:
            await self._server.__aexit__(*failure)
        finally:
            await self._simulator.__aexit__(*failure)


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def talk_once(client: Talker) -> None:
    await client.send("text", {"text": "hi"})
    await client.until("turn_complete")


WRONG: list[tuple[str | bytes, str, str]] = [
    ("hello", "bad_message", "JSON"),
    ("[1, 2]", "bad_message", "object"),
    ('{"type": "conect"}', "bad_message", 'did you mean "connect"'),
    ('{"type": "text", "data": {"text": 1}}', "bad_message", "$.data.text"),
    ('{"type": "connect", "data": {"voise": "Kore"}}', "bad_message", 'did you mean "voice"'),
    ('{"type": "audio", "data": {"data": "%%%"}}', "bad_message", "base64"),
    ('{"type": "audio", "data": {"data": "AAAA"}}', "bad_message", "odd number"),
    (b"\x00", "bad_message", "odd number"),
    ('{"type": "audio", "data": {"data": "AAA=", "mimeType": "audio/ogg"}}', "bad_message", "mimeType"),
    ('{"type": "video", "data": {"data": "AAA="}}', "bad_message", "image/jpeg"),
    ('{"type": "text", "data": {"text": "' + "x" * 300_000 + '"}}', "too_large", "262144"),
    ('{"type": "ping", "sessionId": "another"}', "session_mismatch", "another session"),
]


async def test_wrong_messages_get_their_code_and_words_and_lose_nothing() -> None:
    async with Served() as server, Talker(f"{server.url.replace('http', 'ws')}/ws") as client:
        await client.connected()
        for frame, code, words in WRONG:
            await client.raw(frame)
            message = await client.next()
            assert message["type"] == "error", frame[:60]
            assert message["data"]["code"] == code, frame[:60]
            assert words in message["data"]["message"], message["data"]["message"]
            assert message["data"]["requestId"]
            assert message["data"]["retryable"] is False
        await talk_once(client)
        assert "audio" in client.types()


async def test_more_than_twenty_wrong_messages_a_minute_close_the_line() -> None:
    async with Server() as server, Talker(f"{server.ws_url}/") as client:
        for _ in range(21):
            await client.raw("?")
        assert (await client.closed())[0] == 4400
        assert [message["type"] for message in client.seen] == ["error"] * 21


async def test_audio_before_connect_and_after_disconnect_is_told_once_each() -> None:
    async with Served() as server, Talker(f"{server.ws_url}/") as client:
        for _ in range(50):
            await client.raw(bytes(640))
        await client.connected()
        await client.send("disconnect")
        for _ in range(50):
            await client.raw(bytes(640))
        await client.send("ping")
        await client.until("pong")
        assert client.types().count("error") == 2


async def test_foreign_hosts_and_origins_are_refused_before_the_upgrade() -> None:
    async with Server() as server:
        for host, origin in (
            ("127.0.0.1", "http://evil.example"),
            ("evil.example", None),
            ("127.0.0.1", "null"),
        ):
            for port, path in ((server.ws_port, "/"), (server.port, "/ws")):
                with pytest.raises(InvalidStatus) as refused:
                    async with connect(
                        f"ws://{host}:{port}{path}", host="127.0.0.1", port=port, origin=origin, proxy=None
                    ):
                        pass
                assert refused.value.response.status_code == 403
                assert json.loads(refused.value.response.body or b"")["error"]["code"] == "forbidden"
        async with connect(f"{server.ws_url}/", origin=f"http://127.0.0.1:{server.port}", proxy=None):  # type: ignore[arg-type]
            pass


async def test_an_unknown_session_is_told_and_closed() -> None:
    async with Server() as server, Talker(f"{server.ws_url}/?sessionId=nope") as client:
        assert await client.closed() == (4404, client.seen[0]["data"]["message"][:123])
        assert client.seen[0]["data"]["code"] == "session_not_found"


async def test_a_plain_request_for_the_socket_is_told_what_it_is() -> None:
    async with Server() as server, httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http:
        answer = await http.get(f"{server.url}/ws")
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "bad_message"


async def test_a_client_that_never_connects_is_closed() -> None:
    async with Server("--set", "limits.hello_timeout_s=0.2") as server, Talker(f"{server.ws_url}/") as client:
        assert (await client.closed())[0] == 4408


async def test_a_line_on_which_nothing_is_said_carries_a_message_now_and_then() -> None:
    async with Server("--set", "limits.heartbeat_s=0.2") as server, Talker(f"{server.ws_url}/") as client:
        await client.connected()
        for _ in range(2):
            assert await client.until("pong") == {}


async def test_a_newer_socket_takes_the_session_over_and_goes_on_with_it() -> None:
    async with Served() as server, Talker(f"{server.ws_url}/") as first:
        await first.connected(audio="binary")
        session = first.seen[-1]["sessionId"]
        async with Talker(f"{server.ws_url}/?sessionId={session}") as second:
            status = await second.until("status")
            assert status["status"] == "CONNECTED"
            assert status["resumed"] is True
            assert (await first.closed())[0] == 4409
            await talk_once(second)
            assert second.audio, "binary audio, as agreed before"


async def test_a_cut_line_finds_its_conversation_going_on() -> None:
    async with Served() as server:
        async with Talker(f"{server.ws_url}/") as client:
            await client.connected()
            session = client.seen[-1]["sessionId"]
            client.connection.transport.abort()
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            assert (await client.until("status"))["resumed"] is True
            await client.send("connect")
            again = await client.until("status")
            assert (again["status"], again["resumed"]) == ("CONNECTED", True)
            await talk_once(client)


async def test_a_client_that_does_not_read_is_closed_and_may_come_back_to_its_conversation() -> None:
    async with Served() as server:
        async with Talker(f"{server.ws_url}/", max_queue=1) as client:
            await client.connected()
            session = client.seen[-1]["sessionId"]
            ping = json.dumps({"type": "ping", "data": "x" * 250_000})
            with contextlib.suppress(ConnectionClosed):
                for _ in range(60):
                    await client.raw(ping)
            await server.printed('"slow_consumer"')
            client.connection.transport.abort()
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            assert (await client.until("status"))["resumed"] is True
            await talk_once(client)
            assert "audio" in client.types()


async def test_memory_survives_disconnect_a_new_socket_and_a_restart(tmp_path: Path) -> None:
    async with Served(home=tmp_path) as server, Talker(f"{server.ws_url}/") as client:
        await client.connected()
        session = client.seen[-1]["sessionId"]
        await talk_once(client)
        await client.send("disconnect")
        await client.until("status")
        again = await client.connected()
        assert again["memory"] == "restored"
    async with (
        Served(home=tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=DEADLINE_S) as http,
    ):
        shown = (await http.get(f"/api/sessions/{session}?include=memory")).json()
        assert [(item["role"], item["text"], item["turn"]) for item in shown["memory"]] == [
            ("user", "hi", 1),
            ("model", "Hello.", 1),
        ]
        events = (await http.get(f"/api/sessions/{session}/events")).json()["events"]
        assert [event["kind"] for event in events].count("turn") == 1
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            assert (await client.connected())["memory"] == "restored"
            await client.send("text", {"text": "hi"})
            assert (await client.until("turn_complete"))["turn"] == 2


async def test_a_simulator_without_a_voice_says_so_before_and_after_connect() -> None:
    async with (
        Server() as server,
        Talker(f"{server.ws_url}/") as client,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        await client.connected()
        warning = await client.until("warning")
        assert warning["code"] == "voice_unavailable"
        assert "switched off" in warning["message"]
        assert (await http.get(f"{server.url}/health")).json()["upstreamNotice"] == warning["message"]


async def test_a_simulator_that_dies_is_started_again() -> None:
    async with Server() as server, Talker(f"{server.ws_url}/") as client:
        await client.connected()
        for child in children(server.pid):
            os.kill(child, signal.SIGKILL)
        assert await client.until("status") == {"status": "RECONNECTING"}
        assert (await client.until("status"))["status"] == "CONNECTED"


async def test_a_deleted_session_closes_its_socket() -> None:
    async with (
        Served() as server,
        Talker(f"{server.ws_url}/") as client,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        await client.connected()
        session = client.seen[-1]["sessionId"]
        assert (await http.delete(f"{server.url}/api/sessions/{session}")).status_code == 204
        assert (await client.closed())[0] == 4410
        assert client.seen[-1]["data"]["code"] == "session_ended"


@pytest.mark.parametrize(
    "loss", [{"close": {"code": 1011, "reason": "Internal error encountered."}}, {"drop": True}]
)
async def test_a_lost_model_side_is_dialled_again_and_asked_what_it_did_not_answer(
    loss: dict[str, Any],
) -> None:
    script = {
        "connections": [
            {"turns": [{"do": [{"say": "I will be cut", "seconds": 0.2}, loss]}]},
            {"turns": [{"repeat": True, "do": [{"say": "Here again.", "seconds": 0.1}]}]},
        ]
    }
    async with Served(script) as server, Talker(f"{server.ws_url}/") as client:
        await client.connected()
        await client.send("text", {"text": "hi"})
        assert await client.until("status") == {"status": "RECONNECTING"}
        assert (await client.until("turn_complete"))["turn"] == 1
        connected = await client.until("status")
        assert (connected["status"], connected["memory"]) == ("CONNECTED", "restored")
        assert connected["gapMs"] > 0
        assert (await client.until("turn_complete"))["turn"] == 2
        assert "Here again." in [message["data"].get("text") for message in client.seen]


async def test_a_model_that_refuses_the_key_is_told_with_the_remedy_and_seen_by_the_probe() -> None:
    script = {"setup": {"close": {"code": 1007, "reason": "API key not valid. Please pass a valid API key."}}}
    async with (
        Served(script) as server,
        Talker(f"{server.ws_url}/") as client,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        await client.send("connect")
        error = await client.until("error")
        assert error["code"] == "upstream_rejected"
        assert "GEMINI_API_KEY" in error["message"]
        ready = await http.get(f"{server.url}/health/ready")
        assert ready.status_code == 503
        assert "GEMINI_API_KEY" in ready.json()["error"]["message"]
        metrics = (await http.get(f"{server.url}/metrics")).text
        assert 'upstream_dials_total{outcome="refused"} 1.0' in metrics
        assert 'upstream_dials_total{outcome="opened"} 0.0' in metrics


async def test_speaking_into_an_answer_ends_it() -> None:
    script = {
        "turns": [
            {"do": [{"say": "A very long story", "seconds": 20}]},
            {"heard": "stop", "do": [{"say": "All right.", "seconds": 0.2}]},
        ]
    }
    tone = (b"\x00\x20" * 4 + b"\x00\xe0" * 4) * 40
    async with Served(script) as server, Talker(f"{server.ws_url}/") as client:
        await client.connected()
        await client.send("text", {"text": "hi"})
        await client.until("transcription")
        for _ in range(25):
            await client.speak(tone)
        for _ in range(50):
            await client.speak(bytes(640))
        assert (await client.until("interrupted"))["turn"] == 1
        sound = len(client.audio)
        assert (await client.until("turn_complete"))["turn"] == 1
        assert len(client.audio) == sound, "nothing of the interrupted turn is played"
        said = await client.until("transcription", lambda data: not data["isUser"] and data["isFinal"])
        assert (said["text"], said["turn"]) == ("All right.", 2)


TOOLS = """\
version: 1
tools:
  add_up:
    description: Adds two numbers.
    parameters: {type: object, properties: {a: {type: number}, b: {type: number}}, required: [a, b]}
    python: shop_tools:add_up
  break_down:
    description: Raises.
    parameters: {type: object, properties: {}}
    python: shop_tools:break_down
  hang:
    description: Never ends.
    parameters: {type: object, properties: {}}
    python: shop_tools:hang
    timeout: 300ms
  babble:
    description: Answers what is not JSON.
    parameters: {type: object, properties: {}}
    python: shop_tools:babble
"""
HANDLERS = """\
import asyncio

def add_up(a, b):
    return {"sum": a + b}

def break_down():
    raise RuntimeError("secret-password-in-a-traceback")

async def hang():
    await asyncio.Event().wait()

def babble():
    return object()
"""


async def test_tools_that_raise_hang_or_answer_nonsense_are_answered_and_the_conversation_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "shop_tools.py").write_text(HANDLERS)
    calls = [
        {"name": "break_down", "args": {}},
        {"name": "hang", "args": {}},
        {"name": "babble", "args": {}},
        {"name": "add_up", "args": {"a": "one"}},
        {"name": "nothing_like_it", "args": {}},
        {"name": "add_up", "args": {"a": 1, "b": 2}},
    ]
    script = one_turn({"call": calls}, {"say": "Done.", "seconds": 0.1})
    async with (
        Served(
            script,
            "--set",
            "handler_prefixes=shop_tools",
            home=tmp_path,
            PYTHONPATH=f"{tmp_path}:{Path.cwd()}",
        ) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.connected()
        await client.send("text", {"text": "hi"})
        await client.until("turn_complete")
        results = [message["data"] for message in client.seen if message["type"] == "tool_result"]
        by_order = {
            message["data"]["id"]: index
            for index, message in enumerate(m for m in client.seen if m["type"] == "tool_call")
        }
        outcome = sorted((by_order[result["id"]], result["ok"], result.get("error")) for result in results)
        assert [one[1:] for one in outcome] == [
            (False, "failed"),
            (False, "timeout"),
            (False, "bad_answer"),
            (False, "invalid_arguments"),
            (False, "unknown_tool"),
            (True, None),
        ]
        assert "secret-password" not in json.dumps(client.seen)
        assert "secret-password" in server.log
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http:
            metrics = (await http.get(f"{server.url}/metrics")).text
        assert 'tornado_live_tool_calls_total{outcome="timeout",tool="hang"} 1.0' in metrics
        assert "tornado_live_turns_total 1.0" in metrics
        assert 'tornado_live_tokens_total{direction="output"} 0.0' not in metrics


async def test_a_broken_tools_yaml_stops_the_start_with_one_line_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(
        TOOLS.replace("version: 1", "version: 2").replace("timeout: 300ms", "timeout: soon")
    )
    (tmp_path / "shop_tools.py").write_text(HANDLERS)
    server = Server("--set", "handler_prefixes=shop_tools", home=tmp_path)
    with pytest.raises(AssertionError) as stopped:
        await server.__aenter__()
    assert "tools.yaml:1: version:" in str(stopped.value)
    assert "hang.timeout" in str(stopped.value)
    assert "Traceback" not in str(stopped.value)


async def test_push_to_talk_sends_one_turn_from_press_to_release() -> None:
    script = {"turns": [{"heard": "hello", "do": [{"say": "Hello to you.", "seconds": 0.1}]}]}
    tone = (b"\x00\x20" * 4 + b"\x00\xe0" * 4) * 40
    async with Served(script) as server, Talker(f"{server.ws_url}/") as client:
        await client.connected(activity="manual", audio="binary")
        await client.send("activity_start")
        for _ in range(20):
            await client.raw(tone)
        await client.send("activity_end")
        said = await client.until("transcription", lambda data: not data["isUser"] and data["isFinal"])
        assert said["text"] == "Hello to you."


async def test_a_full_process_says_when_to_come_back() -> None:
    async with (
        Served(HELLO, "--set", "limits.max_conversations=1") as server,
        Talker(f"{server.ws_url}/") as first,
    ):
        await first.connected()
        async with Talker(f"{server.ws_url}/") as second:
            assert (await second.closed())[0] == 4429
            assert second.seen[0]["data"]["retryAfterMs"] > 0
        await talk_once(first)


async def test_a_stopping_server_closes_its_clients_and_keeps_their_words(tmp_path: Path) -> None:
    async with Served(home=tmp_path) as server:
        client = Talker(f"{server.ws_url}/")
        await client.__aenter__()
        await client.connected()
        session = client.seen[-1]["sessionId"]
        await talk_once(client)
        closed = asyncio.get_running_loop().create_task(client.closed())
    assert (await closed)[0] == 1001
    async with (
        Server(home=tmp_path) as server,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        shown = (await http.get(f"{server.url}/api/sessions/{session}?include=memory")).json()
        assert len(shown["memory"]) == 2
