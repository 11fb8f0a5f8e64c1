"""The name of SQLAlchemy that is not public and that plumbline uses, here and nowhere else.

Two column types are of one kind when SQLAlchemy compares and binds them alike: BIGINT and INTEGER, or TIMESTAMP and
DATETIME. Its public `as_generic` tells BIGINT from INTEGER. A test fails when its version is another than VERSION.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

VERSION = "2.0.58"
"""The SQLAlchemy whose code was read for this."""


def same_kind(one: TypeEngine[Any], other: TypeEngine[Any]) -> bool:
    """Whether both stand for integers, for times, for strings, …"""
    return one._type_affinity is other._type_affinity
