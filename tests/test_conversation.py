"""What a conversation decides, by plain lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest
from modelling import MODELS

from tornado_live.errors import BadMessage, Forbidden, SessionEnded, TimedOut, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.live.causes import LINE_LOST, UNREACHABLE, of_close, of_status
from tornado_live.live.commands import (
    FORWARD,
    Agree,
    Answered,
    AnswerTool,
    CancelTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Failure,
    Frame,
    Gesture,
    Interrupted,
    Line,
    ModelMessage,
    Open,
    OpenModel,
    Record,
    Remember,
    Said,
    SendToClient,
    SendToModel,
    Speech,
    StartTool,
    Status,
    Timer,
    ToClient,
    ToolCancelled,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Transcribed,
    TurnComplete,
    Typed,
    Upward,
    UsageTotals,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.input import BAD_MESSAGES_A_MINUTE, HELD_SECONDS
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.person import ClientResult, Consent
from tornado_live.tools.policy import DEFAULT_POLICY, CallPolicy
from tornado_live.tools.result import ToolCode, ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.native import ConnectOptions

REFUSED = of_close(
    1007,
    "API key not valid. Please pass a valid API key.",
    facts=None,
    last_sent="",
    opened=False,
    resuming=False,
)
OVERLOADED = of_status(429, 30)

SPEECH = Speech(b"speech", 0.02)
OK = ToolResult(True, {"status": "ok", "result": 21}, 12, summary="21 degrees")


def conversation(
    history: Sequence[tuple[str, str]] = (),
    *,
    grace_s: float = 30,
    allowed: frozenset[str] = frozenset({"activity"}),
    model: str = "gemini-3.8-live",
    policies: Mapping[str, CallPolicy] = MappingProxyType({}),
) -> Conversation:
    def declarations(toolset: tuple[str, ...] | None) -> list[Mapping[str, Json]]:
        return [{"name": name} for name in toolset or ("everything",)]

    return Conversation(
        assistants={
            "default": Assistant("default", model, {}, None),
            "support": Assistant("support", model, {}, ("get_weather",)),
        },
        assistant="default",
        allowed_options=allowed,
        declarations=declarations,
        policy=lambda name: policies.get(name, DEFAULT_POLICY),
        upstream="simulator",
        limits=Limits(grace_s=grace_s),
        jitter=lambda: 0.5,
        models=MODELS,
        history=history,
        turn=len([role for role, _ in history if role == "user"]),
    )


def live(history: Sequence[tuple[str, str]] = (), options: ConnectOptions | None = None) -> Conversation:
    talk = conversation(history)
    talk.client_came(0.0)
    talk.from_client(Open(options or ConnectOptions()), 0.0)
    talk.model_opened(0.5)
    assert talk.phase is Phase.LIVE
    return talk


def told(commands: Sequence[Command]) -> list[ToClient]:
    return [command.event for command in commands if isinstance(command, SendToClient)]


def content(**fields: object) -> gemini.ServerMessage:
    return gemini.ServerMessage(server_content=gemini.ServerContent(**fields))  # type: ignore[arg-type]


def heard(text: str, *, finished: bool | None = None) -> gemini.ServerMessage:
    return content(input_transcription=gemini.Transcription(text, finished))


def spoken(text: str, *, finished: bool | None = None) -> gemini.ServerMessage:
    return content(output_transcription=gemini.Transcription(text, finished))


def sound(data: str = "AAAA") -> gemini.ServerMessage:
    part = gemini.Part(inline_data=gemini.InlineData("audio/pcm;rate=24000", data))
    return content(model_turn=gemini.ModelTurn([part]))


def called(*calls: tuple[str, str]) -> gemini.ServerMessage:
    functions = [gemini.FunctionCall(name, call_id, {"location": "Rome"}) for call_id, name in calls]
    return gemini.ServerMessage(tool_call=gemini.ToolCallMessage(functions))


TURN_COMPLETE = content(turn_complete=True)
INTERRUPTED = content(interrupted=True)


# Opening


def test_connect_opens_the_model_with_the_assistants_tools() -> None:
    talk = conversation()
    commands = talk.from_client(Open(ConnectOptions(assistant="support")), 0.0)
    assert isinstance(commands[0], Agree)
    assert told(commands) == [Status(Line.CONNECTING)]
    opened = commands[-1]
    assert isinstance(opened, OpenModel)
    assert (opened.delay, opened.history) == (0.0, None)
    (tool,) = json.loads(opened.setup)["setup"]["tools"]
    assert tool == {"functionDeclarations": [{"name": "get_weather", "behavior": "BLOCKING"}]}
    (status,) = told(talk.model_opened(1.0))
    assert status == Status(
        Line.CONNECTED,
        {
            "model": "gemini-3.8-live",
            "assistant": "support",
            "upstream": "simulator",
            "resumed": False,
            "memory": "none",
        },
    )


def test_connecting_again_with_the_same_options_says_connected_again() -> None:
    talk = live()
    (status,) = told(talk.from_client(Open(ConnectOptions()), 1.0))
    assert isinstance(status, Status)
    assert status.line is Line.CONNECTED


def test_connecting_again_with_other_options_asks_for_a_disconnect() -> None:
    talk = live()
    (failure,) = told(talk.from_client(Open(ConnectOptions(audio="binary")), 1.0))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, BadMessage)
    assert talk.phase is Phase.LIVE


def test_an_option_that_is_not_allowed_leaves_the_conversation_idle() -> None:
    talk = conversation()
    (failure,) = told(talk.from_client(Open(ConnectOptions(voice="Kore")), 0.0))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, Forbidden)
    assert talk.phase is Phase.IDLE


def test_a_model_that_does_not_open_is_dialled_three_times() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    for _ in range(2):
        failed, again = talk.dial_failed(UNREACHABLE, 1.0)
        assert isinstance(failed, Record)
        assert isinstance(again, OpenModel)
        assert again.delay > 0
    commands = talk.dial_failed(UNREACHABLE, 2.0)
    assert told(commands) == []
    (close,) = [command for command in commands if isinstance(command, CloseClient)]
    assert isinstance(close.error, Unavailable)
    assert talk.phase is Phase.IDLE


def test_a_refusal_for_good_is_not_tried_again() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    commands = talk.model_closed(REFUSED, 1.0)
    assert told(commands) == []
    (close,) = [command for command in commands if isinstance(command, CloseClient)]
    assert close.error is not None
    assert close.error.code == "upstream_rejected"


def test_a_session_with_a_past_gives_it_to_the_new_model() -> None:
    talk = conversation([("user", "I am Ada."), ("tool", "f(): x"), ("model", "Hello Ada.")])
    opened = talk.from_client(Open(ConnectOptions()), 0.0)[-1]
    assert isinstance(opened, OpenModel)
    assert json.loads(opened.setup)["setup"]["historyConfig"] == {"initialHistoryInClientContent": True}
    assert opened.history is not None
    assert [turn["parts"][0]["text"] for turn in json.loads(opened.history)["clientContent"]["turns"]] == [
        "I am Ada.",
        "Hello Ada.",
    ]
    (status,) = told(talk.model_opened(1.0))
    assert isinstance(status, Status)
    assert status.facts is not None
    assert status.facts["memory"] == "restored"


def test_a_long_past_is_given_from_its_newest_end() -> None:
    talk = conversation([("user", "a" * 20_000), ("model", "b" * 20_000), ("user", "c")])
    opened = talk.from_client(Open(ConnectOptions()), 0.0)[-1]
    assert isinstance(opened, OpenModel)
    assert opened.history is not None
    texts = [turn["parts"][0]["text"] for turn in json.loads(opened.history)["clientContent"]["turns"]]
    assert texts == ["a" * 3_999, "b" * 20_000, "c"]
    (status,) = told(talk.model_opened(1.0))
    assert isinstance(status, Status)
    assert status.facts is not None
    assert status.facts["memory"] == "partial"


def test_one_long_message_does_not_wipe_the_past() -> None:
    talk = conversation([("user", "a" * 30_000)])
    opened = talk.from_client(Open(ConnectOptions()), 0.0)[-1]
    assert isinstance(opened, OpenModel)
    assert opened.history is not None
    assert opened.history.count(b"a" * 24_000) == 1


def test_connecting_in_a_loop_dials_once_a_second() -> None:
    talk = conversation()
    delays = []
    for now in (0.0, 0.1, 0.2):
        opened = talk.from_client(Open(ConnectOptions()), now)[-1]
        assert isinstance(opened, OpenModel)
        delays.append(round(now + opened.delay, 3))
        talk.from_client(Gesture.DISCONNECT, now)
    assert delays == [0.0, 1.0, 2.0]


def test_a_model_side_that_says_when_to_come_back_is_not_dialled_before() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    commands = talk.model_closed(OVERLOADED, 0.1)
    (close,) = [command for command in commands if isinstance(command, CloseClient)]
    assert close.error is not None
    assert close.error.retry_after_ms == 30_000


# Audio and what a client may say when


def test_audio_of_a_live_conversation_is_passed_on() -> None:
    assert live().from_client(SPEECH, 1.0) is FORWARD


def test_audio_while_connecting_is_held_and_sent_first() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    assert talk.from_client(Speech(b"1", 0.02), 0.1) == ()
    assert talk.from_client(Typed("hello"), 0.1) == ()
    assert talk.from_client(Speech(b"2", 0.02), 0.2) == ()
    sent = [command.payload for command in talk.model_opened(0.5) if isinstance(command, SendToModel)]
    assert [sent[0], sent[2]] == [b"1", b"2"]
    assert b"hello" in sent[1]


def test_more_audio_than_is_held_is_dropped_from_its_old_end_and_counted() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    talk.from_client(Typed("first"), 0.0)
    for number in range(int(HELD_SECONDS) + 2):
        talk.from_client(Speech(str(number).encode(), 1.0), 0.1)
    commands = talk.model_opened(8.0)
    sent = [command.payload for command in commands if isinstance(command, SendToModel)]
    assert b"first" in sent[0]
    assert sent[1:] == [b"2", b"3", b"4", b"5", b"6"]
    (warned,) = [event for event in told(commands) if isinstance(event, Warned)]
    assert (warned.code, warned.count) == ("audio_dropped", 2)


def test_typed_text_and_crumbs_of_audio_cannot_pile_up_while_connecting() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    answers = [talk.from_client(Typed("x" * 100_000), 0.1) for _ in range(8)]
    assert answers[:5] == [()] * 5
    (failure,) = told(answers[-1])
    assert isinstance(failure, Failure)
    assert failure.error.code == "limited"
    for _ in range(2000):
        talk.from_client(Speech(b"1", 0.00006), 0.1)
    sent = [command for command in talk.model_opened(0.5) if isinstance(command, SendToModel)]
    assert len(sent) == 5 + 1000


def test_speech_that_was_held_for_a_conversation_that_did_not_open_is_told() -> None:
    talk = conversation()
    talk.from_client(Open(ConnectOptions()), 0.0)
    talk.from_client(SPEECH, 0.1)
    commands = talk.model_closed(REFUSED, 0.5)
    (warned,) = [event for event in told(commands) if isinstance(event, Warned)]
    assert (warned.code, warned.count) == ("audio_dropped", 1)
    assert Record("audio_dropped", {"seconds": 0.02}) in commands


def test_audio_before_connect_is_told_once_an_episode() -> None:
    talk = conversation()
    talk.client_came(0.0)
    (failure,) = told(talk.from_client(SPEECH, 0.0))
    assert isinstance(failure, Failure)
    assert failure.error.code == "bad_message"
    for _ in range(100):
        assert talk.from_client(SPEECH, 0.1) == ()
    talk.from_client(Open(ConnectOptions()), 1.0)
    talk.model_opened(1.0)
    talk.from_client(Gesture.DISCONNECT, 2.0)
    assert len(told(talk.from_client(SPEECH, 3.0))) == 1


def test_text_and_video_before_connect_say_what_to_do() -> None:
    talk = conversation()
    for message in (Typed("hello"), Frame(b"{}")):
        (failure,) = told(talk.from_client(message, 0.0))
        assert isinstance(failure, Failure)
        assert "connect" in failure.error.message


def test_one_video_frame_a_second_is_taken_and_the_rest_is_told_once() -> None:
    talk = live()
    assert talk.from_client(Frame(b"1"), 1.0) == (SendToModel(b"1", Upward.VIDEO),)
    (failure,) = told(talk.from_client(Frame(b"2"), 1.4))
    assert isinstance(failure, Failure)
    assert (failure.error.code, failure.error.retry_after_ms) == ("limited", 550)
    assert talk.from_client(Frame(b"3"), 1.8) == ()
    assert talk.from_client(Frame(b"4"), 2.0) == (SendToModel(b"4", Upward.VIDEO),)


def test_typed_text_goes_up_and_is_not_empty() -> None:
    talk = live()
    sent, watch = talk.from_client(Typed("hello"), 1.0)
    assert isinstance(sent, SendToModel)
    assert isinstance(watch, WakeAfter)
    assert json.loads(sent.payload)["clientContent"]["turnComplete"] is True
    (failure,) = told(talk.from_client(Typed("  "), 1.0))
    assert isinstance(failure, Failure)


def test_push_to_talk_needs_manual_activity_and_pairs_its_marks() -> None:
    talk = live()
    (failure,) = told(talk.from_client(Gesture.ACTIVITY_START, 1.0))
    assert isinstance(failure, Failure)
    assert "manual" in failure.error.message

    talk = live(options=ConnectOptions(activity="manual"))
    assert len(told(talk.from_client(SPEECH, 1.0))) == 1, "audio outside an activity would end the session"
    assert talk.from_client(Gesture.ACTIVITY_START, 1.0) == (
        SendToModel(gemini.ACTIVITY_START, Upward.ACTIVITY),
    )
    assert talk.from_client(SPEECH, 1.0) is FORWARD
    assert len(told(talk.from_client(Gesture.ACTIVITY_START, 1.0))) == 1
    assert talk.from_client(Gesture.ACTIVITY_END, 1.0) == (SendToModel(gemini.ACTIVITY_END, Upward.ACTIVITY),)
    assert len(told(talk.from_client(Gesture.ACTIVITY_END, 1.0))) == 1


def test_a_cut_line_ends_an_open_activity() -> None:
    talk = live(options=ConnectOptions(activity="manual"))
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    commands = talk.client_left(False, 2.0)
    assert commands[0] == SendToModel(gemini.ACTIVITY_END, Upward.ACTIVITY)
    assert WakeAfter(Timer.GRACE, 30) in commands


def test_a_socket_that_takes_over_begins_with_a_new_activity() -> None:
    talk = live(options=ConnectOptions(activity="manual"))
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    assert SendToModel(gemini.ACTIVITY_END, Upward.ACTIVITY) in talk.client_came(2.0)
    assert talk.from_client(Gesture.ACTIVITY_START, 2.1) == (
        SendToModel(gemini.ACTIVITY_START, Upward.ACTIVITY),
    )


def test_a_closed_microphone_is_told_to_the_model() -> None:
    assert live().from_client(Gesture.AUDIO_END, 1.0) == (
        SendToModel(gemini.AUDIO_STREAM_END, Upward.ACTIVITY),
    )
    talk = live(options=ConnectOptions(activity="manual"))
    assert talk.from_client(Gesture.AUDIO_END, 1.0) == ()
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    assert talk.from_client(Gesture.AUDIO_END, 1.0) == (SendToModel(gemini.ACTIVITY_END, Upward.ACTIVITY),)


def test_many_wrong_messages_close_the_line_and_a_few_do_not() -> None:
    talk = live()
    for number in range(BAD_MESSAGES_A_MINUTE):
        (command,) = talk.refused(BadMessage("wrong"), float(number))
        assert isinstance(command, SendToClient)
    (close,) = talk.refused(BadMessage("wrong"), 21.0)
    assert isinstance(close, CloseClient)
    assert isinstance(close.error, BadMessage)
    slow = live()
    for number in range(60):
        (command,) = slow.refused(BadMessage("wrong"), number * 4.0)
        assert isinstance(command, SendToClient)


# Turns


def test_a_spoken_turn_is_transcribed_counted_and_remembered() -> None:
    talk = live()
    talk.from_client(SPEECH, 1.0)
    assert told(talk.from_model(heard(" What is"), 2.0)) == [Transcribed(" What is", True, False, 1)]
    talk.from_model(heard(" the time?"), 2.1)
    first = talk.from_model(sound(), 2.6)
    assert [type(event) for event in told(first)] == [ModelMessage]
    assert talk.from_model(sound(), 2.7) is FORWARD
    assert told(talk.from_model(spoken("Five."), 2.8)) == [Transcribed("Five.", False, False, 1)]
    done = gemini.ServerMessage(
        server_content=gemini.ServerContent(turn_complete=True),
        usage_metadata={"promptTokenCount": 10, "responseTokenCount": 5, "totalTokenCount": 15},
    )
    commands = talk.from_model(done, 4.0)
    finals = [event for event in told(commands) if isinstance(event, Transcribed)]
    assert finals == [Transcribed("What is the time?", True, True, 1), Transcribed("Five.", False, True, 1)]
    (complete,) = [event for event in told(commands) if isinstance(event, TurnComplete)]
    assert complete.usage is not None
    assert complete.usage["totalTokens"] == 15
    assert [type(event) for event in told(commands)][-1] is UsageTotals
    assert [command for command in commands if isinstance(command, Remember)] == [
        Remember("user", "What is the time?", 1),
        Remember("model", "Five.", 1),
    ]
    assert Record("turn", {"turn": 1, "firstSoundMs": 500}) in commands


def test_a_side_with_its_own_end_mark_is_final_at_once_and_only_once() -> None:
    talk = live()
    events = told(talk.from_model(heard("Hello", finished=True), 1.0))
    assert events == [Transcribed("Hello", True, False, 1), Transcribed("Hello", True, True, 1)]
    talk.from_model(spoken("Hi", finished=True), 1.5)
    finals = [event for event in told(talk.from_model(TURN_COMPLETE, 2.0)) if isinstance(event, Transcribed)]
    assert finals == []


def test_a_barge_in_drops_what_is_left_of_the_turn() -> None:
    talk = live()
    talk.from_model(heard("Tell me a story"), 1.0)
    talk.from_model(sound(), 1.5)
    talk.from_model(spoken("Once upon"), 1.5)
    commands = talk.from_model(INTERRUPTED, 3.0)
    assert told(commands)[0] == Interrupted(1)
    assert Remember("model", "Once upon", 1) in commands
    assert talk.from_model(sound(), 3.01) == []
    assert talk.from_model(spoken(" a time"), 3.01) == []
    assert told(talk.from_model(TURN_COMPLETE, 3.02)) == [TurnComplete(1)]
    assert told(talk.from_model(heard("Stop"), 3.5)) == [Transcribed("Stop", True, False, 2)]
    assert [type(event) for event in told(talk.from_model(sound(), 4.0))] == [ModelMessage]


def test_bundled_fields_of_one_message_are_all_told() -> None:
    talk = live()
    message = sound()
    assert message.server_content is not None
    message.server_content.output_transcription = gemini.Transcription("It is")
    events = told(talk.from_model(message, 1.0))
    assert [type(event) for event in events] == [ModelMessage, Transcribed]


def test_text_and_thoughts_of_the_model_are_told_apart() -> None:
    talk = live()
    parts = [gemini.Part(text="**Thinking**", thought=True), gemini.Part(text="Hello")]
    assert told(talk.from_model(content(model_turn=gemini.ModelTurn(parts)), 1.0)) == [Said("Hello", 1)]
    commands = talk.from_model(TURN_COMPLETE, 2.0)
    assert Remember("model", "Hello", 1) in commands
    assert [type(event) for event in told(commands)] == [TurnComplete]


def test_messages_without_meaning_for_us_change_nothing() -> None:
    talk = live()
    for data in (
        b"{}",
        b'{"serverContent":{}}',
        b'{"sessionResumptionUpdate":{"resumable":false}}',
        b'{"new":1}',
    ):
        assert list(talk.from_model(gemini.decode(data), 1.0)) == []


# Tools


def test_a_tool_call_is_started_shown_answered_and_remembered_between_user_and_model() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    commands = talk.from_model(called(("1", "get_weather")), 1.5)
    assert commands[:2] == [
        SendToClient(ToolStarted("1", "get_weather", {"location": "Rome"})),
        StartTool("1", "get_weather", {"location": "Rome"}),
    ]
    (begun,) = commands[2:]
    assert isinstance(begun, Record)
    assert (begun.kind, begun.data["name"], "Rome" in str(begun.data)) == (
        "tool_started",
        "get_weather",
        False,
    )
    finished = talk.tool_finished("1", OK, 1.5)
    assert finished[:2] == [
        SendToModel(gemini.tool_response("1", "get_weather", OK.response), Upward.TOOL_RESPONSE),
        SendToClient(ToolFinished("1", "get_weather", OK)),
    ]
    talk.from_model(spoken("21 degrees."), 2.0)
    done = talk.from_model(TURN_COMPLETE, 3.0)
    assert [command.role for command in done if isinstance(command, Remember)] == ["user", "tool", "model"]


def test_parallel_calls_are_answered_each_by_its_id() -> None:
    talk = live()
    commands = talk.from_model(called(("1", "a"), ("2", "b")), 1.0)
    assert [command.id for command in commands if isinstance(command, StartTool)] == ["1", "2"]
    assert len(talk.tool_finished("2", OK, 1.5)) > 0
    assert len(talk.tool_finished("1", OK, 1.5)) > 0
    assert talk.tool_finished("1", OK, 1.5) == ()


def test_a_cancelled_call_is_stopped_and_its_late_result_dropped() -> None:
    talk = live()
    talk.from_model(called(("1", "a"), ("2", "b")), 1.0)
    talk.tool_finished("2", OK, 1.5)
    cancel = gemini.ServerMessage(tool_call_cancellation=gemini.ToolCallCancellation(["1", "2"]))
    commands = talk.from_model(cancel, 1.2)
    assert commands[:2] == [CancelTool("1"), SendToClient(ToolCancelled(("1",)))]
    assert talk.tool_finished("1", OK, 1.5) == ()
    assert talk.tool_progress("1", "late", 1.5) == ()


def test_a_repeated_call_id_is_not_run_again() -> None:
    talk = live()
    talk.from_model(called(("1", "a")), 1.0)
    assert talk.from_model(called(("1", "a")), 1.1) == []


@pytest.mark.parametrize(
    ("told_of_it", "made"),
    [pytest.param(False, [], id="not-heard-of"), pytest.param(True, ["2"], id="heard-of")],
)
def test_what_changes_something_is_not_made_again_for_a_user_who_broke_in_before_hearing_of_it(
    told_of_it: bool, made: list[str]
) -> None:
    talk = conversation(policies={"order": CallPolicy(side_effects=True)})
    talk.client_came(0.0)
    talk.from_client(Open(ConnectOptions()), 0.0)
    talk.model_opened(0.5)
    for message in (heard("Order one"), sound(), called(("1", "order"))):
        talk.from_model(message, 1.0)
    talk.tool_finished("1", OK, 1.5)
    for message in (*([sound()] if told_of_it else []), INTERRUPTED, heard("Thanks"), TURN_COMPLETE):
        talk.from_model(message, 2.0)
    again = talk.from_model(called(("2", "order")), 3.0)
    assert [command.id for command in again if isinstance(command, StartTool)] == made
    for message in (sound(), TURN_COMPLETE, heard("Order one more")):
        talk.from_model(message, 4.0)
    later = talk.from_model(called(("3", "order")), 5.0)
    if not told_of_it:
        assert [command.id for command in later if isinstance(command, StartTool)] == ["3"]


def test_calls_without_an_id_are_each_run() -> None:
    talk = live()
    started: list[Command] = []
    for place in ("Rome", "Oslo"):
        call = gemini.FunctionCall("f", None, {"place": place})
        started += talk.from_model(gemini.ServerMessage(tool_call=gemini.ToolCallMessage([call])), 1.0)
    assert len({command.id for command in started if isinstance(command, StartTool)}) == 2


def test_a_failed_tool_is_answered_too() -> None:
    talk = live()
    talk.from_model(called(("1", "a")), 1.0)
    assert told(talk.tool_progress("1", "asking", 1.5))[0] == ToolProgress("1", "asking")
    failed = ToolResult(False, {"status": "error"}, 5, error=ToolCode.TIMEOUT, summary="too slow")
    commands = talk.tool_finished("1", failed, 1.5)
    assert isinstance(commands[0], SendToModel)
    (record,) = [command for command in commands if isinstance(command, Record)]
    assert record.data["error"] == "timeout"


# Ends


def test_disconnect_closes_the_model_and_is_answered_even_when_idle() -> None:
    talk = live()
    commands = talk.from_client(Gesture.DISCONNECT, 1.0)
    assert CloseModel() in commands
    assert told(commands) == [Status(Line.DISCONNECTED)]
    assert told(talk.from_client(Gesture.DISCONNECT, 1.0)) == [Status(Line.DISCONNECTED)]


def test_what_the_model_says_after_disconnect_is_not_heard() -> None:
    talk = live()
    talk.from_client(Gesture.DISCONNECT, 1.0)
    assert talk.from_model(sound(), 1.1) == ()
    assert talk.model_closed(LINE_LOST, 1.2) == ()


def test_a_client_that_says_goodbye_ends_the_conversation() -> None:
    talk = live()
    commands = talk.client_left(True, 1.0)
    assert commands[-2:] == [CloseModel(), End()]
    assert talk.phase is Phase.CLOSED
    assert talk.woke(Timer.GRACE, 2.0) == ()


def test_a_client_that_comes_back_in_time_finds_its_conversation_going_on() -> None:
    talk = live()
    assert End() not in talk.client_left(False, 1.0)
    commands = talk.client_came(5.0)
    assert isinstance(commands[1], Agree)
    (status,) = told(commands)
    assert isinstance(status, Status)
    assert status.facts is not None
    assert status.facts["resumed"] is True
    assert talk.woke(Timer.GRACE, 31.0) == ()
    assert talk.from_client(SPEECH, 32.0) is FORWARD


def test_a_client_that_does_not_come_back_is_not_waited_for_longer() -> None:
    talk = live()
    talk.client_left(False, 1.0)
    assert End() in talk.woke(Timer.GRACE, 31.0)


def test_a_model_that_is_lost_while_nobody_listens_is_dialled_when_somebody_does() -> None:
    talk = live()
    talk.client_left(False, 1.0)
    assert not [command for command in talk.model_closed(LINE_LOST, 2.0) if isinstance(command, OpenModel)]
    back = talk.client_came(5.0)
    assert told(back) == [Status(Line.RECONNECTING)]
    assert [type(command) for command in back][-1] is OpenModel
    (status,) = told(talk.model_opened(5.4))
    assert isinstance(status, Status)
    assert status.facts is not None
    assert status.facts["gapMs"] == 400


def test_a_model_that_was_lost_is_forgotten_with_the_client_that_does_not_come_back() -> None:
    talk = live()
    talk.client_left(False, 1.0)
    talk.model_closed(LINE_LOST, 2.0)
    assert End() in talk.woke(Timer.GRACE, 31.0)


def test_a_client_that_never_connects_is_closed_and_one_that_did_is_not() -> None:
    talk = conversation()
    assert WakeAfter(Timer.HELLO, 10) in talk.client_came(0.0)
    (close,) = talk.woke(Timer.HELLO, 10.0)
    assert isinstance(close, CloseClient)
    assert isinstance(close.error, TimedOut)
    talk = live()
    talk.from_client(Gesture.DISCONNECT, 1.0)
    assert talk.woke(Timer.HELLO, 10.0) == ()


def test_a_socket_that_takes_over_a_running_conversation_need_not_connect() -> None:
    talk = live()
    talk.client_came(5.0)
    assert talk.woke(Timer.HELLO, 10.0) == ()


def test_an_idle_client_is_closed_half_an_hour_after_its_last_message() -> None:
    talk = live()
    talk.from_client(SPEECH, 1000.0)
    assert talk.woke(Timer.IDLE, 1800.0) == (WakeAfter(Timer.IDLE, 1000.0),)
    (close,) = talk.woke(Timer.IDLE, 2800.0)
    assert isinstance(close, CloseClient)
    assert isinstance(close.error, TimedOut)


@pytest.mark.parametrize("error", [SessionEnded("deleted"), None])
def test_a_deleted_session_and_a_stopping_server_close_both_sides(error: SessionEnded | None) -> None:
    talk = live()
    talk.from_model(spoken("Half a"), 1.0)
    commands = talk.close(error, 2.0)
    assert Remember("model", "Half a", 1) in commands
    assert commands[-3:] == [CloseClient(error), CloseModel(), End()], (
        "what was said is told before the goodbye"
    )
    assert talk.close(error, 3.0) == ()


# What a call asks of the person


def asking(policy: CallPolicy) -> Conversation:
    talk = conversation(policies={"everything": policy})
    talk.client_came(0.0)
    talk.from_client(Open(ConnectOptions()), 0.0)
    talk.model_opened(0.5)
    begun = talk.from_model(called(("1", "everything")), 1.0)
    assert any(isinstance(command, StartTool) for command in begun)
    if policy.asks:
        assert not told(begun), "the tool asks once its arguments are checked"
    return talk


def test_a_call_that_needs_consent_asks_for_it_and_takes_one_answer() -> None:
    talk = asking(CallPolicy(confirm=True, show_args=False))
    assert told(talk.tool_asks("1", "confirm", {"a": 1}, 1.5)) == [
        ToolStarted("1", "everything", None, "confirm")
    ]
    said = Answered("1", Consent(True))
    assert talk.from_client(said, 2.0) == (AnswerTool("1", Consent(True)),)
    (failure,) = told(talk.from_client(said, 2.0))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, BadMessage)


def test_a_function_of_the_clients_gets_its_arguments_and_is_asked_again_when_it_comes_back() -> None:
    talk = asking(CallPolicy(client=True, show_args=False))
    question = ToolStarted("1", "everything", {"a": 1}, "client")
    assert told(talk.tool_asks("1", "client", {"a": 1}, 1.5)) == [question]
    talk.client_left(False, 2.0)
    assert question in told(talk.client_came(3.0))
    result = ClientResult({"b": 2})
    assert talk.from_client(Answered("1", result), 4.0) == (AnswerTool("1", result),)
    assert question not in told(talk.client_came(5.0))


def test_what_was_cancelled_is_not_asked_and_cannot_be_answered() -> None:
    talk = asking(CallPolicy(confirm=True))
    talk.from_model(gemini.ServerMessage(tool_call_cancellation=gemini.ToolCallCancellation(["1"])), 1.2)
    assert talk.tool_asks("1", "confirm", {}, 1.5) == ()
    (failure,) = told(talk.from_client(Answered("1", Consent(True)), 2.0))
    assert isinstance(failure, Failure)


@pytest.mark.proves("T41")
def test_a_model_that_calls_for_ever_is_told_so_and_the_conversation_goes_on() -> None:
    talk = live()
    for number in range(8):
        commands = talk.from_model(called((str(number), f"tool_{number}")), 1.0)
        assert any(isinstance(command, StartTool) for command in commands)
        talk.tool_finished(str(number), OK, 1.0)
    commands = talk.from_model(called(("9", "one_more")), 1.0)
    assert not any(isinstance(command, StartTool) for command in commands)
    (answer,) = [command for command in commands if isinstance(command, SendToModel)]
    (response,) = json.loads(answer.payload)["toolResponse"]["functionResponses"]
    assert (response["id"], response["response"]["error"]["code"]) == ("9", "limited")
    assert talk.phase is Phase.LIVE


@pytest.mark.proves("T42")
def test_every_call_of_a_storm_is_answered_once_and_few_are_made() -> None:
    talk = live()
    ids = [str(number) for number in range(200)]
    calls = [gemini.FunctionCall("search", one, {"for": one}) for one in ids]
    commands = list(talk.from_model(gemini.ServerMessage(tool_call=gemini.ToolCallMessage(calls)), 1.0))
    started = [command.id for command in commands if isinstance(command, StartTool)]
    assert len(started) == 8
    for one in started:
        commands += talk.tool_finished(one, OK, 2.0)
    answered = [
        response["id"]
        for command in commands
        if isinstance(command, SendToModel) and command.kind is Upward.TOOL_RESPONSE
        for response in json.loads(command.payload)["toolResponse"]["functionResponses"]
    ]
    assert sorted(answered) == sorted(ids)


def test_a_slow_call_is_told_and_a_model_that_talks_on_may_say_so() -> None:
    for wait, hinted in (("background", True), ("blocking", False)):
        talk = asking(CallPolicy(wait=wait))  # type: ignore[arg-type]
        commands = talk.tool_slow("1", "Still looking.", 4.0)
        assert told(commands) == [ToolProgress("1", "Still looking.")]
        hints = [command for command in commands if isinstance(command, SendToModel)]
        assert bool(hints) is hinted
        if hints:
            (response,) = json.loads(hints[0].payload)["toolResponse"]["functionResponses"]
            assert (response["id"], response["willContinue"]) == ("1", True)
            assert response["response"] == {"status": "running", "say": "Still looking."}
    talk.tool_finished("1", OK, 5.0)
    assert talk.tool_slow("1", "Still looking.", 6.0) == []
