"""Whether a call over HTTP that failed is made once more, and after which pause. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias

from tornado_live.tools.result import ToolCode, ToolError

RetryOn: TypeAlias = Literal["connect", "429", "5xx"]
RETRY_ON: Final[frozenset[RetryOn]] = frozenset(("connect", "429", "5xx"))

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` are all tries, the first among them; `on` says after what there is another."""

    attempts: int
    on: frozenset[RetryOn] = RETRY_ON


class NotSent(ToolError):
    """No connection stood, or a kept one had been closed: nothing of the request has left."""

    def __init__(self, message: str, *, kept: bool = False) -> None:
        hint = "Say that the service is out of reach just now."
        super().__init__(ToolCode.UNREACHABLE, message, retryable=True, hint=hint)
        self.kept = kept


class BrokenOff(ToolError):
    """The connection ended before the answer began: nobody knows whether the request was carried out."""


class HttpError(ToolError):
    """An answer other than 2xx. `retry_after_s` is what the service asks for."""

    def __init__(
        self, status: int, message: str, *, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        retryable = status in (408, 425, 429) or status >= 500
        super().__init__(ToolCode.HTTP_ERROR, message, retryable=retryable, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s


def pause_before_retry(
    error: ToolError,
    retry: Retry | None,
    *,
    tries: int,
    repeatable: bool,
    left_s: float | None,
    jitter: float,
) -> float | None:
    """Seconds until the next try, or None if `error` is the end of it.

    `retry` is None for a call that has side effects. `tries` were made. A request is `repeatable` if it is a GET
    without side effects. A pause that does not leave any of `left_s` (None: no deadline) is not begun. `jitter` is
    a random number from 0 to 1, for one half of a pause.
    """
    match error:
        case NotSent(kept=True):
            return 0.0 if tries == 1 else None
        case BrokenOff():
            return 0.0 if tries == 1 and repeatable else None
        case NotSent():
            reason: RetryOn = "connect"
        case HttpError(status=429):
            reason = "429"
        case HttpError() if error.status >= 500:
            reason = "5xx"
        case _:
            return None
    if retry is None or tries >= retry.attempts or reason not in retry.on:
        return None
    pause = min(_FIRST_PAUSE_S * 2 ** (tries - 1), _LONGEST_PAUSE_S) * (1 + jitter) / 2
    if isinstance(error, HttpError) and error.retry_after_s is not None:
        pause = max(pause, error.retry_after_s)
    return pause if left_s is None or pause < left_s else None


def retry_after(written: str | None, *, now: float) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None if it says nothing usable."""
    if written is None or len(written) > 64:
        return None
    text = written.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
