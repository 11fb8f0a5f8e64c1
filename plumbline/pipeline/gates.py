"""How every gate keeps its word: evidence under one key, the verdict where stage and ledger take it from.

A gate builds a `Verdict`, records it, and raises GateFailed when it does not pass. Evidence of a run lies under
`evidence/<run_id>/<name>.json`; no other module writes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from plumbline import verdict as verdicts
from plumbline.pipeline.stage import StageRun
from plumbline.state import objects
from plumbline.verdict import Verdict


@dataclass
class Audit:
    """Where a gate outside the daily run gathers its verdicts. `head` is what its evidence begins with."""

    run_id: str
    head: Mapping[str, Any] = field(default_factory=dict)
    gates: dict[str, Verdict] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """The verdicts so far, as an event of the ledger has them."""
        return {"gates": verdicts.as_dicts(self.gates)}


def record(
    run: StageRun | Audit, verdict: Verdict, evidence: Mapping[str, Any] | None, name: str | None = None
) -> Verdict:
    """Records one gate's verdict and writes its evidence; gives the verdict with its report.

    The evidence file has the gate's name, or another `name`. With None as evidence no file is written.
    """
    if evidence is None:
        run.gates[verdict.gate] = verdict
        return verdict
    key = evidence_key(_run_id(run), name or verdict.gate)
    reported = run.gates[verdict.gate] = replace(verdict, report=report_of(key))
    write_evidence(key, {**_head(run), **reported.as_dict(), **evidence})
    return reported


def record_all(
    run: StageRun | Audit, found: Iterable[Verdict], evidence: Mapping[str, Any], name: str
) -> dict[str, Verdict]:
    """Records the verdicts of gates that share one evidence file; gives them with its path, by their gates."""
    key = evidence_key(_run_id(run), name)
    reported = {verdict.gate: replace(verdict, report=report_of(key)) for verdict in found}
    run.gates.update(reported)
    write_evidence(key, {**_head(run), **evidence, "gates": verdicts.as_dicts(reported)})
    return reported


def evidence_key(run_id: str, name: str) -> str:
    """Where a run's evidence of that name lies, in the state."""
    return f"evidence/{run_id}/{name}.json"


def report_of(key: str) -> str:
    """What a verdict names as its report: the place where a reader finds this evidence."""
    return objects.where(key)


def write_evidence(key: str, content: Mapping[str, Any]) -> None:
    """Puts evidence under its key, in place of what an earlier try left there."""
    objects.replace_json(key, dict(content))


def _run_id(run: StageRun | Audit) -> str:
    return run.run_id if isinstance(run, Audit) else run.candidate.run_id


def _head(run: StageRun | Audit) -> dict[str, Any]:
    if isinstance(run, Audit):
        return {"run_id": run.run_id, **run.head}
    return {"run_id": run.candidate.run_id, "as_of": run.as_of}
