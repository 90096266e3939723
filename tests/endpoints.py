"""Servers for calls over HTTP: those that answer, and those that must never be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

Answer = Callable[[RequestHandler], Any]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Recorded(RequestHandler):
    def initialize(self, answer: Answer, seen: list[Any]) -> None:
        self.answer = answer
        self.seen = seen

    async def prepare(self) -> None:
        self.seen.append(self.request)
        result = self.answer(self)
        if result is not None:
            await result
        if not self._finished:
            self.finish()


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[Any]]]:
    """A server on 127.0.0.1 that records requests; its port and the requests."""
    seen: list[Any] = []
    socket, port = bind_unused_port()
    server = HTTPServer(Application([(".*", Recorded, {"answer": answer, "seen": seen})]), ssl_options=tls)
    server.add_sockets([socket])
    try:
        yield port, seen
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def talking(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that does with each connection what `talk` does; its port."""

    lines: set[asyncio.Task[Any]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # its end, or that of the test
        finally:
            writer.close()
            lines.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines)
        await server.wait_closed()


@asynccontextmanager
async def speaking(reply: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """A server that reads a request and then writes whatever bytes `reply` writes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reply(writer)

    async with talking(talk) as port:
        yield port


class Canary:
    """A listener on every address of this machine, which nobody may reach."""

    port: int

    def __init__(self) -> None:
        self._accepted = 0
        self._own = 0

    async def visits(self) -> int:
        """How many connections have been opened to it."""
        # Connections are accepted in their order, so after one of its own it has seen all that came before.
        self._own += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        await reader.read()
        writer.close()
        return self._accepted - self._own

    def _noted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        writer.close()

    async def __aenter__(self) -> Canary:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listening = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._noted, sock=listening)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        await self._server.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with RST."""
    line: socket.socket = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Elsewhere(httpcore.AnyIOBackend):
    """A network in which each address is a server of the test: `opened` is what was connected to."""

    def __init__(self, servers: Mapping[str, int] | int) -> None:
        self.servers = servers
        self.opened: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.opened.append((host, port))
        there = self.servers if isinstance(self.servers, int) else self.servers[host]
        return await super().connect_tcp("127.0.0.1", there, timeout, local_address, socket_options)


def names(**addresses: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that knows `<name>.example` for each name."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses[host.removesuffix(".example")]

    return resolve
