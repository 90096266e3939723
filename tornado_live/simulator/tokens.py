"""Ephemeral tokens: what POST /{version}/auth_tokens makes, and what a connection with one may do.

Inferred, and nowhere written down: the close texts of tokens that are unknown or too old, and that `uses` counts
connections that are opened, not tried.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from . import values
from .messages import Message, Refused, Value, has_field, read
from .values import Mistake

PREFIX = "auth_tokens/"
LIFE_S = 30 * 60.0
NEW_SESSIONS_S = 60.0
LONGEST_S = 20 * 3600.0
USED_UP = Refused("Token has been used too many times", 1011)
UNKNOWN = Refused("Request had invalid authentication credentials.", 1008)
EXPIRED = Refused("Token has expired.", 1008)

_FIELDS = ("uses", "expireTime", "newSessionExpireTime", "bidiGenerateContentSetup", "fieldMask")


@dataclass(slots=True, eq=False)
class Token:
    """uses_left: None for any number. setup: what it fixes, all of it where `locked` is None, else these paths.

    expires, sessions_until: wall time, in seconds.
    """

    name: str
    uses_left: int | None
    expires: float
    sessions_until: float
    setup: Message | None
    locked: tuple[tuple[str, ...], ...] | None

    def applied(self, asked: Message) -> Message:
        """The setup that counts, of what the client asks for. Its resumption handle is always its own."""
        if self.setup is None:
            return asked
        if self.locked is None:
            resumption = {name: each for name, each in asked.items() if name == "sessionResumption"}
            return {**self.setup, **resumption}
        result = copy.deepcopy(asked)
        for path in self.locked:
            _put(result, path, _get(self.setup, path))
        return result


class Tokens:
    """All that one simulator has given out."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def create(self, body: object, *, now: float) -> Token:
        """now: wall time. Raises Mistake."""
        given = {_camel(name): each for name, each in body.items()} if isinstance(body, dict) else body
        fields = values.mapping(given, _FIELDS)
        uses = fields.get("uses", 1)
        if not isinstance(uses, int) or isinstance(uses, bool) or uses < 0:
            raise Mistake("must be a whole number, 0 (any number of times) or more", "uses")
        setup = fields.get("bidiGenerateContentSetup")
        mask = fields.get("fieldMask")
        if mask is not None and (not isinstance(mask, str) or setup is None):
            raise Mistake("must be text, beside a bidiGenerateContentSetup", "fieldMask")
        token = Token(
            name=f"{PREFIX}{secrets.token_hex(32)}",
            uses_left=uses or None,
            expires=_time(fields, "expireTime", now, LIFE_S),
            sessions_until=_time(fields, "newSessionExpireTime", now, NEW_SESSIONS_S),
            setup=None if setup is None else _setup(setup),
            locked=None if mask is None else _known(_paths(mask)),
        )
        self._tokens[token.name] = token
        return token

    def admit(self, name: str, *, resuming: bool, now: float) -> Token:
        """The token, for one more connection; going on with a session is no use of it. Raises Refused."""
        token = self._tokens.get(name)
        if token is None:
            raise UNKNOWN
        if now > token.expires or (now > token.sessions_until and not resuming):
            raise EXPIRED
        if not resuming and token.uses_left is not None:
            if token.uses_left == 0:
                raise USED_UP
            token.uses_left -= 1
        return token


def _time(fields: Mapping[str, object], name: str, now: float, usual: float) -> float:
    text = fields.get(name)
    if text is None:
        return now + usual
    try:
        # Python 3.11 takes no more than six digits after the second; Google's time has up to nine.
        time = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(text)))
    except ValueError:
        raise Mistake("must be a time such as 2026-12-01T10:00:00Z", name) from None
    at = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    if at <= now:
        raise Mistake("must be in the future", name)
    if at - now > LONGEST_S:
        raise Mistake("must not be more than 20 hours from now", name)
    return at


def _setup(setup: object) -> Message:
    try:
        _, message = read(json.dumps({"setup": setup}))
    except Refused as refused:
        raise Mistake(refused.reason, "bidiGenerateContentSetup") from None
    return message


def _paths(mask: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(_camel(part) for part in path.strip().split(".")) for path in mask.split(",") if path.strip()
    )


def _known(paths: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Raises Mistake for a field that no setup has."""
    for path in paths:
        if not has_field("Setup", path):
            raise Mistake(f"has {'.'.join(path)}, which is no field of a setup", "fieldMask")
    return paths


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), str(name))


def _get(message: Message, path: Sequence[str]) -> Value:
    value: Value = message
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _put(message: Message, path: Sequence[str], value: Value) -> None:
    *parents, name = path
    for part in parents:
        inner = message.setdefault(part, {})
        if not isinstance(inner, dict):
            inner = message[part] = {}
        message = inner
    if value is None:
        message.pop(name, None)
    else:
        message[name] = value
