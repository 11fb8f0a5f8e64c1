"""Stage 02: every raw picture is decoded, checked and grouped. What cannot be used is quarantined, with a reason.

A clean picture is a new PNG of its pixels alone, under a key that holds the cleaning's version. A change to what
cleaning does is a new CLEANING_VERSION: everything is cleaned again beside the old objects. At one version, a picture
that is clean already is not decoded again.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import pyarrow as pa

CLEANING_VERSION = "c1"
"""Raise it with any change to what a clean picture's bytes or its reasons are."""

LIMITS = Limits()
"""What a picture may be; a change is a new CLEANING_VERSION."""

PART = 2000
"""Pictures after which a killed run need not decode them again."""


def clean(run: StageRun) -> str:
    """Cleans what is not clean yet and writes clean.images whole. Raises BucketError, GateFailed."""
    import pyarrow as pa

    raw = raw_rows(run)
    kept, due = _divided(run, raw)
    store = objects.store_at(settings().bucket("clean-images"))
    rows = _grouped(store, pa.concat_tables([kept, _cleaned(store, due, kept)]))
    version = _write(rows)
    run.write(CLEAN, version, len(rows))
    run.facts["cleaning"] = manifest_of(rows)
    manifest = {"tables": {RAW: run.pin(RAW), CLEAN: version}, **run.facts["cleaning"]}
    key = f"manifests/clean_manifest-{run.candidate.run_id}-v{version}.json"
    landing.put_once(store, key, files.dumps(manifest).encode())
    for part in store.keys(_progress(due, kept), None):  # before the gate: after it failed, all is looked at again
        store.delete(part)
    cleaning_gate.hold(run, store, manifest, LIMITS)
    contract_gate.audit(run, CLEAN, version)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in manifest["quarantined"].items())
    return (
        f"{manifest['total_clean']:,} of {manifest['total_raw']:,} images are clean at {CLEANING_VERSION} "
        f"({len(due):,} decoded now); quarantined: {reasons or 'none'}{contradictions(raw, rows)}"
    )


def contradictions(raw: pa.Table, rows: pa.Table) -> str:
    """What is to be said of duplicates that came with another label than the picture they repeat; else nothing.

    The label of the repeated picture counts, so somebody should look which one is right.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    doubles = rows.filter(pc.is_valid(rows["duplicate_of"])).select(["image_id", "duplicate_of"]).to_pylist()
    involved = pc.is_in(
        raw["image_id"], value_set=pa.array([name for one in doubles for name in one.values()], pa.string())
    )
    some = raw.filter(involved)
    label = dict(zip(some["image_id"].to_pylist(), some["label_at_ingestion"].to_pylist(), strict=True))
    wrong = [one for one in doubles if label[one["image_id"]] not in (None, label[one["duplicate_of"]])]
    if not wrong:
        return ""
    image, first = wrong[0]["image_id"], wrong[0]["duplicate_of"]
    return (
        f"; {len(wrong):,} duplicates came with another label than the picture they repeat, whose label counts: "
        f"{image} says {label[image]!r}, {first} {label[first]!r}"
    )


def raw_rows(run: StageRun) -> pa.Table:
    """The raw pictures of this run, without those of rejected batches; the earliest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ["image_id", "format", "source_name", "label_at_ingestion", "event_time", "ingestion_timestamp"]
    table = lake.open_table(RAW, run.pin(RAW)).to_pyarrow_dataset()
    rejected = pc.field("batch_id").isin(pa.array(run.candidate.rejected, pa.string()))
    chosen = table.to_table(columns=names, filter=~rejected)
    return chosen.sort_by([("event_time", "ascending"), ("image_id", "ascending")])


def _divided(run: StageRun, raw: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of the base release that count as they are, and the raw rows of all other pictures.

    Those count that are of this version, no duplicate of a picture that is gone, and not quarantined for what may have
    been a busy machine's fault.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    released = run.released(CLEAN)
    if CLEAN not in released:
        return tables.table(CLEAN, []), raw
    present = raw["image_id"].combine_chunks()
    original = pc.field("duplicate_of")
    kept = (
        lake.open_table(CLEAN, released[CLEAN])
        .to_pyarrow_dataset()
        .to_table(
            columns=tables.schema(CLEAN).names,
            filter=(pc.field("cleaning_version") == CLEANING_VERSION)
            & pc.field("image_id").isin(present)
            & (original.is_null() | original.isin(present))
            & ~pc.field("reason").isin(pa.array(PERHAPS_THE_CHILDS, pa.string())),
        )
    )
    done = pc.is_in(raw["image_id"], value_set=kept["image_id"].combine_chunks())
    return kept.cast(tables.schema(CLEAN)), raw.filter(pc.invert(done))


def _cleaned(store: Store, due: pa.Table, kept: pa.Table) -> pa.Table:
    """A row of clean.images for each raw row, in their order; the clean pictures are in the bucket then.

    The rows of each PART are put into the bucket too, until the table has them: a killed run goes on behind the last.
    """
    import pyarrow as pa

    parts, first, progress = [tables.table(CLEAN, [])], dict[str, str](), _progress(due, kept)
    _remember(kept, first)
    if len(due):
        say(f"decoding {len(due):,} images")
    with Decoders(LIMITS) as decoders, ThreadPoolExecutor(decoders.size * 2) as threads:
        for start in range(0, len(due), PART):
            key = f"{progress}/{start:09}.json"
            there = store.read(key)
            if there is None:
                part = _decoded(store, due.slice(start, PART), decoders, threads, first)
                content = {"rows": part.to_pylist()}
                store.create(key, json.dumps(content, default=datetime.isoformat).encode())
                say(f"decoded {start + len(part):,} of {len(due):,}")
            else:
                part = tables.of_json(CLEAN, there.json()["rows"])
                _remember(part, first)
            parts.append(part)
    return pa.concat_tables(parts)


def _progress(due: pa.Table, kept: pa.Table) -> str:
    """Where the parts of this cleaning lie: named by what it is given."""
    ids = (CLEANING_VERSION, *due["image_id"].to_pylist(), "", *kept["image_id"].to_pylist())
    return f"cleaning/{files.sha256(chr(10).join(ids).encode())[:16]}"


def _remember(rows: pa.Table, first: dict[str, str]) -> None:
    """Notes which picture has which pixels."""
    import pyarrow.compute as pc

    clean = rows.filter(pc.equal(rows["state"], "clean"))
    first |= dict(zip(clean["clean_sha256"].to_pylist(), clean["image_id"].to_pylist(), strict=True))


def _decoded(
    store: Store, due: pa.Table, decoders: Decoders, threads: ThreadPoolExecutor, first: dict[str, str]
) -> pa.Table:
    """The rows of some pictures, each decoded and, if it is clean, written."""
    source, rows = objects.store_at(settings().bucket("raw-images")), tables.Rows(CLEAN)

    def decode(row: dict[str, Any]) -> Cleaned | BadPicture:
        content = landing.read(source, landing.raw_key(row["image_id"], row["format"]))
        try:
            return decoders.cleaned(content, row["source_name"])
        except BadPicture as bad:
            return bad

    writes = deque[Future[bool]]()
    for row, result in _ahead(threads, decode, due, ahead=decoders.size * 4):
        cleaned = _row(store, row, result, first)
        if isinstance(result, Cleaned) and cleaned["state"] == "clean":
            writes.append(threads.submit(landing.put_once, store, clean_key(row["image_id"]), result.png))
            if len(writes) > decoders.size * 4:
                writes.popleft().result()
        rows.add(cleaned)
    for write in writes:
        write.result()
    return rows.table()


def _ahead(
    threads: ThreadPoolExecutor, decode: Callable[[dict[str, Any]], Cleaned | BadPicture], due: pa.Table, ahead: int
) -> Iterator[tuple[dict[str, Any], Cleaned | BadPicture]]:
    """Each raw row with its result, in order. So many are made ahead of who takes them: that bounds memory."""
    waiting = deque[tuple[dict[str, Any], Future[Cleaned | BadPicture]]]()
    for row in due.to_pylist():
        waiting.append((row, threads.submit(decode, row)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


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


def _grouped(store: Store, rows: pa.Table) -> pa.Table:
    """The rows with each clean picture's group of near duplicates, made anew: a new one may join two."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    is_clean = pc.equal(rows["state"], "clean")
    clean = rows.filter(is_clean)
    ids = clean["image_id"].to_pylist()
    say(f"looking for near duplicates among {len(ids):,} images")

    def signature(place: int) -> near_duplicates.Signature:
        content = landing.read(store, clean_key(ids[place]))
        return perceptual.signature(decoded(content, LIMITS).rgb)  # our own PNG

    def signatures(places: list[int]) -> list[near_duplicates.Signature]:
        with ThreadPoolExecutor(landing.WRITERS) as threads:
            return list(threads.map(signature, places))

    hashes = np.array([int(text, 16) for text in clean["perceptual_hash"].to_pylist()], np.uint64)
    groups = pa.array(near_duplicates.grouped(ids, hashes, signatures), pa.string())
    column = pc.replace_with_mask(pa.nulls(len(rows), pa.string()), is_clean.combine_chunks(), groups)
    return rows.set_column(rows.column_names.index("group_id"), "group_id", column)


def _write(rows: pa.Table) -> int:
    from deltalake import write_deltalake

    write_deltalake(
        lake.uri(CLEAN),
        rows,
        mode="overwrite",
        schema_mode="overwrite",
        configuration=dict(lake.KEEP_LOG),
        storage_options=lake.storage_options(),
    )
    return int(lake.version(CLEAN) or 0)


def manifest_of(rows: pa.Table) -> dict[str, Any]:
    """What cleaning came to: totals, how many were set aside for which reason, and groups of near duplicates."""
    reasons = Counter(reason for reason in rows["reason"].to_pylist() if reason is not None)
    groups = Counter(group for group in rows["group_id"].to_pylist() if group is not None)
    return {
        "cleaning_version": CLEANING_VERSION,
        "total_raw": len(rows),
        "total_clean": len(rows) - reasons.total(),
        "total_quarantined": reasons.total(),
        "quarantined": dict(sorted(reasons.items())),
        "near_duplicate_groups": sum(count > 1 for count in groups.values()),
    }
