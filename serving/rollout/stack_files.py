"""What Envoy and Prometheus of the compose stack are started with, made of the files that a cluster gets.

`python -m serving.rollout.stack_files` writes docker/stack/envoy.json and prometheus.yml. With `--check`, as in lint,
it fails when they are not what would be written.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from plumbline.settings import ROOT
from plumbline.state import slots
from products.churn import CHURN
from serving.launch import ready
from serving.rollout import envoy, manifests, prometheus, stack

FOLDER = ROOT / "docker" / "stack"


def texts() -> dict[str, str]:
    """File name → text."""
    virtual_service = manifests.read(manifests.virtual_service(CHURN), "VirtualService")
    proxy = envoy.stack_bootstrap(virtual_service, stack.CALLERS, stack.ADMIN, slots.PORT, ready(CHURN))
    return {"envoy.json": _json(proxy), "prometheus.yml": _json(_prometheus())}


def _prometheus() -> dict[str, Any]:
    """Each second what a rollout is judged by; the rest every five."""
    made = prometheus.scrape_config(
        f"{stack.ENVOY}:{stack.ADMIN}", "", f"{CHURN.name}-judge:9103", rules=("/rules/*.yml",)
    )
    sd = {"http_sd_configs": [{"url": "http://exporter:9102/targets", "refresh_interval": "2s"}]}
    slow = {"scrape_interval": "5s", "scrape_timeout": "5s"}
    jobs = [job for job in made["scrape_configs"] if job["job_name"] != prometheus.PREDICTOR]
    return {
        **made,
        "global": {**made["global"], "evaluation_interval": "5s"},
        "alerting": {"alertmanagers": [_if_there("alertmanager", 9093)]},
        "scrape_configs": [
            *jobs,
            {"job_name": prometheus.PREDICTOR, **sd},
            {"job_name": "exporter", **slow, "static_configs": [{"targets": ["exporter:9102"]}]},
            {"job_name": "order-stream", **slow, **_if_there("stream", 9104)},
            {"job_name": "kafka-exporter", **slow, **_if_there("kafka-exporter", 9308)},
        ],
    }


def _if_there(name: str, port: int) -> dict[str, Any]:
    """A service of a profile: where it is not started, it is no target that is down."""
    return {"dns_sd_configs": [{"names": [name], "type": "A", "port": port, "refresh_interval": "15s"}]}


def _json(document: Any) -> str:
    return json.dumps(document, indent=1) + "\n"


def main() -> None:
    """Exit code 1 with the names when `--check` finds a difference."""
    made = texts()
    if sys.argv[1:] == ["--check"]:
        old = [
            name for name, text in made.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
        ]
        if old:
            sys.exit(f"docker/stack: {', '.join(old)} not as made of k8s/: `make generate`")
        return
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
