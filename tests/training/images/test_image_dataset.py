"""What is in an image dataset: which images, which labels, which side; and what refuses to become one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from plumbline import clock
from plumbline.servers import services
from plumbline.state import releases
from plumbline.state.trainings import Place
from products.images import CLEAN, EMBEDDINGS, IMAGES, LABELS, RAW
from tests import images_home
from tests.images_home import FIRST, SECOND, THIRD
from training import datasets
from training.errors import TrainingError
from training.images import dataset


def rows_of(place: Place) -> dict[str, dict[str, Any]]:
    """image_id → the dataset's row."""
    return {row["image_id"]: row for row in datasets.load(place).rows.to_pylist()}


def pins_of(place: Place) -> dataset.Pins:
    release = releases.read(IMAGES.name, place.release_id)
    names = (EMBEDDINGS["v1"], LABELS, CLEAN, RAW)
    return dataset.Pins(names[0], {name: release.version(name) for name in names})


def test_a_dataset_says_what_it_is(images: Place) -> None:
    data = datasets.load(images)
    about, rows = data.about, rows_of(images)
    assert about["dataset_id"] == f"dataset_v1.0_pit_20260602T000000Z_{about['content_hash'][7:19]}"
    assert about["cutoff_timestamp"] == "2026-06-02T00:00:00+00:00"
    sides = [row["split"] for row in rows.values()]
    assert about["split_counts"] == {side: sides.count(side) for side in ("train", "val", "test")}
    assert len(rows) == 140 and about["groups"] == 100
    assert about["classes"] == list(images_home.CLASSES)
    named = ("extraction_model", "preprocessing_version", "cleaning_version", "release")
    assert [about[name] for name in named] == ["made-up@sha256:0123456789ab", "v1", "c1", 1]
    by_group: dict[str, set[str]] = {}
    for row in rows.values():
        by_group.setdefault(row["group_id"], set()).add(row["split"])
    assert {len(sides) for sides in by_group.values()} == {1}, "near duplicates are on one side"


def test_embeddings_are_those_of_the_pictures(images: Place) -> None:
    made = {one.image_id: one for one in images_home.pictures(100)}
    for image, row in rows_of(images).items():
        assert row["label"] == made[image].label
        assert np.array_equal(np.float32(row["embedding"]), images_home.embedding(made[image].pixels))


def test_labels_images_and_sides_are_those_of_the_cutoff(images: Place) -> None:
    first = rows_of(images)
    changed = dict.fromkeys(sorted(first)[:5], "owl")
    images_home.review(changed, SECOND)
    images_home.land(images_home.pictures(40, first=100), SECOND)
    images_home.embed_all()
    images_home.publish(SECOND)

    # At the old cutoff the new release gives the very same dataset.
    old = Place(IMAGES, 2, cutoff=FIRST)
    assert images_home.write_dataset(old)["content_hash"] == datasets.load(images).about["content_hash"]
    # At its own, the new labels and images count, and no old image is on another side.
    new = Place(IMAGES, 2)
    images_home.write_dataset(new)
    second = rows_of(new)
    assert len(second) == len(first) + 56
    assert {image: second[image]["label"] for image in changed} == changed
    assert {image: second[image]["split"] for image in first} == {image: row["split"] for image, row in first.items()}


def test_images_without_a_label_are_left_out_and_counted(images: Place) -> None:
    nameless = [replace(one, label=None) for one in images_home.pictures(3, first=200, near=1000)]  # type: ignore[arg-type]
    ids = images_home.land(nameless, SECOND)
    images_home.embed_all()
    images_home.publish(SECOND)
    place = Place(IMAGES, 2)
    assert images_home.write_dataset(place)["images_without_label"] == 3
    assert not set(ids) & set(rows_of(place))
    # A person labels them on the third day: then they are in.
    images_home.review(dict.fromkeys(ids, "fox"), THIRD)
    images_home.publish(THIRD)
    assert images_home.write_dataset(Place(IMAGES, 3))["images_without_label"] == 0
    assert {rows_of(Place(IMAGES, 3))[image]["label"] for image in ids} == {"fox"}


def test_a_rejected_batch_and_a_quarantined_picture_are_not_there(images: Place) -> None:
    bad = images_home.land(images_home.pictures(4, first=300, near=1000), SECOND, batch="bad")
    images_home.embed_all()
    images_home.publish(SECOND, rejected=["bad"])
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    assert rows_of(place).keys() == rows_of(images).keys() and not set(bad) & rows_of(place).keys()

    image = min(rows_of(images))
    images_home.quarantine(image)
    images_home.publish(THIRD, rejected=["bad"])
    images_home.write_dataset(Place(IMAGES, 3))
    assert rows_of(Place(IMAGES, 3)).keys() == rows_of(images).keys() - {image}


def test_what_feast_gives_is_held_against_the_table(images: Place) -> None:
    pins, cutoff = pins_of(images), clock.end_of(FIRST)
    found = dataset.observed(pins, [], cutoff)
    stored = dataset.embeddings(pins, cutoff)
    answer = stored.reindex(found.rows["image_id"]).reset_index()

    wrong = answer.copy()
    wrong.at[3, "embedding"] = answer["embedding"][4]
    with pytest.raises(TrainingError, match=f"gave 1 images another embedding .* the first {answer['image_id'][3]}"):
        dataset.with_features(found.rows, wrong, stored, pins)
    lost = answer.copy()
    lost.at[0, "embedding"] = None
    with pytest.raises(TrainingError, match="Feast gave 139 embeddings of 140 images, .* holds 140"):
        dataset.with_features(found.rows, lost, stored, pins)
    other = stored.copy()
    other.iloc[5, other.columns.get_loc("clean_sha256")] = "another"
    with pytest.raises(TrainingError, match="1 embeddings are of another picture than the clean one"):
        dataset.with_features(found.rows, answer, other, pins)
    mixed = stored.copy()
    mixed.iloc[5, mixed.columns.get_loc("extraction_model")] = "another"
    with pytest.raises(TrainingError, match="mixes embeddings made in several ways"):
        dataset.with_features(found.rows, answer, mixed, pins)


def test_a_class_that_no_image_to_test_with_shows_is_named(images: Place) -> None:
    assert "nothing measures it" not in datasets.load(images).about["message"]
    lone = next(image for image, row in rows_of(images).items() if row["split"] == "train")
    images_home.review({lone: "triangle"}, SECOND)
    images_home.publish(SECOND)
    images_home.write_dataset(Place(IMAGES, 2))
    message = datasets.load(Place(IMAGES, 2)).about["message"]
    assert message.endswith("of 5 classes; no image to test with shows triangle: nothing measures it")


def test_what_cannot_be_learnt_says_why(images: Place) -> None:
    everything = dict.fromkeys(rows_of(images), "cat")
    images_home.review(everything, SECOND)
    images_home.publish(SECOND)
    with pytest.raises(TrainingError, match="all images show cat: a classifier needs two classes"):
        images_home.write_dataset(Place(IMAGES, 2))
    with pytest.raises(TrainingError, match="all images show cat"):
        dataset.build(Place(IMAGES, 2))
    assert services.find("spark") is None, "that needs no join"
    lone = next(image for image, row in rows_of(images).items() if row["split"] == "test")
    images_home.review({lone: "dog"}, THIRD)
    images_home.publish(THIRD)
    with pytest.raises(TrainingError, match="no image to train on shows dog: .* bring 7 or more of that class"):
        images_home.write_dataset(Place(IMAGES, 3))
    with pytest.raises(TrainingError, match=r"no clean image of 140 has a label by 2026-05-02 00:00 UTC"):
        images_home.write_dataset(Place(IMAGES, 1, cutoff=FIRST.replace(month=5)))


def test_a_changed_value_is_refused(images: Place) -> None:
    from plumbline.state import objects, trainings
    from training import canonical

    rows = datasets.load(images).rows
    frame = rows.to_pandas()
    frame["embedding"] = [values + (at == 7) * np.float32(1e-6) for at, values in enumerate(frame["embedding"])]
    table = canonical.table(frame, dataset.schema(), dataset.KEY)
    objects.replace_bytes(images.key(trainings.ROWS), canonical.to_parquet(table))
    with pytest.raises(TrainingError, match=r"run `plumb images dataset --release 1`"):
        datasets.load(images)
