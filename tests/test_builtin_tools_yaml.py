"""The tools.yaml at the top of the repository: every tool of it, through the runner and the guarded client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from builtin_services import services

from tornado_live.caller import Caller
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.http import guarded_client
from tornado_live.tools.result import Json
from tornado_live.tools.runner import MockTools, ToolCall, ToolRunner

ROOT = Path(__file__).resolve().parent.parent
TOOLS = (
    "execute_sql_query",
    "get_analytics",
    "search_knowledge_base",
    "call_external_api",
    "get_weather",
    "look_up_article",
)


def sample_catalog(data_dir: Path) -> ToolCatalog:
    return load_catalog(ROOT / "tools.yaml", home=ROOT, data_dir=data_dir, environment={})


def local_catalog(data_dir: Path, url: str) -> ToolCatalog:
    """The same file as an operator would edit it whose services run on this machine."""
    text = (ROOT / "tools.yaml").read_text()
    for old, new in (
        ("      units: metric", "      allow_private: true\n      units: metric"),
        ("      headers:\n        Accept:", "      allow_private: true\n      headers:\n        Accept:"),
        ("[api.frankfurter.dev, date.nager.at, api.github.com]", f'["{url}"]\n      allow_private: true'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = data_dir / "tools.yaml"
    path.write_text(text)
    environment = {"GEOCODING_URL": url, "FORECAST_URL": url, "WIKIPEDIA_URL": f"{url}/wiki"}
    return load_catalog(path, home=ROOT, data_dir=data_dir, environment=environment)


async def no_network(host: str, port: int) -> Sequence[str]:
    raise OSError("no network")


class Calls:
    def __init__(self, runner: ToolRunner, catalog: ToolCatalog) -> None:
        self._runner, self._catalog = runner, catalog

    async def __call__(self, name: str, **args: Json) -> dict[str, Any]:
        call = ToolCall(id="call", name=name, args=args)
        result = await self._runner.run(self._catalog, call, caller=Caller("someone"), session_id="session")
        return dict(result.response)


@asynccontextmanager
async def calling(
    catalog: ToolCatalog, mock: MockTools = "never", *, offline: bool = False
) -> AsyncIterator[Calls]:
    runner = ToolRunner(mock=mock, http=guarded_client(resolve=no_network) if offline else guarded_client())
    try:
        yield Calls(runner, catalog)
    finally:
        await runner.close()


def test_the_file_is_right_and_every_tool_of_it_can_be_declared_as_written(tmp_path: Path) -> None:
    catalog = sample_catalog(tmp_path)
    assert tuple(catalog.tools) == TOOLS
    assert catalog.left_out == ()
    assert [tool.changes for tool in catalog.tools.values()] == [()] * len(TOOLS)
    for tool in catalog.tools.values():
        assert tool.parameters["properties"], tool.name
        for name, rule in tool.parameters["properties"].items():  # type: ignore[union-attr]
            assert rule["description"], f"{tool.name}.{name}"  # type: ignore[index,call-overload]


def test_loading_the_file_makes_no_database(tmp_path: Path) -> None:
    catalog = sample_catalog(tmp_path / "data")
    assert "- users: id INTEGER; name TEXT" in catalog.tools["execute_sql_query"].description
    assert "status TEXT (cancelled, delivered, paid, returned, shipped)" in (
        catalog.tools["execute_sql_query"].description
    )
    assert "Allowed hosts: api.frankfurter.dev" in catalog.tools["call_external_api"].description
    assert not (tmp_path / "data").exists()


async def test_the_local_tools_answer_the_original_questions(tmp_path: Path) -> None:
    async with calling(sample_catalog(tmp_path)) as call:
        users = await call("execute_sql_query", query="SELECT name, country FROM users ORDER BY id LIMIT 2")
        assert users["status"] == "ok"
        assert [list(row) for row in users["result"]["rows"]] == [["name", "country"]] * 2

        everyone = await call("execute_sql_query", query="SELECT * FROM users")
        assert everyone["result"]["row_count"] == 50
        assert "note" not in everyone, "the handler's own limits keep the answer under the runner's"

        week = await call("get_analytics", period="last week")
        monday = date.today() - timedelta(days=date.today().weekday() + 7)
        assert week["result"]["from"] == str(monday)
        assert week["result"]["orders"] > 0
        assert len(week["result"]["rows"]) == 7

        split = await call("get_analytics", period="last 30 days", metrics=["revenue"], group_by="category")
        assert {row["category"] for row in split["result"]["rows"]} >= {"Kitchen", "Garden"}

        hours = await call("search_knowledge_base", query="opening hours")
        assert "from 9 am to 6 pm" in hours["result"]["passages"][0]["text"]

        articles = await call("search_knowledge_base", query="information about AI")
        assert articles["result"]["passages"][0]["file"] == "knowledge/artificial-intelligence.md"


async def test_the_tools_of_the_network_answer_from_local_services(tmp_path: Path) -> None:
    async with services() as service, calling(local_catalog(tmp_path, service.url)) as call:
        weather = await call("get_weather", location="New York")
        assert (weather["result"]["place"], weather["result"]["celsius"]) == ("New York, United States", 21)

        article = await call("look_up_article", title="Brooklyn Bridge")
        assert article["result"] == {"title": "Brooklyn Bridge", "text": "A bridge in New York City."}
        assert service.asked[-1].headers["Accept"] == "application/json"

        missing = await call("look_up_article", title="No/Such?Thing")
        assert missing == {"status": "ok", "result": "No such article; ask for another wording."}
        assert service.asked[-1].path == "/wiki/page/summary/No%2FSuch%3FThing"

        rates = await call("call_external_api", url=f"{service.url}/any/json")
        assert rates["result"] == {"http_status": 200, "data": {"rates": {"USD": 1.17}}}


@pytest.mark.proves("T51")
async def test_a_private_address_is_refused_unless_the_operator_allows_it(tmp_path: Path) -> None:
    async with services() as service:
        environment = {"GEOCODING_URL": service.url, "WIKIPEDIA_URL": service.url}
        catalog = load_catalog(ROOT / "tools.yaml", home=ROOT, data_dir=tmp_path, environment=environment)
        async with calling(catalog) as call:
            for answer in (
                await call("get_weather", location="New York"),
                await call("look_up_article", title="Brooklyn Bridge"),
                await call("call_external_api", url=f"{service.url}/any/json"),
            ):
                assert answer["error"]["code"] == "not_allowed"
        assert service.asked == []


async def test_offline_the_network_tools_answer_with_marked_samples_and_the_others_for_real(
    tmp_path: Path,
) -> None:
    async with calling(sample_catalog(tmp_path), "unreachable", offline=True) as call:
        weather = await call("get_weather", location="New York")
        assert weather["sample"] is True
        assert weather["result"]["celsius"] == 21
        rates = await call(
            "call_external_api", url="https://api.frankfurter.dev/v1/latest?base=EUR&symbols=USD"
        )
        assert (rates["sample"], rates["result"]["data"]["rates"]) == (True, {"USD": 1.17})
        other = await call("call_external_api", url="https://api.github.com/repos/tornadoweb/tornado")
        assert (other["sample"], list(other["result"]["data"])) == (True, ["message"])
        assert (await call("look_up_article", title="Brooklyn Bridge"))["sample"] is True
        unknown = await call("look_up_article", title="Eiffel Tower")
        assert unknown["error"]["code"] == "unreachable", "a sample of another subject is no answer"
        elsewhere = await call("get_weather", location="Oslo")
        assert elsewhere["result"]["place"] == "invented weather of no real place"
        assert "sample" not in await call("get_analytics", period="yesterday")
        refused = await call("call_external_api", url="https://example.com/")
        assert refused["error"]["code"] == "not_allowed"


async def test_a_sample_has_the_fields_of_a_real_answer(tmp_path: Path) -> None:
    async with services() as service, calling(local_catalog(tmp_path, service.url)) as call:
        real = await call("get_weather", location="New York")
    async with calling(sample_catalog(tmp_path), "always") as call:
        sample = await call("get_weather", location="New York")
    assert sample["result"].keys() <= real["result"].keys()
    assert sample["result"]["forecast"][0].keys() <= real["result"]["forecast"][0].keys()


async def test_offline_with_a_real_model_an_unreachable_service_is_an_error(tmp_path: Path) -> None:
    async with calling(sample_catalog(tmp_path), "never", offline=True) as call:
        answer = await call("get_weather", location="New York")
        assert (answer["error"]["code"], answer["error"]["retryable"]) == ("unreachable", True)


async def test_a_wrong_argument_comes_back_with_what_is_right(tmp_path: Path) -> None:
    async with calling(sample_catalog(tmp_path)) as call:
        wrong = await call("get_analytics", period="last week", group_by="planet")
        assert wrong["error"]["code"] == "invalid_arguments"
        column = await call("execute_sql_query", query="SELECT fullname FROM users")
        assert column["error"]["hint"].startswith("columns of users: id, name, email")
