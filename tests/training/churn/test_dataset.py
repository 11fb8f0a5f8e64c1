from __future__ import annotations

from pathlib import Path

import pytest

from plumbline.state import ledger, objects, trainings
from plumbline.state.trainings import Place
from products.churn import CHURN
from tests.training.churn.made_up_shop import WEEKLY, publish, simulate_orders, write_lake
from training import canonical, datasets
from training.churn import dataset
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
