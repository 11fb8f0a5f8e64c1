"""Models to roll out on purpose: a good one, and bad ones that only live traffic gives away. For demos and tests.

Each is trained on the real dataset of a release, logged, signed and registered like any other, with the tag
`variant`; none gets an alias, so that none is deployed by mistake. Nothing else about them is special: what stops
the bad ones is what would stop a bad model of yours. What they are is the product's own: training/<product>/variants.py
has `VARIANTS`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline import observed
from plumbline.pipeline import stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.registry import trusted_models
from plumbline.registry.trusted_models import SIGNED_BY
from plumbline.state import trainings
from training import datasets, runs, shelf, tracking
from training.datasets import Dataset
from training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

GOOD = "retrained"
"""Every product's good one; all others are bad."""

TAG = "variant"
TRAINED, REGISTERED = "variant_train", "variant_register"
"""Its stages: what `train` and `register` are for a model of the training run."""


@dataclass(frozen=True)
class Made:
    """A model that was trained and measured. `log` logs it into the MLflow run that is open, with these names."""

    metrics: dict[str, float]
    log: Callable[[dict[str, str]], Any]


@dataclass(frozen=True)
class Variant:
    """What it is in a sentence, and how it is made of a dataset and a seed."""

    what: str
    make: Callable[[Dataset, int], Made]


def of(product: Product) -> Mapping[str, Variant]:
    """A product's variants by their names."""
    found: Mapping[str, Variant] = pkgutil.resolve_name(f"training.{product.name}.variants:VARIANTS")
    return found


def bad(product: Product) -> tuple[str, ...]:
    """The names of its bad ones."""
    return tuple(name for name in of(product) if name != GOOD)


def register(product: Product, kind: str, release: int | None = None) -> dict[str, Any]:
    """Makes and registers a variant on the dataset of a release (default: the one in force); its version and metrics.

    Raises TrainingError for an unknown kind, or without a dataset.
    """
    if kind not in of(product):
        raise TrainingError(f"no variant {kind!r}: there are {', '.join(of(product))}")
    place, what = trainings.place(product, release), of(product)[kind].what
    head = {"run_id": f"{product.name}-variant-{place.name}-{kind}", "release_id": place.release_id}
    registry = tracking.client()
    with datasets.working(product, TRAINED):
        data = datasets.load(place)
        run = stage.recorded(product, {**head, "stage": TRAINED}, lambda: _train(registry, product, kind, data))
    with datasets.working(product, REGISTERED):
        observed.read(product.runs, run["mlflow_run_id"])
        made = stage.recorded(product, {**head, "stage": REGISTERED}, lambda: _register(registry, product, run, what))
    return {"version": made["version"], "variant": kind, "what": what, "metrics": run["metrics"]}


def _train(registry: MlflowClient, product: Product, kind: str, data: Dataset) -> dict[str, Any]:
    import mlflow

    part, variant = shelf.of(product), of(product)[kind]
    params = part.params()
    seed = params["seed"] + len(registry.search_model_versions(f"name = '{product.model}'"))
    say(f"making a model to roll out, {kind}: {variant.what}")
    made = variant.make(data, seed)
    named = {**runs.names(data.about, part), TAG: kind}
    run_name = f"{product.model}-r{data.about['release_id']}-{kind}"
    experiment = tracking.experiment_id(registry, product)
    with mlflow.start_run(experiment_id=experiment, run_name=run_name, tags=named) as run:
        mlflow.log_params({**params, "seed": seed, TAG: kind})
        mlflow.log_metrics(made.metrics)
        logged = made.log(named)
    observed.wrote(product.runs, run.info.run_id)
    return {
        "mlflow_run_id": run.info.run_id,
        "model_id": logged.model_id,
        "model_uri": logged.model_uri,
        "metrics": made.metrics,
        "tags": named,
    }


def _register(registry: MlflowClient, product: Product, run: dict[str, Any], what: str) -> dict[str, Any]:
    signed, _ = trusted_models.sign(run["model_uri"], f"the model of run {run['mlflow_run_id']}")
    tags = {
        **run["tags"],
        "run_id": run["mlflow_run_id"],
        trusted_models.SIGNATURE: signed.bundle,
        SIGNED_BY: signed.by,
    }
    version = registry.create_model_version(
        product.model, run["model_uri"], run["mlflow_run_id"], tags=tags, model_id=run["model_id"]
    )
    observed.wrote(product.models, version.version)
    return {"version": str(version.version), "message": f"version {version.version}, {what}"}
