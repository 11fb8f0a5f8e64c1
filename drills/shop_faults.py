"""Faults as a shop brings them: each changes the shop's database and gives the function that mends it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drills.shop import DAY, PRODUCT, sql
from ingestion.churn import cdnow
from plumbline.lake import tables as lake
from plumbline.state import releases

if TYPE_CHECKING:
    from drills.drill import Drilling

Mend = Callable[[], None]
FEW = 3
COPIED = 5_000_000
"""Added to an order's number, for a second one that looks like it."""


CORRECTED = "SELECT order_id FROM orders WHERE order_date = '1997-01-15' ORDER BY order_id LIMIT 5"
"""Orders of nine months ago, of which the first two get deleted."""


def corrected() -> Mend:
    """Three orders of January are corrected, recorded anew today; two more are deleted: a dispute was settled."""
    ids = [row[0] for row in sql(CORRECTED)]
    sql(
        f"DELETE FROM orders WHERE order_id IN ({ids[0]}, {ids[1]})",
        f"UPDATE orders SET total_cents = total_cents + 5000, recorded_at = '{DAY} 12:00:00.000000' "
        f"WHERE order_id IN ({', '.join(map(str, ids[2:]))})",
    )
    return lambda: None


def totals_are_the_shops(drilling: Drilling) -> list[str]:
    """Customers whose totals in the release in force are not what the shop shows now."""
    release = releases.required(PRODUCT)
    table = lake.open_table("features.customers", release.version("features.customers"))
    rows = table.to_pyarrow_table(
        partitions=[("snapshot_date", "=", str(release.as_of))],
        columns=["customer_id", "orders_total", "spend_cents_total"],
    )
    features = {row["customer_id"]: (row["orders_total"], row["spend_cents_total"]) for row in rows.to_pylist()}
    shown = sql("SELECT customer_id, count(*), sum(total_cents) FROM orders GROUP BY customer_id")
    wrong = [
        f"{row[0]}: {features.get(row[0])}, the shop {row[1:]}"
        for row in shown
        if features.get(row[0]) != (row[1], row[2])
    ]
    return [f"{len(wrong)} customers' totals are not the shop's, such as {wrong[0]}"] if wrong else []


def deleted() -> Mend:
    """One order in twenty is gone: the shop was restored from an old copy."""
    sql("DELETE FROM orders WHERE order_id % 20 = 0")
    return _load


def too_many_units() -> Mend:
    """An order of 3,000,000,000 units, which no feature's type can hold."""
    return _changed("units", "3000000000", 1)


def reserved_column() -> Mend:
    """The shop's new release brings a column `known_at`, a name that the platform gives to its own."""
    sql("ALTER TABLE orders ADD COLUMN known_at TEXT", "UPDATE orders SET known_at = '1996-05-05 00:00:00'")
    return _mending("ALTER TABLE orders DROP COLUMN known_at")


def renamed_column() -> Mend:
    """A deployment of the shop, on a Tuesday, renames a column."""
    sql("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    return _mending("ALTER TABLE orders RENAME COLUMN amount_cents TO total_cents")


def added_column() -> Mend:
    """A deployment of the shop adds a column: nothing that anybody has to stop."""
    sql("ALTER TABLE orders ADD COLUMN channel TEXT", f"UPDATE orders SET channel = 'web' WHERE order_date = '{DAY}'")
    return lambda: None


def null_ids() -> Mend:
    """A few orders lose their customer, in a table that says this cannot be: as a broken replica would have it."""
    kept = sql(f"SELECT order_id, customer_id FROM orders WHERE order_date = '{DAY}' ORDER BY order_id LIMIT {FEW}")
    _unchecked(f"UPDATE orders SET customer_id = NULL WHERE order_id IN ({_ids(kept)})")
    return lambda: _put_back("customer_id", kept)


def negative_amounts() -> Mend:
    """Refunds are booked as orders with a negative amount."""
    return _changed("total_cents", "-total_cents", FEW)


def future_dates() -> Mend:
    """A client with a wrong clock dates its orders at Christmas."""
    return _changed("order_date", "'1997-12-25'", FEW)


def dollars() -> Mend:
    """The shop's new release writes whole dollars where cents were."""
    return _changed("total_cents", "total_cents / 100")


def drifted() -> Mend:
    """A sales channel that sells by the box: other quantities, the same prices."""
    return _changed("units", "units + 9")


def twice() -> Mend:
    """The day's orders arrive a second time under new numbers: a producer that retries without a key."""
    sql(
        "INSERT INTO orders (order_id, customer_id, order_date, units, total_cents, recorded_at) "
        f"SELECT order_id + {COPIED}, customer_id, order_date, units, total_cents, recorded_at "
        f"FROM orders WHERE order_date = '{DAY}'"
    )
    return _mending(f"DELETE FROM orders WHERE order_id >= {COPIED}")


def half() -> Mend:
    """Half of the day's orders are not in the database yet: those of the newer customers, a shard of their own."""
    ids = [row[0] for row in sql(f"SELECT order_id FROM orders WHERE order_date = '{DAY}' ORDER BY customer_id")]
    sql(f"DELETE FROM orders WHERE order_id IN ({', '.join(map(str, ids[len(ids) // 2 :]))})")
    return _load


def nothing() -> Mend:
    """None of the day's orders is in the database yet."""
    sql(f"DELETE FROM orders WHERE order_date = '{DAY}'")
    return _load


def _mending(statement: str) -> Mend:
    def mend() -> None:
        sql(statement)

    return mend


def _load() -> None:
    cdnow.load(until=DAY)


def _changed(column: str, to: str, most: int = 1_000_000) -> Mend:
    kept = sql(f"SELECT order_id, {column} FROM orders WHERE order_date = '{DAY}' ORDER BY order_id LIMIT {most}")
    sql(f"UPDATE orders SET {column} = {to} WHERE order_id IN ({_ids(kept)})")
    return lambda: _put_back(column, kept)


def _put_back(column: str, kept: list[Any]) -> None:
    sql(*(f"UPDATE orders SET {column} = {value!r} WHERE order_id = {order}" for order, value in kept))


def _ids(rows: list[Any]) -> str:
    return ", ".join(str(row[0]) for row in rows)


def _unchecked(statement: str) -> None:
    """Runs a statement past SQLite's own NOT NULL, which is put back as it was."""
    (declared,) = sql("SELECT sql FROM sqlite_master WHERE name = 'orders'")[0]
    for text in (declared.replace(" NOT NULL", ""), declared):
        quoted = text.replace("'", "''")
        sql(
            "PRAGMA writable_schema = ON",
            f"UPDATE sqlite_master SET sql = '{quoted}' WHERE type = 'table' AND name = 'orders'",
            "PRAGMA writable_schema = RESET",
        )
        if text != declared:
            sql(statement)
