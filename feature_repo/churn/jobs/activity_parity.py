"""The gate `activity_parity`: what the stream wrote is what the batch recomputes, for every customer and instant.

The recomputation is activity.sql again, over `raw.order_events` as the run pinned it. It finds a row that lacks, that
is too many, or that was made of other events than were known at its instant. The same SQL would repeat its own mistake,
so at some instants of the day a sample of customers is counted once more in plain Python, from what delta-rs reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from feature_repo.churn.jobs import activity
from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GATE = "activity_parity"
INSTANTS, SAMPLE = 4, 100
"""Instants of a day, and customers at each, that plain Python counts again; another day draws others."""

SHOWN, KEPT = 10, 1_000
"""Differences that a message tells, and that the evidence has."""

LENGTHS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}
DIFFERENCES = f"""
WITH wrote AS (
  SELECT *, true AS written, count(*) OVER (PARTITION BY customer_id, event_time) AS times FROM {{stream}}
), made AS (SELECT *, true AS computed FROM {{batch}})
SELECT coalesce(wrote.customer_id, made.customer_id) AS customer_id,
  coalesce(wrote.event_time, made.event_time) AS event_time,
  CASE WHEN written IS NULL THEN 'lacks' WHEN computed IS NULL THEN 'is too many' WHEN times > 1 THEN 'is there twice'
    ELSE 'differs' END AS kind,
  struct({", ".join(f"wrote.{name}" for name in activity.FEATURES)}) AS stream,
  struct({", ".join(f"made.{name}" for name in activity.FEATURES)}) AS batch
FROM wrote FULL OUTER JOIN made
  ON wrote.customer_id = made.customer_id AND wrote.event_time = made.event_time
WHERE written IS NULL OR computed IS NULL OR times > 1
  OR {" OR ".join(f"NOT (wrote.{name} <=> made.{name})" for name in activity.FEATURES)}
"""


def check(run: StageRun, since: datetime | None, until: datetime) -> Verdict:
    """Judges the rows of instants from `since` on (None: from the first) and before `until`.

    Raises GateFailed that names customer, instant, column and both values. Nothing is set aside: the stream's rows are
    at fault, or the definition, and no batch of the daily run.
    """
    if activity.EVENTS not in run.named:
        return gates.record(run, Verdict(GATE, True, 0), None)
    session = spark.session()
    compared, counts, found = _compare(session, run, since, until)
    plain, checked = _in_plain_python(run, since, until)
    found += plain
    if plain:
        counts["differs in plain Python"] = len(plain)
    verdict = Verdict(
        GATE,
        not counts,
        compared + checked,
        tuple(_some(found, sum(counts.values()))),
        extra={"rows": compared, "in_plain_python": checked, "differences": counts},
    )
    evidence = {
        "versions": dict(run.named),
        "window": {"since": since and since.isoformat(), "until": until.isoformat()},
        "found": found[:KEPT],
    }
    reported = gates.record(run, verdict, evidence)
    if counts:
        raise GateFailed(
            f"{GATE}: {activity.TABLE} is not what its events come to, nothing is published:\n  "
            + "\n  ".join(verdict.failed)
            + f"\n  Evidence: {reported.report}. Either activity.sql changed since the stream wrote the rows, or the "
            f"table was changed by another hand: docs/events.md says how to mend it. Then run `plumb {run.name} "
            f"--as-of {run.as_of}` again.",
            sets_aside=False,
        )
    say(f"{compared:,} rows of {activity.TABLE} are what the batch recomputes, {checked:,} of them by plain Python too")
    return reported


def _compare(
    session: SparkSession, run: StageRun, since: datetime | None, until: datetime
) -> tuple[int, dict[str, int], list[str]]:
    """How many rows the batch makes, how many differ in which way, and the first of these in words."""
    events = session.sql(f"SELECT * FROM {lake.at(activity.EVENTS, run.pin(activity.EVENTS))}")
    asked = events.where(_within("known_at", since, until)).select("customer_id", "known_at").distinct()
    batch = activity.rows(session, events, asked)
    columns = ", ".join(("customer_id", "event_time", *activity.FEATURES))
    if activity.TABLE in run.named:
        table = lake.at(activity.TABLE, run.pin(activity.TABLE))
        stream = session.sql(f"SELECT {columns} FROM {table} WHERE {_within('event_time', since, until)}")
    else:
        stream = batch.where("false")
    different: DataFrame = session.sql(DIFFERENCES, stream=stream, batch=batch)
    counts = {row["kind"]: int(row["count"]) for row in different.groupBy("kind").count().collect()}
    rows = different.orderBy("event_time", "customer_id").limit(KEPT).collect() if counts else []
    return asked.count(), dict(sorted(counts.items())), [phrase for row in rows for phrase in _phrases(row)]


def _phrases(row: Any) -> Iterator[str]:
    at = f"customer {row.customer_id} at {clock.in_utc(row.event_time):%Y-%m-%d %H:%M:%S}"
    if row.kind != "differs":
        yield f"{at}: the row {row.kind}" + ("" if row.kind != "lacks" else ", and an event of theirs landed then")
        return
    for name in activity.FEATURES:
        if row.stream[name] != row.batch[name]:
            yield f"{at}: {name} is {row.stream[name]} by the stream, {row.batch[name]} by the batch"


def _in_plain_python(run: StageRun, since: datetime | None, until: datetime) -> tuple[list[str], int]:
    """At INSTANTS of the window, the newest row of SAMPLE customers against a count of their events: what differs, and
    how many rows were looked at."""
    import pyarrow.compute as pc

    if activity.TABLE not in run.named:
        return [], 0
    events = lake.open_table(activity.EVENTS, run.pin(activity.EVENTS)).to_pyarrow_dataset()
    table = lake.open_table(activity.TABLE, run.pin(activity.TABLE)).to_pyarrow_dataset()
    known = _filter("known_at", since, until)
    pairs = events.to_table(columns=["customer_id", "known_at"], filter=known)
    moments = sorted(clock.in_utc(moment) for moment in pairs["known_at"].unique().to_pylist())
    instants = sorted({moments[(n + 1) * len(moments) // INSTANTS - 1] for n in range(INSTANTS) if moments})
    customers = _sample(pairs["customer_id"].unique().to_pylist(), run.as_of)
    if not instants:
        return [], 0
    first = instants[0] - 2 * activity.WINDOW - activity.AHEAD
    theirs = pc.field("customer_id").isin(customers) & (pc.field("known_date") >= first.date())
    facts = events.to_table(columns=list(activity.READ), filter=theirs).to_pylist()
    rows = table.to_table(columns=["customer_id", "event_time", *activity.FEATURES], filter=theirs).to_pylist()
    events_of, rows_of = _by_customer(facts), _by_customer(rows)
    found, checked = [], 0
    for instant in instants:
        for customer in customers:
            known_then = [e for e in events_of.get(customer, []) if e["known_at"] <= instant]
            earlier = [row for row in rows_of.get(customer, []) if row["event_time"] <= instant]
            newest = max((event["known_at"] for event in known_then), default=None)
            row = max(earlier, key=lambda one: one["event_time"], default=None)
            if newest is None or newest <= instant - activity.WINDOW:
                continue
            checked += 1
            at = f"customer {customer} as of {instant:%Y-%m-%d %H:%M:%S}"
            if row is None or row["event_time"] != newest:
                has = "none" if row is None else f"of {clock.in_utc(row['event_time']):%Y-%m-%d %H:%M:%S}"
                found.append(f"{at}: the newest row is {has}, and an event landed at {newest:%Y-%m-%d %H:%M:%S}")
                continue
            found += [
                f"{at}: {name} is {row[name]} by the stream, {value} by plain Python"
                for name, value in _counted(known_then, newest).items()
                if row[name] != value
            ]
    return found, checked


def _counted(events: list[dict[str, Any]], at: datetime) -> dict[str, int | None]:
    """The features of one customer at an instant, from their events."""
    made: dict[str, int | None] = {}
    for name, length in LENGTHS.items():
        within = [event for event in events if event["event_time"] > at - length]
        made[f"orders_{name}"] = len(within)
        made[f"spend_cents_{name}"] = sum(event["total_cents"] for event in within)
    newest = max((event["event_time"] for event in events if event["event_time"] > at - activity.WINDOW), default=None)
    made["last_order_second"] = None if newest is None else int(newest.timestamp() // 1)
    return made


def _by_customer(rows: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["customer_id"], []).append(row)
    return found


def _sample(customers: list[int], day: date) -> list[int]:
    """SAMPLE customers: others each day, the same when it is run again."""
    return sorted(customers, key=lambda one: hashlib.sha256(f"{one} {day}".encode()).digest())[:SAMPLE]


def _within(column: str, since: datetime | None, until: datetime) -> str:
    condition = f"known_date <= DATE '{until:%Y-%m-%d}' AND {column} < TIMESTAMP '{until:%Y-%m-%d %H:%M:%S}'"
    if since is not None:
        condition += f" AND known_date >= DATE '{since:%Y-%m-%d}' AND {column} >= TIMESTAMP '{since:%Y-%m-%d %H:%M:%S}'"
    return condition


def _filter(column: str, since: datetime | None, until: datetime) -> Any:
    import pyarrow.compute as pc

    date_, moment = pc.field("known_date"), pc.field(column)
    kept = (date_ <= until.date()) & (moment < until)
    return kept if since is None else kept & (date_ >= since.date()) & (moment >= since)


def _some(found: list[str], count: int) -> list[str]:
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"and more of {count:,} rows, in the evidence"]
