"""What of the shop's rows has to land: its keys and times of recording, all of them, held against what raw has.

A row is a version: of one key, at one `recorded_at`, or with one digest where no column says when (marks.py). It lands
when raw does not have the key, when the shop recorded it again, at whatever time, or when it has the key as deleted. A
key that raw has and the shop does not show any more was deleted; that lands too, as a version with `deleted_at`. Rows
of the days before the window are compared by value as well, so a correction that did not move `recorded_at` is seen
there; behind them it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ingestion.database import source_checks
from ingestion.database.keys import as_raw
from ingestion.database.marks import DIGEST, FETCHED, digests, mark, mark_of
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import LANDING, RECORDED, VERSION_ORDER
from plumbline.lake import tables as lake

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

DELETED = "deleted_at"
PLACE, STANDS, KNOWN, WAS_RECORDED, WAS_DELETED = "#place", "#stands", "#known", "#was recorded", "#was deleted"
"""Columns for joining rows of the shop with rows of raw. No column that lands has such a name."""

MOST_BY_KEY = 500
"""Rows recorded before the window are asked for by key; of more, the window is opened as far back as they reach."""


@dataclass(frozen=True)
class Due:
    """What of one table has to land: `rows` (its key and mark) that are new or recorded again, and the keys that the
    shop `deleted`; `before` is what raw had, as `standing` gives it."""

    table: str
    rows: pa.Table
    deleted: pa.Table
    before: pa.Table

    @property
    def standing(self) -> int:
        """How many keys raw had that were not deleted."""
        return int(self.before[DELETED].null_count)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the table's key."""
        return contracts.shop(self.table).key

    def keys(self) -> set[Any]:
        """The keys of `rows`: values, or tuples of values where the key has several columns."""
        return set(values(self.rows, self.key))

    def late(self, moment: datetime) -> Late:
        """Those of `rows` that the shop recorded before a moment: by key, or by how far back they reach."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if contracts.shop(self.table).recorded is None:
            keys = None if len(self.rows) > MOST_BY_KEY else list(self.rows.select(list(self.key)).to_pylist())
            return Late(moment, keys, timeless=True)
        late = self.rows.filter(pc.less(self.rows[RECORDED], pa.scalar(moment, pa.timestamp("us", tz="UTC"))))
        if len(late) > MOST_BY_KEY:
            first = pc.min(late[RECORDED]).as_py()
            return Late(first.replace(microsecond=0), [])  # a window's ends are whole seconds
        return Late(moment, list(late.select(list(self.key)).to_pylist()))


@dataclass(frozen=True)
class Late:
    """Which rows are read: those recorded from `start` on, and those with one of `keys` whenever that was.

    Of a table that does not say when (`timeless`): those with one of `keys` alone, or all where there are too many.
    """

    start: datetime
    keys: list[dict[str, Any]] | None
    timeless: bool = False

    def condition(self, inside: sa.ColumnElement[bool], columns: Any) -> sa.ColumnElement[bool]:
        """`inside`, or one of the keys; `columns` finds a column by the contract's name."""
        import sqlalchemy as sa

        if self.timeless:
            inside = sa.true() if self.keys is None else sa.false()
        if not self.keys:
            return inside
        names = list(self.keys[0])
        if len(names) == 1:
            return sa.or_(inside, columns[names[0]].in_([row[names[0]] for row in self.keys]))
        rows = [tuple(row[name] for name in names) for row in self.keys]
        return sa.or_(inside, sa.tuple_(*(columns[name] for name in names)).in_(rows))


def values(rows: pa.Table, key: tuple[str, ...]) -> list[Any]:
    """The keys of rows, as values, or as tuples where the key has several columns."""
    columns = [rows[name].to_pylist() for name in key]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def due(
    shop: sa.Connection, table: str, names: dict[str, str], end: datetime, rejected: list[str], exempt: pa.Table | None
) -> Due:
    """Holds the whole table's keys against raw: what was recorded before `end` and has to land, and what was deleted.

    `names` has the shop's names of the contract's columns; `exempt` keys that came from quarantine alone, which the
    shop need not show.
    """
    import pyarrow.compute as pc

    contract = contracts.shop(table)
    key, version = list(contract.key), mark(contract)
    before = standing(table, rejected)
    shown = _shown(shop, table, names, before.schema)
    held = before.rename_columns([*key, WAS_RECORDED, WAS_DELETED]).append_column(STANDS, _true(len(before)))
    here = shown
    if contract.recorded:
        here = shown.filter(pc.less(pc.fill_null(shown[RECORDED], source_checks.BEGINNING), end))
    joined = here.join(held, key, join_type="left outer")
    lands = pc.or_(
        pc.invert(pc.fill_null(joined[STANDS], False)),
        pc.or_(
            pc.is_valid(joined[WAS_DELETED]),
            pc.fill_null(pc.not_equal(joined[version], joined[WAS_RECORDED]), True),
        ),
    )
    rows = joined.filter(lands).select([*key, version])
    alive = before.filter(pc.is_null(before[DELETED])).select(key)
    deleted = alive.join(shown.select(key), key, join_type="left anti")
    if exempt is not None and len(exempt):
        deleted = deleted.join(exempt.cast(deleted.schema), key, join_type="left anti")
    return Due(table, rows, deleted.sort_by([(name, "ascending") for name in key]), before)


def standing(table: str, rejected: list[str]) -> pa.Table:
    """The newest version of each key in raw, in batches that count: key, `recorded_at` or digest, `deleted_at`."""
    import pyarrow as pa

    contract = contracts.shop(table)
    names = [*contract.key, mark(contract), DELETED]
    if lake.version(f"raw.{table}") is None:
        return _schema(contract, names).empty_table()
    if contract.recorded is None:
        there = set(lake.open_table(f"raw.{table}").to_pyarrow_dataset().schema.names)
        columns = [name for column in contract.columns for name in contract.accepted(column) if name in there]
        rows = _accepted(table, rejected, list(dict.fromkeys([*contract.key, *columns, DELETED, *VERSION_ORDER])))
        rows = _newest(rows, list(contract.key), [*(n for n in columns if n not in contract.key), DELETED])
        return rows.append_column(DIGEST, digests(contract, rows)).select(names)
    rows = _accepted(table, rejected, [*names, *VERSION_ORDER])
    newest = _newest(rows, list(contract.key), [RECORDED, DELETED])
    stamp = pa.timestamp("us", tz="UTC")
    for at, name in enumerate((RECORDED, DELETED), len(contract.key)):
        newest = newest.set_column(at, name, newest[name].cast(stamp))
    return newest


def recent(table: str, rejected: list[str], since: datetime) -> pa.Table:
    """The newest versions of the keys recorded since then, with the columns that the contract promises."""
    contract = contracts.shop(table)
    if lake.version(f"raw.{table}") is None or contract.recorded is None:
        return _schema(contract, list(dict.fromkeys([*contract.key, *contract.columns]))).empty_table()
    there = set(lake.open_table(f"raw.{table}").to_pyarrow_dataset().schema.names)
    names = [name for name in contract.columns if name in there and name not in contract.key]
    rows = _accepted(table, rejected, [*contract.key, *names, *VERSION_ORDER], since)
    return _newest(rows, list(contract.key), names)


def deletions(found: Due, start: datetime, batch: str, rejected: list[str]) -> pa.Table:
    """The rows that say in raw what the shop deleted: each as it was, known from the window's `start` on."""
    import pyarrow as pa

    key, name = list(found.key), f"raw.{found.table}"
    columns = [c for c in lake.open_table(name).to_pyarrow_dataset().schema.names if not c.startswith("_dlt_")]
    rows = _accepted(found.table, rejected, list(dict.fromkeys([*columns, *VERSION_ORDER])))
    placed = rows.select(key).append_column(PLACE, pa.array(range(len(rows)), pa.int64()))
    rows = rows.take(placed.join(found.deleted, key, join_type="left semi").sort_by(PLACE)[PLACE])
    rows = _newest(rows, key, [name for name in columns if name not in {*key, *LANDING}])
    stamp = pa.timestamp("us", tz="UTC")
    added = {"known_at": start, "loaded_at": clock.now(), DELETED: start}
    for column, value in added.items():
        rows = rows.append_column(column, pa.repeat(pa.scalar(value, stamp), len(rows)))
    return rows.append_column("batch_id", pa.repeat(pa.scalar(batch, pa.string()), len(rows)))


def unlanded(rows: pa.Table, before: pa.Table, known: pa.Table) -> pa.Table:
    """Of rows as they were read, those that raw does not have as they are. `before` and `known` are of `standing` and
    `recent`; a version recorded at the same time is another one when a promised column differs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = before.schema.names[:-2]
    compared = [name for name in known.column_names if name in rows.column_names and name not in key]
    place = pa.array(range(len(rows)), pa.int64())
    asked = rows.select(key).append_column(PLACE, place)
    asked = asked.cast(pa.schema([*(before.schema.field(name) for name in key), asked.schema.field(PLACE)]))
    held = before.rename_columns([*key, WAS_RECORDED, WAS_DELETED]).append_column(STANDS, _true(len(before)))
    found = asked.join(held, key, join_type="left outer").sort_by(PLACE)
    stands = pc.fill_null(found[STANDS], False)
    same_time = pc.fill_null(pc.equal(rows[before.schema.names[-2]], found[WAS_RECORDED]), False)
    landed = pc.and_(pc.and_(stands, pc.is_null(found[WAS_DELETED])), same_time)
    if compared:
        old = known.rename_columns([*key, *(_was(name) for name in known.column_names[len(key) :])])
        old = asked.join(old.append_column(KNOWN, _true(len(old))), key, join_type="left outer").sort_by(PLACE)
        differs = pa.chunked_array([pa.repeat(False, len(rows))])
        for name in compared:
            differs = pc.or_(differs, _differ(rows[name], old[_was(name)]))
        landed = pc.and_(landed, pc.invert(pc.and_(pc.fill_null(old[KNOWN], False), differs)))
    return rows.filter(pc.invert(landed))


def without(rows: pa.Table, before: pa.Table) -> pa.Table:
    """Of rows, those whose key raw has in no version that counts."""
    import pyarrow as pa

    key = before.schema.names[:-2]
    asked = rows.select(key).append_column(PLACE, pa.array(range(len(rows)), pa.int64()))
    asked = asked.cast(pa.schema([*(before.schema.field(name) for name in key), asked.schema.field(PLACE)]))
    return rows.take(asked.join(before.select(key), key, join_type="left anti").sort_by(PLACE)[PLACE])


def counted(table: str, batch: str, rejected: list[str]) -> dict[str, list[Any]]:
    """Of a landed batch, the keys that raw had before (`changed`) and those that it takes out (`deleted`)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = list(contracts.shop(table).key)
    rows = _accepted(table, rejected, [*key, DELETED, "batch_id"])
    mine = pc.equal(rows["batch_id"], pa.scalar(batch, rows["batch_id"].type))
    landed, others = rows.filter(mine), rows.filter(pc.invert(mine)).select(key)
    gone = landed.filter(pc.is_valid(landed[DELETED]))
    again = landed.filter(pc.is_null(landed[DELETED])).select(key).join(others, key, join_type="left semi")
    order = [(name, "ascending") for name in key]
    return {
        "changed": values(again.sort_by(order), tuple(key)),
        "deleted": values(gone.select(key).sort_by(order), tuple(key)),
    }


def _was(name: str) -> str:
    """What a promised column of raw is called beside the one that was read."""
    return f"#was {name}"


def _differ(new: Any, old: Any) -> Any:
    """Where two columns hold other values; missing equals missing, NaN equals NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if new.type != old.type:
        new = new.cast(old.type, safe=False)
    same = pc.or_(pc.fill_null(pc.equal(new, old), False), pc.and_(pc.is_null(new), pc.is_null(old)))
    if pa.types.is_floating(old.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(new), pc.is_nan(old)), False))
    return pc.invert(same)


def _accepted(table: str, rejected: list[str], names: list[str], since: datetime | None = None) -> pa.Table:
    """Columns of raw's rows in batches that count; a column that raw does not have yet is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    dataset = lake.open_table(f"raw.{table}").to_pyarrow_dataset()
    chosen = ~pc.field("batch_id").isin(pa.array(rejected, pa.string()))
    if since is not None:
        chosen = chosen & (pc.field(RECORDED) >= since)
    there = [name for name in dict.fromkeys(names) if name in dataset.schema.names]
    rows = dataset.to_table(columns=there, filter=chosen)
    for name in names:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.timestamp("us", tz="UTC")))
    return rows


def _newest(rows: pa.Table, key: list[str], names: list[str]) -> pa.Table:
    """The last version of each key: the key's columns, then these."""
    import pyarrow as pa

    ordered = rows.sort_by([(name, "ascending") for name in VERSION_ORDER])
    placed = ordered.select(key).append_column(PLACE, pa.array(range(len(rows)), pa.int64()))
    newest = placed.group_by(key, use_threads=False).aggregate([(PLACE, "max")])[f"{PLACE}_max"]
    return ordered.select([*key, *names]).take(newest)


def _shown(shop: sa.Connection, table: str, names: dict[str, str], schema: pa.Schema) -> pa.Table:
    """The key and mark of every row that the shop has, as raw would hold them.

    A row whose key is no key is left out, and a time that is none is null: the gate on records names both.
    """
    import pyarrow as pa
    import sqlalchemy as sa

    contract = contracts.shop(table)
    key, others = list(contract.key), [contract.recorded] if contract.recorded else list(contract.columns)

    def readable(name: str) -> sa.ColumnElement[Any]:
        value: sa.ColumnElement[Any] = sa.column(names[name])
        bad = source_checks.unreadable(value, contract.columns[name].kind, shop.dialect.name)
        return value if bad is None or name in key else sa.case((bad, sa.null()), else_=value)

    columns = [*(sa.column(names[name]) for name in key), *map(readable, others)]
    query = sa.select(*columns).select_from(sa.table(table))
    fields = [schema.field(name) for name in (*key, mark(contract))]
    parts = [pa.Table.from_pydict({field.name: [] for field in fields}, schema=pa.schema(fields))]
    result = shop.execution_options(stream_results=True).execute(query)
    for part in result.partitions(FETCHED):
        found = list(zip(*as_raw(part, fields, mark_of(contract)), strict=True)) or [() for _ in fields]
        arrays = [pa.array(column, field.type) for column, field in zip(found, fields, strict=True)]
        parts.append(pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    return pa.concat_tables(parts)


def _schema(contract: contracts.Contract, names: list[str]) -> pa.Schema:
    """The columns as raw holds them."""
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    kinds = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "date": pa.date32(),
        "timestamp": stamp,
        "string": pa.string(),
        "boolean": pa.bool_(),
    }
    kinds |= {name: kinds[column.kind] for name, column in contract.columns.items()} | {DIGEST: pa.binary()}
    return pa.schema([(name, kinds.get(name, stamp)) for name in names])


def empty(table: str) -> pa.Table:
    """A table of the shop without rows, as raw would hold it."""
    import pyarrow as pa

    contract = contracts.shop(table)
    names = dict.fromkeys([*contract.columns, RECORDED, "known_at", "loaded_at", DELETED])
    rows = _schema(contract, list(names)).empty_table()
    return rows.append_column("batch_id", pa.array([], pa.string()))


def _true(count: int) -> pa.Array:
    import pyarrow as pa

    return pa.repeat(True, count)
