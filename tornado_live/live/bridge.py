"""Runs one Conversation: performs its commands, and owns its sockets, tasks, timers and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVarTuple, assert_never

from tornado_live.access.limits import nearly
from tornado_live.caller import Caller
from tornado_live.errors import (
    Forbidden,
    InternalError,
    LiveError,
    SlowConsumer,
    Unauthenticated,
    UpstreamRejected,
    UpstreamTimeout,
)
from tornado_live.jsonvalue import Json
from tornado_live.live.causes import NO_SETUP_ANSWER, Cause, of_close
from tornado_live.live.commands import (
    FORWARD,
    Agree,
    AnswerTool,
    CancelTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Failure,
    Forward,
    FromClient,
    KeepHandle,
    ModelMessage,
    Open,
    OpenModel,
    Record,
    Remember,
    SendToClient,
    SendToModel,
    Speech,
    StartTool,
    Timer,
    ToClient,
    Upward,
    UsageTotals,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.dialects import Dialect, Reply
from tornado_live.live.metering import Meter, Metering, Spending
from tornado_live.live.pace import Pace
from tornado_live.live.peer import WebSocketPeer
from tornado_live.live.shedding import Waiting
from tornado_live.live.terms import terms
from tornado_live.live.upstream import DialFailed, Upstream
from tornado_live.observe.events import Event
from tornado_live.observe.logs import log_event
from tornado_live.observe.metrics import DialOutcome, Metrics
from tornado_live.sessions.store import Handle, MemoryItem, SessionStore
from tornado_live.settings import Limits
from tornado_live.tools.catalog import ToolCatalog
from tornado_live.tools.person import Asks, ClientResult, Consent
from tornado_live.tools.result import ToolCode, ToolError
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.wire import gemini

Told = TypeVarTuple("Told")
Verify: TypeAlias = Callable[[str], Awaitable[Caller]]
"""Who shows a credential, on one socket. Raises LiveError."""

MAX_QUEUED = 512 * 1024
SLOW_SECONDS = 5.0
GOODBYE_CODES = (1000, 1005)  # 1005: a browser's close() without a code
OUTPUT_BYTES_A_SECOND = 48_000
BLAME_S = 3.0
"""A close is put down to what was sent so shortly before; later, to the audio that streams all the time."""

OLD_SOCKET_S = 0.5
"""How long a new connection waits for the close of the old one to be answered."""

THROTTLED = "You send faster than this server takes it in; nothing is lost, but it is heard later."

_log = logging.getLogger("tornado_live.live")


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What every conversation of a process shares."""

    store: SessionStore
    runner: ToolRunner
    metrics: Metrics
    upstream: Upstream
    touch_s: float
    """How often an open conversation keeps its session alive."""
    setup_timeout_s: float
    node: str
    """This process, as others that share the store know it."""
    metering: Metering
    heartbeat_s: float = 25.0
    """A client that was sent nothing for so long gets a message: some proxies do not count pings."""
    left: set[asyncio.Task[None]] = field(default_factory=set)
    """Calls that are finished though their conversation is over; the end of the process cuts them."""


class _ClientSide:
    """Listens to one client socket. A socket that was replaced is no longer heard."""

    __slots__ = ("bridge", "dialect", "held_up", "pace", "peer", "slow", "slow_since", "told_pace", "verify")

    def __init__(self, bridge: Bridge, peer: WebSocketPeer, dialect: Dialect, verify: Verify) -> None:
        self.bridge = bridge
        self.peer = peer
        self.dialect = dialect
        self.verify = verify
        limits = bridge.limits
        self.pace = Pace(limits.messages_per_s, limits.audio_factor)
        self.held_up: asyncio.TimerHandle | None = None
        self.told_pace = False
        self.slow: asyncio.TimerHandle | None = None
        self.slow_since: float | None = None

    def on_message(self, data: bytes, binary: bool) -> None:
        bridge = self.bridge
        if bridge.client is not self:
            return
        bridge.messages_in += 1
        now = bridge.now()
        try:
            message = self.dialect.decode(data, binary)
            if (wait := self.pace.came(message.seconds if type(message) is Speech else 0.0, now)) > 0.0:
                self.hold_up(wait)
            if isinstance(message, Reply):
                self.send(message.frame, False)
                return
            if type(message) is Open:
                if message.token is not None:
                    bridge.renew(self, message.token, message)
                    return
                bridge.take_tools()
            commands = bridge.conversation.from_client(message, now)
        except LiveError as error:
            bridge.react(bridge.conversation.refused, error)
            return
        except Exception as error:  # noqa: BLE001 - a root of the conversation: its bugs end it, nothing else
            bridge.failed(error)
            return
        if commands is FORWARD and type(message) is Speech:
            bridge.seconds_in += message.seconds
            if bridge.model is not None:
                bridge.model.send_text(message.payload)
        else:
            bridge.perform(commands)

    def hold_up(self, wait: float) -> None:
        """The client sends faster than it may: it is read again after `wait` seconds."""
        if self.held_up is not None:
            self.held_up.cancel()
        self.held_up = self.bridge.loop.call_later(wait, self.go_on)
        self.bridge.steer()
        if not self.told_pace:
            self.told_pace = True
            self.bridge.slowed_down()

    def go_on(self) -> None:
        self.held_up = None
        if self.bridge.client is self:
            self.bridge.steer()

    def send(self, data: bytes, binary: bool) -> None:
        peer = self.peer
        self.bridge.messages_out += 1
        # What was not read before this message counts, so that one large message is no fault of the client's.
        unread = 0 if peer.writable else peer.queued
        if binary:
            peer.send_binary(data)
        else:
            peer.send_text(data)
        if unread > MAX_QUEUED:
            self.too_slow()

    def send_frames(self, frames: Iterable[tuple[bytes, bool, int]]) -> None:
        """What `Dialect.audio` gives."""
        try:
            for frame, binary, size in frames:
                self.send(frame, binary)
                self.bridge.bytes_out += size
        except ValueError:
            log_event(_log, "model_audio_unreadable", level=logging.WARNING, session=self.bridge.session_id)

    def on_writable(self, writable: bool) -> None:
        """Above the high-water mark the model side waits; a client that stays there is too slow."""
        bridge = self.bridge
        if bridge.client is not self:
            return
        bridge.steer()
        if self.slow is not None:
            self.slow.cancel()
            self.slow = None
        self.slow_since = None if writable else bridge.now()
        if not writable:
            self.slow = bridge.loop.call_later(SLOW_SECONDS, self.too_slow)
            bridge.on_slow()

    def too_slow(self) -> None:
        if self.bridge.client is self:
            slow = SlowConsumer("The client does not read; connect again on a better line.")
            self.bridge.perform((CloseClient(slow),))

    def on_closed(self, code: int, reason: str) -> None:
        for timer in (self.slow, self.held_up):
            if timer is not None:
                timer.cancel()
        self.bridge.departed(self)
        if self.bridge.client is self:
            self.bridge.left()
            self.bridge.steer()
            self.bridge.react(self.bridge.conversation.client_left, code in GOODBYE_CODES)


class _ModelSide:
    """Listens to one connection of the model side, from before its setup on."""

    __slots__ = ("bridge", "closed", "history", "opened", "peer")

    def __init__(self, bridge: Bridge, peer: WebSocketPeer, history: bytes | None) -> None:
        self.bridge = bridge
        self.peer = peer
        self.history = history
        self.opened = False
        self.closed = asyncio.Event()

    def on_message(self, data: bytes, binary: bool) -> None:
        bridge = self.bridge
        if bridge.model is not self.peer:
            return
        try:
            message = gemini.decode(data)
        except ValueError as error:
            reason = str(error)[:200]
            session = bridge.session_id
            log_event(_log, "model_message_unreadable", level=logging.WARNING, reason=reason, session=session)
            bridge.unknown += 1
            bridge.react(bridge.conversation.unreadable)
            return
        if not self.opened:
            if message.setup_complete is not None:
                self.opened = True
                if self.history is not None:
                    self.peer.send_text(self.history)
                    self.history = None
                    bridge.sent(Upward.HISTORY)
                bridge.model_ready(data)
            return
        if message.unknown:
            bridge.unknown += 1
        try:
            commands = bridge.conversation.from_model(message, bridge.now(), data)
        except Exception as error:  # noqa: BLE001 - a root of the conversation: its bugs end it, nothing else
            bridge.failed(error)
            return
        if commands is not FORWARD:
            bridge.perform(commands)
        elif bridge.client is not None:
            bridge.client.send_frames(bridge.client.dialect.forwarded(message, data))
        else:
            bridge.missed += 1

    def on_writable(self, writable: bool) -> None:
        if self.bridge.model is self.peer:
            self.bridge.steer()

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.set()
        if self.bridge.model is self.peer:
            self.bridge.model_gone(code, reason, opened=self.opened)


class _Person:
    """Whoever is at the other end of a conversation, for one call (tools/person.py)."""

    def __init__(self, bridge: Bridge, call_id: str) -> None:
        self._bridge = bridge
        self._call_id = call_id

    async def confirm(self, args: Mapping[str, Json]) -> bool:
        answer = await self._bridge.ask(self._call_id, "confirm", args)
        return isinstance(answer, Consent) and answer.ok

    async def perform(self, args: Mapping[str, Json]) -> Json:
        answer = await self._bridge.ask(self._call_id, "client", args)
        return answer.response if isinstance(answer, ClientResult) else None

    def slow(self, say: str) -> None:
        self._bridge.react(self._bridge.conversation.tool_slow, self._call_id, say)


class Bridge:
    """`catalog` gives the tools that there are for a caller; they are taken up when the model side is opened for a
    client.

    `on_end` is told once, when the conversation is over, `on_slow` whenever the client stops reading.

    All methods run on the event loop's thread.
    """

    def __init__(
        self,
        session_id: str,
        conversation: Conversation,
        shared: Collaborators,
        *,
        catalog: Callable[[Caller], ToolCatalog],
        caller: Caller,
        on_end: Callable[[], None],
        on_slow: Callable[[], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now: Final = self.loop.time
        self.conversation = conversation
        self.client: _ClientSide | None = None
        self.model: WebSocketPeer | None = None
        self._last_sent, self._sent_at = Upward.NOTHING, 0.0
        self.messages_in = self.messages_out = self.bytes_out = self.unknown = 0
        self.seconds_in = self._heard_s = 0.0
        self._meter = Meter(
            shared.metering,
            session_id,
            spending=self._spending,
            near=self._budget_near,
            over=self.close,
        )
        self.session_id = session_id
        self._shared = shared
        self.catalog = catalog(caller)
        self._newest_catalog = catalog
        self.caller = caller
        self._on_end = on_end
        self.on_slow = on_slow
        self._tasks: set[asyncio.Task[None]] = set()
        self._tools: dict[str, asyncio.Task[None]] = {}
        self._questions: dict[str, asyncio.Future[Consent | ClientResult]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._model_side: _ModelSide | None = None
        self._leaving: _ModelSide | None = None
        self._noticed = False
        self._setup_timer: asyncio.TimerHandle | None = None
        self.missed = 0
        """Messages of speech that came while nobody was there."""
        self._over = asyncio.Event()
        self._tokens = (conversation.usage.input_tokens, conversation.usage.output_tokens)
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._touching: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._departing: set[_ClientSide] = set()
        self._all_departed = asyncio.Event()
        self._all_departed.set()
        shared.metrics.conversation_opened()
        self._touch()

    # --- the client

    def attach(
        self,
        peer: WebSocketPeer,
        dialect: Dialect,
        caller: Caller,
        verify: Verify,
        *,
        replaced: LiveError,
        said: FromClient | None = None,
    ) -> None:
        """A client socket for this conversation; the one before it is told `replaced` and closed.

        `verify` says who shows a credential on this socket. `said` is what this client has said already.
        """
        before = self.client
        self.client = side = _ClientSide(self, peer, dialect, verify)
        if before is not None:
            self._say_goodbye(before, replaced)
        self._shared.store.attend(self.session_id, node=self._shared.node, connected=True)
        self._beat_later()
        peer.attach(side)
        self.steer()
        self.react(self.conversation.client_came)
        self._vouch(caller)
        if type(said) is Open:
            self.take_tools()
        if said is not None:
            self.react(self.conversation.from_client, said)
        if self.missed:
            missed, self.missed = self.missed, 0
            self.tell(
                Warned(
                    "audio_dropped",
                    "What the model said while your line was cut was not played; its words are in the transcript.",
                    missed,
                )
            )

    def _vouch(self, caller: Caller) -> None:
        """Who is at the other end from now on, and on which terms."""
        self.caller = caller
        found = terms(caller, self._shared.metering.limits, time.monotonic())
        self.react(self.conversation.vouched, found)
        if self._meter.admitted:
            self._spawn(self._admit_again())

    async def _admit_again(self) -> None:
        """The same conversation, on the terms of another credential."""
        try:
            await self._meter.admit(self.caller)
        except LiveError as error:
            self.close(error)

    def _spending(self) -> Spending:
        usage = self.conversation.usage
        tokens = usage.input_tokens + usage.output_tokens
        return Spending(self._heard_s + self.seconds_in, tokens, usage.micro_cost)

    def _budget_near(self, limit: str) -> None:
        self.react(self.conversation.budget_near, nearly(limit))

    def _charge_call(self) -> None:
        over = self._meter.tool_call()
        if over is not None:
            self._shared.metrics.limited("tool_calls_per_day")
            raise ToolError(
                ToolCode.LIMITED, over.message, hint="Say that no more can be looked up or done today."
            )

    def renew(self, side: _ClientSide, credential: str, said: Open) -> None:
        """A newer credential of the same user, so that the conversation may last longer. What the client says
        meanwhile waits."""
        side.peer.detach()
        self._spawn(self._renew(side, credential, said))

    async def _renew(self, side: _ClientSide, credential: str, said: Open) -> None:
        try:
            caller = await side.verify(credential)
            if caller.user != self.caller.user:
                raise Forbidden("This credential is somebody else's; open a connection of its own for it.")
        except LiveError as error:
            if self.client is side:
                self.react(self.conversation.refused, error)
        else:
            if self.client is side:
                self._vouch(caller)
                self.take_tools()
                self.react(self.conversation.from_client, said)
        finally:
            side.peer.attach(side)

    def take_tools(self) -> None:
        """Those that the operator has now; a conversation that goes on keeps the ones that it has."""
        if self.conversation.phase is Phase.IDLE:
            self.catalog = self._newest_catalog(self.caller)

    def steer(self) -> None:
        """Each side is read only while the other one takes what it is sent; for whenever a side changes."""
        client, model = self.client, self.model
        if model is not None:
            taken = client is None or client.peer.writable
            (model.resume_reading if taken else model.pause_reading)()
        if client is not None:
            taken = client.held_up is None and (model is None or model.writable)
            (client.peer.resume_reading if taken else client.peer.pause_reading)()

    @property
    def limits(self) -> Limits:
        return self._shared.metering.limits

    def slowed_down(self) -> None:
        """The client is read no faster than it may send."""
        self._shared.metrics.limited("messages_per_s")
        log_event(_log, "client_slowed_down", session=self.session_id)
        self.tell(Warned("throttled", THROTTLED))

    def left(self) -> None:
        """There is no client any more."""
        self.client = None
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        self._shared.store.attend(self.session_id, node=self._shared.node, connected=False)

    def departed(self, side: _ClientSide) -> None:
        """A client's socket is gone for good."""
        self._departing.discard(side)
        if not self._departing:
            self._all_departed.set()

    async def ended(self) -> None:
        """Waits for the end of the conversation, of its tasks, and of the sockets that were told goodbye, which
        have a time for it."""
        await self._over.wait()
        await self.finish()
        await self._all_departed.wait()

    @property
    def waiting(self) -> Waiting | None:
        """What the client has not read yet; None where there is no client."""
        client = self.client
        if client is None:
            return None
        return Waiting(self.session_id, client.peer.queued, client.slow_since)

    def shed(self) -> None:
        """Cuts the client's line, whose unread messages the process cannot hold; it may come back like after any
        cut."""
        client = self.client
        if client is None:
            return
        log_event(
            _log, "client_shed", level=logging.WARNING, session=self.session_id, queued=client.peer.queued
        )
        self.left()
        client.peer.abort()
        self.react(self.conversation.client_left, False)

    def drain(self, spread_s: float, most_s: float) -> None:
        """The server is about to stop."""
        self.react(lambda now: self.conversation.drain(spread_s, most_s, now))

    def close(self, error: LiveError | None) -> None:
        """Ends both sides: the session was deleted (`error` says so), or the server stops."""
        self.react(self.conversation.close, error)

    async def finish(self) -> None:
        """Waits until every task of an ended conversation is over."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- performing

    def react(self, event: Callable[[*Told, float], Sequence[Command]], *told: *Told) -> None:
        """Performs what the conversation decides on `event`, a method of it, at this moment."""
        try:
            commands = event(*told, self.now())
        except Exception as error:  # noqa: BLE001 - the root of a conversation: its bugs end it, nothing else
            self.failed(error)
            return
        self.perform(commands)

    def perform(self, commands: Sequence[Command]) -> None:
        try:
            for command in commands:
                self._perform(command)
        except Exception as error:  # noqa: BLE001 - the root of a conversation: its bugs end it, nothing else
            self.failed(error)

    def _perform(self, command: Command) -> None:
        match command:
            case SendToClient(event=event):
                self.tell(event)
            case SendToModel(payload=payload, kind=kind):
                self.sent(kind)
                if self.model is not None:
                    self.model.send_text(payload)
            case Remember(role=role, text=text, turn=turn):
                self._shared.store.remember(self.session_id, MemoryItem(role, text, turn, time.time()))
            case KeepHandle(handle=handle, identity=identity):
                self._shared.store.keep_handle(
                    self.session_id, Handle(value=handle, identity=identity, at=time.time())
                )
            case Record(kind=kind, data=data):
                self._record(kind, data)
            case StartTool():
                self._tools[command.id] = self._spawn(self._run_tool(command))
            case AnswerTool(id=call_id, answer=answer):
                waiting = self._questions.pop(call_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
            case CancelTool(id=call_id):
                task = self._tools.pop(call_id, None)
                if task is not None:
                    task.cancel()
            case OpenModel():
                self._drop_model()
                self._opening = self._spawn(self._open_model(command))
            case CloseModel():
                self._drop_model()
                if self.conversation.phase is Phase.IDLE:
                    self._meter.release()
            case Agree(options=options):
                if self.client is not None:
                    self.client.dialect.agree(options)
            case WakeAfter(timer=timer, seconds=seconds):
                self._set_timer(timer, seconds)
            case CloseClient(error=error):
                self._close_client(error)
            case End():
                self._end()
            case Forward():
                raise AssertionError("FORWARD is answered where the message is at hand")
            case _:
                assert_never(command)

    def sent(self, kind: Upward) -> None:
        """Something other than the stream of the microphone went to the model side."""
        self._last_sent, self._sent_at = kind, self.now()

    def tell(self, event: ToClient) -> None:
        """Gives the client an event, where there is one that understands it."""
        request_id = ""
        client = self.client
        if type(event) is ModelMessage:
            if client is not None:
                client.send_frames(client.dialect.audio(event.message))
            else:
                self.missed += 1
            return
        if type(event) is Failure:
            request_id = secrets.token_hex(6)
            self._log_error(event.error, request_id)
        elif type(event) is UsageTotals:
            self._shared.store.set_usage(self.session_id, event.totals)
            self._count_tokens()
        if client is not None and (frame := client.dialect.encode(event, request_id=request_id)) is not None:
            client.send(frame, client.dialect.binary)

    def _log_error(self, error: LiveError, request_id: str) -> None:
        self._shared.metrics.failed(error.code)
        if error.limit is not None:
            self._shared.metrics.limited(error.limit)
        facts: dict[str, object] = {"code": error.code, "message": error.message, "requestId": request_id}
        if error.__cause__ is not None:
            facts["cause"] = f"{type(error.__cause__).__name__}: {error.__cause__}"
        log_event(_log, "error", facts, level=logging.WARNING, session=self.session_id)

    def _record(self, kind: str, data: Mapping[str, Json]) -> None:
        self._shared.store.record(self.session_id, Event(time.time(), kind, data))
        level = logging.WARNING if kind in _ALARMING else logging.INFO
        log_event(_log, kind, data, level=level, session=self.session_id)
        metrics = self._shared.metrics
        match kind:
            case "turn":
                metrics.turn_ended()
                sound = data.get("firstSoundMs")
                if isinstance(sound, int):
                    metrics.first_sound(sound / 1000)
                self._count_traffic()
            case "barge_in":
                metrics.barged_in()
            case "model_lost" | "dial_failed":
                metrics.model_lost(str(data.get("cause")))
            case "switched":
                gap = data.get("gapMs")
                metrics.switched(
                    planned=data.get("planned") is True,
                    resumed=data.get("resumed") is True,
                    gap_s=gap / 1000 if isinstance(gap, int) else 0.0,
                )
            case "watchdog":
                metrics.watchdog(str(data.get("step")))
            case "audio_dropped":
                seconds = data.get("seconds")
                metrics.audio_dropped(seconds if isinstance(seconds, float) else 0.0)
            case "tool_call":
                duration, code = data.get("durationMs"), data.get("error")
                guests = data.get("client") is True
                metrics.tool_finished(
                    "(guest)" if guests else str(data.get("name")),  # a guest's names are without number
                    data.get("ok") is True,
                    duration / 1000 if isinstance(duration, int) else 0.0,
                    code if isinstance(code, str) else None,
                )

    def _count_tokens(self) -> None:
        """What the session's totals have grown by since the last report."""
        usage = self.conversation.usage
        before, self._tokens = self._tokens, (usage.input_tokens, usage.output_tokens)
        self._shared.metrics.tokens(self._tokens[0] - before[0], self._tokens[1] - before[1])

    def _count_traffic(self) -> None:
        """Into the metrics, a turn at a time: the audio path itself only adds to plain numbers."""
        self._shared.metrics.traffic(
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            seconds_in=self.seconds_in,
            seconds_out=self.bytes_out / OUTPUT_BYTES_A_SECOND,
            unknown=self.unknown,
        )
        self.messages_in = self.messages_out = self.bytes_out = self.unknown = 0
        self._heard_s += self.seconds_in
        self.seconds_in = 0.0

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        before = self._timers.pop(timer, None)
        if before is not None:
            before.cancel()
        self._timers[timer] = self.loop.call_later(seconds, self._wake, timer)

    def _wake(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        self.react(self.conversation.woke, timer)

    def _touch(self) -> None:
        """An open conversation is activity of its session."""
        self._shared.store.touch(self.session_id)
        self._touching = self.loop.call_later(self._shared.touch_s, self._touch)

    def _beat_later(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._beating = self.loop.call_later(self._shared.heartbeat_s, self._beat, self.messages_out)

    def _beat(self, sent: int) -> None:
        """Where nothing has followed the message number `sent`, the client gets one that says nothing."""
        client = self.client
        if client is None:
            return
        if self.messages_out == sent and (frame := client.dialect.heartbeat()) is not None:
            client.send(frame, client.dialect.binary)
        self._beat_later()

    def _close_client(self, error: LiveError | None) -> None:
        client = self.client
        if client is None:
            return
        self.left()
        self.steer()
        self._say_goodbye(client, error)
        if self.conversation.phase is not Phase.CLOSED:
            # Who comes back, or comes back with a new credential, finds the conversation going on.
            self.react(self.conversation.client_left, not isinstance(error, SlowConsumer | Unauthenticated))

    def _say_goodbye(self, client: _ClientSide, error: LiveError | None) -> None:
        request_id = secrets.token_hex(6)
        if error is not None:
            self._log_error(error, request_id)
        goodbye = client.dialect.goodbye(error, request_id=request_id)
        if goodbye.frame is not None:
            client.send(goodbye.frame, client.dialect.binary)
        if client.peer.close_code is None:
            self._departing.add(client)
            self._all_departed.clear()
        client.peer.close(goodbye.code, goodbye.reason)

    # --- the model side

    async def _open_model(self, command: OpenModel) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and two lines would be dialled.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OLD_SOCKET_S):
                    await leaving.closed.wait()
        if command.delay:
            await asyncio.sleep(command.delay)
        try:
            await self._meter.admit(self.caller)
        except LiveError as error:
            self.react(self.conversation.denied, error)
            return
        try:
            peer = await self._shared.upstream.dial()
        except DialFailed as failed:
            self._refused(failed.cause)
            why = str(failed.__cause__ or failed)
            log_event(_log, "model_not_reached", cause=failed.cause.name, reason=why, session=self.session_id)
            self.react(self.conversation.dial_failed, failed.cause)
            return
        self.model = peer
        self._model_side = _ModelSide(self, peer, command.history)
        peer.attach(self._model_side)
        self.steer()
        peer.send_text(command.setup)
        self.sent(Upward.SETUP)
        self._setup_timer = self.loop.call_later(self._shared.setup_timeout_s, self._setup_late)

    def _setup_late(self) -> None:
        self._refused(NO_SETUP_ANSWER)
        self._drop_model()
        self.react(self.conversation.model_closed, NO_SETUP_ANSWER)

    def model_ready(self, answer: bytes) -> None:
        """The setup was accepted, with `answer`."""
        self._stop_setup_timer()
        self._shared.metrics.upstream_dialled("opened")
        self._shared.upstream.accepted()
        self.react(lambda now: self.conversation.model_opened(now, answer))
        notice = self._shared.upstream.address.notice()
        if notice is not None and not self._noticed:
            self.tell(notice)
        self._noticed = True

    def model_gone(self, code: int, reason: str, *, opened: bool) -> None:
        """The connection ended, after its setup was accepted (`opened`) or instead of it."""
        talk = self.conversation
        cause = of_close(
            code,
            reason,
            facts=talk.plan.facts if talk.plan is not None else None,
            last_sent=self._last_sent if self.now() - self._sent_at < BLAME_S else Upward.AUDIO,
            opened=opened,
            resuming=talk.rotation.resuming,
        )
        session = self.session_id
        log_event(_log, "model_closed", code=code, reason=reason, cause=cause.name, session=session)
        if not opened:
            self._refused(cause)
        self._stop_setup_timer()
        self.model = None
        self.steer()
        self.react(talk.model_closed, cause)

    def _refused(self, cause: Cause) -> None:
        """A dial that did not lead to a session; Google refuses a key only after the handshake."""
        self._shared.upstream.refused(cause)
        self._shared.metrics.upstream_dialled(_outcome(cause))

    def _drop_model(self) -> None:
        self._stop_setup_timer()
        peer, self.model = self.model, None
        if peer is not None:
            self._leaving = self._model_side
            peer.close()
            self.steer()
        opening, self._opening = self._opening, None
        if opening is not None and opening is not asyncio.current_task():
            opening.cancel()

    def _stop_setup_timer(self) -> None:
        if self._setup_timer is not None:
            self._setup_timer.cancel()
            self._setup_timer = None

    # --- tools

    async def _run_tool(self, command: StartTool) -> None:
        def progress(text: str) -> None:
            self.react(self.conversation.tool_progress, command.id, text)

        plan = self.conversation.plan
        result = await self._shared.runner.run(
            self.catalog,
            ToolCall(command.id, command.name, dict(command.args), command.repeats),
            caller=self.caller,
            session_id=self.session_id,
            allowed=self.catalog.names(plan.toolset) if plan is not None else None,
            progress=progress,
            person=_Person(self, command.id),
            charge=self._charge_call,
        )
        self._tools.pop(command.id, None)
        self.react(self.conversation.tool_finished, command.id, result)

    async def ask(self, call_id: str, asks: Asks, args: Mapping[str, Json]) -> Consent | ClientResult:
        """Puts a call's question to the client, now and whenever it comes back, until it answers."""
        waiting: asyncio.Future[Consent | ClientResult] = self.loop.create_future()
        self._questions[call_id] = waiting
        try:
            self.react(lambda now: self.conversation.tool_asks(call_id, asks, args, now))
            return await waiting
        finally:
            self._questions.pop(call_id, None)

    # --- tasks and the end

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """A bug: its text is in the log, the client is told `internal`."""
        log_event(_log, "conversation_failed", level=logging.ERROR, error=error, session=self.session_id)
        internal = InternalError("Something went wrong on the server; connect again.")
        try:
            for command in self.conversation.close(internal, self.now()):
                self._perform(command)
        except Exception as again:  # noqa: BLE001 - the end must come, whatever is broken
            log_event(_log, "conversation_failed", level=logging.ERROR, error=again, session=self.session_id)
        self._end()  # also where the bug was met on the way to the end

    def _end(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for timer_handle in (self._touching, self._beating):
            if timer_handle is not None:
                timer_handle.cancel()
        self._touching = self._beating = None
        self._drop_model()
        self._leave_tools()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._shared.store.touch(self.session_id)
        if self.conversation.usage.seconds:
            self._shared.store.set_usage(self.session_id, self.conversation.usage.as_json())
        self._meter.release()
        self._count_traffic()
        self._shared.metrics.conversation_closed()
        self._on_end()

    def _leave_tools(self) -> None:
        """What was not cancelled is to be finished; nobody waits for it, and its tool's deadline ends it."""
        if self.conversation.phase is not Phase.CLOSED:
            return
        for call_id, task in self._tools.items():
            if self.conversation.calls.is_running(call_id):
                self._tasks.discard(task)
                self._shared.left.add(task)
                task.add_done_callback(self._shared.left.discard)


_ALARMING = frozenset({"model_lost", "dial_failed", "model_given_up", "watchdog"})


def _outcome(cause: Cause) -> DialOutcome:
    """The label of a dial that did not succeed."""
    if cause.error is UpstreamTimeout:
        return "timeout"
    return "refused" if issubclass(cause.error, UpstreamRejected) else "failed"
