"""The published keys of whoever signs tokens: fetched from a real server, remembered, changed, out of reach."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import (
    Published,
    auth,
    claims,
    elliptic_key,
    elliptic_token,
    jwk,
    key_set,
    part,
    publishing,
    rsa_key,
    signed,
    token,
    whole,
)

from tornado_live.access import jwks
from tornado_live.access.identity import Identity
from tornado_live.access.jwks import usable_keys
from tornado_live.errors import Unauthenticated, Unavailable

BOTH = ("RS256", "ES256")


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


def identity(folder: Path, published: Published, clock: Clock | None = None) -> Identity:
    settings = auth(
        folder,
        "jwt",
        AUTH__JWT_ALGORITHMS="RS256,ES256",
        AUTH__JWT_PUBLIC_KEY="",
        AUTH__JWT_JWKS_URL=published.url,
    )
    return Identity(settings, clock=clock or Clock())


def by(kid: str | None, key: Any = None) -> str:
    """Signed with RS256 by a key of this name."""
    header = {"alg": "RS256"} | ({"kid": kid} if kid is not None else {})
    return signed(header, claims(), key or rsa_key())


def one(kid: str | None, key: Any = None) -> bytes:
    made = jwk(key or rsa_key(), kid or "")
    return json.dumps({"keys": [made if kid is not None else {**made, "kid": None}]}).encode()


async def test_keys_are_fetched_once_for_everybody(tmp_path: Path) -> None:
    async with publishing() as published:
        published.held = asyncio.Event()
        who = identity(tmp_path, published)
        asking = [who.caller(token() if n % 2 else elliptic_token()) for n in range(50)]
        async with asyncio.TaskGroup() as together:
            for one_asking in asking:
                together.create_task(one_asking)
            published.held.set()
        assert len(published.asked) == 1
        assert "Accept-Encoding: identity" in published.asked[0]
        await who.caller(token())
        assert len(published.asked) == 1


async def test_keys_are_fetched_again_after_ten_minutes(tmp_path: Path) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        await who.caller(token())
        clock.now += 599
        await who.caller(token())
        assert len(published.asked) == 1
        clock.now += 1
        await who.caller(token())
        assert len(published.asked) == 2


async def test_a_key_that_is_published_no_more_is_taken_no_more(tmp_path: Path) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        await who.caller(token())
        published.body = one("rsa-2", rsa_key("newer"))
        clock.now += 600
        with pytest.raises(Unauthenticated):
            await who.caller(token())
        await who.caller(by("rsa-2", rsa_key("newer")))


async def test_a_new_key_is_asked_for_at_once_but_not_for_every_name_that_is_made_up(tmp_path: Path) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        await who.caller(token())
        clock.now += 30
        published.body = one("rsa-2", rsa_key("newer"))
        assert (await who.caller(by("rsa-2", rsa_key("newer")))).user == "ann"
        assert len(published.asked) == 2
        for n in range(20):
            with pytest.raises(Unauthenticated):
                await who.caller(by(f"made-up-{n}"))
        assert len(published.asked) == 2
        clock.now += 30
        for n in range(20):
            with pytest.raises(Unauthenticated):
                await who.caller(by(f"made-up-{n}"))
        assert len(published.asked) == 3


def is_away(published: Published) -> None:
    published.status = "503 Service Unavailable"


def leads_elsewhere(published: Published) -> None:
    published.status, published.headers = "302 Found", {"Location": f"{published.url}/elsewhere"}


def is_no_json(published: Published) -> None:
    published.body = b"<html>"


def is_too_deep(published: Published) -> None:
    published.body = b"[" * 100_000


def is_no_set(published: Published) -> None:
    published.body = b'{"keys": {"a": 1}}'


def is_empty(published: Published) -> None:
    published.body = b'{"keys": []}'


def is_huge(published: Published) -> None:
    published.body = b" " * (256 * 1024) + key_set()


def is_packed(published: Published) -> None:
    published.body, published.headers = gzip.compress(key_set()), {"Content-Encoding": "gzip"}


def is_slow(published: Published) -> None:
    published.held = asyncio.Event()


BROKEN = [is_away, leads_elsewhere, is_no_json, is_too_deep, is_no_set, is_empty, is_huge, is_packed, is_slow]


@pytest.mark.parametrize("breaks", BROKEN)
async def test_while_no_keys_are_to_be_had_the_last_ones_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Published], None]
) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        await who.caller(token())
        breaks(published)
        monkeypatch.setattr(jwks, "DEADLINE_S", 0.3 if published.held else 60.0)
        for hours in (1, 12, 24):
            clock.now = 5000 + 3600 * hours
            assert (await who.caller(token())).user == "ann"
        assert not any("elsewhere" in asked for asked in published.asked)
        clock.now = 5000 + 24 * 3600 + 1
        with pytest.raises(Unavailable, match="out of reach"):
            await who.caller(token())
        if published.held is not None:
            published.held.set()


@pytest.mark.parametrize("breaks", [is_away, is_slow])
async def test_where_keys_were_never_to_be_had_nobody_can_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Published], None]
) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        breaks(published)
        monkeypatch.setattr(jwks, "DEADLINE_S", 0.3 if published.held else 60.0)
        for _ in range(5):
            with pytest.raises(Unavailable) as refused:
                await who.caller(token())
            assert refused.value.retry_after_ms == 1000
        assert len(published.asked) == 1
        if published.held is not None:
            published.held.set()
        published.held, published.status = None, "200 OK"
        monkeypatch.setattr(jwks, "DEADLINE_S", 60.0)
        clock.now += 30
        assert (await who.caller(token())).user == "ann"


async def test_whoever_has_a_key_does_not_wait_for_a_newer_set(tmp_path: Path) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        await who.caller(token())
        published.held = asyncio.Event()
        clock.now += 600
        async with asyncio.TaskGroup() as owned:
            first = owned.create_task(who.caller(token()))
            await published.heard(2)
            assert (await who.caller(token())).user == "ann"
            assert not first.done()
            published.held.set()
        assert first.result().user == "ann"


async def test_a_token_that_names_no_key_is_checked_with_the_only_one(tmp_path: Path) -> None:
    async with publishing() as published:
        clock = Clock()
        who = identity(tmp_path, published, clock)
        assert (await who.caller(by(None))).user == "ann"
        both = [jwk(rsa_key(), "rsa-1"), jwk(rsa_key("newer"), "rsa-2")]
        published.body = json.dumps({"keys": both}).encode()
        clock.now += 600
        for key in (rsa_key(), rsa_key("newer")):
            with pytest.raises(Unauthenticated):
                await who.caller(by(None, key))
        assert (await who.caller(by("rsa-1"))).user == "ann"


PUBLIC = jwk(rsa_key(), "a")
CURVE = jwk(elliptic_key(), "a")


@pytest.mark.parametrize(
    "made",
    [
        {"kty": "oct", "alg": "HS256", "k": part("a-secret-of-enough-bytes-for-anybody")},
        {**PUBLIC, "alg": "HS256"},
        {**PUBLIC, "alg": "RS512"},
        {**PUBLIC, "alg": "ES256"},
        {**PUBLIC, "alg": None},
        {**PUBLIC, "use": "enc"},
        {**PUBLIC, "use": None},
        {**PUBLIC, "key_ops": ["encrypt"]},
        {**PUBLIC, "key_ops": "verify"},
        {**PUBLIC, "d": "AQAB"},
        {**PUBLIC, "kid": 1},
        {**PUBLIC, "kty": "EC"},
        {**PUBLIC, "kty": ["RSA"]},
        {**PUBLIC, "n": ""},
        {**PUBLIC, "n": None},
        {**PUBLIC, "n": "!" * 342},
        {**PUBLIC, "n": whole(1 << 9000)},
        {**PUBLIC, "n": "A" * 100_000},
        {**PUBLIC, "e": "AQ"},
        {**PUBLIC, "e": whole(1 << 40 | 1)},
        {**PUBLIC, "e": whole(4)},
        jwk(rsa_key("weak", 1024), "a"),
        {**CURVE, "crv": "P-384"},
        {**CURVE, "crv": "secp256k1"},
        {**CURVE, "x": CURVE["y"]},
        {**CURVE, "x": whole(0, 32), "y": whole(0, 32)},
        {**CURVE, "y": None},
        {**CURVE, "kty": "OKP", "crv": "Ed25519"},
        {**CURVE, "d": "AQAB"},
        {},
        None,
        [],
        "key",
        1,
    ],
)
def test_what_is_no_public_key_of_our_algorithms_is_not_used(made: Any) -> None:
    with pytest.raises(ValueError, match="has no key for ES256 or RS256"):
        usable_keys(json.dumps({"keys": [made]}).encode(), BOTH)
    usual = [jwk(rsa_key(), "rsa-1")]
    keys = usable_keys(json.dumps({"keys": [made, *usual]}).encode(), BOTH)
    assert [(key.id, key.algorithm) for key in keys] == [("rsa-1", "RS256")]


def test_keys_of_algorithms_that_are_not_taken_are_not_used() -> None:
    assert [key.algorithm for key in usable_keys(key_set(), ("ES256",))] == ["ES256"]
    assert [key.algorithm for key in usable_keys(key_set(), BOTH)] == ["RS256", "ES256"]
    without = [{name: value for name, value in PUBLIC.items() if name not in ("alg", "use", "kid")}]
    assert [key.id for key in usable_keys(json.dumps({"keys": without}).encode(), BOTH)] == [None]


def test_of_a_set_without_end_the_first_hundred_are_read() -> None:
    many = [jwk(rsa_key(), str(n)) for n in range(300)]
    assert len(usable_keys(json.dumps({"keys": many}).encode(), BOTH)) == 100


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
numbers = st.integers(0, 1 << 2100).map(whole) | st.binary(max_size=300).map(part) | anything


@given(
    made=st.lists(
        st.fixed_dictionaries(
            {"kty": st.sampled_from(("RSA", "EC")) | anything},
            optional={
                "kid": anything,
                "alg": st.sampled_from(("RS256", "ES256")) | anything,
                "use": st.just("sig") | anything,
                "key_ops": st.just(["verify"]) | anything,
                "crv": st.just("P-256") | anything,
                **dict.fromkeys(("n", "e", "x", "y", "d"), numbers),
            },
        )
        | anything,
        max_size=3,
    )
)
def test_whatever_is_published_gives_sound_keys_or_none(made: list[Any]) -> None:
    for document in ({"keys": made}, made):
        try:
            keys = usable_keys(json.dumps(document).encode(), BOTH)
        except ValueError:
            continue
        for key in keys:
            assert key.algorithm in BOTH
            sizes = range(2048, 8193) if key.algorithm == "RS256" else (256,)
            assert key.public.key_size in sizes
