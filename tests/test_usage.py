"""Usage by the examples of the Gemini Live protocol."""

from __future__ import annotations

import pytest

from tornado_live.jsonvalue import Json
from tornado_live.observe.usage import Usage

DEVELOPER_API: dict[str, Json] = {
    "promptTokenCount": 1267,
    "responseTokenCount": 103,
    "totalTokenCount": 1370,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1267}],
    "responseTokensDetails": [
        {"modality": "TEXT", "tokenCount": 22},
        {"modality": "AUDIO", "tokenCount": 81},
    ],
    "thoughtsTokenCount": 28,
}
VERTEX: dict[str, Json] = {
    "promptTokenCount": 12,
    "candidatesTokenCount": 3,
    "totalTokenCount": 15,
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
}


def test_turns_of_both_services_add_up() -> None:
    usage = Usage()
    usage.add(DEVELOPER_API)
    usage.add(VERTEX)
    assert usage.as_json() == {
        "inputTokens": 1279,
        "outputTokens": 106,
        "totalTokens": 1385,
        "byModality": {"TEXT": {"input": 1267, "output": 22}, "AUDIO": {"input": 0, "output": 84}},
    }
    assert (usage.input_tokens, usage.output_tokens) == (1279, 106)


def test_usage_goes_on_from_stored_totals() -> None:
    before = Usage()
    before.add(DEVELOPER_API)
    after = Usage(before.as_json())
    after.add(VERTEX)
    whole = Usage()
    whole.add(DEVELOPER_API)
    whole.add(VERTEX)
    assert after.as_json() == whole.as_json()


def test_nothing_used_is_zero() -> None:
    assert Usage({}).as_json() == {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "byModality": {}}


def test_tokens_of_tool_use_are_input() -> None:
    usage = Usage()
    usage.add({"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "responseTokenCount": 1})
    assert usage.as_json() == {"inputTokens": 7, "outputTokens": 1, "totalTokens": 8, "byModality": {}}


def test_counts_written_as_strings_are_counts() -> None:
    usage = Usage()
    usage.add({"promptTokenCount": "40", "responseTokenCount": "2", "totalTokenCount": "42"})
    assert usage.as_json()["totalTokens"] == 42


@pytest.mark.parametrize(
    "nonsense",
    [
        {"promptTokenCount": None, "responseTokenCount": True, "totalTokenCount": -3},
        {"promptTokenCount": "many", "promptTokensDetails": "AUDIO"},
        {"promptTokensDetails": [None, 3, {"modality": 1, "tokenCount": 2}, {"tokenCount": 5}]},
        {"promptTokenCount": "٣", "totalTokenCount": "9" * 5000},
        {},
    ],
)
def test_nonsense_counts_nothing(nonsense: dict[str, Json]) -> None:
    usage = Usage()
    usage.add(nonsense)
    assert usage.as_json() == Usage().as_json()


def test_cumulative_counts_add_only_what_they_have_grown_by_on_one_connection() -> None:
    usage = Usage()
    audio = [{"modality": "AUDIO", "tokenCount": 40}]
    more = [{"modality": "AUDIO", "tokenCount": 100}]
    usage.add(
        {"promptTokenCount": 10, "responseTokenCount": 40, "responseTokensDetails": audio}, cumulative=True
    )
    usage.add(
        {"promptTokenCount": 25, "responseTokenCount": 100, "responseTokensDetails": more}, cumulative=True
    )
    usage.add({"promptTokenCount": 25, "responseTokenCount": 90}, cumulative=True)
    assert usage.as_json() == {
        "inputTokens": 25,
        "outputTokens": 100,
        "totalTokens": 125,
        "byModality": {"AUDIO": {"input": 0, "output": 100}},
    }
    usage.connection_opened(resumed=False)
    usage.add({"promptTokenCount": 5, "responseTokenCount": 1}, cumulative=True)
    assert (usage.input_tokens, usage.output_tokens) == (30, 101)


@pytest.mark.parametrize(("first_count", "total"), [(120, 20), (15, 15)])
def test_cumulative_counts_of_a_resumed_session_go_on_or_begin_anew(first_count: int, total: int) -> None:
    usage = Usage()
    usage.add({"promptTokenCount": 100}, cumulative=True)
    usage.connection_opened(resumed=True)
    usage.add({"promptTokenCount": first_count}, cumulative=True)
    assert usage.input_tokens == 100 + total
