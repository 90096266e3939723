"""What each simulated model does differently, as data.

The facts were read from Google's pages, recordings and reports; docs/simulator.md marks which of them are
documented and which were only observed by others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Profile:
    """One model. Times are seconds at speed 1."""

    name: str
    display_name: str
    modalities: frozenset[str]
    tools: frozenset[str]
    takes_thinking: bool
    takes_affective_dialog: bool
    takes_proactivity_off: bool
    takes_media_chunks: bool
    context_tokens: int
    output_tokens: int
    setup_s: float
    silence_ms: int  # automatic end of speech, when the client does not set silenceDurationMs
    first_audio_s: float  # from the end of the user's speech, its silence included
    after_tool_s: float  # from the tool response to the next sound
    chunk_bytes: tuple[int, ...]  # first messages of an utterance; the last two alternate from then on
    pace: float  # how many times faster than real time the audio is sent
    role_in_model_turn: bool
    empty_messages: bool  # `{}` around generation
    voice_activity: bool  # unasked voiceActivity messages
    cancels_calls: bool  # barge-in while a call is open sends toolCallCancellation
    call_id_prefix: str


GEMINI_3_8_LIVE = Profile(
    name="gemini-3.8-live",
    display_name="Gemini 3.8 Live (local simulator)",
    modalities=frozenset({"AUDIO"}),
    tools=frozenset({"functionDeclarations", "googleSearch"}),
    takes_thinking=False,
    takes_affective_dialog=False,
    takes_proactivity_off=False,
    takes_media_chunks=False,
    context_tokens=131_072,
    output_tokens=65_536,
    setup_s=0.3,
    silence_ms=500,
    first_audio_s=0.7,
    after_tool_s=0.3,
    chunk_bytes=(2, 2_400, 7_680, 9_600, 11_520, 15_360),
    pace=3.7,
    role_in_model_turn=True,
    empty_messages=True,
    voice_activity=True,
    cancels_calls=True,
    call_id_prefix="fc_",
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (GEMINI_3_8_LIVE,)}
