"""T14: one session is opened by many at once, again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from accessing import ASKING, api_key, bearer
from faults.model import ModelSide
from faults.stage import serving
from talking import Talker

SOCKETS = 50
ROUNDS = 10


@pytest.mark.proves("T14")
async def test_of_fifty_sockets_at_once_one_is_left_each_time_with_one_line_to_the_model(
    tmp_path: Path,
) -> None:
    shared = {"DATA_DIR": str(tmp_path / "data")}
    loop = asyncio.get_running_loop()
    async with ModelSide() as model, serving(model.port, **shared, **ASKING) as server:
        shown = bearer(await api_key(shared, "web", user="ann"))
        async with Talker(f"{server.ws_url}/", headers=shown) as first:
            await first.send("connect")
            line = await model.dialled()
            await line.ready()
            await first.until("status", lambda data: data["status"] == "CONNECTED")
            session = first.seen[-1]["sessionId"]
            alive, ended = first, loop.create_task(first.closed(60))
            for number in range(ROUNDS):
                others = [
                    Talker(f"{server.ws_url}/?sessionId={session}", headers=shown) for _ in range(SOCKETS)
                ]
                await asyncio.gather(*(other.__aenter__() for other in others))
                ends = {ended: alive} | {loop.create_task(other.closed(60)): other for other in others}
                while len(ends) > 1:
                    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    for end in done:
                        assert end.result()[0] == 4409
                        del ends[end]
                ((ended, alive),) = ends.items()
                await alive.send("text", {"text": f"Who is left of round {number}?"})
                assert await line.typed() == f"Who is left of round {number}?"
                assert (model.handshakes, model.open_lines) == (1, [line])
                assert not ended.done()
            await alive.connection.close()
            await ended
