"""The registered model: which version an alias means, and its booster, in xgboost's own format and nothing else."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import registered_models
from plumbline.registered_models import CHALLENGER, CHAMPION, NAME, PREVIOUS
from serving.errors import ServingError

if TYPE_CHECKING:
    import xgboost
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["CHALLENGER", "CHAMPION", "NAME", "PREVIOUS", "LoadedModel", "client", "find", "load"]


@dataclass(frozen=True)
class LoadedModel:
    """A model version in memory: `features` in the order it was trained on; the tags that its registration set."""

    version: str
    booster: xgboost.Booster
    features: list[str]
    feature_service: str
    data_version: str
    release_id: str


def client() -> MlflowClient:
    """A client of the registry in the settings. Raises ServingError when this home has none yet."""
    if not registered_models.exist():
        raise ServingError("no model registry in this home yet: `plumb train`, then `plumb register`")
    return registered_models.client()


def find(model: str) -> ModelVersion | None:
    """The version that an alias or a number names, None when there is none. Raises ServiceUnavailable."""
    from mlflow.exceptions import MlflowException

    registry = client()
    try:
        return (
            registry.get_model_version(NAME, model)
            if model.isdecimal()
            else registry.get_model_version_by_alias(NAME, model)
        )
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise registered_models.unanswered(error) from None


def load(model: str) -> LoadedModel:
    """Loads the version that an alias or a number names.

    Raises ServingError when there is none, or it lacks a tag, or it is not an xgboost model with named features.
    """
    found = find(model)
    if found is None:
        raise ServingError(f"{NAME} has no {model!r}: `plumb register` makes a challenger, `plumb deploy` a champion")
    tags = {}
    for tag in ("feature_service", "data_version", "release_id"):
        if not found.tags.get(tag):
            raise ServingError(f"{NAME} version {found.version} has no tag {tag!r}: register it with `plumb register`")
        tags[tag] = str(found.tags[tag])
    booster = _booster(str(found.version))
    if not booster.feature_names:
        raise ServingError(f"{NAME} version {found.version} names no features: train it on named columns")
    return LoadedModel(str(found.version), booster, list(booster.feature_names), **tags)


def _booster(version: str) -> xgboost.Booster:
    import mlflow.artifacts
    import xgboost
    from mlflow.models import Model

    with tempfile.TemporaryDirectory(prefix="plumbline-model-") as folder:
        path = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}", dst_path=folder))
        flavors: dict[str, Any] = Model.load(path).flavors
        if "xgboost" not in flavors:
            raise ServingError(f"{NAME} version {version}: expected an xgboost model, found {sorted(flavors)}")
        booster = xgboost.Booster({"nthread": 1})  # two OpenMP threads on a busy machine are slower than one
        booster.load_model(path / flavors["xgboost"]["data"])
    booster.set_param({"nthread": 1})
    return booster
