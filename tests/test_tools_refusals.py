"""What a tools.yaml and a model may try that never comes to anything: bombs, names that are not theirs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError, Problem
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.result import ToolCode
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.tools.watching import ToolFiles, WatchedCatalog

NOWHERE = httpx.MockTransport(lambda request: httpx.Response(404))
REFUSED_MODULE = """
ran = []


async def note(**arguments):
    ran.append(arguments)
    return "ran"
"""
TOOLS = """
version: 1
toolsets:
  front: [look, bound]
tools:
  look:
    description: Looks.
    parameters:
      type: object
      properties:
        q: {type: string, minLength: 1, maxLength: 5}
        n: {type: integer, minimum: 1, maximum: 3}
        kind: {type: string, enum: [a, b]}
        tags: {type: array, items: {type: string}, maxItems: 2}
      required: [q]
    python: refused_tools:note
  bound:
    description: Asks for a tenant's own.
    parameters: {type: object, properties: {q: {type: string}}, additionalProperties: true}
    bind: {tenant: claims.tenant_id}
    python: refused_tools:note
  admin:
    description: Of another toolset.
    parameters: {}
    python: refused_tools:note
  guarded:
    description: Of other callers.
    parameters: {}
    requires: [orders:write]
    python: refused_tools:note
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> ToolCatalog:
    home = tmp_path_factory.mktemp("refusals")
    (home / "refused_tools.py").write_text(REFUSED_MODULE)
    (home / "tools.yaml").write_text(TOOLS)
    return load_catalog(
        home / "tools.yaml", home=home, data_dir=home, environment={}, handler_prefixes=("refused_tools",)
    )


def ran() -> list[dict[str, Any]]:
    import refused_tools  # type: ignore[import-not-found] # found in the home directory by now

    found: list[dict[str, Any]] = refused_tools.ran
    return found


def call(catalog: ToolCatalog, name: str, args: Any, **claims: object) -> dict[str, Any]:
    """What the model is answered."""

    async def run() -> dict[str, Any]:
        # A client of its own takes a tenth of a second to be made, and nothing here has an address.
        runner = ToolRunner(mock="never", http=httpx.AsyncClient(transport=NOWHERE))
        caller = Caller("alice", claims=claims)
        allowed = catalog.names(["front", "guarded"])
        try:
            made = ToolCall("1", name, args)
            result = await runner.run(
                catalog.for_caller(caller), made, caller=caller, session_id="s", allowed=allowed
            )
        finally:
            await runner.close()
        return dict(result.response)

    return asyncio.run(run())


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.proves("T63")
@given(
    st.sampled_from(["admin", "guarded", "front", "Look", "look ", "__init__", "tools.look", ""])
    | st.text(max_size=20).filter(lambda name: name not in ("look", "bound")),
    st.dictionaries(st.sampled_from(["q", "x"]), anything, max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_a_tool_that_is_not_the_sessions_own_is_never_run(
    catalog: ToolCatalog, name: str, args: dict[str, Any]
) -> None:
    ran().clear()
    answer = call(catalog, name, args)
    assert answer["status"] == "error"
    assert answer["error"]["code"] in (ToolCode.UNKNOWN_TOOL, ToolCode.NOT_ALLOWED)
    assert "admin" not in answer["error"]["hint"]
    assert ran() == []


WRONG = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"q": anything.filter(lambda value: not isinstance(value, str))}),
    st.fixed_dictionaries({"q": st.just("") | st.text(min_size=6, max_size=9)}),
    st.fixed_dictionaries({"q": st.just("ok"), "n": st.sampled_from([0, 4, 1.5, "2", True, None, [1]])}),
    st.fixed_dictionaries({"q": st.just("ok"), "kind": st.sampled_from(["c", "A", "", 1, None])}),
    st.fixed_dictionaries({"q": st.just("ok"), "tags": st.sampled_from([["a", "b", "c"], [1], "a", {}])}),
    st.builds(lambda name, value: {"q": "ok", name: value}, st.text(min_size=5, max_size=9), anything),
)


@pytest.mark.proves("T63")
@given(WRONG)
@settings(max_examples=150, deadline=None)
def test_arguments_of_wrong_types_or_names_are_never_given_to_the_tool(
    catalog: ToolCatalog, args: dict[str, Any]
) -> None:
    ran().clear()
    answer = call(catalog, "look", args)
    assert answer["error"]["code"] == ToolCode.INVALID_ARGUMENTS
    assert ran() == []


@pytest.mark.proves("T62")
@given(anything)
@settings(max_examples=100, deadline=None)
def test_the_model_cannot_say_what_the_token_says(catalog: ToolCatalog, tenant: Any) -> None:
    ran().clear()
    call(catalog, "bound", {"q": "x", "tenant": tenant}, tenant_id="acme")
    assert [one["tenant"] for one in ran()] in ([], ["acme"])
    assert call(catalog, "bound", {"q": "x"}, tenant_id="acme") == {"status": "ok", "result": "ran"}
    assert ran()[-1] == {"q": "x", "tenant": "acme"}
    declared = json.dumps(catalog.declarations(["front"])) + json.dumps(catalog.listing(["front"]))
    assert "tenant_id" not in declared
    assert '"tenant"' not in declared


def bombs() -> dict[str, str]:
    head = "version: 1\ntools: {}\n"
    names = "abcdefghij"
    merges = "\n".join(
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}" for before, name in pairwise(names)
    )
    aliases = "\n".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise(names)
    )
    return {
        "merge keys": f"{head}a: &a {{x: 1}}\n{merges}\n",
        "aliases": f"{head}a: &a [x]\n{aliases}\n",
        "an alias of itself": head + "a: &a [*a]\n",
        "a list without end": head + "a: " + "[" * 100_000,
        "mappings without end": head + "a: " + "{a: " * 50_000,
        "blocks without end": head + "".join(" " * level + "a:\n" for level in range(700)),
        "the same key": head + "a: 1\n" * 60_000,
        "a number": head + "a: " + "9" * 200_000,
        "an exponent": head + "a: 1e999999999\n",
        "sixty": head + "a: 1:30:00\nb: 0777\nc: on\n",
        "a tag that runs": head + "a: !!python/object/apply:os.system ['exit 1']\n",
        "a tag that makes": head + "a: !!python/object/new:tuple [[1, 2]]\n",
        "a tag of text": head + "a: !!str 1\n",
        "binary": head + "a: !!binary aGk=\n",
        "two documents": head + "---\n" * 1000,
        "a key of keys": head + "? {a: {b: c}}\n: 1\n",
        "quotes": head + 'a: "' + "\\x41" * 60_000 + '"\n',
        "too much": head + "#" * 300_000,
        "no text": head + "a: \x00\n",
        "directives": "%YAML 1.1\n%TAG ! tag:x,2000:\n---\n" + head,
        "a comment": head + "# " + "x" * 200_000 + "\n",
        "many keys": head + "".join(f"k{number}: 1\n" for number in range(20_000)),
        "a pattern": head + "sources: {a: {http: {base_url: 'https://a.example/" + "a" * 50_000 + "'}}}\n",
        "a duration": head + "defaults: {timeout: " + "9" * 50_000 + "s}\n",
    }


@pytest.mark.proves("T61")
@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_a_clear_mistake_with_its_line_or_costs_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "tools.yaml").write_bytes(bombs()[name].encode())
    found = told(tmp_path)
    assert found or cheapest(lambda: spent(lambda: told(tmp_path))) < LONGEST_S
    whole_file = ("is bigger than 256 KiB", "holds a control character; remove it")
    assert all(problem.line or problem.message in whole_file for problem in found)
    assert len(found) <= 100
    assert sum(len(str(problem)) for problem in found) < 20_000


LONGEST_S = 0.1


@pytest.mark.proves("T61")
@pytest.mark.parametrize("name", bombs())
def test_a_bomb_that_is_saved_while_people_talk_holds_up_nobody(tmp_path: Path, name: str) -> None:
    (tmp_path / "tools.yaml").write_bytes(bombs()[name].encode())
    assert cheapest(lambda: asyncio.run(lag_of_a_reload(tmp_path))) < LONGEST_S


async def lag_of_a_reload(home: Path) -> float:
    """The longest that the loop had to wait for its turn while the file was read again, in time of the processor:
    what else the machine does meanwhile does not count.
    """
    read = asyncio.Event()
    files = ToolFiles(home / "tools.yaml", home=home)
    watched = WatchedCatalog(
        ToolCatalog.EMPTY,
        files,
        {},
        lambda: load_catalog(home / "tools.yaml", home=home, data_dir=home, environment={}),
        lambda _: read.set(),
        poll_s=3600,
    )
    watched.start()
    watched.reload()
    longest, before = 0.0, time.process_time()
    while not read.is_set():
        await asyncio.sleep(0)
        now = time.process_time()
        longest, before = max(longest, now - before), now
    await watched.close()
    return longest


def spent(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def cheapest(measured: Callable[[], float]) -> float:
    """Of five: what takes long takes it every time, the collector of garbage does not."""
    seconds = measured()
    for _ in range(4):
        if seconds < LONGEST_S:
            break
        seconds = min(seconds, measured())
    return seconds


def told(home: Path) -> tuple[Problem, ...]:
    """The mistakes of a file that has no tool that could be used."""
    try:
        catalog = load_catalog(home / "tools.yaml", home=home, data_dir=home, environment={})
    except ConfigError as error:
        return error.problems
    assert catalog.tools == {}
    return ()


# The same with the defence taken away: what is proved above does not hold by itself.


def test_without_bind_the_model_would_say_whose_data_it_wants(tmp_path: Path) -> None:
    (tmp_path / "refused_tools.py").write_text(REFUSED_MODULE)
    (tmp_path / "tools.yaml").write_text(TOOLS.replace("    bind: {tenant: claims.tenant_id}\n", ""))
    unbound = load_catalog(
        tmp_path / "tools.yaml",
        home=tmp_path,
        data_dir=tmp_path,
        environment={},
        handler_prefixes=("refused_tools",),
    )
    ran().clear()
    call(unbound, "bound", {"q": "x", "tenant": "evil"}, tenant_id="acme")
    assert ran() == [{"q": "x", "tenant": "evil"}]


def test_without_requires_a_caller_without_the_scope_would_have_the_tool(
    tmp_path: Path, catalog: ToolCatalog
) -> None:
    ran().clear()
    assert call(catalog, "guarded", {}, scope="orders:write")["status"] == "ok"
    assert ran() == [{}]


def test_a_loader_that_does_not_leave_the_loop_its_turn_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\ntools: {}\n")

    def stubborn(*_: object, **__: object) -> ToolCatalog:
        assert 3**2_500_000  # one step for Python
        return ToolCatalog.EMPTY

    monkeypatch.setattr("test_tools_refusals.load_catalog", stubborn)
    assert cheapest(lambda: asyncio.run(lag_of_a_reload(tmp_path))) > LONGEST_S


def test_a_plain_loader_would_follow_the_aliases() -> None:
    small = "a: &a [x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n"
    assert len(json.dumps(yaml.safe_load(small))) > 10 * len(small)
