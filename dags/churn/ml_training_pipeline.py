"""`ml_training_pipeline`: trains on the release in force whenever `retail_features` brought new features online."""

from __future__ import annotations

from airflow.sdk import DAG
from airflow.sdk.bases.operator import chain

from dags.churn.assets import FEATURES
from plumbline.orchestration.tasks import plumb_task

with DAG(
    "ml_training_pipeline",
    description="Released features to a registered model: lineage and leakage gates, train, register, first deploy.",
    schedule=[FEATURES],
    catchup=False,
    max_active_runs=1,
    tags=["churn"],
    doc_md=__doc__,
) as dag:
    chain(
        plumb_task("lineage_check"),
        plumb_task("dataset"),
        plumb_task("leakage_check"),
        plumb_task("train"),
        plumb_task("register"),
        plumb_task("deploy"),
    )
