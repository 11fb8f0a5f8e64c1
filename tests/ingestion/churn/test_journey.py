"""The second shop in Postgres: its lines, the views that landing reads, its days in another zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.churn import journey, returns
from ingestion.churn.cdnow import Order
from ingestion.database import landing, source
from ingestion.database.source import ShopError
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from products.churn import CHURN

DAY = date(2017, 1, 10)


def test_the_packaged_lines_are_the_ones_that_were_described() -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(journey.packaged(), columns=["household_id", "basket_id", "transaction_timestamp"])
    counted = (len(rows), len(pc.unique(rows["basket_id"])), len(pc.unique(rows["household_id"])))
    assert counted == (1_469_307, 155_848, 2_469)
    assert pc.max(rows["transaction_timestamp"]).as_py() == datetime(2018, 1, 1, 4, 1, 20)


def test_it_is_loaded_into_postgres_alone(home: Path) -> None:
    with pytest.raises(ShopError, match="loaded into Postgres: name an empty database in PLUMBLINE_SHOP_URL"):
        journey.load()


def test_baskets_land_at_their_moment_under_the_shop_day(
    postgres_shop: sa.URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(ROOT / "shops" / "journey"))
    monkeypatch.setenv("PLUMBLINE_NOW", "2018-01-01T00:00:00Z")
    settings.cache_clear()
    loaded = journey.load(one_in=100)
    assert (loaded["customers"], loaded["last_order_date"]) == (25, "2017-12-31")
    again = journey.load(one_in=100)
    assert (again["lines_loaded"], again["simulated_refunds_loaded"]) == (0, 0), "once"
    message = stage.perform(CHURN, "ingest", DAY, landing.land).message
    rows = lake.open_table("raw.orders").to_pyarrow_table().to_pylist()
    with source.connected(source.engine()) as connection:
        came_back = {r.order_id: r for r in connection.execute(sa.text("SELECT * FROM returns"))}
        all_orders = connection.execute(sa.text("SELECT * FROM orders")).all()
        plain = connection.execute(
            sa.text(
                "SELECT basket_id, max(transaction_timestamp), sum(quantity), sum(sales_value) FROM lines "
                "WHERE transaction_timestamp < '2017-01-11 00:00:00+00' GROUP BY basket_id"
            )
        ).all()
    assert {(r["order_id"], r["recorded_at"], r["units"], r["total_cents"]) for r in rows} == {
        (basket, moment.astimezone(UTC), units, round(dollars * 100)) for basket, moment, units, dollars in plain
    }
    by_rule = {
        order.order_id: made
        for order in all_orders
        if (made := returns.of_order(Order(*order[:5]))) is not None and made.returned_at.date() <= date(2017, 12, 31)
    }
    assert len(came_back) == len(by_rule) == loaded["simulated_refunds_loaded"] > 20
    assert {number: (back.returned_at, back.cents) for number, back in came_back.items()} == {
        number: (made.returned_at.replace(tzinfo=UTC), made.cents) for number, made in by_rule.items()
    }
    nights = [row for row in rows if row["recorded_at"].date() > row["order_date"]]
    assert nights, "an evening in New York is the next day by UTC"
    assert not [row for row in rows if row["recorded_at"].date() < row["order_date"]]
    assert "CD" not in message + capsys.readouterr().err
