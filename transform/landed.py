"""A raw table as dbt reads it: at a version, without rejected batches, and under both names of a renamed column.

While the contract announces a rename, raw has the old column, the new one or both (dual_write.py). A model
finds either name, filled, so that it can move to the new one on any day, also after the old column was dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

from plumbline.contracts import contract as contracts
from plumbline.lake import tables as lake


def at(table: str, pinned: int, without: Iterable[str] = ()) -> str:
    """The raw table `raw.<name>` at a version, as a relation that Spark SQL reads."""
    relation = lake.at(table, pinned, without)
    renames = contracts.shop(table.partition(".")[2]).standing()
    if not renames:
        return relation
    there = {field.name for field in lake.open_table(table, pinned).schema().fields}
    made, hidden = [], []
    for rename in renames:
        found = [name for name in (rename.new, rename.old) if name in there]
        if found:
            hidden += found
            both = found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"
            made += [f"{both} AS {rename.old}", f"{both} AS {rename.new}"]
    if not made:
        return relation
    source = f"(SELECT * FROM {relation})"
    return f"(SELECT * EXCEPT ({', '.join(hidden)}), {', '.join(made)} FROM {source})"
