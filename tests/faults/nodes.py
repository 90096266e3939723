"""Two servers that share their sessions, and clients that move between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving import Server
from talking import Talker

from faults.model import ModelLine, ModelSide
from faults.stage import Talk, environment, unbroken


@dataclass(frozen=True)
class Nodes:
    """Each has its own home, and the other's sessions."""

    one: Server
    other: Server
    model: ModelSide

    @contextlib.asynccontextmanager
    async def talking(self, handle: str | None = "h1", *, on: Server | None = None) -> AsyncIterator[Talk]:
        """A client whose conversation has been opened, on the one node."""
        server = on or self.one
        async with Talker(f"{server.ws_url}/") as client:
            await client.send("connect")
            line = await self.model.dialled()
            await line.ready(handle)
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            yield Talk(server, client, line)

    @contextlib.asynccontextmanager
    async def coming_back(self, session: str, *, to: Server | None = None) -> AsyncIterator[Return]:
        """The client of `session` comes to the other node, and finds no conversation running there."""
        server = to or self.other
        async with Talker(f"{server.ws_url}/?sessionId={session}") as client:
            await client.send("connect")
            line = await self.model.dialled()
            await line.ready("h2")
            await client.until("status", lambda data: data["status"] == "CONNECTED")
            yield Return(server, client, line)


class Return(Talk):
    """A conversation that goes on. `connected` is what CONNECTED said, `warned` the codes of the warnings."""

    @property
    def connected(self) -> dict[str, object]:
        told = [message["data"] for message in self.client.seen if message["type"] == "status"]
        return next(data for data in told if data["status"] == "CONNECTED")

    @property
    def warned(self) -> list[str]:
        return [message["data"]["code"] for message in self.client.seen if message["type"] == "warning"]


@contextlib.asynccontextmanager
async def two_nodes(
    store: Mapping[str, str],
    *,
    exit_codes: tuple[int, int] = (0, 0),
    command: Sequence[str] = ("-m", "tornado_live", "serve"),
    **environ: str,
) -> AsyncIterator[Nodes]:
    """`store` are the settings that make them share their sessions. `command` starts each of them."""
    async with ModelSide() as model:
        given = environment(model.port) | dict(store) | environ
        one, other = (Server(environ=given, exit_code=code, command=command) for code in exit_codes)
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.TaskGroup() as starting:
                for server in (one, other):
                    starting.create_task(stack.enter_async_context(server))
            yield Nodes(one, other, model)
            for server in (one, other):
                unbroken(server)


def shared_file(folder: Path) -> Mapping[str, str]:
    """Sessions in one SQLite file."""
    return {"DATA_DIR": str(folder / "shared")}


__all__ = ["ModelLine", "Nodes", "Return", "shared_file", "two_nodes"]
