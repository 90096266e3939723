"""SQL on a real PostgreSQL server: what is answered, and what cannot be done to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sql_attacks
from builtin_context import context_for
from postgres import Postgres, installed, running

from tornado_live.caller import Caller
from tornado_live.tools.builtin import analytics, sql
from tornado_live.tools.builtin.sql_source import PLACES
from tornado_live.tools.catalog import load_catalog
from tornado_live.tools.owned import Owned
from tornado_live.tools.result import Json, ToolCode, ToolError
from tornado_live.tools.runner import ToolCall, ToolRunner

SECRET = sql_attacks.SECRET
OPTIONS: Mapping[str, Any] = {
    "tables": ["users", "orders", "sales.deals"],
    "hide_columns": ["users.password"],
    "seconds": 20,
}
ORDERS = """
INSERT INTO orders VALUES
  (1, 1, 0.1, '2026-01-01 10:00Z', '{"a": [1, {"b": 2}]}'), (2, 1, 0.2, '2026-02-01 10:00Z', NULL)
"""
SCHEMA = f"""
CREATE TABLE users (id int PRIMARY KEY, name text, country text, password text DEFAULT '{SECRET}');
INSERT INTO users VALUES (1, 'Ada', 'UK'), (2, 'Grace', 'US');
CREATE TABLE orders (
  id int PRIMARY KEY, user_id int REFERENCES users, total numeric(10, 2), placed_at timestamptz, more jsonb
);
{ORDERS};
CREATE TABLE secrets (word text);
INSERT INTO secrets VALUES ('{SECRET}');
CREATE VIEW peek AS SELECT word FROM secrets;
CREATE SEQUENCE numbers;
CREATE SCHEMA sales;
CREATE TABLE sales.deals (id int, amount numeric);
CREATE FUNCTION damage() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
  AS $$ BEGIN DELETE FROM orders; RETURN 1; END $$;
CREATE FUNCTION damage(int, int) RETURNS int LANGUAGE sql AS 'SELECT public.damage()';
CREATE OPERATOR @#@ (LEFTARG = int, RIGHTARG = int, FUNCTION = damage);
GRANT USAGE ON SCHEMA sales TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA public, sales TO reader;
CREATE ROLE writer LOGIN PASSWORD 'not-a-secret'
  IN ROLE pg_read_server_files, pg_write_server_files, pg_execute_server_program, pg_signal_backend;
GRANT ALL ON SCHEMA public, sales TO writer;
GRANT ALL ON ALL TABLES IN SCHEMA public, sales TO writer;
GRANT ALL ON SEQUENCE numbers TO writer;
CREATE ROLE superuser LOGIN SUPERUSER PASSWORD 'not-a-secret';
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if installed() is None:
        pytest.skip("there is no PostgreSQL; make test installs it where apt may be used")
    with running() as started:
        started.run(SCHEMA)
        (started.data.parent / "out").mkdir()
        (started.data.parent / "out").chmod(0o777)
        yield started


@pytest.fixture
def owned() -> Iterator[Owned]:
    things = Owned()
    yield things
    things.close()


@pytest.fixture
def ask(server: Postgres, owned: Owned) -> Ask:
    return Ask(server.url(), owned)


class Ask:
    """Asks as a tool does."""

    def __init__(self, url: str, owned: Owned) -> None:
        self.sources = {"shop": {"kind": "sql", "url": url}}
        self.owned = owned

    async def __call__(self, query: str, **options: Any) -> list[dict[str, Json]]:
        context = context_for(sql.query, self.sources, owned=self.owned, **{**OPTIONS, **options})
        return _rows(await sql.query(query, context))

    async def statement(self, text: str, **arguments: Json) -> list[dict[str, Json]]:
        context = context_for(sql.statement, self.sources, owned=self.owned, sql=text, seconds=20)
        return _rows(await sql.statement(context, **arguments))

    async def refused(self, query: str, **options: Any) -> ToolError:
        with pytest.raises(ToolError) as caught:
            await self(query, **options)
        return caught.value

    def described(self, **options: Any) -> str:
        context = context_for(sql.query, self.sources, **{**OPTIONS, **options})
        return sql.describe_query(context.options, self.sources)


def _rows(answer: Json) -> list[dict[str, Json]]:
    assert isinstance(answer, dict)
    return answer["rows"]  # type: ignore[return-value]


def state(server: Postgres) -> list[object]:
    """Rows, catalogs and files: all that a statement could leave behind."""
    tables = ("users", "orders", "secrets", "sales.deals", "pg_db_role_setting", "pg_shadow")
    catalogs = (
        "pg_class",
        "pg_proc",
        "pg_namespace",
        "pg_extension",
        "pg_largeobject_metadata",
        "pg_trigger",
    )
    files = [server.data, server.data.parent / "out", Path("/tmp")]
    return [
        *(server.run(f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in tables),
        server.run("SELECT last_value, is_called FROM numbers"),
        *(server.run(f"SELECT count(*) FROM {table}") for table in (*catalogs, "pg_prepared_xacts")),
        *(
            sorted(each.name for each in folder.iterdir() if "canary" in str(each) or folder != files[2])
            for folder in files
        ),
        (server.data / "postgresql.auto.conf").read_text(),
    ]


async def test_rows_are_objects_with_values_as_json(ask: Ask) -> None:
    assert await ask("SELECT id, name FROM users ORDER BY id;") == [
        {"id": 1, "name": "Ada"},
        {"id": 2, "name": "Grace"},
    ]
    assert await ask("SELECT 1 AS q, 2 AS q") == [{"q": 1, "q_2": 2}]
    rows = await ask(
        "SELECT o.id, u.id, total, placed_at, more FROM orders o JOIN users u ON u.id = user_id ORDER BY 1"
    )
    assert rows[0] == {
        "id": 1,
        "id_2": 1,
        "total": 0.1,
        "placed_at": rows[0]["placed_at"],
        "more": {"a": [1, {"b": 2}]},
    }
    assert str(rows[0]["placed_at"]).startswith("2026-01-01T10:00:00")
    odd = await ask(
        "SELECT 1e400 AS huge, 'NaN'::float8 AS nan, 10::numeric ^ 60 AS long, '\\x00ff'::bytea AS raw, '50%'"
    )
    assert odd == [
        {"huge": odd[0]["huge"], "nan": "NaN", "long": odd[0]["long"], "raw": "\\x00ff", "?column?": "50%"}
    ]


async def test_common_sql_of_models_is_let_through(ask: Ask) -> None:
    for query in COMMON:
        await ask(query)


COMMON = (Path(__file__).parent / "sql_common_postgres.sql").read_text().splitlines()


@pytest.mark.proves("T57", "T59")
@pytest.mark.parametrize("role", ["reader", "writer"])
async def test_nothing_is_written_and_nothing_unlisted_is_read_whatever_the_role_may(
    server: Postgres, owned: Owned, role: str
) -> None:
    ask = Ask(server.url(role), owned)
    before = state(server)
    attempts = sql_attacks.on_postgres(str(server.data.parent / "out"))
    assert len(attempts) >= 120
    for attempt in attempts:
        error = await ask.refused(attempt)
        assert error.code in (ToolCode.NOT_ALLOWED, ToolCode.INVALID_ARGUMENTS), (attempt, error.code)
        assert SECRET not in error.message + error.hint, attempt
        assert "password" not in error.hint, attempt
        assert str(server.data) not in error.message + error.hint, attempt
    assert state(server) == before


@pytest.mark.proves("T57")
async def test_without_the_guard_the_same_statements_do_damage(server: Postgres) -> None:
    """The corpus is no straw man: as `writer` a good part of it works."""
    before = state(server)
    out = server.data.parent / "out"
    worked = 0
    with psycopg.connect(server.url("writer"), autocommit=True) as connection:
        for attempt in (
            f"COPY users TO '{out}/users'",
            "SELECT lo_create(4711)",
            "SELECT nextval('numbers')",
            "SELECT damage()",
        ):
            connection.execute(attempt)  # type: ignore[call-overload]
            worked += 1
    assert worked == 4
    after = state(server)
    assert after != before
    server.run(
        "SELECT lo_unlink(4711)",
        "SELECT setval('numbers', 1, false)",
        ORDERS,
    )
    (out / "users").unlink()


@pytest.mark.proves("T59")
async def test_a_hidden_column_does_not_exist_for_any_query(ask: Ask) -> None:
    for query in COMMON:
        assert SECRET not in str(await ask(query)), query
    [row] = await ask("SELECT * FROM users WHERE id = 1")
    assert row == {"id": 1, "name": "Ada", "country": "UK"}
    [row] = await ask("SELECT u FROM users u WHERE u.id = 1")
    assert row == {"u": {"id": 1, "name": "Ada", "country": "UK"}}
    error = await ask.refused("SELECT password FROM users")
    assert error.message == 'SQL error: column "password" does not exist.'
    assert error.hint.startswith("columns of users: id, name, country; columns of orders: id, ")


async def test_a_superuser_is_refused_since_nothing_binds_one(server: Postgres, owned: Owned) -> None:
    ask = Ask(server.url("superuser"), owned)
    error = await ask.refused("SELECT 1")
    assert (error.code, "superuser" in error.message) == (ToolCode.FAILED, True)
    assert await ask.statement("SELECT 1 AS one") == [{"one": 1}]


async def test_an_operators_statement_binds_its_arguments_and_cannot_write(
    ask: Ask, server: Postgres
) -> None:
    by_country = "SELECT name FROM users WHERE country = :country AND '50% :no' = '50% :no' -- :nor this"
    assert await ask.statement(by_country, country="UK") == [{"name": "Ada"}]
    assert await ask.statement(by_country, country="x' OR '1'='1") == []
    assert await ask.statement(by_country) == []
    either = "SELECT id FROM users WHERE id = :id OR CAST(:name AS text) = name ORDER BY id;"
    assert await ask.statement(either, id=1, name="Grace") == [{"id": 1}, {"id": 2}]
    assert await ask.statement("SELECT CAST(:more AS jsonb) -> 'a' AS a", more={"a": [1]}) == [{"a": [1]}]
    for text, code in (
        ("SELECT :name IS NULL AS given", ToolCode.FAILED),
        ("SELECT id FROM users WHERE id = CAST(:name AS int)", ToolCode.INVALID_ARGUMENTS),
    ):
        with pytest.raises(ToolError) as caught:
            await ask.statement(text, name="x")
        assert (caught.value.code, "users" in caught.value.hint) == (code, False)
    writer = Ask(server.url("writer"), ask.owned)
    before = state(server)
    for text in (
        "SELECT damage()",
        "SELECT nextval('numbers')",
        "WITH gone AS (DELETE FROM users RETURNING 1) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT 1) AS q; DELETE FROM users; --",
        "SELECT name FROM users FOR UPDATE",
    ):
        with pytest.raises(ToolError) as caught:
            await writer.statement(text)
        assert caught.value.code is ToolCode.FAILED, text
    await writer.statement("SELECT lo_create(4711)")
    assert state(server) == before


async def test_too_many_rows_are_left_on_the_server_and_too_long_ones_refused(ask: Ask) -> None:
    context = context_for(sql.query, ask.sources, owned=ask.owned, max_rows=3)
    assert await sql.query("SELECT n FROM generate_series(1, 1000000) AS n", context) == {
        "row_count": 3,
        "rows": [{"n": 1}, {"n": 2}, {"n": 3}],
        "note": "Only the first 3 rows; there are more.",
    }
    long = "SELECT string_agg(md5(n::text), '') AS text FROM generate_series(1, {}) AS n"
    [row] = await ask(long.format(1_000))
    assert len(str(row["text"])) == 2_002
    error = await ask.refused(long.format(300_000))
    assert (error.code, error.message) == (ToolCode.TOO_LARGE, "One row of the answer is too long.")


def test_the_description_has_what_the_role_may_read(server: Postgres, ask: Ask) -> None:
    plain = ask.described()
    assert "- users: id integer; name text; country text\n" in plain
    assert "- sales.deals: id integer; amount numeric" in plain
    assert "password" not in plain
    assert "secrets" not in plain
    everything = ask.described(tables=None, describe_values=True)
    assert "- secrets: word text" in everything
    assert "placed_at timestamp with time zone (YYYY-MM-DDTHH:MM…)" in everything
    assert ask.described(describe_schema=False) == ""
    server.run("REVOKE SELECT ON secrets, users FROM reader", "GRANT SELECT (id, name) ON users TO reader")
    try:
        narrow = ask.described(tables=None, hide_columns=[])
        assert "- users: id integer; name text\n" in narrow
        assert "secrets" not in narrow
    finally:
        server.run("GRANT SELECT ON secrets, users TO reader")


def test_a_role_that_may_write_is_told_of(
    server: Postgres, owned: Owned, caplog: pytest.LogCaptureFixture
) -> None:
    Ask(server.url(), owned).described()
    assert caplog.messages == []
    Ask(server.url("writer"), owned).described()
    assert caplog.messages == [
        'source "shop": its role may write to deals, orders, secrets, users; '
        "give it one that can only read, as a second lock"
    ]


async def test_mistakes_of_the_operator_are_named(ask: Ask) -> None:
    with pytest.raises(ToolError, match="lacks, or what its role may not read: usr") as caught:
        ask.described(tables=["usr"])
    assert 'did you mean "users"' in caught.value.hint
    with pytest.raises(ToolError, match=r"names columns that the database lacks: users\.pasword"):
        ask.described(hide_columns=["users.pasword"])
    for text, told in (
        ("DELETE FROM users", "The statement is not a SELECT."),
        ("SELECT 1; SELECT 2", "There is more than one statement."),
        (" ", "The statement is not a SELECT."),
        ("SELECT 'open", "SQL error: the query is not complete."),
        ("SELECT nme FROM users", 'SQL error: column "nme" does not exist - did you mean "name"?'),
        ("SELECT 1 FROM usrs", 'SQL error: relation "usrs" does not exist - did you mean "users"?'),
        ("SELECT sum(id FROM users", 'SQL error: syntax error at or near "FROM"'),
        ("SELECT * FROM pg_authid", "The source's role may not read that"),
        (
            "SELECT :name IS NULL",
            "SQL error: could not determine data type of parameter $1;"
            " Name the type, e.g. CAST(:name AS text).",
        ),
        ("SELECT name FROM users WHERE id = :id AND '50%' <> :name", None),
    ):
        options = context_for(sql.statement, ask.sources, sql=text).options
        parameters: dict[str, Json] = {
            "properties": {name: {} for name in ("id", "name") if f":{name}" in text}
        }
        found = [message for _, message in sql.check_statement(options, parameters, ask.sources)]
        assert found == ([told] if told else []), text


async def test_figures_of_the_operators_own_are_tried_on_the_server(ask: Ask) -> None:
    def told(**metric: Any) -> list[tuple[tuple[str | int, ...], str]]:
        sold = {"value": "sum(total)", "rows": "orders", "date": "placed_at", **metric}
        options = context_for(analytics.report, ask.sources, metrics={"sold": sold}).options
        return [(tuple(at), text) for at, text in analytics.check_metrics(options, {}, ask.sources)]

    assert told() == []
    assert told(groups={"user": "user_id", "month": "to_char(placed_at, 'YYYY-MM')"}) == []
    assert [at for at, _ in told(rows="order")] == [("metrics", "sold", "rows")]
    assert [at for at, _ in told(date="placed")] == [("metrics", "sold", "date")]
    assert [at for at, _ in told(where="totl > 1")] == [("metrics", "sold", "where")]
    assert [at for at, _ in told(groups={"a": "id_", "b": "id", "c": "c("})] == [
        ("metrics", "sold", "groups", "a"),
        ("metrics", "sold", "groups", "c"),
    ]
    options = context_for(analytics.report, ask.sources).options
    [(at, text)] = analytics.check_metrics(options, {}, ask.sources)
    assert at == ("source",)
    assert "has no figures of the sample shop" in text


async def test_a_server_that_is_away_is_unreachable_and_keeps_no_secret_from_the_log_only(
    owned: Owned, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ask = Ask(f"postgresql://me:hunter2-secret@127.0.0.1:{unused.getsockname()[1]}/db", owned)
        error = await ask.refused("SELECT 1")
        assert (error.code, error.retryable) == (ToolCode.UNREACHABLE, True)
        assert "127.0.0.1" not in error.message + error.hint
        assert ask.described() == "The database is PostgreSQL. Tables: users, orders, sales.deals."
    assert "hunter2" not in caplog.text + error.message + error.hint


async def test_figures_of_a_period_are_computed_on_postgresql_too(ask: Ask) -> None:
    metrics = {
        "sold": {
            "value": "sum(orders.total)",
            "rows": "orders JOIN users ON users.id = orders.user_id",
            "date": "orders.placed_at",
            "groups": {"country": "users.country"},
        }
    }
    context = context_for(analytics.report, ask.sources, owned=ask.owned, metrics=metrics, currency=None)
    answer = await analytics.report(context, "2026-01-01/2026-03-31", group_by="month")
    assert isinstance(answer, dict)
    assert (answer["sold"], answer["rows"]) == (
        0.3,
        [{"month": "2026-01", "sold": 0.1}, {"month": "2026-02", "sold": 0.2}],
    )
    answer = await analytics.report(context, "2026-01-01/2026-03-31", group_by="country")
    assert isinstance(answer, dict)
    assert answer["rows"] == [{"country": "UK", "sold": 0.3}]
    for group, first in (("week", "2025-12-29"), ("day", "2026-01-01")):
        answer = await analytics.report(context, "2026-01-01/2026-01-02", group_by=group, compare=False)
        assert isinstance(answer, dict)
        assert answer["rows"][0] == {group: first, "sold": 0.1}  # type: ignore[index,call-overload]


def backends(server: Postgres) -> list[int]:
    """The server's processes that work for `reader`."""
    return [pid for (pid,) in server.run("SELECT pid FROM pg_stat_activity WHERE usename = 'reader'")]


async def a_moment() -> None:
    await asyncio.sleep(0)


async def until(server: Postgres, active: int) -> None:
    """Asks the server until it runs so many queries for `reader`; no event tells of another program's state."""
    running_now = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'"
    while server.run(running_now) != [(active,)]:
        await a_moment()


ENDLESS = "SELECT count(*) FROM generate_series(1, 10000000000) AS n"


async def test_a_query_that_is_cancelled_ends_on_the_server_too(ask: Ask, server: Postgres) -> None:
    task = asyncio.get_running_loop().create_task(ask(ENDLESS, seconds=60))
    await until(server, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(server, 0)
    assert await ask("SELECT 1 AS one") == [{"one": 1}]


async def test_connections_that_broke_while_they_waited_are_made_anew(ask: Ask, server: Postgres) -> None:
    assert await ask("SELECT 1 AS one") == [{"one": 1}]
    [pid] = backends(server)
    server.run(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert await ask("SELECT 2 AS two") == [{"two": 2}]
    assert backends(server) != [pid]


async def test_a_server_that_hangs_takes_the_threads_of_its_source_alone_and_gives_them_back(
    ask: Ask, server: Postgres
) -> None:
    assert await ask("SELECT 1 AS one") == [{"one": 1}]
    [pid] = backends(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        hung = await ask.refused("SELECT 1", seconds=0.2)
        assert hung.code is ToolCode.TIMEOUT
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await ask("SELECT 1 AS one") == [{"one": 1}]


async def test_a_server_that_never_answers_leaves_other_sources_alone(owned: Owned, server: Postgres) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        mute = Ask(f"postgresql://me:secret@127.0.0.1:{silent.getsockname()[1]}/db", owned)
        results = await asyncio.gather(*(mute.refused("SELECT 1", seconds=0.4) for _ in range(12)))
        codes = [error.code for error in results]
        assert codes.count(ToolCode.TIMEOUT) >= PLACES
        assert set(codes) <= {ToolCode.TIMEOUT, ToolCode.LIMITED}
        assert await Ask(server.url(), owned)("SELECT 1 AS one") == [{"one": 1}]


async def test_a_table_that_is_locked_is_not_waited_for(ask: Ask, server: Postgres) -> None:
    with psycopg.connect(server.url("owner")) as connection:
        connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        error = await ask.refused("SELECT * FROM users")
    assert (error.code, error.retryable) == (ToolCode.UNREACHABLE, True)
    assert await ask("SELECT count(*) AS users FROM users") == [{"users": 2}]


async def test_no_more_connections_are_opened_than_a_source_has_places(ask: Ask, server: Postgres) -> None:
    answers = await asyncio.gather(*(ask(f"SELECT {number} AS n") for number in range(20)))
    assert answers == [[{"n": number}] for number in range(20)]
    assert len(backends(server)) <= PLACES
    ask.owned.close()
    while backends(server):
        await a_moment()


async def test_without_the_driver_the_error_says_what_to_install(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tornado_live.tools.builtin.sql_postgres.find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"pip install 'tornado-live\[postgres\]'"):
        ask.described()


TOOLS = """
version: 1
sources:
  shop: {sql: {url: "${DATABASE_URL}"}}
tools:
  ask_shop:
    description: Asks the shop.
    parameters: {type: object, properties: {query: {type: string}}, required: [query]}
    python: builtin.sql:query
    options: {source: shop, tables: [users, orders], hide_columns: [users.password], seconds: 60}
    timeout: 300ms
  user_name:
    description: Name of a user.
    parameters: {type: object, properties: {id: {type: integer}}, required: [id]}
    python: builtin.sql:statement
    options: {source: shop, sql: "SELECT name FROM users WHERE id = :id"}
"""


async def test_a_tool_of_tools_yaml_is_cut_off_at_its_own_timeout_and_shows_no_password(
    server: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    catalog = load_catalog(
        tmp_path / "tools.yaml",
        home=tmp_path,
        data_dir=tmp_path / "data",
        environment={"DATABASE_URL": server.url()},
    )
    assert "- users: id integer; name text; country text\n" in catalog.tools["ask_shop"].description
    assert "not-a-secret" in catalog.secrets
    assert "not-a-secret" not in str(catalog.declarations()) + str(catalog.listing())
    runner = ToolRunner(mock="never")

    async def call(name: str, **arguments: Json) -> Mapping[str, Any]:
        made = ToolCall(id="call", name=name, args=arguments)
        ended = await runner.run(catalog, made, caller=Caller("someone"), session_id="session")
        return ended.response

    try:
        # What is imported once may take longer than the tool is given.
        assert (await call("user_name", id=2))["result"] == {"row_count": 1, "rows": [{"name": "Grace"}]}
        assert (await call("ask_shop", query=ENDLESS))["error"]["code"] == "timeout"
        await until(server, 0)
        echoed = await call("ask_shop", query="SELECT 'not-a-secret' AS said")
        assert "not-a-secret" not in str(echoed)
    finally:
        await runner.close()
    while backends(server):
        await a_moment()
