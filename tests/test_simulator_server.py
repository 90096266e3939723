"""The simulator by plain WebSocket frames: what goes over the wire, byte for byte where it matters."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from dialling import (
    AUDIO,
    FAST,
    INVALID,
    LONG_ANSWER,
    MANUAL,
    SETUP,
    WEATHER,
    Client,
    answer,
    content,
    dialled,
    is_sound,
    kinds,
    opened,
    sound,
    words,
)
from simulating import LIVE_PATH, MODEL, Simulator, certificate_authority, speech
from websockets.exceptions import ConnectionClosed

from tornado_live.simulator.__main__ import main
from tornado_live.simulator.pcm import tone
from tornado_live.simulator.profiles import GEMINI_3_8_LIVE
from tornado_live.simulator.voice import OUTPUT_RATE

# The handshake and the setup


async def test_the_first_frame_is_google_s_setup_complete_byte_for_byte() -> None:
    async with Simulator(speed=FAST) as simulator, dialled(simulator, compression="deflate") as client:
        await client.send({"setup": SETUP})
        frame = await client.socket.recv()
        assert frame == b'{\n  "setupComplete": {}\n}\n'
        assert "Sec-WebSocket-Extensions" not in client.socket.response.headers


async def test_it_listens_in_under_a_second_on_every_path_that_google_has() -> None:
    async with Simulator(speed=FAST) as simulator:
        assert simulator.first_line == {
            "listening": {"host": "127.0.0.1", "port": simulator.port, "tls": False},
            "voice": "off",
        }
        for version in ("v1", "v1beta", "v1alpha", "v1beta1"):
            path = LIVE_PATH.replace("v1beta", version)
            for spelling in (path, f"/{path}", f"{path}?key=a-key"):
                async with dialled(simulator, spelling) as client:
                    await client.send({"setup": SETUP})
                    assert await client.next() == {"setupComplete": {}}


async def test_both_spellings_both_alphabets_and_both_kinds_of_frame_are_read() -> None:
    scenario = {"turns": [{"heard": "yes", "repeat": True, "do": [{"say": "Heard.", "audio": "none"}]}]}
    setup = {
        "model": f"models/{MODEL}",
        "generation_config": {
            "response_modalities": ["AUDIO"],
            "speechConfig": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}},
        },
        "input_audio_transcription": {},
        "realtime_input_config": {"automatic_activity_detection": {"disabled": True}},
    }
    pcm = bytes(range(256)) * 40  # its base64 has both of the characters that the alphabets differ in
    async with Simulator(scenario, speed=FAST) as simulator:
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for as_bytes in (False, True):
                async with dialled(simulator) as client:
                    blob = {"mime_type": "audio/pcm;rate=16000", "data": encode(pcm).decode().rstrip("=")}
                    for message in (
                        {"setup": setup},
                        {"realtime_input": {"activity_start": {}}},
                        {"realtimeInput": {"audio": blob}},
                        {"realtime_input": {"activityEnd": {}}},
                    ):
                        text = json.dumps(message)
                        await client.socket.send(text.encode() if as_bytes else text)
                    messages = await client.turn()
                    assert content(messages[1]) == {"inputTranscription": {"text": "yes"}}
                    # Waiting for the setup's answer is what a client should do, but Google reads on too.
                    assert messages[0] == {"setupComplete": {}}


def function(**schema: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{"name": "f", "description": "F.", **schema}]}]}


REFUSED_SETUPS: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": (
        {"model": "models/gemini-2.0-flash-exp"},
        1008,
        "models/gemini-2.0-flash-exp is not found for API version v1beta, or is not supported for"
        " bidiGenerateContent. Call ListModels to see the list of available models.",
    ),
    "unknown field": (
        {"voice": "Kore"},
        1007,
        "Invalid JSON payload received. Unknown name \"voice\" at 'setup': Cannot find field.",
    ),
    "unknown field below": (
        {"generationConfig": {"topp": 1}},
        1007,
        "Invalid JSON payload received. Unknown name \"topp\" at 'setup.generation_config': Cannot find field.",
    ),
    "unknown enum value": (
        {"realtimeInputConfig": {"activityHandling": "NEVER"}},
        1007,
        "Invalid value at 'setup.realtime_input_config.activity_handling' (type.googleapis.com/google.ai."
        'generativelanguage.v1beta.ActivityHandling), "NEVER"',
    ),
    "wrong type": (
        {"generationConfig": {"temperature": "warm"}},
        1007,
        "Invalid value at 'setup.generation_config.temperature' (TYPE_FLOAT), \"warm\"",
    ),
    "enum that is no text": (
        {"generationConfig": {"responseModalities": [["AUDIO"]]}},
        1007,
        "Invalid value at 'setup.generation_config.response_modalities[0]' (type.googleapis.com/google.ai."
        'generativelanguage.v1beta.Modality), ["AUDIO"]',
    ),
    "more than 32 bits": (
        {"generationConfig": {"seed": 2**31}},
        1007,
        "Invalid value at 'setup.generation_config.seed' (TYPE_INT32), 2147483648",
    ),
    "more than 64 bits": (
        {"contextWindowCompression": {"triggerTokens": str(2**63)}},
        1007,
        "Invalid value at 'setup.context_window_compression.trigger_tokens' (TYPE_INT64),"
        ' "9223372036854775808"',
    ),
    "more than any float": (
        {"generationConfig": {"seed": 10**400}},
        1007,
        f"Invalid value at 'setup.generation_config.seed' (TYPE_INT32), {10**400}",
    ),
    "too large a float": (
        {"generationConfig": {"temperature": 1e39}},
        1007,
        "Invalid value at 'setup.generation_config.temperature' (TYPE_FLOAT), 1e+39",
    ),
    "a number as nobody writes it": (
        {"generationConfig": {"seed": " 1_0"}},
        1007,
        "Invalid value at 'setup.generation_config.seed' (TYPE_INT32), \" 1_0\"",
    ),
    "of other methods": ({"generationConfig": {"stopSequences": ["."]}}, 1007, INVALID),
    "text": (
        {"generationConfig": {"responseModalities": ["TEXT"]}},
        1007,
        "The requested combination of response modalities (TEXT) is not supported by the model",
    ),
    "voice without audio": (
        {"generationConfig": {"responseModalities": ["TEXT"], "speechConfig": {"languageCode": "en-US"}}},
        1007,
        "Cannot extract voices from a non-audio request.",
    ),
    "unknown voice": (
        {
            "generationConfig": {
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "alloy"}}}
            }
        },
        1007,
        "No matching speaker voice found for name: alloy",
    ),
    "thinking": ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, 1007, INVALID),
    "affective dialog": ({"generationConfig": {"enableAffectiveDialog": True}}, 1007, INVALID),
    "proactive audio off": ({"proactivity": {"proactiveAudio": False}}, 1007, INVALID),
    "unknown handle": ({"sessionResumption": {"handle": "h"}}, 1007, "Invalid session handle"),
    "other tool": (
        {"tools": [{"codeExecution": {}}]},
        1007,
        "codeExecution is not supported in the live api.",
    ),
    "schema outside the subset": (
        function(parameters={"type": "OBJECT", "properties": {"a": {"type": "STRING", "const": "x"}}}),
        1007,
        'Invalid JSON payload received. Unknown name "const" at \'setup.tools[0].function_declarations[0].'
        "parameters.properties[a]': Cannot find field.",
    ),
    "JSON Schema outside the subset": (
        function(parametersJsonSchema={"type": "object", "properties": {"a": {"not": {}}}}),
        1007,
        INVALID,
    ),
    "object without properties": (
        function(parameters={"type": "OBJECT"}),
        1007,
        "* BidiGenerateContentSetup.tools[0].function_declarations[0].parameters.properties: should be"
        " non-empty for OBJECT type",
    ),
    "required but not declared": (
        function(parameters={"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "required": ["b"]}),
        1007,
        "* BidiGenerateContentSetup.tools[0].function_declarations[0].parameters.required[0]: property is"
        " not defined",
    ),
    "function name": (
        function(name="get weather"),
        1007,
        "* BidiGenerateContentSetup.tools[0].function_declarations[0].name: Invalid function name. Must start"
        " with a letter or an underscore.",
    ),
    "behaviour": (
        function(behavior="SOMETIMES"),
        1007,
        "Invalid value at 'setup.tools[0].function_declarations[0].behavior' (type.googleapis.com/google.ai."
        'generativelanguage.v1beta.Behavior), "SOMETIMES"',
    ),
}


async def test_a_wrong_setup_is_a_close_in_google_s_words() -> None:
    async with Simulator(speed=FAST) as simulator:
        answers = {}
        for name, (setup, _, _) in REFUSED_SETUPS.items():
            async with dialled(simulator) as client:
                await client.send({"setup": {**SETUP, **setup}})
                answers[name] = await client.closed()
    # A close frame holds 123 bytes; Google's texts are cut there.
    assert answers == {name: (code, reason[:123]) for name, (_, code, reason) in REFUSED_SETUPS.items()}
    assert simulator.log == ""


async def test_a_setup_with_everything_the_model_takes_is_accepted() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string", "enum": ["x"]}},
            "n": {"type": "INTEGER"},
        },
        "required": ["a"],
    }
    declarations = [
        {"name": "a", "parameters": schema, "behavior": "BLOCKING"},
        {"name": "b", "parametersJsonSchema": {**schema, "additionalProperties": False}},
        {"name": "c", "description": "No parameters."},
    ]
    async with (
        Simulator(speed=FAST) as simulator,
        opened(
            simulator,
            generationConfig={
                **AUDIO,
                "temperature": 0.5,
                "topK": 40.0,
                "seed": "-2147483648",
                "mediaResolution": None,
            },
            systemInstruction={"parts": [{"text": "Be brief."}]},
            tools=[{"googleSearch": {}}, {"functionDeclarations": declarations}],
            realtimeInputConfig={
                "automaticActivityDetection": {"silenceDurationMs": 300},
                "turnCoverage": "TURN_INCLUDES_ALL_INPUT",
            },
            contextWindowCompression={"triggerTokens": "2.5e4", "slidingWindow": {}},
            sessionResumption={},
            proactivity={"proactiveAudio": True},
            historyConfig={"initialHistoryInClientContent": True},
            safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
            labels={"safety_identifier": "x"},
        ),
    ):
        (conversation,) = (await simulator.status())["conversations"]
        assert conversation["setup"]["tools"][1]["functionDeclarations"][1] == declarations[1]


async def test_a_bad_key_is_told_at_the_setup_and_in_the_list_of_models() -> None:
    not_valid = (1007, "API key not valid. Please pass a valid API key.")
    async with Simulator(require_key=True, speed=FAST) as simulator:
        for path, headers, expected in (
            ("?key=invalid-key", {}, not_valid),
            ("", {"x-goog-api-key": "invalid"}, not_valid),
            (
                "",
                {},
                (1008, "Method doesn't allow unregistered callers (callers without established identity)."),
            ),
        ):
            async with dialled(simulator, LIVE_PATH + path, additional_headers=headers) as client:
                await client.send({"setup": SETUP})
                code, reason = await client.closed()
                assert (code, reason[: len(expected[1])]) == expected
        async with dialled(simulator, additional_headers={"x-goog-api-key": "a-key"}) as client:
            await client.send({"setup": SETUP})
            assert await client.next() == {"setupComplete": {}}


# What is refused later

REFUSED_MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any] | str, str]] = {
    "second setup": ({}, {"setup": SETUP}, INVALID),
    "not JSON": ({}, "hello", "Invalid JSON payload received. Unexpected token.\nhello\n^"),
    "NaN": (
        {},
        '{"realtimeInput": NaN}',
        'Invalid JSON payload received. Unexpected token.\n{"realtimeInput": NaN}\n^',
    ),
    "half a surrogate pair": (
        {},
        '{"realtimeInput": {"text": "\\ud800"}}',
        'Invalid JSON payload received. Unexpected token.\n{"realtimeInput": {"text": "\\ud800"}}\n^',
    ),
    "deep": (
        {},
        '{"toolResponse": ' + '{"a":' * 99 + "1" + "}" * 100,
        "Invalid JSON payload received. Unknown name \"a\" at 'tool_response': Cannot find field.",
    ),
    "too deep": (
        {},
        '{"toolResponse": ' + '{"a":' * 100 + "1" + "}" * 101,
        "Invalid JSON payload received. Message too deep.",
    ),
    "too deep for Python": (
        {},
        '{"toolResponse": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "Invalid JSON payload received. Message too deep.",
    ),
    "unknown message": (
        {},
        {"hello": {}},
        'Invalid JSON payload received. Unknown name "hello": Cannot find field.',
    ),
    "two messages": (
        {},
        {"realtimeInput": {"text": "a"}, "clientContent": {}},
        "Invalid value (oneof), oneof field 'message_type' is already set. Cannot set 'client_content' after"
        " 'realtime_input'",
    ),
    "none": ({}, {}, INVALID),
    "mediaChunks": (
        {},
        {"realtimeInput": {"mediaChunks": [{"mimeType": "image/jpeg", "data": ""}]}},
        INVALID,
    ),
    "bad base64": (
        {},
        {"realtimeInput": {"audio": {"mimeType": "audio/pcm", "data": "%%%"}}},
        "Invalid value at 'realtime_input.audio.data' (TYPE_BYTES), Base64 decoding failed for \"%%%\"",
    ),
    "other audio": ({}, {"realtimeInput": {"audio": {"mimeType": "audio/webm", "data": "AAAA"}}}, INVALID),
    "activityStart with detection on": ({}, {"realtimeInput": {"activityStart": {}}}, INVALID),
    "activityEnd with detection on": ({}, {"realtimeInput": {"activityEnd": {}}}, INVALID),
    "activityEnd before activityStart": (MANUAL, {"realtimeInput": {"activityEnd": {}}}, INVALID),
    "audio before activityStart": (
        MANUAL,
        {"realtimeInput": {"audio": {"mimeType": "audio/pcm", "data": "AAAA"}}},
        INVALID,
    ),
    "answer to no call": (
        {},
        {"toolResponse": {"functionResponses": [{"id": "fc_1", "response": {}}]}},
        INVALID,
    ),
    "answer without id": (
        {},
        {"toolResponse": {"functionResponses": [{"name": "f", "response": {}}]}},
        INVALID,
    ),
    "answer that is no object": (
        {},
        {"toolResponse": {"functionResponses": [{"id": "fc_1", "response": "sunny"}]}},
        "Invalid value at 'tool_response.function_responses[0].response' (TYPE_OBJECT), \"sunny\"",
    ),
}


async def test_a_wrong_message_is_a_close_in_google_s_words() -> None:
    async with Simulator(speed=FAST) as simulator:
        answers = {}
        for name, (setup, message, _) in REFUSED_MESSAGES.items():
            async with opened(simulator, **setup) as client:
                await client.socket.send(message if isinstance(message, str) else json.dumps(message))
                answers[name] = await client.closed()
    assert answers == {name: (1007, reason) for name, (_, _, reason) in REFUSED_MESSAGES.items()}
    assert simulator.log == ""


async def test_nothing_may_come_before_the_setup() -> None:
    async with Simulator(speed=FAST) as simulator, dialled(simulator) as client:
        await client.say("Hello.")
        assert await client.closed() == (1007, INVALID)


# Turns


async def test_an_answer_has_the_sound_the_words_and_the_order_of_the_model() -> None:
    scenario = {
        "turns": [{"do": [{"say": "One two three four.", "seconds": 2}, {"say": "Five.", "seconds": 1}]}]
    }
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("Count.")
        messages = await client.turn()
    assert kinds(messages) == ["modelTurn", "generationComplete", "turnComplete", "usageMetadata"]
    assert all(content(message)["modelTurn"]["role"] == "model" for message in messages[:-2])
    assert words(messages) == "One two three four. Five."
    chunks = sound(messages)
    assert [len(chunk) for chunk in chunks[:5]] == [2, 2_400, 7_680, 9_600, 11_520]
    assert max(map(len, chunks)) == 15_360
    assert b"".join(chunks) == tone(2) + tone(1)


@pytest.mark.alone
async def test_an_answer_keeps_the_model_s_time() -> None:
    scenario = {"turns": [{"do": [{"say": "Three seconds.", "seconds": 3}]}]}
    async with Simulator(scenario) as simulator, opened(simulator) as client:
        asked = time.monotonic()
        await client.say("Speak.")
        await client.until(is_sound)
        first = time.monotonic()
        await client.until(lambda message: "generationComplete" in content(message))
        generated = time.monotonic()
        await client.turn()
        complete = time.monotonic()
    assert 0.5 <= first - asked <= 1.5
    assert 3 / 4 <= generated - first <= 3 / 3 + 0.2
    assert 2.9 <= complete - first <= 3.3


async def test_speech_is_found_transcribed_and_answered() -> None:
    scenario = {"turns": [{"heard": "What's the weather?", "do": [{"say": "Fine.", "seconds": 0.2}]}]}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        await client.audio(bytes(16_000) + tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.turn()
    assert [message["voiceActivity"]["type"] for message in messages[:2]] == [
        "ACTIVITY_START",
        "ACTIVITY_END",
    ]
    start, end = (float(message["voiceActivity"]["audioOffset"].rstrip("s")) for message in messages[:2])
    assert (start, end) == (0.56, 1.5)
    assert messages[2] == {"serverContent": {"inputTranscription": {"text": "What's the weather?"}}}
    assert words(messages) == "Fine."


async def test_other_rates_and_the_end_of_the_stream_are_understood() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "audio": "none"}], "repeat": True}]}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        for rate in (16_000, 24_000, 48_000, 44_100, 8_000):
            await client.audio(tone(0.5, rate=rate), rate)
            await client.send({"realtimeInput": {"audioStreamEnd": True}})
            assert words(await client.turn()) == "Fine."


async def test_the_client_sets_how_much_silence_ends_speech() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "audio": "none"}]}]}
    detection = {"automaticActivityDetection": {"silenceDurationMs": 1_000}}
    async with (
        Simulator(scenario, speed=FAST) as simulator,
        opened(simulator, realtimeInputConfig=detection) as client,
    ):
        await client.audio(
            tone(0.5, rate=16_000) + bytes(32_000 * 9 // 10) + tone(0.5, rate=16_000) + bytes(32_000)
        )
        activities = [await client.next(), await client.next()]
        assert activities[1]["voiceActivity"] == {"type": "ACTIVITY_END", "audioOffset": "2.900s"}


async def test_a_client_may_mark_the_speech_itself() -> None:
    scenario = {"turns": [{"heard": "Marked.", "do": [{"say": "Fine.", "audio": "none"}]}]}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator, **MANUAL) as client:
        await client.send({"realtimeInput": {"activityStart": {}}})
        await client.audio(tone(0.3, rate=16_000) + bytes(48_000))
        await client.send({"realtimeInput": {"activityEnd": {}}})
        messages = await client.turn()
    assert messages[0] == {"serverContent": {"inputTranscription": {"text": "Marked."}}}
    assert words(messages) == "Fine."


async def test_what_a_client_marks_has_one_beginning() -> None:
    async with Simulator(speed=FAST) as simulator, opened(simulator, **MANUAL) as client:
        for _ in range(2):
            await client.send({"realtimeInput": {"activityStart": {}}})
        assert await client.closed() == (1007, INVALID)


async def test_transcriptions_come_only_to_those_who_asked() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "seconds": 0.1}]}]}
    async with Simulator(scenario, speed=FAST) as simulator, dialled(simulator) as client:
        await client.send({"setup": {"model": f"models/{MODEL}"}})
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.turn()
    assert sound(messages)
    assert not any("Transcription" in name for message in messages for name in content(message))


async def test_client_content_waits_for_the_end_of_the_turn() -> None:
    scenario = {"turns": [{"typed": "one two", "do": [{"say": "Both.", "audio": "none"}]}]}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        for text, complete in (("one", False), ("two", True)):
            turn = {"role": "user", "parts": [{"text": text}]}
            await client.send({"clientContent": {"turns": [turn], "turnComplete": complete}})
        assert words(await client.turn()) == "Both."


async def test_the_initial_history_is_read_and_not_answered() -> None:
    scenario = {"turns": [{"do": [{"say": "To the question.", "audio": "none"}]}]}
    history = [
        {"role": "user", "parts": [{"text": "My name is Ada. " * 100}]},
        {"role": "model", "parts": [{"text": "Hello Ada."}]},
    ]
    async with (
        Simulator(scenario, speed=FAST) as simulator,
        opened(simulator, historyConfig={"initialHistoryInClientContent": True}) as client,
    ):
        await client.send({"clientContent": {"turns": history, "turnComplete": True}})
        await client.say("Who am I?")
        messages = await client.turn()
        assert words(messages) == "To the question."
        assert messages[-1]["usageMetadata"]["promptTokenCount"] > 400
        assert (await simulator.status())["conversations"][0]["counts"]["turns"] == 1


async def test_tokens_are_counted_at_google_s_rates_and_billed_again_each_turn() -> None:
    scenario = {"turns": [{"do": [{"say": "Four seconds.", "seconds": 4}], "repeat": True}]}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        jpeg = {"mimeType": "image/jpeg", "data": base64.b64encode(b"x").decode()}
        await client.send({"realtimeInput": {"video": jpeg}})
        usages = []
        for _ in range(2):
            await client.say("12345678")
            usages.append((await client.turn())[-1]["usageMetadata"])
    text = {"modality": "TEXT", "tokenCount": 4}
    response = [text, {"modality": "AUDIO", "tokenCount": 100}]
    video = {"modality": "VIDEO", "tokenCount": 258}
    assert usages[0] == {
        "promptTokenCount": 260,
        "responseTokenCount": 104,
        "totalTokenCount": 364,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2}, video],
        "responseTokensDetails": response,
    }
    assert usages[1]["promptTokenCount"] == 260 + 104 + 2


# Barge-in and calls


async def test_speech_cuts_an_answer_short() -> None:
    async with Simulator(LONG_ANSWER) as simulator, opened(simulator) as client:
        await client.say("Speak.")
        await client.until(lambda message: sum(map(len, sound([message]))) > 5_000)
        await client.audio(tone(0.2, rate=16_000))
        messages = await client.until(lambda message: "interrupted" in content(message))
        after = await client.turn()
    assert set(kinds(messages)) <= {"modelTurn", "interrupted"}, "sound may have been on its way"
    assert kinds(after) == ["voiceActivity", "turnComplete", "usageMetadata"]
    spoken = after[-1]["usageMetadata"]["responseTokensDetails"][-1]
    assert spoken["modality"] == "AUDIO"
    assert 0 < spoken["tokenCount"] < 60 * 25


@pytest.mark.alone
async def test_typed_text_interrupts_within_20_ms() -> None:
    delays = []
    async with Simulator(LONG_ANSWER, latency=0.1) as simulator, opened(simulator) as client:
        await client.say("Speak.")
        for _ in range(5):
            await client.until(is_sound)
            asked = time.monotonic()
            await client.say("Stop.")
            await client.until(lambda message: "interrupted" in content(message))
            delays.append(time.monotonic() - asked)
            assert kinds(await client.turn()) == ["turnComplete", "usageMetadata"]
    assert sorted(delays)[2] <= 0.020


async def test_every_interruption_has_its_end_however_soon_the_next_one_comes() -> None:
    slow = ("--switch", "turn_complete_after_interrupted_s=10")
    async with (
        Simulator(LONG_ANSWER, speed=FAST, arguments=slow) as simulator,
        opened(simulator) as client,
    ):
        await client.say("One.")
        await client.until(is_sound)
        await client.say("Two.")
        await (await client.socket.ping())  # it has begun with it
        await client.say("Three.")
        messages = [*await client.turn(), *await client.turn()]
    ends = [name for message in messages for name in content(message) if name != "modelTurn"]
    told = [name for name in ends if name in ("interrupted", "generationComplete", "turnComplete")]
    assert told == ["interrupted", "interrupted", "turnComplete", "turnComplete"]


async def test_an_answer_that_is_still_played_can_be_interrupted() -> None:
    scenario = {"turns": [{"do": [{"say": "A short answer.", "seconds": 10}]}]}
    async with Simulator(scenario, latency=0) as simulator, opened(simulator) as client:
        await client.say("Speak.")
        await client.until(lambda message: "generationComplete" in content(message))
        await client.say("Stop.")
        assert kinds(await client.turn()) == ["interrupted", "turnComplete", "usageMetadata"]


async def test_without_interruption_the_next_answer_waits_for_its_turn() -> None:
    scenario = {"turns": [{"do": [{"say": "First."}]}, {"do": [{"say": "Second."}]}]}
    config = {"activityHandling": "NO_INTERRUPTION"}
    async with (
        Simulator(scenario, speed=FAST) as simulator,
        opened(simulator, realtimeInputConfig=config) as client,
    ):
        await client.say("One.")
        await client.until(is_sound)
        await client.say("Two.")
        assert "interrupted" not in kinds(await client.turn())
        assert words(await client.turn()) == "Second."


async def test_a_turn_goes_on_when_all_parallel_calls_are_answered() -> None:
    time_call = {"name": "get_time", "args": {}}
    steps = [
        {"call": [WEATHER, time_call]},
        {"say": "{get_weather.sky} at {get_time.hours.0}.", "seconds": 0.2},
    ]
    async with Simulator({"turns": [{"do": steps}]}, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("Weather and time?")
        first, second = (await client.next())["toolCall"]["functionCalls"]
        assert [first | {"id": ""}, second | {"id": ""}] == [WEATHER | {"id": ""}, time_call | {"id": ""}]
        assert list(first) == ["name", "args", "id"]
        assert first["id"] != second["id"]
        progress = answer(second, {"hours": []}, willContinue=True)
        for response in (progress, answer(second, {"hours": [7]}), answer(first, {"sky": "Clear"})):
            await client.send({"toolResponse": {"functionResponses": [response]}})
        messages = await client.turn()
    assert words(messages) == "Clear at 7."
    assert kinds(messages) == ["modelTurn", "generationComplete", "turnComplete", "usageMetadata"]


async def test_speech_cancels_the_calls_that_are_open() -> None:
    scenario = {
        "turns": [
            {"typed": "weather", "do": [{"call": [WEATHER, WEATHER]}, {"say": "Never said."}]},
            {"heard": "Forget it.", "do": [{"say": "Fine.", "audio": "none"}]},
        ]
    }
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("The weather?")
        first, second = (await client.next())["toolCall"]["functionCalls"]
        await client.send({"toolResponse": {"functionResponses": [answer(first, {})]}})
        await client.audio(tone(0.2, rate=16_000))
        messages = await client.turn()
        assert kinds(messages)[:2] == ["interrupted", "toolCallCancellation"]
        assert messages[1] == {"toolCallCancellation": {"ids": [second["id"]]}}
        # An answer that crossed the cancellation on its way is no mistake of the client.
        await client.send({"toolResponse": {"functionResponses": [answer(second, {})]}})
        await client.audio(bytes(32_000))
        assert words(await client.turn()) == "Fine."


async def test_a_scenario_can_cancel_a_call_by_itself() -> None:
    steps = [{"call": WEATHER, "cancel_after": 1}, {"say": "It took too long.", "audio": "none"}]
    async with Simulator({"turns": [{"do": steps}]}, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("The weather?")
        (call,) = (await client.next())["toolCall"]["functionCalls"]
        messages = await client.turn()
    assert messages[0] == {"toolCallCancellation": {"ids": [call["id"]]}}
    assert words(messages) == "It took too long."


async def test_the_functions_can_be_changed_on_the_way() -> None:
    declaration = {"name": "f", "parameters": {"type": "OBJECT"}}
    update = {"tools": {"tools": [{"functionDeclarations": [declaration]}]}}
    async with Simulator({"turns": []}, speed=FAST) as simulator, opened(simulator) as client:
        await client.send({"contextUpdate": {"systemInstruction": {"parts": [{"text": "New."}]}}})
        await client.send({"contextUpdate": update})
        code, reason = await client.closed()
    assert code == 1007
    assert reason.endswith("parameters.properties: should be non-empty for OBJECT type")


# Faults


async def test_a_scenario_breaks_connections_as_it_is_told() -> None:
    overload = {"code": 1011, "reason": "Internal error encountered."}
    scenario = {
        "connections": [
            {"setup": {"close": overload}},
            {"setup": {"drop": True}},
            {"turns": [{"do": [{"close": {"code": 1008, "reason": "Gone."}}]}]},
            {"turns": [{"do": [{"drop": True}]}]},
            {"end": {"after": 0.5, "close": {"code": 1011, "reason": "Deadline expired."}}},
            {"end": {"after": 0.5, "drop": True}},
            {"setup": {"hang": True}},
        ]
    }
    closes = []
    async with Simulator(scenario, speed=FAST) as simulator:
        for _ in range(6):
            async with dialled(simulator) as client:
                with contextlib.suppress(ConnectionClosed):  # the close may be quicker than the words
                    await client.send({"setup": SETUP})
                    await client.say("Hello.")
                closes.append(await client.closed())
        async with dialled(simulator) as client:
            await client.send({"setup": SETUP})
            await (await client.socket.ping())
            (conversation,) = (await simulator.status())["conversations"]
            assert conversation["live"] is False
    dropped = (1006, "")
    assert closes == [
        (1011, "Internal error encountered."),
        dropped,
        (1008, "Gone."),
        dropped,
        (1011, "Deadline expired."),
        dropped,
    ]


async def test_a_script_can_speak_first_and_send_any_message() -> None:
    start = [{"say": "Welcome.", "seconds": 0.1}, {"send": {"goAway": {"timeLeft": "50s"}}}]
    async with Simulator({"start": start}, speed=FAST) as simulator, opened(simulator) as client:
        messages = await client.turn()
    assert words(messages) == "Welcome."
    assert {"goAway": {"timeLeft": "50s"}} in messages


async def test_a_script_can_send_what_no_service_would() -> None:
    odd: list[dict[str, Any]] = [
        {"toolCall": {}},
        {"toolCall": {"functionCalls": ["x"]}},
        {"toolCallCancellation": {"ids": 5}},
        {"serverContent": []},
        {"serverContent": {"modelTurn": {"parts": [7]}}},
    ]
    start = [{"fault": {"duplicate_calls": "same_id", "unknown_fields": True, "digital_silence": True}}]
    start += [{"send": message} for message in odd]
    async with Simulator({"start": start}, speed=FAST) as simulator, opened(simulator) as client:
        came = [json.loads(await client.socket.recv()) for _ in odd]
    assert [list(message) for message in came] == [[*message, "somethingElse"] for message in odd]
    assert simulator.log == ""


# The process


async def test_the_status_tells_what_runs() -> None:
    async with Simulator(LONG_ANSWER, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("Hello.")
        await client.until(is_sound)
        status = await simulator.status()
    assert status["simulator"] is True
    assert status["voice"] == "off"
    (conversation,) = status["conversations"]
    assert conversation["live"] is True
    assert conversation["setup"] == SETUP
    assert conversation["counts"] == {"realtimeInput": 1, "turns": 1}


async def test_on_loopback_it_has_no_other_names() -> None:
    async with Simulator() as simulator:
        for name, status in (
            ("localhost", 200),
            (f"127.0.0.1:{simulator.port}", 200),
            ("rebound.example", 404),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(f"GET /status HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_it_ends_cleanly_on_a_signal_and_says_so_to_everybody() -> None:
    async with Simulator(LONG_ANSWER) as simulator, opened(simulator) as client:
        await client.say("Hello.")
        await client.until(is_sound)
        simulator.terminate(signal.SIGTERM)
        assert await client.closed() == (1001, "The simulator is shutting down.")
        assert await simulator.wait() == 0
    assert simulator.log == ""


async def test_it_ends_with_its_parent() -> None:
    async with Simulator() as simulator:
        assert await simulator.stop() == 0
    assert simulator.log == ""


async def test_an_address_that_is_taken_is_said_in_words() -> None:
    async with Simulator() as simulator:
        with pytest.raises(AssertionError, match=rf"cannot listen on 127\.0\.0\.1:{simulator.port}"):
            async with Simulator(arguments=("--port", str(simulator.port))):
                pass


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--port", "99999"), "argument --port: must be a number of 0 to 65535, not '99999'"),
        (("--port=-1",), "argument --port: must be a number of 0 to 65535, not '-1'"),
        (("--age", "x"), "argument --age: must be a number of seconds, 0 or more, or none, not 'x'"),
        (
            ("--go-away", "5x"),
            "argument --go-away: must be a number of seconds, 0 or more, or none, not '5x'",
        ),
        (("--latency", "nan"), "argument --latency: must be a number of seconds, 0 or more, not 'nan'"),
        (("--speed", "fast"), "argument --speed: must be a number above 0, not 'fast'"),
        (("--switch", "foo=1"), "argument --switch: foo is no switch; there are affective_dialog"),
        (("--switch", "pace=0"), "argument --switch: pace must be a number of 0.01 or more, not 0"),
    ],
)
def test_a_wrong_option_is_told_in_words(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = certificate_authority().issue_cert("localhost")
    certificate, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    certificate_authority().issue_cert("localhost").private_key_pem.write_to_path(other)
    none = tmp_path / "none.pem"
    for first, second, problem in (
        (certificate, none, f"--tls-key {none} cannot be read: No such file or directory"),
        (key, certificate, f"--tls-cert {key} has no certificate in PEM format"),
        (certificate, certificate, f"--tls-key {certificate} has no private key in PEM format"),
        (
            certificate,
            other,
            f"--tls-cert {certificate} and --tls-key {other} cannot be used: KEY_VALUES_MISMATCH",
        ),
    ):
        assert main(["--voice", "off", "--tls-cert", str(first), "--tls-key", str(second)]) == 1
        assert capsys.readouterr().err == f"{problem}\n"


async def test_pages_of_any_origin_are_clients_as_of_the_service() -> None:
    async with Simulator(speed=FAST) as simulator:
        for origin in ("http://localhost:5173", "https://app.example", "null"):
            async with dialled(simulator, origin=origin) as client:
                await client.send({"setup": SETUP})
                assert await client.next() == {"setupComplete": {}}
            for method, path in (
                ("POST", "auth_tokens"),
                ("GET", f"models/{MODEL}"),
                ("OPTIONS", "auth_tokens"),
            ):
                request = urllib.request.Request(
                    f"{simulator.url}/v1beta/{path}",
                    method=method,
                    headers={"Origin": origin, "x-goog-api-key": "any"},
                )
                with await asyncio.to_thread(urllib.request.urlopen, request, timeout=20) as answer:
                    assert answer.headers["Access-Control-Allow-Origin"] == "*"
        rebound = {"Host": "rebound.example", "Connection": "Upgrade", "Upgrade": "websocket"}
        request = urllib.request.Request(simulator.url + LIVE_PATH, headers=rebound)
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            await asyncio.to_thread(urllib.request.urlopen, request, timeout=20)
        caught.value.close()


async def test_what_is_not_there_says_what_is() -> None:
    async with Simulator() as simulator:
        for path, told in (("/", "/status"), ("/v1beta/models/gemini-0", "models/gemini-0 is not found")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                await asyncio.to_thread(urllib.request.urlopen, simulator.url + path, timeout=20)
            with caught.value as answer:
                assert answer.code == 404
                assert told in json.load(answer)["error"]["message"]


# The conversation without a script

WEATHER_TOOL = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "behavior": "BLOCKING",
    "parameters": {
        "type": "OBJECT",
        "properties": {"location": {"type": "STRING", "description": "The city, for example Paris"}},
        "required": ["location"],
    },
}
WEATHER_TOOLS = [{"functionDeclarations": [WEATHER_TOOL]}]


async def test_without_a_script_it_calls_what_is_declared_and_asks_back() -> None:
    async with Simulator(speed=FAST) as simulator, opened(simulator, tools=WEATHER_TOOLS) as client:
        await client.say("How is the weather?")
        question = words(await client.turn())
        assert question.startswith("This is the local simulator, without a voice: it is switched off.")
        assert question.endswith("?")
        await client.say("In Oslo.")
        (call,) = (await client.next())["toolCall"]["functionCalls"]
        assert (call["name"], call["args"]) == ("get_weather", {"location": "Oslo"})
        result = {"status": "ok", "result": {"temperature_c": -7, "conditions": "snow"}}
        await client.send({"toolResponse": {"functionResponses": [answer(call, result)]}})
        messages = await client.turn()
    assert "7" in words(messages)
    assert "snow" in words(messages)
    assert "voice" not in words(messages), "that is said once"
    assert sound(messages) == []


async def test_the_functions_of_a_context_update_are_the_ones_that_are_called() -> None:
    async with Simulator(speed=FAST) as simulator, opened(simulator) as client:
        await client.send({"contextUpdate": {"tools": {"tools": WEATHER_TOOLS}}})
        await client.say("What's the weather in Paris?")
        (call,) = (await client.next())["toolCall"]["functionCalls"]
        assert call["args"] == {"location": "Paris"}


async def test_speech_without_a_recogniser_gets_an_honest_answer() -> None:
    async with Simulator(speed=FAST) as simulator, opened(simulator) as client:
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.turn()
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        again = await client.turn()
    assert "without a voice: it is switched off." in words(messages)
    assert words(messages).endswith("I cannot understand speech. Please type instead.")
    assert "inputTranscription" not in kinds(messages)
    assert words(again) == "I hear that you speak, but I cannot understand speech. Please type instead."


@pytest.fixture
def without_voice(tmp_path: Path) -> dict[str, str]:
    """An environment in which one of the voice's packages cannot be imported."""
    (tmp_path / "hibari.py").write_text("raise ImportError('No module named hibari', name='hibari')")
    return {"PYTHONPATH": str(tmp_path)}


async def test_a_missing_voice_is_told_and_text_still_works(without_voice: dict[str, str]) -> None:
    async with Simulator(voice="auto", speed=FAST, environment=without_voice) as simulator:
        assert simulator.first_line["voice"] == "loading"
        told = (await simulator.next_line())["voice"]
        assert told == "unavailable: hibari is not installed"
        assert (await simulator.status())["voice"] == told
        async with opened(simulator) as client:
            await client.say("Who are you?")
            messages = await client.turn()
        async with opened(simulator, tools=WEATHER_TOOLS) as client:
            await client.say("How is the weather?")
            first = words(await client.turn())
    assert "simulator" in words(messages)
    assert "without a voice: the voice extra is not installed (README, Limits)." in first
    assert sound(messages) == []


async def test_a_voice_that_is_required_and_missing_ends_the_simulator(without_voice: dict[str, str]) -> None:
    async with Simulator(voice="on", environment=without_voice) as simulator:
        assert await simulator.wait() == 1
    assert simulator.log == "The simulator has no voice: hibari is not installed.\n"


# The real voice


async def in_real_time(client: Client, pcm: bytes) -> None:
    """Sends as a microphone does, 20 ms at a time."""
    begun = time.monotonic()
    for at in range(0, len(pcm), 640):
        await client.audio(pcm[at : at + 640])
        await asyncio.sleep(max(0.0, begun + at / 32_000 - time.monotonic()))


async def chatter(client: Client, pcm: bytes, transcribed: asyncio.Semaphore) -> None:
    """Talks without end and hears what comes; counts the transcripts."""

    async def hear() -> None:
        while True:
            await client.until(lambda message: "inputTranscription" in content(message))
            transcribed.release()

    async with asyncio.TaskGroup() as group:
        group.create_task(hear())
        while True:
            await in_real_time(client, pcm)


async def longest_stall(client: Client) -> tuple[float, float]:
    """How late, by the model's own pace, the latest piece of an answer's sound came, and how long the sound was.

    Sound is sent several times faster than it is played, so a listener's gap is never longer than this.
    """
    due = stall = total = 0.0
    while "generationComplete" not in content(message := await client.next()):
        duration = sum(map(len, sound([message]))) / 2 / OUTPUT_RATE
        now = time.monotonic()
        if due and duration:
            stall = max(stall, now - due)
        due = max(now, due) + duration / GEMINI_3_8_LIVE.pace
        total += duration
    return stall, total


@pytest.mark.voice
@pytest.mark.alone
async def test_while_four_people_talk_a_fifth_hears_no_gap_of_100_ms() -> None:
    talk = await speech("How warm will it be in San Francisco?")
    tool = {"name": "tell_story", "description": "Tells a story.", "behavior": "BLOCKING"}
    story = (
        "Once upon a time there was a small harbour by the northern sea. Every morning eleven boats went out."
        " One day a storm came up, and only ten returned. The eleventh had found an island that nobody knew."
        " It stayed there until the spring, and came home with a crew that told stories for years."
    )
    result = {"status": "ok", "result": {"text": story}}
    async with Simulator(voice="on") as simulator, contextlib.AsyncExitStack() as stack:
        assert await simulator.next_line(timeout=30) == {"voice": "ready"}
        talkers = [await stack.enter_async_context(opened(simulator, tools=WEATHER_TOOLS)) for _ in range(4)]
        tools = [{"functionDeclarations": [tool]}]
        listener = await stack.enter_async_context(opened(simulator, tools=tools))
        transcribed = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(chatter(client, talk, transcribed)) for client in talkers]
            for _ in talkers:
                await transcribed.acquire()
            for _ in range(2):
                await listener.say("Tell me a story.")
                messages = await listener.until(lambda message: "toolCall" in message)
                (call,) = messages[-1]["toolCall"]["functionCalls"]
                await listener.send({"toolResponse": {"functionResponses": [answer(call, result)]}})
                stall, length = await longest_stall(listener)
                assert length > 5
                assert stall < 0.1
            for task in talking:
                task.cancel()
        assert await simulator.stop() == 0
        assert simulator.log == ""
