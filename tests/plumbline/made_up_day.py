"""A small churn day without Spark: the real stages' names and events around tables of a few rows."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from plumbline import declared, observed
from plumbline.lake import tables as lake
from plumbline.observed import Assertion
from plumbline.pipeline import publish, stage
from plumbline.pipeline.stage import StageRun
from plumbline.verdict import Verdict

DAY, NEXT = date(1998, 6, 28), date(1998, 6, 29)
ORDERS = pa.table({"order_id": [1, 2], "customer_id": [7, 8], "total_cents": [100, 250]})
CUSTOMERS = pa.table({"customer_id": [7, 8]})
SQL = (
    "SELECT customer_id, sum(o.total_cents) AS spend FROM {orders} AS o JOIN {customers} USING (customer_id) GROUP BY 1"
)


def run_day(day: date, **instead: Any) -> None:
    """The daily run up to its release; `instead` gives a stage other work."""
    works = {
        "ingest": ingest,
        "dbt_run": dbt_run,
        "ge_check": ge_check,
        "features": features,
        "distribution_check": distribution_check,
        "release": publish.publish,
    } | instead
    for name, work in works.items():
        stage.perform("churn", name, day, work)


def write(run: StageRun, table: str, rows: pa.Table) -> None:
    write_deltalake(lake.uri(table), rows, mode="append", schema_mode="merge")
    run.write(table, lake.version(table) or 0, len(rows))


def ingest(run: StageRun) -> str:
    for table, rows in (("orders", ORDERS), ("customers", CUSTOMERS)):
        observed.read(f"shop.{table}")
        write(run, f"raw.{table}", rows.append_column("batch_id", pa.array([f"batch {run.as_of}"] * len(rows))))
    return "landed"


def dbt_run(run: StageRun) -> str:
    for table, rows in (("orders", ORDERS), ("customers", CUSTOMERS)):
        lake.at(f"raw.{table}", run.pin(f"raw.{table}"))
        if run.base:
            lake.at(f"raw.{table}", run.base.tables[f"raw.{table}"])
        observed.made_by(
            f"analytics.{table}", f"SELECT * FROM staging.{table}", {f"staging.{table}": f"SELECT * FROM raw.{table}"}
        )
        observed.asserted(f"analytics.{table}", Assertion("not_null", True, "customer_id"))
        write(run, f"analytics.{table}", rows)
    return "built"


def ge_check(run: StageRun) -> str:
    lake.open_table(declared.ORDERS, run.pin(declared.ORDERS))
    observed.asserted(declared.ORDERS, Assertion("expect_column_values_to_be_unique", True, "order_id"))
    run.gates["orders_expectations"] = Verdict("orders_expectations", passed=True)
    return "held"


def features(run: StageRun) -> str:
    for table in (declared.ORDERS, declared.CUSTOMERS):
        lake.at(table, run.pin(table))
    if run.base:
        lake.at(declared.FEATURES, run.pin(declared.FEATURES))
    names = {"orders": declared.ORDERS, "customers": declared.CUSTOMERS}
    observed.made_by(declared.FEATURES, SQL, names=names)
    write(run, declared.FEATURES, pa.table({"customer_id": [7, 8], "spend": [100, 250]}))
    lake.rows(declared.FEATURES, run.wrote[declared.FEATURES])
    return "computed"


def distribution_check(run: StageRun) -> str:
    lake.open_table(declared.FEATURES, run.pin(declared.FEATURES))
    run.gates["features_shift"] = Verdict("features_shift", passed=True)
    return "alike"


def train(version: str = "1") -> None:
    """Dataset, run, model, champion, as training tells them."""

    def recorded(name: str, reads: list[tuple[str, Any]], writes: list[tuple[str, Any]]) -> None:
        def work() -> dict[str, Any]:
            for dataset, version in reads:
                lake.open_table(dataset, version) if isinstance(version, int) else observed.read(dataset, version)
            for dataset, version in writes:
                observed.wrote(dataset, version)
            return {"message": name}

        stage.recorded("churn", {"run_id": "churn-training-2", "stage": name, "release_id": 2}, work)

    features = lake.version(declared.FEATURES)
    recorded(
        "dataset", [(declared.FEATURES, features), (declared.ORDERS, features)], [(declared.DATASET, "churn-r2-abc")]
    )
    recorded("train", [(declared.DATASET, "churn-r2-abc")], [(declared.RUNS, "f00d")])
    recorded("register", [(declared.RUNS, "f00d"), (declared.FEATURES, features)], [(declared.MODELS, version)])
    recorded("deploy", [(declared.MODELS, version), (declared.MODELS, "0")], [(declared.CHAMPION, version)])
    served = [(declared.MODELS, version), (declared.CHAMPION, version), (declared.ONLINE, "2")]
    recorded("serve", served, [(declared.ENDPOINT, version)])
