"""The gates between dataset and training: a model that knows what it could not have known is not made.

They look at a dataset's file, at dataset.json beside it, and at the tables that it names, at their versions. The
verdict is `leakage.json` in the same folder, for exactly this file and this code: `plumb train` asks for it. Which
gates there are, a product's shelf says: `validation/<product>/leakage.py`.
"""

from __future__ import annotations

import pkgutil
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline import files, observed, provenance
from plumbline import verdict as verdicts
from plumbline.errors import GateFailed
from plumbline.pipeline import gates, leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import acceptances, objects, releases, trainings
from plumbline.state.trainings import Place
from plumbline.verdict import Verdict
from validation.leakage_findings import Audited, Finding

if TYPE_CHECKING:
    import pandas as pd

STAGE = "leakage_check"
SHOWN = 5
"""Findings of a gate that its message tells; the evidence has them all."""


def check(place: Place) -> dict[str, Any]:
    """Judges a dataset, or finds it judged by the same code already.

    Raises GateFailed when a gate fails, with each finding, its rows and some keys; PlumblineError without a dataset.
    """
    with leases.lease(place.product, STAGE, "training"):
        content, before = _content(place), judged(place)
        found = objects.read_json(place.key(trainings.LEAKAGE))
        passed = bool(before) and not verdicts.failed(before.values())
        if found is not None and passed and _same(found, files.sha256(content)):
            return {"state": "unchanged", **found}
        head = place.head(STAGE)
        audit = gates.Audit(head["run_id"])
        entry = stage.recorded(place.product, head, lambda: _judge(place, content, audit), audit.told)
        return {"state": "done", **entry}


def verdict(place: Place) -> dict[str, Any]:
    """What the gates say of it, passed or failed, without stopping anything: for the twin, which is made to fail."""
    try:
        check(place)
    except GateFailed:
        say(f"the leakage gates reject {place.where}")
    return objects.read_json(place.key(trainings.LEAKAGE)) or {}


def judged(place: Place) -> dict[str, Verdict]:
    """The verdicts on a dataset so far. Raises Unreadable where they are none."""
    key = place.key(trainings.LEAKAGE)
    return verdicts.read((objects.read_json(key) or {}).get("gates"), objects.where(key))


def _judge(place: Place, content: bytes, audit: gates.Audit) -> dict[str, Any]:
    import yaml

    about = objects.read_json(place.key(trainings.ABOUT)) or {}
    observed.read(place.product.dataset, about["dataset_id"])
    audited = Audited(about, _rows(content))
    say(f"leakage gates over {about['dataset_id']}: {len(audited.rows):,} rows, {len(audited.features)} features")
    shelf = _shelf(place.product)
    limits = yaml.safe_load(shelf.limits().read_text())
    found: dict[str, list[Finding]] = shelf.findings(audited, limits)
    said = [_verdict(place, name, findings) for name, findings in found.items()]
    failed = [one.gate for one in said if not one.passed]
    verdict = {
        "verdict": verdicts.FAILED if failed else verdicts.PASSED,
        "dataset_id": about["dataset_id"],
        "content_hash": about["content_hash"],
        "file_sha256": files.sha256(content),
        "code_sha": provenance.code_sha(),
    }
    told = {name: [f.as_dict() for f in findings] for name, findings in found.items()}
    reported = gates.record_all(audit, said, {**verdict, "limits": limits, "findings": told}, name=STAGE)
    verdict |= audit.told()
    objects.replace_json(place.key(trainings.LEAKAGE), verdict)
    if failed:
        lines = "\n  ".join(f"{name}: {told}" for name in failed for told in _first(reported[name].failed))
        raise GateFailed(
            _refusal(place, failed, f"{about['dataset_id']}, nothing is trained on it:\n  {lines}", reported)
        )
    looked = sum(len(findings) for findings in found.values())
    return {"message": f"{about['dataset_id']}: {looked} checks of {len(found)} leakage gates hold", **verdict}


def _verdict(place: Place, gate: str, findings: list[Finding]) -> Verdict:
    """A gate's verdict: with findings it passes where somebody accepted them for that day; never the twin's."""
    told = tuple(finding.told for finding in findings if finding.failed)
    accepted = None
    if told and not place.leaky:
        accepted = acceptances.accepted(place.product.name, gate, _day(place))
    return Verdict(gate, not told or accepted is not None, len(findings), told, accepted=accepted)


def _refusal(place: Place, failed: list[str], told: str, reported: dict[str, Verdict]) -> str:
    shelf = _shelf(place.product)
    honest = [gate for gate in failed if gate in place.product.acceptable_in_training and not place.leaky]
    accept = "".join(
        f" If these features are honest, accept them for this release: `plumb gate accept {gate} --as-of {_day(place)} "
        f"--why …`, then `{place.command(STAGE)}`. If they always will be, change the limit."
        for gate in honest
    )
    return (
        f"{', '.join(failed)} failed on {told}\n"
        f"  Evidence: {reported[failed[0]].report}; limits and reasons: {shelf.limits_name()}.{accept} "
        f"Else {shelf.ADVICE.format(command=place.command('dataset'))}"
    )


def _shelf(product: Product) -> Any:
    """The product's module of leakage gates."""
    return pkgutil.resolve_name(f"validation.{product.name}.leakage")


def _day(place: Place) -> date:
    return releases.required(place.product.name, place.release_id).as_of


def _first(told: tuple[str, ...]) -> list[str]:
    return [*told[:SHOWN], f"and {len(told) - SHOWN} more, in the evidence"] if len(told) > SHOWN + 1 else list(told)


def _content(place: Place) -> bytes:
    """The bytes of the dataset's Parquet file."""
    rows, about = objects.read(place.key(trainings.ROWS)), objects.read(place.key(trainings.ABOUT))
    if rows is None or about is None:
        raise releases.ReleaseError(f"no dataset in {place.where} yet: run `{place.command('dataset')}` first")
    return rows.content


def _same(verdict: dict[str, Any], digest: str) -> bool:
    return bool(verdict["file_sha256"] == digest and verdict["code_sha"] == provenance.code_sha())


def _rows(content: bytes) -> pd.DataFrame:
    """The dataset's rows with `day`, the observed day, in days since 1970-01-01."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas()
    microseconds = rows["event_timestamp"].astype("datetime64[us, UTC]").astype("int64")
    return rows.assign(day=microseconds // 86_400_000_000 - 1)
