"""What JSON from somebody unknown must be, beyond what a parser asks of it. Pure.

A parser takes a second value for a name in place of the first, nests as deep as its stack goes, and builds a
hundred bytes for each two of `[[],[],[],…`.
"""

from __future__ import annotations

import json
from typing import Any

_WIDEST = 20
"""Bytes outside of strings for each value, which a number or an indentation has."""


def weigh(data: bytes, most: int) -> None:
    """Raises ValueError where there may be more than `most` values, before any is built."""
    if len(data) <= 2 * most:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if data.count(b'"') <= 4 * most:
        outside = b"".join(data.split(b'"')[::2])
        values = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if values <= most and len(outside) <= _WIDEST * most:
            return
    raise ValueError(f"One message holds at most {most} values; send less at a time.")


def check(data: bytes, deepest: int) -> None:
    """Raises ValueError where an object names a field twice, or where there are more than `deepest` levels.

    `data` is JSON, and was weighed.
    """
    read = json.loads(data.decode(), object_pairs_hook=_once)
    if data.count(b"{") + data.count(b"[") > deepest and _is_deeper(read, deepest):
        raise ValueError("The message is too deep.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("The message names a field twice.")
    return found


def _is_deeper(value: object, levels: int) -> bool:
    """Level by level, since Python's own stack is not for others to use up."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    while level and levels:
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in members for inner in each if isinstance(inner, dict | list)]
        levels -= 1
    return bool(level)
