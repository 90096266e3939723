"""Every route has a rule, which its handler holds to, and a place in the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from accessing import ASKING, api_key, asking
from doorways import NO_MODEL, PUBLIC, routers
from serving import Server
from tornado.routing import URLSpec
from tornado.web import RequestHandler

from tornado_live.errors import LIVE_ERRORS
from tornado_live.handlers.api import HealthHandler, OpenApiHandler
from tornado_live.handlers.door import METHODS
from tornado_live.handlers.openapi import document
from tornado_live.handlers.rules import RULES, access_of, of, ruled, served

NOT_TAKEN = RequestHandler.head
IMPLIED = {"HEAD", "OPTIONS"}


def taken(spec: URLSpec) -> set[str]:
    """The methods that a handler has, but those that every handler has."""
    handler = spec.handler_class
    return {name for name in METHODS if getattr(handler, name.lower()) is not NOT_TAKEN} - IMPLIED


@pytest.mark.proves("T10")
async def test_every_route_has_a_rule_and_every_rule_a_route(tmp_path: Path) -> None:
    names = set()
    async with routers(tmp_path, BASE_PATH="/voice") as (main, alone):
        for spec in (*main, *alone):
            names.add(of(spec))
            assert access_of(spec.handler_class) == RULES[of(spec)].access
        assert len({spec.name for spec in main}) == len(main)
    assert names == set(RULES)
    assert {name for name, rule in RULES.items() if rule.access == "public"} == PUBLIC


@pytest.mark.proves("T10")
@pytest.mark.parametrize(
    ("route", "words"),
    [
        (URLSpec(r"/new", HealthHandler, {}), "has no rule"),
        (URLSpec(r"/new", HealthHandler, {}, name="new"), "has no rule"),
        (URLSpec(r"/metrics", HealthHandler, {}, name="metrics"), "is for operator by its rule"),
        (URLSpec(r"/health", OpenApiHandler, {}, name="health"), "its handler lets in caller"),
        (URLSpec(r"/health", RequestHandler, {}, name="health"), "its handler lets in None"),
    ],
)
def test_a_route_without_a_rule_or_against_it_is_refused(route: URLSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ruled([route])


async def test_the_document_has_every_rest_route_and_method_and_no_other(tmp_path: Path) -> None:
    async with routers(tmp_path) as (main, _):
        shown = document(served(of(spec) for spec in main), base="", credentials=True)
        for spec in main:
            path = RULES[of(spec)].path
            if path is None:
                assert of(spec) in PUBLIC - {"health", "ready"} | {"socket", "drop_in"}
                continue
            assert {method.upper() for method in shown["paths"][path]} == taken(spec)
            filled = re.sub(r"\{\w+\}", "x", path)
            assert spec.regex.fullmatch(filled), f"{path} is not what {spec.regex.pattern} takes"
            variables = re.findall(r"\{(\w+)\}", path)
            for operation in shown["paths"][path].values():
                given = operation.get("parameters", [])
                assert [one["name"] for one in given if one["in"] == "path"] == variables
        assert set(shown["paths"]) == {RULES[of(spec)].path for spec in main} - {None}


async def test_the_document_is_openapi_and_its_schemas_and_examples_are_right(tmp_path: Path) -> None:
    async with routers(tmp_path) as (main, _):
        shown = document(served(of(spec) for spec in main), base="/voice", credentials=True)
    assert (shown["openapi"], shown["servers"]) == ("3.1.0", [{"url": "/voice"}])
    for schema in shown["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = []
    for path, item in shown["paths"].items():
        for operation in item.values():
            ids.append(operation["operationId"])
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            for body in (*bodies, *operation["responses"].values()):
                for content in body.get("content", {}).values():
                    validator = fitted(shown, content["schema"], strict=True)
                    values = [one["value"] for one in content.get("examples", {}).values()]
                    for value in [*values, *([content["example"]] if "example" in content else [])]:
                        validator.validate(value)
            assert operation["responses"].keys() >= {"400", "403", "429", "500"}, path
            assert ("401" in operation["responses"]) is (operation["security"] != []), path
    assert len(ids) == len(set(ids))
    codes = shown["components"]["schemas"]["Failure"]["properties"]["code"]["enum"]
    assert codes == [error.code for error in LIVE_ERRORS]


def fitted(shown: Mapping[str, Any], schema: Mapping[str, Any], *, strict: bool) -> Any:
    """`strict`: what the document does not name is wrong too, though a client has to take it."""
    components = {
        name: {**one, "additionalProperties": False} if strict and one.get("properties") else one
        for name, one in shown["components"]["schemas"].items()
    }
    return jsonschema.Draft202012Validator({**schema, "components": {"schemas": components}})


def checked(shown: Mapping[str, Any], answer: httpx.Response) -> httpx.Response:
    """That a real answer is as the document says."""
    path = answer.request.url.path
    [template] = [one for one in shown["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one), path)] or [
        None
    ]
    assert template is not None, path
    operation = shown["paths"][template][answer.request.method.lower()]
    told = operation["responses"][str(answer.status_code)]
    for name in told["headers"]:
        assert name == "Retry-After" or name in answer.headers
    if "content" not in told:
        assert answer.content == b""
        return answer
    [(kind, content)] = told["content"].items()
    assert answer.headers["Content-Type"] == kind
    value = answer.json() if kind == "application/json" else answer.text
    fitted(shown, content["schema"], strict=True).validate(value)
    return answer


async def test_every_answer_of_a_real_server_is_as_the_document_says(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "all", user="alice", roles=frozenset({"operator", "backend"}))
    other = await api_key(shared, "other", user="bob")
    async with Server(environ=ASKING | NO_MODEL | shared) as server, asking(server, key) as client:
        shown = (await client.get("/openapi.json")).json()
        checked(shown, await client.get("/openapi.json"))
        seen = set()

        async def asked(method: str, path: str, status: int, **how: Any) -> Any:
            answer = checked(shown, await client.request(method, path, **how))
            assert answer.status_code == status, answer.text
            seen.add((method.lower(), answer.status_code))
            return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else None

        made = await asked("POST", "/api/sessions", 201, json={"limits": {"conversation_s": 60}})
        path = f"/api/sessions/{made['sessionId']}"
        await asked("POST", "/api/sessions", 201, json={"userId": "carol", "metadata": {"a": [1, None]}})
        await asked("POST", "/api/sessions", 403, json={"assistant": "nobody"})
        await asked("POST", "/api/sessions", 403, json={"origin": "https://evil.example"})
        await asked("POST", "/api/sessions", 400, json={"limits": {"cost": 1}})
        await asked("POST", "/api/sessions", 400, json={"userId": "key:other"})
        await asked("POST", "/api/sessions", 413, content=b" " * 70_000)
        await asked("GET", "/api/sessions", 200)
        await asked("GET", "/api/sessions?limit=0", 400)
        await asked("GET", path, 200)
        await asked("GET", f"{path}?include=memory", 200)
        for below in ("", "/events", "/calls"):
            await asked("GET", f"{path}{below}", 200)
            await asked("GET", f"/api/sessions/unknown{below}", 404)
            answer = await client.get(f"{path}{below}", headers={"Authorization": "Bearer wrong"})
            assert checked(shown, answer).status_code == 401
        await asked("POST", f"{path}/token", 201, json={})
        await asked("POST", f"{path}/token", 400, json=[])
        await asked("POST", "/api/sessions/unknown/token", 404)
        await asked("DELETE", path, 204)
        await asked("DELETE", path, 404)
        await asked("GET", "/api/tools", 200)
        await asked("POST", "/api/tools/unknown/invoke", 400, json={})
        [tool, *_] = (await client.get("/api/tools")).json()["tools"]
        await asked("POST", f"/api/tools/{tool['name']}/invoke", 200, json={"args": {"no": "such"}})
        await asked("GET", "/metrics", 200)
        await asked("GET", "/health?client", 200)
        await asked("GET", "/health/ready", 200)
        await asked("POST", "/v1alpha/auth_tokens", 200, json={"uses": 1})
        await asked("POST", "/v1alpha/auth_tokens", 400, json={"uses": "x"})
        async with asking(server, other) as bob:
            answer = await bob.post("/api/tools/unknown/invoke", json={})
            assert checked(shown, answer).status_code == 403
            assert checked(shown, await bob.get("/metrics")).status_code == 403
            answer = await bob.post("/api/sessions", json={"userId": "alice"})
            assert checked(shown, answer).status_code == 403
