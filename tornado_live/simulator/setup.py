"""What a conversation was opened with: the setup message, checked as the model of its profile checks it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never, cast

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


NOT_ENABLED = "Operation is not implemented, or supported, or enabled."
_VERTEX_TRIGGER = range(5_000, 128_001)
_VERTEX_TARGET = range(128_001)


@dataclass(frozen=True, slots=True)
class Compression:
    """What is above `target` tokens is forgotten once there are more than `trigger`."""

    trigger: int
    target: int


@dataclass(frozen=True, slots=True)
class Setup:
    """declarations: function declarations in camelCase JSON; `parameters` and `parametersJsonSchema` as sent.

    silence: None leaves it to the profile. coverage: TurnCoverage, None for the model's own.
    """

    declarations: tuple[dict[str, Json], ...]
    instruction: str
    speaks: bool
    thinks_aloud: bool
    transcribes_input: bool
    transcribes_output: bool
    word_times: bool
    manual_activity: bool
    silence: int | None
    slow_end: bool
    starts_after_ms: int
    dull_start: bool
    interruptible: bool
    coverage: str | None
    vad_signals: bool
    initial_history: bool
    searches: bool
    compression: Compression | None
    translate_to: str | None

    def updated(self, update: Message, profile: Profile) -> Setup:
        """The setup after a contextUpdate: what it names is replaced, what it leaves out stays."""
        changed = self
        if "systemInstruction" in update:
            changed = replace(changed, instruction=text_of(update["systemInstruction"]))
        if "tools" in update:
            tools = _list(_message(update["tools"]), "tools")
            changed = replace(changed, declarations=_declarations(tools, profile))
        return changed

    def silence_ms(self, profile: Profile) -> int:
        if self.silence:
            return self.silence
        return profile.silence_ms * 2 if self.slow_end else profile.silence_ms

    def waits_for(self, name: str, profile: Profile) -> bool:
        """Whether this function is BLOCKING."""
        said = next((each.get("behavior") for each in self.declarations if each.get("name") == name), None)
        return (said if said in profile.behaviours else profile.default_behaviour) == "BLOCKING"

    def counts_audio_between_speech(self) -> bool:
        return self.coverage == "TURN_INCLUDES_ALL_INPUT"

    def counts_video_between_speech(self, profile: Profile) -> bool:
        if self.coverage is None:
            return profile.video_between_speech
        return self.coverage != "TURN_INCLUDES_ONLY_ACTIVITY"


# Documented: they are there, and the Live API has no use for them. Inferred: it refuses them.
_NOT_LIVE = frozenset(
    {
        "stopSequences",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseLogprobs",
        "logprobs",
    }
)


def accept(message: Message, profile: Profile) -> Setup:
    """The setup as a value, or Refused with the close that the service answers with."""
    generation = _message(message.get("generationConfig"))
    if generation.keys() & _NOT_LIVE:
        raise Refused
    modality = _modality(generation, profile)
    _check_voice(generation)
    _check_thinking(_message(generation.get("thinkingConfig")), "thinkingConfig" in generation, profile)
    if "enableAffectiveDialog" in generation and profile.affective_dialog == "none":
        raise Refused
    _check_proactivity(_message(message.get("proactivity")), profile)
    translation = _message(generation.get("translationConfig"))
    if ("translationConfig" in generation) != (profile.job == "translate") or "avatarConfig" in message:
        raise Refused
    resumption = _message(message.get("sessionResumption"))
    if not profile.vertex and ("transparent" in resumption or "explicitVadSignal" in message):
        raise Refused(NOT_ENABLED, 1008)
    realtime = _message(message.get("realtimeInputConfig"))
    detection = _message(realtime.get("automaticActivityDetection"))
    silence, padding = detection.get("silenceDurationMs"), detection.get("prefixPaddingMs")
    if any(isinstance(each, int) and each < 0 for each in (silence, padding)):
        raise Refused
    tools = _list(message, "tools")
    return Setup(
        declarations=_declarations(tools, profile),
        instruction=text_of(message.get("systemInstruction")),
        speaks=modality == "AUDIO",
        thinks_aloud=_message(generation.get("thinkingConfig")).get("includeThoughts") is True,
        transcribes_input="inputAudioTranscription" in message or profile.job == "transcribe",
        transcribes_output="outputAudioTranscription" in message,
        word_times=_message(message.get("inputAudioTranscription")).get("wordTimestamp") is True,
        manual_activity=detection.get("disabled") is True,
        silence=silence if isinstance(silence, int) else None,
        slow_end=detection.get("endOfSpeechSensitivity") == "END_SENSITIVITY_LOW",
        starts_after_ms=max(60, padding) if isinstance(padding, int) else 60,
        dull_start=detection.get("startOfSpeechSensitivity") == "START_SENSITIVITY_LOW",
        interruptible=realtime.get("activityHandling") != "NO_INTERRUPTION" and profile.job == "converse",
        coverage=_coverage(realtime.get("turnCoverage"), profile),
        vad_signals=message.get("explicitVadSignal") is True,
        initial_history=_message(message.get("historyConfig")).get("initialHistoryInClientContent") is True,
        searches=any("googleSearch" in _message(tool) for tool in tools),
        compression=_compression(message.get("contextWindowCompression"), profile),
        translate_to=str(translation.get("targetLanguageCode", "")) if translation else None,
    )


def text_of(content: Value) -> str:
    """The text parts of a Content, joined by spaces."""
    parts = (_message(part) for part in _list(_message(content), "parts"))
    return " ".join(text for part in parts if isinstance(text := part.get("text"), str)).strip()


def inline_of(content: Value) -> Iterator[tuple[str, bytes]]:
    """The media type and the bytes of the parts that have some."""
    for part in map(_message, _list(_message(content), "parts")):
        blob = _message(part.get("inlineData"))
        data = blob.get("data")
        if isinstance(data, bytes):
            yield str(blob.get("mimeType", "")), data


def _modality(generation: Message, profile: Profile) -> str:
    asked = [str(modality) for modality in _list(generation, "responseModalities")]
    modalities = asked or ["AUDIO" if "AUDIO" in profile.modalities else "TEXT"]
    if "speechConfig" in generation and "AUDIO" not in modalities:
        raise Refused("Cannot extract voices from a non-audio request.")
    if modalities == ["TEXT"] and "TEXT" not in profile.modalities:
        raise Refused(profile.text_refusal)
    if len(modalities) > 1 or not profile.modalities.issuperset(modalities):
        names = ", ".join(modalities)
        raise Refused(
            f"The requested combination of response modalities ({names}) is not supported by the model"
        )
    return modalities[0]


def _check_voice(generation: Message) -> None:
    voice = _message(_message(generation.get("speechConfig")).get("voiceConfig"))
    name = _message(voice.get("prebuiltVoiceConfig")).get("voiceName", voice.get("voice"))
    if isinstance(name, str) and name.lower() not in VOICES:
        raise Refused(f"No matching speaker voice found for name: {name}")


def _check_thinking(thinking: Message, asked: bool, profile: Profile) -> None:
    level = thinking.get("thinkingLevel")
    match profile.thinking:
        case "none":
            if asked:
                raise Refused
        case "budget":
            if level is not None:
                raise Refused
        case "level":
            pass
        case "level_required":
            if level in (None, "THINKING_LEVEL_UNSPECIFIED"):
                raise Refused("Thinking level must be specified for this model")
            if level == "MINIMAL":
                raise Refused
        case _:
            assert_never(profile.thinking)


def _check_proactivity(proactivity: Message, profile: Profile) -> None:
    asked = proactivity.get("proactiveAudio")
    if (asked is True and profile.proactive_audio == "none") or (
        asked is False and profile.proactive_audio == "always"
    ):
        raise Refused


def _coverage(asked: Value, profile: Profile) -> str | None:
    if asked == "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO" and profile.vertex:
        raise Refused  # there it is the default and cannot be named
    return asked if isinstance(asked, str) and asked != "TURN_COVERAGE_UNSPECIFIED" else None


def _compression(asked: Value, profile: Profile) -> Compression | None:
    if asked is None:
        return None
    config = _message(asked)
    trigger = config.get("triggerTokens", profile.context_tokens * 4 // 5)
    assert isinstance(trigger, int)
    target = _message(config.get("slidingWindow")).get("targetTokens", trigger // 2)
    assert isinstance(target, int)
    if profile.vertex and (trigger not in _VERTEX_TRIGGER or target not in _VERTEX_TARGET):
        raise Refused
    if trigger <= 0 or not 0 <= target < trigger:
        raise Refused
    return Compression(trigger, target)


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
            if declaration.get("behavior", "UNSPECIFIED") not in profile.behaviours | {"UNSPECIFIED"}:
                raise Refused
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
