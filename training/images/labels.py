"""What an image shows, as it was known at a moment: the newest statement about it up to then.

`raw.image_labels` keeps every statement. A later re-annotation is a later row, so it does not count before its time.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = ("image_id", "label", "event_time", "labelled_at", "batch_id")
ORDER = ["image_id", "event_time", "labelled_at", "label"]


def known(statements: pa.Table, cutoff: datetime) -> pd.Series:
    """image_id → label, of the images that had one by `cutoff`; a statement without a label takes the label away.

    Raises TrainingError when a second, plainer way does not come to the same.
    """
    frame: pd.DataFrame = statements.to_pandas()
    told = frame[frame["event_time"] <= cutoff].sort_values(ORDER, kind="stable", na_position="first")
    newest = told.drop_duplicates("image_id", keep="last").set_index("image_id")["label"].dropna()
    plain = _plainly(statements.to_pylist(), cutoff)
    if newest.to_dict() != plain:
        wrong = sorted(set(newest.to_dict().items()) ^ set(plain.items()))
        raise TrainingError(
            f"two ways to the labels known by {cutoff} differ for {len(wrong):,} images, the first {wrong[0][0]}: no "
            "dataset is made of that"
        )
    return newest


def _plainly(rows: list[dict[str, Any]], cutoff: datetime) -> dict[str, str]:
    """The same one statement at a time."""
    newest: dict[str, tuple[tuple[datetime, datetime, str], str | None]] = {}
    for row in rows:
        rank = (row["event_time"], row["labelled_at"], row["label"] or "")
        if row["event_time"] <= cutoff and (row["image_id"] not in newest or rank >= newest[row["image_id"]][0]):
            newest[row["image_id"]] = (rank, row["label"])
    return {image: label for image, (_, label) in newest.items() if label is not None}
