"""The shop's schema against its contract, from a real SQLite and a real Postgres: broken, added to, and renamed."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from ingestion.churn import cdnow as shop
from ingestion.database import landing, quarantine, source, source_schema
from ingestion.database import quarantine_replay as replay
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import NOTICE
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import settings
from plumbline.state import ledger
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

FIRST, SECOND = date(1997, 1, 5), date(1997, 1, 6)


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def _five_days_landed(home_as: HomeAs, request: pytest.FixtureRequest) -> None:
    if request.param == "postgres":
        request.getfixturevalue("postgres_shop")
        five_days_landed()
    else:
        home_as("five days landed", five_days_landed)


def five_days_landed() -> None:
    shop.load(until=SECOND)
    land(FIRST)
    release(FIRST, 1)


def land(day: date) -> dict[str, Any]:
    """Lands a day and gives its entry in the ledger."""
    stage.perform(CHURN, "ingest", day, landing.land)
    return newest()


def newest() -> dict[str, Any]:
    return list(ledger.events("churn"))[-1]


def raw() -> pd.DataFrame:
    return lake.open_table("raw.orders").to_pandas()


def release(day: date, number: int) -> None:
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "test", "now"))


def change(*statements: str) -> None:
    with source.connected(source.engine()) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def stopped(day: date = SECOND) -> str:
    with pytest.raises(GateFailed) as error:
        land(day)
    return str(error.value)


def sent_on(day: date) -> int:
    return sum(order.order_date == day for order in shop.read(shop.packaged()))


def announce(folder: Path, announced: date, effective: date) -> None:
    path = folder / "shop.orders.odcs.yaml"
    rename = {"from": "total_cents", "to": "amount_cents"}
    dates = {"announced": announced.isoformat(), "effective": effective.isoformat()}
    document = yaml.safe_load(path.read_text())
    document["customProperties"] = [{"property": "announcedRenames", "value": [{**rename, **dates}]}]
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def at(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    """Sets the platform's clock to noon of a day."""
    monkeypatch.setenv("PLUMBLINE_NOW", f"{day}T12:00:00Z")
    settings.cache_clear()


BREAKS = {
    "dropped": ("ALTER TABLE orders DROP COLUMN units", "the shop's table orders lacks ['units']"),
    "renamed": (
        "ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents",
        "amount_cents is new and of its kind: a rename that nobody announced?",
    ),
    "table": ("DROP TABLE customers", "the shop database lacks ['customers']"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_break_keeps_the_batch_whole_and_the_release_stays(home: Path, kind: str) -> None:
    statement, told = BREAKS[kind]
    before = raw()
    change(statement)
    message = stopped()
    assert told in message and "contracts-and-quarantine.md" in message
    event = newest()
    assert (event["state"], event["gates"]["schema_contract"]["verdict"]) == ("GATE_FAILED", "failed")
    assert event["sent"]["orders"] == event["quarantined"]["orders"] == sent_on(SECOND)
    assert event["landed"]["orders"] == 0
    pd.testing.assert_frame_equal(raw(), before)
    batch = quarantine.read(CHURN, event["quarantine"])
    kept = batch.table("orders")
    with source.connected(source.engine()) as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("orders")}
    assert set(kept.column_names) == columns, "all columns, as they are in the shop"
    assert batch.kind == "schema" and json.loads(
        (home / "evidence" / event["run_id"] / "schema_contract.json").read_text()
    )
    stopped()
    assert [b.batch_id for b in quarantine.batches(CHURN)] == [batch.batch_id], "the same again keeps nothing twice"


def test_a_mended_shop_lands_all_that_was_kept_out() -> None:
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    stopped()
    batch = quarantine.batches(CHURN)[0]
    with pytest.raises(
        GateFailed, match=r"stays in quarantine, the contract is still broken:\n  the shop's table orders"
    ):
        replay.replay(CHURN, batch.batch_id)
    change("ALTER TABLE orders RENAME COLUMN amount_cents TO total_cents")
    told = replay.replay(CHURN, batch.batch_id)
    assert told["from_the_shop"]["orders"] == sent_on(SECOND) and told["next"] == f"plumb ingest --as-of {SECOND}"
    event = land(SECOND)
    assert event["batch_id"] == f"{SECOND}..{SECOND}#2"
    assert event["sent"]["orders"] == event["landed"]["orders"] == sent_on(SECOND)
    assert event["quarantined"] == {"orders": 0, "customers": 0, "returns": 0}
    assert {gate: verdict["verdict"] for gate, verdict in event["gates"].items()} == {
        "schema_contract": "passed",
        "rows_deleted": "passed",
        "record_contract": "passed",
        "daily_rows": "passed",
        "landing_complete": "passed",
    }
    assert replay.listed(CHURN)[0]["held"] == {"orders": 0, "customers": 0, "returns": 0}


def test_rows_that_the_shop_has_no_more_come_back_from_quarantine() -> None:
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    stopped()
    batch_id = quarantine.batches(CHURN)[0].batch_id
    gone = quarantine.batches(CHURN)[0].table("orders").to_pylist()[:3]
    change("ALTER TABLE orders RENAME COLUMN amount_cents TO total_cents")
    for row in gone:
        change(f"DELETE FROM orders WHERE order_id = {row['order_id']}")
    kept = land(SECOND)
    assert (kept["sent"]["orders"], kept["quarantined"]["orders"]) == (sent_on(SECOND), 3)
    assert "3 rows stay in quarantine" in kept["message"]
    with pytest.raises(GateFailed, match="lacks .*'total_cents'"):
        replay.replay(CHURN, batch_id)


def test_an_announced_rename_brings_rows_back_that_only_quarantine_has(
    own_contracts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    stopped()
    batch_id = quarantine.batches(CHURN)[0].batch_id
    gone = {
        row["order_id"]: row["amount_cents"] for row in quarantine.batches(CHURN)[0].table("orders").to_pylist()[:3]
    }
    change(f"DELETE FROM orders WHERE order_id IN ({', '.join(map(str, gone))})")
    announce(own_contracts, date(1998, 6, 30), date(1998, 7, 10))
    assert replay.replay(CHURN, batch_id)["from_quarantine"] == {"orders": 3, "customers": 0, "returns": 0}
    event = land(SECOND)
    assert event["landed"]["orders"] == event["sent"]["orders"] == sent_on(SECOND)
    assert event["let_in"]["rows"]["orders"] == 3
    landed = raw().set_index("order_id")
    for order, cents in gone.items():
        assert landed.loc[order, "total_cents"] == landed.loc[order, "amount_cents"] == cents
        assert landed.loc[order, "batch_id"] == f"{SECOND}..{SECOND}#2"
    assert raw()["order_id"].is_unique


def test_an_added_column_lands_and_is_told_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("ALTER TABLE orders ADD COLUMN coupon VARCHAR(20)", "UPDATE orders SET coupon = 'SPRING'")
    event = land(SECOND)
    assert event["gates"]["schema_contract"]["verdict"] == "passed"
    assert [(c["change"], c["column"]) for c in event["schema_changes"]] == [("added", "coupon")]
    assert "new in the shop: orders.coupon" in capsys.readouterr().err
    landed = raw().set_index("batch_id")["coupon"]
    assert set(landed.loc[f"{SECOND}..{SECOND}"]) == {"SPRING"}
    assert landed.drop(f"{SECOND}..{SECOND}").isna().all()
    assert (home / "schema_changes" / "churn" / "shop.orders.coupon.json").exists()
    assert [(d.change, d.breaking) for d in source_schema.of_shop(CHURN)] == [("added", False)]


def test_a_column_that_may_be_null_now_is_a_break(request: pytest.FixtureRequest) -> None:
    if source.engine().dialect.name == "sqlite":
        made = "order_id BIGINT PRIMARY KEY, customer_id BIGINT NOT NULL, order_date DATE NOT NULL, units BIGINT, "
        change(
            "ALTER TABLE orders RENAME TO before",
            f"CREATE TABLE orders ({made} total_cents BIGINT NOT NULL, recorded_at DATETIME NOT NULL)",
            "INSERT INTO orders SELECT * FROM before",
        )
    else:
        change("ALTER TABLE orders ALTER COLUMN units DROP NOT NULL")
    assert "the shop's orders.units may be null now, which it could not before" in stopped()


def test_in_a_notice_both_columns_are_written_and_after_it_the_old_one_is_dropped(
    own_contracts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effective = SECOND + NOTICE + timedelta(days=1)
    shop.load(until=effective + timedelta(days=1))
    announce(own_contracts, SECOND, effective)
    at(monkeypatch, SECOND + timedelta(days=1))
    began = land(SECOND)
    assert [(c["change"], c["old"]) for c in began["schema_changes"]] == [("renamed", "total_cents")]
    release(SECOND, 2)
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    third = SECOND + timedelta(days=1)
    at(monkeypatch, third + timedelta(days=1))
    land(third)
    release(third, 3)
    new = raw().query("order_date > @FIRST")
    assert (new["total_cents"] == new["amount_cents"]).all() and len(new) == sent_on(SECOND) + sent_on(third)
    before = raw().set_index("order_id")["total_cents"]

    at(monkeypatch, effective + timedelta(days=1))
    event = land(effective)
    assert "dropped raw.orders.total_cents" in event["message"]
    after = raw().set_index("order_id")
    assert "total_cents" not in after and after["amount_cents"].notna().all()
    assert (after["amount_cents"].loc[before.index] == before).all(), "no value is lost with the old name"
    release(effective, 4)
    at(monkeypatch, effective + timedelta(days=2))
    event = land(effective + timedelta(days=1))
    assert "total_cents" not in raw() and event["schema_changes"] == []


@pytest.mark.parametrize(
    ("announced", "effective", "why"),
    [
        (date(1998, 6, 30), date(1998, 7, 4), "which is no 7 days' notice"),
        (date(1998, 7, 2), date(1998, 7, 20), "which is no 7 days' notice"),
    ],
)
def test_a_rename_that_was_not_announced_in_time_is_a_break(
    own_contracts: Path, announced: date, effective: date, why: str
) -> None:
    announce(own_contracts, announced, effective)
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    assert why in stopped()


def test_a_date_in_the_past_does_not_shorten_the_time_in_which_both_are_written(
    own_contracts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(own_contracts, date(1998, 5, 1), date(1998, 6, 1))
    change("ALTER TABLE orders RENAME COLUMN total_cents TO amount_cents")
    land(SECOND)
    release(SECOND, 2)
    assert {"total_cents", "amount_cents"} <= set(raw())
    at(monkeypatch, date(1998, 7, 1) + NOTICE)
    assert "dropped raw.orders.total_cents" in land(SECOND + timedelta(days=1))["message"]
    assert contracts.shop("orders").accepted("total_cents") == ("amount_cents",)


@pytest.mark.parametrize("name", ["known_at", "KnownAt", "batch_id", "Loaded_At", "deleted_at", "_dlt_id"])
def test_a_column_with_a_name_of_the_platforms_own_is_refused(name: str) -> None:
    change(f'ALTER TABLE orders ADD COLUMN "{name}" timestamp')
    message = stopped()
    assert f"the shop's orders.{name} would land as " in message and "a name of the platform's own columns" in message
    assert "rename it in a view, or name it in leftOut of contracts/shop.orders.odcs.yaml" in message


def test_two_columns_that_would_land_under_one_name_are_refused() -> None:
    change('ALTER TABLE orders ADD COLUMN "UnitsSold" bigint', "ALTER TABLE orders ADD COLUMN units_sold bigint")
    assert "the shop's orders.units_sold would land as units_sold, which another of its columns does" in stopped()


@pytest.mark.parametrize(
    ("first", "then", "landed"),
    [("bigint", "double precision", "double"), ("bigint", "text", "string"), ("text", "bigint", "long"),
     ("numeric(10,2)", "numeric(12,2)", "decimal(12,2)")],
)  # fmt: skip
def test_an_added_column_that_changes_its_type_is_a_schema_change_like_any_other(
    first: str, then: str, landed: str
) -> None:
    change(f"ALTER TABLE orders ADD COLUMN discount {first}", "UPDATE orders SET discount = '1'")
    land(SECOND)
    release(SECOND, 2)
    change("ALTER TABLE orders DROP COLUMN discount", f"ALTER TABLE orders ADD COLUMN discount {then}")
    message = stopped(SECOND + timedelta(days=1))
    assert "the shop's orders.discount is " in message and f"which lands as {landed}; raw.orders.discount" in message
    assert "deliver it under a new name, cast it back in a view" in message
