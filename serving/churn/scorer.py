"""From customer ids to churn probabilities: a model, and the features it was trained on, as they are online now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import clock
from products.churn import CHURN
from serving import loaded_model as registry
from serving import model_folder
from serving.errors import ServingError
from serving.features import FeatureRow, OnlineFeatures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """One customer's score: `probability` of churn from 0 to 1; `missing` names the model's inputs that were null."""

    row: FeatureRow
    probability: float
    missing: list[str]


@dataclass(frozen=True)
class Scored:
    """A scored batch, and the platform's now that it was asked at."""

    at: datetime
    predictions: list[Prediction]

    @property
    def pct_missing(self) -> float:
        """Share of null model inputs, 0 to 100, mean over the customers; 0 for a model without inputs."""
        inputs = len(self.predictions) * self._inputs
        return 100.0 * sum(len(p.missing) for p in self.predictions) / inputs if inputs else 0.0

    _inputs: int = 0


class Scorer:
    """A loaded model with its online features. Safe to use from several threads."""

    def __init__(self, model: str | Path) -> None:
        """Loads the version that an alias or number names, or the model in a folder.

        Raises ServingError when it cannot be served, ServiceUnavailable when the registry or online store is away.
        """
        self.model = model_folder.load(CHURN, model) if isinstance(model, Path) else registry.load(CHURN, model)
        self.booster = self.model.trusted.booster
        self.inputs = list(self.booster.feature_names or [])
        if not self.inputs:
            raise ServingError(
                f"{CHURN.model} version {self.model.version} names no features: train it on named columns"
            )
        self.features = OnlineFeatures(CHURN, self.model.feature_service)
        absent = [name for name in self.inputs if name not in self.features.names]
        if absent:
            raise ServingError(
                f"{CHURN.model} version {self.model.version} needs {', '.join(absent)}, "
                f"which its feature service {self.model.feature_service} does not give"
            )

    def score(self, customers: list[int]) -> Scored:
        """A prediction for each customer, in their order. Raises Refused, as OnlineFeatures.read does."""
        at = clock.now()
        rows = self.features.read(customers, at)  # what is logged as asked at `at` was computed for it
        scores = self.booster.inplace_predict(self._matrix(rows))
        predictions = [
            Prediction(row, float(score), [name for name in self.inputs if row.values[name] is None])
            for row, score in zip(rows, scores, strict=True)
        ]
        return Scored(at, predictions, len(self.inputs))

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What says that the online store is away."""
        return self.features.errors

    def samples(self, most: int) -> list[int]:
        """Some customers who are online."""
        return self.features.some_entities(most)

    def close(self) -> None:
        """Nothing was started."""

    def _matrix(self, rows: list[FeatureRow]) -> NDArray[np.float64]:
        """Rows x the model's features, in its order, float64 as in training; null is NaN."""
        import numpy as np

        return np.array([[row.values[name] for name in self.inputs] for row in rows], dtype="float64")
