"""Two days of an order stream, made up: what its tables hold, as lists that a test changes before they are written.

Batches count from each full hour. They bring events of 20 customers from two partitions, with events that come three
hours late, one duplicate and one dead letter a day. The shop's orders are the same orders.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release
from products.churn import ACTIVITY, APPENDED, CHURN

BOOKS, EVENTS, DEAD_LETTERS, _ = APPENDED
FIRST, DAY = date(1998, 6, 29), date(1998, 6, 30)
TOPIC, QUERY = "shop.orders", "0b8f"
CUSTOMERS, LATE = 20, timedelta(hours=3)
HOURS = range(1, 24, 2)
ORDERS_A_BATCH = 12
HORIZONS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}

Row = dict[str, Any]
UTC_TIME = pa.timestamp("us", "UTC")
KNOWN = [("known_at", UTC_TIME), ("known_date", pa.date32()), ("batch", pa.string())]
PLACE = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
WHOLE = ("from_offset", "until_offset", "messages", "landed", "duplicates", "dead_letters", "absent")
SCHEMAS = {
    EVENTS: pa.schema(
        [
            ("event_id", pa.string()),
            ("event_time", UTC_TIME),
            *((name, pa.int64()) for name in ("order_id", "customer_id", "units", "total_cents")),
            *PLACE,
            *KNOWN,
        ]
    ),
    DEAD_LETTERS: pa.schema(
        [
            *PLACE,
            ("key", pa.binary()),
            ("value", pa.binary()),
            ("appended_at", UTC_TIME),
            ("reason", pa.string()),
            ("detail", pa.string()),
            *KNOWN,
        ]
    ),
    BOOKS: pa.schema([*PLACE[:2], *((name, pa.int64()) for name in WHOLE), *KNOWN]),
    ACTIVITY: pa.schema(
        [
            ("customer_id", pa.int64()),
            ("event_time", UTC_TIME),
            *((f"orders_{name}", pa.int32()) for name in HORIZONS),
            *((f"spend_cents_{name}", pa.int64()) for name in HORIZONS),
            ("last_order_second", pa.int64()),
            ("created_at", UTC_TIME),
            ("batch", pa.string()),
            ("known_date", pa.date32()),
        ]
    ),
    "raw.orders": pa.schema(
        [
            *((name, pa.int64()) for name in ("order_id", "customer_id", "units", "total_cents")),
            ("order_date", pa.date32()),
            *((name, UTC_TIME) for name in ("recorded_at", "known_at", "loaded_at", "deleted_at")),
            ("batch_id", pa.string()),
        ]
    ),
}


@dataclass
class Stream:
    """The rows of each table."""

    events: list[Row] = field(default_factory=list)
    dead_letters: list[Row] = field(default_factory=list)
    books: list[Row] = field(default_factory=list)
    activity: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)

    def write(self) -> None:
        """Appends all of it to the lake."""
        given = (self.books, self.events, self.dead_letters, self.activity)
        for table, rows in zip((*APPENDED, "raw.orders"), (*given, self.orders), strict=True):
            parts = {"partition_by": ["known_date"]} if table in APPENDED else {}
            write_deltalake(lake.uri(table), pa.Table.from_pylist(rows, SCHEMAS[table]), mode="append", **parts)

    def of(self, day: date) -> Stream:
        """What became known on a day."""
        lists = (self.events, self.dead_letters, self.books, self.activity)
        kept = ([row for row in rows if row["known_date"] == day] for rows in lists)
        return Stream(*kept, [row for row in self.orders if row["order_date"] == day])


def run_of(base: Release | None = None, day: date = DAY) -> StageRun:
    """The stage `activity` of a day, as its gates get it: raw.orders as it is now, the stream's tables pinned."""
    tables = {"raw.orders": lake.version("raw.orders") or 0}
    candidate = Candidate(f"churn-{day}", "churn", day, base.release_id if base else None, tables=tables)
    return StageRun(CHURN, "activity", day, candidate, base)


def days(which: Iterable[date] = (FIRST, DAY)) -> Stream:
    """The days one after the other."""
    made, number, offsets = Stream(), 0, {0: 0, 1: 0}
    for day in which:
        for hour in HOURS:
            number += 1
            known_at = datetime.combine(day, time(hour), UTC)
            known = {"known_at": known_at, "known_date": day, "batch": f"{QUERY}/{number}"}
            for partition in offsets:
                _batch(made, known, partition, offsets, number)
            made.activity += [activity_row(made.events, customer, known) for customer in _touched(made, known)]
    return made


def activity_row(events: list[Row], customer: int, known: Row) -> Row:
    """The features of a customer at a batch's instant, by a loop over all events."""
    at = known["known_at"]
    mine = [e for e in events if e["customer_id"] == customer and e["known_at"] <= at]
    row: Row = {"customer_id": customer, "event_time": at, "created_at": at, **known}
    for name, length in HORIZONS.items():
        within = [e for e in mine if e["event_time"] > at - length]
        row |= {f"orders_{name}": len(within), f"spend_cents_{name}": sum(e["total_cents"] for e in within)}
    newest = [e["event_time"] for e in mine if e["event_time"] > at - HORIZONS["7d"]]
    return row | {"last_order_second": int(max(newest).timestamp()) if newest else None}


def _touched(made: Stream, known: Row) -> list[int]:
    return sorted({e["customer_id"] for e in made.events if e["batch"] == known["batch"]})


def _batch(made: Stream, known: Row, partition: int, offsets: dict[int, int], number: int) -> None:
    """One partition's part of a batch: events, and on some batches a duplicate or a dead letter."""
    begin = offset = offsets[partition]
    counts = {"landed": 0, "duplicates": 0, "dead_letters": 0}
    for n in range(ORDERS_A_BATCH // 2):
        order = 1000 * number + 10 * partition + n
        late = LATE if n == 0 else timedelta(seconds=30 + n)
        event_time = known["known_at"] - (
            late if known["known_at"].hour > LATE.seconds // 3600 else timedelta(minutes=1)
        )
        values = {
            "order_id": order,
            "customer_id": (3 * number + 10 * partition + n) % CUSTOMERS + 1,
            "units": 1 + n,
            "total_cents": 100 + order,
        }
        place = {"topic": TOPIC, "partition": partition, "offset": offset}
        made.events.append({"event_id": f"order-{order}", "event_time": event_time, **values, **place, **known})
        made.orders.append({**values, "order_date": event_time.date(), **_landed(event_time.date())})
        counts["landed"] += 1
        offset += 1
    if known["known_at"].hour == HOURS[3] and partition == 0:
        counts["duplicates"] += 1
        offset += 1
    if known["known_at"].hour == HOURS[4] and partition == 1:
        place = {"topic": TOPIC, "partition": partition, "offset": offset}
        broken = {"key": None, "value": b"{", "appended_at": known["known_at"], "reason": "malformed", "detail": "half"}
        made.dead_letters.append({**place, **broken, **known})
        counts["dead_letters"] += 1
        offset += 1
    place = {"topic": TOPIC, "partition": partition, "from_offset": begin, "until_offset": offset}
    made.books.append({**place, "messages": offset - begin, **counts, "absent": 0, **known})
    offsets[partition] = offset


def _landed(day: date) -> Row:
    noon = datetime.combine(day, time(12), UTC)
    return {"recorded_at": noon, "known_at": noon, "loaded_at": noon, "deleted_at": None, "batch_id": f"batch {day}"}
