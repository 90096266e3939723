"""The REST routes of docs/protocol.md: health, sessions, tools, metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from tornado.routing import URLSpec
from tornado.web import HTTPError, stream_request_body

from tornado_live import __version__
from tornado_live.errors import BadMessage, Forbidden, LiveError, SessionEnded, Unavailable, nearest
from tornado_live.handlers.door import BodyHandler, DoorHandler, House, is_local
from tornado_live.observe.events import rfc3339
from tornado_live.observe.metrics import CONTENT_TYPE
from tornado_live.sessions.store import Session, SessionStore
from tornado_live.settings import Settings

PAGE = 50
MAX_PAGE = 100
MAX_USER_ID = 256


class Running(Protocol):
    """The conversations of this process, as far as REST needs them."""

    @property
    def count(self) -> int: ...

    @property
    def upstream(self) -> str:
        """`gemini` or `simulator`."""

    def upstream_ready(self) -> str | None:
        """Why nobody can talk now, in words for people, or None."""

    def upstream_notice(self) -> str | None:
        """What people should know of the model side before they talk, or None."""

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop and takes nobody any more."""

    def connected(self, session_id: str) -> bool: ...

    async def end(self, session_id: str, error: LiveError) -> None:
        """Closes the session's socket with `error`, where there is one."""


class Catalog(Protocol):
    """The part of a ToolCatalog that is counted."""

    @property
    def tools(self) -> Mapping[str, object]: ...


@dataclass(frozen=True)
class Rest:
    """The collaborators of the routes. `started_at` is a reading of `monotonic`; `tools_error` says what is
    wrong with tools.yaml now, in one line, or None."""

    house: House
    settings: Settings
    store: SessionStore
    running: Running
    catalog: Callable[[], Catalog]
    tools_error: Callable[[], str | None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    started_at: float = 0.0


class ApiHandler(DoorHandler):
    """A REST route: JSON in, JSON out, a bounded body."""

    rest: Rest

    def initialize(self, rest: Rest) -> None:  # type: ignore[override]  # Tornado's hook
        super().initialize(rest.house)
        self.rest = rest

    def compute_etag(self) -> None:
        """Answers are not cached, so no hash of them is made."""


class HealthHandler(ApiHandler):
    """Liveness: answers while the process serves, also before the simulator has its voice."""

    open_to_any_host = True
    public = True

    async def get(self) -> None:
        tools: dict[str, object] = {"loaded": len(self.rest.catalog().tools)}
        if error := self.rest.tools_error():
            tools["error"] = error
        processes = self.rest.settings.processes
        metrics, running = self.house.metrics, self.rest.running
        body: dict[str, object] = {
            "status": "ok",
            "version": __version__,
            "uptimeSeconds": round(self.rest.monotonic() - self.rest.started_at, 3),
            "conversations": running.count if processes == 1 else metrics.conversations(),
            "processes": processes,
            "upstream": running.upstream,
            "tools": tools,
        }
        if notice := running.upstream_notice():
            body["upstreamNotice"] = notice
        if self.get_query_argument("client", None) is not None:
            body["client"] = self._client()
        self.answer(body)

    def _client(self) -> dict[str, object]:
        """How the request looks from here, for whoever sets a proxy up."""
        asked = self.asked
        seen: dict[str, object] = {"via": asked.via, "scheme": asked.scheme, "host": asked.host}
        if asked.via != "untrusted":
            hidden = asked.via == "direct" and _is_private(asked.address)  # maybe a proxy's own
            seen["address"] = "private" if hidden else asked.address
        return seen

    head = get


class ReadyHandler(ApiHandler):
    """Readiness: `unavailable` with the reason while nobody could start a conversation."""

    open_to_any_host = True
    public = True

    async def get(self) -> None:
        if reason := self.rest.running.upstream_ready():
            raise Unavailable(reason)
        if not await self.rest.store.healthy():
            raise Unavailable(
                "The session store is out of reach, or cannot be written."
                " Its lines in the log begin with store_ or redis_."
            )
        self.answer({"status": "ready"})

    head = get


class _NewSession(msgspec.Struct, rename="camel", frozen=True):
    user_id: str | None = None
    metadata: dict[str, Any] | None = None  # msgspec knows no recursive type
    assistant: str | None = None


@stream_request_body
class SessionsHandler(BodyHandler, ApiHandler):
    """Creates sessions and lists the caller's own."""

    async def post(self) -> None:
        if self.rest.running.draining:  # a proxy asks another server
            raise Unavailable("The server is about to stop; try again in a moment.", retry_after_ms=1000)
        wanted = self._wanted()
        assistants = self.rest.settings.assistants
        assistant = wanted.assistant or self.caller.assistant or "default"
        if assistant not in assistants:
            meant = nearest(assistant, assistants) or "."
            raise Forbidden(f'There is no assistant "{assistant[:60]}"{meant}')
        session = await self.rest.store.create(
            user=self.caller.user,
            assistant=assistant,
            metadata=wanted.metadata or {},
            label=wanted.user_id or "",
        )
        self.house.metrics.session_created()
        self.set_header("Location", f"{self.house.paths.told}/api/sessions/{session.id}")
        self.answer(
            {
                "sessionId": session.id,
                "userId": _user_id(session),
                "assistant": session.assistant,
                "createdAt": rfc3339(session.created_at),
                "expiresAt": rfc3339(session.expires_at),
                "wsUrl": self._ws_url(session.id),
            },
            201,
        )

    async def get(self) -> None:
        limit = self.get_query_argument("limit", str(PAGE))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MAX_PAGE):
            raise BadMessage(f'"limit" must be a whole number from 1 to {MAX_PAGE}.')
        after = self.get_query_argument("after", None)
        sessions, further = await self.rest.store.list(self.caller.user, limit=int(limit), after=after)
        body: dict[str, object] = {"sessions": [_shown(session, self.rest.running) for session in sessions]}
        if further is not None:
            body["next"] = further
        self.answer(body)

    head = get

    def _wanted(self) -> _NewSession:
        wanted = self.json_body(_NewSession, "Send less metadata.") or _NewSession()
        if wanted.user_id is not None and len(wanted.user_id) > MAX_USER_ID:
            raise BadMessage(f'"userId" may have {MAX_USER_ID} characters.')
        return wanted

    def _ws_url(self, session_id: str) -> str:
        public = urlsplit(self.rest.settings.public_url or f"{self.asked.scheme}://{self.asked.host}")
        scheme = "wss" if public.scheme == "https" else "ws"
        query = f"sessionId={quote(session_id)}"
        return urlunsplit((scheme, public.netloc, f"{self.house.paths.told}/ws", query, ""))


class SessionHandler(ApiHandler):
    async def get(self, id: str) -> None:
        session = await self.rest.store.get(id, user=self.caller.user)
        body = _shown(session, self.rest.running)
        included = {name for value in self.get_query_arguments("include") for name in value.split(",")}
        if "memory" in included:
            body["memory"] = [
                {"role": item.role, "text": item.text, "turn": item.turn, "at": rfc3339(item.at)}
                for item in await self.rest.store.memory(id)
            ]
        self.answer(body)

    head = get

    async def delete(self, id: str) -> None:
        # Gone from the store first: a client that comes back at once finds nothing to go on with.
        await self.rest.store.delete(id, user=self.caller.user)
        await self.rest.running.end(id, SessionEnded("The session was deleted."))
        self.set_status(204)


class EventsHandler(ApiHandler):
    async def get(self, id: str) -> None:
        await self.rest.store.get(id, user=self.caller.user)
        events = await self.rest.store.events(id)
        self.answer(
            {
                "sessionId": id,
                "events": [
                    {"at": rfc3339(event.at), "kind": event.kind, "data": event.data} for event in events
                ],
            }
        )

    head = get


class MetricsHandler(ApiHandler):
    """For the machine itself: what came through a proxy is not local, whatever address it has now."""

    async def get(self) -> None:
        if not is_local(self.request):
            raise Forbidden("Metrics are given to this machine only. Read them at a loopback address.")
        self.set_header("Content-Type", CONTENT_TYPE)
        self.set_header("Cache-Control", "no-store")
        # The sums of many processes take some time, in which conversations are not to wait.
        self.write(await asyncio.to_thread(self.house.metrics.render))

    head = get


class NoSuchRouteHandler(ApiHandler):
    """A path that does not exist, for every method. Also the application's `default_handler_class`, for request
    targets that are no path at all."""

    public = True

    async def prepare(self) -> None:
        await super().prepare()
        if self.request.method != "OPTIONS":
            raise HTTPError(404)


def routes(rest: Rest) -> list[URLSpec]:
    """Everything below /api/, /health and /metrics; to be put before the pages."""
    given = {"rest": rest}
    return [
        URLSpec(r"/health", HealthHandler, given),
        URLSpec(r"/health/ready", ReadyHandler, given),
        URLSpec(r"/metrics", MetricsHandler, given),
        URLSpec(r"/api/sessions", SessionsHandler, given),
        URLSpec(r"/api/sessions/([^/]+)", SessionHandler, given),
        URLSpec(r"/api/sessions/([^/]+)/events", EventsHandler, given),
        URLSpec(r"/api(?:/.*)?", NoSuchRouteHandler, given),
    ]


def _shown(session: Session, running: Running) -> dict[str, object]:
    return {
        "sessionId": session.id,
        "userId": _user_id(session),
        "assistant": session.assistant,
        "createdAt": rfc3339(session.created_at),
        "lastActiveAt": rfc3339(session.last_active_at),
        "expiresAt": rfc3339(session.expires_at),
        "connected": session.connected or running.connected(session.id),
        "messageCount": session.message_count,
        "usage": session.usage,
        "metadata": session.metadata,
    }


def _is_private(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_private
    except ValueError:
        return True


def _user_id(session: Session) -> str:
    return session.label or session.user
