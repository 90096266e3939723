"""The sample shop: a small SQLite database that the sample tools have something to say about.

It is made when a tool first needs it and gains the missing days whenever it is opened later, so that "last
week" always has orders. What happens on a day depends only on the seed, the day and what is in the database
already: a shop made on Monday and opened on Friday equals one made with the same first day on Friday.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

TABLES = ("users", "customers", "products", "orders", "order_lines")
CURRENCY = "USD"

_SEED = 2024
_LAYOUT = 1  # raised whenever the tables or the story below change: an older sample is then made anew
_HISTORY = timedelta(days=731)
_SIGN_UPS_BEFORE_FIRST_ORDER = 120  # days: the first order needs someone who can place it

_SCHEMA = """
CREATE TABLE users (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  city TEXT NOT NULL,
  country TEXT NOT NULL,
  newsletter INTEGER NOT NULL,
  signed_up_on TEXT NOT NULL
);
CREATE TABLE customers (
  id INTEGER PRIMARY KEY,
  user_id INTEGER NOT NULL UNIQUE REFERENCES users(id),
  name TEXT NOT NULL,
  segment TEXT NOT NULL,
  city TEXT NOT NULL,
  country TEXT NOT NULL,
  customer_since TEXT NOT NULL
);
CREATE TABLE products (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  category TEXT NOT NULL,
  price REAL NOT NULL,
  in_stock INTEGER NOT NULL
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customers(id),
  ordered_on TEXT NOT NULL,
  status TEXT NOT NULL,
  total REAL NOT NULL
);
CREATE TABLE order_lines (
  order_id INTEGER NOT NULL REFERENCES orders(id),
  product_id INTEGER NOT NULL REFERENCES products(id),
  quantity INTEGER NOT NULL,
  unit_price REAL NOT NULL,
  PRIMARY KEY (order_id, product_id)
) WITHOUT ROWID;
CREATE INDEX users_signed_up_on ON users (signed_up_on);
CREATE INDEX orders_ordered_on ON orders (ordered_on);
CREATE INDEX orders_customer_id ON orders (customer_id);
CREATE TABLE sample_shop (layout INTEGER NOT NULL, first_day TEXT NOT NULL, last_day TEXT NOT NULL);
"""

# name, category, price, in stock, how well it sells
_PRODUCTS = (
    ("Harbor Roast Coffee, 1 kg", "Coffee and Tea", 24.90, 310, 9),
    ("Decaf Coffee, 500 g", "Coffee and Tea", 14.50, 120, 3),
    ("Earl Grey Tea, 100 bags", "Coffee and Tea", 9.80, 240, 5),
    ("Green Tea Sampler", "Coffee and Tea", 17.20, 95, 3),
    ("Pour-Over Set", "Coffee and Tea", 38.00, 60, 3),
    ("Stoneware Mug", "Kitchen", 12.50, 420, 8),
    ("Cast Iron Pan", "Kitchen", 54.00, 45, 3),
    ("Chef's Knife", "Kitchen", 79.00, 38, 2),
    ("Bamboo Cutting Board", "Kitchen", 22.00, 130, 4),
    ("Linen Tea Towels, set of 3", "Kitchen", 18.40, 160, 4),
    ("Herb Garden Kit", "Garden", 29.90, 75, 4),
    ("Watering Can, 2 liters", "Garden", 21.50, 66, 3),
    ("Terracotta Pot, 20 cm", "Garden", 13.90, 210, 4),
    ("Wildflower Seeds", "Garden", 4.90, 500, 5),
    ("Folding Garden Chair", "Garden", 89.00, 22, 1),
    ("Reading Lamp", "Lighting", 64.00, 41, 3),
    ("Beeswax Candles, pair", "Lighting", 11.90, 260, 6),
    ("String Lights, 10 m", "Lighting", 26.50, 140, 4),
    ("Storm Lantern", "Lighting", 42.00, 33, 2),
    ("Dotted Notebook", "Stationery", 8.90, 380, 7),
    ("Fountain Pen", "Stationery", 34.00, 52, 2),
    ("Letter Paper, 50 sheets", "Stationery", 12.00, 90, 2),
    ("Desk Calendar", "Stationery", 15.50, 110, 2),
    ("Wool Blanket", "Home", 95.00, 28, 2),
    ("Cotton Cushion", "Home", 27.00, 84, 3),
    ("Wall Clock", "Home", 49.00, 31, 2),
)

_PLACES = (
    ("United States", 30, ("New York", "Chicago", "Seattle", "Austin", "Boston", "Denver")),
    ("United Kingdom", 16, ("London", "Leeds", "Bristol", "Edinburgh")),
    ("Germany", 14, ("Berlin", "Hamburg", "Munich", "Leipzig")),
    ("Canada", 10, ("Toronto", "Montreal", "Vancouver")),
    ("France", 9, ("Paris", "Lyon", "Nantes")),
    ("Netherlands", 7, ("Amsterdam", "Utrecht")),
    ("Spain", 6, ("Madrid", "Valencia")),
    ("India", 5, ("Bengaluru", "Pune")),
    ("Japan", 3, ("Tokyo", "Osaka")),
)

_FIRST_NAMES = (  # noqa: SIM905 - sixty quoted names are harder to read
    "Ada Aisha Alan Alice Amara Ana Andrei Anna Arjun Ben Carla Chen Clara Daniel David Diego Elena Emma Eric "
    "Fatima Felix Grace Hana Hugo Ines Ivan Jack James Jonas Julia Kai Karim Kate Laura Leo Lena Lucas Maria "
    "Marta Mateo Maya Mia Nadia Nina Noah Olga Oliver Omar Paul Peter Priya Rosa Ruth Sam Sara Sofia Tim Tom "
    "Victor Yuki Zoe"
).split()
_LAST_NAMES = (  # noqa: SIM905 - as above
    "Adams Ahmed Bauer Becker Brown Campbell Carter Chen Clark Cohen Costa Davies Diaz Dubois Evans Fischer "
    "Fletcher Garcia Gupta Hall Hansen Haas Ito Jackson Jansen Johnson Khan Kim Klein Kumar Lee Lopez Martin "
    "Meyer Miller Moreau Morris Nakamura Novak Okafor Patel Perez Quinn Reed Rossi Sanders Schmidt Silva Singh "
    "Smith Sato Taylor Thomas Vargas Visser Walker Weber White Wilson Wong Young"
).split()
_COMPANY_ENDINGS = ("Cafe", "Studio", "Interiors", "Books", "Hotel")

# Monday to Sunday, then January to December: people order at the weekend and before the holidays.
_BY_WEEKDAY = (0.9, 0.85, 0.9, 0.95, 1.05, 1.2, 1.25)
_BY_MONTH = (0.8, 0.85, 0.95, 1.0, 1.05, 0.95, 0.85, 0.85, 0.95, 1.05, 1.3, 1.6)


def ensure_shop(path: Path, today: date | None = None) -> None:
    """Makes the sample shop at `path` if there is no file, else adds the days up to `today`.

    A database that is not the sample is left as it is. Several processes may call this at once. Raises OSError
    or sqlite3.Error if the file cannot be made or written.
    """
    today = today or date.today()
    if path.exists():
        made = _read_marker(path)
        if made is None or (made.layout == _LAYOUT and made.last_day >= today):
            return
        if made.layout == _LAYOUT:
            _extend(path, today)
            return
    _make(path, today - _HISTORY, today)


@contextmanager
def preview() -> Iterator[sqlite3.Connection]:
    """A shop in memory with a few weeks of orders: enough to describe the tables without writing a file."""
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, date(2025, 11, 1), date(2025, 12, 14))
        yield connection


def fill(connection: sqlite3.Connection, first_day: date, last_day: date) -> None:
    """Makes the tables in an empty database and fills them from `first_day` to `last_day`, both included."""
    connection.executescript(_SCHEMA)
    connection.executemany(
        "INSERT INTO products VALUES (?, ?, ?, ?, ?)",
        [(number, *product[:4]) for number, product in enumerate(_PRODUCTS, start=1)],
    )
    connection.execute(
        "INSERT INTO sample_shop VALUES (?, ?, ?)", (_LAYOUT, first_day.isoformat(), last_day.isoformat())
    )
    for before in range(_SIGN_UPS_BEFORE_FIRST_ORDER, 0, -1):
        day = first_day - timedelta(days=before)
        _sign_ups(connection, _dice("users", day), day)
    _live_through(connection, first_day, first_day, last_day)
    connection.commit()


@dataclass(frozen=True, slots=True)
class _Marker:
    layout: int
    first_day: date
    last_day: date


def _read_marker(path: Path) -> _Marker | None:
    """What the sample says of itself, or None for a database of somebody else's."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("SELECT layout, first_day, last_day FROM sample_shop").fetchone()
        except sqlite3.DatabaseError:
            return None
    return None if row is None else _Marker(row[0], date.fromisoformat(row[1]), date.fromisoformat(row[2]))


def _make(path: Path, first_day: date, last_day: date) -> None:
    """Writes a whole new file beside `path` and renames it: nobody ever opens half a shop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".new")
    os.close(number)
    try:
        with closing(sqlite3.connect(name)) as connection:
            # A crash while the file is made costs nothing: it has another name until it is whole.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            fill(connection, first_day, last_day)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _extend(path: Path, today: date) -> None:
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        # Read again under the lock: another process may have been faster.
        first, last = connection.execute("SELECT first_day, last_day FROM sample_shop").fetchone()
        _live_through(
            connection, date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1), today
        )
        if today.isoformat() > last:
            connection.execute("UPDATE sample_shop SET last_day = ?", (today.isoformat(),))
        connection.execute("COMMIT")


def _live_through(connection: sqlite3.Connection, first_day: date, start: date, end: date) -> None:
    for offset in range((end - start).days + 1):
        day = start + timedelta(days=offset)
        _sign_ups(connection, _dice("users", day), day)
        _orders(connection, _dice("orders", day), day, age=(day - first_day).days)
        _deliver(connection, day)


def _dice(what: str, day: date) -> random.Random:
    return random.Random(f"{_SEED}:{what}:{day.isoformat()}")  # noqa: S311 - a story, not a secret


def _how_many(dice: random.Random, mean: float) -> int:
    """A Poisson draw (Knuth): counts of independent events of one day."""
    limit, product, count = math.exp(-mean), dice.random(), 0
    while product > limit:
        product *= dice.random()
        count += 1
    return count


def _sign_ups(connection: sqlite3.Connection, dice: random.Random, day: date) -> None:
    (highest,) = connection.execute("SELECT coalesce(max(id), 0) FROM users").fetchone()
    for number in range(highest + 1, highest + 1 + _how_many(dice, 0.9 * _BY_MONTH[day.month - 1])):
        first, last = dice.choice(_FIRST_NAMES), dice.choice(_LAST_NAMES)
        country, _, cities = dice.choices(_PLACES, weights=[place[1] for place in _PLACES])[0]
        connection.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                f"{first} {last}",
                f"{first}.{last}{number}@example.com".lower(),
                dice.choice(cities),
                country,
                int(dice.random() < 0.4),
                day.isoformat(),
            ),
        )


def _orders(connection: sqlite3.Connection, dice: random.Random, day: date, *, age: int) -> None:
    growth = 1 + 0.35 * age / 365
    mean = 4.6 * growth * _BY_WEEKDAY[day.weekday()] * _BY_MONTH[day.month - 1]
    (users,) = connection.execute("SELECT max(id) FROM users").fetchone()
    (highest,) = connection.execute("SELECT coalesce(max(id), 0) FROM orders").fetchone()
    for number in range(highest + 1, highest + 1 + _how_many(dice, mean)):
        # The square favours early users: some customers come back again and again.
        user = 1 + int(users * dice.random() ** 2)
        customer = _customer_of(connection, dice, user, day)
        lines = _lines(dice, customer.segment)
        connection.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?)",
            (
                number,
                customer.id,
                day.isoformat(),
                "cancelled" if dice.random() < 0.03 else "paid",
                round(sum(quantity * price for _, quantity, price in lines), 2),
            ),
        )
        connection.executemany(
            "INSERT INTO order_lines VALUES (?, ?, ?, ?)", [(number, *line) for line in lines]
        )


@dataclass(frozen=True, slots=True)
class _Customer:
    id: int
    segment: str


def _customer_of(connection: sqlite3.Connection, dice: random.Random, user: int, day: date) -> _Customer:
    row = connection.execute("SELECT id, segment FROM customers WHERE user_id = ?", (user,)).fetchone()
    if row is not None:
        return _Customer(*row)
    (highest,) = connection.execute("SELECT coalesce(max(id), 0) FROM customers").fetchone()
    name, city, country = connection.execute(
        "SELECT name, city, country FROM users WHERE id = ?", (user,)
    ).fetchone()
    segment = "business" if dice.random() < 0.15 else "private"
    if segment == "business":
        name = f"{name.split()[-1]} {dice.choice(_COMPANY_ENDINGS)}"
    connection.execute(
        "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)",
        (highest + 1, user, name, segment, city, country, day.isoformat()),
    )
    return _Customer(highest + 1, segment)


def _lines(dice: random.Random, segment: str) -> list[tuple[int, int, float]]:
    """Product, quantity and unit price of one order, each product once."""
    most = 6 if segment == "business" else 2
    discount = 0.9 if segment == "business" else 1.0
    chosen = dict.fromkeys(
        dice.choices(
            range(len(_PRODUCTS)), weights=[product[4] for product in _PRODUCTS], k=dice.randint(1, 4)
        )
    )
    return [(index + 1, dice.randint(1, most), round(_PRODUCTS[index][2] * discount, 2)) for index in chosen]


def _deliver(connection: sqlite3.Connection, day: date) -> None:
    """Orders leave after a day, arrive after four, and one in twenty-five comes back after twelve."""

    def move(before: str, after: str, days: int, which: str = "1") -> None:
        connection.execute(
            f"UPDATE orders SET status = ? WHERE status = ? AND ordered_on = ? AND {which}",  # noqa: S608 - ours
            (after, before, (day - timedelta(days=days)).isoformat()),
        )

    move("paid", "shipped", 1)
    move("shipped", "delivered", 4)
    move("delivered", "returned", 12, "id % 25 = 7")
