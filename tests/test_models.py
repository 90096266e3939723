"""config/models.yaml: what it says, what it refuses, and that its table in the docs says the same."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from modelling import MODELS, MODELS_YAML
from serving import ROOT

from tornado_live.errors import ConfigError
from tornado_live.settings import load_settings
from tornado_live.wire.models import FACTS, KINDS, LiveModel, Models, load_models

VERTEX = "projects/shop/locations/europe-west4/publishers/google/models"
DEFAULTS = MODELS_YAML[MODELS_YAML.index("defaults:") : MODELS_YAML.index("# The models, by")]


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_models(text, "models.yaml")
    return [str(problem) for problem in error.value.problems]


def test_a_model_is_found_by_the_beginning_of_its_name_and_the_longest_counts() -> None:
    for name in ("gemini-3.8-live", "models/gemini-3.8-live", "gemini-3.8-live-002"):
        assert (MODELS.of(name).name, MODELS.of(name).listed) == ("gemini-3.8-live", True)
    thinking = MODELS.of("models/gemini-3.8-live-extended-thinking-preview")
    assert thinking.name == "gemini-3.8-live-extended-thinking"
    assert thinking.path == "models/gemini-3.8-live-extended-thinking-preview"
    assert MODELS.of("gemini-live-2.5-flash-native-audio").modalities == {"AUDIO"}
    assert MODELS.of("gemini-live-2.5-flash").modalities == {"AUDIO", "TEXT"}


def test_a_model_that_nobody_described_gets_a_careful_profile_and_one_warning() -> None:
    facts = MODELS.of("models/gemini-9-live")
    assert (facts.name, facts.listed, facts.path) == ("gemini-9-live", False, "models/gemini-9-live")
    assert (facts.seed, facts.calls, facts.scheduling) == ("instruction", {"BLOCKING"}, False)
    assert "gemini-9-live is not in models.yaml" in str(facts.warning())
    assert MODELS.of("gemini-3.8-live").warning() is None


def test_vertex_ai_serves_the_same_models_with_other_facts() -> None:
    here = MODELS.of("gemini-3.8-live")
    there = MODELS.on_vertex(VERTEX).of("gemini-3.8-live")
    assert (here.vertex, here.turn_after_call, here.scheduling) == (False, "same", True)
    assert (there.vertex, there.turn_after_call, there.scheduling) == (True, "new", False)
    assert there.path == f"{VERTEX}/gemini-3.8-live"
    assert MODELS.of(f"{VERTEX}/gemini-3.8-live") == there
    assert MODELS.of("publishers/google/models/gemini-3.8-live").vertex
    assert MODELS.on_vertex(VERTEX).evidence("gemini-3.8-live")["turn_after_call"].kind == "recorded"
    assert not MODELS.on_vertex(VERTEX).of("gemini-9-live").listed


def test_every_fact_of_every_model_has_its_evidence() -> None:
    for models in (MODELS, MODELS.on_vertex(VERTEX)):
        for name in (*models.names, "gemini-9-live"):
            evidence = models.evidence(name)
            assert set(evidence) == set(FACTS)
            assert all(one.kind in KINDS and one.source for one in evidence.values())


def test_the_file_needs_nothing_but_the_defaults() -> None:
    models = load_models(DEFAULTS, "models.yaml")
    assert models.names == ()
    assert models.of("gemini-3.8-live").typed == "clientContent"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("modells: {}", ['models.yaml:1: modells: unknown key - did you mean "models"?']),
        (
            "models:\n  m:\n    typd: {is: clientContent, documented: x}\n",
            ['models.yaml:3: models.m.typd: unknown key - did you mean "typed"?'],
        ),
        (
            "models:\n  m:\n    typed: clientContent\n",
            ["models.yaml:3: models.m.typed: write {is: value, documented: where it is said}"],
        ),
        (
            "models:\n  m:\n    typed: {is: clientcontent, documented: x}\n",
            [
                'models.yaml:3: models.m.typed.is: "clientcontent" is not one of clientContent, realtimeInput'
                ' - did you mean "clientContent"?'
            ],
        ),
        (
            "models:\n  m:\n    calls: {is: [BLOCKING, LATER], documented: x}\n",
            ['models.yaml:3: models.m.calls.is: "LATER" is not one of BLOCKING, NON_BLOCKING'],
        ),
        (
            "models:\n  m:\n    silent_s: {is: long, inferred: x}\n    resumption: {is: on, inferred: x}\n",
            [
                'models.yaml:3: models.m.silent_s.is: "long" is not a number of seconds',
                'models.yaml:4: models.m.resumption.is: "on" is not true or false',
            ],
        ),
        (
            "models:\n  m:\n    typed: {is: clientContent}\n",
            [
                "models.yaml:3: models.m.typed: needs one of recorded, documented, reported, inferred,"
                " with the source"
            ],
        ),
        (
            "models:\n  m:\n    typed: {is: clientContent, documented: }\n",
            ["models.yaml:3: models.m.typed.documented: expected the source as text"],
        ),
        (
            "models:\n  m:\n    typed: {is: clientContent, rumoured: x, documented: y}\n",
            [
                "models.yaml:3: models.m.typed.rumoured: unknown key;"
                " known are is, recorded, documented, reported, inferred"
            ],
        ),
        ("models: gemini\n", ["models.yaml:1: models: expected keys below it, not one value"]),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(text: str, problems: list[str]) -> None:
    assert refused(f"{text}\n{DEFAULTS}") == problems


def test_a_default_that_is_missing_is_told() -> None:
    without = DEFAULTS.replace("  idle: {", "  # {")
    (problem,) = refused(without)
    assert problem.startswith("models.yaml:1: defaults: says nothing about idle - take the line from")


def test_a_default_call_that_the_model_does_not_take_is_told() -> None:
    text = f"{DEFAULTS}\nmodels:\n  m:\n    calls: {{is: [BLOCKING], inferred: x}}\n"
    (problem,) = refused(text)
    assert problem.endswith("models.m.calls: the default_call NON_BLOCKING is not among them")


def settings(home: Path) -> LiveModel:
    return load_settings(home=home, config=None, environ={}, overrides={}).models.of("gemini-3.8-live")


def test_the_operators_own_file_counts_before_the_packaged_one_fact_by_fact(tmp_path: Path) -> None:
    known = MODELS.of("gemini-3.8-live")
    assert settings(tmp_path) == known
    (tmp_path / "config").mkdir()
    mine = tmp_path / "config/models.yaml"
    mine.write_text(
        "defaults: {silent_s: {is: 5, reported: ours}}\n"
        "models: {gemini-3.8-live: {connection_s: {is: 1200, reported: ours}}}\n"
    )
    assert settings(tmp_path) == replace(known, connection_s=1200.0, silent_s=5.0)
    mine.write_text(MODELS_YAML.replace("is: 3480", "is: 1200"))
    assert settings(tmp_path).connection_s == 1200
    mine.write_text(MODELS_YAML.replace("is: 3480", "is: never"))
    with pytest.raises(ConfigError, match=r'config/models\.yaml:\d+: .*"never" is not a number of seconds'):
        settings(tmp_path)


# The page for operators


def row(fact: str, models: Models, name: str) -> list[str]:
    evidence = models.evidence(name)[fact]
    return [f"`{fact}`", shown(getattr(models.of(name), fact)), evidence.kind, evidence.source]


def shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/models.md, without its head."""
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    (text,) = [part for part in re.split(r"^## ", page, flags=re.M) if part.startswith(heading)]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in one] for one in rows][2:]


USUAL = load_models(DEFAULTS, "models.yaml")


def test_the_page_says_what_holds_for_every_model() -> None:
    assert table("What holds") == [row(fact, USUAL, "m") for fact in FACTS]


def test_the_page_says_what_differs_between_models() -> None:
    expected = []
    for name in (*MODELS.names, "gemini-9-live"):
        for fact in FACTS:
            listed, here, usual = name in MODELS.names, row(fact, MODELS, name), row(fact, USUAL, name)
            if here[1] != usual[1] or (listed and here != usual):
                model = f"`{name}`" if listed else "any other"
                expected.append([model, *row(fact, MODELS, name)])
    assert table("What differs between") == expected


def test_the_page_says_what_differs_on_vertex_ai() -> None:
    vertex, name = MODELS.on_vertex(VERTEX), "gemini-3.8-live"
    differ = [fact for fact in FACTS if row(fact, vertex, name) != row(fact, MODELS, name)]
    assert table("What differs on Vertex") == [row(fact, vertex, name) for fact in differ]


def test_every_fact_is_explained_in_the_file() -> None:
    """The defaults come with a comment above each, or above the one that it belongs to."""
    assert [one.name for one in fields(LiveModel) if one.name in FACTS] == list(FACTS)
    order = re.findall(r"^  (\w+): \{is:", DEFAULTS, flags=re.M)
    assert sorted(order) == sorted(FACTS)
