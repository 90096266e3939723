"""Fifty people talking at once: nothing is lost or reordered, and hardly any time is added."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from loading import processor_time
from serving import Server

CONVERSATIONS = 50
SECONDS = 20.0
BARE_SECONDS = 6.0
# Of its time a process may have waited for a processor, or what was measured are the machine's other programs.
WAITED = 0.1
LOADING = str(Path(__file__).parent / "loading.py")


class ModelSide:
    """The model side of loading.py; `heard` is its report, once it has ended."""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, LOADING, "model", stdin=pipe, stdout=pipe
        )
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        self.heard: dict[str, Any] = {}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        output, _ = await self._process.communicate(b"")
        if error is None:
            self.heard = json.loads(output)


async def load(
    url: str, seconds: float, *, direct: bool, count: int = CONVERSATIONS, ca: Path | None = None
) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(LOADING, "clients", url, str(count), str(seconds), "direct" if direct else "gateway"),
        *([str(ca)] if ca is not None else []),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    report: dict[str, Any] = json.loads(output)
    return report


@pytest.mark.alone
@pytest.mark.timeout(seconds=300)
async def test_fifty_conversations_at_real_pace_lose_nothing_and_gain_under_5_ms() -> None:
    """Time is judged where the processors were free; what a message costs them, always."""
    async with ModelSide() as model:
        bare = await load(f"ws://127.0.0.1:{model.port}/", BARE_SECONDS, direct=True)
    bare_up = model.heard
    async with (
        ModelSide() as model,
        Server(
            "--set", "log_level=warning", environ={"GEMINI_BASE_URL": f"ws://127.0.0.1:{model.port}"}
        ) as server,
    ):
        through = await load(f"{server.ws_url}/", SECONDS, direct=False)
        gateway = processor_time(server.pid)
    up = model.heard
    sent = CONVERSATIONS * int(SECONDS / 0.02)
    assert (up["messages"], up["wrong"]) == (sent, 0)
    assert (through["messages"], through["wrong"]) == (sent // 2, 0)
    added = {"up": up["p50_ms"] - bare_up["p50_ms"], "down": through["p50_ms"] - bare["p50_ms"]}
    cost_us = gateway.ran_s / (up["messages"] + through["messages"]) * 1e6
    measured = {"bare_up": bare_up, "bare_down": bare, "up": up, "down": through, "added_p50_ms": added}
    print(json.dumps({**measured, "gateway_waited_s": gateway.waited_s, "gateway_us": cost_us}))
    assert cost_us < 400
    waited = [report["waited_s"] / BARE_SECONDS for report in (bare_up, bare)]
    waited += [seconds / SECONDS for seconds in (up["waited_s"], through["waited_s"], gateway.waited_s)]
    if max(waited) < WAITED:
        assert max(added.values()) < 5.0, added
