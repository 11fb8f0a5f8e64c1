"""Everything behind what is said of one image: its labels, its cleaning, its embeddings, its datasets, its answers."""

from __future__ import annotations

from typing import Any

from plumbline.lake import tables as lake
from plumbline.pictures import names
from plumbline.settings import settings
from plumbline.state import objects, releases, trainings
from products.images import CLEAN, EMBEDDINGS, IMAGES, LABELS, LOG, RAW

ANSWERS = 5
"""The newest answers that are told."""


def why(asked: str) -> dict[str, Any]:
    """What the release in force and the outcome log say of an image, by its id or the beginning of it.

    `picture` is where its clean picture lies, None for one in quarantine. Raises UnknownImage.
    """
    release = releases.required(IMAGES.name)
    raw = _one(asked, release.version(RAW))
    image = raw["image_id"]
    clean = next(iter(_rows(CLEAN, release.version(CLEAN), image)), {})
    group = _of("group_id", clean.get("group_id"), CLEAN, release.version(CLEAN))
    return {
        "image_id": image,
        "release_id": release.release_id,
        "raw": raw,
        "labels": sorted(_rows(LABELS, release.version(LABELS), image), key=lambda row: row["labelled_at"]),
        "clean": clean,
        "near_duplicates": sorted(row["image_id"] for row in group if row["image_id"] != image),
        "picture": _place(clean),
        "embeddings": [
            {name: row[name] for name in SAID}
            for table in EMBEDDINGS.values()
            if table in release.tables
            for row in _rows(table, release.version(table), image, SAID)
        ],
        "datasets": _datasets(image),
        "answers": _answers(image),
    }


SAID = ("preprocessing_version", "extraction_model", "cleaning_version", "created_at", "release_id", "clean_sha256")
"""What is told of an embedding."""


def show(found: dict[str, Any]) -> None:
    """Prints it."""
    from rich.markup import escape

    from plumbline.display import terminal

    console = terminal.console(140)
    raw, clean = found["raw"], found["clean"]
    console.print(f"[bold]Image {found['image_id']}[/bold], release {found['release_id']}")
    console.print(
        f"  raw: {escape(raw['source_name'])} of {escape(raw['source'])}, {raw['format']}, {raw['size_bytes']:,} bytes"
    )
    console.print(f"       {escape(raw['minio_uri'])}", soft_wrap=True)
    for label in found["labels"]:
        at = f"{label['labelled_at']:%Y-%m-%d %H:%M} UTC"
        console.print(f"  label: {escape(str(label['label']))}, by {escape(label['labelled_by'])}, {at}")
    if clean.get("state") == "clean":
        console.print(f"  clean at {clean['cleaning_version']}: {clean['width']} x {clean['height']} pixels")
        console.print(f"       {escape(found['picture'])}", soft_wrap=True)
    elif clean:
        console.print(
            f"  [red]quarantined[/red] at {clean['cleaning_version']}: {clean['reason']}, {escape(clean['detail'])}"
        )
    if found["near_duplicates"]:
        others = found["near_duplicates"]
        console.print(f"  near duplicates: {len(others)}, such as {', '.join(other[:12] for other in others[:4])}")
    for one in found["embeddings"]:
        console.print(
            f"  embedding {one['preprocessing_version']} by {one['extraction_model']}, release {one['release_id']}"
        )
    for name, row in found["datasets"].items():
        console.print(f"  dataset {name}: {row['split']}, labelled {escape(row['label'])}")
    for answer in found["answers"]:
        said = f"{escape(answer['label'])} ({answer['score']:.3f})"
        console.print(f"  answered {said} by model {answer['model_version']}, asked by {answer['asked_by']}, "
                      f"{answer['logged_at']:%Y-%m-%d %H:%M:%S} UTC, request {answer['request_id']}")  # fmt: skip
    if not found["answers"]:
        console.print("  the outcome log has no answer about it")


def _one(asked: str, version: int) -> dict[str, Any]:
    import pyarrow.compute as pc

    table = lake.open_table(RAW, version).to_pyarrow_dataset()
    rows: list[dict[str, Any]] = table.to_table(filter=pc.starts_with(pc.field("image_id"), asked)).to_pylist()
    image = names.named(asked, {row["image_id"] for row in rows}, "the release in force")
    return next(row for row in rows if row["image_id"] == image)


def _rows(table: str, version: int | None, image: str, columns: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    return _of("image_id", image, table, version, columns)


def _of(
    name: str, value: str | None, table: str, version: int | None, columns: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    if value is None:
        return []
    held = lake.open_table(table, version).to_pyarrow_dataset()
    rows: list[dict[str, Any]] = held.to_table(
        columns=list(columns) if columns else None, filter=pc.field(name) == value
    ).to_pylist()
    return rows


def _place(clean: dict[str, Any]) -> str | None:
    if not clean.get("clean_uri"):
        return None
    return objects.store_at(settings().bucket("clean-images")).where(names.clean_key(clean["clean_uri"]))


def _datasets(image: str) -> dict[str, dict[str, Any]]:
    """Each dataset that holds it: the side of the split and the label."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = {}
    for place, about in trainings.datasets(IMAGES.name).items():
        stored = objects.read(trainings.key(IMAGES.name, place, trainings.ROWS))
        if stored is None:
            continue
        rows = pq.read_table(pa.BufferReader(stored.content), columns=["image_id", "split", "label"])
        for row in rows.filter(pc.field("image_id") == image).to_pylist():
            found[str(about.get("dataset_id", place))] = row
    return found


def _answers(image: str) -> list[dict[str, Any]]:
    if lake.version(LOG) is None:
        return []
    rows = _of("image_id", image, LOG, None)
    return sorted(rows, key=lambda row: row["logged_at"], reverse=True)[:ANSWERS]
