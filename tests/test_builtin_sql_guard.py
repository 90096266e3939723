from __future__ import annotations

import pytest

from tornado_live.tools.builtin.sql_guard import (
    Placeholder,
    Relation,
    check_reading,
    check_statement,
    for_postgres,
    placeholders,
)
from tornado_live.tools.result import ToolCode, ToolError

TABLES = {
    "users": Relation("public", "users", ("id", "name"), whole=False),
    "orders": Relation("public", "orders", ("id", "user_id"), whole=True),
    "sales.deals": Relation("sales", "deals", ("id",), whole=True),
}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("SELECT id FROM orders", 'SELECT "id" FROM "public"."orders" AS "orders"'),
        ("select ID from Orders o", 'SELECT "id" FROM "public"."orders" AS "o"'),
        ("SELECT id FROM public.orders; -- so", 'SELECT "id" FROM "public"."orders"'),
        ('SELECT "Id" FROM sales.deals', 'SELECT "Id" FROM "sales"."deals"'),
        ("SELECT * FROM users", 'SELECT * FROM (SELECT "id", "name" FROM "public"."users") AS "users"'),
        ("SELECT u FROM users u", 'SELECT "u" FROM (SELECT "id", "name" FROM "public"."users") AS "u"'),
        ("WITH a AS (SELECT 1) SELECT * FROM a", 'WITH "a" AS (SELECT 1) SELECT * FROM "a"'),
        ("SELECT 'it''s', '/* a */ --'", "SELECT 'it''s', '/* a */ --'"),
        ("SELECT user /* who */, 1", 'SELECT "user", 1'),
    ],
)
def test_tables_are_sent_by_their_full_name_and_without_hidden_columns(asked: str, sent: str) -> None:
    assert for_postgres(asked, TABLES).replace(' AS "orders"', "") == sent.replace(' AS "orders"', "")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("SELECT * FROM secrets", 'There is no table "secrets" that may be read.'),
        ("SELECT * FROM other.users", 'There is no table "other.users" that may be read.'),
        ("SELECT * FROM deals", 'There is no table "deals" that may be read.'),
        ('SELECT * FROM "Users"', 'There is no table "Users" that may be read.'),
        ("SELECT pg_sleep(1)", 'The function "pg_sleep" may not be used.'),
        ("SELECT public.now()", '"public.now()" may not be used here.'),
        ("SELECT 'users'::regclass", 'The type "REGCLASS" may not be used.'),
        ("SELECT E'a', '; DELETE FROM users --'", "\"e'a'\" may not be used here."),
        ("WITH users AS (SELECT 1) SELECT * FROM users", '"users" is a WITH query and a table.'),
        ("SELECT 1 FOR UPDATE", "Only reading is allowed: one SELECT."),
        ("SELECT 1; SELECT 2", "The query has more than one statement."),
        (" ; ", "There is no SELECT in the query."),
    ],
)
def test_a_refusal_says_what_may_not_be(asked: str, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        for_postgres(asked, TABLES)
    assert caught.value.message == told


@pytest.mark.parametrize(
    "query",
    [
        "SELECT " + "(" * 60 + "1" + ")" * 60,
        "SELECT " + "ARRAY[" * 20 + "1" + "]" * 20,
        "SELECT " + ", ".join(["1"] * 4_000),
        "SELECT '" + "x" * 30_000 + "'",
        "SELECT " + "NOT " * 2_500 + "true",
    ],
)
def test_what_would_cost_the_parser_its_time_or_stack_is_too_large(query: str) -> None:
    with pytest.raises(ToolError) as caught:
        for_postgres(query, TABLES)
    assert caught.value.code is ToolCode.TOO_LARGE
    with pytest.raises(ToolError):
        check_reading(query.replace("ARRAY[", "(" * 10).replace("]", ")" * 10), "sqlite")


def test_parameters_are_found_where_they_are_parameters() -> None:
    text = "SELECT ':no', a::int, b[1:n] /* :no */ FROM t WHERE c = :one AND d IN (:two,:two) -- :no"
    found = placeholders(text, "postgres")
    assert [each.name for each in found] == ["one", "two", "two"]
    assert {text[each.start : each.end] for each in found} == {":one", ":two"}
    assert placeholders("SELECT :a", "postgres") == [Placeholder("a", 7, 9)]


def test_an_operators_statement_is_one_select() -> None:
    for good in (
        "SELECT 1;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1)",
        "(SELECT 1)",
        "SELECT ';'",
    ):
        check_statement(good, "postgres")
    for bad in ("DELETE FROM t", "SELECT 1; SELECT 2", "", "SELECT 'open"):
        with pytest.raises(ToolError):
            check_statement(bad, "sqlite")
