"""A GET to an address that the model names, if its host is on the operator's list."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.knowledge.passages import visible_text
from tornado_live.tools.result import Json, ToolCode, ToolError

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "allow_hosts": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "string",
                "pattern": r"^(https?://)?(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[0-9]{1,5})?$",
            },
            "description": "api.example.com, *.example.com, with http:// or a port where that is meant",
        },
        "max_bytes": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 100_000},
        "max_chars": {"type": "integer", "minimum": 100, "maximum": 100_000, "default": 8_000},
        "allow_private": {
            "type": "boolean",
            "default": False,
            "description": "true: the listed hosts may lie in the operator's own network",
        },
    },
    "required": ["allow_hosts"],
    "additionalProperties": False,
}

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_LONGEST_URL: Final = 2_000


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of the list: scheme, host and port must all agree. `*.` stands for any names before the rest."""

    scheme: str
    host: str
    any_subdomain: bool
    port: int

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        scheme, _, rest = entry.lower().rpartition("://")
        host, _, port = rest.partition(":")
        scheme = scheme or "https"
        return cls(
            scheme,
            host.removeprefix("*."),
            host.startswith("*."),
            int(port) if port else _DEFAULT_PORTS[scheme],
        )

    def matches(self, url: httpx.URL) -> bool:
        host = url.raw_host.decode("ascii").lower()
        same_host = host.endswith(f".{self.host}") if self.any_subdomain else host == self.host
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
        return same_host and url.scheme == self.scheme and port == self.port


def describe_hosts(options: Mapping[str, Json], sources: Mapping[str, Mapping[str, Json]]) -> str:
    """The hosts, appended to the description: a model that knows them asks for nothing else."""
    return f"Allowed hosts: {', '.join(_hosts(options))}."


@handler(options=OPTIONS, describe=describe_hosts)
async def request(url: str, context: ToolContext) -> Json:
    """The answer of one GET: `{"http_status", "data"}` for JSON, `{"http_status", "text"}` for text and HTML."""
    address = _checked(url, context.options)
    answer = await context.http.get(
        address,
        headers={"Accept": "application/json, text/*;q=0.8"},
        extensions={
            "allow_private": context.options["allow_private"] is True,
            "max_bytes": context.options["max_bytes"],
        },
    )
    if answer.is_redirect:
        raise ToolError(
            ToolCode.HTTP_ERROR,
            f"The address answered with a redirect (status {answer.status_code}), which is not followed.",
            hint="Ask for the final address.",
        )
    if not answer.is_success:
        raise ToolError(
            ToolCode.HTTP_ERROR,
            f"The address answered with status {answer.status_code}.",
            retryable=answer.status_code == 429 or answer.status_code >= 500,
        )
    return {"http_status": answer.status_code, **_content(answer, int(str(context.options["max_chars"])))}


def _checked(url: str, options: Mapping[str, Json]) -> httpx.URL:
    """The address as it will be asked for. The same parsed value is checked and sent: two parsers could differ."""
    # Backslashes, spaces and controls are read differently by different parsers, so no address may hold them.
    if len(url) > _LONGEST_URL or re.search(r"[\\\s\x00-\x1f\x7f]", url):
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "That is not an address that can be asked for.")
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS, "That is not an address that can be asked for."
        ) from error
    if address.scheme not in _DEFAULT_PORTS or not address.host:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            "The address must be complete.",
            hint="It starts with https:// and a host.",
        )
    if address.userinfo:
        raise ToolError(ToolCode.NOT_ALLOWED, "An address with a user name in it may not be asked for.")
    allowed = [AllowedHost.parse(entry) for entry in _hosts(options)]
    if not any(entry.matches(address) for entry in allowed):
        other = {"http": "https", "https": "http"}[address.scheme]
        if address.port is None and any(entry.matches(address.copy_with(scheme=other)) for entry in allowed):
            raise ToolError(
                ToolCode.NOT_ALLOWED,
                f"That host may only be asked with {other}.",
                hint=f"The address starts with {other}://.",
            )
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            "That host may not be asked.",
            hint=f"Allowed hosts: {', '.join(_hosts(options))}",
        )
    return address.copy_with(fragment=None)


def _content(answer: httpx.Response, most: int) -> dict[str, Json]:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return {"data": json.loads(answer.content, parse_constant=_no_number)}
        except (ValueError, RecursionError) as error:
            raise ToolError(ToolCode.BAD_ANSWER, "The address answered with broken JSON.") from error
    if kind.startswith("text/") or kind in ("application/xml", "application/xhtml+xml"):
        is_page = kind in ("text/html", "application/xhtml+xml")
        text = visible_text(answer.text) if is_page else answer.text
        if len(text) <= most:
            return {"text": text}
        return {"text": text[:most], "note": f"Only the first {most} of {len(text)} characters."}
    raise ToolError(ToolCode.BAD_ANSWER, "The address answered with neither JSON nor text.")


def _no_number(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _hosts(options: Mapping[str, Json]) -> list[str]:
    entries = options["allow_hosts"]
    return [str(entry) for entry in entries] if isinstance(entries, list) else []
