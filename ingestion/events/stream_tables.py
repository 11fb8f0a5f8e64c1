"""The tables that the order stream writes, and how: each batch once, by its number, as a transaction of Delta."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from ingestion.events.topics import ORDERS
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa

EVENTS, DEAD, BOOKS = "raw.order_events", "raw.order_dead_letters", "raw.order_batches"
PLACE = ("topic", "partition", "offset")
APPLICATION = "order-stream"
"""Before a query's id, the name by which Delta knows whose transactions these are."""


class StreamError(PlumblineError):
    """The stream cannot go on, or what it wrote does not add up."""


def append(table: str, rows: pa.Table, query: str, number: int) -> None:
    """Appends a batch's rows, once: nothing when its transaction is there. Nothing for no rows."""
    from deltalake import CommitProperties, Transaction, write_deltalake

    if not len(rows) or written(table, query, number):
        return
    write_deltalake(
        lake.uri(table),
        rows,
        mode="append",
        partition_by=["known_date"],
        configuration=dict(lake.KEEP_LOG),
        storage_options=lake.storage_options(),
        commit_properties=CommitProperties(app_transactions=[Transaction(f"{APPLICATION}/{query}", number)]),
    )


def written(table: str, query: str, number: int) -> bool:
    """Whether the batch's transaction is in the table."""
    found = lake.found(table)
    done = None if found is None else found.transaction_version(f"{APPLICATION}/{query}")
    return done is not None and done >= number


def compact(table: str, day: date) -> None:
    """Merges the small files of a day. Rows stay what they are; old versions keep their files."""
    if lake.version(table) is not None:
        lake.opened(table).optimize.compact(partition_filters=[("known_date", "=", day.isoformat())])


def stamped(features: pa.Table, batches: Sequence[str]) -> pa.Table:
    """Rows of features with created_at, the batch of each, and the day of its instant."""
    import pyarrow as pa
    import pyarrow.compute as pc

    now = pa.scalar(clock.now(), pa.timestamp("us", "UTC"))
    columns = {"created_at": pa.repeat(now, len(features)), "batch": pa.array(batches, pa.string())}
    columns["known_date"] = pc.cast(features["event_time"], pa.date32())
    for name, column in columns.items():
        features = features.append_column(name, column)
    return features


def events_schema() -> pa.Schema:
    """Of `raw.order_events`."""
    import pyarrow as pa

    whole, text = pa.int64(), pa.string()
    return pa.schema(
        [
            ("event_id", text),
            ("event_time", pa.timestamp("us", "UTC")),
            *((name, whole) for name in ("order_id", "customer_id", "units", "total_cents")),
            *(("topic", text), ("partition", pa.int32()), ("offset", whole)),
            *_when(),
        ]
    )


def books_schema() -> pa.Schema:
    """Of `raw.order_batches`."""
    import pyarrow as pa

    whole = ("from_offset", "until_offset", "messages", "landed", "duplicates", "dead_letters", "absent")
    return pa.schema(
        [
            ("topic", pa.string()),
            ("partition", pa.int32()),
            *((name, pa.int64()) for name in whole),
            *_when(),
        ]
    )


def _when() -> list[tuple[str, pa.DataType]]:
    """The columns that say when a row became known, and by which batch."""
    import pyarrow as pa

    return [("known_at", pa.timestamp("us", "UTC")), ("batch", pa.string()), ("known_date", pa.date32())]


def positions() -> dict[tuple[str, int], int]:
    """By topic and partition, the offset up to which the books say that all has landed; none without books. A topic
    that was made anew has a name for each time (ingestion/events/offsets.py)."""
    if lake.version(BOOKS) is None:
        return {}
    rows = lake.opened(BOOKS).to_pyarrow_dataset().to_table(columns=["topic", "partition", "until_offset"])
    ends = rows.group_by(["topic", "partition"]).aggregate([("until_offset", "max")]).to_pylist()
    ours = (row for row in ends if row["topic"].partition("#")[0] == ORDERS)
    return {(row["topic"], row["partition"]): row["until_offset_max"] for row in ours}


def newest() -> datetime:
    """The known_at of the newest batch: of events that are in raw, booked or not."""
    import pyarrow.compute as pc

    found = datetime(1970, 1, 1, tzinfo=UTC)
    for table in (EVENTS, DEAD, BOOKS):
        if lake.version(table) is not None and (rows := lake.opened(table).to_pyarrow_dataset()).count_rows():
            last = max(date.fromisoformat(str(part["known_date"])) for part in lake.opened(table).partitions())
            known = rows.to_table(columns=["known_at"], filter=pc.field("known_date") == last)
            found = max(found, pc.max(known["known_at"]).as_py().astimezone(UTC))
    return found


def unfinished(query: str) -> list[tuple[str, int]]:
    """Batches of other queries that are in raw and not in the books: query and number, in their order. A past that was
    begun is for `plumb events backfill` to finish."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = lake.opened(BOOKS).partitions() if lake.version(BOOKS) is not None else []
    since = pc.field("known_date") >= max(
        (date.fromisoformat(str(day["known_date"])) for day in days), default=date.min
    )
    both = [rows(table, ["batch", "known_at"], since) for table in (EVENTS, DEAD)]
    raw = pa.concat_tables(both, promote_options="permissive")
    booked = set(rows(BOOKS, ["batch"], since)["batch"].to_pylist()) if days else set()
    begun = {row["batch"]: row["known_at"] for row in raw.group_by(["batch", "known_at"]).aggregate([]).to_pylist()}
    named = (batch.rsplit("/", 1) for batch in sorted(begun.keys() - booked, key=lambda batch: begun[batch]))
    return [(other, int(number)) for other, number in named if other not in (query, "backfill")]


def rows(table: str, columns: list[str], wanted: Any) -> pa.Table:
    """These columns of a table's rows; no rows of one that is not there."""
    import pyarrow as pa

    if lake.version(table) is None:
        return pa.table({name: pa.nulls(0) for name in columns})
    return lake.opened(table).to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
