"""Client messages of the Live API, read as Google's JSON parser for protocol buffers reads them.

Field names are taken in lowerCamelCase and in snake_case at every depth, bytes in both base64 alphabets,
numbers also as strings; null means unset. An unknown field, enum value or wrong type is `Refused`, in the
words of Google's parser. Keys of free-form values (arguments, responses, JSON Schemas, labels) are kept.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
# A read message: like Json, but bytes fields are bytes.
Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value] | None"
Message: TypeAlias = "dict[str, Value]"

# Inferred: the usual limit of protocol buffers.
_DEEPEST = 100
_RANGES = {"int32": range(-(2**31), 2**31), "int64": range(-(2**63), 2**63)}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")  # proto JSON writes them as text
_LARGEST_FLOAT = 3.4028234663852886e38

INVALID_ARGUMENT = "Request contains an invalid argument."
_REASON_BYTES = 123  # what a WebSocket close frame can hold; Google cuts there too


class Refused(Exception):
    """The connection ends with this close code and reason, as Google reports errors of a request."""

    def __init__(self, reason: str = INVALID_ARGUMENT, code: int = 1007) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_REASON_BYTES].decode(errors="ignore")


_ENUMS: Mapping[str, frozenset[str]] = {
    name: frozenset(values.split())
    for name, values in {
        "Modality": "MODALITY_UNSPECIFIED TEXT IMAGE AUDIO VIDEO",
        "MediaResolution": "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM"
        " MEDIA_RESOLUTION_HIGH",
        "ThinkingLevel": "THINKING_LEVEL_UNSPECIFIED MINIMAL LOW MEDIUM HIGH XHIGH",
        "Type": "TYPE_UNSPECIFIED STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL",
        "Behavior": "UNSPECIFIED BLOCKING NON_BLOCKING",
        "Scheduling": "SCHEDULING_UNSPECIFIED SILENT WHEN_IDLE INTERRUPT",
        "StartSensitivity": "START_SENSITIVITY_UNSPECIFIED START_SENSITIVITY_HIGH START_SENSITIVITY_LOW",
        "EndSensitivity": "END_SENSITIVITY_UNSPECIFIED END_SENSITIVITY_HIGH END_SENSITIVITY_LOW",
        "ActivityHandling": "ACTIVITY_HANDLING_UNSPECIFIED START_OF_ACTIVITY_INTERRUPTS NO_INTERRUPTION",
        "TurnCoverage": "TURN_COVERAGE_UNSPECIFIED TURN_INCLUDES_ONLY_ACTIVITY TURN_INCLUDES_ALL_INPUT"
        " TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        "TranscriptionMode": "MODE_UNSPECIFIED VERBATIM SMART",
        "HarmCategory": "HARM_CATEGORY_UNSPECIFIED HARM_CATEGORY_HARASSMENT HARM_CATEGORY_HATE_SPEECH"
        " HARM_CATEGORY_SEXUALLY_EXPLICIT HARM_CATEGORY_DANGEROUS_CONTENT HARM_CATEGORY_CIVIC_INTEGRITY"
        " HARM_CATEGORY_JAILBREAK HARM_CATEGORY_IMAGE_HATE HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT"
        " HARM_CATEGORY_IMAGE_HARASSMENT HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT",
        "HarmBlockThreshold": "HARM_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE"
        " BLOCK_ONLY_HIGH BLOCK_NONE OFF",
    }.items()
}

# Field types: a scalar, an enum or a message by name; "[]" before it means repeated.
_MESSAGES: Mapping[str, Mapping[str, str]] = {
    "BidiGenerateContentClientMessage": {
        "setup": "Setup",
        "clientContent": "ClientContent",
        "realtimeInput": "RealtimeInput",
        "toolResponse": "ToolResponse",
        "contextUpdate": "ContextUpdate",
    },
    "Setup": {
        "model": "string",
        "generationConfig": "GenerationConfig",
        "systemInstruction": "Content",
        "tools": "[]Tool",
        "realtimeInputConfig": "RealtimeInputConfig",
        "sessionResumption": "SessionResumption",
        "contextWindowCompression": "ContextWindowCompression",
        "inputAudioTranscription": "AudioTranscription",
        "outputAudioTranscription": "AudioTranscription",
        "proactivity": "Proactivity",
        "historyConfig": "HistoryConfig",
        "avatarConfig": "object",
        "safetySettings": "[]SafetySetting",
        "labels": "object",
        "explicitVadSignal": "bool",
    },
    "GenerationConfig": {
        "responseModalities": "[]Modality",
        "temperature": "float",
        "topP": "float",
        "topK": "int32",
        "maxOutputTokens": "int32",
        "candidateCount": "int32",
        "presencePenalty": "float",
        "frequencyPenalty": "float",
        "seed": "int32",
        "mediaResolution": "MediaResolution",
        "speechConfig": "SpeechConfig",
        "thinkingConfig": "ThinkingConfig",
        "enableAffectiveDialog": "bool",
        "translationConfig": "TranslationConfig",
        "stopSequences": "[]string",
        "responseMimeType": "string",
        "responseSchema": "Schema",
        "responseJsonSchema": "value",
        "responseLogprobs": "bool",
        "logprobs": "int32",
    },
    "SpeechConfig": {
        "voiceConfig": "VoiceConfig",
        "languageCode": "string",
        "multiSpeakerVoiceConfig": "object",
    },
    "VoiceConfig": {
        "voice": "string",
        "prebuiltVoiceConfig": "PrebuiltVoiceConfig",
        "replicatedVoiceConfig": "object",
    },
    "PrebuiltVoiceConfig": {"voiceName": "string"},
    "ThinkingConfig": {
        "includeThoughts": "bool",
        "thinkingBudget": "int32",
        "thinkingLevel": "ThinkingLevel",
    },
    "TranslationConfig": {"targetLanguageCode": "string", "echoTargetLanguage": "bool"},
    "Content": {"role": "string", "parts": "[]Part"},
    "Part": {
        "text": "string",
        "thought": "bool",
        "thoughtSignature": "bytes",
        "inlineData": "Blob",
        "fileData": "object",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "object",
        "codeExecutionResult": "object",
        "videoMetadata": "object",
    },
    "Blob": {"mimeType": "string", "data": "bytes"},
    "FunctionCall": {"id": "string", "name": "string", "args": "object"},
    "FunctionResponse": {
        "id": "string",
        "name": "string",
        "response": "object",
        "willContinue": "bool",
        "scheduling": "Scheduling",
        "parts": "[]object",
    },
    "Tool": {
        "functionDeclarations": "[]FunctionDeclaration",
        "googleSearch": "object",
        "googleSearchRetrieval": "object",
        "codeExecution": "object",
        "urlContext": "object",
        "googleMaps": "object",
        "computerUse": "object",
        "fileSearch": "object",
        "mcpServers": "[]object",
        "retrieval": "object",
        "enterpriseWebSearch": "object",
    },
    "FunctionDeclaration": {
        "name": "string",
        "description": "string",
        "parameters": "Schema",
        "parametersJsonSchema": "value",
        "response": "Schema",
        "responseJsonSchema": "value",
        "behavior": "Behavior",
    },
    "Schema": {
        "type": "Type",
        "format": "string",
        "title": "string",
        "description": "string",
        "nullable": "bool",
        "enum": "[]string",
        "items": "Schema",
        "maxItems": "int64",
        "minItems": "int64",
        "properties": "{}Schema",
        "required": "[]string",
        "minProperties": "int64",
        "maxProperties": "int64",
        "minimum": "float",
        "maximum": "float",
        "minLength": "int64",
        "maxLength": "int64",
        "pattern": "string",
        "example": "value",
        "anyOf": "[]Schema",
        "propertyOrdering": "[]string",
        "default": "value",
    },
    "RealtimeInputConfig": {
        "automaticActivityDetection": "AutomaticActivityDetection",
        "activityHandling": "ActivityHandling",
        "turnCoverage": "TurnCoverage",
        "interimTranscriptTimestampEnabled": "bool",
    },
    "AutomaticActivityDetection": {
        "disabled": "bool",
        "startOfSpeechSensitivity": "StartSensitivity",
        "endOfSpeechSensitivity": "EndSensitivity",
        "prefixPaddingMs": "int32",
        "silenceDurationMs": "int32",
    },
    "SessionResumption": {"handle": "string", "transparent": "bool"},
    "ContextWindowCompression": {"triggerTokens": "int64", "slidingWindow": "SlidingWindow"},
    "SlidingWindow": {"targetTokens": "int64"},
    "AudioTranscription": {
        "languageCodes": "[]string",
        "customVocabulary": "[]string",
        "wordTimestamp": "bool",
        "diarization": "bool",
        "mode": "TranscriptionMode",
        "sourceText": "string",
        "languageHints": "object",
        "languageAuto": "object",
        "adaptationPhrases": "[]string",
    },
    "Proactivity": {"proactiveAudio": "bool", "proactiveVideo": "bool"},
    "HistoryConfig": {"initialHistoryInClientContent": "bool"},
    "SafetySetting": {"category": "HarmCategory", "threshold": "HarmBlockThreshold"},
    "ClientContent": {"turns": "[]Content", "turnComplete": "bool"},
    "RealtimeInput": {
        "mediaChunks": "[]Blob",
        "audio": "Blob",
        "video": "Blob",
        "text": "string",
        "audioStreamEnd": "bool",
        "activityStart": "Empty",
        "activityEnd": "Empty",
    },
    "Empty": {},
    "ToolResponse": {"functionResponses": "[]FunctionResponse"},
    "ContextUpdate": {"systemInstruction": "Content", "tools": "ToolsUpdate"},
    "ToolsUpdate": {"tools": "[]Tool"},
}


def snake(name: str) -> str:
    """`functionDeclarations` as `function_declarations`: how Google's error texts spell fields."""
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


_SPELLINGS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    message: {spelling: (name, kind) for name, kind in fields.items() for spelling in (name, snake(name))}
    for message, fields in _MESSAGES.items()
}


def read(frame: str | bytes) -> tuple[str, Message]:
    """One client frame, text or binary: the name of its only field, and that field's message.

    `setup`, `clientContent`, `realtimeInput`, `toolResponse` or `contextUpdate`. Raises Refused.
    """
    try:
        text = frame if isinstance(frame, str) else frame.decode()
        data = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except ValueError:
        shown = frame[:40] if isinstance(frame, str) else frame[:40].decode(errors="replace")
        raise Refused(f"Invalid JSON payload received. Unexpected token.\n{shown}\n^") from None
    except RecursionError:
        raise _TOO_DEEP from None
    if _is_deeper(data, _DEEPEST):
        raise _TOO_DEEP
    message = _message(data, "BidiGenerateContentClientMessage", "")
    if len(message) > 1:
        first, second, *_ = message
        raise Refused(
            "Invalid value (oneof), oneof field 'message_type' is already set."
            f" Cannot set '{snake(second)}' after '{snake(first)}'"
        )
    for name, content in message.items():
        assert isinstance(content, dict)
        return name, content
    raise Refused


def has_field(message: str, path: Sequence[str]) -> bool:
    """Whether the message of this name has such a field; what is inside of a free-form value is not known."""
    for part in path:
        if message not in _MESSAGES:
            return message in ("object", "value")
        if part not in _MESSAGES[message]:
            return False
        message = _MESSAGES[message][part]
    return True


_TOO_DEEP = Refused("Invalid JSON payload received. Message too deep.")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_deeper(value: object, levels: int) -> bool:
    """Level by level, since what is too deep for Python's own stack comes here too."""
    inner: list[Any] = [value]
    while inner and levels:
        members = (each.values() if isinstance(each, dict) else each for each in inner)
        inner = [member for each in members for member in each if isinstance(member, dict | list)]
        levels -= 1
    return bool(inner)


def encode(message: Mapping[str, Json]) -> bytes:
    """A server message as the service writes it: UTF-8, indented by two, with a newline at the end."""
    return (json.dumps(message, indent=2, ensure_ascii=False) + "\n").encode()


def _message(data: object, name: str, path: str) -> Message:
    if not isinstance(data, dict):
        raise _wrong(path, f"type.googleapis.com/google.ai.generativelanguage.v1beta.{name}", data)
    spellings = _SPELLINGS[name]
    message: Message = {}
    for key, value in data.items():
        if key not in spellings:
            where = f" at '{path}'" if path else ""
            raise Refused(f'Invalid JSON payload received. Unknown name "{key}"{where}: Cannot find field.')
        if value is None:
            continue
        field, kind = spellings[key]
        message[field] = _value(value, kind, f"{path}.{snake(field)}" if path else snake(field))
    return message


def _value(value: Json, kind: str, path: str) -> Value:
    if kind.startswith("[]"):
        # The parser takes a single value for a repeated field too.
        values = value if isinstance(value, list) else [value]
        return [_value(each, kind[2:], f"{path}[{index}]") for index, each in enumerate(values)]
    if kind.startswith("{}"):
        if not isinstance(value, dict):
            raise _wrong(path, "Map", value)
        return {key: _value(each, kind[2:], f"{path}[{key}]") for key, each in value.items()}
    if kind in _MESSAGES:
        return _message(value, kind, path)
    if kind in _ENUMS:
        # "type": "object" works on the service, as its own REST examples show.
        spelling = value.upper() if kind == "Type" and isinstance(value, str) else value
        if not isinstance(spelling, str) or spelling not in _ENUMS[kind]:
            raise _wrong(path, f"type.googleapis.com/google.ai.generativelanguage.v1beta.{kind}", value)
        return spelling
    return _scalar(value, kind, path)


def _scalar(value: Json, kind: str, path: str) -> Value:
    match kind:
        case "value":
            return value  # type: ignore[return-value]  # Json is a Value; list invariance hides it
        case "object" if isinstance(value, dict):
            return value  # type: ignore[return-value]
        case "bool" if isinstance(value, bool):
            return value
        case "string" if isinstance(value, str):
            return value
        case "bytes" if isinstance(value, str):
            return _bytes(value, path)
        case "float" | "int32" | "int64" if isinstance(value, int | float | str) and not isinstance(
            value, bool
        ):
            number = _number(value)
            if number is None:
                pass
            elif kind == "float":
                if abs(number) <= _LARGEST_FLOAT or value in _NO_NUMBERS:
                    return float(number)
            elif number == number // 1 and int(number) in _RANGES[kind]:
                return int(number)
    raise _wrong(path, f"TYPE_{kind.upper()}", value)


def _number(value: float | str) -> int | float | None:
    """Whole ones as they are, since those of 64 bits do not fit into a float."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None and value not in _NO_NUMBERS:
            return None
        return int(value) if value.lstrip("-").isdigit() and len(value) < 400 else float(value)
    return value


def _bytes(text: str, path: str) -> bytes:
    standard = text.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        shown = text[:20]
        raise Refused(
            f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed for \"{shown}\""
        ) from None


_URL_SAFE = str.maketrans("-_", "+/")


def _wrong(path: str, kind: str, value: object) -> Refused:
    return Refused(f"Invalid value at '{path}' ({kind}), {json.dumps(value, default=str)}")
