"""What a conversation was opened with: the setup message, checked as the model of its profile checks it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from .messages import Json, Message, Refused, Value
from .profiles import VOICES, Profile

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_STRING_FORMATS = {"enum", "date-time"}
# What Google lists for parametersJsonSchema, and what the Schema type of `parameters` knows beyond it.
_JSON_SCHEMA_KEYWORDS = frozenset(
    {
        "$id",
        "$defs",
        "$ref",
        "$anchor",
        "type",
        "format",
        "title",
        "description",
        "enum",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "anyOf",
        "oneOf",
        "properties",
        "additionalProperties",
        "required",
        "propertyOrdering",
        "default",
        "nullable",
        "pattern",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
        "example",
    }
)
_JSON_SCHEMA_TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}


@dataclass(frozen=True, slots=True)
class Setup:
    """declarations: function declarations in camelCase JSON; `parameters` and `parametersJsonSchema` as sent.

    silence_ms: None leaves it to the profile. raw: the setup message, for GET /status.
    """

    declarations: tuple[dict[str, Json], ...]
    instruction: str
    transcribes_input: bool
    transcribes_output: bool
    manual_activity: bool
    silence_ms: int | None
    interruptible: bool
    initial_history: bool
    raw: Message

    def updated(self, update: Message, profile: Profile) -> Setup:
        """The setup after a contextUpdate: what it names is replaced, what it leaves out stays."""
        changed = self
        if "systemInstruction" in update:
            changed = replace(changed, instruction=text_of(update["systemInstruction"]))
        if "tools" in update:
            tools = _list(_message(update["tools"]), "tools")
            changed = replace(changed, declarations=_declarations(tools, profile))
        return changed


def accept(message: Message, profile: Profile) -> Setup:
    """The setup as a value, or Refused with the close that the service answers with."""
    generation = _message(message.get("generationConfig"))
    _check_generation(generation, profile)
    if (
        _message(message.get("proactivity")).get("proactiveAudio") is False
        and profile.proactive_audio == "always"
    ):
        raise Refused
    if "avatarConfig" in message or "translationConfig" in generation:
        raise Refused
    if _message(message.get("sessionResumption")).get("handle"):
        raise Refused("Invalid session handle")  # this simulator resumes nothing yet, so it knows no handle
    realtime = _message(message.get("realtimeInputConfig"))
    detection = _message(realtime.get("automaticActivityDetection"))
    silence = detection.get("silenceDurationMs")
    return Setup(
        declarations=_declarations(_list(message, "tools"), profile),
        instruction=text_of(message.get("systemInstruction")),
        transcribes_input="inputAudioTranscription" in message,
        transcribes_output="outputAudioTranscription" in message,
        manual_activity=detection.get("disabled") is True,
        silence_ms=silence if isinstance(silence, int) else None,
        interruptible=realtime.get("activityHandling") != "NO_INTERRUPTION",
        initial_history=_message(message.get("historyConfig")).get("initialHistoryInClientContent") is True,
        raw=message,
    )


def text_of(content: Value) -> str:
    """The text parts of a Content, joined by spaces."""
    parts = (_message(part) for part in _list(_message(content), "parts"))
    return " ".join(text for part in parts if isinstance(text := part.get("text"), str)).strip()


def _check_generation(generation: Message, profile: Profile) -> None:
    modalities = [str(modality) for modality in _list(generation, "responseModalities")] or ["AUDIO"]
    speech = generation.get("speechConfig")
    if speech is not None and "AUDIO" not in modalities:
        raise Refused("Cannot extract voices from a non-audio request.")
    if not profile.modalities.issuperset(modalities):
        asked = ", ".join(modalities)
        raise Refused(
            f"The requested combination of response modalities ({asked}) is not supported by the model"
        )
    voice = _message(_message(speech).get("voiceConfig"))
    name = _message(voice.get("prebuiltVoiceConfig")).get("voiceName", voice.get("voice"))
    if isinstance(name, str) and name.lower() not in VOICES:
        raise Refused(f"No matching speaker voice found for name: {name}")
    if "thinkingConfig" in generation and profile.thinking == "none":
        raise Refused
    if "enableAffectiveDialog" in generation and profile.affective_dialog == "none":
        raise Refused


def _declarations(tools: Sequence[Value], profile: Profile) -> tuple[dict[str, Json], ...]:
    declarations: dict[str, dict[str, Json]] = {}
    for at, tool in enumerate(map(_message, tools)):
        for kind in tool.keys() - profile.tools:
            raise Refused(f"{kind} is not supported in the live api.")
        for index, declaration in enumerate(map(_message, _list(tool, "functionDeclarations"))):
            where = f"BidiGenerateContentSetup.tools[{at}].function_declarations[{index}]"
            name = str(declaration.get("name", ""))
            if not _FUNCTION_NAME.fullmatch(name):
                raise Refused(
                    f"* {where}.name: Invalid function name. Must start with a letter or an underscore."
                )
            if name in declarations:
                raise Refused(f"Duplicate function declaration found: {name}")
            if "parameters" in declaration and "parametersJsonSchema" in declaration:
                raise Refused
            for problem in _schema_problems(declaration.get("parameters"), "parameters"):
                raise Refused(f"* {where}.{problem}")
            if not _is_taken(declaration.get("parametersJsonSchema", {})):
                raise Refused
            declarations[name] = cast("dict[str, Json]", declaration)
    return tuple(declarations.values())


def _schema_problems(value: Value, path: str) -> Iterator[str]:
    """What generateContent says of a Schema that it parses but does not take."""
    schema = _message(value)
    kind = schema.get("type")
    properties = _message(schema.get("properties"))
    if kind == "OBJECT" and not properties:
        yield f"{path}.properties: should be non-empty for OBJECT type"
    if kind == "ARRAY" and "items" not in schema:
        yield f"{path}.items: missing field."
    if "enum" in schema and kind != "STRING":
        yield f"{path}.enum: only allowed for STRING type"
    if kind == "STRING" and schema.get("format", "enum") not in _STRING_FORMATS:
        yield f"{path}.format: only 'enum' and 'date-time' are supported for STRING type"
    for index, name in enumerate(_list(schema, "required")):
        if name not in properties:
            yield f"{path}.required[{index}]: property is not defined"
    for name, each in properties.items():
        yield from _schema_problems(each, f"{path}.properties[{name}]")
    if "items" in schema:
        yield from _schema_problems(schema["items"], f"{path}.items")
    for index, each in enumerate(_list(schema, "anyOf")):
        yield from _schema_problems(each, f"{path}.any_of[{index}]")


def _is_taken(schema: Value) -> bool:
    """Whether a JSON Schema keeps to the keywords and types that Google lists."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or not _JSON_SCHEMA_KEYWORDS.issuperset(schema):
        return False
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind.lower() not in _JSON_SCHEMA_TYPES:
            return False
    nested: list[Value] = [*_list(schema, "prefixItems"), *_list(schema, "anyOf"), *_list(schema, "oneOf")]
    nested += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for name in ("properties", "$defs"):
        group = schema.get(name, {})
        if not isinstance(group, dict):
            return False
        nested += group.values()
    return all(map(_is_taken, nested))


def _message(value: Value) -> Message:
    return value if isinstance(value, dict) else {}


def _list(message: Message, name: str) -> list[Value]:
    value = message.get(name)
    return value if isinstance(value, list) else []
