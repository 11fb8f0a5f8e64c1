"""An image dataset by its stage: Feast on Spark, DVC, and the same content as the tables give when read another way."""

from __future__ import annotations

from pathlib import Path

import pytest

from plumbline.errors import ServiceUnavailable
from plumbline.lineage import graph
from plumbline.lineage.runs import EventFile
from plumbline.settings import settings
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.images import IMAGES
from tests import images_home
from tests.images_home import FIRST, NOW, SECOND
from training import datasets
from training.errors import TrainingError
from training.images import dataset, versions


@pytest.mark.slow
def test_a_dataset_through_feast_spark_and_dvc(
    home: Path, with_spark: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_NOW", NOW)
    settings.cache_clear()
    images_home.fill()
    place = dataset.place()
    assert place == Place(IMAGES, 1)
    plain = datasets.load(place).about
    objects.delete(place.key(trainings.ABOUT))

    # Killed when the rows are there and DVC is not asked yet, as without its environment: nothing counts as built.
    with monkeypatch.context() as patch:
        patch.setattr(versions, "ENVIRONMENTS", Path("/nowhere"))
        with pytest.raises(ServiceUnavailable, match="no DVC at"):
            dataset.build(place)
    told = dataset.build(place)
    assert (told["state"], told["versions"]["content_hash"]) == ("done", plain["content_hash"])
    assert dataset.build(place)["state"] == "unchanged"
    about = datasets.load(place).about
    assert {name: about[name] for name in plain if name not in ("seconds", "code_sha")} == {
        name: plain[name] for name in plain if name not in ("seconds", "code_sha")
    }
    assert versions.checkout(about["dataset_id"], tmp_path)["content_hash"] == plain["content_hash"]
    known = graph.of(about["dataset_id"], EventFile(), IMAGES)
    made_from = {name.partition("@")[0] for name in known.made_from(f"training.images@{about['dataset_id']}")}
    assert {"features.image_embeddings_v1", "raw.image_labels", "clean.images"} <= made_from

    # The next release has a second version of embeddings: the newest service is what is asked, the older one by name.
    images_home.land(images_home.pictures(10, first=100), SECOND)
    for version in ("v1", "v2"):
        images_home.embed_all(version)
    images_home.publish(SECOND)
    assert dataset.place(service="images_v2") == dataset.place() == Place(IMAGES, 2)
    dataset.build(dataset.place())
    newer = datasets.load(Place(IMAGES, 2)).about
    assert (newer["feature_service"], newer["preprocessing_version"]) == ("images_v2", "v2")
    old = dataset.place(2, "images_v1", FIRST)
    assert old.name == "2-images_v1-2026-06-01"
    dataset.build(old)
    assert datasets.load(old).about["content_hash"] == plain["content_hash"], "the old cutoff gives the old dataset"

    with pytest.raises(TrainingError, match="no feature service 'images_v9': there are images_v1, images_v2"):
        dataset.place(service="images_v9")
    with pytest.raises(TrainingError, match="release 1 reaches 2026-06-01, expected that day or an earlier one"):
        dataset.place(1, cutoff=SECOND)
