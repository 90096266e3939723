"""The simulator plays what was once recorded on the wire."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from dialling import SETUP, content, dialled, kinds, words
from google.genai import types
from simulating import Simulator

from tornado_live.simulator.age import STAYED
from tornado_live.simulator.recording import Closed, Down, RecordingError, Up, load_recording

SAMPLE = Path(__file__).parent / "recordings" / "2.5-native-audio.jsonl"
HEADER = '{"recording": 1, "model": "models/m", "version": "v1beta", "at": "2026-11-20T09:30:00Z"}\n'
CALL = "function-call-3880303533621599938"


def recorded(tmp_path: Path, lines: str) -> Path:
    path = tmp_path / "recording.jsonl"
    path.write_text(HEADER + lines)
    return path


def test_a_recording_is_read_with_its_sound_of_the_recorded_size(tmp_path: Path) -> None:
    recording = load_recording(
        recorded(
            tmp_path,
            """
            {"t": 0, "up": {"setup": {}}}
            {"t": 0.5, "down": {"modelTurn": {"parts": [{"inlineData": {"data": {"$bytes": 5}}}]}}}
            {"t": 1, "up": {"realtime_input": {"activity_end": {}, "video": {"data": {"$bytes": 2}}}}}
            {"t": 2, "down": {"a": {"mimeType": "image/jpeg", "data": {"$bytes": 3}}}}
            {"t": 3, "close": {"code": 1000, "reason": "", "by": "client"}}
            """,
        )
    )
    assert recording.model == "models/m"
    first, sound, *inputs, picture, close = recording.entries
    assert first == Up(0.0, "setup")
    assert isinstance(sound, Down)
    part = sound.message["modelTurn"]["parts"][0]  # type: ignore[index,call-overload]
    pcm = base64.b64decode(part["inlineData"]["data"])
    assert (len(pcm), any(pcm)) == (5, True)
    assert inputs == [Up(1.0, "activityEnd"), Up(1.0, "video")]
    assert picture == Down(
        2.0, {"a": {"mimeType": "image/jpeg", "data": base64.b64encode(bytes(3)).decode()}}
    )
    assert close == Closed(3.0, 1000, "", by_server=False)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("{", r":2: is not JSON"),
        ('{"down": {}}', r":2: a line must be a mapping with the time t in seconds"),
        (
            '{"t": 2, "down": {}}\n{"t": 1, "down": {}}',
            r":3: t must not be less than that of the line before",
        ),
        ('{"t": NaN, "down": {}}', r":2: t must be a number of seconds, 0 or more"),
        (
            '{"t": 1, "down": {"data": {"$bytes": "x"}}}',
            r":2: \$bytes must be a whole number, 67108864 at most",
        ),
        ('{"t": 1, "down": {"data": {"$bytes": -2}}}', r":2: \$bytes must be a whole number"),
        ('{"t": 1, "close": {"code": 5, "by": "server"}}', r":2: must be a WebSocket close code that can be"),
        (
            '{"t": 1, "up": {"a": {}, "b": {}}}',
            r":2: a line must have up \(with one field\), down, or close with a code",
        ),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, lines: str, problem: str) -> None:
    with pytest.raises(RecordingError, match=problem):
        load_recording(recorded(tmp_path, lines))


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        load_recording(path)
    path.write_text("")
    with pytest.raises(RecordingError, match="is empty"):
        load_recording(path)
    path.write_text('{"t": 0, "up": {"setup": {}}}\n')
    with pytest.raises(RecordingError, match=r":1: the first line must be"):
        load_recording(path)


async def test_what_was_sent_is_waited_for_and_what_came_follows_it() -> None:
    arguments = ("--recording", str(SAMPLE))
    async with Simulator(speed=400, arguments=arguments) as simulator, dialled(simulator) as client:
        await client.send({"setup": SETUP})
        messages = [await client.next(), await client.next()]
        assert kinds(messages) == ["setupComplete", "sessionResumptionUpdate"]
        await client.say("Anything else.")
        assert "toolCall" in await client.next()
        response = {"id": CALL, "name": "get_weather", "response": {"result": "15 degrees"}}
        await client.send({"toolResponse": {"functionResponses": [response]}})
        turn = await client.turn()
        assert words(turn) == "It is 14 degrees."
        assert kinds(turn) == ["modelTurn", "generationComplete", "turnComplete", "usageMetadata"]
        await client.audio(bytes(64))  # one message stands for a whole run of sound
        assert content(await client.next()) == {"inputTranscription": {"text": " Thank you."}}
        assert await client.next() == {"goAway": {"timeLeft": "50s"}}
        assert await client.closed() == (1008, STAYED[:123])


async def test_each_connection_plays_its_own_and_faults_work_there_too(tmp_path: Path) -> None:
    for number in (1, 2):
        recorded(
            tmp_path,
            f"""
            {{"t": 0, "up": {{"setup": {{}}}}}}
            {{"t": 0.1, "down": {{"setupComplete": {{"sessionId": "{number}"}}}}}}
            {{"t": 0.2, "close": {{"code": 1006, "reason": "", "by": "server"}}}}
            """,
        ).rename(tmp_path / f"{number}.jsonl")
    arguments = ("--recording", str(tmp_path / "1.jsonl"), "--recording", str(tmp_path / "2.jsonl"))
    async with Simulator(arguments=(*arguments, "--fault", "unknown_fields@connection:1")) as simulator:
        for number in (1, 2):
            async with dialled(simulator) as client:
                await client.send({"setup": SETUP})
                message = json.loads(await client.socket.recv())
                assert message["setupComplete"]["sessionId"] == str(number)
                assert ("somethingElse" in message) == (number == 2)
                assert (await client.closed())[0] == 1006


async def test_a_scenario_can_name_a_recording_beside_it(tmp_path: Path) -> None:
    (tmp_path / "sample.jsonl").write_bytes(SAMPLE.read_bytes())
    (tmp_path / "scenario.yaml").write_text("connections: [{recording: sample.jsonl}]")
    async with (
        Simulator(tmp_path / "scenario.yaml", speed=400) as simulator,
        dialled(simulator) as client,
    ):
        await client.send({"setup": SETUP})
        assert await client.next() == {"setupComplete": {}}


async def test_a_recording_that_cannot_be_played_ends_the_simulator_at_once(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"recording\.jsonl:2: is not JSON"):
        async with Simulator(arguments=("--recording", str(recorded(tmp_path, "{")))):
            pass


async def test_google_s_client_reads_every_message_of_the_sample() -> None:
    arguments = ("--recording", str(SAMPLE))
    async with Simulator(tls=True, speed=400, arguments=arguments) as simulator:
        client = simulator.client()
        config = types.LiveConnectConfig(response_modalities=[types.Modality.AUDIO])
        async with client.aio.live.connect(model="any", config=config) as session:
            await session.send_realtime_input(text="The weather?")
            calls = []
            async for message in session.receive():
                if message.tool_call is not None:
                    calls += message.tool_call.function_calls or []
                    answer = types.FunctionResponse(id=CALL, name="get_weather", response={"result": "ok"})
                    await session.send_tool_response(function_responses=[answer])
            assert [call.id for call in calls] == [CALL]
        await asyncio.to_thread(client.close)
