"""The line to Redis: a few connections, a deadline for every call, and what an error means and asks for.

The library's own tries and time limits are off: with them a call to a Redis that hangs takes ten seconds. A call
whose deadline passes, or that is cancelled, closes its connection: nobody is answered what another one asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.observe.logs import log_event
from tornado_live.sessions.redis_scripts import Script

DEADLINE_S: Final = 0.3
CONNECTIONS: Final = 16

_PARAMETERS: Final = (
    "db",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
)

Argument: TypeAlias = str | bytes | int | float

logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str | bytes]
    arguments: Sequence[Argument]

    def command(self, *, whole: bool) -> tuple[Argument, ...]:
        """By its digest, or with its text: Redis forgets scripts when it is restarted."""
        named = ("EVAL", self.script.text) if whole else ("EVALSHA", self.script.digest)
        return (*named, len(self.keys), *self.keys, *self.arguments)


class Away(Exception):
    """Redis cannot be had, or takes nothing now; later it may. `do` is what an operator can do about it."""

    def __init__(self, cause: str, do: str, said: str) -> None:
        super().__init__(f"{cause}: {said}")
        self.cause = cause
        self.do = do


class Refused(Exception):
    """Redis will never do this, however often it is asked: a key of another type, a mistake of ours."""


@dataclass(frozen=True, slots=True)
class _Cause:
    cause: str
    sign: re.Pattern[str]
    kinds: tuple[type[RedisError], ...]
    do: str


def _cause(cause: str, sign: str, do: str, *kinds: type[RedisError]) -> _Cause:
    # Inside a script Redis 6 hides the word behind its own, after a dash; the library takes some words away.
    return _Cause(cause, re.compile(rf"(?:^|[\s-])(?:{sign})\b"), kinds, do)


_CAUSES: Final = (
    _cause(
        "no_permission",
        "NOPERM|user executing the script",
        "give its user the rights that docs/redis.md lists",
        NoPermissionError,
    ),
    _cause("password", "NOAUTH|WRONGPASS", "set user and password in REDIS_URL", AuthenticationError),
    _cause("loading", "LOADING", "wait: Redis reads its file", BusyLoadingError),
    _cause("full", "OOM", "raise Redis's maxmemory, or free memory", OutOfMemoryError),
    _cause(
        "read_only",
        "READONLY",
        "set REDIS_URL to the primary: this is a replica of another one",
        ReadOnlyError,
    ),
    _cause("no_disk", "MISCONF", "see Redis's own log: it cannot save to its disk, and refuses writes"),
    _cause("no_replicas", "NOREPLICAS", "see why Redis's replicas are gone, or lower min-replicas-to-write"),
    _cause("busy", "BUSY", "wait: Redis runs another script"),
    _cause("no_primary", "MASTERDOWN", "wait until Redis has its primary again", MasterDownError),
    _cause(
        "cluster",
        "CLUSTERDOWN|CROSSSLOT|MOVED|ASK|TRYAGAIN",
        "set REDIS_URL to a Redis that is no cluster: Redis Cluster is not supported",
        ClusterCrossSlotError,
        ClusterDownError,
        AskError,
        TryAgainError,
    ),
    _cause(
        "certificate",
        "CERTIFICATE_VERIFY_FAILED",
        "name the authority of Redis's certificate in REDIS_URL: ?ssl_ca_certs=/path/of/ca.pem at its end",
    ),
    _cause("connections", "max number of clients", "raise Redis's maxclients"),
)
_DATABASE = "set a database that Redis has in REDIS_URL, such as /0 at its end"


class Line:
    """To the Redis at `url`. Nothing is connected before the first call."""

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S, connections: int = CONNECTIONS) -> None:
        """Raises ConfigError for an address that cannot be used, without showing it."""
        self._pool = ConnectionPool(max_connections=connections, **_options(url, deadline_s))
        self._places = asyncio.Semaphore(connections)
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._failing: str | None = None
        self._failing_since = 0.0

    @property
    def failing(self) -> str | None:
        """Why Redis did not do what it was asked last, None where it did."""
        return self._failing

    def deadline(self) -> float:
        """In the loop's time: when what is asked now is given up."""
        return self._loop.time() + self._deadline_s

    async def ask(self, call: Call, *, by: float | None = None) -> Any:
        """What the script answers. Raises Away or Refused."""
        [answer] = await self.ask_all([call], by=by)
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def ask_all(self, calls: Sequence[Call], *, by: float | None = None) -> list[Any]:
        """What each of the scripts answers, or its Refused; they run in their order. Raises Away where one of them
        could be run later; any of the others may have been run."""
        try:
            async with (
                asyncio.timeout_at(self.deadline() if by is None else by),
                self._connection() as connection,
            ):
                answers = await _run(connection, [call.command(whole=False) for call in calls])
                unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                if unknown:
                    again = await _run(connection, [calls[at].command(whole=True) for at in unknown])
                    for at, answer in zip(unknown, again, strict=True):
                        answers[at] = answer
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            raise self._away(error) from error
        for at, answer in enumerate(answers):
            if isinstance(answer, ResponseError):
                if _cause_of(answer) is not None:
                    raise self._away(answer) from answer
                answers[at] = Refused(str(answer))
        self._well(calls)
        return answers

    @asynccontextmanager
    async def subscribed(self, channel: str) -> AsyncIterator[AbstractConnection]:
        """A connection of its own that hears `channel`. Raises Away."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            try:
                async with asyncio.timeout(self._deadline_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await connection.send_command("SUBSCRIBE", channel)
                    await connection.read_response()
                yield connection
            finally:
                await connection.disconnect(nowait=True)
        except (RedisError, OSError) as error:
            raise _away(error) from error

    async def close(self) -> None:
        try:
            await self._pool.aclose()
        except (RedisError, OSError):
            pass  # whoever hangs is not waited for

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        # Waited for outside the pool, whose own waiting may lose a connection to a cancellation.
        async with self._places:
            connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                yield connection
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)

    def _away(self, error: RedisError | OSError) -> Away:
        away = _away(error)
        if self._failing is None:
            self._failing_since = self._loop.time()
        if self._failing != away.cause:
            log_event(
                logger, "redis_failed", level=logging.ERROR, cause=away.cause, said=str(away), do=away.do
            )
        self._failing = away.cause
        return away

    def _well(self, calls: Sequence[Call]) -> None:
        if self._failing is None or not any(call.script.writes for call in calls):
            return  # what is only read works on a Redis that is full, or a replica, too
        log_event(logger, "redis_recovered", seconds=round(self._loop.time() - self._failing_since, 1))
        self._failing = None


async def _run(connection: AbstractConnection, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    await connection.send_packed_command(connection.pack_commands(commands))
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def _cause_of(error: BaseException) -> _Cause | None:
    for known in _CAUSES:
        if isinstance(error, known.kinds) or known.sign.search(str(error)):
            return known
    return None


def _away(error: RedisError | OSError) -> Away:
    known = _cause_of(error)
    if known is not None:
        return Away(known.cause, known.do, str(error))
    if isinstance(error, TimeoutError):
        return Away("timeout", "see whether Redis hangs, or is too far away", "no answer in time")
    if isinstance(error, ResponseError):
        return Away("refused", _DATABASE, str(error))  # to what opens a connection
    return Away("unreachable", "see whether Redis runs where REDIS_URL says", str(error))


def _options(url: str, deadline_s: float) -> dict[str, Any]:
    for name, _ in parse_qsl(urlsplit(url).query):
        if name not in _PARAMETERS and not (name == "password" and url.startswith("unix:")):
            raise _unusable(
                f'"{name}" is no parameter that can be set{nearest(name, _PARAMETERS)}: '
                f"there are {', '.join(_PARAMETERS)}"
            )
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise _unusable(f"{error}") from None
    kind = options.setdefault("connection_class", ConnectionPool().connection_class)
    options |= {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": deadline_s,
        "driver_info": None,
    }
    try:
        trial = kind(**{name: value for name, value in options.items() if name != "connection_class"})
        if hasattr(trial, "ssl_context"):
            trial.ssl_context.get()
    except (RedisError, OSError, ValueError, TypeError) as error:
        raise _unusable(f"its TLS parameters cannot be used ({error})") from None
    return options


def _unusable(message: str) -> ConfigError:
    return ConfigError([Problem(file="REDIS_URL", line=None, path="", message=message)])
