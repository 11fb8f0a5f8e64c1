"""A training dataset as it is stored: read back, and refused when its content is not what was built.

`dataset.parquet` of a place (`plumbline.state.trainings`) holds the rows in canonical form (`training.canonical`),
`dataset.json` beside it says what they are: a name, the content hash, every version they were made from.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import observed as seen
from plumbline.pipeline import leases
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects, trainings
from plumbline.state.leases import Lease
from plumbline.state.trainings import Place
from training import canonical
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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


def load(place: Place) -> Dataset:
    """A dataset that was built. Raises TrainingError when there is none, or when its file is not what was built."""
    about = objects.read_json(place.key(trainings.ABOUT))
    stored = objects.read(place.key(trainings.ROWS))
    if about is None or stored is None:
        raise TrainingError(f"no dataset of release {place.name} yet: run `{place.command('dataset')}` first")
    rows = canonical.from_parquet(stored.content)
    actual = canonical.content_hash(rows, canonical.key(place.product))
    if actual != about["content_hash"]:
        raise TrainingError(
            f"{stored.where} is not the dataset that dataset.json describes: its content is {actual}, "
            f"expected {about['content_hash']}; delete it and run `{place.command('dataset')}`"
        )
    seen.read(place.product.dataset, about["dataset_id"])
    return Dataset(about, rows)


def folder(place: Place) -> Path:
    """This home's folder for what training only draws: plots, which MLflow has too."""
    return settings().home / "training" / place.product.name / place.name


def working(product: Product, name: str) -> AbstractContextManager[Lease]:
    """The lease of training: two datasets, trainings or registrations at once would not know of each other."""
    return leases.lease(product, name, "training")
