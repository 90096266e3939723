"""F33: a hundred people talk through nginx to two servers, and one of the servers is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import ssl
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from nginx import Nginx
from serving import Server
from simulating import Simulator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from faults.nodes import shared_file
from faults.stage import environment, unbroken

PEOPLE = 100
AGAIN_S = 15.0
# All of them have one address here, which nginx would take for one client's storm.
MANY = {
    "zone=handshakes:10m rate=10r/s;": "zone=handshakes:10m rate=1000r/s;",
    "zone=handshakes burst=100 nodelay;": "zone=handshakes burst=1000 nodelay;",
    "limit_conn connections 200;": "limit_conn connections 2000;",
}


class Person:
    """Asks one question after the other, and comes back to the session whenever the line has ended."""

    def __init__(self, number: int, url: str, tls: ssl.SSLContext) -> None:
        self.number = number
        self.session = ""
        self.node = ""
        self.said: list[tuple[str, str]] = []
        """What this person was told is said, in the order of the turns."""
        self.closes: list[int] = []
        self.refusals: list[int] = []
        self.turns: list[float] = []
        """When each turn was over."""
        self.warned: list[str] = []
        self.draining = False
        self.stop = False
        self._url = url
        self._tls = tls
        self._asked = 0

    async def live(self) -> None:
        while not self.stop:
            address = f"{self._url}/ws" + (f"?sessionId={self.session}" if self.session else "")
            try:
                async with connect(address, ssl=self._tls, compression=None, proxy=None) as socket:
                    self.node = (socket.response.headers if socket.response else {}).get("X-Served-By", "")
                    await self._talk(socket)
                    return
            except ConnectionClosed as end:
                self.closes.append(end.rcvd.code if end.rcvd is not None else 1006)
            except InvalidStatus as refused:
                self.refusals.append(refused.response.status_code)
            await asyncio.sleep(random.uniform(0.2, 0.6))  # as the client module does after a cut

    async def _talk(self, socket: ClientConnection) -> None:
        await socket.send('{"type": "connect"}')
        asks_at: float | None = None
        while True:
            try:
                async with asyncio.timeout_at(asks_at):
                    message: dict[str, Any] = json.loads(await socket.recv())
            except TimeoutError:
                asks_at = None
                await self._ask(socket)
                continue
            self.session = message.get("sessionId", self.session)
            data = message.get("data") or {}
            match message["type"]:
                case "status" if data["status"] == "CONNECTED":
                    await self._ask(socket)
                case "status" if data["status"] == "DRAINING":
                    self.draining = True
                case "warning":
                    self.warned.append(data["code"])
                case "transcription" if data["isFinal"]:
                    self.said.append(("model", data["text"]))
                case "turn_complete":
                    self.turns.append(time.monotonic())
                    if self.stop:
                        return
                    asks_at = asyncio.get_running_loop().time() + random.uniform(0.2, 0.6)

    async def _ask(self, socket: ClientConnection) -> None:
        self._asked += 1
        question = f"Hello, this is {'so ' * self._asked}nice."
        self.said.append(("user", question))
        await socket.send(json.dumps({"type": "text", "data": {"text": question}}))


def answered(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without a question that met the closing of the line, which its person has to ask again."""
    following = [role for role, _ in said[1:]] + [""]
    return [
        item for item, after in zip(said, following, strict=True) if item[0] != "user" or after == "model"
    ]


async def all_have(people: list[Person], turns: int, after: float = 0.0) -> None:
    try:
        async with asyncio.timeout(60):
            while any(sum(at > after for at in one.turns) < turns for one in people):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        waiting = [vars(one) for one in people if sum(at > after for at in one.turns) < turns]
        raise AssertionError(f"{len(waiting)} of {len(people)} wait: {waiting[:3]}") from None


@pytest.mark.alone
@pytest.mark.timeout(seconds=240)
@pytest.mark.proves("F33")
async def test_nobody_is_cut_off_and_nothing_is_forgotten_when_one_of_two_servers_stops(
    tmp_path: Path,
) -> None:
    async with Simulator(speed=4) as simulator:
        given = environment(simulator.port) | shared_file(tmp_path) | {"LIMITS__DRAIN_S": "10"}
        async with (
            Server("--set", "log_level=warning", environ=given) as one,
            Server("--set", "log_level=warning", environ=given) as other,
            Nginx(one.port, other.port, changes=MANY) as proxy,
        ):
            people = [Person(number, proxy.ws_url, proxy.tls) for number in range(PEOPLE)]
            async with asyncio.TaskGroup() as lives:
                for person in people:
                    lives.create_task(person.live())
                await all_have(people, 1)
                os.kill(one.pid, signal.SIGTERM)
                told = time.monotonic()
                assert await one.ended() == 0
                gone_s = time.monotonic() - told
                moved = [person for person in people if person.draining]
                await all_have(people, 1, after=told + gone_s)
                for person in people:
                    person.stop = True
            async with httpx.AsyncClient(base_url=other.url, trust_env=False) as http:
                for person in people:
                    shown = (await http.get(f"/api/sessions/{person.session}?include=memory")).json()
                    memory = [(item["role"], item["text"]) for item in shown["memory"]]
                    assert {role for role, _ in memory} == {"user", "model"}
                    assert answered(memory) == answered(person.said)[-len(answered(memory)) :], vars(person)
                    assert len(memory) >= min(len(answered(person.said)), 50)
            unbroken(one)
            unbroken(other)
    closes = Counter(code for person in people for code in person.closes)
    again = [min(at for at in person.turns if at > told + 0.5) - told for person in moved]
    print(
        json.dumps(
            {
                "moved": len(moved),
                "closes": closes,
                "server_gone_s": round(gone_s, 2),
                "next_turn_s": {"p50": round(median(again), 2), "max": round(max(again), 2)},
            }
        )
    )
    assert 30 <= len(moved) <= 70, "nginx spreads them"
    assert set(closes) <= {1001}, closes
    assert sum(closes.values()) == len(moved)
    assert gone_s < AGAIN_S
    assert max(again) < AGAIN_S
    assert not [person.warned for person in people if person.warned]
