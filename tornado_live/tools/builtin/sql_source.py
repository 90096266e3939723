"""A database that several tools share: its engine, its own few threads, and the deadline of a query.

A database that hangs keeps threads of its own source and no others, and each of them is called back.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tornado_live.tools.builtin.sql_rows import Database, LineLost, Unreachable, out_of_time
from tornado_live.tools.builtin.sql_sqlite import SqliteDatabase, connect
from tornado_live.tools.python import HandlerThreads
from tornado_live.tools.result import ToolCode, ToolError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.exc import SQLAlchemyError

Answer = TypeVar("Answer")

PLACES: Final = 4
_PATIENCE_S: Final = 1.0
# The database ends a query by itself at its deadline. Then it is interrupted, and then it is left behind.
_LATE_S: Final = 0.15
_INTERRUPTED_S: Final = 0.2

logger = logging.getLogger(__name__)


def file_of(url: str) -> Path | None:
    """The file of a SQLite source, or None for another."""
    return Path(url.removeprefix("sqlite:///").partition("?")[0]) if url.startswith("sqlite:////") else None


class SqlSource:
    """One database. Nothing is opened before it is asked; then it stays open until `close`.

    `url` is checked by `check_url`.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._threads = HandlerThreads(PLACES)

    async def read(
        self,
        work: Callable[[Database], Answer],
        *,
        tool: str,
        seconds: float,
        tables: Sequence[str] | None = None,
        hidden: Sequence[str] = (),
        first: Callable[[], None] = lambda: None,
    ) -> Answer:
        """What `work` makes of the open database, in a thread, after `first`.

        After `seconds`, and when this is cancelled, it is interrupted. `tables` None means all; `hidden` are
        columns as table.column. Raises ToolError as `Database` does, limited if all places are taken, and what
        `work` and `first` raise.
        """
        reading = _Reading()

        def run() -> Answer:
            first()
            return self._run(reading, work, tables, hidden)

        task = asyncio.get_running_loop().create_task(
            self._threads.run(run, tool, min(_PATIENCE_S, seconds / 2)), name=f"sql of {tool}"
        )
        try:
            await asyncio.wait({task}, timeout=seconds + _LATE_S)
            if not task.done():
                raise out_of_time(seconds)
        finally:
            if not task.done():
                reading.interrupt()
                await _over(task)
        return task.result()  # type: ignore[return-value]  # the threads hand back what `run` returns

    def _run(
        self,
        reading: _Reading,
        work: Callable[[Database], Answer],
        tables: Sequence[str] | None,
        hidden: Sequence[str],
    ) -> Answer:
        with self._lock:
            if self._engine is None:
                self._engine = _engine(self.name, self._url, PLACES)
        try:
            return _once(self._engine, reading, work, tables, hidden)
        except LineLost:
            if reading.interrupted:
                raise
            # It waited in the pool, and the server may have been started anew since.
            return _once(self._engine, reading, work, tables, hidden)

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()


def read_now(
    name: str,
    url: str,
    work: Callable[[Database], Answer],
    *,
    tables: Sequence[str] | None,
    hidden: Sequence[str],
) -> Answer:
    """What `work` makes of a database that is opened for this alone, in this thread. Raises ToolError."""
    file = file_of(url)
    if file is not None:  # without SQLAlchemy, which takes a third of a second to import
        with closing(_opened(name, file)) as connection:
            return work(SqliteDatabase(connection, tables, hidden))
    engine = _engine(name, url, 1)
    try:
        return _once(engine, _Reading(), work, tables, hidden)
    finally:
        engine.dispose()


def check_url(name: str, url: str) -> None:
    """Raises ToolError(failed) for an address that is neither SQLite's nor PostgreSQL's. It is never shown."""
    if file_of(url) is None:
        _server_of(name, url)


class _Reading:
    """One call's use of a connection, which another thread may interrupt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: Database | None = None
        self.interrupted = False

    @contextmanager
    def of(self, database: Database) -> Iterator[None]:
        with self._lock:
            if self.interrupted:
                raise ToolError(ToolCode.CANCELLED, "The query was cancelled.")
            self._database = database
        try:
            yield
        finally:
            with self._lock:
                self._database = None
            database.over()

    def interrupt(self) -> None:
        with self._lock:
            self.interrupted = True
            if self._database is not None:
                self._database.interrupt()


async def _over(task: asyncio.Task[object]) -> None:
    """Waits for the thread that was interrupted, but not for long; its answer is of no use any more."""
    await asyncio.wait({task}, timeout=_INTERRUPTED_S)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _once(
    engine: Engine,
    reading: _Reading,
    work: Callable[[Database], Answer],
    tables: Sequence[str] | None,
    hidden: Sequence[str],
) -> Answer:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.connect() as connection:
            database = _database(connection, tables, hidden)
            try:
                with reading.of(database):
                    return work(database)
            finally:
                if reading.interrupted:
                    connection.invalidate()  # what was meant for this query could end the next one
    except SQLAlchemyError as error:
        raise _unreachable(error) from error


def _database(connection: Connection, tables: Sequence[str] | None, hidden: Sequence[str]) -> Database:
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None
        return SqliteDatabase(driver, tables, hidden)
    from tornado_live.tools.builtin.sql_postgres import PostgresDatabase

    return PostgresDatabase(connection, tables, hidden)


def _engine(name: str, url: str, places: int) -> Engine:
    file = file_of(url)
    if file is None:
        from tornado_live.tools.builtin.sql_postgres import engine

        return engine(_server_of(name, url), places)
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    # Opened anew for each call, in a tenth of a millisecond: a file that was replaced is seen.
    return create_engine("sqlite://", creator=lambda: _opened(name, file), poolclass=NullPool)


def _opened(name: str, file: Path) -> sqlite3.Connection:
    if not file.is_file():
        raise ToolError(
            ToolCode.UNREACHABLE,
            f'The database of the source "{name}" does not exist.',
            hint="The operator has to correct the url of the source in tools.yaml.",
        )
    try:
        return connect(file)
    except sqlite3.Error as error:
        raise ToolError(
            ToolCode.UNREACHABLE, f'The database of the source "{name}" cannot be opened.'
        ) from error


def _server_of(name: str, url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ToolError(
            ToolCode.FAILED,
            f'The url of the source "{name}" is neither sqlite:/// and a file nor postgresql:// and a server.',
        )
    return parsed.set(drivername="postgresql+psycopg")


def _unreachable(error: SQLAlchemyError) -> ToolError:
    # For the operator's log alone: it may name hosts, files and roles. It never has the password.
    logger.warning("a SQL source cannot be used: %s", getattr(error, "orig", None) or type(error).__name__)
    return Unreachable()
