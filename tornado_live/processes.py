"""`serve` in several processes: this one starts them, watches them and ends them.

Each child is the ordinary server with sockets of its own on the ports of all, and the kernel deals new connections
among them. A pair of sockets joins it to its parent, which first sends its `Assignment`, so that a child that is
started late has the settings of the others; from then on both write lines of JSON. A child that has lost its
parent ends in order.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from tornado_live.app import Orders, Share, announce, logged, serve
from tornado_live.errors import ConfigError, Problem
from tornado_live.listening import Ports, reserved
from tornado_live.live.embedded import EmbeddedSimulator, Restarts, SimulatorAddress
from tornado_live.notify import Notify, notifying
from tornado_live.observe.logs import log_event
from tornado_live.observe.metrics import DIRECTORY, Counters, shared_directory
from tornado_live.settings import Settings

COMMAND: Final = "process"
"""The command that a child is started with; people do not type it."""
ATTEMPTS: Final = 3
"""So many ends before any child has served are enough to know that none will."""
AFTER_DRAIN_S: Final = 7.0
"""How long a child may take to end besides letting turns end, until it is killed."""
LAST_WORDS_S: Final = 1.0
BEAT_S = 2.0
SILENT_S = 5.0
SILENCES: Final = 3
"""A child that serves says something every BEAT_S; after so many times SILENT_S without a word it is killed. Not
after the first: a parent that was held up finds that the time is over before it reads what was said."""

_LENGTH = struct.Struct("!I")
_log = logging.getLogger("tornado_live.processes")


class _Simulator(msgspec.Struct, frozen=True):
    url: str | None
    voice: str


class _Order(msgspec.Struct, omit_defaults=True, frozen=True):
    """A line from the parent; `stop` is to end in order, `now` at once."""

    stop: bool = False
    now: bool = False
    simulator: _Simulator | None = None


class _News(msgspec.Struct, omit_defaults=True, frozen=True):
    """A line from a child: it serves, at addresses to be told to people; or it cannot, for mistakes of theirs; or
    nothing but that its loop runs."""

    serving: tuple[str, ...] | None = None
    refused: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    settings: Settings
    ports: Ports
    counters: Counters
    simulator: _Simulator | None


# The parent ---------------------------------------------------------------------------------------------


async def supervise(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT, and answers the exit code: 0 when every child ended in order.

    Raises ConfigError for what no child can serve with, OSError for a port that is taken.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        message = "processes cannot share a port on this system; leave it at 1"
        raise ConfigError([settings.sources["processes"].problem(message)])
    logged(settings, process=None)
    with reserved(settings) as ports, shared_directory() as directory:
        async with notifying(settings.process_environment) as notify:
            return await _Parent(settings, ports, directory, notify).run()


class _Parent:
    def __init__(self, settings: Settings, ports: Ports, directory: Path, notify: Notify) -> None:
        self._settings = settings
        self._notify = notify
        self._ports = ports
        self._environment = {**settings.process_environment, DIRECTORY: str(directory)}
        self._children = [_Child(Counters(directory, number)) for number in range(1, settings.processes + 1)]
        self._silent = set(self._children)
        self._addresses: Sequence[str] = ()
        self._served = asyncio.Event()
        self._simulator = _Simulator(None, "loading") if settings.upstream == "simulator" else None
        self._orders = Orders()
        self._failed = 0
        self._code = 0

    async def run(self) -> int:
        self._orders.obey_signals()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        async with asyncio.TaskGroup() as owned:
            besides: list[asyncio.Task[object]] = [owned.create_task(self._end())]
            if self._simulator is not None:
                simulator = EmbeddedSimulator(self._settings.simulator, self._simulator_told)
                besides.append(owned.create_task(simulator.run()))
            try:
                async with asyncio.TaskGroup() as keepers:
                    # The first one alone: it makes the files that all of them use, and tells mistakes once.
                    first = keepers.create_task(self._keep(self._children[0]))
                    served = owned.create_task(self._served.wait())
                    besides.append(served)
                    await asyncio.wait((first, served), return_when=asyncio.FIRST_COMPLETED)
                    if self._served.is_set():
                        for child in self._children[1:]:
                            keepers.create_task(self._keep(child))
            finally:
                for task in besides:
                    task.cancel()
        return self._code

    async def _keep(self, child: _Child) -> None:
        """Sees to it that there is such a child until the end."""
        loop = asyncio.get_running_loop()
        restarts = Restarts()
        while not self._orders.stop.is_set():
            started = loop.time()
            try:
                code = await self._live(child)
            except OSError as error:  # no process, descriptor or memory to be had
                log_event(_log, "process_not_started", child.facts, level=logging.ERROR, error=error)
                code = 1
            if self._orders.stop.is_set():
                if code != 0 and child.serves:
                    self._code = 1
                break
            if not self._served.is_set():
                if child.refused:
                    raise ConfigError(child.refused)
                self._failed += 1
                if self._failed == ATTEMPTS:
                    message = (
                        f"The first process ended {ATTEMPTS} times before it served; what it said is above."
                    )
                    log_event(_log, "processes_given_up", level=logging.ERROR, message=message)
                    self._code = 1
                    break
            delay = restarts.after(loop.time() - started)
            facts = child.facts | _end_of(code)
            if child.refused:
                facts["mistakes"] = [str(problem) for problem in child.refused]
            level = logging.ERROR if code else logging.WARNING
            log_event(_log, "process_ended", facts, level=level, restart_s=delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._orders.stop.wait()

    async def _live(self, child: _Child) -> int:
        """One life of it, from its start to its exit code (negative: the signal)."""
        child.begin()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *_command(theirs.fileno()),
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl+C is for the parent, which tells its children
                )
        except BaseException:
            ours.close()
            raise
        try:
            reader, child.writer = await asyncio.open_unix_connection(sock=ours)
            child.process, child.facts["pid"] = process, process.pid
            plain = replace(self._settings, warnings=())  # told already
            assigned = pickle.dumps(Assignment(plain, self._ports, child.counters, self._simulator))
            child.writer.write(_LENGTH.pack(len(assigned)) + assigned)
            if self._orders.stop.is_set():
                child.end(_Order(stop=True))
            hearing = asyncio.get_running_loop().create_task(self._hear(child, reader))
            try:
                code = await process.wait()
                await asyncio.wait((hearing,), timeout=LAST_WORDS_S)
            finally:
                hearing.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            child.over()
        return code

    async def _hear(self, child: _Child, reader: asyncio.StreamReader) -> None:
        silences = 0
        with suppress(ConnectionError):
            while True:
                try:
                    async with asyncio.timeout(SILENT_S if child.serves else None):
                        line = await reader.readline()
                except TimeoutError:
                    silences += 1
                    if silences == SILENCES:
                        log_event(_log, "process_hung", child.facts, level=logging.ERROR)
                        child.send_signal(signal.SIGKILL)
                    continue
                if not line:
                    return
                silences = 0
                news = msgspec.json.decode(line, type=_News)
                child.refused = news.refused
                if news.serving is not None:
                    child.serves = True
                    self._serving(child, news.serving)

    def _serving(self, child: _Child, addresses: Sequence[str]) -> None:
        log_event(_log, "process_serving", child.facts)
        self._addresses = self._addresses or addresses
        if not self._served.is_set():
            self._notify.ready()
        self._served.set()
        if child in self._silent:
            self._silent.remove(child)
            if not self._silent:
                announce(self._settings, self._addresses)

    def _simulator_told(self, url: str | None, voice: str) -> None:
        self._simulator = _Simulator(url, voice)
        for child in self._children:
            child.tell(_Order(simulator=self._simulator))

    def _reload(self) -> None:
        """SIGHUP; a child that does not serve yet is about to read everything anyway."""
        for child in self._children:
            if child.serves:
                child.send_signal(signal.SIGHUP)

    async def _end(self) -> None:
        """Passes on the orders to end; who does not obey is killed."""
        await self._orders.stop.wait()
        self._notify.stopping()
        log_event(_log, "stopping", processes=sum(child.process is not None for child in self._children))
        for child in self._children:
            child.end(_Order(stop=True))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.limits.drain_s + AFTER_DRAIN_S):
                await self._orders.now.wait()
                for child in self._children:
                    child.end(_Order(now=True))
                await asyncio.get_running_loop().create_future()
        for child in self._children:
            if child.process is not None:
                log_event(_log, "process_killed", child.facts, level=logging.ERROR)
                child.send_signal(signal.SIGKILL)


class _Child:
    """The place of one process, and the process that is there now."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.process: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.serves = False
        self.refused: tuple[Problem, ...] = ()
        self.facts: dict[str, object] = {"process": counters.process}

    def begin(self) -> None:
        self.counters.begin()
        self.serves, self.refused = False, ()

    def tell(self, order: _Order) -> None:
        if self.writer is not None:
            self.writer.write(msgspec.json.encode(order) + b"\n")

    def end(self, order: _Order) -> None:
        """One that still starts has nothing to end in order."""
        if self.serves:
            self.tell(order)
        else:
            self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def over(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.process = self.writer = None


def _command(channel: int) -> list[str]:
    """As this process was started, but for its arguments."""
    started = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    return [sys.executable, *started, COMMAND, str(channel)]


def _end_of(code: int) -> dict[str, object]:
    if code >= 0:
        return {"code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # a realtime signal has no name
        return {"signal": -code}


# A child ------------------------------------------------------------------------------------------------


class Child:
    """One of the processes. `channel` is the descriptor of its end; its parent is to be waited for."""

    def __init__(self, channel: int) -> None:
        self._channel = socket.socket(fileno=channel)
        self._channel.set_inheritable(False)
        [length] = _LENGTH.unpack(self._channel.recv(_LENGTH.size, socket.MSG_WAITALL))
        given = pickle.loads(self._channel.recv(length, socket.MSG_WAITALL))  # noqa: S301 - from the parent
        assert isinstance(given, Assignment)
        self._given = given
        self._all_end = False
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """Raises as app.serve does."""
        given, orders = self._given, Orders()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Once or twice is the same: some that end a service signal each of its processes, as the parent does.
            loop.add_signal_handler(number, orders.stop.set)
        reader, writer = await asyncio.open_unix_connection(sock=self._channel.dup())
        simulator = None
        if given.simulator is not None:
            simulator = SimulatorAddress()
            simulator.tell(given.simulator.url, given.simulator.voice)

        def serving(addresses: Sequence[str]) -> None:
            writer.write(msgspec.json.encode(_News(serving=tuple(addresses))) + b"\n")
            self._tasks.append(loop.create_task(_beat(writer)))

        def leaves() -> bool:
            return not self._all_end

        listening = loop.create_task(self._listen(reader, orders, simulator))
        self._tasks.append(listening)
        try:
            await serve(
                given.settings, Share(given.counters, given.ports, simulator, orders, serving, leaves)
            )
        finally:
            for owned in self._tasks:
                owned.cancel()
            writer.close()
            if listening.done() and not listening.cancelled():  # nobody is left who would do it
                shutil.rmtree(given.counters.directory, ignore_errors=True)

    def refuse(self, problems: Sequence[Problem]) -> None:
        """Tells the parent why this process cannot serve."""
        with suppress(OSError):
            self._channel.setblocking(True)
            self._channel.sendall(msgspec.json.encode(_News(refused=tuple(problems))) + b"\n")

    async def _listen(
        self, reader: asyncio.StreamReader, orders: Orders, simulator: SimulatorAddress | None
    ) -> None:
        """Returns when the parent has gone."""
        with suppress(ConnectionError):
            while line := await reader.readline():
                order = msgspec.json.decode(line, type=_Order)
                if order.stop:
                    self._all_end = True
                    orders.stop.set()
                if order.now:
                    orders.now.set()
                if order.simulator is not None and simulator is not None:
                    simulator.tell(order.simulator.url, order.simulator.voice)
        log_event(_log, "parent_gone", level=logging.ERROR)
        self._all_end = True
        orders.stop.set()


async def _beat(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        writer.write(msgspec.json.encode(_News()) + b"\n")
