"""Tickets by plain values and real stores: for one session, one page, once, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import auth
from stores import PLACES, Given, Place, SqlitePlace, opened

from tornado_live.access import tickets
from tornado_live.access.carried import bearer, carried, lower
from tornado_live.access.identity import Identity
from tornado_live.access.refusal import Refused
from tornado_live.access.tickets import Ticket, acting_for, mint_ticket
from tornado_live.caller import Caller
from tornado_live.errors import Limited, LiveError, Unauthenticated
from tornado_live.sessions.store import SessionStore

PAGE = "https://app.example.com"
ANN = Caller(
    user="ann",
    roles=frozenset({"nurse"}),
    assistant="default",
    claims={"sub": "ann", "ward": [1, 2]},
    limits={"cost_per_day": 5, "conversation_s": 600},
    subjects=frozenset({"user:ann", "jwt:one"}),
    until=5400.0,
    known=True,
)


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


async def minted(
    store: SessionStore,
    place: Place,
    caller: Caller = ANN,
    *,
    origin: str | None = PAGE,
    limits: Mapping[str, float] | None = None,
    clock: Clock | None = None,
) -> Ticket:
    return await mint_ticket(
        store, caller, "s", origin=origin, limits=limits or {}, wall=place.now, steady=clock or Clock()
    )


async def why_refused(identity: Identity, shown: str, **how: Any) -> str:
    with pytest.raises(Refused) as refused:
        await identity.socket_caller(shown, **how)
    return refused.value.reason


async def test_a_ticket_opens_its_session_for_whoever_it_was_made_for(place: Place, tmp_path: Path) -> None:
    clock = Clock()
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=clock)
        ticket = await minted(store, place, limits={"conversation_s": 60, "cost_per_session": 1}, clock=clock)
        assert ticket.token.startswith("tlt_")
        assert len(ticket.token) == 47
        assert ticket.expires_at == place.now() + 60
        found = await identity.socket_caller(ticket.token, origin=PAGE, session="s")
        assert found.until == pytest.approx(5400, abs=60)  # of Redis the real time passes meanwhile
        assert found == Caller(
            user="ann",
            roles=frozenset({"nurse"}),
            assistant="default",
            claims={"sub": "ann", "ward": [1, 2]},
            limits={"cost_per_day": 5, "conversation_s": 60, "cost_per_session": 1},
            subjects=frozenset({"user:ann", "jwt:one"}),
            until=found.until,
            session="s",
            known=True,
        )
        assert await why_refused(identity, ticket.token, origin=PAGE, session="s") == "ticket used before"


async def test_a_ticket_that_another_page_or_session_shows_is_not_spent(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=Clock())
        shown = (await minted(store, place)).token
        for origin in (
            None,
            "null",
            "https://app.example.com.evil.example",
            "http://app.example.com",
            f"{PAGE}/",
        ):
            why = await why_refused(identity, shown, origin=origin, session="s")
            assert why == "ticket of another origin"
        for session in (None, "", "S", "s2"):
            assert (
                await why_refused(identity, shown, origin=PAGE, session=session)
                == "ticket of another session"
            )
        assert (await identity.socket_caller(shown, origin=PAGE, session="s")).user == "ann"


async def test_a_ticket_for_no_page_in_particular_is_good_on_any_and_in_programs(
    place: Place, tmp_path: Path
) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=Clock())
        for origin in (None, PAGE):
            shown = (await minted(store, place, origin=None)).token
            assert (await identity.socket_caller(shown, origin=origin, session="s")).user == "ann"


async def test_of_fifty_at_once_one_comes_in(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=Clock())
        shown = (await minted(store, place)).token
        asked = [identity.socket_caller(shown, origin=PAGE, session="s") for _ in range(50)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, Caller) for one in found) == 1
        assert sum(isinstance(one, Unauthenticated) for one in found) == 49


async def test_a_ticket_is_good_for_a_minute(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=Clock())
        first, second = (await minted(store, place)).token, (await minted(store, place)).token
        await place.pass_time(50)
        assert (await identity.socket_caller(first, origin=PAGE, session="s")).user == "ann"
        await place.pass_time(11)
        assert await why_refused(identity, second, origin=PAGE, session="s") in (
            "expired ticket",
            "unknown ticket",
        )


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_wall_clock_that_jumps_gives_nobody_more_time(tmp_path: Path, jump: float) -> None:
    place, clock = SqlitePlace(tmp_path / "s.db"), Clock()
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=clock)
        ticket = await minted(store, place, clock=clock)
        place.jump(jump)
        place.steady.now += 20
        clock.now += 20
        assert (await identity.socket_caller(ticket.token, origin=PAGE, session="s")).until == 5400


async def test_who_came_by_a_ticket_ends_with_the_credential_behind_it(tmp_path: Path) -> None:
    place, clock = SqlitePlace(tmp_path / "s.db"), Clock()
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=clock)
        soon = Caller("ann", subjects=frozenset({"user:ann"}), until=5010.0, known=True)
        shown = (await minted(store, place, soon, clock=clock)).token
        place.steady.now += 11
        clock.now += 11
        why = await why_refused(identity, shown, origin=PAGE, session="s")
        assert why == "the credential behind it has expired"


async def test_who_is_asked_nowhere_gets_no_ticket_for_where_everybody_is(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "s.db")
    async with opened(place) as store:
        shown = (await minted(store, place, Caller("local"), origin=None)).token
        identity = Identity(auth(tmp_path), store, clock=Clock())
        assert await why_refused(identity, shown, session="s") == "made while nobody was asked who they are"


async def test_what_is_no_ticket_opens_nothing(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "s.db")
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=Clock())
        odd = "tlt_" + "o" * 43
        bodies: list[Any] = [
            {},
            {"session": "s"},
            {"session": "s", "caller": {"user": 1}},
            {"session": "s", "caller": []},
        ]
        for body in bodies:
            await store.keep_credential(odd, uses=1, expires_at=place.now() + 60, body=body)
            with pytest.raises(Unauthenticated):
                await identity.socket_caller(odd, session="s")
        for shown in (
            "tlt_",
            "tlt_" + "x" * 43,
            "tlt_" + "x" * 99_999,
            "tlt_\ud800" + "x" * 42,
            "tlt_\n" + "x" * 42,
        ):
            with pytest.raises(Unauthenticated):
                await identity.socket_caller(shown, session="s")


async def test_tickets_without_end_are_refused_until_some_expire(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "MOST", 2)
    async with opened(place) as store:
        for _ in range(2):
            await minted(store, place)
        with pytest.raises(Limited) as refused:
            await minted(store, place)
        error: LiveError = refused.value
        assert error.retry_after_ms
        assert 0 < error.retry_after_ms <= 60_000
        await place.pass_time(61)
        await minted(store, place)


def test_a_backend_acts_for_its_user_without_its_own_rights() -> None:
    backend = Caller(
        "key:web",
        roles=frozenset({"backend", "operator"}),
        assistant="shop",
        claims={"sub": "key:web"},
        limits={"cost_per_day": 9},
        subjects=frozenset({"user:key:web", "key:abc"}),
        until=7.0,
        known=True,
    )
    acting = acting_for(backend, "ann")
    assert acting == Caller(
        "ann",
        assistant="shop",
        claims={"sub": "ann"},
        limits={"cost_per_day": 9},
        subjects=frozenset({"user:key:web", "key:abc", "user:ann"}),
        until=7.0,
        known=True,
    )
    assert acting.granted == frozenset()


limits = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9) | st.floats(0, 9))


@given(one=limits, other=limits)
def test_of_two_limits_the_lower_counts(one: dict[str, float], other: dict[str, float]) -> None:
    found = lower(one, other)
    assert found == lower(other, one)
    assert set(found) == {*one, *other}
    for name, value in found.items():
        assert value == min(given_one[name] for given_one in (one, other) if name in given_one)


@given(
    user=st.text(min_size=1),
    roles=st.frozensets(st.text(max_size=5), max_size=3),
    claims=st.dictionaries(
        st.text(max_size=4), st.text(max_size=4) | st.integers() | st.lists(st.text()), max_size=3
    ),
    until=st.none() | st.integers(0, 10**6).map(float),
    lasts_s=st.integers(1, 10**5).map(float),
    passed_s=st.integers(0, 100).map(float),
)
def test_what_is_carried_is_who_made_it_whenever_it_is_shown(
    user: str,
    roles: frozenset[str],
    claims: dict[str, Any],
    until: float | None,
    lasts_s: float,
    passed_s: float,
) -> None:
    caller = Caller(user, roles, "a", claims, {"cost_per_day": 1.5}, frozenset({"user:x"}), until, known=True)
    body = carried(caller, lasts_s=lasts_s, steady=1000.0)
    # In another process, whose steady clock began elsewhere.
    found = bearer(body, left_s=lasts_s - passed_s, steady=9000.0 + passed_s)
    moved = None if until is None else until + 8000.0
    assert found == Caller(
        user, roles, "a", claims, {"cost_per_day": 1.5}, frozenset({"user:x"}), moved, known=True
    )
