"""Calls over HTTP: whom they reach, what they send, how they end. The servers are real, on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from endpoints import serving
from serving import nobody_listens
from tornado.web import RequestHandler

from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_template import Endpoint
from tornado_live.tools.result import Json, ToolCode, ToolError


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
