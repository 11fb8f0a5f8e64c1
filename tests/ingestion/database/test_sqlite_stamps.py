"""Text stamps of a SQLite shop: they count by the instant that they name, in whatever form they are written."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa

from ingestion.database import source_checks
from ingestion.database.source_checks import Window

START, END = datetime(1997, 1, 10, tzinfo=UTC), datetime(1997, 1, 11, tzinfo=UTC)
TYPES = {"customer_id": sa.BigInteger(), "signed_up_at": sa.DateTime(), "recorded_at": sa.DateTime()}
NAMES = {name: name for name in TYPES}


@pytest.fixture
def shop() -> sa.Engine:
    database = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with database.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE customers (customer_id BIGINT, signed_up_at DATETIME, recorded_at DATETIME)")
        )
    return database


def recorded(shop: sa.Engine, stamp: str) -> tuple[bool, list[str]]:
    """Whether a row of that stamp is in the window of the 10th, and what the record gate says of it."""
    with shop.begin() as connection:
        connection.execute(sa.text("DELETE FROM customers"))
        connection.execute(sa.text("INSERT INTO customers VALUES (7, '1997-01-01', :stamp)"), {"stamp": stamp})
        inside = source_checks.in_window(sa.DateTime(), "recorded_at", START, END)
        rows = connection.scalar(sa.select(sa.func.count()).select_from(sa.table("customers")).where(inside))
        window = Window(START, END, date(1997, 1, 10))
        broken = source_checks.breaches(connection, "customers", NAMES, TYPES, window)
        return rows == 1, [breach.told for breach in broken]


@pytest.mark.parametrize(
    ("stamp", "inside"),
    [
        ("1997-01-10 00:00:00", True),
        ("1997-01-10T00:00:00", True),
        ("1997-01-10", True),
        ("1997-01-10 23:59", True),
        ("1997-01-10 23:59:59.9999999", True),
        ("1997-01-10T23:59:59Z", True),
        ("1997-01-11 05:29:59+05:30", True),
        ("1997-01-09T20:00:00-05:00", True),
        ("1997-01-11 00:00:00", False),
        ("1997-01-11T00:00:00.000Z", False),
        ("1997-01-11", False),
        ("1997-01-11T05:30+05:30", False),
        ("1997-01-09 23:59:59.999999", False),
        ("1997-01-10 05:29:59+05:30", False),
    ],
)
def test_a_text_stamp_belongs_to_the_day_of_its_instant(
    shop: sa.Engine, home: object, stamp: str, inside: bool
) -> None:
    assert recorded(shop, stamp) == (inside, [])


@pytest.mark.parametrize(
    "stamp",
    [
        "1997-02-30 10:00:00",
        "1997-01-10 24:00:00",
        "1997-01-10 23:59:60",
        "1997-01-10 10:00:00.5x",
        "1997-01-10 10:00:00 +05:30",
        "0000-01-01 00:00:00",
        "-4000-01-01 00:00:00",
        "now",
        "",
    ],
)
def test_a_text_that_names_no_instant_is_named_in_whatever_window(shop: sa.Engine, home: object, stamp: str) -> None:
    _, told = recorded(shop, stamp)
    assert told == [
        f"customers.recorded_at: 1 rows are not times, as in 1997-01-31 12:00:00, such as customer_id 7: {stamp!r}"
    ]


def test_the_first_record_is_the_earliest_instant_and_not_the_first_text(shop: sa.Engine) -> None:
    with shop.begin() as connection:
        for number, stamp in enumerate(["1997-01-02 01:00:00", "1997-01-01T23:00:00Z", "1997-01-02 03:00:00+05:00"]):
            connection.execute(
                sa.text("INSERT INTO customers VALUES (:number, NULL, :stamp)"), {"number": number, "stamp": stamp}
            )
        first = source_checks.first_recorded(connection, "customers", {"recorded_at": sa.DateTime()})
    assert first == datetime(1997, 1, 1, 22, tzinfo=UTC)
