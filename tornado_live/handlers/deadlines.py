"""A server that lets nobody hold a connection by being slow: with a request's head or body, or with its answer.

Tornado has one time for a connection that rests between requests and for one that sends its head byte by byte,
none for who does not read, and a line in the log for each whose body does not come. A connection that became a
WebSocket is its peer's (live/peer.py).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Literal, TypeAlias, cast

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from tornado_live.observe.logs import log_event

if sys.platform != "win32":
    import fcntl
    import termios

HEAD_S = 10.0
"""From a connection's beginning, or the first byte of a further request, to the end of the request's head. The
handshake of TLS is a part of it."""
BODY_S = 10.0
"""From the end of the head to that of the body."""
SLACK_S = 10.0
LEAST_RATE = 2048
"""Bytes a second that a client takes of an answer, once `SLACK_S` have gone by."""
LOOK_S = 1.0
MOST_RESTING = 256
"""Connections that may rest between two requests; of more, those that have rested for longest are closed."""

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)
_SLOW = "Connections were closed because their clients were slow to send a request, or to read the answer."

_log = logging.getLogger(__name__)

Late: TypeAlias = Literal["head", "body", "reading"]


class TimedServer(HTTPServer):
    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._watched: dict[IOStream, _Watched] = {}
        self._timer: object | None = None

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        self.serve(stream, address, IOLoop.current().time())

    def serve(self, stream: IOStream, address: tuple[Any, ...], since: float) -> None:
        """`since`: when the connection was taken."""
        self._watched[stream] = _Watched(stream, since)
        if self._timer is None:
            self._timer = IOLoop.current().call_later(LOOK_S, self._look)
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        connection = cast("HTTP1Connection", request_conn)
        if connection.stream.closed():
            # What came behind a request that was the last is in Tornado's buffer all the same, and would be run.
            return HTTPMessageDelegate()
        delegate = super().start_request(server_conn, request_conn)
        watched = self._watched.get(connection.stream)
        if watched is None:  # it was closed as late a moment ago
            return delegate
        watched.await_head(connection, IOLoop.current().time())
        return _Head(delegate, watched)

    async def close_all_connections(self) -> None:
        if self._timer is not None:
            IOLoop.current().remove_timeout(self._timer)
            self._timer = None
        self._watched.clear()
        await super().close_all_connections()

    def _look(self) -> None:
        loop, late = IOLoop.current(), Counter[Late]()
        now = loop.time()
        for stream, watched in list(self._watched.items()):
            if watched.gone:
                del self._watched[stream]
            elif (why := watched.late(now)) is not None:
                del self._watched[stream]
                late[why] += 1
                watched.close(why)
        resting = [watched for watched in self._watched.values() if watched.resting_since is not None]
        if (more := len(resting) - MOST_RESTING) > 0:
            for watched in sorted(resting, key=lambda one: one.resting_since or 0.0)[:more]:
                watched.close(None)
        if late:
            log_event(_log, "slow_clients_closed", dict(late) | {"message": _SLOW}, level=logging.WARNING)
        self._timer = loop.call_later(LOOK_S, self._look) if self._watched else None


class _Watched:
    """One connection, from its beginning until it is closed, or a WebSocket."""

    def __init__(self, stream: IOStream, since: float) -> None:
        self._stream = stream
        self._request: HTTP1Connection | None = None
        self._head_since: float | None = since
        """When the first byte of the head came that is not there as a whole; at first, the connection."""
        self._awaits_head = True
        self._body_since: float | None = None
        self._requests = 0
        self._rests_since: float | None = None
        self._owed_since: float | None = None
        self._taken_then = 0

    def await_head(self, request: HTTP1Connection, now: float) -> None:
        self._request = request
        self._awaits_head, self._body_since = True, None
        self._requests += 1
        if self._requests > 1:
            self._head_since, self._rests_since = None, now

    def head_came(self) -> None:
        self._awaits_head, self._head_since = False, None

    def await_body(self, now: float) -> None:
        self._body_since = now

    def body_came(self) -> None:
        self._body_since = None

    @property
    def gone(self) -> bool:
        detached = self._request is not None and self._request.stream is None
        return detached or self._stream.closed()

    def late(self, now: float) -> Late | None:
        if self._awaits_head:
            if self._head_since is None and self._has_bytes:
                self._head_since = now
            if self._head_since is not None and now - self._head_since > HEAD_S:
                return "head"
        if self._body_since is not None and now - self._body_since > BODY_S:
            return "body"
        return "reading" if self._reads_slowly(now) else None

    def _reads_slowly(self, now: float) -> bool:
        given = self._stream._total_write_index
        owed = len(self._stream._write_buffer) + _unacknowledged(self._stream.socket)
        if not owed:
            self._owed_since = None
            return False
        taken = given - owed
        if self._owed_since is None:
            self._owed_since, self._taken_then = now, taken
        return now - self._owed_since > SLACK_S + (taken - self._taken_then) / LEAST_RATE

    @property
    def _has_bytes(self) -> bool:
        return bool(self._stream._read_buffer)

    @property
    def resting_since(self) -> float | None:
        """Since when there has been no byte of a further request; None where that is not so."""
        return self._rests_since if self._awaits_head and not self._has_bytes else None

    def close(self, why: Late | None) -> None:
        with contextlib.suppress(OSError, StreamClosedError):
            if why == "head" and self._has_bytes:
                self._stream.write(_TIMEOUT)
            elif why == "reading":  # what it has not read goes with the connection
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._stream.close()


class _Head(HTTPMessageDelegate):
    """Tells when the head of a request is there, and when its body."""

    def __init__(self, inner: HTTPMessageDelegate, watched: _Watched) -> None:
        self._inner = inner
        self._watched = watched

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._watched.head_came()
        letting_in = self._inner.headers_received(start_line, headers)
        if letting_in is not None:
            return self._let_in(letting_in)
        self._watched.await_body(IOLoop.current().time())
        return None

    async def _let_in(self, letting_in: Awaitable[None]) -> None:
        """What is looked up at the doors is no delay of the client's."""
        await letting_in
        self._watched.await_body(IOLoop.current().time())

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._watched.body_came()
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the kernel has and the client's has not taken; 0 where that cannot be known."""
    if sys.platform == "win32":
        return 0
    try:
        found: int = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0
    return found
