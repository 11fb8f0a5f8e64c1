"""MLflow, set up so that a laptop run leaves nothing outside its home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.product import Product
from plumbline.registry import registered_models
from plumbline.registry.registered_models import CHALLENGER, CHAMPION
from plumbline.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHALLENGER", "CHAMPION", "client", "end_killed", "experiment_id"]


def client() -> MlflowClient:
    """A client of the tracking store and registry, made when there is none. Raises ServiceUnavailable."""
    if settings().mlflow_url is None:
        (settings().home / "mlflow").mkdir(parents=True, exist_ok=True)
    found = registered_models.client()
    from mlflow.exceptions import MlflowException

    try:
        found.search_experiments(max_results=1)
    except MlflowException as error:
        raise registered_models.unanswered(error) from None
    return found


def experiment_id(mlflow_client: MlflowClient, product: Product) -> str:
    """The id of the experiment, which is called as the product's model; made when it does not exist, with its
    artifacts where PLUMBLINE_ARTIFACTS says."""
    found = mlflow_client.get_experiment_by_name(product.model)
    if found is not None:
        return str(found.experiment_id)
    return str(mlflow_client.create_experiment(product.model, artifact_location=settings().artifacts_uri))


def end_killed(mlflow_client: MlflowClient, experiment: str, run_name: str) -> None:
    """Marks runs of that name that never ended as KILLED. The caller holds training's lease: nobody works on them."""
    for run in mlflow_client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.info.run_name == run_name:
            mlflow_client.set_terminated(run.info.run_id, "KILLED")
