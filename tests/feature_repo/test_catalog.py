"""The catalog of features, on a made-up release of two snapshots."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from feature_repo import catalog
from feature_repo.catalog import CatalogError
from plumbline.lake import tables as lake
from plumbline.state import releases
from plumbline.state.releases import Release

DAYS = [date(1998, 6, 29), date(1998, 6, 30)]
N = 200


@pytest.fixture
def two_releases(home: Path) -> None:
    for number, day in enumerate(DAYS, 1):
        value = np.arange(N, dtype="float32") + 100 * (number - 1)
        table = pa.table(
            {
                "customer_id": np.arange(1, N + 1),
                "snapshot_date": pa.array([day] * N),
                "avg_ticket": pa.array([None if i < 20 * number else value[i] for i in range(N)], pa.float32()),
                "release_id": np.full(N, number),
            }
        )
        write_deltalake(lake.uri(catalog.TABLE), table, mode="append", partition_by=["snapshot_date"])
        tables = {catalog.TABLE: number - 1}
        releases.publish(Release(number, "churn", day, number - 1 or None, tables, {}, "c", "l", "r", "now"))


@pytest.mark.usefixtures("two_releases")
def test_every_feature_is_listed_with_what_is_missing_at_the_release() -> None:
    found = {item["name"]: item for item in catalog.listed()}
    assert found["avg_ticket"]["missing"] == pytest.approx(0.2)
    assert (found["avg_ticket"]["type"], found["avg_ticket"]["services"]) == (
        "float32",
        ["churn_v1", "churn_v2", "churn_v3"],
    )
    assert found["avg_ticket"]["age_seconds"] == 0, "the clock stands at the end of the release's day"
    assert found["orders_7d"]["missing"] is None, "this release does not have it"
    asked = found["days_since_last_order"]
    assert (asked["on_demand"], asked["missing"], asked["age_seconds"]) == (True, None, None)
    assert asked["description"].startswith("Whole days")
    live = found["orders_1h"]
    assert (live["live"], live["missing"], live["age_seconds"], live["services"]) == (True, None, None, ["churn_v3"])


@pytest.mark.usefixtures("two_releases")
def test_history_tells_how_a_feature_moved_and_who_changed_it() -> None:
    found = catalog.history("avg_ticket")
    first, second = found["releases"]
    assert [point["rows"] for point in found["releases"]] == [N, N]
    assert (first["psi"], first["missing"]) == (None, pytest.approx(0.1))
    assert second["psi"] > 0.25 and second["median"] > first["median"] + 100
    assert [point["rows"] for point in catalog.history("avg_ticket", last=1)["releases"]] == [N]
    absent = catalog.history("orders_7d")["releases"]
    assert {point["rows"] for point in absent} == {0}


@pytest.mark.usefixtures("two_releases")
def test_a_customers_values_by_snapshot() -> None:
    rows = catalog.of_customer("avg_ticket", 30)
    assert [(row["snapshot_date"], row["avg_ticket"], row["release_id"]) for row in rows] == [
        (DAYS[0], 29.0, 1),
        (DAYS[1], None, 2),
    ]
    with pytest.raises(CatalogError, match="no snapshot of customer 999"):
        catalog.of_customer("avg_ticket", 999)
    with pytest.raises(CatalogError, match="does not have orders_7d yet"):
        catalog.of_customer("orders_7d", 30)


@pytest.mark.usefixtures("home")
def test_a_live_feature_comes_from_order_events_and_has_no_snapshots() -> None:
    """Both views have orders of 7 days: the live one is called by its view's name too."""
    found = catalog.shown("spend_cents_1h")
    assert found["roots"] == ["asked.known_at", "raw.order_events.event_time", "raw.order_events.total_cents"]
    assert [step["column"] for step in found["lineage"][0]["inputs"]] == ["total_cents", "in_1h"]
    assert catalog.known("orders_7d").view == "customer_features"
    both = catalog.known("customer_activity.orders_7d")
    assert (both.view, both.column, both.services) == ("customer_activity", "orders_7d", [])
    for ask in (catalog.history, lambda name: catalog.of_customer(name, 30)):
        with pytest.raises(CatalogError, match="snapshots"):
            ask("customer_activity.orders_7d")


def test_an_unknown_feature_is_met_with_the_one_that_was_meant(home: Path) -> None:
    with pytest.raises(CatalogError, match="did you mean avg_ticket"):
        catalog.shown("avg_tickt")
    with pytest.raises(CatalogError, match="no release holds values"):
        catalog.history("days_since_last_order")
