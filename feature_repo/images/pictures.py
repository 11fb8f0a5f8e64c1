"""From a clean picture in the bucket to its embedding, as stage 03 and its gate do it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.pictures import names, network, preprocess
from plumbline.pictures.network import Network
from plumbline.settings import settings
from plumbline.state import objects
from plumbline.state.objects import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 8
"""Pictures in one call of the network: more are slower, for they leave the processor's cache."""
PER_CORE = 2
"""Threads for each core: while one waits for the bucket, another computes."""


class PictureError(PlumblineError):
    """A clean picture is not what its row says."""


def embeddings(rows: Sequence[dict[str, Any]], version: str, loaded: Network) -> NDArray[np.float32]:
    """The embeddings (n, 1280) of clean pictures, read from the clean bucket, in the rows' order.

    Each thread reads, prepares and embeds a batch at a time. Raises PictureError.
    """
    import numpy as np

    store = objects.store_at(settings().bucket("clean-images"))

    def embedded(start: int) -> NDArray[np.float32]:
        return loaded.embed(np.stack([_prepared(store, row, version) for row in rows[start : start + BATCH]]))

    with ThreadPoolExecutor(PER_CORE * network.threads()) as workers:
        return np.concatenate(list(workers.map(embedded, range(0, len(rows), BATCH))))


def _prepared(store: Store, row: dict[str, Any], version: str) -> NDArray[np.float32]:
    """A clean picture as the network reads it."""
    key = names.clean_key(row["clean_uri"])
    there = store.read(key)
    found = "nothing" if there is None else files.sha256(there.content)
    if there is None or found != row["clean_sha256"]:
        raise PictureError(
            f"{store.where(key)}: expected the clean picture of sha256 {row['clean_sha256']}, found {found}. "
            "Nothing is published; bring the object back, or clean again"
        )
    return preprocess.preprocess(preprocess.pixels(there.content), version)
