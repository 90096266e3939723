"""The server as its users run it: a process of its own, in a home directory of its own, on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import canary

ROOT = Path(__file__).resolve().parent.parent

_LISTENING = re.compile(r"tornado-live is listening on (http://\S+:(\d+))")
_TLS = re.compile(r"The same over TLS on (https://\S+:(\d+))")
_WEBSOCKET = re.compile(r"WebSocket of the original protocol on (ws://\S+:(\d+))")
_START_S = 60.0
_STOP_S = 30.0


def clean_environment(**more: str) -> dict[str, str]:
    """What a person's shell has, without keys or settings of whoever runs the tests."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    return {name: os.environ[name] for name in kept if name in os.environ} | more


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """A port that refuses connections. It is kept from others, to whom a port that was closed may be given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port


class Server:
    """`async with Server() as server:` - leaves by SIGTERM, unless it has ended, and asserts that it ended with 0,
    or with `exit_code`, and that nothing it has started goes on.

    `url` and `ws_url` are without a path; `port` and `ws_port` as printed (`ws_port` None where it is off).
    With `tls`, `https` and `tls_port` are those of TLS_PORT, and `ca` is what a client has to trust for it.
    `log` has everything that was printed so far. `home` is the directory that was given, or a fresh one.
    `environ` is added to an otherwise clean environment, with the secrets of tests/canary.py; `args` follow
    `tornado-live serve`.
    `voice` is the simulator's, off unless a test is about speech, since loading it takes a second of both cores.
    """

    url: str
    port: int
    ws_url: str | None
    ws_port: int | None
    https: str
    tls_port: int

    def __init__(
        self,
        *args: str,
        home: Path | None = None,
        environ: Mapping[str, str] | None = None,
        python: Sequence[str] = (sys.executable,),
        command: Sequence[str] = ("-m", "tornado_live", "serve"),
        ports: Sequence[str] = ("--port", "0", "--ws-port", "0"),
        voice: str = "off",
        tls: bool = False,
        exit_code: int = 0,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tornado-live-") if home is None else None
        self.home = Path(self._temporary.name) if self._temporary else home or Path()
        self._command = [*python, *command, "--home", str(self.home), *ports, "--voice", voice, *args]
        # Most tests end in the middle of a conversation, and have nothing to wait for.
        self._environ = clean_environment(**{"LIMITS__DRAIN_S": "0"} | dict(environ or {}))
        self._environ |= canary.environment(self._environ, args, self.home)
        if tls:
            self._command += ["--tls-port", "0", "--tls-self-signed"]
        self._exit_code = exit_code
        self._has_websocket = "off" not in ports
        self._has_tls = tls or "TLS_PORT" in self._environ
        self._lines: list[str] = []
        self._grown = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def ca(self) -> Path:
        return self.home / "data/tls/ca.pem"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was started"
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self.home,
            # An installed package finds itself; the one under test may not be installed where tests run.
            env={"PYTHONPATH": str(ROOT)} | self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            found = await self.printed(_LISTENING, within=_START_S)
            self.url, self.port = found[1], int(found[2])
            self.ws_url = self.ws_port = None
            if self._has_websocket:
                found = await self.printed(_WEBSOCKET, within=_START_S)
                self.ws_url, self.ws_port = found[1], int(found[2])
            if self._has_tls:
                found = await self.printed(_TLS, within=_START_S)
                self.https, self.tls_port = found[1], int(found[2])
            canary.serves(self._environ, self.port, self.ws_port, self.tls_port if self._has_tls else None)
            canary.WATCH.processes(self.pid)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._gone()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None, "the server was started"
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            error = error or AssertionError(f"SIGTERM did not end the server:\n{self.log}")
        await self._gone()
        if error is not None:
            error.add_note(f"what the server printed:\n{self.log[-8000:]}")
            if kind is None:
                raise error
            return
        assert self._process.returncode == self._exit_code, (
            f"exit code {self._process.returncode}:\n{self.log}"
        )

    async def printed(self, pattern: str | re.Pattern[str], *, within: float = 30.0) -> re.Match[str]:
        """Waits until a line matches; the process ending, or `within` seconds, is a failure."""
        pattern = re.compile(pattern)
        seen = 0
        try:
            async with asyncio.timeout(within):
                while True:
                    for line in self._lines[seen:]:
                        if found := pattern.search(line):
                            return found
                    seen = len(self._lines)
                    ended = self._reader is None or self._reader.done()
                    assert not ended, f"the server ended without printing {pattern.pattern!r}:\n{self.log}"
                    await self.grown()
        except TimeoutError:
            raise AssertionError(f"{pattern.pattern!r} was not printed in {within} s:\n{self.log}") from None

    async def ended(self) -> int:
        """Waits until the process has ended by itself, or by a signal of the test's; its exit code."""
        assert self._process is not None, "the server was started"
        return await self._process.wait()

    async def grown(self) -> None:
        """Waits for the next line, or for the end of the process."""
        self._grown.clear()
        await self._grown.wait()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._lines.append(line.decode(errors="replace"))
                canary.WATCH.feed("log", line)
                self._grown.set()
        finally:
            asyncio.get_running_loop().call_soon(self._grown.set)

    async def _gone(self) -> None:
        assert self._process is not None
        await self._process.wait()
        if self._reader is not None:
            await self._reader
        # uvloop closes the pipe's transport one turn later
        await asyncio.sleep(0)
        canary.WATCH.files("store", self.home)
        if self._temporary is not None:
            self._temporary.cleanup()
