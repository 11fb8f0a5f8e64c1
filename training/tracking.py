"""MLflow, set up so that a laptop run leaves nothing outside its home."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from plumbline.errors import ServiceUnavailable
from plumbline.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "churn_xgb"
"""The experiment and the registered model."""

CHALLENGER, CHAMPION = "challenger", "champion"
"""Aliases: training may set the first; the second is set by a rollout that completed (`serving/`)."""


def client() -> MlflowClient:
    """A client of the tracking store and registry in the settings, which are made the process's default.

    Raises ServiceUnavailable when a tracking server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if settings().mlflow_url is None:
        (settings().home / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True)
    import mlflow
    from mlflow.exceptions import MlflowException

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns that the environment has no pip, which one made by uv does not need.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(settings().mlflow_uri)
    mlflow.set_registry_uri(settings().mlflow_uri)
    found = mlflow.MlflowClient()
    try:
        found.get_experiment_by_name(NAME)
    except MlflowException as error:
        # The URL may hold a password: the setting is named, its value is not shown.
        raise ServiceUnavailable(f"MLflow (PLUMBLINE_MLFLOW_URL) does not answer: {type(error).__name__}") from None
    return found


def experiment_id(mlflow_client: MlflowClient) -> str:
    """The experiment's id; made when it does not exist, with its artifacts in home unless a server keeps them."""
    found = mlflow_client.get_experiment_by_name(NAME)
    if found is not None:
        return str(found.experiment_id)
    artifacts = None
    if settings().mlflow_url is None:
        artifacts = (settings().home / "mlflow" / "artifacts").as_uri()
    return str(mlflow_client.create_experiment(NAME, artifact_location=artifacts))


def end_killed(mlflow_client: MlflowClient, experiment: str, run_name: str) -> None:
    """Marks runs of that name that never ended as KILLED. The caller holds training's lease: nobody works on them."""
    for run in mlflow_client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.info.run_name == run_name:
            mlflow_client.set_terminated(run.info.run_id, "KILLED")
