"""A platform of a few rows, without Spark: tables of the contracts' columns, releases, a ledger, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from observability import dataset_metrics
from plumbline import clock, files
from plumbline.contracts.contract import Contract
from plumbline.lake import tables as lake
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from products.churn import CHURN
from products.images import IMAGES

PRODUCT = CHURN.name
SOURCES = ("orders", "customers", "returns")
TABLES = (*(f"{schema}.{name}" for schema in ("raw", "analytics") for name in SOURCES), "features.customers")
TYPES: dict[str, tuple[pa.DataType, Any]] = {
    "bigint": (pa.int64(), 1),
    "int": (pa.int32(), 1),
    "float": (pa.float32(), 1.0),
    "double": (pa.float64(), 1.0),
    "date": (pa.date32(), date(1998, 6, 29)),
    "timestamp": (pa.timestamp("us", tz="UTC"), datetime(1998, 6, 29, tzinfo=UTC)),
    "string": (pa.string(), "x"),
}


def set_clock(home: Path, now: datetime) -> None:
    """The platform's now, as a replay sets it."""
    files.write_whole(home / "settings.env", f"PLUMBLINE_NOW={now:%Y-%m-%dT%H:%M:%SZ}\n")


def passed(gate: str, well: bool = True) -> dict[str, Any]:
    return {gate: {"verdict": "passed" if well else "failed", "expectations": 1, "failed": [] if well else ["bad"]}}


def event(stage: str, state: str, day: date, **facts: Any) -> None:
    """One event of the day's run."""
    ledger.record(PRODUCT, {"run_id": f"{PRODUCT}-{day}", "stage": stage, "as_of": day, "state": state, **facts})


def land(day: date, rows: int = 10) -> None:
    """The day's orders land."""
    event("ingest", "START", day)
    until = clock.end_of(day).isoformat()
    event("ingest", "COMPLETE", day, landed={"orders": rows, "customers": 0}, landed_until=until, seconds=1.5)


def refused(day: date, rows: int = 10) -> None:
    """The day's orders break the shop's contract: they go into quarantine, the line stops."""
    event("ingest", "START", day)
    kept = {"quarantined": {"orders": rows}, "quarantine": f"{day}..{day}", "seconds": 1.0}
    error = "GateFailed: orders.customer_id is null in 3 of 10 rows"
    event("ingest", "GATE_FAILED", day, gates=passed("record_contract", False), error=error, **kept)


def publish(day: date, rows: int = 10, nulls: int = 0) -> Release:
    """A day's release, online: `rows` more in each table, of which `nulls` lack their required columns."""
    before = releases.in_force(PRODUCT)
    for contract in dataset_metrics.datasets():
        if (table := dataset_metrics.table_of(contract)) in TABLES:
            write_deltalake(lake.uri(table), made(contract, rows, nulls, day), mode="append")
    number = before.release_id + 1 if before else 1
    versions = {table: version for table in TABLES if (version := lake.version(table)) is not None}
    published = clock.end_of(day).isoformat()
    release = Release(
        number,
        PRODUCT,
        day,
        number - 1 or None,
        versions,
        {"orders_volume": Verdict("orders_volume", passed=True, expectations=1)},
        "abc",
        "def",
        f"churn-{day}",
        published,
    )
    releases.publish(release)
    event("distribution_check", "COMPLETE", day, gates=passed("orders_volume"), seconds=2.0)
    event("release", "COMPLETE", day, release_id=number, seconds=0.1)
    event("materialize", "COMPLETE", day, release_id=number, seconds=3.0)
    event("parity_check", "COMPLETE", day, release_id=number, feature_parity_mismatch_ratio=0.0, gates=passed("parity"))
    return release


def whole_day(day: date) -> Release:
    """A day on which all goes well."""
    land(day)
    return publish(day)


def train(version: str = "1") -> None:
    """A model is trained, registered and deployed."""
    ledger.record(
        PRODUCT,
        {
            "run_id": "t",
            "stage": "train",
            "state": "COMPLETE",
            "model_id": f"m-{version}",
            "metrics": {"log_loss": 0.3},
        },
    )
    ledger.record(
        PRODUCT,
        {"run_id": "t", "stage": "register", "state": "COMPLETE", "model_id": f"m-{version}", "version": version},
    )
    ledger.record(PRODUCT, {"run_id": "d", "stage": "deploy", "state": "COMPLETE", "champion": version})


def clean_images(quarantined: dict[str, int], clean: int = 8) -> None:
    """A run of the image product up to its dataset: so many pictures were clean, and so many set aside."""
    bad, day = sum(quarantined.values()), date(1998, 6, 29)
    totals = {"total_raw": clean + bad, "total_clean": clean, "total_quarantined": bad, "quarantined": quarantined}
    cleaning = {"cleaning_version": "c1", **totals, "near_duplicate_groups": 2}
    for stage, facts in {
        "ingest": {"rows": {"raw.images": clean + bad, "raw.image_labels": clean}},
        "clean": {"rows": {"clean.images": clean + bad}, "cleaning": cleaning},
        "features": {"rows": {IMAGES.features: clean}},
        "dataset": {"split_counts": {"train": clean - 3, "val": 1, "test": 2}},
    }.items():
        head = {"run_id": f"images-{day}", "stage": stage, "as_of": day}
        ledger.record(IMAGES.name, {**head, "state": "COMPLETE", "seconds": 1.0, **facts})


def answer(rows: int, at: datetime, release: int = 1) -> None:
    """Rows of the outcome log."""
    contract = next(c for c in dataset_metrics.datasets() if c.dataset == "serving.predictions")
    table = made(contract, rows, 0)
    for name, value in (("at", at), ("logged_at", at), ("release_id", release)):
        where = table.schema.get_field_index(name)
        table = table.set_column(
            where, table.schema.field(where), pa.array([value] * rows, table.schema.field(where).type)
        )
    write_deltalake(lake.uri(contract.dataset), table, mode="append")


def made(contract: Contract, rows: int, nulls: int, day: date = date(1998, 6, 29)) -> pa.Table:
    """Rows of a contract's columns, dated that day; the first `nulls` of them lack what is required."""
    columns, first = {}, day.toordinal() * 1_000 if contract.dataset.endswith("orders") else 1
    dated = {"date": day, "timestamp": clock.end_of(day)}
    for column in contract.columns.values():
        kind, value = TYPES[column.type]
        given = range(first, first + rows) if column.type == "bigint" else [dated.get(column.type, value)] * rows
        values = [None if column.required and n < nulls else v for n, v in enumerate(given)]
        columns[column.name] = pa.array(values, kind)
    return pa.table(columns)


def days(first: date, last: date) -> list[date]:
    """From one day to another, both included."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
