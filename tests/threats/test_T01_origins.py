"""T1 to T5: what a page in somebody's browser can ask of a server of theirs, and what not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from accessing import ASKING, api_key, signed
from doorways import DROP_IN, NO_MODEL, PATHS, asked, routes, upgrade, without
from faults.model import ModelSide
from faults.stage import environment
from serving import Server
from websockets.asyncio.client import connect

from tornado_live.errors import ConfigError
from tornado_live.settings import load_settings

LISTED = "https://app.example.com"
SOCKETS = ("/ws", DROP_IN)


def foreign(port: int) -> Sequence[tuple[str, ...]]:
    """What a browser, or whoever says to be one, may send as Origin; none of them is ours."""
    ours = f"http://127.0.0.1:{port}"
    return (
        ("https://evil.example",),
        ("null",),
        ("https://app.example.com.evil.example",),
        ("https://evilapp.example.com",),
        ("https://sub.app.example.com",),
        (f"http://127.0.0.1:{port + 1 if port < 65535 else 1024}",),
        ("https://app.example.com:8443",),
        (f"https://127.0.0.1:{port}",),
        ("http://app.example.com",),
        ("HTTPS://APP.EXAMPLE.COM",),
        ("https://user@app.example.com",),
        (f"http://127.0.0.1:{port}@evil.example",),
        ("https://app.example.com.",),
        (f"{ours}/",),
        (ours, "https://evil.example"),
        ("https://evil.example", ours),
        (LISTED, LISTED),
        (f"{ours}, https://evil.example",),
        ("",),
        ("file://",),
        ("chrome-extension://abcdefghijklmnop",),
        ("https://xn--app-example-com.evil.example",),
        ("https://app。example。com",),
    )


def given(origins: Sequence[str]) -> Sequence[tuple[str, str]]:
    return tuple(("Origin", one) for one in origins)


ANY_ORIGIN = """
from tornado_live.access.origins import Doors
Doors.origin_allowed = lambda self, *_: True
"""
ORIGIN_OF_THE_HOST = """
from urllib.parse import urlsplit
from tornado_live.access.origins import Doors
# As Tornado's own check: the host alone.
Doors.origin_allowed = lambda self, origin, host, *_: origin is None or urlsplit(origin).netloc.lower() == host
"""
ANY_HOST = """
from tornado_live.access.origins import Doors
Doors.host_allowed = lambda self, host: True
before = Doors._serves
Doors._serves = lambda self, name, port: True
"""


async def no_page_of_others_opens_a_socket(server: Server, model: ModelSide) -> None:
    for path in SOCKETS:
        for origins in foreign(server.port):
            answer = await asked(server.port, "GET", path, upgrade(*given(origins)))
            # Two headers of a kind that may be there once are no HTTP, or no origin.
            assert answer.status == 403 or (len(origins) > 1 and answer.status == 400), (origins, answer.text)
            assert b"Access-Control" not in answer.head
    # Whoever is let in is the first whom the model hears of.
    async with connect(
        f"ws://127.0.0.1:{server.port}/ws",
        origin=LISTED,  # type: ignore[arg-type]
        proxy=None,
    ) as socket:
        await socket.send(json.dumps({"type": "connect"}))
        await model.dialled()
        assert model.handshakes == 1


@pytest.mark.proves("T1")
async def test_no_page_of_others_opens_a_socket_and_the_model_hears_nothing_of_it() -> None:
    async with (
        ModelSide() as model,
        Server(environ=environment(model.port) | {"ALLOWED_ORIGINS": LISTED}) as server,
    ):
        await no_page_of_others_opens_a_socket(server, model)


@pytest.mark.proves("T1")
@pytest.mark.parametrize("defence", [ANY_ORIGIN, ORIGIN_OF_THE_HOST], ids=["none", "as Tornado's"])
async def test_the_proof_fails_where_origins_are_not_compared(defence: str) -> None:
    async with (
        ModelSide() as model,
        without(defence, environ=environment(model.port) | {"ALLOWED_ORIGINS": LISTED}) as server,
    ):
        with pytest.raises(AssertionError):
            await no_page_of_others_opens_a_socket(server, model)


@pytest.mark.proves("T1")
@pytest.mark.proves("T2")
async def test_with_a_credential_a_page_of_others_gets_no_socket_either_and_a_program_does(
    tmp_path: Path,
) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "web")
    async with Server(environ=NO_MODEL | ASKING | shared | {"ALLOWED_ORIGINS": LISTED}) as server:
        shown = ("Authorization", f"Bearer {key}")
        pair = ("Sec-WebSocket-Protocol", f"tornado-live, bearer.{signed('alice')}")
        for origins in foreign(server.port):
            for credential in (shown, pair):
                answer = await asked(server.port, "GET", "/ws", upgrade(credential, *given(origins)))
                assert answer.status in (400, 403), (origins, answer.text)
        for credential in (shown, pair):
            for origin in ((), (("Origin", LISTED),)):
                assert (await asked(server.port, "GET", "/ws", upgrade(credential, *origin))).status == 101
        cookie = ("Cookie", f"token={key}; Authorization=Bearer {key}")
        assert (await asked(server.port, "GET", "/ws", upgrade(cookie))).status == 401


async def a_rebound_name_gets_nothing(server: Server, paths: Sequence[str]) -> None:
    for name in ("rebind.test", "127.0.0.1.rebind.test", "localhost.rebind.test"):
        host = f"{name}:{server.port}"
        both = (("Host", host), ("Origin", f"http://{host}"))
        for path in paths:
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                answer = await asked(server.port, method, path, both)
                assert answer.status == 403, (path, answer.text)
                alone = await asked(server.port, method, path, both[:1])
                assert alone.status == 403, (path, alone.text)
                assert name.encode() not in answer.head + alone.head + answer.body + alone.body
        for path in SOCKETS:
            for headers in (both, both[:1]):
                assert (await asked(server.port, "GET", path, upgrade(*headers))).status == 403, path


@pytest.mark.proves("T3")
async def test_a_name_that_was_rebound_to_this_machine_gets_neither_pages_nor_rest_nor_sockets(
    tmp_path: Path,
) -> None:
    paths = [route.path for route in await routes(tmp_path) if not route.spec.handler_class.open_to_any_host]
    paths += ["/", "/tornado-live.js", "/page/main.js"]
    async with Server(environ=NO_MODEL) as server:
        assert {PATHS["sessions"], PATHS["page"], PATHS["metrics"], PATHS["openapi"]} <= set(paths)
        await a_rebound_name_gets_nothing(server, paths)
        # Health may be asked by any name, and still tells a page of that name nothing.
        rebound = (("Host", "rebind.test"), ("Origin", "http://rebind.test"))
        for path in ("/health", "/health/ready"):
            assert (await asked(server.port, "GET", path, rebound[:1])).status == 200
            assert (await asked(server.port, "GET", path, rebound)).status == 403


@pytest.mark.proves("T3")
async def test_the_proof_fails_where_hosts_are_not_on_a_list() -> None:
    async with without(ANY_HOST, environ=NO_MODEL) as server:
        with pytest.raises(AssertionError):
            await a_rebound_name_gets_nothing(server, ["/api/sessions", "/"])


@pytest.mark.proves("T4")
@pytest.mark.parametrize("asks", [False, True])
async def test_a_form_of_another_page_changes_nothing(tmp_path: Path, asks: bool) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "web", user="alice", roles=frozenset({"operator"}))
    shown = (("Authorization", f"Bearer {key}"),)
    form = b"------x\r\nContent-Disposition: form-data; name=userId\r\n\r\nx\r\n------x--\r\n"
    bodies = (
        ("application/x-www-form-urlencoded", b"userId=mallory"),
        ("text/plain", b'{"userId": "mallory"}'),
        ("multipart/form-data; boundary=----x", form),
        ("text/plain; application/json", b"{}"),
        ("application/json", b"{}"),
        ("", b"{}"),
    )
    paths = (PATHS["sessions"], PATHS["invoke"], PATHS["auth_tokens"], PATHS["ticket"])
    async with Server(environ=NO_MODEL | shared | (ASKING if asks else {})) as server:
        for path in paths:
            for kind, body in bodies:
                headers = (("Content-Type", kind),) if kind else ()
                foreign_page = (*headers, ("Origin", "https://evil.example"), ("Cookie", f"token={key}"))
                for more in ((), shown):
                    answer = await asked(server.port, "POST", path, (*foreign_page, *more), body)
                    assert answer.status == 403, (path, kind, answer.text)
                if kind != "application/json":
                    # Nor where the browser leaves Origin out, as some once did for forms.
                    answer = await asked(server.port, "POST", path, (*headers, *shown), body)
                    assert answer.status in (400, 404), (path, kind, answer.text)
        listed = await asked(server.port, "GET", "/api/sessions", shown)
        assert json.loads(listed.body) == {"sessions": []}
        assert (await asked(server.port, "POST", "/api/sessions", shown)).status == 201


@pytest.mark.proves("T5")
async def test_only_listed_origins_are_told_to_browsers_and_never_with_cookies(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "web", roles=frozenset({"operator"}))
    shown = ("Authorization", f"Bearer {key}")
    environ = NO_MODEL | ASKING | shared | {"ALLOWED_ORIGINS": f"{LISTED},http://localhost:5173"}
    found = await routes(tmp_path)
    async with Server(environ=environ) as server:
        ours = f"http://127.0.0.1:{server.port}"
        matrix = [((LISTED,), True), (("http://localhost:5173",), True), ((ours,), True)]
        matrix += [(origins, False) for origins in foreign(server.port)]
        for route in found:
            if route.rule.access == "own":
                continue
            for origins, allowed in matrix if route.name in ("sessions", "page") else matrix[:5]:
                for method, wanted in (("OPTIONS", "GET"), ("OPTIONS", "DELETE"), ("GET", ""), ("POST", "")):
                    asks = (("Access-Control-Request-Method", wanted),) if wanted else (shown,)
                    answer = await asked(server.port, method, route.path, (*given(origins), *asks))
                    where = f"{method} {route.path} from {origins}: {answer.text}"
                    told = answer.header("Access-Control-Allow-Origin")
                    assert told == (origins[0] if allowed else None), where
                    if answer.status != 400 or len(origins) == 1:
                        assert answer.header("Vary") == "Origin", where
                    assert answer.header("Access-Control-Allow-Credentials") is None, where
                    assert answer.header("Set-Cookie") is None, where
                    assert allowed or answer.status in (400, 403), where
                    if allowed and wanted:
                        assert answer.status == 204, where
                        sent = answer.header("Access-Control-Allow-Headers")
                        assert sent is not None
                        assert "Authorization" in sent
                        assert "*" not in sent


@pytest.mark.proves("T5")
@pytest.mark.parametrize(
    "origin", ["*", "https://*", "http://*.example.com", "null", "https://a.example/x", "."]
)
def test_a_wildcard_for_origins_stops_the_start(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError, match="origin"):
        load_settings(
            home=tmp_path,
            config=None,
            environ=NO_MODEL | {"ALLOWED_ORIGINS": f"{LISTED},{origin}"},
            overrides={},
        )
