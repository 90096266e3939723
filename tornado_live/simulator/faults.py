"""Everything that can be made to go wrong, as data: names, values, and when (faulty.py carries it out)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from . import values
from .age import Close, read_age, read_close
from .values import Mistake
from .yamltext import load_yaml

INTERNAL = Close(1011, "Internal error encountered.")
HTTP_ERRORS: Mapping[int, tuple[str, str]] = {
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "Requested entity was not found."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    503: ("UNAVAILABLE", "The service is currently unavailable."),
}


class Kind(enum.Enum):
    """ONCE acts and is over, NEXT waits for its occasion, LASTING stays until it is switched off."""

    ONCE = "once"
    NEXT = "next"
    LASTING = "lasting"


class Place(enum.Enum):
    """What carries a fault out: the simulator for all connections, or one connection before or after its setup."""

    SIMULATOR = "simulator"
    OPENING = "opening"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class HttpError:
    status: int
    times: int = 1
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    close: Close
    times: int = 1


@dataclass(frozen=True, slots=True)
class EmptyTurns:
    times: int = 1
    reason: str = "RESPONSE_REJECTED"


@dataclass(frozen=True, slots=True)
class Definition:
    """One fault. read: its value as people write it, or Mistake; `true` stands for what is usual."""

    kind: Kind
    place: Place
    takes: str
    read: Callable[[object], Any]
    meaning: str
    evidence: str


def _or(usual: object, read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: read(usual if value is True else value)


def _true(value: object) -> bool:
    if value is not True:
        raise Mistake("must be true")
    return True


def _close(value: object) -> Close:
    return INTERNAL if value is True else read_close(value)


def _http(value: object) -> HttpError:
    if isinstance(value, int):
        value = {"status": 503 if value is True else value}
    given = values.mapping(value, ("status", "times", "retry_after"))
    status = given.get("status")
    if not isinstance(status, int) or not 400 <= status <= 599:
        raise Mistake("must be an HTTP status of 400 to 599", "status")
    retry = given.get("retry_after")
    return HttpError(
        status, values.count(given.get("times", 1)), None if retry is None else values.seconds(retry)
    )


def _refusal(value: object) -> Refusal:
    if isinstance(value, int):
        return Refusal(Close(1007, "Invalid session handle"), values.count(value))
    given = values.mapping(value, ("code", "reason", "times"))
    close = read_close({name: each for name, each in given.items() if name != "times"})
    return Refusal(close, values.count(given.get("times", 1)))


def _empty_turns(value: object) -> EmptyTurns:
    if isinstance(value, int):
        return EmptyTurns(values.count(value))
    given = values.mapping(value, ("times", "reason"))
    return EmptyTurns(values.count(given.get("times", 1)), values.text(given.get("reason", "")))


def _go_away(value: object) -> Mapping[str, Any]:
    """Fields of an Age whose limit is `go_away` seconds from now."""
    if value is True:
        return {}
    if isinstance(value, int | float):
        value = {"go_away": value}
    age = read_age(value)
    if "limit" in age:
        raise Mistake("is not known here: go_away says when the end comes", "limit")
    if age.get("go_away", 0.0) is None:
        raise Mistake("must be a number of seconds, 0 or more", "go_away")
    return age


def _choice(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in choices:
            raise Mistake(f"must be {' or '.join(choices)}")
        return str(value)

    return read


def _mebibytes(value: object) -> float:
    size = values.number(value, "a size in MiB")
    if size > 64:
        raise Mistake("must not be more than 64 MiB")
    return size


_CODE = "{code, reason}"

FAULTS: Mapping[str, Definition] = {
    "close": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        _CODE,
        _close,
        "ends the connection with this close; 1011 unless told otherwise",
        "reported, with the codes and reasons of every kind",
    ),
    "close_at_setup": Definition(
        Kind.ONCE, Place.OPENING, _CODE, _close, "answers the setup with this close", "reported"
    ),
    "close_after_tool_response": Definition(
        Kind.NEXT,
        Place.CONVERSATION,
        _CODE,
        _close,
        "ends the connection when the next answer of a function arrives",
        "reported: 1008 Operation is not implemented, or supported, or enabled.",
    ),
    "drop": Definition(
        Kind.ONCE, Place.CONVERSATION, "true", _true, "ends the connection without a close frame", "reported"
    ),
    "reset": Definition(
        Kind.NEXT,
        Place.CONVERSATION,
        "true",
        _true,
        "sends half of the next message and resets the connection (TCP RST)",
        "inferred: what a broken line does",
    ),
    "http": Definition(
        Kind.NEXT,
        Place.SIMULATOR,
        "status or {status, times, retry_after}",
        _http,
        "answers the next upgrades with this HTTP status, with Retry-After if given",
        "reported for 429; inferred for 401, 403, 404 and 503",
    ),
    "no_setup_answer": Definition(
        Kind.ONCE, Place.OPENING, "true", _true, "never answers the setup", "reported"
    ),
    "setup_delay": Definition(
        Kind.ONCE,
        Place.OPENING,
        "seconds",
        _or(5, values.seconds),
        "answers the setup after so long",
        "reported: up to 1.8 s",
    ),
    "refuse_resume": Definition(
        Kind.NEXT,
        Place.SIMULATOR,
        "times or {code, reason, times}",
        _refusal,
        "refuses the next handles, good as they are; 1007 unless told otherwise",
        "reported",
    ),
    "lose_handles": Definition(
        Kind.ONCE, Place.CONVERSATION, "true", _true, "forgets every handle that was sent so far", "reported"
    ),
    "no_handles": Definition(
        Kind.LASTING, Place.CONVERSATION, "true", _true, "sends no sessionResumptionUpdate", "reported"
    ),
    "not_resumable": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "every sessionResumptionUpdate says that the session cannot be resumed now",
        "documented as possible",
    ),
    "go_away": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "seconds or {go_away, time_left, times, silent, then}",
        _go_away,
        "announces the end now, as a connection's age does (Age of a connection)",
        "documented",
    ),
    "silent": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "sends no more messages, but still reads and answers pings",
        "reported, also after goAway",
    ),
    "half_open": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "neither reads nor sends anything, pongs included; the session can be resumed at once",
        "inferred: what a broken line does",
    ),
    "slow_pong": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "seconds",
        _or(8, values.seconds),
        "answers pings after so long",
        "reported: 8 to 30 s",
    ),
    "slow_writes": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "bytes a second",
        _or(1_000, values.count),
        "sends no faster than this, in pieces smaller than a frame",
        "inferred: what a slow line does",
    ),
    "bad_json": Definition(
        Kind.ONCE, Place.CONVERSATION, "times", values.count, "sends half a message as a whole", "inferred"
    ),
    "bad_utf8": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "times",
        values.count,
        "sends a message whose text is not UTF-8",
        "inferred",
    ),
    "nan": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "times",
        values.count,
        "sends a message with NaN for a number",
        "inferred",
    ),
    "text_frames": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "sends text frames instead of binary ones",
        "inferred: Google's clients take both",
    ),
    "unknown_fields": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "puts fields that nobody knows beside the known ones of every message",
        "inferred: new fields have come without notice",
    ),
    "unknown_enums": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "true",
        _true,
        "puts values that nobody knows into turnCompleteReason and voiceActivity.type",
        "inferred: new values have come without notice",
    ),
    "unknown_message": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "times",
        values.count,
        "sends a message that has only a field that nobody knows; google-genai 3.4.0 raises TypeError on it",
        "inferred: interactionStatus is documented beside toolCall",
    ),
    "giant": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "MiB",
        _or(17, _mebibytes),
        "sends one message of this size (a thought); 1 MiB is too much for google-genai's default",
        "inferred",
    ),
    "digital_silence": Definition(
        Kind.LASTING, Place.CONVERSATION, "true", _true, "all sound is zeros", "reported"
    ),
    "empty_turns": Definition(
        Kind.NEXT,
        Place.CONVERSATION,
        "times or {times, reason}",
        _empty_turns,
        "the next turns are a turnComplete without content; RESPONSE_REJECTED unless told otherwise",
        "reported",
    ),
    "silent_turns": Definition(
        Kind.NEXT, Place.CONVERSATION, "times", values.count, "nothing of the next turns is sent", "reported"
    ),
    "ignore_tool_response": Definition(
        Kind.NEXT,
        Place.CONVERSATION,
        "times",
        values.count,
        "the next answers of functions are read and have no effect",
        "reported",
    ),
    "duplicate_calls": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "repeated or same_id",
        _or("repeated", _choice("repeated", "same_id")),
        "repeated: every toolCall is sent twice; same_id: the calls of one message share an id",
        "inferred",
    ),
    "cancel_calls": Definition(
        Kind.ONCE,
        Place.CONVERSATION,
        "true",
        _true,
        "cancels every call that is open",
        "documented",
    ),
    "late_content": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "messages",
        _or(3, values.count),
        "after interrupted so many messages of the old turn still follow, before its turnComplete",
        "reported",
    ),
    "late_turn_complete": Definition(
        Kind.LASTING,
        Place.CONVERSATION,
        "seconds",
        _or(5, values.seconds),
        "turnComplete comes so much later, and everything after it too",
        "reported: 20 s and more after a long answer",
    ),
    "no_turn_complete": Definition(
        Kind.NEXT,
        Place.CONVERSATION,
        "times",
        values.count,
        "the next turns end without turnComplete",
        "reported",
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """value: as its definition reads it; None switches a lasting or waiting fault off."""

    name: str
    value: Any

    @property
    def definition(self) -> Definition:
        return FAULTS[self.name]


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault and its occasion; with no occasion, the beginning of every connection.

    after: seconds from setupComplete. turn: the turn of the model in whose middle it comes, counted from 1.
    connection: counted from 0, as GET /status does.
    """

    fault: Fault
    after: float | None = None
    turn: int | None = None
    connection: int | None = None

    def concerns(self, connection: int) -> bool:
        return self.connection is None or self.connection == connection


def read_fault(name: object, value: object) -> Fault:
    """Raises Mistake, its place beginning with the fault's name."""
    if name not in FAULTS:
        raise Mistake(f"is no fault{values.nearest_or_all(str(name), FAULTS)}", str(name))
    definition = FAULTS[str(name)]
    if value is False or value is None:
        if definition.kind is Kind.ONCE:
            raise Mistake("acts once and cannot be switched off", str(name))
        return Fault(str(name), None)
    try:
        return Fault(str(name), definition.read(value))
    except Mistake as mistake:
        raise mistake.inside(str(name)) from None


def read_faults(value: object) -> list[Fault]:
    """A mapping of names and values, or the name of one that needs none. Raises Mistake."""
    if isinstance(value, str):
        return [read_fault(value, True)]
    if not isinstance(value, dict) or not value:
        raise Mistake("must be a mapping of a fault's name and its value")
    return [read_fault(name, each) for name, each in value.items()]


def read_planned(value: object) -> Planned:
    """An entry of a scenario's list: one fault, and perhaps `after` or `turn`. Raises Mistake."""
    if not isinstance(value, dict):
        raise Mistake("must be a mapping of a fault's name and its value")
    faults = read_faults({name: each for name, each in value.items() if name not in ("after", "turn")})
    if len(faults) != 1:
        raise Mistake(f"has {' and '.join(fault.name for fault in faults)}: make two entries of it")
    planned = Planned(faults[0])
    try:
        if "after" in value:
            planned = replace(planned, after=values.seconds(value["after"]))
    except Mistake as mistake:
        raise mistake.inside("after") from None
    try:
        if "turn" in value:
            planned = replace(planned, turn=values.count(value["turn"]))
    except Mistake as mistake:
        raise mistake.inside("turn") from None
    return _checked(planned)


_OPTION = re.compile(
    r"(?P<name>[a-z_0-9]+)(?:=(?P<value>.*?))?(?P<places>(?:@(?:[\d.]+|turn:\d+|connection:\d+))*)", re.S
)


def read_option(option: str) -> Planned:
    """NAME[=VALUE][@SECONDS][@turn:N][@connection:N]; VALUE is YAML. Raises Mistake."""
    found = _OPTION.fullmatch(option)
    if found is None:
        raise Mistake(f'"{option}" is not NAME[=VALUE][@SECONDS][@turn:N][@connection:N]')
    try:
        value = True if found["value"] is None else load_yaml(found["value"])
    except yaml.YAMLError:
        raise Mistake("has a value that is not YAML", found["name"]) from None
    planned = Planned(read_fault(found["name"], value))
    for place in filter(None, found["places"].split("@")):
        kind, _, number = place.rpartition(":")
        try:
            match kind:
                case "turn":
                    planned = replace(planned, turn=values.count(int(number)))
                case "connection":
                    planned = replace(planned, connection=int(number))
                case _:
                    planned = replace(planned, after=float(number))
        except ValueError:
            raise Mistake(f"cannot come @{place}", found["name"]) from None
    return _checked(planned)


def _checked(planned: Planned) -> Planned:
    timed = planned.after is not None or planned.turn is not None
    if timed and planned.fault.definition.place is not Place.CONVERSATION:
        raise Mistake("acts before a conversation: no time and no turn can be given", planned.fault.name)
    if planned.after is not None and planned.turn is not None:
        raise Mistake("has a time and a turn: one of them is enough", planned.fault.name)
    return planned
