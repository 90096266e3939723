"""A connection of the probe to the real service: everything on it is recorded, counted and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tornado_live.doctor.recording import Recorder, Scrubber
from tornado_live.live.causes import (
    DIAL_TIMED_OUT,
    NO_SETUP_ANSWER,
    UNREACHABLE,
    UNREADABLE,
    Cause,
    of_close,
    of_status,
)
from tornado_live.live.upstream import MAX_MESSAGE, SETUP_TIMEOUT_S, live_url
from tornado_live.observe.events import rfc3339
from tornado_live.wire.models import Evidence, LiveModel

# Above Google's list price of audio tokens (3 and 12 dollars a million), so that the bound holds.
INPUT_USD = 4e-6
OUTPUT_USD = 16e-6
_AUDIO_TOKENS_A_BYTE = 25 / 48_000
_CLOSE_TIMEOUT_S = 2.0

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a probe may take; it stops before more."""

    minutes: float = 3.0
    max_usd: float = 0.10


class Spent(Exception):
    """The time or the money is used up."""


class Refused(Exception):
    """No connection, no accepted setup, or a close in the middle: `cause` names it, `words` are what was seen.

    `code` is that of the close, None where there was none.
    """

    def __init__(self, cause: Cause, words: str, code: int | None = None) -> None:
        super().__init__(words)
        self.cause = cause
        self.words = words
        self.code = code

    @property
    def is_for_what_was_sent(self) -> bool:
        """Whether the service says so; it closes with other codes for reasons of its own."""
        return self.code in (1007, 1008) and self.cause.name != "age_limit"


class Budget:
    """Counts time on a monotonic clock, and money by the tokens that the service reports, or by the sound."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._ends = now + limits.minutes * 60
        self._max_usd = limits.max_usd
        self._usd = 0.0
        self._unreported = 0.0

    @property
    def spent_usd(self) -> float:
        return self._usd + self._unreported

    def left_s(self, now: float) -> float:
        return max(0.0, self._ends - now)

    def allows(self, seconds: float, usd: float, now: float) -> bool:
        return seconds <= self.left_s(now) and self.spent_usd + usd <= self._max_usd

    def check(self, now: float) -> None:
        if now >= self._ends:
            raise Spent("the minutes are over")
        if self.spent_usd >= self._max_usd:
            raise Spent("the money is spent")

    def count(self, message: Mapping[str, Any]) -> None:
        """What a message of the model side cost."""
        usage = message.get("usageMetadata")
        if isinstance(usage, dict):
            reported = {name: value for name, value in usage.items() if isinstance(value, int)}
            answers = ("responseTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
            self._usd += reported.get("promptTokenCount", 0) * INPUT_USD
            self._usd += sum(reported.get(name, 0) for name in answers) * OUTPUT_USD
            self._unreported = 0.0
        self._unreported += sum(sizes_of_sound(message)) * _AUDIO_TOKENS_A_BYTE * OUTPUT_USD


def sizes_of_sound(message: Mapping[str, Any]) -> list[int]:
    """The bytes of each piece of speech in a message of the model side."""
    turn = (message.get("serverContent") or {}).get("modelTurn") or {}
    data = [(part.get("inlineData") or {}).get("data") for part in turn.get("parts") or ()]
    return [len(one) * 3 // 4 - one[-2:].count("=") for one in data if isinstance(one, str)]


@dataclass(slots=True)
class Bench:
    """What every probe works with. `pace` divides what is waited for in vain, for a simulator that is quick."""

    base_url: str
    key: str
    version: str
    facts: LiveModel
    evidence: Mapping[str, Evidence]
    budget: Budget
    scrubber: Scrubber
    ssl_context: ssl.SSLContext
    pace: float = 1.0
    recorded: dict[str, Recorder] = field(default_factory=dict)

    def now(self) -> float:
        return time.monotonic()

    def in_vain(self, seconds: float) -> float:
        """How long to wait for what may never come."""
        return min(seconds / self.pace, self.budget.left_s(self.now()))

    @contextlib.asynccontextmanager
    async def dialled(
        self,
        name: str,
        *,
        url: str | None = None,
        version: str | None = None,
        key: str | None = None,
        compression: str | None = None,
    ) -> AsyncIterator[Line]:
        """A connection recorded as `name`; what is left out is as the settings have it. Raises Refused."""
        self.budget.check(self.now())
        version = version or self.version
        address = url or live_url(self.base_url, version)
        key = self.key if key is None else key
        try:
            socket = await _Straight(
                address,
                additional_headers={"x-goog-api-key": key} if key else {},
                compression=compression,
                open_timeout=SETUP_TIMEOUT_S,
                close_timeout=_CLOSE_TIMEOUT_S,
                ping_interval=None,
                max_size=MAX_MESSAGE,
                proxy=None,
                ssl=self.ssl_context if address.startswith("wss:") else None,
            )
        except InvalidStatus as refused:
            status, later = refused.response.status_code, refused.response.headers.get("Retry-After")
            words = f"HTTP {status}" if later is None else f"HTTP {status}, Retry-After {later}"
            raise Refused(of_status(status, None), words) from refused
        except TimeoutError as late:
            raise Refused(DIAL_TIMED_OUT, "no handshake in time") from late
        except (OSError, InvalidHandshake) as failed:
            raise Refused(UNREACHABLE, str(failed) or type(failed).__name__) from failed
        recorder = Recorder(self.facts.path or self.facts.name, version, rfc3339(time.time()), self.scrubber)
        self.recorded[name] = recorder
        line = Line(socket, self, recorder)
        try:
            yield line
        finally:
            await socket.close()
            line.ended()

    @contextlib.asynccontextmanager
    async def opened(self, name: str, setup: Message, *, version: str | None = None) -> AsyncIterator[Line]:
        """The same with an accepted setup. Raises Refused."""
        async with self.dialled(name, version=version) as line:
            await line.set_up(setup)
            yield line


class _Straight(connect):
    """Goes nowhere else: the library would take the key along to wherever it is redirected."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Line:
    """`received` is what came, with its seconds since the connection was opened."""

    def __init__(self, socket: ClientConnection, bench: Bench, recorder: Recorder) -> None:
        self.socket = socket
        self.received: list[tuple[float, Message]] = []
        self._bench = bench
        self._recorder = recorder
        self._began = bench.now()
        self._last_sent = ""
        self._opened = False
        self._resuming = False
        self._end_is_noted = False

    def elapsed(self) -> float:
        return self._bench.now() - self._began

    async def set_up(self, setup: Message) -> Message:
        """The message that accepts `setup`. Raises Refused."""
        self._resuming = "handle" in (setup.get("sessionResumption") or {})
        await self.send({"setup": setup}, "setup")
        try:
            answer = await self.receive(SETUP_TIMEOUT_S)
        except TimeoutError as late:
            raise Refused(NO_SETUP_ANSWER, "no answer to the setup") from late
        if "setupComplete" not in answer:
            raise Refused(UNREADABLE, f"the first message is {', '.join(answer) or 'empty'}")
        self._opened = True
        return answer

    async def send(self, message: Message, kind: str) -> None:
        """`kind` is what causes.of_close calls it. Raises Refused, Spent."""
        self._bench.budget.check(self._bench.now())
        self._last_sent = kind
        try:
            await self.socket.send(json.dumps(message))
        except ConnectionClosed as gone:
            raise self._refused(gone) from gone
        self._recorder.up(self.elapsed(), message)

    async def receive(self, within: float) -> Message:
        """The next message. Raises Refused, Spent, and TimeoutError after `within` seconds."""
        self._bench.budget.check(self._bench.now())
        left = self._bench.budget.left_s(self._bench.now())
        try:
            async with asyncio.timeout(min(within, left)):
                data = await self.socket.recv(decode=False)
        except TimeoutError:
            self._bench.budget.check(self._bench.now())
            raise
        except ConnectionClosed as gone:
            raise self._refused(gone) from gone
        try:
            message = json.loads(data)
        except ValueError as error:
            raise Refused(UNREADABLE, "a message that is not JSON") from error
        if not isinstance(message, dict):
            raise Refused(UNREADABLE, "a message that is not an object")
        at = self.elapsed()
        self._recorder.down(at, message)
        self._bench.budget.count(message)
        self.received.append((at, message))
        return message

    async def until(self, wanted: Callable[[Message], bool], within: float) -> Message:
        """The next message that is wanted. Raises Refused, Spent, and TimeoutError after `within` seconds."""
        ends = self._bench.now() + within
        while True:
            message = await self.receive(max(0.0, ends - self._bench.now()))
            if wanted(message):
                return message

    async def listen(
        self, seconds: float, *, until: Callable[[Message], bool] = lambda _: False
    ) -> list[Message]:
        """Everything that comes within `seconds`, or up to what is waited for. Raises Refused, Spent."""
        heard = len(self.received)
        try:
            await self.until(until, seconds)
        except TimeoutError:
            pass
        return [message for _, message in self.received[heard:]]

    def _refused(self, gone: ConnectionClosed) -> Refused:
        code, reason = (gone.rcvd.code, gone.rcvd.reason) if gone.rcvd is not None else (1006, "")
        self._note_end(code, reason, by="server")
        cause = of_close(
            code,
            reason,
            facts=self._bench.facts,
            last_sent=self._last_sent,
            opened=self._opened,
            resuming=self._resuming,
        )
        said = f" {json.dumps(self._bench.scrubber.reason(reason), ensure_ascii=False)}" if reason else ""
        return Refused(cause, f"close {code}{said}", code)

    def ended(self) -> None:
        """The connection was closed, by us if nobody else did; that may have come while nobody listened."""
        protocol = self.socket.protocol
        if protocol.close_rcvd is not None and protocol.close_rcvd_then_sent:
            self._note_end(protocol.close_rcvd.code, protocol.close_rcvd.reason, by="server")
        elif protocol.close_sent is None:
            self._note_end(1006, "", by="server")
        else:
            self._note_end(1000, "", by="client")

    def _note_end(self, code: int, reason: str, *, by: str) -> None:
        if not self._end_is_noted:
            self._end_is_noted = True
            self._recorder.closed(self.elapsed(), code, reason, by=by)
