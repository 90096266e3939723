"""When a connection is left, and how the next one is dialled."""

from __future__ import annotations

import pytest

from tornado_live.live.causes import LINE_LOST, UNREACHABLE, Cause, of_close, of_status
from tornado_live.live.rotation import HANDLE_LIFE_S, MAX_DIALS, Dial, Rotation


def rotation(chance: float = 0.0) -> Rotation:
    return Rotation(lambda: chance)


def opened(age_s: float = 600, handle: str | None = "h1") -> Rotation:
    one = rotation()
    one.first(0.0)
    one.opened(age_s, 0.0)
    if handle is not None:
        assert one.told(handle, True, 1.0)
    return one


def cause(code: int, reason: str, *, resuming: bool = False, opened: bool = False) -> Cause:
    return of_close(code, reason, facts=None, last_sent="setup", opened=opened, resuming=resuming)


REFUSED_SETUP = cause(1007, "Request contains an invalid argument.")
REFUSED_HANDLE = cause(1007, "Invalid session handle", resuming=True)
INTERNAL = cause(1011, "Internal error encountered.", opened=True)
BAD_KEY = cause(1007, "API key not valid. Please pass a valid API key.")


def test_a_connection_is_left_at_a_quiet_point_before_its_known_age() -> None:
    one = opened(600)
    assert one.wake_after(0.0) == 480
    assert not one.due(True, 479.0)
    assert one.due(True, 480.0)
    assert not one.due(False, 480.0)
    assert one.due(False, 570.0), "by then it is left, quiet or not"


@pytest.mark.proves("F10")
def test_a_go_away_is_obeyed_well_before_its_time() -> None:
    one = opened(600)
    one.go_away(50.0, 100.0)
    assert one.due(True, 100.0)
    assert not one.due(False, 139.0)
    assert one.due(False, 140.0)


@pytest.mark.proves("F10")
@pytest.mark.parametrize(("left_s", "latest"), [(0.0, 100.0), (None, 105.0)])
def test_a_go_away_that_leaves_no_time_or_does_not_say(left_s: float | None, latest: float) -> None:
    one = opened(600)
    one.go_away(left_s, 100.0)
    assert one.due(False, latest)
    assert latest == 100.0 or not one.due(False, latest - 0.1)


@pytest.mark.proves("F10")
def test_a_second_go_away_does_not_give_more_time() -> None:
    one = opened(600)
    one.go_away(10.0, 100.0)
    one.go_away(50.0, 101.0)
    assert one.due(False, 108.0)


@pytest.mark.proves("F11")
def test_a_session_that_cannot_be_resumed_now_is_waited_for_and_its_last_handle_kept() -> None:
    one = opened(600)
    assert not one.told(None, False, 2.0)
    assert not one.due(True, 500.0)
    assert one.due(True, 570.0)
    assert one.planned(570.0).handle == "h1"
    assert one.resuming


def test_a_handle_is_good_for_two_hours() -> None:
    one = opened()
    assert one.lost(LINE_LOST, HANDLE_LIFE_S).handle == "h1"  # type: ignore[union-attr]
    assert one.lost(LINE_LOST, 1.0 + HANDLE_LIFE_S + 1).handle is None  # type: ignore[union-attr]


@pytest.mark.proves("F6")
def test_a_lost_connection_is_dialled_three_times_and_no_more() -> None:
    one = opened()
    one.well()
    dials = [one.lost(INTERNAL, 100.0 + number) for number in range(MAX_DIALS)]
    assert all(isinstance(dial, Dial) for dial in dials)
    assert one.lost(INTERNAL, 110.0) is None


def test_dials_are_counted_for_a_minute_or_until_a_turn_was_completed() -> None:
    one = opened()
    one.well()
    for number in range(MAX_DIALS):
        one.lost(INTERNAL, 100.0 + number)
    one.well()
    assert one.lost(INTERNAL, 110.0) is not None
    patient = opened()
    for number in range(10):
        assert patient.lost(INTERNAL, 100.0 + 25 * number) is not None


def test_chance_spreads_the_dials_of_many_conversations() -> None:
    early, late = rotation(0.0), rotation(0.999)
    delays = []
    for one in (early, late):
        first = one.lost(LINE_LOST, 100.0)
        second = one.lost(UNREACHABLE, 200.0 - 60)
        assert first is not None
        assert second is not None
        delays.append((round(first.delay, 2), round(second.delay, 2)))
    assert delays == [(0.0, 0.3), (0.25, 0.7)]


@pytest.mark.proves("F4")
def test_the_same_setup_is_not_sent_twice_where_it_was_refused() -> None:
    one = rotation()
    one.first(0.0)
    assert one.lost(REFUSED_SETUP, 0.5) is None


@pytest.mark.proves("F4")
def test_a_refused_handle_is_not_tried_again() -> None:
    one = opened()
    assert one.lost(LINE_LOST, 100.0) == Dial("h1", 0.0)
    dial = one.lost(REFUSED_HANDLE, 101.0)
    assert dial is not None
    assert dial.handle is None
    assert one.lost(REFUSED_SETUP, 103.0) is None


def test_the_last_dial_is_not_spent_on_a_handle_that_did_not_help_twice() -> None:
    one = opened()
    one.well()
    handles = [dial.handle for number in range(3) if (dial := one.lost(INTERNAL, 100.0 + number))]
    assert handles == ["h1", "h1", None]


def test_a_handle_is_kept_while_the_network_is_down() -> None:
    one = opened()
    one.well()
    handles = [
        dial.handle
        for number in range(3)
        if (dial := one.lost(UNREACHABLE, 100.0 + number, reached=number == 0))
    ]
    assert handles == ["h1", "h1", "h1"]


@pytest.mark.proves("F2")
def test_a_refused_key_and_a_server_that_wants_to_be_left_alone_are_not_dialled_again() -> None:
    for refusal in (BAD_KEY, of_status(401, None), of_status(429, 10.0)):
        assert opened().lost(refusal, 5.0) is None


@pytest.mark.proves("F10")
def test_a_model_side_that_sends_every_connection_away_is_dialled_ever_more_slowly() -> None:
    one = opened()
    now, pauses = 100.0, []
    one.well()
    for _ in range(8):
        dial = one.planned(now)
        pauses.append(round(dial.delay, 1))
        now += dial.delay
    assert pauses == [0.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 10.0]
    one.well()
    assert one.planned(now + 5).delay == 0.0


def test_two_dials_are_a_second_apart_at_least() -> None:
    one = rotation()
    assert one.first(0.0).delay == 0.0
    assert one.first(0.4).delay == pytest.approx(0.6)
    assert one.planned(10.0).delay == 0.0
