"""Expected edges: from declarations alone, in a clean checkout; and that the declarations are those of the code."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

from plumbline.lineage import expected
from plumbline.product import Product, Stage
from products import ALL
from products.churn import CHURN, RELEASED


def test_the_way_from_the_shop_to_the_features() -> None:
    assert [str(edge) for edge in expected.upstream(CHURN, "features.customers")] == [
        "analytics.customers_history → retail_features.features → features.customers",
        "analytics.orders_history → retail_features.features → features.customers",
        "analytics.returns_history → retail_features.features → features.customers",
        "raw.customers → retail_features.dbt_run → analytics.customers_history",
        "raw.orders → retail_features.dbt_run → analytics.orders_history",
        "analytics.orders_history → retail_features.dbt_run → analytics.returns_history",
        "raw.returns → retail_features.dbt_run → analytics.returns_history",
        "shop.customers → retail_features.ingest → raw.customers",
        "shop.orders → retail_features.ingest → raw.orders",
        "shop.returns → retail_features.ingest → raw.returns",
    ]


def test_what_a_late_table_reaches() -> None:
    reached = expected.downstream(CHURN, "raw.orders")
    assert (
        reached.index("analytics.orders_history")
        < reached.index("features.customers")
        < reached.index("models.churn_xgb")
    )
    assert {"online.customer_features", "models.churn_xgb", "endpoints.churn-predictor"} <= set(reached)
    assert "analytics.customers" not in reached
    assert expected.downstream(CHURN, "endpoints.churn-predictor") == ()


def test_a_late_mart_concerns_what_is_made_of_its_history() -> None:
    affected = expected.affected_by(CHURN, "analytics.customers")
    assert {"features.customers", "endpoints.churn-predictor"} <= set(affected)
    assert not set(affected) & set(CHURN.histories)


def test_what_a_stage_works_with_is_there() -> None:
    for stage in (stage for product in ALL for stage in product.stages if stage.work):
        assert callable(pkgutil.resolve_name(stage.work)), stage.name


def test_feasts_views_read_the_tables_that_its_definitions_name() -> None:
    from feature_repo import store

    store.settle()
    from feature_repo.churn.definitions import DEFINITIONS

    views = {made.name: made.batch_source.query for made in DEFINITIONS if getattr(made, "batch_source", None)}
    assert {name: f"SELECT * FROM {table}" for name, table in expected.feast_tables(CHURN).items()} == views
    assert set(expected.feast_tables(CHURN).values()) <= {*RELEASED, *CHURN.streams.values()}
    brought = {edge.source for edge in expected.edges(CHURN) if edge.target == CHURN.online}
    assert brought == set(CHURN.views.values()), "no materialization brings a live view"


def test_models_are_read_as_dbt_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    for name, text in {
        "staging/stg_a.sql": "{{ config(alias='a') }} select * from {{ pinned('raw', 'a') }} -- not {{ ref('gone') }}",
        "marts/b.sql": "{# ref('gone') #} select * from {{ ref('stg_a') }} join {{ source('log', 'c') }} using (id)",
        "marts/d.sql": "{{ config(schema='x') }} select * from {{ ref('b') }}",
    }.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_text(text)
    (tmp_path / "dbt_project.yml").write_text(
        "name: core\nmodels: {core: {staging: {+schema: staging, +materialized: view}, "
        "marts: {+schema: analytics, +materialized: table}}}"
    )
    monkeypatch.setattr(expected, "DBT", tmp_path)
    made = Product("made", "daily", (Stage("dbt_run", "daily", {"analytics.b": (), "x.d": ()}),))
    assert expected.marts(made) == {"analytics.b": ("log.c", "raw.a"), "x.d": ("analytics.b",)}
