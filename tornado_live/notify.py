"""What systemd is told of this process: that it serves, that its loop runs, that it ends (sd_notify(3))."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from tornado_live.observe.logs import log_event

BEATS: Final = 3
"""So many times within the time after which the watchdog takes the process for hung."""
PATIENCE_S: Final = 1.0
"""Its queue may be full for a moment, and `READY=1` is waited for."""

_log = logging.getLogger("tornado_live")


class Notify:
    """Says nothing where nobody has asked for it, by NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment)
        self._every_s = _every_s(environment)
        self._next: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """From now on it is also told, as often as WATCHDOG_USEC asks for, that the loop runs."""
        self._tell("READY=1")
        if self._address is not None and self._every_s is not None:
            self._beat()

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _beat(self) -> None:
        assert self._every_s is not None
        self._tell("WATCHDOG=1")
        self._next = asyncio.get_running_loop().call_later(self._every_s, self._beat)

    def _tell(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(PATIENCE_S)
                line.sendto(state.encode(), self._address)
        except OSError as error:
            log_event(_log, "not_notified", level=logging.WARNING, state=state, error=error)


@asynccontextmanager
async def notifying(environment: Mapping[str, str]) -> AsyncIterator[Notify]:
    notify = Notify(environment)
    try:
        yield notify
    finally:
        notify.close()


def _address(environment: Mapping[str, str]) -> str | None:
    """None also for kinds of address other than a socket of this machine."""
    named = environment.get("NOTIFY_SOCKET", "")
    if not hasattr(socket, "AF_UNIX") or not named.startswith(("/", "@")):
        return None
    return "\0" + named[1:] if named.startswith("@") else named


def _every_s(environment: Mapping[str, str]) -> float | None:
    """None where the watchdog is off, or is for another process."""
    period = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(period) / 1e6 / BEATS if period.isdecimal() and int(period) else None
