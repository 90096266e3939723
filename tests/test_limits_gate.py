"""What one address, and one user, may do in a minute: in one process, in several, and with the store away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stores import Clock
from test_leases import Shop, turns

from tornado_live.access.leases import Leases
from tornado_live.access.limits import OverLimit
from tornado_live.caller import Caller
from tornado_live.handlers.gate import MOST_KNOWN, Gate
from tornado_live.settings import Limits

FAR, OTHER = "203.0.113.7", "203.0.113.8"
ALICE, BOB = (Caller(user, known=True) for user in ("alice", "bob"))
NOBODY = Caller("local")


class Doors:
    """Processes at one store."""

    def __init__(self, count: int = 1, **limits: Any) -> None:
        self.clock = Clock()
        self.shop = Shop(self.clock)
        self.leases = [Leases(self.shop, clock=self.clock) for _ in range(count)]
        self.gates = [Gate(Limits(**limits), one, clock=self.clock) for one in self.leases]

    async def __aenter__(self) -> Doors:
        return self

    async def __aexit__(self, *_: object) -> None:
        for leases in self.leases:
            await leases.close()


async def let_in(asking: Callable[[], Awaitable[None]], count: int, limit: str) -> int:
    """How many of so many are let in; all others are told of this limit, and when to come again."""
    refused: list[OverLimit] = []
    for _ in range(count):
        try:
            await asking()
        except OverLimit as over:
            refused.append(over)
    assert {over.limit for over in refused} <= {limit}
    assert all(over.retry_after_ms and over.retry_after_ms <= 60_000 for over in refused)
    return count - len(refused)


async def handshakes(gate: Gate, address: str | None, count: int) -> int:
    return await let_in(lambda: gate.handshake(address), count, "handshakes_per_minute")


async def sessions(gate: Gate, address: str | None, caller: Caller, count: int) -> int:
    return await let_in(lambda: gate.session_made(address, caller), count, "sessions_per_minute")


async def test_an_address_opens_so_many_sockets_in_a_minute_and_others_notice_nothing() -> None:
    async with Doors(handshakes_per_minute=20) as doors:
        (gate,) = doors.gates
        assert await handshakes(gate, FAR, 50) == 20
        assert await handshakes(gate, OTHER, 10) == 10
        doors.clock.now += 60
        assert await handshakes(gate, FAR, 50) == 20


async def test_processes_count_together() -> None:
    async with Doors(2, handshakes_per_minute=20, sessions_per_minute=30) as doors:
        opened = [await handshakes(gate, FAR, 1) for _ in range(30) for gate in doors.gates]
        assert sum(opened) == 20
        made = [await sessions(gate, None, ALICE, 1) for _ in range(30) for gate in doors.gates]
        assert sum(made) == 30


@pytest.mark.proves("T34")
async def test_a_flood_of_one_address_costs_the_store_next_to_nothing() -> None:
    async with Doors(handshakes_per_minute=120, sessions_per_minute=60) as doors:
        (gate,) = doors.gates
        assert await handshakes(gate, FAR, 5000) == 120
        assert await sessions(gate, FAR, ALICE, 5000) == 60
        assert doors.shop.asked < 120 / 6 + 2 * 60 / 3 + 10


@pytest.mark.proves("T34")
async def test_a_flood_from_very_many_addresses_does_not_grow_the_memory() -> None:
    async with Doors(handshakes_per_minute=20) as doors:
        (gate,) = doors.gates
        for number in range(MOST_KNOWN + 2000):
            await gate.handshake(f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}")
        assert len(gate) <= MOST_KNOWN
        assert len(doors.leases[0]) <= MOST_KNOWN


async def test_a_known_user_makes_so_many_sessions_from_whichever_addresses() -> None:
    async with Doors(sessions_per_minute=10) as doors:
        (gate,) = doors.gates
        made = [await sessions(gate, f"203.0.113.{number}", ALICE, 1) for number in range(50)]
        assert sum(made) == 10
        assert await sessions(gate, OTHER, BOB, 5) == 5


async def test_where_nobody_says_who_they_are_only_addresses_are_counted() -> None:
    async with Doors(sessions_per_minute=10) as doors:
        (gate,) = doors.gates
        assert await sessions(gate, FAR, NOBODY, 50) == 10
        assert await sessions(gate, OTHER, NOBODY, 50) == 10


async def test_who_asks_for_others_is_not_counted_and_everybody_else_is() -> None:
    async with Doors(requests_per_minute=10) as doors:
        (gate,) = doors.gates
        backend = Caller("shop", known=True, roles=frozenset({"backend"}))
        for _ in range(50):
            await gate.request(FAR, backend)
        for _ in range(10):
            await gate.request(FAR, ALICE)
        with pytest.raises(OverLimit) as over:
            await gate.request(FAR, ALICE)
        assert over.value.limit == "requests_per_minute"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None, "", "unix"])
async def test_this_machine_and_who_has_no_address_are_never_counted(address: str | None) -> None:
    limits = {"handshakes_per_minute": 1, "sessions_per_minute": 1, "requests_per_minute": 1}
    async with Doors(**limits, denied_per_minute=1, connections_per_address=1) as doors:
        (gate,) = doors.gates
        assert await handshakes(gate, address, 20) == 20
        assert await sessions(gate, address, NOBODY, 20) == 20
        for _ in range(20):
            await gate.request(address, NOBODY)
            gate.denied(address)
            gate.check_address(address)
            gate.connected(address)


async def test_addresses_of_one_network_of_ipv6_are_one_and_spellings_are_one() -> None:
    async with Doors(handshakes_per_minute=10) as doors:
        (gate,) = doors.gates
        assert sum([await handshakes(gate, f"2001:db8::{number:x}", 1) for number in range(50)]) == 10
        assert await handshakes(gate, "2001:db8:0:1::1", 5) == 5
        assert await handshakes(gate, FAR, 5) == 5
        assert await handshakes(gate, f"::ffff:{FAR}", 50) == 5


async def test_after_too_many_wrong_credentials_no_more_is_looked_at_from_there() -> None:
    async with Doors(2, denied_per_minute=30) as doors:
        here, there = doors.gates
        for _ in range(30):
            here.check_address(FAR)
            here.denied(FAR)
            await turns()
        with pytest.raises(OverLimit) as over:
            here.check_address(FAR)
        assert over.value.limit == "denied_per_minute"
        here.check_address(OTHER)
        # Another process hears of it from the store.
        there.denied(FAR)
        await turns()
        with pytest.raises(OverLimit):
            there.check_address(FAR)
        doors.clock.now += 60
        here.check_address(FAR)
        await turns()


async def test_an_address_that_shows_nothing_wrong_costs_the_store_no_question() -> None:
    async with Doors(denied_per_minute=30) as doors:
        (gate,) = doors.gates
        for number in range(200):
            gate.check_address(f"203.0.113.{number}")
        await turns()
        assert (doors.shop.asked, len(doors.leases[0]), len(gate)) == (0, 0, 0)


async def test_whoever_is_refused_uses_up_nothing_for_others_at_the_same_address() -> None:
    async with Doors(handshakes_per_minute=60) as doors:
        (gate,) = doors.gates
        doors.shop.away = True
        assert await handshakes(gate, FAR, 100) == 60
        opened = 0
        for _ in range(40):
            doors.clock.now += 0.25
            opened += await handshakes(gate, FAR, 1)
        assert opened == 10


async def test_wrong_credentials_that_come_all_at_once_are_counted_before_the_store_answers() -> None:
    async with Doors(denied_per_minute=30) as doors:
        (gate,) = doors.gates
        doors.shop.at_once = False
        looked_at = 0
        for _ in range(1000):
            try:
                gate.check_address(FAR)
            except OverLimit:
                continue
            looked_at += 1
            gate.denied(FAR)
        assert looked_at == 30
        await turns()
        doors.shop.at_once = True
        doors.shop.answer(0)


async def test_sockets_of_an_address_are_counted_while_they_are_open() -> None:
    async with Doors(connections_per_address=3) as doors:
        (gate,) = doors.gates
        for _ in range(3):
            gate.connected(FAR)
        with pytest.raises(OverLimit) as over:
            gate.connected(FAR)
        assert over.value.limit == "connections_per_address"
        gate.connected(OTHER)
        gate.disconnected(FAR)
        gate.connected(FAR)


async def test_while_the_store_is_away_each_process_counts_alone_and_who_talks_can_come_back() -> None:
    async with Doors(handshakes_per_minute=20) as doors:
        (gate,) = doors.gates
        doors.shop.away = True
        assert await handshakes(gate, FAR, 50) == 20


async def test_a_limit_that_is_off_holds_nobody() -> None:
    off = dict.fromkeys(("handshakes_per_minute", "sessions_per_minute", "denied_per_minute"))
    async with Doors(**off, connections_per_address=None, requests_per_minute=None) as doors:
        (gate,) = doors.gates
        assert await handshakes(gate, FAR, 500) == 500
        assert await sessions(gate, FAR, ALICE, 500) == 500
        for _ in range(500):
            gate.denied(FAR)
            gate.check_address(FAR)
            gate.connected(FAR)
            await gate.request(FAR, ALICE)
        assert doors.shop.asked == 0


async def test_requests_at_the_same_time_are_not_more_than_there_are() -> None:
    async with Doors(2, handshakes_per_minute=20) as doors:
        doors.shop.at_once = False
        async with asyncio.TaskGroup() as everybody:
            asking = [
                everybody.create_task(handshakes(gate, FAR, 1)) for _ in range(40) for gate in doors.gates
            ]
            while not all(task.done() for task in asking):
                doors.shop.answer(1)
                await turns(1)
        assert sum(task.result() for task in asking) == 20
        doors.shop.at_once = True
