"""The tables that stages 01 and 02 write: their columns, as their contracts have them, and how rows are added."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from plumbline.contracts import contract as contracts
from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = {"string": "string", "bigint": "int64", "int": "int32"}

ROWS_AT_ONCE = 2_000
"""Rows that are Python's own at a time: an Arrow row takes a tenth of the memory."""


class Rows:
    """Rows of a table as they come, kept as Arrow's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tables, self._rows = list["pa.Table"](), list[dict[str, Any]]()

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._tables.append(table(self.name, self._rows))
            self._rows = []

    def table(self) -> pa.Table:
        """All of them."""
        import pyarrow as pa

        return pa.concat_tables([*self._tables, table(self.name, self._rows)])


def schema(name: str) -> pa.Schema:
    """The Arrow schema of a table, by its contract; timestamps in microseconds, UTC."""
    import pyarrow as pa

    def kind(physical: str) -> Any:
        if physical == "timestamp":
            return pa.timestamp("us", tz="UTC")
        return pa.type_for_alias(ARROW[physical])

    return pa.schema([(column.name, kind(column.type)) for column in contracts.load(name).columns.values()])


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table with the columns of that contract."""
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema(name))


def of_json(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """The same of rows from JSON, where times are text (ISO 8601)."""
    times = [column.name for column in contracts.load(name).columns.values() if column.type == "timestamp"]
    return table(name, [row | {time: datetime.fromisoformat(row[time]) for time in times} for row in rows])


def append(name: str, rows: pa.Table) -> int:
    """Appends rows in one commit; the table's version then. Without rows nothing is written."""
    from deltalake import write_deltalake

    if len(rows):
        write_deltalake(lake.uri(name), rows, mode="append", storage_options=lake.storage_options())
    return int(lake.version(name) or 0)
