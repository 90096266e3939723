"""The routes of a server as its router has them, and requests that no client library would send."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import ROOT, Server
from tornado.routing import URLSpec
from tornado.web import Application

from tornado_live.app import _parts, make_app
from tornado_live.handlers.rules import RULES, Rule, of
from tornado_live.observe.logs import Masker
from tornado_live.settings import load_settings

DEADLINE_S = 30.0
QUIET_S = 2.0
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
DROP_IN = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"

NO_MODEL = {"UPSTREAM": "gemini", "GEMINI_API_KEY": "no-real-key", "GEMINI_BASE_URL": "http://127.0.0.1:9"}
"""For servers whose model nobody talks to."""

PUBLIC = frozenset({"health", "ready", "start", "page", "api_nothing", "google_nothing"})
"""What anybody may ask. Whoever makes a further route public writes its name here too."""

PATHS: Mapping[str, str] = {
    "health": "/health",
    "ready": "/health/ready",
    "metrics": "/metrics",
    "openapi": "/openapi.json",
    "sessions": "/api/sessions",
    "session": "/api/sessions/unknown",
    "ticket": "/api/sessions/unknown/token",
    "events": "/api/sessions/unknown/events",
    "calls": "/api/sessions/unknown/calls",
    "tools": "/api/tools",
    "invoke": "/api/tools/get_weather/invoke",
    "auth_tokens": "/v1alpha/auth_tokens",
    "socket": "/ws",
    "socket_alone": "/",
    "drop_in": DROP_IN,
    "google_nothing": "/v1beta/models",
    "api_nothing": "/api/nothing",
    "start": "",
    "page": "/index.html",
}
"""A path of each route."""


@dataclass(frozen=True)
class Route:
    """`path` is one that leads there."""

    name: str
    path: str
    rule: Rule
    spec: URLSpec

    def __str__(self) -> str:
        return self.path


@asynccontextmanager
async def applications(home: Path, **environ: str) -> AsyncIterator[tuple[Application, Application]]:
    """Of `PORT` and of `WS_PORT`, of a server with that environment."""
    settings = load_settings(home=home, config=None, environ=NO_MODEL | environ, overrides={})
    async with _parts(settings, Masker(), time.monotonic(), None) as parts:
        main, alone = (make_app(parts, ports=(3001, 3002), main=is_main) for is_main in (True, False))
        yield main, alone


@asynccontextmanager
async def routers(home: Path, **environ: str) -> AsyncIterator[tuple[Sequence[URLSpec], Sequence[URLSpec]]]:
    """What they serve."""
    async with applications(home, **environ) as (main, alone):
        yield rules_of(main), rules_of(alone)


def rules_of(application: Application) -> Sequence[URLSpec]:
    return [rule for rule in application.wildcard_router.rules if isinstance(rule, URLSpec)]


async def routes(home: Path, base_path: str = "", **environ: str) -> Sequence[Route]:
    """Of `PORT`, each with a path that leads to it and to none before it."""
    found = []
    async with routers(home, **({"BASE_PATH": base_path} if base_path else {}), **environ) as (main, _):
        for spec in main:
            name = of(spec)
            path = PATHS[name]
            if (spec.name or "") != name or name == "start":
                path = base_path + path
            assert leads_to(main, path) is spec, f"{path} does not lead to {spec.name}"
            found.append(Route(spec.name or "", path, RULES[name], spec))
    return found


def leads_to(specs: Sequence[URLSpec], path: str) -> URLSpec | None:
    return next((spec for spec in specs if re.fullmatch(spec.regex, path)), None)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    @property
    def text(self) -> str:
        return (self.head + b"\r\n\r\n" + self.body).decode("latin-1")

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


async def raw(port: int, request: bytes, *, tls: ssl.SSLContext | None = None) -> bytes:
    """Everything that is answered until the other side closes.

    Once something was, or nothing is for a while, it is told that nothing more will be sent.
    """
    name = "localhost" if tls is not None else None
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        try:
            writer.write(request)
            first = b""
            if tls is None:
                with contextlib.suppress(TimeoutError):
                    first = await asyncio.wait_for(reader.read(65536), QUIET_S)
                writer.write_eof()
            return first + await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def asked(
    port: int, method: str, path: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
) -> Answer:
    """One answer to one request, with exactly these headers; the head alone where it is no end (101)."""
    given = dict(headers)
    lines = [f"{method} {path} HTTP/1.1"]
    if "Host" not in given:
        lines.append(f"Host: 127.0.0.1:{port}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            status = int(head.split(b" ", 2)[1])
            answer = Answer(status, head, b"")
            length = int(answer.header("Content-Length") or 0)
            if status in (101, 204, 304) or method == "HEAD" or not length:
                return answer
            return Answer(status, head, await reader.readexactly(length))
        finally:
            writer.close()


def upgrade(*more: tuple[str, str]) -> Sequence[tuple[str, str]]:
    """The headers of a WebSocket's handshake."""
    return (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        *more,
    )


def without(defence: str, *args: str, **how: Any) -> Server:
    """A server in which one defence was replaced by what `defence` does to the modules, before it starts."""
    script = f"{defence}\nimport runpy; runpy.run_module('tornado_live', run_name='__main__', alter_sys=True)"
    return Server(*args, python=(sys.executable,), command=("-c", script, "serve"), **how)


Serving = Callable[..., Server]

__all__ = ["ROOT", "Answer", "Route", "Serving", "asked", "leads_to", "raw", "routers", "routes", "upgrade"]
