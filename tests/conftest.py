"""What every test shares: a fresh uvloop per test that must end with no task left over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop
from tornado.ioloop import IOLoop


@pytest.fixture(autouse=True)
def io_loop() -> Iterator[IOLoop]:
    """The loop that pytest-tornasync runs coroutine tests on; a task that outlives its test fails it."""
    asyncio_loop = uvloop.new_event_loop()
    asyncio.set_event_loop(asyncio_loop)
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=True)
    yield loop
    leftover = [task for task in asyncio.all_tasks(asyncio_loop) if not task.done()]
    for task in leftover:
        task.cancel()
    if leftover:
        asyncio_loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_asyncgens())
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_default_executor())
    loop.close(all_fds=False)
    asyncio.set_event_loop(None)
    assert leftover == [], "tasks outlived the test"
