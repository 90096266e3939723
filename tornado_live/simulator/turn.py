"""One turn of the model: what it sends, in which order and when."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from .brain import Answer, FunctionCall, Utterance
from .calls import Calls
from .messages import Json
from .profiles import Profile
from .setup import Setup
from .usage import Usage
from .voice import OUTPUT_RATE

_TEXT_PIECE_S = 0.06  # the pace of an answer that has no sound
_WORDS_AHEAD_BYTES = OUTPUT_RATE * 2  # how far words run ahead of their sound in messages of their own
_THOUGHT = "**Considering the Request**\n\nI am working out what was asked and what to say to it.\n\n\n"


class Wire(Protocol):
    """What a conversation asks of its connection. All of it may be called after the connection has ended."""

    def send(self, message: Mapping[str, Json]) -> Awaitable[None]:
        """Sends at once, in order; the awaitable is done when there is room for more."""

    def close(self, code: int, reason: str) -> None: ...

    def drop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Simulated time: every wait is divided by `speed`; `latency` replaces the model's own time to first sound."""

    speed: float = 1.0
    latency: float | None = None

    def seconds(self, simulated: float) -> float:
        return simulated / self.speed

    def first_audio(self, profile: Profile) -> float:
        return self.seconds(profile.first_audio_s if self.latency is None else self.latency)


@dataclass(slots=True)
class Conversation:
    """What all turns of one conversation share.

    more_to_come: whether the model has something to say that nobody needs to ask for.
    changed: called when a call was made or answered.
    """

    setup: Setup
    profile: Profile
    pace: Pace
    wire: Wire
    usage: Usage
    calls: Calls
    more_to_come: Callable[[], bool]
    changed: Callable[[], None]
    counts: Counter[str] = field(default_factory=Counter)

    def send_content(self, content: dict[str, Json]) -> Awaitable[None]:
        return self.wire.send({"serverContent": content})

    def send_turn_complete(self, turn: Turn, *, in_progress: bool) -> None:
        """The end of a turn, with its tokens and, where the model tells it, whether it is idle."""
        profile, setup = self.profile, self.setup
        content: dict[str, Json] = {"turnComplete": True}
        if profile.vertex and setup.searches:
            content["groundingMetadata"] = {}
        tells_status = profile.idle == "interaction_status"
        if tells_status and in_progress:
            content["interactionStatus"] = "IN_PROGRESS"
        elif tells_status and profile.idle_message == "with_turn":
            content["interactionStatus"] = "IDLE"
        usage = self.usage.of_turn(
            turn.audio_bytes,
            turn.text,
            turn.thought,
            cumulative=profile.usage == "cumulative",
            names=profile.usage_names,
        )
        if profile.usage_message == "with_turn":
            self.wire.send({"serverContent": content, "usageMetadata": usage})
        else:
            self.send_content(content)
            self.wire.send({"usageMetadata": usage})
        if tells_status and not in_progress and profile.idle_message == "alone":
            self.tell_idle()
        turn.clear()
        if setup.compression is not None:
            self.usage.compress(setup.compression.trigger, setup.compression.target)
        elif self.usage.context.total() > profile.context_tokens:
            if profile.full_context == "closes":
                self.wire.close(1000, "")
            self.usage.compress(profile.context_tokens, profile.context_tokens)

    def send_calls(self, identifiers: Sequence[str]) -> Awaitable[None]:
        status: dict[str, Json] = {}
        if self.profile.idle == "interaction_status":
            status["interactionStatus"] = "IN_PROGRESS"  # beside the call, not in a serverContent
        return self.wire.send({**self.calls.message(identifiers), **status})

    @property
    def in_progress(self) -> bool:
        return bool(self.calls.open) or self.more_to_come()

    def tell_idle(self) -> None:
        """Where the model says so, and if it is: without a turn that ends."""
        if self.profile.idle == "interaction_status" and not self.in_progress:
            self.send_content({"interactionStatus": "IDLE"})


class Turn:
    """One generation (brain.Turn) and what became of it.

    silent: nothing was sent yet that a client can see. between: what was sent is complete, and more may follow.
    """

    def __init__(self, conversation: Conversation, at: float, *, silent: bool) -> None:
        self.task: asyncio.Task[None]
        self.silent = silent
        self.between = False
        self.audio_bytes = 0
        self.text = ""
        self.thought = ""
        self._last_chunk = b""
        self._conversation = conversation
        self._profile = conversation.profile
        self._ready_at = at + conversation.pace.first_audio(conversation.profile)
        self._next_at = 0.0
        self._playback_ends = 0.0
        self._sizes = _chunk_sizes(conversation.profile.chunk_bytes)
        self._sent_in_burst = 0
        self._opened = False
        self._thought_of = False
        self._transcribing = False
        self._held: list[dict[str, Json]] = []

    @property
    def audible(self) -> bool:
        """Whether a listener who plays everything as it comes hears something now."""
        return self._playback_ends > time.monotonic()

    def clear(self) -> None:
        """What was said has been counted."""
        self.audio_bytes = 0
        self.text = self.thought = ""

    def late_sound(self) -> None:
        """What had already left when the turn was interrupted."""
        if self._last_chunk:
            self._conversation.wire.send(self._speech_message(self._last_chunk, None))

    # brain.Turn

    async def say(self, utterances: AsyncIterator[Utterance]) -> None:
        # The next sentence is made while this one is sent.
        made: asyncio.Queue[Utterance | None] = asyncio.Queue(2)

        async def make() -> None:
            async for utterance in utterances:
                await made.put(utterance)
            await made.put(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(make())
            while (utterance := await made.get()) is not None:
                await self._open()
                await self._send_utterance(utterance)

    async def call(self, calls: Sequence[FunctionCall], *, cancel_after: float | None = None) -> list[Answer]:
        conversation = self._conversation
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in calls]
        await self._send_calls(list(zip(calls, answers, strict=True)))
        if self._profile.turn_after_call != "same":
            self._end_part(in_progress=True)
        limit = None if cancel_after is None else conversation.pace.seconds(cancel_after)
        if answers:
            await asyncio.wait(answers, timeout=limit)
        waited_for = {call.answer: identifier for identifier, call in conversation.calls.open.items()}
        late = [waited_for[answer] for answer in answers if not answer.done()]
        if late:
            conversation.calls.settle(late)
            conversation.wire.send({"toolCallCancellation": {"ids": cast("list[Json]", late)}})
        else:
            self._send_filler()
        conversation.changed()
        self._ready_at = time.monotonic() + conversation.pace.seconds(self._profile.after_tool_s)
        return [
            (call.name, answer.result()) for call, answer in zip(calls, answers, strict=True) if answer.done()
        ]

    async def start(self, calls: Sequence[FunctionCall], line: AsyncIterator[Utterance]) -> None:
        speaks_first = self._profile.idle == "interaction_status" or self._profile.turn_after_call != "same"
        if speaks_first:
            await self.say(line)
        await self._send_calls([(call, None) for call in calls])
        if not speaks_first:
            await self.say(line)

    def waits_for(self, name: str) -> bool:
        return self._conversation.setup.waits_for(name, self._profile)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(self._conversation.pace.seconds(seconds))

    def send(self, message: dict[str, Json]) -> None:
        self._show()
        self._conversation.wire.send(message)

    def close(self, code: int, reason: str) -> None:
        self._conversation.wire.close(code, reason)

    def drop(self) -> None:
        self._conversation.wire.drop()

    # Its end

    async def complete(self) -> None:
        """generationComplete with the last byte, turnComplete when a listener has heard all of it."""
        conversation = self._conversation
        if self.silent:
            return
        if self.between:
            conversation.tell_idle()
            return
        await self._open()
        await self._end_generation()
        conversation.send_turn_complete(self, in_progress=conversation.in_progress)
        self.between = True

    async def _end_generation(self) -> None:
        held, self._held = self._held, []
        late = self._profile.late_audio == "after_generation"
        if not late:
            self._send_all(held)
        self._end_transcription()
        self._conversation.send_content({"generationComplete": True})
        if self._profile.turn_complete == "playback":
            await asyncio.sleep(max(0.0, self._playback_ends - time.monotonic()))
        if late:
            self._send_all(held)

    def _end_part(self, *, in_progress: bool) -> None:
        """What was said so far is a turn of its own; nobody waits until it was heard."""
        self._end_transcription()
        if self._profile.turn_after_call == "new":
            self._conversation.send_content({"generationComplete": True})
        self._conversation.send_turn_complete(self, in_progress=in_progress)
        self.between = True
        self._opened = False

    # Sending

    def _show(self) -> None:
        self.silent = False
        self.between = False

    async def _open(self) -> None:
        await asyncio.sleep(max(0.0, self._ready_at - time.monotonic()))
        self._show()
        if self._opened:
            return
        self._opened = True
        if self._profile.empty_messages == "empty":
            self._conversation.wire.send({})
        thinks = self._profile.thoughts == "unasked" or self._conversation.setup.thinks_aloud
        if thinks and not self._thought_of:
            self._thought_of = True
            self.thought = _THOUGHT
            self._send_parts({"text": _THOUGHT, "thought": True})

    async def _send_calls(
        self, calls: Sequence[tuple[FunctionCall, asyncio.Future[dict[str, Json]] | None]]
    ) -> None:
        conversation = self._conversation
        said_something = bool(self.text)
        await self._open()
        if self._profile.idle == "interaction_status" and said_something:
            await self._end_generation()
            conversation.send_turn_complete(self, in_progress=True)
            self._opened = False
        # Open from here on, where nothing comes between: what was never sent is not cancelled either.
        identifiers = [conversation.calls.ask(call, answer) for call, answer in calls]
        if self._profile.code_before_call:
            for identifier in identifiers:
                call = conversation.calls.open[identifier].call
                args = ", ".join(f"{name}={value!r}" for name, value in call.args.items())
                code = f"print(default_api.{call.name}({args}))"
                self._send_parts({"executableCode": {"language": "PYTHON", "code": code}})
        conversation.counts["calls"] += len(identifiers)
        if self._profile.empty_messages == "content":
            conversation.send_content({})
        held, self._held = self._held, []
        late = self._profile.late_audio == "after_call"
        if not late:
            self._send_all(held)
        await conversation.send_calls(identifiers)
        if late:
            self._send_all(held)
        self.between = self._profile.idle == "interaction_status"
        conversation.changed()

    def _send_filler(self) -> None:
        match self._profile.empty_messages:
            case "empty":
                self._conversation.wire.send({})
            case "content":
                self._conversation.send_content({})

    def _send_all(self, messages: Sequence[dict[str, Json]]) -> None:
        for message in messages:
            self._conversation.wire.send(message)

    def _send_parts(self, part: dict[str, Json]) -> None:
        self._conversation.send_content({"modelTurn": self._model_turn(part)})

    def _model_turn(self, part: dict[str, Json]) -> dict[str, Json]:
        role: dict[str, Json] = {"role": "model"} if self._profile.role_in_model_turn else {}
        return {**role, "parts": [part]}

    async def _send_utterance(self, utterance: Utterance) -> None:
        text = f" {utterance.text}" if self.text else utterance.text
        if utterance.pcm and self._conversation.setup.speaks:
            await self._send_speech(text, utterance.pcm)
        else:
            await self._send_text(text)

    async def _send_speech(self, text: str, pcm: bytes) -> None:
        conversation = self._conversation
        words = re.findall(r"\s*\S+", text)
        bundled = self._profile.transcripts_with_audio
        ahead = 0 if bundled else _WORDS_AHEAD_BYTES
        told = sent = 0
        while sent < len(pcm):
            chunk = pcm[sent : sent + next(self._sizes)]
            sent += len(chunk)
            # The text runs a little ahead of its sound.
            due = min(len(words), -(-len(words) * (sent + ahead) // len(pcm)))
            piece, told = "".join(words[told:due]), due
            duration = conversation.pace.seconds(len(chunk) / 2 / OUTPUT_RATE)
            await self._keep_pace(duration)
            self._playback_ends = max(time.monotonic(), self._playback_ends) + duration
            self.audio_bytes += len(chunk)
            self.text += piece
            transcription = self._transcription(piece) if conversation.setup.transcribes_output else None
            if transcription is not None and not bundled:
                conversation.send_content({"outputTranscription": transcription})
                transcription = None
            message = self._speech_message(chunk, transcription)
            self._last_chunk = chunk
            self._send_all(self._held)
            self._held.clear()
            if sent >= len(pcm) and self._profile.late_audio in ("after_call", "after_generation"):
                self._held.append(message)
            else:
                await conversation.wire.send(message)

    async def _keep_pace(self, duration: float) -> None:
        now = time.monotonic()
        if self._sent_in_burst % self._profile.burst == 0:
            await asyncio.sleep(max(0.0, self._next_at - now))
            now = time.monotonic()
        self._sent_in_burst += 1
        self._next_at = max(now, self._next_at) + duration / self._profile.pace

    def _transcription(self, piece: str) -> dict[str, Json] | None:
        if not piece:
            return None
        if self._profile.finished_marks and not self._transcribing:
            self._conversation.send_content({"outputTranscription": {}})
        self._transcribing = True
        return {"text": self.text if self._profile.transcripts == "accumulated" else piece}

    def _end_transcription(self) -> None:
        if self._profile.finished_marks and self._transcribing:
            self._conversation.send_content({"outputTranscription": {"finished": True}})
        self._transcribing = False

    def _speech_message(self, chunk: bytes, transcription: dict[str, Json] | None) -> dict[str, Json]:
        data = base64.b64encode(chunk).decode()
        part: dict[str, Json] = {"inlineData": {"mimeType": self._profile.output_mime_type, "data": data}}
        content: dict[str, Json] = {"modelTurn": self._model_turn(part)}
        if transcription is not None:
            content["outputTranscription"] = transcription
        return {"serverContent": content}

    async def _send_text(self, text: str) -> None:
        """Words without sound.

        A model that speaks sends their transcription even to those who asked for none, who would get nothing else.
        """
        conversation = self._conversation
        words = re.findall(r"\s*\S+", text)
        for at in range(0, len(words), 3):
            piece = "".join(words[at : at + 3])
            self.text += piece
            content: dict[str, Json] = {}
            if not conversation.setup.speaks:
                content["modelTurn"] = self._model_turn({"text": piece})
            elif (transcription := self._transcription(piece)) is not None:
                content["outputTranscription"] = transcription
            await conversation.send_content(content)
            await asyncio.sleep(conversation.pace.seconds(_TEXT_PIECE_S))


def _chunk_sizes(sizes: Sequence[int]) -> Iterator[int]:
    yield from sizes
    while True:
        yield from sizes[-2:]
