"""Stage 02: nothing is lost, each bad picture has its reason, and what is clean is never written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingestion.images import clean as cleaning
from ingestion.images import cleaning_gate
from ingestion.images.landing import BucketError
from plumbline import clock, files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures import decode
from plumbline.pictures.decode import REASONS, Limits
from plumbline.settings import settings
from plumbline.state import candidates, releases
from products.images import CLEAN, RAW
from tests.ingestion.images.conftest import DAY, NEXT, cleaned, folder_of, gate, landed, png, released, rows
from tests.plumbline.pictures.malformed import encoded, malformed, rgb
from tests.plumbline.pictures.malformed import png as by_hand


def bucket() -> Path:
    return Path(settings().bucket("clean-images"))


def objects(version: str = "c1") -> dict[str, str]:
    """Name and hash of each clean object of a version."""
    return {path.stem: files.sha256(path.read_bytes()) for path in bucket().glob(f"{version}/??/*.png")}


def by_name() -> dict[str, dict[str, Any]]:
    """The rows of clean.images by the pictures' names in their source."""
    names = {row["image_id"]: row["source_name"] for row in rows(RAW)}
    return {names[row["image_id"]]: row for row in rows(CLEAN)}


def test_none_of_78_malformed_files_is_lost_and_each_has_its_reason_beside_the_good_ones(tmp_path: Path) -> None:
    bad = {name: content for name, content, _ in malformed()}
    good = {f"good-{seed}.png": png(100 + seed) for seed in range(20)}
    landed(str(folder_of(tmp_path / "set", {**bad, **good}, "")))
    result = cleaned()

    found = by_name()
    assert {name: row["reason"] for name, row in found.items() if name in bad} == {n: r for n, _, r in malformed()}
    assert all(row["detail"] and row["clean_uri"] is None for name, row in found.items() if name in bad)
    assert {name for name, row in found.items() if row["state"] == "clean"} == good.keys()
    assert set(objects()) == {found[name]["image_id"] for name in good}
    assert gate(DAY, "cleaning").extra == {
        "raw": 98, "rows": 98, "clean": 20, "quarantined": 78, "objects": 20, "sampled": 20,
    }  # fmt: skip
    [manifest] = bucket().glob("manifests/*.json")
    counts = json.loads(manifest.read_text())
    assert (counts["total_raw"], counts["total_clean"], counts["total_quarantined"]) == (98, 20, 78)
    assert sum(counts["quarantined"].values()) == 78
    assert counts["quarantined"].keys() <= REASONS.keys()
    assert result.message.startswith("20 of 98 images are clean at c1 (98 decoded now); quarantined: 4 animated")


def test_a_clean_object_is_the_pixels_upright_on_white_and_its_row_says_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    wide = encoded(rgb(1).crop((0, 0, 40, 24)), "JPEG", exif=exif)
    landed(str(folder_of(tmp_path / "set", {"a.jpg": wide}, "a.jpg,cat\n")))
    cleaned()
    [row] = rows(CLEAN)
    content = (bucket() / f"c1/{row['image_id'][:2]}/{row['image_id']}.png").read_bytes()
    assert (row["state"], row["detail"], row["width"], row["height"]) == ("clean", "rotated by EXIF", 24, 40)
    assert files.sha256(content) == row["clean_sha256"]
    assert row["clean_uri"].endswith(f"c1/{row['image_id'][:2]}/{row['image_id']}.png")
    assert np.array_equal(decode.decoded(content).rgb, decode.decoded(wide).rgb)
    [raw] = rows(RAW)
    assert all(row[name] == raw[name] for name in ("image_id", "event_time", "ingestion_timestamp"))


def test_the_same_pixels_in_another_file_are_a_duplicate_of_the_earlier_one(tmp_path: Path) -> None:
    one = rgb(1)
    folder = folder_of(tmp_path / "set", {"a.png": encoded(one, "PNG")}, "a.png,cat\n")
    landed(str(folder))
    released(DAY)
    again = {"a.bmp": encoded(one, "BMP"), "a.tiff": encoded(one, "TIFF"), "b.png": png(2)}
    landed(str(folder_of(folder, again, "a.png,cat\n")), NEXT)
    cleaned(NEXT)

    found = by_name()
    original = found["a.png"]["image_id"]
    for name in ("a.bmp", "a.tiff"):
        row = found[name]
        assert (row["state"], row["reason"], row["duplicate_of"]) == ("quarantined", "duplicate", original)
        assert row["detail"] == f"the same pixels as {original}"
        assert (row["clean_uri"], row["group_id"]) == (None, None)
        assert row["clean_sha256"] == found["a.png"]["clean_sha256"]
    assert set(objects()) == {original, found["b.png"]["image_id"]}


def test_a_duplicate_that_came_with_another_label_is_said_and_one_without_a_label_is_not(tmp_path: Path) -> None:
    one = rgb(1)
    folder = folder_of(tmp_path / "set", {"a.png": encoded(one, "PNG")}, "a.png,cat\n")
    landed(str(folder))
    released(DAY)
    again = {"a.bmp": encoded(one, "BMP"), "a.tiff": encoded(one, "TIFF")}
    landed(str(folder_of(folder, again, "a.png,cat\na.bmp,dog\n")), NEXT)
    said = cleaned(NEXT).message

    found = by_name()
    assert said.endswith(
        "; 1 duplicates came with another label than the picture they repeat, whose label counts: "
        f"{found['a.bmp']['image_id']} says 'dog', {found['a.png']['image_id']} 'cat'"
    )


def test_near_duplicates_share_the_smallest_id_and_one_that_comes_later_joins_them(tmp_path: Path) -> None:
    photo = rgb(5, 96)
    first = {"photo.png": encoded(photo, "PNG"), "copy.jpg": encoded(photo, "JPEG", quality=80), "other.png": png(6)}
    folder = folder_of(tmp_path / "set", first, "")
    landed(str(folder))
    released(DAY)
    found = by_name()
    together = min(found["photo.png"]["image_id"], found["copy.jpg"]["image_id"])
    assert {name: row["group_id"] for name, row in found.items()} == {
        "photo.png": together, "copy.jpg": together, "other.png": found["other.png"]["image_id"],
    }  # fmt: skip
    landed(str(folder_of(folder, {"small.png": encoded(photo.resize((70, 70)), "PNG")}, "")), NEXT)
    cleaned(NEXT)
    found = by_name()
    three = {found[name]["group_id"] for name in ("photo.png", "copy.jpg", "small.png")}
    assert three == {min(found[name]["image_id"] for name in ("photo.png", "copy.jpg", "small.png"))}


def test_what_is_clean_at_this_version_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    landed("mnist:20")
    released(DAY)
    before = {row["image_id"]: row for row in rows(CLEAN)}
    landed("mnist:25", NEXT)
    asked: list[str] = []
    decoded = cleaning.Decoders.cleaned

    def counted(self: Any, content: bytes, name: str | None = None) -> Any:
        asked.append(str(name))
        return decoded(self, content, name)

    monkeypatch.setattr(cleaning.Decoders, "cleaned", counted)
    assert "25 of 25 images are clean at c1 (5 decoded now)" in cleaned(NEXT).message
    assert len(asked) == 5
    after = {row["image_id"]: row for row in rows(CLEAN)}
    same = [name for name in next(iter(before.values())) if name != "group_id"]
    assert all(after[image][name] == row[name] for image, row in before.items() for name in same)


def test_what_a_busy_machine_may_have_refused_is_tried_again_in_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = by_hand(4_000, 4_000, (b"\0" + bytes(16_000)) * 4_000, colours=6)
    folder = folder_of(tmp_path / "set", {"large.png": large, "a.png": png(1)}, "")
    landed(str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(cleaning, "LIMITS", Limits(memory=250 * 2**20))
        patch.setattr(cleaning_gate, "FEW_REFUSED", 0)
        with pytest.raises(GateFailed, match="1 of 2 images were refused for timeout, out_of_memory, decoder_crashed"):
            cleaned()
        patch.undo()
        patch.setattr(cleaning, "LIMITS", Limits(memory=250 * 2**20))
        released(DAY)
    assert {name: row["reason"] for name, row in by_name().items()} == {"large.png": "out_of_memory", "a.png": None}
    landed(str(folder), NEXT)
    assert "2 of 2 images are clean at c1 (1 decoded now)" in cleaned(NEXT).message


def test_a_bug_that_is_mended_three_weeks_later_makes_new_objects_and_a_new_version_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: small pictures were refused, although they are fine."""
    small = {f"small-{seed}.png": encoded(rgb(seed, 12), "PNG") for seed in range(3)}
    good = {f"good-{seed}.png": png(100 + seed) for seed in range(5)}
    landed(str(folder_of(tmp_path / "set", {**small, **good}, "")))
    released(DAY)
    first = releases.in_force("images")
    old_rows, old_objects = rows(CLEAN), objects()
    stamps = {path: path.stat().st_mtime_ns for path in bucket().rglob("*.png")}
    assert {row["reason"] for row in old_rows} == {None, "too_small"}

    monkeypatch.setenv("PLUMBLINE_NOW", "1998-07-21T00:00:00Z")
    settings.cache_clear()
    monkeypatch.setattr(cleaning, "CLEANING_VERSION", "c2")
    monkeypatch.setattr(cleaning, "LIMITS", Limits(smallest_side=8))
    day = clock.last_whole_day()
    landed(str(tmp_path / "set"), day)
    released(day)

    assert {(row["state"], row["cleaning_version"]) for row in rows(CLEAN)} == {("clean", "c2")}
    assert all("/c2/" in row["clean_uri"] for row in rows(CLEAN))
    assert objects() == old_objects
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert objects("c2") == {row["image_id"]: row["clean_sha256"] for row in rows(CLEAN)}
    assert first is not None
    then = lake.open_table(CLEAN, first.tables[CLEAN]).to_pyarrow_table().to_pylist()
    assert sorted(then, key=lambda row: row["image_id"]) == old_rows
    assert [row["label_at_ingestion"] for row in rows(RAW)] == [None] * 8


def test_images_of_a_rejected_batch_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    landed("mnist:20")
    candidate = candidates.load("images", DAY)
    assert candidate is not None
    candidate.rejected = [candidate.stages["ingest"]["batch_id"]]
    candidate.save()
    assert cleaned().message.startswith("0 of 0 images are clean")
    assert rows(CLEAN) == []


def test_an_object_that_somebody_else_wrote_is_an_error_and_is_not_overwritten() -> None:
    landed("mnist:5")
    image = rows(RAW)[0]["image_id"]
    other = bucket() / f"c1/{image[:2]}/{image}.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not ours")
    with pytest.raises(BucketError, match=rf"{other} holds other bytes .* Nothing was overwritten"):
        cleaned()
    assert other.read_bytes() == b"not ours"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("lost", "1 clean images have no object"),
        ("altered", "does not hold the bytes that clean.images names by their sha256"),
        ("row", "20 raw images, 19 rows of clean.images: 19 clean, 0 quarantined"),
    ],
)
def test_the_gate_counts_again_and_stops_what_was_lost(
    harm: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed("mnist:20")
    hold, write = cleaning_gate.hold, cleaning._write

    def harmed(*given: Any) -> None:
        victim = sorted(bucket().glob("c1/??/*.png"))[0]
        victim.unlink()
        if harm == "altered":
            victim.write_bytes(b"other bytes")
        hold(*given)

    with monkeypatch.context() as patch:
        if harm == "row":
            patch.setattr(cleaning, "_write", lambda every: write(every.slice(1)))
        else:
            patch.setattr(cleaning_gate, "hold", harmed)
        with pytest.raises(GateFailed, match=message):
            cleaned()
    assert candidates.rejected("images") == []  # what landed is not at fault
    if harm == "altered":
        next(path for path in bucket().glob("c1/??/*.png") if path.read_bytes() == b"other bytes").unlink()
    assert cleaned().message.startswith("20 of 20 images are clean")


def test_no_images_at_all_are_cleaned_to_none(tmp_path: Path) -> None:
    landed(str(folder_of(tmp_path / "set", {}, "")))
    assert cleaned().message.startswith("0 of 0 images are clean")


def test_the_version_and_the_limits_go_together() -> None:
    """Whoever changes a limit or what cleaning writes must say so by a new version, and then mend this test."""
    ramp = np.arange(20 * 20 * 3, dtype=np.uint32).reshape(20, 20, 3).astype(np.uint8)
    assert (cleaning.CLEANING_VERSION, Limits().as_dict(), files.sha256(decode.clean_png(ramp))[:16]) == (
        "c1",
        {
            "bytes": 67_108_864, "pixels": 40_000_000, "smallest_side": 16, "largest_side": 16_384, "seconds": 10.0,
            "memory": 2_147_483_648,
        },
        "31b7b00a505528eb",
    )  # fmt: skip
