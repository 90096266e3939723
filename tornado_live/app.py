"""The server: its collaborators are built once, here, and passed down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tornado.httpserver import HTTPServer
from tornado.web import Application

from tornado_live import __version__
from tornado_live.access.authority import Certified, certified, server_context
from tornado_live.access.identity import Identity
from tornado_live.access.leases import Leases
from tornado_live.access.openness import openness
from tornado_live.access.origins import Doors
from tornado_live.access.proxies import Proxies
from tornado_live.errors import Unavailable
from tornado_live.handlers import api, gemini, live, pages, tokens
from tornado_live.handlers import tools as tool_api
from tornado_live.handlers.accepting import Accepting, room
from tornado_live.handlers.deadlines import TimedServer
from tornado_live.handlers.door import MAX_BODY, House, log_request
from tornado_live.handlers.gate import Gate
from tornado_live.handlers.hello import PlainServer
from tornado_live.handlers.paths import Paths, under
from tornado_live.handlers.rules import ruled
from tornado_live.listening import Ports, addresses, taken
from tornado_live.live.bridge import Collaborators
from tornado_live.live.embedded import EmbeddedSimulator, SimulatorAddress
from tornado_live.live.metering import Metering
from tornado_live.live.registry import Registry
from tornado_live.live.upstream import GOOGLE, GeminiAddress, Patience, Upstream
from tornado_live.live.vertex import vertex_upstream
from tornado_live.notify import notifying
from tornado_live.observe.logs import Masker, configure, log_event
from tornado_live.observe.metrics import Counters, Metrics
from tornado_live.resources import require
from tornado_live.sessions.opening import open_store
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Settings, is_loopback
from tornado_live.tools.loading import watch_tools
from tornado_live.tools.runner import ToolRunner
from tornado_live.tools.watching import WatchedCatalog

MAX_HEADERS = 16 * 1024
GOODBYE_S = 2.0
"""For clients to answer the close of their conversation."""
IDLE_CONNECTION_S = 120
STOPPING = "Stopping: whoever talks may end the turn, {:g} s at most. Ctrl+C once more ends at once."
TOUCH_S = 60.0
GC_THRESHOLD = 20_000
"""Messages make many short-lived objects and no cycles; collecting after every 700 costs more than it frees."""

_log = logging.getLogger("tornado_live")


@dataclass(frozen=True, slots=True)
class Orders:
    """To end in order, or to end at once."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)

    def obey_signals(self) -> None:
        """The first SIGTERM or SIGINT is to end in order, the second at once."""

        def ended() -> None:
            (self.now if self.stop.is_set() else self.stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended)


@dataclass(frozen=True, slots=True)
class Share:
    """One of several processes that share `ports` (processes.py).

    `serving` hears what is to be told to the person at the terminal. `simulator` is run by another process.
    `leaves`: the others go on, so that those who come are for them.
    """

    counters: Counters
    ports: Ports
    simulator: SimulatorAddress | None
    orders: Orders
    serving: Callable[[Sequence[str]], None]
    leaves: Callable[[], bool]


@dataclass(frozen=True)
class Parts:
    """What every route is built from."""

    settings: Settings
    store: SessionStore
    registry: Registry
    tools: WatchedCatalog
    runner: ToolRunner
    metrics: Metrics
    identity: Identity
    gate: Gate
    started_at: float


def make_app(parts: Parts, *, ports: Sequence[int], tls_ports: Sequence[int] = (), main: bool) -> Application:
    """The routes of `PORT` and `TLS_PORT` (`main`), below the base path and without it; or of `WS_PORT`, where the
    native WebSocket is at `/` too.

    `ports` and `tls_ports` are those that were bound; the pages may open sockets to them.
    """
    settings = parts.settings
    doors = Doors(
        settings.allowed_origins,
        settings.allowed_hosts,
        ports,
        own_tls_ports=tls_ports,
        public_url=settings.public_url,
        missing_origin=is_loopback(settings.host) and not settings.auth.modes,
    )
    house = House(
        doors,
        parts.metrics,
        tuple(ports),
        tuple(tls_ports),
        parts.registry.node[:8],
        proxies=Proxies(settings.trusted_proxies),
        paths=Paths.of(settings.base_path, settings.public_url),
        identity=parts.identity,
        gate=parts.gate,
    )
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
        routes += tool_api.routes(tool_routes) + api.routes(rest)
        routes = under(house.paths.served, routes) + routes + pages.routes(house, require("static"))
    else:
        routes += live.routes(sockets, r"/", "socket_alone")
    return Application(
        list(ruled(routes)),
        default_handler_class=api.NoSuchRouteHandler,
        default_handler_args={"rest": rest},
        log_function=log_request,
    )


async def serve(settings: Settings, share: Share | None = None) -> None:
    """Runs until SIGTERM or SIGINT, with a `share` until its orders, and leaves with every session stored.

    Raises ConfigError for a tools.yaml or session store that cannot be used, OSError for a port that is taken.
    """
    started_at = time.monotonic()
    # The folder of transcripts is its owner's, whoever is the first to write into it.
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    masker = logged(settings, process=share.counters.process if share is not None else None)
    secured = _secured(settings)
    if share is None:
        orders = Orders()
        orders.obey_signals()
    else:
        orders = share.orders
    asked = (
        settings.process_environment if share is None else {}
    )  # with others their first process speaks for all
    async with notifying(asked) as notify, _parts(settings, masker, started_at, share) as parts:
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, settings, parts, secured)
        with taken(settings, share.ports if share is not None else None) as listening:
            registry, metrics = parts.registry, parts.metrics
            accepting = Accepting(room(), lines=lambda: registry.model_lines, paused=metrics.accept_paused)
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
                )
                server = _server(app, context)
                accepting.add(server, listeners)
                servers.append(server)
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 50)
            metrics.serves()
            lines = addresses(settings, listening, secured)
            if share is None:
                announce(settings, lines)
                notify.ready()
            else:
                share.serving(lines)
            await orders.stop.wait()
            notify.stopping()
            log_event(_log, "stopping", conversations=parts.registry.count)
            if share is None and parts.registry.count and settings.limits.drain_s:
                print(STOPPING.format(settings.limits.drain_s), flush=True)
            if share is not None and share.leaves():
                accepting.close()
                for listener in (*listening.main, *listening.websocket, *listening.tls):
                    listener.close()
            await _end_conversations(parts.registry, settings.limits.drain_s, orders)
            accepting.close()
            for server in servers:
                server.stop()
                await server.close_all_connections()


async def _end_conversations(registry: Registry, drain_s: float, orders: Orders) -> None:
    """In order: those who come are sent elsewhere meanwhile. What is left after the time, or the second order, is
    cut."""
    if drain_s:
        async with asyncio.TaskGroup() as owned:
            draining = owned.create_task(registry.drain(drain_s))
            at_once = owned.create_task(orders.now.wait())
            await asyncio.wait(
                (draining, at_once), timeout=drain_s + GOODBYE_S, return_when=asyncio.FIRST_COMPLETED
            )
            draining.cancel()
            at_once.cancel()
    await registry.close(0.2 if orders.now.is_set() else GOODBYE_S)


def _reload(settings: Settings, parts: Parts, secured: Certified | None) -> None:
    """tools.yaml, and the operator's own certificate: new connections get it."""
    parts.tools.reload()
    if secured is None or settings.tls_cert is None:
        return
    try:
        server_context().load_cert_chain(
            settings.tls_cert, settings.tls_key
        )  # a bad one would spoil the live one
        secured.context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # of which ssl.SSLError is one
        log_event(_log, "certificate_refused", level=logging.ERROR, error=error, file=settings.tls_cert)
        return
    log_event(_log, "certificate_loaded", file=settings.tls_cert)


def logged(settings: Settings, *, process: int | None) -> Masker:
    """Begins this process's log, without the secrets known so far, with what is to be said of the settings."""
    masker = configure(settings.log_level, sys.stderr, process=process)
    for secret in (settings.gemini_api_key, settings.auth.jwt_secret):
        if secret is not None:
            masker.mask(secret.get_secret_value())
    for warning in settings.warnings:
        log_event(_log, "settings_warning", level=logging.WARNING, message=warning)
    return masker


def _server(app: Application, context: ssl.SSLContext | None) -> HTTPServer:
    kind = PlainServer if context is None else TimedServer
    return kind(
        app,
        ssl_options=context,
        max_header_size=MAX_HEADERS,
        max_body_size=MAX_BODY,
        idle_connection_timeout=IDLE_CONNECTION_S,
    )


@asynccontextmanager
async def _parts(
    settings: Settings, masker: Masker, started_at: float, share: Share | None
) -> AsyncIterator[Parts]:
    """Everything behind the routes, in working order; taken down in the opposite order."""
    limits = settings.limits
    metrics = Metrics(share.counters if share is not None else None)
    tools = watch_tools(
        settings,
        masker,
        counted=metrics.tools_reloaded,
        warn=lambda message: registry.warn("tools_reload_failed", message),  # heard only once it has started
    )
    async with asyncio.TaskGroup() as owned:
        simulator = share.simulator if share is not None else None
        supervisor = None
        if settings.upstream == "simulator" and share is None:
            simulator = SimulatorAddress()
            supervisor = owned.create_task(EmbeddedSimulator(settings.simulator, simulator.tell).run())
        store = await open_store(settings, mask=masker.mask)
        leases = Leases(store)
        runner = ToolRunner(mock=settings.mock_tools, left_behind=metrics.handlers_left_behind)
        touch_s = min(TOUCH_S, limits.session_ttl_s / 3)
        upstream = _upstream(settings, simulator)
        shared = Collaborators(
            store,
            runner,
            metrics,
            upstream,
            touch_s,
            limits.setup_timeout_s,
            node=secrets.token_hex(8),
            metering=Metering(store, leases, limits),
            heartbeat_s=limits.heartbeat_s,
        )
        identity = Identity(settings.auth, store, assistants=settings.assistants)
        registry = Registry(settings, shared, lambda: tools.current, identity)
        following = owned.create_task(registry.follow())
        tools.start()
        try:
            await registry.heard()
            gate = Gate(limits, leases)
            yield Parts(settings, store, registry, tools, runner, metrics, identity, gate, started_at)
        finally:
            await tools.close()
            await registry.close(GOODBYE_S)
            following.cancel()
            await runner.close()
            await leases.close()
            with contextlib.suppress(Unavailable):
                await store.leave(registry.node)
            await store.close()
            if supervisor is not None:
                supervisor.cancel()


def _upstream(settings: Settings, simulator: SimulatorAddress | None) -> Upstream:
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


def announce(settings: Settings, addresses: Sequence[str]) -> None:
    """That the server is there, for the log and for the person at the terminal."""
    facts = {"version": __version__, "upstream": settings.upstream, "home": str(settings.home)}
    log_event(_log, "started", facts | ({"processes": settings.processes} if settings.processes > 1 else {}))
    simulated = (
        "SIMULATOR: there is no Gemini key, so the built-in simulator answers."
        " Put GEMINI_API_KEY into .env to talk to Gemini."
    )
    if settings.upstream == "simulator":
        log_event(_log, "simulator_answers", level=logging.WARNING, message=simulated)
        print(simulated, flush=True)
    for line in (*addresses, *openness(settings)):
        print(line, flush=True)
