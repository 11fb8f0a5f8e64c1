"""Which side of the split an image is on: train, val or test, its near duplicates with it.

Every image of `raw.images` has a slot of its own. The images of one class (by the label they came with, which never
changes) are put in the order in which they became known, of one day by a hash of id and seed. Each BLOCK of that order
is dealt out whole, so that every class is divided alike. Raw is only appended to, so a slot never changes.

A group of near duplicates is where its oldest clean image is: the one known first, of one day the smallest id. New
images, however close, are younger, so a group stays. When a new image joins two old groups, both go where the older
one is: one side must give way, and only that one moves. Another cleaning may also change who is in a group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline import files

if TYPE_CHECKING:
    import pandas as pd

SEED = 1997
BLOCK = 20
TEST, VAL = 3, 3
"""Of a block: 15 % to test with, 15 % to look at while choosing, the rest to train on."""

SIDES = ("train", "val", "test")


def sides(raw: pd.DataFrame, groups: pd.DataFrame, seed: int = SEED) -> pd.Series:
    """The side of each image of `groups`, by its index.

    `raw` has image_id, event_time and label_at_ingestion of every image there is, `groups` image_id, group_id and
    event_time of those that are clean.
    """
    own = slots(raw, seed)
    ordered = groups.sort_values(["event_time", "image_id"], kind="stable")
    oldest = ordered.drop_duplicates("group_id").set_index("group_id")["image_id"]
    return groups["group_id"].map(oldest).map(own).rename("split")


def slots(raw: pd.DataFrame, seed: int = SEED) -> pd.Series:
    """image_id → the side that the image would be on by itself."""
    digests = [files.sha256(f"{seed}:{image}".encode()) for image in raw["image_id"]]
    labelled = raw.assign(digest=digests, label=raw["label_at_ingestion"].fillna(""))
    ordered = labelled.sort_values(["event_time", "digest"], kind="stable")
    # Within a class blocks follow each other, so that the first TEST of each block are a random sample of it.
    place = ordered.groupby("label", sort=False).cumcount() % BLOCK
    side = place.map(lambda at: "test" if at < TEST else "val" if at < TEST + VAL else "train")
    return side.set_axis(ordered["image_id"])
