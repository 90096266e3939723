"""What the Redis store writes, as JSON, and what it takes back: each record is checked against its schema. Pure.

Redis is shared, and others may write to it: nothing that is read is trusted to be what was written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event
from tornado_live.sessions.store import Handle, MemoryItem, Role, Session

_KEPT_AS_IS = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LARGEST = 2**53

# What can be shown as a date, and what every reader of JSON takes for a whole number.
Time = Annotated[float, Meta(ge=0, lt=253402300800)]
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]

Record = TypeVar("Record")


class Unreadable(ValueError):
    """A record that is not what this store writes. Says where it was found, never what it holds."""


class About(msgspec.Struct, frozen=True):
    """What of a session never changes."""

    user: str
    assistant: str
    metadata: dict[str, Any]
    label: str
    created_at: Time


class Activity(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """When the session was last active, and when it ends then: to be shown. What ends it is its TTL."""

    at: Time
    ends: Time


class KeptHandle(msgspec.Struct, frozen=True):
    value: str
    identity: str
    at: Time


class KeptItem(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message of the memory. Its bytes come first, where a script finds them without reading the rest."""

    bytes: Count
    role: Role
    text: str
    turn: Count
    at: Time


class KeptEvent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    at: Time
    kind: str
    data: dict[str, Any]


FIELDS: Final = ("about", "active", "turn", "usage", "handle")
"""What of a session's hash is read, in the order in which scripts answer it."""


def about_text(session: Session) -> str:
    return json.dumps(
        {
            "user": session.user,
            "assistant": session.assistant,
            "metadata": session.metadata,
            "label": session.label,
            "created_at": session.created_at,
        }
    )


def activity_text(at: float, ends: float) -> str:
    return json.dumps([at, ends])


def handle_text(handle: Handle | None) -> str:
    """Empty where there is none."""
    if handle is None:
        return ""
    return json.dumps({"value": handle.value, "identity": handle.identity, "at": handle.at})


def item_text(item: MemoryItem) -> str:
    """Of one whose text UTF-8 can hold."""
    return json.dumps([len(item.text.encode()), item.role, item.text, item.turn, item.at], ensure_ascii=False)


def event_text(at: float, kind: str, data: str) -> str:
    """`data` is JSON already."""
    return f"[{json.dumps(at)},{json.dumps(kind)},{data}]"


def body_text(body: Mapping[str, Json]) -> str:
    return json.dumps(body)


def session_of(id: str, fields: object) -> Session:
    """From the values of `FIELDS`, whether a living process is connected, and how many messages there are."""
    match fields:
        case [about, active, turn, usage, handle, int() as connected, int() as messages]:
            pass
        case _:
            raise Unreadable("session")
    known = _read(about, About, "about")
    activity = _read(active, Activity, "active")
    kept = None if handle is None else _read(handle, KeptHandle, "handle")
    if kept is not None and not _is_sendable(kept.value + kept.identity):
        raise Unreadable("handle")
    return Session(
        id=id,
        user=known.user,
        metadata=known.metadata,
        assistant=known.assistant,
        created_at=known.created_at,
        last_active_at=activity.at,
        expires_at=activity.ends,
        message_count=messages,
        usage={} if usage is None else _read(usage, dict[str, Any], "usage"),
        last_turn=0 if turn is None else _read(turn, Count, "turn"),
        label=known.label,
        handle=None if kept is None else Handle(value=kept.value, identity=kept.identity, at=kept.at),
        connected=connected == 1,
    )


def item_of(text: object) -> MemoryItem:
    item = _read(text, KeptItem, "memory")
    if not _is_sendable(item.text):
        raise Unreadable("memory")
    return MemoryItem(item.role, item.text, item.turn, item.at)


def event_of(text: object) -> Event:
    event = _read(text, KeptEvent, "event")
    return Event(event.at, event.kind, event.data)


def body_of(text: object) -> dict[str, Json]:
    return _read(text, dict[str, Any], "credential")


def shown(name: bytes) -> str:
    """A name that a script answers: as it was written, if this store wrote it."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace")


def is_name(id: str) -> bool:
    """Whether it could be the id of a session: then it can be part of a key."""
    return _KEPT_AS_IS.fullmatch(id) is not None


def _read(text: object, schema: type[Record], where: str) -> Record:
    if not isinstance(text, bytes):
        raise Unreadable(where)
    try:
        return msgspec.convert(
            json.loads(text, parse_constant=_no_number, parse_float=_finite),
            schema,
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable(where) from error


def _is_sendable(text: str) -> bool:
    """Lone surrogates get through JSON, and no further."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
