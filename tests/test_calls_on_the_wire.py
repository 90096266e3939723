"""Function calls as a client of the native protocol meets them: the real server, the simulator, and tools."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
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
"""
COUNTER = """\
orders = []


async def order(item, shelf_mark):
    orders.append(item)
    return {"item": item, "orders": len(orders)}


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
