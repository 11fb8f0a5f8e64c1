"""Labels that people state later. A statement waits in the state until stage 01 of the day it was made on lands it.

It becomes a row of raw.image_labels and never changes another one: `label_at_ingestion` stays as the source had it.
A statement counts as landed when the release in force has its row, so an undone or rejected run loses none.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ingestion.images import labels_file
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pictures import names
from plumbline.state import objects, releases
from plumbline.state.releases import Release
from products.images import CLEAN, IMAGES, LABELS, RAW

FOLDER = f"relabels/{IMAGES.name}"
TIMES = ("labelled_at", "stated_at")
IDENTITY = ("image_id", "label", "labelled_at", "labelled_by")


class LabelError(PlumblineError):
    """A statement about a picture that is not there, or without a label or a name."""


def state(image: str, label: str, by: str) -> dict[str, Any]:
    """Puts down what a picture shows, by its id or the beginning of it, and who says so.

    Raises LabelError, UnknownImage.
    """
    ids = _released()[1]
    image = names.named(image, ids, "the release in force") if image not in ids else image
    return _state([(f"image {image}", image, label)], by)


def state_file(path: Path, by: str) -> dict[str, Any]:
    """The same for each row of a CSV with the columns image_id and label. Raises LabelError, SourceError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}") from None
    pairs = labels_file.rows(content, str(path), ("image_id", "label"))
    given = [(f"{path}, row {row}", image, label) for row, (image, label) in pairs]
    seen = dict[str, str]()
    for where, image, _ in given:
        if image in seen:
            raise LabelError(f"{where}, column image_id: {image!r} stands in {seen[image]} too; leave one out")
        seen[image] = where
    return _state(given, by)


def waiting(known: set[str], released: dict[str, int], until: datetime) -> tuple[list[dict[str, Any]], int]:
    """The statements made up to then that no released row holds, the earliest first, and how many wait for later."""
    rows = lake.open_table(LABELS, released[LABELS]).to_pyarrow_dataset() if LABELS in released else None
    landed = {tuple(row.values()) for row in rows.to_table(columns=list(IDENTITY)).to_pylist()} if rows else set()
    pending = [one for one in _stated() if tuple(one[name] for name in IDENTITY) not in landed]
    due = [one for one in pending if one["stated_at"] <= until and one["image_id"] in known]
    due.sort(key=lambda one: (one["labelled_at"], one["image_id"]))
    return [{name: one[name] for name in IDENTITY} for one in due], len(pending) - len(due)


def _state(given: list[tuple[str, str, str]], by: str) -> dict[str, Any]:
    try:
        by = labels_file.label_of(by)
    except ValueError as error:
        raise LabelError(f"--by: expected who states the label; {error}") from None
    release, known = _released()
    newest, now = _newest(release.tables), clock.now()
    statements, was = list[dict[str, Any]](), dict[str, str | None]()
    for where, image, label in given:
        if image not in known:
            raise LabelError(f"{where}: release {release.release_id} has no image {image!r}. Nothing was put down")
        try:
            stated = labels_file.label_of(label)
        except ValueError as error:
            raise LabelError(f"{where}, label: {error}. Nothing was put down") from None
        at, was[image] = now, None
        if image in newest:
            at, was[image] = max(now, newest[image][0] + timedelta(microseconds=1)), newest[image][1]
        statements.append({"image_id": image, "label": stated, "labelled_at": at, "labelled_by": by, "stated_at": now})
    name = f"{clock.wall():%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
    objects.create_json(f"{FOLDER}/{name}.json", {"statements": [_as_text(one) for one in statements]})
    told: dict[str, Any] = {"statements": len(statements), "by": by, "lands_with": _lands_with(now)}
    labels = {label for _, label in newest.values()}
    if fresh := sorted({one["label"] for one in statements} - labels):
        told["new_labels"] = f"{', '.join(fresh)}: no picture had it before; the others are {_some(labels)}"
    if aside := _set_aside({one["image_id"] for one in statements}, release.tables):
        image, why = aside[0]
        told["note"] = (
            f"{len(aside):,} of them in quarantine, where no dataset reads a label, such as {image} ({why}); of a "
            "duplicate, label the picture that it repeats"
        )
    if len(statements) == 1:
        image = statements[0]["image_id"]
        told |= {"image_id": image, "was": was[image], "label": statements[0]["label"]}
    return told


def _released() -> tuple[Release, set[str]]:
    """The release in force, and the ids of its images."""
    release = releases.in_force(IMAGES.name)
    if release is None or RAW not in release.tables:
        raise LabelError("no image is released yet: land some and publish them first (PIPELINE_GUIDE.md)")
    ids = lake.opened(RAW, release.tables[RAW]).to_pyarrow_dataset().to_table(columns=["image_id"])
    return release, set(ids["image_id"].to_pylist())


def _some(labels: set[str], most: int = 12) -> str:
    """The first labels, and how many more there are."""
    named = ", ".join(sorted(labels)[:most])
    return f"{named} and {len(labels) - most} more" if len(labels) > most else named or "none"


def _set_aside(images: set[str], tables: dict[str, int]) -> list[tuple[str, str]]:
    """Those of the images that are in quarantine, and why."""
    import pyarrow.compute as pc

    if CLEAN not in tables:
        return []
    clean = lake.opened(CLEAN, tables[CLEAN]).to_pyarrow_dataset()
    aside = clean.to_table(columns=["image_id", "reason", "detail"], filter=pc.field("state") == "quarantined")
    rows = [row for row in aside.to_pylist() if row["image_id"] in images]
    return sorted((row["image_id"], f"{row['reason']}: {row['detail']}") for row in rows)


def _lands_with(now: datetime) -> str:
    return f"the run of {(now - timedelta(microseconds=1)).date()}"


def _newest(tables: dict[str, int]) -> dict[str, tuple[datetime, str]]:
    """The last statement about each image, released or waiting: when, and which label."""
    rows = lake.opened(LABELS, tables[LABELS]).to_pyarrow_dataset().to_table(columns=list(IDENTITY)).to_pylist()
    stated = sorted((row["labelled_at"], row["label"], row["image_id"]) for row in [*rows, *_stated()])
    return {image: (at, label) for at, label, image in stated}


def _stated() -> list[dict[str, Any]]:
    """Every statement that was ever put down."""
    entries = [objects.read_json(key) or {} for key in objects.keys(FOLDER)]
    each = [one for entry in entries for one in entry.get("statements", [])]
    return [one | {name: datetime.fromisoformat(one[name]) for name in TIMES} for one in each]


def _as_text(statement: dict[str, Any]) -> dict[str, Any]:
    return statement | {name: statement[name].isoformat() for name in TIMES}
