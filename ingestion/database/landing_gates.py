"""The gates at landing: the shop's schema and its rows against the shop's contracts, and the count of what was sent.

`schema_contract` and `record_contract` stop a batch before anything of it lands, and put it into quarantine whole.
`landing_complete` holds what came in against what was sent. A column that the contract does not name is no break: it
lands, is told, and is noted in the ledger and in `schema_changes/<product>/`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ingestion.database import changes, kept_out, quarantine, source_checks, source_schema
from ingestion.database import quarantine_replay as replay
from ingestion.database.changes import Due
from ingestion.database.keys import said
from ingestion.database.source_checks import LOOKBACK, Window
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.diff import Difference
from plumbline.errors import GateFailed
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import acceptances, objects
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

SCHEMA, RECORDS, COMPLETE = "schema_contract", "record_contract", "landing_complete"
DELETIONS = "rows_deleted"
FEW_DELETED, DELETED_SHARE = 20, 0.01
"""Keys of a table that may go in one run: so many, or this share of those that landed. A shop that deletes a test order
or a customer's orders stays below; one restored from an old copy, or a table cut off, does not."""


@dataclass(frozen=True)
class Shown:
    """What a shop declares: as seen, its name for each of the contracts' columns, and the types by its names."""

    seen: source_schema.Seen
    names: dict[str, dict[str, str]]
    types: dict[str, dict[str, TypeEngine[Any]]]


def look(connection: sa.Connection, product: Product) -> Shown:
    """The schema of the tables that land. Raises ShopError when there is none of them."""
    seen = source_schema.seen(connection, product)
    return Shown(
        seen,
        {table: source_schema.names(table, seen) for table in seen},
        {table: {name: kind for name, (kind, _) in columns.items()} for table, columns in seen.items()},
    )


def hold_to_contract(
    run: StageRun,
    connection: sa.Connection,
    shown: Shown,
    start: datetime,
    end: datetime,
    look_for_due: Callable[[str], Due],
) -> tuple[sa.Engine | None, dict[str, Due]]:
    """The gates before anything is read. Gives a database with the rows that are let in from quarantine, if any are,
    and what is due by table, as `look_for_due` says it of a table whose schema keeps the contract.

    Raises GateFailed when the schema or a row breaks a contract; the batch is in quarantine then. So it does when the
    shop deleted more rows than is believed.
    """
    differences = source_schema.differences(run.product, shown.seen, source_schema.seen_before(run.product.name))
    broken = [difference.told for difference in differences if difference.breaking]
    promised = sum(len(contracts.shop(table).columns) for table in run.product.sources)
    _judge(run, SCHEMA, promised, broken, [difference.as_dict() for difference in differences])
    if broken:
        told = "the shop's schema is not what its contract says:"
        mend = (
            "Mend the shop, offer the old columns in a view, or announce a rename in its contract "
            "(docs/contracts-and-quarantine.md), and run "
            f"`plumb ingest --as-of {run.as_of}`."
        )
        kept = kept_out.rows(run, connection, shown.names, shown.types, start, end, look_for_due)
        raise GateFailed(kept_out.put(run, kept, "schema", broken, told, mend, start, end))
    run.facts["schema_changes"] = _announce(run, differences)
    due = {table: look_for_due(table) for table in run.product.sources}
    _believe_deletions(run, due)
    window = Window(start - LOOKBACK, end, run.as_of, {t: due[t].late(start - LOOKBACK) for t in due})
    found = [
        b
        for t in run.product.sources
        for b in source_checks.breaches(connection, t, shown.names[t], shown.types[t], window)
    ]
    _judge(run, RECORDS, _rules(run.product), [breach.told for breach in found], [vars(breach) for breach in found])
    if found:
        told = "the shop holds rows that cannot be read as what they should be:"
        mend = "Nothing was landed. Mend them in the shop and run the same again."
        kept = kept_out.rows(run, connection, shown.names, shown.types, start, end, due.__getitem__)
        raise GateFailed(kept_out.put(run, kept, "records", [b.told for b in found], told, mend, start, end))
    run.facts["shop_schema"] = source_schema.stated(shown.seen)
    return _let_in(run, connection, shown, window), due


def _believe_deletions(run: StageRun, due: dict[str, Due]) -> None:
    """The gate `rows_deleted`: a shop that lost a share of its keys since the last run was restored or cut, not tidied.

    Raises GateFailed that names some of them, unless somebody accepted it for the day.
    """
    findings = []
    for table, found in due.items():
        most = max(FEW_DELETED, int(found.standing * DELETED_SHARE))
        if len(found.deleted) > most:
            some = ", ".join(map(said, changes.values(found.deleted.slice(0, 5), found.key)))
            findings.append(
                f"{table}: {len(found.deleted):,} of {found.standing:,} keys that landed are not in the shop any more, "
                f"such as {', '.join(found.key)} {some}; up to {most:,} are believed in one run"
            )
    accepted = acceptances.accepted(run.product.name, DELETIONS, run.as_of) if findings else None
    verdict = Verdict(DELETIONS, not findings or accepted is not None, len(due), tuple(findings), accepted=accepted)
    gates.record(run, verdict, {"deleted": {table: len(found.deleted) for table, found in due.items()}})
    if not verdict.passed:
        raise GateFailed(
            "the shop lost rows:\n  "
            + "\n  ".join(findings)
            + f"\n  Nothing was landed. If they are really deleted, accept it: `plumb gate accept {DELETIONS} --as-of "
            f"{run.as_of} --why …`. Either way run `plumb ingest --as-of {run.as_of}` again.",
            sets_aside=False,
        )


def count(run: StageRun, due: dict[str, Due], missing: dict[str, set[Any]], batch: str, start: datetime) -> int:
    """The gate `landing_complete`: each version that was due is in raw now. How many rows stay in quarantine.

    `due` is what had to land, `missing` has the keys of it that raw lacks now, by table. Raises GateFailed that names
    tables and keys of rows that got lost on the way; run again, they land.
    """
    facts: dict[str, dict[str, int]] = {"sent": {}, "landed": {}, "quarantined": {}}
    lost: dict[str, list[Any]] = {}
    for table, found in due.items():
        rows = run.rows[f"raw.{table}"]
        kept = quarantine.held_count(run.product, table, start, found.keys())
        lost[table] = sorted(missing[table])
        facts["landed"][table], facts["quarantined"][table] = rows, kept
        facts["sent"][table] = rows + kept + len(lost[table])
    run.facts |= facts
    broken = [
        f"{table}: {len(keys):,} of {facts['sent'][table]:,} rows sent are neither in raw.{table} nor in quarantine, "
        f"such as {', '.join(map(said, keys[:5]))}"
        for table, keys in lost.items()
        if keys
    ]
    _judge(run, COMPLETE, len(due), broken, [facts])
    if broken:
        raise GateFailed(
            f"landing {batch} lost rows on the way:\n  "
            + "\n  ".join(broken)
            + f"\n  What landed stays. Run `plumb ingest --as-of {run.as_of}` again: it lands the rest.",
            sets_aside=False,
        )
    return sum(facts["quarantined"].values())


def _judge(run: StageRun, gate: str, checked: int, broken: list[str], findings: list[dict[str, Any]]) -> None:
    versions = {c.dataset: c.version for c in map(contracts.shop, run.product.sources)}
    verdict = Verdict(gate, not broken, checked, tuple(broken), extra={"contracts": versions})
    gates.record(run, verdict, {"at": clock.now().isoformat(), "findings": findings})


def _announce(run: StageRun, differences: list[Difference]) -> list[dict[str, Any]]:
    """Notes each additive difference once, in `schema_changes/<product>/`, and tells it every time."""
    noted = []
    for difference in differences:
        say(difference.told)
        told = {**difference.as_dict(), "run_id": run.candidate.run_id, "first_seen": clock.now().isoformat()}
        name = f"{difference.dataset}.{difference.column}.json"
        with suppress(objects.Exists):
            objects.create_json(f"schema_changes/{run.candidate.product}/{name}", told)
        noted.append({"table": difference.dataset, **{key: told[key] for key in ("change", "column", "told")}})
    return noted


def _rules(product: Product) -> int:
    """How many rules the shop's contracts have for rows: a kind for each column, ranges, one key a table."""
    columns = [column for table in product.sources for column in contracts.shop(table).columns.values()]
    limits = [[c.limits.low is not None, c.limits.high is not None, c.not_after_run] for c in columns]
    return len(columns) + sum(map(sum, limits)) + len(product.sources)


def _let_in(run: StageRun, connection: sa.Connection, shown: Shown, window: Window) -> sa.Engine | None:
    if not (marked := quarantine.marked(run.product)):
        return None
    found = replay.missing_rows(connection, run.product, marked, shown.types, window)
    if not any(len(rows) for rows in found.values()):
        return None
    database = replay.database(run.product, found)
    if broken := replay.broken(run.product, database, window):
        batches = [batch.batch_id for batch in marked]
        verdict = replace(run.gates[RECORDS], passed=False, failed=tuple(broken))
        gates.record(run, verdict, {"at": clock.now().isoformat(), "findings": [{"replayed": batches}]})
        raise GateFailed(_not_let_in(batches, broken))
    run.facts["let_in"] = {"batches": [b.batch_id for b in marked], "rows": {t: len(r) for t, r in found.items()}}
    return database


def _not_let_in(batches: list[str], broken: list[str]) -> str:
    return (
        f"rows of {', '.join(batches)} were asked back from quarantine and do not keep the contract:\n  "
        + "\n  ".join(broken)
        + "\n  They stay there, and nothing was landed. Mend the contract, or replay each again, "
        "which takes the request back."
    )
