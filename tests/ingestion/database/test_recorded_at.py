"""A shop's table whose times of recording are in another column, are dates, or are not there at all."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from ingestion.database import landing, quarantine_replay, source
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import ContractError
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from plumbline.state import ledger
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.ingestion.conftest import key_of

FIRST, SECOND, THIRD = date(1997, 1, 5), date(1997, 1, 6), date(1997, 1, 7)


def last_moment(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def own_shop(request: pytest.FixtureRequest, home: Path) -> None:
    if request.param == "postgres":
        request.getfixturevalue("postgres_shop")
    for table in CHURN.sources:
        if table not in ("orders", "customers"):
            execute(source_table(table))
    execute("CREATE TABLE customers (customer_id BIGINT, signed_up_at TIMESTAMP, recorded_at TIMESTAMP)")
    execute("INSERT INTO customers VALUES (1, '1997-01-01 09:00:00', '1997-01-01 09:00:00')")


def source_table(table: str) -> str:
    from sqlalchemy.schema import CreateTable

    return str(CreateTable(source.schema(CHURN).tables[table]).compile(dialect=source.engine().dialect))


def promise(folder: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, **orders: Any) -> None:
    """Contracts whose orders have no recorded_at; `recorded` is what recordedAt says, `orders` more of its columns."""
    shutil.copytree(ROOT / "contracts", folder)
    file = folder / "shop.orders.odcs.yaml"
    content = yaml.safe_load(file.read_text())
    table = content["schema"][0]
    table["properties"] = [column for column in table["properties"] if column["name"] != "recorded_at"]
    for name, (physical, logical) in orders.items():
        table["properties"] += [
            {"name": name, "physicalType": physical, "logicalType": logical, "required": True, "description": "."}
        ]
    content["customProperties"] = [{"property": "recordedAt", "value": recorded}]
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder))
    settings.cache_clear()


def land(day: date, number: int | None = None) -> str:
    message = stage.perform(CHURN, "ingest", day, landing.land).message
    if number is not None:
        tables = {name: lake.version(name) or 0 for name in CHURN.raw}
        publish(Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "test", "now"))
    return message


def execute(statement: str, **values: Any) -> None:
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(statement).bindparams(**values))


def versions(order: int) -> list[tuple[int, datetime, datetime, datetime | None]]:
    rows = [row for row in lake.open_table("raw.orders").to_pyarrow_table().to_pylist() if row["order_id"] == order]
    rows.sort(key=lambda row: row["known_at"])
    return [(row["total_cents"], row["recorded_at"], row["known_at"], row["deleted_at"]) for row in rows]


@pytest.fixture
def _timeless(own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five orders, landed up to the 5th, of a table that does not say when a row was recorded."""
    promise(tmp_path / "contracts", monkeypatch, "none")
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT)"
    )
    for order in range(1, 6):
        execute(f"INSERT INTO orders VALUES ({order}, 1, '1997-01-0{order}', 1, {order}00)")
    land(FIRST, 1)


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_every_row_of_a_landing_counts_from_the_end_of_its_day() -> None:
    known = last_moment(FIRST)
    assert versions(1) == [(100, known, known, None)]
    assert lake.rows("raw.orders") == 5
    assert "landed 0 orders" in land(SECOND)


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_new_changed_and_deleted_rows_are_seen_by_their_values() -> None:
    execute("UPDATE orders SET total_cents = 150 WHERE order_id = 1")
    execute("INSERT INTO orders VALUES (6, 1, '1997-01-02', 1, 600)")
    execute("DELETE FROM orders WHERE order_id = 2")
    message = land(SECOND, 2)
    known, first = last_moment(SECOND), last_moment(FIRST)
    assert versions(1) == [(100, first, first, None), (150, known, known, None)]
    assert versions(6) == [(600, known, known, None)], "however long ago its date is"
    assert versions(2)[1:] == [(200, first, datetime(1997, 1, 6, tzinfo=UTC), datetime(1997, 1, 6, tzinfo=UTC))]
    assert "1 of the orders recorded again, such as order_id 1" in message
    assert list(ledger.events("churn"))[-1]["changes"]["orders"] == {"changed": 1, "deleted": 1}
    assert "landed 0 orders" in land(THIRD), "each once"


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_a_table_cut_off_is_not_believed() -> None:
    execute("INSERT INTO orders SELECT order_id + 100, 1, order_date, 1, 5 FROM orders")
    for times in (1000, 10_000, 100_000):
        execute(f"INSERT INTO orders SELECT order_id + {times}, 1, order_date, 1, 5 FROM orders")
    land(SECOND, 2)
    execute("DELETE FROM orders WHERE order_id > 5")
    with pytest.raises(GateFailed, match="orders: 75 of 80 keys that landed are not in the shop any more"):
        land(THIRD)


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_a_changed_row_is_held_to_the_contract_and_comes_back_from_quarantine() -> None:
    execute("UPDATE orders SET total_cents = -1 WHERE order_id = 1")
    execute("INSERT INTO orders VALUES (6, 1, '1997-01-06', 1, 600)")
    with pytest.raises(GateFailed, match=r"orders.total_cents: 1 rows are below 0, such as order_id 1: -1"):
        land(SECOND)
    execute("UPDATE orders SET total_cents = 100 WHERE order_id = 1")
    execute("DELETE FROM orders WHERE order_id = 6")
    told = quarantine_replay.replay(CHURN, "1997-01-06..1997-01-06")
    assert told["from_quarantine"]["orders"] == 1
    land(SECOND, 2)
    assert [row[0] for row in versions(6)] == [600], "the shop does not show it any more"
    assert [row[0] for row in versions(1)] == [100]


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_more_changes_than_are_asked_for_by_key_land_too() -> None:
    for order in range(1000, 1600):
        execute(f"INSERT INTO orders VALUES ({order}, 1, '1997-01-06', 1, 1)")
    assert "landed 600 orders" in land(SECOND)


@pytest.mark.usefixtures("_timeless")
def test_without_a_time_a_row_without_a_key_is_named_and_stops_the_landing() -> None:
    execute("INSERT INTO orders VALUES (NULL, 1, '1997-01-06', 1, 600)")
    execute("INSERT INTO orders VALUES (6, 1, '1997-01-06', 1, 600)")
    with pytest.raises(GateFailed, match="orders.order_id: 1 rows are not integers, such as order_id None: null"):
        land(SECOND)
    execute("DELETE FROM orders WHERE order_id IS NULL")
    assert "landed 1 orders" in land(SECOND)


@pytest.mark.parametrize(
    ("zone", "recorded"),
    [("UTC", last_moment(SECOND)), ("Asia/Kathmandu", datetime(1997, 1, 6, 18, 14, 59, 999_999, tzinfo=UTC))],
)
def test_a_date_counts_as_the_end_of_that_day_of_the_shop(
    own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, recorded: datetime
) -> None:
    folder = tmp_path / "contracts"
    promise(folder, monkeypatch, "entered_on", entered_on=("date", "date"))
    file = folder / "shop.orders.odcs.yaml"
    content = yaml.safe_load(file.read_text())
    content["customProperties"] += [{"property": "timeZone", "value": zone}]
    file.write_text(yaml.safe_dump(content))
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT, "
        "entered_on DATE)"
    )
    execute("INSERT INTO orders VALUES (1, 1, '1997-01-05', 1, 100, '1997-01-05')")
    execute("INSERT INTO orders VALUES (2, 1, '1997-01-05', 1, 200, '1997-01-06')")
    assert "landed 1 orders" in land(FIRST, 1)
    assert "landed 1 orders" in land(SECOND, 2)
    assert versions(2) == [(200, recorded, recorded, None)]
    execute("INSERT INTO orders VALUES (3, 1, '1997-01-02', 1, 300, '1997-01-02')")
    execute("UPDATE orders SET total_cents = 250, entered_on = '1997-01-07' WHERE order_id = 2")
    execute("DELETE FROM orders WHERE order_id = 1")
    land(THIRD, 3)
    assert versions(3)[0][2] == datetime(1997, 1, 7, tzinfo=UTC), "late: nobody knew it before"
    assert [row[0] for row in versions(2)] == [200, 250]
    assert versions(1)[-1][3] == datetime(1997, 1, 7, tzinfo=UTC)


def test_another_column_says_when(own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promise(tmp_path / "contracts", monkeypatch, "updated_at", updated_at=("timestamp", "timestamp"))
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT, "
        "updated_at TIMESTAMP)"
    )
    execute("INSERT INTO orders VALUES (1, 1, '1997-01-05', 1, 100, '1997-01-05 10:00:00')")
    land(FIRST, 1)
    moment = datetime(1997, 1, 6, 8, tzinfo=UTC)
    execute("UPDATE orders SET total_cents = 150, updated_at = '1997-01-06 08:00:00'")
    land(SECOND, 2)
    assert versions(1)[1:] == [(150, moment, moment, None)]
    assert lake.open_table("raw.orders").to_pyarrow_table().to_pylist()[0]["updated_at"] is not None
    execute("INSERT INTO orders VALUES (NULL, 1, '1996-01-05', 1, 100, '1996-01-05 10:00:00')")
    with pytest.raises(GateFailed, match="orders.order_id: 1 rows are not integers, such as order_id None: null"):
        land(THIRD)


@pytest.mark.parametrize(
    ("recorded", "more", "told"),
    [
        ("entered_on", {}, "expected one of order_id, customer_id, order_date, units, total_cents, or none; found"),
        ("units", {}, "units: expected a timestamp or a date that is required, found a required integer"),
        ("none", {"recorded_at": ("timestamp", "timestamp")}, "the contract promises a column recorded_at too"),
        ("recorded_at", {"recorded_at": ("date", "date")}, "offer a date under another name"),
    ],
)
def test_a_contract_that_names_no_such_column_is_refused(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str,
    more: dict[str, Any],
    told: str,
) -> None:
    promise(tmp_path / "contracts", monkeypatch, recorded, **more)
    with pytest.raises(ContractError, match=told):
        contracts.shop("orders")


def test_a_contract_without_recorded_at_must_say_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promise(tmp_path / "contracts", monkeypatch, "none")
    file = tmp_path / "contracts" / "shop.orders.odcs.yaml"
    content = yaml.safe_load(file.read_text())
    del content["customProperties"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ContractError, match="no column is recorded_at: name the column that says when"):
        contracts.shop("orders")


def test_a_composite_key_of_text_without_a_time_keeps_its_zeros_apart(
    own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`01` and `1` are two keys; numeric, boolean and empty values come back from the shop as raw holds them."""
    folder = tmp_path / "contracts"
    promise(
        folder, monkeypatch, "none", shop=("string", "string"), gift=("boolean", "boolean"), price=("double", "number")
    )
    with_key(folder, "order_id", "shop")
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT, "
        "shop VARCHAR(8), gift BOOLEAN, price NUMERIC(10, 2))"
    )
    for name in ("01", "1", ""):
        execute(f"INSERT INTO orders VALUES (1, 1, '1997-01-05', 1, 100, '{name}', true, 3.10)")
    assert "landed 3 orders" in land(FIRST, 1)
    assert "landed 0 orders" in land(SECOND, 2)
    execute("UPDATE orders SET price = 3.11 WHERE shop = '01'")
    execute("DELETE FROM orders WHERE shop = '1'")
    message = land(THIRD)
    assert "1 of the orders recorded again, such as order_id, shop (1, '01')" in message
    assert "1 of the orders deleted by the shop, such as order_id, shop (1, '1')" in message


def test_a_date_is_part_of_a_key(own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "contracts"
    promise(folder, monkeypatch, "none")
    with_key(folder, "customer_id", "order_date")
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT)"
    )
    for day in (1, 2, 3):
        execute(f"INSERT INTO orders VALUES ({day}, 1, '1997-01-0{day}', 1, {day}00)")
    assert "landed 3 orders" in land(FIRST, 1)
    execute("UPDATE orders SET total_cents = 150 WHERE order_date = '1997-01-01'")
    execute("DELETE FROM orders WHERE order_date = '1997-01-02'")
    message = land(SECOND, 2)
    assert "1 of the orders recorded again, such as customer_id, order_date (1, 1997-01-01)" in message
    assert "1 of the orders deleted by the shop, such as customer_id, order_date (1, 1997-01-02)" in message
    assert [row[0] for row in versions(1)] == [100, 150]


def test_a_key_of_times_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "contracts"
    promise(folder, monkeypatch, "none", entered_at=("timestamp", "timestamp"))
    with_key(folder, "customer_id", "entered_at")
    with pytest.raises(ContractError, match="integer or string or date; entered_at is a timestamp: cast it in a view"):
        contracts.shop("orders")


def test_a_key_that_the_marts_do_not_count_by_is_refused(
    own_shop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders numbered branch by branch would land whole, and half of them would be lost in analytics.orders."""
    folder = tmp_path / "contracts"
    promise(folder, monkeypatch, "none", branch=("bigint", "integer"))
    key_of(folder, "shop.orders", "order_id", "branch")
    execute(
        "CREATE TABLE orders (order_id BIGINT, customer_id BIGINT, order_date DATE, units BIGINT, total_cents BIGINT, "
        "branch BIGINT)"
    )
    for branch in (1, 2):
        execute(f"INSERT INTO orders VALUES (1, 1, '1997-01-05', 1, 100, {branch})")
    with pytest.raises(GateFailed, match="apart by order_id, branch, but analytics.orders counts them by order_id: "):
        land(FIRST)
    assert lake.version("raw.orders") is None


def with_key(folder: Path, *names: str) -> None:
    """Makes these columns the key of the orders, and that by which the mart made of them counts."""
    for dataset in ("shop.orders", "analytics.orders"):
        key_of(folder, dataset, *names)
