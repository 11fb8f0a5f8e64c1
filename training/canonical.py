"""The canonical form of a dataset: the same rows give the same hash, however and wherever the file was written.

Canonical means: fixed column order and types, rows sorted by (event_timestamp, customer_id), timestamps in
microseconds UTC, and one kind of missing (NaN becomes null). The content hash is SHA-256 over, per column in order,

    name NUL type NUL validity values

where `validity` is one byte a row (1 present, 0 null) and `values` are fixed-width, little-endian, zero where null;
a boolean is one byte, a text its length in 8 bytes and its UTF-8. Parquet's bytes are not hashed: they change with the
writer's version and row groups.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KEY = ("event_timestamp", "customer_id")


def schema(features: dict[str, pa.DataType]) -> pa.Schema:
    """The dataset's columns: key, request time, label, split, then the features in the given order."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("event_timestamp", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("customer_id", pa.int64(), nullable=False),
            pa.field("request_time", pa.int64(), nullable=False),
            pa.field("churned", pa.bool_(), nullable=False),
            pa.field("is_test", pa.bool_(), nullable=False),
            *(pa.field(name, kind) for name, kind in features.items()),
        ]
    )


def table(frame: pd.DataFrame, wanted: pa.Schema) -> pa.Table:
    """The frame in canonical form.

    Raises TrainingError when a column is missing, does not fit its type, or the key is not unique.
    """
    import pyarrow as pa

    absent = [name for name in wanted.names if name not in frame.columns]
    if absent:
        raise TrainingError(f"the dataset lacks {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}")
    repeated = int(frame.duplicated(list(KEY)).sum())
    if repeated:
        raise TrainingError(f"{repeated} rows repeat the key {KEY} of another one: expected each customer once a day")
    ordered = frame.sort_values(list(KEY), kind="stable")
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


def content_hash(content: pa.Table) -> str:
    """`sha256:…` of the canonical content (see above); row order does not matter, every value does."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256()
    ordered = content.sort_by([(name, "ascending") for name in KEY])
    for field, chunks in zip(ordered.schema, ordered.columns, strict=True):
        digest.update(f"{field.name}\0{field.type}\0".encode())
        values = chunks.combine_chunks()
        if pa.types.is_floating(field.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, field.type), values)
        digest.update(values.is_valid().to_numpy(zero_copy_only=False).astype("u1").tobytes())
        if pa.types.is_string(field.type):
            for text in values.fill_null("").to_pylist():
                digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
            continue
        if pa.types.is_timestamp(field.type):
            values = values.cast(pa.int64())
        filled = values.fill_null(False if pa.types.is_boolean(field.type) else 0)
        plain = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
        digest.update(plain.astype(plain.dtype.newbyteorder("<")).tobytes())
    return f"sha256:{digest.hexdigest()}"


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
