"""A tool that ends when the test says so: it waits at a gate, and the test opens the gate with its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_DEADLINE_S = 30.0

_TOOLS = """\
version: 1
tools:
  wait:
    description: Waits for the test.
    parameters: {type: object, properties: {n: {type: integer}}}
    python: gated_tools:wait
    timeout: 20s
"""
_HANDLER = """\
import asyncio
import json

async def wait(n=0):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        writer.write(json.dumps(n).encode() + b"\\n")
        return json.loads(await reader.readuntil())
    finally:
        writer.close()
"""


class Waiting:
    """One run of the tool, at the gate."""

    def __init__(self, n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n = n
        self._reader = reader
        self._writer = writer

    def finish(self, answer: dict[str, Any]) -> None:
        self._writer.write(json.dumps(answer).encode() + b"\n")

    async def gone(self, within: float = _DEADLINE_S) -> None:
        """Waits until the run is over: it was cancelled, or has taken its answer."""
        async with asyncio.timeout(within):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(100):
                    pass


class Gate:
    """`async with Gate(home) as gate:` writes tools.yaml with the tool `wait`; serve with `*gate.arguments`."""

    arguments = ("--set", "handler_prefixes=gated_tools")

    def __init__(self, home: Path, options: str = "") -> None:
        self._home = home
        self._options = options
        self._arrivals: asyncio.Queue[Waiting] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self.runs = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        more = "".join(f"    {line}\n" for line in self._options.splitlines())
        (self._home / "tools.yaml").write_text(_TOOLS + more)
        (self._home / "gated_tools.py").write_text(_HANDLER.replace("PORT", str(port)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def arrival(self, within: float = _DEADLINE_S) -> Waiting:
        """The next run of the tool, once it has begun."""
        async with asyncio.timeout(within):
            return await self._arrivals.get()

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            n = json.loads(await reader.readuntil())
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        self.runs += 1
        self._arrivals.put_nowait(Waiting(n, reader, writer))
