"""The image classifier on a dataset, beside the baseline that always says the most frequent class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.progress import say
from products.images import CLEAN
from training.datasets import Dataset
from training.errors import TrainingError
from training.images import classifier, measures, plots
from training.images.plots import Mistake
from training.shelf import Fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")
"""What loading and scoring the model needs."""


@dataclass(frozen=True)
class Side:
    """The images on a side of the split: embeddings (n, d) float32, labels and ids (n,)."""

    embeddings: NDArray[Any]
    labels: NDArray[Any]
    images: list[str]


def side(data: Dataset, name: str) -> Side:
    """A side of a dataset, in canonical order. Raises TrainingError when it is empty or embeddings differ in length."""
    import numpy as np
    import pyarrow.compute as pc

    rows = data.rows.filter(pc.field("split") == name)
    sizes = set(pc.list_value_length(rows["embedding"]).to_pylist())
    if len(sizes) != 1:
        raise TrainingError(f"{data.about['dataset_id']}: {len(rows):,} {name} images, embeddings of lengths {sizes}")
    flat = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    labels = np.array(rows["label"].to_pylist(), dtype=object)
    return Side(flat.reshape(len(rows), -1).astype(np.float32), labels, rows["image_id"].to_pylist())


def fit(data: Dataset) -> Fitted:
    """The model and its baseline, fitted on the training side and measured on the others."""
    training, val, test = (side(data, name) for name in ("train", "val", "test"))
    say(f"training on {len(training.images):,} images of {data.about['dataset_id']}")
    model = classifier.fit(training.embeddings, training.labels, classifier.Params())
    content = model.SerializeToString()
    classes = classifier.classes(content)
    said = classifier.probabilities(content, test.embeddings)
    guess = measures.shares(training.labels, classes, len(test.images))
    metrics = {
        **measures.metrics(test.labels, said, classes),
        **measures.metrics(val.labels, classifier.probabilities(content, val.embeddings), classes, "val_"),
        **{
            name: value
            for name, value in measures.metrics(test.labels, guess, classes, "baseline_majority_").items()
            if "recall" not in name
        },
    }
    return Fitted(
        content,
        metrics,
        message(metrics),
        draw=lambda folder: _draw(folder, data, test, said, classes),
        log=lambda named: log_model(model, training.embeddings.shape[1], {**named, "classes": json.dumps(classes)}),
    )


def message(metrics: dict[str, float]) -> str:
    """A run's metrics in a sentence."""
    return (
        f"accuracy {metrics['accuracy']:.4f}, against {metrics['baseline_majority_accuracy']:.4f} of the most frequent "
        f"class; log loss {metrics['log_loss']:.4f}, against {metrics['baseline_majority_log_loss']:.4f}"
    )


def _draw(folder: Any, data: Dataset, test: Side, said: NDArray[Any], classes: list[str]) -> None:
    predicted = [classes[at] for at in said.argmax(axis=1)]
    counts = measures.confusion(test.labels, predicted, classes)  # type: ignore[arg-type]
    wrong = [at for at, name in enumerate(predicted) if name != test.labels[at]]
    worst = sorted(wrong, key=lambda at: (-said[at].max(), test.images[at]))
    uris = _uris(data, [test.images[at] for at in worst[: plots.MOST]])
    mistakes = [
        Mistake(uris.get(test.images[at]), str(test.labels[at]), predicted[at], float(said[at].max())) for at in worst
    ]
    plots.draw(folder, counts, classes, mistakes, f"{data.about['dataset_id']}, test images")


def _uris(data: Dataset, images: list[str]) -> dict[str, str]:
    """Where the cleaned pictures of these images are."""
    version = int(str(data.about["clean_version"]).rpartition("=")[2])
    wanted = [("image_id", "in", images or [""])]
    table = lake.open_table(CLEAN, version).to_pyarrow_table(filters=wanted, columns=["image_id", "clean_uri"])
    return {row["image_id"]: row["clean_uri"] for row in table.to_pylist() if row["clean_uri"]}


def log_model(model: Any, width: int, named: dict[str, str]) -> Any:
    """Logs the model into the MLflow run that is open, as one ONNX file, with its classes in the metadata."""
    import mlflow.onnx
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    kind = np.dtype(np.float32)
    return mlflow.onnx.log_model(
        model,
        name="model",
        signature=ModelSignature(
            Schema([TensorSpec(kind, (-1, width), classifier.INPUT)]),
            Schema([TensorSpec(kind, (-1, len(json.loads(named["classes"]))), classifier.OUTPUT)]),
        ),
        onnx_execution_providers=["CPUExecutionProvider"],
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVED_WITH],
        metadata=named,
        save_as_external_data=False,
    )
