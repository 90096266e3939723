"""Patterns of tools.yaml: read as JSON Schema has it, matched in time that no text can make long."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tornado_live.caller import Caller
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.patterns import BadPattern, compiled
from tornado_live.tools.result import Json, ToolCode, ToolResult
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.tools.tool import validator_for
from tornado_live.tools.validation import checker_of

# Each is known to keep an engine that tries again busy for longer than the world will last.
CATASTROPHES = [
    "^(a+)+$",
    "^(a|aa)+$",
    "^(a|a?)+$",
    "(a*)*b$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "^(?:a?){200}a{200}$",
    "^([a-zA-Z0-9])(([_.-]|[a-zA-Z0-9]+)*)*@$",
]
TOOLS = """
version: 1
tools:
  find:
    description: Finds.
    parameters:
      type: object
      properties:
        q: {type: string, pattern: "^(a+)+$"}
        rules: {type: object, patternProperties: {"^(a+)+$": {type: string}}, additionalProperties: false}
        names: {type: object, propertyNames: {pattern: "^(a+)+$"}}
        own: {type: string, format: regex}
        list: {type: array, uniqueItems: true}
    python: builtin.sql:query
"""


def load(home: Path, text: str) -> ToolCatalog:
    (home / "tools.yaml").write_text(text, encoding="utf-8")
    return load_catalog(home / "tools.yaml", home=home, data_dir=home, environment={})


def catalog_of(home: Path, text: str = TOOLS) -> ToolCatalog:
    return load(home, text.replace("python: builtin.sql:query", "client: true"))


async def run(
    catalog: ToolCatalog, args: dict[str, Json], claims: dict[str, Any] | None = None
) -> ToolResult:
    runner = ToolRunner(
        mock="never", http=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(204)))
    )
    try:
        return await runner.run(
            catalog, ToolCall("1", "find", args), caller=Caller("u", claims=claims or {}), session_id="s"
        )
    finally:
        await runner.close()


HEAVY: dict[str, dict[str, Json]] = {
    "pattern": {"q": "a" * 100_000 + "!"},
    "patternProperties": {"rules": {"a" * 100_000 + "!": "x"}},
    "propertyNames": {"names": {"a" * 100_000 + "!": "x"}},
    "format": {"own": "(" * 100_000},
    "uniqueItems": {"list": [{"n": n} for n in range(20_000)] + [{"n": 1.0}]},
    "too long for any": {"q": "a" * 1_000_000},
}


@pytest.mark.proves("T67")
@pytest.mark.parametrize("name", HEAVY)
async def test_an_argument_of_100_kb_that_would_keep_pythons_engine_busy_for_ever_is_answered(
    tmp_path: Path, name: str
) -> None:
    catalog = catalog_of(tmp_path)
    heavy, light = await asyncio.gather(run(catalog, HEAVY[name]), run(catalog, {"q": "aa"}))
    assert heavy.error is ToolCode.INVALID_ARGUMENTS
    assert light.summary.startswith("Only a page can run this tool")
    assert len(str(heavy.response)) < 1000


@pytest.mark.proves("T67")
@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_no_pattern_takes_longer_than_in_proportion_to_the_text(pattern: str) -> None:
    for length in (100, 1_000, 10_000, 60_000):
        assert not compiled(pattern).is_in("a" * length + "!")


def test_without_it_thirty_letters_are_enough() -> None:
    """Each letter more doubles the time; counted by the steps of an engine that tries again, not by a clock."""
    steps = 0

    def tried(text: str, at: int) -> bool:
        """`^(a+)+$`, as an engine that tries again goes about it."""
        nonlocal steps
        steps += 1
        longest = next((end for end in range(at, len(text)) if text[end] != "a"), len(text))
        return any(end == len(text) or tried(text, end) for end in range(longest, at, -1))

    counts = []
    for length in (5, 10, 15):
        steps = 0
        assert not tried("a" * length + "!", 0)
        counts.append(steps)
    assert counts == [2**5, 2**10, 2**15]


@pytest.mark.proves("T67")
async def test_bound_values_are_held_to_their_patterns_by_the_same_engine(tmp_path: Path) -> None:
    catalog = catalog_of(
        tmp_path,
        """
        version: 1
        tools:
          find:
            description: Finds.
            parameters:
              type: object
              $defs: {id: {type: string, pattern: "^(a+)+$"}}
              properties: {q: {type: string}, tenant: {$ref: "#/$defs/id"}}
            bind: {tenant: claims.tenant}
            http: {url: "https://nowhere.invalid/", query: {q: "{q}", t: "{tenant}"}}
        """,
    )
    for tenant, ran in (("a" * 100_000 + "!", False), (["a"], False), ("aa", True)):
        result = await run(catalog, {"q": "x"}, {"tenant": tenant})
        assert result.error is (None if ran else ToolCode.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        (r"^\d+$", ["0"], ["٣", "1\n", ""]),
        (r"^\w$", ["a", "_"], ["ä", "-"]),
        (r"^\s$", [" ", "\t", "\v", "\xa0", "\u2028", "\ufeff", "\u3000"], ["x", "\u200b", ""]),
        (r"^\S$", ["x", "ä", "\u200b", "😀"], [" ", "\xa0", "\ufeff"]),
        (r"^[\s-.]$", ["\xa0", "-", "."], ["x", ","]),
        (r"^[^\S\n]$", [" ", "\xa0"], ["\n", "x"]),
        (r"^[\S-]$", ["x", "-"], [" "]),
        (r"^.$", ["x", "😀", "\x85"], ["\n", "\r", "\u2028", "xx"]),
        (r"^[.]$", ["."], ["x"]),
        (r"^[[:alpha:]]+$", ["a]", ":]]"], ["a", "b]"]),
        (r"^\u00e4\u{1F600}\x41$", ["ä😀A"], ["ä😀a"]),
        (r"^\ud83d\ude00$", ["😀"], ["😁"]),
        (r"^[\u0041-\u0043]$", ["B"], ["D"]),
        (r"^(?<year>[0-9]{4})-(?P<month>[0-9]{2})$", ["2026-01"], ["26-01"]),
        (r"^\p{Lu}\p{Greek}$", ["Äλ"], ["ää"]),
        (r"^\cJ\0[\b]$", ["\n\0\b"], ["J0b"]),
        (r"^a\/b\-c\.d\ e\_f$", ["a/b-c.d e_f"], ["a/b-cxd e_f"]),
        (r"^\é$", ["é"], ["e"]),
        (r"^(?i:ab)c$", ["ABc"], ["ABC"]),
        (r"b", ["abc"], ["ac"]),
        (r"\bcat\b", ["a cat."], ["cats"]),
        (r"^[^\]]+$", ["a["], ["a]"]),
        ("^.$", ["\ud800"], []),
        ("^a$", ["a"], ["a\n"]),
    ],
)
def test_a_pattern_means_what_json_schema_says(pattern: str, fits: list[str], not_: list[str]) -> None:
    engine = compiled(pattern)
    assert [text for text in fits if not engine.is_in(text)] == []
    assert [text for text in not_ if engine.is_in(text)] == []


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (
            "^(?=.*[0-9])",
            "lookahead (?=, which patterns cannot have here; write a second pattern, both under allOf",
        ),
        ("(?!a)", "negative lookahead (?!, which patterns cannot have here; write what is not allowed"),
        ("(?<=a)b", "lookbehind (?<="),
        ("(?<!a)b", "negative lookbehind (?<!"),
        ("(?>a)", "an atomic group (?>, which patterns cannot have here; write (?:"),
        ("(?(1)a)", "a condition (?("),
        (
            r"(a)\1",
            r"a back-reference \1, which patterns cannot have here; write what it may repeat as enum or anyOf",
        ),
        (r"(?<n>a)\k<n>", r"a back-reference \k"),
        (r"(?P<n>a)(?P=n)", "a back-reference (?P="),
        ("a++", "a possessive ++, which patterns cannot have here; write +; nothing is ever tried again"),
        ("a{2}+", "a possessive {2}+"),
        ("(?#x)a", "a comment (?#, which patterns cannot have here; remove it"),
        ("(?s).", r"has the flag s, which is not known; write [\s\S] for any character"),
        ("(?x) a", "has the flag x"),
        (r"a\Z", r"has \Z, which is not known; write $ for the end"),
        (r"\h", r"has \h, which is not known; write h for the letter itself"),
        (r"\Q.\E", r"has \Q"),
        (r"\012", r"has \0, which is not known; write \xHH"),
        (r"[\1]", r"has \1, which is not known; write \xHH"),
        (r"\u12", r"has \u without a number; write four hexadecimal digits, such as \u00e9"),
        (r"\u{110000}", r"has \u{110000}, which is no character"),
        (r"\c1", r"has \c without a letter"),
        ("[]", r"has an empty []; write [\]…] for the bracket itself"),
        ("[^]", r"has an empty [^]; write [^\]…] for the bracket itself"),
        ("(a", r"a ( has no ); write \( for the character itself"),
        ("a)", r"a ) has no (; write \) for the character itself"),
        ("[a", r"a [ has no ]; write \[ for the character itself"),
        ("*a", r"there is nothing before * to repeat; write \* for the character itself"),
        ("a**", "** repeats twice; remove one"),
        ("a{3,2}", "{3,2} ends before it begins"),
        (
            "a{1,5000}",
            "repeats {1,5000}; all repetitions together are at most 1000, write maxLength for more",
        ),
        ("(a{1,100}){1,100}", "all repetitions together are at most 1000"),
        (r"[\p{L}]{1000}", "too large when its repetitions are written out; write maxLength"),
        (r"\p{Letter}", r"has \p{Letter}, which is not known; write \p{L}, \p{Lu}, \p{Nd} or a script"),
        ("[z-a]", "z-a is not a range of characters"),
        ("(?y)", "has the flag y, which is not known; only i and m are known"),
        ("(?", r"(? begins no group that is known; write (?: or \("),
        ("(?<1", "no name of a group; write (?<name>…)"),
        ("a\\", r"ends with a single \; write \\ for the character itself"),
        ("a" * 5000, "longer than 4000 characters"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_told_with_what_to_write(pattern: str, told: str) -> None:
    with pytest.raises(BadPattern) as caught:
        compiled(pattern)
    assert told in str(caught.value)


def test_nothing_is_written_to_the_console_of_a_pattern(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadPattern):
        compiled("(a{1,100}){1,200}")
    assert capfd.readouterr() == ("", "")


# What both engines know, and mean the same by, for texts of these letters.
_atoms = st.sampled_from(
    ["a", "b", "1", "-", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", r"\S", "(a|b)", "(?:ab)", "^", "$"]
)
_patterns = st.lists(
    st.tuples(_atoms, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "*?"])), min_size=1, max_size=5
).map(lambda parts: "".join(atom + (count if atom not in "^$" else "") for atom, count in parts))
_texts = st.text("ab1-. ", max_size=8)


@given(_patterns, _texts)
@settings(max_examples=400, deadline=None)
def test_it_finds_what_pythons_engine_finds(pattern: str, text: str) -> None:
    assert compiled(pattern).is_in(text) == (re.search(pattern, text) is not None)


@given(
    st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(
                st.sampled_from(["a", "b", "a1"]), st.fixed_dictionaries({"pattern": _patterns})
            ),
            "patternProperties": st.dictionaries(
                _patterns, st.just({"type": "string"}) | st.just({"minLength": 2}), max_size=2
            ),
            "additionalProperties": st.booleans() | st.just({"type": "integer"}),
            "propertyNames": st.fixed_dictionaries({"pattern": _patterns}),
            "uniqueItems": st.booleans(),
        },
    ),
    st.dictionaries(_texts, _texts | st.integers(0, 2), max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_objects_are_refused_exactly_where_the_stock_validator_refuses_them(
    schema: dict[str, Json], value: dict[str, Json]
) -> None:
    stock = Draft202012Validator(schema)
    assert checker_of(schema).is_valid(value) == stock.is_valid(value)
    if schema.keys() & {"additionalProperties", "patternProperties"}:
        assert validator_for(schema).is_valid(value) == stock.is_valid(value)


_items = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from([0.0, 1.0, -0.0, 0.5, "0", "1", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(_items, max_size=4))
@settings(max_examples=400, deadline=None)
def test_items_are_the_same_where_the_stock_validator_says_so(value: list[Json]) -> None:
    schema: dict[str, Json] = {"uniqueItems": True}
    assert checker_of(schema).is_valid(value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.proves("T67")
@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": "a"},
        {"not": {"pattern": "^b"}},
        {"if": {"pattern": "^b"}, "then": False},
        {"oneOf": [{"pattern": "a"}, {"pattern": "b"}]},
        {"anyOf": [{"pattern": "a"}, {"type": "string"}]},
    ],
)
def test_a_text_that_is_too_long_for_its_pattern_is_refused_wherever_the_pattern_stands(rule: Json) -> None:
    checker = validator_for({"type": "object", "properties": {"q": {"type": "array", "items": rule}}})
    assert checker.is_valid({"q": ["a"]})
    [error] = checker.iter_errors({"q": ["a", "a" * 200_000]})
    assert list(error.absolute_path) == ["q", 1]
    assert error.message == "is too long for its pattern: 200000 bytes, at most 131072"


@pytest.mark.proves("T67")
def test_a_name_that_is_too_long_for_its_pattern_is_refused() -> None:
    for rule in ({"patternProperties": {"^b": False}}, {"propertyNames": {"not": {"pattern": "^b"}}}):
        checker = checker_of({"type": "object", **rule})
        assert checker.is_valid({"a": 1})
        [error] = checker.iter_errors({"b" * 200_000: 1})
        assert "is too long for its pattern" in error.message
        assert len(error.message) < 300


def test_no_word_of_a_schema_brings_the_stock_validator_back() -> None:
    """A schema that names a draft makes jsonschema take that draft's own validator, with its own engine."""
    schema: dict[str, Json] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"self": {"$ref": "#"}},
        "type": "string",
        "pattern": r"^\p{L}$",
    }
    assert checker_of(schema).is_valid("ä")
    assert checker_of(
        {**schema, "allOf": [{"$ref": "#/$defs/leaf"}], "$defs": {"leaf": {"pattern": r"\p{Lu}"}}}
    ).is_valid("Ä")
