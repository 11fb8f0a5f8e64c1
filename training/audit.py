"""What gates said of a dataset and of its release's lineage: training takes none without the leakage gates' word."""

from __future__ import annotations

from typing import Any

from plumbline import files, provenance, verdict
from plumbline.errors import GateFailed
from plumbline.product import Product
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from training.errors import TrainingError


def require_passed(place: Place) -> dict[str, Any]:
    """The verdict `leakage.json` on a dataset: passed, for exactly this file, by this code.

    Raises GateFailed when a gate failed on it, TrainingError when they have not looked at it yet.
    """
    key = place.key(trainings.LEAKAGE)
    found = objects.read_json(key)
    rows = objects.read(place.key(trainings.ROWS))
    digest = files.sha256(rows.content) if rows else None
    gates = verdict.read((found or {}).get("gates"), objects.where(key))
    judged = found is not None and (found["file_sha256"], found["code_sha"]) == (digest, provenance.code_sha())
    if found is None or not judged or not gates:
        raise TrainingError(
            f"the leakage gates of this code have not looked at the dataset of release {place.name} as it is: "
            f"run `{place.command('leakage_check')}` first"
        )
    if failed := verdict.failed(gates.values()):
        raise GateFailed(
            f"{', '.join(failed)} failed on {found['dataset_id']}: it is not trained on. "
            f"`{place.command('leakage_check')}` says why"
        )
    return found


def refuse_holes(product: Product, release_id: int) -> None:
    """Raises GateFailed when the newest verdict on the release's lineage is that it has a hole.

    A release that the gate has not looked at passes here: in the DAG the gate comes first.
    """
    key = trainings.key(product.name, release_id, trainings.LINEAGE)
    found = objects.read_json(key) or {}
    if verdict.failed(verdict.read(found.get("gates"), objects.where(key)).values()):
        raise GateFailed(
            f"the lineage of release {release_id} is not whole, nothing is trained on it: "
            f"`{product.command_of('lineage_check')} --release {release_id}` says which, and what mends it"
        )
