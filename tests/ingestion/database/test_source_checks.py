"""A real SQLite shop that keeps no rules of its own, with one thing wrong at a time: said so, and nothing lands."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestion.churn import cdnow as shop
from ingestion.database import landing
from plumbline.errors import GateFailed, ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from products.churn import CHURN
from tests.conftest import HomeAs
from tests.ingestion.conftest import key_of

DAY = date(1997, 1, 3)
TABLES = {
    "orders": "order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT, "
    "recorded_at DATETIME",
    "customers": "customer_id BIGINT, signed_up_at DATETIME, recorded_at DATETIME",
}
GOOD = (900_001, 1, "1997-01-03", 1, 500, "1997-01-03 09:00:00")


@pytest.fixture
def lax(home: Path, home_as: HomeAs) -> sqlite3.Connection:
    """Three days of real orders in tables without keys or constraints."""
    home_as("three days in the shop", lambda: shop.load(until=DAY))
    database = sqlite3.connect(home / "shop.sqlite", isolation_level=None)
    for table, columns in TABLES.items():
        database.execute(f"ALTER TABLE {table} RENAME TO strict_{table}")
        database.execute(f"CREATE TABLE {table} ({columns})")
        database.execute(f"INSERT INTO {table} SELECT * FROM strict_{table}")
        database.execute(f"DROP TABLE strict_{table}")
    return database


def land() -> str:
    return stage.perform(CHURN, "ingest", DAY, landing.land).message


def refused() -> str:
    with pytest.raises(GateFailed) as error:
        land()
    assert lake.version("raw.orders") is None, "nothing is landed"
    return str(error.value)


def insert(database: sqlite3.Connection, **wrong: object) -> None:
    names = ("order_id", "customer_id", "order_date", "units", "total_cents", "recorded_at")
    row = dict(zip(names, GOOD, strict=True)) | wrong
    database.execute(f"INSERT INTO orders ({', '.join(names)}) VALUES (?, ?, ?, ?, ?, ?)", list(row.values()))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"order_id": None}, "orders.order_id: 1 rows are not integers, such as order_id None: null"),
        ({"customer_id": None}, "orders.customer_id: 1 rows are not integers, such as order_id 900001: null"),
        ({"order_id": "A-17"}, "orders.order_id: 1 rows are not integers, such as order_id A-17: 'A-17'"),
        ({"total_cents": "free"}, "orders.total_cents: 1 rows are not integers, such as order_id 900001: 'free'"),
        ({"total_cents": 5.5}, "orders.total_cents: 1 rows are not integers, such as order_id 900001: 5.5"),
        ({"total_cents": None}, "orders.total_cents: 1 rows are not integers, such as order_id 900001: null"),
        ({"order_date": "1997-02-30"}, "orders.order_date: 1 rows are not dates, as in 1997-01-31, such as order_id"),
        ({"order_date": "03/01/97"}, "such as order_id 900001: '03/01/97'"),
        ({"recorded_at": "yesterday"}, "orders.recorded_at: 1 rows are not times, as in 1997-01-31 12:00:00, such as"),
        ({"recorded_at": None}, "orders.recorded_at: 1 rows are not times, as in 1997-01-31 12:00:00, such as"),
        ({"order_id": 1}, "orders.order_id: 1 keys are not there once, such as order_id 1: 2 times"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_goes_through_when_mended(
    lax: sqlite3.Connection, wrong: dict[str, object], told: str
) -> None:
    insert(lax, **wrong)
    message = refused()
    assert told in message
    assert "Nothing was landed. Mend them in the shop and run the same again." in message
    lax.execute("DELETE FROM orders WHERE rowid = (SELECT max(rowid) FROM orders)")
    insert(lax)
    land()
    assert 900_001 in lake.open_table("raw.orders").to_pandas()["order_id"].to_list()


def test_of_many_rows_the_first_are_named_and_all_are_counted(lax: sqlite3.Connection) -> None:
    lax.execute("UPDATE orders SET units = NULL WHERE order_id <= 100")
    lax.execute("UPDATE customers SET signed_up_at = 'long ago' WHERE customer_id = 1")
    message = refused()
    wanted = "orders.units: {} rows are not integers, such as order_id "
    count = lax.execute("SELECT count(*) FROM orders WHERE units IS NULL").fetchone()[0]
    assert wanted.format(count) in message and count > 3
    assert "customers.signed_up_at: 1 rows are not times" in message


def test_a_row_behind_the_window_does_not_stop_it(lax: sqlite3.Connection) -> None:
    insert(lax, recorded_at="1997-01-04 09:00:00", total_cents=None)
    land()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE customers", r"lacks \['customers'\]; it has \['orders', 'returns'\]"),
        (
            "ALTER TABLE customers DROP COLUMN signed_up_at; ALTER TABLE customers ADD COLUMN signed_up_at TEXT",
            r"the shop's customers.signed_up_at is declared TEXT\(\): expected DateTime\(\)",
        ),
        ("ALTER TABLE orders DROP COLUMN units", r"the shop's table orders lacks \['units'\]; it has \['order_id', "),
    ],
)
def test_what_the_shop_lacks_is_named(lax: sqlite3.Connection, change: str, told: str) -> None:
    lax.executescript(change)
    with pytest.raises(GateFailed, match=told):
        land()


def test_a_shop_that_is_not_there_is_not_made(home: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="there is no shop database at .*shop.sqlite: name yours"):
        land()
    assert not (home / "shop.sqlite").exists()


@pytest.mark.parametrize(
    ("declared", "value", "told"),
    [("INTEGER", 2.5, "integers"), ("INTEGER", "gift", "integers"), ("DATE", "1997-02-30", "dates, as in 1997-01-31")],
)
def test_a_value_of_another_type_in_an_added_column_is_named(
    lax: sqlite3.Connection, declared: str, value: object, told: str
) -> None:
    """SQLite keeps anything in any column: 2.5 in one of whole numbers would land as 2."""
    lax.execute(f"ALTER TABLE orders ADD COLUMN extra {declared}")
    lax.execute("UPDATE orders SET extra = ? WHERE order_id = 1", [value])
    message = refused()
    assert f"orders.extra: 1 rows are not {told}, as the column is declared: mend them, or name it in" in message
    assert f"such as order_id 1: {value!r}" in message


def own_contract(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """Contracts of the test's own, that of the shop's orders changed."""
    shutil.copytree(ROOT / "contracts", folder / "contracts")
    path = folder / "contracts" / "shop.orders.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder / "contracts"))
    settings.cache_clear()


@pytest.mark.parametrize(
    ("column", "minimum", "value", "told"),
    [
        (
            "order_date",
            "1997-01-01",
            "1996-12-31",
            "orders.order_date: 1 rows are below 1997-01-01, such as order_id 9",
        ),
        (
            "recorded_at",
            "1997-01-01T00:00:00Z",
            "1996-12-31T20:00:00-03:00",
            "orders.recorded_at: 1 rows are below 1997-01-01 00:00:00+00:00, such as order_id 900001",
        ),
    ],
)
def test_a_first_day_in_a_shops_contract_holds(
    lax: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    minimum: str,
    value: str,
    told: str,
) -> None:
    """A date or a time as a limit is compared as one, in a shop's contract as in a mart's."""

    def limit(document: dict[str, Any]) -> None:
        (promised,) = (c for c in document["schema"][0]["properties"] if c["name"] == column)
        promised["logicalTypeOptions"] = {"minimum": minimum}

    own_contract(tmp_path, monkeypatch, limit)
    insert(lax, **{column: value})
    assert told in refused()


@pytest.mark.parametrize(
    ("zone", "order_date", "lands"),
    [
        ("UTC", "1997-01-04", False),
        ("Asia/Kathmandu", "1997-01-04", True),
        ("Asia/Kathmandu", "1997-01-05", False),
        ("Pacific/Kiritimati", "1997-01-04", True),
        ("America/New_York", "1997-01-03", True),
        ("America/New_York", "1997-01-04", False),
    ],
)
def test_an_order_is_dated_by_the_calendar_of_the_shops_zone(
    lax: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    order_date: str,
    lands: bool,
) -> None:
    """At 20:00 UTC it is tomorrow in Kathmandu, and the day before is not over in New York."""
    said = [{"property": "timeZone", "value": zone}]
    own_contract(tmp_path, monkeypatch, lambda document: document.update(customProperties=said))
    insert(lax, order_date=order_date, recorded_at="1997-01-03 20:00:00")
    if lands:
        land()
    else:
        assert "orders.order_date: 1 rows are dated behind 1997-01-0" in refused()


def test_a_key_of_several_columns_names_its_rows_whole(
    lax: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_contract(tmp_path, monkeypatch, lambda document: None)
    for dataset in ("shop.orders", "analytics.orders"):
        key_of(tmp_path / "contracts", dataset, "order_id", "customer_id")
    insert(lax, order_id=4, customer_id=77)
    insert(lax, order_id=5, customer_id=77)
    insert(lax, order_id=5, customer_id=77, units=0)
    message = refused()
    assert "orders.units: 1 rows are below 1, such as order_id 5, customer_id 77: 0" in message
    assert "orders.order_id+customer_id: 1 keys are not there once, such as order_id 5, customer_id 77: 2" in message
