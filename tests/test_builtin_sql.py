from __future__ import annotations

import asyncio
import hashlib
import resource
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import sql_attacks
from builtin_context import context_for, sql_source

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError
from tornado_live.tools.builtin import sql
from tornado_live.tools.catalog import load_catalog
from tornado_live.tools.reach import reach_of
from tornado_live.tools.result import Json, ToolCode, ToolError
from tornado_live.yamlfile import dotted

SECRET = sql_attacks.SECRET


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"""
            CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, country TEXT, password TEXT);
            INSERT INTO users VALUES (1, 'Ada', 'UK', '{SECRET}'), (2, 'Grace', 'US', '{SECRET}');
            CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, total REAL, ordered_on TEXT);
            INSERT INTO orders VALUES (1, 1, 0.1, '2026-01-01'), (2, 1, 0.2, '2026-01-02');
            CREATE TABLE secrets (word TEXT);
            INSERT INTO secrets VALUES ('{SECRET}');
            CREATE VIEW peek AS SELECT word FROM secrets;
            """
        )
    return path


def run(database: Path, query: str, **options: Json) -> Json:
    settings = {"tables": ["users", "orders"], "hide_columns": ["users.password"], **options}
    return asyncio.run(sql.query(query, context_for(sql.query, sql_source(database), **settings)))


def refused(database: Path, query: str, **options: Json) -> ToolError:
    with pytest.raises(ToolError) as caught:
        run(database, query, **options)
    return caught.value


def test_a_select_answers_with_one_object_per_row(database: Path) -> None:
    assert run(database, "SELECT id, name FROM users ORDER BY id;") == {
        "row_count": 2,
        "rows": [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}],
    }


def test_sums_are_free_of_binary_dust_and_names_of_columns_stay_distinct(database: Path) -> None:
    assert run(database, "SELECT sum(total) AS total FROM orders") == {
        "row_count": 1,
        "rows": [{"total": 0.3}],
    }
    query = (
        "SELECT users.id, orders.id FROM users JOIN orders ON orders.user_id = users.id ORDER BY 2 LIMIT 1"
    )
    assert run(database, query) == {"row_count": 1, "rows": [{"id": 1, "id_2": 1}]}


def test_common_sql_of_models_is_let_through(database: Path) -> None:
    for query in (
        "WITH big AS (SELECT * FROM orders WHERE total > 0.1) SELECT count(*) FROM big",
        "SELECT strftime('%Y-%m', ordered_on) AS month, round(sum(total), 2) FROM orders GROUP BY 1 ORDER BY 1",
        "SELECT name, rank() OVER (ORDER BY id) FROM users WHERE name LIKE 'a%' OR lower(name) GLOB 'g*'",
        "SELECT CASE WHEN total > 1 THEN 'high' ELSE 'low' END, avg(total) FROM orders GROUP BY 1",
        "SELECT id FROM users UNION SELECT id FROM orders EXCEPT SELECT 2",
        "SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT sum(x) FROM n",
        "SELECT date('now', '-7 days') < date('now') AS yes",
        "SELECT count(*) FROM main.users",
        "VALUES (1)",
    ):
        assert isinstance(run(database, query), dict), query


@pytest.mark.proves("T57")
@pytest.mark.proves("T59")
def test_nothing_is_written_and_nothing_unlisted_is_read(database: Path) -> None:
    folder = database.parent
    attempts = sql_attacks.on_sqlite(str(folder))
    assert len(attempts) >= 120
    before = hashlib.sha256(database.read_bytes()).digest()
    for attempt in attempts:
        error = refused(database, attempt)
        assert error.code in (ToolCode.NOT_ALLOWED, ToolCode.INVALID_ARGUMENTS), attempt
        assert SECRET not in error.message + error.hint, attempt
        assert "password" not in error.hint, attempt
    assert hashlib.sha256(database.read_bytes()).digest() == before
    assert [each.name for each in folder.iterdir()] == ["own.db"]


@pytest.mark.proves("T57")
def test_a_file_that_is_only_opened_for_reading_is_written_past(database: Path) -> None:
    """What the authorizer is for: without it several of the same statements work."""
    folder = database.parent
    worked = []
    reaching_out = ("ATTACH", "VACUUM INTO", "PRAGMA", "CREATE TEMP")
    for attempt in filter(lambda each: each.startswith(reaching_out), sql_attacks.on_sqlite(str(folder))):
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            try:
                connection.execute(attempt)
            except sqlite3.Error:
                continue
            worked.append(attempt)
    assert {f"VACUUM INTO '{folder}/copy.db'", f"ATTACH '{folder}/other.db' AS other"} <= set(worked)
    assert (folder / "copy.db").exists()


@pytest.mark.proves("T58")
def test_a_heavy_query_ends_at_its_deadline_and_makes_no_giant_values(database: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for query in (
        f"{endless} SELECT max(x) FROM n",
        f"{endless} SELECT count(*) FROM n a, n b",
        f"{endless} SELECT x FROM n ORDER BY x DESC",
    ):
        assert refused(database, query, seconds=0.2).code is ToolCode.TIMEOUT, query
    # One call compares 49,000 letters with 98,000: the clock must be looked at between few of them.
    letters = f"replace(hex(char({', '.join('1' * 10)})), '01', '{'a' * 4_900}')"
    slow_calls = (
        f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 5000), "
        f"s AS MATERIALIZED (SELECT {letters} AS t) SELECT sum(instr(t || t, t || x)) FROM n, s"
    )
    # Processor time: what else the machine does meanwhile is not the query's.
    started = time.process_time()
    assert refused(database, slow_calls, seconds=0.2).code is ToolCode.TIMEOUT
    assert time.process_time() - started < 4
    doubling = "'" + "x" * 9_000 + "'"
    for _ in range(6):
        doubling = f"hex({doubling})"
    assert refused(database, f"SELECT {doubling}").code is ToolCode.TOO_LARGE
    grown = f"{endless} SELECT group_concat(hex(x)) FROM (SELECT x FROM n LIMIT 200000)"
    assert refused(database, grown).code is ToolCode.TOO_LARGE
    assert refused(database, "SELECT " + "1 + " * 20_000 + "1").code is ToolCode.TOO_LARGE
    assert refused(database, "SELECT " + "(" * 500 + "1" + ")" * 500).code is ToolCode.TOO_LARGE
    kib = 1 if sys.platform != "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / kib < 50 * 1024


def test_too_many_rows_or_bytes_are_cut_with_a_note(database: Path) -> None:
    many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100) SELECT x FROM n"
    answer = run(database, many, max_rows=3)
    assert answer == {
        "row_count": 3,
        "rows": [{"x": 1}, {"x": 2}, {"x": 3}],
        "note": "Only the first 3 rows; there are more.",
    }
    assert "note" not in run(database, many, max_rows=100)  # type: ignore[operator]
    wide = run(database, f"SELECT x, '{'y' * 100}' AS y FROM ({many})", max_rows=100, max_bytes=1_000)
    assert isinstance(wide, dict)
    assert 5 <= int(str(wide["row_count"])) <= 10


def test_errors_tell_a_model_how_to_go_on(database: Path) -> None:
    error = refused(database, "SELECT nam FROM users")
    assert error.message == "SQL error: no such column: nam."
    assert (
        error.hint == "columns of users: id, name, country; columns of orders: id, user_id, total, ordered_on"
    )
    error = refused(database, "SELECT * FROM user")
    assert error.message == "SQL error: no such table: user."
    assert error.hint == 'Tables that may be read: users, orders - did you mean "users"?'
    assert refused(database, "SELECT year(ordered_on) FROM orders").hint.startswith(
        "Write it in SQLite's own"
    )
    assert refused(database, "DELETE FROM users").message == "Only reading is allowed: one SELECT."
    assert refused(database, "SELECT 1; SELECT 2").hint == "Send one SELECT at a time."


def test_a_statement_of_the_operators_binds_its_arguments_and_takes_missing_ones_as_null(
    database: Path,
) -> None:
    context = context_for(
        sql.statement,
        sql_source(database),
        sql="SELECT name FROM users WHERE country = :country AND (:name IS NULL OR name = :name)",
    )
    assert asyncio.run(sql.statement(context=context, country="UK")) == {
        "row_count": 1,
        "rows": [{"name": "Ada"}],
    }
    assert asyncio.run(sql.statement(context=context, country="UK", name="Grace")) == {
        "row_count": 0,
        "rows": [],
    }
    quoted = asyncio.run(sql.statement(context=context, country="x' OR '1'='1"))
    assert quoted == {"row_count": 0, "rows": []}


def test_blobs_long_texts_and_broken_utf8_are_made_presentable(database: Path) -> None:
    query = "SELECT x'00ff' AS blob, CAST(x'41ff' AS TEXT) AS text, 9e999 AS huge, NULL AS absent"
    assert run(database, query) == {
        "row_count": 1,
        "rows": [{"blob": "(2 bytes)", "text": "A\ufffd", "huge": None, "absent": None}],
    }


def test_the_description_names_tables_and_columns_but_values_only_where_the_operator_says_so(
    database: Path,
) -> None:
    options = {"tables": ["users", "orders"], "hide_columns": ["users.password"]}
    sources = sql_source(database)
    plain = sql.describe_query(context_for(sql.query, sources, **options).options, sources)
    assert "- users: id INTEGER; name TEXT; country TEXT\n" in plain
    assert "password" not in plain
    assert "secrets" not in plain
    assert "Ada" not in plain
    told = sql.describe_query(
        context_for(sql.query, sources, **options, describe_values=True).options, sources
    )
    assert "ordered_on TEXT (YYYY-MM-DD)" in told
    assert "Ada" not in told
    silent = context_for(sql.query, sources, **options, describe_schema=False)
    assert sql.describe_query(silent.options, sources) == ""


def test_the_sample_shop_is_described_without_being_made_and_made_by_the_first_query(tmp_path: Path) -> None:
    sources = sql_source(tmp_path / "data" / "shop.db")
    context = context_for(sql.query, sources, sample="shop", tables=["users"], describe_values=True)
    assert "- users: id INTEGER; name TEXT; email TEXT" in sql.describe_query(context.options, sources)
    assert list(tmp_path.iterdir()) == []
    answer = asyncio.run(sql.query("SELECT count(*) > 100 AS enough FROM users", context))
    assert answer == {"row_count": 1, "rows": [{"enough": 1}]}
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["shop.db"]


def test_mistakes_of_the_operator_are_named(database: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.db"
    error = refused(missing, "SELECT 1")
    assert error.code is ToolCode.UNREACHABLE
    assert str(missing) not in error.message + error.hint
    assert not missing.exists()
    assert "lacks: usr" in refused(database, "SELECT 1", tables=["usr"]).message
    assert 'no sql source "other"; it has: shop' in refused(database, "SELECT 1", source="other").message
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database at all" * 100)
    assert refused(broken, "SELECT 1").code is ToolCode.UNREACHABLE
    assert "lacks: users.pasword" in refused(database, "SELECT 1", hide_columns=["users.pasword"]).message
    for url in ("mysql://me:secret@host/db", "sqlite:///:memory:", "no url"):
        other = {"shop": {"kind": "sql", "url": url}}
        [(at, message)] = sql.check_source(context_for(sql.query, other).options, {}, other)
        assert tuple(at) == ("source",)
        assert "neither sqlite:/// and a file nor postgresql" in message
        assert "secret" not in message
    server = {"shop": {"kind": "sql", "url": "postgresql://me:secret@host/db"}}
    [(_, message)] = sql.check_source(context_for(sql.query, server, sample="shop").options, {}, server)
    assert "remove sample: shop" in message


def mistakes(database: Path, statement: str, *parameters: str, **more: Json) -> list[str]:
    sources = sql_source(database)
    options = context_for(sql.statement, sources, sql=statement).options
    schema: dict[str, Json] = {"type": "object", "properties": {name: {} for name in parameters}, **more}
    return [f"{dotted(tuple(at))}: {text}" for at, text in sql.check_statement(options, schema, sources)]


def test_a_fixed_statement_is_tried_at_load_with_the_parameters_of_its_tool(database: Path) -> None:
    by_id = "SELECT name FROM users WHERE id = :id"
    assert mistakes(database, by_id, "id") == []
    assert mistakes(database, f"-- of whom\n{by_id} AND ':x' <> '' /* :y */;", "id") == []
    assert mistakes(database, f"{by_id} AND country = @country", "id", "country") == []
    assert mistakes(database, by_id, "ids") == [
        'sql: :id is not among the parameters - did you mean "ids"?',
        "sql: the parameter ids is used nowhere; write :ids where it belongs",
    ]
    assert mistakes(database, by_id) == ["sql: :id is not among the parameters"]
    assert mistakes(database, by_id, additionalProperties=True) == []
    for statement, told in (
        ("SELECT id, nme FROM users", 'SQL error: no such column: nme - did you mean "name"?'),
        ("SELECT o.totl FROM orders o", 'SQL error: no such column: o.totl - did you mean "total"?'),
        ("SELECT id FROM user", 'SQL error: no such table: user - did you mean "users"?'),
        ("SELECT id FORM users", 'SQL error: near "users": syntax error'),
        ("SELECT (id FROM users", 'SQL error: near "FROM": syntax error'),
        ("SELECT printf('%s', id) FROM users", 'The function "printf" may not be used'),
        ("SELECT * FROM sqlite_master", 'The table "sqlite_master" may not be read'),
        ("DELETE FROM users", "The statement is not a SELECT."),
        ("SELECT 1; SELECT 2", "There is more than one statement."),
        (
            "SELECT ?",
            "SQL error: Binding 1 has no name, but you supplied a dictionary (which has only names)",
        ),
    ):
        assert mistakes(database, statement) == [f"sql: {told}"], statement
    [told] = mistakes(database.parent / "nowhere.db", by_id, "id")
    assert told == 'source: The database of the source "shop" does not exist.'
    assert not (database.parent / "nowhere.db").exists()


def test_of_a_fixed_statement_that_fails_the_model_learns_nothing_and_the_log_why(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(statement: str, **arguments: Json) -> ToolError:
        context = context_for(sql.statement, sql_source(database), sql=statement)
        with pytest.raises(ToolError) as caught:
            asyncio.run(sql.statement(context=context, **arguments))
        assert "users" not in caught.value.message + caught.value.hint
        return caught.value

    for statement in ("SELECT nme FROM users", "SELECT * FROM sqlite_master", "SELECT (1"):
        assert failing(statement).code is ToolCode.FAILED
    assert caplog.messages[0] == (
        'tool tool: its SQL fails on the source "shop": SQL error: no such column: nme.'
    )
    wrong = failing("SELECT id FROM users LIMIT :count", count="many")
    assert (wrong.code, wrong.hint) == (ToolCode.INVALID_ARGUMENTS, "Call it with other values.")
    assert failing("SELECT :n", n=2**70).code is ToolCode.INVALID_ARGUMENTS


def test_a_plan_names_the_tables_that_a_tool_reads_and_what_is_hidden(database: Path) -> None:
    (database.parent / "tools.yaml").write_text(PLANNED)
    catalog = load_catalog(
        database.parent / "tools.yaml", home=database.parent, data_dir=database.parent, environment={}
    )
    reached = {
        name: [f"{kind}: {value}" for kind, value in reach_of(tool, catalog, Caller("someone"))][1:]
        for name, tool in catalog.tools.items()
    }
    file = f"database: sqlite:///{database}"
    assert reached == {
        "ask": [
            file,
            "table: users",
            "table: orders",
            "table: secrets",
            "table: peek",
            "hidden: users.password",
        ],
        "ask_some": ["table: orders", file],
        "names": [file, "table: users", "table: main.orders"],
        "report": [file, "table: orders", "table: users"],
    }
    database.unlink()
    assert ("table", "all that the database has") in reach_of(
        catalog.tools["ask"], catalog, Caller("someone")
    )


PLANNED = """\
version: 1
sources:
  shop: {sql: {url: "sqlite:///own.db"}}
tools:
  ask:
    description: Asks.
    parameters: {type: object, properties: {query: {type: string}}, required: [query]}
    python: builtin.sql:query
    options: {hide_columns: [users.password]}
  ask_some:
    description: Asks.
    parameters: {type: object, properties: {query: {type: string}}, required: [query]}
    python: builtin.sql:query
    options: {tables: [orders]}
  names:
    description: Names.
    parameters: {}
    python: builtin.sql:statement
    options:
      sql: |
        WITH late AS (SELECT user_id FROM main.orders)
        SELECT name FROM Users JOIN late ON late.user_id = users.id
  report:
    description: Figures.
    parameters: {}
    python: builtin.analytics:report
    options:
      metrics:
        sold:
          value: sum(total)
          rows: orders
          date: ordered_on
          where: user_id IN (SELECT id FROM users)
"""
FILE = """\
version: 1
sources:
  shop: {sql: {url: "sqlite:///own.db"}}
  handbook: {documents: {paths: [knowledge/]}}
tools:
  find_order:
    description: Finds an order.
    parameters: {type: object, properties: {number: {type: integer}, x: {type: integer}}}
    python: builtin.sql:statement
    options:
      sql: SELECT id FROM orders WHERE id = :nr
  report:
    description: Figures.
    parameters: {}
    python: builtin.analytics:report
    options:
      metrics:
        sold:
          value: sum(total
          rows: orders
          date: ordered_on
"""


def test_sql_that_the_database_does_not_take_is_a_mistake_of_the_file(database: Path) -> None:
    def told(text: str) -> list[str]:
        (database.parent / "tools.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_catalog(
                database.parent / "tools.yaml", home=database.parent, data_dir=database.parent, environment={}
            )
        return [str(problem) for problem in caught.value.problems]

    assert told(FILE) == [
        "tools.yaml:11: find_order.options.sql: :nr is not among the parameters; known: number, x",
        "tools.yaml:11: find_order.options.sql: the parameter number is used nowhere;"
        " write :number where it belongs",
        "tools.yaml:11: find_order.options.sql: the parameter x is used nowhere; write :x where it belongs",
        'tools.yaml:19: report.options.metrics.sold.value: SQL error: near "AS": syntax error',
    ]
    assert told(FILE.replace("sqlite:///own.db", "own.db")) == [
        'tools.yaml:3: sources.shop.sql.url: "own.db" is not an address such as sqlite:///data/shop.db'
    ]
    wrong_kind = FILE.replace(
        "    options:\n      metrics", "    options:\n      source: handbook\n      metrics"
    )
    assert (
        'report.options.source: tools.yaml has no sql source "handbook"; it has: shop.'
        in told(wrong_kind)[-1]
    )
