"""The simulator as a server: Google's WebSocket, the list of models, and a status page for people and tests."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import json
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from .brain import Brain, VoiceBox
from .conversation import ConversationBrain
from .messages import Json, Message, Refused, encode, read
from .profiles import PROFILES, Profile
from .scenario import Connection, End, Scenario, ScenarioBrain
from .session import Pace, Session
from .setup import accept

logger = logging.getLogger(__name__)

VERSIONS = "v1|v1beta|v1alpha|v1beta1"
LIVE_PATH = rf"/+ws/google\.ai\.generativelanguage\.({VERSIONS})\.GenerativeService\.BidiGenerateContent"
MODELS_PATH = rf"/+({VERSIONS})/models"
_LOOPBACK = r"localhost|127\.0\.0\.1|\[?::1\]?"
INVALID_KEY = "API key not valid. Please pass a valid API key."
NO_KEY = (
    "Method doesn't allow unregistered callers (callers without established identity)."
    " Please use API Key or other form of API consumer identity to call this API."
)


@dataclass(frozen=True, slots=True)
class Options:
    """How one simulator runs. tls: certificate chain and key (PEM files). port 0: any free one."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: tuple[Path, Path] | None = None
    scenario: Scenario | None = None
    voice: Literal["auto", "on", "off"] = "auto"
    pace: Pace = field(default_factory=Pace)
    require_key: bool = False


class VoiceMissing(Exception):
    """`voice="on"` and there is none; the text says why."""


async def serve(
    options: Options, *, announce: Callable[[dict[str, Json]], None], stop: asyncio.Event
) -> None:
    """Listens until `stop` is set, then closes every connection and releases the voice.

    announce: called with `{"listening": {"host", "port", "tls"}, "voice"}` as soon as connections are taken, and
    with `{"voice": "ready"}` or `{"voice": "unavailable: REASON"}` once the voice is loaded or missing.
    Raises OSError when the address or a certificate cannot be used, VoiceMissing when voice is "on" without one.
    """
    simulator = Simulator(options)
    context = None
    if options.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
    server = tornado.httpserver.HTTPServer(simulator.application(), ssl_options=context)
    sockets = tornado.netutil.bind_sockets(options.port, options.host)
    server.add_sockets(sockets)
    voices = simulator.voices
    try:
        async with asyncio.TaskGroup() as group:
            port = sockets[0].getsockname()[1]
            listening: dict[str, Json] = {"host": options.host, "port": port, "tls": context is not None}
            with_voice = options.voice != "off"
            announce({"listening": listening, "voice": "loading" if with_voice else "off"})
            if with_voice:
                group.create_task(_load_voice(voices, options, announce))
            await stop.wait()
    finally:
        server.stop()
        await simulator.close()
        await server.close_all_connections()
        voices.close()


async def _load_voice(
    voices: VoiceBox, options: Options, announce: Callable[[dict[str, Json]], None]
) -> None:
    await voices.load()
    announce({"voice": voices.state})
    if options.voice == "on" and voices.voice is None:
        raise VoiceMissing(f"The simulator has no voice: {voices.state.removeprefix('unavailable: ')}.")


class Simulator:
    """What the handlers share: options, voice, and the conversations that run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.voices = VoiceBox()
        self.sockets: dict[int, LiveSocket] = {}
        self.started = time.time()
        self._numbers = itertools.count()

    def application(self) -> tornado.web.Application:
        application = tornado.web.Application(
            websocket_max_message_size=16 * 1024 * 1024, log_function=lambda handler: None
        )
        shared = {"simulator": self}
        # On loopback no other name leads here, unless a web page made its own name point to this machine.
        application.add_handlers(
            _LOOPBACK if re.fullmatch(_LOOPBACK, self.options.host) else ".*",
            [(LIVE_PATH, LiveSocket, shared), (MODELS_PATH, Models, shared), ("/status", Status, shared)],
        )
        return application

    def next_number(self) -> int:
        return next(self._numbers)

    def script(self, number: int) -> Connection:
        scenario = self.options.scenario
        return Connection() if scenario is None else scenario.connection(number)

    def brain(self, number: int, declarations: tuple[dict[str, Json], ...]) -> Brain:
        if self.options.scenario is not None:
            return ScenarioBrain(self.script(number), self.voices)
        return ConversationBrain(self.voices, declarations)

    def key_problem(self, key: str | None) -> Refused | None:
        """Why this key is refused: one that starts with "invalid", or none where one is required."""
        if key is not None and key.startswith("invalid"):
            return Refused(INVALID_KEY)
        if not key and self.options.require_key:
            return Refused(NO_KEY, 1008)
        return None

    def status(self) -> dict[str, Json]:
        return {
            "simulator": True,
            "voice": self.voices.state,
            "models": [f"models/{name}" for name in PROFILES],
            "uptime_s": round(time.time() - self.started, 3),
            "conversations": [socket.status() for socket in self.sockets.values()],
        }

    async def close(self) -> None:
        for socket in list(self.sockets.values()):
            await socket.end()


class _State(enum.Enum):
    """OPENING is also the state of a connection whose setup is never answered; what it sends is ignored."""

    UNOPENED = enum.auto()
    OPENING = enum.auto()
    LIVE = enum.auto()
    ENDED = enum.auto()


class LiveSocket(tornado.websocket.WebSocketHandler):
    """One connection: setup, then a Session; every refusal is a close, as on the service."""

    def initialize(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._session: Session | None = None
        self._setup: Message = {}
        self._opened_at = time.time()
        self._ending: asyncio.TimerHandle | None = None
        self._state = _State.UNOPENED

    def open(self, version: str) -> None:
        self._version = version
        self._number = self._simulator.next_number()
        self._simulator.sockets[self._number] = self
        self.set_nodelay(True)

    def on_message(self, frame: str | bytes) -> Awaitable[None] | None:
        if self._state is _State.UNOPENED:
            return self._first_message(frame)
        # Not a coroutine: there are fifty of these a second in every conversation, and a task for each costs more.
        if self._state is _State.LIVE and self._session is not None:
            with self._refusing():
                self._session.receive(*read(frame))
        return None

    async def _first_message(self, frame: str | bytes) -> None:
        """Tornado reads no further message before this is done."""
        with self._refusing():
            name, message = read(frame)
            if name != "setup":
                raise Refused
            await self._open_session(message)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self.refuse(refusal)
        except Exception:  # the edge: Tornado would drop the connection without a close frame
            logger.exception("a message could not be handled")
            self.refuse(Refused("Internal error encountered.", 1011))

    async def _open_session(self, message: Message) -> None:
        self._state = _State.OPENING
        self._setup = message
        problem = self._simulator.key_problem(_key_of(self))
        if problem is not None:
            raise problem
        profile = self._profile(message)
        setup = accept(message, profile)
        pace = self._simulator.options.pace
        script = self._simulator.script(self._number)
        opening = script.opening
        await asyncio.sleep(pace.seconds(profile.setup_s if opening.delay is None else opening.delay))
        if opening.close is not None:
            raise Refused(opening.close.reason, opening.close.code)
        if opening.drop:
            self.drop()
        if opening.hang or opening.drop or self._state is not _State.OPENING:
            return
        brain = self._simulator.brain(self._number, setup.declarations)
        voices = self._simulator.voices
        self.send({"setupComplete": {}})
        self._session = Session(
            setup=setup, profile=profile, pace=pace, wire=self, brain=brain, voices=voices
        )
        self._state = _State.LIVE
        self._session.begin()
        if script.end is not None:
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(pace.seconds(script.end.after), self._end, script.end)

    def _profile(self, message: Message) -> Profile:
        name = message.get("model")
        if not isinstance(name, str) or not name:
            raise Refused
        profile = PROFILES.get(name.removeprefix("models/"))
        if profile is None or not name.startswith("models/"):
            raise Refused(
                f"{name} is not found for API version {self._version}, or is not supported for"
                " bidiGenerateContent. Call ListModels to see the list of available models.",
                1008,
            )
        return profile

    def _end(self, end: End) -> None:
        if end.close is None:
            self.drop()
        else:
            self.close(end.close.code, end.close.reason)

    # session.Wire

    def send(self, message: Mapping[str, Json]) -> Awaitable[None]:
        try:
            written = self.write_message(encode(message), binary=True)
        except tornado.websocket.WebSocketClosedError:
            closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            closed.set_result(None)
            return closed
        written.add_done_callback(_seen)
        return written

    def refuse(self, refusal: Refused) -> None:
        self._state = _State.ENDED
        self.close(refusal.code, refusal.reason)

    def drop(self) -> None:
        stream = None if self.ws_connection is None else self.ws_connection.stream
        if stream is not None:
            stream.close()

    def on_close(self) -> None:
        self._simulator.sockets.pop(self._number, None)
        if self._ending is not None:
            self._ending.cancel()
        self._state = _State.ENDED
        if self._session is not None:
            self._session.cancel()

    async def end(self) -> None:
        """Ends the conversation and everything that runs for it."""
        self.close(1001, "The simulator is shutting down.")
        if self._session is not None:
            await self._session.close()

    def status(self) -> dict[str, Json]:
        """For GET /status; `setup` is the message as it was understood, in camelCase."""
        counts = {} if self._session is None else dict(self._session.counts)
        return {
            "connection": self._number,
            "since": self._opened_at,
            "live": self._state is _State.LIVE,
            "setup": cast("dict[str, Json]", self._setup),
            "counts": cast("dict[str, Json]", counts),
        }


class Models(tornado.web.RequestHandler):
    """ListModels of the Gemini API."""

    def initialize(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def get(self, version: str) -> None:
        problem = self._simulator.key_problem(_key_of(self))
        if problem is not None:
            code, name = (400, "INVALID_ARGUMENT") if problem.code == 1007 else (403, "PERMISSION_DENIED")
            self.set_status(code)
            self.write({"error": {"code": code, "message": problem.reason, "status": name}})
            return
        self.write({"models": [_listed(profile) for profile in PROFILES.values()]})


class Status(tornado.web.RequestHandler):
    def initialize(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(self._simulator.status(), indent=2, default=repr))


def _listed(profile: Profile) -> dict[str, Json]:
    return {
        "name": f"models/{profile.name}",
        "version": "simulator",
        "displayName": profile.display_name,
        "description": "Plays this model without understanding: answers come from the declared functions.",
        "inputTokenLimit": profile.context_tokens,
        "outputTokenLimit": profile.output_tokens,
        "supportedGenerationMethods": ["bidiGenerateContent"],
    }


def _key_of(handler: tornado.web.RequestHandler) -> str | None:
    return handler.request.headers.get("x-goog-api-key") or handler.get_query_argument("key", None)


def _seen(written: asyncio.Future[None]) -> None:
    """A client that went away is noticed in on_close; its unsent messages need no mention."""
    if not written.cancelled():
        written.exception()
