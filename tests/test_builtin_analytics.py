from __future__ import annotations

import asyncio
import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from builtin_context import context_for, sql_source
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.tools.builtin import analytics, shop, sql
from tornado_live.tools.builtin.analytics import Period, parse_period
from tornado_live.tools.builtin.sql_rows import Database
from tornado_live.tools.context import ToolContext
from tornado_live.tools.result import Json, ToolCode, ToolError

SUNDAY = date(2026, 11, 22)
WORDS = """
last this past next 0 1 2 30 9999 days weeks week month quarter year ago to date q1 may 2026 0001 9999 2026-01-01
0001-01-01 9999-12-31 / w53 2026-w53 - couple of weekend monday
""".split()  # noqa: SIM905 - a list of words


def days(period: Period) -> tuple[str, str, str, str]:
    return str(period.start), str(period.end), str(period.before_start), str(period.before_end)


@pytest.mark.parametrize(
    ("said", "start", "end", "before_start", "before_end"),
    [
        ("today", "2026-11-22", "2026-11-22", "2026-11-21", "2026-11-21"),
        ("Yesterday.", "2026-11-21", "2026-11-21", "2026-11-20", "2026-11-20"),
        ("last week", "2026-11-09", "2026-11-15", "2026-11-02", "2026-11-08"),
        ("the last week", "2026-11-09", "2026-11-15", "2026-11-02", "2026-11-08"),
        ("for the past week", "2026-11-09", "2026-11-15", "2026-11-02", "2026-11-08"),
        ("last_week", "2026-11-09", "2026-11-15", "2026-11-02", "2026-11-08"),
        ("this week", "2026-11-16", "2026-11-22", "2026-11-09", "2026-11-15"),
        ("this month", "2026-11-01", "2026-11-22", "2026-10-01", "2026-10-22"),
        ("month to date", "2026-11-01", "2026-11-22", "2026-10-01", "2026-10-22"),
        ("last month", "2026-10-01", "2026-10-31", "2026-09-01", "2026-09-30"),
        ("last 7 days", "2026-11-16", "2026-11-22", "2026-11-09", "2026-11-15"),
        ("the past seven days", "2026-11-16", "2026-11-22", "2026-11-09", "2026-11-15"),
        ("last 30 days", "2026-10-24", "2026-11-22", "2026-09-24", "2026-10-23"),
        ("last two weeks", "2026-11-02", "2026-11-15", "2026-10-19", "2026-11-01"),
        ("last 3 months", "2026-08-01", "2026-10-31", "2026-05-01", "2026-07-31"),
        ("three days ago", "2026-11-19", "2026-11-19", "2026-11-18", "2026-11-18"),
        ("2 weeks ago", "2026-11-02", "2026-11-08", "2026-10-26", "2026-11-01"),
        ("last quarter", "2026-07-01", "2026-09-30", "2026-04-01", "2026-06-30"),
        ("this quarter", "2026-10-01", "2026-11-22", "2026-07-01", "2026-08-22"),
        ("Q3", "2026-07-01", "2026-09-30", "2026-04-01", "2026-06-30"),
        ("Q4 2025", "2025-10-01", "2025-12-31", "2025-07-01", "2025-09-30"),
        ("October", "2026-10-01", "2026-10-31", "2026-09-01", "2026-09-30"),
        ("in December", "2025-12-01", "2025-12-31", "2025-11-01", "2025-11-30"),
        ("Oct 2025", "2025-10-01", "2025-10-31", "2025-09-01", "2025-09-30"),
        ("2026-02", "2026-02-01", "2026-02-28", "2026-01-01", "2026-01-31"),
        ("2025", "2025-01-01", "2025-12-31", "2024-01-01", "2024-12-31"),
        ("last year", "2025-01-01", "2025-12-31", "2024-01-01", "2024-12-31"),
        ("year to date", "2026-01-01", "2026-11-22", "2025-01-01", "2025-11-22"),
        ("2026-W02", "2026-01-05", "2026-01-11", "2025-12-29", "2026-01-04"),
        ("monday", "2026-11-16", "2026-11-16", "2026-11-09", "2026-11-09"),
        ("last Sunday", "2026-11-15", "2026-11-15", "2026-11-08", "2026-11-08"),
        ("last weekend", "2026-11-14", "2026-11-15", "2026-11-07", "2026-11-08"),
        ("2026-01-01/2026-01-31", "2026-01-01", "2026-01-31", "2025-12-01", "2025-12-31"),
        ("from 2026-01-01 to 2026-01-03", "2026-01-01", "2026-01-03", "2025-12-29", "2025-12-31"),
        ("2026-01-05", "2026-01-05", "2026-01-05", "2026-01-04", "2026-01-04"),
    ],
)
def test_a_period_is_what_people_mean_by_it(
    said: str, start: str, end: str, before_start: str, before_end: str
) -> None:
    assert days(parse_period(said, SUNDAY)) == (start, end, before_start, before_end)


def test_a_short_month_before_is_compared_whole() -> None:
    assert days(parse_period("this month", date(2026, 3, 31))) == (
        "2026-03-01",
        "2026-03-31",
        "2026-02-01",
        "2026-02-28",
    )
    assert days(parse_period("last month", date(2024, 3, 1)))[:2] == ("2024-02-01", "2024-02-29")


@pytest.mark.parametrize(
    "said", ["", "banana", "last", "last 0 days", "2026-13", "2026-02-30", "0001-01-01", "now/then"]
)
def test_what_is_no_period_is_answered_with_examples(said: str) -> None:
    with pytest.raises(ToolError) as caught:
        parse_period(said, SUNDAY)
    assert caught.value.code is ToolCode.INVALID_ARGUMENTS


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ToolError, match="ends before it starts"):
        parse_period("2026-02-01/2026-01-01", SUNDAY)


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(WORDS),
            max_size=5,
        ).map(" ".join),
    ),
    st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1)),
)
def test_any_text_is_a_period_or_a_clear_error(said: str, today: date) -> None:
    try:
        period = parse_period(said, today)
    except ToolError:
        return
    assert period.before_start <= period.before_end < period.start <= period.end


def report(path: Path, said: str, **arguments: object) -> dict[str, Json]:
    context = context_for(analytics.report, sql_source(path))
    period = parse_period(said, SUNDAY)
    chosen: dict[str, object] = {"metrics": None, "group_by": None, "compare": True, **arguments}

    def compute(database: Database) -> Json:
        return analytics.compute(database, context.options, period, said, **chosen)  # type: ignore[arg-type]

    answer = asyncio.run(sql.read(context, compute))
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    shop.ensure_shop(path, SUNDAY)
    return path


def query(path: Path, text: str) -> list[dict[str, Json]]:
    answer = asyncio.run(sql.query(text, context_for(sql.query, sql_source(path))))
    assert isinstance(answer, dict)
    return answer["rows"]  # type: ignore[return-value]


def test_a_period_alone_gives_every_figure_its_change_and_a_row_per_day(shop_file: Path) -> None:
    answer = report(shop_file, "last week")
    [row] = query(
        shop_file,
        "SELECT round(sum(total), 2) AS revenue, count(*) AS orders, count(DISTINCT customer_id) AS customers "
        "FROM orders WHERE ordered_on BETWEEN '2026-11-09' AND '2026-11-15' "
        "AND status NOT IN ('cancelled', 'returned')",
    )
    [before] = query(
        shop_file,
        "SELECT round(sum(total), 2) AS revenue FROM orders "
        "WHERE ordered_on BETWEEN '2026-11-02' AND '2026-11-08' AND status NOT IN ('cancelled', 'returned')",
    )
    assert {name: answer[name] for name in row} == row
    assert answer["average_order_value"] == round(float(str(row["revenue"])) / int(str(row["orders"])), 2)
    assert (answer["period"], answer["from"], answer["to"]) == ("last week", "2026-11-09", "2026-11-15")
    assert answer["currency"] == "USD"
    assert answer["compared_with"]["revenue"] == before["revenue"]  # type: ignore[index,call-overload]
    change = 100 * (float(str(row["revenue"])) / float(str(before["revenue"])) - 1)
    assert answer["change_percent"]["revenue"] == round(change, 1)  # type: ignore[index,call-overload]
    rows = answer["rows"]
    assert isinstance(rows, list)
    assert [each["day"] for each in rows] == [f"2026-11-{day:02}" for day in range(9, 16)]  # type: ignore[index,call-overload]
    assert sum(each["orders"] for each in rows) == row["orders"]  # type: ignore[index,call-overload,misc]


def test_new_users_and_customers_are_counted_by_their_first_day(shop_file: Path) -> None:
    answer = report(shop_file, "October", metrics=["new_users", "new_customers"], compare=False)
    [users] = query(shop_file, "SELECT count(*) AS n FROM users WHERE signed_up_on LIKE '2026-10-%'")
    [customers] = query(
        shop_file, "SELECT count(*) AS n FROM customers WHERE customer_since LIKE '2026-10-%'"
    )
    assert (answer["new_users"], answer["new_customers"]) == (users["n"], customers["n"])
    assert "revenue" not in answer
    assert "change_percent" not in answer


@pytest.mark.parametrize("group", ["product", "category", "country", "segment"])
def test_groups_add_up_and_the_largest_comes_first(shop_file: Path, group: str) -> None:
    answer = report(shop_file, "last month", metrics=["revenue", "new_users"], group_by=group)
    rows = answer["rows"]
    assert isinstance(rows, list)
    revenues = [float(str(row["revenue"])) for row in rows]  # type: ignore[index,call-overload]
    assert sum(revenues) == pytest.approx(float(str(answer["revenue"])))
    assert revenues == sorted(revenues, reverse=True)
    assert answer["rows_by"] == group


def test_long_periods_have_rows_by_week_or_month(shop_file: Path) -> None:
    quarter = report(shop_file, "last quarter", metrics=["orders"])
    assert quarter["rows_by"] == "week"
    year = report(shop_file, "2025", metrics=["orders"])
    assert [row["month"] for row in year["rows"]] == [f"2025-{n:02}" for n in range(1, 13)]  # type: ignore[union-attr,index,call-overload]
    assert len(json.dumps(report(shop_file, "last 30 days"))) < 16_384


def test_an_empty_period_is_zero_and_not_an_error(shop_file: Path) -> None:
    answer = report(shop_file, "2010")
    assert (answer["revenue"], answer["orders"], answer["average_order_value"]) == (0, 0, 0)
    assert answer["change_percent"]["orders"] is None  # type: ignore[index,call-overload]


def test_wrong_metrics_and_groups_are_answered_with_the_right_ones(shop_file: Path) -> None:
    with pytest.raises(ToolError, match='did you mean "revenue"') as caught:
        report(shop_file, "today", metrics=["revenu"])
    assert "new_users" in caught.value.hint
    with pytest.raises(ToolError, match='cannot be grouped by "product"') as caught:
        report(shop_file, "today", metrics=["new_users"], group_by="product")
    assert caught.value.hint == "Groups: day, week, month, country"


def test_the_handler_takes_a_period_alone_and_makes_the_sample_shop(tmp_path: Path) -> None:
    context = context_for(analytics.report, sql_source(tmp_path / "shop.db"), sample="shop")
    answer = asyncio.run(analytics.report(context, "last week"))
    assert isinstance(answer, dict)
    assert int(str(answer["orders"])) > 10
    monday = date.today() - timedelta(days=date.today().weekday() + 7)
    assert answer["from"] == monday.isoformat()


def test_an_operator_may_declare_figures_of_their_own(shop_file: Path) -> None:
    context: ToolContext = context_for(
        analytics.report,
        sql_source(shop_file),
        currency=None,
        metrics={
            "cancellations": {
                "value": "count(*)",
                "rows": "orders",
                "date": "ordered_on",
                "where": "status = 'cancelled'",
                "groups": {"year": "strftime('%Y', ordered_on)"},
            }
        },
    )
    period = parse_period("2025-01-01/2026-10-31", SUNDAY)

    def compute(database: Database) -> Json:
        return analytics.compute(database, context.options, period, "x", None, "year", False)

    answer = asyncio.run(sql.read(context, compute))
    [row] = query(
        shop_file,
        "SELECT count(*) AS n FROM orders WHERE status = 'cancelled' AND ordered_on BETWEEN '2025-01-01' "
        "AND '2026-10-31'",
    )
    assert isinstance(answer, dict)
    assert answer["cancellations"] == row["n"]
    assert "currency" not in answer
    assert {each["year"] for each in answer["rows"]} == {"2025", "2026"}  # type: ignore[union-attr,index,call-overload]
