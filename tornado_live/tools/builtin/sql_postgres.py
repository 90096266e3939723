"""PostgreSQL, for reading only.

SQLAlchemy keeps the pool. The rest is the server's own: each query has a read-only transaction with limits of time
and memory, and a cursor, which takes nothing but one SELECT and hands out rows as they are asked for. The server
makes each row JSON, so that no row of half a gigabyte has to arrive before it can be called too large. Psycopg is
an extra; it is imported only where a source needs it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, ProgrammingError
from sqlalchemy.pool import QueuePool

from tornado_live.errors import nearest
from tornado_live.tools.builtin.sql_guard import Relation, for_postgres, placeholders
from tornado_live.tools.builtin.sql_rows import (
    Caps,
    LineLost,
    Rows,
    SqlMistake,
    check_hidden,
    out_of_time,
    readable_hint,
    taken,
)
from tornado_live.tools.result import Json, ToolCode, ToolError

if TYPE_CHECKING:
    import psycopg

_CONNECT_S: Final = 5
_IDLE_S: Final = 300
_CANCEL_S: Final = 5.0
_HANG_UP_S: Final = 0.3
_LOCK_MS: Final = 1_000
_ROWS_AT_ONCE: Final = 20
_LONGEST_ROW: Final = 200_000

# First statement of every transaction. Parallel workers and compiling are for larger questions than a model's.
_BEGIN: Final = """
SELECT set_config('statement_timeout', %(ms)s, true), set_config('lock_timeout', %(lock_ms)s, true),
  set_config('idle_in_transaction_session_timeout', '60s', true), set_config('work_mem', '8MB', true),
  set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true),
  set_config('standard_conforming_strings', 'on', true), set_config('bytea_output', 'hex', true)
"""
# Known since version 14: without it a server that computes does not see that its client is gone.
_WATCH_THE_CLIENT: Final = ", set_config('client_connection_check_interval', '1s', true)"
_ON_NOTHING_BUT_THE_CATALOG: Final = "SELECT set_config('search_path', 'pg_catalog', true)"
# Every column of every table of the schemas that the role may use, those of its search path first.
_COLUMNS: Final = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  array_position(current_schemas(false), n.nspname) IS NOT NULL,
  has_column_privilege(c.oid, a.attnum, 'SELECT')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY array_position(current_schemas(false), n.nspname), n.nspname, c.oid, a.attnum
"""
_WRITABLE: Final = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
ORDER BY 1 LIMIT 5
"""

logger = logging.getLogger(__name__)


def engine(url: URL, places: int) -> Engine:
    """A pool of at most `places` connections, opened when they are needed.

    Raises ToolError(failed) if there is no driver.
    """
    if find_spec("psycopg") is None:
        raise ToolError(
            ToolCode.FAILED,
            "The driver for PostgreSQL is not installed; run: pip install 'tornado-live[postgres]'.",
        )
    made = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=places,
        max_overflow=0,
        pool_timeout=_CONNECT_S,
        pool_recycle=_IDLE_S,
        hide_parameters=True,
        # A statement runs once; to prepare it would keep it on the server, and fails behind some poolers.
        connect_args={
            "connect_timeout": _CONNECT_S,
            "client_encoding": "utf8",
            "application_name": "tornado-live",
            "prepare_threshold": None,
            "keepalives_idle": 30,
            "tcp_user_timeout": 10_000,
        },
        execution_options={"postgresql_readonly": True, "max_row_buffer": _ROWS_AT_ONCE},
    )
    event.listen(made, "handle_error", _close_cursor)
    return made


def _close_cursor(failed: ExceptionContext) -> None:
    # SQLAlchemy leaves it to the garbage where the line broke, and psycopg complains.
    execution = failed.execution_context
    if failed.is_disconnect and execution is not None and execution.cursor is not None:
        with suppress(Exception):
            execution.cursor.close()


@dataclass(frozen=True, slots=True)
class _Column:
    schema: str
    table: str
    name: str
    kind: str
    visible: bool
    readable: bool

    @property
    def full(self) -> str:
        return f"{self.schema}.{self.table}"


class PostgresDatabase:
    """As `Database` says. `tables` None means all that the role may read; `hidden` are columns as table.column.

    A table is called by its name, and by `schema.table` where its schema is not on the role's search path.
    """

    dialect = "PostgreSQL"

    def __init__(self, connection: Connection, tables: Sequence[str] | None, hidden: Sequence[str]) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        self._connection = connection
        self._driver: psycopg.Connection[Any] = driver
        self._wanted = None if tables is None else frozenset(tables)
        self._hidden = frozenset(hidden)
        self._known: Mapping[str, Relation] = {}
        self._interrupted = False
        self._line = threading.Lock()
        self._over = threading.Event()

    def ask(self, sql: str, caps: Caps) -> Rows:
        if self._is_superuser():
            raise ToolError(
                ToolCode.FAILED,
                "The source's role is a superuser of PostgreSQL, for whom a read-only transaction is no bound.",
                hint="The operator has to give the source a role that can only read.",
            )
        with self._reading(caps.seconds):
            relations, _ = self._relations()
            self._known = relations
            self._connection.exec_driver_sql(_ON_NOTHING_BUT_THE_CATALOG)
            return self._taken(for_postgres(sql, relations).replace("%", "%%"), {}, caps)

    def select(self, sql: str, parameters: Mapping[str, Json], caps: Caps) -> Rows:
        written, bound = _with_parameters(sql, parameters)
        with self._reading(caps.seconds):
            return self._taken(written, bound, caps)

    def prepare(self, sql: str) -> frozenset[str]:
        written, bound = _with_parameters(sql, {})
        with self._reading(_CONNECT_S):
            self._connection.exec_driver_sql(f"EXPLAIN {_wrapped(written)}", bound).close()
        return frozenset(bound)

    def columns(self) -> dict[str, dict[str, str]]:
        with self._reading(_CONNECT_S):
            relations, types = self._relations()
            self._known = relations
            return {
                name: {column: types[one.schema, one.name, column] for column in one.columns}
                for name, one in relations.items()
            }

    def remark(self) -> str:
        if self._is_superuser():
            return "its role is a superuser; free queries are refused until it has one that can only read"
        with self._reading(_CONNECT_S):
            tables = self._connection.exec_driver_sql(_WRITABLE).scalars().all()
        if not tables:
            return ""
        return f"its role may write to {', '.join(tables)}; give it one that can only read, as a second lock"

    def interrupt(self) -> None:
        self._interrupted = True
        # Both wait for the server, which may be what hangs.
        for work in (self._cancel, self._hang_up):
            threading.Thread(target=work, name="sql-cancel", daemon=True).start()

    def _cancel(self) -> None:
        with suppress(Exception):
            self._driver.cancel_safe(timeout=_CANCEL_S)

    def _hang_up(self) -> None:
        """Closes the line for the thread that waits for a server that does not end what it was told to."""
        if self._over.wait(_HANG_UP_S):
            return
        with self._line, suppress(Exception):
            if not self._over.is_set():
                with socket.socket(fileno=os.dup(self._driver.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    def over(self) -> None:
        with self._line:
            self._over.set()

    def quoted(self, table: str) -> str:
        relation = self._known[table]
        return ".".join('"' + part.replace('"', '""') + '"' for part in (relation.schema, relation.name))

    def day(self, expression: str) -> str:
        return f"CAST({expression} AS date)"

    def starts(self, unit: str, expression: str) -> str:
        day = self.day(expression)
        match unit:
            case "week":
                return f"to_char(date_trunc('week', {day}), 'YYYY-MM-DD')"
            case "month":
                return f"to_char({day}, 'YYYY-MM')"
            case _:
                return f"to_char({day}, 'YYYY-MM-DD')"

    def _is_superuser(self) -> bool:
        return self._driver.info.parameter_status("is_superuser") == "on"

    @contextmanager
    def _reading(self, seconds: float) -> Iterator[None]:
        try:
            transaction = self._connection.begin()
            try:
                watched = self._driver.info.server_version >= 140_000
                self._connection.exec_driver_sql(
                    _BEGIN + (_WATCH_THE_CLIENT if watched else ""),
                    {"ms": str(max(1, int(seconds * 1000))), "lock_ms": str(_LOCK_MS)},
                )
                yield
            finally:
                transaction.rollback()  # large objects, for one, can be made in a read-only transaction
        except DBAPIError as error:
            raise self._explained(error, seconds) from error
        except UnicodeEncodeError as error:
            raise _untakable() from error

    def _taken(self, sql: str, bound: Mapping[str, object], caps: Caps) -> Rows:
        with self._connection.exec_driver_sql(
            _wrapped(sql), dict(bound), execution_options={"stream_results": True}
        ) as result:
            return taken(map(_columns_of, result.scalars()), caps)

    def _relations(self) -> tuple[dict[str, Relation], dict[tuple[str, str, str], str]]:
        """What may be read, by the names that queries use, and the types of the columns. Raises ToolError."""
        every: dict[str, list[_Column]] = {}
        for row in self._connection.exec_driver_sql(_COLUMNS):
            column = _Column(*row)
            first = every.get(column.table)
            bare = column.visible and (first is None or first[0].schema == column.schema)
            every.setdefault(column.table if bare else column.full, []).append(column)
        check_hidden(
            self._hidden,
            {f"{name}.{one.name}" for name, all_of in every.items() for one in all_of}
            | {f"{one.full}.{one.name}" for all_of in every.values() for one in all_of},
        )
        relations: dict[str, Relation] = {}
        types: dict[tuple[str, str, str], str] = {}
        for name, all_of in every.items():
            shown = [
                one
                for one in all_of
                if one.readable and not {f"{name}.{one.name}", f"{one.full}.{one.name}"} & self._hidden
            ]
            if shown:
                schema, table = shown[0].schema, shown[0].table
                columns = tuple(one.name for one in shown)
                relations[name] = Relation(schema, table, columns, whole=len(shown) == len(all_of))
                types |= {(schema, table, one.name): one.kind for one in shown}
        if self._wanted is None:
            return relations, types
        called = {f"{one.schema}.{one.name}": name for name, one in relations.items()}
        names = {name if name in relations else called.get(name, name) for name in self._wanted}
        if missing := sorted(names - relations.keys()):
            raise ToolError(
                ToolCode.FAILED,
                f"options.tables of the tool names what the database lacks, or what its role may not read: "
                f"{', '.join(missing)}.",
                hint=f"The role may read: {', '.join(relations) or 'nothing'}{nearest(missing[0], relations)}",
            )
        return {name: one for name, one in relations.items() if name in names}, types

    def _explained(self, error: DBAPIError, seconds: float) -> ToolError:
        state = getattr(error.orig, "sqlstate", None) or ""
        diagnosis = getattr(error.orig, "diag", None)
        told = str(getattr(diagnosis, "message_primary", None) or "")
        match state[:2], state:
            case _ if self._interrupted or state == "57014":
                return out_of_time(seconds)
            case _, "55P03":
                return ToolError(ToolCode.UNREACHABLE, "The table is locked just now.", retryable=True)
            case _, "42501":
                return SqlMistake(ToolCode.NOT_ALLOWED, "The source's role may not read that.")
            case "25", _:
                return SqlMistake(ToolCode.NOT_ALLOWED, "Only reading is allowed: one SELECT.")
            case _, "42P18":
                return SqlMistake(
                    ToolCode.INVALID_ARGUMENTS,
                    f"SQL error: {told}.",
                    hint="Name the type, e.g. CAST(:name AS text).",
                )
            case (("0A" | "21" | "22" | "42"), _):
                hint = "The database is PostgreSQL; write one SELECT in its dialect."
                if state == "42703" and self._known:
                    hint = readable_hint({name: one.columns for name, one in self._known.items()})
                is_of_values = state.startswith("22")
                return SqlMistake(
                    ToolCode.INVALID_ARGUMENTS, f"SQL error: {told}.", hint=hint, of_values=is_of_values
                )
            case (("53" | "54"), _):
                return ToolError(ToolCode.TOO_LARGE, "The query is too much for the database.")
            case _ if isinstance(error, DataError | ProgrammingError):
                return _untakable()
            case _:
                # For the operator's log alone: it may name hosts, files and roles.
                logger.warning("PostgreSQL cannot be used: %s %s", state or type(error.orig).__name__, told)
                return LineLost()


def _with_parameters(sql: str, parameters: Mapping[str, Json]) -> tuple[str, dict[str, object]]:
    """A statement of the operator's as psycopg takes it, and the values of its parameters."""
    pieces, at = [], 0
    bound: dict[str, object] = {}
    for each in placeholders(sql, "postgres"):
        value = parameters.get(each.name)
        bound[each.name] = json.dumps(value) if isinstance(value, list | dict) else value
        pieces += [sql[at : each.start].replace("%", "%%"), f"%({each.name})s"]
        at = each.end
    pieces.append(sql[at:].replace("%", "%%"))
    return "".join(pieces).strip().rstrip(";"), bound


def _wrapped(sql: str) -> str:
    # A name that no column has, which would be taken for the row; a line break that ends a comment.
    return (
        f'SELECT left(pg_catalog.row_to_json("tornado-live")::text, {_LONGEST_ROW}) '  # noqa: S608
        f'FROM (\n{sql}\n) AS "tornado-live"'
    )


def _untakable() -> ToolError:
    return SqlMistake(
        ToolCode.INVALID_ARGUMENTS,
        "The query holds a character or number that PostgreSQL cannot take.",
        of_values=True,
    )


class _Pairs(list[tuple[str, object]]):
    """A JSON object whose names may occur twice."""


def _columns_of(text: str) -> list[tuple[str, object]]:
    if len(text) >= _LONGEST_ROW:
        raise ToolError(
            ToolCode.TOO_LARGE,
            "One row of the answer is too long.",
            hint="Ask for fewer columns, or for the beginning of a text: left(column, 200).",
        )
    read = json.loads(text, object_pairs_hook=_Pairs, parse_int=_whole)
    return [(name, _plain(value)) for name, value in read]


def _plain(value: object) -> object:
    match value:
        case _Pairs():
            return {name: _plain(each) for name, each in value}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value


def _whole(digits: str) -> int | str:
    # Python refuses to read a number of thousands of digits; a numeric may have them.
    return int(digits) if len(digits) < 40 else digits
