"""`tornado-live doctor --probe` against the simulator, and against a model side that does otherwise."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from faults.model import ModelLine, ModelSide
from serving import ROOT
from simulating import Simulator
from test_doctor import KEY, typed

from tornado_live.doctor.line import INPUT_USD, OUTPUT_USD, Bench, Budget, Limits, Spent, sizes_of_sound
from tornado_live.doctor.probe import probe
from tornado_live.doctor.probes import AGAIN, COUNT, PROBES, Finding, Probe, base_setup, turns
from tornado_live.doctor.recording import Recorder, Scrubber
from tornado_live.errors import ConfigError
from tornado_live.observe.logs import Masker
from tornado_live.settings import load_settings
from tornado_live.simulator.recording import load_recording

FACTS = {
    "modalities",
    "thinking",
    "affective_dialog",
    "proactive_audio",
    "calls",
    "compression",
    "transcripts",
    "idle",
    "typed",
    "resumption",
    "turn_after_call",
    "default_call",
    "scheduling",
    "search",
    "instruction",
    "context_update",
    "seed",
}


async def probed(
    home: Path,
    url: str,
    limits: Limits | None = None,
    probes: tuple[Probe, ...] = PROBES,
    *,
    pace: float = 20,
) -> tuple[int, list[str], dict[str, list[dict[str, Any]]]]:
    """The exit code, the lines, and each recording by name."""
    environ = {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": url}
    settings = load_settings(home=home, config=None, environ=environ, overrides={})
    lines: list[str] = []
    directory = home / "recordings"
    code = await probe(
        settings, limits or Limits(), lines.append, recordings=directory, pace=pace, probes=probes
    )
    files = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in directory.glob("*.jsonl")
    }
    assert not [line for line in lines if KEY in line]
    assert KEY not in json.dumps(files)
    return code, lines, files


def table(lines: list[str]) -> dict[str, list[tuple[str, str]]]:
    """What was seen by fact: (verdict, seen). The columns are two spaces apart."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        row = re.fullmatch(r"(confirms|refutes|new|open) +(\S.*?)  +(\S.*?)  +(\S.*)", line)
        if row:
            found.setdefault(row[2], []).append((row[1], row[4]))
    return found


@pytest.mark.timeout(90)
async def test_the_simulator_confirms_what_models_yaml_says_of_it(tmp_path: Path) -> None:
    async with Simulator(speed=20, require_key=True) as simulator:
        code, lines, files = await probed(tmp_path, simulator.url)
    assert code == 0, lines
    found = table(lines)
    assert {fact for fact in found if {verdict for verdict, _ in found[fact]} == {"confirms"}} == FACTS, lines
    assert found["version v1"] == [("new", "serves Live")]
    assert found["permessage-deflate"] == [("new", "not agreed")]
    assert found["no key"][0][1].endswith(": key_missing")
    assert found["bad path"] == [("new", "HTTP 404")]
    assert found["a made-up handle"][0][1].endswith(": handle_refused")
    assert found["realtimeInput in mid-conversation"] == [("new", "taken and answered")]
    assert found["BLOCKING call, interrupted"][0][1].startswith("toolCallCancellation")
    assert found["hears_during_call"] == [("open", "sound in a call: taken this time")]
    assert found["connection_s"] == [("open", "not waited for: it needs --minutes 60")]
    assert "lastConsumedClientMessageIndex" not in found  # nobody asked for it
    (unseen,) = (line for line in lines if line.startswith("Nothing was seen of "))
    assert "voice_activity" in unseen
    assert "3 minutes and $0.10" in lines[0]
    assert "models/gemini-3.8-live" in lines[0]

    talk = files["conversation"]
    assert (talk[0]["recording"], talk[0]["model"], talk[0]["version"]) == (
        1,
        "models/gemini-3.8-live",
        "v1beta",
    )
    assert [next(iter(line)) for line in talk[1:]] == ["t"] * (len(talk) - 1)
    assert talk[1]["up"]["setup"]["model"] == "models/gemini-3.8-live"
    assert talk[2]["down"] == {"setupComplete": {}}
    assert [line["t"] for line in talk[1:]] == sorted(line["t"] for line in talk[1:])
    assert talk[-1]["close"] == {"code": 1000, "reason": "", "by": "client"}
    assert COUNT in json.dumps(talk)
    call = files["call-blocking"]
    (called,) = (line["down"]["toolCall"] for line in call if "toolCall" in line.get("down", {}))
    (cancelled,) = (
        line["down"]["toolCallCancellation"]
        for line in call
        if "toolCallCancellation" in line.get("down", {})
    )
    assert cancelled["ids"] == [called["functionCalls"][0]["id"]]
    (heard,) = {line["up"]["realtimeInput"]["audio"]["data"]["$bytes"] for line in call if _has_sound(line)}
    assert heard == 3_200
    for path in (tmp_path / "recordings").glob("*.jsonl"):
        assert load_recording(path).model == "models/gemini-3.8-live"


def _has_sound(line: dict[str, Any]) -> bool:
    return "audio" in line.get("up", {}).get("realtimeInput", {})


async def test_a_recording_of_a_probe_can_be_played(tmp_path: Path) -> None:
    async with Simulator(speed=20) as simulator:
        _, _, files = await probed(tmp_path, simulator.url, probes=PROBES_OF_TURNS)
    recording = tmp_path / "recordings" / "conversation.jsonl"
    async with Simulator(speed=20, arguments=("--recording", str(recording))) as simulator:
        again = tmp_path / "again"
        again.mkdir()
        _, lines, played = await probed(again, simulator.url, probes=PROBES_OF_TURNS)
    assert table(lines)["typed"] == [("confirms", "clientContent: answered in mid-conversation too")]
    heard = [[line["down"] for line in one["conversation"] if "down" in line] for one in (files, played)]
    assert heard[0] == heard[1]


PROBES_OF_TURNS = (Probe("turns", turns, 1, 0.001),)


async def test_a_fact_that_does_not_hold_is_refuted(tmp_path: Path) -> None:
    text = (ROOT / "config/models.yaml").read_text(encoding="utf-8")
    always = 'proactive_audio: {is: always, documented: "docs/models/gemini-3.8-live: false is an error"}'
    assert always in text
    (tmp_path / "config").mkdir()
    (tmp_path / "config/models.yaml").write_text(
        text.replace(always, "proactive_audio: {is: optional, inferred: for this test}")
    )
    async with Simulator(speed=20) as simulator:
        code, lines, _ = await probed(
            tmp_path, simulator.url, probes=tuple(one for one in PROBES if one.name == "setups")
        )
    assert code == 0
    assert table(lines)["proactive_audio"] == [
        ("confirms", "true: taken"),
        ("refutes", 'false: close 1007 "Request contains an invalid argument."'),
    ]
    told = next(line for line in lines if line.startswith("To be changed in config/models.yaml"))
    assert told.startswith("To be changed in config/models.yaml for gemini-3.8-live: proactive_audio.")


async def test_text_that_is_taken_at_the_beginning_only_is_not_taken_at_any_time(tmp_path: Path) -> None:
    switched = ("--switch", "client_content_mid_session=false")
    async with Simulator(speed=20, arguments=switched) as simulator:
        _, lines, _ = await probed(tmp_path, simulator.url, probes=PROBES_OF_TURNS)
    refusal = 'close 1007 "Request contains an invalid argument."'
    assert table(lines)["typed"] == [("refutes", f"clientContent: answered once, {refusal}")]


async def test_what_nobody_expects_ends_one_question_and_not_the_probe(tmp_path: Path) -> None:
    scenario = {
        "turns": [
            {"typed": "weather", "repeat": True, "do": [{"send": {"toolCall": {"functionCalls": ["x"]}}}]},
            {"repeat": True, "do": [{"say": "one two three."}]},
        ]
    }
    probes = (*(one for one in PROBES if one.name == "scheduling"), *PROBES_OF_TURNS)
    async with Simulator(scenario, speed=20) as simulator:
        code, lines, _ = await probed(tmp_path, simulator.url, probes=probes)
    assert code == 0
    ((verdict, seen),) = table(lines)["scheduling"]
    assert verdict == "open"
    assert seen.startswith("broken off by a message of a shape that is not known (")
    assert table(lines)["typed"][0][0] == "confirms"


async def test_a_probe_that_is_broken_off_tells_what_it_has_found(tmp_path: Path) -> None:
    asking = asyncio.Event()

    async def for_ever(bench: Bench) -> list[Finding]:
        asking.set()
        await asyncio.Event().wait()
        return []

    lines: list[str] = []
    async with Simulator(speed=20) as simulator, asyncio.TaskGroup() as tasks:
        settings = load_settings(
            home=tmp_path,
            config=None,
            environ={"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": simulator.url},
            overrides={},
        )
        compression = next(one for one in PROBES if one.name == "compression")
        probes = (compression, Probe("for ever", for_ever, 1, 0.0))
        task = tasks.create_task(
            probe(settings, Limits(), lines.append, recordings=tmp_path / "r", probes=probes)
        )
        await asking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert table(lines)["permessage-deflate"] == [("new", "not agreed")]
    assert f"recordings are in {tmp_path / 'r'}" in lines[-1]


@pytest.mark.parametrize("there", ["file", "directory"])
async def test_recordings_are_kept_apart_from_what_is_there(tmp_path: Path, there: str) -> None:
    place = tmp_path / "recordings"
    if there == "file":
        place.write_text("")
    else:
        place.mkdir()
        (place / "first.jsonl").write_text("")
    problem = "cannot be used: File exists" if there == "file" else "is not empty; name a new directory"
    with pytest.raises(ConfigError) as caught:
        await probed(tmp_path, "http://127.0.0.1:1")
    assert str(caught.value) == f"command line: --recordings {place}: {problem}"


async def test_a_service_that_is_busy_says_for_how_long(tmp_path: Path) -> None:
    async with ModelSide() as model:
        model.refusals.append((429, {"Retry-After": "7"}))
        code, lines, _ = await probed(tmp_path, model.url, Limits(max_usd=0.001))
    assert code == 1
    assert "at most 3 minutes and $0.001," in lines[0]
    assert "HTTP 429, Retry-After 7: " in lines[-1]


async def test_a_service_that_takes_nothing_is_named_by_its_cause(tmp_path: Path) -> None:
    async with ModelSide() as model:
        model.refusals.append((403, {}))
        code, lines, files = await probed(tmp_path, model.url)
    assert code == 1
    assert lines[-1].split()[:2] == ["WRONG", "probe"]
    assert lines[-1].endswith("(upgrade_forbidden)")
    assert files == {}


async def speaking(model: ModelSide) -> None:
    """Answers in 40 ms pieces, with a handle, a number as text and no generationComplete, to one form of text."""
    first = await model.dialled()
    await first.ready()
    line = await model.dialled()
    await line.ready()
    assert await line.typed() == COUNT
    for word in ("one", " one two", " one two three"):
        await line.say(word.strip(), bytes(1920), complete=False)
    await line.send(
        {"sessionResumptionUpdate": {"newHandle": "secret-7", "lastConsumedClientMessageIndex": "3"}}
    )
    await line.send({"serverContent": {"inputTranscription": {"text": "Ada's word"}, "turnComplete": True}})
    assert await line.typed() == AGAIN
    await line.send({"serverContent": {"turnComplete": True}})
    assert await line.typed() == AGAIN
    await line.close(1007, "Request contains an invalid argument.")


async def test_what_is_special_of_a_service_is_seen(tmp_path: Path) -> None:
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(speaking(model))
        code, lines, files = await probed(tmp_path, model.url, probes=PROBES_OF_TURNS)
    assert code == 0
    found = table(lines)
    assert found["chunks of sound"] == [("new", "3, of 1920 to 1920 bytes, median 1920")]
    assert found["generationComplete to turnComplete"] == [("new", "no generationComplete")]
    assert found["transcripts"] == [("refutes", "3 accumulated")]
    assert found["silent_s"][0][0] == "open"  # one answer in time proves no limit
    assert found["lastConsumedClientMessageIndex"] == [("new", "str")]
    assert found["numbers as text"] == [("new", "sessionResumptionUpdate.lastConsumedClientMessageIndex")]
    assert found["realtimeInput in mid-conversation"] == [
        ("new", 'close 1007 "Request contains an invalid argument.": text_refused')
    ]
    talk = files["conversation"]
    assert talk[-1]["close"] == {
        "code": 1007,
        "reason": "Request contains an invalid argument.",
        "by": "server",
    }
    text = json.dumps(talk)
    assert '{"$bytes": 1920}' in text
    assert "secret-7" not in text
    assert "Ada" not in text
    assert '"handle-1"' in text
    assert "***** ****" in text


async def deaf(model: ModelSide) -> None:
    """A model that breaks off at a text, and one that does at sound during a call."""
    await (await model.dialled()).ready()
    line = await model.dialled()
    await line.ready()
    await line.typed()
    await line.close(1007, "Request contains an invalid argument.")
    for what in ("realtimeInput", "clientContent"):  # sound, and the words that interrupt
        line = await model.dialled()
        await line.ready()
        await line.typed()
        await line.call("fc_1", "get_weather", {"city": "Berlin"})
        await line.receive(what)
        await line.close(1008, "Operation is not implemented, or supported, or enabled.")


async def knowing_no_scheduling(model: ModelSide, *, plain_too: bool) -> None:
    """A model that breaks off at an answer with scheduling, or at every answer."""
    await (await model.dialled()).ready()
    for scheduled in (True, False):
        line = await model.dialled()
        await line.ready()
        await line.typed()
        await line.call("fc_1", "get_weather", {"city": "Berlin"})
        answer = await line.receive("toolResponse")
        assert ("scheduling" in answer["toolResponse"]["functionResponses"][0]) == scheduled
        if scheduled or plain_too:
            await line.close(1007, "Request contains an invalid argument.")


@pytest.mark.parametrize("plain_too", [False, True])
async def test_a_refused_answer_of_a_call_is_blamed_on_its_scheduling_only_if_another_is_taken(
    tmp_path: Path, plain_too: bool
) -> None:
    probes = tuple(one for one in PROBES if one.name == "scheduling")
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(knowing_no_scheduling(model, plain_too=plain_too))
        _, lines, _ = await probed(tmp_path, model.url, probes=probes)
    refusal = 'close 1007 "Request contains an invalid argument."'
    seen = ("open", f"WHEN_IDLE: {refusal}; without it: {refusal}")
    assert table(lines)["scheduling"] == [seen if plain_too else ("refutes", f"WHEN_IDLE: {refusal}")]


@pytest.mark.parametrize("default", ["BLOCKING", "NON_BLOCKING"])
async def test_a_call_that_leaves_it_to_the_model_is_told_by_its_interruption(
    tmp_path: Path, default: str
) -> None:
    switched = ("--switch", f"default_behaviour={default}")
    async with Simulator(speed=20, arguments=switched) as simulator:
        probes = tuple(one for one in PROBES if one.name == "calls")
        _, lines, _ = await probed(tmp_path, simulator.url, probes=probes)
    verdict = "confirms" if default == "NON_BLOCKING" else "refutes"
    assert table(lines)["default_call"] == [(verdict, f"interrupted like a {default} call")]


@pytest.mark.parametrize(("form", "verdict"), [("turn", "confirms"), ("cumulative", "refutes")])
async def test_usage_of_the_turn_is_told_from_that_of_the_session(
    tmp_path: Path, form: str, verdict: str
) -> None:
    scenario = {"turns": [{"do": [{"say": "one two three four five six"}]}, {"do": [{"say": "nine ten"}]}]}
    async with Simulator(scenario, speed=20, arguments=("--switch", f"usage={form}")) as simulator:
        _, lines, _ = await probed(tmp_path, simulator.url, probes=PROBES_OF_TURNS)
    ((told, seen),) = table(lines)["usage"]
    assert told == verdict
    assert seen.startswith(f"{form}: ")


async def failing(model: ModelSide) -> None:
    """A model side that has a fault of its own whenever something is asked."""
    await (await model.dialled()).ready()
    for _ in range(2):
        line = await model.dialled()
        await line.ready()
        await line.close(1011, "Internal error encountered.")


async def test_a_failure_of_the_service_refutes_nothing(tmp_path: Path) -> None:
    probes = tuple(one for one in PROBES if one.name in ("updates", "memory"))
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(failing(model))
        _, lines, _ = await probed(tmp_path, model.url, probes=probes, pace=1)
    told = [("open", 'close 1011 "Internal error encountered."')]
    assert table(lines)["context_update"] == told
    assert table(lines)["seed"][0][0] == "open"


async def test_refusals_in_a_conversation_are_held_against_the_facts(tmp_path: Path) -> None:
    probes = (*PROBES_OF_TURNS, *(one for one in PROBES if one.name == "calls"))
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(deaf(model))
        code, lines, files = await probed(tmp_path, model.url, probes=probes, pace=1)
    assert code == 0
    found = table(lines)
    assert found["typed"] == [
        ("refutes", 'clientContent: close 1007 "Request contains an invalid argument."')
    ]
    refusal = 'close 1008 "Operation is not implemented, or supported, or enabled."'
    assert found["hears_during_call"] == [("refutes", f"sound in a call: {refusal}")]
    assert found["NON_BLOCKING call"][0][1].startswith(refusal)
    assert "audio" in files["call-blocking"][-2]["up"]["realtimeInput"]
    told = next(line for line in lines if line.startswith("To be changed"))
    assert "hears_during_call, typed" in told


async def leaving(model: ModelSide, left: asyncio.Event) -> None:
    line = await model.dialled()
    await line.ready()
    await line.close(1008, "The operation was aborted.")
    left.set()


async def test_a_close_that_came_while_nobody_listened_is_recorded(tmp_path: Path) -> None:
    left = asyncio.Event()
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(leaving(model, left))
        settings = load_settings(
            home=tmp_path,
            config=None,
            environ={"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": model.url},
            overrides={},
        )
        facts = settings.models.of("gemini-3.8-live")
        bench = Bench(
            base_url=model.url,
            key=KEY,
            version="v1beta",
            facts=facts,
            evidence={},
            budget=Budget(Limits(), time.monotonic()),
            scrubber=Scrubber((), Masker()),
            ssl_context=ssl.create_default_context(),
        )
        async with bench.opened("left", base_setup(bench)) as line:
            await left.wait()
            await line.socket.wait_closed()
    end = bench.recorded["left"].lines[-1]["close"]
    assert end == {"code": 1008, "reason": "The operation was aborted.", "by": "server"}


async def dying(model: ModelSide) -> None:
    """A connection that is told to go and does not."""
    await (await model.dialled()).ready()
    line: ModelLine = await model.dialled()
    await line.ready()
    await line.go_away("50s")
    await line.close(1008, "The operation was aborted.")


async def test_the_age_of_a_connection_is_waited_for_where_there_is_time(tmp_path: Path) -> None:
    text = (ROOT / "config/models.yaml").read_text(encoding="utf-8")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/models.yaml").write_text(
        text.replace("connection_s: {is: 3480", "connection_s: {is: 30")
    )
    async with ModelSide() as model, asyncio.TaskGroup() as tasks:
        tasks.create_task(dying(model))
        code, lines, files = await probed(tmp_path, model.url, probes=())
    assert code == 0
    told = r'goAway at \d+ s, timeLeft 50s; close 1008 "The operation was aborted\." at \d+ s'
    ((verdict, seen),) = table(lines)["connection_s"]
    assert verdict == "refutes"
    assert re.fullmatch(told, seen)
    assert [line["down"] for line in files["age"][2:4]] == [
        {"setupComplete": {}},
        {"goAway": {"timeLeft": "50s"}},
    ]


async def test_what_does_not_fit_into_the_bounds_is_left_out(tmp_path: Path) -> None:
    probes = (
        *(one for one in PROBES if one.name in ("compression", "calls")),
        Probe("for ever", turns, 1e6, 0.0),
    )
    async with Simulator(speed=20) as simulator:
        code, lines, files = await probed(tmp_path, simulator.url, Limits(max_usd=0.01), probes)
    assert code == 0
    found = table(lines)
    assert found["permessage-deflate"] == [("new", "not agreed")]
    assert found["calls"] == found["for ever"] == [("open", "left out: not enough time or money left")]
    assert set(files) == {"first", "compression"}


def test_money_is_counted_by_the_tokens_and_before_them_by_the_sound() -> None:
    budget = Budget(Limits(minutes=1, max_usd=0.01), 100.0)
    sound = {
        "serverContent": {
            "modelTurn": {"parts": [{"inlineData": {"data": base64.b64encode(bytes(48_000)).decode()}}]}
        }
    }
    assert sizes_of_sound(sound) == [48_000]
    budget.count(sound)
    assert budget.spent_usd == pytest.approx(25 * OUTPUT_USD)
    usage = {
        "promptTokenCount": 100,
        "responseTokenCount": 30,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 135,
    }
    budget.count({"usageMetadata": usage})
    assert budget.spent_usd == pytest.approx(100 * INPUT_USD + 35 * OUTPUT_USD)
    assert budget.allows(60, 0.005, 100.0)
    assert not budget.allows(60.1, 0.0, 100.0)
    assert not budget.allows(1, 0.01, 100.0)
    budget.check(159.9)
    with pytest.raises(Spent, match="minutes"):
        budget.check(160.0)
    budget.count({"usageMetadata": {"promptTokenCount": 10_000}})
    with pytest.raises(Spent, match="money"):
        budget.check(100.0)


@pytest.mark.parametrize(
    ("down", "kept"),
    [
        ({"goAway": {"timeLeft": "50s"}}, {"goAway": {"timeLeft": "50s"}}),
        ({"usageMetadata": {"promptTokenCount": 7}}, {"usageMetadata": {"promptTokenCount": 7}}),
        (
            {"voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "0.200s"}},
            {"voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "0.200s"}},
        ),
        (
            {"server_content": {"output_transcription": {"text": " one two"}}},
            {"serverContent": {"outputTranscription": {"text": " one two"}}},
        ),
        (
            {"serverContent": {"outputTranscription": {"text": " My name"}}},
            {"serverContent": {"outputTranscription": {"text": " ** ****"}}},
        ),
        (
            {"toolCall": {"functionCalls": [{"name": "f", "id": "fc_1", "args": {"city": "Ulm", "n": 1}}]}},
            {"toolCall": {"functionCalls": [{"name": "f", "id": "fc_1", "args": {"city": "***", "n": 1}}]}},
        ),
        ({"setupComplete": {"sessionId": "f162"}}, {"setupComplete": {"sessionId": "sessionid-1"}}),
        ({"new": {"mark": "something"}}, {"new": {"mark": "*********"}}),
    ],
)
def test_only_what_is_known_to_be_harmless_comes_down_into_a_recording(
    down: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert Scrubber(("one two three",), Masker()).down(down) == kept


def test_what_went_up_is_kept_without_secrets_and_sound() -> None:
    masker = Masker()
    masker.mask(KEY)
    scrubber = Scrubber((), masker)
    sound = base64.urlsafe_b64encode(b"\xff\xef" * 321).decode()
    up = {"realtime_input": {"audio": {"data": sound, "mime_type": "audio/pcm;rate=16000"}}}
    assert scrubber.up(up) == {
        "realtimeInput": {"audio": {"data": {"$bytes": 642}, "mimeType": "audio/pcm;rate=16000"}}
    }
    assert scrubber.up({"realtimeInput": {"text": f"my key is {KEY}"}}) == {
        "realtimeInput": {"text": "my key is ***"}
    }
    resumed = {"setup": {"sessionResumption": {"handle": "abc"}}}
    assert scrubber.down({"sessionResumptionUpdate": {"newHandle": "abc"}}) == {
        "sessionResumptionUpdate": {"newHandle": "handle-1"}
    }
    assert scrubber.up(resumed) == {"setup": {"sessionResumption": {"handle": "handle-1"}}}
    assert scrubber.reason("API has not been used in project 123456789") == (
        "API has not been used in project 000000000"
    )


def test_a_recording_is_a_header_and_a_line_for_each_message(tmp_path: Path) -> None:
    recorder = Recorder("models/m", "v1beta", "2026-11-23T10:00:00.000Z", Scrubber((), Masker()))
    recorder.up(0.0, {"setup": {"model": "models/m"}})
    recorder.down(0.12345, {"setupComplete": {}})
    recorder.closed(1, 1011, "Internal error encountered.", by="server")
    recorder.write(tmp_path / "r.jsonl")
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [
        {"recording": 1, "model": "models/m", "version": "v1beta", "at": "2026-11-23T10:00:00.000Z"},
        {"t": 0.0, "up": {"setup": {"model": "models/m"}}},
        {"t": 0.1235, "down": {"setupComplete": {}}},
        {"t": 1, "close": {"code": 1011, "reason": "Internal error encountered.", "by": "server"}},
    ]


@pytest.mark.parametrize(
    ("environ", "limits", "told"),
    [
        ({}, Limits(), "GEMINI_API_KEY"),
        ({"GEMINI_API_KEY": KEY, "UPSTREAM": "simulator"}, Limits(), "GEMINI_API_KEY"),
        ({"UPSTREAM": "vertex", "GOOGLE_CLOUD_PROJECT": "my-project"}, Limits(), "not Vertex AI"),
        ({"GEMINI_API_KEY": KEY}, Limits(minutes=0), "--minutes"),
        ({"GEMINI_API_KEY": KEY}, Limits(minutes=1e9), "--minutes"),
        ({"GEMINI_API_KEY": KEY}, Limits(max_usd=float("nan")), "--max-usd"),
        ({"GEMINI_API_KEY": KEY}, Limits(max_usd=100), "--max-usd"),
    ],
)
async def test_nothing_is_asked_without_a_key_or_bounds(
    tmp_path: Path, environ: dict[str, str], limits: Limits, told: str
) -> None:
    settings = load_settings(home=tmp_path, config=None, environ=environ, overrides={})
    with pytest.raises(ConfigError, match=told):
        await probe(settings, limits, pytest.fail, recordings=tmp_path / "recordings")
    assert not (tmp_path / "recordings").exists()


@pytest.mark.timeout(90)
async def test_the_command_line_asks_for_a_probe_by_its_name(tmp_path: Path) -> None:
    code, lines = await typed(tmp_path, "--probe", "--minutes", "1")
    assert (code, lines) == (
        2,
        ["command line: --probe: asks the real service, so it needs GEMINI_API_KEY in .env"],
    )
    code, lines = await typed(tmp_path, "--minutes", "1")
    assert (code, lines) == (2, ["command line: --minutes: belongs to --probe"])
    async with ModelSide() as model:
        model.refusals.append((429, {}))
        code, lines = await typed(
            tmp_path, "--probe", "--max-usd", "0.01", GEMINI_API_KEY=KEY, GEMINI_BASE_URL=model.url
        )
    assert code == 1
    assert "3 minutes and $0.01" in lines[0]
    assert lines[-1].endswith("(upgrade_quota)")
    assert list((tmp_path / "data").glob("probe-*"))
