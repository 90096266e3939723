"""Thin probes: each opens real connections and says what it saw, and judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from tornado_live.deploy.findings import FORGED, LARGEST
from tornado_live.deploy.seen import (
    Answer,
    Client,
    Closed,
    Echo,
    Idle,
    NoAnswer,
    Quiet,
    Reached,
    Returned,
    Secured,
    Seen,
)
from tornado_live.deploy.target import Target

PATIENCE_S = 10.0
MODEL_S = 40.0
"""The server may dial the model side three times, ten seconds each."""
ECHOES = 3
SIZES = (64, 1024, 16 * 1024, 200 * 1024)
RETURNS = 6
HELD = (1, 2, 3)
"""Uneven, or who takes turns would give each return to the same one."""
ASKED = 12
"""So often, of several processes, each is met that is there."""

_AGENT = "tornado-live deploy check"
_GUESTS = "//ws//google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
_FORGED = {"X-Forwarded-For": FORGED, "X-Real-IP": FORGED, "Forwarded": f"for={FORGED}"}


@dataclass(frozen=True, slots=True)
class Way:
    """How the target is reached. `headers` are of the operator, for a proxy that wants a password."""

    target: Target
    trust: ssl.SSLContext
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def context(self) -> ssl.SSLContext | None:
        return self.trust if self.target.tls else None


async def reach(target: Target) -> Reached:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Reached((), words=error.strerror or str(error))
    addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError) as error:
        return Reached(addresses, words=_words(error))
    took = time.monotonic() - began
    await _closed(writer)
    return Reached(addresses, took * 1000)


async def secure(way: Way) -> Secured:
    """With the certificate as it is; it is also asked without trust, so that the rest can be looked at."""
    try:
        return await _handshake(way.target, way.trust)
    except ssl.SSLCertVerificationError as error:
        distrusted = error.verify_message.rstrip(".") or str(error)
    except ssl.SSLError as error:
        plain = error.reason in (
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
            "PACKET_LENGTH_TOO_LONG",
            "RECORD_LAYER_FAILURE",
        )
        return Secured(plain=plain, words=error.reason or str(error))
    except (OSError, TimeoutError) as error:
        return Secured(words=_words(error))
    try:
        seen = await _handshake(way.target, trusting())
    except (OSError, TimeoutError) as error:
        return Secured(distrusted=distrusted, words=_words(error))
    return Secured(seen.version, distrusted=distrusted)


def trusting() -> ssl.SSLContext:
    """Trusts anybody: to see what else is wrong behind a certificate that is not to be trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _handshake(target: Target, context: ssl.SSLContext) -> Secured:
    async with asyncio.timeout(PATIENCE_S):
        _, writer = await asyncio.open_connection(
            target.host, target.port, ssl=context, server_hostname=target.host
        )
    carrier = writer.get_extra_info("ssl_object")
    certificate = carrier.getpeercert() or {}
    version = str(carrier.version())
    await _closed(writer)
    names = tuple(str(value) for _, value in certificate.get("subjectAltName", ()))
    ends = certificate.get("notAfter")
    days = None if ends is None else (ssl.cert_time_to_seconds(ends) - time.time()) / 86_400
    return Secured(version, names, days)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await writer.wait_closed()


async def ask(
    way: Way,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    origin: str | None = None,
) -> Seen:
    """One request on a connection of its own. `origin` is another address than the target's, such as http://."""
    target = way.target
    url = f"{target.url if origin is None else origin + target.prefix}{path}"
    try:
        async with httpx.AsyncClient(
            verify=way.trust, trust_env=False, timeout=PATIENCE_S, headers={"User-Agent": _AGENT}
        ) as http:
            answer = await http.request(method, url, headers={**way.headers, **(headers or {})}, content=body)
    except httpx.HTTPError as error:
        return NoAnswer(_words(error))
    return Answer(
        answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
    )


class Line(ClientConnection):
    """`pinged` is when the server's pings came."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        self.pinged: list[float] = []

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pinged.append(time.monotonic())
        super().process_event(event)


class Refused(Exception):
    """The upgrade was not taken."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen.shown)
        self.seen = seen


@contextlib.asynccontextmanager
async def opened(way: Way, path: str = "/ws", *, origin: str | None = "") -> AsyncIterator[Line]:
    """A WebSocket. `origin` "" is that of the target's own pages, None none. Raises Refused."""
    headers = dict(way.headers)
    if origin is not None:
        headers["Origin"] = origin or way.target.origin
    try:
        line = await connect(
            f"{way.target.ws_url}{path}",
            ssl=way.context,
            additional_headers=headers,
            user_agent_header=_AGENT,
            compression=None,
            proxy=None,
            open_timeout=PATIENCE_S,
            close_timeout=2,
            ping_interval=None,
            max_size=None,
            create_connection=Line,
        )
    except InvalidStatus as refused:
        response = refused.response
        headers = {name.lower(): value for name, value in response.headers.raw_items()}
        raise Refused(Answer(response.status_code, headers, bytes(response.body or b""))) from refused
    except (OSError, TimeoutError, InvalidHandshake, EOFError, ConnectionClosed) as error:
        raise Refused(NoAnswer(_words(error))) from error
    try:
        assert isinstance(line, Line)
        yield line
    finally:
        await line.close()


async def upgrade(way: Way, path: str, *, origin: str | None = "") -> Seen:
    try:
        async with opened(way, path, origin=origin) as line:
            assert line.response is not None
            headers = {name.lower(): value for name, value in line.response.headers.raw_items()}
            return Answer(101, headers)
    except Refused as refused:
        return refused.seen


async def client(way: Way, *, forged: bool = True) -> Client | None:
    """Whom the server sees, asked by somebody who says to be another; not so without `forged`. None where it does
    not say."""
    seen = await ask(way, "/health?client", headers=_FORGED if forged else {})
    told = seen.json.get("client") if isinstance(seen, Answer) else None
    if not isinstance(told, dict):
        return None
    address = told.get("address")
    return Client(
        via=str(told.get("via", "")),
        address=None if address is None else str(address),
        scheme=str(told.get("scheme", "")),
        host=str(told.get("host", "")),
        own_addresses=await _own_addresses(way.target),
    )


async def _own_addresses(target: Target) -> tuple[str, ...]:
    """Whence this machine reaches the target."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError):
        return ()
    address = str(writer.get_extra_info("sockname")[0])
    await _closed(writer)
    return (address,)


async def echoes(way: Way, path: str) -> Sequence[Echo] | Seen:
    """Messages of growing size, each sent when the one before it has come back."""
    found = []
    try:
        async with opened(way, path) as line:
            for size in SIZES:
                took: list[float] = []
                words = ""
                padding = "x" * size
                for number in range(ECHOES):
                    began = time.monotonic()
                    try:
                        async with asyncio.timeout(PATIENCE_S):
                            await _echoed(line, {"number": number, "padding": padding})
                    except (TimeoutError, ConnectionClosed) as error:
                        words = _words(error)
                        break
                    took.append((time.monotonic() - began) * 1000)
                found.append(Echo(size, ECHOES, tuple(took), words))
                if words:
                    break
    except Refused as refused:
        return refused.seen
    return found


async def _echoed(line: Line, data: Mapping[str, object]) -> str:
    """Sends `ping` and waits for its `pong`; the session that it is of. What else comes is passed over."""
    await line.send(json.dumps({"type": "ping", "data": data}))
    while True:
        message = _message(await line.recv())
        if message.get("type") == "pong":
            return str(message.get("sessionId", ""))


def _message(frame: str | bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(frame) if isinstance(frame, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def largest(way: Way) -> Seen | Closed:
    """A frame that is as large as the server takes, and is no setup: it says so and closes."""
    return await _guest(way, json.dumps({"padding": "x" * LARGEST}))


async def drop_in(way: Way) -> Seen | Closed:
    return await _guest(way, "{}")


async def _guest(way: Way, frame: str) -> Seen | Closed:
    try:
        async with opened(way, _GUESTS) as line:
            try:
                async with asyncio.timeout(2 * PATIENCE_S):
                    await line.send(frame)
                    while True:
                        await line.recv()
            except ConnectionClosed as gone:
                return _close(gone)
            except TimeoutError as error:
                return NoAnswer(_words(error))
    except Refused as refused:
        return refused.seen


async def enters(way: Way, path: str, frame: str, sign: str) -> tuple[Seen | Closed, bool]:
    """Opens a WebSocket and says `frame`: what came of it, and whether `sign` was in an answer."""
    try:
        async with opened(way, path) as line:
            try:
                async with asyncio.timeout(MODEL_S):
                    await line.send(frame)
                    while True:
                        said = await line.recv()
                        if sign in (said if isinstance(said, str) else said.decode("utf-8", "replace")):
                            if session := str(_message(said).get("sessionId", "")):
                                await forget(way, session)
                            return Answer(101, {}), True
            except ConnectionClosed as gone:
                return _close(gone), False
            except TimeoutError as error:
                return NoAnswer(_words(error)), False
    except Refused as refused:
        return refused.seen, False


async def old_tls(target: Target) -> str:
    """The version below TLS 1.2 that is agreed on, where no better one is offered; "" for none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is why they are offered
        context = trusting()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        return (await _handshake(target, context)).version
    except (OSError, TimeoutError):
        return ""


async def knocks(way: Way, path: str, headers: Mapping[str, str], most: int) -> tuple[int, bool]:
    """Asks up to `most` times for what is refused: how often, and whether 429 came."""
    for number in range(most):
        seen = await ask(way, path, headers=headers)
        if isinstance(seen, Answer) and seen.status == 429:
            return number + 1, True
    return most, False


def _close(gone: ConnectionClosed) -> Closed:
    return Closed(1006) if gone.rcvd is None else Closed(gone.rcvd.code, gone.rcvd.reason)


async def returns(way: Way, session: str) -> list[Returned]:
    """Opens the same session again and again. Other lines are opened in between and stay, so that a proxy which
    chooses the process with the fewest comes to another one."""
    others: list[str] = []
    async with contextlib.AsyncExitStack() as held:
        found = []
        for number in range(RETURNS):
            found.append(await _returned(way, session))
            for _ in range(HELD[number % len(HELD)]):
                with contextlib.suppress(Refused, TimeoutError, ConnectionClosed):
                    line = await held.enter_async_context(opened(way))
                    async with asyncio.timeout(PATIENCE_S):
                        others.append(await _echoed(line, {}))
    for other in others:
        await forget(way, other)
    return found


async def _returned(way: Way, session: str) -> Returned:
    try:
        async with opened(way, f"/ws?sessionId={session}") as line:
            node = _node(line)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    same = await _echoed(line, {}) == session
            except ConnectionClosed as gone:
                closed = _close(gone)
                return Returned(node, f"close {closed.code} {closed.reason}".rstrip())
            except TimeoutError:
                return Returned(node, "there was no answer")
            return Returned(node, "" if same else "it was given another session")
    except Refused as refused:
        return Returned(None, refused.seen.shown)


def _node(line: Line) -> str | None:
    assert line.response is not None
    return line.response.headers.get("X-Served-By")


async def idle(way: Way, seconds: float) -> Idle | Seen | Closed:
    """A conversation in which nobody says anything. Where it is cut: whether another one is too, and whether pings
    or messages would keep it."""
    silent = await _quiet(way, seconds)
    if not isinstance(silent, Quiet) or silent.ended is None:
        return Idle(silent) if isinstance(silent, Quiet) else silent
    longer = min(seconds, 2.5 * silent.lasted_s + 1)
    every = max(0.2, silent.lasted_s / 4)
    async with asyncio.TaskGroup() as all_three:
        once_more = all_three.create_task(_quiet(way, longer))
        pings = all_three.create_task(_quiet(way, longer, every=every))
        messages = all_three.create_task(_quiet(way, longer, every=every, by_messages=True))
    again, by_pings, by_messages = (
        tried if isinstance(tried, Quiet) else None
        for tried in (once_more.result(), pings.result(), messages.result())
    )
    cut = again if again is not None and again.ended is not None else silent
    return Idle(silent, again, by_pings, by_messages, await _answers(way, cut.node))


async def _answers(way: Way, node: str | None) -> bool | None:
    """Whether this process still does; None where it cannot be told from others."""
    if node is None:
        return None
    alone = True
    for _ in range(ASKED):
        seen = await ask(way, "/health")
        if isinstance(seen, Answer):
            if seen.headers.get("x-served-by") == node:
                return True
            # A proxy that keeps its connection to one of them meets that one each time.
            alone = alone and seen.json.get("processes") == 1
    return False if alone else None


async def _quiet(
    way: Way, seconds: float, *, every: float | None = None, by_messages: bool = False
) -> Quiet | Seen | Closed:
    """With `every`, the client itself sends a ping, or a message, so often."""
    try:
        async with opened(way) as line:
            await line.send(json.dumps({"type": "connect"}))
            try:
                async with asyncio.timeout(MODEL_S):
                    session = await _connected(line)
            except ConnectionClosed as gone:
                return _close(gone)
            except TimeoutError as error:
                return NoAnswer(_words(error))
            try:
                return await _listened(line, seconds, every, by_messages)
            finally:
                with contextlib.suppress(ConnectionClosed):
                    await line.send(json.dumps({"type": "disconnect"}))
                await forget(way, session)
    except Refused as refused:
        return refused.seen


async def _connected(line: Line) -> str:
    while True:
        message = _message(await line.recv())
        data = message.get("data")
        if message.get("type") == "status" and isinstance(data, dict) and data.get("status") == "CONNECTED":
            return str(message.get("sessionId", ""))


async def _listened(line: Line, seconds: float, every: float | None, by_messages: bool) -> Quiet:
    began = time.monotonic()
    ended: int | None = None
    messages: list[float] = []
    line.pinged.clear()
    next_at = began + every if every is not None else float("inf")
    while (now := time.monotonic()) < began + seconds:
        try:
            if now >= next_at:
                await (line.send('{"type": "ping"}') if by_messages else line.ping())
                next_at = now + (every or 0)
            async with asyncio.timeout(max(0.0, min(began + seconds, next_at) - now)):
                await line.recv()
            messages.append(time.monotonic() - began)
        except TimeoutError:
            continue
        except ConnectionClosed as gone:
            ended = _close(gone).code
            break
    pings = tuple(at - began for at in line.pinged)
    return Quiet(time.monotonic() - began, ended, pings, tuple(messages), _node(line))


async def forget(way: Way, session: str) -> None:
    """Leaves nothing behind of a session that was made for the check."""
    await ask(way, f"/api/sessions/{session}", method="DELETE")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "nothing came in time"
    if isinstance(error, ConnectionClosed):
        return f"the line was closed with {_close(error).code}"
    return str(error) or type(error).__name__
