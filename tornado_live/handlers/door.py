"""What every HTTP route has in common: who may come in, what leaves with each answer, how failures look."""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, TypeVar, cast

import msgspec
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from tornado_live.access.identity import LOCAL, Identity
from tornado_live.access.origins import Doors, host_and_port
from tornado_live.access.proxies import PASSED_ON, Asked, Proxies
from tornado_live.caller import Caller
from tornado_live.errors import (
    BadMessage,
    Forbidden,
    InternalError,
    LiveError,
    TooLarge,
    Unauthenticated,
)
from tornado_live.handlers import credentials
from tornado_live.handlers.gate import Gate
from tornado_live.handlers.paths import Paths
from tornado_live.observe.logs import log_event
from tornado_live.observe.metrics import Metrics
from tornado_live.wire import strict

MAX_BODY = 64 * 1024
MAX_READ = 1024 * 1024
"""Where reading a body stops that is dropped, so that its sender hears why."""
_DEEPEST = 100
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NOT_TRUSTED = (
    "Headers of a proxy came from here and were passed over. If it is one of yours, put its address into"
    " TRUSTED_PROXIES."
)

OPERATOR = "operator"
"""The role to which the routes of operators are open."""
HSTS_S = 365 * 24 * 3600

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class House:
    """What the doors of every route need. `ports` and `tls_ports` are those bound: the page may open sockets to
    them. `node` says which process answers, and nothing else. `proxies` are those whose word counts.
    `identity` says who asks, and `gate` who asks too often."""

    doors: Doors
    metrics: Metrics
    ports: tuple[int, ...] = ()
    tls_ports: tuple[int, ...] = ()
    node: str = ""
    proxies: Proxies = field(default_factory=Proxies)
    paths: Paths = field(default_factory=Paths)
    identity: Identity = field(default_factory=Identity)
    gate: Gate | None = None
    strangers: set[str | None] = field(default_factory=set)
    """Who sent headers of a proxy without being one of ours: the first, which is told to the log."""


class DoorHandler(RequestHandler):
    """Checks Host and Origin before anything else, names the caller, and gives each request an id.

    A failure is raised as a LiveError and answered as
    `{"error": {"code", "message", "retryable", "requestId"}}` with the status of its row in errors.py; what is
    no LiveError is `internal`, and its text only goes to the log.
    """

    open_to_any_host: ClassVar[bool] = False
    public: ClassVar[bool] = False
    """Whether anybody may ask, whoever it is."""
    operator: ClassVar[bool] = False
    """Whether only an operator may ask; where callers are not asked who they are, this machine itself."""
    open_to_this_machine: ClassVar[bool] = False
    """Whether a request of this machine itself needs no credential, whoever may ask otherwise."""
    cross_origin_headers: ClassVar[tuple[str, ...]] = ("Content-Type", "Authorization")
    """What a page of an allowed origin may send with a call."""
    caller: Caller
    asked: Asked
    request_id = ""
    _house: House | None = None

    def initialize(self, house: House) -> None:
        self._house = house
        self.request_id = secrets.token_hex(8)
        request = self.request
        self.asked = house.proxies.asked(request.remote_ip, request.protocol, request.headers)
        # The log line of each request reads it there, and so does whatever is Tornado's own.
        request.remote_ip, request.protocol = self.asked.address, self.asked.scheme
        if self.asked.via == "untrusted" and not house.strangers:
            house.strangers.add(self.asked.address)
            facts = {"remote": self.asked.address, "message": _NOT_TRUSTED}
            log_event(logger, "proxy_not_trusted", facts, level=logging.WARNING)
        self.set_default_headers()

    @property
    def house(self) -> House:
        assert self._house is not None, "initialize ran first"
        return self._house

    def set_default_headers(self) -> None:
        """Also called by Tornado before `initialize`, and again before an error is written."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Permissions-Policy", "microphone=(self), camera=(), geolocation=()")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Vary", "Origin")
        if self._house is None:
            return
        self.set_header("X-Request-Id", self.request_id)
        if self.house.node:
            self.set_header("X-Served-By", self.house.node)
        self.set_header("Content-Security-Policy", self._content_policy())
        if self._only_tls():
            self.set_header("Strict-Transport-Security", f"max-age={HSTS_S}")
        origin = self.request.headers.get("Origin")
        if origin is not None and self.origin_allowed(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")

    async def prepare(self) -> None:
        # Both, where they differ: a proxy may pass on a host that a page made up.
        hosts = (self.asked.host, self.request.headers.get("Host"))
        if not self.open_to_any_host and not all(map(self.house.doors.host_allowed, hosts)):
            raise Forbidden(
                "This host name is not allowed here. Use the address that the server printed at start,"
                " or add the name to ALLOWED_HOSTS."
            )
        # Browsers leave Origin out of what a page of ours reads; whoever sends one is held to the list.
        origin = self.request.headers.get("Origin")
        if origin is not None and not self.origin_allowed(origin):
            raise Forbidden(
                "Pages of this origin may not use this server. Add the origin to ALLOWED_ORIGINS."
            )
        if not self.public and self.request.method != "OPTIONS":
            self.caller = await self.entering()

    async def entering(self) -> Caller:
        """Who asks, where that is one who may. Raises Unauthenticated, Forbidden and Limited."""
        gate, address = self.house.gate, self.asked.address
        required = self.house.identity.required
        if (
            self.open_to_this_machine
            and is_local(self.request)
            and "Authorization" not in self.request.headers
        ):
            return LOCAL
        if gate is not None:
            gate.check_address(address)
        try:
            caller = await self.identified()
        except Unauthenticated:
            if gate is not None:
                (gate.denied if self._shows_something() else gate.stranger)(address)
            raise
        if self.operator and not (OPERATOR in caller.roles if required else is_local(self.request)):
            raise Forbidden(
                'This is for operators: it needs a credential with the role "operator".'
                if required
                else "This is for the machine itself only. Ask at a loopback address."
            )
        if gate is not None:
            await gate.request(address, caller)
        return caller

    def _shows_something(self) -> bool:
        try:
            return self.shown() is not None
        except Unauthenticated:
            return True

    async def identified(self) -> Caller:
        """Who asks. Raises Unauthenticated."""
        return await self.house.identity.caller(self.shown(), origin=self.request.headers.get("Origin"))

    def shown(self) -> str | None:
        """The credential of the request. Raises Unauthenticated."""
        return credentials.of_request(self.request.headers) if self.house.identity.required else None

    def origin_allowed(self, origin: str | None) -> bool:
        return self.house.doors.origin_allowed(origin, self.asked.host, self.asked.scheme)

    async def options(self, *_: str) -> None:
        """Answers a browser's question before a cross-origin call; the origin was checked like any other."""
        self.set_header("Allow", self._allow())
        if "Access-Control-Request-Method" in self.request.headers:
            self.set_header("Access-Control-Allow-Methods", self._allow())
            self.set_header("Access-Control-Allow-Headers", ", ".join(self.cross_origin_headers))
            self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    def answer(self, body: Mapping[str, object], status: int = 200) -> None:
        """Writes JSON that no cache keeps."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps(body, allow_nan=False))

    def write_error(self, status_code: int, **kwargs: object) -> None:
        failure, status = self._failure(status_code, exception(kwargs))
        self.house.metrics.failed(failure.code)
        if failure.limit is not None:
            self.house.metrics.limited(failure.limit)
        self.set_status(status)
        if status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if status == 405:
            self.set_header("Allow", self._allow())
        if failure.retry_after_ms is not None:
            self.set_header("Retry-After", str(-(-failure.retry_after_ms // 1000)))
        self.write_failure(failure, status)

    def write_failure(self, failure: LiveError, status: int) -> None:
        """How a failure looks here; pages show it to people instead."""
        body = {
            "code": failure.code,
            "message": failure.message,
            "retryable": failure.retryable,
            "requestId": self.request_id,
        }
        self.answer({"error": body}, status)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if not isinstance(value, LiveError | HTTPError):
            log_event(
                logger,
                "request_failed",
                level=logging.ERROR,
                error=value,
                request_id=self.request_id,
                path=self.request.path,
            )

    def _failure(self, status: int, error: BaseException | None) -> tuple[LiveError, int]:
        """What is told, and with which status. The table has one code for a request that cannot be taken;
        a path and a method that do not exist keep their own status."""
        match error:
            case LiveError():
                return error, error.http_status or 500
            case HTTPError() if status == 404:
                return BadMessage("There is nothing at this path."), 404
            case HTTPError() if status == 405:
                return BadMessage(f"This path does not take {self.request.method}."), 405
            case HTTPError() if status == 413:
                return TooLarge("The body is too large."), 413
            case HTTPError() if 400 <= status < 500:
                return BadMessage("The request could not be read."), 400
        message = f"Something went wrong in the server. Its log has more under request id {self.request_id}."
        return InternalError(message), 500

    def _allow(self) -> str:
        taken = [name for name in METHODS if getattr(type(self), name.lower()) is not _NOT_TAKEN]
        return ", ".join(taken)

    def _only_tls(self) -> bool:
        """Whether browsers are to ask this host by TLS alone from now on: it is asked so, and has no port of ours
        where they would be told otherwise. Never where the name is this machine's, which is other servers' too."""
        if self.asked.scheme != "https" or (self.asked.via != "proxy" and self.house.ports):
            return False
        found = host_and_port((self.asked.host or "").lower())
        return found is not None and found[0] not in ("localhost", "127.0.0.1", "[::1]")

    def _content_policy(self) -> str:
        """Only what this server serves runs in its pages, and they may speak to its ports alone.

        The host name goes into the policy only where it is on the list.
        """
        sockets = []
        host = self.asked.host
        found = host_and_port(host.lower()) if host and self.house.doors.host_allowed(host) else None
        if found is not None:
            name, _ = found
            sockets = [f"ws://{host}", f"wss://{host}"]
            if self.asked.via != "proxy":  # whose clients have no business at our ports
                sockets += [f"ws://{name}:{port}" for port in self.house.ports]
                sockets += [f"wss://{name}:{port}" for port in self.house.tls_ports]
        return "; ".join(
            (
                "default-src 'self'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self' data: blob:",
                "media-src 'self' blob:",
                " ".join(("connect-src 'self'", *dict.fromkeys(sockets))),
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        )


Body = TypeVar("Body")


class BodyHandler(DoorHandler):
    """A handler that takes a bounded body of JSON; its class is marked with `stream_request_body`.

    The body is taken in by hand: Tornado's own parsing of forms would run first, and its cap has no JSON.
    """

    _let_in = False

    async def prepare(self) -> None:
        self._body = bytearray()
        self._too_large = False
        await super().prepare()
        self._let_in = True
        cast("HTTP1Connection", self.request.connection).set_max_body_size(MAX_READ)

    def data_received(self, chunk: bytes) -> None:
        # What is over the cap is read and dropped, so that the client is there to hear about it.
        if len(self._body) + len(chunk) > MAX_BODY:
            self._too_large = True
        else:
            self._body += chunk

    def write_error(self, status_code: int, **kwargs: object) -> None:
        if not self._let_in:
            # Tornado reads no body after its answer, and closes: the client must not ask again on this connection.
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def json_body(self, kind: type[Body], too_large: str) -> Body | None:
        """The body as `kind`, None for an empty one. Raises TooLarge, whose words end with `too_large`, and
        BadMessage."""
        if self._too_large:
            raise TooLarge(f"The body is over {MAX_BODY // 1024} KiB. {too_large}")
        if not self._body.strip():
            return None
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise BadMessage('Send the body as JSON, with "Content-Type: application/json".')
        try:
            body = msgspec.json.decode(bytes(self._body), type=kind)
        except msgspec.ValidationError as error:
            raise BadMessage(f"The body does not fit: {error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadMessage("The body is not JSON.") from error
        try:
            strict.check(bytes(self._body), _DEEPEST)
        except (ValueError, RecursionError) as error:
            raise BadMessage("The body names a field twice, or is too deep.") from error
        return body


def is_local(request: HTTPServerRequest) -> bool:
    """Whether it is of the machine itself: what came through a proxy is not, whatever address it has now."""
    if any(name in request.headers for name in PASSED_ON):
        return False
    try:
        return request.remote_ip is not None and ipaddress.ip_address(request.remote_ip).is_loopback
    except ValueError:
        return False


_NOT_TAKEN = RequestHandler.head  # Tornado's own stub, which every method is until a handler defines it


def exception(kwargs: Mapping[str, object]) -> BaseException | None:
    """What Tornado gives to `send_error` and `write_error` as `exc_info`."""
    match kwargs.get("exc_info"):
        case (_, BaseException() as error, _):
            return error
    return None


def log_request(handler: RequestHandler) -> None:
    """Tornado's `log_function`: one line a request, in which the log's masks hide credentials of the query."""
    status = handler.get_status()
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    path = handler.request.path
    if isinstance(handler, DoorHandler):
        handler.house.metrics.http_answered(status)
        path = handler.house.paths.inside(path)
    if status < 400 and not path.startswith("/api"):
        level = logging.DEBUG  # pages, probes and metrics: many, and of no news
    log_event(
        logger,
        "request",
        level=level,
        method=handler.request.method,
        uri=handler.request.uri,
        status=status,
        ms=round(1000 * handler.request.request_time(), 1),
        remote=handler.request.remote_ip,
        request_id=getattr(handler, "request_id", None),
    )
