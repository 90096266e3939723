"""A GET to an address that the model names, if its host is on the operator's list."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

import httpx

from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.http_addresses import HOST_ENTRY, HostRule, is_listed, plain_address
from tornado_live.tools.http_answer import http_error, parse_answer
from tornado_live.tools.http_redirect import STATUSES, destination
from tornado_live.tools.knowledge.passages import visible_text
from tornado_live.tools.result import Json, ToolCode, ToolError

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "allow_hosts": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "pattern": HOST_ENTRY},
            "description": "api.example.com, *.example.com, with http:// or a port where that is meant",
        },
        "max_bytes": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 100_000},
        "max_chars": {"type": "integer", "minimum": 100, "maximum": 100_000, "default": 8_000},
        "follow_redirects": {
            "type": "integer",
            "minimum": 0,
            "maximum": 5,
            "default": 0,
            "description": "How many in a row; each must lead to a listed host",
        },
        "allow_private": {
            "type": "boolean",
            "default": False,
            "description": "true: the listed hosts may lie in the operator's own network",
        },
    },
    "required": ["allow_hosts"],
    "additionalProperties": False,
}

_PAGES: Final = ("text/html", "application/xhtml+xml")


def describe_hosts(options: Mapping[str, Json], sources: Mapping[str, Mapping[str, Json]]) -> str:
    """The hosts, appended to the description: a model that knows them asks for nothing else."""
    return f"Allowed hosts: {', '.join(_entries(options))}."


@handler(options=OPTIONS, describe=describe_hosts)
async def request(url: str, context: ToolContext) -> Json:
    """The answer of one GET: `{"http_status", "data"}` for JSON, `{"http_status", "text"}` for text and HTML."""
    options = context.options
    address = _checked(url, options)
    left = int(str(options["follow_redirects"]))
    while True:
        asked = context.http.build_request(
            "GET",
            address,
            headers={"Accept": "application/json, text/*;q=0.8"},
            extensions={
                "allow_private": options["allow_private"] is True,
                "max_bytes": options["max_bytes"],
            },
        )
        answer = await context.http.send(asked, stream=True)
        async with aclosing(answer):
            if answer.is_success:
                body = await answer.aread()
                kind, most = answer.headers.get("content-type", ""), int(str(options["max_chars"]))
                # A page of a megabyte takes longer to read than others who talk should wait.
                content = await asyncio.to_thread(_content, kind, body, most)
                return {"http_status": answer.status_code, **content}
            location = answer.headers.get("location")
            if left == 0 or answer.status_code not in STATUSES or location is None:
                raise http_error(answer.status_code, None)
        left -= 1
        there = destination(address, location)
        if there is None or not _is_allowed(there, options):
            raise ToolError(
                ToolCode.NOT_ALLOWED, "The service sent a redirect to a host that is not allowed."
            )
        address = there


def _checked(url: str, options: Mapping[str, Json]) -> httpx.URL:
    """The address as it will be asked for. The same parsed value is checked and sent: two parsers could differ."""
    address = plain_address(url)
    if address is None:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            "That is not an address that can be asked for.",
            hint="It starts with https:// and a host, and has no user name and no spaces.",
        )
    if _is_allowed(address, options):
        return address
    other = {"http": "https", "https": "http"}[address.scheme]
    if address.port is None and _is_allowed(address.copy_with(scheme=other), options):
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            f"That host may only be asked with {other}.",
            hint=f"The address starts with {other}://.",
        )
    raise ToolError(
        ToolCode.NOT_ALLOWED,
        "That host may not be asked.",
        hint=f"Allowed hosts: {', '.join(_entries(options))}",
    )


def _is_allowed(address: httpx.URL, options: Mapping[str, Json]) -> bool:
    # A dot at the end is the same name for the network and another one for a certificate.
    return not address.host.endswith(".") and is_listed(
        address, [HostRule.parse(entry) for entry in _entries(options)]
    )


def _content(content_type: str, body: bytes, most: int) -> dict[str, Json]:
    kind = content_type.partition(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    if not is_json and not kind.startswith("text/") and kind not in (*_PAGES, "application/xml"):
        raise ToolError(ToolCode.BAD_ANSWER, "The service's answer is neither JSON nor text.")
    read = parse_answer(content_type, body, (kind,))
    if is_json or kind == "text/json":
        return {"data": read}
    text = read if isinstance(read, str) else ""
    if kind in _PAGES:
        text = visible_text(text)
    if len(text) <= most:
        return {"text": text}
    return {"text": text[:most], "note": f"Only the first {most} of {len(text)} characters."}


def _entries(options: Mapping[str, Json]) -> list[str]:
    entries = options["allow_hosts"]
    return [str(entry) for entry in entries] if isinstance(entries, list) else []
