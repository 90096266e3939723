"""API keys: made at the command line, shown once, kept as a hash until they end or are revoked.

A key is `tl_<id>_<secret>`. The id finds it and is no secret; what is compared is the hash of the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tornado_live.access.carried import numbers
from tornado_live.access.refusal import Refused
from tornado_live.caller import Caller
from tornado_live.jsonvalue import Json
from tornado_live.sessions.store import SessionStore

PREFIX = "tl_"
NAMELESS = "key:"
"""How the user of a key begins that acts for nobody else. No other user is called so."""
MOST = 1000
"""Keys that have not ended: as many as a store lists."""
REVOKED_S = 24 * 3600.0

_KIND = "key"
_ID_CHARS = 12
_LATEST = 1e11  # in seconds the year 5138, which can still be written as a date
_KEY = re.compile(rf"tl_([a-z0-9]{{{_ID_CHARS}}})_[A-Za-z0-9_-]{{43}}", re.ASCII)
_NO_DIGEST = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


@dataclass(frozen=True, slots=True)
class Key:
    """`user`: whom it acts for, None for itself. `left_s`: until it ends, None for never."""

    id: str
    name: str
    user: str | None
    roles: frozenset[str]
    assistant: str | None
    limits: Mapping[str, float]
    created_at: float
    digest: str
    left_s: float | None = field(default=None, compare=False)

    @property
    def caller(self) -> Caller:
        user = self.user or f"{NAMELESS}{self.name}"
        return Caller(
            user=user,
            roles=self.roles,
            assistant=self.assistant,
            claims={"sub": user},
            limits=self.limits,
            subjects=frozenset({f"user:{user}", subject(self.id)}),
            known=True,
        )


def subject(id: str) -> str:
    """By which a key is revoked."""
    return f"key:{id}"


def make_key(
    name: str,
    *,
    now: float,
    user: str | None = None,
    roles: frozenset[str] = frozenset(),
    assistant: str | None = None,
    limits: Mapping[str, float] | None = None,
) -> tuple[str, Key]:
    """The key to be shown, and what is kept of it. `now` is epoch seconds."""
    alphabet = string.ascii_lowercase + string.digits
    id = "".join(secrets.choice(alphabet) for _ in range(_ID_CHARS))
    shown = f"{PREFIX}{id}_{secrets.token_urlsafe(32)}"
    return shown, Key(id, name, user, roles, assistant, dict(limits or {}), now, digest_of(shown))


def digest_of(shown: str) -> str:
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()


async def keep_key(store: SessionStore, key: Key, expires_at: float | None) -> None:
    """Good from now on, in every process of the store; `expires_at` None: for good. Raises Limited."""
    body: dict[str, Json] = {
        "id": key.id,
        "name": key.name,
        "digest": key.digest,
        "user": key.user,
        "roles": [*sorted(key.roles)],
        "assistant": key.assistant,
        "limits": dict(key.limits),
        "createdAt": key.created_at,
    }
    await store.keep_credential(
        subject(key.id), uses=None, expires_at=expires_at, body=body, kind=_KIND, at_most=MOST
    )


async def find_key(store: SessionStore, shown: str) -> Key:
    """Raises Refused. An id that nobody has takes the same comparison as one that somebody has."""
    found = _KEY.fullmatch(shown)
    if found is None:
        raise Refused("malformed key")
    kept = await store.use_credential(subject(found[1]), spend=False)
    key = None if kept is None else _key(kept.body, kept.left_s)
    same = matches(shown, key)
    if kept is None or key is None:
        raise Refused("unknown key")
    if not same:
        raise Refused("wrong secret of a key")
    if kept.state != "good":
        raise Refused("expired key")
    return key


def matches(shown: str, key: Key | None) -> bool:
    """In a time that tells nothing of `key`, not even whether there is one."""
    return hmac.compare_digest(digest_of(shown), _NO_DIGEST if key is None else key.digest)


async def list_keys(store: SessionStore) -> Sequence[Key]:
    """Those that have not ended, oldest first."""
    kept = [_key(one.body, one.left_s) for one in await store.credentials(_KIND)]
    return [key for key in kept if key is not None]


async def revoke_key(store: SessionStore, key: Key) -> bool:
    """Whether it was still there. Whoever talks with it is sent away, in every process."""
    # In this order: whatever fails in between, the key is still listed, and can be revoked again.
    await store.revoke(subject(key.id), lasts_s=REVOKED_S)
    return await store.drop_credential(subject(key.id))


def _key(body: Mapping[str, Json], left_s: float | None) -> Key | None:
    match body:
        case {
            "id": str() as id,
            "name": str() as name,
            "digest": str() as digest,
            "user": str() | None as user,
            "roles": list() as roles,
            "assistant": str() | None as assistant,
            "limits": dict() as limits,
            "createdAt": int() | float() as created_at,
        } if digest.isascii() and 0 <= created_at < _LATEST:
            return Key(
                id,
                name,
                user,
                frozenset(map(str, roles)),
                assistant,
                numbers(limits),
                created_at,
                digest,
                None if left_s is None or math.isinf(left_s) else left_s,
            )
    return None
