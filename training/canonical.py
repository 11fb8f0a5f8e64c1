"""The canonical form of a dataset: the same rows give the same hash, however and wherever the file was written.

Canonical means: fixed column order and types, rows sorted by event_timestamp and the product's entity, timestamps in
microseconds UTC, and one kind of missing (NaN becomes null). The content hash is SHA-256 over, per column in order,

    name NUL type NUL validity values

where `validity` is one byte a row (1 present, 0 null) and `values` are fixed-width, little-endian, zero where null;
a boolean is one byte, a text its length in 8 bytes and its UTF-8. A list of numbers has the type `list<…>`; behind the
lists' validity come their lengths in 8 bytes each, then validity and values of all elements in order. Parquet's bytes
are not hashed: they change with the writer's version and row groups.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from plumbline.product import Product
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Key = tuple[str, str]


def key(product: Product) -> Key:
    """The columns that say which observation a row is, in the order that rows are sorted by."""
    return ("event_timestamp", product.entity)


def table(frame: pd.DataFrame, wanted: pa.Schema, key: Key) -> pa.Table:
    """The frame in canonical form.

    Raises TrainingError when a column is missing, does not fit its type, or the key is not unique.
    """
    import pyarrow as pa

    absent = [name for name in wanted.names if name not in frame.columns]
    if absent:
        raise TrainingError(f"the dataset lacks {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}")
    repeated = int(frame.duplicated(list(key)).sum())
    if repeated:
        raise TrainingError(f"{repeated} rows repeat the key {key} of another one: expected each of them once")
    ordered = frame.sort_values(list(key), kind="stable")
    columns = []
    for field in wanted:
        try:
            column = pa.array(ordered[field.name], from_pandas=True)
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise TrainingError(f"dataset column {field.name} does not fit {field.type}: {error}") from None
        if not field.nullable and column.null_count:
            raise TrainingError(f"dataset column {field.name}: {column.null_count} values are missing, none may be")
    return pa.table(columns, schema=wanted)


def content_hash(content: pa.Table, key: Key) -> str:
    """`sha256:…` of the canonical content (see above); row order does not matter, every value does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256()
    ordered = content.sort_by([(name, "ascending") for name in key])
    for field, chunks in zip(ordered.schema, ordered.columns, strict=True):
        # Parquet gives a list's elements another name than Arrow does, so that name is left out.
        kind = f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else field.type
        digest.update(f"{field.name}\0{kind}\0".encode())
        values = chunks.combine_chunks()
        if pa.types.is_list(field.type):
            digest.update(_plain(values.is_valid(), "u1"))
            digest.update(_plain(pc.fill_null(pc.list_value_length(values), 0), "<i8"))
            values = values.flatten()
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        digest.update(_plain(values.is_valid(), "u1"))
        if pa.types.is_string(values.type):
            for text in values.fill_null("").to_pylist():
                digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
            continue
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        digest.update(_plain(values.fill_null(False if pa.types.is_boolean(values.type) else 0)))
    return f"sha256:{digest.hexdigest()}"


def _plain(values: pa.Array, kind: str | None = None) -> bytes:
    """The values' bytes, little-endian, as this kind of number or as their own."""
    import numpy as np

    plain = np.ascontiguousarray(values.to_numpy(zero_copy_only=False))
    return plain.astype(kind or plain.dtype.newbyteorder("<")).tobytes()


def to_parquet(content: pa.Table) -> bytes:
    """The table as a Parquet file's bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = pa.BufferOutputStream()
    pq.write_table(content, written, compression="zstd")
    return bytes(written.getvalue().to_pybytes())


def from_parquet(content: bytes) -> pa.Table:
    """The table in bytes that `to_parquet` made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content))
