"""What a client of Google's protocol says: a view of its messages, which go on as they are. Pure.

Google's parser takes every field in lowerCamel and in snake_case, null for a field that is not there, and one
value for a list of one; clients use all of it. A value of a wrong type is no error here: it counts as not there,
and the model side judges the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from tornado_live.wire import strict

DEEPEST = 100
"""Levels of objects and lists; inferred: the usual limit of protocol buffers."""

MOST_VALUES = 50_000
"""So many objects take some 40 ms to read, for which everybody else waits."""

USUAL_RATE = 16_000
_RATES = range(1_000, 192_001)
_LONGEST_MIME = 64
_FILLER = "."


class Answer(msgspec.Struct, frozen=True):
    """One entry of functionResponses; `raw` is all of it, as sent. `continues`: more answers follow."""

    id: str | None
    name: str | None
    response: Any
    raw: Mapping[str, Any]
    continues: bool = False


class Realtime(msgspec.Struct, frozen=True, gc=False):
    """Everything that one realtimeInput says.

    `text` is as sent: a blank one is no words (pipecat prods a model with a space). `sound_s` is told from the
    length of the base64 and the rate in its type, 16 kHz where there is none.
    """

    text: str | None = None
    activity_start: bool = False
    activity_end: bool = False
    audio_stream_end: bool = False
    sound_s: float = 0.0
    picture: bool = False


class Content(msgspec.Struct, frozen=True):
    """The words of one clientContent, turn by turn; `complete`: it is the model's turn now.

    Turns without words are left out: those of media or of function calls, blank ones, and a "." that is all that
    is said (LiveKit ends a turn with one). A "." beside other turns stays, since a conversation may hold it.
    """

    turns: tuple[tuple[Literal["user", "model"], str], ...]
    complete: bool


class ClientMessage(msgspec.Struct, frozen=True):
    """Exactly one of the fields is set for a message that is known, none for any other, which goes on as it is.

    `alone`: seconds of sound, set beside `realtime` where the message is nothing but sound of the microphone. The
    values are JSON objects; msgspec cannot name a recursive type.
    """

    setup: Mapping[str, Any] | None = None
    realtime: Realtime | None = None
    content: Content | None = None
    answers: tuple[Answer, ...] | None = None
    context_update: Mapping[str, Any] | None = None
    alone: float | None = None


class _Chunk(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: str
    camel_mime: str | None = msgspec.field(default=None, name="mimeType")
    snake_mime: str | None = msgspec.field(default=None, name="mime_type")


class _Media(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    audio: _Chunk | None = None
    video: _Chunk | None = None
    camel_chunks: list[_Chunk] | _Chunk | None = msgspec.field(default=None, name="mediaChunks")
    snake_chunks: list[_Chunk] | _Chunk | None = msgspec.field(default=None, name="media_chunks")


class _MediaMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    camel: _Media | None = msgspec.field(default=None, name="realtimeInput")
    snake: _Media | None = msgspec.field(default=None, name="realtime_input")


_media = msgspec.json.Decoder(_MediaMessage)
_loose = msgspec.json.Decoder()
_WRAPPING = 400
"""A message with more bytes than this around its base64 may hide something, and is read as a whole."""


def decode(data: bytes) -> ClientMessage:
    """One frame of a client.

    Raises ValueError for what is no JSON object, is too deep, holds too much, names a field twice (of which Google
    might read another one than we do), or has not exactly one field at the top.
    """
    if len(data) > MOST_VALUES:
        strict.weigh(data, MOST_VALUES)
    try:
        message = _media.decode(data)
    except msgspec.ValidationError:
        return _decode_any(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is not JSON ({error}).") from error
    media = message.camel or message.snake
    if media is None or (message.camel is not None and message.snake is not None):
        return _decode_any(data)
    match media:
        case _Media(audio=_Chunk() as chunk, video=None, camel_chunks=None, snake_chunks=None):
            pass
        case _Media(audio=None, video=None, camel_chunks=[chunk], snake_chunks=None):
            pass
        case _Media(audio=None, video=None, camel_chunks=None, snake_chunks=[chunk]):
            pass
        case _Media(audio=None, video=_Chunk() as chunk, camel_chunks=None, snake_chunks=None):
            pass
        case _:
            return _decode_any(data)
    mime_type = chunk.camel_mime or chunk.snake_mime or ""
    if len(data) - len(chunk.data) >= _WRAPPING:
        return _decode_any(data)
    if media.video is not None or (media.audio is None and _is_picture(mime_type)):
        return _PICTURE
    return _microphone(_symbols(chunk.data), mime_type)


def without_chunks(data: bytes) -> bytes:
    """A message whose only field is mediaChunks with one chunk, as models take it that refuse mediaChunks: with
    `audio` or `video` in its place. Any other message stays as it is."""
    try:
        message = _media.decode(data)
    except (ValueError, RecursionError):
        return data
    media = message.camel or message.snake
    if media is None or media.audio is not None or media.video is not None:
        return data
    chunks = media.camel_chunks or media.snake_chunks
    match chunks:
        case [_Chunk() as chunk] | (_Chunk() as chunk):
            mime_type = chunk.camel_mime or chunk.snake_mime or ""
            kind = "video" if _is_picture(mime_type) else "audio"
            blob = {"data": chunk.data, "mimeType": mime_type or f"audio/pcm;rate={USUAL_RATE}"}
            return msgspec.json.encode({"realtimeInput": {kind: blob}})
    return data


_PICTURE = ClientMessage(realtime=Realtime(picture=True))


@lru_cache(maxsize=512)
def _microphone(symbols: int, mime_type: str) -> ClientMessage:
    """Messages of sound come in few lengths."""
    seconds = _seconds(symbols, mime_type)
    return ClientMessage(realtime=Realtime(sound_s=seconds), alone=seconds)


def _symbols(text: str) -> int:
    """How many characters of `text` carry bits of its base64."""
    if "\n" in text:
        text = "".join(text.split())
    return len(text.rstrip("="))


def _seconds(symbols: int, mime_type: str) -> float:
    return symbols * 3 // 4 / (2 * _rate(mime_type))


def _rate(mime_type: str) -> int:
    """`audio/pcm;rate=24000`; a rate that no microphone has is none."""
    for parameter in mime_type[:_LONGEST_MIME].split(";")[1:]:
        name, _, value = parameter.partition("=")
        rate = value.strip().strip('"')
        if name.strip().lower() == "rate" and rate.isascii() and rate.isdigit() and int(rate) in _RATES:
            return int(rate)
    return USUAL_RATE


def _decode_any(data: bytes) -> ClientMessage:
    """As `decode`, for everything that is not plain sound."""
    try:
        read = _loose.decode(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is not JSON ({error}).") from error
    if not isinstance(read, dict):
        raise ValueError("A message is one JSON object.")
    strict.check(data, DEEPEST)
    fields = [(name, value) for name, value in read.items() if value is not None]
    if len(fields) != 1:
        names = ", ".join(name[:40] for name, _ in fields[:5]) or "none"
        raise ValueError(
            f"A message has exactly one field at the top, such as realtimeInput; this one: {names}."
        )
    name, value = fields[0]
    match name:
        case "setup" if isinstance(value, dict):
            return ClientMessage(setup=value)
        case "realtimeInput" | "realtime_input" if isinstance(value, dict):
            return _realtime(value)
        case "clientContent" | "client_content" if isinstance(value, dict):
            return ClientMessage(content=_content(value))
        case "toolResponse" | "tool_response" if isinstance(value, dict):
            answers = _several(value, "functionResponses", "function_responses")
            return ClientMessage(answers=tuple(map(_answer, answers)))
        case "contextUpdate" | "context_update" if isinstance(value, dict):
            return ClientMessage(context_update=value)
        case _:
            return ClientMessage()


def _one(message: Mapping[str, Any], camel: str, snake: str) -> Any:
    value = message.get(camel)
    return message.get(snake) if value is None else value


def _several(message: Mapping[str, Any], camel: str, snake: str) -> list[dict[str, Any]]:
    """The objects of a list, of both spellings."""
    found: list[dict[str, Any]] = []
    for value in (message.get(name) for name in dict.fromkeys((camel, snake))):
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _realtime(value: Mapping[str, Any]) -> ClientMessage:
    chunks = _several(value, "mediaChunks", "media_chunks")
    sounds = [chunk for chunk in chunks if not _is_picture(_mime_type(chunk))]
    picture = value.get("video") is not None or len(sounds) < len(chunks)
    sounds += _several(value, "audio", "audio")
    said = Realtime(
        text=_text(value.get("text")),
        activity_start=_one(value, "activityStart", "activity_start") is not None,
        activity_end=_one(value, "activityEnd", "activity_end") is not None,
        audio_stream_end=_one(value, "audioStreamEnd", "audio_stream_end") is True,
        sound_s=sum(
            _seconds(_symbols(_text(chunk.get("data")) or ""), _mime_type(chunk)) for chunk in sounds
        ),
        picture=picture,
    )
    alone = bool(sounds) and said == Realtime(sound_s=said.sound_s) and value.keys() <= _SOUND_FIELDS
    return ClientMessage(realtime=said, alone=said.sound_s if alone else None)


_SOUND_FIELDS = {"audio", "mediaChunks", "media_chunks"}


def _mime_type(chunk: Mapping[str, Any]) -> str:
    return _text(_one(chunk, "mimeType", "mime_type")) or ""


def _is_picture(mime_type: str) -> bool:
    return mime_type.strip().lower().startswith(("image/", "video/"))


def _content(value: Mapping[str, Any]) -> Content:
    turns = [(_role(turn), _words(turn)) for turn in _several(value, "turns", "turns")]
    said = tuple((role, text) for role, text in turns if text)
    if all(text == _FILLER for _, text in said):
        said = ()
    return Content(said, _one(value, "turnComplete", "turn_complete") is True)


def _role(turn: Mapping[str, Any]) -> Literal["user", "model"]:
    return "model" if turn.get("role") == "model" else "user"


def _words(turn: Mapping[str, Any]) -> str:
    """The text parts, with a space between them; what was only thought is not said."""
    parts = _several(turn, "parts", "parts")
    return " ".join(
        _text(part.get("text")) or "" for part in parts if part.get("thought") is not True
    ).strip()


def _answer(entry: dict[str, Any]) -> Answer:
    more = _one(entry, "willContinue", "will_continue") is True
    return Answer(_text(entry.get("id")), _text(entry.get("name")), entry.get("response"), entry, more)
