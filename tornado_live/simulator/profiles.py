"""What each simulated model does differently, as data.

Sources: Google's pages, recordings, and reports. What is only inferred, or reported by a few, is also a switch, so
that a client can be tried against both truths (SWITCHES; docs/simulator.md).
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from .messages import Json

VOICES = frozenset(
    {
        "zephyr",
        "puck",
        "charon",
        "kore",
        "fenrir",
        "leda",
        "orus",
        "aoede",
        "callirrhoe",
        "autonoe",
        "enceladus",
        "iapetus",
        "umbriel",
        "algieba",
        "despina",
        "erinome",
        "algenib",
        "rasalgethi",
        "laomedeia",
        "achernar",
        "alnilam",
        "schedar",
        "gacrux",
        "pulcherrima",
        "achird",
        "zubenelgenubi",
        "vindemiatrix",
        "sadachbia",
        "sadaltager",
        "sulafat",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model. Times are seconds at speed 1. The fields that SWITCHES names are explained there."""

    name: str
    display_name: str
    context_tokens: int = 131_072
    output_tokens: int = 65_536

    # What the setup may ask for
    modalities: frozenset[str] = frozenset(
        {"AUDIO"}
    )  # the first of AUDIO, TEXT is what nobody has to ask for
    text_refusal: str = (
        "The requested combination of response modalities (TEXT) is not supported by the model"
    )
    tools: frozenset[str] = frozenset({"functionDeclarations", "googleSearch"})
    behaviours: frozenset[str] = frozenset({"BLOCKING", "NON_BLOCKING"})
    default_behaviour: Literal["BLOCKING", "NON_BLOCKING"] = "NON_BLOCKING"
    scheduling: bool = True
    thinking: Literal["none", "budget", "level", "level_required"] = "none"
    affective_dialog: Literal["none", "optional"] = "none"
    proactive_audio: Literal["none", "optional", "always"] = "none"
    media_chunks: bool = False
    client_content_mid_session: bool = True
    context_update: bool = False
    several_inputs: bool = True
    job: Literal["converse", "transcribe", "translate"] = "converse"
    video_between_speech: bool = True  # frames count when nobody speaks, unless turnCoverage says otherwise
    vertex: bool = False

    # Time
    setup_s: float = 0.3
    silence_ms: int = 500
    first_audio_s: float = 0.7
    after_tool_s: float = 0.3
    chunk_bytes: tuple[int, ...] = (2, 2_400, 7_680, 9_600, 11_520, 15_360)
    pace: float = 3.7
    burst: int = 1
    turn_complete: Literal["playback", "generation"] = "playback"
    turn_complete_after_interrupted_s: float = 0.005

    # Messages
    output_mime_type: str = "audio/pcm;rate=24000"
    role_in_model_turn: bool = False
    transcripts: Literal["pieces", "accumulated"] = "pieces"
    transcripts_with_audio: bool = True
    input_pieces: bool = False
    finished_marks: bool = False
    empty_messages: Literal["none", "empty", "content"] = "none"
    thoughts: Literal["asked", "unasked"] = "asked"
    code_before_call: bool = False
    voice_activity: Literal["none", "alone", "with_content"] = "none"
    call_ids: Literal["function-call", "fc", "call", "uuid"] = "fc"
    usage: Literal["turn", "cumulative"] = "turn"
    usage_message: Literal["with_turn", "alone"] = "with_turn"
    usage_names: Literal["response", "candidates"] = "response"

    # Turns and calls
    idle: Literal["turn_complete", "interaction_status"] = "turn_complete"
    idle_message: Literal["with_turn", "alone"] = "with_turn"
    turn_after_call: Literal["same", "new", "bare"] = "same"
    input_during_call: Literal["cancels", "forgets", "reissues", "waits", "closes"] = "cancels"
    barge_in_cancels_background_calls: bool = False
    interrupt_over_user: bool = False
    late_audio: Literal["none", "after_call", "after_generation", "after_interrupted"] = "none"
    spurious_interrupted: bool = False
    full_context: Literal["closes", "forgets"] = "closes"
    resumable_in_call: bool = False
    resumption_unasked: bool = False

    def with_switches(self, switches: Mapping[str, Json]) -> Profile:
        """This profile with other facts, by the names of SWITCHES. Raises ValueError for a value that none has."""
        changes: dict[str, Any] = {name: _switched(name, value) for name, value in switches.items()}
        return replace(self, **changes)


SWITCHES: Mapping[str, str] = {
    "after_tool_s": "seconds from a tool's answer to the next sound (inferred)",
    "affective_dialog": "none: enableAffectiveDialog is refused, optional (documented: none on 3.8, 3.1)",
    "barge_in_cancels_background_calls": "a barge-in cancels the NON_BLOCKING calls that are open, too"
    " (inferred: no)",
    "burst": "how many messages of sound are sent at once before the pace is kept"
    " again (reported: bursts on 2.5)",
    "call_ids": "how call ids look (recorded: function-call on 2.5, fc on 3.1, uuid on"
    " Vertex; reported: fc, call on 3.8)",
    "chunk_bytes": "sizes of the messages of sound; the last two alternate from then on (recorded on 3.1)",
    "client_content_mid_session": "false: clientContent after the first turn closes with 1007 (reported"
    " of early 3.1)",
    "code_before_call": "an executableCode part comes before a call (recorded on a 2.5 preview)",
    "default_behaviour": "what a function without `behavior` is (documented: NON_BLOCKING on 3.8 and Vertex)",
    "empty_messages": "empty: `{}` around generation (reported on 3.8), content:"
    " `serverContent: {}` (recorded on 3.1)",
    "finished_marks": "transcriptions begin with `{}` and end with `finished: true` (recorded on Vertex)",
    "first_audio_s": "seconds from the end of the user's speech to the first sound (reported: 1.41 on 3.1)",
    "full_context": "closes: with 1000 when the context is full and there is no compression (documented for"
    " Vertex, inferred elsewhere); forgets: goes on without the oldest",
    "idle_message": "alone: IDLE comes in a message after turnComplete (reported on 3.8 extended thinking)",
    "input_during_call": "new input while the turn waits for a call: cancels (documented: interrupted,"
    " toolCallCancellation); forgets: no cancellation, and reissues: and the same call again under a new id"
    " (both reported on 3.8); waits: nothing until the answer (reported); closes: sound closes with 1008"
    " (reported on 2.5)",
    "input_pieces": "the user's transcription comes word by word (recorded on 2.5)",
    "interrupt_over_user": "an answer with INTERRUPT is spoken while the user speaks (documented:"
    " 2.5 does, 3.8 waits)",
    "late_audio": "the last sound comes after_call, after_generation or after_interrupted (each reported)",
    "pace": "how many times faster than real time sound is sent (reported: 3.7 on 3.1)",
    "proactive_audio": "none: refused, optional, always: only `false` is refused (documented: always on 3.8)",
    "resumable_in_call": "handles are given while a call is open, too (documented: resumable is false then)",
    "resumption_unasked": "sessionResumptionUpdate comes unasked (recorded on 3.1)",
    "role_in_model_turn": "modelTurn has `role: model` (recorded on Vertex; reported on 3.8)",
    "scheduling": "false: an answer with scheduling or willContinue closes with 1007"
    " (reported of Vertex, inferred of 3.1)",
    "several_inputs": "false: several fields in one realtimeInput close with 1007 (inferred: they are taken)",
    "silence_ms": "the silence that ends speech unless the client says (reported: 700 on"
    " 3.8; documented: 500)",
    "spurious_interrupted": "activityStart after a finished turn brings interrupted and"
    " turnComplete (reported)",
    "thinking": "none: thinkingConfig is refused; budget; level; level_required"
    " (documented; reported: none on 3.1)",
    "thoughts": "unasked: a thought part comes first without includeThoughts (recorded on 2.5)",
    "transcripts": "accumulated: each transcription repeats what came before (reported; recorded: pieces)",
    "transcripts_with_audio": "false: messages of their own that run ahead of the sound (recorded:"
    " so on 2.5 and Vertex)",
    "turn_after_call": "new: the turn of a call ends before its answer, with generationComplete and turnComplete"
    " (recorded on Vertex); bare: with turnComplete alone (inferred of 2.x from what google-adk waits for);"
    " same (recorded)",
    "turn_complete": "generation: turnComplete does not wait until a listener has heard all"
    " (reported: it waits)",
    "turn_complete_after_interrupted_s": "seconds from interrupted to turnComplete (reported: 0.005 on 3.8)",
    "usage": "cumulative: usageMetadata counts the session so far, not the turn (reported: turn)",
    "usage_message": "alone: usageMetadata comes in a message after turnComplete (documented as possible)",
    "voice_activity": "none, alone, or with_content: beside `serverContent: {}` (each reported on 3.x)",
}


def _switched(name: str, value: Json) -> object:
    kind = _KINDS[name]
    match value:
        case bool() if kind is bool:
            return value
        case str() if get_origin(kind) is Literal and value in get_args(kind):
            return value
        case int() if kind is int and not isinstance(value, bool) and value >= _at_least(name):
            return value
        case int() | float() if kind is float and not isinstance(value, bool):
            if _at_least(name) <= value < float("inf"):
                return float(value)
        case list() if get_origin(kind) is tuple and value:
            if all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in value):
                return tuple(cast("list[int]", value))
    least = f" of {_at_least(name):g} or more" if kind in (int, float) else ""
    raise ValueError(f"{name} must be {_wanted(kind)}{least}, not {value!r}")


def _at_least(name: str) -> float:
    """What is divided by has to be there."""
    return {"pace": 0.01, "burst": 1}.get(name, 0)


def _wanted(kind: object) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(cast("type", kind), "a list of whole numbers")


_KINDS: Mapping[str, object] = get_type_hints(Profile)

_SPEAKS_TEXT_TOO = frozenset({"AUDIO", "TEXT"})

GEMINI_3_8_LIVE = Profile(
    name="gemini-3.8-live",
    display_name="Gemini 3.8 Live (local simulator)",
    proactive_audio="always",
    context_update=True,
    role_in_model_turn=True,
    empty_messages="empty",
    voice_activity="alone",
)
GEMINI_3_8_LIVE_EXTENDED_THINKING = replace(
    GEMINI_3_8_LIVE,
    name="gemini-3.8-live-extended-thinking",
    display_name="Gemini 3.8 Live Extended Thinking (local simulator)",
    behaviours=frozenset({"NON_BLOCKING"}),
    thinking="level_required",
    idle="interaction_status",
)
GEMINI_3_1_FLASH_LIVE = Profile(
    name="gemini-3.1-flash-live-preview",
    display_name="Gemini 3.1 Flash Live Preview (local simulator)",
    behaviours=frozenset({"BLOCKING"}),
    default_behaviour="BLOCKING",
    scheduling=False,
    thinking="level",
    first_audio_s=1.4,
    empty_messages="content",
    voice_activity="alone",
    resumption_unasked=True,
)
# Sizes are inferred from token counts: 60 to 80 ms on long replies, 200 ms at the beginning.
GEMINI_2_5_FLASH_NATIVE_AUDIO = Profile(
    name="gemini-2.5-flash-native-audio-preview-12-2025",
    display_name="Gemini 2.5 Flash Native Audio Preview 12-2025 (local simulator)",
    output_tokens=8_192,
    text_refusal="Text output is not supported for native audio output model.",
    default_behaviour="BLOCKING",
    thinking="budget",
    affective_dialog="optional",
    proactive_audio="optional",
    media_chunks=True,
    video_between_speech=False,
    chunk_bytes=(9_600, 4_800, 2_880, 3_840),
    burst=4,
    transcripts_with_audio=False,
    input_pieces=True,
    thoughts="unasked",
    call_ids="function-call",
    interrupt_over_user=True,
)
GEMINI_3_5_LIVE_TRANSLATE = Profile(
    name="gemini-3.5-live-translate-preview",
    display_name="Gemini 3.5 Live Translate Preview (local simulator)",
    tools=frozenset(),
    behaviours=frozenset(),
    scheduling=False,
    chunk_bytes=(12_000, 12_000),
    pace=1.0,
    transcripts_with_audio=False,
    job="translate",
)
GEMINI_3_5_TRANSCRIBE_LIVE = Profile(
    name="gemini-3.5-transcribe-live",
    display_name="Gemini 3.5 Transcribe Live (local simulator)",
    modalities=frozenset({"TEXT"}),
    tools=frozenset(),
    behaviours=frozenset(),
    scheduling=False,
    job="transcribe",
)
GEMINI_ROBOTICS_ER_2 = Profile(
    name="gemini-robotics-er-2-streaming-preview",
    display_name="Gemini Robotics-ER 2 Streaming Preview (local simulator)",
    modalities=frozenset({"TEXT"}),
    default_behaviour="BLOCKING",
)


def vertex_profile(profile: Profile) -> Profile:
    """The model as Vertex AI serves it: its names in usage, its ends of turns, ids and marks."""
    return replace(
        profile,
        vertex=True,
        default_behaviour="NON_BLOCKING" if "NON_BLOCKING" in profile.behaviours else "BLOCKING",
        scheduling=False,
        chunk_bytes=profile.chunk_bytes if profile.job == "translate" else (9_600, 11_520, 11_520),
        output_mime_type="audio/pcm",
        role_in_model_turn=True,
        transcripts_with_audio=False,
        finished_marks=True,
        empty_messages="none",
        voice_activity="none",
        call_ids="uuid",
        usage_names="candidates",
        turn_after_call="new",
        resumption_unasked=False,
    )


def _named(profile: Profile, name: str, display_name: str) -> Profile:
    return replace(profile, name=name, display_name=f"{display_name} (local simulator)")


def _by_name(*profiles: Profile) -> Mapping[str, Profile]:
    return types.MappingProxyType({profile.name: profile for profile in profiles})


PROFILES: Mapping[str, Profile] = _by_name(
    GEMINI_3_8_LIVE,
    GEMINI_3_8_LIVE_EXTENDED_THINKING,
    GEMINI_3_1_FLASH_LIVE,
    GEMINI_2_5_FLASH_NATIVE_AUDIO,
    _named(
        GEMINI_2_5_FLASH_NATIVE_AUDIO,
        "gemini-2.5-flash-native-audio-preview-09-2025",
        "Gemini 2.5 Flash Native Audio Preview 09-2025",
    ),
    _named(
        GEMINI_2_5_FLASH_NATIVE_AUDIO,
        "gemini-2.5-flash-native-audio-latest",
        "Gemini 2.5 Flash Native Audio Latest",
    ),
    GEMINI_3_5_LIVE_TRANSLATE,
    GEMINI_3_5_TRANSCRIBE_LIVE,
    GEMINI_ROBOTICS_ER_2,
)
"""What the Developer API serves, by the name after `models/`."""

VERTEX_PROFILES: Mapping[str, Profile] = _by_name(
    vertex_profile(GEMINI_3_8_LIVE),
    vertex_profile(GEMINI_3_8_LIVE_EXTENDED_THINKING),
    vertex_profile(
        _named(
            GEMINI_2_5_FLASH_NATIVE_AUDIO,
            "gemini-live-2.5-flash-native-audio",
            "Gemini Live 2.5 Flash Native Audio",
        )
    ),
    vertex_profile(
        replace(
            _named(GEMINI_2_5_FLASH_NATIVE_AUDIO, "gemini-live-2.5-flash", "Gemini Live 2.5 Flash"),
            modalities=_SPEAKS_TEXT_TOO,
            thinking="none",
            thoughts="asked",
        )
    ),
    vertex_profile(
        _named(
            GEMINI_3_5_TRANSCRIBE_LIVE,
            "gemini-3.5-transcribe-live-preview",
            "Gemini 3.5 Transcribe Live Preview",
        )
    ),
)
"""What Vertex AI serves, by the last part of the model's path."""
