"""The running conversations of this process: one for each session, found again by its id."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager

from tornado_live.access.identity import Identity
from tornado_live.caller import Caller
from tornado_live.errors import Limited, LiveError, Replaced, SessionEnded, Unavailable
from tornado_live.live.bridge import Bridge, Collaborators, Verify
from tornado_live.live.commands import FromClient, Warned
from tornado_live.live.conversation import Conversation
from tornado_live.live.dialects import Dialect
from tornado_live.live.holding import Holding
from tornado_live.live.peer import WebSocketPeer
from tornado_live.live.rotation import Kept
from tornado_live.live.shedding import pressure
from tornado_live.observe.logs import log_event
from tornado_live.observe.usage import Usage
from tornado_live.sessions.store import MemoryItem, Session
from tornado_live.settings import Settings
from tornado_live.tools.catalog import ToolCatalog

FULL_RETRY_MS = 5_000
SPREAD_S = 2.0
"""Over so long the conversations of a server that stops are ended: clients are not to come back all at once."""

LOOK_S = 0.25
"""From one look at the queues to the next, as long as anybody is slow."""

GOING_AWAY = "The server is about to stop; connect again in a moment."

_chance = random.SystemRandom()
_log = logging.getLogger("tornado_live.live")


class Registry:
    """`catalog` gives the tools that a conversation begins with at `connect`; it keeps them until `disconnect`."""

    def __init__(
        self,
        settings: Settings,
        shared: Collaborators,
        catalog: Callable[[], ToolCatalog],
        identity: Identity,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._shared = shared
        self._catalog = catalog
        self._holding = Holding(shared.store, shared.node, self._lost, self._revoked)
        self._draining = False
        self._full = False
        self._looking: asyncio.TimerHandle | None = None
        self._bridges: dict[str, Bridge] = {}
        self._sessions: dict[str, Session] = {}
        self._coming: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        return len(self._bridges)

    @property
    def model_lines(self) -> int:
        """How many connections to the model side are open."""
        return sum(bridge.model is not None for bridge in self._bridges.values())

    @property
    def node(self) -> str:
        """This process, as others that share the session store know it."""
        return self._shared.node

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop and takes nobody any more."""
        return self._draining

    @property
    def upstream(self) -> str:
        return self._shared.upstream.address.name

    def upstream_ready(self) -> str | None:
        """Why a conversation could not be opened now, or None."""
        if self._draining:
            return GOING_AWAY
        return self._shared.upstream.unready()

    def upstream_notice(self) -> str | None:
        """What people should know of the model side before they talk, or None."""
        notice = self._shared.upstream.address.notice()
        return notice.message if notice is not None else None

    def connected(self, session_id: str) -> bool:
        """Whether a client's socket is open for this session."""
        bridge = self._bridges.get(session_id)
        return bridge is not None and bridge.client is not None

    def running(self, session_id: str) -> object | None:
        """The session's conversation, to tell whether it is still the same one."""
        return self._bridges.get(session_id)

    def known(self, session_id: str, *, user: str, guest: bool) -> Session | None:
        """The user's session that has its conversation here, as it was when that began: the store may be away."""
        session, bridge = self._sessions.get(session_id), self._bridges.get(session_id)
        if session is None or bridge is None or bridge.conversation.is_guests is not guest:
            return None
        return session if session.user == user else None

    def check_room(self, session_id: str) -> None:
        """Raises Limited when the process is full and the session has no conversation here, and Unavailable when
        it is about to stop."""
        if self._draining:
            raise Unavailable(GOING_AWAY, retry_after_ms=again_ms(1000))
        if self._full and session_id not in self._bridges:
            raise _full("The server is busy with slow lines; try again soon.", "queued_bytes")
        if session_id not in self._bridges and self.count >= self._settings.limits.max_conversations:
            raise _full("The server is full; try again soon.", "max_conversations")

    def attach(
        self,
        peer: WebSocketPeer,
        session: Session,
        memory: Sequence[MemoryItem],
        caller: Caller,
        dialect: Dialect,
        verify: Verify,
        *,
        said: FromClient | None = None,
        abandoned: bool = False,
    ) -> None:
        """Gives the socket the running conversation, or a new one. Raises Limited and Unavailable as `check_room`.

        `verify` says who shows a credential on this socket. `said` is what the client has said already.
        `abandoned` is what `claim` gave.
        """
        self.check_room(session.id)
        if self._identity.is_revoked(caller):
            raise _withdrawn()
        bridge = self._bridges.get(session.id) or self._begin(session, memory, caller)
        bridge.attach(peer, dialect, caller, verify, replaced=_replaced(), said=said)
        if abandoned:
            bridge.react(bridge.conversation.abandoned)

    @asynccontextmanager
    async def claim(self, session_id: str) -> AsyncIterator[bool]:
        """Inside, no other process has the session's conversation; for whoever is about to attach to it.

        True where the process that had it ended without writing what it remembered last. Raises SessionNotFound
        and Unavailable.
        """
        if session_id in self._bridges:
            yield False
            return
        abandoned = await self._holding.claim(session_id)
        try:
            yield abandoned
        finally:
            self._holding.settle(session_id, kept=session_id in self._bridges)

    async def follow(self) -> None:
        """Lives among the processes that share the store, until cancelled."""
        await self._holding.run()

    async def heard(self) -> None:
        """Waits until the store has told what is revoked, or is not to be reached."""
        await self._holding.heard.wait()

    def receive(self, work: Coroutine[None, None, None]) -> None:
        """Owns the task of a client that has not said yet which conversation is its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def make_way(self, session_id: str, *, for_guest: bool) -> None:
        """Ends the session's conversation where its client speaks another protocol than the one that comes."""
        bridge = self._bridges.get(session_id)
        if bridge is not None and bridge.conversation.is_guests is not for_guest:
            bridge.close(_replaced())
            await bridge.finish()

    def warn(self, code: str, message: str) -> None:
        """Tells the clients of all running conversations; guests have no ear for it."""
        for bridge in self._bridges.values():
            bridge.tell(Warned(code, message))

    async def end(self, session_id: str, error: LiveError) -> None:
        """Ends the session's conversation, if it runs here; its client is told `error` and closed with it."""
        bridge = self._bridges.get(session_id)
        if bridge is not None:
            bridge.close(error)
            await bridge.finish()

    async def drain(self, most_s: float) -> None:
        """Takes nobody any more, lets every turn end, for `most_s` at most, and returns when nobody is left."""
        self._draining = True
        spread_s = min(SPREAD_S, most_s / 4)
        bridges = list(self._bridges.values())
        for bridge in bridges:
            bridge.drain(_chance.uniform(0.0, spread_s), most_s)
        await asyncio.gather(*(bridge.ended() for bridge in bridges))

    async def close(self, patience_s: float) -> None:
        """Ends every conversation, and tells every client that the server goes away; `patience_s` is for them to
        hear it."""
        self._draining = True
        if self._looking is not None:
            self._looking.cancel()
        for task in self._coming:
            task.cancel()
        bridges = list(self._bridges.values())
        for bridge in bridges:
            bridge.close(None)
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*(bridge.ended() for bridge in bridges))
        except TimeoutError:
            log_event(_log, "cut_at_the_end", level=logging.WARNING, conversations=len(bridges))

    def _begin(self, session: Session, memory: Sequence[MemoryItem], caller: Caller) -> Bridge:
        settings = self._settings
        conversation = Conversation(
            assistants=settings.assistants,
            assistant=session.assistant,
            allowed_options=settings.allow_client_options,
            declarations=lambda names: bridge.catalog.declarations(names),
            policy=lambda name: bridge.catalog.policy(name),
            upstream=self._shared.upstream.address.name,
            limits=settings.limits,
            models=settings.models,
            jitter=_chance.random,
            history=[(item.role, item.text) for item in memory],
            turn=session.last_turn,
            usage=Usage(session.usage, prices=settings.prices),
            kept=_kept(session, memory),
        )

        def ended() -> None:
            if self._bridges.get(session.id) is bridge:
                del self._bridges[session.id], self._sessions[session.id]
                self._holding.release(session.id)

        bridge = Bridge(
            session.id,
            conversation,
            self._shared,
            catalog=lambda asking: self._catalog().for_caller(asking),
            caller=caller,
            on_end=ended,
            on_slow=self._relieve,
        )
        self._bridges[session.id] = bridge
        self._sessions[session.id] = session
        self._holding.keep(session.id)
        return bridge

    def _relieve(self) -> None:
        """Looks after the memory of the process, for as long as anybody does not read what is sent."""
        if self._looking is not None:
            return
        waiting = [each for bridge in self._bridges.values() if (each := bridge.waiting) is not None]
        found = pressure(waiting, self._settings.limits.queued_bytes)
        if found.full is not self._full:
            self._full = found.full
            kind = "memory_full" if found.full else "memory_free"
            log_event(_log, kind, level=logging.WARNING, queued=found.queued)
        for session_id in found.shed:
            self._bridges[session_id].shed()
        if found.full or any(each.slow_since is not None for each in waiting):
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._relieve_again)

    def _relieve_again(self) -> None:
        self._looking = None
        self._relieve()

    def _revoked(self, subjects: Mapping[str, float]) -> None:
        """Whoever comes by one of these `subjects` is no more let in, nor to go on."""
        self._identity.revoke(subjects)
        for bridge in list(self._bridges.values()):
            if bridge.caller.subjects & subjects.keys():
                bridge.close(_withdrawn())

    def _lost(self, session_id: str, error: LiveError) -> None:
        """Another process has the session now, or has ended it."""
        bridge = self._bridges.get(session_id)
        if bridge is not None:
            bridge.close(error)
        else:
            self._holding.release(session_id)


def _full(message: str, limit: str) -> Limited:
    return Limited(message, retry_after_ms=again_ms(FULL_RETRY_MS), limit=limit)


def again_ms(least: int) -> int:
    """When to come back, not the same for everybody."""
    return round(least * _chance.uniform(1.0, 2.0))


def _withdrawn() -> SessionEnded:
    return SessionEnded("Your access was withdrawn; ask whoever gave it to you.")


def _kept(session: Session, memory: Sequence[MemoryItem]) -> Kept | None:
    """The handle that the session's last conversation has left."""
    handle = session.handle
    if handle is None:
        return None
    since = [(item.role, item.text) for item in memory if item.at > handle.at]
    return Kept(handle.value, handle.identity, max(0.0, time.time() - handle.at), since)


def _replaced() -> Replaced:
    return Replaced("This session was opened again somewhere else.")
