"""What one address, and one user, may do in a minute, and how many sockets an address may hold.

Numbers of a minute count over all processes, in the store. Whoever is over one is stopped here first, by a count
of this process alone, so that a flood costs the store nothing. Loopback is never counted: it is the operator, or a
proxy that is not listed in TRUSTED_PROXIES, behind which everybody would be held for everybody else.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tornado_live.access.leases import Leases
from tornado_live.access.limits import MINUTE_S, over, rate
from tornado_live.caller import Caller
from tornado_live.errors import Unavailable
from tornado_live.settings import Limits

BACKEND: Final = "backend"
"""The role that speaks for users of its own."""
MOST_KNOWN: Final = 10_000
"""Whose events this process counts; the longest unseen is forgotten first, and counted in the store still."""
_IPV6_SITE: Final = 64
"""Whoever has one IPv6 address mostly has this many bits of the network to choose others from."""


class Gate:
    """One per process. What is over a limit raises OverLimit, which is counted where it is told.

    An address is that of the client, as far as it can be known, and None where it cannot.
    """

    def __init__(
        self, limits: Limits, leases: Leases, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._leases = leases
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._sockets: dict[str, int] = {}

    def __len__(self) -> int:
        """How many addresses and users are counted here."""
        return len(self._buckets)

    async def request(self, address: str | None, caller: Caller) -> None:
        """A REST request, once its caller is known. A backend asks for many, and is not counted."""
        if BACKEND not in caller.roles:
            await self._both("requests_per_minute", self._limits.requests_per_minute, address, caller)

    def stranger(self, address: str | None) -> None:
        """A REST request that shows no credential, where there has to be one. Counted in this process alone."""
        whose, most = _counted(address), self._limits.requests_per_minute
        if whose is not None and most is not None and not self._use("requests_per_minute", most, whose):
            raise over("requests_per_minute", MINUTE_S / most)

    async def handshake(self, address: str | None) -> None:
        """A socket is to be opened."""
        if (whose := _counted(address)) is not None:
            await self._count("handshakes_per_minute", self._limits.handshakes_per_minute, whose)

    async def session_made(self, address: str | None, caller: Caller) -> None:
        """A session or a token is to be made."""
        await self._both("sessions_per_minute", self._limits.sessions_per_minute, address, caller)

    def check_address(self, address: str | None) -> None:
        """Before a credential is looked at."""
        whose, most = _counted(address), self._limits.denied_per_minute
        if whose is None or most is None:
            return
        charge = _charge("denied_per_minute", most, whose)
        if self._has("denied_per_minute", most, whose) < 1:
            raise over("denied_per_minute", MINUTE_S / most)
        if self._leases.used_up(charge):
            raise self._leases.over(charge)

    def denied(self, address: str | None) -> None:
        """A credential was wrong."""
        whose, most = _counted(address), self._limits.denied_per_minute
        if whose is not None and most is not None:
            self._use("denied_per_minute", most, whose)
            self._leases.spend(_charge("denied_per_minute", most, whose), 1)

    def connected(self, address: str | None) -> None:
        """A socket is open; `disconnected` follows, unless this raises."""
        whose, most = _counted(address), self._limits.connections_per_address
        if whose is None:
            return
        count = self._sockets.get(whose, 0)
        if most is not None and count >= most:
            raise over("connections_per_address")
        self._sockets[whose] = count + 1

    def disconnected(self, address: str | None) -> None:
        whose = _counted(address)
        if whose is None:
            return
        count = self._sockets.get(whose, 0) - 1
        if count > 0:
            self._sockets[whose] = count
        else:
            self._sockets.pop(whose, None)

    async def _both(self, name: str, most: float | None, address: str | None, caller: Caller) -> None:
        if (whose := _counted(address)) is not None:
            await self._count(name, most, whose)
        if caller.known:
            await self._count(name, most, f"user:{caller.user}")

    async def _count(self, name: str, most: float | None, whose: str) -> None:
        if most is None:
            return
        if not self._use(name, most, whose):
            raise over(name, MINUTE_S / most)
        try:
            await self._leases.take(_charge(name, most, whose))
        except Unavailable:
            pass  # this process' own count holds, and who talks can come back

    def _use(self, name: str, most: float, whose: str) -> bool:
        """One more of `most` in a minute; whether there was one left."""
        has = self._has(name, most, whose)
        # Who is refused uses up nothing: somebody else at the same address has a turn.
        self._buckets[f"{name}:{whose}"] = (has - 1 if has >= 1 else has, self._clock())
        self._buckets.move_to_end(f"{name}:{whose}")
        if len(self._buckets) > MOST_KNOWN:
            self._buckets.popitem(last=False)
        return has >= 1

    def _has(self, name: str, most: float, whose: str) -> float:
        """How many are left, which come back evenly over the minute."""
        has, at = self._buckets.get(f"{name}:{whose}", (most, 0.0))
        return min(has + (self._clock() - at) * most / MINUTE_S, most)


_charge = lru_cache(MOST_KNOWN)(rate)


@lru_cache(MOST_KNOWN)
def _counted(address: str | None) -> str | None:
    """Under which name events of this address are counted, None where they are not."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            site = ipaddress.ip_network((int(ip), _IPV6_SITE), strict=False)
            return None if ip.is_loopback else f"address:{site}"
        ip = ip.ipv4_mapped
    return None if ip.is_loopback else f"address:{ip}"
