"""The gate on a written table, over real Delta tables: one that keeps its contract, and each way to break it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from plumbline.contracts import contract as contracts
from plumbline.contracts import diff as contract_diff
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import contract_gate
from plumbline.pipeline.stage import StageRun
from plumbline.settings import ROOT, settings
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release, publish
from products.churn import CHURN

TABLE = "analytics.customers"
DAY = date(1997, 1, 2)
ARROW = {"bigint": pa.int64(), "date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC")}


def customers() -> pa.Table:
    row = {"signed_up_on": DAY, "cohort_month": DAY, "known_at": datetime(1997, 1, 2, tzinfo=UTC)}
    rows = [{**row, "customer_id": number} for number in (1, 2)]
    return pa.Table.from_pylist(
        rows, pa.schema([(c.name, ARROW[c.type]) for c in contracts.load(TABLE).columns.values()])
    )


def audited(table: pa.Table) -> StageRun:
    write_deltalake(lake.uri(TABLE), table)
    run = StageRun(CHURN, "dbt_run", DAY, Candidate("churn-test", "churn", DAY, None), None)
    contract_gate.audit(run, TABLE, 0)
    return run


def test_a_table_that_keeps_its_contract_passes(home: Path) -> None:
    verdict = audited(customers()).gates["contract:analytics.customers"]
    assert (verdict.verdict, verdict.expectations, verdict.failed) == ("passed", 4, ())
    assert json.loads(Path(str(verdict.report)).read_text())["versions"] == {TABLE: 0}


def test_one_column_more_is_told_and_passes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = audited(customers().append_column("segment", pa.array(["a", "b"])))
    assert run.gates["contract:analytics.customers"].verdict == "passed"
    assert "analytics.customers@v0.segment (string) is not in contracts/analytics.customers" in capsys.readouterr().err


def lacking(table: pa.Table) -> pa.Table:
    return table.drop_columns(["cohort_month"])


def retyped(table: pa.Table) -> pa.Table:
    return table.set_column(0, "customer_id", table["customer_id"].cast(pa.int32()))


def nulls(table: pa.Table) -> pa.Table:
    return table.set_column(0, "customer_id", pa.array([1, None], pa.int64()))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lacking, r"analytics.customers@v0 lacks cohort_month \(date\); it has customer_id, "),
        (retyped, "analytics.customers@v0.customer_id is int, expected bigint"),
        (nulls, "analytics.customers@v0.customer_id is null in 1 rows"),
    ],
)
def test_a_break_stops_the_line_and_leaves_evidence(
    home: Path, spoil: Callable[[pa.Table], pa.Table], told: str
) -> None:
    with pytest.raises(GateFailed, match=told) as error:
        audited(spoil(customers()))
    assert (error.value.exit_code, error.value.sets_aside) == (3, False)
    evidence = json.loads((home / "evidence" / "churn-test" / f"contract-{TABLE}.json").read_text())
    assert evidence["verdict"] == "failed" and len(evidence["failed"]) == 1


def test_a_rule_of_the_whole_table_is_run_over_exactly_that_version(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    path = tmp_path / "contracts" / f"{TABLE}.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    key = {"metric": "duplicateValues", "arguments": {"properties": ["customer_id"]}, "mustBe": 0}
    few = {"name": "few", "type": "sql", "query": "SELECT count(*) FROM ${object}", "mustBeLessThan": 3}
    document["schema"][0]["quality"] = [key, few]
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(path.parent))
    settings.cache_clear()
    verdict = audited(customers()).gates[f"contract:{TABLE}"]
    assert (verdict.verdict, verdict.expectations) == ("passed", 4 + 2)
    write_deltalake(lake.uri(TABLE), customers(), mode="append")
    run = StageRun(CHURN, "dbt_run", DAY, Candidate("churn-test", "churn", DAY, None), None)
    contract_gate.audit(run, TABLE, 0)
    with pytest.raises(GateFailed) as error:
        contract_gate.audit(run, TABLE, 1)
    assert (
        f"{TABLE}@v1: rule duplicateValues: duplicateValues of customer_id gave 2, expected 0\n  "
        f"{TABLE}@v1: rule few: SELECT count(*) FROM ${{object}} gave 4, expected less than 3" in str(error.value)
    )
    assert error.value.sets_aside and "start over with `plumb ingest --as-of 1997-01-02`" in str(error.value)
    rules = json.loads((home / "evidence" / "churn-test" / f"contract-{TABLE}.json").read_text())["rules"]
    assert [(rule["found"], rule["holds"]) for rule in rules] == [(2, False), (4, False)]


def test_nulls_are_counted_where_the_log_s_statistics_do_not_say(home: Path) -> None:
    uncounted = {"delta.dataSkippingNumIndexedCols": "0"}  # as for any column behind the 32nd
    write_deltalake(lake.uri(TABLE), nulls(customers()).slice(0, 0), configuration=uncounted)
    write_deltalake(lake.uri(TABLE), nulls(customers()), mode="append")
    run = StageRun(CHURN, "dbt_run", DAY, Candidate("churn-test", "churn", DAY, None), None)
    with pytest.raises(GateFailed, match=r"analytics.customers@v1.customer_id is null in 1 rows"):
        contract_gate.audit(run, TABLE, 1)
    assert lake.nulls(TABLE, 1, ["cohort_month", "customer_id", "nowhere"]) == {
        "cohort_month": 0,
        "customer_id": 1,
        "nowhere": 0,
    }


def test_the_lake_in_force_is_compared_and_landing_s_own_columns_are_no_difference(home: Path) -> None:
    write_deltalake(lake.uri(TABLE), lacking(customers()))
    stamp, raw = ARROW["timestamp"], contracts.shop("customers").columns.values()
    landed = pa.schema([*((c.name, ARROW[c.type]) for c in raw), ("known_at", stamp), ("_dlt_load_id", pa.string())])
    write_deltalake(lake.uri("raw.customers"), landed.empty_table())
    tables = {TABLE: 0, "raw.customers": 0}
    publish(Release(1, "churn", DAY, None, tables, {}, "code", "lock", "test", "now"))
    found = contract_diff.of_lake(CHURN)
    assert [(d.dataset, d.column, d.change) for d in found] == [(TABLE, "cohort_month", "dropped")]
    assert contract_diff.summary(found) == {"breaking": 1, "additive": 0}
