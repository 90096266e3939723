"""What a tool call came to: the answer for the model and the facts for the client and the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tornado_live.jsonvalue import Json

__all__ = ["Json", "ToolCode", "ToolError", "ToolResult"]


class ToolCode(StrEnum):
    """Why a call failed. Apart from the close codes: a failed call never ends a conversation."""

    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    NOT_ALLOWED = "not_allowed"
    REFUSED = "refused"
    LIMITED = "limited"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    HTTP_ERROR = "http_error"
    BAD_ANSWER = "bad_answer"
    TOO_LARGE = "too_large"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ToolError(Exception):
    """A failure that the model is told about. Handlers raise it; the message must hold no secret.

    `retryable` says that the same call may work later; `hint` tells the model what to do instead.
    """

    def __init__(self, code: ToolCode, message: str, *, retryable: bool = False, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The end of one call.

    `response` is the envelope for the model: `{"status": "ok", "result": …}` or
    `{"status": "error", "error": {"code", "message", "retryable", "hint"}}`; with sample data also
    `"sample": true` and a `"note"` that says so. `summary` is one short line for people, `whole` the result
    without cuts where the page is to have it.
    """

    ok: bool
    response: Mapping[str, Json]
    duration_ms: int
    error: ToolCode | None = None
    sample: bool = False
    summary: str = ""
    whole: Json = None
