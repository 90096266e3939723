"""What a client of Google's protocol asks for, what the operator allows of it, and what is sent for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from capturing import sent_by_the_sdk
from dialling import dialled
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from modelling import MODELS
from simulating import Simulator

from tornado_live.errors import BadMessage, Forbidden
from tornado_live.jsonvalue import Json
from tornado_live.live.guest import EVERY_FIELD, REASON_BYTES, GuestPlan, guest_plan, merged_update
from tornado_live.settings import Assistant, DropIn
from tornado_live.wire import gemini
from tornado_live.wire.gemini_client import decode

ASSISTANTS = {
    "default": Assistant("default", "gemini-3.8-live", {"systemInstruction": "Ours."}),
    "shop": Assistant("shop", "gemini-3.1-flash-live-preview", {}, ("find_product",)),
}
FREE = DropIn(enabled=True, assistant="default", models={}, only_models=frozenset(), fields=None)
NAME = {"type": "object", "properties": {"the_name": {"type": "string"}}}
OURS: list[dict[str, Json]] = [
    {"name": "get_weather", "description": "Weather.", "parametersJsonSchema": {"type": "object"}},
    {"name": "find_product", "description": "Products.", "parametersJsonSchema": {**NAME}},
]
SPOKEN = [("user", "My name is Ada."), ("model", "Hello, Ada.")]


def plan(asked: Mapping[str, Any], policy: DropIn = FREE) -> GuestPlan:
    return guest_plan(asked, policy, MODELS, ASSISTANTS)


def opened(
    made: GuestPlan,
    *,
    declarations: list[dict[str, Json]] = OURS,
    history: list[tuple[str, str]] | None = None,
    handle: str | None = None,
    first: bool = True,
    background: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    payload = made.opening(
        declarations, background=background, history=history or [], handle=handle, first=first
    ).payload
    setup = json.loads(payload)["setup"]
    assert isinstance(setup, dict)
    return setup


# --- what is asked for


def test_a_bare_setup_gets_what_a_session_needs_that_does_not_drop() -> None:
    made = plan({"model": "models/gemini-3.8-live"})
    assert (made.assistant, made.model, made.toolset) == ("default", "gemini-3.8-live", None)
    flags = (made.wants_handles, made.hears_user, made.hears_model, made.manual, made.gives_history)
    assert not any(flags)
    assert (made.handle, made.functions) == (None, frozenset())
    assert opened(made) == {
        "model": "models/gemini-3.8-live",
        "tools": [{"functionDeclarations": [{**one, "behavior": "BLOCKING"} for one in OURS]}],
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
        "contextWindowCompression": {"slidingWindow": {}},
        "sessionResumption": {},
    }


ASKS: dict[str, Any] = {
    "sessionResumption": {"handle": "a-handle"},
    "inputAudioTranscription": {},
    "outputAudioTranscription": {"languageCodes": ["en-US"]},
    "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}},
    "historyConfig": {"initialHistoryInClientContent": True},
    "tools": [
        {"functionDeclarations": [{"name": "a"}, {"name": "b"}]},
        {"googleSearch": {}},
        {"functionDeclarations": {"name": "c"}},
    ],
}


@pytest.mark.parametrize("spelled", ["camel", "snake"])
def test_what_a_client_asks_for_is_read_in_both_spellings(spelled: str) -> None:
    asked = ASKS if spelled == "camel" else snake(ASKS)
    made = plan({"model": "m", **asked})
    assert made.wants_handles
    assert made.hears_user
    assert made.hears_model
    assert made.manual
    assert made.gives_history
    assert made.handle == "a-handle"
    assert made.functions == {"a", "b", "c"}


def test_the_toolset_is_that_of_the_assistant_and_nothing_else_of_it_counts() -> None:
    made = plan({}, replace(FREE, assistant="shop"))
    assert (made.assistant, made.toolset) == ("shop", ("find_product",))
    assert "systemInstruction" not in opened(plan({"model": "m"}))


def test_a_model_may_take_speech_for_not_being_meant_for_it() -> None:
    assert plan({"model": "gemini-3.8-live"}).may_stay_silent
    assert plan({"model": "gemini-3.5-live-translate"}).may_stay_silent
    assert not plan({"model": "gemini-2.5-flash-native-audio"}).may_stay_silent
    asked = {"model": "gemini-2.5-flash-native-audio", "proactivity": {"proactive_audio": True}}
    assert plan(asked).may_stay_silent


def test_a_function_is_waited_for_as_its_declaration_says_or_as_the_model_does() -> None:
    tools = [{"function_declarations": [{"name": "a"}, {"name": "b", "behavior": "BLOCKING"}]}]
    on_3_8 = plan({"model": "gemini-3.8-live", "tools": tools})
    assert (on_3_8.waits_for("a"), on_3_8.waits_for("b")) == (False, True)
    on_3_1 = plan({"model": "gemini-3.1-flash-live", "tools": tools})
    assert (on_3_1.waits_for("a"), on_3_1.waits_for("b")) == (True, True)


# --- the model


@pytest.mark.parametrize(
    "asked",
    [
        "gemini-3.8-live",
        "models/gemini-3.8-live",
        "publishers/google/models/gemini-3.8-live",
        "projects/p/locations/us-central1/publishers/google/models/gemini-3.8-live",
    ],
)
def test_a_model_is_the_same_in_all_its_forms(asked: str) -> None:
    made = plan({"model": asked})
    assert (made.model, opened(made)["model"]) == ("gemini-3.8-live", "models/gemini-3.8-live")
    parent = "projects/ours/locations/europe-west4/publishers/google/models"
    there = guest_plan({"model": asked}, FREE, MODELS.on_vertex(parent), ASSISTANTS)
    assert (there.model, opened(there)["model"]) == ("gemini-3.8-live", f"{parent}/gemini-3.8-live")
    assert there.facts.vertex


def test_models_are_mapped_by_their_names() -> None:
    policy = replace(FREE, models={"gemini-2.0-flash-exp": "gemini-3.8-live", "*": "gemini-3.1-flash-live"})
    assert plan({"model": "models/gemini-2.0-flash-exp"}, policy).model == "gemini-3.8-live"
    other = plan({"model": "gemini-3.8-live"}, policy)
    assert (other.model, other.facts.name) == ("gemini-3.1-flash-live", "gemini-3.1-flash-live")
    assert opened(other)["model"] == "models/gemini-3.1-flash-live"
    assert plan({"model": "models/gemini-9"}, replace(policy, models={})).model == "gemini-9"


@pytest.mark.parametrize("asked", [{}, {"model": None}, {"model": ""}])
def test_without_a_model_it_is_the_assistants(asked: dict[str, Any]) -> None:
    made = plan(asked, replace(FREE, assistant="shop", only_models=frozenset({"another"})))
    assert opened(made)["model"] == "models/gemini-3.1-flash-live-preview"


@pytest.mark.parametrize(
    "asked",
    [
        "gemini-3.1-flash-live",
        "models/gemini-3.1-flash-live",
        "publishers/google/models/gemini-3.1-flash-live",
        "models/gemini-3.8-live/../gemini-3.1-flash-live",
        "gemini-3.1-flash-live/gemini-3.8-live",
        "tunedModels/gemini-3.8-live",
        "projects/p/locations/l/endpoints/gemini-3.8-live",
        "models/models/gemini-3.8-live",
        "gemini-3.8-live ",
        "Gemini-3.8-Live",
        "gemini-3.8-live\u200b",
        "é" * 500,
    ],
)
def test_only_the_models_that_the_operator_allows_are_to_be_had(asked: str) -> None:
    policy = replace(FREE, only_models=frozenset({"gemini-3.8-live"}))
    with pytest.raises(Forbidden, match=r"is not allowed here; allowed: gemini-3\.8-live$") as refused:
        plan({"model": asked}, policy)
    assert len(refused.value.message.encode()) <= REASON_BYTES


def test_what_is_allowed_counts_after_the_mapping() -> None:
    policy = replace(FREE, models={"old": "new"}, only_models=frozenset({"new"}))
    assert plan({"model": "models/old"}, policy).model == "new"
    assert plan({"model": "models/new"}, policy).model == "new"
    with pytest.raises(Forbidden):
        plan({"model": "models/other"}, policy)


def test_another_path_than_that_of_a_model_is_sent_as_it_is() -> None:
    assert opened(plan({"model": "tunedModels/mine"}))["model"] == "tunedModels/mine"


# --- the fields


SOME = replace(FREE, fields=frozenset({"generationConfig.speechConfig", "tools.functionDeclarations"}))


@pytest.mark.parametrize(
    "asked",
    [
        {"sessionResumption": {"handle": "h"}},
        {"session_resumption": {}},
        {"generationConfig": {"speechConfig": {"languageCode": "de"}}},
        {"generation_config": {"speech_config": {"voice_config": {}}}},
        {"generationConfig": {}},
        {"generationConfig": {"temperature": None}, "systemInstruction": None},
        {"tools": [{"functionDeclarations": [{"name": "f"}]}, {"function_declarations": []}]},
        {"tools": {"functionDeclarations": [{"name": "f"}]}},
        {"tools": []},
    ],
)
def test_what_the_operator_allows_may_be_sent(asked: dict[str, Any]) -> None:
    assert plan({"model": "m", **asked}, SOME).model == "m"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"systemInstruction": {"parts": [{"text": "x"}]}}, "setup.systemInstruction"),
        ({"system_instruction": {"parts": [{"text": "x"}]}}, "setup.systemInstruction"),
        ({"generationConfig": {"temperature": 1}}, "setup.generationConfig.temperature"),
        (
            {"generation_config": {"response_modalities": ["TEXT"]}},
            "setup.generationConfig.responseModalities",
        ),
        ({"generationConfig": {"speechConfig": {}, "topP": 1}}, "setup.generationConfig.topP"),
        ({"generationConfig.speechConfig": {"x": 1}}, "setup.generationConfig.speechConfig"),
        ({"tools": [{"functionDeclarations": []}, {"googleSearch": {}}]}, "setup.tools.googleSearch"),
        ({"tools": {"code_execution": {}}}, "setup.tools.codeExecution"),
        ({"tools": [[{"googleSearch": {}}]]}, "setup.tools"),
        ({"tools": "x"}, "setup.tools"),
        ({"setup": {"systemInstruction": {}}}, "setup.setup"),
        ({"_generationConfig": {}}, "setup._generationConfig"),
        ({"somethingNew": 1}, "setup.somethingNew"),
        ({"ü" * 200: 1}, "setup.ü"),
    ],
)
def test_what_the_operator_does_not_allow_is_forbidden(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(Forbidden) as refused:
        plan({"model": "m", **asked}, SOME)
    message = refused.value.message
    assert message.startswith(field)
    assert "allowed: generationConfig.speechConfig" in message
    assert len(message.encode()) <= REASON_BYTES


def test_where_nothing_may_be_sent_the_refusal_says_so() -> None:
    with pytest.raises(Forbidden, match=r"allowed: nothing$"):
        plan({"tools": []}, replace(FREE, fields=frozenset()))


@pytest.mark.parametrize(
    "asked",
    [
        {"systemInstruction": {}, "system_instruction": {}},
        {"sessionResumption": None, "session_resumption": {"handle": "h"}},
        {"generationConfig": {"responseModalities": ["TEXT"], "response_modalities": ["AUDIO"]}},
        {"realtimeInputConfig": {"automaticActivityDetection": {}, "automatic_activity_detection": {}}},
        {"tools": [{"functionDeclarations": [], "function_declarations": []}]},
        {"tools": {"functionDeclarations": [], "function_declarations": []}},
        {"x" * 200 + "Yz": 1, "x" * 200 + "_yz": 1},
    ],
)
def test_one_field_in_both_spellings_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match="has both") as refused:
        plan({"model": "m", **asked})
    assert len(refused.value.message.encode()) <= REASON_BYTES


@pytest.mark.parametrize(
    "asked",
    [
        {"model": 5},
        {"model": ["gemini-3.8-live"]},
        {"sessionResumption": True},
        {"sessionResumption": {"handle": 7}},
        {"generation_config": "AUDIO"},
        {"realtimeInputConfig": {"automaticActivityDetection": True}},
        {"historyConfig": [1]},
        {"proactivity": 1},
    ],
)
def test_what_is_malformed_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match=r"is not (an object|a text)"):
        plan(asked)


# --- the opening


def test_our_functions_follow_the_clients_own_in_its_last_tool_of_functions() -> None:
    tools = [
        {"googleSearch": {}},
        {"functionDeclarations": [{"name": "a"}]},
        {"function_declarations": [{"name": "b"}], "aNewThing": 1},
        {"codeExecution": {}},
    ]
    made = opened(plan({"model": "gemini-3.1-flash-live", "tools": tools}))["tools"]
    assert made == [*tools[:2], {**tools[2], "function_declarations": [{"name": "b"}, *OURS]}, tools[3]]
    alone = opened(plan({"model": "gemini-3.1-flash-live", "tools": {"googleSearch": {}}}))["tools"]
    assert alone == [{"googleSearch": {}}, {"functionDeclarations": OURS}]


def test_where_names_clash_the_clients_function_counts() -> None:
    tools = [{"functionDeclarations": [{"name": "get_weather", "description": "Mine."}]}]
    made = plan({"model": "gemini-3.1-flash-live", "tools": tools})
    opening = made.opening(OURS, background=frozenset(), history=[], handle=None, first=True)
    assert json.loads(opening.payload)["setup"]["tools"] == [
        {"functionDeclarations": [*tools[0]["functionDeclarations"], OURS[1]]}
    ]
    assert opening.changes == ("get_weather: left out, the client declares a function of this name",)


def test_a_model_without_functions_gets_none_of_ours() -> None:
    made = plan({"model": "gemini-3.5-live-translate"})
    opening = made.opening(OURS, background=frozenset(), history=[], handle=None, first=True)
    assert "tools" not in json.loads(opening.payload)["setup"]
    assert opening.changes == ("tools: left out, gemini-3.5-live-translate takes no functions",)


def test_our_handle_stands_where_the_clients_stood() -> None:
    asked = {"model": "m", "session_resumption": {"handle": "theirs", "transparent": True}}
    made = plan(asked)
    assert made.handle == "theirs"
    assert opened(made)["session_resumption"] == {"transparent": True}
    resumed = opened(made, handle="ours")
    assert resumed["session_resumption"] == {"transparent": True, "handle": "ours"}
    assert "sessionResumption" not in resumed
    without = replace(made, facts=replace(made.facts, resumption=False))
    assert "session_resumption" not in opened(without)


def test_what_the_client_says_of_compression_and_transcriptions_counts() -> None:
    asked = {
        "model": "models/gemini-3.8-live",
        "input_audio_transcription": {"language_codes": ["de"]},
        "outputAudioTranscription": None,
        "context_window_compression": {"trigger_tokens": 25_000},
    }
    made = opened(plan(asked), declarations=[])
    assert made == {**asked, "outputAudioTranscription": {}, "sessionResumption": {}}


@pytest.mark.parametrize("modalities", ["TEXT", ["TEXT"]])
def test_an_answer_without_sound_is_not_transcribed(modalities: object) -> None:
    made = opened(plan({"model": "m", "generation_config": {"response_modalities": modalities}}))
    assert "outputAudioTranscription" not in made
    assert made["generation_config"] == {"response_modalities": modalities}


def test_what_was_said_before_is_told_in_the_way_that_the_model_takes() -> None:
    instruction = {"role": "system", "parts": {"text": "Be brief."}}
    asked = {
        "model": "gemini-3.8-live",
        "history_config": {"initial_history_in_client_content": False, "x": 1},
        "system_instruction": instruction,
    }
    made = opened(plan(asked), history=SPOKEN)
    assert made["history_config"] == {"initial_history_in_client_content": True, "x": 1}
    assert made["system_instruction"] == instruction
    again = opened(plan(asked), history=SPOKEN, first=False)
    assert again["historyConfig"] == {"initialHistoryInClientContent": True}
    assert "history_config" not in again
    told = opened(plan({**asked, "model": "gemini-3.1-flash-live"}), history=SPOKEN)["system_instruction"]
    assert (told["role"], told["parts"][0]) == ("system", {"text": "Be brief."})
    assert "User: My name is Ada.\nYou: Hello, Ada." in told["parts"][1]["text"]
    assert (
        opened(plan(asked), history=SPOKEN, handle="ours", first=False)
        .keys()
        .isdisjoint({"historyConfig", "history_config"})
    )


def test_the_history_that_a_client_announced_is_said_once() -> None:
    made = plan({"model": "gemini-3.8-live", **ASKS})
    assert opened(made, first=True)["historyConfig"] == ASKS["historyConfig"]
    assert "historyConfig" not in opened(made, first=False)


def test_an_unlisted_model_is_told_to_the_operator() -> None:
    opening = plan({"model": "gemini-9-live"}).opening(
        [], background=frozenset(), history=[], handle=None, first=True
    )
    assert "gemini-9-live is not in models.yaml" in opening.changes[0]


# Setups in any mixture of spellings, with fields that nobody knows at any depth.

UNKNOWN = {"brandNew": "brand_new", "zeta": "zeta", "sometime3Later": "sometime3_later"}
ANYTHING = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def message(draw: st.DrawFn, **known: st.SearchStrategy[Any]) -> dict[str, Any]:
    """An object with some of these fields, and of those that nobody knows, spelled either way and in any order."""
    fields = known | dict.fromkeys(UNKNOWN, ANYTHING)
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=6))
    return {draw(st.sampled_from([name, snaked(name)])): draw(fields[name]) for name in names}


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=3) | strategy


FUNCTION = st.builds(
    lambda name, rest: {"name": name, **rest},
    st.sampled_from(["a", "b", "get_weather"]),
    message(parametersJsonSchema=st.just({"type": "object", "properties": {"a_b": {}, "aB": {}}})),
)
SETUPS = message(
    model=st.sampled_from(["gemini-3.8-live", "models/gemini-3.1-flash-live", "", "anything"]),
    generationConfig=message(
        responseModalities=some(st.sampled_from(["AUDIO", "TEXT"])),
        speechConfig=message(voiceConfig=message(prebuiltVoiceConfig=message(voiceName=st.text(max_size=3)))),
        thinkingConfig=message(includeThoughts=st.booleans()),
    ),
    systemInstruction=message(parts=some(message(text=st.text(max_size=5))), role=st.just("system")),
    tools=some(message(functionDeclarations=some(FUNCTION), googleSearch=message())),
    sessionResumption=st.none() | message(handle=st.sampled_from(["", "THEIRS"]), transparent=st.booleans()),
    contextWindowCompression=st.none() | message(triggerTokens=st.integers(1, 9)),
    inputAudioTranscription=st.none() | message(languageCodes=st.just(["de"])),
    outputAudioTranscription=st.none() | message(),
    realtimeInputConfig=message(automaticActivityDetection=message(disabled=st.booleans())),
    historyConfig=message(initialHistoryInClientContent=st.booleans()),
    proactivity=message(proactiveAudio=st.booleans()),
)
ADDED = (
    "inputAudioTranscription",
    "outputAudioTranscription",
    "contextWindowCompression",
    "sessionResumption",
    "historyConfig",
)


def snaked(name: str) -> str:
    return UNKNOWN.get(name) or "".join(f"_{one.lower()}" if one.isupper() else one for one in name)


def snake(value: Any) -> Any:
    if isinstance(value, list):
        return [snake(one) for one in value]
    return {snaked(key): snake(one) for key, one in value.items()} if isinstance(value, dict) else value


def listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def declared_in(setup: Mapping[str, Any]) -> list[str]:
    plain: Any = gemini.camel(dict(setup))
    tools = listed(plain.get("tools"))
    return [one["name"] for tool in tools for one in listed(tool.get("functionDeclarations"))]


def meaning(setup: Mapping[str, Any], ours: frozenset[str]) -> dict[str, Any]:
    """A setup without what the gateway sees to: the model, handles, our functions, what it adds."""
    plain: Any = gemini.camel(dict(setup))
    plain.pop("model", None)
    (plain.get("sessionResumption") or {}).pop("handle", None)
    tools = []
    for tool in listed(plain.pop("tools", None)):
        functions = listed(tool.get("functionDeclarations"))
        kept = [one for one in functions if one["name"] not in ours]
        rest = {key: value for key, value in tool.items() if key != "functionDeclarations"}
        if kept or rest or not functions:
            tools.append({**rest, **({"functionDeclarations": kept} if kept else {})})
    return {**plain, "tools": [tool for tool in tools if tool]}


@given(SETUPS, st.booleans(), st.sampled_from([None, "OURS"]))
def test_an_opening_means_what_the_client_said(
    asked: dict[str, Any], recalls: bool, handle: str | None
) -> None:
    before = json.dumps(asked)
    made = plan(asked)
    history = SPOKEN if recalls else []
    text = made.opening(OURS, background=frozenset(), history=history, handle=handle, first=True).payload
    opening = json.loads(text)["setup"]
    assert json.dumps(asked) == before, "the client's setup is changed in the opening only"

    camel = [gemini.camel_name(key) for key in opening]
    assert len(camel) == len(set(camel)), "no field in both spellings"
    assert [key for key in opening if key in asked] == [key for key in asked if key in opening]

    clashing = made.functions & {"get_weather", "find_product"}
    for name in ("get_weather", "find_product"):
        expected = declared_in(asked).count(name) if name in clashing else 1
        assert declared_in(opening).count(name) == expected

    assert b"THEIRS" not in text
    ours = frozenset({"get_weather", "find_product"} - clashing)
    sent, wanted = meaning(opening, ours), meaning(asked, ours)
    instruction = sent.get("systemInstruction"), wanted.get("systemInstruction")
    if instruction[0] != instruction[1]:
        assert recalls
        assert handle is None
        told, own = sent.pop("systemInstruction"), wanted.pop("systemInstruction", {})
        assert listed(told["parts"])[:-1] == listed(own.get("parts"))
    for name in ADDED:
        if wanted.get(name) is None:
            sent.pop(name, None)
            wanted.pop(name, None)
    if recalls and handle is None and (announced := sent.get("historyConfig")):
        announced.pop("initialHistoryInClientContent", None)
        wanted["historyConfig"].pop("initialHistoryInClientContent", None)
    assert sent == wanted


@given(SETUPS)
def test_what_a_policy_forbids_is_in_no_opening(asked: dict[str, Any]) -> None:
    policy = replace(FREE, fields=frozenset({"generationConfig.speechConfig.voiceConfig", "tools"}))
    try:
        made = plan(asked, policy)
    except Forbidden:
        return
    opening: Any = gemini.camel(opened(made))
    assert opening.keys() <= {"model", "generationConfig", "tools", *ADDED}
    assert {**opening.get("generationConfig", {})}.keys() <= {"speechConfig"}
    assert {**opening.get("generationConfig", {}).get("speechConfig", {})}.keys() <= {"voiceConfig"}


def test_a_field_that_is_named_twice_never_gets_as_far_as_a_plan() -> None:
    with pytest.raises(ValueError, match="twice"):
        decode(b'{"setup":{"model":"models/dear","model":"models/cheap"}}')


# --- contextUpdate


def test_an_update_counts_for_the_next_opening() -> None:
    asked = {"model": "gemini-3.8-live", "system_instruction": {"parts": [{"text": "Old."}]}}
    made = plan({**asked, "tools": [{"functionDeclarations": [{"name": "a"}]}]})
    instruction = {"parts": [{"text": "New."}]}
    told = made.with_update({"systemInstruction": instruction})
    assert opened(told)["system_instruction"] == instruction
    assert told.functions == {"a"}
    tools = [{"function_declarations": [{"name": "find_product"}]}]
    equipped = told.with_update({"tools": {"tools": tools}})
    assert equipped.functions == {"find_product"}
    assert declared_in(opened(equipped)) == ["find_product", "get_weather"]
    assert opened(equipped)["system_instruction"] == instruction
    for nothing in ({"tools": []}, {}):
        cleared = equipped.with_update({"tools": nothing})
        assert cleared.functions == frozenset()
        assert declared_in(opened(cleared)) == ["get_weather", "find_product"]
    assert equipped.with_update({"tools": None, "systemInstruction": None}) == equipped


def test_an_update_is_no_way_round_the_policy() -> None:
    made = plan({"model": "m"}, SOME)
    assert made.with_update({"tools": {"tools": [{"functionDeclarations": [{"name": "a"}]}]}}).functions == {
        "a"
    }
    for update in (
        {"systemInstruction": {"parts": []}},
        {"system_instruction": {"parts": []}},
        {"tools": {"tools": [{"googleSearch": {}}]}},
        {"tools": {"tools": {"google_search": {}}}},
        {"tools": {"tools": [], "somethingNew": 1}},
        {"generationConfig": {"temperature": 1}},
        {"somethingNew": 1},
    ):
        with pytest.raises(Forbidden, match="contextUpdate") as refused:
            made.with_update(update)
        assert len(refused.value.message.encode()) <= REASON_BYTES


@pytest.mark.parametrize(
    "update",
    [
        {"model": "models/dear"},
        {"session_resumption": {"handle": "h"}},
        {"tools": [{"googleSearch": {}}]},
        {"systemInstruction": {}, "system_instruction": {}},
        {"tools": {"tools": [{"functionDeclarations": [], "function_declarations": []}]}},
    ],
)
def test_a_malformed_update_is_refused(update: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match=r"contextUpdate|setup\.tools"):
        plan({"model": "m"}).with_update(update)


def test_an_update_of_tools_keeps_ours() -> None:
    tools = [{"google_search": {}}, {"function_declarations": [{"name": "get_weather"}]}]
    update = {"system_instruction": {"parts": []}, "tools": {"tools": tools, "x": 1}}
    assert json.loads(merged_update(update, OURS)) == {
        "contextUpdate": {
            **update,
            "tools": {
                "tools": [tools[0], {"function_declarations": [{"name": "get_weather"}, OURS[1]]}],
                "x": 1,
            },
        }
    }
    cleared = json.loads(merged_update({"tools": {}}, OURS))
    assert cleared == {"contextUpdate": {"tools": {"tools": [{"functionDeclarations": OURS}]}}}
    only = {"systemInstruction": {"parts": [{"text": "x"}]}}
    assert json.loads(merged_update(only, OURS)) == {"contextUpdate": only}


# --- Google's own client, and the simulator


CONFIGS: dict[str, dict[str, object]] = {
    "nothing": {},
    "generation": {
        "response_modalities": ["AUDIO"],
        "temperature": 0.5,
        "top_k": 40,
        "max_output_tokens": 100,
        "media_resolution": "MEDIA_RESOLUTION_LOW",
        "speech_config": {
            "voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}},
            "language_code": "en-US",
        },
    },
    "instruction": {"system_instruction": "Be brief."},
    "tools": {
        "tools": [
            {
                "function_declarations": [
                    {"name": "a", "parameters": {"type": "OBJECT", "properties": {"x_y": {"type": "STRING"}}}}
                ]
            },
            {"google_search": {}},
            {
                "function_declarations": [
                    {"name": "b", "parameters_json_schema": {"type": "object"}, "behavior": "NON_BLOCKING"}
                ]
            },
        ]
    },
    "a session": {
        "session_resumption": {},
        "input_audio_transcription": {"language_codes": ["en-US"]},
        "output_audio_transcription": {},
        "context_window_compression": {"trigger_tokens": 25000, "sliding_window": {"target_tokens": 8000}},
    },
    "realtime": {
        "realtime_input_config": {
            "automatic_activity_detection": {
                "disabled": True,
                "start_of_speech_sensitivity": "START_SENSITIVITY_HIGH",
                "prefix_padding_ms": 20,
            },
            "activity_handling": "NO_INTERRUPTION",
            "turn_coverage": "TURN_INCLUDES_ONLY_ACTIVITY",
        },
        "proactivity": {"proactive_audio": True},
        "history_config": {"initial_history_in_client_content": True},
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "labels": {"safety_identifier": "b"},
    },
}


async def test_googles_own_sdk_and_a_writer_of_camel_case_get_the_same_opening_which_the_simulator_takes(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with Simulator(speed=100) as simulator:
        for config in CONFIGS.values():
            [frame] = await sent_by_the_sdk(tls, config)
            by_sdk = decode(frame).setup
            assert by_sdk is not None
            live = types.LiveConnectConfig(**config).model_dump(  # type: ignore[arg-type]
                mode="json", by_alias=True, exclude_none=True
            )
            by_hand = gemini.setup("gemini-3.8-live", live)
            for history in ([], SPOKEN):
                opening = opened(plan(by_sdk), history=history)
                assert gemini.camel(opening) == gemini.camel(opened(plan(by_hand), history=history))
                async with dialled(simulator) as client:
                    await client.send({"setup": opening})
                    assert await client.next() == {"setupComplete": {}}


@pytest.mark.parametrize(
    "model",
    [
        "gemini-3.1-flash-live-preview",
        "gemini-2.5-flash-native-audio-preview-12-2025",
        "gemini-3.5-live-translate-preview",
    ],
)
async def test_the_simulator_takes_openings_for_other_models(model: str) -> None:
    translation = {"translationConfig": {"targetLanguageCode": "es"}} if "translate" in model else {}
    asked: dict[str, Any] = {"model": model, "generation_config": translation, "session_resumption": {}}
    async with Simulator(speed=100) as simulator, dialled(simulator) as client:
        await client.send({"setup": opened(plan(asked), history=SPOKEN, first=False)})
        assert await client.next() == {"setupComplete": {}}


def test_a_token_that_fixes_the_whole_setup_leaves_nothing_to_a_context_update() -> None:
    fixed = replace(plan({"model": "gemini-3.8-live"}), locked=frozenset({EVERY_FIELD}))
    for update in ({"generationConfig": {"temperature": 2}}, {"tools": {"tools": []}}, {"something_new": 1}):
        with pytest.raises(Forbidden, match="token fixes"):
            fixed.with_update(update)
