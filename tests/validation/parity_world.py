"""A release of made-up snapshots that is online in a real Redis through Feast's own writer, and answers. No Spark."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake

from feature_repo import online_rows
from feature_repo import store as feature_store
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.servers import online_store
from plumbline.settings import settings
from plumbline.state import ledger, releases
from products.churn import CHURN
from serving.churn import log as outcome_log
from validation import parity

N = 60
TTL = timedelta(days=14)
DAYS = {1: date(1998, 6, 29), 2: date(1998, 6, 30)}
EXPIRED, NULLS = 50, 51
"""A customer whose newest row is older than the ttl; one whose row has nulls."""
NOW = datetime(1998, 7, 1, tzinfo=UTC)


def build() -> dict[int, pa.Table]:
    """Two releases, the second online; gives each one's snapshot. What a test before left is gone."""
    for part in ("lake", "releases", "ledger", "evidence"):
        shutil.rmtree(settings().home / part, ignore_errors=True)
    online_store.client().flushall()
    feature_store.apply(CHURN)
    made = {}
    for number, day in DAYS.items():
        made[number] = snapshot(day, number)
        publish(number, made[number])
        put_online(number, made[number])
    return made


def snapshot(day: date, number: int) -> pa.Table:
    """The day's rows of all customers, with floats that rounding would change."""
    from feast.types import from_feast_to_pyarrow_type

    from feature_repo.churn.definitions import customer_features

    random = np.random.default_rng(number)
    customers = [c for c in range(1, N + 1) if c != EXPIRED]
    stamp = pa.timestamp("us", "UTC")
    columns: dict[str, pa.Array] = {
        "customer_id": pa.array(customers, pa.int64()),
        "snapshot_date": pa.array([day] * len(customers), pa.date32()),
        "event_time": pa.array([clock.end_of(day)] * len(customers), stamp),
        "created_at": pa.array([NOW] * len(customers), stamp),
    }
    for field in customer_features.features:
        kind = from_feast_to_pyarrow_type(field.dtype)
        drawn = random.random(len(customers)) * 1e3 if pa.types.is_floating(kind) else random.integers(0, 99, N - 1)
        missing = np.array([c == NULLS and pa.types.is_floating(kind) for c in customers])
        columns[field.name] = pa.array(drawn, mask=missing).cast(kind)
    columns["last_order_day"] = pa.array(random.integers(9_900, 10_400, len(customers)), pa.int32())
    columns["release_id"] = pa.array([number] * len(customers), pa.int64())
    return pa.table(columns)


def publish(number: int, rows: pa.Table) -> None:
    """Appends the rows, once with a row that is long expired, and names the version by a release."""
    if number == 1:
        old = rows.slice(0, 1)
        long_ago = clock.end_of(DAYS[1]) - TTL - timedelta(days=30)
        for name, value in (("customer_id", EXPIRED), ("event_time", long_ago), ("snapshot_date", long_ago.date())):
            old = old.set_column(old.schema.get_field_index(name), name, pa.array([value], old.schema.field(name).type))
        rows = pa.concat_tables([rows, old])
    write_deltalake(lake.uri("features.customers"), rows, mode="append", partition_by=["snapshot_date"])
    version = lake.version("features.customers")
    assert version is not None
    tables = {"features.customers": version}
    base = number - 1 or None
    run = f"churn-{DAYS[number]}"
    releases.publish(releases.Release(number, "churn", DAYS[number], base, tables, {}, "code", "lock", run, "now"))


def put_online(number: int, rows: pa.Table) -> None:
    """What materialization does, without Spark: rows through Feast, the mark, and its events in the ledger."""
    head = {"stage": "materialize", "run_id": f"churn-{DAYS[number]}", "release_id": number}
    ledger.record("churn", {**head, "state": "START"})
    write(rows)
    mark(number)
    ledger.record("churn", {**head, "state": "COMPLETE"})


def mark(number: int) -> None:
    told = {"release_id": number, "event_time": clock.end_of(DAYS[number]).isoformat()}
    online_store.client().hset(CHURN.online_mark, mapping=told)


def write(rows: pa.Table) -> None:
    """Rows into Redis by Feast's own writer."""
    frame: pd.DataFrame = rows.drop_columns(["snapshot_date"]).to_pandas()
    feature_store.open_store(CHURN).write_to_online_store(CHURN.view, frame)


def changed(rows: pa.Table, customer: int, **values: Any) -> pa.Table:
    """The row of one customer with other values."""
    found = rows.filter(pa.compute.field("customer_id") == customer)
    for name, value in values.items():
        kind = found.schema.field(name).type
        found = found.set_column(found.schema.get_field_index(name), name, pa.array([value], kind))
    return found


def check(**asked: Any) -> dict[str, Any]:
    return parity.check(
        CHURN,
        lambda view: online_rows.OnlineRows(CHURN, view),
        lambda rows, times: online_rows.on_demand(CHURN, rows, times),
        parity.Asked(**asked),
    )


def answer(customers: list[int], release_id: int = 2, service: str = "churn_v1", **wrong: Any) -> None:
    """Logs answers as the predictor does: what it reads online now, and what is computed on demand; `wrong` instead."""
    from serving.features import OnlineFeatures

    now = clock.now()
    rows = OnlineFeatures(CHURN, service).read(customers, now)
    outcome_log.append(
        [
            {
                "request_id": f"request of {row.key}",
                "at": now,
                "logged_at": clock.wall(),
                "customer_id": row.key,
                "features": json.dumps({**row.values, **wrong}),
                "event_time": row.event_time,
                "activity_event_time": row.times.get("customer_activity"),
                "features_age_seconds": row.age_seconds,
                "release_id": row.release_id,
                "model_version": "1",
                "track": "stable",
                "score": 0.5,
            }
            for row in rows
        ]
    )
