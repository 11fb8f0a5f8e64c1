"""The rows that were read, before they land: the same promises as the record gate asks the shop's database for.

The gate asks in SQL and the reading comes later: a row that was written between both, or that a driver reads another
way, is looked at here. Landing calls `refuse_broken` for each Arrow table that it is about to write.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from ingestion.database.source_checks import SHOWN, named
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED
from plumbline.contracts.limits import said
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa


def refuse_broken(rows: pa.Table, table: str, as_of: date) -> None:
    """Raises GateFailed that names each promise that these rows break, with keys and values.

    `rows` have the shop's columns under the names of the contract or those announced for them.
    """
    if broken := [*_broken(rows, table, as_of), *_cut(rows, table)]:
        raise GateFailed(
            f"rows of the shop's {table} were checked and read a moment later with other values:\n  "
            + "\n  ".join(broken)
            + f"\n  Nothing of them was landed. Run `plumb ingest --as-of {as_of}` again: its gate sees them now."
        )


def counted_from(rows: pa.Table, table: str) -> pa.Array:
    """The first instant (UTC) at which each row may count: when it was recorded, and not before its own date begins.

    East of Greenwich the shop's day begins before the day by UTC: an order of the shop's tomorrow that is recorded
    today counts from tomorrow's snapshot on, so that it is never both in a snapshot and in the label behind it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    instant = pa.timestamp("us", tz="UTC")
    counted = rows[RECORDED].cast(instant)
    for name, column in contracts.shop(table).columns.items():
        if column.not_after_run and name in rows.column_names:
            begins = rows[name].cast(pa.timestamp("us")).cast(instant)
            counted = pc.if_else(pc.fill_null(pc.greater(begins, counted), False), begins, counted)
    return counted.combine_chunks() if isinstance(counted, pa.ChunkedArray) else counted


def _broken(rows: pa.Table, table: str, as_of: date) -> Iterator[str]:
    """The promises of a table's contract that rows break, a sentence each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    contract = contracts.shop(table)
    served = {
        column: next((name for name in contract.accepted(column) if name in rows.column_names), None)
        for column in contract.columns
    }
    keys = [served[key] for key in contract.key]
    for column in contract.columns.values():
        name = served[column.name]
        if name is None:
            yield f"{table}.{column.name}: no such column was read"
            continue
        values, place = rows[name], f"{table}.{name}"
        kind = _kind(values.type)
        if kind != column.kind and not (pa.types.is_null(values.type) or (kind, column.kind) == ("integer", "number")):
            yield f"{place}: read as {values.type}, expected {column.kind}"
            continue
        rules = [(pc.is_null(values), "null")] if column.required else []
        if not pa.types.is_null(values.type):
            low, high = (_as_read(bound, values.type) for bound in (column.limits.low, column.limits.high))
            if low is not None:
                rules.append((pc.less(values, low), f"below {said(column.limits.low)}"))
            if high is not None:
                rules.append((pc.greater(values, high), f"above {said(column.limits.high)}"))
            if column.not_after_run:
                last = contract.last_date(as_of)
                told = f"dated behind {last}, the day that the run covers"
                rules.append((pc.greater(values, pa.scalar(last, values.type)), told))
        for bad, told in rules:
            wrong = rows.filter(pc.fill_null(bad, False))
            if len(wrong):
                yield f"{place}: {len(wrong):,} rows are {told}, such as {_samples(wrong, contract.key, keys, name)}"
    if None not in keys:
        counted = rows.group_by(keys).aggregate([([], "count_all")])  # the count comes last, whatever the keys' names
        repeated = counted.filter(pc.greater(counted.column(len(keys)), 1)).select(range(len(keys)))
        if len(repeated):
            told = "; ".join(named(contract.key, [row[key] for key in keys]) for row in repeated[:SHOWN].to_pylist())
            yield f"{table}.{'+'.join(map(str, keys))}: {len(repeated):,} keys were read more than once, such as {told}"


def _cut(rows: pa.Table, table: str) -> Iterator[str]:
    """The columns whose values would be cut or lost in what raw holds of them."""
    import pyarrow as pa

    if lake.version(f"raw.{table}") is None:
        return
    holds = {field.name: field.type for field in lake.open_table(f"raw.{table}").to_pyarrow_dataset().schema}
    for name in rows.column_names:
        values, held = rows[name], holds.get(name)
        if (
            held is None
            or pa.types.is_null(values.type)
            or values.type == held
            or _kind(values.type) == _kind(held) == "timestamp"
        ):
            continue
        kinds = (_kind(values.type), _kind(held))
        try:
            fits = kinds[0] == kinds[1] or kinds == ("integer", "number")
            whole = fits and values.cast(held).cast(values.type).equals(values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            whole = False
        if not whole:
            yield (
                f"{table}.{name}: read as {values.type}, raw.{table} holds {held}, and values would be cut or lost: "
                "deliver it under a new name, or cast it back in a view"
            )


def _samples(wrong: pa.Table, key: tuple[str, ...], columns: list[Any], name: str) -> str:
    rows = wrong.slice(0, SHOWN).to_pylist()
    return ", ".join(f"{named(key, [row.get(column) for column in columns])}: {_value(row[name])}" for row in rows)


def _value(value: object) -> str:
    return "null" if value is None else value.isoformat() if isinstance(value, date) else repr(value)


def _as_read(bound: Any, kind: pa.DataType) -> Any:
    """A limit as Arrow compares it with a column of that type, None without a limit."""
    import pyarrow as pa

    if bound is None or not pa.types.is_temporal(kind):
        return bound
    moment = bound if isinstance(bound, datetime) else datetime.combine(bound, time(), UTC)
    if pa.types.is_date(kind):
        return pa.scalar(moment.date(), kind)
    return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)


def _kind(of: pa.DataType) -> str:
    """What a contract calls an Arrow type."""
    import pyarrow as pa

    kinds = {
        "integer": pa.types.is_integer,
        "number": lambda kind: pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        "date": pa.types.is_date,
        "timestamp": pa.types.is_timestamp,
        "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "boolean": pa.types.is_boolean,
    }
    return next((name for name, fits in kinds.items() if fits(of)), str(of))
