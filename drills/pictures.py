"""The image product's drill ground: some of MNIST's digits in a folder, a release and its model; more the day after.

The digits are real; on which day each came is made up.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from drills.ground import Ground
from ingestion.images import packaged
from ingestion.images.sources import Item
from plumb.demo import demo
from plumbline import clock, files
from plumbline.lake import tables as lake
from plumbline.pictures import names
from plumbline.settings import settings
from plumbline.state import releases
from products.images import CLEAN, IMAGES, RAW

EVE, DAY = date(2026, 6, 1), date(2026, 6, 2)
AT_FIRST, IN_ALL = 600, 850
"""Pictures that are there on the eve, and on the day."""


def folder() -> Path:
    """The source."""
    return settings().home / "pictures"


def day_comes(day: date) -> None:
    """The folder has the pictures up to that day, and the clock stands at its end."""
    write(packaged.mnist(AT_FIRST if day == EVE else IN_ALL))
    demo.set_clock(clock.end_of(day))


def write(items: Iterable[Item]) -> None:
    """Puts these pictures into the folder, and no others into its labels.csv."""
    folder().mkdir(parents=True, exist_ok=True)
    for old in folder().iterdir():
        old.unlink()
    rows = []
    for item in items:
        (folder() / item.name).write_bytes(item.content)
        rows.append((item.name, item.label))
    with (folder() / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])


def picture(day: date = EVE) -> dict[str, str]:
    """A clean picture that came on that day, the one with the smallest id."""
    clean = (row for row in rows(CLEAN) if row["state"] == "clean")
    return {"image_id": min(row["image_id"] for row in clean if row["event_time"] == clock.end_of(day))}


def rows(table: str) -> list[dict[str, Any]]:
    """A table's rows in the release in force, without those of rejected batches."""
    release = releases.required(IMAGES.name)
    held: list[dict[str, Any]] = lake.open_table(table, release.version(table)).to_pyarrow_table().to_pylist()
    return [row for row in held if row.get("batch_id") not in release.rejected]


def lost() -> int:
    """Pictures in the folder that the release in force does not have once each in raw, and as clean or quarantined."""
    sent = {names.image_id(files.sha256(path.read_bytes())) for path in folder().iterdir() if path.name != "labels.csv"}
    raw = Counter(row["image_id"] for row in rows(RAW))
    states = Counter(row["image_id"] for row in rows(CLEAN) if row["state"] in ("clean", "quarantined"))
    return sum(raw[image] != 1 or states[image] != 1 for image in sent)


GROUND = Ground(
    product=IMAGES,
    eves=(EVE,),
    day=DAY,
    counted="pictures",
    about=f"{AT_FIRST} of MNIST's digits in one release, and its model",
    comes=day_comes,
    one=picture,
    newest=lambda: picture(DAY),
    anew=False,
    said=lambda prediction: {name: prediction[name] for name in ("label", "probability", "embedding_sha256")},
    lost=lost,
    settings=lambda home: {"images_source": str(home / "pictures")},
)
