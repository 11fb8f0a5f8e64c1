"""Rows and nulls of a table at a version, from the Delta log's statistics alone: no data file is opened.

A version never changes, so that what was read of one is kept for as long as it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.state import erasures

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable


@dataclass(frozen=True)
class Facts:
    """Rows in all; of those that came with this version, the share of nulls by column; the newest of a time column.

    A column whose nulls the log does not count is not in `nulls`; `newest` is None when the log does not say.
    """

    rows: int
    nulls: dict[str, float] = field(default_factory=dict)
    newest: datetime | None = None


class LakeFacts:
    """Facts of tables at versions, read once each."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int | None], Facts] = {}
        self._heads: dict[str, DeltaTable] = {}

    def head(self, table: str) -> int | None:
        """The newest version of a table that no release names, by what its log has more than at the last look."""
        known = self._heads.get(table)
        if known is None:
            if lake.version(table) is None:
                return None
            known = self._heads[table] = lake.open_table(table)
        known.update_incremental()
        return int(known.version())

    def at(self, table: str, version: int, base: int | None = None, newest: str = "") -> Facts:
        """Facts of a version; nulls are of the rows that `base` does not have, or of all when it has the same.

        Raises LakeError when a version is gone.
        """
        key = table, version, base
        if key not in self._known:
            self._known[key] = _read(table, version, base, newest)
            self._known = {k: facts for k, facts in self._known.items() if k[0] != table or k == key}
        return self._known[key]


def _read(table: str, version: int, base: int | None, newest: str) -> Facts:
    import pyarrow.compute as pc

    files = _files(table, version)
    came = files
    base = None if base is None else erasures.remaining(table, base)
    if base is not None and base != version:
        added = pc.invert(pc.is_in(files["path"], value_set=_files(table, base)["path"].combine_chunks()))
        came = files.filter(added) if pc.any(added).as_py() else files
    stamps = pc.max(files[f"max.{newest}"]).as_py() if f"max.{newest}" in files.column_names else None
    if stamps is not None and stamps.tzinfo is None:
        stamps = stamps.replace(tzinfo=UTC)
    return Facts(_sum(files, "num_records") or 0, dict(_nulls(came)), stamps)


def _nulls(came: pa.Table) -> Iterable[tuple[str, float]]:
    rows = _sum(came, "num_records")
    for name in came.column_names:
        column = name.removeprefix("null_count.")
        counted = _sum(came, name) if column != name and "." not in column else None
        if rows and counted is not None:
            yield column, counted / rows


def _sum(files: pa.Table, column: str) -> int | None:
    """The sum over files; None when one of them does not say."""
    import pyarrow.compute as pc

    found: Any = files[column]
    return None if found.null_count else int(pc.sum(found).as_py() or 0)


def _files(table: str, version: int) -> pa.Table:
    import pyarrow as pa

    return pa.table(lake.open_table(table, version).get_add_actions(flatten=True))
