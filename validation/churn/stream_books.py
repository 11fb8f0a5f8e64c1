"""The gate `events_complete`: each message that the stream read is an event, a duplicate or a dead letter, once.

The stream keeps books (`raw.order_batches`): which offsets a batch read and what became of their messages. The gate
holds the books against themselves, and against the rows of `raw.order_events` and `raw.order_dead_letters`, which it
counts anew. Books are written behind all else of a batch, so what they name is whole, also while the stream goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.state import erasures
from plumbline.verdict import Verdict

GATE = "events_complete"
BOOKS, EVENTS, DEAD_LETTERS = "raw.order_batches", "raw.order_events", "raw.order_dead_letters"
PLACE = ["topic", "partition"]
COUNTED = ("messages", "landed", "duplicates", "dead_letters", "absent")
SHOWN = 10
"""Findings that a message tells; the evidence has KEPT."""

KEPT = 1_000


@dataclass(frozen=True)
class Window:
    """The batches that a run judges: those that count from `since` on (None: from the first) and before `until`."""

    since: datetime | None
    until: datetime

    def rows(self, table: str, version: int | None, columns: list[str]) -> Any:
        """These columns of a table's rows in the window; no rows of a table that is not there."""
        import pandas as pd
        import pyarrow.compute as pc

        if version is None:
            return pd.DataFrame({name: pd.Series(dtype="object") for name in columns})
        date, moment = pc.field("known_date"), pc.field("known_at")
        kept = (date <= self.until.date()) & (moment < self.until)
        if self.since is not None:
            kept = (date >= self.since.date()) & (moment >= self.since) & kept
        dataset = lake.open_table(table, version).to_pyarrow_dataset()
        return dataset.to_table(columns=columns, filter=kept).to_pandas()


def take(run: StageRun, activity: str) -> Window | None:
    """Pins the stream's tables as they are now, and gives the batches to judge; None when the books have none.

    The books are pinned first: the other tables then hold at least what they name.
    """
    for table in (BOOKS, EVENTS, DEAD_LETTERS, activity):
        if (version := lake.version(table)) is not None:
            run.take(table, version)
    if BOOKS not in run.named:
        return None
    newest = _newest(BOOKS, run.pin(BOOKS))
    closed = run.base is not None and BOOKS in run.base.tables
    since = clock.end_of(run.base.as_of) if closed and run.base else None
    if newest is None:
        return None
    return Window(since, min(clock.end_of(run.as_of), newest + timedelta(seconds=1)))


def check(run: StageRun, window: Window) -> Verdict:
    """Judges the window's batches; the verdict's `until` says how far each partition has landed.

    Raises GateFailed that names each batch, partition and offset that does not add up. Nothing is set aside: what the
    stream wrote is no batch of the daily run.
    """
    books = window.rows(BOOKS, run.pin(BOOKS), ["batch", *PLACE, "from_offset", "until_offset", *COUNTED, "known_at"])
    at = [*PLACE, "offset", "batch", "known_at"]
    events = window.rows(EVENTS, run.named.get(EVENTS), ["event_id", *at])
    dead = window.rows(DEAD_LETTERS, run.named.get(DEAD_LETTERS), at)
    before = _before(run)
    found = [
        *_ranges(books, before),
        *_instants(books),
        *_counted(books, events, dead),
        *_once(events, dead),
        *_known_before(events, run.named.get(EVENTS), window),
    ]
    until = dict(before)
    for (topic, partition), end in books.groupby(PLACE)["until_offset"].max().items():
        until[f"{topic}/{partition}"] = max(int(end), before.get(f"{topic}/{partition}", 0))
    counts = {name: int(books[name].sum()) for name in COUNTED}
    verdict = Verdict(
        GATE,
        not found,
        len(books),
        tuple(_some(found)),
        extra={"batches": int(books["batch"].nunique()), **counts, "until": until},
    )
    evidence = {"versions": dict(run.named), "window": _told(window), "findings": found[:KEPT], "found": len(found)}
    reported = gates.record(run, verdict, evidence)
    if found:
        raise GateFailed(
            f"{GATE}: what the stream read is not what landed, nothing is published:\n  "
            + "\n  ".join(_some(found))
            + f"\n  Evidence: {reported.report}. What retention left is in the topic still: docs/events.md says how to "
            f"read it again. Then run `plumb {run.name} --as-of {run.as_of}` again.",
            sets_aside=False,
        )
    say(f"{counts['messages']:,} messages of {verdict.extra['batches']:,} batches are accounted for")
    for row in books[books["batch"].str.endswith("/lost")].to_dict("records"):
        say("{topic} partition {partition}: {absent:,} messages from offset {from_offset:,} on are lost".format(**row))
    return reported


def _ranges(books: Any, before: Mapping[str, int]) -> Iterator[str]:
    """Offsets that no batch read, and lines that do not add up. A range below the newest end was read again."""
    for (topic, partition), rows in books.groupby(PLACE, sort=True):
        end = before.get(f"{topic}/{partition}")
        for row in rows.sort_values("known_at").itertuples():
            name = f"{row.batch}: {topic} partition {partition}"
            if end is not None and row.from_offset > end:
                yield (
                    f"{name}: begins at offset {row.from_offset:,}, the batches before it end at {end:,}: "
                    f"{row.from_offset - end:,} offsets were read by none"
                )
            end = max(end or 0, int(row.until_offset))
            if row.messages != row.landed + row.duplicates + row.dead_letters:
                yield (
                    f"{name}: {row.messages:,} messages, and {row.landed:,} landed + {row.duplicates:,} duplicates + "
                    f"{row.dead_letters:,} dead letters"
                )
            if row.until_offset - row.from_offset != row.messages + row.absent:
                yield (
                    f"{name}: offsets {row.from_offset:,} to {row.until_offset:,} are "
                    f"{row.until_offset - row.from_offset:,}, and {row.messages:,} messages + {row.absent:,} absent"
                )


def _instants(books: Any) -> Iterator[str]:
    """Batches that share an instant or have two, or whose order by number is not that of their instants."""
    lines = books[books.duplicated(["batch", *PLACE], keep=False)]
    for batch in sorted(set(lines["batch"])):
        yield f"{batch}: stands in the books twice for one partition"
    moments = books[["batch", "known_at"]].drop_duplicates()
    for batch in sorted(set(moments.loc[moments.duplicated("batch", keep=False), "batch"])):
        yield f"{batch}: its lines have several known_at"
    for known_at, rows in moments[moments.duplicated("known_at", keep=False)].groupby("known_at"):
        yield f"{', '.join(sorted(rows['batch']))}: all have the known_at {known_at}"
    numbered = moments[moments["batch"].str.fullmatch(r".*/\d+")]  # but for lines of what the broker had deleted
    if not len(numbered):
        return
    split = numbered["batch"].str.rsplit("/", n=1, expand=True)
    for query, rows in numbered.assign(number=split[1].astype("int64")).groupby(split[0]):
        ordered = rows.sort_values("number")
        for batch in ordered.loc[ordered["known_at"].diff() <= timedelta(0), "batch"]:
            yield f"{batch}: its known_at is not behind that of the batch before it, of query {query}"


def _counted(books: Any, events: Any, dead: Any) -> Iterator[str]:
    """The rows of both tables, counted by batch and partition, against the books."""
    import pandas as pd

    key = ["batch", *PLACE, "known_at"]
    booked = books.groupby(key)[["landed", "dead_letters"]].sum()
    for rows, column, table in ((events, "landed", EVENTS), (dead, "dead_letters", DEAD_LETTERS)):
        counted = rows.groupby(key).size() if len(rows) else pd.Series(dtype="int64", index=booked.index[:0])
        both = pd.concat([booked[column], counted.rename("rows")], axis=1).fillna(0).astype("int64")
        erased_until = _erased_until(table)
        for (batch, topic, partition, known_at), says, there in both.itertuples(name=None):
            if says == there or (there < says and erased_until is not None and known_at <= erased_until):
                continue
            yield f"{batch}: {topic} partition {partition}: {table} has {there:,} rows, the books say {says:,} {column}"
    spans = books[["batch", *PLACE, "from_offset", "until_offset"]].drop_duplicates(["batch", *PLACE])
    for rows, table in ((events, EVENTS), (dead, DEAD_LETTERS)):
        if len(rows):
            placed = rows.merge(spans, on=["batch", *PLACE])
            out = placed[(placed["offset"] < placed["from_offset"]) | (placed["offset"] >= placed["until_offset"])]
            for row in out.itertuples():
                yield (
                    f"{row.batch}: {row.topic} partition {row.partition}: {table} has offset {row.offset:,}, the batch "
                    f"read {row.from_offset:,} to {row.until_offset:,}"
                )


def _once(events: Any, dead: Any) -> Iterator[str]:
    """Event ids and offsets that stand there more than once."""
    import pandas as pd

    for event, rows in events[events.duplicated("event_id", keep=False)].groupby("event_id"):
        places = ", ".join(f"{row.topic} {row.partition} offset {row.offset:,}" for row in rows.head(5).itertuples())
        yield f"event {event} landed {len(rows)} times: {places}"
    both = pd.concat([one[[*PLACE, "offset"]] for one in (events, dead) if len(one)] or [events[[*PLACE, "offset"]]])
    for (topic, partition, offset), rows in both[both.duplicated(keep=False)].groupby([*PLACE, "offset"]):
        yield f"{topic} partition {partition} offset {offset:,} is in raw {len(rows)} times"


def _known_before(events: Any, version: int | None, window: Window) -> Iterator[str]:
    """Events that landed in the window and had landed before it."""
    import pandas as pd
    import pyarrow.compute as pc

    if window.since is None or version is None or not len(events):
        return
    ids = pd.Index(events["event_id"].unique())
    dataset = lake.open_table(EVENTS, version).to_pyarrow_dataset()
    earlier = (pc.field("known_date") <= window.since.date()) & (pc.field("known_at") < window.since)
    within = (pc.field("event_id") >= ids.min()) & (pc.field("event_id") <= ids.max())
    for batch in dataset.to_batches(columns=["event_id"], filter=earlier & within):
        names = batch["event_id"].to_pandas()
        for event in names[ids.get_indexer(names) >= 0]:
            yield f"event {event} landed again: it had landed before {window.since:%Y-%m-%d %H:%M:%S} UTC"


def _before(run: StageRun) -> dict[str, int]:
    """By topic/partition, up to where the base release's run saw everything land."""
    gate = run.base.gates.get(GATE) if run.base is not None else None
    return {str(place): int(end) for place, end in (gate.extra.get("until", {}) if gate else {}).items()}


def _erased_until(table: str) -> datetime | None:
    """Batches up to this instant may hold fewer rows than the books say, since a customer was erased behind them."""
    gone = erasures.unreadable(table)
    return _newest(table, max(gone) + 1) if gone else None


def _newest(table: str, version: int) -> datetime | None:
    import pyarrow.compute as pc

    opened = lake.open_table(table, version)
    dates = [str(part["known_date"]) for part in opened.partitions()]
    if not dates:
        return None
    last = datetime.fromisoformat(max(dates)).date()
    rows = opened.to_pyarrow_dataset().to_table(columns=["known_at"], filter=pc.field("known_date") == last)
    newest = pc.max(rows["known_at"]).as_py()
    return None if newest is None else newest.astimezone(UTC)


def _some(found: list[str]) -> list[str]:
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"and {len(found) - SHOWN:,} more, in the evidence"]


def _told(window: Window) -> dict[str, Any]:
    return {"since": window.since and window.since.isoformat(), "until": window.until.isoformat()}
