"""WebSockets: the doors, the session, and from then on the conversation; here, the native one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tornado.routing import URLSpec
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from tornado_live.caller import Caller
from tornado_live.errors import (
    BadMessage,
    Forbidden,
    InternalError,
    LiveError,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from tornado_live.handlers import credentials
from tornado_live.handlers.credentials import SUBPROTOCOL
from tornado_live.handlers.door import DoorHandler, House
from tornado_live.handlers.gate import BACKEND
from tornado_live.jsonvalue import Json
from tornado_live.live.bridge import Verify
from tornado_live.live.commands import FromClient, Open
from tornado_live.live.dialects import MAX_MESSAGE, Dialect, NativeDialect, Reply
from tornado_live.live.peer import PeerOptions, TornadoPeerProtocol, WebSocketPeer
from tornado_live.live.reception import Gone, first_message
from tornado_live.live.registry import GOING_AWAY, Registry, again_ms
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import MemoryItem, Session, SessionStore
from tornado_live.settings import Limits

_SILENT = "No conversation was opened within {:g} s; send connect at once."

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

    largest = MAX_FRAME
    """Bytes of a frame when the connection begins."""
    ws_connection: TornadoPeerProtocol | None
    _gone: WebSocketPeer | None = None
    _counted = False

    def initialize(self, live: Live) -> None:  # type: ignore[override]  # Tornado's hook
        DoorHandler.initialize(self, live.house)
        self.live = live

    public = True
    """Who asks is found out by each kind of socket in its own way, before it is given to a conversation."""

    async def prepare(self) -> None:
        await super().prepare()
        headers = self.request.headers
        if headers.get("Upgrade", "").lower() != "websocket":
            raise BadMessage("This is a WebSocket; open it with a WebSocket client (docs/protocol.md).")
        if (self.shown() is None or "Origin" in headers) and not self.origin_allowed(headers.get("Origin")):
            if self.house.identity.required:
                raise Unauthenticated("Show who you are with the handshake, or send an Origin header.")
            raise Forbidden("A WebSocket needs an Origin header here, or a credential.")
        if self.live.registry.draining:  # before the upgrade, so that a proxy asks another server
            raise Unavailable(GOING_AWAY, retry_after_ms=again_ms(1000))

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it, and said why where it is refused."""
        return True

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        limits = self.live.limits
        options = PeerOptions(
            max_size=self.largest, ping_interval=limits.client_ping_s, ping_timeout=limits.client_pong_s
        )
        node = self.house.node
        return TornadoPeerProtocol.of(self, options, {"X-Served-By": node} if node else None)

    async def verified(self, shown: str | None, session: str | None) -> Caller:
        """Who shows this credential on this socket. Raises LiveError."""
        gate, address = self.house.gate, self.asked.address
        if gate is not None:
            gate.check_address(address)
        try:
            origin = self.request.headers.get("Origin")
            return await self.house.identity.socket_caller(shown, origin=origin, session=session)
        except Unauthenticated:
            if gate is not None and shown is not None:
                gate.denied(address)
            raise

    def verifying(self, session: str) -> Verify:
        """`verified` for whoever comes with a newer credential later."""
        return lambda credential: self.verified(credential, session)

    def shown(self) -> str | None:
        return credentials.of_socket(self.request.headers) if self.house.identity.required else None

    @property
    def peer(self) -> WebSocketPeer:
        if self._gone is not None:
            return self._gone
        assert self.ws_connection is not None, "Tornado sets it before"
        return self.ws_connection.peer

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        """Tornado forgets the connection; what is under way in a task still asks for it."""
        self._gone = self.peer
        super().on_ws_connection_close(close_code, close_reason)

    async def enter(self) -> None:
        """The socket counts for its address from here until it is closed.

        Raises OverLimit: after the upgrade, since a browser shows its page nothing of one that is refused.
        """
        gate, address = self.house.gate, self.asked.address
        if gate is None:
            return
        await gate.handshake(address)
        if self.peer.is_open:  # else nobody tells of its end any more
            gate.connected(address)
            self._counted = True

    def on_close(self) -> None:
        if self._counted and self.house.gate is not None:
            self._counted = False
            self.house.gate.disconnected(self.asked.address)

    def refuse(self, error: LiveError, dialect: Dialect) -> None:
        """Told after the upgrade, since a browser shows its page nothing of one that is refused."""
        self.house.metrics.failed(error.code)
        if error.limit is not None:
            self.house.metrics.limited(error.limit)
        facts = {"code": error.code, "message": error.message, "requestId": self.request_id}
        log_event(logger, "error", facts, level=logging.WARNING, remote=self.request.remote_ip)
        goodbye = dialect.goodbye(error, request_id=self.request_id)
        if goodbye.frame is not None:
            self.peer.send_text(goodbye.frame)
        self.peer.close(goodbye.code, goodbye.reason)

    def broken(self, error: Exception, dialect: Dialect) -> None:
        """A bug: its text goes to the log, and the client hears that there was one."""
        self.log_exception(type(error), error, error.__traceback__)
        self.refuse(InternalError("Something went wrong on the server; connect again."), dialect)

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
        if self.house.gate is not None:
            # Behind a backend's address are all of its users.
            address = None if BACKEND in caller.roles else self.asked.address
            await self.house.gate.session_made(address, caller)
        session = await self.live.store.create(
            user=caller.user, assistant=assistant, metadata=metadata, node=registry.node
        )
        self.house.metrics.session_created()
        return session

    def on_message(self, message: str | bytes) -> None:
        """Never called: the peer gives messages to the conversation."""


class LiveHandler(SocketHandler):
    """`?sessionId=` names a session made before; without one a session is made.

    Who shows no credential with the handshake, as pages in a browser, sends it with `connect`, as the first
    message.
    """

    async def prepare(self) -> None:
        await super().prepare()
        self._wanted = self.get_query_argument("sessionId", "")
        self._caller: Caller | None = None
        shown = self.shown()
        if shown is not None or not self.house.identity.required:
            self._caller = await self.verified(shown, self._wanted or None)
        else:
            self.largest = MAX_MESSAGE  # so much can anybody make the server keep

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

    async def open(self, *_: str) -> None:
        dialect = NativeDialect(self._wanted)
        try:
            await self.enter()
            if self._caller is None:
                # The upgrade is answered once this has run, so the message is waited for elsewhere.
                self.live.registry.receive(self._introduced(dialect))
            else:
                await self._enter(dialect, self._caller, None)
        except LiveError as error:
            self.refuse(error, dialect)
        except Exception as error:  # noqa: BLE001 - the edge of a connection: its bugs end it, in words
            self.broken(error, dialect)

    async def _introduced(self, dialect: NativeDialect) -> None:
        try:
            async with asyncio.timeout(self.live.limits.hello_timeout_s):
                first = await self._first(dialect)
            if not isinstance(first, Open) or first.token is None:
                raise Unauthenticated("Send connect first, with your credential in data.token.")
            caller = await self.verified(first.token, self._wanted or None)
            self.peer.allow(MAX_FRAME)
            await self._enter(dialect, caller, first)
        except TimeoutError:
            self.refuse(TimedOut(_SILENT.format(self.live.limits.hello_timeout_s)), dialect)
        except LiveError as error:
            self.refuse(error, dialect)
        except Gone:
            return
        except asyncio.CancelledError:
            goodbye = dialect.goodbye(None)
            self.peer.close(goodbye.code, goodbye.reason)
            raise
        except Exception as error:  # noqa: BLE001 - the root of a task: its bugs end this connection, nothing else
            self.broken(error, dialect)

    async def _first(self, dialect: NativeDialect) -> FromClient:
        """The first message that is no ping."""
        while True:
            said = dialect.decode(*await first_message(self.peer))
            if not isinstance(said, Reply):
                return said
            self.peer.send_text(said.frame)

    async def _enter(self, dialect: NativeDialect, caller: Caller, said: Open | None) -> None:
        registry, wanted = self.live.registry, self._wanted
        if wanted:
            async with self.found(wanted, caller, guest=False) as found:
                registry.attach(
                    self.peer,
                    found.session,
                    found.memory,
                    caller,
                    dialect,
                    self.verifying(wanted),
                    said=said,
                    abandoned=found.abandoned,
                )
            return
        session = await self.created(caller, caller.assistant or "default", {})
        dialect = NativeDialect(session.id)
        registry.attach(self.peer, session, (), caller, dialect, self.verifying(session.id), said=said)


def routes(live: Live, path: str, name: str = "socket") -> list[URLSpec]:
    return [URLSpec(path, LiveHandler, {"live": live}, name=name)]
