"""A registered model: which version an alias means, and its verified files with what its training says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plumbline.product import Product
from plumbline.registry import registered_models, trusted_models
from plumbline.registry.registered_models import CHALLENGER, CHAMPION, PREVIOUS
from plumbline.registry.signing import Untrusted
from plumbline.registry.trusted_models import TrustedModel
from serving.errors import ServingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["CHALLENGER", "CHAMPION", "PREVIOUS", "LoadedModel", "client", "find", "load", "of_trusted"]

TRAINED = ("feature_service", "data_version", "release_id")
"""What a model must say that it was trained on."""


@dataclass(frozen=True)
class LoadedModel:
    """A model version in memory: its verified files, and what its training says of it."""

    version: str
    trusted: TrustedModel
    feature_service: str
    data_version: str
    release_id: str


def client() -> MlflowClient:
    """A client of the registry in the settings. Raises ServingError when this home has none yet."""
    _must_exist("plumb train", "plumb register")
    return registered_models.client()


def find(product: Product, model: str) -> ModelVersion | None:
    """The version of the product's model that an alias or a number names, None when there is none.

    Raises ServingError when this home has no registry yet, ServiceUnavailable when it does not answer.
    """
    _must_exist(product.command_of("train"), product.command_of("register"))
    return registered_models.find(product.model, model)


def load(product: Product, model: str) -> LoadedModel:
    """Loads the version that an alias or a number names.

    Raises ServingError when there is none, or it does not say what it was trained on, Untrusted when its files are not
    those that were signed. What it was trained on is read from the signed files: anyone who can write to the registry
    can set a tag.
    """
    found = find(product, model)
    if found is None:
        raise ServingError(missing(product, model))
    loaded = of_trusted(product, str(found.version), trusted_models.load(found))
    for name in TRAINED:
        if found.tags.get(name) not in (None, getattr(loaded, name)):
            raise Untrusted(
                f"{product.model} version {found.version}: its tag {name} says {found.tags[name]!r}, "
                f"its signed MLmodel {getattr(loaded, name)!r}; it is not loaded"
            )
    return loaded


def missing(product: Product, model: str) -> str:
    """What to say of a model that is not there."""
    made, deployed = product.command_of("register"), product.command_of("deploy")
    versions = ", ".join(str(found.version) for found in registered_models.versions(product.model)) or "none"
    return (
        f"{product.model} has no {model!r}; versions are {versions}. `{made}` makes a challenger, `{deployed}` a "
        f"champion; {PREVIOUS} is there once a champion was replaced"
    )


def of_trusted(product: Product, version: str, trusted: TrustedModel) -> LoadedModel:
    """A verified model with what its signed files say that it was trained on. Raises ServingError when they do not."""
    for name in TRAINED:
        if not trusted.metadata.get(name):
            raise ServingError(
                f"{product.model} version {version} does not say its {name}: train it with "
                f"`{product.command_of('train')}`"
            )
    return LoadedModel(version, trusted, *(trusted.metadata[name] for name in TRAINED))


def _must_exist(train: str, register: str) -> None:
    if not registered_models.exist():
        raise ServingError(f"no model registry in this home yet: `{train}`, then `{register}`")
