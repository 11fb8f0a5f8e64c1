"""Churn's outcome log: one row a scored customer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from products.churn import LOG as TABLE
from serving import outcome_log

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLE", "append", "schema"]


def schema() -> pa.Schema:
    """The table's columns. `at` is the platform's now, `logged_at` the real time; scores are probabilities of churn.

    `revision` is null outside a rollout, `activity_event_time` without a live row; a table from before one was logged
    gets the column with its next rows.
    """
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("request_id", pa.string()),
            ("at", stamp),
            ("logged_at", stamp),
            ("customer_id", pa.int64()),
            ("features", pa.string()),
            ("event_time", stamp),
            ("features_age_seconds", pa.float64()),
            ("release_id", pa.int64()),
            ("model_version", pa.string()),
            ("track", pa.string()),
            ("score", pa.float64()),
            ("revision", pa.string()),
            ("activity_event_time", stamp),
        ]
    )


def append(rows: list[dict[str, Any]]) -> None:
    """Appends rows to the table, which the first ones create, in one commit."""
    outcome_log.append(TABLE, schema(), rows)
