"""The proxy that breaks lines: each fault by itself, against a plain echo."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from faults.proxy import Proxy, Way

TEXT = bytes(range(256)) * 8


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def through(proxy: Proxy, data: bytes = TEXT) -> tuple[bytes, type[BaseException] | None]:
    """What came back of `data`, and how the line ended before all of it did."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    came = bytearray()
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            while len(came) < len(data):
                piece = await reader.read(65536)
                if not piece:
                    return bytes(came), EOFError
                came += piece
    except ConnectionError as error:
        return bytes(came), type(error)
    else:
        return bytes(came), None
    finally:
        writer.transport.abort()


async def test_without_faults_it_passes_and_counts_everything() -> None:
    async with echo() as port, Proxy(port) as proxy:
        assert await through(proxy) == (TEXT, None)
        (line,) = proxy.lines
        assert (line.up.passed, line.down.passed, proxy.log) == (len(TEXT), len(TEXT), [])
        await asyncio.wait_for(line.ended.wait(), 10)
        assert proxy.open_lines == []


async def test_slices_and_jitter_keep_the_bytes_and_their_order() -> None:
    way = Way(slices=100, jitter_s=0.002)
    async with echo() as port, Proxy(port, plan=lambda number: (way, way)) as proxy:
        assert await through(proxy) == (TEXT, None)


async def test_latency_and_bandwidth_take_their_time() -> None:
    way = Way(latency_s=0.1, bytes_per_s=len(TEXT) / 0.2)
    async with echo() as port, Proxy(port, plan=lambda number: (Way(), way)) as proxy:
        start = time.monotonic()
        assert await through(proxy) == (TEXT, None)
        assert time.monotonic() - start >= 0.3


async def test_a_reset_comes_in_place_of_its_byte() -> None:
    async with echo() as port, Proxy(port, plan=lambda number: (Way(), Way(reset_at=1000))) as proxy:
        came, end = await through(proxy)
        assert end is ConnectionResetError
        assert came == TEXT[: len(came)]
        assert len(came) <= 1000
        assert [(decision.what, decision.at) for decision in proxy.log] == [("reset", 1000)]


async def test_a_reset_within_a_text_passes_half_of_it() -> None:
    async with echo() as port, Proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        line = await proxy.arrived(0)
        line.down.reset_within(b"the end")
        writer.write(b"before the")
        assert await reader.readexactly(10) == b"before the"
        line.down.reset_within(b"the end")
        writer.write(b", the end, after")
        assert b", the".startswith(await reader.read(100))
        with pytest.raises(ConnectionResetError):
            await reader.read(100)
        assert line.down.passed == len(b"before the, the")
        writer.transport.abort()


async def test_a_reset_of_one_end_reaches_the_other() -> None:
    async with echo() as port, Proxy(port) as outer, Proxy(outer.port) as inner:
        reader, writer = await asyncio.open_connection("127.0.0.1", inner.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        outer.lines[0].reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(100)
        writer.transport.abort()


async def test_a_drop_ends_the_line_after_its_byte() -> None:
    async with echo() as port, Proxy(port, plan=lambda number: (Way(), Way(drop_at=1000))) as proxy:
        assert await through(proxy) == (TEXT[:1000], EOFError)


async def test_a_stalled_line_is_open_and_silent_until_it_is_released() -> None:
    async with echo() as port, Proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        line = await proxy.arrived(0)
        line.stall()
        writer.write(b"held")
        assert not line.ended.is_set()
        assert (line.up.passed, line.down.passed) == (0, 0)
        line.up.release()
        line.down.release()
        assert await reader.readexactly(4) == b"held"
        writer.transport.abort()


async def test_a_black_hole_reads_everything_and_passes_nothing() -> None:
    async with echo() as port, Proxy(port) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        line = await proxy.arrived(0)
        line.swallow()
        writer.write(bytes(8_000_000))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert line.up.passed == 0


async def test_flips_are_few_and_the_same_for_the_same_seed() -> None:
    async with echo() as port:
        broken = []
        for seed in (1, 1, 2):
            way = Way(flip_every=300, flip_from=500)
            async with Proxy(port, plan=lambda number, way=way: (Way(), way), seed=seed) as proxy:
                came, end = await through(proxy)
                assert (len(came), end) == (len(TEXT), None)
                assert came[:500] == TEXT[:500]
                assert sum(one != other for one, other in zip(came, TEXT, strict=True)) == len(proxy.log)
                assert proxy.log
                broken.append(came)
        assert broken[0] == broken[1] != broken[2]


async def test_a_refusing_proxy_keeps_its_lines_and_its_port() -> None:
    async with echo() as port, Proxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.arrived(0)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        await proxy.listen()
        assert await through(proxy) == (TEXT, None)
        writer.transport.abort()


async def test_a_deaf_proxy_takes_connections_and_never_answers() -> None:
    async with echo() as port, Proxy(port) as proxy:
        proxy.deafen()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"anyone?")
        line = await proxy.arrived(0)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(line.ended.wait(), 10)
        assert line.down.passed == 0


async def test_it_reads_the_messages_of_a_websocket_along() -> None:
    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    sent = [{"n": 1}, {"text": "x" * 200}, {"text": "y" * 70_000}]
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        way = Way(slices=5000)
        async with (
            Proxy(port, plan=lambda number: (way, way), taps=True) as proxy,
            connect(f"ws://127.0.0.1:{proxy.port}/", proxy=None, compression=None) as client,
        ):
            await client.send('{"n": 1}')
            await client.send(b'{"text": "' + b"x" * 200 + b'"}')
            await client.send(['{"text": "', "y" * 70_000, '"}'])
            for _ in sent:
                await client.recv()
            (line,) = proxy.lines
            assert line.up.messages.seen == sent
            await proxy.until(lambda: line.down.messages.seen == sent)
