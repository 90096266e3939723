"""What is spent of the limits that hold over processes: taken from the store in leases, and spent here.

A lease is a small part of what a counter of the store allows in its window. It is charged when it is taken: a
process that dies has been charged for at most a lease more than it spent. What is spent after the fact, as tokens
are, may go beyond the lease; that debt is charged with the next one. While the store is away conversations spend
on, as far as the window reached when the store was last heard of; only who comes new is refused.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tornado_live.access.limits import Charge, OverLimit, over
from tornado_live.errors import Unavailable
from tornado_live.sessions.store import Taken, out_of_reach

MOST_COUNTERS: Final = 10_000
"""Counters that one process knows; of those that nobody uses the longest unspent is forgotten first."""
RECHECK_S: Final = 1.0
"""So long the store's word counts that nothing is left, or its silence."""
IDLE_S: Final = 15.0
"""A lease that nobody uses is given back after so long."""
_TOO_LATE_S: Final = 2.0
_TOO_LATE_AWAY_S: Final = 600.0
"""What is given back so near to the end of a window might arrive in the next one: in order, or when the store is
there again."""


class Spent(enum.Enum):
    OK = enum.auto()
    NEAR = enum.auto()
    """Four fifths of the window are used; told to each charge that was admitted, once in a window."""
    OVER = enum.auto()
    """The store has no more, and what was taken here did not suffice; or, when only asked, is used up."""


class Counters(Protocol):
    """The part of a SessionStore that leases are taken from."""

    async def take(self, counter: str, amount: int, *, limit: int, window_s: float) -> Taken: ...

    def give_back(self, counter: str, amount: int) -> None: ...


class _Counter:
    """What this process knows of a counter. `own` is what it has in hand; below 0 it owes the store."""

    __slots__ = ("asked_at", "away", "charge", "ends", "left", "own", "spent_at", "taking", "told", "wanted")

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.own = 0
        self.left = charge.most
        """What the store had when it was last asked."""
        self.ends = math.inf
        self.asked_at = -math.inf
        self.away = False
        self.spent_at = 0.0
        self.wanted = 0
        self.taking: asyncio.Task[None] | None = None
        self.told: dict[int, tuple[Charge, bool]] = {}
        """The charges that were admitted, by identity, and whether they heard that little is left."""

    def roll(self, now: float) -> None:
        """At the end of the window all of it can be taken again, and what was taken in it is worth nothing."""
        if now < self.ends:
            return
        # What went beyond an empty window is not charged to the next one; what the store has not heard of is.
        self.own = min(self.own, 0) if self.left > 0 else 0
        self.left, self.ends, self.asked_at = self.charge.most, math.inf, -math.inf
        self.told = {key: (charge, False) for key, (charge, _) in self.told.items()}


class Leases:
    """One per process, for all its conversations and routes."""

    def __init__(self, store: Counters, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._counters: OrderedDict[tuple[str, int], _Counter] = OrderedDict()
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many counters are known."""
        return len(self._counters)

    async def admit(self, charges: Sequence[Charge]) -> None:
        """Something is left of each; a lease was taken where there was none here. `leave` follows, with the same.

        Raises OverLimit, and Unavailable where the store had to be asked and is away; then nothing follows.
        """
        dry = [charge for charge in charges if self._counter(charge).own <= 0]
        if dry:
            results = await asyncio.gather(*map(self._lease, dry), return_exceptions=True)
            failures = [result for result in results if isinstance(result, BaseException)]
            for failure in sorted(failures, key=lambda one: not isinstance(one, OverLimit)):
                raise failure
        for charge in charges:
            self._counter(charge).told[id(charge)] = (charge, False)

    async def take(self, charge: Charge, amount: int = 1) -> None:
        """Spends before the fact: `amount`, or nothing. Raises OverLimit and Unavailable."""
        while (counter := self._counter(charge)).own < amount:
            await self._more(counter, amount)
        counter.own -= amount

    def spend(self, charge: Charge, amount: int) -> Spent:
        """Spends after the fact; 0 only asks. More is fetched in the background before the lease is used up."""
        counter = self._counter(charge)
        own = counter.own = counter.own - amount
        left = counter.left
        if own + own < charge.lease and (left > 0 or own <= 0):
            self._fetch(counter)
        short = own < 0 if amount else own <= 0
        if short and (left <= 0 or (counter.away and own + left <= 0)):
            return Spent.OVER
        if 5 * (own + left) > charge.most:
            return Spent.OK
        _, told = counter.told.get(id(charge), (charge, True))
        if not told:
            counter.told[id(charge)] = (charge, True)
        return Spent.OK if told else Spent.NEAR

    def used_up(self, charge: Charge) -> bool:
        """Whether nothing is left, as far as this process has heard: what it never spent of costs no question."""
        return (charge.counter, charge.most) in self._counters and self.spend(charge, 0) is Spent.OVER

    def over(self, charge: Charge) -> OverLimit:
        """What to tell whoever spent too much of it: when there is something again."""
        return self._over(self._counter(charge))

    def leave(self, charges: Sequence[Charge]) -> None:
        """Whoever was admitted has gone: what nobody else uses is given back."""
        for charge in charges:
            counter = self._counters.get((charge.counter, charge.most))
            if counter is not None:
                counter.told.pop(id(charge), None)
                if not counter.told:
                    self._give_back(counter)

    async def close(self) -> None:
        """Charges what is owed, as far as the store takes it, and gives back what is unused."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        under_way = [counter.taking for counter in self._counters.values() if counter.taking is not None]
        await asyncio.gather(*under_way, return_exceptions=True)
        away = False
        for counter in list(self._counters.values()):
            counter.roll(self._clock())
            if counter.own < 0 and not away:
                await self._take(counter, -counter.own)
                away = counter.away
            self._give_back(counter)
        self._counters.clear()

    def tidy(self) -> None:
        """Gives back what nobody has used for IDLE_S, and tries to charge what is owed. Runs by itself."""
        now = self._clock()
        for key, counter in list(self._counters.items()):
            counter.roll(now)
            if counter.own < 0:
                self._fetch(counter)  # of an empty window too: others give back
            elif not counter.told and counter.taking is None and now - counter.spent_at >= IDLE_S:
                self._give_back(counter)
                del self._counters[key]
        self._tidying = None
        self._tidy_later()

    def _counter(self, charge: Charge) -> _Counter:
        key = (charge.counter, charge.most)
        counter = self._counters.get(key)
        if counter is None:
            self._forget_some()
            counter = self._counters[key] = _Counter(charge)
            self._tidy_later()
        now = counter.spent_at = self._clock()
        if now >= counter.ends:
            counter.roll(now)
        self._counters.move_to_end(key)
        return counter

    def _forget_some(self) -> None:
        if len(self._counters) < MOST_COUNTERS:
            return
        for key, counter in self._counters.items():
            if not counter.told and counter.taking is None:
                self._give_back(counter)
                del self._counters[key]
                return

    def _tidy_later(self) -> None:
        if self._tidying is None and self._counters and not self._closed:
            self._tidying = asyncio.get_running_loop().call_later(IDLE_S, self.tidy)

    async def _lease(self, charge: Charge) -> None:
        while (counter := self._counter(charge)).own <= 0:
            await self._more(counter, 0)

    async def _more(self, counter: _Counter, amount: int) -> None:
        """There is a lease in hand, and `amount` beside it; or it is worth asking again. Raises OverLimit and
        Unavailable."""
        needed = max(amount, 1)
        if counter.taking is None and self._clock() - counter.asked_at < RECHECK_S:
            if counter.away:
                raise out_of_reach()
            if counter.left < needed - counter.own:
                raise self._over(counter)
        counter.wanted += amount
        try:
            await asyncio.shield(counter.taking or self._begin(counter))
        finally:
            counter.wanted -= amount
        if counter.away:
            raise out_of_reach()
        if counter.own < needed and counter.left <= 0:
            raise self._over(counter)

    def _fetch(self, counter: _Counter) -> None:
        """More, in the background, unless the store has just said that there is none."""
        if counter.taking is not None or self._closed:
            return
        if (counter.left <= 0 or counter.away) and self._clock() - counter.asked_at < RECHECK_S:
            return
        self._begin(counter)

    def _begin(self, counter: _Counter) -> asyncio.Task[None]:
        counter.taking = asyncio.get_running_loop().create_task(self._take(counter))
        return counter.taking

    async def _take(self, counter: _Counter, amount: int | None = None) -> None:
        charge = counter.charge
        if amount is None:
            amount = max(charge.lease + counter.wanted - counter.own, 1)
        asked_at = self._clock()
        try:
            taken = await self._store.take(
                charge.counter, amount, limit=charge.most, window_s=charge.window_s
            )
        except Unavailable:
            counter.away = True
        else:
            counter.away = False
            counter.own += taken.amount
            counter.left = taken.left
            # Rather too early than too late: what was taken in a window is worth nothing after it.
            counter.ends = asked_at + taken.ends_in_s
        finally:
            counter.taking = None
            counter.asked_at = self._clock()

    def _give_back(self, counter: _Counter) -> None:
        if counter.own <= 0:
            return
        late_s = _TOO_LATE_AWAY_S if counter.away else _TOO_LATE_S
        if self._clock() < counter.ends - late_s:
            self._store.give_back(counter.charge.counter, counter.own)
            counter.left += counter.own
        counter.own = 0

    def _over(self, counter: _Counter) -> OverLimit:
        charge = counter.charge
        again_in_s = counter.ends - self._clock()
        return over(charge.limit, min(max(again_in_s, 0.001), charge.window_s))
