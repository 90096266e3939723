"""T19: sockets that are opened and say nothing, or not who they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from accessing import ASKING
from faults.stage import environment, settled, unbroken
from peering import Far, raw_connection
from serving import Server, nobody_listens
from websockets.frames import Opcode

from threats.raw import GUEST, descriptors, end, hear, say, shake_hands, upgraded
from tornado_live.live.dialects import MAX_MESSAGE

NATIVE, GUESTS = 400, 100
UNKNOWN = 60
QUICK, PATIENT = {"LIMITS__HELLO_TIMEOUT_S": "1"}, {"LIMITS__HELLO_TIMEOUT_S": "2"}


async def silent(port: int | None, path: str, *headers: str) -> int:
    """The code with which it is closed."""
    async with upgraded(port, path, *headers) as far:
        return await end(far)


async def chatty(far: Far) -> int:
    """The code with which it is closed, though it pings as long as it is open."""
    try:
        while True:
            await say(far, {"type": "ping"})
            opcode, data = await far.receive()
            if opcode is Opcode.CLOSE:
                return int.from_bytes(data[:2])
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


@pytest.mark.proves("T19")
async def test_five_hundred_silent_sockets_are_closed_and_leave_nothing_behind() -> None:
    with nobody_listens() as model:
        async with Server(environ=environment(model) | QUICK) as server:
            await asyncio.gather(silent(server.ws_port, "/"), silent(server.port, GUEST))
            await settled_at(server, 0)
            before = descriptors(server)
            codes = await asyncio.gather(
                *(silent(server.port, "/ws") for _ in range(NATIVE)),
                *(silent(server.port, GUEST) for _ in range(GUESTS)),
            )
            assert codes == [4408] * NATIVE + [1008] * GUESTS
            await settled_at(server, before)
            unbroken(server)


async def settled_at(server: Server, most: int) -> None:
    """Waits until no more descriptors are open than `most`, or for 0 until two looks show the same."""
    seen = 0

    async def looked() -> bool:
        nonlocal seen
        last, seen = seen, descriptors(server)
        return seen <= most or (not most and seen == last)

    await settled(looked)


@pytest.mark.proves("T19")
async def test_who_does_not_say_who_it_is_is_closed_whatever_else_it_says(tmp_path: Path) -> None:
    with nobody_listens() as model:
        async with Server(environ=environment(model) | ASKING | PATIENT, home=tmp_path) as server:
            origin = f"Origin: http://127.0.0.1:{server.port}"

            async def ping() -> int:
                async with raw_connection(server.port) as far:
                    await shake_hands(far, server.port, "/ws", origin)
                    return await chatty(far)

            async def introduced(message: object) -> int:
                async with upgraded(server.port, "/ws", origin) as far:
                    await say(far, message)
                    assert (await hear(far))["type"] == "error"
                    return await end(far)

            await introduced({"type": "connect", "data": {"token": "nobody's"}})
            await settled_at(server, 0)
            before = descriptors(server)
            silence = [silent(server.port, "/ws", origin) for _ in range(UNKNOWN)]
            assert await asyncio.gather(ping(), *silence) == [4408] * (UNKNOWN + 1)
            for message in ({"type": "connect"}, {"type": "text", "data": {"text": "hello"}}):
                assert await introduced(message) == 4401
            assert await introduced({"type": "connect", "data": {"token": "nobody's"}}) == 4401
            assert await introduced({"type": "no_such_type"}) == 4400
            async with upgraded(server.port, "/ws", origin) as far:
                await far.send(far.frame(Opcode.TEXT, bytes(MAX_MESSAGE + 1), fin=False))
                assert await end(far) == 1009
            assert await silent(server.port, GUEST, origin) == 1008
            await settled_at(server, before)
            unbroken(server)
