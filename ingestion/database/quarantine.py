"""Quarantine: batches that broke a contract at landing, kept whole as the shop showed them, until they are let in.

`quarantine/<product>/<batch>/` holds a Parquet file for each of the shop's tables, with all the columns that it had,
and `reason.json`, written last. Nothing there is ever changed or removed. A row of it is *held* as long as no row with
its key is in raw, in a batch that counts. Batches that a later gate set aside (`rejected/<product>/`) are in raw
itself; both kinds are listed here, and both are let in by the same `plumb quarantine replay`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import LANDING
from plumbline.errors import PlumblineError, Unreadable
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.state import candidates, objects, releases

if TYPE_CHECKING:
    import pyarrow as pa

REASON, REPLAY = "reason.json", "replay.json"


class QuarantineError(PlumblineError):
    """There is no such batch, or nothing of it is held."""


@dataclass(frozen=True)
class Batch:
    """One batch that was kept out. `kind` is schema or records (stopped at landing), or gate (stopped later).

    `end` is that of its window; None for a batch that a later gate set aside, whose rows are in raw.
    """

    product: Product
    batch_id: str
    kind: str
    at: str
    why: str
    rows: dict[str, int]
    end: datetime | None = None
    marked: bool = False

    def table(self, name: str) -> pa.Table:
        """Its rows of a table: as the shop showed them, or for kind gate as they landed, without landing's columns."""
        import pyarrow.compute as pc

        if self.kind != "gate":
            return _rows(_key(self.product, self.batch_id, f"{name}.parquet"))
        found = (
            lake.open_table(f"raw.{name}").to_pyarrow_dataset().to_table(filter=pc.field("batch_id") == self.batch_id)
        )
        return found.drop_columns([c for c in found.column_names if c in LANDING or c.startswith("_dlt_")])


def where(product: Product, batch_id: str) -> str:
    """The folder of a quarantined batch, or its URL."""
    return objects.where(_key(product, batch_id, REASON)).removesuffix(f"/{REASON}")


def attempts(product: Product, window: str, rejected: Iterable[str]) -> list[str]:
    """The batches of a window that were kept out so far, by quarantine or by a gate, oldest first."""
    found = {batch for batch in rejected if _window(batch) == window}
    found |= {batch_id for batch_id in _having(product, REASON) if _window(batch_id) == window}
    return sorted(found, key=_number)


def put(
    product: Product,
    window: str,
    rejected: Iterable[str],
    tables: Mapping[str, tuple[list[str], Sequence[Sequence[Any]]]],
    reason: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Keeps a batch whole; its id, and what its reason.json says. The same rows and reason again change nothing.

    `tables` are columns and rows of each. Raises QuarantineError when not every row can be read back.
    """
    import pyarrow as pa

    digest = hashlib.sha256(repr(reason["broke"]).encode())
    for name, (columns, rows) in sorted(tables.items()):
        digest.update(repr((name, columns, sorted(map(repr, rows)))).encode())
    earlier = attempts(product, window, rejected)
    if earlier:
        newest = objects.read_json(_key(product, earlier[-1], REASON))
        if newest and newest["digest"] == digest.hexdigest():
            return earlier[-1], newest
    batch_id = f"{window}#{len(earlier) + 1}" if earlier else window
    as_text = []
    for name, (columns, rows) in tables.items():
        made = {}
        for position, column in enumerate(columns):
            made[column], told = _array([row[position] for row in rows])
            as_text += [f"{name}.{column}"] if told else []
        key = _key(product, batch_id, f"{name}.parquet")
        _store(key, pa.table(made))
        kept = len(_rows(key))
        if kept != len(rows):
            raise QuarantineError(f"{objects.where(key)} holds {kept:,} rows of {len(rows):,}: run the same again")
    told_of = {
        **reason,
        "batch_id": batch_id,
        "at": clock.now().isoformat(),
        "rows": {name: len(rows) for name, (_, rows) in tables.items()},
        "as_text": as_text,
        "digest": digest.hexdigest(),
    }
    with suppress(objects.Exists):
        objects.create_json(_key(product, batch_id, REASON), told_of)
    return batch_id, told_of


def batches(product: Product) -> list[Batch]:
    """Every batch that was kept out, oldest window first."""
    asked_back = _having(product, REPLAY)
    found = [_quarantined(product, batch_id, batch_id in asked_back) for batch_id in _having(product, REASON)]
    found += [_set_aside(product, batch_id, batch_id in asked_back) for batch_id in candidates.rejected(product.name)]
    return sorted(found, key=lambda batch: (_window(batch.batch_id), _number(batch.batch_id)))


def marked(product: Product) -> list[Batch]:
    """The batches that the next landing may take in, oldest window first."""
    known = sorted(_having(product, REPLAY), key=lambda name: (_window(name), _number(name)))
    quarantined = _having(product, REASON) if known else []
    return [
        _quarantined(product, batch_id, True) if batch_id in quarantined else _set_aside(product, batch_id, True)
        for batch_id in known
    ]


def _quarantined(product: Product, batch_id: str, asked_back: bool) -> Batch:
    told = objects.read_json(_key(product, batch_id, REASON)) or {}
    return Batch(
        product,
        told["batch_id"],
        told["kind"],
        told["at"],
        "; ".join(told["broke"]),
        told["rows"],
        datetime.fromisoformat(told["end"]),
        asked_back,
    )


def _set_aside(product: Product, batch_id: str, asked_back: bool) -> Batch:
    if found := objects.read(candidates.rejected_key(product.name, batch_id)):
        at, why = found.written_at.isoformat(), found.json()["why"]
    else:
        at, why = releases.required(product.name).published_at, "only releases that were undone were built from it"
    return Batch(product, batch_id, "gate", at, why, _landed_as(product, batch_id), marked=asked_back)


def read(product: Product, batch_id: str) -> Batch:
    """One batch. Raises QuarantineError that names those there are."""
    known = {batch.batch_id: batch for batch in batches(product)}
    if batch_id not in known:
        raise QuarantineError(f"no batch {batch_id} was kept out; there are {', '.join(known) or 'none'}")
    return known[batch_id]


def reason(batch: Batch) -> dict[str, Any]:
    """All that was written down when it was kept out."""
    if batch.kind == "gate":
        return objects.read_json(candidates.rejected_key(batch.product.name, batch.batch_id)) or {}
    return objects.read_json(_key(batch.product, batch.batch_id, REASON)) or {}


def held(batch: Batch) -> dict[str, pa.Table]:
    """Its rows, by table, that are in no batch that counts: by key; a row that has no key that raw could have is."""
    import pyarrow as pa

    rows_by_table = {}
    for name in batch.rows:
        rows, landed = batch.table(name), landed_keys(batch.product, name)
        if (keys := keys_of(rows, name)) is not None:
            rows = rows.filter(pa.array([key not in landed for key in keys], pa.bool_()))
        rows_by_table[name] = rows
    return rows_by_table


def held_count(product: Product, table: str, since: datetime, shown: set[Any]) -> int:
    """How many different rows of a table are held in quarantine, of windows that end after `since`, and are no longer
    among what the shop shows (`shown`: their keys, or tuples of several columns)."""
    key, rows = contracts.shop(table).key, set()

    def of(row: Mapping[str, Any]) -> Any:
        return row.get(key[0]) if len(key) == 1 else tuple(row.get(name) for name in key)

    for batch_id in _having(product, REASON):
        batch = _quarantined(product, batch_id, False)
        if batch.end is None or batch.end <= since:
            continue
        rows |= {repr(sorted(row.items())) for row in held(batch)[table].to_pylist() if of(row) not in shown}
    return len(rows)


def landed_keys(product: Product, table: str) -> set[tuple[str, ...]]:
    """The keys in raw, in batches that count: as text, for a quarantined key may be of any type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if lake.version(f"raw.{table}") is None:
        return set()
    rows = lake.open_table(f"raw.{table}").to_pyarrow_table(columns=[*contracts.shop(table).key, "batch_id"])
    rejected = pa.array(candidates.rejected(product.name), pa.string())
    keys = keys_of(rows.filter(pc.invert(pc.is_in(rows["batch_id"], value_set=rejected))), table) or []
    return {key for key in keys if key is not None}


def keys_of(rows: pa.Table, table: str) -> list[tuple[str, ...] | None] | None:
    """The key of each row as text, one element a key column, None of a row that lacks a part of it.

    None in place of all where the rows lack one of these columns.
    """
    key = contracts.shop(table).key
    if not set(key) <= set(rows.column_names):
        return None
    values = zip(*(rows[name].to_pylist() for name in key), strict=True)
    return [None if None in parts else tuple(map(str, parts)) for parts in values]


def let_in_keys(product: Product) -> dict[str, pa.Table]:
    """By table, the keys of batches that were let in. The shop need not show them: they are not taken for deleted."""
    import pyarrow as pa

    found: dict[str, list[pa.Table]] = {}
    for batch in marked(product):
        for name in batch.rows:
            rows, key = batch.table(name), list(contracts.shop(name).key)
            if set(key) <= set(rows.column_names):
                found.setdefault(name, []).append(rows.select(key))
    return {name: pa.concat_tables(parts, promote_options="permissive") for name, parts in found.items()}


def unmark(batch: Batch) -> None:
    """Takes the word back that the next landing may take in what is held of a batch."""
    objects.delete(_key(batch.product, batch.batch_id, REPLAY))


def last_day(batch: Batch) -> date:
    """The last day of a batch's window."""
    return window_end(batch.batch_id)


def window_end(batch_id: str) -> date:
    """The last day of the window that a batch's id names. Raises QuarantineError when it names none."""
    try:
        return date.fromisoformat(_window(batch_id).partition("..")[2])
    except ValueError:
        raise QuarantineError(f"{batch_id}: expected a batch as in 1998-06-30..1998-06-30 or …#2") from None


def mark(batch: Batch) -> None:
    """Lets the next landing take in what is held of a batch."""
    told = {"batch_id": batch.batch_id, "asked_at": clock.now().isoformat()}
    with suppress(objects.Exists):
        objects.create_json(_key(batch.product, batch.batch_id, REPLAY), told)


def _array(values: list[Any]) -> tuple[pa.Array, bool]:
    """The values as one type, or as text where they are of several; and whether they are text for that reason."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        try:
            return pa.array(values), False
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    return pa.array([None if value is None else str(value) for value in values], pa.string()), True


def _landed_as(product: Product, batch_id: str) -> dict[str, int]:
    import pyarrow.compute as pc

    chosen = pc.field("batch_id") == batch_id
    return {
        name: int(lake.open_table(f"raw.{name}").to_pyarrow_dataset().count_rows(filter=chosen))
        for name in product.sources
        if lake.version(f"raw.{name}") is not None
    }


def _having(product: Product, name: str) -> list[str]:
    """The batches that have an object of that name, in order."""
    keys = objects.keys(f"quarantine/{product.name}")
    return sorted(key.split("/")[2] for key in keys if key.endswith(f"/{name}"))


def _key(product: Product, batch_id: str, name: str) -> str:
    return f"quarantine/{product.name}/{batch_id}/{name}"


def _store(key: str, rows: pa.Table) -> None:
    """Stores rows as Parquet, over what an attempt left that was killed before it wrote the batch's reason.

    Raises Changed, a Conflict, when another process writes the same.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = pa.BufferOutputStream()
    pq.write_table(rows, written)
    content = written.getvalue().to_pybytes()
    current = objects.read(key)
    if current is None:
        objects.create_bytes(key, content)
    elif current.content != content:
        objects.replace_bytes(key, content, if_match=current.etag)


def _rows(key: str) -> pa.Table:
    """Rows that `_store` stored. Raises Unreadable when they are gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = objects.read(key)
    if found is None:
        raise Unreadable(f"{objects.where(key)} is gone, which a quarantined batch must have")
    return pq.read_table(pa.BufferReader(found.content))


def _window(batch_id: str) -> str:
    return batch_id.partition("#")[0]


def _number(batch_id: str) -> int:
    return int(batch_id.partition("#")[2] or 1)
