"""Compaction of the outcome log: predictors append a small file every few seconds, and every reader opens each of them.

Rows stay as they are: many small files become few large ones in a new version. A version from before stays readable
until its files have been out of use for RETENTION's days, and longer when somebody names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.lake import tables as lake
from plumbline.pipeline import retention
from plumbline.pipeline.lake_owner import require_own_lake
from plumbline.state import leases
from products.churn import CHURN
from serving.outcome_log import RETENTION, TABLE


@dataclass(frozen=True)
class Compacted:
    """Files of the newest version before and after, and files that went because no version needs them any more."""

    before: int
    after: int
    removed: int


def compact() -> Compacted:
    """Compacts the outcome log while predictors go on appending to it; nothing when there is none yet.

    Raises Conflict while another compaction is at work, ServiceUnavailable when it cannot be known which versions are
    named.
    """
    require_own_lake()
    if lake.version(TABLE) is None:
        return Compacted(0, 0, 0)
    named = sorted(retention.named(CHURN).get(TABLE, {}))
    with leases.hold(CHURN.name, "compact_log", "compaction"):
        table = lake.opened(TABLE)
        if not RETENTION.items() <= table.metadata().configuration.items():  # a table from before it was set
            table.alter.set_table_properties(RETENTION)
        before = len(table.file_uris())
        table.optimize.compact()
        table.create_checkpoint()
        removed = table.vacuum(dry_run=False, keep_versions=named or None)  # older than the table's own retention
        return Compacted(before, len(table.file_uris()), len(removed))
