"""What a client asks for, against what the operator allows."""

from __future__ import annotations

import pytest
from modelling import MODELS

from tornado_live.errors import Forbidden
from tornado_live.live.options import plan
from tornado_live.settings import Assistant
from tornado_live.wire.native import ConnectOptions

BASE = Assistant(
    "default",
    "gemini-3.8-live",
    {"systemInstruction": "Be kind.", "speechConfig": {"languageCode": "de"}},
    None,
)
SUPPORT = Assistant("support", "something-new", {}, ("get_weather",))
ASSISTANTS = {"default": BASE, "support": SUPPORT}
ALL = frozenset({"model", "voice", "language", "modality", "activity", "systemInstruction"})


def test_without_options_the_assistant_is_as_configured() -> None:
    made = plan(ConnectOptions(), ASSISTANTS, "default", (), MODELS)
    assert made.facts == MODELS.of("gemini-3.8-live")
    assert (made.assistant, made.model, made.config, made.toolset) == (
        "default",
        BASE.model,
        BASE.config,
        None,
    )


def test_options_are_laid_over_the_configuration_without_changing_it() -> None:
    options = ConnectOptions(
        voice="Kore", language="en-US", system_instruction="Be brief.", activity="manual"
    )
    made = plan(options, ASSISTANTS, "default", ALL, MODELS)
    assert made.config == {
        "systemInstruction": "Be brief.",
        "speechConfig": {
            "languageCode": "en-US",
            "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
        },
        "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}},
    }
    assert BASE.config["speechConfig"] == {"languageCode": "de"}


def test_another_assistant_brings_its_model_and_tools() -> None:
    made = plan(ConnectOptions(assistant="support", modality="TEXT"), ASSISTANTS, "default", ALL, MODELS)
    assert (made.model, made.toolset) == ("something-new", ("get_weather",))
    assert made.config["responseModalities"] == ["TEXT"]
    assert not made.facts.listed


def test_an_unknown_assistant_is_answered_with_the_nearest() -> None:
    with pytest.raises(Forbidden, match='did you mean "support"'):
        plan(ConnectOptions(assistant="suport"), ASSISTANTS, "default", ALL, MODELS)


@pytest.mark.parametrize(
    "options",
    [
        ConnectOptions(model="m"),
        ConnectOptions(voice="v"),
        ConnectOptions(language="l"),
        ConnectOptions(modality="AUDIO"),
        ConnectOptions(system_instruction="s"),
        ConnectOptions(activity="manual"),
    ],
)
def test_what_the_operator_does_not_allow_is_forbidden(options: ConnectOptions) -> None:
    with pytest.raises(Forbidden, match="may not choose"):
        plan(options, ASSISTANTS, "default", (), MODELS)


def test_what_the_model_cannot_do_is_forbidden() -> None:
    with pytest.raises(Forbidden, match="AUDIO only"):
        plan(ConnectOptions(modality="TEXT"), ASSISTANTS, "default", ALL, MODELS)
