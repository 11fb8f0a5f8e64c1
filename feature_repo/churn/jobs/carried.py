"""The gate `features_carried`: totals that are carried on from day to day are what all orders come to.

A snapshot is made of the one before and of what came since, so a mistake of one day would stay for ever. Each run
computes its newest snapshot again for a sample of customers, in two other ways: by the same SQL from the first order
on, which finds a window that reaches behind what the job reads; and the totals in plain Python from `raw.orders` and
`raw.returns`, from the newest version of each row, which shares neither dbt's marts nor the SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from feature_repo.churn.jobs import compared
from plumbline import clock
from plumbline.contracts.contract import VERSION_ORDER
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GATE = "features_carried"
EPOCH = date(1970, 1, 1)
RAW, RETURNS = "raw.orders", "raw.returns"
SAMPLE = 200
"""Customers a day. A mistake in 1 % of the customers is missed on one day with a chance of 0.99^200 = 13 %, on a week's
seven days of one in a million; each day draws others."""

NO_ORDERS: dict[str, Any] = {
    "orders_total": 0,
    "spend_cents_total": 0,
    "units_total": 0,
    "first_order_day": None,
    "last_order_day": None,
    "returned_cents_90d": 0,
}
TOTALS, BACK = tuple(NO_ORDERS), "returned_cents_90d"


def sample(session: SparkSession, written: DataFrame, day: date) -> list[int]:
    """SAMPLE of the customers that the day's snapshot has: others each day, the same when it is run again."""
    rows = session.sql(
        f"SELECT customer_id FROM {{written}} ORDER BY xxhash64(customer_id, '{day}'), customer_id LIMIT {SAMPLE}",
        written=written,
    )
    return sorted(row.customer_id for row in rows.collect())


def judge(
    session: SparkSession,
    run: StageRun,
    written: DataFrame,
    changed: list[int],
    from_all: Callable[[list[int]], DataFrame] | None,
) -> Verdict:
    """The gate's verdict on `written`, the snapshot of the run's own day.

    `changed` are customers whose orders were corrected or deleted; up to SAMPLE of them are looked at as well.
    `from_all` gives the rows of customers computed from their first order on; None where all of them were.
    """
    customers = sorted({*sample(session, written, run.as_of), *changed[:SAMPLE]})
    rows = written.where(written["customer_id"].isin(customers))
    broken = []
    if from_all is not None:
        result = compared.compare(session, rows, from_all(customers))
        broken += result.phrases(" carried on", "by all orders")
    if RAW in run.candidate.tables:
        broken += _against_raw(rows.select("customer_id", *TOTALS).toArrow().to_pylist(), run, customers)
    told = f"{len(customers):,} customers of {run.as_of} hold what all their orders come to"
    return Verdict(GATE, not broken, len(TOTALS), tuple(broken), extra={"told": told, "customers": len(customers)})


def _against_raw(rows: list[dict[str, Any]], run: StageRun, customers: list[int]) -> list[str]:
    """Totals that differ from those of the newest version of each order in raw: a phrase each, with one customer."""
    back = run.pin(RETURNS) if RETURNS in run.candidate.tables else None
    plain = totals(run.pin(RAW), back, run.candidate.rejected, customers, run.as_of)
    phrases = []
    for name in TOTALS:
        wrong = [row for row in rows if row[name] != plain.get(row["customer_id"], NO_ORDERS)[name]]
        if wrong:
            customer, value = wrong[0]["customer_id"], wrong[0][name]
            expected = plain.get(customer, NO_ORDERS)[name]
            phrases.append(
                f"{name} in {len(wrong):,} of {len(rows):,} rows, such as customer {customer}: {value} carried on, and "
                f"{expected} by {RAW}" + (f" and {RETURNS}" if name == BACK else "")
            )
    return phrases


def totals(
    orders: int, returns: int | None, rejected: list[str], customers: list[int], day: date
) -> dict[int, dict[str, Any]]:
    """TOTALS by customer, from raw's orders and returns (at these versions) as they were known at the end of a day.

    Days since 1970-01-01.
    """
    theirs = _newest(RAW, orders, rejected, day, ["customer_id", "order_date", "units", "total_cents"], customers)
    found: dict[int, dict[str, Any]] = {}
    for row in theirs.values():
        dated = (row["order_date"] - EPOCH).days
        total = found.setdefault(row["customer_id"], {**NO_ORDERS, "first_order_day": dated, "last_order_day": dated})
        total["orders_total"] += 1
        total["spend_cents_total"] += row["total_cents"]
        total["units_total"] += row["units"]
        total["first_order_day"] = min(total["first_order_day"], dated)
        total["last_order_day"] = max(total["last_order_day"], dated)
    if returns is not None:
        for number, row in _newest(RETURNS, returns, rejected, day, ["returned_at", "cents"], list(theirs)).items():
            if row["returned_at"].date() > day - timedelta(days=90):
                found[theirs[number]["customer_id"]][BACK] += row["cents"]
    return found


def _newest(
    table: str, version: int, rejected: list[str], day: date, columns: list[str], wanted: list[int]
) -> dict[int, dict[str, Any]]:
    """By order: the newest version known at the end of a day, unless the shop deleted it.

    `wanted` are customers where `columns` name the customer, else orders.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    dataset = lake.open_table(table, version).to_pyarrow_dataset()
    kept = ~pc.field("batch_id").isin(pa.array(rejected, pa.string())) & (pc.field("known_at") < clock.end_of(day))
    by = "customer_id" if "customer_id" in columns else "order_id"
    ours = pc.field(by).isin(pa.array(wanted, pa.int64()))
    ids = dataset.to_table(columns=["order_id"], filter=ours & kept)["order_id"].unique()
    names = ["order_id", *columns, *VERSION_ORDER]
    names += ["deleted_at"] if "deleted_at" in dataset.schema.names else []
    # An order that went to another customer is theirs now: so every version of these orders, whoever had it.
    rows = dataset.to_table(columns=names, filter=pc.field("order_id").isin(ids) & kept)
    newest: dict[int, dict[str, Any]] = {}
    for row in rows.sort_by([(name, "ascending") for name in VERSION_ORDER]).to_pylist():
        newest[row["order_id"]] = row
    chosen = set(wanted)
    return {
        order: row for order, row in newest.items() if row.get("deleted_at") is None and row.get(by, order) in chosen
    }
