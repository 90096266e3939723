"""The REST routes over real HTTP, on a real store."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_live import __version__
from tornado_live.access.origins import Doors
from tornado_live.errors import LiveError, SessionEnded
from tornado_live.handlers import api, pages, tools
from tornado_live.handlers.door import House, log_request
from tornado_live.handlers.paths import Paths
from tornado_live.observe.events import Event
from tornado_live.observe.logs import JsonFormatter, Masker
from tornado_live.observe.metrics import Metrics
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import MemoryItem
from tornado_live.settings import load_settings
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.runner import ToolRunner

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FOREIGN = "https://evil.example"
LISTED = "http://localhost:3000"


@dataclass
class Talks:
    """The running conversations, as the registry would tell of them."""

    open: set[str] = field(default_factory=set)
    ended: list[tuple[str, LiveError]] = field(default_factory=list)
    upstream: str = "simulator"
    trouble: str | None = None
    notice: str | None = None
    draining: bool = False

    @property
    def count(self) -> int:
        return len(self.open)

    def upstream_ready(self) -> str | None:
        return self.trouble

    def upstream_notice(self) -> str | None:
        return self.notice

    def connected(self, session_id: str) -> bool:
        return session_id in self.open

    async def end(self, session_id: str, error: LiveError) -> None:
        self.open.discard(session_id)
        self.ended.append((session_id, error))


TOOLS = """
version: 1
tools:
  get_weather:
    description: Weather.
    parameters: {type: object, properties: {place: {type: string}}, required: [place]}
    http: {url: "https://weather.example/now", query: {q: "{place}"}}
    mock: {celsius: 21}
  look_up_article:
    description: An article.
    parameters: {type: object, properties: {}}
    http: {url: "https://wiki.example/page"}
    mock: {text: Rome}
"""


def shelf(home: Path) -> ToolCatalog:
    path = home / "two-tools.yaml"
    path.write_text(TOOLS, encoding="utf-8")
    return load_catalog(path, home=home, data_dir=home, environment={})


@dataclass
class Served:
    client: httpx.AsyncClient
    store: SqliteSessionStore
    talks: Talks
    metrics: Metrics
    port: int

    async def created(self, **body: object) -> str:
        answer = await self.client.post("/api/sessions", json=body)
        assert answer.status_code == 201
        return str(answer.json()["sessionId"])


@asynccontextmanager
async def served(
    home: Path,
    *,
    environ: Mapping[str, str] | None = None,
    tools_error: str | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Served]:
    settings = load_settings(
        home=home,
        config=None,
        environ={"ALLOWED_ORIGINS": LISTED, **(environ or {})},
        overrides={},
    )
    store = await SqliteSessionStore.open(home / "sessions.db", ttl_s=1800)
    [listener] = bind_sockets(0, "127.0.0.1")
    port = listener.getsockname()[1]
    doors = Doors(settings.allowed_origins, settings.allowed_hosts, [port], public_url=settings.public_url)
    paths = Paths.of(settings.base_path, settings.public_url)
    house = House(doors, Metrics(), (port, 3002), paths=paths)
    talks, catalog, runner = Talks(), shelf(home), ToolRunner(mock="always")
    rest = api.Rest(
        house=house,
        settings=settings,
        store=store,
        running=talks,
        catalog=lambda: catalog,
        tools_error=lambda: tools_error,
    )
    tool_routes = tools.ToolRoutes(house, settings, store, lambda: catalog, runner)
    routes = tools.routes(tool_routes) + api.routes(rest) + (pages.routes(house, folder) if folder else [])
    application = Application(
        routes,
        log_function=log_request,
        default_handler_class=api.NoSuchRouteHandler,
        default_handler_args={"rest": rest},
    )
    server = HTTPServer(application, max_body_size=1024 * 1024)
    server.add_socket(listener)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield Served(client, store, talks, house.metrics, port)
    finally:
        server.stop()
        await server.close_all_connections()
        await runner.close()
        await store.close()


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, after a look at its shape."""
    body = answer.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "retryable", "requestId"}
    assert error["requestId"] == answer.headers["X-Request-Id"]
    assert answer.headers["Content-Type"] == "application/json"
    return error


async def raw(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and whole answer to bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer


async def test_health_says_what_runs(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        server.talks.open.add("x")
        answer = await server.client.get("/health")
        body = answer.json()
        assert body.pop("uptimeSeconds") > 0
        assert (answer.status_code, body) == (
            200,
            {
                "status": "ok",
                "version": __version__,
                "conversations": 1,
                "processes": 1,
                "upstream": "simulator",
                "tools": {"loaded": 2},
            },
        )


async def test_health_names_what_is_wrong_with_the_tools(tmp_path: Path) -> None:
    async with served(tmp_path, tools_error="tools.yaml:3: version: is missing") as server:
        tools = (await server.client.get("/health")).json()["tools"]
        assert tools == {"loaded": 2, "error": "tools.yaml:3: version: is missing"}


async def test_ready_gives_the_reason_why_not(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        assert (await server.client.get("/health/ready")).json() == {"status": "ready"}
        server.talks.trouble = "Google refuses the key. Check GEMINI_API_KEY."
        answer = await server.client.get("/health/ready")
        assert answer.status_code == 503
        error = refusal(answer)
        assert (error["code"], error["message"], error["retryable"]) == (
            "unavailable",
            "Google refuses the key. Check GEMINI_API_KEY.",
            True,
        )


async def test_a_flood_of_questions_whether_it_is_ready_is_one_for_the_store(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        asked, healthy = 0, server.store.healthy

        async def counted() -> bool:
            nonlocal asked
            asked += 1
            return await healthy()

        server.store.healthy = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(server.client.get("/health/ready") for _ in range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked < 50


async def test_without_a_store_the_server_lives_but_is_not_ready(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await server.store.close()
        assert (await server.client.get("/health")).status_code == 200
        assert (await server.client.get("/health/ready")).status_code == 503
        answer = await server.client.post("/api/sessions")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert refusal(answer)["code"] == "unavailable"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"headers": {"Content-Type": "application/json"}},
        {"headers": {"Content-Type": "application/json"}, "content": b" \n"},
        {"json": {}},
        {"json": {"userId": None, "metadata": None, "assistant": None, "later": 1}},
        {"headers": {"Content-Type": "Application/JSON; charset=utf-8"}, "content": b"{}"},
    ],
)
async def test_a_session_needs_nothing_to_be_created(tmp_path: Path, request_: dict[str, Any]) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.post("/api/sessions", **request_)
        body = answer.json()
        assert answer.status_code == 201
        assert set(body) == {"sessionId", "userId", "assistant", "createdAt", "expiresAt", "wsUrl"}
        assert (body["userId"], body["assistant"]) == ("local", "default")
        assert TIME.fullmatch(body["createdAt"])
        assert TIME.fullmatch(body["expiresAt"])
        assert body["wsUrl"] == f"ws://127.0.0.1:{server.port}/ws?sessionId={body['sessionId']}"
        assert answer.headers["Location"] == f"/api/sessions/{body['sessionId']}"


async def test_a_user_id_is_a_label(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        id = await server.created(userId="Ann ✓", metadata={"ticket": 7})
        assert (await server.client.get(f"/api/sessions/{id}")).json()["userId"] == "Ann ✓"
        session = await server.store.get(id, user="local")
        assert (session.user, session.label, session.metadata) == ("local", "Ann ✓", {"ticket": 7})


async def test_the_socket_address_follows_the_host_asked_for(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.post("/api/sessions", headers={"Host": "localhost:8080"})
        assert answer.json()["wsUrl"].startswith("ws://localhost:8080/ws?sessionId=")


@pytest.mark.parametrize(
    ("public", "start"),
    [
        ("https://talk.example.com", "wss://talk.example.com/ws?sessionId="),
        ("http://box:8080/voice/", "ws://box:8080/voice/ws?sessionId="),
    ],
)
async def test_the_socket_address_is_the_public_one_where_set(
    tmp_path: Path, public: str, start: str
) -> None:
    async with served(tmp_path, environ={"PUBLIC_URL": public}) as server:
        assert (await server.client.post("/api/sessions")).json()["wsUrl"].startswith(start)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"userId": 7}',
        b'{"metadata": []}',
        b'{"metadata": {"x": NaN}}',
        b'{"userId": "\\ud800"}',
        b'{"metadata":' * 5000,
        b'{"metadata": ' + b"[" * 30000 + b"]" * 30000 + b"}",
        b'{"userId": "' + b"x" * 257 + b'"}',
    ],
)
async def test_a_body_that_does_not_fit_is_a_bad_message(tmp_path: Path, body: bytes) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.post(
            "/api/sessions", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert refusal(answer)["code"] == "bad_message"
        assert (await server.client.get("/api/sessions")).json() == {"sessions": []}


async def test_an_unknown_assistant_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "development.yaml").write_text("assistants: {support: {}}\n")
    async with served(tmp_path) as server:
        answer = await server.client.post("/api/sessions", json={"assistant": "suport"})
        assert refusal(answer)[
            "message"
        ] == 'There is no assistant "suport" - did you mean "support"?.'.replace("?.", "?")
        assert await server.created(assistant="support")


@pytest.mark.proves("T4")
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_only_json_creates_sessions(tmp_path: Path, kind: str) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.post(
            "/api/sessions", content=b'{"userId":"x"}', headers={"Content-Type": kind}
        )
        assert (answer.status_code, refusal(answer)["code"]) == (400, "bad_message")


@pytest.mark.parametrize("size", [64 * 1024 + 1, 1000 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_its_cap_is_too_large(tmp_path: Path, size: int, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 16384):
            yield b" " * min(16384, size - start)

    async with served(tmp_path) as server:
        content: Any = chunks() if chunked else b" " * size
        answer = await server.client.post(
            "/api/sessions", content=content, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, refusal(answer)["code"]) == (413, "too_large")
        assert (await server.client.post("/api/sessions", content=b" " * 65536)).status_code == 201


async def test_a_session_is_shown_with_what_happened_in_it(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        id = await server.created()
        server.talks.open.add(id)
        server.store.remember(id, MemoryItem("user", "Weather?", 1, 1_800_000_000.25))
        server.store.remember(id, MemoryItem("tool", "get_weather: sunny", 1, 1_800_000_001))
        server.store.remember(id, MemoryItem("model", "Sunny.", 1, 1_800_000_002))
        server.store.set_usage(id, {"totalTokens": 3})
        server.store.record(id, Event(1_800_000_003, "turn_ended", {"turn": 1}))

        body = (await server.client.get(f"/api/sessions/{id}")).json()
        for name in ("createdAt", "lastActiveAt", "expiresAt"):
            assert TIME.fullmatch(body.pop(name))
        assert body == {
            "sessionId": id,
            "userId": "local",
            "assistant": "default",
            "metadata": {},
            "connected": True,
            "messageCount": 3,
            "usage": {"totalTokens": 3},
        }

        memory = (await server.client.get(f"/api/sessions/{id}?include=memory")).json()["memory"]
        assert memory[0] == {"role": "user", "text": "Weather?", "turn": 1, "at": "2027-01-15T08:00:00.250Z"}
        assert [item["role"] for item in memory] == ["user", "tool", "model"]

        assert (await server.client.get(f"/api/sessions/{id}/events")).json() == {
            "sessionId": id,
            "events": [{"at": "2027-01-15T08:00:03.000Z", "kind": "turn_ended", "data": {"turn": 1}}],
        }


async def test_sessions_are_listed_newest_first_page_by_page(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        ids = [await server.created() for _ in range(3)]
        first = (await server.client.get("/api/sessions?limit=2")).json()
        second = (
            await server.client.get("/api/sessions", params={"limit": 2, "after": first["next"]})
        ).json()
        assert [shown["sessionId"] for shown in first["sessions"] + second["sessions"]] == ids[::-1]
        assert "next" not in second
        assert first["sessions"][0] == (await server.client.get(f"/api/sessions/{ids[2]}")).json()


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=٣", "after=x", "limit="]
)
async def test_a_page_that_cannot_be_is_a_bad_message(tmp_path: Path, query: str) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.get(f"/api/sessions?{query}")
        assert (answer.status_code, refusal(answer)["code"]) == (400, "bad_message")


async def test_deleting_a_session_ends_its_conversation(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        id = await server.created()
        answer = await server.client.delete(f"/api/sessions/{id}")
        assert (answer.status_code, answer.content) == (204, b"")
        [(ended, error)] = server.talks.ended
        assert ended == id
        assert isinstance(error, SessionEnded)
        assert (await server.client.get(f"/api/sessions/{id}")).status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("HEAD", "")])
@pytest.mark.parametrize("id", ["unknown", "%00", "..%2f..%2fetc", "%ff", "ü"])
async def test_an_unknown_session_is_the_same_answer_everywhere(
    tmp_path: Path, method: str, path: str, id: str
) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.request(method, f"/api/sessions/{id}{path}")
        if id == "%ff":  # no UTF-8 and so no id
            assert answer.status_code == 400
            return
        assert answer.status_code == 404
        if method != "HEAD":
            assert refusal(answer)["code"] == "session_not_found"
        assert server.talks.ended == []


@pytest.mark.proves("T12")
async def test_a_foreign_session_looks_like_an_unknown_one(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        foreign = (await server.store.create(user="bob", assistant="default", metadata={})).id
        answers = []
        for id in (foreign, "unknown"):
            error = refusal(await server.client.get(f"/api/sessions/{id}?include=memory"))
            error.pop("requestId")
            answers.append(error)
        assert answers[0] == answers[1]
        assert (await server.client.delete(f"/api/sessions/{foreign}")).status_code == 404
        assert (await server.client.get("/api/sessions")).json() == {"sessions": []}
        assert (await server.store.get(foreign, user="bob")).id == foreign


async def test_tools_are_those_that_some_assistant_may_use(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        listed = (await server.client.get("/api/tools")).json()["tools"]
        assert [tool["name"] for tool in listed] == ["get_weather", "look_up_article"]
        assert set(listed[0]) == {"name", "description", "parameters", "behaviour"}


async def test_a_tool_is_run_by_hand_from_this_machine_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(tmp_path) as server:
        path = "/api/tools/get_weather/invoke"
        answer = await server.client.post(path, json={"args": {"place": "Rome"}})
        body = answer.json()
        assert (answer.status_code, body["status"], body["result"]) == (200, "ok", {"celsius": 21})
        assert body["sample"] is True
        refused = await server.client.post(path, json={"args": {"place": 7}})
        assert f"call {refused.headers['X-Request-Id']} of session invoke-" in caplog.text
        wrong = refused.json()
        assert (wrong["status"], wrong["error"]["code"]) == ("error", "invalid_arguments")
        unknown = await server.client.post("/api/tools/get_wether/invoke", json={})
        assert (unknown.status_code, refusal(unknown)["code"]) == (400, "bad_message")
        proxied = await server.client.post(path, json={}, headers={"X-Forwarded-For": "127.0.0.1"})
        assert (proxied.status_code, refusal(proxied)["code"]) == (403, "forbidden")


async def test_the_calls_of_a_session_are_told_with_their_ends(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        id = await server.created()
        begun = {"id": "1", "name": "get_weather", "turn": 1, "argsDigest": "d"}
        done = {
            "id": "1",
            "name": "get_weather",
            "turn": 1,
            "ok": True,
            "durationMs": 7,
            "delivered": "later",
        }
        for kind, data in (
            ("tool_started", begun),
            ("tool_started", {**begun, "id": "2"}),
            ("tool_started", {**begun, "id": "3"}),
            ("tool_call", done),
            ("tool_cancelled", {"ids": ["2"]}),
            ("tool_delivered", {"id": "1", "delivered": "note"}),
        ):
            server.store.record(id, Event(1.0, kind, data))
        calls = (await server.client.get(f"/api/sessions/{id}/calls")).json()["calls"]
        assert [(call["id"], call["state"]) for call in calls] == [
            ("1", "finished"),
            ("2", "cancelled"),
            ("3", "running"),
        ]
        assert calls[0] == {
            **begun,
            **done,
            "startedAt": "1970-01-01T00:00:01.000Z",
            "state": "finished",
            "delivered": "note",
        }
        assert (await server.client.get("/api/sessions/unknown/calls")).status_code == 404


async def test_metrics_are_for_this_machine_and_not_for_who_comes_through_a_proxy(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await server.created()
        answer = await server.client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "tornado_live_sessions_created_total 1.0" in answer.text
        assert 'tornado_live_http_requests_total{status="2xx"} 1.0' in answer.text
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
            answer = await server.client.get("/metrics", headers={name: "127.0.0.1"})
            assert (answer.status_code, refusal(answer)["code"]) == (403, "forbidden")


ROUTES = ["/health", "/health/ready", "/metrics", "/api/tools", "/api/sessions", "/api/sessions/x"]
ROUTES += ["/api/sessions/x/events", "/api/sessions/x/calls", "/api/tools/x/invoke", "/api/nothing", "/api"]


@pytest.mark.proves("T3")
@pytest.mark.parametrize("path", ROUTES)
async def test_a_foreign_host_is_refused_but_for_health(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as server:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            answer = await server.client.request(method, path, headers={"Host": "rebind.test"})
            if path.startswith("/health"):
                assert answer.status_code in (200, 405, 204)
            else:
                assert (answer.status_code, refusal(answer)["code"]) == (403, "forbidden")
                assert "rebind.test" not in str(answer.headers)
        assert (await server.client.get("/api/sessions")).json() == {"sessions": []}


@pytest.mark.proves("T3")
@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/sessions HTTP/1.0\r\n\r\n",
        b"GET /api/sessions HTTP/1.1\r\nHost: localhost\r\nHost: rebind.test\r\n\r\n",
        b"GET /api/sessions HTTP/1.1\r\nHost: localhost, rebind.test\r\n\r\n",
        b"GET /api/sessions HTTP/1.1\r\nHost: localhost@rebind.test\r\n\r\n",
        b"GET http://rebind.test/api/sessions HTTP/1.1\r\nHost: rebind.test\r\n\r\n",
        b"POST /api/sessions HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_hosts_that_no_browser_sends_are_refused(tmp_path: Path, request_: bytes) -> None:
    async with served(tmp_path) as server:
        status, answer = await raw(server.port, request_)
        assert status in (400, 403, 404)
        assert b'sessions":' not in answer


@pytest.mark.proves("T4")
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "origin", [FOREIGN, "null", "http://localhost:3000.evil.example", "HTTP://LOCALHOST:3000"]
)
async def test_a_foreign_page_gets_nothing(tmp_path: Path, path: str, origin: str) -> None:
    async with served(tmp_path) as server:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            answer = await server.client.request(method, path, headers={"Origin": origin})
            assert (answer.status_code, refusal(answer)["code"]) == (403, "forbidden")
            assert not any(name.startswith("access-control-") for name in answer.headers)
        assert (await server.client.get("/api/sessions")).json() == {"sessions": []}


@pytest.mark.proves("T5")
async def test_a_listed_page_may_read_answers_and_errors(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        own = f"http://127.0.0.1:{server.port}"
        for origin in (LISTED, own):
            for path in ("/api/sessions", "/api/sessions/unknown", "/health"):
                answer = await server.client.get(path, headers={"Origin": origin})
                assert answer.headers["Access-Control-Allow-Origin"] == origin
                assert answer.headers["Vary"] == "Origin"
                assert "Access-Control-Allow-Credentials" not in answer.headers
        plain = await server.client.get("/api/sessions")
        assert plain.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Origin" not in plain.headers


@pytest.mark.proves("T5")
async def test_a_preflight_is_answered_for_listed_origins(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        asked = {"Origin": LISTED, "Access-Control-Request-Method": "POST"}
        answer = await server.client.options("/api/sessions", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, OPTIONS"
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/sessions", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/api/sessions/x", "GET, HEAD, DELETE, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("BREW", "/api/tools", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_told_which_there_are(
    tmp_path: Path, method: str, path: str, allow: str
) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.request(method, path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
        assert refusal(answer)["code"] == "bad_message"


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/session", "/api/tools/", "/api/sessions/x/call"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_path_that_does_not_exist_is_404_in_json(tmp_path: Path, path: str, method: str) -> None:
    async with served(tmp_path) as server:
        answer = await server.client.request(method, path, content=b"x" if method == "POST" else None)
        assert (answer.status_code, refusal(answer)["code"]) == (404, "bad_message")


@pytest.mark.proves("T30")
async def test_our_own_mistake_tells_nothing_but_its_request_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as server:
        server.talks.open = None  # type: ignore[assignment]
        answer = await server.client.get("/health")
        assert answer.status_code == 500
        error = refusal(answer)
        assert (error["code"], error["retryable"]) == ("internal", True)
        assert error["requestId"] in error["message"]
        assert "NoneType" not in answer.text
        assert "Traceback" not in answer.text
        [record] = [
            record for record in caplog.records if record.msg == "%s" and "request_failed" in record.args
        ]
        assert record.fields["request_id"] == error["requestId"]
        assert record.exc_info is not None


@pytest.mark.proves("T6")
@pytest.mark.parametrize("path", ["/health", "/api/sessions", "/api/nothing", "/metrics"])
async def test_every_answer_is_locked_down(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as server:
        headers = (await server.client.get(path)).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert policy["connect-src"].split() == [
            "'self'",
            f"ws://127.0.0.1:{server.port}",
            f"wss://127.0.0.1:{server.port}",
            "ws://127.0.0.1:3002",
        ]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "microphone=(self)" in headers["Permissions-Policy"]
        assert "Server" not in headers


async def test_a_request_is_one_log_line_without_what_its_query_hides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with served(tmp_path) as server:
        answer = await server.client.get("/api/tools?key=hidden-value")
        [record] = [record for record in caplog.records if getattr(record, "event", "") == "request"]
        assert record.fields["status"] == 200
        assert record.fields["request_id"] == answer.headers["X-Request-Id"]
        line = json.loads(JsonFormatter(Masker()).format(record))
        assert line["uri"] == "/api/tools?key=***"


async def test_ten_sockets_that_say_nothing_keep_nobody_waiting(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        for one in silent:
            one.sendall(b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        assert (await server.client.get("/health")).status_code == 200
        for one in silent:
            one.close()
