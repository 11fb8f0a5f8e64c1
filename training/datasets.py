"""A training dataset as it lies on disk: read back, and refused when its content is not what was built.

`<home>/training/<product>/<release_id>/dataset.parquet` holds the rows in canonical form (`training.canonical`),
`dataset.json` beside it says what they are: a name, the content hash, every version they were made from.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline import observed as seen
from plumbline.pipeline import leases
from plumbline.settings import settings
from products.churn import CHURN
from training import canonical
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PRODUCT = CHURN.name


@dataclass(frozen=True)
class Dataset:
    """A dataset as it was built: `about` is dataset.json, `rows` the canonical table."""

    about: dict[str, Any]
    rows: pa.Table

    @property
    def features(self) -> list[str]:
        """The model's inputs, in their order."""
        return list(self.about["features"])

    def part(self, *, test: bool) -> pd.DataFrame:
        """The test rows, or the training rows, in canonical order."""
        import pyarrow.compute as pc

        chosen = pc.field("is_test") if test else ~pc.field("is_test")
        frame: pd.DataFrame = self.rows.filter(chosen).to_pandas()
        return frame


def load(release_id: int) -> Dataset:
    """A dataset that was built. Raises TrainingError when there is none, or when its file is not what was built."""
    about = files.read_json(folder(release_id) / "dataset.json")
    if about is None or not parquet(release_id).exists():
        raise TrainingError(f"no dataset of release {release_id} yet: run `plumb dataset --release {release_id}` first")
    rows = canonical.read(parquet(release_id))
    actual = canonical.content_hash(rows)
    if actual != about["content_hash"]:
        raise TrainingError(
            f"{parquet(release_id)} is not the dataset that dataset.json describes: its content is {actual}, "
            f"expected {about['content_hash']}; delete it and run `plumb dataset --release {release_id}`"
        )
    seen.read(CHURN.dataset, about["dataset_id"])
    return Dataset(about, rows)


def folder(release_id: int) -> Path:
    """Where dataset and run of a release are described."""
    return settings().home / "training" / PRODUCT / str(release_id)


def working(name: str) -> AbstractContextManager[None]:
    """The lease of training: two datasets, trainings or registrations at once would not know of each other."""
    return leases.lease(CHURN, name, "training")


def parquet(release_id: int) -> Path:
    return folder(release_id) / "dataset.parquet"
