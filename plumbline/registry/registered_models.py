"""MLflow's tracking store and model registry, reached in one way by all who train, serve or ask.

MLflow's own defaults would write into the folder it runs in, report home, print a server's URL with its password, and
try a server that is gone for minutes.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plumbline import s3
from plumbline.errors import ServiceUnavailable
from plumbline.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
"""Aliases: training may set the first; the others are set by whoever deploys."""

PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Tables and columns of MLflow's database that hold where artifacts are."""


@dataclass(frozen=True)
class Registered:
    """One version of the registered model."""

    name: str
    version: str
    aliases: list[str]
    feature_service: str
    data_version: str
    tags: dict[str, str] = field(default_factory=dict, hash=False, compare=False)

    def __str__(self) -> str:
        roles = f" ({', '.join(sorted(self.aliases))})" if self.aliases else ""
        return f"{self.name} version {self.version}{roles}"


def exist() -> bool:
    """Whether there is a registry to ask: a server in the settings, or what training left in this home."""
    return settings().mlflow_url is not None or (settings().home / "mlflow" / "mlflow.db").exists()


def client() -> MlflowClient:
    """A client of the tracking store and registry in the settings, which are made the process's default."""
    s3.settle_boto()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns that the environment has no pip, which one made by uv does not need.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    _follow_home()
    mlflow.set_tracking_uri(settings().mlflow_uri)
    mlflow.set_registry_uri(settings().mlflow_uri)
    return mlflow.MlflowClient()


def _follow_home() -> None:
    """Artifact addresses in this home's own database follow the home: MLflow writes them down as absolute ones.

    Only those below a home's default folder are changed; a place that PLUMBLINE_ARTIFACTS named stays.
    """
    database = settings().home / "mlflow" / "mlflow.db"
    if settings().mlflow_url is not None or not database.exists():
        return
    here = (settings().home / "mlflow" / "artifacts").as_uri()
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        places = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (place,) in places:
            if place is None or place == here or not place.endswith("/mlflow/artifacts"):
                continue
            for table, column in PLACES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(place) + 1, place, len(place) + 1, f"{place}/"),
                    )


def unanswered(error: Exception) -> ServiceUnavailable:
    """What to raise when MLflow did not answer. The URL may hold a password: the setting is named, not its value."""
    why = getattr(error, "error_code", None) or type(error).__name__
    return ServiceUnavailable(f"MLflow (PLUMBLINE_MLFLOW_URL) does not answer: {why}")


def find(name: str, model: str) -> ModelVersion | None:
    """The version of a registered model that an alias or a number names, None when there is none.

    A registry that does not exist yet is not made. Raises ServiceUnavailable.
    """
    registry = client()
    from mlflow.exceptions import MlflowException

    try:
        if model.isdecimal():
            return registry.get_model_version(name, model)
        return registry.get_model_version_by_alias(name, model)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise unanswered(error) from None


def versions(name: str) -> list[Registered]:
    """All versions of a registered model, oldest first; none when there is no registry. Raises ServiceUnavailable."""
    if not exist():
        return []
    registry = client()
    from mlflow.exceptions import MlflowException

    registered = []
    try:
        for item in registry.search_model_versions(f"name = '{name}'"):
            whole = registry.get_model_version(name, item.version)  # a search leaves the aliases out
            service, data = whole.tags.get("feature_service", ""), whole.tags.get("data_version", "")
            registered.append(
                Registered(name, str(whole.version), list(whole.aliases), service, data, dict(whole.tags))
            )
    except MlflowException as error:
        raise unanswered(error) from None
    return sorted(registered, key=lambda model: int(model.version))
