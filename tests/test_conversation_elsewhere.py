"""A conversation that ends in one process and goes on in another, by plain lists."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Sequence

import pytest
from modelling import MODELS

from tornado_live.live.commands import (
    CloseClient,
    Command,
    End,
    KeepHandle,
    Line,
    Open,
    OpenModel,
    Remember,
    SendToClient,
    SendToModel,
    Speech,
    Status,
    Timer,
    Typed,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.rotation import HANDLE_LIFE_S, Kept
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.policy import DEFAULT_POLICY
from tornado_live.wire import gemini
from tornado_live.wire.native import ConnectOptions

OPTIONS = ConnectOptions(voice="Puck")
PAST = (("user", "I am Ada."), ("model", "Hello Ada."), ("user", "And I am 36."), ("model", "Noted."))


def conversation(kept: Kept | None = None) -> Conversation:
    return Conversation(
        assistants={"default": Assistant("default", "gemini-3.8-live", {}, None)},
        assistant="default",
        allowed_options=frozenset({"voice"}),
        declarations=lambda toolset: (),
        policy=lambda name: DEFAULT_POLICY,
        upstream="simulator",
        limits=Limits(),
        jitter=lambda: 0.5,
        models=MODELS,
        history=PAST,
        turn=2,
        kept=kept,
    )


def opened(talk: Conversation, options: ConnectOptions = OPTIONS) -> OpenModel:
    talk.client_came(0.0)
    (dial,) = [one for one in talk.from_client(Open(options), 0.0) if isinstance(one, OpenModel)]
    return dial


def live(kept: Kept | None = None) -> Conversation:
    talk = conversation(kept)
    opened(talk)
    talk.model_opened(0.5)
    return talk


def handle_of(dial: OpenModel) -> object:
    return json.loads(dial.setup)["setup"]["sessionResumption"].get("handle")


def update(handle: str) -> gemini.ServerMessage:
    return gemini.ServerMessage(session_resumption_update=gemini.SessionResumptionUpdate(handle, True))


def identity() -> str:
    (kept,) = [one for one in live().from_model(update("h1"), 1.0) if isinstance(one, KeepHandle)]
    assert kept.handle == "h1"
    return kept.identity


def statuses(commands: Sequence[Command]) -> list[Line]:
    events = [one.event for one in commands if isinstance(one, SendToClient)]
    return [event.line for event in events if isinstance(event, Status)]


def test_every_handle_of_the_model_side_is_kept_for_other_processes() -> None:
    talk = live()
    kept = [one for one in talk.from_model(update("h1"), 1.0) if isinstance(one, KeepHandle)]
    assert [one.handle for one in kept] == ["h1"]


def test_another_process_goes_on_with_the_handle_that_was_kept() -> None:
    talk = conversation(Kept("h1", identity(), age_s=60.0))
    dial = opened(talk)
    assert handle_of(dial) == "h1"
    assert dial.history is None
    (connected,) = [
        one.event
        for one in talk.model_opened(0.5)
        if isinstance(one, SendToClient) and isinstance(one.event, Status)
    ]
    assert connected.facts is not None
    assert (connected.facts["resumed"], connected.facts["memory"]) == (True, "restored")


def test_what_was_said_after_the_handle_is_told_to_the_session_that_it_resumes() -> None:
    talk = conversation(Kept("h1", identity(), age_s=60.0, since=PAST[2:]))
    opened(talk)
    sent = [one.payload for one in talk.model_opened(0.5) if isinstance(one, SendToModel)]
    assert b"And I am 36." in sent[0]
    assert b"I am Ada." not in sent[0]


@pytest.mark.parametrize(
    "kept",
    [
        Kept("h1", "of another setup", age_s=60.0),
        Kept("h1", identity(), age_s=HANDLE_LIFE_S + 1),
    ],
    ids=["other options", "too old"],
)
def test_a_handle_that_does_not_fit_is_left_and_memory_is_told_instead(kept: Kept) -> None:
    dial = opened(conversation(kept))
    assert handle_of(dial) is None
    assert dial.history is not None
    assert b"Hello Ada." in dial.history


def test_a_handle_that_was_kept_is_not_taken_up_after_other_options() -> None:
    talk = conversation(Kept("h1", identity(), age_s=60.0))
    assert handle_of(opened(talk, ConnectOptions())) is None
    talk.close(None, 1.0)


def test_the_client_of_a_process_that_died_is_told_what_may_be_missing() -> None:
    talk = conversation()
    talk.client_came(0.0)
    (warned,) = [one.event for one in talk.abandoned(0.0) if isinstance(one, SendToClient)]
    assert isinstance(warned, Warned)
    assert warned.code == "memory_incomplete"


# The server is about to stop


def answering() -> Conversation:
    talk = live()
    talk.from_client(Typed("Tell me a story."), 1.0)
    part = gemini.Part(inline_data=gemini.InlineData("audio/pcm;rate=24000", "AQID"))
    talk.from_model(
        gemini.ServerMessage(server_content=gemini.ServerContent(model_turn=gemini.ModelTurn([part]))), 1.5
    )
    return talk


def ends(commands: Sequence[Command]) -> bool:
    return any(isinstance(one, End) for one in commands)


@pytest.mark.proves("F33")
def test_the_client_is_told_that_the_server_is_about_to_stop_and_the_turn_may_end() -> None:
    talk = answering()
    commands = talk.drain(0.0, 10.0, 2.0)
    assert statuses(commands) == [Line.DRAINING]
    assert any(isinstance(one, WakeAfter) and one.timer is Timer.DRAIN for one in commands)
    assert not ends(talk.woke(Timer.DRAIN, 6.0))
    over = gemini.ServerMessage(server_content=gemini.ServerContent(turn_complete=True))
    commands = talk.from_model(over, 6.5)
    remembered = [commands.index(one) for one in commands if isinstance(one, Remember)]
    assert remembered
    assert remembered[-1] < commands.index(CloseClient(None)) < commands.index(End())


@pytest.mark.proves("F33")
def test_a_turn_that_does_not_end_is_cut_when_the_time_is_up_and_remembered() -> None:
    talk = answering()
    talk.drain(0.0, 10.0, 2.0)
    assert not ends(talk.woke(Timer.DRAIN, 11.9))
    commands = talk.woke(Timer.DRAIN, 12.0)
    assert CloseClient(None) in commands
    assert any(isinstance(one, Remember) and one.text == "Tell me a story." for one in commands)


def test_somebody_who_speaks_is_waited_for() -> None:
    talk = live()
    pcm = array("h", [8000] * 320).tobytes()
    loud = gemini.audio(base64.b64encode(pcm).decode(), 16000)
    talk.from_client(Speech(loud, 0.02), 2.0)
    assert not ends(talk.drain(0.0, 10.0, 2.0))
    assert talk.from_client(Speech(loud, 0.02), 4.0)
    assert not ends(talk.woke(Timer.DRAIN, 4.25))
    assert ends(talk.woke(Timer.DRAIN, 6.25))


def test_conversations_do_not_end_all_at_once() -> None:
    talk = live()
    commands = talk.drain(3.0, 10.0, 2.0)
    (wake,) = [one for one in commands if isinstance(one, WakeAfter)]
    assert wake.seconds == 3.0
    assert not ends(talk.woke(Timer.DRAIN, 4.9))
    assert ends(talk.woke(Timer.DRAIN, 5.0))


def test_where_nobody_talks_nobody_is_waited_for() -> None:
    idle = conversation()
    idle.client_came(0.0)
    assert ends(idle.drain(2.0, 10.0, 1.0))
    left = live()
    left.client_left(False, 1.0)
    assert ends(left.drain(2.0, 10.0, 2.0))
    assert left.phase is Phase.CLOSED
