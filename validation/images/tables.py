"""What the image gates read: a table at the version that dataset.json names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plumbline.lake import tables as lake
from validation.leakage_findings import Audited

if TYPE_CHECKING:
    import pandas as pd

COPY = "~"
"""What divides an augmented copy's id from the id of its picture."""


def read(audited: Audited, named: str, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of the table in a name like `clean_version`, whose value is `delta:clean.images@v=3`."""
    table = str(audited.about[named]).removeprefix("delta:").partition("@v=")[0]
    stored = lake.open_table(table, audited.version(named)).to_pyarrow_table(columns=list(columns))
    frame: pd.DataFrame = stored.to_pandas()
    return frame


def base(images: pd.Series) -> pd.Series:
    """The picture that each row is of: an augmented copy's is the one that it was made from."""
    found: pd.Series = images.str.partition(COPY)[0]
    return found
