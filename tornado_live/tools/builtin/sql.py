"""SQL on a SQLite database, for reading only: a free query of the model's, or a fixed statement of the operator's.

A read-only file is not enough (ATTACH, VACUUM INTO and table-valued functions reach past it), so an authorizer
lets through SELECT, listed tables and harmless functions only. Lengths, time, rows and bytes have limits.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tornado_live.errors import nearest
from tornado_live.tools.builtin import shop
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.result import Json, ToolCode, ToolError

Source = Mapping[str, Json]

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
    "tables": {"type": ["array", "null"], "items": {"type": "string"}, "default": None},
    "hide_columns": {
        "type": "array",
        "items": {"type": "string", "pattern": r"^[^.]+\.[^.]+$"},
        "default": [],
        "description": "Columns that nobody may read, as table.column",
    },
}
QUERY_OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        **_COMMON_OPTIONS,
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

# What a query may call. Left out: whatever loads, makes much out of a number (printf, zeroblob:
# nothing can interrupt one call), or tells about the machine.
_FUNCTIONS: Final = frozenset(
    """
    abs avg ceil ceiling char coalesce concat count cume_dist date datetime dense_rank exp first_value floor
    glob group_concat hex ifnull iif instr json_extract julianday lag last_value lead length like ln log
    log10 log2 lower ltrim max min mod nth_value ntile nullif percent_rank pi power quote rank replace
    round row_number rtrim sign sqrt strftime substr substring sum time total trim trunc typeof unicode
    unixepoch upper ->  ->>
    """.split()  # noqa: SIM905 - a list of words
)

# Bounds on what one statement may ask of the parser and on the longest value it may make.
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# SQLite (3.40) does not tell its authorizer of columns that NATURAL or USING compare: with them a query could test
# what is in a table that it may not read. Not \b: in "?1natural" the word begins after a digit.
_UNSEEN_READS: Final = re.compile(r"(?<![a-z_])(?:natural|using)(?![a-z0-9_])", re.IGNORECASE)
_OPCODES_BETWEEN_LOOKS_AT_THE_CLOCK: Final = 100
_LONGEST_TEXT: Final = 2_000

_ROWS_LOOKED_AT: Final = 20_000
_MOST_EXAMPLES: Final = 12
_LONGEST_EXAMPLE: Final = 30
_OFTEN: Final = 5
_SCHEMA_TABLES: Final = frozenset(
    {"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"}
)


@dataclass(frozen=True, slots=True)
class Rows:
    """`rows` have one key per column; `more` says that rows were left out at the cap."""

    rows: list[dict[str, Json]]
    more: bool


@dataclass(slots=True)
class _Guard:
    """The authorizer of one connection; `refused` keeps the first reason in words, for the error."""

    readable: frozenset[str]
    existing: frozenset[str]
    hidden: frozenset[str]
    restricted: bool
    refused: str = field(default="")

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, origin: str | None
    ) -> int:
        reason = self._reason(action, (first or "").lower(), (second or "").lower())
        if reason is None:
            return sqlite3.SQLITE_OK
        self.refused = self.refused or reason
        return sqlite3.SQLITE_DENY

    def _reason(self, action: int, first: str, second: str) -> str | None:
        match action:
            case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
                return None
            case sqlite3.SQLITE_READ:
                if f"{first}.{second}" in self.hidden:
                    return f'The column "{first}.{second}" may not be read.'
                # SQLite reports `count(*)` over a WITH name as a read of that name with no column. Such a name
                # is no table, so it may pass; its own SELECT was checked.
                if first in self.readable or (second == "" and first not in self.existing):
                    return None
                return f'The table "{first}" may not be read.'
            case sqlite3.SQLITE_FUNCTION:
                return None if second in _FUNCTIONS else f'The function "{second}" may not be used.'
            case _:
                return "Only reading is allowed: one SELECT."


class Database:
    """An open SQLite database that can only be read, and of that only `tables`."""

    def __init__(self, connection: sqlite3.Connection, guard: _Guard, tables: Sequence[str]) -> None:
        self._connection = connection
        self._guard = guard
        self.tables = tuple(tables)

    def select(
        self,
        sql: str,
        parameters: Mapping[str, Json] | None = None,
        *,
        max_rows: int,
        max_bytes: int,
        seconds: float,
    ) -> Rows:
        """Runs one SELECT. Whole rows are left out once `max_rows` or `max_bytes` (as JSON) are reached.

        Raises ToolError: invalid_arguments for bad SQL, not_allowed for what may not be read, timeout, too_large.
        """
        if self._guard.restricted and _UNSEEN_READS.search(sql):
            raise ToolError(
                ToolCode.NOT_ALLOWED, "NATURAL and USING may not be used.", hint="Write joins with ON."
            )
        deadline = time.monotonic() + seconds
        self._guard.refused = ""
        self._connection.set_progress_handler(
            lambda: time.monotonic() > deadline, _OPCODES_BETWEEN_LOOKS_AT_THE_CLOCK
        )
        try:
            with closing(self._connection.execute(sql, _Bound(parameters or {}))) as cursor:
                if cursor.description is None:
                    raise ToolError(ToolCode.INVALID_ARGUMENTS, "There is no SELECT in the query.")
                return _take(cursor, max_rows=max_rows, max_bytes=max_bytes)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._explain(error, seconds) from error
        except (UnicodeEncodeError, ValueError, OverflowError) as error:
            raise ToolError(
                ToolCode.INVALID_ARGUMENTS, "The query holds a character or number that SQLite cannot take."
            ) from error
        finally:
            self._connection.set_progress_handler(None, 0)

    def columns(self, table: str) -> dict[str, str]:
        """Names and declared types of the columns that may be read."""
        with self._unguarded():
            found = self._connection.execute(
                "SELECT name, type FROM pragma_table_info(?)", (table,)
            ).fetchall()
        return {name: kind for name, kind in found if f"{table}.{name}".lower() not in self._guard.hidden}

    def examples(self, table: str, column: str) -> str:
        """How values of a column are written: the few that keep recurring, or the form of a day.

        Descriptions are shown to clients: values that hardly recur, such as names, are no examples.
        """
        name = _quote(column)
        sql = (
            f"SELECT {name} AS value, count(*) AS times FROM (SELECT {name} FROM {_quote(table)} "  # noqa: S608
            f"WHERE {name} IS NOT NULL LIMIT {_ROWS_LOOKED_AT}) GROUP BY 1 LIMIT {_MOST_EXAMPLES + 1}"
        )
        try:
            rows = self.select(sql, max_rows=_MOST_EXAMPLES + 1, max_bytes=4_000, seconds=1).rows
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

    @contextmanager
    def _unguarded(self) -> Iterator[None]:
        self._connection.set_authorizer(None)
        try:
            yield
        finally:
            self._connection.set_authorizer(self._guard)

    def _explain(self, error: Exception, seconds: float) -> ToolError:
        text = str(error)
        if self._guard.refused:
            about_tables = self._guard.refused.startswith(("The table", "The column"))
            return ToolError(
                ToolCode.NOT_ALLOWED, self._guard.refused, hint=self._readable_hint() if about_tables else ""
            )
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_INTERRUPT:
            return ToolError(
                ToolCode.TIMEOUT,
                f"The query ran for more than {seconds:g} seconds.",
                hint="Ask for less: add a WHERE or join on ids.",
            )
        if code == sqlite3.SQLITE_TOOBIG or text == "query string is too large":
            return ToolError(ToolCode.TOO_LARGE, "The query or one of its values is too long.")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ToolError(ToolCode.UNREACHABLE, "The database is busy.", retryable=True)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR):
            return ToolError(ToolCode.UNREACHABLE, "The database cannot be read.")
        return ToolError(ToolCode.INVALID_ARGUMENTS, f"SQL error: {text.rstrip('.')}.", hint=self._hint(text))

    def _hint(self, text: str) -> str:
        if "one statement" in text:
            return "Send one SELECT at a time."
        if missing := re.match(r"no such table: (?:main\.)?(.+)", text):
            return f"{self._tables_hint()}{nearest(missing[1], self.tables)}"
        if re.match(r"no such column: ", text):
            return self._readable_hint()
        if "no such function" in text:
            return "Write it in SQLite's own functions, e.g. date('now', '-7 days') or strftime('%Y-%m', column)."
        return "The database is SQLite; write one SELECT in its dialect."

    def _readable_hint(self) -> str:
        return "; ".join(f"columns of {table}: {', '.join(self.columns(table))}" for table in self.tables)

    def _tables_hint(self) -> str:
        return f"Tables that may be read: {', '.join(self.tables)}"


@contextmanager
def open_database(
    name: str,
    sources: Mapping[str, Source],
    *,
    sample: Json = None,
    tables: Sequence[str] | None = None,
    hidden: Sequence[str] = (),
) -> Iterator[Database]:
    """Opens a source of kind sql for reading. `tables` None means all; `hidden` are columns as table.column.

    Raises ToolError if the source is unknown or its database cannot be opened.
    """
    path = _path_of(name, sources)
    if sample == "shop":
        try:
            shop.ensure_shop(path)
        except (OSError, sqlite3.Error) as error:
            raise ToolError(
                ToolCode.UNREACHABLE, "The sample shop could not be made or brought up to date."
            ) from error
    if not path.is_file():
        raise ToolError(
            ToolCode.UNREACHABLE,
            f'The database of the source "{name}" does not exist.',
            hint="The operator has to correct the url of the source in tools.yaml.",
        )
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2, isolation_level=None)
    except sqlite3.Error as error:
        raise ToolError(
            ToolCode.UNREACHABLE, f'The database of the source "{name}" cannot be opened.'
        ) from error
    with closing(connection):
        yield _guarded(connection, tables, hidden)


def _guarded(connection: sqlite3.Connection, tables: Sequence[str] | None, hidden: Sequence[str]) -> Database:
    try:
        own = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' "
                "ESCAPE '\\' ORDER BY rowid"
            )
        ]
        modules = [name for (name,) in connection.execute("SELECT name FROM pragma_module_list")]
    except sqlite3.DatabaseError as error:
        raise ToolError(ToolCode.UNREACHABLE, "The database cannot be read.") from error
    wanted = None if tables is None else {table.lower() for table in tables}
    listed = [name for name in own if wanted is None or name.lower() in wanted]
    if missing := (wanted or set()) - {name.lower() for name in listed}:
        raise ToolError(
            ToolCode.FAILED,
            f"options.tables of the tool names tables that the database lacks: {', '.join(sorted(missing))}.",
            hint=f"The database has: {', '.join(own)}",
        )
    guard = _Guard(
        readable=frozenset(name.lower() for name in listed),
        existing=frozenset(name.lower() for name in (*own, *modules)) | _SCHEMA_TABLES,
        hidden=frozenset(column.lower() for column in hidden),
        restricted=tables is not None or bool(hidden),
    )
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(guard)
    return Database(connection, guard, listed)


def describe_schema(options: Source, sources: Mapping[str, Source]) -> str:
    """Tables and columns, appended to the description so that a model writes SQL that fits."""
    if not options.get("describe_schema", True):
        return ""
    values = options.get("describe_values") is True
    tables, hidden = _names(options.get("tables")), _names(options.get("hide_columns")) or []
    if options.get("sample") == "shop" and not _path_of(str(options["source"]), sources).exists():
        with shop.preview() as connection:
            return _description(_guarded(connection, tables, hidden), values)
    with open_database(str(options["source"]), sources, tables=tables, hidden=hidden) as database:
        return _description(database, values)


def _description(database: Database, values: bool) -> str:
    lines = ["The database is SQLite; date('now') is today. Tables and columns:"]
    for table in database.tables:
        columns = []
        for column, kind in database.columns(table).items():
            examples = database.examples(table, column) if values else ""
            columns.append(f"{column} {kind}".strip() + (f" ({examples})" if examples else ""))
        lines.append(f"- {table}: {'; '.join(columns)}")
    return "\n".join(lines)


@handler(options=QUERY_OPTIONS, describe=describe_schema)
def query(query: str, context: ToolContext) -> Json:
    """Runs one SELECT that the model wrote: `{"row_count", "rows": [{column: value}]}`."""
    return _run(query, {}, context)


@handler(options=STATEMENT_OPTIONS)
def statement(context: ToolContext, **arguments: Json) -> Json:
    """Runs the SELECT of option `sql` with the tool's arguments bound as :name; one not given is NULL."""
    return _run(str(context.options["sql"]), arguments, context)


def _run(sql: str, arguments: Mapping[str, Json], context: ToolContext) -> Json:
    options = context.options
    with open_database(
        str(options["source"]),
        context.sources,
        sample=options["sample"],
        tables=_names(options["tables"]),
        hidden=_names(options["hide_columns"]) or (),
    ) as database:
        found = database.select(
            sql,
            arguments,
            max_rows=_number(options["max_rows"]),
            max_bytes=_number(options["max_bytes"]),
            seconds=float(str(options["seconds"])),
        )
    answer: dict[str, Json] = {"row_count": len(found.rows), "rows": list(found.rows)}
    if found.more:
        answer["note"] = f"Only the first {len(found.rows)} rows; there are more."
    return answer


class _Bound(dict[str, Json]):
    """Named parameters of a statement. SQLite knows no lists or objects: they are bound as JSON text."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        super().__init__(
            {
                name: json.dumps(value) if isinstance(value, list | dict) else value
                for name, value in values.items()
            }
        )

    def __missing__(self, name: str) -> None:
        return None


def _take(cursor: sqlite3.Cursor, *, max_rows: int, max_bytes: int) -> Rows:
    names = _distinct([column[0] for column in cursor.description])
    rows: list[dict[str, Json]] = []
    size = 0
    for values in cursor:
        row = {name: _presentable(value) for name, value in zip(names, values, strict=True)}
        size += len(json.dumps(row, ensure_ascii=False).encode())
        if len(rows) == max_rows or (size > max_bytes and rows):
            return Rows(rows, more=True)
        rows.append(row)
    return Rows(rows, more=False)


def _distinct(names: Sequence[str]) -> list[str]:
    """`SELECT a.id, b.id` has two columns `id`: the second becomes `id_2`."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result


def _presentable(value: object) -> Json:
    match value:
        case float():
            # Sums of prices end in …0000001; nobody wants to hear that. Infinity is no JSON.
            return round(value, 6) if abs(value) < float("inf") else None
        case str() if len(value) > _LONGEST_TEXT:
            return value[:_LONGEST_TEXT] + " …"
        case bytes():
            return f"({len(value)} bytes)"
        case None | int() | str():
            return value
        case _:
            raise TypeError(f"SQLite gave a {type(value).__name__}")


def _path_of(name: str, sources: Mapping[str, Source]) -> Path:
    source = sources.get(name)
    if source is None or source.get("kind") != "sql":
        known = (
            ", ".join(sorted(each for each, value in sources.items() if value.get("kind") == "sql")) or "none"
        )
        raise ToolError(ToolCode.FAILED, f'tools.yaml has no sql source "{name}"; it has: {known}.')
    url = str(source["url"])
    if not url.startswith("sqlite:////"):
        raise ToolError(
            ToolCode.FAILED,
            f'The source "{name}" is not a SQLite file; only sqlite:/// addresses work so far.',
        )
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def _names(value: Json) -> list[str] | None:
    return [str(each) for each in value] if isinstance(value, list) else None


def _number(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a whole number: {value!r}")
    return value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _size(value: Json) -> int:
    return value if isinstance(value, int) else 0
