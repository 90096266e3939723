from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from builtin_context import context_for
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError
from tornado_live.tools.builtin.llm import ask, check_prompt
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.handler import spec_of
from tornado_live.tools.http import guarded_client
from tornado_live.tools.result import Json, ToolCode, ToolError
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.yamlfile import dotted

ROOT = Path(__file__).resolve().parent.parent
KEY = "not-a-real-key-only-for-tests"


def said(text: str, reason: str = "STOP", **more: Json) -> dict[str, Json]:
    """An answer as generateContent gives it."""
    part: dict[str, Json] = {"text": text}
    return {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "gemini-text",
        **more,
    }


def refusal(code: int, status: str, message: str) -> dict[str, Json]:
    return {"error": {"code": code, "status": status, "message": message}}


class Service:
    """Google's REST service for text, in small. It gives `answer` with `status`; None: it never answers."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.answer: Any = said("Hello.")
        self.asked: list[HTTPServerRequest] = []
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    @property
    def body(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.asked[-1].body)
        return read


class _Generate(RequestHandler):
    def initialize(self, service: Service) -> None:
        self.service = service

    async def post(self) -> None:
        self.service.asked.append(self.request)
        self.service.arrived.set()
        if self.service.answer is None:
            await self.service.left.wait()
            return
        self.set_status(self.service.status)
        self.set_header("Content-Type", "application/json")
        self.finish(
            self.service.answer if isinstance(self.service.answer, bytes) else json.dumps(self.service.answer)
        )

    def on_connection_close(self) -> None:
        self.service.left.set()


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    service = Service()
    routes = [(r"/.*", _Generate, {"service": service})]
    server = HTTPServer(Application(routes, log_function=lambda handler: None))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    service.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        service.left.set()
        server.stop()
        await server.close_all_connections()


async def asked(base_url: str, arguments: dict[str, Json] | None = None, **options: Json) -> Json:
    """What the tool answers with these options, over the guarded client."""
    settings: dict[str, Json] = {"model": "gemini-text", "prompt": "Say hello.", "api_key": KEY, **options}
    async with guarded_client() as http:
        context = context_for(ask, http=http, base_url=base_url, **{"allow_private": True, **settings})
        try:
            return await ask(context=context, **(arguments or {}))
        finally:
            context.owned.close()


async def test_the_prompt_is_filled_and_asked_with_the_operators_settings() -> None:
    async with serving() as service:
        answer = await asked(
            service.url,
            {"city": "Rome {days}", "days": 3, "likes": ["food", "ruins"]},
            prompt="Plan {days} days in {city} for {likes}{budget}.",
            system="You plan trips to {city}.",
            temperature=0.2,
            max_output_tokens=77,
            thinking_budget=0,
        )
        assert answer == {"text": "Hello."}
        [request] = service.asked
        assert (request.method, request.path) == ("POST", "/v1beta/models/gemini-text:generateContent")
        assert request.headers["x-goog-api-key"] == KEY
        assert KEY not in request.uri
        assert service.body == {
            "contents": [
                {"role": "user", "parts": [{"text": 'Plan 3 days in Rome {days} for ["food", "ruins"].'}]}
            ],
            "systemInstruction": {"parts": [{"text": "You plan trips to Rome {days}."}], "role": "user"},
            "generationConfig": {
                "temperature": 0.2,
                "maxOutputTokens": 77,
                "thinkingConfig": {"thinking_budget": 0},
            },
        }


async def test_an_answer_in_a_shape_is_data_of_that_shape() -> None:
    schema = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
    async with serving() as service:
        service.answer = said('{"days": 3}')
        assert await asked(service.url, schema=schema) == {"data": {"days": 3}}
        config = service.body["generationConfig"]
        assert config["responseMimeType"] == "application/json"
        assert config["responseJsonSchema"] == schema
        for wrong, reason in (('{"days": "3"}', "STOP"), ("no JSON", "STOP"), ('{"days": 3', "MAX_TOKENS")):
            service.answer = said(wrong, reason)
            with pytest.raises(ToolError, match="has not the shape") as caught:
                await asked(service.url, schema=schema)
            assert caught.value.code is ToolCode.BAD_ANSWER


async def test_thoughts_are_not_told_and_a_cut_answer_says_so() -> None:
    async with serving() as service:
        service.answer = said("Half an ans", "MAX_TOKENS")
        service.answer["candidates"][0]["content"]["parts"].insert(0, {"text": "Hmm.", "thought": True})
        assert await asked(service.url) == {
            "text": "Half an ans",
            "note": "The answer was cut: it was too long.",
        }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "no answer (SAFETY)"),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "no answer (RECITATION)"),
        ({"candidates": [{"finishReason": "SOMETHING_NEW", "content": {}}]}, "no answer (SOMETHING_NEW)"),
        (said("", "MAX_TOKENS"), "no answer (its tokens were used up)"),
        ({}, "no answer (nothing was said)"),
    ],
)
async def test_no_answer_is_an_error_that_says_why(answer: Json, words: str, recwarn: Any) -> None:
    async with serving() as service:
        service.answer = answer
        with pytest.raises(ToolError) as caught:
            await asked(service.url)
        assert caught.value.code is ToolCode.BAD_ANSWER
        assert words in caught.value.message


@pytest.mark.proves("T48")
@pytest.mark.parametrize(
    ("status", "answer", "code", "retryable"),
    [
        (429, refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded"), ToolCode.LIMITED, True),
        (400, refusal(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}"), ToolCode.NOT_ALLOWED, False),
        (401, refusal(401, "UNAUTHENTICATED", "no"), ToolCode.NOT_ALLOWED, False),
        (403, refusal(403, "PERMISSION_DENIED", f"consumer {KEY} is suspended"), ToolCode.NOT_ALLOWED, False),
        (404, refusal(404, "NOT_FOUND", "models/gemini-text is not found"), ToolCode.HTTP_ERROR, False),
        (400, refusal(400, "INVALID_ARGUMENT", "bad field"), ToolCode.HTTP_ERROR, False),
        (500, refusal(500, "INTERNAL", "oops"), ToolCode.HTTP_ERROR, True),
        (503, refusal(503, "UNAVAILABLE", "The model is overloaded"), ToolCode.HTTP_ERROR, True),
        (504, refusal(504, "DEADLINE_EXCEEDED", "late"), ToolCode.TIMEOUT, True),
        (502, b"<html>bad gateway", ToolCode.HTTP_ERROR, True),
        (302, b"", ToolCode.HTTP_ERROR, False),
        (200, b"no JSON", ToolCode.BAD_ANSWER, True),
        (200, b"[]", ToolCode.BAD_ANSWER, False),
        (200, b'{"candidates": "none"}', ToolCode.BAD_ANSWER, False),
    ],
)
async def test_a_refusal_is_told_in_our_words_and_once(
    status: int, answer: Any, code: ToolCode, retryable: bool
) -> None:
    async with serving() as service:
        service.status, service.answer = status, answer
        with pytest.raises(ToolError) as caught:
            await asked(service.url)
        error = caught.value
        assert (error.code, error.retryable) == (code, retryable)
        assert len(service.asked) == 1
        assert KEY not in error.message + error.hint
        assert service.url not in error.message + error.hint


async def test_without_a_key_it_says_who_has_to_set_which() -> None:
    async with serving() as service:
        with pytest.raises(ToolError) as caught:
            await asked(service.url, api_key="")
        assert caught.value.code is ToolCode.UNREACHABLE  # so that sample data may answer
        assert "no key" in caught.value.message
        assert "GEMINI_API_KEY" in caught.value.hint
        assert service.asked == []


async def test_a_service_out_of_reach_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ToolError) as caught:
            await asked(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert caught.value.code is ToolCode.UNREACHABLE


@pytest.mark.proves("T52")
async def test_an_address_of_the_operators_network_needs_his_word() -> None:
    async with serving() as service:
        with pytest.raises(ToolError) as caught:
            await asked(service.url, allow_private=False)
        assert caught.value.code is ToolCode.NOT_ALLOWED
        assert service.asked == []


@pytest.mark.proves("T53")
async def test_proxies_and_keys_of_the_environment_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    async with serving() as service:
        assert await asked(service.url) == {"text": "Hello."}
        assert service.asked[0].headers["x-goog-api-key"] == KEY


async def test_too_much_to_ask_is_refused_before_it_costs_anything() -> None:
    async with serving() as service:
        with pytest.raises(ToolError) as caught:
            await asked(service.url, {"text": "x" * 100}, prompt="Sum up: {text}", max_input_chars=100)
        assert caught.value.code is ToolCode.TOO_LARGE
        assert service.asked == []


async def test_an_answer_that_does_not_end_is_left() -> None:
    async with serving() as service:
        service.answer = said("x" * 5_000_000)
        with pytest.raises(ToolError) as caught:
            await asked(service.url)
        assert caught.value.code is ToolCode.TOO_LARGE


async def test_a_cancelled_call_closes_its_connection() -> None:
    async with serving() as service:
        service.answer = None
        async with asyncio.TaskGroup() as group:
            call = group.create_task(asked(service.url))
            await service.arrived.wait()
            call.cancel()
        async with asyncio.timeout(30):
            await service.left.wait()


def problems(parameters: list[str], **options: Json) -> list[str]:
    context = context_for(ask, **{"model": "m", "prompt": "Say hello.", **options})
    schema: dict[str, Json] = {"type": "object", "properties": {name: {} for name in parameters}}
    return [f"{dotted(tuple(at))}: {text}" for at, text in check_prompt(context.options, schema, {})]


def test_mistakes_of_the_options_are_found_at_load() -> None:
    assert problems(["city"], prompt='Answer {"city": 1} for {city}.') == []
    assert problems(["city"], prompt="{town}") == [
        "prompt: {town} is not among the parameters; known: city",
        ": the parameter city is used nowhere; write {city} in prompt or system",
    ]
    assert problems(["city"], system="About {city}.") == []
    assert problems([], schema={"type": "objekt"})[0].startswith("schema.type: is not JSON Schema: 'objekt'")
    assert problems([], schema={"properties": {"a": {"pattern": "a++"}}}) == [
        'schema.properties.a.pattern: "a++" has a possessive ++, which patterns cannot have here;'
        " write +; nothing is ever tried again"
    ]
    assert problems([], base_url="http://10.0.0.1/gemini") == [
        "base_url: the key would cross the network unencrypted; write https://"
    ]
    assert problems([], base_url="http://localhost:9100") == []


def test_the_key_comes_from_the_environment_of_the_server() -> None:
    spec = spec_of(ask)
    assert spec is not None
    assert spec.environment == {"api_key": ("GEMINI_API_KEY", "GOOGLE_API_KEY")}


TOOLS = """\
version: 1
tools:
  plan_trip:
    description: Plans a trip.
    parameters: {type: object, properties: {city: {type: string}}, required: [city]}
    python: builtin.llm:ask
    options:
      model: gemini-text
      prompt: Plan a day in {city}.
      base_url: "${TEXT_URL}"
      allow_private: true
    mock: {text: A day of samples.}
"""


def catalog(tmp_path: Path, environment: dict[str, str], text: str = TOOLS) -> ToolCatalog:
    (tmp_path / "tools.yaml").write_text(text)
    return load_catalog(
        tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path / "data", environment=environment
    )


async def run(tools: ToolCatalog, runner: ToolRunner) -> Mapping[str, Json]:
    call = ToolCall("1", "plan_trip", {"city": "Rome"})
    result = await runner.run(tools, call, caller=Caller("someone"), session_id="session")
    return result.response


@pytest.mark.proves("T48")
async def test_a_tool_of_the_file_asks_with_the_servers_key_and_never_shows_it(tmp_path: Path) -> None:
    async with serving() as service:
        service.answer = said(f"The key is {KEY}.")
        runner = ToolRunner(mock="never")
        try:
            tools = catalog(tmp_path, {"TEXT_URL": service.url, "GEMINI_API_KEY": "", "GOOGLE_API_KEY": KEY})
            answer = await run(tools, runner)
        finally:
            await runner.close()
        assert service.asked[0].headers["x-goog-api-key"] == KEY
        assert service.body["contents"][0]["parts"] == [{"text": "Plan a day in Rome."}]
        assert answer == {"status": "ok", "result": {"text": "The key is ***."}}


async def test_without_a_key_sample_data_answers_where_it_may(tmp_path: Path) -> None:
    tools = catalog(tmp_path, {"TEXT_URL": "http://127.0.0.1:1"})
    runner = ToolRunner(mock="unreachable")
    try:
        answer = await run(tools, runner)
    finally:
        await runner.close()
    assert answer["sample"] is True
    assert answer["result"] == {"text": "A day of samples."}


def test_a_prompt_that_names_no_parameter_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tools\.yaml:9: plan_trip\.options\.prompt: \{town\} is not among"
    ):
        catalog(tmp_path, {"TEXT_URL": "http://127.0.0.1:1"}, TOOLS.replace("in {city}", "in {town}"))


def test_the_example_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "builtin-tools.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "plan_day" in block]
    tools = catalog(tmp_path, {}, f"version: 1\ntools:\n{example}")
    assert list(tools.tools) == ["plan_day"]
    assert tools.left_out == ()
