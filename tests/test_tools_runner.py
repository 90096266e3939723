"""One call of the model's, from its name and arguments to the envelope that the model gets."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import nobody_listens
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_live.caller import Caller
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.http import guarded_client
from tornado_live.tools.result import Json, ToolCode, ToolResult
from tornado_live.tools.runner import SAMPLE_NOTE, MockTools, ToolCall, ToolRunner

HANDLERS = """
import asyncio, threading, time
from tornado_live.tools.result import ToolCode, ToolError

started = threading.Event()
release = threading.Event()
ended = []

def add(a, b=10):
    return {"sum": a + b, "types": [type(a).__name__, type(b).__name__]}

def where(context):
    context.progress("looking")
    return {"thread": threading.current_thread().name[:5], "user": context.caller.user,
            "session": context.session_id, "tool": context.tool, "options": dict(context.options)}

async def reports(context):
    context.progress("one")
    await asyncio.to_thread(context.progress, "two")
    return "done"

def reports_late(context):
    context.progress("one")
    release.wait(20)
    context.progress("two")

async def where_async(context):
    context.progress("looking")
    return {"user": context.caller.user, "client": type(context.http).__name__}

def fails():
    raise ValueError("canary /etc/passwd https://user:pw@host")

async def fails_async():
    raise KeyError("canary")

async def refuses():
    raise ToolError(ToolCode.NOT_ALLOWED, "Not that table.", hint="Use another.")

async def out_of_reach():
    raise ToolError(ToolCode.UNREACHABLE, "No service.", retryable=True)

def exits():
    raise SystemExit(3)

async def exits_async():
    raise SystemExit(3)

async def is_interrupted():
    raise KeyboardInterrupt

def stops():
    raise StopIteration

async def gives_up():
    raise asyncio.CancelledError

async def hangs():
    started.set()
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("hangs")

async def waits():
    started.set()
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("waits")

async def stubborn():
    while not release.is_set():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("ignored")

def hangs_in_thread():
    started.set()
    release.wait(20)
    return "late"

def looks_up(context):
    before = context.cancelled()
    while not context.cancelled():
        release.wait(0.01)
    ended.append(["looks_up", before])

def slow_in_thread():
    started.set()
    release.wait(20)
    return "slow"

def answers(kind):
    cycle = []
    cycle.append(cycle)
    async def coroutine(): ...
    class Thing: ...
    return {
        "nan": float("nan"), "inf": [float("inf")], "bytes": b"x", "object": Thing(), "set": {1},
        "cycle": cycle, "coroutine": coroutine() if kind == "coroutine" else None, "generator": (n for n in "ab"),
        "keys": {1: 2}, "huge": {str(n): n for n in range(300_000)} if kind == "huge" else None,
        "digits": 10 ** 5000, "deep": deep() if kind == "deep" else None,
        "long": 2 ** 70, "surrogate": "a\\ud800b", "tuple": (1, [2]), "none": None,
    }[kind]

async def babbles(context):
    for number in range(100_000):
        context.progress(number)


def babbles_in_thread(context):
    for number in range(100_000):
        context.progress(number)


async def chats(context):
    for text in ("with ", "x" * 295, "x" * 299):
        context.progress(text + context.options["api_key"])


async def mumbles(context):
    for text in ("\\ud800", None, object(), b"x", "x" * 1_000_000):
        context.progress(text)


def deep():
    value = []
    for _ in range(500):
        value = [value]
    return value

def rows(count):
    return {"total": count, "rows": [{"id": n, "name": f"row {n}"} for n in range(count)]}

def echo(value):
    return value

class Spied(dict):
    def items(self):
        readers.append(threading.current_thread() is threading.main_thread())
        return super().items()

readers = []

def spied(count):
    return Spied({"rows": [{"id": n, "name": "row"} for n in range(count)]})

def secret(context):
    return {"seen": context.options["api_key"], "list": ["x" + context.options["api_key"]]}
"""

PARAMETERS = {
    "add": "{type: object, properties: {a: {type: integer}, b: {type: integer}}, required: [a]}",
    "answers": "{type: object, properties: {kind: {type: string}}, required: [kind]}",
    "rows": "{type: object, properties: {count: {type: integer}}, required: [count]}",
    "spied": "{type: object, properties: {count: {type: integer}}, required: [count]}",
    "echo": "{type: object, properties: {value: {type: string, default: hello}}}",
}
MORE = {
    "where": "options: {x: 1}",
    "hangs": "timeout: 50ms",
    "stubborn": "timeout: 50ms",
    "hangs_in_thread": "timeout: 50ms",
    "looks_up": "timeout: 50ms",
    "reports_late": "timeout: 500ms",
    "slow_in_thread": "timeout: 20s",
    "out_of_reach": "mock: [{when: {}, answer: {c: 21}}]",
    "rows": "result: {max_bytes: 400}",
    "secret": "options: {api_key: '${API_KEY}'}",
    "chats": "options: {api_key: '${API_KEY}'}",
}


class Handlers:
    def __init__(self, home: Path, module: Any) -> None:
        self.module = module
        names = [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == "run_tools"
        ]
        text = "version: 1\ntools:\n"
        for name in names:
            if name == "deep":
                continue
            text += f"  {name}:\n    description: D.\n    parameters: {PARAMETERS.get(name, '{}')}\n"
            text += f"    python: run_tools:{name}\n"
            if name in MORE:
                text += f"    {MORE[name]}\n"
        text += "  echo_selected:\n    description: D.\n    parameters: " + PARAMETERS["echo"] + "\n"
        text += "    python: run_tools:echo\n    result: {select: 'length(a)', empty: Nothing.}\n"
        self.catalog = read(home, text, "run_tools")


def read(home: Path, text: str, *prefixes: str) -> ToolCatalog:
    path = home / "tools.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return load_catalog(
        path, home=home, data_dir=home, environment={"API_KEY": "canary-key-123"}, handler_prefixes=prefixes
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handlers]:
    import importlib

    (tmp_path / "run_tools.py").write_text(HANDLERS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "run_tools", raising=False)
    handlers = Handlers(tmp_path, importlib.import_module("run_tools"))
    yield handlers
    handlers.module.release.set()


@asynccontextmanager
async def runner(mock: MockTools = "never", **more: Any) -> AsyncIterator[ToolRunner]:
    made = ToolRunner(mock=mock, **more)
    try:
        yield made
    finally:
        await made.close()


async def call(catalog: ToolCatalog, name: str, mock: MockTools = "never", **args: Json) -> ToolResult:
    async with runner(mock) as made:
        return await made.run(catalog, ToolCall("c1", name, args), caller=Caller("ann"), session_id="s1")


def told(result: ToolResult) -> Any:
    return result.response["error"]


@asynccontextmanager
async def service(answer: Callable[[RequestHandler], Any]) -> AsyncIterator[int]:
    class Answering(RequestHandler):
        async def get(self) -> None:
            result = answer(self)
            if result is not None:
                await result

    socket, port = bind_unused_port()
    server = HTTPServer(Application([(".*", Answering)]))
    server.add_sockets([socket])
    try:
        yield port
    finally:
        server.stop()
        await server.close_all_connections()


def article(home: Path, port: int, more: str = "") -> ToolCatalog:
    return read(
        home,
        f"""
version: 1
sources:
  wiki:
    http: {{base_url: "http://127.0.0.1:{port}/api", allow_private: true, headers: {{X-Key: "${{API_KEY}}"}}}}
tools:
  look_up:
    description: Looks up.
    parameters: {{type: object, properties: {{title: {{type: string}}}}, required: [title]}}
    http: {{source: wiki, path: "/page/{{title}}"}}
    result: {{select: "{{title: title, text: extract}}", empty: "No such article."}}
    mock: {{title: Sample, text: Made up.}}
    timeout: 20s
{more}""",
    )


# Before the call


@pytest.mark.proves("T63")
async def test_an_unknown_or_forbidden_tool_is_answered_with_the_valid_names(own: Handlers) -> None:
    async with runner() as made:
        for name in ("ad", "where"):
            result = await made.run(
                own.catalog,
                ToolCall("c", name, {}),
                caller=Caller("ann"),
                session_id="s",
                allowed=["add", "echo"],
            )
            assert (result.ok, result.error) == (False, ToolCode.UNKNOWN_TOOL)
            assert told(result)["hint"] == "The tools are: add, echo."
    assert told(await call(own.catalog, "ad"))["message"] == 'There is no tool "ad" - did you mean "add"?'
    assert told(await call(ToolCatalog.EMPTY, "ad"))["hint"] == "There are no tools."


@pytest.mark.proves("T63")
async def test_arguments_that_do_not_fit_are_told_with_path_and_reason(own: Handlers) -> None:
    result = await call(own.catalog, "add", a="x", c=1)
    assert result.error is ToolCode.INVALID_ARGUMENTS
    assert told(result) == {
        "code": "invalid_arguments",
        "message": "There is no parameter \"c\" (the parameters are a, b); a: 'x' is not of type 'integer'",
        "retryable": False,
        "hint": "Correct the arguments and call again.",
    }
    long = await call(own.catalog, "add", a="x" * 10_000)
    assert len(told(long)["message"]) <= 300
    assert (await call(own.catalog, "add", a=float("nan"))).error is ToolCode.BAD_ANSWER


async def test_whole_doubles_reach_a_handler_as_integers_and_defaults_are_filled_in(own: Handlers) -> None:
    assert (await call(own.catalog, "add", a=5.0)).response == {
        "status": "ok",
        "result": {"sum": 15, "types": ["int", "int"]},
    }
    assert (await call(own.catalog, "echo")).response["result"] == "hello"


# Python handlers


async def test_a_sync_handler_runs_in_a_thread_and_knows_its_context(own: Handlers) -> None:
    heard: list[tuple[str, str]] = []
    async with runner() as made:
        result = await made.run(
            own.catalog,
            ToolCall("c", "where", {}),
            caller=Caller("ann"),
            session_id="s7",
            progress=lambda text: heard.append((text, threading.current_thread().name)),
        )
    assert result.response["result"] == {
        "thread": "tool-",
        "user": "ann",
        "session": "s7",
        "tool": "where",
        "options": {"x": 1},
    }
    assert heard == [("looking", threading.current_thread().name)]
    assert result.summary == "thread: tool-, user: ann, session: s7, tool: where"


@pytest.mark.proves("T48")
async def test_progress_gives_no_secret_away_not_even_a_half_of_one(own: Handlers) -> None:
    heard: list[str] = []
    async with runner() as made:
        await made.run(
            *(own.catalog, ToolCall("c", "chats", {})),
            caller=Caller("ann"),
            session_id="s7",
            progress=heard.append,
        )
    assert heard == ["with ***", "x" * 295 + "***", "x" * 299 + "…"]


@pytest.mark.parametrize("name", ["babbles", "babbles_in_thread", "mumbles"])
async def test_progress_of_a_handler_that_never_stops_talking_or_talks_nonsense_is_bounded_text(
    own: Handlers, name: str
) -> None:
    heard: list[str] = []
    async with runner() as made:
        result = await made.run(
            *(own.catalog, ToolCall("c", name, {})),
            caller=Caller("ann"),
            session_id="s7",
            progress=heard.append,
        )
    assert result.ok
    assert len(heard) < 1000
    assert all(len(text) <= 300 for text in heard)
    assert name == "mumbles" or heard[-1] == "99999", "the newest is told before the end"


@pytest.mark.parametrize(
    ("name", "expected", "end"),
    [("reports", ["one", "two"], None), ("reports_late", ["one"], ToolCode.TIMEOUT)],
)
async def test_progress_is_told_on_the_loops_thread_until_the_call_ends(
    own: Handlers, name: str, expected: list[str], end: ToolCode | None
) -> None:
    heard: list[tuple[str, threading.Thread]] = []
    async with runner() as made:
        result = await made.run(
            own.catalog,
            ToolCall("c", name, {}),
            caller=Caller("ann"),
            session_id="s7",
            progress=lambda text: heard.append((text, threading.current_thread())),
        )
        assert result.error is end
        own.module.release.set()
        for thread in [known for known in threading.enumerate() if known.name == f"tool-{name}"]:
            await asyncio.to_thread(thread.join, 10)
    assert heard == [(text, threading.current_thread()) for text in expected]


async def test_an_async_handler_gets_the_shared_client(own: Handlers) -> None:
    assert (await call(own.catalog, "where_async")).response["result"] == {
        "user": "ann",
        "client": "AsyncClient",
    }


@pytest.mark.proves("F23")
@pytest.mark.parametrize(
    "name", ["fails", "fails_async", "exits", "exits_async", "is_interrupted", "stops", "gives_up"]
)
async def test_a_handler_that_raises_is_failed_and_leaks_nothing(
    own: Handlers, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = await call(own.catalog, name)
    assert result.error is ToolCode.FAILED
    assert "canary" not in str(result)
    if "fails" in name:
        assert "Traceback" in caplog.text
        assert "c1 of session s1" in caplog.text


async def test_an_error_of_the_handlers_own_reaches_the_model(own: Handlers) -> None:
    result = await call(own.catalog, "refuses")
    assert told(result) == {
        "code": "not_allowed",
        "message": "Not that table.",
        "retryable": False,
        "hint": "Use another.",
    }
    assert result.summary == "Not that table."


@pytest.mark.proves("F24")
@pytest.mark.parametrize("name", ["hangs", "stubborn", "hangs_in_thread"])
async def test_a_handler_that_hangs_is_a_timeout(own: Handlers, name: str) -> None:
    result = await call(own.catalog, name)
    assert result.error is ToolCode.TIMEOUT
    assert told(result)["message"] == "The tool did not answer within 0.05 seconds."
    own.module.release.set()
    while [task for task in asyncio.all_tasks() if task.get_name() == "tool stubborn"]:
        for task in asyncio.all_tasks():
            if task.get_name() == "tool stubborn":
                task.cancel()
        await asyncio.sleep(0)


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    lines = [(record.__dict__.get("event"), record.__dict__.get("fields")) for record in caplog.records]
    return [(event, fields) for event, fields in lines if event is not None]


@pytest.mark.proves("F24")
async def test_a_handler_that_is_left_behind_is_logged_and_keeps_its_place_until_it_ends(
    own: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[int] = []
    async with runner(threads=1, left_behind=left.append) as made:

        async def run(name: str, **args: Json) -> ToolResult:
            return await made.run(own.catalog, ToolCall("c", name, args), caller=Caller("a"), session_id="s")

        with caplog.at_level(logging.INFO):
            assert (await run("hangs_in_thread")).error is ToolCode.TIMEOUT
            facts = {"tool": "hangs_in_thread", "places_left": 0, "places": 1}
            assert events(caplog) == [("handler_left_behind", facts)]
            assert caplog.records[0].levelno == logging.WARNING

            refused = await run("echo")
            assert refused.error is ToolCode.LIMITED
            assert told(refused)["retryable"] is True
            assert "busy" in told(refused)["message"]
            assert told(refused)["hint"]

            caplog.clear()
            *_, thread = [known for known in threading.enumerate() if known.name == "tool-hangs_in_thread"]
            own.module.release.set()
            await asyncio.to_thread(thread.join, 10)
            assert events(caplog) == [("handler_ended_late", {**facts, "places_left": 1})]
            assert left == [1, -1]
        assert (await run("echo")).response["result"] == "hello"


async def test_a_handler_that_ignores_its_cancellation_is_counted_until_it_ends(own: Handlers) -> None:
    left: list[int] = []
    async with runner(left_behind=left.append) as made:
        call = ToolCall("c", "stubborn", {})
        result = await made.run(own.catalog, call, caller=Caller("a"), session_id="s")
        assert result.error is ToolCode.TIMEOUT
        assert left == [1]
        own.module.release.set()
    assert left == [1, -1]


async def test_a_sync_handler_can_see_that_nobody_waits_for_it_any_more(own: Handlers) -> None:
    async with runner() as made:
        call = ToolCall("c", "looks_up", {})
        result = await made.run(own.catalog, call, caller=Caller("a"), session_id="s")
        assert result.error is ToolCode.TIMEOUT
        for thread in [known for known in threading.enumerate() if known.name == "tool-looks_up"]:
            await asyncio.to_thread(thread.join, 10)
    assert own.module.ended == [["looks_up", False]]


async def test_a_call_waits_a_little_for_a_place_that_is_in_use(own: Handlers) -> None:
    async with runner(threads=1) as made:

        async def run(name: str) -> ToolResult:
            return await made.run(own.catalog, ToolCall("c", name, {}), caller=Caller("a"), session_id="s")

        busy = asyncio.get_running_loop().create_task(run("slow_in_thread"))
        await asyncio.to_thread(own.module.started.wait, 10)
        assert (await run("echo")).error is ToolCode.LIMITED
        waiting = asyncio.get_running_loop().create_task(run("echo"))
        await asyncio.sleep(0)
        assert not waiting.done()
        own.module.release.set()
        assert (await waiting).response["result"] == "hello"
        assert (await busy).response["result"] == "slow"


@pytest.mark.proves("F26")
async def test_cancellation_reaches_the_handler_and_the_caller(own: Handlers) -> None:
    async with runner() as made:
        task = asyncio.get_running_loop().create_task(
            made.run(own.catalog, ToolCall("c", "waits", {}), caller=Caller("a"), session_id="s")
        )
        await asyncio.to_thread(own.module.started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert own.module.ended == ["waits"]


@pytest.mark.proves("F25")
@pytest.mark.parametrize(
    "kind",
    ["nan", "inf", "bytes", "object", "set", "cycle", "coroutine", "generator", "keys", "digits", "deep"],
)
async def test_an_answer_that_is_not_json_is_a_bad_answer(own: Handlers, kind: str) -> None:
    assert (await call(own.catalog, "answers", kind=kind)).error is ToolCode.BAD_ANSWER


@pytest.mark.proves("F25")
async def test_odd_answers_are_made_json(own: Handlers) -> None:
    results = [
        (await call(own.catalog, "answers", kind=kind)).response for kind in ("long", "surrogate", "tuple")
    ]
    assert [result["result"] for result in results] == [str(2**70), "a?b", [1, [2]]]
    assert (await call(own.catalog, "answers", kind="none")).response == {"status": "ok", "result": None}


@pytest.mark.proves("T43")
async def test_an_answer_beyond_all_measure_is_too_large(own: Handlers) -> None:
    assert (await call(own.catalog, "answers", kind="huge")).error is ToolCode.TOO_LARGE


async def test_a_long_answer_is_cut_with_a_note_of_what_was_left_out(own: Handlers) -> None:
    result = await call(own.catalog, "rows", count=100)
    kept: Any = result.response["result"]
    assert kept["total"] == 100
    assert kept["rows"] == [{"id": n, "name": f"row {n}"} for n in range(len(kept["rows"]))]
    assert 5 < len(kept["rows"]) < 20
    assert result.response["note"] == (
        f"The answer was too long and was cut: rows has the first {len(kept['rows'])} of 100 items."
    )


@pytest.mark.parametrize(("count", "on_the_loop"), [(10, True), (60_000, False)])
async def test_only_a_small_answer_is_read_on_the_loop(own: Handlers, count: int, on_the_loop: bool) -> None:
    result = await call(own.catalog, "spied", count=count)
    assert result.ok
    assert own.module.readers == [on_the_loop]


async def test_a_select_that_does_not_fit_the_answer_is_a_bad_answer(own: Handlers) -> None:
    assert (await call(own.catalog, "echo_selected")).error is ToolCode.BAD_ANSWER


@pytest.mark.proves("T48")
async def test_a_secret_of_the_environment_is_blotted_out_of_a_result(own: Handlers) -> None:
    assert (await call(own.catalog, "secret")).response["result"] == {"seen": "***", "list": ["x***"]}


# HTTP tools


async def test_an_http_tool_selects_what_the_model_gets(tmp_path: Path) -> None:
    def answer(handler: RequestHandler) -> None:
        handler.write(
            {"title": handler.request.path, "extract": "Bridge.", "key": handler.request.headers["X-Key"]}
        )

    async with service(answer) as port:
        result = await call(article(tmp_path, port), "look_up", title="Brooklyn Bridge")
    assert result.response == {
        "status": "ok",
        "result": {"title": "/api/page/Brooklyn%20Bridge", "text": "Bridge."},
    }
    assert (result.ok, result.sample, result.error) == (True, False, None)


async def test_nothing_found_is_told_in_the_operators_words(tmp_path: Path) -> None:
    async with service(lambda handler: handler.set_status(404)) as port:
        result = await call(article(tmp_path, port), "look_up", title="x")
    assert result.response == {"status": "ok", "result": "No such article."}
    async with service(lambda handler: handler.write({"other": 1})) as port:
        result = await call(article(tmp_path, port), "look_up", title="x")
    assert result.response == {"status": "ok", "result": "No such article."}


@pytest.mark.proves("T48")
async def test_a_service_that_echoes_our_headers_does_not_give_the_secret_away(tmp_path: Path) -> None:
    def answer(handler: RequestHandler) -> None:
        handler.write({"title": handler.request.headers["X-Key"], "extract": "x"})

    async with service(answer) as port:
        result = await call(article(tmp_path, port), "look_up", title="x")
    assert result.response["result"] == {"title": "***", "text": "x"}


@pytest.mark.proves("T45")
async def test_a_service_that_drips_ends_at_the_deadline(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def drip(handler: RequestHandler) -> None:
        try:
            while True:
                handler.write(" ")
                await handler.flush()
                await asyncio.sleep(0.02)
        except StreamClosedError:
            over.set()

    async with service(drip) as port:
        catalog = article(tmp_path, port)
        text = (tmp_path / "tools.yaml").read_text().replace("timeout: 20s", "timeout: 200ms")
        catalog = read(tmp_path, text)
        result = await call(catalog, "look_up", title="x")
        await over.wait()
    assert result.error is ToolCode.TIMEOUT


# Sample data


async def test_an_unreachable_service_falls_back_to_the_mock_and_says_so(tmp_path: Path) -> None:
    with nobody_listens() as port:
        catalog = article(tmp_path, port)
        result = await call(catalog, "look_up", "unreachable", title="x")
        refused = await call(catalog, "look_up", "never", title="x")
    assert result.response == {
        "status": "ok",
        "result": {"title": "Sample", "text": "Made up."},
        "sample": True,
        "note": SAMPLE_NOTE,
    }
    assert (result.ok, result.sample, result.summary) == (
        True,
        True,
        "sample data: title: Sample, text: Made up.",
    )
    assert refused.error is ToolCode.UNREACHABLE


async def test_only_being_out_of_reach_brings_sample_data(tmp_path: Path, own: Handlers) -> None:
    async with service(lambda handler: handler.set_status(500)) as port:
        result = await call(article(tmp_path, port), "look_up", "unreachable", title="x")
    assert (result.error, result.sample) == (ToolCode.HTTP_ERROR, False)
    assert (await call(own.catalog, "out_of_reach", "unreachable")).response["result"] == {"c": 21}
    assert (await call(own.catalog, "fails", "unreachable")).error is ToolCode.FAILED


async def test_mock_always_calls_nothing_and_still_checks_the_arguments(
    tmp_path: Path, own: Handlers
) -> None:
    calls: list[str] = []
    async with service(lambda handler: calls.append(handler.request.path)) as port:
        catalog = article(tmp_path, port)
        assert (await call(catalog, "look_up", "always", title="x")).sample
        assert (await call(catalog, "look_up", "always")).error is ToolCode.INVALID_ARGUMENTS
    assert calls == []
    result = await call(own.catalog, "echo", "always")
    assert (result.error, result.sample) == (ToolCode.UNREACHABLE, False)


async def test_the_client_is_closed_with_the_runner() -> None:
    client = guarded_client()
    async with runner(http=client):
        assert not client.is_closed
    assert client.is_closed
