"""What goes into quarantine of a batch that breaks a contract: the rows that its landing would have taken, whole.

Those are the rows of the window, those that turned up late, and other versions of rows that landed. Where a schema is
so broken that a key or a time of recording cannot be read, the message says which rows it is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ingestion.database import changes, quarantine, source_checks
from ingestion.database.changes import Due
from ingestion.database.marks import plain
from ingestion.database.source_checks import LOOKBACK, kind_of
from plumbline.contracts import contract as contracts
from plumbline.pipeline.stage import StageRun

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

Names = Mapping[str, Mapping[str, str]]
Types = Mapping[str, Mapping[str, "TypeEngine[Any]"]]


@dataclass(frozen=True)
class Kept:
    """Of one table: columns and rows as the driver gives them; `which` says what rows, "" for all that were sent."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    which: str = ""


def rows(
    run: StageRun,
    connection: sa.Connection,
    names: Names,
    types: Types,
    start: datetime,
    end: datetime,
    look_for_due: Callable[[str], Due],
) -> dict[str, Kept]:
    """By table, the rows to keep, without the columns that a contract leaves out.

    `names` and `types` are the shop's, as `landing_gates.look` gives them.
    """
    found = {}
    for table, declared in types.items():
        known = look_for_due(table) if _legible(table, names[table], declared) else None
        found[table] = _kept(run, connection, table, names[table], declared, start, end, known)
    return found


def put(
    run: StageRun,
    kept: Mapping[str, Kept],
    kind: str,
    broken: list[str],
    told: str,
    mend: str,
    start: datetime,
    end: datetime,
) -> str:
    """Puts the batch into quarantine and says so."""
    reason = {
        "kind": kind,
        "broke": broken,
        "run_id": run.candidate.run_id,
        "as_of": run.as_of.isoformat(),
        "start": start.isoformat(),
        "end": end.isoformat(),
        "contracts": {c.dataset: c.version for c in map(contracts.shop, run.product.sources)},
    }
    tables = {table: (one.columns, one.rows) for table, one in kept.items()}
    batch_id, stored = quarantine.put(
        run.product, f"{start.date()}..{run.as_of}", run.candidate.rejected, tables, reason
    )
    sent = {table: len(one.rows) for table, one in kept.items()}
    run.facts |= {"sent": sent, "landed": dict.fromkeys(sent, 0), "quarantined": stored["rows"], "quarantine": batch_id}
    counted = " and ".join(f"{count:,} {table}" for table, count in stored["rows"].items())
    parts = [f"of {table} {one.which}" for table, one in kept.items() if one.which]
    whole = f": {counted}; {'; '.join(parts)}" if parts else f", whole: {counted}, all that was sent"
    return "\n  ".join(
        [
            told,
            *broken,
            f"The batch is in quarantine{whole}. See `plumb quarantine show {batch_id}`; the rows are in "
            f"{quarantine.where(run.product, batch_id)}.",
            f"The release in force stays. {mend}" if kind == "schema" and run.base else mend,
        ]
    )


def _legible(table: str, names: Mapping[str, str], types: Mapping[str, TypeEngine[Any]]) -> bool:
    """Whether the shop shows what tells rows and their versions apart: the key, and a time or all that is promised."""
    contract = contracts.shop(table)
    needed = [*contract.key, *([contract.recorded] if contract.recorded else contract.columns)]
    return all(name in names and kind_of(types[names[name]]) == contract.columns[name].kind for name in needed)


def _kept(
    run: StageRun,
    connection: sa.Connection,
    table: str,
    names: Mapping[str, str],
    types: Mapping[str, TypeEngine[Any]],
    start: datetime,
    end: datetime,
    due: Due | None,
) -> Kept:
    import sqlalchemy as sa

    contract = contracts.shop(table)
    columns = [name for name in types if name not in contract.left_out]
    # What Python cannot read, as text: a stamp of SQLite that is none, infinity in Postgres.
    as_text = source_checks.unreadable_columns(connection, table, dict(types))
    chosen: list[sa.ColumnElement[Any]] = []
    for name in columns:
        value: sa.ColumnElement[Any] = sa.literal_column(connection.dialect.identifier_preparer.quote(name))
        chosen.append((sa.cast(value, sa.Text()) if name in as_text else value).label(name))
    query = sa.select(*chosen).select_from(sa.table(table))
    recorded, opens = contract.recorded, start - LOOKBACK
    kind = kind_of(types[recorded]) if recorded is not None and recorded in types else None
    timed = recorded is not None and kind == contract.columns[recorded].kind
    if recorded is not None and kind is not None and timed:
        late = due.late(opens) if due is not None else None
        inside = source_checks.recorded_in(contract, types, late.start if late else opens, end)
        if late is not None:
            inside = late.condition(inside, {name: sa.column(names[name]) for name in contract.key})
        timeless = source_checks.unreadable(sa.column(recorded), kind, connection.dialect.name)
        absent = sa.column(recorded).is_(None)
        query = query.where(sa.or_(inside, absent, timeless if timeless is not None else sa.false()))
    found = [tuple(row) for row in connection.execute(query)]
    keyed = set(contract.key) <= set(columns)
    if keyed:
        found = _to_land(run, table, names, types, columns, found, opens, due)
    if due is not None:
        return Kept(columns, found)
    which = f"the rows recorded from {opens.date()} on" if timed else "all rows"
    which += " whose key has not landed" if keyed else ""
    return Kept(columns, found, f"{which}, for what else was sent late or again cannot be told")


def _to_land(
    run: StageRun,
    table: str,
    names: Mapping[str, str],
    types: Mapping[str, TypeEngine[Any]],
    columns: list[str],
    found: list[tuple[Any, ...]],
    opens: datetime,
    due: Due | None,
) -> list[tuple[Any, ...]]:
    """Of rows that have a key: those that raw lacks, those that are due again, and those with other values than raw."""
    contract = contracts.shop(table)
    key = [columns.index(name) for name in contract.key]
    landed = quarantine.landed_keys(run.product, table)
    again = {tuple(map(str, row.values())) for row in due.rows.select(list(contract.key)).to_pylist()} if due else set()
    held = changes.recent(table, run.candidate.rejected, opens)
    compared = [
        column
        for column in contract.columns.values()
        if column.name in held.column_names
        and column.name not in contract.key
        and column.name in names
        and kind_of(types[names[column.name]]) == column.kind
    ]
    places = [columns.index(names[column.name]) for column in compared]

    def values(row: tuple[Any, ...]) -> list[str | None]:
        return [None if v is None else plain(v, c.kind) for v, c in zip(row, compared, strict=True)]

    before = {
        tuple(str(row[name]) for name in contract.key): values(tuple(row[c.name] for c in compared))
        for row in held.to_pylist()
    }

    def lands(row: tuple[Any, ...]) -> bool:
        mine = tuple(str(row[at]) for at in key)
        if mine not in landed or mine in again:
            return True
        return mine in before and before[mine] != values(tuple(row[at] for at in places))

    return [row for row in found if lands(row)]
