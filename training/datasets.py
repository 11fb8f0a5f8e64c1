"""A training dataset as it is stored: read back, and refused when its content is not what was built.

`training/<product>/<release_id>/dataset.parquet` in state holds the rows in canonical form (`training.canonical`),
`dataset.json` beside it says what they are: a name, the content hash, every version they were made from.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import observed as seen
from plumbline.pipeline import leases
from plumbline.settings import settings
from plumbline.state import objects, trainings
from plumbline.state.leases import Lease
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
    about = objects.read_json(key(release_id, trainings.ABOUT))
    stored = objects.read(key(release_id, trainings.ROWS))
    if about is None or stored is None:
        raise TrainingError(f"no dataset of release {release_id} yet: run `plumb dataset --release {release_id}` first")
    rows = canonical.from_parquet(stored.content)
    actual = canonical.content_hash(rows)
    if actual != about["content_hash"]:
        raise TrainingError(
            f"{stored.where} is not the dataset that dataset.json describes: its content is {actual}, "
            f"expected {about['content_hash']}; delete it and run `plumb dataset --release {release_id}`"
        )
    seen.read(CHURN.dataset, about["dataset_id"])
    return Dataset(about, rows)


def key(release_id: int | str, name: str) -> str:
    """The key of an object that says something of a release's dataset or its training."""
    return trainings.key(PRODUCT, release_id, name)


def folder(release_id: int) -> Path:
    """This home's folder for what training only draws: plots, which MLflow has too."""
    return settings().home / "training" / PRODUCT / str(release_id)


def working(name: str) -> AbstractContextManager[Lease]:
    """The lease of training: two datasets, trainings or registrations at once would not know of each other."""
    return leases.lease(CHURN, name, "training")
