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
        begun = [await client.until("tool_call") for _ in range(1)]
        ended = [await client.until("tool_result")]
        begun.append(await client.until("tool_call"))
        ended.append(await client.until("tool_result"))
        spoken = await client.until("transcription", lambda data: data["isFinal"] and not data["isUser"])
        assert spoken["text"] == "Ordered: 1."
        first, second = begun
        assert first["id"] != second["id"]
        assert [one.get("sameAs") for one in (*begun, *ended)] == [None, first["id"]] * 2
        assert [one["id"] for one in ended] == [first["id"], second["id"]]
        assert [one["args"] for one in begun] == [{"item": "pen"}] * 2
        assert ended[0]["summary"] == ended[1]["summary"]
        made, answered = await ledger(server, client)
        assert (made["id"], answered["id"], answered["sameAs"]) == (first["id"], second["id"], first["id"])
        for key in ("name", "turn", "state", "argsDigest", "answerDigest", "ok", "delivered"):
            assert made[key] == answered[key]
        assert answered["state"] == "finished"
        assert "sameAs" not in made


async def test_what_is_bound_is_named_to_nobody_whatever_the_model_sends(tmp_path: Path) -> None:
    async with talking(tmp_path) as (server, client):
        await client.send("text", {"text": "Order from a shelf"})
        ended = await client.until("tool_result")
        assert ended["error"] == "invalid_arguments"
        assert ended["summary"].startswith('There are no parameters "shelf_mark", "colour"')
        assert ended["summary"].endswith("(the parameters are item)")
        async with httpx.AsyncClient(base_url=server.url) as http:
            asked = {"args": {"item": 7}}
            answer = await http.post("/api/tools/order/invoke", json=asked)
            assert answer.json()["error"]["code"] == "invalid_arguments"
            assert "shelf_mark" not in answer.text + (await http.get("/api/tools")).text


async def test_a_result_is_no_consent_and_the_question_stays_open(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, client):
        await client.send("text", {"text": "Please pay"})
        call = await client.until("tool_call")
        assert call["confirm"]
        await client.send("tool_result", {"id": call["id"], "response": {"paid": 3}})
        refused = await client.until("error")
        assert refused["code"] == "bad_message"
        assert "tool_confirm" in refused["message"]
        await client.send("tool_confirm", {"id": call["id"], "ok": True})
        ended = await client.until("tool_result")
        assert (ended["id"], ended["ok"]) == (call["id"], True)


async def test_consent_is_no_result_and_the_call_stays_open(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, client):
        await client.send("text", {"text": "The lamp"})
        call = await client.until("tool_call")
        assert call["client"]
        await client.send("tool_confirm", {"id": call["id"], "ok": True})
        refused = await client.until("error")
        assert refused["code"] == "bad_message"
        assert "tool_result" in refused["message"]
        await client.send("tool_result", {"id": call["id"], "response": {"now": "on"}})
        ended = await client.until("tool_result")
        assert (ended["id"], ended["ok"], ended["summary"]) == (call["id"], True, "now: on")
