"""One event loop, one Playwright and one Chromium for all tests here: starting them takes longer than a test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
import uvloop
from chromium import EXECUTABLE, FAKE_MICROPHONE, launch
from playwright.async_api import Browser, Playwright, async_playwright
from tornado.ioloop import IOLoop


@pytest.fixture(scope="package", autouse=True)
def io_loop() -> Iterator[IOLoop]:
    asyncio_loop = uvloop.new_event_loop()
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=False)
    yield loop
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_asyncgens())
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_default_executor())
    loop.close(all_fds=False)


@pytest.fixture(scope="package")
def playwright(io_loop: IOLoop) -> Iterator[Playwright]:
    if not EXECUTABLE.exists():
        reason = f"no Chromium at {EXECUTABLE}: apt install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    manager = async_playwright()
    started = io_loop.run_sync(manager.start)
    yield started
    io_loop.run_sync(started.stop)


@pytest.fixture(scope="package")
def chromium(io_loop: IOLoop, playwright: Playwright) -> Iterator[Browser]:
    """With a microphone that beeps once a second; pages are asked for permission as people are."""
    browser = io_loop.run_sync(lambda: launch(playwright, FAKE_MICROPHONE))
    yield browser
    io_loop.run_sync(browser.close)


@pytest.fixture(autouse=True)
def no_task_left(io_loop: IOLoop) -> Iterator[None]:
    """As in the conftest above this one; Playwright and what other fixtures started may run on."""
    asyncio_loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
    before = asyncio.all_tasks(asyncio_loop)
    yield
    asyncio_loop.run_until_complete(asyncio.sleep(0))
    leftover = [
        task
        for task in asyncio.all_tasks(asyncio_loop) - before
        if not task.done() and "playwright" not in repr(task)
    ]
    for task in leftover:
        task.cancel()
    assert leftover == [], "tasks outlived the test"
