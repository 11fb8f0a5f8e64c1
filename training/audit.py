"""What gates said of a dataset and of its release's lineage: training takes none without the leakage gates' word."""

from __future__ import annotations

from typing import Any

from plumbline import files, provenance
from plumbline.errors import GateFailed
from plumbline.state import objects, trainings
from training import datasets
from training.errors import TrainingError


def require_passed(release_id: int) -> dict[str, Any]:
    """The verdict `leakage.json` on the dataset of a release: passed, for exactly this file, by this code.

    Raises GateFailed when a gate failed on it, TrainingError when they have not looked at it yet.
    """
    verdict = objects.read_json(datasets.key(release_id, trainings.LEAKAGE))
    rows = objects.read(datasets.key(release_id, trainings.ROWS))
    digest = files.sha256(rows.content) if rows else None
    judged = verdict is not None and (verdict["file_sha256"], verdict["code_sha"]) == (digest, provenance.code_sha())
    if verdict is None or not judged:
        raise TrainingError(
            f"the leakage gates of this code have not looked at the dataset of release {release_id} as it is: "
            f"run `plumb leakage_check --release {release_id}` first"
        )
    if verdict["verdict"] != "passed":
        failed = [name for name, gate in verdict["gates"].items() if gate["verdict"] != "passed"]
        raise GateFailed(
            f"{', '.join(failed)} failed on {verdict['dataset_id']}: it is not trained on. "
            f"`plumb leakage_check --release {release_id}` says why"
        )
    return verdict


def refuse_holes(release_id: int) -> None:
    """Raises GateFailed when the newest verdict on the release's lineage is that it has a hole.

    A release that the gate has not looked at passes here: in the DAG the gate comes first.
    """
    verdict = objects.read_json(datasets.key(release_id, trainings.LINEAGE))
    if verdict is not None and verdict["verdict"] != "passed":
        raise GateFailed(
            f"the lineage of release {release_id} is not whole, nothing is trained on it: "
            f"`plumb lineage_check --release {release_id}` says which, and what mends it"
        )
