"""Handles of ours: given to clients that ask for resumption, and good for as long as their session is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from dropin.compare import spellings
from dropin.conftest import Gateway, made, unbroken
from dropin.model import Line, ModelSide
from dropin.wire import Guest, Message, guest, method, words

THEIRS = "handle-of-the-model-side"
CONSTRAINED = method("v1alpha", constrained=True)


async def handle(client: Guest) -> str:
    """The next one that the client is given."""
    update = (await client.until(lambda message: "sessionResumptionUpdate" in message))[-1]
    given: Message = update["sessionResumptionUpdate"]
    assert given["resumable"] is True
    name: str = given["newHandle"]
    return name


async def begun(client: Guest, model: ModelSide, *, wanted: str | None = None, **setup: Any) -> Line:
    """A conversation of a client that wants handles; its first answer is setupComplete."""
    await client.send({"setup": model.setup(sessionResumption={"handle": wanted} if wanted else {}, **setup)})
    line = await model.dialled()
    await line.ready(THEIRS)
    assert (await client.next()).keys() == {"setupComplete"}
    return line


async def turn(client: Guest, line: Line, asked: str) -> str:
    await client.say(asked)
    await line.typed(asked)
    await line.say(f"As for {asked}")
    await line.resumable(THEIRS)
    return words(await client.turn())


async def test_a_handle_comes_after_the_setup_and_after_every_turn(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, guest(gateway.url) as client:
        line = await begun(client, model)
        given = [await handle(client)]
        for asked in ("one", "two", "three"):
            await turn(client, line, asked)
            given.append(await handle(client))
        everything = b"".join(
            frame.encode() if isinstance(frame, str) else frame for frame in client.received
        )
    assert not any(written in everything for written in spellings(THEIRS))
    assert all(len(each) >= 32 for each in given)


@pytest.mark.parametrize("end", ["1000", "1011", "cut"])
async def test_a_handle_leads_back_however_the_connection_ended(gateway: Gateway, end: str) -> None:
    async with ModelSide(gateway.port) as model:
        async with guest(gateway.url) as client:
            line = await begun(client, model)
            await handle(client)
            await turn(client, line, "one")
            given = await handle(client)
            if end == "cut":
                client.socket.transport.abort()
            else:
                await client.socket.close(int(end))
        async with guest(gateway.url) as client:
            await client.send({"setup": model.setup(sessionResumption={"handle": given})})
            async with asyncio.TaskGroup() as group:
                welcomed = group.create_task(client.next())
                # The conversation may still have its line to the model side.
                dialled = group.create_task(model.dialled())
                await asyncio.wait([dialled, welcomed], return_when=asyncio.FIRST_COMPLETED)
                if dialled.done():
                    line = dialled.result()
                    await line.ready(THEIRS)
                else:
                    dialled.cancel()
            assert welcomed.result().keys() == {"setupComplete"}
            assert await turn(client, line, "two") == "As for two"
            assert await handle(client)
        session = await newest(gateway.url)
    assert session["messageCount"] == 4


async def newest(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        listed: list[dict[str, Any]] = (await http.get("/api/sessions")).json()["sessions"]
    return max(listed, key=lambda session: str(session["createdAt"]))


async def test_a_handle_outlives_a_restart_of_the_gateway(tmp_path: Path, port: int) -> None:
    async with ModelSide(port) as model:
        async with made(tmp_path, port) as server, guest(server.url) as client:
            line = await begun(client, model)
            await handle(client)
            await turn(client, line, "one")
            given = await handle(client)
        unbroken(server)
        async with made(tmp_path, port) as server:
            async with guest(server.url) as client:
                line = await begun(client, model, wanted=given)
                assert await turn(client, line, "two") == "As for two"
                assert line.handle == THEIRS or "As for one" in str([line.setup, *line.frames])
            session = await newest(server.url)
            assert session["messageCount"] == 4
        unbroken(server)


@pytest.mark.parametrize("name", ["of-nobody", THEIRS, "auth_tokens/0", "ü ☕", "x" * 5_000])
async def test_a_handle_of_nobody_closes_with_1008(gateway: Gateway, name: str) -> None:
    async with ModelSide(gateway.port) as model, guest(gateway.url) as client:
        await client.send({"setup": model.setup(session_resumption={"handle": name})})
        code, reason = await client.closed()
    assert code == 1008
    assert 0 < len(reason.encode()) <= 123
    assert client.received == []


async def test_a_handle_of_a_session_that_was_deleted_closes_with_1008(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model:
        async with guest(gateway.url) as client:
            await begun(client, model)
            given = await handle(client)
            session = (await newest(gateway.url))["sessionId"]
            async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
                await http.delete(f"/api/sessions/{session}")
            code, reason = await client.closed()
            assert code == 1008
            assert 0 < len(reason.encode()) <= 123
        async with guest(gateway.url) as client:
            await client.send({"setup": model.setup(sessionResumption={"handle": given})})
            assert (await client.closed())[0] == 1008


async def test_a_handle_is_no_token_and_a_token_no_handle(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, guest(gateway.url) as client:
        await begun(client, model)
        given = await handle(client)
        async with guest(gateway.url, f"/{CONSTRAINED}?access_token={given}", headers={}) as other:
            assert (await other.closed())[0] == 1008  # before it could send anything
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            token = (await http.post("/v1alpha/auth_tokens", json={"uses": 0})).json()["name"]
        async with guest(gateway.url) as other:
            await other.send({"setup": model.setup(sessionResumption={"handle": token})})
            assert (await other.closed())[0] == 1008
