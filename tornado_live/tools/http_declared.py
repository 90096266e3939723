"""The http parts of tools.yaml: a source's address and headers, and the request of a tool."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tornado_live.errors import nearest
from tornado_live.tools.complaints import listed
from tornado_live.tools.http_addresses import is_allowed
from tornado_live.tools.http_template import BadTemplate, Endpoint, check_header, check_path, checked_address
from tornado_live.tools.result import Json
from tornado_live.yamlfile import YamlPath

if TYPE_CHECKING:
    from tornado_live.tools.tool_reader import ToolReader
    from tornado_live.tools.tools_file import ToolsFile


def check_address(file: ToolsFile, path: YamlPath, url: str, *, slots: bool) -> tuple[str, str]:
    try:
        base, rest = checked_address(url)
        check_path(rest)
        if "{" in rest and not slots:
            raise BadTemplate("{parameter} has no place in base_url; write it in a tool's path")
    except BadTemplate as error:
        file.refuse(path, f"{file.shown(path)}: {error}")
        return "", ""
    # A private address needs allow_private, which a source can have and a url cannot.
    host = _literal_address(base)
    if host is not None and not is_allowed(host, allow_private=True):
        file.refuse(path, f"{file.shown(path)} is a link-local or special address, which no tool may call")
    elif host is not None and slots and not is_allowed(host, allow_private=False):
        advice = "make it a source with allow_private: true, if it is a service of your own"
        file.refuse(
            path, f"{file.shown(path)} is a private address, which every call would refuse - {advice}"
        )
    return base, rest


def check_headers(file: ToolsFile, path: YamlPath, headers: Mapping[str, Json]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, value in headers.items():
        try:
            check_header(name, str(value))
        except BadTemplate as error:
            file.refuse((*path, name), str(error))
        checked[name] = str(value)
    return checked


def read_endpoint(tool: ToolReader, parameters: dict[str, Json] | None) -> Endpoint:
    """What `http:` of the tool says; its mistakes are told. `parameters` has the bound ones, too."""
    written = tool.written["http"]
    assert isinstance(written, dict)
    at: YamlPath = (*tool.path, "http")
    headers: dict[str, str] = {}
    allow_private = False
    base = path = ""
    source_name = written.get("source")
    if isinstance(source_name, str):
        source = tool.sources.get(source_name)
        if source is not None and source["kind"] == "http":
            base, prefix = checked_address(str(source["base_url"]))
            own = source["headers"]
            headers = {name: str(value) for name, value in (own if isinstance(own, dict) else {}).items()}
            allow_private = source["allow_private"] is True
            path = prefix + str(written.get("path", ""))
        elif source is not None:
            tool.refuse(f'"{source_name}" is a source for {source["kind"]}, not http', "http", "source")
        elif source_name not in tool.sources.named:
            tool.refuse(tool.no_source(source_name), "http", "source")
        try:
            check_path(str(written.get("path", "")))
        except BadTemplate as error:
            tool.refuse(f"{tool.file.shown((*at, 'path'))}: {error}", "http", "path")
    else:
        base, path = check_address(tool.file, (*at, "url"), str(written["url"]), slots=True)
    own = written.get("headers", {})
    assert isinstance(own, dict)
    mine = check_headers(tool.file, (*at, "headers"), own)
    lowered = {name.lower() for name in mine}
    headers = {name: value for name, value in headers.items() if name.lower() not in lowered} | mine
    query = written.get("query", {})
    assert isinstance(query, dict)
    endpoint = Endpoint(
        method=str(written.get("method", "GET")),
        base=base,
        path=path,
        query=MappingProxyType(query),
        headers=MappingProxyType(headers),
        allow_private=allow_private,
    )
    if parameters is not None and tool.sound("http"):
        _check_slots(tool, endpoint, parameters)
    return endpoint


def _check_slots(tool: ToolReader, endpoint: Endpoint, parameters: dict[str, Json]) -> None:
    properties = parameters.get("properties")
    known = properties if isinstance(properties, dict) else {}
    required = parameters.get("required")
    needed = required if isinstance(required, list) else []
    slots = endpoint.slots()
    http = tool.written["http"]
    for name, places in slots.items():
        for place in places:
            key, _, rest = place.partition(".")
            if key == "path":
                key = "path" if isinstance(http, dict) and "path" in http else "url"
            at = ("http", key, *([rest] if rest else []))
            if name not in known:
                close = nearest(name, known) or listed(known)
                tool.refuse(f"{{{name}}} is not among the parameters{close}", *at)
                continue
            rule = known[name]
            has_default = isinstance(rule, dict) and "default" in rule
            if place == "path" and name not in needed and not has_default:
                tool.refuse(f"{{{name}}} is part of the path; add {name} to required", *at)
    for name in known if tool.sound("http") else ():
        if name not in slots:
            tool.refuse(
                f"is used nowhere in http; write {{{name}}} in path, query or headers",
                "parameters",
                "properties",
                name,
            )


def _literal_address(base: str) -> str | None:
    """The IP address that the host of `base` is, or is known to stand for; None for other names."""
    host = urlsplit(base).hostname or ""
    if host.lower().rstrip(".") == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
