"""What the simulator says about a tool's result, by plain values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_live.simulator.wording import GREETING, NOTHING, SAMPLE, compose, introduce


def said(result: Any, question: str = "", **envelope: Any) -> list[str]:
    return compose(question, [("some_tool", {"status": "ok", "result": result, **envelope})])


@pytest.mark.parametrize(
    ("result", "sentences"),
    [
        (42, ["The answer is 42."]),
        (-1234.567, ["The answer is minus 1,234.57."]),
        (True, ["Yes."]),
        ("The shop opens at nine", ["The shop opens at nine."]),
        ({"count": 769}, ["The count is 769."]),
        ({"row_count": 1, "rows": [{"count": 769}]}, ["The count is 769."]),
        ({"celsius": 21}, ["It is 21 degrees Celsius."]),
        ({"temperature_c": -1}, ["The temperature is minus 1 degrees Celsius."]),
        ({"battery_percent": 80}, ["The battery is 80 percent."]),
        ({"took_ms": 1}, ["The took is 1 millisecond."]),
        ({"due": "2026-03-05"}, ["The due is March 5, 2026."]),
        ({"due": "2026-03"}, ["The due is March 2026."]),
        ({"due": "2026-13"}, ["The due is 2026-13."]),
        ({"at": "2026-03-05T14:30:00Z"}, ["The at is March 5, 2026 at 14:30."]),
        ({"founded_year": 1998}, ["The founded year is 1998."]),
        ({"open": False}, ["Open: no."]),
        (["a", "b", "c"], ["Results: a, b and c."]),
        (list("abcdefg"), ["Results: a, b, c, d, e and 2 more."]),
        ({"price": 12.5, "currency": "EUR"}, ["The price is 12.50 euros."]),
        ({"data": {"room": "kitchen", "brightness": 40}}, ["Room kitchen, brightness 40."]),
    ],
)
def test_a_value_is_said_in_words(result: Any, sentences: list[str]) -> None:
    assert said(result) == sentences


@pytest.mark.parametrize(
    "result", [None, "", [], {}, {"rows": [], "row_count": 0}, {"found": 0, "passages": []}]
)
def test_an_empty_answer_is_said_to_be_empty(result: Any) -> None:
    assert said(result) == [NOTHING]


def test_fields_are_spoken_with_their_units_and_what_they_are_about() -> None:
    weather = {"place": "Oslo", "celsius": 4, "sky": "cloudy", "wind_kmh": 11, "humidity_percent": 52}
    assert said(weather) == [
        "Oslo: 4 degrees Celsius, sky cloudy, wind 11 kilometers per hour, humidity 52 percent."
    ]


def test_the_field_that_was_asked_for_comes_first() -> None:
    weather = {"place": "Oslo", "celsius": 4, "wind_kmh": 11}
    assert said(weather, "How strong is the wind?") == [
        "Oslo: wind 11 kilometers per hour, 4 degrees Celsius."
    ]


@pytest.mark.parametrize(
    ("result", "sentences"),
    [
        (
            {"question": "Why did the scarecrow win a prize?", "answer": "He was outstanding in his field."},
            ["Why did the scarecrow win a prize?", "He was outstanding in his field."],
        ),
        (
            {"id": 7, "setup": "What do you call a fake noodle", "punchline": "An impasta"},
            ["What do you call a fake noodle?", "An impasta."],
        ),
        (
            [
                {"question": "When do you open?", "answer": "At nine."},
                {"question": "Do you sell gift cards?", "answer": "Yes, at the counter."},
            ],
            ["There are 2 results.", "Do you sell gift cards?", "Yes, at the counter."],
        ),
        ({"question": "Is it open?", "answer": True}, ["Is it open?", "Yes."]),
        ({"question": "How many?", "answer": 3}, ["Question How many?, answer 3."]),
    ],
)
def test_a_question_is_asked_before_its_answer_is_given(result: Any, sentences: list[str]) -> None:
    assert said(result, "gift cards") == sentences


def test_rows_are_counted_and_the_first_are_read_with_their_columns() -> None:
    rows = [
        {"id": n, "name": f"Person {n}", "email": f"p{n}@example.com", "city": "Rome", "age": n}
        for n in range(1, 8)
    ]
    assert said({"row_count": 7, "rows": rows}) == [
        "There are 7 rows, the first 2: Person 1, email p1@example.com, city Rome, age 1; "
        "Person 2, email p2@example.com, city Rome, age 2."
    ]


def test_rows_with_their_columns_apart_are_the_same_rows() -> None:
    apart = {"columns": ["name", "total"], "rows": [["A", 3], ["B", 4.5]]}
    assert said(apart) == said({"rows": [{"name": "A", "total": 3}, {"name": "B", "total": 4.5}]})
    assert said(apart) == ["There are 2 rows: A, total 3; B, total 4.5."]


def test_of_passages_the_first_sentences_of_the_best_are_read() -> None:
    passages = [
        {
            "title": "Returns",
            "file": "shop.md",
            "text": "You have **30 days**. Shipping is free. More follows here.",
        },
        {"title": "Hours", "file": "shop.md", "text": "Nine to five."},
    ]
    assert said({"found": 2, "passages": passages}) == [
        "There are 2 passages.",
        "From Returns: You have 30 days.",
        "Shipping is free.",
    ]


def test_nested_changes_go_up_and_down() -> None:
    figures = {
        "period": "last week",
        "revenue": 1200.5,
        "currency": "USD",
        "change_percent": {"revenue": -8.3, "orders": 2},
    }
    assert said(figures) == [
        "Last week: revenue 1,200.50 US dollars.",
        "Change: revenue down 8.3 percent, orders up 2 percent.",
    ]


def test_what_only_programs_need_is_left_out() -> None:
    assert said({"http_status": 200, "url": "https://example.com", "data": {"base": "EUR", "rate": 1.1}}) == [
        "Base EUR, rate 1.1."
    ]


def test_sample_data_is_called_sample_data() -> None:
    sentences = said({"celsius": 21}, sample=True, note="This is sample data. Tell the person.")
    assert sentences == [SAMPLE, "It is 21 degrees Celsius."]
    assert "sample data" in SAMPLE


def test_small_objects_within_an_object_are_spoken_too() -> None:
    rates = {"amount": 1.0, "base": "EUR", "date": "2026-01-02", "rates": {"USD": 1.17}}
    spoken = ["January 2, 2026: amount 1, base EUR.", "Rates: 1.17 US dollars."]
    assert said(rates) == spoken
    assert said({"http_status": 200, "data": rates}) == spoken
    lamp = {"room": "hall", "state": {"level": 3, "colour": {"red": 10, "blue": 5}}}
    assert said(lamp) == ["The room is hall.", "State: level 3, colour red 10 and blue 5."]


def test_rows_by_what_was_asked_for_come_before_sums_and_comparisons() -> None:
    figures = {
        "period": "last month",
        "revenue": 300,
        "currency": "USD",
        "change_percent": {"revenue": 5},
        "rows_by": "category",
        "rows": [{"category": "Tea", "revenue": 200}, {"category": "Lamps", "revenue": 100}],
    }
    rows = "There are 2 categories: Tea, revenue 200 US dollars; Lamps, revenue 100 US dollars."
    assert said(figures, "revenue of the categories last month")[0] == f"Last month: t{rows[1:]}"
    assert said(figures, "how was last month")[0] == "Last month: revenue 300 US dollars."


HOURS = "This is a shop. It sells lamps. It is open from 9 am to 6 pm. On Sunday it is closed."


def test_of_a_text_the_sentences_are_read_that_have_the_words_asked_for() -> None:
    for result in ({"text": HOURS}, HOURS):
        assert said(result, "When are you open?")[0] == "It is open from 9 am to 6 pm."
        assert said(result, "What about Sunday?") == ["On Sunday it is closed."]
        assert said(result, "Tell me some information.") == ["This is a shop.", "It sells lamps."]


def test_of_passages_the_one_is_read_that_has_the_words_asked_for() -> None:
    passages = [
        {"title": "Hours and contact", "text": "How to reach us."},
        {"title": "Hours and contact", "heading": "Opening hours", "text": HOURS},
    ]
    assert said({"found": 2, "passages": passages}, "What are your opening hours?")[1] == (
        "From Hours and contact: It is open from 9 am to 6 pm."
    )
    assert said({"found": 1, "passages": passages[1:]}, "What are your opening hours?")[0] == (
        "Hours and contact: It is open from 9 am to 6 pm."
    )


def test_an_error_is_said_in_words_without_the_hint_for_the_model() -> None:
    error = {"code": "timeout", "message": "The service took too long.", "retryable": True}
    assert compose("", [("get_weather", {"status": "error", "error": error})]) == [
        "I could not use get weather: The service took too long.",
        "It may work if you ask again.",
    ]
    error = {
        "code": "invalid_arguments",
        "message": "No such period",
        "retryable": False,
        "hint": "Say last week.",
    }
    assert compose("", [("x", {"status": "error", "error": error})]) == ["I could not use x: No such period."]
    assert compose("", [("x", {"error": "broken"})]) == ["I could not use x: broken."]


def test_several_answers_share_the_time() -> None:
    weather = ("get_weather", {"status": "ok", "result": {"place": "Rome", "celsius": 20}})
    failed = ("x", {"status": "error", "error": {"message": "No."}})
    assert compose("", [weather, failed]) == ["Rome: 20 degrees Celsius.", "I could not use x: No."]
    assert compose("", []) == ["I have no answer."]


def test_a_response_without_the_envelope_is_worded_as_it_is() -> None:
    assert compose("", [("x", {"celsius": 3})]) == ["It is 3 degrees Celsius."]
    assert compose("", [("x", {"result": "ok then"})]) == ["ok then."]
    assert compose("", [("x", {"output": 3})]) == ["The answer is 3."]


def test_it_says_that_it_is_a_simulator_and_how_to_get_the_real_model() -> None:
    assert "simulator" in GREETING
    assert "GEMINI_API_KEY" in introduce(6)
    assert "6 tools" in introduce(6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_any_result_gives_a_few_sentences(result: Any) -> None:
    sentences = said(result, "what is it", sample=True)
    assert 2 <= len(sentences) <= 5
    assert all(sentence.strip() and sentence.rstrip('"”)')[-1] in ".!?" for sentence in sentences)
