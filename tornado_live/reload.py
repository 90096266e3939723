"""`tornado-live dev`: the server as a child process that is started anew when a file was saved.

A process of its own, instead of tornado.autoreload, because a file with a mistake in it must not end the
watching, and because a new process leaves nothing behind of the old one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tornado_live.resources import PACKAGE, checkout

_PERIOD_S = 0.5
_STOP_S = 15.0
_WATCHED = {".py", ".yaml", ".yml", ".json", ".sql"}


def serve_and_reload(arguments: Sequence[str]) -> int:
    """Runs `serve` with `arguments` until Ctrl+C or SIGTERM; returns the exit code."""
    if "--print-config" in arguments:
        return subprocess.run(_command(arguments), check=False).returncode  # noqa: S603
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    home = _home(arguments)
    while not stop.is_set():
        before = _stamps(home)
        # Its own group, so that Ctrl+C reaches it once, from here.
        child = subprocess.Popen(_command(arguments), start_new_session=True)  # noqa: S603
        down = False
        while not stop.wait(_PERIOD_S) and _stamps(home) == before:
            code = child.poll()
            if code == 0:
                return 0
            if code is not None and not down:
                down = True
                _say("The server is down. Mend what is said above; the next save starts it anew.")
        _end(child)
        if not stop.is_set():
            _say("A file was saved; starting anew.")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _command(arguments: Sequence[str]) -> list[str]:
    """A save is not to wait for the turn of whoever talks; what `arguments` say of it counts."""
    return [sys.executable, "-m", "tornado_live", "serve", "--set", "limits.drain_s=0", *arguments]


def _home(arguments: Sequence[str]) -> Path:
    for index, argument in enumerate(arguments):
        if argument == "--home" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if argument.startswith("--home="):
            return Path(argument.removeprefix("--home="))
    return Path()


def _watched(home: Path) -> Iterator[Path]:
    root = checkout()
    for top in {home.resolve(), *([root] if root else [])}:
        yield top / "tools.yaml"
        yield top / ".env"
        yield from top.glob("*.py")  # handlers of the operator's own
        for folder in ("config", "tools.d"):
            yield from (path for path in (top / folder).glob("*") if path.suffix in _WATCHED)
    yield from (path for path in PACKAGE.rglob("*") if path.suffix in _WATCHED)


def _stamps(home: Path) -> dict[Path, int]:
    """When each file was last written; a file that came or went makes a difference too."""
    stamps = {}
    for path in _watched(home):
        try:
            stamps[path] = path.stat().st_mtime_ns
        except OSError:
            continue
    return stamps


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
