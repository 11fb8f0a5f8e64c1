"""What the shop shows is what `shop.schema()` says, or nothing lands: tables, columns, nothing null, each value of its
type (SQLite keeps anything in any column), each key once. What values may be is for the gates behind to judge.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.shop import ShopError, as_stored, schema
from plumbline.errors import ServiceUnavailable

if TYPE_CHECKING:
    import sqlalchemy as sa

SHOWN = 3
RECORDED = "recorded_at"
TYPES = {
    "BigInteger": "integers",
    "Date": "dates, as in 1997-01-31",
    "DateTime": "times, as in 1997-01-31 12:00:00",
}


def refuse_absent(url: sa.URL) -> None:
    """Raises ServiceUnavailable when a SQLite shop has no file; to connect would make an empty one."""
    if url.drivername.startswith("sqlite") and url.database and not Path(url.database).exists():
        raise ServiceUnavailable(
            f"there is no shop database at {url.database}: name yours in PLUMBLINE_SHOP_URL, "
            "or let `plumb shop load` load the real orders"
        )


def refuse_incomplete(connection: sa.Connection) -> None:
    """Raises ShopError when the shop lacks a table or a column, or declares one of another kind."""
    import sqlalchemy as sa

    inspector, wanted = sa.inspect(connection), schema().tables
    if missing := sorted(name for name in wanted if not inspector.has_table(name)):
        names = sorted([*inspector.get_table_names(), *inspector.get_view_names()])
        raise ShopError(f"the shop database lacks {missing}; it has {names}. `plumb shop load` loads the real orders.")
    for name, table in wanted.items():
        types = {column["name"]: column["type"] for column in inspector.get_columns(name)}
        if absent := [column.name for column in table.columns if column.name not in types]:
            raise ShopError(f"the shop's table {name} lacks {absent}; it has {list(types)}. Nothing was landed.")
        for column in table.columns:
            if types[column.name]._type_affinity is not column.type._type_affinity:
                raise ShopError(
                    f"the shop's {name}.{column.name} is declared {types[column.name]!r}: expected {column.type!r} or "
                    "another type of that kind. Nothing was landed."
                )


def refuse_unsound(connection: sa.Connection, start: datetime, end: datetime) -> None:
    """Raises ShopError that names table, column, key and value of rows that cannot land, and how many there are.

    Looks at what is recorded in [start, end), and at rows whose `recorded_at` is no time at all.
    """
    found = [line for name in schema().tables for line in _unsound(connection, name, start, end)]
    if found:
        raise ShopError(
            "the shop holds rows that cannot be read as what they should be:\n  "
            + "\n  ".join(found)
            + "\n  Nothing was landed. Mend them in the shop and run the same again."
        )


def _unsound(connection: sa.Connection, name: str, start: datetime, end: datetime) -> list[str]:
    import sqlalchemy as sa

    table = schema().tables[name]
    key = next(iter(table.primary_key.columns)).name
    source = sa.table(name, *(sa.column(column.name) for column in table.columns))
    stored = next(column["type"] for column in sa.inspect(connection).get_columns(name) if column["name"] == RECORDED)
    recorded = sa.column(RECORDED, stored)
    window = sa.and_(recorded >= as_stored(stored, start), recorded < as_stored(stored, end))
    sqlite = connection.dialect.name == "sqlite"
    lines = []
    for column in table.columns:
        value, kind = source.c[column.name], type(column.type).__name__
        bad = sa.or_(value.is_(None), _mistyped(value, kind)) if sqlite else value.is_(None)
        where = bad if column.name == RECORDED else sa.and_(window, bad)
        count = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
        if count:
            some = connection.execute(sa.select(source.c[key], value).where(where).order_by(source.c[key]).limit(SHOWN))
            told = ", ".join(f"{key} {row[0]}: {'null' if row[1] is None else repr(row[1])}" for row in some)
            lines.append(f"{name}.{column.name}: {count:,} rows are not {TYPES[kind]}, such as {told}")
    twice = sa.select(source.c[key], sa.func.count()).where(window, source.c[key].is_not(None)).group_by(source.c[key])
    repeated = connection.execute(twice.having(sa.func.count() > 1).order_by(source.c[key])).all()
    if repeated:
        told = ", ".join(f"{key} {row[0]}: {row[1]} times" for row in repeated[:SHOWN])
        lines.append(f"{name}.{key}: {len(repeated):,} keys are not there once, such as {told}")
    return lines


def _mistyped(value: sa.ColumnElement[object], kind: str) -> sa.ColumnElement[bool]:
    """SQLite's word on what a value is; its date functions give null, or another day, for one that does not exist."""
    import sqlalchemy as sa

    day = sa.func.date(value, "+0 days").is_not(value)
    if kind == "Date":
        return day
    if kind == "DateTime":
        return sa.and_(sa.func.datetime(value, "+0 days").is_not(sa.func.substr(value, 1, 19)), day)
    return sa.func.typeof(value) != "integer"
