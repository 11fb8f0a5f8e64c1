"""Stage 02: every raw picture is decoded, checked and grouped. What cannot be used is quarantined, with a reason.

A clean picture is a new PNG of its pixels alone, under a key that holds the cleaning's version. A change to what
cleaning does is a new CLEANING_VERSION: everything is cleaned again beside the old objects. At one version, a picture
that is clean already is not decoded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ingestion.images import cleaning_gate, landing, near_duplicates, tables
from plumbline import clock, files
from plumbline.lake import tables as lake
from plumbline.pictures import perceptual
from plumbline.pictures.decode import BadPicture, Limits, decoded
from plumbline.pictures.safe import PERHAPS_THE_CHILDS, Cleaned, Decoders
from plumbline.pipeline import contract_gate
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import objects
from plumbline.state.objects import Store
from products.images import CLEAN, RAW

CLEANING_VERSION = "c1"
"""Raise it with any change to what a clean picture's bytes or its reasons are."""

LIMITS = Limits()
"""What a picture may be; a change is a new CLEANING_VERSION."""

AHEAD = 64
"""Pictures that are read and decoded ahead of the one that is looked at: memory stays flat."""

SAID_EVERY = 2000


def clean(run: StageRun) -> str:
    """Cleans what is not clean yet and writes clean.images whole. Raises BucketError, GateFailed."""
    raw = raw_rows(run)
    kept = _kept(run, {row["image_id"] for row in raw})
    store = objects.store_at(settings().bucket("clean-images"))
    rows = list(_cleaned(store, raw, kept))
    _group(store, rows)
    version = _write(rows)
    run.write(CLEAN, version, len(rows))
    manifest = manifest_of(rows)
    key = f"manifests/clean_manifest-{run.candidate.run_id}-v{version}.json"
    landing.put_once(store, key, files.dumps(manifest).encode())
    cleaning_gate.hold(run, store, manifest, LIMITS)
    contract_gate.audit(run, CLEAN, version)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest["quarantined"].items())
    return (
        f"{manifest['total_clean']:,} of {manifest['total_raw']:,} images are clean at {CLEANING_VERSION} "
        f"({len(rows) - len(kept):,} decoded now); quarantined: {reasons or 'none'}"
    )


def raw_rows(run: StageRun) -> list[dict[str, Any]]:
    """The raw pictures of this run, without those of rejected batches; the earliest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ["image_id", "format", "source_name", "event_time", "ingestion_timestamp", "batch_id"]
    table = lake.open_table(RAW, run.pin(RAW)).to_pyarrow_dataset()
    rejected = pc.field("batch_id").isin(pa.array(run.candidate.rejected, pa.string()))
    chosen = table.to_table(columns=names, filter=~rejected)
    rows: list[dict[str, Any]] = chosen.sort_by([("event_time", "ascending"), ("image_id", "ascending")]).to_pylist()
    return rows


def _kept(run: StageRun, present: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of the base release that count as they are: of this version, no duplicate of a picture that is gone, and not
    quarantined for what may have been a busy machine's fault."""
    released = run.released(CLEAN)
    if CLEAN not in released:
        return {}
    table = lake.open_table(CLEAN, released[CLEAN]).to_pyarrow_dataset().to_table()
    return {
        row["image_id"]: row
        for row in table.to_pylist()
        if row["cleaning_version"] == CLEANING_VERSION
        and row["image_id"] in present
        and row["reason"] not in PERHAPS_THE_CHILDS
        and (row["duplicate_of"] is None or row["duplicate_of"] in present)
    }


def _cleaned(store: Store, raw: list[dict[str, Any]], kept: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row of clean.images for each raw row, in their order."""
    source, first = objects.store_at(settings().bucket("raw-images")), dict[str, str]()
    due = len(raw) - len(kept)
    if due:
        say(f"decoding {due:,} images")
    with Decoders(LIMITS) as decoders, ThreadPoolExecutor(decoders.size * 2) as threads:

        def decode(row: dict[str, Any]) -> Cleaned | BadPicture:
            content = landing.read(source, landing.raw_key(row["image_id"], row["format"]))
            try:
                return decoders.cleaned(content, row["source_name"])
            except BadPicture as bad:
                return bad

        writes = list[Future[bool]]()
        done = 0
        for row, result in _ahead(threads, decode, raw, kept):
            if result is None:
                cleaned = kept[row["image_id"]]
                if cleaned["clean_sha256"]:
                    first.setdefault(cleaned["clean_sha256"], row["image_id"])
                yield cleaned
                continue
            cleaned = _row(store, row, result, first)
            if cleaned["state"] == "clean" and isinstance(result, Cleaned):
                writes.append(threads.submit(landing.put_once, store, clean_key(row["image_id"]), result.png))
                if len(writes) > AHEAD:
                    writes.pop(0).result()
            done += 1
            if done % SAID_EVERY == 0:
                say(f"decoded {done:,} of {due:,}")
            yield cleaned
        for write in writes:
            write.result()


def _ahead(
    threads: ThreadPoolExecutor, decode: Any, raw: list[dict[str, Any]], kept: dict[str, dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Cleaned | BadPicture | None]]:
    """Each raw row with its result, None for one that is kept; results are made AHEAD of who takes them."""
    waiting = list[tuple[dict[str, Any], Future[Cleaned | BadPicture] | None]]()
    for row in raw:
        waiting.append((row, None if row["image_id"] in kept else threads.submit(decode, row)))
        if len(waiting) > AHEAD:
            first, future = waiting.pop(0)
            yield first, future.result() if future else None
    for first, future in waiting:
        yield first, future.result() if future else None


def clean_key(image: str) -> str:
    """Where a clean picture lies."""
    return f"{CLEANING_VERSION}/{image[:2]}/{image}.png"


def _row(store: Store, raw: dict[str, Any], result: Cleaned | BadPicture, first: dict[str, str]) -> dict[str, Any]:
    image = raw["image_id"]
    row: dict[str, Any] = {
        "image_id": image,
        "cleaning_version": CLEANING_VERSION,
        "state": "quarantined",
        **dict.fromkeys(("reason", "detail", "clean_uri", "clean_sha256", "width", "height", "perceptual_hash")),
        **dict.fromkeys(("group_id", "duplicate_of")),
        "event_time": raw["event_time"],
        "ingestion_timestamp": raw["ingestion_timestamp"],
        "cleaned_at": clock.now(),
    }
    if isinstance(result, BadPicture):
        return row | {"reason": result.reason, "detail": result.detail}
    row |= {
        "clean_sha256": result.sha256,
        "width": result.width,
        "height": result.height,
        "perceptual_hash": result.phash,
    }
    original = first.setdefault(result.sha256, image)
    if original != image:
        return row | {
            "reason": "duplicate",
            "detail": f"the same pixels as {original}",
            "duplicate_of": original,
        }
    return row | {
        "state": "clean",
        "detail": "; ".join(result.notes) or None,
        "clean_uri": store.where(clean_key(image)),
    }


def _group(store: Store, rows: list[dict[str, Any]]) -> None:
    """Fills in each clean picture's group of near duplicates, anew each time: a new picture may join two groups."""
    import numpy as np

    clean = [row for row in rows if row["state"] == "clean"]
    say(f"looking for near duplicates among {len(clean):,} images")

    def signature(place: int) -> near_duplicates.Signature:
        content = landing.read(store, clean_key(clean[place]["image_id"]))
        return perceptual.signature(decoded(content, LIMITS).rgb)  # our own PNG

    def signatures(places: list[int]) -> list[near_duplicates.Signature]:
        with ThreadPoolExecutor(landing.WRITERS) as threads:
            return list(threads.map(signature, places))

    hashes = np.array([int(row["perceptual_hash"], 16) for row in clean], np.uint64)
    groups = near_duplicates.grouped([row["image_id"] for row in clean], hashes, signatures)
    for row, group in zip(clean, groups, strict=True):
        row["group_id"] = group


def _write(rows: list[dict[str, Any]]) -> int:
    import pyarrow as pa
    from deltalake import write_deltalake

    data = pa.Table.from_pylist(rows, schema=tables.schema(CLEAN))
    write_deltalake(
        lake.uri(CLEAN),
        data,
        mode="overwrite",
        schema_mode="overwrite",
        configuration=dict(lake.KEEP_LOG),
        storage_options=lake.storage_options(),
    )
    return int(lake.version(CLEAN) or 0)


def _groups(rows: list[dict[str, Any]]) -> int:
    groups = [row["group_id"] for row in rows if row["group_id"] is not None]
    return sum(count > 1 for count in Counter(groups).values())


def manifest_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What cleaning came to: totals, and how many were set aside for which reason."""
    quarantined = dict[str, int]()
    for row in rows:
        if row["state"] != "clean":
            quarantined[row["reason"]] = quarantined.get(row["reason"], 0) + 1
    return {
        "cleaning_version": CLEANING_VERSION,
        "total_raw": len(rows),
        "total_clean": len(rows) - sum(quarantined.values()),
        "total_quarantined": sum(quarantined.values()),
        "near_duplicate_groups": _groups(rows),
        "quarantined": dict(sorted(quarantined.items())),
    }
