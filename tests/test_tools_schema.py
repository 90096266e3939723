"""JSON Schema into what Gemini takes: what is kept, rewritten, told in words, refused."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing.exceptions import Unresolvable

from tornado_live.simulator.messages import read
from tornado_live.simulator.profiles import PROFILES
from tornado_live.simulator.setup import accept
from tornado_live.tools.result import Json
from tornado_live.tools.schema import CannotDeclare, Declaration, declare, fitted
from tornado_live.tools.tool import validator_for


def declared(**properties: Json) -> Declaration:
    return declare("t", "T.", {"type": "object", "properties": dict(properties)})


def one(schema: Json) -> tuple[Json, list[str]]:
    """The declaration of one property, and what was lost."""
    declaration = declared(p=schema)
    parameters: Any = declaration.json["parameters"]
    return parameters["properties"]["p"], [str(change) for change in declaration.changes]


def test_a_plain_schema_is_declared_without_a_loss() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {
            "city": {
                "type": "string",
                "minLength": 1,
                "maxLength": 80,
                "pattern": "^[A-Z]",
                "description": "City.",
            },
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
            "exact": {"type": "boolean"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    declaration = declare("get_weather", "Weather.", schema)
    assert declaration.changes == ()
    assert declaration.json == {
        "name": "get_weather",
        "description": "Weather.",
        "parameters": {
            "type": "OBJECT",
            "properties": {
                "city": {
                    "type": "STRING",
                    "minLength": 1,
                    "maxLength": 80,
                    "pattern": "^[A-Z]",
                    "description": "City.",
                },
                "unit": {"type": "STRING", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "INTEGER", "minimum": 1, "maximum": 7},
                "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": 1, "maxItems": 3},
                "exact": {"type": "BOOLEAN"},
            },
            "required": ["city"],
        },
    }


def test_a_tool_without_parameters_has_none_in_its_declaration() -> None:
    assert declared().json == {"name": "t", "description": "T."}


@pytest.mark.parametrize(
    ("schema", "expected", "lost"),
    [
        ({"const": "a"}, {"type": "STRING", "enum": ["a"]}, ["p: const: became an enum of one"]),
        (
            {"enum": [1, 2], "description": "How many"},
            {"type": "INTEGER", "description": "How many (one of 1, 2)"},
            ["p: enum: only texts can be declared; told in words"],
        ),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}, []),
        (
            {"enum": ["a", ""]},
            {"type": "STRING", "enum": ["a"], "description": "May also be empty"},
            ["p: enum: the empty text cannot be declared"],
        ),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}, []),
        (
            {"type": ["string", "integer"], "description": "Id."},
            {"anyOf": [{"type": "STRING", "description": "Id."}, {"type": "INTEGER", "description": "Id."}]},
            ["p: type: a list of types became anyOf"],
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}], "description": "Name."},
            {"type": "STRING", "nullable": True, "description": "Name."},
            ["p: oneOf: became anyOf"],
        ),
        (
            {"type": "string", "format": "email"},
            {"type": "STRING", "description": "Format email"},
            ["p: format: email is told in words"],
        ),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}, []),
        (
            {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
            {"type": "INTEGER", "minimum": 1, "maximum": 9},
            ["p: exclusiveMinimum: became minimum 1", "p: exclusiveMaximum: became maximum 9"],
        ),
        (
            {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
            {"type": "NUMBER", "description": "More than 0; a multiple of 0.5"},
            ["p: exclusiveMinimum: told in words", "p: multipleOf: told in words"],
        ),
        (
            {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/x"}},
            CannotDeclare,
            [],
        ),
        (
            {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]},
            {
                "type": "ARRAY",
                "items": {"anyOf": [{"type": "NUMBER"}, {"type": "STRING"}]},
                "description": "2 parts in a fixed order",
            },
            ["p: prefixItems: became anyOf of its parts"],
        ),
        (
            {"type": "object", "description": "Extra."},
            {"type": "STRING", "description": "Extra. (a JSON object as text)"},
            ["p: type: a free object is declared as a text that holds JSON"],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"^x": {}}},
            {
                "type": "OBJECT",
                "properties": {"a": {"type": "STRING"}},
                "description": 'PatternProperties {"^x": {}}',
            },
            ["p: patternProperties: left out"],
        ),
        ({}, {"type": "STRING"}, ["p: type: is missing; declared as text"]),
        (
            {"type": "string", "examples": ["Rome", "Oslo"]},
            {"type": "STRING", "description": "For example Rome, Oslo"},
            ["p: examples: told in words"],
        ),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, {"type": "INTEGER", "minimum": 3}, []),
        (
            {"not": {}, "type": "nothing"},
            {"type": "STRING", "nullable": True, "description": "Not: {}"},
            None,
        ),
    ],
)
def test_a_rule_is_kept_rewritten_or_told_in_words(
    schema: Json, expected: Any, lost: list[str] | None
) -> None:
    if expected is CannotDeclare:
        with pytest.raises(CannotDeclare):
            one(schema)
        return
    compiled, changes = one(schema)
    assert compiled == expected
    assert lost is None or changes == lost


def test_references_are_filled_in_and_may_be_described_anew() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "$defs": {
            "place": {
                "type": "object",
                "description": "Somewhere.",
                "properties": {"lat": {"type": "number"}},
            }
        },
        "properties": {
            "a": {"$ref": "#/$defs/place"},
            "b": {"$ref": "#/$defs/place", "description": "There."},
        },
    }
    parameters: Any = declare("t", "T.", schema).json["parameters"]
    assert parameters["properties"] == {
        "a": {"type": "OBJECT", "properties": {"lat": {"type": "NUMBER"}}, "description": "Somewhere."},
        "b": {"type": "OBJECT", "properties": {"lat": {"type": "NUMBER"}}, "description": "There."},
    }


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (
            {"$ref": "#/$defs/me", "$defs": {"me": {"properties": {"x": {"$ref": "#/$defs/me"}}}}},
            "refers to itself; write out as many levels as are needed",
        ),
        ({"$ref": "#place"}, "is not a path; write #/"),
        ({"$ref": "https://example.com/x"}, "leaves the file"),
        ({"$ref": "#/nowhere"}, "points at nothing"),
        ({"type": "object", "properties": {"a b": {"type": "string"}}}, "the name of a parameter"),
        ({"anyOf": [{"type": "null"}]}, "allows nothing but null"),
        ({"type": "array", "items": {"$dynamicRef": "#x"}}, "is not supported"),
    ],
)
def test_what_has_no_form_for_gemini_is_refused_with_its_place(schema: dict[str, Json], reason: str) -> None:
    root: dict[str, Json] = {
        "type": "object",
        "properties": {"p": schema},
        **{k: schema[k] for k in schema if k == "$defs"},
    }
    with pytest.raises(CannotDeclare, match=reason) as caught:
        declare("t", "T.", root)
    assert caught.value.path.startswith("p")


def test_references_that_grow_without_end_are_refused_quickly() -> None:
    steps: dict[str, Json] = {
        f"d{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "abcdefgh"}}
        for n in range(8)
    }
    steps["d8"] = {"type": "string"}
    with pytest.raises(CannotDeclare, match="more than 1000 parts"):
        declare("t", "T.", {"type": "object", "properties": {"p": {"$ref": "#/$defs/d0"}}, "$defs": steps})


def test_arguments_take_the_types_of_the_schema() -> None:
    root: dict[str, Json] = {
        "type": "object",
        "$defs": {"n": {"type": "integer"}},
        "properties": {
            "n": {"$ref": "#/$defs/n"},
            "x": {"type": "number"},
            "free": {"type": "object"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "text": {"type": "string"},
        },
    }
    given: Json = {
        "n": 5.0,
        "x": 5.0,
        "free": '{"a": 1}',
        "list": [1.0, 1.5],
        "text": '{"a": 1}',
        "other": 2.0,
    }
    result = fitted(given, root, root)
    assert json.dumps(result) == (
        '{"n": 5, "x": 5.0, "free": {"a": 1}, "list": [1, 1.5], "text": "{\\"a\\": 1}", "other": 2.0}'
    )


_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
_leaves = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["string", "integer", "number", "boolean", "null", ["string", "null"], ["integer", "string"]]
        ),
        "description": st.text("xy ", max_size=5),
        "enum": st.lists(_scalars, min_size=1, max_size=3, unique_by=repr),
        "const": _scalars,
        "default": _scalars,
        "format": st.sampled_from(["date", "date-time", "int32", "enum"]),
        "minimum": st.integers(-3, 3),
        "exclusiveMinimum": st.integers(-3, 3),
        "minLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "b$", "^(a+)+$", "[ab]{2}", "^[^a]*$"]),
        "title": st.text("t", max_size=2),
        "nullable": st.booleans(),
        "$comment": st.just("x"),
    },
)
_schemas = st.recursive(
    _leaves | st.just(True),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "array"]]),
            "properties": st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
            "required": st.lists(st.sampled_from(["a", "b", "z"]), max_size=2, unique=True),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "$ref": st.sampled_from(["#/$defs/a", "#/$defs/gone"]),
            "if": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "[bc]$", ""]), inner, max_size=2),
            "propertyNames": st.sampled_from([{"pattern": "^[ab]"}, {"maxLength": 1}]),
            "uniqueItems": st.booleans(),
            "additionalProperties": st.booleans(),
        },
    ),
    max_leaves=8,
)


def _assert_known_to_gemini(schema: Any) -> None:
    """Holds the rules that the service has been seen to enforce, beside the SDK's own model."""
    if "anyOf" in schema:
        assert set(schema) == {"anyOf"}
        assert len(schema["anyOf"]) > 1
        for variant in schema["anyOf"]:
            _assert_known_to_gemini(variant)
        return
    kind = schema["type"]
    assert kind in ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "OBJECT", "ARRAY")
    if "enum" in schema:
        assert kind == "STRING"
        assert all(isinstance(text, str) and text for text in schema["enum"])
    if kind == "ARRAY":
        _assert_known_to_gemini(schema["items"])
    if kind == "OBJECT":
        assert schema["properties"]
        assert set(schema.get("required", [])) <= set(schema["properties"])
        for child in schema["properties"].values():
            _assert_known_to_gemini(child)


@given(st.dictionaries(st.sampled_from(["p", "q"]), _schemas, min_size=1), _leaves)
@settings(max_examples=100, deadline=None)
def test_googles_own_type_takes_every_declaration(properties: dict[str, Json], shared: Json) -> None:
    from google.genai import types

    root: dict[str, Json] = {"type": "object", "properties": properties, "$defs": {"a": shared}}
    Draft202012Validator.check_schema(root)
    try:
        declaration = declare("t", "T.", root).json
    except CannotDeclare:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        types.FunctionDeclaration.model_validate(declaration)
    if "parameters" in declaration:
        _assert_known_to_gemini(declaration["parameters"])


@given(st.dictionaries(st.sampled_from(["p", "q"]), _schemas, min_size=1), _leaves)
@settings(max_examples=100, deadline=None)
def test_the_simulator_takes_every_declaration_as_the_service_would(
    properties: dict[str, Json], shared: Json
) -> None:
    root: dict[str, Json] = {"type": "object", "properties": properties, "$defs": {"a": shared}}
    try:
        declaration = declare("t", "T.", root).json
    except CannotDeclare:
        return
    profile = next(iter(PROFILES.values()))
    tools = [{"functionDeclarations": [declaration]}]
    _, message = read(json.dumps({"setup": {"model": "models/x", "tools": tools}}))
    assert [function["name"] for function in accept(message, profile).declarations] == ["t"]


_arguments = st.dictionaries(
    st.sampled_from(["p", "q", "r"]),
    st.recursive(
        _scalars | st.floats(-3, 3, width=16),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    max_size=3,
)


@given(st.dictionaries(st.sampled_from(["p", "q"]), _schemas, min_size=1), _leaves, _arguments)
@settings(max_examples=200, deadline=None)
def test_whatever_the_schema_refuses_is_refused_however_little_gemini_was_told(
    properties: dict[str, Json], shared: Json, arguments: dict[str, Json]
) -> None:
    root: dict[str, Json] = {"type": "object", "properties": properties, "$defs": {"a": shared}}
    taken = fitted(arguments, root, root)
    if taken != arguments:
        return  # JSON in a text became the object that it says
    try:
        allowed = Draft202012Validator({**root, "additionalProperties": False}).is_valid(arguments)
    except Unresolvable:
        return  # a $ref that leads nowhere: the file is refused
    assert validator_for(root).is_valid(taken) == allowed
