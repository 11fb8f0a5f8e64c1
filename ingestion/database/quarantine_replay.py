"""`plumb quarantine replay`: a batch that was kept out is held against the contract as it is now, and let in.

What the shop still shows lands by itself at the next ingest, in the shop's version. What only quarantine has is put
into a throw-away database like the shop's, so that the same checks and the same landing deal with it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.database import quarantine, source_checks, source_schema
from ingestion.database.landed_columns import landed_name
from ingestion.database.quarantine import Batch, QuarantineError
from ingestion.database.source import column_type, connected, engine
from ingestion.database.source_checks import BEGINNING, EARLIEST, LOOKBACK, Window
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.errors import GateFailed
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import releases

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

BEHIND = datetime(9000, 1, 1, tzinfo=UTC)


def replay(product: Product, batch_id: str) -> dict[str, Any]:
    """Holds a batch against today's contract and shop; when it keeps the contract, the next ingest takes it in.

    Raises QuarantineError when there is no such batch or all of it is in, GateFailed while the contract is broken.
    """
    batch = quarantine.read(product, batch_id)
    rows = {table: len(found) for table, found in quarantine.held(batch).items()}
    if not any(rows.values()):
        raise QuarantineError(f"all of {batch_id} is in already, in a later batch: there is nothing to replay")
    release, shop = releases.in_force(product.name), engine()
    source_checks.refuse_absent(shop.url)
    landed_until = clock.end_of(release.as_of) if release else BEGINNING + LOOKBACK
    as_of = quarantine.last_day(batch)
    window = Window(landed_until - LOOKBACK, clock.end_of(as_of), as_of)
    try:
        with connected(shop) as connection:
            broken, missing = _checked(connection, batch, window)
    finally:
        shop.dispose()
    if broken:
        quarantine.unmark(batch)
        raise GateFailed(
            f"{batch_id} stays in quarantine, the contract is still broken:\n  "
            + "\n  ".join(broken)
            + "\n  Mend the shop or the contract (docs/contracts-and-quarantine.md) and replay it again."
        )
    quarantine.mark(batch)
    day = max(as_of, release.as_of + timedelta(days=1)) if release else as_of
    return {
        "batch_id": batch_id,
        "held": rows,
        "from_the_shop": {table: count - missing.get(table, 0) for table, count in rows.items()},
        "from_quarantine": {table: missing.get(table, 0) for table in rows},
        "next": f"plumb ingest --as-of {day}",
    }


def listed(product: Product) -> list[dict[str, Any]]:
    """Every batch that was kept out, and how many of its rows are still held."""
    return [_as_dict(batch) for batch in quarantine.batches(product)]


def shown(product: Product, batch_id: str) -> dict[str, Any]:
    """One batch and all that was written down of it. Raises QuarantineError when there is none."""
    batch = quarantine.read(product, batch_id)
    where = quarantine.where(product, batch_id) if batch.kind != "gate" else f"raw tables, batch_id {batch_id}"
    return {**quarantine.reason(batch), **_as_dict(batch), "where": where}


def _as_dict(batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "kind": batch.kind,
        "at": batch.at,
        "why": batch.why,
        "rows": batch.rows,
        "held": {table: len(rows) for table, rows in quarantine.held(batch).items()},
        "asked_back": batch.marked,
    }


def _checked(shop: sa.Connection, batch: Batch, window: Window) -> tuple[list[str], dict[str, int]]:
    """What the shop, or the rows that only quarantine has, break of the contract; and how many those rows are."""
    product = batch.product
    seen = source_schema.seen(shop, product)
    types = {table: {name: kind for name, (kind, _) in columns.items()} for table, columns in seen.items()}
    found = [d.told for d in source_schema.differences(product, seen, {}) if d.breaking]
    if found:
        return found, {}
    for table in product.sources:
        names = source_schema.names(table, seen)
        found += [b.told for b in source_checks.breaches(shop, table, names, types[table], window)]
    if found:
        return found, {}
    missing = missing_rows(shop, product, [batch], types, window)
    if any(len(rows) for rows in missing.values()):
        held = database(product, missing)
        found = broken(product, held, window)
        dispose(held)
    return found, {table: len(rows) for table, rows in missing.items()}


def missing_rows(
    shop: sa.Connection,
    product: Product,
    batches: list[Batch],
    types: dict[str, dict[str, TypeEngine[Any]]],
    window: Window,
) -> dict[str, pa.Table]:
    """By table, the held rows of these batches that the shop does not show any more; of one key the newest batch's."""
    import pyarrow as pa
    import sqlalchemy as sa

    found: dict[str, pa.Table] = {}
    for table in product.sources:
        contract, parts = contracts.shop(table), []
        key, inside = contract.key, source_checks.recorded_in(contract, types[table], window.start, window.end)
        shown = shop.execute(sa.select(*map(sa.column, key)).select_from(sa.table(table)).where(inside))
        seen = {tuple(map(str, row)) for row in shown}
        for batch in reversed(batches):
            rows = quarantine.held(batch).get(table)
            if rows is None or not len(rows):
                continue
            if (keys := quarantine.keys_of(rows, table)) is not None:
                rows = rows.filter(pa.array([row_key not in seen for row_key in keys], pa.bool_()))
                seen |= {row_key for row_key in keys if row_key is not None}
            parts.append(rows)
        if parts:
            found[table] = pa.concat_tables(parts, promote_options="permissive")
    return found


def database(product: Product, rows: dict[str, pa.Table]) -> sa.Engine:
    """A SQLite database with these rows in tables that have the contract's columns and any others, without any rule."""
    import sqlalchemy as sa

    handle = tempfile.NamedTemporaryFile(dir=_folder(), suffix=".sqlite", delete=False)  # noqa: SIM115 (for dlt)
    handle.close()
    made = sa.create_engine(f"sqlite:///{handle.name}")
    tables = sa.MetaData()
    with made.begin() as connection:
        for table in product.sources:
            contract, found = contracts.shop(table), rows.get(table)
            raw = source_schema.raw_types(table)
            known = {name: c for c in contract.columns.values() for name in contract.accepted(c.name)}
            given = {f.name: f.type for f in found.schema} if found is not None else dict.fromkeys(contract.columns)
            columns: list[sa.Column[Any]] = [
                sa.Column(name, column_type(known[name]) if name in known else _other(kind, raw.get(landed_name(name))))
                for name, kind in given.items()
            ]
            sa.Table(table, tables, *columns)
        tables.create_all(connection)
        for table, found in rows.items():
            values = [{name: _stored(value) for name, value in row.items()} for row in found.to_pylist()]
            plain = sa.table(table, *(sa.column(name) for name in found.column_names))
            if values:
                connection.execute(sa.insert(plain), values)
    return made


def broken(product: Product, held: sa.Engine, window: Window) -> list[str]:
    """What rows from quarantine break of the contract, schema first."""
    with held.connect() as connection:
        seen = source_schema.seen(connection, product)
        found = [d.told for d in source_schema.differences(product, seen, {}) if d.breaking]
        if found:
            return found
        everything = Window(EARLIEST, BEHIND, window.as_of)
        for table in product.sources:
            types = {name: kind for name, (kind, _) in seen[table].items()}
            names = source_schema.names(table, seen)
            found += [b.told for b in source_checks.breaches(connection, table, names, types, everything)]
        return found


def dispose(held: sa.Engine) -> None:
    """Removes such a database."""
    held.dispose()
    Path(str(held.url.database)).unlink(missing_ok=True)


def _folder() -> Path:
    path = settings().home / "tmp"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _other(kind: pa.DataType, held: str | None) -> TypeEngine[Any]:
    """The type of a column that no contract names, as the landing of it from a shop would have found it.

    `held` is its type in raw, if raw has it. SQLite holds decimals of 15 digits; longer ones stay text and are refused.
    """
    import pyarrow as pa
    import sqlalchemy as sa

    if held is not None and (decimal := re.fullmatch(r"decimal\((\d+),(\d+)\)", held)):
        precision, scale = map(int, decimal.groups())
        return sa.Numeric(precision, scale) if precision <= 15 else sa.String()
    kinds: list[tuple[Callable[[pa.DataType], bool], TypeEngine[Any]]] = [
        (pa.types.is_boolean, sa.Boolean()),
        (pa.types.is_integer, sa.BigInteger()),
        (pa.types.is_floating, sa.Float()),
        (pa.types.is_timestamp, sa.DateTime()),
        (pa.types.is_date, sa.Date()),
        (pa.types.is_binary, sa.LargeBinary()),
    ]
    return next((made for fits, made in kinds if fits(kind)), sa.String())


def _stored(value: Any) -> Any:
    """A value as SQLite holds it: times in UTC without a zone."""
    if isinstance(value, datetime):
        naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return naive.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, int | float | str | bytes) or value is None else str(value)
