"""Every fault of the simulator, as a client sees it, and every way to turn it on."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from dialling import (
    FAST,
    LIVE_PATH,
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
from google.genai import types
from google.genai.errors import APIError
from google.genai.live import AsyncSession
from simulating import MODEL, Simulator
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tornado_live.simulator.age import Close
from tornado_live.simulator.faults import (
    FAULTS,
    EmptyTurns,
    Fault,
    HttpError,
    Kind,
    Place,
    Planned,
    Refusal,
    read_fault,
    read_option,
    read_planned,
)
from tornado_live.simulator.testing import ControlRefused
from tornado_live.simulator.values import Mistake

YES = {"turns": [{"repeat": True, "do": [{"say": "Yes indeed.", "seconds": 0.5}]}]}
LONG = {"turns": [{"do": [{"say": "A long answer.", "seconds": 600}], "repeat": True}]}
CALLING = {
    "turns": [{"repeat": True, "do": [{"call": [WEATHER, WEATHER]}, {"say": "Done.", "audio": "none"}]}]
}
BLOCKING = {
    "tools": [
        {"functionDeclarations": [{"name": "get_weather", "description": "W.", "behavior": "BLOCKING"}]}
    ]
}
INTERNAL = (1011, "Internal error encountered.")


async def turn_of(client: Client, text: str = "Go on.") -> list[dict[str, Any]]:
    await client.say(text)
    return await client.turn()


async def calls_of(client: Client) -> list[dict[str, Any]]:
    calls = (await client.until(lambda message: "toolCall" in message))[-1]["toolCall"]["functionCalls"]
    assert isinstance(calls, list)
    return calls


async def answered(client: Client, *calls: dict[str, Any]) -> None:
    responses = [answer(call, {"t": 21}) for call in calls]
    await client.send({"toolResponse": {"functionResponses": responses}})


def is_interrupted(message: dict[str, Any]) -> bool:
    return "interrupted" in content(message)


async def lost(client: Client) -> BaseException | None:
    """What the connection was lost by."""
    try:
        await client.socket.recv()
    except ConnectionClosed as closed:
        return closed.__cause__
    return None


# How a fault is named


@pytest.mark.parametrize(
    ("option", "planned"),
    [
        ("drop", Planned(Fault("drop", True))),
        ("slow_pong", Planned(Fault("slow_pong", 8.0))),
        ("slow_pong=10", Planned(Fault("slow_pong", 10.0))),
        ("close@2.5", Planned(Fault("close", Close(*INTERNAL)), after=2.5)),
        ("drop@turn:2@connection:0", Planned(Fault("drop", True), turn=2, connection=0)),
        ("http=429", Planned(Fault("http", HttpError(429)))),
        ("http={status: 503, times: 2, retry_after: 5}", Planned(Fault("http", HttpError(503, 2, 5.0)))),
        ('close={"code": 1008, "reason": "a@b"}@3', Planned(Fault("close", Close(1008, "a@b")), after=3.0)),
        ("refuse_resume", Planned(Fault("refuse_resume", Refusal(Close(1007, "Invalid session handle"))))),
        ("empty_turns={times: 2, reason: ''}", Planned(Fault("empty_turns", EmptyTurns(2, "")))),
        ("duplicate_calls=same_id", Planned(Fault("duplicate_calls", "same_id"))),
        ("go_away=10", Planned(Fault("go_away", {"go_away": 10.0}))),
    ],
)
def test_the_command_line_names_a_fault_its_value_and_its_occasion(option: str, planned: Planned) -> None:
    assert read_option(option) == planned


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("dorp", 'dorp is no fault - did you mean "drop"?'),
        ("qqq", f"qqq is no fault; there are {', '.join(sorted(FAULTS))}"),
        ("http={status: 503, status: 429}", "http has a value that is not YAML"),
        ("drop@soon", '"drop@soon" is not NAME[=VALUE][@SECONDS][@turn:N][@connection:N]'),
        ("drop@turn:0", "drop cannot come @turn:0"),
        ("drop@1.2.3", "drop cannot come @1.2.3"),
        ("drop@1@turn:2", "drop has a time and a turn: one of them is enough"),
        ("http=200", "http.status must be an HTTP status of 400 to 599"),
        ("http@3", "http acts before a conversation: no time and no turn can be given"),
        ("close={code: 1006}", "close.code must be a WebSocket close code that can be sent, such as 1011"),
        ("close={code: 1011, why: x}", "close.why is not known here"),
        ("giant=65", "giant must not be more than 64 MiB"),
        ("giant={", "giant has a value that is not YAML"),
        ("drop=false", "drop acts once and cannot be switched off"),
        ("go_away={limit: 5}", "go_away.limit is not known here: go_away says when the end comes"),
        ("duplicate_calls=twice", "duplicate_calls must be repeated or same_id"),
    ],
)
def test_a_wrong_option_is_told_in_words(option: str, problem: str) -> None:
    with pytest.raises(Mistake) as caught:
        read_option(option)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("drop", "must be a mapping of a fault's name and its value"),
        ({"after": 3}, "must be a mapping of a fault's name and its value"),
        ({"drop": True, "silent": True}, "has drop and silent: make two entries of it"),
        ({"drop": True, "after": "soon"}, "after must be a number of seconds, 0 or more"),
        ({"drop": True, "turn": 0}, "turn must be a whole number, 1 or more"),
    ],
)
def test_a_wrong_entry_of_a_scenario_is_told_in_words(entry: object, problem: str) -> None:
    with pytest.raises(Mistake) as caught:
        read_planned(entry)
    assert str(caught.value) == problem


def test_every_fault_has_a_usual_value_and_those_that_last_an_end() -> None:
    for name, definition in FAULTS.items():
        fault = read_fault(name, "repeated" if name == "duplicate_calls" else True)
        assert fault.definition is definition
        if definition.kind is not Kind.ONCE:
            assert read_fault(name, False) == Fault(name, None)


# Where it is turned on


async def test_a_fault_can_come_from_the_command_line_a_scenario_and_the_control_route() -> None:
    arguments = ("--fault", "close={code: 1008, reason: first}@connection:0")
    script = {**YES, "faults": [{"close": {"code": 1008, "reason": "second"}, "turn": 2}]}
    scenario = {"connections": [YES, script, YES]}
    async with Simulator(scenario, speed=FAST, arguments=arguments) as simulator:
        async with opened(simulator) as client:
            assert await client.closed() == (1008, "first")
        async with opened(simulator) as client:
            await turn_of(client)
            await client.say("Go on.")
            assert await client.closed() == (1008, "second")
        async with opened(simulator) as client:
            assert await simulator.control({"close": {"code": 1008, "reason": "third"}}, connection=2) == [2]
            assert await client.closed() == (1008, "third")


async def test_a_fault_can_be_a_step_of_a_script_and_end_there() -> None:
    steps = [
        {"fault": {"digital_silence": True}},
        {"say": "Mute.", "seconds": 0.5},
        {"fault": {"digital_silence": False}},
        {"say": "Heard.", "seconds": 0.5},
    ]
    async with Simulator({"turns": [{"do": steps}]}, speed=FAST) as simulator, opened(simulator) as client:
        messages = await turn_of(client)
        pcm = b"".join(sound(messages))
        assert not any(pcm[: len(pcm) // 2])
        assert any(pcm[len(pcm) // 2 :])


async def test_a_fault_can_come_some_seconds_into_every_connection() -> None:
    async with Simulator(YES, speed=FAST, arguments=("--fault", "drop@1")) as simulator:
        for _ in range(2):
            async with opened(simulator) as client:
                assert (await client.closed())[0] == 1006


async def test_control_lists_what_there_is_and_refuses_what_there_is_not() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        listed = await asyncio.to_thread(simulator._running.faults)
        assert set(listed["faults"]) == set(FAULTS)
        assert listed["faults"]["drop"]["takes"] == "true"
        assert "bad_handle" in listed["switches"]
        for fault, connection, problem in (
            ("dorp", None, 'dorp is no fault - did you mean "drop"?'),
            ("drop", None, "there is no open connection"),
            ("drop", 7, "there is no open connection 7"),
            ("http", 0, "http concerns all connections: leave the connection out"),
            (
                "setup_delay",
                "all",
                'setup_delay acts at the setup, which is over here: use the connection "next"',
            ),
        ):
            with pytest.raises(ControlRefused) as caught:
                await simulator.control(fault, connection=connection)
            assert str(caught.value) == problem


async def test_a_web_page_cannot_control_it() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        for headers in (
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/json", "Host": "evil.example"},
            {"Content-Type": "application/json", "Origin": "http://localhost:5173"},
            {"Content-Type": "application/json", "Origin": "null"},
        ):
            body = json.dumps({"fault": {"http": 503}}).encode()
            request = urllib.request.Request(f"{simulator.url}/control", data=body, headers=headers)
            with pytest.raises(urllib.error.HTTPError) as caught:
                await asyncio.to_thread(urllib.request.urlopen, request, timeout=20)
            assert caught.value.code in (403, 404, 415)
            caught.value.close()
        assert (await simulator.status())["faults"] == {}


async def test_a_name_that_was_made_to_lead_here_controls_nothing_on_any_address() -> None:
    async with Simulator(YES, speed=FAST, arguments=("--host", "0.0.0.0")) as simulator:
        headers = {"Content-Type": "application/json", "Host": "rebound.example"}
        request = urllib.request.Request(
            f"{simulator.url}/control", data=b'{"fault": "http"}', headers=headers
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(urllib.request.urlopen, request, timeout=20)
        assert caught.value.code == 403
        assert b"localhost" in caught.value.read()
        assert await simulator.control("http") == ["next"]


async def test_a_fault_that_needs_no_value_is_controlled_by_its_name() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        headers = {"Content-Type": "application/json", "Origin": simulator.url}  # a page of its own
        request = urllib.request.Request(
            f"{simulator.url}/control", data=b'{"fault": "http"}', headers=headers
        )
        (await asyncio.to_thread(urllib.request.urlopen, request, timeout=20)).close()
        assert (await simulator.status())["faults"] == {"http": 1}


async def test_the_status_shows_what_is_broken() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator):
        await simulator.control({"slow_pong": 9, "http": {"status": 503, "times": 2}})
        status = await simulator.status()
        assert status["faults"] == {"http": 2}
        assert status["conversations"][0]["faults"] == {"slow_pong": 9}


# Before the conversation


async def test_upgrades_are_refused_so_many_times_with_google_s_words() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        await simulator.control({"http": {"status": 429, "times": 2, "retry_after": 7}})
        for _ in range(2):
            with pytest.raises(InvalidStatus) as caught:
                async with dialled(simulator):
                    pass
            response = caught.value.response
            assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
            assert json.loads(response.body or b"")["error"] == {
                "code": 429,
                "message": "Resource has been exhausted (e.g. check quota).",
                "status": "RESOURCE_EXHAUSTED",
            }
        async with opened(simulator):
            pass


async def test_the_setup_can_be_refused_delayed_and_never_answered() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        await simulator.control("close_at_setup")
        async with dialled(simulator) as client:
            await client.send({"setup": SETUP})
            assert await client.closed() == INTERNAL
        await simulator.control({"setup_delay": 0})
        async with opened(simulator):
            pass
        await simulator.control("no_setup_answer")
        async with dialled(simulator) as client:
            await client.send({"setup": SETUP})
            await (await client.socket.ping())
            (conversation,) = (await simulator.status())["conversations"]
            assert not conversation["live"]
        async with opened(simulator):
            pass


async def test_good_handles_can_be_refused_lost_or_never_given() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        async with opened(simulator, sessionResumption={}) as client:
            update = (await client.until(lambda message: "sessionResumptionUpdate" in message))[-1]
            handle = update["sessionResumptionUpdate"]["newHandle"]

        async def resumed() -> tuple[int, str] | str:
            async with dialled(simulator) as client:
                await client.send({"setup": {**SETUP, "sessionResumption": {"handle": handle}}})
                try:
                    await client.next()
                except ConnectionClosed:
                    return await client.closed()
                return "resumed"

        await simulator.control("refuse_resume")
        assert await resumed() == (1007, "Invalid session handle")
        assert await resumed() == "resumed"
        await simulator.control({"refuse_resume": {"code": 1008, "reason": "Gone."}})
        assert await resumed() == (1008, "Gone.")
        async with opened(simulator):
            await simulator.control("lose_handles")
        assert await resumed() == (1007, "Invalid session handle")
        await simulator.control("no_handles", connection="next")
        async with opened(simulator, sessionResumption={}) as client:
            assert "sessionResumptionUpdate" not in kinds([*await turn_of(client), *await turn_of(client)])
            await simulator.control({"no_handles": False, "not_resumable": True})
            for _ in range(2):
                await turn_of(client)
            update = await client.until(lambda message: "sessionResumptionUpdate" in message)
            assert update[-1] == {"sessionResumptionUpdate": {}}


# The end of a connection


async def test_a_conversation_ends_with_any_close_without_one_and_after_the_next_tool_answer() -> None:
    async with Simulator(LONG, speed=FAST) as simulator:
        async with opened(simulator) as client:
            await client.say("Begin.")
            await client.until(is_sound)
            await simulator.control({"close": {"code": 1011, "reason": "Internal error occurred."}})
            assert await client.closed() == (1011, "Internal error occurred.")
        async with opened(simulator) as client:
            await simulator.control("drop")
            assert (await client.closed())[0] == 1006
    async with Simulator(CALLING, speed=FAST) as simulator, opened(simulator, **BLOCKING) as client:
        await client.say("Begin.")
        calls = await calls_of(client)
        await simulator.control("close_after_tool_response")
        await answered(client, *calls)
        assert await client.closed() == INTERNAL


@pytest.mark.parametrize("tls", [False, True])
async def test_a_reset_comes_in_the_middle_of_a_message(tls: bool) -> None:
    async with Simulator(LONG, speed=FAST, tls=tls) as simulator:
        options = {"ssl": simulator.ssl} if tls else {}
        async with dialled(simulator, **options) as client:
            await client.send({"setup": SETUP})
            await client.next()
            await client.say("Begin.")
            await client.until(is_sound)
            await simulator.control("reset")
            assert (await client.closed())[0] == 1006
            # Python's TLS tells a reset as an end without a goodbye.
            assert tls or isinstance(await lost(client), ConnectionResetError)


async def test_go_away_can_come_at_any_time() -> None:
    async with Simulator(LONG, speed=FAST) as simulator:
        async with opened(simulator) as client:
            await simulator.control(
                {"go_away": {"go_away": 2, "times": 2, "then": {"close": {"code": 1008, "reason": "Late."}}}}
            )
            assert [await client.next(), await client.next()] == [{"goAway": {"timeLeft": "0.100s"}}] * 2
            assert await client.closed() == (1008, "Late.")
        async with opened(simulator) as client:
            await simulator.control({"go_away": {"time_left": "soon", "then": "stay"}})
            assert await client.next() == {"goAway": {"timeLeft": "soon"}}


# The line


async def test_a_silent_server_still_reads_and_answers_pings() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control("silent")
        await client.say("Are you there?")
        await (await client.socket.ping())
        (conversation,) = (await simulator.status())["conversations"]
        assert conversation["counts"]["realtimeInput"] == 1
        await simulator.control({"silent": False})
        await client.say("Are you there now?")
        await client.until(is_sound)


async def test_a_half_open_line_gives_no_pong_reads_nothing_and_can_be_resumed() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator, sessionResumption={}) as client:
        update = (await client.until(lambda message: "sessionResumptionUpdate" in message))[-1]
        handle = update["sessionResumptionUpdate"]["newHandle"]
        await simulator.control("half_open")
        pong = await client.socket.ping()
        await client.say("Are you there?")
        async with opened(simulator, sessionResumption={"handle": handle}) as second:
            assert words(await turn_of(second)) == "Yes indeed."
        (conversation,) = (await simulator.status())["conversations"]
        assert conversation["counts"].get("realtimeInput", 0) == 0
        assert not pong.done()
        await simulator.control({"half_open": False}, connection=0)
        assert words(await client.turn()) == "Yes indeed."
        client.socket.transport.abort()


async def test_pongs_can_be_slow() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control({"slow_pong": 8})
        assert await (await client.socket.ping()) >= 0.4
        await simulator.control({"slow_pong": False})
        await (await client.socket.ping())


async def test_a_slow_line_delivers_everything_in_order() -> None:
    async with Simulator(YES, speed=FAST, arguments=("--fault", "slow_writes=20000")) as simulator:
        async with opened(simulator) as client:
            messages = await turn_of(client)
            assert sum(map(len, sound(messages))) == 24_000
            assert words(messages) == "Yes indeed."
        async with opened(simulator) as client:
            await client.say("Go on.")
            await client.until(is_sound)


# The form of messages


@pytest.mark.parametrize("fault", ["bad_json", "bad_utf8", "nan", "unknown_message"])
async def test_messages_that_nobody_can_read_come_as_often_as_told(fault: str) -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control({fault: 3})
        await client.say("Go on.")
        frames = [await client.socket.recv() for _ in range(3)]
        assert all(isinstance(frame, bytes) for frame in frames)
        assert len(set(frames)) == 1
        match fault:
            case "bad_json":
                with pytest.raises(json.JSONDecodeError):
                    json.loads(frames[0])
            case "bad_utf8":
                with pytest.raises(UnicodeDecodeError):
                    json.loads(frames[0])
            case "nan":
                assert b": NaN" in bytes(frames[0])
            case _:
                assert list(json.loads(frames[0])) == ["somethingNew"]
        assert words(await client.turn()) == "Yes indeed."


async def test_frames_can_be_text() -> None:
    arguments = ("--fault", "text_frames")
    async with Simulator(YES, speed=FAST, arguments=arguments) as simulator, dialled(simulator) as client:
        await client.send({"setup": SETUP})
        assert await client.socket.recv() == '{\n  "setupComplete": {}\n}\n'


async def test_unknown_fields_and_values_leave_the_known_ones_as_they_are() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control({"unknown_fields": True, "unknown_enums": True})
        await client.say("Go on.")
        messages = [json.loads(await client.socket.recv())]
        while "turnComplete" not in content(messages[-1]):
            messages.append(json.loads(await client.socket.recv()))
        assert words(messages) == "Yes indeed."
        assert all({"somethingElse"} < message.keys() for message in messages if "serverContent" in message)
        assert content(messages[-1])["turnCompleteReason"] == "SOMETHING_NEW"
        assert content(messages[-1])["somethingNew"]["kind"] == "SOMETHING_NEW"


async def test_one_message_can_be_of_any_size() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control("giant")
        assert len(await client.socket.recv()) == 17 * 1024 * 1024
        await simulator.control({"giant": 1.5})
        message = await client.next()
        assert content(message)["modelTurn"]["parts"][0]["thought"] is True
        assert words(await turn_of(client)) == "Yes indeed."


# Turns and calls


async def test_sound_can_be_digital_silence() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control("digital_silence")
        pcm = b"".join(sound(await turn_of(client)))
        assert (len(pcm), any(pcm)) == (24_000, False)


async def test_turns_can_be_empty_and_the_next_one_is_whole() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control({"empty_turns": 2})
        for _ in range(2):
            messages = await turn_of(client)
            assert messages == [
                {"serverContent": {"turnComplete": True, "turnCompleteReason": "RESPONSE_REJECTED"}}
            ]
        assert words(await turn_of(client)) == "Yes indeed."


async def test_a_turn_can_be_silent_until_somebody_asks_again() -> None:
    async with Simulator(LONG, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control("silent_turns")
        await client.say("Go on.")
        while "silent_turns" in (await simulator.status())["conversations"][0]["faults"]:
            pass
        await client.say("Are you there?")
        assert is_sound(await client.next())


async def test_an_answer_of_a_function_can_be_ignored() -> None:
    async with Simulator(CALLING, speed=FAST) as simulator, opened(simulator, **BLOCKING) as client:
        await simulator.control("ignore_tool_response")
        await client.say("Go on.")
        await answered(client, *await calls_of(client))
        await client.say("Are you there?")
        messages = await client.until(lambda message: "toolCall" in message)
        assert words(messages) == ""
        await answered(client, *messages[-1]["toolCall"]["functionCalls"])
        assert words(await client.turn()) == "Done."


async def test_calls_can_be_repeated_or_share_an_id() -> None:
    async with Simulator(CALLING, speed=FAST) as simulator, opened(simulator, **BLOCKING) as client:
        await simulator.control("duplicate_calls")
        await client.say("Go on.")
        calls = await calls_of(client)
        assert await calls_of(client) == calls
        await answered(client, *calls, *calls)
        assert words(await client.turn()) == "Done."
        await simulator.control({"duplicate_calls": "same_id"})
        await client.say("Go on.")
        first, second = await calls_of(client)
        assert first["id"] == second["id"]
        await answered(client, first)
        assert words(await client.turn()) == "Done."


async def test_open_calls_can_be_cancelled_at_will() -> None:
    async with Simulator(CALLING, speed=FAST) as simulator, opened(simulator, **BLOCKING) as client:
        await client.say("Go on.")
        calls = await calls_of(client)
        await simulator.control("cancel_calls")
        cancelled = await client.until(lambda message: "toolCallCancellation" in message)
        assert cancelled[-1] == {"toolCallCancellation": {"ids": [call["id"] for call in calls]}}
        assert words(await client.turn()) == "Done."
        await answered(client, *calls)  # too late, and no harm
        await client.say("Go on.")
        await calls_of(client)


async def test_content_of_the_old_turn_can_follow_an_interruption() -> None:
    async with Simulator(LONG, speed=FAST) as simulator, opened(simulator) as client:
        await simulator.control({"late_content": 2})
        await client.say("Begin.")
        await client.until(is_sound)
        await client.say("Stop.")
        await client.until(is_interrupted)
        late = await client.turn()
        assert [is_sound(message) for message in late] == [True, True, False]


async def test_the_end_of_a_turn_can_come_late_or_never() -> None:
    async with Simulator(YES, speed=FAST) as simulator, opened(simulator, sessionResumption={}) as client:
        await client.until(lambda message: "sessionResumptionUpdate" in message)
        await simulator.control({"late_turn_complete": 1})
        messages = await turn_of(client)
        after = await client.next()
        assert "sessionResumptionUpdate" not in kinds(messages)[-2:]
        assert "sessionResumptionUpdate" in after
        await simulator.control({"late_turn_complete": False, "no_turn_complete": 1})
        await client.say("Go on.")
        messages = await client.until(
            lambda message: "newHandle" in message.get("sessionResumptionUpdate", {})
        )
        assert words(messages) == "Yes indeed."
        assert not any("turnComplete" in content(message) for message in messages)


async def test_faults_work_on_every_path() -> None:
    async with Simulator(YES, speed=FAST, arguments=("--fault", "http=503@connection:1")) as simulator:
        async with dialled(simulator, LIVE_PATH.replace("v1beta", "v1")) as client:
            await client.send({"setup": SETUP})
            await client.next()
        with pytest.raises(InvalidStatus):
            async with dialled(simulator):
                pass
        async with opened(simulator):
            pass


async def test_every_fault_in_mid_conversation_leaves_nothing_behind() -> None:
    async with Simulator(CALLING, speed=FAST) as simulator:
        for name, definition in FAULTS.items():
            async with opened(simulator, **BLOCKING) as client:
                await client.say("Go on.")
                await calls_of(client)
                where: Any = "all" if definition.place is Place.CONVERSATION else None
                value: Any = {"giant": 1, "duplicate_calls": "repeated"}.get(name, True)
                await simulator.control({name: value}, connection=where)
                if definition.kind is not Kind.ONCE:
                    await simulator.control({name: False}, connection=where)
                client.socket.transport.abort()
            if definition.place is Place.OPENING:
                async with dialled(simulator):
                    pass
        assert await simulator.stop() == 0
        assert simulator.log == ""


# Google's own client


async def said_to_google_s_client(session: AsyncSession) -> str:
    """What is answered to a sentence, as Google's client tells it."""
    await session.send_realtime_input(text="Go on.")
    said = ""
    async for message in session.receive():
        if message.server_content and message.server_content.output_transcription:
            said += message.server_content.output_transcription.text or ""
    return said


@pytest.mark.filterwarnings("ignore:SOMETHING_NEW is not a valid")
async def test_google_s_client_bears_new_fields_new_values_and_text_frames() -> None:
    async with Simulator(YES, tls=True, speed=FAST) as simulator:
        client = simulator.client()
        config = types.LiveConnectConfig(output_audio_transcription=types.AudioTranscriptionConfig())
        async with client.aio.live.connect(model=MODEL, config=config) as session:
            for fault in ("unknown_fields", "unknown_enums", "text_frames"):
                await simulator.control(fault)
                assert await said_to_google_s_client(session) == "Yes indeed."
        client.close()


async def test_google_s_client_stumbles_over_a_message_that_is_all_new() -> None:
    async with Simulator(YES, tls=True, speed=FAST) as simulator:
        client = simulator.client()
        async with client.aio.live.connect(model=MODEL) as session:
            await simulator.control("unknown_message")
            with pytest.raises(TypeError):
                await said_to_google_s_client(session)
        client.close()


async def test_google_s_client_refuses_more_than_a_mebibyte() -> None:
    async with Simulator(YES, tls=True, speed=FAST) as simulator:
        client = simulator.client()
        async with client.aio.live.connect(model=MODEL) as session:
            await simulator.control({"giant": 1.1})
            with pytest.raises(APIError) as caught:
                _ = [message async for message in session.receive()]
            assert caught.value.code == 1006
        client.close()
