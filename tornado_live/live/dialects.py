"""How clients of one kind speak: their bytes into FromClient, ToClient events into their bytes. Pure.

Errors say what to do in the dialect's own words: NativeDialect's are those of docs/protocol.md, GeminiDialect's
are the close codes of Google.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from tornado_live.errors import (
    BadMessage,
    InternalError,
    LiveError,
    SessionMismatch,
    SetupRejected,
    SlowConsumer,
    TooLarge,
    Unavailable,
    UpstreamTimeout,
)
from tornado_live.jsonvalue import Json
from tornado_live.live.commands import (
    Answered,
    Failure,
    Frame,
    FromClient,
    Gesture,
    Interrupted,
    ModelMessage,
    Open,
    Passed,
    Said,
    Shown,
    Speech,
    Status,
    ToClient,
    ToolCancelled,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Transcribed,
    TurnComplete,
    Typed,
    UsageTotals,
    Warned,
)
from tornado_live.tools.person import ClientResult, Consent
from tornado_live.wire import gemini, gemini_client, native

MAX_MESSAGE = 256 * 1024
MAX_GUEST_MESSAGE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """Answered by the dialect itself: a text frame back to the client."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """How a socket is closed: a last frame, where there is one, and the close frame's code and reason."""

    frame: bytes | None
    code: int
    reason: str


class Dialect(Protocol):
    """One client's language. `binary`: its JSON goes in binary frames."""

    @property
    def binary(self) -> bool: ...

    def agree(self, options: native.ConnectOptions) -> None:
        """The client's options hold from here on."""

    def decode(self, data: bytes, binary: bool) -> FromClient | Reply:
        """One frame. Raises LiveError; what follows it is the conversation's to say."""

    def forwarded(self, message: gemini.ServerMessage, raw: bytes) -> Iterable[tuple[bytes, bool, int]]:
        """A message of plain speech that is passed on, as `audio` gives it; `raw` is all of it as it came."""

    def audio(self, message: gemini.ServerMessage) -> Iterable[tuple[bytes, bool, int]]:
        """The speech in a message of the model side: a frame, whether it is binary, and its bytes of PCM, for
        each part. Raises ValueError for what is not base64."""

    def encode(self, event: ToClient, *, request_id: str = "") -> bytes | None:
        """The frame of any event but ModelMessage; None for what this client is not told."""

    def heartbeat(self) -> bytes | None:
        """A frame that says nothing, for a line on which nothing was sent for long; None where there is none."""

    def goodbye(self, error: LiveError | None, *, request_id: str = "") -> Goodbye:
        """`error` None: the server is going away."""


class NativeDialect:
    """The native protocol on one socket. It speaks JSON audio at 16 kHz until `agree` says otherwise."""

    binary = False

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._raw_audio = False
        self._rate = 16000

    def agree(self, options: native.ConnectOptions) -> None:
        self._raw_audio = options.audio == "binary"
        self._rate = options.input_rate

    def decode(self, data: bytes, binary: bool) -> FromClient | Reply:
        """One frame. Raises BadMessage, TooLarge or SessionMismatch; the conversation goes on."""
        if len(data) > MAX_MESSAGE:
            raise TooLarge(f"A message of {len(data)} bytes; at most {MAX_MESSAGE} are taken.")
        if binary:
            seconds = native.checked_pcm(len(data), self._rate)
            return Speech(gemini.audio(base64.b64encode(data).decode("ascii"), self._rate), seconds)
        message = native.decode(data)
        if message.session_id is not None and message.session_id != self._session_id:
            raise SessionMismatch("This connection belongs to another session; open one for each.")
        if type(message) is native.Audio:
            audio = message.data
            rate = native.input_rate(audio.mime_type)
            text, size = native.from_base64(audio.data, "audio")
            return Speech(gemini.audio(text, rate), native.checked_pcm(size, rate))
        return self._cold(message)

    def _cold(self, message: native.ClientMessage) -> FromClient | Reply:
        match message:
            case native.Connect(data=given):
                wanted = given or native.ConnectData()
                native.checked_rate(wanted.input_rate)
                return Open(wanted.options, wanted.token)
            case native.Text(data=data):
                return Typed(data.text)
            case native.Video(data=data):
                return Frame(gemini.video(native.checked_image(data), data.mime_type))
            case native.ActivityStart():
                return Gesture.ACTIVITY_START
            case native.ActivityEnd():
                return Gesture.ACTIVITY_END
            case native.AudioEnd():
                return Gesture.AUDIO_END
            case native.ToolResult(data=data):
                return Answered(data.id, ClientResult(data.response))
            case native.ToolConfirm(data=data):
                return Answered(data.id, Consent(data.ok))
            case native.Disconnect():
                return Gesture.DISCONNECT
            case native.Ping(data=echo):
                return Reply(native.encode("pong", echo, self._session_id))
            case native.Audio():
                raise AssertionError("audio was answered before")
            case _:
                assert_never(message)

    def forwarded(self, message: gemini.ServerMessage, raw: bytes) -> Iterable[tuple[bytes, bool, int]]:
        return self.audio(message)

    def audio(self, message: gemini.ServerMessage) -> Iterator[tuple[bytes, bool, int]]:
        content = message.server_content
        if content is None or content.model_turn is None:
            return
        for part in content.model_turn.parts or ():
            inline = part.inline_data
            if inline is None or not inline.data or not (inline.mime_type or "").startswith("audio/pcm"):
                continue
            if self._raw_audio:
                pcm = gemini.pcm(inline)
                yield pcm, True, len(pcm)
            else:
                frame = native.encode_audio(inline.data, inline.mime_type or "", self._session_id)
                yield frame, False, len(inline.data) * 3 // 4

    def encode(self, event: ToClient, *, request_id: str = "") -> bytes:
        """As a text frame. `request_id` names an error in the log."""
        kind, data = self._told(event, request_id)
        return native.encode(kind, data, self._session_id)

    def heartbeat(self) -> bytes:
        return native.encode("pong", None, self._session_id)

    def goodbye(self, error: LiveError | None, *, request_id: str = "") -> Goodbye:
        if error is None:
            return Goodbye(None, 1001, "the server is going away")
        told = not isinstance(error, SlowConsumer)  # which would not read it
        frame = self.encode(Failure(error), request_id=request_id) if told else None
        return Goodbye(frame, error.close_code or 1000, error.message)

    def _told(self, event: ToClient, request_id: str) -> tuple[str, dict[str, Json]]:
        match event:
            case Status(line=line, facts=facts):
                return "status", {"status": line.value, **(facts or {})}
            case Transcribed():
                return "transcription", {
                    "text": event.text,
                    "isUser": event.is_user,
                    "isFinal": event.final,
                    "turn": event.turn,
                }
            case Said(text=text, turn=turn):
                return "text", {"text": text, "turn": turn}
            case Interrupted(turn=turn):
                return "interrupted", {"turn": turn}
            case TurnComplete(turn=turn, usage=usage):
                return "turn_complete", {"turn": turn} if usage is None else {
                    "turn": turn,
                    "usage": dict(usage),
                }
            case ToolStarted():
                return "tool_call", _tool_call(event)
            case ToolProgress(id=call_id, text=text):
                return "tool_progress", {"id": call_id, "text": text}
            case ToolFinished():
                return "tool_result", _tool_result(event)
            case ToolCancelled(ids=ids):
                return "tool_cancelled", {"ids": list(ids)}
            case UsageTotals(totals=totals):
                return "usage", dict(totals)
            case Warned(code=code, message=message, count=count):
                told: dict[str, Json] = {"code": code, "message": message}
                if count is not None:
                    told["count"] = count
                return "warning", told
            case Failure(error=error):
                failure: dict[str, Json] = {
                    "code": error.code,
                    "message": error.message,
                    "retryable": error.retryable,
                    "requestId": request_id,
                }
                if error.retry_after_ms is not None:
                    failure["retryAfterMs"] = error.retry_after_ms
                return "error", failure
            case ModelMessage() | Shown():
                raise AssertionError("speech is for audio(), and no guest is here")
            case _:
                assert_never(event)


def _tool_call(event: ToolStarted) -> dict[str, Json]:
    told: dict[str, Json] = {"id": event.id, "name": event.name}
    if event.args is not None:
        told["args"] = dict(event.args)
    if event.asks is not None:
        told[event.asks] = True
    if event.same_as is not None:
        told["sameAs"] = event.same_as
    return told


def _tool_result(event: ToolFinished) -> dict[str, Json]:
    result = event.result
    told: dict[str, Json] = {
        "id": event.id,
        "name": event.name,
        "ok": result.ok,
        "durationMs": result.duration_ms,
    }
    if result.sample:
        told["sample"] = True
    if result.summary:
        told["summary"] = result.summary
    if result.error is not None:
        told["error"] = result.error.value
    if result.whole is not None:
        told["result"] = result.whole
    if event.same_as is not None:
        told["sameAs"] = event.same_as
    return told


_CODES: Final[Mapping[type[LiveError], int]] = {
    BadMessage: 1007,
    SetupRejected: 1007,
    TooLarge: 1009,
    InternalError: 1011,
    Unavailable: 1011,
    UpstreamTimeout: 1011,
}
"""Google's code for each failure, 1008 for all others. After 1011 clients come back with their newest handle,
after 1007 and 1008 they do not (measured with pipecat, LiveKit and ADK)."""

_CHUNKS_WITHIN = 64
"""Where in a message mediaChunks, or media_chunks, would be named: `{"realtime_input": {"media_chunks"`."""

_GOING_AWAY = "The service is currently unavailable."


def close_of(error: LiveError) -> tuple[int, str]:
    """Code and reason of a close in Google's way."""
    return _CODES.get(type(error), 1008), error.message


class GeminiDialect:
    """Google's own protocol on one socket: JSON in binary frames, and errors as closes."""

    binary = True
    media_chunks = True
    """Whether the guest's model takes mediaChunks; where not, they go up as audio and video."""

    def agree(self, options: native.ConnectOptions) -> None:
        raise AssertionError("a guest has no such options")

    def decode(self, data: bytes, binary: bool) -> FromClient | Reply:
        """Google's clients send text frames, and its service takes binary ones too."""
        if len(data) > MAX_GUEST_MESSAGE:
            raise TooLarge(f"A message of {len(data)} bytes; at most {MAX_GUEST_MESSAGE} are taken.")
        try:
            said = gemini_client.decode(data)
        except ValueError as error:
            raise BadMessage(str(error)) from error
        if not self.media_chunks and b"hunks" in data[:_CHUNKS_WITHIN]:
            data = gemini_client.without_chunks(data)
        if said.alone is not None:
            return Speech(data, said.alone)
        return Passed(data, said)

    def forwarded(self, message: gemini.ServerMessage, raw: bytes) -> Iterable[tuple[bytes, bool, int]]:
        size = 0
        content = message.server_content
        if content is not None and content.model_turn is not None:
            for part in content.model_turn.parts or ():
                if part.inline_data is not None and part.inline_data.data:
                    size += len(part.inline_data.data) * 3 // 4
        return ((raw, True, size),)

    def audio(self, message: gemini.ServerMessage) -> Iterable[tuple[bytes, bool, int]]:
        """None: it is in the message that is Shown."""
        return ()

    def encode(self, event: ToClient, *, request_id: str = "") -> bytes | None:
        return event.payload if type(event) is Shown else None

    def heartbeat(self) -> None:
        """Google's protocol has no such message."""

    def goodbye(self, error: LiveError | None, *, request_id: str = "") -> Goodbye:
        return Goodbye(None, *(close_of(error) if error is not None else (1011, _GOING_AWAY)))
