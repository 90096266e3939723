"""Sessions and their memory, credentials, and what a store of them promises.

A session belongs to one user, ends some time after its last activity, and remembers the newest finished
messages of its conversation. Ids are unguessable but are no credentials: every look-up names the user.
A credential is a secret name that opens something until it expires: an ephemeral token, a resumption handle.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tornado_live.errors import SessionNotFound
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event

Role = Literal["user", "model", "tool"]

_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Session:
    """Times are epoch seconds. `message_count` is how many messages the memory holds; `usage` is in the shape
    of `observe.usage.Usage.as_json`; `last_turn` is the highest turn recorded, 0 before the first.

    `label` is the `userId` that a client gave in mode `none`, where it names nobody; else empty.
    """

    id: str
    user: str
    metadata: Mapping[str, Json]
    assistant: str
    created_at: float
    last_active_at: float
    expires_at: float
    message_count: int
    usage: Mapping[str, Json]
    last_turn: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One finished message; `at` in epoch seconds."""

    role: Role
    text: str
    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class Credential:
    """`body` is what was kept with the name. `used_up`: no use is left, or was left to be spent."""

    body: Mapping[str, Json]
    state: Literal["good", "used_up", "expired"]


class SessionStore(Protocol):
    """Where sessions outlive the process.

    The coroutines raise Unavailable when the store cannot be reached, and see everything that was queued
    before them. The plain methods only queue; what cannot be written is kept (bounded), tried again, logged,
    and seen in `healthy`. They do nothing for a session that is gone.
    """

    async def create(
        self, *, user: str, assistant: str, metadata: Mapping[str, Json], label: str = ""
    ) -> Session:
        """Stored when it returns."""

    async def get(self, id: str, *, user: str) -> Session:
        """Raises SessionNotFound for an unknown, expired or foreign session: one answer for all."""

    async def list(
        self, user: str, *, limit: int = 50, after: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        """The user's own, newest first, and what to pass as `after` for more. BadMessage for a bad `after`."""

    async def memory(self, id: str) -> Sequence[MemoryItem]:
        """Oldest turn first; within a turn user, tool, model."""

    async def resume(self, id: str, *, user: str) -> tuple[Session, Sequence[MemoryItem]]:
        """What `get` and `memory` give, in one question. Raises SessionNotFound as `get` does."""

    async def events(self, id: str) -> Sequence[Event]:
        """In the order recorded."""

    async def delete(self, id: str, *, user: str) -> None:
        """Gone with memory and events when it returns. Raises SessionNotFound."""

    async def keep_credential(
        self,
        name: str,
        *,
        uses: int | None,
        expires_at: float,
        body: Mapping[str, Json],
        kind: str = "",
        at_most: int | None = None,
    ) -> None:
        """Stored (as its SHA-256, never itself) when it returns; a name that is there is replaced.

        `uses` None: any number of times. Raises Limited where `at_most` of this `kind` have not expired.
        """

    async def use_credential(self, name: str, *, spend: bool = True) -> Credential | None:
        """None for an unknown one, and some time after it expired. `spend` takes one use, atomically: of fifty
        at once only `uses` are good."""

    async def flush(self) -> None:
        """Everything queued is on disk when it returns."""

    async def close(self) -> None:
        """Flushes and lets go of everything. The store is not used again."""

    async def healthy(self) -> bool:
        """Whether a session could be created now."""

    def touch(self, id: str) -> None:
        """Activity: the session ends `ttl` from now. Cheap enough for every message."""

    def remember(self, id: str, item: MemoryItem) -> None: ...

    def record(self, id: str, event: Event) -> None: ...

    def set_usage(self, id: str, usage: Mapping[str, Json]) -> None: ...


def new_session_id() -> str:
    """192 random bits, 32 URL-safe characters."""
    return secrets.token_urlsafe(24)


def not_found() -> SessionNotFound:
    """The one answer for unknown, expired and foreign sessions; nothing in it tells them apart."""
    return SessionNotFound("There is no such session, or it has ended. Create a new one.")


def clip(text: str, max_bytes: int) -> str:
    """`text` in at most `max_bytes` of UTF-8, cut at a character and ended with an ellipsis where it was longer.

    Lone surrogates, which no UTF-8 can hold, become question marks.
    """
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    kept = encoded[: max(max_bytes - len(_ELLIPSIS.encode()), 0)]
    return kept.decode("utf-8", "ignore") + _ELLIPSIS
