"""What is added to a call, and what keeps it from being made: steps 3 to 5 of docs/tools.md."""

from __future__ import annotations

import asyncio
import re
import textwrap
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tornado_live.caller import Caller
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.kept import MOST_BYTES, KeptAnswers
from tornado_live.tools.result import Json, ToolCode, ToolError, ToolResult
from tornado_live.tools.runner import ToolCall, ToolRunner
from tornado_live.tools.tool import validator_for

HANDLERS = """
import asyncio

made = []

def order(item, tenant=None, user=None):
    made.append((item, tenant, user))
    return {"item": item, "tenant": tenant, "user": user, "times": len(made)}

def key(item, context):
    return context.idempotency_key

def many():
    return list(range(10))

def refuse(item, tenant, user):
    from tornado_live.tools.result import ToolCode, ToolError

    raise ToolError(ToolCode.FAILED, f"{tenant} has no {item}, and 3 more.", hint=f"Ask {user} for it.")

async def slow():
    await asyncio.Event().wait()
"""
ANN = Caller("ann", claims={"tenant": {"id": "t1"}, "scope": "orders:write"})
ITEM = "{type: object, properties: {item: {type: string}}, required: [item]}"


def catalog(home: Path, tool: str, name: str = "order") -> ToolCatalog:
    (home / "call_tools.py").write_text(HANDLERS, encoding="utf-8")
    text = f"""
    version: 1
    tools:
      {name}:
        description: Orders.
        python: call_tools:{name}
    """
    written = textwrap.dedent(text) + textwrap.indent(textwrap.dedent(tool), "    ")
    (home / "tools.yaml").write_text(written, encoding="utf-8")
    return load_catalog(
        home / "tools.yaml",
        home=home,
        data_dir=home,
        environment={"SHOP": "s9"},
        handler_prefixes=["call_tools"],
    )


@asynccontextmanager
async def runner(transport: httpx.MockTransport | None = None) -> AsyncIterator[ToolRunner]:
    made = ToolRunner(mock="never", http=httpx.AsyncClient(transport=transport) if transport else None)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "call_tools", raising=False)


async def run(
    made: ToolRunner,
    tools: ToolCatalog,
    name: str = "order",
    caller: Caller = ANN,
    session: str = "s1",
    **args: Json,
) -> ToolResult:
    return await made.run(tools, ToolCall("c1", name, args), caller=caller, session_id=session)


def code(result: ToolResult) -> Any:
    return result.error


BOUND = """
    parameters: {type: object, properties: {item: {type: string}}, required: [item]}
    bind: {tenant: claims.tenant.id, user: session.user}
"""


@pytest.mark.proves("T62")
async def test_a_bound_parameter_is_the_callers_and_the_model_cannot_set_it(tmp_path: Path) -> None:
    tools = catalog(tmp_path, BOUND)
    assert "tenant" not in str(tools.tools["order"].declaration)
    async with runner() as made:
        result = await run(made, tools, item="pen")
        assert result.response["result"] == {"item": "pen", "tenant": "t1", "user": "ann", "times": 1}
        result = await run(made, tools, item="pen", tenant="t2")
        assert code(result) is ToolCode.INVALID_ARGUMENTS
        result = await run(made, tools, caller=Caller("bob"), item="pen")
        assert code(result) is ToolCode.NOT_ALLOWED


WHAT_IS_BOUND = ("tenant", "t1", "claims", "user", "ann", "fruit")


@pytest.mark.proves("T62")
async def test_neither_names_nor_values_of_bound_parameters_are_in_what_the_model_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for bind, extra in (
        ("{tenant: claims.tenant.id, user: session.user}", ""),
        ("{tenant: claims.fruit.id, user: session.user}", ""),
        ("{tenant: claims.tenant.id, user: claims.fruit}", ""),
        ("{tenant: claims.tenant.id, user: session.user}", ", tenant: {type: integer}"),
        ("{tenant: claims.tenant.id, user: session.user}", ", tenant: {type: string, enum: [t7]}"),
    ):
        parameters = f"{{type: object, properties: {{item: {{type: string}}{extra}}}, required: [item]}}"
        tools = catalog(tmp_path, f"parameters: {parameters}\nbind: {bind}\n")
        async with runner() as made:
            for args in ({"item": "pen"}, {}, {"item": 7}, {"item": "pen", "colour": 1}):
                if (result := await run(made, tools, **args)).ok:  # type: ignore[arg-type]
                    continue
                words = re.findall(r"\w+", str(result.response) + result.summary)
                assert not set(words) & set(WHAT_IS_BOUND), words
    assert "tenant: claims.fruit.id is not known" in caplog.text, "the operator is told"
    assert "t1" not in re.findall(r"\w+", caplog.text)


@pytest.mark.proves("T62")
@pytest.mark.parametrize(
    "more", ["", ", additionalProperties: true", ", additionalProperties: {type: string}"]
)
async def test_a_bound_parameter_that_the_model_sends_is_unknown_like_any_other(
    tmp_path: Path, more: str
) -> None:
    schema = f"{{type: object, properties: {{item: {{type: string}}}}, required: [item]{more}}}"
    tools = catalog(tmp_path, f"parameters: {schema}\nbind: {{tenant: claims.tenant.id}}\n")
    async with runner() as made:
        for sent in ("t2", 5, None):
            result = await run(made, tools, item="pen", tenant=sent)
            error = result.response["error"]
            assert isinstance(error, dict)
            assert error["code"] == "invalid_arguments"
            assert error["message"] == 'There is no parameter "tenant" (the parameters are item)'
        if not more:
            result = await run(made, tools, item="pen", colour="red", tenant="t2")
            told = 'There are no parameters "colour", "tenant" (the parameters are item)'
            assert told in str(result.response)


@pytest.mark.proves("T62")
async def test_a_request_that_bound_parameters_spoil_says_no_more_than_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
    version: 1
    tools:
      look:
        description: Looks.
        parameters: {type: object, properties: {item: {type: string}}, required: [item]}
        bind: {tenant: claims.tenant}
        http: {method: GET, url: "https://shop.example/{tenant}/{item}", headers: {X-Item: "{item}"}}
    """
    (tmp_path / "tools.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    tools = load_catalog(tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path, environment={})
    caplog.set_level("INFO")
    async with runner() as made:
        for tenant in ("..", ["a"], ""):
            caller = Caller("ann", claims={"tenant": tenant})
            result = await run(made, tools, "look", caller, item="pen")
            assert code(result) is ToolCode.NOT_ALLOWED
            assert "tenant" not in str(result.response)
        result = await run(made, tools, "look", Caller("ann", claims={"tenant": "a"}), item="..")
        assert "item must not be empty" in str(result.response)
    assert 'tenant must not be empty, "." or ".."' in caplog.text


@pytest.mark.proves("T62")
async def test_a_handlers_own_error_does_not_tell_what_is_bound(tmp_path: Path) -> None:
    tools = catalog(tmp_path, BOUND.replace("tenant.id", "tenant"), "refuse")
    async with runner() as made:
        for tenant, shown in (
            ("acme-4711", "*** has no pen, and 3 more."),
            (4711, "*** has no pen, and 3 more."),
        ):
            caller = Caller("anna", claims={"tenant": tenant})
            result = await run(made, tools, "refuse", caller, item="pen")
            error = result.response["error"]
            assert isinstance(error, dict)
            assert (error["message"], error["hint"]) == (shown, "Ask *** for it.")
            assert result.summary == shown


@pytest.mark.proves("T62")
async def test_a_tool_that_requires_a_scope_is_not_run_without_it(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\nrequires: [orders:write]\n")
    async with runner() as made:
        assert (await run(made, tools, item="pen")).ok
        result = await run(made, tools, caller=Caller("bob"), item="pen")
        assert code(result) is ToolCode.NOT_ALLOWED
        assert tools.for_caller(Caller("bob")).declarations() == []


async def test_a_tool_has_limits_of_its_own(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\nlimits: {{per_minute: 3, per_session: 2}}\n")
    async with runner() as made:
        assert [(await run(made, tools, item=str(n))).ok for n in range(3)] == [True, True, False]
        assert (await run(made, tools, session="s2", item="x")).ok
        result = await run(made, tools, session="s3", item="x")
        assert code(result) is ToolCode.LIMITED
        assert (await run(made, tools, caller=Caller("bob"), session="s4", item="x")).ok


async def test_so_many_may_use_it_at_a_time_and_its_place_is_given_back(tmp_path: Path) -> None:
    empty = "{type: object, properties: {}}"
    tools = catalog(tmp_path, f"parameters: {empty}\nlimits: {{concurrency: 1}}\n", "slow")
    async with runner() as made, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(run(made, tools, "slow"))
        await asyncio.sleep(0)
        result = await run(made, tools, "slow")
        assert code(result) is ToolCode.LIMITED
        first.cancel()
        await asyncio.wait([first])
        second = tasks.create_task(run(made, tools, "slow"))
        await asyncio.sleep(0)
        assert not second.done()
        second.cancel()


async def test_a_kept_answer_is_given_to_the_same_user_for_the_same_arguments(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\n")

    def times(result: ToolResult) -> Any:
        answer = result.response["result"]
        assert isinstance(answer, dict)
        return answer["times"]

    async with runner() as made:
        assert times(await run(made, tools, item="a")) == 1
        assert times(await run(made, tools, item="a")) == 1
        assert times(await run(made, tools, item="b")) == 2
        assert times(await run(made, tools, caller=Caller("bob"), item="a")) == 3


async def test_an_answer_is_kept_for_who_the_caller_is_not_for_a_name(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\n")
    callers = [
        Caller("ann", claims={"tenant": "t1", "exp": 1, "jti": "a"}),
        Caller("ann", claims={"exp": 2, "tenant": "t1", "jti": "b"}),
        Caller("ann", claims={"tenant": "t2", "exp": 1}),
        Caller("ann", roles=frozenset({"admin"}), claims={"tenant": "t1", "exp": 1}),
    ]
    async with runner() as made:
        results = [(await run(made, tools, caller=caller, item="a")).response["result"] for caller in callers]
    assert [result["times"] for result in results] == [1, 1, 2, 3]  # type: ignore[index, call-overload]


async def test_a_handler_knows_a_call_again_that_was_broken_off(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\nside_effects: true\n", "key")
    async with runner() as made:
        keys = [
            (await made.run(tools, call, caller=ANN, session_id="s1")).response["result"]
            for call in (
                ToolCall("a", "key", {"item": "pen"}),
                ToolCall("b", "key", {"item": "pen"}, repeats="a"),
                ToolCall("b", "key", {"item": "pen"}),
            )
        ]
    assert keys[0] == keys[1] != keys[2]
    assert all(keys)


async def test_a_tool_that_was_edited_keeps_no_answer_of_before(tmp_path: Path) -> None:
    async with runner() as made:
        tools = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\n")
        assert (await run(made, tools, item="a")).response["result"] == {
            **{"item": "a", "tenant": None, "user": None},
            "times": 1,
        }
        tools = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\nresult: {{select: times}}\n")
        assert (await run(made, tools, item="a")).response["result"] == 2
        assert (await run(made, tools, item="a")).response["result"] == 2


def test_long_arguments_of_short_answers_are_no_way_to_fill_the_memory(tmp_path: Path) -> None:
    tool = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\n").tools["order"]
    kept = KeptAnswers()
    for number in range(40):
        kept.keep(tool, ANN, {"item": str(number) + "x" * 1_000_000}, "ok", 10.0)
    held = [kept.get(tool, ANN, {"item": str(number) + "x" * 1_000_000}, 1.0)[0] for number in range(40)]
    assert held[-1]
    assert 0 < sum(held) * 1_000_000 <= MOST_BYTES


async def test_a_person_who_thinks_about_it_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\nconfirm: true\nlimits: {{concurrency: 1}}\n")
    call = ToolCall("c1", "order", {"item": "pen"})
    thinking, decided = Somebody(), asyncio.Event()

    async def think(args: Mapping[str, Json]) -> bool:
        thinking.asked.append(args)
        asked.set()
        return await decided.wait()

    asked, thinking.confirm = asyncio.Event(), think  # type: ignore[method-assign]
    async with runner() as made, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(made.run(tools, call, caller=ANN, session_id="s1", person=thinking))
        await asked.wait()
        assert (await made.run(tools, call, caller=ANN, session_id="s2", person=Somebody())).ok
        decided.set()
        assert (await first).ok


async def test_a_place_that_was_taken_while_a_person_thought_is_told(tmp_path: Path) -> None:
    tools = catalog(
        tmp_path,
        "parameters: {type: object, properties: {}}\nconfirm: true\nlimits: {concurrency: 1}\n",
        "slow",
    )
    call = ToolCall("c1", "slow", {})
    async with runner() as made, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(made.run(tools, call, caller=ANN, session_id="s1", person=Somebody()))
        await asyncio.sleep(0)
        assert not first.done()
        result = await made.run(tools, call, caller=ANN, session_id="s2", person=Somebody())
        assert code(result) is ToolCode.LIMITED
        first.cancel()
        await asyncio.wait([first])


async def test_a_long_list_is_shortened_and_the_page_may_have_it_whole(tmp_path: Path) -> None:
    result = "result: {max_items: 3, to_client: true}"
    tools = catalog(tmp_path, f"parameters: {{type: object, properties: {{}}}}\n{result}\n", "many")
    async with runner() as made:
        done = await run(made, tools, "many")
    assert done.response["result"] == [0, 1, 2]
    assert done.response["note"] == "These are the first 3 of 10."
    assert done.whole == list(range(10))


class Somebody:
    """A person who says what they are told to, or nothing."""

    def __init__(self, consents: bool = True, response: Json = None) -> None:
        self.consents, self.response = consents, response
        self.asked: list[Mapping[str, Json]] = []

    async def confirm(self, args: Mapping[str, Json]) -> bool:
        self.asked.append(args)
        return self.consents

    async def perform(self, args: Mapping[str, Json]) -> Json:
        self.asked.append(args)
        return self.response

    def slow(self, say: str) -> None:
        raise ToolError(ToolCode.FAILED, say)


async def test_a_person_is_asked_before_the_call_is_made_and_may_say_no(tmp_path: Path) -> None:
    tools = catalog(tmp_path, BOUND + "    confirm: true\n")
    call = ToolCall("c1", "order", {"item": "pen"})
    async with runner() as made:
        for consents in (True, False):
            person = Somebody(consents)
            result = await made.run(tools, call, caller=ANN, session_id="s1", person=person)
            assert result.ok is consents
            assert person.asked == [{"item": "pen"}], "what is bound is nobody's to see"
        assert code(result) is ToolCode.REFUSED
        nobody = await made.run(tools, call, caller=ANN, session_id="s1")
        assert code(nobody) is ToolCode.REFUSED
        wrong = ToolCall("c2", "order", {"item": 7})
        person = Somebody()
        result = await made.run(tools, wrong, caller=ANN, session_id="s1", person=person)
        assert (code(result), person.asked) == (ToolCode.INVALID_ARGUMENTS, [])


async def test_the_page_runs_its_own_function_and_may_say_that_it_failed(tmp_path: Path) -> None:
    text = """
    version: 1
    tools:
      turn:
        description: Turns the page.
        parameters: {type: object, properties: {by: {type: integer}}, required: [by]}
        client: true
    """
    (tmp_path / "tools.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    tools = load_catalog(tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path, environment={})
    call = ToolCall("c1", "turn", {"by": 2})
    async with runner() as made:
        person = Somebody(response={"page": 4})
        result = await made.run(tools, call, caller=ANN, session_id="s1", person=person)
        assert (result.response["result"], person.asked) == ({"page": 4}, [{"by": 2}])
        failing = Somebody(response={"error": "There is no page."})
        result = await made.run(tools, call, caller=ANN, session_id="s1", person=failing)
        assert code(result) is ToolCode.FAILED
        assert "There is no page." in str(result.response)
        result = await made.run(tools, call, caller=ANN, session_id="s1")
        assert code(result) is ToolCode.NOT_ALLOWED


async def test_the_idempotency_key_is_that_of_the_call_that_was_broken_off(tmp_path: Path) -> None:
    text = """
    version: 1
    tools:
      pay:
        description: Pays.
        parameters: {type: object, properties: {sum: {type: integer}}, required: [sum]}
        side_effects: true
        http: {method: POST, url: "https://bank.example/pay", json: {sum: "{sum}"}}
    """
    (tmp_path / "tools.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    tools = load_catalog(tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path, environment={})
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(200, json={})

    async with runner(httpx.MockTransport(answer)) as made:
        for call in (
            ToolCall("a", "pay", {"sum": 1}),
            ToolCall("b", "pay", {"sum": 1}, repeats="a"),
            ToolCall("b", "pay", {"sum": 1}),
            ToolCall("a", "pay", {"sum": 2}),
        ):
            assert (await made.run(tools, call, caller=ANN, session_id="s1")).ok
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_what_was_not_made_uses_up_no_limit(tmp_path: Path) -> None:
    class Thinks:
        agrees = False
        asked = 0

        async def confirm(self, args: Mapping[str, Json]) -> bool:
            self.asked += 1
            return self.agrees

        async def perform(self, args: Mapping[str, Json]) -> Json:
            raise AssertionError("the page runs nothing")

        def slow(self, say: str) -> None:
            raise AssertionError("it is quick")

    person = Thinks()
    limits = "limits: {per_minute: 1, per_session: 1}\n"
    tools = catalog(tmp_path, f"parameters: {ITEM}\nconfirm: true\n{limits}")
    async with runner() as made:

        async def order() -> ToolResult:
            call = ToolCall("a", "order", {"item": "a"})
            return await made.run(tools, call, caller=ANN, session_id="s1", person=person)

        assert code(await order()) is ToolCode.REFUSED
        assert code(await run(made, tools, item=7)) is ToolCode.INVALID_ARGUMENTS
        person.agrees = True
        assert (await order()).ok
        assert code(await order()) is ToolCode.LIMITED
        assert person.asked == 2, "nobody is asked in vain"
    tools = catalog(tmp_path, f"parameters: {ITEM}\ncache: 5m\n{limits}")
    async with runner() as made:
        assert [(await run(made, tools, item="a")).ok for _ in range(3)] == [True, True, True]
        assert code(await run(made, tools, item="b")) is ToolCode.LIMITED


async def test_where_nobody_can_be_asked_that_is_what_the_refusal_says(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\nconfirm: true\n")
    async with runner() as made:
        result = await run(made, tools, item="a")
    assert code(result) is ToolCode.REFUSED
    assert result.summary == "It needs somebody's consent, and nobody is here to be asked."


async def test_arguments_that_nobody_may_see_are_not_in_what_people_are_told(tmp_path: Path) -> None:
    pin = "{type: object, properties: {item: {type: string, pattern: '^x$'}}, required: [item]}"
    tools = catalog(tmp_path, f"parameters: {pin}\nresult: {{show_args: false}}\n")
    async with runner() as made:
        result = await run(made, tools, item="4711")
    assert "4711" in str(result.response), "the model corrects itself"
    assert result.summary == "The arguments do not fit."


@pytest.mark.parametrize(
    ("rule", "items", "told"),
    [
        ("{type: integer}", ["x"] * 9_000, "items"),
        ("{anyOf: [{type: integer}, {type: boolean}]}", ["x"] * 9_000, "items"),
        ("{type: integer}", ["x"] * 100_000, "more than 10000 values"),
        ("{type: integer}", [1] * 190_000, "more than 10000 values"),
    ],
)
async def test_huge_arguments_do_not_hold_up_the_loop(
    tmp_path: Path, rule: str, items: list[Json], told: str
) -> None:
    schema = f"{{type: object, properties: {{item: {{type: array, items: {rule}}}}}, required: [item]}}"
    tools = catalog(tmp_path, f"parameters: {schema}\n")
    async with runner() as made:
        before = time.thread_time()
        result = await run(made, tools, item=items)
        took = time.thread_time() - before
    assert code(result) is ToolCode.INVALID_ARGUMENTS
    assert told.replace("items", "item[") in result.summary
    assert took < 0.5, "seconds of the loop's own thread"


async def test_a_default_that_does_not_fit_never_reaches_the_handler(tmp_path: Path) -> None:
    tools = catalog(tmp_path, f"parameters: {ITEM}\n")
    order = tools.tools["order"]
    rule: Json = {"type": "string", "minLength": 3, "default": "x"}
    parameters: dict[str, Json] = {"type": "object", "properties": {"item": rule}}
    order = replace(order, parameters=parameters, validator=validator_for(parameters))
    tools = replace(tools, tools={"order": order})
    async with runner() as made:
        result = await run(made, tools)
        assert result.summary == "item: its default does not fit."
        assert (await run(made, tools, item="pen")).ok
