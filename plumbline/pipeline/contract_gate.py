"""The gate on a table that a stage wrote: exactly that version against the dataset's contract, before it is published.

Columns, types, and the nulls of required columns, from the Delta log; rows are read where it does not say, and for the
contract's rules of the whole table. A column more than the contract names is told and passes; lint asks for it to be
written down.
"""

from __future__ import annotations

from plumbline.contracts import contract as contracts
from plumbline.contracts import diff as contract_diff
from plumbline.contracts import quality
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.verdict import Verdict


def audit(run: StageRun, table: str, version: int) -> None:
    """Holds a version of a table against its contract; the verdict is in `run.gates` as `contract:<table>`.

    Raises GateFailed that names each column that breaks it. The code is at fault and not what landed: no raw batch is
    set aside. Where the columns are right and a rule of the table is broken, it may be the rows: they are.
    """
    contract = contracts.load(table)
    found = contract_diff.of_table(table, version, contract)
    broken = [difference.told for difference in found if difference.breaking]
    for difference in found:
        if not difference.breaking:
            say(difference.told)
    if not broken:
        required = [c.name for c in contract.columns.values() if c.required]
        for name, rows in lake.nulls(table, version, required).items():
            if rows:
                broken.append(f"{table}@v{version}.{name} is null in {rows:,} rows, {contract.file}: always given")
    by_rules = not broken
    given = quality.run(contract.rules, lake.open_table(table, version)) if contract.rules and by_rules else []
    broken += [f"{table}@v{version}: {told}" for _, _, told in given if told]
    verdict = gates.record(
        run,
        Verdict(
            f"contract:{table}",
            not broken,
            len(contract.columns) + len(contract.rules),
            tuple(broken),
            extra={"contract": contract.version},
        ),
        {
            "versions": {table: version},
            "findings": [difference.as_dict() for difference in found],
            "rules": quality.evidence(given),
        },
        name=f"contract-{table}",
    )
    if broken:
        raise GateFailed(
            f"{table}@v{version} breaks {contract.file} {contract.version}, nothing is published:\n  "
            + "\n  ".join(broken)
            + f"\n  Evidence: {verdict.report}. "
            + (
                "What was landed is set aside: mend the rows at their source, the code or the rule, and start over "
                f"with `plumb {run.product.daily_stages[0]} --as-of {run.as_of}`."
                if by_rules
                else f"Mend what writes it and run `plumb {run.name} --as-of {run.as_of}` again, or change the "
                "contract first (docs/contracts-and-quarantine.md)."
            ),
            sets_aside=by_rules,
        )
