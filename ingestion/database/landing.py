"""Landing: what the shop recorded in one window goes, once, into the append-only Delta tables `raw.*`.

The window runs from where the last landing ended to the end of the as-of day: a day in the daily run, all of history
in the first. It is a window over `recorded_at`, so an order dated earlier that turns up today lands today. Rows that
turned up *behind* an already landed window are found too: the days before the window are read again and what has
landed is left out by key. Such a row gets the window's start as `known_at`: nobody could have known it before.

The shop's contracts are held against what it shows before anything is read (landing_gates.py). A batch that breaks
one goes whole into quarantine instead. What was sent is counted before it is read: landed and quarantined rows
together must be as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ingestion.database import dual_write, landing_gates, quarantine, source_checks
from ingestion.database import quarantine_replay as replay
from ingestion.database.source import ShopError, address, as_stored, connected, engine
from ingestion.database.source_checks import BEGINNING, LOOKBACK
from plumbline import clock, observed, s3
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED
from plumbline.errors import ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.product import Product
from plumbline.progress import say
from plumbline.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine


def land(run: StageRun) -> str:
    """Lands both tables' windows. The same window twice lands once.

    Raises GateFailed when the shop breaks its contract (the batch is in quarantine then) or rows got lost on the way,
    ShopError, ServiceUnavailable.
    """
    _settle_dlt()
    tables, name = keys(run.product), run.product.name
    database, rejected = engine(), run.candidate.rejected
    source_checks.refuse_absent(database.url)
    try:
        with connected(database) as connection:
            found = landing_gates.look(connection, run.product)
            opened, end = landed_until(run), clock.end_of(run.as_of)
            start = opened or _first_record(connection, run.product, found)
            asked = landing_gates.hold_to_contract(run, connection, found, start, end)
            start = opened or first_record(connection, run.product)
            sent = {table: _sent_keys(connection, table, found, start, end, run.candidate.rejected) for table in tables}
    finally:
        database.dispose()
    if start >= end:
        raise ShopError(f"--as-of {run.as_of}: the shop's first record is of {start.date()}, there is nothing to land")
    told = _told_window(start, run)
    batch = _batch_id(run.product, f"{start.date()}..{run.as_of}", rejected)
    changes = [change for table in tables for change in dual_write.drop_old(name, table)[1]]
    say(f"landing what the shop recorded: {told}")
    with _shop_at_hand():
        _pipeline_run([_resource(name, *table, start, end, batch, rejected) for table in tables.items()])
    if asked is not None:
        say("landing what is let in from quarantine")
        try:
            _pipeline_run([_resource(name, *table, start, end, batch, rejected, asked) for table in tables.items()])
        finally:
            replay.dispose(asked)
    for table, raw in zip(tables, run.product.raw, strict=True):
        observed.read(f"shop.{table}")
        head = lake.version(raw)
        if head is None:
            raise ShopError(f"the shop has no {table} recorded before {end:%Y-%m-%d %H:%M} UTC: is it the right shop?")
        run.write(raw, head, _landed_rows(raw, batch))
        changes += dual_write.begin(name, table)
    run.facts |= {"batch_id": batch, "landed_until": end.isoformat()}
    run.facts["schema_changes"] = [*run.facts.get("schema_changes", []), *changes]
    landed = {t: set(_landed_keys(t, key, start - LOOKBACK, rejected).to_pylist()) for t, key in tables.items()}
    kept = landing_gates.count(run, sent, landed, batch, start)
    rest = f"; of what was sent, {kept:,} rows stay in quarantine" if kept else "; that is all that was sent"
    dropped = "".join(f"; dropped raw.{c['table']}.{c['column']}" for c in changes if c["change"] == "dropped")
    counted = " and ".join(f"{run.rows[raw]:,} {table}" for table, raw in zip(tables, run.product.raw, strict=True))
    return f"landed {counted} ({told}){rest}{dropped}"


def keys(product: Product) -> dict[str, str]:
    """The shop's tables that land, each with its key."""
    return {table: contracts.shop(table).key[0] for table in product.sources}


def landed_until(run: StageRun) -> datetime | None:
    """Where the base release's landing ended: the end of its day. None before the first release."""
    return clock.end_of(run.base.as_of) if run.base else None


def first_record(shop: Connection, product: Product) -> datetime:
    """00:00 UTC of the day of the shop's first record. Raises ShopError when it has none."""
    import sqlalchemy as sa

    found = [shop.scalar(sa.select(sa.func.min(sa.column(RECORDED))).select_from(sa.table(t))) for t in product.sources]
    stamps = [_utc(datetime.fromisoformat(str(value))) for value in found if value is not None]
    if not stamps:
        raise ShopError("the shop has no orders and no customers: `plumb shop load` loads the real ones")
    return min(stamps).replace(hour=0, minute=0, second=0, microsecond=0)


def _first_record(shop: Connection, product: Product, found: landing_gates.Shown) -> datetime:
    """The same of a shop that may break its contract: its times may not be there, or not be times; BEGINNING then."""
    if any(RECORDED not in found.names.get(table, {}) for table in product.sources):
        return BEGINNING
    try:
        return first_record(shop, product)
    except (ValueError, ShopError):
        return BEGINNING


def _told_window(start: datetime, run: StageRun) -> str:
    return f"{start.date()} to {run.as_of}" if start.date() < run.as_of else str(run.as_of)


def _settle_dlt() -> None:
    """dlt's own settings, read when it is imported: quiet (it raises what it logs), no telemetry, nothing in ~.

    Its memory of columns is left aside: it would write a column that was dropped again, as nulls.
    """
    os.environ |= {
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": str(settings().home / "dlt"),
        "RESTORE_FROM_DESTINATION": "false",
    }


def _pipeline_run(resources: list[Any]) -> None:
    import dlt

    home = settings().home
    pipeline = dlt.pipeline(
        pipeline_name="shop",
        pipelines_dir=str(home / "dlt"),
        destination=_destination(),
        dataset_name="raw",
    )
    pipeline.drop()  # windows are stated by the run, so nothing of a run that was killed may be picked up
    pipeline.run(resources, table_format="delta", write_disposition="append")


def _destination() -> Any:
    """The lake as dlt writes to it. In S3 dlt finds the keys by itself, in the environment."""
    import dlt

    more: dict[str, Any] = {}
    if s3.holds(settings().lake_uri):
        from dlt.common.configuration.specs import AwsCredentials

        more = {
            "credentials": AwsCredentials(endpoint_url=s3.endpoint(), region_name=s3.region()),
            "deltalake_storage_options": lake.storage_options(),
        }
    return dlt.destinations.filesystem(settings().lake_uri, deltalake_configuration=lake.KEEP_LOG, **more)


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


def _resource(
    product: str,
    table: str,
    key: str,
    start: datetime,
    end: datetime,
    batch: str,
    rejected: list[str],
    source: Engine | None = None,
) -> Any:
    """A table's window as dlt reads it, from the shop or from another database of the same tables."""
    from dlt.sources.sql_database import sql_table

    landed = _landed_keys(table, key, start - LOOKBACK if source is None else BEGINNING, rejected)

    def window(query: Any, shown: Any) -> Any:
        stamp = shown.c[RECORDED]
        opens, ends = as_stored(stamp.type, start - LOOKBACK), as_stored(stamp.type, end)
        inside = query.where(stamp < ends) if source is not None else query.where(stamp >= opens, stamp < ends)
        return inside.order_by(shown.c[key])

    resource = sql_table(
        credentials=engine() if source is None else source,
        table=table,
        backend="pyarrow",
        reflection_level="full",
        query_adapter_callback=window,
    )
    resource.apply_hints(
        columns={name: {"name": name, "data_type": "timestamp", "timezone": True} for name in _stamps(table)}
    )
    return resource.add_map(_stamper(product, table, key, landed, start, batch))


def _stamps(table: str) -> list[str]:
    """Columns that hold an instant: with a zone, or in UTC when the shop stores none."""
    return [column.name for column in contracts.shop(table).columns.values() if column.kind == "timestamp"]


def _stamper(
    product: str, table: str, key: str, landed: pa.Array, start: datetime, batch: str
) -> Callable[[pa.Table], pa.Table]:
    """Leaves out what has landed, fills both names of a column in a notice, adds known_at, batch_id and loaded_at."""
    twice, retired = dual_write.doubled(product, table), dual_write.retired(product, table)

    def stamp(rows: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = rows.filter(pc.invert(pc.is_in(rows[key], value_set=landed)))
        rows = dual_write.filled(rows.drop_columns([c for c in retired if c in rows.column_names]), twice)
        instant = pa.timestamp("us", tz="UTC")
        for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
            if pa.types.is_timestamp(kind):
                utc = rows[name].cast(pa.timestamp("us")).cast(instant) if kind.tz is None else rows[name].cast(instant)
                rows = rows.set_column(rows.column_names.index(name), name, utc)
        opened = pa.scalar(start, instant)
        known = pc.if_else(pc.less(rows[RECORDED], opened), opened, rows[RECORDED])
        return (
            rows.append_column("known_at", known)
            .append_column("batch_id", pa.repeat(batch, len(rows)))
            .append_column("loaded_at", pa.repeat(pa.scalar(clock.now(), instant), len(rows)))
        )

    return stamp


def _batch_id(product: Product, window: str, rejected: list[str]) -> str:
    """The window's name; with a number behind it when earlier batches of the same window were kept out."""
    earlier = len(quarantine.attempts(product, window, rejected))
    return f"{window}#{earlier + 1}" if earlier else window


def _landed_rows(table: str, batch: str) -> int:
    import pyarrow.compute as pc

    return int(lake.open_table(table).to_pyarrow_dataset().count_rows(filter=pc.field("batch_id") == batch))


def _sent_keys(
    shop: Connection, table: str, found: landing_gates.Shown, start: datetime, end: datetime, rejected: list[str]
) -> set[int]:
    """The keys that the shop shows and that have not landed, in the window and behind it: asked before it is read."""
    import sqlalchemy as sa

    key = contracts.shop(table).key[0]
    inside = source_checks.in_window(found.types[table][RECORDED], RECORDED, start - LOOKBACK, end)
    shown: set[int] = set(shop.scalars(sa.select(sa.column(key)).select_from(sa.table(table)).where(inside)))
    return shown - set(_landed_keys(table, key, start - LOOKBACK, rejected).to_pylist())


def _landed_keys(table: str, key: str, since: datetime, rejected: list[str]) -> pa.Array:
    """The keys landed with `recorded_at` at or after `since`, in batches that were not rejected."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if lake.version(f"raw.{table}") is None:
        return pa.array([], pa.int64())
    found = lake.open_table(f"raw.{table}").to_pyarrow_table(
        columns=[key, "batch_id"], filters=[(RECORDED, ">=", since)]
    )
    accepted = found.filter(pc.invert(pc.is_in(found["batch_id"], value_set=pa.array(rejected, pa.string()))))
    return accepted[key].combine_chunks()


def _utc(stamp: datetime) -> datetime:
    return stamp.astimezone(UTC) if stamp.tzinfo else stamp.replace(tzinfo=UTC)
