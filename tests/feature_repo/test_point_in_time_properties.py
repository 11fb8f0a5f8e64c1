"""The historical join as training uses it, on real Feast and Spark, against a loop that anyone can check."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import online_rows
from feature_repo import store as feature_store
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.state import releases
from plumbline.state.releases import Release
from products.churn import CHURN
from training import point_in_time
from training.churn.snapshots import FEATURES, KEY, observations
from training.errors import TrainingError
from validation import point_in_time as gate

T0 = datetime(1998, 3, 1, tzinfo=UTC)
TTL = 14 * 86_400
DAY = 86_400
CUSTOMERS, UNKNOWN = range(1, 5), 99
TABLE = FEATURES

# Where mistakes live: at a snapshot's very second, around the ttl's end, a day off; and anywhere between.
edges = st.sampled_from([0, 1, -1, TTL, TTL - 1, TTL + 1])
gaps = edges | st.integers(-2 * TTL, 2 * TTL)
moments = st.builds(lambda day, gap: day * DAY + gap, st.integers(0, 40), gaps)
snapshot = st.tuples(st.sampled_from(CUSTOMERS), moments, st.integers(0, 3 * DAY), st.none() | st.integers(0, 10**6))
"""(customer, event_time in seconds from T0, how much later it was created, a value or null)"""
snapshots = st.lists(snapshot, min_size=4, max_size=12, unique_by=lambda row: row[:3])
question = st.tuples(st.sampled_from([*CUSTOMERS, UNKNOWN]), moments)

Row = tuple[int, int, int, int | None]


@st.composite
def asked_near(draw: st.DrawFn, unique: bool) -> tuple[list[Row], list[tuple[int, int]]]:
    """Snapshots, some of them corrected later, and observations of which most lie at, or a ttl behind, one of them."""
    drawn: list[Row] = draw(snapshots)
    correction = st.builds(
        lambda row, later, value: (row[0], row[1], row[2] + 1 + later, value),
        st.sampled_from(drawn),
        st.integers(0, 2 * DAY),
        st.integers(0, 10**6),
    )
    corrected: list[Row] = draw(st.lists(correction, max_size=4))
    rows = list({row[:3]: row for row in [*drawn, *corrected]}.values())
    aimed = st.builds(lambda row, gap: (row[0], row[1] + gap), st.sampled_from(rows), edges)
    asked = draw(st.lists(aimed | question, min_size=12, max_size=20, unique=unique))
    return rows, asked


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Row], list[tuple[int, int]]]:
    """Several of these at once, each with customers of its own: one Spark job answers them all."""
    rows: list[Row] = []
    asked: list[tuple[int, int]] = []
    for number, (theirs, questions) in enumerate(draw(st.lists(asked_near(unique=True), min_size=6, max_size=10))):
        rows += [(1000 * number + customer, *rest) for customer, *rest in theirs]
        asked += [(1000 * number + customer, moment) for customer, moment in questions]
    return rows, asked


def by_loop(rows: list[Row], customer: int, moment: int) -> int | None:
    """The value of the newest snapshot that was knowable at `moment` and not older than the ttl; of those that share
    an event_time, the one created last."""
    found: Row | None = None
    for row in rows:
        known = row[0] == customer and row[1] <= moment and moment - row[1] <= TTL
        if known and (found is None or (row[1], row[2]) > (found[1], found[2])):
            found = row
    return found[3] if found else None


def table(rows: list[Row]) -> pa.Table:
    """The rows in the shape of features.customers: `spend_cents_total` holds the value, the others something."""
    at = [T0 + timedelta(seconds=row[1]) for row in rows]
    n = len(rows)
    stamp = pa.timestamp("us", "UTC")
    columns: dict[str, pa.Array] = {
        "customer_id": pa.array([row[0] for row in rows], pa.int64()),
        "snapshot_date": pa.array([(moment - timedelta(days=1)).date() for moment in at], pa.date32()),
        "event_time": pa.array(at, stamp),
        "created_at": pa.array([a + timedelta(seconds=row[2]) for a, row in zip(at, rows, strict=True)], stamp),
        "spend_cents_total": pa.array([row[3] for row in rows], pa.int64()),
        "last_order_day": pa.array([10_000 + row[0] % 1000 for row in rows], pa.int32()),
        "release_id": pa.array(range(n), pa.int64()),
    }
    from feast.types import from_feast_to_pyarrow_type

    from feature_repo.churn.definitions import customer_features

    for field in customer_features.schema:
        kind = from_feast_to_pyarrow_type(field.dtype)
        columns.setdefault(field.name, pa.array(np.arange(n), pa.int64()).cast(kind, safe=False))
    return pa.table(columns)


def joined(rows: list[Row], asked: list[tuple[int, int]], zone: str = "UTC") -> tuple[pd.DataFrame, pd.DataFrame]:
    """(what Feast gave, what was asked) for snapshots written as one more version of the table, at its release."""
    write_deltalake(lake.uri(TABLE), table(rows), mode="overwrite", partition_by=["snapshot_date"])
    version = lake.open_table(TABLE).version()
    number = (releases.numbers("churn") or [0])[-1] + 1
    made = Release(
        number, "churn", date(1998, 6, 30), number - 1 or None, {TABLE: version}, {}, "code", "lock", "test", "now"
    )
    releases.publish(made)
    entity = pd.DataFrame(
        {
            "customer_id": np.array([customer for customer, _ in asked], "int64"),
            "event_timestamp": pd.to_datetime([T0 + timedelta(seconds=moment) for _, moment in asked], utc=True),
        }
    )
    wanted = observations(entity)
    abroad = wanted.assign(event_timestamp=wanted["event_timestamp"].dt.tz_convert(zone))
    entity_df = spark.session().createDataFrame(abroad)
    store = feature_store.at_release(CHURN, made)
    return point_in_time.historical(store, "churn_v1", TABLE, version, entity_df), wanted


def values(frame: pd.DataFrame, name: str = "spend_cents_total") -> list[int | None]:
    return [None if pd.isna(value) else int(value) for value in frame[name]]


few = settings(
    max_examples=4,
    deadline=None,  # one example is a Spark job or two
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
@few
@given(drawn=worlds(), zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]))
def test_each_observation_gets_what_was_knowable_at_its_moment_and_within_the_ttl(drawn: Any, zone: str) -> None:
    rows, asked = drawn
    found, wanted = joined(rows, asked, zone)
    answer = point_in_time.aligned(found, wanted, KEY)
    ordered = sorted(asked, key=lambda pair: (pair[1], pair[0]))
    assert values(answer) == [by_loop(rows, *pair) for pair in ordered]
    recency = [
        None
        if values(answer, "orders_total")[i] is None
        else (int(T0.timestamp()) + moment) // DAY - 10_000 - customer % 1000
        for i, (customer, moment) in enumerate(ordered)
    ]
    assert values(answer, "days_since_last_order") == recency, "request-time input is each row's own"


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
@few
@given(drawn=asked_near(unique=False))
def test_a_question_asked_twice_is_answered_twice_or_refused(drawn: Any) -> None:
    rows, asked = drawn
    found, wanted = joined(rows, asked)
    if len(found) != len(wanted):
        assert len(set(asked)) < len(asked), "only a repeated question may be answered once"
        with pytest.raises(TrainingError, match="rows were dropped or repeated"):
            point_in_time.aligned(found, wanted, KEY)
        return
    answer = point_in_time.aligned(found, wanted, KEY)
    assert values(answer) == [by_loop(rows, *pair) for pair in sorted(asked, key=lambda pair: (pair[1], pair[0]))]


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
@few
@given(drawn=worlds(), later=st.lists(snapshot, min_size=1, max_size=10, unique_by=lambda row: row[:3]))
def test_what_happens_after_an_observation_never_changes_it(drawn: Any, later: list[Row]) -> None:
    rows, asked = drawn
    last = max(moment for _, moment in asked)
    future = [(customer, last + 1 + abs(moment), created, value) for customer, moment, created, value in later]
    future = list({row[:3]: row for row in future}.values())
    without, with_future = joined(rows, asked), joined([*rows, *future], asked)
    assert values(point_in_time.aligned(*without, KEY)) == values(point_in_time.aligned(*with_future, KEY))


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
@few
@given(drawn=worlds())
def test_the_parity_gates_join_gives_what_feasts_gives(drawn: Any) -> None:
    from feature_repo.churn.definitions import customer_features

    rows, asked = drawn
    answer = point_in_time.aligned(*joined(rows, asked), KEY)
    version = lake.version(TABLE)
    assert version is not None
    questions = [
        (int(c), moment.to_pydatetime())
        for c, moment in zip(answer["customer_id"], answer["event_timestamp"], strict=True)
    ]
    names = [field.name for field in customer_features.features]
    found = gate.Offline(TABLE, version, "customer_id", timedelta(seconds=TTL), names).joined(questions)
    given_rows = [row.values if row else dict.fromkeys(names) for row in found]
    computed = online_rows.on_demand(CHURN, given_rows, [int(moment.timestamp()) for _, moment in questions])
    for name in (*names, "days_since_last_order"):
        if name in answer.columns:
            ours = [{**row, **more}[name] for row, more in zip(given_rows, computed, strict=True)]
            assert [gate.missing_as_none(value) for value in ours] == [
                None if pd.isna(value) else value for value in answer[name]
            ], name


@pytest.mark.usefixtures("home")
@settings(parent=few, max_examples=10)
@given(drawn=worlds())
def test_the_parity_gates_join_gives_what_the_loop_gives(drawn: Any) -> None:
    rows, asked = drawn
    write_deltalake(lake.uri(TABLE), table(rows), mode="overwrite", partition_by=["snapshot_date"])
    version = lake.version(TABLE)
    assert version is not None
    questions = [(customer, T0 + timedelta(seconds=moment)) for customer, moment in asked]
    found = gate.Offline(TABLE, version, "customer_id", timedelta(seconds=TTL), ["spend_cents_total"]).joined(questions)
    assert [row.values["spend_cents_total"] if row else None for row in found] == [by_loop(rows, *q) for q in asked]
