"""Every failure that a client can meet, and every mistake that an operator can make in a file.

The rows below are the only table of codes: `code`, the HTTP status of a REST answer, the WebSocket close
code (4000 + status), and whether the client may try again. docs/protocol.md shows the same table.

    LiveError
    ├── BadMessage  SessionMismatch  Unauthenticated  Forbidden  SessionNotFound  TimedOut
    ├── Replaced  SessionEnded  TooLarge  Limited  SlowConsumer  InternalError
    └── UpstreamRejected  Unavailable  UpstreamTimeout
    ConfigError     one or more Problems of a settings file or tools.yaml
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class LiveError(Exception):
    """A failure told to the client. `message` is shown to people: what happened and what to do. `limit` is the row
    of access/limits.py that was reached, None for none.

    Nothing of the cause (paths, keys, tracebacks) may be in `message`; chain the cause with `from`.
    """

    code = "internal"
    http_status: int | None = 500
    close_code: int | None = 4500
    retryable = True

    def __init__(self, message: str, *, retry_after_ms: int | None = None, limit: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.limit = limit
        self.retry_after_ms = retry_after_ms


class BadMessage(LiveError):
    """Not JSON, unknown type, wrong field, bad base64, odd byte count."""

    code, http_status, close_code, retryable = "bad_message", 400, 4400, False


class SessionMismatch(LiveError):
    """A message names another session than its connection's. Never closes."""

    code, http_status, close_code, retryable = "session_mismatch", 400, None, False


class Unauthenticated(LiveError):
    """No, wrong or expired credential; with a new one the client may try again."""

    code, http_status, close_code, retryable = "unauthenticated", 401, 4401, False


class Forbidden(LiveError):
    """Origin, host, tool, option or session not allowed."""

    code, http_status, close_code, retryable = "forbidden", 403, 4403, False


class SessionNotFound(LiveError):
    """Unknown, expired, unreadable or someone else's: all the same answer."""

    code, http_status, close_code, retryable = "session_not_found", 404, 4404, False


class TimedOut(LiveError):
    """No `connect` in time, or idle past the limit."""

    code, http_status, close_code, retryable = "timeout", 408, 4408, True


class Replaced(LiveError):
    """A newer socket took this session."""

    code, http_status, close_code, retryable = "replaced", 409, 4409, False


class SessionEnded(LiveError):
    """Deleted, expired, revoked or over its maximum duration."""

    code, http_status, close_code, retryable = "session_ended", 410, 4410, False


class TooLarge(LiveError):
    """A message or body over its cap."""

    code, http_status, close_code, retryable = "too_large", 413, 4413, False


class Limited(LiveError):
    """Rate, concurrency, budget, or the process is full; carries `retry_after_ms`."""

    code, http_status, close_code, retryable = "limited", 429, 4429, True


class SlowConsumer(LiveError):
    """The client did not read for longer than its queue allows. Only ever a close."""

    code, http_status, close_code, retryable = "slow_consumer", None, 4430, True


class InternalError(LiveError):
    """Our bug; the text never leaves the log."""

    code, http_status, close_code, retryable = "internal", 500, 4500, True


class UpstreamRejected(LiveError):
    """The model side refused for good; the message names the cause and the remedy."""

    code, http_status, close_code, retryable = "upstream_rejected", 502, 4502, False


class SetupRejected(UpstreamRejected):
    """The same, for what the client may have asked for itself: another setup may be taken."""


class Unavailable(LiveError):
    """Upstream or store out of reach after retries, or draining."""

    code, http_status, close_code, retryable = "unavailable", 503, 4503, True


class UpstreamTimeout(LiveError):
    """The model side did not answer the setup in time."""

    code, http_status, close_code, retryable = "upstream_timeout", 504, 4504, True


LIVE_ERRORS: tuple[type[LiveError], ...] = (
    BadMessage,
    SessionMismatch,
    Unauthenticated,
    Forbidden,
    SessionNotFound,
    TimedOut,
    Replaced,
    SessionEnded,
    TooLarge,
    Limited,
    SlowConsumer,
    InternalError,
    UpstreamRejected,
    Unavailable,
    UpstreamTimeout,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of an operator's file, printed as `file:line: path: message`.

    `line` and `column` count from 1; `path` is dotted (`get_weather.http.method`) and may be empty.
    `message` says what is wrong and what to write instead. `tool` is that of tools.yaml that it is about.
    """

    file: str
    line: int | None
    path: str
    message: str
    column: int | None = None
    tool: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ConfigError(Exception):
    """Settings or tools.yaml cannot be used. `problems` holds every mistake found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


LONGEST_NAME = 64


def nearest(name: str, names: Iterable[str]) -> str:
    """` - did you mean "port"?` for a near miss of one of `names`, else an empty string."""
    if len(name) > LONGEST_NAME:
        return ""  # comparing grows with the square of the length, and the name may be anybody's
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if not found:
        return ""
    return f' - did you mean "{by_lower[found[0]]}"?'
