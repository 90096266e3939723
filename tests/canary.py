"""Secrets that are planted for the whole run, and the search for them in everything that leaves the server.

A pytest plugin (tests/conftest.py names it). `WATCH` is fed with what clients receive, what processes print, what
stores keep, what metrics say and with which command lines processes run; most of it by hooks on the libraries that
read it, the rest by tests/serving.py, tests/nginx.py and tests/redis_server.py. A find fails the test in which it
was made, and the run; how much was searched is printed at the end of the run.

    CANARIES               what is planted: tests/serving.py puts the first three into every server's environment,
                           tests/talking.py sends the other two where a server does not look at credentials
    WATCH.feed(kind, data) searches bytes
    WATCH.settle()         what was found since the last time
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import html
import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import h11
import pytest
import re2
from tornado import simple_httpclient
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame
from websockets.protocol import Event

GEMINI_KEY = "no-real-key-canary-3vT9kLmX2pQr8sWnB5yJdF7h"
JWT_SECRET = "canary/jwt+Zk4&vRt8%Hq2=Np6~Lw9?Xc3:Gb7;Mf5"
TOOL_SECRET = "canary/tool+Vx7&bKs2%Yd9=Fj4~Wm8?Qh3:Tn6;Rc5"
API_KEY = "tl_canary9k2m4x_Hs8Lq3Zt7Wv2Rb9Nc4Kd6Xf1Jg5Mp0Ty8Ua3Eo7Qi2D"
TICKET = "tlt_canary4Bq8Wz3Xn7Vd2Kf9Rj5Th1Lm6Pc0Sg8Ye4Ua7"

CANARIES: Mapping[str, str] = {
    "Gemini key": GEMINI_KEY,
    "JWT secret": JWT_SECRET,
    "tool secret": TOOL_SECRET,
    "API key": API_KEY,
    "ticket": TICKET,
}

_CLIENTS, _LOG, _PRINTED, _STORE, _METRICS, _ARGV = (
    "clients",
    "log",
    "printed",
    "store",
    "metrics",
    "command lines",
)
KINDS = (_CLIENTS, _LOG, _PRINTED, _STORE, _METRICS, _ARGV)

_SHAPES = {
    "a ticket": rb"\btlt_[\w-]{43}",
    "an API key": rb"\btl_[a-z0-9]{12}_[\w-]{43}",
    "a JSON Web Token": rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
    "an ephemeral token": rb"\bauth_tokens(?:/|%2[Ff])[\w-]{20,}",
}
"""What is a credential by its looks, whoever made it: in these kinds none may be, planted or not."""
_NEVER = frozenset({_LOG, _STORE, _METRICS, _ARGV})

_AT_A_TIME = 1 << 18
_MOST = 1 << 26  # of one file
_AROUND = 40


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """How a secret may show, with a name for each. Two parts of it stand for it, where it was cut."""
    raw = secret.encode()
    yield "raw", raw
    yield "cut before its end", raw[-31:-15]
    yield "cut after its beginning", raw[-16:]
    yield "reversed", raw[::-1]
    yield "hex", raw.hex().encode()
    yield "hex in capitals", raw.hex().upper().encode()
    yield "in JSON", json.dumps(secret)[1:-1].encode()
    yield "in HTML", html.escape(secret).encode()
    for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        for before in range(3):
            # Of the first and the last characters some bits are the neighbours'.
            first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            yield f"{name} after {before} bytes", encode(bytes(before) + raw + bytes(2))[first:last]
    yield "URL-encoded", quote(secret, safe="").encode()
    yield "URL-encoded but for slashes", quote(secret).encode()
    yield (
        "URL-encoded in small letters",
        re.sub("%..", lambda at: at[0].lower(), quote(secret, safe="")).encode(),
    )
    yield "URL-encoded twice", quote(quote(secret, safe=""), safe="").encode()
    yield "URL-encoded, all of it", b"".join(b"%%%02X" % byte for byte in raw)
    yield "URL-encoded, all of it, in small letters", b"".join(b"%%%02x" % byte for byte in raw)


@dataclass(frozen=True, slots=True)
class Find:
    """Never shows what was found: only what it was, how, and where."""

    kind: str
    what: str
    form: str
    test: str
    around: str


class Searcher:
    """Finds `secrets` in streams of bytes. From any thread; what is fed is searched at the latest by `settle`."""

    def __init__(self, secrets: Mapping[str, str] = CANARIES, shapes: Mapping[str, bytes] = _SHAPES) -> None:
        self.searched: Counter[str] = Counter()
        self.finds: list[Find] = []
        self.test = "before the first test"
        needles: dict[bytes, tuple[str, str]] = {}
        for name, secret in secrets.items():
            for form, needle in forms(secret):
                needles.setdefault(needle, (name, form))
        self._needles = needles
        self._longest = max(map(len, needles))
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.never_capture = True
        self._planted = re2.compile(b"|".join(map(re2.escape, needles)), options)
        self._shapes = dict(shapes)
        self._shaped = re2.compile(b"|".join(shapes.values()), options)
        self._lock = threading.Lock()
        self._waiting: dict[str, bytearray] = {}
        self._begun: Counter[str] = Counter()
        self._told = 0

    def feed(self, kind: str, data: bytes | str) -> None:
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        with self._lock:
            waiting = self._waiting.setdefault(kind, bytearray())
            waiting += data
            self.searched[kind] += len(data)
            if len(waiting) < _AT_A_TIME:
                return
            found = bytes(waiting)
            # What ends in the middle of a secret goes on with what comes next.
            del waiting[: len(waiting) - self._longest]
        self._search(kind, found)

    def files(self, kind: str, folder: Path) -> None:
        """Every file below a folder, by itself."""
        for path in sorted(folder.rglob("*")):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as file:
                        data = file.read(_MOST)
                    self.searched[kind] += len(data)
                    self._search(kind, data)

    def processes(self, pid: int) -> None:
        """The command lines of a process and of all that it started, as everybody on the machine sees them."""
        with contextlib.suppress(OSError):
            self.feed(_ARGV, Path(f"/proc/{pid}/cmdline").read_bytes() + b"\n")
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    self.processes(int(child))

    def settle(self) -> Sequence[Find]:
        """Searches what waits, and tells what was found since it was asked last."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for kind, data in waiting.items():
            self._search(kind, bytes(data))
        with self._lock:
            new, self._told = self.finds[self._told :], len(self.finds)
        return new

    def _search(self, kind: str, data: bytes) -> None:
        if self._planted.search(data) is not None:
            whole = set()
            for needle, (name, form) in self._needles.items():
                if name not in whole and (at := data.find(needle)) >= 0:
                    self._found(kind, name, form, data, at, len(needle))
                    whole |= {name} if form == "raw" else set()
        if kind in _NEVER and self._shaped.search(data) is not None:
            for name, shape in self._shapes.items():
                for found in re.finditer(shape, data):
                    if self._planted.search(found[0]) is None:
                        self._found(kind, name, "by its looks", data, found.start(), len(found[0]))

    def _found(self, kind: str, what: str, form: str, data: bytes, at: int, length: int) -> None:
        around = data[max(0, at - _AROUND) : at] + b"[HERE]" + data[at + length : at + length + _AROUND]
        find = Find(kind, what, form, self.test, around.decode("latin-1").encode("unicode_escape").decode())
        with self._lock:
            if not any(
                (one.kind, one.what, one.form, one.test) == (kind, what, form, self.test)
                for one in self.finds[self._told :]
            ):
                self.finds.append(find)


WATCH = Searcher()

_planted: set[int] = set()
"""Ports of servers that know the canaries and let in whoever comes."""


def environment(given: Mapping[str, str], args: Sequence[str], home: Path) -> Mapping[str, str]:
    """What a server's environment gets beside what its test gives it. The upstream stays what it would be."""
    more = {"TOOL_SECRET": TOOL_SECRET}
    if not any(name.startswith("AUTH__") for name in given) and "auth." not in " ".join(args):
        more["AUTH__JWT_SECRET"] = JWT_SECRET
    if not {"GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"} & set(given):
        chosen = "UPSTREAM" in given or "GEMINI_BASE_URL" in given or "--upstream" in args
        configured = (
            (home / ".env").exists() or (home / "config").exists() or {"--config", "--set"} & set(args)
        )
        if chosen or not configured:
            more["GEMINI_API_KEY"] = GEMINI_KEY
            if not chosen:
                more["UPSTREAM"] = "simulator"
    return more


def serves(environ: Mapping[str, str], *ports: int | None) -> None:
    """A server with that environment listens at those ports."""
    _planted.difference_update(port for port in ports if port is not None)
    if environ.get("AUTH__JWT_SECRET") == JWT_SECRET:
        _planted.update(port for port in ports if port is not None)


def credentials(url: str) -> Mapping[str, str]:
    """Headers for a server that does not look at them, and so has no reason to repeat them either."""
    if urlsplit(url).port not in _planted:
        return {}
    return {
        "Authorization": f"Bearer {API_KEY}",
        "Referer": f"http://127.0.0.1/?token={TICKET}",
    }


def _wrapped(owner: Any, name: str, then: Callable[..., None]) -> None:
    """`then` is given what the method is given, before it."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        then(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    setattr(owner, name, wrapper)


def _received(connection: Any, data: bytes) -> None:
    # A page of metrics is a kind of its own: it tells of everybody to somebody else.
    WATCH.feed(_METRICS if b"\n# TYPE tornado_live_" in data else _CLIENTS, data)


def _happened(connection: ClientConnection, event: Event) -> None:
    """A frame as it is read, after any decompression, or the answer to the handshake."""
    WATCH.feed(_CLIENTS, event.data if isinstance(event, Frame) else event.serialize())


def _received_by_client(connection: h11.Connection, data: bytes) -> None:
    if connection.our_role is h11.CLIENT:
        _received(connection, data)


def _headed(connection: Any, start: Any, headers: Any) -> None:
    WATCH.feed(_CLIENTS, f"{start}\n{headers}\n")


def _hear() -> None:
    """Listens wherever a test process reads what somebody answers or prints."""
    _wrapped(ClientConnection, "process_event", _happened)
    _wrapped(h11.Connection, "receive_data", _received_by_client)
    _wrapped(simple_httpclient._HTTPConnection, "data_received", _received)
    _wrapped(simple_httpclient._HTTPConnection, "headers_received", _headed)

    open_connection = asyncio.open_connection

    @functools.wraps(open_connection)
    async def opened(*args: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await open_connection(*args, **kwargs)
        feed_data = reader.feed_data

        def fed(data: bytes) -> None:
            WATCH.feed(_CLIENTS, bytes(data))
            feed_data(data)

        reader.feed_data = fed  # type: ignore[method-assign]
        return reader, writer

    asyncio.open_connection = opened

    communicate, communicate_later = subprocess.Popen.communicate, asyncio.subprocess.Process.communicate

    @functools.wraps(communicate)
    def printed(self: Any, *args: Any, **kwargs: Any) -> Any:
        said = communicate(self, *args, **kwargs)
        for part in filter(None, said):
            WATCH.feed(_PRINTED, part)
        return said

    @functools.wraps(communicate_later)
    async def printed_later(self: Any, *args: Any, **kwargs: Any) -> Any:
        said = await communicate_later(self, *args, **kwargs)
        for part in filter(None, said):
            WATCH.feed(_PRINTED, part)
        return said

    subprocess.Popen.communicate = printed  # type: ignore[method-assign]
    asyncio.subprocess.Process.communicate = printed_later  # type: ignore[method-assign]


def told(find: Find | Mapping[str, str]) -> str:
    one = find if isinstance(find, Find) else Find(**find)
    return f"{one.what}, {one.form}, in {one.kind}, while {one.test}: {one.around}"


class Canary:
    """The plugin. Of several workers each searches what it saw, and the one that started them adds it up."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.searched: Counter[str] = Counter()
        self.finds: list[Mapping[str, str]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        WATCH.test = item.nodeid
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Outermost, so that what fixtures of the test end has been fed."""
        yield
        for _, _, text in item._report_sections:
            WATCH.feed(_PRINTED, text)
        if found := WATCH.settle():
            pytest.fail("a planted secret leaked:\n" + "\n".join(map(told, found)), pytrace=False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output = getattr(node, "workeroutput", {}).get("canary")
        if output is not None:
            self._add(output)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        WATCH.settle()
        own = {"searched": dict(WATCH.searched), "finds": [asdict(find) for find in WATCH.finds]}
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["canary"] = own
            return
        self._add(own)
        if self.finds:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.searched:
            return
        sizes = ", ".join(f"{kind} {self.searched[kind]:,}" for kind in KINDS if self.searched[kind])
        terminalreporter.write_line(
            f"canary: {len(self.finds)} finds in bytes of {sizes}", bold=bool(self.finds)
        )
        for find in self.finds:
            terminalreporter.write_line(f"canary: {told(find)}", red=True)

    def _add(self, seen: Mapping[str, Any]) -> None:
        self.searched.update(seen["searched"])
        self.finds.extend(seen["finds"])


def pytest_configure(config: pytest.Config) -> None:
    _hear()
    config.pluginmanager.register(Canary(config), "canary-watch")
