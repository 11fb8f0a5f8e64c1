"""Simulated callers of the image predictor, and a simulated reviewer who says what a picture shows.

Most ask by id, some send a picture's bytes. The reviewer is SIMULATED: nobody looks at anything. They say the label
that the picture has now, which the model may have been trained on, so the rates say nothing about new pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plumb.demo import images as demo
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.state import releases
from products.images import CLEAN, IMAGES, LABELS
from serving.images import outcomes
from training.images import labels

PICTURES = 40
"""Pictures that are sent as bytes, one after the other."""


@dataclass
class Callers:
    """See simulated_traffic.Callers. Every `bytes_every`th request sends a picture instead of an id; 0: none does."""

    bytes_every: int = 50
    product = IMAGES

    def begin(self) -> Sequence[str]:
        release, self._labels = releases.required(IMAGES.name), _labels()
        self._pictures = [base64.b64encode(content).decode() for content in demo.asked(PICTURES).values()]
        clean = lake.open_table(CLEAN, release.version(CLEAN))
        found = clean.to_pyarrow_table(columns=["image_id"], filters=[("state", "=", "clean")])["image_id"]
        return sorted(found.to_pylist())

    def instance(self, number: int, who: str) -> dict[str, Any]:
        if self.bytes_every and number % self.bytes_every == 0:
            return {"image": {"b64": self._pictures[number // self.bytes_every % len(self._pictures)]}}
        return {"image_id": who}

    def outcome(self, request_id: str, prediction: dict[str, Any]) -> dict[str, Any] | None:
        image = prediction["image_id"]
        if (real := self._labels.get(image)) is None:
            return None
        return outcomes.row(request_id, image, prediction["label"], prediction["probability"], real)

    def record(self, rows: list[dict[str, Any]]) -> None:
        outcomes.append(rows, new=True)


def made_up(version: int | None, seed: int) -> list[dict[str, Any]]:
    """The outcomes of the logged answers, up to that version of the log, that have none yet. Nothing is drawn."""
    real = _labels()
    return [
        outcomes.row(row["request_id"], row["image_id"], row["label"], row["score"], real[row["image_id"]])
        for row in outcomes.awaiting(version)
        if row["image_id"] in real
    ]


def _labels() -> dict[str, str]:
    """image_id → the label that it has now, by the release in force."""
    version = releases.required(IMAGES.name).version(LABELS)
    statements = lake.open_table(LABELS, version).to_pyarrow_table(columns=list(labels.COLUMNS))
    return {str(image): str(label) for image, label in labels.known(statements, clock.now()).items()}
