"""The registered model: which version an alias means, and its booster, signed and in xgboost's own format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plumbline.registry import registered_models, trusted_models
from plumbline.registry.registered_models import CHALLENGER, CHAMPION, PREVIOUS
from plumbline.registry.signing import Untrusted
from plumbline.registry.trusted_models import TrustedModel
from products.churn import CHURN
from serving.errors import ServingError

if TYPE_CHECKING:
    import xgboost
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = CHURN.model
"""The registered model that is served."""

__all__ = ["CHALLENGER", "CHAMPION", "NAME", "PREVIOUS", "LoadedModel", "client", "find", "load", "of_trusted"]

TRAINED = ("feature_service", "data_version", "release_id")
"""What a model must say that it was trained on."""


@dataclass(frozen=True)
class LoadedModel:
    """A model version in memory: `features` in the order it was trained on; what its training says of it."""

    version: str
    booster: xgboost.Booster
    features: list[str]
    feature_service: str
    data_version: str
    release_id: str


def client() -> MlflowClient:
    """A client of the registry in the settings. Raises ServingError when this home has none yet."""
    _must_exist()
    return registered_models.client()


def find(model: str) -> ModelVersion | None:
    """The version that an alias or a number names, None when there is none.

    Raises ServingError when this home has no registry yet, ServiceUnavailable when it does not answer.
    """
    _must_exist()
    return registered_models.find(NAME, model)


def load(model: str) -> LoadedModel:
    """Loads the version that an alias or a number names.

    Raises ServingError when there is none, or it does not say what it was trained on, Untrusted when its files are not
    those that were signed. What it was trained on is read from the signed files: anyone who can write to the registry
    can set a tag.
    """
    found = find(model)
    if found is None:
        raise ServingError(f"{NAME} has no {model!r}: `plumb register` makes a challenger, `plumb deploy` a champion")
    loaded = of_trusted(str(found.version), trusted_models.load(found))
    for name in TRAINED:
        if found.tags.get(name) not in (None, getattr(loaded, name)):
            raise Untrusted(
                f"{NAME} version {found.version}: its tag {name} says {found.tags[name]!r}, "
                f"its signed MLmodel {getattr(loaded, name)!r}; it is not loaded"
            )
    return loaded


def of_trusted(version: str, trusted: TrustedModel) -> LoadedModel:
    """A verified model with what its signed files say that it was trained on. Raises ServingError when they do not."""
    for name in TRAINED:
        if not trusted.metadata.get(name):
            raise ServingError(f"{NAME} version {version} does not say its {name}: train it with `plumb train`")
    if not trusted.booster.feature_names:
        raise ServingError(f"{NAME} version {version} names no features: train it on named columns")
    names = {name: trusted.metadata[name] for name in TRAINED}
    return LoadedModel(version, trusted.booster, list(trusted.booster.feature_names), **names)


def _must_exist() -> None:
    if not registered_models.exist():
        raise ServingError("no model registry in this home yet: `plumb train`, then `plumb register`")
