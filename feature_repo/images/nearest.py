"""The pictures that look most like one: exact search over the embeddings of a release.

Feast's Redis store searches vectors only where Redis has the module RediSearch (Redis Stack, Redis 8), which neither
Debian's Redis nor the wheel's has. So the table is read, batch by batch: a second for some hundred thousand pictures.
"""

from __future__ import annotations

from typing import Any

from feature_repo.images.embeddings_gate import FEW
from plumbline.errors import PlumblineError
from plumbline.lake import live
from plumbline.lake import tables as lake
from plumbline.pictures import names
from plumbline.state import releases
from products.images import EMBEDDINGS, IMAGES

COLUMNS = ["image_id", "created_at", "label", "uri", "embedding"]


class NearestError(PlumblineError):
    """There is no such version of embeddings."""


def nearest(image: str, count: int = 5, version: str = "v1", number: int | None = None) -> list[dict[str, Any]]:
    """The `count` pictures nearest to one at a release, itself left out: image_id, label, uri, cosine similarity.

    `image` is an id, or its beginning. Raises NearestError, UnknownImage.
    """
    import numpy as np
    import pyarrow.compute as pc

    release = releases.required(IMAGES.name, number)
    table = EMBEDDINGS.get(version)
    if table is None or table not in release.tables:
        held = [name for name, one in EMBEDDINGS.items() if one in release.tables]
        raise NearestError(
            f"release {release.release_id} has no embeddings {version!r}; it has {', '.join(held) or 'none'}"
        )
    dataset = lake.open_table(table, release.version(table)).to_pyarrow_dataset()
    order = dataset.to_table(columns=["image_id", "created_at"])
    counting = live.keep(IMAGES, release, order).group_by("image_id").aggregate([("created_at", "max")]).to_pydict()
    newest = dict(zip(counting["image_id"], counting["created_at_max"], strict=True))
    image = names.named(image, newest, f"embeddings {version} of release {release.release_id}")
    mine = dataset.to_table(columns=COLUMNS, filter=pc.field("image_id") == image)
    rows = [row for row in mine.to_pylist() if row["created_at"] == newest[image]]
    asked = _unit(np.array([rows[-1]["embedding"]], np.float32))[0]
    best: list[dict[str, Any]] = []
    for batch in dataset.to_batches(columns=COLUMNS, **FEW):
        ids, stamps = batch["image_id"].to_pylist(), batch["created_at"].to_pylist()
        there = [at for at in range(len(ids)) if ids[at] != image and newest.get(ids[at]) == stamps[at]]
        if not there:
            continue
        vectors = batch["embedding"].flatten().to_numpy().reshape(len(ids), -1)[there]
        similar = _unit(vectors) @ asked
        for at in np.argsort(-similar, kind="stable")[:count]:
            row = there[int(at)]
            told = {"image_id": ids[row], "label": batch["label"][row].as_py(), "uri": batch["uri"][row].as_py()}
            best.append({**told, "similarity": float(similar[at])})
        best = sorted(best, key=lambda found: (-found["similarity"], found["image_id"]))[:count]
    return best


def _unit(vectors: Any) -> Any:
    """Vectors of length 1, in 64 bits."""
    import numpy as np

    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
