"""Stage 01: pictures and their labels land, once, in the raw bucket and in two append-only tables.

A picture's id is given by its bytes, and its object is created only if it is absent: the same bytes again are nothing
new. The batch's manifest is written when all its objects are there, and never changes. The rows of both tables are
made from it. So a run that was killed before it reads its source again, and one that was killed later does not need
to: either way the same rows come out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date

from ingestion.images import landing, landing_gate, manifests, relabels, sources, tables
from ingestion.images.manifests import BY_INGESTION, Manifest
from plumbline import clock, files, observed
from plumbline.lake import tables as lake
from plumbline.pictures import formats
from plumbline.pictures import names as picture_names
from plumbline.pictures.safe import Decoders
from plumbline.pipeline import contract_gate
from plumbline.pipeline.stage import StageError, StageRun
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import candidates, objects
from plumbline.state.objects import Store
from products.images import IMAGES, LABELS, RAW, SOURCE


def ingest(run: StageRun, source: str | None = None) -> str:
    """Lands what a source has and raw has not. Raises SourceError, BucketError, GateFailed."""
    chosen = source or settings().images_source
    batch = batch_id(run, chosen)
    run.facts |= {"batch_id": batch, "source": chosen}
    released = run.released(RAW, LABELS)
    for table in (RAW, LABELS):
        lake.reset(table, tables.schema(table), released.get(table))
    store = objects.store_at(settings().bucket("raw-images"))
    before = landing_gate.listed(store)
    observed.read(SOURCE, batch)
    manifest = _manifest(store, batch) or _land(run, store, batch, chosen)
    for table, rows in ((RAW, manifest.images), (LABELS, manifest.labels())):
        run.write(table, tables.append(table, rows), len(rows))
    landing_gate.hold(run, store, manifest, before)
    for table in (RAW, LABELS):
        contract_gate.audit(run, table, run.wrote[table])
    classes = len(set(manifest.images["label_at_ingestion"].to_pylist()) - {None})
    told = f"landed {len(manifest.images):,} images of {classes} classes from {chosen}"
    told += f"; {manifest.head['known']:,} were there already"
    for name, what in (("labels_stated", "landed"), ("labels_that_wait", "wait for a later day")):
        told += f"; {manifest.head[name]:,} stated labels {what}" if manifest.head[name] else ""
    return told


def refuse_other_source(as_of: date, source: str) -> None:
    """Raises StageError when the day's run landed another source: stage 01 would find itself done."""
    candidate = candidates.load(IMAGES.name, as_of)
    landed = candidate.stages.get("ingest", {}).get("source", source) if candidate else source
    if landed != source:
        raise StageError(
            f"--as-of {as_of}: this run landed {landed}; one run lands one source, so {source} comes with the next "
            "day's run. To have both at once, put them into one folder with one labels.csv"
        )


def batch_id(run: StageRun, source: str) -> str:
    """The day, and a digest of what else tells batches apart: base, source, and how often the day was set aside."""
    earlier = sum(batch.startswith(f"{run.as_of}-") for batch in run.candidate.rejected)
    told = f"{run.candidate.base}\0{source}\0{earlier}"
    return f"{run.as_of}-{files.sha256(told.encode())[:8]}"


def manifest_key(batch: str) -> str:
    """Where a batch's manifest lies in the raw bucket."""
    return f"manifests/raw_manifest-{batch}.json"


def _manifest(store: Store, batch: str) -> Manifest | None:
    there = store.read(manifest_key(batch))
    if there is None:
        return None
    say(f"this batch's manifest is there: an earlier try of this run landed its objects ({there.where})")
    return manifests.read(there.content, there.where)


def _land(run: StageRun, store: Store, batch: str, source: str) -> Manifest:
    """Puts the new pictures into the bucket, then the manifest."""
    say(f"landing images from {source}")
    with Decoders(children=1) as decoders:
        landed = _Landing(run, store, batch, source, decoders)
        landing.put_all(store, landed.new_objects())
    landed.take_statements(run)
    manifest = landed.manifest()
    landing.put_once(store, manifest_key(batch), manifest.content())
    return manifest


class _Landing:
    """One reading of a source: what of it is new, and the rows that come of it."""

    def __init__(self, run: StageRun, store: Store, batch: str, source: str, decoders: Decoders) -> None:
        self.store, self.batch, self.source, self.decoders = store, batch, source, decoders
        self.event_time, self.now = clock.end_of(run.as_of), clock.now()
        self.before = _labels_before(run)
        self.seen = dict[str, tuple[str | None, str]]()
        self.images, self.statements = tables.Rows(RAW), tables.Rows(LABELS)
        self.known = self.repeats = self.stated = self.waiting = 0

    def new_objects(self) -> Iterator[tuple[str, bytes]]:
        """Key and bytes of each picture that raw does not have yet."""
        for item in sources.opened(self.source):
            sha256 = files.sha256(item.content)
            image = picture_names.image_id(sha256)
            if image in self.seen:
                self._repeated(item, image)
                continue
            self.seen[image] = (item.label, item.where)
            if image in self.before:
                self.known += 1
                if item.label is not None and item.label != self.before[image]:
                    self._state(image, item.label)
                continue
            kind = formats.of(item.content)
            key = landing.raw_key(image, kind)
            self.images.add(
                {
                    "image_id": image,
                    "minio_uri": self.store.where(key),
                    "label_at_ingestion": item.label,
                    "ingestion_timestamp": self.now,
                    "event_time": self.event_time,
                    "sha256": sha256,
                    "size_bytes": len(item.content),
                    "format": kind,
                    "exif": self._exif(item.content, kind),
                    "source": self.source,
                    "source_name": item.name,
                    "batch_id": self.batch,
                }
            )
            yield key, item.content

    def _exif(self, content: bytes, kind: str) -> str | None:
        """The EXIF tags as JSON; only files that may hold some are looked at, in a decoder's process."""
        if kind != "tiff" and b"Exif\0" not in content and b"eXIf" not in content:
            return None
        tags = self.decoders.exif(content)
        return json.dumps(tags, sort_keys=True) if tags else None

    def take_statements(self, run: StageRun) -> None:
        """Adds the labels that people stated until the end of the day."""
        known = {*self.before, *self.seen}
        due, self.waiting = relabels.waiting(known, run.released(LABELS), self.event_time)
        for one in due:
            self.statements.add({**one, "event_time": self.event_time, "batch_id": self.batch})
        self.stated = len(due)

    def manifest(self) -> Manifest:
        """What is to land, for the bucket."""
        head = {
            "batch_id": self.batch,
            "source": self.source,
            "known": self.known,
            "repeated_in_source": self.repeats,
            "labels_stated": self.stated,
            "labels_that_wait": self.waiting,
        }
        return Manifest(head, self.images.table(), self.statements.table())

    def _repeated(self, item: sources.Item, image: str) -> None:
        label, where = self.seen[image]
        if item.label != label:
            raise sources.SourceError(
                f"{self.source}: {item.name} has the same bytes as another picture and another label: {where} says "
                f"{label!r}, {item.where} says {item.label!r}. Nothing was landed: correct one of both rows"
            )
        self.repeats += 1

    def _state(self, image: str, label: str) -> None:
        self.statements.add(
            {
                "image_id": image,
                "label": label,
                "event_time": self.event_time,
                "labelled_at": self.now,
                "labelled_by": BY_INGESTION,
                "batch_id": self.batch,
            }
        )


def _labels_before(run: StageRun) -> dict[str, str | None]:
    """Each image of the base release with the last label that a source gave it."""
    import pyarrow.compute as pc

    released = run.released(RAW, LABELS)
    if RAW not in released:
        return {}
    ids = lake.open_table(RAW, released[RAW]).to_pyarrow_dataset().to_table(columns=["image_id"])
    stated = lake.open_table(LABELS, released[LABELS]).to_pyarrow_dataset()
    names, by_source = ["image_id", "label", "event_time", "labelled_at"], pc.field("labelled_by") == BY_INGESTION
    given = stated.to_table(columns=names, filter=by_source)
    given = given.sort_by([("event_time", "ascending"), ("labelled_at", "ascending")])
    labels = dict(zip(given["image_id"].to_pylist(), given["label"].to_pylist(), strict=True))
    return {image: labels.get(image) for image in ids["image_id"].to_pylist()}
