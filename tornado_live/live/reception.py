"""The first message of a socket, which says whose conversation it belongs to."""

from __future__ import annotations

import asyncio

from tornado_live.live.peer import WebSocketPeer


class Gone(Exception):
    """The socket was closed before it said anything."""


class _Reception:
    def __init__(self, peer: WebSocketPeer) -> None:
        self._peer = peer
        self.first: asyncio.Future[tuple[bytes, bool]] = asyncio.get_running_loop().create_future()

    def on_message(self, data: bytes, binary: bool) -> None:
        self._peer.detach()
        if not self.first.done():
            self.first.set_result((data, binary))

    def on_closed(self, code: int, reason: str) -> None:
        if not self.first.done():
            self.first.set_exception(Gone())

    def on_writable(self, writable: bool) -> None:
        """Nothing is sent yet."""


async def first_message(peer: WebSocketPeer) -> tuple[bytes, bool]:
    """What it says first, and whether in a binary frame; whatever follows waits in the peer for a listener.

    Raises Gone. How long to wait is the caller's to say.
    """
    reception = _Reception(peer)
    peer.attach(reception)
    return await reception.first
