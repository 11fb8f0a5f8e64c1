"""The gate `quality_rules`: the rules of whole tables in the shop's contracts, over what landed of each.

A rule sees the shop's table as it is by the end of the run's day: the newest version of each key in raw, without those
that the shop deleted, with the columns that the contract promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.contracts import contract as contracts
from plumbline.contracts import quality
from plumbline.contracts.contract import VERSION_ORDER, Contract
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

GATE = "quality_rules"


def hold(run: StageRun) -> None:
    """Runs the rules over the raw tables that this run wrote; shops whose contracts state none have no such gate.

    Raises GateFailed that names each rule that does not hold, with what it gave.
    """
    given, broken, count = {}, [], 0
    for table in run.product.sources:
        contract, raw = contracts.shop(table), f"raw.{table}"
        if not contract.rules:
            continue
        opened = lake.open_table(raw, run.wrote[raw])
        found = quality.run(contract.rules, opened, _shown(contract, opened.schema().fields, run.candidate.rejected))
        count += len(found)
        given[raw] = quality.evidence(found)
        broken += [f"{table}: {told}" for _, _, told in found if told]
    if not count:
        return
    verdict = gates.record(
        run, Verdict(GATE, not broken, count, tuple(broken)), {"versions": dict(run.wrote), "rules": given}
    )
    if broken:
        raise GateFailed(
            "the shop's tables break rules of their contracts:\n  "
            + "\n  ".join(broken)
            + f"\n  Evidence: {verdict.report}. What was landed is set aside: mend the rows in the shop, or the rule "
            f"in its contract, and run `plumb ingest --as-of {run.as_of}` again."
        )


def _shown(contract: Contract, fields: Iterable[object], rejected: list[str]) -> str:
    """The query that gives the shop's table of all its versions in raw, which it reads as `whole`."""
    there = {str(getattr(field, "name", "")) for field in fields}
    served = {c: next((n for n in contract.accepted(c) if n in there), None) for c in contract.columns}
    columns = ", ".join(f"{_quoted(name) if name else 'NULL'} AS {_quoted(c)}" for c, name in served.items())
    batches = ", ".join("'" + batch.replace("'", "''") + "'" for batch in rejected)
    counts = f"WHERE batch_id NOT IN ({batches})" if batches else ""
    key = ", ".join(map(_quoted, contract.key))
    newest = ", ".join(f"{name} DESC" for name in VERSION_ORDER)
    alive = " AND deleted_at IS NULL" if "deleted_at" in there else ""
    placed = f'SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {newest}) AS "#place" FROM whole {counts}'
    return f'SELECT {columns} FROM ({placed}) AS versions WHERE "#place" = 1{alive}'


def _quoted(name: str) -> str:
    return f'"{name}"'
