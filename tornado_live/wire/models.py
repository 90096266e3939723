"""What each Live model can do, as far as this side must know it. Each fact names its evidence.

DOC: Google's page of the model (ai.google.dev/gemini-api/docs/models/…). OBS: reported by others, not verified
here. A model that is not listed is taken for the newest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LiveModel:
    """`modalities` it answers in; `typed` is the message that carries a typed user turn.

    `behavior` is what a function declaration must say for a call that the model waits for: BLOCKING where
    the model would talk on by default, None where waiting is the only way or must not be named.
    """

    modalities: frozenset[str]
    typed: Literal["clientContent", "realtimeInput"] = "clientContent"
    behavior: Literal["BLOCKING"] | None = None


_AUDIO = frozenset({"AUDIO"})

_MODELS: tuple[tuple[str, LiveModel], ...] = (
    # DOC gemini-3.8-live-extended-thinking: BLOCKING is an error.
    ("gemini-3.8-live-extended-thinking", LiveModel(_AUDIO)),
    # DOC gemini-3.8-live: NON_BLOCKING is the default, clientContent over the whole session, no TEXT.
    ("gemini-3.8-live", LiveModel(_AUDIO, behavior="BLOCKING")),
    # OBS livekit/agents-js#1179: clientContent in a running session was refused with 1007.
    ("gemini-3.1-flash-live", LiveModel(_AUDIO, typed="realtimeInput")),
    # DOC: synchronous calls are the default; TEXT is refused by native audio.
    ("gemini-2.5-flash-native-audio", LiveModel(_AUDIO)),
    # DOC: answers in text only.
    ("gemini-3.5-transcribe-live", LiveModel(frozenset({"TEXT"}))),
    ("gemini-robotics-er-2-streaming", LiveModel(frozenset({"TEXT"}))),
    # DOC Vertex: the half-cascade model answers in text too.
    ("gemini-live-2.5-flash", LiveModel(frozenset({"AUDIO", "TEXT"}))),
)

_UNLISTED = LiveModel(frozenset({"AUDIO", "TEXT"}))


def live_model(name: str) -> LiveModel:
    """Facts by model name, with or without `models/` or a Vertex path before it."""
    short = name.rsplit("/", 1)[-1]
    for prefix, facts in _MODELS:
        if short.startswith(prefix):
            return facts
    return _UNLISTED
