"""One end of a WebSocket: both roles, on an asyncio transport and on a Tornado IOStream, against raw sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import time
import weakref
from typing import Any

import pytest
from peering import DEADLINE_S, PLACES, Certificates, Far, Place, Recorder, connected
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from tornado_live.live.peer import PeerOptions, WebSocketPeer

QUICK = PeerOptions(ping_interval=None, close_timeout=0.2)
PATIENT = PeerOptions(ping_interval=None, close_timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    return request.param


# -- messages


async def test_text_and_binary_go_both_ways_unchanged(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        await far.send(far.text("grüß dich"), far.frame(Opcode.BINARY, b"\x00\xff"), far.text(""))
        await seen.until(lambda seen: len(seen.messages) == 3)
        assert seen.messages == [("grüß dich".encode(), False), (b"\x00\xff", True), (b"", False)]
        assert all(type(data) is bytes for data, _ in seen.messages)
        peer.send_text("grüß")
        peer.send_text(b"bytes of text")
        peer.send_binary(bytes(range(256)) * 300)
        assert await far.receive() == (Opcode.TEXT, "grüß".encode())
        assert await far.receive() == (Opcode.TEXT, b"bytes of text")
        assert await far.receive() == (Opcode.BINARY, bytes(range(256)) * 300)


async def test_many_frames_of_one_segment_arrive_in_order(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (_, seen, far):
        texts = [str(number) * (number % 50) for number in range(3000)]
        await far.send(*map(far.text, texts))
        await seen.until(lambda seen: len(seen.messages) == len(texts))
        assert seen.texts == texts


async def test_frames_may_arrive_byte_by_byte(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (_, seen, far):
        for byte in far.text("one") + far.frame(Opcode.BINARY, b"x" * 200) + far.text("three"):
            await far.send(bytes([byte]))
            await asyncio.sleep(0)
        await seen.until(lambda seen: len(seen.messages) == 3)
        assert seen.messages == [(b"one", False), (b"x" * 200, True), (b"three", False)]


async def test_fragments_become_one_message_with_pings_between_them(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates) as (_, seen, far):
        word = "größe".encode()
        await far.send(
            far.frame(Opcode.TEXT, word[:3], fin=False),
            far.frame(Opcode.PING, b"between"),
            far.frame(Opcode.CONT, word[3:4], fin=False),
            far.frame(Opcode.CONT, b"", fin=False),
            far.frame(Opcode.CONT, word[4:]),
            far.text("next"),
        )
        await seen.until(lambda seen: len(seen.messages) == 2)
        assert seen.texts == ["größe", "next"]
        assert await far.receive() == (Opcode.PONG, b"between")


async def test_a_message_at_the_limit_passes(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, PeerOptions(max_size=300_000)) as (_, seen, far):
        await far.send(far.frame(Opcode.BINARY, b"x" * 300_000))
        await seen.until(lambda seen: bool(seen.messages))
        assert seen.messages == [(b"x" * 300_000, True)]


async def test_messages_before_attach_wait_for_the_listener(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, attach=False) as (peer, seen, far):
        await far.send(far.text("one"), far.text("two"), far.frame(Opcode.PING, b"seen"))
        assert await far.receive() == (Opcode.PONG, b"seen")
        await far.send(far.text("three"))
        peer.attach(seen)
        await seen.until(lambda seen: len(seen.messages) == 3)
        assert seen.texts == ["one", "two", "three"]
        peer.abort()
        await seen.until_closed()


async def test_a_connection_that_ended_before_attach_still_tells_its_messages_and_its_end(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, attach=False) as (peer, seen, far):
        await far.send(far.text("last words"), far.closing(4001, "enough"))
        await far.until_end()
        peer.attach(seen)
        assert await seen.until_closed() == (4001, "enough")
        assert seen.texts == ["last words"]


class KeepingCarrier:
    """A carrier that keeps what it is given, and refuses more once it is lost, as uvloop's does."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.lost = False

    def write(self, data: bytes) -> None:
        assert not self.lost
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def echoing() -> tuple[WebSocketPeer, KeepingCarrier, Recorder, Far]:
    class Echo(Recorder):
        def on_message(self, data: bytes, binary: bool) -> None:
            super().on_message(data, binary)
            peer.send_text(data)

    peer, carrier, seen = WebSocketPeer(Protocol(Side.SERVER), QUICK), KeepingCarrier(), Echo()
    peer.connection_made(carrier)  # type: ignore[arg-type]
    peer.attach(seen)
    peer._accepted(b"101", b"")
    assert carrier.writes.pop() == b"101"
    return peer, carrier, seen, Far(None, None, masks=True)  # type: ignore[arg-type]


async def test_what_one_read_causes_goes_out_in_one_write() -> None:
    peer, carrier, _, far = echoing()
    peer.data_received(far.text("a") + far.frame(Opcode.PING, b"p") + far.text("b") + far.text("c"))
    # The library answers the ping while it parses, before the messages are handed out.
    assert carrier.writes == [b"\x8a\x01p\x81\x01a\x81\x01b\x81\x01c"]


async def test_what_was_read_before_a_reset_is_delivered_before_the_end() -> None:
    peer, carrier, seen, far = echoing()
    texts = [f"{number:1000}" for number in range(100)]
    peer.data_received(b"".join(map(far.text, texts)))
    assert len(seen.messages) < 100
    carrier.lost = True
    peer.connection_lost(ConnectionResetError("reset"))
    assert seen.texts == texts
    assert seen.closed == [(1006, "the connection was lost: reset")]


# -- ends


async def test_closing_first_waits_for_the_answer(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        peer.send_text("last")
        peer.close(4401, "wer bist du?")
        peer.close(4500, "again")
        assert not peer.is_open
        assert await far.receive() == (Opcode.TEXT, b"last")
        assert await far.receive_close() == (4401, "wer bist du?")
        assert seen.closed == []
        await far.send(far.text("not delivered"), far.closing(4401, "wer bist du?"))
        assert await seen.until_closed() == (4401, "wer bist du?")
        await far.until_end()
        assert seen.messages == []
        assert (peer.close_code, peer.close_reason) == (4401, "wer bist du?")


async def test_closing_by_the_other_side_is_answered_and_told(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        await far.send(far.text("before"), far.closing(1001, "going away"))
        assert await far.receive_close() == (1001, "going away")
        assert await seen.until_closed() == (1001, "going away")
        assert seen.texts == ["before"]
        peer.send_text("dropped")
        peer.send_binary(b"dropped")
        peer.close()
        peer.abort()
        peer.pause_reading()
        peer.resume_reading()
        assert peer.queued == 0
        await far.until_end()
    assert len(seen.closed) == 1


async def test_what_was_sent_before_a_close_still_arrives(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        # uvloop's TLS client drops what it holds for a paused StreamReader when the connection ends.
        far.reader._limit = 1 << 24  # type: ignore[attr-defined]
        peer.send_binary(b"x" * 5_000_000)
        await far.send(far.closing(1000))
        _, data = await far.receive()
        assert len(data) == 5_000_000
        assert await far.receive_close() == (1000, "")
        assert await seen.until_closed() == (1000, "")


async def test_closing_drops_what_no_listener_has_seen(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, attach=False) as (peer, seen, far):
        await far.send(far.text("one"), far.frame(Opcode.PING))
        assert (await far.receive())[0] is Opcode.PONG
        peer.close(4408)
        peer.attach(seen)
        await far.send(far.closing(4408))
        assert await seen.until_closed() == (4408, "")
        assert seen.messages == []


async def test_a_close_frame_without_a_code_is_1005(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (_, seen, far):
        await far.send(far.frame(Opcode.CLOSE))
        assert await far.receive_close() == (1005, "")
        assert await seen.until_closed() == (1005, "")


async def test_an_unanswered_close_ends_at_its_deadline(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, QUICK) as (peer, seen, far):
        peer.close(4408, "too late")
        assert await seen.until_closed() == (4408, "too late")
        await far.until_end()


async def test_an_unread_close_ends_at_its_deadline(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, QUICK) as (peer, seen, _):
        while peer.queued < 1_000_000:
            peer.send_binary(b"x" * 65536)
            await asyncio.sleep(0)
        peer.close(4430, "slow")
        assert await seen.until_closed() == (4430, "slow")


async def test_a_reason_too_long_for_a_frame_is_cut_at_a_character(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates) as (peer, _, far):
        peer.close(4400, "ü" * 100)
        assert await far.receive_close() == (4400, "ü" * 61)


async def test_a_code_that_no_frame_may_carry_is_refused(certificates: Certificates) -> None:
    async with connected(Place("server", False), certificates) as (peer, _, far):
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with pytest.raises(ValueError, match=str(code)):
                peer.close(code)
        peer.send_text("still open")
        assert await far.receive() == (Opcode.TEXT, b"still open")


async def test_an_end_without_a_close_frame_is_1006(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (_, seen, far):
        await far.send(far.text("whole"), far.text("cut in the middle")[:5])
        far.writer.close()
        code, _ = await seen.until_closed()
        assert code == 1006
        assert seen.texts == ["whole"]


async def test_a_reset_is_1006(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        await far.send(far.text("hello"))
        await seen.until(lambda seen: bool(seen.messages))
        far.reset()
        code, _ = await seen.until_closed()
        assert code == 1006
        assert not peer.is_open


async def test_abort_cuts_at_once_and_is_told_once(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        peer.abort()
        peer.abort()
        assert seen.closed == []
        assert await seen.until_closed() == (1006, "the connection was aborted")
        await far.until_end()


async def test_a_listener_that_raises_loses_its_connection_and_the_loop_is_told(
    place: Place, certificates: Certificates
) -> None:
    class Broken(Recorder):
        def on_message(self, data: bytes, binary: bool) -> None:
            raise LookupError("a bug")

    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    async with connected(place, certificates, attach=False) as (peer, _, far):
        broken = Broken()
        peer.attach(broken)
        await far.send(far.text("boom"))
        assert (await broken.until_closed())[0] == 1006
        await far.until_end()
    assert [type(error) for error in told] == [LookupError]


# -- what must not pass


async def test_an_oversized_message_closes_with_1009_that_the_sender_can_read(
    place: Place, certificates: Certificates
) -> None:
    options = PeerOptions(max_size=1000, close_timeout=DEADLINE_S)
    async with connected(place, certificates, options) as (_, seen, far):
        far.writer.write(far.frame(Opcode.BINARY, b"x" * 3_000_000))
        assert (await far.receive_close())[0] == 1009
        if not place.tls:
            assert await far.reader.read() == b"", "a FIN; a reset could take the close frame away"
        far.writer.close()
        assert (await seen.until_closed())[0] == 1009
        assert seen.messages == []


async def test_larger_messages_may_be_allowed_later(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates, PeerOptions(max_size=1000)) as (peer, seen, far):
        await far.send(far.text("x" * 1000))
        await seen.until(lambda seen: len(seen.messages) == 1)
        peer.allow(2000)
        await far.send(far.text("x" * 2000))
        await seen.until(lambda seen: len(seen.messages) == 2)
        await far.send(far.text("x" * 2001))
        assert (await far.receive_close())[0] == 1009


async def test_a_size_that_is_only_announced_closes_with_1009(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, PATIENT) as (_, seen, far):
        mask = 0x80 if far.masks else 0
        await far.send(struct.pack("!BBQ", 0x82, mask | 127, 1 << 62))
        assert (await far.receive_close())[0] == 1009
        far.writer.close()
        assert (await seen.until_closed())[0] == 1009


async def test_fragments_whose_sum_is_too_large_close_with_1009(
    place: Place, certificates: Certificates
) -> None:
    options = PeerOptions(max_size=1000, close_timeout=DEADLINE_S)
    async with connected(place, certificates, options) as (_, seen, far):
        await far.send(
            far.frame(Opcode.BINARY, b"x" * 600, fin=False), far.frame(Opcode.CONT, b"x" * 600, fin=False)
        )
        assert (await far.receive_close())[0] == 1009
        far.writer.close()
        assert (await seen.until_closed())[0] == 1009


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (1002, "an unknown opcode"),
        (1002, "an extension bit"),
        (1002, "the wrong masking"),
        (1002, "a continuation of nothing"),
        (1002, "a new message inside a fragmented one"),
        (1002, "a control frame that is too long"),
        (1002, "a close frame of one byte"),
        (1007, "text that is not UTF-8"),
        (1007, "fragments that are not UTF-8 together"),
    ],
)
async def test_a_violation_closes_with_the_code_of_the_rfc(
    place: Place, certificates: Certificates, code: int, what: str
) -> None:
    async with connected(place, certificates, PATIENT) as (_, seen, far):
        offence = {
            "an unknown opcode": b"\x83" + far.text("x")[1:],
            "an extension bit": b"\xc1" + far.text("x")[1:],
            "the wrong masking": Far(far.reader, far.writer, not far.masks).text("x"),
            "a continuation of nothing": far.frame(Opcode.CONT, b"x"),
            "a new message inside a fragmented one": far.frame(Opcode.TEXT, b"a", fin=False) + far.text("b"),
            "a control frame that is too long": b"\x89" + far.frame(Opcode.BINARY, b"x" * 126)[1:],
            "a close frame of one byte": far.frame(Opcode.CLOSE, b"x"),
            "text that is not UTF-8": far.frame(Opcode.TEXT, b"ok \xff"),
            "fragments that are not UTF-8 together": far.frame(Opcode.TEXT, b"\xc3", fin=False)
            + far.frame(Opcode.CONT, b"x"),
        }[what]
        await far.send(far.text("before"), offence, far.text("after"))
        assert (await far.receive_close())[0] == code
        far.writer.close()
        assert (await seen.until_closed())[0] == code
        assert seen.texts == ["before"]


@pytest.mark.proves("T22")
@pytest.mark.parametrize("what", ["pings", "pongs", "empty fragments", "empty continuations"])
async def test_a_flood_of_frames_without_content_is_closed_with_1008(
    place: Place, certificates: Certificates, what: str
) -> None:
    async with connected(place, certificates, PATIENT) as (_, seen, far):
        frame = {
            "pings": far.frame(Opcode.PING),
            "pongs": far.frame(Opcode.PONG, b"unasked"),
            "empty fragments": far.frame(Opcode.TEXT, fin=False) + far.frame(Opcode.CONT),
            "empty continuations": far.frame(Opcode.CONT, fin=False),
        }[what]
        start = far.frame(Opcode.TEXT, fin=False) if what == "empty continuations" else b""
        await far.send(start, frame * 10_000)
        assert (await far.receive_close())[0] == 1008
        far.writer.close()
        assert (await seen.until_closed())[0] == 1008


@pytest.mark.proves("T22")
async def test_a_goodbye_that_is_answered_with_a_flood_is_cut_short(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, PATIENT) as (peer, seen, far):
        peer.close(4400)
        assert await far.receive_close() == (4400, "")
        far.writer.write(far.frame(Opcode.PONG) * 10_000)
        assert await seen.until_closed() == (4400, "")
        await far.until_end()


@pytest.mark.proves("T22")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_message_that_comes_byte_by_byte_without_end_is_closed_with_1008(
    tls: bool, certificates: Certificates
) -> None:
    options = PeerOptions(ping_interval=None, close_timeout=DEADLINE_S, small_frames_per_s=10)
    async with connected(Place("server", tls), certificates, options) as (peer, seen, far):
        await far.send(far.text("x" * 200))  # byte by byte is no fault of what is complete soon
        for byte in far.text("x" * 100_000):
            if not peer.is_open:
                break
            await far.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await far.receive_close())[0] == 1008
        far.writer.close()
        assert (await seen.until_closed())[0] == 1008
        assert seen.texts == ["x" * 200]


@pytest.mark.proves("T22")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_message_of_fragments_that_is_not_completed_is_closed_with_1008(
    tls: bool, certificates: Certificates
) -> None:
    options = PeerOptions(ping_interval=0.02, message_timeout=0.0, close_timeout=DEADLINE_S)
    async with connected(Place("server", tls), certificates, options) as (_, seen, far):
        await far.send(far.frame(Opcode.TEXT, b"x" * 1000, fin=False))
        assert (await far.receive_close()) == (1008, "a message was begun and not completed")
        far.writer.close()
        assert (await seen.until_closed())[0] == 1008


@pytest.mark.proves("T22")
async def test_what_keeps_the_processor_busy_is_followed_by_a_rest(certificates: Certificates) -> None:
    """Four times as long as it took, so that others have at least four fifths of the processor."""

    class Busy(Recorder):
        def on_message(self, data: bytes, binary: bool) -> None:
            super().on_message(data, binary)
            happened.append(data[:3])
            if len(happened) == 1:
                asyncio.get_running_loop().call_later(0.02, happened.append, b"others")
                begun = time.thread_time()
                while time.thread_time() - begun < 0.03:
                    pass

    happened: list[bytes] = []
    for tls in (False, True):
        happened.clear()
        async with connected(Place("server", tls), certificates, attach=False) as (peer, _, far):
            seen = Busy()
            peer.attach(seen)
            await far.send(far.text("one" * 4000))
            await seen.until(lambda seen: len(seen.messages) == 1)
            await far.send(far.text("two" * 4000))
            await seen.until(lambda seen: len(seen.messages) == 2)
            assert happened == [b"one", b"others", b"two"]
            peer.abort()
            await seen.until_closed()


async def test_a_connection_at_rest_goes_on_afterwards_and_can_be_closed_meanwhile(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, PATIENT) as (peer, seen, far):
        peer.rest(0.05)
        peer.rest(0.01)
        peer.resume_reading()
        await far.send(far.text("unhurried"))
        await seen.until(lambda seen: bool(seen.messages))
        peer.rest(DEADLINE_S)
        peer.close(4429)
        assert await far.receive_close() == (4429, "")
        await far.send(far.closing(4429))
        assert await seen.until_closed() == (4429, "")


async def test_a_flood_on_one_connection_lets_the_loop_turn(place: Place, certificates: Certificates) -> None:
    """One read of many tiny frames is parsed in slices, each in its own turn of the loop."""

    class Turning(Recorder):
        def on_message(self, data: bytes, binary: bool) -> None:
            super().on_message(data, binary)
            turns.add(turn)

    turn, turns = 0, set()

    def count() -> None:
        nonlocal turn, handle
        turn += 1
        handle = loop.call_soon(count)

    loop = asyncio.get_running_loop()
    handle = loop.call_soon(count)
    async with connected(place, certificates, attach=False) as (peer, _, far):
        seen = Turning()
        peer.attach(seen)
        await far.send(far.text("") * 50_000)
        await seen.until(lambda seen: len(seen.messages) == 50_000)
        handle.cancel()
        assert len(turns) >= 50_000 * len(far.text("")) // (16 * 1024)
        peer.abort()
        await seen.until_closed()


# -- pings


async def test_a_ping_is_answered_with_its_own_payload(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (_, _, far):
        await far.send(far.frame(Opcode.PING, b"payload"), far.frame(Opcode.PING))
        assert await far.receive() == (Opcode.PONG, b"payload")
        assert await far.receive() == (Opcode.PONG, b"")


async def test_pings_go_out_again_and_again_while_they_are_answered(
    place: Place, certificates: Certificates
) -> None:
    options = PeerOptions(ping_interval=0.02, ping_timeout=DEADLINE_S)
    async with connected(place, certificates, options) as (peer, _, far):
        payloads = []
        for _ in range(4):
            opcode, payload = await far.receive()
            assert opcode is Opcode.PING
            payloads.append(payload)
            await far.send(far.frame(Opcode.PONG, payload))
        assert len(set(payloads)) == 4
        assert peer.is_open


@pytest.mark.parametrize("answer", [None, b"wrong"])
async def test_a_ping_without_its_answer_ends_the_connection(
    place: Place, certificates: Certificates, answer: bytes | None
) -> None:
    options = PeerOptions(ping_interval=0.02, ping_timeout=0.1)
    async with connected(place, certificates, options) as (_, seen, far):
        assert (await far.receive())[0] is Opcode.PING
        if answer is not None:
            await far.send(far.frame(Opcode.PONG, answer))
        assert await seen.until_closed() == (1006, "no answer to a ping within 0.1 s")
        await far.until_end()


async def test_a_paused_connection_is_not_ended_for_a_pong_it_did_not_read(
    place: Place, certificates: Certificates
) -> None:
    options = PeerOptions(ping_interval=0.1, ping_timeout=0.1)
    async with connected(place, certificates, options) as (peer, seen, far):
        peer.pause_reading()
        opcode, payload = await far.receive()
        assert opcode is Opcode.PING
        await far.send(far.frame(Opcode.PONG, payload), far.text("after the pause"))
        await asyncio.sleep(0.25)  # twice the timeout: the absence of an end cannot be waited for
        assert peer.is_open
        peer.resume_reading()
        await seen.until(lambda seen: bool(seen.messages) or bool(seen.closed))
        assert seen.texts == ["after the pause"]


async def test_a_pong_that_came_while_the_process_stood_still_counts(
    place: Place, certificates: Certificates
) -> None:
    options = PeerOptions(ping_interval=0.01, ping_timeout=0.1)
    async with connected(place, certificates, options) as (peer, _, far):
        for _ in range(3):
            opcode, payload = await far.receive()
            assert opcode is Opcode.PING
            await far.send(far.frame(Opcode.PONG, payload))
            time.sleep(0.15)  # noqa: ASYNC251 - the standstill
        assert (await far.receive())[0] is Opcode.PING
        assert peer.is_open


# -- backpressure


async def test_a_reader_that_does_not_read_is_told_and_drains(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, PeerOptions(high_water=50_000)) as (peer, seen, far):
        sent = 0
        while peer.writable:
            peer.send_binary(b"x" * 10_000)
            sent += 1
            await asyncio.sleep(0)
        assert seen.writable == [False]
        assert peer.queued > 50_000
        for _ in range(sent):
            await far.receive()
        await seen.until(lambda seen: len(seen.writable) == 2)
        assert seen.writable == [False, True]
        assert peer.queued <= 12_500


async def test_a_paused_peer_takes_at_most_what_it_has_read(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        peer.pause_reading()
        peer.pause_reading()
        number, message = 0, far.frame(Opcode.BINARY, b"x" * 50_000)
        # Fill both kernels' buffers until the sender's own transport holds bytes for several turns.
        idle = 0
        while idle < 20:
            if far.writer.transport.get_write_buffer_size() < 1_000_000:
                far.writer.write(message)
                number += 1
                idle = 0
            else:
                idle += 1
            await asyncio.sleep(0)
        assert len(seen.messages) <= 20  # what a carrier had read before it paused: under 1 MB
        peer.resume_reading()
        await seen.until(lambda seen: len(seen.messages) == number)


async def test_closing_a_paused_connection_still_sees_the_answer(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates, PeerOptions(close_timeout=60.0)) as (peer, seen, far):
        peer.pause_reading()
        await far.send(far.text("unread"))
        peer.close(4408)
        assert await far.receive_close() == (4408, "")
        await far.send(far.closing(4408))
        assert await seen.until_closed() == (4408, "")
        assert seen.messages == []


async def test_bytes_sent_before_an_end_are_delivered_after_a_pause(
    place: Place, certificates: Certificates
) -> None:
    async with connected(place, certificates) as (peer, seen, far):
        peer.pause_reading()
        await far.send(far.text("one"), far.closing(1000))
        far.writer.close()
        for _ in range(20):
            await asyncio.sleep(0)
        peer.resume_reading()
        assert await seen.until_closed() == (1000, "")
        assert seen.texts == ["one"]


# -- resources


async def test_nagle_is_off(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, _, _):
        descriptor = peer._carrier.get_extra_info("socket").fileno()  # type: ignore[union-attr]
        with socket.socket(fileno=os.dup(descriptor)) as plain:
            assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("end", ["close", "reset", "violation"])
async def test_an_ended_connection_is_freed_without_the_garbage_collector(
    place: Place, certificates: Certificates, end: str
) -> None:
    gc.collect()
    gc.disable()
    try:
        async with connected(place, certificates, PATIENT) as (peer, seen, far):
            await far.send(far.text("hello"))
            await seen.until(lambda seen: bool(seen.messages))
            if end == "close":
                await far.send(far.closing(1000))
            elif end == "reset":
                far.reset()
            else:
                await far.send(far.frame(Opcode.CONT, b"x"))
                await far.receive_close()
                far.writer.close()
            await seen.until_closed()
            freed = [asyncio.Event(), asyncio.Event()]
            weakref.finalize(peer, freed[0].set)
            weakref.finalize(peer._frames, freed[1].set)
            del peer
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(event.wait() for event in freed))
    finally:
        gc.enable()


async def test_remote_address_names_the_other_end(place: Place, certificates: Certificates) -> None:
    async with connected(place, certificates) as (peer, _, far):
        assert peer.remote_address == far.writer.get_extra_info("sockname")
