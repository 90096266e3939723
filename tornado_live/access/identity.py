"""Who asks: the one place where a credential becomes a Caller, for REST, WebSockets and the drop-in endpoint."""

from __future__ import annotations

import logging
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from tornado_live.access import keys, tickets, tokens
from tornado_live.access.jwks import Fetch
from tornado_live.access.jwt import Verifier
from tornado_live.access.keys import Key
from tornado_live.access.limits import OWN
from tornado_live.access.refusal import Refused
from tornado_live.caller import Caller
from tornado_live.errors import Forbidden, Unauthenticated, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Auth

LOCAL: Final = Caller(user="local")
"""Everybody, where callers are not asked who they are."""

REMEMBERED_S: Final = 600.0
"""A key that was good is good so much longer while the store is away, so that who talks can come back."""

_MOST_REMEMBERED = 10_000
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MOST_ROLES = 100
_LONGEST = 256
_LARGEST = 1e15
_SHOW = "Show who you are: send an API key or a token as Authorization: Bearer."
_ONLY_SOCKETS = (
    "The token of a session opens its WebSocket, and nothing else. Show an API key or a token of your own."
)
_ONLY_LIVE = (
    "An ephemeral token opens the Live API, and nothing else. Show an API key or a token of your own."
)
_FIXED = "This ephemeral token fixes a setup, which only Google's own protocol has. Make one without."

logger = logging.getLogger(__name__)


class Identity:
    """Without `modes` of `auth`, callers are not asked who they are.

    `store` has the keys, tickets and ephemeral tokens. `assistants` are those that there are; None: any. `fetch`
    is for the keys of whoever signs. Raises ConfigError for a public key that cannot be used.
    """

    def __init__(
        self,
        auth: Auth | None = None,
        store: SessionStore | None = None,
        *,
        assistants: Collection[str] | None = None,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.modes = frozenset[str]() if auth is None else frozenset[str](auth.modes)
        self._auth = auth
        self._store = store
        self._assistants = None if assistants is None else frozenset(assistants)
        self._clock = clock
        self._verifier: Verifier | None = None
        if auth is not None and "jwt" in self.modes:
            self._verifier = Verifier(auth, fetch=fetch, clock=clock)
        self._remembered: OrderedDict[str, tuple[Key, float]] = OrderedDict()
        self._revoked: dict[str, float] = {}
        self._strange: set[str] = set()
        """Assistants that claims named and nobody has: told to the log, once each."""

    @property
    def required(self) -> bool:
        """Whether a caller has to show who it is."""
        return bool(self.modes)

    async def caller(
        self, credential: str | None, *, origin: str | None = None, session: str | None = None
    ) -> Caller:
        """Who shows this credential, None for none: an API key, or a token of who signs them.

        Raises Unauthenticated for one that is wrong, expired or revoked, and where there has to be one;
        Unavailable where nobody can say.
        """
        if not self.modes:
            return LOCAL
        if credential is None:
            raise Unauthenticated(_SHOW)
        with _told():
            return self._allowed(await self._known(credential))

    async def socket_caller(
        self, credential: str | None, *, origin: str | None = None, session: str | None = None
    ) -> Caller:
        """The same for a WebSocket of `session`, opened by a page of `origin`: a ticket and an ephemeral token are
        good too, and one use of it is spent. Also raises Forbidden, for a token that fixes a setup."""
        if credential is not None and credential.startswith((tickets.PREFIX, tokens.PREFIX)):
            with _told():
                if credential.startswith(tickets.PREFIX):
                    found = await tickets.redeem(
                        self._kept, credential, origin=origin, session=session, steady=self._clock()
                    )
                    return self._allowed(found)
                return await self._by_token(credential)
        return await self.caller(credential, origin=origin, session=session)

    def token_caller(self, token: tokens.Token) -> Caller:
        """Who shows an ephemeral token that was admitted. Raises Unauthenticated where it has been revoked."""
        with _told():
            return self._allowed(token.caller(self._clock))

    def is_revoked(self, caller: Caller) -> bool:
        """Whether one of its subjects is, since it was let in."""
        return bool(self._withdrawn(caller))

    def revoke(self, subjects: Mapping[str, float]) -> None:
        """What the store told: these are refused for so many seconds from now."""
        now = self._clock()
        self._revoked = {subject: ends for subject, ends in self._revoked.items() if ends > now}
        for subject, lasts_s in subjects.items():
            self._revoked[subject] = max(now + lasts_s, self._revoked.get(subject, now))
        for digest, (key, _) in list(self._remembered.items()):
            if key.caller.subjects & subjects.keys():
                del self._remembered[digest]

    @property
    def _kept(self) -> SessionStore:
        if self._store is None:
            raise Refused("there is no store of credentials here")
        return self._store

    def _allowed(self, caller: Caller) -> Caller:
        revoked = self._withdrawn(caller)
        if revoked:
            raise Refused(f"revoked: {min(revoked)}")
        if caller.until is not None and caller.until <= self._clock():
            raise Refused("the credential behind it has expired")
        if self.required and not caller.known:
            raise Refused("made while nobody was asked who they are")
        return caller

    def _withdrawn(self, caller: Caller) -> Collection[str]:
        now = self._clock()
        return [subject for subject in caller.subjects if self._revoked.get(subject, now) > now]

    def _tell_once(self, assistant: str) -> None:
        if assistant not in self._strange and len(self._strange) < _LONGEST:
            self._strange.add(assistant)
            log_event(logger, "assistant_unknown", level=logging.WARNING, assistant=assistant)

    async def _known(self, credential: str) -> Caller:
        if credential.startswith(keys.PREFIX):
            self._check_mode("api_key")
            return await self._by_key(credential)
        if credential.startswith(tickets.PREFIX):
            raise Refused("ticket where only keys and signed tokens are good", _ONLY_SOCKETS)
        if credential.startswith(tokens.PREFIX):
            raise Refused("ephemeral token where only keys and signed tokens are good", _ONLY_LIVE)
        if credential.count(".") >= 2:
            self._check_mode("jwt")
            return await self._by_jwt(credential)
        raise Refused("neither a key nor a token")

    def _check_mode(self, mode: str) -> None:
        if mode not in self.modes:
            kind = {"api_key": "an API key", "jwt": "a JSON Web Token"}[mode]
            raise Refused(f"{kind}, and auth.modes has no {mode}")

    async def _by_key(self, shown: str) -> Caller:
        digest, now = keys.digest_of(shown), self._clock()
        try:
            key = await keys.find_key(self._kept, shown)
        except Unavailable:
            remembered, at = self._remembered.get(digest, (None, 0.0))
            if remembered is None or now - at > REMEMBERED_S:
                raise
            return _lasting(remembered, at)
        except Refused:
            self._remembered.pop(digest, None)
            raise
        self._remembered[digest] = (key, now)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return _lasting(key, now)

    async def _by_jwt(self, shown: str) -> Caller:
        assert self._verifier is not None, "the mode is on"
        assert self._auth is not None
        claims = await self._verifier.verified(shown)
        found = caller_of(claims, self._auth, now=time.time(), steady=self._clock())
        if self._assistants is None or found.assistant in (None, *self._assistants):
            return found
        # The claim may mean something else; a key's own assistant was meant, and stays the only one it may use.
        self._tell_once(str(found.assistant))
        return replace(found, assistant=None)

    async def _by_token(self, name: str) -> Caller:
        looked = await tokens.admit(self._kept, name, resuming=True)
        if looked.setup is not None:
            raise Forbidden(_FIXED)
        self._allowed(looked.caller(self._clock))
        admitted = await tokens.admit(self._kept, name, resuming=False)
        return self._allowed(admitted.caller(self._clock))


@contextmanager
def _told() -> Iterator[None]:
    """Whatever is refused inside is one line of the log, which says why."""
    try:
        yield
    except Refused as error:
        log_event(logger, "credential_refused", level=logging.WARNING, reason=error.reason)
        raise


def _lasting(key: Key, at: float) -> Caller:
    return key.caller if key.left_s is None else replace(key.caller, until=at + key.left_s)


def caller_of(claims: Mapping[str, Json], auth: Auth, *, now: float, steady: float) -> Caller:
    """Who a verified token is about, by the claims that the operator named. Raises Refused."""
    user = _claim(claims, auth.user_claim)
    if not isinstance(user, str) or not is_user(user):
        raise Refused(f'"{auth.user_claim}" of a token names no user')
    exp, jti = claims.get("exp"), claims.get("jti")
    assert isinstance(exp, int | float), "verified"
    subjects = {f"user:{user}"} | ({f"jwt:{jti}"} if isinstance(jti, str) and jti else set())
    assistant = _claim(claims, auth.assistant_claim)
    return Caller(
        user=user,
        roles=frozenset(auth.role_names.get(role, role) for role in _words(_claim(claims, auth.roles_claim))),
        assistant=assistant if isinstance(assistant, str) and assistant else None,
        claims=claims,
        limits=own_limits(_claim(claims, auth.limits_claim)),
        subjects=frozenset(subjects),
        until=steady + (exp + auth.jwt_leeway_s - now),
        known=True,
    )


def is_user(name: str) -> bool:
    """Whether somebody may be called so: nobody takes the place of who is not asked, or of a key, or looks like
    somebody else by what is not seen."""
    return (
        bool(name)
        and len(name) <= _LONGEST
        and name != LOCAL.user
        and not name.startswith(keys.NAMELESS)
        and name == name.strip()
        and not any(unicodedata.category(char) in _UNSEEN for char in name)
    )


def own_limits(given: Json) -> dict[str, float]:
    """Those that a credential may have, of what it says. What is no number allows nothing."""
    found = given if isinstance(given, dict) else {}
    return {name: limit for name in OWN & found.keys() if (limit := _limit(found[name])) < _LARGEST}


def _limit(value: Json) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0.0
    return value if value >= 0 else 0.0  # NaN is not


def _claim(claims: Mapping[str, Json], path: str) -> Json:
    """At a dotted path. A claim whose own name has dots in it, such as a URL, is found by its whole name."""
    if path in claims:
        return claims[path]
    value: Json = dict(claims)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _words(given: Json) -> Iterable[str]:
    """Roles: a list of texts, or words in one text."""
    found = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return [word for word in found if isinstance(word, str) and 0 < len(word) <= _LONGEST][:_MOST_ROLES]
