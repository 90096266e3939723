"""What tools.yaml says of HTTP: taken as it is meant, or told what to write instead."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from endpoints import Elsewhere, serving
from serving import ROOT
from tornado.web import RequestHandler

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.http import call_endpoint, guarded_client
from tornado_live.tools.http_addresses import HostRule
from tornado_live.tools.http_retry import Retry
from tornado_live.tools.http_template import Body, Endpoint, fill
from tornado_live.tools.result import Json
from tornado_live.tools.runner import ToolCall, ToolRunner

Q = "{type: object, properties: {q: {type: string}}, required: [q]}"


def load(home: Path, text: str, environment: Mapping[str, str] | None = None) -> ToolCatalog:
    path = home / "tools.yaml"
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return load_catalog(path, home=home, data_dir=home / "var", environment=environment or {})


def tool(http: str, parameters: str = Q, *, source: str = "", more: str = "") -> str:
    sources = f"sources: {{crm: {{http: {{base_url: 'https://crm.example/v1', {source}}}}}}}\n"
    return (
        f"version: 1\n{sources}tools:\n  find:\n    description: Finds.\n"
        f"    parameters: {parameters}\n    http: {http}\n{textwrap.indent(more, '    ')}"
    )


def endpoint(home: Path, text: str, environment: Mapping[str, str] | None = None) -> Endpoint:
    found = load(home, text, environment).tools["find"].endpoint
    assert found is not None
    return found


def mistakes(home: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(home, text)
    return [str(problem) for problem in caught.value.problems]


def going_there(port: int) -> httpx.AsyncClient:
    """A client for which every name is the server on `port`."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34"]

    return guarded_client(resolve=resolve, network=Elsewhere(port))


def test_every_key_of_http_arrives_at_the_endpoint(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        version: 1
        sources:
          crm:
            http:
              base_url: https://crm.example/v1/
              headers: {Accept: application/json, X-Team: a}
              auth: {bearer: "${CRM_TOKEN}"}
              follow_redirects: 2
        tools:
          add_note:
            description: Adds a note.
            parameters:
              type: object
              properties: {id: {type: integer}, text: {type: string}, tags: {type: array, items: {type: string}}}
              required: [id]
            http:
              source: crm
              method: POST
              path: /customers/{id}/notes
              query: {notify: true}
              headers: {X-Team: b}
              json: {text: "{text}", tags: "{tags}", fixed: [1, {by: voice}]}
              expect: [application/json, text/*]
            retry: {attempts: 3, on: [connect, 429]}
        """,
        {"CRM_TOKEN": "canary-token"},
    ).tools["add_note"]
    assert found.endpoint == Endpoint(
        "POST",
        "https://crm.example",
        "/v1/customers/{id}/notes",
        {"notify": True},
        {"Accept": "application/json", "X-Team": "b"},
        body=Body("json", {"text": "{text}", "tags": "{tags}", "fixed": [1, {"by": "voice"}]}),
        credentials={"Authorization": "Bearer canary-token"},
        expect=("application/json", "text/*"),
        follow_redirects=2,
    )
    assert found.retry == Retry(3, frozenset(("connect", "429")))
    request = fill(found.endpoint, {"id": 7, "tags": ["a"]})
    assert json.loads(request.content) == {"tags": ["a"], "fixed": [1, {"by": "voice"}]}


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("https://{q}/x/y", "https://{q}", "/x/y"),
        ("{q}", "{q}", ""),
    ],
)
def test_a_host_comes_from_an_argument_where_allow_hosts_says_which(
    url: str, base: str, path: str, tmp_path: Path
) -> None:
    found = endpoint(tmp_path, tool(f"{{url: '{url}', allow_hosts: [a.example, 'http://*.b.example:81']}}"))
    assert (found.base, found.path) == (base, path)
    assert found.hosts == (
        HostRule("https", "a.example", False, 443),
        HostRule("http", "b.example", True, 81),
    )


@pytest.mark.parametrize(
    ("source", "http", "headers", "credentials"),
    [
        ("auth: {bearer: abcdef}", "", {}, {"Authorization": "Bearer abcdef"}),
        (
            "auth: {bearer: abcdef}",
            "auth: {header: {name: X-Key, value: uvwxyz}}",
            {},
            {"X-Key": "uvwxyz"},
        ),
        ("auth: {bearer: abcdef}", "headers: {authorization: mine}", {"authorization": "mine"}, {}),
        ("headers: {X-Key: old}", "auth: {header: {name: x-key, value: uvwxyz}}", {}, {"x-key": "uvwxyz"}),
        (
            "",
            "auth: {basic: {user: ann, password: 'p{q}'}}",
            {},
            {"Authorization": "Basic YW5uOnB7cX0="},
        ),
    ],
)
def test_what_a_tool_says_wins_over_its_source(
    source: str, http: str, headers: dict[str, str], credentials: dict[str, str], tmp_path: Path
) -> None:
    found = endpoint(tmp_path, tool(f"{{source: crm, path: '/{{q}}', {http}}}", source=source))
    assert (dict(found.headers), dict(found.credentials)) == (headers, credentials)


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ("{url: 'https://a.b', json: {q: '{q}'}}", "find.http.json: GET has no body; write method: POST"),
        ("{url: 'https://a.b', form: {q: '{q}'}}", "find.http.form: GET has no body; write method: POST"),
        (
            "{url: 'https://a.b', method: PUT, json: {q: '{q}'}, form: {}}",
            "find.http.form: has both json and form; remove one",
        ),
        (
            "{url: 'https://a.b', method: PUT, json: {a: [{b: '{p}'}]}}",
            "find.http.json.a[0].b: {p} is not among the parameters; known: q",
        ),
        (
            "{url: 'https://{q}/'}",
            "the host is fixed; {parameter} may stand in the path only, or write allow_hosts:",
        ),
        ("{url: '{q}'}", "the host is fixed"),
        (
            "{url: 'https://{q}.b/', allow_hosts: [a.b]}",
            "{parameter} must be the whole host; ports are written in allow_hosts",
        ),
        ("{url: 'https://{p}/', allow_hosts: [a.b]}", "find.http.url: {p} is not among the parameters"),
        (
            "{url: 'https://a.b/{q}', allow_hosts: [a.b]}",
            "find.http.allow_hosts: is for a {parameter} as the host of url, or for follow_redirects",
        ),
        (
            "{url: '{q}', allow_hosts: ['https://a.b/x']}",
            'find.http.allow_hosts[0]: "https://a.b/x" is not a host such as api.example.com',
        ),
        ("{url: '{q}', allow_hosts: ['*.com']}", '"*.com" would allow almost any host'),
        ("{url: '{q}', allow_hosts: ['*']}", '"*" is not a host'),
        (
            "{url: '{q}', allow_hosts: [localhost]}",
            '"localhost" is a private address, which every call would',
        ),
        ("{url: '{q}', allow_hosts: ['http://10.0.0.1:80']}", "is a private address"),
        ("{url: '{q}', allow_hosts: []}", "find.http.allow_hosts: [] must not be empty"),
        (
            "{url: 'https://a.b/{q}', expect: [image/png]}",
            'find.http.expect[0]: "image/png" cannot be read; known: application/json, text/plain',
        ),
        ("{url: 'https://a.b/{q}', follow_redirects: 9}", "find.http.follow_redirects: 9 must be at most 5"),
        (
            "{url: 'https://a.b/{q}', auth: {}}",
            "find.http.auth: needs exactly one of bearer, basic and header",
        ),
        (
            "{url: 'https://a.b/{q}', auth: {bearer: x, header: {name: a, value: b}}}",
            "find.http.auth: needs exactly one of bearer, basic and header",
        ),
        ('{url: "https://a.b/{q}", auth: {bearer: "a\\nb"}}', "find.http.auth: holds a line break"),
        ("{url: 'https://a.b/{q}', auth: {header: {name: Host, value: b}}}", "is set by the client itself"),
        ("{url: 'https://a.b/{q}', auth: {basic: {user: 'a:b', password: c}}}", "no colon in a user name"),
        (
            "{url: 'https://a.b/{q}', headers: {authorization: x}, auth: {bearer: y}}",
            "find.http.headers.authorization: is set by auth too; remove one of the two",
        ),
        ("{source: nowhere, path: '/{q}'}", '"nowhere" is not among the sources; known: crm'),
    ],
)
def test_a_mistake_in_http_says_what_to_write(http: str, expected: str, tmp_path: Path) -> None:
    [found] = mistakes(tmp_path, tool(http))
    assert expected in found
    assert found.startswith("tools.yaml:7: ")


def test_an_object_has_its_place_in_json_only(tmp_path: Path) -> None:
    parameters = "{type: object, properties: {q: {type: object}}, required: [q]}"
    for http in ("{url: 'https://a.b/{q}'}", "{url: 'https://a.b', query: {q: '{q}'}}"):
        [found] = mistakes(tmp_path, tool(http, parameters))
        assert "{q} is an object, which has its place in json only" in found
    endpoint(tmp_path, tool("{url: 'https://a.b', method: POST, json: '{q}'}", parameters))


def test_a_host_from_an_argument_must_be_required(tmp_path: Path) -> None:
    optional = "{type: object, properties: {q: {type: string}}}"
    [found] = mistakes(tmp_path, tool("{url: 'https://{q}/', allow_hosts: [a.b]}", optional))
    assert "find.http.url: {q} is part of the host; add q to required" in found


def test_the_mistakes_of_a_source_are_told_at_the_source(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """
        version: 1
        sources:
          a:
            http:
              base_url: https://a.example
              headers: {Authorization: x}
              auth: {bearer: abcdef}
          b:
            http:
              base_url: https://b.example
              auth: {basic: {user: "a:b", password: c}}
        tools: {}
        """,
    )
    assert found == [
        "tools.yaml:6: sources.a.http.headers.Authorization: is set by auth too; remove one of the two",
        "tools.yaml:11: sources.b.http.auth: no colon in a user name",
    ]


async def test_the_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    text = page.partition("### HTTP\n")[2].partition("```yaml\n")[2].partition("```")[0]
    tokens = {"CRM_TOKEN": "crm-token", "PARCELS_KEY": "parcels-key", "MONITOR_PASSWORD": "monitor-password"}
    catalog = load(tmp_path, text, tokens)

    def answer(handler: RequestHandler) -> None:
        if handler.request.path == "/status":
            handler.set_header("Content-Type", "text/plain")
            handler.write("All is well.")
        else:
            handler.write({"ok": True})

    calls: dict[str, dict[str, Json]] = {
        "find_customer": {"name": "Ann/e", "cities": ["Rome", "Oslo"]},
        "add_note": {"id": 7, "text": "Hi."},
        "track_parcel": {"number": "A1"},
        "read_status": {"site": "oslo.branch.example.com"},
    }
    async with serving(answer) as (port, seen), going_there(port) as client:
        answers = []
        for name, arguments in calls.items():
            where = catalog.tools[name].endpoint
            assert where is not None
            plain = replace(
                where,
                base=where.base.replace("https:", "http:"),
                hosts=tuple(replace(rule, scheme="http", port=80) for rule in where.hosts),
            )
            key = "k1" if catalog.policy(name).side_effects else None
            answers.append(await call_endpoint(client, plain, arguments, idempotency_key=key))
    assert answers == [{"ok": True}] * 3 + ["All is well."]
    found, noted, tracked, read = seen
    assert found.uri == "/api/customers/Ann%2Fe?city=Rome&city=Oslo&limit=5"
    assert found.headers["Authorization"] == "Bearer crm-token"
    assert json.loads(noted.body) == {"customer": 7, "note": {"text": "By telephone: Hi."}}
    assert noted.headers["Idempotency-Key"] == "k1"
    assert tracked.body == b"number=A1&lang=en"
    assert (tracked.headers["X-Api-Key"], tracked.headers["X-Reference"]) == ("parcels-key", "call A1")
    assert read.headers["Host"] == "oslo.branch.example.com"
    assert read.headers["Authorization"] == "Basic bW9uaXRvcjptb25pdG9yLXBhc3N3b3Jk"


@pytest.mark.proves("T48")
@pytest.mark.parametrize("at_source", [False, True])
@pytest.mark.parametrize(
    ("auth", "echoed"),
    [
        ("{bearer: '${SECRET}'}", "Bearer canary/secret+1"),
        ("{bearer: 'canary/secret+1'}", "Bearer canary/secret+1"),
        ("{basic: {user: ann, password: '${SECRET}'}}", "Basic YW5uOmNhbmFyeS9zZWNyZXQrMQ=="),
        ("{header: {name: X-Api-Key, value: 'key ${SECRET}'}}", "key canary/secret+1"),
    ],
)
async def test_what_a_service_echoes_of_our_credentials_is_blotted_out(
    at_source: bool, auth: str, echoed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="tornado_live")
    arrived: list[str] = []

    def echo(handler: RequestHandler) -> None:
        headers = handler.request.headers
        arrived.append(headers.get("Authorization") or headers["X-Api-Key"])
        handler.write(
            {"headers": dict(headers), "half": arrived[-1].split()[-1], "url": "canary%2Fsecret%2B1"}
        )

    async with serving(echo) as (port, _):
        source = f"base_url: 'http://127.0.0.1:{port}', allow_private: true"
        text = (
            f"version: 1\nsources: {{own: {{http: {{{source}{f', auth: {auth}' if at_source else ''}}}}}}}\n"
            "tools:\n  find:\n    description: Finds.\n    parameters: {}\n"
            f"    http: {{source: own, path: /{'' if at_source else f', auth: {auth}'}}}\n"
        )
        catalog = load(tmp_path, text, {"SECRET": "canary/secret+1"})
        runner = ToolRunner(mock="never")
        try:
            result = await runner.run(
                catalog, ToolCall("1", "find", {}), caller=Caller("ann"), session_id="s"
            )
        finally:
            await runner.close()
    assert arrived == [echoed]
    assert result.ok
    shown = json.dumps([result.response, catalog.listing(), catalog.declarations()]) + result.summary
    shown += repr(catalog.tools) + caplog.text
    for secret in ("canary", "YW5uOmNhbmFyeS9zZWNyZXQrMQ"):
        assert secret not in shown
