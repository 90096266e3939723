"""Whether a failed call is made again, and when: by plain values."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.tools.http_answer import http_error
from tornado_live.tools.http_retry import BrokenOff, NotSent, Retry, RetryOn, pause_before_retry, retry_after
from tornado_live.tools.result import ToolCode, ToolError

NOW = 1_800_000_000.0
ALL = Retry(3)
NO_CONNECTION = NotSent("No.")
CLOSED_MEANWHILE = NotSent("No.", kept=True)
BROKEN = BrokenOff(ToolCode.UNREACHABLE, "No.")


def pause(
    error: ToolError,
    retry: Retry | None = ALL,
    *,
    tries: int = 1,
    repeatable: bool = True,
    left_s: float | None = None,
    jitter: float = 1.0,
) -> float | None:
    return pause_before_retry(error, retry, tries=tries, repeatable=repeatable, left_s=left_s, jitter=jitter)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NO_CONNECTION, "connect"),
        (http_error(429, None), "429"),
        (http_error(500, None), "5xx"),
        (http_error(503, None), "5xx"),
        (http_error(599, None), "5xx"),
    ],
)
def test_a_failure_is_tried_again_only_where_the_operator_named_it(error: ToolError, reason: RetryOn) -> None:
    others = frozenset[RetryOn](("connect", "429", "5xx")) - {reason}
    assert pause(error, Retry(2, frozenset((reason,)))) is not None
    assert pause(error, Retry(2, others)) is None
    assert pause(error, Retry(2), tries=2) is None
    assert pause(error, Retry(1)) is None
    assert pause(error, None) is None


@pytest.mark.parametrize(
    "error",
    [
        http_error(400, None),
        http_error(404, 1.0),
        http_error(302, None),
        ToolError(ToolCode.BAD_ANSWER, "No.", retryable=True),
        ToolError(ToolCode.NOT_ALLOWED, "No."),
        ToolError(ToolCode.TIMEOUT, "No.", retryable=True),
    ],
)
def test_what_would_fail_again_or_may_have_been_done_is_not_tried_again(error: ToolError) -> None:
    assert pause(error) is None


def test_pauses_double_up_to_five_seconds_and_half_of_each_is_chance() -> None:
    many = Retry(20)
    assert [pause(NO_CONNECTION, many, tries=tries) for tries in (1, 2, 3, 4, 9)] == [0.2, 0.4, 0.8, 1.6, 5.0]
    assert pause(NO_CONNECTION, many, jitter=0.0) == 0.1


def test_a_service_may_ask_for_more_but_not_for_less() -> None:
    assert pause(http_error(503, 7.0)) == 7.0
    assert pause(http_error(429, 0.0)) == 0.2


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1), st.integers(1, 5))
def test_no_pause_outlasts_the_deadline(left: float, asked: float, jitter: float, tries: int) -> None:
    found = pause(http_error(503, asked), Retry(5), tries=tries, left_s=left, jitter=jitter)
    assert found is None or asked <= found < left


def test_a_connection_that_was_closed_meanwhile_is_replaced_once_whatever_was_to_be_sent() -> None:
    for retry in (None, ALL):
        assert pause(CLOSED_MEANWHILE, retry, repeatable=False) == 0.0
        assert pause(CLOSED_MEANWHILE, retry, tries=2) is None


def test_a_request_that_may_have_arrived_is_sent_again_once_if_it_is_repeatable() -> None:
    assert pause(BROKEN, None) == 0.0
    assert pause(BROKEN, ALL, tries=2) is None
    assert pause(BROKEN, ALL, repeatable=False) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("٣", None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9" * 100, None),
        (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 99 Foo 2027 08:00:30 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(written: str | None, expected: float | None) -> None:
    assert retry_after(written, now=NOW) == expected
