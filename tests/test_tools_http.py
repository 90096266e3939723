"""Calls over HTTP: whom they reach, what they send, how they end. The servers are real, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import nobody_listens
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_addresses import is_allowed
from tornado_live.tools.http_answer import parse_answer
from tornado_live.tools.http_template import BadTemplate, Endpoint, check_header, checked_address, fill
from tornado_live.tools.result import Json, ToolCode, ToolError

Answer = Callable[[RequestHandler], Any]


class Recorded(RequestHandler):
    def initialize(self, answer: Answer, seen: list[Any]) -> None:
        self.answer = answer
        self.seen = seen

    async def prepare(self) -> None:
        self.seen.append(self.request)
        result = self.answer(self)
        if result is not None:
            await result
        if not self._finished:
            self.finish()


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[Any]]]:
    """A server on 127.0.0.1 that records requests; its port and the requests."""
    seen: list[Any] = []
    socket, port = bind_unused_port()
    server = HTTPServer(Application([(".*", Recorded, {"answer": answer, "seen": seen})]), ssl_options=tls)
    server.add_sockets([socket])
    try:
        yield port, seen
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def speaking(reply: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """A server that reads a request and then writes whatever bytes `reply` writes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reply(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def endpoint(port: int, path: str = "/", **more: Any) -> Endpoint:
    return Endpoint("GET", f"http://127.0.0.1:{port}", path, **{"allow_private": True, **more})


async def refusal(where: Endpoint, arguments: dict[str, Json] | None = None, **client: Any) -> ToolError:
    async with guarded_client(**client) as http:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(http, where, arguments or {})
    return caught.value


def json_answer(handler: RequestHandler) -> None:
    handler.write({"path": handler.request.path, "query": handler.request.query})


# Templates


async def test_arguments_arrive_in_path_query_and_headers() -> None:
    where = Endpoint(
        "POST",
        "",
        "/a/{city}/b",
        {
            "q": "{city}",
            "near": "in {city}",
            "n": "{n}",
            "gone": "{gone}",
            "fixed": 7,
            "many": "{many}",
            "ok": "{ok}",
        },
        {"X-City": "<{city}>", "X-Gone": "{gone}"},
        True,
    )
    async with serving(json_answer) as (port, seen), guarded_client() as http:
        where = Endpoint("POST", f"http://127.0.0.1:{port}", where.path, where.query, where.headers, True)
        arguments: dict[str, Json] = {"city": "São Paulo/Rio?#&", "n": 2.0, "many": ["a", "b&c"], "ok": True}
        answer = await call_endpoint(http, where, arguments)
    assert answer == {
        "path": "/a/S%C3%A3o%20Paulo%2FRio%3F%23%26/b",
        "query": "q=S%C3%A3o%20Paulo%2FRio%3F%23%26&near=in%20S%C3%A3o%20Paulo%2FRio%3F%23%26"
        "&n=2&fixed=7&many=a&many=b%26c&ok=true",
    }
    [request] = seen
    assert request.method == "POST"
    assert request.headers["X-City"].encode("latin-1").decode() == "<São Paulo/Rio?#&>"
    assert "X-Gone" not in request.headers
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Host"] == f"127.0.0.1:{port}"


@pytest.mark.proves("T54")
@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "%2e", "%2E%2e", ".%2e", "%252e%252e", "%25252e.", None, ["a"], {"a": 1}, "\ud800"],
)
def test_what_is_no_path_segment_is_an_invalid_argument(value: Json) -> None:
    with pytest.raises(ToolError) as caught:
        fill(Endpoint("GET", "http://a.example", "/x/{p}"), {"p": value})
    assert caught.value.code is ToolCode.INVALID_ARGUMENTS


@pytest.mark.proves("T55")
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "\x7f"])
def test_a_header_takes_no_line_break_or_control_character(value: str) -> None:
    with pytest.raises(ToolError) as caught:
        fill(Endpoint("GET", "http://a.example", "/", {}, {"X-A": "{p}"}), {"p": value})
    assert caught.value.code is ToolCode.INVALID_ARGUMENTS


@pytest.mark.proves("T56")
@pytest.mark.parametrize("value", ["{q}", "${HOME}", "{{q}}", "{0.__class__}", "%(x)s", "{p}"])
def test_an_argument_is_never_read_as_a_template(value: str) -> None:
    where = Endpoint("GET", "http://a.example", "/{p}/{q}", {"a": "{p}"}, {"X-A": "{p}{q}"})
    request = fill(where, {"p": value, "q": "secret"})
    assert unquote(request.url.raw_path.decode()) == f"/{value}/secret?a={value}"
    assert request.headers["X-A"] == f"{value}secret"


@pytest.mark.proves("T51")
@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_only_the_slot_of_an_address_differs_from_its_template(segment: str, value: str) -> None:
    where = Endpoint("GET", "https://api.example.com:8443", "/v1/{p}/end", {"q": "{q}"})
    try:
        request = fill(where, {"p": segment, "q": value})
    except ToolError:
        return
    url = request.url
    assert (url.scheme, url.host, url.port, url.userinfo, url.fragment) == (
        "https",
        "api.example.com",
        8443,
        b"",
        "",
    )
    path, _, query = url.raw_path.partition(b"?")
    start, one, middle, end = path.split(b"/")
    assert (start, one, end) == (b"", b"v1", b"end")
    assert unquote(middle.decode()) == segment
    assert query.startswith(b"q=")
    assert query.count(b"&") == 0
    assert unquote(query[2:].decode()) == value


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "//a.b",
        "ftp://a.b",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://a b/",
        "http://a\\b",
        "http://u@a.b",
        "http://a.b/?x=1",
        "http://a.b/#x",
        "http://{h}/",
        "http://a.b:99999/",
        "http://a.b:x/",
        "http://[::1",
        "gopher://a.b",
        "http://a.b\n/",
        "javascript:alert(1)",
        "",
    ],
)
def test_an_address_of_the_file_is_scheme_host_and_path_only(url: str) -> None:
    with pytest.raises(BadTemplate):
        checked_address(url)


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Accept-Encoding", "a b", "a:", ""]
)
def test_headers_that_the_client_owns_cannot_be_set(name: str) -> None:
    with pytest.raises(BadTemplate):
        check_header(name, "x")


# Whom a call may reach


@pytest.mark.proves("T52")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.2",
        "203.0.113.3",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "not an address",
        "",
    ],
)
def test_special_addresses_are_refused(address: str) -> None:
    assert not is_allowed(address, allow_private=False)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.15.0.1", "172.32.0.1", "1.1.1.1", "2606:4700::1111", "2a00::1"]
)
def test_addresses_of_the_open_internet_are_allowed(address: str) -> None:
    assert is_allowed(address, allow_private=False)
    assert is_allowed(address, allow_private=True)


def test_allow_private_opens_private_networks_but_not_link_local_or_multicast() -> None:
    opened = ["127.0.0.1", "10.0.0.1", "192.168.0.1", "172.20.0.1", "100.64.0.1", "::1", "fd00::1"]
    shut = ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::", "64:ff9b::7f00:1"]
    assert [address for address in opened + shut if is_allowed(address, allow_private=True)] == opened


@pytest.mark.proves("T51")
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "１２７.0.0.1",
        "127.0.0.1.",
    ],
)
async def test_no_spelling_of_loopback_is_connected_to(host: str) -> None:
    async with serving(json_answer) as (port, seen):
        error = await refusal(Endpoint("GET", f"http://{host}:{port}", "/"))
    # Spellings that the resolver does not know are out of reach, and some are no URL at all.
    assert error.code in (ToolCode.NOT_ALLOWED, ToolCode.UNREACHABLE, ToolCode.INVALID_ARGUMENTS)
    assert seen == []


@pytest.mark.proves("T53")
async def test_a_name_with_one_private_address_among_its_own_is_refused() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34", "127.0.0.1"]

    async with serving(json_answer) as (port, seen):
        error = await refusal(Endpoint("GET", f"http://a.example:{port}", "/"), resolve=resolve)
    assert error.code is ToolCode.NOT_ALLOWED
    assert "127.0.0.1" not in error.message + error.hint
    assert seen == []


@pytest.mark.proves("T53")
async def test_the_checked_address_is_the_one_that_is_connected_to() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    async with serving(json_answer) as (port, seen), guarded_client(resolve=resolve) as http:
        where = Endpoint("GET", f"http://rebind.example:{port}", "/", allow_private=True)
        await call_endpoint(http, where, {})
    assert asked == ["rebind.example"]
    assert seen[0].headers["Host"] == f"rebind.example:{port}"


async def test_a_connection_to_a_private_service_is_not_lent_to_a_call_without_leave() -> None:
    async with serving(json_answer) as (port, seen), guarded_client() as http:
        await call_endpoint(http, endpoint(port), {})
        with pytest.raises(ToolError) as caught:
            await call_endpoint(http, endpoint(port, allow_private=False), {})
    assert caught.value.code is ToolCode.NOT_ALLOWED
    assert len(seen) == 1


async def test_tls_proves_the_name_while_the_checked_address_is_connected_to() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example.com").configure_cert(server_side)
    names: list[str | None] = []
    server_side.sni_callback = lambda socket, name, context: names.append(name)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with serving(json_answer, tls=server_side) as (port, seen):
        where = Endpoint("GET", f"https://api.example.com:{port}", "/x", allow_private=True)
        async with guarded_client(tls=trusting, resolve=resolve) as http:
            assert await call_endpoint(http, where, {}) == {"path": "/x", "query": ""}
        other = Endpoint("GET", f"https://other.example.com:{port}", "/x", allow_private=True)
        assert (await refusal(other, tls=trusting, resolve=resolve)).code is ToolCode.UNREACHABLE
        assert (await refusal(where, resolve=resolve)).code is ToolCode.UNREACHABLE
    assert names == ["api.example.com", "other.example.com", "api.example.com"]
    assert len(seen) == 1


@pytest.mark.proves("T53")
async def test_environment_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(json_answer) as (proxy, through), serving(json_answer) as (port, seen):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        async with guarded_client() as http:
            await call_endpoint(http, endpoint(port), {})
    assert (len(through), len(seen)) == (0, 1)


@pytest.mark.proves("T53")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with serving(json_answer) as (secret, reached):

        def redirect(handler: RequestHandler) -> None:
            handler.set_status(status)
            handler.set_header("Location", f"http://127.0.0.1:{secret}/")

        async with serving(redirect) as (port, _):
            error = await refusal(endpoint(port))
    assert (error.code, error.message) == (
        ToolCode.HTTP_ERROR,
        f"The service sent a redirect (HTTP {status}), which is not followed.",
    )
    assert reached == []


async def test_an_address_that_does_not_answer_is_unreachable() -> None:
    with nobody_listens() as port:
        error = await refusal(endpoint(port))
    assert (error.code, error.retryable) == (ToolCode.UNREACHABLE, True)

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    error = await refusal(Endpoint("GET", "http://nowhere.example", "/"), resolve=resolve)
    assert error.code is ToolCode.UNREACHABLE
    assert "nowhere" not in str(error)


async def test_the_second_address_is_tried_if_the_first_refuses() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with serving(json_answer) as (port, _), guarded_client(resolve=resolve) as http:
        where = Endpoint("GET", f"http://two.example:{port}", "/", allow_private=True)
        assert await call_endpoint(http, where, {}) == {"path": "/", "query": ""}


# What comes back


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (404, False), (429, True), (500, True), (503, True)]
)
async def test_an_error_status_is_told_without_the_body(status: int, retryable: bool) -> None:
    def answer(handler: RequestHandler) -> None:
        handler.set_status(status)
        handler.write("internal canary")

    async with serving(answer) as (port, _):
        error = await refusal(endpoint(port))
    assert (error.code, error.retryable) == (ToolCode.HTTP_ERROR, retryable)
    assert error.message == f"The service answered with HTTP {status}."


@pytest.mark.proves("T43")
async def test_an_answer_over_the_cap_is_given_up_while_it_is_read() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while sent < 200_000_000:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with speaking(endless) as port:
        error = await refusal(endpoint(port))
    assert error.code is ToolCode.TOO_LARGE
    assert sent < 20_000_000


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


@pytest.mark.proves("T44")
async def test_a_compressed_answer_is_refused_and_never_unpacked() -> None:
    def bomb(handler: RequestHandler) -> None:
        handler.set_header("Content-Encoding", "gzip")
        handler.write(gzip.compress(b"0" * 10_000_000))

    async with serving(bomb) as (port, _):
        assert (await refusal(endpoint(port))).code is ToolCode.BAD_ANSWER


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


async def test_only_plain_http_addresses_can_be_asked_for() -> None:
    async with guarded_client() as http:
        for url in ("ftp://a.example/x", "http://user:pass@a.example/x"):
            with pytest.raises((ToolError, httpx.UnsupportedProtocol)):
                await http.get(url)


async def test_a_cookie_that_a_service_sets_is_not_kept_for_the_next_caller() -> None:
    def answer(handler: RequestHandler) -> None:
        handler.set_cookie("user", "ann")
        handler.write({})

    async with serving(answer) as (port, seen), guarded_client() as http:
        for _ in range(2):
            await http.get(f"http://127.0.0.1:{port}/", extensions={"allow_private": True})
            await call_endpoint(http, endpoint(port), {})
    assert [request.headers.get("Cookie") for request in seen] == [None] * 4
