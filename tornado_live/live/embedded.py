"""The embedded simulator: the model side of a server without a key, a child process on loopback.

It is the same program as `tornado-live simulate`. A simulator that ends is started again; it ends by itself
when this process is gone, because its standard input closes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tornado_live.errors import Unavailable
from tornado_live.live.commands import Warned
from tornado_live.observe.logs import log_event
from tornado_live.settings import SimulatorSettings

START_S = 10.0
STOP_S = 5.0
RESTART_S = (0.2, 10.0)
STEADY_S = 30.0
LOADING: Final = "loading"

_log = logging.getLogger("tornado_live.simulator")


class _Listening(msgspec.Struct):
    host: str
    port: int


class _Line(msgspec.Struct):
    """One line of the child's standard output."""

    listening: _Listening | None = None
    voice: str | None = None


class SimulatorAddress:
    """What a conversation asks of it (live.upstream.Address). In a process that does not run the simulator itself,
    whoever does tells where it is now."""

    name: Final = "simulator"

    def __init__(self) -> None:
        self._url: str | None = None
        self._up = asyncio.Event()
        self._voice = LOADING

    def tell(self, url: str | None, voice: str) -> None:
        """`url` None: it is not there now."""
        self._url, self._voice = url, voice
        if url is None:
            self._up.clear()
        else:
            self._up.set()

    async def base_url(self) -> str:
        try:
            async with asyncio.timeout(START_S):
                while self._url is None:
                    await self._up.wait()
        except TimeoutError:
            raise Unavailable("The simulator does not start; the log says why.") from None
        return self._url

    def unready(self) -> str | None:
        return None if self._url is not None else "The simulator is starting."

    def notice(self) -> Warned | None:
        if self._voice in ("ready", "scenario"):
            return None
        if self._voice == LOADING:
            return Warned(
                "voice_unavailable", "The simulator's voice is still loading; what you type works already."
            )
        why = self._voice.removeprefix("unavailable").removeprefix(":").strip().rstrip(".")
        why = "switched off" if why == "off" else why
        told = f"The simulator has no voice ({why}): it takes typed text and answers in writing."
        return Warned("voice_unavailable", told)


class Restarts:
    """How long to wait before a child process is started again."""

    def __init__(self) -> None:
        self._next_s = RESTART_S[0]

    def after(self, ran_s: float) -> float:
        """Longer each time, and quick again after one that ran for so long that it was well."""
        delay = RESTART_S[0] if ran_s > STEADY_S else self._next_s
        self._next_s = min(delay * 2, RESTART_S[1])
        return delay


class EmbeddedSimulator:
    """`run` supervises it until cancelled; `tell` hears where it is and what became of its voice."""

    def __init__(self, settings: SimulatorSettings, tell: Callable[[str | None, str], None]) -> None:
        self._command = _command(settings)
        self._tell = tell
        self._url: str | None = None
        self._voice = LOADING

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        restarts = Restarts()
        while True:
            started = loop.time()
            code: int | None = None
            try:
                code = await self._once()
            except (OSError, ValueError) as error:  # no process or pipe to be had, or a line without end
                log_event(_log, "simulator_failed", level=logging.ERROR, error=error)
            delay = restarts.after(loop.time() - started)
            log_event(_log, "simulator_ended", level=logging.ERROR, code=code, restart_s=delay)
            await asyncio.sleep(delay)

    async def _once(self) -> int:
        """One life of the child. Its own log lines go where ours go."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl+C is ours: a turn that may still end needs its model side
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while data := await process.stdout.readline():
                self._heard(data)
            return await process.wait()
        finally:
            self._url, self._voice = None, LOADING
            self._tell(None, LOADING)
            process.stdin.close()
            await _ended(process)

    def _heard(self, data: bytes) -> None:
        try:
            line = msgspec.json.decode(data, type=_Line)
        except msgspec.DecodeError:
            log_event(_log, "simulator_said", text=data.decode(errors="replace").strip())
            return
        if line.voice is not None:
            self._voice = line.voice
        if line.listening is not None:
            self._url = f"http://{line.listening.host}:{line.listening.port}"
        self._tell(self._url, self._voice)
        log_event(_log, "simulator", url=self._url, voice=self._voice)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Waits for a child that was told to end; one that does not is killed."""
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _command(settings: SimulatorSettings) -> Sequence[str]:
    command = [sys.executable, "-m", "tornado_live.simulator", "--host", "127.0.0.1", "--port", "0"]
    command += ["--voice", settings.voice, "--exit-with-stdin"]
    if settings.scenario is not None:
        command += ["--scenario", str(settings.scenario)]
    return command
