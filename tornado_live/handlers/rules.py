"""The one table of the routes: who may use each, and what it takes and answers. By the name of the route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tornado.routing import URLSpec
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from tornado_live.errors import (
    BadMessage,
    Forbidden,
    InternalError,
    Limited,
    LiveError,
    SessionNotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from tornado_live.handlers import answers
from tornado_live.handlers.door import DoorHandler
from tornado_live.handlers.paths import BELOW
from tornado_live.observe.metrics import CONTENT_TYPE

Access: TypeAlias = Literal["public", "caller", "operator", "own"]
"""Anybody; whoever shows who it is; whoever has the role of an operator; a WebSocket, which may be shown later."""

PAGE = 50
MAX_PAGE = 100
_ALWAYS = (BadMessage, Forbidden, Limited, InternalError)


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    place: Literal["path", "query"]
    meaning: str
    schema: Mapping[str, Any]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route. `errors` come beside those of every route and of its access. `leads_to` are the
    operations to which its answer has the id."""

    summary: str
    answer: Any = None
    status: int = 200
    takes: Any = None
    parameters: Sequence[Parameter] = ()
    errors: Sequence[type[LiveError]] = ()
    content_type: str = "application/json"
    example: Any = None
    sends: Any = None
    leads_to: Sequence[str] = ()


_NONE: Mapping[str, Operation] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rule:
    """`path` is the template of a REST route, None for what is no REST. `kind` says whose clients ask there.
    `open_to_this_machine`: it needs no credential of its own."""

    access: Access
    path: str | None = None
    operations: Mapping[str, Operation] = field(default_factory=lambda: _NONE)
    kind: Literal["ours", "google"] = "ours"
    open_to_this_machine: bool = False


_ID = Parameter(
    "id", "path", "The id of a session.", {"type": "string", "pattern": "^[^/]+$", "minLength": 1}, True
)
_NAME = Parameter(
    "name", "path", "The name of a tool.", {"type": "string", "pattern": "^[^/]+$", "minLength": 1}, True
)
_LIMIT = Parameter(
    "limit",
    "query",
    "How many, at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
)
_AFTER = Parameter("after", "query", "The `next` of the page before.", {"type": "string"})
_INCLUDE = Parameter(
    "include", "query", "`memory` adds what was said.", {"type": "string", "examples": ["memory"]}
)
_CLIENT = Parameter("client", "query", "Whether to say how the request looks from here.", {"type": "string"})

_SESSION = "k3vV0rYw4m1rYd2Xq8Jm3w"
_MADE = {
    "sessionId": _SESSION,
    "userId": "alice",
    "assistant": "default",
    "createdAt": "2026-11-22T10:00:00.000Z",
    "expiresAt": "2026-11-22T10:30:00.000Z",
    "wsUrl": f"wss://voice.example.com/ws?sessionId={_SESSION}",
    "token": "tlt_…",
    "tokenExpiresAt": "2026-11-22T10:01:00.000Z",
}

RULES: Mapping[str, Rule] = {
    "health": Rule(
        "public",
        "/health",
        {"get": Operation("Whether the process serves.", answers.Health, parameters=(_CLIENT,))},
    ),
    "ready": Rule(
        "public",
        "/health/ready",
        {
            "get": Operation(
                "Whether somebody could start a conversation now.",
                answers.Ready,
                errors=(Unavailable,),
                example={"status": "ready"},
            )
        },
    ),
    "metrics": Rule(
        "operator",
        "/metrics",
        {
            "get": Operation(
                "Prometheus text, for operators and for this machine itself.", str, content_type=CONTENT_TYPE
            )
        },
        open_to_this_machine=True,
    ),
    "openapi": Rule("caller", "/openapi.json", {"get": Operation("This document.", dict[str, Any])}),
    "sessions": Rule(
        "caller",
        "/api/sessions",
        {
            "get": Operation(
                "The caller's sessions, newest first.",
                answers.Sessions,
                parameters=(_LIMIT, _AFTER),
                errors=(Unavailable,),
            ),
            "post": Operation(
                "Makes a session, and a credential for its WebSocket that is good once and for a minute.",
                answers.MadeSession,
                201,
                takes=answers.NewSession,
                errors=(TooLarge, Unavailable),
                example=_MADE,
                sends={"metadata": {"from": "the shop"}, "limits": {"conversation_s": 600}},
                leads_to=("get_session", "delete_session", "ticket", "events", "calls"),
            ),
        },
    ),
    "session": Rule(
        "caller",
        "/api/sessions/{id}",
        {
            "get": Operation(
                "One session.",
                answers.OneSession,
                parameters=(_ID, _INCLUDE),
                errors=(SessionNotFound, Unavailable),
            ),
            "delete": Operation(
                "Ends a session, and closes its WebSocket with 4410.",
                status=204,
                parameters=(_ID,),
                errors=(SessionNotFound, Unavailable),
            ),
        },
    ),
    "ticket": Rule(
        "caller",
        "/api/sessions/{id}/token",
        {
            "post": Operation(
                "A new credential for the WebSocket of a session, to come back with.",
                answers.Ticket,
                201,
                takes=answers.NewTicket,
                parameters=(_ID,),
                errors=(SessionNotFound, TooLarge, Unavailable),
                example={
                    "token": "tlt_…",
                    "expiresAt": "2026-11-22T10:01:00.000Z",
                    "wsUrl": _MADE["wsUrl"],
                },
                sends={"origin": "https://app.example.com"},
            )
        },
    ),
    "events": Rule(
        "caller",
        "/api/sessions/{id}/events",
        {
            "get": Operation(
                "What happened in a session, in order; the newest 500.",
                answers.Events,
                parameters=(_ID,),
                errors=(SessionNotFound, Unavailable),
            )
        },
    ),
    "calls": Rule(
        "caller",
        "/api/sessions/{id}/calls",
        {
            "get": Operation(
                "The function calls of a session, each with its end; oldest first.",
                answers.Calls,
                parameters=(_ID,),
                errors=(SessionNotFound, Unavailable),
            )
        },
    ),
    "tools": Rule(
        "caller",
        "/api/tools",
        {"get": Operation("The tools that the caller may have the model use.", answers.Tools)},
    ),
    "invoke": Rule(
        "operator",
        "/api/tools/{name}/invoke",
        {
            "post": Operation(
                "Runs one tool as the model would.",
                answers.Invoked,
                takes=answers.Invocation,
                parameters=(_NAME,),
                errors=(TooLarge,),
                example={"status": "ok", "result": {"celsius": 21}, "durationMs": 12},
                sends={"args": {"city": "Paris"}},
            )
        },
    ),
    "auth_tokens": Rule(
        "caller",
        "/v1alpha/auth_tokens",
        {
            "post": Operation(
                "An ephemeral token for clients of Google's own protocol; the same below /v1 and /v1beta.",
                answers.AuthToken,
                takes=dict[str, Any] | None,
                errors=(TooLarge, Unavailable),
                example={"name": "auth_tokens/…"},
                sends={"uses": 1},
            )
        },
        kind="google",
    ),
    "socket": Rule("own"),
    "socket_alone": Rule("own"),
    "drop_in": Rule("own"),
    "google_nothing": Rule("public"),
    "api_nothing": Rule("public"),
    "start": Rule("public"),
    "page": Rule("public"),
}


def failures(rule: Rule, operation: Operation) -> Sequence[type[LiveError]]:
    """Every way in which an operation may fail, each once."""
    asked = () if rule.access == "public" else (Unauthenticated,)
    return tuple(dict.fromkeys((*_ALWAYS, *asked, *operation.errors)))


def ruled(routes: Sequence[URLSpec]) -> Sequence[URLSpec]:
    """The same routes. Raises ValueError where one has no rule, or a handler that does not hold to it."""
    for route in routes:
        rule = RULES.get(of(route))
        shown = f'the route {route.regex.pattern} ("{route.name}")'
        if rule is None:
            raise ValueError(f"{shown} has no rule: give it a name, and its rule a place in RULES")
        held = access_of(route.handler_class)
        if held != rule.access:
            raise ValueError(f"{shown} is for {rule.access} by its rule, and its handler lets in {held}")
        if rule.open_to_this_machine != getattr(route.handler_class, "open_to_this_machine", False):
            raise ValueError(f"{shown} and its rule differ in whether this machine needs a credential")
    return routes


def of(route: URLSpec) -> str:
    """The name of its rule."""
    return (route.name or "").removeprefix(BELOW)


def access_of(handler: type[RequestHandler]) -> Access | None:
    """Whom a handler lets in; None for one that stands at no door."""
    if not issubclass(handler, DoorHandler):
        return None
    if issubclass(handler, WebSocketHandler):
        return "own"
    if handler.public:
        return "public"
    return "operator" if handler.operator else "caller"


def served(names: Iterable[str]) -> Mapping[str, Rule]:
    """The REST routes among those of an application, in the order of the table."""
    known = set(names)
    return {name: rule for name, rule in RULES.items() if rule.path is not None and name in known}
