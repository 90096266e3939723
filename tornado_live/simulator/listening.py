"""What one conversation hears: audio at any rate, and where speech begins and ends in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .brain import VoiceBox
from .messages import Message, Refused
from .pcm import Ears, LinearResampler, LoudnessEars
from .profiles import Profile
from .setup import Setup
from .voice import INPUT_RATE, SpeechEnded, SpeechEvent

_LONGEST_ACTIVITY_BYTES = 60 * INPUT_RATE * 2


class Listening:
    """Automatic detection, or the client's own marks. heard_bytes: at 16 kHz, from the beginning."""

    def __init__(self, setup: Setup, profile: Profile, voices: VoiceBox) -> None:
        self.heard_bytes = 0
        self._setup = setup
        self._profile = profile
        self._voices = voices
        self._ears: Ears | None = None
        self._ears_have_voice = False
        self._activity: bytearray | None = None
        self._resamplers: dict[int, LinearResampler] = {}

    @property
    def user_speaks(self) -> bool:
        return self._activity is not None or (self._ears is not None and self._ears.speaking)

    @property
    def silence_s(self) -> float:
        """The silence that ended a piece of speech that was detected."""
        return self._setup.silence_ms(self._profile) / 1000

    def audio(self, blob: Message, *, over_speech: bool) -> tuple[Sequence[SpeechEvent], int]:
        """The events that this audio brings, and its length in bytes at 16 kHz. Raises Refused."""
        mime_type, data = blob.get("mimeType", "audio/pcm"), blob.get("data", b"")
        rate = re.fullmatch(r"audio/(?:pcm|l16)(?:\s*;\s*rate=(\d{4,6}))?", str(mime_type).lower())
        if rate is None or not isinstance(data, bytes):
            raise Refused
        pcm = self._at_input_rate(data[: len(data) // 2 * 2], int(rate[1] or INPUT_RATE))
        self.heard_bytes += len(pcm)
        if self._setup.manual_activity:
            if self._activity is None:
                raise Refused
            if len(self._activity) < _LONGEST_ACTIVITY_BYTES:
                self._activity += pcm
            return (), len(pcm)
        return self._listening_ears().feed(pcm, over_speech=over_speech), len(pcm)

    def pause(self) -> Sequence[SpeechEvent]:
        """audioStreamEnd: speech that is under way is over."""
        return () if self._ears is None else self._ears.flush()

    def activity_start(self) -> None:
        """Raises Refused where the client may not mark activity, and in the middle of one (inferred)."""
        if not self._setup.manual_activity or self._activity is not None:
            raise Refused
        self._activity = bytearray()

    def activity_end(self) -> SpeechEnded | None:
        """What was said since activityStart. Raises Refused where there was none (inferred)."""
        if not self._setup.manual_activity or self._activity is None:
            raise Refused
        activity, self._activity = self._activity, None
        return SpeechEnded(bytes(activity), voiced_ms=0) if activity else None

    def _at_input_rate(self, pcm: bytes, rate: int) -> bytes:
        if rate == INPUT_RATE or not pcm:
            return pcm
        if rate not in self._resamplers:
            if not 4_000 <= rate <= 192_000:
                raise Refused
            self._resamplers = {rate: LinearResampler(rate, INPUT_RATE)}  # one stream has one rate at a time
        return self._resamplers[rate].feed(pcm)

    def _listening_ears(self) -> Ears:
        """The voice's ears as soon as there is a voice, though never in the middle of speech."""
        voice = self._voices.voice
        if self._ears is None or (
            voice is not None and not self._ears_have_voice and not self._ears.speaking
        ):
            silence_ms = self._setup.silence_ms(self._profile)
            if voice is None:
                self._ears = LoudnessEars(
                    silence_ms, starts_after_ms=self._setup.starts_after_ms, dull=self._setup.dull_start
                )
            else:
                self._ears = voice.ears(silence_ms)
            self._ears_have_voice = voice is not None
        return self._ears
