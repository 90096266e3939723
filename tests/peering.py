"""Both ends of a WebSocket for the peer's tests: a peer in either role, and a raw socket that speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import trustme
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key, apply_mask

from tornado_live.live.peer import PeerOptions, TornadoPeerProtocol, WebSocketPeer, dial

DEADLINE_S = 30.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@dataclass(frozen=True)
class Place:
    """Where the peer under test stands: its role, and TLS or not (on the server side: IOStream or transport)."""

    role: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.role}-{'tls' if self.tls else 'plain'}"


PLACES = [Place(role, tls) for role in ("server", "client") for tls in (False, True)]


class Certificates:
    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


class Recorder:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bool]] = []
        self.closed: list[tuple[int, str]] = []
        self.writable: list[bool] = []
        self._changed = asyncio.Event()

    def on_message(self, data: bytes, binary: bool) -> None:
        self.messages.append((data, binary))
        self._changed.set()

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
        self._changed.set()

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)
        self._changed.set()

    @property
    def texts(self) -> list[str]:
        return [data.decode() for data, binary in self.messages if not binary]

    async def until(self, condition: Callable[[Recorder], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_closed(self) -> tuple[int, str]:
        await self.until(lambda seen: bool(seen.closed))
        await asyncio.sleep(0)  # a second call would come in the same turn or the next
        assert len(self.closed) == 1
        return self.closed[0]


@dataclass
class Far:
    """The other end: a raw byte stream after the handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    masks: bool

    def frame(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
        return Frame(opcode, data, fin).serialize(mask=self.masks)

    def text(self, text: str) -> bytes:
        return self.frame(Opcode.TEXT, text.encode())

    def closing(self, code: int, reason: str = "") -> bytes:
        return self.frame(Opcode.CLOSE, struct.pack("!H", code) + reason.encode())

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def receive(self) -> tuple[Opcode, bytes]:
        """One unfragmented frame."""
        async with asyncio.timeout(DEADLINE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "one whole frame without extension bits"
            assert bool(second & 0x80) is not self.masks, "only a client masks"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            mask = b"" if self.masks else await self.reader.readexactly(4)
            data = await self.reader.readexactly(size)
        if mask:
            data = apply_mask(data, mask)
        return Opcode(first & 0x0F), data

    async def receive_close(self) -> tuple[int, str]:
        while True:
            opcode, data = await self.receive()
            if opcode is Opcode.CLOSE:
                return (struct.unpack("!H", data[:2])[0] if data else 1005), data[2:].decode()

    async def until_end(self) -> None:
        """Read until the peer has ended the connection, by a FIN or a reset."""
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass

    def reset(self) -> None:
        """End by RST, as a crashed machine's kernel does."""
        duplicate = self.writer.get_extra_info("socket").dup()
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        duplicate.close()
        self.writer.transport.abort()


class _Handler(WebSocketHandler):
    def initialize(self, options: PeerOptions, opened: asyncio.Queue[WebSocketPeer]) -> None:
        self.options = options
        self.opened = opened

    def get_websocket_protocol(self) -> TornadoPeerProtocol | None:
        return TornadoPeerProtocol.of(self, self.options)

    def open(self) -> None:
        self.opened.put_nowait(self.ws_connection.peer)


@contextlib.asynccontextmanager
async def serving(
    handler: type[WebSocketHandler],
    arguments: dict[str, object] | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[int]:
    """A Tornado server with `handler` at /; gives its port."""
    protocols: weakref.WeakSet[TornadoPeerProtocol] = weakref.WeakSet()

    class Remembered(handler):  # type: ignore[misc, valid-type]
        def get_websocket_protocol(self) -> TornadoPeerProtocol | None:
            protocol = super().get_websocket_protocol()
            if protocol is not None:
                protocols.add(protocol)
            return protocol

    application = Application([("/", Remembered, arguments or {})], log_function=lambda _: None)
    server = HTTPServer(application, ssl_options=certificates.server if certificates else None)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()
        for peer in [protocol.peer for protocol in protocols if hasattr(protocol, "peer")]:
            peer.abort()
            last = Recorder()
            peer.attach(last)
            if peer.remote_address is not None and peer.close_code is None:
                await last.until_closed()


@contextlib.asynccontextmanager
async def raw_connection(port: int, certificates: Certificates | None = None) -> AsyncIterator[Far]:
    """A client's TCP or TLS connection; the handshake is up to the test."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=certificates.client if certificates else None
    )
    try:
        yield Far(reader, writer, masks=True)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def upgrade(*extra: str, key: str | None = KEY, version: str = "13") -> bytes:
    lines = ["GET / HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}"] if key else []
    return "\r\n".join([*lines, f"Sec-WebSocket-Version: {version}", *extra, "", ""]).encode()


@dataclass
class RawServer:
    port: int
    url: str
    arrivals: asyncio.Queue[tuple[Far, bytes]] = field(default_factory=asyncio.Queue)


@contextlib.asynccontextmanager
async def raw_server(certificates: Certificates | None = None) -> AsyncIterator[RawServer]:
    """A server that reads each client's request head and leaves the rest to the test."""
    fars: list[Far] = []
    server_info = RawServer(0, "")

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = Far(reader, writer, masks=False)
        fars.append(far)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        server_info.arrivals.put_nowait((far, head))

    server = await asyncio.start_server(
        arrived, "127.0.0.1", 0, ssl=certificates.server if certificates else None
    )
    server_info.port = server.sockets[0].getsockname()[1]
    server_info.url = f"{'wss' if certificates else 'ws'}://127.0.0.1:{server_info.port}/"
    try:
        yield server_info
    finally:
        # A connection that the kernel has taken becomes one of `fars` some turns of the loop later; a server that
        # closes in between leaves its transport open.
        for _ in range(5):
            await asyncio.sleep(0)
        server.close()
        for far in fars:
            far.writer.transport.abort()
        for far in fars:
            with contextlib.suppress(OSError):
                await far.writer.wait_closed()
        await server.wait_closed()


def switching(head: bytes) -> bytes:
    """The 101 that answers the request `head`."""
    key = next(
        line.split(b":")[1].strip().decode()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


@contextlib.asynccontextmanager
async def connected(
    place: Place, certificates: Certificates, options: PeerOptions | None = None, *, attach: bool = True
) -> AsyncIterator[tuple[WebSocketPeer, Recorder, Far]]:
    """A peer at `place`, its listener, and the raw other end."""
    options = options or PeerOptions()
    recorder = Recorder()
    used = certificates if place.tls else None
    async with contextlib.AsyncExitStack() as stack:
        if place.role == "server":
            opened: asyncio.Queue[WebSocketPeer] = asyncio.Queue()
            port = await stack.enter_async_context(
                serving(_Handler, {"options": options, "opened": opened}, used)
            )
            far = await stack.enter_async_context(raw_connection(port, used))
            await far.send(upgrade())
            assert (await far.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            peer = await opened.get()
        else:
            server = await stack.enter_async_context(raw_server(used))
            dialing = asyncio.get_running_loop().create_task(
                dial(
                    server.url,
                    ssl_context=certificates.client if place.tls else None,
                    max_size=options.max_size,
                    ping_interval=options.ping_interval,
                    ping_timeout=options.ping_timeout,
                    close_timeout=options.close_timeout,
                    high_water=options.high_water,
                )
            )
            far, head = await server.arrivals.get()
            await far.send(switching(head))
            peer = await dialing
        if attach:
            peer.attach(recorder)
        try:
            yield peer, recorder, far
        finally:
            gone = peer.close_code is not None
            if not gone and attach:
                peer.abort()
                await recorder.until_closed()
