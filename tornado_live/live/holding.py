"""Which sessions' conversations this process has, among the processes that share the store.

A process that takes a session tells the one that had it through the store, and waits until that one has written
what it remembered. Whoever was taken from, or whose session was deleted elsewhere, hears of it at the next beat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from tornado_live.errors import LiveError, Replaced, SessionEnded, Unavailable
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import BEAT_S, SessionStore

LEAVE_S: Final = 2.5
"""How long another process has for writing what it remembered; then it counts as one that died."""
LOOK_AGAIN_S: Final = 0.05

_log = logging.getLogger("tornado_live.live")


class Holding:
    """`node` names this process; `lost` is told of each session that is this process's no more, and why;
    `revoked` of what callers are revoked by, with the seconds that this lasts."""

    def __init__(
        self,
        store: SessionStore,
        node: str,
        lost: Callable[[str, LiveError], None],
        revoked: Callable[[Mapping[str, float]], None],
    ) -> None:
        self.node = node
        self._store = store
        self._lost = lost
        self._revoked = revoked
        self._held: set[str] = set()
        self._claims: Counter[str] = Counter()
        self._look = asyncio.Event()
        self.heard = asyncio.Event()
        """Set once the store has answered, or could not."""
        self._reached = True

    async def claim(self, id: str) -> bool:
        """Makes the session this process's own, once the process that had it has written its memory.

        True where that one did not: it has died, or does not answer. Each claim is ended by `settle`. Raises
        SessionNotFound and Unavailable.
        """
        self._claims[id] += 1
        self._held.add(id)  # a question whose answer was lost may have taken effect
        try:
            found = await self._store.hold(id, node=self.node)
            try:
                async with asyncio.timeout(LEAVE_S):
                    while found.leaving:
                        await asyncio.sleep(LOOK_AGAIN_S)
                        found = await self._store.leaving(id, node=self.node)
            except TimeoutError:
                log_event(_log, "process_did_not_let_go", level=logging.WARNING, session=id)
                return True
            return found.abandoned
        except BaseException:
            self.settle(id, kept=False)
            raise

    def settle(self, id: str, *, kept: bool) -> None:
        """A claim has come to its end; the session is kept where it has its conversation here now."""
        self._claims[id] -= 1
        if self._claims[id] <= 0:
            del self._claims[id]
            if not kept:
                self.release(id)

    def keep(self, id: str) -> None:
        """A new session that was made for this process."""
        self._held.add(id)

    def release(self, id: str) -> None:
        """Its conversation is over. Others hear of it once everything before it is written."""
        if id in self._held and id not in self._claims:
            self._held.discard(id)
            self._store.release(id, node=self.node)

    async def run(self) -> None:
        """Beats until cancelled."""
        self._store.listen(self._look.set)
        while True:
            await self._beat()
            self.heard.set()
            self._look.clear()
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _beat(self) -> None:
        try:
            news = await self._store.beat(self.node, tuple(self._held))
        except Unavailable as error:
            if self._reached:
                log_event(_log, "beat_failed", level=logging.WARNING, reason=error.message)
            self._reached = False
            return
        self._reached = True
        for id in news.taken:
            self._lost(id, Replaced("This session was opened again somewhere else."))
        for id in news.ended:
            self._lost(id, SessionEnded("The session was deleted."))
        if news.revoked:
            self._revoked(news.revoked)
