"""One simulated conversation: client messages in, server messages out, in Gemini Live's order and at its pace.

A turn runs as a task of its own, so that the next message of the client can cut it short. Nothing here blocks
the event loop: recognition and speech come from threads, and sound is sent piece by piece.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from .brain import Answer, Brain, FunctionCall, Prompt, Utterance, VoiceBox
from .messages import Json, Message, Refused
from .pcm import Ears, LinearResampler, LoudnessEars
from .profiles import Profile
from .setup import Setup, text_of
from .voice import INPUT_RATE, OUTPUT_RATE, SpeechEnded, SpeechStarted

logger = logging.getLogger(__name__)

TOKENS_PER_AUDIO_SECOND = 25
TOKENS_PER_VIDEO_FRAME = 258
_TURN_COMPLETE_AFTER_INTERRUPTED_S = 0.005
_TEXT_PIECE_S = 0.06  # the pace of an answer that has no sound
_LONGEST_ACTIVITY_BYTES = 60 * INPUT_RATE * 2


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
class Usage:
    """Tokens: the whole context is counted again as the prompt of every turn, as Google bills it."""

    context: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Usage:
        return Usage(self.context.copy())

    def read(self, text: str) -> None:
        self.context["TEXT"] += _text_tokens(text)

    def heard(self, pcm_bytes: int) -> None:
        self.context["AUDIO"] += round(pcm_bytes / 2 / INPUT_RATE * TOKENS_PER_AUDIO_SECOND)

    def saw(self) -> None:
        self.context["VIDEO"] += TOKENS_PER_VIDEO_FRAME

    def of_turn(self, audio_bytes: int, text: str) -> dict[str, Json]:
        """usageMetadata of a turn with this output, which is context from then on."""
        response: Counter[str] = Counter()
        if text:
            response["TEXT"] = _text_tokens(text)
        if audio_bytes:
            response["AUDIO"] = round(audio_bytes / 2 / OUTPUT_RATE * TOKENS_PER_AUDIO_SECOND)
        prompt = Counter(self.context)
        self.context += response
        usage: dict[str, Json] = {
            "promptTokenCount": prompt.total(),
            "responseTokenCount": response.total(),
            "totalTokenCount": prompt.total() + response.total(),
            "promptTokensDetails": _details(prompt),
            "responseTokensDetails": _details(response),
        }
        return {name: value for name, value in usage.items() if value}


@dataclass(frozen=True, slots=True)
class SessionMemory:
    """Everything of a session that another connection goes on with; what is being generated is not part of it.

    To go on: Session(resumed=memory, brain=memory.brain.snapshot()). One memory may be gone on with several times.
    open_calls: ids and names of the calls that are still to be answered. settled_calls: those that are not.
    """

    brain: Brain
    setup: Setup
    usage: Usage
    open_calls: Mapping[str, str]
    settled_calls: frozenset[str]


class Session:
    """From an accepted setup to the end of the connection. `receive` takes what `messages.read` gives."""

    def __init__(
        self,
        *,
        setup: Setup,
        profile: Profile,
        pace: Pace,
        wire: Wire,
        brain: Brain,
        voices: VoiceBox,
        resumed: SessionMemory | None = None,
    ) -> None:
        self.on_resumable: Callable[[bool], None] | None = None
        """Told True when there is a new state to go on from (memory), False when there is none for now."""
        self.setup = setup
        self.profile = profile
        self.pace = pace
        self.wire = wire
        self.counts: Counter[str] = Counter()
        self.usage = Usage()
        self._brain = brain
        self._voices = voices
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: _Turn | None = None
        self._waiting: deque[tuple[Prompt, float]] = deque()
        self._settling: asyncio.Task[None] | None = None
        self._hearing = asyncio.Lock()
        self._held: list[str] = []
        self._ears: Ears | None = None
        self._ears_have_voice = False
        self._activity: bytearray | None = None
        self._resamplers: dict[int, LinearResampler] = {}
        self._input_bytes = 0
        self._unanswered: list[str] = []
        self._history_open = setup.initial_history
        self._answered: set[str] = set() if resumed is None else set(resumed.settled_calls)
        self.usage.read(setup.instruction)
        for declaration in setup.declarations:
            self.usage.read(str(declaration))

    def memory(self) -> SessionMemory:
        return SessionMemory(
            self._brain.snapshot(), self.setup, self.usage.copy(), {}, frozenset(self._answered)
        )

    def begin(self) -> None:
        """After setupComplete."""
        self._start_turn(self._brain.begin, time.monotonic(), silent_if_empty=True)

    def receive(self, name: str, message: Message) -> None:
        """One client message after the setup. Raises Refused when the service would close."""
        self.counts[name] += 1
        match name:
            case "realtimeInput":
                self._realtime_input(message)
            case "clientContent":
                self._client_content(message)
            case "toolResponse":
                self._tool_response(message)
            case "contextUpdate":
                self.setup = self.setup.updated(message, self.profile)
                self._brain.declare(self.setup.declarations)
            case _:
                raise Refused  # a second setup

    def cancel(self) -> None:
        """Tells everything that runs for this conversation to end."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Ends everything that runs for this conversation."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Input

    def _realtime_input(self, message: Message) -> None:
        if "mediaChunks" in message and not self.profile.media_chunks:
            raise Refused
        if "activityStart" in message:
            self._activity_start()
        if "audio" in message:
            self._audio(cast("Message", message["audio"]))
        if "video" in message:
            self.counts["video"] += 1
            self.usage.saw()
        text = message.get("text")
        if isinstance(text, str) and text.strip():
            self.usage.read(text)
            self._prompt(Prompt(text, spoken=False), time.monotonic())
        if "activityEnd" in message:
            self._activity_end()
        if message.get("audioStreamEnd") is True and self._ears is not None:
            self._listen(self._ears.flush())

    def _audio(self, blob: Message) -> None:
        mime_type, data = blob.get("mimeType", "audio/pcm"), blob.get("data", b"")
        rate = re.fullmatch(r"audio/(?:pcm|l16)(?:\s*;\s*rate=(\d{4,6}))?", str(mime_type).lower())
        if rate is None or not isinstance(data, bytes):
            raise Refused
        pcm = self._at_input_rate(data[: len(data) // 2 * 2], int(rate[1] or INPUT_RATE))
        self.counts["audio_bytes"] += len(data)
        self._input_bytes += len(pcm)
        if self.setup.manual_activity:
            if self._activity is None:
                raise Refused
            if len(self._activity) < _LONGEST_ACTIVITY_BYTES:
                self._activity += pcm
            return
        ears = self._listening_ears()
        audible = self._turn is not None and self._turn.audible
        self._listen(ears.feed(pcm, over_speech=audible))

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
            silence_ms = self.setup.silence_ms or self.profile.silence_ms
            self._ears = LoudnessEars(silence_ms) if voice is None else voice.ears(silence_ms)
            self._ears_have_voice = voice is not None
        return self._ears

    def _listen(self, events: Sequence[SpeechStarted | SpeechEnded]) -> None:
        for event in events:
            if isinstance(event, SpeechStarted):
                if self.setup.interruptible:
                    self._interrupt()
                self._send_activity("ACTIVITY_START")
            else:
                self._send_activity("ACTIVITY_END")
                silence_s = (self.setup.silence_ms or self.profile.silence_ms) / 1000
                self._hear(event, time.monotonic() - silence_s)

    def _send_activity(self, kind: str) -> None:
        if self.profile.voice_activity != "none":
            offset = self._input_bytes / 2 / INPUT_RATE
            self.wire.send({"voiceActivity": {"type": kind, "audioOffset": f"{offset:.3f}s"}})

    def _activity_start(self) -> None:
        if not self.setup.manual_activity:
            raise Refused
        if self.setup.interruptible:
            self._interrupt()
        self._activity = bytearray()

    def _activity_end(self) -> None:
        if not self.setup.manual_activity:
            raise Refused
        if self._activity:
            self._hear(SpeechEnded(bytes(self._activity), voiced_ms=0), time.monotonic())
        self._activity = None

    def _hear(self, speech: SpeechEnded, ended_at: float) -> None:
        self.usage.heard(len(speech.segment))
        self._own(self._recognise(speech, ended_at))

    async def _recognise(self, speech: SpeechEnded, ended_at: float) -> None:
        async with self._hearing:  # transcripts come in the order of the speech
            words = await self._brain.hear(speech)
            if words and self.setup.transcribes_input:
                self.wire.send({"serverContent": {"inputTranscription": {"text": words}}})
            if words is not None:
                self._held.append(words)
            if self._held and not self._user_speaks:
                # A pause in the middle of a sentence ended a segment, not what the user had to say.
                text = " ".join(filter(None, self._held))
                self._held.clear()
                self._prompt(Prompt(text, spoken=True), ended_at)

    @property
    def _user_speaks(self) -> bool:
        return self._activity is not None or (self._ears is not None and self._ears.speaking)

    def _client_content(self, message: Message) -> None:
        for content in cast("list[Message]", message.get("turns", [])):
            text = text_of(content)
            self.usage.read(text)
            if content.get("role", "user") == "user":
                self._unanswered.append(text)
            else:
                self._unanswered.clear()
        if message.get("turnComplete") is not True:
            return
        if self._history_open:
            self._history_open = False
            self._unanswered.clear()
            return
        text = " ".join(filter(None, self._unanswered))
        self._unanswered.clear()
        self._interrupt()  # unconditionally, whatever activityHandling says
        self._prompt(Prompt(text, spoken=False), time.monotonic())

    def _tool_response(self, message: Message) -> None:
        for response in cast("list[Message]", message.get("functionResponses", [])):
            identifier, answer = response.get("id"), response.get("response", {})
            if not isinstance(identifier, str) or not isinstance(answer, dict):
                raise Refused
            self.usage.read(str(answer))
            if identifier in self._answered:
                continue  # answered or cancelled while the answer was on its way
            if self._turn is None or identifier not in self._turn.pending:
                raise Refused
            if response.get("willContinue") is not True:
                self._answered.add(identifier)
                self._turn.pending.pop(identifier).set_result(cast("dict[str, Json]", answer))

    # Turns

    def _prompt(self, prompt: Prompt, at: float) -> None:
        if self.setup.interruptible:
            self._interrupt()
        if self._turn is not None:
            self._waiting.append((prompt, at))
        else:
            self._answer(prompt, at)

    def _answer(self, prompt: Prompt, at: float) -> None:
        self.counts["turns"] += 1
        self._start_turn(lambda turn: self._brain.respond(prompt, turn), at)

    def _start_turn(
        self,
        respond: Callable[[_Turn], Coroutine[None, None, None]],
        at: float,
        *,
        silent_if_empty: bool = False,
    ) -> None:
        turn = _Turn(self, at, silent=silent_if_empty)
        self._turn = turn
        turn.task = self._own(self._run(turn, respond))

    async def _run(self, turn: _Turn, respond: Callable[[_Turn], Coroutine[None, None, None]]) -> None:
        if self._settling is not None:
            await self._settling
        await respond(turn)
        await turn.complete()
        if self._turn is turn:
            self._turn = None
            if self._waiting:
                self._answer(*self._waiting.popleft())

    def _interrupt(self) -> None:
        """Ends the running turn at once: `interrupted`, the calls it waits for, then turnComplete."""
        turn = self._turn
        if turn is None:
            return
        self._turn = None
        turn.task.cancel()
        if turn.silent:
            return
        self.counts["interrupted"] += 1
        self.wire.send({"serverContent": {"interrupted": True}})
        cancelled = list(turn.pending)
        self._answered.update(cancelled)
        if cancelled and self.profile.input_during_call == "cancels":
            self.wire.send({"toolCallCancellation": {"ids": cast("list[Json]", cancelled)}})
        self._settling = self._own(self._settle(turn))

    async def _settle(self, turn: _Turn) -> None:
        await asyncio.sleep(self.pace.seconds(_TURN_COMPLETE_AFTER_INTERRUPTED_S))
        self.send_turn_complete(turn)

    def send_turn_complete(self, turn: _Turn) -> None:
        usage = self.usage.of_turn(turn.audio_bytes, turn.text)
        self.wire.send({"serverContent": {"turnComplete": True}, "usageMetadata": usage})

    def forget_calls(self, identifiers: Sequence[str]) -> None:
        self._answered.update(identifiers)

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Refused):
            self.wire.close(error.code, error.reason)
        else:
            logger.error("a turn failed", exc_info=error)
            self.wire.close(1011, "Internal error encountered.")


class _Turn:
    """One generation (brain.Turn) and what became of it. `silent`: nothing was sent yet that a client can see."""

    def __init__(self, session: Session, at: float, *, silent: bool) -> None:
        self.task: asyncio.Task[None]
        self.pending: dict[str, asyncio.Future[dict[str, Json]]] = {}
        self.audio_bytes = 0
        self.text = ""
        self.silent = silent
        self._session = session
        self._ready_at = at + session.pace.first_audio(session.profile)
        self._next_at = 0.0
        self._playback_ends = 0.0
        self._sizes = _chunk_sizes(session.profile.chunk_bytes)
        self._opened = False

    @property
    def audible(self) -> bool:
        """Whether a listener who plays everything as it comes hears something now."""
        return self._playback_ends > time.monotonic()

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
        await self._open()
        session = self._session
        loop = asyncio.get_running_loop()
        asked: dict[str, FunctionCall] = {}
        for call in calls:
            digits = random.randrange(10**18, 10**19)  # noqa: S311 - a name, not a secret
            asked[f"{session.profile.call_ids}_{digits}"] = call
        answers = {identifier: loop.create_future() for identifier in asked}
        self.pending.update(answers)
        session.counts["calls"] += len(calls)
        function_calls: list[Json] = [
            {"name": call.name, "args": call.args, "id": identifier} for identifier, call in asked.items()
        ]
        await session.wire.send({"toolCall": {"functionCalls": function_calls}})
        limit = None if cancel_after is None else session.pace.seconds(cancel_after)
        await asyncio.wait(answers.values(), timeout=limit)
        late = [identifier for identifier, answer in answers.items() if not answer.done()]
        if late:
            for identifier in late:
                del self.pending[identifier]
            session.forget_calls(late)
            session.wire.send({"toolCallCancellation": {"ids": cast("list[Json]", late)}})
        elif session.profile.empty_messages == "empty":
            session.wire.send({})
        self._ready_at = time.monotonic() + session.pace.seconds(session.profile.after_tool_s)
        return [
            (asked[identifier].name, answer.result())
            for identifier, answer in answers.items()
            if answer.done()
        ]

    async def start(self, calls: Sequence[FunctionCall], line: AsyncIterator[Utterance]) -> None:
        raise NotImplementedError

    def waits_for(self, name: str) -> bool:
        return True

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(self._session.pace.seconds(seconds))

    def send(self, message: dict[str, Json]) -> None:
        self.silent = False
        self._session.wire.send(message)

    def close(self, code: int, reason: str) -> None:
        self._session.wire.close(code, reason)

    def drop(self) -> None:
        self._session.wire.drop()

    async def complete(self) -> None:
        """generationComplete with the last byte, turnComplete when a listener has heard all of it."""
        if self.silent:
            return
        await self._open()
        self._session.wire.send({"serverContent": {"generationComplete": True}})
        await asyncio.sleep(max(0.0, self._playback_ends - time.monotonic()))
        self._session.send_turn_complete(self)

    async def _open(self) -> None:
        self.silent = False
        await asyncio.sleep(max(0.0, self._ready_at - time.monotonic()))
        if not self._opened and self._session.profile.empty_messages == "empty":
            self._session.wire.send({})
        self._opened = True

    async def _send_utterance(self, utterance: Utterance) -> None:
        text = f" {utterance.text}" if self.text else utterance.text
        if utterance.pcm:
            await self._send_speech(text, utterance.pcm)
        else:
            await self._send_text(text)

    async def _send_speech(self, text: str, pcm: bytes) -> None:
        session = self._session
        words = re.findall(r"\s*\S+", text)
        told = sent = 0
        while sent < len(pcm):
            chunk = pcm[sent : sent + next(self._sizes)]
            sent += len(chunk)
            due = -(-len(words) * sent // len(pcm))  # the text runs a little ahead of its sound
            piece, told = "".join(words[told:due]), due
            duration = session.pace.seconds(len(chunk) / 2 / OUTPUT_RATE)
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._next_at - now))
            self._next_at = max(now, self._next_at) + duration / session.profile.pace
            self._playback_ends = max(time.monotonic(), self._playback_ends) + duration
            self.audio_bytes += len(chunk)
            self.text += piece
            await session.wire.send(self._speech_message(chunk, piece))

    def _speech_message(self, chunk: bytes, piece: str) -> dict[str, Json]:
        part: Json = {
            "inlineData": {
                "mimeType": f"audio/pcm;rate={OUTPUT_RATE}",
                "data": base64.b64encode(chunk).decode(),
            }
        }
        model_turn: dict[str, Json] = {"role": "model"} if self._session.profile.role_in_model_turn else {}
        content: dict[str, Json] = {"modelTurn": {**model_turn, "parts": [part]}}
        if piece and self._session.setup.transcribes_output:
            content["outputTranscription"] = {"text": piece}
        return {"serverContent": content}

    async def _send_text(self, text: str) -> None:
        """Words without sound: sent even to those who asked for no transcription, who would get nothing else."""
        words = re.findall(r"\s*\S+", text)
        for at in range(0, len(words), 3):
            piece = "".join(words[at : at + 3])
            self.text += piece
            await self._session.wire.send({"serverContent": {"outputTranscription": {"text": piece}}})
            await asyncio.sleep(self._session.pace.seconds(_TEXT_PIECE_S))


def _chunk_sizes(sizes: Sequence[int]) -> Iterator[int]:
    yield from sizes
    while True:
        yield from sizes[-2:]


def _text_tokens(text: str) -> int:
    return (len(text) + 3) // 4


def _details(tokens: Counter[str]) -> list[Json]:
    return [{"modality": modality, "tokenCount": count} for modality, count in tokens.items() if count]
