"""The ports: taken by one process, or shared by several, and shown to the person at the terminal."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from tornado.netutil import bind_sockets

from tornado_live.access.authority import Certified
from tornado_live.settings import Settings

Ports: TypeAlias = tuple[int | None, int | None, int | None]
"""Of PORT, WS_PORT and TLS_PORT, None where it is off."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets of PORT, WS_PORT and TLS_PORT, none where it is off."""

    main: Sequence[socket.socket]
    websocket: Sequence[socket.socket]
    tls: Sequence[socket.socket]

    @property
    def plain_ports(self) -> tuple[int, ...]:
        return tuple(_port(listeners) for listeners in (self.main, self.websocket) if listeners)

    @property
    def tls_ports(self) -> tuple[int, ...]:
        return (_port(self.tls),) if self.tls else ()


@contextmanager
def taken(settings: Settings, shared: Ports | None = None) -> Iterator[Listening]:
    """Those of the settings for this process alone, or `shared` ones.

    Raises OSError, with no socket left open.
    """
    ports = _wanted(settings) if shared is None else shared
    with ExitStack() as opened:
        bound: list[list[socket.socket]] = []
        for port in ports:
            sockets = [] if port is None else _bound(port, settings.host, opened, shared=shared is not None)
            bound.append(sockets)
        yield Listening(*bound)


@contextmanager
def reserved(settings: Settings) -> Iterator[Ports]:
    """The ports of processes that are to share them, kept from others by sockets that take no connections.

    Raises OSError.
    """
    with ExitStack() as opened:
        found: list[int | None] = []
        for port in _wanted(settings):
            if port is None:
                found.append(None)
                continue
            with ExitStack() as looking:
                if port:  # alone first: a socket that is to be shared is also given beside another server's
                    _bound(port, settings.host, looking, shared=False)
            with ExitStack() as looking:
                for one in _bound(port, settings.host, looking, shared=True):
                    _keep(one, opened)
                    number = one.getsockname()[1]
            found.append(number)
        main, websocket, tls = found
        yield main, websocket, tls


def _wanted(settings: Settings) -> Ports:
    return settings.port, settings.ws_port, settings.tls_port


def _bound(port: int, host: str, opened: ExitStack, *, shared: bool) -> list[socket.socket]:
    sockets = bind_sockets(port, host, reuse_port=shared)
    for one in sockets:
        opened.callback(one.close)
    return sockets


def _keep(listener: socket.socket, opened: ExitStack) -> None:
    """Holds its address; the kernel gives connections only to sockets that listen."""
    kept = opened.enter_context(socket.socket(listener.family, listener.type))
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if listener.family == socket.AF_INET6:
        kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    kept.bind(listener.getsockname())


def addresses(settings: Settings, listening: Listening, secured: Certified | None) -> list[str]:
    """Where it can be reached, line by line."""
    lines = []
    if listening.main:
        lines.append(f"tornado-live is listening on http://{_shown(settings.host, listening.main)}")
    if listening.websocket:
        address = f"ws://{_shown(settings.host, listening.websocket)}"
        lines.append(f"WebSocket of the original protocol on {address}")
    if listening.tls:
        lines.append(f"The same over TLS on https://{_shown(settings.host, listening.tls)}")
    if secured is not None and secured.authority is not None:
        authority = shlex.quote(str(secured.authority))
        lines += [
            "The certificate is of an authority of this server's own. Programs trust it when started after",
            f"  export SSL_CERT_FILE={authority}    # Python",
            f"  export NODE_EXTRA_CA_CERTS={authority}    # Node",
            f"It signs for {', '.join(secured.names)} only.",
        ]
    return lines


def _port(listeners: Sequence[socket.socket]) -> int:
    port: int = listeners[0].getsockname()[1]
    return port


def _shown(host: str, listeners: Sequence[socket.socket]) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{name}:{_port(listeners)}"
