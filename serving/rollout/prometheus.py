"""What a rollout is measured by: one scrape configuration, for the laptop and for a cluster without a mesh.

Guardrails ask for Istio's names. Envoy alone gives its own: they are renamed as they are scraped, so that the very
queries that run against a mesh run here. Every predictor is a target with the label `revision`, which is the pod
template's hash in a cluster.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from serving.rollout.errors import RolloutError
from toolchain import binaries

NAME = "rollout-prometheus"
ENVOY, PREDICTOR, JUDGE = "envoy", "predictor", "judge"
"""The jobs."""

RENAMED = {
    "envoy_cluster_upstream_rq": "istio_requests_total",
    "envoy_cluster_upstream_rq_time_bucket": "istio_request_duration_milliseconds_bucket",
    "envoy_cluster_upstream_rq_time_sum": "istio_request_duration_milliseconds_sum",
    "envoy_cluster_upstream_rq_time_count": "istio_request_duration_milliseconds_count",
}
LABELS = {"envoy_response_code": "response_code", "envoy_cluster_name": "destination_service_name"}


def scrape_config(
    envoy: str, predictors: Path | str, judge: str | None = None, interval: str = "1s", rules: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Prometheus' configuration: Envoy's admin page and the judge at `host:port`, predictors from a file_sd file.

    What `write_targets` puts into that file is read within a second or two, without a restart.
    """
    jobs: list[dict[str, Any]] = [
        {
            "job_name": ENVOY,
            "metrics_path": "/stats/prometheus",
            "static_configs": [{"targets": [envoy]}],
            "metric_relabel_configs": _istio_names(),
        },
        {"job_name": PREDICTOR, "file_sd_configs": [{"files": [str(predictors)], "refresh_interval": interval}]},
    ]
    if judge is not None:
        jobs.append({"job_name": JUDGE, "static_configs": [{"targets": [judge]}]})
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": list(rules),
        "scrape_configs": jobs,
    }


def write_targets(path: Path, predictors: Mapping[str, str]) -> None:
    """Names the predictors that are scraped: revision → `host:port`. Written in one step."""
    found = [{"targets": [where], "labels": {"revision": revision}} for revision, where in sorted(predictors.items())]
    files.write_whole(path, json.dumps(found, indent=2) + "\n")


def launch(config: Mapping[str, Any], name: str = NAME, kept: str = "1d") -> services.Launch:
    """A Prometheus of the home, apart from the one that watches the platform: it scrapes every second.

    Raises RolloutError when there is no binary.
    """
    binary = binaries.find("prometheus")
    if binary is None:
        raise RolloutError(f"a rollout is judged by Prometheus, and there is none: {binaries.HOW}")
    folder = settings().home / "rollout" / name

    def command(port: int, token: str) -> list[str]:
        where = folder / "prometheus.yml"
        files.write_whole(where, files.dumps(config))  # JSON is YAML
        data = f"--storage.tsdb.path={folder / 'data'}"
        keep = f"--storage.tsdb.retention.time={kept}"
        return [str(binary), f"--config.file={where}", data, keep, f"--web.listen-address={HOST}:{port}"]

    made_of = files.sha256(files.dumps(config).encode())
    return services.Launch(
        name,
        command,
        lambda port, token: services.answers(f"http://{HOST}:{port}/-/ready", 2) and _scrapes(port),
        more=lambda: {"made_of": made_of},
    )


class QueryError(Exception):
    """Prometheus is away or refuses the query: an analysis counts it as an error, not as a verdict."""


def query(address: str, promql: str, timeout: float = 5.0) -> list[float] | float:
    """An instant query: the values of the vector, or the scalar. Raises QueryError."""
    found = _asked(address, promql, timeout)
    if found["resultType"] == "scalar":
        return float(found["result"][1])
    if found["resultType"] != "vector":
        raise QueryError(f"a {found['resultType']}, expected a vector or a scalar")
    return [float(item["value"][1]) for item in found["result"]]


def series(address: str, promql: str, timeout: float = 5.0) -> list[tuple[dict[str, str], float]]:
    """An instant query of a vector: each element's labels and value, NaN left out. Raises QueryError."""
    values = ((item["metric"], float(item["value"][1])) for item in _asked(address, promql, timeout)["result"])
    return [(labels, value) for labels, value in values if not math.isnan(value)]


def _asked(address: str, promql: str, timeout: float) -> dict[str, Any]:
    url = f"{address.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310
            found: dict[str, Any] = json.load(response)["data"]
    except urllib.error.HTTPError as error:
        raise QueryError(f"{error.code}: {error.read().decode(errors='replace')[:300]}") from None
    except (OSError, ValueError) as error:
        raise QueryError(f"no answer from Prometheus at {address}: {error}") from None
    return found


def _scrapes(port: int) -> bool:
    """Whether Envoy was asked already: Prometheus starts to some 5 s after it is ready."""
    try:
        fresh = f'up{{job="{ENVOY}"}} == 1 and time() - timestamp(up{{job="{ENVOY}"}}) < 3'
        return bool(series(f"http://{HOST}:{port}", fresh))
    except QueryError:
        return False


def _istio_names() -> list[dict[str, Any]]:
    """Renames what has a name in Istio, keeps it and how many endpoints are there, and drops the rest."""
    kept = "|".join([*RENAMED, "envoy_cluster_membership_healthy", "envoy_cluster_upstream_rq_total"])
    return [
        {"source_labels": ["__name__"], "regex": kept, "action": "keep"},
        *({"source_labels": [was], "target_label": now} for was, now in LABELS.items()),
        {"target_label": "reporter", "replacement": "source"},
        *(
            {"source_labels": ["__name__"], "regex": was, "target_label": "__name__", "replacement": now}
            for was, now in RENAMED.items()
        ),
        {"regex": "|".join(LABELS), "action": "labeldrop"},
    ]
