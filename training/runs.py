"""Training: one model on a dataset, everything about it in one MLflow run.

`run.json` beside the dataset names the run. The same dataset and code again change nothing, unless MLflow no longer
holds the model that was trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline import files, provenance
from plumbline import observed as seen
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.registry import trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from training import audit, datasets, shelf, tracking
from training.datasets import Dataset
from training.errors import TrainingError
from training.shelf import Shelf

if TYPE_CHECKING:
    from mlflow import MlflowClient

STAGE = "train"


def train(place: Place) -> dict[str, Any]:
    """Trains on a dataset, or finds it trained by the same code already.

    Raises TrainingError when the dataset is not there or no leakage gate has looked at it, GateFailed when one failed.
    """
    product, part = place.product, shelf.of(place.product)
    with datasets.working(product, STAGE):
        data = datasets.load(place)
        audit.refuse_holes(product, place.release_id)
        audit.require_passed(place)
        mlflow_client = tracking.client()
        run = objects.read_json(place.key(trainings.RUN))
        if run is not None and _current(run, data, part) and _exists(mlflow_client, run["mlflow_run_id"]):
            if _whole(run):
                return _told("unchanged", run, part)
            say(f"{run['model_uri']} is not what was trained any more: training again")
        run = stage.recorded(product, place.head(STAGE), lambda: _train(mlflow_client, place, data, part))
        objects.replace_json(place.key(trainings.RUN), run)
        return _told("done", run, part)


def load(place: Place) -> dict[str, Any]:
    """What run.json says. Raises TrainingError when no model was trained on the dataset."""
    run = objects.read_json(place.key(trainings.RUN))
    if run is None:
        raise TrainingError(f"no model of release {place.name} yet: run `{place.command(STAGE)}` first")
    seen.read(place.product.runs, run["mlflow_run_id"])
    return run


def names(about: dict[str, Any], part: Shelf) -> dict[str, str]:
    """What a model was made from: the run's params and tags, and the tags of the registered version."""
    return {
        **{param: str(about[name]) for param, name in part.named.items()},
        "code_sha": provenance.code_sha(),
        "lock_hash": provenance.lock_hash(),
    }


def _train(mlflow_client: MlflowClient, place: Place, data: Dataset, part: Shelf) -> dict[str, Any]:
    import mlflow

    params, named = part.params(), names(data.about, part)
    fitted = part.fit(data)
    say("logging model, metrics and plots to MLflow")
    experiment = tracking.experiment_id(mlflow_client, place.product)
    run_name = f"{place.product.model}-r{place.name}"
    tracking.end_killed(mlflow_client, experiment, run_name)
    with mlflow.start_run(experiment_id=experiment, run_name=run_name, tags=named) as run:
        mlflow.log_params({**named, **params, **fitted.also})
        mlflow.log_metrics(fitted.metrics)
        mlflow.log_dict(data.about, trainings.ABOUT)
        plots = datasets.folder(place) / "plots"
        fitted.draw(plots)
        mlflow.log_artifacts(str(plots), "plots")
        logged = fitted.log(named)
    seen.wrote(place.product.runs, run.info.run_id)
    return {
        "mlflow_run_id": run.info.run_id,
        "model_id": logged.model_id,
        "model_uri": logged.model_uri,
        "model_sha256": files.sha256(fitted.content),
        "metrics": fitted.metrics,
        "message": fitted.message,
        "params": params,
        **named,
        "release_id": place.release_id,
    }


def _current(run: dict[str, Any], data: Dataset, part: Shelf) -> bool:
    made_from = (run[shelf.hash_name(part)], run["code_sha"], run["lock_hash"], run["params"])
    return made_from == (
        data.about["content_hash"],
        provenance.code_sha(),
        provenance.lock_hash(),
        part.params(),
    )


def _exists(mlflow_client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(mlflow_client.get_run(run_id).info.status == "FINISHED")
    except MlflowException:
        return False


def _whole(run: dict[str, Any]) -> bool:
    """Whether MLflow still holds the model that the run trained."""
    from mlflow.exceptions import MlflowException

    try:
        data = trusted_models.stored(run["model_uri"], f"the model of run {run['mlflow_run_id']}")
    except (Untrusted, MlflowException, OSError):  # whatever somebody put or left there
        return False
    return files.sha256(data) == str(run["model_sha256"])


def _told(state: str, run: dict[str, Any], part: Shelf) -> dict[str, Any]:
    versions = ("mlflow_run_id", "model_sha256", "dataset_id", part.pins[0], "release_id", "code_sha")
    return {
        "state": state,
        "what": run["message"],
        "versions": {name: run[name] for name in versions},
        "metrics": run["metrics"],
        "seconds": run["seconds"],
    }
