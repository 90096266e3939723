"""Requests from templates: what the file may write, and what arguments can and cannot change."""

from __future__ import annotations

import asyncio
import json
import random
import re
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import pytest
from endpoints import talking
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_live.tools import http_template
from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_addresses import HostRule
from tornado_live.tools.http_template import (
    BadTemplate,
    Body,
    Endpoint,
    check_header,
    checked_address,
    credentials,
    fill,
)
from tornado_live.tools.result import Json, ToolCode, ToolError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EXPRESSIONS = r"""
{q} {p} {{q}} {{p}} {{{q}}} ${HOME} ${q} $q $(id) `id` {0} {} {0.__class__} {q.__class__} {q[0]} {q!r}
{q:>10} {self} {request} %(q)s %s %{q} {{7*7}} {%q%} <%=q%> #{q} \{q\} {q}{q} @{q} {{constructor}} [[q]]
{q|safe} {__import__('os')}
"""


def filled(where: Endpoint, arguments: dict[str, Json]) -> httpx.Request | ToolCode:
    try:
        return fill(where, arguments)
    except ToolError as error:
        return error.code


def told(where: Endpoint, arguments: dict[str, Json]) -> ToolError:
    with pytest.raises(ToolError) as caught:
        fill(where, arguments)
    return caught.value


# Addresses


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


@pytest.mark.proves("T51", "T54")
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


@pytest.mark.proves("T54")
def test_without_percent_encoding_a_segment_would_leave_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Endpoint("GET", "http://a.example", "/x/{p}/y")
    hostile = "../../admin?all=1#"
    assert fill(where, {"p": hostile}).url.raw_path == b"/x/..%2F..%2Fadmin%3Fall%3D1%23/y"
    monkeypatch.setattr(http_template, "quote", lambda text, safe: text)
    assert fill(where, {"p": hostile}).url.raw_path == b"/admin?all=1"


@pytest.mark.proves("T51", "T54")
@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_host_from_an_argument_is_one_of_the_operators(text: str) -> None:
    hosts = (HostRule.parse("api.example.com"), HostRule.parse("*.shop.example:8443"))
    for base in ("https://{h}", "{h}"):
        for value in (text, f"https://{text}", f"api.example.com{text}", f"https://api.example.com{text}"):
            request = filled(Endpoint("GET", base, hosts=hosts), {"h": value})
            if not isinstance(request, httpx.Request):
                assert request in (ToolCode.INVALID_ARGUMENTS, ToolCode.NOT_ALLOWED)
                continue
            assert request.url.scheme == "https"
            assert request.url.userinfo == b""
            assert (request.url.host, request.url.port) == ("api.example.com", None) or (
                request.url.host.endswith(".shop.example") and request.url.port == 8443
            )
            assert request.headers["Host"] == request.url.netloc.decode()


def test_a_host_or_a_whole_address_may_come_from_an_argument() -> None:
    hosts = (HostRule.parse("api.example.com"), HostRule.parse("http://*.example.org:8080"))
    one = Endpoint("GET", "https://{h}", "/v1/{p}", {"q": "{p}"}, hosts=hosts)
    assert (
        str(fill(one, {"h": "api.example.com", "p": "a/b"}).url) == "https://api.example.com/v1/a%2Fb?q=a%2Fb"
    )
    whole = Endpoint("GET", "{u}", query={"key": "1"}, hosts=hosts)
    assert str(fill(whole, {"u": "http://a.b.example.org:8080/x?y=2#z"}).url) == (
        "http://a.b.example.org:8080/x?y=2&key=1"
    )
    assert str(fill(whole, {"u": "https://API.example.com/"}).url) == "https://api.example.com/?key=1"
    error = told(whole, {"u": "https://example.org:8080/"})
    assert (error.code, error.hint) == (
        ToolCode.NOT_ALLOWED,
        "Allowed hosts: api.example.com, http://*.example.org:8080.",
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://{h}/v1/{p}", ("https://{h}", "/v1/{p}")),
        ("https://{h}", ("https://{h}", "")),
        ("{u}", ("{u}", "")),
        ("https://a.b/{p}", ("https://a.b", "/{p}")),
    ],
)
def test_an_address_may_have_its_host_open(url: str, expected: tuple[str, str]) -> None:
    assert checked_address(url, open_host=True) == expected


@pytest.mark.parametrize(
    "url", ["https://{h}.b/", "https://a.{h}/", "https://{h}:8443/", "{s}://a.b/", "{u}/x", "ftp://{h}"]
)
def test_a_part_of_a_host_cannot_be_open(url: str) -> None:
    with pytest.raises(BadTemplate):
        checked_address(url, open_host=True)


# Bodies


def body_of(kind: str, template: Json, arguments: dict[str, Json]) -> httpx.Request:
    return fill(Endpoint("POST", "https://a.example", "/", body=Body(kind, template)), arguments)


def test_a_json_value_that_is_only_a_parameter_keeps_its_type() -> None:
    template: Json = {
        "n": "{n}",
        "text": "no {n}",
        "list": ["{flag}", "{gone}", 1, None],
        "deep": {"filter": "{filter}", "gone": "{gone}", "half": "x {gone}"},
        "nothing": "{nothing}",
        "{n}": "a key is no slot",
    }
    arguments: dict[str, Json] = {"n": 3, "flag": True, "filter": {"a": [1, {"b": None}]}, "nothing": None}
    request = body_of("json", template, arguments)
    assert json.loads(request.content) == {
        "n": 3,
        "text": "no 3",
        "list": [True, 1, None],
        "deep": {"filter": {"a": [1, {"b": None}]}},
        "nothing": None,
        "{n}": "a key is no slot",
    }
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Content-Length"] == str(len(request.content))


def test_a_body_that_is_a_parameter_is_left_out_if_that_was_not_given() -> None:
    assert body_of("json", "{filter}", {"filter": {"a": 1}}).content == b'{"a":1}'
    request = body_of("json", "{filter}", {})
    assert request.content == b""
    assert "Content-Type" not in request.headers


def test_a_form_is_encoded_and_repeats_the_name_of_a_list() -> None:
    template: Json = {"q": "{q}", "many": "{many}", "gone": "{gone}", "near": "in {q}", "fixed": 7}
    request = body_of("form", template, {"q": "a&b=c d+é", "many": ["1", 2]})
    assert parse_qsl(request.content.decode()) == [
        ("q", "a&b=c d+é"),
        ("many", "1"),
        ("many", "2"),
        ("near", "in a&b=c d+é"),
        ("fixed", "7"),
    ]
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.proves("T55", "T56")
@given(JSON, st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_an_argument_changes_nothing_of_a_body_but_its_own_value(value: Json, text: str) -> None:
    template: Json = {"role": "user", "value": "{v}", "list": [{"note": "<{t}>"}], "last": False}
    request = body_of("json", template, {"v": value, "t": text, "role": "admin"})
    assert json.loads(request.content) == {
        "role": "user",
        "value": value,
        "list": [{"note": f"<{text}>"}],
        "last": False,
    }
    fields = body_of("form", {"role": "user", "text": "{t}", "last": "1"}, {"t": text})
    assert parse_qsl(fields.content.decode(), keep_blank_values=True) == [
        ("role", "user"),
        ("text", text),
        ("last", "1"),
    ]


def test_what_json_cannot_say_is_an_invalid_argument() -> None:
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("\ud800", {"\ud800": 1}, deep):
        where = Endpoint("POST", "https://a.example", body=Body("json", {"v": "{v}"}))
        assert told(where, {"v": value}).code is ToolCode.INVALID_ARGUMENTS


@pytest.mark.proves("T56")
@pytest.mark.parametrize("value", EXPRESSIONS.split())
def test_an_argument_is_never_read_as_a_template(value: str) -> None:
    arguments: dict[str, Json] = {"p": value, "q": "secret"}
    where = Endpoint("GET", "http://a.example", "/{p}/{q}", {"a": "{p}", "b": "-{p}-"}, {"X-A": "{p}{q}"})
    request = fill(where, arguments)
    assert unquote(request.url.raw_path.decode()) == f"/{value}/secret?a={value}&b=-{value}-"
    assert request.headers["X-A"] == f"{value}secret"
    assert json.loads(body_of("json", ["{p}", "-{p}-"], arguments).content) == [value, f"-{value}-"]
    assert parse_qsl(body_of("form", {"a": "{p}", "b": "-{p}-"}, arguments).content.decode()) == [
        ("a", value),
        ("b", f"-{value}-"),
    ]


# Headers


@pytest.mark.proves("T55")
async def test_a_service_receives_exactly_the_headers_that_are_declared() -> None:
    """Whatever an argument holds, in the bytes that arrive no header is added, lost or changed."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.findall(rb"(?im)^content-length: (\d+)", head)[0])
            await reader.readexactly(length)
            heads.append(head)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    dice = random.Random(55)
    parts = [
        "\r\n",
        "\n",
        "\r",
        "\x00",
        "X-Evil: 1",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "a",
        " ",
        "\t",
        ":",
        "é",
        "\u2028",
        "\x0b",
        "\x7f",
        "\ud800",
        "GET / HTTP/1.1",
        "{p}",
        "%0d%0a",
        "\x85",
        "嘊嘍",
    ]
    sent = refused = 0
    async with talking(talk) as port, guarded_client() as http:
        where = Endpoint(
            "POST",
            f"http://127.0.0.1:{port}",
            "/{p}",
            {"q": "{p}"},
            {"X-A": "{p}", "X-B": "b {p}"},
            allow_private=True,
            body=Body("json", {"p": "{p}"}),
            credentials={"Authorization": "Bearer canary"},
        )
        for _ in range(300):
            value = "".join(dice.choices(parts, k=dice.randint(1, 4)))
            if re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800]", value):
                assert told(where, {"p": value}).code is ToolCode.INVALID_ARGUMENTS
                refused += 1
                continue
            await call_endpoint(http, where, {"p": value})
            sent += 1
            first, *lines = heads[-1].decode().removesuffix("\r\n\r\n").split("\r\n")
            assert re.fullmatch(r"POST /[^ /?#]+\?q=[^ &#]* HTTP/1\.1", first)
            assert sorted(line.partition(":")[0].lower() for line in lines) == [
                "accept",
                "accept-encoding",
                "authorization",
                "connection",
                "content-length",
                "content-type",
                "host",
                "user-agent",
                "x-a",
                "x-b",
            ]
            got = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)
            assert got["X-A"] == value.strip(" \t")
            assert got["X-B"] == f"b {value}".strip(" \t")
            assert got["Authorization"] == "Bearer canary"
    assert sent == len(heads)
    assert sent > 50
    assert refused > 50


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"bearer": "t0ken"}, {"Authorization": "Bearer t0ken"}),
        ({"basic": {"user": "ann", "password": "p:w"}}, {"Authorization": "Basic YW5uOnA6dw=="}),
        ({"header": {"name": "X-Api-Key", "value": "k {p}"}}, {"X-Api-Key": "k {p}"}),
    ],
)
def test_credentials_are_headers_that_are_no_templates(
    auth: dict[str, Json], expected: dict[str, str]
) -> None:
    assert credentials(auth) == expected
    where = Endpoint("GET", "https://a.example", credentials=credentials(auth))
    [(name, value)] = expected.items()
    assert fill(where, {"p": "x"}).headers[name] == value


@pytest.mark.parametrize(
    "auth",
    [
        {"bearer": "a\r\nX: 1"},
        {"basic": {"user": "a:b", "password": "c"}},
        {"header": {"name": "Host", "value": "x"}},
        {"header": {"name": "a b", "value": "x"}},
        {},
        {"bearer": 1},
    ],
)
def test_credentials_that_are_no_header_are_refused(auth: dict[str, Any]) -> None:
    with pytest.raises(BadTemplate):
        credentials(auth)


def test_secrets_are_not_shown_with_an_endpoint() -> None:
    where = Endpoint(
        "GET",
        "https://a.example",
        credentials={"X": "canary"},
        headers={"Y": "canary"},
        query={"z": "canary"},
    )
    assert "canary" not in repr(where)
