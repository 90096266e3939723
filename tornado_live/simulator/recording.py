"""Recordings of the wire, played to a client: JSON Lines of what went up and down, and when."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from . import values
from .messages import Json, Message
from .pcm import tone
from .session import Pace, Wire
from .values import Mistake
from .voice import OUTPUT_RATE

_STREAMED = frozenset({"audio", "video"})
_CLOSED_WITHOUT_FRAME = 1006
_MOST_BYTES = 64 * 1024 * 1024


class RecordingError(Exception):
    """The file cannot be played; the message is one mistake, with its place."""


@dataclass(frozen=True, slots=True)
class Up:
    """Something the client sent: `setup`, `text`, `audio`, `toolResponse`, …"""

    at: float
    kind: str


@dataclass(frozen=True, slots=True)
class Down:
    at: float
    message: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Closed:
    at: float
    code: int
    reason: str
    by_server: bool


Entry = Up | Down | Closed


@dataclass(frozen=True, slots=True)
class Recording:
    """One connection. Sound and pictures are of the recorded size; sound is a quiet tone."""

    model: str
    entries: tuple[Entry, ...]


class Replay:
    """Plays a recording in place of a session.

    What was recorded as sent by the client is waited for: one message of that kind, or, where the client streams
    sound or pictures, any since the last. What was recorded as received follows at the recorded distance.
    """

    def __init__(self, recording: Recording, *, pace: Pace, wire: Wire) -> None:
        self.counts: Counter[str] = Counter()
        self._recording = recording
        self._pace = pace
        self._wire = wire
        self._unmatched: Counter[str] = Counter({"setup": 1})
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """After the client's setup."""
        self._task = asyncio.get_running_loop().create_task(self._play())

    def receive(self, name: str, message: Message) -> None:
        self.counts[name] += 1
        for kind in kinds(name, message):
            self._unmatched[kind] += 1
        self._came.set()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        began, recorded = loop.time(), 0.0
        streaming = ""
        for entry in self._recording.entries:
            match entry:
                case Up(at, kind):
                    if kind != streaming:  # a run of sound is one thing that the client does
                        await self._heard(kind)
                        began, recorded = loop.time(), at
                    streaming = kind if kind in _STREAMED else ""
                    continue
                case Down(at, message):
                    await asyncio.sleep(began + self._pace.seconds(at - recorded) - loop.time())
                    await self._wire.send(message)
                case Closed(at, code, reason, by_server=True):
                    await asyncio.sleep(began + self._pace.seconds(at - recorded) - loop.time())
                    if code == _CLOSED_WITHOUT_FRAME:
                        self._wire.drop()
                    else:
                        self._wire.close(code, reason)
                case Closed():
                    return  # the client is to close now

    async def _heard(self, kind: str) -> None:
        while not self._unmatched[kind]:
            self._came.clear()
            await self._came.wait()
        if kind in _STREAMED:
            self._unmatched[kind] = 0
        else:
            self._unmatched[kind] -= 1


def kinds(name: str, message: Mapping[str, object]) -> list[str]:
    """What a client message is, for comparing it with a recorded one; realtimeInput is told by its fields."""
    return sorted(message) if name == "realtimeInput" else [name]


def load_recording(path: Path) -> Recording:
    """Raises RecordingError with the line of the first mistake."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecordingError(f"{path}: cannot be read: {reason}") from error
    entries: list[Entry] = []
    model = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            raise RecordingError(f"{path}:{number}: is not JSON: {error}") from error
        try:
            if model is None:
                model = _header(data)
            else:
                entries += _entries(data, entries[-1].at if entries else 0.0)
        except ValueError as error:
            raise RecordingError(f"{path}:{number}: {error}") from error
    if model is None:
        raise RecordingError(f"{path}: is empty")
    return Recording(model, tuple(entries))


def _header(data: object) -> str:
    if not isinstance(data, dict) or data.get("recording") != 1:
        raise ValueError('the first line must be {"recording": 1, "model": …}')
    return str(data.get("model", ""))


def _entries(data: object, earliest: float) -> list[Entry]:
    if not isinstance(data, dict) or "t" not in data:
        raise ValueError("a line must be a mapping with the time t in seconds")
    at = _seconds(data["t"])
    if at < earliest:
        raise ValueError("t must not be less than that of the line before")
    match data:
        case {"up": dict(up)} if len(up) == 1:
            ((name, content),) = up.items()
            message = content if isinstance(content, dict) else {}
            return [Up(at, kind) for kind in kinds(_camel(name), {_camel(key): 0 for key in message})]
        case {"down": dict(down)}:
            return [Down(at, cast("dict[str, Json]", _filled(down, sound=True)))]
        case {"close": {"code": int(code), **close}}:
            by_server = close.get("by") == "server"
            if by_server and code != _CLOSED_WITHOUT_FRAME:
                values.close_code(code)
            return [Closed(at, code, values.close_reason(close.get("reason", "")), by_server)]
    raise ValueError("a line must have up (with one field), down, or close with a code")


def _seconds(value: object) -> float:
    try:
        return values.seconds(value)
    except Mistake as mistake:
        raise mistake.inside("t") from None


def _filled(value: Json, *, sound: bool) -> Json:
    """With base64 in place of `{"$bytes": N}`; `sound`: of what is not known to be something else."""
    if isinstance(value, list):
        return [_filled(each, sound=sound) for each in value]
    if not isinstance(value, dict):
        return value
    if "$bytes" in value:
        size = value["$bytes"]
        if not (isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MOST_BYTES):
            raise Mistake(f"must be a whole number, {_MOST_BYTES} at most", "$bytes")
        pcm = tone(size / 2 / OUTPUT_RATE)[:size] if sound else b""
        return base64.b64encode(pcm.ljust(size, b"\0")).decode()
    kind = value.get("mimeType")
    is_sound = kind.startswith("audio/") if isinstance(kind, str) else sound
    return {name: _filled(each, sound=is_sound) for name, each in value.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
