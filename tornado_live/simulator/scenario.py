"""Scripted conversations: a YAML file says what is heard, said and called, and what breaks (docs/simulator.md)."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import yaml

from . import values
from .age import Close, read_age
from .brain import Answer, FunctionCall, Prompt, Said, Turn, Utterance, VoiceBox, spoken
from .faults import Fault, Place, Planned, read_faults, read_planned
from .messages import Json
from .pcm import read_wav, tone
from .recording import Recording, RecordingError, load_recording
from .switches import Switches, read_switches
from .values import Mistake, names, nearest
from .voice import OUTPUT_RATE, SpeechEnded
from .yamltext import load_yaml

_Read = TypeVar("_Read")
_Otherwise = TypeVar("_Otherwise")
_SECONDS_PER_CHARACTER = 1 / 15
_SCRIPT = frozenset({"setup", "start", "turns", "end", "age", "faults", "switches", "recording"})
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w:-]*)((?:\.[\w-]+)*)\}")


class ScenarioError(Exception):
    """The file cannot be played; every line of the message is one mistake, with its place."""


@dataclass(frozen=True, slots=True)
class Say:
    """audio: "tone", "voice", "none" or PCM16 mono at 24 kHz; seconds: the length of a tone."""

    text: str
    audio: str | bytes = "tone"
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """background: the turn goes on at once, and what they answer takes a turn with `answered`."""

    calls: tuple[FunctionCall, ...]
    cancel_after: float | None = None
    background: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    message: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Drop:
    pass


@dataclass(frozen=True, slots=True)
class Hang:
    """The turn never goes on."""


@dataclass(frozen=True, slots=True)
class Spoil:
    """A fault begins here, or ends."""

    faults: tuple[Fault, ...]


Step: TypeAlias = Say | Calls | Wait | Send | Close | Drop | Hang | Spoil


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """What follows one prompt. heard: the words of speech; typed: words that typed text must hold.

    answered: the function whose answer takes this turn, instead of a prompt.
    """

    steps: tuple[Step, ...]
    heard: str | None = None
    typed: str | None = None
    answered: str | None = None
    repeat: bool = False

    def answers(self, prompt: Prompt) -> bool:
        if self.answered is not None:
            return False
        if prompt.spoken:
            return self.typed is None
        return self.heard is None and (self.typed is None or self.typed.lower() in prompt.text.lower())


@dataclass(frozen=True, slots=True)
class Opening:
    """How the setup is answered: after `delay` seconds (None: the profile's), not at all, or with a close."""

    delay: float | None = None
    hang: bool = False
    close: Close | None = None
    drop: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The connection ends by itself, some seconds after setupComplete; no close means a dropped one."""

    after: float
    close: Close | None


@dataclass(frozen=True, slots=True)
class Connection:
    opening: Opening = Opening()
    start: tuple[Step, ...] = ()
    turns: tuple[ScriptedTurn, ...] = ()
    end: End | None = None
    age: Mapping[str, object] = field(default_factory=dict)
    """Fields of an Age that differ from the model's."""
    faults: tuple[Planned, ...] = ()
    switches: Switches = field(default_factory=Switches)
    recording: Recording | None = None
    """Played in place of everything else that the model side does."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The n-th connection plays the n-th script, all further ones the last.

    single: there is one script for every connection, and a session that is resumed goes on in it.
    """

    connections: tuple[Connection, ...]
    single: bool = False

    def connection(self, number: int) -> Connection:
        """number counts from 0."""
        return self.connections[min(number, len(self.connections) - 1)]


class ScenarioBrain:
    """Plays one connection's script. spoil: what begins a fault on the connection that plays it."""

    def __init__(self, script: Connection, voices: VoiceBox) -> None:
        self.spoil: Callable[[Fault], None] = lambda fault: None
        self._script = script
        self._voices = voices
        self._left = list(script.turns)
        self._begun = False
        self._answers: dict[str, dict[str, Json]] = {}

    def declare(self, declarations: Sequence[dict[str, Json]]) -> None:
        """A script does not look at the declarations."""

    async def deliver(self, answers: Sequence[Answer], turn: Turn) -> None:
        self._keep(answers)
        names = {name for name, _ in answers}
        scripted = next((scripted for scripted in self._left if scripted.answered in names), None)
        if scripted is not None:
            await self._play_turn(scripted, turn)

    def note(self, answers: Sequence[Answer]) -> None:
        self._keep(answers)

    def remember(self, said: Sequence[Said]) -> None:
        """A script does not look back."""

    def instruct(self, instruction: str) -> None:
        """A script has its own instructions."""

    def snapshot(self) -> ScenarioBrain:
        same = copy.copy(self)
        same._left = list(self._left)
        same._answers = dict(self._answers)
        return same

    async def begin(self, turn: Turn) -> None:
        if not self._begun:  # a session that goes on in its script has begun before
            self._begun = True
            await self._play(self._script.start, turn)

    async def hear(self, speech: SpeechEnded) -> str | None:
        spoken_turn = self._next(Prompt("", spoken=True))
        return "" if spoken_turn is None else spoken_turn.heard or ""

    async def respond(self, prompt: Prompt, turn: Turn) -> None:
        scripted = self._next(prompt)
        if scripted is None:
            await self._play((Say("The scenario has no answer to this."),), turn)
            return
        await self._play_turn(scripted, turn)

    async def _play_turn(self, scripted: ScriptedTurn, turn: Turn) -> None:
        if not scripted.repeat:
            self._left.remove(scripted)
        await self._play(scripted.steps, turn)

    def _next(self, prompt: Prompt) -> ScriptedTurn | None:
        return next((scripted for scripted in self._left if scripted.answers(prompt)), None)

    async def _play(self, steps: Sequence[Step], turn: Turn) -> None:
        for step in steps:
            match step:
                case Say():
                    await turn.say(self._speech(step))
                case Calls(calls, _, background=True):
                    await turn.start(calls, spoken(self._voices, []))
                case Calls(calls, cancel_after):
                    self._keep(await turn.call(calls, cancel_after=cancel_after))
                case Wait(seconds):
                    await turn.wait(seconds)
                case Send(message):
                    turn.send(message)
                case Close(code, reason):
                    turn.close(code, reason)
                    await _forever()
                case Drop():
                    turn.drop()
                    await _forever()
                case Hang():
                    await _forever()
                case Spoil(faults):
                    for fault in faults:
                        self.spoil(fault)

    def _keep(self, answers: Sequence[Answer]) -> None:
        self._answers.update(answers)

    async def _speech(self, step: Say) -> AsyncIterator[Utterance]:
        text = _PLACEHOLDER.sub(self._filled, step.text)
        match step.audio:
            case "voice":
                async for utterance in spoken(self._voices, [text]):
                    yield utterance
            case "none":
                yield Utterance(text, b"")
            case bytes(pcm):
                yield Utterance(text, pcm)
            case _:
                seconds = len(text) * _SECONDS_PER_CHARACTER if step.seconds is None else step.seconds
                yield Utterance(text, tone(seconds))

    def _filled(self, placeholder: re.Match[str]) -> str:
        """`{get_weather.temperature}`: that field of the last answer of that function."""
        value: Json = dict(self._answers).get(placeholder[1])
        for part in filter(None, placeholder[2].split(".")):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        return f"({placeholder[0][1:-1]} is missing)" if value is None else str(value)


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def load_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises ScenarioError with every mistake found, each with its place."""
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: is not YAML: {error}") from error
    reader = _Reader(path.parent)
    scenario = reader.scenario(data)
    if reader.problems:
        raise ScenarioError("\n".join(f"{path}: {problem}" for problem in reader.problems))
    return scenario


@dataclass
class _Reader:
    """Turns YAML into a Scenario; collects mistakes and goes on, so that all are told at once."""

    directory: Path
    problems: list[str] = field(default_factory=list)

    def scenario(self, data: object) -> Scenario:
        top = self._mapping(data, "", _SCRIPT | {"connections"})
        if "connections" not in top:
            return Scenario((self._connection(top, ""),), single=True)
        for key in top.keys() - {"connections"}:
            self._wrong(key, 'belongs into an entry of "connections", when there is that key')
        connections = self._list(top["connections"], "connections")
        if not connections:
            self._wrong("connections", "must hold at least one connection")
        return Scenario(
            tuple(
                self._connection(self._mapping(each, f"connections[{at}]", _SCRIPT), f"connections[{at}].")
                for at, each in enumerate(connections)
            )
        )

    def _connection(self, data: Mapping[str, object], path: str) -> Connection:
        turns = self._list(data.get("turns", []), f"{path}turns")
        return Connection(
            opening=self._opening(data["setup"], f"{path}setup") if "setup" in data else Opening(),
            start=self._steps(data.get("start", []), f"{path}start"),
            turns=tuple(self._turn(each, f"{path}turns[{at}]") for at, each in enumerate(turns)),
            end=self._end(data["end"], f"{path}end") if "end" in data else None,
            age=self._read(read_age, data["age"], f"{path}age", {}) if "age" in data else {},
            faults=self._faults(data.get("faults", []), f"{path}faults"),
            switches=self._read(read_switches, data.get("switches", {}), f"{path}switches", Switches()),
            recording=self._recording(data["recording"], f"{path}recording") if "recording" in data else None,
        )

    def _faults(self, data: object, path: str) -> tuple[Planned, ...]:
        planned = (
            self._read(read_planned, each, f"{path}[{at}]", None)
            for at, each in enumerate(self._list(data, path))
        )
        return tuple(each for each in planned if each is not None)

    def _recording(self, data: object, path: str) -> Recording | None:
        name = self._text(data, path)
        try:
            return load_recording(self.directory / name)
        except RecordingError as error:
            self._wrong(path, f"cannot be played: {error}")
            return None

    def _spoil(self, data: object, path: str) -> Spoil:
        faults = self._read(read_faults, data, path, [])
        for fault in faults:
            if fault.definition.place is not Place.CONVERSATION:
                self._wrong(f"{path}.{fault.name}", "acts before a conversation: put it into faults")
        return Spoil(tuple(faults))

    def _opening(self, data: object, path: str) -> Opening:
        opening = self._mapping(data, path, {"delay", "hang", "close", "drop"})
        return Opening(
            delay=self._seconds(opening["delay"], f"{path}.delay") if "delay" in opening else None,
            hang=self._flag(opening, "hang", path),
            close=self._close(opening["close"], f"{path}.close") if "close" in opening else None,
            drop=self._flag(opening, "drop", path),
        )

    def _end(self, data: object, path: str) -> End:
        end = self._mapping(data, path, {"after", "close", "drop"})
        if ("close" in end) == ("drop" in end):
            self._wrong(path, 'needs either "close" or "drop"')
        self._flag(end, "drop", path)
        return End(
            after=self._seconds(end.get("after"), f"{path}.after"),
            close=self._close(end["close"], f"{path}.close") if "close" in end else None,
        )

    def _turn(self, data: object, path: str) -> ScriptedTurn:
        turn = self._mapping(data, path, {"heard", "typed", "answered", "do", "repeat"})
        if "heard" in turn and "typed" in turn:
            self._wrong(path, 'has "heard" (for speech) and "typed" (for text): make two turns of it')
        return ScriptedTurn(
            steps=self._steps(turn.get("do"), f"{path}.do"),
            heard=self._text(turn["heard"], f"{path}.heard") if "heard" in turn else None,
            typed=self._text(turn["typed"], f"{path}.typed") if "typed" in turn else None,
            answered=self._text(turn["answered"], f"{path}.answered") if "answered" in turn else None,
            repeat=self._flag(turn, "repeat", path),
        )

    def _steps(self, data: object, path: str) -> tuple[Step, ...]:
        steps = (self._step(each, f"{path}[{at}]") for at, each in enumerate(self._list(data, path)))
        return tuple(step for step in steps if step is not None)

    def _step(self, data: object, path: str) -> Step | None:
        kinds = {
            "say": {"say", "seconds", "wav", "audio"},
            "call": {"call", "cancel_after", "background"},
            "wait": {"wait"},
            "send": {"send"},
            "close": {"close"},
            "drop": {"drop"},
            "hang": {"hang"},
            "fault": {"fault"},
        }
        if not isinstance(data, dict):
            self._wrong(path, f"must be one of {names(kinds)} with its value, such as `- say: Hello.`")
            return None
        found = [kind for kind in kinds if kind in data]
        if len(found) != 1:
            problem = f"has {' and '.join(found)}: make two steps of it" if found else None
            unknown = next(iter(data), "")
            self._wrong(path, problem or f"must be one of {names(kinds)}{nearest(str(unknown), kinds)}")
            return None
        kind = found[0]
        step = self._mapping(data, path, kinds[kind])
        where = f"{path}.{kind}"
        match kind:
            case "say":
                return self._say(step, path)
            case "call":
                cancel = step.get("cancel_after")
                after = None if cancel is None else self._seconds(cancel, f"{path}.cancel_after")
                background = self._flag(step, "background", path)
                return Calls(self._calls(step["call"], where), after, background)
            case "wait":
                return Wait(self._seconds(step["wait"], where))
            case "send":
                return Send(cast("dict[str, Json]", dict(self._mapping(step["send"], where, None))))
            case "close":
                return self._close(step["close"], where)
            case "fault":
                return self._spoil(step["fault"], where)
        self._flag(step, kind, path)
        return Drop() if kind == "drop" else Hang()

    def _say(self, step: Mapping[str, object], path: str) -> Say:
        text = self._text(step["say"], f"{path}.say")
        seconds = self._seconds(step["seconds"], f"{path}.seconds") if "seconds" in step else None
        audio: str | bytes = "tone"
        if "wav" in step:
            audio = self._wav(self._text(step["wav"], f"{path}.wav"), f"{path}.wav")
        elif "audio" in step:
            audio = self._text(step["audio"], f"{path}.audio")
            if audio not in ("tone", "voice", "none"):
                self._wrong(f"{path}.audio", "must be tone, voice or none; a file is given as wav")
        return Say(text, audio, seconds)

    def _wav(self, name: str, path: str) -> bytes:
        try:
            return read_wav(self.directory / name, OUTPUT_RATE)
        except (OSError, ValueError) as error:
            self._wrong(path, f"cannot be used: {error}")
            return b""

    def _calls(self, data: object, path: str) -> tuple[FunctionCall, ...]:
        calls = data if isinstance(data, list) else [data]
        if not calls:
            self._wrong(path, "must hold at least one call")
        return tuple(self._call(each, f"{path}[{at}]") for at, each in enumerate(calls))

    def _call(self, data: object, path: str) -> FunctionCall:
        call = self._mapping(data, path, {"name", "args"})
        args = self._mapping(call.get("args", {}), f"{path}.args", None)
        return FunctionCall(self._text(call.get("name"), f"{path}.name"), cast("dict[str, Json]", dict(args)))

    def _close(self, data: object, path: str) -> Close:
        close = self._mapping(data, path, {"code", "reason"})
        return Close(
            self._read(values.close_code, close.get("code"), f"{path}.code", 1011),
            self._read(values.close_reason, close.get("reason", ""), f"{path}.reason", ""),
        )

    def _mapping(self, data: object, path: str, keys: Collection[str] | None) -> Mapping[str, object]:
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            self._wrong(path, f"must be a mapping{f' of {names(keys)}' if keys else ''}")
            return {}
        for key in data.keys() - (data.keys() if keys is None else keys):
            self._wrong(f"{path}.{key}" if path else key, f"is not known here{nearest(key, keys or ())}")
        return data

    def _list(self, data: object, path: str) -> list[object]:
        if isinstance(data, list):
            return data
        self._wrong(path, "must be a list" if data is not None else "is missing: it must be a list")
        return []

    def _text(self, data: object, path: str) -> str:
        return self._read(values.text, data, path, "")

    def _seconds(self, data: object, path: str) -> float:
        return self._read(values.seconds, data, path, 0.0)

    def _flag(self, data: Mapping[str, object], key: str, path: str) -> bool:
        return self._read(values.flag, data.get(key, False), f"{path}.{key}", False)

    def _read(
        self, read: Callable[[Any], _Read], data: object, path: str, otherwise: _Otherwise
    ) -> _Read | _Otherwise:
        try:
            return read(data)
        except Mistake as mistake:
            self._wrong(f"{path}.{mistake.where}" if mistake.where else path, mistake.problem)
            return otherwise

    def _wrong(self, path: str, problem: str) -> None:
        self.problems.append(f"{path or 'the file'} {problem}")
