"""The lake: where each Delta table lives, which version it is at, and how to bring it back to a released one.

A table's name is `<schema>.<table>`; it lies at `<lake>/<schema>/<table>`. Versions are read with delta-rs (no JVM).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import causes, observed, s3
from plumbline.errors import PlumblineError
from plumbline.settings import settings
from plumbline.state import erasures

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession


SCHEMAS = ("raw", "clean", "staging", "analytics", "features", "serving")
"""What the lake's folders are called; datasets of other names lie elsewhere."""

KEEP_FILES = "interval 36500 days"
KEEP_LOG = {"delta.enableExpiredLogCleanup": "false", "delta.deletedFileRetentionDuration": KEEP_FILES}
"""For each table that is made: Delta never cuts its log, and no tool's own VACUUM takes a file that an old version
names, or a version that a release names could not be opened. Only `plumb lake vacuum` knows which nobody names."""


class LakeError(PlumblineError):
    """A table is not there, or not at the version that was asked for."""


def uri(table: str) -> str:
    """Where `schema.table` lives."""
    schema, _, name = table.partition(".")
    if not name:
        raise LakeError(f"table {table!r}: expected `schema.table`, as in `features.customers`")
    return f"{settings().lake_uri}/{schema}/{name}"


def holds(dataset: str) -> bool:
    """Whether a dataset of that name lies in the lake."""
    return dataset.partition(".")[0] in SCHEMAS


def storage_options() -> dict[str, str] | None:
    """What delta-rs must be told to reach the lake: nothing for a folder. Raises SettingsError without keys for S3."""
    return s3.delta_options(settings().lake_uri)


def open_table(table: str, version: int | None = None) -> DeltaTable:
    """The table as delta-rs sees it, at `version` or at its head; the stage at work is seen to read it.

    Raises LakeError when there is no such version or an erasure took its files, UndeclaredRead when the stage does not
    declare it.
    """
    _refuse_erased(table, version)
    found = opened(table, version)
    observed.read(table, found.version())
    return found


def opened(table: str, version: int | None = None) -> DeltaTable:
    """The same for bookkeeping, which is no read of a stage's: history, restoring, what lineage tells of a table."""
    found = _loaded(table, version)
    if found is None:
        raise LakeError(f"{table}: no Delta table at {uri(table)}")
    return found


def version(table: str) -> int | None:
    """The head version of a table, None when it does not exist. Raises LakeError when its log cannot be read."""
    head = found(table)
    return None if head is None else int(head.version())


def found(table: str) -> DeltaTable | None:
    """The table at its head, as `opened` gives it; None when it does not exist."""
    if "://" not in uri(table) and not (Path(uri(table)) / "_delta_log").exists():
        return None
    return _loaded(table, None)


@cache
def _table_type() -> type[DeltaTable]:
    """delta-rs's table, read from a local folder by Arrow itself.

    By default Arrow's threads call back into Python for each file. One that does so while the process ends aborts it:
    1 of 20 commands that had read 150 files ended with exit code 134, after its work.
    """
    from deltalake import DeltaTable
    from pyarrow import fs

    class Table(DeltaTable):  # type: ignore[misc]  # untyped
        def __init__(self, place: str, **options: Any) -> None:
            super().__init__(place, **options)
            self.files = None if "://" in place else fs.SubTreeFileSystem(place, fs.LocalFileSystem())

        def to_pyarrow_dataset(self, *args: Any, filesystem: Any = None, **options: Any) -> Any:
            return super().to_pyarrow_dataset(*args, filesystem=filesystem or self.files, **options)

    return Table


def _loaded(table: str, version: int | None) -> DeltaTable | None:
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return _table_type()(uri(table), version=version, storage_options=storage_options())
    except TableNotFoundError:
        return None
    except OSError as error:
        if known := causes.said(str(error)):
            raise known from None
        raise
    except DeltaError as error:
        raise causes.said(str(error)) or LakeError(_unreadable(table, version, str(error))) from None


def _unreadable(table: str, version: int | None, told: str) -> str:
    what = "its newest version" if version is None else f"version {version}"
    way = ""
    if "Parquet" in told:
        way = (
            ". A checkpoint in its _delta_log is damaged: take away the *.checkpoint.parquet files and "
            "_last_checkpoint there, the *.json commits beside them hold the same"
        )
    return f"{table}: {what} cannot be read at {uri(table)}: {told}{way}"


def at(table: str, pinned: int, without: Iterable[str] = ()) -> str:
    """The table at a version, as a relation that Spark SQL reads; `without` names batches to leave out.

    Who asks for it is seen to read it. Raises LakeError when an erasure took its files.
    """
    _refuse_erased(table, pinned)
    observed.read(table, pinned)
    relation = f"delta.`{uri(table)}` VERSION AS OF {pinned}"
    listed = ", ".join("'" + batch.replace("'", "''") + "'" for batch in without)
    return f"(SELECT * FROM {relation} WHERE batch_id NOT IN ({listed}))" if listed else relation


def _refuse_erased(table: str, version: int | None) -> None:
    if version is not None and (since := erasures.unreadable(table).get(version)):
        raise LakeError(
            f"{table}: version {version} cannot be read since {since}: a customer was erased, and the files that held "
            "them are gone. What was made from it is not reproducible any more; the release in force holds the rest"
        )


def remaining(table: str, pinned: int) -> DeltaTable:
    """The table at a version, or, where an erasure took its files, at the version that holds its other rows: for who
    asks what was, and must not build on it. Raises LakeError when neither can be read."""
    left = erasures.remaining(table, pinned)
    return open_table(table, pinned if left is None else left)


def rows(table: str, pinned: int | None = None) -> int:
    """The number of rows, from the Delta log's statistics alone."""
    return int(open_table(table, pinned).count())


def nulls(table: str, pinned: int, names: Iterable[str]) -> dict[str, int]:
    """Of each of these columns, how many rows have no value: from the Delta log's statistics, and from the rows where
    a file's do not say. Delta counts the first 32 columns alone. A column that is not there has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = open_table(table, pinned)
    actions, there = pa.table(found.get_add_actions(flatten=True)), {field.name for field in found.schema().fields}
    counts, unknown = dict[str, int](), list[str]()
    for name in names:
        column = f"null_count.{name}"
        told = actions[column] if column in actions.column_names else pa.nulls(len(actions))
        if name in there and told.null_count:
            unknown.append(name)
        counts[name] = int(pc.sum(told).as_py() or 0)
    if unknown:
        rows = found.to_pyarrow_dataset().to_table(columns=unknown)
        counts |= {name: rows[name].null_count for name in unknown}
    return counts


def register(spark: SparkSession, tables: Iterable[str]) -> None:
    """Puts tables that exist in the lake into Spark's catalog, which a new server starts without.

    dbt looks there for what to merge into: an incremental model that it does not find would be built from nothing.
    """
    for table in tables:
        schema = table.partition(".")[0]
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        spark.sql(f"DROP TABLE IF EXISTS {table}")  # the entry alone: of another lake, when a server serves several
        if version(table) is not None:
            spark.sql(f"CREATE TABLE {table} USING delta LOCATION '{uri(table)}'")


def restore(spark: SparkSession, released: Mapping[str, int]) -> list[str]:
    """Brings each table's head back to its released version where it has moved on; the tables that had.

    What a failed or killed run wrote stays in the table's history, but nothing is built on it.
    """
    moved = []
    for table, pinned in released.items():
        if content_version(table) != pinned:
            spark.sql(f"RESTORE TABLE delta.`{uri(table)}` TO VERSION AS OF {pinned}")
            moved.append(table)
    return moved


def reset(table: str, schema: Any, released: int | None) -> DeltaTable:
    """A table whose head shows its released rows and no others; without a release none: made, empty, if it is not
    there. `schema` is Arrow's. By delta-rs, for tables that no Spark writes.

    What a failed or killed run wrote stays in the table's history, but nothing is built on it.
    """
    from deltalake import write_deltalake

    if version(table) is None:
        configuration, storage = dict(KEEP_LOG), storage_options()
        write_deltalake(uri(table), schema.empty_table(), configuration=configuration, storage_options=storage)
    if content_version(table) != (wanted := released or 0):  # version 0 is the empty one, made above
        opened(table).restore(wanted)
    return opened(table)


def content_version(table: str) -> int | None:
    """The version whose rows the head shows: behind the notes of a vacuum, the one that a RESTORE named or itself."""
    for entry in opened(table).history(20):
        if str(entry.get("operation", "")).startswith("VACUUM"):
            continue
        if entry.get("operation") == "RESTORE":
            restored = entry.get("operationParameters", {}).get("version")
            return int(restored) if restored is not None else None
        return int(entry["version"])
    return version(table)
