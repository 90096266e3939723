"""What thinks behind a simulated conversation, and what it may do in a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .messages import Json
from .voice import SpeechEnded, Voice, VoiceUnavailable

EXTRA_MISSING = "the voice extra is not installed (README, Limits)"

Answer = tuple[str, dict[str, Json]]
"""A function's name and the `response` that the client sent for it."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    name: str
    args: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user said. Spoken words can be empty: speech was heard and not understood.

    last: of several texts that were sent as one turn, the one to answer; `text` has them all.
    translate_to: the language to say the same in, where the model answers nothing and translates.
    """

    text: str
    spoken: bool
    last: str | None = None
    translate_to: str | None = None

    @property
    def asked(self) -> str:
        return self.text if self.last is None else self.last


@dataclass(frozen=True, slots=True)
class Said:
    """Something that was said before: by the user, or by the model."""

    by_user: bool
    text: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """A sentence and its sound: PCM16 mono at 24 kHz, empty where there is none."""

    text: str
    pcm: bytes


class Turn(Protocol):
    """One turn of the model. Every method ends early (CancelledError) when the user interrupts."""

    async def say(self, utterances: AsyncIterator[Utterance]) -> None:
        """Sends speech and its transcription at the pace of the model; returns when all of it is sent."""

    async def call(self, calls: Sequence[FunctionCall], *, cancel_after: float | None = None) -> list[Answer]:
        """Sends the calls in one message and waits for all answers, in the order of the calls.

        cancel_after: seconds after which calls without an answer are cancelled; theirs are left out.
        """

    async def start(self, calls: Sequence[FunctionCall], line: AsyncIterator[Utterance]) -> None:
        """Sends the calls and does not wait: what they answer comes to Brain.deliver or Brain.note.

        line: what is said meanwhile; before the calls or while they are open, as the model does.
        """

    def waits_for(self, name: str) -> bool:
        """Whether the turn waits for this function's answer: it is BLOCKING by its declaration or by default."""

    async def wait(self, seconds: float) -> None:
        """Simulated time."""

    def send(self, message: dict[str, Json]) -> None:
        """Any server message, as it is."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection with a close frame."""

    def drop(self) -> None:
        """Ends the connection without one."""


class Brain(Protocol):
    """Made for one conversation."""

    async def begin(self, turn: Turn) -> None:
        """Runs once after setupComplete; a real model says nothing then."""

    async def hear(self, speech: SpeechEnded) -> str | None:
        """The words of a piece of speech; "" when they cannot be told, None when it was no speech."""

    async def respond(self, prompt: Prompt, turn: Turn) -> None:
        """One turn of the model."""

    async def deliver(self, answers: Sequence[Answer], turn: Turn) -> None:
        """One turn of the model about what calls have answered that no turn waited for."""

    def note(self, answers: Sequence[Answer]) -> None:
        """What such calls have answered, to be known and not spoken of (SILENT)."""

    def remember(self, said: Sequence[Said]) -> None:
        """What was said before, as the client tells it."""

    def instruct(self, instruction: str) -> None:
        """The system instruction, at the beginning and whenever it changes."""

    def declare(self, declarations: Sequence[dict[str, Json]]) -> None:
        """The functions changed."""

    def snapshot(self) -> Brain:
        """A copy that knows what this one knows now: what is said later does not change it."""


class VoiceBox:
    """The voice of this process, which loads in a thread while the server already listens.

    state: "off", "loading", "ready" or "unavailable: " and the reason.
    lack: what a person is told of a voice that is not there, to follow "without a voice: ".
    """

    def __init__(self) -> None:
        self.state = "off"
        self.lack = "it is switched off"
        self.voice: Voice | None = None
        self._settled = asyncio.Event()
        self._settled.set()

    async def load(self) -> None:
        from .voice import load_voice

        self.state = "loading"
        self._settled.clear()
        try:
            self.voice = await asyncio.to_thread(load_voice)
        except VoiceUnavailable as error:
            self.state = f"unavailable: {error}"
            self.lack = "it could not be loaded" if error.installed else EXTRA_MISSING
        else:
            self.state = "ready"
        finally:
            self._settled.set()

    async def settled(self) -> Voice | None:
        """The voice, when it is known whether there is one."""
        await self._settled.wait()
        return self.voice

    def close(self) -> None:
        if self.voice is not None:
            self.voice.close()


async def spoken(voices: VoiceBox, texts: Sequence[str]) -> AsyncIterator[Utterance]:
    """The sentences with sound if there is a voice, else as text only: this simulator fakes no speech."""
    voice = await voices.settled()
    for text in texts:
        pcm = b"".join([part async for part in voice.speak(text)]) if voice is not None else b""
        yield Utterance(text, pcm)
