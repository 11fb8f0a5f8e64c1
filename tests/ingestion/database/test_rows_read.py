"""Rows that were read are held against the contract once more, without the shop's database."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from ingestion.database import rows_read
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake

DAY = date(1997, 1, 10)
GOOD = {
    "order_id": 4,
    "customer_id": 1,
    "order_date": DAY,
    "units": 1,
    "total_cents": 500,
    "recorded_at": datetime(1997, 1, 10, 12, tzinfo=UTC),
}


def rows(**wrong: Any) -> pa.Table:
    return pa.Table.from_pylist([GOOD | {"order_id": 3}, GOOD | wrong])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"total_cents": -500}, "orders.total_cents: 1 rows are below 0, such as order_id 4: -500"),
        ({"units": 0}, "orders.units: 1 rows are below 1, such as order_id 4: 0"),
        ({"units": 3_000_000_000}, "orders.units: 1 rows are above 1,000,000, such as order_id 4: 3000000000"),
        ({"customer_id": None}, "orders.customer_id: 1 rows are null, such as order_id 4: null"),
        ({"order_date": date(1999, 1, 1)}, "orders.order_date: 1 rows are dated behind 1997-01-10"),
        ({"order_id": 3}, "orders.order_id: 1 keys were read more than once, such as order_id 3"),
    ],
)
def test_a_row_that_changed_between_the_gate_and_the_reading_does_not_land(
    home: Path, wrong: dict[str, Any], told: str
) -> None:
    rows_read.refuse_broken(rows(), "orders", DAY)
    with pytest.raises(GateFailed) as error:
        rows_read.refuse_broken(rows(**wrong), "orders", DAY)
    assert told in str(error.value)
    assert "run `plumb ingest --as-of 1997-01-10` again" in str(error.value).replace("Run", "run")


@pytest.mark.parametrize(
    ("held", "read", "cut"),
    [
        (pa.int64(), pa.array([1.0, 2.5]), True),
        (pa.int64(), pa.array(["1", "gift"]), True),
        (pa.int64(), pa.array(["1", "2"]), True),
        (pa.float64(), pa.array([1, 2**53 + 1]), True),
        (pa.decimal128(10, 2), pa.array([Decimal(1), Decimal(10**10)], pa.decimal128(12, 0)), True),
        (pa.int64(), pa.array([1, 2], pa.int32()), False),
        (pa.float64(), pa.array([1, 2]), False),
        (pa.int64(), pa.array([None, None], pa.null()), False),
        (pa.string(), pa.array(["a", "b"], pa.large_string()), False),
    ],
)
def test_a_column_lands_whole_or_not_at_all(home: Path, held: pa.DataType, read: pa.Array, cut: bool) -> None:
    landed = rows().append_column("discount", pa.array([None, None], held))
    write_deltalake(lake.uri("raw.orders"), landed)
    wider = rows().append_column("discount", read)
    if not cut:
        rows_read.refuse_broken(wider, "orders", DAY)
        return
    with pytest.raises(
        GateFailed, match=rf"orders.discount: read as {re.escape(str(read.type))}, raw.orders holds .* cut or lost"
    ):
        rows_read.refuse_broken(wider, "orders", DAY)


def test_an_order_of_the_shops_tomorrow_counts_from_tomorrow_on(home: Path) -> None:
    """In Kathmandu it is tomorrow already at 20:00 UTC: a snapshot of today would know what its label looks for."""
    counted = rows_read.counted_from(rows(order_date=date(1997, 1, 11)), "orders")
    assert counted.to_pylist() == [datetime(1997, 1, 10, 12, tzinfo=UTC), datetime(1997, 1, 11, tzinfo=UTC)]
