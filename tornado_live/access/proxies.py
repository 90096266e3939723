"""Who asks, where requests come through proxies: their headers count only where one of ours wrote them. Pure.

Anybody can send these headers, and most proxies pass on those that they do not write themselves. So one kind is
believed at a time: X-Forwarded-*, which most proxies write, and Forwarded (RFC 7239) where there is none of these.
What is malformed counts as not there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tornado_live.access.origins import host_and_port

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PASSED_ON = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Real-Ip",
    "X-Client-Ip",
    "True-Client-Ip",
    "Cf-Connecting-Ip",
    "Via",
)
"""A request with one of these came through a proxy, or wants to look as if."""

_KINDS = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_BESIDE_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.ASCII)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, 5.6.2
_PAIR = re.compile(rf'[ \t]*({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")[ \t]*([;,]|$)', re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its client made it, as far as that can be known.

    `address` is the client's, or that of the first proxy before which nothing can be believed. `host` is the name
    and port that the client asked for. `via` a listed `proxy`, with headers that were believed; one that is not
    listed (`untrusted`), or something that wants to look like one; or `direct`.
    """

    address: str | None
    scheme: str
    host: str | None
    via: Literal["direct", "untrusted", "proxy"]


class Proxies:
    """`trusted`: the networks of the proxies that are ours."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def asked(self, sender: str | None, scheme: str, headers: Mapping[str, str]) -> Asked:
        """`sender` and `scheme` are those of the connection."""
        host = headers.get("Host")
        peer = _address(sender or "")
        if not any(name in headers for name in PASSED_ON):
            return Asked(sender, scheme, host, "direct")
        if peer is None or not self._trusts(peer):
            return Asked(sender, scheme, host, "untrusted")
        said = _said(headers)
        given = _SCHEMES.get(said.scheme.lower())
        named = said.host if host_and_port(said.host.lower()) else None
        return Asked(str(self._client(peer, said.hops)), given or scheme, named or host, "proxy")

    def _client(self, peer: Address, hops: Sequence[str]) -> Address:
        """Each proxy of ours tells who asked it; the word of anybody else is nobody's."""
        found = peer
        for hop in reversed(hops):
            before = _address(hop) if self._trusts(found) else None
            if before is None:
                break
            found = before
        return found

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@dataclass(frozen=True, slots=True)
class _Said:
    """`hops`: who asked each proxy, the nearest one's last."""

    hops: Sequence[str]
    scheme: str
    host: str


def _said(headers: Mapping[str, str]) -> _Said:
    """Of several values the last was written by the nearest proxy."""
    lists = [headers.get(name, "").split(",") for name in _KINDS]
    hops, hosts, schemes = ([value.strip() for value in values] for values in lists)
    if hops != [""] or hosts != [""] or schemes != [""]:
        said = _Said([] if hops == [""] else hops, schemes[-1], hosts[-1])
    else:
        elements = _elements(headers.get("Forwarded", ""))
        last = elements[-1] if elements else {}
        said = _Said([one.get("for", "") for one in elements], last.get("proto", ""), last.get("host", ""))
    alone = headers.get("X-Real-Ip", "").strip()
    return _Said([alone], said.scheme, said.host) if alone and not any(said.hops) else said


def _elements(forwarded: str) -> list[dict[str, str]]:
    """The elements of a Forwarded header, each by its parameters; nothing where it is malformed."""
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(forwarded):
        pair = _PAIR.match(forwarded, at)
        if pair is None or pair[1].lower() in elements[-1]:
            return []
        value = pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        elements[-1][pair[1].lower()] = value
        if pair[3] == ",":
            elements.append({})
        at = pair.end()
    return elements if all(elements) else []


def _address(text: str) -> Address | None:
    """Also with a port behind it, as some proxies write it; IPv4 inside IPv6 is what it is."""
    found = _BESIDE_PORT.fullmatch(text)
    if found is not None:
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id is not None:  # may hold any character
        return None
    return address.ipv4_mapped or address
