"""Figures of a period, grouped and compared with the period before, computed from a SQL source."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

from tornado_live.errors import nearest
from tornado_live.tools.builtin import shop
from tornado_live.tools.builtin.sql import (
    SAMPLE_OPTION,
    SOURCE_OPTION,
    check_source,
    reach_of_sql,
    read_fixed,
    tried,
    why_not,
)
from tornado_live.tools.builtin.sql_rows import Caps, Database
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import Mistake, Sources, handler
from tornado_live.tools.result import Json, ToolCode, ToolError

_DAY: Final = timedelta(days=1)
_MOST_ROWS: Final = 62
_LONGEST_PERIOD: Final = timedelta(days=20 * 366)
_TIMES: Final = ("day", "week", "month")
_GROUPED: Final = "GROUP BY 1 ORDER BY 1"

_SALES: Final = (
    "orders JOIN customers ON customers.id = orders.customer_id "
    "JOIN order_lines ON order_lines.order_id = orders.id JOIN products ON products.id = order_lines.product_id"
)
_SOLD: Final = "orders.status NOT IN ('cancelled', 'returned')"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: an aggregate `value` over `rows` (a FROM clause) whose `date` lies in the period.

    `groups` are the other things it can be split by: name to SQL expression.
    """

    value: str
    rows: str
    date: str
    groups: Mapping[str, str]
    where: str = "1 = 1"


_SALE_GROUPS: Final = {
    "product": "products.name",
    "category": "products.category",
    "country": "customers.country",
    "segment": "customers.segment",
}
_SHOP_METRICS: Final[Mapping[str, Metric]] = {
    name: Metric(value, _SALES, "orders.ordered_on", _SALE_GROUPS, _SOLD)
    for name, value in {
        "revenue": "coalesce(sum(order_lines.quantity * order_lines.unit_price), 0)",
        "orders": "count(DISTINCT orders.id)",
        "average_order_value": (
            "coalesce(sum(order_lines.quantity * order_lines.unit_price) / count(DISTINCT orders.id), 0)"
        ),
        "units_sold": "coalesce(sum(order_lines.quantity), 0)",
        "customers": "count(DISTINCT orders.customer_id)",
    }.items()
} | {
    "new_customers": Metric(
        "count(*)",
        "customers",
        "customers.customer_since",
        {"country": "customers.country", "segment": "customers.segment"},
    ),
    "new_users": Metric("count(*)", "users", "users.signed_up_on", {"country": "users.country"}),
}

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "source": SOURCE_OPTION,
        "sample": SAMPLE_OPTION,
        "currency": {"type": ["string", "null"], "default": shop.CURRENCY},
        "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 60, "default": 5},
        "metrics": {
            "type": ["object", "null"],
            "default": None,
            "minProperties": 1,
            "description": "Your own figures instead of those of the sample shop",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "value": {"type": "string", "description": "Aggregate, e.g. sum(invoices.amount)"},
                    "rows": {"type": "string", "description": "What follows FROM"},
                    "date": {"type": "string", "description": "Column with the day, e.g. invoices.issued_on"},
                    "where": {"type": "string", "default": "1 = 1"},
                    "groups": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
                },
                "required": ["value", "rows", "date"],
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Period:
    """Days from `start` to `end`, both included, and the stretch that it is compared with."""

    start: date
    end: date
    before_start: date
    before_end: date

    @property
    def days(self) -> int:
        return (self.end - self.start).days + 1


def parse_period(text: str, today: date) -> Period:
    """The days that a person means by "last week", "October 2026", "last 30 days" or "2026-01-01/2026-01-31".

    "last week" is the Monday to Sunday before this week, "this week" ends today. A period that is still running is
    compared with the same number of days of the one before. Raises ToolError for what it does not understand.
    """
    words = _plain(text)
    for understand in (_named_day, _running_or_last_unit, _rolling, _calendar_unit, _day_range):
        try:
            period = understand(words, today)
        except OverflowError as error:
            raise ToolError(ToolCode.INVALID_ARGUMENTS, "The period is too long ago.") from error
        if period is not None:
            if period.end - period.start > _LONGEST_PERIOD:
                raise ToolError(ToolCode.INVALID_ARGUMENTS, "The period is longer than twenty years.")
            return period
    raise ToolError(
        ToolCode.INVALID_ARGUMENTS,
        f'"{text[:60]}" is not a period that is understood.',
        hint="Say today, yesterday, last week, this month, last 30 days, last quarter, October, 2025, "
        "or two days as 2026-01-01/2026-01-31.",
    )


def check_metrics(
    options: Mapping[str, Json], parameters: Mapping[str, Json], sources: Sources
) -> Iterator[Mistake]:
    """The mistakes of figures that the database cannot compute."""
    if wrong := list(check_source(options, parameters, sources)):
        yield from wrong
    elif isinstance(options["metrics"], dict):
        yield from tried(options, sources, lambda database: _wrong_in(database, _metrics_of(options)))
    else:
        for _, told in tried(options, sources, lambda database: _wrong_in(database, _SHOP_METRICS))[:1]:
            yield ("source",), f"has no figures of the sample shop ({told}); write metrics of its own"


def _wrong_in(database: Database, metrics: Mapping[str, Metric]) -> Iterator[Mistake]:
    """For each figure the first part that the database does not take, and each group."""
    for name, metric in metrics.items():
        first: Mapping[str, str] = {
            "rows": f"SELECT 1 FROM {metric.rows}",  # noqa: S608 - parts of tools.yaml
            "date": _statement(database, replace(metric, where="1 = 1"), "1", ""),
            "where": _statement(database, metric, "1", ""),
            "value": _statement(database, metric, f'{metric.value} AS "{name}"', ""),
        }
        wrong = next(((key, told) for key, sql in first.items() if (told := why_not(database, sql))), None)
        if wrong is not None:
            yield ("metrics", name, wrong[0]), wrong[1]
            continue
        for group, expression in metric.groups.items():
            values = f'{expression} AS "{group}", {metric.value} AS "{name}"'
            if told := why_not(database, _statement(database, metric, values, _GROUPED)):
                yield ("metrics", name, "groups", group), told


def _reach(options: Mapping[str, Json], sources: Sources) -> Iterator[tuple[str, str]]:
    rows = dict.fromkeys((metric.rows, metric.where) for metric in _metrics_of(options).values())
    statements = [f"SELECT 1 FROM {rows} WHERE ({where})" for rows, where in rows]  # noqa: S608 - as above
    return reach_of_sql(options, sources, statements)


@handler(options=OPTIONS, check=check_metrics, reach=_reach)
async def report(
    context: ToolContext,
    period: str = "last week",
    metrics: Sequence[str] | None = None,
    group_by: str | None = None,
    compare: bool = True,
) -> Json:
    """Each metric over the period, its change against the period before, and rows by `group_by`.

    Without `metrics` all of them; without `group_by` rows by day, week or month, whichever gives a handful.
    """
    days = parse_period(period, date.today())
    options = context.options
    return await read_fixed(
        context, lambda database: compute(database, options, days, period, metrics, group_by, compare), {}
    )


def compute(
    database: Database,
    options: Mapping[str, Json],
    period: Period,
    said: str,
    metrics: Sequence[str] | None,
    group_by: str | None,
    compare: bool,
) -> Json:
    """`report` for a period that is already known; `said` is how the person called it."""
    offered = _metrics_of(options)
    wanted = {name: _metric(name, offered) for name in metrics or offered}
    group = group_by or _fitting(period)
    rows_of = _groupable(wanted, group)
    seconds = float(str(options["seconds"]))
    now = _totals(database, wanted, period.start, period.end, seconds)
    answer: dict[str, Json] = {"period": said, "from": str(period.start), "to": str(period.end), **now}
    currency = options["currency"]
    if currency is not None:
        answer["currency"] = currency
    if compare:
        before = _totals(database, wanted, period.before_start, period.before_end, seconds)
        answer["change_percent"] = {name: _change(before[name], now[name]) for name in wanted}
        answer["compared_with"] = {
            "from": str(period.before_start),
            "to": str(period.before_end),
            **before,
        }
    answer["rows_by"] = group
    rows = _rows(database, rows_of, group, period, seconds)
    answer["rows"] = list(rows[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        answer["note"] = f"Only the first {_MOST_ROWS} rows; there are more."
    return answer


def _metrics_of(options: Mapping[str, Json]) -> Mapping[str, Metric]:
    declared = options["metrics"]
    if not isinstance(declared, dict):
        return _SHOP_METRICS
    return {name: _declared(metric) for name, metric in declared.items() if isinstance(metric, dict)}


def _declared(metric: Mapping[str, Json]) -> Metric:
    groups = metric.get("groups")
    return Metric(
        value=str(metric["value"]),
        rows=str(metric["rows"]),
        date=str(metric["date"]),
        groups={name: str(sql) for name, sql in groups.items()} if isinstance(groups, dict) else {},
        where=str(metric.get("where", "1 = 1")),
    )


def _metric(name: str, offered: Mapping[str, Metric]) -> Metric:
    if name not in offered:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            f'There is no metric "{name}"{nearest(name, offered)}.',
            hint=f"Metrics: {', '.join(offered)}",
        )
    return offered[name]


def _fitting(period: Period) -> str:
    if period.days <= 31:
        return "day"
    return "week" if period.days <= 100 else "month"


def _groupable(wanted: Mapping[str, Metric], group: str) -> Mapping[str, Metric]:
    """The metrics that can be split by `group`: new users, for one, have no product."""
    if group in _TIMES:
        return wanted
    found = {name: metric for name, metric in wanted.items() if group in metric.groups}
    if not found:
        known = sorted({each for metric in wanted.values() for each in metric.groups})
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            f'{", ".join(wanted)} cannot be grouped by "{group}"{nearest(group, (*_TIMES, *known))}.',
            hint=f"Groups: {', '.join((*_TIMES, *known))}",
        )
    return found


def _totals(
    database: Database, wanted: Mapping[str, Metric], start: date, end: date, seconds: float
) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for names in _together(wanted):
        values = ", ".join(f'{wanted[name].value} AS "{name}"' for name in names)
        rows = _select(database, wanted[names[0]], values, "", start, end, seconds)
        found |= {name: _figure(rows[0][name]) for name in names}
    return {name: found[name] for name in wanted}


def _rows(
    database: Database, wanted: Mapping[str, Metric], group: str, period: Period, seconds: float
) -> list[Json]:
    """One row per group; by time in its order, else the largest first metric on top."""
    rows: dict[str, dict[str, Json]] = {}
    if group == "day":
        days = (period.start + offset * _DAY for offset in range(period.days))
        rows = {str(day): {"day": str(day)} for day in days}
    for names in _together(wanted):
        metric = wanted[names[0]]
        expression = database.starts(group, metric.date) if group in _TIMES else metric.groups[group]
        values = ", ".join(
            [f'{expression} AS "{group}"', *(f'{wanted[name].value} AS "{name}"' for name in names)]
        )
        for row in _select(database, metric, values, _GROUPED, period.start, period.end, seconds):
            key = str(row[group])
            rows.setdefault(key, {group: key}).update({name: _figure(row[name]) for name in names})
    whole: list[dict[str, Json]] = [{**dict.fromkeys(wanted, 0), **row} for row in rows.values()]
    whole = [{group: row[group], **{name: row[name] for name in wanted}} for row in whole]
    if group in _TIMES:
        whole.sort(key=lambda row: str(row[group]))
    else:
        first = next(iter(wanted))
        whole.sort(key=lambda row: (-_size(row[first]), str(row[group])))
    return list(whole)


def _together(wanted: Mapping[str, Metric]) -> list[list[str]]:
    """Metrics over the same rows are read by one statement."""
    same: dict[tuple[str, str, str], list[str]] = {}
    for name, metric in wanted.items():
        same.setdefault((metric.rows, metric.date, metric.where), []).append(name)
    return list(same.values())


def _select(
    database: Database, metric: Metric, values: str, tail: str, start: date, end: date, seconds: float
) -> list[dict[str, Json]]:
    sql = _statement(database, metric, values, tail)
    found = database.select(
        sql, {"start": str(start), "end": str(end)}, Caps(rows=1_000, bytes=1_000_000, seconds=seconds)
    )
    return found.rows


def _statement(database: Database, metric: Metric, values: str, tail: str) -> str:
    # All parts come from this module or from tools.yaml, never from an argument; the days are bound.
    day, start_day, end_day = map(database.day, (metric.date, ":start", ":end"))
    return (
        f"SELECT {values} FROM {metric.rows} "  # noqa: S608
        f"WHERE {day} BETWEEN {start_day} AND {end_day} AND ({metric.where}) {tail}"
    )


def _figure(value: Json) -> Json:
    return round(value, 2) if isinstance(value, float) else value


def _size(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _change(before: Json, now: Json) -> Json:
    """Percent, one decimal; None where there was nothing before."""
    return round(100 * (_size(now) - _size(before)) / _size(before), 1) if _size(before) else None


# What people say


_NUMBERS: Final = {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split(),  # noqa: SIM905
        start=1,
    )
} | {"twenty": 20, "thirty": 30, "sixty": 60, "ninety": 90, "couple of": 2, "few": 3}
_MONTHS: Final = {name.lower(): number for number, name in enumerate(calendar.month_name) if name} | {
    name.lower(): number for number, name in enumerate(calendar.month_abbr) if name
}
_WEEKDAYS: Final = {name.lower(): number for number, name in enumerate(calendar.day_name)}
_NUMBER: Final = r"(\d{1,4}|" + "|".join(_NUMBERS) + ")"
_LAST: Final = r"(?:last|past|previous|prior|recent)"
_THIS: Final = r"(?:this|current|the)"
_UNIT: Final = r"(day|week|month|quarter|year)"
_ISO: Final = r"(\d{4}-\d{2}-\d{2})"


def _plain(text: str) -> str:
    words = re.sub(r"[\s_]+", " ", text.strip().lower()).strip(" .?!")
    words = re.sub(r"^(?:for|in|of|during|over|from|since|on) ", "", words)
    return re.sub(r"^the (?=last|past|previous|prior|current|month|week|year|quarter)", "", words)


def _named_day(words: str, today: date) -> Period | None:
    if words in ("today", "now", "this day"):
        return _span(today, today)
    if words in ("yesterday", "last day"):
        return _span(today - _DAY, today - _DAY)
    if words in ("all time", "ever", "all", "everything"):
        return _span(today - 2 * timedelta(days=365), today)
    if found := re.fullmatch(rf"(?:last )?({'|'.join(_WEEKDAYS)})", words):
        day = today - timedelta(days=(today.weekday() - _WEEKDAYS[found[1]] - 1) % 7 + 1)
        return Period(day, day, day - 7 * _DAY, day - 7 * _DAY)
    return None


def _running_or_last_unit(words: str, today: date) -> Period | None:
    if found := re.fullmatch(rf"(?:{_LAST} )(?:full |calendar )?(week|month|quarter|year)", words):
        start, end = _unit_around(_unit_around(today, found[1])[0] - _DAY, found[1])
        return _whole_unit(start, end, found[1])
    if found := re.fullmatch(rf"{_THIS} ?{_UNIT}(?: so far| to date)?|{_UNIT} to date", words):
        unit = found[1] or found[2]
        return _so_far(_unit_around(today, unit)[0], today, unit)
    if words in ("week", "month", "quarter", "year"):
        return _so_far(_unit_around(today, words)[0], today, words)
    if words in ("wtd", "mtd", "qtd", "ytd"):
        unit = {"w": "week", "m": "month", "q": "quarter", "y": "year"}[words[0]]
        return _so_far(_unit_around(today, unit)[0], today, unit)
    if words in ("last weekend", "weekend", "past weekend"):
        saturday = today - timedelta(days=(today.weekday() - 5) % 7)
        saturday = saturday if saturday + _DAY < today else saturday - 7 * _DAY
        return Period(saturday, saturday + _DAY, saturday - 7 * _DAY, saturday - 6 * _DAY)
    return None


def _rolling(words: str, today: date) -> Period | None:
    """The last N days end today; the last N weeks, months, quarters or years are whole ones, before this one."""
    found = re.fullmatch(rf"(?:{_LAST} )?{_NUMBER} {_UNIT}s?(?: ago)?", words)
    if found is None or (not re.match(_LAST, words) and not words.endswith(" ago")):
        return None
    count, unit = _count(found[1]), found[2]
    if count == 0 or count > 4_000:
        return None
    if words.endswith(" ago"):
        if unit == "day":
            return _span(today - count * _DAY, today - count * _DAY)
        end = _steps_back(today, unit, count)
        return _whole_unit(*_unit_around(end, unit), unit)
    if unit == "day":
        return _span(today - (count - 1) * _DAY, today)
    this = _unit_around(today, unit)[0]
    start = _unit_around(_steps_back(today, unit, count), unit)[0]
    return Period(start, this - _DAY, _unit_around(_steps_back(start, unit, count), unit)[0], start - _DAY)


def _calendar_unit(words: str, today: date) -> Period | None:
    """A year, a month, a quarter or an ISO week. Without a year: the latest one that has begun."""
    if found := re.fullmatch(r"(?:year )?(\d{4})", words):
        return _known_unit(int(found[1]), 1, today, "year")
    months = "|".join(sorted(_MONTHS, key=len, reverse=True))
    if found := re.fullmatch(rf"(?:{_LAST} |month of )?({months})(?:,? (\d{{4}}))?", words):
        month = _MONTHS[found[1]]
        year = int(found[2]) if found[2] else today.year - (month > today.month)
        return _known_unit(year, month, today, "month")
    if found := re.fullmatch(r"(\d{4})-(\d{2})", words):
        return _known_unit(int(found[1]), int(found[2]), today, "month")
    if found := re.fullmatch(r"(\d{4})[- ]?q([1-4])|q([1-4])(?:[- ](\d{4}))?", words):
        number = int(found[2] or found[3])
        month = 3 * number - 2
        year = int(found[1] or found[4] or today.year - (month > today.month))
        return _known_unit(year, month, today, "quarter")
    if found := re.fullmatch(r"(\d{4})-?w(\d{2})", words):
        try:
            monday = date.fromisocalendar(int(found[1]), int(found[2]), 1)
        except ValueError:
            return None
        return _whole_unit(monday, monday + 6 * _DAY, "week")
    return None


def _day_range(words: str, today: date) -> Period | None:
    if found := re.fullmatch(rf"(?:between )?{_ISO}(?: ?/ ?| to | and | until | - |\.\.){_ISO}", words):
        start, end = _iso(found[1]), _iso(found[2])
    elif found := re.fullmatch(rf"{_ISO}(?: ?/| to today| until today| until now)?", words):
        start = _iso(found[1])
        end = start if words == found[1] else today
    else:
        return None
    if start is None or end is None:
        return None
    if end < start:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS, "The period ends before it starts.", hint="Swap the two days."
        )
    return _span(start, end)


def _span(start: date, end: date) -> Period:
    """Compared with as many days just before."""
    days = end - start + _DAY
    return Period(start, end, start - days, start - _DAY)


def _whole_unit(start: date, end: date, unit: str) -> Period:
    before = _unit_around(start - _DAY, unit)
    return Period(start, end, *before)


def _so_far(start: date, today: date, unit: str) -> Period:
    before_start, before_end = _unit_around(start - _DAY, unit)
    return Period(start, today, before_start, min(before_end, before_start + (today - start)))


def _known_unit(year: int, month: int, today: date, unit: str) -> Period | None:
    if not (1900 <= year <= 9000 and 1 <= month <= 12):
        return None
    start, end = _unit_around(date(year, month, 1), unit)
    if start <= today < end:
        return _so_far(start, today, unit)
    return _whole_unit(start, end, unit)


def _unit_around(day: date, unit: str) -> tuple[date, date]:
    """First and last day of the week (from Monday), month, quarter or year in which `day` lies."""
    match unit:
        case "day":
            return day, day
        case "week":
            monday = day - timedelta(days=day.weekday())
            return monday, monday + 6 * _DAY
        case "month":
            return day.replace(day=1), _month_end(day.year, day.month)
        case "quarter":
            first = day.month - (day.month - 1) % 3
            return date(day.year, first, 1), _month_end(day.year, first + 2)
        case _:
            return date(day.year, 1, 1), date(day.year, 12, 31)


def _steps_back(day: date, unit: str, count: int) -> date:
    """A day in the unit `count` units before that of `day`."""
    start = _unit_around(day, unit)[0]
    if unit in ("day", "week"):
        return start - count * (7 if unit == "week" else 1) * _DAY
    months = start.year * 12 + start.month - 1 - count * {"month": 1, "quarter": 3, "year": 12}[unit]
    if months < 12 * 1900:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "The period is too long ago.")
    return date(months // 12, months % 12 + 1, 1)


def _month_end(year: int, month: int) -> date:
    return date(year, month, calendar.monthrange(year, month)[1])


def _count(word: str) -> int:
    return _NUMBERS[word] if word in _NUMBERS else int(word)


def _iso(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
