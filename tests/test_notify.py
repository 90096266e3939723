"""What systemd is told, by a server with a socket of the test's in systemd's place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from serving import Server
from talking import Talker

from tornado_live.notify import notifying

WATCHDOG_USEC = "300000"
PERIODS_S = 1.0
SLOW = "turns: [{do: [{say: One.}, {wait: 3600000}, {say: Two.}]}]\n"


class Systemd:
    """Hears what is told to `address`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def __enter__(self) -> Systemd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def heard(self, within: float = 60.0) -> str:
        async with asyncio.timeout(within):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    async def hears(self, wanted: str) -> None:
        while await self.heard() != wanted:
            pass

    def waiting(self) -> list[str]:
        """What was told and not heard yet."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found


def address_of(kind: str, directory: Path) -> str:
    return str(directory / "notify") if kind == "path" else f"@tornado-live-{uuid4()}"


def stop(pid: int) -> None:
    """SIGSTOP, and waits until no thread of the process runs."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.proves("F34")
@pytest.mark.parametrize(("count", "kind"), [("1", "path"), ("2", "abstract")])
async def test_systemd_is_told_that_it_serves_that_it_lives_and_that_it_ends(
    count: str, kind: str, tmp_path: Path
) -> None:
    scenario = tmp_path / "slow.yaml"
    scenario.write_text(SLOW)
    with Systemd(address_of(kind, tmp_path)) as systemd:
        environ = {
            "NOTIFY_SOCKET": systemd.address,
            "WATCHDOG_USEC": WATCHDOG_USEC,
            "LIMITS__DRAIN_S": "3600",
        }
        async with Server("--processes", count, "--scenario", str(scenario), environ=environ) as server:
            assert await systemd.heard() == "READY=1"
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"{server.url}/health")).status_code == 200
            for _ in range(3):
                assert await systemd.heard() == "WATCHDOG=1"

            stop(server.pid)
            systemd.waiting()
            with pytest.raises(TimeoutError):
                await systemd.heard(within=PERIODS_S)
            os.kill(server.pid, signal.SIGCONT)
            assert await systemd.heard() == "WATCHDOG=1"

            async with Talker(f"{server.url.replace('http', 'ws')}/ws") as talker:
                await talker.connected()
                await talker.send("text", {"text": "Count."})
                await talker.until("transcription", lambda data: not data["isUser"])
                os.kill(server.pid, signal.SIGTERM)
                await systemd.hears("STOPPING=1")
                await talker.until("status", lambda data: data["status"] == "DRAINING")
                systemd.waiting()
                for _ in range(3):
                    assert await systemd.heard() == "WATCHDOG=1", "the end may take long"
                os.kill(server.pid, signal.SIGTERM)
                assert (await talker.closed())[0] == 1001


async def test_nothing_is_told_by_a_server_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\ntoolz: {}\n")
    with Systemd(address_of("path", tmp_path)) as systemd:
        with pytest.raises(AssertionError, match="ended without printing"):
            async with Server(home=tmp_path, environ={"NOTIFY_SOCKET": systemd.address}):
                pass
        assert systemd.waiting() == []


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
    ids=str,
)
async def test_there_are_no_beats_where_no_watchdog_waits_for_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with Systemd(address_of("path", tmp_path)) as systemd:
        async with notifying({"NOTIFY_SOCKET": systemd.address} | environment) as notify:
            notify.ready()
            notify.stopping()
        assert systemd.waiting() == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize("named", ["", "vsock:2:1234", "/no/such/socket"])
async def test_a_socket_that_is_not_there_stops_nobody(named: str) -> None:
    async with notifying({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "1000"}) as notify:
        notify.ready()
        notify.stopping()
