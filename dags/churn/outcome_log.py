"""`outcome_log`: once a day, the many small files of the predictors' outcome log become few."""

from __future__ import annotations

from datetime import UTC, datetime, time

from airflow.sdk import DAG

from plumbline import shop
from plumbline.orchestration.tasks import daily, plumb_task
from products.churn import CHURN

with DAG(
    "outcome_log",
    description="Compaction of serving.predictions; its rows stay as they are.",
    schedule=daily(),
    start_date=datetime.combine(shop.page().first_day, time(), UTC),
    catchup=False,
    max_active_runs=1,
    tags=[CHURN.name],
    doc_md=__doc__,
) as dag:
    plumb_task("compact_log", "compact_log")
