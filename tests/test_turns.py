"""Whose turn it is, and which one."""

from __future__ import annotations

from tornado_live.live.turns import TAIL_SECONDS, Speaking, Turns


def test_a_turn_opens_with_the_users_words_and_ends_with_turn_complete() -> None:
    turns = Turns()
    assert turns.user_spoke() == 1
    assert turns.user_spoke() == 1
    assert turns.model_spoke()
    assert not turns.model_spoke()
    assert turns.completed() == 1
    assert turns.completed() is None
    assert turns.user_spoke() == 2


def test_turns_go_on_counting_where_the_session_stopped() -> None:
    turns = Turns(7)
    assert turns.user_spoke() == 8


def test_a_model_that_speaks_first_opens_a_turn() -> None:
    turns = Turns()
    assert turns.model_spoke()
    assert turns.completed() == 1


def test_late_words_of_the_user_belong_to_the_turn_that_is_being_answered() -> None:
    turns = Turns()
    turns.user_spoke()
    turns.model_spoke()
    assert turns.user_spoke() == 1


def test_a_barge_in_mutes_the_tail_of_the_turn_and_its_completion_is_told_once() -> None:
    turns = Turns()
    turns.user_spoke()
    turns.model_spoke()
    assert turns.interrupted(10.0) == 1
    assert turns.interrupted(10.0) is None
    assert turns.muted(10.1)
    assert turns.user_spoke() == 2
    assert turns.completed() == 1
    assert not turns.muted(10.2)
    assert turns.speaking is Speaking.USER
    turns.model_spoke()
    assert turns.completed() == 2


def test_a_barge_in_without_turn_complete_does_not_mute_the_conversation_for_ever() -> None:
    turns = Turns()
    turns.model_spoke()
    turns.interrupted(10.0)
    assert turns.muted(10.0 + TAIL_SECONDS - 0.01)
    assert not turns.muted(10.0 + TAIL_SECONDS)
    turns.user_spoke()
    assert turns.completed() == 2


def test_a_phantom_barge_in_after_the_end_of_a_turn_completes_nothing_again() -> None:
    turns = Turns()
    turns.model_spoke()
    assert turns.completed() == 1
    assert turns.interrupted(1.0) == 1
    assert not turns.muted(1.0)
    assert turns.model_spoke()
    assert turns.completed() == 2


def test_nothing_is_interrupted_before_the_first_turn() -> None:
    assert Turns().interrupted(0.0) is None


def test_an_answer_that_is_dropped_before_its_first_word_leaves_the_question_open() -> None:
    turns = Turns()
    turns.user_spoke()
    assert turns.interrupted(1.0) is None
    assert turns.muted(1.1)
    assert turns.completed() is None
    turns.model_spoke()
    assert turns.completed() == 1


def test_what_is_typed_into_an_answer_waits_for_the_next_turn() -> None:
    turns = Turns()
    turns.user_spoke()
    turns.model_spoke()
    assert turns.user_typed() == 2
    assert turns.interrupted(5.0) == 1
    assert turns.speaking is Speaking.USER
    assert turns.number == 2
    assert turns.completed() == 1
    turns.model_spoke()
    assert turns.completed() == 2


def test_a_lost_model_side_leaves_its_turn_unfinished() -> None:
    turns = Turns()
    turns.user_spoke()
    turns.lost()
    assert turns.user_spoke() == 2


def test_a_typed_turn_that_was_lost_has_used_its_number() -> None:
    turns = Turns()
    turns.model_spoke()
    assert turns.user_typed() == 2
    turns.lost()
    assert turns.user_spoke() == 3
