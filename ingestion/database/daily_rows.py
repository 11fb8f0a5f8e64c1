"""The gate `daily_rows`: each day of the window on which the shop is open brought the rows that its contract promises.

A day that is missing is known here, before anything lands. Somebody who knows that it is really empty accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta

from ingestion.database.changes import DELETED, Due
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import RECORDED
from plumbline.errors import GateFailed
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.state import acceptances
from plumbline.verdict import Verdict

GATE = "daily_rows"
SHOWN = 5


def hold(run: StageRun, due: Mapping[str, Due], starts: Mapping[str, datetime], let_in: bool) -> None:
    """Counts the rows of each day, those that are due and those that raw has, and holds them to `dailyRows`.

    Without such a promise there is no such gate. Where rows come in from quarantine too it is not judged: the shop need
    not show them. Raises GateFailed that names table, day and rows, unless somebody accepted it for the day.
    """
    promised = {table: contracts.shop(table).daily_rows for table in due}
    if not any(promised.values()) or let_in:
        return
    findings, looked = [], 0
    for table in [name for name, least in promised.items() if least]:
        contract, least = contracts.shop(table), promised[table]
        rows = _by_day(due[table], starts[table])
        days = [day for day in _days(starts[table].date(), run.as_of) if not contract.closed_on(day)]
        short = [day for day in days if rows.get(day, 0) < least]
        looked += len(days)
        if short:
            named = ", ".join(f"{day} ({rows.get(day, 0):,})" for day in short[:SHOWN])
            more = f" and {len(short) - SHOWN:,} more days" if len(short) > SHOWN else ""
            findings.append(
                f"{table}: too few rows are recorded on {named}{more}; {contract.file} promises {least:,} at least on "
                "each open day (dailyRows)"
            )
    accepted = acceptances.accepted(run.product.name, GATE, run.as_of) if findings else None
    verdict = Verdict(GATE, not findings or accepted is not None, looked, tuple(findings), accepted=accepted)
    gates.record(run, verdict, {"promised": promised})
    if not verdict.passed:
        raise GateFailed(
            "days are missing in the shop:\n  "
            + "\n  ".join(findings)
            + f"\n  Nothing was landed. When the rows are there, run `plumb ingest --as-of {run.as_of}` again. If it "
            f"is really so, accept it: `plumb gate accept {GATE} --as-of {run.as_of} --why …`. Name a day on which the "
            "shop is closed in closedDays of the contract.",
            sets_aside=False,
        )


def _by_day(found: Due, start: datetime) -> dict[date, int]:
    """How many rows were recorded on each day (UTC) from `start` on, of what is due and of what stands in raw."""
    import pyarrow as pa
    import pyarrow.compute as pc

    standing = found.before.filter(pc.is_null(found.before[DELETED]))[RECORDED]
    stamps = pa.chunked_array([*found.rows[RECORDED].chunks, *standing.chunks], found.rows[RECORDED].type)
    stamps = stamps.filter(pc.greater_equal(stamps, pa.scalar(start, stamps.type)))
    counted = pc.value_counts(stamps.cast(pa.date32()))
    return {item["values"]: item["counts"] for item in counted.to_pylist()}


def _days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)
