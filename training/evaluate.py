"""How good a set of probabilities is: pure functions on arrays. The positive class is churn everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOOR = 1e-6
"""Probabilities are kept this far from 0 and 1 for the log loss: one certain mistake costs 13.8 nats, not infinity."""


def metrics(churned: NDArray[Any], probability: NDArray[Any], prefix: str = "") -> dict[str, float]:
    """ROC-AUC, PR-AUC (average precision), log loss in nats, Brier score and mean prediction.

    `churned` holds n booleans, `probability` n predictions; `prefix` goes before each metric's name.

    Raises ValueError when the arrays differ in length, a value is no probability, or only one class is there.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score, roc_auc_score

    if churned.shape != probability.shape:
        raise ValueError(f"{churned.shape} labels for {probability.shape} probabilities")
    if not (np.all(probability >= 0) and np.all(probability <= 1)):
        raise ValueError("probabilities must lie in [0, 1] and none be missing")
    if churned.all() or not churned.any():
        raise ValueError("only one class among the labels: nothing can be ranked")
    values = {
        "roc_auc": roc_auc_score(churned, probability),
        "pr_auc": average_precision_score(churned, probability),
        "log_loss": log_losses(churned, probability).mean(),
        "brier": np.mean((probability - churned) ** 2),
        "mean_prediction": probability.mean(),
    }
    return {f"{prefix}{name}": round(float(value), 6) for name, value in values.items()}


def log_losses(churned: NDArray[Any], probability: NDArray[Any]) -> NDArray[Any]:
    """The log loss of each row, in nats."""
    import numpy as np

    kept = np.clip(probability.astype(np.float64), FLOOR, 1 - FLOOR)
    losses: NDArray[Any] = -np.log(np.where(churned, kept, 1 - kept))
    return losses


def calibration(churned: NDArray[Any], probability: NDArray[Any], bins: int = 10) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean prediction and observed churn rate in up to `bins` groups of equal size, by rising prediction.

    Rows with one and the same prediction stay in one group.
    """
    import numpy as np

    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)))
    group = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, max(len(edges) - 2, 0))
    sizes = np.bincount(group)
    filled = sizes > 0
    predicted = np.bincount(group, weights=probability)[filled] / sizes[filled]
    observed = np.bincount(group, weights=churned.astype(np.float64))[filled] / sizes[filled]
    return predicted, observed
