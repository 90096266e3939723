"""T24: messages of wrong types, with missing, unknown or dangerous fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from faults.conftest import Gateway
from faults.stage import unbroken
from hypothesis import given, settings
from hypothesis import strategies as st
from peering import Far
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.sync.client import connect

from threats.raw import GUEST, Exchange, end, hear, say, upgraded
from tornado_live.wire.native import TYPES

ANSWERS = {"error", "pong", "status"}
"""What a client hears that has not connected."""
CODES = {"bad_message", "session_mismatch"}
DANGEROUS = (
    "__proto__",
    "constructor",
    "prototype",
    "__class__",
    "toString",
    "hasOwnProperty",
    "$where",
    "__init__",
)
FIELDS = (
    "type",
    "data",
    "sessionId",
    "text",
    "mimeType",
    "id",
    "ok",
    "response",
    "token",
    "voice",
    *DANGEROUS,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
KINDS = st.sampled_from([*TYPES, *DANGEROUS, "Ping", "conect", "", "setup", "tool_call", "status"]) | JSON


@pytest.fixture(scope="module")
def exchange(gateway: Gateway) -> Iterator[Exchange]:
    exchanging = Exchange(gateway.server)
    yield exchanging
    exchanging.close()


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
    kind = draw(KINDS)
    if draw(st.booleans()):
        message["data"] = draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
    if kind == "connect":  # one that nobody could take for good
        message["data"] = {**draw(st.dictionaries(st.text(max_size=5), JSON, max_size=2)), "__proto__": {}}
    return message | {"type": kind}


@pytest.mark.proves("T24")
@settings(max_examples=300)
@given(message=messages())
def test_whatever_is_wrong_is_answered_with_its_code_and_nothing_else_happens(
    gateway: Gateway, exchange: Exchange, message: dict[str, Any]
) -> None:
    answers = exchange.say(json.dumps(message))
    assert {answer["type"] for answer in answers} <= ANSWERS
    assert {answer["data"]["code"] for answer in answers if answer["type"] == "error"} <= CODES
    assert all(answer.keys() <= {"type", "data", "sessionId"} for answer in answers)
    assert set(exchange.ended) <= {4400, 4408}
    unbroken(gateway.server)


WRONG: list[object] = [
    *(
        {"type": kind}
        for kind in ("audio", "text", "video", "tool_result", "tool_confirm", "no_such_type", "")
    ),
    *({"type": kind, "data": []} for kind in TYPES if kind not in ("ping", "disconnect", "audio_end")),
    *([], None, 1, "ping", True, {}, {"data": {}}, {"type": None}, {"type": ["ping"]}, {"type": {"a": 1}}),
    *({"type": "connect", "data": {name: {}}} for name in DANGEROUS),
    *(
        {"type": "connect", "data": {name: value}}
        for name in ("voice", "model", "token")
        for value in (1, [], {})
    ),
    *({"type": "text", "data": {"text": value}} for value in (None, 1, True, ["x"], {"__proto__": "x"}, "")),
    *({"type": "tool_confirm", "data": {"id": "1", "ok": value}} for value in ("true", 1, None)),
    *({"type": "tool_result", "data": {"id": value}} for value in (1, None, ["1"], "", "call-of-nobody")),
    *({"type": "ping", "sessionId": value} for value in (1, [], {}, True)),
]


async def answered(far: Far) -> str:
    """The code of the answer, `pong` for what is no failure."""
    answer = await hear(far, "error", "pong")
    return "pong" if answer["type"] == "pong" else str(answer["data"]["code"])


@pytest.mark.proves("T24")
async def test_twenty_wrong_messages_are_answered_and_the_next_closes_the_line(gateway: Gateway) -> None:
    told: list[str] = []
    while len(told) < len(WRONG):
        async with upgraded(gateway.server.ws_port) as far:
            for _ in range(21):
                message = WRONG[len(told) % len(WRONG)]
                await say(far, message)
                told.append(await answered(far))
                assert told[-1] == "bad_message", message
            assert await end(far) == 4400


HUGE = "x" * 200_000
LONG: list[object] = [
    *({"type": kind} for kind in (HUGE, "ping" + HUGE)),
    *(
        {"type": "connect", "data": {name: HUGE}}
        for name in ("modality", "activity", "audio", "assistant", "model")
    ),
    *(
        {"type": "connect", "data": data}
        for data in ({HUGE: 1}, HUGE, {"voice": [HUGE]}, {"inputRate": HUGE})
    ),
    *({"type": "video", "data": data} for data in ({"data": HUGE}, {"data": "", "mimeType": HUGE})),
    *({"type": "audio", "data": data} for data in ({"data": HUGE}, {"data": "", "mimeType": HUGE})),
    *({"type": kind, "data": {"id": HUGE, "ok": True}} for kind in ("tool_result", "tool_confirm")),
    *({"type": "ping", "sessionId": HUGE}, {"type": "activity_start", "data": HUGE}),
]


@pytest.mark.proves("T24")
async def test_what_is_wrong_is_never_repeated_at_length(gateway: Gateway) -> None:
    far_frames = [json.dumps(message).encode() for message in LONG]
    far_frames.append(b'{"type":"%s","type":"ping"}' % HUGE.encode())
    async with upgraded(gateway.server.ws_port) as far:
        for frame in far_frames:
            await far.send(far.frame(Opcode.TEXT, frame))
            error = await hear(far, "error")
            assert len(json.dumps(error)) < 1000, error


def told_to_guest(gateway: Gateway, frame: str) -> int:
    """The code with which a guest that begins so is closed."""
    url = gateway.server.url.replace("http", "ws") + GUEST
    with connect(url, compression=None, proxy=None, open_timeout=60) as line:
        line.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=60)
    return closed.value.rcvd.code if closed.value.rcvd is not None else 1006


@st.composite
def first_messages(draw: st.DrawFn) -> dict[str, Any]:
    """None of them is a setup, or it is one whose model has no name."""
    if draw(st.booleans()):
        others = ["realtimeInput", "clientContent", "toolResponse", "contextUpdate", "realtime_input"]
        return draw(st.dictionaries(st.sampled_from([*others, *FIELDS]), JSON, max_size=2))
    fields = ["generationConfig", "tools", "sessionResumption", "systemInstruction", *FIELDS]
    setup = draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=3))
    return {"setup": setup | {"model": draw(st.integers() | st.just([]) | st.just({}) | st.booleans())}}


@pytest.mark.proves("T24")
@settings(max_examples=200)
@given(message=first_messages())
def test_a_guest_that_begins_with_anything_but_a_setup_is_closed_with_1007(
    gateway: Gateway, message: dict[str, Any]
) -> None:
    assert told_to_guest(gateway, json.dumps(message)) == 1007
    unbroken(gateway.server)


WRONG_SETUPS: list[dict[str, Any]] = [
    *({"model": value} for value in (1, [], {}, ["models/gemini-3.8-live"])),
    *({"generationConfig": value} for value in (1, "x", [1])),
    *({"sessionResumption": value} for value in (1, "x", {"handle": 1})),
    {"session_resumption": {}, "sessionResumption": {}},
    {"generation_config": {}, "generationConfig": {}},
]


@pytest.mark.proves("T24")
async def test_wrong_fields_of_a_setup_close_it_with_1007(gateway: Gateway) -> None:
    for wrong in WRONG_SETUPS:
        async with upgraded(gateway.server.port, GUEST) as far:
            setup = {"setup": {"model": "models/gemini-3.8-live", **wrong}}
            await far.send(far.frame(Opcode.BINARY, json.dumps(setup).encode()))
            assert await end(far) == 1007, wrong
    unbroken(gateway.server)
