"""`tornado-live tools list`, `check` and `call`: what people read, and the exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.commands import FAILED, MISUSED, OK, call_tool, check_tools, list_tools

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
