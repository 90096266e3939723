"""A proxy that breaks TCP lines on purpose: seeded, and it writes down what it did.

async with Proxy(simulator.port, seed=7) as proxy:
    ...  # whatever connects to proxy.port talks to the simulator
    line = await proxy.arrived(0)
    line.down.reset_within(b"turnComplete")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_CHUNK = 65536
_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to one direction of a line; byte counts are from the beginning of the line.

    latency_s and jitter_s: a pause before each piece, jitter_s at most on top of it. bytes_per_s: the bandwidth.
    slices: pieces of 1 to so many bytes. reset_at: RST in place of that byte; drop_at: FIN. stall_at: nothing
    passes any more and both sockets stay open. flip_every: one bit wrong in so many bytes, on the average, after
    flip_from.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    slices: int | None = None
    reset_at: int | None = None
    drop_at: int | None = None
    stall_at: int | None = None
    flip_every: int | None = None
    flip_from: int = 0


Plan = Callable[[int], tuple[Way, Way]]
"""The faults of the n-th line, from 0: towards the target, and back."""


@dataclass(frozen=True, slots=True)
class Decision:
    line: int
    way: str
    at: int
    what: str


class Messages:
    """The JSON messages of a WebSocket, read from the bytes of one direction."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._buffer = bytearray()
        self._parts = b""
        self._upgraded = False

    def feed(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            _head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            self._upgraded, self._buffer = True, bytearray(rest)
        while (frame := self._frame()) is not None:
            first, payload = frame
            if first & 0x0F > 2:
                continue  # a control frame
            self._parts += payload
            if first & 0x80:
                whole, self._parts = self._parts, b""
                with contextlib.suppress(ValueError):  # broken on purpose
                    self.seen.append(json.loads(whole))

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1] & 0x7F, 2
        for marker, length in ((126, 2), (127, 8)):
            if size == marker:
                size, at = int.from_bytes(buffer[2 : 2 + length], "big"), 2 + length
                break
        mask_size = 4 if buffer[1] & 0x80 else 0
        end = at + mask_size + size
        if len(buffer) < end:
            return None
        mask, payload = bytes(buffer[at : at + mask_size]), bytes(buffer[at + mask_size : end])
        first = buffer[0]
        del buffer[:end]
        if mask:
            key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            payload = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
        return first, payload


class Flow:
    """One direction of a line."""

    def __init__(self, line: Line, name: str, way: Way) -> None:
        self.passed = 0
        self.messages = Messages()
        self._line = line
        self._name = name
        self._way = way
        self._reset_at = way.reset_at
        self._pattern = b""
        self._tail = b""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._swallows = False
        self._chance = random.Random(f"{line.proxy.seed}/{line.number}/{name}")
        self._next_flip = way.flip_from + self._flip_distance()

    def _flip_distance(self) -> int:
        every = self._way.flip_every
        return 1 << 62 if every is None else self._chance.randint(1, 2 * every)

    def reset_after(self, count: int) -> None:
        """RST once so many more bytes have passed."""
        self._reset_at = self.passed + count

    def reset_within(self, pattern: bytes) -> None:
        """RST in the middle of the next bytes that are `pattern`, found within one message of the line."""
        self._pattern, self._tail = pattern, b""

    def stall(self) -> None:
        """Nothing passes, nothing is read; both sockets stay open. `release` lets it go on."""
        self._flowing.clear()
        self._line.proxy.note(self._line, self._name, self.passed, "stall")

    def release(self) -> None:
        self._flowing.set()
        self._line.proxy.note(self._line, self._name, self.passed, "release")

    def swallow(self) -> None:
        """Everything is read and nothing passes: a black hole."""
        self._swallows = True
        self._line.proxy.note(self._line, self._name, self.passed, "swallow")

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                for piece in self._pieces(data):
                    if not await self._pass_on(piece, writer):
                        return
            await self._flowing.wait()
            if not self._swallows and not writer.is_closing():
                writer.write_eof()
        except ConnectionError:
            if not self._swallows:
                self._line.reset()  # an end that was reset is passed on as what it is

    def _pieces(self, data: bytes) -> list[bytes]:
        most = self._way.slices
        if most is None:
            return [data]
        pieces = []
        while data:
            size = self._chance.randint(1, most)
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    async def _pass_on(self, piece: bytes, writer: asyncio.StreamWriter) -> bool:
        way = self._way
        if way.latency_s or way.jitter_s:
            await asyncio.sleep(way.latency_s + self._chance.uniform(0, way.jitter_s))
        if way.bytes_per_s:
            await asyncio.sleep(len(piece) / way.bytes_per_s)
        if way.stall_at is not None and self.passed <= way.stall_at < self.passed + len(piece):
            await self._write(piece[: way.stall_at - self.passed], writer)
            self.stall()
            piece = b""
        await self._flowing.wait()
        if self._swallows:
            return True
        piece = self._flipped(piece)
        if self._found(piece):
            self._reset_at = self.passed + self._cut
        for limit, end in ((self._reset_at, self._line.reset), (way.drop_at, self._line.drop)):
            if limit is not None and self.passed + len(piece) > limit:
                await self._write(piece[: max(0, limit - self.passed)], writer)
                end()
                return False
        await self._write(piece, writer)
        return True

    def _found(self, piece: bytes) -> bool:
        """Whether the pattern ends in this piece; `_cut` is then where its middle is, from `passed`."""
        if not self._pattern:
            return False
        seen = self._tail + piece
        at = seen.find(self._pattern)
        self._cut = max(0, at + len(self._pattern) // 2 - len(self._tail))
        self._tail = seen[-len(self._pattern) + 1 :]
        return at >= 0

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if not piece:
            return
        self.passed += len(piece)
        writer.write(piece)
        if self._line.proxy.taps:
            self.messages.feed(piece)
        self._line.proxy.changed()
        await writer.drain()

    def _flipped(self, piece: bytes) -> bytes:
        if self.passed + len(piece) <= self._next_flip:
            return piece
        changed = bytearray(piece)
        while (at := self._next_flip - self.passed) < len(changed):
            if at >= 0:
                changed[at] ^= 1 << self._chance.randrange(8)
                self._line.proxy.note(self._line, self._name, self._next_flip, "flip")
            self._next_flip += self._flip_distance()
        return bytes(changed)


class Line:
    """One connection through the proxy: `up` towards the target, `down` back."""

    def __init__(self, proxy: Proxy, number: int, ways: tuple[Way, Way]) -> None:
        self.proxy = proxy
        self.number = number
        self.ended = asyncio.Event()
        self._cut = False
        self.up = Flow(self, "up", ways[0])
        self.down = Flow(self, "down", ways[1])
        self._writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """RST to both ends, as a crashed machine's kernel sends it."""
        if self._cut:
            return
        self._cut = True
        self.proxy.note(self, "both", self.down.passed, "reset")
        for writer in self._writers:
            with contextlib.suppress(OSError):
                duplicate = writer.get_extra_info("socket").dup()
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                duplicate.close()
            writer.transport.abort()

    def drop(self) -> None:
        """FIN to both ends, in the middle of whatever was being said."""
        self._cut = True
        self.proxy.note(self, "both", self.down.passed, "drop")
        for writer in self._writers:
            writer.transport.close()

    def stall(self) -> None:
        """Half-open: neither end hears of the other, both sockets stay."""
        self.up.stall()
        self.down.stall()

    def swallow(self) -> None:
        self.up.swallow()
        self.down.swallow()

    async def run(self, near: _Ends, far: _Ends) -> None:
        self._writers = [near[1], far[1]]
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self.up.pump(near[0], far[1]))
                ways.create_task(self.down.pump(far[0], near[1]))
        finally:
            for writer in self._writers:
                writer.transport.close()
            self.ended.set()
            self.proxy.changed()


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _no_faults(number: int) -> tuple[Way, Way]:
    return Way(), Way()


class Proxy:
    """From `port` to `target`, both on this machine. `log` has every decision, `lines` every line that ever came.

    `target` and `plan` may be changed at any time, for lines that come later. `taps` reads the WebSocket messages
    of each flow into its `messages`.
    """

    def __init__(
        self, target: int, *, port: int = 0, plan: Plan = _no_faults, seed: int = 0, taps: bool = False
    ) -> None:
        self.target = target
        self.plan = plan
        self.seed = seed
        self.taps = taps
        self.lines: list[Line] = []
        self.log: list[Decision] = []
        self.port = port
        self._deaf = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Event] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is not None and self.log:
            error.add_note(f"what the proxy (seed {self.seed}) did: {self.log[-50:]}")

    async def listen(self) -> None:
        """Take connections again, at the same port."""
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", self.port, backlog=128)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Connections are refused from here on; the lines that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def deafen(self) -> None:
        """Connections are taken from here on, and nothing is ever answered."""
        self._deaf = True

    def note(self, line: Line, way: str, at: int, what: str) -> None:
        self.log.append(Decision(line.number, way, at, what))

    def changed(self) -> None:
        for waiting in self._waiting:
            waiting.set()

    async def until(self, condition: Callable[[], bool], within: float = _DEADLINE_S) -> None:
        """Waits until it holds; looked at whenever a line came, ended, or passed something on."""
        moment = asyncio.Event()
        self._waiting.add(moment)
        try:
            async with asyncio.timeout(within):
                while not condition():
                    moment.clear()
                    await moment.wait()
        finally:
            self._waiting.discard(moment)

    async def arrived(self, number: int) -> Line:
        """The line of that number, from 0, once it is there."""
        await self.until(lambda: len(self.lines) > number)
        return self.lines[number]

    @property
    def open_lines(self) -> list[Line]:
        return [line for line in self.lines if not line.ended.is_set()]

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(self, len(self.lines), self.plan(len(self.lines)))
        self.lines.append(line)
        self.changed()
        try:
            if self._deaf:
                self.note(line, "both", 0, "deaf")
                await reader.read()
                return
            far = await asyncio.open_connection("127.0.0.1", self.target)
            await line.run((reader, writer), far)
        except OSError as error:
            self.note(line, "both", 0, f"no target: {error.strerror}")
        except asyncio.CancelledError:
            pass  # the proxy ends; asyncio's streams would report a task that is left cancelled
        finally:
            writer.transport.close()
            line.ended.set()
            self.changed()
            self._tasks.discard(task)
