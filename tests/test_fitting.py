"""Setups fitted to what their model takes; what was changed is said in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelling import MODELS

from tornado_live.jsonvalue import Json
from tornado_live.wire import gemini
from tornado_live.wire.fitting import fit

LIVE = "gemini-3.8-live"
THINKING = "gemini-3.8-live-extended-thinking"
OLD = "gemini-2.5-flash-native-audio-latest"
LEGACY = "gemini-3.1-flash-live-preview"
TRANSLATE = "gemini-3.5-live-translate-preview"
TRANSCRIBE = "gemini-3.5-transcribe-live"
VERTEX = MODELS.on_vertex("projects/p/locations/l/publishers/google/models")


def fitted(
    model: str, config: Mapping[str, Json], *, vertex: bool = False
) -> tuple[dict[str, Json], list[str]]:
    facts = (VERTEX if vertex else MODELS).of(model)
    made, changes = fit(facts, gemini.setup(model, config))
    return made, list(changes)


def generation(model: str, config: Mapping[str, Json]) -> tuple[Json, list[str]]:
    made, changes = fitted(model, config)
    return made["generationConfig"], changes


@pytest.mark.parametrize(
    ("model", "asked", "answered", "changes"),
    [
        (LIVE, None, "AUDIO", []),
        (TRANSCRIBE, None, "TEXT", []),
        (LIVE, "AUDIO", "AUDIO", []),
        (
            LIVE,
            "TEXT",
            "AUDIO",
            [
                "responseModalities: AUDIO, gemini-3.8-live answers in that only; its words come as transcription"
            ],
        ),
        (
            TRANSCRIBE,
            "AUDIO",
            "TEXT",
            ["responseModalities: TEXT, gemini-3.5-transcribe-live answers in that only"],
        ),
        ("gemini-live-2.5-flash", "TEXT", "TEXT", []),
        ("gemini-9-live", "TEXT", "TEXT", []),
    ],
)
def test_a_model_answers_in_what_it_can(
    model: str, asked: str | None, answered: str, changes: list[str]
) -> None:
    config: dict[str, Json] = {} if asked is None else {"responseModalities": [asked]}
    assert generation(model, config) == ({"responseModalities": [answered]}, changes)


def test_an_answer_in_text_has_no_voice() -> None:
    config: dict[str, Json] = {"responseModalities": ["TEXT"], "speechConfig": {"languageCode": "de"}}
    assert generation("gemini-live-2.5-flash", config) == (
        {"responseModalities": ["TEXT"]},
        ["speechConfig: left out, an answer without AUDIO has no voice"],
    )


@pytest.mark.parametrize(
    ("model", "asked", "sent", "changes"),
    [
        (LIVE, None, None, []),
        (LIVE, {"thinkingLevel": "LOW"}, None, ["thinkingConfig: left out, gemini-3.8-live refuses it"]),
        (OLD, {"thinkingBudget": 0}, {"thinkingBudget": 0}, []),
        (
            OLD,
            {"thinkingLevel": "LOW", "includeThoughts": True},
            {"includeThoughts": True},
            ["thinkingConfig.thinkingLevel: left out, gemini-2.5-flash-native-audio takes a thinkingBudget"],
        ),
        (LEGACY, {"thinkingLevel": "MINIMAL"}, {"thinkingLevel": "MINIMAL"}, []),
        (
            LEGACY,
            {"thinkingBudget": 10},
            None,
            ["thinkingConfig.thinkingBudget: left out, gemini-3.1-flash-live takes a thinkingLevel"],
        ),
        (THINKING, {"thinkingLevel": "HIGH"}, {"thinkingLevel": "HIGH"}, []),
        (
            THINKING,
            None,
            {"thinkingLevel": "LOW"},
            [
                "thinkingConfig.thinkingLevel: LOW, gemini-3.8-live-extended-thinking wants one of"
                " LOW, MEDIUM, HIGH"
            ],
        ),
        (
            THINKING,
            {"thinkingBudget": 9, "includeThoughts": True},
            {"thinkingLevel": "LOW", "includeThoughts": True},
            [
                "thinkingConfig.thinkingBudget: left out, gemini-3.8-live-extended-thinking takes a"
                " thinkingLevel",
                "thinkingConfig.thinkingLevel: LOW, gemini-3.8-live-extended-thinking wants one of"
                " LOW, MEDIUM, HIGH",
            ],
        ),
        ("gemini-9-live", {"thinkingLevel": "LOW"}, {"thinkingLevel": "LOW"}, []),
    ],
)
def test_thinking_is_asked_for_in_the_form_that_the_model_takes(
    model: str, asked: Json, sent: Json, changes: list[str]
) -> None:
    made, told = generation(model, {} if asked is None else {"thinkingConfig": asked})
    assert isinstance(made, dict)
    assert (made.get("thinkingConfig"), told) == (sent, changes)


def test_what_was_removed_on_a_model_is_left_out() -> None:
    config: dict[str, Json] = {"enableAffectiveDialog": True, "proactivity": {"proactiveAudio": False}}
    made, changes = fitted(LIVE, config)
    assert "proactivity" not in made
    assert made["generationConfig"] == {"responseModalities": ["AUDIO"]}
    assert changes == [
        "enableAffectiveDialog: left out, gemini-3.8-live refuses it",
        "proactivity.proactiveAudio: left out, gemini-3.8-live is always proactive",
    ]
    assert fitted(OLD, config)[1] == []
    assert fitted(LIVE, {"proactivity": {"proactiveAudio": True}})[1] == []
    assert fitted(LEGACY, {"proactivity": {"proactiveAudio": True, "proactiveVideo": True}}) == (
        {
            "model": f"models/{LEGACY}",
            "generationConfig": {"responseModalities": ["AUDIO"]},
            "proactivity": {"proactiveVideo": True},
        },
        ["proactivity.proactiveAudio: left out, gemini-3.1-flash-live refuses it"],
    )


def test_a_model_that_translates_is_told_into_what() -> None:
    def target(config: dict[str, Json]) -> tuple[Json, list[str]]:
        made, changes = generation(TRANSLATE, config)
        assert isinstance(made, dict)
        return made["translationConfig"], changes

    asked: dict[str, Json] = {"targetLanguageCode": "es", "echoTargetLanguage": True}
    assert target({"translationConfig": asked}) == (asked, [])
    told = "translationConfig.targetLanguageCode: {}, gemini-3.5-live-translate wants one; write the language that"
    assert target({}) == ({"targetLanguageCode": "en"}, [f"{told.format('en')} you want"])
    assert target({"speechConfig": {"languageCode": "it-IT"}}) == (
        {"targetLanguageCode": "it-IT"},
        [f"{told.format('it-IT')} you want"],
    )
    assert generation(LIVE, {"translationConfig": asked})[1] == [
        "translationConfig: left out, gemini-3.8-live does not translate"
    ]


def test_a_model_that_does_a_fixed_job_gets_no_instruction() -> None:
    config: dict[str, Json] = {"systemInstruction": "Be kind."}
    for model in (TRANSLATE, TRANSCRIBE):
        made = gemini.conversation_setup(MODELS.of(model), config, [], history=TURNS)
        assert "systemInstruction" not in json.loads(made.payload)["setup"]
        assert f"systemInstruction: left out, {MODELS.of(model).name} takes none" in made.changes


def test_tools_of_the_configuration_are_those_that_the_model_has() -> None:
    config: dict[str, Json] = {
        "tools": [
            {"googleSearch": {}},
            {"functionDeclarations": [{"name": "a", "behavior": "BLOCKING"}, {"name": "b"}]},
        ]
    }
    assert fitted(LIVE, config)[1] == []
    made, changes = fitted(THINKING, config)
    assert made["tools"] == [{"googleSearch": {}}, {"functionDeclarations": [{"name": "a"}, {"name": "b"}]}]
    assert changes[1:] == [
        "a: behavior BLOCKING left out, gemini-3.8-live-extended-thinking has NON_BLOCKING only"
    ]
    made, changes = fitted(TRANSCRIBE, config)
    assert "tools" not in made
    assert changes == [
        "googleSearch: left out, gemini-3.5-transcribe-live does not search",
        "functionDeclarations: left out, gemini-3.5-transcribe-live takes no functions",
    ]


def test_what_only_vertex_ai_takes_goes_there_only() -> None:
    config: dict[str, Json] = {"explicitVadSignal": True, "sessionResumption": {"transparent": True}}
    made, changes = fitted(LIVE, config)
    assert made.keys() == {"model", "generationConfig"}
    assert changes == [
        "sessionResumption.transparent: left out, only Vertex AI takes it",
        "explicitVadSignal: left out, only Vertex AI takes it",
    ]
    made, changes = fitted(LIVE, config, vertex=True)
    assert (made["explicitVadSignal"], made["sessionResumption"], changes) == (
        True,
        {"transparent": True},
        [],
    )


def test_a_turn_coverage_that_vertex_ai_refuses_is_left_out_there() -> None:
    coverage = "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO"
    config: dict[str, Json] = {
        "realtimeInputConfig": {"turnCoverage": coverage, "activityHandling": "NO_INTERRUPTION"}
    }
    assert fitted(LIVE, config)[1] == []
    made, changes = fitted(LIVE, config, vertex=True)
    assert made["realtimeInputConfig"] == {"activityHandling": "NO_INTERRUPTION"}
    assert changes == [f"realtimeInputConfig.turnCoverage: left out, Vertex AI refuses {coverage}"]


def test_handles_and_history_are_the_servers_own() -> None:
    config: dict[str, Json] = {
        "sessionResumption": {"handle": "h"},
        "historyConfig": {"initialHistoryInClientContent": True},
    }
    made, changes = fitted(LIVE, config)
    assert made.keys() == {"model", "generationConfig"}
    assert changes == [
        "sessionResumption.handle: left out, handles are kept by this server",
        "historyConfig: left out, this server says it where there is a history",
    ]


def test_compression_is_left_out_where_it_is_not_taken() -> None:
    without = replace(MODELS.of(LIVE), compression=False, resumption=False)
    config: dict[str, Json] = {"contextWindowCompression": {"slidingWindow": {}}}
    made = gemini.conversation_setup(without, config, [], handle="h")
    setup = json.loads(made.payload)["setup"]
    assert "contextWindowCompression" not in setup
    assert "sessionResumption" not in setup
    assert made.changes == ("contextWindowCompression: left out, gemini-3.8-live does not take it",)


# Functions of tools.yaml


def declared(model: str, *background: str) -> tuple[Json, list[str]]:
    functions: list[Mapping[str, Json]] = [{"name": "a"}, {"name": "b"}]
    made = gemini.conversation_setup(MODELS.of(model), {}, functions, background=frozenset(background))
    tools = json.loads(made.payload)["setup"].get("tools")
    fitted = [change for change in made.changes if not change.startswith(("thinking", "translation"))]
    return (tools[0]["functionDeclarations"] if tools else None), fitted


@pytest.mark.parametrize(
    ("model", "background", "sent", "changes"),
    [
        (LIVE, (), [{"name": "a", "behavior": "BLOCKING"}, {"name": "b", "behavior": "BLOCKING"}], []),
        (LIVE, ("b",), [{"name": "a", "behavior": "BLOCKING"}, {"name": "b"}], []),
        (OLD, ("b",), [{"name": "a"}, {"name": "b", "behavior": "NON_BLOCKING"}], []),
        (
            LEGACY,
            ("b",),
            [{"name": "a"}, {"name": "b"}],
            ["b: answered at once and told later, gemini-3.1-flash-live has no calls in the background"],
        ),
        (
            THINKING,
            ("b",),
            [{"name": "a"}, {"name": "b"}],
            ["a: not waited for, gemini-3.8-live-extended-thinking talks on during every call"],
        ),
        (TRANSLATE, (), None, ["tools: left out, gemini-3.5-live-translate takes no functions"]),
    ],
)
def test_a_function_is_waited_for_or_not_as_far_as_the_model_can(
    model: str, background: tuple[str, ...], sent: Json, changes: list[str]
) -> None:
    assert declared(model, *background) == (sent, changes)


# Memory and handles


TURNS = [("user", "My name is Ada."), ("model", "Hello Ada.\nHow are you?")]


def test_memory_reaches_a_fresh_session_in_the_form_that_the_model_takes() -> None:
    def seeded(model: str) -> tuple[Json, Json, Json]:
        facts = MODELS.of(model)
        setup = json.loads(
            gemini.conversation_setup(facts, {"systemInstruction": "Be brief."}, [], history=TURNS).payload
        )
        message = gemini.history(facts, TURNS)
        texts = [part["text"] for part in setup["setup"]["systemInstruction"]["parts"]]
        return setup["setup"].get("historyConfig"), texts, json.loads(message) if message else None

    turns = [{"role": role, "parts": [{"text": text}]} for role, text in TURNS]
    assert seeded(LIVE) == (
        {"initialHistoryInClientContent": True},
        ["Be brief."],
        {"clientContent": {"turns": turns, "turnComplete": True}},
    )
    assert seeded("gemini-live-2.5-flash") == (
        None,
        ["Be brief."],
        {"clientContent": {"turns": turns, "turnComplete": False}},
    )
    config, texts, message = seeded(OLD)
    assert (config, message) == (None, None)
    assert isinstance(texts, list)
    brief, memory = texts
    assert brief == "Be brief."
    assert isinstance(memory, str)
    assert memory.endswith("\nUser: My name is Ada.\nYou: Hello Ada. How are you?")


@pytest.mark.parametrize("model", [LIVE, OLD, "gemini-live-2.5-flash"])
def test_a_session_that_is_resumed_is_told_nothing(model: str) -> None:
    facts = MODELS.of(model)
    resumed = json.loads(gemini.conversation_setup(facts, {}, [], history=TURNS, handle="h").payload)["setup"]
    fresh = json.loads(gemini.conversation_setup(facts, {}, []).payload)["setup"]
    assert resumed == {**fresh, "sessionResumption": {"handle": "h"}}
    assert fresh["sessionResumption"] == {}


def test_a_handle_is_added_to_a_transparent_resumption() -> None:
    config: dict[str, Json] = {"sessionResumption": {"transparent": True}}
    made = gemini.conversation_setup(VERTEX.of(LIVE), config, [], handle="h")
    assert json.loads(made.payload)["setup"]["sessionResumption"] == {"transparent": True, "handle": "h"}


def test_a_model_that_nobody_described_is_warned_of_once() -> None:
    config: dict[str, Json] = {
        "enableAffectiveDialog": True,
        "proactivity": {"proactiveAudio": False},
        "tools": [{"functionDeclarations": [{"name": "a", "behavior": "NON_BLOCKING"}]}],
    }
    made = gemini.conversation_setup(MODELS.of("gemini-9-live"), config, [])
    setup = json.loads(made.payload)["setup"]
    assert (setup["tools"], setup["proactivity"]) == (config["tools"], config["proactivity"])
    assert setup["generationConfig"]["enableAffectiveDialog"] is True
    (warning,) = made.changes
    assert "gemini-9-live is not in models.yaml" in warning


# Any configuration


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "responseModalities": st.lists(st.sampled_from(["AUDIO", "TEXT"]), max_size=2),
        "speechConfig": st.just({"languageCode": "de"}),
        "thinkingConfig": st.fixed_dictionaries(
            {}, optional={"thinkingLevel": st.sampled_from(["MINIMAL", "HIGH"]), "thinkingBudget": st.just(5)}
        ),
        "enableAffectiveDialog": st.booleans(),
        "proactivity": st.fixed_dictionaries({}, optional={"proactiveAudio": st.booleans()}),
        "translationConfig": st.just({"targetLanguageCode": "es"}),
        "historyConfig": st.just({"initialHistoryInClientContent": True}),
        "sessionResumption": st.sampled_from([{}, {"handle": "h"}, {"transparent": True}]),
        "contextWindowCompression": st.just({"slidingWindow": {}}),
        "tools": st.just(
            [{"googleSearch": {}}, {"functionDeclarations": [{"name": "a", "behavior": "BLOCKING"}]}]
        ),
    },
)


@given(st.sampled_from([*MODELS.names, "gemini-9-live"]), st.booleans(), CONFIGS)
def test_what_is_fitted_already_is_not_changed_again(
    model: str, vertex: bool, config: dict[str, Json]
) -> None:
    facts = (VERTEX if vertex else MODELS).of(model)
    setup = gemini.setup(model, config)
    before = copy.deepcopy(setup)
    once, _ = fit(facts, setup)
    assert setup == before
    assert fit(facts, once) == (once, ())
