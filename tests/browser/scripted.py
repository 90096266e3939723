"""A server that speaks the client protocol as a test tells it to, for tests of the page alone.

async def script(line: Line) -> None:        # runs once for every WebSocket
    await line.connected()
    await line.send("transcription", text="Hello.", isUser=False, isFinal=True, turn=1)

async with ScriptedServer(script) as server: ...   # server.url

It serves the real files of static/ under the product's Content-Security-Policy.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

STATIC = Path(__file__).resolve().parents[2] / "static"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DEADLINE_S = 30

TOOLS: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "description": description, "parameters": {"type": "object"}, "behaviour": {}}
    for name, description in {
        "execute_sql_query": "Run one read-only SQL query on the shop database.",
        "get_analytics": "Orders, revenue and new customers of a period, compared with the one before.",
        "search_knowledge_base": "Search the articles of the knowledge base.",
        "call_external_api": "Call one of the allowed web services.",
        "get_weather": "Current weather and forecast of a place.",
        "look_up_article": "Summary of an encyclopedia article.",
    }.items()
)


def tone(seconds: float, *, hertz: float = 440, rate: int = 24_000, level: float = 0.5) -> bytes:
    """PCM16 mono."""
    samples = (
        round(level * 32767 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(round(seconds * rate))
    )
    return b"".join(struct.pack("<h", sample) for sample in samples)


class Line:
    """One WebSocket of the page. What it sends waits in order; binary frames are `{"type": "pcm"}`."""

    def __init__(self, socket: _Socket, session_id: str, asked_for: str | None) -> None:
        self._socket = socket
        self.session_id = session_id
        self.asked_for = asked_for
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def message(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; what comes before it is dropped."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = await self.received.get()
                if message["type"] in types:
                    return message

    async def connected(self, **status: Any) -> dict[str, Any]:
        """Waits for `connect`, answers CONNECTED, and returns the options that were asked for."""
        options = (await self.message("connect")).get("data", {})
        facts = {"model": "gemini-3.8-live", "assistant": "default", "upstream": "simulator"}
        await self.send("status", status="CONNECTED", **facts | {"resumed": False, "memory": "none"} | status)
        return options

    async def send(self, type_: str, **data: Any) -> None:
        await self._socket.write_message(
            json.dumps({"type": type_, "data": data, "sessionId": self.session_id})
        )

    async def send_text(self, text: str) -> None:
        await self._socket.write_message(text)

    async def send_pcm(self, pcm: bytes) -> None:
        await self._socket.write_message(pcm, binary=True)

    def close(self, code: int) -> None:
        self._socket.close(code)

    def cut(self) -> None:
        """As a network does it: no close frame, which browsers report as 1006."""
        connection = self._socket.ws_connection
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    async def stay(self) -> None:
        """Keeps the line open until the page closes it, or the test is over."""
        while (await self.received.get())["type"] != "closed":
            pass


Script = Callable[[Line], Awaitable[None]]


class _Socket(WebSocketHandler):
    line: Line

    def initialize(self, server: ScriptedServer) -> None:
        self.server = server

    def open(self, *_: str) -> None:
        asked_for = self.get_query_argument("sessionId", None)
        self.line = Line(self, asked_for or self.server.next_session(), asked_for)
        self.server.begin(self.line)

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.line.received.put_nowait({"type": "pcm", "pcm": message})
        else:
            self.line.received.put_nowait(json.loads(message))

    def on_close(self) -> None:
        self.line.received.put_nowait({"type": "closed", "code": self.close_code})


class _Json(RequestHandler):
    def initialize(self, answer: Callable[[str], Mapping[str, Any] | None]) -> None:
        self.answer = answer

    def get(self, name: str = "") -> None:
        answer = self.answer(name)
        if answer is None:
            self.set_status(404)
        self.write(dict(answer or {"error": {"code": "session_not_found", "message": "No such session."}}))


class _Static(StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Cache-Control", "no-store")


class ScriptedServer:
    """`lines` has every WebSocket so far; `health` is what GET /health answers.

    A script that fails, fails the test at the end of the `async with`.
    """

    def __init__(
        self,
        script: Script,
        *,
        upstream: str = "simulator",
        tools: Sequence[Mapping[str, Any]] = TOOLS,
        memory: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._script = script
        self.lines: list[Line] = []
        self._tasks: list[asyncio.Task[None]] = []
        remembered = memory or {}
        self.health: dict[str, Any] = {
            "status": "ok",
            "upstream": upstream,
            "tools": {"loaded": len(tools)},
        }

        def session(name: str) -> Mapping[str, Any] | None:
            known = name in remembered or any(line.session_id == name for line in self.lines)
            return {"sessionId": name, "memory": remembered.get(name, [])} if known else None

        self._application = Application(
            [
                (r"/ws", _Socket, {"server": self}),
                (r"/health", _Json, {"answer": lambda _: self.health}),
                (r"/api/tools", _Json, {"answer": lambda _: {"tools": list(tools)}}),
                (r"/api/sessions/([^/]+)", _Json, {"answer": session}),
                (r"/(.*)", _Static, {"path": STATIC, "default_filename": "index.html"}),
            ],
            log_function=lambda _: None,
        )

    async def __aenter__(self) -> Self:
        self._http = HTTPServer(self._application)
        sockets = bind_sockets(0, "127.0.0.1")
        self._http.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        failed = [result for result in ended if isinstance(result, Exception)]
        if failed and error is None:
            raise failed[0]
        for failure in failed:
            if error is not None:
                error.add_note(f"the script: {failure!r}")

    async def stop(self) -> None:
        """No page reaches it any more."""
        self._http.stop()
        for line in self.lines:
            line.cut()
        await self._http.close_all_connections()

    def next_session(self) -> str:
        return f"session-{len(self.lines) + 1}"

    def begin(self, line: Line) -> None:
        self.lines.append(line)
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(line)))

    async def _run(self, line: Line) -> None:
        try:
            await self._script(line)
        except WebSocketClosedError:
            pass  # the page left: what it does about that is the test's matter
