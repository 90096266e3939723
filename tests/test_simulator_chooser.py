"""The simulator's choice among declared functions, by plain values.

How good it is, measured on sentences that it was not made with (tests/chooser_sentences.yaml, `held_out`;
written first, by the same hand): the first run got 38 of 40 wholly right and the function of 39. A mistake that it
showed was mended since.

An independent measure, run once by hand on the Berkeley Function Calling Leaderboard (v4), before anything was
tuned on it: the right function in 190 of 200 cases of `multiple`, 393 of 400 of `simple_python` and 891 of 1053 of
`live_multiple`; every argument right, too, in 74, 138 and 197 of them, since their sentences carry far longer
lists of arguments than people speak; no call for 186 of the 240 sentences of `irrelevance`, which fit no function.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tornado_live.simulator.chooser import AskBack, Call, Chooser, Decision, Say
from tornado_live.simulator.sql_query import query, tables

SENTENCES = yaml.safe_load((Path(__file__).parent / "chooser_sentences.yaml").read_text("utf-8"))
TODAY = date(2026, 3, 11)


def chooser(tools: list[dict[str, Any]]) -> Chooser:
    return Chooser(tools, today=lambda: TODAY)


def shop() -> Chooser:
    return chooser(SENTENCES["tuned"][0]["tools"])


def declared(
    name: str, description: str = "", required: tuple[str, ...] = (), **properties: dict[str, Any]
) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": name, "description": description, "parameters": parameters}


def is_right(decision: Decision, case: dict[str, Any]) -> bool:
    if "say" in case:
        return isinstance(decision, Say)
    if "ask" in case:
        return isinstance(decision, AskBack) and decision.pending.parameter == case["ask"]
    wanted = case.get("calls") or [[case["tool"], case["args"]]]
    return isinstance(decision, Call) and [[name, args] for name, args in decision.calls] == wanted


@pytest.mark.parametrize(
    ("tools", "case"),
    [
        pytest.param(kit["tools"], case, id=case["text"])
        for kit in SENTENCES["tuned"]
        for case in kit["cases"]
    ],
)
def test_a_sentence_calls_what_it_asks_for(tools: list[dict[str, Any]], case: dict[str, Any]) -> None:
    decision = chooser(tools).choose(case["text"])
    assert is_right(decision, case), decision


def test_tools_that_nobody_has_seen_are_chosen_nine_times_of_ten() -> None:
    cases = [(kit["tools"], case) for kit in SENTENCES["held_out"] for case in kit["cases"]]
    wrong = [case["text"] for tools, case in cases if not is_right(chooser(tools).choose(case["text"]), case)]
    assert len(cases) == 40
    assert len(wrong) <= 3, wrong


def test_no_function_means_that_it_says_what_it_is() -> None:
    decision = chooser([]).choose("What's the weather in Paris?")
    assert isinstance(decision, Say)
    assert "simulator" in decision.text


def test_small_talk_says_that_it_is_a_simulator() -> None:
    for text in ("Hello!", "Who are you?", "What can you do?", "Hi there, can you hear me?"):
        decision = shop().choose(text)
        assert isinstance(decision, Say)
        assert "simulator" in decision.text


def test_the_next_utterance_fills_what_was_asked_back() -> None:
    decision = shop().choose("What's the weather?")
    assert isinstance(decision, AskBack)
    assert decision.question == "For which location?"
    for answer in ("In Paris, please.", "Paris", "paris", "It's Paris.", "Um, Paris."):
        assert shop().choose(answer, decision.pending) == Call([("get_weather", {"location": "Paris"})])


def test_several_missing_arguments_are_asked_one_after_another() -> None:
    tool = declared(
        "reserve_table",
        "Reserve a table.",
        ("guests", "time"),
        guests={"type": "integer", "description": "Number of people"},
        time={"type": "string", "description": "HH:MM"},
    )
    first = chooser([tool]).choose("Reserve a table.")
    assert isinstance(first, AskBack)
    assert first.question == "How many guests?"
    second = chooser([tool]).choose("Four.", first.pending)
    assert isinstance(second, AskBack)
    assert second.question == "At what time?"
    assert chooser([tool]).choose("At 7:30 pm.", second.pending) == Call(
        [("reserve_table", {"guests": 4, "time": "19:30"})]
    )


def test_a_call_that_was_complete_waits_for_the_answer_to_the_other() -> None:
    decision = shop().choose("Get analytics and what's the weather in Rome?")
    assert isinstance(decision, AskBack)
    assert decision.pending.parameter == "period"
    assert shop().choose("last month", decision.pending) == Call(
        [("get_weather", {"location": "Rome"}), ("get_analytics", {"period": "last month"})]
    )


def test_what_one_call_lacks_is_not_taken_from_the_words_of_another() -> None:
    decision = shop().choose("What's the weather and look up the Brooklyn Bridge.")
    assert isinstance(decision, AskBack)
    assert decision.pending.parameter == "location"
    assert decision.pending.others == (("look_up_article", {"title": "Brooklyn Bridge"}),)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        (
            "Compute growth with an initial value of 2000 and a final value of 3000",
            {"initial_value": 2000, "final_value": 3000},
        ),
        (
            "Compute growth where the final value is 7, initial value is 5",
            {"initial_value": 5, "final_value": 7},
        ),
    ],
)
def test_a_number_goes_to_the_parameter_that_is_named_with_it(text: str, args: dict[str, int]) -> None:
    tool = declared(
        "compute_growth",
        "Computes growth.",
        ("initial_value", "final_value"),
        initial_value={"type": "number"},
        final_value={"type": "number"},
    )
    assert chooser([tool]).choose(text) == Call([("compute_growth", args)])


def test_lists_take_every_value_that_is_said() -> None:
    tool = declared(
        "sort_numbers", "Sorts numbers.", ("values",), values={"type": "array", "items": {"type": "number"}}
    )
    assert chooser([tool]).choose("Sort the numbers 5, 3.5 and 12") == Call(
        [("sort_numbers", {"values": [5, 3.5, 12]})]
    )


def test_a_question_that_was_asked_back_can_be_dropped_or_replaced() -> None:
    decision = shop().choose("What's the weather?")
    assert isinstance(decision, AskBack)
    assert isinstance(shop().choose("Never mind.", decision.pending), Say)
    assert shop().choose("Get analytics for last month.", decision.pending) == Call(
        [("get_analytics", {"period": "last month"})]
    )


def test_upper_case_types_and_json_schema_mean_the_same() -> None:
    properties = {"seconds": {"type": "integer", "description": "How long"}}
    gemini = {
        "name": "start_timer",
        "parameters": {
            "type": "OBJECT",
            "properties": {"seconds": {"type": "INTEGER"}},
            "required": ["seconds"],
        },
    }
    standard = {
        "name": "start_timer",
        "parametersJsonSchema": {"type": "object", "properties": properties, "required": ["seconds"]},
    }
    for tool in (gemini, standard):
        decision = chooser([tool]).choose("Start a timer for two minutes.")
        assert decision == Call([("start_timer", {"seconds": 120})])


def test_a_function_without_parameters_or_description_can_be_called() -> None:
    assert chooser([{"name": "ring_bell"}]).choose("Please ring the bell.") == Call([("ring_bell", {})])


def test_the_opposite_of_a_function_is_not_the_function() -> None:
    on, off = declared("enable_alarm", "Enables the alarm."), declared("disable_alarm", "Disables the alarm.")
    assert chooser([on, off]).choose("Disable the alarm") == Call([("disable_alarm", {})])
    assert chooser([off, on]).choose("Enable the alarm") == Call([("enable_alarm", {})])


def test_a_description_that_hands_a_subject_to_another_function_is_believed() -> None:
    first = declared("list_rows", "Lists rows of the database. For bicycles use ask_workshop.")
    second = declared("ask_workshop", "Asks the people downstairs.")
    assert chooser([first, second]).choose("I have a question on bicycles") == Call([("ask_workshop", {})])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yesterday", "yesterday"),
        ("over the past seven days", "last 7 days"),
        ("from 2026-01-01 to 2026-01-31", "2026-01-01/2026-01-31"),
        ("from March 1st to March 5th", "2026-03-01/2026-03-05"),
        ("this quarter", "this quarter"),
        ("in January", "2026-01-01/2026-01-31"),
    ],
)
def test_periods_keep_the_words_of_the_person(text: str, value: str) -> None:
    assert shop().choose(f"Get analytics {text}") == Call([("get_analytics", {"period": value})])


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("tomorrow", "2026-03-12"),
        ("on Friday", "2026-03-13"),
        ("on April 2nd", "2026-04-02"),
        ("on the 3rd of May", "2026-05-03"),
        ("in two weeks", "2026-03-25"),
        ("on January 5th", "2026-01-05"),  # 65 days ago is nearer than ten months ahead
        ("on August 5th", "2026-08-05"),
    ],
)
def test_dates_are_counted_from_today(text: str, day: str) -> None:
    tool = declared(
        "book_court", "Books the tennis court.", ("date",), date={"type": "string", "format": "date"}
    )
    assert chooser([tool]).choose(f"Book the tennis court {text}.") == Call([("book_court", {"date": day})])


def test_what_is_quoted_is_taken_as_it_stands() -> None:
    tool = declared("post_note", "Posts a note on the board.", ("text",), text={"type": "string"})
    assert chooser([tool]).choose('Post the note "Back at 5, ask Ann."') == Call(
        [("post_note", {"text": "Back at 5, ask Ann."})]
    )


def test_tables_are_read_from_every_usual_way_of_writing_them() -> None:
    for description in (
        "Tables: users(id, name), orders(id, total)",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE orders (id INTEGER, total REAL)",
        "Tables and columns:\n- users: id INTEGER; name TEXT (Ann, Bob)\n- orders: id INTEGER; total REAL",
        "users: id, name\norders: id, total",
    ):
        assert {name: table.columns for name, table in tables(description).items()} == {
            "users": ("id", "name"),
            "orders": ("id", "total"),
        }, description
    assert list(tables("Reads the tables users, orders and products.")) == ["users", "orders", "products"]
    assert tables("Weather of a place (a city, or a country).") == {}


def test_secrets_are_not_selected_and_values_are_quoted() -> None:
    schema = tables("users(id, name, password_hash, city)")
    assert query("get user data", schema) == "SELECT id, name, city FROM users LIMIT 10"
    assert query("users named O'Brien", schema) == (
        "SELECT id, name, city FROM users WHERE name LIKE '%O''Brien%' LIMIT 10"
    )
    assert query("do something", tables("users(id, name), orders(id, total)")) is None


def test_any_text_and_any_declaration_get_a_decision() -> None:
    odd = [
        {"name": "x", "description": None, "parameters": None},
        {
            "name": "y",
            "parameters": {"type": ["object", "null"], "properties": {"a": {"anyOf": [{"type": "null"}]}}},
        },
        {
            "name": "z",
            "parameters": {
                "properties": {"a": {"type": "array", "items": {"enum": [1, 2]}}, "b": {"enum": [""]}}
            },
        },
        {"name": "", "description": "(((["},
    ]
    for text in (
        "",
        " ",
        "???",
        "a" * 3000,
        "z a 1 and 2",
        "\"'",
        "日本語",
        "x and y and z, x. y? z!",
        "the the the",
        "and weather in Rome " * 2000,
    ):
        assert isinstance(chooser(odd).choose(text), Call | AskBack | Say)
        assert isinstance(shop().choose(text), Call | AskBack | Say)


@pytest.mark.voice
async def test_the_four_questions_choose_the_same_when_they_are_spoken_and_heard() -> None:
    import asyncio

    from tornado_live.simulator.voice import INPUT_RATE, OUTPUT_RATE, load_voice, resample

    voice = await asyncio.to_thread(load_voice)
    try:
        for question in (
            "What's the weather in New York?",
            "Execute a SQL query to get user data",
            "Get analytics for the last week",
            "Search the knowledge base for information about AI",
            "Turn on the living room lamp.",
            "What's the weather like?",
        ):
            pcm = b"".join([part async for part in voice.speak(question)])
            heard = await voice.transcribe(resample(pcm, OUTPUT_RATE, INPUT_RATE))
            assert shop().choose(heard) == shop().choose(question), heard
    finally:
        voice.close()
