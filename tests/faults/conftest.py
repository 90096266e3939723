"""A server that the tests of one file share, since starting one takes longer than most of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from serving import Server

from faults.stage import environment, unbroken


@dataclass(frozen=True)
class Gateway:
    """A running server, and the port at which it looks for its model side: a test listens there."""

    server: Server
    port: int


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    # Each test has a loop of its own; what outlives them has one in a thread.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = Server(environ=environment(port))
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield Gateway(server, port)
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
        unbroken(server)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
