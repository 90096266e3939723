"""WebSocketPeer: one end of a WebSocket connection, in either role, for traffic of many small messages.

`websockets`' Sans-I/O protocol makes and reads the frames; an asyncio transport or a Tornado IOStream
carries the bytes (carriers.py). A message costs one synchronous callback: no Task, no Future, no await.
All frames of one read are handled in one callback, and what they cause on the same connection goes out
in one write. Compression is never negotiated.

A connection comes from `dial` (client role), or from a Tornado `WebSocketHandler` (server role):

    class LiveSocket(tornado.websocket.WebSocketHandler):
        def get_websocket_protocol(self):
            return TornadoPeerProtocol.of(self, PeerOptions(max_size=262_144))

        def open(self):
            self.ws_connection.peer.attach(listener)

`initialize`, `prepare`, `check_origin`, `select_subprotocol`, `open` (plain or coroutine), `close`, `ping`,
`write_message` and `on_close` of the handler work as in Tornado; `open` runs before the client has its 101.
Messages go to the attached listener, never to `on_message`. Of response headers only those of the handshake and
those given to `of` are sent.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol, WebSocketProtocol13
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Protocol as FrameProtocol
from websockets.protocol import Side, State
from websockets.uri import parse_uri

from tornado_live.live.carriers import Carrier, IOStreamCarrier

TEXT, BINARY, CONT, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG

# Bytes parsed in one turn of the loop. A read holds up to 256 KiB, which as 6-byte frames is a quarter of a
# second of parsing that all other connections would wait for.
_TURN = 16 * 1024
# A control frame counts against PeerOptions.small_frames_per_s, and so does a fragment, or a read that completes
# nothing, below this many bytes.
_SMALL_FRAME = 256
# So many seconds' worth of them may come at once.
_SMALL_BURST = 4
# Reads and slices from this size on are timed: ordinary ones are smaller, and what is worth waiting for is not.
_HEAVY = 8192
# What takes the processor for longer than this is followed by a rest, so that no connection has more than a fifth
# of it; a rest is short enough for whatever was no attack.
_LONG_S = 0.005
_REST = 4
_LONGEST_REST_S = 1.0
# What a client may send before its 101. None is expected to send anything.
_MAX_EARLY = 1024 * 1024
# How long bytes are still read and dropped after a failure under TLS, so that the other side can read why.
_LINGER_S = 1.0
# After a standstill of the process timers fire before the sockets are read: a late pong may be there already.
_UNREAD_S = 0.1
_MAX_REASON = 123  # bytes; RFC 6455, 5.5: a control frame has at most 125


class PeerListener(Protocol):
    """Who is told what happens on a connection. Calls are synchronous and in order; they must not raise."""

    def on_message(self, data: bytes, binary: bool) -> None:
        """One whole message; text is UTF-8 and checked."""

    def on_closed(self, code: int, reason: str) -> None:
        """The connection is gone; called exactly once, last.

        `code` and `reason` are those of the close frame that came first, ours or theirs (1005: theirs had
        none); 1006 is a cut line, with our words for what was seen.
        """

    def on_writable(self, writable: bool) -> None:
        """False above the high-water mark of unsent bytes, True when a quarter of it is left.

        May be called from within `send_text` and `send_binary`.
        """


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Limits and times of a connection; seconds and bytes.

    `max_size`: a larger message or fragment sum closes with 1009. `ping_interval` None: no pings.
    `close_timeout`: from the first close frame to the end of the connection. `high_water`: unsent bytes
    above which `on_writable(False)` is told. `small_frames_per_s`: control frames, tiny fragments and tiny reads
    that go on beyond this close with 1008. `message_timeout`: so does a fragmented message that is not complete
    by the first ping after this. `fair`: a connection that keeps the processor busy is read more slowly; one that
    was dialled is not.
    """

    max_size: int = 16 * 1024 * 1024
    ping_interval: float | None = 20.0
    ping_timeout: float = 20.0
    close_timeout: float = 5.0
    high_water: int = 65536
    small_frames_per_s: int = 500
    message_timeout: float = 60.0
    fair: bool = True


_DEFAULTS = PeerOptions()


class DialError(Exception):
    """No WebSocket connection came about."""


class DialRefused(DialError):
    """The server answered the handshake with another status than 101."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"the server answered with HTTP status {status}")
        self.status = status
        self.headers = headers
        """Case-insensitive; a repeated header has its values joined by commas."""
        self.body = body


class DialFailed(DialError):
    """Name not found, connection refused or cut, TLS failure, not a WebSocket server."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DialTimedOut(DialError):
    """The handshake was not over in time."""


class _Stage(enum.Enum):
    ACCEPTING = "accepting"  # server: the 101 is not written yet; what is sent waits behind it
    DIALING = "dialing"  # client: waiting for the answer to the handshake
    OPEN = "open"
    CLOSING = "closing"  # a close frame was sent or received; messages are no longer delivered
    SHUT = "shut"  # nothing more is written; waiting for the carrier to end
    GONE = "gone"


# Looking a member up in its enum costs as much as the comparisons of a whole message.
_ACCEPTING, _DIALING, _OPEN = _Stage.ACCEPTING, _Stage.DIALING, _Stage.OPEN
_CLOSING, _SHUT, _GONE = _Stage.CLOSING, _Stage.SHUT, _Stage.GONE
_FRAMES_OPEN = State.OPEN


class _LibraryLog(logging.LoggerAdapter[logging.Logger]):
    """Warnings and errors of the library only: its debug lines show handshake headers and payloads."""

    def isEnabledFor(self, level: int) -> bool:
        return level >= logging.WARNING and super().isEnabledFor(level)


def _library_log() -> _LibraryLog:
    return _LibraryLog(logging.getLogger(__name__), {})


class WebSocketPeer(asyncio.Protocol):
    """One end of a WebSocket connection. Made by `dial` and `TornadoPeerProtocol`.

    Its public methods may be called at any time, also after the end: then they do nothing.
    """

    __slots__ = (
        "__weakref__",
        "_awaited_pong",
        "_backlog",
        "_carrier",
        "_closed",
        "_corked",
        "_cut",
        "_failed",
        "_frames",
        "_held",
        "_listener",
        "_loop",
        "_on_gone",
        "_opened",
        "_options",
        "_partial",
        "_partial_binary",
        "_partial_since",
        "_paused",
        "_reading",
        "_remote",
        "_resting",
        "_small",
        "_small_since",
        "_stage",
        "_timer",
        "_turn_due",
        "_unfinished",
        "_writable",
    )

    def __init__(
        self,
        frames: FrameProtocol,
        options: PeerOptions,
        *,
        opened: asyncio.Future[None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = frames
        self._options = options
        self._opened = opened
        self._on_gone: Callable[[int, str], None] | None = None
        self._stage = _ACCEPTING if opened is None else _DIALING
        self._carrier: Carrier | None = None
        self._remote: tuple[str, int] | None = None
        self._listener: PeerListener | None = None
        self._held: deque[tuple[bytes, bool]] | None = None
        self._backlog = bytearray()
        self._turn_due = False
        self._corked = opened is None
        self._writable = True
        self._paused = False
        self._reading = True
        self._partial: bytearray | None = None
        self._partial_binary = False
        self._partial_since = 0.0
        self._unfinished = False
        self._resting: asyncio.TimerHandle | None = None
        self._small = options.small_frames_per_s * _SMALL_BURST
        self._small_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._awaited_pong: bytes | None = None
        self._failed = False
        self._cut = ""
        self._closed: tuple[int, str] | None = None

    # -- what the owner calls

    def attach(self, listener: PeerListener) -> None:
        """From now on `listener` is told. What came before is told to it first, in the loop's next turn.

        Without a listener at most one read of messages is kept; then reading stops.
        """
        self._listener = listener
        if self._held is not None or self._closed is not None:
            self._loop.call_soon(self._release)

    def detach(self) -> None:
        """Nobody is told anything until the next `attach`, which is told what came meanwhile."""
        self._listener = None

    def send_text(self, data: bytes | str) -> None:
        """Send one text message; bytes must be UTF-8. Dropped once the closing has begun."""
        if self.is_open:
            self._frames.send_text(data.encode() if isinstance(data, str) else data)
            if not self._corked:
                self._write()

    def send_binary(self, data: bytes) -> None:
        """Send one binary message. Dropped once the closing has begun."""
        if self.is_open:
            self._frames.send_binary(data)
            if not self._corked:
                self._write()

    def ping(self, data: bytes = b"") -> None:
        """Send a ping of at most 125 bytes beside the periodic ones; its answer is not reported."""
        if self.is_open:
            self._frames.send_ping(data)
            if not self._corked:
                self._write()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and close; aborts when the other side does not answer within `close_timeout`.

        `code` is one that RFC 6455 allows in a frame, or 3000 to 4999 (else ValueError); `reason` is cut to
        123 bytes. No message is delivered after this call.
        """
        if not self.is_open:
            return
        if not (3000 <= code < 5000 or code in (1000, 1001, 1002, 1003, *range(1007, 1015))):
            raise ValueError(f"{code} cannot be sent as a close code")
        self._held = None
        self._frames.send_close(code, reason.encode()[:_MAX_REASON].decode(errors="ignore"))
        if self._stage is _OPEN:
            self._begin_closing()
        if not self._corked:
            self._flush()

    def abort(self) -> None:
        """Cut the line now; unsent bytes are dropped."""
        self._cut_line("the connection was aborted")

    def pause_reading(self) -> None:
        """Let the other side wait. Messages of bytes already read are still delivered.

        An unanswered ping does not end a paused connection.
        """
        self._paused = True
        self._steer_reading()

    def resume_reading(self) -> None:
        """The opposite of `pause_reading`."""
        if not self._paused:
            return
        self._paused = False
        self._steer_reading()
        if self._awaited_pong is not None and self._stage is _OPEN:
            self._wait(self._options.ping_timeout, self._pong_is_late)

    def allow(self, max_size: int) -> None:
        """Messages may be so large from here on."""
        self._frames.max_message_size = max_size

    def rest(self, seconds: float) -> None:
        """Read nothing for so long, whatever the two methods above are told; a longer rest stays as it is.

        Of bytes already read at most 16 KiB are still delivered.
        """
        until = self._loop.time() + seconds
        if self._stage is not _OPEN or (self._resting is not None and self._resting.when() >= until):
            return
        if self._resting is not None:
            self._resting.cancel()
        self._resting = self._loop.call_later(seconds, self._rested)
        self._steer_reading()

    @property
    def queued(self) -> int:
        """Bytes sent that the kernel has not taken yet; under TLS without up to 64 KiB already encrypted."""
        return 0 if self._carrier is None else self._carrier.get_write_buffer_size()

    @property
    def writable(self) -> bool:
        """What `on_writable` was last told; True at first."""
        return self._writable

    @property
    def is_open(self) -> bool:
        """Whether a message sent now has a chance to arrive."""
        stage = self._stage
        return (stage is _OPEN or stage is _ACCEPTING) and self._frames.state is _FRAMES_OPEN

    @property
    def close_code(self) -> int | None:
        """What `on_closed` was told, or None before it."""
        return None if self._closed is None else self._closed[0]

    @property
    def close_reason(self) -> str | None:
        """What `on_closed` was told, or None before it."""
        return None if self._closed is None else self._closed[1]

    @property
    def remote_address(self) -> tuple[str, int] | None:
        """Host and port at the other end of the socket (a proxy's, behind a proxy)."""
        return self._remote

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that a dialled server chose."""
        return self._frames.subprotocol

    # -- what the carrier calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        carrier = cast(Carrier, transport)
        self._carrier = carrier
        carrier.set_write_buffer_limits(high=self._options.high_water)
        name = carrier.get_extra_info("peername")
        if isinstance(name, tuple):
            self._remote = (str(name[0]), int(name[1]))
        if self._stage is _DIALING:
            self._flush()
        elif self._stage is not _ACCEPTING:
            carrier.abort()  # given up while connecting

    def data_received(self, data: bytes) -> None:
        if self._stage is _OPEN and not self._backlog and len(data) < _HEAVY and not self._unfinished:
            self._take(data)
        elif self._stage is _OPEN and not self._backlog and len(data) <= _TURN:
            self._take_fairly(data)
        elif self._stage is _DIALING:
            self._take_answer(data)
        else:
            self._backlog += data
            self._plan_turn()

    def eof_received(self) -> None:
        self._drain_backlog()
        if self._stage is _OPEN:
            self._cut = "the other side ended the connection without a close frame"
        elif self._stage is _DIALING:
            self._frames.receive_eof()
            self._check_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._carrier = None
        self._drain_backlog()
        if self._stage is _DIALING:
            self._fail_dial(DialFailed("the connection was cut during the handshake"))
        self._closed = self._verdict(exc)
        self._stage = _GONE
        self._stop_waiting()
        self._backlog.clear()
        self._stop_resting()
        self._partial = None
        # The parser is a generator that holds its owner, an error holds its frames: cut both cycles.
        self._frames.parser.close()
        self._frames.parser_exc = self._frames.handshake_exc = None
        on_gone, self._on_gone = self._on_gone, None
        if self._held is None and self._listener is not None:
            self._tell_closed()
        if on_gone is not None:
            on_gone(*self._closed)

    def pause_writing(self) -> None:
        self._writable = False
        if self._listener is not None:
            self._listener.on_writable(False)

    def resume_writing(self) -> None:
        self._writable = True
        if self._listener is not None:
            self._listener.on_writable(True)

    # -- reading

    def _take_fairly(self, data: bytes) -> None:
        self._unfinished = False
        if not self._options.fair:
            self._take(data)
            return
        begun = time.thread_time()
        try:
            self._take(data)
        finally:
            busy = time.thread_time() - begun
            if busy > _LONG_S:
                self.rest(min(busy * _REST, _LONGEST_REST_S))

    def _take(self, data: bytes) -> None:
        frames = self._frames
        self._corked = True
        try:
            frames.receive_data(data)
            events = frames.events_received()
            if not events:
                self._unfinished = True
                if len(data) < _SMALL_FRAME:
                    self._count_small()
            for frame in events:
                if not isinstance(frame, Frame):
                    continue
                opcode = frame.opcode
                if frame.fin and (opcode is TEXT or opcode is BINARY):
                    self._take_message(bytes(frame.data), opcode is BINARY)
                else:
                    self._take_part(frame)
        finally:
            self._corked = False
            self._flush()

    def _take_part(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is PONG:
            if self._awaited_pong is not None and frame.data == self._awaited_pong:
                self._awaited_pong = None
                if self._stage is _OPEN:
                    self._wait_for_ping()
        elif opcode is TEXT or opcode is BINARY:
            self._partial = bytearray(frame.data)
            self._partial_binary = opcode is BINARY
            self._partial_since = self._loop.time()
        elif opcode is CONT:
            assert self._partial is not None  # the library refuses a continuation of nothing
            self._partial += frame.data
            if frame.fin:
                whole, self._partial = bytes(self._partial), None
                self._take_message(whole, self._partial_binary)
        elif opcode is not PING:
            return
        if opcode is PING or opcode is PONG or len(frame.data) < _SMALL_FRAME:
            self._count_small()

    def _count_small(self) -> None:
        """A bucket of tokens that is filled up when it is found empty."""
        self._small -= 1
        if self._small > 0:
            return
        now, rate = self._loop.time(), self._options.small_frames_per_s
        self._small = min(int((now - self._small_since) * rate), rate * _SMALL_BURST)
        self._small_since = now
        if self._small > 0:
            return
        if self._frames.state is _FRAMES_OPEN:
            self._fail(CloseCode.POLICY_VIOLATION, "too many control frames or tiny fragments")
        elif not self._failed:  # a goodbye of ours that they answer with more of them
            self._cut_line("too many control frames or tiny fragments")

    def _take_message(self, data: bytes, binary: bool) -> None:
        if self._stage is not _OPEN:
            return
        # The library leaves this check to its shells; RFC 6455, 8.1 demands it.
        if not binary and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        listener = self._listener
        if listener is not None and self._held is None:
            listener.on_message(data, binary)
            return
        if self._held is None:
            self._held = deque()
        self._held.append((data, binary))
        self._steer_reading()

    def _release(self) -> None:
        listener = self._listener
        if listener is None:
            return
        while self._held:
            data, binary = self._held.popleft()
            try:
                listener.on_message(data, binary)
            except BaseException:
                self.abort()  # as a transport does; the loop reports the error
                raise
            if self._listener is not listener:
                return
        self._held = None
        self._steer_reading()
        if self._closed is not None:
            self._tell_closed()

    def _tell_closed(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None and self._closed is not None:
            listener.on_closed(*self._closed)

    def _plan_turn(self) -> None:
        self._steer_reading()
        if not self._turn_due and self._stage is not _ACCEPTING and self._resting is None:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._resting is not None:
            return
        if self._backlog:
            self._take_slice()
        if self._backlog:
            self._plan_turn()
        else:
            self._steer_reading()

    def _take_slice(self) -> None:
        data = bytes(self._backlog[:_TURN])
        del self._backlog[:_TURN]
        self._take_fairly(data)

    def _drain_backlog(self) -> None:
        """At the end of a connection. What would take long is lost with it, since no rest can follow any more."""
        begun = time.thread_time()
        while self._backlog and self._stage is _OPEN:
            self._take_slice()
            if self._options.fair and time.thread_time() - begun > _LONG_S:
                return

    def _rested(self) -> None:
        self._resting = None
        if self._backlog:
            self._plan_turn()
        else:
            self._steer_reading()

    def _steer_reading(self) -> None:
        resting = self._resting is not None
        wanted = not (self._paused or resting or self._backlog or self._held is not None)
        if wanted is self._reading or self._carrier is None:
            return
        self._reading = wanted
        if wanted:
            self._carrier.resume_reading()
        else:
            self._carrier.pause_reading()

    # -- writing and closing

    def _write(self) -> None:
        writes = self._frames.data_to_send()
        carrier = self._carrier
        if writes and carrier is not None and self._stage is not _SHUT:
            # An empty write is the library's sign to end the stream; _settle sees the state instead.
            data = writes[0] if len(writes) == 1 else b"".join(writes)
            if data:
                carrier.write(data)

    def _flush(self) -> None:
        self._write()
        if self._frames.state is not _FRAMES_OPEN and self._stage is not _DIALING:
            self._settle()

    def _settle(self) -> None:
        """Go as far in closing as the frames sent and received allow."""
        carrier, frames = self._carrier, self._frames
        if carrier is None or self._stage in (_SHUT, _GONE):
            return
        if self._stage is not _CLOSING:
            self._begin_closing()
        if frames.close_rcvd is not None and frames.close_sent is not None:
            self._stage = _SHUT
            carrier.close()
        elif self._failed or frames.parser_exc is not None:
            # Failed. Closing now, with bytes of theirs unread, would reset the connection and could take our
            # close frame away from them: read on and drop until they end it or the time is over.
            self._stage = _SHUT
            if carrier.can_write_eof():
                carrier.write_eof()
            else:
                self._wait(min(_LINGER_S, self._options.close_timeout), self._close_is_late)

    def _begin_closing(self) -> None:
        self._stage = _CLOSING
        self._awaited_pong = None
        self._paused = False  # their close frame must be read
        self._stop_resting()
        self._wait(self._options.close_timeout, self._close_is_late)
        self._steer_reading()

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._rested()

    def _fail(self, code: CloseCode, reason: str) -> None:
        if self._frames.state is _FRAMES_OPEN:
            self._failed = True
            self._frames.fail(code, reason)
            self._begin_closing()

    def _close_is_late(self) -> None:
        self._cut_line("the other side did not close in time")

    def _cut_line(self, why: str) -> None:
        if self._stage is _GONE:
            return
        self._cut = self._cut or why
        self._stage = _SHUT
        self._held = None
        self._stop_waiting()
        if self._carrier is not None:
            self._carrier.abort()

    def _verdict(self, exc: Exception | None) -> tuple[int, str]:
        frames = self._frames
        theirs, ours = frames.close_rcvd, frames.close_sent
        first: Close | None = ours if ours is not None and frames.close_rcvd_then_sent is not True else theirs
        if first is not None:
            return int(first.code), first.reason
        return 1006, self._cut or (f"the connection was lost: {exc}" if exc else "the connection was lost")

    # -- time: one timer, for the next ping, the awaited pong or the end of the closing

    def _wait(self, delay: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(delay, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for_ping(self) -> None:
        if self._options.ping_interval:
            self._wait(self._options.ping_interval, self._ping_is_due)

    def _ping_is_due(self) -> None:
        late = self._loop.time() - self._partial_since > self._options.message_timeout
        if self._partial is not None and late and self._reading:
            self._fail(CloseCode.POLICY_VIOLATION, "a message was begun and not completed")
            self._flush()
            return
        self._awaited_pong = secrets.token_bytes(4)
        self._wait(self._options.ping_timeout, self._pong_is_late)
        self.ping(self._awaited_pong)

    def _pong_is_late(self) -> None:
        if not self._reading:
            # The pong may be among the bytes that we do not read.
            self._wait(self._options.ping_timeout, self._pong_is_late)
            return
        self._wait(_UNREAD_S, self._pong_is_missing)

    def _pong_is_missing(self) -> None:
        if not self._reading:
            self._pong_is_late()
            return
        self._cut_line(f"no answer to a ping within {self._options.ping_timeout:g} s")

    # -- the handshake

    def _accepted(self, head: bytes, early: bytes) -> None:
        """Server: send the 101, what was sent behind it, and read on, beginning with `early`."""
        if self._stage is not _ACCEPTING or self._carrier is None:
            return
        self._stage = _OPEN
        self._corked = False
        self._carrier.write(head)
        self._wait_for_ping()
        if early:
            self._backlog[:0] = early
        if self._backlog:
            self._plan_turn()
        self._flush()

    def _take_answer(self, data: bytes) -> None:
        """Client: the response to the handshake, maybe with the first frames behind it."""
        frames = self._frames
        frames.receive_data(data)
        self._check_answer()

    def _check_answer(self) -> None:
        frames = self._frames
        events = frames.events_received()
        error = frames.handshake_exc
        if error is not None:
            answer = events[0] if events else None
            if isinstance(answer, Response) and answer.status_code != 101:
                headers = _joined(answer.headers.raw_items())
                self._fail_dial(DialRefused(answer.status_code, headers, bytes(answer.body)))
            else:
                cause = error.__cause__
                detail = f"{error}: {cause}" if cause else str(error)
                self._fail_dial(DialFailed(f"the server's answer is not a WebSocket handshake ({detail})"))
            self.abort()
            return
        if not events:
            return
        opened, self._opened = self._opened, None
        if opened is not None and not opened.done():
            opened.set_result(None)
        self._stage = _OPEN
        self._wait_for_ping()
        frames.events[:0] = events[1:]
        self._take(b"")

    def _fail_dial(self, error: DialError) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and not opened.done():
            opened.set_exception(error)


def _joined(items: Any) -> Mapping[str, str]:
    headers = HTTPHeaders()
    for name, value in items:
        headers.add(name, value)
    return headers


async def dial(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_timeout: float = 10.0,
    max_size: int = _DEFAULTS.max_size,
    ping_interval: float | None = _DEFAULTS.ping_interval,
    ping_timeout: float = _DEFAULTS.ping_timeout,
    close_timeout: float = _DEFAULTS.close_timeout,
    high_water: int = _DEFAULTS.high_water,
) -> WebSocketPeer:
    """Connect to a ws:// or wss:// URL. Messages that come before `attach` are kept for it.

    `headers` are added to the handshake. `ssl_context` None: the system's trust store, loaded for each call
    (some milliseconds; pass one to dial often). No redirect is followed and no proxy of the environment used.
    Raises DialRefused, DialFailed or DialTimedOut; none of them names the URL or a header.
    """
    try:
        address = parse_uri(url)
    except (InvalidURI, ValueError):
        raise DialFailed("the address is not a ws:// or wss:// URL") from None
    loop = asyncio.get_running_loop()
    options = PeerOptions(
        max_size=max_size,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        high_water=high_water,
        fair=False,
    )
    frames = ClientProtocol(address, max_size=max_size, logger=_library_log())
    request = frames.connect()
    for name, value in (headers or {}).items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"the header {name} has a line break")
        request.headers[name] = value
    frames.send_request(request)
    opened: asyncio.Future[None] = loop.create_future()
    peer = WebSocketPeer(frames, options, opened=opened)
    try:
        async with asyncio.timeout(open_timeout):
            if address.secure:
                await loop.create_connection(
                    lambda: peer,
                    address.host,
                    address.port,
                    ssl=ssl_context or ssl.create_default_context(),
                    server_hostname=address.host,
                    ssl_shutdown_timeout=close_timeout,
                )
            else:
                await loop.create_connection(lambda: peer, address.host, address.port)
            await opened
    except TimeoutError:
        peer.abort()
        raise DialTimedOut(f"no WebSocket handshake within {open_timeout:g} s") from None
    except OSError as error:
        peer.abort()
        raise DialFailed(str(error) or type(error).__name__) from error
    except BaseException:
        peer.abort()
        raise
    return peer


class TornadoPeerProtocol(WebSocketProtocol):
    """The framing of a WebSocketHandler by a WebSocketPeer, through Tornado's `get_websocket_protocol` seam.

    `peer` exists from `open` on. The seam has private abstract methods; tests/test_peer.py holds this class
    against the pinned Tornado.
    """

    peer: WebSocketPeer

    def __init__(
        self, handler: WebSocketHandler, options: PeerOptions, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(handler)
        self._options = options
        self._headers = headers or {}
        self._subprotocol: str | None = None

    @classmethod
    def of(
        cls,
        handler: WebSocketHandler,
        options: PeerOptions | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self | None:
        """For `get_websocket_protocol`: None, which Tornado answers with 426, if the version is not 13."""
        if handler.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return cls(handler, options or PeerOptions(), headers)

    @property
    def selected_subprotocol(self) -> str | None:
        return self._subprotocol

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        """Open the connection; returns once the 101 is written.

        The order matters. Writing the 101 through the IOStream before its socket is handed over loses
        connections on uvloop, and a client that has its 101 before `open` has run may lose its first message.
        """
        head = self._response_head(handler)
        if head is None:
            handler.set_status(400)
            handler.finish("Missing/Invalid WebSocket headers")
            return
        handler.set_status(101)
        stream = handler.detach()
        frames = FrameProtocol(
            Side.SERVER, state=State.OPEN, max_size=self._options.max_size, logger=_library_log()
        )
        self.peer = peer = WebSocketPeer(frames, self._options)
        early = b""
        if type(stream) is IOStream:
            taken = _take_over(stream)
            if taken is None:
                return
            sock, early = taken
            try:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: peer, sock)
            except OSError:
                sock.close()
                return
        elif stream.closed():
            return
        else:
            IOStreamCarrier(stream, peer)
        if not peer.is_open:
            return
        peer._on_gone = handler.on_ws_connection_close
        try:
            opening = handler.open(*handler.open_args, **handler.open_kwargs)
            if opening is not None:
                await opening
        except Exception:  # noqa: BLE001 - the edge to handler code, as in Tornado's own protocol
            handler.log_exception(*sys.exc_info())
            peer.abort()
            return
        except BaseException:
            peer.abort()
            raise
        peer._accepted(head, early)

    def _response_head(self, handler: WebSocketHandler) -> bytes | None:
        headers = handler.request.headers
        key = headers.get("Sec-WebSocket-Key")
        if not key or not headers.get("Host"):
            return None
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {WebSocketProtocol13.compute_accept_value(key)}",
            *(f"{name}: {value}" for name, value in self._headers.items()),
        ]
        offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        chosen = handler.select_subprotocol([name for name in offered if name])
        if chosen:
            assert chosen in offered
            self._subprotocol = chosen
            lines.append(f"Sec-WebSocket-Protocol: {chosen}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    # -- what WebSocketHandler calls

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False
    ) -> asyncio.Future[None]:
        assert not isinstance(message, dict)  # WebSocketHandler has encoded it
        if binary:
            self.peer.send_binary(message.encode() if isinstance(message, str) else message)
        else:
            self.peer.send_text(message)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.set_result(None)
        return written

    def write_ping(self, data: bytes) -> None:
        self.peer.ping(data)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.peer.close(1000 if code is None else code, reason or "")

    def is_closing(self) -> bool:
        return not self.peer.is_open

    def _abort(self) -> None:
        self.peer.abort()

    def set_nodelay(self, x: bool) -> None:
        """It is always on."""

    def start_pinging(self) -> None:
        """The peer pings by itself."""

    def _process_server_headers(self, key: str | bytes, headers: MutableMapping[str, str]) -> None:
        raise NotImplementedError("this is the server's side")

    async def _receive_frame_loop(self) -> None:
        raise NotImplementedError("the peer is called by its carrier")


def _take_over(stream: IOStream) -> tuple[Any, bytes] | None:
    """The stream's socket, and the bytes that came with the handshake; None if it is closed or misbehaves."""
    early = bytearray()
    try:
        while len(early) <= _MAX_EARLY:
            arrival = cast("asyncio.Future[bytes]", stream.read_bytes(65536, partial=True))
            if not arrival.done():
                arrival.add_done_callback(lambda read: read.exception())
                sock = stream.socket.dup()
                stream.close()
                return sock, bytes(early)
            early += arrival.result()
    except (StreamClosedError, OSError):
        pass
    stream.close()
    return None
