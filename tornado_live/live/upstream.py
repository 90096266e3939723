"""The model side: where it is, how it is dialled, and whether it refuses the key (causes.py says why)."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol, overload
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from tornado_live.errors import LiveError, Unavailable, UpstreamRejected, UpstreamTimeout
from tornado_live.live.causes import DIAL_TIMED_OUT, UNREACHABLE, Cause, of_status
from tornado_live.live.commands import Warned
from tornado_live.live.peer import DialError, DialRefused, DialTimedOut, WebSocketPeer, dial

GOOGLE = "https://generativelanguage.googleapis.com"
SETUP_TIMEOUT_S = 10.0
MAX_MESSAGE = 16 * 1024 * 1024
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


class KeyRejected(UpstreamRejected):
    """The refusals that meet every conversation alike, not only the one that asked for too much."""


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
        except DialRefused as refused:
            cause = of_status(refused.status, retry_after_s(refused.headers, time.time()))
            self.refused(cause)
            raise _failed(cause) from refused
        except DialTimedOut as late:
            raise _failed(DIAL_TIMED_OUT) from late
        except DialError as failed:
            raise _failed(UNREACHABLE) from failed

    async def _headers(self) -> Mapping[str, str]:
        if self.authorize is None:
            return {} if self.key is None else {"x-goog-api-key": self.key.get_secret_value()}
        try:
            return await self.authorize()
        except DialFailed as failed:
            self.refused(failed.cause)
            raise

    def unready(self) -> str | None:
        """Why nobody can talk now, or None."""
        return self.refusal or self.address.unready()

    @overload
    def refused(self, cause: Cause) -> None: ...

    @overload
    def refused(self, cause: LiveError) -> LiveError: ...

    def refused(self, cause: Cause | LiveError) -> LiveError | None:
        """Keeps a refusal of the key for the readiness probe."""
        if isinstance(cause, Cause):
            if cause.key_refused:
                self.refusal = cause.message
            return None
        if isinstance(cause, KeyRejected):
            self.refusal = cause.message
        return cause

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


class _DialRejected(DialFailed, UpstreamRejected):
    pass


class _DialUnavailable(DialFailed, Unavailable):
    pass


class _DialTimeout(DialFailed, UpstreamTimeout):
    pass


def _failed(cause: Cause) -> DialFailed:
    """Also the LiveError that the cause stands for."""
    failed: _DialRejected | _DialTimeout | _DialUnavailable
    if cause.error is UpstreamRejected:
        failed = _DialRejected(cause)
    elif cause.error is UpstreamTimeout:
        failed = _DialTimeout(cause)
    else:
        failed = _DialUnavailable(cause)
    failed.retry_after_ms = cause.retry_after_ms
    return failed


def http_cause(status: int) -> LiveError:
    """What a handshake that was answered with `status` means."""
    if status in (401, 403):
        return KeyRejected(f"The model's server refused the key (HTTP {status}); check GEMINI_API_KEY.")
    if status == 404:
        return UpstreamRejected(
            "The model's server does not know this address (HTTP 404); check GEMINI_BASE_URL."
        )
    if status == 429:
        return Unavailable(
            "The quota of the key is used up for now (HTTP 429); try later.", retry_after_ms=30_000
        )
    if status >= 500:
        return Unavailable(f"The model's server is not available (HTTP {status}); try later.")
    return UpstreamRejected(
        f"The model's server refused the connection (HTTP {status}); check GEMINI_BASE_URL."
    )


# Reason texts of the real service, and what they mean to the operator. The first match counts.
_REASONS: tuple[tuple[str, type[LiveError], str], ...] = (
    (r"API key not valid|API key expired", KeyRejected, "The key is not valid; check GEMINI_API_KEY."),
    (
        r"unregistered callers|API key is missing",
        KeyRejected,
        "The model's server wants a key; put GEMINI_API_KEY into .env.",
    ),
    (r"reported as leaked", KeyRejected, "Google has blocked this key as leaked; make a new one."),
    (
        r"denied access|has not been used in project",
        KeyRejected,
        "The key's project may not use this API.",
    ),
    (
        r"User location is not supported",
        UpstreamRejected,
        "Google does not offer this API at the server's location.",
    ),
    (
        r"is not found for API version|not supported for bidiGenerateContent|Requested entity was not found",
        UpstreamRejected,
        "The model is not known to this key; check GEMINI_LIVE_MODEL (tornado-live doctor lists the models).",
    ),
    (
        r"No matching speaker voice",
        UpstreamRejected,
        "The model has no voice of that name; leave it out, or name one of Google's, such as Kore.",
    ),
    (r"quota|exhausted|credits are depleted", Unavailable, "The quota of the key is used up; try later."),
    (
        r"modalit|Text output is not supported",
        UpstreamRejected,
        "The model does not answer in that modality.",
    ),
    (
        r"Thinking level must be specified",
        UpstreamRejected,
        "The model needs a thinking level in its configuration.",
    ),
)


def close_cause(code: int, reason: str, *, opened: bool) -> LiveError:
    """What a close by the model side means; `opened`: after the setup was accepted."""
    for pattern, kind, words in _REASONS:
        if re.search(pattern, reason, re.IGNORECASE):
            return kind(words)
    if not opened and code in (1002, 1003, 1007, 1008):
        said = f' ("{reason}")' if reason else ""
        return UpstreamRejected(
            f"The model refused the setup{said}; check the configuration of the assistant."
        )
    if opened:
        return Unavailable("The connection to the model was lost; connect again.")
    return Unavailable("The model's server closed the connection before it was ready; try again.")
