"""Training: one model and two baselines on a release's dataset, everything about them in one MLflow run.

`training/<product>/<release_id>/run.json` names the run. The same dataset and code again change nothing, unless MLflow
no longer holds the booster that was trained.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from importlib import metadata
from typing import TYPE_CHECKING, Any

from plumbline import clock, files, provenance
from plumbline import observed as seen
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.registry import trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.state import objects, releases, trainings
from products.churn import CHURN
from training import audit, datasets, evaluate, tracking
from training.churn import baselines, dataset, labels, model, plots
from training.churn.dataset import PRODUCT
from training.datasets import Dataset
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from mlflow import MlflowClient
    from numpy.typing import NDArray

SERVED_WITH = ("mlflow", "numpy", "pandas", "scipy", "xgboost-cpu")
"""What loading and scoring the model needs. Named by hand: inference finds both `xgboost` and `xgboost-cpu`."""

EXAMPLE_ROWS = 3

PREFIXES = {"model": "", "BG/NBD": "baseline_bgnbd_", "recency": "baseline_recency_"}
"""How the names of their metrics begin."""


def train(release: int | None = None) -> dict[str, Any]:
    """Trains on the dataset of a release (default: the one in force), or finds it trained by the same code already.

    Raises TrainingError when the dataset is not there or no leakage gate has looked at it, GateFailed when one failed.
    """
    found = releases.required(PRODUCT, release)
    with datasets.working("train"):
        data = datasets.load(found.release_id)
        audit.refuse_holes(found.release_id)
        audit.require_passed(found.release_id)
        mlflow_client = tracking.client()
        run = objects.read_json(key(found.release_id))
        if run is not None and _current(run, data) and _exists(mlflow_client, run["mlflow_run_id"]):
            if _whole(run):
                return _told("unchanged", run)
            say(f"{run['model_uri']} is not what was trained any more: training again")
        head = {"run_id": f"{PRODUCT}-training-{found.release_id}", "stage": "train", "release_id": found.release_id}
        run = stage.recorded(CHURN, head, lambda: _train(mlflow_client, data))
        objects.replace_json(key(found.release_id), run)
        return _told("done", run)


def load_run(release_id: int) -> dict[str, Any]:
    """What run.json says. Raises TrainingError when the release has no trained model."""
    run = objects.read_json(key(release_id))
    if run is None:
        raise TrainingError(f"no model of release {release_id} yet: run `plumb train --release {release_id}` first")
    seen.read(CHURN.runs, run["mlflow_run_id"])
    return run


def key(release_id: int) -> str:
    """The key of the object that names a release's run."""
    return datasets.key(release_id, trainings.RUN)


def _train(mlflow_client: MlflowClient, data: Dataset) -> dict[str, Any]:
    import mlflow

    training, test = data.part(test=False), data.part(test=True)
    churned = test["churned"].to_numpy()
    params = model.Params()
    say(f"training on {len(training):,} rows of {data.about['dataset_id']}")
    booster = model.fit(training, data.features, params)
    say("baselines: days since the last order, BG/NBD")
    scores, fitted = _scores(booster, data, training, test)
    metrics = {"base_rate": round(float(churned.mean()), 6)}
    for name, probability in scores.items():
        metrics |= evaluate.metrics(churned, probability, PREFIXES[name])
    named = names(data.about)
    say("logging model, metrics and plots to MLflow")
    experiment = tracking.experiment_id(mlflow_client)
    run_name = f"{tracking.NAME}-r{data.about['release_id']}"
    tracking.end_killed(mlflow_client, experiment, run_name)
    with mlflow.start_run(experiment_id=experiment, run_name=run_name, tags=named) as run:
        mlflow.log_params({**named, **asdict(params), **fitted})
        mlflow.log_metrics(metrics)
        mlflow.log_dict(data.about, "dataset.json")
        gain = booster.get_score(importance_type="total_gain")
        title = f"{data.about['dataset_id']}, test day {data.about['observations']['test']}"
        folder = datasets.folder(int(data.about["release_id"])) / "plots"
        plots.draw(folder, churned, scores, {str(k): _number(v) for k, v in gain.items()}, title)
        mlflow.log_artifacts(str(folder), "plots")
        logged = log_model(booster, test, data.features, named)
    seen.wrote(CHURN.runs, run.info.run_id)
    return {
        "mlflow_run_id": run.info.run_id,
        "model_id": logged.model_id,
        "model_uri": logged.model_uri,
        "model_sha256": files.sha256(model.serialized(booster)),
        "metrics": metrics,
        "message": _message(metrics),
        "params": asdict(params),
        **named,
        "release_id": int(data.about["release_id"]),
    }


def _scores(
    booster: xgboost.Booster, data: Dataset, training: pd.DataFrame, test: pd.DataFrame
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """P(churn) of the test rows by the model and the baselines, and BG/NBD's parameters, if it has a best fit."""
    observed = date.fromisoformat(data.about["observations"]["test"])
    orders = _orders_known(data.about["orders_version"], observed)
    days = "days_since_last_order"
    if days not in data.features:
        raise TrainingError(
            f"the recency baseline needs {days}, which {data.about['feature_service']} does not give: keep it in the "
            "service, the model is judged beside it"
        )
    scores = {
        "model": model.probability(booster, test),
        "recency": baselines.recency(training[days].to_numpy(), training["churned"].to_numpy(), test[days].to_numpy()),
    }
    bgnbd = baselines.bgnbd(orders, observed, test["customer_id"].to_numpy(), labels.horizon_days())
    if bgnbd is None:
        say("BG/NBD has no best fit to these orders: the model is judged beside the other baseline alone")
        return scores, {}
    scores["BG/NBD"], fitted = bgnbd
    return scores, {f"bgnbd_{name}": round(value, 6) for name, value in asdict(fitted).items()}


def _orders_known(pinned: str, observed: date) -> pd.DataFrame:
    """The orders that were known when the day was observed, from a name like `delta:analytics.orders@v=3`."""
    import pyarrow.compute as pc

    version = int(pinned.rpartition("=")[2])
    orders = lake.open_table(dataset.ORDERS, version).to_pyarrow_table(
        columns=["customer_id", "order_date", "known_at"]
    )
    known = orders.filter((pc.field("known_at") < clock.end_of(observed)) & (pc.field("order_date") <= observed))
    frame: pd.DataFrame = known.select(["customer_id", "order_date"]).to_pandas(date_as_object=False)
    return frame


def log_model(booster: xgboost.Booster, test: pd.DataFrame, features: list[str], named: dict[str, str]) -> Any:
    """Logs a model into the MLflow run that is open, in xgboost's own format, with a signature of its columns."""
    import mlflow.xgboost
    from mlflow.models import infer_signature

    example = model.matrix(test.head(EXAMPLE_ROWS), features)
    return mlflow.xgboost.log_model(
        booster,
        name="model",
        model_format="ubj",
        signature=infer_signature(example, model.probability(booster, test.head(EXAMPLE_ROWS))),
        input_example=example,
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVED_WITH],
        metadata=named,
    )


def names(about: dict[str, Any]) -> dict[str, str]:
    """What a model was made from: the run's params and tags, and the tags of the registered version."""
    taken = ("data_version", "orders_version", "dataset_id", "cutoff", "release_id", "feature_service")
    return {
        **{name: str(about[name]) for name in taken},
        "dataset_hash": about["content_hash"],
        "code_sha": provenance.code_sha(),
        "lock_hash": provenance.lock_hash(),
    }


def _current(run: dict[str, Any], data: Dataset) -> bool:
    made_from = (run["dataset_hash"], run["code_sha"], run["lock_hash"], run["params"])
    return made_from == (
        data.about["content_hash"],
        provenance.code_sha(),
        provenance.lock_hash(),
        asdict(model.Params()),
    )


def _exists(mlflow_client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(mlflow_client.get_run(run_id).info.status == "FINISHED")
    except MlflowException:
        return False


def _whole(run: dict[str, Any]) -> bool:
    """Whether MLflow still holds the booster that the run trained."""
    from mlflow.exceptions import MlflowException

    try:
        data = trusted_models.stored(run["model_uri"], f"the model of run {run['mlflow_run_id']}")
    except (Untrusted, MlflowException, OSError):  # whatever somebody put or left there
        return False
    return files.sha256(data) == str(run["model_sha256"])


def _number(value: float | list[float]) -> float:
    return float(value[0] if isinstance(value, list) else value)


def _message(m: dict[str, float]) -> str:
    others = {name: prefix for name, prefix in PREFIXES.items() if prefix and f"{prefix}log_loss" in m}
    loss, area = (
        " and ".join(f"{name} {m[prefix + of]:.4f}" for name, prefix in others.items())
        for of in ("log_loss", "roc_auc")
    )
    return f"log loss {m['log_loss']:.4f}, against {loss}; ROC-AUC {m['roc_auc']:.4f}, against {area}"


def _told(state: str, run: dict[str, Any]) -> dict[str, Any]:
    versions = ("mlflow_run_id", "model_sha256", "dataset_id", "data_version", "release_id", "code_sha")
    return {
        "state": state,
        "what": run["message"],
        "versions": {name: run[name] for name in versions},
        "metrics": run["metrics"],
        "seconds": run["seconds"],
    }
