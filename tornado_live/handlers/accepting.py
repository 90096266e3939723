"""Connections are taken while there are descriptors for what follows: each client may bring a line to the model.

A process that runs out of descriptors can open neither that line nor a file, and its accept loop spins: what it
cannot take stays there to be taken. So the listeners pause before that. Who comes meanwhile waits in the kernel's
backlog, and is taken once somebody has gone.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from tornado_live.observe.logs import log_event

if sys.platform != "win32":
    import resource

LOOK_AGAIN_S = 0.5
QUIET_S = 3.0
"""Listeners that have not paused for so long are said to be well again: at the edge they pause again and again."""

_AT_ONCE = 64
"""Connections taken in one turn of the loop."""
_DESCRIPTORS = "/dev/fd"
_SPENT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TOO_MANY = (
    "Nearly all file descriptors are in use: who comes now waits until somebody goes. Raise the limit of open"
    " files (ulimit -n, LimitNOFILE), or spread the clients over more processes."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """`limit`: descriptors that the process may open. `most`: how many may be open, lines to the model side not
    counted, before the listeners pause."""

    limit: int
    most: int

    @classmethod
    def of(cls, limit: int, at_start: int) -> Room:
        """Half of what is left is for the clients, half for their lines to the model side; some stay free for
        files and for the connections of tools. `at_start`: open before the first client."""
        spare = max(16, limit // 16)
        return cls(limit, max((limit - spare + at_start) // 2, at_start + 1))


def room() -> Room | None:
    """Of this process, which from now on may open as many as it ever may; None where that cannot be known.

    To be asked when everything but clients is open.
    """
    at_start = open_descriptors()
    if sys.platform == "win32" or at_start is None:
        return None
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = before
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):
        pass  # macOS says "unlimited", and does not take it
    found = None if soft == resource.RLIM_INFINITY else Room.of(soft, at_start)
    log_event(_log, "descriptors", limit=soft, before=before, hard=hard, most=found and found.most)
    return found


def open_descriptors() -> int | None:
    """How many this process has open; None where that cannot be seen, as when there are none left."""
    try:
        return len(os.listdir(_DESCRIPTORS)) - 1  # the one of the listing itself
    except OSError:
        return None


class Accepting:
    """Takes connections from listeners, and gives them to their servers.

    `lines`: how many lines to the model side are open now. `room` None: the listeners pause only once there is no
    descriptor left. `paused` is told when such a time begins and when it is over, and so is the log.
    """

    def __init__(
        self, room: Room | None, *, lines: Callable[[], int], paused: Callable[[bool], None]
    ) -> None:
        self._room = room
        self._lines = lines
        self._tell = paused
        self._loop = IOLoop.current()
        self._listeners: dict[socket.socket, HTTPServer] = {}
        self._listening = True
        self._scarce = False
        self._uncounted = 0
        """Connections that may be taken before the descriptors are counted again."""
        self._timer: object | None = None

    def add(self, server: HTTPServer, listeners: Iterable[socket.socket]) -> None:
        for listener in listeners:
            self._listeners[listener] = server
            self._loop.add_handler(listener, self._take, IOLoop.READ)

    def close(self) -> None:
        """Takes no more. The listeners stay open; they are their owner's to close."""
        self._stop_waiting()
        self._stop_listening()
        self._listeners.clear()

    def _take(self, listener: socket.socket, events: int) -> None:
        for taken in range(_AT_ONCE):
            if not self._listening:
                return
            if not self._has_room():
                if taken == 0:  # else there may be nobody else to take: the loop calls again if there is
                    self._pause()
                return
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _SPENT:
                    raise
                self._pause(os.strerror(error.errno))
                return
            self._uncounted -= 1
            self._listeners[listener]._handle_connection(connection, address)

    def _has_room(self) -> bool:
        if self._room is None:
            return True
        if self._uncounted <= 0:
            found = open_descriptors()
            left = 0 if found is None else self._room.most - (found - self._lines())
            self._uncounted = (left + 1) // 2  # something else may take the rest meanwhile
        return self._uncounted > 0

    def _pause(self, why: str = "") -> None:
        self._stop_listening()
        if not self._scarce:
            self._scarce = True
            limit = self._room.limit if self._room is not None else None
            facts: dict[str, object] = {"open": open_descriptors(), "limit": limit, "message": _TOO_MANY}
            if why:
                facts["cause"] = why
            log_event(_log, "accept_paused", facts, level=logging.WARNING)
            self._tell(True)
        self._look_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._uncounted = 0
        if not self._has_room():
            self._look_later(LOOK_AGAIN_S, self._look)
            return
        self._listening = True
        for listener in self._listeners:
            self._loop.add_handler(listener, self._take, IOLoop.READ)
        self._look_later(QUIET_S, self._well)

    def _well(self) -> None:
        self._timer = None
        self._scarce = False
        log_event(_log, "accept_resumed", open=open_descriptors())
        self._tell(False)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            for listener in self._listeners:
                self._loop.remove_handler(listener)

    def _look_later(self, delay_s: float, look: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(delay_s, look)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
