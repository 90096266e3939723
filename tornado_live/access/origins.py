"""Which host names and which pages may speak to this server. Pure.

A host check on every route defeats DNS rebinding: a foreign name that resolves to this machine is not served.
An origin check on every upgrade and every cross-origin call keeps other pages out of a browser's reach.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

_USUAL_PORT = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_NAME = r"\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_PORT = r"(?::([1-9][0-9]{0,4}))?"
_HOST = re.compile(f"({_NAME}){_PORT}", re.ASCII)
_ORIGIN = re.compile(f"([a-z][a-z0-9+.-]*)://({_NAME}){_PORT}", re.ASCII)


Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    name: str
    port: int | None


class Doors:
    """The allow-lists of one server.

    `allowed_origins` are `scheme://host[:port]`; `allowed_hosts` are names, IPv6 in brackets, each with any
    port or, where one is written, with that port only. `own_ports` are the ports that were really bound, and
    `own_tls_ports` those that speak TLS: a page of ours is http on the former and https on the latter.
    `public_url` is where people reach the server through a proxy: its host and its origin are ours too.
    `missing_origin` says whether an upgrade may come without an Origin, as programs send it: on loopback in mode
    `none`. Raises ValueError for an entry that is neither.
    """

    def __init__(
        self,
        allowed_origins: Iterable[str],
        allowed_hosts: Iterable[str],
        own_ports: Iterable[int],
        *,
        own_tls_ports: Iterable[int] = (),
        public_url: str | None = None,
        missing_origin: bool = True,
    ) -> None:
        self._origins = {_entry(origin.lower().removesuffix("/"), _origin) for origin in allowed_origins}
        self._hosts = {_entry(host.lower(), host_and_port) for host in allowed_hosts}
        self._own_ports = {"http": frozenset(own_ports), "https": frozenset(own_tls_ports)}
        self._missing_origin = missing_origin
        if public_url is not None:
            parts = urlsplit(public_url.lower())
            self._origins.add(_entry(f"{parts.scheme}://{parts.netloc}", _origin))
            self._hosts.add((_entry(parts.netloc, host_and_port)[0], None))

    def host_allowed(self, host: str | None) -> bool:
        """`host` is the Host header; its case does not matter, all else does."""
        found = host_and_port(host.lower()) if host is not None else None
        return found is not None and self._serves(*found)

    def origin_allowed(self, origin: str | None, host: str | None, scheme: str = "http") -> bool:
        """`origin` is the Origin header exactly as it came, None where there is none; `host` and `scheme`, http or
        https, are what the client asked with.

        Browsers write an origin in lower case and `null` for a page without one: another spelling comes from
        no browser and is refused, and so is `null`.
        """
        if origin is None:
            return self._missing_origin
        found = _origin(origin)
        if found is None:
            return False
        return found in self._origins or self._own(found, host, scheme)

    def _own(self, origin: _Origin, host: str | None, scheme: str) -> bool:
        """Whether a page that this server served has this origin."""
        if origin.port in self._own_ports.get(origin.scheme, ()):
            return self._serves(origin.name, origin.port)
        if origin.scheme != scheme:
            return False
        # Behind a mapped port the browser knows another port than ours: Host and Origin then agree.
        served_as = host_and_port(host.lower()) if host is not None else None
        if served_as is None or not self._serves(*served_as):
            return False
        return (origin.name, origin.port) == (served_as[0], served_as[1] or _USUAL_PORT[scheme])

    def _serves(self, name: str, port: int | None) -> bool:
        return (name, None) in self._hosts or (name, port) in self._hosts


def _entry(text: str, parse: Callable[[str], Parsed | None]) -> Parsed:
    found = parse(text)
    if found is None:
        raise ValueError(f'"{text}" is neither a host name nor an origin such as http://localhost:3000')
    return found


def host_and_port(text: str) -> tuple[str, int | None] | None:
    """The name, IPv6 in its shortest form, and the port of `name[:port]`."""
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    name, port = _name(found[1]), int(found[2]) if found[2] else None
    return None if name is None or (port or 0) > 65535 else (name, port)


def _origin(text: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    name, port = _name(found[2]), int(found[3]) if found[3] else _USUAL_PORT.get(found[1])
    return None if name is None or (port or 0) > 65535 else _Origin(found[1], name, port)


def _name(text: str) -> str | None:
    if not text.startswith("["):
        return text
    try:
        return f"[{ipaddress.IPv6Address(text[1:-1]).compressed}]"
    except ValueError:
        return None
