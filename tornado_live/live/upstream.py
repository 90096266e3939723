"""The model side: where it is, how it is dialled, and whether it refuses the key (causes.py says why)."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from tornado_live.errors import Unavailable
from tornado_live.live.causes import (
    CERTIFICATE_UNTRUSTED,
    DIAL_TIMED_OUT,
    SIMULATOR_DOWN,
    UNREACHABLE,
    Cause,
    of_status,
)
from tornado_live.live.commands import Warned
from tornado_live.live.peer import DialError, DialRefused, DialTimedOut, WebSocketPeer, dial

GOOGLE = "https://generativelanguage.googleapis.com"
SETUP_TIMEOUT_S = 10.0
MAX_MESSAGE = 16 * 1024 * 1024
REFUSAL_S = 60.0
PING_S = 20.0
PONG_TIMEOUT_S = 60.0
"""Google has been seen to answer pings after 8 to 30 s (googleapis/python-genai#2935); the usual 20 s would end
conversations that are well."""

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
METHOD = "google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"


def live_url(base_url: str, version: str, method: str = METHOD) -> str:
    """The WebSocket address of the Live API under `base_url` (http, https, ws or wss)."""
    parts = urlsplit(base_url)
    path = f"{parts.path.rstrip('/')}/ws/{method.format(version=version)}"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", ""))


class DialFailed(Exception):
    """The model side could not be dialled; `cause` says why."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class Address(Protocol):
    """Where the model side is. `name` is what clients are told: gemini or simulator."""

    @property
    def name(self) -> str: ...

    async def base_url(self) -> str:
        """Waits for a model side that is starting; raises Unavailable when there is none."""

    def unready(self) -> str | None:
        """Why nobody can talk now, or None."""

    def notice(self) -> Warned | None:
        """What a client should know once it is connected."""


@dataclass(frozen=True, slots=True)
class GeminiAddress:
    """Google's service, or what stands in its place at GEMINI_BASE_URL."""

    url: str = GOOGLE
    name: str = "gemini"

    async def base_url(self) -> str:
        return self.url

    def unready(self) -> str | None:
        return None

    def notice(self) -> Warned | None:
        return None


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for the handshake, between pings, and for their answers."""

    open_s: float = SETUP_TIMEOUT_S
    ping_s: float = PING_S
    pong_s: float = PONG_TIMEOUT_S


@dataclass(slots=True)
class Upstream:
    """`refusal` is the latest refusal of the key, until a setup is accepted.

    `authorize` gives the headers of a dial where there is no key to send; it raises DialFailed.
    """

    address: Address
    key: SecretStr | None
    version: str
    ssl_context: ssl.SSLContext | None = None
    method: str = METHOD
    authorize: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    patience: Patience = Patience()
    refusal: str | None = None
    refused_at: float = 0.0
    clock: Callable[[], float] = time.monotonic

    async def dial(self) -> WebSocketPeer:
        """Raises DialFailed."""
        try:
            return await dial(
                live_url(await self.address.base_url(), self.version, self.method),
                headers=await self._headers(),
                ssl_context=self.ssl_context,
                max_size=MAX_MESSAGE,
                open_timeout=self.patience.open_s,
                ping_interval=self.patience.ping_s,
                ping_timeout=self.patience.pong_s,
            )
        except Unavailable as down:
            raise DialFailed(SIMULATOR_DOWN) from down
        except DialRefused as refused:
            cause = of_status(refused.status, retry_after_s(refused.headers, time.time()))
            self.refused(cause)
            raise DialFailed(cause) from refused
        except DialTimedOut as late:
            raise DialFailed(DIAL_TIMED_OUT) from late
        except DialError as failed:
            untrusted = isinstance(failed.__cause__, ssl.SSLCertVerificationError)
            raise DialFailed(CERTIFICATE_UNTRUSTED if untrusted else UNREACHABLE) from failed

    async def _headers(self) -> Mapping[str, str]:
        if self.authorize is None:
            return {} if self.key is None else {"x-goog-api-key": self.key.get_secret_value()}
        try:
            return await self.authorize()
        except DialFailed as failed:
            self.refused(failed.cause)
            raise

    def unready(self) -> str | None:
        """Why nobody can talk now, or None.

        A refusal counts for REFUSAL_S: behind a balancer nobody would come any more to find the key good again.
        """
        refused = self.refusal is not None and self.clock() - self.refused_at < REFUSAL_S
        return self.refusal if refused else self.address.unready()

    def refused(self, cause: Cause) -> None:
        """Keeps a refusal of the key for the readiness probe."""
        if cause.key_refused:
            self.refusal, self.refused_at = cause.message, self.clock()

    def accepted(self) -> None:
        self.refusal = None


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """What a Retry-After header asks for: seconds, or a date, seen from `now` (seconds since 1970)."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - now)
    except (ValueError, OverflowError):
        return None
