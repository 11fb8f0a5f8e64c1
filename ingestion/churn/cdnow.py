"""The shop database: CDNOW's real orders, loaded as a shop would hold them.

Source: the CDNOW master data set (Fader and Hardie; 69,659 orders of 23,570 customers who first bought in the first
quarter of 1997, up to June 1998), as carried by the `lifetimes` wheel (MIT licence). It has days but no times of day,
so an order is recorded at noon UTC of its day by convention. 255 rows repeat another in every field: they are
separate orders, told apart by their place in the file, which is the order id. It has no returns: those are simulated
(returns.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from importlib.metadata import files as wheel_files
from pathlib import Path

from ingestion.churn import returns
from ingestion.database.source import ShopError, connected, engine, schema
from products.churn import CHURN

WHEEL = "lifetimes"
FILE = "CDNOW_master.txt"
COLUMNS = 4


@dataclass(frozen=True)
class Order:
    """One order as the shop records it; money in integer cents."""

    order_id: int
    customer_id: int
    order_date: date
    units: int
    total_cents: int


def load(path: Path | None = None, until: date | None = None, one_in: int = 1) -> dict[str, object]:
    """Loads the orders (those dated up to `until`), their customers and their simulated returns; what is there already
    stays as it is. Of every `one_in`-th customer only.
    """
    import sqlalchemy as sa

    orders = [order for order in read(path or packaged()) if until is None or order.order_date <= until]
    orders = [order for order in orders if order.customer_id % one_in == 0]
    first: dict[int, date] = {}
    for order in orders:
        first[order.customer_id] = min(order.order_date, first.get(order.customer_id, order.order_date))
    last = max(order.order_date for order in orders)
    database = engine()
    tables = schema(CHURN)
    with connected(database) as connection:
        tables.create_all(connection)
        order_table, customer_table = tables.tables["orders"], tables.tables["customers"]
        return_table = tables.tables["returns"]
        known_orders = set(connection.scalars(sa.select(order_table.c.order_id)))
        known_customers = set(connection.scalars(sa.select(customer_table.c.customer_id)))
        known_returns = set(connection.scalars(sa.select(return_table.c.order_id)))
        new_customers = [
            {"customer_id": c, "signed_up_at": noon(day), "recorded_at": noon(day)}
            for c, day in sorted(first.items())
            if c not in known_customers
        ]
        new_orders = [
            {**order.__dict__, "recorded_at": noon(order.order_date)}
            for order in orders
            if order.order_id not in known_orders
        ]
        new_returns = [
            made.__dict__ for made in returns.simulated(orders, until or last) if made.order_id not in known_returns
        ]
        if new_customers:
            connection.execute(sa.insert(customer_table), new_customers)
        if new_orders:
            connection.execute(sa.insert(order_table), new_orders)
        if new_returns:
            connection.execute(sa.insert(return_table), new_returns)
    return {
        "orders_loaded": len(new_orders),
        "customers_loaded": len(new_customers),
        "simulated_returns_loaded": len(new_returns),
        "orders": len(known_orders) + len(new_orders),
        "customers": len(known_customers) + len(new_customers),
        "simulated_returns": len(known_returns) + len(new_returns),
        "last_order_date": last.isoformat(),
    }


def read(path: Path) -> Iterator[Order]:
    """The orders in a file of CDNOW's format: a header, then customer, yyyymmdd, units, dollars. Raises ShopError."""
    with path.open(newline="") as file:
        lines = csv.reader(file, delimiter=" ", skipinitialspace=True)
        next(lines, None)
        for ordinal, fields in enumerate(lines, start=1):
            yield _order(path, ordinal, [field for field in fields if field])


def _order(path: Path, ordinal: int, fields: list[str]) -> Order:
    where = f"{path.name}, row {ordinal}"
    if len(fields) != COLUMNS:
        raise ShopError(f"{where}: expected customer, yyyymmdd, units, dollars; found {fields}. Nothing was loaded.")
    try:
        cents = Decimal(fields[3]) * 100
        order_date = date(int(fields[1][:4]), int(fields[1][4:6]), int(fields[1][6:]))
        order = Order(ordinal, int(fields[0]), order_date, int(fields[2]), int(cents))
    except (ValueError, InvalidOperation) as error:
        raise ShopError(f"{where}: {fields}: {error}. Nothing was loaded.") from None
    if order.total_cents != cents or order.total_cents < 0:
        raise ShopError(f"{where}: amount {fields[3]!r}: expected dollars of 0 or more with two decimals at most.")
    return order


def packaged() -> Path:
    """The data set inside the wheel, found without importing the package."""
    for file in wheel_files(WHEEL) or []:
        if file.name == FILE:
            return Path(str(file.locate()))
    raise ShopError(f"the {WHEEL} wheel does not carry {FILE}: run `make setup` again")


def noon(day: date) -> datetime:
    """When an order of that day counts as recorded, UTC without a zone, as shop databases store it."""
    return datetime.combine(day, time(12))
