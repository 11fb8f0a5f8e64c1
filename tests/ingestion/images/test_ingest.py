"""Stage 01: what lands, under which names, and what the same source gives a second time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ingestion.images import landing_gate
from ingestion.images.landing import BucketError
from ingestion.images.sources import SourceError
from plumbline import clock, files
from plumbline.errors import GateFailed
from plumbline.pipeline.stage import StageError
from plumbline.settings import settings
from plumbline.state import candidates, objects
from products.images import LABELS, RAW
from tests.ingestion.images.conftest import DAY, NEXT, folder_of, gate, landed, png, released, rows
from tests.plumbline.pictures.malformed import encoded, rgb


def test_the_first_digits_take_turns_between_the_classes_and_each_lands_under_its_own_hash() -> None:
    result = landed("mnist:30")

    images, labels = rows(RAW), rows(LABELS)
    assert Counter(row["label_at_ingestion"] for row in images) == dict.fromkeys("0123456789", 3)
    assert [(r["image_id"], r["label"]) for r in labels] == [(r["image_id"], r["label_at_ingestion"]) for r in images]
    store = objects.store_at(settings().bucket("raw-images"))
    for row in images:
        content = store.read(f"{row['image_id'][:2]}/{row['image_id']}.png")
        assert content is not None
        assert files.sha256(content.content) == row["sha256"]
        assert row["image_id"] == row["sha256"][:32]
        assert row["minio_uri"] == content.where
    assert result.rows == {RAW: 30, LABELS: 30}
    assert result.message.startswith("landed 30 images of 10 classes from mnist")


def test_a_bad_source_lands_nothing_and_the_next_try_does(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": png(1), "b.png": png(2)}, "a.png,cat\nc.png,dog\n")
    with pytest.raises(SourceError, match=r"row 3, column image: 'c\.png'"):
        landed(str(folder))
    assert rows(RAW) == rows(LABELS) == []

    (folder / "labels.csv").write_text("image,label\na.png,cat\nb.png,dog\n")
    assert landed(str(folder)).rows == {RAW: 2, LABELS: 2}


def test_the_same_bytes_under_two_names_are_one_picture(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": png(1), "b.png": png(1)}, "a.png,cat\nb.png,cat\n")
    landed(str(folder))
    assert [(row["source_name"], row["label_at_ingestion"]) for row in rows(RAW)] == [("a.png", "cat")]
    assert gate(DAY).extra["repeated_in_source"] == 1


def test_the_same_bytes_with_two_labels_are_an_error_that_names_both_rows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": png(1), "b.png": png(1)}, "a.png,cat\nb.png,dog\n")
    with pytest.raises(SourceError, match=r"b\.png has the same bytes .* row 2 says 'cat', .* row 3 says 'dog'"):
        landed(str(folder))
    assert rows(RAW) == []


def test_exif_is_summed_up_without_the_place_where_the_photo_was_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera 7", 6
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    photo = encoded(rgb(3), "JPEG", exif=exif)
    landed(str(folder_of(tmp_path / "set", {"a.jpg": photo, "b.png": png(1)}, "")))
    by_name = {row["source_name"]: row for row in rows(RAW)}
    assert json.loads(by_name["a.jpg"]["exif"]) == {"GPSInfo": "present", "Make": "Camera 7", "Orientation": "6"}
    assert by_name["b.png"]["exif"] is None
    assert (by_name["a.jpg"]["format"], by_name["a.jpg"]["label_at_ingestion"]) == ("jpeg", None)


def test_a_source_that_grew_lands_only_what_is_new_and_old_rows_stay(tmp_path: Path) -> None:
    landed("mnist:20")
    released(DAY)
    before = {row["image_id"]: row for row in rows(RAW)}

    assert landed("mnist:25", NEXT).rows == {RAW: 5, LABELS: 5}
    after = {row["image_id"]: row for row in rows(RAW)}
    assert len(after) == 25
    assert all(after[image] == row for image, row in before.items())
    assert gate(NEXT).extra | {"sampled": 0} == {
        "manifest": 5, "rows": 5, "labels": 5, "objects_new": 5, "objects_of_an_earlier_try": 0, "known": 20,
        "repeated_in_source": 0, "sampled": 0,
    }  # fmt: skip
    assert {row["event_time"] for row in after.values()} == {clock.end_of(DAY), clock.end_of(NEXT)}


def test_another_label_in_a_later_run_is_a_statement_and_changes_no_raw_row(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": png(1), "b.png": png(2)}, "a.png,cat\nb.png,dog\n")
    landed(str(folder))
    released(DAY)
    before = rows(RAW)

    (folder / "labels.csv").write_text("image,label\na.png,lynx\nb.png,dog\n")
    assert landed(str(folder), NEXT).rows == {RAW: 0, LABELS: 1}
    assert rows(RAW) == before
    image = next(row["image_id"] for row in before if row["source_name"] == "a.png")
    stated = sorted((r["event_time"], r["label"]) for r in rows(LABELS) if r["image_id"] == image)
    assert stated == [(clock.end_of(DAY), "cat"), (clock.end_of(NEXT), "lynx")]


def test_what_a_killed_run_left_is_no_part_of_the_next_days_run(tmp_path: Path) -> None:
    landed("mnist:20")  # and never published
    landed("mnist:10", NEXT)
    assert len(rows(RAW)) == len(rows(LABELS)) == 10
    assert {row["event_time"] for row in rows(RAW)} == {clock.end_of(NEXT)}
    assert gate(NEXT).extra["objects_of_an_earlier_try"] == 10


def test_another_source_in_the_same_run_is_refused_and_not_passed_over() -> None:
    landed("mnist:20")
    with pytest.raises(StageError, match="this run landed mnist:20; .* mnist:30"):
        landed("mnist:30")
    assert landed("mnist:20").state == "unchanged"


@pytest.mark.parametrize(
    ("harm", "message"),
    [("lost", "not in the bucket"), ("altered", "the bytes that its id is made of"), ("foreign", "does not name")],
)
def test_the_gate_stops_what_is_not_in_the_bucket_as_the_manifest_says(
    harm: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Path(settings().bucket("raw-images"))
    hold = landing_gate.hold

    def harmed(*given: Any) -> None:
        victim = sorted(bucket.glob("??/*.png"))[0]
        if harm == "foreign":
            (victim.parent / "ffff.png").write_bytes(b"not ours")
        else:
            victim.unlink()
            if harm == "altered":
                victim.write_bytes(b"other bytes")
        hold(*given)

    with monkeypatch.context() as patch:
        patch.setattr(landing_gate, "hold", harmed)
        with pytest.raises(GateFailed, match=message):
            landed("mnist:20")
    rejected = candidates.rejected("images")
    assert len(rejected) == 1

    if harm == "altered":  # an object is never overwritten, so somebody must move it away
        with pytest.raises(BucketError, match="holds other bytes .* move that object away"):
            landed("mnist:20")
        next(path for path in bucket.glob("??/*.png") if path.read_bytes() == b"other bytes").unlink()
    result = landed("mnist:20")
    assert result.rows == {RAW: 20, LABELS: 20}
    assert {row["batch_id"] for row in rows(RAW)}.isdisjoint(rejected)
