"""What one caller could reach through the tools: hosts, tables, folders, bound values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from tornado_live.caller import Caller
from tornado_live.tools.answer import redacted_text
from tornado_live.tools.catalog import ToolCatalog
from tornado_live.tools.result import Json
from tornado_live.tools.tool import Bound, Tool


def reach_of(tool: Tool, catalog: ToolCatalog, caller: Caller) -> list[tuple[str, str]]:
    """Kind and value, such as `("host", "https://api.example.com")`; secrets of the environment as `***`."""
    found = [("calls", tool.handler.name)] if tool.handler is not None else []
    if tool.policy.client:
        found.append(("calls", "a function of the page"))
    if tool.endpoint is not None:
        found += [("host", f"{tool.endpoint.method} {tool.endpoint.base}{tool.endpoint.path}")]
        found += [("host", str(rule)) for rule in tool.endpoint.hosts]
    found += _of_options(tool.options, catalog.sources)
    if tool.handler is not None and tool.handler.spec is not None and tool.handler.spec.reach is not None:
        found += tool.handler.spec.reach(tool.options, catalog.sources)
    found += [("bound", f"{name} = {_bound(bound, caller)}") for name, bound in tool.bind.items()]
    found += [("first", "the person is asked")] if tool.policy.confirm else []
    found += [("limit", f"{value} {what}") for what, value in _limits(tool)]
    return [(kind, redacted_text(value, catalog.secrets)) for kind, value in dict.fromkeys(found)]


def _of_options(
    options: Mapping[str, Json], sources: Mapping[str, Mapping[str, Json]]
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for value in options.values():
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            found.append(("host", value))
    for key, kind in (("allow_hosts", "host"), ("tables", "table")):
        listed = options.get(key)
        found += [(kind, str(one)) for one in listed] if isinstance(listed, list) else []
    source = sources.get(str(options.get("source")))
    match source:
        case {"kind": "sql", "url": str(url)}:
            found.append(("database", _without_password(url)))
        case {"kind": "documents", "paths": list(paths)}:
            found += [("folder", str(path)) for path in paths]
        case {"kind": "http", "base_url": str(url)}:
            found.append(("host", url))
    return found


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _bound(bound: Bound, caller: Caller) -> str:
    origin = ".".join((bound.origin, *bound.path))
    if bound.origin == "environment":
        return f"*** ({origin})"
    if bound.origin == "session" and bound.path == ("id",):
        return f"the session's id ({origin})"
    try:
        value = bound.of(caller, "")
    except LookupError:
        return f"nothing, so that every call is refused: there is no {origin}"
    return f"{json.dumps(value, ensure_ascii=False, default=str)} ({origin})"


def _limits(tool: Tool) -> Iterator[tuple[str, int]]:
    limits = tool.limits
    named = (
        ("calls a minute", limits.per_minute),
        ("calls a session", limits.per_session),
        ("calls at the same time", limits.concurrency),
    )
    return ((name, value) for name, value in named if value is not None)
