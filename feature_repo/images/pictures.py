"""From a clean picture in the bucket to its embedding, as stage 03 and its gate do it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.pictures import network, preprocess
from plumbline.pictures.network import Network
from plumbline.settings import settings
from plumbline.state import objects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 8
"""Pictures in one call of the network: more are slower, for they leave the processor's cache."""
READERS, AHEAD = 4, 64
"""Threads that read and prepare pictures, and how many pictures they are ahead: memory stays flat."""


class PictureError(PlumblineError):
    """A clean picture is not what its row says."""


def embeddings(rows: Sequence[dict[str, Any]], version: str, loaded: Network) -> NDArray[np.float32]:
    """The embeddings (n, 1280) of clean pictures, read from the clean bucket, in the rows' order."""
    import numpy as np

    made = np.empty((len(rows), network.SIZE), np.float32)
    prepared = _prepared(rows, version)
    for start in range(0, len(rows), BATCH):
        size = min(BATCH, len(rows) - start)
        made[start : start + size] = loaded.embed(np.stack([next(prepared) for _ in range(size)]))
    return made


def _prepared(rows: Sequence[dict[str, Any]], version: str) -> Iterator[NDArray[np.float32]]:
    """Each picture as the network reads it; threads read and prepare the ones ahead."""
    store = objects.store_at(settings().bucket("clean-images"))

    def prepare(row: dict[str, Any]) -> NDArray[np.float32]:
        key = "/".join(row["clean_uri"].rsplit("/", 3)[1:])  # wherever the bucket has moved to
        there = store.read(key)
        found = "nothing" if there is None else files.sha256(there.content)
        if there is None or found != row["clean_sha256"]:
            raise PictureError(
                f"{store.where(key)}: expected the clean picture of sha256 {row['clean_sha256']}, found {found}. "
                "Nothing is published; bring the object back, or clean again"
            )
        return preprocess.preprocess(preprocess.pixels(there.content), version)

    waiting = deque[Future["NDArray[np.float32]"]]()
    with ThreadPoolExecutor(READERS) as threads:
        for row in rows:
            waiting.append(threads.submit(prepare, row))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
