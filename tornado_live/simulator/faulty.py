"""Faults carried out between a conversation and its TCP stream, so that a session knows nothing of them.

FaultyWire spoils messages on their way out and in; FaultyStream spoils what becomes of their bytes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from tornado.iostream import IOStream

from .faults import EmptyTurns, Fault, Kind, Planned
from .messages import Json, Message, encode

_OPCODE = 0x0F
_PONG = 0x0A
_DATA = (0x01, 0x02)
_PIECES_A_SECOND = 20
_ENDS = frozenset({"close", "drop"})
_OF_THE_TURN = ("modelTurn", "outputTranscription", "generationComplete", "turnComplete", "interrupted")
_UNKNOWN: dict[str, Json] = {"kind": "SOMETHING_NEW", "values": [1, None, "x"], "more": {}}


class Line(Protocol):
    """What a conversation's messages go out through."""

    def send_frame(self, frame: str | bytes) -> Awaitable[None]: ...

    def close(self, code: int, reason: str) -> None: ...

    def drop(self) -> None: ...

    def reset_next(self, wanted: bool) -> None:
        """Whether half of the next frame is sent and the connection reset then."""

    def later(self, seconds: float, act: Callable[[], None]) -> object:
        """Simulated seconds; forgotten when the connection ends."""

    def hand_in(self, name: str, message: Message) -> None:
        """As if the client had sent it."""


class FaultyWire:
    """A session.Wire. `begin` faults by `apply`; what has begun and not ended is in `active`.

    planned: faults that come in the middle of a turn of the model.
    """

    def __init__(self, line: Line, planned: Sequence[Planned] = ()) -> None:
        self.active: dict[str, Any] = {}
        self.turns = 0
        self._line = line
        self._planned = list(planned)
        self._in_turn = False
        self._swallowing = False
        self._sound: Mapping[str, Json] | None = None
        self._open_calls: dict[str, str] = {}
        self._aliases: dict[str, list[str]] = {}
        self._held: deque[Mapping[str, Json]] | None = None

    # session.Wire

    def send(self, message: Mapping[str, Json]) -> Awaitable[None]:
        content = _inner(message, "serverContent")
        ending: list[Fault] = []
        if not self._in_turn and (
            "toolCall" in message or content.keys() & {"modelTurn", "outputTranscription"}
        ):
            ending = self._begin_turn()
        self._watch(message, content)
        sent = self._send(message, content)
        for fault in ending:
            self.apply(fault)
        return sent

    def close(self, code: int, reason: str) -> None:
        self._line.close(code, reason)

    def drop(self) -> None:
        self._line.drop()

    # Faults

    def apply(self, fault: Fault) -> None:
        value = fault.value
        if fault.definition.kind is not Kind.ONCE:
            if value is None:
                self.active.pop(fault.name, None)
            else:
                self.active[fault.name] = value
            if fault.name == "reset":
                self._line.reset_next(value is not None)
            return
        match fault.name:
            case "close":
                self._line.close(value.code, value.reason)
            case "drop":
                self._line.drop()
            case "bad_json":
                self._spoil(value, b'{\n  "serverContent": {\n    "modelTurn": {\n')
            case "bad_utf8":
                self._spoil(value, b'{\n  "serverContent": {},\n  "note": "\xff\xfe\xc3\x28"\n}\n')
            case "nan":
                self._spoil(
                    value,
                    b'{\n  "serverContent": {},\n  "usageMetadata": {\n    "promptTokenCount": NaN\n  }\n}\n',
                )
            case "unknown_message":
                self._spoil(value, encode({"somethingNew": _UNKNOWN}))
            case "giant":
                self._spoil(1, _giant(round(value * 1024 * 1024)))
            case "cancel_calls":
                self._cancel_calls()
            case _:
                raise AssertionError(fault.name)

    def receive(self, name: str, message: Message) -> Message | None:
        """What the session is to see of a client's message; None: nothing."""
        if name != "toolResponse":
            return message
        close = self.active.pop("close_after_tool_response", None)
        if close is not None:
            self._line.close(close.code, close.reason)
            return None
        if self._take("ignore_tool_response"):
            return None
        responses: list[Any] = []
        for response in cast("list[Message]", message.get("functionResponses", [])):
            identifiers = self._aliases.get(str(response.get("id")), [str(response.get("id"))])
            responses += [
                {**response, "id": identifier} if len(identifiers) > 1 else response
                for identifier in identifiers
            ]
            if response.get("willContinue") is not True:
                for identifier in identifiers:
                    self._open_calls.pop(identifier, None)
        return {**message, "functionResponses": responses}

    def status(self) -> dict[str, Json]:
        """The faults that are active now."""
        return {name: _plain(value) for name, value in self.active.items()}

    # Turns

    def _begin_turn(self) -> list[Fault]:
        """Begins the faults that are due; gives back those that end the connection, to come after the sound."""
        self._in_turn = True
        self._sound = None
        self.turns += 1
        due = [planned.fault for planned in self._planned if planned.turn == self.turns]
        for fault in due:
            if fault.name not in _ENDS:
                self.apply(fault)
        empty = cast("EmptyTurns | None", self.active.get("empty_turns"))
        if empty is not None:
            self._swallowing = True
            self._count_down(
                "empty_turns", EmptyTurns(empty.times - 1, empty.reason) if empty.times > 1 else None
            )
            reason: dict[str, Json] = {"turnCompleteReason": empty.reason} if empty.reason else {}
            self._write({"serverContent": {"turnComplete": True, **reason}})
        elif self._take("silent_turns"):
            self._swallowing = True
        return [fault for fault in due if fault.name in _ENDS]

    def _watch(self, message: Mapping[str, Json], content: Mapping[str, Json]) -> None:
        for each in _calls(message):
            self._open_calls[str(each.get("id"))] = str(each.get("name"))
        cancelled = _inner(message, "toolCallCancellation").get("ids")
        for identifier in cancelled if isinstance(cancelled, list) else []:
            self._open_calls.pop(str(identifier), None)
        if _is_sound(content):
            self._sound = message
        if content.get("turnComplete") is True:
            self._in_turn = False

    def _send(self, message: Mapping[str, Json], content: Mapping[str, Json]) -> Awaitable[None]:
        of_the_turn = any(name in content for name in _OF_THE_TURN) or "toolCall" in message
        if self._swallowing and (of_the_turn or "toolCallCancellation" in message):
            self._swallowing = self._in_turn
            return _done()
        ends = content.get("turnComplete") is True
        if ends and self._take("no_turn_complete"):
            rest: dict[str, Json] = {name: value for name, value in content.items() if name != "turnComplete"}
            message = {**message, "serverContent": rest}
        if self._held is not None:
            self._held.append(message)
            return _done()
        delay = self.active.get("late_turn_complete")
        if ends and delay is not None:
            self._held = deque([message])
            self._line.later(delay, self._release)
            return _done()
        sent = self._write(message)
        if content.get("interrupted") is True and self._sound is not None:
            for _ in range(self.active.get("late_content", 0)):
                sent = self._write(self._sound)
        return sent

    def _release(self) -> None:
        held, self._held = self._held or deque(), None
        for message in held:
            self._write(message)

    def _write(self, message: Mapping[str, Json]) -> Awaitable[None]:
        if "silent" in self.active:
            return _done()
        if "sessionResumptionUpdate" in message:
            if "no_handles" in self.active:
                return _done()
            if "not_resumable" in self.active:
                message = {**message, "sessionResumptionUpdate": {}}
        if "digital_silence" in self.active:
            message = _without_sound(message)
        if "unknown_enums" in self.active:
            message = _with_unknown_enums(message)
        if "unknown_fields" in self.active:
            message = _with_unknown_fields(message)
        if _calls(message) and "duplicate_calls" in self.active:
            if self.active["duplicate_calls"] == "same_id":
                message = self._with_one_id(message)
            else:
                self._frame(encode(message))
        return self._frame(encode(message))

    def _frame(self, data: bytes) -> Awaitable[None]:
        return self._line.send_frame(data.decode() if "text_frames" in self.active else data)

    def _spoil(self, times: int, frame: bytes) -> None:
        for _ in range(times):
            self._line.send_frame(frame)

    # Calls

    def _cancel_calls(self) -> None:
        """For the session they are answered with an error: its turn goes on, as a model's would."""
        if not self._open_calls:
            return
        calls = dict(self._open_calls)
        self._open_calls.clear()
        self._write({"toolCallCancellation": {"ids": list(calls)}})
        responses: list[Any] = [
            {"id": identifier, "name": name, "response": {"error": {"message": "The call was cancelled."}}}
            for identifier, name in calls.items()
        ]
        self._line.hand_in("toolResponse", {"functionResponses": responses})

    def _with_one_id(self, message: Mapping[str, Json]) -> Mapping[str, Json]:
        calls = _calls(message)
        identifiers = [str(call.get("id")) for call in calls]
        self._aliases[identifiers[0]] = identifiers
        return {**message, "toolCall": {"functionCalls": [{**call, "id": identifiers[0]} for call in calls]}}

    # Counts

    def _take(self, name: str) -> bool:
        """Whether this fault waits for its occasion, which is now."""
        left = self.active.get(name)
        if left is None:
            return False
        self._count_down(name, left - 1 or None)
        return True

    def _count_down(self, name: str, left: object) -> None:
        if left is None:
            del self.active[name]
        else:
            self.active[name] = left


class FaultyStream:
    """Stands between Tornado's WebSocket and its IOStream; what it does not know it leaves to that."""

    def __init__(self, stream: IOStream, speed: float) -> None:
        self._stream = stream
        self._speed = speed
        self.slow_pong: float | None = None
        self.reset_next = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._rate: float | None = None
        self._queue: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._pacing: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def half_open(self) -> bool:
        return not self._reading.is_set()

    @half_open.setter
    def half_open(self, lost: bool) -> None:
        if lost:
            self._reading.clear()
        else:
            self._reading.set()

    def slow_writes(self, rate: float | None) -> None:
        self._rate = None if rate is None else rate * self._speed

    async def read_bytes(self, count: int) -> bytes:
        data = await self._stream.read_bytes(count)
        await self._reading.wait()
        return data

    def write(self, frame: bytes) -> asyncio.Future[None]:
        if self.half_open:
            return _done()
        opcode = frame[0] & _OPCODE
        if opcode == _PONG and self.slow_pong is not None:
            self._loop.call_later(self.slow_pong / self._speed, self._write_if_open, frame)
            return _done()
        if opcode in _DATA and self.reset_next:
            self.reset_next = False
            return self._half_and_reset(frame)
        if (self._rate is not None or self._queue) and not self._stream.closed():
            return self._slowly(frame)
        return self._stream.write(frame)

    def stop(self) -> None:
        """Nothing more is written."""
        self._reading.set()
        if self._pacing is not None:
            self._pacing.cancel()
        for _, written in self._queue:
            if not written.done():
                written.set_result(None)
        self._queue.clear()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _write_if_open(self, frame: bytes) -> None:
        if not self._stream.closed():
            self._stream.write(frame)

    def _half_and_reset(self, frame: bytes) -> asyncio.Future[None]:
        def reset(_: object) -> None:
            if self._stream.closed():
                return
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._stream.close()

        half = self._stream.write(frame[: max(1, len(frame) // 2)])
        half.add_done_callback(reset)
        return half

    def _slowly(self, frame: bytes) -> asyncio.Future[None]:
        written: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((frame, written))
        if self._pacing is None or self._pacing.done():
            self._pacing = self._loop.create_task(self._pace())
        return written

    async def _pace(self) -> None:
        while self._queue:
            frame, written = self._queue[0]
            at = 0
            while at < len(frame) and not self._stream.closed():
                piece = len(frame) if self._rate is None else max(1, round(self._rate / _PIECES_A_SECOND))
                self._stream.write(frame[at : at + piece])
                at += piece
                await asyncio.sleep(0 if self._rate is None else piece / self._rate)
            self._queue.popleft()
            if not written.done():
                written.set_result(None)


def _done() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _is_sound(content: Mapping[str, Json]) -> bool:
    parts = _inner(content, "modelTurn").get("parts")
    return isinstance(parts, list) and any(isinstance(part, dict) and "inlineData" in part for part in parts)


def _giant(size: int) -> bytes:
    """A thought that fills the message up to this size."""

    def thought(text: str) -> bytes:
        return encode({"serverContent": {"modelTurn": {"parts": [{"text": text, "thought": True}]}}})

    return thought("." * max(0, size - len(thought(""))))


def _without_sound(message: Mapping[str, Json]) -> Mapping[str, Json]:
    content = _inner(message, "serverContent")
    turn = _inner(content, "modelTurn")
    parts = turn.get("parts")
    if not isinstance(parts, list):
        return message
    silent: dict[str, Json] = {**turn, "parts": [_silent_part(part) for part in parts]}
    return {**message, "serverContent": {**content, "modelTurn": silent}}


def _silent_part(part: Json) -> Json:
    blob = _inner(part if isinstance(part, dict) else {}, "inlineData")
    kind, data = blob.get("mimeType"), blob.get("data")
    if not (isinstance(kind, str) and kind.startswith("audio/") and isinstance(data, str)):
        return part
    zeros = base64.b64encode(bytes(len(base64.b64decode(data)))).decode()
    return {"inlineData": {"mimeType": kind, "data": zeros}}


def _with_unknown_fields(message: Mapping[str, Json]) -> Mapping[str, Json]:
    if not message:
        return message  # it would have nothing but unknown fields, which is another fault
    spoiled = {
        name: {**value, "somethingNew": _UNKNOWN} if isinstance(value, dict) else value
        for name, value in message.items()
    }
    return {**spoiled, "somethingElse": _UNKNOWN}


def _with_unknown_enums(message: Mapping[str, Json]) -> Mapping[str, Json]:
    content, activity = _inner(message, "serverContent"), _inner(message, "voiceActivity")
    if content.get("turnComplete") is True:
        return {**message, "serverContent": {**content, "turnCompleteReason": "SOMETHING_NEW"}}
    if activity:
        return {**message, "voiceActivity": {**activity, "type": "SOMETHING_NEW"}}
    return message


def _inner(message: Mapping[str, Json], name: str) -> dict[str, Json]:
    value = message.get(name)
    return value if isinstance(value, dict) else {}


def _calls(message: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Of a toolCall; a script can send what has another shape."""
    calls = _inner(message, "toolCall").get("functionCalls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _plain(value: Any) -> Json:
    """A fault's value for people to read."""
    return cast("Json", json.loads(json.dumps(value, default=repr)))
