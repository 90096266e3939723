"""What a query gave, cut to what a model can take, and made JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tornado_live.tools.result import Json, ToolCode, ToolError

_LONGEST_TEXT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds of one query: rows, their bytes as JSON, and seconds."""

    rows: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rows:
    """`rows` have one key per column; `more` says that rows were left out at a cap."""

    rows: list[dict[str, Json]]
    more: bool


class Database(Protocol):
    """An open database of which nothing but listed tables can be read, in one thread.

    `select`, `ask` and `prepare` raise ToolError: SqlMistake with invalid_arguments for bad SQL and with
    not_allowed for what may not be read; timeout, too_large, unreachable.
    """

    dialect: str
    """SQLite or PostgreSQL, as people call it."""

    def select(self, sql: str, parameters: Mapping[str, Json], caps: Caps) -> Rows:
        """Runs a SELECT of the operator's. Each :name is bound to its parameter, or to NULL if that is missing."""

    def ask(self, sql: str, caps: Caps) -> Rows:
        """Runs one SELECT of the model's."""

    def prepare(self, sql: str) -> Collection[str]:
        """The names of the parameters of a SELECT that `select` could run. Nothing is read for it."""

    def remark(self) -> str:
        """What the operator should know about the rights of the source, or nothing."""

    def over(self) -> None:
        """Says that the connection is about to be given back: from now on nothing may interrupt it."""

    def interrupt(self) -> None:
        """Ends what runs, with a timeout. May be called from any thread, and returns at once."""

    def columns(self) -> Mapping[str, Mapping[str, str]]:
        """The tables that may be read: for each its columns that may be read, with their types."""

    def quoted(self, table: str) -> str:
        """One of those tables, as SQL."""

    def day(self, expression: str) -> str:
        """SQL for the day of a date, a time or a text that begins with one."""

    def starts(self, unit: str, expression: str) -> str:
        """SQL for the day (YYYY-MM-DD), the Monday of the week, or the month (YYYY-MM) of the same, as text."""


class SqlMistake(ToolError):
    """The SQL cannot run here: its syntax, a name in it, or something that it may not do.

    `of_values`: what it was given does not fit it. `hint` is for a model that may write another query.
    """

    def __init__(self, code: ToolCode, message: str, *, hint: str = "", of_values: bool = False) -> None:
        super().__init__(code, message, hint=hint)
        self.of_values = of_values


class Unreachable(ToolError):
    """The server cannot be reached."""

    def __init__(self) -> None:
        super().__init__(
            ToolCode.UNREACHABLE,
            "The database cannot be reached just now.",
            retryable=True,
            hint="Try again later.",
        )


class LineLost(Unreachable):
    """The connection broke. One that waited in a pool may have been broken for long."""


def out_of_time(seconds: float) -> ToolError:
    return ToolError(
        ToolCode.TIMEOUT,
        f"The query ran for more than {seconds:g} second{'' if seconds == 1 else 's'}.",
        hint="Ask for less: add a WHERE or join on ids.",
    )


def readable_hint(columns: Mapping[str, Collection[str]]) -> str:
    """What a query may name, for the error of one that named something else."""
    return "; ".join(f"columns of {table}: {', '.join(names)}" for table, names in columns.items())


def check_hidden(hidden: Collection[str], existing: Collection[str]) -> None:
    """A column that is hidden under a wrong name would be shown. Raises ToolError(failed)."""
    if missing := sorted(set(hidden) - set(existing)):
        raise ToolError(
            ToolCode.FAILED,
            f"options.hide_columns of the tool names columns that the database lacks: {', '.join(missing)}.",
        )


def taken(rows: Iterable[Sequence[tuple[str, object]]], caps: Caps) -> Rows:
    """Whole rows, until a cap is reached; the first is always taken. Reads no further than that."""
    found: list[dict[str, Json]] = []
    size = 0
    for columns in rows:
        row = _distinct((name, _presentable(value)) for name, value in columns)
        size += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
        if len(found) == caps.rows or (size > caps.bytes and found):
            return Rows(found, more=True)
        found.append(row)
    return Rows(found, more=False)


def _distinct(columns: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    """`SELECT a.id, b.id` has two columns `id`: the second becomes `id_2`."""
    seen: dict[str, int] = {}
    row: dict[str, Json] = {}
    for name, value in columns:
        seen[name] = seen.get(name, 0) + 1
        row[name if seen[name] == 1 else f"{name}_{seen[name]}"] = value
    return row


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
        case list():
            return [_presentable(each) for each in value]
        case dict():
            return {str(name): _presentable(each) for name, each in value.items()}
        case _:
            raise TypeError(f"a database gave a {type(value).__name__}")
