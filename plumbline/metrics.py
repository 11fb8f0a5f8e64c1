"""The metric schema: every metric's name, type, unit, labels and meaning, in one table that code and dashboards share.

A metric that is not in the table cannot be made. Units: `ms` milliseconds, `pct` 0 to 100, `1` a count.
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


SCHEMA: tuple[Metric, ...] = (
    Metric(
        "prediction_latency_ms",
        "histogram",
        "ms",
        "From a decoded prediction request to its answer inside the predictor, per scored request.",
        ("model_version", "track"),
        (1, 2, 3, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000, 2000),
    ),
    Metric(
        "pct_missing_features",
        "histogram",
        "pct",
        "Share of null model inputs in a scored request, mean over its customers. A histogram, so that its mean over "
        "any window and any number of replicas is rate(_sum) / rate(_count).",
        ("model_version", "track"),
        (0, 5, 10, 15, 20, 30, 40, 50, 75, 100),
    ),
    Metric(
        "predictions_total",
        "counter",
        "1",
        "Answers to prediction requests, refusals included, by HTTP status (gRPC codes as the status they stand for).",
        ("protocol", "status"),
    ),
    Metric("predictions_in_flight", "gauge", "1", "Prediction requests that are being answered now."),
    Metric("outcome_log_rows_total", "counter", "1", "Scored customers written to the outcome log."),
    Metric(
        "outcome_log_dropped_total",
        "counter",
        "1",
        "Scored customers whose outcome log row was dropped: `full`, the queue had no room; `closed`, the lake did not "
        "take them by the time the predictor stopped.",
        ("reason",),
    ),
    Metric(
        "model_refused",
        "gauge",
        "1",
        "1 when this version, the champion, was refused for its signature and the previous one serves in its place.",
        ("model_version",),
    ),
    Metric("outcome_log_failures_total", "counter", "1", "Writes of the outcome log that the lake refused."),
)


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
