"""What came of a product's answers: its table of outcomes, to which rows are only ever appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.state import leases

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[Any, ...]


def append(product: Product, schema: pa.Schema, rows: list[dict[str, Any]], new: bool = False) -> int:
    """Appends those of the rows whose request and entity have no outcome yet, in one commit; how many.

    `new` says that none has one, for who made the request ids up himself: nothing is read then.
    """
    import pyarrow as pa
    from deltalake import write_deltalake

    with leases.hold(product.name, "outcomes", "outcomes", wait=True):
        there, recorded_at = set() if new else known(product), clock.wall()
        added = [{**row, "recorded_at": recorded_at} for row in rows if key(product, row) not in there]
        if added:
            table = pa.Table.from_pylist(added, schema=schema)
            write_deltalake(
                lake.uri(product.outcomes),
                table,
                mode="append",
                configuration=lake.KEEP_LOG,
                storage_options=lake.storage_options(),
            )
    return len(added)


def key(product: Product, row: dict[str, Any]) -> Key:
    """What an outcome is of: a request, and the customer or image that it was about."""
    return row["request_id"], row[product.entity]


def known(product: Product) -> set[Key]:
    """The keys that have an outcome."""
    if lake.version(product.outcomes) is None:
        return set()
    columns = ["request_id", product.entity]
    rows = lake.open_table(product.outcomes).to_pyarrow_table(columns=columns).to_pylist()
    return {key(product, row) for row in rows}
