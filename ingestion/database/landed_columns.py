"""Which columns of the shop land, under which names and as which types: what dlt makes of them, known before it reads.

dlt writes each name in snake case, and has a word for most declared types. It guesses the others from a day's values,
which another day can have otherwise: such columns are left out. Tests compare both with dlt's own functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ingestion.database.source_checks import base_type
from plumbline.contracts.contract import LANDING

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.types import TypeEngine

MOST_DIGITS = 38
"""Of a decimal in Delta; dlt writes a longer one as text."""


def landed_name(name: str) -> str:
    """A column's name in raw."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name.strip().translate(str.maketrans("+-*@|", "x_xal")))
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"([^_])([A-Z][a-z]+)", r"\1_\2", plain)).lower()
    words = f"_{words}" if words[:1].isdigit() else words
    stem = words.rstrip("_")
    return re.sub("__+", "_", stem + "x" * (len(words) - len(stem)))


def reserved(name: str) -> bool:
    """Whether a column of the shop would land under a name that the platform's own columns have."""
    landed = landed_name(name)
    return landed in LANDING or landed.startswith("_dlt")


def landed_type(declared: TypeEngine[Any]) -> str | None:
    """A declared type as raw (Delta) has it, None where raw cannot hold it: intervals, ranges, addresses, a time of day
    with a zone, which would lose it, …"""
    from sqlalchemy import types as sql

    kind = base_type(declared)
    if isinstance(kind, sql.Numeric):
        if not kind.asdecimal:
            return "double"
        if kind.precision is None:
            return f"decimal({MOST_DIGITS},9)"
        if not 0 <= (kind.scale or 0) <= kind.precision:
            return None
        return f"decimal({kind.precision},{kind.scale or 0})" if kind.precision <= MOST_DIGITS else "string"
    if isinstance(kind, sql.Time) and kind.timezone:
        return None
    delta: dict[str, tuple[type[TypeEngine[Any]], ...]] = {
        "string": (sql.Uuid, sql.String, sql.Time, sql.JSON, sql.ARRAY),
        "long": (sql.Integer,),
        "binary": (sql.LargeBinary, sql.BINARY, sql.VARBINARY),
        "timestamp": (sql.DateTime,),
        "date": (sql.Date,),
        "boolean": (sql.Boolean,),
    }
    return next((name for name, kinds in delta.items() if isinstance(kind, kinds)), None)
