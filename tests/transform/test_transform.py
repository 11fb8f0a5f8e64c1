"""dbt_run through the real thing: dbt, Spark Connect and Delta on a few rows."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.lake.spark import session
from plumbline.servers import services
from plumbline.settings import settings
from products.churn import CHURN
from transform import build as transform

pytestmark = pytest.mark.usefixtures("spark")

ORDERS = ["order_id", "customer_id", "order_date", "units", "total_cents", "recorded_at", "known_at"]


def land(
    batch: str,
    orders: list[tuple],
    customers: list[int] = (),
    loaded_at: datetime | None = None,
    deleted_at: datetime | None = None,
    returns: list[tuple] = (),
    counted: int = 32,
) -> None:
    """Appends one batch. An order is (id, customer, day of January 1997, cents[, day on which it was known]), a return
    (order, day, cents). Of a new table, Delta's log has statistics of the first `counted` columns."""
    import pyarrow as pa
    from deltalake import write_deltalake

    stamp = pa.timestamp("us", tz="UTC")
    stamps = {"batch_id": batch, "loaded_at": loaded_at or noon(10), "deleted_at": deleted_at}

    def append(table: str, rows: list[dict], fields: dict) -> None:
        schema = pa.schema({**fields, "batch_id": pa.string(), "loaded_at": stamp, "deleted_at": stamp})
        table_of_rows = pa.Table.from_pylist([r | stamps for r in rows], schema=schema)
        statistics = {"delta.dataSkippingNumIndexedCols": str(counted)}
        write_deltalake(lake.uri(table), table_of_rows, mode="append", configuration=statistics)

    append(
        "raw.orders",
        [
            {
                "order_id": order,
                "customer_id": customer,
                "order_date": date(1997, 1, day),
                "units": 1,
                "total_cents": cents,
                "recorded_at": noon(day),
                "known_at": noon(*(known or [day])),
            }
            for order, customer, day, cents, *known in orders
        ],
        {
            "order_id": pa.int64(),
            "customer_id": pa.int64(),
            "order_date": pa.date32(),
            "units": pa.int64(),
            "total_cents": pa.int64(),
            "recorded_at": stamp,
            "known_at": stamp,
        },
    )
    append(
        "raw.customers",
        [{"customer_id": c, "signed_up_at": noon(1), "recorded_at": noon(1), "known_at": noon(1)} for c in customers],
        {"customer_id": pa.int64(), "signed_up_at": stamp, "recorded_at": stamp, "known_at": stamp},
    )
    append(
        "raw.returns",
        [
            {"order_id": o, "returned_at": noon(day), "cents": c, "recorded_at": noon(day), "known_at": noon(day)}
            for o, day, c in returns
        ],
        {
            "order_id": pa.int64(),
            "returned_at": stamp,
            "cents": pa.int64(),
            "recorded_at": stamp,
            "known_at": stamp,
        },
    )


def history() -> list[tuple]:
    """Every version of every order, in the order of ids and time: (order, customer, cents, known, until)."""
    rows = lake.open_table("analytics.orders_history").to_pyarrow_table().to_pylist()
    versions = [
        tuple(row[c] for c in ("order_id", "customer_id", "total_cents", "known_at", "known_until")) for row in rows
    ]
    return sorted(versions, key=lambda version: (version[0], version[3]))


def noon(day: int) -> datetime:
    return datetime(1997, 1, day, 12, tzinfo=UTC)


def orders(*columns: str) -> list[tuple]:
    """The mart at its head, in the order of ids."""
    table = lake.open_table("analytics.orders").to_pyarrow_table().sort_by("order_id")
    return [tuple(row[c] for c in columns) for row in table.to_pylist()]


def operations() -> list[str]:
    return [commit["operation"] for commit in reversed(lake.open_table("analytics.orders").history())]


def base_of(run) -> dict[str, int]:
    return {**run.candidate.tables, **run.wrote}


def test_a_first_run_builds_both_marts_and_reports_them(start) -> None:
    import pyarrow as pa

    land("1", [(1, 7, 1, 1177), (2, 8, 2, 0)], [7, 8])
    run = start()
    assert transform.build(run) == "9 models built, 30 tests passed"
    assert orders("order_id", "total_cents") == [(1, 1177), (2, 0)]
    none = dict.fromkeys(("analytics.returns", "analytics.returns_history"), 0)
    assert (run.wrote, run.rows) == (dict.fromkeys(CHURN.marts, 0), dict.fromkeys(CHURN.marts, 2) | none)
    assert run.read == dict.fromkeys(CHURN.raw, 0)
    assert {node["status"] for node in run.facts["dbt"]} == {"success", "pass"}
    schema = pa.schema(lake.open_table("analytics.orders").schema())
    assert schema.field("total_cents").type == pa.int64()


def test_late_order_second_landing_and_undone_head(start, spark) -> None:
    """One history: a late order and a second landing merge in; a rerun and a failed run's leftovers change nothing."""
    land("1", [(1, 7, 2, 1177), (2, 8, 3, 900)], [7, 8])
    first = start()
    land("0", [(9, 9, 9, 9)], [9])
    transform.build(first)
    assert orders("order_id") == [(1,), (2,)]  # its pin, not the head
    for table in CHURN.marts:
        spark.sql(f"DROP TABLE {table}")  # external: what a server that was started anew does not know

    # The clock went back since (a replay): a batch is new if the base release did not have it.
    land("2", [(3, 7, 1, 500, 4), (1, 7, 2, 1000)], loaded_at=noon(9))
    run = start(base_of(first))
    transform.build(run)
    assert orders("order_id", "total_cents", "order_date", "known_at") == [
        (1, 1000, date(1997, 1, 2), noon(2)),
        (2, 900, date(1997, 1, 3), noon(3)),
        (3, 500, date(1997, 1, 1), noon(4)),
        (9, 9, date(1997, 1, 9), noon(9)),
    ]
    assert run.rows["analytics.orders"] == 3
    assert operations() == ["CREATE OR REPLACE TABLE AS SELECT", "MERGE"]
    merged = lake.open_table("analytics.orders").history(1)[0]["operationParameters"]["predicate"]
    assert ">= 1" in merged
    assert "<= 9" in merged

    # The run was never released: the same again starts from the base and comes to the same rows.
    seen = orders(*ORDERS)
    again = start(base_of(first))
    transform.build(again)
    assert orders(*ORDERS) == seen
    assert operations()[2:] == ["RESTORE", "MERGE"]

    # With nothing new, nothing changes, and the old landing of order 1 does not come back.
    quiet = start(base_of(again))
    transform.build(quiet)
    assert orders(*ORDERS) == seen
    assert quiet.rows["analytics.orders"] == 0


def test_a_corrected_a_deleted_and_a_reused_order_end_what_they_were(start) -> None:
    """The mart shows what counts now, its history what counted when; merged on a base as built from all of raw."""
    wide = 7  # `deleted_at` is behind the columns that the log counts, as in a shop of 40 columns
    land("1", [(1, 7, 1, 100), (2, 7, 1, 200), (3, 8, 1, 300), (4, 8, 2, 400)], [7, 8], counted=wide)
    first = start()
    transform.build(first)
    land("2", [(1, 7, 1, 150, 3)], loaded_at=noon(11))
    land("2", [(2, 7, 1, 200, 3), (3, 8, 1, 300, 3)], loaded_at=noon(11), deleted_at=noon(3))
    second = start(base_of(first))
    transform.build(second)
    assert orders("order_id", "total_cents") == [(1, 150), (4, 400)]
    assert second.rows["analytics.orders"] == 3, "one written again, two taken out"
    land("3", [(3, 7, 5, 900)], loaded_at=noon(12))
    third = start(base_of(second))
    transform.build(third)
    assert orders("order_id", "customer_id", "total_cents") == [(1, 7, 150), (3, 7, 900), (4, 8, 400)]

    merged, merged_history = orders(*ORDERS), history()
    assert merged_history == [
        (1, 7, 100, noon(1), noon(3)),
        (1, 7, 150, noon(3), None),
        (2, 7, 200, noon(1), noon(3)),
        (3, 8, 300, noon(1), noon(3)),
        (3, 7, 900, noon(5), None),
        (4, 8, 400, noon(2), None),
    ]
    transform.build(start())  # from all of raw
    assert (orders(*ORDERS), history()) == (merged, merged_history)


def test_a_failing_test_is_a_gate_that_says_what_where_and_how_many(start) -> None:
    land("1", [(1, 7, 2, -5), (2, 9, 2, -1)], [7])
    run = start()
    with pytest.raises(GateFailed) as caught:
        transform.build(run)
    told = str(caught.value)
    assert "2 rows of orders.total_cents fail" in told
    assert "1 rows of orders.customer_id fail" in told
    path = told.partition("the query that finds them: ")[2].splitlines()[0]
    assert "analytics" in open(path).read()  # noqa: PTH123, SIM115
    assert {node["failures"] for node in run.facts["dbt"] if node["status"] == "fail"} == {1, 2}
    verdict = run.gates["dbt_tests"]
    assert (verdict.passed, len(verdict.failed)) == (False, 2) and verdict.expectations > 2
    assert Path(str(verdict.report)).exists()


def test_a_model_of_the_wall_clock_is_stopped_also_through_a_macro(
    start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = shutil.copytree(transform.PROJECT, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    (project / "macros" / "today.sql").write_text("{% macro today() %}current_{{ 'date' }}{% endmacro %}")
    model = project / "models" / "marts" / "customers.sql"
    model.write_text(
        model.read_text() + "and signed_up_at <= {{ today() }} and signed_up_at <= '{{ run_started_at }}'\n"
    )
    monkeypatch.setattr(transform, "PROJECT", project)
    land("1", [(1, 7, 2, 5)], [7])
    run = start()
    wall_clock = r"the wall clock \(current_date\), the wall clock \(run_started_at\)"
    with pytest.raises(GateFailed, match=rf"dbt/models/marts/customers.sql reads {wall_clock}"):
        transform.build(run)
    assert not run.gates[transform.REPEATABLE].passed


def test_a_return_is_of_a_known_order_and_of_no_more_than_was_paid(start) -> None:
    land("1", [(1, 7, 2, 500), (2, 8, 2, 900)], [7, 8], returns=[(1, 5, 500), (2, 5, 901), (3, 5, 10)])
    with pytest.raises(GateFailed) as caught:
        transform.build(start())
    told = str(caught.value)
    assert "returns_are_of_what_was_paid: 1 rows of returns fail, such as order_id 2, customer_id 8" in told
    assert "relationships_returns_order_id__order_id__ref_orders_: 1 rows of returns.order_id fail" in told


def test_a_model_that_cannot_be_built_is_a_transform_error(start) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    land("1", [(1, 7, 2, 5)], [7])
    write_deltalake(lake.uri("raw.customers"), pa.table({"customer": [1]}), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(transform.TransformError, match=r"stg_customers: .*customer_id") as caught:
        transform.build(start())
    assert "JVM" not in str(caught.value)


def test_unit_tests_and_docs_through_the_command(start, capfd: pytest.CaptureFixture[str]) -> None:
    land("1", [(1, 7, 2, 5)], [7])
    transform.build(start())
    transform.run_dbt(CHURN, ["test", "--select", "test_type:unit"])
    assert "PASS=6 WARN=0 ERROR=0" in capfd.readouterr().out

    transform.run_dbt(CHURN, ["docs", "generate"])
    page = settings().home / "dbt" / "target" / "static_index.html"
    assert str(page) in capfd.readouterr().out
    assert "What the order cost, in integer US cents" in page.read_text()
    left = [name for name in ("target", "logs", "dbt_packages") if (transform.PROJECT / name).exists()]
    assert left == []


def test_without_the_hub_the_message_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_DBT_UTILS", "hub")
    monkeypatch.setenv("DBT_PACKAGE_HUB_URL", f"http://127.0.0.1:{services.free_port()}/")
    settings.cache_clear()
    with pytest.raises(transform.TransformError, match="PLUMBLINE_DBT_UTILS=offline"):
        transform.run_dbt(CHURN, ["ls"])


def test_run_dbt_without_a_command_says_what_it_takes() -> None:
    with pytest.raises(transform.TransformError, match="which dbt command"):
        transform.run_dbt(CHURN, [])


def test_a_server_that_served_another_lake_shows_this_ones_tables(
    spark_lake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    spark = session()
    for number, folder in enumerate(("one", "other")):
        monkeypatch.setenv("PLUMBLINE_LAKE", str(tmp_path / folder))
        settings.cache_clear()
        write_deltalake(lake.uri("analytics.orders"), pa.table({"order_id": [number]}))
        lake.register(spark, ["analytics.orders"])
        assert [row.order_id for row in spark.sql("SELECT * FROM analytics.orders").collect()] == [number]
        assert lake.rows("analytics.orders") == 1, "dropping the entry leaves the data"
