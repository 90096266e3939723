"""T16: how long a key takes to be refused tells nothing of one that would be taken; no store has a credential."""

from __future__ import annotations

import gc
import hmac
import math
import random
import string
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from issuing import auth
from stores import PLACES, Given, Place, RedisPlace, SqlitePlace, opened

from tornado_live.access import keys, tokens
from tornado_live.access.identity import Identity
from tornado_live.access.keys import Key, digest_of, keep_key, make_key, matches
from tornado_live.access.tickets import mint_ticket
from tornado_live.errors import Unauthenticated

TRIALS = 20_000
BOUND = 10.0
"""Of Welch's t. Beyond 4.5 a difference is suspected, beyond 10 it is certain (dudect, 2017)."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


def nearly(shown: str) -> str:
    return shown[:-1] + ("A" if shown[-1] != "A" else "B")


def guesses(shown: str, chance: random.Random) -> list[tuple[bool, str]]:
    """Each of its own, in an order that nobody can foresee: wrong in the last two characters only, or (False) in
    all of the secret."""
    letters = f"{string.ascii_letters}{string.digits}-_"
    elsewhere = [letters.replace(char, "") for char in shown[16:]]

    def guess(near: bool) -> str:
        wrong = (chance.choice(others) for others in (elsewhere[-2:] if near else elsewhere))
        return (shown[:-2] if near else shown[:16]) + "".join(wrong)

    return [(near, guess(near)) for near in (chance.random() < 0.5 for _ in range(2 * TRIALS))]


def t_value(compare: Callable[[str, Key | None], bool], shown: str, key: Key, chance: random.Random) -> float:
    """Of the times that both kinds of guesses take, without the slowest tenth: those were interrupted."""
    times: dict[bool, list[int]] = {True: [], False: []}
    clock = time.perf_counter_ns
    made = guesses(shown, chance)
    gc.disable()
    try:
        for near, guess in made:
            began = clock()
            compare(guess, key)
            times[near].append(clock() - began)
    finally:
        gc.enable()
    cut = sorted([*times[True], *times[False]])[9 * 2 * TRIALS // 10]
    return welch(*([value for value in each if value <= cut] for each in times.values()))


def welch(one: Sequence[int], other: Sequence[int]) -> float:
    def moments(values: Sequence[int]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)

    (mean, spread), (other_mean, other_spread) = moments(one), moments(other)
    return abs(mean - other_mean) / math.sqrt(spread + other_spread or 1.0)


def leaky(shown: str, key: Key | None) -> bool:
    """Ends at the first character that differs."""
    secret = _SECRETS[key.id if key is not None else ""]
    return len(shown) == len(secret) and all(one == other for one, other in zip(shown, secret, strict=True))


_SECRETS: dict[str, str] = {}


@pytest.mark.proves("T16")
@pytest.mark.alone
@pytest.mark.parametrize("compare", [matches, leaky])
def test_a_guess_that_is_nearly_right_takes_no_longer(compare: Callable[[str, Key | None], bool]) -> None:
    shown, key = make_key("web", now=0.0)
    _SECRETS[key.id] = shown
    chance = random.Random(16)
    # The best of three: what else the machine does, it does not do three times in the same way.
    found = min(t_value(compare, shown, key, chance) for _ in range(3))
    if compare is leaky:
        with pytest.raises(AssertionError):
            assert found < BOUND
    else:
        assert found < BOUND


@pytest.mark.proves("T16")
def test_an_id_that_nobody_has_takes_the_same_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    usual = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return usual(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    shown, key = make_key("web", now=0.0)
    assert matches(shown, key)
    assert not matches(shown[:-1] + "_", key)
    assert not matches(shown, None)
    assert [(one == digest_of(shown), other == key.digest) for one, other in compared] == [
        (True, True),
        (False, True),
        (True, False),
    ]
    # Hashes of one length, never the keys themselves.
    assert all(len(each) == 64 and shown not in each for pair in compared for each in pair)


@pytest.mark.proves("T16")
async def test_every_way_in_by_a_key_goes_by_that_comparison(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Key | None] = []

    def watched(shown: str, key: Key | None) -> bool:
        compared.append(key)
        return matches(shown, key)

    monkeypatch.setattr(keys, "matches", watched)
    async with opened(place) as store:
        identity = Identity(auth(tmp_path, "api_key"), store)
        shown, key = make_key("web", now=time.time())
        await keep_key(store, key, None)
        for credential, known in (
            (shown, key),
            (nearly(shown), key),
            ("tl_" + "z" * 12 + shown[15:], None),
        ):
            for ask in (identity.caller, identity.socket_caller):
                compared.clear()
                if credential == shown:
                    await ask(credential)
                else:
                    with pytest.raises(Unauthenticated):
                        await ask(credential)
                assert compared == [known]


@pytest.mark.proves("T16")
async def test_no_store_has_a_key_a_ticket_or_a_token(place: Place, tmp_path: Path) -> None:
    async with opened(place) as store:
        identity = Identity(auth(tmp_path, "api_key"), store)
        shown, key = make_key("web", now=time.time())
        await keep_key(store, key, None)
        owner = await identity.caller(shown)
        ticket = await mint_ticket(store, owner, "s", origin=None, limits={}, wall=place.now)
        token = tokens.mint(None, caller=owner, now=place.now(), steady=time.monotonic())
        await tokens.keep(store, token, at_most=9)
        for credential in (ticket.token, token.name):
            await identity.socket_caller(credential, session="s")
        await store.flush()
        held = everything(place)
    assert key.digest.encode() in held  # it is looked for where the credentials are
    for secret in (shown[16:], ticket.token[4:], token.name.removeprefix(tokens.PREFIX)):
        for part in (secret, secret[:20], secret[-20:], secret[::-1]):
            assert part.encode() not in held


def everything(place: Place) -> bytes:
    """All that the store keeps."""
    match place:
        case SqlitePlace():
            return b"".join(path.read_bytes() for path in place.path.parent.glob(f"{place.path.name}*"))
        case RedisPlace():
            with place.server.client() as client:
                read: dict[bytes, Callable[[bytes], Any]] = {
                    b"string": client.get,
                    b"hash": client.hgetall,
                    b"list": lambda name: client.lrange(name, 0, -1),
                    b"zset": lambda name: client.zrange(name, 0, -1),
                    b"set": client.smembers,
                    b"stream": client.xrange,
                }
                names = cast("list[Any]", client.keys("*"))
                return b"\n".join(
                    repr((name, read[_bytes(client.type(name))](name))).encode() for name in names
                )
    raise AssertionError("there is no other kind of place")


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()
