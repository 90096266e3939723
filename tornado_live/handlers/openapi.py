"""The OpenAPI document of the REST routes, made of the table of rules and of what they take and answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tornado_live import __version__
from tornado_live.errors import LIVE_ERRORS, LiveError
from tornado_live.handlers.answers import Failed, GoogleFailed
from tornado_live.handlers.rules import Operation, Parameter, Rule, failures

_REFERENCE = "#/components/schemas/{name}"
_ABOUT = (
    "REST of a tornado-live server. HEAD works wherever GET does, and OPTIONS everywhere. Times are RFC 3339, UTC."
    " Every error has one shape, and its requestId, also the header X-Request-Id, finds the request in the log."
)
_SCHEMES: Mapping[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a JSON Web Token, as the server is set up.",
    },
    "googleKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-goog-api-key",
        "description": "The same credential where clients of Google's put it.",
    },
}
_OURS = ("bearer",)
_GOOGLES = ("bearer", "googleKey")


def document(rules: Mapping[str, Rule], *, base: str, credentials: bool) -> dict[str, Any]:
    """`base` is the path before all paths. `credentials`: whether callers are asked who they are."""
    named = {
        id(kind): kind for rule in rules.values() for one in rule.operations.values() for kind in _kinds(one)
    }
    kinds = [*named.values(), Failed, GoogleFailed]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    shown = dict(zip((id(kind) for kind in kinds), schemas, strict=True))
    paths = {
        rule.path: {
            method: _operation(name, method, rule, operation, shown, credentials=credentials)
            for method, operation in rule.operations.items()
        }
        for name, rule in rules.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "tornado-live", "version": __version__, "description": _ABOUT},
        "servers": [{"url": base or "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": dict(_SCHEMES)},
    }


def _kinds(operation: Operation) -> Iterable[Any]:
    return (kind for kind in (operation.answer, operation.takes) if kind is not None)


def _operation(
    name: str,
    method: str,
    rule: Rule,
    operation: Operation,
    schemas: Mapping[int, Any],
    *,
    credentials: bool,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": name if len(rule.operations) == 1 else f"{method}_{name}",
        "summary": operation.summary,
        "security": _security(rule, credentials=credentials),
        "responses": {str(operation.status): _answer(operation, schemas)} | _failed(rule, operation),
    }
    if operation.parameters:
        shown["parameters"] = list(map(_parameter, operation.parameters))
    if operation.takes is not None:
        body = {"schema": schemas[id(operation.takes)]} | _example(operation.sends)
        shown["requestBody"] = {"required": False, "content": {"application/json": body}}
    return shown


def _security(rule: Rule, *, credentials: bool) -> list[dict[str, list[str]]]:
    """Any one of these; the empty one is none at all."""
    if rule.access == "public":
        return []
    wanted = _GOOGLES if rule.kind == "google" else _OURS
    free = not credentials or rule.open_to_this_machine
    return ([{}] if free else []) + [{scheme: []} for scheme in wanted]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.meaning,
        "schema": dict(parameter.schema),
    }


def _answer(operation: Operation, schemas: Mapping[int, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": operation.summary, "headers": {"X-Request-Id": _TEXT}}
    if operation.answer is not None:
        body = {"schema": schemas[id(operation.answer)]} | _example(operation.example)
        shown["content"] = {operation.content_type: body}
    if operation.leads_to:
        given = {"id": "$response.body#/sessionId"}
        shown["links"] = {name: {"operationId": name, "parameters": given} for name in operation.leads_to}
    return shown


_TEXT: Mapping[str, Any] = {"schema": {"type": "string"}}


def _failed(rule: Rule, operation: Operation) -> dict[str, Any]:
    """By status, since several codes may share one."""
    by_status: dict[int, list[type[LiveError]]] = {}
    for error in failures(rule, operation):
        assert error.http_status is not None, "what only closes sockets is no failure of REST"
        by_status.setdefault(error.http_status, []).append(error)
    return {str(status): _failure(rule, status, errors) for status, errors in sorted(by_status.items())}


def _failure(rule: Rule, status: int, errors: Sequence[type[LiveError]]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": _TEXT}
    if status == 401:
        headers["WWW-Authenticate"] = _TEXT
    if status in (429, 503):
        headers["Retry-After"] = _TEXT
    google = rule.kind == "google"
    kind = GoogleFailed if google else Failed
    body: dict[str, Any] = {"schema": {"$ref": _REFERENCE.format(name=kind.__name__)}}
    if not google:
        body["examples"] = {error.code: {"value": _example_of(error)} for error in errors}
    return {
        "description": " ".join(" ".join((error.__doc__ or error.code).split()) for error in errors),
        "headers": headers,
        "content": {"application/json": body},
    }


def _example_of(error: type[LiveError]) -> dict[str, Any]:
    assert error in LIVE_ERRORS, "the table has every code"
    told = {
        "code": error.code,
        "message": "What happened, and what to do.",
        "retryable": error.retryable,
        "requestId": "5f0c6d1b9a3e2f47",
    }
    return {"error": told}


def _example(value: Any) -> dict[str, Any]:
    return {} if value is None else {"example": value}
