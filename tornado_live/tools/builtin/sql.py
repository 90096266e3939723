"""SQL for reading only, on SQLite and PostgreSQL: free queries of the model's, fixed statements of the operator's.

What keeps a query to reading is in sql_guard, sql_sqlite and sql_postgres.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, TypeVar

from tornado_live.errors import nearest
from tornado_live.tools.builtin import shop
from tornado_live.tools.builtin.sql_rows import Caps, Database, Rows, SqlMistake, Unreachable
from tornado_live.tools.builtin.sql_source import SqlSource, check_url, file_of, read_now
from tornado_live.tools.builtin.sql_sqlite import SqliteDatabase
from tornado_live.tools.complaints import listed
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import Mistake, handler
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

# Where a schema has one of these, what `properties` names need not be all.
_OPEN: Final = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "$ref"}
)
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


async def read_fixed(
    context: ToolContext, work: Callable[[Database], Answer], given: Mapping[str, Json]
) -> Answer:
    """As `read`, for SQL of the operator's that takes the values `given`.

    Why the SQL fails is for the log alone: it may name what the model was not to know of.
    """
    try:
        return await read(context, work)
    except SqlMistake as error:
        told = (
            f'tool {context.tool}: its SQL fails on the source "{context.options["source"]}": {error.message}'
        )
        logger.warning("%s", told, extra={"event": "sql_failed", "fields": {"tool": context.tool}})
        if error.of_values and given:
            raise ToolError(
                ToolCode.INVALID_ARGUMENTS,
                "The database cannot use these values.",
                hint="Call it with other values.",
            ) from error
        raise ToolError(
            ToolCode.FAILED,
            "The database does not understand what this tool asks it.",
            hint="Say that this cannot be looked up, and that whoever runs this server has to mend it.",
        ) from error


def describe_query(options: Source, sources: Mapping[str, Source]) -> str:
    """Tables and columns, appended to the description so that a model writes SQL that fits."""
    name = str(options["source"])

    def describe(database: Database) -> str:
        if remark := database.remark():
            logger.warning('source "%s": %s', name, remark)
        if not options.get("describe_schema", True):
            return ""
        return _description(database, options.get("describe_values") is True)

    try:
        return _now(options, sources, describe)
    except Unreachable:
        # A server that is away for a moment is no mistake of tools.yaml; it may be back when it is asked.
        logger.warning('source "%s": the tables are not described, since the server could not be asked', name)
        tables = _names(options.get("tables"))
        return "The database is PostgreSQL." + (f" Tables: {', '.join(tables)}." if tables else "")


def check_source(options: Source, _: Mapping[str, Json], sources: Mapping[str, Source]) -> Iterator[Mistake]:
    """The mistakes of a source that cannot be used."""
    try:
        _checked_url(options, sources)
    except ToolError as error:
        yield ("source",), error.message


def tried(
    options: Source, sources: Mapping[str, Source], work: Callable[[Database], Iterable[Mistake]]
) -> list[Mistake]:
    """The mistakes that `work` finds in SQL of the operator's, at load; none if the server is away just now."""
    try:
        return _now(options, sources, lambda database: list(work(database)))
    except ToolError as error:
        if not error.retryable:
            return [(("source",), error.message)]
        logger.warning('source "%s": the SQL is not tried, since it could not be asked', options["source"])
        return []


def why_not(database: Database, sql: str) -> str:
    """Why the database could not run a SELECT of the operator's, or nothing."""
    try:
        database.prepare(sql)
    except SqlMistake as error:
        told = error.message.rstrip(".")
        columns = database.columns()
        known = {*columns, *(name for names in columns.values() for name in names)}
        # no such column: orders.statuss; column orders.statuss does not exist; column "statuss" does not exist
        found = re.search(
            r'(?:no such (?:column|table): |(?:column|relation) "?)(?:\w+\.)*(\w+)(?:$|"? does not exist)',
            told,
        )
        close = nearest(found[1], known) if found else ""
        return told + (close or (f"; {error.hint}" if error.hint.startswith("Name ") else ""))
    return ""


def check_statement(
    options: Source, parameters: Mapping[str, Json], sources: Mapping[str, Source]
) -> Iterator[Mistake]:
    """Whether option `sql` is a SELECT that the database can run, with the tool's parameters and no others."""
    from tornado_live.tools.builtin import sql_guard  # slow to import

    if wrong := list(check_source(options, parameters, sources)):
        yield from wrong
        return
    sql, dialect = str(options["sql"]), _dialect(options, sources)
    try:
        sql_guard.check_statement(sql, dialect)
        asked = {each.name for each in sql_guard.placeholders(sql, dialect)}
    except ToolError as error:
        yield ("sql",), error.message
        return

    def attempt(database: Database) -> Iterator[Mistake]:
        if told := why_not(database, sql):
            yield ("sql",), told
        else:
            asked.clear()
            asked.update(database.prepare(sql))

    yield from tried(options, sources, attempt)
    properties = parameters.get("properties")
    known = list(properties) if isinstance(properties, dict) else []
    if not parameters.keys() & _OPEN:
        for name in sorted(asked.difference(known)):
            yield ("sql",), f":{name} is not among the parameters{nearest(name, known) or listed(known)}"
    for name in known:
        if name not in asked:
            yield ("sql",), f"the parameter {name} is used nowhere; write :{name} where it belongs"


def reach_of_query(options: Source, sources: Mapping[str, Source]) -> Iterator[tuple[str, str]]:
    """The tables that may be read, and the columns of them that may not."""
    tables = _names(options.get("tables"))
    if tables is None:
        try:
            tables = list(_now(options, sources, lambda database: database.columns()))
        except ToolError:
            tables = ["all that the database has"]
    yield from (("table", name) for name in tables)
    yield from (("hidden", name) for name in _names(options.get("hide_columns")) or ())


def reach_of_sql(
    options: Source, sources: Mapping[str, Source], statements: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """The tables that statements of the operator's name."""
    from tornado_live.tools.builtin.sql_guard import tables_of  # slow to import

    for sql in statements:
        try:
            yield from (("table", name) for name in tables_of(sql, _dialect(options, sources)))
        except ToolError:  # the database may understand more than the parser
            yield "table", f"those of: {' '.join(sql.split())}"


def _reach_of_statement(options: Source, sources: Mapping[str, Source]) -> Iterator[tuple[str, str]]:
    return reach_of_sql(options, sources, [str(options["sql"])])


@handler(options=QUERY_OPTIONS, describe=describe_query, check=check_source, reach=reach_of_query)
async def query(query: str, context: ToolContext) -> Json:
    """Runs one SELECT that the model wrote: `{"row_count", "rows": [{column: value}]}`."""
    return _answer(await read(context, lambda database: database.ask(query, _caps(context.options))))


@handler(options=STATEMENT_OPTIONS, check=check_statement, reach=_reach_of_statement)
async def statement(context: ToolContext, **arguments: Json) -> Json:
    """Runs the SELECT of option `sql` with the tool's arguments bound as :name; one not given is NULL."""
    sql, caps = str(context.options["sql"]), _caps(context.options)
    rows = await read_fixed(context, lambda database: database.select(sql, arguments, caps), arguments)
    return _answer(rows)


def _now(options: Source, sources: Mapping[str, Source], work: Callable[[Database], Answer]) -> Answer:
    """What `work` makes of the database at load, before any call. Raises ToolError."""
    name, url = str(options["source"]), _checked_url(options, sources)
    tables, hidden = _names(options.get("tables")), _names(options.get("hide_columns")) or []
    file = file_of(url)
    if file is not None and options.get("sample") == "shop" and not file.exists():
        with shop.preview() as connection:
            return work(SqliteDatabase(connection, tables, hidden))
    return read_now(name, url, work, tables=tables, hidden=hidden)


def _dialect(options: Source, sources: Mapping[str, Source]) -> Literal["sqlite", "postgres"]:
    return "sqlite" if file_of(_url_of(str(options["source"]), sources)) else "postgres"


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
