"""The command line: `tornado-live` and `python -m tornado_live`."""

from __future__ import annotations

import asyncio
import errno
import os
import runpy
import shlex
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tornado_live import __version__
from tornado_live.deploy.remedies import PROXIES
from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.settings import Settings, load_settings, print_config

if TYPE_CHECKING:
    from tornado_live.tools.catalog import ToolCatalog

_Result = TypeVar("_Result")

cli = typer.Typer(
    name="tornado-live",
    help="A gateway between people who talk and the Gemini Live API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
tools = typer.Typer(help="The tools of tools.yaml.", no_args_is_help=True, rich_markup_mode=None)
cli.add_typer(tools, name="tools")
knowledge = typer.Typer(
    help="The documents that the assistant searches.", no_args_is_help=True, rich_markup_mode=None
)
cli.add_typer(knowledge, name="knowledge")
deploy = typer.Typer(help="The way from people to the server.", no_args_is_help=True, rich_markup_mode=None)
cli.add_typer(deploy, name="deploy")
token = typer.Typer(
    help="API keys, and who is kept out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cli.add_typer(token, name="token")

Home = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Directory of tools.yaml, config/, .env and data/; else the current one.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings file; else config/development.yaml.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. limits.grace_s=60.")
]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; else 127.0.0.1.")]
Port = Annotated[
    str | None,
    typer.Option(metavar="PORT", help="Page, REST and WebSocket: a port, 0 (any), off; else 3001."),
]
WsPort = Annotated[
    str | None,
    typer.Option(metavar="PORT", help="WebSocket of the original protocol: as above; else 3002."),
]
TlsPort = Annotated[
    str | None, typer.Option(metavar="PORT", help="What the first port serves, over TLS: as above; else off.")
]
TlsSelfSigned = Annotated[
    bool,
    typer.Option(
        "--tls-self-signed", help="Make the certificate for it, with an authority that clients are to trust."
    ),
]
Processes = Annotated[
    str | None, typer.Option(metavar="N", help="Server processes that share the ports; else 1.")
]
Upstream = Annotated[
    str | None, typer.Option(metavar="auto|gemini|simulator", help="Who answers; else auto.")
]
MockTools = Annotated[
    str | None,
    typer.Option(metavar="auto|always|unreachable|never", help="When sample data answers; else auto."),
]
As = Annotated[
    Path | None,
    typer.Option(
        "--as", metavar="FILE", help="The caller: the claims of a token, as JSON; else the operator."
    ),
]
Voice = Annotated[str | None, typer.Option(metavar="auto|on|off", help="The simulator's voice; else auto.")]
Scenario = Annotated[Path | None, typer.Option(metavar="FILE", help="YAML script for the simulator.")]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Show every setting and where it came from, then stop.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@cli.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A gateway between people who talk and the Gemini Live API."""


@cli.command()
def serve(
    home: Home = Path(),
    config: Config = None,
    host: Host = None,
    port: Port = None,
    ws_port: WsPort = None,
    tls_port: TlsPort = None,
    tls_self_signed: TlsSelfSigned = False,
    processes: Processes = None,
    upstream: Upstream = None,
    mock_tools: MockTools = None,
    voice: Voice = None,
    scenario: Scenario = None,
    set_: Set = None,
    print_config_: PrintConfig = False,
) -> None:
    """Start the server; Ctrl+C stops it."""
    settings = _settings(
        home,
        config,
        set_,
        {
            "host": host,
            "port": port,
            "ws_port": ws_port,
            "tls_port": tls_port,
            "tls_self_signed": "true" if tls_self_signed else None,
            "processes": processes,
            "upstream": upstream,
            "mock_tools": mock_tools,
            "simulator.voice": voice,
            # relative to where it was typed, not to the home directory
            "simulator.scenario": None if scenario is None else str(scenario.absolute()),
        },
    )
    if print_config_:
        print(print_config(settings))
        _print_warnings(settings)
        return
    try:
        if settings.processes > 1:
            from tornado_live.processes import supervise

            raise SystemExit(_run(supervise(settings)))
        from tornado_live.app import serve as run_server

        _run(run_server(settings))
    except Exception as error:
        cause = _only_cause(error)
        if isinstance(cause, OSError):
            cause = _cannot_listen(cause, settings)
        if isinstance(cause, ConfigError):
            raise cause from error
        raise


@cli.command(hidden=True)
def process(channel: int) -> None:
    """One of the processes of `serve`, which starts it."""
    from tornado_live.processes import Child

    child = Child(channel)
    try:
        _run(child.serve())
    except Exception as error:
        cause = _only_cause(error)
        if not isinstance(cause, ConfigError):
            raise
        child.refuse(cause.problems)
        raise SystemExit(2) from None


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
def dev(context: typer.Context) -> None:
    """As serve, and start anew when a file is saved."""
    from tornado_live.reload import serve_and_reload

    # Shows the help, and refuses what `serve` would refuse, since no file that is saved can mend that.
    same = typer.Typer(add_completion=False, rich_markup_mode=None)
    same.command(help="Start the server, and start it anew whenever a file is saved; Ctrl+C stops it.")(serve)
    typer.main.get_command(same).make_context(context.command_path, [*context.args])
    raise SystemExit(serve_and_reload(context.args))


@cli.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
def simulate(context: typer.Context) -> None:
    """Run the simulator alone, for any client of the Gemini Live API."""
    sys.argv = ["tornado-live simulate", *context.args]
    runpy.run_module("tornado_live.simulator", run_name="__main__", alter_sys=True)


@tools.command("list")
def list_tools(home: Home = Path(), config: Config = None, set_: Set = None) -> None:
    """Name, parameters and description of every tool."""
    from tornado_live.tools import commands

    raise SystemExit(commands.list_tools(_catalog(_settings(home, config, set_)), sys.stdout))


@tools.command("check")
def check_tools(
    as_json: Annotated[bool, typer.Option("--json", help="Only the mistakes, as a JSON list.")] = False,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """Look for mistakes in tools.yaml without starting anything."""
    from tornado_live.tools import commands
    from tornado_live.tools.loading import toolset_problems

    settings = _settings(home, config, set_)
    code = commands.check_tools(
        _tools_file(settings),
        home=settings.home,
        data_dir=settings.data_dir,
        environment=settings.environment,
        out=sys.stdout,
        handler_prefixes=settings.handler_prefixes,
        toolset_problems=lambda catalog: toolset_problems(settings, catalog),
        as_json=as_json,
    )
    raise SystemExit(code)


@tools.command("show")
def show_tool(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A Live model; else gemini_live_model of the settings."),
    ] = None,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """Print the declaration of a tool as Gemini gets it."""
    from tornado_live.tools import commands

    settings = _settings(home, config, set_)
    facts = settings.models.of(model or settings.gemini_live_model)
    among = settings.models.names if model is not None else ()
    raise SystemExit(commands.show_tool(_catalog(settings), name, facts, sys.stdout, among=among))


@tools.command("plan")
def plan_tools(as_: As = None, home: Home = Path(), config: Config = None, set_: Set = None) -> None:
    """Tell what a caller could reach: tools, hosts, tables, bound values."""
    from tornado_live.tools import commands

    caller = commands.caller_from(as_)
    raise SystemExit(commands.plan_tools(_catalog(_settings(home, config, set_)), caller, sys.stdout))


@tools.command("test")
def run_examples(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Tools; else all.")] = None,
    as_: As = None,
    home: Home = Path(),
    config: Config = None,
    mock_tools: MockTools = None,
    set_: Set = None,
) -> None:
    """Run the examples of the tools and compare what they answer."""
    from tornado_live.tools import commands

    settings = _settings(home, config, set_, {"mock_tools": mock_tools})
    tested = commands.run_examples(
        _catalog(settings),
        names or (),
        mock=settings.mock_tools,
        out=sys.stdout,
        caller=commands.caller_from(as_),
    )
    raise SystemExit(_run(tested))


@tools.command("call")
def call_tool(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool.")],
    arguments: Annotated[str, typer.Argument(metavar="JSON", help="Its arguments.")] = "{}",
    as_: As = None,
    home: Home = Path(),
    config: Config = None,
    mock_tools: MockTools = None,
    set_: Set = None,
) -> None:
    """Run one tool as the model would and print its answer."""
    from tornado_live.tools import commands

    settings = _settings(home, config, set_, {"mock_tools": mock_tools})
    call = commands.call_tool(
        _catalog(settings),
        name,
        arguments,
        mock=settings.mock_tools,
        out=sys.stdout,
        caller=commands.caller_from(as_),
    )
    raise SystemExit(_run(call))


KnowledgeSource = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="A documents source; else all of them.")
]


@knowledge.command("index")
def index_knowledge(
    source: KnowledgeSource = None,
    anew: Annotated[bool, typer.Option("--anew", help="Forget the index and read every file.")] = False,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """Read what was added or changed, and tell what was left out."""
    from tornado_live.tools.knowledge import commands

    catalog = _catalog(_settings(home, config, set_))
    raise SystemExit(commands.make_index(catalog, source, anew=anew, out=sys.stdout))


@knowledge.command("search")
def search_knowledge(
    query: Annotated[str, typer.Argument(metavar="WORDS", help="What a person would ask.")],
    source: KnowledgeSource = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=20, help="How many passages.")] = 5,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """The passages that answer a question best, with their file and heading."""
    from tornado_live.tools.knowledge import commands

    catalog = _catalog(_settings(home, config, set_))
    raise SystemExit(commands.find(catalog, query, source, limit, out=sys.stdout))


@cli.command()
def doctor(
    home: Home = Path(),
    config: Config = None,
    upstream: Upstream = None,
    set_: Set = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the real service what is not known of it; costs money.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="With --probe: at most so long; else 3.")
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(metavar="USD", help="With --probe: at most so much; else 0.10.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --probe: where its recordings go; else data/probe-…."),
    ] = None,
    production: Annotated[
        bool, typer.Option("--production", help="Look whether a server that runs is shut where it should be.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --production: what people type; else PUBLIC_URL."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="TORNADO_LIVE_TOKEN",
            help="With --production: a credential, to try whether it opens.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --production: authorities to trust as well, as PEM."),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65535, help="With --production: where http:// leads to https; else 80."
        ),
    ] = None,
) -> None:
    """Open one conversation step by step, and say what to mend."""
    if probe and production:
        raise ConfigError([Problem("command line", None, "--probe", "and --production exclude each other")])
    belongings: Mapping[str, Mapping[str, object]] = {
        "--probe": {"--minutes": minutes, "--max-usd": max_usd, "--recordings": recordings},
        "--production": {"--url": url, "--ca": ca, "--http-port": http_port},
    }
    for asked_for, mode in ((probe, "--probe"), (production, "--production")):
        for option, value in belongings[mode].items():
            if value is not None and not asked_for:
                raise ConfigError([Problem("command line", None, option, f"belongs to {mode}")])
    settings = _settings(home, config, set_, {"upstream": upstream})
    _print_warnings(settings)
    if production:
        from tornado_live.deploy import production as checklist
        from tornado_live.deploy.target import target_of

        target = checklist.address_of(settings) if url is None else target_of(url)
        examined = checklist.examine(
            settings, target, _say, token=token, ca=ca, http_port=80 if http_port is None else http_port
        )
        raise SystemExit(_run(examined))
    if probe:
        from tornado_live.doctor.line import Limits
        from tornado_live.doctor.probe import probe as ask

        asked = Limits()
        limits = Limits(
            asked.minutes if minutes is None else minutes, asked.max_usd if max_usd is None else max_usd
        )
        raise SystemExit(_run(ask(settings, limits, _say, recordings=recordings)))
    from tornado_live.doctor.checks import examine

    raise SystemExit(_run(examine(settings, _say)))


def _say(line: str) -> None:
    """At once, also into a pipe: a probe takes minutes."""
    print(line, flush=True)


@deploy.command("check")
def check_deployment(
    url: Annotated[str, typer.Argument(metavar="URL", help="What people type: https://example.com/voice.")],
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authorities to trust as well, as PEM.")
    ] = None,
    idle: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=3600, help="How long to be silent; 0: not at all.")
    ] = 75.0,
    http_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Where http:// leads to https.")
    ] = 80,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="|".join(PROXIES), help="Whose lines to print; else by its answers, or nginx."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="To send with every request.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="TORNADO_LIVE_TOKEN", help="A credential, where the server asks for one."
        ),
    ] = None,
) -> None:
    """Open real connections through the proxy, and say which lines to change."""
    from tornado_live.deploy.check import check
    from tornado_live.deploy.target import target_of

    headers = {}
    for line in header or ():
        name, colon, value = line.partition(":")
        if not (colon and name.strip()):
            raise ConfigError([Problem("command line", None, "--header", "is written 'NAME: VALUE'")])
        headers[name.strip()] = value.strip()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if proxy is not None and proxy not in PROXIES:
        known = f"is one of {', '.join(PROXIES)}{nearest(proxy, PROXIES)}"
        raise ConfigError([Problem("command line", None, "--proxy", known)])
    checked = check(
        target_of(url), _say, ca=ca, idle_s=idle, http_port=http_port, proxy=proxy, headers=headers
    )
    raise SystemExit(_run(checked))


@token.command("create")
def create_key(
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called here, to find it again.")],
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="Whom it acts for; else a user of its own.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="operator, backend, or one that tools ask for.")
    ] = None,
    assistant: Annotated[
        str | None, typer.Option(metavar="NAME", help="The only assistant that it may use; else any.")
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="90d", help="When it ends; else never.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A limit of its own, e.g. cost_per_day=5.")
    ] = None,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """Make an API key, and print it once."""
    from tornado_live.access.commands import Asked, create

    asked = Asked(name, user, role or (), assistant, expires, limit or ())
    raise SystemExit(_run(create(_settings(home, config, set_), asked, sys.stdout, sys.stderr)))


@token.command("list")
def list_keys(home: Home = Path(), config: Config = None, set_: Set = None) -> None:
    """The API keys that have not ended, what they may, and until when."""
    from tornado_live.access.commands import show_all

    raise SystemExit(_run(show_all(_settings(home, config, set_), sys.stdout, sys.stderr)))


@token.command("revoke")
def revoke_key(
    key: Annotated[
        str | None, typer.Argument(metavar="[ID|NAME]", help="An API key.", show_default=False)
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Or everybody who comes as USER.")] = None,
    jti: Annotated[str | None, typer.Option(metavar="JTI", help="Or the signed token with this jti.")] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="24h", help="With --user and --jti: for how long; else 24h."),
    ] = None,
    home: Home = Path(),
    config: Config = None,
    set_: Set = None,
) -> None:
    """Let nobody in with a key, or as a user, and send away who is."""
    from tornado_live.access.commands import BLOCKED, block, revoke

    blocked = {kind: name for kind, name in (("user", user), ("jwt", jti)) if name is not None}
    if (key is None) == (not blocked):
        message = "takes the id or name of a key, or --user, or --jti (tornado-live token list)"
        raise ConfigError([Problem("command line", None, "revoke", message)])
    settings = _settings(home, config, set_)
    if key is None:
        raise SystemExit(_run(block(settings, blocked, for_ or BLOCKED, sys.stdout, sys.stderr)))
    if for_ is not None:
        raise ConfigError([Problem("command line", None, "--for", "belongs to --user and --jti")])
    raise SystemExit(_run(revoke(settings, key, sys.stdout, sys.stderr)))


@cli.command()
def init(home: Home = Path()) -> None:
    """Put tools.yaml, config/, knowledge/ and .env here, to edit."""
    from tornado_live.resources import give

    home = home.expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, written in give(home):
            print(
                f"{'wrote' if written else 'kept '} {home / name}{'' if written else ' (it was there already)'}"
            )
    except OSError as error:
        reason = f"{error.filename or home} cannot be written: {error.strerror or error}"
        raise ConfigError([Problem("command line", None, "init", reason)]) from error
    option = "" if home == Path.cwd() else f" --home {shlex.quote(str(home))}"
    print(f"Now edit them, put your key into .env, and run: tornado-live serve{option}")


@cli.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _settings(
    home: Path,
    config: Path | None,
    set_: list[str] | None,
    flags: Mapping[str, str | None] | None = None,
) -> Settings:
    overrides: dict[str, str] = {}
    for item in set_ or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise ConfigError([Problem("command line", None, "--set", f'"{item}" is not NAME=VALUE')])
        overrides[name.strip()] = value.strip()
    overrides |= {name: value for name, value in (flags or {}).items() if value is not None}
    return load_settings(home=home, config=config, environ=os.environ, overrides=overrides)


def _tools_file(settings: Settings) -> Path:
    if settings.tools_file is None:
        raise ConfigError([Problem("tools.yaml", None, "", f"there is none in {settings.home}")])
    return settings.tools_file


def _catalog(settings: Settings) -> ToolCatalog:
    from tornado_live.tools.catalog import load_catalog

    return load_catalog(
        _tools_file(settings),
        home=settings.home,
        data_dir=settings.data_dir,
        environment=settings.environment,
        handler_prefixes=settings.handler_prefixes,
    )


def _print_warnings(settings: Settings) -> None:
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _run(main: Coroutine[object, object, _Result]) -> _Result:
    """On uvloop where it exists (not on Windows), which the audio path was measured with."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _only_cause(error: Exception) -> Exception:
    """What a task group was ended by, where it was one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _cannot_listen(error: OSError, settings: Settings) -> Exception:
    """What a person can do about a port that is not to be had; any other error as it is."""
    if error.errno == errno.EADDRNOTAVAIL:
        message = "is not an address of this machine; choose another one with --host"
        return ConfigError([Problem("listening", None, settings.host, message)])
    causes = {
        errno.EADDRINUSE: "is taken by another program; stop it, or choose another port with",
        errno.EACCES: "may not be used; ports below 1024 need rights, choose another one with",
    }
    if error.errno not in causes:
        return error
    problems = []
    ports = [("--port", settings.port), ("--ws-port", settings.ws_port), ("--tls-port", settings.tls_port)]
    for option, port in ports:
        refused = _refusal(port, settings.host) if port else None
        if refused in causes:
            where = f"{settings.host} port {port}"
            problems.append(Problem("listening", None, where, f"{causes[refused]} {option}"))
    if not problems:  # it has become free in between
        where = f"{settings.host} port {' or '.join(str(port) for _, port in ports if port)}"
        message = f"{causes[error.errno]} {' or '.join(option for option, port in ports if port)}"
        problems = [Problem("listening", None, where, message)]
    return ConfigError(problems)


def _refusal(port: int, host: str) -> int | None:
    """Why the system gives no socket on `port`, as its errno; the error itself does not say which port it was."""
    from tornado.netutil import bind_sockets

    try:
        for one in bind_sockets(port, host):
            one.close()
    except OSError as error:
        return error.errno
    return None


def main() -> None:
    """Every mistake of an operator is one line on stderr and exit code 2."""
    try:
        cli(prog_name="tornado-live")
    except ConfigError as refused:
        for problem in refused.problems:
            print(problem, file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
