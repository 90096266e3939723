"""The table of limits: that it is one with the settings, the metrics and the page, and what it charges to whom."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
from serving import ROOT

from tornado_live.access.limits import (
    METRIC,
    OWN,
    TABLE,
    Charge,
    Row,
    charges,
    nearly,
    over,
    places,
    rate,
    value,
)
from tornado_live.caller import Caller
from tornado_live.observe.metrics import LIMITS, Metrics
from tornado_live.settings import Limits
from tornado_live.wire.prices import SIDES, load_prices

PAGE = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
PRICES = load_prices((ROOT / "config/prices.yaml").read_text(encoding="utf-8"), "prices.yaml")

TIMING = {
    "grace_s",
    "setup_timeout_s",
    "connection_s",
    "upstream_ping_s",
    "upstream_pong_s",
    "client_ping_s",
    "client_pong_s",
    "heartbeat_s",
    "drain_s",
}
"""What of settings.Limits is the server's own pace, and holds nobody back."""

ALICE = Caller("alice", known=True, subjects=frozenset({"user:alice", "key:web"}))


def row(one: Row) -> list[str]:
    default = Limits.model_fields[one.name].default
    shown = "none" if default is None else f"{default:.10g}"
    window = {None: "", 1.0: "second", 60.0: "minute", 86_400.0: "day"}[one.window_s]
    return [
        f"`{one.name}`",
        shown,
        one.unit,
        one.scope,
        window,
        one.what,
        one.beyond,
        "yes" if one.own else "",
    ]


def price_rows() -> list[list[str]]:
    return [
        [
            f"`{name}`",
            side,
            modality,
            f"{price.per_million:.2f} {PRICES.currency}",
            price.evidence.kind,
            price.evidence.source,
            price.read,
        ]
        for name in PRICES.names
        for side in SIDES
        for (of, modality), price in PRICES.rates(name).items()
        if of == side
    ]


def shown(heading: str) -> list[list[str]]:
    """The rows of the last table under a heading of the page, without its head."""
    (text,) = [part for part in re.split(r"^## ", PAGE, flags=re.M) if part.startswith(heading)]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in one] for one in rows][2:]


def names(found: Sequence[Charge]) -> list[str]:
    return [charge.counter for charge in found]


def test_every_setting_that_holds_a_caller_back_has_its_row() -> None:
    listed = [one.name for one in TABLE]
    assert sorted(listed) == sorted(set(Limits.model_fields) - TIMING)


def test_the_page_shows_the_table() -> None:
    assert shown("The table") == [row(one) for one in TABLE]


def test_the_page_shows_the_prices() -> None:
    assert shown("Prices") == price_rows()


def test_every_row_that_holds_somebody_back_has_its_series_from_the_start() -> None:
    assert [one.name for one in TABLE if not one.counted_as] == list(LIMITS)
    text = Metrics().render().decode()
    for one in TABLE:
        if one.metric.startswith(METRIC):
            assert f"{one.metric} 0.0" in text


def test_without_limits_of_a_day_nothing_is_charged() -> None:
    assert charges(Limits(), ALICE) == ()


def test_each_limit_is_charged_to_whom_it_counts_for() -> None:
    limits = Limits(
        tool_calls_per_day=100,
        audio_s_per_day=3600,
        talk_s_per_day=7200,
        tokens_per_day=1_000_000,
        cost_per_session=0.5,
        cost_per_day=2,
        cost_per_day_per_key=10,
        cost_per_day_in_all=50,
    )
    assert charges(limits, ALICE) == (
        Charge("tool_calls_per_day", "tool_calls_per_day:user:alice", 100, 86_400, 5, "calls"),
        Charge("audio_s_per_day", "audio_s_per_day:user:alice", 3_600_000, 86_400, 60_000, "seconds"),
        Charge("talk_s_per_day", "talk_s_per_day:user:alice", 7_200_000, 86_400, 60_000, "seconds"),
        Charge("tokens_per_day", "tokens_per_day:user:alice", 1_000_000, 86_400, 20_000, "tokens"),
        Charge("cost_per_day", "cost_per_day:user:alice", 2_000_000, 86_400, 50_000, "money"),
        Charge("cost_per_day_per_key", "cost_per_day_per_key:key:web", 10_000_000, 86_400, 50_000, "money"),
        Charge("cost_per_day_in_all", "cost_per_day_in_all:all", 50_000_000, 86_400, 50_000, "money"),
    )


def test_who_is_nobody_in_particular_has_no_limits_of_a_user_or_key() -> None:
    limits = Limits(cost_per_session=1, cost_per_day=1, cost_per_day_per_key=1, cost_per_day_in_all=1)
    nobody = Caller("local")
    assert names(charges(limits, nobody)) == ["cost_per_day_in_all:all"]
    assert places(limits, nobody) == ()


def test_the_lower_of_the_servers_value_and_ones_own_counts() -> None:
    limits = Limits(cost_per_day=2)
    for own, counts in ((1.0, 1.0), (5.0, 2.0), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 2.0)):
        caller = Caller("alice", known=True, limits={"cost_per_day": own})
        assert value("cost_per_day", limits, caller) == counts
    mine = Caller("alice", known=True, limits={"tokens_per_day": 500})
    assert value("tokens_per_day", limits, mine) == 500
    assert value("cost_per_day", limits, mine) == 2


def test_a_limit_of_ones_own_may_be_any_number() -> None:
    for own in (math.inf, 1e308, 1e15):
        caller = Caller("a", known=True, limits={"cost_per_day": own, "conversations_per_user": own})
        (charge,) = charges(Limits(), caller)
        assert (charge.most, charge.lease) == (10**14, 50_000)
        assert places(Limits(conversations_per_user=None), caller)[0].most <= 10**15


def test_nobody_brings_a_limit_that_is_not_ones_own_to_bring() -> None:
    everything = Caller("alice", known=True, limits=dict.fromkeys(Limits.model_fields, 1.0))
    changed = {
        one.name for one in TABLE if value(one.name, Limits(), everything) != getattr(Limits(), one.name)
    }
    assert changed == OWN - {"conversations_per_key", "cost_per_day_per_key"}  # there is no key


def test_places_are_held_by_user_key_and_all() -> None:
    limits = Limits(conversations_per_user=3, conversations_per_key=50, conversations_in_all=400)
    assert [(place.counter, place.most) for place in places(limits, ALICE)] == [
        ("conversations_per_user:user:alice", 3),
        ("conversations_per_key:key:web", 50),
        ("conversations_in_all:all", 400),
    ]


def test_a_name_of_any_length_and_characters_makes_a_short_counter() -> None:
    for user in ("x" * 10_000, "a\x00b", "\udc80", "new\nline", "sha256:0"):
        (charge,) = charges(Limits(cost_per_day=1), Caller(user, known=True))
        assert re.fullmatch(r"cost_per_day:user:sha256:[0-9a-f]{64}", charge.counter)
    (one, other) = (rate("sessions_per_minute", 60, f"user:{'x' * 300}{end}") for end in "ab")
    assert one.counter != other.counter


@pytest.mark.parametrize(
    ("name", "most", "amount", "whole"),
    [
        ("cost_per_day", 1, 0.000001, 1),
        ("cost_per_day", 1, 0.0000001, 1),
        ("cost_per_day", 1, 0.3, 300_000),
        ("audio_s_per_day", 10, 0.02, 20),
        ("audio_s_per_day", 10, 0.0213, 22),
        ("tokens_per_day", 10, 7, 7),
    ],
)
def test_amounts_are_counted_in_whole_units_and_never_as_less(
    name: str, most: float, amount: float, whole: int
) -> None:
    assert rate(name, most, "user:a").whole(amount) == whole


def test_a_lease_is_a_small_part_and_at_least_one() -> None:
    assert rate("tool_calls_per_day", 1, "user:a").lease == 1
    assert rate("tool_calls_per_day", 100, "user:a").lease == 5
    assert rate("tool_calls_per_day", 1_000_000, "user:a").lease == 10
    assert rate("cost_per_day", 0.00001, "user:a").lease == 1


@pytest.mark.parametrize(
    ("seconds", "words", "ms"),
    [(0.2, "in 1 second", 200), (59.2, "in 60 seconds", 59_200), (86_000, "in 24 hours", 86_000_000)],
)
def test_who_is_over_a_limit_is_told_which_and_until_when(seconds: float, words: str, ms: int) -> None:
    told = over("cost_per_day", seconds)
    assert told.message == f"What you may use in a day is used up (cost_per_day). Try again {words}."
    assert (told.limit, told.retry_after_ms, told.close_code) == ("cost_per_day", ms, 4429)
    assert over("conversations_per_user").retry_after_ms is None
    assert nearly("talk_s_per_day") == (
        "Four fifths of the time that you may talk in a day are used up (talk_s_per_day)."
    )


def test_what_is_told_of_a_limit_is_in_words_for_people() -> None:
    refused = [one for one in TABLE if "retryAfterMs" in one.beyond and one.name != "queued_bytes"]
    assert [one.name for one in refused if not one.people] == []
