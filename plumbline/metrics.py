"""The metric schema: every metric's name, type, unit, labels and meaning, one table for code, rules and dashboards.

A metric that is not in the table cannot be made. Units: `ms` milliseconds, `s` seconds, `pct` 0 to 100, `ratio` 0 to
1, `1` a count. `PREDICTOR` is what a predictor serves, `EXPORTER` what `plumb exporter` does, with those of each
contracted dataset (`of_dataset`): a new contract brings its metrics; `JUDGE` is what `plumb judge` serves, `STREAM`
what `plumb events run` does. `EXTERNAL` are others' that rules, dashboards and guardrails read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from plumbline.errors import PlumblineError


@dataclass(frozen=True)
class Metric:
    """One metric. `buckets` are a histogram's upper bounds, in its unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


PRODUCT = ("product",)
TRACK = ("model_version", "track")

PREDICTOR: tuple[Metric, ...] = (
    Metric(
        "prediction_latency_ms",
        "histogram",
        "ms",
        "From a decoded prediction request to its answer inside the predictor, per scored request. `input` is what it "
        "asked by, as v2 names it; of two, the one that is more work.",
        (*PRODUCT, *TRACK, "input"),
        (1, 2, 3, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000, 2000),
    ),
    Metric(
        "pct_missing_features",
        "histogram",
        "pct",
        "Share of null model inputs in a scored request, mean over its customers. A histogram, so that its mean over "
        "any window and any number of replicas is rate(_sum) / rate(_count).",
        (*PRODUCT, *TRACK),
        (0, 5, 10, 15, 20, 30, 40, 50, 75, 100),
    ),
    Metric(
        "predictions_total",
        "counter",
        "1",
        "Answers to prediction requests, refusals included, by HTTP status (gRPC codes as the status they stand for).",
        (*PRODUCT, "protocol", "status"),
    ),
    Metric(
        "predictions_refused_total",
        "counter",
        "1",
        "Requests that were refused, by why: of a picture what cleaning calls it (plumbline/pictures/decode.py), of an "
        "id `unknown`, `unfit`, `lost`; `malformed`, `too_much`, `busy` and others (serving/errors.py).",
        (*PRODUCT, "status", "reason"),
    ),
    Metric(
        "predictions_in_flight",
        "gauge",
        "1",
        "Prediction requests that are being answered now. It is there from when the model is loaded: who has none has "
        "no predictor.",
        PRODUCT,
    ),
    Metric("outcome_log_rows_total", "counter", "1", "Scored entities written to the outcome log.", PRODUCT),
    Metric(
        "outcome_log_dropped_total",
        "counter",
        "1",
        "Scored entities whose outcome log row was dropped: `full`, the queue had no room; `closed`, the lake did not "
        "take them by the time the predictor stopped.",
        (*PRODUCT, "reason"),
    ),
    Metric(
        "model_refused",
        "gauge",
        "1",
        "1 when this version, the champion, was refused for its signature and the previous one serves in its place.",
        (*PRODUCT, "model_version"),
    ),
    Metric("outcome_log_failures_total", "counter", "1", "Writes of the outcome log that the lake refused.", PRODUCT),
)

STAGE = ("product", "stage")

EXPORTER: tuple[Metric, ...] = (
    Metric("plumbline_clock_seconds", "gauge", "s", "The platform's now as Unix time; a replay's lies in the past."),
    Metric("plumbline_replay", "gauge", "1", "1 when the platform's now is a setting and not the real time."),
    Metric("exporter_collect_seconds", "gauge", "s", "What this scrape took to collect."),
    Metric(
        "exporter_unreadable_total",
        "counter",
        "1",
        "Things a scrape could not read, each time it could not: the metrics that need them are absent then.",
        ("what",),
    ),
    Metric("release_id", "gauge", "1", "The number of the release in force.", PRODUCT),
    Metric("release_age_seconds", "gauge", "s", "Since the release in force was published, platform's clock.", PRODUCT),
    Metric(
        "release_covers_until_timestamp_seconds", "gauge", "s", "End of the last day in force, as Unix time.", PRODUCT
    ),
    Metric("online_release_id", "gauge", "1", "The number of the release that was materialized last.", PRODUCT),
    Metric(
        "materialization_lag_seconds",
        "gauge",
        "s",
        "Real time since the release in force was published without being online; 0 when it is online.",
        PRODUCT,
    ),
    Metric("online_rows", "gauge", "1", "Entities whose whole row Redis holds; absent while none is online.", PRODUCT),
    Metric(
        "online_rows_written",
        "gauge",
        "1",
        "Entities whose rows were written for the release that is online.",
        PRODUCT,
    ),
    Metric(
        "feature_parity_mismatch_ratio",
        "gauge",
        "ratio",
        "Share of values that differed between online and offline in the newest parity check.",
        PRODUCT,
    ),
    Metric("gate_passed", "gauge", "1", "1 when the gate's newest verdict is passed, 0 failed.", ("product", "gate")),
    Metric("gate_verdicts_total", "counter", "1", "Verdicts of a gate.", ("product", "gate", "verdict")),
    Metric("stage_seconds", "gauge", "s", "How long the stage's newest run took that ended.", STAGE),
    Metric(
        "stage_last_timestamp_seconds", "gauge", "s", "When the stage's newest run began or ended, as Unix time.", STAGE
    ),
    Metric("stage_running_seconds", "gauge", "s", "Real time since a start that no end has followed.", STAGE),
    Metric(
        "stage_state",
        "gauge",
        "1",
        "1 for the state of the stage's newest run, 0 for the others: running, complete, fail, gate_failed, killed.",
        ("product", "stage", "state"),
    ),
    Metric(
        "stage_rows",
        "gauge",
        "1",
        "Rows that the stage's newest run that was done brought to a table.",
        (*STAGE, "table"),
    ),
    Metric("stage_runs_total", "counter", "1", "Runs of a stage that ended, by how.", ("product", "stage", "state")),
    Metric(
        "landing_records_total",
        "counter",
        "1",
        "Rows that a source showed to landing: `landed` in raw, or `quarantined`.",
        ("product", "table", "outcome"),
    ),
    Metric(
        "champion_version", "gauge", "1", "The registered model's version that was deployed last.", ("product", "model")
    ),
    Metric(
        "champion_metric",
        "gauge",
        "1",
        "A metric of the champion's training run, on what was held out.",
        ("product", "model", "model_version", "metric"),
    ),
    Metric(
        "dataset_rows", "gauge", "1", "Rows of the newest dataset, by its split: train, val, test.", (*PRODUCT, "split")
    ),
    Metric("clean_pictures", "gauge", "1", "Pictures that the newest cleaning came to as clean.", PRODUCT),
    Metric(
        "quarantined_pictures",
        "gauge",
        "1",
        "Pictures that the newest cleaning set aside, by reason (plumbline/pictures/decode.py).",
        (*PRODUCT, "reason"),
    ),
    Metric(
        "near_duplicate_groups",
        "gauge",
        "1",
        "Groups of at least two clean pictures that look alike: each is on one side of a split.",
        PRODUCT,
    ),
    Metric("lineage_emit_failures_total", "counter", "1", "Lineage events that the lineage server did not take."),
    Metric(
        "conversion_rate",
        "gauge",
        "ratio",
        "Share of scored customers who ordered within the label's window, contacted or not. Simulated.",
        TRACK,
    ),
    Metric("call_center_load", "gauge", "1", "Calls to support per scored customer. Simulated.", TRACK),
    Metric(
        "retained_customers",
        "gauge",
        "1",
        "Customers who were contacted as likely to leave, and ordered. Simulated.",
        TRACK,
    ),
    Metric("avg_handle_time", "gauge", "s", "Mean time that support took for a call. Simulated.", TRACK),
)

PAIR = ("canary", "stable")

JUDGE: tuple[Metric, ...] = (
    Metric(
        "canary_kpi_p_value",
        "gauge",
        "1",
        "Smallest anytime-valid p-value so far of the canary being no worse than stable in this KPI: at or below a "
        "level at any time at all with at most that probability when it is not. Outcomes are simulated here.",
        ("kpi", *PAIR),
    ),
    Metric(
        "canary_kpi_difference",
        "gauge",
        "1",
        "The KPI of the canary less that of stable, in its unit, at stable's rate. Outcomes are simulated here.",
        ("kpi", *PAIR),
    ),
    Metric(
        "canary_kpi_difference_lower",
        "gauge",
        "1",
        "Lower end of the difference's confidence sequence, which holds at all times together. Outcomes are simulated.",
        ("kpi", *PAIR),
    ),
    Metric(
        "canary_kpi_difference_upper",
        "gauge",
        "1",
        "Upper end of the difference's confidence sequence, which holds at all times together. Outcomes are simulated.",
        ("kpi", *PAIR),
    ),
    Metric("canary_kpi_rate", "gauge", "1", "The KPI of a revision. Outcomes are simulated here.", ("kpi", "revision")),
    Metric(
        "canary_kpi_observations",
        "gauge",
        "1",
        "Requests of a revision whose outcome is known, counted while it was one side of a canary. Simulated here.",
        ("kpi", "revision"),
    ),
    Metric("canary_score_psi", "gauge", "1", "Population stability index of the canary's scores to stable's.", PAIR),
    Metric("judge_failures_total", "counter", "1", "Rounds of the judge that could not read the log or the template."),
)
"""What `plumb judge` serves; `canary` and `stable` are revisions."""

PARTITION = ("topic", "partition")
STREAM_SERVER = "events"
"""The order stream's name among a home's servers."""

STREAM: tuple[Metric, ...] = (
    Metric("events_landed_total", "counter", "1", "Order events that landed in raw.", PRODUCT),
    Metric(
        "events_late_total",
        "counter",
        "1",
        "Of the events that landed, those that reached the broker more than a minute after the order was placed: what "
        "came to them before is the sender's, so freshness leaves them out.",
        PRODUCT,
    ),
    Metric("events_duplicates_total", "counter", "1", "Messages that said again what had landed.", PRODUCT),
    Metric(
        "events_dead_letters_total",
        "counter",
        "1",
        "Messages that are no events of the contract, by reason (ingestion/events/order_events.py).",
        (*PRODUCT, "reason"),
    ),
    Metric(
        "events_freshness_seconds",
        "histogram",
        "s",
        "From when an order was placed to when its customer's features could be read in Redis, per event that landed "
        "and was not late.",
        PRODUCT,
        (0.5, 1, 1.5, 2, 3, 4, 5, 6, 7.5, 10, 15, 30, 60, 300, 3600, 86400),
    ),
    Metric(
        "events_batch_seconds",
        "histogram",
        "s",
        "What a micro-batch took, from its offsets to Redis and the books.",
        PRODUCT,
        (0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 30, 60),
    ),
    Metric(
        "events_known_at_timestamp_seconds",
        "gauge",
        "s",
        "The instant of the newest batch, platform's clock, as Unix time: how far the stream is.",
        PRODUCT,
    ),
    Metric("kafka_topic_partition_current_offset", "gauge", "1", "The end of a partition.", PARTITION),
    Metric(
        "kafka_consumergroup_current_offset",
        "gauge",
        "1",
        "Where a consumer group is in a partition.",
        ("consumergroup", *PARTITION),
    ),
    Metric(
        "kafka_consumergroup_lag",
        "gauge",
        "1",
        "Messages of a partition that a consumer group has not landed.",
        ("consumergroup", *PARTITION),
    ),
)
"""What `plumb events run` serves; the last three are named as kafka_exporter names them, which may serve them too."""

AIRFLOW: tuple[Metric, ...] = (
    Metric("airflow_task_ends_total", "counter", "1", "Task instances that ended, by how.", ("dag", "task", "state")),
    Metric("airflow_dag_runs_total", "counter", "1", "DAG runs that ended, by how.", ("dag", "state")),
    Metric("airflow_dag_run_seconds_total", "counter", "s", "What those runs took, all together.", ("dag", "state")),
    Metric("airflow_scheduler_heartbeats_total", "counter", "1", "Heartbeats of the scheduler's loop."),
    Metric("airflow_dag_import_errors", "gauge", "1", "DAG files that could not be imported."),
)
"""Airflow's own, which it sends to the exporter by OpenTelemetry's protocol."""

SCHEMA = (*PREDICTOR, *EXPORTER, *JUDGE, *STREAM, *AIRFLOW)

EXTERNAL: dict[str, str] = {
    "up": "Prometheus: 1 when the target answered the newest scrape",
    "ALERTS": "Prometheus: the alerts that are pending or firing",
    "ALERTS_FOR_STATE": "Prometheus: since when, as Unix time",
    "scrape_duration_seconds": "Prometheus: how long a scrape took",
    "istio_requests_total": "Istio's proxies: requests by response_code and destination_service_name",
    "istio_request_duration_milliseconds_bucket": "Istio's proxies: how long they took, by destination_service_name",
    "istio_agent_cert_expiry_seconds": "Istio's proxies: seconds left of a certificate, by resource_name",
    "citadel_server_root_cert_expiry_timestamp": "istiod: when the mesh's root ends, as Unix time",
    "citadel_server_cert_chain_expiry_timestamp": "istiod: when the certificate that signs the proxies' ends",
    "kube_node_status_condition": "kube-state-metrics: 1 for a node's condition and its status",
    "argocd_app_info": "Argo CD: 1 an Application, by name, project, sync_status, health_status",
    "argocd_app_sync_total": "Argo CD: syncs that ended, by name, project, phase, dry_run",
    "rollout_info": "Argo Rollouts: 1 a Rollout, by namespace, name, phase",
    "rollout_info_replicas_available": "Argo Rollouts: a Rollout's pods that are available",
    "rollout_info_replicas_desired": "Argo Rollouts: how many it should have",
}
"""What rules, dashboards and guardrails may read besides the schema, and who makes it."""


@cache
def instrument(name: str) -> Any:
    """The Prometheus instrument of a metric in the schema, one a process. Raises PlumblineError for any other name."""
    import prometheus_client

    found = next((metric for metric in SCHEMA if metric.name == name), None)
    if found is None:
        raise PlumblineError(f"no metric {name!r} in plumbline.metrics.SCHEMA; it has {[m.name for m in SCHEMA]}")
    if found.kind == "histogram":
        return prometheus_client.Histogram(found.name, found.help, found.labels, buckets=found.buckets)
    kind = prometheus_client.Counter if found.kind == "counter" else prometheus_client.Gauge
    return kind(found.name, found.help, found.labels)
