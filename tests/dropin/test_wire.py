"""The doors, the frames and the closes of the drop-in endpoint, as seen on the raw wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from serving import Server
from websockets.exceptions import InvalidStatus

from dropin.conftest import UPSTREAM_KEY, Gateway
from dropin.model import Gate, ModelSide, talking
from dropin.wire import KEY, Guest, guest, method

BINARY = b"\xfb\xff\xfe"


@asynccontextmanager
async def opening(gateway: Gateway, path: str = "", **options: Any) -> AsyncIterator[tuple[Guest, ModelSide]]:
    async with ModelSide(gateway.port) as model, guest(gateway.url, path, **options) as client:
        yield client, model


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
@pytest.mark.parametrize("slashes", ["/", "//", "///"])
async def test_every_version_and_any_number_of_slashes(gateway: Gateway, version: str, slashes: str) -> None:
    async with talking(gateway.url, gateway.port, path=slashes + method(version)[1:]) as talk:
        assert await talk.turn("this")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"x-goog-api-key": KEY}),
        (f"?key={KEY}", {}),
        (f"?access_token={KEY}", {}),
        ("", {"Authorization": f"Token {KEY}"}),
        ("", {"Authorization": f"Bearer {KEY}", "x-goog-user-project": KEY}),
        (f"?key={KEY}", {"x-goog-api-key": KEY, "Cookie": f"a={KEY}", "x-goog-api-client": KEY}),
        ("", {}),
    ],
    ids=["header", "key", "access_token", "token", "bearer", "everywhere", "none"],
)
async def test_a_key_is_taken_from_every_place_and_goes_nowhere(
    gateway: Gateway, query: str, headers: dict[str, str]
) -> None:
    async with talking(gateway.url, gateway.port, path=method() + query, headers=headers) as talk:
        await talk.turn("this")
        line = talk.line
    given = {name.lower(): value for name, value in line.headers.items()}
    assert given["x-goog-api-key"] == UPSTREAM_KEY
    everything = json.dumps([line.path, given, line.setup, [str(frame) for frame in line.frames]])
    assert KEY not in everything
    assert "key=" not in line.path


async def test_a_page_of_elsewhere_is_not_let_in_and_a_program_without_origin_is(gateway: Gateway) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with guest(gateway.url, origin="https://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 403
    async with ModelSide(gateway.port) as model, guest(gateway.url, origin=gateway.url) as client:
        await client.send({"setup": model.setup()})
        await (await model.dialled()).ready()
        assert (await client.next()).keys() == {"setupComplete"}
        assert client.socket.protocol.extensions == []


async def test_a_model_that_is_retired_or_not_known_is_asked_for_all_the_same(gateway: Gateway) -> None:
    for model in ("models/gemini-2.0-flash-exp", "models/gemini-99-live"):
        async with talking(gateway.url, gateway.port, model=model) as talk:
            assert talk.line.setup["model"] == model
            await talk.turn("this")


async def test_a_token_opens_the_constrained_method_wherever_it_is(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.post("/v1alpha/auth_tokens", json={"uses": 0}, headers={"x-goog-api-key": KEY})
    name: str = answer.json()["name"]
    path = method("v1alpha", constrained=True)
    for query, headers in (
        (f"?access_token={name}", {}),
        ("", {"Authorization": f"Token {name}", "x-goog-api-key": name}),
    ):
        async with talking(gateway.url, gateway.port, path=f"/{path}{query}", headers=headers) as talk:
            await talk.turn("this")
            seen = json.dumps([talk.line.path, dict(talk.line.headers), talk.line.setup])
            assert name.removeprefix("auth_tokens/") not in seen
    assert name.removeprefix("auth_tokens/") not in gateway.server.log


async def test_the_first_answer_is_setup_complete_in_ascii_in_a_binary_frame(gateway: Gateway) -> None:
    async with opening(gateway) as (client, model):
        await client.send({"setup": model.setup(sessionResumption={})})
        line = await model.dialled()
        await line.send('{"setupComplete": {"sessionId": "Zoë ☕"}, "usageMetadata": {"note": "ü"}}'.encode())
        await line.resumable("h1")
        first = await client.next()
        assert "setupComplete" in first
        assert isinstance(client.received[0], bytes)
        assert client.received[0].isascii()
        assert "newHandle" in (await client.next())["sessionResumptionUpdate"]


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_frames_of_either_kind_are_taken(gateway: Gateway, kind: str) -> None:
    async with opening(gateway) as (client, model):
        frame = json.dumps({"setup": model.setup()})
        await client.send(frame if kind == "text" else frame.encode())
        line = await model.dialled()
        await line.ready()
        await client.next()
        said = '{"realtimeInput":{"text":"Grüß Gott"}}'
        await client.send(said if kind == "text" else said.encode())
        await line.typed("Grüß Gott")
        arrived = line.frames[-1]
        assert (arrived.encode() if isinstance(arrived, str) else arrived) == said.encode()


DOWN = [
    b"{}",
    b" { } \n",
    b'{"serverContent":{}}',
    b'{"somethingNew":{"n":1.50,"big":123456789012345678901234567890,"s":"\\u00fc\\/"}}',
    '{ "serverContent" : { "modelTurn":{"parts":[{"text":"☕\u2028","thought":true}]} } }'.encode(),
    b'{"serverContent":{"novelty":[1,2],"outputTranscription":{"text":"a","x":null}},"other":{}}',
    b'{"serverContent":{"groundingMetadata":{"a":1e3}}}\r\n',
    b'{"serverContent":{"interactionStatus":"IN_PROGRESS"}}',
    b'{"voiceActivity":{"type":"SOMETHING_NEW"}}',
    b'{"usageMetadata":{"totalTokenCount":1}}',
    b'{"serverContent":{"inputTranscription":{"text":"b"},"newer":1}}',
    b'{"toolCall":{"functionCalls":[{"name":"look","args":{"a": 1.0},"id":"c1","new":[]}]},"more":1}',
    b'{"toolCallCancellation":{"ids":["c1"]}}',
    b'{"serverContent":{"turnComplete":true,"turnCompleteReason":"SOMETHING_NEW"}}',
]
UP = [
    '{"somethingNew":{"n":1.50}}',
    ' {"realtime_input" : {"text": "a", "novelty":[1]}}',
    '{"realtimeInput":{"audio":{"data":"-_-_","mime_type":"audio/pcm;rate=16000"}}}',
    '{"realtimeInput":{"audio":{"mimeType":"audio/pcm","data":"+/8","odd":1}}}',
    b'{"realtimeInput":{"audio":{"data":"-_-_","mimeType":"audio/pcm;rate=24000"},"beside":1}}',
    '{"realtimeInput":{"video":{"data":"-_-_","mimeType":"image/jpeg"}}}',
    '{"client_content":{"turns":[{"role":"user","parts":[{"text":"\\u00fc"}]}],"turnComplete":false,"new":1}}',
    '{"contextUpdate":{"systemInstruction":{"parts":[{"text":"x"}]}, "new":true}}',
    '{"realtimeInput":{"audioStreamEnd":true}}',
    '{"clientContent":{"turns":[],"turnComplete":true}}',
]


async def test_what_is_known_and_what_is_not_arrives_byte_for_byte(gateway: Gateway) -> None:
    async with talking(gateway.url, gateway.port) as talk:
        for frame in DOWN:
            await talk.line.send(frame)
        while len(talk.client.received) <= len(DOWN):
            await talk.client.next()
        assert talk.client.received[1:] == DOWN
        for said in UP:
            await talk.client.send(said)
        await talk.client.say("The end.")
        await talk.line.typed("The end.")
        arrived = [frame.encode() if isinstance(frame, str) else frame for frame in talk.line.frames]
        assert arrived[:-1] == [frame.encode() if isinstance(frame, str) else frame for frame in UP]


async def test_media_chunks_go_up_as_audio_where_the_model_refuses_them(gateway: Gateway) -> None:
    chunk = '{"data":"-_-_","mime_type":"audio/pcm"}'
    for chunks in (f"[{chunk}]", chunk):
        async with talking(gateway.url, gateway.port) as talk:
            await talk.client.send(f'{{"realtime_input":{{"media_chunks":{chunks}}}}}')
            assert await talk.line.next() == {
                "realtimeInput": {"audio": {"data": "-_-_", "mimeType": "audio/pcm"}}
            }


async def test_a_setup_may_have_large_schemas_and_unknown_fields(gateway: Gateway) -> None:
    functions = [
        {"name": f"f{number}", "description": "x" * 2_000, "parameters": {"type": "OBJECT", "new": number}}
        for number in range(100)
    ]
    more = {
        "tools": [{"function_declarations": functions}],
        "somethingNew": {"a_b": [1]},
        "proactivity": {"new_one": 1},
    }
    async with talking(gateway.url, gateway.port, **more) as talk:
        declared = [
            declaration
            for tool in talk.line.setup["tools"]
            for declaration in tool.get("function_declarations") or tool.get("functionDeclarations") or []
        ]
        assert declared[:100] == functions
        assert [declaration["name"] for declaration in declared[100:]] == ["shelf", "wait"]
        assert talk.line.setup["somethingNew"] == {"a_b": [1]}
        assert talk.line.setup["proactivity"] == {"new_one": 1}


async def test_three_mebibytes_pass_and_more_than_four_close_with_1009(gateway: Gateway) -> None:
    async with talking(gateway.url, gateway.port) as talk:
        large = json.dumps({"realtimeInput": {"video": {"data": "A" * (3 << 20), "mimeType": "image/png"}}})
        await talk.client.send(large)
        await talk.client.say("That.")
        await talk.line.typed("That.")
        assert [len(frame) for frame in talk.line.frames[:-1]] == [len(large)]
        await talk.client.send(json.dumps({"realtimeInput": {"text": "A" * (4 << 20)}}))
        assert (await talk.client.closed())[0] == 1009


@pytest.mark.parametrize(
    "frame",
    [
        "no JSON",
        "[]",
        b"\xff\xfe",
        '{"setup": {}',
        '{"realtimeInput": {"text": "Hello"}}',
        '{"setup": 7}',
        "{}",
    ],
)
async def test_a_first_message_that_is_no_setup_closes_with_1007(
    gateway: Gateway, frame: str | bytes
) -> None:
    async with guest(gateway.url) as client:
        await client.send(frame)
        code, reason = await client.closed()
    assert code == 1007
    assert 0 < len(reason.encode()) <= 123
    assert client.received == []


@pytest.mark.parametrize(
    "frame", ["no JSON", "[]", b"\xff\xfe", '{"setup": {"model": "models/gemini-3.8-live"}}']
)
async def test_a_bad_message_or_a_second_setup_closes_with_1007(gateway: Gateway, frame: str | bytes) -> None:
    async with talking(gateway.url, gateway.port) as talk:
        await talk.client.send(frame)
        code, reason = await talk.client.closed()
        assert code == 1007
        assert 0 < len(reason.encode()) <= 123
        assert len(talk.client.received) == 1
        await talk.line.closed()


@pytest.mark.parametrize("code", [1000, 1005, 1011])
async def test_however_a_client_closes_it_is_no_error_and_its_conversation_is_over(
    gateway: Gateway, code: int
) -> None:
    async with talking(gateway.url, gateway.port) as talk:
        await talk.turn("this")
        before = len(gateway.server.log)
        session = (await newest(gateway.server))["sessionId"]
        if code == 1005:
            protocol = talk.client.socket.protocol
            protocol.send_close()
            talk.client.socket.transport.write(b"".join(protocol.data_to_send()))
            await talk.client.socket.wait_closed()
        else:
            await talk.client.socket.close(code, "going")
        await talk.line.closed()
    async with asyncio.timeout(20):
        while (await shown(gateway.server, session))["connected"]:
            pass
    happened = [event["kind"] for event in (await shown(gateway.server, session, "/events"))["events"]]
    assert happened == ["connected", "turn"]
    told = gateway.server.log[before:].lower()
    assert "error" not in told
    assert "warning" not in told


async def test_pings_are_answered_while_a_function_runs(gateway: Gateway) -> None:
    async with Gate() as gate, talking(gateway.url, gateway.port) as talk:
        await talk.line.call(("c1", "wait", gate.arguments))
        run = await gate.arrival()
        for _ in range(3):
            async with asyncio.timeout(20):
                await (await talk.client.socket.ping())
        run.write(b'{"ok": true}\n')
        (answer,) = await talk.line.answers()
        assert answer["id"] == "c1"


async def newest(server: Server) -> dict[str, Any]:
    listed: list[dict[str, Any]] = (await get(server, "/api/sessions"))["sessions"]
    return max(listed, key=lambda session: str(session["createdAt"]))


async def shown(server: Server, session: str, part: str = "") -> dict[str, Any]:
    found: dict[str, Any] = await get(server, f"/api/sessions/{session}{part}")
    return found


async def get(server: Server, path: str) -> Any:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        return (await http.get(path)).json()
