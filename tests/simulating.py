"""A simulator as a process of its own, for any test that needs a model side.

async with Simulator(scenario={"turns": [{"do": [{"say": "Hello."}]}]}) as simulator:
    ...  # ws://127.0.0.1:{simulator.port}/ws/google.ai.generativelanguage...

async with Simulator(tls=True) as simulator:
    async with simulator.client().aio.live.connect(model=MODEL) as session: ...
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import ssl
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme
import yaml
from google import genai
from google.genai import types

MODEL = "gemini-3.8-live"
LIVE_PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
_DEADLINE_S = 30


@functools.cache
def certificate_authority() -> trustme.CA:
    """One authority for the whole test run: making one costs more than a test does."""
    return trustme.CA()


class Simulator:
    """`python -m tornado_live.simulator` on a free port, from `async with` to its end.

    scenario: a mapping or YAML text (written to a file) or the path of a scenario file; None is the
    conversation that knows the declared functions. `voice` is "off" unless a test is about speech.
    `speed` divides every simulated wait. `log` is what the process wrote to stderr, once it has ended.
    """

    def __init__(
        self,
        scenario: Mapping[str, Any] | str | Path | None = None,
        *,
        voice: str = "off",
        speed: float = 1.0,
        latency: float | None = None,
        tls: bool = False,
        require_key: bool = False,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._scenario = scenario
        self._arguments = ["--voice", voice, "--speed", str(speed), "--exit-with-stdin", *arguments]
        if latency is not None:
            self._arguments += ["--latency", str(latency)]
        if require_key:
            self._arguments.append("--require-key")
        self._tls = tls
        inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self._environment = {**inherited, **(environment or {})}
        self._directory = tempfile.TemporaryDirectory(prefix="simulator-")
        self.port = 0
        self.first_line: dict[str, Any] = {}
        self.log = ""
        self.returncode: int | None = None

    @property
    def url(self) -> str:
        """The base URL, as GEMINI_BASE_URL takes it."""
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    @property
    def live_url(self) -> str:
        """The WebSocket's own URL."""
        return self.url.replace("http", "ws", 1) + LIVE_PATH

    @property
    def ssl(self) -> ssl.SSLContext:
        """A client context that trusts this simulator's certificate."""
        context = ssl.create_default_context()
        certificate_authority().configure_trust(context)
        return context

    def client(self, api_key: str = "a-key-for-tests", api_version: str = "v1beta") -> genai.Client:
        """Google's own client, pointed here (needs tls=True: the SDK cannot speak ws://)."""
        arguments = {"ssl": self.ssl, "proxy": None, "compression": None}
        return genai.Client(
            api_key=api_key,
            http_options=types.HttpOptions(
                base_url=self.url,
                api_version=api_version,
                async_client_args=arguments,
                client_args={"verify": self.ssl, "trust_env": False},
            ),
        )

    async def status(self) -> dict[str, Any]:
        """What GET /status says now."""

        def fetch() -> dict[str, Any]:
            handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
            if self._tls:
                handlers.append(urllib.request.HTTPSHandler(context=self.ssl))
            with urllib.request.build_opener(*handlers).open(
                self.url + "/status", timeout=_DEADLINE_S
            ) as answer:
                status: dict[str, Any] = json.load(answer)
            return status

        return await asyncio.to_thread(fetch)

    async def next_line(self, timeout: float = _DEADLINE_S) -> dict[str, Any]:
        """The next JSON line of its standard output, such as {"voice": "ready"}."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        if not line:
            raise AssertionError(f"the simulator ended: {await self._end()}")
        message: dict[str, Any] = json.loads(line)
        return message

    async def __aenter__(self) -> Simulator:
        try:
            await self._start()
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    async def _start(self) -> None:
        directory = Path(self._directory.name)
        arguments = ["--host", "127.0.0.1", "--port", "0", *self._arguments]
        if self._scenario is not None:
            path = self._scenario
            if not isinstance(path, Path):
                text = path if isinstance(path, str) else yaml.safe_dump(dict(path), sort_keys=False)
                path = directory / "scenario.yaml"
                path.write_text(text)
            arguments += ["--scenario", str(path)]
        if self._tls:
            certificate = certificate_authority().issue_cert("localhost", "127.0.0.1")
            certificate.private_key_pem.write_to_path(directory / "key.pem")
            for block in certificate.cert_chain_pems:
                block.write_to_path(directory / "cert.pem", append=True)
            arguments += ["--tls-cert", str(directory / "cert.pem"), "--tls-key", str(directory / "key.pem")]
        self._log_path = directory / "log"
        self._log = self._log_path.open("wb")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tornado_live.simulator", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            cwd=Path(__file__).parent.parent,
            env=self._environment,
        )
        self.first_line = await self.next_line()
        self.port = self.first_line["listening"]["port"]

    async def stop(self) -> int:
        """End it as a parent's death would (its stdin closes); its exit code."""
        if self.returncode is None:
            await self._end()
        assert self.returncode is not None
        return self.returncode

    def terminate(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, once it has ended by itself or by a signal."""
        assert self._process.stdin is not None
        try:
            self.returncode = await asyncio.wait_for(self._process.wait(), _DEADLINE_S)
        except TimeoutError:
            self._process.kill()
            self.returncode = await self._process.wait()
            raise
        finally:
            self._process.stdin.close()
            self._log.close()
            self.log = self._log_path.read_text()
        return self.returncode

    async def _end(self) -> str:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self.wait()
        return self.log

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            self._directory.cleanup()
            if error is not None and self.log:
                sys.stderr.write(self.log)


async def speech(text: str, rate: int = 16_000) -> bytes:
    """The text as a microphone gives it: PCM16 with a second of silence after it. Needs the voice extra."""
    from tornado_live.simulator.voice import OUTPUT_RATE, load_voice, resample

    voice = await asyncio.to_thread(load_voice)
    try:
        pcm = b"".join([part async for part in voice.speak(text)])
    finally:
        voice.close()
    return resample(pcm, OUTPUT_RATE, rate) + bytes(rate * 2)
