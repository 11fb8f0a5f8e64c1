"""The gate `landing_complete`: manifest, table and bucket are counted on their own and must agree."""

from __future__ import annotations

from ingestion.images import landing
from ingestion.images.manifests import Manifest
from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.state.objects import Store
from plumbline.verdict import Verdict
from products.images import LABELS, RAW

GATE = "landing_complete"
SAMPLE = 50
MANIFESTS = "manifests/"


def listed(store: Store) -> set[str]:
    """The keys of all pictures in a bucket, by its own listing."""
    prefixes = [f"{number:02x}" for number in range(256)]
    return {key for prefix in prefixes for key in store.keys(prefix, None)}


def hold(run: StageRun, store: Store, manifest: Manifest, before: set[str]) -> None:
    """Recounts what landed. Raises GateFailed that names what differs; the batch is set aside then."""
    import pyarrow.compute as pc

    batch, images, stated = manifest.head["batch_id"], manifest.images, len(manifest.labels())
    of_batch = pc.field("batch_id") == batch
    rows, labels = (
        lake.open_table(table, run.wrote[table]).to_pyarrow_dataset().count_rows(filter=of_batch)
        for table in (RAW, LABELS)
    )
    ids, kinds, hashes = (images[name].to_pylist() for name in ("image_id", "format", "sha256"))
    keys = dict(zip(map(landing.raw_key, ids, kinds), hashes, strict=True))
    after = listed(store)
    missing, foreign = sorted(set(keys) - after), sorted(after - before - set(keys))
    sample = [key for key in sorted(keys)[:: max(1, len(keys) // SAMPLE)] if key in after]
    altered = [key for key in sample if files.sha256(landing.read(store, key)) != keys[key]]
    failed = []
    if rows != len(images):
        failed.append(f"{RAW} has {rows:,} rows of batch {batch}, its manifest {len(images):,}")
    if labels != stated:
        failed.append(f"{LABELS} has {labels:,} rows of batch {batch}, its manifest {stated:,}")
    if missing:
        failed.append(f"{len(missing):,} objects of the manifest are not in the bucket: {store.where(missing[0])}")
    if foreign:
        failed.append(f"{len(foreign):,} objects came in that the manifest does not name: {store.where(foreign[0])}")
    failed += [f"{store.where(key)} does not hold the bytes that its id is made of" for key in altered]
    counts = {
        "manifest": len(images),
        "rows": rows,
        "labels": labels,
        "objects_new": len(after - before),
        "objects_of_an_earlier_try": len(set(keys) & before),
        "known": manifest.head["known"],
        "repeated_in_source": manifest.head["repeated_in_source"],
        "sampled": len(sample),
    }
    evidence = {"batch_id": batch, **counts}
    verdict = gates.record(run, Verdict(GATE, not failed, 5, tuple(failed), extra=counts), evidence)
    if failed:
        again = f"`{run.product.command_of('ingest')} --as-of {run.as_of}`"
        raise GateFailed(
            "what landed is not what the source had:\n  "
            + "\n  ".join(failed)
            + f"\n  Evidence: {verdict.report}. The batch is set aside: run {again} again, it reads the source anew"
        )
