from __future__ import annotations

from pathlib import Path

import pytest

from plumbline.lineage import column_lineage
from plumbline.lineage.column_lineage import Model

QUERY = """WITH recent AS (
    SELECT o.customer_id, sum(o.cents) AS spent
    FROM {orders} AS o
    GROUP BY o.customer_id
)

SELECT
    customer_id,
    CAST(spent AS FLOAT) / 100 AS dollars
FROM recent
"""
COMPILED = "with source as (select * from raw.orders) select customer_id, units * price as cents from source"


@pytest.fixture
def query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dbt").mkdir()
    (tmp_path / "dbt" / "orders.sql").write_text(
        "-- a note\nselect\n    customer_id,\n    units * price as cents\nfrom {{ source() }}\n"
    )
    monkeypatch.setattr(column_lineage, "ROOT", tmp_path)
    monkeypatch.setattr(column_lineage, "models", lambda: {"analytics.orders": Model(COMPILED, "dbt/orders.sql")})
    path = tmp_path / "query.sql"
    path.write_text(QUERY)
    return path


RAW = {"raw.orders": ["customer_id", "units", "price"]}


def test_a_column_is_followed_through_ctes_and_models_to_raw_with_its_lines(query: Path) -> None:
    step = column_lineage.trace("dollars", query, {"orders": "analytics.orders"}, RAW)
    assert (step.column, step.place) == ("dollars", "query.sql:9")
    (spent,) = step.inputs
    assert (spent.column, spent.place) == ("recent.spent", "query.sql:2")
    (cents,) = spent.inputs
    assert (cents.column, cents.place, cents.sql) == (
        "analytics.orders.cents",
        "dbt/orders.sql:4",
        "source.units * source.price",
    )
    assert step.roots() == {"raw.orders.units", "raw.orders.price"}
    assert column_lineage.tree(step)["inputs"][0]["place"] == "query.sql:2"


def test_an_incremental_model_is_followed_to_what_it_reads_and_not_into_itself(
    query: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = f"{COMPILED} union all select standing.customer_id, standing.cents from analytics.orders standing"
    monkeypatch.setattr(column_lineage, "models", lambda: {"analytics.orders": Model(merged, "dbt/orders.sql")})
    step = column_lineage.trace("dollars", query, {"orders": "analytics.orders"}, RAW)
    assert step.roots() == {"raw.orders.units", "raw.orders.price"}


def test_a_column_that_is_not_there_says_so(query: Path) -> None:
    with pytest.raises(ValueError, match="query.sql gives no column 'euros'"):
        column_lineage.trace("euros", query, {"orders": "analytics.orders"}, RAW)


def test_outputs_are_the_last_selects_expressions() -> None:
    assert column_lineage.outputs(QUERY) == {"customer_id": "customer_id", "dollars": "CAST(spent AS FLOAT) / 100"}


def test_a_pinned_relation_goes_by_its_tables_name() -> None:
    pinned = "select * from delta.`/home/a b/lake/raw/orders` VERSION AS OF 12 as o"
    assert column_lineage.by_name(pinned) == "select * from raw.orders as o"
