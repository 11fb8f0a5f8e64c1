"""Feast over real Spark and real Redis: what is online is what the release holds."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_repo import feast_internals
from feature_repo import materialize as module
from feature_repo import store as feature_store
from feature_repo.materialize import MaterializeError, materialize
from plumbline import clock
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.servers import online_store
from plumbline.state.releases import Release, publish
from products.churn import CHURN

TABLE = "features.customers"
N = 200
LAST = date(1998, 6, 30)


def write_snapshot(day: date, number: int, without: str = "") -> pd.DataFrame:
    """A made-up snapshot of N customers, some values missing, appended to features.customers by real Spark."""
    random = np.random.default_rng(number)
    has_recent = random.random(N) < 0.5
    ints: dict[str, Any] = {
        name: random.integers(0, 50, N).astype("int32")
        for name in ("tenure_months", "orders_7d", "orders_30d", "orders_90d", "orders_total", "units_total")
    }
    longs = {f"spend_cents_{name}": random.integers(0, 10**9, N) for name in ("7d", "30d", "90d", "total")}
    longs["returned_cents_90d"] = random.integers(0, 10**6, N)
    frame = pd.DataFrame(
        {
            "customer_id": np.arange(1, N + 1),
            "snapshot_date": day,
            "event_time": clock.end_of(day),
            "created_at": clock.now(),
            "release_id": number,
            **ints,
            **longs,
            "avg_ticket": (random.random(N) * 1e4).astype("float32"),
            "avg_ticket_30d": np.where(has_recent, random.random(N) * 1e4, np.nan).astype("float32"),
            "days_between_orders": np.where(has_recent, random.random(N) * 90, np.nan).astype("float32"),
            "first_order_day": np.int32(9862),
            "last_order_day": random.integers(9862, 10407, N).astype("int32"),
        }
    )
    session = spark.session()
    made = session.createDataFrame(frame).selectExpr(
        *[
            c if c not in ("avg_ticket_30d", "days_between_orders") else f"nullif({c}, float('nan')) AS {c}"
            for c in frame
        ]
    )
    made.drop(without).write.format("delta").mode("append").option("mergeSchema", "true").save(lake.uri(TABLE))
    return frame


def release(day: date, number: int) -> Release:
    made = Release(
        number, "churn", day, number - 1 or None, {TABLE: lake.version(TABLE) or 0}, {}, "code", "lock", "test", "now"
    )
    publish(made)
    return made


def online(customers: list[int], asked: int) -> pd.DataFrame:
    store = feature_store.open_store(CHURN)
    rows = [{"customer_id": customer, "request_time": asked} for customer in customers]
    return store.get_online_features(store.get_feature_service(feature_store.service_name(CHURN)), rows).to_df()


@pytest.fixture
def two_releases(with_spark: str, home: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    first = write_snapshot(LAST - timedelta(days=1), 1)
    release(LAST - timedelta(days=1), 1)
    second = write_snapshot(LAST, 2)
    release(LAST, 2)
    return first, second


def test_online_equals_offline_for_every_customer_and_reads_stay_at_their_release(
    two_releases: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    from plumbline.state import releases

    asked = int(clock.now().timestamp())
    for number, snapshot in enumerate(two_releases, start=1):
        told = materialize(CHURN, number)
        assert (told["state"], told["online_rows"], told["rows"]) == ("done", N, {"online.customer_features": N})
        found = online(list(range(1, N + 1)), asked).set_index("customer_id")
        for name in snapshot.columns.intersection(found.columns):
            expected = snapshot.set_index("customer_id")[name]
            pd.testing.assert_series_equal(
                found[name].astype("float64"), expected.astype("float64"), check_names=False, check_exact=True
            )
        recency = asked // 86_400 - snapshot.set_index("customer_id")["last_order_day"]
        assert (found["days_since_last_order"] == recency).all()

        store = feature_store.at_release(CHURN, releases.read("churn", number))
        entities = pd.DataFrame(
            {
                "customer_id": np.arange(1, N + 1),
                "event_timestamp": pd.Timestamp(clock.end_of(releases.read("churn", number).as_of)),
                "request_time": asked,
            }
        )
        offline = store.get_historical_features(entities, store.get_feature_service("churn_v1")).to_df()
        assert len(offline) == N, "rows out are rows in"
        offline = offline.set_index("customer_id").sort_index()
        for name in found.columns:
            pd.testing.assert_series_equal(
                offline[name].astype("float64"), found[name].astype("float64"), check_names=False, check_exact=True
            )
    assert materialize(CHURN, 2)["state"] == "unchanged"


@pytest.mark.usefixtures("with_spark")
def test_going_back_behind_a_new_feature_leaves_no_newer_value_online(home: Path) -> None:
    write_snapshot(LAST - timedelta(days=1), 1, without="units_total")
    older = release(LAST - timedelta(days=1), 1)
    newer = write_snapshot(LAST, 2)
    release(LAST, 2)
    materialize(CHURN, 2)
    assert online([1, 2], 0)["units_total"].tolist() == newer["units_total"].tolist()[:2]
    materialize(CHURN, 1)
    found = online([1, 2], 0)
    assert found["units_total"].isna().all(), "the older release does not have it"
    assert found["orders_total"].notna().all()
    store = feature_store.at_release(CHURN, older)
    stored = lake.open_table(TABLE, older.version(TABLE)).to_pandas()
    from training.churn.snapshots import require_stored
    from training.errors import TrainingError

    with pytest.raises(TrainingError, match=r"churn_v1 names units_total, which features.customers@v0 does not have"):
        require_stored(store, "churn_v1", stored, older.version(TABLE))


def test_an_older_release_can_be_brought_back_online(two_releases: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    first, _ = two_releases
    materialize(CHURN, 2)
    materialize(CHURN, 1)
    found = online([1, 2, 3], 0).set_index("customer_id")
    assert found["spend_cents_total"].tolist() == first["spend_cents_total"].tolist()[:3]


def test_a_redis_that_lost_its_data_is_filled_again(two_releases: object) -> None:
    materialize(CHURN)
    online_store.client().flushall()
    assert materialize(CHURN)["state"] == "done"
    assert module.online(online_store.client(), CHURN) == (2, clock.end_of(LAST))


def row_key(customer: int) -> bytes:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    entity = EntityKey(join_keys=["customer_id"], entity_values=[Value(int64_val=customer)])
    return feast_internals.row_key(feature_store.open_store(CHURN), entity)


def test_run_again_it_brings_back_what_was_evicted_or_damaged_and_leaves_strangers_alone(two_releases: object) -> None:
    """Also in the daily run, whose new rows are few: the rows that did not change are looked at too."""
    materialize(CHURN, 1)
    client = online_store.client()
    stamp, tenure, *_ = feast_internals.row_fields(feature_store.open_store(CHURN).get_feature_view(CHURN.view))
    client.set("stats:churn", 17)
    client.hset(b"team_" + row_key(1), mapping={stamp: b"x", tenure: b"x"})
    client.hset(row_key(7), "_ts:other_view", b"x")
    sound = {key: client.dump(key) for key in client.scan_iter()}

    def damage() -> None:
        client.delete(row_key(1), row_key(2))
        client.set(row_key(2), b"no hash")
        client.hset(row_key(3), tenure, b"\xff\xff\xff\xff")
        client.hdel(row_key(4), tenure)
        client.hdel(row_key(5), stamp)
        client.hset(row_key(N + 7), mapping=client.hgetall(row_key(6)))

    damage()
    repaired = materialize(CHURN, 1)
    assert (repaired["state"], repaired["removed_rows"]) == ("done", 1)
    assert client.hgetall(CHURN.online_mark)[b"rows"] == str(N).encode() == str(repaired["online_rows"]).encode()
    again = {key: client.dump(key) for key in client.scan_iter()}
    assert again.keys() == sound.keys()
    strange = {b"stats:churn", b"team_" + row_key(1)}
    assert {key: again[key] for key in strange} == {key: sound[key] for key in strange}
    assert client.hget(row_key(7), "_ts:other_view") == b"x"
    assert materialize(CHURN, 1)["state"] == "unchanged"
    damage()
    assert materialize(CHURN, 2)["online_rows"] == N
    assert online([1, 2, 3, 4, 5], 0)["tenure_months"].notna().all()


def test_rows_that_do_not_arrive_are_an_error_and_no_release_is_online(
    two_releases: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast import FeatureStore

    whole = FeatureStore.materialize

    def evicting(store: FeatureStore, *bounds: Any, **options: Any) -> None:
        whole(store, *bounds, **options)
        online_store.client().delete(row_key(3))

    monkeypatch.setattr("feast.FeatureStore.materialize", evicting)
    with pytest.raises(
        MaterializeError, match="has 200 customers in .*; Redis lacks a whole row of 1 of them, such as 3"
    ):
        materialize(CHURN)
    assert module.online(online_store.client(), CHURN) is None


def test_rows_of_the_release_before_do_not_pass_for_this_ones(
    two_releases: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(CHURN, 1)
    monkeypatch.setattr("feast.FeatureStore.materialize", lambda *_, **__: None)
    with pytest.raises(MaterializeError, match="Redis lacks a whole row of 200 of them"):
        materialize(CHURN, 2)


def test_the_store_names_its_features_once(home: Path) -> None:
    from feature_repo.churn.definitions import churn_v1, customer_features

    served = {feature.name for projection in churn_v1.feature_view_projections for feature in projection.features}
    assert served <= {field.name for field in customer_features.schema} | {"days_since_last_order"}
    sql = (feature_store.repository(CHURN) / "jobs" / "customers.sql").read_text()
    for field in customer_features.schema:
        assert field.name in sql, f"{field.name} is declared to Feast but not computed"


def test_the_newest_service_is_told_by_its_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feature_store.settle()
    from feast import FeatureService

    from feature_repo.churn import definitions

    def defined(*names: str) -> None:
        made = [FeatureService(name=name, features=[definitions.churn_recency]) for name in names]
        monkeypatch.setattr(definitions, "DEFINITIONS", [definitions.customer, *made])

    defined("churn_v9", "churn_v10", "churn_v2")
    assert feature_store.service_name(CHURN) == "churn_v10"
    for name in ("churn_two", "_v3", "churn_v2b"):
        defined("churn_v1", name)
        with pytest.raises(feature_store.DefinitionError, match=f"the service '{name}' has no number.* in _vN"):
            feature_store.service_name(CHURN)


def test_a_release_without_a_live_views_table_keeps_the_newest_service_that_asks_for_none() -> None:
    live = CHURN.streams["customer_activity"]

    def at(*tables: str) -> str:
        named = dict.fromkeys(tables, 0)
        return feature_store.service_name(CHURN, Release(1, "churn", LAST, None, named, {}, "c", "l", "r", "now"))

    assert (at(TABLE), at(TABLE, live), feature_store.service_name(CHURN)) == ("churn_v2", "churn_v3", "churn_v2")
    with pytest.raises(feature_store.DefinitionError, match="no service whose tables release 1 has"):
        at(live)
    stored, asked = feature_store.service_inputs(CHURN)
    assert "orders_1h" not in stored and asked == ["days_since_last_order"]


@pytest.mark.usefixtures("with_spark")
def test_going_back_takes_away_whom_only_the_newer_release_knows(home: Path) -> None:
    first = write_snapshot(LAST - timedelta(days=1), 1)
    release(LAST - timedelta(days=1), 1)
    newcomer = first.head(1).assign(customer_id=N + 1, snapshot_date=LAST, event_time=clock.end_of(LAST), release_id=2)
    from deltalake import write_deltalake

    stored = lake.open_table(TABLE).schema().to_arrow()
    import pyarrow as pa

    rows = pa.Table.from_pandas(newcomer, preserve_index=False).select(stored.names).cast(pa.schema(stored))
    write_deltalake(lake.uri(TABLE), rows, mode="append")
    release(LAST, 2)
    materialize(CHURN, 2)
    assert online([N + 1], 0)["orders_total"].notna().all()
    materialize(CHURN, 1)
    found = online([1, N + 1], 0)
    assert found["orders_total"].isna().tolist() == [False, True]
