"""What a conversation decides when its connection to the model side ages, breaks or falls silent."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import pytest

from tornado_live.errors import LiveError
from tornado_live.jsonvalue import Json
from tornado_live.live.causes import LINE_LOST, UNREACHABLE, Cause, of_close
from tornado_live.live.commands import (
    FORWARD,
    CancelTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Failure,
    Gesture,
    Interrupted,
    KeepHandle,
    Line,
    Open,
    OpenModel,
    Record,
    Remember,
    SendToClient,
    SendToModel,
    Speech,
    StartTool,
    Status,
    Timer,
    ToClient,
    Transcribed,
    TurnComplete,
    Typed,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import QUIET_S, Conversation, Phase
from tornado_live.live.owing import PLEASE_ANSWER
from tornado_live.live.rotation import SEEK_SHARE
from tornado_live.resources import require
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.policy import DEFAULT_POLICY, CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.models import load_models
from tornado_live.wire.native import ConnectOptions

MODELS = load_models(require("config/models.yaml").read_text(encoding="utf-8"), "models.yaml")
FLUENT = "gemini-3.8-live"
THINKING = "gemini-3.8-live-extended-thinking"
OLD = "gemini-2.5-flash-native-audio-preview-12-2025"
OK = ToolResult(True, {"status": "ok", "result": 21}, 12, summary="21 degrees")
HANDLE_REFUSED = of_close(
    1007, "Invalid session handle", facts=None, last_sent="setup", opened=False, resuming=True
)
OVERLOADED = of_close(
    1011, "Internal error encountered.", facts=None, last_sent="setup", opened=False, resuming=True
)
TURN_COMPLETE = gemini.decode(b'{"serverContent": {"turnComplete": true}}')
GENERATED = gemini.decode(b'{"serverContent": {"generationComplete": true}}')
INTERRUPTED = gemini.decode(b'{"serverContent": {"interrupted": true}}')
STILL_THINKING = gemini.decode(
    b'{"serverContent": {"turnComplete": true, "interactionStatus": "IN_PROGRESS"}}'
)


def live(
    model: str = FLUENT,
    *,
    history: Sequence[tuple[str, str]] = (),
    policies: Mapping[str, CallPolicy] = MappingProxyType({}),
    activity: str = "auto",
    handle: str | None = "h1",
    limits: Limits | None = None,
) -> Conversation:
    """A conversation that is live at 0.0, with a handle if there is one."""

    def declarations(toolset: tuple[str, ...] | None) -> list[Mapping[str, Json]]:
        return [{"name": "get_weather", "description": "Weather."}]

    talk = Conversation(
        assistants={"default": Assistant("default", model, {}, None)},
        assistant="default",
        allowed_options=frozenset({"activity"}),
        declarations=declarations,
        policy=lambda name: policies.get(name, DEFAULT_POLICY),
        upstream="simulator",
        limits=limits or Limits(),
        models=MODELS,
        jitter=lambda: 0.0,
        history=history,
        turn=len([role for role, _ in history if role == "user"]),
    )
    talk.client_came(-1.5)
    talk.from_client(Open(ConnectOptions(activity=activity)), -1.5)  # type: ignore[arg-type]
    talk.model_opened(0.0)
    if handle is not None:
        give(talk, handle, 0.0)
    assert talk.phase is Phase.LIVE
    return talk


def give(talk: Conversation, handle: str, now: float) -> None:
    update = gemini.SessionResumptionUpdate(handle, True)
    commands = talk.from_model(gemini.ServerMessage(session_resumption_update=update), now)
    assert [one.handle for one in commands if isinstance(one, KeepHandle)] == [handle]
    assert len(commands) == 1


def heard(text: str) -> gemini.ServerMessage:
    return gemini.ServerMessage(
        server_content=gemini.ServerContent(input_transcription=gemini.Transcription(text))
    )


def spoken(text: str) -> gemini.ServerMessage:
    return gemini.ServerMessage(
        server_content=gemini.ServerContent(output_transcription=gemini.Transcription(text))
    )


def sound(data: str = "UklGRg==") -> gemini.ServerMessage:
    part = gemini.Part(inline_data=gemini.InlineData("audio/pcm;rate=24000", data))
    return gemini.ServerMessage(server_content=gemini.ServerContent(model_turn=gemini.ModelTurn([part])))


def calling(call_id: str, place: str = "Rome") -> gemini.ServerMessage:
    call = gemini.FunctionCall("get_weather", call_id, {"place": place})
    return gemini.ServerMessage(tool_call=gemini.ToolCallMessage([call]))


def say_all(talk: Conversation, question: str, answer: str, now: float) -> None:
    for message in (heard(question), sound(), spoken(answer), GENERATED, TURN_COMPLETE):
        talk.from_model(message, now)


def told(commands: Iterable[Command]) -> list[ToClient]:
    return [command.event for command in commands if isinstance(command, SendToClient)]


def status(commands: Iterable[Command]) -> list[tuple[Line, Mapping[str, Json]]]:
    return [(event.line, event.facts or {}) for event in told(commands) if isinstance(event, Status)]


def opening(commands: Iterable[Command]) -> tuple[dict[str, Json], OpenModel]:
    """The setup of the one dial, and the dial."""
    (dial,) = [command for command in commands if isinstance(command, OpenModel)]
    return json.loads(dial.setup)["setup"], dial


def sent(commands: Iterable[Command]) -> list[dict[str, Json]]:
    return [json.loads(command.payload) for command in commands if isinstance(command, SendToModel)]


def texts(commands: Iterable[Command]) -> list[str]:
    """What goes up as a user's finished turn, the last words of each message."""
    return [
        message["clientContent"]["turns"][-1]["parts"][0]["text"]  # type: ignore[index, call-overload]
        for message in sent(commands)
        if message.get("clientContent", {}).get("turnComplete")  # type: ignore[union-attr]
    ]


def records(commands: Iterable[Command], kind: str) -> list[Mapping[str, Json]]:
    return [command.data for command in commands if isinstance(command, Record) and command.kind == kind]


def microphone(loud: bool) -> Speech:
    pcm = array("h", [8000 if loud else 20] * 320).tobytes()
    return Speech(gemini.audio(base64.b64encode(pcm).decode(), 16000), 0.02)


# Loss


def test_a_lost_connection_is_resumed_with_the_newest_handle() -> None:
    talk = live()
    give(talk, "h2", 3.0)
    lost = talk.model_closed(LINE_LOST, 5.0)
    assert status(lost) == [(Line.RECONNECTING, {})]
    setup, dial = opening(lost)
    assert setup["sessionResumption"] == {"handle": "h2"}
    assert dial.history is None
    assert records(lost, "model_lost") == [{"cause": "line_lost", "code": "unavailable", "ageS": 5.0}]
    back = talk.model_opened(5.4)
    ((line, facts),) = status(back)
    assert line is Line.CONNECTED
    assert (facts["resumed"], facts["memory"], facts["gapMs"]) == (True, "restored", 400)
    assert records(back, "switched")[0]["planned"] is False


@pytest.mark.proves("F11")
def test_a_connection_without_a_handle_is_seeded_from_memory_without_a_second_greeting() -> None:
    talk = live(handle=None)
    say_all(talk, "I am Ada.", "Hello Ada.", 1.0)
    setup, dial = opening(talk.model_closed(LINE_LOST, 5.0))
    assert setup["sessionResumption"] == {}
    assert setup["historyConfig"] == {"initialHistoryInClientContent": True}
    assert dial.history is not None
    assert "Hello Ada." in dial.history.decode()
    back = talk.model_opened(5.4)
    ((_, facts),) = status(back)
    assert (facts["resumed"], facts["memory"]) == (False, "restored")
    assert sent(back) == []


def test_a_conversation_without_a_past_has_no_memory_to_lose() -> None:
    talk = live(handle=None)
    talk.model_closed(LINE_LOST, 5.0)
    ((_, facts),) = status(talk.model_opened(5.4))
    assert facts["memory"] == "none"


@pytest.mark.proves("F4")
def test_a_refused_handle_is_tried_once_and_then_memory_speaks() -> None:
    talk = live(history=[("user", "I am Ada."), ("model", "Hello Ada.")])
    talk.model_closed(LINE_LOST, 5.0)
    setup, dial = opening(talk.model_closed(HANDLE_REFUSED, 5.2))
    assert setup["sessionResumption"] == {}
    assert dial.history is not None
    ((_, facts),) = status(talk.model_opened(6.0))
    assert (facts["resumed"], facts["memory"]) == (False, "restored")


@pytest.mark.proves("F6")
def test_a_model_side_that_does_not_come_back_closes_the_client_with_the_reason() -> None:
    talk = live()
    say_all(talk, "One", "two", 1.0)
    talk.model_closed(LINE_LOST, 5.0)
    assert opening(talk.model_closed(UNREACHABLE, 6.0))
    assert opening(talk.model_closed(UNREACHABLE, 7.0))
    commands = talk.model_closed(UNREACHABLE, 8.0)
    (close,) = [command for command in commands if isinstance(command, CloseClient)]
    assert isinstance(close.error, LiveError)
    assert close.error.code == "unavailable"
    assert records(commands, "model_given_up")[0]["cause"] == "unreachable"
    assert End() in talk.client_left(True, 8.0)


def test_a_session_that_is_ended_soon_after_its_beginning_is_followed_by_a_fresh_one_once() -> None:
    finished = of_close(1000, "", facts=None, last_sent="audio", opened=True, resuming=False)
    talk = live(handle=None)
    assert opening(talk.model_closed(finished, 20.0))
    talk.model_opened(21.0)
    assert [one for one in talk.model_closed(finished, 30.0) if isinstance(one, CloseClient)]


def test_a_question_without_an_answer_is_asked_again_and_keeps_its_turn() -> None:
    talk = live()
    talk.from_model(heard("What is the time?"), 1.0)
    lost = talk.model_closed(LINE_LOST, 1.2)
    assert not [event for event in told(lost) if isinstance(event, TurnComplete)]
    assert texts(talk.model_opened(2.0)) == ["What is the time?"]
    assert told(talk.from_model(spoken("Five."), 3.0)) == [Transcribed("Five.", False, False, 1)]
    talk.from_model(GENERATED, 3.1)
    done = talk.from_model(TURN_COMPLETE, 3.5)
    remembered = [(command.role, command.text) for command in done if isinstance(command, Remember)]
    assert remembered == [("user", "What is the time?"), ("model", "Five.")]


def test_an_answer_that_broke_off_is_ended_for_the_client_and_asked_to_go_on() -> None:
    talk = live()
    talk.from_model(heard("Tell me a story."), 1.0)
    talk.from_model(sound(), 1.5)
    talk.from_model(spoken("Once upon a time"), 1.5)
    lost = talk.model_closed(LINE_LOST, 3.0)
    assert [event for event in told(lost) if not isinstance(event, Status)] == [
        Transcribed("Tell me a story.", True, True, 1),
        Transcribed("Once upon a time", False, True, 1),
        TurnComplete(1),
    ]
    (text,) = texts(talk.model_opened(4.0))
    assert "Once upon a time" in text
    assert text.endswith("Tell me a story.")
    assert told(talk.from_model(spoken("there was"), 5.0)) == [Transcribed("there was", False, False, 2)]


def test_an_answer_that_had_come_whole_is_not_asked_for_again() -> None:
    talk = live()
    for message in (heard("Hello"), sound(), spoken("Hi."), GENERATED):
        talk.from_model(message, 1.0)
    assert TurnComplete(1) in told(talk.model_closed(LINE_LOST, 1.1))
    assert texts(talk.model_opened(2.0)) == []


def test_an_answer_that_was_interrupted_is_not_asked_for_again() -> None:
    talk = live()
    for message in (heard("Hello"), sound(), spoken("Hi."), INTERRUPTED):
        talk.from_model(message, 1.0)
    talk.model_closed(LINE_LOST, 1.001)
    assert texts(talk.model_opened(2.0)) == []


def test_a_question_that_is_lost_twice_is_asked_until_it_is_answered() -> None:
    talk = live()
    talk.from_model(heard("Tell me a story."), 1.0)
    talk.from_model(sound(), 1.5)
    talk.from_model(spoken("Once upon a time"), 1.5)
    talk.model_closed(LINE_LOST, 3.0)
    assert len(texts(talk.model_opened(4.0))) == 1
    talk.model_closed(LINE_LOST, 5.0)
    (text,) = texts(talk.model_opened(6.0))
    assert text.endswith("Tell me a story.")
    for message in (sound(), GENERATED, TURN_COMPLETE):
        talk.from_model(message, 7.0)
    talk.model_closed(LINE_LOST, 8.0)
    assert texts(talk.model_opened(9.0)) == []


def test_a_resumed_session_is_told_what_was_said_after_its_handle() -> None:
    talk = live()
    say_all(talk, "I am Ada.", "Hello Ada.", 1.0)
    talk.model_closed(LINE_LOST, 5.0)
    (context,) = sent(talk.model_opened(5.5))
    content = context["clientContent"]
    assert isinstance(content, dict)
    assert content["turnComplete"] is False
    assert [turn["parts"][0]["text"] for turn in content["turns"]] == ["I am Ada.", "Hello Ada."]  # type: ignore[union-attr, index, call-overload]
    give(talk, "h2", 6.0)
    talk.model_closed(LINE_LOST, 7.0)
    assert sent(talk.model_opened(7.5)) == []


def test_memory_is_partial_where_a_model_cannot_be_told_what_its_handle_does_not_know() -> None:
    talk = live("gemini-3.1-flash-live-preview")
    say_all(talk, "I am Ada.", "Hello Ada.", 1.0)
    talk.model_closed(LINE_LOST, 5.0)
    back = talk.model_opened(5.5)
    assert sent(back) == []
    ((_, facts),) = status(back)
    assert (facts["resumed"], facts["memory"]) == (True, "partial")


# What the client says meanwhile


def test_a_model_that_is_deaf_while_it_waits_for_a_tool_hears_afterwards() -> None:
    talk = live(OLD)
    talk.from_model(heard("Weather?"), 1.0)
    talk.from_model(calling("a"), 1.5)
    assert talk.from_client(Speech(b'{"one":1}', 0.02), 2.0) == ()
    finished = talk.tool_finished("a", OK, 3.0)
    assert [next(iter(message)) for message in sent(finished)] == ["toolResponse", "one"]
    assert talk.from_client(microphone(True), 3.1) is FORWARD


def test_a_model_that_hears_during_a_call_hears_at_once() -> None:
    talk = live(FLUENT)
    talk.from_model(calling("a"), 1.5)
    assert talk.from_client(microphone(True), 2.0) is FORWARD


def test_what_a_deaf_model_was_not_told_is_held_over_a_switch() -> None:
    talk = live(OLD)
    talk.from_model(calling("a"), 1.5)
    talk.from_client(Speech(b'{"one":1}', 0.02), 2.0)
    talk.model_closed(LINE_LOST, 2.5)
    talk.from_client(Speech(b'{"two":2}', 0.02), 2.6)
    assert [next(iter(message)) for message in sent(talk.model_opened(3.0))] == ["one", "two"]


@pytest.mark.proves("F21")
def test_speech_during_a_switch_is_held_and_sent_in_its_order() -> None:
    talk = live()
    talk.model_closed(LINE_LOST, 5.0)
    assert talk.from_client(Speech(b'{"one":1}', 0.02), 5.1) == ()
    assert talk.from_client(Typed("and"), 5.1) == ()
    assert talk.from_client(Speech(b'{"two":2}', 0.02), 5.2) == ()
    back = talk.model_opened(5.5)
    assert [next(iter(message)) for message in sent(back)] == ["one", "clientContent", "two"]
    assert talk.from_client(microphone(True), 5.6) is FORWARD


@pytest.mark.proves("F21")
def test_more_speech_than_is_held_is_counted_and_told() -> None:
    talk = live()
    talk.model_closed(LINE_LOST, 5.0)
    for number in range(7):
        talk.from_client(Speech(b"{}", 1.0), 5.0 + number)
    (warned,) = [event for event in told(talk.model_opened(13.0)) if isinstance(event, Warned)]
    assert (warned.code, warned.count) == ("audio_dropped", 2)


def test_an_activity_that_is_open_is_begun_again_on_the_new_connection() -> None:
    talk = live(activity="manual")
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    talk.model_closed(LINE_LOST, 2.0)
    talk.from_client(Speech(b'{"one":1}', 0.02), 2.1)
    talk.from_client(Gesture.ACTIVITY_END, 2.2)
    payloads = [command.payload for command in talk.model_opened(3.0) if isinstance(command, SendToModel)]
    assert payloads == [gemini.ACTIVITY_START, b'{"one":1}', gemini.ACTIVITY_END]


def test_what_was_said_with_push_to_talk_and_not_reacted_to_is_said_again() -> None:
    talk = live(activity="manual")
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    assert talk.from_client(Speech(b'{"one":1}', 0.5), 1.5) is FORWARD
    talk.from_client(Gesture.ACTIVITY_END, 2.0)
    talk.model_closed(LINE_LOST, 2.5)
    payloads = [command.payload for command in talk.model_opened(3.0) if isinstance(command, SendToModel)]
    assert payloads == [gemini.ACTIVITY_START, b'{"one":1}', gemini.ACTIVITY_END]


def test_what_the_model_has_reacted_to_is_not_said_again() -> None:
    talk = live(activity="manual")
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    talk.from_client(Speech(b'{"one":1}', 0.5), 1.5)
    talk.from_client(Gesture.ACTIVITY_END, 2.0)
    talk.from_model(heard("One"), 2.2)
    talk.model_closed(LINE_LOST, 2.5)
    assert texts(talk.model_opened(3.0)) == ["One"]


def test_an_activity_whose_beginning_or_end_was_still_held_is_whole_on_the_new_connection() -> None:
    def marks(*gestures: Gesture, sent: bool) -> list[bytes]:
        talk = live(OLD, activity="manual")
        if sent:
            talk.from_client(Gesture.ACTIVITY_START, 1.0)
        talk.from_model(calling("a"), 1.5)  # from here on this model is deaf
        for gesture in gestures:
            talk.from_client(gesture, 2.0)
        talk.model_closed(LINE_LOST, 2.5)
        talk.tool_finished("a", OK, 2.6)
        held = [one.payload for one in talk.model_opened(3.0) if isinstance(one, SendToModel)]
        return [one for one in held if one in (gemini.ACTIVITY_START, gemini.ACTIVITY_END)]

    both = [gemini.ACTIVITY_START, gemini.ACTIVITY_END]
    assert marks(Gesture.ACTIVITY_START, sent=False) == both[:1]
    assert marks(Gesture.ACTIVITY_START, Gesture.ACTIVITY_END, sent=False) == both
    assert marks(Gesture.ACTIVITY_END, sent=True) == both
    assert marks(sent=True) == both[:1]


def test_too_much_to_say_again_is_told() -> None:
    talk = live(activity="manual")
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    for _ in range(20):
        talk.from_client(Speech(b"{}", 1.0), 1.5)
    (warned,) = [event for event in told(talk.model_closed(LINE_LOST, 22.0)) if isinstance(event, Warned)]
    assert warned.code == "audio_dropped"


def test_speech_that_a_broken_connection_took_along_is_told_where_it_is_known() -> None:
    talk = live()
    speaking = gemini.decode(b'{"voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "0.2s"}}')
    talk.from_model(speaking, 1.0)
    (warned,) = [event for event in told(talk.model_closed(LINE_LOST, 2.0)) if isinstance(event, Warned)]
    assert warned.code == "audio_dropped"
    talk = live()
    talk.from_model(speaking, 1.0)
    talk.from_model(heard("Hello"), 2.0)
    assert not [event for event in told(talk.model_closed(LINE_LOST, 3.0)) if isinstance(event, Warned)]


def test_a_tool_that_runs_over_a_switch_is_waited_for() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    talk.from_model(calling("a"), 1.5)
    talk.model_closed(LINE_LOST, 2.0)
    talk.model_opened(3.0)
    assert records(talk.woke(Timer.WATCH, 100.0), "watchdog") == []
    assert len(texts(talk.tool_finished("a", OK, 101.0))) == 1


def test_a_client_may_disconnect_in_the_middle_of_a_switch() -> None:
    talk = live()
    talk.model_closed(LINE_LOST, 5.0)
    commands = talk.from_client(Gesture.DISCONNECT, 5.1)
    assert CloseModel() in commands
    assert talk.phase is Phase.IDLE
    assert list(talk.model_opened(5.2)) == [CloseModel()]


def test_connect_after_disconnect_goes_on_with_the_same_session() -> None:
    talk = live()
    talk.from_client(Gesture.DISCONNECT, 1.0)
    setup, _ = opening(talk.from_client(Open(ConnectOptions()), 5.0))
    assert setup["sessionResumption"] == {"handle": "h1"}
    talk.from_client(Gesture.DISCONNECT, 6.0)
    setup, _ = opening(talk.from_client(Open(ConnectOptions(activity="manual")), 8.0))
    assert setup["sessionResumption"] == {}, "other options are another session"


# Rotation


@pytest.mark.proves("F10")
def test_a_go_away_is_followed_at_the_first_quiet_point() -> None:
    talk = live()
    talk.from_model(heard("Hello"), 10.0)
    away = talk.from_model(gemini.decode(b'{"goAway": {"timeLeft": "50s"}}'), 10.5)
    assert records(away, "go_away") == [{"timeLeft": "50s"}]
    assert not status(away)
    for message in (sound(), spoken("Hi."), GENERATED):
        assert not status(talk.from_model(message, 11.0))
    done = talk.from_model(TURN_COMPLETE, 13.0)
    assert not records(done, "switch_planned"), "the session cannot be resumed before its handle has come"
    handle = b'{"sessionResumptionUpdate": {"newHandle": "h2", "resumable": true}}'
    setup, dial = opening(talk.from_model(gemini.decode(handle), 13.1))
    assert setup["sessionResumption"] == {"handle": "h2"}
    assert dial.delay == 0.0
    assert records(talk.model_opened(13.8), "switched")[0]["planned"] is True


@pytest.mark.proves("F10")
@pytest.mark.parametrize("message", [b'{"goAway": {"timeLeft": "0s"}}', b'{"goAway": {"timeLeft": "0.0s"}}'])
def test_a_go_away_without_time_is_followed_at_once(message: bytes) -> None:
    talk = live()
    talk.from_model(heard("Hello"), 10.0)
    commands = talk.from_model(gemini.decode(message), 10.5)
    assert status(commands) == [(Line.RECONNECTING, {})]
    assert opening(commands)[0]["sessionResumption"] == {"handle": "h1"}
    assert texts(talk.model_opened(11.0)) == ["Hello"]


@pytest.mark.proves("F10")
@pytest.mark.parametrize("message", [b'{"goAway": {}}', b'{"goAway": {"timeLeft": "soon"}}'])
def test_a_go_away_that_does_not_say_when_is_followed_within_seconds(message: bytes) -> None:
    talk = live()
    talk.from_model(heard("Hello"), 10.0)
    talk.from_model(gemini.decode(message), 10.5)
    assert opening(talk.woke(Timer.ROTATE, 15.5))


def test_the_time_of_a_go_away_runs_without_another_message() -> None:
    talk = live()
    talk.from_model(heard("Hello"), 10.0)
    now, commands = 10.5, talk.from_model(gemini.decode(b'{"goAway": {"timeLeft": "10s"}}'), 10.5)
    while talk.phase is Phase.LIVE:
        (after,) = [command.seconds for command in commands if isinstance(command, WakeAfter)]
        now += after
        commands = talk.woke(Timer.ROTATE, now)
    assert now == pytest.approx(18.5)


def test_a_connection_is_left_before_its_known_age_without_a_go_away() -> None:
    talk = live(limits=Limits(connection_s=100))
    say_all(talk, "One", "two", 1.0)
    give(talk, "h2", 1.5)
    due = 100 * SEEK_SHARE
    assert not [command for command in talk.woke(Timer.ROTATE, due - 1) if isinstance(command, OpenModel)]
    assert opening(talk.woke(Timer.ROTATE, due))[0]["sessionResumption"] == {"handle": "h2"}


def test_a_person_who_is_speaking_is_waited_for() -> None:
    talk = live(limits=Limits(connection_s=100))
    say_all(talk, "One", "two", 1.0)
    give(talk, "h2", 1.5)
    talk.from_client(microphone(True), 79.99)
    talk.woke(Timer.ROTATE, 80.0)
    assert talk.phase is Phase.LIVE
    assert talk.from_client(microphone(True), 81.0) is FORWARD
    talk.woke(Timer.ROTATE, 81.0 + QUIET_S - 0.1)
    assert talk.phase is Phase.LIVE
    assert talk.from_client(microphone(False), 82.9) is FORWARD
    assert opening(talk.woke(Timer.ROTATE, 81.0 + QUIET_S))


def test_speech_that_the_model_has_ignored_delays_no_switch_and_is_not_put_to_the_next_connection() -> None:
    talk = live(limits=Limits(connection_s=100))
    talk.from_model(heard("Not you, the dog!"), 10.0)
    give(talk, "h2", 11.0)
    commands = talk.woke(Timer.ROTATE, 80.0)
    assert Remember("user", "Not you, the dog!", 1) in commands
    handle = b'{"sessionResumptionUpdate": {"newHandle": "h3", "resumable": true}}'
    assert opening(talk.from_model(gemini.decode(handle), 83.0))
    assert sent(talk.model_opened(84.0)) == []


def test_what_was_only_written_down_is_remembered_when_the_connection_is_changed() -> None:
    talk = live("gemini-3.5-transcribe-live", limits=Limits(connection_s=100))
    talk.from_model(heard("One two three."), 60.0)
    give(talk, "h2", 61.0)
    assert Remember("user", "One two three.", 1) in talk.woke(Timer.ROTATE, 80.0)


def test_a_running_tool_is_waited_for_until_it_is_time() -> None:
    talk = live(limits=Limits(connection_s=100))
    talk.from_model(heard("Weather?"), 70.0)
    talk.from_model(calling("a"), 71.0)
    talk.woke(Timer.ROTATE, 90.0)
    assert talk.phase is Phase.LIVE
    commands = talk.woke(Timer.ROTATE, 95.0)
    assert opening(commands)
    assert not [command for command in commands if isinstance(command, CancelTool)]


# Calls over a switch


@pytest.mark.proves("F17")
def test_a_call_that_ends_after_the_switch_is_told_in_words_with_its_question() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    assert StartTool("a", "get_weather", {"place": "Rome"}) in talk.from_model(calling("a"), 1.5)
    lost = talk.model_closed(LINE_LOST, 2.0)
    assert not [command for command in lost if isinstance(command, CancelTool)]
    assert sent(talk.model_opened(3.0)) == [], (
        "the question waits for the answer that is already being fetched"
    )
    finished = talk.tool_finished("a", OK, 4.0)
    (text,) = texts(finished)
    assert '"result": 21' in text
    assert text.endswith("Weather in Rome?")
    assert records(finished, "tool_call")[0]["delivered"] == "note"


@pytest.mark.proves("F17")
def test_a_call_that_ends_during_the_switch_is_told_after_it() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    talk.from_model(calling("a"), 1.5)
    talk.model_closed(LINE_LOST, 2.0)
    finished = talk.tool_finished("a", OK, 2.5)
    assert sent(finished) == []
    assert records(finished, "tool_call")[0]["delivered"] == "later"
    (text,) = texts(talk.model_opened(3.0))
    assert '"result": 21' in text


@pytest.mark.proves("F17")
def test_a_session_that_knows_the_call_gets_its_answer_by_the_id() -> None:
    talk = live(policies={"get_weather": CallPolicy("background")})
    talk.from_model(calling("a"), 1.5)
    give(talk, "h2", 2.0)
    talk.model_closed(LINE_LOST, 3.0)
    talk.model_opened(4.0)
    (message,) = sent(talk.tool_finished("a", OK, 5.0))
    (answer,) = message["toolResponse"]["functionResponses"]  # type: ignore[index, call-overload]
    assert answer["id"] == "a"  # type: ignore[index, call-overload]


@pytest.mark.proves("F17")
def test_a_tool_is_not_run_again_for_a_question_that_is_asked_again() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    talk.from_model(calling("a"), 1.5)
    talk.tool_finished("a", OK, 2.0)
    talk.model_closed(LINE_LOST, 2.5)
    assert texts(talk.model_opened(3.0)) == ["Weather in Rome?"]
    again = talk.from_model(calling("b"), 3.5)
    assert not [command for command in again if isinstance(command, StartTool)]
    (message,) = sent(again)
    assert "toolResponse" in message


# Nobody there


@pytest.mark.proves("F18")
def test_nothing_is_dialled_and_nothing_asked_while_nobody_is_there() -> None:
    talk = live()
    talk.from_model(heard("Hello"), 1.0)
    talk.client_left(False, 2.0)
    for commands in (
        talk.from_model(gemini.decode(b'{"goAway": {"timeLeft": "0s"}}'), 3.0),
        talk.woke(Timer.WATCH, 20.0),
        talk.woke(Timer.ROTATE, 20.0),
    ):
        assert not [command for command in commands if isinstance(command, OpenModel)]
        assert texts(commands) == []
    back = talk.client_came(25.0)
    assert status(back) == [(Line.RECONNECTING, {})]
    assert opening(back)[0]["sessionResumption"] == {"handle": "h1"}
    assert texts(talk.model_opened(25.5)) == ["Hello"]


def test_a_client_that_comes_back_is_told_that_nothing_is_forgotten() -> None:
    talk = live()
    say_all(talk, "I am Ada.", "Hello Ada.", 1.0)
    talk.client_left(False, 2.0)
    ((_, facts),) = status(talk.client_came(3.0))
    assert (facts["resumed"], facts["memory"]) == (True, "restored")


def test_a_model_that_takes_nothing_to_know_has_no_memory() -> None:
    talk = live("gemini-3.5-live-translate-preview", handle=None)
    say_all(talk, "One", "Uno", 1.0)
    _, dial = opening(talk.model_closed(LINE_LOST, 5.0))
    assert dial.history is None
    ((_, facts),) = status(talk.model_opened(6.0))
    assert (facts["resumed"], facts["memory"]) == (False, "none")


@pytest.mark.proves("F18")
def test_when_both_lines_are_lost_the_model_side_is_dialled_when_the_client_is_back() -> None:
    talk = live()
    talk.model_closed(LINE_LOST, 1.0)
    talk.client_left(False, 1.1)
    commands = talk.model_closed(UNREACHABLE, 2.0)
    assert CloseModel() in commands
    assert not [command for command in commands if isinstance(command, OpenModel | End)]
    back = talk.client_came(10.0)
    assert status(back) == [(Line.RECONNECTING, {})]
    assert opening(back)[0]["sessionResumption"] == {"handle": "h1"}
    assert status(talk.model_opened(10.5))[0][0] is Line.CONNECTED


def test_a_page_that_is_reloaded_while_it_waits_for_an_answer_is_not_forgotten() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    talk.client_left(False, 2.0)
    assert talk.woke(Timer.WATCH, 13.0) == []
    assert [one for one in talk.client_came(14.0) if isinstance(one, WakeAfter) and one.timer is Timer.WATCH]
    assert texts(talk.woke(Timer.WATCH, 60.0)) == ["Hello"]


# Silence


@pytest.mark.parametrize("model", ["gemini-3.5-transcribe-live", "gemini-3.5-live-translate-preview"])
def test_a_model_that_does_not_converse_owes_no_answer(model: str) -> None:
    talk = live(model)
    talk.from_model(heard("One two"), 4.0)
    assert talk.woke(Timer.WATCH, 60.0) == []
    for number in range(5):
        assert not records(talk.from_model(sound("A" * 64_000), 60.0 + number), "watchdog")
    talk.model_closed(LINE_LOST, 100.0)
    assert sent(talk.model_opened(101.0)) == []


def test_a_call_that_was_asked_again_is_waited_for_as_long_as_it_runs() -> None:
    talk = live()
    for message in (heard("Weather?"), sound(), calling("a"), INTERRUPTED, TURN_COMPLETE, calling("b")):
        talk.from_model(message, 1.0)
    assert talk.woke(Timer.WATCH, 60.0) == []
    talk.tool_finished("a", OK, 61.0)
    assert records(talk.woke(Timer.WATCH, 161.0), "watchdog")[0]["after"] == "tool_answer"


def test_typed_text_without_an_answer_is_asked_again_then_resumed_then_seeded_then_given_up() -> None:
    talk = live(history=[("user", "I am Ada."), ("model", "Hello.")])
    talk.from_client(Typed("Are you there?"), 10.0)
    steps: list[Json] = []
    now = 10.0
    for _ in range(4):
        now += 100.0
        commands = talk.woke(Timer.WATCH, now)
        steps.append(records(commands, "watchdog")[0]["step"])
        if steps[-1] == "nudge":
            assert texts(commands) == ["Are you there?"]
        elif steps[-1] == "resume":
            assert opening(commands)[0]["sessionResumption"] == {"handle": "h1"}
            assert texts(talk.model_opened(now + 1)) == ["Are you there?"]
        elif steps[-1] == "reseed":
            assert opening(commands)[0]["sessionResumption"] == {}
            assert texts(talk.model_opened(now + 1)) == ["Are you there?"]
        else:
            (failure,) = [event for event in told(commands) if isinstance(event, Failure)]
            assert failure.error.code == "unavailable"
            assert Remember("user", "Are you there?", 2) in commands
    assert steps == ["nudge", "resume", "reseed", "give_up"]
    assert talk.phase is Phase.LIVE, "the conversation is there for the next question"
    talk.model_closed(LINE_LOST, now + 10)
    assert texts(talk.model_opened(now + 11)) == [], "what was given up is not asked again"


def test_a_tool_answer_without_a_reaction_is_noticed() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome?"), 1.0)
    talk.from_model(calling("a"), 1.5)
    assert talk.woke(Timer.WATCH, 60.0) == [], "while the tool runs its own deadline counts"
    talk.tool_finished("a", OK, 61.0)
    commands = talk.woke(Timer.WATCH, 161.0)
    assert records(commands, "watchdog") == [{"step": "nudge", "after": "tool_answer"}]
    assert texts(commands) == ["Weather in Rome?"]
    assert "toolResponse" in sent(talk.from_model(calling("b"), 162.0))[0]


def test_a_model_that_may_ignore_speech_is_left_alone_and_another_is_not() -> None:
    talk = live(FLUENT)
    talk.from_model(heard("mumble"), 1.0)
    assert talk.woke(Timer.WATCH, 100.0) == []
    talk = live(OLD)
    talk.from_model(heard("Hello?"), 1.0)
    assert records(talk.woke(Timer.WATCH, 100.0), "watchdog")[0]["after"] == "speech"


def test_push_to_talk_that_was_not_understood_is_asked_for_in_general_words() -> None:
    talk = live(OLD, activity="manual")
    talk.from_client(Gesture.ACTIVITY_START, 1.0)
    talk.from_client(Gesture.ACTIVITY_END, 2.0)
    assert texts(talk.woke(Timer.WATCH, 100.0)) == [PLEASE_ANSWER]


def test_nobody_is_reminded_while_the_user_speaks() -> None:
    talk = live(OLD, activity="manual")
    talk.from_client(Typed("Hello"), 1.0)
    talk.from_client(Gesture.ACTIVITY_START, 2.0)
    assert [one for one in talk.woke(Timer.WATCH, 60.0) if not isinstance(one, WakeAfter)] == []
    talk.from_client(Gesture.ACTIVITY_END, 61.0)
    assert texts(talk.woke(Timer.WATCH, 120.0)) == ["Hello"]


def test_an_answer_of_digital_silence_is_helped_on() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    silence = sound("A" * 64_000)  # a second
    steps: list[Json] = []
    for number in range(5):
        steps += [record["after"] for record in records(talk.from_model(silence, 2.0 + number), "watchdog")]
    assert steps == ["silence"]


def test_an_empty_turn_is_no_answer() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    rejected = b'{"serverContent": {"turnComplete": true, "turnCompleteReason": "RESPONSE_REJECTED"}}'
    commands = talk.from_model(gemini.decode(rejected), 2.0)
    assert records(commands, "watchdog") == [{"step": "nudge", "after": "empty_turn"}]


@pytest.mark.parametrize("ends", [(INTERRUPTED, TURN_COMPLETE), (GENERATED, TURN_COMPLETE)])
def test_what_is_typed_into_an_answer_is_watched_when_that_answer_has_ended(
    ends: Sequence[gemini.ServerMessage],
) -> None:
    talk = live()
    for message in (heard("Hello"), sound(), spoken("Well,")):
        talk.from_model(message, 1.0)
    talk.from_client(Typed("And you?"), 2.0)
    for message in ends:
        assert not records(talk.from_model(message, 2.1), "watchdog")
    assert texts(talk.woke(Timer.WATCH, 60.0)) == ["And you?"]


def test_the_end_of_an_interrupted_turn_is_no_empty_answer_to_what_interrupted_it() -> None:
    talk = live(OLD)
    for message in (heard("Hello"), sound(), spoken("Well,"), INTERRUPTED, heard("Stop!")):
        talk.from_model(message, 1.0)
    assert not records(talk.from_model(TURN_COMPLETE, 1.15), "watchdog")
    assert records(talk.woke(Timer.WATCH, 60.0), "watchdog")[0]["after"] == "speech"


def test_a_second_message_before_the_answer_belongs_to_the_same_question() -> None:
    talk = live()
    talk.from_client(Typed("Are you there?"), 1.0)
    talk.from_client(Typed("Hello?"), 1.5)
    talk.from_model(INTERRUPTED, 1.52)
    assert told(talk.from_model(TURN_COMPLETE, 1.53)) == []
    assert texts(talk.woke(Timer.WATCH, 60.0)) == ["Are you there?\nHello?"]
    talk.from_model(spoken("Yes."), 61.0)
    assert Remember("model", "Yes.", 1) in talk.from_model(TURN_COMPLETE, 62.0)


def test_a_reminder_that_interrupts_a_silent_answer_is_not_the_last_step() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    silence = sound("A" * 64_000)  # a second
    for number in range(3):
        talk.from_model(silence, 2.0 + number)
    talk.from_model(INTERRUPTED, 5.0)
    talk.from_model(TURN_COMPLETE, 5.1)
    commands = talk.woke(Timer.WATCH, 60.0)
    assert records(commands, "watchdog")[0]["step"] == "resume"
    assert texts(talk.model_opened(61.0)) == ["Hello"]


@pytest.mark.parametrize("before", [(), (GENERATED,)])
def test_the_question_of_an_empty_turn_is_asked_at_every_step(before: Sequence[gemini.ServerMessage]) -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    for message in before:
        talk.from_model(message, 2.0)
    assert texts(talk.from_model(TURN_COMPLETE, 2.0)) == ["Hello"]
    commands = talk.from_model(TURN_COMPLETE, 3.0)
    assert records(commands, "watchdog") == [{"step": "resume", "after": "empty_turn"}]
    assert texts(talk.model_opened(4.0)) == ["Hello"]


def test_a_thinking_model_may_take_its_time_after_its_first_words_but_not_for_ever() -> None:
    talk = live(THINKING)
    talk.from_client(Typed("Think."), 1.0)
    for message in (spoken("Let me see."), GENERATED, STILL_THINKING):
        talk.from_model(message, 2.0)
    assert not records(talk.woke(Timer.WATCH, 20.0), "watchdog")
    assert records(talk.woke(Timer.WATCH, 60.0), "watchdog")


def test_the_first_words_of_a_thinking_model_are_no_answer() -> None:
    talk = live(THINKING)
    talk.from_client(Typed("Think."), 1.0)
    for message in (spoken("Let me see."), GENERATED, STILL_THINKING):
        talk.from_model(message, 2.0)
    talk.model_closed(LINE_LOST, 3.0)
    (text,) = texts(talk.model_opened(4.0))
    assert text.endswith("Think.")


def test_late_sound_of_before_a_call_does_not_start_the_watch_while_the_tool_runs() -> None:
    talk = live(OLD)
    for message in (heard("Weather?"), sound(), calling("a"), sound(), spoken("Let me look.")):
        talk.from_model(message, 4.0)
    assert not records(talk.woke(Timer.WATCH, 60.0), "watchdog")
    talk.tool_finished("a", OK, 61.0)
    assert records(talk.woke(Timer.WATCH, 161.0), "watchdog")[0]["after"] == "tool_answer"


def test_a_question_that_was_asked_again_is_not_asked_between_two_answered_calls() -> None:
    talk = live()
    talk.from_model(heard("Weather in Rome and Oslo?"), 1.0)
    talk.model_closed(LINE_LOST, 1.2)
    assert len(texts(talk.model_opened(2.0))) == 1
    talk.from_model(calling("a", "Rome"), 3.0)
    talk.from_model(calling("b", "Oslo"), 3.0)
    assert texts(talk.tool_finished("a", OK, 4.0)) == []


@pytest.mark.parametrize("asked_for", ["text", "tool_answer"])
def test_what_our_reminder_cuts_short_is_no_barge_in_and_its_tool_is_not_run_again(asked_for: str) -> None:
    talk = live()
    talk.from_client(Typed("Weather in Rome?"), 1.0)
    if asked_for == "tool_answer":
        talk.from_model(calling("a"), 1.5)
        talk.tool_finished("a", OK, 2.0)
    assert records(talk.woke(Timer.WATCH, 100.0), "watchdog")[0]["after"] == asked_for
    for message in (INTERRUPTED, TURN_COMPLETE):
        commands = talk.from_model(message, 100.1)
        assert told(commands) == []
        assert not records(commands, "barge_in")
    again = talk.from_model(calling("b"), 101.0)
    assert bool([command for command in again if isinstance(command, StartTool)]) is (asked_for == "text")
    talk.tool_finished("b", OK, 102.0)
    talk.from_model(spoken("21 degrees."), 103.0)
    talk.from_model(GENERATED, 103.1)
    done = talk.from_model(TURN_COMPLETE, 104.0)
    assert TurnComplete(1) in told(done)
    assert [command.text for command in done if isinstance(command, Remember) and command.role != "tool"] == [
        "Weather in Rome?",
        "21 degrees.",
    ]


def test_noise_that_was_held_during_a_resume_does_not_make_the_model_look_silent() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    talk.from_model(sound("A" * 64_000), 2.0)
    talk.woke(Timer.WATCH, 100.0)
    talk.from_model(sound("A" * 64_000), 101.0)
    assert records(talk.woke(Timer.WATCH, 200.0), "watchdog")[0]["step"] == "resume"
    assert texts(talk.model_opened(200.5))[0].endswith("Hello")
    for message in (INTERRUPTED, TURN_COMPLETE):
        commands = talk.from_model(message, 200.6)
        assert records(commands, "watchdog") == []
        assert records(commands, "barge_in") == []
    assert told(talk.from_model(spoken("Hi."), 202.0)) == [Transcribed("Hi.", False, False, 2)]


def test_an_answer_after_our_reminder_can_be_interrupted_by_the_user() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    talk.woke(Timer.WATCH, 100.0)
    talk.from_model(sound(), 101.0)
    assert Interrupted(1) in told(talk.from_model(INTERRUPTED, 102.0))


def test_a_turn_whose_end_is_never_said_is_ended_when_its_sound_was_heard() -> None:
    talk = live()
    talk.from_client(Typed("Hello"), 1.0)
    talk.from_model(sound(), 2.0)
    talk.from_model(sound("U" * 640_000), 2.1)  # ten seconds, all at once
    talk.from_model(spoken("Hi."), 2.2)
    talk.from_model(GENERATED, 2.3)
    assert records(talk.woke(Timer.WATCH, 20.0), "watchdog") == []
    commands = talk.woke(Timer.WATCH, 22.4)
    assert records(commands, "watchdog") == [{"step": "end_turn", "after": "turn_complete"}]
    assert TurnComplete(1) in told(commands)
    assert told(talk.from_model(TURN_COMPLETE, 30.0)) == []


def test_a_new_question_and_its_answer_are_not_glued_to_a_turn_whose_end_was_never_said() -> None:
    talk = live()
    talk.from_client(Typed("One?"), 1.0)
    for message in (sound(), spoken("Yes."), GENERATED):
        talk.from_model(message, 2.0)
    talk.from_client(Typed("Two?"), 5.0)
    first = talk.from_model(spoken("No."), 6.0)
    assert told(first) == [
        Transcribed("Yes.", False, True, 1),
        TurnComplete(1),
        Transcribed("No.", False, False, 2),
    ]
    talk.from_model(GENERATED, 6.1)
    assert TurnComplete(2) in told(talk.from_model(TURN_COMPLETE, 7.0))
    talk.from_model(sound(), 8.0)
    talk.from_model(GENERATED, 8.1)
    assert told(talk.from_model(heard("Three?"), 30.0))[-1] == Transcribed("Three?", True, False, 4)


def test_an_answer_that_was_heard_until_the_user_had_enough_was_an_answer() -> None:
    talk = live()
    say_all(talk, "One", "two", 1.0)
    for number in range(5):
        now = 5.0 + 2 * number
        assert opening(talk.model_closed(LINE_LOST, now))
        talk.model_opened(now + 0.5)
        for message in (heard("Hello"), sound(), INTERRUPTED, TURN_COMPLETE):
            talk.from_model(message, now + 1)


def test_dials_that_fail_leave_a_trace_with_their_cause() -> None:
    talk = live()
    talk.model_closed(LINE_LOST, 5.0)
    assert records(talk.dial_failed(UNREACHABLE, 6.0), "dial_failed")[0]["cause"] == "unreachable"
    assert records(talk.model_closed(HANDLE_REFUSED, 7.0), "dial_failed")[0]["cause"] == "handle_refused"


def test_a_model_that_only_writes_down_what_it_hears_is_not_sent_text() -> None:
    talk = live("gemini-3.5-transcribe-live", handle=None)
    (failure,) = told(talk.from_client(Typed("Hello"), 1.0))
    assert isinstance(failure, Failure)
    assert failure.error.code == "bad_message"


def test_the_coming_and_going_of_clients_is_written_down() -> None:
    talk = live()
    assert records(talk.client_left(False, 1.0), "client_lost") == [{}]
    assert records(talk.client_came(2.0), "client_back") == [{}]
    assert records(talk.client_came(3.0), "client_replaced") == [{}]
    talk.client_left(False, 4.0)
    assert records(talk.woke(Timer.GRACE, 40.0), "client_gone") == [{}]


# Turns


def test_an_end_mark_without_words_opens_no_turn() -> None:
    talk = live()
    say_all(talk, "Hello", "Hi.", 1.0)
    for mark in (b'{"inputTranscription": {"finished": true}}', b'{"inputTranscription": {}}'):
        talk.from_model(gemini.decode(b'{"serverContent": ' + mark + b"}"), 2.0)
    assert talk.dialogue.turns.quiet


def test_late_words_and_sound_of_an_interrupted_turn_never_reach_the_client() -> None:
    talk = live()
    for message in (heard("Hello"), sound(), spoken("Well,")):
        talk.from_model(message, 1.0)
    assert Interrupted(1) in told(talk.from_model(INTERRUPTED, 2.0))
    for message in (sound(), spoken(" as I said"), sound("AAAA")):
        assert not list(talk.from_model(message, 2.1))
    assert told(talk.from_model(TURN_COMPLETE, 2.2)) == [TurnComplete(1)]


def test_a_thinking_model_is_done_when_it_says_so_and_not_with_its_first_words() -> None:
    talk = live(THINKING)
    talk.from_client(Typed("Think."), 1.0)
    talk.from_model(spoken("Let me see."), 2.0)
    busy = b'{"serverContent": {"turnComplete": true, "interactionStatus": "IN_PROGRESS"}}'
    assert told(talk.from_model(gemini.decode(busy), 2.1)) == []
    assert told(talk.from_model(spoken("It is five."), 5.0)) == [Transcribed(" It is five.", False, False, 1)]
    idle = b'{"serverContent": {"interactionStatus": "IDLE"}}'
    commands = talk.from_model(gemini.decode(idle), 6.0)
    assert TurnComplete(1) in told(commands)
    assert Remember("model", "Let me see. It is five.", 1) in commands


def live_on_vertex() -> Conversation:
    """A conversation that is live at 3.5, with a model that ends its turn with a call."""
    vertex = MODELS.on_vertex("projects/p/locations/l")
    name = "gemini-live-2.5-flash-native-audio"
    assert vertex.of(name).turn_after_call == "new"
    talk = live()
    talk._models = vertex
    talk.from_client(Gesture.DISCONNECT, 1.0)
    talk._assistants = {"default": Assistant("default", name, {}, None)}
    talk.from_client(Open(ConnectOptions()), 3.0)
    talk.model_opened(3.5)
    return talk


def test_a_tool_that_is_quicker_than_the_end_of_the_calls_turn_does_not_end_ours() -> None:
    talk = live_on_vertex()
    talk.from_model(heard("Weather?"), 4.0)
    talk.from_model(calling("a"), 4.1)
    talk.tool_finished("a", OK, 4.11)
    for message in (GENERATED, TURN_COMPLETE):
        assert told(talk.from_model(message, 4.12)) == []
    assert records(talk.woke(Timer.WATCH, 60.0), "watchdog")[0]["after"] == "tool_answer"


def test_a_call_that_ends_its_turn_is_not_yet_the_answer() -> None:
    talk = live_on_vertex()
    for message in (heard("Weather?"), calling("a"), GENERATED, TURN_COMPLETE):
        talk.from_model(message, 4.0)
    talk.tool_finished("a", OK, 5.0)
    talk.model_closed(LINE_LOST, 5.5)
    assert texts(talk.model_opened(6.0)) == ["Weather?"]


def test_a_model_side_that_ends_its_turn_with_the_call_does_not_end_ours() -> None:
    talk = live_on_vertex()
    talk.from_model(heard("Weather?"), 4.0)
    talk.from_model(calling("a"), 4.1)
    assert told(talk.from_model(TURN_COMPLETE, 4.2)) == []
    talk.tool_finished("a", OK, 5.0)
    talk.from_model(spoken("21 degrees."), 5.5)
    assert TurnComplete(1) in told(talk.from_model(TURN_COMPLETE, 6.0))


# Frames that are none


@pytest.mark.proves("F13")
def test_one_unreadable_frame_is_passed_over_and_three_in_a_row_are_a_broken_line() -> None:
    talk = live()
    assert list(talk.unreadable(1.0)) == []
    assert list(talk.unreadable(1.1)) == []
    talk.from_model(gemini.decode(b"{}"), 1.2)
    assert list(talk.unreadable(1.3)) == []
    assert list(talk.unreadable(1.4)) == []
    commands = talk.unreadable(1.5)
    assert commands[0] == CloseModel()
    assert opening(commands)[0]["sessionResumption"] == {"handle": "h1"}
    assert records(commands, "model_lost")[0]["cause"] == "unreadable"


@pytest.mark.parametrize("cause", [LINE_LOST, OVERLOADED])
def test_every_loss_is_told_to_the_client_as_one_word(cause: Cause) -> None:
    assert status(live().model_closed(cause, 5.0)) == [(Line.RECONNECTING, {})]
