"""A program that sends as much as it can over a WebSocket, and opens another one whenever it is closed.

    python flood.py PORT KIND SECONDS

It prints one JSON object: the codes with which its lines were closed, 0 for one that was not, and the bytes sent.
An offence goes on until it was closed once, for half a minute at most. One kind resets its lines by itself: 1006.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import Counter

from websockets.frames import Frame, Opcode

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
BURST = 64 * 1024
PATIENCE_S = 30.0
OFFENCES = ("pings", "pongs", "empty fragments", "one-byte fragments", "one byte at a time")
TOO_MUCH = ("values", "messages")
"""Messages that are good: they are read as fast as is fair."""
CUT = "messages before a cut"


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def flood_of(kind: str) -> tuple[bytes, bytes]:
    """What is sent once, and what is sent again and again."""
    begin = frame(Opcode.TEXT, fin=False)
    match kind:
        case "pings":
            return b"", frame(Opcode.PING, b"x" * 125)
        case "pongs":
            return b"", frame(Opcode.PONG)
        case "empty fragments":
            return begin, frame(Opcode.CONT, fin=False)
        case "one-byte fragments":
            return begin, frame(Opcode.CONT, b"x", fin=False)
        case "one byte at a time":
            return frame(Opcode.TEXT, b"x" * 4_000_000)[:20], b"x"
        case "values":
            return b"", frame(Opcode.TEXT, b'{"type":"ping","data":[%s]}' % (b"{}," * 9_900)[:-1])
        case "messages" | "messages before a cut":
            return b"", frame(Opcode.TEXT, b'{"type":"ping"}')
    raise ValueError(kind)


def closed_with(heard: bytearray) -> int | None:
    """The code of the close frame among what the server sent, whose whole frames are taken away."""
    while len(heard) >= 2:
        size, at = heard[1], 2
        if size == 126:
            size, at = struct.unpack("!H", heard[2:4])[0] if len(heard) >= 4 else BURST, 4
        elif size == 127:
            size, at = struct.unpack("!Q", heard[2:10])[0] if len(heard) >= 10 else BURST, 10
        if len(heard) < at + size:
            return None
        if heard[0] & 0x0F == Opcode.CLOSE:
            return int(struct.unpack("!H", heard[at : at + 2])[0])
        del heard[: at + size]
    return None


def flood(port: int, kind: str, until: float) -> tuple[int, int]:
    """Floods one line for as long as it lasts: bytes sent, and its close code, 0 where it goes on."""
    first, again = flood_of(kind)
    burst = again if kind == "one byte at a time" else again * (BURST // len(again) or 1)
    heard, sent, left = bytearray(), 0, memoryview(first + burst)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        line.sendall(head.encode())
        while b"\r\n\r\n" not in heard:
            heard += line.recv(1024)
        del heard[: heard.index(b"\r\n\r\n") + 4]
        line.setblocking(False)
        while time.monotonic() < until:
            readable, writable, _ = select.select([line], [line], [], 0.05)
            try:
                if readable:
                    part = line.recv(1 << 20)
                    heard += part
                    code = closed_with(heard)
                    if code is not None or not part:
                        return sent, code or 1006
                if writable and kind == CUT and sent >= 4 * BURST:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return sent, 1006
                if writable:
                    count = line.send(left)
                    sent += count
                    left = left[count:] or memoryview(burst)
            except ConnectionError:
                return sent, 1006
        return sent, 0


def main(port: str, kind: str, seconds: str) -> int:
    begun = time.monotonic()
    until = begun + float(seconds)
    codes: Counter[int] = Counter()
    sent = 0
    while True:
        closed = any(codes) or kind in TOO_MUCH
        end = until if closed else begun + PATIENCE_S
        if time.monotonic() >= end:
            break
        more, code = flood(int(port), kind, end)
        sent += more
        codes[code] += 1
    sys.stdout.write(json.dumps({"codes": codes, "sent": sent}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
