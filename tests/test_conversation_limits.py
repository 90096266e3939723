"""What a conversation decides about its length, its silence, its budget and the credential of its client."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelling import MODELS
from test_conversation import content, heard, spoken, told

from tornado_live.errors import Forbidden, LiveError, SessionEnded, TimedOut, Unauthenticated
from tornado_live.live.commands import (
    CloseClient,
    Command,
    End,
    Failure,
    Open,
    OpenModel,
    Record,
    SendToModel,
    Speech,
    Timer,
    WakeAfter,
    Warned,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.terms import Terms
from tornado_live.observe.usage import Usage
from tornado_live.resources import require
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.policy import DEFAULT_POLICY
from tornado_live.wire import gemini
from tornado_live.wire.native import ConnectOptions
from tornado_live.wire.prices import load_prices

MODEL = "gemini-2.5-flash-native-audio-latest"
PRICES = load_prices(require("config/prices.yaml").read_text(encoding="utf-8"), "prices.yaml")


def conversation(usage: Usage | None = None) -> Conversation:
    return Conversation(
        assistants={name: Assistant(name, MODEL, {}, None) for name in ("default", "support")},
        assistant="default",
        allowed_options=frozenset(),
        declarations=lambda names: [],
        policy=lambda name: DEFAULT_POLICY,
        upstream="simulator",
        limits=Limits(),
        models=MODELS,
        jitter=lambda: 0.5,
        usage=usage,
    )


def live(terms: Terms, usage: Usage | None = None) -> tuple[Conversation, Sequence[Command]]:
    """From 0 on, and what it did when the model side was there."""
    talk = conversation(usage)
    talk.client_came(0.0)
    talk.vouched(terms, 0.0)
    talk.from_client(Open(ConnectOptions()), 0.0)
    return talk, talk.model_opened(0.0)


def wakes(commands: Sequence[Command], timer: Timer) -> list[float]:
    return [one.seconds for one in commands if isinstance(one, WakeAfter) and one.timer is timer]


def goodbye(commands: Sequence[Command]) -> LiveError | None:
    (close,) = [one for one in commands if isinstance(one, CloseClient)]
    return close.error


def asides(commands: Sequence[Command]) -> list[str]:
    sent = [json.loads(one.payload) for one in commands if isinstance(one, SendToModel)]
    return [
        turn["parts"][0]["text"]
        for message in sent
        if message.get("clientContent", {}).get("turnComplete") is False
        for turn in message["clientContent"]["turns"]
    ]


# --- the credential


def test_a_credential_that_ends_ends_the_line() -> None:
    talk = conversation()
    talk.client_came(0.0)
    assert wakes(talk.vouched(Terms(lasts_s=60.0), 0.0), Timer.EXPIRY) == [60.0]
    assert not talk.woke(Timer.EXPIRY, 59.0)
    assert isinstance(goodbye(talk.woke(Timer.EXPIRY, 60.0)), Unauthenticated)


def test_a_newer_credential_prolongs_it() -> None:
    talk = conversation()
    talk.client_came(0.0)
    talk.vouched(Terms(lasts_s=60.0), 0.0)
    talk.vouched(Terms(lasts_s=60.0), 50.0)
    assert not talk.woke(Timer.EXPIRY, 60.0)
    assert isinstance(goodbye(talk.woke(Timer.EXPIRY, 110.0)), Unauthenticated)


def test_a_credential_for_one_assistant_opens_no_other() -> None:
    talk = conversation()
    talk.client_came(0.0)
    talk.vouched(Terms(assistant="default"), 0.0)
    (failure,) = told(talk.from_client(Open(ConnectOptions(assistant="support")), 0.0))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, Forbidden)
    assert talk.from_client(Open(ConnectOptions(assistant="default")), 0.0)
    assert talk.phase is Phase.CONNECTING


# --- its length


def test_a_conversation_that_is_too_long_is_warned_and_ended() -> None:
    talk, opened = live(Terms(conversation_s=600.0))
    assert wakes(opened, Timer.LENGTH) == [540.0]
    near = talk.woke(Timer.LENGTH, 540.0)
    assert [event.code for event in told(near) if isinstance(event, Warned)] == ["budget_near"]
    assert wakes(near, Timer.LENGTH) == [60.0]
    end = talk.woke(Timer.LENGTH, 600.0)
    assert isinstance(goodbye(end), SessionEnded)
    assert end[-1] == End()


def test_a_short_one_is_warned_with_a_fifth_of_it_left() -> None:
    _, opened = live(Terms(conversation_s=10.0))
    assert wakes(opened, Timer.LENGTH) == [8.0]


def test_what_a_session_talked_before_counts() -> None:
    usage = Usage({"seconds": 590.0})
    talk, opened = live(Terms(conversation_s=600.0), usage)
    assert wakes(opened, Timer.LENGTH) == [0.0]
    near = talk.woke(Timer.LENGTH, 0.0)
    assert "10 more seconds" in str(told(near))
    assert wakes(near, Timer.LENGTH) == [10.0]


def test_a_session_that_has_talked_long_enough_opens_no_model_side() -> None:
    talk = conversation(Usage({"seconds": 601.0}))
    talk.client_came(0.0)
    talk.vouched(Terms(conversation_s=600.0), 0.0)
    commands = talk.from_client(Open(ConnectOptions()), 0.0)
    assert isinstance(goodbye(commands), SessionEnded)
    assert not [one for one in commands if isinstance(one, OpenModel)]


def test_only_the_time_with_a_model_side_counts() -> None:
    usage = Usage()
    talk, _ = live(Terms(conversation_s=600.0), usage)
    talk.close(None, 100.0)
    assert usage.seconds == 100.0


# --- its cost


def costing(talk: Conversation, tokens: int, now: float) -> Sequence[Command]:
    counts = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    return talk.from_model(gemini.ServerMessage(usage_metadata=counts), now)


def test_a_session_that_costs_too_much_is_warned_and_ended_wherever_it_goes_on() -> None:
    usage = Usage(prices=PRICES, model=MODEL)
    dear = Usage(prices=PRICES, model=MODEL)
    dear.add({"promptTokenCount": 1000, "totalTokenCount": 1000})
    talk, _ = live(Terms(cost=dear.micro_cost / 1_000_000), usage)
    assert not wakes(costing(talk, 700, 1.0), Timer.LENGTH)
    assert wakes(costing(talk, 200, 2.0), Timer.LENGTH) == [0.0]
    assert [event.code for event in told(talk.woke(Timer.LENGTH, 2.0)) if isinstance(event, Warned)] == [
        "budget_near"
    ]
    assert not wakes(costing(talk, 10, 3.0), Timer.LENGTH)
    assert wakes(costing(talk, 200, 4.0), Timer.LENGTH) == [0.0]
    end = goodbye(talk.woke(Timer.LENGTH, 4.0))
    assert isinstance(end, SessionEnded)
    assert end.limit == "cost_per_session"
    again = conversation(Usage(usage.as_json(), prices=PRICES))
    again.client_came(5.0)
    again.vouched(Terms(cost=dear.micro_cost / 1_000_000), 5.0)
    assert isinstance(goodbye(again.from_client(Open(ConnectOptions()), 5.0)), SessionEnded)


# --- its silence


def test_sound_alone_does_not_keep_a_conversation_open() -> None:
    talk, _ = live(Terms(silent_s=300.0))
    for second in range(1, 301):
        talk.from_client(Speech(b"{}", 1.0), float(second))
    assert isinstance(goodbye(talk.woke(Timer.IDLE, 300.0)), TimedOut)


def test_a_word_of_either_side_does() -> None:
    talk, _ = live(Terms(silent_s=300.0))
    talk.from_client(Speech(b"{}", 1.0), 200.0)
    talk.from_model(heard("still here"), 200.0)
    assert wakes(talk.woke(Timer.IDLE, 300.0), Timer.IDLE) == [200.0]


# --- its budget


def test_whoever_may_not_talk_is_told_and_no_model_side_is_dialled() -> None:
    talk = conversation()
    talk.client_came(0.0)
    talk.from_client(Open(ConnectOptions()), 0.0)
    error = Unauthenticated("not you")
    commands = talk.denied(error, 0.1)
    assert goodbye(commands) is error
    assert talk.phase is Phase.IDLE
    assert not [one for one in commands if isinstance(one, OpenModel)]
    assert Record("denied", {"code": "unauthenticated"}) in commands


def test_a_budget_that_is_near_its_end_is_told_to_client_and_model() -> None:
    talk, _ = live(Terms())
    commands = talk.budget_near("little is left", 1.0)
    assert [event for event in told(commands) if isinstance(event, Warned)] == [
        Warned("budget_near", "little is left")
    ]
    (words,) = asides(commands)
    assert "friendly end" in words


def test_the_model_hears_of_it_once_nobody_speaks() -> None:
    talk, _ = live(Terms())
    talk.from_model(heard("what is"), 1.0)
    assert not asides(talk.budget_near("little is left", 1.0))
    talk.from_model(spoken("It is noon."), 1.5)
    talk.from_model(content(generation_complete=True), 2.0)
    assert len(asides(talk.from_model(content(turn_complete=True), 2.0))) == 1
    assert not asides(talk.from_model(content(turn_complete=True), 3.0))
