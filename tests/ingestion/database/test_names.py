"""A table whose columns have the names that landing once gave its own working columns: each lands as any other does."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from ingestion.database import landing, source
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import ROOT, settings
from plumbline.state import ledger
from plumbline.state.acceptances import accept
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.ingestion.conftest import key_of

FIRST, SECOND = date(1997, 1, 5), date(1997, 1, 6)
KEY = ("place", "known", "count_all", "was_units")
OTHERS = ("stands", "was_recorded", "was_deleted", "place_max", "plumbline_digest", "units")


@pytest.fixture(params=["recorded_at", "none"])
def _shop(request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    path = tmp_path / "contracts" / "shop.returns.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    plain = {"logicalType": "string", "physicalType": "string", "required": True, "description": "."}
    key = [{"name": n, **plain, "primaryKey": True, "primaryKeyPosition": p + 1} for p, n in enumerate(KEY)]
    when = {"name": "recorded_at", **plain, "logicalType": "timestamp", "physicalType": "timestamp"}
    timeless = request.param == "none"
    document["schema"][0]["properties"] = [*key, *({"name": n, **plain} for n in OTHERS), *([] if timeless else [when])]
    document["customProperties"] = [{"property": "recordedAt", "value": request.param}]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    key_of(path.parent, "analytics.returns", *KEY)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(path.parent))
    settings.cache_clear()
    tables = source.schema(CHURN)
    with source.connected(source.engine()) as connection:
        tables.create_all(connection)
        at = datetime(1997, 1, 5, 12)
        stamp = {} if timeless else {"recorded_at": at}
        customer = {"customer_id": 1, "signed_up_at": at, "recorded_at": at}
        connection.execute(sa.insert(tables.tables["customers"]), [customer])
        rows = [{name: f"{name} {row}" for name in (*KEY, *OTHERS)} | stamp for row in ("a", "b", "c")]
        connection.execute(sa.insert(tables.tables["returns"]), rows)


def land(day: date, number: int) -> dict[str, Any]:
    accept(CHURN, "daily_rows", day, "this shop has no orders", "a test")
    stage.perform(CHURN, "ingest", day, landing.land)
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "test", "now"))
    return list(ledger.events("churn"))[-1]


@pytest.mark.usefixtures("_shop")
def test_new_changed_and_deleted_rows_of_such_a_table_land_once_with_all_their_values() -> None:
    assert land(FIRST, 1)["landed"]["returns"] == 3
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text("UPDATE returns SET units = 'other' WHERE place = 'place b'"))
        connection.execute(sa.text("DELETE FROM returns WHERE place = 'place c'"))
    assert land(SECOND, 2)["changes"]["returns"] == {"changed": 1, "deleted": 1}
    assert land(SECOND + timedelta(days=1), 3)["changes"]["returns"] == {"changed": 0, "deleted": 0}
    rows = lake.open_table("raw.returns").to_pyarrow_table().to_pylist()
    assert sorted((row["place"], row["units"], row["deleted_at"]) for row in rows if row["place"] != "place c") == [
        ("place a", "units a", None),
        ("place b", "other", None),
        ("place b", "units b", None),
    ]
    gone = [row["deleted_at"] for row in rows if row["place"] == "place c"]
    assert sorted(gone, key=str) == [datetime(1997, 1, 6, tzinfo=UTC), None]
    for row in rows:
        letter = row["place"][-1]
        names = (*KEY, *OTHERS[:-1])
        assert [row[name] for name in names] == [f"{name} {letter}" for name in names]
