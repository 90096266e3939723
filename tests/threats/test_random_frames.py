"""T20 to T25 at once: bytes that nobody chose, on lines that end anyhow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import ssl
import struct
from dataclasses import dataclass

import pytest
from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import get, memory, talking, unbroken
from peering import Far, raw_connection
from websockets.frames import Opcode
from websockets.utils import apply_mask

from threats.raw import GUEST, KEY, SETUP
from tornado_live.wire.native import TYPES

LINES = 300
AT_ONCE = 20
WORDS: list[object] = [
    *({"type": kind} for kind in TYPES),
    *({"type": kind, "data": {}} for kind in TYPES),
    *({"type": "audio", "data": {"data": "AAAA"}}, {"type": "text", "data": {"text": "hello"}}),
    *({"type": "connect", "data": {"audio": "binary"}}, {"type": "ping", "data": [1, 2, {"a": "b"}]}),
    *(SETUP, {"realtimeInput": {"text": "hello"}}, {"realtimeInput": {"audio": {"data": "AAAA"}}}),
    *({"clientContent": {"turns": [], "turnComplete": True}}, {"toolResponse": {"functionResponses": []}}),
]


@dataclass
class Trusted:
    """What a raw connection asks of certificates."""

    client: ssl.SSLContext


def payload(chance: random.Random) -> bytes:
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.choice((0, 1, 2, 125, 126, 127, 640, 70_000)))
        case 1:
            return struct.pack("!H", chance.randrange(65536)) + chance.randbytes(chance.randrange(130))
        case 2:
            data = bytearray(json.dumps(chance.choice(WORDS)).encode())
            for _ in range(chance.randrange(3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            return bytes(data)
        case _:
            return json.dumps(chance.choice(WORDS)).encode()


def frame(chance: random.Random) -> bytes:
    """Mostly a good one; else with wrong bits, a wrong length, no mask, or cut anywhere."""
    data = payload(chance)
    first = chance.choice((*(Opcode.TEXT,) * 6, *(Opcode.BINARY,) * 3, *Opcode)) | 0x80
    if chance.random() < 0.2:
        first = chance.randrange(256)
    size = len(data) if chance.random() < 0.95 else chance.choice((0, 1, 1 << 20, 1 << 62, (1 << 64) - 1))
    masked = 0x80 if chance.random() < 0.95 else 0
    if size < 126 and chance.random() < 0.95:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    mask = chance.randbytes(4) if masked else b""
    whole = head + mask + (apply_mask(data, mask) if masked else data)
    return whole if chance.random() < 0.95 else whole[: chance.randrange(len(whole))]


async def play(far: Far, chance: random.Random, port: int, path: str) -> None:
    """One line, from its handshake to whatever end."""
    head = "\r\n".join(
        [
            *(f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"),
            *(f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13", "", ""),
        ]
    ).encode()
    if chance.random() < 0.1:
        head = bytearray(head)
        for _ in range(3):
            head[chance.randrange(len(head))] = chance.randrange(256)
    await far.send(bytes(head))
    for _ in range(chance.randrange(1, 25)):
        part = chance.randbytes(chance.randrange(300)) if chance.random() < 0.05 else frame(chance)
        if chance.random() < 0.1:  # in pieces
            for at in range(0, len(part), 1 + len(part) // 5):
                await far.send(part[at : at + 1 + len(part) // 5])
                await asyncio.sleep(0)
        else:
            await far.send(part)
    if not far.writer.can_write_eof() or chance.random() < 0.3:
        far.reset()
        return
    far.writer.write_eof()
    await far.until_end()


@pytest.mark.proves("T20", "T22", "T23", "T24", "T25")
async def test_three_hundred_lines_of_random_frames_harm_nobody(gateway: Gateway) -> None:
    seed = secrets.randbits(32)
    server = gateway.server
    assert server.ws_port is not None
    doors = [
        *((server.ws_port, "/"), (server.port, "/ws"), (server.port, GUEST)),
        *((server.tls_port, "/ws"), (server.tls_port, GUEST)),
    ]
    trusted = Trusted(ssl.create_default_context(cafile=server.ca))
    numbers = iter(range(LINES))

    async def lines() -> None:
        for number in numbers:
            chance = random.Random(f"{seed} {number}")
            port, path = chance.choice(doors)
            used = trusted if port == server.tls_port else None
            with contextlib.suppress(OSError):  # TLS says so of a reset where it is closed
                async with raw_connection(port, used) as far:
                    await play(far, chance, port, path)

    try:
        async with ModelSide(gateway.port) as model, talking(server, model) as talk:
            async with asyncio.TaskGroup() as crowd:
                crowds = [crowd.create_task(lines()) for _ in range(AT_ONCE)]
                turns = 0
                while not all(task.done() for task in crowds):
                    turns += 1
                    await talk.turn(f"Question {turns}", f"Answer {turns}.")
            said = [
                line
                for n in range(1, turns + 1)
                for line in (("user", f"Question {n}"), ("model", f"Answer {n}."))
            ]
            assert await memory(server, talk.session) == said[-50:]
            assert (await get(server, "/health")).status_code == 200
        unbroken(server)
    except BaseException as error:
        error.add_note(f"the seed was {seed}")
        raise
