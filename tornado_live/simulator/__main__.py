"""`python -m tornado_live.simulator`: the simulator as a process of its own.

Standard output has one JSON object a line: first what it listens on, later whether there is a voice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from .messages import Json
from .scenario import ScenarioError, load_scenario
from .server import Options, VoiceMissing, serve
from .session import Pace


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM, SIGINT or, with --exit-with-stdin, the end of standard input; the exit code.

    1: it could not start (address, certificate, or a voice that was required). 2: wrong arguments or scenario.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    try:
        scenario = None if arguments.scenario is None else load_scenario(arguments.scenario)
    except ScenarioError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    options = Options(
        host=arguments.host,
        port=arguments.port,
        tls=None if arguments.tls_cert is None else (arguments.tls_cert, arguments.tls_key),
        scenario=scenario,
        voice=arguments.voice,
        pace=Pace(arguments.speed, arguments.latency),
        require_key=arguments.require_key,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    code = 0
    try:
        asyncio.run(_run(options, exit_with_stdin=arguments.exit_with_stdin))
    except* VoiceMissing as group:
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
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes any free port")
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
    parser.add_argument("--require-key", action="store_true", help="refuse connections without an API key")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
