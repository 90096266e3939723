from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest

from tornado_live.tools.builtin import shop

TODAY = date(2026, 3, 18)


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in (*shop.TABLES, "sample_shop")
        }


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_a_shop_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    shop.ensure_shop(tmp_path / "one.db", TODAY)
    shop.ensure_shop(tmp_path / "folder" / "two.db", TODAY)
    assert rows(tmp_path / "one.db") == rows(tmp_path / "folder" / "two.db")


def test_a_shop_opened_later_equals_one_made_later_from_the_same_first_day(tmp_path: Path) -> None:
    grown = tmp_path / "grown.db"
    shop.ensure_shop(grown, TODAY)
    shop.ensure_shop(grown, TODAY + timedelta(days=1))
    shop.ensure_shop(grown, TODAY + timedelta(days=40))
    made = tmp_path / "made.db"
    [(first_day,)] = ask(grown, "SELECT first_day FROM sample_shop")
    with closing(sqlite3.connect(made)) as connection:
        shop.fill(connection, date.fromisoformat(str(first_day)), TODAY + timedelta(days=40))
    assert rows(grown) == rows(made)


def test_a_shop_tells_of_two_years_up_to_today(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY)
    [(first, last, orders)] = ask(path, "SELECT min(ordered_on), max(ordered_on), count(*) FROM orders")
    assert (TODAY - date.fromisoformat(str(first))).days in range(720, 732)
    assert date.fromisoformat(str(last)) in (TODAY, TODAY - timedelta(days=1))
    assert 3_000 < int(str(orders)) < 8_000
    [(users,)] = ask(path, "SELECT count(*) FROM users")
    assert 300 < int(str(users)) < 1_000
    assert ask(path, "SELECT DISTINCT status FROM orders ORDER BY 1") == [
        ("cancelled",),
        ("delivered",),
        ("paid",),
        ("returned",),
        ("shipped",),
    ]


def test_every_day_of_the_last_fortnight_and_every_week_has_something_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY)
    weeks = ask(path, "SELECT count(*) FROM orders GROUP BY date(ordered_on, '-6 days', 'weekday 1')")
    assert len(weeks) >= 104
    assert min(int(str(count)) for (count,) in weeks[1:-1]) >= 10


def test_the_rows_of_a_shop_agree_with_each_other(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY)
    assert ask(path, "PRAGMA foreign_key_check") == []
    assert (
        ask(
            path,
            "SELECT o.id FROM orders o JOIN order_lines l ON l.order_id = o.id "
            "GROUP BY o.id HAVING abs(o.total - sum(l.quantity * l.unit_price)) > 0.005",
        )
        == []
    )
    assert ask(path, "SELECT id FROM orders WHERE id NOT IN (SELECT order_id FROM order_lines)") == []
    assert (
        ask(
            path,
            "SELECT c.id FROM customers c JOIN users u ON u.id = c.user_id JOIN orders o ON o.customer_id = c.id "
            "GROUP BY c.id HAVING min(o.ordered_on) <> c.customer_since OR u.signed_up_on > c.customer_since",
        )
        == []
    )


def test_a_shop_of_today_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY)
    before = path.stat().st_mtime_ns
    shop.ensure_shop(path, TODAY)
    shop.ensure_shop(path, TODAY - timedelta(days=3))
    assert path.stat().st_mtime_ns == before


def test_somebody_elses_database_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
        connection.commit()
    before = path.read_bytes()
    shop.ensure_shop(path, TODAY)
    assert path.read_bytes() == before


def test_a_shop_of_an_older_layout_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sample_shop SET layout = 0")
        connection.execute("DELETE FROM users")
        connection.commit()
    shop.ensure_shop(path, TODAY)
    [(users,)] = ask(path, "SELECT count(*) FROM users")
    assert int(str(users)) > 300


def test_many_who_need_the_shop_at_once_get_one_whole_shop(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    shop.ensure_shop(path, TODAY - timedelta(days=5))
    failures: list[Exception] = []

    def need() -> None:
        try:
            shop.ensure_shop(path, TODAY)
        except Exception as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=need) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    [(last_day,)] = ask(path, "SELECT last_day FROM sample_shop")
    assert last_day == TODAY.isoformat()
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    alone = tmp_path / "alone.db"
    shop.ensure_shop(alone, TODAY - timedelta(days=5))
    shop.ensure_shop(alone, TODAY)
    assert rows(path) == rows(alone)


def test_a_shop_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError):
        shop.ensure_shop(tmp_path / "file" / "shop.db", TODAY)
    shop.ensure_shop(tmp_path / "shop.db", TODAY)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "shop.db"]
