"""The simulator's connections end by themselves, and a session goes on over the next one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dialling import FAST, SETUP, VERTEX_PATH, WEATHER, Client, answer, dialled, kinds, opened, words
from google.genai import types
from simulating import MODEL, Simulator

from tornado_live.simulator.age import CANCELLED, DEADLINE, STAYED, Age, Close, age_of, duration, read_age
from tornado_live.simulator.messages import Refused
from tornado_live.simulator.resumption import Handles, Line, Rules
from tornado_live.simulator.values import Mistake

SCRIPT = {
    "start": [{"say": "Welcome.", "audio": "none"}],
    "turns": [{"do": [{"say": f"Answer {number}.", "audio": "none"}]} for number in (1, 2, 3)],
}
HANDLES = {"sessionResumption": {}}
LONG = {"turns": [{"do": [{"say": "A long answer.", "seconds": 600}], "repeat": True}]}


def new_handle(message: dict[str, Any]) -> str | None:
    handle = message.get("sessionResumptionUpdate", {}).get("newHandle")
    assert handle is None or isinstance(handle, str)
    return handle


async def handle_of(client: Client) -> str:
    """The next handle that is sent."""
    handle = new_handle((await client.until(new_handle))[-1])
    assert handle is not None
    return handle


async def asked(client: Client, text: str = "Go on.") -> tuple[str, str]:
    """What is said to this text, and the handle that comes after it."""
    await client.say(text)
    said = words(await client.turn())
    return said, await handle_of(client)


@contextlib.asynccontextmanager
async def resuming(simulator: Simulator, handle: str, **setup: Any) -> AsyncIterator[Client]:
    async with dialled(simulator) as client:
        await client.send({"setup": {**SETUP, **setup, "sessionResumption": {"handle": handle}}})
        yield client


async def refusal(simulator: Simulator, handle: str, **setup: Any) -> tuple[int, str]:
    async with resuming(simulator, handle, **setup) as client:
        return await client.closed()


# The store, by plain values


def test_a_handle_leads_back_to_the_state_it_was_given_for() -> None:
    handles: Handles[str] = Handles(life_s=60)
    line = Line("a-model")
    line.opened()
    first, second = handles.issue(line, "early"), handles.issue(line, "late")
    handles.ended(line, now=100)
    assert first != second
    for handle, state in ((first, "early"), (second, "late"), (first, "early")):
        found = handles.resume(handle, model="a-model", rules=Rules(), now=160)
        assert (found.line, found.state) == (line, state)


def test_a_handle_lives_so_long_after_the_session_s_last_connection() -> None:
    handles: Handles[str] = Handles(life_s=60)
    line = Line("a-model")
    line.opened()
    handle = handles.issue(line, "state")
    handles.ended(line, now=100)
    line.opened()
    handles.ended(line, now=200)
    handles.resume(handle, model="a-model", rules=Rules(), now=260)
    with pytest.raises(Refused, match="Invalid session handle"):
        handles.resume(handle, model="a-model", rules=Rules(), now=260.1)
    assert len(handles) == 0


@pytest.mark.parametrize(
    ("rule", "code", "reason"),
    [
        ("invalid", 1007, "Invalid session handle"),
        ("session", 1008, "BidiGenerateContent session not found"),
        ("entity", 1008, "Requested entity was not found."),
    ],
)
def test_an_unknown_handle_is_refused_in_one_of_three_ways(rule: str, code: int, reason: str) -> None:
    handles: Handles[str] = Handles(life_s=60)
    with pytest.raises(Refused) as caught:
        handles.resume("never-given", model="a-model", rules=Rules(bad_handle=rule), now=0)
    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_handles_that_were_replaced_may_be_refused() -> None:
    handles: Handles[str] = Handles(life_s=60)
    line = Line("a-model")
    old, new = handles.issue(line, "early"), handles.issue(line, "late")
    rules = Rules(old_handles="refuse")
    assert handles.resume(new, model="a-model", rules=rules, now=0).state == "late"
    with pytest.raises(Refused, match="Invalid session handle"):
        handles.resume(old, model="a-model", rules=rules, now=0)


def test_a_session_has_its_newest_hundred_handles() -> None:
    handles: Handles[int] = Handles(life_s=60)
    line = Line("a-model")
    given = [handles.issue(line, number) for number in range(101)]
    assert line.newest == given[-1]
    assert handles.resume(given[1], model="a-model", rules=Rules(), now=0).state == 1
    with pytest.raises(Refused, match="Invalid session handle"):
        handles.resume(given[0], model="a-model", rules=Rules(), now=0)


def test_while_a_connection_is_open_its_session_cannot_be_resumed_unless_told_otherwise() -> None:
    handles: Handles[str] = Handles(life_s=60)
    line = Line("a-model")
    line.opened()
    handle = handles.issue(line, "state")
    with pytest.raises(Refused) as caught:
        handles.resume(handle, model="a-model", rules=Rules(), now=0)
    assert caught.value.code == 1011
    assert handles.resume(handle, model="a-model", rules=Rules(open_socket="take"), now=0).line is line


def test_another_model_cannot_go_on_with_the_session() -> None:
    handles: Handles[str] = Handles(life_s=60)
    handle = handles.issue(Line("a-model"), "state")
    with pytest.raises(Refused) as caught:
        handles.resume(handle, model="another", rules=Rules(), now=0)
    assert caught.value.code == 1007


# Handles on the wire


async def test_handles_come_after_the_setup_and_after_each_turn_and_none_during_one() -> None:
    async with Simulator(SCRIPT, speed=FAST) as simulator, opened(simulator, **HANDLES) as client:
        updates = [
            message["sessionResumptionUpdate"] for message in await client.turn() if new_handle(message)
        ]
        await handle_of(client)
        await client.say("Go on.")
        before = [each for each in kinds(await client.turn()) if each == "sessionResumptionUpdate"]
        after = await client.until(new_handle)
        assert before == ["sessionResumptionUpdate"]  # that it is not resumable now
        assert after[-1] == {
            "sessionResumptionUpdate": {"newHandle": new_handle(after[-1]), "resumable": True}
        }
        assert all(each["resumable"] for each in updates)


async def test_who_does_not_ask_for_handles_gets_none() -> None:
    async with Simulator(SCRIPT, speed=FAST) as simulator, opened(simulator) as client:
        messages = await client.turn()
        for _ in range(2):
            await client.say("Go on.")
            messages += await client.turn()
        assert not any("sessionResumptionUpdate" in message for message in messages)


@pytest.mark.parametrize(("rule", "update"), [("empty", {}), ("false", {"resumable": False})])
async def test_that_a_session_cannot_be_resumed_now_is_said_in_one_of_two_ways(
    rule: str, update: dict[str, Any]
) -> None:
    arguments = ("--switch", f"not_resumable={rule!r}")
    async with (
        Simulator(LONG, speed=FAST, arguments=arguments) as simulator,
        opened(simulator, **HANDLES) as client,
    ):
        await handle_of(client)
        await client.say("Begin.")
        messages = await client.until(lambda message: "sessionResumptionUpdate" in message)
        assert messages[-1] == {"sessionResumptionUpdate": update}


async def test_a_resumed_session_goes_on_in_its_script_and_remembers_what_it_was_billed_for() -> None:
    async with Simulator(SCRIPT, speed=FAST) as simulator:
        async with opened(simulator, **HANDLES) as client:
            assert words(await client.turn()) == "Welcome."
            await handle_of(client)
            said, handle = await asked(client)
            assert said == "Answer 1."
            (conversation,) = (await simulator.status())["conversations"]
            assert conversation["handle"] == handle
        async with resuming(simulator, handle) as client:
            assert await client.next() == {"setupComplete": {}}
            await client.say("Go on.")
            messages = await client.turn()
            assert words(messages) == "Answer 2."
            assert messages[-1]["usageMetadata"]["promptTokenCount"] > 8


async def test_each_handle_leads_back_to_its_own_moment() -> None:
    async with Simulator(SCRIPT, speed=FAST) as simulator:
        async with opened(simulator, **HANDLES) as client:
            await client.turn()
            early = await handle_of(client)
            await asked(client)
        for _ in range(2):
            async with resuming(simulator, early) as client:
                assert (await asked(client))[0] == "Answer 1."


async def test_with_a_script_for_each_connection_a_resumed_session_plays_the_next() -> None:
    scenario = {"connections": [SCRIPT, {"start": [{"say": "Second.", "audio": "none"}]}]}
    async with Simulator(scenario, speed=FAST) as simulator:
        async with opened(simulator, **HANDLES) as client:
            await client.turn()
            handle = await handle_of(client)
        async with resuming(simulator, handle) as client:
            assert words(await client.turn()) == "Second."


async def test_a_call_that_was_open_can_be_answered_after_the_resume_where_handles_are_given_then() -> None:
    scenario = {"turns": [{"do": [{"call": WEATHER}, {"say": "It is {get_weather.t}.", "audio": "none"}]}]}
    arguments = ("--switch", "resumable_in_call=true")
    async with Simulator(scenario, speed=FAST, arguments=arguments) as simulator:
        async with opened(simulator, **HANDLES) as client:
            await client.say("The weather?")
            (call,) = (await client.until(lambda message: "toolCall" in message))[-1]["toolCall"][
                "functionCalls"
            ]
            handle = await handle_of(client)
        async with resuming(simulator, handle) as client:
            assert await client.next() == {"setupComplete": {}}
            await client.send({"toolResponse": {"functionResponses": [answer(call, {"t": 21})]}})
            await client.until(lambda message: "sessionResumptionUpdate" in message)
            (conversation,) = (await simulator.status())["conversations"]
            assert conversation["live"]


async def test_bad_handles_are_refused() -> None:
    async with Simulator(SCRIPT, speed=FAST, arguments=("--handle-life", "0")) as simulator:
        async with opened(simulator, **HANDLES) as client:
            handle = await handle_of(client)
            assert await refusal(simulator, handle) == (1011, "Internal error encountered.")
        assert await refusal(simulator, handle) == (1007, "Invalid session handle")
        assert await refusal(simulator, "never-given") == (1007, "Invalid session handle")
        await simulator.control(switches={"bad_handle": "session"})
        assert await refusal(simulator, handle) == (1008, "BidiGenerateContent session not found")


async def test_another_model_is_refused_with_a_good_handle() -> None:
    async with Simulator(SCRIPT, speed=FAST) as simulator:
        async with opened(simulator, **HANDLES) as client:
            handle = await handle_of(client)
        code, _ = await refusal(simulator, handle, model="models/gemini-3.1-flash-live-preview")
        assert code == 1007


async def test_without_a_script_what_was_asked_back_about_is_not_forgotten() -> None:
    declaration = {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "OBJECT",
            "properties": {"city": {"type": "STRING", "description": "The city."}},
            "required": ["city"],
        },
    }
    tools = {"tools": [{"functionDeclarations": [declaration]}]}
    async with Simulator(speed=FAST) as simulator:
        async with opened(simulator, **HANDLES, **tools) as client:
            await client.say("What's the weather?")
            await client.turn()
            handle = await handle_of(client)
        async with resuming(simulator, handle, **tools) as client:
            await client.say("In Paris.")
            called = (await client.until(lambda message: "toolCall" in message))[-1]
            assert called["toolCall"]["functionCalls"][0]["args"] == {"city": "Paris"}


@pytest.mark.parametrize(("rule", "index"), [("string", "1"), ("number", 1)])
async def test_on_vertex_a_transparent_session_is_told_what_was_consumed(rule: str, index: object) -> None:
    setup = {
        **SETUP,
        "model": f"projects/p/locations/us-central1/publishers/google/models/{MODEL}",
        "sessionResumption": {"transparent": True},
    }
    arguments = ("--switch", f"message_index={rule}")
    async with (
        Simulator(SCRIPT, speed=FAST, arguments=arguments) as simulator,
        dialled(simulator, VERTEX_PATH, additional_headers={"Authorization": "Bearer t"}) as client,
    ):
        await client.send({"setup": setup})
        session = (await client.next())["setupComplete"]["sessionId"]
        assert len(session) == 36
        await client.turn()
        await client.say("Go on.")
        await client.turn()
        update = (await client.until(new_handle))[-1]["sessionResumptionUpdate"]
        assert update["lastConsumedClientMessageIndex"] == index


# Ages


def test_each_family_of_models_has_its_age() -> None:
    assert age_of("gemini-2.5-flash-native-audio-latest", vertex=False) == Age(
        590.5, 50, then=Close(1008, STAYED[:123])
    )
    assert age_of("gemini-3.8-live", vertex=False) == Age(3480, 50, then=Close(1011, DEADLINE))
    assert age_of("gemini-3.8-live", vertex=True) == Age(600, 60, then=Close(1000, CANCELLED))
    assert STAYED[:123].endswith("once the session durat")


def test_time_is_written_as_protocol_buffers_do() -> None:
    assert [duration(seconds) for seconds in (50, 0.5, 2.04, 0, -1)] == [
        "50s",
        "0.500s",
        "2.040s",
        "0s",
        "0s",
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, "must be a mapping of go_away, limit, silent, then, time_left, times"),
        ({"limits": 5}, 'limits is not known here - did you mean "limit"?'),
        ({"limit": -1}, "limit must be a number of seconds, 0 or more"),
        (
            {"then": {"close": {"code": 1006}}},
            "then.close.code must be a WebSocket close code that can be sent",
        ),
        ({"then": "leave"}, 'then must be "stay" or a mapping of close'),
    ],
)
def test_a_wrong_age_is_told_with_its_place(value: object, problem: str) -> None:
    with pytest.raises(Mistake) as caught:
        read_age(value)
    assert str(caught.value).startswith(problem)


async def until_the_end(client: Client) -> tuple[list[dict[str, Any]], tuple[int, str]]:
    """The goAway messages, and the close."""
    messages = await client.until(lambda message: "goAway" in message)
    return messages[-1:], await client.closed()


async def test_who_stays_after_go_away_is_closed_as_google_does_it() -> None:
    arguments = ("--age", "60", "--go-away", "50")
    async with Simulator(speed=100, arguments=arguments) as simulator:
        async with opened(simulator) as client:
            assert await until_the_end(client) == ([{"goAway": {"timeLeft": "0.500s"}}], (1011, DEADLINE))
        async with opened(simulator, model="models/gemini-3.1-flash-live-preview") as client:
            assert (await until_the_end(client))[1] == (1008, STAYED[:123])


@pytest.mark.parametrize(
    ("age", "announced"),
    [
        ({}, [{"goAway": {"timeLeft": "0.200s"}}]),
        ({"time_left": "0s"}, [{"goAway": {"timeLeft": "0s"}}]),
        ({"time_left": ""}, [{"goAway": {}}]),
        ({"time_left": "soon", "times": 2}, [{"goAway": {"timeLeft": "soon"}}] * 2),
        ({"go_away": None}, []),
    ],
)
async def test_an_end_can_be_announced_in_every_wrong_way(
    age: dict[str, Any], announced: list[dict[str, Any]]
) -> None:
    end = {"limit": 6, "go_away": 4, "then": {"close": {"code": 1000, "reason": CANCELLED}}}
    async with Simulator({"age": {**end, **age}}, speed=FAST) as simulator, opened(simulator) as client:
        messages = []
        with contextlib.suppress(Exception):
            while True:
                messages.append(await client.next())
        assert messages == announced
        assert await client.closed() == (1000, CANCELLED)


async def test_after_go_away_the_server_may_be_silent_and_never_close() -> None:
    scenario = {"age": {"limit": 10, "go_away": 8, "silent": True, "then": "stay"}, **LONG}
    async with Simulator(scenario, speed=FAST) as simulator, opened(simulator) as client:
        await client.say("Begin.")
        await client.until(lambda message: "goAway" in message)
        await (await client.socket.ping())
        (conversation,) = (await simulator.status())["conversations"]
        assert conversation["faults"] == {"silent": True}
        assert conversation["live"]
        assert conversation["age_limit_s"] == pytest.approx(0.5, abs=0.01)


async def test_a_conversation_goes_on_over_many_short_connections() -> None:
    scenario = {"turns": [{"repeat": True, "do": [{"say": "Yes.", "audio": "none"}]}]}
    arguments = ("--age", "60", "--go-away", "50")
    async with Simulator(scenario, speed=FAST, arguments=arguments) as simulator:
        handle, tokens = "", 0
        for _ in range(4):
            resumption = {"sessionResumption": {"handle": handle} if handle else {}}
            async with opened(simulator, **resumption) as client:
                await client.say("Still there?")
                messages = await client.turn()
                assert words(messages) == "Yes."
                assert messages[-1]["usageMetadata"]["promptTokenCount"] > tokens
                tokens = messages[-1]["usageMetadata"]["promptTokenCount"]
                handle = await handle_of(client)
        assert (await simulator.status())["connections"] == 4


async def test_google_s_client_reads_go_away_and_resumes() -> None:
    scenario = {**SCRIPT, "age": {"limit": 300, "go_away": 299, "then": "stay"}}
    async with Simulator(scenario, tls=True, speed=FAST) as simulator:
        client = simulator.client()
        handle: str | None = None
        for answer_of_turn in ("Answer 1.", "Answer 2."):
            config = types.LiveConnectConfig(
                output_audio_transcription=types.AudioTranscriptionConfig(),
                session_resumption=types.SessionResumptionConfig(handle=handle),
            )
            said, left = "", None
            async with client.aio.live.connect(model=MODEL, config=config) as session:
                await session.send_realtime_input(text="Go on.")
                handle = None
                while answer_of_turn not in said or handle is None or left is None:
                    async for message in session.receive():
                        if message.server_content and message.server_content.output_transcription:
                            said += message.server_content.output_transcription.text or ""
                        if message.go_away is not None:
                            left = message.go_away.time_left
                        update = message.session_resumption_update
                        if update is not None:
                            handle = update.new_handle
                        if answer_of_turn in said and handle is not None and left is not None:
                            break
            assert left == "14.950s"
        client.close()


async def test_at_speed_1_go_away_says_50s() -> None:
    age = {"limit": 50, "then": "stay"}
    async with Simulator({"age": age}) as simulator, opened(simulator) as client:
        assert await client.next() == {"goAway": {"timeLeft": "50s"}}
