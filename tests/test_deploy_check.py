"""`tornado-live deploy check` through the real nginx: what is wrong is found, and the printed lines mend it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

import httpx
import pytest
from accessing import api_key, bearer
from lasting import lasting
from nginx import Nginx
from serving import ROOT, Server, clean_environment
from simulating import Simulator
from talking import Talker

from tornado_live.__main__ import main
from tornado_live.deploy.check import check
from tornado_live.deploy.target import target_of

TEXT_FRAME = 0x81
NODE = ("--port", "0", "--ws-port", "off")


@dataclass
class Printed:
    lines: list[str] = field(default_factory=list)
    code: int = -1

    def steps(self, verdict: str) -> list[str]:
        return [line.split()[1] for line in self.lines if line.startswith(verdict)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def remedies(self) -> dict[str, list[str]]:
        """The lines to write, by the words that say where; of a block its lines together."""
        found: dict[str, list[str]] = {}
        place = ""
        for line in self.lines:
            if line.startswith(" " * 12):
                if found[place] and found[place][-1].count("{") > found[place][-1].count("}"):
                    found[place][-1] += f"\n{line.strip()}"
                else:
                    found[place].append(line.strip())
            elif line.startswith(" " * 8) and line.endswith(":"):
                place = line.strip().rstrip(":")
                found.setdefault(place, [])
        return found

    @property
    def settings(self) -> dict[str, str]:
        """What is to be written into .env."""
        lines = self.remedies.get("tornado-live, in .env", [])
        return dict(line.split("  #")[0].strip().split("=", 1) for line in lines)


def mended(text: str, remedies: Mapping[str, list[str]], proxy: Nginx) -> str:
    """The file after a person has done what was printed; addresses and certificates are this machine's."""
    begin = text.index("    server {", text.index("    server {") + 1)
    end = text.index("\n    }\n", begin)
    before, server, after = text[:begin], text[begin:end], text[end:]
    for place, lines in remedies.items():
        if place == "nginx, in http":
            before = before.replace("http {\n", "http {\n" + "".join(f"    {line}\n" for line in lines), 1)
        elif place == "nginx, in the server of port 80":
            before = re.sub(r"location / \{[^}]*\}", lambda _, line=lines[0]: line, before)
        elif place.startswith("nginx, in server"):
            for line in lines:
                name = re.escape(line.split("{")[0].strip() if "{" in line else line.split()[0])
                ends = r"\{[^}]*\}" if "{" in line else "[^;]*;"
                server = re.sub(rf"(?m)^ *{name}\s*{ends}\n", "", server)
            written = "".join(f"        {line}\n" for line in lines)
            server = server.replace("server {\n", f"server {{\n{written}", 1)
    server = server.replace(f"listen {proxy.port} ssl", f"listen 127.0.0.1:{proxy.port} ssl")
    server = server.replace("/etc/ssl/localhost", f"{proxy.directory}/localhost")
    return before + server + after


async def checked(proxy: Nginx, *, idle_s: float = 0, headers: Mapping[str, str] | None = None) -> Printed:
    printed = Printed()
    printed.code = await check(
        target_of(proxy.url),
        printed.lines.append,
        ca=proxy.ca,
        idle_s=idle_s,
        http_port=proxy.http_port,
        headers=headers,
    )
    return printed


@contextlib.asynccontextmanager
async def served(
    proxy: Nginx, *args: str, nodes: int = 1, sharing: bool = True, **environ: str
) -> AsyncIterator[list[Server]]:
    """One or more nodes on one simulator, ready to talk, behind a proxy that is started last."""
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator())
        surroundings = {
            "GEMINI_BASE_URL": simulator.url,
            "PUBLIC_URL": proxy.url,
            "TRUSTED_PROXIES": "127.0.0.1",
        } | environ
        first = await stack.enter_async_context(Server(*args, environ=surroundings, ports=NODE))
        servers = [first]
        for _ in range(nodes - 1):
            home = first.home if sharing else None
            other = Server(*args, environ=surroundings, ports=NODE, home=home)
            servers.append(await stack.enter_async_context(other))
        proxy.nodes = tuple(one.port for one in servers)
        await stack.enter_async_context(proxy)
        yield servers


@contextlib.asynccontextmanager
async def one_node() -> AsyncIterator[Server]:
    """It knows its address by the proxy's word."""
    async with Simulator() as simulator:
        environ = {"GEMINI_BASE_URL": simulator.url, "TRUSTED_PROXIES": "127.0.0.1"}
        async with Server(environ=environ, ports=NODE) as server:
            yield server


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    """Shared by the tests in which it is the proxy that is wrong."""
    with lasting(one_node()) as server:
        yield server


async def rewritten(proxy: Nginx, printed: Printed) -> Printed:
    """Does what was printed, and checks again."""
    text = mended(proxy.file, printed.remedies, proxy)
    (proxy.directory / "nginx.conf").write_text(text)
    assert await proxy.check() == ""
    await proxy.restart()
    return await checked(proxy)


# What is taken out of the file or put otherwise, and the steps at which it shows.
WRONG: dict[str, tuple[dict[str, str], set[str]]] = {
    "no upgrade": (
        {
            "        proxy_set_header Upgrade $upgrade;\n": "",
            "        proxy_set_header Connection $connection_header;\n": "",
        },
        {"upgrade"},
    ),
    "small bodies": ({"client_max_body_size 64k;": "client_max_body_size 1k;"}, {"body"}),
    "another path": (
        {"location / {\n            proxy_pass": "location /talk/ {\n            proxy_pass"},
        {"health"},
    ),
    "forwarded headers passed on": (
        {
            "        proxy_set_header X-Forwarded-For $remote_addr;\n": "",
            '        proxy_set_header X-Real-IP "";\n': "",
            '        proxy_set_header Forwarded "";\n': "",
        },
        {"address"},
    ),
    "its own name for the server": ({"        proxy_set_header Host $http_host;\n": ""}, {"upgrade", "host"}),
    "http only": ({"listen 443 ssl;": "listen 443;"}, {"tls"}),
    "no redirect": (
        {"return 308 https://$server_name$request_uri;": "proxy_pass http://tornado_live;"},
        {"http"},
    ),
}


async def test_nothing_is_wrong_with_the_file_as_it_is(node: Server) -> None:
    async with Nginx(node.port) as proxy:
        printed = await checked(proxy)
        assert printed.steps("WRONG") == [], printed.text
        assert printed.code == 0


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_found_and_the_printed_lines_mend_it(name: str, node: Server) -> None:
    changes, steps = WRONG[name]
    async with Nginx(node.port, changes=changes) as proxy:
        bad = await checked(proxy)
        assert bad.code == 1
        assert steps <= set(bad.steps("WRONG")), bad.text
        again = await rewritten(proxy, bad)
        assert again.code == 0, f"{bad.text}\n\n{again.text}"


async def test_a_proxy_that_cuts_silent_lines_is_found_by_trying() -> None:
    """It gives up after a second, and the server's pings come every two."""
    proxy = Nginx(changes={"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"})
    async with served(proxy, "--set", "limits.client_ping_s=2"):
        bad = await checked(proxy, idle_s=2.5)
        assert bad.code == 1
        assert "idle" in bad.steps("WRONG")
        assert "proxy_read_timeout 60s;" in bad.text
        (proxy.directory / "nginx.conf").write_text(mended(proxy.file, bad.remedies, proxy))
        await proxy.restart()
        again = await checked(proxy, idle_s=2.5)
        assert again.code == 0, again.text
        assert "idle" in again.steps("ok")


async def test_a_server_that_is_not_told_its_path_or_its_proxy_is_found() -> None:
    """A path of the proxy's that the server does not know, and a proxy that it does not believe."""
    proxy = Nginx(prefix="/voice")
    async with served(proxy, PUBLIC_URL="https://another.example", TRUSTED_PROXIES=""):
        bad = await checked(proxy)
        assert bad.steps("WRONG") == ["health"], bad.text
        assert bad.settings == {"BASE_PATH": "/voice", "PUBLIC_URL": proxy.url}
    proxy = Nginx(prefix="/voice")
    settings = {**bad.settings, "PUBLIC_URL": proxy.url}
    async with served(proxy, TRUSTED_PROXIES="", **settings):
        bad = await checked(proxy)
        assert set(bad.steps("WRONG")) == {"address"}, bad.text
        settings |= bad.settings
    proxy = Nginx(prefix="/voice")
    async with served(proxy, nodes=2, **{**settings, "PUBLIC_URL": proxy.url}):
        good = await checked(proxy)
        assert good.code == 0, good.text
        assert "to 2 processes" in good.text


async def test_coming_back_is_tried_on_the_node_that_has_more_clients_too() -> None:
    proxy = Nginx()
    async with served(proxy, nodes=2), contextlib.AsyncExitStack() as stack:
        lines = [
            await stack.enter_async_context(Talker(f"{proxy.ws_url}/ws", tls=proxy.tls)) for _ in range(4)
        ]
        nodes = [
            line.connection.response.headers["X-Served-By"] for line in lines if line.connection.response
        ]
        assert len(set(nodes)) == 2
        for line, node in zip(lines, nodes, strict=True):
            if node != nodes[0]:
                await line.connection.close()
        printed = await checked(proxy)
        assert "to 2 processes" in printed.text, printed.text


async def test_one_node_is_not_said_to_be_found_again_on_another(node: Server) -> None:
    async with Nginx(node.port) as proxy:
        printed = await checked(proxy)
    assert "return" in printed.steps("note"), printed.text
    assert printed.code == 0


async def serving_it(servers: list[Server]) -> Server:
    """The one that is first to open a conversation, when it has told its client so."""
    loop = asyncio.get_running_loop()
    waiting = {loop.create_task(one.printed(r'"event": ?"connected"')): one for one in servers}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    server = waiting[done.pop()]
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.get(f"{server.url}/health")
    return server


async def test_a_proxy_is_not_blamed_for_a_node_that_ends() -> None:
    proxy = Nginx()
    async with served(proxy, nodes=2) as servers, asyncio.TaskGroup() as owned:
        checking = owned.create_task(checked(proxy, idle_s=5))
        os.kill((await serving_it(servers)).pid, signal.SIGTERM)
        printed = await checking
        assert "idle" in printed.steps("note"), printed.text
        assert "does not answer any more" in printed.text
        assert "read_timeout" not in printed.text
        assert printed.code == 0, printed.text


async def test_nodes_that_share_no_sessions_are_found() -> None:
    proxy = Nginx()
    async with served(proxy, nodes=2, sharing=False):
        printed = await checked(proxy)
    assert "return" in printed.steps("WRONG"), printed.text
    assert "REDIS_URL" in printed.settings


async def test_a_server_that_asks_who_is_there_is_tried_with_a_key() -> None:
    proxy = Nginx()
    async with served(proxy, AUTH__MODES="api_key") as servers:
        printed = await checked(proxy)
        assert (printed.code, printed.steps("WRONG")) == (0, []), printed.text
        assert "sessions" in printed.steps("note"), "with --token KEY there is more to try"
        key = await api_key({"DATA_DIR": str(servers[0].home / "data")}, "check")
        printed = await checked(proxy, headers=bearer(key))
        assert (printed.code, printed.steps("WRONG")) == (0, []), printed.text
        assert {"sessions", "body", "upgrade", "delay", "drop-in", "frames"} <= set(printed.steps("ok"))
        assert key not in printed.text


class Holding:
    """A relay that keeps short messages for a while, as a buffer that waits for more does."""

    def __init__(self, port: int) -> None:
        self._node = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Holding:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._node)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, far_writer, 0.0))
                both.create_task(self._pass(far_reader, writer, 0.4))
        finally:
            for one in (writer, far_writer):
                one.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held_s: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if data[0] == TEXT_FRAME and len(data) < 4096:
                    await asyncio.sleep(held_s)
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_what_holds_speech_back_is_found(node: Server) -> None:
    async with Holding(node.port) as holding:
        printed = Printed()
        target = target_of(f"http://localhost:{holding.port}")
        printed.code = await check(target, printed.lines.append, idle_s=0)
    assert "delay" in printed.steps("WRONG"), printed.text
    assert "proxy_buffering off;" in printed.text


async def run(*args: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tornado_live", "deploy", "check", *args),
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_the_command_tells_by_its_exit_code() -> None:
    proxy = Nginx()
    ports = ("--http-port", str(proxy.http_port), "--idle", "0")
    async with served(proxy):
        code, printed = await run(proxy.url, "--ca", str(proxy.ca), *ports)
        assert code == 0, printed
        assert printed.endswith("All is well.\n")
        code, printed = await run(proxy.url, *ports, "--proxy", "caddy")
        assert code == 1
        assert "the certificate is not trusted: unable to get local issuer certificate" in printed
        assert printed.count("WRONG") == 1, printed
        async with httpx.AsyncClient(base_url=proxy.url, verify=proxy.tls, trust_env=False) as http:
            assert (await http.get("/api/sessions")).json()["sessions"] == [], "it leaves nothing behind"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("ftp://localhost",), "is not the address of a page"),
        (("https://localhost/?a=b",), "is not the address of a page"),
        (("https://localhost", "--ca", "no-such-file"), "--ca: no-such-file cannot be used: No such file"),
        (("https://localhost", "--proxy", "ngnix"), 'did you mean "nginx"?'),
        (("https://localhost", "--header", "secret"), "is written 'NAME: VALUE'"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(
    args: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tornado-live", "deploy", "check", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
