"""Alert rules and dashboards as Kubernetes objects: a PrometheusRule, and a ConfigMap that Grafana's sidecar finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from observability.rule import Group

NAMESPACE = "monitoring"
PART_OF = {"app.kubernetes.io/part-of": "plumbline"}


def rule(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    """The groups as a PrometheusRule."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"plumbline-{name}", "namespace": NAMESPACE, "labels": PART_OF},
        "spec": {"groups": [group.as_dict() for group in groups]},
    }


def dashboard(name: str, text: str) -> dict[str, Any]:
    """A dashboard's JSON in a ConfigMap with the label that the sidecar of Grafana's chart looks for."""
    labels = {**PART_OF, "grafana_dashboard": "1"}
    metadata = {"name": f"plumbline-dashboard-{name}", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {f"{name}.json": text}}
