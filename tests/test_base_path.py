"""A running server below a path of its host, and behind proxies whose word counts."""

from __future__ import annotations

import json
import re
import ssl

import httpx
import pytest
from dialling import SETUP
from serving import Server
from talking import Talker
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

GEMINI = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
PAGES = [
    "/",
    "/index.html",
    "/page/main.js",
    "/page/style.css",
    "/tornado-live.js",
    "/tornado-live/speaker.js",
]
ANSWERS = ["/health", "/health/ready", "/metrics", "/api/tools", "/api/sessions"]


def asking(url: str, tls: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, verify=tls, trust_env=False)


async def opened(url: str) -> str:
    """Connects as a native client does; the session's id."""
    async with Talker(url) as client:
        await client.connected()
        return str(client.seen[-1]["sessionId"])


async def dropped_in(url: str) -> bool:
    """Whether a client of Google's protocol is taken there."""
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"setup": SETUP}))
        return "setupComplete" in json.loads(await socket.recv())


async def test_every_route_is_served_below_the_base_path_and_without_it() -> None:
    async with Server(
        tls=True, environ={"BASE_PATH": "/voice", "GEMINI_API_KEY": "a-key-of-tests"}
    ) as server:
        trusted = ssl.create_default_context(cafile=str(server.ca))
        for url in (server.url, server.https):
            async with asking(url, trusted) as client:
                for path in (*PAGES, *ANSWERS):
                    plain, below = await client.get(path), await client.get(f"/voice{path}")
                    assert (plain.status_code, below.status_code) == (200, 200), path
                    assert plain.headers["Content-Type"] == below.headers["Content-Type"], path
                    if path in PAGES:
                        assert plain.content == below.content
                token = await client.post("/voice/v1alpha/auth_tokens")
                assert token.json()["name"].startswith("auth_tokens/")
                unknown = await client.get("/voice/api/nothing")
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "bad_message")
                for path in ("/voices/health", "/voice/voice/health", "/voic", "/x/voice/health"):
                    assert (await client.get(path)).status_code == 404, path


async def test_clients_are_told_the_base_path() -> None:
    async with Server(environ={"BASE_PATH": "/voice"}) as server, asking(server.url) as client:
        moved = await client.get("/voice?x=//evil.example")
        assert (moved.status_code, moved.headers["Location"]) == (302, "/voice/")
        for prefix in ("", "/voice"):
            made = await client.post(f"{prefix}/api/sessions")
            session = made.json()["sessionId"]
            assert made.headers["Location"] == f"/voice/api/sessions/{session}"
            assert made.json()["wsUrl"] == f"ws://127.0.0.1:{server.port}/voice/ws?sessionId={session}"
            assert (await client.get(made.headers["Location"])).json()["sessionId"] == session
            assert await opened(made.json()["wsUrl"]) == session
        missing = await client.get("/voice/nothing")
        assert missing.status_code == 404
        assert 'href="/voice/"' in missing.text
        for folder in ("/page", "/voice/page"):
            assert (await client.get(folder)).headers["Location"] == "/voice/page/"


async def test_all_web_sockets_are_below_the_base_path_and_the_original_one_stays() -> None:
    async with Server(environ={"BASE_PATH": "/a/voice"}) as server:
        host = f"ws://127.0.0.1:{server.port}"
        assert await opened(f"{host}/a/voice/ws")
        assert await opened(f"{host}/ws")
        assert await opened(f"{server.ws_url}/")
        assert await dropped_in(f"{host}/a/voice{GEMINI}")
        assert await dropped_in(f"{host}/a/voice/{GEMINI}")
        assert await dropped_in(f"{host}{GEMINI}")
        for path in ("/a/voice", "/a/voice/", "/a/ws", "/voice/ws"):
            with pytest.raises(InvalidStatus):
                await opened(f"{host}{path}")


async def test_the_path_of_the_public_url_is_what_clients_are_told() -> None:
    environ = {"BASE_PATH": "/voice", "PUBLIC_URL": "https://live.example.com/talk/"}
    async with Server(environ=environ) as server, asking(server.url) as client:
        made = (await client.post("/voice/api/sessions")).json()
        assert made["wsUrl"] == f"wss://live.example.com/talk/ws?sessionId={made['sessionId']}"
        assert (await client.get("/voice")).headers["Location"] == "/talk/"
        assert (await client.get("/talk/health")).status_code == 404
    environ["PUBLIC_URL"] = "https://live.example.com"
    async with Server(environ=environ) as server, asking(server.url) as client:
        made = (await client.post("/api/sessions")).json()
        assert made["wsUrl"] == f"wss://live.example.com/voice/ws?sessionId={made['sessionId']}"


async def test_a_base_path_with_the_name_of_a_folder_hides_none_of_its_files() -> None:
    async with (
        Server(environ={"BASE_PATH": "/tornado-live"}) as server,
        asking(server.url) as client,
    ):
        assert (await client.get("/tornado-live")).headers["Location"] == "/tornado-live/"
        for path in PAGES:
            plain, below = await client.get(path), await client.get(f"/tornado-live{path}")
            assert plain.status_code == 200, path
            assert plain.content == below.content


async def test_the_word_of_a_listed_proxy_counts() -> None:
    environ = {"TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8", "ALLOWED_HOSTS": "127.0.0.1,voice.example.com"}
    forwarded = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.1.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "voice.example.com",
    }
    async with Server(environ=environ) as server, asking(server.url) as client:
        made = await client.post("/api/sessions", headers=forwarded)
        assert made.json()["wsUrl"].startswith("wss://voice.example.com/ws?")
        await server.printed(r'"event": "request".*"remote": "203\.0\.113\.9"')
        assert "6.6.6.6" not in server.log
        seen = (await client.get("/health?client", headers=forwarded)).json()["client"]
        assert seen == {
            "via": "proxy",
            "address": "203.0.113.9",
            "scheme": "https",
            "host": "voice.example.com",
        }
        page = await client.get("/", headers=forwarded)
        [sockets] = re.findall(r"connect-src ([^;]*)", page.headers["Content-Security-Policy"])
        assert "wss://voice.example.com" in sockets.split()
        own = await client.get("/api/tools", headers={**forwarded, "Origin": "https://voice.example.com"})
        assert own.status_code == 200
        for origin in (
            "http://voice.example.com",
            "https://evil.example",
            f"https://127.0.0.1:{server.port}",
        ):
            refused = await client.get("/api/tools", headers={**forwarded, "Origin": origin})
            assert refused.status_code == 403, origin
        async with Talker(
            f"ws://127.0.0.1:{server.port}/ws", headers={**forwarded, "Origin": "https://voice.example.com"}
        ) as talker:
            await talker.connected()


async def test_a_host_that_a_proxy_passes_on_opens_no_door_by_itself() -> None:
    environ = {"TRUSTED_PROXIES": "127.0.0.1", "ALLOWED_HOSTS": "127.0.0.1"}
    async with Server(environ=environ) as server, asking(server.url) as client:
        for host, passed_on in (("127.0.0.1", "rebind.test"), ("rebind.test", "127.0.0.1")):
            headers = {"Host": host, "X-Forwarded-Host": passed_on}
            assert (await client.get("/api/tools", headers=headers)).status_code == 403
            assert (await client.get("/health", headers=headers)).status_code == 200


async def test_what_came_through_a_proxy_is_never_of_this_machine() -> None:
    async with (
        Server(environ={"TRUSTED_PROXIES": "127.0.0.1"}) as listed,
        Server() as unlisted,
        asking(listed.url) as one,
        asking(unlisted.url) as other,
    ):
        for client in (one, other):
            assert (await client.get("/metrics")).status_code == 200
            for name in ("X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Forwarded-Proto", "Via"):
                value = "for=127.0.0.1" if name == "Forwarded" else "127.0.0.1"
                assert (await client.get("/metrics", headers={name: value})).status_code == 403, name


async def test_a_stranger_is_believed_nothing() -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "localhost"}
    async with Server() as server, asking(server.url) as client:
        made = (await client.post("/api/sessions", headers=forged)).json()
        assert made["wsUrl"].startswith(f"ws://127.0.0.1:{server.port}/ws?")
        await server.printed(r'"event": "request".*"remote": "127\.0\.0\.1"')
        seen = (await client.get("/health?client", headers=forged)).json()["client"]
        assert seen == {"via": "untrusted", "scheme": "http", "host": f"127.0.0.1:{server.port}"}
        seen = (await client.get("/health?client")).json()["client"]
        assert (seen["via"], seen["address"]) == ("direct", "private")
        assert server.log.count('"event": "proxy_not_trusted"') == 1


async def test_every_answer_says_which_process_gave_it() -> None:
    async with Server() as server, asking(server.url) as client:
        nodes = {(await client.get(path)).headers["X-Served-By"] for path in ("/", "/health", "/api/nothing")}
        for url in (f"ws://127.0.0.1:{server.port}/ws", f"ws://127.0.0.1:{server.port}{GEMINI}"):
            async with connect(url, proxy=None) as socket:
                assert socket.response is not None
                nodes.add(socket.response.headers["X-Served-By"])
        [node] = nodes
        assert re.fullmatch("[0-9a-f]{8}", node)
