"""The offline side of parity, without Spark: a release's rows as Feast's historical join would give them.

That it gives the same is a property test (tests/feature_repo/test_point_in_time_properties.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "features.customers"
KEY = ["customer_id", "event_time", "created_at"]


@dataclass(frozen=True)
class Row:
    """A customer's row: its event_time, and features by name: null and NaN as None, a FLOAT as a double."""

    event_time: datetime
    values: dict[str, Any]


def newest(version: int, end: datetime, ttl: timedelta, names: Sequence[str]) -> tuple[dict[int, Row], set[int]]:
    """The newest row of every customer with one in [end - ttl, end]; and who has older ones alone: they are expired.

    Of rows that share customer and event_time it is the one created last. A name that the table does not have is None.
    """
    import pyarrow.compute as pc

    stored = lake.open_table(TABLE, version).to_pyarrow_dataset()
    stamp = pc.field("event_time")
    known = stored.to_table(columns=["customer_id"], filter=stamp <= end)["customer_id"].unique().to_pylist()
    held = [name for name in names if name in stored.schema.names]
    fresh = stored.to_table(columns=[*KEY, *held], filter=(stamp >= end - ttl) & (stamp <= end))
    ordered = fresh.select(KEY).to_pandas().sort_values(KEY, kind="stable")
    found = dict(_rows(fresh.take(ordered.drop_duplicates("customer_id", keep="last").index.to_numpy()), names))
    return found, set(known) - set(found)


def joined(
    version: int, asked: Sequence[tuple[int, datetime]], ttl: timedelta, names: Sequence[str]
) -> list[Row | None]:
    """For each (customer, moment) the newest row that was knowable at the moment and not older than the ttl.

    In the order asked; None where there is none.
    """
    import pyarrow.compute as pc

    if not asked:
        return []
    stored = lake.open_table(TABLE, version).to_pyarrow_dataset()
    moments = [moment for _, moment in asked]
    stamp = pc.field("event_time")
    wanted = (stamp >= min(moments) - ttl) & (stamp <= max(moments))
    wanted &= pc.field("customer_id").isin(sorted({customer for customer, _ in asked}))
    held = [name for name in names if name in stored.schema.names]
    table = stored.to_table(columns=[*KEY, *held], filter=wanted).sort_by([(name, "ascending") for name in KEY])
    by_customer: dict[int, list[Row]] = defaultdict(list)
    for customer, row in _rows(table, names):
        by_customer[customer].append(row)
    return [_as_of(by_customer[customer], moment, ttl) for customer, moment in asked]


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same bit for bit: 0.0 is not -0.0, 1 is not 1.0, missing is missing."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right and math.copysign(1.0, left) == math.copysign(1.0, right)
    return bool(left == right)


def _as_of(rows: list[Row], moment: datetime, ttl: timedelta) -> Row | None:
    """Of rows in the order of their event_time, the last one at or before the moment, if the ttl has not passed."""
    at = bisect_right(rows, moment, key=lambda row: row.event_time)
    return rows[at - 1] if at and moment - rows[at - 1].event_time <= ttl else None


def _rows(table: pa.Table, names: Iterable[str]) -> Iterable[tuple[int, Row]]:
    columns = {name: table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in names}
    stamps = table["event_time"].to_pylist()
    for i, customer in enumerate(table["customer_id"].to_pylist()):
        yield customer, Row(stamps[i], {name: missing_as_none(column[i]) for name, column in columns.items()})


def missing_as_none(value: Any) -> Any:
    """The value, None for a NaN: both mean missing."""
    return None if isinstance(value, float) and math.isnan(value) else value
