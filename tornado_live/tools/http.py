"""HTTP calls of tools, guarded: whom they may reach, how long they take, how much they may answer.

Host and scheme come from tools.yaml only. The address that was checked is the one that is connected to, while
TLS still proves the host's name. There are no redirects, no environment proxies and no compressed answers;
bytes are counted while they are read. The total deadline is the runner's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import httpx
import msgspec

from tornado_live.tools.result import Json, ToolCode, ToolError

MAX_ANSWER_BYTES = 1024 * 1024
CONNECT_SECONDS = 3.0
_USER_AGENT = "tornado-live"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Special-purpose blocks of the IANA registries. `ipaddress.is_global` is not enough: it passes NAT64, 6to4,
# multicast and others.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# What `allow_private` opens: a service of the operator's own. Link-local stays shut, since cloud machines
# give out their credentials there.
_PRIVATE = tuple(
    ipaddress.ip_network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "::1/128",
        "fc00::/7",
    )
)


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """Whether a tool may connect to `address` (an IP address as text)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if allow_private and any(ip in block for block in _PRIVATE if block.version == ip.version):
        return True
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in block for block in _SPECIAL_V4)
    return ip in _GLOBAL_V6 and not any(ip in block for block in _SPECIAL_V6)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, in the system's order. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, never to a name."""

    def __init__(self, resolve: Resolve, allow_private: bool) -> None:
        self._backend = httpcore.AnyIOBackend()
        self._resolve = resolve
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._resolve(host, port)
                for address in addresses:
                    if not is_allowed(address, allow_private=self._allow_private):
                        raise ToolError(
                            ToolCode.NOT_ALLOWED,
                            "The service's address is private or special, and this tool may not reach it.",
                            hint="Say that the operator must set allow_private for this service."
                            if is_allowed(address, allow_private=True)
                            else "Say that this address is never called.",
                        )
                return await self._first(addresses, port, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout("no connection in time") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA refuses
            raise httpcore.ConnectError(str(error)) from error

    async def _first(
        self, addresses: Sequence[str], port: int, local_address: str | None, options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        options = None if options is None else list(options)
        last: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    address,
                    port,
                    # A dead first address must leave time for the next.
                    timeout=CONNECT_SECONDS / len(addresses),
                    local_address=local_address,
                    socket_options=options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("unix sockets are not for tools")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Two connection pools, one for the open internet and one for requests with `allow_private`.

    They share nothing, so that no connection to a private address is ever reused by a request without leave.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, resolve: Resolve = resolve) -> None:
        tls = tls if tls is not None else httpx.create_ssl_context(trust_env=False)
        self._pools = {
            private: httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=100,
                max_keepalive_connections=20,
                keepalive_expiry=15.0,
                network_backend=_GuardedBackend(resolve, private),
            )
            for private in (False, True)
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ToolError for whatever goes wrong."""
        limit = request.extensions.get("max_bytes", MAX_ANSWER_BYTES)
        url = request.url
        if url.scheme not in ("http", "https") or url.userinfo:
            raise ToolError(ToolCode.NOT_ALLOWED, "Only plain http and https addresses can be called.")
        request.headers["Accept-Encoding"] = "identity"
        assert isinstance(request.stream, httpx.AsyncByteStream)
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "pool": CONNECT_SECONDS}},
        )
        pool = self._pools[request.extensions.get("allow_private") is True]
        try:
            answer = await pool.handle_async_request(asked)
        except Exception as error:
            raise _explained(error) from error
        body = _CappedStream(answer, limit)
        response = httpx.Response(answer.status, headers=answer.headers, stream=body)
        refusal = _refusal(response, limit)
        if refusal is not None:
            await body.aclose()
            raise refusal
        return response

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _CappedStream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, limit: int) -> None:
        self._answer = answer
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        stream = self._answer.aiter_stream()
        try:
            async for chunk in stream:
                seen += len(chunk)
                if seen > self._limit:
                    raise _too_large()
                yield chunk
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise _explained(error) from error

    async def aclose(self) -> None:
        await self._answer.aclose()


def _refusal(response: httpx.Response, limit: int) -> ToolError | None:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        return ToolError(ToolCode.BAD_ANSWER, "The service sent a compressed answer that nobody asked for.")
    length = response.headers.get("content-length", "")
    return _too_large() if length.isdecimal() and int(length[:20]) > limit else None


def _too_large() -> ToolError:
    return ToolError(ToolCode.TOO_LARGE, "The service's answer is too large.", hint="Ask for less.")


def _explained(error: Exception) -> ToolError:
    match error:
        case ToolError():
            return error
        case httpcore.ConnectError() | httpcore.ConnectTimeout():
            return ToolError(
                ToolCode.UNREACHABLE,
                "The service could not be reached.",
                retryable=True,
                hint="Say that the service is out of reach just now.",
            )
        case httpcore.PoolTimeout():
            return ToolError(ToolCode.LIMITED, "Too many calls are running.", retryable=True)
        case httpcore.TimeoutException():
            return ToolError(ToolCode.TIMEOUT, "The service took too long.", retryable=True)
        case httpcore.RemoteProtocolError():
            return ToolError(
                ToolCode.BAD_ANSWER, "The service broke off or sent no valid HTTP.", retryable=True
            )
        case httpcore.NetworkError():
            return ToolError(ToolCode.UNREACHABLE, "The connection to the service broke.", retryable=True)
        case httpcore.LocalProtocolError() | ValueError():
            return ToolError(ToolCode.INVALID_ARGUMENTS, "The request cannot be sent with these arguments.")
        case _:
            raise error


def guarded_client(*, tls: ssl.SSLContext | None = None, resolve: Resolve = resolve) -> httpx.AsyncClient:
    """The client for all HTTP of tools; `ToolContext` says which request extensions it takes."""
    return httpx.AsyncClient(
        transport=GuardedTransport(tls=tls, resolve=resolve),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        # The client serves all users: what a service sets for one must not be sent for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


# Templates ---------------------------------------------------------------------------------------------

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
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_ADDRESS = re.compile(r"https?://[^\s/?#@{}\\]+(?P<path>/[^\s?#\\]*)?\Z", re.IGNORECASE)


class BadTemplate(Exception):
    """The text says what is wrong with an address, path or header, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A request with slots. `base` has scheme, host and fixed path; `path` begins with a slash or is empty."""

    method: str
    base: str
    path: str = ""
    query: Mapping[str, Json] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    allow_private: bool = False

    def slots(self) -> dict[str, list[str]]:
        """The parameters that are named, and where (`path`, `query.q`, `headers.X-User`)."""
        found: dict[str, list[str]] = {}
        texts: list[tuple[str, Json]] = [("path", self.path)]
        texts += [(f"query.{name}", value) for name, value in self.query.items()]
        texts += [(f"headers.{name}", value) for name, value in self.headers.items()]
        for where, text in texts:
            for name in _SLOT.findall(text) if isinstance(text, str) else ():
                found.setdefault(name, []).append(where)
        return found


def checked_address(url: str) -> tuple[str, str]:
    """Scheme and host, and the path, of an address that tools.yaml names. Raises BadTemplate."""
    match = _ADDRESS.match(url)
    if match is None:
        if "@" in url:
            raise BadTemplate("no user name or password in an address; write a header instead")
        if "?" in url or "#" in url:
            raise BadTemplate("no ? and no # in an address; write query: instead")
        if re.match(r"https?://[^/]*\{", url, re.IGNORECASE):
            raise BadTemplate("the host is fixed; {parameter} may stand in the path only")
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


def _is_dots(segment: str) -> bool:
    lowered = segment.lower()
    for _ in range(3):  # %252e is "." after two decodings by careless servers
        lowered = lowered.replace("%25", "%").replace("%2e", ".")
    return lowered in (".", "..")


def fill(endpoint: Endpoint, arguments: Mapping[str, Json]) -> httpx.Request:
    """The request for `arguments`, in one pass: nothing in an argument is read as a slot again.

    Raises ToolError(invalid_arguments) for an argument that has no place in a path, query or header.
    """
    segments = []
    for segment in endpoint.path.split("/"):
        slot = _SLOT.fullmatch(segment)
        segments.append(segment if slot is None else _segment(slot[1], arguments))
    params: list[tuple[str, str]] = []
    for name, template in endpoint.query.items():
        params += [(name, text) for text in _query_values(template, arguments)]
    headers: list[tuple[bytes, bytes]] = []
    for name, template in endpoint.headers.items():
        text = _filled(template, arguments)
        if text is None:
            continue
        if not _HEADER_VALUE.match(text):
            raise _unusable(f"The value for {name} holds a line break or control character.")
        headers.append((name.encode(), text.strip().encode()))
    query = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in params)
    url = endpoint.base + "/".join(segments) + (f"?{query}" if query else "")
    extensions = {"allow_private": endpoint.allow_private}
    try:
        return httpx.Request(endpoint.method, url, headers=headers, extensions=extensions)
    except httpx.InvalidURL:  # longer than a URL may be
        raise _unusable("The request cannot be sent with these arguments.") from None


def _segment(name: str, arguments: Mapping[str, Json]) -> str:
    value = arguments.get(name)
    if value is None or isinstance(value, list | dict):
        raise _unusable(f"{name} is needed as one word or text.")
    text = _text(value)
    if not text or _is_dots(text):
        raise _unusable(f'{name} must not be empty, "." or "..".')
    return quote(text, safe="")


def _query_values(template: Json, arguments: Mapping[str, Json]) -> list[str]:
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


async def call_endpoint(client: httpx.AsyncClient, endpoint: Endpoint, arguments: Mapping[str, Json]) -> Json:
    """What the endpoint answers, None for an empty answer. Raises ToolError."""
    request = fill(endpoint, arguments)
    for name, value in client.headers.items():
        request.headers.setdefault(name, value)
    response = await client.send(request, stream=True)
    async with aclosing(response):
        if not response.is_success:
            raise _http_error(response.status_code)
        body = await response.aread()
    return parse_answer(response.headers.get("content-type", ""), body)


def _http_error(status: int) -> ToolError:
    retryable = status in (408, 425, 429) or status >= 500
    hints = {
        404: "There is nothing of that name; another wording may help.",
        410: "There is nothing of that name; another wording may help.",
        429: "The service is busy; wait before trying again.",
    }
    if 300 <= status < 400:
        message = f"The service sent a redirect (HTTP {status}), which is not followed."
    else:
        message = f"The service answered with HTTP {status}."
    error = HttpError(ToolCode.HTTP_ERROR, message, retryable=retryable, hint=hints.get(status, ""))
    error.status = status
    return error


class HttpError(ToolError):
    """An answer other than 2xx."""

    status = 0


def parse_answer(content_type: str, body: bytes) -> Json:
    """JSON as JSON, text as text. Raises ToolError(bad_answer) for anything else."""
    if not body.strip():
        return None
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind in ("", "application/json", "text/json") or kind.endswith("+json"):
        try:
            value: Json = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if kind:
                raise _not_understood("valid JSON") from None
        else:
            return value
    if kind == "text/html" or (kind and not kind.startswith("text/")):
        raise _not_understood("JSON or plain text")
    charset = re.search(r"charset=\"?([\w-]+)", rest, re.IGNORECASE)
    try:
        return body.decode(charset[1] if charset else "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise _not_understood("readable text") from None


def _not_understood(expected: str) -> ToolError:
    return ToolError(ToolCode.BAD_ANSWER, f"The service's answer is not {expected}.")
