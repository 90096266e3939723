"""The conversation that needs no script: it picks among the declared functions and speaks from their results."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from typing import cast

from .brain import Answer, FunctionCall, Prompt, Said, Turn, Utterance, VoiceBox, spoken
from .chooser import AskBack, Call, Chooser, Pending, Say
from .messages import Json
from .recollection import Recollection, read_notes
from .voice import SpeechEnded
from .wording import compose

INTRODUCTION = "This is the local simulator."
NO_RECOGNISER = "I hear that you speak, but I cannot understand speech. Please type instead."
LOST = "I have lost the thread. Please ask me again."
MEANWHILE = "One moment, please."


class ConversationBrain:
    """Keeps what was said, what it asked back about, and what each function was called for.

    Its first answer says what it is, unless the chooser's own words do, and why it has no voice if it has none.
    """

    def __init__(self, voices: VoiceBox, declarations: Sequence[dict[str, Json]]) -> None:
        self._voices = voices
        self._chooser = Chooser(declarations)
        self._pending: Pending | None = None
        self._introduced = False
        self._said = Recollection()
        self._called_for: dict[str, str] = {}

    def declare(self, declarations: Sequence[dict[str, Json]]) -> None:
        self._chooser = Chooser(declarations)
        self._pending = None

    def instruct(self, instruction: str) -> None:
        self._said.read(instruction)

    def remember(self, said: Sequence[Said]) -> None:
        self._said.add(said)

    def note(self, answers: Sequence[Answer]) -> None:
        for name, response in answers:
            sentences = compose(self._called_for.get(name, ""), [(name, response)])
            self._said.add([Said(by_user=False, text=" ".join(sentences))])

    def snapshot(self) -> ConversationBrain:
        same = copy.copy(self)
        same._said = self._said.copy()
        same._called_for = dict(self._called_for)
        return same

    async def begin(self, turn: Turn) -> None:
        """A model says nothing before it is spoken to."""

    async def hear(self, speech: SpeechEnded) -> str | None:
        voice = await self._voices.settled()
        if voice is None:
            return ""
        return await voice.transcribe(speech.segment, speech.voiced_ms or None) or None

    async def respond(self, prompt: Prompt, turn: Turn) -> None:
        if prompt.translate_to is not None:
            await turn.say(spoken(self._voices, [prompt.text] if prompt.text else []))
        elif prompt.spoken and not prompt.text:
            await self._say(turn, [*await self._introduction(), NO_RECOGNISER])
        else:
            await self._answer(prompt.asked, turn)

    async def deliver(self, answers: Sequence[Answer], turn: Turn) -> None:
        question = " ".join(self._called_for.get(name, "") for name, _ in answers)
        await self._say(turn, compose(question, answers))

    async def _answer(self, asked: str, turn: Turn) -> None:
        notes = read_notes(asked)
        recalled = self._said.answer(notes.question)
        self._said.add([Said(by_user=True, text=notes.question)])
        if notes.results:
            called_for = " ".join(self._called_for.get(name, "") for name, _ in notes.results)
            question = notes.question or called_for.strip() or self._said.last_question()
            await self._say(turn, compose(question, notes.results))
            return
        if notes.heard is not None and not notes.question:
            await self._say(turn, [self._said.after(notes.heard) or LOST])
            return
        asked = notes.question
        if recalled is not None:
            await self._say(turn, [*await self._introduction(), recalled])
            return
        decision = self._chooser.choose(asked, pending=self._pending)
        self._pending = None
        match decision:
            case Call(calls=calls):
                await self._call(
                    [FunctionCall(name, cast("dict[str, Json]", args)) for name, args in calls], asked, turn
                )
            case AskBack(question=question, pending=pending):
                self._pending = pending
                await self._say(turn, [*await self._introduction(), question])
            case Say(text=text):
                await self._say(turn, [text])

    async def _call(self, calls: Sequence[FunctionCall], asked: str, turn: Turn) -> None:
        self._called_for.update((call.name, asked) for call in calls)
        waited_for = [call for call in calls if turn.waits_for(call.name)]
        others = [call for call in calls if call not in waited_for]
        introduction = await self._introduction()
        if others:
            line = [] if waited_for else [*introduction, MEANWHILE]
            await turn.start(others, spoken(self._voices, line))
        if waited_for:
            answers = await turn.call(waited_for)
            await self._say(turn, [*introduction, *compose(asked, answers)])

    async def _say(self, turn: Turn, sentences: Sequence[str]) -> None:
        """Remembers what was said as far as it came."""
        await turn.say(self._remembering(spoken(self._voices, sentences)))

    async def _remembering(self, utterances: AsyncIterator[Utterance]) -> AsyncIterator[Utterance]:
        said = []
        try:
            async for utterance in utterances:
                said.append(utterance.text)
                yield utterance
        finally:
            self._said.add([Said(by_user=False, text=" ".join(said))])

    async def _introduction(self) -> list[str]:
        if self._introduced:
            return []
        self._introduced = True
        if await self._voices.settled() is None:
            return [f"{INTRODUCTION.rstrip('.')}, without a voice: {self._voices.lack}."]
        return [INTRODUCTION]
