"""Types and values that Postgres has and raw or Python has not: named, left out or refused, never a traceback."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from ingestion.churn import cdnow as shop
from ingestion.database import landing, source, source_checks, source_schema
from ingestion.database.source_checks import BEGINNING, Window
from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from products.churn import CHURN

DAY = date(1997, 1, 3)


def execute(*statements: str) -> None:
    with source.connected(source.engine()) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


@pytest.fixture(autouse=True)
def _three_days(postgres_shop: sa.URL) -> None:
    shop.load(until=DAY)


def stopped() -> str:
    with pytest.raises(GateFailed) as error:
        stage.perform(CHURN, "ingest", DAY, landing.land)
    return str(error.value)


def breaches() -> list[str]:
    with source.connected(source.engine()) as connection:
        seen = source_schema.seen(connection, CHURN)
        types = {name: kind for name, (kind, _) in seen["orders"].items()}
        window = Window(BEGINNING, clock.end_of(DAY), DAY)
        names = source_schema.names("orders", seen)
        return [b.told for b in source_checks.breaches(connection, "orders", names, types, window)]


def differences() -> dict[str, str]:
    with source.connected(source.engine()) as connection:
        seen = source_schema.seen(connection, CHURN)
        return {d.column: f"{d.change}: {d.told}" for d in source_schema.differences(CHURN, seen, {})}


@pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_a_date_that_python_has_not_is_named_with_its_key(value: str) -> None:
    execute(f"UPDATE orders SET order_date = '{value}' WHERE order_id = 1")
    message = stopped()
    assert "orders.order_date: 1 rows are not dates, as in 1997-01-31, such as order_id 1: '" in message
    assert "The batch is in quarantine, whole" in message


@pytest.mark.parametrize("value", ["infinity", "20000-01-01"])
def test_a_record_of_no_time_is_named_and_never_silently_left(value: str) -> None:
    execute(f"UPDATE orders SET recorded_at = '{value}' WHERE order_id = 1")
    assert "orders.recorded_at: 1 rows are not times, as in 1997-01-31 12:00:00, such as order_id 1: '" in stopped()


def test_the_first_record_is_read_beside_an_endless_one() -> None:
    execute("UPDATE orders SET recorded_at = '-infinity' WHERE order_id = 1")
    with source.connected(source.engine()) as connection:
        first = source_checks.first_recorded(connection, "orders", {"recorded_at": sa.DateTime()})
    assert first is not None and first.date() == date(1997, 1, 1)
    assert breaches() == [
        "orders.recorded_at: 1 rows are not times, as in 1997-01-31 12:00:00, such as order_id 1: '-infinity'"
    ]


def test_an_endless_time_in_a_column_that_nobody_promised_is_named_too() -> None:
    execute("ALTER TABLE orders ADD COLUMN valid_until timestamptz", "UPDATE orders SET valid_until = 'infinity'")
    assert "orders.valid_until: " in breaches()[0] and "name it in leftOut of contracts/shop.orders" in breaches()[0]


def test_a_domain_does_as_well_as_what_it_is_based_on() -> None:
    execute("CREATE DOMAIN cents AS bigint", "ALTER TABLE orders ALTER COLUMN total_cents TYPE cents")
    assert differences() == {} and breaches() == []


@pytest.mark.parametrize("declared", ["numeric(12,0)", "numeric(10,2)", "text"])
def test_another_type_of_a_promised_column_is_refused_with_a_view_as_the_way_on(declared: str) -> None:
    execute(f"ALTER TABLE orders ALTER COLUMN total_cents TYPE {declared}")
    message = stopped()
    assert "the shop's orders.total_cents is declared " in message and "a view that casts it does as well" in message
    assert "The release in force stays" not in message, "there is none yet"


@pytest.mark.parametrize(
    "declared",
    ["interval", "inet", "money", "int4range", "bit(3)", "tsvector", "point", "oid", "timetz", "numeric(3,-2)"],
)
def test_an_added_column_that_raw_cannot_hold_is_left_out_and_named(declared: str) -> None:
    execute(f"ALTER TABLE orders ADD COLUMN extra {declared}")
    assert differences()["extra"].startswith("omitted: left out: orders.extra (")
    with source.connected(source.engine()) as connection:
        seen = source_schema.seen(connection, CHURN)
    assert "extra" not in source_schema.landing_columns("orders", seen)


@pytest.mark.parametrize(
    ("declared", "value", "cause"),
    [("time", "24:00", "can't parse time '24:00:00'"), ("json", r'"\ud83d"', "surrogates not allowed")],
)
def test_a_value_that_no_reader_reads_is_told_with_its_table_and_the_way_on(
    declared: str, value: str, cause: str
) -> None:
    execute(f"ALTER TABLE orders ADD COLUMN extra {declared} DEFAULT '{value}'")
    message = stopped()
    assert message.startswith("the shop's orders has a value that cannot be read as it is declared: ")
    assert cause in message and "name the column in leftOut of contracts/shop.orders" in message
    execute("ALTER TABLE orders ALTER COLUMN extra TYPE text")
    stage.perform(CHURN, "ingest", DAY, landing.land)


def test_a_numeric_longer_than_the_lake_s_lands_as_text_on_every_day() -> None:
    execute("ALTER TABLE orders ADD COLUMN weight numeric(50, 20) DEFAULT 12345678901234567890123456789.5")
    stage.perform(CHURN, "ingest", DAY, landing.land)
    assert differences()["weight"].startswith("added: "), "it is no change of type"
    values = lake.open_table("raw.orders").to_pyarrow_table(columns=["weight"])["weight"].unique().to_pylist()
    assert [Decimal(value) for value in values] == [Decimal("12345678901234567890123456789.5")]


@pytest.mark.parametrize("declared", ["text[]", "jsonb", "uuid", "mood", "numeric(10,2)", "bytea", "time"])
def test_an_added_column_that_raw_can_hold_lands(declared: str) -> None:
    execute("CREATE TYPE mood AS ENUM ('well', 'ill')", f"ALTER TABLE orders ADD COLUMN extra {declared}")
    assert differences()["extra"].startswith("added: new in the shop: orders.extra (")
    stage.perform(CHURN, "ingest", DAY, landing.land)


def test_a_column_that_the_contract_leaves_out_is_neither_read_nor_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    path = tmp_path / "contracts" / "shop.orders.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    document["customProperties"] = [{"property": "leftOut", "value": ["scan"]}]
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(tmp_path / "contracts"))
    settings.cache_clear()
    execute("ALTER TABLE orders ADD COLUMN scan text")
    assert differences() == {}
    with source.connected(source.engine()) as connection:
        seen = source_schema.seen(connection, CHURN)
    assert "scan" in seen["orders"] and "scan" not in source_schema.landing_columns("orders", seen)


@pytest.mark.parametrize("declared", ["numeric", "numeric(10, 2)"])
def test_a_numeric_that_is_not_a_number_is_named(declared: str) -> None:
    execute(f"ALTER TABLE orders ADD COLUMN weight {declared} DEFAULT 1.5")
    execute("UPDATE orders SET weight = 'NaN' WHERE order_id = 1")
    assert "orders.weight: 1 rows are NaN, infinite, or longer" in stopped()


def test_a_numeric_lands_as_it_is_or_its_row_is_named() -> None:
    """One without a precision has nine digits behind the point in raw; one with a precision has its own."""
    execute("ALTER TABLE orders ADD COLUMN weight numeric, ADD COLUMN share numeric(30, 15)")
    execute("UPDATE orders SET weight = 1.123456789012345 WHERE order_id = 1")
    assert "cast it in a view, such as order_id 1: Decimal('1.123456789012345')" in stopped()
    execute("UPDATE orders SET weight = 12345678901234567890.123456789, share = 1.123456789012345")
    stage.perform(CHURN, "ingest", DAY, landing.land)
    rows = lake.open_table("raw.orders").to_pyarrow_table(columns=["weight", "share"]).to_pylist()
    assert {tuple(row.values()) for row in rows} == {
        (Decimal("12345678901234567890.123456789"), Decimal("1.123456789012345"))
    }
