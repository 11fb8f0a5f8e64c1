"""The gate over real orders of one week, whole and broken one way at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.settings import settings
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release
from products.churn import CHURN
from validation.churn import suites

pytestmark = pytest.mark.usefixtures("spark_lake")

Rows = list[dict]


def audited(mart: Rows, raw: Rows | None = None, base_day: date | None = None) -> StageRun:
    """A run whose mart and raw orders hold these rows, on top of a release as of `base_day`."""
    import pyarrow as pa
    from deltalake import write_deltalake

    stamp = pa.timestamp("us", tz="UTC")
    kinds = {"LongType": pa.int64(), "DateType": pa.date32(), "TimestampType": stamp, "StringType": pa.string()}
    schema = pa.schema({name: kinds[kind] for name, kind in suites.columns().items()})
    of_raw = schema.append(pa.field("deleted_at", stamp))
    back = pa.schema({name: kinds[kind] for name, kind in suites.columns(suites.RETURNS).items()})
    raw_back = pa.schema(
        [of_raw.field(name) for name in ("order_id", "known_at", "loaded_at", "batch_id", "deleted_at")]
    )
    written = [
        ("analytics.orders", mart, schema),
        ("raw.orders", raw or mart, of_raw),
        ("analytics.returns", [], back),
        ("raw.returns", [], raw_back),
    ]
    for table, rows, columns in written:
        write_deltalake(lake.uri(table), pa.Table.from_pylist(rows, schema=columns), mode="overwrite")
    pins = {table: lake.version(table) or 0 for table, _, _ in written}
    base = Release(1, "churn", base_day, None, pins, {}, "sha", "lock", "run", "then") if base_day else None
    stages = {"dbt_run": {"rows": {"analytics.orders": len(mart)}}}
    candidate = Candidate("churn-test", "churn", date(1997, 1, 7), base and 1, tables=pins, stages=stages)
    return StageRun(CHURN, "ge_check", date(1997, 1, 7), candidate, base)


def told(run: StageRun) -> str:
    with pytest.raises(GateFailed) as caught:
        suites.check(run)
    return str(caught.value)


def test_real_orders_pass_and_leave_evidence_and_a_report(first_week: Rows) -> None:
    run = audited(first_week)
    orders, returns = suites.check(run).split("; ")
    assert orders == "all 21 expectations of analytics.orders@v0 hold"
    assert returns.endswith("expectations of analytics.returns@v0 hold")
    verdict = run.gates["orders_expectations"]
    assert (verdict.verdict, verdict.expectations, verdict.failed) == ("passed", 21, ())
    evidence = json.loads(Path(str(verdict.report)).read_text())
    assert evidence["versions"] == {"analytics.orders": 0, "raw.orders": 0}
    mean = next(o for o in evidence["outcomes"] if o["name"] == "expect_column_mean_to_be_between")
    assert round(mean["observed"]) == 3469
    index = settings().home / "data_docs" / "index.html"
    assert "analytics.orders" in index.read_text()
    assert run.read == {f"{schema}.{table}": 0 for schema in ("analytics", "raw") for table in ("orders", "returns")}


def nobody(rows: Rows) -> None:
    rows[0]["order_id"] = rows[1]["order_id"] = None


def negative(rows: Rows) -> None:
    rows[2]["total_cents"] = -5


def too_large(rows: Rows) -> None:
    rows[3]["total_cents"] = 10_000_001


def twice(rows: Rows) -> None:
    rows[4]["order_id"] = rows[5]["order_id"]


@pytest.mark.parametrize(
    ("spoil", "expectation", "count", "at"),
    [
        (nobody, "expect_column_values_to_not_be_null(order_id)", 2, (0, 1)),
        (negative, "expect_column_values_to_be_between(total_cents) [min_value 0, max_value 10000000]", 1, (2,)),
        (too_large, "expect_column_values_to_be_between(total_cents) [min_value 0, max_value 10000000]", 1, (3,)),
        (twice, "expect_column_values_to_be_unique(order_id)", 2, (4, 5)),
    ],
)
def test_a_failure_names_expectation_rows_and_keys(
    first_week: Rows, spoil: Callable[[Rows], None], expectation: str, count: int, at: tuple[int, ...]
) -> None:
    rows = [dict(row) for row in first_week]
    spoil(rows)
    run = audited(rows, raw=first_week)
    message = told(run)
    line = next(line for line in message.splitlines() if expectation in line)
    assert f"{expectation}: {count} rows, such as order_id " in line
    for row in (rows[i] for i in at):
        assert f"order_id {row['order_id']}, customer_id {row['customer_id']}, " in line
    verdict = run.gates["orders_expectations"]
    assert verdict.verdict == "failed"
    assert expectation.partition(" ")[0] in verdict.failed
    assert json.loads(Path(str(verdict.report)).read_text())["findings"][0]["samples"]


def test_an_order_that_got_lost_is_named(first_week: Rows) -> None:
    message = told(audited(first_week[1:], raw=first_week))
    assert f"[value {len(first_week)}]: found {len(first_week) - 1}; landed but not here" in message
    assert f"such as order_id {first_week[0]['order_id']}, " in message


def test_new_orders_in_dollars_are_caught_although_the_whole_still_looks_right(first_week: Rows) -> None:
    last = date(1997, 1, 7)
    rows = [r | {"total_cents": r["total_cents"] // 100} if r["order_date"] == last else r for r in first_week]
    message = told(audited(rows, base_day=date(1997, 1, 6)))
    assert message.startswith("1 of 22 expectations")
    assert "expect_column_mean_to_be_between(new_total_cents) [min_value 1000, max_value 10000]: found 3" in message


def test_few_new_orders_are_not_judged_by_their_mean() -> None:
    names = [check.arguments.get("column") for check in suites.orders(date(1997, 1, 7), 100, suites.NEW_MIN_ORDERS - 1)]
    assert suites.NEW_CENTS not in names


def test_a_column_that_is_gone_is_said_so(first_week: Rows) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    run = audited(first_week)
    table = lake.open_table("analytics.orders").to_pyarrow_table().drop_columns(["units"])
    assert isinstance(table, pa.Table)
    write_deltalake(lake.uri("analytics.orders"), table, mode="overwrite", schema_mode="overwrite")
    run.candidate.tables["analytics.orders"] = 1
    message = told(run)
    assert "expect_table_columns_to_match_set" in message
    assert "to_be_between(units) [min_value 1, max_value 1000000]: could not be evaluated" in message
