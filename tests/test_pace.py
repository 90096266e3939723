"""How fast a client may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tornado_live.live.pace import BURST_S, Pace


def test_whoever_speaks_in_real_time_is_never_held_up() -> None:
    pace = Pace(200, 2.0)
    assert not any(pace.came(0.02, number * 0.02) for number in range(100_000))


def test_a_file_that_is_sent_at_once_is_read_at_twice_its_speed() -> None:
    pace, now = Pace(None, 2.0), 0.0
    for _ in range(600):  # a minute of speech
        now += pace.came(0.1, now)
    assert abs(now - (60 / 2 - BURST_S)) < 0.1


def test_messages_without_sound_are_counted_too() -> None:
    pace, now = Pace(100, 2.0), 0.0
    for _ in range(1500):
        now += pace.came(0.0, now)
    assert abs(now - (1500 / 100 - BURST_S)) < 0.1


def test_without_limits_nobody_waits() -> None:
    pace = Pace(None, None)
    assert not any(pace.came(1.0, 0.0) for _ in range(10_000))


@given(
    rate=st.integers(1, 500),
    factor=st.floats(1, 10),
    sent=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), max_size=300),
)
def test_never_more_than_the_burst_and_the_rate(
    rate: int, factor: float, sent: list[tuple[float, float]]
) -> None:
    pace, now, messages, speech = Pace(rate, factor), 0.0, 0, 0.0
    for pause, seconds in sent:
        now += pause
        messages, speech = messages + 1, speech + seconds
        now += pace.came(seconds, now)
        assert messages <= (now + BURST_S) * rate + 1
        assert speech <= (now + BURST_S) * factor + 1e-6
