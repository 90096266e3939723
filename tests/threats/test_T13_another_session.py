"""T13: messages, sockets and handles that name somebody else's session."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from accessing import ASKING, api_key, bearer
from faults.model import ModelLine, ModelSide
from faults.nodes import shared_file
from faults.stage import Talk, environment, unbroken
from serving import Server
from talking import Talker
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from threats.raw import GUEST, SETUP
from tornado_live.wire.native import TYPES

DATA: Mapping[str, dict[str, Any]] = {
    "connect": {"voice": "Kore"},
    "audio": {"data": base64.b64encode(b"overheard" * 64).decode()},
    "text": {"text": "Words of a stranger."},
    "video": {"data": base64.b64encode(b"\xff\xd8\xff").decode()},
    "tool_result": {"id": "call", "response": {}},
    "tool_confirm": {"id": "call", "ok": True},
}


@contextlib.asynccontextmanager
async def entered(server: Server, model: ModelSide, key: str) -> AsyncIterator[Talk]:
    async with Talker(f"{server.ws_url}/", headers=bearer(key)) as client:
        await client.send("connect")
        line = await model.dialled()
        await line.ready("h1")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        yield Talk(server, client, line)


def words(line: ModelLine) -> list[str]:
    """All that was sent up, which is nothing but what was typed."""
    return [
        part["text"] for one in line.got for turn in one["clientContent"]["turns"] for part in turn["parts"]
    ]


async def guest_with(server: Server, key: str, handle: str | None) -> tuple[int, str] | str:
    """How a guest is closed that shows the handle; without a refusal, the handle that is good from then on."""
    url = server.url.replace("http", "ws") + GUEST
    async with connect(
        url, proxy=None, compression=None, additional_headers={"x-goog-api-key": key}
    ) as guest:
        resumption = {} if handle is None else {"handle": handle}
        await guest.send(json.dumps({"setup": {**SETUP["setup"], "sessionResumption": resumption}}))
        try:
            while True:
                message = json.loads(await guest.recv())
                if "setupComplete" in message and handle is not None:
                    return handle
                if "sessionResumptionUpdate" in message:
                    given: str = message["sessionResumptionUpdate"]["newHandle"]
                    return given
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else (1006, "")


@pytest.fixture
def shared(tmp_path: Path) -> Mapping[str, str]:
    return shared_file(tmp_path)


@pytest.mark.proves("T13")
async def test_no_message_socket_or_handle_reaches_a_session_of_somebody_else(
    shared: Mapping[str, str],
) -> None:
    async with ModelSide() as model, Server(environ=environment(model.port) | shared | ASKING) as server:
        ann, bob = await api_key(shared, "ann", user="ann"), await api_key(shared, "bob", user="bob")
        async with entered(server, model, ann) as hers, entered(server, model, bob) as his:
            await hers.turn("I am Ann.", "Hello Ann.")
            told = len(hers.client.seen)
            for kind in TYPES:
                await his.client.send(kind, DATA.get(kind), sessionId=hers.session)
                error = await his.client.until("error")
                assert (kind, error["code"]) == (kind, "session_mismatch")
            for wrong in ("", "nobody's", his.session.swapcase(), his.session + " "):
                await his.client.send("ping", sessionId=wrong)
                assert (await his.client.until("error"))["code"] == "session_mismatch"
            await his.client.send("ping", "still here", sessionId=his.session)
            await his.client.until("pong")

            async with Talker(f"{server.ws_url}/?sessionId={hers.session}", headers=bearer(bob)) as taker:
                theirs = await taker.closed()
            async with Talker(f"{server.ws_url}/?sessionId=nobody's", headers=bearer(bob)) as taker:
                assert await taker.closed() == theirs
            assert theirs[0] == 4404

            await his.turn("I am Bob.", "Hello Bob.")
            await hers.turn("Am I alone?", "You are.")
            news = [
                message["data"] for message in hers.client.seen[told:] if message["type"] == "transcription"
            ]
            assert {said["text"].strip() for said in news} == {"You are."}
            assert all(message["sessionId"] == hers.session for message in hers.client.seen)
            assert words(hers.line) == ["I am Ann.", "Am I alone?"]
            assert words(his.line) == ["I am Bob."]
        unbroken(server)


@pytest.mark.proves("T13")
async def test_a_handle_of_somebody_else_is_one_that_nobody_has(shared: Mapping[str, str]) -> None:
    async with ModelSide() as model, Server(environ=environment(model.port) | shared | ASKING) as server:
        ann, bob = await api_key(shared, "ann", user="ann"), await api_key(shared, "bob", user="bob")

        async def serve() -> None:
            while True:
                line = await model.dialled()
                await line.ready("h1")

        accepting = asyncio.get_running_loop().create_task(serve())
        try:
            handle = await guest_with(server, ann, None)
            assert isinstance(handle, str)
            assert await guest_with(server, bob, handle) == await guest_with(server, bob, "nobody's")
            assert isinstance(await guest_with(server, bob, handle), tuple)
            assert await guest_with(server, ann, handle) == handle
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
        unbroken(server)
