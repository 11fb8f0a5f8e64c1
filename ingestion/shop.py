"""The shop database: CDNOW's real orders, loaded as a shop would hold them.

Source: the CDNOW master data set (Fader and Hardie; 69,659 orders of 23,570 customers who first bought in the first
quarter of 1997, up to June 1998), as carried by the `lifetimes` wheel (MIT licence). It has days but no times of day,
so an order is recorded at noon UTC of its day by convention. 255 rows repeat another in every field: they are
separate orders, told apart by their place in the file, which is the order id.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from importlib.metadata import files as wheel_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import contracts
from plumbline.contracts import Column, Contract
from plumbline.errors import PlumblineError, ServiceUnavailable, SettingsError
from plumbline.settings import settings

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection, Engine, MetaData
    from sqlalchemy.types import TypeEngine

WHEEL = "lifetimes"
FILE = "CDNOW_master.txt"
COLUMNS = 4
TIMEOUT = 5
"""Seconds that a Postgres has to take a connection, unless its URL says otherwise; by itself it has minutes."""


class ShopError(PlumblineError):
    """The shop's data or its database is not as expected."""


@dataclass(frozen=True)
class Order:
    """One order as the shop records it; money in integer cents."""

    order_id: int
    customer_id: int
    order_date: date
    units: int
    total_cents: int


def load(path: Path | None = None, until: date | None = None) -> dict[str, object]:
    """Loads the orders (those dated up to `until`) and their customers; what is there already stays as it is."""
    import sqlalchemy as sa

    orders = [order for order in read(path or packaged()) if until is None or order.order_date <= until]
    first: dict[int, date] = {}
    for order in orders:
        first[order.customer_id] = min(order.order_date, first.get(order.customer_id, order.order_date))
    database = engine()
    tables = schema()
    with connected(database) as connection:
        tables.create_all(connection)
        order_table, customer_table = tables.tables["orders"], tables.tables["customers"]
        known_orders = set(connection.scalars(sa.select(order_table.c.order_id)))
        known_customers = set(connection.scalars(sa.select(customer_table.c.customer_id)))
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
        if new_customers:
            connection.execute(sa.insert(customer_table), new_customers)
        if new_orders:
            connection.execute(sa.insert(order_table), new_orders)
    return {
        "orders_loaded": len(new_orders),
        "customers_loaded": len(new_customers),
        "orders": len(known_orders) + len(new_orders),
        "customers": len(known_customers) + len(new_customers),
        "last_order_date": max(order.order_date for order in orders).isoformat(),
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


def as_stored(kind: TypeEngine[Any], instant: datetime) -> datetime:
    """An instant (UTC) as a column of that type holds it: with its zone, or UTC without one."""
    return instant if getattr(kind, "timezone", False) else instant.replace(tzinfo=None)


def schema() -> MetaData:
    """The shop's tables as their contracts have them. Timestamps are UTC without a zone."""
    import sqlalchemy as sa

    tables = sa.MetaData()
    for name in contracts.SHOP:
        contract = contracts.shop(name)
        sa.Table(name, tables, *(_column(contract, column) for column in contract.columns.values()))
    return tables


def _column(contract: Contract, column: Column) -> sa.Column[Any]:
    import sqlalchemy as sa

    return sa.Column(
        column.name,
        column_type(column),
        primary_key=column.name in contract.key,
        autoincrement=False,
        nullable=not column.required,
        index=column.name == contracts.RECORDED or None,
    )


def column_type(column: Column) -> TypeEngine[Any]:
    """The type of a contract's column in a shop database."""
    import sqlalchemy as sa

    kinds: dict[str, TypeEngine[Any]] = {
        "integer": sa.BigInteger(),
        "number": sa.Float(),
        "date": sa.Date(),
        "timestamp": sa.DateTime(),
        "string": sa.String(),
        "boolean": sa.Boolean(),
    }
    return kinds[column.kind]


def engine() -> Engine:
    """An engine for the shop's URL. The URL may hold a password: it appears in no message."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(settings().shop)
    except sa.exc.ArgumentError:
        raise SettingsError(
            "PLUMBLINE_SHOP_URL: expected a SQLAlchemy URL, as in postgresql+psycopg://user@host/shop"
        ) from None
    if url.drivername.startswith("sqlite") and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(TIMEOUT)})
    try:
        return sa.create_engine(url)
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise SettingsError(
            f"PLUMBLINE_SHOP_URL: there is no driver for {url.drivername} in the pipeline environment ({error})"
        ) from None


@contextmanager
def connected(database: Engine) -> Iterator[Connection]:
    """A transaction on the shop. Raises ServiceUnavailable, without the password, when it cannot be reached."""
    import sqlalchemy as sa

    try:
        with database.begin() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        raise ServiceUnavailable(f"the shop database {address()}: {error.orig}") from None


def address() -> str:
    """The shop's URL for messages: without its query, where drivers take a password too, and without the password."""
    import sqlalchemy as sa

    return sa.make_url(settings().shop).set(query={}).render_as_string(hide_password=True)
