"""TLS_PORT of a running server: the authority that is made once, one's own certificate, and who may come in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme
from google import genai
from serving import ROOT, Server, clean_environment
from simulating import MODEL, Simulator
from talking import Talker
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tornado_live.access.authority import certified
from tornado_live.errors import ConfigError

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Hello.", "seconds": 0.2}]}]}
# Of a client that offers nothing newer, and one cipher suite.
HELLO_OF_TLS_1_1 = bytes.fromhex(f"16 0301 002d 01 000029 0302 {'07' * 32} 00 0002 002f 0100")
NODE = """
const [base] = process.argv.slice(-1);
fetch(base + "/health").then((answer) => answer.json()).then((body) => console.log(body.status));
"""


def trusting(ca: Path) -> ssl.SSLContext:
    """A client that trusts nothing but the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    return context


def browser(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.https, verify=trusting(server.ca), trust_env=False)


def plainly(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, trust_env=False)


async def ran(*command: str, **environ: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=clean_environment(**environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


def wss(server: Server, path: str = "/ws") -> str:
    return server.https.replace("https", "wss") + path


# What is served


async def test_the_tls_port_serves_rest_and_pages() -> None:
    async with Server(tls=True) as server, browser(server) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        page = await client.get("/")
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = page.headers["Content-Security-Policy"]
        [sockets] = re.findall(r"connect-src ([^;]*)", policy)
        assert {f"wss://127.0.0.1:{server.tls_port}", f"ws://127.0.0.1:{server.port}"} <= set(sockets.split())
        made = (await client.post("/api/sessions")).json()
        assert made["wsUrl"] == wss(server, f"/ws?sessionId={made['sessionId']}")
        plain = await client.get(f"{server.url}/")
        assert f"wss://127.0.0.1:{server.tls_port}" in plain.headers["Content-Security-Policy"]


async def test_a_conversation_goes_over_tls_from_beginning_to_end() -> None:
    async with (
        Simulator(HELLO, latency=0.05, speed=5) as simulator,
        Server(tls=True, environ={"GEMINI_BASE_URL": simulator.url}) as server,
        browser(server) as client,
    ):
        made = (await client.post("/api/sessions")).json()
        async with Talker(made["wsUrl"], tls=trusting(server.ca)) as talker:
            await talker.connected()
            for _ in range(3):
                await talker.speak(b"\0\0" * 16000)
            await talker.send("text", {"text": "hi"})
            await talker.until("turn_complete")
            assert sum(map(len, talker.audio)) > 0
        kept = (await client.get(f"/api/sessions/{made['sessionId']}?include=memory")).json()
    assert [item["role"] for item in kept["memory"]][:2] == ["user", "model"]


async def test_the_name_localhost_is_served_as_well() -> None:
    async with Server(tls=True) as server:
        base = f"https://localhost:{server.tls_port}"
        async with httpx.AsyncClient(verify=trusting(server.ca), trust_env=False) as client:
            assert (await client.get(f"{base}/health")).status_code == 200


async def test_what_is_printed_makes_python_and_node_trust_it() -> None:
    async with Server(tls=True) as server:
        python = await server.printed(r"^  export SSL_CERT_FILE=(\S+)    # Python$")
        node = await server.printed(r"^  export NODE_EXTRA_CA_CERTS=(\S+)    # Node$")
        await server.printed(r"^It signs for localhost, 127\.0\.0\.1, ::1 only\.$")
        assert python[1] == node[1] == str(server.ca)
        asks = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1] + '/health').status)"
        command = (sys.executable, "-c", asks, server.https)
        assert await ran(*command, SSL_CERT_FILE=python[1]) == (0, "200\n")
        code, printed = await ran(*command)
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in printed
        if shutil.which("node") is None:
            return  # tests/guests has one of its own
        command = ("node", "-e", NODE, server.https)
        assert await ran(*command, NODE_EXTRA_CA_CERTS=node[1]) == (0, "ok\n")
        code, printed = await ran(*command)
        assert code == 1
        assert "UNABLE_TO_VERIFY_LEAF_SIGNATURE" in printed


async def test_versions_before_tls_1_2_are_refused() -> None:
    async with Server(tls=True) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(server.ca)
            context.minimum_version = context.maximum_version = version
            _, writer = await asyncio.open_connection("127.0.0.1", server.tls_port, ssl=context)
            assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
            writer.close()
            await writer.wait_closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.tls_port)
        writer.write(HELLO_OF_TLS_1_1)
        alert = await reader.readexactly(7)
        assert (alert[0], alert[5:]) == (21, bytes([2, 70]))  # fatal, protocol_version
        writer.close()
        await writer.wait_closed()


# Google's own client


async def test_googles_python_client_with_an_http_address_learns_at_once_that_tls_is_missing() -> None:
    """docs/troubleshooting.md has these words."""
    async with Server() as server, plainly(server) as http:
        client = genai.Client(api_key="a-key-for-tests", http_options={"base_url": server.url})
        with pytest.raises(ssl.SSLError) as caught:
            async with client.aio.live.connect(model=MODEL):
                pass
        assert caught.value.reason == "WRONG_VERSION_NUMBER"
        assert "[SSL: WRONG_VERSION_NUMBER] wrong version number" in str(caught.value)
        await server.printed("tls_on_plain_port.*This port speaks no TLS")
        assert (await http.get("/health")).status_code == 200
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert "`[SSL: WRONG_VERSION_NUMBER] wrong version number`" in page


async def test_a_connection_that_says_nothing_does_not_keep_the_server_from_ending() -> None:
    async with Server(tls=True) as server, plainly(server) as client:
        with contextlib.ExitStack() as silent:
            for port in (server.port, server.ws_port, server.tls_port):
                silent.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert (await client.get("/health")).status_code == 200
            os.kill(server.pid, 15)
            await server.printed("stopping")


async def test_a_request_that_comes_letter_by_letter_is_served() -> None:
    async with Server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for letter in b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            writer.write(bytes([letter]))
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()


# The doors


@pytest.mark.proves("T1")
async def test_pages_of_the_tls_port_are_our_own_and_others_are_not() -> None:
    async with Server(tls=True) as server:
        tls, plain = server.tls_port, server.port
        context = trusting(server.ca)
        for origin in (f"https://127.0.0.1:{tls}", f"https://localhost:{tls}", f"http://localhost:{plain}"):
            async with connect(wss(server), ssl=context, proxy=None, additional_headers={"Origin": origin}):
                pass
        for origin in (
            f"http://127.0.0.1:{tls}",
            f"https://127.0.0.1:{plain}",
            "https://evil.example",
            f"https://localhost.evil.example:{tls}",
            "null",
        ):
            with pytest.raises(InvalidStatus) as caught:
                await connect(wss(server), ssl=context, proxy=None, additional_headers={"Origin": origin})
            assert caught.value.response.status_code == 403


@pytest.mark.proves("T3")
async def test_a_rebound_name_is_refused_over_tls_too() -> None:
    async with Server(tls=True) as server, browser(server) as client:
        answer = await client.get("/api/tools", headers={"Host": f"rebind.test:{server.tls_port}"})
        assert answer.status_code == 403


# The authority


async def test_the_authority_is_kept_over_a_restart_and_its_key_is_nobody_elses(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        async with Server(home=tmp_path, tls=True) as server, browser(server) as client:
            assert (await client.get("/health")).status_code == 200
            peer = ssl.get_server_certificate(("127.0.0.1", server.tls_port))
            seen.append((server.ca.read_bytes(), peer))
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]
    folder = tmp_path / "data/tls"
    assert {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {
        "tls": 0o700,
        "ca.pem": 0o644,
        "ca.key": 0o600,
    }
    assert [path.name for path in (tmp_path / "data").iterdir() if path.name.startswith(".")] == []


def test_of_servers_that_start_at_the_same_time_one_makes_the_authority(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tornado_live.access.authority import certified;"
        "sys.stdin.read(1); certified(Path(sys.argv[1]), []); print(Path(sys.argv[1], 'tls/ca.pem').read_text())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    printed = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(printed) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["ca.key", "ca.pem", "tls"]


def test_the_certificate_names_this_machine_and_the_hosts_that_are_allowed(tmp_path: Path) -> None:
    made = certified(tmp_path, ["localhost", "[::1]", "voice.example.com", "0.0.0.0", "192.168.1.5"])
    assert made.names == ("localhost", "127.0.0.1", "::1", "voice.example.com", "192.168.1.5")
    assert made.authority == tmp_path / "tls/ca.pem"
    with pytest.raises(ConfigError, match=r"a name of allowed_hosts cannot stand in a certificate: .*my_box"):
        certified(tmp_path, ["my_box"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "ca.key").unlink(),
        lambda folder: (folder / "ca.pem").unlink(),
        lambda folder: (folder / "ca.pem").write_bytes(b""),
        lambda folder: (folder / "ca.key").write_bytes((folder / "ca.key").read_bytes()[:40]),
        lambda folder: (folder / "ca.key").write_bytes(trustme.CA().private_key_pem.bytes()),
    ],
    ids=["no key", "no certificate", "empty certificate", "half a key", "another key"],
)
def test_a_damaged_authority_is_one_line_that_says_what_to_delete(tmp_path: Path, damage: object) -> None:
    certified(tmp_path, [])
    assert callable(damage)
    damage(tmp_path / "tls")
    with pytest.raises(ConfigError) as caught:
        certified(tmp_path, [])
    assert str(caught.value) == (
        f"{tmp_path}/tls: ca.pem and ca.key are damaged or do not belong together - delete {tmp_path}/tls, start"
        " again, and let clients trust the new ca.pem"
    )


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files, but no ca\.pem - move them away, or delete"):
        certified(tmp_path, [])
    assert [path.name for path in tmp_path.rglob("*")] == ["tls", "mine.txt"]


def test_a_data_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigError, match=r"data/tls: cannot be written: File exists"):
        certified(tmp_path / "data", [])


async def test_what_stops_the_start_is_one_line(tmp_path: Path) -> None:
    serve = (sys.executable, "-m", "tornado_live", "serve", "--home", str(tmp_path), "--tls-self-signed")
    ports = ("--port", "0", "--ws-port", "off", "--voice", "off")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, printed = await ran(*serve, *ports, "--tls-port", port, PYTHONPATH=str(ROOT))
    last = printed.splitlines()[-1]
    words = "is taken by another program; stop it, or choose another port with --tls-port"
    assert (code, last) == (2, f"listening: 127.0.0.1 port {port}: {words}")
    (tmp_path / "data/tls/ca.key").write_text("damaged")
    code, printed = await ran(*serve, *ports, "--tls-port", "0", PYTHONPATH=str(ROOT))
    assert code == 2
    assert f"delete {tmp_path}/data/tls, start again" in printed.splitlines()[-1]
    assert "Traceback" not in printed


async def test_dev_takes_the_same_option(tmp_path: Path) -> None:
    command = ("-m", "tornado_live", "dev")
    async with Server(tls=True, command=command) as server, browser(server) as client:
        assert (await client.get("/health")).status_code == 200


# One's own certificate


async def test_ones_own_certificate_is_served_and_nothing_is_made(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    environ = {"TLS_CERT": "own.pem", "TLS_KEY": "own.key", "TLS_PORT": "0"}
    async with Server(home=tmp_path, environ=environ) as server:
        context = trusting(tmp_path / "authority.pem")
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            assert (await client.get(f"{server.https}/health")).status_code == 200
        await server.printed('"event": "simulator"')
        assert "SSL_CERT_FILE" not in server.log
        assert not server.ca.exists()


async def test_a_renewed_certificate_is_taken_up_by_sighup_and_a_bad_one_is_not(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))

    def issue() -> bytes:
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(str(tmp_path / "own.key"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
        return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())

    async def shown(server: Server) -> bytes | None:
        context = trusting(tmp_path / "authority.pem")
        _, writer = await asyncio.open_connection("127.0.0.1", server.tls_port, ssl=context)
        try:
            return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
            await writer.wait_closed()

    first = issue()
    environ = {"TLS_CERT": "own.pem", "TLS_KEY": "own.key", "TLS_PORT": "0"}
    async with Server(home=tmp_path, environ=environ) as server:
        assert await shown(server) == first
        second = issue()
        assert await shown(server) == first
        os.kill(server.pid, signal.SIGHUP)
        await server.printed('"certificate_loaded"')
        assert await shown(server) == second
        (tmp_path / "own.key").write_text("-----BEGIN PRIVATE KEY-----\n")
        os.kill(server.pid, signal.SIGHUP)
        await server.printed('"certificate_refused"')
        assert await shown(server) == second
