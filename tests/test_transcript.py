"""Pieces into finished messages, in memory order."""

from __future__ import annotations

from tornado_live.live.transcript import MAX_PIECES_CHARS, Finished, Transcript


def test_a_turn_is_finished_in_the_order_user_tool_model() -> None:
    transcript = Transcript()
    transcript.model_piece(1, "It is ")
    assert transcript.tool(1, "get_weather: sunny")
    transcript.user_piece(1, " What's the")
    transcript.user_piece(1, " weather?")
    transcript.model_piece(1, "sunny.")
    assert transcript.close(1) == [
        Finished("user", "What's the weather?", 1, True),
        Finished("tool", "get_weather: sunny", 1, False),
        Finished("model", "It is sunny.", 1, True),
    ]
    assert transcript.close(1) == []


def test_a_side_that_had_its_end_mark_is_not_told_again() -> None:
    transcript = Transcript()
    transcript.user_piece(1, "Hello")
    assert transcript.user_ended(1) == "Hello"
    assert transcript.user_ended(1) is None
    assert transcript.model_ended(1) is None
    assert transcript.close(1) == [Finished("user", "Hello", 1, False)]


def test_typed_text_is_remembered_and_never_sent_back() -> None:
    transcript = Transcript()
    transcript.user_typed(1, "one")
    transcript.user_typed(1, "two")
    assert transcript.user_ended(1) is None
    assert transcript.close(1) == [Finished("user", "one\ntwo", 1, False)]


def test_text_of_the_model_is_not_transcribed_a_second_time() -> None:
    transcript = Transcript()
    transcript.model_said(1, "Hello")
    assert transcript.close(1) == [Finished("model", "Hello", 1, False)]


def test_a_turn_that_is_still_to_come_stays_open() -> None:
    transcript = Transcript()
    transcript.user_typed(2, "later")
    transcript.model_piece(1, "now")
    assert [done.text for done in transcript.close(1)] == ["now"]
    assert [done.text for done in transcript.close(2)] == ["later"]


def test_a_tool_that_ends_after_its_turn_has_no_place_in_it() -> None:
    assert not Transcript().tool(1, "late")


def test_many_typed_messages_cost_the_same_each() -> None:
    transcript = Transcript()
    for _ in range(100_000):
        transcript.user_typed(1, "x")
    (user,) = transcript.close(1)
    assert len(user.text) == MAX_PIECES_CHARS - 1


def test_empty_sides_are_not_remembered_and_endless_ones_are_cut() -> None:
    transcript = Transcript()
    transcript.user_piece(1, "  ")
    for _ in range(70):
        transcript.model_piece(1, "x" * 1024)
    (model,) = transcript.close(1)
    assert len(model.text) == MAX_PIECES_CHARS


def test_accumulated_words_give_only_what_is_new_of_them() -> None:
    transcript = Transcript()
    told = [transcript.user_piece(1, text, accumulated=True) for text in ("What", "What is", "What is")]
    assert told == ["What", " is", ""]
    (finished,) = transcript.close(1)
    assert finished.text == "What is"


def test_accumulated_words_that_correct_themselves_are_told_whole_at_the_end() -> None:
    transcript = Transcript()
    transcript.user_piece(1, "What his", accumulated=True)
    assert transcript.user_piece(1, "What is", accumulated=True) == ""
    assert transcript.user_piece(1, "What is it", accumulated=True) == " it"
    assert transcript.close(1) == [Finished("user", "What is it", 1, True)]


def test_words_after_the_end_mark_are_told_whole_once_more() -> None:
    transcript = Transcript()
    transcript.user_piece(1, "Hello")
    assert transcript.user_ended(1) == "Hello"
    transcript.user_piece(1, " you")
    assert transcript.close(1) == [Finished("user", "Hello you", 1, True)]
