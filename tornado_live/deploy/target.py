"""The address that people use, taken apart."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado_live.errors import ConfigError, Problem

_USUAL_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """`host` is without brackets; `prefix` begins with a slash and has none at its end, or is empty."""

    tls: bool
    host: str
    port: int
    prefix: str

    @property
    def netloc(self) -> str:
        """As a browser writes it into Host and Origin."""
        usual = self.port == _USUAL_PORT["https" if self.tls else "http"]
        return self.name if usual else f"{self.name}:{self.port}"

    @property
    def name(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}"

    @property
    def url(self) -> str:
        return f"{self.origin}{self.prefix}"

    @property
    def ws_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.netloc}{self.prefix}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def target_of(text: str) -> Target:
    """Raises ConfigError for what is no http or https address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _no_address(text) from error
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    if (
        scheme not in _USUAL_PORT
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise _no_address(text)
    return Target(scheme == "https", parts.hostname, port or _USUAL_PORT[scheme], parts.path.rstrip("/"))


def _no_address(text: str) -> ConfigError:
    message = "is not the address of a page such as https://voice.example.com or https://example.com/voice"
    return ConfigError([Problem("command line", None, text, message)])
