"""tools.yaml: what is taken, and how each mistake is told."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import ROOT

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError
from tornado_live.tools import builtin
from tornado_live.tools.answer import redacted_text
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.commands import OK, run_examples
from tornado_live.tools.handler import spec_of
from tornado_live.tools.patterns import BadPattern, compiled
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.python import BUILT_IN_HANDLERS, BUILTIN
from tornado_live.tools.result import Json, ToolCode
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.tools.tool import CallLimits
from tornado_live.tools.tools_file import file_schema
from tornado_live.yamlfile import parse_yaml, walk

WEATHER = """
version: 1
sources:
  meteo: {http: {base_url: "https://api.example.com/v1/", headers: {Accept: application/json}}}
  shop: {sql: {url: "sqlite:///data/shop.db"}}
tools:
  get_weather:
    description: Weather of a place.
    parameters:
      type: object
      properties:
        place: {type: string}
        days: {type: integer, minimum: 1}
      required: [place]
    http:
      source: meteo
      path: /forecast/{place}
      query: {days: "{days}", units: metric}
    timeout: 250ms
    result: {select: "{c: temperature}", empty: Nothing known., max_bytes: 1024}
    mock: {c: 21}
"""


ALLOWED = ("tornado_live", "encodings")
FORBIDDEN = {
    *("antigravity", "this", "nntplib", "telnetlib", "xdrlib", "turtledemo", "turtledemo.clock", "idlelib"),
    *("idlelib.run", "lib2to3", "lib2to3.main", "pty", "smtpd", "mailcap", "cgitb", "code"),
}


def load(
    home: Path,
    text: str,
    environment: Mapping[str, str] | None = None,
    prefixes: Sequence[str] = ("tornado_live.tools.builtin",),
) -> ToolCatalog:
    path = home / "tools.yaml"
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return load_catalog(
        path, home=home, data_dir=home / "var", environment=environment or {}, handler_prefixes=prefixes
    )


def mistakes(home: Path, text: str, **more: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(home, text, **more)  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def one_tool(
    body: str, parameters: str = "{type: object, properties: {q: {type: string}}, required: [q]}"
) -> str:
    head = f"version: 1\ntools:\n  find:\n    description: Finds.\n    parameters: {parameters}\n"
    return head + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> str:
    """A module of an operator's own, importable for this test."""
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_tool_is_read_with_its_source_limits_and_declaration(tmp_path: Path) -> None:
    catalog = load(tmp_path, WEATHER)
    tool = catalog.tools["get_weather"]
    assert tool.endpoint is not None
    assert (tool.endpoint.method, tool.endpoint.base, tool.endpoint.path) == (
        "GET",
        "https://api.example.com",
        "/v1/forecast/{place}",
    )
    assert dict(tool.endpoint.headers) == {"Accept": "application/json"}
    assert (tool.timeout_s, tool.result.max_bytes, tool.result.empty) == (0.25, 1024, "Nothing known.")
    assert catalog.declarations() == [
        {
            "name": "get_weather",
            "description": "Weather of a place.",
            "parameters": {
                "type": "OBJECT",
                "properties": {"place": {"type": "STRING"}, "days": {"type": "INTEGER", "minimum": 1}},
                "required": ["place"],
            },
        }
    ]
    assert catalog.listing(["get_weather"])[0]["behaviour"] == "blocking"
    assert catalog.listing([]) == catalog.declarations(["nothing"]) == []


def test_the_listing_holds_no_url_header_or_sql(tmp_path: Path) -> None:
    assert "example.com" not in str(load(tmp_path, WEATHER).listing())


def test_relative_files_of_sources_lie_under_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    catalog = load(
        tmp_path,
        """
        version: 1
        sources:
          a: {sql: {url: "sqlite:///data/shop.db"}}
          b: {sql: {url: "sqlite:////srv/shop.db"}}
          c: {sql: {url: "sqlite:///${DATA_DIR:-data}/shop.db"}}
          d: {sql: {url: "postgresql://u:p@host/db"}}
          e: {documents: {paths: [notes/, /srv/docs]}}
        tools: {}
        """,
    )
    assert {name: source.get("url", source.get("paths")) for name, source in catalog.sources.items()} == {
        "a": f"sqlite:///{tmp_path}/data/shop.db",
        "b": "sqlite:////srv/shop.db",
        "c": f"sqlite:///{tmp_path}/var/shop.db",
        "d": "postgresql://u:p@host/db",
        "e": [f"{tmp_path}/notes", "/srv/docs"],
    }


def test_the_environment_fills_values_once_and_its_secrets_are_known(tmp_path: Path) -> None:
    text = """
    version: 1
    sources:
      crm: {http: {base_url: "${CRM_URL:-https://crm.example.com}", headers: {X-Token: "Bearer ${CRM}"}}}
    tools:
      find:
        description: Finds.
        parameters: {}
        timeout: ${WAIT:-2s}
        http: {source: crm, path: /all, query: {by: "${EMPTY:-name}"}}
    """
    catalog = load(tmp_path, text, {"CRM": "$HOME-canary", "EMPTY": "", "HOME": "/root"})
    endpoint = catalog.tools["find"].endpoint
    assert endpoint is not None
    assert endpoint.base == "https://crm.example.com"
    assert endpoint.headers["X-Token"] == "Bearer $HOME-canary"
    assert endpoint.query["by"] == "name"
    assert catalog.tools["find"].timeout_s == 2.0
    assert catalog.secrets == ("$HOME-canary",)
    assert "canary" not in repr(catalog.secrets[:0]) + str(catalog.listing())


@pytest.mark.proves("T47")
def test_a_mistake_never_shows_what_the_environment_holds(tmp_path: Path) -> None:
    text = one_tool('http: {url: "${URL}", query: {q: "{q}"}}\ntimeout: ${URL}\n')
    found = mistakes(tmp_path, text, environment={"URL": "canary-value"})
    assert found == [
        'tools.yaml:6: find.http.url: "${URL}": is not an address such as https://example.com/api',
        'tools.yaml:7: find.timeout: "${URL}" is not a time; write 250ms, 10s, 5m or 2h',
    ]


def test_all_mistakes_of_a_file_are_told_together_in_file_order(tmp_path: Path) -> None:
    text = """
    version: 2
    source: {}
    sources:
      wiki: {http: {base_url: "ftp://example.com"}}
      both: {http: {base_url: "https://example.com"}, sql: {url: "x"}}
    tools:
      get_weather:
        description: Weather.
        parameters: {type: object, properties: {city: {type: string}}, required: [city]}
        http:
          url: https://example.com/{town}
          method: "FETCH"
          cache: 5m
        retries: 3
      look:
        parameters: {type: object}
        python: os:system
      both:
        description: x
        parameters: {type: object}
        python: os:path
        http: {url: "https://example.com"}
      1st:
        description: x
        parameters: {type: object}
        http: {url: "https://example.com"}
      wide:
        description: 12
        parameters: {type: object}
        http: {source: nowhere}
        mcp: 5m
    """
    assert mistakes(tmp_path, text) == [
        "tools.yaml:1: version: 2 must be 1",
        'tools.yaml:2: source: is not a key - did you mean "sources"?',
        'tools.yaml:4: sources.wiki.http.base_url: "ftp://example.com": is not an address such as '
        "https://example.com/api",
        "tools.yaml:5: sources.both: needs exactly one of http, sql and documents",
        'tools.yaml:12: get_weather.http.method: "FETCH" is not one of GET, POST, PUT, PATCH, DELETE',
        "tools.yaml:13: get_weather.http.cache: is not a key of http; known: allow_hosts, auth, expect, "
        "follow_redirects, form, headers, json, method, path, query, source, url",
        'tools.yaml:14: get_weather.retries: is not a key of tool - did you mean "retry"?',
        "tools.yaml:15: look: needs description: when and for what the model should call this",
        'tools.yaml:17: look.python: "os:system" is outside the allowed packages (tornado_live.tools.builtin); '
        "see handler_prefixes",
        "tools.yaml:18: both: has both python and http; remove one",
        "tools.yaml:23: 1st: a name is a letter or _, then letters, digits, _ and -, at most 63",
        "tools.yaml:28: wide.description: 12 must be a text (put it in quotes)",
        'tools.yaml:30: wide.http.source: "nowhere" is not among the sources; known: both, wiki',
        "tools.yaml:31: wide.mcp: is not known yet; remove it",
    ]


@pytest.mark.parametrize(
    ("body", "parameters", "expected"),
    [
        (
            "http: {url: 'https://a.b/{q}'}\nwait: later",
            None,
            'find.wait: "later" is not one of blocking, background',
        ),
        (
            "http: {url: 'https://a.b/{q}'}\nwhen_done: silent",
            None,
            "find.when_done: is for wait: background; without it the model waits for the answer",
        ),
        ("http: {}", None, "find.http: needs source and path, or url"),
        ("timeout: 10s", None, "find: needs one of python, http and client: true"),
        ("http: {url: 'https://a.b', path: /x}", None, "find.http: path needs source"),
        ("http: {url: 'https://a.b/{q}'}\noptions: {}", None, "find: options need python"),
        (
            "http: {url: 'https://a.b/{q}'}\ntimeout: 10",
            None,
            "find.timeout: 10 is not a time; write 10s",
        ),
        (
            "http: {url: 'https://a.b/{q}'}\ntimeout: 0s",
            None,
            'find.timeout: "0s" is out of range; write more than 0s and at most 10m',
        ),
        (
            "http: {url: 'https://a.b/{q}'}\nresult: {select: 'a['}",
            None,
            'find.result.select: "a[" is not JMESPath: ',
        ),
        (
            "http: {url: 'https://a.b/{q}'}\nresult: {max_bytes: 5}",
            None,
            "find.result.max_bytes: 5 must be at least 256",
        ),
        (
            "http: {url: 'https://a.b/{q}'}\nresult: {max_items: 0}",
            None,
            "find.result.max_items: 0 must be at least 1",
        ),
        ("http: {url: 'https://a.b/{p}'}", None, "find.http.url: {p} is not among the parameters; known: q"),
        (
            "http: {url: 'https://a.b/x-{q}'}",
            None,
            'find.http.url: "https://a.b/x-{q}": {parameter} must be a whole segment',
        ),
        (
            "http: {url: 'https://{q}.b/'}",
            None,
            'find.http.url: "https://{q}.b/": the host is fixed; {parameter} may stand in the path only',
        ),
        (
            "http: {url: 'https://a:b@c.d/{q}'}",
            None,
            "no user name or password in an address; write a header",
        ),
        ("http: {url: 'https://a.b/?q={q}'}", None, "no ? and no # in an address; write query: instead"),
        ("http: {url: 'https://a.b/%2e./{q}'}", None, 'the segments "." and ".." are not allowed'),
        (
            "http: {url: 'https://a.b/{q}', headers: {Host: x}}",
            None,
            "find.http.headers.Host: is set by the client itself; remove it",
        ),
        (
            'http: {url: "https://a.b/{q}", headers: {X: "a\\nb"}}',
            None,
            "find.http.headers.X: holds a line break or control character",
        ),
        (
            "http: {url: 'https://a.b/{q}'}",
            "{type: object, properties: {q: {type: string}}}",
            "find.http.url: {q} is part of the path; add q to required",
        ),
        (
            "http: {url: 'https://a.b/'}",
            None,
            "find.parameters.properties.q: is used nowhere in http; write {q} in path, query or headers",
        ),
        (
            "http: {url: 'https://a.b/{q}'}",
            "{type: object, properties: {q: {type: strnig}}, required: [q]}",
            'find.parameters.properties.q.type: "strnig" is not a type of JSON Schema - did you mean "string"?',
        ),
        (
            "http: {url: 'https://a.b/{q}'}",
            "{type: object, properties: {q: {type: string, minLength: -1}}, required: [q]}",
            "find.parameters.properties.q.minLength: -1 is not JSON Schema: must be at least 0",
        ),
        ("http: {url: 'https://a.b/'}", "{type: string}", "find.parameters: needs type: object"),
        (
            "http: {url: 'https://a.b/{q}'}",
            "{type: object, properties: {q: {$ref: 'https://x.y/z'}}, required: [q]}",
            'find.parameters.properties.q.$ref: $ref "https://x.y/z" leaves the file; write it into $defs',
        ),
        (
            "http: {url: 'https://a.b/{q}'}",
            "{type: object, properties: {q: {type: string}}, required: [q, r]}",
            'find.parameters.required: "r" is required but is not among the properties',
        ),
        (
            "http: {source: shop, path: '/{q}'}",
            None,
            'find.http.source: "shop" is not among the sources',
        ),
        ("http: {url: 'https://a.b/${'}", None, "find.http.url: after ${ comes a name"),
        (
            "http: {url: 'https://a.b/${TOKN}/{q}'}",
            None,
            "TOKN is not set; set it in the environment",
        ),
        (
            "http: {url: 'https://a.b/{q}', query: {a: '${BRACED}'}}",
            None,
            "what BRACED holds looks like a {parameter}",
        ),
        ("http: {url: 'https://a.b/{q}'}\nmock: '${TOKN}'", None, "find.mock: ${…} is not filled in here"),
    ],
)
def test_a_mistake_names_its_path_and_says_what_to_write(
    tmp_path: Path, body: str, parameters: str | None, expected: str
) -> None:
    text = one_tool(body) if parameters is None else one_tool(body, parameters)
    [found] = mistakes(tmp_path, text, environment={"BRACED": "canary{q}"})
    assert found.startswith("tools.yaml:")
    assert "canary" not in found
    assert expected in found


def test_what_is_missing_at_the_top_is_told_with_what_to_write(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "tools: {}\n") == [
        'tools.yaml:1: version is missing - write "version: 1" at the top'
    ]
    assert mistakes(tmp_path, "version: 1\n") == [
        'tools.yaml:1: tools is missing - write "tools:" and the tools below it'
    ]


PRIVATE = ["127.0.0.1:8000", "10.1.2.3", "192.168.0.9", "[::1]", "localhost:8000"]
# The same addresses, as the C library takes them too.
ODD = [
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0x7F.1:8000",
    "0xa010203",
    "10.66051",
    "127.0.0.1.",
]


@pytest.mark.parametrize("host", [*PRIVATE, *ODD])
def test_a_url_with_a_private_address_is_told_before_a_call_refuses_it(tmp_path: Path, host: str) -> None:
    [found] = mistakes(tmp_path, one_tool(f"http: {{url: 'http://{host}/{{q}}'}}"))
    assert found == (
        f'tools.yaml:6: find.http.url: "http://{host}/{{q}}" is a private address, which every call would'
        " refuse - make it a source with allow_private: true, if it is a service of your own"
    )
    host = host.replace("0177", "127")  # which is no address to the client
    source = f"sources:\n  own: {{http: {{base_url: 'http://{host}', allow_private: true}}}}\n"
    assert load(tmp_path, source + one_tool("http: {source: own, path: '/{q}'}")).tools["find"].endpoint


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "224.0.0.1", "2852039166", "0xa9.0376.0251.0xfe", "0"]
)
def test_an_address_that_nothing_opens_is_told_without_advice_to_open_it(tmp_path: Path, host: str) -> None:
    wanted = f'"http://{host}/{{q}}" is a link-local or special address, which no tool may call'
    assert mistakes(tmp_path, one_tool(f"http: {{url: 'http://{host}/{{q}}'}}")) == [
        f"tools.yaml:6: find.http.url: {wanted}"
    ]
    source = f"sources:\n  own: {{http: {{base_url: 'http://{host}', allow_private: true}}}}\n"
    assert mistakes(tmp_path, source + one_tool("http: {source: own, path: '/{q}'}"))[0] == (
        f'tools.yaml:2: sources.own.http.base_url: "http://{host}" is a link-local or special address,'
        " which no tool may call"
    )


def test_a_source_of_another_kind_is_told(tmp_path: Path) -> None:
    text = WEATHER.replace("source: meteo", "source: shop")
    assert mistakes(tmp_path, text) == [
        'tools.yaml:15: get_weather.http.source: "shop" is a source for sql, not http'
    ]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from(
        ["", "x", "{place}", "{x}", "${X}", "5s", "object", "GET", "/a", "meteo", "shop", "os:system"]
    )
    | st.sampled_from(
        ["https://a.b", "builtin.sql:query", "#/$defs/x", "a[", "sqlite:///x", "http://[", "\x7f"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["http", "sql", "url", "type", "properties", "$ref", "allOf", "a b", "required", "enum"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)


@pytest.mark.proves("T61")
@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_value_at_any_place_is_taken_or_told_with_its_line(data: st.DataObject) -> None:
    document = parse_yaml(WEATHER, "x").data
    for _ in range(data.draw(st.integers(1, 3))):
        path, _ = data.draw(st.sampled_from([entry for entry in walk(document) if entry[0]]))
        parent: Any = document
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = data.draw(values)
    with tempfile.TemporaryDirectory() as home:
        try:
            load(Path(home), json.dumps(document))
        except ConfigError as error:
            found = [(problem.file, problem.line) for problem in error.problems]
        else:
            found = []
    assert all(place == ("tools.yaml", 1) for place in found)


def test_a_file_that_is_no_mapping_or_no_yaml_is_one_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "- a\n") == ["tools.yaml:1: must begin with version: 1 and tools:"]
    assert mistakes(tmp_path, "") == ["tools.yaml: must begin with version: 1 and tools:"]
    assert len(mistakes(tmp_path, "tools: [\n")) == 1


@pytest.mark.proves("T60")
@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:run",
        "builtin:x",
        "builtin.:x",
        "builtin..sql:query",
        "..tools.builtin.sql:query",
        "builtin.sql.os:system",
        "builtin.sql:json.dumps",
        "builtin.sql:__class__",
        "builtin.sql:_authorized",
        "builtin.sql:ToolError",
        "builtin.sql:nearest",
        "builtin.sql:handler",
        "tornado_live.tools.builtinx:y",
        "tornado_live.tools.runner:ToolRunner",
        "tornado_live.tools.builtin.__init__:x",
        "antigravity:fly",
        "this:c",
        "importlib:import_module",
        "builtin.sql",
        "builtin/sql:query",
        "builtin.sql:query()",
        "builtin.sql:query\n",
        "",
        # modules of the standard library that nothing else here imports: they must stay unknown
        "nntplib:NNTP",
        "telnetlib:Telnet",
        "xdrlib:Packer",
        "turtledemo.clock:main",
        "idlelib.run:main",
        "lib2to3.main:main",
        "pty:spawn",
        "smtpd:main",
        "mailcap:getcaps",
        "cgitb:enable",
        "__main__:main",
        "__future__:annotations",
        "sys:exit",
        "posix:system",
        "os.path:join",
        "shutil:rmtree",
        "pickle:loads",
        "code:interact",
        "tornado_live:__version__",
        "tornado_live.__main__:main",
        "tornado_live.app:serve",
        "tornado_live.settings:load_settings",
        "tornado_live.tools:builtin",
        "tornado_live.tools.python:find_handler",
        "tornado_live.tools.builtin.sql.__globals__:os",
        "tornado_live.tools.builtin:sql",
        "tornado_live.tools.builtin/../python:find_handler",
        "tornado_live.tools.builtin.:sql",
        "tornado_live.tools.builtin\\sql:query",
        "builtin.weather:current.__globals__",
        "builtin.weather:__builtins__",
        "builtin.weather:current\x00",
        "builtin.weather:current ",
        " builtin.weather:current",
        "builtin.weather::current",
        "BUILTIN.weather:current",
        "builtin.wеather:current",
        "../mytools:find",
        "/etc/passwd:x",
        ".:x",
    ],
)
def test_only_functions_under_the_allowed_packages_may_be_named(tmp_path: Path, name: str) -> None:
    before = set(sys.modules)
    [found] = mistakes(tmp_path, one_tool(f"python: {json.dumps(name)}"))
    assert found.startswith("tools.yaml:6: find.python: ")
    imported = {module for module in set(sys.modules) - before if not module.startswith(ALLOWED)}
    assert imported & FORBIDDEN == set()


def test_the_defence_is_what_keeps_a_module_from_being_imported(tmp_path: Path) -> None:
    """With the prefix allowed the same file does import it."""
    load_it = one_tool('python: "mailcap:getcaps"', "{type: object, properties: {}}")
    sys.modules.pop("mailcap", None)
    mistakes(tmp_path, load_it)
    assert "mailcap" not in sys.modules
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, so that nothing else imports it
        load(tmp_path, load_it, prefixes=("mailcap",))
    assert sys.modules.pop("mailcap")


def test_the_built_in_handlers_are_known_by_name_without_an_import() -> None:
    found = [
        f"builtin.{module.name}:{name}"
        for module in pkgutil.iter_modules(builtin.__path__)
        for name, function in vars(importlib.import_module(f"{BUILTIN}.{module.name}")).items()
        if callable(function) and spec_of(function) is not None
    ]
    assert sorted(found) == sorted(BUILT_IN_HANDLERS)


def test_a_handler_of_ones_own_is_found_under_its_prefix_and_held_to_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = handlers(
        tmp_path,
        monkeypatch,
        "own_tools_a",
        """
        def find(q, *, limit=5, context): ...
        def two(q, r): ...
        """,
    )
    tool = load(tmp_path, one_tool(f"python: {name}:find"), prefixes=(name,)).tools["find"]
    assert tool.handler is not None
    assert (tool.handler.takes_context, tool.handler.needs) == (True, {"q"})
    assert mistakes(tmp_path, one_tool(f"python: {name}:two"), prefixes=(name,)) == [
        f"tools.yaml:5: find.parameters: {name}:two needs r; name it in properties and required"
    ]
    wrong = one_tool(
        f"python: {name}:find", "{type: object, properties: {q: {}, limt: {}, context: {}}, required: [q]}"
    )
    assert mistakes(tmp_path, wrong, prefixes=(name,)) == [
        f"tools.yaml:5: find.parameters.properties.limt: {name}:find has no such parameter"
        ' - did you mean "limit"?',
        "tools.yaml:5: find.parameters.properties.context: the name context is taken; choose another",
    ]
    assert mistakes(tmp_path, one_tool(f"python: {name}:fnd"), prefixes=(name,)) == [
        f'tools.yaml:6: find.python: "{name}:fnd": {name} has no function fnd - did you mean "find"?'
    ]


def test_a_module_beside_tools_yaml_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_tools_c").mkdir()
    (tmp_path / "own_tools_c/deep.py").write_text("def find(q):\n    import own_tools_c.later\n")
    (tmp_path / "own_tools_d.py").write_text("def find(q): ...\n")
    prefixes = ("own_tools_c", "own_tools_d")
    for name in ("own_tools_c.deep", "own_tools_d"):
        tool = load(tmp_path, one_tool(f"python: {name}:find"), prefixes=prefixes).tools["find"]
        assert tool.handler is not None
        assert tool.handler.name == f"{name}:find"
    assert sys.path.count(str(tmp_path)) == 1


def test_the_home_directory_is_searched_for_no_built_in_handler(tmp_path: Path) -> None:
    mistakes(tmp_path, one_tool("python: builtin.sql:nothing"))
    assert str(tmp_path) not in sys.path


def test_a_module_that_is_not_there_is_told_with_the_place_where_it_has_to_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, file in (("own_gone", "own_gone.py"), ("own_gone.deep", "own_gone/deep.py")):
        assert mistakes(tmp_path, one_tool(f"python: {name}:find"), prefixes=("own_gone",)) == [
            f'tools.yaml:6: find.python: "{name}:find": there is no module {name}; put {file} into the home'
            f" directory ({tmp_path}), or install it beside tornado-live"
        ]


def test_a_module_that_fails_to_import_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = handlers(tmp_path, monkeypatch, "own_tools_b", "import no_such_module_at_all\n")
    assert mistakes(tmp_path, one_tool(f"python: {name}:find"), prefixes=(name,)) == [
        f'tools.yaml:6: find.python: "{name}:find": {name} cannot be imported: '
        "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    ]


OPTIONED = """
from tornado_live.tools.handler import handler
from tornado_live.tools.result import ToolCode, ToolError

def about(options, sources):
    if options["deep"] > 8:
        raise ToolError(ToolCode.FAILED, "too deep to look at")
    return f"Depth {options['deep']}."

@handler(options={
    "type": "object",
    "properties": {"source": {"type": "string"}, "deep": {"type": "integer", "maximum": 9, "default": 3}},
    "required": ["source"],
    "additionalProperties": False,
}, describe=about)
def find(q): ...
"""


def test_options_are_checked_by_the_handlers_own_schema_and_filled_with_its_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = handlers(tmp_path, monkeypatch, "own_tools_c", OPTIONED)
    sources = "sources: {shop: {sql: {url: 'sqlite:///x.db'}}}\n"

    def with_options(options: str) -> str:
        return sources + one_tool(f"python: {name}:find\noptions: {options}")

    tool = load(tmp_path, with_options("{source: shop}"), prefixes=(name,)).tools["find"]
    assert dict(tool.options) == {"source": "shop", "deep": 3}
    assert tool.description == "Finds.\nDepth 3."
    assert mistakes(tmp_path, with_options("{source: shp, dep: 1}"), prefixes=(name,)) == [
        f'tools.yaml:8: find.options.dep: is not an option of {name}:find - did you mean "deep"?',
        'tools.yaml:8: find.options.source: "shp" is not among the sources - did you mean "shop"?',
    ]
    assert mistakes(tmp_path, with_options("{deep: 12}"), prefixes=(name,)) == [
        "tools.yaml:8: find.options.deep: 12 must be at most 9",
        f"tools.yaml:8: find.options: {name}:find needs source",
    ]
    assert mistakes(tmp_path, with_options("{source: shop, deep: 9}"), prefixes=(name,)) == [
        f"tools.yaml:8: find.options: {name}:find: too deep to look at"
    ]


def test_words_of_options_may_be_of_any_language(tmp_path: Path) -> None:
    text = """
    version: 1
    sources: {handbook: {documents: {paths: [knowledge/]}}}
    tools:
      find:
        description: Finds.
        parameters: {type: object, properties: {query: {type: string}}, required: [query]}
        python: builtin.knowledge:search
        options: {source: handbook, synonyms: [[größe, μέγεθος, 大きさ, no1]]}
    """
    assert load(tmp_path, text).tools["find"].options["synonyms"] == [["größe", "μέγεθος", "大きさ", "no1"]]
    assert mistakes(tmp_path, text.replace("größe", "two words")) == [
        'tools.yaml:8: find.options.synonyms[0][0]: "two words" does not fit the pattern ^[\\p{L}\\p{N}]+$'
    ]


def test_a_tool_that_gemini_cannot_be_told_of_is_left_out_and_the_others_work(tmp_path: Path) -> None:
    text = WEATHER + textwrap.indent(
        textwrap.dedent(
            """
            tree:
              description: Walks.
              parameters:
                type: object
                properties:
                  node: {$ref: "#/$defs/node"}
                required: [node]
                $defs: {node: {type: object, properties: {child: {$ref: "#/$defs/node"}}}}
              http: {url: "https://a.example", query: {node: "{node}"}}
            """
        ),
        "  ",
    )
    catalog = load(tmp_path, text)
    assert list(catalog.tools) == ["get_weather"]
    assert [str(problem) for problem in catalog.left_out] == [
        "tools.yaml:29: tree.parameters.$defs.node.properties.child.$ref: Gemini cannot be told of this "
        "(#/$defs/node refers to itself; write out as many levels as are needed); the tool is left out"
    ]


@pytest.mark.parametrize(
    ("mock", "arguments", "expected"),
    [
        ("{c: 1}", {}, (True, {"c": 1})),
        ("[1, 2]", {}, (True, [1, 2])),
        ("[]", {}, (True, [])),
        ("[{when: {q: a}, answer: A}, {answer: other}]", {"q": "a", "n": 1}, (True, "A")),
        ("[{when: {q: a}, answer: A}, {answer: other}]", {"q": "b"}, (True, "other")),
        ("[{when: {q: a}, answer: A}]", {"q": "b"}, (False, None)),
        ("[{answer: 42, question: unknown}]", {}, (True, [{"answer": 42, "question": "unknown"}])),
    ],
)
def test_a_mock_is_one_answer_or_several_by_arguments(
    tmp_path: Path, mock: str, arguments: dict[str, Json], expected: tuple[bool, Json]
) -> None:
    tool = load(tmp_path, one_tool(f"http: {{url: 'https://a.b/{{q}}'}}\nmock: {mock}")).tools["find"]
    assert tool.mock is not None
    assert tool.mock.answer(arguments) == expected


PAGE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
EXAMPLES = [block.split("```")[0] for block in PAGE.split("```yaml\n")[1:]]


def places(schema: Any, at: str = "") -> Iterator[str]:
    """Every key that the schema of the file knows, by its place: `tools.*.http.auth.bearer`."""
    whole: Any = file_schema()
    if "$ref" in schema:
        for part in schema["$ref"].removeprefix("#/").split("/"):
            whole = whole[part]
        schema = {**whole, **{key: value for key, value in schema.items() if key != "$ref"}}
    for key, rule in schema.get("properties", {}).items():
        yield f"{at}{key}"
        yield from places(rule, f"{at}{key}.")
    for more, sign in (("additionalProperties", "*."), ("items", "")):
        if isinstance(schema.get(more), dict):
            yield from places(schema[more], at + sign)


def place_of(path: Sequence[str | int]) -> str:
    names = [part for part in path if isinstance(part, str)]
    return ".".join(
        [*names[:1], *["*" for _ in names[1:2]], *names[2:]] if names[:1] != ["defaults"] else names
    )


def test_the_documentation_names_every_key() -> None:
    told = {word for code in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"\w+", code)}
    assert sorted({place.rpartition(".")[2] for place in places(file_schema())} - told) == []


def test_the_documentation_has_an_example_of_every_key_at_every_place() -> None:
    shown = {place_of(path) for block in EXAMPLES for path, _ in walk(parse_yaml(block, "x").data)}
    assert sorted(set(places(file_schema())) - shown) == []
    assert len(shown) > 100


def documented(home: Path, number: int) -> ToolCatalog:
    names = re.findall(r"\$\{(\w+)\}|environment\.([A-Z_]+)", EXAMPLES[number])
    return load(home, EXAMPLES[number], {one or other: "canary-value" for one, other in names})


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_of_the_documentation_loads(tmp_path: Path, number: int) -> None:
    catalog = documented(tmp_path, number)
    assert catalog.tools
    assert catalog.left_out == ()
    assert "canary" not in json.dumps([catalog.listing(), catalog.declarations()])


BUILT_IN_PAGE = (ROOT / "docs" / "builtin-tools.md").read_text(encoding="utf-8")


def test_every_option_of_the_built_in_handlers_is_told_and_shown_in_a_file_that_loads(tmp_path: Path) -> None:
    [whole] = [
        block for block in re.findall(r"```yaml\n(.*?)```", BUILT_IN_PAGE, re.DOTALL) if "version: 1" in block
    ]
    catalog = load(tmp_path, whole, {"SUMMARY_KEY": "canary-value"})
    written: Any = parse_yaml(whole, "x").data
    shown = {tool["python"]: set(tool["options"]) for tool in written["tools"].values()}
    known: dict[str, set[str]] = {}
    for tool in catalog.tools.values():
        assert tool.handler is not None
        assert tool.handler.spec is not None
        properties = tool.handler.spec.options["properties"]
        assert isinstance(properties, dict)
        known[tool.handler.name] = set(properties)
    assert shown == known
    assert known.keys() == set(BUILT_IN_HANDLERS)
    for option in set().union(*known.values()):
        assert f"`{option}`" in BUILT_IN_PAGE
    assert "canary" not in json.dumps([catalog.listing(), catalog.declarations()])


def test_what_the_documentation_writes_instead_of_a_pattern_can_be_used() -> None:
    rows = PAGE.split("| instead of | write |")[1].split("\n\n")[0].splitlines()[2:]
    for row in rows:
        instead, write = (cell.replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:3])
        for pattern in re.findall(r"`([^`]+)`", instead):
            with pytest.raises(BadPattern):
                compiled(pattern)
        for pattern in re.findall(r'pattern: "([^"]+)"', write) or re.findall(r"`(\S+)`", write):
            compiled(pattern)
    assert len(rows) >= 5


# Arguments of each HTTP tool that the documentation shows, and the requests that they make, one for each example.
CALLS: dict[str, tuple[Any, ...]] = {
    "look_up_article": ({"title": "A/B"}, "GET https://en.wikipedia.org/api/rest_v1/page/summary/A%2FB"),
    "get_menu": ({}, "GET http://127.0.0.1:8000/menu.json"),
    "track_parcel": (
        {"number": "12345678"},
        "GET https://parcels.example.com/v2/parcels/12345678",
        "POST http://parcels.example.com:8080/track number=12345678&lang=en",
    ),
    "find_supplier": ({"product": "ink"}, "GET https://supplies.example.com/of/ink"),
    "order_supplies": (
        {"supplier": "s", "product": "ink", "amount": 2},
        'POST https://supplies.example.com/orders {"supplier":"s","product":"ink","amount":2}',
    ),
    "find_trains": (
        {"start": "Lyon", "goal": "Paris"},
        "GET https://trains.example.com/search?from=Lyon&to=Paris",
    ),
    "cancel_order": (
        {"number": 7},
        "DELETE https://orders.example.com/api/canary-value/acme/orders/7",
    ),
    "find_customer": (
        {"name": "Ada", "cities": ["Rome", "Oslo"]},
        "GET https://crm.example.com/api/customers/Ada?city=Rome&city=Oslo&limit=5",
    ),
    "add_note": (
        {"id": 1, "text": "hello"},
        'POST https://crm.example.com/api/notes {"customer":1,"note":{"text":"By telephone: hello"}}',
    ),
    "read_status": ({"site": "shop.example.com"}, "GET https://shop.example.com/status"),
    "find_invoice": ({"number": 3}, "GET https://billing.example.com/invoices/3"),
    "count_stock": ({"product": "ink"}, "GET https://stock.example.com/v1/count/ink"),
    "find_route": ({"branch": "oslo"}, "GET https://routes.example.com/to/oslo"),
}


def test_the_mistake_that_the_documentation_makes_is_told_as_it_says(tmp_path: Path) -> None:
    [block] = [block for block in EXAMPLES if "get_menu" in block]
    told = PAGE.split("write `selct` for `select`")[1].split("```\n")[1].strip()
    assert mistakes(tmp_path, block.replace("select:", "selct:")) == [told]


class Agreeable:
    async def confirm(self, args: Mapping[str, Json]) -> bool:
        return True

    async def perform(self, args: Mapping[str, Json]) -> Json:
        return None

    def slow(self, say: str) -> None: ...


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_every_http_tool_of_the_documentation_makes_its_request(tmp_path: Path, number: int) -> None:
    catalog = documented(tmp_path, number)
    caller = Caller("u", roles=frozenset(["staff", "support", "orders:write"]), claims={"tenant_id": "acme"})
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url} {request.content.decode()}".strip())
        text = {"Content-Type": "text/plain"} if request.url.path == "/status" else {}
        return httpx.Response(200, headers=text or {"Content-Type": "application/json"}, content=b'{"a": 1}')

    runner = ToolRunner(mock="never", http=httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    try:
        for tool in catalog.tools.values():
            if tool.endpoint is not None:
                args, *requests = CALLS[tool.name]
                call = ToolCall("1", tool.name, args)
                result = await runner.run(catalog, call, caller=caller, session_id="s", person=Agreeable())
                assert result.ok, result.response
                assert any(asked[-1].startswith(request) for request in requests), asked[-1]
    finally:
        await runner.close()


async def test_the_calls_that_the_documentation_gives_as_examples_are_answered_so(tmp_path: Path) -> None:
    ran = 0
    for block in EXAMPLES:
        if "examples:" in block:
            out = io.StringIO()
            assert await run_examples(load(tmp_path, block), (), mock="always", out=out) == OK, out.getvalue()
            ran += out.getvalue().count(": ok")
    assert ran >= 2


def test_the_documentation_names_every_code_that_a_call_can_end_with() -> None:
    table = PAGE.split("| code | when |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [code.value for code in ToolCode]
    for reason in ("requires", "bind", "confirm", *CallLimits.__dataclass_fields__, *BOUNDS):
        assert f"`{reason}`" in table


BOUNDS = ("limits.tool_calls_per_turn", "limits.tool_calls_per_minute")


def test_the_documentation_says_what_becomes_of_values_that_nobody_may_see(tmp_path: Path) -> None:
    text = one_tool(
        """
        http: {url: "https://a.example/{q}", headers: {X-A: "${PLAIN}"}, query: {s: "{shop}"}}
        bind: {shop: environment.SHOP_NAME}
        """
    )
    catalog = load(tmp_path, text, {"PLAIN": "in-request", "SHOP_NAME": "bound-name"})
    assert set(catalog.secrets) == {"in-request", "bound-name"}
    told = PAGE.split("come out of results")[1].split("### ")[0]
    assert "`bind` takes from the environment" in told


def test_a_value_that_nothing_calls_a_secret_spoils_no_longer_word(tmp_path: Path) -> None:
    text = one_tool(
        """
        http:
          url: "https://a.example/{q}"
          query: {units: "${UNITS}", appid: "${OFFICE}", token: "${SHORT}", again: "${TWICE}", a: "{shop}"}
          headers: {X-Password: "${TWICE}"}
          auth: {bearer: "${BEARER}"}
        bind: {shop: environment.SHOP_NAME}
        """
    )
    values = {
        "UNITS": "metric",
        "OFFICE": "0123456789abcdef",
        "SHORT": "canary",
        "TWICE": "second",
        "BEARER": "bearer",
        "SHOP_NAME": "corner",
    }
    catalog = load(tmp_path, text, values)
    seen = "metrics x0123456789abcdefx canarys seconds bearers corners; metric, corner"
    assert redacted_text(seen, catalog.secrets) == "metrics x***x ***s ***s ***s corners; ***, ***"


def test_the_policy_of_a_call_is_what_the_file_says_of_the_tool(tmp_path: Path) -> None:
    text = one_tool(
        "http: {url: 'https://a.b/{q}'}\nwait: background\nwhen_done: silent\non_interrupt: detach\n"
    )
    catalog = load(tmp_path, text)
    assert catalog.policy("find") == CallPolicy("background", "silent", "detach")
    assert catalog.listing()[0]["behaviour"] == "background"
    assert catalog.policy("another") == CallPolicy("blocking", "when_idle", "cancel")


EVERY_KEY: dict[str, str] = {
    "description": "description: Another.",
    "parameters": "parameters: {type: object, properties: {q: {type: integer}}, required: [q]}",
    "http": "http: {url: 'https://b.example/{q}'}",
    "python": "python: builtin.weather:current",
    "options": "options: {units: imperial}",
    "client": "client: true",
    "timeout": "timeout: 4s",
    "retry": "retry: {attempts: 2}",
    "cache": "cache: 5m",
    "side_effects": "side_effects: true",
    "confirm": "confirm: true",
    "wait": "wait: background",
    "when_done": "when_done: silent",
    "on_interrupt": "on_interrupt: detach",
    "slow_after": "slow_after: 2s",
    "slow_say": "slow_say: Still looking.",
    "bind": "bind: {q: session.user}",
    "requires": "requires: [support]",
    "limits": "limits: {per_minute: 3}",
    "result": "result: {max_items: 3}",
    "mock": "mock: {a: 1}",
    "examples": "examples: [{args: {q: x}, expect: {}}]",
}
NEEDED = {"when_done": "wait: background", "slow_say": "slow_after: 2s"}


def with_key(key: str, *, is_set: bool) -> str:
    lines = {
        "description": "description: Finds.",
        "parameters": "parameters: {type: object, properties: {q: {type: string}}, required: [q]}",
        "http": "http: {url: 'https://a.example/{q}'}",
    }
    if key in ("python", "options"):
        lines["parameters"] = (
            "parameters: {type: object, properties: {location: {type: string}}, required: [location]}"
        )
        lines["http"] = EVERY_KEY["python"] if is_set or key == "options" else "client: true"
    if key in NEEDED:
        lines["needed"] = NEEDED[key]
    if is_set and key != "python":
        lines[key if key != "client" else "http"] = EVERY_KEY[key]
    return "version: 1\ntools:\n  find:\n" + "".join(f"    {line}\n" for line in lines.values())


def test_the_table_of_keys_is_that_of_the_schema() -> None:
    schema: Any = file_schema()
    assert EVERY_KEY.keys() == schema["$defs"]["tool"]["properties"].keys()


@pytest.mark.parametrize("key", EVERY_KEY)
def test_every_key_that_the_schema_lets_through_is_read(tmp_path: Path, key: str) -> None:
    with_it, without = (
        load(tmp_path, with_key(key, is_set=is_set)).tools["find"] for is_set in (True, False)
    )
    assert with_it != without


def test_defaults_hold_where_a_tool_says_nothing_and_where_they_make_sense(tmp_path: Path) -> None:
    text = """
    version: 1
    defaults:
      timeout: 4s
      retry: {attempts: 3}
      cache: 1m
      wait: background
      when_done: silent
      slow_after: 5s
      limits: {per_minute: 9, concurrency: 2}
      result: {max_bytes: 2048}
      requires: [staff]
      confirm: true
    tools:
      plain: {description: P., parameters: {}, http: {url: "https://a.example"}}
      own:
        description: O.
        parameters: {}
        http: {url: "https://a.example", method: POST}
        timeout: 20s
        side_effects: true
        wait: blocking
        limits: {per_minute: 1}
        result: {max_items: 2}
        requires: [admin]
        confirm: false
      page: {description: C., parameters: {}, client: true}
    """
    tools = load(tmp_path, text).tools
    plain, own, page = tools["plain"], tools["own"], tools["page"]
    assert (plain.timeout_s, plain.cache_s, plain.policy.when_done, plain.requires) == (
        4.0,
        60.0,
        "silent",
        {"staff"},
    )
    assert plain.retry is not None
    assert plain.policy.slow_after_s is None  # the deadline is nearer
    assert (own.timeout_s, own.retry, own.cache_s, own.policy.wait) == (20.0, None, None, "blocking")
    assert own.policy.slow_after_s == 5.0
    assert (own.limits.per_minute, own.limits.concurrency) == (1, 2)
    assert (own.result.max_items, own.result.max_bytes) == (2, 2048)
    assert (own.requires, own.policy.confirm, plain.policy.confirm) == ({"admin"}, False, True)
    assert (page.retry, page.cache_s, page.policy.client) == (None, None, True)


def test_toolsets_stand_for_their_tools_and_callers_see_what_they_may_use(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(
        "version: 1\ntoolsets: {back: [stock]}\ntools:\n"
        "  stock: {description: S., parameters: {}, client: true, requires: [staff, 'stock:read']}\n"
    )
    text = """
    version: 1
    include: [more.yaml]
    toolsets: {front: [look, stock]}
    tools:
      look: {description: L., parameters: {}, client: true}
      other: {description: O., parameters: {}, client: true}
    """
    catalog = load(tmp_path, text)
    assert list(catalog.tools) == ["look", "other", "stock"]
    assert catalog.names(["front"]) == ("look", "stock")
    assert catalog.names(["back", "other"]) == ("other", "stock")
    assert catalog.names(None) is None
    assert [one["name"] for one in catalog.listing(["front"])] == ["look", "stock"]
    clerk = Caller("c", roles=frozenset(["staff"]), claims={"scope": "a stock:read"})
    assert catalog.for_caller(clerk) is catalog
    assert list(catalog.for_caller(Caller("d", roles=frozenset(["staff"]))).tools) == ["look", "other"]
    assert [path.name for path in catalog.files] == ["tools.yaml", "more.yaml"]


def test_bound_parameters_are_the_callers_and_unknown_to_the_model(tmp_path: Path) -> None:
    text = one_tool(
        """
        http: {url: "https://a.example/{q}", query: {t: "{tenant}", k: "{key}", s: "{session}"}}
        bind: {tenant: claims.org.id, key: environment.OWN, session: session.id}
        """,
        "{type: object, properties: {q: {}, tenant: {type: string, maxLength: 4}}, required: [q, tenant]}",
    )
    catalog = load(tmp_path, text, {"OWN": "canary-own"})
    tool = catalog.tools["find"]
    assert tool.parameters == {"type": "object", "properties": {"q": {}}, "required": ["q"]}
    assert "tenant" not in json.dumps([catalog.declarations(), catalog.listing()])
    caller = Caller("u", claims={"org": {"id": "acme"}})
    assert {name: bound.of(caller, "s1") for name, bound in tool.bind.items()} == {
        "tenant": "acme",
        "key": "canary-own",
        "session": "s1",
    }
    assert tool.bind["tenant"].rule == {"type": "string", "maxLength": 4}
    assert catalog.secrets == ("canary-own",)
    assert "canary" not in repr(tool.bind)
    with pytest.raises(LookupError):
        tool.bind["tenant"].of(Caller("u", claims={"org": "acme"}), "s1")
