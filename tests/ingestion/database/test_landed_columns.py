"""Names and types of columns in raw are foretold as dlt makes them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.sources.sql_database.schema_types import sqla_col_to_column_schema
from sqlalchemy.dialects import postgresql, sqlite

from ingestion.database.landed_columns import landed_name, landed_type, reserved

NAMES = [
    "gift note",
    "GiftNote",
    "giftNote",
    "KNOWN_AT",
    "KnownAt",
    "known at",
    " batchId ",
    "Loaded-At",
    "a__b",
    "__a",
    "tail_",
    "1st",
    "HTTPServer",
    "a+b*c@d|e",
    "größe",
    "_dlt_id",
    "_DLT_id",
    "x_",
    "deletedAt",
]
TYPES = [
    sa.BigInteger(),
    sa.SmallInteger(),
    sa.Integer(),
    sa.Float(),
    sa.Numeric(10, 2),
    sa.Numeric(12, 0),
    sa.Numeric(),
    sa.String(10),
    sa.Text(),
    sa.Enum("a", "b"),
    sa.Uuid(),
    sa.LargeBinary(),
    sa.DateTime(),
    sa.Date(),
    sa.Time(),
    sa.JSON(),
    sa.Boolean(),
    sa.Interval(),
    postgresql.ARRAY(sa.Text()),
    postgresql.JSONB(),
    postgresql.UUID(),
    postgresql.INTERVAL(),
    postgresql.INET(),
    postgresql.MONEY(),
    postgresql.INT4RANGE(),
    postgresql.BIT(3),
    postgresql.CITEXT(),
    postgresql.BYTEA(),
    postgresql.TIMESTAMP(timezone=True),
    postgresql.DOUBLE_PRECISION(),
    sqlite.DATETIME(),
    sa.types.NullType(),
]
DELTA = {"text": "string", "json": "string", "time": "string", "bigint": "long", "bool": "boolean"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_lands_as_dlt_writes_it(name: str) -> None:
    assert landed_name(name) == NamingConvention().normalize_identifier(name)


@pytest.mark.parametrize("kind", TYPES, ids=repr)
def test_a_type_lands_as_dlt_maps_it(kind: sa.types.TypeEngine[object]) -> None:
    column = sqla_col_to_column_schema(sa.Column("c", kind), "full") or {}
    word = column.get("data_type")
    wanted = f"decimal({column.get('precision', 38)},{column.get('scale', 9)})" if word == "decimal" else word
    assert landed_type(kind) == (DELTA.get(wanted, wanted) if wanted else None)


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (sa.Numeric(50, 20), "string"),  # dlt writes what is longer than a decimal of Delta as text
        (sa.Numeric(38, 0), "decimal(38,0)"),
        (sa.Numeric(3, -2), None),
        (sa.Numeric(3, 5), None),
        (sa.Time(timezone=True), None),
    ],
    ids=repr,
)
def test_a_type_that_dlt_would_cut_or_break_on_is_left_out_or_text(
    kind: sa.types.TypeEngine[object], held: str | None
) -> None:
    assert landed_type(kind) == held


def test_a_domain_lands_as_what_it_is_based_on() -> None:
    cents = postgresql.DOMAIN("cents", postgresql.DOMAIN("amount", sa.BigInteger()))
    assert landed_type(cents) == "long"


@pytest.mark.parametrize(
    "name",
    [
        "known_at",
        "KNOWN_AT",
        "KnownAt",
        "known at",
        "batchId",
        "loaded_at",
        "deleted_at",
        "_dlt_id",
        "_dlt_load_id",
        "_DLT_anything",
    ],
)
def test_a_name_of_the_platforms_own_columns_is_reserved_in_any_case(name: str) -> None:
    assert reserved(name)
    assert not reserved(f"shop_{name}")
