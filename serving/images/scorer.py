"""From an image's id, or a picture's bytes, to what it shows: both ways lead through one embedding, bit for bit.

By id the embedding comes from Redis, through Feast. Bytes are decoded in a bounded child process and embedded by stage
03's own code. The classifier is the same either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import clock, files
from plumbline.pictures import names, preprocess
from plumbline.pictures.decode import BadPicture, Limits
from plumbline.pictures.network import Network, extraction_model
from plumbline.pictures.safe import Decoders
from products.images import IMAGES
from serving import loaded_model as registry
from serving import model_folder
from serving.errors import Refused, ServingError
from serving.features import OnlineFeatures
from serving.images.requests import LARGEST_PICTURE, Asked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDING = "embedding"
LIMITS = Limits(bytes=LARGEST_PICTURE, pixels=16_000_000, seconds=2.0, memory=1 << 30)
"""What a caller's picture may cost: less than one that is cleaned, for somebody waits."""

CLASSES, PREPROCESSING, EXTRACTION = "classes", "preprocessing_version", "extraction_model"
"""What a model must say beside what every model does."""


@dataclass(frozen=True)
class Prediction:
    """What an image shows: `label`, with its `probability`, and each class's. `embedding_sha256` is of the embedding's
    bytes. A picture has the id that ingest would give it, and no view that its embedding was read from, time or
    release."""

    image_id: str
    by: str
    label: str
    probability: float
    probabilities: dict[str, float]
    embedding_sha256: str
    view: str | None
    event_time: datetime | None
    age_seconds: float | None
    release_id: int | None


@dataclass(frozen=True)
class Scored:
    """A scored batch, and the platform's now that it was asked at. An image without an embedding is refused, so no
    input of the model is ever missing."""

    at: datetime
    predictions: list[Prediction]
    pct_missing: float = 0.0


class ImageScorer:
    """A loaded classifier with its online embeddings, and what embeds a picture. Safe to use from several threads."""

    def __init__(self, model: str | Path) -> None:
        """Loads the version that an alias or number names, or the model in a folder.

        Raises ServingError when it cannot be served, ServiceUnavailable when the registry or online store is away.
        """
        import onnxruntime

        self.model = model_folder.load(IMAGES, model) if isinstance(model, Path) else registry.load(IMAGES, model)
        said = self.model.trusted.metadata
        if absent := [name for name in (CLASSES, PREPROCESSING, EXTRACTION) if not said.get(name)]:
            raise ServingError(f"{IMAGES.model} version {self.model.version} does not say its {', '.join(absent)}")
        if said[EXTRACTION] != extraction_model():
            raise ServingError(
                f"{IMAGES.model} version {self.model.version} was trained on embeddings of {said[EXTRACTION]}; this "
                f"predictor has {extraction_model()}"
            )
        self.classes: list[str] = json.loads(said[CLASSES])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._classifier = onnxruntime.InferenceSession(
            self.model.trusted.onnx, options, providers=["CPUExecutionProvider"]
        )
        self._network, self._version = Network(), said[PREPROCESSING]
        self._decoders = Decoders(LIMITS)
        self.features = OnlineFeatures(IMAGES, self.model.feature_service)

    def score(self, asked: list[Asked]) -> Scored:
        """A prediction for each, in their order. Raises Refused: 400 for a picture that cannot be used, and as
        OnlineFeatures.read does for ids. One such refuses the whole batch."""
        import numpy as np

        at = clock.now()
        ids = [one.image_id for one in asked if one.image_id is not None]
        rows = {row.key: row for row in (self.features.read(list(dict.fromkeys(ids)), at) if ids else [])}
        embeddings: list[NDArray[np.float32]] = []
        for number, one in enumerate(asked):
            if one.content is None:
                embeddings.append(np.asarray(rows[one.image_id].values[EMBEDDING], np.float32))
            else:
                embeddings.append(self._embedding(one.content, number))
        predictions = []
        for one, embedding in zip(asked, embeddings, strict=True):
            # One by one: what stands beside an image in a request must not change its answer by a bit.
            said = self._classifier.run(["probabilities"], {EMBEDDING: embedding[None]})[0][0]
            best, row = int(said.argmax()), rows.get(one.image_id)
            predictions.append(
                Prediction(
                    one.image_id or names.image_id(files.sha256(one.content or b"")),
                    "id" if one.content is None else "bytes",
                    self.classes[best],
                    float(said[best]),
                    {name: float(value) for name, value in zip(self.classes, said, strict=True)},
                    files.sha256(embedding.astype("<f4").tobytes()),
                    self.features.views[0] if row else None,
                    row.event_time if row else None,
                    row.age_seconds if row else None,
                    row.release_id if row else None,
                )
            )
        return Scored(at, predictions)

    def _embedding(self, content: bytes, number: int) -> NDArray[np.float32]:
        try:
            picture = self._decoders.decoded(content)
        except BadPicture as bad:
            status = 413 if bad.reason.startswith("too_many") or bad.reason == "too_large" else 400
            message = f"picture {number} cannot be used: {bad}; nothing was scored"
            raise Refused(status, message, {number: str(bad)}, code=bad.reason) from None
        prepared = preprocess.preprocess(picture.rgb, self._version)
        embedding: NDArray[np.float32] = self._network.embed(prepared[None])[0]
        return embedding

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What says that the online store is away."""
        return self.features.errors

    def samples(self, most: int) -> Iterable[Asked]:
        """Some images that are online."""
        return [Asked(image_id=str(key)) for key in self.features.some_entities(most)]

    def close(self) -> None:
        """Ends the decoders."""
        self._decoders.close()
