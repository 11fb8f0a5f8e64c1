"""Churn's predictor: customer ids in, probabilities out, every answer with its model, release, ages and gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kserve.protocol.infer_type import InferRequest  # noqa: TID253 (imported by the server alone)

from plumbline import clock
from plumbline.settings import settings
from products.churn import CHURN
from serving.churn import requests
from serving.churn.scorer import Scored, Scorer
from serving.predictor import Predictor

(LIVE,) = CHURN.streams


class ChurnPredictor(Predictor):
    """Answers for customers by their numbers."""

    product = CHURN
    most_at_once = 2 * requests.MOST
    """Customers, some 0.5 s of work."""
    at_least = 20
    shape = requests.V2_SHAPE
    datatypes = "the datatype INT64"
    inputs = ((requests.KEY, "INT64"),)
    outputs = requests.OUTPUTS

    def scorer_of(self, model: str | Path) -> Scorer:
        """A loaded model with its online features."""
        return Scorer(model)

    def asked(self, payload: Any) -> list[int]:
        """The customers' numbers."""
        return requests.from_v2(payload) if isinstance(payload, InferRequest) else requests.from_v1(payload)

    def rows(self, scored: Scored) -> list[dict[str, Any]]:
        """A prediction for each customer."""
        return [
            {
                "customer_id": prediction.row.key,
                "churn_probability": prediction.probability,
                "features_age_seconds": prediction.row.age_seconds,
                "release_id": prediction.row.release_id,
                "missing": prediction.missing,
                "view_age_seconds": prediction.row.ages,
            }
            for prediction in scored.predictions
        ]

    def columns(self, scored: Scored) -> dict[str, list[Any]]:
        """The same by output."""
        return {
            "churn_probability": [prediction.probability for prediction in scored.predictions],
            "features_age_seconds": [prediction.row.age_seconds for prediction in scored.predictions],
            "release_id": [prediction.row.release_id for prediction in scored.predictions],
            "missing": [",".join(prediction.missing) for prediction in scored.predictions],
            "view_age_seconds": [json.dumps(prediction.row.ages) for prediction in scored.predictions],
        }

    def log_rows(self, request_id: str, scored: Scored, version: str, track: str) -> list[dict[str, Any]]:
        """A row a customer: one who stands in a request twice is one row, as its key says."""
        logged_at = clock.wall()
        by_customer = {prediction.row.key: prediction for prediction in scored.predictions}
        return [
            {
                "request_id": request_id,
                "at": scored.at,
                "logged_at": logged_at,
                "customer_id": customer,
                "features": json.dumps(prediction.row.values, sort_keys=True, allow_nan=False),
                "event_time": prediction.row.event_time,
                "activity_event_time": prediction.row.times.get(LIVE),
                "features_age_seconds": prediction.row.age_seconds,
                "release_id": prediction.row.release_id,
                "model_version": version,
                "track": track,
                "score": prediction.probability,
                "revision": settings().revision,
            }
            for customer, prediction in by_customer.items()
        ]


PREDICTOR = ChurnPredictor
