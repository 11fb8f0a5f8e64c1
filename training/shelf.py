"""What one product's training does its own way; the rest is the same for all (`runs`, `register`, `reproduce`)."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from plumbline.product import Product
from plumbline.registry.trusted_models import TrustedModel
from plumbline.state.trainings import Place
from products.churn import CHURN
from products.images import IMAGES
from training.datasets import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    """A model that was trained and measured, before MLflow knows of it.

    `content` is the model's file. `metrics` has at least `log_loss`, in nats, of the test rows. `also` are params that
    were not chosen but came out, `message` says in a sentence how good it is. `draw` writes pictures into a folder,
    `log` logs the model into the MLflow run that is open, with these names as its metadata.
    """

    content: bytes
    metrics: dict[str, float]
    message: str
    draw: Callable[[Path], object]
    log: Callable[[dict[str, str]], Any]
    also: Mapping[str, float] = field(default_factory=dict)


class Shelf(Protocol):
    """A product's part of training."""

    @property
    def product(self) -> Product: ...

    @property
    def model_file(self) -> str:
        """The name of the model's file among those that MLflow stores."""

    @property
    def named(self) -> Mapping[str, str]:
        """What a run says of its dataset: the param's name → the name in dataset.json. One is of `content_hash`."""

    @property
    def pins(self) -> tuple[str, ...]:
        """Those of them that name a Delta table and its version."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that `register` shows."""

    def description(self) -> str:
        """What the registered model gives, in a sentence."""

    def params(self) -> dict[str, Any]:
        """The hyperparameters that a model is trained with now."""

    def fit(self, data: Dataset) -> Fitted:
        """Trains on a dataset, with these parameters. Raises TrainingError when the data does not allow it."""

    def log_loss(self, trusted: TrustedModel, service: str, data: Dataset) -> float:
        """A registered model's on the dataset's test rows, with the features of `service`, its own."""

    def inputs(self, content: bytes) -> str:
        """The inputs of a model's file, as a sentence to compare."""

    def scores(self, content: bytes, data: Dataset) -> NDArray[Any]:
        """The probabilities that a model's file gives the dataset's test rows."""

    def place(self, about: Mapping[str, Any]) -> Place:
        """Where a dataset lies that dataset.json describes."""

    def as_of(self, about: Mapping[str, Any]) -> str:
        """The last day of the release that dataset.json describes a dataset of."""


PRODUCTS = (CHURN, IMAGES)
"""The products that have a shelf here."""


def of(product: Product) -> Shelf:
    """A product's shelf: `SHELF` in `training/<product>/shelf.py`."""
    shelf: Shelf = pkgutil.resolve_name(f"training.{product.name}.shelf:SHELF")
    return shelf


def hash_name(shelf: Shelf) -> str:
    """The param of a run that holds its dataset's content hash."""
    return next(param for param, name in shelf.named.items() if name == "content_hash")
