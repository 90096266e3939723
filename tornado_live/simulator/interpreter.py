"""The model that translates: sound without end at the speed of listening, silence where nothing is to be said."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine

from .brain import Utterance
from .messages import Json
from .turn import Conversation, Turn
from .voice import OUTPUT_RATE

Owner = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


class Interpreter:
    """One stream for the conversation; turns put their sound into it."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._pcm = bytearray()
        self._begun = False

    def listen(self, own: Owner) -> None:
        """The stream begins with the first sound that is heard."""
        if not self._begun:
            self._begun = True
            own(self._stream())

    def turn(self, conversation: Conversation, at: float, *, silent: bool) -> Turn:
        return _Interpretation(conversation, at, self)

    async def say(self, utterance: Utterance) -> None:
        """The words at once, the sound in the stream."""
        transcription: dict[str, Json] = {"text": utterance.text}
        if self._conversation.setup.translate_to:
            transcription["languageCode"] = self._conversation.setup.translate_to
        await self._conversation.send_content({"outputTranscription": transcription})
        self._pcm += utterance.pcm

    async def _stream(self) -> None:
        profile, pace = self._conversation.profile, self._conversation.pace
        size = profile.chunk_bytes[-1]
        due = time.monotonic()
        while True:
            chunk = bytes(self._pcm[:size])
            del self._pcm[:size]
            data = base64.b64encode(chunk.ljust(size, b"\0")).decode()
            part: Json = {"inlineData": {"mimeType": profile.output_mime_type, "data": data}}
            await self._conversation.send_content({"modelTurn": {"parts": [part]}})
            due += pace.seconds(size / 2 / OUTPUT_RATE / profile.pace)
            await asyncio.sleep(max(0.0, due - time.monotonic()))


class _Interpretation(Turn):
    def __init__(self, conversation: Conversation, at: float, interpreter: Interpreter) -> None:
        super().__init__(conversation, at, silent=True)
        self._interpreter = interpreter

    async def complete(self) -> None:
        """A stream has no turns that end."""

    async def _open(self) -> None:
        await asyncio.sleep(0)

    async def _send_utterance(self, utterance: Utterance) -> None:
        await self._interpreter.say(utterance)
