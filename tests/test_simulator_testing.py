"""The simulator in the tests of another project."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from google.genai import types
from serving import ROOT
from websockets.sync.client import connect

from tornado_live.simulator.testing import LIVE_PATH, ControlRefused, Simulator, SimulatorFailed

HELLO = {"turns": [{"repeat": True, "do": [{"say": "Hello.", "audio": "none"}]}]}
MODEL = "gemini-3.8-live"

ANOTHER_PROJECT = """
import pytest


def test_plain(gemini_simulator):
    assert gemini_simulator.live_url.startswith("wss://localhost:")
    assert gemini_simulator.status()["simulator"] is True


@pytest.mark.gemini_simulator(scenario={"turns": []}, tls=False, arguments=["--age", "60"])
def test_marked(gemini_simulator):
    assert gemini_simulator.live_url.startswith("ws://127.0.0.1:")
    with pytest.raises(ValueError, match="there is no open connection"):
        gemini_simulator.control("drop")


@pytest.mark.gemini_simulator("turns: nonsense", tls=False)
@pytest.mark.xfail(strict=True, reason="turns must be a list")
def test_positional(gemini_simulator):
    pass
"""


async def test_google_s_client_talks_to_it_in_one_line() -> None:
    async with Simulator(HELLO, tls=True, speed=20) as simulator:
        client = simulator.client()
        async with client.aio.live.connect(
            model=MODEL, config=types.LiveConnectConfig(output_audio_transcription={})
        ) as session:
            await session.send_realtime_input(text="Hello?")
            said = [
                message.server_content.output_transcription.text
                async for message in session.receive()
                if message.server_content and message.server_content.output_transcription
            ]
            assert said == ["Hello."]
            assert simulator.status()["conversations"][0]["counts"]["turns"] == 1
        await asyncio.to_thread(client.close)


def test_it_needs_no_event_loop() -> None:
    with Simulator(HELLO, speed=20) as simulator:
        assert simulator.live_url == f"ws://127.0.0.1:{simulator.port}{LIVE_PATH}"
        with connect(simulator.live_url, proxy=None, compression=None) as socket:
            socket.send('{"setup": {"model": "models/gemini-3.8-live"}}')
            assert socket.recv() == b'{\n  "setupComplete": {}\n}\n'
            assert simulator.control({"close": {"code": 1008, "reason": "Enough."}}) == [0]
            with pytest.raises(Exception, match="Enough"):
                socket.recv()
        assert simulator.control("http") == ["next"]
        with pytest.raises(ControlRefused, match="did you mean"):
            simulator.control("htpp")
        assert set(simulator.faults()) == {"faults", "switches", "connections", "waiting"}


def test_what_keeps_it_from_starting_is_told() -> None:
    with pytest.raises(SimulatorFailed, match="turn is not known here"), Simulator({"turn": []}):
        pass


def test_everything_can_be_said_in_python(tmp_path: Path) -> None:
    scenario = tmp_path / "hello.yaml"
    scenario.write_text("turns: [{do: [{say: Hello.}]}]")
    with Simulator(
        str(scenario),
        latency=0.1,
        require_key=True,
        faults=["drop@20", "http=429"],
        switches={"bad_handle": "session", "chunk_bytes": [480, 480]},
        age=60,
        go_away=float("inf"),
        arguments=["--handle-life", "5"],
    ) as simulator:
        assert simulator.status()["faults"] == {"http": 1}
    with Simulator(faults={"http": {"status": 503, "times": 2}, "no_setup_answer": True}) as simulator:
        assert simulator.status()["faults"] == {"http": 2}
        with pytest.raises(Exception, match="503"), connect(simulator.live_url, proxy=None):
            pass
    with Simulator(recording=ROOT / "tests/recordings/2.5-native-audio.jsonl", faults="drop@9") as simulator:
        assert simulator.status()["faults"] == {}


def test_it_can_be_started_again_and_not_used_before() -> None:
    simulator = Simulator(HELLO)
    for use in (simulator.status, simulator.stop, simulator.wait):
        with pytest.raises(SimulatorFailed, match="is not started"):
            use()
    ports = []
    for _ in range(2):
        with simulator:
            ports.append(simulator.status()["connections"])
            with pytest.raises(SimulatorFailed, match="runs already"):
                simulator.start()
            with pytest.raises(SimulatorFailed, match="nothing but TLS"):
                simulator.client()
    assert ports == [0, 0]


@pytest.fixture
def another_project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tornado_live.simulator.testing"]\n')
    (tmp_path / "test_it.py").write_text(ANOTHER_PROJECT)
    return tmp_path


async def test_another_project_has_it_as_a_fixture(another_project: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", "-p", "no:tornasync"),
        *("--rootdir", str(another_project), str(another_project / "test_it.py")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert b"2 passed, 1 xfailed" in output, output.decode()
