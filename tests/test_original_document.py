"""Every message, route, port and variable of the original document, from a plain WebSocket client."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path

import httpx
from serving import Server
from simulating import Simulator
from talking import DEADLINE_S, Talker
from websockets.asyncio.client import connect

from tornado_live.settings import load_settings

ENV = """\
GEMINI_API_KEY=your_gemini_api_key_here
PORT=0
WS_PORT=0
ALLOWED_ORIGINS=http://localhost:3000,http://localhost:5173
"""

QUESTIONS = {
    "What's the weather in New York?": ("get_weather", "location", "New York"),
    "Execute a SQL query to get user data": ("execute_sql_query", "query", "users"),
    "Get analytics for the last week": ("get_analytics", "period", "last week"),
    "Search the knowledge base for information about AI": ("search_knowledge_base", "query", "AI"),
}

SCRIPT = {
    "turns": [
        {"heard": "Hello there", "do": [{"say": "Hello, how can I help?", "seconds": 0.5}]},
    ]
}


def home_with_env(directory: Path, text: str = ENV) -> Path:
    (directory / ".env").write_text(text)
    return directory


async def test_the_env_file_of_the_document_works_as_it_stands(tmp_path: Path) -> None:
    async with (
        Server(home=home_with_env(tmp_path), ports=()) as server,
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http,
    ):
        health = (await http.get(f"{server.url}/health")).json()
        assert health["status"] == "ok"
        assert health["upstream"] == "simulator", "a placeholder is no key"
        for origin in ("http://localhost:3000", "http://localhost:5173"):
            answer = await http.post(f"{server.url}/api/sessions", headers={"Origin": origin})
            assert answer.status_code == 201
            assert answer.headers["Access-Control-Allow-Origin"] == origin
        refused = await http.post(f"{server.url}/api/sessions", headers={"Origin": "http://localhost:8000"})
        assert refused.status_code == 403


def test_the_ports_of_the_document_are_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, config=None, environ={}, overrides={})
    assert (settings.port, settings.ws_port) == (3001, 3002)


async def test_the_rest_routes_of_the_document() -> None:
    async with (
        Server() as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=DEADLINE_S) as http,
    ):
        created = await http.post("/api/sessions", headers={"Content-Type": "application/json"})
        assert created.status_code == 201
        session = created.json()["sessionId"]
        assert (await http.get(f"/api/sessions/{session}")).json()["sessionId"] == session
        tools = (await http.get("/api/tools")).json()["tools"]
        assert {name for name, _, _ in QUESTIONS.values()} | {"call_external_api"} <= {
            tool["name"] for tool in tools
        }
        page = await http.get("/")
        assert page.status_code == 200
        assert "text/html" in page.headers["Content-Type"]
        assert (await http.delete(f"/api/sessions/{session}")).status_code == 204
        assert (await http.get(f"/api/sessions/{session}")).status_code == 404


async def test_the_messages_of_the_document_on_the_root_of_ws_port() -> None:
    async with (
        Simulator(SCRIPT, latency=0) as simulator,
        Server(environ={"GEMINI_BASE_URL": simulator.url}) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=DEADLINE_S) as http,
    ):
        session = (await http.post("/api/sessions")).json()["sessionId"]
        async with Talker(f"{server.ws_url}?sessionId={session}") as client:
            await client.send("connect", sessionId=session)
            connecting, connected = await client.next(), await client.next()
            assert connecting == {"type": "status", "data": {"status": "CONNECTING"}, "sessionId": session}
            assert connected["type"] == "status"
            assert connected["data"]["status"] == "CONNECTED"
            await client.send("ping")
            assert await client.next() == {"type": "pong", "sessionId": session}
            tone = (b"\x00\x20" * 4 + b"\x00\xe0" * 4) * 40
            for _ in range(40):
                data = {"data": base64.b64encode(tone).decode(), "mimeType": "audio/pcm;rate=16000"}
                await client.send("audio", data, sessionId=session)
            for _ in range(60):
                data = {"data": base64.b64encode(bytes(640)).decode(), "mimeType": "audio/pcm;rate=16000"}
                await client.send("audio", data, sessionId=session)
            said = await client.until("transcription", lambda data: not data["isUser"] and data["isFinal"])
            assert said["text"] == "Hello, how can I help?"
            heard = [m["data"] for m in client.seen if m["type"] == "transcription" and m["data"]["isUser"]]
            assert heard[0]["text"].strip() == "Hello there"
            assert heard[0]["isFinal"] is False
            audio = next(message for message in client.seen if message["type"] == "audio")
            assert audio["data"]["mimeType"] == "audio/pcm;rate=24000"
            assert any(b"".join(client.audio))
            assert audio["sessionId"] == session
            await client.send("disconnect", sessionId=session)
            gone = await client.until("status")
            assert gone["status"] == "DISCONNECTED"
            await client.raw("not json")
            error = (await client.next())["data"]
            assert error["message"]
            await client.send("connect", sessionId=session)
            await client.until("status", lambda data: data["status"] == "CONNECTED")


async def test_a_client_without_a_session_gets_one() -> None:
    async with Server() as server, connect(f"{server.ws_url}/", proxy=None) as socket:
        await socket.send('{"type": "ping"}')
        session = json.loads(await socket.recv())["sessionId"]
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=DEADLINE_S) as http:
            assert (await http.get(f"/api/sessions/{session}")).json()["connected"] is True


async def test_the_four_questions_run_the_tools_they_should() -> None:
    async with (
        Simulator(speed=10) as simulator,
        Server("--mock-tools", "unreachable", environ={"GEMINI_BASE_URL": simulator.url}) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.connected()
        for question, (tool, argument, words) in QUESTIONS.items():
            await client.send("text", {"text": question})
            call = await client.until("tool_call")
            assert call["name"] == tool, question
            assert words.lower() in str(call["args"].get(argument, "")).lower(), call
            result = await client.until("tool_result")
            assert result["ok"] is True, result
            answer = await client.until("transcription", lambda data: not data["isUser"] and data["isFinal"])
            assert answer["text"]
            await client.until("turn_complete")


async def test_memory_keeps_the_last_fifty_messages_for_thirty_minutes() -> None:
    async with (
        Server() as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=DEADLINE_S) as http,
    ):
        session = (await http.post("/api/sessions", json={"userId": "ada"})).json()
        assert session["userId"] == "ada"
        shown = (await http.get(f"/api/sessions/{session['sessionId']}?include=memory")).json()
        assert shown["memory"] == []
        life = datetime.fromisoformat(session["expiresAt"]) - datetime.fromisoformat(session["createdAt"])
        assert life.total_seconds() == 1800
