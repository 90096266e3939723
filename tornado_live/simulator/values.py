"""Values that people write into scenarios, options and control messages, read strictly."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
LONGEST_REASON = 123  # bytes that a close frame holds beside its code


class Mistake(ValueError):
    """A value that cannot be taken. where: the place of it inside what was read, "" for the whole."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(f"{where} {problem}" if where else problem)
        self.problem = problem
        self.where = where

    def inside(self, place: str) -> Mistake:
        """The same, seen from outside."""
        joined = f"{place}.{self.where}" if self.where else place
        return Mistake(self.problem, joined)


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Mistake("must be true or false")
    return value


def text(value: object) -> str:
    if not isinstance(value, str):
        raise Mistake("must be text" if value is not None else "is missing: it must be text")
    return value


def seconds(value: object) -> float:
    return number(value, "a number of seconds")


def number(value: object, what: str = "a number") -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise Mistake(f"must be {what}, 0 or more")


def count(value: object) -> int:
    """true stands for once."""
    if value is True:
        return 1
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise Mistake("must be a whole number, 1 or more")


def close_code(value: object) -> int:
    if not isinstance(value, int) or value not in CLOSE_CODES:
        raise Mistake("must be a WebSocket close code that can be sent, such as 1011")
    return value


def close_reason(value: object) -> str:
    reason = text(value)
    if len(reason.encode()) > LONGEST_REASON:
        raise Mistake(f"must not be longer than the {LONGEST_REASON} bytes of a close frame")
    return reason


def mapping(value: object, keys: Collection[str]) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Mistake(f"must be a mapping of {names(keys)}")
    for key in value:
        if key not in keys:
            raise Mistake(f"is not known here{nearest(key, keys)}", key)
    return value


def names(of: Collection[str]) -> str:
    return ", ".join(sorted(of))


def nearest_or_all(name: str, known: Collection[str]) -> str:
    return nearest(name, known) or f"; there are {names(known)}"


def nearest(name: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f' - did you mean "{found[0]}"?' if found else ""
