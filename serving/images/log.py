"""The image predictor's outcome log: one row a scored image or picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from products.images import LOG as TABLE
from serving import outcome_log

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLE", "append", "schema"]


def schema() -> pa.Schema:
    """The table's columns. `at` is the platform's now, `logged_at` the real time; `asked_by` is `id` or `bytes`.

    An embedding is 5 kB, so in `features` its digest stands for it. `view` is Feast's, from which it was read; `score`
    is the label's probability. Of a picture, view, event_time, age and release are null.
    """
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("request_id", pa.string()),
            ("at", stamp),
            ("logged_at", stamp),
            ("image_id", pa.string()),
            ("asked_by", pa.string()),
            ("view", pa.string()),
            ("features", pa.string()),
            ("event_time", stamp),
            ("features_age_seconds", pa.float64()),
            ("release_id", pa.int64()),
            ("model_version", pa.string()),
            ("track", pa.string()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("revision", pa.string()),
        ]
    )


def append(rows: list[dict[str, Any]]) -> None:
    """Appends rows to the table, which the first ones create, in one commit."""
    outcome_log.append(TABLE, schema(), rows)
