"""What came of the predictions: the Delta table `serving.outcomes`, one row for each row of the outcome log.

A row is appended once and never changed. `simulated` says that a row is made up; in this repository every row is.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.state import leases
from products.churn import CHURN
from serving.churn import log as outcome_log

if TYPE_CHECKING:
    import pyarrow as pa


Action = Literal["contact", "none"]
"""What the campaign does about a customer."""

TABLE = "serving.outcomes"
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
    known = _known()
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in log.to_pylist():
        key = (row["request_id"], row["customer_id"])
        if key not in known and key not in found:
            found[key] = {"request_id": key[0], "customer_id": key[1], "day": day(row["at"])}
            found[key]["action"] = action(row["score"])
    return [found[key] for key in sorted(found)]


def append(rows: list[dict[str, Any]], new: bool = False) -> int:
    """Appends those of the rows whose request and customer have no outcome yet, in one commit; how many.

    `new` says that none has one, for who made the request ids up himself: nothing is read then.
    """
    import pyarrow as pa
    from deltalake import write_deltalake

    with leases.hold(CHURN.name, "outcomes", "outcomes", wait=True):
        known, recorded_at = set() if new else _known(), clock.wall()
        added = [
            {**row, "recorded_at": recorded_at} for row in rows if (row["request_id"], row["customer_id"]) not in known
        ]
        if added:
            table = pa.Table.from_pylist(added, schema=schema())
            write_deltalake(
                lake.uri(TABLE),
                table,
                mode="append",
                configuration=lake.KEEP_LOG,
                storage_options=lake.storage_options(),
            )
    return len(added)


def _known() -> set[tuple[str, int]]:
    if lake.version(TABLE) is None:
        return set()
    keys = lake.open_table(TABLE).to_pyarrow_table(columns=["request_id", "customer_id"])
    return set(zip(keys["request_id"].to_pylist(), keys["customer_id"].to_pylist(), strict=True))


def day(at: datetime) -> date:
    """The last day whose orders were known at a request: its features are as of that day's end."""
    return (at - timedelta(days=1)).date()
