"""The native client protocol as types and bytes (docs/protocol.md). Pure.

A client message is one text frame of JSON, `{"type": …, "data": …, "sessionId": …}`, or one binary frame of
PCM16 little-endian mono audio. `decode` gives a ClientMessage or raises BadMessage with words for the person
who wrote the client; `encode` gives the bytes of a text frame.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import msgspec

from tornado_live.errors import BadMessage, nearest
from tornado_live.wire import strict

MAX_AUDIO_SECONDS = 1.0
MAX_MIME = 64
RATES = (8000, 48000)
USUAL_RATE = 16000
MOST_VALUES = 20_000
DEEPEST = 64
"""Levels of objects and lists. The answer to a tool_call goes up inside of more, and there a hundred are taken."""
OUTPUT_MIME = "audio/pcm;rate=24000"


class _Message(msgspec.Struct, tag_field="type", rename="camel", frozen=True, gc=False):
    session_id: str | None = None


class ConnectOptions(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    """What a client may ask for. None means: as the operator's assistant says."""

    assistant: str | None = None
    model: str | None = None
    voice: str | None = None
    language: str | None = None
    modality: Literal["AUDIO", "TEXT"] | None = None
    activity: Literal["auto", "manual"] = "auto"
    audio: Literal["json", "binary"] = "json"
    input_rate: int = 16000
    system_instruction: str | None = None


class ConnectData(ConnectOptions, frozen=True, forbid_unknown_fields=True):
    """`token` is the credential of a client that could show none with its handshake, or a newer one."""

    token: str | None = None

    @property
    def options(self) -> ConnectOptions:
        return ConnectOptions(**{name: getattr(self, name) for name in ConnectOptions.__struct_fields__})


class Connect(_Message, tag="connect", frozen=True):
    data: ConnectData | None = None


class AudioData(msgspec.Struct, rename="camel", frozen=True, gc=False):
    data: str
    mime_type: str | msgspec.UnsetType = msgspec.UNSET


class Audio(_Message, tag="audio", frozen=True, kw_only=True, gc=False):
    data: AudioData


class TextData(msgspec.Struct, frozen=True):
    text: str


class Text(_Message, tag="text", frozen=True, kw_only=True):
    data: TextData


class VideoData(msgspec.Struct, rename="camel", frozen=True):
    data: str
    mime_type: Literal["image/jpeg", "image/png"] = "image/jpeg"


class Video(_Message, tag="video", frozen=True, kw_only=True):
    data: VideoData


class ActivityStart(_Message, tag="activity_start", frozen=True):
    pass


class ActivityEnd(_Message, tag="activity_end", frozen=True):
    pass


class AudioEnd(_Message, tag="audio_end", frozen=True):
    pass


class Disconnect(_Message, tag="disconnect", frozen=True):
    pass


class Ping(_Message, tag="ping", frozen=True):
    data: Any = None


class ToolResultData(msgspec.Struct, frozen=True):
    id: str
    response: Any = None


class ToolResult(_Message, tag="tool_result", frozen=True, kw_only=True):
    data: ToolResultData


class ToolConfirmData(msgspec.Struct, frozen=True):
    id: str
    ok: bool


class ToolConfirm(_Message, tag="tool_confirm", frozen=True, kw_only=True):
    data: ToolConfirmData


ClientMessage: TypeAlias = (
    Audio
    | Connect
    | Text
    | Video
    | ActivityStart
    | ActivityEnd
    | AudioEnd
    | ToolResult
    | ToolConfirm
    | Disconnect
    | Ping
)
TYPES = (
    "connect",
    "audio",
    "text",
    "video",
    "activity_start",
    "activity_end",
    "audio_end",
    "tool_result",
    "tool_confirm",
    "disconnect",
    "ping",
)

CHOICES = {
    "mimeType": "image/jpeg or image/png",
    "modality": "AUDIO or TEXT",
    "activity": "auto or manual",
    "audio": "json or binary",
}

_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_loose = msgspec.json.Decoder()
_AUDIO_ALONE = len('{"type":"audio","data":{"data":""}}')
_WITH_MIME = len(',"mimeType":""')
_WITH_SESSION = len(',"sessionId":""')
_SPACES = len(',"data":""') - 1  # the shortest field that may come twice; Python's json writes as many spaces
_encoder = msgspec.json.Encoder()
_LONGEST_SAID = 160


def decode(data: bytes) -> ClientMessage:
    """One text frame. Raises BadMessage; what audio, images and rates hold is for the `checked_…` functions."""
    if len(data) > MOST_VALUES:
        _check(strict.weigh, data, MOST_VALUES)
    try:
        message = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise BadMessage(_explain(data, error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"This is not JSON ({error}). A text frame carries one JSON object.") from error
    if type(message) is Audio:
        # Read off the length, since this is the hot path: where there is room for the spaces alone, no field is
        # named a second time.
        room = len(data) - len(message.data.data) - _AUDIO_ALONE
        if message.data.mime_type is not msgspec.UNSET:
            room -= _WITH_MIME + len(message.data.mime_type)
        if message.session_id is not None:
            room -= _WITH_SESSION + len(message.session_id)
        if room <= _SPACES:
            return message
    _check(strict.check, data, DEEPEST)
    return message


def _check(what: Callable[[bytes, int], None], data: bytes, bound: int) -> None:
    try:
        what(data, bound)
    except (ValueError, RecursionError) as error:
        raise BadMessage(str(error)) from error


def _explain(data: bytes, error: msgspec.ValidationError) -> str:
    """msgspec's finding in words for the author of a client."""
    try:
        loose = _loose.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        return f"This JSON cannot be read ({broken})."
    if not isinstance(loose, dict):
        return 'A text frame carries one JSON object such as {"type": "ping"}.'
    kind = loose.get("type")
    if not isinstance(kind, str):
        return f'"type" must be one of {", ".join(TYPES)}.'
    if kind not in TYPES:
        return f'"{kind[:40]}" is not a message type; known are {", ".join(TYPES)}{nearest(kind, TYPES)}'
    options = loose.get("data")
    if kind == "connect" and isinstance(options, dict):
        known = [field.encode_name for field in msgspec.structs.fields(ConnectData)]
        unknown = [name for name in options if name not in known]
        if unknown:
            name = unknown[0]
            return f'"{name[:40]}" is not an option of connect; known are {", ".join(known)}{nearest(name, known)}'
    message = str(error).replace("`", '"')
    if len(message) > _LONGEST_SAID:  # it repeats the value that is wrong
        message = f"{message[: _LONGEST_SAID // 2]}…{message[-_LONGEST_SAID // 2 :]}"
    choices = next((taken for field, taken in CHOICES.items() if f'"$.data.{field}"' in message), None)
    return f"{kind}: {message}" + (f"; take {choices}." if choices else ".")


def input_rate(mime_type: str | msgspec.UnsetType) -> int:
    """Sample rate in Hz of `audio/pcm;rate=N`; none means 16000. Raises BadMessage."""
    if mime_type is msgspec.UNSET:
        return USUAL_RATE
    if len(mime_type) > MAX_MIME:
        raise BadMessage('mimeType is too long; send "audio/pcm;rate=16000".')
    return _input_rate(mime_type)


@lru_cache(maxsize=256)
def _input_rate(mime_type: str) -> int:
    kind, *parameters = (part.strip().lower() for part in mime_type.split(";"))
    if kind != "audio/pcm":
        raise BadMessage(f'mimeType "{mime_type[:60]}" is not known; send "audio/pcm;rate=16000".')
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "rate":
            return checked_rate(int(value)) if value.strip().isdecimal() else checked_rate(0)
    return USUAL_RATE


def checked_rate(rate: int) -> int:
    """`rate` in Hz if it is one that is taken. Raises BadMessage."""
    if not RATES[0] <= rate <= RATES[1]:
        raise BadMessage(f"The sample rate must be {RATES[0]} to {RATES[1]} Hz; 16000 is best.")
    return rate


def from_base64(text: str, what: str) -> tuple[str, int]:
    """`text` in the standard alphabet and its length in bytes; takes both alphabets. Raises BadMessage."""
    if "-" in text or "_" in text:
        text = text.translate(_URL_SAFE)
    if len(text) % 4:
        if text.endswith("="):
            raise BadMessage(f"{what}: data is not base64 (wrong padding).")
        text += "=" * (-len(text) % 4)
    try:
        size = len(binascii.a2b_base64(text, strict_mode=True))
    except (binascii.Error, ValueError) as error:
        raise BadMessage(f"{what}: data is not base64 ({error}).") from error
    return text, size


_URL_SAFE = str.maketrans("-_", "+/")


def checked_pcm(size: int, rate: int) -> float:
    """Seconds of `size` bytes PCM16 mono at `rate` Hz. Raises BadMessage for what is not whole samples."""
    if not size:
        raise BadMessage("audio: the message is empty; leave it out.")
    if size & 1:
        raise BadMessage("audio: an odd number of bytes; PCM16 has two bytes a sample.")
    seconds = size / (2 * rate)
    if seconds > MAX_AUDIO_SECONDS:
        raise BadMessage("audio: more than one second in one message; 20 to 40 ms are best.")
    return seconds


def checked_image(data: VideoData) -> str:
    """The image as standard base64. Raises BadMessage unless the bytes are of the named type."""
    text, size = from_base64(data.data, "video")
    if not size:
        raise BadMessage("video: the frame is empty; leave it out.")
    head = binascii.a2b_base64(text[:16])
    magic = b"\xff\xd8" if data.mime_type == "image/jpeg" else b"\x89PNG"
    if not head.startswith(magic):
        raise BadMessage(f"video: these bytes are not {data.mime_type}.")
    return text


class _AudioOut(msgspec.Struct, rename="camel", gc=False):
    audio: str
    mime_type: str


class _AudioFrame(msgspec.Struct, tag_field="type", tag="audio", rename="camel", gc=False):
    data: _AudioOut
    session_id: str


def encode_audio(data: str, mime_type: str, session_id: str) -> bytes:
    """Model speech as a text frame: `data` is base64 of PCM16 mono. A type without a rate means 24 kHz."""
    if mime_type == "audio/pcm":
        mime_type = OUTPUT_MIME
    if "-" in data or "_" in data:
        data = data.translate(_URL_SAFE)
    return _encoder.encode(_AudioFrame(_AudioOut(data, mime_type), session_id))


def encode(kind: str, data: object, session_id: str) -> bytes:
    """A text frame to the client; without `data` when it is None."""
    message: dict[str, object] = {"type": kind}
    if data is not None:
        message["data"] = data
    message["sessionId"] = session_id
    return _encoder.encode(message)
