"""T21: a bomb in a compressed frame."""

from __future__ import annotations

import zlib

import pytest
from faults.conftest import Gateway
from peering import raw_connection
from websockets.frames import Opcode

from threats.raw import GUEST, end, hear, resident, say, shake_hands, upgraded

OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits; server_max_window_bits=15",
    "permessage-bzip2, x-webkit-deflate-frame, permessage-deflate; client_no_context_takeover",
)


def bomb(size: int) -> bytes:
    """So many zeros, as permessage-deflate sends them."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.proves("T21")
async def test_no_compression_is_agreed_to_and_a_compressed_frame_is_refused_unopened(
    gateway: Gateway,
) -> None:
    packed = bomb(100_000_000)
    server = gateway.server
    assert server.ws_port is not None
    before = resident(server)
    for port, path in ((server.ws_port, "/"), (server.port, "/ws"), (server.port, GUEST)):
        for offer in OFFERS:
            async with raw_connection(port) as far:
                head = await shake_hands(far, port, path, f"Sec-WebSocket-Extensions: {offer}")
                assert "extensions" not in head.lower()
                frame = bytearray(far.frame(Opcode.TEXT, packed))
                frame[0] |= 0x40
                await far.send(bytes(frame))
                assert await end(far) == 1002
    assert resident(server) - before < 20_000_000
    async with upgraded(server.ws_port) as far:
        await say(far, {"type": "ping"})
        await hear(far, "pong")
