"""The registry: each trained run becomes one version, and a version that is not worse than the champion challenges it.

Champion and candidate are scored on the same test rows, those of the candidate's dataset, each with the features of
its own FeatureService at this release. A champion trained at a later release (after an undo) may have seen them: the
comparison then favours the champion, which is the safe side.

Its files are signed before it is a version (signing.py), if they hold the very model that was trained. A
champion whose signature does not hold is not loaded, so there is nothing to compare with.

The rule: the candidate's mean log loss may exceed the champion's by at most TOLERANCE. Log loss, because what is
served is the probability, not a ranking. Without a champion there is nothing to be worse than.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline import files, observed
from plumbline.pipeline import stage
from plumbline.product import Product
from plumbline.registry import signing, trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.registry.trusted_models import SIGNED_BY
from plumbline.state.trainings import Place
from training import datasets, runs, shelf, tracking
from training.datasets import Dataset
from training.errors import TrainingError
from training.shelf import Shelf

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TOLERANCE = 0.002
"""Nats a row. On CDNOW (23,570 test rows) three other seeds moved the log loss by up to 0.0003; the model is 0.0036
better than BG/NBD, so that what is accepted here costs at most about half of that lead."""

STAGE = "register"


def tags(part: Shelf) -> tuple[str, ...]:
    """What a version's tags say of where it came from, beside its run."""
    return (*part.named, "code_sha", "lock_hash")


def register(place: Place) -> dict[str, Any]:
    """Registers the model trained on a dataset; makes it challenger if it may be.

    The same run is registered once; it is judged again only when there is another champion than the one it met.
    Raises TrainingError when nothing was trained, or the dataset has changed since.
    """
    product, part = place.product, shelf.of(place.product)
    with datasets.working(product, STAGE):
        run, data = runs.load(place), datasets.load(place)
        if run[shelf.hash_name(part)] != data.about["content_hash"]:
            raise TrainingError(
                f"the model of release {place.name} was trained on {run['dataset_id']}, the dataset is "
                f"{data.about['dataset_id']} now: run `{place.command(runs.STAGE)}` first"
            )
        mlflow_client = tracking.client()
        version = version_of(mlflow_client, product, run["mlflow_run_id"])
        champion = champion_of(mlflow_client, product)
        if version is not None and _judged(version, champion) and _is_signed(version):
            return _told("unchanged", version, run, part, 0.0)
        entry = stage.recorded(product, place.head(STAGE), lambda: _register(mlflow_client, place, run, data, champion))
        version = mlflow_client.get_model_version(product.model, entry["version"])
        return _told("done", version, run, part, entry["seconds"])


def version_of(mlflow_client: MlflowClient, product: Product, run_id: str) -> ModelVersion | None:
    """The registered version of a run, None when it is not registered."""
    found = mlflow_client.search_model_versions(f"name = '{product.model}' and run_id = '{run_id}'")
    # A search leaves the aliases out.
    return mlflow_client.get_model_version(product.model, found[0].version) if found else None


def champion_of(mlflow_client: MlflowClient, product: Product) -> ModelVersion | None:
    """The version with the alias `champion`, None when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return mlflow_client.get_model_version_by_alias(product.model, tracking.CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise  # a registry that does not answer must not pass for one without a champion


def judge(candidate: float, champion: float, tolerance: float = TOLERANCE) -> tuple[bool, str]:
    """Whether a candidate with this log loss may challenge a champion with that one, and a sentence that says why."""
    difference = candidate - champion
    sentence = f"log loss {candidate:.4f} against the champion's {champion:.4f} on the same test rows"
    if difference <= tolerance:
        return True, f"{sentence}: not worse by more than {tolerance}"
    return False, f"{sentence}: worse by {difference:.4f}, more than {tolerance} is not accepted"


def _register(
    mlflow_client: MlflowClient, place: Place, run: dict[str, Any], data: Dataset, champion: ModelVersion | None
) -> dict[str, Any]:
    name, part = place.product.model, shelf.of(place.product)
    version = version_of(mlflow_client, place.product, run["mlflow_run_id"])
    if version is None or not _is_signed(version):
        version = _signed(mlflow_client, place, run, version)
    accepted, why = _judge(run, data, champion, part)
    # The verdict goes last: a command that is killed before it judges again.
    if accepted:
        mlflow_client.set_registered_model_alias(name, tracking.CHALLENGER, version.version)
    elif tracking.CHALLENGER in version.aliases:
        mlflow_client.delete_registered_model_alias(name, tracking.CHALLENGER)
    for tag, value in (("verdict", why), ("judged_against", champion.version if champion else "none")):
        mlflow_client.set_model_version_tag(name, version.version, tag, str(value))
    observed.wrote(place.product.models, version.version)
    return {
        "message": f"version {version.version} {'is challenger' if accepted else 'is not challenger'}: {why}",
        "version": str(version.version),
        "challenger": accepted,
        "verdict": why,
        "model_id": run["model_id"],
        "signed_by": version.tags[SIGNED_BY],
    }


def _judge(run: dict[str, Any], data: Dataset, champion: ModelVersion | None, part: Shelf) -> tuple[bool, str]:
    if champion is None:
        return True, "there is no champion yet"
    try:
        theirs = _champion_log_loss(champion, data, part)
    except Untrusted as refused:
        return True, f"the champion is not trusted, so it is no measure: {refused}"
    return judge(run["metrics"]["log_loss"], theirs)


def _is_signed(version: ModelVersion) -> bool:
    """By the key that signs here now: one from before models were signed, or of an older key, is signed anew."""
    return signing.is_ours(version.tags.get(trusted_models.SIGNATURE, ""))


def _signed(
    mlflow_client: MlflowClient, place: Place, run: dict[str, Any], version: ModelVersion | None
) -> ModelVersion:
    """The run's version with a signature: made with it, or signed anew.

    Raises TrainingError when MLflow's files do not hold the model that was trained.
    """
    signed, data = trusted_models.sign(run["model_uri"], f"the model of run {run['mlflow_run_id']}")
    if files.sha256(data) != run["model_sha256"]:
        raise TrainingError(
            f"{run['model_uri']} holds a model with SHA-256 {files.sha256(data)}, trained was {run['model_sha256']}: "
            f"it was altered in MLflow and is not signed; `{place.command(runs.STAGE)}` makes it anew"
        )
    if version is None:
        return _create(
            mlflow_client, place.product, run, {trusted_models.SIGNATURE: signed.bundle, SIGNED_BY: signed.by}
        )
    trusted_models.note(version, signed)
    return mlflow_client.get_model_version(version.name, version.version)


def _create(
    mlflow_client: MlflowClient, product: Product, run: dict[str, Any], signature: dict[str, str]
) -> ModelVersion:
    from mlflow.exceptions import RESOURCE_ALREADY_EXISTS, ErrorCode, MlflowException

    part = shelf.of(product)
    try:
        mlflow_client.create_registered_model(product.model, description=part.description())
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    named = {name: str(run[name]) for name in tags(part)} | {"run_id": run["mlflow_run_id"]} | signature
    return mlflow_client.create_model_version(
        product.model, run["model_uri"], run["mlflow_run_id"], tags=named, model_id=run["model_id"]
    )


def _champion_log_loss(champion: ModelVersion, data: Dataset, part: Shelf) -> float:
    """The champion's mean log loss on this dataset's test rows."""
    trusted = trusted_models.load(champion)
    service = champion.tags.get("feature_service")
    if service is None:
        raise TrainingError(
            f"champion version {champion.version} does not name its feature_service in a tag: it cannot be compared"
        )
    return part.log_loss(trusted, service, data)


def _judged(version: ModelVersion, champion: ModelVersion | None) -> bool:
    # MLflow gives a version's number as text or as a number, by the call.
    theirs = str(champion.version) if champion else "none"
    return theirs == str(version.version) or version.tags.get("judged_against") == theirs


def _told(state: str, version: ModelVersion, run: dict[str, Any], part: Shelf, seconds: float) -> dict[str, Any]:
    roles = [alias for alias in (tracking.CHAMPION, tracking.CHALLENGER) if alias in version.aliases]
    role = f"is {' and '.join(roles)}" if roles else "holds no alias"
    return {
        "state": state,
        "what": f"{version.name} version {version.version} {role}: {version.tags.get('verdict', 'not judged yet')}",
        "versions": {"version": str(version.version), **{name: run[name] for name in ("mlflow_run_id", *tags(part))}},
        "signed_by": version.tags.get(SIGNED_BY),
        "metrics": {name: run["metrics"][name] for name in part.shown},
        "seconds": seconds,
    }
