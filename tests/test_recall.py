"""What a new connection is told of the conversation so far."""

from __future__ import annotations

from tornado_live.live.recall import NOTHING_OWED, SEED_CHARS, Owed, ask_again, note, seed


def test_memory_is_given_whole_while_it_is_short_and_without_the_lines_of_tools() -> None:
    past = [("user", "I am Ada."), ("tool", "f(): x"), ("model", "Hello Ada.")]
    assert seed(past) == ([("user", "I am Ada."), ("model", "Hello Ada.")], "restored")
    assert seed([]) == ([], "none")


def test_long_memory_is_given_from_its_newest_end() -> None:
    given, how = seed([("user", "a" * SEED_CHARS), ("model", "b")])
    assert given == [("user", "a" * (SEED_CHARS - 1)), ("model", "b")]
    assert how == "partial"


def test_a_question_without_an_answer_is_asked_again_in_its_own_words() -> None:
    assert ask_again(Owed("What is the time?"), []) == "What is the time?"


def test_an_answer_that_broke_off_is_quoted_with_its_end() -> None:
    text = ask_again(Owed("Tell me a story.", "Once upon a time"), [])
    assert text.endswith("\nTell me a story.")
    assert "“Once upon a time”" in text


def test_a_result_is_told_in_words_before_the_question() -> None:
    told = note("f", {"x": 1}, {"status": "ok", "result": "ä"})
    assert told == '(Result of f({"x": 1}), which you asked for before: {"status": "ok", "result": "ä"})'
    assert ask_again(Owed("And?"), [told]) == f"{told}\nAnd?"


def test_nothing_is_said_where_nothing_is_owed() -> None:
    assert ask_again(NOTHING_OWED, []) == ""
