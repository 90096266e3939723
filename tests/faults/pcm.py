"""Sound that carries its own number, so that what is lost, doubled or out of order can be seen."""

from __future__ import annotations

import struct

_MARK = (85, -42)
_DIGITS = 4
_BASE = 64
"""Small samples, so that nobody takes the sound for speech; and none of it is digital silence."""


def numbered(number: int, size: int = 640) -> bytes:
    """One message of sound of `size` bytes."""
    digits = [number // _BASE**place % _BASE for place in range(_DIGITS)]
    head = struct.pack("<6h", *_MARK, *digits)
    return head + b"\1\0" * ((size - len(head)) // 2)


def numbers(sound: bytes, size: int = 640) -> list[int]:
    """The numbers of whole messages of `size` bytes each, as they came."""
    assert len(sound) % size == 0, "whole messages"
    found = []
    for at in range(0, len(sound), size):
        first, second, *digits = struct.unpack_from("<6h", sound, at)
        assert (first, second) == _MARK, "the beginning of a message"
        number = sum(digit * _BASE**place for place, digit in enumerate(digits))
        assert sound[at : at + size] == numbered(number, size), "and all of it"
        found.append(number)
    return found
