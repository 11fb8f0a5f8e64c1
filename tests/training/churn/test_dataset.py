from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from plumbline.pipeline.retention import named
from plumbline.state import ledger, objects, trainings
from plumbline.state.releases import Release
from plumbline.state.trainings import Place
from products.churn import ACTIVITY, CHURN
from tests.feature_repo.live_world import land
from tests.training.churn.made_up_shop import WEEKLY, publish, simulate_orders, write_lake
from training import canonical, datasets
from training.churn import activity, dataset, leaky
from training.errors import TrainingError


def test_a_dataset_through_feast_and_spark(home: Path, with_spark: str, dill_loads: list[str]) -> None:
    import pyarrow.compute as pc

    orders = simulate_orders(120)
    # The first week, and around three training days and the test day: a snapshot before and one after each.
    weeks = [0, *(week + near for week in (44, 48, 52, 65) for near in (-1, 0, 1))]
    write_lake(orders, [WEEKLY[week] for week in weeks])
    release = publish(1)

    first = dataset.build()
    assert first["state"] == "done"
    assert first["versions"]["data_version"] == f"delta:features.customers@v={release.version('features.customers')}"
    data = datasets.load(Place(CHURN, 1))
    assert data.about["observations"]["test"] == "1998-04-01"
    assert data.about["rows"] == {"train": 360, "test": 120}
    assert data.about["feature_service"] == "churn_v2"
    assert {"orders_total", "days_since_last_order"} <= set(data.features)
    assert not {"release_id", "last_order_day", "customer_id"} & set(data.features)
    assert "orders_total" in data.about["checked_point_in_time"]
    assert set(data.part(test=True)["event_timestamp"].astype(str)) == {"1998-04-02 00:00:00+00:00"}

    # Against the orders themselves, customer by customer, on the test day (1998-04-01 is day 10317).
    test = data.part(test=True).set_index("customer_id")
    for customer, theirs in orders.groupby("customer_id"):
        days = theirs["order_day"]
        assert test.loc[customer, "churned"] == (not days.between(10318, 10407).any())
        assert test.loc[customer, "orders_total"] == (days <= 10317).sum()
        assert test.loc[customer, "days_since_last_order"] == 10318 - days[days <= 10317].max()
    assert pc.sum(data.rows["is_test"]).as_py() == 120

    assert dataset.build()["state"] == "unchanged"
    (datasets.folder(Place(CHURN, 1)) / "dataset.json").unlink()
    again = dataset.build()
    assert again["state"] == "done"
    assert again["versions"]["content_hash"] == first["versions"]["content_hash"]
    told = [event["state"] for event in ledger.events("churn") if event["stage"] == "dataset"]
    assert told == ["START", "COMPLETE"] * 2
    assert dill_loads == [], "the on-demand function's source text ran, not its copy in the registry"


@pytest.mark.usefixtures("home", "with_spark")
def test_a_dataset_of_a_release_with_the_streams_table_knows_each_second(dill_loads: list[str]) -> None:
    """Activity at the second of an observation counts, a second later it does not; at the ttl it does, beyond it is
    null. The twin takes what came last."""
    orders = simulate_orders(120)
    weeks = [0, *(week + near for week in (44, 48, 52, 65) for near in (-1, 0, 1))]
    write_lake(orders, [WEEKLY[week] for week in weeks])
    at, second, ttl = datetime(1998, 4, 2, tzinfo=UTC), timedelta(seconds=1), timedelta(days=7)
    one, two, three, four, five = sorted(orders[orders["order_day"] <= 10317]["customer_id"].unique())[:5]
    for batch, known, counts in (
        ("q/0", at - ttl - second, {five: 6}),
        ("q/1", at - ttl, {four: 5}),
        ("q/2", at - second, {one: 1, two: 2, three: None}),
        ("q/3", at, {two: 3}),
        ("q/4", at + second, dict.fromkeys((one, two, three, four, five), 9)),
    ):
        land(batch, known, {int(customer): count for customer, count in counts.items()})
    release = publish(1, ACTIVITY)
    about = dataset.build()
    assert about["state"] == "done"
    data = datasets.load(Place(CHURN, 1))
    assert data.about["feature_service"] == "churn_v3"
    assert data.about["activity_version"] == f"delta:{ACTIVITY}@v={release.version(ACTIVITY)}"
    assert {"orders_1h", "seconds_since_last_event"} <= set(data.about["checked_point_in_time"]) & set(data.features)
    assert "last_order_second" not in data.features
    test = data.part(test=True).set_index("customer_id")
    live = test.loc[[one, two, three, four, five], ["orders_1h", "seconds_since_last_event"]]
    assert live.astype(object).where(live.notna(), None).to_numpy().tolist() == [
        [1, 11],
        [3, 10],
        [0, None],
        [5, 7 * 86_400 + 10],
        [None, None],
    ]
    assert data.part(test=False)["orders_1h"].isna().all(), "the stream began later"
    twin = leaky.twin(data).part(test=True).set_index("customer_id")
    assert twin.loc[[one, two, three, four, five], "orders_1h"].tolist() == [9] * 5
    assert twin.loc[one, "seconds_since_last_event"] == 9, "an order of the future"
    assert named(CHURN)[ACTIVITY] == {release.version(ACTIVITY): ["release 1", "dataset of release 1"]}
    assert dill_loads == []


@pytest.mark.usefixtures("home")
def test_a_service_of_the_stream_is_not_asked_of_a_release_from_before_it() -> None:
    from feature_repo import store as feature_store

    feature_store.apply(CHURN)
    store = feature_store.open_store(CHURN)
    release = Release(1, "churn", date(1998, 6, 30), None, {"features.customers": 0}, {}, "c", "l", "r", "now")
    assert activity.version(release, store, "churn_v2") is None
    with pytest.raises(TrainingError, match=r"churn_v3 reads features.customer_activity, which release 1 does not"):
        activity.version(release, store, "churn_v3")


def test_a_missing_dataset_says_which_command_makes_it(home: Path) -> None:
    with pytest.raises(TrainingError, match="run `plumb dataset --release 4` first"):
        datasets.load(Place(CHURN, 4))


def test_a_dataset_that_was_tampered_with_is_refused(shop, shop_home: Path) -> None:  # type: ignore[no-untyped-def]
    import pyarrow as pa

    shop(1)
    rows = datasets.load(Place(CHURN, 1)).rows
    flipped = [not value for value in rows["churned"].to_pylist()]
    place = rows.schema.get_field_index("churned")
    other = rows.set_column(place, rows.schema.field("churned"), pa.array(flipped))
    objects.replace_bytes(Place(CHURN, 1).key(trainings.ROWS), canonical.to_parquet(other))
    with pytest.raises(TrainingError, match=r"is not the dataset that dataset\.json describes"):
        datasets.load(Place(CHURN, 1))
