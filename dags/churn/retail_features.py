"""`retail_features`: once a day, from the shop's database to the online store, with gates in between.

A run covers each day since the release in force. Instead of a backfill, trigger the last of its days by `as_of`.

`activity` closes the day's order stream, so it waits until that has reached midnight. The stages before it do not need
the stream and go on meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from airflow.sdk import DAG

from dags.churn.assets import FEATURES
from plumbline import shop
from plumbline.orchestration.tasks import as_of_param, daily, stages_in_order, stream_reached
from products.churn import CHURN

STREAM_WITHIN = timedelta(hours=1)
"""How long a run waits for the order stream before it fails and says what lags."""

with DAG(
    CHURN.daily,
    description="Orders to online features: land, transform, check, compute, publish, materialize, compare.",
    schedule=daily(),
    allowed_run_types=["scheduled", "manual"],  # a backfill runs ten days at once; one run covers them, each in turn
    start_date=datetime.combine(shop.page().first_day, time(), UTC),
    catchup=False,
    max_active_runs=1,
    params={"as_of": as_of_param()},
    tags=[CHURN.name],
    doc_md=__doc__,
) as dag:
    midnight = stream_reached("stream_reached_midnight", STREAM_WITHIN)
    stages_in_order(CHURN, CHURN.daily_stages, ahead_of={"activity": midnight}, outlets=[FEATURES])
