"""What processes spend of one counter: in any order, with the store away, and at the end of a window."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Clock

from tornado_live.access.leases import IDLE_S, MOST_COUNTERS, RECHECK_S, Leases, Spent
from tornado_live.access.limits import Charge, OverLimit, rate
from tornado_live.errors import Unavailable
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import Taken, out_of_reach

DAY_S = 86_400.0


def charge(most: int, lease: int = 5, window_s: float = DAY_S) -> Charge:
    return Charge("tokens_per_day", "tokens_per_day:user:alice", most, window_s, lease, "tokens")


class Shop:
    """A store of counters that answers when it is told to, or at once."""

    def __init__(self, clock: Clock, *, at_once: bool = True) -> None:
        self.clock = clock
        self.at_once = at_once
        self.away = False
        self.asked = 0
        self.pending: list[asyncio.Future[None]] = []
        self.taken: dict[str, tuple[int, float]] = {}
        self.in_flight: dict[str, int] = {}

    async def take(self, counter: str, amount: int, *, limit: int, window_s: float) -> Taken:
        self.asked += 1
        self.in_flight[counter] = self.in_flight.get(counter, 0) + 1
        try:
            if not self.at_once:
                waiting = asyncio.get_running_loop().create_future()
                self.pending.append(waiting)
                await waiting
            if self.away:
                raise out_of_reach()
        finally:
            self.in_flight[counter] -= 1
        taken, ends = self.taken.get(counter, (0, 0.0))
        if self.clock() >= ends:
            taken, ends = 0, self.clock() + window_s
        got = max(min(amount, limit - taken), 0)
        self.taken[counter] = taken + got, ends
        return Taken(got, max(limit - taken - got, 0), ends - self.clock())

    def give_back(self, counter: str, amount: int) -> None:
        taken, ends = self.taken[counter]
        assert self.clock() < ends, "given back to a window that is over"
        assert amount <= taken
        self.taken[counter] = taken - amount, ends

    def used(self, counter: str = "tokens_per_day:user:alice") -> int:
        taken, ends = self.taken.get(counter, (0, 0.0))
        return taken if self.clock() < ends else 0

    def answer(self, number: int) -> None:
        if self.pending:
            waiting = self.pending.pop(number % len(self.pending))
            if not waiting.done():
                waiting.set_result(None)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Every order of what processes do


@dataclass
class Processes:
    """Several processes at one store, and what was granted to them."""

    most: int
    lease: int
    window_s: float
    clock: Clock = field(default_factory=Clock)
    before: int = 0
    after: int = 0
    killed: int = 0
    before_in: dict[float, int] = field(default_factory=dict)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shop = Shop(self.clock, at_once=False)
        self.leases = [Leases(self.shop, clock=self.clock) for _ in range(3)]
        self.charges = [charge(self.most, self.lease, self.window_s) for _ in range(3)]

    def begin(self, doing: Coroutine[Any, Any, None]) -> None:
        self.running.append(asyncio.get_running_loop().create_task(doing))

    async def take(self, process: int, amount: int) -> None:
        try:
            await self.leases[process].take(self.charges[process], amount)
        except (OverLimit, Unavailable):
            return
        self.before += amount
        _, ends = self.shop.taken[self.charges[process].counter]
        self.before_in[ends] = self.before_in.get(ends, 0) + amount

    async def admit(self, process: int) -> None:
        try:
            await self.leases[process].admit([self.charges[process]])
        except (OverLimit, Unavailable):
            pass

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("take", process, amount):
                self.begin(self.take(process, amount))
            case ("admit", process):
                self.begin(self.admit(process))
            case ("spend", process, amount):
                self.leases[process].spend(self.charges[process], amount)
                self.after += amount
            case ("leave", process):
                self.leases[process].leave([self.charges[process]])
            case ("tidy", process):
                self.leases[process].tidy()
            case ("answer", number):
                self.shop.answer(number)
            case ("kill", process):
                self.leases[process] = Leases(self.shop, clock=self.clock)
                self.killed += 1
            case ("away", away):
                self.shop.away = away
            case ("pass", seconds):
                self.clock.now += seconds
        await turns(3)
        in_flight = max(self.shop.in_flight.values(), default=0)
        assert in_flight <= 3 + self.killed, "one take of a counter in each process"
        assert all(amount <= self.most + self.after for amount in self.before_in.values())

    async def settle(self) -> None:
        """Everything under way ends, everybody goes, and the processes stop in order."""
        self.shop.away = False
        self.shop.at_once = True
        while self.shop.pending or not all(task.done() for task in self.running):
            self.shop.answer(0)
            await turns()
        await asyncio.gather(*self.running)
        self.clock.now += RECHECK_S
        for leases, one in zip(self.leases, self.charges, strict=True):
            leases.leave([one])
        for leases in self.leases:
            await leases.close()


AMOUNT = st.integers(1, 12)
PROCESS = st.integers(0, 2)
STEP = st.one_of(
    st.tuples(st.just("take"), PROCESS, AMOUNT),
    st.tuples(st.just("admit"), PROCESS),
    st.tuples(st.just("spend"), PROCESS, AMOUNT),
    st.tuples(st.just("leave"), PROCESS),
    st.tuples(st.just("tidy"), PROCESS),
    st.tuples(st.just("answer"), st.integers(0, 5)),
    st.tuples(st.just("away"), st.booleans()),
)
HARDER = st.one_of(
    STEP,
    STEP,
    STEP,
    st.tuples(st.just("kill"), PROCESS),
    st.tuples(st.just("pass"), st.sampled_from([0.5, RECHECK_S, IDLE_S, 50.0, 101.0])),
)


@settings(max_examples=400)
@given(st.integers(1, 60), st.integers(1, 10), st.lists(STEP, min_size=5, max_size=60))
def test_in_any_order_what_is_charged_is_what_was_spent(
    most: int, lease: int, steps: list[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        processes = Processes(most, lease, DAY_S)
        for step in steps:
            await processes.do(step)
        await processes.settle()
        spent = processes.before + processes.after
        assert processes.before <= most
        assert processes.shop.used() == min(spent, most)
        # What was given back is there for somebody else, and no more than that.
        rest = most - processes.shop.used()
        other = Leases(processes.shop, clock=processes.clock)
        if rest:
            await other.take(charge(most), rest)
        with pytest.raises(OverLimit):
            await other.take(charge(most), 1)
        await other.close()

    asyncio.run(run())


@settings(max_examples=400)
@given(st.integers(1, 60), st.integers(1, 10), st.lists(HARDER, min_size=5, max_size=60))
def test_no_window_grants_more_than_its_most_before_the_fact(
    most: int, lease: int, steps: list[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        processes = Processes(most, lease, 100.0)
        for step in steps:
            await processes.do(step)
        await processes.settle()

    asyncio.run(run())


# What one process says


async def test_little_left_is_told_once_to_each_who_was_admitted_and_nothing_left_always() -> None:
    clock = Clock()
    leases = Leases(Shop(clock), clock=clock)
    one, other = charge(100), charge(100)
    await leases.admit([one])
    await leases.admit([other])
    said = []
    for number in range(101):
        said.append((number, leases.spend(one, 1)))
        await turns()
    assert [each for each in said if each[1] is not Spent.OK] == [
        (79, Spent.NEAR),
        (100, Spent.OVER),
    ]
    assert leases.spend(other, 0) is Spent.OVER
    await leases.close()


async def test_two_conversations_of_one_user_both_hear_that_little_is_left() -> None:
    clock = Clock()
    leases = Leases(Shop(clock), clock=clock)
    one, other = charge(100), charge(100)
    await leases.admit([one])
    await leases.admit([other])
    leases.spend(one, 85)
    await turns()
    assert [leases.spend(each, 0) for each in (one, other, one, other)] == [
        Spent.OK,  # it heard with the 85
        Spent.NEAR,
        Spent.OK,
        Spent.OK,
    ]
    await leases.close()


async def test_who_spent_everything_hears_of_it_as_soon_as_the_store_has_said_so() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    await leases.admit([mine])
    leases.spend(mine, 250)
    await turns()
    assert leases.spend(mine, 0) is Spent.OVER
    told = leases.over(mine)
    assert (told.limit, told.retry_after_ms) == ("tokens_per_day", 86_400_000)
    assert shop.used() == 100
    await leases.close()


async def test_what_another_process_gives_back_is_found_and_ends_nobody_before_its_time() -> None:
    clock = Clock()
    shop = Shop(clock)
    here, there = Leases(shop, clock=clock), Leases(shop, clock=clock)
    mine, theirs = charge(20, lease=10), charge(20, lease=10)
    await there.admit([theirs])
    await here.admit([mine])
    here.spend(mine, 10)
    await turns()
    assert here.spend(mine, 0) is Spent.OVER
    there.leave([theirs])
    clock.now += RECHECK_S
    here.spend(mine, 0)
    await turns()
    assert here.spend(mine, 0) is not Spent.OVER
    await here.take(mine, 10)
    assert shop.used() == 20
    await here.close()
    await there.close()


async def test_a_new_window_has_everything_again_and_the_old_lease_is_worth_nothing() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(10, lease=5, window_s=60)
    await leases.admit([mine])
    await leases.take(mine, 10)
    with pytest.raises(OverLimit) as over:
        await leases.take(mine, 1)
    assert over.value.retry_after_ms == 60_000
    clock.now += 60
    await leases.take(mine, 10)
    assert shop.used() == 10
    with pytest.raises(OverLimit):
        await leases.take(mine, 1)
    await leases.close()


async def test_what_went_over_a_limit_is_not_charged_to_the_next_window() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(10, lease=5, window_s=60)
    await leases.admit([mine])
    leases.spend(mine, 70)
    await turns()
    clock.now += 60
    assert leases.spend(mine, 0) is Spent.OK
    await leases.take(mine, 10)
    await leases.close()


async def test_while_the_store_is_away_talk_goes_on_and_is_charged_afterwards() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    await leases.admit([mine])
    shop.away = True
    for _ in range(60):
        assert leases.spend(mine, 1) is Spent.OK
        await turns(2)
    with pytest.raises(Unavailable):
        await leases.admit([charge(100)])
    assert shop.used() == 5
    shop.away = False
    clock.now += RECHECK_S
    leases.spend(mine, 0)
    await turns()
    assert shop.used() == 65
    await leases.close()
    assert shop.used() == 60


async def test_while_the_store_is_away_nobody_spends_more_than_there_was_when_it_went() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    await leases.admit([mine])
    shop.away = True
    leases.spend(mine, 99)
    await turns()
    assert leases.spend(mine, 0) is not Spent.OVER
    assert leases.spend(mine, 1) is Spent.OVER
    await leases.close()


async def test_a_store_that_is_away_is_asked_once_a_second() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    await leases.admit([mine])
    shop.away, shop.asked = True, 0
    leases.spend(mine, mine.lease)
    for _ in range(50):
        leases.spend(mine, 1)
        await turns()
        with pytest.raises(Unavailable):
            await leases.take(mine, 1)
    assert shop.asked == 1
    clock.now += RECHECK_S
    leases.spend(mine, 0)
    await turns()
    assert shop.asked == 2
    await leases.close()


async def test_who_asks_too_often_costs_the_store_one_question_a_second() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = rate("sessions_per_minute", 60, "user:alice")
    for _ in range(60):
        await leases.take(mine)
    shop.asked = 0
    for _ in range(5000):
        with pytest.raises(OverLimit):
            await leases.take(mine)
    assert shop.asked == 0
    await leases.close()


async def test_many_who_wait_for_the_same_counter_cost_one_question() -> None:
    clock = Clock()
    shop = Shop(clock, at_once=False)
    leases = Leases(shop, clock=clock)
    mine = charge(1000)
    async with asyncio.TaskGroup() as everybody:
        for _ in range(200):
            everybody.create_task(leases.take(mine, 1))
        await turns()
        shop.at_once = True
        shop.answer(0)
    assert shop.asked <= 3
    assert shop.used() <= 205
    await leases.close()


async def test_one_who_does_not_wait_any_longer_takes_nothing() -> None:
    clock = Clock()
    shop = Shop(clock, at_once=False)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    asking = asyncio.get_running_loop().create_task(leases.take(mine, 3))
    await turns()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    shop.at_once = True
    shop.answer(0)
    await turns()
    await leases.close()
    assert shop.used() == 0


async def test_of_several_limits_the_one_that_is_used_up_is_named() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    full = Charge("cost_per_day", "cost_per_day:user:alice", 0, DAY_S, 1, "money")
    with pytest.raises(OverLimit, match=r"\(cost_per_day\)") as over:
        await leases.admit([charge(100), full])
    assert over.value.limit == "cost_per_day"
    leases.tidy()
    clock.now += IDLE_S
    leases.tidy()
    assert (shop.used(), len(leases)) == (0, 0)
    await leases.close()


async def test_a_lease_that_nobody_uses_is_given_back() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine, other = charge(100), charge(100)
    await leases.admit([mine])
    await leases.admit([other])
    leases.leave([mine])
    assert shop.used() == 5
    leases.leave([other])
    assert shop.used() == 0
    await leases.admit([mine])
    assert shop.used() == 5
    await leases.close()
    assert shop.used() == 0


async def test_a_hundred_thousand_addresses_do_not_grow_the_memory() -> None:
    clock = Clock()
    shop = Shop(clock)
    leases = Leases(shop, clock=clock)
    mine = charge(100)
    await leases.admit([mine])

    async def attack(first: int, count: int) -> None:
        for number in range(first, first + count):
            await leases.take(rate("sessions_per_minute", 60, f"address:{number}"))
            shop.taken.pop(f"sessions_per_minute:address:{number - 2 * MOST_COUNTERS}", None)

    await attack(0, 80_000)
    assert len(leases) == MOST_COUNTERS
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await attack(80_000, 20_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(leases) == MOST_COUNTERS
    assert grown < 12_000_000  # what was there before is replaced by what is measured
    leases.spend(mine, 1)
    clock.now += IDLE_S
    leases.tidy()
    assert len(leases) == 1
    await leases.close()


# With a store of ours


async def all_of(leases: Leases, mine: Charge) -> int:
    """Takes as much as there is."""
    granted = 0
    while True:
        try:
            await leases.take(mine, 1)
        except OverLimit:
            return granted
        granted += 1


async def test_two_processes_at_one_database_never_grant_more_and_give_everything_back(
    tmp_path: Path,
) -> None:
    stores = [await SqliteSessionStore.open(tmp_path / "s.db", ttl_s=60) for _ in range(2)]
    processes = [Leases(store) for store in stores]
    charges = [charge(100) for _ in processes]

    granted = await asyncio.gather(
        *(all_of(*each) for each in zip(processes, charges, strict=True) for _ in range(3))
    )
    assert sum(granted) == 100
    for leases, store in zip(processes, stores, strict=True):
        await leases.close()
        await store.close()


async def test_a_process_that_dies_is_charged_for_a_lease_more_at_most(tmp_path: Path) -> None:
    store = await SqliteSessionStore.open(tmp_path / "s.db", ttl_s=60)
    dead, alive = Leases(store), Leases(store)
    mine = charge(100)
    await dead.take(mine, 7)
    granted = await all_of(alive, mine)
    assert 100 - 7 - mine.lease <= granted <= 100 - 7
    await alive.close()
    await dead.close()
    await store.close()
