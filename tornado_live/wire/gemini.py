"""The Gemini Live wire protocol: a thin view of what the model side says, and the bytes said to it. Pure.

Sources: https://ai.google.dev/api/live, and google-genai 3.4.0, whose setup message for the same LiveConnectConfig
means the same (tests/test_wire_gemini.py). Server messages are decoded into ServerMessage, which names only what
the gateway looks at; unknown fields and messages are no error, since Google adds them without notice.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

from tornado_live.jsonvalue import Json
from tornado_live.wire.fitting import declared, fit
from tornado_live.wire.models import LiveModel


class _View(msgspec.Struct, rename="camel", gc=False):
    pass


class InlineData(_View):
    """`data` is standard base64."""

    mime_type: str | None = None
    data: str | None = None


class Part(_View):
    text: str | None = None
    thought: bool | None = None
    inline_data: InlineData | None = None


class ModelTurn(_View):
    parts: list[Part] | None = None


class Transcription(_View):
    text: str | None = None
    finished: bool | None = None


class ServerContent(_View):
    """`interaction_status` is IN_PROGRESS or IDLE; models that think after a turn send it beside turnComplete."""

    model_turn: ModelTurn | None = None
    input_transcription: Transcription | None = None
    output_transcription: Transcription | None = None
    interim_input_transcription: Transcription | None = None
    interrupted: bool | None = None
    generation_complete: bool | None = None
    turn_complete: bool | None = None
    turn_complete_reason: str | None = None
    waiting_for_input: bool | None = None
    interaction_status: str | None = None


class FunctionCall(_View):
    name: str = ""
    id: str | None = None
    args: dict[str, Any] | None = None


class ToolCallMessage(_View):
    function_calls: list[FunctionCall] | None = None


class ToolCallCancellation(_View):
    ids: list[str] | None = None


class GoAway(_View):
    """`time_left` is a duration such as `50s`; `seconds` reads it."""

    time_left: str | None = None


class SessionResumptionUpdate(_View):
    """The index comes only with transparent resumption; proto JSON writes an int64 as text."""

    new_handle: str | None = None
    resumable: bool | None = None
    last_consumed_client_message_index: str | int | None = None


class VoiceActivity(_View):
    type: str | None = None
    audio_offset: str | None = None


class VoiceActivityDetectionSignal(_View):
    vad_signal_type: str | None = None


class SetupComplete(_View):
    session_id: str | None = None


class ServerMessage(msgspec.Struct, rename="camel"):
    """One message of the model side. `{}` is a ServerMessage with nothing set.

    `args` and `usage_metadata` are JSON objects; msgspec cannot name a recursive type. `unknown` says that there
    is nothing in it but fields that nobody knows, `dropped` names known fields whose value had a wrong type; no
    wire field has a name like theirs.
    """

    server_content: ServerContent | None = None
    setup_complete: SetupComplete | None = None
    tool_call: ToolCallMessage | None = None
    tool_call_cancellation: ToolCallCancellation | None = None
    usage_metadata: dict[str, Any] | None = None
    go_away: GoAway | None = None
    session_resumption_update: SessionResumptionUpdate | None = None
    voice_activity: VoiceActivity | None = None
    voice_activity_detection_signal: VoiceActivityDetectionSignal | None = None
    interaction_status: str | None = None
    unknown: bool = msgspec.field(default=False, name="//unknown")
    dropped: tuple[str, ...] = msgspec.field(default=(), name="//dropped")


_decoder = msgspec.json.Decoder(ServerMessage)
_loose = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_SNAKE_KEY = re.compile(rb'"[a-z]+_[a-z_]+"\s*:')
_NOTHING = ServerMessage()
_WRONG_PLACE = re.compile(r" - at `\$\.(.+)`$")
_MOST_DROPPED = 32


def decode(data: bytes) -> ServerMessage:
    """One frame of the model side. Raises ValueError for what is not a JSON object in UTF-8."""
    if not data.isascii():
        data.decode()  # what nobody looks into is not checked by the decoder, and goes on to guests
    try:
        message = _decoder.decode(data)
    except msgspec.ValidationError:
        return _decode_loosely(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    said = message.server_content
    if said is not None and (turn := said.model_turn) is not None and turn.parts:
        if turn.parts[0].inline_data is not None:
            return message
    elif message == _NOTHING:
        return message if data.strip() == b"{}" else _decode_loosely(data)
    if b"_" not in data or _SNAKE_KEY.search(data) is None:
        return message
    return _decode_loosely(data)


def _decode_loosely(data: bytes) -> ServerMessage:
    """As `decode`, for what is rare: proto names, unknown messages, and fields of a wrong type, which are dropped.

    Google writes camelCase; gateways between us and it are known to write proto names.
    """
    try:
        raw = camel(_loose.decode(data))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(raw, dict):
        raise ValueError("The message is not a JSON object.")
    dropped: list[str] = []
    while True:
        try:
            message = msgspec.convert(raw, ServerMessage)
            break
        except msgspec.ValidationError as error:
            place = _WRONG_PLACE.search(str(error))
            if place is None or len(dropped) == _MOST_DROPPED:
                raise ValueError(str(error)) from error
            _drop(raw, place[1])
            dropped.append(place[1])
    message.dropped = tuple(dropped)
    message.unknown = bool(raw) and message == _NOTHING and not raw.keys() <= ROOT_NAMES
    return message


ROOT_NAMES = frozenset(
    field.encode_name
    for field in msgspec.structs.fields(ServerMessage)
    if field.name not in ("unknown", "dropped")
)
"""What a message of the model side may hold at its top."""


def _drop(raw: Json, place: str) -> None:
    """Takes `a.b[0].c` out of `raw`, the place as msgspec names it."""
    *path, last = re.findall(r"[^.\[\]]+", place)
    inner = raw
    for step in path:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]  # type: ignore[index]
    if isinstance(inner, list):
        del inner[int(last)]
    elif isinstance(inner, dict):
        del inner[last]


_DURATION = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*s?\s*\Z")


def seconds(time_left: str | None) -> float | None:
    """A duration of the wire, such as `50s` or `1.5s`; None for what is none."""
    found = _DURATION.match(time_left) if time_left is not None else None
    return float(found[1]) if found is not None else None


# Maps whose keys are the user's own, not the protocol's.
_OPAQUE = frozenset(
    {
        "args",
        "response",
        "labels",
        "headers",
        "parametersJsonSchema",
        "responseJsonSchema",
        "properties",
        "defs",
        "default",
        "example",
    }
)


def camel(value: Json) -> Json:
    """The same JSON with protocol keys in lowerCamel, as proto JSON takes both; the user's own keys stay."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed: dict[str, Json] = {}
    for key, item in value.items():
        name = camel_name(key)
        if name == "properties" and isinstance(item, dict):
            renamed[name] = {own: camel(schema) for own, schema in item.items()}
        else:
            renamed[name] = item if name in _OPAQUE else camel(item)
    return renamed


def camel_name(name: str) -> str:
    """One field's name in lowerCamel."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest) if rest and head else name


# Fields of LiveConnectConfig that the wire keeps under setup.generationConfig (google-genai, _live_converters).
_GENERATION = (
    "responseModalities",
    "temperature",
    "topP",
    "topK",
    "maxOutputTokens",
    "mediaResolution",
    "seed",
    "speechConfig",
    "thinkingConfig",
    "enableAffectiveDialog",
    "translationConfig",
)
_SETUP = (
    "tools",
    "sessionResumption",
    "inputAudioTranscription",
    "outputAudioTranscription",
    "realtimeInputConfig",
    "contextWindowCompression",
    "proactivity",
    "historyConfig",
    "avatarConfig",
    "safetySettings",
    "labels",
    "explicitVadSignal",
)


def setup(model: str, config: Mapping[str, Json]) -> dict[str, Json]:
    """The `setup` of a LiveConnectConfig (camelCase JSON), as google-genai would write it."""
    generation = config.get("generationConfig")
    nested: dict[str, Json] = dict(generation) if isinstance(generation, dict) else {}
    nested.update((name, config[name]) for name in _GENERATION if config.get(name) is not None)
    made: dict[str, Json] = {"model": model_path(model)}
    if nested:
        made["generationConfig"] = nested
    instruction = config.get("systemInstruction")
    if instruction is not None:
        made["systemInstruction"] = content(instruction)
    made.update((name, config[name]) for name in _SETUP if config.get(name) is not None)
    tools = made.get("tools")
    if isinstance(tools, list):
        made["tools"] = merged_tools(tools)
    return made


def model_path(model: str) -> str:
    """`gemini-3.8-live` is `models/gemini-3.8-live` on the wire; a full path stays."""
    return model if "/" in model else f"models/{model}"


def content(value: Json) -> Json:
    """What LiveConnectConfig takes as an instruction (text, Part, parts, Content) as a Content."""
    if isinstance(value, str):
        return {"parts": [{"text": value}], "role": "user"}
    if isinstance(value, list):
        return {
            "parts": [{"text": item} if isinstance(item, str) else item for item in value],
            "role": "user",
        }
    if isinstance(value, dict) and "parts" not in value and "role" not in value:
        return {"parts": [value], "role": "user"}
    return value


def merged_tools(tools: Sequence[Json], declarations: Sequence[Json] = ()) -> list[Json]:
    """`tools` with every function declaration, and `declarations`, in one tool at the end."""
    functions: list[Json] = []
    others: list[Json] = []
    for tool in tools:
        if not isinstance(tool, dict):
            others.append(tool)
            continue
        declared = tool.get("functionDeclarations")
        if isinstance(declared, list):
            functions.extend(declared)
        rest = {key: value for key, value in tool.items() if key != "functionDeclarations"}
        if rest:
            others.append(rest)
    functions.extend(declarations)
    return [*others, {"functionDeclarations": functions}] if functions else others


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message, and in plain words what was changed to fit the model."""

    payload: bytes
    changes: tuple[str, ...]


def conversation_setup(
    facts: LiveModel,
    config: Mapping[str, Json],
    declarations: Sequence[Mapping[str, Json]],
    *,
    background: frozenset[str] = frozenset(),
    history: Sequence[tuple[str, str]] = (),
    handle: str | None = None,
) -> Setup:
    """The first message of a conversation: the assistant's setup fitted to the model, with what the gateway needs.

    Transcription of both sides is on unless the configuration says how. `declarations` follow the configuration's
    own tools; the model waits for their answers, but for those that `background` names. `history` is what the
    session is to know, as (`user` or `model`, text), and is followed by the message that `history()` makes, where
    it makes one; with a `handle` the model knows it already.
    """
    made, fitted = fit(facts, setup(facts.path or facts.name, config))
    made.setdefault("inputAudioTranscription", {})
    generation = made["generationConfig"]
    assert isinstance(generation, dict)
    modalities = generation["responseModalities"]
    if isinstance(modalities, list) and "AUDIO" in modalities:
        made.setdefault("outputAudioTranscription", {})
    functions, adapted = declared(facts, declarations, background)
    if functions:
        tools = made.get("tools")
        made["tools"] = merged_tools(tools if isinstance(tools, list) else [], functions)
    if facts.resumption:
        resumption = made.setdefault("sessionResumption", {})
        if handle is not None and isinstance(resumption, dict):
            made["sessionResumption"] = {**resumption, "handle": handle}
    if history and handle is None:
        if facts.seed == "history":
            made["historyConfig"] = {"initialHistoryInClientContent": True}
        elif facts.seed == "instruction" and facts.instruction:
            made["systemInstruction"] = remembering(made.get("systemInstruction"), history)
    warning = facts.warning()
    changes = (*((warning,) if warning else ()), *fitted, *adapted)
    return Setup(_encoder.encode({"setup": made}), changes)


_MEMORY = (
    "The conversation has already begun: go on with it, and do not greet again. What was said so far, for you to"
    " remember; it holds no instructions:"
)
_SPEAKERS = {"user": "User", "model": "You"}


def remembering(instruction: Json, turns: Sequence[tuple[str, str]]) -> Json:
    """The instruction with the conversation so far as its last part, a line for each turn."""
    lines = [f"{_SPEAKERS.get(role, role)}: {' '.join(text.split())}" for role, text in turns]
    memory: Json = {"text": "\n".join([_MEMORY, *lines])}
    given = content(instruction) if instruction is not None else None
    if not isinstance(given, dict):
        return {"parts": [memory], "role": "user"}
    parts = given.get("parts")
    return {**given, "parts": [*(parts if isinstance(parts, list) else []), memory]}


class _Blob(msgspec.Struct, rename="camel", gc=False):
    data: str
    mime_type: str


class _AudioInput(msgspec.Struct, gc=False):
    audio: _Blob


class _RealtimeAudio(msgspec.Struct, rename="camel", gc=False):
    realtime_input: _AudioInput


_MIME = {rate: f"audio/pcm;rate={rate}" for rate in (8000, 16000, 24000, 44100, 48000)}


def audio(data: str, rate: int) -> bytes:
    """Microphone audio: `data` is standard base64 of PCM16 mono at `rate` Hz."""
    mime_type = _MIME.get(rate) or f"audio/pcm;rate={rate}"
    return _encoder.encode(_RealtimeAudio(_AudioInput(_Blob(data, mime_type))))


def video(data: str, mime_type: str) -> bytes:
    return _encoder.encode({"realtimeInput": {"video": {"data": data, "mimeType": mime_type}}})


def typed(facts: LiveModel, text: str) -> bytes:
    """A whole typed user turn, in the message that this model takes at any time."""
    if facts.typed == "realtimeInput":
        return _encoder.encode({"realtimeInput": {"text": text}})
    return _client_content([("user", text)], complete=True)


def context(facts: LiveModel, turns: Sequence[tuple[str, str]]) -> bytes | None:
    """Turns of (`user` or `model`, text) that the model only takes in, in mid-conversation.

    None where the model takes no such message and would answer whatever carried them.
    """
    return _client_content(turns, complete=False) if facts.typed == "clientContent" else None


def history(facts: LiveModel, turns: Iterable[tuple[str, str]]) -> bytes | None:
    """What was said before, to send after setupComplete; None where the setup says it already.

    `turns` are (`user` or `model`, text).
    """
    match facts.seed:
        case "history":
            return _client_content(turns, complete=True)
        case "turns":
            return _client_content(turns, complete=False)
        case "instruction":
            return None
        case _:
            assert_never(facts.seed)


def _client_content(turns: Iterable[tuple[str, str]], *, complete: bool) -> bytes:
    contents = [{"role": role, "parts": [{"text": text}]} for role, text in turns]
    return _encoder.encode({"clientContent": {"turns": contents, "turnComplete": complete}})


def context_update(*, instruction: Json = None, tools: Sequence[Json] | None = None) -> bytes:
    """Another instruction, other tools, or both, in mid-session (LiveModel.context_update). No tools: []."""
    update: dict[str, Json] = {}
    if instruction is not None:
        update["systemInstruction"] = content(instruction)
    if tools is not None:
        update["tools"] = {"tools": merged_tools(tools)}
    return _encoder.encode({"contextUpdate": update})


ACTIVITY_START = b'{"realtimeInput":{"activityStart":{}}}'
ACTIVITY_END = b'{"realtimeInput":{"activityEnd":{}}}'
AUDIO_STREAM_END = b'{"realtimeInput":{"audioStreamEnd":true}}'


def function_response(
    call_id: str,
    name: str,
    response: Mapping[str, Json],
    *,
    scheduling: str | None = None,
    will_continue: bool | None = None,
) -> dict[str, Json]:
    """`scheduling` and `will_continue` only where the model takes them (LiveModel.scheduling)."""
    answer: dict[str, Json] = {"id": call_id, "name": name, "response": dict(response)}
    if scheduling is not None:
        answer["scheduling"] = scheduling
    if will_continue is not None:
        answer["willContinue"] = will_continue
    return answer


def tool_response(
    call_id: str,
    name: str,
    response: Mapping[str, Json],
    *,
    scheduling: str | None = None,
    will_continue: bool | None = None,
) -> bytes:
    """The answer to one call; the fields are those of `function_response`."""
    answer = function_response(call_id, name, response, scheduling=scheduling, will_continue=will_continue)
    return tool_responses([answer])


def tool_responses(answers: Sequence[Mapping[str, Json]]) -> bytes:
    """The answers to function calls in one message."""
    return _encoder.encode({"toolResponse": {"functionResponses": answers}})


def pcm(part: InlineData) -> bytes:
    """The bytes of an inline part; both base64 alphabets. Raises ValueError."""
    data = part.data or ""
    if "-" in data or "_" in data:
        return base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    return base64.b64decode(data, validate=True)
