"""What JSON of somebody unknown must be, and that what people send is such."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tornado_live.wire import strict

MOST = 1000
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.proves("T23")
@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * MOST + b"1]",
        b"[" + b"{}," * MOST + b"1]",
        b"[" + b"1," * MOST + b"1]",
        b"[" * (MOST + 1) + b"]" * (MOST + 1),
        b"{" + b",".join(b'"%d":0' % number for number in range(MOST + 1)) + b"}",
        b"[" + b'"a\\"b",' * MOST + b"1]",
        b"1" * 100_000,
        b"[" + b" " * 100_000 + b"1]",
    ],
)
def test_more_values_than_may_be_are_refused_before_they_are_built(data: bytes) -> None:
    with pytest.raises(ValueError, match="at most 1000 values"):
        strict.weigh(data, MOST)


@pytest.mark.parametrize(
    "value",
    [
        "[1,2],{}" * 100_000,
        '"[{' * 100_000,
        "\\" * 100_001,
        '\\"' * 100_001,
        ["[" * 1000] * 900,
        {str(number): "," * 100 for number in range(900)},
    ],
)
def test_what_is_in_strings_weighs_nothing(value: object) -> None:
    strict.weigh(json.dumps(value).encode(), MOST)


@given(ANYTHING)
@example({"a": [{"a": 1}, {"a": 1}]})
def test_what_is_written_with_care_passes(value: object) -> None:
    data = json.dumps(value, indent=4).encode()
    strict.weigh(data, len(data))
    strict.check(data, 200)


@pytest.mark.proves("T23")
def test_a_field_that_is_named_twice_is_refused_at_any_depth() -> None:
    for data in (b'{"a":1,"a":1}', b'[{"b":{"a":1,"\\u0061":2}}]', b'{"a":{},"b":[{"":0,"":0}]}'):
        with pytest.raises(ValueError, match="twice"):
            strict.check(data, 10)


@pytest.mark.proves("T23")
def test_what_is_too_deep_is_refused() -> None:
    strict.check(b"[" * 10 + b"]" * 10, 10)
    strict.check(b'"[[[[[[[[[[[[[[["', 10)
    for data in (b"[" * 11 + b"]" * 11, b'{"a":' * 11 + b"1" + b"}" * 11, b'[{"a":' * 6 + b"1" + b"}]" * 6):
        with pytest.raises(ValueError, match="too deep"):
            strict.check(data, 10)
