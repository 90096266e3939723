"""Sound that carries its own number, so that what is lost, doubled or out of order can be seen."""

from __future__ import annotations

import struct

_MARK = 0x5EED


def numbered(number: int, size: int = 640) -> bytes:
    """One message of sound; `size` bytes, and nothing in it is digital silence."""
    return struct.pack("<HI", _MARK, number).ljust(size, b"\1")


def numbers(sound: bytes, size: int = 640) -> list[int]:
    """The numbers of whole messages of `size` bytes each, as they came."""
    assert len(sound) % size == 0, "whole messages"
    found = []
    for at in range(0, len(sound), size):
        mark, number = struct.unpack_from("<HI", sound, at)
        assert mark == _MARK, "the beginning of a message"
        found.append(number)
    return found
