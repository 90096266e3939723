"""Ephemeral tokens by plain values: what may be asked for, and what a locked field withstands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.genai import types
from hypothesis import assume, given
from hypothesis import strategies as st

from tornado_live.access import tokens
from tornado_live.access.tokens import Token, admit, keep, mint
from tornado_live.caller import Caller
from tornado_live.errors import BadMessage, Limited, LiveError, Unauthenticated
from tornado_live.sessions.machine import Clocks
from tornado_live.sessions.sqlite import SqliteSessionStore

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def made(body: Any = None, now: float = NOW) -> Token:
    return mint(body, caller=Caller("ann"), now=now, steady=0.0)


def test_a_token_that_nothing_is_asked_of_opens_one_session_within_a_minute_for_half_an_hour() -> None:
    for body in (
        None,
        {},
        {"uses": None, "expireTime": None, "bidiGenerateContentSetup": None, "fieldMask": ""},
    ):
        token = made(body)
        assert (token.user, token.uses, token.setup, token.locked) == ("ann", 1, None, None)
        assert (token.expires_at, token.sessions_until) == (NOW + 1800, NOW + 60)


def test_names_are_long_and_never_twice() -> None:
    names = {made().name for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.startswith("auth_tokens/") and len(name) == 12 + 64 for name in names)


@pytest.mark.parametrize(
    ("uses", "meant"), [(1, 1), (7, 7), (0, None), (2.0, 2), ("3", 3), ("0", None), (2**31 - 1, 2**31 - 1)]
)
def test_uses_are_counted_as_google_writes_numbers(uses: Any, meant: int | None) -> None:
    assert made({"uses": uses}).uses == meant


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("2027-01-15T08:00:10Z", 10),
        ("2027-01-15T08:00:10", 10),
        ("2027-01-15t08:00:10z", 10),
        ("2027-01-15T10:30:10+02:30", 10),
        ("2027-01-15T08:00:10.5", 10.5),
        ("2027-01-15T08:00:10.123456789Z", 10.123456),
        ("2027-01-16T03:59:59.9Z", 20 * 3600 - 0.1),
    ],
)
def test_times_come_with_a_zone_or_in_utc(text: str, after: float) -> None:
    token = made({"expireTime": text, "new_session_expire_time": text})
    assert token.expires_at == token.sessions_until == pytest.approx(NOW + after, abs=1e-6)


TIME_WORDS = "it must be a time such as 2026-12-01T10:00:00Z"
SETUP: dict[str, Any] = {"model": "models/a", "generation_config": {"temperature": 0.5}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "The body must be an object"),
        ({"use": 1}, 'Unknown name "use" at \'auth_token\': Cannot find field - did you mean "uses"?'),
        ({"x" * 999: 1}, "Cannot find field."),
        ({"expireTime": "2027-01-15T08:01:00", "expire_time": "2027-01-15T08:01:00"}, "two spellings"),
        (
            {"uses": -1},
            "'auth_token.uses' (TYPE_INT32): it must be a whole number, 0 (any number of times) or more",
        ),
        ({"uses": True}, "'auth_token.uses'"),
        ({"uses": 1.5}, "'auth_token.uses'"),
        ({"uses": "many"}, "'auth_token.uses'"),
        ({"uses": "٣"}, "'auth_token.uses'"),
        ({"uses": 2**31}, "'auth_token.uses'"),
        (
            {"expireTime": "tomorrow"},
            f"'auth_token.expire_time' (type.googleapis.com/google.protobuf.Timestamp): {TIME_WORDS}",
        ),
        ({"expireTime": 5}, TIME_WORDS),
        ({"expireTime": "2027-02-30T08:00:00Z"}, "there is no such time"),
        ({"expireTime": "0001-01-01T00:00:00+23:59"}, "there is no such time"),
        ({"newSessionExpireTime": "2027-01-15T08:00:00Z"}, "new_session_expire_time must be in the future"),
        (
            {"expireTime": "2020-01-01T00:00:00Z"},
            "less than 20 hours ahead; it is 2027-01-15T08:00:00.000Z here",
        ),
        ({"expireTime": "2027-01-16T04:00:00Z"}, "less than 20 hours ahead"),
        ({"bidiGenerateContentSetup": "x"}, "'auth_token.bidi_generate_content_setup': it must be an object"),
        ({"bidiGenerateContentSetup": {"topP": 1, "top_p": 1}}, '"top_p" in two spellings'),
        (
            {
                "bidiGenerateContentSetup": {"generationConfig": {"topP": 1, "top_p": 1}},
                "fieldMask": "generationConfig.topP",
            },
            "two spellings",
        ),
        ({"bidiGenerateContentSetup": json.loads('{"a":' * 101 + "1" + "}" * 101)}, "it is too deep"),
        ({"fieldMask": ["model"]}, "'auth_token.field_mask'"),
        (
            {"bidiGenerateContentSetup": SETUP, "fieldMask": "modle"},
            "field_mask is invalid for BidiGenerateContentSetup:"
            ' "modle" is no field of a setup - did you mean "model"?',
        ),
        (
            {"bidiGenerateContentSetup": SETUP, "fieldMask": "model,generation_config.heat"},
            '"generationConfig.heat" is no field of a setup',
        ),
        ({"bidiGenerateContentSetup": SETUP, "fieldMask": "top_p"}, "write generationConfig.topP"),
        (
            {"bidiGenerateContentSetup": {"tools": [{}]}, "fieldMask": "tools.0"},
            '"tools.0" is no path of fields',
        ),
        (
            {"bidiGenerateContentSetup": SETUP, "fieldMask": "tools.google_search"},
            "goes into a list; write tools",
        ),
        (
            {"bidiGenerateContentSetup": SETUP, "fieldMask": "model.name"},
            "goes into model, which is no object",
        ),
        ({"fieldMask": "model..a"}, "no path of fields"),
        ({"fieldMask": "a" + ".a" * 10}, "no path of fields"),
        (
            {"fieldMask": ",".join(f"generationConfig.speechConfig.a{n}" for n in range(201))},
            "more than 200 paths",
        ),
    ],
)
def test_what_cannot_be_made_is_told_in_words(body: Any, words: str) -> None:
    with pytest.raises(BadMessage) as refused:
        made(body)
    assert words in refused.value.message


def test_a_mask_may_name_every_field_that_google_s_client_knows() -> None:
    setup = ",".join(types.LiveClientSetup.model_fields)
    inner = ",".join(f"generationConfig.{name}" for name in types.GenerationConfig.model_fields)
    assert len(made({"fieldMask": f"{setup},{inner}"}).locked or ()) > 30


def test_masks_take_both_spellings_a_path_twice_and_the_way_through_setup() -> None:
    mask = " model,generationConfig.top_p ,generation_config.topP,setup.system_instruction.parts, "
    token = made({"bidiGenerateContentSetup": {"setup": SETUP}, "fieldMask": mask})
    assert token.setup == SETUP
    assert token.locked == (("model",), ("generationConfig", "topP"), ("systemInstruction", "parts"))


ASKED: dict[str, Any] = {
    "model": "models/b",
    "generationConfig": {"temperature": 1.0, "top_p": 0.9},
    "systemInstruction": {"parts": [{"text": "mine"}], "role": "user"},
    "session_resumption": {"handle": "h"},
    "brandNew": {"some_thing": 1},
}
REST = {name: each for name, each in ASKED.items() if name != "generationConfig"}


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (None, {**SETUP, "session_resumption": {"handle": "h"}}),
        ("model", {**ASKED, "model": "models/a"}),
        (
            "model,generationConfig.temperature,generationConfig.topP",
            {**ASKED, "model": "models/a", "generationConfig": {"temperature": 0.5}},
        ),
        ("generationConfig", {**REST, "generation_config": {"temperature": 0.5}}),
        ("generationConfig,generationConfig.top_p", {**REST, "generation_config": {"temperature": 0.5}}),
        ("generationConfig.top_p,generationConfig", {**REST, "generation_config": {"temperature": 0.5}}),
        ("system_instruction", {name: each for name, each in ASKED.items() if name != "systemInstruction"}),
        ("systemInstruction.parts", {**ASKED, "systemInstruction": {"role": "user"}}),
        ("sessionResumption,tools", ASKED),
    ],
)
def test_what_a_token_fixes_the_client_cannot_change(mask: str | None, counts: dict[str, Any]) -> None:
    body = {"bidiGenerateContentSetup": SETUP} | ({} if mask is None else {"fieldMask": mask})
    before = json.dumps(ASKED)
    assert made(body).applied(ASKED) == counts
    assert json.dumps(ASKED) == before


def test_what_the_client_leaves_out_the_token_puts_in() -> None:
    setup = {**SETUP, "sessionResumption": {"handle": "the-token-s", "transparent": True}}
    mask = "model,generationConfig.temperature,sessionResumption"
    for body in ({"bidiGenerateContentSetup": setup}, {"bidiGenerateContentSetup": setup, "fieldMask": mask}):
        assert made(body).applied({}) == {**SETUP, "sessionResumption": {"transparent": True}}


def test_a_token_without_a_setup_fixes_nothing_and_one_with_only_a_mask_takes_away() -> None:
    assert made().applied(ASKED) == ASKED
    assert "tools" not in made({"fieldMask": "tools"}).applied({**ASKED, "tools": [{}]})


@pytest.mark.parametrize(
    "asked",
    [
        {"generation_config": {"temperature": 2}},
        {"generationConfig": {"temperature": 1}, "generation_config": {"temperature": 2}},
        {"generationConfig": {}, "generation_config": {"Temperature": 2}},
        {"generationConfig": [{"temperature": 2}]},
        {"generationConfig": None},
        {"generationConfig": "temperature: 2"},
    ],
)
def test_no_other_spelling_or_shape_goes_around_a_lock(asked: dict[str, Any]) -> None:
    token = made({"bidiGenerateContentSetup": SETUP, "fieldMask": "generationConfig.temperature"})
    counts = token.applied(asked)
    assert counts
    assert all(each == {"temperature": 0.5} for each in counts.values())


def test_a_field_asked_for_in_two_spellings_is_there_once() -> None:
    token = made({"bidiGenerateContentSetup": {"systemInstruction": 1}, "fieldMask": "system_instruction"})
    assert token.applied({"system_instruction": 2, "systemInstruction": 3}) == {"systemInstruction": 1}


def test_it_is_known_which_fields_a_later_update_may_not_change() -> None:
    whole = made({"bidiGenerateContentSetup": SETUP})
    part = made({"bidiGenerateContentSetup": SETUP, "fieldMask": "systemInstruction.parts"})
    assert [token.fixes("systemInstruction") for token in (made(), whole, part)] == [False, True, True]
    assert [token.fixes("tools") for token in (made(), whole, part)] == [False, True, False]


# Any setup, any mask, any spelling

NAMES = ("topP", "voiceConfig", "a", "someLongName")
leaves = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.booleans()


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@st.composite
def spelt(draw: st.DrawFn, value: Any) -> Any:
    """The same, with each name in one of its spellings."""
    if not isinstance(value, dict):
        return value
    return {(snake(name) if draw(st.booleans()) else name): draw(spelt(each)) for name, each in value.items()}


def unspelt(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {tokens._camel(name): unspelt(each) for name, each in value.items()}


objects = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=12
)
setups = st.dictionaries(
    st.sampled_from(("generationConfig", "systemInstruction", "model", "realtimeInputConfig")),
    objects,
    max_size=4,
)
paths = st.lists(
    st.tuples(
        st.sampled_from(("generationConfig", "systemInstruction", "model", "realtimeInputConfig")),
        st.lists(st.sampled_from(NAMES), max_size=3),
    ).map(lambda path: (path[0], *path[1])),
    min_size=1,
    max_size=5,
)


def at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path that holds no object with something in it."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves_of(each, (*path, name))
    else:
        yield path, value


def touches(path: tuple[str, ...], lock: tuple[str, ...]) -> bool:
    shorter = min(len(path), len(lock))
    return path[:shorter] == lock[:shorter]


@given(data=st.data(), setup=setups, asked=setups, mask=paths)
def test_every_locked_path_is_the_token_s_and_nothing_else_is_changed(
    data: st.DataObject, setup: dict[str, Any], asked: dict[str, Any], mask: list[tuple[str, ...]]
) -> None:
    written = [".".join(snake(name) if data.draw(st.booleans()) else name for name in path) for path in mask]
    body = {"bidiGenerateContentSetup": data.draw(spelt(setup)), "fieldMask": ",".join(written)}
    try:
        token = made(body)
    except BadMessage:
        assume(False)
    sent = data.draw(spelt(asked))
    counts = unspelt(token.applied(sent))
    for lock in mask:
        assert at(counts, lock) == at(setup, lock)
    for path, value in leaves_of(asked):
        if not any(touches(path, lock) for lock in mask):
            assert at(counts, path) == value
    for path, value in leaves_of(counts):
        if path and not any(touches(path, lock) for lock in mask):
            assert at(asked, path) == value


# Kept and shown


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(folder: Path, clock: Clock) -> AsyncIterator[SqliteSessionStore]:
    store = await SqliteSessionStore.open(folder / "s.db", ttl_s=60, clocks=Clocks(clock, clock, "this one"))
    try:
        yield store
    finally:
        await store.close()


async def refusal(store: SqliteSessionStore, name: str, *, resuming: bool = False) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await admit(store, name, resuming=resuming)
    assert len(refused.value.message.encode()) <= 123  # it fits the reason of a close
    return refused.value.message


async def test_a_token_comes_back_as_it_was_kept_and_after_a_restart_too(tmp_path: Path) -> None:
    full = made({"bidiGenerateContentSetup": SETUP, "fieldMask": "model,generationConfig.topP", "uses": 5})
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        for token in (full, made({"uses": 0}), made({"bidiGenerateContentSetup": SETUP, "uses": 2})):
            await keep(store, token)
            assert await admit(store, token.name, resuming=False) == token
    async with opened(tmp_path, clock) as store:
        assert await admit(store, full.name, resuming=False) == full


async def test_a_token_opens_so_many_sessions_and_resumes_them_until_it_expires(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        token = made({"uses": 2})
        await keep(store, token)
        for _ in range(3):
            assert await admit(store, token.name, resuming=True) == token
        clock.now = NOW + 59
        for _ in range(2):
            assert await admit(store, token.name, resuming=False) == token
        assert "used too many times" in await refusal(store, token.name)
        clock.now = NOW + 1799
        assert await admit(store, token.name, resuming=True) == token
        clock.now = NOW + 1800
        for resuming in (True, False):
            words = await refusal(store, token.name, resuming=resuming)
            assert words == "Token has expired. Make a new one."


async def test_no_new_session_begins_after_its_time(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        token = made({"uses": 0})
        await keep(store, token)
        clock.now = NOW + 59.9
        assert await admit(store, token.name, resuming=False) == token
        clock.now = NOW + 60
        assert "expired for new sessions" in await refusal(store, token.name)
        assert await admit(store, token.name, resuming=True) == token


@pytest.mark.proves("F36")
@pytest.mark.parametrize("seconds", [3600, -3600, 86400, -86400])
async def test_a_wall_clock_that_jumps_changes_nothing_for_a_token(tmp_path: Path, seconds: float) -> None:
    wall, steady = Clock(), Clock()
    clocks = Clocks(wall, steady, "this one")
    store = await SqliteSessionStore.open(tmp_path / "s.db", ttl_s=60, clocks=clocks)
    token = made({"uses": 0})
    await keep(store, token)
    wall.now += seconds
    steady.now += 59
    assert (await admit(store, token.name, resuming=False)).left_s == 1741
    steady.now += 1
    assert "expired for new sessions" in await refusal(store, token.name)
    assert (await admit(store, token.name, resuming=True)).left_s == 1740
    steady.now += 1740
    assert await refusal(store, token.name, resuming=True) == "Token has expired. Make a new one."
    await store.close()


async def test_what_is_no_token_opens_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as store:
        await store.keep_credential("a-handle", uses=None, expires_at=2e9, body={"session": "s"})
        await store.keep_credential("auth_tokens/odd", uses=None, expires_at=2e9, body={"token": {"user": 1}})
        await store.keep_credential("auth_tokens/none", uses=None, expires_at=2e9, body={"session": "s"})
        for name in (
            "",
            "a-handle",
            "auth_tokens/",
            "auth_tokens/odd",
            "auth_tokens/none",
            "auth_tokens/\ud800",
        ):
            for resuming in (True, False):
                words = await refusal(store, name, resuming=resuming)
                assert words.startswith("Request had invalid authentication credentials")


async def test_tokens_without_end_are_refused_until_some_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST", 3)
    clock = Clock()
    async with opened(tmp_path, clock) as store:
        for _ in range(3):
            await keep(store, made())
        with pytest.raises(Limited) as refused:
            await keep(store, made())
        error: LiveError = refused.value
        assert error.retry_after_ms == 1_800_000
        clock.now = NOW + 1800
        await keep(store, made(now=clock.now))


OWNER = Caller(
    "ann",
    roles=frozenset({"operator"}),
    assistant="shop",
    claims={"sub": "ann", "ward": 7, "scope": "orders:write", "scp": ["a"], "scopes": ["b"]},
    limits={"cost_per_day": 2},
    subjects=frozenset({"user:ann", "key:abc"}),
    until=5600.0,
    known=True,
)


async def test_a_token_acts_for_whoever_made_it_with_none_of_their_rights(tmp_path: Path) -> None:
    clock = Clock()
    token = mint({"uses": 0}, caller=OWNER, now=NOW, steady=5000.0)
    async with opened(tmp_path, clock) as store:
        await keep(store, token)
        clock.now = NOW + 50
        found = (await admit(store, token.name, resuming=False)).caller(lambda: 5050.0)
        assert found == Caller(
            "ann",
            assistant="shop",
            claims={"sub": "ann", "ward": 7},
            limits={"cost_per_day": 2},
            subjects=frozenset({"user:ann", "key:abc", tokens.subject(token.name)}),
            until=5600.0,  # the end of the credential behind it, which comes before its own
            known=True,
        )
        assert found.granted == frozenset()
    lasting = mint(None, caller=replace(OWNER, until=None), now=NOW, steady=5000.0)
    assert lasting.caller(lambda: 5000.0).until == 6800.0


async def test_one_user_cannot_have_all_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_OF_ONE", 2)
    clock = Clock()

    async def give(store: SqliteSessionStore, caller: Caller) -> None:
        token = mint(None, caller=caller, now=clock.now, steady=0.0)
        await keep(store, token, at_most=tokens.bound_of(caller))

    async with opened(tmp_path, clock) as store:
        for _ in range(2):
            await give(store, OWNER)
        with pytest.raises(Limited, match="You have 2 live tokens already"):
            await give(store, OWNER)
        await give(store, replace(OWNER, user="ben"))
        for _ in range(5):
            await give(store, replace(OWNER, roles=frozenset({"backend"})))
            await give(store, Caller("local"))
        clock.now += 1801
        await give(store, OWNER)


async def test_a_token_that_was_not_made_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST", 1)
    async with opened(tmp_path, Clock()) as store:
        await keep(store, made())
        for _ in range(3):
            with pytest.raises(Limited, match="There are 1 live credentials"):
                await keep(store, made(), at_most=2)
        monkeypatch.setattr(tokens, "MOST", 9)
        for _ in range(2):
            await keep(store, made(), at_most=2)
