from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from builtin_context import context_for
from builtin_services import Services, services
from jsonschema import ValidationError

from tornado_live.tools.builtin import web
from tornado_live.tools.context import ToolContext
from tornado_live.tools.http import guarded_client
from tornado_live.tools.http_addresses import HostRule, is_listed
from tornado_live.tools.result import Json, ToolCode, ToolError


@asynccontextmanager
async def asking(**options: Json) -> AsyncIterator[tuple[ToolContext, Services]]:
    async with services() as service, httpx.AsyncClient(trust_env=False) as http:
        settings: dict[str, Json] = {"allow_hosts": [service.url], **options}
        yield context_for(web.request, http=http, **settings), service


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("json", {"http_status": 200, "data": {"rates": {"USD": 1.17}}}),
        ("problem", {"http_status": 200, "data": {"title": "x"}}),
        ("text", {"http_status": 200, "text": "plain words"}),
        ("page", {"http_status": 200, "text": "shown"}),
    ],
)
async def test_json_text_and_pages_are_answered(name: str, answer: Json) -> None:
    async with asking() as (context, service):
        assert await web.request(f"{service.url}/any/{name}", context) == answer


async def test_as_many_redirects_as_the_operator_allows_are_followed() -> None:
    async with asking(follow_redirects=2) as (context, service):
        answer = await web.request(f"{service.url}/any/twice", context)
        assert answer == {"http_status": 200, "data": {"rates": {"USD": 1.17}}}
        assert [request.path for request in service.asked] == ["/any/twice", "/any/moved", "/any/json"]
    async with asking(follow_redirects=1) as (context, service):
        with pytest.raises(ToolError, match="redirect") as caught:
            await web.request(f"{service.url}/any/twice", context)
        assert caught.value.code is ToolCode.HTTP_ERROR
        assert len(service.asked) == 2


@pytest.mark.proves("T53")
@pytest.mark.parametrize("name", ["away", "down", "file", "user"])
async def test_no_redirect_leads_off_the_list(name: str) -> None:
    async with asking(follow_redirects=5) as (context, service), services() as canary:
        service.elsewhere = canary.url
        with pytest.raises(ToolError) as caught:
            await web.request(f"{service.url}/any/{name}", context)
        assert caught.value.code is ToolCode.NOT_ALLOWED
        assert canary.asked == []
        assert len(service.asked) == 1


async def test_the_canary_of_the_redirects_would_be_reached_if_it_were_listed() -> None:
    async with asking(follow_redirects=5) as (context, service), services() as canary:
        service.elsewhere = canary.url
        listed = replace(context, options={**context.options, "allow_hosts": [service.url, canary.url]})
        await web.request(f"{service.url}/any/away", listed)
        assert len(canary.asked) == 1


@pytest.mark.proves("T52")
async def test_a_listed_host_in_a_private_network_needs_the_operators_word() -> None:
    async with services() as service, guarded_client() as http:
        context = context_for(web.request, http=http, allow_hosts=[service.url])
        with pytest.raises(ToolError) as caught:
            await web.request(f"{service.url}/any/json", context)
        assert caught.value.code is ToolCode.NOT_ALLOWED
        assert service.asked == []
        context = context_for(web.request, http=http, allow_hosts=[service.url], allow_private=True)
        assert await web.request(f"{service.url}/any/text", context) == {
            "http_status": 200,
            "text": "plain words",
        }


@pytest.mark.proves("T43")
async def test_an_answer_over_the_cap_is_left_while_it_is_read() -> None:
    async with services() as service, guarded_client() as http:
        context = context_for(
            web.request, http=http, allow_hosts=[service.url], allow_private=True, max_bytes=1_000
        )
        with pytest.raises(ToolError) as caught:
            await web.request(f"{service.url}/any/long", context)
        assert caught.value.code is ToolCode.TOO_LARGE


@pytest.mark.proves("T40")
async def test_a_page_that_is_hard_to_read_holds_up_nobody() -> None:
    async with asking(max_bytes=1_000_000) as (context, service):
        answer = await web.request(f"{service.url}/any/hard", context)
        assert isinstance(answer, dict)
        assert answer["http_status"] == 200


async def test_a_charset_that_takes_for_ever_is_not_taken() -> None:
    async with asking() as (context, service):
        with pytest.raises(ToolError, match="readable text"):
            await web.request(f"{service.url}/any/punycode", context)


async def test_a_long_text_is_cut_with_a_note() -> None:
    async with asking(max_chars=100) as (context, service):
        assert await web.request(f"{service.url}/any/long", context) == {
            "http_status": 200,
            "text": "x" * 100,
            "note": "Only the first 100 of 5000 characters.",
        }


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken", ToolCode.BAD_ANSWER, "not valid JSON"),
        ("nan", ToolCode.BAD_ANSWER, "not valid JSON"),
        ("image", ToolCode.BAD_ANSWER, "neither JSON nor text"),
        ("moved", ToolCode.HTTP_ERROR, "redirect"),
        ("missing", ToolCode.HTTP_ERROR, "HTTP 404"),
    ],
)
async def test_other_answers_are_errors_that_can_be_told(name: str, code: ToolCode, message: str) -> None:
    async with asking() as (context, service):
        with pytest.raises(ToolError, match=message) as caught:
            await web.request(f"{service.url}/any/{name}", context)
        assert caught.value.code is code
        assert service.url not in caught.value.message + caught.value.hint
        assert len(service.asked) == 1


async def test_a_listed_host_with_the_wrong_scheme_is_told_the_right_one() -> None:
    async with asking(allow_hosts=["api.example.com", "http://*.local.example"]) as (context, service):
        for url, right in (("http://api.example.com/x", "https"), ("https://a.local.example/x", "http")):
            with pytest.raises(ToolError) as caught:
                await web.request(url, context)
            assert caught.value.code is ToolCode.NOT_ALLOWED
            assert caught.value.message == f"That host may only be asked with {right}."
            assert caught.value.hint == f"The address starts with {right}://."
        with pytest.raises(ToolError, match="That host may not be asked"):
            await web.request("http://other.example.com/x", context)
        assert service.asked == []


@pytest.mark.proves("T51")
@pytest.mark.proves("T52")
async def test_nothing_but_listed_hosts_is_asked() -> None:
    async with asking() as (context, service):
        port = service.url.rpartition(":")[2]
        for url in (
            "",
            "json",
            "/any/json",
            "//127.0.0.1/any/json",
            "ftp://127.0.0.1/x",
            "file:///etc/passwd",
            "data:text/plain,x",
            "javascript:alert(1)",
            "https://",
            "http://",
            "https://example.com/",
            f"https://127.0.0.1:{port}/any/json",
            "http://127.0.0.1/any/json",
            f"http://localhost:{port}/any/json",
            f"http://127.1:{port}/any/json",
            f"http://2130706433:{port}/any/json",
            f"http://0x7f000001:{port}/any/json",
            f"http://0177.0.0.1:{port}/any/json",
            f"http://127.0.0.1.:{port}/any/json",
            f"http://[::1]:{port}/any/json",
            f"http://[::ffff:127.0.0.1]:{port}/any/json",
            f"http://user@127.0.0.1:{port}/any/json",
            f"http://user:word@127.0.0.1:{port}/any/json",
            f"http://127.0.0.1:{port}@example.com/any/json",
            f"http://example.com#@127.0.0.1:{port}/any/json",
            f"http://example.com\\@127.0.0.1:{port}/any/json",
            f"http://127.0.0.1:{port}\\@example.com/",
            f"http://127.0.0.1:{port} .example.com/",
            f"http://127.0.0.1:{port}\t/any/json",
            f"http://127.0.0.1:{port}/any/json\r\nX: y",
            f"http://127.0.0.1.example.com:{port}/any/json",
            f"http://127.0.0.1:{int(port) + 1}/any/json",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:port/",
            "http://[::1/",
            f"{service.url}/any/json?{'x' * 2_000}",
            "http://\udcff/",
        ):
            with pytest.raises(ToolError) as caught:
                await web.request(url, context)
            assert caught.value.code in (ToolCode.NOT_ALLOWED, ToolCode.INVALID_ARGUMENTS), url
        assert service.asked == []


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("api.example.com", "https://api.example.com/x", True),
        ("api.example.com", "https://API.EXAMPLE.COM:443/x", True),
        ("api.example.com", "http://api.example.com/x", False),
        ("api.example.com", "https://api.example.com:8443/x", False),
        ("api.example.com", "https://example.com/x", False),
        ("api.example.com", "https://evil-api.example.com/x", False),
        ("api.example.com", "https://api.example.com.evil.com/x", False),
        ("*.example.com", "https://a.example.com/x", True),
        ("*.example.com", "https://a.b.example.com/x", True),
        ("*.example.com", "https://example.com/x", False),
        ("*.example.com", "https://notexample.com/x", False),
        ("http://example.com", "http://example.com/x", True),
        ("http://example.com", "https://example.com/x", False),
        ("example.com:8443", "https://example.com:8443/x", True),
        ("EXAMPLE.com", "https://example.com/x", True),
    ],
)
def test_a_listed_host_stands_for_its_scheme_and_port_too(entry: str, url: str, allowed: bool) -> None:
    assert is_listed(httpx.URL(url), [HostRule.parse(entry)]) is allowed


@pytest.mark.parametrize(
    "entry", ["*", "https://", "*.*.com", "a b", "example.com/path", "me@example.com", "ftp://x"]
)
def test_an_entry_that_is_no_host_is_refused_at_load(entry: str) -> None:
    with pytest.raises(ValidationError):
        context_for(web.request, allow_hosts=[entry])
