"""A port without TLS that tells so to a client which speaks TLS.

Google's clients for Python turn every address into wss://. Their hello has not the end that an HTTP server waits
for: without this they hear nothing for ten seconds, and nothing of the reason then.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from tornado_live.handlers.deadlines import HEAD_S, TimedServer
from tornado_live.observe.logs import log_event

_HELLO = b"\x16"
"""What TLS begins with (RFC 8446, 5.1: a record of the type handshake), and no HTTP request does."""
_LONGEST_HELLO = 64 * 1024
_LINGER_S = 5
_TEXT = "This port speaks no TLS. Use the https address of TLS_PORT, or http:// where the client takes it."
_ANSWER = (
    f"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(_TEXT)}\r\n"
    f"Connection: close\r\n\r\n{_TEXT}"
).encode()

_log = logging.getLogger(__name__)


class PlainServer(TimedServer):
    """Looks at the first byte of each connection, before which nothing else is done with it."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._silent: set[IOStream] = set()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        loop = IOLoop.current()
        since = loop.time()

        def readable(*_: object) -> None:
            try:
                first = stream.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                first = b""
            loop.remove_handler(stream.socket)
            loop.remove_timeout(patience)
            self._silent.discard(stream)
            if first == _HELLO:
                _refuse(stream, address)
            else:
                self.serve(stream, address, since)

        def forget() -> None:
            loop.remove_handler(stream.socket)
            self._silent.discard(stream)
            stream.close()

        self._silent.add(stream)
        patience = loop.call_later(HEAD_S, forget)
        loop.add_handler(stream.socket, readable, IOLoop.READ)

    async def close_all_connections(self) -> None:
        for stream in self._silent:
            IOLoop.current().remove_handler(stream.socket)
            stream.close()
        self._silent.clear()
        await super().close_all_connections()


def _refuse(stream: IOStream, address: tuple[Any, ...]) -> None:
    """In plain HTTP: OpenSSL calls that WRONG_VERSION_NUMBER, at once."""
    log_event(_log, "tls_on_plain_port", level=logging.WARNING, remote=address[0], message=_TEXT)
    try:
        stream.write(_ANSWER)
        stream.socket.shutdown(socket.SHUT_WR)
        # Closing with a part of the hello unread would reset the connection, and the answer might go with it.
        stream.read_bytes(_LONGEST_HELLO)
        IOLoop.current().call_later(_LINGER_S, stream.close)
    except (OSError, StreamClosedError):
        stream.close()
