"""One connection of a client: who may open it, how its setup is answered, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import tornado.web
import tornado.websocket
from tornado.iostream import IOStream

from .age import Age, duration
from .faults import HTTP_ERRORS, Fault, Kind, Place
from .faulty import FaultyStream, FaultyWire
from .frames import Frames
from .messages import Json, Message, Refused, read
from .profiles import PROFILES, VERTEX_PROFILES, Profile
from .recording import Recording, Replay
from .resumption import Line, Rules
from .scenario import Connection, End, ScenarioBrain
from .session import Session
from .setup import Setup, accept
from .tokens import EXPIRED, PREFIX, UNKNOWN

if TYPE_CHECKING:
    from .server import Simulator

logger = logging.getLogger(__name__)

_VERTEX_MODEL = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/(?P<model>[^/]+)")


# Begun with the connection they would be one more setup without an answer.
_AFTER_SETUP = frozenset({"silent", "half_open", "reset"})


class _State(enum.Enum):
    """OPENING is also the state of a connection whose setup is never answered; what it sends is ignored."""

    UNOPENED = enum.auto()
    OPENING = enum.auto()
    LIVE = enum.auto()
    ENDED = enum.auto()


class LiveSocket(tornado.websocket.WebSocketHandler):
    """One connection: setup, then a Session or a Replay; every refusal is a close, as on the service."""

    def initialize(self, simulator: Simulator, vertex: bool, constrained: bool) -> None:
        self._simulator = simulator
        self._vertex = vertex
        self._constrained = constrained
        self._session: Session | Replay | None = None
        self._line: Line | None = None
        self._setup: Message = {}
        self._opened_at = time.time()
        self._live_since: float | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._age_timers: list[asyncio.TimerHandle] = []
        self._state = _State.UNOPENED
        self._ends_at = math.inf
        self._received = 0
        self._number = -1
        self._frames: Frames | None = None

    def check_origin(self, origin: str) -> bool:
        """Any, as the service takes its clients in browsers; they have nothing but what they bring."""
        return True

    def prepare(self) -> None:
        """The upgrade itself can be refused."""
        refused = self._simulator.http_error()
        if refused is None:
            return
        status, message = HTTP_ERRORS.get(refused.status, ("UNKNOWN", "The request failed."))
        self.set_status(refused.status)
        if refused.retry_after is not None:
            self.set_header("Retry-After", str(math.ceil(refused.retry_after)))
        self.finish({"error": {"code": refused.status, "message": message, "status": status}})

    def open(self, version: str) -> None:
        self._version = version
        self._number = self._simulator.next_number()
        self._simulator.sockets[self._number] = self
        if self._simulator.options.keep_frames:
            self._frames = Frames(self.request.uri or "", dict(self.request.headers))
            self._simulator.frames[self._number] = self._frames
        self._script: Connection = self._simulator.script(self._number)
        self._switches = self._simulator.switches | self._script.switches
        self.set_nodelay(True)
        assert self.ws_connection is not None
        assert self.ws_connection.stream is not None
        self._stream = FaultyStream(self.ws_connection.stream, self._simulator.options.pace.speed)
        self.ws_connection.stream = cast("IOStream", self._stream)
        planned = self._simulator.planned(self._number)
        self._wire = FaultyWire(self, [each for each in planned if each.turn is not None])
        self._opening = {each.fault.name: each.fault.value for each in planned if _opens(each.fault)}
        self._timed = [each for each in planned if each.turn is None and not _opens(each.fault)]
        for each in list(self._timed):
            lasts = each.fault.definition.kind is not Kind.ONCE and each.fault.name not in _AFTER_SETUP
            if each.after is None and lasts:
                self._timed.remove(each)
                self.apply(each.fault)

    def on_message(self, frame: str | bytes) -> Awaitable[None] | None:
        if self._frames is not None:
            self._frames.received(frame)
        if self._state is _State.UNOPENED:
            return self._first_message(frame)
        # Not a coroutine: there are fifty of these a second in every conversation, and a task for each costs more.
        if self._state is _State.LIVE and self._session is not None:
            with self._refusing():
                self._received += 1
                name, message = read(frame)
                seen = self._wire.receive(name, message)
                if seen is not None:
                    self._session.receive(name, seen)
        return None

    async def _first_message(self, frame: str | bytes) -> None:
        """Tornado reads no further message before this is done."""
        with self._refusing():
            name, message = read(frame)
            if name != "setup":
                raise Refused
            self._state = _State.OPENING
            await self._answer_setup(message)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self.close(refusal.code, refusal.reason)
        except Exception:  # the edge: Tornado would drop the connection without a close frame
            logger.exception("a message could not be handled")
            self.close(1011, "Internal error encountered.")

    # From the setup to a conversation

    async def _answer_setup(self, message: Message) -> None:
        self._setup = message
        message = self._setup = self._admitted(message)
        if self._script.recording is not None:
            if await self._may_answer(None):
                self._play(self._script.recording)
            return
        profile = self._profile(message)
        setup = accept(_without_handle(message), profile)
        if await self._may_answer(profile):
            self._begin(setup, profile)

    async def _may_answer(self, profile: Profile | None) -> bool:
        """Waits as long as the setup's answer takes; false where there will be none."""
        opening, pace = self._script.opening, self._simulator.options.pace
        usual = 0.0 if profile is None else profile.setup_s
        delay = self._opening.get("setup_delay", usual if opening.delay is None else opening.delay)
        await asyncio.sleep(pace.seconds(delay))
        close = self._opening.get("close_at_setup", opening.close)
        if close is not None:
            raise Refused(close.reason, close.code)
        if opening.drop:
            self.drop()
        hangs = opening.hang or "no_setup_answer" in self._opening
        return self._state is _State.OPENING and not hangs

    def _admitted(self, message: Message) -> Message:
        """The setup that counts, from somebody who may connect. Raises Refused."""
        key = key_of(self)
        scheme, _, credential = self.request.headers.get("Authorization", "").partition(" ")
        if self._vertex:
            bearer = credential if scheme.lower() == "bearer" else key
            problem = self._simulator.key_problem(bearer)
            if problem is not None:
                raise UNKNOWN
            return message
        token = credential if scheme.lower() == "token" else self.get_query_argument("access_token", None)
        token = token or (key if key is not None and key.startswith(PREFIX) else None)
        if self._constrained or token is not None:
            if token is None or not self._constrained:
                raise UNKNOWN
            resuming = bool(_handle(message))
            admitted = self._simulator.tokens.admit(token, resuming=resuming, now=time.time())
            left = max(0.0, admitted.expires - time.time())
            expire = asyncio.get_running_loop().call_later(left, self.close, EXPIRED.code, EXPIRED.reason)
            self._timers.append(expire)
            return admitted.applied(message)
        problem = self._simulator.key_problem(key)
        if problem is not None:
            raise problem
        return message

    def _profile(self, message: Message) -> Profile:
        name = message.get("model")
        if not isinstance(name, str) or not name:
            raise Refused
        if self._vertex:
            found = _VERTEX_MODEL.fullmatch(name)
            profile = None if found is None else VERTEX_PROFILES.get(found["model"])
            if profile is None:
                raise Refused(f"Publisher Model `{name}` not found.", 1008)
        else:
            profile = PROFILES.get(name.removeprefix("models/"))
            if profile is None or not name.startswith("models/"):
                raise Refused(
                    f"{name} is not found for API version {self._version}, or is not supported for"
                    " bidiGenerateContent. Call ListModels to see the list of available models.",
                    1008,
                )
        return self._switches.profile(profile)

    def _begin(self, setup: Setup, profile: Profile) -> None:
        """A session from its beginning, or from the state that a handle stands for."""
        simulator, kept = self._simulator, None
        line = Line(profile.name)
        handle = _handle(self._setup)
        if handle:
            resumed = simulator.resume(handle, profile.name, self._rules, self._number)
            line, kept = resumed.line, resumed.state
            if self._rules.resumed_instruction == "old":
                setup = replace(setup, instruction=kept.setup.instruction)
        line.opened()
        self._line = line
        brain = simulator.brain(self._number, setup, kept)
        if isinstance(brain, ScenarioBrain):
            brain.spoil = self.apply
        complete: dict[str, Json] = {"sessionId": str(uuid.uuid4())} if profile.vertex else {}
        self._wire.send({"setupComplete": complete})
        self._session = session = Session(
            setup=setup,
            profile=profile,
            pace=simulator.options.pace,
            wire=self._wire,
            brain=brain,
            voices=simulator.voices,
            resumed=kept,
        )
        if profile.resumption_unasked or "sessionResumption" in self._setup:
            session.on_resumable = self._tell_resumable
        self._live()
        self._grow_old(simulator.age(self._number, profile))
        session.begin()

    def _play(self, recording: Recording) -> None:
        self._session = replay = Replay(recording, pace=self._simulator.options.pace, wire=self._wire)
        self._live()
        replay.begin()

    def _live(self) -> None:
        self._state = _State.LIVE
        self._live_since = _now()
        for each in self._timed:
            self.later(each.after or 0.0, lambda fault=each.fault: self.apply(fault))  # type: ignore[misc]
        if self._script.end is not None:
            end = self._script.end
            self.later(end.after, lambda: self._end(end))

    @property
    def _rules(self) -> Rules:
        return self._switches.rules

    def _tell_resumable(self, resumable: bool) -> None:
        """An update of the handle, for those who asked for it."""
        if self._line is None or not isinstance(self._session, Session):
            return  # the connection has ended
        asked = self._setup.get("sessionResumption")
        update: dict[str, Json] = {}
        if resumable:
            handle = self._simulator.handles.issue(self._line, self._session.memory())
            update = {"newHandle": handle, "resumable": True}
            if isinstance(asked, dict) and asked.get("transparent") is True:
                index = self._received
                text = self._rules.message_index == "string"
                update["lastConsumedClientMessageIndex"] = str(index) if text else index
        elif self._rules.not_resumable == "false":
            update = {"resumable": False}
        self._wire.send({"sessionResumptionUpdate": update})

    # The end

    def _grow_old(self, age: Age) -> None:
        """From now on; an age that was set before counts no more."""
        for timer in self._age_timers:
            timer.cancel()
        self._ends_at = _now() + self._simulator.options.pace.seconds(age.limit)
        self._age_timers = []
        if math.isinf(age.limit):
            return
        if age.go_away is not None:
            left = min(age.go_away, age.limit)
            self._age_timers.append(self.later(age.limit - left, lambda: self._go_away(age, left)))
        then = age.then
        if then is not None:
            self._age_timers.append(self.later(age.limit, lambda: self.close(then.code, then.reason)))

    def _go_away(self, age: Age, left: float) -> None:
        told = (
            duration(self._simulator.options.pace.seconds(left)) if age.time_left is None else age.time_left
        )
        for _ in range(age.times):
            self._wire.send({"goAway": {"timeLeft": told} if told else {}})
        if age.silent:
            self._wire.apply(Fault("silent", True))

    def _end(self, end: End) -> None:
        if end.close is None:
            self.drop()
        else:
            self.close(end.close.code, end.close.reason)

    # Faults

    def apply(self, fault: Fault) -> None:
        """Begins or ends a fault now."""
        match fault.name:
            case "lose_handles":
                self._simulator.handles.forget()
            case "go_away":
                profile = self._session.profile if isinstance(self._session, Session) else None
                self._grow_old(self._simulator.leaving(profile, fault.value))
            case "half_open":
                self._stream.half_open = fault.value is not None
                if self._stream.half_open:
                    self._leave()
            case "slow_pong":
                self._stream.slow_pong = fault.value
            case "slow_writes":
                self._stream.slow_writes(fault.value)
        if fault.name not in ("lose_handles", "go_away"):
            self._wire.apply(fault)

    # faulty.Line

    def send_frame(self, frame: str | bytes) -> Awaitable[None]:
        try:
            written = self.write_message(frame, binary=isinstance(frame, bytes))
        except tornado.websocket.WebSocketClosedError:
            closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            closed.set_result(None)
            return closed
        if self._frames is not None:
            self._frames.sent(frame)
        written.add_done_callback(_seen)
        return written

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self._state = _State.ENDED
        self._leave()
        super().close(code, reason)

    def drop(self) -> None:
        self._state = _State.ENDED
        self._leave()
        if self.ws_connection is not None:
            self._stream.close()

    def reset_next(self, wanted: bool) -> None:
        self._stream.reset_next = wanted

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        delay = self._simulator.options.pace.seconds(seconds)
        timer = asyncio.get_running_loop().call_later(delay, act)
        self._timers.append(timer)
        return timer

    def hand_in(self, name: str, message: Message) -> None:
        if self._session is not None:
            with self._refusing():
                self._session.receive(name, message)

    def _leave(self) -> None:
        """For the store of handles this connection is over."""
        if self._line is not None:
            self._simulator.handles.ended(self._line, _now())
            self._line = None

    def on_close(self) -> None:
        self._simulator.sockets.pop(self._number, None)
        if self._frames is not None:
            self._frames.closed(self.close_code, self.close_reason)
        for timer in self._timers:
            timer.cancel()
        self._state = _State.ENDED
        self._leave()
        if self._number >= 0:
            self._stream.stop()
        if self._session is not None:
            self._session.cancel()

    async def end(self) -> None:
        """Ends the conversation and everything that runs for it."""
        self._stream.half_open = False
        self.close(1001, "The simulator is shutting down.")
        if self._session is not None:
            await self._session.close()

    @property
    def is_live(self) -> bool:
        return self._state is _State.LIVE

    def status(self) -> dict[str, Json]:
        """For GET /status; `setup` is the message as it was understood, in camelCase."""
        counts = {} if self._session is None else dict(self._session.counts)
        since = self._live_since
        return {
            "connection": self._number,
            "since": self._opened_at,
            "live": self.is_live,
            "age_s": None if since is None else round(_now() - since, 3),
            "age_limit_s": None
            if since is None or math.isinf(self._ends_at)
            else round(self._ends_at - since, 3),
            "handle": None if self._line is None else self._line.newest,
            "faults": self._wire.status(),
            "setup": cast("dict[str, Json]", self._setup),
            "counts": cast("dict[str, Json]", counts),
        }


def key_of(handler: tornado.web.RequestHandler) -> str | None:
    return handler.request.headers.get("x-goog-api-key") or handler.get_query_argument("key", None)


def _opens(fault: Fault) -> bool:
    return fault.definition.place is Place.OPENING


def _handle(setup: Message) -> str:
    resumption = setup.get("sessionResumption")
    handle = resumption.get("handle") if isinstance(resumption, dict) else None
    return handle if isinstance(handle, str) else ""


def _without_handle(setup: Message) -> Message:
    resumption = setup.get("sessionResumption")
    if not isinstance(resumption, dict):
        return setup
    return {
        **setup,
        "sessionResumption": {name: each for name, each in resumption.items() if name != "handle"},
    }


def _now() -> float:
    return asyncio.get_running_loop().time()


def _seen(written: asyncio.Future[None]) -> None:
    """A client that went away is noticed in on_close; its unsent messages need no mention."""
    if not written.cancelled():
        written.exception()
