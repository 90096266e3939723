"""The conversation that needs no script: it picks among the declared functions and speaks from their results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

from .brain import Answer, FunctionCall, Prompt, Said, Turn, VoiceBox, spoken
from .chooser import AskBack, Call, Chooser, Pending, Say
from .messages import Json
from .voice import SpeechEnded
from .wording import compose

INTRODUCTION = "This is the local simulator."
NO_RECOGNISER = "I hear that you speak, but I cannot understand speech. Please type instead."


class ConversationBrain:
    """Keeps what it asked back about from one prompt to the next, and nothing else of what was said.

    Its first answer says what it is, unless the chooser's own words do, and why it has no voice if it has none.
    """

    def __init__(self, voices: VoiceBox, declarations: Sequence[dict[str, Json]]) -> None:
        self._voices = voices
        self._chooser = Chooser(declarations)
        self._pending: Pending | None = None
        self._introduced = False

    def declare(self, declarations: Sequence[dict[str, Json]]) -> None:
        self._chooser = Chooser(declarations)
        self._pending = None

    async def deliver(self, answers: Sequence[Answer], turn: Turn) -> None:
        await turn.say(spoken(self._voices, compose("", answers)))

    def note(self, answers: Sequence[Answer]) -> None:
        pass

    def remember(self, said: Sequence[Said]) -> None:
        pass

    def instruct(self, instruction: str) -> None:
        pass

    def snapshot(self) -> ConversationBrain:
        return copy.copy(self)

    async def begin(self, turn: Turn) -> None:
        """A model says nothing before it is spoken to."""

    async def hear(self, speech: SpeechEnded) -> str | None:
        voice = await self._voices.settled()
        if voice is None:
            return ""
        return await voice.transcribe(speech.segment, speech.voiced_ms or None) or None

    async def respond(self, prompt: Prompt, turn: Turn) -> None:
        if prompt.spoken and not prompt.text:
            await turn.say(spoken(self._voices, [*await self._introduction(), NO_RECOGNISER]))
            return
        decision = self._chooser.choose(prompt.text, pending=self._pending)
        self._pending = None
        match decision:
            case Call(calls=calls):
                answers = await turn.call(
                    [FunctionCall(name, cast("dict[str, Json]", args)) for name, args in calls]
                )
                sentences = [*await self._introduction(), *compose(prompt.text, answers)]
            case AskBack(question=question, pending=pending):
                self._pending = pending
                sentences = [*await self._introduction(), question]
            case Say(text=text):
                sentences = [text]
        await turn.say(spoken(self._voices, sentences))

    async def _introduction(self) -> list[str]:
        if self._introduced:
            return []
        self._introduced = True
        if await self._voices.settled() is None:
            return [f"{INTRODUCTION.rstrip('.')}, without a voice: {self._voices.lack}."]
        return [INTRODUCTION]
