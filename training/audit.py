"""What gates said of a dataset and of its release's lineage: training takes none without the leakage gates' word."""

from __future__ import annotations

from typing import Any

from plumbline import files, provenance, verdict
from plumbline.errors import GateFailed
from plumbline.state import objects, trainings
from training import datasets
from training.errors import TrainingError


def require_passed(release_id: int) -> dict[str, Any]:
    """The verdict `leakage.json` on the dataset of a release: passed, for exactly this file, by this code.

    Raises GateFailed when a gate failed on it, TrainingError when they have not looked at it yet.
    """
    key = datasets.key(release_id, trainings.LEAKAGE)
    found = objects.read_json(key)
    rows = objects.read(datasets.key(release_id, trainings.ROWS))
    digest = files.sha256(rows.content) if rows else None
    gates = verdict.read((found or {}).get("gates"), objects.where(key))
    judged = found is not None and (found["file_sha256"], found["code_sha"]) == (digest, provenance.code_sha())
    if found is None or not judged or not gates:
        raise TrainingError(
            f"the leakage gates of this code have not looked at the dataset of release {release_id} as it is: "
            f"run `plumb leakage_check --release {release_id}` first"
        )
    if failed := verdict.failed(gates.values()):
        raise GateFailed(
            f"{', '.join(failed)} failed on {found['dataset_id']}: it is not trained on. "
            f"`plumb leakage_check --release {release_id}` says why"
        )
    return found


def refuse_holes(release_id: int) -> None:
    """Raises GateFailed when the newest verdict on the release's lineage is that it has a hole.

    A release that the gate has not looked at passes here: in the DAG the gate comes first.
    """
    key = datasets.key(release_id, trainings.LINEAGE)
    found = objects.read_json(key) or {}
    if verdict.failed(verdict.read(found.get("gates"), objects.where(key)).values()):
        raise GateFailed(
            f"the lineage of release {release_id} is not whole, nothing is trained on it: "
            f"`plumb lineage_check --release {release_id}` says which, and what mends it"
        )
