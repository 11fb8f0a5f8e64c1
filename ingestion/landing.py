"""Landing: what the shop recorded in one window goes, once, into the append-only Delta tables `raw.*`.

The window runs from where the last landing ended to the end of the as-of day: a day in the daily run, all of history
in the first. It is a window over `recorded_at`, so an order dated earlier that turns up today lands today. Rows that
turned up *behind* an already landed window are found too: the days before the window are read again and what has
landed is left out by key. Such a row gets the window's start as `known_at`: nobody could have known it before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ingestion import source_checks
from ingestion.shop import ShopError, address, as_stored, connected, engine
from plumbline import clock, lake
from plumbline.errors import ServiceUnavailable
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.stage import StageRun

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection

KEYS = {"orders": "order_id", "customers": "customer_id"}
"""The shop's tables that land, each with its key."""

STAMPS = {"orders": ("recorded_at",), "customers": ("signed_up_at", "recorded_at")}
"""Columns that hold an instant: with a zone, or in UTC when the shop stores none."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
LOOKBACK = timedelta(days=7)
"""How far behind the window rows are looked for that the shop recorded, but showed too late."""


def land(run: StageRun) -> str:
    """Lands both tables' windows. The same window twice lands once. Raises ShopError, ServiceUnavailable."""
    _settle_dlt()
    start, end = _checked_window(run)
    told = f"{start.date()} to {run.as_of}" if start.date() < run.as_of else str(run.as_of)
    batch = _batch_id(f"{start.date()}..{run.as_of}", run.candidate.rejected)
    say(f"landing what the shop recorded: {told}")
    with _shop_at_hand():
        _pipeline_run([_resource(table, key, start, end, batch, run.candidate.rejected) for table, key in KEYS.items()])
    for table in KEYS:
        name = f"raw.{table}"
        head = lake.version(name)
        if head is None:
            raise ShopError(f"the shop has no {table} recorded before {end:%Y-%m-%d %H:%M} UTC: is it the right shop?")
        run.write(name, head, _landed_rows(name, batch))
    run.facts |= {"batch_id": batch, "landed_until": end.isoformat()}
    return f"landed {run.rows['raw.orders']:,} orders and {run.rows['raw.customers']:,} new customers ({told})"


def landed_until(run: StageRun) -> datetime | None:
    """Where the base release's landing ended: the end of its day. None before the first release."""
    return clock.end_of(run.base.as_of) if run.base else None


def _checked_window(run: StageRun) -> tuple[datetime, datetime]:
    """From when to when the run lands, once everything in it is seen to be readable."""
    database, end = engine(), clock.end_of(run.as_of)
    source_checks.refuse_absent(database.url)
    try:
        with connected(database) as connection:
            source_checks.refuse_incomplete(connection)
            source_checks.refuse_unsound(connection, (landed_until(run) or BEGINNING) - LOOKBACK, end)
            start = landed_until(run) or first_record(connection)
    finally:
        database.dispose()
    if start >= end:
        raise ShopError(f"--as-of {run.as_of}: the shop's first record is of {start.date()}, there is nothing to land")
    return start, end


def first_record(shop: Connection) -> datetime:
    """00:00 UTC of the day of the shop's first record. Raises ShopError when it has none."""
    import sqlalchemy as sa

    found = [shop.scalar(sa.select(sa.func.min(sa.column("recorded_at"))).select_from(sa.table(t))) for t in KEYS]
    stamps = [_utc(datetime.fromisoformat(str(value))) for value in found if value is not None]
    if not stamps:
        raise ShopError("the shop has no orders and no customers: `plumb shop load` loads the real ones")
    return min(stamps).replace(hour=0, minute=0, second=0, microsecond=0)


def _settle_dlt() -> None:
    """dlt's own settings, read when it is imported: quiet (it raises what it logs), no telemetry, nothing in ~."""
    os.environ |= {
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": str(settings().home / "dlt"),
    }


def _pipeline_run(resources: list[Any]) -> None:
    import dlt

    home = settings().home
    pipeline = dlt.pipeline(
        pipeline_name="shop",
        pipelines_dir=str(home / "dlt"),
        destination=dlt.destinations.filesystem(bucket_url=settings().lake_uri, deltalake_configuration=lake.KEEP_LOG),
        dataset_name="raw",
    )
    pipeline.drop()  # windows are stated by the run, so nothing of a run that was killed may be picked up
    pipeline.run(resources, table_format="delta", write_disposition="append")


@contextmanager
def _shop_at_hand() -> Iterator[None]:
    """Turns what dlt makes of a shop that went away into ServiceUnavailable; any other error passes."""
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except Exception as error:
        below: BaseException | None = error
        while below is not None and not isinstance(below, OperationalError):
            below = below.__cause__ or below.__context__
        if below is None:
            raise
        raise ServiceUnavailable(f"the shop database {address()} went away while it was read: {below.orig}") from None


def _resource(table: str, key: str, start: datetime, end: datetime, batch: str, rejected: list[str]) -> Any:
    from dlt.sources.sql_database import sql_table

    landed = _landed_keys(table, key, start - LOOKBACK, rejected)

    def window(query: Any, source: Any) -> Any:
        stamp = source.c.recorded_at
        opens, ends = as_stored(stamp.type, start - LOOKBACK), as_stored(stamp.type, end)
        return query.where(stamp >= opens, stamp < ends).order_by(source.c[key])

    resource = sql_table(
        credentials=engine(),
        table=table,
        backend="pyarrow",
        reflection_level="full",
        query_adapter_callback=window,
    )
    resource.apply_hints(
        columns={name: {"name": name, "data_type": "timestamp", "timezone": True} for name in STAMPS[table]}
    )
    return resource.add_map(_stamper(key, landed, start, batch))


def _stamper(key: str, landed: pa.Array, start: datetime, batch: str) -> Callable[[pa.Table], pa.Table]:
    """Leaves out what has landed and adds known_at, batch_id and loaded_at."""

    def stamp(rows: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = rows.filter(pc.invert(pc.is_in(rows[key], value_set=landed)))
        instant = pa.timestamp("us", tz="UTC")
        for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
            if pa.types.is_timestamp(kind):
                utc = rows[name].cast(pa.timestamp("us")).cast(instant) if kind.tz is None else rows[name].cast(instant)
                rows = rows.set_column(rows.column_names.index(name), name, utc)
        opened = pa.scalar(start, instant)
        known = pc.if_else(pc.less(rows["recorded_at"], opened), opened, rows["recorded_at"])
        return (
            rows.append_column("known_at", known)
            .append_column("batch_id", pa.repeat(batch, len(rows)))
            .append_column("loaded_at", pa.repeat(pa.scalar(clock.now(), instant), len(rows)))
        )

    return stamp


def _batch_id(window: str, rejected: list[str]) -> str:
    """The window's name; with a number behind it when earlier landings of the same window were rejected."""
    earlier = sum(batch.partition("#")[0] == window for batch in rejected)
    return f"{window}#{earlier + 1}" if earlier else window


def _landed_rows(table: str, batch: str) -> int:
    import pyarrow.compute as pc

    return int(lake.open_table(table).to_pyarrow_dataset().count_rows(filter=pc.field("batch_id") == batch))


def _landed_keys(table: str, key: str, since: datetime, rejected: list[str]) -> pa.Array:
    """The keys landed with `recorded_at` at or after `since`, in batches that were not rejected."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if lake.version(f"raw.{table}") is None:
        return pa.array([], pa.int64())
    found = lake.open_table(f"raw.{table}").to_pyarrow_table(
        columns=[key, "batch_id"], filters=[("recorded_at", ">=", since)]
    )
    accepted = found.filter(pc.invert(pc.is_in(found["batch_id"], value_set=pa.array(rejected, pa.string()))))
    return accepted[key].combine_chunks()


def _utc(stamp: datetime) -> datetime:
    return stamp.astimezone(UTC) if stamp.tzinfo else stamp.replace(tzinfo=UTC)
