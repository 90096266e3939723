"""What gives way when slow clients hold too much of the process's memory, by plain values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tornado_live.live.shedding import FULL, Pressure, Waiting, pressure

LIMIT = 1000


def test_below_three_quarters_nothing_happens() -> None:
    assert pressure([], LIMIT) == Pressure(0, full=False, shed=())
    assert pressure([Waiting("a", 750, 1.0)], LIMIT) == Pressure(750, full=False, shed=())


def test_beyond_three_quarters_nobody_new_comes_in_and_nobody_is_shed() -> None:
    assert pressure([Waiting("a", 600, 1.0), Waiting("b", 400, None)], LIMIT) == Pressure(
        1000, full=True, shed=()
    )


def test_who_has_been_slow_for_longest_goes_first_however_little_waits_for_it() -> None:
    clients = [Waiting("late", 900, 30.0), Waiting("first", 100, 10.0), Waiting("second", 500, 20.0)]
    assert pressure(clients, LIMIT).shed == ("first", "second", "late")
    clients = [Waiting("late", 300, 30.0), Waiting("first", 100, 10.0), Waiting("second", 700, 20.0)]
    assert pressure(clients, LIMIT).shed == ("first", "second")


def test_no_more_go_than_must() -> None:
    clients = [Waiting(str(at), 10, float(at)) for at in range(101)]
    found = pressure(clients, LIMIT)
    assert found.shed == tuple(str(at) for at in range(26))  # 750 bytes are left


def test_a_client_that_reads_stays_whatever_the_others_do() -> None:
    clients = [Waiting("reads", 5000, None), Waiting("slow", 1, 3.0)]
    assert pressure(clients, LIMIT) == Pressure(5001, full=True, shed=("slow",))


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.none() | st.floats(0, 100)), max_size=30),
    st.integers(1, 20_000),
)
def test_what_is_left_fits_or_nobody_slow_is_left(queues: list[tuple[int, float | None]], limit: int) -> None:
    clients = [Waiting(str(at), queued, since) for at, (queued, since) in enumerate(queues)]
    found = pressure(clients, limit)
    left = [client for client in clients if client.session not in found.shed]
    assert found.queued == sum(client.queued for client in clients)
    assert len(set(found.shed)) == len(found.shed)
    assert not found.shed or found.queued > limit
    if found.queued > limit:
        slow = [client for client in left if client.slow_since is not None]
        assert not slow or sum(client.queued for client in left) <= limit * FULL
