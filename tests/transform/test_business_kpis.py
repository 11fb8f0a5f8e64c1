"""analytics.business_kpis through dbt, Spark and Delta; apart from the daily run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.lake.spark import session
from plumbline.settings import settings
from plumbline.state import ledger
from serving.churn import log as outcome_log
from serving.churn import outcomes
from transform import build as transform
from transform import business_kpis as business

pytestmark = pytest.mark.usefixtures("spark")

FIRST = datetime(1998, 6, 30, tzinfo=UTC)


def predict(request: str, customer: int, version: str = "1", track: str = "stable", at: datetime = FIRST) -> None:
    head = {"at": at, "logged_at": clock.wall(), "features": "{}", "event_time": at, "features_age_seconds": 0.0}
    head |= {"release_id": 1, "model_version": version, "track": track, "score": 0.5}
    outcome_log.append([{**head, "request_id": request, "customer_id": customer}])


def follow(request: str, customer: int, **did: object) -> None:
    day = FIRST.date()
    row = {"contacted": False, "ordered": False, "called_support": False, "handle_seconds": None, "simulated": True}
    row |= {"really_ordered": False, "window_start": day, "window_end": day} | did
    assert outcomes.append([{**row, "request_id": request, "customer_id": customer}]) == 1


def test_kpis_by_version_track_and_day_twice_the_same_and_a_failing_test_keeps_the_table() -> None:
    with pytest.raises(business.BusinessError, match=r"no serving\.predictions yet"):
        business.kpis()
    predict("a", 1)
    predict("b", 2)
    predict("c", 2)
    predict("d", 3, at=FIRST + timedelta(days=1))
    predict("e", 1, version="2", track="canary")
    follow("a", 1, contacted=True, ordered=True, called_support=True, handle_seconds=200.0)
    follow("b", 2, contacted=True, called_support=True, handle_seconds=100.0)
    follow("e", 1, ordered=True)

    found = business.kpis()
    assert [(row["request_day"].day, row["track"], row["model_version"]) for row in found] == [
        (30, "canary", "2"),
        (30, "stable", "1"),
        (1, "stable", "1"),
    ]
    canary, stable, newer = found
    assert (canary["conversion_rate"], canary["retained_customers"], canary["avg_handle_time"]) == (1.0, 0, None)
    assert (stable["predictions"], stable["known_outcomes"], stable["contacted_customers"]) == (3, 2, 2)
    assert (stable["conversion_rate"], stable["call_center_load"]) == (0.5, 1.0)
    assert (stable["retained_customers"], stable["avg_handle_time"], stable["is_simulated"]) == (1, 150.0, True)
    assert (newer["known_outcomes"], newer["conversion_rate"], newer["is_simulated"]) == (0, None, None)

    assert business.kpis() == found
    told = ledger.newest("churn", "kpis", "COMPLETE")
    assert told is not None
    assert set(told["read"]) == set(business.SOURCES)

    version = lake.rows(business.TABLE)
    predict("f", 4, track="shadow")
    with pytest.raises(GateFailed, match="accepted_values"):
        business.kpis()
    assert lake.rows(business.TABLE) == version, "what failed is not what is read"

    lake.register(session(), business.SOURCES)
    folder = settings().home / "dbt" / "business"
    tested = transform.invoke(["test", "--select", "business_kpis,test_type:unit", *business.ENABLED], folder)
    assert [str(item.status) for item in transform.results(tested)] == ["pass"]


def test_the_daily_run_does_not_know_the_model() -> None:
    listed = transform.invoke(["ls", "--resource-type", "model", "--quiet"])
    assert {name.rpartition(".")[2] for name in listed.result} == {
        *("stg_orders", "stg_customers", "stg_returns", "orders", "customers", "returns"),
        *("orders_history", "customers_history", "returns_history"),
    }
