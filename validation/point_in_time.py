"""The offline side of parity, without Spark: a release's rows as Feast's historical join would give them.

That it gives the same is a property test (tests/feature_repo/test_point_in_time_properties.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa

Entity = int | str
"""What names an entity: a customer's number, an image's id."""


@dataclass(frozen=True)
class Row:
    """An entity's row: its event_time, and features by name: null and NaN as None, a FLOAT as a double, a list of
    them as the bytes of its 32-bit numbers."""

    event_time: datetime
    values: dict[str, Any]


@dataclass(frozen=True)
class Offline:
    """A view's rows at one version of its table: `names` are its features, and a ttl of 0 is never over.

    A name that the table does not have is None in every row.
    """

    table: str
    version: int
    entity: str
    ttl: timedelta
    names: Sequence[str]

    @property
    def order(self) -> list[str]:
        """The columns by which rows of one entity follow each other."""
        return [self.entity, "event_time", "created_at"]

    def newest(self, end: datetime, only: Collection[Entity] | None = None) -> dict[Entity, Row]:
        """The newest row of every entity, or of `only` these, with one in [end - ttl, end].

        Of rows that share entity and event_time it is the one created last.
        """
        import pyarrow.compute as pc

        stored = self._stored()
        wanted = pc.field("event_time") <= end
        if self.ttl:
            wanted &= pc.field("event_time") >= end - self.ttl
        if only is not None:
            wanted &= pc.field(self.entity).isin(sorted(only))
        fresh = stored.to_table(columns=[*self.order, *self._held(stored)], filter=wanted)
        ordered = fresh.select(self.order).to_pandas().sort_values(self.order, kind="stable")
        last = ordered.drop_duplicates(self.entity, keep="last").index.to_numpy()
        return dict(self._rows(fresh.take(last)))

    def entities(self, end: datetime) -> tuple[pa.Table, set[Entity]]:
        """Who has a row that has not expired by `end`, a table of one column; and all who have any row by then."""
        import pyarrow.compute as pc

        rows = self._stored().to_table(columns=[self.entity, "event_time"], filter=pc.field("event_time") <= end)
        known = rows[self.entity].unique().to_pylist()
        fresh = rows.filter(pc.field("event_time") >= end - self.ttl) if self.ttl else rows
        return fresh.select([self.entity]), set(known)

    def joined(self, asked: Sequence[tuple[Entity, datetime]]) -> list[Row | None]:
        """For each (entity, moment) the newest row that was knowable at the moment and not older than the ttl.

        In the order asked; None where there is none.
        """
        import pyarrow.compute as pc

        if not asked:
            return []
        stored = self._stored()
        moments = [moment for _, moment in asked]
        wanted = pc.field("event_time") <= max(moments)
        if self.ttl:
            wanted &= pc.field("event_time") >= min(moments) - self.ttl
        wanted &= pc.field(self.entity).isin(sorted({entity for entity, _ in asked}))
        rows = stored.to_table(columns=[*self.order, *self._held(stored)], filter=wanted)
        by_entity: dict[Entity, list[Row]] = defaultdict(list)
        for entity, row in self._rows(rows.sort_by([(name, "ascending") for name in self.order])):
            by_entity[entity].append(row)
        return [_as_of(by_entity[entity], moment, self.ttl) for entity, moment in asked]

    def _stored(self) -> Any:
        return lake.open_table(self.table, self.version).to_pyarrow_dataset()

    def _held(self, stored: Any) -> list[str]:
        return [name for name in self.names if name in stored.schema.names]

    def _rows(self, table: pa.Table) -> Iterable[tuple[Entity, Row]]:
        columns = {name: _values(table[name]) if name in table.column_names else repeat(None) for name in self.names}
        stamps = table["event_time"].to_pylist()
        for entity, stamp, *values in zip(table[self.entity].to_pylist(), stamps, *columns.values()):  # noqa: B905
            yield entity, Row(stamp, dict(zip(columns, map(missing_as_none, values), strict=True)))


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same bit for bit: 0.0 is not -0.0, 1 is not 1.0, missing is missing."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right and math.copysign(1.0, left) == math.copysign(1.0, right)
    return bool(left == right)


def _as_of(rows: list[Row], moment: datetime, ttl: timedelta) -> Row | None:
    """Of rows in the order of their event_time, the last one at or before the moment, if the ttl has not passed."""
    at = bisect_right(rows, moment, key=lambda row: row.event_time)
    return rows[at - 1] if at and (not ttl or moment - rows[at - 1].event_time <= ttl) else None


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values as Row has them."""
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    return [None if each.values is None else each.values.to_numpy().tobytes() for each in column]


def missing_as_none(value: Any) -> Any:
    """The value, None for a NaN: both mean missing."""
    return None if isinstance(value, float) and math.isnan(value) else value
