"""SQLite files, for reading only.

A read-only file is not enough (ATTACH, VACUUM INTO and table-valued functions reach past it), so an authorizer
lets through SELECT, listed tables and harmless functions only. Lengths, time, rows and bytes have limits. All of
them are hooks of sqlite3's connection, so that is what a query runs on.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tornado_live.errors import nearest
from tornado_live.tools.builtin.sql_rows import (
    Caps,
    Rows,
    SqlMistake,
    check_hidden,
    out_of_time,
    readable_hint,
    taken,
)
from tornado_live.tools.result import Json, ToolCode, ToolError

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
_BUSY_S: Final = 2.0
_SCHEMA_TABLES: Final = frozenset(
    {"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"}
)


def connect(file: Path) -> sqlite3.Connection:
    """Opens it for reading. Raises sqlite3.Error."""
    # The thread that interrupts is another than the one that reads.
    return sqlite3.connect(
        f"{file.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )


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


class SqliteDatabase:
    """As `Database` says. `tables` None means all; `hidden` are columns as table.column."""

    dialect = "SQLite"

    def __init__(
        self, connection: sqlite3.Connection, tables: Sequence[str] | None, hidden: Sequence[str]
    ) -> None:
        self._driver = connection
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        try:
            own = self._names_of(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' "
                "ESCAPE '\\' ORDER BY rowid"
            )
            modules = self._names_of("SELECT name FROM pragma_module_list")
        except sqlite3.DatabaseError as error:
            raise ToolError(ToolCode.UNREACHABLE, "The database cannot be read.") from error
        wanted = None if tables is None else {table.lower() for table in tables}
        self._tables = [name for name in own if wanted is None or name.lower() in wanted]
        if missing := (wanted or set()) - {name.lower() for name in self._tables}:
            raise ToolError(
                ToolCode.FAILED,
                f"options.tables of the tool names tables that the database lacks: {', '.join(sorted(missing))}.",
                hint=f"The database has: {', '.join(own)}",
            )
        check_hidden(
            [column.lower() for column in hidden],
            {
                f"{table}.{column}".lower()
                for table in {column.partition(".")[0] for column in hidden}
                for column in self._names_of("SELECT name FROM pragma_table_info(?)", table)
            },
        )
        self._guard = _Guard(
            readable=frozenset(name.lower() for name in self._tables),
            existing=frozenset(name.lower() for name in (*own, *modules)) | _SCHEMA_TABLES,
            hidden=frozenset(column.lower() for column in hidden),
            restricted=tables is not None or bool(hidden),
        )
        for limit, value in _LIMITS.items():
            self._driver.setlimit(limit, value)
        self._driver.set_authorizer(self._guard)

    def _names_of(self, sql: str, *bound: str) -> list[str]:
        return [name for (name,) in self._driver.execute(sql, bound)]

    def ask(self, sql: str, caps: Caps) -> Rows:
        from tornado_live.tools.builtin.sql_guard import check_reading  # slow to import

        check_reading(sql, "sqlite")
        return self.select(sql, {}, caps)

    def select(self, sql: str, parameters: Mapping[str, Json], caps: Caps) -> Rows:
        if self._guard.restricted and _UNSEEN_READS.search(sql):
            raise SqlMistake(
                ToolCode.NOT_ALLOWED, "NATURAL and USING may not be used.", hint="Write joins with ON."
            )
        deadline = time.monotonic() + caps.seconds
        self._guard.refused = ""
        self._driver.set_progress_handler(
            lambda: time.monotonic() > deadline, _OPCODES_BETWEEN_LOOKS_AT_THE_CLOCK
        )
        try:
            with closing(self._driver.execute(sql, _Bound(parameters))) as cursor:
                if cursor.description is None:
                    raise SqlMistake(ToolCode.INVALID_ARGUMENTS, "There is no SELECT in the query.")
                names = [column[0] for column in cursor.description]
                return taken((list(zip(names, row, strict=True)) for row in cursor), caps)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._explained(error, caps.seconds) from error
        except (UnicodeEncodeError, ValueError, OverflowError) as error:
            raise _untakable() from error
        finally:
            self._driver.set_progress_handler(None, 0)

    def prepare(self, sql: str) -> frozenset[str]:
        bound = _Bound({})
        self._guard.refused = ""
        try:
            self._driver.execute(f"EXPLAIN {sql}", bound).close()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._explained(error, _BUSY_S) from error
        except (UnicodeEncodeError, ValueError) as error:
            raise _untakable() from error
        return frozenset(bound.missing)

    def interrupt(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # closed already
            self._driver.interrupt()

    def over(self) -> None: ...

    def remark(self) -> str:
        return ""

    def columns(self) -> dict[str, dict[str, str]]:
        with self._unguarded():
            return {
                table: {
                    name: kind
                    for name, kind in self._driver.execute(
                        "SELECT name, type FROM pragma_table_info(?)", (table,)
                    )
                    if f"{table}.{name}".lower() not in self._guard.hidden
                }
                for table in self._tables
            }

    def quoted(self, table: str) -> str:
        return '"' + table.replace('"', '""') + '"'

    def day(self, expression: str) -> str:
        return f"date({expression})"

    def starts(self, unit: str, expression: str) -> str:
        match unit:
            case "week":
                return f"date({expression}, '-6 days', 'weekday 1')"
            case "month":
                return f"strftime('%Y-%m', {expression})"
            case _:
                return f"date({expression})"

    @contextmanager
    def _unguarded(self) -> Iterator[None]:
        self._driver.set_authorizer(None)
        try:
            yield
        finally:
            self._driver.set_authorizer(self._guard)

    def _explained(self, error: BaseException, seconds: float) -> ToolError:
        told = str(error)
        if self._guard.refused:
            about_tables = self._guard.refused.startswith(("The table", "The column"))
            return SqlMistake(
                ToolCode.NOT_ALLOWED, self._guard.refused, hint=self._readable_hint() if about_tables else ""
            )
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_INTERRUPT:
            return out_of_time(seconds)
        if code == sqlite3.SQLITE_TOOBIG or told == "query string is too large":
            return ToolError(ToolCode.TOO_LARGE, "The query or one of its values is too long.")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ToolError(ToolCode.UNREACHABLE, "The database is busy.", retryable=True)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR):
            return ToolError(ToolCode.UNREACHABLE, "The database cannot be read.")
        return SqlMistake(
            ToolCode.INVALID_ARGUMENTS,
            f"SQL error: {told.rstrip('.')}.",
            hint=self._hint(told),
            of_values=code == sqlite3.SQLITE_MISMATCH,
        )

    def _hint(self, told: str) -> str:
        if missing := re.match(r"no such table: (?:main\.)?(.+)", told):
            return f"Tables that may be read: {', '.join(self._tables)}{nearest(missing[1], self._tables)}"
        if re.match(r"no such column: ", told):
            return self._readable_hint()
        if "no such function" in told:
            return "Write it in SQLite's own functions, e.g. date('now', '-7 days') or strftime('%Y-%m', column)."
        return "The database is SQLite; write one SELECT in its dialect."

    def _readable_hint(self) -> str:
        return readable_hint(self.columns())


def _untakable() -> ToolError:
    return SqlMistake(
        ToolCode.INVALID_ARGUMENTS,
        "The query holds a character or number that SQLite cannot take.",
        of_values=True,
    )


class _Bound(dict[str, Json]):
    """Named parameters of a statement. SQLite knows no lists or objects: they are bound as JSON text."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self.missing: list[str] = []
        super().__init__(
            {
                name: json.dumps(value) if isinstance(value, list | dict) else value
                for name, value in values.items()
            }
        )

    def __missing__(self, name: str) -> None:
        self.missing.append(name)
