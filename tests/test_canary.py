"""The search for planted secrets finds what it is for, wherever it is made to look."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import canary
import pytest
from canary import API_KEY, CANARIES, GEMINI_KEY, TICKET, TOOL_SECRET, Searcher, forms
from serving import Server, clean_environment
from talking import Talker

TESTS = Path(__file__).resolve().parent


def found(data: bytes, kind: str = "clients") -> set[tuple[str, str]]:
    searcher = Searcher()
    searcher.feed(kind, data)
    return {(find.what, find.form) for find in searcher.settle()}


@pytest.mark.proves("T47")
@pytest.mark.parametrize("name", CANARIES)
def test_a_leak_is_found_in_every_form(name: str) -> None:
    shown = dict(forms(CANARIES[name]))
    assert len(shown) > 15
    for form, needle in shown.items():
        assert name in {what for what, _ in found(b"before" + needle + b"after")}, form


@pytest.mark.proves("T47")
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", CANARIES.values())
def test_a_leak_in_base64_is_found_whatever_stands_around_it(encode: object, secret: str) -> None:
    assert callable(encode)
    for before in range(7):
        assert found(encode(b"b" * before + secret.encode() + b"after")), before


@pytest.mark.proves("T47")
def test_other_encoders_than_the_searchs_own_are_seen_through() -> None:
    for secret in CANARIES.values():
        assert found(quote(secret).encode())
        assert found(quote_plus(secret).encode())
        assert found("".join(f"%{byte:02x}" for byte in secret.encode()).encode())
        assert found(secret.encode().hex().encode())
        assert found("".join(reversed(secret)).encode())
        assert found(secret[: len(secret) - 10].encode())
        assert found(secret[10:].encode())


@pytest.mark.proves("T47")
def test_a_leak_is_found_where_its_pieces_come_one_by_one() -> None:
    searcher = Searcher()
    data = b"x" * 700_001 + GEMINI_KEY.encode() + b"x" * 500_000
    for at in range(0, len(data), 7):
        searcher.feed("log", data[at : at + 7])
    assert {find.what for find in searcher.settle()} == {"Gemini key"}
    assert searcher.searched["log"] == len(data)
    assert searcher.settle() == []


@pytest.mark.proves("T47")
def test_nothing_else_is_a_leak() -> None:
    assert found(b"no-real-key tl_ tlt_ canary/tool+ auth_tokens/ eyJ." * 1000) == set()
    assert found(f"tlt_{'a' * 43}".encode()) == set(), "who asks for a ticket is told it"


@pytest.mark.proves("T50")
@pytest.mark.parametrize("kind", ["log", "store", "metrics", "command lines"])
@pytest.mark.parametrize(
    ("credential", "what"),
    [
        (f"tlt_{'a-Z9_' * 8}abc", "a ticket"),
        (f"tl_{'a1' * 6}_{'a-Z9_' * 8}abc", "an API key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.qS1pLm3nYw0vJ2bXr8tK4cQe", "a JSON Web Token"),
        ("auth_tokens/0123456789abcdef0123456789abcdef", "an ephemeral token"),
        ("auth_tokens%2F0123456789abcdef0123456789abcdef", "an ephemeral token"),
    ],
)
def test_a_credential_that_was_not_planted_is_found_by_its_looks(
    kind: str, credential: str, what: str
) -> None:
    assert found(f'{{"uri": "/ws?x={credential}"}}'.encode(), kind) == {(what, "by its looks")}


LEAKS = """
import asyncio, subprocess, sys
from pathlib import Path
import canary, httpx
from canary import API_KEY, GEMINI_KEY, JWT_SECRET, TICKET, TOOL_SECRET
from serving import Server
from tornado.httpclient import AsyncHTTPClient
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def answering(said):
    async def answer(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n" + said)
        writer.close()
    return await asyncio.start_server(answer, "127.0.0.1", 0)

def port(server):
    return server.sockets[0].getsockname()[1]

async def test_a_websocket():
    async def leak(socket):
        await socket.send(GEMINI_KEY)
    async with serve(leak, "127.0.0.1", 0) as server, connect(f"ws://127.0.0.1:{port(server)}") as client:
        await client.recv()

async def test_a_close_reason():
    async def leak(socket):
        await socket.close(1011, GEMINI_KEY)
    async with serve(leak, "127.0.0.1", 0) as server, connect(f"ws://127.0.0.1:{port(server)}") as client:
        await client.wait_closed()

async def test_a_header():
    server = await answering(b"X-Debug: " + GEMINI_KEY.encode() + b"\\r\\n\\r\\nOK")
    async with server, httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port(server)}/")

async def test_a_body():
    server = await answering(b"\\r\\n" + GEMINI_KEY.encode())
    async with server:
        await AsyncHTTPClient(force_instance=True).fetch(f"http://127.0.0.1:{port(server)}/")

async def test_bytes():
    server = await answering(b"\\r\\n" + GEMINI_KEY[::-1].encode())
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
        writer.write(b"\\r\\n\\r\\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

async def test_metrics():
    page = "\\r\\n# HELP x\\n# TYPE tornado_live_x gauge\\nx{y=1} 1 # " + TICKET
    server = await answering(page.encode())
    async with server, httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port(server)}/")

async def test_a_server(tmp_path):
    (tmp_path / "leaky.py").write_text(
        "import os, sys\\nfrom tornado_live.__main__ import main\\n"
        "print(os.environ['TOOL_SECRET'], flush=True)\\nsys.argv[0] = 'tornado-live'\\nmain()\\n"
    )
    python = (sys.executable, "-X", GEMINI_KEY)
    async with Server(python=python, command=(str(tmp_path / "leaky.py"), "serve")) as server:
        (server.home / "data" / "more.db").write_bytes(b"\\0" + JWT_SECRET.encode() + b"\\0")

def test_what_a_command_prints():
    subprocess.run(["printf", "%s", GEMINI_KEY.encode().hex()], capture_output=True, check=True)

async def test_what_a_command_prints_later():
    process = await asyncio.create_subprocess_exec("printf", "%s", API_KEY, stdout=asyncio.subprocess.PIPE)
    await process.communicate()

def test_what_a_test_prints():
    print(TOOL_SECRET)

def test_nothing():
    pass
"""


A_REDIS = """
from redis_server import running

def test_a_redis(tmp_path):
    with running(tmp_path) as server, server.client() as client:
        client.set("a name", TICKET * 100)
"""


@pytest.mark.proves("T47")
@pytest.mark.timeout(180)
def test_a_leak_at_each_place_where_the_run_listens_fails_the_run(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    leaks = LEAKS + (A_REDIS if shutil.which("redis-server") else "")
    (tmp_path / "test_leaks.py").write_text(leaks)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider"]
    environment = clean_environment(PYTHONPATH=f"{TESTS}:{tmp_path}:{TESTS.parent}")
    # Not communicate(), which would find the leaks here too.
    with subprocess.Popen(
        [*command, "test_leaks.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    leaking = leaks.count("def test_") - 1
    assert process.returncode == 1, said
    # The server leaks in three places: its log, its store, its command line.
    assert f"canary: {leaking + 2} finds" in said, said
    assert f"{leaking + 1} passed" in said, said
    assert f"{leaking} errors" in said, said
    # pytest itself repeats what a test has printed.
    assert not any(secret in said for secret in CANARIES.values() if secret != TOOL_SECRET), (
        "it is not repeated"
    )


async def test_a_server_has_the_secrets_and_its_clients_send_theirs() -> None:
    """The search is of use where there is something to find."""
    async with Server() as server, Talker(f"{server.url.replace('http', 'ws')}/ws") as client:
        environment = await asyncio.to_thread(Path(f"/proc/{server.pid}/environ").read_text)
        assert GEMINI_KEY in environment
        assert TOOL_SECRET in environment
        assert canary.JWT_SECRET in environment
        sent = client.connection.request
        assert sent is not None
        assert API_KEY in sent.headers["Authorization"]
        assert TICKET in sent.headers["Referer"]
        await client.connected()
    searched = dict(canary.WATCH.searched)
    assert all(searched.get(kind) for kind in ("clients", "log", "store", "command lines")), searched
