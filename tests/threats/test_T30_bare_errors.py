"""T30: whatever fails, who asked is told what to do, and nothing of how the server is built or what it knows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from canary import GEMINI_KEY, TOOL_SECRET, Searcher
from faults.model import ModelSide
from faults.stage import environment
from redis_server import NEEDS_REDIS, running
from serving import ROOT, Server, nobody_listens
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from threats.everywhere import GUEST, everywhere, raw, request

BUILT = re.compile(
    rb"""Traceback|File\ \\?"|, line\ \d+|\bin\ <module>
    | (?<![\w:/.-])/(?:work|root|home|tmp|usr|etc|var|proc|opt)/|site-packages|\w\.py\b
    | \b(?:tornado_live|our_tools|tornado|websockets|asyncio|msgspec|sqlite3|sqlalchemy|redis|httpx|pydantic)[./]\w
    | \b[A-Z][A-Za-z]+(?:Error|Exception|Warning)\b | <class\ | \bobject\ at\ 0x | \bErrno\b | \b0x[0-9a-f]{8,}
    """,
    re.VERBOSE,
)
TOOLS = """\
version: 1
defaults: {retry: {attempts: 1}}
sources:
  gone: {http: {base_url: "http://127.0.0.1:${GONE}", allow_private: true, auth: {bearer: "${TOOL_SECRET}"}}}
  odd: {http: {base_url: "http://127.0.0.1:${ODD}", allow_private: true, auth: {bearer: "${TOOL_SECRET}"}}}
  data: {sql: {url: "sqlite:///${DATA}"}}
tools:
  raises: {description: Fails., parameters: {type: object}, python: "our_tools:raises"}
  leaves: {description: Fails., parameters: {type: object}, python: "our_tools:leaves"}
  object: {description: Fails., parameters: {type: object}, python: "our_tools:an_object"}
  endless: {description: Fails., parameters: {type: object}, python: "our_tools:endless"}
  hangs: {description: Fails., parameters: {type: object}, python: "our_tools:hangs", timeout: 250ms}
  refused: {description: Fails., parameters: {type: object}, http: {source: gone, path: /}}
  broken: {description: Fails., parameters: {type: object}, http: {source: odd, path: /broken}}
  picture: {description: Fails., parameters: {type: object}, http: {source: odd, path: /picture}}
  query:
    description: Fails.
    parameters: {type: object, properties: {query: {type: string}}, required: [query]}
    python: builtin.sql:query
    options: {source: data, tables: [secrets]}
"""
HANDLERS = """\
import asyncio
import os

async def raises():
    raise RuntimeError(f"{__file__}: no {os.environ['TOOL_SECRET']} for {os.environ.get('GEMINI_API_KEY')}")

async def leaves():
    raise SystemExit("/etc/passwd")

async def an_object():
    return object()

async def endless():
    found = []
    found.append(found)
    return found

async def hangs():
    await asyncio.sleep(60)
"""
SPOILT = f"""
import sys
from tornado_live.sessions.sqlite import SqliteSessionStore

async def broken(self, *args, **options):
    raise RuntimeError("{GEMINI_KEY} in /work/tornado_live/secrets.py")

for name in ("create", "get", "list", "events"):
    setattr(SqliteSessionStore, name, broken)
sys.argv[0] = "tornado-live"
from tornado_live.__main__ import main
main()
"""


def told_nothing(kind: str, answer: bytes, home: Path | str = "/nowhere") -> None:
    """What came back is something, and none of it is about the inside."""
    assert answer, kind
    if found := BUILT.search(answer):
        raise AssertionError(
            f"{kind}: {found[0]!r} in {answer[max(0, found.start() - 100) : found.end() + 40]!r}"
        )
    assert str(home).encode() not in answer, kind
    assert str(ROOT).encode() not in answer, kind
    searcher = Searcher()
    searcher.feed("answer", answer)
    assert not searcher.settle(), kind


async def spoken(server: Server, *messages: Any, path: str = "/ws", **dialled: Any) -> bytes:
    """All that a socket answers to these messages, until it is closed or the error has come."""
    seen = b""
    url = f"ws://127.0.0.1:{server.port}{path}"
    try:
        async with connect(url, compression=None, proxy=None, max_size=None, **dialled) as socket:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
                async with asyncio.timeout(30):
                    while b'"error"' not in seen:
                        seen += bytes(await socket.recv(decode=False)) + b"\n"
            await socket.close()
            return seen + (socket.close_reason or "").encode()
    except InvalidStatus as refused:
        return refused.response.serialize()
    except InvalidMessage:
        return b"nothing"


def body(path: str, value: Any, **headers: str) -> bytes:
    return request("POST", path, value if isinstance(value, bytes) else json.dumps(value).encode(), **headers)


REQUESTS: dict[str, bytes] = {
    "no such page": request("GET", "/nothing/here.py"),
    "no such route": request("GET", "/api/nothing"),
    "a folder": request("GET", "/tornado-live/"),
    "another method": request("PATCH", "/api/sessions"),
    "no method": request("BREW", "/"),
    "no request": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a header without a name": request("GET", "/", **{"": "x"}),
    "two lengths": request("POST", "/api/sessions", b"{}", content_length="3"),
    "chunks and a length": request("POST", "/api/sessions", b"{}", Transfer_Encoding="chunked"),
    "a length that is none": request("POST", "/api/sessions", Content_Length="many"),
    "another host": request("GET", "/api/tools", Host="elsewhere.example"),
    "another page": request("GET", "/api/tools", Origin="https://elsewhere.example"),
    "no JSON": body("/api/sessions", b"{"),
    "wrong UTF-8": body("/api/sessions", b'"\xff\xfe"'),
    "deep JSON": body("/api/sessions", b"[" * 60_000),
    "a form": body("/api/sessions", b"a=b", Content_Type="application/x-www-form-urlencoded"),
    "a large body": body("/api/sessions", b" " * 70_000),
    "another type": body("/api/sessions", {"userId": 1}),
    "no such assistant": body("/api/sessions", {"assistant": "nobody"}),
    "an odd limit": request("GET", "/api/sessions?limit=-1"),
    "no such session": request("GET", "/api/sessions/nobody"),
    "no such session's events": request("GET", "/api/sessions/nobody/events"),
    "no such session to delete": request("DELETE", "/api/sessions/nobody"),
    "no such tool": body("/api/tools/nothing/invoke", {"args": {}}),
    "no arguments": body("/api/tools/query/invoke", {"args": {}}),
    "an upgrade elsewhere": request("GET", "/health", Upgrade="websocket", Connection="Upgrade"),
    "an upgrade without a key": request("GET", "/ws", Upgrade="websocket", Connection="Upgrade"),
    "an ephemeral token of nonsense": body("/v1alpha/auth_tokens", {"uses": "many"}),
    "nothing of Google's": request("GET", "/v1beta/models"),
}
FAILING = ("raises", "leaves", "object", "endless", "hangs", "refused", "broken", "picture", "query")
MESSAGES: dict[str, Sequence[Any]] = {
    "no message": ["{"],
    "an unknown type": [{"type": "sudo"}],
    "a message of bytes": [b"\0\1\2"],
    "a wrong option": [{"type": "connect", "data": {"voice": 1}}],
    "an assistant that is not there": [{"type": "connect", "data": {"assistant": "nobody"}}],
    "a model that may not be chosen": [{"type": "connect", "data": {"model": "models/other"}}],
    "a message before connect": [{"type": "text", "data": {"text": "Hello."}}],
    "a message that is too large": [json.dumps({"type": "text", "data": {"text": "x" * 300_000}})],
}
SETUPS: dict[str, Any] = {
    "no setup": {"realtimeInput": {"text": "Hello."}},
    "a setup that is none": {"setup": 7},
    "a handle of nobody": {
        "setup": {"model": "models/gemini-3.8-live", "sessionResumption": {"handle": "x"}}
    },
}
REASONS = (
    f"API key not valid: {GEMINI_KEY}",
    f"Refused {base64.b64encode(b'{' + GEMINI_KEY.encode() + b'}').decode()}",
)


@contextlib.asynccontextmanager
async def odd_service() -> AsyncIterator[int]:
    """Answers with its own traceback, which has the credential that it was given, or with a picture."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        status, kind = (b"500 Oops", b"text/html") if b"/broken" in asked else (b"200 OK", b"image/png")
        page = (
            b'<pre>Traceback\n  File "/etc/service.py", line 3, in <module>\n' + asked + b"ValueError</pre>"
        )
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(page))
        )
        writer.write(page)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.proves("T30")
async def test_forty_kinds_of_failure_tell_nothing_of_the_inside(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "our_tools.py").write_text(HANDLERS)
    data = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(data)) as database:
        database.execute("CREATE TABLE secrets (id INTEGER PRIMARY KEY, secret TEXT)")
    kinds: dict[str, bytes] = {}
    with nobody_listens() as gone:
        async with (
            odd_service() as odd,
            ModelSide() as model,
            Server(
                *("--set", "handler_prefixes=our_tools,tornado_live.tools.builtin"),
                home=tmp_path,
                environ=environment(model.port, tmp_path)
                | {"GONE": str(gone), "ODD": str(odd), "DATA": str(data)},
            ) as server,
        ):
            data.write_bytes(b"no database any more" * 1000)
            for kind, sent in REQUESTS.items():
                kinds[kind] = await raw(server, sent)
            for tool in FAILING:
                args = {"query": "SELECT secret FROM secrets"} if tool == "query" else {}
                kinds[f"the tool {tool}"] = await raw(
                    server, body(f"/api/tools/{tool}/invoke", {"args": args})
                )
            for kind, messages in MESSAGES.items():
                kinds[kind] = await spoken(server, *messages)
            kinds["a session that is not there"] = await spoken(server, path="/ws?sessionId=nobody")
            kinds["a page of somebody else"] = await spoken(server, origin="https://elsewhere.example")
            for kind, setup in SETUPS.items():
                kinds[kind] = await spoken(server, setup, path=GUEST)
            for status in (400, 401, 403, 404, 429, 500):
                headers = {"Retry-After": "1", "X-Debug": GEMINI_KEY}
                model.refusals.extend([(status, headers)] * 3)
                kinds[f"the model's server answers {status}"] = await spoken(server, {"type": "connect"})
                model.refusals.clear()
            for reason in REASONS:
                kinds[f"the model side closes: {reason[:7]}"] = await refused_setup(server, model, reason)
            kinds["a tool fails for a model"] = await failing_calls(server, model)
    assert len(kinds) >= 60
    for kind, answer in kinds.items():
        told_nothing(kind, answer, tmp_path)


@pytest.mark.proves("T30")
async def test_odd_text_anywhere_brings_nothing_to_light() -> None:
    async with ModelSide() as model, Server(environ=environment(model.port)) as server:
        told_nothing("everything", await everywhere(server, model, "x'\"<>&;|../..\\%s{0}${HOME}\0"))


async def refused_setup(server: Server, model: ModelSide, reason: str) -> bytes:
    spoken_to = asyncio.get_running_loop().create_task(spoken(server, {"type": "connect"}))
    line = await model.dialled()
    await line.close(1007, reason.encode()[:120].decode())
    return await spoken_to


async def failing_calls(server: Server, model: ModelSide) -> bytes:
    """What a client sees while a model calls what fails."""
    seen = b""
    url = f"ws://127.0.0.1:{server.port}/ws"
    async with connect(url, compression=None, proxy=None, max_queue=None) as socket:
        await socket.send(json.dumps({"type": "connect"}))
        line = await model.dialled()
        await line.ready("h1")
        for number, tool in enumerate(FAILING):
            args = {"query": "SELECT secret FROM secrets"} if tool == "query" else {}
            await line.call(f"c{number}", tool, args)
            told = await line.receive("toolResponse")
            # The model says aloud what it is told, so that it is held to the same.
            seen += json.dumps(told).encode()
            while f'"c{number}"'.encode() not in seen.rpartition(b'"tool_result"')[2]:
                seen += bytes(await socket.recv(decode=False)) + b"\n"
    return seen


@pytest.mark.proves("T30")
async def test_what_nobody_thought_of_is_told_by_its_number_alone(tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.py"
    spoilt.write_text(SPOILT)
    async with Server(command=(str(spoilt), "serve")) as server:
        answers = {
            "list": await raw(server, request("GET", "/api/sessions")),
            "create": await raw(server, body("/api/sessions", {})),
            "get": await raw(server, request("GET", "/api/sessions/x")),
            "socket": await spoken(server, {"type": "connect"}),
            "guest": await spoken(server, {"setup": {"model": "models/gemini-3.8-live"}}, path=GUEST),
        }
        for kind, answer in answers.items():
            told_nothing(kind, answer)
        for kind in ("list", "create", "get"):
            assert answers[kind].startswith(b"HTTP/1.1 500 "), kind
            found = re.search(rb'"requestId": "(\w+)"', answers[kind])
            assert found is not None
            assert found[1].decode() in server.log, "the log has more under that number"
    assert "RuntimeError" in server.log


@pytest.mark.proves("T30")
async def test_wrong_credentials_are_told_nothing_but_that() -> None:
    environ = {"AUTH__MODES": "api_key,jwt", "AUTH__JWT_ALGORITHMS": "HS256", "AUTH__JWT_SECRET": "s" * 40}
    environ |= {"AUTH__JWT_ISSUER": "us", "AUTH__JWT_AUDIENCE": "us"}
    forged = ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"none"}', b"{}", b"x")
    )
    shown = ("x", "tl_000000000000_" + "x" * 43, "tlt_" + "x" * 43, "auth_tokens/x", forged, "a.b.c", "\xff")
    async with Server(environ=environ) as server:
        for credential in shown:
            how = {"Authorization": f"Bearer {credential}"}
            answer = await raw(server, request("GET", "/api/sessions", **how))
            assert answer.startswith(b"HTTP/1.1 401 "), credential
            told_nothing(credential, answer)
            if credential.isascii():
                told_nothing(
                    credential, await spoken(server, {"type": "connect", "data": {"token": credential}})
                )
                told_nothing(credential, await spoken(server, additional_headers=how))
        told_nothing("none", await raw(server, request("GET", "/api/sessions")))


@NEEDS_REDIS
@pytest.mark.proves("T30")
async def test_a_store_and_a_model_that_are_away_are_not_named(tmp_path: Path) -> None:
    with running(tmp_path) as redis, nobody_listens() as gone:
        async with Server(environ=environment(gone) | {"REDIS_URL": redis.url}) as server:
            told_nothing("no model", await spoken(server, {"type": "connect"}))
            redis.kill()
            for kind, sent in {
                "list": request("GET", "/api/sessions"),
                "create": body("/api/sessions", {}),
                "get": request("GET", "/api/sessions/x"),
                "ready": request("GET", "/health/ready"),
                "token": body("/v1alpha/auth_tokens", {}),
            }.items():
                answer = await raw(server, sent)
                told_nothing(kind, answer)
                assert answer.startswith(b"HTTP/1.1 503 "), answer
                assert str(redis.port).encode() not in answer
            told_nothing("socket", await spoken(server, {"type": "connect"}))
            redis.start()


@pytest.mark.proves("T30")
@pytest.mark.parametrize(
    "leak",
    [
        'Traceback (most recent call last):\n  File "x", line 1, in <module>',
        "no such table in /work/data/shop.db",
        "RuntimeError: no",
        "see tornado_live.sessions.sqlite",
        "<object object at 0x7f0000000000>",
        f"the key {GEMINI_KEY}",
        TOOL_SECRET[::-1],
    ],
)
def test_the_proof_sees_what_it_looks_for(leak: str) -> None:
    with pytest.raises(AssertionError):
        told_nothing("x", f'{{"error": {{"message": "{leak}"}}}}'.encode())
