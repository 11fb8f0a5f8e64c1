"""The columns of the tables that stages 01 and 02 write, as their contracts have them."""

from __future__ import annotations

from typing import Any

from plumbline.contracts import contract as contracts

ARROW = {"string": "string", "bigint": "int64", "int": "int32", "binary": "binary"}


def schema(table: str) -> Any:
    """The Arrow schema of a table, by its contract; timestamps in microseconds, UTC."""
    import pyarrow as pa

    def kind(physical: str) -> Any:
        if physical == "timestamp":
            return pa.timestamp("us", tz="UTC")
        return pa.type_for_alias(ARROW[physical])

    return pa.schema([(column.name, kind(column.type)) for column in contracts.load(table).columns.values()])


def append(table: str, rows: list[dict[str, Any]]) -> int:
    """Appends rows in one commit; the table's version then. Without rows nothing is written."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from plumbline.lake import tables as lake

    if rows:
        data = pa.Table.from_pylist(rows, schema=schema(table))
        write_deltalake(lake.uri(table), data, mode="append", storage_options=lake.storage_options())
    return int(lake.version(table) or 0)
