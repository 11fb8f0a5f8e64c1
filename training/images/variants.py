"""The image product's models to roll out on purpose (training.variants): a good one, and bad ones.

A test before the rollout sees nothing wrong with `swapped`: its classes change places when it is exported.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from training.datasets import Dataset
from training.images import classifier, measures, train
from training.images.classifier import Params
from training.variants import GOOD, Made, Variant

C_OF_GOOD, C_OF_UNSURE = 0.04, 1e-5
"""The inverse strength of the penalty: about as ever, and so strong that the model is seldom sure."""

Names = Callable[[Dataset, list[str]], list[str]]


def _swapped(data: Dataset, classes: list[str]) -> list[str]:
    """The class names with the two most frequent ones in each other's place."""
    (one, _), (other, _) = Counter(train.side(data, "train").labels).most_common(2)
    places = {one: other, other: one}
    return [places.get(name, name) for name in classes]


def _variant(what: str, c: float, exported: Names = lambda data, classes: classes) -> Variant:
    def make(data: Dataset, seed: int) -> Made:
        training, test = train.side(data, "train"), train.side(data, "test")
        model = classifier.fit(training.embeddings, training.labels, Params(c=c, seed=seed))
        content = model.SerializeToString()
        classes = classifier.classes(content)
        metrics = measures.metrics(test.labels, classifier.probabilities(content, test.embeddings), classes)
        names = exported(data, classes)
        classifier.name_classes(model, names)
        width = training.embeddings.shape[1]
        return Made(metrics, lambda named: train.log_model(model, width, {**named, "classes": json.dumps(names)}))

    return Variant(what, make)


VARIANTS = {
    GOOD: _variant("the same model with a slightly weaker penalty", C_OF_GOOD),
    "swapped": _variant("two classes have changed places in its export", Params().c, _swapped),
    "unsure": _variant("a penalty so strong that it is seldom sure", C_OF_UNSURE),
}
