"""Whom HTTP calls of tools reach, and whom they never do: real listeners stand where nobody may come."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import trustme
from endpoints import Canary, Elsewhere, names, serving
from tornado.web import RequestHandler

from tornado_live.tools import http, http_guard
from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_addresses import HostRule, is_allowed
from tornado_live.tools.http_redirect import redirected
from tornado_live.tools.http_template import Endpoint
from tornado_live.tools.result import Json, ToolCode, ToolError

PUBLIC = "93.184.216.34"
LOOPBACK = r"""
127.0.0.1 127.1 127.0.1 127.0.0.1. 127.8.9.1 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 017700000001
0177.0.0.1 0177.1 0 0.0.0.0 00000000000000000000000000127.0.0.1 127.000.000.001 localhost LOCALHOST
localhost. localhost.localdomain ip6-localhost [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1]
[::ffff:7f00:1] [::127.0.0.1] [::1%25lo] 127.0.0.1.nip.io localtest.me rebind.example １２７.0.0.1 127。0。0。1
①②⑦.0.0.1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
"""
FORMS = r"""
http://{h}:{p}/ https://{h}:{p}/ HTTP://{h}:{p}/ http:{h}:{p} //{h}:{p}/ {h}:{p} http:///{h}:{p}/
http:\\{h}:{p}\ http://api.example.com@{h}:{p}/ http://api.example.com:{p}@{h}:{p}/
http://{h}:{p}#@api.example.com/ http://{h}:{p}?@api.example.com/ http://{h}:{p}/api.example.com
ftp://{h}:{p}/ ws://{h}:{p}/ gopher://{h}:{p}/_x
"""
OTHERS = r"""
file:///etc/passwd file://localhost/etc/passwd data:text/html,x javascript:alert(1)
jar:http://127.0.0.1:{p}!/ dict://127.0.0.1:{p}/ ldap://127.0.0.1:{p}/
http+unix://%2Fvar%2Frun%2Fdocker.sock/ unix:/var/run/docker.sock
http://169.254.169.254/latest/meta-data/ http://[fd00:ec2::254]/ http://metadata.google.internal:{p}/
http://api.example.com:{p}/ http://api.example.com.:{p}/ https://api.example.com:{p}/
https://api.example.com/ http://api.example.com%00.127.0.0.1:{p}/
http://api.example.com%2f@127.0.0.1:{p}/ http://127.0.0.1:{p}%23.example.com/
http://127.0.0.1:{p}%2f.example.com/ http://127.0.0.1\@api.example.com:{p}/
http://evil-api.example.com:{p}/ http://api.example.com.evil.example:{p}/ http://api-example.com:{p}/
http://api.example.com @127.0.0.1:{p}/ http://[::1]:{p}:80/ http://127.0.0.1:{p}:80/
http://127.0.0.1:0{p}/ http://127.0.0.1:{p}%0d%0aHost:x/
"""


def corpus(port: int) -> list[str]:
    forms = [form.format(h=host, p=port) for form in FORMS.split() for host in LOOPBACK.split()]
    return forms + [other.replace("{p}", str(port)) for other in OTHERS.split()] + [""]


async def as_the_system_reads_numbers(host: str, port: int) -> Sequence[str]:
    """Every name is an attacker's, who says loopback."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return ["127.0.0.1"]
    return [str(row[4][0]) for row in rows]


def endpoint(port: int, path: str = "/", **more: Any) -> Endpoint:
    return Endpoint("GET", f"http://127.0.0.1:{port}", path, **{"allow_private": True, **more})


async def refusal(where: Endpoint, arguments: dict[str, Json] | None = None, **client: Any) -> ToolError:
    async with guarded_client(**client) as http:
        with pytest.raises(ToolError) as caught:
            await call_endpoint(http, where, arguments or {})
    return caught.value


def json_answer(handler: RequestHandler) -> None:
    handler.write({"path": handler.request.path, "query": handler.request.query})


# Addresses as arguments


@pytest.mark.proves("T51")
@pytest.mark.parametrize("base", ["{u}", "http://{u}", "https://{u}"])
async def test_no_address_from_an_argument_reaches_this_machine(base: str) -> None:
    """The list of hosts is asked first; behind it the guard refuses a listed name that stands for loopback."""
    async with Canary() as canary, guarded_client(resolve=as_the_system_reads_numbers) as client:
        hosts = tuple(
            HostRule.parse(f"{scheme}://api.example.com:{port}")
            for scheme in ("http", "https")
            for port in (canary.port, 443)
        )
        urls = corpus(canary.port)
        assert len(urls) >= 300
        for url in urls:
            with pytest.raises(ToolError) as caught:
                await call_endpoint(client, Endpoint("GET", base, hosts=hosts), {"u": url})
            assert caught.value.code in (ToolCode.INVALID_ARGUMENTS, ToolCode.NOT_ALLOWED), url
        assert await canary.visits() == 0


@pytest.mark.proves("T51", "T52")
async def test_the_guard_alone_lets_no_spelling_of_this_machine_through() -> None:
    """As a handler's own request is sent, which no list of hosts has seen."""
    async with Canary() as canary, guarded_client(resolve=as_the_system_reads_numbers) as client:
        for url in corpus(canary.port):
            with pytest.raises((ToolError, httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError)):
                await client.get(url)
        assert await canary.visits() == 0


@pytest.mark.proves("T51", "T52")
async def test_with_the_guard_switched_off_the_corpus_reaches_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "is_allowed", lambda address, allow_private: True)
    async with Canary() as canary, guarded_client(resolve=as_the_system_reads_numbers) as client:
        for host in LOOPBACK.split():
            with pytest.raises((ToolError, httpx.InvalidURL, ValueError)):
                await client.get(f"http://{host}:{canary.port}/")
        assert await canary.visits() > len(LOOPBACK.split()) / 2


@pytest.mark.proves("T51")
async def test_in_any_other_slot_an_address_is_nothing_but_text() -> None:
    async with Canary() as canary, serving(json_answer) as (port, seen), guarded_client() as client:
        where = endpoint(port, "/{u}", query={"u": "{u}"}, headers={"X-U": "{u}"})
        sent = [url for url in corpus(canary.port) if url]
        for url in sent:
            await call_endpoint(client, where, {"u": url})
        assert await canary.visits() == 0
    assert [request.arguments["u"][0].decode() for request in seen] == sent
    assert {request.host for request in seen} == {f"127.0.0.1:{port}"}


# Addresses that names stand for


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

    async with serving(json_answer) as (port, seen), guarded_client(resolve=resolve) as client:
        where = Endpoint("GET", f"http://rebind.example:{port}", "/", allow_private=True)
        await call_endpoint(client, where, {})
    assert asked == ["rebind.example"]
    assert seen[0].headers["Host"] == f"rebind.example:{port}"


async def test_a_connection_to_a_private_service_is_not_lent_to_a_call_without_leave() -> None:
    async with serving(json_answer) as (port, seen), guarded_client() as client:
        await call_endpoint(client, endpoint(port), {})
        with pytest.raises(ToolError) as caught:
            await call_endpoint(client, endpoint(port, allow_private=False), {})
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
        async with guarded_client(tls=trusting, resolve=resolve) as client:
            assert await call_endpoint(client, where, {}) == {"path": "/x", "query": ""}
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
        async with guarded_client() as client:
            await call_endpoint(client, endpoint(port), {})
        assert (len(through), len(seen)) == (0, 1)
        async with httpx.AsyncClient() as careless:
            await careless.get(f"http://127.0.0.1:{port}/")
    assert (len(through), len(seen)) == (1, 1)


@pytest.mark.proves("T52")
@pytest.mark.parametrize("private", [False, True])
async def test_no_connection_is_opened_to_a_special_address(private: bool) -> None:
    special = [
        "169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::ffff:127.0.0.1",
        "fe80::1",
        "0.0.0.0",
        "224.0.0.1",
    ]
    special += [] if private else ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "100.64.0.1"]
    network = Elsewhere(1)
    for address in special:
        for answer in ([address], [PUBLIC, address], [address, PUBLIC]):
            where = Endpoint("GET", "http://a.example", allow_private=private)
            error = await refusal(where, resolve=names(a=answer), network=network)
            assert error.code is ToolCode.NOT_ALLOWED
            assert address not in error.message + error.hint
    assert network.opened == []


@pytest.mark.proves("T53")
async def test_a_name_that_changes_its_address_is_checked_for_each_connection() -> None:
    """Every second answer is loopback; what is connected to is always what was checked."""
    asked: list[str] = []

    async def alternating(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) % 2 == 0 else [PUBLIC]

    def answer(handler: RequestHandler) -> None:
        handler.set_header("Connection", "close")
        handler.write({})

    async with serving(answer) as (port, seen):
        network = Elsewhere(port)
        async with guarded_client(resolve=alternating, network=network) as client:
            for attempt in range(20):
                called = call_endpoint(client, Endpoint("GET", "http://rebind.example"), {})
                if attempt % 2 == 0:
                    assert await called == {}
                else:
                    with pytest.raises(ToolError) as caught:
                        await called
                    assert caught.value.code is ToolCode.NOT_ALLOWED
    assert network.opened == [(PUBLIC, 80)] * 10
    assert len(asked) == 20
    assert {request.headers["Host"] for request in seen} == {"rebind.example"}


async def test_a_name_that_hangs_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, **more: Any) -> Any:
        looked_up.append(host)
        if host == "hangs.example":
            release.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(http_guard.socket, "getaddrinfo", getaddrinfo)
    lookups = http_guard.Lookups()
    async with asyncio.TaskGroup() as calls:
        waiting = [calls.create_task(lookups("hangs.example", 80)) for _ in range(40)]
        given_up = calls.create_task(lookups("hangs.example", 80))
        assert await lookups("quick.example", 80) == ["127.0.0.1"]
        given_up.cancel()
        release.set()
    assert [task.result() for task in waiting] == [["127.0.0.1"]] * 40
    assert sorted(looked_up) == ["hangs.example", "quick.example"]


# Redirects


REDIRECTS = [301, 302, 303, 307, 308]


@pytest.mark.proves("T53")
@pytest.mark.parametrize("status", REDIRECTS)
async def test_no_redirect_leads_to_this_machine(status: int) -> None:
    """From a service of the operator's own, which may be private: the leave is for that one server."""
    steps: list[str] = []

    def redirect(handler: RequestHandler) -> None:
        handler.set_status(status)
        hop = int(handler.request.path.rpartition("/")[2])
        handler.set_header("Location", steps[-1] if hop == 0 else f"/{hop - 1}")

    async with Canary() as canary, serving(redirect) as (port, seen):
        targets = [url for url in corpus(canary.port) if str(canary.port) in url and url.isascii()][::16]
        targets += [f"http://127.0.0.1:{canary.port}/", f"//127.0.0.1:{canary.port}", "https://127.0.0.1/"]
        async with guarded_client(resolve=as_the_system_reads_numbers) as client:
            for target in targets:
                steps.append(target)
                for far in (0, 2):
                    listed = HostRule.parse(f"http://127.0.0.1:{canary.port}")
                    for hosts in ((), (listed,)):
                        where = endpoint(port, f"/{far}", follow_redirects=far + 1, hosts=hosts)
                        with pytest.raises(ToolError):
                            await call_endpoint(client, where, {})
        assert len(seen) >= 4 * len(targets)
        assert await canary.visits() == 0


@pytest.mark.proves("T53")
async def test_with_leave_carried_along_a_redirect_would_reach_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(request: httpx.Request, status: int, location: str, **more: Any) -> httpx.Request:
        following = redirected(request, status, location, **more)
        following.extensions["allow_private"] = request.extensions["allow_private"]
        return following

    monkeypatch.setattr(http, "redirected", careless)
    async with Canary() as canary:

        def redirect(handler: RequestHandler) -> None:
            handler.redirect(f"http://127.0.0.1:{canary.port}/")

        async with serving(redirect) as (port, _):
            hosts = (HostRule.parse(f"http://127.0.0.1:{canary.port}"),)
            await refusal(endpoint(port, follow_redirects=1, hosts=hosts))
        assert await canary.visits() > 0
