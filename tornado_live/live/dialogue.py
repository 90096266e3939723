"""What is said between the user and the model: server content into events for the client and into memory. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tornado_live.jsonvalue import Json
from tornado_live.live.commands import (
    Command,
    Interrupted,
    ModelMessage,
    Record,
    Remember,
    Said,
    SendToClient,
    Transcribed,
    TurnComplete,
)
from tornado_live.live.recall import NOTHING_OWED, Owed
from tornado_live.live.transcript import Transcript
from tornado_live.live.turns import Speaking, Turns
from tornado_live.observe.usage import Usage
from tornado_live.sessions.store import Role, clip
from tornado_live.settings import Limits
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel

LATE_WORDS_S = 2.0
"""After the end of what is heard of an answer: words of the user that come later are a new question."""

_CHARS_TO_SECONDS = 0.75 / 48_000
"""Base64 of PCM16 at 24 kHz."""

_ZEROS = "AAAAAAAAAAAAAAAA"

IN_PROGRESS = "IN_PROGRESS"
IDLE = "IDLE"


@dataclass(frozen=True, slots=True)
class Happened:
    """What a message meant for the turn; `zeros_s` of its sound is digital silence.

    `pauses`: a thinking model has said its first words, and goes on in the same turn. `completed` is the turn that
    ended; `cut`: it was interrupted before; `empty`: nothing was said in it, and `owed` is what it should have
    answered. `ends_call`: an end that it says is that of a call, whose answer goes on in the same turn of ours.
    `untold`: nothing was said after the last result of a call.
    """

    content: bool = False
    zeros_s: float = 0.0
    heard: bool = False
    interrupted: bool = False
    pauses: bool = False
    completed: int | None = None
    cut: bool = False
    empty: bool = False
    owed: Owed = NOTHING_OWED
    ends_call: bool = False
    untold: bool = False


class Dialogue:
    """`history` is the memory of the session as (role, text), oldest first; `turn` its latest turn."""

    def __init__(self, limits: Limits, history: Sequence[tuple[str, str]], turn: int) -> None:
        self.turns = Turns(turn)
        self.transcript = Transcript()
        self.history: deque[tuple[str, str]] = deque(history, maxlen=limits.memory_messages)
        self.unsaved: deque[tuple[str, str]] = deque(maxlen=limits.memory_messages)
        """Messages that were finished after the newest resumption handle: the session it resumes lacks them."""
        self._item_bytes = limits.memory_message_bytes
        self._asked_at: float | None = None
        self._heard_at = 0.0
        self._typed = 0
        self._first_sound_ms: int | None = None
        self._generated = False
        self._answered = False
        self._called = False
        self._untold = False
        """Whether nothing was said since the model had the last result, whoever broke in."""
        self._silent = False
        """Whether the latest sound was digital silence."""
        self._sound_from = 0.0
        self.sound_chars = 0
        """Of base64, since the turn's first sound."""

    def asked(self, now: float) -> None:
        """The user has ended what is to be answered: the time to the first sound runs from here."""
        self._asked_at = now

    def typed(self, text: str, now: float) -> None:
        self._typed = self.turns.user_typed()
        self.transcript.user_typed(self._typed, text)
        self._asked_at = now

    def given(self, turns: Sequence[tuple[Role, str]]) -> list[Command]:
        """What a client says was said before: it is remembered, and nobody answers it."""
        commands: list[Command] = []
        for role, text in turns:
            commands.append(Remember(role, text, self.turns.number))
            item = (role, clip(text, self._item_bytes))
            self.history.append(item)
            self.unsaved.append(item)
        return commands

    def plain_speech(self, message: gemini.ServerMessage, content: gemini.ServerContent) -> str:
        """The base64 of sound in the middle of an answer, where nothing is to be decided; else an empty text.

        Digital silence is to be looked at, and so is whatever comes with the sound.
        """
        if self.turns.speaking is not Speaking.MODEL:
            return ""
        data = _only_audio(message, content)
        if _is_silence(data, few=self._silent):
            return ""
        self._silent, self._untold = False, self._untold and not data
        return data

    def content(
        self,
        message: gemini.ServerMessage,
        content: gemini.ServerContent,
        facts: LiveModel,
        *,
        waiting: bool,
        now: float,
    ) -> tuple[list[Command], Happened]:
        """`waiting`: a call of this turn is still open for which the model waits."""
        commands: list[Command] = []
        zeros_s = 0.0
        accumulated = facts.transcripts == "accumulated"
        spoke = heard = interrupted = False
        if content.interrupted:
            cut_short = self._interrupted(now)
            interrupted = bool(cut_short) and self._answered
            self._answered = self._answered and not cut_short
            commands += cut_short
        if self._outlived(content, now):
            commands += self.end_turn()
        if content.input_transcription is not None:
            heard = bool(content.input_transcription.text)
            commands += self._heard(content.input_transcription, now, accumulated=accumulated)
        if content.model_turn is not None and content.model_turn.parts and not self.turns.muted(now):
            told = self._model_turn(message, content.model_turn.parts, now)
            spoke, zeros_s = bool(told), zeros(content.model_turn.parts, few=self._silent)
            self._silent = bool(zeros_s)
            commands += told
            self._count_sound(content.model_turn.parts, now)
        if content.output_transcription is not None and not self.turns.muted(now):
            spoke = spoke or bool(content.output_transcription.text)
            commands += self._spoken(content.output_transcription, accumulated=accumulated)
        self._answered = self._answered or spoke
        if spoke and not zeros_s:
            self.turns.answered()
        if spoke:
            self._untold = False
            self._called = self._called and waiting
        ends_call = waiting or (facts.turn_after_call == "new" and self._called)
        if content.generation_complete and not ends_call:
            self._generated = True
        status = content.interaction_status or message.interaction_status
        pauses = content.turn_complete is True and status == IN_PROGRESS
        if pauses:
            self._generated = False
            self.transcript.model_pauses(self.turns.number)
        completed, cut, empty, owed = None, self.turns.cut, not self._answered, NOTHING_OWED
        if self._is_over(content, status, facts, waiting=waiting, ends_call=ends_call):
            completed = None if self.turns.stays_open else self.turns.number
            owed = self.owed() if empty else owed
            commands += self._turn_complete(message.usage_metadata)
            self._turn_is_new()
        untold = self._untold
        if content.turn_complete:
            self._called = self._untold = False
        happened = Happened(
            content=spoke,
            zeros_s=zeros_s if spoke else 0.0,
            heard=heard,
            interrupted=interrupted,
            pauses=pauses,
            completed=completed,
            cut=cut,
            empty=empty,
            owed=owed,
            ends_call=ends_call,
            untold=untold,
        )
        return commands, happened

    @property
    def heard_at(self) -> float:
        """When a listener has heard all of the sound that has come."""
        return self._sound_from + self.sound_chars * _CHARS_TO_SECONDS

    def end_turn(self) -> list[Command]:
        """The answer has come whole, and the model side does not say that it is over."""
        commands = self._turn_complete(None)
        self._turn_is_new()
        return commands

    def _turn_is_new(self) -> None:
        self._generated = self._answered = False
        self.sound_chars = 0

    def _count_sound(self, parts: Sequence[gemini.Part], now: float) -> None:
        chars = sum(len(part.inline_data.data or "") for part in parts if part.inline_data is not None)
        if chars and not self.sound_chars:
            self._sound_from = now
        self.sound_chars += chars

    def _outlived(self, content: gemini.ServerContent, now: float) -> bool:
        """Whether a new turn begins though the last one, which was answered, was never said to be over."""
        if not self.generated or content.turn_complete or content.interrupted:
            return False
        if content.input_transcription is not None and content.input_transcription.text:
            return now > self.heard_at + LATE_WORDS_S
        return self.turns.queued and (
            content.model_turn is not None or content.output_transcription is not None
        )

    @property
    def generated(self) -> bool:
        """Whether all of the answer has come, and only its end in time is waited for."""
        return self._generated and self._answered

    def asks_again(self) -> None:
        """A text of ours asks once more for the answer of this turn; what then comes stands apart."""
        self.turns.asked_again()
        self.transcript.model_pauses(self.turns.number)

    def call_begins(self, *, waits: bool) -> int:
        """The turn that a function call belongs to. `waits`: the model says nothing until it is answered."""
        if self.turns.speaking is Speaking.NOBODY:
            self.turns.model_spoke()
        self._answered = True
        self._called = waits
        return self.turns.number

    def call_answered(self) -> None:
        """The model has the result of a call, and is to say what came of it."""
        self._untold = True

    def owed(self) -> Owed:
        """What the open turn still needs of the model, and what was typed into it."""
        question, heard = self.transcript.so_far(self.turns.number)
        if self.turns.speaking is Speaking.USER:
            return Owed(question)
        typed, _ = self.transcript.so_far(self.turns.number + 1) if self.turns.queued else ("", "")
        if self.turns.speaking is not Speaking.MODEL or self.generated:
            return Owed(typed)
        if typed and heard:  # of an answer that somebody has broken into, nobody needs the rest
            return Owed(typed)
        return Owed("\n".join(filter(None, (question, typed))), heard)

    def broken_off(self) -> list[Command]:
        """The connection is gone in the middle of whatever was said; a question without an answer stays open."""
        turns = self.turns.broken_off()
        self._generated = self._answered = self._called = False
        commands: list[Command] = []
        for turn in turns:
            commands += self.finish(turn)
            commands.append(SendToClient(TurnComplete(turn)))
            commands.append(Record("turn", {"turn": turn, "brokenOff": True}))
        return commands

    def unheeded_s(self, now: float) -> float:
        """For how long speech, and nothing typed, has stood without any answer."""
        spoken = self.turns.speaking is Speaking.USER and self._typed != self.turns.number
        return now - self._heard_at if spoken and not self._answered else 0.0

    def passed_over(self) -> list[Command]:
        """The model took what was said for not being meant for it: the turn is over with the user's words."""
        return self._turn_complete(None)

    def ended(self) -> list[Command]:
        """The model side is gone for good: open turns are finished as far as they came."""
        self.turns.lost()
        self._asked_at = self._first_sound_ms = None
        self._generated = self._answered = self._called = False
        return self.finish(self.turns.number)

    def finish(self, turn: int) -> list[Command]:
        """The finals that the client has not had, and everything up to this turn into memory."""
        commands: list[Command] = []
        for done in self.transcript.close(turn):
            if done.untold:
                told = Transcribed(done.text, done.role == "user", True, done.turn)
                commands.append(SendToClient(told))
            commands.append(Remember(done.role, done.text, done.turn))
            item = (done.role, clip(done.text, self._item_bytes))
            self.history.append(item)
            self.unsaved.append(item)
        return commands

    def tool_line(self, turn: int, line: str) -> list[Command]:
        """A tool's line in its place between user and model, or at once when its turn is over."""
        return [] if self.transcript.tool(turn, line) else [Remember("tool", line, turn)]

    # --- one message

    def _is_over(
        self,
        content: gemini.ServerContent,
        status: str | None,
        facts: LiveModel,
        *,
        waiting: bool,
        ends_call: bool,
    ) -> bool:
        if facts.idle == "interaction_status" and status is not None:
            return status == IDLE and not waiting
        if not content.turn_complete or status == IN_PROGRESS:
            return False
        return not ends_call

    def _heard(self, heard: gemini.Transcription, now: float, *, accumulated: bool) -> list[Command]:
        commands: list[Command] = []
        turn = self.turns.user_spoke() if heard.text else self.turns.number
        if heard.text:
            self._heard_at = now
            if self.turns.speaking is Speaking.USER:
                self._asked_at = now
            if piece := self.transcript.user_piece(turn, heard.text, accumulated=accumulated):
                commands.append(SendToClient(Transcribed(piece, True, False, turn)))
        if heard.finished and (text := self.transcript.user_ended(turn)):
            commands.append(SendToClient(Transcribed(text, True, True, turn)))
        return commands

    def _model_turn(
        self, message: gemini.ServerMessage, parts: Sequence[gemini.Part], now: float
    ) -> list[Command]:
        commands: list[Command] = []
        sounds = any(part.inline_data is not None for part in parts)
        texts = [part.text for part in parts if part.text and not part.thought]
        if not sounds and not texts:
            return commands
        if self.turns.model_spoke() and self._asked_at is not None:
            self._first_sound_ms = round((now - self._asked_at) * 1000)
            self._asked_at = None
        if sounds:
            commands.append(SendToClient(ModelMessage(message)))
        for text in texts:
            self.transcript.model_said(self.turns.number, text)
            commands.append(SendToClient(Said(text, self.turns.number)))
        return commands

    def _spoken(self, spoken: gemini.Transcription, *, accumulated: bool) -> list[Command]:
        commands: list[Command] = []
        if spoken.text:
            self.turns.model_spoke()
            turn = self.turns.number
            if piece := self.transcript.model_piece(turn, spoken.text, accumulated=accumulated):
                commands.append(SendToClient(Transcribed(piece, False, False, turn)))
        if spoken.finished and (text := self.transcript.model_ended(self.turns.number)):
            commands.append(SendToClient(Transcribed(text, False, True, self.turns.number)))
        return commands

    def _interrupted(self, now: float) -> list[Command]:
        turn = self.turns.interrupted(now)
        if turn is None:
            return []
        self._generated = self._called = False
        self.sound_chars = 0
        return [SendToClient(Interrupted(turn)), *self.finish(turn), Record("barge_in", {"turn": turn})]

    def _turn_complete(self, usage: Mapping[str, Json] | None) -> list[Command]:
        turn = self.turns.completed()
        if turn is None:
            return []
        commands = self.finish(turn)
        commands.append(SendToClient(TurnComplete(turn, _counted(usage))))
        facts: dict[str, Json] = {"turn": turn}
        if self._first_sound_ms is not None:
            facts["firstSoundMs"] = self._first_sound_ms
            self._first_sound_ms = None
        commands.append(Record("turn", facts))
        return commands


def zeros(parts: Sequence[gemini.Part], *, few: bool = False) -> float:
    """Seconds of sound (24 kHz) when all of it is digital silence, else 0. `few`: so are a few samples of it."""
    seconds = 0.0
    for part in parts:
        data = part.inline_data.data if part.inline_data is not None else None
        if not data:
            continue
        if not _is_silence(data, few=few):
            return 0.0
        seconds += len(data) * _CHARS_TO_SECONDS
    return seconds


def _is_silence(data: str, *, few: bool) -> bool:
    """A few samples are no silence that anybody would hear, but for the last ones of a longer one (`few`)."""
    return (few or data.startswith(_ZEROS)) and not data.lstrip("A").rstrip("=")


def _counted(metadata: Mapping[str, Json] | None) -> Mapping[str, Json] | None:
    if metadata is None:
        return None
    spent = Usage()
    spent.add(metadata)
    return spent.as_json()


def _only_audio(message: gemini.ServerMessage, content: gemini.ServerContent) -> str:
    """The sound of a message with one inline part and no other field that is looked at, else an empty text."""
    turn = content.model_turn
    if turn is None or turn.parts is None or len(turn.parts) != 1:
        return ""
    inline = turn.parts[0].inline_data
    if inline is None or not inline.data:
        return ""
    alone = (
        content.output_transcription is None
        and content.input_transcription is None
        and not content.interrupted
        and not content.turn_complete
        and not content.generation_complete
        and content.interaction_status is None
        and message.interaction_status is None
        and message.usage_metadata is None
        and message.tool_call is None
        and message.tool_call_cancellation is None
        and message.voice_activity is None
        and message.go_away is None
        and message.session_resumption_update is None
    )
    return inline.data if alone else ""
