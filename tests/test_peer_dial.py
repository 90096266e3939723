"""Dialling: what a server may answer, and how each refusal is told."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest
from peering import DEADLINE_S, Certificates, Far, Recorder, raw_server, switching
from serving import nobody_listens
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Opcode

from tornado_live.live.peer import DialError, DialFailed, DialRefused, DialTimedOut, WebSocketPeer, dial


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


async def answered(
    answer: bytes, *, end: bool = False, certificates: Certificates | None = None
) -> BaseException | None:
    """What `dial` raises when the server sends `answer` to the request."""
    async with raw_server(certificates) as server, asyncio.TaskGroup() as tasks:

        async def attempt() -> BaseException | None:
            try:
                peer = await dial(
                    server.url,
                    ssl_context=certificates.client if certificates else None,
                    open_timeout=DEADLINE_S,
                )
            except DialError as error:
                return error
            peer.abort()
            return None

        dialing = tasks.create_task(attempt())
        far, _ = await server.arrivals.get()
        await far.send(answer)
        if end:
            far.writer.close()
        error = await dialing
        await far.until_end()
        return error


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_tells_status_headers_and_body(
    certificates: Certificates, status: int, tls: bool
) -> None:
    body = b'{"error":{"status":"RESOURCE_EXHAUSTED"}}'
    error = await answered(
        b"HTTP/1.1 %d Sorry\r\nRetry-After: 7\r\nX-Two: a\r\nX-Two: b\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body),
        certificates=certificates if tls else None,
    )
    assert isinstance(error, DialRefused)
    assert (error.status, error.body) == (status, body)
    assert error.headers["retry-after"] == "7"
    assert error.headers["X-Two"] == "a,b"
    assert str(error) == f"the server answered with HTTP status {status}"


async def test_a_body_may_end_with_the_connection() -> None:
    error = await answered(b"HTTP/1.1 503 Sorry\r\n\r\nno length", end=True)
    assert isinstance(error, DialRefused)
    assert (error.status, error.body) == (503, b"no length")


async def test_a_redirect_is_a_refusal_and_not_followed() -> None:
    error = await answered(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    )
    assert isinstance(error, DialRefused)
    assert error.status == 302


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 100_000,
    ],
    ids=["not HTTP", "wrong accept", "another protocol", "endless header"],
)
async def test_an_answer_that_is_no_handshake_fails(answer: bytes) -> None:
    error = await answered(answer)
    assert isinstance(error, DialFailed)
    assert error.reason.startswith("the server's answer is not a WebSocket handshake")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Pro"])
async def test_a_connection_cut_during_the_handshake_fails(answer: bytes) -> None:
    assert isinstance(await answered(answer, end=True), DialFailed)


async def test_a_port_where_nobody_listens_fails() -> None:
    with nobody_listens() as port, pytest.raises(DialFailed, match="refused"):
        await dial(f"ws://127.0.0.1:{port}/")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ws:///x", "ws://127.0.0.1:99999/", "", "ws://h/#x"])
async def test_an_address_that_is_none_fails_without_being_repeated(url: str) -> None:
    with pytest.raises(DialFailed, match=r"^the address is not a ws:// or wss:// URL$"):
        await dial(url)


async def test_a_silent_server_times_out() -> None:
    async with raw_server() as server:
        with pytest.raises(DialTimedOut, match=r"0\.1 s"):
            await dial(server.url, open_timeout=0.1)
        far, _ = await server.arrivals.get()
        await far.until_end()


async def test_a_server_that_does_not_finish_tls_times_out() -> None:
    async with raw_server() as server:
        with pytest.raises(DialTimedOut):
            await dial(server.url.replace("ws:", "wss:"), open_timeout=0.1)


async def test_a_cancelled_dial_leaves_nothing_open() -> None:
    async with raw_server() as server:
        dialing = asyncio.get_running_loop().create_task(dial(server.url))
        far, _ = await server.arrivals.get()
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        await far.until_end()


async def test_a_certificate_from_nowhere_fails(certificates: Certificates) -> None:
    async with raw_server(certificates) as server:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's side of it
        with pytest.raises(DialFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await dial(server.url, ssl_context=ssl.create_default_context())


async def open_to(
    server_url: str, arrivals: asyncio.Queue[tuple[Far, bytes]], *behind: bytes
) -> WebSocketPeer:
    async with asyncio.TaskGroup() as tasks:
        dialing = tasks.create_task(dial(server_url, headers={"x-goog-api-key": "secret"}))
        far, head = await arrivals.get()
        await far.send(switching(head), *behind)
    return dialing.result()


async def test_frames_in_the_segment_of_the_handshake_are_not_lost() -> None:
    async with raw_server() as server:
        far = Far(None, None, masks=False)  # type: ignore[arg-type]
        peer = await open_to(
            server.url, server.arrivals, far.text("one"), far.text("two"), far.text("cut")[:2]
        )
        seen = Recorder()
        peer.attach(seen)
        await seen.until(lambda seen: len(seen.messages) == 2)
        assert seen.texts == ["one", "two"]
        peer.abort()
        await seen.until_closed()


async def test_a_close_in_the_segment_of_the_handshake_is_told() -> None:
    async with raw_server() as server:
        far = Far(None, None, masks=False)  # type: ignore[arg-type]
        peer = await open_to(server.url, server.arrivals, far.text("one"), far.closing(1008, "no key"))
        seen = Recorder()
        peer.attach(seen)
        assert await seen.until_closed() == (1008, "no key")
        assert seen.texts == ["one"]


async def test_the_request_has_the_given_headers_and_offers_no_compression() -> None:
    async with raw_server() as server:
        async with asyncio.TaskGroup() as tasks:
            dialing = tasks.create_task(dial(server.url + "path?a=b", headers={"x-goog-api-key": "secret"}))
            far, head = await server.arrivals.get()
            await far.send(switching(head))
        lines = head.decode().split("\r\n")
        assert lines[0] == "GET /path?a=b HTTP/1.1"
        assert "x-goog-api-key: secret" in lines
        assert f"Host: 127.0.0.1:{server.port}" in lines
        assert not any(line.lower().startswith("sec-websocket-extensions") for line in lines)
        seen = Recorder()
        dialing.result().attach(seen)
        dialing.result().abort()
        await seen.until_closed()


async def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="x-goog-api-key"):
        await dial("ws://127.0.0.1:9/", headers={"x-goog-api-key": "secret\r\nX: y"})


async def test_neither_key_nor_payload_is_logged_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_server() as server:
        far = Far(None, None, masks=False)  # type: ignore[arg-type]
        peer = await open_to(server.url, server.arrivals, far.text("private words"))
        seen = Recorder()
        peer.attach(seen)
        peer.send_text("private answer")
        await seen.until(lambda seen: bool(seen.messages))
        peer.abort()
        await seen.until_closed()
    assert "secret" not in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize("tls", [False, True])
async def test_a_real_server_and_a_dialled_peer_talk_and_part(certificates: Certificates, tls: bool) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, ssl=certificates.server if tls else None) as server:
        port = server.sockets[0].getsockname()[1]
        peer = await dial(
            f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/", ssl_context=certificates.client if tls else None
        )
        seen = Recorder()
        peer.attach(seen)
        sent = [(b"x" * size, size % 2 == 1) for size in (0, 1, 125, 126, 65_535, 65_536, 300_001)]
        for data, binary in sent:
            (peer.send_binary if binary else peer.send_text)(data)
        await seen.until(lambda seen: len(seen.messages) == len(sent))
        assert seen.messages == sent
        peer.close(4000, "done")
        assert await seen.until_closed() == (4000, "done")


async def test_a_real_server_that_goes_away_is_told() -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.send("bye")
        await connection.close(1001, "restart")

    async with serve(leave, "127.0.0.1", 0) as server:
        peer = await dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        seen = Recorder()
        peer.attach(seen)
        assert await seen.until_closed() == (1001, "restart")
        assert seen.messages == [(b"bye", False)]


async def test_opcodes_are_those_of_the_library() -> None:
    """The hot path compares opcodes by identity; that holds while the library makes them by its enum."""
    assert Opcode(1) is Opcode.TEXT
