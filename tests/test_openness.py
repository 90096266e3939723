"""What a server prints at its start about who may do what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tornado_live.access.openness import openness
from tornado_live.settings import load_settings

JWT = {
    "auth.modes": "api_key, jwt",
    "auth.jwt_issuer": "https://id.example",
    "auth.jwt_audience": "voice",
    "auth.jwt_jwks_url": "https://id.example/keys",
}


def told(home: Path, **given: str) -> list[str]:
    overrides = {name.replace("__", "."): value for name, value in given.items()}
    return list(openness(load_settings(home=home, config=None, environ={}, overrides=overrides)))


def test_at_home_it_is_one_line(tmp_path: Path) -> None:
    assert told(tmp_path) == [
        "Whoever reaches 127.0.0.1 may talk: callers are not asked who they are (auth.modes)."
    ]


def test_whoever_opens_it_to_others_is_told_all_that_is_open(tmp_path: Path) -> None:
    assert told(tmp_path, host="0.0.0.0", public_without_auth="true") == [
        "Whoever reaches 0.0.0.0 may talk: callers are not asked who they are (auth.modes).",
        "What is sent crosses the network unencrypted (public_without_tls).",
        "No limit of money is set (limits.cost_per_day_in_all).",
    ]


def test_behind_a_proxy_the_address_is_the_one_that_people_type(tmp_path: Path) -> None:
    lines = told(tmp_path, public_url="https://voice.example", trusted_proxies="127.0.0.1, ::1, 10.0.0.0/24")
    assert lines == [
        "Whoever reaches https://voice.example may talk: callers are not asked who they are (auth.modes).",
        "Who a client is says the proxy at 127.0.0.1, ::1, 10.0.0.0/24 (trusted_proxies).",
        "No limit of money is set (limits.cost_per_day_in_all).",
    ]


def test_callers_that_are_asked_are_told_of_with_whose_tokens_count(tmp_path: Path) -> None:
    lines = told(
        tmp_path,
        **{name.replace(".", "__"): value for name, value in JWT.items()},
        public_url="https://voice.example/talk",
        allowed_origins="https://www.example",
        limits__cost_per_day="2.5",
        limits__cost_per_day_in_all="50",
    )
    assert lines == [
        "Callers show an API key (tornado-live token) or a JWT of https://id.example for voice.",
        "The pages and /health are open to everybody; /metrics to operators and to this machine.",
        "Pages of https://www.example may use it too (allowed_origins).",
        "Limits of money: cost_per_day 2.5, cost_per_day_in_all 50.",
    ]


def test_limits_of_a_day_are_told_where_there_are_none_of_money(tmp_path: Path) -> None:
    (*_, last) = told(tmp_path, auth__modes="api_key", limits__talk_s_per_day="3600")
    assert last == "No limit of money is set (limits.cost_per_day_in_all). Of a day: talk_s_per_day 3600."


@pytest.mark.parametrize(("proxy", "is_told"), [("127.0.0.1", True), ("10.0.0.5", False)])
def test_a_proxy_on_this_machine_hides_nothing_from_the_network(
    tmp_path: Path, proxy: str, is_told: bool
) -> None:
    lines = told(
        tmp_path, auth__modes="api_key", host="0.0.0.0", trusted_proxies=proxy, public_without_tls="true"
    )
    assert ("What is sent crosses the network unencrypted (public_without_tls)." in lines) is is_told


@pytest.mark.parametrize("modes", ["none", "api_key"])
def test_it_is_six_lines_at_most(tmp_path: Path, modes: str) -> None:
    lines = told(
        tmp_path,
        auth__modes=modes,
        public_without_auth="true",
        host="0.0.0.0",
        public_url="https://voice.example",
        trusted_proxies="127.0.0.1",
        public_without_tls="true",
        allowed_origins="https://www.example",
    )
    assert 2 <= len(lines) <= 6
