"""Rules of the shop's whole tables: what landed is held to them, as the shop's table stands by the end of the day."""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from ingestion.churn import cdnow as shop
from ingestion.database import landing, quarantine, source
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from plumbline.state import ledger
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

DAY, NEXT = date(1997, 1, 3), date(1997, 1, 4)


@pytest.fixture
def contracts_folder(home_as: HomeAs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home_as("four days in the shop", lambda: shop.load(until=NEXT))
    folder = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", folder)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder))
    settings.cache_clear()
    return folder


def state(folder: Path, *rules: dict[str, Any]) -> None:
    path = folder / "shop.orders.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    document["schema"][0]["quality"] = list(rules)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def execute(statement: str, **values: Any) -> None:
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(statement).bindparams(**values))


def land(day: date = DAY) -> dict[str, Any]:
    stage.perform(CHURN, "ingest", day, landing.land)
    return list(ledger.events("churn"))[-1]


DEAR = {
    "name": "dear",
    "type": "sql",
    "query": "SELECT count(*) FROM ${object} WHERE total_cents > 1000000",
    "mustBe": 0,
    "description": "Nothing costs so much.",
}


def test_a_broken_rule_stops_landing_sets_the_batch_aside_and_the_mended_shop_lands(contracts_folder: Path) -> None:
    state(contracts_folder, DEAR, {"metric": "rowCount", "mustBeGreaterThan": 100})
    execute("UPDATE orders SET total_cents = 2000000 WHERE order_id IN (4, 10)")
    with pytest.raises(GateFailed) as error:
        land()
    assert (
        "orders: rule dear: SELECT count(*) FROM ${object} WHERE total_cents > 1000000 gave 2, expected 0 (Nothing "
        "costs so much.)" in str(error.value)
    )
    event = list(ledger.events("churn"))[-1]
    verdict = event["gates"]["quality_rules"]
    assert (event["state"], verdict["verdict"], verdict["expectations"]) == ("GATE_FAILED", "failed", 2)
    found = json.loads(Path(verdict["report"]).read_text())["rules"]["raw.orders"]
    assert [(rule["rule"], rule["found"] > 100, rule["holds"]) for rule in found] == [
        ("dear", False, False),
        ("rowCount", True, True),
    ]
    assert [(b.batch_id, b.kind) for b in quarantine.batches(CHURN)] == [("1997-01-01..1997-01-03", "gate")]
    execute("UPDATE orders SET total_cents = 2000 WHERE order_id IN (4, 10)")
    event = land()
    assert (event["batch_id"], event["gates"]["quality_rules"]["verdict"]) == ("1997-01-01..1997-01-03#2", "passed")


def test_a_rule_sees_the_newest_version_of_each_row_and_none_that_the_shop_deleted(contracts_folder: Path) -> None:
    land()
    shown = lake.rows("raw.orders")
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(1, "churn", DAY, None, tables, {}, "code", "lock", "test", "now"))
    landed = lake.open_table("raw.orders").to_pandas()["order_id"].tolist()
    execute(f"DELETE FROM orders WHERE order_id = {max(set(landed) - {4})}")
    again = datetime(1997, 1, 4, 12)
    execute("UPDATE orders SET total_cents = 2000000, recorded_at = :at WHERE order_id = 4", at=again)
    execute("DELETE FROM orders WHERE recorded_at > :at AND order_id <> 4", at=datetime(1997, 1, 4))
    execute("INSERT INTO orders VALUES (900001, 1, '1997-01-04', 1, 500, :at)", at=again)
    state(contracts_folder, {"metric": "rowCount", "mustBe": shown}, DEAR | {"mustBe": 1})
    event = land(NEXT)
    assert lake.rows("raw.orders") == shown + 3, "a version, a deletion and a new order"
    assert event["gates"]["quality_rules"]["failed"] == []
