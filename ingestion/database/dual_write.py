"""An announced rename in the platform's own raw table: both columns, filled, until the notice ends; then one.

The shop may switch on any day of the notice. Landing fills the name that it does not deliver from the one that it
does, so a reader of either finds its column. The first landing behind the notice drops the old one, for which raw is
written anew (older versions stay readable), and says so: but never before both have been written for 7 days by the
platform's clock, whatever date the contract gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import NOTICE, Rename
from plumbline.lake import tables as lake
from plumbline.progress import say
from plumbline.state import objects

if TYPE_CHECKING:
    import pyarrow as pa


def doubled(product: str, table: str) -> list[Rename]:
    """The renames of a table of a product's shop for which raw gets both columns today."""
    there = raw_columns(table)
    return [
        r for r in contracts.shop(table).standing() if not r.over() or (r.old in there and not _due(product, table, r))
    ]


def begin(product: str, table: str) -> list[dict[str, Any]]:
    """Notes since when both columns are written, once; what began just now, for the ledger."""
    began = []
    for rename in doubled(product, table):
        told = {"table": table, "change": "renamed", "column": rename.new, "old": rename.old, "told": rename.told()}
        with suppress(objects.Exists):
            objects.create_json(_record(product, table, rename), {**told, "since": clock.now().isoformat()})
            say(f"raw.{table}: both {rename.old} and {rename.new} are written from now on ({rename.told()})")
            began.append(told)
    return began


def drop_old(product: str, table: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Drops old columns whose notice is over from raw; the version that this made (None: nothing was due), and what
    was dropped."""
    there = raw_columns(table)
    due = [r for r in contracts.shop(table).standing() if r.over() and r.old in there and _due(product, table, r)]
    if not due:
        return None, []
    name = f"raw.{table}"
    _rewrite(name, due)
    dropped = []
    for rename in due:
        say(f"{name}: {rename.old} is dropped, its notice is over; {rename.new} has all its values ({rename.told()})")
        dropped.append({"table": table, "change": "dropped", "column": rename.old, "told": rename.told()})
    return lake.version(name), dropped


def filled(rows: pa.Table, renames: Sequence[Rename]) -> pa.Table:
    """The rows with both columns of each rename, the one that they lack filled from the other."""
    for rename in renames:
        for name, other in ((rename.old, rename.new), (rename.new, rename.old)):
            if name not in rows.column_names and other in rows.column_names:
                rows = rows.append_column(name, rows[other])
    return rows


def retired(product: str, table: str) -> list[str]:
    """Old names that raw has no more and must not get again, should the shop still show them beside the new."""
    twice = doubled(product, table)
    return [rename.old for rename in contracts.shop(table).standing() if rename.over() and rename not in twice]


def raw_columns(table: str) -> list[str]:
    """The columns of a raw table; none before the first landing."""
    name = f"raw.{table}"
    return [] if lake.version(name) is None else [field.name for field in lake.open_table(name).schema().fields]


def _rewrite(name: str, due: Sequence[Rename]) -> None:
    """Writes the table anew without the old columns, batch by batch of rows, as one version."""
    import pyarrow.compute as pc
    from deltalake import write_deltalake

    dataset = lake.open_table(name).to_pyarrow_dataset()
    chosen = {column: pc.field(column) for column in dataset.schema.names if column not in {r.old for r in due}}
    for rename in due:
        new = pc.field(rename.new) if rename.new in dataset.schema.names else pc.field(rename.old)
        chosen[rename.new] = pc.coalesce(new, pc.field(rename.old))
    reader: pa.RecordBatchReader = dataset.scanner(columns=chosen).to_reader()
    write_deltalake(
        lake.uri(name), reader, mode="overwrite", schema_mode="overwrite", storage_options=lake.storage_options()
    )


def _due(product: str, table: str, rename: Rename) -> bool:
    """Whether both columns have been written for as long as a notice lasts."""
    begun = objects.read_json(_record(product, table, rename))
    return begun is not None and datetime.fromisoformat(begun["since"]) + NOTICE <= clock.now()


def _record(product: str, table: str, rename: Rename) -> str:
    return f"schema_changes/{product}/{table}.{rename.old}-{rename.new}.json"
