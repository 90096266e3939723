"""What carries the bytes of a WebSocketPeer: an asyncio transport, or a Tornado IOStream that speaks like one.

Both call the peer as asyncio calls a protocol (`connection_made`, `data_received`, `eof_received`,
`connection_lost`, `pause_writing`, `resume_writing`), so a peer on a plain socket has nothing between
itself and the transport.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol, cast

from tornado.iostream import IOStream, StreamClosedError

_READ_SIZE = 65536


class Carrier(Protocol):
    """The part of `asyncio.Transport` that a peer uses; every asyncio stream transport is one."""

    def write(self, data: bytes, /) -> None:
        """Send `data` after all that was written before; never blocks."""

    def close(self) -> None:
        """Send what was written, then close; `connection_lost` follows."""

    def abort(self) -> None:
        """Close now and drop what was not sent; `connection_lost` follows."""

    def can_write_eof(self) -> bool:
        """Whether the sending half can be closed alone (not under TLS)."""

    def write_eof(self) -> None:
        """Close the sending half once everything written has been sent."""

    def pause_reading(self) -> None:
        """No more `data_received` until `resume_reading`; may be called twice."""

    def resume_reading(self) -> None:
        """The opposite of `pause_reading`; may be called twice."""

    def get_write_buffer_size(self) -> int:
        """Bytes written and not yet taken by the kernel."""

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        """`pause_writing` is called above `high` bytes, `resume_writing` at a quarter of it."""

    def get_extra_info(self, name: str) -> object:
        """`"peername"`: the remote address; `"socket"`."""


class IOStreamCarrier:
    """A Tornado IOStream as a Carrier, for listeners that cannot hand their socket over (TLS).

    Costs about 1.7 times an asyncio transport: each read and write is a Future. Calls `connection_made`
    at once and starts reading with it.
    """

    def __init__(self, stream: IOStream, protocol: asyncio.Protocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._peername: object = None
        try:
            self._peername = stream.socket.getpeername()
        except OSError:
            pass  # already cut: reading says so at once
        self._high_water = 65536
        self._queued = 0
        self._over = False
        self._closing = False
        self._lost = False
        self._paused = False
        self._reading = False
        self._kept = b""
        stream.set_nodelay(True)
        stream.set_close_callback(self._stream_closed)
        # A stock transport has this type's methods and a few more that no peer calls.
        protocol.connection_made(self)  # type: ignore[arg-type]
        self._read()

    def write(self, data: bytes) -> None:
        if self._closing or self._stream.closed():
            return
        sent = self._stream.write(data)
        if sent.done():
            return
        self._queued += len(data)
        sent.add_done_callback(partial(self._sent, len(data)))
        if not self._over and self._queued > self._high_water:
            self._over = True
            self._protocol.pause_writing()

    def _sent(self, size: int, sent: asyncio.Future[None]) -> None:
        self._queued -= size
        if (
            self._over
            and not self._lost
            and sent.exception() is None
            and self._queued <= self._high_water // 4
        ):
            self._over = False
            self._protocol.resume_writing()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._stream.closed():
            self.abort()
        else:
            # An empty write is done when all before it are; the stream's own close() would drop them.
            self._stream.write(b"").add_done_callback(lambda _: self.abort())

    def abort(self) -> None:
        self._closing = True
        self._stream.close()
        # The stream's close callback may have come long ago, while reading was paused.
        asyncio.get_running_loop().call_soon(self._end)

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("an IOStream closes both halves at once")

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        # Not from within the caller: a protocol is never called back by a method it calls.
        asyncio.get_running_loop().call_soon(self._resume)

    def get_write_buffer_size(self) -> int:
        return self._queued

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        self._high_water = 65536 if high is None else high

    def get_extra_info(self, name: str) -> object:
        return {"peername": self._peername, "socket": self._stream.socket}.get(name)

    def _read(self) -> None:
        if self._paused or self._reading or self._closing or self._lost:
            return
        try:
            arrival = cast("asyncio.Future[bytes]", self._stream.read_bytes(_READ_SIZE, partial=True))
        except StreamClosedError:
            self._end()
            return
        self._reading = True
        # A done future calls back in the loop's next turn: one peer cannot keep the loop to itself.
        arrival.add_done_callback(self._arrived)

    def _arrived(self, arrival: asyncio.Future[bytes]) -> None:
        self._reading = False
        if arrival.exception() is not None:
            self._end()
        elif self._paused:
            self._kept += arrival.result()
        else:
            self._hand_over(arrival.result())
            self._read()

    def _resume(self) -> None:
        if self._paused or self._lost:
            return
        if self._kept:
            kept, self._kept = self._kept, b""
            self._hand_over(kept)
        self._read()

    def _hand_over(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            self._protocol.data_received(data)
        except BaseException:
            self.abort()  # as an asyncio transport does; the loop reports the error
            raise

    def _stream_closed(self) -> None:
        if self._paused and not self._closing and self._stream.error is None:
            return  # closed by the other side, maybe with bytes before it: seen when reading goes on
        if self._reading:
            return  # the pending read ends with it
        self._end()

    def _end(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._stream.set_close_callback(None)
        error = self._stream.error
        self._stream.close()
        self._protocol.connection_lost(error if isinstance(error, Exception) else None)
