from __future__ import annotations

import wave
from pathlib import Path

import pytest
from simulating import Simulator

from tornado_live.simulator.brain import FunctionCall
from tornado_live.simulator.pcm import LinearResampler, tone
from tornado_live.simulator.scenario import (
    Calls,
    Close,
    Connection,
    Drop,
    End,
    Hang,
    Opening,
    Say,
    Scenario,
    ScenarioError,
    ScriptedTurn,
    Send,
    Wait,
    load_scenario,
)

EXAMPLES = Path(__file__).parent.parent / "docs" / "simulator.md"


def load(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return load_scenario(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text)
    prefix = f"{tmp_path / 'scenario.yaml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_every_kind_of_step_is_read(tmp_path: Path) -> None:
    scenario = load(
        tmp_path,
        """
        setup: {delay: 0.1}
        start:
          - wait: 1
        turns:
          - heard: What's the weather?
            do:
              - call: {name: get_weather, args: {city: New York}}
              - say: It is {get_weather.temperature} degrees.
                seconds: 2
          - typed: both
            repeat: true
            do:
              - call: [{name: a}, {name: b}]
                cancel_after: 0.5
              - say: Text only.
                audio: none
              - send: {goAway: {timeLeft: 50s}}
              - close: {code: 1011, reason: Internal error encountered.}
              - drop: true
              - hang: true
        end: {after: 60, drop: true}
        """,
    )
    assert scenario.connection(0) == Connection(
        opening=Opening(delay=0.1),
        start=(Wait(1.0),),
        turns=(
            ScriptedTurn(
                heard="What's the weather?",
                steps=(
                    Calls((FunctionCall("get_weather", {"city": "New York"}),)),
                    Say("It is {get_weather.temperature} degrees.", seconds=2.0),
                ),
            ),
            ScriptedTurn(
                typed="both",
                repeat=True,
                steps=(
                    Calls((FunctionCall("a", {}), FunctionCall("b", {})), cancel_after=0.5),
                    Say("Text only.", audio="none"),
                    Send({"goAway": {"timeLeft": "50s"}}),
                    Close(1011, "Internal error encountered."),
                    Drop(),
                    Hang(),
                ),
            ),
        ),
        end=End(after=60.0, close=None),
    )


def test_each_connection_has_its_script_and_the_last_one_stays(tmp_path: Path) -> None:
    scenario = load(
        tmp_path,
        """
        connections:
          - setup: {hang: true}
          - setup: {close: {code: 1011, reason: Busy.}}
          - turns: []
        """,
    )
    assert [scenario.connection(number).opening for number in range(4)] == [
        Opening(hang=True),
        Opening(close=Close(1011, "Busy.")),
        Opening(),
        Opening(),
    ]


def test_every_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        """
        turn: []
        setup: {delay: -1, hang: maybe}
        turns:
          - heard: a
            typed: b
          - do:
              - sey: Hello.
              - {say: Hello., wait: 1}
              - {say: 5, audio: mp3}
              - call: {arguments: {}}
              - close:
                  code: 1006
                  reason: A close frame holds no more than 125 bytes, two of which are the code, so that this
                    text is too long by some letters or words
              - Hello.
        end: {after: soon}
        """,
    ) == [
        'turn is not known here - did you mean "turns"?',
        "setup.delay must be a number of seconds, 0 or more",
        "setup.hang must be true or false",
        'turns[0] has "heard" (for speech) and "typed" (for text): make two turns of it',
        "turns[0].do is missing: it must be a list",
        'turns[1].do[0] must be one of call, close, drop, fault, hang, say, send, wait - did you mean "say"?',
        "turns[1].do[1] has say and wait: make two steps of it",
        "turns[1].do[2].say must be text",
        "turns[1].do[2].audio must be tone, voice or none; a file is given as wav",
        'turns[1].do[3].call[0].arguments is not known here - did you mean "args"?',
        "turns[1].do[3].call[0].name is missing: it must be text",
        "turns[1].do[4].close.code must be a WebSocket close code that can be sent, such as 1011",
        "turns[1].do[4].close.reason must not be longer than the 123 bytes of a close frame",
        "turns[1].do[5] must be one of call, close, drop, fault, hang, say, send, wait with its value, "
        "such as `- say: Hello.`",
        'end needs either "close" or "drop"',
        "end.after must be a number of seconds, 0 or more",
    ]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "- say: Hello.") == [
        "the file must be a mapping of age, connections, end, faults, recording, setup, start, switches, turns"
    ]


def test_a_file_that_is_missing_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot be read: No such file"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match=r"is not YAML"):
        load(tmp_path, "turns: [")
    with pytest.raises(ScenarioError, match=r'is not YAML: "do" is there twice\s+in .*, line 1, column 18'):
        load(tmp_path, "turns: [{do: [], do: [{say: Hello.}]}]")
    with pytest.raises(ScenarioError, match=r"is nested too deep"):
        load(tmp_path, "[" * 20_000)


def test_speech_can_come_from_a_wav_file_beside_the_scenario(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "answer.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(tone(0.5, rate=16_000))
    scenario = load(tmp_path, "turns: [{do: [{say: Hello., wav: answer.wav}]}]")
    (step,) = scenario.connection(0).turns[0].steps
    assert isinstance(step, Say)
    assert isinstance(step.audio, bytes)
    assert len(step.audio) == pytest.approx(24_000, abs=8)


def test_a_wav_file_that_cannot_be_used_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "answer.wav").write_bytes(b"RIFF")
    (problem,) = problems(tmp_path, "turns: [{do: [{say: Hello., wav: answer.wav}]}]")
    assert problem.startswith("turns[0].do[0].wav cannot be used: answer.wav is not a WAV file")


def test_the_examples_of_the_documentation_are_scenarios(tmp_path: Path) -> None:
    examples = [block.split("```")[0] for block in EXAMPLES.read_text().split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for example in examples:
        assert load(tmp_path, example).connections


async def test_a_scenario_that_cannot_be_played_ends_the_simulator_at_once() -> None:
    with pytest.raises(AssertionError, match=r'turn is not known here - did you mean "turns"\?'):
        async with Simulator("turn: []"):
            pass


def test_resampling_in_chunks_gives_the_same_as_at_once() -> None:
    pcm = tone(0.2, rate=48_000)
    at_once = LinearResampler(48_000, 16_000).feed(pcm)
    resampler = LinearResampler(48_000, 16_000)
    in_chunks = b"".join(resampler.feed(pcm[at : at + 1_922]) for at in range(0, len(pcm), 1_922))
    assert in_chunks == at_once
    assert len(at_once) == len(pcm) // 3
