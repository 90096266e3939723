"""What a client asks for against what the operator allows: the plan of a conversation. Pure."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tornado_live.errors import Forbidden, nearest
from tornado_live.jsonvalue import Json
from tornado_live.settings import Assistant
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel, Models
from tornado_live.wire.native import ConnectOptions


@dataclass(frozen=True, slots=True)
class AssistantPlan:
    """What an assistant says (live/plan.py). `config` is LiveConnectConfig as camelCase JSON."""

    assistant: str
    model: str
    facts: LiveModel
    config: Mapping[str, Json]
    toolset: tuple[str, ...] | None
    manual: bool = False

    @property
    def may_stay_silent(self) -> bool:
        proactivity = self.config.get("proactivity")
        chosen = isinstance(proactivity, dict) and proactivity.get("proactiveAudio") is True
        return chosen or self.facts.proactive_audio == "always" or not self.facts.converses

    @property
    def identity(self) -> str:
        setup = self.opening((), background=frozenset(), history=(), handle=None, first=True)
        return hashlib.sha256(setup.payload).hexdigest()[:16]

    def opening(
        self,
        declarations: Sequence[Mapping[str, Json]],
        *,
        background: frozenset[str],
        history: Sequence[tuple[str, str]],
        handle: str | None,
        first: bool,
    ) -> gemini.Setup:
        return gemini.conversation_setup(
            self.facts, self.config, declarations, background=background, history=history, handle=handle
        )


def plan(
    options: ConnectOptions,
    assistants: Mapping[str, Assistant],
    default: str,
    allowed: Collection[str],
    models: Models,
) -> AssistantPlan:
    """The conversation that `options` ask for. Raises Forbidden with the reason."""
    name = options.assistant or default
    assistant = assistants.get(name)
    if assistant is None:
        raise Forbidden(f'There is no assistant "{name[:60]}"{nearest(name, assistants)}')
    asked = {
        "model": options.model,
        "voice": options.voice,
        "language": options.language,
        "modality": options.modality,
        "systemInstruction": options.system_instruction,
        "activity": "manual" if options.activity == "manual" else None,
    }
    for option, value in asked.items():
        if value is not None and option not in allowed:
            raise Forbidden(
                f"{option}: clients of this server may not choose it; leave it out. "
                f"(Operator: allow_client_options names what they may.)"
            )
    model = options.model or assistant.model
    facts = models.of(model)
    config: dict[str, Json] = copy.deepcopy(dict(assistant.config))
    if options.modality is not None:
        if options.modality not in facts.modalities:
            can = " or ".join(sorted(facts.modalities))
            raise Forbidden(f"modality: {model} answers in {can} only; its words come as transcription.")
        config["responseModalities"] = [options.modality]
    if options.system_instruction is not None:
        config["systemInstruction"] = options.system_instruction
    if options.voice is not None:
        voice: dict[str, Json] = {"prebuiltVoiceConfig": {"voiceName": options.voice}}
        _section(config, "speechConfig")["voiceConfig"] = voice
    if options.language is not None:
        _section(config, "speechConfig")["languageCode"] = options.language
    if options.activity == "manual":
        _section(_section(config, "realtimeInputConfig"), "automaticActivityDetection")["disabled"] = True
    return AssistantPlan(name, model, facts, config, assistant.toolset, options.activity == "manual")


def _section(parent: dict[str, Json], key: str) -> dict[str, Json]:
    found = parent.get(key)
    made: dict[str, Json] = found if isinstance(found, dict) else {}
    parent[key] = made
    return made
