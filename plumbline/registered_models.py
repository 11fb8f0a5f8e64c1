"""Which registered models there are, by the feature service they were trained on: read, never changed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from plumbline.settings import settings

NAME = "churn_xgb"


@dataclass(frozen=True)
class Registered:
    """One version of the registered model."""

    version: str
    aliases: list[str]
    feature_service: str
    data_version: str

    def __str__(self) -> str:
        roles = f" ({', '.join(sorted(self.aliases))})" if self.aliases else ""
        return f"{NAME} version {self.version}{roles}"


def versions() -> list[Registered]:
    """All versions, oldest first; none when this home has no registry yet."""
    if settings().mlflow_url is None and not (settings().home / "mlflow" / "mlflow.db").exists():
        return []
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    client = mlflow.MlflowClient(settings().mlflow_uri, settings().mlflow_uri)
    found = []
    for item in client.search_model_versions(f"name = '{NAME}'"):
        whole = client.get_model_version(NAME, item.version)  # a search leaves the aliases out
        tags = whole.tags
        found.append(
            Registered(
                str(whole.version), list(whole.aliases), tags.get("feature_service", ""), tags.get("data_version", "")
            )
        )
    return sorted(found, key=lambda model: int(model.version))
