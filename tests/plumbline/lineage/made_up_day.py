"""A small churn day without Spark: the real stages' names and events around tables of a few rows."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from plumbline import observed
from plumbline.lake import tables as lake
from plumbline.observed import Assertion
from plumbline.pipeline import publish, stage
from plumbline.pipeline.stage import StageRun
from plumbline.verdict import Verdict
from products import churn
from products.churn import CHURN

DAY, NEXT = date(1998, 6, 28), date(1998, 6, 29)
ORDERS = pa.table({"order_id": [1, 2], "customer_id": [7, 8], "total_cents": [100, 250]})
CUSTOMERS = pa.table({"customer_id": [7, 8]})
RETURNS = pa.table({"order_id": [2], "cents": [250]})
SHOP = {"orders": ORDERS, "customers": CUSTOMERS, "returns": RETURNS}
SQL = (
    "SELECT customer_id, sum(o.total_cents) - sum(r.cents) AS spend FROM {orders} AS o JOIN {customers} USING "
    "(customer_id) LEFT JOIN {returns} AS r USING (order_id) GROUP BY 1"
)


def run_day(day: date, **instead: Any) -> None:
    """The daily run up to its release; `instead` gives a stage other work."""
    works = {
        "ingest": ingest,
        "dbt_run": dbt_run,
        "ge_check": ge_check,
        "features": features,
        "activity": lambda run: "no stream",
        "distribution_check": distribution_check,
        "release": publish.publish,
    } | instead
    for name, work in works.items():
        stage.perform(CHURN, name, day, work)


def write(run: StageRun, table: str, rows: pa.Table) -> None:
    write_deltalake(lake.uri(table), rows, mode="append", schema_mode="merge")
    run.write(table, lake.version(table) or 0, len(rows))


def ingest(run: StageRun) -> str:
    for table, rows in SHOP.items():
        observed.read(f"shop.{table}")
        write(run, f"raw.{table}", rows.append_column("batch_id", pa.array([f"batch {run.as_of}"] * len(rows))))
    return "landed"


def dbt_run(run: StageRun) -> str:
    for table, rows in SHOP.items():
        lake.at(f"raw.{table}", run.pin(f"raw.{table}"))
        if run.base:
            lake.at(f"raw.{table}", run.base.tables[f"raw.{table}"])
        for end in ("", "_history"):
            more, mart = f", analytics.orders{end}" if table == "returns" else "", f"{table}{end}"
            observed.asserted(f"analytics.{mart}", Assertion("not_null", True, "customer_id"))
            views = {f"staging.{table}": f"SELECT * FROM raw.{table}"}
            observed.made_by(f"analytics.{mart}", f"SELECT * FROM staging.{table}{more}", views)
        write(run, f"analytics.{table}", rows)
        write(run, f"analytics.{table}_history", rows)
    return "built"


def ge_check(run: StageRun) -> str:
    lake.open_table(churn.ORDERS, run.pin(churn.ORDERS))
    observed.asserted(churn.ORDERS, Assertion("expect_column_values_to_be_unique", True, "order_id"))
    run.gates["orders_expectations"] = Verdict("orders_expectations", passed=True)
    return "held"


def features(run: StageRun) -> str:
    for table in churn.HISTORIES:
        lake.at(table, run.pin(table))
    if run.base:
        lake.at(churn.FEATURES, run.pin(churn.FEATURES))
    names = dict(zip(SHOP, churn.HISTORIES, strict=True))
    observed.made_by(churn.FEATURES, SQL, names=names)
    write(run, churn.FEATURES, pa.table({"customer_id": [7, 8], "spend": [100, 250]}))
    lake.rows(churn.FEATURES, run.wrote[churn.FEATURES])
    return "computed"


def distribution_check(run: StageRun) -> str:
    lake.open_table(churn.FEATURES, run.pin(churn.FEATURES))
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

        stage.recorded(CHURN, {"run_id": "churn-training-2", "stage": name, "release_id": 2}, work)

    features = lake.version(churn.FEATURES)
    recorded("dataset", [(churn.FEATURES, features), (churn.ORDERS, features)], [(CHURN.dataset, "churn-r2-abc")])
    recorded("train", [(CHURN.dataset, "churn-r2-abc")], [(CHURN.runs, "f00d")])
    recorded("register", [(CHURN.runs, "f00d"), (churn.FEATURES, features)], [(CHURN.models, version)])
    recorded("deploy", [(CHURN.models, version), (CHURN.models, "0")], [(CHURN.champion, version)])
    served = [(CHURN.models, version), (CHURN.champion, version), (CHURN.online, "2")]
    recorded("serve", served, [(CHURN.endpoint, version)])
