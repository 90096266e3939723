"""The running conversations of this process: one for each session, found again by its id."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence

from tornado_live.caller import Caller
from tornado_live.errors import Limited, LiveError, Replaced
from tornado_live.live.bridge import Bridge, Collaborators
from tornado_live.live.commands import FromClient, Warned
from tornado_live.live.conversation import Conversation
from tornado_live.live.dialects import Dialect
from tornado_live.live.peer import WebSocketPeer
from tornado_live.observe.usage import Usage
from tornado_live.sessions.store import MemoryItem, Session
from tornado_live.settings import Settings
from tornado_live.tools.catalog import ToolCatalog

FULL_RETRY_MS = 5_000

_chance = random.SystemRandom()


class Registry:
    """`catalog` gives the tools that a new conversation begins with; it keeps them to its end."""

    def __init__(self, settings: Settings, shared: Collaborators, catalog: Callable[[], ToolCatalog]) -> None:
        self._settings = settings
        self._shared = shared
        self._catalog = catalog
        self._bridges: dict[str, Bridge] = {}
        self._coming: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        return len(self._bridges)

    @property
    def upstream(self) -> str:
        return self._shared.upstream.address.name

    def upstream_ready(self) -> str | None:
        """Why a conversation could not be opened now, or None."""
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

    def check_room(self, session_id: str) -> None:
        """Raises Limited when the process is full and the session has no conversation here."""
        if session_id not in self._bridges and self.count >= self._settings.limits.max_conversations:
            raise Limited("The server is full; try again soon.", retry_after_ms=FULL_RETRY_MS)

    def attach(
        self,
        peer: WebSocketPeer,
        session: Session,
        memory: Sequence[MemoryItem],
        caller: Caller,
        dialect: Dialect,
        *,
        said: FromClient | None = None,
    ) -> None:
        """Gives the socket the running conversation, or a new one. Raises Limited when the process is full.

        `said` is what the client has said already.
        """
        self.check_room(session.id)
        bridge = self._bridges.get(session.id) or self._begin(session, memory, caller)
        bridge.attach(peer, dialect, replaced=_replaced(), said=said)

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

    async def close(self) -> None:
        """Ends every conversation, and tells every client that the server goes away."""
        for task in self._coming:
            task.cancel()
        bridges = list(self._bridges.values())
        for bridge in bridges:
            bridge.close(None)
        await asyncio.gather(*(bridge.finish() for bridge in bridges))

    def _begin(self, session: Session, memory: Sequence[MemoryItem], caller: Caller) -> Bridge:
        settings = self._settings
        catalog = self._catalog().for_caller(caller)
        conversation = Conversation(
            assistants=settings.assistants,
            assistant=session.assistant,
            allowed_options=settings.allow_client_options,
            declarations=catalog.declarations,
            policy=catalog.policy,
            upstream=self._shared.upstream.address.name,
            limits=settings.limits,
            models=settings.models,
            jitter=_chance.random,
            history=[(item.role, item.text) for item in memory],
            turn=session.last_turn,
            usage=Usage(session.usage),
        )

        def ended() -> None:
            if self._bridges.get(session.id) is bridge:
                del self._bridges[session.id]

        bridge = Bridge(session.id, conversation, self._shared, catalog=catalog, caller=caller, on_end=ended)
        self._bridges[session.id] = bridge
        return bridge


def _replaced() -> Replaced:
    return Replaced("This session was opened again somewhere else.")
