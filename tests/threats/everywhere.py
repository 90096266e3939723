"""One text, put wherever a client, a page or a model side may write something.

async with ModelSide() as model, Server(environ=environment(model.port)) as server:
    answers = await everywhere(server, model, "text")   # what was answered, all of it
    lines = logged(server)                              # what the server wrote about it
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from faults.model import ModelLine, ModelSide
from serving import Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

GUEST = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
HEADERS = (
    "User-Agent",
    "Referer",
    "Cookie",
    "Accept-Language",
    "Authorization",
    "Content-Type",
    "Forwarded",
    "Host",
    "Origin",
    "Sec-WebSocket-Protocol",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Goog-Api-Key",
    "X-Request-Id",
)
_DEADLINE_S = 30.0


def logged(server: Server) -> list[dict[str, Any]]:
    """The log's lines, each of which has to be one of ours, whole, printable, and of bounded length.

    Until the first request there may be lines for people, which `serve` prints at its start.
    """
    lines: list[dict[str, Any]] = []
    asked = False
    for line in filter(None, server.log.split("\n")):
        assert line.isprintable(), line
        assert line.isascii(), line
        assert len(line) < 64 * 1024, line[:200]
        asked = asked or '"event": "request"' in line
        if not asked and not line.startswith("{"):
            continue
        try:
            parsed = json.loads(line)
        except ValueError:
            raise AssertionError(f"a line of the log is no JSON: {line[:200]!r}") from None
        assert isinstance(parsed, dict), line
        assert list(parsed)[:4] == ["time", "level", "event", "logger"], line
        lines.append(parsed)
    return lines


def _whole(answer: bytes) -> bool:
    """Whether a connection that stays open has said all."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\nContent-Length: (\d+)", head)
    return bool(ended and length is not None and len(body) >= int(length[1]))


async def raw(server: Server, request: bytes) -> bytes:
    """The answer to bytes on a connection of its own, until the server closes or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = b""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
                while not _whole(answer) and (part := await reader.read(65536)):
                    answer += part
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer


def request(method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
    """As it goes over the line; a header's name is written with underscores, its value may be anything."""
    sent = {"Host": "localhost", "Connection": "close"}
    if body is not None:
        sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "replace") + (body or b"")


def requests(text: str) -> list[bytes]:
    """The text in every part of a request: encoded where it has to be, and as it is where it must not be."""
    part, bare = quote(text, safe=""), "".join(one for one in text if one not in "\r\n\0 ")
    strange: dict[str, Any] = {text: text, "a": [text, {text: text}]}
    bodies: list[tuple[str, Any]] = [
        ("/api/sessions", {"userId": text, "metadata": strange, "assistant": "default"}),
        ("/api/sessions", {"assistant": text}),
        ("/api/sessions", {"limits": strange}),
        ("/api/sessions", {"origin": text}),
        ("/api/sessions", {text: text}),
        ("/api/sessions", text),
        ("/api/tools/get_weather/invoke", {"args": {"location": text, text: 1}}),
        (f"/api/tools/{part}/invoke", {"args": {}}),
        ("/v1alpha/auth_tokens", {"bidiGenerateContentSetup": {"setup": {"model": text}}, text: text}),
        ("/v1alpha/auth_tokens", {"expireTime": text, "fieldMask": text, "uses": text}),
    ]
    targets = (
        f"/{part}",
        f"/api/{part}",
        f"/{bare}",
        f"/?{part}={part}",
        f"/ws?sessionId={part}&token={part}",
        f"/{'x' * 9000}{part}",
        f"/api/sessions?limit={part}&after={part}&{part}",
        f"/api/sessions/{part}",
        f"/api/sessions/{part}/events?include={part}",
        f"/api/sessions/{part}/calls",
        f"/v1beta/{part}",
        f"/{'%252e%252e' * 2}/{part}",
        text,
        "/",
    )
    return [
        *(request("GET", target) for target in targets),
        request("DELETE", f"/api/sessions/{part}"),
        request("POST", f"/api/sessions/{part}/token", b""),
        request(bare or "X", "/"),
        *(request("POST", path, json.dumps(body).encode()) for path, body in bodies),
        request("POST", "/api/sessions", text.encode("utf-8", "replace")),
        request("POST", "/api/sessions", b"{}", Content_Type=bare),
        *(request("GET", f"/api/{name}", **{name: value}) for name in HEADERS for value in (bare, text)),
        text.encode("utf-8", "replace") + b"\r\n\r\n",
    ]


async def everywhere(server: Server, model: ModelSide, text: str) -> bytes:
    """What came back, of all of it."""
    answers = [await raw(server, one) for one in requests(text)]
    answers += [
        await _native(server, model, text),
        await _refused(server, text),
        await _guest(server, model, text),
    ]
    return b"\n".join(answers)


def _reason(text: str) -> str:
    return text.encode()[:120].decode(errors="ignore")


async def _ends(socket: ClientConnection) -> bytes:
    """Everything until the line ends, with the reason."""
    seen = []
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                frame = await socket.recv(decode=False)
                seen.append(bytes(frame))
    return b"\n".join([*seen, (socket.close_reason or "").encode()])


async def _until(socket: ClientConnection, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(_DEADLINE_S):
        while wanted not in seen:
            seen += bytes(await socket.recv(decode=False)) + b"\n"
    return seen


def _dial(server: Server, path: str, **more: Any) -> connect:
    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(url, compression=None, proxy=None, max_size=None, max_queue=None, **more)


async def _native(server: Server, model: ModelSide, text: str) -> bytes:
    """A conversation in which both sides write it wherever they can."""
    strange: Mapping[str, Any] = {text: text}
    async with _dial(server, f"/ws?{quote(text)}={quote(text)}", user_agent_header=quote(text)) as socket:
        await socket.send(json.dumps({"type": "connect"}))
        line = await model.dialled()
        await line.ready("h1")
        seen = await _until(socket, b"CONNECTED")
        for message in (
            {"type": text},
            {"type": "text", "sessionId": text, "data": {"text": text}},
            {"type": "text", "data": {"text": text}},
            {"type": "text", "data": strange},
            {"type": "audio", "data": {"data": text, "mimeType": text}},
            {"type": "tool_result", "data": {"id": text, "response": strange}},
            {"type": "tool_confirm", "data": {"id": text, "ok": True}},
            {"type": "connect", "data": {"voice": text}},
            text,
            {"type": "ping", "data": text},
        ):
            await socket.send(message if isinstance(message, str) else json.dumps(message))
        seen += await _until(socket, b'"pong"')
        await line.call(text, text, {text: text})
        await line.receive("toolResponse")
        await line.send({"toolCallCancellation": {"ids": [text]}})
        await _said_by_model(line, text)
        seen += await _until(socket, b"turn_complete")
        await line.send({"goAway": {"timeLeft": text}})
        await line.close(1008, _reason(text))
        again = await model.dialled()
        await again.ready("h2")
        seen += await _until(socket, b"CONNECTED")
        await socket.close(4000, _reason(text))
    return seen


async def _said_by_model(line: ModelLine, text: str) -> None:
    await line.call("c1", "get_weather", {"location": text, text: text})
    await line.receive("toolResponse")
    await line.send({text: {text: text}})
    await line.send({"error": {"code": text, "message": text}})
    await line.heard(text)
    await line.say(text)


async def _refused(server: Server, text: str) -> bytes:
    """Handshakes and first messages that lead nowhere."""
    seen = b""
    for options in (
        {"assistant": text, "token": text},
        {"model": text},
        {"systemInstruction": text, text: text},
    ):
        async with _dial(server, "/ws") as socket:
            await socket.send(json.dumps({"type": "connect", "data": options}))
            seen += await _until(socket, b'"error"')
    with contextlib.suppress(InvalidStatus):  # what was answered has been read then
        async with _dial(server, f"/ws?sessionId={quote(text)}") as socket:
            seen += await _ends(socket)
    return seen


async def _guest(server: Server, model: ModelSide, text: str) -> bytes:
    """Google's protocol: setups that are refused, and one conversation."""
    good = {"model": "models/gemini-3.8-live", "generationConfig": {"responseModalities": ["AUDIO"]}}
    seen = b""
    for first in (
        {"setup": {"model": text}},
        {"setup": {**good, "tools": [{"functionDeclarations": [{"name": text, "description": text}] * 2}]}},
        {"setup": {**good, "generationConfig": text}},
        {"setup": {**good, "sessionResumption": {"handle": text}}},
        {text: text},
    ):
        async with _dial(server, f"{GUEST}?key={quote(text)}") as socket:
            await socket.send(json.dumps(first))
            ended = asyncio.get_running_loop().create_task(_ends(socket))
            dialled = asyncio.get_running_loop().create_task(model.dialled())
            await asyncio.wait({ended, dialled}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():  # what the model side has to refuse
                await (await dialled).close(1007, _reason(text))
            dialled.cancel()
            await asyncio.gather(dialled, return_exceptions=True)
            seen += await ended
    async with _dial(server, f"/{GUEST}?alt={quote(text)}", user_agent_header=quote(text)) as socket:
        await socket.send(
            json.dumps({"setup": {**good, text: text, "systemInstruction": {"parts": [{"text": text}]}}})
        )
        line = await model.dialled()
        await line.ready("h3")
        seen += await _until(socket, b"setupComplete")
        await socket.send(json.dumps({"toolResponse": {"functionResponses": [{"id": text, "name": text}]}}))
        await socket.send(json.dumps({"realtimeInput": {"text": text}}))
        await line.receive("realtimeInput")
        await line.call(text, text, {text: text})
        await _said_by_model(line, text)
        seen += await _until(socket, b"turnComplete")
        await socket.close(4000, _reason(text))
    return seen
