"""What came of the predictions: the Delta table `serving.outcomes`, one row for each row of the outcome log.

A row is appended once and never changed. `simulated` says that a row is made up; in this repository every row is.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from plumbline.lake import tables as lake
from products.churn import CHURN
from products.churn import OUTCOMES as TABLE
from serving import outcomes
from serving.churn import log as outcome_log

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["TABLE", "append", "awaiting", "schema", "summary"]

Action = Literal["contact", "none"]
"""What the campaign does about a customer."""

CONTACT_FROM = 0.8
"""The campaign contacts customers with at least this probability of churn, whichever version said so."""


def schema() -> pa.Schema:
    """The table's columns. `window_start` and `window_end` are the first and last day of the real orders behind
    `really_ordered`; `handle_seconds` is null without a call."""
    import pyarrow as pa

    return pa.schema(
        [
            ("request_id", pa.string()),
            ("customer_id", pa.int64()),
            ("contacted", pa.bool_()),
            ("ordered", pa.bool_()),
            ("called_support", pa.bool_()),
            ("handle_seconds", pa.float64()),
            ("really_ordered", pa.bool_()),
            ("window_start", pa.date32()),
            ("window_end", pa.date32()),
            ("simulated", pa.bool_()),
            ("recorded_at", pa.timestamp("us", tz="UTC")),
        ]
    )


def action(score: float) -> Action:
    """What the campaign does about a score."""
    return "contact" if score >= CONTACT_FROM else "none"


def awaiting(version: int | None = None) -> list[dict[str, Any]]:
    """The predictions, up to that version of the log, that have no outcome yet: `request_id`, `customer_id`, `day` (of
    the request) and `action`.

    Which version on which track scored them is not read. A customer twice in one request is one row. Raises LakeError
    without an outcome log.
    """
    columns = ["request_id", "customer_id", "at", "score"]
    log = lake.open_table(outcome_log.TABLE, version).to_pyarrow_table(columns=columns)
    known = outcomes.known(CHURN)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in log.to_pylist():
        key = (row["request_id"], row["customer_id"])
        if key not in known and key not in found:
            found[key] = {"request_id": key[0], "customer_id": key[1], "day": day(row["at"])}
            found[key]["action"] = action(row["score"])
    return [found[key] for key in sorted(found)]


def append(rows: list[dict[str, Any]], new: bool = False) -> int:
    """Appends rows as serving.outcomes.append does."""
    return outcomes.append(CHURN, schema(), rows, new)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of it, counted."""
    return {
        "contacted": sum(row["contacted"] for row in rows),
        "ordered": sum(row["ordered"] for row in rows),
        "called_support": sum(row["called_support"] for row in rows),
        "real orders of": sorted({f"{row['window_start']}..{row['window_end']}" for row in rows}),
    }


def day(at: datetime) -> date:
    """The last day whose orders were known at a request: its features are as of that day's end."""
    return (at - timedelta(days=1)).date()
