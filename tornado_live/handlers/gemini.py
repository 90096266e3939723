"""The drop-in endpoint: clients of Google's own protocol, at the path and with the credentials that they use."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace

from tornado.routing import URLSpec

from tornado_live.access import tokens
from tornado_live.caller import Caller
from tornado_live.errors import (
    BadMessage,
    Forbidden,
    LiveError,
    SessionNotFound,
    TimedOut,
    Unauthenticated,
)
from tornado_live.handlers import credentials
from tornado_live.handlers.live import Live, SocketHandler
from tornado_live.live.commands import Enter, Passed
from tornado_live.live.dialects import GeminiDialect
from tornado_live.live.guest import EVERY_FIELD, UPDATABLE, GuestPlan, guest_plan
from tornado_live.live.reception import Gone, first_message
from tornado_live.sessions.store import Session
from tornado_live.settings import Settings

PATH = (
    r"/+ws/+google\.ai\.generativelanguage\.v1(?:beta|alpha)?"
    r"\.GenerativeService\.BidiGenerateContent(Constrained)?"
)
HANDLE_LIFE_S = 7 * 24 * 3600.0
"""A handle is of use only as long as its session, which mostly ends long before."""

_AGENT_CHARS = 200


class GeminiHandler(SocketHandler):
    """`setup` is the first message, and says which session is gone on with.

    Whatever is wrong is told by a close with Google's code and our reason, after an upgrade that is always taken:
    clients show the reason of a close, and nothing of a refused upgrade.
    """

    def initialize(self, live: Live, settings: Settings) -> None:  # type: ignore[override]  # Tornado's hook
        super().initialize(live)
        self._settings = settings

    def open(self, constrained: str | None = None) -> None:
        """The upgrade is answered once this has run, so the setup is waited for elsewhere."""
        self.live.registry.receive(self._receive(constrained=constrained is not None))

    async def _receive(self, *, constrained: bool) -> None:
        dialect = GeminiDialect()
        try:
            await self.enter()
            name = self._token_name(constrained=constrained)
            token = await self._admitted(name, spends=False)
            caller = await self._guest() if token is None else self.house.identity.token_caller(token)
            data, binary = await self._setup()
            first = dialect.decode(data, binary)
            if not isinstance(first, Passed) or first.said.setup is None:
                raise BadMessage("The first message must be setup.")
            asked = first.said.setup
            settings = self._settings
            if token is not None:
                asked = token.applied(asked)
            if caller.assistant not in (None, settings.drop_in.assistant):
                raise Forbidden("Your credential is for an assistant that this endpoint does not serve.")
            plan = guest_plan(asked, settings.drop_in, settings.models, settings.assistants)
            if token is not None:
                whole = token.setup is not None and token.locked is None
                fixed = [EVERY_FIELD] if whole else filter(token.fixes, UPDATABLE)
                plan = replace(plan, locked=frozenset(fixed))
                await self._admitted(name, spends=plan.handle is None)
            dialect.media_chunks = plan.facts.media_chunks
            attach = self.live.registry.attach
            if plan.handle:
                wanted = await self._resumed(plan.handle, caller)
                handle = plan.handle if plan.wants_handles else None
                async with self.found(wanted, caller, guest=True) as found:
                    attach(
                        self.peer,
                        found.session,
                        found.memory,
                        caller,
                        dialect,
                        self.verifying(wanted),
                        said=Enter(plan, wanted, handle),
                        abandoned=found.abandoned,
                    )
                return
            session = await self._new(caller, plan)
            handle = await self._handle(session) if plan.wants_handles else None
            entering = Enter(plan, session.id, handle)
            attach(self.peer, session, (), caller, dialect, self.verifying(session.id), said=entering)
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

    async def _setup(self) -> tuple[bytes, bool]:
        seconds = self.live.limits.hello_timeout_s
        try:
            async with asyncio.timeout(seconds):
                return await first_message(self.peer)
        except TimeoutError:
            raise TimedOut(f"No setup came within {seconds:g} s; send it at once.") from None

    def shown(self) -> str | None:
        return next(iter(credentials.of_google(self.request)), None)

    async def _guest(self) -> Caller:
        """Who shows a credential that is no ephemeral token."""
        return await self.verified(self.shown() if self.house.identity.required else None, None)

    def _token_name(self, *, constrained: bool) -> str | None:
        """The ephemeral token among the credentials; any other is good while everybody is one user."""
        given = credentials.of_google(self.request)
        name = next((one for one in given if one.startswith(tokens.PREFIX)), None)
        if name is None and constrained:
            raise Unauthenticated("BidiGenerateContentConstrained takes an ephemeral token only.")
        return name

    async def _admitted(self, name: str | None, *, spends: bool) -> tokens.Token | None:
        """A use is spent only once the setup is known to be good."""
        if name is None:
            return None
        return await tokens.admit(self.live.store, name, resuming=not spends)

    async def _resumed(self, handle: str, caller: Caller) -> str:
        """The session that a handle of ours names."""
        credential = await self.live.store.use_credential(handle, spend=False)
        body = credential.body if credential is not None and credential.state == "good" else {}
        session = body.get("session")
        if not isinstance(session, str) or body.get("user") != caller.user:
            raise SessionNotFound("There is no session for this handle, or it has ended; connect without it.")
        return session

    async def _new(self, caller: Caller, plan: GuestPlan) -> Session:
        agent = self.request.headers.get("x-goog-api-client") or self.request.headers.get("User-Agent") or ""
        return await self.created(caller, plan.assistant, {"client": agent[:_AGENT_CHARS]})

    async def _handle(self, session: Session) -> str:
        handle = secrets.token_urlsafe(32)
        await self.live.store.keep_credential(
            handle,
            uses=None,
            expires_at=time.time() + HANDLE_LIFE_S,
            body={"session": session.id, "user": session.user},
        )
        return handle


def routes(live: Live, settings: Settings) -> list[URLSpec]:
    return (
        [URLSpec(PATH, GeminiHandler, {"live": live, "settings": settings}, name="drop_in")]
        if settings.drop_in.enabled
        else []
    )
