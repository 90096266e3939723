"""Function calls as a client of the native protocol meets them: the real server, the simulator, and tools."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from serving import ROOT, Server
from talking import Talker

TOOLS = """\
version: 1
tools:
  order:
    description: Orders an article.
    parameters: {type: object, properties: {item: {type: string}}, required: [item]}
    side_effects: true
    bind: {shelf_mark: session.user}
    python: counter:order
  pay:
    description: Pays.
    parameters: {type: object, properties: {sum: {type: integer}}, required: [sum]}
    python: counter:pay
    confirm: true
  lamp:
    description: Switches the lamp.
    parameters: {type: object, properties: {on: {type: boolean}}, required: [on]}
    client: true
  send:
    description: Sends a letter.
    parameters: {type: object, properties: {}}
    side_effects: true
    python: counter:send
  file:
    description: Files a letter.
    parameters: {type: object, properties: {}}
    on_interrupt: detach
    python: counter:file
"""
COUNTER = """\
import asyncio
import pathlib

orders = []
home = pathlib.Path(__file__).parent


async def send():
    await asyncio.sleep(60)


async def file():
    while not (home / "may-end").exists():
        await asyncio.sleep(0.02)
    return "filed"


async def order(item, shelf_mark):
    orders.append(item)
    return {"item": item, "orders": len(orders)}


async def jump(shelf_mark):
    return "jumped"


async def pay(sum):
    return {"paid": sum}
"""
SCENARIO: dict[str, Any] = {
    "turns": [
        {
            "typed": "twice",
            "do": [
                {"call": {"name": "order", "args": {"item": "pen"}}},
                {"call": {"name": "order", "args": {"item": "pen"}}},
                {"say": "Ordered: {order.result.orders}.", "seconds": 0.1},
            ],
        },
        {
            "typed": "shelf",
            "do": [
                {"call": {"name": "order", "args": {"item": "pen", "shelf_mark": "x", "colour": "red"}}},
                {"say": "No.", "seconds": 0.1},
            ],
        },
        {
            "typed": "pay",
            "do": [
                {"call": {"name": "pay", "args": {"sum": 3}}},
                {"say": "Paid: {pay.result.paid}.", "seconds": 0.1},
            ],
        },
        {
            "typed": "lamp",
            "do": [
                {"call": {"name": "lamp", "args": {"on": True}}},
                {"say": "It is {lamp.result.now}.", "seconds": 0.1},
            ],
        },
        {"typed": "send", "do": [{"call": {"name": "send", "args": {}}}, {"say": "Sent.", "seconds": 0.1}]},
        {"typed": "file", "do": [{"call": {"name": "file", "args": {}}}, {"say": "Filed.", "seconds": 0.1}]},
        {"typed": "jump", "do": [{"call": {"name": "jump", "args": {}}}, {"say": "Done.", "seconds": 0.1}]},
    ]
}


@contextlib.asynccontextmanager
async def talking(home: Path) -> AsyncIterator[tuple[Server, Talker]]:
    (home / "tools.yaml").write_text(TOOLS)
    (home / "counter.py").write_text(COUNTER)
    (home / "scenario.yaml").write_text(yaml.safe_dump(SCENARIO, sort_keys=False))
    async with Server(
        *("--scenario", str(home / "scenario.yaml"), "--set", "handler_prefixes=counter"),
        home=home,
        environ={"PYTHONPATH": f"{home}:{ROOT}"},
    ) as server:
        assert server.ws_url is not None
        async with Talker(server.ws_url) as client:
            await client.connected()
            yield server, client


async def ledger(server: Server, client: Talker) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.get(f"/api/sessions/{client.seen[0]['sessionId']}/calls")
    calls: list[dict[str, Any]] = answer.json()["calls"]
    return calls


async def test_an_order_that_comes_twice_is_made_once_and_both_calls_are_told_and_listed(
    tmp_path: Path,
) -> None:
    async with talking(tmp_path) as (server, client):
        await client.send("text", {"text": "Order twice"})
        first = await client.until("tool_call")
        made = await client.until("tool_result")
        second = await client.until("tool_call")
        answered = await client.until("tool_result")
        spoken = await client.until("transcription", lambda data: data["isFinal"] and not data["isUser"])
        assert spoken["text"] == "Ordered: 1."
        assert first["id"] == made["id"] != second["id"] == answered["id"]
        assert [one.get("sameAs") for one in (first, made, second, answered)] == [
            None,
            None,
            *[first["id"]] * 2,
        ]
        assert first["args"] == second["args"] == {"item": "pen"}
        assert made["summary"] == answered["summary"]
        listed = await ledger(server, client)
        assert [(one["id"], one.get("sameAs")) for one in listed] == [
            (first["id"], None),
            (second["id"], first["id"]),
        ]
        for key in ("name", "turn", "state", "argsDigest", "answerDigest", "ok", "delivered"):
            assert listed[0][key] == listed[1][key]
        assert listed[1]["state"] == "finished"
        await client.until("turn_complete")
        await what_is_bound_is_named_to_nobody(server, client)


async def what_is_bound_is_named_to_nobody(server: Server, client: Talker) -> None:
    """Whatever the model sends."""
    await client.send("text", {"text": "Order from a shelf"})
    ended = await client.until("tool_result")
    assert ended["error"] == "invalid_arguments"
    assert ended["summary"].startswith('There are no parameters "shelf_mark", "colour"')
    assert ended["summary"].endswith("(the parameters are item)")
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post("/api/tools/order/invoke", json={"args": {"item": 7}})
        assert answer.json()["error"]["code"] == "invalid_arguments"
        assert "shelf_mark" not in answer.text + (await http.get("/api/tools")).text


async def test_a_result_is_no_consent_consent_no_result_and_the_question_stays_open(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, client):
        for asked, kind, wrong, right in (
            (
                "Please pay",
                "confirm",
                ("tool_result", {"response": {"paid": 3}}),
                ("tool_confirm", {"ok": True}),
            ),
            (
                "The lamp",
                "client",
                ("tool_confirm", {"ok": True}),
                ("tool_result", {"response": {"now": "on"}}),
            ),
        ):
            await client.send("text", {"text": asked})
            call = await client.until("tool_call")
            assert call[kind]
            await client.send(wrong[0], {"id": call["id"], **wrong[1]})
            refused = await client.until("error")
            assert refused["code"] == "bad_message"
            assert f"send {right[0]} with" in refused["message"]
            await client.send(right[0], {"id": call["id"], **right[1]})
            ended = await client.until("tool_result")
            assert (ended["id"], ended["ok"]) == (call["id"], True)
            assert ended["summary"] == {"confirm": "paid: 3", "client": "now: on"}[kind]
            await client.until("turn_complete")


async def memory(server: Server, session: str) -> list[str]:
    """The lines of tools."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.get(f"/api/sessions/{session}?include=memory")
    return [item["text"] for item in answer.json()["memory"] if item["role"] == "tool"]


async def test_who_disconnects_while_a_letter_is_sent_finds_that_it_may_have_gone(tmp_path: Path) -> None:
    async with talking(tmp_path) as (server, client):
        await client.send("text", {"text": "Please send it"})
        call = await client.until("tool_call")
        await client.send("disconnect")
        await client.until("tool_cancelled")
        await client.until("status", lambda data: data["status"] == "DISCONNECTED")
        assert await memory(server, client.seen[0]["sessionId"]) == [
            "send({}): broken off while it ran. It may have been done all the same"
        ]
        (row,) = await ledger(server, client)
        assert (row["id"], row["state"], row["mayBeDone"]) == (call["id"], "cancelled", True)


@pytest.mark.parametrize("closes", [False, True])
async def test_what_is_to_be_finished_is_finished_and_remembered_though_the_user_left(
    tmp_path: Path, closes: bool
) -> None:
    async with talking(tmp_path) as (server, client):
        await client.send("text", {"text": "Please file it"})
        await client.until("tool_call")
        await (client.connection.close() if closes else client.send("disconnect"))
        async with httpx.AsyncClient(base_url=server.url) as http:
            session = client.seen[0]["sessionId"]
            while closes and (await http.get(f"/api/sessions/{session}")).json()["connected"]:
                pass
        if not closes:
            await client.until("status", lambda data: data["status"] == "DISCONNECTED")
        assert [row["state"] for row in await ledger(server, client)] == ["running"]
        (tmp_path / "may-end").touch()
        while [row["state"] for row in await ledger(server, client)] != ["finished"]:
            pass
        (row,) = await ledger(server, client)
        assert (row["ok"], row["delivered"]) == (True, "remembered")
        while not await memory(server, session):
            pass
        assert await memory(server, session) == ["file({}): filed"]


async def test_a_conversation_that_connects_again_has_the_tools_that_there_are_now(tmp_path: Path) -> None:
    async with talking(tmp_path) as (server, client):
        file = tmp_path / "tools.yaml"
        file.write_text(
            TOOLS.replace("  order:", "  jump:")
            .replace("counter:order", "counter:jump")
            .replace("item: {type: string}", "")
            .replace("[item]", "[]")
        )
        async with httpx.AsyncClient(base_url=server.url) as http:
            while "jump" not in (await http.get("/api/tools")).text:
                pass
        await client.send("text", {"text": "Order twice"})
        assert (await client.until("tool_result"))["ok"], "what is live keeps what it began with"
        await client.until("turn_complete")
        await client.send("disconnect")
        await client.until("status", lambda data: data["status"] == "DISCONNECTED")
        await client.connected()
        await client.send("text", {"text": "Please jump"})
        call = await client.until("tool_call")
        assert call["name"] == "jump"
