"""Which entities count at a release. A picture that a later cleaning set aside keeps its rows; no reader takes them.

`Product.live` names the table, column and value that say it; a product without one counts every entity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import pyarrow as pa


def keep(product: Product, release: Release, rows: pa.Table) -> pa.Table:
    """Of these rows, those whose entity counts at the release."""
    import pyarrow.compute as pc

    if product.live is None:
        return rows
    table, column, value = product.live
    dataset = lake.open_table(table, release.version(table)).to_pyarrow_dataset()
    counting = dataset.to_table(columns=[product.entity], filter=pc.field(column) == value)
    return rows.filter(pc.is_in(rows[product.entity], counting[product.entity].combine_chunks()))


def relation(product: Product, release: Release, rows: str) -> str:
    """The same for a relation that Spark SQL reads."""
    if product.live is None:
        return rows
    table, column, value = product.live
    counting = f"SELECT {product.entity} FROM {lake.at(table, release.version(table))} WHERE {column} = '{value}'"
    return f"(SELECT * FROM {rows} WHERE {product.entity} IN ({counting}))"
