"""The bodies that the REST routes take and answer, as GET /openapi.json shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tornado_live.errors import LIVE_ERRORS

MAX_USER_ID = 256
MAX_ORIGIN = 300

Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time", "examples": ["2026-11-22T10:00:00.000Z"]})
]
Duration = Annotated[float, Meta(gt=0, le=30 * 24 * 3600)]
Money = Annotated[float, Meta(gt=0, le=1_000_000)]


class _Camel(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Names as clients write them."""


# What is asked.


class TicketLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one conversation, named as the settings; each counts where it is lower than the server's."""

    conversation_s: Duration | None = None
    cost_per_session: Money | None = None

    def given(self) -> dict[str, float]:
        return {
            name: float(value) for name, value in msgspec.structs.asdict(self).items() if value is not None
        }


UserId = Annotated[str, Meta(max_length=MAX_USER_ID)]
Origin = Annotated[str, Meta(max_length=MAX_ORIGIN, examples=["https://app.example.com"])]


class NewSession(_Camel, frozen=True):
    user_id: UserId | None = None
    metadata: dict[str, Any] | None = None  # msgspec knows no recursive type
    assistant: str | None = None
    origin: Origin | None = None
    limits: TicketLimits | None = None


class NewTicket(_Camel, frozen=True):
    user_id: UserId | None = None
    origin: Origin | None = None
    limits: TicketLimits | None = None


class Invocation(Struct, frozen=True, forbid_unknown_fields=True):
    args: dict[str, Any] = {}  # msgspec copies it


# What is answered.


class LoadedTools(_Camel, frozen=True):
    loaded: int
    error: str | UnsetType = UNSET


class SeenClient(_Camel, frozen=True):
    via: Literal["direct", "untrusted", "proxy"]
    scheme: str
    host: str | None
    address: str | UnsetType | None = UNSET


class Health(_Camel, frozen=True):
    status: Literal["ok"]
    version: str
    uptime_seconds: float
    conversations: int
    processes: int
    upstream: str
    tools: LoadedTools
    upstream_notice: str | UnsetType = UNSET
    client: SeenClient | UnsetType = UNSET


class Ready(_Camel, frozen=True):
    status: Literal["ready"]


class MadeSession(_Camel, frozen=True):
    """`token` and `tokenExpiresAt` where callers are asked who they are."""

    session_id: str
    user_id: str
    assistant: str
    created_at: Time
    expires_at: Time
    ws_url: str
    token: str | UnsetType = UNSET
    token_expires_at: Time | UnsetType = UNSET


class Ticket(_Camel, frozen=True):
    token: str
    expires_at: Time
    ws_url: str


class Remembered(_Camel, frozen=True):
    role: Literal["user", "model", "tool"]
    text: str
    turn: int
    at: Time


class OneSession(_Camel, frozen=True):
    session_id: str
    user_id: str
    assistant: str
    created_at: Time
    last_active_at: Time
    expires_at: Time
    connected: bool
    message_count: int
    usage: dict[str, Any]
    metadata: dict[str, Any]
    memory: list[Remembered] | UnsetType = UNSET


class Sessions(_Camel, frozen=True):
    sessions: list[OneSession]
    next: str | UnsetType = UNSET


class Happened(_Camel, frozen=True):
    at: Time
    kind: str
    data: dict[str, Any]


class Events(_Camel, frozen=True):
    session_id: str
    events: list[Happened]


class Call(_Camel, frozen=True):
    id: str
    state: Literal["running", "finished", "cancelled"]
    started_at: Time
    name: str | UnsetType = UNSET
    turn: int | UnsetType = UNSET
    args_digest: str | UnsetType = UNSET
    duration_ms: int | UnsetType = UNSET
    ok: bool | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    sample: bool | UnsetType = UNSET
    answer_digest: str | UnsetType = UNSET
    delivered: str | UnsetType = UNSET
    same_as: str | UnsetType = UNSET
    client: bool | UnsetType = UNSET
    cancelled_at: Time | UnsetType = UNSET
    may_be_done: bool | UnsetType = UNSET


class Calls(_Camel, frozen=True):
    session_id: str
    calls: list[Call]


class OneTool(_Camel, frozen=True):
    name: str
    description: str
    parameters: dict[str, Any]
    behaviour: str


class Tools(_Camel, frozen=True):
    tools: list[OneTool]


class Invoked(_Camel, frozen=True):
    """What the model would be told, and how long it took."""

    status: Literal["ok", "error"]
    duration_ms: int
    result: Any | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    sample: bool | UnsetType = UNSET
    note: str | UnsetType = UNSET


class AuthToken(Struct, frozen=True):
    name: str


_CODES = [error.code for error in LIVE_ERRORS]
Code = Annotated[str, Meta(extra_json_schema={"enum": _CODES})]


class Failure(_Camel, frozen=True):
    code: Code
    message: str
    retryable: bool
    request_id: str


class Failed(_Camel, frozen=True):
    """The one shape of every error."""

    error: Failure


class GoogleFailure(Struct, frozen=True):
    code: int
    message: str
    status: str
    details: list[dict[str, Any]]


class GoogleFailed(Struct, frozen=True):
    """The shape of Google's errors (google.rpc.Status), which its SDKs read."""

    error: GoogleFailure
