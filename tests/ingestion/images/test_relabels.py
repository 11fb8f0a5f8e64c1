"""Labels that people state later: rows beside the old ones, landed once, known from the end of their day."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.images import relabels
from ingestion.images.relabels import LabelError
from ingestion.images.sources import SourceError
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.pictures.names import UnknownImage
from plumbline.settings import settings
from plumbline.state import releases
from products.images import CLEAN, LABELS, RAW
from tests.ingestion.images.conftest import DAY, NEXT, folder_of, landed, released, rows
from tests.plumbline.pictures.malformed import encoded, rgb


@pytest.fixture
def images() -> list[str]:
    """The ids of ten digits that are released."""
    landed("mnist:10")
    released(DAY)
    return [row["image_id"] for row in rows(RAW)]


def labels_of(image: str) -> list[tuple[str, str]]:
    """All statements about an image in the order in which they count."""
    own = [row for row in rows(LABELS) if row["image_id"] == image]
    return [
        (row["label"], row["labelled_by"]) for row in sorted(own, key=lambda r: (r["event_time"], r["labelled_at"]))
    ]


def test_a_statement_becomes_a_row_with_the_next_run_and_changes_no_other(images: list[str]) -> None:
    before = {table: rows(table) for table in (RAW, LABELS)}
    told = relabels.state(images[0], "9", "ada")
    assert (told["was"], told["label"], told["lands_with"]) == (labels_of(images[0])[0][0], "9", f"the run of {NEXT}")
    assert rows(LABELS) == before[LABELS]

    assert landed("mnist:10", NEXT).rows == {RAW: 0, LABELS: 1}
    assert rows(RAW) == before[RAW]
    assert labels_of(images[0])[1:] == [("9", "ada")]
    [row] = [row for row in rows(LABELS) if row["labelled_by"] == "ada"]
    assert row["event_time"] == clock.end_of(NEXT)
    assert [row for row in rows(LABELS) if row["labelled_by"] != "ada"] == before[LABELS]


def test_two_statements_about_one_image_count_in_the_order_they_were_made(images: list[str]) -> None:
    relabels.state(images[0], "8", "ada")
    assert relabels.state(images[0], "9", "bob")["was"] == "8"
    landed("mnist:10", NEXT)
    assert labels_of(images[0])[1:] == [("8", "ada"), ("9", "bob")]


def test_a_statement_that_landed_does_not_land_again_and_one_of_an_undone_release_does(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from plumbline.pipeline import undo
    from products.images import IMAGES

    relabels.state(images[0], "9", "ada")
    landed("mnist:10", NEXT)
    released(NEXT)
    monkeypatch.setenv("PLUMBLINE_NOW", "1998-07-03T00:00:00Z")
    settings.cache_clear()
    assert landed("mnist:10", clock.last_whole_day()).rows == {RAW: 0, LABELS: 0}
    undo.undo(IMAGES, to=1, why="the labels of the second are wrong")
    release = releases.in_force("images")
    assert release is not None
    assert lake.rows(LABELS, release.tables[LABELS]) == 10
    assert landed("mnist:10", clock.last_whole_day()).rows == {RAW: 0, LABELS: 1}


def test_what_is_stated_after_the_day_waits_for_the_next_run(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_NOW", "1998-07-01T10:00:00Z")
    settings.cache_clear()
    relabels.state(images[0], "9", "ada")
    result = landed("mnist:10", NEXT)
    assert result.rows[LABELS] == 0
    assert result.message.endswith("; 1 stated labels wait for a later day")


def test_a_file_of_statements_lands_whole(images: list[str], tmp_path: Path) -> None:
    reviewed = tmp_path / "reviewed.csv"
    reviewed.write_text("image_id,label\n" + "".join(f"{image},new\n" for image in images[:4]))
    assert relabels.state_file(reviewed, "ada")["statements"] == 4
    assert landed("mnist:10", NEXT).rows[LABELS] == 4
    assert all(labels_of(image)[-1] == ("new", "ada") for image in images[:4])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_id,label\nffff,9\n", r"reviewed\.csv, row 2: release 1 has no image 'ffff'\. Nothing was put down"),
        ("image_id,label\n{0},9\n{0},8\n", r"row 3, column image_id: '{0}' stands in .*row 2 too"),
        ("image_id,label\n{0},\n", r"reviewed\.csv, row 2, column label: empty"),
        ("image,label\n{0},9\n", r"reviewed\.csv, row 1: expected the columns image_id, label, .*\['image', 'label'\]"),
    ],
)
def test_a_bad_row_of_statements_is_named_and_nothing_of_the_file_counts(
    content: str, message: str, images: list[str], tmp_path: Path
) -> None:
    (tmp_path / "reviewed.csv").write_text(content.format(images[0]))
    with pytest.raises((LabelError, SourceError), match=message.replace("{0}", images[0])):
        relabels.state_file(tmp_path / "reviewed.csv", "ada")
    assert landed("mnist:10", NEXT).rows[LABELS] == 0


def test_the_beginning_of_an_id_that_no_other_image_has_is_enough(images: list[str]) -> None:
    others = [image for image in images if image != images[0]]
    beginning = next(images[0][:n] for n in range(1, 33) if not any(one.startswith(images[0][:n]) for one in others))
    told = relabels.state(beginning, "9", "ada")
    assert told["image_id"] == images[0] and len(beginning) < 32
    assert landed("mnist:10", NEXT).rows[LABELS] == 1


def test_a_statement_needs_an_image_a_label_and_a_name(images: list[str]) -> None:
    with pytest.raises(UnknownImage, match="the release in force has no image whose id begins with 'cat'"):
        relabels.state("cat", "9", "ada")
    with pytest.raises(UnknownImage, match="10 images begin with '', such as .*: give more of the id"):
        relabels.state("", "9", "ada")
    with pytest.raises(LabelError, match="label: '' has 0 characters; expected 1 to 200"):
        relabels.state(images[0], "  ", "ada")
    with pytest.raises(LabelError, match="--by: expected who states the label"):
        relabels.state(images[0], "9", " ")


@pytest.mark.parametrize("label", ["\udcff", "a\nb", "\x00"])
def test_a_label_that_no_table_could_hold_is_refused_and_the_next_run_lands(label: str, images: list[str]) -> None:
    with pytest.raises(LabelError, match=r"label: .* holds the character .*expected a line of text\. Nothing was put"):
        relabels.state(images[0], label, "ada")
    with pytest.raises(LabelError, match="--by: .* holds the character"):
        relabels.state(images[0], "9", label + "x")
    assert landed("mnist:10", NEXT).rows[LABELS] == 0


def test_who_labels_a_picture_in_quarantine_is_told_that_no_dataset_reads_it(tmp_path: Path) -> None:
    one = rgb(1)
    pictures = {"a.png": encoded(one, "PNG"), "a.bmp": encoded(one, "BMP")}
    landed(str(folder_of(tmp_path / "set", pictures, "a.png,cat\na.bmp,cat\n")))
    released(DAY)
    [double] = [row for row in rows(CLEAN) if row["state"] == "quarantined"]
    told = relabels.state(double["image_id"], "dog", "ada")
    reason = f"{double['image_id']} (duplicate: the same pixels as {double['duplicate_of']})"
    assert reason in told["note"]
    assert "note" not in relabels.state(double["duplicate_of"], "dog", "ada")


def test_a_label_that_no_picture_had_is_said_beside_those_there_are(images: list[str]) -> None:
    told = relabels.state(images[0], "sevne", "ada")
    assert told["new_labels"] == "sevne: no picture had it before; the others are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "new_labels" not in relabels.state(images[0], "7", "ada")


def test_before_the_first_release_there_is_nothing_to_label() -> None:
    with pytest.raises(LabelError, match="no image is released yet"):
        relabels.state("ffff", "9", "ada")
