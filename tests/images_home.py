"""A home with a small image product in it: pictures of four classes, near duplicates among them, tables as the stages
leave them. Embeddings are a fixed projection of the pixels, so that no network and no JVM is needed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from PIL import Image

from plumbline import clock, files, provenance
from plumbline.contracts import contract as contracts
from plumbline.contracts import quality
from plumbline.lake import tables as lake
from plumbline.pictures import perceptual
from plumbline.settings import settings
from plumbline.state import objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.state.trainings import Place
from plumbline.verdict import Verdict
from products.images import CLEAN, EMBEDDINGS, IMAGES, LABELS, RAW

if TYPE_CHECKING:
    from tests.conftest import HomeAs

CLASSES = ("cat", "dog", "fox", "owl")
SIDE = 32
FIRST, SECOND, THIRD = date(2026, 6, 1), date(2026, 6, 2), date(2026, 6, 3)
NOW = "2026-06-10T00:00:00Z"


@dataclass(frozen=True)
class Picture:
    """A made-up picture: its pixels, what it shows, and the number of the group of near duplicates that it is of."""

    pixels: Any
    label: str
    group: int

    @property
    def content(self) -> bytes:
        written = io.BytesIO()
        Image.fromarray(self.pixels).save(written, "PNG")
        return written.getvalue()

    @property
    def image_id(self) -> str:
        return files.sha256(self.content)[:32]


@pytest.fixture
def images(home_as: HomeAs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A home with 100 groups of one day in release 1; the place of its dataset, which is built."""
    monkeypatch.setenv("PLUMBLINE_NOW", NOW)
    settings.cache_clear()
    home_as("images", fill)
    yield Place(IMAGES, 1)
    settings.cache_clear()


def fill() -> None:
    """Release 1 and its dataset."""
    land(pictures(100), FIRST)
    embed_all()
    publish(FIRST)
    write_dataset(Place(IMAGES, 1))


def pictures(groups: int, first: int = 0, near: int = 5) -> list[Picture]:
    """A picture of each group, classes in turn, and of every `near`th group two more that differ by a few levels."""
    made = []
    for number in range(first, first + groups):
        random = np.random.default_rng(number)
        pattern = 0.55 * _smooth(np.random.default_rng(-1 - number % 4 + 9)) + _smooth(random)
        pixels = np.clip(128 + 62 * pattern + random.normal(0, 4, pattern.shape), 0, 255)
        for copy in range(3 if number % near == 0 else 1):
            made.append(Picture((pixels * (1 - copy / 64)).astype(np.uint8), CLASSES[number % 4], number))
    return made


def _smooth(random: np.random.Generator) -> Any:
    """A smooth random pattern (SIDE, SIDE, 3) of about unit spread."""
    coarse = Image.fromarray((random.random((6, 6, 3)) * 255).astype(np.uint8))
    return (np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64) - 128) / 64


def embedding(pixels: Any, version: str = "v1") -> Any:
    """1,280 numbers of a picture."""
    small = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX), dtype=np.float64)
    return ((small.ravel() - 128) / 64 @ _projection(version)).astype(np.float32)


@cache
def _projection(version: str) -> Any:
    return np.random.default_rng(int(version[1:])).normal(0, 0.05, (16 * 16 * 3, 1280))


def land(new: Iterable[Picture], day: date, batch: str | None = None) -> list[str]:
    """Lands pictures with their labels, as of a day, and cleans all there are; the new ones' ids."""
    listed, end = list(new), clock.end_of(day)
    batch = batch or f"images-{day}"
    raw = [
        {
            "image_id": one.image_id,
            "minio_uri": f"{settings().bucket('raw-images')}/{one.image_id[:2]}/{one.image_id}.png",
            "label_at_ingestion": one.label,
            "ingestion_timestamp": end,
            "event_time": end,
            "sha256": files.sha256(one.content),
            "size_bytes": len(one.content),
            "format": "png",
            "source": "made up",
            "source_name": f"{one.group}.png",
            "batch_id": batch,
        }
        for one in listed
    ]
    _write(RAW, raw, "append")
    review({one.image_id: one.label for one in listed}, day, "ingestion", batch)
    _clean(listed, day)
    return [one.image_id for one in listed]


def review(labels: Mapping[str, str], day: date, who: str = "reviewer", batch: str = "review") -> None:
    """States labels, as of a day."""
    end = clock.end_of(day)
    rows = [
        {
            "image_id": image,
            "label": label,
            "labelled_by": who,
            "batch_id": batch,
            "event_time": end,
            "labelled_at": end,
        }
        for image, label in labels.items()
    ]
    _write(LABELS, rows, "append")


def _clean(listed: list[Picture], day: date) -> None:
    store = objects.store_at(settings().bucket("clean-images"))
    before = lake.opened(CLEAN).to_pyarrow_table().to_pylist() if lake.version(CLEAN) is not None else []
    rows = []
    for one in listed:
        key = f"c1/{one.image_id[:2]}/{one.image_id}.png"
        store.create(key, one.content)
        rows.append(
            {
                "image_id": one.image_id,
                "cleaning_version": "c1",
                "state": "clean",
                "clean_uri": store.where(key),
                "clean_sha256": files.sha256(one.content),
                "width": SIDE,
                "height": SIDE,
                "perceptual_hash": perceptual.phash(one.pixels),
                "group_id": min(other.image_id for other in listed if other.group == one.group),
                "event_time": clock.end_of(day),
                "ingestion_timestamp": clock.end_of(day),
                "cleaned_at": clock.end_of(day),
            }
        )
    _write(CLEAN, [*before, *rows], "overwrite")


def quarantine(image: str) -> None:
    """Another cleaning sets an image aside."""
    rows = lake.opened(CLEAN).to_pyarrow_table().to_pylist()
    for row in rows:
        if row["image_id"] == image:
            row |= {"state": "quarantined", "reason": "broken", "clean_uri": None, "group_id": None}
    _write(CLEAN, rows, "overwrite")


def regroup(group: Callable[[dict[str, Any]], str]) -> None:
    """Another cleaning gives images other groups."""
    rows = lake.opened(CLEAN).to_pyarrow_table().to_pylist()
    _write(CLEAN, [{**row, "group_id": group(row)} for row in rows], "overwrite")


def exif(of: Callable[[Picture], Mapping[str, object]]) -> None:
    """The pictures of the first day, as if they had come with this EXIF."""
    made = {one.image_id: json.dumps(dict(of(one))) for one in pictures(100)}
    rows = lake.opened(RAW).to_pyarrow_table().to_pylist()
    _write(RAW, [{**row, "exif": made[row["image_id"]]} for row in rows], "overwrite")


def embed_all(version: str = "v1") -> None:
    """An embedding for each clean picture that has none of this version."""
    table = EMBEDDINGS[version]
    known = lake.opened(table).to_pyarrow_table()["clean_sha256"].to_pylist() if lake.version(table) is not None else []
    rows = []
    for row in lake.opened(CLEAN).to_pyarrow_table().to_pylist():
        if row["state"] != "clean" or row["clean_sha256"] in known:
            continue
        stored = objects.read_at(row["clean_uri"])
        assert stored is not None
        pixels = np.asarray(Image.open(io.BytesIO(stored.content)))
        rows.append(
            {
                "image_id": row["image_id"],
                "event_time": row["event_time"],
                "created_at": row["cleaned_at"],
                "ingestion_timestamp": row["ingestion_timestamp"],
                "uri": row["clean_uri"],
                "clean_sha256": row["clean_sha256"],
                "embedding": embedding(pixels, version).tolist(),
                "label": None,
                "preprocessing_version": version,
                "extraction_model": "made-up@sha256:0123456789ab",
                "cleaning_version": row["cleaning_version"],
                "release_id": 1,
            }
        )
    _write(table, rows, "append")


def publish(day: date, rejected: Iterable[str] = ()) -> Release:
    """A release of what the tables hold."""
    known = {table: lake.version(table) for table in (RAW, LABELS, CLEAN, *EMBEDDINGS.values())}
    held = {table: version for table, version in known.items() if version is not None}
    base = releases.in_force(IMAGES.name)
    number = base.release_id if base else 0
    gates = {"images_expectations": Verdict("images_expectations", passed=True)}
    made = Release(
        number + 1, IMAGES.name, day, number or None, held, gates, "code", "lock", f"images-{day}", NOW, list(rejected)
    )
    releases.publish(made)
    return made


def write_dataset(where: Place, version: str = "v1") -> dict[str, Any]:
    """The dataset as `plumb images dataset` leaves it, but for Feast's join and DVC: no JVM, no other environment."""
    from training.images import dataset

    release = releases.read(IMAGES.name, where.release_id)
    cutoff = clock.end_of(where.cutoff or release.as_of)
    names = (EMBEDDINGS[version], LABELS, CLEAN, RAW)
    pins = dataset.Pins(names[0], {name: release.version(name) for name in names})
    found = dataset.observed(pins, release.rejected, cutoff)
    stored = dataset.embeddings(pins, cutoff)
    answer = stored.reindex(found.rows["image_id"]).reset_index()
    rows, facts = dataset.with_features(found.rows, answer, stored, pins)
    told: dict[str, object] = {
        "cutoff_timestamp": cutoff.isoformat(),
        "as_of": str(release.as_of),
        "feature_service": f"images_{version}",
        "rejected_batches": release.rejected,
    }
    about, content = dataset.described(where, rows, {**found.counts, **facts, **pins.named(), **told})
    objects.replace_bytes(where.key(trainings.ROWS), content)
    about |= {"seconds": 0.0, "code_sha": provenance.code_sha()}
    objects.replace_json(where.key(trainings.ABOUT), about)
    return about


def change(where: Place, rows: Any, **about: object) -> None:
    """Puts other rows in the place of a dataset's, whole and with their hash, as a mistake in its making would."""
    from training import canonical
    from training.images import dataset

    table = canonical.table(rows, dataset.schema(), dataset.KEY)
    before = objects.read_json(where.key(trainings.ABOUT)) or {}
    digest = canonical.content_hash(table, dataset.KEY)
    objects.replace_bytes(where.key(trainings.ROWS), canonical.to_parquet(table))
    objects.replace_json(where.key(trainings.ABOUT), {**before, "content_hash": digest, **about})


def _write(table: str, rows: list[dict[str, Any]], mode: str) -> None:
    schema = quality.arrow_schema(contracts.load(table).columns.values())
    whole = [{name: row.get(name) for name in schema.names} for row in rows]
    data = pa.Table.from_pylist(whole, schema=schema)
    write_deltalake(lake.uri(table), data, mode=mode, configuration=dict(lake.KEEP_LOG))
