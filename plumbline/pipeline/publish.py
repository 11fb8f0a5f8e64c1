"""The release stage: what the run wrote and the gates passed becomes the next numbered release."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from plumbline import clock, observed, provenance, verdict
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.state import releases
from plumbline.verdict import Verdict


def publish(run: StageRun) -> str:
    """Publishes the run's candidate. Raises GateFailed unless every gate passed, Conflict when it came too late."""
    candidate = run.candidate
    failed = verdict.failed(candidate.gates.values())
    if failed or not candidate.gates:
        raise GateFailed(f"{candidate.run_id} is not published: " + (f"gates {failed}" if failed else "no gate ran"))
    tables = {**(run.base.tables if run.base else {}), **candidate.tables}
    release = releases.Release(
        release_id=(candidate.base or 0) + 1,
        product=candidate.product,
        as_of=candidate.as_of,
        base=candidate.base,
        tables=dict(sorted(tables.items())),
        gates=candidate.gates,
        code_sha=provenance.code_sha(),
        lock_hash=provenance.lock_hash(),
        run_id=candidate.run_id,
        published_at=clock.now().isoformat(),
        rejected=candidate.rejected,
        accepted=_accepted(candidate.gates),
    )
    for table, version in release.tables.items():
        lake.open_table(table, version)  # a release never names a version that cannot be read
    releases.publish(release, run.lease)
    observed.wrote(run.product.releases, release.release_id)
    run.facts["release_id"] = release.release_id
    return f"release {release.release_id} is in force: {len(tables)} tables as of {release.as_of}"


def _accepted(gates: dict[str, Verdict]) -> list[dict[str, Any]]:
    """What was let through: gate, why, by, at, and what it found."""
    return [{**asdict(one.accepted), "found": list(one.failed)} for one in gates.values() if one.accepted]
