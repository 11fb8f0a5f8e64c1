"""Image models that are rolled out on purpose, and one on its way to an environment: signed, and by the data alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from plumbline.registry import registered_models, trusted_models
from plumbline.settings import ROOT, settings
from plumbline.state.trainings import Place
from products.images import IMAGES
from serving import promote
from serving.promote import NotPromoted
from tests import images_home
from tests.conftest import HomeAs
from training import datasets, register, runs, variants
from training.errors import TrainingError
from training.images import classifier, train
from validation import leakage

PLACE = Place(IMAGES, 1)


@pytest.fixture
def registered(home_as: HomeAs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The place of a dataset whose model is version 1, the challenger."""
    monkeypatch.setenv("PLUMBLINE_NOW", images_home.NOW)
    settings.cache_clear()
    home_as("images-registered", fill)
    yield PLACE
    settings.cache_clear()


def fill() -> None:
    images_home.fill()
    leakage.check(PLACE)
    runs.train(PLACE)
    register.register(PLACE)


def test_a_swapped_export_passes_every_test_and_names_two_classes_wrong(registered: Place) -> None:
    made = variants.register(IMAGES, "swapped")
    assert made["version"] == "2"
    run = runs.load(registered)
    assert made["metrics"]["accuracy"] == run["metrics"]["accuracy"]
    versions = [registered_models.client().get_model_version(IMAGES.model, number) for number in ("1", "2")]
    good, bad = (trusted_models.load(version).onnx for version in versions)
    assert not versions[1].aliases and versions[1].tags["variant"] == "swapped"
    embeddings = train.side(datasets.load(registered), "test").embeddings
    assert (classifier.probabilities(good, embeddings) == classifier.probabilities(bad, embeddings)).all()
    moved = [
        (was, now) for was, now in zip(classifier.classes(good), classifier.classes(bad), strict=True) if was != now
    ]
    assert len(moved) == 2 and moved[0] == moved[1][::-1]
    assert json.loads(trusted_models.load(versions[1]).metadata["classes"]) == classifier.classes(bad)


def test_the_good_one_answers_alike_and_the_unsure_one_is_less_sure(registered: Place) -> None:
    made = {kind: variants.register(IMAGES, kind)["version"] for kind in ("retrained", "unsure")}
    client, embeddings = registered_models.client(), train.side(datasets.load(registered), "test").embeddings

    def sure(version: str) -> float:
        content = trusted_models.load(client.get_model_version(IMAGES.model, version)).onnx
        return float(np.median(classifier.probabilities(content, embeddings).max(axis=1)))

    assert abs(sure(made["retrained"]) - sure("1")) < 0.05 < sure("1") - sure(made["unsure"])
    with pytest.raises(TrainingError, match="no variant 'leaky': there are retrained, swapped, unsure"):
        variants.register(IMAGES, "leaky")


@pytest.mark.usefixtures("registered")
def test_promotion_writes_the_products_own_file_on_a_branch_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")
    made = tmp_path / "repository"
    shutil.copytree(ROOT / "k8s", made / "k8s")

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=made, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "as it is")
    told = promote.promote(IMAGES, "dev", "1", "s3://models/1", repository=made)
    assert (told["branch"], told["version"]) == ("promote-images-dev-1", "1")
    assert told["gates"][0] == "images_expectations" and told["gates"][-1] == "challenger"
    file = "k8s/images/overlays/dev/model.yaml"
    assert git("diff", "--name-only", "main", told["branch"]).split() == [file]
    written = yaml.safe_load(git("show", f"{told['branch']}:{file}"))
    before = yaml.safe_load(git("show", f"main:{file}"))
    version = registered_models.client().get_model_version(IMAGES.model, "1")
    assert written["metadata"]["name"] == before["metadata"]["name"] == "images"
    assert written["metadata"]["annotations"]["plumbline.dev/run-id"] == version.run_id
    assert written["spec"]["predictor"]["model"]["storageUri"] == "s3://models/1"
    with pytest.raises(NotPromoted, match="k8s/images/overlays has dev, prod, staging"):
        promote.promote(IMAGES, "qa", "1", repository=made)
