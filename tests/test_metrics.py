"""The series that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tornado_live.errors import LIVE_ERRORS
from tornado_live.observe.metrics import MAX_TOOLS, Metrics

OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample that is not zero, as `name{tool,outcome}`."""
    return {
        sample.name
        + (
            "{" + ",".join(sample.labels[name] for name in sorted(sample.labels, reverse=True)) + "}"
            if sample.labels
            else ""
        ): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.value and not sample.name.endswith("_bucket")
    }


def test_a_conversation_is_counted_from_its_opening_to_its_close() -> None:
    metrics = Metrics()
    metrics.conversation_opened()
    metrics.conversation_opened()
    metrics.conversation_closed()
    assert samples(metrics) == {
        "tornado_live_conversations": 1,
        "tornado_live_conversations_opened_total": 2,
    }


def test_each_fact_has_its_series() -> None:
    metrics = Metrics()
    metrics.serves()
    metrics.turn_ended()
    metrics.barged_in()
    metrics.audio_dropped(0.5)
    metrics.traffic(messages_in=1, messages_out=2, seconds_in=0.02, seconds_out=0.04, unknown=3)
    metrics.first_sound(0.25)
    metrics.failed("bad_message")
    metrics.upstream_dialled("opened")
    metrics.model_lost("line_lost")
    metrics.switched(planned=True, resumed=False, gap_s=0.4)
    metrics.watchdog("nudge")
    metrics.tools_reloaded(True)
    metrics.tools_reloaded(False)
    metrics.handlers_left_behind(1)
    metrics.handlers_left_behind(1)
    metrics.handlers_left_behind(-1)
    metrics.session_created()
    metrics.tokens(12, 3)
    metrics.http_answered(201)
    assert samples(metrics) == pytest.approx(
        {
            "tornado_live_processes": 1,
            "tornado_live_turns_total": 1,
            "tornado_live_upstream_losses_total{line_lost}": 1,
            "tornado_live_switches_total{planned,reseeded}": 1,
            "tornado_live_switch_gap_seconds_count": 1,
            "tornado_live_switch_gap_seconds_sum": 0.4,
            "tornado_live_watchdog_steps_total{nudge}": 1,
            "tornado_live_tools_reloads_total{taken}": 1,
            "tornado_live_tools_reloads_total{refused}": 1,
            "tornado_live_handlers_left_behind": 1,
            "tornado_live_upstream_unknown_messages_total": 3,
            "tornado_live_barge_ins_total": 1,
            "tornado_live_audio_seconds_total{in}": 0.02,
            "tornado_live_audio_seconds_total{out}": 0.04,
            "tornado_live_audio_dropped_seconds_total": 0.5,
            "tornado_live_messages_total{in}": 1,
            "tornado_live_messages_total{out}": 2,
            "tornado_live_first_sound_seconds_count": 1,
            "tornado_live_first_sound_seconds_sum": 0.25,
            "tornado_live_errors_total{bad_message}": 1,
            "tornado_live_upstream_dials_total{opened}": 1,
            "tornado_live_sessions_created_total": 1,
            "tornado_live_tokens_total{input}": 12,
            "tornado_live_tokens_total{output}": 3,
            "tornado_live_http_requests_total{2xx}": 1,
        }
    )


def test_tool_calls_are_counted_by_tool_and_outcome() -> None:
    metrics = Metrics()
    metrics.tool_finished("get_weather", True, 0.2)
    metrics.tool_finished("get_weather", False, 4.0, "timeout")
    assert samples(metrics) == pytest.approx(
        {
            "tornado_live_tool_calls_total{get_weather,ok}": 1,
            "tornado_live_tool_calls_total{get_weather,timeout}": 1,
            "tornado_live_tool_duration_seconds_count{get_weather}": 2,
            "tornado_live_tool_duration_seconds_sum{get_weather}": 4.2,
        }
    )


def test_what_the_model_makes_up_never_becomes_a_label() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.tool_finished(f"made_up_{number}", False, 0.0, "unknown_tool")
        metrics.failed(f"code_{number}")
    assert samples(metrics) == {
        "tornado_live_tool_calls_total{(unknown),unknown_tool}": 1000,
        "tornado_live_tool_duration_seconds_count{(unknown)}": 1000,
        "tornado_live_errors_total{internal}": 1000,
    }


def test_tools_beyond_the_bound_share_one_label() -> None:
    metrics = Metrics()
    for number in range(MAX_TOOLS + 5):
        metrics.tool_finished(f"tool_{number}", True, 0.1)
    counted = samples(metrics)
    assert counted["tornado_live_tool_calls_total{(other),ok}"] == 5
    assert counted["tornado_live_tool_calls_total{tool_0,ok}"] == 1


def test_errors_start_at_zero_for_every_code() -> None:
    text = Metrics().render().decode()
    for error in LIVE_ERRORS:
        assert f'tornado_live_errors_total{{code="{error.code}"}} 0.0' in text


def test_two_servers_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.turn_ended()
    assert samples(two) == {}


def test_the_documentation_names_every_series_and_no_other() -> None:
    rendered = set(re.findall(r"^# TYPE (\S+)", Metrics().render().decode(), re.MULTILINE))
    documented = set(re.findall(r"^\| `(tornado_live_\w+)", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == rendered
    assert len(rendered) == 26
