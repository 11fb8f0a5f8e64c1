"""Two Delta versions of one table held against each other, by reading only the files that they do not share.

Two versions of a table mostly name the same files, so the cost follows what changed and not how much there is. Files
are compared folder by folder (a partition each), so that a table written anew is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.lake.table_diff import differs

if TYPE_CHECKING:
    import pandas as pd

BOOKKEEPING = {"loaded_at", "created_at", "release_id", "batch_id", "_dlt_load_id", "_dlt_id"}
"""Who wrote a row and when: not what is in it."""


def compare(
    table: str, before: int, after: int, key: Sequence[str], without: tuple[Iterable[str], Iterable[str]] = ((), ())
) -> dict[str, Any]:
    """What differs: `rows` (before, after, added, removed, changed), `columns` (added, removed, retyped).

    `key` tells one row from another: without one, counts by key are None. `without` names the batches that are left out
    on each side.
    """
    sides = [_Side(table, version, set(batches)) for version, batches in zip((before, after), without, strict=True)]
    shared = set(sides[0].files) & set(sides[1].files) if sides[0].without == sides[1].without else set()
    counts: dict[str, int | None] = {"before": sides[0].count(), "after": sides[1].count()}
    counts |= dict.fromkeys(("added", "removed", "changed"), 0 if key else None)
    if key:
        folders = sorted({_folder(path) for side in sides for path in side.files if path not in shared})
        for folder in folders:
            old, new = (side.read(folder, shared) for side in sides)
            for name, number in _by_key(old, new, list(key)).items():
                counts[name] = (counts[name] or 0) + number
    return {"rows": counts, "columns": _columns(sides[0].types, sides[1].types)}


class _Side:
    """One version of the table: its files by path, and what is left out of it."""

    def __init__(self, table: str, version: int, without: set[str]) -> None:
        self.data = lake.open_table(table, version).to_pyarrow_dataset()
        self.files = {fragment.path: fragment for fragment in self.data.get_fragments()}
        self.types = {field.name: str(field.type) for field in self.data.schema}
        self.without = without if "batch_id" in self.types else set()

    def count(self) -> int:
        return int(self.data.count_rows(filter=self._wanted()))

    def read(self, folder: str, shared: set[str]) -> pd.DataFrame:
        """The rows of the files in a folder that the other version does not have."""
        import pyarrow.dataset as pd_set

        chosen = [item for path, item in self.files.items() if path not in shared and _folder(path) == folder]
        found = pd_set.FileSystemDataset(chosen, self.data.schema, self.data.format, self.data.filesystem)
        frame: pd.DataFrame = found.to_table(filter=self._wanted()).to_pandas()
        return frame

    def _wanted(self) -> Any:
        import pyarrow.compute as pc

        return ~pc.field("batch_id").isin(sorted(self.without)) if self.without else None


def _by_key(before: pd.DataFrame, after: pd.DataFrame, key: list[str]) -> dict[str, int]:
    import numpy as np

    old, new = (frame.drop_duplicates(key, keep="last").set_index(key) for frame in (before, after))
    both = old.index.intersection(new.index)
    changed = np.zeros(len(both), bool)
    if len(both):
        left, right = old.loc[both], new.loc[both]
        for name in (set(old.columns) & set(new.columns)) - BOOKKEEPING:
            changed |= differs(left[name], right[name])
    return {"added": len(new) - len(both), "removed": len(old) - len(both), "changed": int(changed.sum())}


def _columns(before: dict[str, str], after: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        "added": {name: kind for name, kind in after.items() if name not in before},
        "removed": {name: kind for name, kind in before.items() if name not in after},
        "retyped": {n: [before[n], after[n]] for n in before if n in after and before[n] != after[n]},
    }


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
