"""Airflow's own metrics, as it sends them by OpenTelemetry's protocol (OTLP over HTTP, protobuf), by our names.

Airflow has many short-lived processes, each with sums of its own that begin at zero; here they are added up. What is
not in MAPPED is taken and left out. Sums are kept in memory: they begin anew with the exporter, as counters may.
"""

from __future__ import annotations

import gzip
import io
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

PATH = "/v1/metrics"
LARGEST = 4 * 2**20
"""Bytes of one message, as sent and unpacked; Airflow's are a few KiB."""

SOURCES = 10_000
"""Sums of processes that are remembered, the newest; one that is forgotten and goes on would count twice."""


@dataclass(frozen=True)
class Mapped:
    """Our name, and for each of our labels Airflow's attribute, or a word that stands for itself behind `=`.

    `part` is what is taken of a histogram: its `count`, or its `sum` in milliseconds.
    """

    name: str
    labels: dict[str, str]
    part: str = "value"


_RUN = {"dag": "dag_id"}
MAPPED: dict[str, tuple[Mapped, ...]] = {
    "airflow.ti.finish": (Mapped("airflow_task_ends_total", {**_RUN, "task": "task_id", "state": "state"}),),
    "airflow.scheduler_heartbeat": (Mapped("airflow_scheduler_heartbeats_total", {}),),
    "airflow.dag_processing.import_errors": (Mapped("airflow_dag_import_errors", {}),),
    **{
        f"airflow.dagrun.duration.{state}": (
            Mapped("airflow_dag_runs_total", {**_RUN, "state": f"={state}"}, "count"),
            Mapped("airflow_dag_run_seconds_total", {**_RUN, "state": f"={state}"}, "sum"),
        )
        for state in ("success", "failed")
    },
}

Labels = tuple[tuple[str, str], ...]


class AirflowMetrics:
    """What Airflow's processes sent so far."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, Labels], float] = {}
        self._seen: OrderedDict[tuple[str, Labels, int], float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, environ: dict[str, Any]) -> str:
        """Takes one message in; the HTTP status to answer."""
        if environ["REQUEST_METHOD"] != "POST":
            return "405 Method Not Allowed"
        length, encoding = environ.get("CONTENT_LENGTH") or "0", environ.get("HTTP_CONTENT_ENCODING") or "identity"
        if not (length.isascii() and length.isdecimal()):
            return "400 Bad Request"
        if len(length) > 9 or int(length) > LARGEST:
            return "413 Content Too Large"
        if encoding not in ("identity", "gzip"):
            return "415 Unsupported Media Type"
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        try:
            body = environ["wsgi.input"].read(int(length))
            if encoding == "gzip":
                with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
                    body = packed.read(LARGEST + 1)
            if len(body) > LARGEST:
                return "413 Content Too Large"
            request = ExportMetricsServiceRequest.FromString(body)
        except (DecodeError, OSError, EOFError, zlib.error):
            return "400 Bad Request"
        with self._lock:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._add(metric)
        return "200 OK"

    def show(self, add: Callable[..., None]) -> None:
        """Every sample, by `add(name, value, **labels)`."""
        with self._lock:
            for (name, labels), value in sorted(self._totals.items()):
                add(name, value, **dict(labels))

    def _add(self, metric: Metric) -> None:
        for mapped in MAPPED.get(metric.name, ()):
            for labels, started, value in _points(metric, mapped):
                key = mapped.name, labels
                if metric.WhichOneof("data") == "gauge":
                    self._totals[key] = value
                    continue
                before = self._seen.pop((*key, started), 0.0)
                self._seen[(*key, started)] = value
                self._totals[key] = self._totals.get(key, 0.0) + max(0.0, value - before)
        while len(self._seen) > SOURCES:
            self._seen.popitem(last=False)


def _points(metric: Metric, mapped: Mapped) -> Iterator[tuple[Labels, int, float]]:
    """Labels, when its process began to count (ns), and value of each data point that has all attributes."""
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points if kind else ():
        told = {attribute.key: attribute.value.string_value for attribute in point.attributes}
        labels = {ours: theirs[1:] if theirs[0] == "=" else told.get(theirs) for ours, theirs in mapped.labels.items()}
        if None in labels.values():
            continue  # the same metric by its older name, which has no attributes
        if mapped.part == "value":
            value = float(point.as_double if point.WhichOneof("value") == "as_double" else point.as_int)
        else:
            value = float(point.count) if mapped.part == "count" else point.sum / 1000
        yield tuple(sorted((k, str(v)) for k, v in labels.items())), point.start_time_unix_nano, value
