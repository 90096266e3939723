"""The server: its collaborators are built once, here, and passed down."""

from __future__ import annotations

import asyncio
import gc
import logging
import shlex
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_live import __version__
from tornado_live.access.authority import Certified, certified, server_context
from tornado_live.access.origins import Doors
from tornado_live.handlers import api, gemini, live, pages, tokens
from tornado_live.handlers import tools as tool_api
from tornado_live.handlers.door import House, log_request
from tornado_live.handlers.hello import PlainServer
from tornado_live.live.bridge import Collaborators
from tornado_live.live.embedded import EmbeddedSimulator
from tornado_live.live.registry import Registry
from tornado_live.live.upstream import GOOGLE, GeminiAddress, Patience, Upstream
from tornado_live.live.vertex import vertex_upstream
from tornado_live.observe.logs import Masker, configure, log_event
from tornado_live.observe.metrics import Metrics
from tornado_live.resources import require
from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Settings, is_loopback
from tornado_live.tools.loading import watch_tools
from tornado_live.tools.runner import ToolRunner
from tornado_live.tools.watching import WatchedCatalog

MAX_HEADERS = 16 * 1024
MAX_READ = 1024 * 1024
"""Where reading a body stops; api.py refuses what is over its own, smaller cap, and says so."""
BODY_S = 10
IDLE_CONNECTION_S = 120
TOUCH_S = 60.0
GC_THRESHOLD = 20_000
"""Messages make many short-lived objects and no cycles; collecting after every 700 costs more than it frees."""

_log = logging.getLogger("tornado_live")


@dataclass(frozen=True)
class Parts:
    """What every route is built from."""

    settings: Settings
    store: SessionStore
    registry: Registry
    tools: WatchedCatalog
    runner: ToolRunner
    metrics: Metrics
    started_at: float


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets of PORT, WS_PORT and TLS_PORT, none where it is off."""

    main: Sequence[socket.socket]
    websocket: Sequence[socket.socket]
    tls: Sequence[socket.socket]

    @property
    def plain_ports(self) -> tuple[int, ...]:
        return tuple(_port(listeners) for listeners in (self.main, self.websocket) if listeners)

    @property
    def tls_ports(self) -> tuple[int, ...]:
        return (_port(self.tls),) if self.tls else ()


def make_app(
    parts: Parts, *, ports: Sequence[int], tls_ports: Sequence[int] = (), main: bool, over_tls: bool = False
) -> Application:
    """The routes of `PORT` and `TLS_PORT` (`main`), or of `WS_PORT`, where the native WebSocket is at `/` too.

    `ports` and `tls_ports` are those that were bound; the pages may open sockets to them.
    """
    settings = parts.settings
    doors = Doors(
        settings.allowed_origins,
        settings.allowed_hosts,
        ports,
        own_tls_ports=tls_ports,
        over_tls=over_tls,
        public_url=settings.public_url,
        missing_origin=is_loopback(settings.host),
    )
    house = House(doors, parts.metrics, tuple(ports), tuple(tls_ports))
    rest = api.Rest(
        house=house,
        settings=settings,
        store=parts.store,
        running=parts.registry,
        catalog=lambda: parts.tools.current,
        tools_error=lambda: parts.tools.error,
        started_at=parts.started_at,
    )
    tool_routes = tool_api.ToolRoutes(house, settings, parts.store, lambda: parts.tools.current, parts.runner)
    sockets = live.Live(house, parts.store, parts.registry, settings.limits)
    routes = live.routes(sockets, r"/ws")
    if main:
        routes += tokens.routes(house, parts.store if settings.drop_in.enabled else None)
        routes += gemini.routes(sockets, settings)
    if main:
        routes += tool_api.routes(tool_routes) + api.routes(rest) + pages.routes(house, require("static"))
    else:
        routes += live.routes(sockets, r"/")
    return Application(
        routes,
        default_handler_class=api.NoSuchRouteHandler,
        default_handler_args={"rest": rest},
        log_function=log_request,
    )


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, and leaves with every session stored.

    Raises ConfigError for a tools.yaml or session store that cannot be used, OSError for a port that is taken.
    """
    started_at = time.monotonic()
    masker = configure(settings.log_level, sys.stderr)
    if settings.gemini_api_key is not None:
        masker.mask(settings.gemini_api_key.get_secret_value())
    for warning in settings.warnings:
        log_event(_log, "settings_warning", level=logging.WARNING, message=warning)
    secured = _secured(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _parts(settings, masker, started_at) as parts:
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, parts.tools.reload)
        with _listening(settings) as listening:
            servers = []
            for listeners, is_main, context in (
                (listening.main, True, None),
                (listening.websocket, False, None),
                (listening.tls, True, secured.context if secured is not None else None),
            ):
                app = make_app(
                    parts,
                    ports=listening.plain_ports,
                    tls_ports=listening.tls_ports,
                    main=is_main,
                    over_tls=context is not None,
                )
                server = _server(app, context)
                server.add_sockets(listeners)
                servers.append(server)
            _announce(settings, listening, secured)
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 50)
            await stop.wait()
            log_event(_log, "stopping", conversations=parts.registry.count)
            for server in servers:
                server.stop()
                await server.close_all_connections()


def _server(app: Application, context: ssl.SSLContext | None) -> HTTPServer:
    kind = PlainServer if context is None else HTTPServer
    return kind(
        app,
        ssl_options=context,
        max_header_size=MAX_HEADERS,
        max_body_size=MAX_READ,
        body_timeout=BODY_S,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )


@asynccontextmanager
async def _parts(settings: Settings, masker: Masker, started_at: float) -> AsyncIterator[Parts]:
    """Everything behind the routes, in working order; taken down in the opposite order."""
    limits = settings.limits
    metrics = Metrics()
    tools = watch_tools(
        settings,
        masker,
        counted=metrics.tools_reloaded,
        warn=lambda message: registry.warn("tools_reload_failed", message),  # heard only once it has started
    )
    async with asyncio.TaskGroup() as owned:
        simulator = EmbeddedSimulator(settings.simulator) if settings.upstream == "simulator" else None
        supervisor = owned.create_task(simulator.run()) if simulator is not None else None
        store = await SqliteSessionStore.open(
            settings.data_dir / "sessions.db",
            ttl_s=limits.session_ttl_s,
            memory_messages=limits.memory_messages,
            memory_message_bytes=limits.memory_message_bytes,
            memory_bytes=limits.memory_bytes,
        )
        runner = ToolRunner(mock=settings.mock_tools)
        touch_s = min(TOUCH_S, limits.session_ttl_s / 3)
        upstream = _upstream(settings, simulator)
        shared = Collaborators(store, runner, metrics, upstream, touch_s, limits.setup_timeout_s)
        registry = Registry(settings, shared, lambda: tools.current)
        tools.start()
        try:
            yield Parts(settings, store, registry, tools, runner, metrics, started_at)
        finally:
            await tools.close()
            await registry.close()
            await runner.close()
            await store.close()
            if supervisor is not None:
                supervisor.cancel()


def _upstream(settings: Settings, simulator: EmbeddedSimulator | None) -> Upstream:
    limits = settings.limits
    key, trust = settings.gemini_api_key, ssl.create_default_context()
    patience = Patience(limits.setup_timeout_s, limits.upstream_ping_s, limits.upstream_pong_s)
    if settings.vertex is not None:
        return vertex_upstream(
            settings.vertex, key, settings.api_version, settings.gemini_base_url, trust, patience
        )
    address = simulator or GeminiAddress(settings.gemini_base_url or GOOGLE)
    if simulator is not None:
        key = None
    return Upstream(address, key, settings.api_version, trust, patience=patience)


def _secured(settings: Settings) -> Certified | None:
    """What TLS_PORT shows: the operator's own certificate, or one of ours; None where it is off."""
    if settings.tls_port is None:
        return None
    if settings.tls_cert is None:
        return certified(settings.data_dir, settings.allowed_hosts)
    context = server_context()
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return Certified(context)


@contextmanager
def _listening(settings: Settings) -> Iterator[Listening]:
    """Raises OSError, with no socket left open."""
    with ExitStack() as opened:
        bound: list[list[socket.socket]] = []
        for port in (settings.port, settings.ws_port, settings.tls_port):
            sockets = [] if port is None else bind_sockets(port, settings.host)
            for one in sockets:
                opened.callback(one.close)
            bound.append(sockets)
        yield Listening(*bound)


def _announce(settings: Settings, listening: Listening, secured: Certified | None) -> None:
    """The addresses, for the person at the terminal."""
    log_event(_log, "started", version=__version__, upstream=settings.upstream, home=str(settings.home))
    simulated = (
        "SIMULATOR: there is no Gemini key, so the built-in simulator answers."
        " Put GEMINI_API_KEY into .env to talk to Gemini."
    )
    if settings.upstream == "simulator":
        log_event(_log, "simulator_answers", level=logging.WARNING, message=simulated)
        print(simulated, flush=True)
    if listening.main:
        print(f"tornado-live is listening on http://{_shown(settings.host, listening.main)}", flush=True)
    if listening.websocket:
        address = f"ws://{_shown(settings.host, listening.websocket)}"
        print(f"WebSocket of the original protocol on {address}", flush=True)
    if listening.tls:
        print(f"The same over TLS on https://{_shown(settings.host, listening.tls)}", flush=True)
    if secured is not None and secured.authority is not None:
        authority = shlex.quote(str(secured.authority))
        print(
            "The certificate is of an authority of this server's own. Programs trust it when started after\n"
            f"  export SSL_CERT_FILE={authority}    # Python\n"
            f"  export NODE_EXTRA_CA_CERTS={authority}    # Node\n"
            f"It signs for {', '.join(secured.names)} only.",
            flush=True,
        )


def _port(listeners: Sequence[socket.socket]) -> int:
    port: int = listeners[0].getsockname()[1]
    return port


def _shown(host: str, listeners: Sequence[socket.socket]) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{name}:{_port(listeners)}"
