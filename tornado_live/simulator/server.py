"""The simulator as a server: Google's WebSocket, models and tokens, and a status page for people and tests."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tornado.httpserver
import tornado.netutil
import tornado.web

from .age import Age, age_of, changed
from .brain import Brain, VoiceBox
from .connection import LiveSocket, key_of
from .control import LOOPBACK, Control, KeptFrames, NotOpen
from .conversation import ConversationBrain
from .faults import Fault, HttpError, Place, Planned
from .frames import Frames
from .messages import Json, Refused
from .profiles import PROFILES, VERTEX_PROFILES, Profile
from .resumption import HANDLE_LIFE_S, Handles, Resumed, Rules
from .scenario import Connection, Scenario, ScenarioBrain
from .session import Pace, SessionMemory
from .setup import Setup
from .switches import Switches
from .tokens import Tokens
from .values import Mistake

VERSIONS = "v1|v1beta|v1alpha|v1beta1"
LIVE_PATH = rf"/+ws/google\.ai\.generativelanguage\.({VERSIONS})\.GenerativeService\.BidiGenerateContent"
VERTEX_PATH = rf"/+ws/google\.cloud\.aiplatform\.({VERSIONS})\.LlmBidiService/BidiGenerateContent"
MODELS_PATH = rf"/+({VERSIONS})/models"
TOKENS_PATH = rf"/+({VERSIONS})/auth_tokens"
INVALID_KEY = "API key not valid. Please pass a valid API key."
NO_KEY = (
    "Method doesn't allow unregistered callers (callers without established identity)."
    " Please use API Key or other form of API consumer identity to call this API."
)


@dataclass(frozen=True, slots=True)
class Options:
    """How one simulator runs. tls: certificate chain and key (PEM files). port 0: any free one.

    age: fields of an Age that differ from the model's. handle_life: seconds at speed 1.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: tuple[Path, Path] | None = None
    scenario: Scenario | None = None
    voice: Literal["auto", "on", "off"] = "auto"
    pace: Pace = field(default_factory=Pace)
    require_key: bool = False
    age: Mapping[str, Any] = field(default_factory=dict)
    handle_life: float = HANDLE_LIFE_S
    faults: tuple[Planned, ...] = ()
    switches: Switches = field(default_factory=Switches)
    keep_frames: bool = False


class VoiceMissing(Exception):
    """`voice="on"` and there is none; the text says why."""


class CertificateUnusable(Exception):
    """The text says which file, and why."""


async def serve(
    options: Options, *, announce: Callable[[dict[str, Json]], None], stop: asyncio.Event
) -> None:
    """Listens until `stop` is set, then closes every connection and releases the voice.

    announce: called with `{"listening": {"host", "port", "tls"}, "voice"}` as soon as connections are taken, and
    with `{"voice": "ready"}` or `{"voice": "unavailable: REASON"}` once the voice is loaded or missing.
    Raises CertificateUnusable, OSError when the address cannot be used, and VoiceMissing when voice is "on" and
    there is none.
    """
    simulator = Simulator(options)
    context = None if options.tls is None else _tls(*options.tls)
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


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises CertificateUnusable."""
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise CertificateUnusable(f"{option} {path} cannot be read: {error.strerror}") from error
        wanted = "CERTIFICATE" if option == "--tls-cert" else "PRIVATE KEY"
        if f"{wanted}-----" not in text:
            raise CertificateUnusable(f"{option} {path} has no {wanted.lower()} in PEM format")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise CertificateUnusable(
            f"--tls-cert {certificate} and --tls-key {key} cannot be used: {why}"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")


async def _load_voice(
    voices: VoiceBox, options: Options, announce: Callable[[dict[str, Json]], None]
) -> None:
    await voices.load()
    announce({"voice": voices.state})
    if options.voice == "on" and voices.voice is None:
        raise VoiceMissing(f"The simulator has no voice: {voices.state.removeprefix('unavailable: ')}.")


@dataclass(slots=True)
class _Waiting:
    """A fault of the whole simulator, with the occasions it still has: of this connection, if one is named."""

    fault: Fault
    left: int
    connection: int | None


class Simulator:
    """What the handlers share: options, voice, the sessions behind handles, and the conversations that run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.voices = VoiceBox()
        self.sockets: dict[int, LiveSocket] = {}
        self.frames: dict[int, Frames] = {}
        self.handles: Handles[SessionMemory] = Handles(life_s=options.pace.seconds(options.handle_life))
        self.tokens = Tokens()
        self.switches = options.switches
        self.started = time.time()
        self._connections = 0
        self._next: list[Fault] = []
        self._waiting: list[_Waiting] = []
        for planned in options.faults:
            if planned.fault.definition.place is Place.SIMULATOR:
                self._wait_for(planned.fault, planned.connection)
        for number, script in enumerate(() if options.scenario is None else options.scenario.connections):
            for planned in script.faults:
                if planned.fault.definition.place is Place.SIMULATOR:
                    single = options.scenario is not None and options.scenario.single
                    self._wait_for(planned.fault, None if single else number)

    def application(self) -> tornado.web.Application:
        application = tornado.web.Application(
            websocket_max_message_size=16 * 1024 * 1024,
            log_function=lambda handler: None,
            default_handler_class=Elsewhere,
        )
        shared = {"simulator": self}
        live = {**shared, "vertex": False, "constrained": False}
        # On loopback no other name leads here, unless a web page made its own name point to this machine.
        application.add_handlers(
            LOOPBACK if re.fullmatch(LOOPBACK, self.options.host) else ".*",
            [
                (LIVE_PATH, LiveSocket, live),
                (LIVE_PATH + "Constrained", LiveSocket, {**live, "constrained": True}),
                (VERTEX_PATH, LiveSocket, {**live, "vertex": True}),
                (MODELS_PATH, Models, shared),
                (MODELS_PATH + "/(.+)", OneModel, shared),
                (TOKENS_PATH, AuthTokens, shared),
                ("/status", Status, shared),
                ("/control", Control, shared),
                ("/frames", KeptFrames, shared),
            ],
        )
        return application

    # For a connection

    def next_number(self) -> int:
        self._connections += 1
        return self._connections - 1

    def script(self, number: int) -> Connection:
        scenario = self.options.scenario
        return Connection() if scenario is None else scenario.connection(number)

    def planned(self, number: int) -> list[Planned]:
        """The faults that this connection begins with or is to meet; those of `next` are used up by it."""
        planned = [each for each in self.options.faults if each.concerns(number)]
        planned += self.script(number).faults
        planned += map(Planned, self._next)
        self._next.clear()
        return [each for each in planned if each.fault.definition.place is not Place.SIMULATOR]

    def brain(self, number: int, setup: Setup, resumed: SessionMemory | None) -> Brain:
        """A session that is resumed keeps its own, unless its connections have a script each."""
        scenario = self.options.scenario
        if resumed is not None and (scenario is None or scenario.single):
            brain = resumed.brain.snapshot()
            if resumed.setup.declarations != setup.declarations:
                brain.declare(setup.declarations)
            return brain
        if scenario is not None:
            return ScenarioBrain(scenario.connection(number), self.voices)
        return ConversationBrain(self.voices, setup.declarations)

    def age(self, number: int, profile: Profile) -> Age:
        age = changed(age_of(profile.name, vertex=profile.vertex), self.options.age)
        return changed(age, self.script(number).age)

    def leaving(self, profile: Profile | None, told: Mapping[str, Any]) -> Age:
        """The age of a connection that is told now to go away."""
        age = age_of("", vertex=False) if profile is None else age_of(profile.name, vertex=profile.vertex)
        age = changed(age, told)
        return replace(age, limit=age.go_away or 0.0)

    def resume(self, handle: str, model: str, rules: Rules, number: int) -> Resumed[SessionMemory]:
        """Raises Refused."""
        refused = self._take("refuse_resume", number)
        if refused is not None:
            raise Refused(refused.value.close.reason, refused.value.close.code)
        return self.handles.resume(handle, model=model, rules=rules, now=asyncio.get_running_loop().time())

    def http_error(self) -> HttpError | None:
        """How the next upgrade is refused."""
        refused = self._take("http", self._connections)
        return None if refused is None else refused.value

    def key_problem(self, key: str | None) -> Refused | None:
        """Why this key is refused: one that starts with "invalid", or none where one is required."""
        if key is not None and key.startswith("invalid"):
            return Refused(INVALID_KEY)
        if not key and self.options.require_key:
            return Refused(NO_KEY, 1008)
        return None

    # From outside

    def cause(self, fault: Fault, connection: int | Literal["all", "next"] | None) -> list[int | str]:
        """Begins a fault, or ends it; where. Raises Mistake when it cannot come there.

        connection None: the usual place, which is every open connection for what happens in a conversation.
        """
        place = fault.definition.place
        if fault.name == "lose_handles":
            self.handles.forget()
            return []
        if place is Place.SIMULATOR:
            if isinstance(connection, int):
                raise Mistake("concerns all connections: leave the connection out", fault.name)
            self._waiting = [waiting for waiting in self._waiting if waiting.fault.name != fault.name]
            if fault.value is not None:
                self._wait_for(fault, None)
            return ["next"]
        if connection == "next" or (connection is None and place is Place.OPENING):
            self._next = [each for each in self._next if each.name != fault.name]
            if fault.value is not None:
                self._next.append(fault)
            return ["next"]
        if place is Place.OPENING:
            raise Mistake('acts at the setup, which is over here: use the connection "next"', fault.name)
        numbers = [number for number, socket in self.sockets.items() if socket.is_live]
        if isinstance(connection, int):
            if connection not in numbers:
                raise NotOpen(f"there is no open connection {connection}")
            numbers = [connection]
        if not numbers:
            raise NotOpen("there is no open connection")
        for number in numbers:
            self.sockets[number].apply(fault)
        return list(numbers)

    def status(self) -> dict[str, Json]:
        return {
            "simulator": True,
            "voice": self.voices.state,
            "models": [f"models/{name}" for name in PROFILES],
            "vertex_models": [f"publishers/google/models/{name}" for name in VERTEX_PROFILES],
            "uptime_s": round(time.time() - self.started, 3),
            "connections": self._connections,
            "handles": len(self.handles),
            "tokens": len(self.tokens),
            "faults": self.waiting_faults(),
            "conversations": [socket.status() for socket in self.sockets.values()],
        }

    def waiting_faults(self) -> dict[str, Json]:
        """What the next connections will meet."""
        return {
            **{each.fault.name: each.left for each in self._waiting},
            **{each.name: 1 for each in self._next},
        }

    async def close(self) -> None:
        for socket in list(self.sockets.values()):
            await socket.end()

    def _wait_for(self, fault: Fault, connection: int | None) -> None:
        self._waiting.append(_Waiting(fault, fault.value.times, connection))

    def _take(self, name: str, connection: int) -> Fault | None:
        for waiting in self._waiting:
            if waiting.fault.name == name and waiting.connection in (None, connection):
                waiting.left -= 1
                if not waiting.left:
                    self._waiting.remove(waiting)
                return waiting.fault
        return None


class _Method(tornado.web.RequestHandler):
    """A method of the Gemini API over HTTP, which pages of any origin may call, as on the service."""

    def initialize(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def set_default_headers(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "*")

    def options(self, *path: str) -> None:
        self.set_header("Access-Control-Allow-Headers", "*")
        self.set_header("Access-Control-Allow-Methods", "GET, POST")
        self.set_status(204)

    def _has_key(self) -> bool:
        problem = self._simulator.key_problem(key_of(self))
        if problem is not None:
            code, name = (400, "INVALID_ARGUMENT") if problem.code == 1007 else (403, "PERMISSION_DENIED")
            self._refuse(code, name, problem.reason)
        return problem is None

    def _refuse(self, code: int, name: str, message: str) -> None:
        self.set_status(code)
        self.write({"error": {"code": code, "message": message, "status": name}})


class Models(_Method):
    """ListModels of the Gemini API."""

    def get(self, version: str) -> None:
        if self._has_key():
            self.write({"models": [_listed(profile) for profile in PROFILES.values()]})


class OneModel(_Method):
    """GetModel of the Gemini API."""

    def get(self, version: str, name: str) -> None:
        if not self._has_key():
            return
        if name in PROFILES:
            self.write(_listed(PROFILES[name]))
        else:
            self._refuse(404, "NOT_FOUND", f"models/{name} is not found for API version {version}")


class AuthTokens(_Method):
    """CreateAuthToken of the Gemini API."""

    def post(self, version: str) -> None:
        if not key_of(self) or self._simulator.key_problem(key_of(self)) is not None:
            self._refuse(403, "PERMISSION_DENIED", NO_KEY)
            return
        try:
            token = self._simulator.tokens.create(json.loads(self.request.body or b"{}"), now=time.time())
        except ValueError as mistake:  # a Mistake, or not JSON at all
            self._refuse(400, "INVALID_ARGUMENT", str(mistake))
            return
        self.write({"name": token.name})


class Elsewhere(tornado.web.RequestHandler):
    """Every other path, and on loopback every other name."""

    def prepare(self) -> None:
        self.set_status(404)
        self.finish(
            {
                "error": {
                    "code": 404,
                    "message": "The simulator has nothing here. Its WebSocket is"
                    " /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent; it tells"
                    " about itself at /status. On loopback it answers to localhost, 127.0.0.1 and ::1 only.",
                    "status": "NOT_FOUND",
                }
            }
        )


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
