"""The keys of a shop's rows: as raw holds what a driver gives, and as messages have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def said(key: Any) -> str:
    """A key, a value or a tuple of several columns' values, as messages have it."""
    if isinstance(key, tuple):
        return f"({', '.join(repr(part) if isinstance(part, str) else str(part) for part in key)})"
    return str(key)


def as_raw(
    rows: Iterable[Any], fields: list[pa.Field], marked_by: Callable[[tuple[Any, ...]], Any]
) -> Iterator[tuple[Any, ...]]:
    """The key and mark of each row (the key's columns first) as the `fields` of raw; without rows whose key is none."""
    readers = [_reader(field.type) for field in fields[:-1]]
    for row in rows:
        key = [read(value) for read, value in zip(readers, row, strict=False)]
        if None not in key:
            yield (*key, marked_by(tuple(row)[len(readers) :]))


def _reader(kind: pa.DataType) -> Callable[[Any], Any]:
    """What makes a part of a key of what a driver gives, as raw would hold it; None of what is no such value."""
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return lambda value: value if isinstance(value, int) else None
    if pa.types.is_date(kind):
        return _date
    return lambda value: None if value is None else str(value)


def _date(value: Any) -> date | None:
    try:
        return value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError:
        return None
