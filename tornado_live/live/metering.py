"""What a conversation takes of the limits that hold over all processes: its places, and what it spends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tornado_live.access.leases import Leases, Spent
from tornado_live.access.limits import ROWS, Charge, OverLimit, Place, charges, over, places
from tornado_live.caller import Caller
from tornado_live.errors import Unavailable
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Limits

LOOK_S: Final = 1.0
RENEW_S: Final = 10.0
PLACE_S: Final = 35.0
"""A place is free so long after the process that held it has died; its own session has it back at once."""
FULL_RETRY_MS: Final = 5_000
_TOOL_CALLS: Final = "tool_calls_per_day"

_log = logging.getLogger("tornado_live.live")


@dataclass(frozen=True, slots=True)
class Spending:
    """What a conversation has come to since it began."""

    audio_s: float
    tokens: int
    micro_cost: int


@dataclass(frozen=True, slots=True)
class Metering:
    """What the meters of a process share."""

    store: SessionStore
    leases: Leases
    limits: Limits

    def charges(self, caller: Caller) -> Sequence[Charge]:
        return charges(self.limits, caller)

    def places(self, caller: Caller) -> Sequence[Place]:
        return places(self.limits, caller)


class Meter:
    """Of one conversation. Between `admit` and `release` it holds its places and looks at what was spent.

    `spending` reads what there is to charge. `near` is told that four fifths of a limit are used, `over` that it
    is used up; both on the event loop.
    """

    def __init__(
        self,
        shared: Metering,
        session_id: str,
        *,
        spending: Callable[[], Spending],
        near: Callable[[str], None],
        over: Callable[[OverLimit], None],
    ) -> None:
        self._shared = shared
        self._session_id = session_id
        self._spending = spending
        self._near = near
        self._over = over
        self._charges: Sequence[Charge] = ()
        self._places: Sequence[Place] = ()
        self._admitted: Caller | None = None
        self._admitting = asyncio.Lock()
        self._releases = 0
        self._charged = Spending(0.0, 0, 0)
        self._looked_at = 0.0
        self._looking: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = 0.0

    @property
    def admitted(self) -> bool:
        return self._admitted is not None

    async def admit(self, caller: Caller) -> None:
        """The caller may talk: there is a place, and something left of everything. Raises OverLimit and
        Unavailable."""
        async with self._admitting:
            await self._admit(caller)

    async def _admit(self, caller: Caller) -> None:
        """What was held before stays so until the rest is there: another credential of the same user costs nobody
        the place."""
        if self._admitted is not None and _same(self._admitted, caller):
            return
        releases, leases = self._releases, self._shared.leases
        wanted, spent = self._shared.places(caller), self._shared.charges(caller)
        held = {place.counter for place in self._places}
        more = [place for place in wanted if place.counter not in held]
        await self._occupy(more)  # first: it leaves nothing behind where there is no place
        try:
            await leases.admit([charge for charge in spent if charge.limit != _TOOL_CALLS])
            with contextlib.suppress(OverLimit):  # without tools one can still talk
                await leases.admit([charge for charge in spent if charge.limit == _TOOL_CALLS])
        except BaseException:
            leases.leave(spent)
            self._vacate(more)
            raise
        if releases != self._releases:  # the conversation is over
            leases.leave(spent)
            self._vacate(more)
            return
        if self._looking is not None:
            self._looking.cancel()
            self._charge()
        leases.leave(self._charges)
        kept = {place.counter for place in wanted}
        self._vacate([place for place in self._places if place.counter not in kept])
        self._admitted, self._charges, self._places, self._looking = caller, spent, wanted, None
        self._charged = self._spending()
        self._looked_at = self._renewed_at = time.monotonic()
        if wanted or spent:
            self._look_later()

    def tool_call(self) -> OverLimit | None:
        """A tool is about to be called: why it must not be, or None."""
        leases = self._shared.leases
        for charge in self._charges:
            if charge.limit != _TOOL_CALLS:
                continue
            if leases.used_up(charge) or leases.spend(charge, 1) is Spent.OVER:
                return leases.over(charge)
        return None

    def release(self) -> None:
        """Nothing is spent any more: what is held is let go."""
        self._releases += 1
        if self._admitted is None:
            return
        if self._looking is not None:
            self._looking.cancel()
            self._charge()
        self._admitted, self._looking = None, None
        self._vacate(self._places)
        self._shared.leases.leave(self._charges)
        self._charges = self._places = ()

    async def _occupy(self, wanted: Sequence[Place]) -> None:
        held: list[Place] = []
        try:
            for place in wanted:
                held.append(place)  # a question whose answer was lost may have taken effect
                if not await self._shared.store.occupy(
                    place.counter, self._session_id, limit=place.most, lasts_s=PLACE_S
                ):
                    raise over(place.limit, FULL_RETRY_MS / 1000)
        except BaseException:
            self._vacate(held)
            raise

    def _vacate(self, held: Sequence[Place]) -> None:
        for place in held:
            self._shared.store.vacate(place.counter, self._session_id)

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        for charge, spent in self._charge().items():
            if spent is Spent.NEAR:
                self._near(charge.limit)
            elif spent is Spent.OVER and charge.limit != _TOOL_CALLS:
                self._over(self._shared.leases.over(charge))
                return
        if self._places and time.monotonic() - self._renewed_at >= RENEW_S and self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        self._look_later()

    def _charge(self) -> Mapping[Charge, Spent]:
        """What has been spent since the last look, and how much is left of each."""
        now, total = time.monotonic(), self._spending()
        grown: dict[str, float] = {
            "audio_s_per_day": total.audio_s - self._charged.audio_s,
            "talk_s_per_day": now - self._looked_at,
            "tokens_per_day": total.tokens - self._charged.tokens,
        }
        money = total.micro_cost - self._charged.micro_cost
        self._charged, self._looked_at = total, now
        found = {}
        for charge in self._charges:
            amount = (
                money if ROWS[charge.limit].unit == "money" else charge.whole(grown.get(charge.limit, 0.0))
            )
            found[charge] = self._shared.leases.spend(charge, amount)
        return found

    async def _renew(self) -> None:
        try:
            for place in self._places:
                await self._shared.store.occupy(
                    place.counter, self._session_id, limit=place.most, lasts_s=PLACE_S
                )
        except Unavailable as error:  # whoever talks goes on
            log_event(_log, "places_not_renewed", reason=error.message, session=self._session_id)
        finally:
            self._renewing, self._renewed_at = None, time.monotonic()


def _same(one: Caller, other: Caller) -> bool:
    """Whether the same limits count for both."""
    return (one.user, one.limits, one.subjects) == (other.user, other.limits, other.subjects)
