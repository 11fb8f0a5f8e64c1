"""`images`: once a day, from new pictures to a model that is registered, and the first one deployed.

Stages 01 to 03 work on a day and lead to a release; 04 to 07 work on the release in force.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from plumbline.orchestration.tasks import as_of_param, daily, stages_in_order
from products.images import IMAGES

with DAG(
    IMAGES.daily,
    description="Pictures to a classifier: ingest, clean, embed, publish, compare, dataset, gates, train, deploy.",
    schedule=daily(),
    allowed_run_types=["scheduled", "manual"],  # pictures land for the last day that is over: there is no backfill
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"as_of": as_of_param()},
    tags=[IMAGES.name],
    doc_md=__doc__,
) as dag:
    stages_in_order(IMAGES, [*IMAGES.daily_stages, *IMAGES.training_stages])
