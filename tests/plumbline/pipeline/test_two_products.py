"""A toy product beside churn in one home: two stages each, and nothing of the one is in the other's way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from observability.exporter import Exporter
from plumbline import observed
from plumbline.lake import tables as lake
from plumbline.lineage import graph, sending
from plumbline.lineage.runs import EventFile
from plumbline.pipeline import stage
from plumbline.pipeline.stage import StageRun
from plumbline.product import Product, Stage
from plumbline.servers import online_store
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN

DAY = date(1998, 6, 29)
TOY = Product(
    name="toy",
    daily="toy_daily",
    by_hand="toy_operations",
    stages=(
        Stage("ingest", "toy_daily", {"raw.toys": ("shop.toys",)}),
        Stage("features", "toy_daily", {"features.toys": ("raw.toys",)}),
    ),
)


def lands(table: str, shop: str) -> Callable[[StageRun], str]:
    """A stage that writes a few rows of a table."""

    def work(run: StageRun) -> str:
        observed.read(shop)
        write_deltalake(lake.uri(table), pa.table({"id": [1, 2, 3]}))
        run.write(table, 0, 3)
        return "landed"

    return work


@pytest.fixture
def both(home: Path) -> Path:
    """Both products' first stage, and the toy's second, in one home."""
    stage.perform(CHURN, "ingest", DAY, lands("raw.orders", "shop.orders"))
    stage.perform(TOY, "ingest", DAY, lands("raw.toys", "shop.toys"))

    def features(run: StageRun) -> str:
        lake.open_table("raw.toys", run.pin("raw.toys"))
        write_deltalake(lake.uri("features.toys"), pa.table({"id": [1]}))
        run.write("features.toys", 0, 1)
        return "computed"

    stage.perform(TOY, "features", DAY, features)
    return home


def test_state_lies_in_a_folder_of_each(both: Path) -> None:
    for folder in ("ledger", "runs"):
        assert sorted(path.name for path in (both / folder).iterdir()) == ["churn", "toy"]
    assert {event["stage"] for event in ledger.events("churn")} == {"ingest"}
    assert [event["run_id"] for event in ledger.events("toy")] == ["toy-1998-06-29"] * 4


def test_a_run_of_one_leaves_the_other_its_lease(both: Path) -> None:
    def beside(run: StageRun) -> str:
        again = stage.perform(TOY, "features", DAY, lambda run: "not run again")
        return again.state

    assert stage.perform(CHURN, "ingest", date(1998, 6, 30), beside).message == "unchanged"


def test_lineage_tells_them_apart(both: Path) -> None:
    jobs = {event["job"]["name"] for event in sending.lines(sending.path())}
    assert jobs == {"retail_features.ingest", "toy_daily.ingest", "toy_daily.features"}
    found = graph.of("features.toys@0", EventFile(), TOY)
    assert {port.dataset for port in found.ports.values()} == {"features.toys", "raw.toys", "shop.toys"}


def test_a_stage_of_one_may_not_open_what_the_other_declares(both: Path) -> None:
    with pytest.raises(observed.UndeclaredRead, match=r"products/toy\.py"):
        stage.perform(TOY, "ingest", date(1998, 6, 30), lands("raw.orders", "shop.orders"))


def test_metrics_carry_the_product(both: Path) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(Exporter([CHURN, TOY]))
    told = generate_latest(registry).decode()
    for product in ("churn", "toy"):
        assert f'stage_state{{product="{product}",stage="ingest",state="complete"}} 1.0' in told
    assert 'stage_state{product="churn",stage="features"' not in told


def test_redis_has_a_mark_for_each(both: Path) -> None:
    client = online_store.client()
    client.hset(TOY.online_mark, mapping={"release_id": 7, "event_time": "1998-06-30T00:00:00+00:00"})
    held = online_store.online(client, TOY)
    assert held is not None and held[0] == 7
    assert online_store.online(client, CHURN) is None
    assert settings().home == both
