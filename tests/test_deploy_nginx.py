"""config/nginx.conf in the real nginx, in front of the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults.model import ModelSide
from faults.stage import environment, get
from lasting import lasting
from nginx import Nginx
from serving import ROOT, Server, nobody_listens
from simulating import LIVE_PATH
from talking import Talker
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

SECRET = "a-credential-in-the-query"
NODE = ("--port", "0", "--ws-port", "off")


class Node:
    """A node of the test's own: it keeps the head of each request, and answers all of them the same."""

    def __init__(self, status: str = "200 OK") -> None:
        self._status = status
        self.heads: list[str] = []

    async def __aenter__(self) -> Node:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def headers(self, name: str) -> list[str]:
        """The values of a header of the newest request."""
        return re.findall(rf"^{name}: *(.*)\r$", self.heads[-1], re.I | re.M)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(
                f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
        writer.close()


class Behind:
    """A server and an nginx that the tests of this file share; the model side is looked for at `model_port`."""

    def __init__(self) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            self.model_port: int = reserved.getsockname()[1]
        self.proxy = Nginx()

    async def __aenter__(self) -> Behind:
        environ = environment(self.model_port) | {
            "PUBLIC_URL": self.proxy.url,
            "TRUSTED_PROXIES": "127.0.0.1",
        }
        self.server = Server(environ=environ, ports=NODE)
        await self.server.__aenter__()
        self.proxy.nodes = (self.server.port,)
        await self.proxy.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.proxy.__aexit__(None, None, None)
        await self.server.__aexit__(None, None, None)

    def client(self, path: str = "/ws", **headers: str) -> Talker:
        return Talker(f"{self.proxy.ws_url}{path}", tls=self.proxy.tls, headers=headers)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with lasting(Behind()) as behind:
        yield behind


def asking(proxy: Nginx, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, verify=proxy.tls, trust_env=False, **options)


async def status_of_upgrade(proxy: Nginx, path: str = "/ws", **headers: str) -> int:
    """What an upgrade is answered with, 101 for one that is taken."""
    try:
        async with connect(
            f"{proxy.ws_url}{path}", ssl=proxy.tls, proxy=None, additional_headers=headers
        ) as line:
            assert line.response is not None
            return line.response.status_code
    except InvalidStatus as refused:
        return refused.response.status_code


@contextlib.asynccontextmanager
async def in_front_of(*nodes: int, **changes: str) -> AsyncIterator[tuple[Nginx, httpx.AsyncClient]]:
    async with Nginx(*nodes, changes=changes) as proxy, asking(proxy) as http:
        yield proxy, http


@pytest.mark.parametrize("prefix", ["", "/voice"])
@pytest.mark.parametrize("nodes", [(3001,), (3001, 3011)])
async def test_nginx_takes_the_file(prefix: str, nodes: tuple[int, ...]) -> None:
    async with Nginx(*nodes, prefix=prefix) as proxy:
        assert await proxy.check() == ""
        assert "voice.example.com" not in proxy.file


async def test_people_talk_through_it(behind: Behind) -> None:
    async with ModelSide(behind.model_port) as model, behind.client(Origin=behind.proxy.url) as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready()
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        await client.send("text", {"text": "What is nine?"})
        assert await line.typed() == "What is nine?"
        await client.speak(b"\x01\x02" * 320)
        await line.receive("realtimeInput")
        assert line.audio == b"\x01\x02" * 320
        await line.say("A number.", b"\x03\x04" * 960)
        await client.until("turn_complete")
        assert b"".join(client.audio) == b"\x03\x04" * 960


async def test_sound_does_not_wait_for_more_sound(behind: Behind) -> None:
    """Each piece is sent only when the one before it has arrived: a buffer on the way would end this."""
    async with ModelSide(behind.model_port) as model, behind.client() as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready()
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        await client.send("text", {"text": "Count."})
        await line.typed()
        for place in range(100):
            await line.say(f" {place}", bytes([place, 1]) * 960, complete=False)
            while not client.seen or f" {place}" != (client.seen[-1].get("data") or {}).get("text"):
                await client.next()
        await line.complete()
        await client.until("turn_complete")
        assert b"".join(client.audio) == b"".join(bytes([place, 1]) * 960 for place in range(100))


async def test_a_message_of_a_guest_may_have_four_megabytes(behind: Behind) -> None:
    picture = "A" * (4 * 1024 * 1024 - 4096)
    async with ModelSide(behind.model_port) as model, behind.client(f"//ws{LIVE_PATH[3:]}") as guest:
        await guest.raw(json.dumps({"setup": {"model": "models/gemini-3.8-live"}}))
        line = await model.dialled()
        await line.ready()
        assert "setupComplete" in json.loads(await guest.connection.recv())
        video = {"realtimeInput": {"video": {"mimeType": "image/jpeg", "data": picture}}}
        await guest.raw(json.dumps(video))
        assert (await line.receive("realtimeInput"))["realtimeInput"] == video["realtimeInput"]
        await guest.raw(json.dumps({"realtimeInput": {"text": "x" * 4 * 1024 * 1024}}))
        with pytest.raises(ConnectionClosed) as over:
            await guest.connection.recv()
        assert over.value.rcvd is not None
        assert over.value.rcvd.code in (1007, 1009)


async def test_a_body_may_have_64_kib_and_not_a_byte_more(behind: Behind) -> None:
    body = b'{"userId": "anna"}'.ljust(64 * 1024)
    async with asking(behind.proxy, headers={"Content-Type": "application/json"}) as http:
        assert (await http.post("/api/sessions", content=body)).status_code == 201
        refused = await http.post("/api/sessions", content=body + b" ")
    assert refused.status_code == 413
    assert refused.json()["error"] | {"requestId": ""} == {
        "code": "too_large",
        "message": "The body is over 64 KiB.",
        "retryable": False,
        "requestId": "",
    }


async def test_what_a_client_says_of_its_own_address_is_not_passed_on() -> None:
    said = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "203.0.113.7",
        "Forwarded": "for=203.0.113.7",
    }
    async with Node() as node, in_front_of(node.port) as (_, http):
        await http.get("/", headers=said)
        assert node.headers("X-Forwarded-For") == ["127.0.0.1"]
        assert node.headers("X-Forwarded-Proto") == ["https"]
        for name in ("X-Forwarded-Host", "X-Real-IP", "Forwarded"):
            assert node.headers(name) == []


async def test_the_server_sees_the_client_whatever_it_says_of_itself(behind: Behind) -> None:
    """From another address of this machine than nginx's own."""
    elsewhere = httpx.AsyncHTTPTransport(verify=behind.proxy.tls, local_address="127.0.0.2")
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    async with httpx.AsyncClient(transport=elsewhere, base_url=behind.proxy.url) as http:
        seen = (await http.get("/health?client", headers=forged)).json()["client"]
    assert (seen["via"], seen["address"], seen["scheme"]) == ("proxy", "127.0.0.2", "https")
    assert f"https://{seen['host']}" == behind.proxy.url


async def test_what_the_server_checks_arrives_as_it_was_sent() -> None:
    async with Node() as node, in_front_of(node.port) as (proxy, http):
        said = {"Origin": "https://evil.example", "Authorization": "Bearer one", "Accept-Language": "de"}
        await http.get("/a%2Fb//c?x=%20", headers=said)
        assert node.heads[-1].startswith("GET /a%2Fb//c?x=%20 HTTP/1.1\r\n")
        assert node.headers("Host") == [f"localhost:{proxy.port}"]
        for name, value in said.items():
            assert node.headers(name) == [value]
        assert node.headers("Connection") == node.headers("Upgrade") == []


async def test_only_an_upgrade_to_a_websocket_is_passed_on() -> None:
    async with Node() as node, in_front_of(node.port) as (_, http):
        await http.get("/", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"})
        assert node.headers("Upgrade") == node.headers("Connection") == []
        await http.get("/", headers={"Upgrade": "WebSocket", "Connection": "keep-alive, Upgrade"})
        assert node.headers("Upgrade") == ["websocket"]
        assert node.headers("Connection") == ["upgrade"]


async def test_the_servers_doors_hold_behind_it(behind: Behind) -> None:
    proxy = behind.proxy
    assert await status_of_upgrade(proxy, Origin=proxy.url) == 101
    assert await status_of_upgrade(proxy, Origin="https://evil.example") == 403
    assert await status_of_upgrade(proxy, Origin="https://localhost:1") == 403
    async with asking(proxy) as http:
        assert (await http.get("/api/tools", headers={"Host": "evil.example"})).status_code == 403
        hidden = await http.get("/metrics")
        assert (hidden.status_code, hidden.headers["Content-Type"]) == (404, "application/json")
        asked = hidden.json()["error"]["requestId"]
        own = (await http.get("/api/no-such-path")).json()["error"]
        assert hidden.json()["error"] == own | {"requestId": asked}
        assert (await http.get(f"{proxy.url}//metrics")).status_code == 404


async def test_a_credential_in_the_query_is_in_no_log(behind: Behind) -> None:
    query = f"?key={SECRET}&access_token={SECRET}"
    async with asking(behind.proxy) as http:
        await http.get(f"/api/sessions{query}", headers={"Referer": f"{behind.proxy.url}/{query}"})
    assert await status_of_upgrade(behind.proxy, f"{LIVE_PATH}{query}") == 101
    for path in ("/api/sessions", LIVE_PATH):
        await behind.proxy.logs(lambda request, path=path: request["path"] == path)
    assert SECRET not in behind.proxy.logged


async def test_nor_is_one_that_somebody_writes_into_the_path(behind: Behind) -> None:
    shown = [
        f"tl_{'a' * 12}_{'B' * 43}",
        f"tlt_{'c' * 43}",
        f"auth_tokens/{'d' * 43}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmVk",
        "AIzaNotARealKey",
    ]
    async with asking(behind.proxy) as http:
        for credential in shown:
            answered = (await http.get(f"/ws/{credential}")).headers["X-Request-Id"]
            wanted = {"requestId": answered, "path": "(it holds a credential)"}
            await behind.proxy.logs(lambda line, wanted=wanted: line | wanted == line)  # type: ignore[misc]
    assert not [one for one in shown if one in behind.proxy.logged]


async def test_nor_is_it_where_something_goes_wrong() -> None:
    changes = {"burst=200": "burst=2", "rate=20r/s": "rate=1r/m"}
    with nobody_listens() as port:
        async with in_front_of(port, **changes) as (proxy, http):
            found = [(await http.get(f"/?key={SECRET}")).status_code for _ in range(5)]
            assert found == [503, 503, 503, 429, 429]
            answers = [
                await http.get(f"/?key={SECRET}", headers={"Host": ""}),
                await http.get("/" + "x" * 60_000),
            ]
            assert [one.status_code for one in answers] == [400, 414]
            await proxy.logs(lambda request: request["status"] == "414")
            assert [request["status"] for request in proxy.requests][1:6] == ["503"] * 3 + ["429"] * 2
            assert SECRET not in proxy.logged


async def test_a_client_that_asks_too_often_is_told_so_as_the_server_would() -> None:
    changes = {
        "burst=200": "burst=1",
        "rate=20r/s": "rate=1r/m",
        "burst=100": "burst=1",
        "rate=10r/s": "rate=1r/m",
    }
    async with Node() as node, in_front_of(node.port, **changes) as (proxy, http):
        answers = [await http.get("/") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        error = answers[-1].json()["error"]
        assert (error["code"], error["retryable"]) == ("limited", True)
        # Upgrades are counted for themselves. This node answers them with 200.
        upgrades = [await status_of_upgrade(proxy) for _ in range(3)]
        assert upgrades == [200, 200, 429]


async def test_an_address_has_so_many_lines_and_no_more(behind: Behind) -> None:
    changes = {"limit_conn connections 200": "limit_conn connections 2"}
    async with (
        in_front_of(behind.server.port, **changes) as (proxy, _),
        Talker(f"{proxy.ws_url}/ws", tls=proxy.tls),
        Talker(f"{proxy.ws_url}/ws", tls=proxy.tls),
    ):
        assert await status_of_upgrade(proxy) == 429


@pytest.mark.parametrize("gone", ["draining", "dead"])
async def test_a_client_that_comes_back_is_given_the_other_node(behind: Behind, gone: str) -> None:
    """Often enough that least_conn would have chosen the one that is gone; what it refuses goes to the other."""
    async with contextlib.AsyncExitStack() as stack:
        if gone == "draining":
            node = await stack.enter_async_context(Node("503 Service Unavailable"))
            port = node.port
        else:
            port = stack.enter_context(nobody_listens())
        proxy, http = await stack.enter_async_context(in_front_of(port, behind.server.port))
        for _ in range(6):
            assert await status_of_upgrade(proxy) == 101
            assert (await http.post("/api/sessions")).status_code == 201
            assert (await http.get("/health")).status_code == 200
        await proxy.logs(lambda request: ", " in request["nodeStatus"])  # the one that is gone was tried


async def test_while_a_node_ends_in_order_everybody_is_given_the_other(tmp_path: Path) -> None:
    """Nobody meets a closed door, and who talked goes on at the other node when the turn has ended."""
    proxy = Nginx()
    async with ModelSide() as model, contextlib.AsyncExitStack() as stack:
        surroundings = environment(model.port) | {"PUBLIC_URL": proxy.url, "LIMITS__DRAIN_S": "60"}
        nodes: dict[int, Server] = {}
        for _ in range(2):
            node = Server(environ=surroundings, ports=NODE, home=tmp_path)
            await stack.enter_async_context(node)
            nodes[node.port] = node
        proxy.nodes = tuple(nodes)
        await stack.enter_async_context(proxy)
        http = await stack.enter_async_context(asking(proxy))
        async with Talker(f"{proxy.ws_url}/ws", tls=proxy.tls) as client:
            await client.send("connect")
            line = await model.dialled()
            await line.ready("h1")
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            session = client.seen[-1]["sessionId"]
            await client.send("text", {"text": "What is nine?"})
            await line.typed()
            answered = client.connection.response
            assert answered is not None
            health = {node: (await get(node, "/health")).headers["X-Served-By"] for node in nodes.values()}
            (its,) = [node for node, name in health.items() if name == answered.headers["X-Served-By"]]
            os.kill(its.pid, signal.SIGTERM)
            await client.until("status", lambda data: data["status"] == "DRAINING")
            async with contextlib.AsyncExitStack() as others:
                # They stay, so that the one that ends has the fewest, and would be the next to be given.
                for _ in range(4):
                    await others.enter_async_context(Talker(f"{proxy.ws_url}/ws", tls=proxy.tls))
                    assert (await http.post("/api/sessions")).status_code == 201
            await line.say("A number.", bytes(4800))
            await client.until("turn_complete")
            await line.resumable("h2")
            assert (await client.closed())[0] == 1001
        await proxy.logs(lambda request: request["nodeStatus"] in ("503, 101", "503, 201"))
        async with Talker(f"{proxy.ws_url}/ws?sessionId={session}", tls=proxy.tls) as client:
            await client.send("connect")
            line = await model.dialled()
            assert line.handle == "h2"
            await line.ready()
            back = await client.until("status", lambda data: data["status"] == "CONNECTED")
            assert back["memory"] == "restored"


async def test_a_call_that_does_something_is_not_made_twice() -> None:
    draining = "503 Service Unavailable"
    async with Node(draining) as one, Node(draining) as other, in_front_of(one.port, other.port) as (_, http):
        await http.post("/api/tools/send_mail/invoke", content=b"{}")
        assert len(one.heads) + len(other.heads) == 1


class Breaks(Node):
    """Takes a request, and breaks off."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.close()


async def test_what_broke_off_is_asked_again_only_where_that_does_no_harm() -> None:
    async with Breaks() as one, Breaks() as other, in_front_of(one.port, other.port) as (_, http):
        refused = await http.post("/api/tools/send_mail/invoke", content=b"{}")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert len(one.heads) + len(other.heads) == 1
        await http.get("/")
        assert len(one.heads) + len(other.heads) > 1


async def test_nodes_that_say_503_shut_nobody_out() -> None:
    """As both do while their store is away: pages and conversations go on, and the reason is theirs."""

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith("/ws"):
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "The session store is away.")
        return None

    async def wait(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for _ in range(2):
            node = await stack.enter_async_context(serve(wait, "127.0.0.1", 0, process_request=refuse))
            ports.append(next(iter(node.sockets)).getsockname()[1])
        proxy, http = await stack.enter_async_context(in_front_of(*ports))
        for _ in range(4):
            refused = await http.get("/api/sessions")
            assert (refused.status_code, refused.text) == (503, "The session store is away.")
            assert await status_of_upgrade(proxy) == 101


async def test_where_no_node_answers_people_are_told_to_try_again() -> None:
    with nobody_listens() as one, nobody_listens() as other:
        async with in_front_of(one, other) as (proxy, http):
            for _ in range(3):
                refused = await http.get("/api/sessions")
                assert refused.status_code == 503
                error = refused.json()["error"]
                assert (error["code"], error["retryable"]) == ("unavailable", True)
                await proxy.logs(lambda request, error=error: request["requestId"] == error["requestId"])


async def test_each_header_is_there_once(behind: Behind) -> None:
    async with asking(behind.proxy) as http:
        for path in ("/", "/health", "/api/sessions", "/no-such-page"):
            answer = await http.get(path)
            names = [name.lower() for name, _ in answer.headers.raw]
            assert len(names) == len(set(names)), path
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
            assert answer.headers["Server"] == "nginx"


async def test_the_lines_of_the_page_for_a_path_lead_there_and_show_nothing_else(behind: Behind) -> None:
    page = (
        (ROOT / "docs/deployment.md")
        .read_text(encoding="utf-8")
        .split("## Under a path")[1]
        .split("\n## ")[0]
    )
    (lines,) = re.findall(r"```nginx\n(.*?)```", page, re.S)
    lines = lines.replace("$server_name", f"$server_name:{behind.proxy.port}")
    whole = "        location = /metrics {\n"
    proxy = Nginx(behind.server.port, prefix="/voice", changes={whole: f"{lines}{whole}"})
    async with proxy, httpx.AsyncClient(verify=proxy.tls, trust_env=False) as http:
        root = proxy.url.removesuffix("/voice")
        front = await http.get(root)
        assert (front.status_code, front.headers["Location"]) == (
            308,
            f"https://localhost:{behind.proxy.port}/voice/",
        )
        for path in ("/metrics", "/api/sessions", "/voice/metrics"):
            assert (await http.get(f"{root}{path}")).status_code == 404
        shown = (await http.get(f"{root}/voice")).headers["Location"]
        assert shown.endswith("/voice/")


async def test_http_leads_to_https(behind: Behind) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{behind.proxy.http_url}/a//b?c=d", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["Location"]) == (308, f"{behind.proxy.url}/a//b?c=d")
