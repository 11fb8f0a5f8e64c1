"""A made-up stream: rows of customer activity in the lake, micro-batch by micro-batch. No Spark, no Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from feature_repo.churn.jobs import activity
from plumbline.lake import tables as lake

VIEW = "customer_activity"
NOW = datetime(1998, 7, 1, tzinfo=UTC)
"""The clock of a test's home."""

Orders = Mapping[int, int | None]
"""By customer how many orders of the last hour a row has; None for a row without any of the last 7 days."""


def row(customer: int, at: datetime, orders: int | None, batch: str) -> dict[str, Any]:
    """A row of a customer that is told from others by its numbers."""
    count = orders or 0
    return {
        "customer_id": customer,
        "event_time": at,
        "orders_1h": count,
        "orders_24h": count,
        "orders_7d": count + (orders is not None),
        "spend_cents_1h": 100 * count + customer,
        "spend_cents_24h": 100 * count + customer,
        "spend_cents_7d": 100 * count + customer,
        "last_order_second": None if orders is None else int(at.timestamp()) - 10,
        "created_at": at,
        "batch": batch,
        "known_date": at.date(),
    }


def schema() -> pa.Schema:
    """The table's columns."""
    stamp = pa.timestamp("us", "UTC")
    kinds = {"event_time": stamp, "created_at": stamp, "batch": pa.string(), "known_date": pa.date32()}
    kinds |= {f"orders_{window}": pa.int32() for window in ("1h", "24h", "7d")}
    return pa.schema([(name, kinds.get(name, pa.int64())) for name in row(1, NOW, 1, "")])


def land(batch: str, at: datetime, orders: Orders) -> pa.Table:
    """Appends a micro-batch to the table, and gives its rows."""
    rows = pa.Table.from_pylist([row(customer, at, count, batch) for customer, count in orders.items()], schema())
    write_deltalake(lake.uri(activity.TABLE), rows, mode="append", partition_by=["known_date"])
    return rows
