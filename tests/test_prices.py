"""config/prices.yaml: what it says, what it refuses, and what usage costs by it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelling import MODELS
from serving import ROOT

from tornado_live.errors import ConfigError
from tornado_live.jsonvalue import Json
from tornado_live.observe.usage import Usage
from tornado_live.settings import load_settings
from tornado_live.wire.prices import Prices, load_prices

TEXT = (ROOT / "config/prices.yaml").read_text(encoding="utf-8")
PRICES = load_prices(TEXT, "prices.yaml")
WITHOUT_PRICE = {"gemini-robotics-er-2-streaming"}

SMALL = load_prices(
    """
currency: EUR
models:
  m:
    input:
      TEXT: {is: 0.5, documented: x, read: 2026-10-10}
      AUDIO: {is: 3, documented: x, read: 2026-10-10}
    output:
      TEXT: {is: 2, documented: x, read: 2026-10-10}
      AUDIO: {is: 12.000001, documented: x, read: 2026-10-10}
  m-large:
    input: {TEXT: {is: 1, documented: x, read: 2026-10-10}}
    output: {TEXT: {is: 20, documented: x, read: 2026-10-10}}
""",
    "prices.yaml",
)


def turn(
    inputs: Mapping[str, int], outputs: Mapping[str, int], *, thoughts: int = 0, more: int = 0
) -> dict[str, Json]:
    """A `usageMetadata`; `more` are input tokens that no detail explains."""
    return {
        "promptTokenCount": sum(inputs.values()) + more,
        "responseTokenCount": sum(outputs.values()),
        "thoughtsTokenCount": thoughts,
        "promptTokensDetails": [{"modality": one, "tokenCount": count} for one, count in inputs.items()],
        "responseTokensDetails": [{"modality": one, "tokenCount": count} for one, count in outputs.items()],
    }


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_prices(text, "prices.yaml")
    return [str(problem) for problem in error.value.problems]


def test_every_model_that_we_know_has_prices_but_for_those_that_google_says_none_of() -> None:
    assert {name for name in MODELS.names if not PRICES.of(name).known} == WITHOUT_PRICE
    for name in WITHOUT_PRICE:
        assert name in TEXT


def test_a_model_is_found_by_the_beginning_of_its_name_and_the_longest_counts() -> None:
    for name in ("m", "models/m", "m-002", "publishers/google/models/m-preview"):
        assert SMALL.of(name).name == "m"
    assert SMALL.of("models/m-large-1").name == "m-large"


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (turn({"TEXT": 1000}, {}), 500),
        (turn({"TEXT": 1000, "AUDIO": 1000}, {"TEXT": 10, "AUDIO": 1000}), 500 + 3000 + 20 + 12_001),
        (turn({}, {}, thoughts=100), 200),
        (turn({"VIDEO": 100}, {}), 300),
        (turn({"TEXT": 100}, {}, more=100), 50 + 300),
        ({"promptTokenCount": 100}, 300),
        ({"totalTokenCount": 100}, 0),
        ({"promptTokenCount": "100", "responseTokensDetails": None}, 300),
    ],
)
def test_a_turn_costs_by_direction_and_modality_and_as_the_dearest_where_nobody_says(
    usage: dict[str, Json], micro: int
) -> None:
    spent = Usage(prices=SMALL, model="m")
    spent.add(usage)
    assert spent.micro_cost == micro


def test_a_model_without_a_price_costs_as_the_dearest_of_all() -> None:
    spent = Usage(prices=SMALL, model="gemini-9-live")
    spent.add(turn({"TEXT": 1000, "AUDIO": 1000}, {"TEXT": 1000, "AUDIO": 1000}))
    assert spent.micro_cost == 1000 + 3000 + 20_000 + 12_001
    unknown = Usage(prices=SMALL, model="gemini-9-live")
    unknown.add({"promptTokenCount": 1000, "responseTokenCount": 1000})
    assert unknown.micro_cost == 3000 + 20_000


def test_the_log_says_once_that_a_model_has_no_price(caplog: pytest.LogCaptureFixture) -> None:
    prices = load_prices(TEXT, "prices.yaml")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            usage = Usage(prices=prices)
            usage.connection_opened(resumed=False, model="models/gemini-9-live")
            usage.connection_opened(resumed=False, model="gemini-3.8-live")
    assert len(caplog.records) == 1
    assert prices.warning("gemini-3.8-live") is None
    assert str(prices.warning("gemini-9-live")).startswith(
        "gemini-9-live is not in prices.yaml: it is charged as"
    )


def test_each_connection_costs_as_its_model_does() -> None:
    spent = Usage(prices=SMALL, model="m")
    spent.add(turn({"TEXT": 1000}, {}))
    spent.connection_opened(resumed=False, model="m-large")
    spent.add(turn({"TEXT": 1000}, {}))
    spent.connection_opened(resumed=True)
    spent.add(turn({"TEXT": 1000}, {}))
    assert spent.micro_cost == 500 + 1000 + 1000


def test_counts_since_the_beginning_cost_only_what_they_grew_by() -> None:
    spent = Usage(prices=SMALL, model="m")
    for total in (100, 300, 300):
        spent.add(turn({"AUDIO": total}, {"TEXT": total}, thoughts=total), cumulative=True)
    assert spent.micro_cost == 300 * 3 + 300 * 2 + 300 * 2


def test_cost_goes_on_from_what_was_stored_and_begins_with_old_sessions_at_nothing() -> None:
    spent = Usage(prices=SMALL, model="m")
    spent.add(turn({"AUDIO": 333}, {"AUDIO": 333}))
    stored = spent.as_json()
    assert stored["cost"] == {"amount": 0.004996, "currency": "EUR"}
    later = Usage(stored, prices=SMALL, model="m")
    assert later.micro_cost == spent.micro_cost
    later.add(turn({"TEXT": 2}, {}))
    assert later.micro_cost == spent.micro_cost + 1
    old = {name: value for name, value in stored.items() if name != "cost"}
    assert Usage(old, prices=SMALL).micro_cost == 0
    assert Usage(stored, prices=PRICES).micro_cost == 0, "another currency"
    assert "cost" not in Usage(stored).as_json()


@pytest.mark.parametrize(
    "cost", [None, 5, {}, {"amount": -1, "currency": "EUR"}, {"amount": "1", "currency": "EUR"}]
)
def test_a_stored_cost_that_is_none_begins_at_nothing(cost: Json) -> None:
    assert Usage({"cost": cost}, prices=SMALL).micro_cost == 0


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)), max_size=20))
def test_money_is_exact_whatever_the_turns(turns: list[tuple[int, int]]) -> None:
    """In one sum, or stored and read after each turn: never less, and at most a millionth a turn more."""
    whole = Usage(prices=SMALL, model="m")
    stored: dict[str, Json] = {}
    for text, audio in turns:
        usage = turn({"TEXT": text}, {"AUDIO": audio})
        whole.add(usage)
        part = Usage(stored, prices=SMALL, model="m")
        part.add(usage)
        stored = part.as_json()
    exact = sum(text * 500_000 + audio * 12_000_001 for text, audio in turns)
    assert whole.micro_cost == -(-exact // 1_000_000)
    assert 0 <= Usage(stored, prices=SMALL).micro_cost - whole.micro_cost <= len(turns)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("currency: USD\nmodells: {}", ['prices.yaml:2: modells: unknown key - did you mean "models"?']),
        ("models: {}", ["prices.yaml:1: says no currency - write currency: USD"]),
        (
            "currency: dollars",
            ['prices.yaml:1: currency: "dollars" is not a currency - write three letters, such as USD'],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      AUDIOS: {is: 1, documented: x, read: 2026-10-10}\n",
            [
                'prices.yaml:5: models.m.input.AUDIOS: unknown key - did you mean "AUDIO"?',
            ],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: 0.75\n",
            [
                "prices.yaml:5: models.m.input.TEXT: write"
                " {is: 0.75, documented: where it is said, read: 2026-10-07}"
            ],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: {is: free, documented: x, read: 2026-10-10}\n",
            ['prices.yaml:5: models.m.input.TEXT.is: "free" is not the price of a million tokens'],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: {is: -1, documented: x, read: 2026-10-10}\n",
            ['prices.yaml:5: models.m.input.TEXT.is: "-1" is not the price of a million tokens'],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: {is: 1, documented: x}\n",
            [
                "prices.yaml:5: models.m.input.TEXT.read: expected the day on which it was looked up,"
                " such as 2026-10-07"
            ],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: {is: 1, read: 2026-10-10}\n",
            [
                "prices.yaml:5: models.m.input.TEXT: needs one of recorded, documented, reported, inferred,"
                " with the source"
            ],
        ),
        (
            "currency: USD\nmodels:\n  m:\n    input:\n      TEXT: {is: 1, documented: x, read: 2026-10-10}\n",
            ["prices.yaml:3: models.m: has no price of output"],
        ),
        ("currency: USD\nmodels: gemini\n", ["prices.yaml:2: models: expected keys below it, not one value"]),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(text: str, problems: list[str]) -> None:
    assert refused(text) == problems


def prices(home: Path) -> Prices:
    return load_settings(home=home, config=None, environ={}, overrides={}).prices


def test_the_operators_own_file_counts_before_the_packaged_one_price_by_price(tmp_path: Path) -> None:
    assert prices(tmp_path) == PRICES
    (tmp_path / "config").mkdir()
    mine = tmp_path / "config/prices.yaml"
    mine.write_text(
        "models:\n"
        "  gemini-3.8-live: {input: {AUDIO: {is: 1, documented: our contract, read: 2026-11-20}}}\n"
        "  gemini-4-live:\n"
        "    input: {TEXT: {is: 2, documented: our contract, read: 2026-11-20}}\n"
        "    output: {TEXT: {is: 3, documented: our contract, read: 2026-11-20}}\n"
    )
    found = prices(tmp_path)
    assert found.currency == "USD"
    assert found.of("gemini-3.8-live").fine("input", "AUDIO", 1) == 1_000_000
    assert found.of("gemini-3.8-live").fine("input", "TEXT", 1) == 750_000
    assert found.of("gemini-4-live-001").known
    mine.write_text(
        "currency: EUR\nmodels:\n  m:\n"
        "    input: {TEXT: {is: 2, documented: our contract, read: 2026-11-20}}\n"
        "    output: {TEXT: {is: 3, documented: our contract, read: 2026-11-20}}\n"
    )
    assert (prices(tmp_path).currency, prices(tmp_path).names) == ("EUR", ("m",))
    mine.write_text("models:\n  m:\n    input: {TEXT: {is: cheap, documented: x, read: 2026-11-20}}\n")
    with pytest.raises(ConfigError, match=r'config/prices\.yaml:3: .*"cheap" is not the price'):
        prices(tmp_path)
