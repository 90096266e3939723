"""T23: JSON that is deep, huge, ambiguous, or none at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from faults.conftest import Gateway
from faults.stage import environment, unbroken
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Server, nobody_listens
from websockets.frames import Opcode

from threats.raw import GUEST, Exchange, end, hear, say, upgraded

VALUES: Sequence[bytes] = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b"0x10", b"01", b"1.", b".5", b"+1", b"--1"),
    *(b"1" * 5000, b"-" + b"9" * 5000, b"1" * 100_000),
    *(b'{"a":1,"a":2}', b'[{"a":{"b":1,"\\u0062":2}}]', b'{"__proto__":{},"__proto__":{}}'),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d"', b'{"\\udfff":1}', b'["\xed\xa0\x80"]'),
    *(b'"\xff"', b'"\xc0\xaf"', b'"\\x41"', b'"\n"', b'"\x00"', b'"\\u12"', b"'a'", b'"'),
    *(b"[" * 100 + b"]" * 100, b'{"a":' * 100 + b"1" + b"}" * 100, b"[" * 100_000, b'[{"a":' * 20_000),
    *(b"[" + b"[]," * 60_000 + b"1]", b"[" + b"{}," * 60_000 + b"1]", b"[" + b"0," * 60_000 + b"0]"),
    *(b"", b",", b"[1,]", b'{"a":1,}', b'{"a"}', b"[1}", b"tru", b"undefined", b"1 1", b"/**/1", b"// 1\n1"),
)
"""In the place of a value that may be any JSON."""
WHOLE: Sequence[bytes] = (
    *(b"", b" ", b"[", b"{", b"null", b"[]", b'"ping"', b"1", b"\xef\xbb\xbf" + b'{"type":"ping"}'),
    *('{"type":"ping"}'.encode("utf-16"), b'{"type":"ping"}{"type":"ping"}', b'{"type":"ping"}\x00'),
    *(
        b'{"type":"ping","type":"ping"}',
        b'{"type":"ping","data":1,"data":2}',
        b'{"type":"ping","\\u0074ype":"ping"}',
    ),
    b'{"type":"audio","data":{"data":"AAAA"},"data":{"data":"AAAA"}}',
    b'{"type":"audio","data":{"data":"AA==","data":"AAAA"}}',
    b'{"type":"audio","data":{"data":"AAAA","mimeType":"audio/pcm","mimeType":"audio/pcm"}}',
    b'{"type":"audio","sessionId":null,"data":{"data":"AAAA"},"sessionId":null}',
)


def fields(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


PINGS: Sequence[bytes] = [
    *(b'{"type":"ping","data":%s}' % value for value in (*VALUES, fields(20_001)) if is_text(value)),
    *filter(is_text, WHOLE),
]
SETUPS: Sequence[bytes] = [
    b'{"setup":{"model":"models/gemini-3.8-live","x":%s}}' % value for value in (*VALUES, fields(50_001))
]
LENIENT = """
import json
import msgspec
from tornado_live.wire import native, strict

class Lenient:
    def decode(self, data):
        return msgspec.convert(json.loads(data), native.ClientMessage)

native._decoder = Lenient()
strict.weigh = strict.check = lambda data, bound: None

from tornado_live.__main__ import main
main()
"""
"""A server that reads JSON as Python's own module does."""


async def prove(server: Server) -> None:
    """Every bomb is answered, on a line that goes on until there were twenty."""
    for at in range(0, len(PINGS), 20):
        async with upgraded(server.ws_port) as far:
            for bomb in PINGS[at : at + 20]:
                await far.send(far.frame(Opcode.TEXT, bomb))
                answer = await hear(far)
                assert answer["type"] == "error", (bomb[:60], answer)
                assert answer["data"]["code"] == "bad_message", bomb[:60]
            await say(far, {"type": "ping"})
            await hear(far, "pong")
    assert "Traceback" not in server.log


@pytest.mark.proves("T23")
async def test_every_bomb_is_a_bad_message_and_the_line_goes_on(gateway: Gateway) -> None:
    await prove(gateway.server)


@pytest.mark.proves("T23")
async def test_what_is_no_utf8_closes_the_line_as_the_rfc_says(gateway: Gateway) -> None:
    for path, port in (("/", gateway.server.ws_port), (GUEST, gateway.server.port)):
        async with upgraded(port, path) as far:
            await far.send(far.frame(Opcode.TEXT, b'{"type":"ping","data":"\xed\xa0\x80"}'))
            assert await end(far) == 1007


@pytest.mark.proves("T23")
async def test_without_the_strict_decoder_the_proof_fails() -> None:
    with nobody_listens() as port:
        async with Server(command=("-c", LENIENT, "serve"), environ=environment(port)) as server:
            with pytest.raises(AssertionError, match="NaN"):
                await prove(server)


@pytest.mark.proves("T23")
async def test_every_bomb_of_a_guest_closes_it_with_1007(gateway: Gateway) -> None:
    for bomb in (*SETUPS, *WHOLE):
        # In a binary frame, which may hold anything.
        async with upgraded(gateway.server.port, GUEST) as far:
            await far.send(far.frame(Opcode.BINARY, bomb))
            assert await end(far) == 1007, bomb[:60]


@pytest.fixture(scope="module")
def exchange(gateway: Gateway) -> Iterator[Exchange]:
    exchanging = Exchange(gateway.server)
    yield exchanging
    exchanging.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """JSON of which bytes were put elsewhere, doubled or changed."""
    data = bytearray(json.dumps({"type": "ping", "data": draw(JSON)}).encode())
    for _ in range(draw(st.integers(1, 4))):
        at, to = draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))
        data[at:to] = draw(
            st.sampled_from((b"", b'"', b"\\", b"[", b"{", b",", b":", b"NaN", b"1e9", b"\\ud800", b"\xff"))
        )
    return bytes(data)


@pytest.mark.proves("T23")
@settings(max_examples=600)
@given(frame=broken())
def test_whatever_json_was_broken_into_is_a_message_or_a_bad_message(
    gateway: Gateway, exchange: Exchange, frame: bytes
) -> None:
    for answer in exchange.say(frame.decode(errors="replace")):
        assert answer["type"] == "pong" or answer["data"]["code"] == "bad_message"
    assert set(exchange.ended) <= {4400, 4408}
    unbroken(gateway.server)
