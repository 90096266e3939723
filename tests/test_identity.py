"""Who asks, by plain values and real stores: API keys, signed tokens, tickets and ephemeral tokens."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import (
    SECRET,
    auth,
    claims,
    elliptic_key,
    elliptic_token,
    mirrored,
    part,
    pem,
    rsa_key,
    secret_token,
    signed,
    token,
)
from stores import PLACES, Given, Place, SqlitePlace, opened

from tornado_live.access import keys, tickets, tokens
from tornado_live.access.identity import LOCAL, Identity, is_user, own_limits
from tornado_live.access.keys import Key, keep_key, make_key, revoke_key
from tornado_live.access.limits import OWN
from tornado_live.access.refusal import WRONG, Refused
from tornado_live.caller import Caller
from tornado_live.errors import ConfigError, Limited, Unauthenticated, Unavailable
from tornado_live.sessions.store import SessionStore

Result = TypeVar("Result")


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


def at_once(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What it gives without ever waiting."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(Result, done.value)
    coroutine.close()
    raise AssertionError("it waited for something")


async def made(
    store: SessionStore, name: str = "web", *, expires_at: float | None = None, **more: Any
) -> str:
    return (await made_key(store, name, expires_at=expires_at, **more))[0]


async def made_key(
    store: SessionStore, name: str = "web", *, expires_at: float | None = None, **more: Any
) -> tuple[str, Key]:
    shown, key = make_key(name, now=time.time(), **more)
    await keep_key(store, key, expires_at)
    return shown, key


async def refusal(who: Coroutine[Any, Any, Caller]) -> Refused:
    with pytest.raises(Refused) as refused:
        await who
    return refused.value


# Without asking


async def test_without_modes_everybody_is_one_user_whatever_is_shown() -> None:
    identity = Identity()
    assert not identity.required
    for shown in (None, "", "tl_x", "anything", token()):
        assert await identity.caller(shown) is LOCAL
        assert await identity.socket_caller(shown) is LOCAL


async def test_without_modes_a_ticket_and_an_ephemeral_token_are_checked_all_the_same(place: Place) -> None:
    async with opened(place) as store:
        identity = Identity(None, store)
        for shown in (f"tlt_{'x' * 43}", "auth_tokens/none"):
            with pytest.raises(Unauthenticated):
                await identity.socket_caller(shown)
        ticket = await ticket_of(place, store, LOCAL)
        found = await identity.socket_caller(ticket.token, session="s")
        assert (found.user, found.session, found.known) == ("local", "s", False)


async def test_whoever_shows_nothing_is_told_what_to_show(tmp_path: Path) -> None:
    for who in (Identity(auth(tmp_path)).caller(None), Identity(auth(tmp_path)).socket_caller(None)):
        with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
            await who


# API keys


async def test_a_key_says_who_comes_with_it_and_what_they_may(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path, "api_key"), store, clock=Clock())
        shown, key = await made_key(
            store,
            "app",
            user="ann",
            roles=frozenset({"operator"}),
            assistant="default",
            limits={"cost_per_day": 5},
        )
        assert await identity.caller(shown) == Caller(
            user="ann",
            roles=frozenset({"operator"}),
            assistant="default",
            claims={"sub": "ann"},
            limits={"cost_per_day": 5},
            subjects=frozenset({"user:ann", f"key:{key.id}"}),
            known=True,
        )
        assert await identity.socket_caller(shown) == await identity.caller(shown)
        assert (await identity.caller(await made(store, "web"))).user == "key:web"


async def test_a_key_ends_when_it_was_to_end(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        clock = Clock()
        identity = Identity(auth(tmp_path, "api_key"), store, clock=clock)
        shown = await made(store, expires_at=place.now() + 100)
        until = (await identity.caller(shown)).until
        assert until is not None
        assert 5000 < until <= 5100
        await place.pass_time(101)
        refused = await refusal(identity.caller(shown))
        assert refused.reason in ("expired key", "unknown key")
        assert refused.message == WRONG


async def test_a_revoked_key_opens_nothing_and_its_name_is_free_again(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path, "api_key"), store)
        shown, key = await made_key(store)
        await identity.caller(shown)
        assert await revoke_key(store, key)
        assert not await revoke_key(store, key)
        assert (await refusal(identity.caller(shown))).reason == "unknown key"
        again, _ = await made_key(store)
        assert again != shown
        assert (await identity.caller(again)).user == "key:web"
        assert [key.name for key in await keys.list_keys(store)] == ["web"]


async def test_keys_are_listed_without_their_secret_and_only_while_they_are_good(place: Place) -> None:
    async with opened(place) as store:
        shown = await made(store, "for good")
        await made(store, "for a while", expires_at=place.now() + 50)
        await store.keep_credential("another", uses=None, expires_at=place.now() + 50, body={}, kind="ticket")
        odd = dict[str, Any](id="x", name="odd", digest="y", user=None, roles=[], assistant=None, limits={})
        odd["createdAt"] = 1
        wrong = [("id", 1), ("digest", "é"), ("createdAt", 1e300), ("roles", None), ("user", 7)]
        for n, (field, value) in enumerate(wrong):
            body = {**odd, field: value}
            await store.keep_credential(f"odd{n}", uses=None, expires_at=None, body=body, kind="key")
        listed = await keys.list_keys(store)
        assert {(key.name, key.left_s is None) for key in listed} == {
            ("for good", True),
            ("for a while", False),
        }
        assert shown[16:] not in repr(listed)
        await place.pass_time(51)
        assert [key.name for key in await keys.list_keys(store)] == ["for good"]


async def test_no_more_keys_are_made_than_can_be_listed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST", 2)
    async with opened(place) as store:
        await made(store, "one")
        await made(store, "two")
        with pytest.raises(Limited):
            await made(store, "three")


@pytest.mark.parametrize(
    "change",
    [
        lambda shown: shown[:-1] + ("A" if shown[-1] != "A" else "B"),
        lambda shown: shown[:-1],
        lambda shown: shown + "A",
        lambda shown: shown.swapcase(),
        lambda shown: shown[:15] + "_" + "A" * 43,
        lambda shown: "tl_" + "a" * 12 + shown[15:],
        lambda shown: "tl_",
        lambda shown: "tl_" + "x" * 9000,
        lambda shown: shown + "\n",
        lambda shown: "tl_\ud800" + shown[4:],
        lambda shown: shown.replace("tl_", "tl__"),
    ],
)
async def test_what_is_not_exactly_the_key_opens_nothing(tmp_path: Path, change: Any) -> None:
    async with opened(sqlite(tmp_path)) as store:
        identity = Identity(auth(tmp_path, "api_key"), store)
        shown = await made(store)
        await identity.caller(shown)
        assert (await refusal(identity.caller(change(shown)))).message == WRONG


async def test_while_the_store_is_away_keys_that_were_good_lately_are_good(
    place: Place, tmp_path: Path
) -> None:
    clock = Clock()
    async with opened(place) as sure, opened(place, impatient=True) as store:
        identity = Identity(auth(tmp_path, "api_key"), store, clock=clock)
        known, other = await made(sure, "known"), await made(sure, "other")
        before = await identity.caller(known)
        # A statement of SQLite's that only reads does not wait for whoever writes: so it is closed.
        await store.close()
        assert await identity.caller(known) == before
        with pytest.raises(Unavailable):
            await identity.caller(other)
        with pytest.raises(Unavailable):
            await identity.caller(known[:-2] + "xx")
        clock.now += 600
        assert await identity.caller(known) == before
        clock.now += 1
        with pytest.raises(Unavailable):
            await identity.caller(known)


async def test_a_key_that_was_refused_since_is_not_remembered_either(tmp_path: Path) -> None:
    store = await sqlite(tmp_path).open()
    identity = Identity(auth(tmp_path, "api_key"), store)
    shown, key = await made_key(store)
    await identity.caller(shown)
    await store.drop_credential(f"key:{key.id}")
    await refusal(identity.caller(shown))
    await store.close()
    with pytest.raises(Unavailable):
        await identity.caller(shown)


async def test_a_revoked_key_is_not_remembered_while_the_store_is_away(tmp_path: Path) -> None:
    clock = Clock()
    store = await sqlite(tmp_path).open()
    identity = Identity(auth(tmp_path, "api_key"), store, clock=clock)
    shown, key = await made_key(store)
    await identity.caller(shown)
    identity.revoke({f"key:{key.id}": 5.0})
    await store.close()
    with pytest.raises(Unavailable):
        await identity.caller(shown)
    clock.now += 6
    with pytest.raises(Unavailable):
        await identity.caller(shown)


# Signed tokens


async def test_a_signed_token_says_who_comes_with_it(tmp_path: Path) -> None:
    clock = Clock()
    identity = Identity(auth(tmp_path), clock=clock)
    said = claims(
        roles=["admin", "nurse"],
        assistant="default",
        limits={"cost_per_day": 2, "conversation_s": 60, "grace_s": 1, "cost_per_session": -1, "x": "y"},
        scope="orders:read",
    )
    found = await identity.caller(token(said))
    assert (found.user, found.roles, found.assistant) == ("ann", {"admin", "nurse"}, "default")
    assert found.granted == {"admin", "nurse", "orders:read"}
    assert found.claims == said
    assert found.limits == {"cost_per_day": 2, "conversation_s": 60, "cost_per_session": 0}
    assert found.subjects == {"user:ann", "jwt:one"}
    assert found.known
    assert found.until == pytest.approx(5000 + 600 + 30, abs=20)


async def test_claims_are_where_the_operator_says(tmp_path: Path) -> None:
    identity = Identity(
        auth(
            tmp_path,
            AUTH__USER_CLAIM="app.user",
            AUTH__ROLES_CLAIM="https://example_com/roles",
            AUTH__ASSISTANT_CLAIM="app.assistant",
            AUTH__LIMITS_CLAIM="app.limits",
            AUTH__ROLE_NAMES="{admin: operator}",
        )
    )
    app = {"user": "ben", "assistant": "a", "limits": {"cost_per_day": 1}}
    said = claims(sub=None, app=app, **{"https://example_com/roles": "admin  nurse"})
    found = await identity.caller(token(said))
    assert (found.user, found.roles, found.assistant) == ("ben", {"operator", "nurse"}, "a")
    assert found.limits == {"cost_per_day": 1}
    for odd in ({}, {"user": {"user": "x"}}, [], "ben", None):
        await refusal(identity.caller(token(claims(app=odd))))


@pytest.mark.parametrize(
    "roles", [None, 7, {"admin": True}, [1, None, ["admin"], ""], "", "   ", ["x" * 257]]
)
async def test_roles_that_are_none_open_nothing(tmp_path: Path, roles: Any) -> None:
    assert (await Identity(auth(tmp_path)).caller(token(claims(roles=roles)))).roles == frozenset()


async def test_an_assistant_that_nobody_has_is_ignored_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    identity = Identity(auth(tmp_path), assistants=("default", "shop"))
    assert (await identity.caller(token(assistant="shop"))).assistant == "shop"
    for _ in range(3):
        assert (await identity.caller(token(assistant="gone"))).assistant is None
    assert [event(record) for record in caplog.records] == ["assistant_unknown"]


async def test_each_algorithm_is_taken_where_it_is_chosen_and_nowhere_else(tmp_path: Path) -> None:
    shown = {"RS256": token(), "ES256": elliptic_token(), "HS256": secret_token()}
    (tmp_path / "curve.pem").write_text(pem(elliptic_key()))
    chosen = {
        "RS256": auth(tmp_path),
        "ES256": auth(tmp_path, AUTH__JWT_ALGORITHMS="ES256", AUTH__JWT_PUBLIC_KEY="curve.pem"),
        "HS256": auth(tmp_path, AUTH__JWT_ALGORITHMS="HS256", AUTH__JWT_SECRET=SECRET),
        "RS256 and ES256": auth(tmp_path, AUTH__JWT_ALGORITHMS="RS256,ES256"),
    }
    for name, given_auth in chosen.items():
        for algorithm, each in shown.items():
            identity = Identity(given_auth)
            if algorithm == name.split()[0]:
                assert at_once(identity.caller(each)).user == "ann"
            else:
                await refusal(identity.caller(each))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_tokens_are_told_by_their_type_where_they_have_one(tmp_path: Path, kind: str | None) -> None:
    header = {"alg": "RS256"} | ({"typ": kind} if kind else {})
    assert (await Identity(auth(tmp_path)).caller(signed(header, claims(), rsa_key()))).user == "ann"


async def test_clocks_may_differ_by_half_a_minute(tmp_path: Path) -> None:
    identity, now = Identity(auth(tmp_path)), int(time.time())
    for shown in (token(exp=now - 10), token(nbf=now + 20), token(iat=now + 20), token(exp=now + 60.5)):
        assert (await identity.caller(shown)).user == "ann"
    strict = Identity(auth(tmp_path, AUTH__JWT_LEEWAY_S="0"))
    refused = await refusal(strict.caller(token(exp=now - 10)))
    assert refused.message == "The token has expired. Show a new one."


async def test_one_of_several_audiences_is_enough(tmp_path: Path) -> None:
    identity = Identity(auth(tmp_path, AUTH__JWT_AUDIENCE="a,voice"))
    for audience in ("voice", "a", ["b", "voice"]):
        assert (await identity.caller(token(aud=audience))).user == "ann"
    await refusal(identity.caller(token(aud="a,voice")))


async def test_another_signature_of_the_same_claims_is_nobody_new(tmp_path: Path) -> None:
    """Of ES256 everybody can make it from the first: nothing may hang on what a token looks like."""
    (tmp_path / "curve.pem").write_text(pem(elliptic_key()))
    identity = Identity(auth(tmp_path, AUTH__JWT_ALGORITHMS="ES256", AUTH__JWT_PUBLIC_KEY="curve.pem"))
    shown = elliptic_token()
    other = mirrored(shown)
    assert other != shown
    assert (await identity.caller(other)).subjects == (await identity.caller(shown)).subjects
    identity.revoke({"jwt:one": 60})
    for each in (shown, other):
        await refusal(identity.caller(each))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: pem(elliptic_key()), "is not a key of RS256"),
        (lambda: pem(rsa_key("weak", 1024)), "is a key of 1024 bits - use one of 2048 or more"),
        (
            lambda: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "no public key that can be read",
        ),
    ],
)
def test_a_public_key_that_checks_nothing_is_told_at_the_start(
    tmp_path: Path, content: Any, words: str
) -> None:
    (tmp_path / "other.pem").write_text(content())
    with pytest.raises(ConfigError, match=words):
        Identity(auth(tmp_path, AUTH__JWT_PUBLIC_KEY="other.pem"))


# Modes, revocation, names


async def test_a_kind_whose_mode_is_off_is_told_to_the_operator_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(sqlite(tmp_path)) as store:
        key = await made(store)
        for modes, shown, reason in (
            ("jwt", key, "an API key, and auth.modes has no api_key"),
            ("api_key", token(), "a JSON Web Token, and auth.modes has no jwt"),
            ("api_key,jwt", "secret", "neither a key nor a token"),
            ("api_key,jwt", "", "neither a key nor a token"),
        ):
            caplog.clear()
            refused = await refusal(Identity(auth(tmp_path, modes), store).caller(shown))
            assert (refused.message, refused.reason) == (WRONG, reason)
            assert [(event(record), fields(record)) for record in caplog.records] == [
                ("credential_refused", {"reason": reason})
            ]


async def test_tickets_and_ephemeral_tokens_are_no_credentials_of_rest(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store)
        owner = await identity.caller(token())
        ticket = await ticket_of(place, store, owner)
        assert (
            "opens its WebSocket, and nothing else" in (await refusal(identity.caller(ticket.token))).message
        )
        ephemeral = minted(place, owner)
        await tokens.keep(store, ephemeral)
        assert (
            "opens the Live API, and nothing else" in (await refusal(identity.caller(ephemeral.name))).message
        )
        assert (await identity.socket_caller(ticket.token, session="s")).user == "ann"
        assert (await identity.socket_caller(ephemeral.name)).user == "ann"


async def test_whoever_is_revoked_comes_in_no_more_until_it_is_over(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with opened(place) as store:
        identity = Identity(auth(tmp_path), store, clock=clock)
        key = await made(store, user="ann")
        owner = await identity.caller(token(exp=int(time.time()) + 9000))
        ticket = await ticket_of(place, store, owner)
        ephemeral = minted(place, owner)
        await tokens.keep(store, ephemeral)
        identity.revoke({"user:ann": 10.0, "jwt:two": 100.0})
        assert identity.is_revoked(owner)
        for shown in (key, token(), ticket.token, ephemeral.name):
            refused = await refusal(identity.socket_caller(shown, session="s"))
            assert (refused.message, refused.reason) == (WRONG, "revoked: user:ann")
        assert [event(record) for record in caplog.records] == ["credential_refused"] * 4
        assert (await identity.caller(token(sub="ben"))).user == "ben"
        assert (await refusal(identity.caller(token(sub="ben", jti="two")))).reason == "revoked: jwt:two"
        identity.revoke({"user:ann": 2.0})
        clock.now += 9
        await refusal(identity.caller(key))
        clock.now += 2
        assert not identity.is_revoked(owner)
        assert (await identity.caller(key)).user == "ann"


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("ann", True),
        ("Ann Example <ann@example.com>", True),
        ("auth0|5f7", True),
        ("élodie", True),
        ("名前", True),
        ("x" * 256, True),
        ("locale", True),
        ("", False),
        (" ", False),
        ("x" * 257, False),
        ("local", False),
        ("key:web", False),
        ("a\nb", False),
        ("a\0", False),
        ("a\x7f", False),
        ("a\x9b", False),
        ("a\u2028b", False),
        ("a\ud800", False),
    ],
)
def test_what_a_user_may_be_called(name: str, may: bool) -> None:
    assert is_user(name) == may


# Anything at all


@pytest.fixture(scope="module")
def anybody(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(auth(tmp_path_factory.mktemp("home"), "jwt"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(("RS256", "HS256", "none", "")) | json_values,
        "typ": st.sampled_from(("JWT", "at+jwt")) | json_values,
        "kid": json_values,
        "crit": json_values,
        "jwk": json_values,
    },
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from((good, str(good), [good], True)) | json_values
        for name, good in claims(roles=["a"], limits={"cost_per_day": 1}, nbf=1).items()
    },
)
segments = st.text(max_size=20) | st.binary(max_size=20).map(part)


@given(shown=st.text() | st.lists(segments, min_size=3, max_size=5).map(".".join))
def test_no_text_is_ever_anything_but_refused(anybody: Identity, shown: str) -> None:
    with pytest.raises(Unauthenticated):
        at_once(anybody.caller(shown))


@given(header=headers | json_values, payload=payloads | json_values, signature=st.binary(max_size=300))
def test_no_token_of_another_is_ever_anything_but_refused(
    anybody: Identity, header: Any, payload: Any, signature: bytes
) -> None:
    for shown in (
        f"{part(header)}.{part(payload)}.{part(signature)}",
        signed(header, payload, rsa_key("theirs")),
        signed(header, payload, pem(rsa_key()), "HS256"),
    ):
        with pytest.raises(Unauthenticated):
            at_once(anybody.caller(shown))


@given(payload=payloads | json_values, more=st.dictionaries(st.text(max_size=4), json_values, max_size=3))
def test_whatever_is_signed_gives_a_caller_that_is_sound_or_is_refused(
    anybody: Identity, payload: Any, more: dict[str, Any]
) -> None:
    shown = signed(
        {"alg": "RS256", "typ": "JWT"}, payload | more if isinstance(payload, dict) else payload, rsa_key()
    )
    try:
        found = at_once(anybody.caller(shown))
    except Unauthenticated:
        return
    assert is_user(found.user)
    assert found.known
    assert found.until is not None
    assert math.isfinite(found.until)
    assert all(isinstance(role, str) and role for role in found.roles)
    assert set(found.limits) <= OWN
    assert all(value >= 0 for value in found.limits.values())
    json.dumps(dict(found.claims), allow_nan=False, ensure_ascii=False).encode()


def sqlite(folder: Path) -> Place:
    return SqlitePlace(folder / "s.db")


async def ticket_of(place: Place, store: SessionStore, owner: Caller) -> tickets.Ticket:
    return await tickets.mint_ticket(store, owner, "s", origin=None, limits={}, wall=place.now)


def minted(place: Place, owner: Caller, body: Any = None) -> tokens.Token:
    return tokens.mint(body, caller=owner, now=place.now(), steady=time.monotonic())


def event(record: logging.LogRecord) -> str:
    return cast(str, getattr(record, "event", ""))


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return cast("dict[str, Any]", getattr(record, "fields", {}))


@pytest.mark.parametrize("value", ["0.001", -1, False, [1], {}, None, float("nan")])
def test_a_limit_of_a_token_that_is_no_number_allows_nothing(value: object) -> None:
    assert own_limits({"cost_per_day": value, "costPerDay": 5}) == {"cost_per_day": 0.0}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["alice ", " alice", "a\u200blice", "\u202eadmin", "\ufeffalice"])
def test_nobody_looks_like_somebody_else_by_what_is_not_seen(name: str) -> None:
    assert not is_user(name)


def test_a_scope_makes_nobody_an_operator() -> None:
    caller = Caller(
        "ann", roles=frozenset({"nurse"}), claims={"scope": "operator orders:read", "scp": ["backend"]}
    )
    assert caller.granted == {"nurse", "orders:read"}
    assert Caller("ann", roles=frozenset({"operator"})).granted == {"operator"}
