"""Whether somebody speaks into the microphone, judged by loudness alone. Pure.

Asked only while a connection is about to be left, when a wrong answer costs a moment's delay and no more.
"""

from __future__ import annotations

import re
import sys
from array import array
from base64 import b64decode

LOUD = 1000
"""Of 32767, some -30 dBFS: above the noise of a room, below a voice into a near microphone."""

_DATA = re.compile(rb'"data"\s*:\s*"([A-Za-z0-9+/_-]*)')
_STANDARD = bytes.maketrans(b"-_", b"+/")


def is_loud(payload: bytes) -> bool:
    """`payload`: a realtimeInput message with PCM16 audio in base64 of either alphabet."""
    found = _DATA.search(payload)
    if found is None:
        return False
    text = found[1].translate(_STANDARD)
    pcm = b64decode(text[: len(text) // 4 * 4])
    samples = array("h", pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return bool(samples) and (max(samples) > LOUD or min(samples) < -LOUD)
