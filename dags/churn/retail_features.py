"""`retail_features`: once a day, from the shop's database to the online store, with gates in between."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow.sdk.bases.operator import chain

from dags.churn.assets import FEATURES
from plumbline.orchestration.tasks import AS_OF, as_of_param, daily, plumb_task

with DAG(
    "retail_features",
    description="Orders to online features: land, transform, check, compute, publish, materialize, compare.",
    schedule=daily(),
    start_date=datetime(1997, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"as_of": as_of_param()},
    tags=["churn"],
    doc_md=__doc__,
) as dag:
    chain(
        plumb_task(f"ingest --as-of {AS_OF}"),
        plumb_task(f"dbt_run --as-of {AS_OF}"),
        plumb_task(f"ge_check --as-of {AS_OF}"),
        plumb_task(f"features --as-of {AS_OF}"),
        plumb_task(f"distribution_check --as-of {AS_OF}"),
        plumb_task(f"release --as-of {AS_OF}"),
        plumb_task("materialize"),
        plumb_task("parity_check", outlets=[FEATURES]),
    )
