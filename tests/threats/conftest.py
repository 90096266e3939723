"""A server that asks nobody who they are, for tests that share it: starting one takes longer than most of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from faults.conftest import Gateway
from faults.stage import environment, unbroken
from serving import Server, nobody_listens


@pytest.fixture(scope="package")
def gateway() -> Iterator[Gateway]:
    """Whatever comes over its sockets, it writes no traceback and ends as it should."""
    # Each test has a loop of its own; what outlives them has one in a thread.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with nobody_listens() as port:
            server = Server(environ=environment(port), tls=True)
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
