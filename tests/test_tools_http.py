"""Calls over HTTP: whom they reach, what they send, how they end. The servers are real, on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import httpcore
import httpx
import pytest
from endpoints import Elsewhere, Talk, names, reset, serving, talking
from serving import nobody_listens
from tornado.web import RequestHandler

from tornado_live.tools import http_guard
from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_retry import Retry
from tornado_live.tools.http_template import Body, Endpoint
from tornado_live.tools.result import Json, ToolCode, ToolError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\ntrue"
Step = Callable[[asyncio.StreamWriter], Any]


def endpoint(port: int, path: str = "/", *, method: str = "GET", **more: Any) -> Endpoint:
    return Endpoint(method, f"http://127.0.0.1:{port}", path, **{"allow_private": True, **more})


async def refusal(where: Endpoint, arguments: dict[str, Json] | None = None, **client: Any) -> ToolError:
    async with guarded_client(**client) as http:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(http, where, arguments or {})
    return caught.value


def script(*connections: Sequence[Step], heads: list[bytes] | None = None) -> Talk:
    """What a service does: for each connection, one after the other, a step for each request that arrives."""
    left = list(connections)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for step in left.pop(0):
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            step(writer)

    return talk


def says(answer: bytes) -> Step:
    return lambda writer: writer.write(answer)


def ends(writer: asyncio.StreamWriter) -> None:
    writer.close()


def json_answer(handler: RequestHandler) -> None:
    handler.write({"path": handler.request.path, "query": handler.request.query})


# What is sent


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


# Whom a call may reach


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


async def test_a_body_arrives_as_json_or_as_a_form() -> None:
    async with serving(json_answer) as (port, seen), guarded_client() as client:
        for kind in ("json", "form"):
            where = endpoint(port, method="POST", body=Body(kind, {"q": "{q}", "n": 1}))
            await call_endpoint(client, where, {"q": "a&b=é"})
    as_json, form = seen
    assert as_json.headers["Content-Type"] == "application/json"
    assert json.loads(as_json.body) == {"q": "a&b=é", "n": 1}
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert {name: value for name, [value] in form.body_arguments.items()} == {
        "q": "a&b=é".encode(),
        "n": b"1",
    }


async def test_a_content_type_of_the_operators_own_wins() -> None:
    async with serving(json_answer) as (port, seen), guarded_client() as client:
        headers = {"content-type": "application/vnd.api+json"}
        where = endpoint(port, method="PATCH", body=Body("json", {}), headers=headers)
        await call_endpoint(client, where, {})
    assert seen[0].headers.get_list("Content-Type") == ["application/vnd.api+json"]


# How a service fails


@pytest.mark.proves("F27")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", ToolCode.HTTP_ERROR),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", ToolCode.HTTP_ERROR),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", ToolCode.HTTP_ERROR),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", ToolCode.HTTP_ERROR),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1\r\n\r\nx", ToolCode.BAD_ANSWER),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\nx", ToolCode.BAD_ANSWER),
    ],
)
async def test_what_a_service_answers_wrongly_is_told(answer: bytes, code: ToolCode) -> None:
    async with talking(script([says(answer)])) as port:
        assert (await refusal(endpoint(port))).code is code


@pytest.mark.proves("F27")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n\r\n",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_without_a_body_is_nothing_and_no_failure(answer: bytes) -> None:
    async with talking(script([says(answer), says(OK)])) as port, guarded_client() as client:
        where = endpoint(port, expect=("application/json",))
        assert await call_endpoint(client, where, {}) is None
        assert await call_endpoint(client, where, {}) is True  # over the same connection


@pytest.mark.proves("F27")
@pytest.mark.parametrize("end", [reset, ends])
async def test_a_get_whose_connection_breaks_is_made_once_more(end: Step) -> None:
    heads: list[bytes] = []
    async with talking(script([end], [says(OK)], heads=heads)) as port, guarded_client() as client:
        assert await call_endpoint(client, endpoint(port), {}) is True
    assert len(heads) == 2
    heads.clear()
    async with talking(script([end], [end], heads=heads)) as port:
        error = await refusal(endpoint(port))
    assert error.code in (ToolCode.UNREACHABLE, ToolCode.BAD_ANSWER)
    assert error.retryable
    assert len(heads) == 2


@pytest.mark.proves("F27")
@pytest.mark.parametrize("end", [reset, ends])
async def test_a_call_with_side_effects_that_may_have_arrived_is_not_made_again(end: Step) -> None:
    heads: list[bytes] = []
    async with talking(script([end], heads=heads)) as port, guarded_client() as client:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port, method="POST"), {}, idempotency_key="k1")
    assert not caught.value.retryable
    assert caught.value.hint == "It may have been done all the same: find out before trying again."
    assert len(heads) == 1


@pytest.mark.proves("F27")
@pytest.mark.parametrize("end", [reset, ends])
async def test_a_kept_connection_that_the_service_has_closed_is_replaced(end: Step) -> None:
    """Even where there are side effects: of the second request nothing has been sent."""
    heads: list[bytes] = []
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await writer.drain()
        if len(heads) == 1:
            await answered.wait()
            end(writer)
            gone.set()
        else:
            await reader.read()

    answered = asyncio.Event()
    async with talking(talk) as port, guarded_client() as client:
        where = endpoint(port, method="POST")
        assert await call_endpoint(client, where, {}, idempotency_key="k1") is True
        answered.set()
        await gone.wait()
        assert await call_endpoint(client, where, {}, idempotency_key="k2") is True
    assert len(heads) == 2


@pytest.mark.proves("F27")
async def test_a_get_over_a_kept_connection_that_closes_instead_of_answering_is_made_once_more() -> None:
    heads: list[bytes] = []
    async with talking(script([says(OK), ends], [says(OK)], heads=heads)) as port, guarded_client() as client:
        for _ in range(2):
            assert await call_endpoint(client, endpoint(port), {}) is True
    assert len(heads) == 3


class Stale(httpcore.AsyncNetworkStream):
    """A connection that takes one request and, once it was kept, no more: its end was not seen in time."""

    def __init__(self, line: httpcore.AsyncNetworkStream) -> None:
        self.line = line
        self.used = False

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.used:
            raise httpcore.WriteError
        self.used = True
        await self.line.write(buffer, timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self.line.read(max_bytes, timeout)

    async def aclose(self) -> None:
        await self.line.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self.line.get_extra_info(info)


class StaleAtFirst(Elsewhere):
    async def connect_tcp(self, *where: Any, **more: Any) -> httpcore.AsyncNetworkStream:
        line = await super().connect_tcp(*where, **more)
        return Stale(line) if len(self.opened) == 1 else line


@pytest.mark.proves("F27")
async def test_what_could_not_even_be_sent_over_a_kept_connection_is_sent_over_a_new_one() -> None:
    async with serving(json_answer) as (port, seen):
        network = StaleAtFirst(port)
        async with guarded_client(network=network) as client:
            for key in ("k1", "k2"):
                await call_endpoint(client, endpoint(port, method="PUT"), {}, idempotency_key=key)
    assert [request.headers["Idempotency-Key"] for request in seen] == ["k1", "k2"]
    assert len(network.opened) == 2


async def test_a_service_that_breaks_off_in_its_answer_is_not_asked_again() -> None:
    heads: list[bytes] = []

    def half(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        writer.close()

    async with talking(script([half], heads=heads)) as port:
        assert (await refusal(endpoint(port))).code is ToolCode.BAD_ANSWER
    assert len(heads) == 1


# Trying again


def failing(*statuses: int, **headers: str) -> Callable[[RequestHandler], None]:
    """Answers these statuses, one after the other, and then well."""
    left = list(statuses)

    def answer(handler: RequestHandler) -> None:
        if left:
            handler.set_status(left.pop(0))
            for name, value in headers.items():
                handler.set_header(name.replace("_", "-"), value)
        else:
            handler.write({"ok": True})

    return answer


@pytest.mark.proves("F27")
async def test_a_busy_service_is_asked_again_as_often_as_the_operator_says() -> None:
    async with serving(failing(503, 429)) as (port, seen), guarded_client() as client:
        assert await call_endpoint(client, endpoint(port), {}, retry=Retry(3), timeout_s=30) == {"ok": True}
    assert len(seen) == 3
    async with serving(failing(503, 503, 503)) as (port, seen), guarded_client() as client:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port), {}, retry=Retry(2), timeout_s=30)
    assert caught.value.message == "The service answered with HTTP 503."
    assert len(seen) == 2


async def test_without_retry_or_with_side_effects_there_is_one_request() -> None:
    async with serving(failing(503, 503)) as (port, seen), guarded_client() as client:
        for more in ({}, {"retry": Retry(3), "idempotency_key": "k1"}):
            with pytest.raises(ToolError):
                await call_endpoint(client, endpoint(port), {}, **more)  # type: ignore[arg-type]
    assert [request.headers.get("Idempotency-Key") for request in seen] == [None, "k1"]


async def test_a_pause_that_the_deadline_does_not_allow_is_not_begun() -> None:
    async with serving(failing(503, Retry_After="60")) as (port, seen), guarded_client() as client:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port), {}, retry=Retry(3), timeout_s=10)
    assert caught.value.code is ToolCode.HTTP_ERROR
    assert len(seen) == 1


async def test_a_service_that_comes_up_is_reached_by_the_next_try() -> None:
    opened: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        opened.append(host)
        if len(opened) == 1:
            raise OSError("no such name")
        return ["127.0.0.1"]

    async with serving(json_answer) as (port, _), guarded_client(resolve=resolve) as client:
        where = Endpoint("GET", f"http://late.example:{port}", "/", allow_private=True)
        answer = await call_endpoint(client, where, {}, retry=Retry(2, frozenset(("connect",))))
    assert answer == {"path": "/", "query": ""}
    assert len(opened) == 2


# Redirects


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


async def test_redirects_are_followed_as_far_as_the_operator_says() -> None:
    def onward(handler: RequestHandler) -> None:
        hops = int(handler.request.path[1:])
        if hops:
            handler.redirect(f"/{hops - 1}")
        else:
            handler.write({"arrived": True})

    async with serving(onward) as (port, seen), guarded_client() as client:
        assert await call_endpoint(client, endpoint(port, "/2", follow_redirects=2), {}) == {"arrived": True}
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port, "/3", follow_redirects=2), {})
    assert caught.value.message == "The service sent a redirect (HTTP 302), which is not followed."
    assert [request.path for request in seen] == ["/2", "/1", "/0", "/3", "/2", "/1"]


@pytest.mark.proves("T53")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_credentials_stay_with_the_host_that_they_are_for(status: int) -> None:
    def leave(handler: RequestHandler) -> None:
        if handler.request.path == "/":
            handler.redirect("/again", status=status)
        else:
            handler.redirect("http://b.example/", status=status)

    async with serving(leave) as (a, at_a), serving(json_answer) as (b, at_b):
        network = Elsewhere({"8.8.8.8": a, "1.1.1.1": b})
        resolve = names(a=["8.8.8.8"], b=["1.1.1.1"])
        where = Endpoint(
            "GET",
            "http://a.example",
            "/",
            headers={"X-Key": "canary", "Accept": "text/plain, application/json"},
            credentials={"Authorization": "Bearer canary"},
            follow_redirects=3,
        )
        async with guarded_client(resolve=resolve, network=network) as client:
            await call_endpoint(client, where, {}, idempotency_key="canary")
    assert [request.headers["Authorization"] for request in at_a] == ["Bearer canary"] * 2
    assert "canary" not in str(dict(at_b[0].headers))
    assert at_b[0].headers["Host"] == "b.example"
    assert at_b[0].headers["Accept"] == "text/plain, application/json"


# Many at once


async def test_a_host_that_hangs_takes_no_places_from_others() -> None:
    open_lines = asyncio.Semaphore(0)
    release = asyncio.Event()
    most = at_once = 0

    async def hang(handler: RequestHandler) -> None:
        nonlocal most, at_once
        at_once += 1
        most = max(most, at_once)
        open_lines.release()
        await release.wait()
        at_once -= 1
        handler.write({"late": True})

    limit = http_guard.MOST_CALLS_OF_A_HOST
    async with serving(hang) as (slow, seen), serving(json_answer) as (quick, _), guarded_client() as client:
        async with asyncio.TaskGroup() as calls:
            waiting = [calls.create_task(call_endpoint(client, endpoint(slow), {})) for _ in range(limit + 9)]
            for _ in range(limit):
                await open_lines.acquire()
            for _ in range(3):
                assert await call_endpoint(client, endpoint(quick), {}) == {"path": "/", "query": ""}
            assert len(seen) == limit
            release.set()
        assert [task.result() for task in waiting] == [{"late": True}] * (limit + 9)
    assert most == limit


async def test_a_call_that_finds_no_place_in_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = asyncio.Event()
    release = asyncio.Event()

    async def hang(handler: RequestHandler) -> None:
        arrived.set()
        await release.wait()

    async with (
        serving(hang) as (port, _),
        guarded_client(calls_of_a_host=1) as client,
        asyncio.TaskGroup() as calls,
    ):
        calls.create_task(call_endpoint(client, endpoint(port), {}))
        await arrived.wait()
        monkeypatch.setattr(http_guard, "CONNECT_SECONDS", 0.05)
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port), {})
        release.set()
    assert (caught.value.code, caught.value.retryable) == (ToolCode.LIMITED, True)


async def test_places_are_given_back_however_a_call_ends() -> None:
    endings = [
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
        says(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n"),
        says(b"no http\r\n\r\n"),
    ]
    lines = [[end] for end in endings for _ in range(2 if end is endings[3] else 1)] * 8
    async with talking(script(*lines, [says(OK)])) as port, guarded_client() as client:
        for _ in range(len(endings) * 8):
            with pytest.raises(ToolError):
                await call_endpoint(client, endpoint(port), {})
        assert await call_endpoint(client, endpoint(port), {}) is True


# Cancellation


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
async def test_a_cancelled_call_closes_its_connection_at_once(
    secure: bool, first: bytes, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        await writer.drain()
        arrived.set()
        assert await reader.read() == b""
        closed.set()

    server, trusting = tls
    async with talking(hang, tls=server if secure else None) as port, guarded_client(tls=trusting) as client:
        base = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(call_endpoint(client, Endpoint("GET", base, allow_private=True), {}))
            await arrived.wait()
            call.cancel()
        await closed.wait()
        assert call.cancelled()


async def test_a_call_that_is_cancelled_while_it_pauses_is_not_made_again() -> None:
    asked = asyncio.Event()

    def busy(handler: RequestHandler) -> None:
        handler.set_status(503)
        handler.set_header("Retry-After", "50")
        asked.set()

    async with serving(busy) as (port, seen), guarded_client() as client, asyncio.TaskGroup() as calls:
        call = calls.create_task(call_endpoint(client, endpoint(port), {}, retry=Retry(5)))
        await asked.wait()
        call.cancel()
    assert call.cancelled()
    assert len(seen) == 1
