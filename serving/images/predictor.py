"""The image predictor: ids or pictures in, labels out, every answer with its model, release and embedding's digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kserve.protocol.infer_type import InferRequest  # noqa: TID253 (imported by the server alone)

from plumbline import clock
from plumbline.settings import settings
from products.images import IMAGES
from serving.images import requests
from serving.images.requests import Asked
from serving.images.scorer import EMBEDDING, ImageScorer, Scored
from serving.predictor import Predictor


class ImagePredictor(Predictor):
    """Answers for images by their ids, and for pictures by their bytes."""

    product = IMAGES
    most_at_once = 2 * requests.MOST
    at_least = 2
    largest_body = requests.LARGEST_BODY
    shape = requests.V2_SHAPE
    datatypes = "the datatype BYTES"
    inputs = ((requests.KEY, "BYTES"), (requests.PICTURE, "BYTES"))
    outputs = requests.OUTPUTS

    def scorer_of(self, model: str | Path) -> ImageScorer:
        """A loaded classifier."""
        return ImageScorer(model)

    def asked(self, payload: Any) -> list[Asked]:
        """Images by id, or pictures."""
        return requests.from_v2(payload) if isinstance(payload, InferRequest) else requests.from_v1(payload)

    def weight(self, asked: list[Asked]) -> int:
        """A picture is as much work as 25 images by id."""
        return sum(one.weight for one in asked)

    def input_of(self, asked: list[Asked]) -> str:
        """A picture is more work than an id."""
        return requests.PICTURE if any(one.content is not None for one in asked) else requests.KEY

    def rows(self, scored: Scored) -> list[dict[str, Any]]:
        """A prediction for each image."""
        return [
            {
                "image_id": prediction.image_id,
                "label": prediction.label,
                "probability": prediction.probability,
                "probabilities": prediction.probabilities,
                "embedding_sha256": prediction.embedding_sha256,
                "features_age_seconds": prediction.age_seconds,
                "release_id": prediction.release_id,
            }
            for prediction in scored.predictions
        ]

    def columns(self, scored: Scored) -> dict[str, list[Any]]:
        """The same by output, without each class's probability."""
        return {
            "image_id": [prediction.image_id for prediction in scored.predictions],
            "label": [prediction.label for prediction in scored.predictions],
            "probability": [prediction.probability for prediction in scored.predictions],
            "embedding_sha256": [prediction.embedding_sha256 for prediction in scored.predictions],
            "features_age_seconds": [prediction.age_seconds or 0.0 for prediction in scored.predictions],
            "release_id": [prediction.release_id or 0 for prediction in scored.predictions],
        }

    def log_rows(self, request_id: str, scored: Scored, version: str, track: str) -> list[dict[str, Any]]:
        """A row an image: one that stands in a request twice is one row."""
        logged_at = clock.wall()
        return [
            {
                "request_id": request_id,
                "at": scored.at,
                "logged_at": logged_at,
                "image_id": prediction.image_id,
                "asked_by": prediction.by,
                "view": prediction.view,
                "features": json.dumps({EMBEDDING: prediction.embedding_sha256}),
                "event_time": prediction.event_time,
                "features_age_seconds": prediction.age_seconds,
                "release_id": prediction.release_id,
                "model_version": version,
                "track": track,
                "label": prediction.label,
                "score": prediction.probability,
                "revision": settings().revision,
            }
            for prediction in {(one.image_id, one.by): one for one in scored.predictions}.values()
        ]


PREDICTOR = ImagePredictor
