"""What follows a redirect: the next request, or a refusal. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import httpx

from tornado_live.tools.http_addresses import DEFAULT_PORTS, HostRule, Origin, is_listed, plain_address
from tornado_live.tools.result import ToolCode, ToolError

STATUSES: Final = frozenset((301, 302, 303, 307, 308))
# All that another server gets of the headers: any other may hold a secret of the operator's.
_HARMLESS: Final = frozenset(("accept", "accept-encoding", "accept-language", "connection", "user-agent"))
_OF_A_BODY: Final = frozenset(("content-length", "content-type"))


def destination(here: httpx.URL, location: str) -> httpx.URL | None:
    """Where a Location header at `here` points to; None for anything but a plain http address."""
    try:
        return plain_address(str(here.join(location)))
    except (httpx.InvalidURL, ValueError):
        return None


def redirected(
    request: httpx.Request,
    status: int,
    location: str,
    *,
    ports: Collection[int] = (),
    hosts: Collection[HostRule] = (),
) -> httpx.Request:
    """The request that a redirect of `request` to `location` asks for.

    On another origin it has no credentials, no leave for private addresses and no body. `ports` are those that the
    operator wrote, besides 80 and 443; `hosts`, if there are any, are all other hosts that may be reached. Raises
    ToolError(not_allowed).
    """
    url = destination(request.url, location)
    if url is None:
        raise _refused("to something that is no plain http address")
    here, there = Origin.of(request.url), Origin.of(url)
    if here.scheme == "https" and there.scheme == "http":
        raise _refused("from https to http")
    if there != here and hosts and not is_listed(url, hosts):
        raise _refused("to a host that is not allowed")
    if there != here and there.port != DEFAULT_PORTS[there.scheme] and there.port not in ports:
        raise _refused("to a port that is not allowed")
    posted = request.method == "POST" and status in (301, 302)
    becomes_get = posted or (status == 303 and request.method != "GET")
    body = b"" if becomes_get else request.content
    if there != here and body:
        raise _refused("that would hand the request's body to another host")
    headers = [
        (name, value)
        for name, value in request.headers.raw
        if (name.lower() != b"host")
        and (there == here or name.decode("ascii").lower() in _HARMLESS)
        and (body or name.decode("ascii").lower() not in _OF_A_BODY)
    ]
    extensions = dict(request.extensions)
    if there != here:
        extensions["allow_private"] = False
    return httpx.Request(
        "GET" if becomes_get else request.method,
        url,
        headers=headers,
        content=body or None,
        extensions=extensions,
    )


def _refused(what: str) -> ToolError:
    return ToolError(ToolCode.NOT_ALLOWED, f"The service sent a redirect {what}, which is not followed.")
