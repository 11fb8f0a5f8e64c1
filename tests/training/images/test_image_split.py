"""Sides of the split: by group, alike for each class, and the same however many images come after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from training.images import split

DAY = datetime(2026, 6, 2, tzinfo=UTC)


def images(count: int, day: int = 0, classes: int = 4, prefix: str = "i") -> pd.DataFrame:
    """Images of one day, classes in turn, each a group of its own."""
    ids = [f"{prefix}{day}-{number:04d}" for number in range(count)]
    labels = [f"class {number % classes}" for number in range(count)]
    times = [DAY + timedelta(days=day)] * count
    frame = pd.DataFrame({"image_id": ids, "label_at_ingestion": labels, "event_time": times})
    return frame.assign(group_id=frame["image_id"])


def sides(frame: pd.DataFrame) -> dict[str, str]:
    """image_id → side."""
    return dict(zip(frame["image_id"], split.sides(frame, frame), strict=True))


def test_every_class_is_divided_alike() -> None:
    frame = images(400)
    counts = pd.crosstab(frame["label_at_ingestion"], split.sides(frame, frame))
    assert counts.to_dict("index") == {f"class {n}": {"train": 70, "val": 15, "test": 15} for n in range(4)}


def test_another_seed_divides_otherwise_and_the_same_seed_the_same() -> None:
    frame = images(200)
    first, again, other = (split.sides(frame, frame, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@given(st.integers(1, 300), st.integers(1, 300))
def test_images_that_come_later_move_none(before: int, after: int) -> None:
    old = images(before)
    both = pd.concat([images(after, day=1, prefix="a"), old], ignore_index=True)
    assert {image: side for image, side in sides(both).items() if image in set(old["image_id"])} == sides(old)


def test_a_group_is_on_the_side_of_its_oldest_image_whatever_it_is_called() -> None:
    old, new = images(40), images(40, day=1, prefix="a")
    was = sides(old)
    joined = pd.concat([old, new], ignore_index=True)
    # Each new picture is a near duplicate of an old one; the smallest id, and so the group's name, is now a new one's.
    joined["group_id"] = [*new["image_id"], *new["image_id"]]
    found = sides(joined)
    assert {image: found[image] for image in old["image_id"]} == was
    assert [found[image] for image in new["image_id"]] == [was[image] for image in old["image_id"]]


def test_of_two_groups_that_merge_only_the_younger_moves() -> None:
    old, young = images(40), images(40, day=1, prefix="a")
    apart = pd.concat([old, young], ignore_index=True)
    before = sides(apart)
    merged = apart.assign(group_id=[*old["image_id"], *old["image_id"]])
    after = sides(merged)
    assert [after[image] for image in old["image_id"]] == [before[image] for image in old["image_id"]]
    assert [after[image] for image in young["image_id"]] == [before[image] for image in old["image_id"]]
    assert any(after[image] != before[image] for image in young["image_id"])


def test_a_later_label_moves_no_image_and_one_without_a_label_has_a_side() -> None:
    frame = images(40)
    frame.loc[:9, "label_at_ingestion"] = None
    assert set(sides(frame).values()) == set(split.SIDES)
