"""The image product's part of training: logistic regression on embeddings, on the test side of the split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline.registry.trusted_models import TrustedModel
from plumbline.state import releases
from plumbline.state.trainings import Place
from products.images import IMAGES
from training.datasets import Dataset
from training.errors import TrainingError
from training.images import classifier, dataset, measures, train
from training.shelf import Fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ImagesShelf:
    """See training.shelf.Shelf."""

    product = IMAGES
    model_file = "model.onnx"
    pins = ("data_version", "labels_version", "clean_version", "raw_version")
    named: Mapping[str, str] = {
        **{name: name for name in (*pins, "dataset_id", "release_id", "feature_service")},
        **{name: name for name in ("extraction_model", "preprocessing_version", "cleaning_version")},
        "dataset_content_hash": "content_hash",
        "dataset_cutoff": "cutoff_timestamp",
    }
    shown = ("accuracy", "log_loss", "val_accuracy", "val_log_loss")

    def description(self) -> str:
        return "P(class) of what an image shows, from its embedding; the classes are in the model's metadata."

    def params(self) -> dict[str, Any]:
        return asdict(classifier.Params())

    def fit(self, data: Dataset) -> Fitted:
        return train.fit(data)

    def log_loss(self, trusted: TrustedModel, service: str, data: Dataset) -> float:
        test = train.side(data, "test")
        given = test.embeddings if service == data.about["feature_service"] else _of_service(service, data, test.images)
        said = classifier.probabilities(trusted.onnx, given)
        return measures.metrics(test.labels, said, classifier.classes(trusted.onnx))["log_loss"]

    def inputs(self, content: bytes) -> str:
        return classifier.described(content)

    def scores(self, content: bytes, data: Dataset) -> NDArray[Any]:
        return classifier.probabilities(content, train.side(data, "test").embeddings)

    def place(self, about: Mapping[str, Any]) -> Place:
        cutoff = date.fromisoformat(about["cutoff"]) if about["cutoff"] else None
        return Place(IMAGES, int(about["release_id"]), about["service"], cutoff)

    def as_of(self, about: Mapping[str, Any]) -> str:
        return str(about["as_of"])


SHELF = ImagesShelf()


def _of_service(service: str, data: Dataset, images: list[str]) -> NDArray[Any]:
    """These images' embeddings of another feature service, as they were at the dataset's cutoff and release."""
    import numpy as np

    release = releases.read(IMAGES.name, int(data.about["release_id"]))
    table = dataset.table_of(service)
    pins = dataset.Pins(table, {table: release.version(table)})
    cutoff = data.rows["event_timestamp"][0].as_py()
    stored = dataset.embeddings(pins, cutoff)
    if missing := [image for image in images if image not in stored.index]:
        raise TrainingError(
            f"the champion's {service} has no embedding of {len(missing):,} test images at release "
            f"{release.release_id}, the first {missing[0]}: run `plumb images features` for it and release that"
        )
    found: NDArray[Any] = np.stack(list(stored.loc[images]["embedding"])).astype(np.float32)
    return found
