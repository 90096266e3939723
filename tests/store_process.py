"""A process of its own with a SQLite store: told what to do by lines of JSON, it answers each with one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from tornado_live.observe.events import Event
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import MemoryItem

TTL = 1800.0


class StoreProcess:
    """The tests' side of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def does(self, work: str, **given: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"work": work, **given}).encode() + b"\n")
        return json.loads(await self.process.stdout.readline())


@asynccontextmanager
async def store_process(
    path: Path, node: str, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[StoreProcess]:
    """Ended in order, if it still runs; whatever it had to complain of fails the test."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(path),
        node,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **(environ or {})},
        limit=2**24,
    )
    try:
        yield StoreProcess(process)
        assert process.stdin is not None
        process.stdin.close()
        _, complaints = await process.communicate()
        assert complaints.decode() == ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Work:
    """What it can be told to do, each by its name."""

    def __init__(self, store: SqliteSessionStore, node: str) -> None:
        self._store = store
        self._node = node

    async def create(self, count: int) -> list[str]:
        sessions = [
            await self._store.create(user="ann", assistant="default", metadata={}, node=self._node)
            for _ in range(count)
        ]
        return [session.id for session in sessions]

    async def hold(self, ids: list[str]) -> list[list[str]]:
        found = await asyncio.gather(*(self._store.hold(id, node=self._node) for id in ids))
        assert not any(hold.abandoned for hold in found)
        return [sorted(hold.leaving) for hold in found]

    async def beat(self, ids: list[str]) -> list[str]:
        return sorted((await self._store.beat(self._node, ids)).taken)

    async def use(self, name: str, times: int) -> list[str]:
        found = await asyncio.gather(*(self._store.use_credential(name) for _ in range(times)))
        return [each.state for each in found if each is not None]

    async def take(self, counter: str, limit: int, times: int) -> int:
        """How much of it was got and kept: one of each three is given back."""
        kept = 0
        for _ in range(times):
            got = (await self._store.take(counter, 3, limit=limit, window_s=3600)).amount
            self._store.give_back(counter, min(got, 1))
            kept += got - min(got, 1)
        await self._store.flush()
        return kept

    async def talk(self, ids: list[str], turns: int) -> None:
        """As conversations do: everything is queued; what is asked meanwhile is asked of all of them."""
        for turn in range(1, turns + 1):
            for id in ids:
                self._store.touch(id)
                self._store.remember(id, MemoryItem("user", f"{self._node} {turn}", turn, 0.0))
                self._store.record(id, Event(0.0, "turn", {"turn": turn}))
                self._store.set_usage(id, {"totalTokens": turn})
            if turn % 5 == 0:
                await self._store.get(ids[0], user="ann")
                await self._store.beat(self._node, ids)
        await self._store.flush()

    async def leave(self) -> None:
        await self._store.leave(self._node)

    async def texts(self, id: str) -> list[str]:
        return [item.text for item in await self._store.memory(id)]

    async def times(self, id: str) -> list[float]:
        self._store.touch(id)
        session = await self._store.get(id, user="ann")
        return [session.created_at, session.last_active_at, session.expires_at]


async def main(path: str, node: str) -> None:
    bounds: dict[str, int] = {"memory_messages": 10_000, "memory_bytes": 10_000_000, "events": 10_000}
    store = await SqliteSessionStore.open(Path(path), ttl_s=TTL, **bounds)
    work, loop = Work(store, node), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        answer = await getattr(work, told.pop("work"))(**told)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
