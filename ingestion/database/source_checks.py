"""What the shop shows is what its contract promises, row by row, or nothing lands: nothing null, each value of its
type (SQLite keeps anything in any column) and in its range, each key once, nothing dated in the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.database.source import as_stored
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column, Contract
from plumbline.contracts.limits import said
from plumbline.errors import ServiceUnavailable
from plumbline.shop import loading

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

    from ingestion.database.changes import Late

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(1, 1, 4, tzinfo=UTC)
"""Before any row: as far back as a condition on times can reach."""

LOOKBACK = timedelta(days=7)
"""How far behind a landing's window rows are looked for that the shop recorded, but showed too late."""

MARGIN = timedelta(days=2)
SHOWN = 3
TYPES = {
    "integer": "integers",
    "number": "numbers",
    "date": "dates, as in 1997-01-31",
    "timestamp": "times, as in 1997-01-31 12:00:00",
    "string": "text, without NUL",
    "boolean": "true or false",
}
STORED = {"integer": ("integer",), "number": ("integer", "real"), "string": ("text",), "boolean": ("integer",)}
"""What SQLite says of a value of each kind."""

DIGITS = 9
"""Behind the point: as many as the lake holds of a `numeric` that is declared without a precision (38 in all)."""

NUMERIC = f"NaN, infinite, or longer than a numeric without precision lands ({DIGITS} digits behind the point): "
NUMERIC += "declare a precision, or cast it in a view"

READABLE = {
    "date": ("DATE '0001-01-01'", "DATE '9999-12-31'"),
    "timestamp": ("TIMESTAMP '0001-01-02'", "TIMESTAMP '9999-12-30'"),
}
"""Between which values Python reads a Postgres's dates and times, in any zone; infinity lies outside."""


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
            f"there is no shop database at {url.database}: name yours in PLUMBLINE_SHOP_URL{loading()}"
        )


def breaches(
    connection: sa.Connection,
    table: str,
    names: Mapping[str, str],
    types: Mapping[str, TypeEngine[Any]],
    window: Window,
) -> list[Breach]:
    """The rules that rows of the window break, and those whose `recorded_at` is no time at all.

    `names` says what the shop calls the contract's columns, `types` what it declares all its columns as. A column that
    the contract does not name keeps its declared type.
    """
    import sqlalchemy as sa

    contract = contracts.shop(table)
    source = sa.table(table, *(sa.column(name) for name in types))
    keys = [source.c[names[key]] for key in contract.key]
    late = window.late.get(table)
    opens = min(window.start, late.start) if late else window.start
    inside = recorded_in(contract, types, opens, window.end)
    if late:
        inside = late.condition(inside, {name: source.c[names[name]] for name in contract.key})
    dialect = connection.dialect.name
    # A row without a key of its type is not due by key, so it is looked for wherever it lies.
    sent = recorded_in(contract, types, EARLIEST, window.end)
    in_key = {names[key] for key in contract.key}
    broken = []

    def count(name: str, bad: sa.ColumnElement[bool], told: str) -> None:
        value = source.c[name]
        where = bad if name == contract.recorded else sa.and_(sent if name in in_key else inside, bad)
        rows = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
        if rows:
            # Python does not read every value of a Postgres, and it is such values that are shown.
            shown = sa.cast(value, sa.Text()) if kind_of(types[name]) in READABLE and dialect != "sqlite" else value
            some = connection.execute(sa.select(*keys, shown).where(where).order_by(*keys).limit(SHOWN))
            listed = ", ".join(
                f"{named(contract.key, row[:-1])}: {'null' if row[-1] is None else _said(row[-1])}" for row in some
            )
            what = f"{table}.{name}: {rows:,} rows are {told}, such as {listed}"
            broken.append(Breach(table, name, rows, what))

    for column in contract.columns.values():
        name = names[column.name]
        for bad, told in _rules(column, source.c[name], types[name], dialect, contract.last_date(window.as_of)):
            count(name, bad, told)
    for name, kind in added(table, names, types).items():
        if (wrong := unreadable(source.c[name], kind, dialect)) is not None:
            what = f"not {TYPES[kind]}, as the column is declared: mend them, or name it in leftOut of {contract.file}"
            count(name, sa.and_(source.c[name].is_not(None), wrong), what)
    for name, declared in types.items():
        if name not in contract.left_out and (long := unheld(source.c[name], declared, dialect)) is not None:
            count(name, long, NUMERIC)
    given = sa.and_(*(key.is_not(None) for key in keys))
    twice = sa.select(*keys, sa.func.count()).where(inside, given).group_by(*keys)
    repeated = connection.execute(twice.having(sa.func.count() > 1).order_by(*keys)).all()
    if repeated:
        told = ", ".join(f"{named(contract.key, row[:-1])}: {row[-1]} times" for row in repeated[:SHOWN])
        what = f"{table}.{'+'.join(names[key] for key in contract.key)}: {len(repeated):,} keys are not there once, "
        rows = sum(row[-1] for row in repeated)
        broken.append(Breach(table, contract.key[0], rows, f"{what}such as {told}"))
    return broken


def added(table: str, names: Mapping[str, str], types: Mapping[str, TypeEngine[Any]]) -> dict[str, str]:
    """The shop's columns that the contract does not name and that land, each with its kind, where that is known."""
    contract = contracts.shop(table)
    announced = {name for rename in contract.standing() for name in (rename.old, rename.new)}
    others = [name for name in types if name not in {*names.values(), *announced, *contract.left_out}]
    return {name: kind for name in others if (kind := kind_of(types[name]))}


def kind_of(declared: TypeEngine[Any]) -> str | None:
    """What a contract would call a declared type, None where it has no word for it. A domain is what it is based on."""
    from sqlalchemy import types as sql

    kinds = {
        "integer": sql.Integer,
        "number": sql.Numeric,
        "timestamp": sql.DateTime,
        "date": sql.Date,
        "boolean": sql.Boolean,
        "string": sql.String,
    }
    based = base_type(declared)
    if isinstance(based, sql.Enum):
        return None
    return next((kind for kind, of in kinds.items() if isinstance(based, of)), None)


def base_type(declared: TypeEngine[Any]) -> TypeEngine[Any]:
    """A declared type, or what a domain of it is based on."""
    from sqlalchemy.dialects.postgresql import DOMAIN

    while isinstance(declared, DOMAIN):
        declared = declared.data_type
    return declared


def named(key: Sequence[str], values: Sequence[Any]) -> str:
    """A row by its key, as messages have it: `order_id 17`, or `region DE, order_id 17`."""
    return ", ".join(f"{name} {value}" for name, value in zip(key, values, strict=True))


def in_window(stored: TypeEngine[Any], recorded: str, start: datetime, end: datetime) -> sa.ColumnElement[bool]:
    """The condition that a row was recorded in [start, end), by a column of that name and type, in whole seconds.

    It compares instants: what SQLite keeps as text counts by the instant that it names, in whatever form.
    """
    import sqlalchemy as sa

    from ingestion.database.sqlite_stamps import Instant

    stamp = sa.column(recorded, base_type(stored))
    # The plain comparison lets an index help; text that names an instant begins with a date no further off than this.
    near = sa.and_(stamp >= as_stored(stamp.type, start - MARGIN), stamp < as_stored(stamp.type, end + MARGIN))
    instant = Instant(stamp)
    return sa.and_(near, instant >= as_stored(stamp.type, start), instant < as_stored(stamp.type, end))


def recorded_in(
    contract: Contract, types: Mapping[str, TypeEngine[Any]], start: datetime, end: datetime
) -> sa.ColumnElement[bool]:
    """The condition that a row counts as recorded in [start, end): by a time, by a date of the shop's calendar, whose
    end counts, or always where the contract says that no column has it."""
    import sqlalchemy as sa

    name = contract.recorded
    if name is None:
        return sa.true()
    if kind_of(types[name]) == "date":
        day = sa.column(name, sa.Date())
        return sa.and_(day > contract.last_ended(start), day <= contract.last_ended(end))
    return in_window(types[name], name, start, end)


def first_recorded(connection: sa.Connection, table: str, types: Mapping[str, TypeEngine[Any]]) -> datetime | None:
    """When the shop recorded its first row of a table, UTC; None when it has none whose time can be read.

    Where a row has a date, the end of that day counts.
    """
    import sqlalchemy as sa

    from ingestion.database.sqlite_stamps import Instant

    contract = contracts.shop(table)
    name = contract.recorded
    if name is None:
        return None
    sqlite, kind = connection.dialect.name == "sqlite", str(kind_of(types[name]))
    stamp = sa.column(name, base_type(types[name]))
    bad = unreadable(stamp, kind, connection.dialect.name)
    moment = sa.type_coerce(Instant(stamp) if kind == "timestamp" else stamp, sa.Text()) if sqlite else stamp
    query = sa.select(sa.func.min(moment))
    first = connection.scalar(query.select_from(sa.table(table)).where(sa.not_(bad) if bad is not None else sa.true()))
    if first is None:
        return None
    if kind == "date":
        return contract.end_of_date(date.fromisoformat(str(first)))
    return clock.in_utc(datetime.fromisoformat(str(first)))


def _rules(
    column: Column, value: sa.ColumnElement[Any], stored: TypeEngine[Any], dialect: str, last: date
) -> list[tuple[sa.ColumnElement[bool], str]]:
    """The conditions on rows that break what the contract says of one column, each with what to call them."""
    import sqlalchemy as sa

    from ingestion.database.sqlite_stamps import Instant

    bad = unreadable(value, column.kind, dialect)
    broken = bad if bad is not None else sa.false()
    absent = value.is_(None) if column.required else sa.false()
    rules = [(sa.or_(absent, sa.and_(value.is_not(None), broken)), f"not {TYPES[column.kind]}")]
    # not_() of SQLAlchemy leaves `IS NOT` as it is
    sound = sa.case((broken, 0), else_=1) == 1
    compared = Instant(sa.type_coerce(value, base_type(stored))) if column.kind == "timestamp" else value

    def bound(limit: Any) -> Any:
        if column.kind == "timestamp":
            return as_stored(base_type(stored), limit)
        return limit.isoformat() if column.kind == "date" and dialect == "sqlite" else limit

    if (low := column.limits.low) is not None:
        rules.append((sa.and_(sound, compared < bound(low)), f"below {said(low)}"))
    if (high := column.limits.high) is not None:
        rules.append((sa.and_(sound, compared > bound(high)), f"above {said(high)}"))
    if column.not_after_run:
        rules.append((sa.and_(sound, value > bound(last)), f"dated behind {last}, the day that the run covers"))
    return rules


def unreadable_columns(connection: sa.Connection, table: str, types: Mapping[str, TypeEngine[Any]]) -> set[str]:
    """The dates and times of a table of which some row's value is none that Python reads."""
    import sqlalchemy as sa

    columns = set()
    for name in [name for name, declared in types.items() if kind_of(declared) in READABLE]:
        value: sa.ColumnElement[Any] = sa.column(name)
        bad = unreadable(value, str(kind_of(types[name])), connection.dialect.name)
        rows = (
            sa.select(value).select_from(sa.table(table)).where(value.is_not(None), sa.false() if bad is None else bad)
        )
        if connection.scalar(sa.select(sa.exists(rows))):
            columns.add(name)
    return columns


def unreadable(value: sa.ColumnElement[Any], kind: str, dialect: str) -> sa.ColumnElement[bool] | None:
    """The condition that a value is not what its kind says, or that Python cannot read it; None where none can be.

    SQLite keeps anything in any column. Postgres has dates that Python has not, and infinity.
    """
    import sqlalchemy as sa

    from ingestion.database import sqlite_stamps

    if dialect != "sqlite":
        if kind not in READABLE:
            return None
        low, high = READABLE[kind]
        return sa.or_(value < sa.literal_column(low), value > sa.literal_column(high))
    if kind == "date":
        # its date functions give null, or another day, for one that does not exist
        return sa.or_(sa.func.date(value, "+0 days").is_not(value), value < "0001-01-01")
    if kind == "timestamp":
        return sqlite_stamps.no_instant(value)
    stored = sa.func.typeof(value).not_in(STORED[kind])
    return sa.or_(stored, sa.func.instr(value, sa.func.char(0)) > 0) if kind == "string" else stored


def unheld(value: sa.ColumnElement[Any], declared: TypeEngine[Any], dialect: str) -> sa.ColumnElement[bool] | None:
    """The condition that a Postgres `numeric` is none that a decimal of the lake holds; None where none can be."""
    import sqlalchemy as sa

    based = base_type(declared)
    if dialect == "sqlite" or not isinstance(based, sa.Numeric) or isinstance(based, sa.Float):
        return None
    endless = sa.cast(value, sa.Text()).in_(["NaN", "Infinity", "-Infinity"])
    if based.precision is not None:
        return endless
    long = sa.or_(value != sa.func.round(value, DIGITS), sa.func.abs(value) >= sa.literal_column(f"1e{38 - DIGITS}"))
    return sa.or_(endless, sa.and_(sa.not_(endless), long))


def _said(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else repr(value)
