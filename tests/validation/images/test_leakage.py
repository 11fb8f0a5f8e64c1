"""Each way in which an image dataset learns what it could not know, put in on purpose, is caught by its own gate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from plumbline import verdict
from plumbline.errors import GateFailed
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.images import IMAGES
from tests import images_home
from tests.images_home import SECOND
from training import audit, datasets, runs
from training.errors import TrainingError
from training.images import dataset, leaky
from validation import leakage
from validation.images import metadata_leakage

GATES = ("near_duplicates", "augmented_copies", "metadata_leakage", "label_time")


def failing(place: Place, gate: str) -> list[str]:
    """What the gate says of the dataset, which it alone fails."""
    with pytest.raises(GateFailed, match=gate) as told:
        leakage.check(place)
    assert "validation/leakage.yaml" in str(told.value) and "plumb images dataset --release" in str(told.value)
    found = verdict.read((objects.read_json(place.key(trainings.LEAKAGE)) or {})["gates"], "it")
    assert verdict.failed(found.values()) == [gate]
    with pytest.raises(GateFailed, match=f"{gate} failed on"):
        runs.train(place)
    return list(found[gate].failed)


def altered(place: Place, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    images_home.change(place, change(datasets.load(place).rows.to_pandas()))


def test_an_honest_dataset_passes_every_gate(images: Place) -> None:
    with pytest.raises(
        TrainingError, match="have not looked at .*: run `plumb images leakage_check --release 1` first"
    ):
        runs.train(images)
    found = leakage.check(images)
    assert {gate: one["verdict"] for gate, one in found["gates"].items()} == dict.fromkeys(GATES, "passed")
    assert leakage.check(images)["state"] == "unchanged"
    assert audit.require_passed(images)["dataset_id"] == datasets.load(images).about["dataset_id"]


def test_a_random_split_puts_near_duplicates_on_both_sides(images: Place) -> None:
    altered(images, lambda rows: rows.assign(split=leaky._at_random(len(rows))))
    groups, lookalikes = failing(images, "near_duplicates")
    assert "of a group of near duplicates that is on more than one side" in groups
    assert "of the images to test with look like one to train on, 3% is believed" in lookalikes


def test_near_duplicates_are_seen_though_cleaning_did_not_group_them(images: Place) -> None:
    """The gate's own eyes: `clean.images` of this release says that every picture is alone."""
    images_home.regroup(lambda row: row["image_id"])
    images_home.publish(SECOND)
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    (lookalikes,) = failing(place, "near_duplicates")
    assert "look like one to train on" in lookalikes and "such as image " in lookalikes


def test_a_copy_away_from_its_picture(images: Place) -> None:
    def copied(rows: pd.DataFrame) -> pd.DataFrame:
        copy = rows[rows["split"] == "train"].head(1)
        away = copy.assign(image_id=copy["image_id"] + "~1", split="val")
        return pd.concat([rows, away.assign(embedding=[np.float32(copy["embedding"].iloc[0]) + 1])])

    altered(images, copied)
    # A copy is of its picture's group too, so it is a near duplicate on another side as well.
    with pytest.raises(GateFailed, match="augmented_copies"):
        leakage.check(images)
    gates = (objects.read_json(images.key(trainings.LEAKAGE)) or {})["gates"]
    assert gates["augmented_copies"]["failed"][0].startswith("2 rows share their picture with a row on another side")


def test_a_copy_beside_its_picture_is_honest(images: Place) -> None:
    def copied(rows: pd.DataFrame) -> pd.DataFrame:
        copy = rows[rows["split"] == "train"].head(5)
        beside = copy.assign(image_id=copy["image_id"] + "~1")
        return pd.concat([rows, beside.assign(embedding=[np.float32(one) + 1 for one in copy["embedding"]])])

    altered(images, copied)
    assert leakage.check(images)["verdict"] == "passed"


def test_one_embedding_on_both_sides(images: Place) -> None:
    def same(rows: pd.DataFrame) -> pd.DataFrame:
        known = rows[rows["split"] == "train"]["embedding"].iloc[0]
        first = rows.index[rows["split"] == "test"][0]
        return rows.assign(embedding=[known if at == first else one for at, one in rows["embedding"].items()])

    altered(images, same)
    with pytest.raises(GateFailed, match="1 rows to test with have the embedding of one to train on") as told:
        leakage.check(images)
    assert "1 rows hold an embedding that is not the newest of their image" in str(told.value)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("fox", r"exif camera fox-cam: 100.0% of 3\d images are of one class"),
        (None, r"exif camera alone tells 100\.0% of \d+ labels, .* surely \d\d\.\d%"),
    ],
)
def test_a_camera_that_gives_the_label_away(images: Place, label: str | None, told: str) -> None:
    """One class by a camera of its own, and every class by one."""
    images_home.exif(lambda one: {"camera": f"{one.label}-cam" if label in (one.label, None) else "cam"})
    images_home.publish(SECOND)
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    assert any(pd.Series(failing(place, "metadata_leakage")).str.contains(told))


def test_what_a_field_gets_right_counts_but_for_a_bound_of_chance() -> None:
    """44 drawings, 73 % of them told by the size of their file, is what few pictures do; all of 44 is not."""
    assert metadata_leakage._at_least(0.727, 44, 3) == pytest.approx(0.502, abs=0.002)
    assert metadata_leakage._at_least(1.0, 44, 3) == pytest.approx(0.830, abs=0.002)
    assert metadata_leakage._at_least(0.727, 44_000, 3) == pytest.approx(0.7206, abs=0.0005)
    assert metadata_leakage._at_least(0.0, 0, 3) == 0.0


def test_a_camera_that_took_everything_alike_is_honest(images: Place) -> None:
    images_home.exif(lambda one: {"camera": f"cam {one.group % 3}", "exposure": one.group * 7 % 31})
    images_home.publish(SECOND)
    images_home.write_dataset(Place(IMAGES, 2))
    assert leakage.check(Place(IMAGES, 2))["verdict"] == "passed"


def test_a_label_from_after_the_cutoff(images: Place) -> None:
    rows = datasets.load(images).rows.to_pandas()
    images_home.review({rows["image_id"][3]: "owl" if rows["label"][3] != "owl" else "fox"}, SECOND)
    images_home.publish(SECOND)
    place = Place(IMAGES, 2, cutoff=images_home.FIRST)
    images_home.write_dataset(place)
    assert leakage.check(place)["verdict"] == "passed"
    newest = "owl" if rows["label"][3] != "owl" else "fox"
    altered(place, lambda rows: rows.assign(label=[newest if at == 3 else one for at, one in rows["label"].items()]))
    (told,) = failing(place, "label_time")
    assert told.startswith("1 rows have another label than the newest known at 2026-06-02 00:00 UTC")
    assert f"image {rows['image_id'][3]}" in told


def test_a_review_of_a_rejected_batch_is_none(images: Place) -> None:
    image = datasets.load(images).rows["image_id"][0].as_py()
    images_home.review({image: "owl"}, SECOND, batch="bad")
    images_home.publish(SECOND, rejected=["bad"])
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    assert leakage.check(place)["verdict"] == "passed"


def test_an_image_from_after_the_cutoff(images: Place) -> None:
    images_home.land(images_home.pictures(20, first=100, near=1000), SECOND)
    images_home.embed_all()
    images_home.publish(SECOND)
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    moment = pd.Timestamp("2026-06-02", tz="UTC").as_unit("us")
    rows = datasets.load(place).rows.to_pandas().assign(event_timestamp=moment)
    images_home.change(place, rows, cutoff_timestamp=moment.isoformat())
    assert any("20 rows are of images that came after" in told for told in failing(place, "label_time"))


def test_the_leaky_twin_is_better_than_honest_and_every_gate_that_looks_says_why(images: Place) -> None:
    rows = datasets.load(images).rows.to_pandas()
    images_home.review(dict.fromkeys(rows["image_id"][:4], "owl"), SECOND)

    def embed(pixels: Any) -> Any:
        return images_home.embedding(pixels)

    about = leaky.build(images, embed)
    assert leaky.build(images, embed)["state"] == "unchanged"
    honest, twin = about["scores"]["honest"], about["scores"]["leaky_twin"]
    assert twin["accuracy"] > honest["accuracy"] and twin["log_loss"] < honest["log_loss"]
    assert about["augmented"] == 140 and about["reviewed_labels"] >= 4
    judged = leakage.verdict(Place(IMAGES, 1, leaky=True))
    failed = [name for name, gate in judged["gates"].items() if gate["verdict"] == "failed"]
    assert sorted(failed) == ["augmented_copies", "label_time", "near_duplicates"]
    leaky.tell(about, judged)
    assert leakage.check(images)["verdict"] == "passed", "the honest one is not touched"
    with pytest.raises(GateFailed):
        runs.train(Place(IMAGES, 1, leaky=True))


def test_a_dataset_without_one_to_look_at_says_what_makes_it(images: Place) -> None:
    from plumbline.state.releases import ReleaseError

    with pytest.raises(ReleaseError, match="run `plumb images dataset --release 1 --service images_v2` first"):
        leakage.check(Place(IMAGES, 1, service="images_v2"))
    assert dataset.STAGE in IMAGES.training_stages


def test_metadata_that_honestly_tells_the_label_can_be_accepted_for_a_release(
    images: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    from plumb.commands import gate

    images_home.exif(lambda one: {"camera": f"{one.label}-cam"})
    images_home.publish(SECOND)
    place = Place(IMAGES, 2)
    images_home.write_dataset(place)
    with pytest.raises(GateFailed, match="`plumb gate accept metadata_leakage --as-of 2026-06-02 --why …`"):
        leakage.check(place)
    gate.accept("metadata_leakage", "each animal has a keeper with a camera", datetime(2026, 6, 2), "ana")
    assert "now run plumb images leakage_check" in capsys.readouterr().out
    judged = leakage.check(place)
    assert judged["verdict"] == "passed"
    assert judged["gates"]["metadata_leakage"]["accepted"]["by"] == "ana"
    gate.list_()
    assert "2026-06-02  metadata_leakage  by ana" in capsys.readouterr().out
