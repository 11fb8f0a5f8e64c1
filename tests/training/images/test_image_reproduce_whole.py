"""A classifier made again byte for byte, after new images, re-annotations and a new preprocessing version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plumbline.settings import settings
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.images import IMAGES
from tests import images_home
from tests.images_home import FIRST, NOW, SECOND, THIRD
from tests.training.test_reproduce_whole import Tree


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_old_classifier_is_made_again_byte_for_byte(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_NOW", NOW)
    settings.cache_clear()
    tree = Tree(tmp_path / "tree", home)
    images_home.land(images_home.pictures(100), FIRST)
    for version in ("v1", "v2"):
        images_home.embed_all(version)
    images_home.publish(FIRST)
    images_home.review(dict.fromkeys(sorted(one.image_id for one in images_home.pictures(2)), "owl"), SECOND)
    images_home.publish(SECOND)
    # Not the newest service, nor the newest labels: the rebuild must ask for the same.
    asked = ("--release", "2", "--service", "images_v1", "--cutoff", str(FIRST))
    for command in ("dataset", "leakage_check", "train", "register"):
        tree.plumb("images", command, *asked)
    place = Place(IMAGES, 2, service="images_v1", cutoff=FIRST)
    about = objects.read_json(place.key(trainings.ABOUT)) or {}
    trained = tree.git("rev-parse", "HEAD")
    # Through Feast it is what the tables give when they are read another way, and what the first day's release gives.
    assert images_home.write_dataset(place)["content_hash"] == about["content_hash"]
    assert images_home.write_dataset(Place(IMAGES, 1))["content_hash"] == about["content_hash"]

    # New images, new labels for old ones, more embeddings of both versions, and another model in the code.
    images_home.review(dict.fromkeys(sorted(one.image_id for one in images_home.pictures(9)), "cat"), THIRD)
    images_home.land(images_home.pictures(30, first=100), THIRD)
    for version in ("v1", "v2"):
        images_home.embed_all(version)
    images_home.publish(THIRD)
    path = tree.folder / "training" / "images" / "classifier.py"
    path.write_text(path.read_text().replace("c: float = 0.03", "c: float = 0.2"))
    assert tree.commit("Another penalty") != trained
    objects.delete(place.key(trainings.ROWS))

    told = reproduced(tree, "image_logreg:1")
    assert told["broken"] is None, told
    links = {link["name"]: link["rebuilt"] for link in told["links"]}
    assert links["code_sha"] == trained
    assert links["dataset_content_hash"] == about["content_hash"]
    assert {"labels_version", "clean_version", "raw_version", "model bytes", "metrics", "params"} < set(links)
    assert f"{about['split_counts']['test']} predictions" in links
    assert not list((home / "tmp").glob("*")), "neither worktree nor workspace is left"

    # Files that the run was made from are gone: that link is named.
    for file in (home / "lake" / "clean" / "images").glob("*.parquet"):
        file.unlink()
    told = reproduced(tree, "image_logreg:1", code=1)
    assert told["broken"] == "clean_version" and "files are gone" in told["message"]


def reproduced(tree: Tree, run: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tree.plumb("reproduce", run, "--json", code=code).splitlines()[-1])
    return found
