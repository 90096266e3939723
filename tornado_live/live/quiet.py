"""Whether somebody speaks into the microphone, judged by loudness alone. Pure.

Asked only while a connection is about to be left, when a wrong answer costs a moment's delay and no more.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode

LOUD = 1000
"""Of 32767, some -30 dBFS: above the noise of a room, below a voice into a near microphone."""

_BEFORE = b'"data":"'


def is_loud(payload: bytes) -> bool:
    """`payload`: a realtimeInput message with PCM16 audio, as wire/gemini.py writes it."""
    begin = payload.find(_BEFORE)
    if begin < 0:
        return False
    begin += len(_BEFORE)
    pcm = b64decode(payload[begin : payload.find(b'"', begin)])
    samples = array("h", pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return bool(samples) and (max(samples) > LOUD or min(samples) < -LOUD)
