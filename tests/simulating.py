"""A simulator as a process of its own, for any test that needs a model side.

async with Simulator(scenario={"turns": [{"do": [{"say": "Hello."}]}]}) as simulator:
    ...  # ws://127.0.0.1:{simulator.port}/ws/google.ai.generativelanguage...

async with Simulator(tls=True) as simulator:
    async with simulator.client().aio.live.connect(model=MODEL) as session: ...
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import canary
from google import genai

from tornado_live.simulator import testing
from tornado_live.simulator.testing import LIVE_PATH, certificate_authority

MODEL = "gemini-3.8-live"

__all__ = ["LIVE_PATH", "MODEL", "Simulator", "certificate_authority", "speech"]


class Simulator:
    """What testing.Simulator is for users, without blocking the test's loop, and with its process to look at.

    `voice` is "off" unless a test is about speech. `environment` is added to this process's own. `log` is what
    the simulator wrote to stderr, once it has ended.
    """

    def __init__(
        self,
        scenario: Mapping[str, Any] | str | Path | None = None,
        *,
        voice: Literal["auto", "on", "off"] = "off",
        speed: float = 1.0,
        latency: float | None = None,
        tls: bool = False,
        require_key: bool = False,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self._running = testing.Simulator(
            scenario,
            voice=voice,
            speed=speed,
            latency=latency,
            tls=tls,
            require_key=require_key,
            arguments=arguments,
            environment={**inherited, **(environment or {})},
        )
        self.returncode: int | None = None

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def url(self) -> str:
        """The base URL, as GEMINI_BASE_URL takes it."""
        return self._running.url

    @property
    def live_url(self) -> str:
        """The WebSocket's own URL."""
        return self._running.live_url

    @property
    def ssl(self) -> ssl.SSLContext:
        """A client context that trusts this simulator's certificate."""
        return self._running.ssl

    @property
    def first_line(self) -> dict[str, Any]:
        return self._running.first_line

    @property
    def log(self) -> str:
        return self._running.log

    def client(self, api_key: str = "a-key-for-tests", api_version: str = "v1beta") -> genai.Client:
        """Google's own client, pointed here (needs tls=True: the SDK cannot speak ws://)."""
        return self._running.client(api_key, api_version)

    async def status(self) -> dict[str, Any]:
        """What GET /status says now."""
        return await asyncio.to_thread(self._running.status)

    async def control(
        self,
        fault: str | Mapping[str, Any] | None = None,
        *,
        connection: int | Literal["all", "next"] | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> list[int | Literal["next"]]:
        """Begins a fault: POST /control."""
        return await asyncio.to_thread(self._running.control, fault, connection=connection, switches=switches)

    async def next_line(self, timeout: float = 60) -> dict[str, Any]:
        """The next JSON line of its standard output, such as {"voice": "ready"}."""
        return await asyncio.to_thread(self._running.next_line, timeout)

    async def __aenter__(self) -> Simulator:
        await asyncio.to_thread(self._running.start)
        return self

    async def stop(self) -> int:
        """End it as a parent's death would (its stdin closes); its exit code."""
        if self.returncode is None:
            self.returncode = await asyncio.to_thread(self._running.stop)
            canary.WATCH.feed("printed", self.log)
        return self.returncode

    def terminate(self, number: int) -> None:
        """Sends a signal."""
        self._running.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, once it has ended by itself or by a signal."""
        self.returncode = await asyncio.to_thread(self._running.wait)
        return self.returncode

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None and self.log:
            sys.stderr.write(self.log)


async def speech(text: str, rate: int = 16_000) -> bytes:
    """The text as a microphone gives it: PCM16 with a second of silence after it. Needs the voice extra."""
    from tornado_live.simulator.voice import OUTPUT_RATE, load_voice, resample

    voice = await asyncio.to_thread(load_voice)
    try:
        pcm = b"".join([part async for part in voice.speak(text)])
    finally:
        voice.close()
    return resample(pcm, OUTPUT_RATE, rate) + bytes(rate * 2)
