"""A trial of the working tree's dbt models: built from raw at a release's pins, beside the lake, published nowhere.

Schemas get the prefix `preview_`, tables lie in the preview's folder, so that nothing of the home is touched.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.contracts import contract as contracts
from plumbline.product import Product
from plumbline.state import ledger
from plumbline.state.releases import Release
from transform import build as transform
from transform import landed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "preview_"
SCHEMAS = ("staging", "analytics")


@dataclass(frozen=True)
class Trial:
    """What came of it: a relation for each table that was built, each test's verdict, and what went wrong."""

    tables: dict[str, str]
    tests: list[dict[str, Any]]
    errors: list[str]
    manifest: dict[str, Any]


def build(
    spark: SparkSession, product: Product, release: Release, tables: list[str], sample: str, folder: Path
) -> Trial:
    """Builds the project, all of it: its tests look across models. `tables` are the marts that are asked for; `sample`
    is the SQL condition on customer_id that raw rows must meet."""
    clear(spark, folder)
    pins = _sampled(product, release, sample)
    given = {"PLUMB_PINS": json.dumps(pins), "PLUMB_BASE_PINS": "{}", "PLUMB_MERGE_ONLY": "true"}
    with transform.variables({**given, "PLUMB_SCHEMA_PREFIX": PREFIX}):
        result = transform.invoke(
            ["build", "--full-refresh", "--exclude-resource-type", "unit_test", "--log-level", "none"],
            folder / "dbt",
            str(folder / "lake"),
        )
    items = transform.results(result)
    errors = [_error(item) for item in items if str(item.status) == "error" and _is(item, "model")]
    if not result.success and not items:
        errors = [transform.short(str(result.exception))]
    tests = [
        {
            "name": item.node.name,
            "status": str(item.status),
            "rows": item.failures,
            "file": item.node.original_file_path,
            "query": str(item.node.compiled_path or ""),
        }
        for item in items
        if _is(item, "test") and str(item.status) != "skipped"  # what it would test was not built
    ]
    built = {
        table: f"{PREFIX}{table}"
        for table in tables
        if any(item.node.name == _model(table) and str(item.status) == "success" for item in items)
    }
    return Trial(built, tests, errors, files.read_json(folder / "dbt" / "target" / "manifest.json") or {})


def _sampled(product: Product, release: Release, sample: str) -> dict[str, str]:
    """Raw's tables as relations: the rows of the sample's customers. A table that names no customer gives the rows of
    another one's that do: of the table whose key it names."""
    relations = {table: landed.at(table, release.version(table), release.rejected) for table in product.raw}
    promised = {table: contracts.of_table(table) for table in product.raw}
    named = {table for table in product.raw if product.entity in promised[table].columns}
    found = {table: f"(SELECT * FROM {relations[table]} WHERE {sample})" for table in named}
    for table in product.raw:
        owners = [o for o in sorted(named) if table not in named and {*promised[o].key} <= {*promised[table].columns}]
        if owners:
            key = ", ".join(promised[owners[0]].key)
            found[table] = f"(SELECT * FROM {relations[table]} WHERE ({key}) IN (SELECT {key} FROM {found[owners[0]]}))"
    return {table: found.get(table, relations[table]) for table in product.raw}


def clear(spark: SparkSession, folder: Path) -> None:
    """Forgets an earlier trial: its schemas in the catalog and its tables in the folder."""
    for schema in SCHEMAS:
        spark.sql(f"DROP SCHEMA IF EXISTS {PREFIX}{schema} CASCADE")
    shutil.rmtree(folder / "lake", ignore_errors=True)


def changed(product: Product, release: Release) -> dict[str, bool | None]:
    """For each mart, whether a model that leads to it is another than the release's; None when nobody recorded it."""
    found: dict[str, bool | None] = {}
    for table in product.marts:
        event = ledger.written_by(product, table, release.version(table)) or {}
        recorded = {node["node"]: node.get("sql") for node in event.get("dbt", []) if node["kind"] == "model"}
        leading = {name: sql for name, sql in recorded.items() if _leads_to(name, table)}
        if not leading or None in leading.values():
            found[table] = None
            continue
        found[table] = any(_digest(name) != sql for name, sql in leading.items())
    return found


def _leads_to(node: str, table: str) -> bool:
    name = node.rpartition(".")[2]
    return name in (_model(table), f"stg_{_model(table).removesuffix('_history')}")


def _model(mart: str) -> str:
    return mart.partition(".")[2]


def _digest(node: str) -> str | None:
    name = node.rpartition(".")[2]
    file = next((transform.PROJECT / "models").rglob(f"{name}.sql"), None)
    return transform.digest(str(file.relative_to(transform.PROJECT))) if file else None


def _is(item: Any, kind: str) -> bool:
    return str(item.node.resource_type) == kind


def _error(item: Any) -> str:
    """The model's file and dbt's message; the line that Spark names is one of the compiled SQL, so that is shown."""
    message, compiled = str(item.message), getattr(item.node, "compiled_path", None)
    told = f"dbt/{item.node.original_file_path}: {transform.short(message)}"
    place = re.search(r"line (\d+)", message)
    if compiled is None or not Path(compiled).exists():
        return told
    lines, number = Path(compiled).read_text().splitlines(), int(place.group(1)) if place else 0
    shown = f"\n      {lines[number - 1].strip()}" if 0 < number <= len(lines) else ""
    return f"{told}\n  compiled: {compiled}{f':{number}' if shown else ''}{shown}"
