"""Which addresses HTTP calls of tools may reach: numbers by deny lists, names by the operator's list. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httpx

DEFAULT_PORTS: Final = {"https": 443, "http": 80}
HOST_ENTRY: Final = r"^(https?://)?(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[0-9]{1,5})?$"
_C_NUMBER: Final = re.compile(r"0x[0-9a-f]{1,8}|0[0-7]{0,11}|[1-9][0-9]{0,9}")
_LONGEST_URL: Final = 2_000

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


def number_of(host: str) -> str | None:
    """The IP address that `host` is in any spelling, or is known to stand for; None for other names."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return _old_spelling(name)


def _old_spelling(name: str) -> str | None:
    """What the C library makes of up to four numbers, each decimal, octal or hexadecimal: 2130706433, 0x7f.1"""
    parts = name.split(".")
    if len(parts) > 4 or not all(_C_NUMBER.fullmatch(part) for part in parts):
        return None
    *first, last = (int(part, 16 if part[:2] == "0x" else 8 if part[0] == "0" else 10) for part in parts)
    rest = 4 - len(first)
    if any(number > 255 for number in first) or last >= 256**rest:
        return None
    return str(ipaddress.IPv4Address(bytes(first) + last.to_bytes(rest, "big")))


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a browser takes for one and the same server."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        port = url.port or DEFAULT_PORTS.get(url.scheme, 0)
        return cls(url.scheme, url.raw_host.decode("ascii").lower(), port)


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of `allow_hosts`: scheme, host and port must agree. `*.` stands for any names before the rest."""

    scheme: str
    host: str
    any_subdomain: bool
    port: int

    @classmethod
    def parse(cls, entry: str) -> HostRule:
        scheme, _, rest = entry.lower().rpartition("://")
        host, _, port = rest.partition(":")
        scheme = scheme or "https"
        return cls(
            scheme,
            host.removeprefix("*."),
            host.startswith("*."),
            int(port) if port else DEFAULT_PORTS[scheme],
        )

    def matches(self, origin: Origin) -> bool:
        same = origin.host.endswith(f".{self.host}") if self.any_subdomain else origin.host == self.host
        return same and origin.scheme == self.scheme and origin.port == self.port

    def __str__(self) -> str:
        scheme = "" if self.scheme == "https" else f"{self.scheme}://"
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{scheme}{'*.' * self.any_subdomain}{self.host}{port}"


def is_listed(url: httpx.URL, hosts: Iterable[HostRule]) -> bool:
    """Whether one of `hosts` matches `url`."""
    origin = Origin.of(url)
    return any(rule.matches(origin) for rule in hosts)


def plain_address(text: str) -> httpx.URL | None:
    """The http or https address that `text` is, without its fragment; None for anything else.

    What two parsers could read differently is None too: the parsed value is what is checked and sent.
    """
    if len(text) > _LONGEST_URL or re.search(r"[\\\s\x00-\x1f\x7f]", text):
        return None
    try:
        url = httpx.URL(text)
        _ = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return None
    if url.scheme not in DEFAULT_PORTS or not url.host or url.userinfo or not 0 < (url.port or 1) < 65536:
        return None
    return url.copy_with(fragment=None)
