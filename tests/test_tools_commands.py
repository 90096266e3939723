"""The commands of `tornado-live tools`: what people read, and the exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tornado_live.errors import ConfigError
from tornado_live.settings import load_settings
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.commands import (
    FAILED,
    MISUSED,
    OK,
    call_tool,
    caller_from,
    check_tools,
    list_tools,
    plan_tools,
    run_examples,
    show_tool,
)
from tornado_live.tools.examples import differences
from tornado_live.tools.result import Json

TOOLS = """
version: 1
tools:
  look_up:
    description: |
      Looks up.
      At length.
    parameters:
      type: object
      properties: {title: {type: string}, lang: {type: string, format: uri}}
      required: [title]
    http: {url: "https://example.com/{title}", query: {lang: "{lang}"}}
    mock: {text: Made up.}
  ask:
    description: Asks.
    parameters: {}
    http: {url: "https://example.com"}
    timeout: 500ms
"""
LEFT_OUT = """
  tree:
    description: Grows.
    parameters: {type: object, properties: {q: {anyOf: [{type: "null"}]}}}
    http: {url: "https://example.com", query: {q: "{q}"}}
"""


def load(home: Path, text: str = TOOLS) -> ToolCatalog:
    (home / "tools.yaml").write_text(text, encoding="utf-8")
    return load_catalog(home / "tools.yaml", home=home, data_dir=home, environment={})


def check(home: Path, text: str) -> tuple[int, str]:
    (home / "tools.yaml").write_text(text, encoding="utf-8")
    out = io.StringIO()
    code = check_tools(home / "tools.yaml", home=home, data_dir=home, environment={}, out=out)
    return code, out.getvalue()


async def call(home: Path, name: str, arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    code = await call_tool(load(home), name, arguments, mock="always", out=out)
    return code, out.getvalue()


def test_list_shows_each_tool_with_its_parameters(tmp_path: Path) -> None:
    out = io.StringIO()
    assert list_tools(load(tmp_path), out) == OK
    assert out.getvalue() == "look_up(title, lang?)\n    Looks up.\nask()\n    Asks.\n"


def test_list_says_what_is_special_about_a_tool(tmp_path: Path) -> None:
    text = """
version: 1
tools:
  light:
    description: Light.
    parameters: {}
    client: true
    confirm: true
    wait: background
    requires: [staff, admin]
"""
    out = io.StringIO()
    assert list_tools(load(tmp_path, text), out) == OK
    special = "the page runs it; the person is asked first; in the background; requires admin, staff"
    assert out.getvalue() == f"light()\n    Light.\n    ({special})\n"


def test_check_prints_what_was_changed_for_gemini(tmp_path: Path) -> None:
    assert check(tmp_path, TOOLS) == (
        OK,
        "look_up: ok (http GET, 10 s)\n"
        "    for Gemini: lang: format: uri is told in words\n"
        "ask: ok (http GET, 0.5 s)\n"
        "    no mock: without a network it can only say that the service is out of reach\n"
        "2 tools ok, 1 declaration changed for Gemini (arguments are still checked in full).\n",
    )


def test_check_prints_every_mistake_and_fails(tmp_path: Path) -> None:
    assert check(tmp_path, TOOLS.replace("500ms", "soon").replace("version: 1", "version: 3")) == (
        FAILED,
        "tools.yaml:2: version: 3 must be 1\n"
        'tools.yaml:18: ask.timeout: "soon" is not a time; write 250ms, 10s, 5m or 2h\n'
        "2 mistakes; none of the tools can be used.\n",
    )


def test_check_fails_for_a_file_that_is_not_there(tmp_path: Path) -> None:
    out = io.StringIO()
    assert (
        check_tools(tmp_path / "no.yaml", home=tmp_path, data_dir=tmp_path, environment={}, out=out) == FAILED
    )
    assert out.getvalue().startswith("no.yaml: there is no such file\n")


def test_check_fails_if_a_tool_is_left_out(tmp_path: Path) -> None:
    code, printed = check(tmp_path, TOOLS + LEFT_OUT.lstrip("\n"))
    assert code == FAILED
    assert printed.splitlines()[-2:] == [
        "tools.yaml:21: tree.parameters.q: Gemini cannot be told of this (allows nothing but null); "
        "the tool is left out",
        "2 tools ok, 1 declaration changed for Gemini (arguments are still checked in full), 1 left out.",
    ]


def test_check_names_what_is_not_set_and_who_else_can_change_the_file(tmp_path: Path) -> None:
    code, printed = check(
        tmp_path, TOOLS.replace("https://example.com", "${BASE}", 1).replace("500ms", "${T}")
    )
    assert code == FAILED
    assert printed.splitlines()[0] == "Not set in the environment or .env: BASE, T"
    (tmp_path / "tools.yaml").chmod(0o666)
    code, printed = check(tmp_path, TOOLS)
    assert code == OK
    assert printed.startswith("warning: tools.yaml can be changed by every user of this machine; chmod o-w\n")


def test_check_gives_the_mistakes_to_programs_too(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS.replace("500ms", "soon"))
    out = io.StringIO()
    given = {"home": tmp_path, "data_dir": tmp_path, "environment": {}, "out": out, "as_json": True}
    assert check_tools(tmp_path / "tools.yaml", **given) == FAILED  # type: ignore[arg-type]
    assert json.loads(out.getvalue()) == [
        {
            "file": "tools.yaml",
            "line": 18,
            "column": 5,
            "tool": "ask",
            "path": "ask.timeout",
            "message": '"soon" is not a time; write 250ms, 10s, 5m or 2h',
        }
    ]


def test_show_prints_the_declaration_as_the_model_gets_it(tmp_path: Path) -> None:
    catalog = load(tmp_path, TOOLS.replace("    timeout: 500ms", "    wait: background"))
    models = load_settings(home=tmp_path, config=None, environ={}, overrides={}).models
    out = io.StringIO()
    assert (
        show_tool(catalog, "look_up", models.of("gemini-2.5-flash-native-audio-preview-12-2025"), out) == OK
    )
    shown, _, rest = out.getvalue().partition("\n}\n")
    assert json.loads(shown + "}")["parameters"]["properties"]["lang"] == {
        "type": "STRING",
        "description": "Format uri",
    }
    assert rest == "for Gemini: lang: format: uri is told in words\n"
    waits = io.StringIO()
    assert show_tool(catalog, "ask", models.of("gemini-3.1-flash-live-preview"), waits) == OK
    assert "told later" in waits.getvalue() or "NON_BLOCKING" in waits.getvalue()
    unknown = io.StringIO()
    assert show_tool(catalog, "ask", models.of("nonsense"), unknown, among=models.names) == MISUSED
    assert unknown.getvalue().startswith('There is no Live model "nonsense"')
    assert "gemini-3.1-flash-live" in unknown.getvalue()
    wrong = io.StringIO()
    assert show_tool(catalog, "lookup", models.of("x"), wrong) == MISUSED
    assert wrong.getvalue() == 'There is no tool "lookup" - did you mean "look_up"?\n'


BOUND = """
version: 1
sources:
  shop: {sql: {url: "postgresql://reader:canary-word@db.example.com/shop"}}
tools:
  orders:
    description: Orders.
    parameters: {type: object, properties: {n: {type: integer}}}
    http:
      url: https://crm.example.com/{tenant}/orders
      query: {n: "{n}", by: "{who}", place: "{place}"}
    bind: {tenant: claims.org.id, who: session.user, place: environment.PLACE}
    limits: {per_minute: 5}
    confirm: true
  admin:
    description: Of some.
    parameters: {}
    requires: [admin, "orders:write"]
    http: {url: "https://admin.example.com"}
  weather:
    description: Weather.
    parameters: {type: object, properties: {location: {type: string}}, required: [location]}
    python: builtin.weather:current
    options: {forecast_url: "https://api.example.com"}
"""


def test_plan_says_what_a_caller_could_reach(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(BOUND)
    catalog = load_catalog(
        tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path, environment={"PLACE": "canary-place"}
    )
    claims = tmp_path / "claims.json"
    claims.write_text('{"sub": "alice", "roles": ["admin"], "org": {"id": "acme"}}')
    out = io.StringIO()
    assert plan_tools(catalog, caller_from(claims), out) == OK
    assert out.getvalue() == (
        "alice: admin\n"
        "orders\n"
        "    host: GET https://crm.example.com/{tenant}/orders\n"
        '    bound: tenant = "acme" (claims.org.id)\n'
        '    bound: who = "alice" (session.user)\n'
        "    bound: place = *** (environment.PLACE)\n"
        "    first: the person is asked\n"
        "    limit: 5 calls a minute\n"
        "admin: not for this caller, who has no orders:write\n"
        "weather\n"
        "    calls: builtin.weather:current\n"
        "    host: https://api.example.com\n"
        "    host: https://geocoding-api.open-meteo.com\n"
    )
    out = io.StringIO()
    plan_tools(catalog, caller_from(None), out)
    assert "tenant = nothing, so that every call is refused: there is no claims.org.id" in out.getvalue()
    assert "canary" not in out.getvalue()


def test_claims_that_cannot_be_read_are_a_mistake_of_the_file(tmp_path: Path) -> None:
    for text, message in (("[]", "must be a JSON object"), ("{", "is not JSON"), (None, "cannot be read")):
        file = tmp_path / f"{message[:4]}.json"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            caller_from(file)


EXAMPLES = """
    examples:
      - {args: {title: a}, expect: {text: Made}}
      - {args: {}, expect: {error: invalid_arguments}}
"""


async def test_the_examples_are_run_and_compared(tmp_path: Path) -> None:
    catalog = load(
        tmp_path, TOOLS.replace("    mock: {text: Made up.}\n", "    mock: {text: Made up.}" + EXAMPLES)
    )
    out = io.StringIO()
    assert await run_examples(catalog, (), mock="always", out=out) == OK
    assert out.getvalue() == (
        "look_up 1: ok (sample data)\nlook_up 2: ok\n2 examples.\n"
        "Of 1 only the mock was compared: no service was asked.\n"
    )
    wrong = load(
        tmp_path,
        TOOLS.replace("    mock: {text: Made up.}\n", "    mock: {text: Other.}" + EXAMPLES),
    )
    out = io.StringIO()
    assert await run_examples(wrong, ["look_up"], mock="always", out=out) == FAILED
    assert out.getvalue() == (
        "look_up 1: not as expected (sample data)\n"
        '    result.text is "Other.", not "Made"\n'
        "look_up 2: ok\n"
        "2 examples, 1 not as expected.\n"
        "Of 1 only the mock was compared: no service was asked.\n"
    )
    out = io.StringIO()
    assert await run_examples(catalog, ["lookup"], mock="always", out=out) == MISUSED
    out = io.StringIO()
    assert await run_examples(catalog, ["ask"], mock="always", out=out) == OK
    assert out.getvalue() == "There are no examples; write examples: to a tool.\n"


@pytest.mark.parametrize(
    ("expect", "result", "found"),
    [
        ({"a": 1}, {"a": 1.0, "b": 2}, []),
        ({"a": True}, {"a": 1}, ["result.a is 1, not true"]),
        ({"a": {"b": "x"}}, {"a": {}}, ["result.a.b is not there"]),
        ([{"n": 2}], [{"n": 1}, {"n": 2, "m": 3}], []),
        ([{"n": 4}], [{"n": 1}], ['result has no item like {"n": 4}']),
        ("part", "a part of it", []),
        ("none", ["none"], ['result is ["none"], not "none"']),
        (None, None, []),
        ({}, {}, []),
    ],
)
def test_an_example_says_what_must_be_there_and_leaves_the_rest_free(
    expect: Json, result: Json, found: list[str]
) -> None:
    assert differences(expect, {"status": "ok", "result": result}) == found


def test_an_example_may_expect_an_error() -> None:
    failed: dict[str, Json] = {"status": "error", "error": {"code": "timeout", "message": "Too late."}}
    assert differences({"error": "timeout"}, failed) == []
    assert differences({"error": "limited"}, failed) == ["expected the error limited, got timeout"]
    assert differences({"error": "timeout"}, {"result": 1}) == ["expected the error timeout, got none"]
    assert differences({"a": 1}, failed) == ["the call failed: timeout: Too late."]


async def test_call_prints_what_the_model_would_get(tmp_path: Path) -> None:
    code, printed = await call(tmp_path, "look_up", '{"title": "x"}')
    assert code == OK
    assert json.loads(printed)["result"] == {"text": "Made up."}
    assert json.loads(printed)["sample"] is True


async def test_call_fails_with_the_error_envelope_and_misuse_is_told_apart(tmp_path: Path) -> None:
    code, printed = await call(tmp_path, "look_up", "")
    assert (code, json.loads(printed)["error"]["code"]) == (FAILED, "invalid_arguments")
    for arguments, message in (
        ("{", "The arguments are not JSON"),
        ("[]", "The arguments must be a JSON object"),
    ):
        code, printed = await call(tmp_path, "look_up", arguments)
        assert code == MISUSED
        assert printed.startswith(message)
