"""What else reads a table: dbt models behind it, the feature job, Feast's services, registered models, gates."""

from __future__ import annotations

from typing import Any

from feature_repo import store
from feature_repo.churn.jobs import preview_sql
from plumbline.registry import registered_models
from products.churn import CHURN
from validation.churn import suites

FEATURES = "features.customers"


def of(table: str, manifest: dict[str, Any]) -> list[str]:
    """A line for each reader, nearest first. `manifest` is dbt's, empty when dbt did not run."""
    found = [f"dbt: {name}" for name in _downstream(table, manifest)]
    found += [f"gate: {gate}" for gate in _gates(table)]
    if table in preview_sql.READS:
        found.append(f"feature job: feature_repo/churn/jobs/customers.sql → {FEATURES}, and all that reads it:")
    if table in (*preview_sql.READS, FEATURES):
        found += _feast()
    return found


def _downstream(table: str, manifest: dict[str, Any]) -> list[str]:
    nodes, children = manifest.get("nodes", {}), manifest.get("child_map", {})
    start = [
        key
        for key, node in nodes.items()
        if f"{node.get('schema', '').removeprefix('preview_')}.{node.get('alias')}" == table
    ]
    reached: list[str] = []
    while start:
        for child in children.get(start.pop(), []):
            if child.startswith("model.") and child not in reached:
                reached.append(child)
                start.append(child)
    return [nodes[key]["original_file_path"] for key in reached]


def _gates(table: str) -> list[str]:
    """Columns of the table that the gate's expectations name."""
    return [f"ge_check names {', '.join(suites.columns())}"] if table == "analytics.orders" else []


def _feast() -> list[str]:
    lines = [f"Feast: view {CHURN.view}"]
    models = registered_models.versions(CHURN.model)
    defined = store.features_by_service(CHURN)
    for service, features in defined.items():
        theirs = [str(model) for model in models if model.feature_service == service]
        lines.append(f"Feast: service {service} ({len(features)} features) ← {', '.join(theirs) or 'no model yet'}")
    lines += [
        f"{model}, of service {model.feature_service}, which definitions.py does not name"
        for model in models
        if model.feature_service not in defined
    ]
    return lines
