"""A model side that is connected and silent."""

from __future__ import annotations

from tornado_live.live.commands import Timer, WakeAfter
from tornado_live.live.watchdog import ENDLESS_S, STALLED_S, ZEROS_S, Step, Watchdog


def asked(at: float = 0.0) -> Watchdog:
    dog = Watchdog()
    dog.asked("text", 8.0, at)
    return dog


def test_nothing_is_expected_of_a_model_that_nobody_asked() -> None:
    dog = Watchdog()
    assert dog.watch(0.0) == []
    assert dog.woke(1000.0) is None


def test_a_question_without_an_answer_is_helped_on_step_by_step() -> None:
    dog = asked()
    assert dog.watch(0.0) == [WakeAfter(Timer.WATCH, 8.0)]
    assert dog.watch(0.0) == [], "one timer is enough"
    assert dog.woke(7.0) is None
    steps = []
    for number in range(5):
        steps.append(dog.woke(100.0 * number + 8.0))
        assert dog.after == "text"
        dog.asked("text", 8.0, 100.0 * (number + 1))
    assert steps == [Step.NUDGE, Step.RESUME, Step.RESEED, Step.GIVE_UP, Step.NUDGE]


def test_an_answer_in_time_starts_the_ladder_anew() -> None:
    dog = asked()
    assert dog.woke(8.0) is Step.NUDGE
    dog.asked("text", 8.0, 8.0)
    dog.sounded(0.0, 9.0)
    dog.generated(9.5, 9.0)
    assert dog.over(empty=False) is None
    assert dog.watch(10.0) == []
    dog.asked("text", 8.0, 20.0)
    assert dog.woke(28.0) is Step.NUDGE


def test_an_answer_that_stops_in_the_middle_is_noticed() -> None:
    dog = asked()
    dog.sounded(0.0, 1.0)
    assert dog.watch(2.0) == [WakeAfter(Timer.WATCH, STALLED_S - 1.0)]
    dog.sounded(0.0, 5.0)
    assert dog.woke(11.0) is None
    assert dog.woke(5.0 + STALLED_S) is Step.NUDGE
    assert dog.after == "answer"


def test_an_answer_that_was_sent_whole_may_take_its_time_to_be_heard() -> None:
    dog = asked()
    dog.sounded(0.0, 1.0)
    dog.generated(61.0, 1.0)
    dog.sounded(0.0, 1.1)
    assert dog.woke(61.0) is None


def test_a_turn_that_is_never_said_to_be_over_is_ended_when_it_was_heard() -> None:
    dog = asked()
    dog.sounded(0.0, 1.0)
    dog.generated(4.0, 1.0)
    assert dog.woke(4.0 + ENDLESS_S) is Step.END_TURN
    assert dog.after == "turn_complete"
    dog.asked("text", 8.0, 20.0)
    assert dog.woke(28.0) is Step.NUDGE, "it was no fault of the answer"


def test_a_call_is_the_tools_time() -> None:
    dog = asked()
    dog.calling()
    assert dog.woke(100.0) is None
    dog.asked("tool_answer", 8.0, 100.0)
    assert dog.woke(108.0) is Step.NUDGE
    assert dog.after == "tool_answer"


def test_digital_silence_is_no_answer() -> None:
    dog = asked()
    at = 0.0
    while dog.mute(at) is None:
        at += 0.25
        dog.sounded(0.25, at)
        assert at < 2 * ZEROS_S
    assert at == ZEROS_S
    assert dog.after == "silence"


def test_a_pause_of_zeros_in_a_voice_is_no_digital_silence() -> None:
    dog = asked()
    for number in range(100):
        dog.sounded(0.25 if number % 4 else 0.0, number * 0.25)
        assert dog.mute(number * 0.25) is None


def test_an_empty_turn_is_no_answer_to_a_question_and_no_fault_without_one() -> None:
    assert asked().over(empty=True) is Step.NUDGE
    assert Watchdog().over(empty=True) is None


def test_nothing_is_watched_while_nobody_is_there() -> None:
    dog = asked()
    dog.sleep()
    dog.sounded(0.0, 1.0)
    assert dog.watch(1.0) == []
    assert dog.woke(100.0) is None
    dog.wake(190.0)
    dog.asked("text", 8.0, 200.0)
    assert dog.woke(208.0) is Step.NUDGE


def test_what_was_asked_while_nobody_was_there_is_watched_from_the_return_on() -> None:
    dog = asked()
    dog.sleep()
    assert dog.woke(100.0) is None
    assert dog.wake(100.0)
    assert dog.woke(101.0) is None
    assert dog.woke(200.0) is Step.NUDGE


def test_silence_and_empty_turns_are_nobodys_business_while_nobody_is_there() -> None:
    dog = asked()
    dog.sleep()
    dog.sounded(ZEROS_S, 1.0)
    assert dog.mute(1.0) is None
    dog.asked("tool_answer", 8.0, 2.0)
    assert dog.over(empty=True) is None
