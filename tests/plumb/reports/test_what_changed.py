"""What changed, on small Delta tables, a real ledger and a real model registry; the page and the terminal."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from plumb.reports import what_changed_page
from plumb.reports.what_changed import WhatChangedError, page_path, side, what_changed
from plumbline.lake import tables as lake
from plumbline.lake import version_diff
from plumbline.registry import registered_models
from plumbline.state import ledger, releases
from plumbline.state.releases import Release, ReleaseError
from plumbline.verdict import Acceptance, Verdict
from products.churn import CHURN

FEATURES, ORDERS, RAW = "features.customers", "analytics.orders", "raw.orders"
FIRST, SECOND = date(1998, 6, 29), date(1998, 6, 30)
N = 400


def orders(first: int, number: int, day: date, batch: str, cents: int = 2_000) -> pa.Table:
    random = np.random.default_rng(first)
    ids = np.arange(first, first + number)
    noon = datetime(day.year, day.month, day.day, 12)
    return pa.table(
        {
            "order_id": ids,
            "customer_id": ids % N,
            "order_date": [day] * number,
            "units": random.integers(1, 5, number),
            "total_cents": cents + random.integers(0, 500, number),
            "known_at": pa.array([noon] * number, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
            "batch_id": [batch] * number,
        }
    )


def snapshot(day: date, shift: int = 0, **more: Any) -> pa.Table:
    spend = np.random.default_rng(1).integers(0, 1000, N) + shift
    columns = {
        "customer_id": np.arange(N),
        "snapshot_date": [day] * N,
        "spend_cents_30d": spend,
        "orders_30d": spend % 7,
    }
    return pa.table({**columns, "orders_30d": spend % 7, "release_id": [shift] * N, **more})


def write(table: str, rows: pa.Table, mode: str = "append") -> None:
    parted = ["snapshot_date"] if table == FEATURES else None
    more = {"schema_mode": "overwrite"} if mode == "overwrite" else {}
    write_deltalake(lake.uri(table), rows, mode=mode, partition_by=parted, **more)


def publish(number: int, day: date, **more: Any) -> Release:
    tables = {name: version for name in (FEATURES, ORDERS, RAW) if (version := lake.version(name)) is not None}
    gates = more.pop("gates", {"orders_volume": Verdict("orders_volume", passed=True)})
    code, lock = more.pop("code", "a" * 40), more.pop("lock", "sha256:one")
    made = Release(number, "churn", day, number - 1 or None, tables, gates, code, lock, "t", "now", **more)
    releases.publish(made)
    return made


def built(release: Release, sql: dict[str, str], definition: str) -> None:
    """What the ledger says of the run behind a release."""
    nodes = [{"node": f"model.core.{name}", "kind": "model", "sql": digest} for name, digest in sql.items()]
    head = {"run_id": f"churn-{release.as_of}", "as_of": release.as_of, "state": "COMPLETE"}
    ledger.record("churn", {**head, "stage": "dbt_run", "wrote": {ORDERS: release.tables[ORDERS]}, "dbt": nodes})
    told = {"wrote": {FEATURES: release.tables[FEATURES]}, "definition": definition}
    ledger.record("churn", {**head, "stage": "features", **told})


@pytest.fixture
def two(home: Path) -> tuple[Release, Release]:
    """Two releases: more orders, one order changed, a batch set aside, a feature that moved and a new one."""
    for table in (RAW, ORDERS):
        write(table, orders(0, 300, FIRST, "b1"))
    write(FEATURES, snapshot(FIRST))
    first = publish(1, FIRST)
    built(first, {"orders": "1", "stg_orders": "1"}, "SELECT a + 1 AS spend_cents_30d, b AS orders_30d FROM t")
    write(RAW, orders(300, 50, SECOND, "bad"))
    write(RAW, orders(300, 60, SECOND, "b2"))
    write(ORDERS, orders(300, 60, SECOND, "b2", cents=9_000))
    DeltaTable(lake.uri(ORDERS)).update(updates={"units": "99"}, predicate="order_id = 7")
    write(FEATURES, snapshot(FIRST, new_one=pa.array([1.5] * N)), mode="overwrite")
    write(FEATURES, snapshot(SECOND, shift=700, new_one=pa.array([2.5] * N)))
    sale = Acceptance("orders_volume", str(SECOND), "a sale", "ana", "now")
    gates = {"orders_volume": Verdict("orders_volume", passed=True, accepted=sale)}
    second = publish(2, SECOND, gates=gates, rejected=["bad"], code="b" * 40, lock="sha256:two")
    sql = "SELECT a + 2 AS spend_cents_30d, b AS orders_30d, c AS new_one FROM t"
    built(second, {"orders": "2", "stg_orders": "1", "stg_customers": "1"}, sql)
    return first, second


def test_everything_that_differs_is_named(two: tuple[Release, Release]) -> None:
    found = what_changed(CHURN, "1", "2")
    tables = {item["table"]: item for item in found["tables"]}
    assert tables[RAW]["rows"] == {"before": 300, "after": 360, "added": 60, "removed": 0, "changed": 0}
    assert tables[ORDERS]["rows"] == {"before": 300, "after": 360, "added": 60, "removed": 0, "changed": 1}
    assert tables[FEATURES]["rows"] == {"before": N, "after": 2 * N, "added": N, "removed": 0, "changed": 0}
    assert tables[FEATURES]["columns"] == {"added": {"new_one": "double"}, "removed": {}, "retyped": {}}
    assert found["dbt"] == {"orders": "changed", "stg_customers": "added"}
    assert found["features_sql"] == {
        "changed": True,
        "columns": {"spend_cents_30d": ["a + 1", "a + 2"], "new_one": [None, "c"]},
    }
    assert found["gates"] == {"orders_volume": ["passed", "accepted: a sale"]}
    assert found["batches"] == {"left out since": ["bad"], "taken in again": []}
    assert (found["lock"]["before"], found["lock"]["after"]) == ("sha256:one", "sha256:two")
    each = found["features"]["each"]
    assert (found["features"]["then"], found["features"]["now"]) == ("1998-06-29", "1998-06-30")
    assert each["spend_cents_30d"]["psi"] > 1 > 0.1 > each["orders_30d"]["psi"]
    assert "release_id" not in each
    about = found["orders"]["each"]["total_cents"]
    assert (found["orders"]["added"], about["psi"]) == (60, None), "a PSI of 60 orders would be chance"
    assert about["after"]["mean"] > 4 * about["before"]["mean"]


def test_a_run_whose_sql_was_not_recorded_is_not_taken_for_one_without_models(two: tuple[Release, Release]) -> None:
    write(ORDERS, orders(500, 10, SECOND, "b3"))
    third = publish(3, SECOND)
    nodes = [{"node": "model.core.orders", "kind": "model"}]
    wrote = {"run_id": "x", "stage": "dbt_run", "state": "COMPLETE", "wrote": {ORDERS: third.tables[ORDERS]}}
    ledger.record("churn", {**wrote, "dbt": nodes})
    assert what_changed(CHURN, "2", "3")["dbt"] == {
        "all models": "unknown: the ledger does not have the run that built them"
    }


def test_a_thing_and_itself_differ_in_nothing(two: tuple[Release, Release]) -> None:
    found = what_changed(CHURN, "2", "1998-06-30")
    assert all(item["before"] == item["after"] for item in found["tables"])
    assert (found["dbt"], found["features"], found["orders"], found["model"]) == ({}, {}, {}, {})
    assert found["features_sql"] == {"changed": False, "columns": {}}


def test_a_day_is_the_release_in_force_for_it_also_after_an_undo(two: tuple[Release, Release]) -> None:
    first, _ = two
    undone = Release(**{**first.__dict__, "release_id": 3, "base": 2, "undoes": [2], "restores": 1, "why": "wrong"})
    releases.publish(undone)
    assert side(CHURN, "1998-06-29").release == undone
    assert side(CHURN, "1998-06-30").release == undone, "the later day was undone, and not run again"
    found = what_changed(CHURN, "2", "3")
    assert found["after"]["why"] == "wrong"
    rows = {item["table"]: item["rows"] for item in found["tables"]}
    assert rows[ORDERS] == {"before": 360, "after": 300, "added": 0, "removed": 60, "changed": 1}


def test_two_models_are_compared_by_what_they_name(two: tuple[Release, Release], home: Path) -> None:
    (home / "mlflow").mkdir()
    client = registered_models.client()
    client.create_registered_model(CHURN.model)
    experiment = client.create_experiment("x")
    for release, loss in zip(two, (0.5, 0.4), strict=True):
        run = client.create_run(experiment)
        client.log_metric(run.info.run_id, "log_loss", loss)
        tags = {
            "data_version": f"delta:{FEATURES}@v={release.tables[FEATURES]}",
            "orders_version": f"delta:{ORDERS}@v={release.tables[ORDERS]}",
            "release_id": str(release.release_id),
            "run_id": run.info.run_id,
            "feature_service": f"churn_v{release.release_id}",
        }
        client.create_model_version(CHURN.model, (home / "model").as_uri(), tags=tags)
    found = what_changed(CHURN, "model:1", "v2")
    assert found["model"]["metrics"] == {"log_loss": [0.5, 0.4]}
    assert found["model"]["tags"]["feature_service"] == ["churn_v1", "churn_v2"]
    assert [item["table"] for item in found["tables"]] == [ORDERS, FEATURES]
    assert found["features"]["each"]["spend_cents_30d"]["psi"] > 1
    with pytest.raises(WhatChangedError, match="a model and a release cannot be compared"):
        what_changed(CHURN, "model:1", "2")
    with pytest.raises(WhatChangedError, match=r"churn_xgb has no version 9; it has \['1', '2'\]"):
        what_changed(CHURN, "model:1", "model:9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", r"'yesterday': expected a release's number \(2\), a model version \(model:1\) or a day"),
        ("1998-06-28", "no release covers a day up to then, the first is of 1998-06-29"),
        ("model:1", "churn_xgb has no version 1; it has none"),
    ],
)
def test_what_does_not_exist_is_said(two: tuple[Release, Release], text: str, message: str) -> None:
    with pytest.raises(WhatChangedError, match=message):
        what_changed(CHURN, "1", text)
    with pytest.raises(ReleaseError, match="churn has no release 7"):
        what_changed(CHURN, "7", "1")


def test_page_and_terminal_tell_it(two: tuple[Release, Release], capsys: pytest.CaptureFixture[str]) -> None:
    found, path = what_changed(CHURN, "1", "2"), page_path("1", "model:2/x")
    assert path.name == "what-changed-1-to-model-2-x.html"
    html = what_changed_page.write(path, found, 1.0).read_text()
    what_changed_page.show(found, path, 1.0)
    told = capsys.readouterr().out
    for text in (html, told):
        assert "dbt models: orders changed, stg_customers added" in text
        assert "customers.sql, spend_cents_30d: a + 1 → a + 2" in text
        assert "gate orders_volume: passed → accepted: a sale" in text
        assert "raw batches left out since: bad" in text
    assert html.count("<svg") == 2, "the bars, and a histogram of the feature that moved"
    assert "<script" not in html


def test_rows_are_compared_as_a_naive_join_would(home: Path) -> None:
    """Random changes to a partitioned table, against pandas over the whole of both versions."""
    random = np.random.default_rng(3)
    days = [FIRST - timedelta(days=number) for number in range(4)]
    frame = pd.DataFrame({"customer_id": np.tile(np.arange(30), 4), "snapshot_date": np.repeat(days, 30)})
    for _ in range(6):
        before = frame.assign(value=random.integers(0, 3, len(frame)).astype(float), release_id=1)
        write(FEATURES, pa.Table.from_pandas(before, preserve_index=False), "overwrite")
        then = lake.version(FEATURES) or 0
        kept = before[random.random(len(before)) < 0.8].copy()
        kept.loc[random.random(len(kept)) < 0.2, "value"] = np.nan
        more = kept.tail(5).assign(customer_id=lambda f: f["customer_id"] + 1000)
        after = pd.concat([kept, more]).assign(release_id=2)
        write(FEATURES, pa.Table.from_pandas(after, preserve_index=False), "overwrite")
        joined = before.merge(after, on=["customer_id", "snapshot_date"], how="outer", indicator=True)
        both = joined[joined["_merge"] == "both"]
        same = (both["value_x"] == both["value_y"]) | (both["value_x"].isna() & both["value_y"].isna())
        assert version_diff.compare(FEATURES, then, then + 1, ["customer_id", "snapshot_date"])["rows"] == {
            "before": len(before),
            "after": len(after),
            "added": int((joined["_merge"] == "right_only").sum()),
            "removed": int((joined["_merge"] == "left_only").sum()),
            "changed": int((~same).sum()),
        }


def test_a_manifest_diff_names_fields(two: tuple[Release, Release]) -> None:
    found = releases.diff(*two)
    assert found["tables.raw.orders"] == [0, 2]
    assert found["rejected"] == [[], ["bad"]]
    assert found["lock_hash"] == ["sha256:one", "sha256:two"]
    assert "gates.orders_volume" not in found, "the same verdict"
    assert releases.diff(two[0], two[0]) == {}
