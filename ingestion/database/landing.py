"""Landing: what the shop recorded in one window goes, once, into the append-only Delta tables `raw.*`.

The window runs from where the last landing ended to the end of the as-of day: a day in the daily run, all of history
in the first. It is a window over `recorded_at`, so an order dated earlier that turns up today lands today. What the
shop shows is held against all of raw by key (changes.py). So a row that turned up behind the window lands too, and so
does another version of a row, or that it was deleted. Each gets the window's start as `known_at` if it was recorded
before: nobody could have known it earlier.

The shop's contracts are held against what it shows before anything is read (landing_gates.py). A batch that breaks
one goes whole into quarantine instead. What was sent is counted before it is read: landed and quarantined rows
together must be as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ingestion.database import (
    changes,
    daily_rows,
    dlt_runs,
    dual_write,
    landing_gates,
    marks,
    quarantine,
    rows_read,
    set_aside,
    source_checks,
    source_schema,
    table_rules,
)
from ingestion.database import quarantine_replay as replay
from ingestion.database.keys import said
from ingestion.database.source import ShopError, connected, engine
from ingestion.database.source_checks import BEGINNING, LOOKBACK
from plumbline import clock, observed
from plumbline.contracts import contract as contracts
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.product import Product
from plumbline.progress import say
from plumbline.shop import loading

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine


def land(run: StageRun) -> str:
    """Lands both tables' windows. The same window twice lands once.

    Raises GateFailed when the shop breaks its contract (the batch is in quarantine then) or rows got lost on the way,
    ShopError, ServiceUnavailable.
    """
    dlt_runs.settle()
    _refuse_strangers(run)
    tables, rejected = run.product.sources, run.candidate.rejected
    database = engine()
    source_checks.refuse_absent(database.url)
    try:
        with connected(database) as connection:
            shown = landing_gates.look(connection, run.product)
            opened, end = landed_until(run), clock.end_of(run.as_of)
            start = opened or _first_record(connection, run.product, shown, end)

            exempt = quarantine.let_in_keys(run.product)

            def due(table: str) -> changes.Due:
                return changes.due(connection, table, shown.names[table], end, rejected, exempt.get(table))

            let_in, found = landing_gates.hold_to_contract(run, connection, shown, start, end, due)
            start = opened or first_record(connection, run.product, shown, end)
            starts = {t: _opens(connection, run, t, shown, start) for t in tables}
            daily_rows.hold(run, found, starts, let_in=let_in is not None)
    finally:
        database.dispose()
    if start >= end:
        raise ShopError(f"--as-of {run.as_of}: the shop's first record is of {start.date()}, there is nothing to land")
    window = _window_name(start, run)
    batch = _batch_id(run.product, f"{start.date()}..{run.as_of}", rejected)
    dropped = [change for table in tables for change in dual_write.drop_old(run.product.name, table)[1]]
    say(f"landing what the shop recorded: {window}")
    landings = [
        Landing(run, found[table], source_schema.landing_columns(table, shown.seen), starts[table], end, batch)
        for table in tables
    ]
    with dlt_runs.shop_at_hand(run.product, run.as_of):
        dlt_runs.write([landing.resource() for landing in landings])
    if let_in is not None:
        say("landing what is let in from quarantine")
        try:
            dlt_runs.write([landing.resource(let_in) for landing in landings])
        finally:
            replay.dispose(let_in)
    for landing in landings:
        _land_deletions(landing)
    renamed = []
    for table, raw in zip(tables, run.product.raw, strict=True):
        observed.read(f"shop.{table}")
        run.write(raw, _head(raw, table), _landed_rows(raw, batch))
        renamed += dual_write.begin(run.product.name, table)
    run.facts |= {"batch_id": batch, "landed_until": end.isoformat()}
    run.facts["schema_changes"] = [*run.facts.get("schema_changes", []), *dropped, *renamed]
    in_quarantine = landing_gates.count(run, found, _still_due(run, tables, found), batch, start)
    table_rules.hold(run)
    return _summary(run, window, batch, in_quarantine, dropped)


def _refuse_strangers(run: StageRun) -> None:
    """Raises GateFailed for rows in raw that no run wrote: nothing is built on them."""
    if told := set_aside.strangers(run.product):
        raise GateFailed("\n  ".join(["raw is not what was landed, nothing was read:", *told]), sets_aside=False)


def _still_due(run: StageRun, tables: Iterable[str], found: Mapping[str, changes.Due]) -> dict[str, set[Any]]:
    """Of the keys that had to land, those that raw still lacks in the version that the shop showed."""
    rest: dict[str, set[Any]] = {}
    for table in tables:
        before, rows = changes.standing(table, run.candidate.rejected), found[table].rows
        rest[table] = set(changes.values(changes.unlanded(rows, before, before.slice(0, 0)), found[table].key))
    return rest


def _head(raw: str, table: str) -> int:
    """The version of a raw table that the landing came to; one without rows is made of the contract alone."""
    head = lake.version(raw)
    if head is None:
        from deltalake import write_deltalake

        say(f"the shop has no {table} recorded yet: {raw} is made, empty")
        write_deltalake(
            lake.uri(raw),
            changes.empty(table),
            configuration=dict(lake.KEEP_LOG),
            storage_options=lake.storage_options(),
        )
        head = lake.version(raw) or 0
    return head


def _land_deletions(landing: Landing) -> None:
    """Lands that the shop does not show keys any more, once: run again, raw has them as deleted already."""
    if not len(landing.due.deleted):
        return
    import dlt

    rows = changes.deletions(landing.due, landing.start, landing.batch, landing.run.candidate.rejected)
    dlt_runs.write([dlt.resource([rows], name=landing.due.table)])


def _summary(run: StageRun, window: str, batch: str, in_quarantine: int, dropped: list[dict[str, Any]]) -> str:
    """One sentence: what landed, what of it was changed or deleted, and what else became of what was sent."""
    seen = {table: changes.counted(table, batch, run.candidate.rejected) for table in run.product.sources}
    run.facts["changes"] = {t: {kind: len(keys) for kind, keys in kinds.items()} for t, kinds in seen.items()}
    parts = []
    for table, kinds in seen.items():
        for kind, told in (("changed", "recorded again"), ("deleted", "deleted by the shop")):
            if keys := kinds[kind]:
                key, some = ", ".join(contracts.shop(table).key), ", ".join(map(said, keys[:3]))
                parts.append(f"{len(keys):,} of the {table} {told}, such as {key} {some}")
    counted = " and ".join(
        f"{run.rows[raw]:,} {table}" for table, raw in zip(run.product.sources, run.product.raw, strict=True)
    )
    changed = f"; {'; '.join(parts)}" if parts else ""
    rest = (
        f"; of what was sent, {in_quarantine:,} rows stay in quarantine"
        if in_quarantine
        else "; that is all that was sent"
    )
    gone = "".join(f"; dropped raw.{c['table']}.{c['column']}" for c in dropped)
    return f"landed {counted} ({window}){changed}{rest}{gone}"


def landed_until(run: StageRun) -> datetime | None:
    """Where the base release's landing ended: the end of its day. None before the first release."""
    return clock.end_of(run.base.as_of) if run.base else None


def _opens(shop: Connection, run: StageRun, table: str, shown: landing_gates.Shown, start: datetime) -> datetime:
    """Where a table's own window opens: that of a table which the base release does not have, at its first record.

    Its whole history lands then, each row known from when it was recorded, as in a home's first run.
    """
    if run.base is None or f"raw.{table}" in run.base.tables:
        return start
    first = source_checks.first_recorded(shop, table, shown.types[table])
    return start if first is None else min(start, first)


def first_record(shop: Connection, product: Product, shown: landing_gates.Shown, end: datetime) -> datetime:
    """00:00 UTC of the day of the shop's first record, at the latest the last day before `end` where a table has no
    times. Raises ShopError when it has none."""
    firsts = [source_checks.first_recorded(shop, table, shown.types[table]) for table in product.sources]
    if None in {contracts.shop(table).recorded for table in product.sources}:
        firsts.append(end - timedelta(days=1))
    stamps = [first for first in firsts if first is not None]
    if not stamps:
        raise ShopError(f"the shop has no rows in {', '.join(product.sources)}{loading()}")
    return min(stamps).replace(hour=0, minute=0, second=0, microsecond=0)


def _first_record(shop: Connection, product: Product, found: landing_gates.Shown, end: datetime) -> datetime:
    """The same of a shop that may break its contract: its times may not be there, or not be times; BEGINNING then."""
    named = {table: contracts.shop(table).recorded for table in product.sources}
    if any(name is not None and name not in found.names.get(table, {}) for table, name in named.items()):
        return BEGINNING
    try:
        return first_record(shop, product, found, end)
    except (ValueError, ShopError):
        return BEGINNING


def _window_name(start: datetime, run: StageRun) -> str:
    return f"{start.date()} to {run.as_of}" if start.date() < run.as_of else str(run.as_of)


@dataclass(frozen=True)
class Landing:
    """One table's part of a landing: what is due of it, its columns, its window, and the batch that it lands as."""

    run: StageRun
    due: changes.Due
    columns: list[str]
    start: datetime
    end: datetime
    batch: str

    def resource(self, let_in: Engine | None = None) -> Any:
        """The rows as dlt reads them, from the shop or from another database of the same tables."""
        from dlt.sources.sql_database import sql_table

        table, key = self.due.table, self.due.key
        late = self.due.late(self.start - LOOKBACK)
        contract, database = contracts.shop(table), engine() if let_in is None else let_in
        dialect = database.dialect.name

        def window(query: Any, shown: Any) -> Any:
            types = {column.name: column.type for column in shown.c}
            start = late.start if let_in is None else source_checks.EARLIEST
            inside = source_checks.recorded_in(contract, types, start, self.end)
            if let_in is not None:
                return query.where(inside).order_by(*(shown.c[name] for name in key))
            return query.where(late.condition(inside, shown.c)).order_by(*(shown.c[name] for name in key))

        def typed(shown: Any) -> None:
            for column in shown.c:
                column.type = source_schema.declared_type(contract, column.name, column.type, dialect)

        resource = sql_table(
            credentials=database,
            table=table,
            backend="pyarrow",
            reflection_level="full",
            table_adapter_callback=typed,
            query_adapter_callback=window,
            type_adapter_callback=source_checks.base_type,
            included_columns=self.columns if let_in is None else None,
        )
        resource.apply_hints(
            columns={name: {"name": name, "data_type": "timestamp", "timezone": True} for name in _stamps(table)}
        )
        return resource.add_map(self.stamper(whole=let_in is not None))

    def stamper(self, whole: bool) -> Callable[[pa.Table], pa.Table]:
        """Leaves out what has landed, fills both names of a column in a notice, adds what landing adds.

        Of rows that are let in from quarantine (`whole`), every key that raw has is left out.
        """
        table, product, rejected = self.due.table, self.run.product.name, self.run.candidate.rejected
        twice, retired = dual_write.doubled(product, table), dual_write.retired(product, table)
        before = changes.standing(table, rejected) if whole else self.due.before  # what is let in comes second
        known = changes.recent(table, rejected, self.start - LOOKBACK)
        known = known.drop_columns([n for r in twice for n in (r.old, r.new) if n in known.column_names])
        instant = _instant()

        def stamp(rows: pa.Table) -> pa.Table:
            import pyarrow as pa
            import pyarrow.compute as pc

            rows = dual_write.filled(rows.drop_columns([c for c in retired if c in rows.column_names]), twice)
            for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
                if pa.types.is_timestamp(kind):
                    plain = rows[name].cast(pa.timestamp("us")) if kind.tz is None else rows[name]
                    rows = rows.set_column(rows.column_names.index(name), name, plain.cast(instant))
            rows = marks.marked(rows, table, self.end)
            rows = changes.without(rows, before) if whole else changes.unlanded(rows, before, known)
            rows = rows.drop_columns([c for c in rows.column_names if c == marks.DIGEST])
            rows_read.refuse_broken(rows, table, self.run.as_of)
            counted = rows_read.counted_from(rows, table)
            opened = pa.scalar(self.start, instant)
            added = {
                "known_at": pc.if_else(pc.less(counted, opened), opened, counted),
                "batch_id": pa.repeat(self.batch, len(rows)),
                "loaded_at": pa.repeat(pa.scalar(clock.now(), instant), len(rows)),
                changes.DELETED: pa.nulls(len(rows), instant),
            }
            for name, column in added.items():
                if name != changes.DELETED or name not in rows.column_names:
                    rows = rows.append_column(name, column)
            return rows

        return stamp


def _instant() -> Any:
    """The type of every instant in raw: microseconds, UTC."""
    import pyarrow as pa

    return pa.timestamp("us", tz="UTC")


def _stamps(table: str) -> list[str]:
    """Columns that hold an instant: with a zone, or in UTC when the shop stores none."""
    return [column.name for column in contracts.shop(table).columns.values() if column.kind == "timestamp"]


def _batch_id(product: Product, window: str, rejected: list[str]) -> str:
    """The window's name; with a number behind it when earlier batches of the same window were kept out."""
    earlier = len(quarantine.attempts(product, window, rejected))
    return f"{window}#{earlier + 1}" if earlier else window


def _landed_rows(table: str, batch: str) -> int:
    import pyarrow.compute as pc

    return int(lake.open_table(table).to_pyarrow_dataset().count_rows(filter=pc.field("batch_id") == batch))
