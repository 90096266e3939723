"""The guarded way out for HTTP of tools: whom a connection may reach, and how much comes back over it.

The address that was checked is the one that is connected to, while TLS still proves the host's name. There are no
environment proxies and no compressed answers; bytes are counted while they are read, and one host's calls take no
places from another's. The total deadline is the runner's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import httpcore
import httpx

from tornado_live.tools.http_addresses import Origin, is_allowed
from tornado_live.tools.http_answer import refusal, too_large
from tornado_live.tools.http_redirect import destination
from tornado_live.tools.http_retry import BrokenOff, NotSent
from tornado_live.tools.result import ToolCode, ToolError

MAX_ANSWER_BYTES: Final = 1024 * 1024
CONNECT_SECONDS: Final = 3.0
MOST_CALLS_OF_A_HOST: Final = 16
_MOST_LOOKUPS: Final = 16
_CHUNKS_IN_A_ROW: Final = 64
_BYTES_OF_A_READ: Final = 8 * 1024

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


class Lookups:
    """The system's resolver in threads of its own, one for each name that is being looked up.

    A name whose servers do not answer keeps its thread for long; that holds up no other name, nothing else that
    looks up names, and not the end of the process.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, in the system's order. Raises OSError."""
        found = self._pending.get((host, port))
        if found is None:
            if len(self._pending) >= _MOST_LOOKUPS:
                raise OSError("too many names are being looked up")
            found = self._begin(host, port)
        return await asyncio.shield(found)

    def _begin(self, host: str, port: int) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        found.add_done_callback(lambda done: done.exception())  # there may be nobody left to be told

        def finish(addresses: list[str], error: Exception | None) -> None:
            del self._pending[host, port]
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(addresses)

        def look_up() -> None:
            addresses: list[str] = []
            failure: Exception | None = None
            try:
                rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(row[4][0]) for row in rows))
            except (OSError, UnicodeError, ValueError) as error:
                failure = error
            try:
                loop.call_soon_threadsafe(finish, addresses, failure)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        self._pending[host, port] = found
        threading.Thread(target=look_up, name="tool-names", daemon=True).start()
        return found


class _Sips(httpcore.AsyncNetworkStream):
    """A connection that is read in small parts.

    One read of httpcore's own size can hold thousands of interim answers or chunks, which it takes apart without
    a turn for anybody else.
    """

    def __init__(self, line: httpcore.AsyncNetworkStream) -> None:
        self._line = line

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._line.read(min(max_bytes, _BYTES_OF_A_READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._line.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._line.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Sips(await self._line.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._line.get_extra_info(info)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, never to a name."""

    def __init__(self, network: httpcore.AsyncNetworkBackend, resolve: Resolve, allow_private: bool) -> None:
        self._network = network
        self._resolve = resolve
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._resolve(host, port)
                for address in addresses:
                    if not is_allowed(address, allow_private=self._allow_private):
                        raise ToolError(
                            ToolCode.NOT_ALLOWED,
                            "The service's address is private or special, and this tool may not reach it.",
                            hint="Say that the operator must set allow_private for this service."
                            if is_allowed(address, allow_private=True)
                            else "Say that this address is never called.",
                        )
                return await self._first(addresses, port, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout("no connection in time") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA refuses
            raise httpcore.ConnectError(str(error)) from error

    async def _first(
        self, addresses: Sequence[str], port: int, local_address: str | None, options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        options = None if options is None else list(options)
        last: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                line = await self._network.connect_tcp(
                    address,
                    port,
                    # A dead first address must leave time for the next.
                    timeout=CONNECT_SECONDS / len(addresses),
                    local_address=local_address,
                    socket_options=options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
            else:
                return _Sips(line)
        raise last

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("unix sockets are not for tools")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Places:
    """So many calls of one host at a time; who waits too long for a place is told so."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hosts: dict[Origin, tuple[asyncio.Semaphore, int]] = {}

    async def take(self, origin: Origin) -> None:
        """Raises ToolError(limited)."""
        places, users = self._hosts.get(origin, (None, 0))
        places = places if places is not None else asyncio.Semaphore(self._most)
        self._hosts[origin] = places, users + 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await places.acquire()
        except BaseException as error:
            self._leave(origin)
            if isinstance(error, TimeoutError):
                raise ToolError(
                    ToolCode.LIMITED,
                    "Too many calls of this service are running.",
                    retryable=True,
                    hint="Say that it is busy just now, and try again in a while.",
                ) from None
            raise

    def give_back(self, origin: Origin) -> None:
        self._hosts[origin][0].release()
        self._leave(origin)

    def _leave(self, origin: Origin) -> None:
        places, users = self._hosts.pop(origin)
        if users > 1:
            self._hosts[origin] = places, users - 1


class _Course:
    """How far a request has come, as httpcore traces it."""

    def __init__(self) -> None:
        self.new_connection = False
        self.write_failed = False

    async def __call__(self, event: str, info: object) -> None:
        if event == "connection.connect_tcp.started":
            self.new_connection = True
        elif event == "http11.send_request_headers.failed":
            self.write_failed = True


class GuardedTransport(httpx.AsyncBaseTransport):
    """Two connection pools, one for the open internet and one for requests with `allow_private`.

    They share nothing, so that no connection to a private address is ever reused by a request without leave.
    `network` opens the connections to addresses that were checked.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        calls_of_a_host: int = MOST_CALLS_OF_A_HOST,
    ) -> None:
        tls = tls if tls is not None else httpx.create_ssl_context(trust_env=False)
        resolve = resolve if resolve is not None else Lookups()
        network = network if network is not None else httpcore.AnyIOBackend()
        self._places = _Places(calls_of_a_host)
        self._pools = {
            private: httpcore.AsyncConnectionPool(
                ssl_context=tls,
                # Bounded by the places of each host: one number for all would let a host that hangs starve others.
                max_connections=None,
                max_keepalive_connections=50,
                keepalive_expiry=15.0,
                network_backend=_GuardedBackend(network, resolve, private),
            )
            for private in (False, True)
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ToolError for whatever goes wrong."""
        limit = request.extensions.get("max_bytes", MAX_ANSWER_BYTES)
        url = request.url
        if url.scheme not in ("http", "https") or url.userinfo:
            raise ToolError(ToolCode.NOT_ALLOWED, "Only plain http and https addresses can be called.")
        request.headers["Accept-Encoding"] = "identity"
        assert isinstance(request.stream, httpx.AsyncByteStream)
        course = _Course()
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": {"connect": CONNECT_SECONDS}, "trace": course},
        )
        pool = self._pools[request.extensions.get("allow_private") is True]
        origin = Origin.of(url)
        await self._places.take(origin)
        try:
            answer = await pool.handle_async_request(asked)
        except BaseException as error:
            self._places.give_back(origin)
            if isinstance(error, Exception):
                raise _unanswered(error, course) from error
            raise
        body = _CappedStream(answer, limit, lambda: self._places.give_back(origin))
        response = httpx.Response(answer.status, headers=answer.headers, stream=body)
        if "location" in response.headers:
            # httpx reads it even where it does not follow it, and gives up on one that is no address.
            pointed = destination(url, response.headers.pop("location"))
            if pointed is not None:
                response.headers["Location"] = str(pointed)
        refused = refusal(response.headers, limit)
        if refused is not None:
            await body.aclose()
            raise refused
        return response

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _CappedStream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, limit: int, done: Callable[[], None]) -> None:
        self._answer = answer
        self._limit = limit
        self._done = done
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = chunks = 0
        try:
            async for chunk in self._answer.aiter_stream():
                seen += len(chunk)
                if seen > self._limit:
                    # Left alone, httpcore's generators would be ended by tasks that nobody awaits. So they are
                    # read on without their connection, which ends them at once.
                    await self.aclose()
                    continue
                yield chunk
                chunks += 1
                if chunks % _CHUNKS_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # one read may hold ten thousand chunks of a byte each
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise (too_large() if seen > self._limit else _explained(error)) from error
        if seen > self._limit:
            raise too_large()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._answer.aclose()
        finally:
            self._done()


def _unanswered(error: Exception, course: _Course) -> Exception:
    """What is told of a request that has no answer."""
    match error:
        case httpcore.ConnectError() | httpcore.ConnectTimeout():
            return NotSent("The service could not be reached.")
        case httpcore.NetworkError() | httpcore.RemoteProtocolError() if course.write_failed:
            return NotSent("The connection to the service broke.", kept=not course.new_connection)
        case httpcore.NetworkError():
            return BrokenOff(ToolCode.UNREACHABLE, "The connection to the service broke.", retryable=True)
        case httpcore.RemoteProtocolError():
            message = "The service broke off or sent no valid HTTP."
            return BrokenOff(ToolCode.BAD_ANSWER, message, retryable=True)
        case _:
            return _explained(error)


def _explained(error: Exception) -> Exception:
    match error:
        case httpcore.TimeoutException():
            return ToolError(ToolCode.TIMEOUT, "The service took too long.", retryable=True)
        case httpcore.RemoteProtocolError():
            return ToolError(
                ToolCode.BAD_ANSWER, "The service broke off or sent no valid HTTP.", retryable=True
            )
        case httpcore.NetworkError():
            return ToolError(ToolCode.UNREACHABLE, "The connection to the service broke.", retryable=True)
        case httpcore.LocalProtocolError() | ValueError():
            return ToolError(ToolCode.INVALID_ARGUMENTS, "The request cannot be sent with these arguments.")
        case _:
            return error
