"""A Tornado WebSocketHandler whose frames are a peer's: the handshake, and what handler code may rely on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tornado
import websockets
from peering import (
    DEADLINE_S,
    Certificates,
    Far,
    Recorder,
    raw_connection,
    serving,
    upgrade,
)
from tornado.iostream import IOStream
from tornado.websocket import WebSocketHandler, WebSocketProtocol
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from tornado_live.live.peer import PeerOptions, TornadoPeerProtocol, WebSocketPeer, dial

OPTIONS = PeerOptions(max_size=100_000, ping_interval=None, close_timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def used(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    return certificates if request.param else None


class Echo(Recorder):
    def __init__(self, peer: WebSocketPeer) -> None:
        super().__init__()
        self.peer = peer

    def on_message(self, data: bytes, binary: bool) -> None:
        super().on_message(data, binary)
        (self.peer.send_binary if binary else self.peer.send_text)(data)


class Told(list[Any]):
    """What a handler was called with, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def append(self, entry: Any) -> None:
        super().append(entry)
        self._changed.set()

    async def until(self, condition: Callable[[list[Any]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class EchoHandler(WebSocketHandler):
    ws_connection: TornadoPeerProtocol

    def initialize(self, told: Told | None = None) -> None:
        self.told = Told() if told is None else told

    def get_websocket_protocol(self) -> TornadoPeerProtocol | None:
        return TornadoPeerProtocol.of(self, OPTIONS)

    def open(self) -> None:
        peer = self.ws_connection.peer
        peer.attach(Echo(peer))
        self.told.append("open")

    def on_close(self) -> None:
        self.told.append(("close", self.close_code, self.close_reason))


async def accepted(far: Far, *extra: str) -> bytes:
    await far.send(upgrade(*extra))
    return await far.reader.readuntil(b"\r\n\r\n")


async def test_a_real_client_talks_and_parts(used: Certificates | None) -> None:
    told = Told()
    async with serving(EchoHandler, {"told": told}, used) as port:
        url = f"{'wss' if used else 'ws'}://127.0.0.1:{port}/"
        async with connect(url, ssl=used.client if used else None) as client:
            assert client.protocol.extensions == [], "compression was offered and not taken"
            for message in ("grüß", b"\x00", "", "x" * 70_000):
                await client.send(message)
                assert await client.recv() == message
            await client.close(4001, "enough")
        await told.until(lambda told: len(told) == 2)
        assert told == ["open", ("close", 4001, "enough")]


async def test_the_client_gets_the_handshake_of_the_rfc() -> None:
    async with serving(EchoHandler) as port, raw_connection(port) as far:
        lines = (await accepted(far)).decode().split("\r\n")
        assert lines == [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "",
            "",
        ]


async def test_frames_in_the_segment_of_the_request_are_not_lost(used: Certificates | None) -> None:
    async with serving(EchoHandler, None, used) as port, raw_connection(port, used) as far:
        texts = [f"early {number}" for number in range(2000)]
        await far.send(upgrade(), *map(far.text, texts))
        await far.reader.readuntil(b"\r\n\r\n")
        for text in texts:
            assert await far.receive() == (Opcode.TEXT, text.encode())


async def test_frames_sent_while_open_is_running_are_kept_in_order(used: Certificates | None) -> None:
    class Slow(EchoHandler):
        async def open(self) -> None:
            opening.set()
            await go_on.wait()
            super().open()

    opening, go_on = asyncio.Event(), asyncio.Event()
    async with serving(Slow, None, used) as port, raw_connection(port, used) as far:
        two = far.text("two")
        await far.send(upgrade(), far.text("one"), two[:3])
        await opening.wait()
        await far.send(two[3:])
        await far.send(far.text("three"))
        for _ in range(20):
            await asyncio.sleep(0)
        go_on.set()
        assert (await far.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        for text in (b"one", b"two", b"three"):
            assert await far.receive() == (Opcode.TEXT, text)


async def test_twenty_connections_at_once_lose_nothing(used: Certificates | None) -> None:
    async with serving(EchoHandler, None, used) as port:

        async def talk(number: int) -> list[str]:
            peer = await dial(
                f"{'wss' if used else 'ws'}://127.0.0.1:{port}/", ssl_context=used.client if used else None
            )
            seen = Recorder()
            peer.attach(seen)
            for count in range(50):
                peer.send_text(f"{number}/{count}")
            await seen.until(lambda seen: len(seen.messages) == 50)
            peer.close()
            await seen.until_closed()
            return seen.texts

        async with asyncio.TaskGroup() as tasks:
            talks = [tasks.create_task(talk(number)) for number in range(20)]
        for number, done in enumerate(talks):
            assert done.result() == [f"{number}/{count}" for count in range(50)]


async def test_what_open_sends_follows_the_handshake(used: Certificates | None) -> None:
    class Greeting(EchoHandler):
        def open(self) -> None:
            self.write_message("hello")
            self.write_message({"a": 1})
            self.write_message(b"\x00", binary=True)
            self.ping(b"there?")

    async with serving(Greeting, None, used) as port, raw_connection(port, used) as far:
        assert (await accepted(far)).startswith(b"HTTP/1.1 101")
        assert await far.receive() == (Opcode.TEXT, b"hello")
        assert await far.receive() == (Opcode.TEXT, b'{"a": 1}')
        assert await far.receive() == (Opcode.BINARY, b"\x00")
        assert await far.receive() == (Opcode.PING, b"there?")


async def test_closing_in_open_reaches_the_client_with_its_code(used: Certificates | None) -> None:
    class Refusing(EchoHandler):
        def open(self) -> None:
            self.write_message("why")
            self.close(4401, "no ticket")
            self.close(4401, "no ticket")

    told = Told()
    async with serving(Refusing, {"told": told}, used) as port:
        url = f"{'wss' if used else 'ws'}://127.0.0.1:{port}/"
        async with connect(url, ssl=used.client if used else None) as client:
            assert await client.recv() == "why"
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "no ticket")
        await told.until(bool)
        assert told == [("close", 4401, "no ticket")]


async def test_an_open_that_raises_gives_no_connection(used: Certificates | None) -> None:
    class Broken(EchoHandler):
        def open(self) -> None:
            raise LookupError("a bug")

        def log_exception(self, *error: Any) -> None:
            self.told.append(error[0])

    told = Told()
    async with serving(Broken, {"told": told}, used) as port, raw_connection(port, used) as far:
        await far.send(upgrade())
        await far.until_end()
        await told.until(lambda told: len(told) == 2)
        assert told == [LookupError, ("close", 1006, "the connection was aborted")]


async def test_a_client_that_leaves_while_open_is_running_is_told(used: Certificates | None) -> None:
    class Slow(EchoHandler):
        async def open(self) -> None:
            super().open()
            opening.set()
            await go_on.wait()

    told = Told()
    opening, go_on = asyncio.Event(), asyncio.Event()
    async with serving(Slow, {"told": told}, used) as port:
        async with raw_connection(port, used) as far:
            await far.send(upgrade())
            await opening.wait()
            far.reset()
        await told.until(lambda told: len(told) == 2)
        assert told[1][:2] == ("close", 1006)
        go_on.set()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_client_that_leaves_before_open_is_none(used: Certificates | None) -> None:
    class Slow(EchoHandler):
        async def prepare(self) -> None:
            self.told.append("prepare")
            await gone.wait()

        def on_connection_close(self) -> None:
            gone.set()
            super().on_connection_close()

        def on_finish(self) -> None:
            self.told.append("finish")

        def log_exception(self, *error: Any) -> None:
            self.told.append(error)

    told = Told()
    gone = asyncio.Event()
    async with serving(Slow, {"told": told}, used) as port:
        async with raw_connection(port, used) as far:
            await far.send(upgrade())
            await told.until(lambda told: bool(told))
            far.reset()
        await gone.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert [entry for entry in told if entry not in ("prepare", "finish")] == [("close", None, None)]


async def test_select_subprotocol_decides_what_is_answered(used: Certificates | None) -> None:
    class Choosing(EchoHandler):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            self.told.append(subprotocols)
            return "tornado-live" if "tornado-live" in subprotocols else None

        def open(self) -> None:
            self.told.append(self.selected_subprotocol)

    told = Told()
    async with serving(Choosing, {"told": told}, used) as port:
        async with raw_connection(port, used) as far:
            head = await accepted(far, "Sec-WebSocket-Protocol: tornado-live, bearer.abc")
            assert b"\r\nSec-WebSocket-Protocol: tornado-live\r\n" in head
        async with raw_connection(port, used) as far:
            assert b"Sec-WebSocket-Protocol" not in await accepted(far)
    offered_and_chosen = [entry for entry in told if not isinstance(entry, tuple)]
    assert offered_and_chosen == [["tornado-live", "bearer.abc"], "tornado-live", [], None]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (upgrade("Origin: http://evil.example"), b"403"),
        (upgrade(version="8"), b"426"),
        (upgrade(key=None), b"400"),
        (upgrade().replace(b"Upgrade: websocket\r\n", b""), b"400"),
    ],
    ids=["foreign origin", "old version", "no key", "no upgrade"],
)
async def test_a_handshake_that_is_none_is_refused_over_http(
    used: Certificates | None, request_head: bytes, status: bytes
) -> None:
    told = Told()
    async with serving(EchoHandler, {"told": told}, used) as port, raw_connection(port, used) as far:
        await far.send(request_head)
        assert (await far.reader.readuntil(b"\r\n\r\n")).split(b" ")[1] == status
    assert told == []


async def test_prepare_may_refuse_over_http(used: Certificates | None) -> None:
    class Full(EchoHandler):
        async def prepare(self) -> None:
            await asyncio.sleep(0)
            self.set_status(503)
            self.finish({"code": "unavailable"})

    async with serving(Full, None, used) as port, raw_connection(port, used) as far:
        head = await accepted(far)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert await far.reader.readexactly(23) == b'{"code": "unavailable"}'


async def test_the_limit_is_that_of_the_options(used: Certificates | None) -> None:
    async with serving(EchoHandler, None, used) as port, raw_connection(port, used) as far:
        await accepted(far)
        await far.send(far.frame(Opcode.BINARY, b"x" * 100_001))
        assert (await far.receive_close())[0] == 1009


async def test_megabytes_before_the_handshake_is_over_are_cut() -> None:
    told = Told()
    async with serving(EchoHandler, {"told": told}) as port, raw_connection(port) as far:
        far.writer.write(upgrade() + far.frame(Opcode.BINARY, b"x" * 60_000) * 700)
        await far.until_end()
    assert told == []


async def test_megabytes_while_open_is_running_wait_in_the_kernel(used: Certificates | None) -> None:
    class Slow(EchoHandler):
        async def open(self) -> None:
            opened.put_nowait(self.ws_connection.peer)
            await go_on.wait()

    opened: asyncio.Queue[WebSocketPeer] = asyncio.Queue()
    go_on = asyncio.Event()
    async with serving(Slow, None, used) as port, raw_connection(port, used) as far:
        await far.send(upgrade())
        peer = await opened.get()
        far.writer.write(far.frame(Opcode.BINARY, b"x" * 60_000) * 700)
        for _ in range(300):
            await asyncio.sleep(0)
        assert 0 < len(peer._backlog) <= 512 * 1024
        peer.abort()
        go_on.set()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_asyncios_own_loop_serves_as_well(certificates: Certificates, tls: bool) -> None:
    """uvloop does not exist on Windows."""
    used = certificates if tls else None

    async def talk() -> list[str]:
        async with serving(EchoHandler, None, used) as port:
            peer = await dial(
                f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/", ssl_context=used.client if used else None
            )
            seen = Recorder()
            peer.attach(seen)
            for count in range(100):
                peer.send_text(f"{count} " + "x" * 3000)
            await seen.until(lambda seen: len(seen.messages) == 100)
            peer.close(4000, "done")
            assert await seen.until_closed() == (4000, "done")
            return [text.split()[0] for text in seen.texts]

    result: list[list[str]] = []

    def run() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            result.append(runner.run(talk()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE_S)
    assert result == [[str(count) for count in range(100)]]


async def test_the_seam_of_tornado_is_the_one_we_know() -> None:
    """`WebSocketProtocol` has private abstract methods: a new Tornado must be looked at before it is taken."""
    assert tornado.version_info[:2] == (6, 6)
    assert WebSocketProtocol.__abstractmethods__ == {
        "_process_server_headers",
        "_receive_frame_loop",
        "accept_connection",
        "close",
        "is_closing",
        "selected_subprotocol",
        "set_nodelay",
        "start_pinging",
        "write_message",
        "write_ping",
    }
    assert TornadoPeerProtocol.__abstractmethods__ == frozenset()
    for name in ("_abort", "on_connection_close"):
        assert callable(getattr(WebSocketProtocol, name))
    for name in ("detach", "on_ws_connection_close", "get_websocket_protocol", "select_subprotocol"):
        assert callable(getattr(WebSocketHandler, name))
    assert IOStream.__mro__[1].__name__ == "BaseIOStream", "the type that says a socket can be handed over"
