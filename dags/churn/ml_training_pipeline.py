"""`ml_training_pipeline`: trains on the release in force whenever `retail_features` brought new features online."""

from __future__ import annotations

from airflow.sdk import DAG

from dags.churn.assets import FEATURES
from plumbline.orchestration.tasks import stages_in_order
from products.churn import CHURN

with DAG(
    CHURN.training,
    description="Released features to a registered model: lineage and leakage gates, train, register, first deploy.",
    schedule=[FEATURES],
    catchup=False,
    max_active_runs=1,
    tags=[CHURN.name],
    doc_md=__doc__,
) as dag:
    stages_in_order(CHURN, CHURN.training_stages)
