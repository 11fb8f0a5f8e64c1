"""The image classifier on its way from a dataset to a registered challenger."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from plumbline import files, provenance
from plumbline.errors import Conflict
from plumbline.registry import trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.settings import ROOT, settings
from plumbline.state.trainings import Place
from products.images import IMAGES
from tests import images_home
from tests.conftest import inherited
from tests.images_home import SECOND, THIRD
from tests.serving.made_up_customers import eventually
from training import datasets, register, reproduce, runs, tracking
from training.errors import TrainingError
from training.images import classifier, train
from training.images.shelf import SHELF
from validation import leakage


@pytest.fixture
def trained(images: Place) -> dict[str, Any]:
    """What training on release 1 said."""
    leakage.check(images)
    return runs.train(images)


def artifacts(run: dict[str, Any]) -> Path:
    return next((settings().home / "mlflow" / "artifacts").rglob(f"{run['model_id']}/artifacts"))


def test_a_run_names_what_it_was_made_from(images: Place, trained: dict[str, Any]) -> None:
    about, run = datasets.load(images).about, runs.load(images)
    stored = tracking.client().get_run(run["mlflow_run_id"]).data
    made = ("dataset_id", "extraction_model", "preprocessing_version", "cleaning_version", "feature_service")
    assert {name: stored.params[name] for name in made} == {name: about[name] for name in made}
    assert stored.params["dataset_content_hash"] == about["content_hash"]
    assert stored.params["dataset_cutoff"] == "2026-06-02T00:00:00+00:00"
    assert stored.params["data_version"] == "delta:features.image_embeddings_v1@v=0"
    assert {"code_sha", "lock_hash", "release_id", "c", "seed"} <= set(stored.params)
    assert {"accuracy", "log_loss", "recall_cat", "val_accuracy", "val_recall_owl"} <= set(stored.metrics)
    assert stored.metrics["accuracy"] > stored.metrics["baseline_majority_accuracy"] + 0.3
    assert trained["what"].startswith("accuracy 0.") and "of the most frequent class" in trained["what"]


def test_the_model_is_one_onnx_file_and_its_pictures_are_there(images: Place, trained: dict[str, Any]) -> None:
    run = runs.load(images)
    folder = artifacts(run)
    names = {path.name for path in folder.iterdir()}
    assert names == {"MLmodel", "model.onnx", "conda.yaml", "python_env.yaml", "requirements.txt"}
    content = (folder / "model.onnx").read_bytes()
    assert files.sha256(content) == run["model_sha256"]
    assert classifier.classes(content) == list(images_home.CLASSES)
    test = train.side(datasets.load(images), "test")
    right = np.array(classifier.classes(content))[classifier.probabilities(content, test.embeddings).argmax(axis=1)]
    assert round(float((right == test.labels).mean()), 6) == run["metrics"]["accuracy"]
    plots = {path.name for path in (settings().home / "mlflow" / "artifacts").rglob("*.png")}
    assert plots == {"confusion.png", "misclassified.png"}


def test_again_changes_nothing_and_anew_gives_the_same_bytes(images: Place, trained: dict[str, Any]) -> None:
    assert runs.train(images)["state"] == "unchanged"
    (artifacts(runs.load(images)) / "model.onnx").write_bytes(b"\x08 another")
    anew = runs.train(images)
    assert anew["state"] == "done"
    assert anew["versions"]["model_sha256"] == trained["versions"]["model_sha256"]
    assert anew["metrics"] == trained["metrics"]


def test_it_is_signed_and_challenges_by_the_rule(
    images: Place, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.client()
    told = register.register(images)
    assert told["what"] == "image_logreg version 1 is challenger: there is no champion yet"
    assert register.register(images)["state"] == "unchanged"
    version = client.get_model_version(IMAGES.model, "1")
    model = trusted_models.load(version)
    assert files.sha256(model.onnx) == runs.load(images)["model_sha256"]
    assert json.loads(model.metadata["classes"]) == list(images_home.CLASSES)
    assert model.metadata["feature_service"] == version.tags["feature_service"] == "images_v1"
    assert {name: version.tags[name] for name in register.tags(SHELF)} == {
        name: model.metadata[name] for name in register.tags(SHELF)
    }
    client.set_registered_model_alias(IMAGES.model, tracking.CHAMPION, "1")

    worse = next_release(SECOND, monkeypatch, c=1e-6)
    assert "version 2 holds no alias: log loss" in worse["what"] and "is not accepted" in worse["what"]
    equal = next_release(THIRD, monkeypatch)
    assert "version 3 is challenger: log loss" in equal["what"]

    # An altered champion is no measure, and is not loaded.
    (artifacts(runs.load(images)) / "model.onnx").write_bytes(b"\x08 another")
    with pytest.raises(Untrusted, match=r"after it was signed was altered in model\.onnx"):
        trusted_models.load(version)


def next_release(day: Any, monkeypatch: pytest.MonkeyPatch, **changed: float) -> dict[str, Any]:
    """A release of the day with some more images, trained with these parameters and registered."""
    images_home.land(images_home.pictures(8, first=100 + 8 * day.day), day)
    images_home.embed_all()
    place = Place(IMAGES, images_home.publish(day).release_id)
    images_home.write_dataset(place)
    leakage.check(place)
    with monkeypatch.context() as patch:
        plain = classifier.Params
        patch.setattr(classifier, "Params", lambda: replace(plain(), **changed))  # type: ignore[arg-type]
        runs.train(place)
        return register.register(place)


def test_a_champion_of_another_feature_service_is_scored_on_its_own_embeddings(
    images: Place, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.client()
    register.register(images)
    client.set_registered_model_alias(IMAGES.model, tracking.CHAMPION, "1")
    images_home.embed_all("v2")
    place = Place(IMAGES, images_home.publish(SECOND).release_id, service="images_v2")
    images_home.write_dataset(place, "v2")
    leakage.check(place)
    runs.train(place)
    told = register.register(place)
    champion = trained["metrics"]["log_loss"]
    assert f"against the champion's {champion:.4f} on the same test rows" in told["what"]
    assert runs.load(place)["metrics"]["log_loss"] != champion


def test_mlflow_alone_says_what_a_run_was_made_from(images: Place, trained: dict[str, Any]) -> None:
    client: MlflowClient = tracking.client()
    register.register(images)
    found = reproduce.recover(client, trained["versions"]["mlflow_run_id"])
    assert found.product is IMAGES and found.place == images
    tables = ("features.image_embeddings_v1", "raw.image_labels", "clean.images", "raw.images")
    assert found.tables == dict.fromkeys(tables, 0)
    assert reproduce.recover(client, "image_logreg:1") == found
    assert reproduce._manifest(found)["tables"].keys() >= found.tables.keys()
    with pytest.raises(TrainingError, match="MLflow has no run 'model:1'"):
        reproduce.recover(client, "model:1")  # churn's, and there is none
    stranger = client.create_run(client.create_experiment("notebook")).info.run_id
    client.set_terminated(stranger)
    with pytest.raises(TrainingError, match="is in the experiment 'notebook': expected one of churn_xgb, image_logreg"):
        reproduce.recover(client, stranger)


def test_training_that_was_killed_is_done_again_and_gives_the_same(
    images: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_LEASE_SECONDS", "3")
    monkeypatch.setenv("PLUMBLINE_CODE_SHA", provenance.code_sha())  # whatever changes in the checkout meanwhile
    settings.cache_clear()
    leakage.check(images)
    expected = files.sha256(SHELF.fit(datasets.load(images)).content)
    begun = subprocess.Popen([sys.executable, "-m", "plumb", "images", "train"], cwd=ROOT, env=inherited())
    drawn = datasets.folder(images) / "plots" / "confusion.png"
    eventually(drawn.exists, seconds=60)
    begun.kill()
    assert begun.wait() == -9

    def trained() -> dict[str, Any] | None:
        try:
            return runs.train(images)
        except Conflict:  # until the lease of the killed one runs out
            return None

    told = eventually(trained, seconds=30)
    assert (told["state"], told["versions"]["model_sha256"]) == ("done", expected)
    client = tracking.client()
    found = client.search_runs([tracking.experiment_id(client, IMAGES)])
    assert sorted(run.info.status for run in found) == ["FINISHED", "KILLED"]
    assert runs.train(images)["state"] == "unchanged"
