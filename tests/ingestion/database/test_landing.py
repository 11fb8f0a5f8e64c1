"""Landing from real shops, SQLite and Postgres, into real Delta tables."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from ingestion.churn import cdnow as shop
from ingestion.database import landing, source
from ingestion.database.source import ShopError
from plumbline.errors import SettingsError
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.pipeline.stage import StageRun
from plumbline.settings import ROOT, settings
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

FIRST = date(1997, 1, 5)
SECOND = date(1997, 1, 6)


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def _ten_days(home_as: HomeAs, request: pytest.FixtureRequest) -> None:
    if request.param == "postgres":
        request.getfixturevalue("postgres_shop")
        ten_days()
    else:
        home_as("ten days in the shop", ten_days)


def ten_days() -> None:
    shop.load(until=date(1997, 1, 10))


def land(day: date) -> pd.DataFrame:
    result = stage.perform(CHURN, "ingest", day, landing.land)
    assert result.state in ("done", "unchanged")
    return raw()


def raw(table: str = "raw.orders") -> pd.DataFrame:
    return lake.open_table(table).to_pandas()


def release(day: date, number: int = 1) -> None:
    """What a whole run would have published."""
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "test", "now"))


def shop_orders(until: date) -> int:
    return sum(order.order_date <= until for order in shop.read(shop.packaged()))


def insert(order_id: int, order_date: date, recorded_at: datetime) -> None:
    row = {"order_id": order_id, "customer_id": 1, "order_date": order_date, "units": 1, "total_cents": 500}
    with source.connected(source.engine()) as connection:
        connection.execute(sa.insert(source.schema(CHURN).tables["orders"]), [{**row, "recorded_at": recorded_at}])


def test_a_window_lands_whole_with_its_stamps() -> None:
    found = land(FIRST)
    assert len(found) == shop_orders(FIRST)
    assert found["order_id"].is_unique
    assert set(found["batch_id"]) == {"1997-01-01..1997-01-05"}
    assert (found["known_at"] == found["recorded_at"]).all()
    assert str(found["recorded_at"].dt.tz) == "UTC"
    assert found["total_cents"].dtype == "int64"


def test_a_lake_in_which_another_product_landed_first_takes_the_shops_rows(home: Path) -> None:
    (home / "lake" / "raw" / "images").mkdir(parents=True)
    assert len(land(FIRST)) == shop_orders(FIRST)
    release(FIRST)
    assert len(land(SECOND)) == shop_orders(SECOND)


def test_the_next_day_lands_that_day_alone() -> None:
    land(FIRST)
    release(FIRST)
    found = land(SECOND)
    assert len(found) == shop_orders(SECOND)
    assert set(found.loc[found["batch_id"] == "1997-01-06..1997-01-06", "order_date"]) == {SECOND}


def test_the_same_window_twice_lands_once(home: Path) -> None:
    before = land(FIRST)
    (home / "runs" / "churn" / f"{FIRST}.json").unlink()  # as after a kill between the landing and its entry
    after = land(FIRST)
    pd.testing.assert_frame_equal(before.sort_values("order_id"), after.sort_values("order_id"), check_like=True)


def test_a_late_order_lands_with_the_day_it_was_recorded() -> None:
    land(FIRST)
    release(FIRST)
    insert(900_001, date(1997, 1, 2), datetime(1997, 1, 6, 9))
    found = land(SECOND).set_index("order_id").loc[900_001]
    assert found["order_date"] == date(1997, 1, 2)
    assert found["known_at"] == datetime(1997, 1, 6, 9, tzinfo=UTC)


def test_an_order_that_shows_up_behind_a_landed_window_lands_and_was_not_known_before() -> None:
    land(FIRST)
    release(FIRST)
    insert(900_002, date(1997, 1, 3), datetime(1997, 1, 3, 12))
    found = land(SECOND).set_index("order_id").loc[900_002]
    assert found["recorded_at"] == datetime(1997, 1, 3, 12, tzinfo=UTC)
    assert found["known_at"] == datetime(1997, 1, 6, tzinfo=UTC)


def test_a_table_added_to_a_running_home_lands_whole_each_row_known_from_when_it_was_recorded() -> None:
    land(FIRST)
    tables = {name: lake.version(name) or 0 for name in ("raw.orders", "raw.customers")}
    shutil.rmtree(lake.uri("raw.returns"))
    publish(Release(1, "churn", FIRST, None, tables, {}, "code", "lock", "test", "now"))
    orders = land(SECOND)
    assert set(orders.loc[orders["batch_id"] == "1997-01-06..1997-01-06", "order_date"]) == {SECOND}
    found = raw("raw.returns")
    assert len(found) > 0 and max(found["recorded_at"]) < datetime(1997, 1, 5, tzinfo=UTC)
    assert (found["known_at"] == found["recorded_at"]).all()
    assert set(found["batch_id"]) == {"1997-01-06..1997-01-06"}


def test_a_shop_without_returns_lands_an_empty_table() -> None:
    with source.connected(source.engine()) as connection:
        connection.execute(sa.delete(source.schema(CHURN).tables["returns"]))
    land(FIRST)
    assert len(raw("raw.returns")) == 0
    assert {"order_id", "returned_at", "cents", "known_at", "deleted_at"} <= set(raw("raw.returns").columns)


def test_a_shop_without_orders_says_what_to_do(home: Path) -> None:
    with source.connected(source.engine()) as connection:
        source.schema(CHURN).drop_all(connection)
    run = StageRun(CHURN, "ingest", FIRST, Candidate("test", "churn", FIRST, None), None)
    with pytest.raises(ShopError, match="lacks .*`plumb shop load`"):
        landing.land(run)
    with source.connected(source.engine()) as connection:
        source.schema(CHURN).create_all(connection)
    with pytest.raises(ShopError, match="no rows in orders, customers, returns: `plumb shop load` loads"):
        landing.land(run)


def test_the_page_of_a_shop_is_read_before_anything_lands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_page(tmp_path, monkeypatch, "horizon_days: 90", "horizon_days: 0")
    with pytest.raises(SettingsError, match=r"shop\.yaml: horizon_days: .*greater than or equal to 1"):
        land(FIRST)
    assert lake.version("raw.orders") is None


def test_a_shop_that_brings_its_own_orders_is_not_told_to_load_some(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_page(tmp_path, monkeypatch, "loader:", "# loader:")
    with source.connected(source.engine()) as connection:
        source.schema(CHURN).drop_all(connection)
    with pytest.raises(ShopError, match=r"lacks \['customers', 'orders', 'returns'\]; it has \[\]$"):
        land(FIRST)


def test_a_day_before_the_first_order_is_refused() -> None:
    with pytest.raises(ShopError, match="--as-of 1990-01-01: the shop's first record is of 1997-01-01"):
        stage.perform(CHURN, "ingest", date(1990, 1, 1), landing.land)


def test_nothing_is_written_outside_home(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "user"
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(elsewhere))
    land(FIRST)
    assert list(elsewhere.iterdir()) == []


def with_page(folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Makes the demo shop's page, with one text in place of another, that of this home."""
    page = (ROOT / "shops" / "cdnow" / "shop.yaml").read_text()
    (folder / "shop.yaml").write_text(page.replace(old, new))
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(folder))
    settings.cache_clear()
