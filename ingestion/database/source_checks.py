"""What the shop shows is what its contract promises, row by row, or nothing lands: nothing null, each value of its
type (SQLite keeps anything in any column) and in its range, each key once, nothing dated in the future.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.database.source import as_stored
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED, Column
from plumbline.errors import ServiceUnavailable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

    from ingestion.database.changes import Late

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
LOOKBACK = timedelta(days=7)
"""How far behind a landing's window rows are looked for that the shop recorded, but showed too late."""

SHOWN = 3
TYPES = {
    "integer": "integers",
    "number": "numbers",
    "date": "dates, as in 1997-01-31",
    "timestamp": "times, as in 1997-01-31 12:00:00",
    "string": "text",
    "boolean": "true or false",
}
STORED = {"integer": ("integer",), "number": ("integer", "real"), "string": ("text",), "boolean": ("integer",)}
"""What SQLite says of a value of each kind."""


@dataclass(frozen=True)
class Window:
    """Which rows of the shop are looked at: those recorded in [start, end), by table also those that are `late`; and
    the day that the run covers."""

    start: datetime
    end: datetime
    as_of: date
    late: Mapping[str, Late] = field(default_factory=dict)


@dataclass(frozen=True)
class Breach:
    """One rule of a contract that rows break: how many, and some of them in words."""

    table: str
    column: str
    rows: int
    told: str


def refuse_absent(url: sa.URL) -> None:
    """Raises ServiceUnavailable when a SQLite shop has no file; to connect would make an empty one."""
    if url.drivername.startswith("sqlite") and url.database and not Path(url.database).exists():
        raise ServiceUnavailable(
            f"there is no shop database at {url.database}: name yours in PLUMBLINE_SHOP_URL, "
            "or let `plumb shop load` load the real orders"
        )


def breaches(
    connection: sa.Connection,
    table: str,
    names: Mapping[str, str],
    types: Mapping[str, TypeEngine[Any]],
    window: Window,
) -> list[Breach]:
    """The rules that rows of the window break, and those whose `recorded_at` is no time at all.

    `names` says what the shop calls the contract's columns, `types` what it declares them as.
    """
    import sqlalchemy as sa

    contract = contracts.shop(table)
    key = contract.key[0]
    source = sa.table(table, *(sa.column(name) for name in names.values()))
    id_ = source.c[names[key]]
    late = window.late.get(table)
    opens = min(window.start, late.start) if late else window.start
    inside = in_window(types[names[RECORDED]], names[RECORDED], opens, window.end)
    if late:
        inside = late.condition(inside, {name: source.c[names[name]] for name in contract.key})
    found = []

    def count(column: Column, bad: sa.ColumnElement[bool], told: str) -> None:
        value = source.c[names[column.name]]
        where = bad if column.name == RECORDED else sa.and_(inside, bad)
        rows = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
        if rows:
            some = connection.execute(sa.select(id_, value).where(where).order_by(id_).limit(SHOWN))
            listed = ", ".join(f"{key} {row[0]}: {'null' if row[1] is None else _said(row[1])}" for row in some)
            what = f"{table}.{names[column.name]}: {rows:,} rows are {told}, such as {listed}"
            found.append(Breach(table, column.name, rows, what))

    for column in contract.columns.values():
        value = source.c[names[column.name]]
        for bad, told in _rules(column, value, connection.dialect.name == "sqlite", window):
            count(column, bad, told)
    twice = sa.select(id_, sa.func.count()).where(inside, id_.is_not(None)).group_by(id_)
    repeated = connection.execute(twice.having(sa.func.count() > 1).order_by(id_)).all()
    if repeated:
        told = ", ".join(f"{key} {row[0]}: {row[1]} times" for row in repeated[:SHOWN])
        what = f"{table}.{names[key]}: {len(repeated):,} keys are not there once, such as {told}"
        found.append(Breach(table, key, sum(row[1] for row in repeated), what))
    return found


def in_window(stored: TypeEngine[Any], recorded: str, start: datetime, end: datetime) -> sa.ColumnElement[bool]:
    """The condition that a row was recorded in [start, end), by a column of that name and type."""
    import sqlalchemy as sa

    stamp = sa.column(recorded, stored)
    return sa.and_(stamp >= as_stored(stored, start), stamp < as_stored(stored, end))


def _rules(
    column: Column, value: sa.ColumnElement[Any], sqlite: bool, window: Window
) -> list[tuple[sa.ColumnElement[bool], str]]:
    """The conditions on rows that break what the contract says of one column, each with what to call them."""
    import sqlalchemy as sa

    mistyped = _mistyped(value, column.kind) if sqlite else None
    bad = [mistyped] if mistyped is not None else []
    absent = sa.and_(value.is_not(None), *bad) if bad else sa.false()
    rules = [(sa.or_(value.is_(None), *bad) if column.required else absent, f"not {TYPES[column.kind]}")]
    # not_() of SQLAlchemy leaves `IS NOT` as it is
    sound = sa.case((mistyped, 0), else_=1) == 1 if mistyped is not None else sa.true()
    if column.minimum is not None:
        rules.append((sa.and_(sound, value < column.minimum), f"below {column.minimum:,}"))
    if column.maximum is not None:
        rules.append((sa.and_(sound, value > column.maximum), f"above {column.maximum:,}"))
    if column.not_after_run:
        last: Any = window.as_of.isoformat() if sqlite else window.as_of
        rules.append((sa.and_(sound, value > last), f"dated behind {window.as_of}, the day that the run covers"))
    return rules


def _mistyped(value: sa.ColumnElement[Any], kind: str) -> sa.ColumnElement[bool]:
    """SQLite's word on what a value is; its date functions give null, or another day, for one that does not exist."""
    import sqlalchemy as sa

    day = sa.func.date(value, "+0 days").is_not(value)
    if kind == "date":
        return day
    if kind == "timestamp":
        return sa.and_(sa.func.datetime(value, "+0 days").is_not(sa.func.substr(value, 1, 19)), day)
    return sa.func.typeof(value).not_in(STORED[kind])


def _said(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else repr(value)
