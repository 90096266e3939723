"""Sound without the voice packages: tones, WAV files, other rates, and ears that go by loudness.

PCM is 16 bit signed, little endian, mono.
"""

from __future__ import annotations

import array
import functools
import math
import sys
import wave
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .voice import INPUT_RATE, OUTPUT_RATE, SpeechEnded, SpeechEvent, SpeechStarted

_FRAME_MS = 20
_FRAME_BYTES = INPUT_RATE * _FRAME_MS // 1000 * 2
_LOUD = 300  # mean absolute sample; quiet rooms stay below, speech at a microphone is at 1000 and more
_DULL = 3  # how many times louder speech must be to begin where the start sensitivity is low
_STARTS_AFTER_MS = 60
_PRE_ROLL_FRAMES = 15
_LONGEST_FRAMES = 60_000 // _FRAME_MS


class Ears(Protocol):
    """What a conversation asks of its ears; `voice.Ears` are the good ones."""

    @property
    def speaking(self) -> bool: ...

    def feed(self, pcm16k: bytes, *, over_speech: bool = False) -> list[SpeechEvent]: ...

    def flush(self) -> list[SpeechEvent]: ...


class LoudnessEars:
    """Finds speech by loudness alone: enough for rendered speech and for saying "I hear you, but ..."."""

    def __init__(
        self, silence_ms: int, *, starts_after_ms: int = _STARTS_AFTER_MS, dull: bool = False
    ) -> None:
        self._silence_frames = max(1, silence_ms // _FRAME_MS)
        self._starts_after = max(1, starts_after_ms // _FRAME_MS)
        self._starts_at = _LOUD * _DULL if dull else _LOUD
        self._rest = bytearray()
        self._recent: deque[bytes] = deque(maxlen=max(_PRE_ROLL_FRAMES, starts_after_ms // _FRAME_MS))
        self._segment: list[bytes] = []
        self._loud = 0
        self._quiet = 0
        self._speaking = False

    @property
    def speaking(self) -> bool:
        return self._speaking

    def feed(self, pcm16k: bytes, *, over_speech: bool = False) -> list[SpeechEvent]:
        """The events that this audio brings; `over_speech` makes no difference here."""
        self._rest += pcm16k
        whole = len(self._rest) - len(self._rest) % _FRAME_BYTES
        events = [
            event
            for at in range(0, whole, _FRAME_BYTES)
            if (event := self._frame(bytes(self._rest[at : at + _FRAME_BYTES]))) is not None
        ]
        del self._rest[:whole]
        return events

    def flush(self) -> list[SpeechEvent]:
        """Ends the speech that is under way, if any."""
        events: list[SpeechEvent] = [self._end()] if self._speaking else []
        self._rest.clear()
        self._recent.clear()
        self._loud = 0
        return events

    def _frame(self, frame: bytes) -> SpeechEvent | None:
        level = loudness(frame)
        loud = level > _LOUD
        if not self._speaking:
            self._recent.append(frame)
            self._loud = self._loud + 1 if level > self._starts_at else 0
            if self._loud < self._starts_after:
                return None
            self._speaking = True
            self._segment = list(self._recent)
            self._quiet = 0
            return SpeechStarted()
        self._segment.append(frame)
        self._loud += loud
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet >= self._silence_frames or len(self._segment) >= _LONGEST_FRAMES:
            return self._end()
        return None

    def _end(self) -> SpeechEnded:
        ended = SpeechEnded(b"".join(self._segment), self._loud * _FRAME_MS)
        self._speaking = False
        self._segment = []
        self._recent.clear()
        self._loud = 0
        return ended


def loudness(pcm: bytes) -> float:
    """The mean absolute sample, 0 to 32768."""
    samples = _samples(pcm)
    return sum(map(abs, samples)) / len(samples) if samples else 0.0


class LinearResampler:
    """One stream at another rate by linear interpolation, chunk by chunk; plain, and needs no package."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._step = from_rate / to_rate
        self._position = 1.0  # of the next output, in input samples after `_last`
        self._last = 0

    def feed(self, pcm: bytes) -> bytes:
        samples = [self._last, *_samples(pcm)]
        out = array.array("h")
        position = self._position
        while position < len(samples) - 1:
            index = int(position)
            here = samples[index]
            out.append(int(here + (samples[index + 1] - here) * (position - index)))
            position += self._step
        self._position = position - (len(samples) - 1)
        self._last = samples[-1]
        return _bytes(out)


def tone(seconds: float, hertz: int = 440, rate: int = OUTPUT_RATE) -> bytes:
    """A sine at a fifth of full scale, so that speech made of it is plainly not silence."""
    second = _second_of_tone(hertz, rate)
    whole, rest = divmod(int(seconds * rate) * 2, len(second))
    return second * whole + second[:rest]


@functools.cache
def _second_of_tone(hertz: int, rate: int) -> bytes:
    return _bytes(array.array("h", (int(6500 * math.sin(math.tau * hertz * n / rate)) for n in range(rate))))


def read_wav(path: Path, rate: int) -> bytes:
    """A mono 16 bit WAV file at another rate. Raises ValueError for other files, OSError for none."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2:
                raise ValueError(f"{path.name} must be mono with 16 bits per sample")
            own_rate = file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path.name} is not a WAV file: {error}") from error
    return pcm if own_rate == rate else LinearResampler(own_rate, rate).feed(pcm)


def _samples(pcm: bytes) -> Sequence[int]:
    samples = array.array("h", pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _bytes(samples: array.array[int]) -> bytes:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
