"""Answers as JSON of a bounded size, without secrets, in one line for people."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_live.tools.answer import (
    MAX_TEXT,
    Word,
    cut,
    is_empty,
    is_small,
    redacted,
    size,
    summary,
    to_json,
)
from tornado_live.tools.result import Json, ToolCode, ToolError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=40,
)


@given(values, st.integers(256, 2000))
@settings(max_examples=100, deadline=None)
def test_an_answer_is_cut_to_its_cap_and_the_note_says_so(value: Json, cap: int) -> None:
    value = to_json(value)
    shorter, note = cut(value, cap)
    assert size(shorter) <= cap
    assert bool(note) == (size(value) > cap)
    if not note:
        assert shorter == value


def test_what_is_cut_is_told_for_texts_lists_and_fields() -> None:
    assert cut("x" * 1000, 260) == (
        "x" * 255 + "…",
        "The answer was too long and was cut: the first 255 of 1000 characters.",
    )
    shorter, note = cut({"n": 3, "text": "x" * 1000, "rows": list(range(1000))}, 300)
    assert isinstance(shorter, dict)
    assert list(shorter) == ["n", "text", "rows"]
    assert shorter["n"] == 3
    assert note.startswith("The answer was too long and was cut: text has the first ")
    assert note.endswith(" of 1000 items.")


def test_of_an_object_with_very_many_fields_the_first_are_kept() -> None:
    shorter, note = cut({f"k{n}": "x" * 8 for n in range(60_000)}, 16384)
    assert isinstance(shorter, dict)
    assert list(shorter) == [f"k{n}" for n in range(len(shorter))]
    assert len(shorter) > 400
    assert note.startswith(
        f"The answer was too long and was cut: without {60_000 - len(shorter)} of 60000 fields (k{len(shorter)},"
    )


@pytest.mark.parametrize("text", ["x" * (MAX_TEXT + 1), ["é" * (MAX_TEXT // 2 + 1)] * 2], ids=["one", "two"])
def test_more_text_than_anybody_reads_is_too_large(text: Json) -> None:
    with pytest.raises(ToolError) as caught:
        to_json(text)
    assert caught.value.code is ToolCode.TOO_LARGE


@pytest.mark.parametrize(
    ("value", "small"),
    [
        (None, True),
        ([{"a": 1, "b": "x"}] * 100, True),
        ([1] * 5000, False),
        ([[[n, [n]] for n in range(5)] for _ in range(500)], False),
        (["x" * 1000] * 100, False),
        ({"x" * 100_000: 1}, False),
    ],
)
def test_what_takes_long_to_read_is_not_small(value: object, small: bool) -> None:
    assert is_small(value) is small


def test_what_holds_itself_is_not_small() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    assert not is_small(cycle)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, True),
        ([], True),
        ({}, True),
        ("", True),
        ({"title": None, "text": None}, True),
        (0, False),
        (False, False),
        ({"a": 0}, False),
        ([None], False),
    ],
)
def test_empty_is_nothing_or_an_object_of_nothing(value: Json, expected: bool) -> None:
    assert is_empty(value) is expected


@pytest.mark.proves("T48")
def test_a_secret_is_blotted_out_of_keys_and_values() -> None:
    assert redacted({"key-abc": ["x key y", 1]}, ["key"]) == {"***-abc": ["x *** y", 1]}


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        ("metrics, geometric, metric2", "metrics, geometric, metric2"),
        ("metric", "***"),
        ("u=metric&x", "u=***&x"),
        ("key_metric_x, %3Dmetric%26", "key_***_x, %3D***%26"),
    ],
)
def test_a_secret_that_may_be_an_ordinary_word_is_blotted_out_where_it_stands_alone(
    seen: str, shown: str
) -> None:
    assert redacted({seen: seen}, [Word("metric")]) == {shown: shown}
    assert redacted(f"x{seen}", ["metric"]) == "x" + seen.replace("metric", "***")


def test_a_secret_that_begins_or_ends_with_a_sign_is_blotted_out_within_words_too() -> None:
    assert redacted("x-4711-y", [Word("-4711-")]) == "x***y"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing"),
        ("two\nlines", "two lines"),
        ([1], "1 item"),
        (
            {"place": "Rome", "celsius": 21, "days": [1, 2, 3], "raw": {}},
            "place: Rome, celsius: 21, days: 3 items",
        ),
        ({"raw": {"a": 1}}, "1 field"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
def test_a_summary_is_one_short_line(value: Json, expected: str) -> None:
    assert summary(value) == expected
