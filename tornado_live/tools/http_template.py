"""Requests with slots: what tools.yaml may write, and the request that the arguments make of it. Pure.

Substitution is one pass over each text. There are no expressions: a slot is the name of a parameter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from tornado_live.tools.http_addresses import DEFAULT_PORTS, HostRule, is_listed, plain_address
from tornado_live.tools.result import Json, ToolCode, ToolError

Place: TypeAlias = tuple[str | int, ...]

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*\Z")
_OWN_HEADERS = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_ADDRESS = re.compile(r"https?://[^\s/?#@{}\\]+(?P<path>/[^\s?#\\]*)?\Z", re.IGNORECASE)
# With allow_hosts the host, or all of the address, may be a slot.
_OPEN_ADDRESS = re.compile(
    r"(?:\{[A-Za-z_][A-Za-z0-9_.-]*\}|https?://\{[A-Za-z_][A-Za-z0-9_.-]*\}(?P<path>/[^\s?#\\]*)?)\Z"
)
_HOST_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,253}(:[0-9]{1,5})?\Z")


class BadTemplate(Exception):
    """The text says what is wrong with an address, path or header, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries: `template` as JSON, or its names and values as a form."""

    kind: str  # "json" or "form"
    template: Json


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A request with slots. `base` has scheme, host and fixed path; `path` begins with a slash or is empty.

    `credentials` are headers that are no templates and never leave for another origin. `hosts` is the operator's
    `allow_hosts`; with it `base` may have its host from an argument, or be all of one. `follow_redirects` is how
    many; `expect` which content types are taken (empty: JSON and text).
    """

    method: str
    base: str
    path: str = ""
    query: Mapping[str, Json] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_private: bool = False
    body: Body | None = field(default=None, repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    hosts: tuple[HostRule, ...] = ()
    expect: tuple[str, ...] = ()
    follow_redirects: int = 0

    def places(self) -> dict[str, list[Place]]:
        """The parameters that are named, and where: `("host",)`, `("path",)`, `("query", "q")`, `("json", 0)`."""
        found: dict[str, list[Place]] = {}
        written: list[tuple[str, Json]] = [("host", self.base), ("path", self.path)]
        written += [("query", dict(self.query)), ("headers", dict(self.headers))]
        if self.body is not None:
            written.append((self.body.kind, self.body.template))
        for key, template in written:
            for name, place in _named(template, (key,)):
                found.setdefault(name, []).append(place)
        return found

    def ports(self) -> frozenset[int]:
        """The ports that the operator wrote."""
        written = {rule.port for rule in self.hosts}
        if "{" not in self.base:
            parts = urlsplit(self.base)
            written.add(parts.port or DEFAULT_PORTS[parts.scheme.lower()])
        return frozenset(written)


def _named(template: Json, place: Place) -> Iterator[tuple[str, Place]]:
    if isinstance(template, str):
        yield from ((name, place) for name in _SLOT.findall(template))
    elif isinstance(template, dict):
        for key, item in template.items():
            yield from _named(item, (*place, key))
    elif isinstance(template, list):
        for index, item in enumerate(template):
            yield from _named(item, (*place, index))


# What the file may write -------------------------------------------------------------------------------


def checked_address(url: str, *, open_host: bool = False) -> tuple[str, str]:
    """Scheme and host, and the path, of an address that tools.yaml names. Raises BadTemplate.

    `open_host`: the host may be a slot (`https://{shop}/api`), or all of it (`{address}`).
    """
    if open_host and (opened := _OPEN_ADDRESS.match(url)) is not None:
        path = opened["path"] or ""
        return url[: len(url) - len(path)], path
    match = _ADDRESS.match(url)
    if match is None:
        if "@" in url:
            raise BadTemplate("no user name or password in an address; write a header or auth: instead")
        if "?" in url or "#" in url:
            raise BadTemplate("no ? and no # in an address; write query: instead")
        if open_host and "{" in url.partition("://")[2].partition("/")[0]:
            raise BadTemplate("{parameter} must be the whole host; ports are written in allow_hosts")
        if re.match(r"(https?://[^/]*)?\{", url, re.IGNORECASE):
            raise BadTemplate(
                "the host is fixed; {parameter} may stand in the path only, or write allow_hosts:"
            )
        raise BadTemplate("is not an address such as https://example.com/api")
    try:
        parts = urlsplit(url)
        _ = parts.port
        httpx.URL(f"{parts.scheme}://{parts.netloc}")
    except (ValueError, httpx.InvalidURL):
        raise BadTemplate("is not an address such as https://example.com/api") from None
    path = match["path"] or ""
    return url[: len(url) - len(path)], path


def check_path(path: str) -> None:
    """Raises BadTemplate unless each `{parameter}` is one whole segment of a plain absolute path."""
    if path and not path.startswith("/"):
        raise BadTemplate("must begin with /")
    if re.search(r"[\s?#\\]", path):
        raise BadTemplate("no ?, #, \\ or space in a path; write query: instead")
    for segment in path.split("/"):
        if _SLOT.fullmatch(segment):
            continue
        if "{" in segment or "}" in segment:
            raise BadTemplate("{parameter} must be a whole segment between two slashes")
        if _is_dots(segment):
            raise BadTemplate('the segments "." and ".." are not allowed')


def check_header(name: str, value: str) -> None:
    """Raises BadTemplate for a header that is not valid or that is the client's own."""
    if not _HEADER_NAME.match(name):
        raise BadTemplate("is not the name of a header")
    if name.lower() in _OWN_HEADERS:
        raise BadTemplate("is set by the client itself; remove it")
    if not _HEADER_VALUE.match(value):
        raise BadTemplate("holds a line break or control character")


def credentials(auth: Mapping[str, Json]) -> dict[str, str]:
    """The headers that `auth` (bearer, basic or header) stands for. Raises BadTemplate."""
    match auth:
        case {"bearer": str(token)}:
            headers = {"Authorization": f"Bearer {token}"}
        case {"basic": {"user": str(user), "password": str(password)}}:
            if ":" in user:
                raise BadTemplate("no colon in a user name")
            headers = {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
        case {"header": {"name": str(name), "value": str(value)}}:
            headers = {name: value}
        case _:
            raise BadTemplate("needs one of bearer, basic and header")
    for name, value in headers.items():
        check_header(name, value)
    return headers


def _is_dots(segment: str) -> bool:
    lowered = segment.lower()
    for _ in range(3):  # %252e is "." after two decodings by careless servers
        lowered = lowered.replace("%25", "%").replace("%2e", ".")
    return lowered in (".", "..")


# What the arguments make of it -------------------------------------------------------------------------


def fill(endpoint: Endpoint, arguments: Mapping[str, Json]) -> httpx.Request:
    """The request for `arguments`, in one pass: nothing in an argument is read as a slot again.

    Raises ToolError: invalid_arguments for an argument that has no place where its slot is, not_allowed for a host
    that is not among the operator's.
    """
    headers: list[tuple[str, str]] = []
    for name, template in endpoint.headers.items():
        text = _filled(template, arguments)
        if text is None:
            continue
        if not _HEADER_VALUE.match(text):
            raise _unusable(f"The value for {name} holds a line break or control character.")
        headers.append((name, text.strip(" \t")))
    headers += endpoint.credentials.items()
    content = None
    if endpoint.body is not None:
        kind, content = _content(endpoint.body, arguments)
        if content is not None and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", kind))
    try:
        return httpx.Request(
            endpoint.method,
            _address(endpoint, arguments),
            headers=[(name.encode(), text.encode()) for name, text in headers],
            content=content,
            extensions={"allow_private": endpoint.allow_private},
        )
    except httpx.InvalidURL:  # longer than a URL may be
        raise _unusable("The request cannot be sent with these arguments.") from None


def _address(endpoint: Endpoint, arguments: Mapping[str, Json]) -> str | httpx.URL:
    segments = []
    for segment in endpoint.path.split("/"):
        slot = _SLOT.fullmatch(segment)
        segments.append(segment if slot is None else _segment(slot[1], arguments))
    path, query = "/".join(segments), _encoded(endpoint.query, arguments)
    slot = _SLOT.search(endpoint.base)
    if slot is None:
        return endpoint.base + path + (f"?{query}" if query else "")
    value = arguments.get(slot[1])
    if not isinstance(value, str):
        raise _unusable(f"{slot[1]} is needed as text.")
    whole = slot.span() == (0, len(endpoint.base))
    if not whole and not _HOST_VALUE.match(value):
        raise _unusable(f"{slot[1]} must be the name of a host.")
    url = plain_address(endpoint.base[: slot.start()] + value + path)
    if url is None:
        raise _unusable(f"{slot[1]} is not an address that can be asked for.")
    if not is_listed(url, endpoint.hosts):
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            "That host may not be asked.",
            hint=f"Allowed hosts: {', '.join(map(str, endpoint.hosts))}.",
        )
    if not query:
        return url
    return url.copy_with(query=b"&".join(part for part in (url.query, query.encode()) if part))


def _segment(name: str, arguments: Mapping[str, Json]) -> str:
    value = arguments.get(name)
    if value is None or isinstance(value, list | dict):
        raise _unusable(f"{name} is needed as one word or text.")
    text = _text(value)
    if not text or _is_dots(text):
        raise _unusable(f'{name} must not be empty, "." or "..".')
    return quote(text, safe="")


def _content(body: Body, arguments: Mapping[str, Json]) -> tuple[str, bytes | None]:
    """Content type and bytes; None where all of it is a parameter that was not given."""
    if body.kind == "form":
        assert isinstance(body.template, dict)
        return "application/x-www-form-urlencoded", _encoded(body.template, arguments).encode()
    given, value = _json(body.template, arguments)
    try:
        return "application/json", msgspec.json.encode(value) if given else None
    except (UnicodeEncodeError, RecursionError, ValueError):
        raise _unusable("The arguments hold something that cannot be sent.") from None


def _json(template: Json, arguments: Mapping[str, Json]) -> tuple[bool, Json]:
    """Whether all that `template` names was given, and its value. What was not given is left out around it."""
    if isinstance(template, str):
        slot = _SLOT.fullmatch(template)
        if slot is not None:
            return slot[1] in arguments, arguments.get(slot[1])
        text = _filled(template, arguments)
        return text is not None, text
    if isinstance(template, dict):
        filled = {key: _json(item, arguments) for key, item in template.items()}
        return True, {key: value for key, (given, value) in filled.items() if given}
    if isinstance(template, list):
        return True, [value for given, value in (_json(item, arguments) for item in template) if given]
    return True, template


def _encoded(templates: Mapping[str, Json], arguments: Mapping[str, Json]) -> str:
    return "&".join(
        f"{quote(name, safe='')}={quote(text, safe='')}"
        for name, template in templates.items()
        for text in _texts(template, arguments)
    )


def _texts(template: Json, arguments: Mapping[str, Json]) -> list[str]:
    if isinstance(template, str):
        slot = _SLOT.fullmatch(template)
        if slot is None:
            text = _filled(template, arguments)
            return [] if text is None else [text]
        template = arguments.get(slot[1])
    if isinstance(template, list):
        return [_text(item) for item in template if item is not None]
    return [] if template is None else [_text(template)]


def _filled(template: str, arguments: Mapping[str, Json]) -> str | None:
    """`template` with its slots filled, or None if one of them was not given."""
    if any(arguments.get(name) is None for name in _SLOT.findall(template)):
        return None
    return _SLOT.sub(lambda match: _text(arguments[match[1]]), template)


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        raise _unusable("A list or object has no place in this request.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _unusable("A text holds a character that cannot be sent.") from None
    return text


def _unusable(message: str) -> ToolError:
    return ToolError(ToolCode.INVALID_ARGUMENTS, message)
