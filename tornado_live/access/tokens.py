"""Ephemeral tokens, as Google's service has them: what is asked for, and what a connection with one may do.

No I/O of its own: the store is given, and so is the time.

Documented (AuthToken of Google's REST reference, CreateAuthTokenConfig of google-genai 3.4.0): the fields, their
defaults and bounds; an empty mask is none; without a mask the client's setup is ignored, with one its fields are
overwritten; to resume a session is no use. Recorded from google-genai 3.4.0: masks in both spellings with a path
twice, times without a zone, an empty body. Reported (googleapis/js-genai#1492): the words for a mask that names no
field, and that a path into a list is one. Inferred: the client's own resumption handle counts in spite of a mask.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

from tornado_live.access.carried import bearer, carried
from tornado_live.access.refusal import Refused
from tornado_live.caller import Caller
from tornado_live.errors import BadMessage, Limited, LiveError, nearest
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import rfc3339
from tornado_live.sessions.store import SessionStore
from tornado_live.wire.gemini_client import DEEPEST

PREFIX = "auth_tokens/"
LIFE_S = 30 * 60.0
NEW_SESSIONS_S = 60.0
TOO_LONG_S = 20 * 3600.0
MOST = 10_000
"""Tokens that have not expired, of all users together."""
MOST_OF_ONE = 1000
"""The same of one user, who is asked who they are; a backend makes them for many."""

_MOST_USES = 2**31 - 1
_MOST_PATHS = 200
_DEEPEST_PATH = 10
_KIND = "token"
_SCOPES = ("scope", "scopes", "scp")  # claims that open what roles open
_FIELDS = ("uses", "expireTime", "newSessionExpireTime", "bidiGenerateContentSetup", "fieldMask")
_RESUMPTION = "sessionResumption"
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,6})?[0-9]{0,3}"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?",
    re.ASCII,
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)

# A lock on what is nowhere would lock nothing, unseen: masks may name these, and what the token's setup has.
_SETUP = frozenset(
    """model generationConfig systemInstruction tools realtimeInputConfig sessionResumption
    contextWindowCompression inputAudioTranscription outputAudioTranscription proactivity historyConfig
    avatarConfig safetySettings labels explicitVadSignal""".split()  # noqa: SIM905 - easier to read
)
_GENERATION = frozenset(
    """audioTimestamp audioTranscriptionConfig candidateCount enableAffectiveDialog enableEnhancedCivicAnswers
    frequencyPenalty logprobs maxOutputTokens mediaResolution modelSelectionConfig presencePenalty
    responseFormat responseJsonSchema responseLogprobs responseMimeType responseModalities responseSchema
    routingConfig seed speechConfig stopSequences temperature thinkingConfig topK topP
    translationConfig""".split()  # noqa: SIM905 - easier to read
)
_LISTS = frozenset({"tools", "safetySettings"})

_Locks: TypeAlias = dict[str, "_Locks | None"]
"""Fields by their plain name: None for one that is locked, else what is locked inside it."""


@dataclass(frozen=True, slots=True)
class Token:
    """`uses`: as asked for, None for any number. `expires_at`, `sessions_until`: epoch seconds, as asked for.
    `left_s` is how long it lasts from when it was admitted: no jump of the wall clock changes that.

    `setup` None: it fixes nothing. Else `locked` are the paths that it fixes, in lowerCamel; None: all of it.
    """

    name: str
    user: str
    uses: int | None
    expires_at: float
    sessions_until: float
    setup: Mapping[str, Json] | None
    locked: tuple[tuple[str, ...], ...] | None
    left_s: float = field(default=0.0, compare=False)
    carried: Mapping[str, Json] = field(default_factory=dict)
    """Of the caller who made it."""

    def applied(self, asked: Mapping[str, Json]) -> dict[str, Json]:
        """The setup that counts, of what a client asks for. A locked path that the token has not is left out.

        Every spelling of a name is understood, at every depth; what is not locked stays as it was sent. The
        client's own sessionResumption always stays.
        """
        if self.setup is None:
            return dict(asked)
        resumption = {
            name: each for name, each in asked.items() if _same(name, _RESUMPTION) and each is not None
        }
        if self.locked is None:
            fixed = {n: each for n, each in self.setup.items() if not (resumption and _same(n, _RESUMPTION))}
            return fixed | resumption
        locked = (path for path in self.locked if not (resumption and path[0] == _RESUMPTION))
        return _fixed(asked, self.setup, _tree(locked))

    def caller(self, clock: Callable[[], float] = time.monotonic) -> Caller:
        """Who comes with it, for as long as it lasts, and what it was made with."""
        ends = clock() + self.left_s
        found = bearer(self.carried, left_s=self.left_s, steady=clock()) or Caller(self.user)
        return replace(
            found, roles=frozenset(), until=ends if found.until is None else min(ends, found.until)
        )

    def fixes(self, field: str) -> bool:
        """Whether this field of a setup, or anything inside it, is locked. A contextUpdate may not change it."""
        if self.setup is None:
            return False
        return self.locked is None or any(_same(path[0], field) for path in self.locked)


def mint(body: Json, *, caller: Caller, now: float, steady: float) -> Token:
    """The token that a request of `caller` asks for; None is an empty body. `now` is epoch seconds, `steady` the
    same by `time.monotonic`. Raises BadMessage."""
    fields = _fields({} if body is None else body)
    setup, mask = fields.get("bidiGenerateContentSetup"), fields.get("fieldMask") or ""
    fixed = None if setup is None else _setup(setup)
    if not isinstance(mask, str):
        raise BadMessage(
            "Invalid value at 'auth_token.field_mask': it must be paths in one text, with commas between."
        )
    paths = _paths(mask)
    if paths and fixed is None:
        fixed = {}
    for path in paths:
        _check(path, fixed or {})
    name = f"{PREFIX}{secrets.token_hex(32)}"
    expires_at = _time(fields, "expireTime", now, LIFE_S)
    return Token(
        name=name,
        user=caller.user,
        uses=_uses(fields.get("uses")),
        expires_at=expires_at,
        sessions_until=_time(fields, "newSessionExpireTime", now, NEW_SESSIONS_S),
        setup=fixed,
        locked=paths or None,
        left_s=expires_at - now,
        carried=carried(_given_away(caller, name), lasts_s=expires_at - now, steady=steady),
    )


def subject(name: str) -> str:
    """By which a token is revoked."""
    return f"token:{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _given_away(caller: Caller, name: str) -> Caller:
    """The token is for a page to hold: it acts for the user, and has none of the rights of whoever made it."""
    claims = {claim: each for claim, each in caller.claims.items() if claim not in _SCOPES}
    return replace(caller, roles=frozenset(), claims=claims, subjects=caller.subjects | {subject(name)})


def bound_of(caller: Caller) -> int | None:
    """How many tokens of `caller` may be good at a time; None where only that of all together holds."""
    return MOST_OF_ONE if caller.known and "backend" not in caller.roles else None


async def keep(store: SessionStore, token: Token, *, at_most: int | None = None) -> None:
    """Good from now on, in every process of the store. Raises Limited where `at_most` of this user are good."""
    counter, place = f"tokens:{token.user}", subject(token.name)
    if at_most is not None and not await store.occupy(counter, place, limit=at_most, lasts_s=token.left_s):
        raise Limited(f"You have {at_most} live tokens already. Wait until some of them have expired.")
    body: dict[str, Json] = {
        "user": token.user,
        "carried": dict(token.carried),
        "uses": token.uses,
        "expiresAt": token.expires_at,
        "sessionsUntil": token.sessions_until,
        "setup": None if token.setup is None else dict(token.setup),
        "locked": None if token.locked is None else [list(path) for path in token.locked],
    }
    try:
        await store.keep_credential(
            token.name,
            uses=token.uses,
            expires_at=token.expires_at,
            body={_KIND: body},
            kind=_KIND,
            at_most=MOST,
        )
    except LiveError:
        store.vacate(counter, place)
        raise


async def admit(store: SessionStore, name: str, *, resuming: bool) -> Token:
    """The token of a connection that is being opened. Raises Unauthenticated.

    `resuming` spends no use and has until the token expires, so it is for whoever has shown a handle that is good.
    """
    found = await store.use_credential(name, spend=not resuming) if name.startswith(PREFIX) else None
    token = None if found is None else _token(name, found.body.get(_KIND), found.left_s)
    if found is None or token is None:
        raise Refused(
            "unknown ephemeral token",
            "Request had invalid authentication credentials: the token is unknown, or long expired.",
        )
    if found.state == "expired":
        raise Refused("expired ephemeral token", "Token has expired. Make a new one.")
    if not resuming and found.left_s <= token.expires_at - token.sessions_until:
        raise Refused(
            "ephemeral token expired for new sessions",
            "Token has expired for new sessions. Make a new one, with a later newSessionExpireTime.",
        )
    if not resuming and found.state == "used_up":
        raise Refused(
            "ephemeral token used too many times",
            "Token has been used too many times. Make a new one, or one with more uses.",
        )
    return token


def _token(name: str, body: Json, left_s: float) -> Token | None:
    match body:
        case {
            "user": str() as user,
            "carried": dict() as held,
            "uses": int() | None as uses,
            "expiresAt": int() | float() as expires_at,
            "sessionsUntil": int() | float() as sessions_until,
            "setup": dict() | None as setup,
            "locked": list() | None as locked,
        }:
            paths = None if locked is None else tuple(_texts(path) for path in locked)
            return Token(name, user, uses, expires_at, sessions_until, setup, paths, left_s, held)
    return None


def _texts(path: Json) -> tuple[str, ...]:
    return tuple(map(str, path)) if isinstance(path, list) else ()


def _fields(body: Json) -> dict[str, Json]:
    """The body's fields under their lowerCamel names."""
    if not isinstance(body, dict):
        raise BadMessage("Invalid JSON payload received. The body must be an object.")
    fields: dict[str, Json] = {}
    for name, value in body.items():
        camel = _camel(name)
        if camel not in _FIELDS:
            raise BadMessage(
                f"Invalid JSON payload received. Unknown name \"{name[:60]}\" at 'auth_token':"
                f" Cannot find field{nearest(camel, _FIELDS) or '.'}"
            )
        if camel in fields:
            raise _twice("auth_token", camel)
        fields[camel] = value
    return fields


def _uses(value: Json) -> int | None:
    """None for any number of times. Google's JSON has whole numbers as text and with a fraction of 0, too."""
    match value:
        case None:
            return 1
        case str() if value.isascii() and value.isdigit() and len(value) <= len(str(_MOST_USES)):
            value = int(value)
        case float() if value.is_integer():
            value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_USES:
        raise BadMessage(
            "Invalid value at 'auth_token.uses' (TYPE_INT32):"
            " it must be a whole number, 0 (any number of times) or more."
        )
    return value or None


def _time(fields: Mapping[str, Json], name: str, now: float, usual: float) -> float:
    """Epoch seconds. A time without a zone, as google-genai sends it, is UTC."""
    text = fields.get(name)
    if text is None:
        return now + usual
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    wrong = f"Invalid value at 'auth_token.{_snake(name)}' (type.googleapis.com/google.protobuf.Timestamp):"
    if found is None:
        raise BadMessage(f"{wrong} it must be a time such as 2026-12-01T10:00:00Z.")
    day, time, fraction, zone = found.groups("")
    try:
        at = (
            datetime.fromisoformat(f"{day}T{time}{fraction}{zone.upper() or 'Z'}").astimezone(UTC).timestamp()
        )
    except (ValueError, OverflowError):
        raise BadMessage(f"{wrong} there is no such time.") from None
    if not now < at < now + TOO_LONG_S:
        raise BadMessage(
            f"{_snake(name)} must be in the future and less than 20 hours ahead; it is {rfc3339(now)} here."
        )
    return at


def _setup(setup: Json) -> dict[str, Json]:
    """What a token fixes. Never a handle: which session goes on is the client's to say."""
    if isinstance(setup, dict) and list(setup) == ["setup"]:
        setup = setup["setup"]  # as the setup message of a connection has it
    if not isinstance(setup, dict):
        raise BadMessage("Invalid value at 'auth_token.bidi_generate_content_setup': it must be an object.")
    if not _within(setup, DEEPEST):
        raise BadMessage("Invalid value at 'auth_token.bidi_generate_content_setup': it is too deep.")
    met: set[str] = set()
    fixed: dict[str, Json] = {}
    for name, value in setup.items():
        if _plain(name) in met:
            raise _twice("auth_token.bidi_generate_content_setup", name)
        met.add(_plain(name))
        if _same(name, _RESUMPTION) and isinstance(value, dict):
            value = {inner: each for inner, each in value.items() if not _same(inner, "handle")}
        fixed[name] = value
    return fixed


def _within(value: Json, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_within(each, levels - 1) for each in inner)


def _paths(mask: str) -> tuple[tuple[str, ...], ...]:
    paths: dict[tuple[str, ...], None] = {}
    for text in filter(None, map(str.strip, mask.split(","))):
        names = text.split(".")
        if not all(map(_NAME.fullmatch, names)) or len(names) > _DEEPEST_PATH:
            raise _bad_mask(f'"{text[:60]}" is no path of fields')
        path = tuple(map(_camel, names))
        paths[path[1:] if path[0] == "setup" and len(path) > 1 else path] = None
        if len(paths) > _MOST_PATHS:
            raise _bad_mask(f"it has more than {_MOST_PATHS} paths; name the field around them")
    return tuple(paths)


def _check(path: Sequence[str], setup: Mapping[str, Json]) -> None:
    """Raises BadMessage for a path that could lock nothing."""
    shown = ".".join(path)[:120]
    if path[0] in _LISTS and len(path) > 1:
        raise _bad_mask(f'"{shown}" goes into a list; write {path[0]}')
    inside: Json = dict(setup)
    for depth, name in enumerate(path):
        if not isinstance(inside, dict):
            raise _bad_mask(f'"{shown}" goes into {path[depth - 1]}, which is no object')
        spelt = [each for each in inside if _same(each, name)]
        if len(spelt) > 1:
            raise _twice("auth_token.bidi_generate_content_setup", name)
        if not spelt:
            known = (
                _SETUP if depth == 0 else _GENERATION if list(path[:depth]) == ["generationConfig"] else None
            )
            if known is not None and name not in known:
                if depth == 0 and name in _GENERATION:
                    raise _bad_mask(f'"{shown}" is no field of a setup; write generationConfig.{shown}')
                raise _bad_mask(f'"{shown}" is no field of a setup{nearest(name, known)}')
        inside = (inside[spelt[0]] if spelt else None) or {}


def _bad_mask(reason: str) -> BadMessage:
    return BadMessage(f"field_mask is invalid for BidiGenerateContentSetup: {reason}.")


def _twice(where: str, name: str) -> BadMessage:
    return BadMessage(f"Invalid JSON payload received. '{where}' has \"{name[:60]}\" in two spellings.")


def _tree(paths: Iterable[tuple[str, ...]]) -> _Locks:
    tree: _Locks = {}
    for *around, last in paths:
        level: _Locks | None = tree
        for name in around:
            level = None if level is None else level.setdefault(_plain(name), {})
        if level is not None:
            level[_plain(last)] = None
    return tree


def _fixed(asked: Mapping[str, Json], setup: Mapping[str, Json], locks: _Locks) -> dict[str, Json]:
    """`asked`, where what is locked is as `setup` has it."""
    own = {_plain(name): (name, each) for name, each in setup.items()}
    result: dict[str, Json] = {}
    met: set[str] = set()
    for name, value in asked.items():
        plain = _plain(name)
        if plain not in locks:
            result[name] = value
            continue
        inside = locks[plain]
        own_name, own_value = own.get(plain, (name, None))
        # Of two spellings Google might read either, so what is locked inside them is locked in both.
        if inside is not None or plain not in met:
            _put(result, name if inside is not None else own_name, _held(value, own_value, inside))
        met.add(plain)
    for plain, (name, value) in own.items():
        if plain in locks and plain not in met:
            _put(result, name, _held(None, value, locks[plain]))
    return result


def _held(asked: Json, own: Json, inside: _Locks | None) -> Json:
    """What counts where a client asks for this and the token has `own`; None is nothing at all."""
    if inside is None:
        return own
    # What is no object in the place of one would go around the lock inside it.
    value = _fixed(asked if isinstance(asked, dict) else {}, own if isinstance(own, dict) else {}, inside)
    return value if value or isinstance(asked, dict) else None


def _put(fields: dict[str, Json], name: str, value: Json) -> None:
    if value is not None:
        fields[name] = value


def _same(name: str, other: str) -> bool:
    return _plain(name) == _plain(other)


def _plain(name: str) -> str:
    """Alike for all spellings of a name, and more than Google takes: a lock may hold too much, not too little."""
    return name.replace("_", "").lower()


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
