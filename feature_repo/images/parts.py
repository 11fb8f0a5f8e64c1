"""Embeddings that are computed and not yet in a table: objects in the clean bucket, so that no kill loses hours.

A part holds some pictures' embeddings by the digests of the clean pictures, at one preprocessing and one network. It is
created once and never changes. A run takes from parts what it needs, and removes those whose pictures all are in the
released table.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.pictures import network
from plumbline.settings import settings
from plumbline.state import objects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGEST = "clean_sha256"


class Parts:
    """The parts of one version of embeddings."""

    def __init__(self, version: str) -> None:
        made_by = network.extraction_model().replace("@sha256:", "-").replace("/", "-")
        self._store = objects.store_at(settings().bucket("clean-images"))
        self._folder = f"embeddings/{version}/{made_by}"
        self._part_of: dict[str, str] = {}
        self._read: tuple[str, dict[str, int], Any] = ("", {}, None)
        for key in sorted(self._store.keys(self._folder, None)):
            self._part_of |= dict.fromkeys(self._load(key)[0], key)

    def __contains__(self, digest: str) -> bool:
        """Whether a clean picture of that digest is embedded already."""
        return digest in self._part_of

    def put(self, digests: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Keeps these embeddings, in the pictures' order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = {DIGEST: pa.array(digests), "embedding": arrays(embeddings)}
        written = io.BytesIO()
        pq.write_table(pa.table(rows), written, compression="NONE")
        content = written.getvalue()
        key = f"{self._folder}/{files.sha256(content)}.parquet"
        try:
            self._store.create(key, content)
        except objects.Exists:
            pass
        self._part_of |= dict.fromkeys(digests, key)

    def take(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings (n, 1280) of these pictures, in their order; one part is in memory at a time."""
        import numpy as np

        taken = np.empty((len(digests), network.SIZE), np.float32)
        for at, digest in enumerate(digests):
            places, embeddings = self._load(self._part_of[digest])
            taken[at] = embeddings[places[digest]]
        return taken

    def remove_all_but(self, wanted: Iterable[str]) -> None:
        """Removes the parts that hold none of these pictures."""
        needed = {self._part_of[digest] for digest in wanted if digest in self._part_of}
        for key in set(self._part_of.values()) - needed:
            self._store.delete(key)
        self._part_of = {digest: key for digest, key in self._part_of.items() if key in needed}

    def _load(self, key: str) -> tuple[dict[str, int], Any]:
        if self._read[0] != key:
            import pyarrow.parquet as pq

            there = self._store.read(key)
            if there is None:
                raise objects.StateError(f"{self._store.where(key)} is gone while it is read: run the stage again")
            table = pq.read_table(io.BytesIO(there.content))
            places = {digest: at for at, digest in enumerate(table[DIGEST].to_pylist())}
            embeddings = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, network.SIZE)
            self._read = (key, places, embeddings)
        return self._read[1:]


def arrays(embeddings: NDArray[np.float32]) -> Any:
    """Embeddings (n, 1280) as an Arrow column of lists."""
    import numpy as np
    import pyarrow as pa

    rows, size = embeddings.shape
    offsets = np.arange(0, (rows + 1) * size, size, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(embeddings.reshape(-1)))
