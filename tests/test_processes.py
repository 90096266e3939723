"""One server in several processes, as users run it: what they share, and what happens when one ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import ROOT, Server, clean_environment
from talking import Talker

from tornado_live.live.embedded import Restarts
from tornado_live.observe.metrics import DIRECTORY, Counters, Metrics, shared_directory

TOOLS = """\
version: 1
tools:
  greet:
    description: Greets somebody.
    parameters: {type: object, properties: {name: {type: string}}, required: [name]}
    http: {url: "https://greet.invalid/", method: GET, query: {name: "{name}"}}
    mock: {text: Hello}
"""
HANDLER = """\
version: 1
tools:
  greet:
    description: Greets.
    python: mytools:greet
    parameters: {type: object, properties: {}}
"""


class Processes(Server):
    """A server in `count` processes, and what its log tells of them."""

    def __init__(self, count: int, *args: str, environ: Mapping[str, str] | None = None, **more: Any) -> None:
        environ = {"LIMITS__DRAIN_S": "1"} | dict(environ or {})
        super().__init__("--processes", str(count), *args, environ=environ, **more)
        self.count = count

    def lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The log's lines of `event`, in order, that have these fields."""
        found = []
        for text in self.log.splitlines():
            if text.startswith("{") and text.endswith("}"):
                line = json.loads(text)
                if line["event"] == event and fields.items() <= line.items():
                    found.append(line)
        return found

    async def logged(self, event: str, *, times: int = 1, **fields: object) -> dict[str, Any]:
        """The line, once it is there for the `times`th time."""
        async with asyncio.timeout(60):
            while len(found := self.lines(event, **fields)) < times:
                await self.grown()
        return found[times - 1]

    def process(self, number: int) -> int:
        """The pid of the newest process with this number."""
        pid: int = self.lines("process_serving", process=number)[-1]["pid"]
        return pid

    @contextlib.asynccontextmanager
    async def talkers(self) -> AsyncIterator[dict[int, Talker]]:
        """A client that is connected to each process, by the process's number."""
        async with contextlib.AsyncExitStack() as opened:
            found: dict[int, Talker] = {}
            while len(found) < self.count:
                talker = await opened.enter_async_context(Talker(f"{self.url.replace('http', 'ws')}/ws"))
                number = await self.process_of(talker)
                if number in found:
                    await talker.connection.close()
                else:
                    found[number] = talker
            yield found

    async def process_of(self, talker: Talker) -> int:
        await talker.connected()
        session = talker.seen[-1]["sessionId"]
        number: int = (await self.logged("connected", session=session))["process"]
        return number

    async def get(self, path: str) -> httpx.Response:
        """On a connection of its own: whichever process answers."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(self.url + path)

    async def sums(self) -> dict[str, float]:
        return samples((await self.get("/metrics")).text)

    async def conversations(self, count: int) -> None:
        """Waits until so many are open in all; one that was left ends a moment later."""
        await self.summed("tornado_live_conversations", count)

    async def summed(self, series: str, value: float) -> None:
        async with asyncio.timeout(60):
            while (await self.sums()).get(series) != value:
                pass


def samples(text: str) -> dict[str, float]:
    """Every sample of one that is not a bucket, by its name and labels."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Every process that comes from this one, with its command."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
            parents[int(folder.name)] = int(stat[1]), command
    pending = [pid]
    while pending:
        above = pending.pop()
        for found, (parent, command) in parents.items():
            if parent == above:
                pending.append(found)
                yield found, command


def serve(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A server that does not start."""
    return subprocess.run(
        [sys.executable, "-m", "tornado_live", "serve", "--processes", "2", "--voice", "off", *arguments],
        cwd=home,
        env=clean_environment(**{"PYTHONPATH": str(ROOT)} | environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_connections_are_spread_over_processes_that_share_one_simulator_and_count_together() -> None:
    async with Processes(3, tls=True) as server, server.talkers() as talkers:
        assert set(talkers) == {1, 2, 3}
        await server.conversations(3)
        health = (await server.get("/health")).json()
        assert (health["conversations"], health["processes"]) == (3, 3)
        assert (await server.sums())["tornado_live_processes"] == 3
        assert server.log.count("is listening on") == 1
        simulators = [pid for pid, command in descendants(server.pid) if "tornado_live.simulator" in command]
        assert len(simulators) == 1
        os.kill(simulators[0], signal.SIGKILL)
        await server.logged("simulator", times=2)
        for talker in talkers.values():
            await talker.send("text", {"text": "Hello"})
            await talker.until("turn_complete")


@pytest.mark.proves("F34")
async def test_one_that_is_killed_is_started_again_and_its_sums_stay() -> None:
    async with Processes(2) as server, server.talkers() as talkers:
        session = talkers[1].seen[-1]["sessionId"]
        await talkers[1].send("text", {"text": "Hello"})
        await talkers[1].until("turn_complete")
        async with asyncio.timeout(60):
            while len((await server.get(f"/api/sessions/{session}?include=memory")).json()["memory"]) < 2:
                pass
        await server.conversations(2)
        before = await server.sums()
        os.kill(server.process(1), signal.SIGKILL)
        assert await talkers[1].closed() == (1006, "")
        ended = await server.logged("process_ended", process=1)
        assert (ended["signal"], ended["restart_s"]) == ("SIGKILL", 0.2)
        await talkers[2].send("text", {"text": "Hello"})
        await talkers[2].until("turn_complete")
        async with Talker(f"{server.url.replace('http', 'ws')}/ws?sessionId={session}") as talker:
            await talker.connected()
            await talker.send("text", {"text": "What did I say?"})
            assert (await talker.until("turn_complete"))["turn"] == 2
            await server.conversations(2)
        await server.summed("tornado_live_processes", 2)
        await server.logged("process_serving", process=1, times=2)
        async with server.talkers() as again:
            assert set(again) == {1, 2}
            after = await server.sums()
        opened = "tornado_live_conversations_opened_total"
        assert after[opened] >= before[opened] + 3


async def test_when_the_first_one_is_killed_so_hard_that_nobody_can_tell_the_others_end_too() -> None:
    async with Processes(2, exit_code=-signal.SIGKILL) as server, server.talkers() as talkers:
        directories = counting(server)
        assert len(directories) == 1
        os.kill(server.pid, signal.SIGKILL)
        for talker in talkers.values():
            assert (await talker.closed())[0] == 1001
    # Leaving has waited for the end of the output, which each of them held.
    assert not any(directory.exists() for directory in directories)


async def test_all_end_in_order_however_often_each_is_told() -> None:
    """Some that end a service signal every process of it."""
    async with Processes(2) as server, server.talkers() as talkers:
        [directory] = counting(server)
        for pid in (server.process(1), server.pid, server.process(2), server.process(1)):
            os.kill(pid, signal.SIGTERM)
        for talker in talkers.values():
            assert (await talker.closed())[0] == 1001
    assert not directory.exists()


async def test_those_who_come_while_one_ends_are_for_the_others_until_a_second_signal_ends_all(
    tmp_path: Path,
) -> None:
    scenario = tmp_path / "slow.yaml"
    scenario.write_text("turns: [{do: [{say: One.}, {wait: 3000}, {say: Two.}]}]\n")
    patient = {"LIMITS__DRAIN_S": "3600"}
    async with (
        Processes(2, "--scenario", str(scenario), environ=patient) as server,
        server.talkers() as talkers,
    ):
        for talker in talkers.values():
            await talker.send("text", {"text": "Count."})
            await talker.until("transcription", lambda data: not data["isUser"])
        os.kill(server.process(2), signal.SIGTERM)
        await talkers[2].until("status", lambda data: data["status"] == "DRAINING")
        for _ in range(10):
            async with Talker(f"{server.url.replace('http', 'ws')}/ws") as talker:
                assert await server.process_of(talker) == 1
        os.kill(server.pid, signal.SIGTERM)
        await talkers[1].until("status", lambda data: data["status"] == "DRAINING")
        os.kill(server.pid, signal.SIGTERM)
        for talker in talkers.values():
            assert (await talker.closed())[0] == 1001


async def test_one_that_does_not_end_is_killed() -> None:
    async with Processes(2, environ={"LIMITS__DRAIN_S": "0"}, exit_code=1) as server:
        os.kill(server.process(2), signal.SIGSTOP)
        os.kill(server.pid, signal.SIGTERM)
        await server.logged("process_killed", process=2)


async def test_one_that_hangs_is_killed_and_started_again() -> None:
    sooner = (
        "import tornado_live.processes as it; it.BEAT_S, it.SILENT_S = 0.2, 1.0\n"
        "from tornado_live.__main__ import main; main()"
    )
    async with Processes(2, command=("-c", sooner, "serve")) as server:
        os.kill(server.process(2), signal.SIGSTOP)
        await server.logged("process_hung", process=2)
        assert (await server.logged("process_ended", process=2))["signal"] == "SIGKILL"
        await server.logged("process_serving", process=2, times=2)


async def test_all_follow_the_tools_file_and_one_that_cannot_start_with_it_leaves_the_others_at_work(
    tmp_path: Path,
) -> None:
    tools = tmp_path / "tools.yaml"
    tools.write_text(TOOLS)
    async with Processes(2, home=tmp_path) as server:
        os.kill(server.pid, signal.SIGHUP)
        for number in (1, 2):
            await server.logged("tools_reloaded", process=number)
        await server.summed("tornado_live_tools_reloads_total taken", 2)
        tools.write_text("version: 1\ntoolz: {}\n")
        for number in (1, 2):
            await server.logged("tools_reload_failed", process=number)
        os.kill(server.process(1), signal.SIGTERM)
        ended = await server.logged("process_ended", process=1)
        assert (ended["code"], ended["level"]) == (0, "warning")
        refused = await server.logged("process_ended", process=1, code=2)
        assert any("toolz" in mistake for mistake in refused["mistakes"])
        assert (await server.get("/health")).json()["status"] == "ok"
        tools.write_text(TOOLS)
        await server.logged("process_serving", process=1, times=2)


def test_the_pauses_before_a_restart_grow_until_one_has_run_well() -> None:
    restarts = Restarts()
    pauses = [restarts.after(ran_s) for ran_s in (1, 1, 1, 1, 1, 1, 1, 1, 3600, 1)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 0.2, 0.4])


def test_a_port_that_is_taken_is_refused_even_where_its_owner_would_share_it(tmp_path: Path) -> None:
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        ended = serve("--port", str(port), "--ws-port", "0", home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    message = (
        f"listening: 127.0.0.1 port {port}: is taken by another program; stop it, or choose another port"
    )
    assert ended.stderr.splitlines() == [f"{message} with --port"]


def test_a_mistake_of_the_operator_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\ntoolz: {}\n")
    ended = serve("--port", "0", "--ws-port", "0", home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line for line in ended.stderr.splitlines() if "toolz" in line] == [
        line for line in ended.stderr.splitlines() if line.startswith("tools.yaml:2")
    ]
    assert ended.stderr.count("toolz") == 1
    assert "Traceback" not in ended.stderr


def test_a_server_of_which_no_process_can_live_gives_up(tmp_path: Path) -> None:
    (tmp_path / "mytools.py").write_text("import os\nos._exit(7)\n")
    (tmp_path / "tools.yaml").write_text(HANDLER)
    ended = serve("--port", "0", "--ws-port", "0", home=tmp_path, HANDLER_PREFIXES="[mytools]")
    assert (ended.returncode, ended.stdout) == (1, "")
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [line["code"] for line in events if line["event"] == "process_ended"] == [7, 7]
    assert "processes_given_up" in [line["event"] for line in events]


def test_where_a_killed_server_counted_is_cleared_away_by_the_next_one() -> None:
    program = (
        "from tornado_live.observe.metrics import shared_directory\n"
        "with shared_directory() as directory: print(directory, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        with shared_directory():
            assert left.is_dir()
        killed.kill()
        killed.wait()
        with shared_directory() as own:
            assert own.is_dir()
            assert not left.exists()


def test_the_sums_are_those_of_one_process_that_did_everything() -> None:
    did = (
        "metrics.conversation_opened(); metrics.turn_ended(); metrics.tool_finished('greet', True, 0.2);"
        "metrics.first_sound(0.3); metrics.failed('limited'); metrics.tokens(3, 4)"
    )
    alone = Metrics()
    for _ in range(3):
        exec(did, {"metrics": alone})
    with shared_directory() as directory:
        for process in (1, 2, 2):  # the second one died, and another went on in its place
            Counters(directory, process).begin()
            text = count(directory, process, did)
        after = samples(text)
        assert after.pop("tornado_live_conversations") == 2
        expected = samples(alone.render().decode())
        del expected["tornado_live_conversations"]
        assert after == pytest.approx(expected)
        assert "pid=" not in text
        kinds = re.compile(r"^# (?:TYPE|HELP) .*", re.MULTILINE)
        assert set(kinds.findall(text)) <= set(kinds.findall(alone.render().decode()))


def count(directory: Path, process: int, does: str) -> str:
    """Runs `does` in a process of its own; what it then tells of all."""
    program = (
        "from pathlib import Path; from tornado_live.observe.metrics import Counters, Metrics;"
        f"metrics = Metrics(Counters(Path({str(directory)!r}), {process})); {does};"
        "assert metrics.conversations() == int(metrics.render().decode()"
        ".partition('\\ntornado_live_conversations ')[2].split('.')[0]);"
        "print(metrics.render().decode())"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(PYTHONPATH=str(ROOT), **{DIRECTORY: str(directory)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def counting(server: Processes) -> set[Path]:
    """Where its processes count."""
    found = set()
    for name in Path(f"/proc/{server.process(1)}/environ").read_bytes().split(b"\0"):
        if name.startswith(DIRECTORY.encode()):
            found.add(Path(name.partition(b"=")[2].decode()))
    return found
