"""Columns that no contract names come back from quarantine in the type that raw holds of them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from ingestion.database import quarantine_replay as replay
from ingestion.database.source_checks import BEGINNING, Window
from plumbline import clock
from plumbline.lake import tables as lake
from products.churn import CHURN

DAY = date(1997, 1, 10)


def orders(discount: pa.DataType) -> pa.Table:
    row = {
        "order_id": 4,
        "customer_id": 1,
        "order_date": DAY,
        "units": 1,
        "total_cents": 500,
        "recorded_at": datetime(1997, 1, 10, 12, tzinfo=UTC),
        "gift": True,
        "promised_on": DAY,
        "called_at": datetime(1997, 1, 10, 13, tzinfo=UTC),
        "scan": b"\x00\xff",
    }
    return pa.Table.from_pylist([row]).append_column("discount", pa.array([Decimal("1.50")], discount))


def test_each_kind_of_column_is_let_in_as_raw_holds_it(home: Path) -> None:
    """Quarantine keeps a decimal in as many digits as it has, raw in as many as were declared."""
    write_deltalake(lake.uri("raw.orders"), orders(pa.decimal128(10, 2)))
    database = replay.database(CHURN, {"orders": orders(pa.decimal128(3, 2))})
    try:
        assert replay.broken(CHURN, database, Window(BEGINNING, clock.end_of(DAY), DAY)) == []
    finally:
        replay.dispose(database)
