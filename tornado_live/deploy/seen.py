"""What the probes saw, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, that of a refused or taken upgrade included. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def json(self) -> Mapping[str, Any]:
        """The object that the body is, empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_ours(self) -> bool:
        """Whether tornado-live gave it; every answer of its own has this header."""
        return "x-request-id" in self.headers and "content-security-policy" in self.headers

    @property
    def message(self) -> str:
        """What tornado-live says is wrong."""
        error = self.json.get("error")
        return str(error.get("message", "")) if isinstance(error, dict) else ""

    @property
    def hop(self) -> str:
        """Who answered, as far as the headers tell."""
        if self.is_ours:
            return "tornado-live"
        known = {"cf-ray": "Cloudflare", "x-amz-cf-id": "CloudFront", "x-azure-ref": "Azure Front Door"}
        for name, who in known.items():
            if name in self.headers:
                return who
        named = self.headers.get("server") or self.headers.get("via")
        return f"the proxy ({named})" if named else "something that does not say what it is"

    @property
    def shown(self) -> str:
        """For people: who answered what."""
        return f"{self.hop} answered {self.status}" + (f", “{self.message}”" if self.message else "")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing came, or the line broke: why, in the network's words."""

    words: str

    @property
    def shown(self) -> str:
        return f"there was no answer ({self.words})"


Seen = Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Reached:
    """`connect_ms` is None where no connection was to be had, for the reason `words`."""

    addresses: tuple[str, ...]
    connect_ms: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Secured:
    """`distrusted` is why the certificate is not trusted; `plain` says that the port speaks no TLS at all."""

    version: str = ""
    names: tuple[str, ...] = ()
    days_left: float | None = None
    distrusted: str = ""
    plain: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A line on which the client said nothing but, where `kept_by` says so, pings or messages.

    `ended` is the close code it ended with, None where it was open all the time. `pings` and `messages` are the
    seconds at which something came from the server. `node` is the process that had it, None where it does not say.
    """

    lasted_s: float
    ended: int | None
    pings: tuple[float, ...] = ()
    messages: tuple[float, ...] = ()
    node: str | None = None

    @property
    def last_came_s(self) -> float:
        return max((*self.pings, *self.messages), default=0.0)


@dataclass(frozen=True, slots=True)
class Idle:
    """The others were tried only where `silent` was cut. `again` is one more silent line, None where none could be
    opened; `answers` is whether the process whose line was cut last still does, None where that cannot be told."""

    silent: Quiet
    again: Quiet | None = None
    by_pings: Quiet | None = None
    by_messages: Quiet | None = None
    answers: bool | None = None


@dataclass(frozen=True, slots=True)
class Echo:
    """Messages of `size` bytes, there and back, with the milliseconds of each: fewer than `wanted` where one was
    lost."""

    size: int
    wanted: int
    took_ms: tuple[float, ...]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """A WebSocket that was opened, and closed by the other side."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """One coming back to a session: which process answered (None where it does not say), and what went wrong."""

    node: str | None
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """What the server sees of this client, by its own word."""

    via: str
    address: str | None
    scheme: str
    host: str
    own_addresses: tuple[str, ...] = field(default=())
