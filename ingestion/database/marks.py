"""What tells two versions of a row apart: when the shop recorded them, or a digest where no column says when.

A shop's contract names that column (`recordedAt`): a time, a date, whose end by the shop's calendar counts, or none.
Raw has a `recorded_at` in each case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST = "#digest"
"""What tells two versions of a key apart where no column says when they were recorded: a hash of a row's values.
It does not land, and no column that lands has such a name."""

FETCHED = 50_000
"""Rows at a time from the shop's driver."""


def mark(contract: contracts.Contract) -> str:
    """The column that tells two versions of a key apart."""
    return RECORDED if contract.recorded else DIGEST


def mark_of(contract: contracts.Contract) -> Callable[[tuple[Any, ...]], Any]:
    """What makes a row's mark of what a driver gives: of the column that says when, or else of all the contract's."""
    if contract.recorded is None:
        kinds = [column.kind for column in contract.columns.values()]
        return lambda row: _digest(row, kinds)
    if contract.columns[contract.recorded].kind == "timestamp":
        return lambda row: _instant(row[0])
    return lambda row: None if row[0] is None else contract.end_of_date(date.fromisoformat(str(row[0])))


def marked(rows: pa.Table, table: str, end: datetime) -> pa.Table:
    """Rows as they were read, with what raw has beside the shop's columns where the contract has no `recorded_at`: the
    end of the day that another column names, that column's time, or the end of the run's day and a digest."""
    import pyarrow as pa

    contract, stamp = contracts.shop(table), pa.timestamp("us", tz="UTC")
    if contract.recorded == RECORDED:
        return rows
    if contract.recorded is None:
        moment = pa.scalar(end - timedelta(microseconds=1), stamp)
        rows = rows.append_column(DIGEST, digests(contract, rows))
        return rows.append_column(RECORDED, pa.repeat(moment, len(rows)))
    column = rows[contract.recorded]
    if contract.columns[contract.recorded].kind == "date":
        ends = {day: contract.end_of_date(day) for day in column.unique().to_pylist() if day is not None}
        return rows.append_column(RECORDED, pa.array([ends.get(day) for day in column.to_pylist()], stamp))
    return rows.append_column(RECORDED, column.cast(stamp))


def digests(contract: contracts.Contract, rows: pa.Table) -> pa.Array:
    """A hash of the contract's columns for each row, the same however a driver or raw holds their values."""
    import pyarrow as pa

    served = [next((n for n in contract.accepted(c) if n in rows.column_names), None) for c in contract.columns]
    kinds = [column.kind for column in contract.columns.values()]
    found: list[bytes] = []
    for part in rows.to_batches(max_chunksize=FETCHED):
        columns = [[None] * len(part) if name is None else part.column(name).to_pylist() for name in served]
        found += [_digest(values, kinds) for values in zip(*columns, strict=True)]
    return pa.array(found, pa.binary())


def _digest(row: Iterable[Any], kinds: Iterable[str]) -> bytes:
    parts = (None if value is None else plain(value, kind) for value, kind in zip(row, kinds, strict=True))
    return hashlib.blake2b(repr(tuple(parts)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def plain(value: Any, kind: str) -> str:
    """A value as text: of one number or moment the same, whatever type a database or raw gives it."""
    if kind == "timestamp":
        return str(_instant(value) or value)
    if kind == "date":
        return str(value)[: len("1997-01-31")]
    if kind == "number":
        try:
            return format(Decimal(str(value)).normalize(), "f")
        except InvalidOperation:
            return str(value)
    return str(bool(value)) if kind == "boolean" else str(value)


def _instant(value: Any) -> datetime | None:
    """A time as the shop gives it, in UTC; None when it is none."""
    try:
        return clock.in_utc(value if isinstance(value, datetime) else datetime.fromisoformat(str(value)))
    except ValueError:
        return None
