"""`plumb quarantine put`: a person sets a landed batch aside that no gate stopped, and foreign rows in raw are told.

A stage without a gate may break on a value that every gate let pass. Its batch is then set aside by hand, and the
shop's mended rows land again as a new batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingestion.database import quarantine
from ingestion.database.quarantine import QuarantineError
from plumbline.contracts import contract as contracts
from plumbline.lake import tables as lake
from plumbline.pipeline import leases
from plumbline.product import Product
from plumbline.state import candidates, ledger, releases

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

STAGE = "quarantine_put"


def put(
    product: Product, why: str, batch_id: str | None = None, table: str | None = None, key: str | None = None
) -> dict[str, Any]:
    """Sets a batch aside that landed and is in no release, by its id or by a row of it; the run of its day starts over.

    `key` is a row's key as text, several columns with a comma between. Raises QuarantineError for what cannot be set
    aside, Conflict while a stage of the product runs.
    """
    if not why.strip():
        raise QuarantineError("say why the batch is set aside (--why): `plumb quarantine list` will name the reason")
    if batch_id is None:
        batch_id = _batch_of(product, table, key)
    rows = {name: len(_of_batch(name, batch_id, None)) for name in product.sources}
    if not any(rows.values()):
        raise QuarantineError(f"no batch {batch_id} is in raw: `plumb quarantine list` names those that were kept out")
    if batch_id in candidates.rejected(product.name):
        raise QuarantineError(f"{batch_id} is set aside already: see `plumb quarantine show {batch_id}`")
    with leases.lease(product, STAGE):
        release = releases.in_force(product.name)
        if release and any(
            len(_of_batch(name, batch_id, release.tables[f"raw.{name}"]))
            for name in product.sources
            if f"raw.{name}" in release.tables
        ):
            raise QuarantineError(
                f"{batch_id} is part of release {release.release_id}: correct its rows in the shop, or take the "
                "release back with `plumb releases undo`"
            )
        day = quarantine.window_end(batch_id)
        candidates.reject(product.name, batch_id, f"{product.name}-{day}", why.strip())
        if (candidate := candidates.load(product.name, day)) is not None:
            for made in (candidate.stages, candidate.tables, candidate.gates):
                made.clear()
            candidate.rejected = candidates.rejected(product.name)
            candidate.save()
    return {"batch_id": batch_id, "rows": rows, "why": why.strip(), "next": f"plumb ingest --as-of {day}"}


def strangers(product: Product) -> list[str]:
    """The rows of raw whose batch no run of the product wrote, a sentence for each table that has some; none is well.

    A batch is known by the ledger: an ingest of its last day began.
    """
    days = {str(event.get("as_of")) for event in ledger.events(product.name, []) if event["stage"] == "ingest"}
    told = []
    for table in product.raw:
        if lake.version(table) is None:
            continue
        batches = lake.open_table(table).to_pyarrow_table(columns=["batch_id"])["batch_id"].value_counts().to_pylist()
        foreign = {
            item["values"]: item["counts"]
            for item in batches
            if item["values"] is None or item["values"].partition("..")[2].partition("#")[0] not in days
        }
        if foreign:
            named = ", ".join(f"{rows:,} of batch {batch or 'null'}" for batch, rows in foreign.items())
            told.append(
                f"{table}@v{lake.version(table)} has rows that no run of {product.name} wrote: {named}. Restore the "
                "version before them with delta-rs (`DeltaTable(…).restore(…)`), and run the same again"
            )
    return told


def _batch_of(product: Product, table: str | None, key: str | None) -> str:
    """The newest batch, of those that count, that has a row of that key."""
    if table not in product.sources or key is None:
        raise QuarantineError(
            f"name a batch, or a row by --table ({', '.join(product.sources)}) and --key; found {table} and {key}"
        )
    columns, values = contracts.shop(table).key, key.split(",")
    if len(values) != len(columns) or lake.version(f"raw.{table}") is None:
        raise QuarantineError(f"raw.{table} has no {', '.join(columns)} {key}: expected a value for each key column")
    rows = lake.open_table(f"raw.{table}").to_pyarrow_table(columns=[*columns, "batch_id", "loaded_at"])
    rejected = candidates.rejected(product.name)
    wanted = [
        row
        for row in rows.filter(_equal(rows, columns[0], values[0])).to_pylist()
        if [str(row[name]) for name in columns] == values and row["batch_id"] not in rejected
    ]
    if not wanted:
        raise QuarantineError(f"raw.{table} has no {', '.join(columns)} {key} in a batch that counts")
    return str(max(wanted, key=lambda row: row["loaded_at"])["batch_id"])


def _equal(rows: pa.Table, column: str, text: str) -> pc.Expression:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.equal(rows[column].cast(pa.string()), text)


def _of_batch(table: str, batch_id: str, version: int | None) -> pa.Table:
    """The rows of a raw table, at a version or its newest, that one batch brought."""
    import pyarrow.compute as pc

    if lake.version(f"raw.{table}") is None:
        return []
    dataset = lake.open_table(f"raw.{table}", version).to_pyarrow_dataset()
    return dataset.to_table(columns=["batch_id"], filter=pc.field("batch_id") == batch_id)
