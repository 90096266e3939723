"""WebSockets: the doors, the session, and from then on the conversation; here, the native one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tornado.routing import URLSpec
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from tornado_live.caller import Caller
from tornado_live.errors import BadMessage, Forbidden, LiveError, Unavailable
from tornado_live.handlers.door import DoorHandler, House
from tornado_live.jsonvalue import Json
from tornado_live.live.dialects import Dialect, NativeDialect
from tornado_live.live.peer import PeerOptions, TornadoPeerProtocol, WebSocketPeer
from tornado_live.live.registry import GOING_AWAY, Registry
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import MemoryItem, Session, SessionStore
from tornado_live.settings import Limits

logger = logging.getLogger(__name__)

MAX_FRAME = 4 * 1024 * 1024
"""A larger frame closes the socket with 1009; between the message cap and this, one message is refused."""


@dataclass(frozen=True)
class Live:
    house: House
    store: SessionStore
    registry: Registry
    limits: Limits


@dataclass(frozen=True, slots=True)
class Found:
    """`abandoned`: the process that had its conversation ended without writing what it remembered last."""

    session: Session
    memory: Sequence[MemoryItem]
    abandoned: bool


class SocketHandler(DoorHandler, WebSocketHandler):
    """A WebSocket whose frames go to a conversation. A foreign host or origin is refused before the upgrade."""

    ws_connection: TornadoPeerProtocol | None

    def initialize(self, live: Live) -> None:  # type: ignore[override]  # Tornado's hook
        DoorHandler.initialize(self, live.house)
        self.live = live

    async def prepare(self) -> None:
        await super().prepare()
        headers = self.request.headers
        if headers.get("Upgrade", "").lower() != "websocket":
            raise BadMessage("This is a WebSocket; open it with a WebSocket client (docs/protocol.md).")
        if not self.origin_allowed(headers.get("Origin")):
            raise Forbidden("A WebSocket needs an Origin header here, or a credential.")
        if self.live.registry.draining:  # before the upgrade, so that a proxy asks another server
            raise Unavailable(GOING_AWAY, retry_after_ms=1000)

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it, and said why where it is refused."""
        return True

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        limits = self.live.limits
        options = PeerOptions(
            max_size=MAX_FRAME, ping_interval=limits.client_ping_s, ping_timeout=limits.client_pong_s
        )
        node = self.house.node
        return TornadoPeerProtocol.of(self, options, {"X-Served-By": node} if node else None)

    @property
    def peer(self) -> WebSocketPeer:
        assert self.ws_connection is not None, "Tornado sets it before"
        return self.ws_connection.peer

    def refuse(self, error: LiveError, dialect: Dialect) -> None:
        """Told after the upgrade, since a browser shows its page nothing of one that is refused."""
        self.house.metrics.failed(error.code)
        facts = {"code": error.code, "message": error.message, "requestId": self.request_id}
        log_event(logger, "error", facts, level=logging.WARNING, remote=self.request.remote_ip)
        goodbye = dialect.goodbye(error, request_id=self.request_id)
        if goodbye.frame is not None:
            self.peer.send_text(goodbye.frame)
        self.peer.close(goodbye.code, goodbye.reason)

    @asynccontextmanager
    async def found(self, wanted: str, caller: Caller, *, guest: bool) -> AsyncIterator[Found]:
        """The session and its memory as of this moment: nothing may wait between this and `attach`.

        A conversation that ended meanwhile, here or in another process, has remembered more than was read, so it
        is read again. Raises SessionNotFound before anybody is disturbed.
        """
        store, registry = self.live.store, self.live.registry
        registry.check_room(wanted)
        known = None
        try:
            await store.get(wanted, user=caller.user)
        except Unavailable:
            known = registry.known(wanted, user=caller.user, guest=guest)
            if known is None:
                raise
        if known is not None:
            yield Found(known, (), abandoned=False)
            return
        async with registry.claim(wanted) as abandoned:
            while True:
                running = registry.running(wanted)
                session, memory = await store.resume(wanted, user=caller.user)
                await registry.make_way(wanted, for_guest=guest)
                if registry.running(wanted) is running:
                    break
            yield Found(session, memory, abandoned)

    async def created(self, caller: Caller, assistant: str, metadata: Mapping[str, Json]) -> Session:
        registry = self.live.registry
        registry.check_room("")
        session = await self.live.store.create(
            user=caller.user, assistant=assistant, metadata=metadata, node=registry.node
        )
        self.house.metrics.session_created()
        return session

    def on_message(self, message: str | bytes) -> None:
        """Never called: the peer gives messages to the conversation."""


class LiveHandler(SocketHandler):
    """`?sessionId=` names a session made before; without one a session is made."""

    async def open(self, *_: str) -> None:
        wanted = self.get_query_argument("sessionId", "")
        dialect = NativeDialect(wanted)
        try:
            if wanted:
                async with self.found(wanted, self.caller, guest=False) as found:
                    self.live.registry.attach(
                        self.peer,
                        found.session,
                        found.memory,
                        self.caller,
                        dialect,
                        abandoned=found.abandoned,
                    )
                return
            session = await self.created(self.caller, self.caller.assistant or "default", {})
            dialect = NativeDialect(session.id)
            self.live.registry.attach(self.peer, session, (), self.caller, dialect)
        except LiveError as error:
            self.refuse(error, dialect)


def routes(live: Live, path: str) -> list[URLSpec]:
    return [URLSpec(path, LiveHandler, {"live": live})]
