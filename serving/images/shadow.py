"""The image predictor's shadow check: a model answers beside the champion, for images online, and nobody sees it."""

from __future__ import annotations

from typing import Any

from plumbline.progress import say
from plumbline.servers import online_store
from plumbline.state import releases
from products.images import IMAGES
from serving.errors import ServingError
from serving.images.requests import Asked
from serving.images.scorer import ImageScorer, Prediction

SAMPLED = 400
BATCH = 100


def compare(version: str, champion: str, strict: bool = True) -> dict[str, Any]:
    """Both models' answers for the same images. Raises ServingError when nothing is online, Refused when `version`
    cannot score. `strict` is churn's: no input of an image's model is ever missing."""
    scorers = [ImageScorer(name) for name in (version, champion)]
    try:
        asked = _asked(scorers[0], SAMPLED)
        say(f"shadow check: versions {version} and {champion} on {len(asked)} images")
        theirs, ours = (_scored(scorer, asked) for scorer in scorers)
    finally:
        for scorer in scorers:
            scorer.close()
    same = [one.label == other.label for one, other in zip(theirs, ours, strict=True)]
    return {
        "images": len(asked),
        "same_label_pct": round(100 * sum(same) / len(same), 2),
        "mean_probability": f"{_mean(ours):.4f} → {_mean(theirs):.4f}",
    }


def tried(version: str) -> dict[str, Any]:
    """One image that is online, scored by a version: image_id, label, probability, release_id."""
    scorer = ImageScorer(version)
    try:
        (prediction,) = _scored(scorer, _asked(scorer, 1))
    finally:
        scorer.close()
    return {name: getattr(prediction, name) for name in ("image_id", "label", "probability", "release_id")}


def in_words(tried: dict[str, Any]) -> str:
    """What was tried, for a message."""
    return f"image {tried['image_id'][:8]}: {tried['label']} ({tried['probability']:.3f})"


def _asked(scorer: ImageScorer, most: int) -> list[Asked]:
    if online_store.online(online_store.client(), IMAGES) is None or not releases.numbers(IMAGES.name):
        raise ServingError("nothing is materialized: run `plumb images materialize` before a deployment")
    if not (asked := list(scorer.samples(most))):
        raise ServingError("no image is online: run `plumb images materialize` before a deployment")
    return asked


def _scored(scorer: ImageScorer, asked: list[Asked]) -> list[Prediction]:
    parts = (asked[start : start + BATCH] for start in range(0, len(asked), BATCH))
    return [prediction for part in parts for prediction in scorer.score(part).predictions]


def _mean(predictions: list[Prediction]) -> float:
    return sum(prediction.probability for prediction in predictions) / len(predictions)
