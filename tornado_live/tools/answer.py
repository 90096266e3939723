"""What a tool answered, made into JSON of a bounded size for the model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from tornado_live.tools.result import Json, ToolCode, ToolError

MAX_NODES = 200_000
MAX_TEXT = 8 * 1024 * 1024
_MAX_DEPTH = 60
_MAX_NOTES = 4
_INT64 = 2**63
_LONGEST_SUMMARY = 120
_SMALL_NODES = 1000
_SMALL_TEXT = 64 * 1024
_BYTES_A_FIELD = 32
_QUOTED = json.JSONEncoder(ensure_ascii=False).encode


def is_small(value: object) -> bool:
    """Whether all that this module does with `value` takes but a few milliseconds.

    Any object may be asked about; no more of it is read than it takes to know.
    """
    nodes, text = 1, 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            text += len(item)
        elif isinstance(item, Mapping | list | tuple):
            nodes += len(item)
            if nodes <= _SMALL_NODES:
                waiting.extend(item)
                if isinstance(item, Mapping):
                    waiting.extend(item.values())
        if nodes > _SMALL_NODES or text > _SMALL_TEXT:
            return False
    return True


def has_more_than(most: int, value: object) -> bool:
    """Whether `value` holds more values than that; no more of it is read than it takes to know."""
    nodes, waiting = 1, [value]
    while waiting and nodes <= most:
        item = waiting.pop()
        if isinstance(item, Mapping | list | tuple):
            nodes += len(item)
            if nodes <= most:
                waiting.extend(item.values() if isinstance(item, Mapping) else item)
    return nodes > most


def to_json(value: object) -> Json:
    """`value` as JSON, tuples as lists and integers beyond 64 bits as text.

    Raises ToolError: bad_answer for what JSON cannot say (bytes, NaN, objects, generators, cycles), too_large
    for more than 200,000 values or 8 MiB of text.
    """
    return _Reader().read(value, 0)


class _Reader:
    def __init__(self) -> None:
        self.nodes = 0
        self.text = 0

    def read(self, value: object, depth: int) -> Json:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _too_large()
        if depth > _MAX_DEPTH:
            raise _nonsense("is nested too deep")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, int):
            return int(value) if -_INT64 <= value < _INT64 else self._string(_long_integer(value))
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _nonsense("holds a number that is not finite")
            return float(value)
        if isinstance(value, Mapping):
            read: dict[str, Json] = {}
            for key, item in value.items():
                if not isinstance(key, str):
                    raise _nonsense(f"has a key of type {type(key).__name__}")
                read[self._string(key)] = self.read(item, depth + 1)
            return read
        if isinstance(value, list | tuple):
            return [self.read(item, depth + 1) for item in value]
        raise _nonsense(f"holds a value of type {type(value).__name__}")

    def _string(self, value: str) -> str:
        self.text += len(value)
        if self.text > MAX_TEXT:
            raise _too_large()
        # A lone surrogate cannot be sent as UTF-8.
        return str(value) if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _long_integer(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        raise _nonsense("holds a number that is too long") from None


def _too_large() -> ToolError:
    return ToolError(ToolCode.TOO_LARGE, "The answer is too large.", hint="Ask for less.")


def _nonsense(what: str) -> ToolError:
    return ToolError(ToolCode.BAD_ANSWER, f"The tool's answer {what}.")


def is_empty(value: Json) -> bool:
    """Nothing, or an object of which every field is nothing."""
    if isinstance(value, dict):
        return all(item is None for item in value.values())
    return value is None or value == [] or value == ""


def size(value: Json) -> int:
    """Bytes of `value` as compact JSON in UTF-8."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _size(value: Json, most: int) -> int:
    """`size` if that is at most `most`, else some number beyond; no more is read than it takes to know."""
    if isinstance(value, str):
        return len(_QUOTED(value).encode()) if len(value) + 2 <= most else most + 1
    if value is None or value is True:
        return 4
    if isinstance(value, int | float):
        return 5 if value is False else len(repr(value))
    used = 1 + max(len(value), 1)
    if isinstance(value, dict):
        for key, item in value.items():
            if used > most:
                break
            used += _size(key, most - used) + 1
            used += _size(item, most - used)
    else:
        for item in value:
            if used > most:
                break
            used += _size(item, most - used)
    return used


def first(value: Json, max_items: int | None) -> tuple[Json, str]:
    """The first `max_items` of a list, and a note of how many were left out (empty if none)."""
    if max_items is None or not isinstance(value, list) or len(value) <= max_items:
        return value, ""
    return value[:max_items], f"These are the first {max_items} of {len(value)}."


def cut(value: Json, max_bytes: int) -> tuple[Json, str]:
    """`value` in at most `max_bytes` of JSON, and a note of what was left out (empty if nothing was)."""
    notes: list[str] = []
    shorter = _cut(value, max_bytes, "", notes)
    if not notes:
        return shorter, ""
    more = f"; and {len(notes) - _MAX_NOTES} more" if len(notes) > _MAX_NOTES else ""
    return shorter, f"The answer was too long and was cut: {'; '.join(notes[:_MAX_NOTES])}{more}."


def _cut(value: Json, budget: int, path: str, notes: list[str]) -> Json:
    if _size(value, budget) <= budget:
        return value
    if isinstance(value, str):
        return _cut_text(value, budget, path, notes)
    if isinstance(value, list):
        return _cut_list(value, budget, path, notes)
    if isinstance(value, dict):
        return _cut_object(value, budget, path, notes)
    notes.append(f"{path or 'a number'} is left out")
    return None


def _cut_text(text: str, budget: int, path: str, notes: list[str]) -> str:
    low, high = 0, min(len(text), max(budget, 0))
    while low < high:
        middle = (low + high + 1) // 2
        if size(text[:middle] + "…") <= budget:
            low = middle
        else:
            high = middle - 1
    notes.append(f"{_place(path)}the first {low} of {len(text)} characters")
    return text[:low] + "…"


def _cut_list(items: Sequence[Json], budget: int, path: str, notes: list[str]) -> list[Json]:
    kept: list[Json] = []
    used = 2
    for item in items:
        needed = _size(item, budget) + 1
        if used + needed > budget:
            break
        kept.append(item)
        used += needed
    if kept or not items or budget < 40:
        notes.append(f"{_place(path)}the first {len(kept)} of {len(items)} items")
        return kept
    kept.append(_cut(items[0], budget - 3, f"{path}[0]", notes))
    if len(items) > 1:
        notes.append(f"{_place(path)}the first 1 of {len(items)} items")
    return kept


def _cut_object(fields: Mapping[str, Json], budget: int, path: str, notes: list[str]) -> dict[str, Json]:
    # Short fields are kept whole; the long ones share what remains. Of very many, the first take part.
    sizes = {
        key: _size(item, budget) for key, item in islice(fields.items(), max(budget // _BYTES_A_FIELD, 1))
    }
    left, room = len(sizes), budget - 2
    shares: dict[str, int] = {}
    for key in sorted(sizes, key=sizes.__getitem__):
        overhead = _size(key, budget) + 2
        share = room // left - overhead
        shares[key] = min(sizes[key], share)
        room -= max(shares[key], 0) + overhead if share > 0 else 0
        left -= 1
    kept: dict[str, Json] = {}
    for key in sizes:
        if shares[key] >= sizes[key]:
            kept[key] = fields[key]
        elif shares[key] >= 8:
            kept[key] = _cut(fields[key], shares[key], f"{path}.{key}" if path else key, notes)
    dropped = [key for key in fields if key not in kept]
    if dropped:
        names = ", ".join(dropped[:5]) + (", …" if len(dropped) > 5 else "")
        notes.append(f"{_place(path)}without {len(dropped)} of {len(fields)} fields ({names[:200]})")
    return kept


def _place(path: str) -> str:
    return f"{path} has " if path else ""


class Word(str):
    """A secret that may be an ordinary word, such as a unit or a city: hidden only where it stands alone."""

    __slots__ = ()


def redacted(value: Json, secrets: Iterable[str]) -> Json:
    """`value` with every occurrence of a secret as `***`; of a `Word`, where it is no part of a longer one."""
    hidden = tuple(secrets)
    if not hidden:
        return value
    if isinstance(value, str):
        return redacted_text(value, hidden)
    if isinstance(value, list):
        return [redacted(item, hidden) for item in value]
    if isinstance(value, dict):
        return {redacted_text(key, hidden): redacted(item, hidden) for key, item in value.items()}
    return value


def redacted_text(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret not in text:
            continue
        text = _alone(secret).sub("***", text) if isinstance(secret, Word) else text.replace(secret, "***")
    return text


def _alone(word: str) -> re.Pattern[str]:
    """`word` between anything but letters and digits; those of a percent-encoded sign do not count."""
    before = r"(?:(?<![^\W_])|(?<=%[0-9A-Fa-f]{2}))" if word[0].isalnum() else ""
    after = r"(?![^\W_])" if word[-1].isalnum() else ""
    return re.compile(before + re.escape(word) + after)


def summary(value: Json) -> str:
    """One short line for people."""
    match value:
        case None:
            text = "nothing"
        case str():
            text = " ".join(value.split())
        case list():
            text = f"{len(value)} item{'' if len(value) == 1 else 's'}"
        case dict():
            parts = []
            for key, item in value.items():
                if isinstance(item, list):
                    parts.append(f"{key}: {len(item)} item{'' if len(item) == 1 else 's'}")
                elif item is not None and not isinstance(item, dict):
                    parts.append(f"{key}: {' '.join(str(item).split())}")
            text = ", ".join(parts) or f"{len(value)} field{'' if len(value) == 1 else 's'}"
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST_SUMMARY else text[: _LONGEST_SUMMARY - 1].rstrip() + "…"
