"""Quarantine: batches that broke a contract at landing, kept whole as the shop showed them, until they are let in.

`<home>/quarantine/<product>/<batch>/` holds a Parquet file for each of the shop's tables, with all the columns that it
had, and `reason.json`, written last. Nothing there is ever changed or removed. A row of it is *held* as long as no row
with its key is in raw, in a batch that counts. Batches that a later gate set aside (`<home>/rejected`) are in raw
itself; both kinds are listed here, and both are let in by the same `plumb quarantine replay`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import clock, files
from plumbline.contracts import contract as contracts
from plumbline.contracts.diff import LANDING
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import candidates

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
        import pyarrow.parquet as pq

        if self.kind != "gate":
            return pq.read_table(folder(self.product, self.batch_id) / f"{name}.parquet")
        found = (
            lake.open_table(f"raw.{name}").to_pyarrow_dataset().to_table(filter=pc.field("batch_id") == self.batch_id)
        )
        return found.drop_columns([c for c in found.column_names if c in LANDING or c.startswith("_dlt_")])


def folder(product: Product, batch_id: str) -> Path:
    """Where a quarantined batch is."""
    return settings().home / "quarantine" / product.name / batch_id


def attempts(product: Product, window: str, rejected: Iterable[str]) -> list[str]:
    """The batches of a window that were kept out so far, by quarantine or by a gate, oldest first."""
    found = {batch for batch in rejected if _window(batch) == window}
    found |= {path.parent.name for path in _reasons(product) if _window(path.parent.name) == window}
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
    import pyarrow.parquet as pq

    digest = hashlib.sha256(repr(reason["broke"]).encode())
    for name, (columns, rows) in sorted(tables.items()):
        digest.update(repr((name, columns, sorted(map(repr, rows)))).encode())
    earlier = attempts(product, window, rejected)
    if earlier:
        newest = files.read_json(folder(product, earlier[-1]) / REASON)
        if newest and newest["digest"] == digest.hexdigest():
            return earlier[-1], newest
    batch_id = f"{window}#{len(earlier) + 1}" if earlier else window
    place, as_text = folder(product, batch_id), []
    place.mkdir(parents=True, exist_ok=True)
    for name, (columns, rows) in tables.items():
        made = {}
        for position, column in enumerate(columns):
            made[column], told = _array([row[position] for row in rows])
            as_text += [f"{name}.{column}"] if told else []
        pq.write_table(pa.table(made), place / f".{name}.parquet")
        (place / f".{name}.parquet").replace(place / f"{name}.parquet")
        kept = pq.read_metadata(place / f"{name}.parquet").num_rows
        if kept != len(rows):
            raise QuarantineError(f"{place / name}.parquet holds {kept:,} rows of {len(rows):,}: run the same again")
    told_of = {
        **reason,
        "batch_id": batch_id,
        "at": clock.now().isoformat(),
        "rows": {name: len(rows) for name, (_, rows) in tables.items()},
        "as_text": as_text,
        "digest": digest.hexdigest(),
    }
    with suppress(FileExistsError):
        files.create_once(place / REASON, files.dumps(told_of))
    return batch_id, told_of


def batches(product: Product) -> list[Batch]:
    """Every batch that was kept out, oldest window first."""
    found = [_quarantined(product, path) for path in _reasons(product)]
    found += [_set_aside(product, batch_id) for batch_id in candidates.rejected(product.name)]
    return sorted(found, key=lambda batch: (_window(batch.batch_id), _number(batch.batch_id)))


def marked(product: Product) -> list[Batch]:
    """The batches that the next landing may take in, oldest window first."""
    paths = (settings().home / "quarantine" / product.name).glob(f"*/{REPLAY}")
    known = sorted((path.parent.name for path in paths), key=lambda name: (_window(name), _number(name)))
    return [
        _quarantined(product, path)
        if (path := folder(product, batch_id) / REASON).exists()
        else _set_aside(product, batch_id)
        for batch_id in known
    ]


def _quarantined(product: Product, path: Path) -> Batch:
    told = files.read_json(path) or {}
    return Batch(
        product,
        told["batch_id"],
        told["kind"],
        told["at"],
        "; ".join(told["broke"]),
        told["rows"],
        datetime.fromisoformat(told["end"]),
        (path.parent / REPLAY).exists(),
    )


def _set_aside(product: Product, batch_id: str) -> Batch:
    path = settings().home / "rejected" / product.name / f"{batch_id}.json"
    told = files.read_json(path) or {}
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    asked = (folder(product, batch_id) / REPLAY).exists()
    return Batch(product, batch_id, "gate", at, told["why"], _landed_as(product, batch_id), marked=asked)


def read(product: Product, batch_id: str) -> Batch:
    """One batch. Raises QuarantineError that names those there are."""
    known = {batch.batch_id: batch for batch in batches(product)}
    if batch_id not in known:
        raise QuarantineError(f"no batch {batch_id} was kept out; there are {', '.join(known) or 'none'}")
    return known[batch_id]


def reason(batch: Batch) -> dict[str, Any]:
    """All that was written down when it was kept out."""
    rejected = settings().home / "rejected" / batch.product.name / f"{batch.batch_id}.json"
    return files.read_json(rejected if batch.kind == "gate" else folder(batch.product, batch.batch_id) / REASON) or {}


def held(batch: Batch) -> dict[str, pa.Table]:
    """Its rows, by table, that are in no batch that counts: by key; a row that has no key that raw could have is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name in batch.rows:
        rows, key = batch.table(name), contracts.shop(name).key[0]
        if key in rows.column_names and str(rows[key].type).startswith("int"):
            rows = rows.filter(pc.invert(pc.is_in(rows[key], value_set=landed_keys(batch.product, name))))
        elif key in rows.column_names:
            texts = set(map(str, landed_keys(batch.product, name).to_pylist()))
            rows = rows.filter(pa.array([str(value) not in texts for value in rows[key].to_pylist()], pa.bool_()))
        found[name] = rows
    return found


def held_count(product: Product, table: str, since: datetime, shown: set[Any]) -> int:
    """How many different rows of a table are held in quarantine, of windows that end after `since`, and are no longer
    among what the shop shows (`shown`: their keys)."""
    key, rows = contracts.shop(table).key[0], set()
    for path in _reasons(product):
        batch = _quarantined(product, path)
        if batch.end is None or batch.end <= since:
            continue
        rows |= {repr(sorted(row.items())) for row in held(batch)[table].to_pylist() if row.get(key) not in shown}
    return len(rows)


def landed_keys(product: Product, table: str) -> pa.Array:
    """The keys in raw, in batches that count."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if lake.version(f"raw.{table}") is None:
        return pa.array([], pa.int64())
    key = contracts.shop(table).key[0]
    found = lake.open_table(f"raw.{table}").to_pyarrow_table(columns=[key, "batch_id"])
    rejected = pa.array(candidates.rejected(product.name), pa.string())
    return found.filter(pc.invert(pc.is_in(found["batch_id"], value_set=rejected)))[key].combine_chunks()


def unmark(batch: Batch) -> None:
    """Takes the word back that the next landing may take in what is held of a batch."""
    (folder(batch.product, batch.batch_id) / REPLAY).unlink(missing_ok=True)


def last_day(batch: Batch) -> date:
    """The last day of a batch's window."""
    return date.fromisoformat(_window(batch.batch_id).partition("..")[2])


def mark(batch: Batch) -> None:
    """Lets the next landing take in what is held of a batch."""
    path = folder(batch.product, batch.batch_id) / REPLAY
    with suppress(FileExistsError):
        files.create_once(path, files.dumps({"batch_id": batch.batch_id, "asked_at": clock.now().isoformat()}))


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


def _reasons(product: Product) -> list[Path]:
    return sorted((settings().home / "quarantine" / product.name).glob(f"*/{REASON}"))


def _window(batch_id: str) -> str:
    return batch_id.partition("#")[0]


def _number(batch_id: str) -> int:
    return int(batch_id.partition("#")[2] or 1)
