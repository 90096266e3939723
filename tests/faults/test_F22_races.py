"""F22: both sides close, and calls end, in every order at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from talking import Talker
from websockets.exceptions import ConnectionClosed

from faults.gate import Gate, Waiting
from faults.model import ModelLine, ModelSide
from faults.stage import idle, serving, settled

ROUNDS = 250
SEED = 22

Act = Callable[[], Awaitable[object]]


def sockets_of(pid: int) -> int:
    return sum(
        "socket:" in str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()
    )


def acts(client: Talker, line: ModelLine, run: Waiting, chance: random.Random) -> list[Act]:
    """What happens at once in this round: an end of each side, and what a model and a tool do meanwhile."""

    async def cut() -> None:
        client.connection.transport.abort()

    async def drop() -> None:
        line.drop()

    async def finish() -> None:
        run.finish({"ok": True})

    ends: list[Act] = [cut, client.connection.close, lambda: client.send("disconnect")]
    losses: list[Act] = [
        drop,
        lambda: line.close(1000),
        lambda: line.close(1011, "Internal error encountered."),
        lambda: line.close(1008, "The operation was aborted."),
        lambda: line.go_away("0s"),
    ]
    others: list[Act] = [
        finish,
        lambda: line.send({"serverContent": {"interrupted": True}}),
        lambda: line.send({"toolCallCancellation": {"ids": ["c1"]}}),
        lambda: line.say("Too late.", bytes(480)),
        lambda: client.speak(bytes(640)),
        lambda: client.send("text", {"text": "Still there?"}),
        lambda: client.send("connect"),
    ]
    chosen = [chance.choice(ends), chance.choice(losses), *chance.sample(others, 3)]
    chance.shuffle(chosen)
    return chosen


@pytest.mark.proves("F22")
@pytest.mark.timeout(seconds=90)
async def test_whatever_closes_first_nothing_is_left_behind(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with (
        Gate(tmp_path) as gate,
        ModelSide() as model,
        serving(
            model.port,
            *gate.arguments,
            *("--set", "limits.grace_s=0.05", "--set", "limits.hello_timeout_s=2"),
            home=tmp_path,
        ) as server,
    ):
        before = sockets_of(server.pid)
        for _ in range(ROUNDS):
            async with Talker(f"{server.ws_url}/") as client:
                await client.send("connect")
                line = await model.dialled()
                await line.ready("h1")
                await line.call("c1", "wait", {"n": 1})
                run = await gate.arrival()
                for act in acts(client, line, run, chance):
                    try:
                        await act()
                    except ConnectionClosed:
                        pass  # the other side was quicker
                    if chance.random() < 0.3:
                        await asyncio.sleep(0)
                client.connection.transport.abort()
            await run.gone()
            for late in model.undialled():
                (await model.dialled(late.handle)).drop()

        async def nothing_left() -> bool:
            return await idle(server) and not model.open_lines

        await settled(nothing_left)

        async def closed() -> bool:
            return sockets_of(server.pid) <= before

        await settled(closed)
