"""F40: the proxy in front cuts the line: it is reloaded, restarted, or has had nothing to pass on for too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from nginx import Nginx
from talking import Talker
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import Talk, serving

QUICK = {"proxy_read_timeout 60s;": "proxy_read_timeout 2s;"}
RELOADED_SOON = {"worker_shutdown_timeout 10m;": "worker_shutdown_timeout 200ms;"}


def through(proxy: Nginx, session: str = "") -> Talker:
    return Talker(f"{proxy.ws_url}/ws{session and f'?sessionId={session}'}", tls=proxy.tls)


@contextlib.asynccontextmanager
async def talking(gateway: Gateway, proxy: Nginx, model: ModelSide) -> AsyncIterator[Talk]:
    """A conversation through nginx that has had a turn, and is in the middle of the next one."""
    async with through(proxy) as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        talk = Talk(gateway.server, client, line)
        await talk.turn("What is nine?", "A number.")
        await client.send("text", {"text": "And ten?"})
        assert await line.typed() == "And ten?"
        yield talk


async def goes_on(talk: Talk, proxy: Nginx, model: ModelSide) -> None:
    """Whoever comes back finds the same conversation, the same line to the model, and what was under way."""
    async with through(proxy, talk.session) as client:
        back = await client.until("status", lambda data: data["status"] == "CONNECTED")
        assert back["resumed"] is True
        await talk.line.say("One more.", bytes(4800))
        await client.until("turn_complete", lambda data: data["turn"] == 2)
        assert client.audio
    assert model.handshakes == 1
    assert await talk.memory() == [
        ("user", "What is nine?"),
        ("model", "A number."),
        ("user", "And ten?"),
        ("model", "One more."),
    ]


@pytest.mark.proves("F40")
async def test_a_reload_of_the_proxy_cuts_nobody(gateway: Gateway) -> None:
    async with (
        ModelSide(gateway.port) as model,
        Nginx(gateway.server.port) as proxy,
        talking(gateway, proxy, model) as talk,
    ):
        await proxy.reload()
        await talk.line.say("One more.", bytes(4800))
        await talk.client.until("turn_complete", lambda data: data["turn"] == 2)
        async with through(proxy) as another:
            await another.send("ping", {"n": 1})
            assert await another.until("pong") == {"n": 1}


@pytest.mark.proves("F40")
async def test_who_is_cut_once_the_old_workers_have_waited_long_enough_goes_on(gateway: Gateway) -> None:
    async with (
        ModelSide(gateway.port) as model,
        Nginx(gateway.server.port, changes=RELOADED_SOON) as proxy,
        talking(gateway, proxy, model) as talk,
    ):
        await proxy.reload()
        assert await talk.client.closed() == (1006, "")
        await goes_on(talk, proxy, model)


@pytest.mark.proves("F40")
async def test_who_is_cut_by_a_restart_of_the_proxy_goes_on(gateway: Gateway) -> None:
    async with (
        ModelSide(gateway.port) as model,
        Nginx(gateway.server.port) as proxy,
        talking(gateway, proxy, model) as talk,
    ):
        await proxy.restart()
        assert await talk.client.closed() == (1006, "")
        await goes_on(talk, proxy, model)


@pytest.mark.proves("F40")
async def test_who_is_cut_by_a_proxy_that_waits_less_than_the_pings_take_goes_on(gateway: Gateway) -> None:
    """The server's pings come every 20 s; this proxy gives up after two."""
    async with (
        ModelSide(gateway.port) as model,
        Nginx(gateway.server.port, changes=QUICK) as proxy,
        talking(gateway, proxy, model) as talk,
    ):
        assert await talk.client.closed() == (1006, "")
        await goes_on(talk, proxy, model)


class Pinged(ClientConnection):
    """Says when the server has sent a ping."""

    pings: asyncio.Queue[None]

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.put_nowait(None)
        super().process_event(event)


@pytest.mark.proves("F40")
async def test_pings_keep_a_silent_line_open_for_longer_than_the_proxy_waits() -> None:
    """The same proxy, and pings every 0.4 s: fifteen of them are six seconds, three times as long as it waits."""
    async with (
        ModelSide() as model,
        serving(model.port, "--set", "limits.client_ping_s=0.4") as server,
        Nginx(server.port, changes=QUICK) as proxy,
        connect(f"{proxy.ws_url}/ws", ssl=proxy.tls, proxy=None, create_connection=Pinged) as client,
    ):
        client.pings = asyncio.Queue()
        await client.send('{"type": "connect"}')
        line = await model.dialled()
        await line.ready()
        while b'"CONNECTED"' not in await client.recv(decode=False):
            pass
        for _ in range(15):
            await client.pings.get()
        await client.send('{"type": "text", "data": {"text": "Still there?"}}')
        assert await line.typed() == "Still there?"
        await line.say("Yes.", bytes(4800))
        while b'"turn_complete"' not in await client.recv(decode=False):
            pass


@pytest.mark.proves("F40")
async def test_a_proxy_that_buffers_answers_holds_no_speech_back(gateway: Gateway) -> None:
    buffering = {"proxy_buffering off;": "proxy_buffering on;"}
    async with (
        ModelSide(gateway.port) as model,
        Nginx(gateway.server.port, changes=buffering) as proxy,
        talking(gateway, proxy, model) as talk,
    ):
        for number in range(20):
            await talk.line.say(f" {number}", bytes(1920), complete=False)
            assert (await talk.client.until("transcription"))["text"] == f" {number}"
