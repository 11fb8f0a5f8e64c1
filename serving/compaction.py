"""Compaction of the outcome log: predictors append a small file every few seconds, and every reader opens each of them.

Rows stay as they are: many small files become few large ones in a new version. A version from before stays readable
until its files have been out of use for RETENTION's days, and longer when somebody names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.lake import tables as lake
from plumbline.pipeline import retention
from plumbline.pipeline.lake_owner import require_own_lake
from plumbline.product import Product
from plumbline.state import leases
from serving.outcome_log import RETENTION


@dataclass(frozen=True)
class Compacted:
    """Files of the newest version before and after, and files that went because no version needs them any more."""

    before: int
    after: int
    removed: int


def compact(product: Product) -> Compacted:
    """Compacts the product's outcome log while predictors go on appending to it; nothing when there is none yet.

    Raises Conflict while another compaction is at work, ServiceUnavailable when it cannot be known which versions are
    named.
    """
    require_own_lake()
    if lake.version(product.log) is None:
        return Compacted(0, 0, 0)
    named = sorted(retention.named(product).get(product.log, {}))
    with leases.hold(product.name, "compact_log", "compaction"):
        table = lake.opened(product.log)
        if not RETENTION.items() <= table.metadata().configuration.items():  # a table from before it was set
            table.alter.set_table_properties(RETENTION)
        before = len(table.file_uris())
        table.optimize.compact()
        table.create_checkpoint()
        removed = table.vacuum(dry_run=False, keep_versions=named or None)  # older than the table's own retention
        return Compacted(before, len(table.file_uris()), len(removed))
