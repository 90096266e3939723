"""A gateway that the tests of one file share, and simulators for those that compare."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import ROOT, Server

from tornado_live.simulator.testing import Simulator

UPSTREAM_KEY = "a-key-of-the-operator"
SPEED = 30.0

TOOLS = """\
version: 1
tools:
  shelf:
    description: Says on which shelf something is.
    parameters: {type: object, properties: {thing: {type: string}}}
    python: our_tools:shelf
  wait:
    description: Waits for the test.
    parameters: {type: object, properties: {port: {type: integer}, n: {type: integer}}}
    python: our_tools:wait
    timeout: 20s
"""
HANDLERS = """\
import asyncio
import json

async def shelf(thing=""):
    return {"shelf": 7}

async def wait(port=0, n=0):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(json.dumps(n).encode() + b"\\n")
        return json.loads(await reader.readuntil())
    finally:
        writer.close()
"""


@dataclass(frozen=True)
class Gateway:
    """A running server with the tools `shelf` and `wait`, and the port where it looks for its model side."""

    server: Server
    port: int

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="module")
def port() -> int:
    """Where the gateway of this file looks for its model side."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        number: int = reserved.getsockname()[1]
    return number


@pytest.fixture(scope="module")
def gateway(port: int) -> Iterator[Gateway]:
    # Each test has a loop of its own; what outlives them has one in a thread.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        server = made(home, port)
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield Gateway(server, port)
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        unbroken(server)


def made(home: Path, port: int, *args: str, **environ: str) -> Server:
    """A gateway in that directory, for the model side at that port."""
    (home / "tools.yaml").write_text(TOOLS)
    (home / "our_tools.py").write_text(HANDLERS)
    given = {
        "GEMINI_BASE_URL": f"http://127.0.0.1:{port}",
        "GEMINI_API_KEY": UPSTREAM_KEY,
        "PYTHONPATH": f"{home}:{ROOT}",
    }
    return Server("--set", "handler_prefixes=our_tools", *args, home=home, environ=given | environ)


def unbroken(server: Server) -> None:
    """Whatever was broken, it was not the server; and it wrote down nobody's key."""
    assert "conversation_failed" not in server.log
    assert "Traceback" not in server.log
    assert "a-key-of-" not in server.log


@pytest.fixture(scope="module")
def simulator(scenario: object, port: int) -> Iterator[Simulator]:
    """The gateway's model side. A file that uses it has a fixture `scenario`."""
    arguments = ("--port", str(port))
    with Simulator(scenario, speed=SPEED, keep_frames=True, arguments=arguments) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture(scope="module")
def service(scenario: object) -> Iterator[Simulator]:
    """The same, for a client that talks to it directly."""
    with Simulator(scenario, speed=SPEED, keep_frames=True) as running:  # type: ignore[arg-type]
        yield running
