"""A past for the stream: the shop's orders as if the stream had been there when they were placed.

A model can only be trained on activity that has a history. Each second with orders is a batch, known two seconds later:
what the stream takes when it is not behind. Batches are named `backfill/N`, so nobody takes them for what was served.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ingestion.events import produce
from ingestion.events import stream_tables as tables
from ingestion.events.landing import Activity
from ingestion.events.stream_tables import BOOKS, EVENTS, StreamError
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.progress import say

if TYPE_CHECKING:
    import pyarrow as pa

QUERY = "backfill"
KNOWN_AFTER = timedelta(seconds=2)
"""From an order to its features, in a past that nobody measured."""


def backfill(activity: Activity, table: str, first: date, last: date) -> dict[str, int]:
    """Lands the shop's orders of these days and the features that come of them; how many of each.

    Raises StreamError when the stream has begun already: what it served is not written anew.
    """
    begun = {str(batch) for batch in tables.rows(EVENTS, ["batch"], None)["batch"].to_pylist()}
    if lake.version(BOOKS) is not None or not all(batch.startswith(f"{QUERY}/") for batch in begun):
        raise StreamError(
            "the stream has landed events already: a past is given to it before its first batch, in a home without "
            f"{EVENTS}"
        )
    orders = produce.orders(first, last)
    say(f"{len(orders):,} orders of {first} to {last} as events that were known {KNOWN_AFTER.seconds} s later")
    events, books = _events(orders), []
    for number, (known_at, rows) in enumerate(groupby(events, key=lambda row: row["known_at"])):
        batch = list(rows)
        for row in batch:
            row["batch"] = f"{QUERY}/{number}"
        books.append(_line(number, known_at, batch))
    tables.append(EVENTS, _table(events, tables.events_schema()), QUERY, 0)
    if (there := lake.rows(EVENTS)) != len(events):
        raise StreamError(
            f"a past of {there:,} events was begun and not finished, these days have {len(events):,}: give the same "
            "days as then, or remove the home's raw.order_events"
        )
    session = spark.session()
    frame = session.read.format("delta").load(lake.uri(EVENTS))
    say("computing the activity of each customer at each of their orders")
    made = activity(session, frame, frame.select("customer_id", "known_at").distinct(), None).toArrow()
    batches = {row["known_at"]: row["batch"] for row in books}
    features = tables.stamped(made, [batches[moment] for moment in made["event_time"].to_pylist()])
    tables.append(table, features, QUERY, 0)
    tables.append(BOOKS, _table(books, tables.books_schema()), QUERY, 0)
    return {"events": len(events), "batches": len(books), "rows": len(features)}


def _events(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for offset, order in enumerate(orders):
        at = produce.second_of(order["order_id"], order["order_date"])
        row = {name: order[name] for name in ("order_id", "customer_id", "units", "total_cents")}
        row |= {"event_id": f"order-{order['order_id']}", "event_time": at, "known_at": at + KNOWN_AFTER}
        rows.append({**row, "topic": QUERY, "partition": 0, "offset": offset, "known_date": row["known_at"].date()})
    return rows


def _line(number: int, known_at: datetime, batch: list[dict[str, Any]]) -> dict[str, Any]:
    begin = batch[0]["offset"]
    line = {"batch": f"{QUERY}/{number}", "topic": QUERY, "partition": 0, "known_at": known_at}
    line |= {"from_offset": begin, "until_offset": begin + len(batch), "messages": len(batch), "landed": len(batch)}
    return {**line, "duplicates": 0, "dead_letters": 0, "absent": 0, "known_date": known_at.date()}


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)
