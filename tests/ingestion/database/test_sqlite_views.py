"""Views of a SQLite shop: an expression in one has no type, not even a cast, and still lands as its contract says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.database import draft, landing, source
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import settings
from products.churn import CHURN

DAY = date(1997, 1, 5)


@pytest.fixture
def views(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shop with text ids and amounts in dollars, cast in views, served by drafted contracts."""
    execute(
        "CREATE TABLE sales (no TEXT, who TEXT, sold_on TEXT, pieces INTEGER, dollars NUMERIC)",
        "INSERT INTO sales VALUES ('S-007', 'C-1', '1997-01-04', 2, 11.77), ('S-008', 'C-1', '1997-01-05', 1, 12)",
        "CREATE VIEW orders AS SELECT CAST(substr(no, 3) AS INTEGER) AS order_id, CAST(substr(who, 3) AS INTEGER) "
        "AS customer_id, date(sold_on) AS order_date, pieces AS units, CAST(round(dollars * 100) AS INTEGER) AS "
        "total_cents, datetime(sold_on, '+9 hours') AS recorded_at, no || '' AS label FROM sales",
        "CREATE VIEW customers AS SELECT CAST(substr(who, 3) AS INTEGER) AS customer_id, min(datetime(sold_on)) AS "
        "signed_up_at, min(datetime(sold_on)) AS recorded_at FROM sales GROUP BY who",
        "CREATE VIEW returns AS SELECT 0 AS order_id, '' AS returned_at, 0 AS cents, '' AS recorded_at WHERE false",
    )
    draft.draft(CHURN, settings().shop, tmp_path / "mine")
    monkeypatch.setenv("PLUMBLINE_SHOP_FOLDER", str(tmp_path / "mine"))
    settings.cache_clear()


def execute(*statements: str) -> None:
    with source.connected(source.engine()) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_expressions_land_as_their_contract_says(views: None) -> None:
    stage.perform(CHURN, "ingest", DAY, landing.land)
    rows = lake.open_table("raw.orders").to_pyarrow_table().to_pylist()
    names = ("order_id", "customer_id", "order_date", "units", "total_cents", "recorded_at")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (7, 1, date(1997, 1, 4), 2, 1_177, datetime(1997, 1, 4, 9, tzinfo=UTC)),
        (8, 1, date(1997, 1, 5), 1, 1_200, datetime(1997, 1, 5, 9, tzinfo=UTC)),
    ]
    assert "label" not in rows[0], "no contract says what it is"
    assert len(lake.open_table("raw.returns").to_pyarrow_table()) == 0


def test_a_value_that_is_not_of_the_contract_s_type_stops_the_batch_by_its_key(views: None) -> None:
    execute("INSERT INTO sales VALUES ('S-009', 'C-1', 'soon', 1, 1)")
    with pytest.raises(GateFailed, match="orders.recorded_at: 1 rows are not times, .* such as order_id 9: null"):
        stage.perform(CHURN, "ingest", DAY, landing.land)
    assert lake.version("raw.orders") is None
