"""Three guests, one simulator and one gateway for all tests here: starting them takes longer than a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from browser.chromium import launch
from playwright.async_api import Browser, async_playwright
from serving import Server
from simulating import Simulator, certificate_authority
from tornado.ioloop import IOLoop

from guests.guesting import NODE, PYTHON, Guest, Name, in_page, program
from guests.stage import GatewayAt, Road, serving, simulating, web_server

T = TypeVar("T")
IN_A_PAGE = pytest.param("page", marks=pytest.mark.browser)


@pytest.fixture(scope="package", autouse=True)
def io_loop() -> Iterator[IOLoop]:
    asyncio_loop = uvloop.new_event_loop()
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=False)
    yield loop
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_asyncgens())
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_default_executor())
    loop.close(all_fds=False)


@pytest.fixture(autouse=True)
def no_task_left(io_loop: IOLoop, request: pytest.FixtureRequest) -> Iterator[None]:
    """As in the conftest above this one; Playwright and what other fixtures started may run on."""
    for started in {"guest", "road", "gateway", "gateway_at"}.intersection(request.fixturenames):
        request.getfixturevalue(started)
    asyncio_loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
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


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


class Stage:
    """Everything that is started once; what a test asks for is started with the first that does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self._started: dict[str, Any] = {}
        self.trusted = folder / "ca.pem"
        certificate_authority().cert_pem.write_to_path(self.trusted)

    async def origin(self) -> str:
        return await self._once("origin", web_server)

    async def simulator(self) -> Simulator:
        return await self._once("simulator", simulating)

    async def gateway(self) -> Server:
        simulator, origin = await self.simulator(), await self.origin()
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        return await self._once(
            "gateway", lambda: serving(simulator, home, self.trusted, ALLOWED_ORIGINS=origin)
        )

    async def browser(self) -> Browser:
        return await self._once("browser", chromium)

    async def guest(self, name: Name) -> Guest:
        if name != "page":
            return await self._once(name, lambda: program(name, self.trusted))
        browser, origin = await self.browser(), await self.origin()
        return await self._once(name, lambda: in_page(browser, origin))

    async def _once(self, name: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._started:
            self._started[name] = await self._stack.enter_async_context(make())
        found: T = self._started[name]
        return found

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(scope="package")
def stage(io_loop: IOLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    for needed in (PYTHON, NODE):
        if not needed.exists():
            pytest.skip(f"there is no {needed}: make guests installs Google's clients for these tests")
    stage = Stage(tmp_path_factory.mktemp("guests"))
    try:
        yield stage
    finally:
        io_loop.run_sync(stage.close)


@pytest.fixture(params=["python", "node", IN_A_PAGE])
def guest(request: pytest.FixtureRequest, io_loop: IOLoop, stage: Stage) -> Guest:
    found: Guest = io_loop.run_sync(lambda: stage.guest(request.param))
    return found


@pytest.fixture
def simulator(io_loop: IOLoop, stage: Stage) -> Simulator:
    found: Simulator = io_loop.run_sync(stage.simulator)
    return found


@pytest.fixture
def gateway(io_loop: IOLoop, stage: Stage) -> Server:
    found: Server = io_loop.run_sync(stage.gateway)
    return found


@pytest.fixture(scope="package")
def gateway_at(io_loop: IOLoop, stage: Stage) -> GatewayAt:
    """Makes a gateway of the test's own, with a home directory and settings, in front of the same simulator."""
    simulator: Simulator = io_loop.run_sync(stage.simulator)
    origin: str = io_loop.run_sync(stage.origin)

    def at(home: Path, *, self_signed: bool = False, **environ: str) -> AbstractAsyncContextManager[Server]:
        settings = {"ALLOWED_ORIGINS": origin} | environ
        return serving(simulator, home, stage.trusted, self_signed=self_signed, **settings)

    return at


@pytest.fixture(params=["direct", "gateway"])
def road(request: pytest.FixtureRequest, simulator: Simulator) -> Road:
    if request.param == "direct":
        return Road("direct", simulator.url, simulator)
    gateway: Server = request.getfixturevalue("gateway")
    return Road("gateway", gateway.https, simulator)
