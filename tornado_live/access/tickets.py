"""Tickets: what opens the WebSocket of one session, once, within a minute.

A page may hold one, and has nothing else to lose.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tornado_live.access.carried import bearer, carried, lower
from tornado_live.access.refusal import EXPIRED, Refused
from tornado_live.caller import Caller
from tornado_live.jsonvalue import Json
from tornado_live.sessions.store import Credential, SessionStore

PREFIX = "tlt_"
LIFE_S = 60.0
MOST = 100_000
"""Tickets that have not expired, of all users together."""

_KIND = "ticket"
_CHARS = len(PREFIX) + 43


@dataclass(frozen=True, slots=True)
class Ticket:
    """`expires_at` in epoch seconds."""

    token: str
    expires_at: float


def acting_for(caller: Caller, user: str) -> Caller:
    """`user`, as somebody else's backend says: with the limits of the backend's credential, whose end and
    revocation are the user's too, and with none of its roles."""
    return replace(
        caller,
        user=user,
        roles=frozenset(),
        claims={"sub": user},
        subjects=caller.subjects | {f"user:{user}"},
    )


async def mint_ticket(
    store: SessionStore,
    caller: Caller,
    session_id: str,
    *,
    origin: str | None,
    limits: Mapping[str, float],
    wall: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> Ticket:
    """`origin`: that of the page that will show it, exactly as browsers write it; None: of any page that may come
    in, and of programs. Of `limits` and the caller's own the lower count. Raises Limited."""
    token = f"{PREFIX}{secrets.token_urlsafe(32)}"
    expires_at = wall() + LIFE_S
    limited = replace(caller, limits=lower(caller.limits, limits))
    body: dict[str, Json] = {
        "session": session_id,
        "origin": origin,
        "caller": carried(limited, lasts_s=LIFE_S, steady=steady()),
    }
    await store.keep_credential(token, uses=1, expires_at=expires_at, body=body, kind=_KIND, at_most=MOST)
    return Ticket(token, expires_at)


async def redeem(
    store: SessionStore, token: str, *, origin: str | None, session: str | None, steady: float
) -> Caller:
    """Who shows it. Raises Refused, with nothing spent where it is the ticket of another session or page."""
    if len(token) != _CHARS:
        raise Refused("malformed ticket")
    held = _good(await store.use_credential(token, spend=False))
    if held.body.get("session") != session:
        raise Refused("ticket of another session")
    if held.body.get("origin") not in (None, origin):
        raise Refused("ticket of another origin")
    spent = _good(await store.use_credential(token))
    caller = bearer(spent.body.get("caller"), left_s=spent.left_s, steady=steady)
    if caller is None:
        raise Refused("unreadable ticket")
    return replace(caller, session=session)


def _good(found: Credential | None) -> Credential:
    if found is None:
        raise Refused("unknown ticket")
    if found.state == "expired":
        raise Refused("expired ticket", EXPIRED)
    if found.state == "used_up":
        raise Refused("ticket used before")
    return found
