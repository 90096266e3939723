"""`tornado-live doctor` against real model sides: what is wrong is named together with its remedy."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from modelling import MODELS
from serving import ROOT, clean_environment, nobody_listens
from simulating import Simulator, certificate_authority

from tornado_live.doctor.checks import examine
from tornado_live.doctor.compare import NotComparable, compared, differences, googles_setup
from tornado_live.jsonvalue import Json
from tornado_live.settings import load_settings
from tornado_live.wire.gemini import conversation_setup

KEY = "AIza-not-a-real-key-0123456789"


async def typed(home: Path, *arguments: str, **environ: str) -> tuple[int, list[str]]:
    """`tornado-live doctor ARGUMENTS`: the exit code and the lines, runs of spaces as one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "tornado_live", "doctor", *arguments),
        cwd=home,
        env=clean_environment(PYTHONPATH=str(ROOT), **environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(80):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, checked(printed.decode().splitlines())


async def doctor(
    home: Path, overrides: Mapping[str, str] | None = None, **environ: str
) -> tuple[int, list[str]]:
    """The same without a process of its own, which takes seconds."""
    lines: list[str] = []
    settings = load_settings(home=home, config=None, environ=environ, overrides=overrides or {})
    code = await examine(settings, lines.append)
    return code, checked(lines)


def checked(lines: list[str]) -> list[str]:
    assert not [line for line in lines if KEY in line or "Traceback" in line]
    return [" ".join(line.split()) for line in lines]


def one(lines: list[str], start: str) -> str:
    found = [line for line in lines if line.startswith(start)]
    assert len(found) == 1, lines
    return found[0]


async def test_without_a_key_all_is_well_with_the_simulator(tmp_path: Path) -> None:
    code, lines = await typed(tmp_path)
    assert code == 0, lines
    assert one(lines, "note key").endswith("with GEMINI_API_KEY in .env it is Gemini")
    assert "gemini-3.8-live" in one(lines, "ok models")
    assert "default (gemini-3.8-live) was accepted in" in one(lines, "ok setup")
    assert "get_weather" in one(lines, "ok tools")
    assert lines[-1] == "All is well."


async def test_a_key_that_the_simulator_does_not_need_is_not_said_to_be_missing(tmp_path: Path) -> None:
    code, lines = await doctor(tmp_path, UPSTREAM="simulator", GEMINI_API_KEY=KEY)
    assert code == 0, lines
    assert one(lines, "note key") == "note key not used: UPSTREAM says that the simulator answers"


async def test_a_setup_is_opened_over_tls_with_the_key(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    certificate_authority().cert_pem.write_to_path(str(authority))
    async with Simulator(tls=True, require_key=True) as simulator:
        code, lines = await typed(
            tmp_path, GEMINI_API_KEY=KEY, GEMINI_BASE_URL=simulator.url, SSL_CERT_FILE=str(authority)
        )
    assert code == 0, lines
    assert one(lines, "ok key") == "ok key from environment GEMINI_API_KEY"
    one(lines, "ok setup default (gemini-3.8-live) was accepted")
    one(lines, "ok compare default means the same as google-genai's")


async def test_a_key_that_is_asked_for_and_missing_is_named(tmp_path: Path) -> None:
    async with Simulator(require_key=True) as simulator:
        code, lines = await doctor(tmp_path, GEMINI_BASE_URL=simulator.url)
    assert code == 1, lines
    assert "GEMINI_API_KEY" in one(lines, "WRONG setup")


async def test_a_model_that_is_not_there_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    async with Simulator() as simulator:
        code, lines = await doctor(
            tmp_path, {"gemini_live_model": "gemini-3.8-liv"}, GEMINI_BASE_URL=simulator.url
        )
    assert code == 1
    wrong = 'gemini-3.8-liv is not among them - did you mean "gemini-3.8-live"?; set GEMINI_LIVE_MODEL'
    assert one(lines, "WRONG models").endswith(wrong)
    told = one(
        lines, "WRONG setup default (gemini-3.8-liv): There is no such model; set GEMINI_LIVE_MODEL to "
    )
    assert " gemini-3.8-live or " in told


async def test_the_simulators_models_are_named_where_it_does_not_know_one(tmp_path: Path) -> None:
    overrides = {"gemini_live_model": "gemini-9", "assistants.poet.model": "gemini-10"}
    code, lines = await doctor(tmp_path, overrides)
    assert code == 1
    models = " or ".join(one(lines, "ok models").removeprefix("ok models ").split(", "))
    assert "gemini-3.8-live" in models
    assert one(lines, "WRONG setup default") == (
        f"WRONG setup default (gemini-9): There is no such model; set GEMINI_LIVE_MODEL to {models}."
    )
    assert one(lines, "WRONG setup poet") == (
        f"WRONG setup poet (gemini-10): There is no such model; set assistants.poet.model to {models}."
    )


async def test_a_configuration_that_the_model_refuses_is_named_by_assistant(tmp_path: Path) -> None:
    async with Simulator() as simulator:
        code, lines = await doctor(
            tmp_path,
            {"assistants.poet.speech_config.voice_config.prebuilt_voice_config.voice_name": "Polly"},
            GEMINI_BASE_URL=simulator.url,
        )
    assert code == 1
    wrong = one(lines, "WRONG setup")
    assert wrong.startswith("WRONG setup poet (gemini-3.8-live): The model has no voice of that name;")
    assert wrong.endswith("(voice_unknown)")
    one(lines, "ok setup default")


async def test_what_is_changed_to_fit_the_model_is_told(tmp_path: Path) -> None:
    async with Simulator() as simulator:
        code, lines = await doctor(
            tmp_path, {"assistants.poet.response_modalities": "[TEXT]"}, GEMINI_BASE_URL=simulator.url
        )
    assert code == 0, lines
    assert "AUDIO" in one(lines, "note setup poet is fitted to the model: responseModalities")
    one(lines, "ok compare poet means the same as google-genai's")


async def test_every_option_reaches_the_model_as_google_genai_would_send_it(tmp_path: Path) -> None:
    options = {
        "gemini.temperature": "0.5",
        "gemini.media_resolution": "MEDIA_RESOLUTION_LOW",
        "gemini.speech_config.language_code": "en-US",
        "gemini.input_audio_transcription.language_codes": "[en-US]",
        "gemini.realtime_input_config.automatic_activity_detection.silence_duration_ms": "500",
        "gemini.safety_settings": "[{category: HARM_CATEGORY_HARASSMENT, threshold: BLOCK_NONE}]",
        "gemini.tools": "[{google_search: {}}]",
        "assistants.old.model": "gemini-2.5-flash-native-audio-latest",
        "assistants.old.thinking_config.thinking_budget": "0",
        "assistants.new.model": "gemini-99",
    }
    settings = load_settings(home=tmp_path, config=None, environ={}, overrides=options)
    for assistant in settings.assistants.values():
        facts = settings.models.of(assistant.model)
        declaration = {"name": "f", "parametersJsonSchema": {"type": "object", "properties": {}}}
        for handle in (None, "h"):
            setup = conversation_setup(
                facts, assistant.config, [declaration], history=[("user", "hi")], handle=handle
            )
            assert await compared(facts, assistant.config, setup.payload) == []


async def test_a_setup_that_google_genai_would_send_otherwise_is_seen() -> None:
    facts = MODELS.of("gemini-3.8-live")
    config: dict[str, Json] = {"temperature": 0.5}
    ours = conversation_setup(facts, config, []).payload
    theirs = await googles_setup(facts, config)
    assert theirs == {"model": "models/gemini-3.8-live", "generationConfig": {"temperature": 0.5}}
    assert list(differences(json.loads(ours)["setup"], theirs)) == [
        'generationConfig.responseModalities: ["AUDIO"] is only in ours',
        "inputAudioTranscription: {} is only in ours",
        "outputAudioTranscription: {} is only in ours",
        "sessionResumption: {} is only in ours",
    ]
    odd = ours.replace(b'"sessionResumption":{}', b'"sessionResumption":{"handle":7}')
    with pytest.raises(NotComparable):
        await compared(facts, config, odd)


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        ({"a_b": 1}, {"aB": 1.0}, []),
        ({"a": None}, {}, []),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ["a[1].b: 2, google-genai's 3"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1], google-genai's [1, 2]"]),
        ({}, {"a": "x" * 99}, [f"a: \"{'x' * 58}… is only in google-genai's"]),
    ],
)
def test_setups_are_compared_by_what_they_mean(ours: Json, theirs: Json, found: list[str]) -> None:
    assert list(differences(ours, theirs)) == found


async def test_credentials_of_vertex_ai_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text("{}")
    code, lines = await doctor(
        tmp_path,
        UPSTREAM="vertex",
        GOOGLE_CLOUD_PROJECT="my-project",
        GOOGLE_APPLICATION_CREDENTIALS="account.json",
    )
    assert code == 1
    told = one(lines, "WRONG key the credentials, ")
    assert "account.json: " in told
    assert told.endswith("(credentials_missing)")
    assert one(lines, "WRONG setup default").endswith("(credentials_missing)")
    one(lines, "ok compare default means the same")


async def test_credentials_of_vertex_ai_that_are_not_there_are_not_said_to_be(tmp_path: Path) -> None:
    code, lines = await typed(
        tmp_path,
        UPSTREAM="vertex",
        GOOGLE_CLOUD_PROJECT="my-project",
        HOME=str(tmp_path),
        NO_GCE_CHECK="true",
    )
    assert code == 1
    assert not [line for line in lines if line.startswith("ok key")]
    told = one(lines, "WRONG key the credentials, where google.auth finds them: ")
    assert told.endswith("(credentials_missing)")


async def test_a_certificate_that_is_not_trusted_is_said_to_be_it(tmp_path: Path) -> None:
    async with Simulator(tls=True) as simulator:
        code, lines = await doctor(tmp_path, GEMINI_BASE_URL=simulator.url)
    assert code == 1
    assert "certificate is not trusted" in one(lines, "WRONG models")
    assert one(lines, "WRONG setup").endswith("(certificate_untrusted)")


async def test_a_server_that_is_not_there_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    with nobody_listens() as port:
        code, lines = await doctor(tmp_path, GEMINI_BASE_URL=f"ws://127.0.0.1:{port}", GEMINI_API_KEY=KEY)
    assert code == 1
    assert "check the network and GEMINI_BASE_URL" in one(lines, "WRONG models")
    assert "check GEMINI_BASE_URL and the network" in one(lines, "WRONG setup")


async def test_a_mistake_in_tools_yaml_is_told_and_the_rest_still_checked(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\ntoolz: {}\n")
    code, lines = await doctor(tmp_path)
    assert code == 1
    assert one(lines, "WRONG tools tools.yaml:2: toolz:").endswith('did you mean "tools"?')
    one(lines, "ok setup")


async def test_a_toolset_with_an_unknown_tool_is_told(tmp_path: Path) -> None:
    code, lines = await doctor(tmp_path, {"assistants.a.toolset": "[get_wether]"})
    assert code == 1
    assert one(lines, "WRONG tools") == (
        'WRONG tools command line: assistants.a.toolset: there is no tool "get_wether" in tools.yaml'
        ' - did you mean "get_weather"?'
    )


@pytest.mark.parametrize("setting", ["port=abc", "gemini.temperatur=1"])
async def test_settings_that_cannot_be_used_end_it_at_once(tmp_path: Path, setting: str) -> None:
    code, lines = await typed(tmp_path, "--set", setting)
    assert code == 2
    assert lines[0].startswith(f"command line: {setting.partition('=')[0]}: ")
    assert len(lines) == 1
