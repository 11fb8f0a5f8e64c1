"""A shop's stamps as instants, in SQL: SQLite keeps them as text, in several forms that do not sort as text.

`1997-01-11 00:00:00`, `1997-01-11T00:00:00Z`, `1997-01-11 05:30+05:30` and `1997-01-11` are one instant. A window's
ends are whole seconds, so the fraction of a second decides nothing and is left out of the comparison.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

OFFSET = "*[-+][0-2][0-9]:[0-5][0-9]"
Clause = sa.ColumnElement[Any]


class Instant(FunctionElement[Any]):
    """A column of times as what it compares by: itself, and in SQLite text of one form, in UTC."""

    inherit_cache = True

    def __init__(self, stamp: Clause) -> None:
        super().__init__(stamp)
        self.type = stamp.type


@compiles(Instant)
def _as_it_is(element: Instant, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses, **kwargs)


@compiles(Instant, "sqlite")
def _as_text(element: Instant, compiler: SQLCompiler, **kwargs: Any) -> str:
    (stamp,) = element.clauses
    clock, zone = _parts(sa.type_coerce(stamp, sa.Text()))
    text = sa.func.datetime(sa.func.substr(clock, 1, 19).concat(zone)).concat(".000000")
    return compiler.process(text, **kwargs)


def no_instant(stamp: Clause) -> Clause:
    """In SQLite: the condition that a value is no time, or one that Python does not read, such as 24:00 or year 0."""
    stamp = sa.type_coerce(stamp, sa.Text())
    clock, zone = _parts(stamp)
    seconds, rest = sa.func.substr(clock, 1, 19), sa.func.substr(clock, 20)
    real = sa.func.datetime(seconds, "+0 days")  # another day or time where the stated one does not exist
    fraction = sa.and_(rest.op("GLOB")(".[0-9]*"), sa.not_(sa.func.substr(rest, 2).op("GLOB")("*[^0-9]*")))
    forms = (seconds, seconds.concat(":00"), seconds.concat(" 00:00:00"))
    sound = sa.and_(
        sa.func.typeof(stamp) == "text",
        sa.or_(*(real == sa.func.replace(form, "T", " ") for form in forms)),
        sa.or_(rest == "", fraction),
        sa.func.datetime(seconds.concat(zone)).is_not(None),
        stamp >= "0001-01-02",
    )
    return sa.case((sound, 0), else_=1) == 1


def _parts(stamp: Clause) -> tuple[Clause, Clause]:
    """A text stamp without its zone, and the zone: Z, +05:30 or nothing."""
    utc, offset = stamp.op("GLOB")("*[Zz]"), stamp.op("GLOB")(OFFSET)
    length = sa.func.length(stamp)
    clock = sa.case(
        (utc, sa.func.substr(stamp, 1, length - 1)), (offset, sa.func.substr(stamp, 1, length - 6)), else_=stamp
    )
    return clock, sa.case((utc, "Z"), (offset, sa.func.substr(stamp, -6)), else_="")
