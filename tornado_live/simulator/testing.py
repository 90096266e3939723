"""A simulated Gemini Live for the tests of any project, in a process of its own.

    with Simulator(scenario={"turns": [{"do": [{"say": "Hello."}]}]}, tls=True) as simulator:
        client = simulator.client()

It is an asynchronous context manager too, and a fixture for those who have pytest:

    pytest_plugins = ["tornado_live.simulator.testing"]  # in conftest.py

    @pytest.mark.gemini_simulator(scenario="scenario.yaml")
    def test_greeting(gemini_simulator): ...
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import math
import queue
import ssl
import subprocess  # what is run is this Python and this package
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import yaml

if TYPE_CHECKING:
    import trustme
    from google.genai import Client

LIVE_PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
_DEADLINE_S = 60.0


class SimulatorFailed(AssertionError):
    """It did not start, or ended before its time; the text is what it wrote to standard error."""


class ControlRefused(ValueError):
    """The simulator did not do what `control` asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """data: str for a text frame, bytes for a binary one."""

    by: Literal["client", "simulator"]
    data: str | bytes


@dataclass(frozen=True, slots=True)
class Frames:
    """One connection: the path and the headers of its upgrade, and every frame since, in order.

    close: the code and the reason that the client closed with, or answered a close with; None for a line that
    was cut, and while `is_open`.
    """

    path: str
    headers: Mapping[str, str]
    frames: tuple[Frame, ...]
    is_open: bool
    close: tuple[int, str] | None

    def of(self, by: Literal["client", "simulator"]) -> list[str | bytes]:
        return [frame.data for frame in self.frames if frame.by == by]


@functools.cache
def certificate_authority() -> trustme.CA:
    """One for the whole process, since making one costs more than most tests."""
    try:
        import trustme
    except ImportError:
        raise SimulatorFailed("tls=True needs trustme: pip install trustme") from None
    return trustme.CA()


class Simulator:
    """`python -m tornado_live.simulator` on a free port of 127.0.0.1, from `with` or `async with` to its end.

    scenario: a mapping, the path of a scenario file (as text, one that ends in .yaml or .yml), or YAML text; None
    is the conversation that knows the declared functions. recording: the path of one, or one for each connection.
    speed divides every simulated wait. tls: what Google's client needs; takes the package trustme. faults: as
    --fault takes them ("drop@20"), or a mapping of names and values. age, go_away: in seconds, inf for none.
    arguments: more options of the command line. environment: the whole of it; None hands on this process's own.
    """

    def __init__(
        self,
        scenario: Mapping[str, Any] | str | Path | None = None,
        *,
        voice: Literal["auto", "on", "off"] = "off",
        speed: float = 1.0,
        latency: float | None = None,
        tls: bool = False,
        require_key: bool = False,
        recording: str | Path | Sequence[str | Path] | None = None,
        faults: str | Sequence[str] | Mapping[str, Any] = (),
        switches: Mapping[str, Any] | None = None,
        keep_frames: bool = False,
        age: float | None = None,
        go_away: float | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._scenario = scenario
        self._arguments = ["--voice", voice, "--speed", str(speed), "--exit-with-stdin"]
        for name, seconds in (("latency", latency), ("age", age), ("go-away", go_away)):
            if seconds is not None:
                self._arguments.append(f"--{name}={'none' if seconds == math.inf else seconds}")
        for name, wanted in (("require-key", require_key), ("keep-frames", keep_frames)):
            if wanted:
                self._arguments.append(f"--{name}")
        recordings = [recording] if isinstance(recording, str | Path) else recording or ()
        self._arguments += [f"--recording={path}" for path in recordings]
        self._arguments += [f"--fault={fault}" for fault in _options(faults)]
        self._arguments += [f"--switch={switch}" for switch in _options(switches or {})]
        self._arguments += arguments
        self._tls = tls
        self._environment = environment
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0
        self.first_line: dict[str, Any] = {}
        self.log = ""

    # Addresses

    @property
    def url(self) -> str:
        """The base URL: of Google's client, of `GOOGLE_GEMINI_BASE_URL`, of tornado-live's `GEMINI_BASE_URL`."""
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    @property
    def live_url(self) -> str:
        """The WebSocket's own URL."""
        return self.url.replace("http", "ws", 1) + LIVE_PATH

    @property
    def ssl(self) -> ssl.SSLContext:
        """A client's context that trusts this simulator."""
        context = ssl.create_default_context()
        certificate_authority().configure_trust(context)
        return context

    def client(self, api_key: str = "a-key-for-tests", api_version: str = "v1beta") -> Client:
        """Google's own client, pointed here; it needs tls=True, and raises SimulatorFailed without."""
        if not self._tls:
            raise SimulatorFailed("Google's client speaks nothing but TLS: Simulator(..., tls=True)")
        self._running()
        from google import genai
        from google.genai import types

        return genai.Client(
            api_key=api_key,
            http_options=types.HttpOptions(
                base_url=self.url,
                api_version=api_version,
                async_client_args={"ssl": self.ssl, "proxy": None, "compression": None},
                client_args={"verify": self.ssl, "trust_env": False},
            ),
        )

    # Looking in and breaking things

    def status(self) -> dict[str, Any]:
        """What GET /status says now."""
        return self._request("/status")

    def faults(self) -> dict[str, Any]:
        """Every fault and switch there is, with its meaning: GET /control."""
        return self._request("/control")

    def frames(self, connection: int) -> Frames:
        """What crossed the wire of a connection so far, byte for byte; it takes keep_frames=True.

        Connections count from 0, as in GET /status. Raises ControlRefused where no frames are kept, and KeyError
        where that connection never was.
        """
        kept = self._request(f"/frames?connection={connection}")[str(connection)]
        close = kept["close"]
        return Frames(
            kept["path"],
            kept["headers"],
            tuple(
                Frame(each["by"], each["text"] if "text" in each else base64.b64decode(each["binary"]))
                for each in kept["frames"]
            ),
            is_open=kept["open"],
            close=None if close is None else (close["code"], close["reason"]),
        )

    def control(
        self,
        fault: str | Mapping[str, Any] | None = None,
        *,
        connection: int | Literal["all", "next"] | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> list[int | Literal["next"]]:
        """Begins a fault, such as "drop" or {"close": {"code": 1011, "reason": "…"}}; on which connections.

        A lasting fault ends with the value False. connection: as GET /status counts them; None is the usual place,
        every open connection for most faults and the next one for those of the setup. switches: for all that are
        opened from now on. Raises ControlRefused.
        """
        asked: dict[str, Any] = {}
        if fault is not None:
            asked["fault"] = {fault: True} if isinstance(fault, str) else dict(fault)
        if connection is not None:
            asked["connection"] = connection
        if switches is not None:
            asked["switches"] = dict(switches)
        done: list[int | Literal["next"]] = self._request("/control", asked)["connections"]
        return done

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise SimulatorFailed("the simulator is not started: use it with `with` or `async with`")
        return self._process

    def _request(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        self._running()
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._tls:
            handlers.append(urllib.request.HTTPSHandler(context=self.ssl))
        request = urllib.request.Request(  # noqa: S310 - its own address
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=_DEADLINE_S) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ControlRefused(json.load(error)["error"]) from None
        return answer

    # The process

    def start(self) -> None:
        """Returns when it takes connections. Raises SimulatorFailed."""
        if self._directory is not None:
            raise SimulatorFailed("the simulator runs already")
        self._lines = queue.SimpleQueue()
        self._directory = tempfile.TemporaryDirectory(prefix="simulator-")
        directory = Path(self._directory.name)
        self._log_path = directory / "log"
        arguments = ["--host", "127.0.0.1", "--port", "0", *self._arguments, *self._files(directory)]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this Python and this package
                [sys.executable, "-m", "tornado_live.simulator", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=None if self._environment is None else dict(self._environment),
            )
        reading = (self._process, self._lines)
        threading.Thread(target=self._read_lines, args=reading, daemon=True).start()
        try:
            self.first_line = self.next_line()
        except BaseException:
            self.stop()
            raise
        self.port = self.first_line["listening"]["port"]

    def next_line(self, timeout: float = _DEADLINE_S) -> dict[str, Any]:
        """The next JSON line of its standard output, such as {"voice": "ready"}. Raises SimulatorFailed."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise SimulatorFailed(f"the simulator said nothing for {timeout} s") from None
        if not line:
            self.stop()
            raise SimulatorFailed(f"the simulator ended: {self.log}")
        message: dict[str, Any] = json.loads(line)
        return message

    def send_signal(self, number: int) -> None:
        self._running().send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself or by a signal; `log` is what it wrote to standard error."""
        process = self._running()
        try:
            return process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdin is not None:
                process.stdin.close()
            if self._directory is not None:
                self.log = self._log_path.read_text(errors="replace")
                self._directory.cleanup()
                self._directory = None

    def stop(self) -> int:
        """Ends it as the end of its parent would; its exit code."""
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        return self.wait()

    def _files(self, directory: Path) -> list[str]:
        """The options for what it reads: scenario and certificate."""
        options: list[str] = []
        if self._scenario is not None:
            path = self._scenario
            if isinstance(path, str) and path.endswith((".yaml", ".yml")):
                path = Path(path)
            if not isinstance(path, Path):
                text = path if isinstance(path, str) else yaml.safe_dump(dict(path), sort_keys=False)
                path = directory / "scenario.yaml"
                path.write_text(text, encoding="utf-8")
            options += ["--scenario", str(path)]
        if self._tls:
            certificate = certificate_authority().issue_cert("localhost", "127.0.0.1")
            certificate.private_key_pem.write_to_path(directory / "key.pem")
            for block in certificate.cert_chain_pems:
                block.write_to_path(directory / "cert.pem", append=True)
            options += ["--tls-cert", str(directory / "cert.pem"), "--tls-key", str(directory / "key.pem")]
        return options

    def _read_lines(self, process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(b"")

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None and self.log:
            sys.stderr.write(self.log)

    async def __aenter__(self) -> Simulator:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


def _options(given: str | Sequence[str] | Mapping[str, Any]) -> list[str]:
    """NAME=VALUE as the command line takes it; JSON is YAML."""
    if isinstance(given, Mapping):
        return [f"{name}={json.dumps(value)}" for name, value in given.items()]
    return [given] if isinstance(given, str) else list(given)


try:
    import pytest
except ImportError:  # only the fixture needs it
    pass
else:

    def pytest_configure(config: pytest.Config) -> None:
        config.addinivalue_line(
            "markers",
            "gemini_simulator(scenario=None, **options): how the fixture gemini_simulator starts its Simulator",
        )

    @pytest.fixture
    def gemini_simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
        """A Simulator for one test: with TLS and at speed 20, unless its marker says otherwise."""
        marker = request.node.get_closest_marker("gemini_simulator")
        given, more = ((), {}) if marker is None else (marker.args, marker.kwargs)
        options: dict[str, Any] = {"tls": True, "speed": 20.0, **more}
        with Simulator(*given, **options) as simulator:
            yield simulator
