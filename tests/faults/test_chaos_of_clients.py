"""Clients that come and go while the model side does, too: the conversation is one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from simulating import Simulator
from talking import Talker

from faults.stage import events, idle, kinds, memory, serving, settled
from faults.test_chaos import HANDLER, SCENARIO, TOOLS
from tornado_live.simulator.testing import ControlRefused

STEPS = 8
SEED = 77
ANSWERS = ("Well then.", "Counted.")


@pytest.mark.proves("F18", "F20", "F21", "F22")
@pytest.mark.timeout(seconds=120)
async def test_whoever_comes_back_finds_every_question_answered_once(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (tmp_path / "counting_tools.py").write_text(HANDLER)
    chance = random.Random(SEED)
    asked: list[str] = []
    done: list[str] = []
    async with (
        Simulator(SCENARIO, speed=20, latency=0.5) as simulator,
        serving(
            simulator.port,
            *("--set", "handler_prefixes=counting_tools", "--set", "limits.memory_messages=1000"),
            home=tmp_path,
        ) as server,
        contextlib.AsyncExitStack() as clients,
    ):
        client = await clients.enter_async_context(Talker(f"{server.ws_url}/"))
        await client.connected()
        session = client.seen[-1]["sessionId"]
        for number in range(STEPS):
            words = f"{chance.choice(['count', 'hello'])} {number}"
            asked.append(words)
            await client.send("text", {"text": words})
            await client.send("ping")
            await client.until("pong")  # so that it was heard, whatever comes now
            acts = [
                chance.choice(["cut", "another", "stay"]),
                chance.choice(["drop", "go_away", "reset", "well"]),
            ]
            chance.shuffle(acts)
            done.append(f"{words}: {acts}")
            for act in acts:
                await asyncio.sleep(chance.choice([0, 0, 0.02, 0.1]))
                match act:
                    case "drop" | "reset":
                        with contextlib.suppress(ControlRefused):
                            await simulator.control(act, connection="all")
                    case "go_away":
                        with contextlib.suppress(ControlRefused):
                            await simulator.control({"go_away": 0}, connection="all")
                    case "cut" | "another":
                        if act == "cut":
                            client.connection.transport.abort()
                        url = f"{server.ws_url}/?sessionId={session}"
                        client = await clients.enter_async_context(Talker(url))
                        await client.until("status", lambda data: data["status"] == "CONNECTED")

            async def answered(words: str = words) -> bool:
                said = await memory(server, session)
                at = said.index(("user", words)) if ("user", words) in said else len(said)
                return any(role == "model" and text.endswith(ANSWERS) for role, text in said[at:])

            try:
                await settled(answered, 30)
            except TimeoutError as error:
                error.add_note(f"seed {SEED}: {done}; {await memory(server, session)}")
                raise
        said = [text for role, text in await memory(server, session) if role == "user"]
        assert said == asked, done
        assert kinds(await events(server, session), "model_given_up") == []
        assert (await simulator.status())["simulator"]
        assert len((await simulator.status())["conversations"]) <= 1, "one upstream at most"
        await client.connection.close()
        await settled(lambda: idle(server))
