"""The one table of codes, here and in the documentation; and how mistakes are shown to operators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tornado_live.errors import LIVE_ERRORS, ConfigError, LiveError, Problem, nearest

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\d+|–) \| (\d+|–) \| .+ \| ([^|]+) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[int | None, int | None, bool]]:
    section = (
        PROTOCOL.read_text(encoding="utf-8").partition("## Errors and close codes")[2].partition("\n## ")[0]
    )
    return {
        code: (
            None if status == "–" else int(status),
            None if close == "–" else int(close),
            retry.strip() in ("yes", "later"),
        )
        for code, status, close, retry in _ROW.findall(section)
    }


def test_the_documentation_shows_the_same_table() -> None:
    assert documented() == {
        error.code: (error.http_status, error.close_code, error.retryable) for error in LIVE_ERRORS
    }


def test_the_table_has_every_error_once() -> None:
    assert set(LIVE_ERRORS) == set(LiveError.__subclasses__())
    assert len({error.code for error in LIVE_ERRORS}) == len(LIVE_ERRORS)


@pytest.mark.parametrize("error", [error for error in LIVE_ERRORS if error.http_status and error.close_code])
def test_a_close_code_is_4000_and_the_status(error: type[LiveError]) -> None:
    assert error.http_status is not None
    assert error.close_code == 4000 + error.http_status


def test_a_problem_says_where_what_and_what_instead() -> None:
    problem = Problem("tools.yaml", 31, "get_weather.http.method", '"FETCH" is not one of GET, POST')
    assert str(problem) == 'tools.yaml:31: get_weather.http.method: "FETCH" is not one of GET, POST'
    assert str(Problem("tools.yaml", None, "", "is empty")) == "tools.yaml: is empty"
    assert str(ConfigError([problem, problem])) == f"{problem}\n{problem}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("prot", ' - did you mean "port"?'), ("PORT", ' - did you mean "port"?'), ("zebra", "")],
)
def test_a_near_miss_gets_the_name_that_was_meant(name: str, hint: str) -> None:
    assert nearest(name, ["port", "host"]) == hint
