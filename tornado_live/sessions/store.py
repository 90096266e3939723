"""Sessions and their memory, credentials, and what a store of them promises.

A session belongs to one user, ends some time after its last activity, and remembers the newest finished
messages of its conversation. Ids are unguessable but are no credentials: every look-up names the user.
A credential is a secret name that opens something, mostly until it expires: an API key, a ticket, an ephemeral
token, a resumption handle.

Several processes may share a store. A node is one of them, from its start to its end; of a session's nodes one
holds it: that one runs its conversation. The store's time does not jump with the wall clock, which is only shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from tornado_live.errors import BadMessage, Limited, SessionNotFound, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event

Role = Literal["user", "model", "tool"]

BEAT_S: Final = 1.0
NODE_LIFE_S: Final = 3.0
"""A process that has not beaten for so long is taken for dead."""
LISTED: Final = 1000
"""Credentials that are listed at once."""

_ORDER: Final[Mapping[Role, int]] = {"user": 0, "tool": 1, "model": 2}
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Handle:
    """What the model side gave to go on with its session, at `at` (epoch seconds): that session knows what was
    remembered before. Good for a setup with the same `identity`."""

    value: str
    identity: str
    at: float


@dataclass(frozen=True, slots=True)
class Session:
    """Times are epoch seconds. `message_count` is how many messages the memory holds; `usage` is in the shape
    of `observe.usage.Usage.as_json`; `last_turn` is the highest turn recorded, 0 before the first.

    `label` is the `userId` that a client gave in mode `none`, where it names nobody; else empty.
    `connected`: a client's socket is open, in whichever living process.
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
    handle: Handle | None = None
    connected: bool = False


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One finished message; `at` in epoch seconds."""

    role: Role
    text: str
    turn: int
    at: float


@dataclass(frozen=True, slots=True)
class Credential:
    """`body` is what was kept with the name. `used_up`: no use is left, or was left to be spent.

    `left_s` is how far it is from its end by the store's time, infinite for one that is for good. It does not
    count in comparisons.
    """

    body: Mapping[str, Json]
    state: Literal["good", "used_up", "expired"]
    left_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A credential as it is listed. Its name is its SHA-256. `left_s` is how far it is from its end, None for one
    that is for good; it does not count in comparisons."""

    name_digest_hex: str
    body: Mapping[str, Json]
    left_s: float | None = field(compare=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """`amount` is what was got, `left` what the window has after it. It ends in `ends_in_s`, and all of it can be
    taken again."""

    amount: int
    left: int
    ends_in_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """What a holder finds. `leaving`: living nodes that had the conversation and may still write to its memory.
    `abandoned`: one had it and died without letting go; the holder after this one is not told of it again."""

    leaving: frozenset[str]
    abandoned: bool


@dataclass(frozen=True, slots=True)
class News:
    """What a node did not do itself. `taken`: of what it holds, what another node has now. `ended`: of that, what
    was deleted or has expired. `revoked`: the subjects revoked since its last beat, and for how many seconds."""

    taken: frozenset[str]
    ended: frozenset[str]
    revoked: Mapping[str, float]


class SessionStore(Protocol):
    """Where sessions outlive the process.

    The coroutines raise Unavailable when the store cannot be reached, and see everything that was queued
    before them. The plain methods only queue; what cannot be written is kept (bounded), tried again, logged,
    and seen in `healthy`. They do nothing for a session that is gone.
    """

    async def create(
        self,
        *,
        user: str,
        assistant: str,
        metadata: Mapping[str, Json],
        label: str = "",
        node: str | None = None,
    ) -> Session:
        """Stored when it returns. `node` holds it from the start."""

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
        expires_at: float | None,
        body: Mapping[str, Json],
        kind: str = "",
        at_most: int | None = None,
    ) -> None:
        """Stored (as its SHA-256, never itself) when it returns; a name that is there is replaced.

        `uses` None: any number of times. `expires_at` None: for good. Raises Limited where `at_most` of this
        `kind` have not expired.
        """

    async def use_credential(self, name: str, *, spend: bool = True) -> Credential | None:
        """None for an unknown one, and some time after it expired. `spend` takes one use, atomically: of fifty
        at once only `uses` are good."""

    async def credentials(self, kind: str) -> Sequence[Kept]:
        """Those of a kind that have not expired, oldest first: at most LISTED, of more those that end first."""

    async def drop_credential(self, name: str) -> bool:
        """Whether there was one that had not expired. It is unknown when it returns."""

    async def hold(self, id: str, *, node: str) -> Hold:
        """From now on `node` holds the session, atomically: of two at once the later one does, and sees the other
        in `leaving`. Where it held it before nothing changes. Raises SessionNotFound. Who is told Unavailable may
        hold it all the same, and releases it."""

    async def leaving(self, id: str, *, node: str) -> Hold:
        """As `hold`, without taking it: for whom its holder still waits."""

    async def beat(self, node: str, held: Collection[str]) -> News:
        """The node lives, and holds the sessions `held`; what became of them. Every BEAT_S."""

    def listen(self, look: Callable[[], None]) -> None:
        """`look` is called, on the loop, where the store hears at once of what the next beat would tell. It may
        never be: a beat in time is enough."""

    async def leave(self, node: str) -> None:
        """The node ends in order: it holds nothing any more, and nobody waits for it."""

    async def revoke(self, subject: str, *, lasts_s: float) -> None:
        """Every node hears of `subject`, a name that means nothing to the store, once, in its next beat; so do
        those that start within `lasts_s`. One that is revoked for longer already stays so."""

    async def take(self, counter: str, amount: int, *, limit: int, window_s: float) -> Taken:
        """Up to `amount` of the `limit` that `counter` has in a window, which begins with the first take of it.
        Atomic: nothing is got where nothing is left."""

    async def occupy(self, counter: str, place: str, *, limit: int, lasts_s: float) -> bool:
        """One of the `limit` places of `counter`, for `lasts_s` from now. Whoever has `place` keeps it, whatever
        the limit. Atomic: False where all are taken. Places whose time is over are free.

        A store that lost its data gives places anew: who has one may be told False when it wants to keep it.
        """

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

    def keep_handle(self, id: str, handle: Handle | None) -> None:
        """In the place of the one before."""

    def attend(self, id: str, *, node: str, connected: bool) -> None:
        """Whether a client's socket is open. Counts only while `node` holds the session."""

    def release(self, id: str, *, node: str) -> None:
        """`node` lets go of the session: what it remembered before is written before."""

    def give_back(self, counter: str, amount: int) -> None:
        """Of what was taken in the window that is."""

    def vacate(self, counter: str, place: str) -> None:
        """The place is free before its time, unless another process has occupied it since."""


def new_session(
    user: str, assistant: str, metadata: Mapping[str, Json], label: str, *, at: float, ttl_s: float
) -> Session:
    """One that begins now; `at` is the time that is shown."""
    return Session(
        id=new_session_id(),
        user=user,
        metadata=dict(metadata),
        assistant=assistant,
        created_at=at,
        last_active_at=at,
        expires_at=at + ttl_s,
        message_count=0,
        usage={},
        last_turn=0,
        label=label,
    )


def new_session_id() -> str:
    """192 random bits, 32 URL-safe characters."""
    return secrets.token_urlsafe(24)


def not_found() -> SessionNotFound:
    """The one answer for unknown, expired and foreign sessions; nothing in it tells them apart."""
    return SessionNotFound("There is no such session, or it has ended. Create a new one.")


def out_of_reach() -> Unavailable:
    return Unavailable("The session store cannot be reached. Try again in a moment.", retry_after_ms=1000)


def too_many(live: int, soonest_s: float) -> Limited:
    """There are `live` credentials of a kind, and the first of them ends in `soonest_s`, if it ever does."""
    message = f"There are {live} live credentials already."
    if math.isinf(soonest_s):
        return Limited(f"{message} Some of them have to be revoked first.")
    return Limited(
        f"{message} Wait until some of them have expired.", retry_after_ms=math.ceil(1000 * soonest_s)
    )


def clip(text: str, max_bytes: int) -> str:
    """`text` in at most `max_bytes` of UTF-8, cut at a character and ended with an ellipsis where it was longer.

    Lone surrogates, which no UTF-8 can hold, become question marks.
    """
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    kept = encoded[: max(max_bytes - len(_ELLIPSIS.encode()), 0)]
    return kept.decode("utf-8", "ignore") + _ELLIPSIS


def place_in_memory(item: MemoryItem) -> tuple[int, int]:
    """What memory is sorted by, items of one place in the order remembered: a model's answer may end before what
    it answers is transcribed."""
    return item.turn, _ORDER[item.role]


def digest_of(name: str) -> bytes:
    """What stands for a credential in the store. A name may be anybody's text, lone surrogates and all."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def cursor_of(created_at: float, id: str) -> str:
    """The place behind a session in its user's list."""
    place = json.dumps([float(created_at), id])
    return base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode()


def place_of(cursor: str) -> tuple[float, str]:
    """When the session of a cursor was created, and its id. Raises BadMessage."""
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, RecursionError) as error:
        raise _bad_cursor() from error
    match place:
        case [float() as created_at, str() as id]:
            return created_at, id
    raise _bad_cursor()


def _bad_cursor() -> BadMessage:
    return BadMessage('"after" is not a place in this list: pass the "next" of the page before, unchanged.')
