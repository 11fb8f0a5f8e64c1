"""One micro-batch of the order stream, landed: every message is an event in raw, a duplicate or a dead letter.

All that a batch writes goes by its number, as an application's transaction of Delta: a batch that is done again after
a kill writes what it had not, and nothing twice. The books (`raw.order_batches`) are written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ingestion.events import order_events, usual_form
from ingestion.events import stream_tables as tables
from ingestion.events.stream_tables import BOOKS, DEAD, EVENTS, PLACE
from ingestion.events.topics import ORDERS
from plumbline import clock
from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

CONTENT = ("event_time", "order_id", "customer_id", "units", "total_cents")
"""What a second event of the same id must say alike."""

COMPACT_EVERY = 200
"""Batches after which a day's small files are merged."""

PARSED = (
    "topic STRING, partition INT, offset BIGINT, appended_at TIMESTAMP, key BINARY, value BINARY, event_id STRING, "
    "event_time TIMESTAMP, order_id BIGINT, customer_id BIGINT, units BIGINT, total_cents BIGINT, reason STRING, "
    "detail STRING"
)
CHANGED = "changed"
"""The reason of a dead letter that is an event, of a known id and with another content."""


Activity = Callable[["SparkSession", "DataFrame", "DataFrame", "datetime | None"], "DataFrame"]


@dataclass
class Counts:
    """What became of the messages of one partition in a batch; offsets from `low` to `high`, both read."""

    low: int
    high: int
    messages: int
    landed: int = 0
    duplicates: int = 0
    dead_letters: int = 0


@dataclass
class Landed:
    """A batch that is in raw. `partitions` by topic and number, `reasons` of its dead letters; of the events that
    landed `event_times`, and `appended` at the broker, as int64 microseconds since 1970."""

    batch: str
    known_at: datetime
    partitions: dict[tuple[str, int], Counts] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    event_times: Any = None
    appended: Any = None

    def count(self, parsed: pa.Table, good: pa.Table, dead: pa.Table) -> None:
        """Counts what a batch's messages came to; what neither landed nor died was known."""
        import pyarrow.compute as pc

        def by_partition(rows: pa.Table) -> dict[tuple[str, int], int]:
            found = rows.group_by(["topic", "partition"]).aggregate([("offset", "count")]).to_pylist()
            return {(row["topic"], row["partition"]): row["offset_count"] for row in found}

        landed, died = by_partition(good), by_partition(dead)
        ends = parsed.group_by(["topic", "partition"]).aggregate(
            [("offset", "min"), ("offset", "max"), ("offset", "count")]
        )
        for row in ends.to_pylist():
            place = (row["topic"], row["partition"])
            one = Counts(row["offset_min"], row["offset_max"], row["offset_count"], landed.get(place, 0))
            one.dead_letters = died.get(place, 0)
            one.duplicates = one.messages - one.landed - one.dead_letters
            self.partitions[place] = one
        self.reasons = {row["values"]: row["counts"] for row in pc.value_counts(dead["reason"]).to_pylist()}

    def total(self, what: str) -> int:
        """The sum of a count over the partitions."""
        return sum(int(getattr(counts, what)) for counts in self.partitions.values())


def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Kafka's rows as PARSED, in another order: the usual ones first, then those that are read one by one. Runs in
    Spark's workers."""
    import pyarrow.compute as pc

    for batch in batches:
        events, usual = usual_form.split(batch)
        if events:
            yield _parsed(batch.filter(usual), events)
        if (rest := batch.filter(pc.invert(usual))).num_rows:
            yield _parsed(rest, _one_by_one(rest))


def _one_by_one(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in (*order_events.FIELDS, "reason", "detail")}
    given = zip(*(batch[name].to_pylist() for name in ("key", "value", "timestamp")), strict=True)
    for key, value, appended in given:
        read = order_events.read(key, value, appended)
        for name, column in columns.items():
            column.append(getattr(read, name, None))  # an event has no reason, a dead letter no fields
    return columns


def _parsed(batch: pa.RecordBatch, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Kafka's columns of some messages beside what was read of them; columns that are not given are null."""
    import pyarrow as pa

    kinds = {"event_id": pa.string(), "event_time": pa.timestamp("us", "UTC")}
    kinds |= {name: pa.int64() for name in CONTENT[1:]} | dict.fromkeys(("reason", "detail"), pa.string())
    kafka = {name: batch[name] for name in (*PLACE, "timestamp", "key", "value")}
    kafka["appended_at"] = kafka.pop("timestamp")
    nulls = [None] * batch.num_rows
    read = {name: pa.array(columns.get(name, nulls), kind) for name, kind in kinds.items()}
    names = [column.split()[0] for column in PARSED.split(", ")]
    return pa.RecordBatch.from_pydict({name: (kafka | read)[name] for name in names})


class Landing:
    """Lands batches of one query, one after the other.

    Spark's workers read the messages; what becomes of each is decided here, over one batch as an Arrow table, and
    written by delta-rs. `activity` makes the rows of features of the customers whom a batch touched: from a session, a
    DataFrame of raw's events, one of (customer_id, known_at), and that one instant; `table` is where they go. `check`
    is called right before each write, and raises when the job must not write any more. `topic` is its name in the
    tables.
    """

    def __init__(
        self, query: str, activity: Activity, table: str, check: Callable[[], None], topic: str = ORDERS
    ) -> None:
        self._query, self._activity, self._table = query, activity, table
        self._check, self._topic = check, topic
        self._last, self._first = tables.newest(), True

    def land(self, messages: DataFrame, number: int) -> tuple[Landed, pa.Table]:
        """Lands a batch; what became of it, and the rows of features that it made. The books are not written yet."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batch = f"{self._query}/{number}"
        landed = Landed(batch, self._known_at(batch))
        wanted = ["topic", "partition", "offset", "key", "value", "timestamp"]
        parsed = messages.select(*wanted).mapInArrow(parse, PARSED).toArrow()
        parsed = parsed.sort_by([("partition", "ascending"), ("offset", "ascending")])
        parsed = parsed.set_column(parsed.column_names.index("topic"), "topic", pa.repeat(self._topic, len(parsed)))
        stamps = {"known_at": pa.scalar(landed.known_at, pa.timestamp("us", "UTC")), "batch": pa.scalar(batch)}
        stamps["known_date"] = pa.scalar(landed.known_at.date())
        for name, value in stamps.items():
            parsed = parsed.append_column(name, pa.repeat(value, len(parsed)))
        fresh, changed, before = self._sorted_out(parsed, batch)
        good, dead = parsed.filter(fresh), self._dead(parsed, changed, before, batch)
        self._append(EVENTS, good.select([*order_events.FIELDS, *PLACE, *stamps]), number)
        self._append(DEAD, dead, number)
        landed.count(parsed, good, dead)
        landed.event_times, landed.appended = (
            pc.cast(good[name], pa.int64()).to_numpy() for name in ("event_time", "appended_at")
        )
        features = self._features(messages.sparkSession, good, landed, number)
        self._last = landed.known_at
        return landed, features

    def finish(self, session: SparkSession, number: int) -> Landed:
        """What is in raw of a batch that is not in the books, with its rows of features written: Spark does not do it
        again, since its checkpoint is gone or was left behind."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batch = f"{self._query}/{number}"
        of_batch = pc.field("batch") == batch
        good = tables.rows(EVENTS, [*PLACE, "known_at", "customer_id"], of_batch)
        dead = tables.rows(DEAD, [*PLACE, "known_at", "reason"], of_batch)
        places = [one.select([*PLACE, "known_at"]) for one in (good, dead) if len(one)]
        read = pa.concat_tables(places)
        landed = Landed(batch, clock.in_utc(read["known_at"][0].as_py()))
        landed.count(read, good, dead)
        self._features(session, good, landed, number)
        return landed

    def _sorted_out(self, parsed: pa.Table, batch: str) -> tuple[pa.Array, pa.Array, dict[str, tuple[Any, ...]]]:
        """Of each message whether it is a new event, and whether it is a known one that says something else; and what
        was said of those that are known."""
        import pyarrow as pa
        import pyarrow.compute as pc

        known = self._known(parsed, batch)
        before: dict[str, tuple[Any, ...]] = dict(known)
        ids = parsed["event_id"].combine_chunks()
        counts = pc.value_counts(ids.drop_null())
        again = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        doubtful = pc.is_in(ids, pa.concat_arrays([again, pa.array(known, pa.string())]), skip_nulls=True)
        fresh, changed = ids.is_valid().to_pylist(), [False] * len(parsed)
        places = pc.indices_nonzero(doubtful).to_pylist()
        columns = [parsed[name].filter(doubtful).to_pylist() for name in ("event_id", *CONTENT)]
        for place, event_id, *content in zip(places, *columns, strict=True):
            said = before.setdefault(event_id, tuple(content))
            fresh[place] = event_id not in known
            known.setdefault(event_id, said)
            changed[place] = said != tuple(content)
        return pa.array(fresh, pa.bool_()), pa.array(changed, pa.bool_()), before

    def _known(self, parsed: pa.Table, batch: str) -> dict[str, tuple[Any, ...]]:
        """What raw has of these events from other batches."""
        import pyarrow.compute as pc

        asked = parsed["event_id"].drop_null().unique()
        if lake.version(EVENTS) is None or not len(asked):
            return {}
        ends = pc.min_max(asked)
        event_id = pc.field("event_id")
        between = (event_id >= ends["min"]) & (event_id <= ends["max"]) & (pc.field("batch") != batch)
        rows = lake.opened(EVENTS).to_pyarrow_dataset()
        found = rows.to_table(columns=["event_id", *CONTENT], filter=between & event_id.isin(asked))
        return {row["event_id"]: tuple(row[name] for name in CONTENT) for row in found.to_pylist()}

    def _dead(self, parsed: pa.Table, changed: pa.Array, before: dict[str, tuple[Any, ...]], batch: str) -> pa.Table:
        """The dead letters of a batch that the table does not have: those that are no events, and those that say
        another thing than a known event of their id."""
        import pyarrow as pa
        import pyarrow.compute as pc

        bad = parsed.filter(pc.or_(parsed["reason"].is_valid(), changed))
        rows = bad.select([*PLACE, "key", "value", "appended_at", "event_id", *CONTENT, "reason", "detail"]).to_pylist()
        for row in rows:
            if row["reason"] is None:
                now = tuple(row[name] for name in CONTENT)
                pairs = zip(CONTENT, before[row["event_id"]], now, strict=True)
                told = "; ".join(f"{name} was {was}, is {now}" for name, was, now in pairs if was != now)
                row["reason"], row["detail"] = CHANGED, f"event {row['event_id']}: {told}"
        for name in ("reason", "detail"):
            column = pa.array([row[name] for row in rows], pa.string())
            bad = bad.set_column(bad.column_names.index(name), name, column)
        bad = bad.select([*PLACE, "key", "value", "appended_at", "reason", "detail", "known_at", "batch", "known_date"])
        if lake.version(DEAD) is None or not len(bad):
            return bad
        begin, batches = pc.min_max(bad["offset"])["min"], pc.field("batch") != batch
        table = lake.opened(DEAD).to_pyarrow_dataset()
        there = table.to_table(columns=list(PLACE), filter=batches & (pc.field("offset") >= begin))
        places = {tuple(row.values()) for row in there.to_pylist()}
        new = [tuple(row[name] for name in PLACE) not in places for row in rows]
        return bad.filter(pa.array(new, pa.bool_()))

    def book(self, landed: Landed, positions: dict[tuple[str, int], int], number: int) -> None:
        """Writes a batch's line of the books for each partition; `positions` are where each ended before, and move."""
        import pyarrow as pa

        lines = []
        for (topic, partition), counts in landed.partitions.items():
            begin, until = positions.get((topic, partition), counts.low), counts.high + 1
            begin = min(begin, counts.low)  # lower in a batch that is read again
            line = {"batch": landed.batch, "topic": topic, "partition": partition, "known_at": landed.known_at}
            line |= {"from_offset": begin, "until_offset": until, "absent": until - begin - counts.messages}
            line |= {name: getattr(counts, name) for name in ("messages", "landed", "duplicates", "dead_letters")}
            lines.append({**line, "known_date": landed.known_at.date()})
            positions[topic, partition] = max(until, positions.get((topic, partition), 0))
        self._append(BOOKS, pa.Table.from_pylist(lines, schema=tables.books_schema()), number)
        if number % COMPACT_EVERY == COMPACT_EVERY - 1:
            for table in (EVENTS, DEAD, BOOKS, self._table):
                tables.compact(table, landed.known_at.date())

    def book_lost(self, lost: Mapping[tuple[str, int], tuple[int, int]], positions: dict[tuple[str, int], int]) -> None:
        """Writes down offsets whose messages the broker deleted before they landed, as absent."""
        import pyarrow as pa

        if not lost:
            return
        known_at, lines = self._known_at(""), []
        for (topic, partition), (begin, until) in lost.items():
            line = {"batch": f"{self._query}/lost", "topic": topic, "partition": partition, "known_at": known_at}
            line |= {"from_offset": begin, "until_offset": until, "absent": until - begin}
            line |= dict.fromkeys(("messages", "landed", "duplicates", "dead_letters"), 0)
            lines.append({**line, "known_date": known_at.date()})
            positions[topic, partition] = until
        self._append(BOOKS, pa.Table.from_pylist(lines, schema=tables.books_schema()), -1)
        self._last = known_at

    def _features(self, session: SparkSession, good: pa.Table, landed: Landed, number: int) -> pa.Table:
        """The rows of features of the customers whom the batch touched, written; those that are there already as they
        are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if tables.written(self._table, self._query, number):
            found = lake.opened(self._table).to_pyarrow_dataset()
            return found.to_table(filter=pc.field("batch") == landed.batch)
        if not len(good):
            return pa.table({})
        asked = good.group_by(["customer_id", "known_at"]).aggregate([])
        events = session.read.format("delta").load(lake.uri(EVENTS))
        rows = self._activity(session, events, session.createDataFrame(asked), landed.known_at).toArrow()
        rows = tables.stamped(rows, [landed.batch] * len(rows))
        self._append(self._table, rows, number)
        return rows

    def _append(self, table: str, rows: pa.Table, number: int) -> None:
        self._check()
        tables.append(table, rows, self._query, number)

    def _known_at(self, batch: str) -> datetime:
        """The whole second at which the batch counts as known: later than any before it. A batch that has landed
        already keeps its own."""
        import pyarrow.compute as pc

        begun = self._first and bool(batch)  # only the first can have been begun before
        self._first = self._first and not batch
        for table in (EVENTS, DEAD):
            if begun and lake.version(table) is not None:
                rows = lake.opened(table).to_pyarrow_dataset()
                newest = pc.field("known_date") >= self._last.date()
                found = rows.to_table(columns=["known_at"], filter=newest & (pc.field("batch") == batch))
                if len(found):
                    return found["known_at"][0].as_py().astimezone(UTC)  # type: ignore[no-any-return]
        return max(_whole_second(clock.now()), self._last + timedelta(seconds=1))


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)
