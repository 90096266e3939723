"""SQL for reading only, on SQLite and PostgreSQL: free queries of the model's, fixed statements of the operator's.

What keeps a query to reading is in sql_guard, sql_sqlite and sql_postgres.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from tornado_live.tools.builtin import shop
from tornado_live.tools.builtin.sql_rows import Caps, Database, Rows, Unreachable
from tornado_live.tools.builtin.sql_source import SqlSource, check_url, file_of, read_now
from tornado_live.tools.builtin.sql_sqlite import SqliteDatabase
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.result import Json, ToolCode, ToolError

Source = Mapping[str, Json]
Answer = TypeVar("Answer")

SOURCE_OPTION: Final[Json] = {
    "type": "string",
    "default": "shop",
    "description": "Name of a sql source of tools.yaml",
}
SAMPLE_OPTION: Final[Json] = {
    "enum": ["shop", None],
    "default": None,
    "description": "shop: make the sample shop where the source's file is missing, and keep it up to date",
}
_COMMON_OPTIONS: Final[dict[str, Json]] = {
    "source": SOURCE_OPTION,
    "sample": SAMPLE_OPTION,
    "max_rows": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
    "max_bytes": {"type": "integer", "minimum": 256, "maximum": 1_000_000, "default": 12_000},
    "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 60, "default": 5},
}
QUERY_OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        **_COMMON_OPTIONS,
        "tables": {"type": ["array", "null"], "items": {"type": "string"}, "default": None},
        "hide_columns": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[^.]+(\.[^.]+){1,2}$"},
            "default": [],
            "description": "Columns that nobody may read, as table.column",
        },
        "describe_schema": {"type": "boolean", "default": True},
        "describe_values": {
            "type": "boolean",
            "default": False,
            "description": "Also tell the recurring values of columns; clients can see them in the list of tools",
        },
    },
    "additionalProperties": False,
}
STATEMENT_OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {**_COMMON_OPTIONS, "sql": {"type": "string", "minLength": 1}},
    "required": ["sql"],
    "additionalProperties": False,
}

_ROWS_LOOKED_AT: Final = 20_000
_MOST_EXAMPLES: Final = 12
_LONGEST_EXAMPLE: Final = 30
_OFTEN: Final = 5

logger = logging.getLogger(__name__)


async def read(context: ToolContext, work: Callable[[Database], Answer]) -> Answer:
    """What `work` makes of the database that the tool's options name, within their `seconds`. Raises ToolError."""
    options = context.options
    name = str(options["source"])
    url = _url_of(name, context.sources)
    source = context.owned.get((SqlSource, name, url), lambda: SqlSource(name, url))
    return await source.read(
        work,
        tool=context.tool,
        seconds=float(str(options["seconds"])),
        tables=_names(options.get("tables")),
        hidden=_names(options.get("hide_columns")) or (),
        first=lambda: _make_sample(options, url),
    )


def describe_query(options: Source, sources: Mapping[str, Source]) -> str:
    """Tables and columns, appended to the description so that a model writes SQL that fits."""
    name = str(options["source"])
    url = _checked_url(options, sources)
    tables, hidden = _names(options.get("tables")), _names(options.get("hide_columns")) or []

    def describe(database: Database) -> str:
        if remark := database.remark():
            logger.warning('source "%s": %s', name, remark)
        if not options.get("describe_schema", True):
            return ""
        return _description(database, options.get("describe_values") is True)

    file = file_of(url)
    if file is not None and options.get("sample") == "shop" and not file.exists():
        with shop.preview() as connection:
            return describe(SqliteDatabase(connection, tables, hidden))
    try:
        return read_now(name, url, describe, tables=tables, hidden=hidden)
    except Unreachable:
        # A server that is away for a moment is no mistake of tools.yaml; it may be back when it is asked.
        logger.warning('source "%s": the tables are not described, since the server could not be asked', name)
        return "The database is PostgreSQL." + (f" Tables: {', '.join(tables)}." if tables else "")


def check_source(options: Source, sources: Mapping[str, Source]) -> str:
    """Adds nothing to the description. Raises ToolError for a source that cannot be used."""
    _checked_url(options, sources)
    return ""


def _check_statement(options: Source, sources: Mapping[str, Source]) -> str:
    """Adds nothing to the description. Raises ToolError for a statement that cannot be one SELECT."""
    from tornado_live.tools.builtin.sql_guard import Dialect, check_statement  # slow to import

    dialect: Dialect = "sqlite" if file_of(_checked_url(options, sources)) else "postgres"
    check_statement(str(options["sql"]), dialect)
    return ""


@handler(options=QUERY_OPTIONS, describe=describe_query)
async def query(query: str, context: ToolContext) -> Json:
    """Runs one SELECT that the model wrote: `{"row_count", "rows": [{column: value}]}`."""
    return _answer(await read(context, lambda database: database.ask(query, _caps(context.options))))


@handler(options=STATEMENT_OPTIONS, describe=_check_statement)
async def statement(context: ToolContext, **arguments: Json) -> Json:
    """Runs the SELECT of option `sql` with the tool's arguments bound as :name; one not given is NULL."""
    sql, caps = str(context.options["sql"]), _caps(context.options)
    return _answer(await read(context, lambda database: database.select(sql, arguments, caps)))


def _caps(options: Source) -> Caps:
    rows, size = options["max_rows"], options["max_bytes"]
    assert isinstance(rows, int)
    assert isinstance(size, int)
    return Caps(rows=rows, bytes=size, seconds=float(str(options["seconds"])))


def _answer(found: Rows) -> Json:
    answer: dict[str, Json] = {"row_count": len(found.rows), "rows": list(found.rows)}
    if found.more:
        answer["note"] = f"Only the first {len(found.rows)} rows; there are more."
    return answer


def _description(database: Database, values: bool) -> str:
    today = "date('now')" if database.dialect == "SQLite" else "current_date"
    lines = [f"The database is {database.dialect}; {today} is today. Tables and columns:"]
    for table, described in database.columns().items():
        columns = []
        for column, kind in described.items():
            examples = _examples(database, table, column) if values else ""
            columns.append(f"{column} {kind}".strip() + (f" ({examples})" if examples else ""))
        lines.append(f"- {table}: {'; '.join(columns)}")
    return "\n".join(lines)


def _examples(database: Database, table: str, column: str) -> str:
    """How values of a column are written: the few that keep recurring, or the form of a day.

    Descriptions are shown to clients: values that hardly recur, such as names, are no examples.
    """
    name = '"' + column.replace('"', '""') + '"'
    sql = (
        f"SELECT {name} AS value, count(*) AS times FROM (SELECT {name} FROM {database.quoted(table)} "  # noqa: S608
        f"WHERE {name} IS NOT NULL LIMIT {_ROWS_LOOKED_AT}) AS looked_at GROUP BY 1 LIMIT {_MOST_EXAMPLES + 1}"
    )
    try:
        rows = database.select(sql, {}, Caps(rows=_MOST_EXAMPLES + 1, bytes=4_000, seconds=1)).rows
    except Unreachable:
        raise
    except ToolError:
        return ""  # a view that cannot be read alone, or a slow one: the column is named all the same
    values = [row["value"] for row in rows]
    texts = [value for value in values if isinstance(value, str) and len(value) <= _LONGEST_EXAMPLE]
    if not texts or len(texts) != len(values):
        return ""
    if all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in texts):
        return "YYYY-MM-DD"
    if all(re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:.*", text) for text in texts):
        return f"YYYY-MM-DD{texts[0][10]}HH:MM…"
    often = sum(_size(row["times"]) for row in rows) >= _OFTEN * len(rows)
    recurring = len(values) <= _MOST_EXAMPLES and often
    return ", ".join(texts) if recurring else ""


def _make_sample(options: Source, url: str) -> None:
    file = file_of(url)
    if options["sample"] != "shop" or file is None:
        return
    try:
        shop.ensure_shop(file)
    except (OSError, sqlite3.Error) as error:
        raise ToolError(
            ToolCode.UNREACHABLE, "The sample shop could not be made or brought up to date."
        ) from error


def _checked_url(options: Source, sources: Mapping[str, Source]) -> str:
    name = str(options["source"])
    url = _url_of(name, sources)
    check_url(name, url)
    if options.get("sample") == "shop" and file_of(url) is None:
        raise ToolError(
            ToolCode.FAILED,
            f'The sample shop is a SQLite file, and the source "{name}" is not; remove sample: shop.',
        )
    return url


def _url_of(name: str, sources: Mapping[str, Source]) -> str:
    source = sources.get(name)
    if source is None or source.get("kind") != "sql":
        known = (
            ", ".join(sorted(each for each, value in sources.items() if value.get("kind") == "sql")) or "none"
        )
        raise ToolError(ToolCode.FAILED, f'tools.yaml has no sql source "{name}"; it has: {known}.')
    return str(source["url"])


def _names(value: Json) -> list[str] | None:
    return [str(each) for each in value] if isinstance(value, list) else None


def _size(value: Json) -> int:
    return value if isinstance(value, int) else 0
