"""The one table of limits: what holds callers back, whom it counts for, and what charges it. Pure.

The values are in `settings.Limits`, under the names of the rows; docs/limits.md shows the same table. Limits of a
connection, a session or the process are kept where they arise. Those that hold over processes and restarts are
counted in the store: a `Charge` is used up in a window of time (access/leases.py), a `Place` is held while
something lasts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tornado_live.caller import Caller
from tornado_live.errors import Limited
from tornado_live.settings import Limits

Scope = Literal["connection", "session", "address", "user", "key", "all", "process"]
Unit = Literal[
    "sockets",
    "requests",
    "sessions",
    "conversations",
    "messages",
    "frames",
    "calls",
    "tokens",
    "seconds",
    "bytes",
    "money",
    "times",
]

METRIC: Final = "tornado_live_limited_total"
MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0

_WHOLE: Final[Mapping[Unit, int]] = {"money": 1_000_000, "seconds": 1000}
"""How many of what is counted make one of the unit; all others are whole already."""
_BLOCK: Final[Mapping[Unit, int]] = {"money": 50_000, "seconds": 60_000, "tokens": 20_000}
"""The largest lease; more would save nothing and hold too much back from other processes."""
_SMALL_BLOCK: Final = 10
_LONGEST_NAME: Final = 200
_HASHED: Final = "sha256:"
_LARGEST: Final = 1e14
"""No store counts further exactly; somebody's own limit may be any number."""


@dataclass(frozen=True, slots=True)
class Row:
    """`name` is the field of settings.Limits. `beyond` is what happens to who is over it.

    `own`: a caller may bring a lower value of its own. `window_s` None: no count over time. `people`: what is used
    up, in words for whoever talks.
    """

    name: str
    unit: Unit
    scope: Scope
    window_s: float | None
    what: str
    beyond: str
    own: bool = False
    people: str = ""
    counted_as: str = ""
    """The series of whom it holds back, where that is not its own of METRIC."""

    @property
    def metric(self) -> str:
        return self.counted_as or f'{METRIC}{{limit="{self.name}"}}'


_REFUSED = "429 or 4429 with `retryAfterMs`"
_SLOWED = "it is read no faster, and told once by `warning throttled`"
_TOLD = "the model is told `limited`"
_ENDS = "4429 with `retryAfterMs`, after a `warning budget_near`; no new conversation until then"
_REFUSED_CALLS = 'tornado_live_tool_calls_total{outcome="limited"}'
_NOWHERE = "nobody is held back"


TABLE: Final[tuple[Row, ...]] = (
    # What an address may do, whoever it is.
    Row(
        "connections_per_address",
        "sockets",
        "address",
        None,
        "sockets open at a time, in one process",
        _REFUSED,
        people="the connections that your network may have open at a time",
    ),
    Row(
        "handshakes_per_minute",
        "requests",
        "address",
        MINUTE_S,
        "sockets opened",
        _REFUSED,
        people="the connections that your network may open in a minute",
    ),
    Row(
        "requests_per_minute",
        "requests",
        "address",
        MINUTE_S,
        "REST requests; a known user has the same number, from whichever addresses",
        _REFUSED,
        people="what you may ask for in a minute",
    ),
    Row(
        "denied_per_minute",
        "requests",
        "address",
        MINUTE_S,
        "credentials that were wrong",
        f"{_REFUSED}, before any credential is looked at",
        people="the wrong keys that your network may show in a minute",
    ),
    Row(
        "sessions_per_minute",
        "sessions",
        "address",
        MINUTE_S,
        "sessions and tokens made; a known user has the same number, from whichever addresses",
        _REFUSED,
        people="the conversations that you may begin in a minute",
    ),
    # What one connection or session may do.
    Row("hello_timeout_s", "seconds", "connection", None, "until the first message", "4408"),
    Row("messages_per_s", "messages", "connection", 1.0, "messages of a client", _SLOWED),
    Row(
        "audio_factor",
        "times",
        "connection",
        None,
        "speech sent, as a multiple of real time",
        _SLOWED,
        counted_as=f'{METRIC}{{limit="messages_per_s"}}',
    ),
    Row("frames_per_s", "frames", "connection", 1.0, "video frames", "others are dropped, and told once"),
    Row("idle_timeout_s", "seconds", "session", None, "without a message of the client", "4408"),
    Row(
        "silent_timeout_s",
        "seconds",
        "session",
        None,
        "without a word of either side, however much is sent",
        "4408",
        own=True,
    ),
    Row("conversation_s", "seconds", "session", None, "how long a conversation lasts", "4410", own=True),
    Row(
        "session_ttl_s",
        "seconds",
        "session",
        None,
        "how long a session is kept unused",
        "4404",
        counted_as=_NOWHERE,
    ),
    Row(
        "memory_messages",
        "messages",
        "session",
        None,
        "messages remembered",
        "the oldest are forgotten",
        counted_as=_NOWHERE,
    ),
    Row(
        "memory_message_bytes",
        "bytes",
        "session",
        None,
        "one message remembered",
        "it is cut",
        counted_as=_NOWHERE,
    ),
    Row(
        "memory_bytes",
        "bytes",
        "session",
        None,
        "everything remembered",
        "the oldest are forgotten",
        counted_as=_NOWHERE,
    ),
    Row(
        "tool_calls_per_turn",
        "calls",
        "session",
        None,
        "tool calls in a turn",
        _TOLD,
        counted_as=_REFUSED_CALLS,
    ),
    Row(
        "tool_calls_per_minute", "calls", "session", MINUTE_S, "tool calls", _TOLD, counted_as=_REFUSED_CALLS
    ),
    Row(
        "cost_per_session",
        "money",
        "session",
        None,
        "what a session may cost",
        "4410, after a `warning budget_near`",
        own=True,
        people="what this conversation may cost",
    ),
    # What a known user may do, in all its conversations.
    Row(
        "conversations_per_user",
        "conversations",
        "user",
        None,
        "open at a time",
        _REFUSED,
        own=True,
        people="the conversations that you may have open at a time",
    ),
    Row(
        "tool_calls_per_day",
        "calls",
        "user",
        DAY_S,
        "tool calls",
        _TOLD,
        own=True,
        people="what may be looked up or done for you in a day",
    ),
    Row(
        "audio_s_per_day",
        "seconds",
        "user",
        DAY_S,
        "speech sent",
        _ENDS,
        own=True,
        people="what you may say in a day",
    ),
    Row(
        "talk_s_per_day",
        "seconds",
        "user",
        DAY_S,
        "conversations, together",
        _ENDS,
        own=True,
        people="the time that you may talk in a day",
    ),
    Row(
        "tokens_per_day",
        "tokens",
        "user",
        DAY_S,
        "tokens, in and out",
        _ENDS,
        own=True,
        people="what you may use in a day",
    ),
    Row(
        "cost_per_day",
        "money",
        "user",
        DAY_S,
        "what a user may cost",
        _ENDS,
        own=True,
        people="what you may use in a day",
    ),
    # What all callers with one key may do, and all callers.
    Row(
        "conversations_per_key",
        "conversations",
        "key",
        None,
        "open at a time",
        _REFUSED,
        own=True,
        people="the conversations that may be open with this key at a time",
    ),
    Row(
        "cost_per_day_per_key",
        "money",
        "key",
        DAY_S,
        "what a key may cost",
        _ENDS,
        own=True,
        people="what may be used with this key in a day",
    ),
    Row(
        "conversations_in_all",
        "conversations",
        "all",
        None,
        "open at a time, in all processes",
        _REFUSED,
        people="the conversations that may be open here at a time",
    ),
    Row(
        "cost_per_day_in_all",
        "money",
        "all",
        DAY_S,
        "what everybody may cost",
        _ENDS,
        people="what everybody may use here in a day",
    ),
    # What one process holds.
    Row(
        "max_conversations",
        "conversations",
        "process",
        None,
        "open at a time",
        _REFUSED,
        people="the conversations that may be open here at a time",
    ),
    Row(
        "queued_bytes",
        "bytes",
        "process",
        None,
        "not yet sent to slow clients",
        f"new ones {_REFUSED}; then the slowest are cut",
    ),
)
ROWS: Final[Mapping[str, Row]] = {row.name: row for row in TABLE}
OWN: Final = frozenset(row.name for row in TABLE if row.own)
"""What a key, a token or a ticket may carry limits for."""
_SPENT: Final = (
    "tool_calls_per_day",
    "audio_s_per_day",
    "talk_s_per_day",
    "tokens_per_day",
    "cost_per_day",
    "cost_per_day_per_key",
    "cost_per_day_in_all",
)
_HELD: Final = ("conversations_per_user", "conversations_per_key", "conversations_in_all")


class OverLimit(Limited):
    """`limit` is the name of the row that is used up."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Something of which `most` may be spent in `window_s`. `most` and `lease` are in what is counted: `whole`."""

    limit: str
    counter: str
    most: int
    window_s: float
    lease: int
    unit: Unit

    def whole(self, amount: float) -> int:
        """`amount` of the unit in what is counted, rounded up: milliseconds, millionths of money."""
        return math.ceil(round(amount * _WHOLE.get(self.unit, 1), 3))


@dataclass(frozen=True, slots=True)
class Place:
    """One of `most` places, held while a conversation is open."""

    limit: str
    counter: str
    most: int


def value(name: str, limits: Limits, caller: Caller) -> float | None:
    """The lower of the server's value and the caller's own, None for no limit.

    Limits of a user hold known users, those of a key whoever shows a key.
    """
    row = ROWS[name]
    if row.scope in ("user", "key") and _whose(row, caller) is None:
        return None
    server: float | None = getattr(limits, name)
    own = caller.limits.get(name) if row.own else None
    if own is None:
        return server
    own = own if own >= 0 else 0.0  # NaN too: what is no number allows nothing
    return own if server is None else min(server, own)


def charges(limits: Limits, caller: Caller) -> Sequence[Charge]:
    """What a conversation of this caller spends: everything of the table that is used up over time."""
    return tuple(_charges(limits, caller))


def _charges(limits: Limits, caller: Caller) -> Iterator[Charge]:
    for name in _SPENT:
        row, most = ROWS[name], value(name, limits, caller)
        whose = _whose(row, caller)
        if most is not None and whose is not None:
            yield _charge(row, whose, most)


def rate(name: str, most: float, whose: str) -> Charge:
    """What each event of a row counted by the minute spends; `whose` is `address:…` or `user:…`."""
    return _charge(ROWS[name], whose, most)


def places(limits: Limits, caller: Caller) -> Sequence[Place]:
    """What a conversation of this caller holds while it is open."""
    found = []
    for name in _HELD:
        row, most = ROWS[name], value(name, limits, caller)
        whose = _whose(row, caller)
        if most is not None and whose is not None:
            found.append(Place(name, f"{name}:{_short(whose)}", int(min(most, _LARGEST))))
    return tuple(found)


def over(name: str, again_in_s: float | None = None) -> OverLimit:
    """What is told to who is over the limit of this name; `again_in_s` until there is something left."""
    again = "later" if again_in_s is None else f"in {_words(again_in_s)}"
    people = _people(name)
    return OverLimit(
        f"{people[0].upper()}{people[1:]} is used up ({name}). Try again {again}.",
        limit=name,
        retry_after_ms=None if again_in_s is None else max(1, math.ceil(1000 * again_in_s)),
    )


def nearly(name: str) -> str:
    """What is told to whom four fifths of a limit are used."""
    return f"Four fifths of {_people(name)} are used up ({name})."


def _people(name: str) -> str:
    return ROWS[name].people or f"what the limit allows of {ROWS[name].unit}"


def _charge(row: Row, whose: str, most: float) -> Charge:
    assert row.window_s is not None, f"{row.name} is not counted over time"
    scale = _WHOLE.get(row.unit, 1)
    whole = math.floor(round(min(most * scale, _LARGEST), 3))
    block = min(whole // 20, _BLOCK.get(row.unit, _SMALL_BLOCK))
    return Charge(row.name, f"{row.name}:{_short(whose)}", whole, row.window_s, max(block, 1), row.unit)


def _whose(row: Row, caller: Caller) -> str | None:
    """Who spends of this row together, None where it does not count for the caller."""
    match row.scope:
        case "user":
            return f"user:{caller.user}" if caller.known else None
        case "key":
            return min((one for one in caller.subjects if one.startswith("key:")), default=None)
        case "all":
            return "all"
    return None


def _short(whose: str) -> str:
    """A name that a token brought may be of any length, and of any characters."""
    kind, _, name = whose.partition(":")
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= _LONGEST_NAME and name.isprintable() and not name.startswith(_HASHED):
        return whose
    return f"{kind}:{_HASHED}{hashlib.sha256(data).hexdigest()}"


def _words(seconds: float) -> str:
    for size, one, many in ((86_400, "day", "days"), (3600, "hour", "hours"), (60, "minute", "minutes")):
        if seconds >= size:
            count = math.ceil(seconds / size)
            return f"{count} {one if count == 1 else many}"
    count = max(1, math.ceil(seconds))
    return f"{count} {'second' if count == 1 else 'seconds'}"
