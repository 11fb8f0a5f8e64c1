"""The job that writes `features.customers`: one row per customer and snapshot day, defined in customers.sql.

A run computes its own day, carrying totals on from the base release's newest snapshot, so its cost does not grow
with history. A day that was skipped gets its snapshot by the next run; the first run makes weekly ones. Written
snapshots never change: an order that comes late counts from the next snapshot on. When customers.sql changed, the run
computes all snapshots anew, as a new version of the table (jobs/history.py): a new feature needs a past to be trained
on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.churn.jobs import carried, hindsight, history
from plumbline import clock, observed
from plumbline.errors import GateFailed, PlumblineError
from plumbline.lake import repeatable, spark
from plumbline.lake import tables as lake
from plumbline.pipeline import contract_gate, gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "features.customers"
SQL = Path(__file__).with_suffix(".sql")
ORDERS, CUSTOMERS = "analytics.orders_history", "analytics.customers_history"
READS = {"orders": ORDERS, "customers": CUSTOMERS, "returns": "analytics.returns_history"}
"""The histories that customers.sql reads, by its placeholders."""
NAMES = {**READS, "base": TABLE, "snapshots": "snapshots"}
"""What its placeholders stand for in lineage."""

WINDOW = re.compile(r"\bdate_sub\(\s*(?:\w+\.)?snapshot_date\s*,\s*(\d+)\s*\)", re.IGNORECASE)
MOST_ANEW = 5_000
"""Customers whose totals are computed anew beside the others; of more, everybody's are."""

DAY, WEEK = timedelta(days=1), timedelta(days=7)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
BASE = (
    "customer_id BIGINT, orders_total INT, spend_cents_total BIGINT, units_total INT, "
    "first_order_day INT, last_order_day INT"
)
"""What totals are carried on from."""


class FeatureError(PlumblineError):
    """The feature job cannot compute what it was asked for."""


def snapshot_days(after: date | None, first: date, as_of: date) -> list[date]:
    """The days to compute: each one after the newest snapshot; or, with none, weekly from the first order on, and
    `as_of`."""
    day, step = (after + DAY, DAY) if after else (first, WEEK)
    days = []
    while day < as_of:
        days.append(day)
        day += step
    return [*days, as_of]


def compute(run: StageRun) -> str:
    """Appends the run's snapshots to `features.customers`, or writes all of them anew when their definition changed.

    Raises FeatureError when there are no orders at all, or Feast's view names a column that customers.sql does not
    give; GateFailed when a change that only adds columns moved others, an old snapshot holds what was known only later,
    or the table is not what its contract promises. The code is at fault then: no raw batch is set aside.
    """
    _refuse_unrepeatable(run)
    session = spark.session(writer="features")
    inputs = {name: session.sql(f"SELECT * FROM {lake.at(table, run.pin(table))}") for name, table in READS.items()}
    orders, customers = inputs["orders"], inputs["customers"]
    released = run.base if run.base and TABLE in run.base.tables else None
    definition = run.facts["definition"] = history.definition(SQL.read_text())
    before = history.recorded(released) if released else None
    base_day = released.as_of if released and before == definition else None
    days = snapshot_days(released.as_of, run.as_of, run.as_of) if released else []
    if released and base_day is None:
        say("customers.sql is not what the released snapshots were made with: computing all of them anew")
        days = [*days_of(released.version(TABLE)), *days]
    elif released is None:
        days = snapshot_days(None, _first_day(orders), run.as_of)
    say(f"computing {len(days)} snapshot day{'s' if len(days) > 1 else ''} up to {run.as_of}")
    release_id = (run.candidate.base or 0) + 1
    base, anew = _base(session, run, base_day), []
    if base_day is not None and base is not None:
        anew = anew_since(orders, customers, base, base_day)
        if anew:
            say(f"totals of {len(anew):,} customers are computed anew: orders of theirs were corrected or deleted")
    frame = snapshots(session, inputs, base, base_day, days, release_id, anew)
    writer = frame.write.format("delta").partitionBy("snapshot_date")
    if base_day is None:
        _check_served(frame.columns)
        writer = writer.mode("overwrite").option("overwriteSchema", "true")
    else:
        lake.restore(session, run.released(TABLE))
        writer = writer.mode("append")
    head = lake.version(TABLE)
    writer.save(lake.uri(TABLE))
    version, expected = lake.version(TABLE), 0 if head is None else head + 1
    if version != expected:  # what a killed run left at work on a server can still commit: appended to, rows are twice
        raise FeatureError(
            f"{TABLE} is at version {version} after the write, expected {expected}: something else writes to "
            f"{lake.uri(TABLE)}. Nothing is published; when it is over, run `plumb features --as-of {run.as_of}` again."
        )
    kept = lake.rows(TABLE, released.version(TABLE)) if released and base_day else 0
    run.facts["snapshot_days"] = [day.isoformat() for day in days]
    told = f"{len(days)} snapshot days, {days[0]} to {days[-1]}" if len(days) > 1 else f"the snapshot of {days[0]}"
    compared = ""
    if released and base_day is None:
        compared = _compare(session, run, released.as_of, version, history.only_adds(before, definition))
    if base_day is None:
        _judge_hindsight(session, run, version, inputs, days)
    _judge_carried(session, run, version, inputs, anew, base_day is not None)
    observed.made_by(TABLE, SQL.read_text(), names=NAMES)
    contract_gate.audit(run, TABLE, version)
    run.write(TABLE, version, lake.rows(TABLE, version) - kept)
    return f"{run.rows[TABLE]:,} rows for {told}{compared}"


def snapshots(
    session: SparkSession,
    inputs: Mapping[str, DataFrame],
    base: DataFrame | None,
    base_day: date | None,
    days: list[date],
    release_id: int,
    anew: Sequence[int] = (),
) -> DataFrame:
    """customers.sql over these relations: one row per customer known by then and day, sorted by day and customer.

    `inputs` are the histories of READS. `base` holds the snapshot of `base_day`; None computes from the first order
    on, which gives the same rows. `anew` names customers that are computed so although there is a base.
    """
    base_time = clock.end_of(base_day) if base_day else BEGINNING
    wanted = session.createDataFrame(
        [(day, clock.end_of(day), base_time, clock.now(), release_id) for day in days],
        "snapshot_date DATE, event_time TIMESTAMP, base_time TIMESTAMP, created_at TIMESTAMP, release_id BIGINT",
    )
    if base is None or len(anew) > MOST_ANEW:
        base, base_time = session.createDataFrame([], BASE), BEGINNING
    elif anew:
        base = base.where(~base["customer_id"].isin(list(anew)))
    # What no row of the SQL looks at, told to the scan so that it skips files of old orders.
    sql = SQL.read_text()
    known = f"known_at >= TIMESTAMP '{base_time:%Y-%m-%d %H:%M:%S}'"
    if anew and base_time != BEGINNING:
        known += f" OR customer_id IN ({', '.join(map(str, anew))})"
    window = f"date_sub(DATE '{days[0]}', {longest_window(sql)})"
    read = {
        **inputs,
        "orders": inputs["orders"].where(f"{known} OR order_date > {window}"),
        "returns": inputs["returns"].where(f"{known} OR returned_on > {window}"),
    }
    computed = session.sql(sql, snapshots=wanted, base=base, **read)
    return computed.sort("snapshot_date", "customer_id")


def longest_window(sql: str) -> int:
    """How many days back from a snapshot the definition looks: the longest date_sub() of snapshot_date in its text."""
    return max((int(days) for days in WINDOW.findall(sql)), default=0)


def anew_since(orders: DataFrame, customers: DataFrame, base: DataFrame, base_day: date) -> list[int]:
    """Customers whose totals cannot be carried on from a base, sorted.

    Those who had a version of an order end since, and those who were known before and are not in the base: customers
    that the shop deleted and shows again.
    """
    base_time = clock.end_of(base_day)
    ended = orders.where(orders["known_until"] >= base_time).select("customer_id").distinct()
    before = customers.where(customers["known_at"] < base_time).select("customer_id").distinct()
    lacking = before.join(base, "customer_id", "left_anti")
    return sorted({row.customer_id for row in ended.union(lacking).collect()})


def _base(session: SparkSession, run: StageRun, day: date | None) -> DataFrame | None:
    if day is None:
        return None
    return session.sql(f"SELECT * FROM {lake.at(TABLE, run.pin(TABLE))} WHERE snapshot_date = DATE '{day}'")


def days_of(version: int) -> list[date]:
    """The days that a version has snapshots for, from the log alone."""
    return sorted(
        {date.fromisoformat(str(part["snapshot_date"])) for part in lake.open_table(TABLE, version).partitions()}
    )


def _check_served(columns: list[str]) -> None:
    """Before anything is written: what Feast would ask of the table must be there."""
    from feature_repo import store

    store.settle()
    from feature_repo.churn.definitions import customer_features

    absent = [field.name for field in customer_features.schema if field.name not in {*columns, "customer_id"}]
    if absent:
        raise FeatureError(
            f"feature_repo/churn/definitions.py names {', '.join(absent)}, which {SQL.name} does not give; nothing was "
            "written. A service that a model was trained on keeps its features: they must stay"
        )


def _compare(session: SparkSession, run: StageRun, until: date, version: int, additive: bool) -> str:
    """Holds the new history against the released one; the verdict is a gate of the run."""
    say("comparing the new history with the released one, row by row")
    found = history.compare(session, run.pin(TABLE), version, until)
    if not gates.record(run, history.judge(found, additive), {}).passed:
        raise GateFailed(
            f"{SQL.name} only adds columns ({', '.join(found.new_columns) or 'none'}), but the history that it gives "
            f"is {found.told()}. Nothing is published. A join that repeats or drops rows does this; so does a changed "
            f"analytics.orders under old snapshots. Mend it and run `plumb features --as-of {run.as_of}` again, or "
            "change the old expression itself: what that moves is told, not refused.",
            sets_aside=False,
        )
    told = [f"{what}: {', '.join(n)}" for what, n in (("new", found.new_columns), ("gone", found.lost_columns)) if n]
    return "; ".join(["", found.told(), *told])


def _refuse_unrepeatable(run: StageRun) -> None:
    """The gate `features_knowable`, before anything is computed: a snapshot is made of its inputs alone."""
    sql = SQL.read_text()
    reads = repeatable.depends_on(sql)
    reads += [f"{table}, which no placeholder gives at a version and a day" for table in repeatable.tables(sql)]
    if not reads:
        return
    told = f"{SQL.name} reads {', '.join(reads)}"
    gates.record(run, Verdict(hindsight.GATE, passed=False, expectations=1, failed=(told,)), {})
    raise GateFailed(
        f"{told}: a snapshot would say something else each time it is computed. Nothing was computed or published. Use "
        "the snapshot's own day (snapshot_date, event_time); what depends on the moment of a request is an on-demand "
        f"feature (feature_repo/churn/definitions.py). Then run `plumb features --as-of {run.as_of}` again.",
        sets_aside=False,
    )


def _judge_carried(
    session: SparkSession,
    run: StageRun,
    version: int,
    inputs: Mapping[str, DataFrame],
    anew: list[int],
    has_base: bool,
) -> None:
    """Computes the day again for a sample of customers, in other ways; the verdict is a gate of the run."""
    say("computing the totals of a sample of customers again, from all their orders")

    def from_all(chosen: list[int]) -> DataFrame:
        mine = {name: frame.where(frame["customer_id"].isin(chosen)) for name, frame in inputs.items()}
        return snapshots(session, mine, None, None, [run.as_of], release_id=0)

    written = session.sql(f"SELECT * FROM {lake.at(TABLE, version)} WHERE snapshot_date = DATE '{run.as_of}'")
    verdict = gates.record(run, carried.judge(session, run, written, anew, from_all if has_base else None), {})
    if not verdict.passed:
        raise GateFailed(
            f"{TABLE}@v{version} does not hold what all orders come to:\n  "
            + "\n  ".join(verdict.failed)
            + f"\n  Nothing is published. {SQL.name} reads orders of the last {longest_window(SQL.read_text())} days: "
            "the longest `date_sub(snapshot_date, …)` in it. State a longer window in that form. A total that drifted "
            "is computed anew from the first order on when the definition changes.\n  Evidence: "
            f"{verdict.report}",
            sets_aside=False,
        )


def _judge_hindsight(
    session: SparkSession, run: StageRun, version: int, inputs: Mapping[str, DataFrame], days: list[date]
) -> None:
    """Computes a few old days again without what came later; the verdict is a gate of the run."""
    say("computing old days again without what was known later")

    def compute(cut: Mapping[str, DataFrame], day: list[date]) -> DataFrame:
        return snapshots(session, cut, None, None, day, release_id=0)

    written = session.sql(f"SELECT * FROM {lake.at(TABLE, version)}")
    verdict = gates.record(run, hindsight.judge(session, written, inputs, days, compute), {})
    if not verdict.passed:
        raise GateFailed(
            f"{SQL.name} gives snapshots that know the future, {verdict.failed[0]}. Nothing is published. Cut every "
            f"relation that it joins at the snapshot (`known_at < event_time`) and run `plumb features --as-of "
            f"{run.as_of}` again.\n  Evidence: {verdict.report}",
            sets_aside=False,
        )


def _first_day(orders: DataFrame) -> date:
    from pyspark.sql import functions as F

    found = orders.agg(F.to_date(F.min("known_at"))).first()
    if found is None or found[0] is None:
        raise FeatureError("analytics.orders is empty: there is nothing to compute features from")
    day: date = found[0]
    return day
