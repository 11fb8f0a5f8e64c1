"""A day without the rows that the contract promises is known before anything lands, unless the shop is closed on it."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from ingestion.churn import cdnow as shop
from ingestion.database import landing, source
from plumbline.contracts import contract as contracts
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from plumbline.state import acceptances, ledger
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

FIRST, SECOND = date(1997, 1, 5), date(1997, 1, 6)


@pytest.fixture(autouse=True)
def folder(home_as: HomeAs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home_as("a week in the shop", lambda: shop.load(until=date(1997, 1, 7)))
    copied = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", copied)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(copied))
    settings.cache_clear()
    return copied


def promise(folder: Path, **said: Any) -> None:
    path = folder / "shop.orders.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    document["customProperties"] = [{"property": name, "value": value} for name, value in said.items()]
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def execute(statement: str) -> None:
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(statement))


def land(day: date = FIRST) -> dict[str, Any]:
    stage.perform(CHURN, "ingest", day, landing.land)
    return list(ledger.events("churn"))[-1]


def test_an_empty_day_stops_before_it_lands_and_the_same_day_goes_on_when_its_rows_are_there() -> None:
    land()
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(1, "churn", FIRST, None, tables, {}, "code", "lock", "test", "now"))
    rows = lake.rows("raw.orders")
    execute("DELETE FROM orders WHERE order_date = '1997-01-06'")
    with pytest.raises(GateFailed) as error:
        land(SECOND)
    assert error.value.exit_code == 3 and lake.rows("raw.orders") == rows
    assert (
        "orders: too few rows are recorded on 1997-01-06 (0); contracts/shop.orders.odcs.yaml promises 1 at least on "
        "each open day (dailyRows)" in str(error.value)
    )
    assert "plumb gate accept daily_rows --as-of 1997-01-06 --why" in str(error.value)
    shop.load(until=date(1997, 1, 7))
    event = land(SECOND)
    assert (event["gates"]["daily_rows"]["verdict"], event["gates"]["daily_rows"]["expectations"]) == ("passed", 1)
    (settings().home / "runs" / "churn" / f"{SECOND}.json").unlink()  # as after a kill behind the landing
    assert land(SECOND)["gates"]["daily_rows"]["verdict"] == "passed", "its rows are in raw by now"


def test_an_empty_day_of_all_history_is_named_and_can_be_accepted() -> None:
    execute("DELETE FROM orders WHERE order_date IN ('1997-01-02', '1997-01-04')")
    with pytest.raises(GateFailed, match=r"recorded on 1997-01-02 \(0\), 1997-01-04 \(0\); "):
        land()
    acceptances.accept(CHURN, "daily_rows", FIRST, "a strike", by="ana")
    verdict = land()["gates"]["daily_rows"]
    assert (verdict["verdict"], verdict["accepted"]["why"], verdict["expectations"]) == ("passed", "a strike", 5)


def test_a_closed_day_may_be_empty_and_a_promise_of_more_rows_is_kept(folder: Path) -> None:
    execute("DELETE FROM orders WHERE order_date = '1997-01-02'")
    promise(folder, dailyRows=1, closedDays=["01-02"])
    assert land()["gates"]["daily_rows"]["expectations"] == 4
    promise(folder, dailyRows=100_000)
    with pytest.raises(GateFailed, match=r"promises 100,000 at least on each open day"):
        land(FIRST + timedelta(days=1))


def test_a_shop_that_promises_nothing_has_no_such_gate(folder: Path) -> None:
    promise(folder, timeZone="UTC")
    execute("DELETE FROM orders WHERE order_date = '1997-01-02'")
    assert "daily_rows" not in land()["gates"]


@pytest.mark.parametrize(
    ("zone", "closed"),
    [("UTC", [25]), ("America/New_York", [25]), ("Asia/Tokyo", [25]), ("Pacific/Auckland", [24])],
)
def test_a_closed_day_of_the_shops_calendar_is_the_day_by_utc_that_has_its_noon(
    folder: Path, zone: str, closed: list[int]
) -> None:
    """In Auckland (13 hours ahead) it is noon by UTC on the 24th when the 25th has begun."""
    promise(folder, timeZone=zone, closedDays=["12-25"])
    contract = contracts.shop("orders")
    assert [day for day in range(22, 29) if contract.closed_on(date(1997, 12, day))] == closed
