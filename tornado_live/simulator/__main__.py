"""`python -m tornado_live.simulator`: the simulator as a process of its own.

Standard output has one JSON object a line: first what it listens on, later whether there is a voice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import yaml

from .faults import Planned, read_option
from .messages import Json
from .recording import RecordingError, load_recording
from .resumption import HANDLE_LIFE_S
from .scenario import Connection, Scenario, ScenarioError, load_scenario
from .server import CertificateUnusable, Options, VoiceMissing, serve
from .session import Pace
from .switches import read_switches
from .values import Mistake
from .yamltext import load_yaml

_UNSET: object = object()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM, SIGINT or, with --exit-with-stdin, the end of standard input; the exit code.

    1: it could not start (address, certificate, or a voice that was required). 2: wrong arguments or scenario.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    if arguments.scenario is not None and arguments.recording:
        parser.error("a scenario can name recordings itself: give either --scenario or --recording")
    try:
        scenario = _scenario(arguments.scenario, arguments.recording)
        switches = read_switches(dict(arguments.switch))
    except (ScenarioError, RecordingError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Mistake as mistake:
        parser.error(f"argument --switch: {mistake}")
    options = Options(
        host=arguments.host,
        port=arguments.port,
        tls=None if arguments.tls_cert is None else (arguments.tls_cert, arguments.tls_key),
        scenario=scenario,
        voice=arguments.voice,
        pace=Pace(arguments.speed, arguments.latency),
        require_key=arguments.require_key,
        age={
            name: value
            for name, value in (("limit", arguments.age), ("go_away", arguments.go_away))
            if value is not _UNSET
        },
        handle_life=arguments.handle_life,
        faults=tuple(arguments.fault),
        switches=switches,
        keep_frames=arguments.keep_frames,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    code = 0
    try:
        asyncio.run(_run(options, exit_with_stdin=arguments.exit_with_stdin))
    except* (VoiceMissing, CertificateUnusable) as group:
        sys.stderr.write(f"{group.exceptions[0]}\n")
        code = 1
    except* OSError as group:
        sys.stderr.write(
            f"The simulator cannot listen on {options.host}:{options.port}: {group.exceptions[0]}\n"
        )
        code = 1
    return code


async def _run(options: Options, *, exit_with_stdin: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_stdin:
        threading.Thread(target=_await_end_of_stdin, args=(loop, stop), daemon=True).start()
    await serve(options, announce=_announce, stop=stop)


def _scenario(path: Path | None, recordings: Sequence[Path]) -> Scenario | None:
    """Of the file, or with a connection for each recording."""
    if path is not None:
        return load_scenario(path)
    scripts = tuple(Connection(recording=load_recording(each)) for each in recordings)
    return Scenario(scripts, single=len(scripts) == 1) if scripts else None


def _announce(message: dict[str, Json]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _await_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tornado-live simulate",
        description="A server that speaks the wire protocol of Gemini Live, for people and tests without a key.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=0, help="0 (the default) takes any free port")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="play this YAML file instead of conversing"
    )
    parser.add_argument(
        "--voice", choices=["auto", "on", "off"], default="auto", help="on: end if there is none"
    )
    parser.add_argument("--speed", type=_positive, default=1.0, help="divides every simulated wait")
    parser.add_argument(
        "--latency",
        type=_seconds,
        metavar="SECONDS",
        help="from the end of the user's speech to the first sound",
    )
    parser.add_argument(
        "--recording",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="play this recording of the wire; the n-th connection plays the n-th",
    )
    parser.add_argument(
        "--age",
        type=_age_limit,
        default=_UNSET,
        metavar="SECONDS",
        help="how long a connection lasts, instead of the model's limit; none: as long as it likes",
    )
    parser.add_argument(
        "--go-away",
        type=_go_away,
        default=_UNSET,
        metavar="SECONDS",
        help="how long before its end a connection is told; none: never",
    )
    parser.add_argument(
        "--handle-life",
        type=_seconds,
        default=HANDLE_LIFE_S,
        metavar="SECONDS",
        help="how long a session can be resumed after its last connection (7200)",
    )
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME[=VALUE][@SECONDS][@turn:N][@connection:N]",
        help="something that goes wrong; GET /control lists what there is",
    )
    parser.add_argument(
        "--switch",
        type=_switch,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a fact that is not sure, the other way; GET /control lists what there is",
    )
    parser.add_argument("--require-key", action="store_true", help="refuse connections without an API key")
    parser.add_argument(
        "--keep-frames", action="store_true", help="keep all that crosses the wire, for GET /frames"
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"must be a number of 0 to 65535, not {text!r}")
    return int(text)


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _seconds(text: str, also: str = "") -> float:
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more{also}, not {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _age_limit(text: str) -> float:
    return math.inf if text == "none" else _seconds(text, ", or none")


def _go_away(text: str) -> float | None:
    return None if text == "none" else _seconds(text, ", or none")


def _fault(text: str) -> Planned:
    try:
        return read_option(text)
    except Mistake as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None


def _switch(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    try:
        read = load_yaml(value)
    except yaml.YAMLError:
        equals = ""
    if not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=VALUE')
    return name, read


if __name__ == "__main__":
    sys.exit(main())
