"""What each simulated model does differently, message by message, and both truths of what nobody is sure of."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from dialling import (
    INVALID,
    MANUAL,
    VERTEX_PATH,
    WEATHER,
    Client,
    answer,
    content,
    dialled,
    kinds,
    opened,
    sound,
    words,
)
from simulating import LIVE_PATH, MODEL, Simulator

from tornado_live.simulator.brain import Said
from tornado_live.simulator.pcm import tone
from tornado_live.simulator.profiles import PROFILES, SWITCHES, VERTEX_PROFILES
from tornado_live.simulator.recollection import Recollection, read_notes
from tornado_live.simulator.switches import read_switches
from tornado_live.simulator.values import Mistake

FAST = 50.0
NATIVE_2_5 = "gemini-2.5-flash-native-audio-preview-12-2025"
LIVE_3_1 = "gemini-3.1-flash-live-preview"
THINKING_3_8 = "gemini-3.8-live-extended-thinking"
VERTEX_2_5 = "gemini-live-2.5-flash-native-audio"
LEVEL = {"thinkingConfig": {"thinkingLevel": "LOW"}}
TRANSCRIPTIONS: dict[str, Any] = {"inputAudioTranscription": {}, "outputAudioTranscription": {}}
DO_CALL = [{"call": WEATHER}, {"say": "It is {get_weather.sky}.", "seconds": 0.2}]
IN_BACKGROUND = {
    "turns": [
        {
            "typed": "weather",
            "do": [{"call": WEATHER, "background": True}, {"say": "One moment.", "seconds": 0.2}],
        },
        {
            "answered": "get_weather",
            "do": [{"say": "It is {get_weather.sky}.", "seconds": 0.2}],
            "repeat": True,
        },
        {"typed": "speak", "do": [{"say": "A long answer.", "seconds": 600}]},
        {"heard": "Hello.", "do": [{"say": "Hello to you.", "seconds": 0.2}]},
        {"typed": "known", "do": [{"say": "I know: {get_weather.sky}.", "audio": "none"}]},
    ]
}
NOT_ENABLED = "Operation is not implemented, or supported, or enabled."


@contextlib.asynccontextmanager
async def speaking_to(
    simulator: Simulator,
    model: str,
    *,
    vertex: bool = False,
    generation: Mapping[str, Any] = {},
    **setup: Any,
) -> AsyncIterator[Client]:
    """A conversation that was accepted; `generation` goes into generationConfig."""
    config = {**generation}
    if model == THINKING_3_8:
        config = {**LEVEL, **config}
    path = f"publishers/google/models/{model}" if vertex else f"models/{model}"
    async with dialled(simulator, VERTEX_PATH if vertex else LIVE_PATH) as client:
        await client.send({"setup": {"model": path, "generationConfig": config, **TRANSCRIPTIONS, **setup}})
        message = await client.next()
        assert "setupComplete" in message, message
        yield client


@contextlib.asynccontextmanager
async def with_model(
    model: str,
    scenario: Mapping[str, Any] | None = None,
    *,
    vertex: bool = False,
    switches: Mapping[str, object] = {},
    speed: float = FAST,
    **setup: Any,
) -> AsyncIterator[Client]:
    arguments = tuple(
        argument
        for name, value in switches.items()
        for argument in ("--switch", f"{name}={value if isinstance(value, str) else json.dumps(value)}")
    )
    async with (
        Simulator(scenario, speed=speed, arguments=arguments) as simulator,
        speaking_to(simulator, model, vertex=vertex, **setup) as client,
    ):
        yield client


def outline(messages: list[dict[str, Any]]) -> list[str]:
    """The messages in one word each, runs of the same as one."""
    found: list[str] = []
    for message in messages:
        names = []
        for name, value in {
            **content(message),
            **{k: v for k, v in message.items() if k != "serverContent"},
        }.items():
            if name == "modelTurn":
                (part,) = value["parts"]
                names.append("thought" if "thought" in part else next(iter(part)))
            elif name == "interactionStatus":
                names.append(value)
            elif name != "sessionResumptionUpdate":
                names.append(name)
        line = "+".join(names)
        if names and found[-1:] != [line]:
            found.append(line)
    return found


def ids(message: Mapping[str, Any]) -> list[str]:
    return [call["id"] for call in message["toolCall"]["functionCalls"]]


async def called(client: Client) -> dict[str, Any]:
    """The first call of the next toolCall."""
    messages = await client.until(lambda message: "toolCall" in message)
    call: dict[str, Any] = messages[-1]["toolCall"]["functionCalls"][0]
    return call


async def reply(client: Client, call: Mapping[str, Any], response: Mapping[str, Any], **more: Any) -> None:
    await client.send({"toolResponse": {"functionResponses": [answer(call, response, **more)]}})


def text_turn(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


# One turn of each family


async def test_2_5_thinks_first_and_tells_the_words_ahead_of_the_sound_in_messages_of_their_own() -> None:
    scenario = {
        "turns": [
            {"heard": "How are you today?", "do": [{"say": "Very well, thank you for asking.", "seconds": 4}]}
        ]
    }
    async with with_model(NATIVE_2_5, scenario) as client:
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.turn()
    heard = [content(message)["inputTranscription"]["text"] for message in messages[:4]]
    assert heard == ["How", " are", " you", " today?"]
    assert outline(messages[4:])[:3] == ["thought", "outputTranscription", "inlineData"]
    assert outline(messages)[-2:] == ["generationComplete", "turnComplete+usageMetadata"]
    assert words(messages) == "Very well, thank you for asking."
    ends = [at for at, message in enumerate(messages) if "outputTranscription" in content(message)]
    assert len(messages) - ends[-1] > 10, "the words are through long before the sound"
    assert "role" not in content(messages[5 + 1])["modelTurn"]
    chunks = [len(chunk) for chunk in sound(messages)]
    assert chunks[:6] == [9_600, 4_800, 2_880, 3_840, 2_880, 3_840]
    assert messages[-1]["usageMetadata"]["thoughtsTokenCount"] > 0


async def test_2_5_goes_on_with_the_same_turn_after_a_call() -> None:
    async with with_model(NATIVE_2_5, {"turns": [{"do": DO_CALL}]}) as client:
        await client.say("The weather?")
        before = await client.until(lambda message: "toolCall" in message)
        assert outline(before) == ["thought", "toolCall"]
        (call,) = before[-1]["toolCall"]["functionCalls"]
        assert call["id"].startswith("function-call-")
        await reply(client, call, {"sky": "clear"})
        assert outline(await client.turn()) == [
            "outputTranscription",
            "inlineData",
            "generationComplete",
            "turnComplete+usageMetadata",
        ]


async def test_3_1_bundles_words_with_sound_and_sends_empty_content_around_a_call() -> None:
    async with with_model(
        LIVE_3_1, {"turns": [{"do": [{"say": "Wait.", "seconds": 0.3}, *DO_CALL]}]}
    ) as client:
        await client.say("The weather?")
        before = await client.until(lambda message: "toolCall" in message)
        assert before[-2] == {"serverContent": {}}
        spoken = [message for message in before if "modelTurn" in content(message)]
        assert [len(chunk) for chunk in sound(spoken)] == [2, 2_400, 7_680, 4_318]
        assert outline(spoken)[0] == "inlineData+outputTranscription"
        (call,) = before[-1]["toolCall"]["functionCalls"]
        assert call["id"].startswith("fc_")
        await reply(client, call, {"sky": "clear"})
        after = await client.turn()
        assert after[0] == {"serverContent": {}}
        assert outline(after) == [
            "inlineData+outputTranscription",
            "generationComplete",
            "turnComplete+usageMetadata",
        ]


async def test_3_1_sends_handles_to_those_who_did_not_ask() -> None:
    async with with_model(LIVE_3_1, {"turns": [{"do": [{"say": "Hello.", "seconds": 0.1}]}]}) as client:
        first = await client.next()
        assert first["sessionResumptionUpdate"]["resumable"] is True
        await client.say("Hello.")
        messages = [*(await client.turn()), await client.next()]
    updates = [message for message in messages if "sessionResumptionUpdate" in message]
    assert (
        updates[-1]["sessionResumptionUpdate"]["newHandle"] != first["sessionResumptionUpdate"]["newHandle"]
    )
    assert updates[-1] is messages[-1], "a handle for the new state comes after turnComplete"
    assert "newHandle" not in updates[0]["sessionResumptionUpdate"], "none while it generates"


async def test_3_8_names_the_role_and_sends_nothing_around_a_turn() -> None:
    async with with_model(MODEL, {"turns": [{"do": [{"say": "Hello.", "seconds": 0.5}]}]}) as client:
        await client.say("Hello.")
        assert json.loads(await client.socket.recv()) == {}
        messages = await client.turn()
    assert content(messages[0])["modelTurn"]["role"] == "model"
    assert outline(messages) == [
        "inlineData+outputTranscription",
        "inlineData",
        "generationComplete",
        "turnComplete+usageMetadata",
    ]


async def test_extended_thinking_is_idle_only_when_it_says_so() -> None:
    steps = [{"say": "Checking now.", "seconds": 0.2}, *DO_CALL]
    turns = [{"typed": "weather", "do": steps}, {"do": [{"say": "Hello.", "seconds": 0.1}]}]
    async with with_model(THINKING_3_8, {"turns": turns}) as client:
        await client.say("The weather?")
        before = await client.until(lambda message: "toolCall" in message)
        assert outline(before)[-3:] == [
            "generationComplete",
            "turnComplete+IN_PROGRESS+usageMetadata",
            "toolCall+IN_PROGRESS",
        ]
        await reply(client, before[-1]["toolCall"]["functionCalls"][0], {"sky": "clear"})
        assert outline(await client.turn())[-1] == "turnComplete+IDLE+usageMetadata"
        await client.say("Hello.")
        assert outline(await client.turn())[-1] == "turnComplete+IDLE+usageMetadata"


async def test_extended_thinking_may_tell_that_it_is_idle_in_a_message_of_its_own() -> None:
    scenario = {"turns": [{"do": [{"say": "Hello.", "seconds": 0.1}]}]}
    async with with_model(THINKING_3_8, scenario, switches={"idle_message": "alone"}) as client:
        await client.say("Hello.")
        assert outline(await client.turn())[-1] == "turnComplete+usageMetadata"
        assert await client.next() == {"serverContent": {"interactionStatus": "IDLE"}}


async def test_extended_thinking_stays_in_progress_until_its_background_call_was_spoken_of() -> None:
    turns = [
        {
            "typed": "weather",
            "do": [{"say": "Checking.", "seconds": 0.1}, {"call": WEATHER, "background": True}],
        },
        {"answered": "get_weather", "do": [{"say": "{get_weather.sky}.", "seconds": 0.1}]},
    ]
    for scheduling, last in (("WHEN_IDLE", "turnComplete+IDLE+usageMetadata"), ("SILENT", "IDLE")):
        async with with_model(THINKING_3_8, {"turns": turns}) as client:
            await client.say("The weather?")
            call = await called(client)
            await reply(client, call, {"sky": "Clear"}, scheduling=scheduling)
            messages = await client.until(lambda message: content(message).get("interactionStatus") == "IDLE")
            assert outline(messages)[-1] == last


async def test_vertex_closes_the_turn_of_a_call_before_its_answer() -> None:
    scenario = {"turns": [{"do": [{"say": "Wait.", "seconds": 0.2}, *DO_CALL]}]}
    async with with_model(VERTEX_2_5, scenario, vertex=True, tools=[{"googleSearch": {}}]) as client:
        await client.say("The weather?")
        first = await client.turn()
        assert outline(first) == [
            "thought",
            "outputTranscription",
            "inlineData",
            "toolCall",
            "outputTranscription",
            "generationComplete",
            "turnComplete+groundingMetadata+usageMetadata",
        ]
        said = [content(m)["outputTranscription"] for m in first if "outputTranscription" in content(m)]
        assert said == [{}, {"text": "Wait."}, {"finished": True}]
        speech = next(content(m)["modelTurn"] for m in first if sound([m]))
        assert speech["role"] == "model"
        assert speech["parts"][0]["inlineData"]["mimeType"] == "audio/pcm"
        usage = first[-1]["usageMetadata"]
        assert usage["candidatesTokenCount"] > 0
        assert not any(name.startswith("response") for name in usage)
        (call,) = next(m["toolCall"]["functionCalls"] for m in first if "toolCall" in m)
        assert len(call["id"]) == 36
        await reply(client, call, {"sky": "clear"})
        second = await client.turn()
        assert outline(second)[-2:] == ["generationComplete", "turnComplete+groundingMetadata+usageMetadata"]
        assert words(second) == "It is clear."


async def test_vertex_opens_with_a_session_id_and_takes_an_answer_by_the_functions_name() -> None:
    async with (
        Simulator({"turns": [{"do": DO_CALL}]}, speed=FAST) as simulator,
        dialled(simulator, VERTEX_PATH) as client,
    ):
        path = f"projects/p/locations/us-central1/publishers/google/models/{MODEL}"
        await client.send({"setup": {"model": path, "outputAudioTranscription": {}}})
        assert len((await client.next())["setupComplete"]["sessionId"]) == 36
        await client.say("The weather?")
        await client.turn()
        response = {"name": "get_weather", "response": {"sky": "clear"}}
        await client.send({"toolResponse": {"functionResponses": [response]}})
        assert words(await client.turn()) == "It is clear."


@pytest.mark.parametrize(
    ("model", "vertex"),
    [("gemini-live-2.5-flash", True), ("gemini-robotics-er-2-streaming-preview", False)],
)
async def test_a_model_that_answers_in_text_sends_text_parts(model: str, vertex: bool) -> None:
    scenario = {"turns": [{"do": [{"say": "One two three four.", "seconds": 1}]}]}
    generation = {"responseModalities": ["TEXT"]}
    async with with_model(model, scenario, vertex=vertex, generation=generation) as client:
        await client.send({"clientContent": {"turns": [text_turn("Count.")], "turnComplete": True}})
        messages = await client.turn()
    parts = [part for m in messages for part in content(m).get("modelTurn", {}).get("parts", [])]
    assert "".join(part["text"] for part in parts) == "One two three four."
    assert words(messages) == ""
    assert outline(messages)[-2:] == ["generationComplete", "turnComplete+usageMetadata"]


async def test_the_model_that_transcribes_tells_interim_words_then_the_final_ones() -> None:
    turn = {"heard": "one two three four five", "do": []}
    model = "gemini-3.5-transcribe-live"
    async with with_model(
        model, {"turns": [turn]}, inputAudioTranscription={"wordTimestamp": True}
    ) as client:
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.turn()
        await client.say("Hello?")
        assert await client.closed() == (1007, INVALID)
    texts = [
        content(m)["interimInputTranscription"]["text"]
        for m in messages
        if "interimInputTranscription" in content(m)
    ]
    assert texts == ["one two", "one two three four"]
    assert outline(messages) == [
        "interimInputTranscription",
        "inputTranscription",
        "turnComplete+usageMetadata",
    ]
    final = content(messages[-2])["inputTranscription"]
    assert final["text"] == "one two three four five"
    assert final["endOffset"] > final["startOffset"]


async def test_the_model_that_translates_streams_without_end_even_silence() -> None:
    scenario = {"turns": [{"heard": "Good morning.", "do": [{"say": "Buenos días.", "seconds": 1}]}]}
    generation = {"translationConfig": {"targetLanguageCode": "es"}}
    async with with_model("gemini-3.5-live-translate-preview", scenario, generation=generation) as client:
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        messages = await client.until(lambda message: any(map(any, sound([message]))))
        loud = sound(messages)[-1:]
        while len(loud) < 8:
            loud += sound([await client.next()])
    assert {"text": "Buenos días.", "languageCode": "es"} in [
        content(m).get("outputTranscription") for m in messages
    ]
    assert {len(chunk) for chunk in sound(messages)} == {12_000}
    assert b"".join(loud).rstrip(b"\0") == tone(1).rstrip(b"\0")
    assert "turnComplete" not in kinds(messages)


async def test_the_model_that_translates_gives_handles_all_the_time() -> None:
    generation = {"translationConfig": {"targetLanguageCode": "es"}}
    async with with_model(
        "gemini-3.5-live-translate-preview", generation=generation, sessionResumption={}
    ) as client:
        handles = {(await client.next())["sessionResumptionUpdate"]["newHandle"] for _ in range(3)}
    assert len(handles) == 3


# Functions that the model does not wait for


async def test_a_background_call_lets_the_model_talk_on_and_end_its_turn() -> None:
    async with with_model(MODEL, IN_BACKGROUND) as client:
        await client.say("The weather?")
        messages = await client.turn()
        assert outline(messages)[0] == "toolCall"
        assert words(messages) == "One moment."
        await reply(client, messages[0]["toolCall"]["functionCalls"][0], {"sky": "clear"})
        assert words(await client.turn()) == "It is clear."


async def test_an_answer_waits_until_the_model_is_idle_unless_it_says_otherwise() -> None:
    for scheduling in ({}, {"scheduling": "WHEN_IDLE"}):
        async with with_model(MODEL, IN_BACKGROUND, switches={"pace": 1000}) as client:
            await client.say("The weather?")
            call = await called(client)
            await client.turn()
            await client.say("Speak.")
            await client.until(lambda message: sound([message]))
            await reply(client, call, {"sky": "clear"}, **scheduling)
            await client.say("What is known?")  # a barge-in; the answer is told after this prompt's
            assert "interrupted" in kinds(await client.turn())
            assert words(await client.turn()).startswith("I know: ")
            assert words(await client.turn()) == "It is clear."


async def test_an_answer_can_interrupt() -> None:
    async with with_model(MODEL, IN_BACKGROUND) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        await client.say("Speak.")
        await client.until(lambda message: sound([message]))
        await reply(client, call, {"sky": "clear"}, scheduling="INTERRUPT")
        assert "interrupted" in kinds(await client.turn())
        assert words(await client.turn()) == "It is clear."


async def test_an_answer_that_was_about_to_be_told_is_told_after_the_users_words() -> None:
    async with with_model(MODEL, IN_BACKGROUND, switches={"after_tool_s": 100}) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        await reply(client, call, {"sky": "clear"})
        await client.say("What is known?")
        messages = await client.turn()
        assert "interrupted" not in kinds(messages)
        assert words(messages).startswith("I know: ")
        assert words(await client.turn()) == "It is clear."


async def test_a_silent_answer_is_known_and_not_spoken() -> None:
    async with with_model(MODEL, IN_BACKGROUND) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        await reply(client, call, {"sky": "clear"}, scheduling="SILENT")
        await client.say("What is known?")
        assert words(await client.turn()) == "I know: clear."


async def test_noise_keeps_an_answer_waiting_no_longer_than_it_lasts() -> None:
    async with with_model(MODEL, {"turns": IN_BACKGROUND["turns"][:2]}, **MANUAL) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        await client.send({"realtimeInput": {"activityStart": {}}})
        await reply(client, call, {"sky": "clear"})
        await client.send({"realtimeInput": {"activityEnd": {}}})  # nothing was heard in between
        assert words(await client.turn()) == "It is clear."


async def test_an_interrupting_answer_waits_for_the_user_to_finish_on_3_8_and_talks_over_them_on_2_5() -> (
    None
):
    for over_user in (False, True):
        switches = {"interrupt_over_user": over_user}
        async with with_model(MODEL, IN_BACKGROUND, switches=switches) as client:
            await client.say("The weather?")
            call = await called(client)
            await client.turn()
            await client.audio(tone(0.3, rate=16_000))
            await client.until(lambda message: "voiceActivity" in message)
            await reply(client, call, {"sky": "clear"}, scheduling="INTERRUPT")
            if over_user:
                assert words(await client.turn()) == "It is clear."
            await client.audio(bytes(32_000))
            assert words(await client.turn()) == "Hello to you."
            if not over_user:
                assert words(await client.turn()) == "It is clear."


async def test_a_call_may_answer_several_times() -> None:
    async with with_model(MODEL, IN_BACKGROUND) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        for sky in ("clear", "grey"):
            await reply(client, call, {"sky": sky}, willContinue=True)
            assert words(await client.turn()) == f"It is {sky}."
        await reply(client, call, {}, willContinue=False)  # the end brings nothing new
        await reply(client, call, {"sky": "late"})  # and what comes later belongs to nothing
        await client.say("What is known?")
        assert words(await client.turn()) == "I know: grey."


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_barge_in_leaves_background_calls_alone_unless_it_does_not(cancels: bool) -> None:
    switches = {"barge_in_cancels_background_calls": cancels}
    async with with_model(MODEL, IN_BACKGROUND, switches=switches) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.turn()
        await client.say("Speak.")
        await client.until(lambda message: sound([message]))
        await client.say("What is known?")
        assert ("toolCallCancellation" in kinds(await client.turn())) is cancels
        await client.turn()
        await reply(client, call, {"sky": "clear"})
        if cancels:
            await client.audio(tone(0.3, rate=16_000) + bytes(32_000))
        assert words(await client.turn()) == ("Hello to you." if cancels else "It is clear.")


# New input while the model waits for a call

WAITING = {
    "turns": [
        {"typed": "weather", "do": DO_CALL},
        {"typed": "stop", "do": [{"say": "I stop.", "seconds": 0.1}]},
    ]
}


async def test_new_input_cancels_a_call_that_is_waited_for() -> None:
    async with with_model(MODEL, WAITING) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.say("Stop.")
        first = await client.turn()
        assert outline(first) == ["interrupted", "toolCallCancellation", "turnComplete+usageMetadata"]
        assert first[1]["toolCallCancellation"]["ids"] == [call["id"]]
        assert words(await client.turn()) == "I stop."


async def test_new_input_may_end_a_call_without_a_word_about_it() -> None:
    async with with_model(MODEL, WAITING, switches={"input_during_call": "forgets"}) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.say("Stop.")
        assert outline(await client.turn()) == ["interrupted", "turnComplete+usageMetadata"]
        await reply(client, call, {"sky": "clear"})  # crossed on its way
        assert words(await client.turn()) == "I stop."


async def test_new_input_may_make_the_model_call_again_under_another_id() -> None:
    async with with_model(MODEL, WAITING, switches={"input_during_call": "reissues"}) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.say("Stop.")
        assert outline(await client.turn()) == ["interrupted", "turnComplete+usageMetadata"]
        again = await called(client)
        assert (again["name"], again["args"]) == (call["name"], call["args"])
        assert again["id"] != call["id"]
        await reply(client, call, {"sky": "the old answer"})
        await reply(client, again, {"sky": "clear"})
        assert words(await client.turn()) == "It is clear."
        assert words(await client.turn()) == "I stop."


async def test_a_call_that_is_never_answered_may_hold_up_everything() -> None:
    async with with_model(MODEL, WAITING, switches={"input_during_call": "waits"}) as client:
        await client.say("The weather?")
        call = await called(client)
        await client.say("Stop.")
        await client.audio(tone(0.3, rate=16_000))
        assert (await client.next()).keys() == {"voiceActivity"}, "and nothing else"
        await reply(client, call, {"sky": "clear"})
        messages = await client.turn()
        assert "interrupted" not in kinds(messages)
        assert words(messages) == "It is clear."
        assert words(await client.turn()) == "I stop."


async def test_sound_during_a_call_may_end_the_connection() -> None:
    async with with_model(NATIVE_2_5, WAITING, switches={"input_during_call": "closes"}) as client:
        await client.say("The weather?")
        await called(client)
        await client.audio(bytes(640))
        assert await client.closed() == (1008, NOT_ENABLED)


async def test_an_answer_with_scheduling_is_refused_where_the_model_knows_none() -> None:
    for model, vertex in ((LIVE_3_1, False), (MODEL, True)):
        async with with_model(model, {"turns": [{"do": DO_CALL}]}, vertex=vertex) as client:
            await client.say("The weather?")
            await reply(client, await called(client), {"sky": "clear"}, scheduling="SILENT")
            assert await client.closed() == (1007, INVALID)


# Other things that nobody is sure of


async def test_late_sound_of_an_interrupted_turn_comes_before_its_end() -> None:
    scenario = {"turns": [{"do": [{"say": "A long answer.", "seconds": 600}]}, {"do": [{"say": "Yes."}]}]}
    async with with_model(MODEL, scenario, switches={"late_audio": "after_interrupted"}) as client:
        await client.say("Speak.")
        await client.until(lambda message: sound([message]))
        await client.say("Stop.")
        messages = await client.turn()
    assert outline(messages)[-3:] == ["interrupted", "inlineData", "turnComplete+usageMetadata"]


async def test_late_sound_of_what_was_said_comes_after_the_call_or_after_generation_complete() -> None:
    scenario = {"turns": [{"do": [{"say": "Wait a moment.", "seconds": 1}, *DO_CALL]}]}
    async with with_model(LIVE_3_1, scenario, switches={"late_audio": "after_call"}) as client:
        await client.say("The weather?")
        call = await called(client)
        assert outline([await client.next()])[0].startswith("inlineData")
        await reply(client, call, {"sky": "clear"})
        assert b"".join(sound(await client.turn())) == tone(0.2)
    async with with_model(MODEL, scenario, switches={"late_audio": "after_generation"}) as client:
        await client.say("The weather?")
        await reply(client, await called(client), {"sky": "clear"})
        last = outline(await client.turn())[-3:]
        assert last[0] == "generationComplete"
        assert last[1].startswith("inlineData")


async def test_activity_start_may_bring_a_spurious_interruption() -> None:
    scenario = {"turns": [{"typed": "hello", "do": [{"say": "Hello.", "audio": "none"}]}]}
    async with with_model(MODEL, scenario, switches={"spurious_interrupted": True}, **MANUAL) as client:
        await client.say("Hello.")
        await client.turn()
        await client.send({"realtimeInput": {"activityStart": {}}})
        assert outline(await client.turn()) == ["interrupted", "turnComplete"]


async def test_transcriptions_may_repeat_what_came_before() -> None:
    scenario = {"turns": [{"do": [{"say": "One two three four five six.", "seconds": 2}]}]}
    async with with_model(MODEL, scenario, switches={"transcripts": "accumulated"}) as client:
        await client.say("Count.")
        messages = await client.turn()
    texts = [
        content(m)["outputTranscription"]["text"] for m in messages if "outputTranscription" in content(m)
    ]
    assert len(texts) > 2
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert texts[-1] == "One two three four five six."


async def test_usage_may_count_the_session_and_come_alone() -> None:
    scenario = {"turns": [{"do": [{"say": "Four seconds.", "seconds": 4}], "repeat": True}]}
    switches = {"usage": "cumulative", "usage_message": "alone"}
    async with with_model(MODEL, scenario, switches=switches) as client:
        usages = []
        for _ in range(2):
            await client.say("12345678")
            assert "usageMetadata" not in (await client.turn())[-1]
            usages.append((await client.next())["usageMetadata"])
    assert [usage["responseTokenCount"] for usage in usages] == [104, 208]
    assert [usage["promptTokenCount"] for usage in usages] == [2, 2 + 2 + 104 + 2]


async def test_code_may_come_before_a_call_and_voice_activity_beside_empty_content() -> None:
    switches = {"code_before_call": True, "voice_activity": "with_content", "call_ids": "call"}
    async with with_model(
        MODEL, {"turns": [{"heard": "Weather?", "do": DO_CALL}]}, switches=switches
    ) as client:
        await client.audio(tone(0.3, rate=16_000) + bytes(32_000))
        messages = await client.until(lambda message: "toolCall" in message)
    assert messages[0]["serverContent"] == {}
    assert messages[0]["voiceActivity"]["type"] == "ACTIVITY_START"
    (part,) = content(messages[-2])["modelTurn"]["parts"]
    assert part["executableCode"]["code"] == "print(default_api.get_weather(city='Paris'))"
    assert ids(messages[-1])[0].startswith("call_")


async def test_turn_complete_may_come_without_waiting_for_the_listener() -> None:
    scenario = {"turns": [{"do": [{"say": "A long answer.", "seconds": 120}]}]}
    switches = {"turn_complete": "generation", "pace": 100_000}
    async with with_model(MODEL, scenario, switches=switches, speed=1) as client:
        await client.say("Speak.")
        assert outline(await client.turn())[-1] == "turnComplete+usageMetadata"


# What a setup may say


def function(**more: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{"name": "f", "description": "F.", **more}]}]}


def generating(**config: Any) -> dict[str, Any]:
    return {"generationConfig": config}


COMBINATION = "The requested combination of response modalities ({}) is not supported by the model"
TRANSLATE = "gemini-3.5-live-translate-preview"
REFUSED: dict[str, tuple[str, dict[str, Any], tuple[int, str]]] = {
    "text from a native audio model": (
        NATIVE_2_5,
        generating(responseModalities=["TEXT"]),
        (1007, "Text output is not supported for native audio output model."),
    ),
    "text from 3.1": (LIVE_3_1, generating(responseModalities=["TEXT"]), (1007, COMBINATION.format("TEXT"))),
    "both": (
        MODEL,
        generating(responseModalities=["AUDIO", "TEXT"]),
        (1007, COMBINATION.format("AUDIO, TEXT")),
    ),
    "sound from a model that writes": (
        "gemini-3.5-transcribe-live",
        generating(responseModalities=["AUDIO"]),
        (1007, COMBINATION.format("AUDIO")),
    ),
    "a voice for text": (
        "gemini-robotics-er-2-streaming-preview",
        generating(speechConfig={"languageCode": "en-US"}),
        (1007, "Cannot extract voices from a non-audio request."),
    ),
    "no thinking level": (
        THINKING_3_8,
        generating(),
        (1007, "Thinking level must be specified for this model"),
    ),
    "a level that it does not have": (
        THINKING_3_8,
        generating(thinkingConfig={"thinkingLevel": "MINIMAL"}),
        (1007, INVALID),
    ),
    "thinking on 3.8": (MODEL, generating(**LEVEL), (1007, INVALID)),
    "a level on 2.5": (NATIVE_2_5, generating(**LEVEL), (1007, INVALID)),
    "affective dialog on 3.1": (LIVE_3_1, generating(enableAffectiveDialog=True), (1007, INVALID)),
    "proactive audio on 3.1": (LIVE_3_1, {"proactivity": {"proactiveAudio": True}}, (1007, INVALID)),
    "proactive audio off on 3.8": (MODEL, {"proactivity": {"proactiveAudio": False}}, (1007, INVALID)),
    "BLOCKING on extended thinking": (
        THINKING_3_8,
        {**generating(**LEVEL), **function(behavior="BLOCKING")},
        (1007, INVALID),
    ),
    "NON_BLOCKING on 3.1": (LIVE_3_1, function(behavior="NON_BLOCKING"), (1007, INVALID)),
    "functions for a translator": (
        TRANSLATE,
        {**generating(translationConfig={"targetLanguageCode": "es"}), **function()},
        (1007, "functionDeclarations is not supported in the live api."),
    ),
    "a translator without a language": (TRANSLATE, {}, (1007, INVALID)),
    "translation on 3.8": (
        MODEL,
        generating(translationConfig={"targetLanguageCode": "es"}),
        (1007, INVALID),
    ),
    "an avatar": (MODEL, {"avatarConfig": {"avatarName": "Kira"}}, (1007, INVALID)),
    "transparent resumption without Vertex": (
        MODEL,
        {"sessionResumption": {"transparent": True}},
        (1008, NOT_ENABLED),
    ),
    "VAD signals without Vertex": (MODEL, {"explicitVadSignal": True}, (1008, NOT_ENABLED)),
    "negative silence": (
        MODEL,
        {"realtimeInputConfig": {"automaticActivityDetection": {"silenceDurationMs": -1}}},
        (1007, INVALID),
    ),
    "a target above the trigger": (
        MODEL,
        {"contextWindowCompression": {"triggerTokens": 100, "slidingWindow": {"targetTokens": 200}}},
        (1007, INVALID),
    ),
}
REFUSED_BY_VERTEX: dict[str, dict[str, Any]] = {
    "the default coverage by name": {
        "realtimeInputConfig": {"turnCoverage": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO"}
    },
    "a small trigger": {"contextWindowCompression": {"triggerTokens": 4_999}},
    "a large target": {
        "contextWindowCompression": {"triggerTokens": 128_000, "slidingWindow": {"targetTokens": 128_001}}
    },
}
TAKEN: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "2.5 with all it has": (
        NATIVE_2_5,
        False,
        {
            **generating(
                thinkingConfig={"thinkingBudget": 0, "includeThoughts": True}, enableAffectiveDialog=True
            ),
            "proactivity": {"proactiveAudio": False, "proactiveVideo": True},
            **function(behavior="NON_BLOCKING"),
        },
    ),
    "3.1 with a level": (LIVE_3_1, False, {**generating(**LEVEL), **function(behavior="BLOCKING")}),
    "3.8 with search": (
        MODEL,
        False,
        {"tools": [{"googleSearch": {}}], "proactivity": {"proactiveAudio": True}, "sessionResumption": {}},
    ),
    "extended thinking": (
        THINKING_3_8,
        False,
        {**generating(thinkingConfig={"thinkingLevel": "HIGH", "includeThoughts": True}), **function()},
    ),
    "Vertex": (
        MODEL,
        True,
        {
            "sessionResumption": {"transparent": True},
            "explicitVadSignal": True,
            "contextWindowCompression": {"triggerTokens": 5_000, "slidingWindow": {"targetTokens": 0}},
            "labels": {"safety_identifier": "x"},
        },
    ),
    "every kind of voice": (
        MODEL,
        False,
        generating(
            speechConfig={
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}},
                "languageCode": "de-DE",
            }
        ),
    ),
    "transcription with all it has": (
        MODEL,
        False,
        {
            "inputAudioTranscription": {
                "languageCodes": ["en-US"],
                "customVocabulary": ["Zed"],
                "wordTimestamp": True,
                "diarization": True,
                "mode": "SMART",
            }
        },
    ),
}


async def refusal(client: Client, model: str, setup: Mapping[str, Any]) -> tuple[int, str]:
    await client.send({"setup": {"model": model, **setup}})
    return await client.closed()


async def test_a_setup_that_the_model_cannot_be_given_is_refused_in_google_s_words() -> None:
    got, wanted = {}, {}
    async with Simulator(speed=FAST) as simulator:
        for name, (model, setup, close) in REFUSED.items():
            wanted[name] = close
            async with dialled(simulator) as client:
                got[name] = await refusal(client, f"models/{model}", setup)
        for name, setup in REFUSED_BY_VERTEX.items():
            wanted[name] = (1007, INVALID)
            async with dialled(simulator, VERTEX_PATH) as client:
                got[name] = await refusal(client, f"publishers/google/models/{MODEL}", setup)
    assert got == wanted


async def test_a_setup_with_what_the_model_has_is_accepted() -> None:
    async with Simulator(speed=FAST) as simulator:
        for model, vertex, setup in TAKEN.values():
            generation = setup.get("generationConfig", {})
            rest = {name: value for name, value in setup.items() if name != "generationConfig"}
            async with speaking_to(simulator, model, vertex=vertex, generation=generation, **rest):
                pass


# What a message may say


async def test_media_chunks_are_heard_and_seen_by_2_5_only() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "audio": "none"}]}]}
    pcm = tone(0.5, rate=16_000) + bytes(32_000)
    chunks = [{"mimeType": "audio/pcm;rate=16000", "data": base64.b64encode(pcm).decode()}]
    image = [{"mimeType": "image/jpeg", "data": "AAAA"}]
    async with Simulator(scenario, speed=FAST) as simulator:
        async with speaking_to(simulator, NATIVE_2_5) as client:
            await client.send({"realtimeInput": {"mediaChunks": image}})
            await client.send({"realtimeInput": {"mediaChunks": chunks}})
            assert words(await client.turn()) == "Fine."
        async with speaking_to(simulator, LIVE_3_1) as client:
            await client.send({"realtimeInput": {"mediaChunks": image}})
            assert await client.closed() == (1007, INVALID)


@pytest.mark.parametrize("taken", [True, False])
async def test_several_inputs_in_one_message_are_taken_unless_they_are_not(taken: bool) -> None:
    scenario = {"turns": [{"heard": "Marked.", "do": [{"say": "Fine.", "audio": "none"}]}]}
    data = base64.b64encode(tone(0.3, rate=16_000)).decode()
    audio = {"mimeType": "audio/pcm;rate=16000", "data": data}
    async with with_model(MODEL, scenario, switches={"several_inputs": taken}, **MANUAL) as client:
        await client.send({"realtimeInput": {"activityStart": {}, "audio": audio, "activityEnd": {}}})
        if taken:
            assert words(await client.turn()) == "Fine."
        else:
            assert await client.closed() == (1007, INVALID)


async def test_only_3_8_can_be_told_new_instructions_on_the_way() -> None:
    update = {
        "contextUpdate": {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "tools": {"tools": []}}
    }
    async with Simulator(speed=FAST) as simulator:
        for model, taken in ((MODEL, True), (THINKING_3_8, True), (LIVE_3_1, False), (NATIVE_2_5, False)):
            async with speaking_to(simulator, model) as client:
                await client.send(update)
                if taken:
                    await client.say("Who are you?")
                    assert "simulator" in words(await client.turn())
                else:
                    assert await client.closed() == (1007, INVALID)


async def test_an_early_3_1_took_client_content_at_the_beginning_only() -> None:
    say = {"clientContent": {"turns": [text_turn("Hello.")], "turnComplete": True}}
    async with with_model(LIVE_3_1, switches={"client_content_mid_session": False}) as client:
        await client.send(say)
        await client.turn()
        await client.send(say)
        assert await client.closed() == (1007, INVALID)


async def test_a_role_that_there_is_not_is_refused() -> None:
    async with with_model(MODEL) as client:
        await client.send({"clientContent": {"turns": [text_turn("Hello.", "assistant")]}})
        assert await client.closed() == (1007, "Please use a valid role: user, model.")


async def test_speech_starts_later_with_more_padding_and_not_at_all_when_it_is_faint() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "audio": "none"}]}]}

    def detecting(**detection: object) -> dict[str, Any]:
        return {"realtimeInputConfig": {"automaticActivityDetection": detection}}

    faint = b"".join(
        (int.from_bytes(pair, "little", signed=True) // 8).to_bytes(2, "little", signed=True)
        for pair in (tone(0.5, rate=16_000)[at : at + 2] for at in range(0, 16_000, 2))
    )
    async with Simulator(scenario, speed=FAST) as simulator:
        async with speaking_to(simulator, MODEL, **detecting(prefixPaddingMs=300)) as client:
            await client.audio(tone(0.2, rate=16_000) + bytes(9_600) + tone(0.4, rate=16_000))
            start = (await client.next())["voiceActivity"]
            assert start == {"type": "ACTIVITY_START", "audioOffset": "0.800s"}
        dull = detecting(startOfSpeechSensitivity="START_SENSITIVITY_LOW")
        async with speaking_to(simulator, MODEL, **dull) as client:
            await client.audio(faint + bytes(32_000) + tone(0.2, rate=16_000))
            start = (await client.next())["voiceActivity"]
            assert start == {"type": "ACTIVITY_START", "audioOffset": "1.560s"}
        slow = detecting(endOfSpeechSensitivity="END_SENSITIVITY_LOW")
        async with speaking_to(simulator, MODEL, **slow) as client:
            await client.audio(tone(0.5, rate=16_000) + bytes(48_000))
            end = [await client.next(), await client.next()][-1]["voiceActivity"]
            assert end == {"type": "ACTIVITY_END", "audioOffset": "1.500s"}


async def test_vertex_signals_speech_to_those_who_ask() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Fine.", "audio": "none"}]}]}
    async with with_model(MODEL, scenario, vertex=True, explicitVadSignal=True) as client:
        await client.audio(tone(0.5, rate=16_000) + bytes(32_000))
        signals = [(await client.next())["voiceActivityDetectionSignal"]["vadSignalType"] for _ in range(2)]
    assert signals == ["VAD_SIGNAL_TYPE_SOS", "VAD_SIGNAL_TYPE_EOS"]


@pytest.mark.parametrize(
    ("model", "coverage", "tokens"),
    [
        (MODEL, None, 258),
        (MODEL, "TURN_INCLUDES_ONLY_ACTIVITY", 0),
        (NATIVE_2_5, None, 0),
        (NATIVE_2_5, "TURN_INCLUDES_ALL_INPUT", 258 + 25),
    ],
)
async def test_the_coverage_decides_what_counts(model: str, coverage: str | None, tokens: int) -> None:
    scenario = {"turns": [{"do": [{"say": "Fine.", "audio": "none"}]}]}
    setup = {} if coverage is None else {"realtimeInputConfig": {"turnCoverage": coverage}}
    async with with_model(model, scenario, **setup) as client:
        await client.send({"realtimeInput": {"video": {"mimeType": "image/jpeg", "data": "AAAA"}}})
        await client.audio(bytes(32_000), chunk_ms=1_000)
        await client.say("1234")
        usage = (await client.turn())[-1]["usageMetadata"]
    assert usage["promptTokenCount"] == 1 + tokens


async def test_a_context_that_is_full_ends_the_connection_or_is_compressed() -> None:
    scenario = {"turns": [{"do": [{"say": "Fine.", "audio": "none"}], "repeat": True}]}
    long = {"clientContent": {"turns": [text_turn("word " * 110_000)], "turnComplete": True}}
    compression = {"contextWindowCompression": {"slidingWindow": {}}}
    async with with_model(MODEL, scenario, switches={"full_context": "forgets"}) as client:
        await client.send(long)
        await client.turn()
        await client.say("And now?")
        assert (await client.turn())[-1]["usageMetadata"]["promptTokenCount"] <= 131_072 + 2
    async with Simulator(scenario, speed=FAST) as simulator:
        async with speaking_to(simulator, MODEL) as client:
            await client.send(long)
            assert await client.closed() == (1000, "")
        async with speaking_to(simulator, MODEL, **compression) as client:
            await client.send(long)
            before = (await client.turn())[-1]["usageMetadata"]["promptTokenCount"]
            await client.say("And now?")
            after = (await client.turn())[-1]["usageMetadata"]["promptTokenCount"]
    assert before > 131_072
    assert 131_072 * 0.38 < after < 131_072 * 0.42


# The conversation without a script

TOOL = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "parameters": {
        "type": "OBJECT",
        "properties": {"location": {"type": "STRING", "description": "The city, for example Paris"}},
        "required": ["location"],
    },
}
RESULT = {"status": "ok", "result": {"temperature_c": -7, "conditions": "snow"}}


def tools(**more: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{**TOOL, **more}]}]}


@pytest.mark.parametrize(
    ("model", "behaviour", "waits"),
    [
        (MODEL, None, False),
        (MODEL, "BLOCKING", True),
        (LIVE_3_1, None, True),
        (NATIVE_2_5, None, True),
        (NATIVE_2_5, "NON_BLOCKING", False),
        (THINKING_3_8, None, False),
    ],
)
async def test_it_waits_for_a_function_or_says_that_it_takes_a_moment(
    model: str, behaviour: str | None, waits: bool
) -> None:
    declared = {} if behaviour is None else {"behavior": behaviour}
    async with with_model(model, **tools(**declared)) as client:
        await client.say("What's the weather in Oslo?")
        messages = await client.until(lambda message: "toolCall" in message)
        if not waits and model != THINKING_3_8:
            messages += await client.turn()
        assert ("One moment, please." in words(messages)) is not waits
        (call,) = next(m["toolCall"]["functionCalls"] for m in messages if "toolCall" in m)
        await reply(client, call, RESULT)
        spoken = words(await client.turn())
    assert "snow" in spoken
    assert "7" in spoken


async def test_it_knows_what_was_said_before() -> None:
    async with with_model(MODEL) as client:
        await client.say("What did I just say?")
        assert words(await client.turn()).endswith("You have said nothing before that.")
        await client.say("My name is Ada Lovelace.")
        await client.turn()
        for question, told in (
            ("What did I say before?", 'You said: "My name is Ada Lovelace."'),
            ("What is my name?", "Your name is Ada Lovelace."),
            ("What was my first question?", 'You said: "What did I just say?"'),
            ("What did you say?", 'I said: "You said: "What did I just say?""'),
        ):
            await client.say(question)
            assert words(await client.turn()) == told


@pytest.mark.parametrize("way", ["history", "turns", "instruction", "one message"])
async def test_it_knows_what_it_was_told_of_an_earlier_conversation(way: str) -> None:
    earlier = [text_turn("My cat is called Mimi."), text_turn("What a nice name.", "model")]
    question = "What did I ask before?"
    setup: dict[str, Any] = {}
    if way == "history":
        setup = {"historyConfig": {"initialHistoryInClientContent": True}}
    elif way == "instruction":
        told = "You are kind.\nSo far:\nUser: My cat is called\nMimi.\nYou: What a nice name."
        setup = {"systemInstruction": {"parts": [{"text": told}]}}
    async with with_model(MODEL, **setup) as client:
        if way == "one message":
            turns = [*earlier, text_turn("By the way:"), text_turn("What did I say first?")]
            await client.send({"clientContent": {"turns": turns, "turnComplete": True}})
        else:
            if way != "instruction":
                complete = way == "history"
                await client.send({"clientContent": {"turns": earlier, "turnComplete": complete}})
            await client.say(question)
        assert words(await client.turn()).endswith('You said: "My cat is called Mimi."')


@pytest.mark.parametrize(
    "note",
    [
        f"[result of the tool get_weather, which was called before: {json.dumps(RESULT)}]",
        f'(Result of get_weather({{"location": "Oslo"}}), which you asked for before: {json.dumps(RESULT)})',
        f"Tool get_weather answered: {json.dumps(RESULT)}\nHow is the weather in Oslo?",
    ],
    ids=["brackets", "arguments", "question"],
)
async def test_a_result_that_was_typed_in_is_spoken_of(note: str) -> None:
    turns = [text_turn("How is the weather in Oslo?"), text_turn("One moment.", "model"), text_turn(note)]
    async with with_model(MODEL, **tools()) as client:
        await client.send({"clientContent": {"turns": turns, "turnComplete": True}})
        messages = await client.turn()
    assert "toolCall" not in kinds(messages)
    assert "snow" in words(messages)


async def test_an_answer_that_broke_off_goes_on_where_it_is_known_and_is_asked_for_again_where_not() -> None:
    said = [text_turn("Tell me of Oslo."), text_turn("It lies by the sea. It has a castle.", "model")]
    note = "(Your answer broke off; the user heard up to “lies by the sea.”. Go on from there.)"
    for history, told in ((said, "It has a castle."), ([], "I have lost the thread. Please ask me again.")):
        async with with_model(MODEL) as client:
            turns = [*history, text_turn(note)]
            await client.send({"clientContent": {"turns": turns, "turnComplete": True}})
            assert words(await client.turn()) == told


async def handle_of(client: Client) -> str:
    messages = await client.until(lambda m: m.get("sessionResumptionUpdate", {}).get("resumable"))
    return str(messages[-1]["sessionResumptionUpdate"]["newHandle"])


async def test_a_resumed_session_knows_what_was_said_until_the_handle_was_given() -> None:
    async with Simulator(speed=FAST) as simulator:
        async with speaking_to(simulator, MODEL, sessionResumption={}) as client:
            await handle_of(client)
            await client.say("My cat is called Mimi.")
            await client.turn()
            handle = await handle_of(client)
            await client.say("My dog is called Rex.")
            await client.turn()
        for _ in range(2):  # what one connection says is unknown to another that goes on from the same handle
            async with speaking_to(simulator, MODEL, sessionResumption={"handle": handle}) as client:
                await client.say("What did I just say?")
                assert words(await client.turn()).endswith('You said: "My cat is called Mimi."')


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_session_cannot_be_resumed_in_a_call_unless_it_can(resumable: bool) -> None:
    arguments = ("--switch", f"resumable_in_call={str(resumable).lower()}")
    setup = {"sessionResumption": {}, **tools(behavior="BLOCKING")}
    async with Simulator(speed=FAST, arguments=arguments) as simulator:
        async with speaking_to(simulator, MODEL, **setup) as client:
            handle = await handle_of(client)
            await client.say("What's the weather in Oslo?")
            call = await called(client)
            if resumable:
                handle = await handle_of(client)
        setup["sessionResumption"] = {"handle": handle}
        async with speaking_to(simulator, MODEL, **setup) as client:
            await reply(client, call, RESULT)
            if resumable:
                assert "snow" in words(await client.turn())
            else:
                assert await client.closed() == (1007, INVALID)


# The table itself


def test_every_switch_is_a_field_and_says_what_it_is_known_by() -> None:
    for profile in (*PROFILES.values(), *VERTEX_PROFILES.values()):
        given: dict[str, Any] = {name: getattr(profile, name) for name in SWITCHES}
        given["chunk_bytes"] = list(profile.chunk_bytes)
        assert profile.with_switches(given) == profile
    for description in SWITCHES.values():
        assert any(word in description for word in ("recorded", "documented", "reported", "inferred"))


@pytest.mark.parametrize(
    ("switches", "problem"),
    [
        ({"pase": 1}, 'pase is no switch - did you mean "pace"?'),
        ({"foo": 1}, "foo is no switch; there are affective_dialog, after_tool_s"),
        ({"pace": 0}, "pace must be a number of 0.01 or more, not 0"),
        ({"burst": 0}, "burst must be a whole number of 1 or more, not 0"),
        ({"after_tool_s": -1}, "after_tool_s must be a number of 0 or more, not -1"),
        ({"bad_handle": "gone"}, "bad_handle must be invalid or session or entity"),
        ({"scheduling": "no"}, "scheduling must be true or false, not 'no'"),
        ({"usage": "total"}, "usage must be turn or cumulative, not 'total'"),
        ({"chunk_bytes": []}, "chunk_bytes must be a list of whole numbers, not []"),
        ({"burst": 1.5}, "burst must be a whole number of 1 or more, not 1.5"),
    ],
)
def test_a_wrong_switch_is_told_with_those_that_there_are(switches: dict[str, Any], problem: str) -> None:
    with pytest.raises(Mistake, match=r"switch|must be") as caught:
        read_switches(switches)
    assert str(caught.value).startswith(problem)


def test_a_switch_can_be_given_back() -> None:
    switched = read_switches({"call_ids": "uuid", "bad_handle": "session"})
    again = switched | read_switches({"call_ids": None, "bad_handle": None})
    assert switched.profile(PROFILES[MODEL]).call_ids == "uuid"
    assert again.profile(PROFILES[MODEL]) == PROFILES[MODEL]
    assert (switched.rules.bad_handle, again.rules.bad_handle) == ("session", "invalid")


# What the conversation can be asked about itself


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("What did I ask before?", 'You said: "How warm is it in Oslo?"'),
        ("what was my last question", 'You said: "How warm is it in Oslo?"'),
        ("Do you remember what I said?", 'You said: "How warm is it in Oslo?"'),
        ("So, what was I saying before the connection broke?", 'You said: "How warm is it in Oslo?"'),
        ("What were we talking about?", 'You said: "How warm is it in Oslo?"'),
        ("What did I say first?", 'You said: "Hello, my name is Ada."'),
        ("What did you say?", 'I said: "It is cold."'),
        ("Repeat that, please.", 'I said: "It is cold."'),
        ("Who am I?", "Your name is Ada."),
        ("How warm is it in Paris?", None),
        ("What is the name of the king?", None),
    ],
)
def test_a_question_about_the_conversation_is_answered_from_it(question: str, told: str | None) -> None:
    said = Recollection()
    said.add(
        [
            Said(by_user=True, text="Hello, my name is Ada."),
            Said(by_user=False, text="Hello Ada."),
            Said(by_user=True, text="How warm is it in Oslo?"),
            Said(by_user=False, text="It is cold."),
            Said(by_user=True, text='(Result of get_time({}), which you asked for before: {"hour": 7})'),
        ]
    )
    assert said.answer(question) == told


@pytest.mark.parametrize(
    ("text", "results", "question"),
    [
        (
            '(Result of f({"a": 1}), which you asked for before: {"b": {"c": 2}})',
            [("f", {"b": {"c": 2}})],
            "",
        ),
        ('Result of f({}): {"b": 1}\nResult of g({}): {"b": 2}', [("f", {"b": 1}), ("g", {"b": 2})], ""),
        ('Tool f answered: {"b": 1}\nAnd now?', [("f", {"b": 1})], "And now?"),
        ('What is {"b": 1} in JSON?', [], 'What is {"b": 1} in JSON?'),
        ("The result of {this} is open.", [], "The result of {this} is open."),
        ("", [], ""),
    ],
)
def test_notes_in_a_users_turn_are_told_from_what_is_asked(
    text: str, results: list[Any], question: str
) -> None:
    notes = read_notes(text)
    assert (list(notes.results), notes.question) == (results, question)


async def test_blank_words_ask_for_the_answer_to_the_end_of_a_history_and_else_for_nothing() -> None:
    scenario = {
        "turns": [{"typed": "weather", "do": [{"say": "Rain."}]}, {"do": [{"say": "Something else."}]}]
    }
    async with (
        Simulator(scenario, speed=FAST) as simulator,
        opened(simulator, historyConfig={"initialHistoryInClientContent": True}) as client,
    ):
        turns = [text_turn("Hello."), text_turn("Hello.", "model"), text_turn("How is the weather?")]
        await client.send({"clientContent": {"turns": turns, "turnComplete": True}})
        await client.say(" ")
        assert words(await client.turn()) == "Rain."
        await client.say(" ")
        await client.say("And now?")
        assert words(await client.turn()) == "Something else."


async def test_a_call_that_was_never_sent_is_never_cancelled() -> None:
    scenario = {
        "turns": [
            {"typed": "look", "do": [{"call": {"name": "look"}}]},
            {"typed": "story", "do": [{"say": "Once upon a time.", "seconds": 60}]},
            {"do": [{"say": "Well."}]},
        ]
    }
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("Please look.")
        await client.say("No, a story.")
        await client.until(lambda message: "modelTurn" in content(message))
        await client.say("Enough.")
        seen = [*await client.turn(), *await client.turn()]
        assert "toolCallCancellation" not in kinds(seen)
        assert words(seen).endswith("Well.")
