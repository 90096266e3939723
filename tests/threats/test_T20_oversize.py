"""T20: messages larger than they may be, or that only say so."""

from __future__ import annotations

import json
import struct

import pytest
from faults.conftest import Gateway
from faults.model import ModelSide
from peering import Far
from serving import Server
from websockets.frames import Opcode

from threats.raw import GUEST, SETUP, end, hear, resident, say, upgraded
from tornado_live.live.dialects import MAX_GUEST_MESSAGE, MAX_MESSAGE

MIB = 1024 * 1024
ROUNDS = 12


def ping_of(size: int) -> bytes:
    frame = json.dumps({"type": "ping", "data": ""}).encode()
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def setup_of(size: int) -> bytes:
    frame = json.dumps({"setup": {**SETUP["setup"], "systemInstruction": {"parts": [{"text": ""}]}}}).encode()
    return frame[:-6] + b"x" * (size - len(frame)) + frame[-6:]


@pytest.mark.proves("T20")
async def test_a_message_as_large_as_it_may_be_is_taken_and_one_byte_more_is_not(gateway: Gateway) -> None:
    server = gateway.server
    async with ModelSide(gateway.port) as model:
        async with upgraded(server.ws_port) as far:
            await far.send(far.frame(Opcode.TEXT, ping_of(MAX_MESSAGE)))
            assert len((await hear(far, "pong", "error"))["data"]) > MAX_MESSAGE - 100
            for opcode in (Opcode.TEXT, Opcode.BINARY):
                await far.send(far.frame(opcode, ping_of(MAX_MESSAGE + 1)))
                assert (await hear(far, "pong", "error"))["data"]["code"] == "too_large"
            await say(far, {"type": "ping"})
            assert "data" not in await hear(far, "pong", "error")
        async with upgraded(server.port, GUEST) as far:
            await far.send(far.frame(Opcode.TEXT, setup_of(MAX_GUEST_MESSAGE)))
            line = await model.dialled()
            text = line.setup["systemInstruction"]["parts"][0]["text"]
            assert len(text) > MAX_GUEST_MESSAGE - 200
            await line.ready()
            assert "setupComplete" in await hear(far)
            await far.send(far.frame(Opcode.TEXT, setup_of(MAX_GUEST_MESSAGE + 1)))
            assert await end(far) == 1009
        async with upgraded(server.port, GUEST) as far:
            await far.send(far.frame(Opcode.TEXT, setup_of(MAX_GUEST_MESSAGE + 1)))
            assert await end(far) == 1009


async def claim(far: Far) -> None:
    """2^62 bytes are announced, and some sent."""
    await far.send(struct.pack("!BBQ", 0x81, 0x80 | 127, 1 << 62), bytes(4 + 1000))


async def exceed(far: Far) -> None:
    """Many fragments, none of them too large."""
    part = far.frame(Opcode.CONT, bytes(MIB // 4), fin=False)
    await far.send(far.frame(Opcode.BINARY, b"", fin=False), *[part] * 17)


async def overdo(far: Far) -> None:
    await far.send(far.frame(Opcode.TEXT, b"x" * (4 * MIB + 1)))


async def offend(server: Server, path: str) -> None:
    for offence in (claim, exceed, overdo):
        async with upgraded(server.port, path) as far:
            await offence(far)
            assert await end(far) == 1009, offence


@pytest.mark.proves("T20")
async def test_what_is_only_announced_and_what_only_grows_is_closed_and_costs_no_memory(
    gateway: Gateway,
) -> None:
    server = gateway.server
    for path in ("/ws", GUEST):
        await offend(server, path)
    before = resident(server)
    for _ in range(ROUNDS):
        for path in ("/ws", GUEST):
            await offend(server, path)
    assert resident(server) - before < 5 * MIB
