"""Faults of the image product: what a source brings, and mistakes in the code that image datasets are known for."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from drills import ground, pictures
from drills.code_faults import Edit, rounded_on_the_way
from drills.drill import Drilling, last_line
from ingestion.images import packaged
from ingestion.images.sources import Item
from plumb.demo import demo
from plumbline import clock
from plumbline.errors import PlumblineError
from products.images import CLEAN

COPIED, RELABELLED, FEW = 60, 30, 5

SPLIT_BY_PICTURE = (
    Edit(
        "training/images/split.py",
        '    return groups["group_id"].map(oldest).map(own).rename("split")\n',
        '    return groups["image_id"].map(own).rename("split")\n',
    ),
)
COPIES_BEFORE_THE_SPLIT = (
    Edit(
        "training/images/dataset.py",
        "    rows, facts = with_features(found.rows, answer, stored, pins)\n",
        "    rows, facts = with_features(found.rows, answer, stored, pins)\n"
        "    import pandas as pd\n\n"
        '    copies = rows.assign(image_id=rows["image_id"] + "~1", split=rows["split"].to_list()[::-1])\n'
        "    rows = pd.concat([rows, copies], ignore_index=True)\n",
    ),
)
LABELS_OF_NOW = (
    Edit(
        "training/images/labels.py",
        '    told = frame[frame["event_time"] <= cutoff].sort_values(',
        "    told = frame.sort_values(",
    ),
    Edit(
        "training/images/labels.py",
        '        if row["event_time"] <= cutoff and (row["image_id"] not in newest',
        '        if (row["image_id"] not in newest',
    ),
)
OTHER_EMBEDDINGS = (rounded_on_the_way("embedding", "transform(embedding, x -> CAST(round(x, 2) AS FLOAT))"),)


def near_duplicates(drilling: Drilling) -> None:
    """The split forgets groups, and sixty pictures came again, a shade brighter."""
    some = packaged.mnist(COPIED)
    again = [Item(f"brighter-{item.name}", item.label, _brighter(item.content), item.where) for item in some]
    pictures.write([*packaged.mnist(pictures.IN_ALL), *again])
    _after_the_day(drilling, SPLIT_BY_PICTURE)


def augmented_copies(drilling: Drilling) -> None:
    """Pictures are copied before the split, for more of them, and the copies land on any side."""
    _after_the_day(drilling, COPIES_BEFORE_THE_SPLIT)


def later_labels(drilling: Drilling) -> None:
    """Thirty labels are corrected on the day, and the code takes the newest ones for a dataset of the day before."""
    corrected = drilling.folder / "corrected.csv"
    known = sorted(row["image_id"] for row in pictures.rows(CLEAN) if row["state"] == "clean")[:RELABELLED]
    corrected.write_text("image_id,label\n" + "".join(f"{image},corrected\n" for image in known))
    demo.set_clock(clock.end_of(pictures.DAY) - timedelta(hours=6))
    done = drilling.stage("relabel", str(corrected), "--by", "a drill")
    demo.set_clock(clock.end_of(pictures.DAY))
    if done.returncode:
        raise PlumblineError(f"the labels could not be corrected: {last_line(done)}")
    _after_the_day(drilling, LABELS_OF_NOW)


def dataset_of_the_eve(drilling: Drilling) -> bool:
    """Somebody builds a dataset of the day before with the changed code, and asks the gates."""
    return _dataset_of_the_eve(drilling, ground.tree(drilling.folder))


def dataset_of_the_eve_again(drilling: Drilling) -> bool:
    """The same with the change taken back, and the day's run."""
    return _dataset_of_the_eve(drilling, None) and drilling.run()


def camera(drilling: Drilling) -> None:
    """The day's pictures are photos whose camera is another one for each digit: EXIF gives the label away."""
    first = list(packaged.mnist(pictures.AT_FIRST))
    known = {item.name for item in first}
    photos = [_photo(item) for item in packaged.mnist(pictures.IN_ALL) if item.name not in known]
    pictures.write([*first, *photos])

    def mend() -> None:
        pictures.write(packaged.mnist(pictures.IN_ALL))
        done = drilling.plumb("releases", "undo", "--product", "images", "--why", "photos of one camera a digit")
        if done.returncode:
            raise PlumblineError(f"the release could not be undone: {last_line(done)}")

    drilling.mend = mend


def broken(drilling: Drilling) -> None:
    """Among the day's pictures are truncated, empty and renamed ones, and texts that say they are PNGs."""
    some = list(packaged.mnist(FEW))
    made: dict[str, Callable[[bytes], bytes]] = {
        "truncated": lambda content: content[: len(content) // 2],
        "renamed": lambda content: b"GIF89a" + content,
        "text": lambda content: b"no picture " + content.hex().encode(),
    }
    bad = [
        Item(f"{how}-{item.name}", item.label, change(item.content), item.where)
        for how, change in made.items()
        for item in some
    ]
    pictures.write([*packaged.mnist(pictures.IN_ALL), *bad])


def all_are_set_aside(drilling: Drilling) -> list[str]:
    """What is wrong when not just the broken pictures are in quarantine, each with a reason."""
    aside = [row for row in pictures.rows(CLEAN) if row["state"] == "quarantined"]
    drilling.notes.append(f"quarantined: {', '.join(sorted({row['reason'] for row in aside}))}")
    return [] if len(aside) == 3 * FEW else [f"{len(aside)} pictures are quarantined, expected {3 * FEW}"]


def other_embeddings(drilling: Drilling) -> None:
    """Somebody rounds embeddings on their way into Redis, and only there."""
    _change(drilling, OTHER_EMBEDDINGS)


def _after_the_day(drilling: Drilling, edits: tuple[Edit, ...]) -> None:
    """The code changes behind the day's run, which came to its end."""
    _change(drilling, edits)
    if not drilling.run():
        raise PlumblineError("the day did not come to its end: the drill cannot begin")
    drilling.looked()


def _change(drilling: Drilling, edits: tuple[Edit, ...]) -> None:
    def change(tree: Path) -> None:
        for edit in edits:
            edit.apply(tree)

    ground.another_tree(drilling.folder, change)


def _dataset_of_the_eve(drilling: Drilling, tree: Path | None) -> bool:
    asked = [drilling.stage(stage, "--cutoff", str(pictures.EVE), tree=tree) for stage in ("dataset", "leakage_check")]
    return all(done.returncode == 0 for done in asked)


def _brighter(content: bytes) -> bytes:
    import numpy as np
    from PIL import Image

    from plumbline.pictures.decode import clean_png

    with Image.open(io.BytesIO(content)) as picture:
        return clean_png(np.asarray(picture.convert("RGB")).clip(0, 250) + 4)


def _photo(item: Item) -> Item:
    """The picture as a JPEG of the camera that took all pictures of its label."""
    from PIL import Image

    written, exif = io.BytesIO(), Image.Exif()
    exif[0x0110] = f"camera of {item.label}"
    with Image.open(io.BytesIO(item.content)) as picture:
        picture.convert("RGB").save(written, "JPEG", quality=95, exif=exif)
    return Item(item.name.replace(".png", ".jpg"), item.label, written.getvalue(), item.where)
