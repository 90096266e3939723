"""What HTTP services answer: floods, bombs and drips given up in time, JSON and text understood."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from endpoints import serving, speaking, talking
from tornado.web import RequestHandler

from tornado_live.caller import Caller
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_answer import parse_answer
from tornado_live.tools.http_template import Endpoint
from tornado_live.tools.result import Json, ToolCode, ToolError, ToolResult
from tornado_live.tools.runner import ToolCall, ToolRunner

SIZE = 64 * 1024 * 1024
MOST = 5 * 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def endpoint(port: int, path: str = "/", **more: Any) -> Endpoint:
    return Endpoint("GET", f"http://127.0.0.1:{port}", path, **{"allow_private": True, **more})


async def refusal(where: Endpoint, arguments: dict[str, Json] | None = None, **client: Any) -> ToolError:
    async with guarded_client(**client) as http:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(http, where, arguments or {})
    return caught.value


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fails if at any moment more than `size` bytes were allocated on top of what there was."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


# More than was asked for


@pytest.mark.proves("T43")
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_over_the_cap_is_given_up_while_it_is_read(chunked: bool) -> None:
    sent = 0
    part = b"10000\r\n" + b"x" * 65536 + b"\r\n" if chunked else b"x" * 65536

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        while sent < 500_000_000:
            writer.write(part)
            sent += len(part)
            await writer.drain()

    async with speaking(endless) as port:
        with at_most(MOST):
            error = await refusal(endpoint(port))
    assert error.code is ToolCode.TOO_LARGE
    assert sent < 20_000_000


@pytest.mark.proves("T43")
@pytest.mark.parametrize(
    ("flood", "answer"),
    [
        (CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", "x" * 20_000),
        (b"HTTP/1.1 100 C\r\n\r\n" * 20_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue", True),
    ],
)
async def test_crumbs_leave_others_their_turn(flood: bytes, answer: Json) -> None:
    """Of chunks of a byte, or answers before the answer, many thousands fit into one packet."""

    async def crumbs(writer: asyncio.StreamWriter) -> None:
        writer.write(flood)
        await writer.drain()

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with speaking(crumbs) as port, guarded_client() as client, asyncio.TaskGroup() as tasks:
        meanwhile = tasks.create_task(others())
        assert await call_endpoint(client, endpoint(port), {}) == answer
        meanwhile.cancel()
    assert turns > len(flood) / 8192


async def test_a_declared_length_over_the_cap_is_refused_before_reading() -> None:
    async def huge(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        await writer.drain()

    async with speaking(huge) as port:
        assert (await refusal(endpoint(port))).code is ToolCode.TOO_LARGE


async def test_a_handlers_own_request_may_have_a_smaller_cap() -> None:
    async with serving(lambda handler: handler.write("x" * 100)) as (port, _), guarded_client() as http:
        with pytest.raises(ToolError) as caught:
            await http.get(f"http://127.0.0.1:{port}/", extensions={"allow_private": True, "max_bytes": 99})
    assert caught.value.code is ToolCode.TOO_LARGE


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_a_service_that_speaks_no_http_or_breaks_off_is_a_bad_answer(reply: bytes) -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    async with speaking(write) as port:
        assert (await refusal(endpoint(port))).code is ToolCode.BAD_ANSWER


# Compressed


def deflated(size: int) -> bytes:
    press = zlib.compressobj(9)
    zeros = bytes(1024 * 1024)
    return b"".join([*(press.compress(zeros) for _ in range(size // len(zeros))), press.flush()])


def gzipped(size: int) -> bytes:
    press = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    return b"".join([*(press.compress(zeros) for _ in range(size // len(zeros))), press.flush()])


def in_zstd(size: int) -> bytes:
    """Frames of zstd whose blocks each say: this byte, 128 KiB of it."""
    blocks = [b"\x02\x00\x10\x30"] * (size // 131072 - 1) + [b"\x03\x00\x10\x30"]
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(blocks)


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzipped(SIZE),
    "GZip": lambda: gzipped(SIZE),
    "x-gzip": lambda: gzipped(SIZE),
    "deflate": lambda: deflated(SIZE),
    "br": lambda: base64.b64decode(
        "z///f/gnAOKxQCD3/p/////wTwDEYQGA7v0/////4Z8AiMMiAN37//z//8c/ARCHBQC69/8="
    ),
    "zstd": lambda: in_zstd(SIZE),
    "gzip, gzip": lambda: gzip.compress(gzipped(SIZE)),
    "identity, gzip": lambda: gzipped(SIZE),
    "gzip, identity": lambda: gzipped(SIZE),
    "compress": lambda: b"\x1f\x9d\x90",
    "none": lambda: b"{}",
}


@pytest.mark.proves("T44")
@pytest.mark.parametrize("encoding", BOMBS)
async def test_a_compressed_answer_is_refused_and_never_unpacked(encoding: str) -> None:
    body = BOMBS[encoding]()

    def bomb(handler: RequestHandler) -> None:
        handler.set_header("Content-Type", "application/json")
        handler.set_header("Content-Encoding", encoding)
        handler.write(body)

    async with serving(bomb) as (port, seen):
        with at_most(MOST):
            error = await refusal(endpoint(port))
    assert error.code is ToolCode.BAD_ANSWER
    assert {request.headers["Accept-Encoding"] for request in seen} == {"identity"}


@pytest.mark.proves("T44")
async def test_encodings_that_are_hidden_are_refused_too() -> None:
    body = gzipped(SIZE)
    for header in (
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip",
        b"Content-Encoding: identity\r\nContent-Encoding: gzip",
        b"Content-Type: application/json",
        b"Content-Type: text/plain",
    ):

        async def bomb(writer: asyncio.StreamWriter, header: bytes = header) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n" + body)
            await writer.drain()

        async with speaking(bomb) as port:
            with at_most(MOST):
                assert (await refusal(endpoint(port))).code is ToolCode.BAD_ANSWER, header


@pytest.mark.proves("T44")
async def test_a_client_without_the_guard_unpacks_a_bomb() -> None:
    body = gzipped(SIZE)

    def bomb(handler: RequestHandler) -> None:
        handler.set_header("Content-Encoding", "gzip")
        handler.write(body)

    async with serving(bomb) as (port, _), httpx.AsyncClient(trust_env=False) as careless:
        with pytest.raises(AssertionError), at_most(MOST):
            await careless.get(f"http://127.0.0.1:{port}/")


# Slow


@asynccontextmanager
async def running(
    home: Path, port: int, timeout: str, more: str = ""
) -> AsyncIterator[Callable[[], Awaitable[ToolResult]]]:
    """Calls of the one tool of a catalog, as a conversation makes them."""
    path = home / "tools.yaml"
    path.write_text(
        f"""
version: 1
sources: {{own: {{http: {{base_url: "http://127.0.0.1:{port}", allow_private: true}}}}}}
tools:
  look_up:
    description: Looks up.
    parameters: {{}}
    http: {{source: own, path: /}}
    timeout: {timeout}
{more}""",
        encoding="utf-8",
    )
    catalog: ToolCatalog = load_catalog(path, home=home, data_dir=home / "var", environment={})
    runner = ToolRunner(mock="never")
    try:
        yield lambda: runner.run(catalog, ToolCall("1", "look_up", {}), caller=Caller("ann"), session_id="s")
    finally:
        await runner.close()


def dripping(first: bytes, drops: int, ended: asyncio.Event) -> Callable[..., Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        left = asyncio.create_task(reader.read())  # noqa: TID251 - awaited below
        try:
            for _ in range(drops):
                writer.write(b"x")
                await asyncio.wait({left}, timeout=0.01)
                if left.done():
                    ended.set()
                    return
        finally:
            left.cancel()
            await asyncio.wait({left})

    return talk


@pytest.mark.proves("T45", "F27")
@pytest.mark.parametrize(
    "first", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"]
)
async def test_a_drip_ends_at_the_deadline(
    first: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte comes in time; without a deadline over all of them the drip would take a quarter of an hour."""
    caplog.set_level(logging.INFO)
    ended = asyncio.Event()
    async with talking(dripping(first, 90_000, ended)) as port, running(tmp_path, port, "300ms") as call:
        result = await call()
        await ended.wait()
    assert result.error is ToolCode.TIMEOUT
    assert "0.3 seconds" in result.summary
    assert "tool look_up" in caplog.text


@pytest.mark.proves("T45")
async def test_a_client_without_a_deadline_waits_for_every_drop() -> None:
    ended = asyncio.Event()
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n"
    async with (
        talking(dripping(first, 30, ended)) as port,
        httpx.AsyncClient(trust_env=False, timeout=0.25) as careless,
    ):
        answer = await careless.get(f"http://127.0.0.1:{port}/")
    assert answer.content == b"x" * 30


# Understood or not


def test_only_content_types_that_are_expected_are_taken() -> None:
    assert parse_answer("text/html; charset=utf-8", b"<p>Hi</p>", ("text/html",)) == "<p>Hi</p>"
    assert parse_answer("text/csv", b"a,b", ("application/json", "text/*")) == "a,b"
    assert parse_answer("application/atom+xml", b"<feed/>", ("application/atom+xml",)) == "<feed/>"
    assert parse_answer("Application/JSON", b"[1]", ("application/json",)) == [1]
    assert parse_answer("", b"  ", ("application/json",)) is None
    for kind in ("text/plain", "", "application/problem+json"):
        with pytest.raises(ToolError) as caught:
            parse_answer(kind, b"[1]", ("application/json",))
        assert caught.value.message == "The service's answer is not application/json."


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "rot13", "zlib", "utf-7", "mbcs"])
def test_a_charset_that_is_slow_or_none_is_not_taken(charset: str) -> None:
    with pytest.raises(ToolError):
        parse_answer(f"text/plain; charset={charset}", b"a" * 1000)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("application/problem+json; charset=utf-8", b'"x"', "x"),
        ("", b'{"a": 1}', {"a": 1}),
        ("", b"plain", "plain"),
        ("text/plain; charset=iso-8859-1", b"caf\xe9", "café"),
        ("text/csv", b"a,b", "a,b"),
        ("application/json", b"  ", None),
    ],
)
def test_json_and_text_are_understood(kind: str, body: bytes, expected: Json) -> None:
    assert parse_answer(kind, body) == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b'{"a": NaN}'),
        ("application/json", b"[" * 100_000),
        ("application/json", b"\xff"),
        ("text/html", b"<p>Log in</p>"),
        ("image/png", b"\x89PNG"),
        ("text/plain", b"\xff\xfe"),
        ("text/plain; charset=nonsense", b"x"),
        ("", b"\xff"),
    ],
)
def test_anything_else_is_a_bad_answer(kind: str, body: bytes) -> None:
    with pytest.raises(ToolError) as caught:
        parse_answer(kind, body)
    assert caught.value.code is ToolCode.BAD_ANSWER
