"""The native WebSocket: the doors, the session, and from then on the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tornado.routing import URLSpec
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from tornado_live.caller import Caller
from tornado_live.errors import BadMessage, Forbidden, LiveError
from tornado_live.handlers.door import DoorHandler, House
from tornado_live.live.commands import Failure
from tornado_live.live.dialects import NativeDialect
from tornado_live.live.peer import PeerOptions, TornadoPeerProtocol
from tornado_live.live.registry import Registry
from tornado_live.sessions.store import MemoryItem, Session, SessionStore
from tornado_live.settings import Limits

MAX_FRAME = 4 * 1024 * 1024
"""A larger frame closes the socket with 1009; between the message cap and this, one message is refused."""


@dataclass(frozen=True)
class Live:
    house: House
    store: SessionStore
    registry: Registry
    limits: Limits


class LiveHandler(DoorHandler, WebSocketHandler):
    """`?sessionId=` names a session made before; without one a session is made.

    A foreign host or origin is refused before the upgrade. What is wrong with the session is told after it, as
    an `error` and a close code, since a browser shows its page nothing of a refused upgrade.
    """

    ws_connection: TornadoPeerProtocol | None

    def initialize(self, live: Live) -> None:  # type: ignore[override]  # Tornado's hook
        DoorHandler.initialize(self, live.house)
        self._live = live

    def prepare(self) -> None:
        super().prepare()
        headers = self.request.headers
        if headers.get("Upgrade", "").lower() != "websocket":
            raise BadMessage("This is a WebSocket; open it with a WebSocket client (docs/protocol.md).")
        if not self.house.doors.origin_allowed(headers.get("Origin"), headers.get("Host")):
            raise Forbidden("A WebSocket needs an Origin header here, or a credential.")

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it, and said why where it is refused."""
        return True

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        limits = self._live.limits
        options = PeerOptions(
            max_size=MAX_FRAME, ping_interval=limits.client_ping_s, ping_timeout=limits.client_pong_s
        )
        return TornadoPeerProtocol.of(self, options)

    async def open(self, *_: str) -> None:
        assert self.ws_connection is not None, "Tornado sets it before"
        peer = self.ws_connection.peer
        wanted = self.get_query_argument("sessionId", "")
        try:
            session, memory = await self._found(wanted, self.caller)
            self._live.registry.attach(peer, session, memory, self.caller)
        except LiveError as error:
            self.house.metrics.failed(error.code)
            peer.send_text(NativeDialect(wanted).encode(Failure(error), request_id=self.request_id))
            peer.close(error.close_code or 1000, error.message)

    async def _found(self, wanted: str, caller: Caller) -> tuple[Session, Sequence[MemoryItem]]:
        """The session and its memory as of this moment: nothing may wait between this and `attach`.

        A conversation that ended meanwhile has remembered more than was read, so it is read again.
        """
        store, registry = self._live.store, self._live.registry
        registry.check_room(wanted)
        while wanted:
            running = registry.running(wanted)
            session, memory = await store.resume(wanted, user=caller.user)
            if registry.running(wanted) is running:
                return session, memory
        session = await store.create(user=caller.user, assistant=caller.assistant or "default", metadata={})
        self.house.metrics.session_created()
        return session, ()

    def on_message(self, message: str | bytes) -> None:
        """Never called: the peer gives messages to the conversation."""


def routes(live: Live, path: str) -> list[URLSpec]:
    return [URLSpec(path, LiveHandler, {"live": live})]
