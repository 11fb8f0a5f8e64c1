"""How good class probabilities are: pure functions on arrays, and the classes' own figures under names MLflow takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plumbline import files
from training.evaluate import FLOOR

if TYPE_CHECKING:
    from numpy.typing import NDArray


def metrics(
    labels: NDArray[Any], probability: NDArray[Any], classes: Sequence[str], prefix: str = ""
) -> dict[str, float]:
    """Accuracy, log loss in nats, and each class's recall, where it has rows.

    `labels` holds n class names, `probability` (n, k) in the order of `classes`. A label that is no class is a mistake
    that costs as much as any certain one.
    """
    import numpy as np

    names = np.asarray(classes)
    right = names[probability.argmax(axis=1)] == labels
    values = {"accuracy": right.mean(), "log_loss": log_losses(labels, probability, classes).mean()}
    for name, slug in zip(classes, slugs(classes), strict=True):
        if (labels == name).any():
            values[f"recall_{slug}"] = right[labels == name].mean()
    return {f"{prefix}{name}": round(float(value), 6) for name, value in values.items()}


def log_losses(labels: NDArray[Any], probability: NDArray[Any], classes: Sequence[str]) -> NDArray[Any]:
    """The log loss of each row, in nats; a probability is never taken for less than FLOOR."""
    import numpy as np

    exact = probability.astype(np.float64)
    given = np.zeros(len(labels))
    for column, name in enumerate(classes):
        given = np.where(labels == name, exact[:, column], given)
    losses: NDArray[Any] = -np.log(np.clip(given, FLOOR, 1.0))
    return losses


def shares(labels: NDArray[Any], classes: Sequence[str], rows: int) -> NDArray[Any]:
    """The share of each class among the labels, (rows, k): the baseline that always says the most frequent one."""
    import numpy as np

    counts = np.array([(labels == name).sum() for name in classes], dtype=np.float64)
    found: NDArray[Any] = np.tile(counts / counts.sum(), (rows, 1))
    return found


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]) -> NDArray[Any]:
    """(k, k) counts: a row is what an image shows, a column what the model says."""
    import numpy as np

    place = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for label, said in zip(labels, predicted, strict=True):
        if label in place:
            counts[place[label], place[said]] += 1
    return counts


def slugs(classes: Sequence[str]) -> list[str]:
    """The classes' names as MLflow takes them in a metric's: lower case, digits and _.

    A name that loses letters so, or comes to the same as another, ends in a digest of itself: by whatever classes stand
    beside it, one metric is never of two.
    """
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() for name in classes]
    whole = [
        name.isascii() and bool(slug) and plain.count(slug) == 1 for name, slug in zip(classes, plain, strict=True)
    ]
    return [
        slug if told else f"{slug}_{files.sha256(name.encode())[:6]}".lstrip("_")
        for name, slug, told in zip(classes, plain, whole, strict=True)
    ]
