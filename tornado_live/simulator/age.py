"""How long one connection lasts, and how its end is announced: goAway, then a close for those who stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import values
from .values import Mistake

STAYED = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal"
    " once the session duration limit was reached."
)
DEADLINE = "Deadline expired before operation could complete."
CANCELLED = "The operation was cancelled."


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds at speed 1. limit: from setupComplete to the end; infinite for none.

    go_away: how long before the end it is announced; None: never. time_left: the text to announce instead of the
    true one, "" to leave it out. times: how often the announcement is sent. silent: nothing follows it.
    then: what a client meets that stays; None: nothing happens.
    """

    limit: float
    go_away: float | None = 50.0
    time_left: str | None = None
    times: int = 1
    silent: bool = False
    then: Close | None = Close(1008, STAYED[: values.LONGEST_REASON])


# Documented: about ten minutes, announced. Measured by others: announced 50 s before the end at 540.5 s (translate
# model); an unannounced end at 58:00 (3.8). Vertex: announced 60 s before the end (documented), a close with 1000
# (reported).
MODEL_AGES: Mapping[str, Age] = {
    "gemini-3.8-live": Age(limit=3480, then=Close(1011, DEADLINE)),
    "gemini-3.8-live-extended-thinking": Age(limit=3480, then=Close(1011, DEADLINE)),
}
USUAL_AGE = Age(limit=590.5)
VERTEX_AGE = Age(limit=600, go_away=60, then=Close(1000, CANCELLED))


def age_of(model: str, *, vertex: bool) -> Age:
    """What a connection of this model lives through when nothing else is asked for."""
    return VERTEX_AGE if vertex else MODEL_AGES.get(model, USUAL_AGE)


def changed(age: Age, changes: Mapping[str, Any]) -> Age:
    """The age with what `read_age` gave in place of its own."""
    return replace(age, **changes)


def read_close(value: object) -> Close:
    close = values.mapping(value, ("code", "reason"))
    return Close(
        _part(close, "code", values.close_code),
        _part({"reason": "", **close}, "reason", values.close_reason),
    )


def read_age(value: object) -> dict[str, Any]:
    """The fields of an Age that a person named. Raises Mistake."""
    named = values.mapping(value, _READERS)
    return {key: _part(named, key, _READERS[key]) for key in named}


def _part(of: Mapping[str, object], key: str, read: Callable[[object], Any]) -> Any:
    try:
        return read(of.get(key))
    except Mistake as mistake:
        raise mistake.inside(key) from None


def _limit(value: object) -> float:
    return math.inf if value is None else values.seconds(value)


def _go_away(value: object) -> float | None:
    return None if value is None else values.seconds(value)


def _then(value: object) -> Close | None:
    if value == "stay":
        return None
    try:
        close = values.mapping(value, ("close",))
    except Mistake as mistake:
        raise Mistake('must be "stay" or a mapping of close', mistake.where) from None
    return _part(close, "close", read_close)  # type: ignore[no-any-return]


_READERS: Mapping[str, Callable[[object], Any]] = {
    "limit": _limit,
    "go_away": _go_away,
    "time_left": values.text,
    "times": values.count,
    "silent": values.flag,
    "then": _then,
}


def duration(seconds: float) -> str:
    """As protocol buffers write a Duration in JSON: 50s, 0.500s."""
    text = f"{max(0.0, seconds):.3f}"
    return f"{text.removesuffix('.000')}s"
