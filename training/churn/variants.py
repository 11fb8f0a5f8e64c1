"""Models to roll out on purpose: a good one, and bad ones that only live traffic gives away. For demos and tests.

Each is trained on the real dataset of a release, logged, signed and registered like any other, with the tag
`variant`; none gets an alias, so that none is deployed by mistake. Nothing else about them is special: what stops
the bad ones is what would stop a bad model of yours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from plumbline import observed
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.registry import trusted_models
from plumbline.registry.trusted_models import SIGNED_BY
from plumbline.state import trainings
from products.churn import CHURN
from training import datasets, evaluate, runs, tracking
from training.churn import leaky, model
from training.churn.shelf import SHELF
from training.churn.train import log_model
from training.datasets import Dataset
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from mlflow import MlflowClient

TAG = "variant"
TRAINED, REGISTERED = "variant_train", "variant_register"
"""Its stages: what `train` and `register` are for a model of the training run."""

COPIES = 400
"""How often the slow model holds each tree, with leaves as much smaller: the same answers, that much later."""

SWAPPED = {"days_since_last_order": "orders_total", "orders_total": "days_since_last_order"}
MOSTLY_MISSING = ("avg_ticket_30d", "days_between_orders", "days_since_last_order", "orders_total", "orders_90d")


@dataclass(frozen=True)
class Variant:
    """What it is in a sentence, and how it is made of a dataset and a seed."""

    what: str
    fit: Callable[[Dataset, int], xgboost.Booster]


def _retrained(data: Dataset, seed: int) -> xgboost.Booster:
    return model.fit(data.part(test=False), data.features, model.Params(seed=seed))


def _leaky(data: Dataset, seed: int) -> xgboost.Booster:
    """Trained on what was known only later: excellent in evaluation, wrong in service."""
    twin = leaky.twin(data)
    return model.fit(twin.part(test=False), data.features, model.Params(seed=seed))


def _swapped(data: Dataset, seed: int) -> xgboost.Booster:
    """Two inputs change places, as when a list of columns is reordered on one side only."""
    rows: pd.DataFrame = data.part(test=False).rename(columns=SWAPPED)
    import xgboost

    matrix = xgboost.DMatrix(model.matrix(rows, data.features), label=rows["churned"].to_numpy(), nthread=1)
    params = {**model.Params(seed=seed).booster(data.features), "monotone_constraints": None}
    return xgboost.train({k: v for k, v in params.items() if v is not None}, matrix, num_boost_round=100)


def _features(data: Dataset, seed: int) -> xgboost.Booster:
    """Inputs that most customers lack: it scores all the same, from next to nothing."""
    kept = [name for name in data.features if name in MOSTLY_MISSING]
    return model.fit(data.part(test=False), kept, model.Params(seed=seed))


def _slow(data: Dataset, seed: int) -> xgboost.Booster:
    """The good model as an ensemble of copies of itself: the same scores, by that many times the trees."""
    import xgboost

    whole = json.loads(bytes(_retrained(data, seed).save_raw("json")))
    learned = whole["learner"]["gradient_booster"]["model"]
    trees = []
    for tree in learned["trees"]:
        weights = [
            value / COPIES if left == -1 else value
            for value, left in zip(tree["split_conditions"], tree["left_children"], strict=True)
        ]
        trees.append({**tree, "split_conditions": weights})
    many = [{**tree, "id": number} for number, tree in enumerate(trees * COPIES)]
    learned["trees"], learned["tree_info"] = many, [0] * len(many)
    learned["gbtree_model_param"]["num_trees"] = str(len(many))
    learned["iteration_indptr"] = list(range(len(many) + 1))
    found = xgboost.Booster({"nthread": 1})
    found.load_model(bytearray(json.dumps(whole).encode()))
    return found


VARIANTS = {
    "retrained": Variant("the same model from another seed", _retrained),
    "leaky": Variant("trained on the leaky twin: on what was known only later", _leaky),
    "swapped": Variant("two of its inputs have changed places", _swapped),
    "slow": Variant(f"{COPIES} times the trees for the same scores", _slow),
    "features": Variant("most of its inputs are missing for most customers", _features),
}


def register(kind: str, release: int | None = None) -> dict[str, Any]:
    """Makes and registers a variant on the dataset of a release (default: the one in force); its version and metrics.

    Raises TrainingError for an unknown kind, or without a dataset.
    """
    if kind not in VARIANTS:
        raise TrainingError(f"no variant {kind!r}: there are {', '.join(VARIANTS)}")
    place = trainings.place(CHURN, release)
    head = {"run_id": f"{CHURN.name}-variant-{place.name}-{kind}", "release_id": place.release_id}
    registry = tracking.client()
    with datasets.working(CHURN, TRAINED):
        data = datasets.load(place)
        run = stage.recorded(CHURN, {**head, "stage": TRAINED}, lambda: _train(registry, kind, data))
    with datasets.working(CHURN, REGISTERED):
        observed.read(CHURN.runs, run["mlflow_run_id"])
        made = stage.recorded(CHURN, {**head, "stage": REGISTERED}, lambda: _register(registry, kind, run))
    return {"version": made["version"], "variant": kind, "what": VARIANTS[kind].what, "metrics": run["metrics"]}


def _train(registry: MlflowClient, kind: str, data: Dataset) -> dict[str, Any]:
    import mlflow

    seed = model.Params().seed + len(registry.search_model_versions(f"name = '{CHURN.model}'"))
    say(f"making a model to roll out, {kind}: {VARIANTS[kind].what}")
    booster = VARIANTS[kind].fit(data, seed)
    test = data.part(test=True)
    metrics = evaluate.metrics(test["churned"].to_numpy(), model.probability(booster, test))
    named = {**runs.names(data.about, SHELF), TAG: kind}
    run_name = f"{CHURN.model}-r{data.about['release_id']}-{kind}"
    with mlflow.start_run(experiment_id=tracking.experiment_id(registry, CHURN), run_name=run_name, tags=named) as run:
        mlflow.log_params({**asdict(model.Params(seed=seed)), TAG: kind})
        mlflow.log_metrics(metrics)
        logged = log_model(booster, test, booster.feature_names or [], named)
    observed.wrote(CHURN.runs, run.info.run_id)
    return {
        "mlflow_run_id": run.info.run_id,
        "model_id": logged.model_id,
        "model_uri": logged.model_uri,
        "metrics": metrics,
        "tags": named,
    }


def _register(registry: MlflowClient, kind: str, run: dict[str, Any]) -> dict[str, Any]:
    signed, _ = trusted_models.sign(run["model_uri"], f"the model of run {run['mlflow_run_id']}")
    tags = {
        **run["tags"],
        "run_id": run["mlflow_run_id"],
        trusted_models.SIGNATURE: signed.bundle,
        SIGNED_BY: signed.by,
    }
    version = registry.create_model_version(
        CHURN.model, run["model_uri"], run["mlflow_run_id"], tags=tags, model_id=run["model_id"]
    )
    observed.wrote(CHURN.models, version.version)
    return {"version": str(version.version), "message": f"version {version.version}, {VARIANTS[kind].what}"}
