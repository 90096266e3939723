"""One simulated conversation: client messages in, server messages out, in Gemini Live's order and at its pace.

A turn runs as a task of its own, so that the next message of the client can cut it short. Nothing here blocks
the event loop: recognition and speech come from threads, and sound is sent piece by piece.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from .brain import Answer, Brain, Prompt, Said, VoiceBox
from .calls import Calls
from .floor import Floor
from .interpreter import Interpreter
from .listening import Listening
from .messages import Json, Message, Refused
from .profiles import Profile
from .setup import NOT_ENABLED, Setup, inline_of, text_of
from .turn import Conversation, Pace, Turn, Wire
from .usage import Usage
from .voice import INPUT_RATE, SpeechEnded, SpeechStarted

__all__ = ["Pace", "Session", "SessionMemory", "Usage", "Wire"]

logger = logging.getLogger(__name__)

_HANDLES_EVERY_S = 2.0  # of a model that has no turns


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
        self.profile = profile
        self.pace = pace
        self.wire = wire
        self._conversation = Conversation(
            setup=setup,
            profile=profile,
            pace=pace,
            wire=wire,
            usage=Usage() if resumed is None else resumed.usage.copy(),
            calls=Calls(
                profile.call_ids,
                {} if resumed is None else resumed.open_calls,
                () if resumed is None else resumed.settled_calls,
            ),
            more_to_come=lambda: self._floor.more_to_come,
            changed=lambda: self._tell_resumable(),
        )
        self._calls = self._conversation.calls
        self._brain = brain
        self._listening = Listening(setup, profile, voices)
        self._interpreter = Interpreter(self._conversation) if profile.job == "translate" else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._floor = Floor(
            self._conversation,
            brain,
            own=self._own,
            free=lambda: not self._listening.user_speaks and not self._hearing.locked(),
            new_state=lambda: self._tell_resumable(anew=True),
            turn=Turn if self._interpreter is None else self._interpreter.turn,
        )
        self._hearing = asyncio.Lock()
        self._held: list[str] = []
        self._unanswered: list[str] = []
        self._history_open = setup.initial_history
        self._asked_in_history = ""
        self._resumable = False
        if resumed is None:
            self.usage.read(setup.instruction)
            for declaration in setup.declarations:
                self.usage.read(str(declaration))
        if resumed is None or resumed.setup.instruction != setup.instruction:
            brain.instruct(setup.instruction)

    @property
    def setup(self) -> Setup:
        return self._conversation.setup

    @property
    def usage(self) -> Usage:
        return self._conversation.usage

    @property
    def counts(self) -> Counter[str]:
        return self._conversation.counts

    def memory(self) -> SessionMemory:
        """The session as it is now."""
        return SessionMemory(
            self._brain.snapshot(),
            self.setup,
            self.usage.copy(),
            {identifier: each.call.name for identifier, each in self._calls.open.items()},
            frozenset(self._calls.settled),
        )

    def begin(self) -> None:
        """After setupComplete."""
        self._floor.begin()
        if self._interpreter is not None:
            self._own(self._renew_handles())

    def receive(self, name: str, message: Message) -> None:
        """One client message after the setup. Raises Refused when the service would close."""
        match name:
            case "realtimeInput":
                self._realtime_input(message)
            case "clientContent":
                self._client_content(message)
            case "toolResponse":
                self._tool_response(message)
            case "contextUpdate":
                self._context_update(message)
            case _:
                raise Refused  # a second setup
        self.counts[name] += 1

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
        if len(message) > 1 and not self.profile.several_inputs:
            raise Refused
        if "activityStart" in message:
            self._activity_start()
        if "audio" in message:
            self._audio(cast("Message", message["audio"]))
        if "video" in message:
            self._video(cast("Message", message["video"]))
        for chunk in cast("list[Message]", message.get("mediaChunks", [])):
            self._media_chunk(chunk)
        text = message.get("text")
        if isinstance(text, str) and (text.strip() or self._asked_in_history):
            # Blank words ask for an answer to the history's last turn, if that is the user's.
            self._typed(text if text.strip() else self._asked_in_history)
        if "activityEnd" in message:
            speech = self._listening.activity_end()
            self._tell_vad("EOS")
            if speech is None:
                self._floor.go_on()
            else:
                self._hear(speech, time.monotonic())
        if message.get("audioStreamEnd") is True:
            self._listen(self._listening.pause())

    def _audio(self, blob: Message) -> None:
        if self._calls.waited_for() and self.profile.input_during_call == "closes":
            raise Refused(NOT_ENABLED, 1008)
        events, length = self._listening.audio(blob, over_speech=self._floor.audible)
        self.counts["audio_bytes"] += len(cast("bytes", blob.get("data", b"")))
        if self.setup.counts_audio_between_speech():
            self.usage.heard(length)
        if self._interpreter is not None:
            self._interpreter.listen(self._own)
        self._listen(events)

    def _video(self, blob: Message) -> None:
        if not str(blob.get("mimeType", "image/jpeg")).startswith("image/"):
            raise Refused
        self.counts["video"] += 1
        if self._listening.user_speaks or self.setup.counts_video_between_speech(self.profile):
            self.usage.saw()

    def _media_chunk(self, blob: Message) -> None:
        if not self.profile.media_chunks:
            raise Refused
        if str(blob.get("mimeType", "")).startswith("audio/"):
            self._audio(blob)
        else:
            self._video(blob)

    def _typed(self, text: str) -> None:
        if self.profile.job == "transcribe":
            raise Refused
        self.usage.read(text)
        self._prompt(Prompt(text, spoken=False, translate_to=self.setup.translate_to), time.monotonic())

    def _listen(self, events: Sequence[SpeechStarted | SpeechEnded]) -> None:
        for event in events:
            if isinstance(event, SpeechStarted):
                if self.setup.interruptible:
                    self._floor.interrupt()
                self._tell_activity("ACTIVITY_START")
                self._tell_vad("SOS")
            else:
                self._tell_activity("ACTIVITY_END")
                self._tell_vad("EOS")
                self._hear(event, time.monotonic() - self._listening.silence_s)

    def _tell_activity(self, kind: str) -> None:
        if self.profile.voice_activity == "none":
            return
        offset = self._listening.heard_bytes / 2 / INPUT_RATE
        message: dict[str, Json] = {"voiceActivity": {"type": kind, "audioOffset": f"{offset:.3f}s"}}
        if self.profile.voice_activity == "with_content":
            message["serverContent"] = {}
        self.wire.send(message)

    def _tell_vad(self, signal: str) -> None:
        if self.setup.vad_signals:
            kind = f"VAD_SIGNAL_TYPE_{signal}"
            self.wire.send({"voiceActivityDetectionSignal": {"vadSignalType": kind}})

    def _activity_start(self) -> None:
        self._listening.activity_start()
        self._tell_vad("SOS")
        interrupted = self.setup.interruptible and self._floor.interrupt()
        if self.profile.spurious_interrupted and not interrupted and self.counts["turns"]:
            self._conversation.send_content({"interrupted": True})
            self._conversation.send_content({"turnComplete": True})

    def _hear(self, speech: SpeechEnded, ended_at: float) -> None:
        if not self.setup.counts_audio_between_speech():
            self.usage.heard(len(speech.segment))
        self._own(self._recognise(speech, ended_at))

    async def _recognise(self, speech: SpeechEnded, ended_at: float) -> None:
        async with self._hearing:  # transcripts come in the order of the speech
            words = await self._brain.hear(speech)
            if self.profile.job == "transcribe":
                await self._transcribe(words or "", len(speech.segment))
                return
            if words and self.setup.transcribes_input:
                self._send_input_transcription(words)
            if words is not None:
                self._held.append(words)
        if self._listening.user_speaks:
            # A pause in the middle of a sentence ended a segment, not what the user had to say.
            return
        if self._held:
            text = " ".join(filter(None, self._held))
            self._held.clear()
            self._prompt(Prompt(text, spoken=True, translate_to=self.setup.translate_to), ended_at)
        else:
            self._floor.go_on()

    def _send_input_transcription(self, words: str) -> None:
        pieces = re.findall(r"\s*\S+", words) if self.profile.input_pieces else [words]
        told = ""
        for piece in pieces:
            told += piece
            text = told if self.profile.transcripts == "accumulated" else piece
            self._conversation.send_content({"inputTranscription": {"text": text}})
        if self.profile.finished_marks:
            self._conversation.send_content({"inputTranscription": {"finished": True}})

    async def _transcribe(self, words: str, length: int) -> None:
        """What a model does that only writes down: interim words, then the final ones."""
        pieces = re.findall(r"\s*\S+", words)
        for count in range(2, len(pieces), 2):
            interim: Json = {"text": "".join(pieces[:count])}
            self._conversation.send_content({"interimInputTranscription": interim})
            await asyncio.sleep(self.pace.seconds(0.1))
        end_s = self._listening.heard_bytes / 2 / INPUT_RATE
        start_s = max(0.0, end_s - length / 2 / INPUT_RATE)
        if words:
            final: dict[str, Json] = {"text": words}
            if self.setup.word_times:
                final["startOffset"], final["endOffset"] = f"{start_s:.3f}s", f"{end_s:.3f}s"
            self._conversation.send_content({"inputTranscription": final})
        turn = Turn(self._conversation, time.monotonic(), silent=False)
        turn.text = words
        self._conversation.send_turn_complete(turn, in_progress=False)
        self._tell_resumable()

    def _client_content(self, message: Message) -> None:
        mid_session = self.counts["realtimeInput"] or self.counts["turns"]
        if mid_session and not self._history_open and not self.profile.client_content_mid_session:
            raise Refused
        if self.profile.job == "transcribe":
            raise Refused
        for content in cast("list[Message]", message.get("turns", [])):
            self._read_content(content)
        if message.get("turnComplete") is not True:
            return
        if self._history_open:
            self._history_open = False
            self._asked_in_history = self._unanswered[-1] if self._unanswered else ""
            self._remember_unanswered()
            self._tell_resumable(anew=True)
            return
        asked = [text for text in self._unanswered if text]
        self._unanswered = asked[:-1]
        self._remember_unanswered()
        self._floor.interrupt()  # unconditionally, whatever activityHandling says
        last = asked[-1] if asked else ""
        self._prompt(
            Prompt(" ".join(asked), spoken=False, last=last, translate_to=self.setup.translate_to),
            time.monotonic(),
        )

    def _read_content(self, content: Message) -> None:
        text = text_of(content)
        self.usage.read(text)
        for mime_type, data in inline_of(content):
            if mime_type.startswith("audio/"):
                self.usage.heard(len(data))
            else:
                self.usage.saw()
        match content.get("role", "user"):
            case "user":
                self._unanswered.append(text)
            case "model":
                self._remember_unanswered()
                self._brain.remember([Said(by_user=False, text=text)])
            case "system":
                self._brain.instruct(text)
            case _:
                raise Refused("Please use a valid role: user, model.")

    def _remember_unanswered(self) -> None:
        self._brain.remember([Said(by_user=True, text=text) for text in self._unanswered if text])
        self._unanswered = []

    def _context_update(self, message: Message) -> None:
        if not self.profile.context_update:
            raise Refused
        setup = self._conversation.setup = self.setup.updated(message, self.profile)
        if "tools" in message:
            self._brain.declare(setup.declarations)
        if "systemInstruction" in message:
            self._brain.instruct(setup.instruction)

    # Calls

    def _tool_response(self, message: Message) -> None:
        spoken: list[Answer] = []
        urgent: list[Answer] = []
        for response in cast("list[Message]", message.get("functionResponses", [])):
            if not self.profile.scheduling and ("scheduling" in response or "willContinue" in response):
                raise Refused
            identifier = self._answered_call(response)
            if identifier is None:
                continue
            call = self._calls.open[identifier]
            answer = cast("dict[str, Json]", response.get("response", {}))
            self.usage.read(str(answer))
            final = response.get("willContinue") is not True
            if final:
                self._calls.settle([identifier])
            if call.answer is not None:
                if final:
                    call.answer.set_result(answer)
                continue
            if not answer:
                continue  # a generator that ends without a further result
            match response.get("scheduling"):
                case "SILENT":
                    self._brain.note([(call.call.name, answer)])
                case "INTERRUPT":
                    urgent.append((call.call.name, answer))
                case _:
                    spoken.append((call.call.name, answer))
        self._floor.deliver(spoken, urgent)
        self._tell_resumable()

    def _answered_call(self, response: Message) -> str | None:
        """The open call that this answers; None if it was settled meanwhile. Raises Refused for no call."""
        identifier = response.get("id")
        if identifier is None and self.profile.vertex:
            identifier = self._calls.named(cast("Json", response.get("name")))
        if not isinstance(identifier, str):
            raise Refused
        if identifier in self._calls.settled:
            self.counts["late_answers"] += 1
            return None
        if identifier not in self._calls.open:
            raise Refused
        return identifier

    def _prompt(self, prompt: Prompt, at: float) -> None:
        self._asked_in_history = ""
        self._remember_unanswered()
        self._floor.prompt(prompt, at)

    # The rest

    def _tell_resumable(self, *, anew: bool = False) -> None:
        """anew: there is something new to remember, even if the session was resumable before."""
        in_call = bool(self._calls.open)
        if self.profile.resumable_in_call:
            resumable = self._floor.free_of_speech or bool(self._calls.waited_for())
        else:
            resumable = self._floor.turn is None and not in_call
        if self.on_resumable is not None and (resumable != self._resumable or (resumable and anew)):
            self._resumable = resumable
            self.on_resumable(resumable)

    async def _renew_handles(self) -> None:
        while True:
            await asyncio.sleep(self.pace.seconds(_HANDLES_EVERY_S))
            self._tell_resumable(anew=True)

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
