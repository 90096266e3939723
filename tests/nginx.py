"""The real nginx with config/nginx.conf, word for word but for what `fitted` puts in its place.

async with Server(...) as one, Server(...) as other, Nginx(one.port, other.port) as proxy:
    ...  # proxy.url, proxy.ws_url and proxy.http_url; proxy.tls trusts its certificate, proxy.ca is the file
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import canary
import trustme
from serving import ROOT

CONFIGURATION = ROOT / "config/nginx.conf"
PROGRAM = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_START_S = 30.0


def fitted(
    text: str,
    directory: Path,
    *,
    http: int,
    https: int,
    nodes: Sequence[int],
    prefix: str = "",
    changes: Mapping[str, str] | None = None,
) -> str:
    """The file for this machine: its ports, certificates, paths, addresses and user, and nothing else.

    `prefix` is what the file's own head says to write for a path. `changes` are what a test wants otherwise: whole
    pieces of the file, each of which is there exactly once. A piece that is not there is an error, so that the
    file and this function cannot drift apart.
    """

    def put(old: str, new: str) -> None:
        nonlocal text
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in nginx.conf, not once"
        text = text.replace(old, new)

    for old, new in (changes or {}).items():
        put(old, new)
    user = pwd.getpwuid(os.geteuid())
    put("user www-data;", f"user {user.pw_name} {grp.getgrgid(user.pw_gid).gr_name};")
    put("pid /run/nginx.pid;", f"pid {directory}/nginx.pid;")
    text = text.replace("/var/log/nginx/", f"{directory}/")
    for port, own in ((80, http), (443, https)):
        text = re.sub(rf"listen \[::\]:{port}\b[^;]*;\s*", "", text)
        text = re.sub(rf"listen {port}\b", f"listen 127.0.0.1:{own}", text)
    text = text.replace("server_name voice.example.com;", "server_name localhost;")
    text = text.replace("https://$server_name$request_uri", f"https://$server_name:{https}$request_uri")
    text = text.replace("/etc/ssl/voice.example.com", f"{directory}/localhost")
    text = re.sub(r" *server 127\.0\.0\.1:3011\b.*\n", "", text) if len(nodes) == 1 else text
    for example, node in zip((3001, 3011), nodes, strict=False):
        text = text.replace(f"server 127.0.0.1:{example} ", f"server 127.0.0.1:{node} ")
    for path in ("= /api/sessions {", "= /metrics {"):
        text = text.replace(f"location {path}", f"location {path.replace('/', f'{prefix}/', 1)}")
    application = "location / {\n            proxy_pass"
    text = text.replace(application, application.replace("/ {", f"{prefix}/ {{"))
    # Where Debian's nginx keeps them only root may write.
    paths = "".join(f"    {name}_temp_path {directory}/{name};\n" for name in TEMPORARY)
    return text.replace("http {\n", f"http {{\n{paths}", 1)


class Nginx:
    """`nodes` are ports on 127.0.0.1, which may be set as late as before it is entered. Its own two ports last."""

    def __init__(
        self,
        *nodes: int,
        prefix: str = "",
        changes: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        self.nodes = nodes
        self.prefix = prefix
        self.changes = dict(changes or {})
        self.text = CONFIGURATION.read_text(encoding="utf-8") if text is None else text
        self._temporary = tempfile.TemporaryDirectory(prefix="tornado-live-nginx-")
        self.directory = Path(self._temporary.name)
        self.ca = self.directory / "ca.pem"
        self._process: asyncio.subprocess.Process | None = None
        # nginx takes no "any free port". It does take sockets that are open already, as when one binary hands over
        # to the next, so that no other program can get the ports in between.
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        # nginx leaves what it inherits as it is. Two of its workers wake for one connection, and in a blocking
        # accept() the second would wait, with all its other clients.
        for one in self._sockets:
            one.setblocking(False)
        self.http_port, self.port = (one.getsockname()[1] for one in self._sockets)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{self.prefix}"

    @property
    def ws_url(self) -> str:
        return f"wss://localhost:{self.port}{self.prefix}"

    @property
    def http_url(self) -> str:
        return f"http://localhost:{self.http_port}{self.prefix}"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in self._read("access.log").splitlines(True) if line.endswith("\n")]

    async def logs(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits for a request in the access log, which is written after the answer has gone."""
        async with asyncio.timeout(_START_S):
            while True:
                for request in self.requests:
                    if wanted(request):
                        return request
                await asyncio.sleep(0.01)

    @property
    def logged(self) -> str:
        """Everything in every log."""
        return self._read("access.log") + self._read("error.log") + self._read("output")

    def _read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def file(self) -> str:
        """The configuration as it is used now."""
        return self._read("nginx.conf")

    def write(self) -> None:
        """The file anew, after `nodes`, `prefix`, `changes` or `text` were set; `reload` or `restart` takes it."""
        written = fitted(
            self.text,
            self.directory,
            http=self.http_port,
            https=self.port,
            nodes=self.nodes,
            prefix=self.prefix,
            changes=self.changes,
        )
        (self.directory / "nginx.conf").write_text(written, encoding="utf-8")

    async def __aenter__(self) -> Self:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(self.directory / "localhost.key")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(self.directory / "localhost.pem", append=number > 0)
        self.write()
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"what nginx wrote:\n{self.logged[-4000:]}")
        await self._close()

    async def check(self) -> str:
        """`nginx -t`: what it says of the file that is written, "" when nothing."""
        process = await self._run("-t", "-q")
        _, said = await process.communicate()
        return said.decode()

    async def reload(self) -> None:
        """HUP, and waits until new workers serve; the old ones end as the file says."""
        assert self._process is not None, "it was started"
        before = self._workers()
        self._process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(_START_S):
            while self._workers() <= before:  # noqa: ASYNC110 - the system tells of no new process
                await asyncio.sleep(0.01)
        await self._serving()

    async def restart(self) -> None:
        """SIGTERM, as `systemctl restart` does it: every connection is cut."""
        await self.stop()
        await self._start()

    async def stop(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None, "it was started"
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self._process.wait()

    async def _run(self, *args: str, output: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        assert PROGRAM is not None, "nginx is not installed; make packages-for-tests installs it"
        files = [one.fileno() for one in self._sockets]
        return await asyncio.create_subprocess_exec(
            PROGRAM,
            *("-p", str(self.directory), "-c", str(self.directory / "nginx.conf")),
            *("-e", str(self.directory / "error.log")),
            *("-g", "daemon off;"),
            *args,
            env={"PATH": os.environ.get("PATH", ""), "NGINX": "".join(f"{number};" for number in files)},
            pass_fds=files,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=output,
        )

    async def _start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self._process = await self._run(output=output.fileno())
        await self._serving()

    async def _serving(self) -> None:
        """The sockets take connections from the first; somebody has to answer on them."""
        assert self._process is not None
        try:
            async with asyncio.timeout(_START_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
                try:
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    answering = asyncio.get_running_loop().create_task(reader.readline())
                    ending = asyncio.get_running_loop().create_task(self._process.wait())
                    await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
                    answered = answering.done()
                    for task in (answering, ending):
                        task.cancel()
                    await asyncio.gather(answering, ending, return_exceptions=True)
                    assert answered, f"nginx ended:\n{self.logged}"
                finally:
                    writer.close()
                    await writer.wait_closed()
        except TimeoutError:
            raise AssertionError(f"nginx does not answer:\n{self.logged}") from None

    def _workers(self) -> set[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    async def _close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop()
        for one in self._sockets:
            one.close()
        canary.WATCH.feed("log", self.logged)
        self._temporary.cleanup()
