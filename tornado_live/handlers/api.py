"""The REST routes of docs/protocol.md: health, sessions, tools, metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from tornado.routing import URLSpec
from tornado.web import HTTPError, stream_request_body

from tornado_live import __version__
from tornado_live.access.identity import is_user
from tornado_live.access.tickets import Ticket, acting_for, mint_ticket
from tornado_live.caller import PRIVILEGED, Caller
from tornado_live.errors import BadMessage, Forbidden, LiveError, SessionEnded, Unavailable, nearest
from tornado_live.handlers.answers import NewSession, NewTicket
from tornado_live.handlers.door import BodyHandler, DoorHandler, House, is_local
from tornado_live.handlers.openapi import document
from tornado_live.handlers.rules import MAX_PAGE, PAGE, served
from tornado_live.observe.events import rfc3339
from tornado_live.observe.metrics import CONTENT_TYPE
from tornado_live.sessions.store import Session, SessionStore
from tornado_live.settings import Settings

READY_S = 0.5
BACKEND = "backend"
"""The role of somebody's server: it makes sessions and credentials for that server's users."""
_NO_TICKET = (
    '"{}" is for the token of a session, and there is none while callers are not asked who they are. Leave it out,'
    " or set AUTH__MODES."
)


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


class Readiness:
    """Whether the store can be used. To find out is a write, so however many ask, it is done twice a second."""

    def __init__(self, store: SessionStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._found = False
        self._found_at = -math.inf
        self._finding_out = asyncio.Lock()

    async def healthy(self) -> bool:
        async with self._finding_out:
            if self._clock() - self._found_at >= READY_S:
                self._found = await self._store.healthy()
                self._found_at = self._clock()
            return self._found


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

    @cached_property
    def readiness(self) -> Readiness:
        return Readiness(self.store, self.monotonic)


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
        # What is wrong inside is nobody's business where callers are asked who they are, and here they are not.
        inside = not self.house.identity.required or is_local(self.request)
        if inside and (error := self.rest.tools_error()):
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
        if not await self.rest.readiness.healthy():
            raise Unavailable(
                "The session store is out of reach, or cannot be written."
                " Its lines in the log begin with store_ or redis_."
            )
        self.answer({"status": "ready"})

    head = get


class TicketHandler(BodyHandler, ApiHandler):
    """What hands out credentials for the WebSocket of one session."""

    def acting(self, user_id: str | None) -> Caller:
        """For whom it is asked. Raises Forbidden and BadMessage."""
        if not self.house.identity.required or user_id in (None, self.caller.user):
            return self.caller
        assert user_id is not None
        if BACKEND not in self.caller.roles:
            raise Forbidden(
                f'"userId" is not your own; only a credential with the role "{BACKEND}" speaks for others.'
            )
        if not is_user(user_id):
            raise BadMessage('Nobody can be called what "userId" says.')
        acting = acting_for(self.caller, user_id)
        if self.house.identity.is_revoked(acting):
            raise Forbidden("This user's access was withdrawn.")
        return acting

    def checked(self, wanted: NewSession | NewTicket) -> None:
        """Raises BadMessage where a ticket is described that there will not be, Forbidden for an origin whose
        pages may not come in."""
        for name, value in (("origin", wanted.origin), ("limits", wanted.limits)):
            if value is not None and not self.house.identity.required:
                raise BadMessage(_NO_TICKET.format(name))
        if wanted.origin is not None and not self.origin_allowed(wanted.origin):
            raise Forbidden(
                "Pages of this origin may not use this server. Add the origin to ALLOWED_ORIGINS."
            )

    async def minted(self, caller: Caller, session: Session, wanted: NewSession | NewTicket) -> Ticket:
        """For a page of the origin that was named, or that asks; a program that asks shows it where it likes."""
        origin = wanted.origin or self.request.headers.get("Origin")
        limits = wanted.limits.given() if wanted.limits is not None else {}
        # A page that holds it, or whoever it tells, is to talk, and not to run the server.
        bearer = replace(caller, assistant=session.assistant, roles=caller.roles - PRIVILEGED)
        return await mint_ticket(self.rest.store, bearer, session.id, origin=origin, limits=limits)

    async def counted(self, caller: Caller) -> None:
        if self.house.gate is not None:
            # Behind a backend's address are all of its users.
            address = None if BACKEND in self.caller.roles else self.asked.address
            await self.house.gate.session_made(address, caller)

    def ws_url(self, session_id: str) -> str:
        public = urlsplit(self.rest.settings.public_url or f"{self.asked.scheme}://{self.asked.host}")
        scheme = "wss" if public.scheme == "https" else "ws"
        query = f"sessionId={quote(session_id)}"
        return urlunsplit((scheme, public.netloc, f"{self.house.paths.told}/ws", query, ""))


@stream_request_body
class SessionsHandler(TicketHandler):
    """Creates sessions and lists the caller's own."""

    async def post(self) -> None:
        if self.rest.running.draining:  # a proxy asks another server
            raise Unavailable("The server is about to stop; try again in a moment.", retry_after_ms=1000)
        wanted = self.json_body(NewSession, "Send less metadata.") or NewSession()
        self.checked(wanted)
        caller = self.acting(wanted.user_id)
        assistants = self.rest.settings.assistants
        assistant = wanted.assistant or caller.assistant or "default"
        if assistant not in assistants:
            meant = nearest(assistant, assistants) or "."
            raise Forbidden(f'There is no assistant "{assistant[:60]}"{meant}')
        if caller.assistant not in (None, assistant):
            raise Forbidden(f'This credential is for the assistant "{caller.assistant}" only.')
        await self.counted(caller)
        session = await self.rest.store.create(
            user=caller.user,
            assistant=assistant,
            metadata=wanted.metadata or {},
            label="" if self.house.identity.required else wanted.user_id or "",
        )
        self.house.metrics.session_created()
        body = {
            "sessionId": session.id,
            "userId": _user_id(session),
            "assistant": session.assistant,
            "createdAt": rfc3339(session.created_at),
            "expiresAt": rfc3339(session.expires_at),
            "wsUrl": self.ws_url(session.id),
        }
        if self.house.identity.required:
            ticket = await self.minted(caller, session, wanted)
            body |= {"token": ticket.token, "tokenExpiresAt": rfc3339(ticket.expires_at)}
        self.set_header("Location", f"{self.house.paths.told}/api/sessions/{session.id}")
        self.answer(body, 201)

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


@stream_request_body
class SessionTokenHandler(TicketHandler):
    """Another ticket for a session that is there."""

    async def post(self, id: str) -> None:
        wanted = self.json_body(NewTicket, "Send less.") or NewTicket()
        caller = self.acting(wanted.user_id)
        session = await self.rest.store.get(id, user=caller.user)
        self.checked(wanted)
        if not self.house.identity.required:
            raise BadMessage(
                "There are no tokens of sessions while callers are not asked who they are. Open wsUrl as it is,"
                " or set AUTH__MODES."
            )
        await self.counted(caller)
        ticket = await self.minted(caller, session, wanted)
        body = {
            "token": ticket.token,
            "expiresAt": rfc3339(ticket.expires_at),
            "wsUrl": self.ws_url(session.id),
        }
        self.answer(body, 201)


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
    """For operators, and for the machine itself, where what collects metrics has no credential."""

    operator = True
    open_to_this_machine = True

    async def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE)
        self.set_header("Cache-Control", "no-store")
        # The sums of many processes take some time, in which conversations are not to wait.
        self.write(await asyncio.to_thread(self.house.metrics.render))

    head = get


class OpenApiHandler(ApiHandler):
    """All of this, for programs."""

    async def get(self) -> None:
        names = self.application.wildcard_router.named_rules
        self.answer(
            document(served(names), base=self.house.paths.told, credentials=self.house.identity.required)
        )

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
        URLSpec(r"/health", HealthHandler, given, name="health"),
        URLSpec(r"/health/ready", ReadyHandler, given, name="ready"),
        URLSpec(r"/metrics", MetricsHandler, given, name="metrics"),
        URLSpec(r"/openapi\.json", OpenApiHandler, given, name="openapi"),
        URLSpec(r"/api/sessions", SessionsHandler, given, name="sessions"),
        URLSpec(r"/api/sessions/([^/]+)", SessionHandler, given, name="session"),
        URLSpec(r"/api/sessions/([^/]+)/token", SessionTokenHandler, given, name="ticket"),
        URLSpec(r"/api/sessions/([^/]+)/events", EventsHandler, given, name="events"),
        URLSpec(r"/api(?:/.*)?", NoSuchRouteHandler, given, name="api_nothing"),
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
